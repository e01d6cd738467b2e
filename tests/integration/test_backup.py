"""Backups: what they need, in which order they are copied, what a restored or moved store goes on with.

The commands are those of docs/operations.md, run as they stand there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from killed_builds import SAID_BY_RUNS, contents, differences, small_region
from s3_server import BUCKET, put_plainly, s3_environment, s3_server, use_server
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index, store_attributes
from h2crop_data.errors import HeldStoreError, PlanError, StoreError
from h2crop_data.maintenance.compare import compare_stores
from h2crop_data.maintenance.migrate import migrate_store
from h2crop_data.maintenance.restore import restore_root
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.pipeline.extension import plan_extensions
from h2crop_data.pipeline.refresh import refresh_store
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.sources import moved_files
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.location import open_storage
from h2crop_data.validation.validate import validate_store

PAGE = Path(__file__).parents[2] / "docs/operations.md"
#: Where the files of a store are copied in this order, each part later than the one before.
PARTS = ("zarr.json", ".build", "index", "")
#: What no backup needs.
LEFT_OUT = ("tmp", "work", "lock", "clock")
#: Names of the files of blocks.
SHARDS = r"20\d\d/\w+/c\."


def commands(name: str) -> str:
    """The shell commands that stand below `<!-- NAME -->` in the page."""
    match = re.search(rf"<!-- {name} -->\n\n((?:    .*\n)+)", PAGE.read_text(encoding="utf-8"))
    assert match, f"{PAGE.name} has no commands <!-- {name} -->"
    return re.sub(r"^    ", "", match[1], flags=re.MULTILINE)


def run(
    name: str,
    env: dict[str, str] | None = None,
    *,
    under: Sequence[str] = (),
    fails: bool = False,
    **places: object,
) -> None:
    """Run commands of the page. places: what stands in the place of STORE, BACKUP and so on. under: starts them."""
    script = commands(name)
    for place, path in places.items():
        script = re.sub(rf"\b{place}\b", str(path), script)
    done = subprocess.run([*under, "bash", "-c", script], capture_output=True, text=True, env=env, cwd="/", check=False)
    assert (done.returncode == 0) is not fails, f"{script}\n{done.stdout}{done.stderr}"


class WatchedStorage(LocalStorage):
    """A store in a folder; somebody is told before a file of it is written."""

    def __init__(self, folder: Path, told: Callable[[str], None]) -> None:
        super().__init__(folder)
        self.told = told

    def write_file(self, name: str, parts: Iterable[bytes], *, read_only: bool) -> None:
        self.told(name)
        super().write_file(name, parts, read_only=read_only)


class StopBuildError(Exception):
    """Ends a build in the middle."""


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of a region of two seasons of four blocks."""
    folder = tmp_path_factory.mktemp("region")
    small_region(folder)
    return folder / "recipe.yaml"


#: The moments of a build of season 2022, then 2023, at which a whole copy is taken: before these files are written.
MOMENTS = [
    ".build/2022/000001.json",
    "index/r1/root.json",
    "zarr.json",
    ".build/2023/000002.json",
    "index/r2/samples-2023.parquet",
    "zarr.json",
]


