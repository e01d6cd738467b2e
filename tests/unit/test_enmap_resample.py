"""EnMAP resampled in one step, its shift in it: against GDAL, against the truth, and against two steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject
from scipy.spatial import cKDTree

from h2crop_data.enmap.quality import footprint_or
from h2crop_data.enmap.resample import resample_cubic
from h2crop_data.grid import Cell, geobox
from h2crop_data.shift import Shift, where_it_belongs
from h2crop_data.simulate.optics import sample, sampling
from h2crop_data.sources.enmap.scene_reading import cell_box

FILL = -32768
X, Y = 600_000, 5_800_020
#: 32 x 32 pixels of the lattice, and EnMAP's grid around them.
CELL = geobox((X, Y, X + 960, Y + 960), 32633, 30)
SOURCE = geobox((X - 225, Y - 225, X + 1185, Y + 1185), 32633, 30)
SHIFTS = [Shift(7, -11), Shift(-44.3, 13.37), Shift(15, 15), Shift(90, -60), Shift(-0.4, 0), Shift(14.7, -15.2)]
metres = st.floats(-90, 90).map(lambda length: round(length, 2))


def gdal_cubic(image: NDArray[Any], source: GeoBox, target: GeoBox, shift: Shift) -> NDArray[np.float32]:
    """What GDAL makes of an image whose content lies off, each band for itself; fill where it finds nothing."""
    west, north = source.affine.c - shift.east, source.affine.f - shift.north
    warped = np.full((len(image), *target.shape), FILL, np.float32)
    for band, result in zip(image, warped, strict=True):
        reproject(
            band.astype(np.float32),
            result,
            src_transform=Affine(30, 0, west, 0, -30, north),
            src_crs=str(source.crs),
            src_nodata=FILL,
            dst_transform=target.affine,
            dst_crs=str(target.crs),
            dst_nodata=FILL,
            resampling=Resampling.cubic,
        )
    return warped


def image_with_gaps(seed: int, shares: tuple[float, ...] = (0, 0.003, 0.05, 1)) -> NDArray[np.int16]:
    """Noise (band, y, x) on SOURCE; of each band another share is missing."""
    rng = np.random.default_rng(seed)
    image = rng.integers(-300, 12_000, (len(shares), *SOURCE.shape)).astype(np.int16)
    for band, share in enumerate(shares):
        image[band, rng.random(SOURCE.shape) < share] = FILL
    return image


def under_footprint(missing: NDArray[np.bool_], shift: Shift) -> NDArray[np.bool_]:
    """Whether a pixel of CELL stands on a missing one, (y, x), pixel by pixel."""
    found = np.zeros(CELL.shape, bool)
    for row, column in np.ndindex(*CELL.shape):
        # The footprint's upper left corner in pixels of the source; a thousandth of one does not count.
        right = (X + 30 * column + shift.east - SOURCE.affine.c) / 30
        down = (SOURCE.affine.f - (Y + 960 - 30 * row) - shift.north) / 30
        rows, columns = (range(int(first + 0.001), int(np.ceil(first + 0.999))) for first in (down, right))
        found[row, column] = any(missing[r, c] for r in rows for c in columns)
    return found


class TestAgainstGdal:
    @pytest.mark.parametrize("seed", range(3))
    def test_without_a_shift_every_byte_is_gdals(self, seed: int) -> None:
        image = image_with_gaps(seed)
        found, warped = resample_cubic(image, SOURCE, CELL), gdal_cubic(image, SOURCE, CELL, Shift())
        assert found.dtype == np.int16
        stands = found != FILL
        assert stands.mean() > 0.6
        np.testing.assert_array_equal(found[stands], np.rint(warped[stands]))

    @settings(deadline=None, max_examples=30)
    @given(metres, metres, st.integers(0, 2**32 - 1))
    def test_with_a_shift_numbers_are_gdals_within_one(self, east: float, north: float, seed: int) -> None:
        image, shift = image_with_gaps(seed), Shift(east, north)
        found, warped = resample_cubic(image, SOURCE, CELL, shift), gdal_cubic(image, SOURCE, CELL, shift)
        stands = found != FILL
        assert stands.mean() > 0.6
        assert np.abs(found[stands] - warped[stands]).max() <= 1

    @pytest.mark.parametrize("shift", [Shift(), Shift(7, -11)])
    def test_a_part_of_a_cell_has_the_pixels_of_the_whole(self, shift: Shift) -> None:
        image = image_with_gaps(5)
        part = resample_cubic(image, SOURCE, CELL[3:23, 4:31], shift)
        np.testing.assert_array_equal(part, resample_cubic(image, SOURCE, CELL, shift)[:, 3:23, 4:31])

    @pytest.mark.parametrize("shift", [Shift(), Shift(7, -11)])
    def test_reflectance_in_float_is_rounded_once(self, shift: Shift) -> None:
        image = image_with_gaps(4, (0, 0.01))
        scaled = np.where(image == FILL, np.float32(FILL), image * np.float32(1.0731) + np.float32(0.37))
        found, warped = resample_cubic(scaled, SOURCE, CELL, shift), gdal_cubic(scaled, SOURCE, CELL, shift)
        stands = found != FILL
        assert np.abs(found[stands] - warped[stands]).max() <= 0.51  # sums of numbers up to 20,000 in float32

    @pytest.mark.parametrize("shift", [Shift(), *SHIFTS[:3]])
    def test_across_zones_it_is_gdal_with_the_source_moved(self, shift: Shift) -> None:
        x, y = Transformer.from_crs(32633, 32632, always_xy=True).transform(X + 480, Y + 480)
        west, south = round(x / 30) * 30 - 1185, round(y / 30) * 30 - 1185
        source = geobox((west, south, west + 2370, south + 2370), 32632, 30)
        image = np.random.default_rng(1).integers(0, 9000, (2, *source.shape)).astype(np.int16)
        found = resample_cubic(image, source, CELL, shift)
        np.testing.assert_array_equal(found, np.rint(gdal_cubic(image, source, CELL, shift)))


class TestTruth:
    @pytest.mark.parametrize("shift", SHIFTS)
    def test_content_comes_back_to_where_it_belongs(self, shift: Shift) -> None:
        """A ramp that differs in both directions, imaged `shift` away: east and north, not west or south."""

        def ramp(grid: GeoBox, moved: Shift) -> NDArray[np.float64]:
            x, y = centres(grid)
            return 3000 + (x - moved.east - X) - 1.5 * (y - moved.north - Y)

        found = resample_cubic(ramp(SOURCE, shift)[None].astype(np.float32), SOURCE, CELL, shift)[0]
        assert np.abs(found - ramp(CELL, Shift())).max() <= 0.5 + 2e-3

    def test_a_ramp_of_another_zone_comes_back_too(self) -> None:
        """East and north are those of the scene's own zone. Within a twentieth of a pixel, in numbers of 10 a pixel."""
        move = Transformer.from_crs(32633, 32632, always_xy=True)
        x, y = move.transform(X + 480, Y + 480)
        west, south = round(x / 30) * 30 - 1185, round(y / 30) * 30 - 1185
        source, shift = geobox((west, south, west + 2370, south + 2370), 32632, 30), Shift(40, -25)
        x, y = centres(source)
        ramp = (x - shift.east - west) / 3 + (y - shift.north - south) / 3
        found = resample_cubic(ramp[None].astype(np.float32), source, CELL, shift)[0]
        x, y = move.transform(*centres(CELL))
        error = found - ((x - west) / 3 + (y - south) / 3)
        assert np.abs(error).max() < 1
        assert abs(error.mean()) < 0.05

    def test_a_shift_of_whole_pixels_off_an_aligned_grid_is_a_copy(self) -> None:
        source = geobox((X - 240, Y - 240, X + 1200, Y + 1200), 32633, 30)
        image = np.random.default_rng(2).integers(-500, 12_000, (2, *source.shape)).astype(np.int16)
        # Content two pixels east and one north: what belongs to row r, column c is found at r - 1, c + 2.
        found = resample_cubic(image, source, CELL, Shift(60, 30))
        np.testing.assert_array_equal(found, image[:, 7:39, 10:42])

    @pytest.mark.parametrize("shift", [Shift(), *SHIFTS])
    def test_fill_is_where_a_pixel_under_the_moved_footprint_is_missing(self, shift: Shift) -> None:
        image = image_with_gaps(5, (0.02, 0.1))
        found = resample_cubic(image, SOURCE, CELL, shift)
        for band, pixels in zip(found, image, strict=True):
            np.testing.assert_array_equal(band == FILL, under_footprint(pixels == FILL, shift))

    @pytest.mark.parametrize("shift", [Shift(7, -11), Shift(-20, 4)])
    def test_beside_a_gap_pixels_are_linear_between_those_under_the_footprint(self, shift: Shift) -> None:
        image = image_with_gaps(6, (0.05,))
        found = resample_cubic(image, SOURCE, CELL, shift)[0]
        compared = 0
        for row, column in zip(*np.nonzero(found != FILL), strict=True):
            right = (X + 30 * (column + 0.5) + shift.east - SOURCE.affine.c) / 30 - 0.5
            down = (SOURCE.affine.f - (Y + 960 - 30 * (row + 0.5)) - shift.north) / 30 - 0.5
            top, left = int(down), int(right)
            if (image[0, top - 1 : top + 3, left - 1 : left + 3] == FILL).any():
                four = image[0, top : top + 2, left : left + 2]
                expected = np.array([1 - (down - top), down - top]) @ four @ [1 - (right - left), right - left]
                assert abs(found[row, column] - expected) <= 0.51
                compared += 1
        assert compared > 50


