"""Shifts of EnMAP against Sentinel-2, measured on simulated scenes with known shifts: errors, uncertainty, refusals.

    python tests/benchmarks/bench_coregistration.py [--seed 100] [--cases 60] [--json FILE] [--folder DIR]

Twelve cases a region of 7.9 km (264 EnMAP pixels): four references, each a median of one to five Sentinel-2 dates of
its own within 35, 80 or 180 days, jittered by up to 0, 2 or 5 m, with gaps where clouds were; three scenes each, up to
3 pixels off in each axis, SWIR up to 0.2 pixels from VNIR, soft clouds over up to half, noise of 0, 0.005 or 0.01.
Everything is drawn anew (tests/benchmarks/coregistration_scenes.py). Constants were chosen on seeds 1 and 2.

All distances in EnMAP pixels of 30 m, of accepted measurements where not said otherwise:

- match_median_px, match_p95_px, swir_median_px, swir_p95_px: from where the reference's frame says VNIR and SWIR lie,
  the planted shift less the mean jitter of the dates
- truth_median_px, truth_p95_px: of VNIR from the planted shift, references of three or more dates
- max_accepted_px: the largest error against the frame of either detector; accepted_share: of detectors
- missed_<s>_accepted_share, missed_max_accepted_px: the same where s % of the cloud is missed by the mask
- hopeless_accepted: detectors accepted of `hopeless` that must not be
- within_two, uncertainty_ratio: share of errors along an axis (against the truth) within two of their stated standard
  deviation, and its median by the median error; match_within_two, match_uncertainty_ratio: against the frame
- sd_whole_px, sd_128_px, sd_<n>_dates_px: medians of the stated deviation along an axis on scenes as they are and cut
  to 128 pixels, and with the first one, two and three dates, of the same references (three or more dates)
- detector_difference_median_px, detector_difference_p95_px: error of the difference of VNIR and SWIR
- p95_px_<class>: match_p95_px by thousands of usable EnMAP pixels
- correlation_gain_min, correlation_gain_min_far, correlation_gain_median: what correction adds to the correlation with
  Sentinel-2 at 30 m, the mean of a detector's bands; far: shifts over 0.2 pixels; near_dates: references within 80 days
- day_gain_min, day_gain_min_far, day_gain_median, day_lost: the same with Sentinel-2 of the scene's own day, which saw
  the same crops; stored_gain_*, stored_lost: with that, on a store's pixels, for which scenes are resampled anyway
- correlation_lost: detectors whose correlation falls (the planted shift loses as much: correlation_short_of_truth_max);
  correlation_short_of_truth_max: how far it stays below what the planted shift gives, at most
- recipe30_*: gradients at 30 m and OpenCV's masked ECC instead; skimage_*: scikit-image's masked cross-correlation of
  the same boundaries, where it is installed; of all cases, VNIR
- s_a_case: seconds of CPU for both detectors
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_clouds import rounded
from coregistration_gain import FAR, Gain, gain_of, gains_of
from coregistration_scenes import REFERENCES, SCENES, Drawn, drawn_references, reference_of, scene_of
from numpy.typing import NDArray

from h2crop_data.constants import COARSE, REFLECTANCE_FILL
from h2crop_data.enmap.coregistration import BoundaryPair, DetectorShift, ReferenceView, SceneView, coregister
from h2crop_data.enmap.detectors import Detector
from h2crop_data.enmap.sentinel2_response import DETECTOR_BANDS

COVERS, NOISES, MISSED = (0.0, 0.15, 0.3, 0.5), (0.0, 0.005, 0.01), (0.03, 0.1, 0.3)
#: Thousands of usable pixels.
CLASSES = ((0, 20), (20, 40), (40, 100))
#: Days within which crops look much alike.
NEAR = 80
AT_MOST = {
    "match_median_px": 0.03,
    "match_p95_px": 0.08,
    "swir_p95_px": 0.1,
    "truth_median_px": 0.05,
    "truth_p95_px": 0.12,
    "max_accepted_px": 0.15,
    "missed_max_accepted_px": 0.15,
    "hopeless_accepted": 0,
    "within_two": 0.99,
    "uncertainty_ratio": 2.5,
    "detector_difference_median_px": 0.03,
    "detector_difference_p95_px": 0.06,
}
AT_LEAST = {
    "cases": 40,
    "references": 20,
    "accepted_share": 0.95,
    "within_two": 0.9,
    "correlation_gain_min": -0.002,
    "correlation_gain_min_far": 0.0,
    "day_gain_min": -0.002,
    "day_gain_min_far": 0.0,
}


@dataclass(frozen=True)
class Measured:
    """One detector of one case; errors in EnMAP pixels east and north."""

    detector: Detector
    result: DetectorShift
    frame_error: NDArray[np.float64]
    truth_error: NDArray[np.float64]
    dates: int

    @property
    def accepted(self) -> bool:
        """Whether it is said to be trusted."""
        return not self.result.reason


@dataclass
class Findings:
    """What was measured on all cases."""

    right: list[Measured] = field(default_factory=list)
    missed: dict[float, list[Measured]] = field(default_factory=lambda: defaultdict(list))
    hopeless: list[tuple[str, bool]] = field(default_factory=list)
    #: Standard deviations along axes by what was changed.
    sd: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gains: list[Gain] = field(default_factory=list)
    others: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: list[float] = field(default_factory=list)
    references: int = 0


def measured(drawn: Drawn, number: int, scene: SceneView, reference: ReferenceView, frame: Any) -> list[Measured]:
    """Both detectors of a case."""
    found = []
    for planted, (name, result) in zip(drawn.planted[number], coregister(scene, reference).items(), strict=True):
        error = (np.array([result.shift.east, result.shift.north]) - planted) / COARSE
        found.append(Measured(name, result, error + frame / COARSE, error, len(drawn.dates)))
    return found


def judge_case(findings: Findings, drawn: Drawn, number: int, chance: np.random.Generator) -> None:
    """One scene of a reference: with right masks, with cloud missed, and the other ways."""
    reference, frame = reference_of(drawn)
    cover, noise = float(chance.choice(COVERS)), float(chance.choice(NOISES))
    scene = scene_of(drawn, number, cover, noise, chance)
    start = time.process_time()
    found = measured(drawn, number, scene, reference, frame)
    findings.seconds.append(time.process_time() - start)
    findings.right += found
    findings.gains += [
        gain_of(one.detector, one.result.shift, one.frame_error, scene, reference, drawn)
        for one in found
        if one.accepted
    ]
    missed = MISSED[len(findings.seconds) % len(MISSED)]
    clouded = scene_of(drawn, number, float(chance.choice(COVERS[1:])), noise, chance, missed)
    findings.missed[missed] += measured(drawn, number, clouded, reference, frame)
    expected = (drawn.planted[number, 0] - frame) / COARSE
    for name, shift in other_ways(scene, reference).items():
        findings.others[name].append(float(np.hypot(*(shift - expected))))


def judge_reference(findings: Findings, drawn: Drawn, chance: np.random.Generator, other: ReferenceView) -> None:
    """What a reference is asked once: hopeless scenes, and how uncertainty grows."""
    findings.references += 1
    reference, _ = reference_of(drawn)
    scene = scene_of(drawn, 0, 0.0, 0.005, chance)
    for name, (bad_scene, bad_reference) in hopeless_pairs(scene, reference, drawn, other, chance):
        findings.hopeless += [(name, not one.reason) for one in coregister(bad_scene, bad_reference).values()]
    if len(drawn.dates) < 3:
        return
    part, finer = slice(68, 196), slice(136, 392)
    cut = SceneView(scene.bands[:, part, part], scene.clear[part, part], scene.water[part, part])
    of_cut = replace(reference, bands=reference.bands[:, finer, finer], dates=reference.dates[finer, finer])
    views = {"sd_whole_px": (scene, reference), "sd_128_px": (cut, of_cut)}
    views |= {f"sd_{number}_dates_px": (scene, reference_of(drawn, number)[0]) for number in (1, 2, 3)}
    for name, (of_scene, of_reference) in views.items():
        for one in coregister(of_scene, of_reference).values():
            findings.sd[name] += [sd / COARSE for sd in one.total_sd if np.isfinite(sd)]


def hopeless_pairs(
    scene: SceneView, reference: ReferenceView, drawn: Drawn, other: ReferenceView, chance: np.random.Generator
) -> Iterator[tuple[str, tuple[SceneView, ReferenceView]]]:
    """Scenes and references that must not be matched, by construction."""
    side = len(scene.clear)
    few = np.zeros_like(scene.clear)
    few[40 : 40 + round(0.22 * side), 60 : 60 + round(0.22 * side)] = True
    yield "little clear", (replace(scene, clear=few), reference)
    east = 6 if drawn.planted[0, 0, 0] > 0 else -6
    yield "six pixels off", (scene, moved_west(reference, 2 * east))
    yield "another place", (scene, other)
    yield "turned", (scene, replace(reference, bands=np.rot90(reference.bands, axes=(1, 2)).copy()))
    mean = scene.bands.mean(axis=(1, 2), keepdims=True)
    flat = np.broadcast_to(mean, scene.bands.shape)
    yield "constant", (replace(scene, bands=flat.astype(np.int16)), reference)
    yield "constant reference", (scene, replace(reference, bands=np.full_like(reference.bands, 1500)))
    noise = chance.normal(0, 1, scene.bands.shape)
    yield "rounding", (replace(scene, bands=np.rint(flat + 0.4 * noise).astype(np.int16)), reference)
    yield "noise", (replace(scene, bands=np.rint(flat + 50 * noise).astype(np.int16)), reference)
    yield "water", (replace(scene, water=np.ones_like(scene.water)), reference)
    waves = cv2.GaussianBlur(noise[0].astype(np.float32), (0, 0), 3)
    sea = np.rint(200 + 300 * waves + 10 * noise).astype(np.int16)
    yield "water unknown", (replace(scene, bands=sea), reference)
    lines = 1500 + 500 * chance.standard_normal((1, 1, side))
    yield "stripes", (replace(scene, bands=np.rint(flat * 0 + lines).astype(np.int16)), reference)
    fine = 1500 + 2000 * cv2.GaussianBlur(chance.standard_normal((1, 2 * side)).astype(np.float32), (0, 0), 3)
    striped = replace(reference, bands=np.rint(np.zeros_like(reference.bands) + fine).astype(np.int16))
    same = np.rint(flat * 0 + fine.reshape(1, -1, 2).mean(axis=2) + 20 * noise).astype(np.int16)
    yield "stripes in both", (replace(scene, bands=same), striped)


def moved_west(reference: ReferenceView, pixels: int) -> ReferenceView:
    """A reference whose content lies so many of its pixels too far west, east where negative."""
    bands, dates = np.roll(reference.bands, -pixels, axis=2), np.roll(reference.dates, -pixels, axis=1)
    end = slice(-pixels, None) if pixels > 0 else slice(0, -pixels)
    bands[:, :, end], dates[:, end] = REFLECTANCE_FILL, 0
    return replace(reference, bands=bands, dates=dates)


def other_ways(scene: SceneView, reference: ReferenceView) -> dict[str, NDArray[np.float64]]:
    """The shift of VNIR in pixels east and north by other ways; NaN where one fails."""
    pair = BoundaryPair(scene, reference, "vnir")
    ways = {"recipe30": matched_at_30_metres(scene, reference, pair)}
    if importlib.util.find_spec("skimage"):
        from skimage.registration import phase_cross_correlation

        shift, _, _ = phase_cross_correlation(
            pair.unmoved, pair.reference, reference_mask=pair.scene_known, moving_mask=pair.reference_known
        )
        ways["skimage"] = np.array([shift[1], -shift[0]]) / 2
    return ways


def matched_at_30_metres(scene: SceneView, reference: ReferenceView, pair: BoundaryPair) -> NDArray[np.float64]:
    """The shift by gradients taken at 30 m and OpenCV's ECC with a mask."""
    rows, columns = scene.clear.shape
    part = DETECTOR_BANDS["vnir"]
    coarse = reference.bands[part].astype(np.float32).reshape(-1, rows, 2, columns, 2).mean(axis=(2, 4))
    both = (pair.scene_known & pair.reference_known)[::2, ::2]
    layers = []
    for bands in (coarse, scene.bands[part].astype(np.float32)):
        lengths = [cv2.magnitude(cv2.Sobel(one, cv2.CV_32F, 1, 0), cv2.Sobel(one, cv2.CV_32F, 0, 1)) for one in bands]
        tops = [np.percentile(one[both], 98) for one in lengths]
        layers.append(np.mean([np.minimum(one / top, 1) for one, top in zip(lengths, tops, strict=True)], axis=0))
    template, image = (layer.astype(np.float32) for layer in layers)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 80, 1e-6)
    try:
        _, matrix = cv2.findTransformECC(
            template, image, np.eye(2, 3, dtype=np.float32), cv2.MOTION_TRANSLATION, stop, both.view(np.uint8), 3
        )
    except cv2.error:
        return np.full(2, np.nan)
    return np.array([matrix[0, 2], -matrix[1, 2]], np.float64)


