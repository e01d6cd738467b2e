"""A release is compared with the newest one before it is written: nothing finished changes or comes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from changed_stores import change_values, edit_json, layout_of
from killed_builds import SAID_BY_RUNS
from yearly_region import yearly_region

from h2crop_data.cube.reading import read_index, store_attributes
from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.errors import PlanError, StoreError
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.plan import keep_plan, load_plan
from h2crop_data.recipe.model import Recipe
from h2crop_data.storage.local import LocalStorage

SEASON = 2022


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two seasons, two blocks a season, with parcels."""
    region = yearly_region(tmp_path_factory.mktemp("region"), (SEASON, SEASON + 1))
    return region.recipe(seasons=[SEASON])


@pytest.fixture(scope="module")
def built(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("built") / "store"
    build_store(recipe, store, workers=1)
    return store


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "store"))


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a store but those about runs and its retractions."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (*SAID_BY_RUNS, "retracted.json")
    }


def change_plan(store: Path, table: str, change: Callable[[Any], Any]) -> None:
    """Keep the plan of the season with another table."""
    files = LocalStorage(store)
    plan = load_plan(files, f".build/plan/{SEASON}/")
    keep_plan(replace(plan, **{table: change(getattr(plan, table).copy())}), files)


def change_marker(store: Path, block: int, change: Callable[[Any], None]) -> None:
    """Write the marker of a block with another content."""
    builder = StoreBuilder(LocalStorage(store))
    marker = builder.read_marker(SEASON, block, layout_of(store))
    assert marker is not None
    change(marker)
    builder.write_marker(SEASON, block, marker)


def with_value(column: str, value: Any, row: int) -> Callable[[Any], Any]:
    """A table with one other value."""

    def change(table: Any) -> Any:
        table[column] = [value if place == row else old for place, old in enumerate(table[column])]
        return table

    return change


def with_slots_swapped(samples: Any) -> Any:
    """Samples of which the first two have each other's id and ground, as where a block is divided anew."""
    names = [name for name in samples if name not in ("block", "slot")]
    return samples.assign(**{name: samples[name].iloc[[1, 0, *range(2, len(samples))]].array for name in names})


def other_digest(marker: Any) -> None:
    marker["files"][0]["sha256"] = "0" * 64


def other_provenance(marker: Any) -> None:
    marker["provenance"][1]["s2_dates"] = ["2022-07-06"]


