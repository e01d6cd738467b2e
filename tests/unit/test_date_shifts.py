"""Shifts of dates: fields are drawn at 2 m where a date has them and averaged to 10 m, so that shifts are exact.

Between dates crops change how bright they are, so that borders of fields invert, and clouds come and go.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.sentinel2.date_shifts import DateShifts, Measurement, decisions, measure_shifts
from h2crop_data.sentinel2.edge_matching import CommonEdges, System
from h2crop_data.sentinel2.edges import UNKNOWN_EDGE, common_edges, edges_of, smoothed

#: Pixels of 10 m along a side, pixels they are drawn in along each, and their metres.
SIDE, FINER, FINE = 160, 5, 2
#: Ground around, in pixels of 10 m.
RIM = 8
NOISE = 15.0
#: East and north in metres: most within 5 m, some far.
PLANTED = np.array(
    [(0, 0), (2, -4), (-12, 6), (4, 2), (-2, 0), (14, 4), (0, 2), (-2, -2), (6, -10), (2, 2), (0, -2), (-4, 4)]
)


@lru_cache(maxsize=4)
def ground(seed: int) -> NDArray[np.int64]:
    """The number of the field (y, x) of every pixel of 2 m, fields of some 150 m."""
    chance = np.random.default_rng(seed)
    length = (SIDE + 2 * RIM) * FINER
    middles = chance.uniform(0, length, (round((length * FINE / 150) ** 2), 2))
    places = np.stack(np.mgrid[:length, :length], axis=-1).reshape(-1, 2)
    return cKDTree(middles).query(places)[1].reshape(length, length)


def drawn(seed: int, date: int, east: float, north: float) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Blue and near infrared (y, x) of a date that shows the ground moved, by multiples of 2 m."""
    field = ground(seed)
    chance = np.random.default_rng([seed, date])
    start = RIM * FINER
    rows, columns = start + round(north / FINE), start - round(east / FINE)
    seen = field[rows : rows + SIDE * FINER, columns : columns + SIDE * FINER]
    bands = []
    for low, high in ((300, 900), (1500, 4500)):
        fine = chance.uniform(low, high, field.max() + 1)[seen]
        means = fine.reshape(SIDE, FINER, SIDE, FINER).mean(axis=(1, 3))
        bands.append(np.rint(means + chance.normal(0, NOISE, means.shape)).astype(np.int16))
    return bands[0], bands[1]