@pytest.mark.parametrize("zone", [32633, 32632, 32634])
@pytest.mark.parametrize("shift", [Shift(), Shift(30, -30), Shift(-44.3, 13.37)])
def test_what_is_read_of_a_scene_for_a_cell_gives_the_pixels_of_the_whole(zone: int, shift: Shift) -> None:
    cell = Cell(32633, 960, 625, 6041)
    west, north = cell.corner
    x, y = Transformer.from_crs(32633, zone, always_xy=True).transform(west + 480, north - 480)
    for off in (0, 3, 11):
        left, bottom = round(x / 30) * 30 - 2415, round(y / 30) * 30 - 2415
        # In its own zone the grid of a scene always lies 15 m off.
        left, bottom = (left, bottom) if zone == 32633 else (left + off, bottom + off)
        source = geobox((left, bottom, left + 4830, bottom + 4830), zone, 30)
        image = np.random.default_rng(off).integers(200, 9000, (2, *source.shape)).astype(np.int16)
        box = cell_box(source, cell, [shift])
        part = image[:, box.top : box.bottom, box.left : box.right]
        placed = source[box.top : box.bottom, box.left : box.right]
        found = resample_cubic(part, placed, cell.geobox(30), shift)
        np.testing.assert_array_equal(found, resample_cubic(image, source, cell.geobox(30), shift))


