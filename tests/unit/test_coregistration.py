"""Co-registration of EnMAP: fields are drawn at 5 m where each image has them, so that shifts are exact.

Between days crops change how bright they are, so that borders of fields invert.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import isnan

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.enmap.boundaries import brought_to_finer, strength
from h2crop_data.enmap.boundary_matching import covariance_of, masked_correlation, residual_of
from h2crop_data.enmap.coregistration import DetectorShift, ReferenceView, SceneView, coregister
from h2crop_data.enmap.sentinel2_response import COMPARED_BANDS, Detector, sentinel2_weights
from h2crop_data.errors import SceneError
from h2crop_data.shift import cubic_weights
from h2crop_data.simulate.enmap.bands import enmap_bands

#: EnMAP pixels along a side, ground around them, and metres of the pixels that fields are drawn in.
SIDE, RIM, FINE = 128, 8, 5
NOISE = 20.0


@lru_cache(maxsize=4)
def fields(seed: int) -> NDArray[np.int64]:
    """The number of the field (y, x) of every pixel of 5 m, fields of some 200 m."""
    chance = np.random.default_rng(seed)
    length = (SIDE + 2 * RIM) * 30 // FINE
    middles = chance.uniform(0, length, (round((length * FINE / 200) ** 2), 2))
    places = np.indices((length, length)).reshape(2, -1).T
    return np.asarray(cKDTree(middles).query(places)[1].reshape(length, length))


def seen(seed: int, day: int, pixel: int, east: int, north: int, bands: int) -> NDArray[np.float64]:
    """Bands (n, y, x) of a day in pixels of a size, with the content moved by multiples of 5 m."""
    field, chance = fields(seed), np.random.default_rng([seed, day])
    start, length = RIM * 30 // FINE, SIDE * 30 // FINE
    rows, columns = start + north // FINE, start - east // FINE
    cut = field[rows : rows + length, columns : columns + length]
    times = pixel // FINE
    images = []
    for _ in range(bands):
        ground = chance.uniform(500, 4000, field.max() + 1)[cut]
        images.append(ground.reshape(length // times, times, -1, times).mean(axis=(1, 3)))
    noise = chance.normal(0, NOISE, (bands, length // times, length // times))
    return np.stack(images) + noise


def view(seed: int = 1, day: int = 1, vnir: tuple[int, int] = (0, 0), swir: tuple[int, int] = (0, 0)) -> SceneView:
    """A scene whose detectors lie so many metres east and north of where they belong."""
    bands = np.concatenate([seen(seed, day, 30, *vnir, bands=4), seen(seed, day + 100, 30, *swir, bands=2)])
    whole = np.ones((SIDE, SIDE), bool)
    return SceneView(np.rint(bands).astype(np.int16), whole, ~whole)


def reference(seed: int = 1, day: int = 2, dates: int = 4, frame_sd: float = 1.0) -> ReferenceView:
    bands = np.rint(seen(seed, day, 15, 0, 0, bands=6)).astype(np.int16)
    return ReferenceView(bands, np.full(bands.shape[1:], dates, np.uint8), frame_sd)


def error(measured: DetectorShift, east: float, north: float) -> float:
    """Distance from the truth in metres."""
    return float(np.hypot(measured.shift.east - east, measured.shift.north - north))


@pytest.mark.parametrize(("east", "north"), [(0, 0), (35, 0), (0, -50), (-85, 20), (5, 90)])
def test_a_planted_shift_is_found_in_both_detectors(east: int, north: int) -> None:
    for measured in coregister(view(vnir=(east, north), swir=(east, north)), reference()).values():
        assert measured.reason == ""
        assert error(measured, east, north) < 1.5
        assert np.hypot(measured.check.east - east, measured.check.north - north) < 3
        assert np.abs(np.median(measured.windows.shifts, axis=0) - (east, north)).max() < 2


def test_detectors_are_measured_apart() -> None:
    found = coregister(view(vnir=(20, -10), swir=(25, -20)), reference())
    assert error(found["vnir"], 20, -10) < 1.5
    assert error(found["swir"], 25, -20) < 1.5
    moved = coregister(view(vnir=(20, -10), swir=(60, 60)), reference())
    assert moved["vnir"].shift == found["vnir"].shift


def test_windows_lie_on_the_scene_and_cloud_is_not_in_them() -> None:
    scene = view()
    clear = scene.clear.copy()
    clear[:, : SIDE // 2] = False
    measured = coregister(replace(scene, clear=clear), reference())["vnir"]
    assert measured.reason == ""
    assert measured.windows.centres[:, 0].min() > SIDE / 2
    assert (measured.windows.centres < SIDE).all()
    assert measured.windows.pixels.sum() <= 4 * np.count_nonzero(clear)
    assert measured.clear == pytest.approx(measured.windows.pixels.sum() / (4 * SIDE * SIDE), rel=0.05)


def test_what_lies_under_cloud_water_and_gaps_hardly_changes_anything() -> None:
    scene, other, ground = view(vnir=(15, 5)), view(seed=7), reference()
    hidden = np.zeros((SIDE, SIDE), bool)
    hidden[20:60, 30:90] = True
    expected = coregister(replace(scene, clear=~hidden), ground)["vnir"].shift
    replaced = np.where(hidden, other.bands, scene.bands)
    for masked in (SceneView(replaced, ~hidden, scene.water), SceneView(replaced, scene.clear, hidden)):
        assert error(coregister(masked, ground)["vnir"], expected.east, expected.north) < 0.01
    gaps = np.where(hidden, np.int16(REFLECTANCE_FILL), scene.bands)
    found = coregister(replace(scene, bands=gaps), ground)["vnir"]
    assert error(found, 15, 5) < 1.5


def hopeless() -> dict[str, tuple[SceneView, ReferenceView]]:
    """Scenes that must not be matched."""
    scene, ground = view(), reference()
    chance = np.random.default_rng(5)
    flat = np.full_like(scene.bands, 1500)
    corner = np.zeros_like(scene.clear)
    corner[:28, :28] = True
    lines = np.broadcast_to(1500 + 500 * chance.standard_normal((1, 1, 2 * SIDE)), ground.bands.shape)
    same = lines.reshape(6, SIDE, 2, SIDE, 2).mean(axis=(2, 4)) + chance.normal(0, NOISE, flat.shape)
    return {
        "another place": (view(seed=3), ground),
        "constant": (replace(scene, bands=flat), ground),
        "constant but for rounding": (replace(scene, bands=flat + chance.integers(0, 2, flat.shape, np.int16)), ground),
        "constant and noise": (replace(scene, bands=flat + chance.normal(0, 50, flat.shape).astype(np.int16)), ground),
        "constant reference": (scene, replace(ground, bands=np.full_like(ground.bands, 1500))),
        "water": (replace(scene, water=~scene.water), ground),
        "no date": (scene, replace(ground, dates=np.zeros_like(ground.dates))),
        "a clear corner": (replace(scene, clear=corner), ground),
        "six pixels off": (view(vnir=(180, 0), swir=(0, -180)), ground),
        "stripes": (replace(scene, bands=same.astype(np.int16)), replace(ground, bands=lines.astype(np.int16))),
    }


@pytest.mark.parametrize("name", hopeless())
def test_what_cannot_be_matched_is_rejected_with_a_reason(name: str) -> None:
    for measured in coregister(*hopeless()[name]).values():
        assert measured.reason


def test_uncertainty_covers_errors_and_grows_with_fewer_dates_and_less_ground() -> None:
    scene, ground = view(vnir=(10, -25)), reference(dates=3, frame_sd=1.2)
    whole = coregister(scene, ground)["vnir"]
    assert error(whole, 10, -25) < 2 * np.hypot(*whole.match_sd)
    assert np.allclose(np.square(whole.total_sd), np.square(whole.match_sd) + 1.2**2)
    single = coregister(scene, replace(ground, dates=ground.dates // 3))["vnir"]
    assert np.allclose(np.square(single.total_sd), np.square(single.match_sd) + 3 * 1.2**2)
    part = np.zeros_like(scene.clear)
    part[30:80, 30:80] = True
    small = coregister(replace(scene, clear=part), ground)["vnir"]
    assert min(small.match_sd) > max(whole.match_sd)


def test_a_reference_on_other_ground_is_an_error() -> None:
    ground = reference()
    with pytest.raises(ValueError, match="a reference of"):
        coregister(view(), replace(ground, dates=ground.dates[:-2]))


def test_nothing_measured_says_so() -> None:
    scene = view()
    measured = coregister(replace(scene, clear=~scene.clear), reference())["swir"]
    assert isnan(measured.shift.east)
    assert isnan(measured.total_sd[0])
    assert measured.reason == "0.0 % of the ground is clear in both"


def test_cubic_convolution_to_finer_pixels_is_that_of_its_weights() -> None:
    band = np.random.default_rng(0).uniform(0, 1000, (12, 14)).astype(np.float32)
    right, down = 1.3, -2.6
    finer = brought_to_finer(band, (right, down))
    row, column = 11, 12
    y, x = (row + 0.5) / 2 - 0.5 + down, (column + 0.5) / 2 - 0.5 + right
    top, left = int(np.floor(y)), int(np.floor(x))
    square = band[top - 1 : top + 3, left - 1 : left + 3]
    assert finer[row, column] == pytest.approx(cubic_weights(y - top) @ square @ cubic_weights(x - left), rel=1e-5)


def test_a_straight_slope_keeps_its_place_in_finer_pixels() -> None:
    y, x = np.mgrid[:20, :20].astype(np.float32)
    finer = brought_to_finer(30 * x + 7 * y, (0.4, 0.0))
    rows, columns = (np.mgrid[:40, :40] + 0.5) / 2 - 0.5
    inner = slice(6, -6)
    assert np.allclose(finer[inner, inner], (30 * (columns + 0.4) + 7 * rows)[inner, inner], atol=1e-3)


def test_strength_knows_no_direction_and_no_unit() -> None:
    band = ndimage.gaussian_filter(np.random.default_rng(1).normal(0, 3000, (60, 60)), 2).astype(np.float32)
    everywhere = np.ones((60, 60), bool)
    plain, inverted = strength(band, everywhere), strength(4000 - 2 * band, everywhere)
    assert plain is not None
    assert inverted is not None
    assert np.allclose(plain, inverted, atol=1e-4)
    assert plain.max() == 1
    assert strength(np.full((60, 60), 1200, np.float32), everywhere) is None


def test_the_masked_correlation_is_that_of_the_pixels_in_both() -> None:
    chance = np.random.default_rng(2)
    layer, other = (ndimage.gaussian_filter(chance.normal(0, 1, (40, 50)), 1).astype(np.float32) for _ in range(2))
    other[:, 3:] += 2 * layer[:, :-3]
    known = (chance.uniform(0, 1, (40, 50)) > 0.1, chance.uniform(0, 1, (40, 50)) > 0.2)
    peak = masked_correlation(layer, other, known, 5)
    assert peak is not None
    # `layer` shows at column x what `other` shows at x + 3.
    both = known[0][:, :-3] & known[1][:, 3:]
    expected = np.corrcoef(layer[:, :-3][both], other[:, 3:][both])[0, 1]
    assert peak.correlation == pytest.approx(expected, abs=1e-3)
    assert np.allclose(peak.moved, (-3, 0), atol=0.3)


def test_covariance_is_that_of_a_mean_for_windows_alike() -> None:
    steps = np.random.default_rng(3).normal(0, 0.3, (30, 2))
    matrices = np.broadcast_to(np.array([[2.0, 0.5], [0.5, 1.0]]), (30, 2, 2))
    vectors = np.einsum("nij,nj->ni", matrices, steps)
    expected = np.cov(steps.T) / 30
    assert np.allclose(covariance_of(matrices, vectors, steps.mean(axis=0)), expected)
    assert np.isinf(covariance_of(matrices[:1], vectors[:1], steps[0])).all()


def test_layers_that_fit_leave_nothing() -> None:
    layer = ndimage.gaussian_filter(np.random.default_rng(4).normal(0, 1, (120, 120)), 2).astype(np.float32)
    known = np.ones(layer.shape, bool)
    left = residual_of(layer, layer, known)
    assert left is not None
    assert np.abs(left.moved).max() < 1e-6
    assert left.correlation == pytest.approx(1)


def test_bands_are_averaged_within_sentinel2s_response() -> None:
    centres, widths = enmap_bands()
    weights = sentinel2_weights(centres, widths)
    assert np.allclose(weights.sum(axis=1), 1)
    for row, (centre, width) in zip(weights, COMPARED_BANDS.values(), strict=True):
        assert row @ centres == pytest.approx(centre, abs=4)
        assert (np.abs(centres[row > 0] - centre) < width / 2 + 15).all()
    order = np.random.default_rng(0).permutation(len(centres))
    assert np.allclose(sentinel2_weights(centres[order], widths[order]), weights[:, order])
    with pytest.raises(SceneError, match="B11, B12"):
        sentinel2_weights(centres[centres < 1000], widths[centres < 1000])


def test_detectors_see_the_bands_of_their_range() -> None:
    scene, ground = view(), reference()
    for detector, gone in (("vnir", slice(4, 6)), ("swir", slice(0, 4))):
        bands = scene.bands.copy()
        bands[gone] = 1000
        named: Detector = "vnir" if detector == "vnir" else "swir"
        found = coregister(replace(scene, bands=bands), ground)
        assert [name for name, one in found.items() if not one.reason] == [named]
