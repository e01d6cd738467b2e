"""A store built from a simulated region, against what is true of the region.

The region is small (nine cells of 960 m), or the demo's: `make demo-check` runs the same tests on build/demo.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
import yaml
from numpy.typing import NDArray
from plain_splits import plain_split
from rasterio.windows import from_bounds

import h2crop_data
from h2crop_data.cube.reading import read_index
from h2crop_data.grid import SPLIT_CRS, Cell, tiles_of
from h2crop_data.pipeline.build import build_store
from h2crop_data.recipe.model import load_recipe
from h2crop_data.sentinel2.tile_masks import MaskCode
from h2crop_data.simulate.enmap.bands import enmap_bands
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings
from h2crop_data.sources.sentinel2.alignment import Alignment
from h2crop_data.sources.sentinel2.mask_file import TileMasks

FILL = -32768
#: Names of the bands in truth/sentinel2/<date>/surface_<size>m.tif.
TEN, TWENTY = ("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12")
SETTINGS: dict[str, Any] = {
    "seed": 3,
    "cells": 9,
    "cell_size": 960,
    "split_square": 1440,
    # Across the border between two tiles, so that both show the eastern cells.
    "place": {"west": 498240},
    "sentinel2.dates_per_month": 2,
    "sentinel2.duplicates": 0.2,
    "enmap.scenes": 2,
    "enmap.shifts": [[0, 0], [9, -6]],
    "enmap.coverage": [1.0, 0.7],
    "enmap.sky": {"cloudiness": 0.1, "cirrus": 0.0, "haze": 0.0},
}


@dataclass(frozen=True)
class Built:
    """A region and the store built from it."""

    region: Path
    store: Path

    @cached_property
    def season(self) -> int:
        """The region's season."""
        settings = yaml.safe_load((self.region / "simulation.yaml").read_text(encoding="utf-8"))
        return int(settings["seasons"][0])

    @cached_property
    def data(self) -> xr.Dataset:
        """The season's arrays."""
        return h2crop_data.open(self.store, self.season)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The season's index."""
        return read_index(self.store, f"samples-{self.season}").set_index("sample")

    def truth(self, name: str) -> Path:
        """A file of the truth."""
        return self.region / "truth" / name

    def scenes(self) -> pd.DataFrame:
        """What is true of each scene."""
        return pd.read_parquet(self.truth("scenes.parquet")).set_index("scene")

    def cut(self, path: Path, name: str) -> NDArray[Any]:
        """The pixels (band, y, x) of a raster over a sample's cell."""
        row = self.samples.loc[name]
        side = int(row["cell"].split("_")[1])
        with rasterio.open(path) as raster:
            window = from_bounds(
                row["x0"], row["y0"] - side, row["x0"] + side, row["y0"], transform=raster.transform
            ).round_offsets()
            assert window.round_lengths().width * raster.transform.a == side
            return raster.read(window=window.round_lengths(), boundless=True, fill_value=0)

    def of_sample(self, array: str, name: str) -> NDArray[Any]:
        """One array of a sample."""
        values: NDArray[Any] = self.data[array].sel(sample=name).values
        return values


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    if "H2CROP_DEMO" in os.environ:
        demo = Path(os.environ["H2CROP_DEMO"])
        return Built(demo / "region", demo / "store")
    folder = tmp_path_factory.mktemp("simulated")
    region = folder / "region"
    simulate_region(load_settings(None, json.loads(json.dumps(SETTINGS))), region, workers=2)
    build_store(load_recipe(region / "recipe.yaml"), folder / "store", workers=2)
    return Built(region, folder / "store")


def names(built: Built) -> list[str]:
    return [str(name) for name in built.data["sample"].values]


def border(numbers: NDArray[Any], reach: int) -> NDArray[np.bool_]:
    """Pixels within `reach` pixels of another number."""
    wide = np.pad(numbers, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2 * reach + 1, 2 * reach + 1))
    return np.asarray((windows != numbers[:, :, None, None]).any(axis=(2, 3)))


