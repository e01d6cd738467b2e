"""Dates that lie off are found, and read where they belong: on a simulated region whose shifts are known."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from changed_recipes import kept_recipe, recipe_document
from changed_stores import change_table, shard_digests, sign
from numpy.typing import NDArray
from shared_work import with_work_of

import h2crop_data
from h2crop_data.cube.reading import read_index, store_attributes
from h2crop_data.grid import Cell, home_tile
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.parcels.frame import FrameRules, frame_of_tile
from h2crop_data.pipeline import frames
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import Workers
from h2crop_data.pipeline.frames import MatchedTiles, measured_frame
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.sentinel2.tile_masks import MaskCode
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings
from h2crop_data.sources.formats import layout_of_root
from h2crop_data.sources.sentinel2.alignment import Alignment
from h2crop_data.sources.sentinel2.mask_file import TileMasks
from h2crop_data.sources.sentinel2.tile_reading import TileMaker
from h2crop_data.sources.source import MatchedBands
from h2crop_data.storage.location import open_storage
from h2crop_data.validation.validate import validate_store

#: Four cells of 1920 m, nine dates of which most lie farther off than the limit.
SETTINGS: dict[str, Any] = {
    "seed": 8,
    "cells": 4,
    "enmap.scenes": 0,
    "sentinel2.geometry": {"sd": 6.0, "not_refined": 0.3},
    "sentinel2.duplicates": 0.0,
    "sentinel2.dates_per_month": 3,
    "sentinel2.months": [5, 6, 7],
    "sentinel2.sky": {"cloudiness": 0.15, "cirrus": 0.0, "haze": 0.0, "snow": 0.0},
}
BANDS = ["B04", "B08", "B11"]
LIMIT = 4
FILL = -32768


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The region."""
    folder = tmp_path_factory.mktemp("region")
    simulate_region(load_settings(None, SETTINGS), folder, workers=1)
    return folder


RecipeOf = Callable[..., Recipe]


@pytest.fixture(scope="module")
def recipe_of(simulated: Path) -> RecipeOf:
    """Makes recipes of the region; keywords are settings of Sentinel-2, `recipe` others."""

    def make(**changes: Any) -> Recipe:
        document = recipe_document(simulated)
        document |= {"enmap": "none", "store": {"block_capacity": 2}, **changes.pop("recipe", {})}
        document["sentinel2"] |= {"bands": BANDS, "alignment": "apply", "alignment_limit": LIMIT, **changes}
        return kept_recipe(simulated, document)

    return make