@pytest.fixture(scope="module")
def moments(region: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Copies of a store at the moments of its build, and at the end; only to be read."""
    folder = tmp_path_factory.mktemp("moments")
    store, waiting = folder / "store", list(MOMENTS)

    def tell(name: str) -> None:
        if waiting and name == waiting[0]:
            waiting.pop(0)
            shutil.copytree(store, folder / str(len(MOMENTS) - len(waiting) - 1))

    for season in (2022, 2023):
        build_store(load_recipe(region).for_seasons([season]), WatchedStorage(store, tell), workers=1)
    assert not waiting
    store.rename(folder / str(len(MOMENTS)))
    return [folder / str(k) for k in range(len(MOMENTS) + 1)]


@pytest.fixture(scope="module")
def finished(moments: list[Path]) -> Path:
    """The store with both seasons; only to be read."""
    return moments[-1]


def copy_part(part: str, source: Path, target: Path) -> None:
    """Copy one of PARTS as the commands of the page do."""
    for path in source.rglob("*"):
        name = path.relative_to(source).as_posix()
        first = name.split("/")[0]
        wanted = first == part if part else first not in PARTS
        if path.is_file() and wanted and not (first == ".build" and name.split("/")[1] in LEFT_OUT):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, and what is made at work."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if not name.startswith(tuple(f".build/{part}" for part in LEFT_OUT))
    }


def kept_files(folder: Path) -> dict[str, bytes]:
    """The same without what runs say of themselves, those that were refused too."""
    return {name: data for name, data in files_of(folder).items() if name.split("/")[-1] not in SAID_BY_RUNS}


def go_on(region: Path, store: Path | str) -> None:
    """Build both seasons, one after the other, as the store was built that nothing happened to."""
    for season in (2022, 2023):
        build_store(load_recipe(region).for_seasons([season]), store, workers=1)


def assert_as_undisturbed(store: Path, finished: Path) -> None:
    """Whether a store is valid and holds what the one holds that nothing happened to."""
    assert validate_store(store).errors == 0
    assert compare_stores(finished, store).same
    kept, there = files_of(finished), files_of(store)
    shards = [name for name in kept if re.fullmatch(r"20\d\d/\w+/c\..*|\.build/20\d\d/.*\.sums|index/r1/.*", name)]
    assert len(shards) > 80
    assert {name: there.get(name) for name in shards} == {name: kept[name] for name in shards}


@pytest.mark.parametrize(
    "times",
    [(0, 0, 0, 0), (0, 0, 3, 3), (0, 1, 2, 3), (2, 6, 6, 6), (3, 4, 5, 6), (4, 4, 6, 6)],
    ids=lambda times: "-".join(map(str, times)),
)
def test_a_copy_of_a_store_that_is_being_built_goes_on(
    moments: list[Path], region: Path, finished: Path, tmp_path: Path, times: tuple[int, ...]
) -> None:
    """However the parts of the copy fall into the build, each later than the one before."""
    store = tmp_path / "restored"
    for part, moment in zip(PARTS, times, strict=True):
        copy_part(part, moments[moment], store)
    if (store / "zarr.json").exists():
        # Before anything is built readers have the release of the copy.
        opened = h2crop_data.open(store, 2022)
        whole = h2crop_data.open(finished, 2022, release=1)
        assert opened.load().equals(whole.load())
        # Of files that each release replaces the copy may have newer ones.
        wrong = {one.where for one in validate_store(store, mode="quick").findings if one.severity == "error"}
        assert wrong <= {"DATASHEET.md"}
    if times[0] <= 2 and times[2] >= 3:
        # The first release was made between root and index: the error has the cure.
        with pytest.raises(StoreError, match=f"lost its root.*`h2crop restore {store}`"):
            go_on(region, store)
        restore_root(store)
    go_on(region, store)
    assert_as_undisturbed(store, finished)


def test_a_root_that_is_copied_last_may_name_files_that_were_not_there(moments: list[Path], tmp_path: Path) -> None:
    """Why the order counts, and that the copy does not pass for a whole one."""
    store = tmp_path / "restored"
    for part, moment in zip(reversed(PARTS), (3, 4, 4, 6), strict=True):
        copy_part(part, moments[moment], store)
    assert store_attributes(store)["release"] == 2
    assert validate_store(store, mode="quick").errors


@pytest.mark.parametrize("way", ["tar", "rsync"])
def test_the_commands_of_the_page_back_up_a_store_that_is_being_built(
    region: Path, finished: Path, tmp_path: Path, way: str
) -> None:
    if shutil.which(way) is None:
        pytest.skip(f"{way} is not installed")
    store, backup, restored = tmp_path / "store", tmp_path / "backup", tmp_path / "elsewhere/restored"
    backup.mkdir()
    copied = []

    def back_up(outcome: Any, done: int, total: int) -> None:
        if done == 3:
            with pytest.raises(HeldStoreError):
                migrate_store(store)
            run(f"backup {way}", STORE=store, BACKUP=backup)
            copied.append(done)

    build_store(load_recipe(region).for_seasons([2022]), store, workers=1, on_block=back_up)
    assert copied == [3]
    run(f"restore {way}", BACKUP=backup, STORE=restored)
    kept = len(list(restored.glob(".build/2022/*.json")))
    assert kept >= 3
    assert not any((restored / ".build" / name).exists() for name in LEFT_OUT)
    report = build_store(load_recipe(region).for_seasons([2022]), restored, workers=1)
    assert (report.already_done, report.built) == (kept, 4 - kept)
    if way == "rsync":
        # A further backup beside the first, which stays as it is: what is the same is there once.
        first = (backup / "latest").resolve()
        before = files_of(first)
        while len(list(backup.glob("20*"))) < 2:
            subprocess.run(["sleep", "1"], check=True)
            run(f"backup {way}", STORE=store, BACKUP=backup)
        assert files_of(backup / "latest") == files_of(store)
        assert files_of(first) == before
        shard = next(name for name in before if re.match(SHARDS, name))
        assert (first / shard).samefile(backup / "latest" / shard)
    go_on(region, restored)
    assert_as_undisturbed(restored, finished)
    assert [line for line in differences(restored, finished) if ".build/work/" not in line] == []


@pytest.mark.parametrize("way", ["tar", "rsync"])
def test_a_backup_that_could_not_read_a_file_fails_and_leaves_the_one_before(
    finished: Path, tmp_path: Path, way: str
) -> None:
    if shutil.which(way) is None:
        pytest.skip(f"{way} is not installed")
    # Root reads whatever it likes.
    under = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if under and subprocess.run([*under, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing here takes the right to read every file from root")
    store, backup, restored = tmp_path / "store", tmp_path / "backup", tmp_path / "restored"
    shutil.copytree(finished, store)
    backup.mkdir()
    run(f"backup {way}", under=under, STORE=store, BACKUP=backup)
    shard = next(store / name for name in files_of(store) if re.match(SHARDS, name))
    shard.chmod(0)
    # As one that was written since.
    os.utime(shard, (0, 0))
    run(f"backup {way}", under=under, fails=True, STORE=store, BACKUP=backup)
    run(f"restore {way}", STORE=restored, BACKUP=backup)
    assert files_of(restored) == files_of(finished)


def test_a_copy_without_the_builders_files_can_be_read_and_says_what_it_lacks(
    region: Path, finished: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store, ignore=shutil.ignore_patterns(".build"))
    before = files_of(store)
    assert validate_store(store).errors == 0
    assert compare_stores(finished, store).same
    recipe = load_recipe(region)
    for refused in (
        lambda: build_store(recipe, store, workers=1),
        lambda: refresh_store(recipe, store, workers=1),
        lambda: migrate_store(store),
    ):
        with pytest.raises(StoreError, match=r"has no \.build/ to continue from.*copy \.build/ as well"):
            refused()
    for command in (
        ["retract", str(store), "--block", "2022:0", "--reason", "haze", "--yes"],
        ["relabel", str(store), "--out", str(tmp_path / "labels")],
        ["plan", str(region), "--extend", str(store)],
    ):
        told = CliRunner().invoke(app, command)
        assert isinstance(told.exception, PlanError), (command, told.exception)
        assert "has no plans" in str(told.exception), command
    assert files_of(store) == before
    # With these files it goes on.
    copy_part(".build", finished, store)
    assert build_store(recipe, store, workers=1).built == 0


@pytest.mark.parametrize("lost", [["2022"], ["2022", "2023"]])
def test_a_store_that_lost_a_plan_of_a_release_is_not_built_over(
    region: Path, finished: Path, tmp_path: Path, lost: list[str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    for season in lost:
        shutil.rmtree(store / ".build/plan" / season)
    before = kept_files(store)
    recipe = load_recipe(region)
    attempts: dict[str, Callable[[], object]] = {
        "build": lambda: build_store(recipe, store, workers=1),
        "refresh": lambda: refresh_store(recipe, store, workers=1),
        "extend": lambda: build_store(recipe, store, extend=True, workers=1),
        "migrate": lambda: migrate_store(store),
        "retract": lambda: retract_from_store(store, {2023: [0]}, [], "haze"),
        "plan": lambda: plan_extensions(recipe, str(store)),
    }
    for name, attempt in attempts.items():
        with pytest.raises((StoreError, PlanError)) as told:
            attempt()
        if len(lost) == 1 or name in ("build", "refresh", "extend"):
            assert re.search(rf"lost the plan of {', '.join(lost)} \(.*Restore the folder from a", str(told.value)), (
                name
            )
        assert kept_files(store) == before, name
    assert compare_stores(finished, store).same
    assert store_attributes(store)["release"] == 2


def test_an_old_backup_over_a_newer_store_brings_back_nothing_that_was_retracted(
    region: Path, moments: list[Path], tmp_path: Path
) -> None:
    """The backup is of release 1. Files of releases 2 and 3 stay, and nothing is built before the root of 3 is back."""
    store, backup = tmp_path / "store", moments[3]
    shutil.copytree(moments[-1], store)
    retract_from_store(store, {2022: [1]}, [], "haze nobody saw")
    newer = files_of(store)
    for part in PARTS:
        copy_part(part, backup, store)
    with pytest.raises(StoreError, match=rf"release 1, but release 3 was made.*`h2crop restore {store}`"):
        build_store(load_recipe(region), store, workers=1)
    assert restore_root(store).before == 1
    # The record of what was retracted is newer than the backup, which had none: it is still there.
    report = build_store(load_recipe(region), store, workers=1)
    assert (report.release, report.built) == (3, 0)
    assert list(read_index(store, "blocks").query("retracted != ''")["block"]) == [1]
    after = files_of(store)
    released = {name for name in newer if name.startswith("index/")}
    assert {name: after[name] for name in released} == {name: newer[name] for name in released}
    # Without it nothing is built before it is restored.
    (store / ".build/retracted.json").unlink()
    with pytest.raises(StoreError, match=r"excludes block 1 of 2022 \(haze nobody saw\).*Restore it from a backup"):
        build_store(load_recipe(region).for_seasons([2023]), store, extend=True, workers=1)
    retract_from_store(store, {2022: [1]}, [], "haze nobody saw")
    assert h2crop_data.open(store, 2022).sizes["sample"] == 3


def begun(region: Path, store: Path | str) -> None:
    """Build a block of season 2022 or two, then end: there are four."""

    def stop(outcome: Any, done: int, total: int) -> None:
        raise StopBuildError

    with pytest.raises(StopBuildError):
        build_store(load_recipe(region).for_seasons([2022]), store, workers=1, on_block=stop)


def test_a_store_and_its_recipe_are_moved_in_the_middle_of_a_build(
    region: Path, finished: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(region.parent, here / "region")
    begun(here / "region/recipe.yaml", here / "store")
    # The recipe names its catalogs, and these their scenes, from where they lie. The plan says where they were.
    here.rename(there)
    (there / "store").rename(tmp_path / "store")
    (tmp_path / "store").rename(there / "store")
    assert 1 <= len(list((there / "store").glob(".build/2022/*.json"))) <= 3
    assert b"/here/region/sentinel2/" in (there / "store/.build/plan/2022/sentinel2.parquet").read_bytes()
    go_on(there / "region/recipe.yaml", there / "store")
    assert_as_undisturbed(there / "store", finished)


def test_a_recipe_may_name_its_catalog_where_it_was_moved_to(region: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(region.parent, tmp_path / "region")
    recipe, store = tmp_path / "region/recipe.yaml", tmp_path / "store"
    begun(recipe, store)
    # Another catalog beside the first is another recipe, which the error tells how to get back from.
    shutil.copy(tmp_path / "region/sentinel2.json", tmp_path / "region/other.json")
    recipe.write_text(recipe.read_text().replace("sentinel2.json", "other.json"))
    with pytest.raises(PlanError, match=r"another recipe for 2022 .*sentinel2\.catalog was") as told:
        build_store(load_recipe(recipe).for_seasons([2022]), store, workers=1)
    named = re.search(r"(\S+plan\.json) has all of them under `recipe`", str(told.value))
    assert named
    assert json.loads(Path(named[1]).read_text())["recipe"]["sentinel2"]["catalog"].endswith("sentinel2.json")
    # Moved away from where it was, with its scenes.
    (tmp_path / "region/other.json").unlink()
    (tmp_path / "archive").mkdir()
    for name in ("sentinel2", "sentinel2.json"):
        (tmp_path / "region" / name).rename(tmp_path / "archive" / name)
    recipe.write_text(recipe.read_text().replace("other.json", "../archive/sentinel2.json"))
    go_on(recipe, store)
    assert validate_store(store).errors == 0
    assert (
        contents(store).items()
        >= {
            name: data for name, data in contents(finished).items() if name.startswith("2022/") and "/c/" in name
        }.items()
    )
    # Where nothing is left to build no scene is looked for.
    shutil.rmtree(tmp_path / "archive/sentinel2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moved_files, "listed_here", lambda *of: pytest.fail("a catalog was read"))
        assert build_store(load_recipe(recipe), store, workers=1).built == 0


def test_scenes_that_were_moved_without_their_catalog_are_named(region: Path, tmp_path: Path) -> None:
    shutil.copytree(region.parent, tmp_path / "region")
    recipe, store = tmp_path / "region/recipe.yaml", tmp_path / "store"
    begun(recipe, store)
    before = kept_files(store)
    (tmp_path / "region/sentinel2").rename(tmp_path / "region/elsewhere")
    with pytest.raises(BuildError, match=r"\d of \d blocks failed[\s\S]*region/sentinel2/S2_2022") as told:
        build_store(load_recipe(recipe).for_seasons([2022]), store, workers=1)
    assert "Finished blocks are kept" in str(told.value)
    assert kept_files(store).items() >= before.items()
    # A catalog that is damaged, or gone, changes nothing of that.
    whole = (tmp_path / "region/sentinel2.json").read_bytes()
    (tmp_path / "region/sentinel2.json").write_text("{")
    with pytest.raises(BuildError, match=r"region/sentinel2/S2_2022"):
        build_store(load_recipe(recipe).for_seasons([2022]), store, workers=1)
    # A catalog that names them where they are.
    (tmp_path / "region/sentinel2.json").write_bytes(whole.replace(b"./sentinel2/", b"./elsewhere/"))
    assert build_store(load_recipe(recipe).for_seasons([2022]), store, workers=1).release == 1


def test_other_scenes_under_the_same_name_are_not_taken(region: Path, tmp_path: Path) -> None:
    shutil.copytree(region.parent, tmp_path / "region")
    recipe, store = tmp_path / "region/recipe.yaml", tmp_path / "store"
    begun(recipe, store)
    (tmp_path / "region/sentinel2").rename(tmp_path / "region/elsewhere")
    listed = tmp_path / "region/sentinel2.json"
    text = listed.read_text().replace("./sentinel2/", "./elsewhere/")

    def updated(item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "properties": {**item["properties"], "updated": "2026-01-01T00:00:00Z"}}

    for change in (lambda items: list(map(updated, items)), lambda items: items + items):
        document = json.loads(text)
        document["features"] = change(document["features"])
        listed.write_text(json.dumps(document))
        with pytest.raises(BuildError, match=r"region/sentinel2/S2_2022"):
            build_store(load_recipe(recipe).for_seasons([2022]), store, workers=1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an S3 server with two buckets."""
    with s3_server() as url:
        put_plainly(url, "backup")
        yield url


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Where nothing is yet, below the bucket."""
    use_server(server, monkeypatch)
    return f"{BUCKET}/{tmp_path.name}"


def uploaded(store: Path, url: str) -> None:
    """Copy a store into a bucket, without what backups leave out."""
    target = open_storage(url)
    for name, data in files_of(store).items():
        target.write(name, [data])


def downloaded(url: str, store: Path) -> None:
    """Copy a store out of a bucket, everything."""
    source = open_storage(url)
    for name, _ in source.names():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(source.read(name))


def test_a_store_moves_from_a_folder_into_a_bucket_and_back_while_it_is_built(
    region: Path, finished: Path, bucket: str, tmp_path: Path
) -> None:
    recipe = load_recipe(region).for_seasons([2022])
    begun(region, tmp_path / "one")
    uploaded(tmp_path / "one", f"s3://{bucket}/store")
    begun(region, f"s3://{bucket}/store")
    downloaded(f"s3://{bucket}/store", tmp_path / "two")
    report = build_store(recipe, tmp_path / "two", workers=1)
    assert report.already_done >= 2
    uploaded(tmp_path / "two", f"s3://{bucket}/three")
    build_store(load_recipe(region).for_seasons([2023]), f"s3://{bucket}/three", workers=1)
    downloaded(f"s3://{bucket}/three", tmp_path / "three")
    assert_as_undisturbed(tmp_path / "three", finished)
    there, whole = contents(tmp_path / "three"), contents(finished)
    ours = {name for name in there if not name.startswith((".build/clock", ".build/work"))}
    assert ours == {name for name in whole if not name.startswith(".build/work")}
    assert {name for name in ours if there[name] != whole[name]} == set()


def test_a_lock_that_was_copied_from_a_folder_is_named(region: Path, bucket: str, tmp_path: Path) -> None:
    begun(region, tmp_path / "store")
    uploaded(tmp_path / "store", f"s3://{bucket}/store")
    open_storage(f"s3://{bucket}/store").write(".build/lock", [(tmp_path / "store/.build/lock").read_bytes()])
    with pytest.raises(StoreError, match=r"the lock of .* is damaged: .*; delete it if no builder is at work"):
        build_store(load_recipe(region).for_seasons([2022]), f"s3://{bucket}/store", workers=1)


def test_the_commands_of_the_page_back_up_a_bucket_while_a_store_is_built_in_it(
    region: Path, finished: Path, server: str, bucket: str, tmp_path: Path
) -> None:
    if shutil.which("aws") is None:
        pytest.skip("aws is not installed")
    environment, url = s3_environment(server), f"s3://{bucket}/store"
    backup, restored = f"s3://backup/{tmp_path.name}", f"s3://{bucket}/restored"
    recipe: Recipe = load_recipe(region)

    def back_up(outcome: Any, done: int, total: int) -> None:
        if done == 2:
            run("backup s3", environment, STORE=url, BACKUP=backup)

    # Before there is a release, and again into the same place.
    build_store(recipe.for_seasons([2022]), url, workers=1, on_block=back_up)
    copied = {name for name, _ in open_storage(backup).names()}
    assert ".build/2022/000001.json" in copied
    assert "zarr.json" not in copied
    build_store(recipe.for_seasons([2023]), url, workers=1, on_block=back_up)
    copied = {name for name, _ in open_storage(backup).names()}
    assert {"zarr.json", ".build/2023/000001.json", "index/r1/root.json"} <= copied
    assert not {".build/lock", ".build/clock", "index/r2/root.json"} & copied
    run("restore s3", environment, STORE=restored, BACKUP=backup)
    assert {name for name, _ in open_storage(restored).names()} == copied
    report = build_store(recipe.for_seasons([2023]), restored, workers=1)
    assert report.release == 2
    assert report.already_done >= 2
    run("move s3", environment, OLD=restored, NEW=tmp_path / "moved")
    assert_as_undisturbed(tmp_path / "moved", finished)
    assert not (tmp_path / "moved/.build/lock").exists()
    run("move s3", environment, OLD=tmp_path / "moved", NEW=f"s3://{bucket}/moved")
    assert {name for name, _ in open_storage(f"s3://{bucket}/moved").names()} == set(files_of(tmp_path / "moved"))
