"""Bits of the builder's own files that flip: what reads them gives the very same values, or an error with the file.

`H2CROP_FLIPS` says how many bits are flipped.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
from changed_stores import flip_bit
from made_stores import checked_store

from h2crop_data.cube.retraction import RETRACTED, Retractions
from h2crop_data.cube.sealed import read_record
from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.errors import H2cropError
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.dates import DATES_FOLDER, rows_of_dates
from h2crop_data.pipeline.frames import FRAMES_FOLDER, kept_frames
from h2crop_data.pipeline.plan import load_plan, plan_files
from h2crop_data.pipeline.sealing import ORIGIN, recorded_origin
from h2crop_data.pipeline.timings import TIMINGS, read_timings
from h2crop_data.published.importing import IMPORT_FILE, recorded_import
from h2crop_data.recipe.model import Recipe
from h2crop_data.storage.checked import checked_json, checked_rows
from h2crop_data.storage.local import LocalStorage

FLIPS = int(os.environ.get("H2CROP_FLIPS") or 120)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two seasons, of which a block was retracted."""
    folder = checked_store(tmp_path_factory.mktemp("checked"))
    retract_from_store(folder, {2022: [0]}, [], "haze")
    return folder


def reader_of(store: Path, name: str) -> Callable[[], Any] | None:
    """What reads a file of `.build/`, to be compared with `==`; None for what only describes runs."""
    files, parts = LocalStorage(store), Path(name).parts
    if parts[1] == "plan":
        return lambda: plan_files(load_plan(files, f".build/plan/{parts[2]}/"))
    if name == RETRACTED:
        return lambda: Retractions.read(files)
    if parts[1] == "sealed":
        # One that is damaged is not used: the season is gathered again.
        return lambda: read_record(files, int(parts[2].split(".")[0]))
    if parts[1].isdecimal():
        season, block = int(parts[1]), int(parts[2].split(".")[0])
        plan = load_plan(files, f".build/plan/{season}/")
        samples = int((plan.samples["block"] == block).sum())

        def read() -> Any:
            builder = StoreBuilder(files)
            marker = builder.read_marker(season, block, plan.layout, samples)
            assert marker is not None
            return marker, builder.read_sums(season, block, marker["sums"]).encode()

        return read
    return None


def test_no_flipped_bit_gives_other_values_or_a_stack_trace(store: Path) -> None:
    chance = random.Random(20)
    names = [path.relative_to(store).as_posix() for path in sorted((store / ".build").rglob("*")) if path.is_file()]
    names = [name for name in names if (store / name).stat().st_size and reader_of(store, name) is not None]
    assert {Path(name).parts[1] for name in names} == {"2021", "2022", "plan", "retracted.json", "sealed"}
    whole: dict[str, Any] = {}
    refused = 0
    for turn in range(FLIPS):
        # Every file in turn, each time another bit.
        name = names[turn % len(names)]
        read = reader_of(store, name)
        assert read is not None
        if name not in whole:
            whole[name] = read()
        with flip_bit(store / name, chance.randrange(8 * (store / name).stat().st_size)):
            found, refusal = outcome_of(read)
        if refusal:
            refused += 1
            assert str(store) in refusal, name
        elif found is None:
            assert "sealed" in name
        else:
            assert found == whole[name], name
    assert refused > FLIPS / 2


@pytest.mark.parametrize("kept", ["origin", "import", "frames", "dates"])
def test_each_flipped_bit_of_a_record_or_a_table_of_rows_is_found(tmp_path: Path, kept: str) -> None:
    files = LocalStorage(tmp_path)
    rows = [{"tile": "31UES", "window": 2, "shift": -0.25, "date": None}, {"tile": "31UFS", "window": 3, "shift": 1e-7}]
    name, text, read = {
        "origin": (ORIGIN, checked_json({"release": 4, "manifest": "5f" * 32}), lambda: recorded_origin(files)),
        "import": (IMPORT_FILE, checked_json({"files": ["a.h5"], "layout": 2}), lambda: recorded_import(files)),
        "frames": (
            f"{FRAMES_FOLDER}/a.json",
            checked_rows(rows),
            lambda: kept_frames(files, f"{FRAMES_FOLDER}/a.json"),
        ),
        "dates": (f"{DATES_FOLDER}/a.json", checked_rows(rows), lambda: rows_of_dates(files, "a")),
    }[kept]
    files.replace(name, [text.encode()])
    whole = read()
    assert whole == rows if kept in ("frames", "dates") else whole
    refused = 0
    for bit in range(8 * len(text.encode())):
        with flip_bit(tmp_path / name, bit):
            found, refusal = outcome_of(read)
        if refusal:
            refused += 1
            assert str(tmp_path / name) in refusal
        else:
            # The shift of a tile is measured again.
            assert found == whole or (found is None and kept == "frames"), bit
    assert refused > 4 * len(text) or kept == "frames"


def outcome_of(read: Callable[[], Any]) -> tuple[Any, str]:
    """What a reader gives, or the text of the error that it raises."""
    try:
        return read(), ""
    except H2cropError as error:
        return None, str(error)


def swap_ids(samples: pd.DataFrame) -> pd.DataFrame:
    ids = samples["sample"].tolist()
    return samples.assign(sample=[ids[1], ids[0], *ids[2:]])


def move(parcels: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return parcels.assign(geometry=parcels.geometry.translate(0.0001, 0))


def other_offset(scenes: pd.DataFrame) -> pd.DataFrame:
    return scenes.assign(offset=scenes["offset"].fillna(0) - 1000)


def shift_time(scenes: pd.DataFrame) -> pd.DataFrame:
    return scenes.assign(time=scenes["time"] + pd.Timedelta(days=1))


COMMANDS: dict[str, Callable[[Recipe, Path], object]] = {
    "build": lambda recipe, store: build_store(recipe, store, workers=1),
    "extend": lambda recipe, store: build_store(recipe, store, extend=True, workers=1),
    "retract": lambda recipe, store: retract_from_store(store, {2022: [1]}, [], "haze"),
    "relabel": lambda recipe, store: relabel_store(store, store.parent / "relabelled"),
}


@pytest.mark.parametrize(
    ("table", "change"),
    [("samples", swap_ids), ("parcels", move), ("scenes", shift_time), ("scenes", other_offset)],
    ids=["ids", "outline", "time", "offset"],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_another_plan_is_refused_before_anything_is_made_of_it(
    store: Path, tmp_path: Path, table: str, change: Callable[[Any], Any], command: str
) -> None:
    """A table that is right by itself, and not the one that was planned."""
    path = store / f".build/plan/2022/{table}.parquet"
    whole, files = path.read_bytes(), LocalStorage(store)
    recipe = load_plan(files, ".build/plan/2022/").recipe
    before = {name: size for name, size in files.names() if not name.startswith(".build/")}
    try:
        with_geometry = table in ("samples", "parcels")
        change((gpd if with_geometry else pd).read_parquet(path)).to_parquet(path)
        with pytest.raises(H2cropError, match=rf"plan/2022.*{table}\.parquet"):
            COMMANDS[command](recipe, store)
    finally:
        path.write_bytes(whole)
    assert {name: size for name, size in files.names() if not name.startswith(".build/")} == before


def test_damaged_timings_are_started_again_and_stop_nothing(store: Path) -> None:
    files, chance = LocalStorage(store), random.Random(1)
    assert len(read_timings(files))
    size = (store / TIMINGS).stat().st_size
    for _ in range(60):
        with flip_bit(store / TIMINGS, chance.randrange(8 * size)):
            read_timings(files)
