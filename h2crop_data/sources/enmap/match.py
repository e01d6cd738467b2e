"""Units of work that match a scene with Sentinel-2, and the decision on its shift.

The result of a unit is JSON: `detectors` (name -> figures and windows, in metres; `reason` says why its shift is not to
be trusted), `reference` (dates, aligned, frame_sd, gaps).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import hypot, isfinite
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from h2crop_data.array_archive import read_arrays
from h2crop_data.catalog.access import file_stamp, raster_geobox, read_window
from h2crop_data.constants import ENMAP_FLAGS, REFLECTANCE_FILL
from h2crop_data.enmap.boundaries import REFERENCE_FINER
from h2crop_data.enmap.coregistration import DetectorShift, ReferenceView, SceneView, coregister
from h2crop_data.enmap.product import enmap_reflectance
from h2crop_data.enmap.sentinel2_response import COMPARED_BANDS, sentinel2_weights
from h2crop_data.errors import SceneError
from h2crop_data.grid import ProcessingTile
from h2crop_data.recipe.enmap import EnmapSettings
from h2crop_data.shift import APPLIED, NO_SHIFT, NOT_NEEDED, Shift
from h2crop_data.sources.enmap.format import (
    DETECTORS,
    FIGURES,
    MATCH_REPORTED,
    MATCH_WINDOWS,
    OF_DATATAKE,
    REFERENCE_GAPS,
)
from h2crop_data.sources.enmap.layers import read_flags
from h2crop_data.sources.enmap.scene import image_of, metadata_of
from h2crop_data.sources.enmap.work import match_work
from h2crop_data.sources.scenes import kept_identity
from h2crop_data.sources.units import ProvisionalResult, Unit

#: Raised whenever the same scene and reference give another shift.
MATCH_ALGORITHM = 1
MATCH_STEP = "enmap match"
#: Digits of figures, and of those of windows: metres to a centimetre.
FIGURE_DIGITS, WINDOW_DIGITS = 2, 2
#: Flags of pixels that do not show the ground.
UNCLEAR = sum(
    ENMAP_FLAGS[name] for name in ("outside", "cloud", "cloud_shadow", "cirrus_medium", "cirrus_thick", "snow")
)
#: Tiles of a datatake whose shifts lie so near each other, in metres, along each axis, can lend them to another.
SMALL_SPREAD = 3.0


class UnmatchableError(Exception):
    """A scene that can be read cannot be compared with Sentinel-2."""


@dataclass(frozen=True)
class MatchTask:
    """A scene, and the tiles whose references it is matched with, in the order of these."""

    scene: pystac.Item
    tiles: tuple[ProcessingTile, ...]


def match_unit(item: pystac.Item, tiles: Sequence[ProcessingTile], references: Sequence[Unit]) -> Unit:
    """The unit of work that matches a scene with references of some tiles, given the units that make these."""
    needs = tuple(references)
    stamp = {key: file_stamp(asset.href) for key, asset in sorted(item.assets.items())}
    stamps = [need.stamp for need in needs]
    return Unit(
        kind="scene against tiles",
        step=MATCH_STEP,
        name=item.id,
        algorithm=MATCH_ALGORITHM,
        inputs=[kept_identity(item), [tile.id for tile in tiles]],
        settings={},
        compute=partial(match_scene, MatchTask(item, tuple(tiles))),
        needs=needs,
        stamp=[stamp, stamps] if any(value is not None for value in [*stamp.values(), *stamps]) else None,
        work=partial(match_work, item),
    )


def match_scene(task: MatchTask, needs: Sequence[Path]) -> bytes:
    """How far a scene lies off its references, as JSON; provisional where these are. Raises SceneError, ReadError."""
    item = task.scene
    grid = raster_geobox(item.assets["image"].href, "int16")
    gaps = gaps_of(needs)
    try:
        mosaic = mosaic_of(grid, task.tiles, needs)
        view = scene_view(item, grid, mosaic.window)
    except UnmatchableError as error:
        result = match_as_json({}, {"gaps": gaps}, str(error))
        return ProvisionalResult(result) if gaps else result
    origin = grid[mosaic.window.toslices()]
    matches = coregister(view, ReferenceView(mosaic.bands, mosaic.dates, mosaic.frame_sd))
    found: dict[str, Any] = {name: figures_of(match, origin) for name, match in matches.items()}
    facts = {"dates": mosaic.days, "aligned": mosaic.aligned, "frame_sd": round(mosaic.frame_sd, 2), "gaps": gaps}
    result = match_as_json(found, facts, "")
    return ProvisionalResult(result) if gaps else result


def gaps_of(references: Sequence[Path]) -> list[str]:
    """The scenes that could not be read for some references."""
    found: set[str] = set()
    for file in references:
        found |= set(reference_facts(read_arrays(file))["gaps"])
    return sorted(found)


def reference_facts(archive: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """What a reference says of itself."""
    facts: dict[str, Any] = json.loads(str(archive["facts"]))
    return facts


@dataclass(frozen=True)
class Mosaic:
    """References of several tiles on the grid of a scene."""

    #: The pixels of the scene that it covers.
    window: Window
    #: (band, y, x) int16 and (y, x) uint8, in pixels of half the size.
    bands: NDArray[np.int16]
    dates: NDArray[np.uint8]
    frame_sd: float
    days: list[str]
    aligned: int


def mosaic_of(grid: GeoBox, tiles: Sequence[ProcessingTile], files: Sequence[Path]) -> Mosaic:
    """The references of some tiles on the grid of a scene.

    Raises UnmatchableError where none of its zone shows anything of it, or its pixels do not lie on theirs.
    """
    own = [(tile, file) for tile, file in zip(tiles, files, strict=True) if f"EPSG:{tile.epsg}" == str(grid.crs)]
    pixel = grid.affine.a / REFERENCE_FINER
    shape = (REFERENCE_FINER * grid.shape[0], REFERENCE_FINER * grid.shape[1])
    bands: NDArray[np.int16] = np.full((len(COMPARED_BANDS), *shape), REFLECTANCE_FILL, np.int16)
    dates: NDArray[np.uint8] = np.zeros(shape, np.uint8)
    days: set[str] = set()
    variances, aligned = [], 0
    for tile, file in own:
        archive = read_arrays(file)
        facts = reference_facts(archive)
        if not facts["dates"]:
            continue
        west, _, _, north = tile.bounds
        left, top = (west - grid.affine.c) / pixel, (grid.affine.f - north) / pixel
        if left % 1 or top % 1:
            raise UnmatchableError(
                f"its pixels begin at {grid.affine.c:g}, {grid.affine.f:g}, not at a multiple of {pixel:g} m: it "
                "cannot be matched with Sentinel-2"
            )
        target, source = common_part(shape, archive["dates"].shape, (int(top), int(left)))
        dates[target] = archive["dates"][source]
        bands[:, *target] = archive["bands"][:, *source]
        days |= set(facts["dates"])
        variances.append(facts["frame_sd"] ** 2)
        aligned = max(aligned, facts["aligned"])
    if not dates.any():
        raise UnmatchableError(
            "no clear Sentinel-2 date with all bands of the match over its cells in the zone of the scene"
        )
    rows, columns = (np.flatnonzero(dates.any(axis=axis)) // REFERENCE_FINER for axis in (1, 0))
    top, bottom, left, right = (int(number) for number in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    inside = (
        slice(REFERENCE_FINER * top, REFERENCE_FINER * bottom),
        slice(REFERENCE_FINER * left, REFERENCE_FINER * right),
    )
    window = Window(left, top, right - left, bottom - top)
    # Tiles share their dates: what these lie off does not average out.
    frame_sd = float(np.sqrt(np.mean(variances)))
    return Mosaic(window, bands[:, *inside], dates[inside], frame_sd, sorted(days), aligned)


def common_part(
    target: Sequence[int], source: Sequence[int], corner: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Rows and columns that an array shares with another whose corner lies at a place of it, in both."""
    ends = [
        (max(0, first), min(whole, first + size)) for whole, size, first in zip(target, source, corner, strict=True)
    ]
    here = tuple(slice(first, max(first, last)) for first, last in ends)
    there = tuple(slice(one.start - first, one.stop - first) for one, first in zip(here, corner, strict=True))
    return here, there


