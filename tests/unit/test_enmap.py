"""EnMAP: metadata, bands, reflectance, quality flags, and resampling onto the lattice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from h2crop_data.constants import ENMAP_FLAGS
from h2crop_data.enmap.product import Band, enmap_reflectance, parse_metadata, select_bands
from h2crop_data.enmap.quality import footprint_or, layer_flags
from h2crop_data.enmap.resample import resample_cubic
from h2crop_data.errors import SceneError
from h2crop_data.grid import geobox

FILL = -32768
economical = settings(deadline=None, max_examples=40)

TAGS = ("wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")
#: VNIR and SWIR overlap from 902 to 993 nm: by detector the wavelengths go back once.
INTERLEAVED = (418.2, 901.9, 950.1, 993.0, 902.3, 947.7, 1000.5, 1331.2, 1391.0, 2445.5)


def band_xml(number: int, values: tuple[Any, ...]) -> str:
    """One bandID element."""
    return f'<bandID number="{number}">' + "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(TAGS, values, strict=True)
    ) + "</bandID>"  # fmt: skip


def metadata_xml(
    bands: str, more: str = "<sunElevationAngle><center unit='DEG'>56.5</center></sunElevationAngle>"
) -> str:
    """A METADATA.XML with the archive's tags."""
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n<level_X><metadata/><processing><correctionType> Combined "
        f"</correctionType></processing><specific>{more}<bandCharacterisation>{bands}</bandCharacterisation></specific>"
        "</level_X>"
    )


def bands_of(wavelengths: tuple[float, ...], gain: float = 1e-4, offset: float = 0) -> list[Band]:
    """Bands 1, 2, ... with these wavelengths."""
    return [Band(i + 1, wavelength, 8.0, gain, offset, "vnir") for i, wavelength in enumerate(wavelengths)]


