"""Images of a simulated region that lie off the ground: exactly where their truth says, and nothing else moves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from numpy.typing import NDArray
from scipy import ndimage, optimize

from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings

#: Across the border between two tiles, so that both show the region.
TINY: dict[str, Any] = {
    "seed": 5,
    "cells": 1,
    "cell_size": 960,
    "place": {"west": 499_680},
    "enmap.scenes": 0,
    "sentinel2.months": [6],
    "sentinel2.dates_per_month": 1,
    "sentinel2.duplicates": 0,
    "sentinel2.swath_edges": 0,
}
CLEAR: dict[str, Any] = {
    "sentinel2.sky": {"cloudiness": 0, "cirrus": 0, "haze": 0, "snow": 0},
    "sentinel2.noise": 0,
    "sentinel2.scl_errors": 0,
}
#: No date and no tile is off; then `absolute` alone moves images.
EXACT = {"sd": 0, "not_refined": 0, "between_tiles": 0}
SIZES = {"blue": 10, "red": 10, "nir": 10, "swir16": 20, "scl": 20, "cirrus": 60, "coastal": 60}


def simulated(folder: Path, geometry: dict[str, Any] | None, **changes: Any) -> Path:
    """A tiny region; `__` in a name stands for the dot."""
    more = {name.replace("__", "."): value for name, value in changes.items()}
    wanted = {**TINY, "sentinel2.geometry": geometry, **more}
    simulate_region(load_settings(None, json.loads(json.dumps(wanted))), folder, workers=1)
    return folder


def items(folder: Path) -> list[dict[str, Any]]:
    """All items of all catalogs."""
    return [
        item
        for path in sorted((folder / "catalog").glob("*.json"))
        for item in json.loads(path.read_text(encoding="utf-8"))["features"]
    ]


def file_of(folder: Path, item: dict[str, Any], key: str) -> Path:
    return folder / "catalog" / str(item["assets"][key]["href"])


def images(folder: Path) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Every image (y, x) of a region by item and asset."""
    found = {}
    for item in items(folder):
        for key in item["assets"]:
            if key in SIZES:
                with rasterio.open(file_of(folder, item, key)) as file:
                    found[item["id"], key] = file.read(1).astype(np.int64)
    return found