def seen_by_sentinel2(values: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.int16]:
    """Means (6, y, x) of reflectance x 10000 of bands (band, y, x), weights (6, band); fill where one they need is."""
    seen: NDArray[np.int16] = np.full((len(weights), *values.shape[1:]), REFLECTANCE_FILL, np.int16)
    missing = values == REFLECTANCE_FILL
    for place, row in enumerate(weights):
        counted = row > 0
        # Sums of numpy, unlike products of matrices, are the same on any machine.
        mean = (row[counted, None, None].astype(np.float32) * values[counted].astype(np.float32)).sum(axis=0)
        seen[place] = np.where(missing[counted].any(axis=0), np.float32(REFLECTANCE_FILL), np.rint(mean))
    return seen


def figures_of(measured: DetectorShift, origin: GeoBox) -> dict[str, Any]:
    """The measurement of one detector as plain data, metres in whole centimetres. origin: the scene's pixels."""
    windows = measured.windows
    x, y = origin.affine @ tuple(windows.centres.T)
    rows = np.column_stack([x, y, windows.shifts, windows.correlation, windows.pixels])
    figures = {
        "east": measured.shift.east,
        "north": measured.shift.north,
        "sd_east": measured.total_sd[0],
        "sd_north": measured.total_sd[1],
        "match_sd_east": measured.match_sd[0],
        "match_sd_north": measured.match_sd[1],
        "check_east": measured.check.east,
        "check_north": measured.check.north,
        "correlation": measured.correlation,
        "clear": measured.clear,
    }
    return {
        **{name: round(float(value), FIGURE_DIGITS) if isfinite(value) else None for name, value in figures.items()},
        "windows": np.round(rows, WINDOW_DIGITS).tolist(),
        "reason": measured.reason,
    }


