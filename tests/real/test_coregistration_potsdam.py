"""The match of one detector with another, on the one real EnMAP scene: 128 x 64 pixels, which both detectors image.

No Sentinel-2 of this ground is there, so the reference is the scene itself: its other detector, or other bands of the
same, brought to 15 m. How far VNIR lies from SWIR nobody knows; what is held is that measurements which share little
agree, and that a scene moved by a known shift is found moved by it. Measured figures stand in docs/coregistration.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pystac
import pytest
from numpy.typing import NDArray
from rasterio.windows import Window

from h2crop_data.catalog.access import raster_geobox
from h2crop_data.constants import COARSE
from h2crop_data.enmap.boundaries import brought_to_finer
from h2crop_data.enmap.coregistration import DetectorShift, ReferenceView, SceneView, shift_of_detector
from h2crop_data.sources.enmap.match import scene_view

B03, B04, B05, B08, B11, B12 = range(6)
VNIR, SWIR = (B03, B04, B05, B08), (B11, B12)
WHOLE, LEFT, RIGHT = slice(0, 128), slice(0, 64), slice(64, 128)
#: Pixels of 30 m in which layers are mirrored at their edges before they are moved.
ROOM = 24


@pytest.fixture(scope="module")
def scene(shared: Path) -> SceneView:
    folder = shared / "potsdam_2022"
    (item,) = pystac.ItemCollection.from_file(str(folder / "items.json"))
    for asset in item.assets.values():
        asset.href = str(folder / asset.href)
    grid = raster_geobox(item.assets["image"].href, "int16")
    assert grid.shape == (64, 128)
    return scene_view(item, grid, Window(0, 0, 128, 64))


def matched(
    scene: SceneView,
    bands: Sequence[int],
    against: Sequence[int],
    columns: slice = WHOLE,
    moved: SceneView | None = None,
) -> DetectorShift:
    """How far some bands (of a moved scene) lie off others of the scene, in a part of its columns."""
    own, other = (scene.bands[np.resize(some, 4)][:, :, columns] for some in (bands, against))
    if moved is not None:
        own = moved.bands[np.resize(bands, 4)][:, :, columns]
    # The bands of the detector that is not asked for.
    unused = np.repeat(own[:1], 2, axis=0)
    finer = [np.rint(brought_to_finer(band.astype(np.float32))) for band in (*other, *unused)]
    reference = np.stack(finer).astype(np.int16)
    view = scene if moved is None else moved
    return shift_of_detector(
        SceneView(np.concatenate([own, unused]), view.clear[:, columns], view.water[:, columns]),
        ReferenceView(reference, np.full(reference.shape[1:], 3, np.uint8), 0.0),
        "vnir",
    )


def vector(found: DetectorShift) -> NDArray[np.float64]:
    return np.array([found.shift.east, found.shift.north])


def sd(*found: DetectorShift) -> NDArray[np.float64]:
    """Of the difference of some measurements, along each axis."""
    return np.asarray(np.sqrt(sum(np.square(one.match_sd) for one in found)), np.float64)


def moved_by_phase(scene: SceneView, right: float, down: float) -> SceneView:
    """A scene whose content lies so many pixels further, by the phases of its spectrum: no kernel of ours."""
    padded = np.pad(scene.bands.astype(np.float64), ((0, 0), (ROOM, ROOM), (ROOM, ROOM)), mode="reflect")
    v, u = (np.fft.fftfreq(length) for length in padded.shape[1:])
    phases = np.exp(-2j * np.pi * (u[None] * right + v[:, None] * down))
    values = np.fft.ifft2(np.fft.fft2(padded) * phases).real[:, ROOM:-ROOM, ROOM:-ROOM]

    def carried(mask: NDArray[np.bool_], beyond: bool) -> NDArray[np.bool_]:
        matrix = np.array([[1, 0, round(right)], [0, 1, round(down)]], np.float32)
        return cv2.warpAffine(mask.view(np.uint8), matrix, mask.shape[::-1], borderValue=int(beyond)) > 0

    return SceneView(np.rint(values).astype(np.int16), carried(scene.clear, False), carried(scene.water, True))


def test_vnir_lies_off_swir_by_as_much_as_other_scenes_say(scene: SceneView) -> None:
    """Up to 0.2 pixels; here 5.4 m, 0.18 pixels, of which each axis is known to about a metre."""
    found = matched(scene, VNIR, SWIR)
    assert found.reason == ""
    assert 3 < np.hypot(*vector(found)) < 8
    assert np.all(sd(found) < 1.5)


def test_forward_and_backward_agree(scene: SceneView) -> None:
    """Their sum is nothing: measured 0.1 and 1.2 m with a standard deviation of 1.6 and 1.1 m."""
    forward, backward = matched(scene, VNIR, SWIR), matched(scene, SWIR, VNIR)
    assert backward.reason == ""
    assert np.all(np.abs(vector(forward) + vector(backward)) < 2 * sd(forward, backward))
    assert np.all(np.abs(vector(forward) + vector(backward)) < 2)


@pytest.mark.parametrize(("bands", "against"), [((B03, B05), (B04, B08)), ((B03, B04), (B05, B08)), ((B11,), (B12,))])
def test_disjoint_bands_of_one_detector_lie_on_each_other(
    scene: SceneView, bands: tuple[int, ...], against: tuple[int, ...]
) -> None:
    """Measured: at most 1.6 m along an axis, 0.05 pixels; in the median 0.4 m."""
    both = matched(scene, bands, against), matched(scene, against, bands)
    for found in both:
        assert found.reason == ""
        assert np.all(np.abs(vector(found)) < 2)
        assert np.all(np.abs(vector(found)) < 2.5 * sd(found))


def test_neighbouring_halves_say_the_same_of_vnir_and_swir(scene: SceneView) -> None:
    """Without a pixel in common: 64 x 64 pixels each. They differ by 2.9 m on each axis."""
    halves = []
    for columns in (LEFT, RIGHT):
        forward, backward = matched(scene, VNIR, SWIR, columns), matched(scene, SWIR, VNIR, columns)
        halves.append((vector(forward) - vector(backward)) / 2)
        # Each half says what the whole says, within what it says of itself.
        whole = vector(matched(scene, VNIR, SWIR))
        assert np.all(np.abs(vector(forward) - whole) < 2.5 * sd(forward))
    assert np.all(np.abs(halves[0] - halves[1]) < 4)
    # The direction is the same: west and north.
    assert all(half[0] < -1 and half[1] > 1 for half in halves)


def test_halves_are_less_certain_than_the_whole(scene: SceneView) -> None:
    whole = np.hypot(*sd(matched(scene, VNIR, SWIR)))
    parts = [np.hypot(*sd(matched(scene, VNIR, SWIR, columns))) for columns in (LEFT, RIGHT)]
    assert np.mean(parts) > whole


KNOWN_SHIFTS = [(0.5, 0.0), (-0.25, 0.75), (1.3, -0.4), (-1.6, -1.1), (2.2, 0.9), (0.1, -2.4)]


@pytest.mark.parametrize("bands", [VNIR, SWIR])
def test_a_scene_moved_by_a_known_shift_is_found_there(scene: SceneView, bands: tuple[int, ...]) -> None:
    """On itself. Measured: 0.4 m in the median, 0.5 m at most, 0.02 pixels."""
    off = []
    for right, down in KNOWN_SHIFTS:
        found = matched(scene, bands, bands, moved=moved_by_phase(scene, right, down))
        assert found.reason == ""
        off.append(np.hypot(*(vector(found) - (COARSE * right, -COARSE * down))))
    assert max(off) < 0.8


def test_a_detector_moved_by_a_known_shift_is_found_moved_by_it_against_the_other(scene: SceneView) -> None:
    """Another detector's picture as the reference, as Sentinel-2's is. Measured: 0.5 m in the median, 0.7 m at most."""
    before = vector(matched(scene, VNIR, SWIR))
    off = []
    for right, down in KNOWN_SHIFTS:
        found = matched(scene, VNIR, SWIR, moved=moved_by_phase(scene, right, down))
        assert found.reason == ""
        off.append(np.hypot(*(vector(found) - before - (COARSE * right, -COARSE * down))))
    assert np.median(off) < 0.8
    assert max(off) < 1.2


@pytest.mark.parametrize("pixels", [(0, 0), (1, 0), (0, 1), (3, -1), (-2, 2), (5, 3)])
@pytest.mark.parametrize("detector", ["vnir", "swir"])
def test_pixels_put_together_from_real_ones_are_found_to_a_metre(
    scene: SceneView, pixels: tuple[int, int], detector: Any
) -> None:
    """Nothing is interpolated: 30 m count as 15, a scene is the mean of 2 x 2 of them begun elsewhere."""
    right, down = pixels
    edge, bands = 6, scene.bands
    rows, columns = (length - 2 * edge for length in scene.clear.shape)
    moved = slice(edge - down, edge - down + rows), slice(edge - right, edge - right + columns)
    squares = (rows // 2, 2, columns // 2, 2)
    means = np.rint(bands[:, *moved].reshape(6, *squares).mean(axis=(2, 4))).astype(np.int16)
    clear, water = (layer[moved].reshape(squares) for layer in (scene.clear, scene.water))
    reference = np.ascontiguousarray(bands[:, edge:-edge, edge:-edge])
    found = shift_of_detector(
        SceneView(means, clear.all(axis=(1, 3)), water.any(axis=(1, 3))),
        ReferenceView(reference, np.full(reference.shape[1:], 3, np.uint8), 0.0),
        detector,
    )
    assert found.reason == ""
    assert np.all(np.abs(vector(found) - (15 * right, -15 * down)) < 1.2)


def test_a_scene_turned_or_mirrored_is_refused(scene: SceneView) -> None:
    """Real fields and woods, none of them where they belong."""
    for bands in (scene.bands[:, ::-1], scene.bands[:, :, ::-1], scene.bands[:, ::-1, ::-1]):
        moved = SceneView(np.ascontiguousarray(bands), scene.clear, scene.water)
        assert matched(scene, VNIR, VNIR, moved=moved).reason != ""
