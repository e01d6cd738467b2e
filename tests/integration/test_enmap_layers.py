"""Quality layers on grids of their own: the ground that they flag, by an independent count of overlapping pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from h2crop_data.constants import ENMAP_FLAGS
from h2crop_data.errors import SceneError
from h2crop_data.sources.enmap.layers import layers_elsewhere, read_flags, read_layers

WEST, NORTH = 500_985.0, 5_629_725.0
IMAGE = GeoBox((24, 30), Affine(30, 0, WEST, 0, -30, NORTH), "EPSG:32631")
OUTSIDE = ENMAP_FLAGS["outside"]
CIRRUS = {1: ENMAP_FLAGS["cirrus_thin"], 2: ENMAP_FLAGS["cirrus_medium"], 3: ENMAP_FLAGS["cirrus_thick"]}

#: A layer's first corner from the image's in metres (east, south), its pixels in metres, rows and columns.
GRIDS = {
    "the image's": (0, 0, 30, 24, 30),
    "ten pixels off": (300, 300, 30, 24, 30),
    "cut": (60, 90, 30, 20, 26),
    "larger than the image": (-90, -60, 30, 30, 40),
    "half a pixel off": (15, 15, 30, 24, 30),
    "a fraction off": (-7, 11, 30, 24, 30),
    "coarse": (-30, 0, 60, 13, 17),
    "fine": (-15, -15, 15, 60, 70),
    "fine and small": (45, 30, 10, 30, 30),
    "off by rounding": (0.0001, -0.0001, 30, 20, 30),
}


def scene(folder: Path, **layers: tuple[np.ndarray, GeoBox]) -> pystac.Item:
    """An item with these layers, (y, x) or (band, y, x)."""
    item = pystac.Item("scene", None, None, pystac.utils.str_to_datetime("2022-07-24T10:45:26Z"), {})
    for name, (codes, grid) in layers.items():
        bands = codes if codes.ndim == 3 else codes[None]
        profile: dict[str, Any] = {"driver": "GTiff", "dtype": codes.dtype, "count": len(bands), "crs": str(grid.crs)}
        path = folder / f"{name}.tif"
        with rasterio.open(
            path, "w", height=grid.shape[0], width=grid.shape[1], transform=grid.affine, **profile
        ) as raster:
            raster.write(bands)
        item.add_asset(name, pystac.Asset(str(path)))
    return item


def layer_grid(name: str) -> GeoBox:
    """One of GRIDS."""
    east, south, pixel, rows, columns = GRIDS[name]
    return GeoBox((rows, columns), Affine(pixel, 0, WEST + east, 0, -pixel, NORTH - south), "EPSG:32631")


def pixels_on(name: str, row: int, column: int) -> list[tuple[int, int]] | None:
    """Row and column of the layer's pixels over an image pixel; None where it has ground that the layer lacks."""
    east, south, pixel, rows, columns = (round(number) for number in GRIDS[name])
    down = overlapping(south, pixel, row * 30)
    along = overlapping(east, pixel, column * 30)
    if down[0] < 0 or down[-1] >= rows or along[0] < 0 or along[-1] >= columns:
        return None
    return [(r, c) for r in down for c in along]


def overlapping(start: int, pixel: int, first: int) -> list[int]:
    """Which pixels of a line that begins at `start` share ground with the 30 m from `first`."""
    return [n for n in range(-200, 200) if start + n * pixel < first + 30 and start + (n + 1) * pixel > first]


@pytest.mark.parametrize("name", GRIDS)
def test_each_pixel_has_the_flags_of_the_layer_over_it(tmp_path: Path, name: str) -> None:
    codes = np.random.default_rng(3).integers(0, 4, layer_grid(name).shape).astype(np.uint8)
    classes = np.ones(IMAGE.shape, np.uint8)
    item = scene(tmp_path, quality_classes=(classes, IMAGE), quality_cirrus=(codes, layer_grid(name)))
    flags = read_flags(item, IMAGE)
    uncovered = 0
    for row in range(IMAGE.shape[0]):
        for column in range(IMAGE.shape[1]):
            over = pixels_on(name, row, column)
            if over is None:
                assert flags[row, column] & OUTSIDE
                uncovered += 1
            else:
                expected = {CIRRUS[codes[place]] for place in over if codes[place]}
                assert flags[row, column] == sum(expected)
    whole = name in ("the image's", "larger than the image", "coarse", "fine")
    assert (uncovered == 0) == whole
    # One that has all pixels of the image and others is none to speak of.
    assert bool(layers_elsewhere(read_layers(item, IMAGE, IMAGE), IMAGE)) == (
        name not in ("the image's", "larger than the image")
    )


@pytest.mark.parametrize("name", GRIDS)
def test_a_window_has_what_the_whole_has(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(5)
    grid = layer_grid(name)
    item = scene(
        tmp_path,
        quality_classes=(np.ones(IMAGE.shape, np.uint8), IMAGE),
        quality_cloud=((rng.random(grid.shape) < 0.2).astype(np.uint8), grid),
        defective_pixel_mask=((rng.random((3, *grid.shape)) < 0.05).astype(np.uint8), grid),
    )
    whole = read_flags(item, IMAGE, None, [1, 3])
    assert (whole & ENMAP_FLAGS["defective"]).any()
    for window in (Window(0, 0, 5, 7), Window(11, 9, 8, 6), Window(27, 20, 3, 4)):
        rows, columns = window.toslices()
        np.testing.assert_array_equal(read_flags(item, IMAGE, window, [1, 3]), whole[rows, columns])


def test_a_mask_that_is_only_placed_says_what_it_does_not_cover(tmp_path: Path) -> None:
    """Cells are drawn before the mask is read: what it lacks must not become a sample."""
    mask = np.ones((3, 24, 30), np.uint8)
    item = scene(
        tmp_path,
        quality_classes=(np.ones(IMAGE.shape, np.uint8), IMAGE),
        defective_pixel_mask=(mask, layer_grid("ten pixels off")),
    )
    placed, read = read_flags(item, IMAGE), read_flags(item, IMAGE, None, [1])
    np.testing.assert_array_equal(placed & OUTSIDE, read & OUTSIDE)
    assert (placed & OUTSIDE).sum() == 24 * 30 - 14 * 20
    assert not (placed & ENMAP_FLAGS["defective"]).any()


def test_a_mask_with_too_few_bands_is_refused_by_name(tmp_path: Path) -> None:
    classes = np.ones(IMAGE.shape, np.uint8)
    item = scene(tmp_path, quality_classes=(classes, IMAGE), defective_pixel_mask=(classes, IMAGE))
    with pytest.raises(SceneError, match=r"defective_pixel_mask\.tif: expected band 4, the file has 1 bands"):
        read_flags(item, IMAGE, None, [1, 4])


def test_a_layer_of_fractions_is_refused_by_name(tmp_path: Path) -> None:
    classes = np.ones(IMAGE.shape, np.uint8)
    item = scene(tmp_path, quality_classes=(classes, IMAGE), quality_haze=(classes.astype(np.float32), IMAGE))
    with pytest.raises(SceneError, match=r"quality_haze\.tif: expected integers, got float32"):
        read_flags(item, IMAGE)