def expected_tiers(codes: pd.Series) -> NDArray[np.uint8]:
    """Class ids (n, 4) of French codes, by the tables as text: the first 4, 6, 8, 10 digits of the HCAT3 code."""
    folder = Path(__file__).resolve().parents[2] / "taxonomy"
    hcat3 = pd.read_csv(folder / "countries" / "version-1" / "fr.csv", dtype=str).set_index("code")["hcat3"].to_dict()
    tiers = pd.read_csv(folder / "tiers.csv", dtype=str).query("since == '1'")
    ids = {(int(row.tier), row.hcat3_prefix): int(row.id) for row in tiers.itertuples()}
    rows = []
    for code in codes:
        digits = hcat3.get(code)
        digits = digits if isinstance(digits, str) else ""
        rows.append([ids.get((tier, digits[: 2 + 2 * tier]), 255) for tier in (1, 2, 3, 4)])
    return np.array(rows, np.uint8)


def truth_labels(built: Built, year: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """By object number: the classes (n + 1, 4) its declaration should give, and whether its shape is declared clean."""
    table = pd.read_parquet(built.truth(f"parcels-{year}.parquet"))
    last = int(pd.read_parquet(built.truth("objects.parquet"))["number"].max())
    labels, clean = np.zeros((last + 1, 4), np.uint8), np.ones(last + 1, bool)
    declared = table[table["declared"] & ~table["dirt"].str.contains("null_geometry")]
    labels[declared["number"]] = expected_tiers(declared["declared_crop"])
    dirty = table["dirt"].str.contains("invalid|overlaps|slivers")
    clean[table.loc[dirty, "number"]] = False
    return labels, clean


def split_of_objects(built: Built) -> pd.Series:
    """The split that holds most of each object, from its geometry and the recipe's squares."""
    split = load_recipe(built.region / "recipe.yaml").split
    parts = [gpd.read_parquet(path) for path in sorted((built.region / "truth" / "land").glob("*.parquet"))]
    fields = gpd.GeoDataFrame(pd.concat(parts)).query("kind == 'field'").to_crs(SPLIT_CRS)
    size = split.square_size
    west, south, east, north = (int(value // size) for value in fields.total_bounds)
    squares = gpd.GeoDataFrame(
        [
            {
                "split": plain_split((i, j), size, split.shares, split.seed),
                "geometry": shapely.box(i * size, j * size, (i + 1) * size, (j + 1) * size),
            }
            for i in range(west, east + 1)
            for j in range(south, north + 1)
        ],
        crs=SPLIT_CRS,
    )
    pieces = gpd.overlay(fields[["number", "geometry"]], squares)
    pieces["area"] = pieces.area
    areas = pieces.groupby(["number", "split"])["area"].sum().unstack(fill_value=0.0)
    return areas.idxmax(axis=1)


@pytest.mark.parametrize("layer", ["label", "prior"])
def test_labels_are_the_declared_crops_of_the_ground(built: Built, layer: str) -> None:
    """Exactly, but for dirty parcels and their neighbours; 255 where the parcel belongs to another split.

    Parcels are published in another projection: a pixel whose centre lies within a millimetre of a border may fall to
    the other side. At most one in ten thousand, and on a border.
    """
    year = built.season - (layer == "prior")
    labels, clean = truth_labels(built, year)
    splits = split_of_objects(built).reindex(range(len(clean))).to_numpy()
    compared = wrong = unknown_by_split = 0
    for name in names(built):
        numbers = built.cut(built.truth("fields.tif"), name)[0]
        stored = built.of_sample(layer, name)
        expected = labels[numbers].transpose(2, 0, 1)
        elsewhere = (splits[numbers] != built.samples.loc[name, "split"]) & (expected != 0).any(axis=0)
        unknown_by_split += int(elsewhere.sum())
        expected = np.where(elsewhere, 255, expected)
        near_dirt = border(clean[numbers], 2) | ~clean[numbers]
        differs = (stored != expected).any(axis=0) & ~near_dirt
        compared += int((~near_dirt).sum())
        wrong += int(differs.sum())
        assert not (differs & ~border(numbers, 1)).any(), f"{name}: wrong inside a field"
    assert compared > 0.8 * len(names(built)) * numbers.size
    assert wrong <= 1e-4 * compared, f"{wrong} of {compared}"
    assert unknown_by_split > 0, "some parcel crosses a border of splits"
    assert 0 < (stored == 0).mean() < 0.7


def test_every_tier_and_the_ways_of_not_knowing_occur(built: Built) -> None:
    # Of 6, 36, 82 and 101 classes: few fields lie on nine small cells.
    wanted = (6, 25, 50, 60) if "H2CROP_DEMO" in os.environ else (3, 8, 12, 12)
    labels = np.concatenate([built.of_sample("label", name).reshape(4, -1) for name in names(built)], axis=1)
    for tier, least in zip(labels, wanted, strict=True):
        assert len(set(np.unique(tier).tolist()) - {0, 255}) >= least
        assert (tier == 255).any()
    assert ((labels[0] != 255) & (labels[3] == 255)).any(), "a crop known at tier 1 only"


@dataclass(frozen=True)
class Look:
    """A date over a sample: what the archive calls clear, and what is true."""

    day: int
    clear: NDArray[np.bool_]
    #: No cloud, cirrus, shadow, haze, snow at all in the pixel of 20 m.
    bare: NDArray[np.bool_]
    #: Reflectance x 10000 of the ground (band, y, x) at 10 m.
    surface: NDArray[np.int16]


def of_pairs(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a mask at 10 m holds in the whole pixel of 20 m."""
    rows, columns = mask.shape
    blocks = mask.reshape(rows // 2, 2, columns // 2, 2).all(axis=(1, 3))
    return blocks.repeat(2, 0).repeat(2, 1)


def by_masks(built: Built, item: str, name: str) -> NDArray[np.bool_] | None:
    """Where the masks of the sample's tile show an item clear, at 10 m: nowhere for one that is not used.

    None where the store was built without masks.
    """
    cell = Cell.parse("_".join(name.split("_")[:4]))
    clear = None
    for path in (built.store / ".build/work/sentinel2-masks").glob("*.bin"):
        masks = TileMasks(path, Alignment("apply", 4))
        if masks.tile not in tiles_of(cell):
            continue
        clear = np.zeros((cell.size // 10, cell.size // 10), bool)
        if item in masks.places:
            west, _, _, north = masks.tile.bounds
            row, column, side = (north - cell.corner[1]) // 20, (cell.corner[0] - west) // 20, cell.size // 20
            # Where the date shows the ground of the cell.
            shift, last = masks.shift(item), len(masks.codes(0)) - 1
            down, across = math.floor(0.5 - shift.north / 20), math.floor(0.5 + shift.east / 20)
            rows, columns = (np.clip(np.arange(side) + start, 0, last) for start in (row + down, column + across))
            codes = masks.codes(masks.places[item])[np.ix_(rows, columns)]
            return (codes == MaskCode.CLEAR).repeat(2, 0).repeat(2, 1)
    return clear


def looks_of_month(built: Built, name: str, month: int) -> list[Look]:
    """The dates of a month over a sample, from the files of the catalog's items, newest baseline first."""
    catalog = next(path for path in (built.region / "catalog").glob("*.json") if path.stem != "enmap")
    items = json.loads(catalog.read_text(encoding="utf-8"))["features"]
    days = sorted({item["properties"]["datetime"][:10] for item in items})
    looks = []
    for day in days:
        if int(day[5:7]) != month:
            continue
        clear = np.zeros(built.data["s2_clear"].shape[2:], bool)
        for item in items:
            if item["properties"]["datetime"][:10] == day:
                of_day = {key: catalog.parent / item["assets"][key]["href"] for key in ("scl", "blue")}
                classes = built.cut(of_day["scl"], name)[0].repeat(2, 0).repeat(2, 1)
                # Where the swath ends, a pixel of 20 m may be measured and one of 10 m in it not.
                believed = by_masks(built, item["id"], name)
                believed = np.isin(classes, (4, 5, 6)) if believed is None else believed & (classes > 0)
                clear |= believed & (built.cut(of_day["blue"], name)[0] > 0)
        sky = built.cut(built.truth(f"sentinel2/{day}/sky.tif"), name)
        ten = built.cut(built.truth(f"sentinel2/{day}/surface_10m.tif"), name)
        twenty = built.cut(built.truth(f"sentinel2/{day}/surface_20m.tif"), name).repeat(2, 1).repeat(2, 2)
        of_band = {**dict(zip(TEN, ten, strict=True)), **dict(zip(TWENTY, twenty, strict=True))}
        looks.append(
            Look(
                pd.Timestamp(day).day_of_year,
                clear,
                of_pairs((sky == 0).all(axis=0)),
                np.stack([of_band[str(band)] for band in built.data["s2_band"].values]),
            )
        )
    return looks


def test_composites_are_the_ground_where_it_was_clear(built: Built) -> None:
    """Where every look that counts was truly clear, the composite is the median of the true ground within noise.

    Not so where dates are shifted: then they show the ground some metres off.
    """
    shifted = built.truth("shifts.parquet").exists()
    differences, expected_noise = [], []
    for name in names(built)[:: max(1, len(names(built)) // 6)]:
        stored, count = built.of_sample("s2", name), built.of_sample("s2_clear", name)
        day = built.of_sample("s2_day", name)
        for month in range(1, 13):
            looks = looks_of_month(built, name, month)
            clear = np.stack([look.clear for look in looks])
            np.testing.assert_array_equal(count[month - 1], clear.sum(axis=0), err_msg=f"{name}, month {month}")
            assert np.all((stored[month - 1] == FILL) == (count[month - 1] == 0))
            sure = clear.any(axis=0) & np.all([look.bare | ~look.clear for look in looks], axis=0)
            if shifted or not sure.any():
                continue
            ground = np.where(clear[:, None], np.stack([look.surface for look in looks]).astype(float), np.nan)
            middle = np.nanmedian(ground[:, :, sure], axis=0)
            differences.append(stored[month - 1][:, sure] - middle)
            expected_noise.append(8 + 0.004 * np.abs(middle))
            days = np.where(clear, np.array([look.day for look in looks])[:, None, None], np.nan)[:, sure]
            np.testing.assert_array_equal(day[month - 1][sure], np.floor(np.nanmedian(days, axis=0)))
    if shifted:
        pytest.skip("dates of this region lie off the ground; what was clear when is as it should be")
    difference, noise = np.concatenate(differences, axis=1), np.concatenate(expected_noise, axis=1)
    assert difference.size > 1e6
    assert abs(difference.mean()) < 0.5, "no offset left, none taken twice"
    assert np.abs(difference.mean(axis=1)).max() < 1.5, "in no band"
    assert (difference / noise).std() < 1.1
    assert np.abs(difference / noise).max() < 8


def enmap_pass(built: Built, shifted: bool) -> str:
    """The id of a scene with or without a shift."""
    scenes = built.scenes().query("sensor == 'enmap'")
    moved = (scenes["shift_east"] != 0) | (scenes["shift_north"] != 0)
    chosen = scenes[moved == shifted]
    if chosen.empty:
        pytest.skip("this region has no such scene")
    return str(chosen.index[0])


def enmap_errors(built: Built, scene: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of all samples of a scene: difference to the truth, the truth, its local range; each (band, pixel)."""
    truth = built.truth(f"{built.scenes().loc[scene, 'truth']}.tif")
    # The store leaves out the bands without data.
    wanted = [i for i, centre in enumerate(enmap_bands()[0]) if not 1325 <= centre <= 1395]
    parts = []
    for name in built.samples.index[built.samples["scene"] == scene]:
        stored = built.of_sample("enmap", name).astype(float)
        flags = built.of_sample("enmap_quality", name)
        true = built.cut(truth, name)[wanted].astype(float)
        wide = np.pad(true, ((0, 0), (1, 1), (1, 1)), mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(1, 2))
        span = around.max(axis=(3, 4)) - around.min(axis=(3, 4))
        # Only flags of clouds and the like, and dead columns: water is fine.
        usable = (flags & ~np.uint16(2)) == 0
        # Thin cirrus, haze and shadow are there below what flags tell: only ground with none near it.
        veiled = built.cut(built.truth(f"{built.scenes().loc[scene, 'truth']}-sky.tif"), name).any(axis=0)
        near = np.lib.stride_tricks.sliding_window_view(np.pad(veiled, 2, mode="edge"), (5, 5))
        usable &= ~near.any(axis=(2, 3))
        parts.append([values[:, usable] for values in (stored - true, true, span)])
    assert parts
    return tuple(np.concatenate(values, axis=1) for values in zip(*parts, strict=True))  # type: ignore[return-value]


def test_enmap_without_shift_is_the_ground_within_noise_and_interpolation(built: Built) -> None:
    """EnMAP's pixels lie half a pixel off the lattice in both directions: cubic convolution loses contrast at borders.

    Where the ground is even (3 x 3 pixels within 0.004) what remains is noise, lowered by the kernel to about 0.6 of
    itself; elsewhere the error is a small part of the local range.
    """
    error, true, span = enmap_errors(built, enmap_pass(built, shifted=False))
    good = np.median(np.abs(error), axis=1) < 60
    assert good.mean() > 0.9, "all but the bands that water vapour blinds"
    even = span < 40
    assert even[good].sum() > 5000
    assert abs(error[good][even[good]].mean()) < 1.5
    assert error[good][even[good]].std() < 40
    uneven = span > 400
    assert uneven[good].sum() > 5000
    ratio = np.abs(error[good][uneven[good]]) / span[good][uneven[good]]
    assert np.median(ratio) < 0.08
    assert np.quantile(ratio, 0.99) < 0.35
    assert np.corrcoef((true + error)[good].ravel(), true[good].ravel())[0, 1] > 0.99


def test_a_shift_shows_as_error_at_borders(built: Built) -> None:
    still = enmap_errors(built, enmap_pass(built, shifted=False))
    moved = enmap_errors(built, enmap_pass(built, shifted=True))
    median = []
    for error, _, span in (still, moved):
        good = np.median(np.abs(error), axis=1) < 120
        uneven = span[good] > 400
        median.append(np.median(np.abs(error[good][uneven]) / span[good][uneven]))
    assert median[1] > 1.5 * median[0]


def test_no_scene_and_no_month_is_lost_without_a_record(built: Built) -> None:
    scenes = read_index(built.store, "scenes")
    listed = [
        item["id"]
        for path in (built.region / "catalog").glob("*.json")
        for item in json.loads(path.read_text(encoding="utf-8"))["features"]
    ]
    assert sorted(scenes["id"]) == sorted(listed)
    refused = scenes[~scenes["taken"]]
    assert (refused["reason"] != "").all()
    # A scene left out is a duplicate, or its own reason says which limit of the recipe it exceeds.
    known = refused["reason"].str.contains("same acquisition|cloud cover|no cell of the area")
    assert known.all(), refused.loc[~known, "reason"].tolist()
    truth = built.scenes()
    taken = scenes[scenes["taken"] & (scenes["sensor"] == "sentinel2")]
    offsets = truth.loc[taken["id"], "offset_in_numbers"].to_numpy()
    np.testing.assert_array_equal(-offsets, taken["offset"].astype(float))
    for name in names(built):
        clear = built.of_sample("s2_clear", name)
        dates = built.samples.loc[name, "s2_dates"]
        seen = {int(str(date)[5:7]) for date in dates}
        assert seen == {month for month in range(1, 13) if clear[month - 1].any()}
        share = built.samples.loc[name, "s2_clear_share"]
        np.testing.assert_allclose(share, (clear > 0).mean(axis=(1, 2)), atol=1e-6)
        assert not len(built.samples.loc[name, "s2_gaps"])


def test_cells_of_enmap_are_as_clear_as_the_recipe_asks(built: Built) -> None:
    """Cloudier cells are left out; of those kept, the flagged share in the index is that of the flags."""
    source = load_recipe(built.region / "recipe.yaml").enmap
    assert source is not None
    for name in names(built):
        flags = built.of_sample("enmap_quality", name)
        flagged = float(((flags & source.flag_mask) != 0).mean())
        assert flagged <= source.max_flagged_share
        assert built.samples.loc[name, "enmap_flagged_share"] == pytest.approx(flagged)
        assert not (flags & 1).any(), "no pixel beyond the swath"


def test_a_swath_edge_leaves_cells_out(built: Built) -> None:
    per_scene = built.samples.groupby("scene").size()
    settings = yaml.safe_load((built.region / "simulation.yaml").read_text(encoding="utf-8"))
    if settings["enmap"]["coverage"] == [1.0]:
        pytest.skip("all swaths cover the region")
    assert per_scene.min() < per_scene.max()
