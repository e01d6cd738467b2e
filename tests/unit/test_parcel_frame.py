"""Where images lie against parcels: fields painted here, without the package's drawing, at a known place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter

from h2crop_data.parcels.drawing import DRAWN_CELL, DRAWN_MARGIN, DrawnGround
from h2crop_data.parcels.edges import EdgeSums, edge_peak, edge_sums, high_passed, mean_gradient, parcel_lines
from h2crop_data.parcels.frame import (
    CellImages,
    FrameRules,
    FrameShift,
    TileFrame,
    checked,
    frame_of_tile,
    matched_grounds,
    matched_shift,
    scatter_of,
    warning_of,
)
from h2crop_data.parcels.painted import ShiftEquations, canvas_of, painted_shift

#: Upper left corner and side of the ground in metres, and what is painted around it.
WEST, NORTH, SIDE, AROUND = 500_000, 5_400_000, 1_920, 60
BOUNDS = (WEST, NORTH - SIDE, WEST + SIDE, NORTH)
FILL = -32768
NAN = float("nan")
RULES = FrameRules(painted=3)


@dataclass(frozen=True)
class Fields:
    """Rows of fields: lines between rows in metres from the north, and in each row lines from the west."""

    rows: NDArray[np.float64]
    lines: list[NDArray[np.float64]]

    def geometry(self, east: float = 0, north: float = 0) -> NDArray[np.object_]:
        """The fields as polygons, moved."""
        return np.array(
            [
                shapely.box(WEST + left + east, NORTH - low + north, WEST + right + east, NORTH - high + north)
                for i, (high, low) in enumerate(zip(self.rows[:-1], self.rows[1:], strict=True))
                for left, right in zip(self.lines[i][:-1], self.lines[i][1:], strict=True)
            ],
            object,
        )

    def image(self, values: NDArray[np.float64], east: float = 0, north: float = 0) -> NDArray[np.float64]:
        """What a sensor shows, (192, 192): a value for each field, cells of 2 m, a point spread of 5 m; moved."""
        places = np.arange(-AROUND, SIDE + AROUND, 2) + 1.0
        field_row = np.searchsorted(self.rows, places + north) - 1
        before = np.cumsum([0, *(len(lines) - 1 for lines in self.lines)])
        fine = np.stack(
            [values[before[row] + np.searchsorted(self.lines[row], places - east) - 1] for row in field_row]
        )
        shown = gaussian_filter(fine, 2.5)[AROUND // 2 : -AROUND // 2, AROUND // 2 : -AROUND // 2]
        return shown.reshape(SIDE // 10, 5, SIDE // 10, 5).mean(axis=(1, 3))


def some_fields(seed: int) -> Fields:
    """Some 360 fields of 70 to 130 m."""
    chance = np.random.default_rng(seed)

    def cuts() -> NDArray[np.float64]:
        return -200 + np.cumsum(chance.uniform(70, 130, 30))

    rows = cuts()
    return Fields(rows, [cuts() for _ in rows[:-1]])


FIELDS = some_fields(1)


@lru_cache
def images(
    east: float = 0, north: float = 0, contrast: float = 1.0, dates: int = 4, seed: int = 2
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Red and infrared x 10000 (date, y, x) of fields that differ by a contrast, with noise of 0.004."""
    chance = np.random.default_rng(seed)
    red: list[NDArray[np.float64]] = []
    infrared: list[NDArray[np.float64]] = []
    for _ in range(dates):
        green = 0.5 + contrast * chance.uniform(-0.5, 0.5, len(FIELDS.geometry()))
        for band, bare, grown in ((red, 0.16, 0.04), (infrared, 0.22, 0.45)):
            shown = FIELDS.image(bare + (grown - bare) * green, east, north)
            band.append(np.rint(1e4 * (shown + chance.normal(0, 0.004, shown.shape))))
    return np.array(red, np.int16), np.array(infrared, np.int16)


