"""The match on real Sentinel-2 dates, one seen as EnMAP would see it: means of 2 x 2 pixels of the reference.

No place in the sample data has both sensors. Slovenia: 1 km, five dates of 2015, of which three are clear. Flanders:
640 m, 36 clear dates. Pixels of 10 m stand for the reference's of 15 m, those of 20 m for EnMAP's of 30 m, but for one
test: a real patch of 640 m has 20 pixels of EnMAP along a side, which is too few. How far real dates lie off nobody
knows; what is held is that measurements that share little agree. Figures in EnMAP pixels, 20 m on the ground here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from flanders_dates import CLEAR_DATES, FINE, at_10_metres, read, read_dates
from numpy.typing import NDArray

from h2crop_data.constants import COARSE, REFLECTANCE_FILL
from h2crop_data.enmap.coregistration import (
    COMPARED,
    BoundaryPair,
    DetectorShift,
    ReferenceView,
    SceneView,
    shift_of_detector,
)
from h2crop_data.enmap.detectors import Detector
from h2crop_data.sentinel2.date_shifts import measure_shifts
from h2crop_data.sentinel2.edges import edges_of
from h2crop_data.sentinel2.reference import at_15_metres

DETECTORS: tuple[Detector, ...] = ("vnir", "swir")


def as_scene(fine: NDArray[np.int16], clear: NDArray[np.bool_] | None = None) -> SceneView:
    """Bands (6, 2y, 2x) as means of 2 x 2 pixels."""
    rows, columns = (length // 2 for length in fine.shape[1:])
    means = np.rint(fine.reshape(6, rows, 2, columns, 2).mean(axis=(2, 4))).astype(np.int16)
    seen = np.ones((2 * rows, 2 * columns), bool) if clear is None else clear
    whole = seen.reshape(rows, 2, columns, 2).all(axis=(1, 3))
    return SceneView(means, whole, np.zeros_like(whole))


def as_reference(fine: NDArray[np.int16], clear: NDArray[np.bool_] | None = None) -> ReferenceView:
    """Bands (6, 2y, 2x) as a median of three dates."""
    seen = np.ones(fine.shape[1:], bool) if clear is None else clear
    return ReferenceView(np.where(seen, fine, np.int16(REFLECTANCE_FILL)), (3 * seen).astype(np.uint8), 0.0)


def vector(found: DetectorShift) -> NDArray[np.float64]:
    """Pixels east and north."""
    return np.array([found.shift.east, found.shift.north]) / COARSE


@dataclass(frozen=True)
class Slovenia:
    """Five dates: reflectance x 10000 (5, 6, 100, 100) in COMPARED_BANDS, and where s2cloudless sees no cloud."""

    bands: NDArray[np.int16]
    clear: NDArray[np.bool_]

    def matched(self, one: int, other: int, detector: Detector) -> DetectorShift:
        """How far a date lies from another."""
        scene, reference = (
            as_scene(self.bands[one], self.clear[one]),
            as_reference(self.bands[other], self.clear[other]),
        )
        return shift_of_detector(scene, reference, detector)


#: The dates without cloud: 11 July, 30 August, 9 September 2015.
CLEAR = (0, 3, 4)


@pytest.fixture(scope="module")
def slovenia(shared: Path) -> Slovenia:
    series = np.load(shared / "slovenia_l1c_2015/eolearn_l1c_5dates_13bands_golden.npz", allow_pickle=True)
    six = series["bands"][:, :100, :, [2, 3, 4, 7, 11, 12]].transpose(0, 3, 1, 2)
    return Slovenia(np.rint(10_000 * six).astype(np.int16), ~series["CLM_S2C"][:, :100, :, 0])


@pytest.fixture(scope="module")
def pairs(slovenia: Slovenia) -> dict[tuple[int, int, Detector], DetectorShift]:
    return {
        (*pair, detector): slovenia.matched(*pair, detector)
        for pair in permutations(CLEAR, 2)
        for detector in DETECTORS
    }


def test_all_clear_dates_are_accepted_and_lie_off_each_other(
    pairs: dict[tuple[int, int, Detector], DetectorShift],
) -> None:
    """Products of 2015 are not refined: these lie up to 0.56 pixels apart, 11 m."""
    assert [found.reason for found in pairs.values()] == [""] * 12
    assert 0.4 < max(np.hypot(*vector(found)) for found in pairs.values()) < 0.7


@pytest.mark.parametrize(("detector", "bound"), [("vnir", 0.04), ("swir", 0.03)])
def test_forward_and_backward_agree(
    pairs: dict[tuple[int, int, Detector], DetectorShift], detector: Detector, bound: float
) -> None:
    """Measured: at most 0.031 pixels, 0.020 with SWIR."""
    for one, other in ((0, 3), (0, 4), (3, 4)):
        both = pairs[one, other, detector], pairs[other, one, detector]
        assert np.hypot(*(vector(both[0]) + vector(both[1]))) < bound


@pytest.mark.parametrize("detector", DETECTORS)
def test_two_ways_round_three_dates_agree(
    pairs: dict[tuple[int, int, Detector], DetectorShift], detector: Detector
) -> None:
    """From July to August and on to September, or at once. Measured: at most 0.031 pixels, 0.043 with SWIR."""
    for one, two, three in permutations(CLEAR):
        around = vector(pairs[one, two, detector]) + vector(pairs[two, three, detector])
        assert np.hypot(*(around - vector(pairs[one, three, detector]))) < 0.06


def test_two_sets_of_bands_agree(pairs: dict[tuple[int, int, Detector], DetectorShift]) -> None:
    """Sentinel-2's bands lie on each other. Measured: 0.025 pixels in the median, 0.054 at most."""
    apart = [
        np.hypot(*(vector(pairs[one, other, "vnir"]) - vector(pairs[one, other, "swir"])))
        for one, other in permutations(CLEAR, 2)
    ]
    assert np.median(apart) < 0.04
    assert max(apart) < 0.075


