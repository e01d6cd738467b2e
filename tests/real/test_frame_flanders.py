"""Real images lie some 2.9 m east and 13.2 m south (sd 1.3 m) of the raster of crops that comes with them.

Parcels were traced from the raster, so its convention (the corner or the centre of a pixel) and the frame of the images
of 2018 cannot be told apart here. What is measured on this patch with labels inherits it.
"""

from __future__ import annotations

import math
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from flanders_dates import Dates, read_dates
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.parcels.frame import CellImages, FrameRules, FrameShift, frame_of_tile, warning_of

WEST, NORTH = 501_360, 5_629_680
BOUNDS = (WEST, NORTH - 640, WEST + 640, NORTH)
#: East and south of the labels, by measurements that are not the package's, and how sure they are.
KNOWN, SURE = (2.9, -13.2), 1.3
#: As a release would measure, but with so few parcels, blocks of 80 m, and more dates to make up for them.
ONE_PATCH = FrameRules(parcels=10, block=8, painted=24)


@pytest.fixture(scope="module")
def images(shared: Path) -> CellImages:
    """Red and infrared of the dates that are mostly clear."""
    dates: Dates = read_dates(shared / "flanders_2018")
    clear = np.isin(dates.classes, (4, 5, 6))
    mostly = clear.mean(axis=(1, 2)) > 0.6
    seen = clear[mostly].repeat(2, axis=1).repeat(2, axis=2)

    def band(name: str) -> NDArray[np.int16]:
        values = dates.bands[name][mostly]
        return np.where(seen & (values > 0), values, REFLECTANCE_FILL).astype(np.int16)

    return CellImages(WEST, NORTH, band("B04"), band("B08"))


@pytest.fixture(scope="module")
def parcels(shared: Path) -> NDArray[np.object_]:
    """The parcels that were traced from the raster."""
    geometry: NDArray[np.object_] = gpd.read_file(shared / "flanders_2018/parcels_2018.gpkg").geometry.to_numpy()
    return np.array(geometry, object)


def of_dates(images: CellImages, first: int) -> CellImages:
    """Every other date."""
    return CellImages(WEST, NORTH, images.red[first::2], images.infrared[first::2])


def measured(images: CellImages, parcels: NDArray[np.object_]) -> FrameShift:
    """The shift of the patch."""
    return frame_of_tile(BOUNDS, [images], parcels, ONE_PATCH).whole


def test_a_patch_with_few_parcels_is_not_measured(images: CellImages, parcels: NDArray[np.object_]) -> None:
    found = frame_of_tile(BOUNDS, [images], parcels).whole
    assert found.reason == "not_measured: fewer than 300 parcels"
    assert 15 <= found.parcels <= len(parcels) == 19
    assert math.isnan(found.east)
    assert warning_of(found) is None


def test_the_images_lie_south_of_the_labels(images: CellImages, parcels: NDArray[np.object_]) -> None:
    found = measured(images, parcels)
    assert found.measured, found.reason
    assert math.hypot(found.east - KNOWN[0], found.north - KNOWN[1]) < 2 * SURE
    assert found.correlation > 0.5
    assert SURE / 2 < found.sd < 2
    # Painted parcels, with more dates than a tile needs, say so too.
    assert math.hypot(found.check_east - KNOWN[0], found.check_north - KNOWN[1]) < 2 * SURE
    assert not found.doubtful
    assert "south" in str(warning_of(found))


@pytest.mark.parametrize("first", [0, 1])
def test_half_of_the_dates_says_the_same(first: int, images: CellImages, parcels: NDArray[np.object_]) -> None:
    assert len(images.red) == 49
    found = measured(of_dates(images, first), parcels)
    assert math.hypot(found.east - KNOWN[0], found.north - KNOWN[1]) < 2 * SURE


def test_labels_moved_onto_the_images_lie_on_them(images: CellImages, parcels: NDArray[np.object_]) -> None:
    moved = gpd.GeoSeries(parcels).translate(*KNOWN).to_numpy()
    found = measured(images, np.array(moved, object))
    assert math.hypot(found.east, found.north) < 2 * SURE
    assert warning_of(found) is None
