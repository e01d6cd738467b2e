"""Which detector of EnMAP took a band, held against the counts of the archive and against the physics of a grating."""

from __future__ import annotations

import random

import numpy as np
import pytest

from h2crop_data.enmap.detectors import DETECTOR_OVERLAP, Detector, enmap_detectors
from h2crop_data.errors import SceneError
from h2crop_data.simulate.enmap.bands import enmap_bands

Spectrum = list[tuple[float, float]]


@pytest.fixture(scope="module")
def spectrum() -> Spectrum:
    """Centres and widths of the bands of a real scene of 2022, in order of wavelength."""
    centres, widths = enmap_bands()
    return list(zip(centres.tolist(), widths.tolist(), strict=True))


def told_apart(spectrum: Spectrum, detectors: tuple[Detector, ...]) -> None:
    """The archive's 91 and 133 bands; the centres of each run smoothly: second differences of a grating are small."""
    for detector, count in (("vnir", 91), ("swir", 133)):
        centres = np.sort([w for (w, _), own in zip(spectrum, detectors, strict=True) if own == detector])
        assert len(centres) == count
        near = centres[centres < 1100] if detector == "swir" else centres
        assert np.abs(np.diff(near, 2)).max() < 0.3


def by_detector(spectrum: Spectrum) -> Spectrum:
    """The bands one detector after the other."""
    detectors = enmap_detectors(*zip(*spectrum, strict=True))
    return [band for wanted in ("vnir", "swir") for band, own in zip(spectrum, detectors, strict=True) if own == wanted]


def test_real_bands_by_wavelength_are_told_apart_without_any_statement(spectrum: Spectrum) -> None:
    told_apart(spectrum, enmap_detectors(*zip(*spectrum, strict=True)))
    told_apart(spectrum, enmap_detectors(*zip(*spectrum, strict=True), vnir_count=91))


def test_bands_in_order_of_the_detectors_need_no_widths(spectrum: Spectrum) -> None:
    ordered = [(wavelength, 10.0) for wavelength, _ in by_detector(spectrum)]
    assert enmap_detectors(*zip(*ordered, strict=True)) == ("vnir",) * 91 + ("swir",) * 133
    turned = ordered[91:] + ordered[:91]
    assert enmap_detectors(*zip(*turned, strict=True)) == ("swir",) * 133 + ("vnir",) * 91


def test_the_218_bands_of_older_versions(spectrum: Spectrum) -> None:
    older = [band for band in by_detector(spectrum) if not 1325 <= band[0] <= 1395]
    assert enmap_detectors(*zip(*older, strict=True)) == ("vnir",) * 91 + ("swir",) * 127
    assert enmap_detectors(*zip(*sorted(older), strict=True)).count("vnir") == 91


def test_lists_decide_where_widths_do_not(spectrum: Spectrum) -> None:
    true = enmap_detectors(*zip(*spectrum, strict=True))
    centres = [wavelength for wavelength, _ in spectrum]
    stated = {i + 1: detector for i, detector in enumerate(true)}
    assert enmap_detectors(centres, [10.0] * 224, stated) == true
    with pytest.raises(SceneError, match="neither by its lists of channels nor by the order and widths"):
        enmap_detectors(centres, [10.0] * 224)


@pytest.mark.parametrize("seed", range(5))
def test_incomplete_lists_are_completed(spectrum: Spectrum, seed: int) -> None:
    true = enmap_detectors(*zip(*spectrum, strict=True))
    kept = random.Random(seed).sample(range(224), 150)
    assert enmap_detectors(*zip(*spectrum, strict=True), {i + 1: true[i] for i in kept}) == true


def test_lists_that_count_something_else_are_not_believed(spectrum: Spectrum) -> None:
    """Numbers of channels of the detectors, or the first 91 of a file in order of wavelength."""
    true = enmap_detectors(*zip(*spectrum, strict=True))
    first: dict[int, Detector] = {i + 1: "vnir" if i < 91 else "swir" for i in range(224)}
    assert enmap_detectors(*zip(*spectrum, strict=True), first) == true
    swapped: dict[int, Detector] = {i + 1: "swir" if own == "vnir" else "vnir" for i, own in enumerate(true)}
    assert enmap_detectors(*zip(*spectrum, strict=True), swapped) == true


def test_beyond_the_overlap_the_wavelength_decides() -> None:
    assert enmap_detectors([DETECTOR_OVERLAP[0] - 1, DETECTOR_OVERLAP[1] + 1, 420, 2400], [0, 99, 0, 99]) == (
        "vnir",
        "swir",
        "vnir",
        "swir",
    )
