"""Upgrades: a build that an earlier h2crop began goes on, or says why not; what a newer one began is left alone."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from changed_stores import edit_json, layout_of
from killed_builds import SAID_BY_RUNS, small_region
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.cube.reading import store_attributes
from h2crop_data.cube.schema import Codec
from h2crop_data.errors import FormatVersionError, H2cropError, PlanError, StoreError, StoreOutageError
from h2crop_data.maintenance.compare import Choice, compare_stores
from h2crop_data.maintenance.migrate import migrate_store
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.plan import load_plan
from h2crop_data.pipeline.refresh import refresh_store
from h2crop_data.recipe.model import load_recipe
from h2crop_data.storage.local import LocalStorage
from h2crop_data.validation.validate import validate_store

STORES = Path(__file__).parents[1] / "stores"
#: Of the archives: blocks that are finished, and those that are left.
FINISHED, LEFT = [0, 1, 2], [3, 4, 5, 6, 7]


def unpacked(name: str, folder: Path) -> tuple[Path, Path]:
    """The recipe and the store of a build that was killed, elsewhere than it was begun."""
    with zipfile.ZipFile(STORES / f"begun-{name}.zip") as archive:
        archive.extractall(folder)
    return folder / "region/recipe.yaml", folder / "store"


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a store but for units of work, and what a run says of itself, one that is refused too."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if path.name not in SAID_BY_RUNS and not name.startswith(".build/work/")
    }


@pytest.mark.parametrize("name", ["before", "format-1.2"])
def test_a_build_that_the_version_before_began_goes_on(name: str, tmp_path: Path) -> None:
    recipe, store = unpacked(name, tmp_path)
    before = files_of(store)
    assert sorted(int(path.stem) for path in store.glob(".build/2022/*.json")) == FINISHED
    report = build_store(load_recipe(recipe), store, workers=1)
    assert (report.already_done, report.built, report.release) == (len(FINISHED), len(LEFT), 1)
    after = files_of(store)
    assert {name: after[name] for name in before} == before
    # The blocks that were left are as those that were there: without checksums of chunks, with flags of 16 bits.
    assert layout_of(store).codec == Codec(checksum=False)
    documents = [json.loads((store / f"2022/{array}/zarr.json").read_text()) for array in ("s2", "enmap_quality")]
    assert [[codec["name"] for codec in inner_codecs(document)] for document in documents] == [["bytes", "blosc"]] * 2
    assert documents[1]["data_type"] == "uint16"
    assert validate_store(store).errors == 0
    build_store(load_recipe(recipe), tmp_path / "afresh", workers=1)
    assert layout_of(tmp_path / "afresh").codec == Codec()
    assert compare_stores(tmp_path / "afresh", store, Choice(full=True)).same


def inner_codecs(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The codecs of the inner chunks of an array, by its document."""
    codecs: list[dict[str, Any]] = document["codecs"][0]["configuration"]["codecs"]
    return codecs


@pytest.mark.parametrize("name", ["format-1.1", "format-1.0"])
def test_a_build_that_computed_otherwise_is_kept_and_says_what_can_be_done(name: str, tmp_path: Path) -> None:
    recipe, store = unpacked(name, tmp_path)
    before = files_of(store)
    error = r"2022 was planned by an h2crop with other algorithms, and 5 block\(s\) are not built \(3, 4, 5, 6, 7\)"
    with pytest.raises(PlanError, match=f"{error}; finish them with that h2crop, leave them out with `h2crop retract"):
        build_store(load_recipe(recipe), store, workers=1)
    assert files_of(store) == before, "an h2crop that computes as it did may go on"
    if name == "format-1.0":
        with pytest.raises(StoreError, match="was written by an older h2crop; run `h2crop migrate"):
            refresh_store(load_recipe(recipe), store, workers=1)
        assert files_of(store) == before
    assert migrate_store(store).mended == (len(FINISHED) if name == "format-1.0" else 0)
    with pytest.raises(PlanError, match=error):
        refresh_store(load_recipe(recipe), store, workers=1)
    # Without these blocks a release is made of what is finished.
    release = retract_from_store(store, {2022: LEFT}, [], "planned before an upgrade")[1]
    assert release == 1
    after = files_of(store)
    shards = [file for file in before if file.startswith("2022/")]
    assert len(shards) == 8 * len(FINISHED)
    assert {file: after[file] for file in shards} == {file: before[file] for file in shards}
    assert store_attributes(store)["seasons"]["2022"]["samples"] == len(FINISHED)
    assert validate_store(store).errors == 0