@pytest.mark.parametrize(("detector", "median", "most"), [("vnir", 0.08, 0.16), ("swir", 0.14, 0.22)])
def test_neighbouring_halves_of_the_ground_agree(
    slovenia: Slovenia, detector: Detector, median: float, most: float
) -> None:
    """West and east, north and south, without a pixel in common: 50 x 25 pixels each, two windows.

    Measured: 0.06 pixels in the median and 0.13 at most; SWIR 0.10 and 0.17. Most of them are too small to be accepted.
    """
    first, last = slice(0, 50), slice(50, 100)
    off = []
    for sides in (((..., first), (..., last)), ((..., first, slice(None)), (..., last, slice(None)))):
        parts = [Slovenia(np.ascontiguousarray(slovenia.bands[side]), slovenia.clear[side]) for side in sides]
        for pair in permutations(CLEAR, 2):
            one, other = (vector(part.matched(*pair, detector)) for part in parts)
            off.append(np.hypot(*(one - other)))
    assert np.median(off) < median
    assert max(off) < most


def test_overcast_dates_are_refused_even_where_no_mask_says_so(slovenia: Slovenia) -> None:
    assert slovenia.clear[[1, 2]].mean() < 0.01
    for overcast in (1, 2):
        masked = slovenia.matched(overcast, 3, "vnir")
        assert masked.reason.endswith("of the ground is clear in both")
        for detector in DETECTORS:
            scene, reference = as_scene(slovenia.bands[overcast]), as_reference(slovenia.bands[3])
            assert shift_of_detector(scene, reference, detector).reason != ""


@dataclass(frozen=True)
class Flanders:
    """Clear dates: COMPARED_BANDS in pixels of 10 m (n, 6, 64, 64), and what date_shifts says of them, metres."""

    bands: NDArray[np.int16]
    shifts: NDArray[np.float64]