def match_as_json(detectors: Mapping[str, Any], reference: Mapping[str, Any], reason: str) -> bytes:
    """The result of a unit."""
    return json.dumps({"detectors": detectors, "reference": reference, "reason": reason}, sort_keys=True).encode()


def scene_view(item: pystac.Item, grid: GeoBox, window: Window) -> SceneView:
    """What a scene shows in a window, seen by the bands of Sentinel-2.

    Raises UnmatchableError, SceneError, ReadError.
    """
    product = metadata_of(item)
    centres = np.array([band.wavelength for band in product.bands])
    try:
        weights = sentinel2_weights(centres, np.array([band.fwhm for band in product.bands]))
    except SceneError as error:
        raise UnmatchableError(str(error)) from error
    counted = np.asarray(weights.any(axis=0), bool)
    used = [band for band, is_used in zip(product.bands, list(counted), strict=True) if is_used]
    numbers, _ = read_window(item.assets["image"].href, window, [band.number for band in used])
    values = enmap_reflectance(numbers, used, image_of(item, product).nodata)
    flags = read_flags(item, grid, window)
    return SceneView(
        seen_by_sentinel2(values, weights[:, counted]),
        clear=(flags & UNCLEAR) == 0,
        water=(flags & ENMAP_FLAGS["water"]) != 0,
    )


@dataclass(frozen=True)
class SceneMatch:
    """What a unit found of a scene."""

    #: Detector -> figures: `reason`, which is empty where its shift is to be trusted, those of FIGURES, `windows`.
    detectors: Mapping[str, Mapping[str, Any]]
    #: `dates`, `aligned`, `frame_sd`, `gaps`.
    reference: Mapping[str, Any]
    #: Why nothing was matched; empty where something was.
    reason: str = ""

    @property
    def doubt(self) -> str:
        """What became of it where some shift is not to be trusted; empty where all are."""
        if self.reason:
            return f"not_measured: {self.reason}"
        doubts = [f"{name}: {one['reason']}" for name, one in self.detectors.items() if one["reason"]]
        return f"rejected: {'; '.join(doubts)}" if doubts else ""

    def shift(self, detector: str) -> Shift:
        """The shift of a detector as it was measured."""
        return Shift(self.detectors[detector]["east"], self.detectors[detector]["north"])