class TestMetadata:
    def test_bands_are_read_by_number_whatever_their_order(self) -> None:
        order = [3, 1, 4, 2]
        xml = metadata_xml("".join(band_xml(n, (INTERLEAVED[n - 1], 6 + n, n * 1e-4, -n / 10)) for n in order))
        product = parse_metadata(xml)
        found = {band.number: (band.wavelength, band.fwhm, band.gain, band.offset) for band in product.bands}
        assert found == {n: (INTERLEAVED[n - 1], 6 + n, pytest.approx(n * 1e-4), -n / 10) for n in order}
        assert product.angles.sun_elevation == 56.5
        assert product.processing == {"correctionType": "Combined"}

    def test_a_product_may_state_no_sun_elevation(self) -> None:
        assert parse_metadata(metadata_xml(band_xml(1, (500, 6, 1e-4, 0)), more="")).angles.sun_elevation is None

    @pytest.mark.parametrize("tag", TAGS)
    def test_a_band_without_a_tag_is_refused_by_name(self, tag: str) -> None:
        whole = band_xml(1, (500, 6, 1e-4, 0)) + band_xml(2, (510, 6, 1e-4, 0))
        start = whole.rindex(f"<{tag}>")
        end = whole.rindex(f"</{tag}>") + len(f"</{tag}>")
        with pytest.raises(SceneError, match=rf"band 2 has no {tag}"):
            parse_metadata(metadata_xml(whole[:start] + whole[end:]))

    @pytest.mark.parametrize(
        ("bands", "message"),
        [
            ("", "no specific/bandCharacterisation/bandID"),
            (band_xml(1, ("about 500", 6, 1e-4, 0)), "damaged.*about 500"),
            (band_xml(1, (500, 6, 1e-4, 0)).replace(' number="1"', ""), "damaged.*number"),
            (band_xml(1, (500, 6, 1e-4, 0)) + band_xml(3, (510, 6, 1e-4, 0)), r"expected the band numbers 1\.\.N"),
            (band_xml(1, (500, 6, 1e-4, 0)) * 2, r"expected the band numbers 1\.\.N"),
        ],
    )
    def test_damaged_metadata_is_refused(self, bands: str, message: str) -> None:
        with pytest.raises(SceneError, match=message):
            parse_metadata(metadata_xml(bands))

    @pytest.mark.parametrize(
        "page",
        [
            "<!DOCTYPE html>\n<html><head><meta charset=utf-8><title>Sign in</title></head><body><br></body></html>",
            "\n  <HTML><body><p>Sign in</body></HTML>",
            # Well-formed XML, but no product's.
            '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body>Sign in</body></html>',
            "<!DOCTYPE html><html><body>Sign in</body></html>",
        ],
    )
    def test_a_login_page_is_called_one(self, page: str) -> None:
        with pytest.raises(SceneError, match="login page"):
            parse_metadata(page)

    def test_a_file_cut_short_is_not_called_a_login_page(self) -> None:
        xml = metadata_xml(band_xml(1, (500, 6, 1e-4, 0)))
        with pytest.raises(SceneError, match="not valid XML") as raised:
            parse_metadata(xml[: len(xml) // 2])
        assert "login" not in str(raised.value)


class TestBands:
    def test_bands_come_in_order_of_wavelength_without_the_excluded(self) -> None:
        kept = select_bands(bands_of(INTERLEAVED), [(1325, 1395)], 8)
        assert [band.wavelength for band in kept] == sorted(w for w in INTERLEAVED if not 1325 <= w <= 1395)
        assert [band.number for band in kept] == [1, 2, 5, 6, 3, 4, 7, 10]

    def test_nothing_excluded_keeps_all(self) -> None:
        assert len(select_bands(bands_of(INTERLEAVED), [], len(INTERLEAVED))) == len(INTERLEAVED)

    def test_ends_of_a_range_are_excluded(self) -> None:
        kept = select_bands(bands_of((500.0, 510.0, 520.0, 530.0)), [(510, 520), (530, 530)], 1)
        assert [band.wavelength for band in kept] == [500.0]

    @pytest.mark.parametrize("count", [7, 9, 218])
    def test_another_number_of_bands_is_refused(self, count: int) -> None:
        with pytest.raises(SceneError, match=rf"expected {count} bands .*, got 8: 10 bands less 1325-1395 nm"):
            select_bands(bands_of(INTERLEAVED), [(1325, 1395)], count)


class TestReflectance:
    numbers = np.array([[[0, 1, -300, 9999]], [[FILL, 32767, 5, FILL]]], np.int16)

    def test_the_usual_gain_changes_no_number(self) -> None:
        values = enmap_reflectance(self.numbers, bands_of((500, 600)), FILL)
        assert values.dtype == np.int16
        assert (values == self.numbers).all()

    @pytest.mark.parametrize("nodata", [0, -300, 9999])
    def test_another_nodata_becomes_fill(self, nodata: int) -> None:
        values = enmap_reflectance(self.numbers, bands_of((500, 600)), nodata)
        expected = [[[FILL if n == nodata else n for n in row] for row in band] for band in self.numbers.tolist()]
        assert values.tolist() == expected

    def test_unusual_gain_and_offset_count_for_each_band(self) -> None:
        bands = [Band(1, 500, 6, 2e-4, 0.01, "vnir"), Band(2, 600, 6, 1e-4, -0.05, "vnir")]
        values = enmap_reflectance(self.numbers, bands, FILL)
        for band, scaled, numbers in zip(bands, values.tolist(), self.numbers.tolist(), strict=True):
            for value, number in zip(scaled[0], numbers[0], strict=True):
                true = FILL if number == FILL else 10000 * (band.gain * number + band.offset)
                assert value == pytest.approx(true, abs=0.01)

    @pytest.mark.parametrize("change", [(1.01e-4, 0.0), (1e-4, 1e-4), (2e-4, 0.0)])
    def test_a_small_change_of_one_band_is_seen(self, change: tuple[float, float]) -> None:
        bands = [Band(1, 500, 6, 1e-4, 0, "vnir"), Band(2, 600, 6, *change, "vnir")]
        values = enmap_reflectance(np.full((2, 1, 1), 1000, np.int16), bands, FILL)
        assert values[0].item() == pytest.approx(1000, abs=0.01)
        assert values[1].item() == pytest.approx(1e4 * (change[0] * 1000 + change[1]), abs=0.01)


def names(flags: int) -> set[str]:
    """The names of the flags that are set."""
    return {name for name, bit in ENMAP_FLAGS.items() if flags & bit}


def flagged(**codes: int) -> set[str]:
    """The flags of one land pixel with these codes in the layers."""
    layers = {"quality_classes": 1, **codes}
    return {flag for layer, code in layers.items() for flag in of_layer(layer, code)}


def of_layer(layer: str, code: int) -> set[str]:
    """The flags of a pixel of one layer."""
    return names(layer_flags(layer, np.array([[[code]]], np.uint8)).item())


class TestQuality:
    def test_flags_are_different_bits_of_uint16(self) -> None:
        bits = sorted(ENMAP_FLAGS.values())
        assert bits == [1 << i for i in range(len(bits))]
        assert layer_flags("quality_classes", np.ones((1, 2, 3), np.uint8)).dtype == np.uint16

    @pytest.mark.parametrize(
        ("code", "flags"), [(0, {"outside"}), (1, set()), (2, {"water"}), (3, {"outside"}), (255, {"outside"})]
    )
    def test_classes(self, code: int, flags: set[str]) -> None:
        assert flagged(quality_classes=code) == flags

    @pytest.mark.parametrize(
        ("code", "flags"),
        [(0, set()), (1, {"cirrus_thin"}), (2, {"cirrus_medium"}), (3, {"cirrus_thick"}), (255, set())],
    )
    def test_cirrus(self, code: int, flags: set[str]) -> None:
        assert flagged(quality_cirrus=code) == flags

    @pytest.mark.parametrize("name", ["cloud", "cloud_shadow", "haze", "snow"])
    def test_simple_layers_are_set_by_one_only(self, name: str) -> None:
        assert flagged(**{f"quality_{name}": 1}) == {name}
        assert flagged(**{f"quality_{name}": 0}) == set()
        assert flagged(**{f"quality_{name}": 255}) == set()

    @pytest.mark.parametrize(
        ("code", "flags"),
        [
            (0, set()),
            (1, {"reduced_quality"}),
            (2, {"low_quality"}),
            (3, {"outside"}),  # not produced
            (4, {"interpolated"}),
            (8, {"interpolated"}),
            (16, {"saturated"}),
            (32, {"saturated"}),
            (64, {"artefact"}),
            (128, {"artefact"}),
            (50, {"low_quality", "saturated"}),  # 2 + 16 + 32
            (21, {"reduced_quality", "interpolated", "saturated"}),
            (255, {"outside", "interpolated", "saturated", "artefact"}),
        ],
    )
    def test_testflags(self, code: int, flags: set[str]) -> None:
        assert flagged(quality_testflags=code) == flags

    def test_a_pixel_defective_in_any_band_is_defective(self) -> None:
        mask = np.zeros((3, 1, 5), np.uint8)
        mask[0, 0, 1] = mask[2, 0, 2] = mask[:, 0, 3] = 1
        mask[:, 0, 4] = 255  # nodata
        flags = layer_flags("defective_pixel_mask", mask)
        assert [names(int(pixel)) for pixel in flags[0]] == [set(), {"defective"}, {"defective"}, {"defective"}, set()]


def corners(grid: GeoBox, row: int, column: int) -> np.ndarray:
    """The four corners (x, y) of a pixel."""
    west, north, size = grid.affine.c, grid.affine.f, grid.affine.a
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    return np.array([(west + (column + right) * size, north - (row + down) * size) for right, down in square])


def slow_footprint(
    source: GeoBox, target: GeoBox, row: int, column: int, rectangle: bool = False
) -> set[tuple[int, int]]:
    """The source pixels (row, column; also such as lie beyond the edge) that a target pixel's polygon reaches into.

    A thousandth of a pixel does not count. rectangle: those that the polygon's bounding rectangle reaches into.
    """
    ground = corners(target, row, column)
    if source.crs != target.crs:
        move = Transformer.from_crs(str(target.crs), str(source.crs), always_xy=True)
        ground = np.column_stack(move.transform(ground[:, 0], ground[:, 1]))
    size = source.affine.a
    polygon = shapely.Polygon(ground)
    if rectangle:
        polygon = shapely.box(*polygon.bounds)
    polygon = polygon.buffer(-size * 1e-3, join_style="mitre")
    west, south, east, north = polygon.bounds
    first, last = (int((x - source.affine.c) // size) - 1 for x in (west, east))
    top, bottom = (int((source.affine.f - y) // size) - 1 for y in (north, south))
    near = [(r, c) for r in range(top, bottom + 3) for c in range(first, last + 3)]
    pixels = shapely.polygons([corners(source, r, c) for r, c in near])
    return {
        place for place, area in zip(near, shapely.area(shapely.intersection(polygon, pixels)), strict=True) if area > 0
    }


def slow_or(values: np.ndarray, places: set[tuple[int, int]], outside: int) -> int:
    """The bitwise or of the values at these places, `outside` beyond the edge."""
    result = 0
    for row, column in places:
        inside = 0 <= row < values.shape[0] and 0 <= column < values.shape[1]
        result |= int(values[row, column]) if inside else outside
    return result


X, Y = 600_000, 5_800_000


class TestFootprint:
    @pytest.mark.slow
    @economical
    @given(
        st.sampled_from([(15, 15), (0, 0), (30, -60), (10, 20), (-7, 13), (285, 315), (-345, 15), (2000, 0)]),
        st.sampled_from([10, 30, 60]),
        st.integers(0, 2**32 - 1),
    )
    def test_all_source_pixels_under_the_footprint_count(self, shift: tuple[int, int], size: int, seed: int) -> None:
        """The aligned grid, the odd 15 m offset, others, and beyond the edge."""
        source = geobox((X + shift[0], Y + shift[1], X + shift[0] + 300, Y + shift[1] + 240), 32633, 30)
        target = geobox((X, Y, X + 300, Y + 240), 32633, size)
        values = (1 << np.random.default_rng(seed).integers(0, 10, source.shape)).astype(np.uint16)
        under = footprint_or(values, source, target, outside=4096)
        assert under.shape == target.shape
        assert under.dtype == values.dtype
        for row in range(target.shape[0]):
            for column in range(target.shape[1]):
                places = slow_footprint(source, target, row, column)
                assert under[row, column] == slow_or(values, places, 4096)

    def test_the_half_pixel_offset_takes_four_pixels_and_the_aligned_grid_one(self) -> None:
        values = (1 << np.arange(9).reshape(3, 3)).astype(np.uint16)
        source = geobox((X + 15, Y - 75, X + 105, Y + 15), 32633, 30)
        assert footprint_or(values, source, geobox((X + 30, Y - 30, X + 60, Y), 32633, 30), 0).item() == 1 + 2 + 8 + 16
        assert footprint_or(values, source, source, 0).tolist() == values.tolist()

    @pytest.mark.parametrize("seed", range(3))
    def test_another_zone_misses_no_pixel_and_adds_only_the_bounding_rectangle(self, seed: int) -> None:
        """Across zones footprints are turned by some degrees: rows and columns first to last are taken."""
        x, y = Transformer.from_crs(32632, 32633, always_xy=True).transform(750_015, 5_800_015)
        x, y = round(x / 30) * 30, round(y / 30) * 30
        source = geobox((750_015 - 150, 5_800_015 - 150, 750_015 + 150, 5_800_015 + 150), 32632, 30)
        target = geobox((x - 210, y - 120, x + 60, y + 150), 32633, 30)
        values = (1 << np.random.default_rng(seed).integers(0, 15, source.shape)).astype(np.uint16)
        under = footprint_or(values, source, target, outside=1 << 15)
        for row in range(target.shape[0]):
            for column in range(target.shape[1]):
                touched = slow_or(values, slow_footprint(source, target, row, column), 1 << 15)
                around = slow_or(values, slow_footprint(source, target, row, column, rectangle=True), 1 << 15)
                assert int(under[row, column]) & touched == touched
                assert int(under[row, column]) == around

    def test_leading_axes_are_kept_apart(self) -> None:
        source = geobox((X + 15, Y + 15, X + 135, Y + 135), 32633, 30)
        target = geobox((X, Y, X + 120, Y + 120), 32633, 30)
        missing = np.random.default_rng(1).random((3, 4, 4)) < 0.2
        together = footprint_or(missing, source, target, outside=True)
        assert together.dtype == np.bool_
        for layer, alone in zip(together, missing, strict=True):
            assert (layer == footprint_or(alone, source, target, outside=True)).all()


def keys_kernel(distance: float) -> float:
    """Cubic convolution with a = -0.5 (Keys 1981, equation 15)."""
    s = abs(distance)
    if s < 1:
        return 1.5 * s**3 - 2.5 * s**2 + 1
    return -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2 if s < 2 else 0.0


def slow_cubic(image: np.ndarray, source: GeoBox, x: float, y: float) -> float | None:
    """Cubic convolution of an image (y, x) at a place of its own CRS; None where a pixel of the 4 x 4 is missing."""
    size = source.affine.a
    column, row = (x - source.affine.c) / size - 0.5, (source.affine.f - y) / size - 0.5
    left, top = int(np.floor(column + 1e-9)) - 1, int(np.floor(row + 1e-9)) - 1
    if left < 0 or top < 0 or left + 4 > image.shape[1] or top + 4 > image.shape[0]:
        return None
    patch = image[top : top + 4, left : left + 4].astype(float)
    if (patch == FILL).any():
        return None
    across = np.array([keys_kernel(column - (left + i)) for i in range(4)])
    down = np.array([keys_kernel(row - (top + i)) for i in range(4)])
    return float(down @ patch @ across)


def centres(grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the pixels' centres, each (y, x)."""
    size = grid.affine.a
    x = grid.affine.c + (np.arange(grid.shape[1]) + 0.5) * size
    y = grid.affine.f - (np.arange(grid.shape[0]) + 0.5) * size
    return np.meshgrid(x, y)


def enmap_grid(shift_x: float = 15, shift_y: float = 15, pixels: int = 24) -> GeoBox:
    """A source of 30 m pixels around (X, Y) .. + 480 m, shifted against the lattice."""
    west, south = X - 120 + shift_x, Y - 120 + shift_y
    return geobox((west, south, west + 30 * pixels, south + 30 * pixels), 32633, 30)


CELL = geobox((X, Y, X + 480, Y + 480), 32633, 30)


class TestResampling:
    @pytest.mark.parametrize("shift", [(15, 15), (10, 20), (-7, 4), (0, 15), (0, 0)])
    @pytest.mark.parametrize("dtype", [np.int16, np.float32])
    def test_values_are_cubic_convolution(self, shift: tuple[int, int], dtype: type) -> None:
        source = enmap_grid(*shift)
        rng = np.random.default_rng(3)
        image = rng.integers(-200, 9000, (2, *source.shape)).astype(dtype)
        image[0, rng.random(source.shape) < 0.01] = FILL
        values = resample_cubic(image, source, CELL)
        assert values.dtype == np.int16
        x, y = centres(CELL)
        compared = 0
        for band in range(2):
            for row in range(CELL.shape[0]):
                for column in range(CELL.shape[1]):
                    expected = slow_cubic(image[band], source, x[row, column], y[row, column])
                    if expected is not None:
                        assert abs(values[band, row, column] - expected) < 1
                        compared += 1
        assert compared > 300

    @pytest.mark.parametrize("shift", [(15, 15), (10, -20), (-7, 4), (0, 0)])
    def test_a_linear_ramp_stays_where_it_is(self, shift: tuple[int, int]) -> None:
        """A shift of half a pixel would be an error of 5 or more."""
        source = enmap_grid(*shift)

        def ramp(grid: GeoBox) -> np.ndarray:
            x, y = centres(grid)
            return 2000 + 10 * (x - X) / 30 + 14 * (y - Y) / 30

        values = resample_cubic(ramp(source)[None].astype(np.float32), source, CELL)
        assert np.abs(values[0] - ramp(CELL)).max() <= 0.5 + 1e-3  # half of the last digit, and float32

    def test_a_linear_ramp_of_another_zone_stays_where_it_is(self) -> None:
        """Within a twentieth of a pixel, and on average in place."""
        x0, y0 = Transformer.from_crs(32632, 32633, always_xy=True).transform(750_015, 5_800_015)
        x0, y0 = round(x0 / 30) * 30, round(y0 / 30) * 30
        source = geobox((748_515, 5_798_515, 751_515, 5_801_515), 32632, 30)
        target = geobox((x0 - 960, y0 - 960, x0 + 960, y0 + 960), 32633, 30)
        x, y = centres(source)
        values = resample_cubic(((x - 748_530) / 3 + (y - 5_798_530) / 3).astype(np.float32)[None], source, target)
        x, y = Transformer.from_crs(32633, 32632, always_xy=True).transform(*centres(target))
        error = values[0] - ((x - 748_530) / 3 + (y - 5_798_530) / 3)
        assert np.abs(error).max() < 1
        assert abs(error.mean()) < 0.05

    def test_an_aligned_window_is_copied(self) -> None:
        source = enmap_grid(0, 0)
        image = np.random.default_rng(1).integers(-500, 12000, (3, *source.shape)).astype(np.int16)
        assert (resample_cubic(image, source, CELL) == image[:, 4:20, 4:20]).all()

    def test_a_bright_pixel_lands_in_its_place(self) -> None:
        """Rows run from north to south, columns from west to east."""
        source = enmap_grid(15, 15)
        for row, column in ((6, 6), (7, 15), (16, 8)):
            image = np.zeros((1, *source.shape), np.int16)
            image[0, row, column] = 10000
            values = resample_cubic(image, source, CELL)[0]
            (x,), (y,) = (axis[row, column : column + 1] for axis in centres(source))
            brightest = values == values.max()
            found_x, found_y = (axis[brightest] for axis in centres(CELL))
            # At a tie of four: each has (9/16)^2 of it.
            assert values.max() == round(10000 * 81 / 256)
            assert sorted(zip(found_x - x, found_y - y, strict=True)) == [(-15, -15), (-15, 15), (15, -15), (15, 15)]

    @pytest.mark.parametrize("shift", [(15, 15), (10, 20), (0, 0)])
    def test_fill_is_where_any_pixel_under_the_footprint_is_missing(self, shift: tuple[int, int]) -> None:
        source = enmap_grid(*shift)
        rng = np.random.default_rng(7)
        image = rng.integers(0, 9000, (3, *source.shape)).astype(np.int16)
        image[0, rng.random(source.shape) < 0.1] = FILL
        image[1, rng.random(source.shape) < 0.02] = FILL
        values = resample_cubic(image, source, CELL)
        for row in range(CELL.shape[0]):
            for column in range(CELL.shape[1]):
                places = slow_footprint(source, CELL, row, column)
                for band in range(3):
                    missing = any(image[band][place] == FILL for place in places)
                    assert (values[band, row, column] == FILL) == missing

    def test_each_band_counts_for_itself(self) -> None:
        """The fill of one band neither removes a pixel of another nor enters the kernel where others have values."""
        source = enmap_grid()
        rng = np.random.default_rng(11)
        image = rng.integers(0, 9000, (4, *source.shape)).astype(np.int16)
        for band, share in enumerate((0.0, 0.02, 0.1, 1.0)):
            image[band, rng.random(source.shape) < share] = FILL
        together = resample_cubic(image, source, CELL)
        for band in range(4):
            assert (together[band] == resample_cubic(image[band : band + 1], source, CELL)[0]).all()

    def test_missing_pixels_beside_the_footprint_leave_no_trace(self) -> None:
        """Next to a gap only the pixels under the footprint count: nothing leaks from the fill value."""
        source = enmap_grid()
        rng = np.random.default_rng(13)
        image = rng.integers(1000, 3000, (2, *source.shape)).astype(np.int16)
        image[1, rng.random(source.shape) < 0.05] = FILL
        values = resample_cubic(image, source, CELL)[1]
        x, y = centres(CELL)
        beside = 0
        for row, column in zip(*np.nonzero(values != FILL), strict=True):
            if slow_cubic(image[1], source, x[row, column], y[row, column]) is None:
                under = [int(image[1][place]) for place in slow_footprint(source, CELL, int(row), int(column))]
                assert min(under) <= values[row, column] <= max(under)
                beside += 1
        assert beside > 20

    @pytest.mark.parametrize("shift", [(15, 15), (255, 15), (-345, 435), (3000, 0)])
    def test_beyond_the_source_is_fill(self, shift: tuple[int, int]) -> None:
        source = enmap_grid(*shift)
        values = resample_cubic(np.full((1, *source.shape), 1234, np.int16), source, CELL)[0]
        for row in range(CELL.shape[0]):
            for column in range(CELL.shape[1]):
                places = slow_footprint(source, CELL, row, column)
                inside = all(0 <= r < source.shape[0] and 0 <= c < source.shape[1] for r, c in places)
                assert values[row, column] == (1234 if inside else FILL)

    def test_overshoot_never_becomes_fill(self) -> None:
        source = enmap_grid()
        image = np.full((1, *source.shape), 32767, np.int16)
        image[0, 8:16, 8:16] = -32767
        values = resample_cubic(image, source, CELL)
        assert values.min() == -32767
        assert values.max() == 32767

    def test_the_result_does_not_depend_on_the_window_read(self) -> None:
        source = enmap_grid()
        image = np.random.default_rng(5).integers(0, 9000, (2, *source.shape)).astype(np.int16)
        whole = resample_cubic(image, source, CELL)
        part = geobox((X + 90, Y + 120, X + 210, Y + 300), 32633, 30)
        window = (slice(7, 20), slice(4, 14))
        cut = resample_cubic(image[(slice(None), *window)], source[window], part)
        assert (cut == whole[:, 6:12, 3:7]).all()