def cloud(seed: int, date: int, share: float) -> NDArray[np.bool_]:
    """Clouds (y, x) in pixels of 20 m that cover a share of a date."""
    noise = np.random.default_rng([seed, date, 1]).standard_normal((SIDE // 2, SIDE // 2))
    smooth = ndimage.gaussian_filter(noise, 8)
    return smooth > np.quantile(smooth, 1 - share)


@dataclass
class Dates:
    """Edges and clear ground of some dates."""

    edges: list[NDArray[np.uint8]]
    clear: list[NDArray[np.bool_]]

    def measured(self) -> DateShifts:
        return measure_shifts(self.edges, self.clear)

    def of(self, order: list[int]) -> DateShifts:
        return measure_shifts([self.edges[i] for i in order], [self.clear[i] for i in order])


def dates_of(planted: NDArray[np.float64], seed: int = 1, cloudy: float = 0.4) -> Dates:
    """Dates that show one ground shifted; every other one has clouds, which are masked with what is near them."""
    edges, clear = [], []
    for date, (east, north) in enumerate(planted.tolist()):
        blue, infrared = drawn(seed, date, east, north)
        over = cloud(seed, date, cloudy if date % 2 else 0)
        white = over.repeat(2, 0).repeat(2, 1)
        blue[white], infrared[white] = 5000, 5500
        edges.append(edges_of(blue, infrared))
        clear.append(~ndimage.binary_dilation(over, iterations=1))
    return Dates(edges, clear)


@pytest.fixture(scope="module")
def dates() -> Dates:
    return dates_of(PLANTED)


@pytest.fixture(scope="module")
def shifts(dates: Dates) -> DateShifts:
    return dates.measured()


def vectors(shifts: DateShifts) -> NDArray[np.float64]:
    return np.stack([shifts.east, shifts.north], axis=1)


def errors(shifts: DateShifts, planted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres (n,) between measured and planted shifts, about their common datum."""
    off = vectors(shifts) - planted
    return np.hypot(*(off - np.nanmedian(off, axis=0)).T)


def change(one: DateShifts, other: DateShifts, but: int) -> float:
    """The largest difference in metres, but for one date and for the datum, which each set of dates has its own of."""
    rest = np.arange(len(one.east)) != but
    off = (vectors(one) - vectors(other))[rest]
    return float(np.abs(off - np.median(off, axis=0)).max())


def assert_same(one: DateShifts, other: DateShifts) -> None:
    for field in fields(DateShifts):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


class TestShifts:
    def test_planted_shifts_are_found(self, shifts: DateShifts) -> None:
        assert shifts.reason == ("",) * len(PLANTED)
        assert errors(shifts, PLANTED).max() < 0.6
        assert np.median(errors(shifts, PLANTED)) < 0.3

    def test_east_and_north_are_where_content_lies(self, shifts: DateShifts) -> None:
        assert shifts.east[5] > 12
        assert shifts.east[2] < -10
        assert shifts.north[2] > 4
        assert shifts.north[8] < -8

    def test_from_no_other_datum_are_dates_less_far_in_sum(self, shifts: DateShifts) -> None:
        def far(east: float, north: float) -> float:
            return float(np.hypot(shifts.east - east, shifts.north - north).sum())

        for step in (0.03, 0.3, 3.0):
            assert far(0, 0) < min(far(step, 0), far(-step, 0), far(0, step), far(0, -step))

    def test_one_more_vector_for_all_changes_nothing(self, shifts: DateShifts) -> None:
        moved = dates_of(PLANTED + np.array([6, -8])).measured()
        assert np.abs(vectors(moved) - vectors(shifts)).max() < 0.5

    def test_a_date_gone_astray_does_not_move_the_others(self, shifts: DateShifts) -> None:
        planted = PLANTED.copy()
        planted[2] = (-30, 40)
        far = dates_of(planted).measured()
        assert change(far, shifts, but=2) < 0.5
        assert np.abs(vectors(far)[2] - planted[2]).max() < 1

    def test_uncertainty_is_what_errors_are(self, shifts: DateShifts) -> None:
        assert (errors(shifts, PLANTED) < 3 * shifts.uncertainty).all()
        assert (shifts.uncertainty < 0.8).all()
        assert (shifts.check < 4).all()
        assert (shifts.correlation > 0.5).all()

    def test_five_dates_suffice(self) -> None:
        found = dates_of(PLANTED[:5]).measured()
        assert errors(found, PLANTED[:5]).max() < 1.2

    def test_the_order_of_dates_does_not_matter(self, dates: Dates, shifts: DateShifts) -> None:
        order = np.random.default_rng(0).permutation(len(PLANTED)).tolist()
        np.testing.assert_allclose(vectors(dates.of(order)), vectors(shifts)[order], atol=1e-6)

    def test_the_same_whatever_ran_before_and_on_any_number_of_threads(self, dates: Dates, shifts: DateShifts) -> None:
        before = cv2.getNumThreads()
        dates_of(PLANTED[:6], seed=2).measured()
        cv2.setNumThreads(2)
        try:
            assert_same(dates.measured(), shifts)
        finally:
            cv2.setNumThreads(before)

    def test_ground_that_fills_a_corner_only(self, dates: Dates, shifts: DateShifts) -> None:
        """Of a tile that granules or the region cover in part."""
        wide = [np.pad(one, ((200, 0), (0, 300))) for one in dates.edges]
        clear = [np.pad(one, ((100, 0), (0, 150)), constant_values=True) for one in dates.clear]
        assert_same(measure_shifts(wide, clear), shifts)

    def test_clear_is_the_share_of_ground_away_from_clouds(self, shifts: DateShifts) -> None:
        whole, cloudy = shifts.clear[::2], shifts.clear[1::2]
        inner = (SIDE - 8) ** 2 / SIDE**2
        assert whole == pytest.approx(inner, abs=1e-6)
        assert ((cloudy > 0.2) & (cloudy < 0.6 * inner)).all()


class TestDoubt:
    def test_hardly_clear_dates_are_not_measured(self, dates: Dates, shifts: DateShifts) -> None:
        overcast = np.zeros_like(dates.clear[3])
        overcast[30:44, 30:44] = True
        clear = [*dates.clear[:3], overcast, *dates.clear[4:]]
        found = measure_shifts(dates.edges, clear)
        assert found.reason[3] == "not_measured: 1.6 % clear ground"
        assert np.isnan([found.east[3], found.north[3], found.uncertainty[3], found.check[3]]).all()
        assert change(found, shifts, but=3) < 0.5

    def test_four_dates_are_too_few(self, dates: Dates) -> None:
        found = dates.of([0, 1, 2, 3])
        assert found.reason == ("not_measured: 4 of at least 5 dates to compare",) * 4
        assert np.isnan(found.east).all()

    def test_no_dates(self) -> None:
        assert measure_shifts([], []).reason == ()

    def test_dates_without_any_edge(self) -> None:
        flat = edges_of(np.full((64, 64), 500, np.int16), np.full((64, 64), 3000, np.int16))
        found = measure_shifts([flat] * 6, [np.ones((32, 32), bool)] * 6)
        assert all(reason.startswith(("rejected", "not_measured")) for reason in found.reason)

    def test_other_ground_is_rejected(self, dates: Dates, shifts: DateShifts) -> None:
        edges = [*dates.edges[:4], edges_of(*drawn(7, 4, 0, 0)), *dates.edges[5:]]
        found = measure_shifts(edges, dates.clear)
        assert found.reason[4].startswith("rejected: correlation")
        assert [bool(reason) for reason in found.reason] == [i == 4 for i in range(len(PLANTED))]
        assert change(found, shifts, but=4) < 0.5

    def test_what_no_date_of_sentinel2_ever_does_is_rejected(self) -> None:
        """44 m are seen, and not believed; 20 m are."""
        planted = PLANTED.astype(float)
        planted[[1, 5]] = (44, 0), (20, 0)
        found = dates_of(planted, cloudy=0).measured()
        assert found.east[1] == pytest.approx(44, abs=3)
        assert found.reason[1] == f"rejected: {np.hypot(found.east[1], found.north[1]):.0f} m are too many"
        assert found.reason[5] == ""
        assert errors(found, planted)[[0, 2, 3, 5]].max() < 1.5

    def test_where_windows_disagree_more_a_date_is_less_certain(self, dates: Dates, shifts: DateShifts) -> None:
        """A date whose eastern third lies 3 m farther east than the rest."""
        blue, infrared = drawn(1, 0, 0, 0)
        other = drawn(1, 0, 3, 0)
        third = slice(2 * SIDE // 3, None)
        blue[:, third], infrared[:, third] = other[0][:, third], other[1][:, third]
        bent = Dates([edges_of(blue, infrared), *dates.edges[1:]], [np.ones_like(dates.clear[0]), *dates.clear[1:]])
        found = bent.measured()
        assert found.reason[0] == ""
        assert found.spread[0] > shifts.spread[0] + 0.7
        assert found.uncertainty[0] > 2 * shifts.uncertainty[0]
        assert shifts.east[0] + 0.3 < found.east[0] < shifts.east[0] + 2.7

    def test_a_torn_date_is_rejected(self, dates: Dates) -> None:
        west, east = (drawn(1, 4, by, 0) for by in (-8, 8))
        torn = [np.hstack([one[:, : SIDE // 2], other[:, SIDE // 2 :]]) for one, other in zip(west, east, strict=True)]
        found = measure_shifts([*dates.edges[:4], edges_of(*torn), *dates.edges[5:]], dates.clear)
        assert found.reason[4].startswith("rejected: the windows disagree by ")
        assert float(found.reason[4].split()[-2]) == pytest.approx(found.spread[4], abs=0.06)
        assert 3 < found.spread[4] < 8

    @pytest.mark.parametrize(
        ("changed", "doubt"),
        [
            ({}, ""),
            ({"correlation": 0.19}, "rejected: correlation 0.19"),
            ({"spread": 3.06}, "rejected: the windows disagree by 3.1 m"),
            ({"check": 5.12}, "rejected: cross-correlation disagrees by 5.1 m"),
        ],
    )
    def test_what_is_doubtful(self, changed: dict[str, float], doubt: str) -> None:
        good = {"spread": 2.9, "uncertainty": 1.0, "correlation": 0.21, "check": 4.9}
        assert Measurement(np.zeros(2), **{**good, **changed}).doubt == doubt

    def test_decisions(self) -> None:
        lengths = np.array([3.0, 4.1, 9.0, np.nan])
        reasons = ("", "", "rejected: correlation 0.10", "not_measured: 1.0 % clear ground")
        nothing = np.zeros(4)
        found = DateShifts(0.6 * lengths, -0.8 * lengths, nothing, nothing, nothing, nothing, nothing, reasons)
        assert decisions(found, 4) == ["not_needed", "applied", *reasons[2:]]
        assert decisions(found, 2)[0] == "applied"
        assert decisions(found, 5)[1] == "not_needed"


class TestEdges:
    def test_both_bands_give_edges_and_fill_gives_none(self) -> None:
        blue, infrared = np.full((2, 12, 12), 500, np.int16)
        blue[:, 6:] += 100
        infrared[6:] += 800
        edges = edges_of(blue, infrared)
        assert edges[2, 2] == edges[9, 9] == 1
        assert edges[2, 5] == edges[2, 6] == edges[5, 2] == edges[6, 2] > 100
        infrared[2, 2] = REFLECTANCE_FILL
        unknown = np.zeros((12, 12), bool)
        unknown[1:4, 1:4] = True
        assert ((edges_of(blue, infrared) == UNKNOWN_EDGE) == unknown).all()

    def test_a_date_turned_bright_for_dark_has_the_same_edges(self) -> None:
        blue, infrared = drawn(1, 0, 0, 0)
        np.testing.assert_array_equal(edges_of(2000 - blue, 9000 - infrared), edges_of(blue, infrared))

    def test_gradients_are_those_of_sobel(self) -> None:
        band = np.random.default_rng(0).integers(300, 4000, (30, 40)).astype(np.int16)
        flat = np.full_like(band, 500)
        along, down = (ndimage.sobel(band.astype(float), axis) / 8 for axis in (1, 0))
        expected = np.clip(30 * np.log2(1 + np.hypot(along, down) / 16), 1, 255)
        np.testing.assert_allclose(edges_of(flat, band)[1:-1, 1:-1], expected[1:-1, 1:-1], atol=0.51)

    @pytest.mark.parametrize("moved", [(0.0, 0.0), (0.3, -0.2), (1.4, 0.5), (-2.0, 3.0)])
    def test_smoothed_edges_are_moved_by_parts_of_a_pixel(self, moved: tuple[float, float]) -> None:
        """A wave of 12 pixels: the Gaussian dampens it by what theory says, wherever it is."""

        def wave(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.sin(2 * np.pi * (x + 0.5 * y) / 12)

        y, x = np.mgrid[:60, :60].astype(float)
        edges = np.rint(128 + 100 * wave(x, y)).astype(np.uint8)
        damped = 100 * np.exp(-0.5 * (0.8 * 2 * np.pi / 12) ** 2 * 1.25)
        inner = (slice(8, -8), slice(8, -8))
        expected = 128 + damped * wave(x + moved[0], y + moved[1])
        np.testing.assert_allclose(smoothed(edges, moved)[inner], expected[inner], atol=1.0)
        slope = damped * 2 * np.pi / 12 * np.cos(2 * np.pi * (x + moved[0] + 0.5 * (y + moved[1])) / 12)
        for sloping, factor in (((True, False), 1.0), ((False, True), 0.5)):
            np.testing.assert_allclose(smoothed(edges, moved, sloping)[inner], factor * slope[inner], atol=1.0)

    def test_common_edges_are_the_median_of_what_is_clear(self) -> None:
        chance = np.random.default_rng(0)
        edges = chance.integers(1, 256, (8, 150, 40), np.uint8)
        clear = (chance.random((8, 75, 20)) < 0.4).astype(np.uint8)
        moved = chance.integers(-3, 4, (8, 2))
        moved[0] = 0
        median, count = common_edges(list(edges), list(clear), moved.astype(float))
        for y, x in [(0, 0), (63, 20), (64, 20), (149, 39), *chance.integers(0, (150, 40), (300, 2)).tolist()]:
            known = []
            for one, seen, (right, down) in zip(edges, clear, moved.tolist(), strict=True):
                row, column = y + down, x + right
                if 0 <= row < 150 and 0 <= column < 40 and seen[row // 2, column // 2]:
                    known.append(int(one[row, column]))
            assert count[y, x] == len(known)
            assert median[y, x] == (sorted(known)[len(known) // 2] if known else 0)


class TestMatching:
    def test_the_correlation_is_largest_where_opencv_finds_it(self, dates: Dates) -> None:
        """One window: `findTransformECCWithMask` on the same smoothed edges, by bilinear interpolation."""
        part = (slice(20, 20 + 45), slice(30, 30 + 45))
        common, edges = (np.ascontiguousarray(dates.edges[i][part]) for i in (0, 2))
        mask = np.zeros((45, 45), np.uint8)
        mask[6:-6, 6:-6] = 1
        match = CommonEdges(common, mask).matched(edges, mask, np.array([-1.0, -1.0]))
        assert match is not None
        layers = [smoothed(layer) for layer in (common, edges)]
        start = np.array([[1, 0, -1], [0, 1, -1]], np.float32)
        criteria = (cv2.TERM_CRITERIA_COUNT, 50, 0.0)
        correlation, found = cv2.findTransformECCWithMask(
            *layers, mask, np.ones_like(mask), start, cv2.MOTION_TRANSLATION, criteria, 1
        )
        assert match.moved == pytest.approx(found[:, 2], abs=0.06)
        assert match.correlation == pytest.approx(correlation, abs=0.02)
        assert match.moved == pytest.approx(PLANTED[2] / (10, -10), abs=0.25)

    def test_steps_are_those_of_least_squares(self) -> None:
        chance = np.random.default_rng(0)
        layers = np.concatenate([np.ones((1, 500)), chance.normal([[100], [1], [2]], 1, (3, 500))])
        layers[2] += 0.4 * layers[1]
        clear = (chance.random(500) < 0.6).astype(np.uint8)
        here = 40 + 0.7 * (layers[1] + 0.3 * layers[2] - 0.2 * layers[3]) + chance.normal(0, 0.2, 500)
        one = System(layers.astype(np.float32), clear).equations(here.astype(np.float32))
        seen = clear > 0
        fitted = np.linalg.lstsq(layers[:, seen].T, here[seen], rcond=None)[0]
        gain = np.polyfit(layers[1, seen], here[seen], 1)[0]
        assert np.linalg.solve(one.matrix, one.vector) == pytest.approx(fitted[2:] / gain, abs=2e-3)
        assert one.correlation == pytest.approx(np.corrcoef(layers[1, seen], here[seen])[0, 1], abs=1e-3)
        assert one.pixels == clear.sum()

    def test_masks_do_not_draw_the_correlation_to_no_shift(self, dates: Dates) -> None:
        """What is clear in small pieces lies in the same places in both."""
        common = CommonEdges(dates.edges[0], np.ones((SIDE, SIDE), np.uint8))
        noise = np.random.default_rng(3).standard_normal((SIDE, SIDE))
        smooth = ndimage.gaussian_filter(noise, 3)
        clear = (smooth > np.quantile(smooth, 0.7)).astype(np.uint8)
        found = common.correlated(dates.edges[5], clear)
        assert found == pytest.approx(PLANTED[5] / (10, -10), abs=0.25)

    def test_too_little_in_common(self, dates: Dates) -> None:
        nothing = np.zeros((SIDE, SIDE), np.uint8)
        common = CommonEdges(dates.edges[0], nothing)
        assert common.correlated(dates.edges[1], nothing + 1) is None
        assert common.matched(dates.edges[1], nothing + 1, np.zeros(2)) is None