@pytest.fixture(scope="module")
def flanders(shared: Path) -> Flanders:
    folder = shared / "flanders_2018"
    dates = read_dates(folder)
    clear = np.array([day.isoformat() in CLEAR_DATES for day in dates.days])
    items = json.loads((folder / "items.json").read_text(encoding="utf-8"))["features"]
    items.sort(key=lambda item: item["properties"]["datetime"])
    chosen = [item for item, taken in zip(items, clear, strict=True) if taken]
    red_edge = np.stack([at_10_metres(read(folder, item, "rededge1")) for item in chosen])
    named = {name: values[clear] for name, values in dates.bands.items()} | {"B05": red_edge}
    bands = np.stack([named[name] for name in ("B03", "B04", "B05", "B08", "B11", "B12")], axis=1).astype(np.int16)
    edges = [edges_of(*pair) for pair in zip(named["B02"].astype(np.int16), named["B08"].astype(np.int16), strict=True)]
    shifts = measure_shifts(edges, [np.ones((FINE // 2, FINE // 2), bool)] * len(edges))
    assert set(shifts.reason) == {""}
    return Flanders(bands, np.stack([shifts.east, shifts.north], axis=1))


def median_of(bands: NDArray[np.int16]) -> NDArray[np.int16]:
    return np.rint(np.median(bands, axis=0)).astype(np.int16)


def bare(scene: NDArray[np.int16], reference: NDArray[np.int16], detector: Detector) -> NDArray[np.float64]:
    """Pixels east and north by least squares that begin at no shift; without what decides whether to trust them."""
    found = BoundaryPair(as_scene(scene), as_reference(reference), detector).refined(np.zeros(2))
    assert found is not None
    moved = found[0] + found[1].moved
    return np.array([moved[0], -moved[1]]) * COMPARED / COARSE


def apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels between two measurements of the same dates (n, 2), about the difference of their references."""
    off = one - other
    return np.asarray(np.hypot(*(off - np.median(off, axis=0)).T), np.float64)


def test_a_patch_of_640_metres_is_too_small_to_be_believed(flanders: Flanders) -> None:
    """At EnMAP's own pixels, 20 along a side: one window, which cannot say its own error."""
    fine = np.stack([[at_15_metres(band[:63, :63], 10) for band in date] for date in flanders.bands[::6]])
    fine = np.ascontiguousarray(fine[..., 1:41, 1:41])
    for place in range(len(fine)):
        others = median_of(np.delete(fine, place, axis=0))
        for detector in DETECTORS:
            found = shift_of_detector(as_scene(fine[place]), as_reference(others), detector)
            assert found.reason != ""
            assert len(found.windows.pixels) <= 1


@pytest.mark.parametrize("detector", DETECTORS)
def test_medians_of_disjoint_halves_of_dates_lie_on_each_other(flanders: Flanders, detector: Detector) -> None:
    """18 dates each. Measured: 0.10 pixels, SWIR 0.12; forward and backward together 0.05 at most.

    Dates that lie off by 2.9 m along an axis let medians of 18 differ by 0.06 along an axis by chance.
    """
    halves = median_of(flanders.bands[::2]), median_of(flanders.bands[1::2])
    forward, backward = bare(halves[0], halves[1], detector), bare(halves[1], halves[0], detector)
    assert np.hypot(*forward) < 0.16
    assert np.hypot(*backward) < 0.16
    assert np.hypot(*(forward + backward)) < 0.08


@pytest.mark.parametrize(("detector", "median", "most"), [("vnir", 0.08, 0.14), ("swir", 0.1, 0.25)])
def test_references_of_disjoint_halves_of_dates_say_the_same_of_a_date(
    flanders: Flanders, detector: Detector, median: float, most: float
) -> None:
    """Neither half has the date. Measured: VNIR 0.06 in the median, 0.11 at 95 %; SWIR 0.07 and 0.20."""
    number = np.arange(len(flanders.bands))
    halves = [
        [bare(flanders.bands[i], median_of(flanders.bands[(number % 2 == half) & (number != i)]), detector)
         for i in number]
        for half in (0, 1)
    ]  # fmt: skip
    off = apart(np.array(halves[0]), np.array(halves[1]))
    assert np.median(off) < median
    assert np.percentile(off, 95) < most


def test_dates_are_found_where_pixels_of_ten_metres_say(flanders: Flanders) -> None:
    """The measurement that aligns dates sees B02 and B08 at 10 m: VNIR at 20 m has half of the pixels along an axis.

    Measured: 0.06 pixels in the median, 0.13 at 95 %; the dates lie 0.17 off in the median, 0.45 at 95 %.
    """
    number = np.arange(len(flanders.bands))
    found = np.array([bare(flanders.bands[i], median_of(flanders.bands[number != i]), "vnir") for i in number])
    off = apart(found, flanders.shifts / (2 * 10))
    assert np.median(off) < 0.08
    assert np.percentile(off, 95) < 0.17
    assert np.median(apart(np.zeros_like(found), flanders.shifts / 20)) > 2 * np.median(off)