NOT_MATCHED = SceneMatch({}, {}, "the recipe has no Sentinel-2")


@dataclass(frozen=True)
class MatchDecision:
    """The decision on the shift of a scene."""

    #: APPLIED, NOT_NEEDED, MATCH_REPORTED; OF_DATATAKE, `rejected` or `not_measured` with why.
    text: str
    #: Detector -> the shift that is made good.
    shifts: Mapping[str, Shift]


def scene_match(result: bytes) -> SceneMatch:
    """What `match_scene` gave."""
    return SceneMatch(**json.loads(result))


def decided(match: SceneMatch, settings: EnmapSettings, others: Sequence[SceneMatch] = ()) -> MatchDecision:
    """The decision on the shift of a scene. others: of the same datatake."""
    nothing = dict.fromkeys(DETECTORS, NO_SHIFT)
    if settings.coregistration == "report":
        return MatchDecision(match.doubt or MATCH_REPORTED, nothing)
    if match.doubt:
        lent = lent_shifts(others) if settings.unmatched == "datatake" else None
        if lent is not None and farthest(lent) > settings.coregistration_limit:
            return MatchDecision(f"{OF_DATATAKE}: {match.doubt}", lent)
        return MatchDecision(match.doubt, nothing)
    shifts = {name: match.shift(name) for name in DETECTORS}
    if farthest(shifts) <= settings.coregistration_limit:
        return MatchDecision(NOT_NEEDED, nothing)
    return MatchDecision(APPLIED, shifts)


def farthest(shifts: Mapping[str, Shift]) -> float:
    """The length of the longest shift in metres."""
    return max(hypot(one.east, one.north) for one in shifts.values())


def lent_shifts(others: Sequence[SceneMatch]) -> dict[str, Shift] | None:
    """The median shift of each detector over tiles of a datatake; None where fewer than two are known or differ."""
    trusted = [one for one in others if not one.doubt]
    if len(trusted) < 2:
        return None
    lent = {}
    for name in DETECTORS:
        east, north = ([getattr(one.shift(name), axis) for one in trusted] for axis in ("east", "north"))
        if max(np.ptp(east), np.ptp(north)) > SMALL_SPREAD:
            return None
        lent[name] = Shift(round(median(east), 2), round(median(north), 2))
    return lent


def match_columns(match: SceneMatch, decision: MatchDecision) -> dict[str, Any]:
    """The columns of samples on the match of their scene."""
    columns: dict[str, Any] = {"enmap_match": decision.text}
    windows = []
    for name in DETECTORS:
        found = match.detectors.get(name, {})
        columns |= {f"enmap_{name}_{figure}": as_float(found.get(figure)) for figure, _, _ in FIGURES}
        windows += [f"{name} {window_in_words(*window)}" for window in found.get("windows", [])]
    return columns | {
        MATCH_WINDOWS: windows,
        "enmap_reference": list(match.reference.get("dates", [])),
        REFERENCE_GAPS: list(match.reference.get("gaps", [])),
        "enmap_reference_aligned": as_float(match.reference.get("aligned")),
        "enmap_reference_sd": as_float(match.reference.get("frame_sd")),
    }


def as_float(number: float | None) -> float | None:
    """A number of a column of numbers, which no whole number makes one of integers."""
    return None if number is None else float(number)


def window_in_words(x: float, y: float, east: float, north: float, correlation: float, pixels: float) -> str:
    """A window as the index has it."""
    return f"{x:.0f} {y:.0f} {east:.2f} {north:.2f} {correlation:.2f} {pixels:.0f}"