@pytest.mark.parametrize("shift", [Shift(), *SHIFTS])
def test_flags_are_read_under_the_moved_footprint(shift: Shift) -> None:
    rng = np.random.default_rng(8)
    flags = np.zeros(SOURCE.shape, np.uint16)
    for bit in (1, 4, 1 << 14):
        flags[rng.random(SOURCE.shape) < 0.03] |= bit
    found = footprint_or(flags, SOURCE, CELL, outside=2, shift=shift)
    for bit in (1, 2, 4, 1 << 14):
        np.testing.assert_array_equal((found & bit) != 0, under_footprint((flags & bit) != 0, shift))


def centres(grid: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of the pixels' centres, each (y, x)."""
    x = grid.affine.c + (np.arange(grid.shape[1]) + 0.5) * grid.affine.a
    y = grid.affine.f + (np.arange(grid.shape[0]) + 0.5) * grid.affine.e
    columns, rows = np.meshgrid(x, y)
    return columns, rows


def smooth(grid: GeoBox, shift: Shift) -> NDArray[np.float64]:
    """Waves of 150 to 900 m, imaged `shift` away."""
    rng = np.random.default_rng(3)
    x, y = centres(grid)
    total = np.full(grid.shape, 3000.0)
    for length, angle, phase in zip(rng.uniform(150, 900, 12), *rng.uniform(0, 2 * np.pi, (2, 12)), strict=True):
        along = np.cos(angle) * (x - shift.east) + np.sin(angle) * (y - shift.north)
        total += 150 * np.sin(2 * np.pi * along / length + phase)
    return total


class Fields:
    """Fields of about 3 ha, each of one reflectance, on ground of 3 m, imaged by the simulator's optics."""

    SIZE, AROUND = 3.0, 600

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        seeds = rng.uniform(-self.AROUND, 960 + self.AROUND, (150, 2))
        self.axis = np.arange(-self.AROUND, 960 + self.AROUND, self.SIZE) + self.SIZE / 2
        x, y = np.meshgrid(self.axis, self.axis[::-1])
        nearest = cKDTree(seeds).query(np.column_stack([x.ravel(), y.ravel()]))[1]
        self.ground = rng.uniform(300, 5000, len(seeds))[nearest].reshape(x.shape).astype(np.float32)[None]

    def __call__(self, grid: GeoBox, shift: Shift) -> NDArray[np.float64]:
        """The image (y, x) on a grid, `shift` away."""
        x, y = centres(grid)
        rows = sampling(y[:, 0] - shift.north - Y, 30, self.axis[::-1])
        columns = sampling(x[0] - shift.east - X, 30, self.axis)
        return np.asarray(sample(self.ground, rows, columns)[0], float)


@pytest.fixture(scope="module")
def fields() -> Fields:
    return Fields()


@pytest.mark.parametrize("shift", [*SHIFTS, Shift(3, 4), Shift(-7.5, 7.5), Shift(22, -3)])
@pytest.mark.parametrize("ground", ["smooth", "fields"])
def test_one_step_is_nearer_to_the_truth_than_two(ground: str, shift: Shift, fields: Fields) -> None:
    """Two steps undo the shift on EnMAP's own grid, then go onto the lattice."""
    image = {"smooth": smooth, "fields": fields}[ground]
    seen, truth = np.rint(image(SOURCE, shift)).astype(np.int16)[None], image(CELL, Shift())
    once = resample_cubic(seen, SOURCE, CELL, shift)[0]
    in_place = resample_cubic(seen, SOURCE, SOURCE, shift)
    twice = resample_cubic(in_place, SOURCE, CELL)[0]
    left_alone = resample_cubic(seen, SOURCE, CELL)[0]
    error, of_two, of_none = (np.sqrt(((stored - truth) ** 2).mean()) for stored in (once, twice, left_alone))
    assert error <= of_two
    if max(abs(shift.east), abs(shift.north)) > 3:
        assert error < 0.7 * of_none


def test_where_it_belongs_is_the_grid_moved_back() -> None:
    moved = where_it_belongs(SOURCE, Shift(7, -11))
    assert (moved.affine.c - SOURCE.affine.c, moved.affine.f - SOURCE.affine.f) == (-7, 11)
    assert (moved.shape, moved.crs, moved.affine.a, moved.affine.e) == (SOURCE.shape, SOURCE.crs, 30, -30)