def figures_of(findings: Findings) -> dict[str, Any]:
    """All figures."""
    accepted = [one for one in findings.right if one.accepted]
    vnir, swir = ([one for one in accepted if one.detector == name] for name in DETECTOR_BANDS)
    match, match_swir = lengths([one.frame_error for one in vnir]), lengths([one.frame_error for one in swir])
    truth = lengths([one.truth_error for one in vnir if one.dates >= 3])
    pairs = list(zip(findings.right[::2], findings.right[1::2], strict=True))
    apart = lengths([a.frame_error - b.frame_error for a, b in pairs if a.accepted and b.accepted])
    missed = [one for of_share in findings.missed.values() for one in of_share if one.accepted]
    figures: dict[str, Any] = {
        "match_median_px": np.median(match),
        "match_p95_px": np.percentile(match, 95),
        "swir_median_px": np.median(match_swir),
        "swir_p95_px": np.percentile(match_swir, 95),
        "truth_median_px": np.median(truth),
        "truth_p95_px": np.percentile(truth, 95),
        "max_accepted_px": max(match.max(), match_swir.max()),
        "accepted_share": len(accepted) / len(findings.right),
        "missed_max_accepted_px": lengths([one.frame_error for one in missed]).max(),
        "hopeless_accepted": sum(one for _, one in findings.hopeless),
        "hopeless": len(findings.hopeless),
        "hopeless_accepted_names": " ".join(sorted({name for name, one in findings.hopeless if one})) or "none",
        **spread_of([(one.truth_error, one.result.total_sd) for one in accepted], ""),
        **spread_of([(one.frame_error, one.result.match_sd) for one in accepted], "match_"),
        "detector_difference_median_px": np.median(apart),
        "detector_difference_p95_px": np.percentile(apart, 95),
        "correlation_gain_min": min(one.gain for one in findings.gains),
        "correlation_gain_min_far": min(one.gain for one in findings.gains if one.length > FAR),
        "correlation_gain_min_near_dates": min(one.gain for one in findings.gains if one.gap < NEAR),
        "correlation_gain_median": np.median([one.gain for one in findings.gains]),
        "correlation_lost": sum(one.gain < 0 for one in findings.gains),
        **gains_of([(one.length, one.day) for one in findings.gains], "day"),
        **gains_of([(one.length, one.stored) for one in findings.gains], "stored"),
        "correlation_short_of_truth_max": max(one.short for one in findings.gains),
        "cases": len(findings.seconds),
        "references": findings.references,
        "s_a_case": np.mean(findings.seconds),
    }
    for share, of_share in sorted(findings.missed.items()):
        figures[f"missed_{100 * share:.0f}_accepted_share"] = np.mean([one.accepted for one in of_share])
    figures |= {name: np.median(values) for name, values in findings.sd.items()}
    for low, high in CLASSES:
        errors = [one.frame_error for one in vnir if low <= 264 * 264 * one.result.clear / 1000 < high]
        if errors:
            figures[f"p95_px_{low}_to_{high}"] = np.percentile(lengths(errors), 95)
            figures[f"n_{low}_to_{high}"] = len(errors)
    for name, distances in findings.others.items():
        found = np.array(distances)[np.isfinite(distances)]
        figures |= {f"{name}_median_px": np.median(found), f"{name}_p95_px": np.percentile(found, 95)}
        figures |= {f"{name}_max_px": found.max(), f"{name}_failed": len(distances) - len(found)}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in figures.items()}