#: What was changed, and what the error says of it.
CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a planned column of a block": (
        lambda store: change_plan(store, "blocks", with_value("hash_s2", "f" * 64, 0)),
        rf"block 0 of {SEASON} has hash_s2 '\w+', and would have 'f+'\..*restore .*000000.json and .*\.build/plan from",
    ),
    "a planned column of a sample": (
        lambda store: change_plan(store, "samples", with_value("split", "test", 1)),
        rf"block 0 of {SEASON} has split 'train' of the sample in slot 1, and would have 'test'",
    ),
    "the outline of a sample": (
        lambda store: change_plan(store, "samples", lambda table: table.assign(geometry=table.translate(0.001))),
        rf"block 0 of {SEASON} has geometry POLYGON .* of the sample in slot 0, and would have POLYGON",
    ),
    "two samples in each other's slots": (
        lambda store: change_plan(store, "samples", with_slots_swapped),
        rf"block 0 of {SEASON} has sample '\w+' of the sample in slot 0, and would have '\w+'",
    ),
    "a derived list of a sample": (
        lambda store: change_marker(store, 0, other_provenance),
        r"has s2_dates \['2022-07-05'\] of the sample in slot 1, and would have \['2022-07-06'\]",
    ),
    "the digest of a shard": (
        lambda store: change_marker(store, 0, other_digest),
        rf"block 0 of {SEASON} has {SEASON}/\S+ with the SHA-256 \w+, and its marker states 0+: it was built again",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_a_finished_block_is_does_not_change(store: Path, case: str) -> None:
    change, said = CHANGES[case]
    change(store)
    before = files_of(store)
    with pytest.raises(StoreError, match=f"next release of {store} would contradict release 1: there, .*{said}"):
        retract_from_store(store, {SEASON: [1]}, [], "haze")
    assert files_of(store) == before, "something was written"
    # The remedy that needs no backup: the block is excluded from now on.
    number = retract_from_store(store, {SEASON: [0]}, [], "other plan")[1]
    assert number == 2
    assert read_index(store, "blocks")["retracted"].tolist() == ["other plan", "haze"]


@pytest.mark.parametrize("excluded", [False, True])
def test_the_number_of_a_block_is_never_that_of_another(store: Path, excluded: bool) -> None:
    change_plan(store, "blocks", with_value("square", "9_9", 0))
    if excluded:
        record = {"blocks": {str(SEASON): {"0": "haze"}}, "scenes": {}}
        (store / ".build/retracted.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(StoreError, match=rf"block 0 of {SEASON} has square '\S+', and would have '9_9'"):
        retract_from_store(store, {SEASON: [1]}, [], "haze")


def test_shards_that_were_built_again_with_other_bytes_are_not_released(store: Path, recipe: Recipe) -> None:
    builder = StoreBuilder(LocalStorage(store))
    change_values(store, SEASON, "s2", 1, lambda values: values.fill(7))
    marker = builder.read_marker(SEASON, 1, layout_of(store))
    assert marker is not None
    builder.write_marker(SEASON, 1, {**marker, "files": [builder.describe(file["path"]) for file in marker["files"]]})
    with pytest.raises(StoreError, match=rf"block 1 of {SEASON} has {SEASON}/s2/c\.1\.0\.0\.0\.0 with the SHA-256"):
        build_store(recipe.for_seasons([SEASON + 1]), store, workers=1)
    assert store_attributes(store)["release"] == 1


def test_an_exclusion_keeps_its_reason(store: Path) -> None:
    retract_from_store(store, {SEASON: [0]}, [], "haze")
    record = store / ".build/retracted.json"
    edit_json(record, lambda document: document["blocks"][str(SEASON)].update({"0": "smoke"}))
    with pytest.raises(StoreError, match=r"is excluded there \('haze'\), and would be excluded with .* 'smoke'\."):
        retract_from_store(store, {SEASON: [1]}, [], "dust")
    edit_json(record, lambda document: document["blocks"][str(SEASON)].update({"0": "haze"}))
    assert retract_from_store(store, {SEASON: [1]}, [], "dust")[1] == 3


def test_relabelling_again_does_not_bring_back_what_was_retracted(store: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    relabel_store(store, new)
    retract_from_store(new, {SEASON: [0]}, [], "haze")
    relabel_store(store, new)
    assert set(read_index(new, f"samples-{SEASON}")["block"]) == {1}
    (new / ".build/retracted.json").unlink()
    with pytest.raises(StoreError, match=rf"excludes block 0 of {SEASON} \(haze\)"):
        relabel_store(store, new)
    assert set(read_index(new, f"samples-{SEASON}")["block"]) == {1}


def test_a_relabelled_store_names_the_release_it_was_last_made_from(store: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert relabel_store(store, new).release == 1
    assert store_attributes(new)["origin"]["release"] == 1
    assert relabel_store(store, new).release == 1, "nothing changed, and no release is made"
    retract_from_store(store, {SEASON: [0]}, [], "haze")
    assert relabel_store(store, new).release == 2
    first = store_attributes(store)
    assert store_attributes(new)["origin"] == {"release": 2, "manifest": first["manifest"]["sha256"]}
    # The same blocks in a further release of the source: what the new store says of it is true again.
    retract_from_store(new, {SEASON: [1]}, [], "dust")
    retract_from_store(store, {SEASON: [1]}, [], "dust")
    assert relabel_store(store, new).release == 4
    assert store_attributes(new)["origin"]["release"] == 3
    assert store_attributes(new, 3)["origin"]["release"] == 2


def test_a_store_is_not_relabelled_from_another_one_with_the_same_labels(
    store: Path, recipe: Recipe, tmp_path: Path
) -> None:
    new, other = tmp_path / "new", tmp_path / "other"
    relabel_store(store, new)
    assert recipe.sentinel2 is not None
    bands = recipe.model_copy(update={"sentinel2": recipe.sentinel2.model_copy(update={"bands": ["B02", "B08"]})})
    build_store(bands, other, workers=1)
    before = files_of(new)
    with pytest.raises(PlanError, match=f"{new} was made from another store: its images of {SEASON} have other inputs"):
        relabel_store(other, new)
    assert files_of(new) == before


def test_a_damaged_table_of_the_newest_release_accuses_no_block(store: Path, recipe: Recipe) -> None:
    path = store / store_attributes(store)["index"][f"samples-{SEASON}"]  # type: ignore[operator]
    table = pd.read_parquet(path)
    table.assign(split="val").to_parquet(path)
    assert build_store(recipe.for_seasons([SEASON + 1]), store, workers=1).release == 2
    assert set(read_index(store, f"samples-{SEASON}")["split"]) == {"train"}