def frame(
    bands: tuple[NDArray[np.int16], NDArray[np.int16]],
    geometry: NDArray[np.object_],
    rules: FrameRules = RULES,
) -> TileFrame:
    """The frame of images of the ground in one cell."""
    return frame_of_tile(BOUNDS, [CellImages(WEST, NORTH, *bands)], geometry, rules)


def cells_of(bands: tuple[NDArray[np.int16], NDArray[np.int16]], size: int, missing: int = -1) -> list[CellImages]:
    """Images cut into cells of a size in pixels, without one of them."""
    corners = [(y, x) for y in range(0, SIDE // 10, size) for x in range(0, SIDE // 10, size)]
    return [
        CellImages(WEST + 10 * x, NORTH - 10 * y, *(band[:, y : y + size, x : x + size] for band in bands))
        for i, (y, x) in enumerate(corners)
        if i != missing
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("east", "north"), [(0.0, 0.0), (7.3, 0.0), (0.0, 7.3), (-5.0, 6.0), (-13.0, -21.0)])
def test_images_lie_at_parcels_and_the_shift(east: float, north: float) -> None:
    whole = frame(images(east, north), FIELDS.geometry()).whole
    assert whole.measured, whole.reason
    assert math.hypot(whole.east - east, whole.north - north) < 0.7
    assert math.hypot(whole.check_east - east, whole.check_north - north) < 0.7
    assert not whole.doubtful
    assert whole.correlation > 0.6
    assert 0 < whole.sd < 1


@pytest.mark.slow
def test_errors_are_as_large_as_the_uncertainty_says() -> None:
    """Each parcel is digitised 3.5 m off in each direction; six times."""
    bands, errors = images(), []
    for seed in range(6):
        parcels = FIELDS.geometry()
        off = np.random.default_rng(seed).normal(0, 3.5, (len(parcels), 2))
        corners, whose = shapely.get_coordinates(parcels, return_index=True)
        whole = frame(bands, shapely.set_coordinates(parcels, corners + off[whose])).whole
        errors.append(math.hypot(whole.east, whole.north) / whole.sd)
    assert 0.3 < math.sqrt(np.mean(np.square(errors))) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize(("east", "north"), [(4.0, -2.0), (-9.0, 11.0)])
def test_moving_the_parcels_moves_the_shift_the_other_way(east: float, north: float) -> None:
    bands = images(3, 1)
    still, moved = (frame(bands, FIELDS.geometry(*by)).whole for by in ((0, 0), (east, north)))
    assert moved.east == pytest.approx(still.east - east, abs=0.4)
    assert moved.north == pytest.approx(still.north - north, abs=0.4)


def test_mirrored_parcels_are_not_measured() -> None:
    mirrored = shapely.transform(FIELDS.geometry(), lambda xy: np.stack([2 * WEST + SIDE - xy[:, 0], xy[:, 1]], 1))
    mirrored = shapely.transform(mirrored, lambda xy: np.stack([xy[:, 0], 2 * NORTH - SIDE - xy[:, 1]], 1))
    found = frame(images(), mirrored)
    assert found.whole.reason == "not_measured: correlation below 0.35"
    assert np.isnan([found.whole.east, found.whole.north, found.whole.check_east]).all()
    assert found.whole.correlation < 0.2
    assert found.windows[0].shift == found.whole or found.windows[0].shift.reason == found.whole.reason


def test_few_parcels_are_not_measured() -> None:
    few = FIELDS.geometry()[::3]
    found = frame(images(), few).whole
    assert found.reason == "not_measured: fewer than 300 parcels"
    inside = shapely.intersects(few, shapely.box(*BOUNDS))
    assert 0.85 * inside.sum() <= found.parcels <= inside.sum() < 300
    assert math.isnan(found.east)
    # They would have been enough, were fewer asked for.
    assert frame(images(4, 0), few, FrameRules(parcels=50)).whole.east == pytest.approx(4, abs=1)


@pytest.mark.slow
def test_one_cell_of_a_tile_is_seen() -> None:
    """A store may have a sixty-fourth of a tile: what counts is the ground there is."""
    tile = (WEST - 3_840, NORTH - 11_520, WEST + 11_520, NORTH + 3_840)
    found = frame_of_tile(tile, [CellImages(WEST, NORTH, *images(3, -4))], FIELDS.geometry(), RULES).whole
    alone = frame(images(3, -4), FIELDS.geometry()).whole
    assert (found.east, found.north) == pytest.approx((alone.east, alone.north), abs=0.2)
    assert found.parcels == alone.parcels


def test_no_parcels_are_not_measured() -> None:
    found = frame(images(), np.array([], object))
    assert found.whole.reason == "not_measured: fewer than 300 parcels"
    assert found.whole.parcels == 0


def test_images_without_edges_are_not_measured() -> None:
    flat = np.full((3, 192, 192), 1500, np.int16)
    assert frame((flat, flat), FIELDS.geometry()).whole.reason == "not_measured: no ground is seen"
    empty = np.full_like(flat, FILL)
    assert frame((empty, empty), FIELDS.geometry()).whole.reason == "not_measured: no ground is seen"
    chance = np.random.default_rng(0)
    noise = chance.integers(1000, 2000, (2, 3, 192, 192)).astype(np.int16)
    assert frame((noise[0], noise[1]), FIELDS.geometry()).whole.reason == "not_measured: correlation below 0.35"


@pytest.mark.parametrize("contrast", [0.1, 0.03, 0.01])
def test_faint_fields_are_measured_right_or_not_at_all(contrast: float) -> None:
    """As in winter: down to contrasts of a quarter of the noise."""
    found = frame(images(6, -3, contrast, dates=2), FIELDS.geometry()).whole
    assert not found.measured or math.hypot(found.east - 6, found.north + 3) < 2
    assert found.measured == (contrast > 0.05)


@pytest.mark.slow
def test_what_lies_beyond_the_search_is_not_measured() -> None:
    for east, north in ((30, 0), (0, -38)):
        assert not frame(images(east, north), FIELDS.geometry()).whole.measured


@pytest.mark.slow
def test_borders_of_cells_are_no_edges() -> None:
    bands = images(5, 2)
    together = frame(bands, FIELDS.geometry())
    assert frame_of_tile(BOUNDS, cells_of(bands, 48), FIELDS.geometry(), RULES) == together
    without = frame_of_tile(BOUNDS, cells_of(bands, 96, missing=1), FIELDS.geometry(), FrameRules(parcels=200)).whole
    assert math.hypot(without.east - 5, without.north - 2) < 0.8
    assert 0.65 * together.whole.parcels < without.parcels < 0.9 * together.whole.parcels


def test_clouds_cut_out_of_dates_leave_the_shift_alone() -> None:
    """Squares of fill beside bright rests would be the strongest edges of all."""
    red, infrared = (band.copy() for band in images(5, 2))
    chance = np.random.default_rng(3)
    for date in range(len(red)):
        for y, x in chance.integers(0, 150, (8, 2)):
            red[date, y : y + 40, x : x + 30] = FILL
            infrared[date, y : y + 40, x : x + 30] = FILL
    found = frame((red, infrared), FIELDS.geometry()).whole
    assert math.hypot(found.east - 5, found.north - 2) < 0.8
    assert found.correlation > 0.6
    assert not found.doubtful


@pytest.mark.slow
def test_windows_of_a_tile_are_measured_each() -> None:
    """Two windows, the images of one of them moved."""
    bounds = (WEST, NORTH - SIDE, WEST + 3840 + SIDE, NORTH)
    cells = [CellImages(WEST, NORTH, *images(6, 0)), CellImages(WEST + 3840, NORTH, *images(0, 4))]
    both = np.concatenate([FIELDS.geometry(), FIELDS.geometry(3840, 0)])
    found = frame_of_tile(bounds, cells, both)
    assert [window.bounds[::2] for window in found.windows] == [(WEST, WEST + 3840), (WEST + 3840, bounds[2])]
    first, second = (window.shift for window in found.windows)
    assert math.hypot(first.east - 6, first.north) < 0.7
    assert math.hypot(second.east, second.north - 4) < 0.7
    assert found.whole.parcels > first.parcels + second.parcels - 5


def test_a_cell_beyond_the_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="not within"):
        frame_of_tile(BOUNDS, [CellImages(WEST + 10, NORTH, *images())], FIELDS.geometry())


def test_drawn_parcels_are_those_around_the_centres_of_pixels() -> None:
    ground, geometry = DrawnGround(WEST, NORTH, 24, 31), FIELDS.geometry()
    ids, whose = ground.draw(geometry)
    for east, north in ((0, 0), (3, -7), (-15, 15)):
        at = ground.at_pixels(ids, east, north)
        assert at.shape == (24, 31)
        for row, column in ((0, 0), (23, 30), (5, 17), (11, 2)):
            x, y = WEST + 10 * column + 5 - DRAWN_CELL * east, NORTH - 10 * row - 5 - DRAWN_CELL * north
            (parcel,) = np.flatnonzero(shapely.intersects_xy(geometry, x, y))
            assert whose[at[row, column] - 1] == parcel


def test_lines_lie_on_borders() -> None:
    ids = np.ones((200, 200), np.int32)
    ids[:, 80:] = 2
    row = parcel_lines(ids)[100]
    assert float((row * (np.arange(200) + 0.5)).sum() / row.sum()) == pytest.approx(80, abs=1e-3)
    assert row.sum() == pytest.approx(1, abs=1e-3)


def test_sums_give_the_correlation_of_what_is_seen() -> None:
    """Against numpy's, shift by shift, of all pixels near lines."""
    red, infrared = images(4, -6)
    gradient, seen = mean_gradient(red, infrared)
    seen[20:60, 90:130] = False
    gradient = high_passed(gradient, seen)
    ground = DrawnGround(WEST, NORTH, 192, 192)
    ids, _ = ground.draw(FIELDS.geometry())
    sums = edge_sums(ground, gradient, seen, ids, 48)
    table = sums.correlation(np.ones(16))
    lines = parcel_lines(ids).astype(np.float64)
    near = maximum_filter(lines > 0.2 * lines.max(), 31)[ground_centres(0, 0)] & seen
    lines -= uniform_filter(lines, 75, mode="mirror")
    for north, east in ((0, 0), (-3, 2), (10, -8)):
        moved = lines[ground_centres(north, east)]
        correlation = np.corrcoef(moved[near], gradient[near])[0, 1]
        assert table[15 + north, 15 + east] == pytest.approx(correlation, abs=1e-4)
    assert sums.fixed[0].sum() == near.sum()


def ground_centres(north: int, east: int) -> tuple[slice, slice]:
    """The cells of 2 m at the centres of 192 pixels, of a drawing that is moved by cells."""
    first, right = DRAWN_MARGIN + 2 + north, DRAWN_MARGIN + 2 - east
    return slice(first, first + 960, 5), slice(right, right + 960, 5)


def test_a_peak_is_found_between_shifts() -> None:
    north, east = np.mgrid[-15:16, -15:16] * DRAWN_CELL
    table = 0.8 - ((east - 4.7) ** 2 + (north + 9.1) ** 2 + 0.5 * (east - 4.7) * (north + 9.1)) / 900
    peak = edge_peak(table)
    assert (peak.east, peak.north) == pytest.approx((4.7, -9.1))
    assert not peak.at_edge
    slope = edge_peak(east / 30.0)
    assert slope.at_edge
    assert slope.east == 30


def test_joined_sums_are_those_of_all_blocks() -> None:
    chance = np.random.default_rng(0)
    first, second = (EdgeSums(chance.random((3, 31, 31, n)), 1 + chance.random((3, n))) for n in (4, 3))
    joined = EdgeSums.joined([first, second])
    assert np.allclose(joined.correlation(np.array([1, 1, 1, 1, 0, 0, 0.0])), first.correlation(np.ones(4)))
    assert np.allclose(joined.correlation(np.array([0, 0, 0, 0, 2, 2, 2.0])), second.correlation(np.full(3, 2.0)))


@pytest.mark.parametrize("scale", [1e-8, 1, 1e8])
def test_equations_are_solved_at_any_scale_and_not_where_one_direction_is_missing(scale: float) -> None:
    matrix, shift = np.array([[4.0, 1.0], [1.0, 2.0]]), np.array([3.0, -7.0])
    assert ShiftEquations(scale * matrix, scale * matrix @ shift).solution() == pytest.approx((3, -7))
    along_one = np.array([[1.0, 2.0], [2.0, 4.0 + 1e-6]])
    assert np.isnan(ShiftEquations(scale * along_one, scale * along_one @ shift).solution()).all()
    assert np.isnan(ShiftEquations(0 * matrix, 0 * shift).solution()).all()


@pytest.mark.slow
def test_painted_parcels_find_the_shift_from_anywhere_near() -> None:
    red, infrared = images(4, -6)
    index = (infrared.astype(np.float32) - red) / (infrared.astype(np.float32) + red)
    ground = DrawnGround(WEST, NORTH, 192, 192)
    canvas = canvas_of(ground, ground.draw(FIELDS.geometry())[0])
    for start in ((0.0, 0.0), (4.0, -6.0), (9.0, -12.0)):
        east, north = painted_shift(canvas, index, start, passes=3).solution()
        assert math.hypot(east - 4, north + 6) < 0.5
    nothing = painted_shift(canvas, np.full_like(index, np.nan), (0.0, 0.0))
    assert np.isnan(nothing.solution()).all()


SURE = FrameShift(6.0, -8.0, 1.0, 0.7, 400, NAN, NAN, doubtful=False, reason="")


@pytest.mark.parametrize(("check", "doubtful"), [((6.5, -7.0), False), ((6.0, -10.1), True), ((3.9, -8.0), True)])
def test_a_frame_is_doubtful_where_painted_parcels_lie_elsewhere(check: tuple[float, float], doubtful: bool) -> None:
    equations = ShiftEquations(np.diag([3.0, 5.0]), np.array([3.0, 5.0]) * check)
    found = checked(SURE, equations, RULES)
    assert (found.check_east, found.check_north) == pytest.approx(check)
    assert found.doubtful is doubtful
    unknown = replace(SURE, east=NAN, north=NAN, reason="not_measured: fewer than 300 parcels")
    assert math.isnan(checked(unknown, equations, RULES).check_east)


def test_half_a_pixel_beyond_doubt_is_warned_of() -> None:
    text = warning_of(SURE)
    assert text is not None
    assert "10.0 m against the parcels (6.0 m east, 8.0 m south; standard deviation 1.0 m)" in text
    assert warning_of(replace(SURE, sd=2.49)) is not None
    assert warning_of(replace(SURE, sd=2.5)) is None
    assert warning_of(replace(SURE, east=-3.0, north=3.0, sd=0.1)) is None
    assert warning_of(replace(SURE, reason="not_measured: correlation below 0.35")) is None


def test_ground_is_as_uncertain_as_its_windows_scatter() -> None:
    red, infrared = images()
    gradient, seen = mean_gradient(red, infrared)
    grounds = list(matched_grounds(BOUNDS, high_passed(gradient, seen), seen, FIELDS.geometry(), 48))
    assert matched_shift(grounds, RULES, scatter=1.9).sd == 1.9
    assert matched_shift(grounds, RULES, scatter=2.1).reason == "not_measured: uncertain by more than 2.0 m"
    # On four blocks the lot says nothing.
    coarse = list(matched_grounds(BOUNDS, high_passed(gradient, seen), seen, FIELDS.geometry(), 96))
    assert matched_shift(coarse, RULES).reason == "not_measured: uncertain by more than 2.0 m"


def test_the_scatter_of_windows_counts_from_four_on() -> None:
    windows = [replace(SURE, east=east) for east in (0.0, 2.0, 4.0, 6.0)]
    assert scatter_of(windows) == pytest.approx(np.std([0, 2, 4, 6], ddof=1) / 2)
    assert scatter_of(windows[:3]) == 0
    assert scatter_of([*windows[:3], replace(SURE, east=NAN, reason="not_measured: correlation below 0.35")]) == 0