def lengths(vectors: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Their lengths (n,)."""
    return np.asarray(np.hypot(*np.array(vectors).T), np.float64)


def spread_of(pairs: list[tuple[NDArray[np.float64], tuple[float, float]]], name: str) -> dict[str, float]:
    """How errors along axes lie in their stated standard deviations (in metres)."""
    errors = np.abs([error for error, _ in pairs]).ravel()
    stated = np.array([sd for _, sd in pairs]).ravel() / COARSE
    return {
        f"{name}within_two": float((errors <= 2 * stated).mean()),
        f"{name}uncertainty_ratio": float(np.median(stated) / np.median(errors)),
    }


def missed_bounds(figures: dict[str, Any]) -> list[str]:
    """The bounds that figures miss."""
    above = [f"{name} {figures[name]:.3f}, at most {bound}" for name, bound in AT_MOST.items() if figures[name] > bound]
    below = [
        f"{name} {figures[name]:.3f}, at least {bound}" for name, bound in AT_LEAST.items() if figures[name] < bound
    ]
    order = [["sd_whole_px", "sd_128_px"], ["sd_3_dates_px", "sd_2_dates_px", "sd_1_dates_px"]]
    grows = [f"{low} is not below {high}" for names in order for low, high in pairwise(names)
             if not figures[low] < figures[high]]  # fmt: skip
    return above + below + grows


def measure(seed: int, cases: int, folder: Path, keep: bool) -> dict[str, Any]:
    """Regions from a seed on until there are so many cases."""
    findings = Findings()
    other: ReferenceView | None = None
    while len(findings.seconds) < cases:
        start = time.perf_counter()
        place = folder / f"land{seed}"
        for number, drawn in enumerate(drawn_references(seed, place)):
            chance = np.random.default_rng([seed, number, 1])
            reference, _ = reference_of(drawn)
            flipped = replace(reference, bands=reference.bands[:, ::-1, ::-1].copy(), dates=reference.dates[::-1, ::-1])
            judge_reference(findings, drawn, chance, other or flipped)
            for scene in range(min(SCENES, cases - len(findings.seconds))):
                judge_case(findings, drawn, scene, chance)
            if number == REFERENCES - 1:
                other = reference
        if not keep:
            shutil.rmtree(place)
        print(f"region {seed}: {time.perf_counter() - start:.0f} s", flush=True)
        seed += 1
    return figures_of(findings)


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=100, help="of the first region")
    parser.add_argument("--cases", type=int, default=5 * REFERENCES * SCENES, help="solvable ones; 12 a region")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--folder", type=Path, help="where landscapes are kept; by default a temporary folder")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        figures = {"seed": arguments.seed, **measure(arguments.seed, arguments.cases, folder, bool(arguments.folder))}
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    for missed in missed_bounds(figures):
        print(f"bound missed: {missed}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rounded(figures), indent=1) + "\n", encoding="utf-8")
    print(json.dumps(rounded(figures)))


if __name__ == "__main__":
    main()