def hashes(folder: Path, *globs: str) -> dict[str, str]:
    """Checksums of the files that some patterns find."""
    paths = sorted(path for pattern in globs for path in folder.glob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def moved(image: NDArray[Any], east: int, north: int) -> tuple[slice, slice]:
    """The part of an image that shows what `image` shows after it moved east and north by pixels."""
    rows, columns = image.shape
    return slice(max(-north, 0), rows - max(north, 0)), slice(max(east, 0), columns + min(east, 0))


def unmoved(image: NDArray[Any], east: int, north: int) -> tuple[slice, slice]:
    return moved(image, -east, -north)


def test_content_moves_east_and_north_pixel_by_pixel_in_every_level_and_band(tmp_path: Path) -> None:
    plain = {**CLEAR, "sentinel2__l1c": True}
    still = images(simulated(tmp_path / "still", None, **plain))
    assert {key for _, key in still} == set(SIZES)
    assert {name[-3:] for name, _ in still} == {"L2A", "L1C"}
    for name, (east, north) in {"east": (60, 0), "north": (0, 60), "back": (-60, -60)}.items():
        shifted = images(simulated(tmp_path / name, {**EXACT, "absolute": (east, north)}, **plain))
        for (scene, key), before in still.items():
            size, after = SIZES[key], shifted[scene, key]
            pixels = (east // size, north // size)
            np.testing.assert_array_equal(
                before[unmoved(before, *pixels)], after[moved(after, *pixels)], err_msg=f"{name} {scene} {key}"
            )
            if key not in ("cirrus", "scl"):
                assert (before != after).mean() > 0.5
    assert {row[key] for row in rows(tmp_path / "back") for key in ("east", "north")} == {-60}


def rows(folder: Path) -> list[dict[str, Any]]:
    """truth/shifts.parquet, row by row."""
    return list(pd.read_parquet(folder / "truth/shifts.parquet").to_dict("records"))


@pytest.mark.parametrize("natural", [None, {}])
def test_geometry_without_shifts_draws_the_same_files(tmp_path: Path, natural: dict[str, Any] | None) -> None:
    wanted = {"natural": natural, "sentinel2__dates_per_month": 2, "sentinel2__l1c": True, "enmap__scenes": 1}
    without = simulated(tmp_path / "without", None, **wanted)
    with_it = simulated(tmp_path / "with", EXACT, **wanted)
    rasters = ("products/**/*.[tT][iI][fF]", "truth/**/*.tif", "parcels/*", "truth/*crops*.parquet")
    assert hashes(without, *rasters) == hashes(with_it, *rasters)
    assert len(hashes(without, *rasters)) > 50
    assert not (without / "truth/shifts.parquet").exists()
    assert not [key for item in items(without) for key in item["assets"] if "strip" in key]
    assert all(row["east"] == row["north"] == 0 and row["refined"] for row in rows(with_it))
    assert "geometry" not in yaml.safe_load((without / "simulation.yaml").read_text(encoding="utf-8"))["sentinel2"]


def test_truth_and_clouds_stay_where_they_are(tmp_path: Path) -> None:
    """The surface is the ground's own, the sky the sky's; noise is the instrument's and does not move either."""
    cloudy = {"sentinel2__sky": {"cloudiness": 0.6, "cirrus": 0, "haze": 0, "snow": 0}, "natural": {}, "seed": 8}
    still = simulated(tmp_path / "still", None, **cloudy, sentinel2__dates_per_month=3)
    off = simulated(tmp_path / "off", {**EXACT, "absolute": [37.3, -21.9]}, **cloudy, sentinel2__dates_per_month=3)
    assert hashes(still, "truth/sentinel2/**/*.tif") == hashes(off, "truth/sentinel2/**/*.tif")
    opaque = open_ground = 0
    before, after = images(still), images(off)
    for item in items(still):
        one, other = (found[item["id"], "blue"] for found in (before, after))
        day = item["properties"]["datetime"][:10]
        with (
            rasterio.open(still / "truth/sentinel2" / day / "sky.tif") as sky,
            rasterio.open(file_of(still, item, "blue")) as image,
        ):
            cloud = sky.read(1, window=sky.window(*image.bounds))
        # 200 half percents are more than 99.5 %: hardly anything of the ground shines through.
        np.testing.assert_allclose(one[cloud == 200], other[cloud == 200], atol=12)
        opaque += int((cloud == 200).sum())
        if (cloud == 0).any():
            assert (one[cloud == 0] != other[cloud == 0]).mean() > 0.9
            open_ground += int((cloud == 0).sum())
    assert min(opaque, open_ground) > 2000


def measured(before: NDArray[Any], after: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Metres east and north by which one image lies off the other: where interpolating the one gives the other."""

    def difference(shift: NDArray[np.float64]) -> float:
        there = ndimage.shift(before.astype(float), (-shift[1] / size, shift[0] / size), order=3, mode="nearest")
        return float(((there - after)[8:-8, 8:-8] ** 2).mean())

    found = optimize.minimize(difference, [0, 0], method="Nelder-Mead", options={"xatol": 0.01, "fatol": 1e-3})
    return np.asarray(found.x)


def test_each_tile_and_date_lies_off_by_its_row_in_all_archives(tmp_path: Path) -> None:
    geometry = {"not_refined": 0.5, "between_tiles": 1.5, "absolute": [4, 0]}
    wanted = {
        **CLEAR,
        "natural": {},
        "sentinel2__months": [6, 7],
        "sentinel2__dates_per_month": 2,
        "sentinel2__duplicates": 1.0,
        "sentinel2__l1c": True,
        "sentinel2__archives": ["sentinel-2-c1-l2a", "planetary-computer", "copernicus"],
    }
    still, off = simulated(tmp_path / "still", None, **wanted), simulated(tmp_path / "off", geometry, **wanted)
    table = pd.read_parquet(off / "truth/shifts.parquet")
    assert len(table) == 8
    assert table["pass"].nunique() == 4
    assert set(table["tile"]) == {"31UDP", "31UEP"}
    assert table["time"].is_monotonic_increasing
    assert set(table["refined"]) == {True, False}
    assert (table.groupby("pass")["refined"].nunique() == 1).all()
    assert (table.groupby("pass")["east"].nunique() == 2).all(), "tiles of a datatake differ"
    of_tile = {(row["time"][:19], row["tile"]): row for row in table.to_dict("records")}
    before, after = images(still), images(off)
    for (scene, key), image in before.items():
        if key == "nir" and scene.endswith("_L2A"):
            row = row_of(off, scene, of_tile)
            found = measured(image, after[scene, key], 10)
            np.testing.assert_allclose(found, [row["east"], row["north"]], atol=0.25, err_msg=scene)
    seen = set()
    truth = pd.read_parquet(off / "truth/scenes.parquet").set_index("scene")
    for item in items(off):
        row = row_of(off, item["id"], of_tile)
        assert (truth.loc[item["id"], "shift_east"], truth.loc[item["id"], "shift_north"]) == (
            row["east"],
            row["north"],
        )
        key = next(key for key in item["assets"] if "strip" in key)
        root = ElementTree.parse(file_of(off, item, key)).getroot()
        flag = root.find("{*}Image_Data_Info/Geometric_Info/Image_Refining")
        assert flag is not None
        assert flag.get("flag") == ("REFINED" if row["refined"] else "NOT_REFINED")
        assert root.tag.endswith(f"Level-{'1C' if item['collection'].endswith('l1c') else '2A'}_DataStrip_ID")
        seen.add((item["collection"], key, flag.get("flag")))
    assert len(seen) == 8, "both words in four catalogs"


def row_of(folder: Path, scene: str, of_tile: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """The row of a scene's tile and pass."""
    truth = pd.read_parquet(folder / "truth/scenes.parquet").set_index("scene")
    tile = next(tile for tile in ("31UDP", "31UEP") if tile in scene)
    return of_tile[str(truth.loc[scene, "time"])[:19], tile]


def test_granules_of_the_neighbouring_zone_lie_off_along_their_own_axes(tmp_path: Path) -> None:
    wanted = {**CLEAR, "place": {"west": 717_120, "south": 5_376_000}, "sentinel2__zone_border": True}
    still = simulated(tmp_path / "still", None, **wanted)
    off = simulated(tmp_path / "off", {**EXACT, "absolute": [12, 9]}, **wanted)
    table = pd.read_parquet(off / "truth/shifts.parquet").set_index("tile")
    assert set(table["epsg"]) == {32631, 32632}
    before, after = images(still), images(off)
    for item in items(off):
        tile = item["properties"]["grid:code"].removeprefix("MGRS-")
        assert table.loc[tile, "epsg"] == item["properties"]["proj:epsg"]
        expected = table.loc[tile, ["east", "north"]].to_numpy(float)
        found = measured(before[item["id"], "nir"], after[item["id"], "nir"], 10)
        np.testing.assert_allclose(found, expected, atol=0.25, err_msg=tile)
    there = table[table["epsg"] == 32632].iloc[0]
    # Turned by the convergence of 4.5 degrees between the zones.
    assert abs(there["east"] - 12) > 0.5
    assert np.hypot(there["east"], there["north"]) == pytest.approx(15, abs=0.05)