def test_settings_that_an_upgrade_gave_other_defaults_are_named(tmp_path: Path) -> None:
    recipe, store = unpacked("format-1.1", tmp_path)
    migrate_store(store)
    retract_from_store(store, {2022: LEFT}, [], "planned before an upgrade")
    with pytest.raises(
        PlanError, match=r"started with another recipe for 2022 \(it differs in enmap, sentinel2\)"
    ) as told:
        build_store(load_recipe(recipe), store, workers=1)
    assert 'enmap.coregistration was "none", is "apply"' in str(told.value)
    assert "write the former values into it to continue" in str(told.value)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a region and a finished store, only to be copied."""
    folder = tmp_path_factory.mktemp("upgrade")
    (folder / "region").mkdir()
    small_region(folder / "region")
    recipe = load_recipe(folder / "region/recipe.yaml").for_seasons([2022])
    build_store(recipe, folder / "store", workers=1)
    return folder


PLAN, ROOTS = [".build/plan/2022/plan.json"], ["zarr.json", "index/r1/root.json"]
#: By what a newer h2crop may have written: files of the store, the change, and what is said.
NEWER: dict[str, tuple[list[str], Callable[[Any], None], str]] = {
    "plan": (
        PLAN,
        lambda plan: plan.update(plan_version=5),
        r"is a plan of version 5, this h2crop reads up to 4: a newer h2crop made it; install that version or a later",
    ),
    "setting": (
        PLAN,
        lambda plan: plan["recipe"]["store"].update(compactness=3),
        r"has settings unknown to this h2crop.*store\.compactness",
    ),
    "major": (
        ROOTS,
        lambda root: root["attributes"].update(format_version="3.0"),
        r"has format 3\.0, .* reads 1\.x and 2\.x: a newer h2crop wrote it; install that version or a later one",
    ),
    "minor": (
        ROOTS,
        lambda root: root["attributes"].update(format_version="2.1"),
        r"has format 2\.1, this h2crop writes 2\.0 and can only read it: a newer h2crop wrote it",
    ),
}
#: Commands that write a store or look at its plans, and those that read a release.
WRITING = {
    "build": ["build", "{recipe}", "--out", "{store}"],
    "refresh": ["refresh", "{recipe}", "--out", "{store}"],
    "migrate": ["migrate", "{store}"],
    "retract": ["retract", "{store}", "--block", "2022:0", "--reason", "haze", "--yes"],
    "relabel": ["relabel", "{store}", "--out", "{other}"],
    "prune": ["prune", "{store}"],
}
PLANNING = {"plan": ["plan", "{recipe}", "--extend", "{store}"]}
READING = {
    "inspect": ["inspect", "{store}"],
    "validate": ["validate", "{store}"],
    "compare": ["compare", "{store}", "{finished}"],
    "export-h5": ["export-h5", "{store}", "{other}"],
}
REFUSED = {
    "plan": {**WRITING, **PLANNING},
    "setting": {**WRITING, **PLANNING},
    "major": {**WRITING, **READING},
    "minor": WRITING,
}


@pytest.mark.parametrize("newer", NEWER)
def test_what_a_newer_version_began_is_refused_in_words_by_every_command(
    built: Path, tmp_path: Path, newer: str
) -> None:
    files, change, words = NEWER[newer]
    store = tmp_path / "store"
    shutil.copytree(built / "store", store)
    for file in files:
        edit_json(store / file, change)
    before = files_of(store)
    places = {"recipe": built / "region/recipe.yaml", "store": store, "finished": built / "store"}
    for verb, command in REFUSED[newer].items():
        given = [part.format(**places, other=tmp_path / f"other-{verb}") for part in command]
        told = CliRunner().invoke(app, given)
        assert isinstance(told.exception, H2cropError), (verb, told.exception, told.output)
        assert re.search(words, str(told.exception), re.DOTALL), (verb, str(told.exception))
        assert files_of(store) == before, verb
    if newer != "major":
        # Who reads is not concerned.
        assert CliRunner().invoke(app, ["inspect", str(store)]).exit_code == 0
        assert validate_store(store, mode="quick").errors == 0


def test_a_block_of_a_newer_algorithm_is_not_taken_for_one_of_this(built: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(built / "store", store)
    recipe = load_recipe(built / "region/recipe.yaml").for_seasons([2022])
    edit_json(store / ".build/2022/000001.json", lambda marker: marker["hashes"].update(s2="0" * 64))
    with pytest.raises(PlanError, match=r"block 1 of 2022 in .* was built from other inputs \(s2\); build into a new"):
        build_store(recipe, store, workers=1)
    edit_json(store / ".build/2022/000001.json", lambda marker: marker.pop("sums"))
    with pytest.raises(
        StoreError, match=r"000001\.json is damaged \(it lacks sums\); restore it from a backup, or delete it and rerun"
    ):
        build_store(recipe, store, workers=1)
    # A plan of a newer algorithm, finished: nothing has to be built, so it can be gone on from.
    shutil.rmtree(store)
    shutil.copytree(built / "store", store)
    edit_json(store / ".build/plan/2022/plan.json", lambda plan: plan["algorithm"].update(s2=99))
    assert build_store(recipe, store, workers=1).built == 0
    (store / ".build/2022/000001.json").unlink()
    with pytest.raises(PlanError, match=r"planned by an h2crop with other algorithms, and 1 block\(s\) are not"):
        build_store(recipe, store, workers=1)


def test_a_release_of_a_newer_format_is_refused_where_copies_of_older_ones_remain(built: Path, tmp_path: Path) -> None:
    """A copy of an older root is no remedy for a root of a newer format: it would undo the release."""
    store = tmp_path / "store"
    shutil.copytree(built / "store", store)
    shutil.copytree(store / "index/r1", store / "index/r2")
    for name in ("zarr.json", "index/r2/root.json"):
        edit_json(store / name, lambda root: root["attributes"].update(format_version="3.0", release=2))
    with pytest.raises(FormatVersionError, match=r"has format 3\.0"):
        validate_store(store)


class DownStorage(LocalStorage):
    """A store whose server is down."""

    def read(self, name: str) -> bytes:
        raise StoreOutageError(f"cannot read {self.where(name)}: service unavailable")


def test_a_plan_that_cannot_be_read_now_is_not_called_damaged(built: Path, tmp_path: Path) -> None:
    """Its error says to delete a damaged one."""
    with pytest.raises(StoreOutageError, match="service unavailable"):
        load_plan(DownStorage(built / "store"), ".build/plan/2022/")
    shutil.copytree(built / "store", tmp_path / "store")
    unreadable = "restore it from a backup, or, where no release has its samples, delete it and plan again"
    for name, content in (("plan.json", b"{"), ("samples.parquet", b""), ("squares.parquet", None)):
        path = tmp_path / "store/.build/plan/2022" / name
        whole = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(PlanError, match=rf"is damaged \(.*; {unreadable}"):
            load_plan(LocalStorage(tmp_path / "store"), ".build/plan/2022/")
        path.write_bytes(whole)
    load_plan(LocalStorage(tmp_path / "store"), ".build/plan/2022/")
