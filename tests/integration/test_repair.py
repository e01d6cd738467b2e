"""Every seal compares the files of the newest release with its manifest and repairs them; unchanged seasons are not
read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from yearly_region import yearly_region

from h2crop_data.cube.reading import store_attributes
from h2crop_data.cube.writer import hold_store
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline import sealing
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.sealing import SealedRelease, seal_store
from h2crop_data.recipe.model import Recipe
from h2crop_data.storage.local import LocalStorage

SEASONS = (2022, 2023)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two seasons of two blocks, with parcels; the region has a third."""
    region = yearly_region(tmp_path_factory.mktemp("region"), (*SEASONS, 2024))
    return region.recipe(seasons=list(SEASONS))


@pytest.fixture(scope="module")
def built(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("built") / "store"
    build_store(recipe, store, workers=1)
    return store


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "store"))


class ReadStorage(LocalStorage):
    """A store that notes what is read of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read_names: list[str] = []

    def read(self, name: str) -> bytes:
        self.read_names.append(name)
        return super().read(name)


def sealed(store: Path | LocalStorage) -> SealedRelease:
    with hold_store(store) as builder:
        return seal_store(builder)


def released_files(store: Path) -> dict[str, bytes]:
    """The files of a release that are no shards, without the root."""
    return {
        name: path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
        and not (name := str(path.relative_to(store))).startswith(".build")
        and name != "zarr.json"
        and (path.name == "zarr.json" or not is_shard(store, path))
    }


def is_shard(store: Path, path: Path) -> bool:
    """Whether a file is in the folder of an array whose document names shards."""
    document = path.parent / "zarr.json"
    return document != store / "zarr.json" and document.exists() and "sharding_indexed" in document.read_text()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose(path: Path) -> None:
    path.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (flip, truncate, lose)


@pytest.mark.slow
def test_each_damaged_file_is_written_again_as_it_was(store: Path) -> None:
    whole = released_files(store)
    kinds = {
        *("classes.json", "statistics.json", "datasheet.md", "manifest.parquet", "root.json"),
        *(f"{table}-2022.parquet" for table in ("samples", "parcels", "blocks", "scenes", "squares", "manifest")),
        *("recipes-2022.json", "sources-2022.json"),
    }
    assert {f"index/r1/{name}" for name in kinds} < set(whole)
    documents = {"2022/zarr.json", "2022/s2/zarr.json", "2022/x0/zarr.json"}
    tried = [name for name in whole if "2023" not in name and (not name.endswith("zarr.json") or name in documents)]
    for number, name in enumerate(tried):
        DAMAGES[number % len(DAMAGES)](store / name)
        made = sealed(store)
        assert (made.number, made.repaired) == (1, [name])
        assert released_files(store) == whole
    assert sealed(store).repaired == []
    assert not (store / "index/r2").exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_all_files_that_are_damaged_together_are_written_again(store: Path, damage: Callable[[Path], None]) -> None:
    whole = released_files(store)
    for name in whole:
        damage(store / name)
    made = sealed(store)
    assert made.number == 1
    assert sorted(made.repaired) == sorted(whole)
    assert released_files(store) == whole


@pytest.mark.slow
def test_nothing_of_a_season_that_did_not_change_is_read(recipe: Recipe, store: Path) -> None:
    before = released_files(store)
    storage = ReadStorage(store)
    sealed(storage)
    build_folder = [name for name in storage.read_names if name.startswith(".build/")]
    allowed = {".build/origin.json", *(f".build/plan/{season}/plan.json" for season in SEASONS)}
    allowed |= {f".build/sealed/{season}.{ending}" for season in SEASONS for ending in ("json", "sums")}
    assert set(build_folder) <= allowed
    # A season that is added is gathered, the others are pointed at.
    build_store(recipe.for_seasons([2024]), storage, workers=1)
    attributes = store_attributes(store)
    assert attributes["release"] == 2
    assert [Path(path).parts[1:] for path in attributes["index"]["blocks"]] == [
        *(("r1", f"blocks-{season}.parquet") for season in SEASONS),
        ("r2", "blocks-2024.parquet"),
    ]
    named = [name for name in storage.read_names if name.startswith(tuple(f".build/{season}/" for season in SEASONS))]
    assert named == []
    after = released_files(store)
    own = ("DATASHEET.md",)
    assert {name: data for name, data in before.items() if name not in own} == {
        name: after[name] for name in before if name not in own
    }
    # The same as all seasons gathered at once.
    shutil.rmtree(store / ".build/sealed")
    assert sealed(store).number == 2
    assert released_files(store) == after


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, truncate, lose])
def test_a_season_with_a_damaged_record_is_gathered_again(store: Path, damage: Callable[[Path], None]) -> None:
    whole = released_files(store)
    damage(store / ".build/sealed/2022.json")
    damage(store / ".build/sealed/2023.sums")
    storage = ReadStorage(store)
    made = sealed(storage)
    assert (made.number, made.repaired) == (1, [])
    assert ".build/plan/2022/samples.parquet" in storage.read_names
    assert ".build/plan/2023/samples.parquet" in storage.read_names
    assert released_files(store) == whole
    # The records are there again.
    storage.read_names.clear()
    sealed(storage)
    assert ".build/plan/2022/samples.parquet" not in storage.read_names


@pytest.mark.slow
def test_a_change_of_one_season_leaves_the_files_of_the_other(store: Path) -> None:
    before = released_files(store)
    retract_from_store(store, {2023: [0]}, [], "haze")
    attributes = store_attributes(store)
    assert attributes["release"] == 2
    assert attributes["index"]["samples-2022"] == "index/r1/samples-2022.parquet"
    assert attributes["index"]["samples-2023"] == "index/r2/samples-2023.parquet"
    after = released_files(store)
    for name, data in before.items():
        if name.startswith(("index/r1/", "2022/")):
            assert after[name] == data


@pytest.mark.slow
def test_another_version_makes_a_release_only_where_it_gives_other_bytes(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = released_files(store)
    monkeypatch.setattr(sealing, "SOFTWARE", "h2crop-data of another version")
    assert sealed(store).number == 1
    # What it would write as it is, it repairs.
    lose(store / "index/r1/samples-2022.parquet")
    made = sealed(store)
    assert (made.number, made.repaired) == (1, ["index/r1/samples-2022.parquet"])
    assert released_files(store) == whole
    # A season that it would write otherwise, and that is damaged, is right in a new release.
    rows = sealing.with_nullable_integers

    def other_rows(table: Any, columns: Any) -> Any:
        return rows(table, columns).assign(declared_share=0.25)

    monkeypatch.setattr(sealing, "with_nullable_integers", other_rows)
    monkeypatch.setattr(sealing, "SOFTWARE", "h2crop-data of a third version")
    lose(store / "index/r1/samples-2022.parquet")
    made = sealed(store)
    assert made.number == 2
    assert "index/r1/samples-2022.parquet" in made.repaired
    attributes = store_attributes(store)
    assert attributes["index"]["samples-2022"] == "index/r2/samples-2022.parquet"
    assert json.loads((store / "zarr.json").read_text()) == json.loads((store / "index/r2/root.json").read_text())