@pytest.fixture(scope="module")
def stores(recipe_of: RecipeOf, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store for each word of `alignment`."""
    folder = tmp_path_factory.mktemp("stores")
    for mode in ("none", "report"):
        build_store(recipe_of(alignment=mode), folder / mode, workers=1)
    build_store(recipe_of(alignment="apply"), with_work_of(folder / "report", folder / "apply"), workers=1)
    return {mode: folder / mode for mode in ("none", "report", "apply")}


def planted(simulated: Path) -> pd.DataFrame:
    """What the simulator shifted, by time."""
    table = pd.read_parquet(simulated / "truth/shifts.parquet")
    return table.assign(time=pd.to_datetime(table["time"]).dt.date).set_index("time")


def measured(store: Path) -> pd.DataFrame:
    """The dates of a store whose shift is known, by time."""
    dates = read_index(store, "dates-2022")
    dates = dates.assign(time=dates["time"].dt.date).set_index("time")
    return dates[dates["alignment"].isin(["applied", "reported", "not_needed"])]


def test_planted_shifts_are_found(simulated: Path, stores: dict[str, Path]) -> None:
    """Against the datum, which is what most dates have in common, and in the direction in which they were planted."""
    found, truth = measured(stores["apply"]), planted(simulated)
    assert len(found) >= 7
    own = found[["shift_east", "shift_north"]].to_numpy()
    there = truth.loc[found.index, ["east", "north"]].to_numpy()
    error = own - there - np.median(own - there, axis=0)
    assert np.hypot(*error.T).max() < 1.2
    assert np.median(np.hypot(*error.T)) < 0.5
    # They are large beside the errors.
    assert np.median(np.hypot(*there.T)) > 3
    lengths = np.hypot(*own.T)
    assert found["alignment"].tolist() == ["applied" if length > LIMIT else "not_needed" for length in lengths]
    assert 2 <= (found["alignment"] == "applied").sum() < len(found)


def test_every_date_says_what_became_of_it(stores: dict[str, Path], simulated: Path) -> None:
    dates = read_index(stores["apply"], "dates-2022")
    words = dates["alignment"].str.split(":").str[0]
    assert set(words) <= {"applied", "not_needed", "rejected", "not_measured"}
    cloudy = dates["shift_clear"] < 0.05
    assert dates["alignment"][cloudy].str.startswith("not_measured: ").all()
    assert dates["shift_east"][words == "not_measured"].isna().all()
    flags = planted(simulated)["refined"].map({True: "refined", False: "not refined"})
    assert dates["refined"].tolist() == flags.loc[dates["time"].dt.date].tolist()


def test_a_report_changes_no_pixel(stores: dict[str, Path]) -> None:
    assert shard_digests(stores["report"]) == shard_digests(stores["none"])
    assert shard_digests(stores["apply"]) != shard_digests(stores["none"])
    reported, applied = (read_index(stores[mode], "dates-2022") for mode in ("report", "apply"))
    assert (reported["alignment"] == "reported").sum() == (applied["alignment"] == "applied").sum() >= 2
    same = ["time", "shift_east", "shift_north", "shift_sd", "shift_check", "clear"]
    pd.testing.assert_frame_equal(reported[same], applied[same])
    assert set(reported["masks"]).isdisjoint(applied["masks"])


def test_without_alignment_nothing_is_told_of_it(stores: dict[str, Path]) -> None:
    dates = read_index(stores["none"], "dates-2022")
    assert not [name for name in dates if name.startswith("shift") or name in ("alignment", "refined")]
    sheet = (stores["none"] / "DATASHEET.md").read_text(encoding="utf-8")
    assert "shift of a date" not in sheet
    assert not list((stores["none"] / "index/r1").glob("frames-*"))


def keys_kernel(s: float) -> float:
    """Cubic convolution (Keys 1981), a = -0.5."""
    s = abs(s)
    if s < 1:
        return 1.5 * s**3 - 2.5 * s**2 + 1
    return -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2 if s < 2 else 0.0


class Granule:
    """The files of a date, sampled pixel by pixel."""

    def __init__(self, folder: Path, item: dict[str, Any]) -> None:
        self.layers: dict[str, tuple[NDArray[Any], Any]] = {}
        for key in ("red", "nir", "swir16"):
            with rasterio.open(folder / "catalog" / item["assets"][key]["href"]) as raster:
                self.layers[key] = raster.read(1), raster.transform
        self.offset = -1000 if item["properties"]["s2:processing_baseline"] >= "04" else 0

    def at(self, key: str, x: float, y: float, shift: tuple[float, float]) -> float:
        """Reflectance x 10000 of the pixel of a file that (x, y) lies in, where the date shows it."""
        numbers, transform = self.layers[key]
        column, row = math.floor((x - transform.c) / transform.a), math.floor((transform.f - y) / transform.a)
        right, down = column + shift[0] / transform.a, row - shift[1] / transform.a
        total = 0.0
        for i in range(math.floor(down) - 1, math.floor(down) + 3):
            for j in range(math.floor(right) - 1, math.floor(right) + 3):
                total += float(numbers[i, j]) * keys_kernel(down - i) * keys_kernel(right - j)
        return round(total) + self.offset


def test_stored_numbers_are_the_medians_of_shifted_dates(simulated: Path, stores: dict[str, Path]) -> None:
    """Some hundred pixels from files, codes and measured shifts alone: where a date lies off, all is read there."""
    (path,) = (stores["apply"] / ".build/work/sentinel2-masks").glob("*.bin")
    masks = TileMasks(path, Alignment("apply", LIMIT))
    items = json.loads((simulated / "catalog/sentinel-2-c1-l2a.json").read_text(encoding="utf-8"))["features"]
    granules = {item["id"]: Granule(simulated, item) for item in items}
    data = h2crop_data.open(stores["apply"], 2022)
    samples = read_index(stores["apply"], "samples-2022").sort_values("slot", ignore_index=True)
    west, _, _, north = masks.tile.bounds
    chance = np.random.default_rng(1)
    compared = moved = 0
    for slot, name in enumerate(samples["cell"]):
        left, _, _, top = Cell.parse(name).bounds
        for month in (5, 6, 7):
            stored = data["s2"].isel(sample=slot).sel(month=month).to_numpy()
            count = data["s2_clear"].isel(sample=slot).sel(month=month).to_numpy()
            for row, column in chance.integers(0, 192, (25, 2)).tolist():
                x, y = left + 10 * column + 5, top - 10 * row - 5
                seen = []
                for place, date in enumerate(masks.dates):
                    if pd.Timestamp(date["time"]).month != month:
                        continue
                    off = date["alignment"] == "applied"
                    shift = (date["shift_east"], date["shift_north"]) if off else (0.0, 0.0)
                    # The pixel of 20 m in which the middle of this one's pixel of 20 m lies on that date.
                    middle = [20 * math.floor(number / 20) + 10 for number in (x, y)]
                    codes = masks.codes(place)
                    across, down = middle[0] + shift[0] - west, north - middle[1] - shift[1]
                    i, j = math.floor(down / 20), math.floor(across / 20)
                    if codes[i, j] == MaskCode.CLEAR:
                        (granule,) = (granules[item] for item in date["items"])
                        seen.append([granule.at(key, x, y, shift) for key in ("red", "nir", "swir16")])
                        moved += off
                assert count[row, column] == len(seen)
                if seen:
                    assert np.abs(stored[:, row, column] - np.median(seen, axis=0)).max() <= 1
                    compared += 1
    assert compared > 200
    assert moved > 50


def surface(simulated: Path, day: str, cell: Cell) -> NDArray[np.int16]:
    """Red and near infrared of the unshifted ground under a clear sky (2, y, x)."""
    with rasterio.open(simulated / f"truth/sentinel2/{day}/surface_10m.tif") as raster:
        return raster.read([3, 4], window=raster.window(*cell.bounds))


def border_pixels(simulated: Path, cell: Cell) -> NDArray[np.bool_]:
    """Pixels (y, x) that touch another field."""
    with rasterio.open(simulated / "truth/land.tif") as raster:
        fields = raster.read(1, window=raster.window(*cell.bounds))[::2, ::2]
    beside = np.zeros(fields.shape, bool)
    across, down = fields[:, 1:] != fields[:, :-1], fields[1:] != fields[:-1]
    beside[:, 1:] |= across
    beside[:, :-1] |= across
    beside[1:] |= down
    beside[:-1] |= down
    return beside


def errors(simulated: Path, store: Path) -> tuple[float, float]:
    """Root mean square error of composites at borders of fields and inside, against the ground on the same dates."""
    data = h2crop_data.open(store, 2022)
    samples = read_index(store, "samples-2022").sort_values("slot", ignore_index=True)
    at_borders, inside = [], []
    for slot, row in enumerate(samples.itertuples()):
        cell = Cell.parse(row.cell)
        beside = border_pixels(simulated, cell)
        for month in (5, 6, 7):
            days = [day for day in row.s2_dates if int(day[5:7]) == month]
            if not days:
                continue
            stored = data["s2"].isel(sample=slot).sel(month=month, s2_band=["B04", "B08"]).to_numpy().astype(float)
            whole = data["s2_clear"].isel(sample=slot).sel(month=month).to_numpy() == len(days)
            error = stored - np.median([surface(simulated, day, cell) for day in days], axis=0)
            at_borders.append(error[:, whole & beside].ravel())
            inside.append(error[:, whole & ~beside].ravel())
    return tuple(float(np.sqrt((np.concatenate(parts) ** 2).mean())) for parts in (at_borders, inside))  # type: ignore[return-value]


def test_composites_are_nearer_to_the_ground_at_borders_of_fields(simulated: Path, stores: dict[str, Path]) -> None:
    before, after = (errors(simulated, stores[mode]) for mode in ("none", "apply"))
    assert after[0] < 0.75 * before[0]
    assert after[1] < 1.02 * before[1]


def test_what_a_cell_gets_does_not_depend_on_its_neighbours(
    stores: dict[str, Path], recipe_of: RecipeOf, tmp_path: Path
) -> None:
    """One cell alone, and the store grown to all of them: the same numbers as at once, and the first ones stay."""
    samples = read_index(stores["apply"], "samples-2022").sort_values("slot", ignore_index=True)
    cell = Cell.parse(samples["cell"][0])
    store = tmp_path / "store"
    area = {"bbox": list(cell.bounds), "crs": f"EPSG:{cell.epsg}", "cells": "inside"}
    build_store(recipe_of(recipe={"area": area}), store, workers=1)
    first = shard_digests(store)
    alone = h2crop_data.open(store, 2022)["s2"].isel(sample=0).to_numpy()
    assert np.array_equal(alone, h2crop_data.open(stores["apply"], 2022)["s2"].isel(sample=0).to_numpy())
    build_store(recipe_of(), store, workers=Workers(2, "processes"), extend=True)
    assert first.items() <= shard_digests(store).items()
    cells = read_index(store, "samples-2022").sort_values("slot")["cell"]
    data = h2crop_data.open(store, 2022)["s2"]
    grown = {cell: data.isel(sample=slot).to_numpy() for slot, cell in enumerate(cells)}
    for slot, name in enumerate(samples["cell"]):
        assert np.array_equal(grown[name], h2crop_data.open(stores["apply"], 2022)["s2"].isel(sample=slot).to_numpy())
    # Both parts measured on the same scenes: the datum did not move.
    assert read_index(store, "dates-2022")["masks"].nunique() == 1
    assert [finding for finding in validate_store(store).findings if finding.severity == "error"] == []


def test_another_limit_makes_no_mask_anew(stores: dict[str, Path], recipe_of: RecipeOf, tmp_path: Path) -> None:
    """What was measured is kept by itself; the limit decides when it is used."""
    store = tmp_path / "store"
    shutil.copytree(stores["apply"] / ".build/work/sentinel2-masks", store / ".build/work/sentinel2-masks")
    (kept,) = store.rglob("*.bin")
    before = kept.stat().st_ino
    build_store(recipe_of(alignment_limit=30), store, workers=1)
    assert [path.stat().st_ino for path in store.glob(".build/work/sentinel2-masks/*.bin")] == [before]
    assert set(read_index(store, "dates-2022")["alignment"].str.split(":").str[0]) <= {
        "not_needed",
        "rejected",
        "not_measured",
    }
    assert {
        name for name, digest in shard_digests(store).items() if shard_digests(stores["none"])[name] != digest
    } == set()


def test_the_frame_is_told_where_users_look(stores: dict[str, Path]) -> None:
    """This ground has fewer parcels than a measurement needs: that is what is said, in the index and the datasheet."""
    frames = read_index(stores["apply"], "frames-2022")
    assert frames["window"].tolist().count("whole") == 1
    assert set(frames["frame"]) == {"not_measured: fewer than 300 parcels"}
    assert frames["shift_east"].isna().all()
    assert (frames["parcel_count"] > 20).all()
    sheet = (stores["apply"] / "DATASHEET.md").read_text(encoding="utf-8")
    assert "2022: 1 tile not measured, fewer than 300 parcels." in sheet
    assert "| season | shift of a date, median |" in sheet


def test_a_release_without_a_block_measures_what_is_left(stores: dict[str, Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(stores["apply"], store)
    before = read_index(store, "frames-2022")
    retract_from_store(store, {2022: [0]}, [], "haze")
    after = read_index(store, "frames-2022")
    assert after["parcel_count"].max() < before["parcel_count"].max()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda table: table.assign(alignment="perhaps"), "what the format does not know: perhaps"),
        (lambda table: table.assign(shift_east=np.nan), "uses shifts that it does not state"),
    ],
)
def test_shifts_that_cannot_be_true_are_found(
    stores: dict[str, Path], tmp_path: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    store = tmp_path / "store"
    shutil.copytree(stores["apply"], store)
    change_table(store, "dates-2022", spoil)
    sign(store)
    found = [finding.what for finding in validate_store(store).findings if finding.severity == "error"]
    assert any(says in message for message in found), found


def test_images_beside_their_parcels_are_warned_of_by_validation(stores: dict[str, Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(stores["apply"], store)
    told = "images are shifted 9.0 m against the parcels"
    change_table(store, "frames-2022", lambda table: table.assign(warning=told))
    sign(store)
    found = [finding for finding in validate_store(store).findings if finding.check == "frame"]
    assert [finding.severity for finding in found] == ["warning"]
    assert found[0].what == told
    assert "32631_15360" in found[0].where


def test_images_off_their_parcels_are_told_by_how_much(
    stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's own images against its parcels, which are moved 8 m west and 6 m north: where each cell is read from,
    which bands, and the way from degrees to the zone decide."""
    store = open_storage(stores["apply"])
    monkeypatch.setattr(frames, "frame_of_tile", partial(frame_of_tile, rules=FrameRules(parcels=20)))
    blocks = read_index(stores["apply"], "blocks")
    samples = read_index(stores["apply"], "samples-2022")
    parcels = read_index(stores["apply"], "parcels-2022")
    shards = set(shard_digests(stores["apply"]))
    records = [row for row in read_index(stores["apply"], "manifest").to_dict("records") if row["path"] in shards]
    layout = layout_of_root(store_attributes(stores["apply"]))
    found = {}
    for name, (east, north) in {"here": (0, 0), "moved": (-8, 6)}.items():
        there = parcels.to_crs(32631).translate(east, north).to_crs(4326)
        tiles = MatchedTiles.of(
            store, 2022, layout, blocks, records, samples, parcels.set_geometry(there), MatchedBands("s2", 0, 1)
        )
        assert len(tiles) == 1
        whole = measured_frame(tiles.task(0))[0]
        assert whole["frame"] == "measured"
        found[name] = np.array([whole["shift_east"], whole["shift_north"]])
    assert np.abs(found["moved"] - found["here"] - (8, -6)).max() < 0.7
    # The datum of the dates lies within a metre or two of the ground.
    assert np.hypot(*found["here"]) < 4


def two_tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small cells on both sides of the border between two processing tiles, x = 506880."""
    folder = tmp_path_factory.mktemp("two-tiles")
    changes = {
        "cells": 6,
        "cell_size": 480,
        "split_square": 1000,
        "place": {"west": 506160},
        "sentinel2.geometry": None,
        "sentinel2.months": [6],
        "truth_reflectance": False,
    }
    simulate_region(load_settings(None, {**SETTINGS, **changes}), folder, workers=1)
    return folder


def test_each_tile_has_the_shift_that_was_measured_on_it(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole pixels of 20 m, so that what is stored stands elsewhere in the files: another place on each tile."""
    folder = two_tiles(tmp_path_factory)
    planned = {32: (20.0, -20.0), 33: (-20.0, 40.0)}

    def shifts(self: TileMaker, clear: NDArray[np.bool_]) -> list[dict[str, Any]]:
        is_applied = self.task.settings.alignment == "apply"
        east, north = planned[self.task.tile.column] if is_applied else (0.0, 0.0)
        names = ("shift_sd", "shift_spread", "shift_check", "shift_correlation", "shift_clear")
        row = {"shift_east": east, "shift_north": north, **dict.fromkeys(names, 1.0), "alignment": ""}
        return [row for _ in clear]

    monkeypatch.setattr(TileMaker, "shifts", shifts)
    document = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    document |= {"enmap": "none", "store": {"block_capacity": 6}}
    stored = {}
    for mode in ("report", "apply"):
        document["sentinel2"] |= {"bands": BANDS, "alignment": mode, "alignment_limit": LIMIT}
        (folder / f"{mode}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        store = tmp_path / mode
        build_store(load_recipe(folder / f"{mode}.yaml"), store, workers=1)
        data, cells = h2crop_data.open(store, 2022), read_index(store, "samples-2022").sort_values("slot")["cell"]
        stored[mode] = {
            Cell.parse(name): (data["s2"][slot, 5].to_numpy(), data["s2_clear"][slot, 5].to_numpy())
            for slot, name in enumerate(cells)
        }
        if mode == "apply":
            assert set(read_index(store, "dates-2022")["alignment"]) == {"applied"}
    columns = {home_tile(cell).column for cell in stored["apply"]}
    assert columns == {32, 33}
    compared = 0
    for cell, (values, clear) in stored["apply"].items():
        east, north = planned[home_tile(cell).column]
        right, down = round(east / 10), round(-north / 10)
        as_delivered, clear_there = stored["report"][cell]
        inner = np.s_[4:-4, 4:-4]
        there = np.s_[4 + down : 44 + down, 4 + right : 44 + right]
        assert np.array_equal(clear[inner], clear_there[there])
        assert np.array_equal(values[:, *inner], as_delivered[:, *there])
        compared += int((clear[inner] > 0).sum())
    assert compared > 2000


def test_a_store_that_grows_does_not_move(simulated: Path, recipe_of: RecipeOf, tmp_path: Path) -> None:
    """A date came between: new cells of the tile are aligned on all dates, those that are there stay as they were."""
    catalog = simulated / "catalog/sentinel-2-c1-l2a.json"
    items = json.loads(catalog.read_text(encoding="utf-8"))
    growing = simulated / "catalog/growing.json"
    late = max(items["features"], key=lambda item: item["properties"]["datetime"])["id"]
    fewer = [item for item in items["features"] if item["id"] != late]
    growing.write_text(json.dumps({**items, "features": fewer}), encoding="utf-8")
    west, south, east, north = yaml.safe_load((simulated / "recipe.yaml").read_text(encoding="utf-8"))["area"]["bbox"]
    half = {"bbox": [west, south, (west + east) // 2, north], "crs": "EPSG:32631", "cells": "inside"}
    store = tmp_path / "store"
    build_store(recipe_of(catalog="catalog/growing.json", recipe={"area": half}), store, workers=1)
    before, first = shard_digests(store), read_index(store, "dates-2022")
    shutil.copy(catalog, growing)
    build_store(recipe_of(catalog="catalog/growing.json"), store, workers=1, extend=True)
    after, dates = shard_digests(store), read_index(store, "dates-2022")
    assert before.items() < after.items()
    # Each part has its own dates and datum; blocks name theirs.
    assert dates["masks"].nunique() == 2
    kept = dates[dates["masks"] == first["masks"][0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first)
    assert len(dates) == 2 * len(first) + 1
    assert [name for names in dates["items"] for name in names].count(late) == 1
    assert [finding for finding in validate_store(store).findings if finding.severity == "error"] == []
