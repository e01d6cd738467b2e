"""A sample's layers as images and curves: pure functions on arrays, rows from north to south as in the store."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_hex, to_rgba
from numpy.typing import NDArray
from PIL import Image

from h2crop_data.constants import ENMAP_FLAGS, ENMAP_MASK_FLAGS, OBSCURED_BY_OWN, UNKNOWN
from h2crop_data.enmap.detectors import enmap_detectors
from h2crop_data.errors import SceneError

#: "#rrggbb"
Color = str
Line = tuple[tuple[float, float], tuple[float, float]]

#: Sentinel-2 bands shown as red, green and blue.
TRUE_COLOUR = ("B04", "B03", "B02")
#: Wavelengths in nm shown as red, green and blue: vegetation is red, as in colour infrared photographs.
FALSE_COLOUR = (860.0, 650.0, 550.0)
#: Wavelengths in nm of green, red and near infrared for the indices of EnMAP.
GREEN, RED, NEAR_INFRARED = 560.0, 660.0, 860.0
#: Share of the values in percent that a stretch cuts at its dark and at its bright end.
CUT = 2.0
#: Bands are not joined by a line where their step is so many times the usual one (EnMAP's own are 5 to 13 nm).
SPECTRAL_GAP = 2.5
#: What mean spectra are drawn of; `land_kinds` tells how they are found.
LAND_KINDS = ("whole cell", "vegetation (NDVI > 0.5)", "bare or built (NDVI 0.05 to 0.3)", "water (NDWI > 0.1)")
#: A land kind with fewer pixels is not shown.
LEAST_PIXELS = 5
#: Bands of the running median whose range a plot of spectra has, and from how many bands on it is taken.
SPIKE_BANDS, MANY_BANDS = 7, 70
#: Flags whose pixels are kept out of the mean spectra.
OBSCURED = tuple(name for name in ENMAP_FLAGS if name not in ("water", "interpolated", "reduced_quality"))

#: What our own mask alone says: paler than the same of the quality layers.
OWN_COLOURS: dict[str, Color] = {"cloud_shadow": "#b9a6d3", "cloud": "#f2a7c0"}

#: Class colours in order of use: strong ones first, then their light partners; no grey, which means background.
CLASS_COLOURS: tuple[Color, ...] = (
    *("#e8a91c", "#3a9a4b", "#3f76b5", "#b5533c", "#8a63b8", "#2fb3b0", "#d96fa8", "#8c6a3f", "#b9cf3a", "#1f4e79"),
    *("#f4d58a", "#a6dba0", "#a9cbea", "#edb4a0", "#cdb9e6", "#a8e3df", "#f3c1dc", "#cfb99a", "#e4eda6", "#7d1f3a"),
    *("#5f7f0f", "#0f6b62", "#c77f00", "#5b3a8c"),
)
#: What a pixel with several flags shows: the first of these; and its colour.
FLAG_COLOURS: dict[str, Color] = {
    "outside": "#bdbdbd",
    "defective": "#222222",
    "cloud": "#e0457b",
    "cloud_shadow": "#6b4c9a",
    "cirrus_thick": "#14796b",
    "snow": "#a8d8ff",
    "haze": "#e7b04b",
    "cirrus_medium": "#3fb8a5",
    "saturated": "#ff5a1f",
    "artefact": "#b8860b",
    "low_quality": "#8b3a62",
    "water": "#5aa0e0",
    "cirrus_thin": "#9fe0d0",
    "reduced_quality": "#c9a0dc",
    "interpolated": "#d8c3a5",
}


def true_colour(bands: Sequence[str]) -> tuple[str, ...]:
    """The bands shown as red, green and blue: B04, B03, B02, or the store's first ones where it lacks these."""
    if set(TRUE_COLOUR) <= set(bands):
        return TRUE_COLOUR
    return tuple(bands[:3]) if len(bands) >= 3 else (bands[0],) * 3


def nearest_bands(wavelengths: NDArray[Any], targets: Sequence[float] = FALSE_COLOUR) -> list[int]:
    """The band nearest to each target wavelength (nm)."""
    return [int(np.abs(wavelengths - target).argmin()) for target in targets]


def stretch_limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Reflectance shown as black and as white: what cuts 2 % of the measured values at either end."""
    measured = values[np.isfinite(values)]
    if not len(measured):
        return 0.0, 1.0
    low, high = np.percentile(measured, (CUT, 100 - CUT))
    return float(low), float(high) if high > low else float(low) + 1e-4


def picture_of(bands: NDArray[np.float32], limits: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """Reflectance (3, y, x) as an image (y, x, RGBA) from 0 to 1; pixels without a measurement are transparent.

    limits: reflectance shown as black and as white, for red, green and blue.
    """
    low, high = (np.array(ends, np.float32)[:, None, None] for ends in zip(*limits, strict=True))
    measured = np.isfinite(bands).all(axis=0)
    image = np.zeros((*bands.shape[1:], 4), np.float32)
    shown = np.clip((np.nan_to_num(bands) - low) / (high - low), 0, 1)
    image[..., :3] = np.moveaxis(np.where(measured, shown, 0), 0, -1)
    image[..., 3] = measured
    return image


def fewer_colours(images: Sequence[NDArray[np.float32]], colours: int) -> list[NDArray[np.float32]]:
    """Images (y, x, RGBA) of one size with at most so many colours between them; which pixels are clear stays."""
    wide = np.concatenate(images, axis=1)
    pixels = Image.fromarray(np.round(wide[..., :3] * 255).astype(np.uint8))
    reduced = np.asarray(pixels.quantize(colours, kmeans=2, dither=Image.Dither.NONE).convert("RGB"), np.float32) / 255
    whole = np.concatenate([reduced, wide[..., 3:]], axis=2)
    return np.split(whole, len(images), axis=1)


def class_colours(tiers: NDArray[np.uint8], prior: NDArray[np.uint8] | None = None) -> list[dict[int, Color]]:
    """A colour for each class present at each tier; a class that refines another takes over its colour.

    tiers: (tier, y, x) labels. Of the classes that refine one, the largest has its colour and the others new ones.
    prior: (y, x) labels of the last tier, whose classes get colours too.
    """
    colours: list[dict[int, Color]] = []
    for tier, labels in enumerate(tiers):
        chosen: dict[int, Color] = {}
        fresh = list(CLASS_COLOURS)
        waiting = []
        for number, _ in classes_by_size(labels):
            parent = most_frequent(tiers[tier - 1][labels == number]) if tier else UNKNOWN
            color = colours[tier - 1].get(parent) if tier else None
            if color is not None and color in fresh:
                chosen[number] = color
                fresh.remove(color)
            else:
                waiting.append(number)
        if prior is not None and tier == len(tiers) - 1:
            waiting += [number for number, _ in classes_by_size(prior) if number not in {*chosen, *waiting}]
        # New colours: those no tier above uses come first, so that they do not mean two things in one picture.
        used = {color for above in colours for color in above.values()}
        fresh.sort(key=lambda color: color in used)
        chosen |= {number: fresh[i] if i < len(fresh) else spare_colour(i) for i, number in enumerate(waiting)}
        colours.append(chosen)
    return colours


def spare_colour(number: int) -> Color:
    """A colour for a class beyond the palette: hues in steps of the golden ratio."""
    return to_hex(colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.45, 0.8))


def classes_by_size(labels: NDArray[Any]) -> list[tuple[int, int]]:
    """Classes (not background, not unknown) and their pixels, the largest first."""
    numbers, counts = np.unique(labels, return_counts=True)
    found = [(int(n), int(c)) for n, c in zip(numbers, counts, strict=True) if 0 < n < UNKNOWN]
    return sorted(found, key=lambda item: (-item[1], item[0]))


def most_frequent(numbers: NDArray[np.uint8]) -> int:
    """The number that occurs most."""
    return int(np.bincount(numbers).argmax())


def class_map(labels: NDArray[np.uint8], colours: dict[int, Color], background: Color) -> NDArray[np.float32]:
    """Labels (y, x) as an image (y, x, RGBA); unknown pixels (255) are transparent."""
    table = np.zeros((UNKNOWN + 1, 4), np.float32)
    for number, color in {0: background, **colours}.items():
        table[number] = to_rgba(color)
    return table[labels]


def flags_present(quality: NDArray[np.uint16]) -> list[tuple[str, float]]:
    """The flags set anywhere in (y, x) and the share of the pixels that have each, in the order of FLAG_COLOURS."""
    shares = [(name, float(((quality & ENMAP_FLAGS[name]) != 0).mean())) for name in FLAG_COLOURS]
    return [(name, share) for name, share in shares if share > 0]


def own_alone(mask: NDArray[np.uint8], quality: NDArray[np.uint16]) -> dict[str, NDArray[np.bool_]]:
    """Pixels (y, x) that `enmap_mask` calls cloud, and shadow, and that DLR's layers call neither, by flag."""
    free = (quality & (ENMAP_FLAGS["cloud"] | ENMAP_FLAGS["cloud_shadow"])) == 0
    return {name: free & ((mask & ENMAP_MASK_FLAGS[name]) != 0) for name in OWN_COLOURS}


def with_own_mask(
    image: NDArray[np.float32], mask: NDArray[np.uint8], quality: NDArray[np.uint16]
) -> NDArray[np.float32]:
    """A map of flags (y, x, RGBA), of `flag_map`, with what our own mask alone calls cloud or shadow."""
    shown = image.copy()
    for name, pixels in own_alone(mask, quality).items():
        shown[pixels] = to_rgba(OWN_COLOURS[name])
    return shown


def flag_map(quality: NDArray[np.uint16], unflagged: Color) -> NDArray[np.float32]:
    """Flags (y, x) as an image (y, x, RGBA); a pixel with several shows the first of them in FLAG_COLOURS."""
    image = np.empty((*quality.shape, 4), np.float32)
    image[:] = to_rgba(unflagged)
    for name, color in reversed(FLAG_COLOURS.items()):
        image[(quality & ENMAP_FLAGS[name]) != 0] = to_rgba(color)
    return image


def parcel_borders(parcels: NDArray[np.uint32], pixel: float) -> list[Line]:
    """Pixel edges between different parcels as lines ((x, y), (x, y)) in metres from the lower left corner.

    parcels: (y, x); pixel: its size in metres.
    """
    rows = len(parcels)
    lines: list[Line] = []
    for row, column in np.argwhere(parcels[:, 1:] != parcels[:, :-1]).tolist():
        x, y = (column + 1) * pixel, (rows - row) * pixel
        lines.append(((x, y), (x, y - pixel)))
    for row, column in np.argwhere(parcels[1:] != parcels[:-1]).tolist():
        x, y = column * pixel, (rows - row - 1) * pixel
        lines.append(((x, y), (x + pixel, y)))
    return lines


def ratio(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """The normalised difference (one - other) / (one + other), NaN where the sum is not positive."""
    total = one + other
    with np.errstate(invalid="ignore", divide="ignore"):
        index: NDArray[np.float32] = np.where(total > 0, (one - other) / total, np.float32(np.nan)).astype(np.float32)
    return index


def land_kinds(
    reflectance: NDArray[np.float32],
    wavelengths: NDArray[Any],
    quality: NDArray[np.uint16],
    mask: NDArray[np.uint8] | None = None,
) -> dict[str, NDArray[np.bool_]]:
    """Pixels (y, x) of simple kinds of land, of those that no flag obscures, nor cloud or shadow of our own mask.

    reflectance: (band, y, x). mask: (y, x), as ENMAP_MASK_FLAGS, if there is one. Vegetation: NDVI above 0.5; bare or
    built: NDVI 0.05 to 0.3; water: McFeeters' NDWI above 0.1 (Int. J. Remote Sensing 17, 1996). Kinds with fewer than
    five pixels are left out.
    """
    green, red, infrared = (reflectance[band] for band in nearest_bands(wavelengths, (GREEN, RED, NEAR_INFRARED)))
    seen = np.isfinite(reflectance).any(axis=0) & ((quality & sum(ENMAP_FLAGS[name] for name in OBSCURED)) == 0)
    if mask is not None:
        seen &= (mask & OBSCURED_BY_OWN) == 0
    ndvi, ndwi = ratio(infrared, red), ratio(green, infrared)
    found = (seen, seen & (ndvi > 0.5), seen & (ndvi > 0.05) & (ndvi < 0.3) & (ndwi <= 0.1), seen & (ndwi > 0.1))
    return {kind: pixels for kind, pixels in zip(LAND_KINDS, found, strict=True) if pixels.sum() >= LEAST_PIXELS}


def mean_spectrum(
    reflectance: NDArray[np.float32], wavelengths: NDArray[Any], pixels: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wavelengths (nm) and the mean reflectance of some pixels, with a NaN in each gap between distant bands."""
    values = reflectance[:, pixels]
    counts = np.isfinite(values).sum(axis=1)
    means = np.where(counts, np.nansum(values, axis=1, dtype=np.float64) / np.maximum(counts, 1), np.nan)
    after = [low for low, _ in gap_places(wavelengths)]
    x = np.insert(np.asarray(wavelengths, np.float64), [i + 1 for i in after], np.nan)
    return x, np.insert(means, [i + 1 for i in after], np.nan)


def bands_of_lines(wavelengths: NDArray[Any], widths: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Places of the bands, in order of wavelength, that one line of a spectrum goes through.

    Where the bands of EnMAP's detectors take turns each detector has a line: they differ by a few percent, and one line
    through both would zigzag. Else one goes through all.
    """
    everything = np.arange(len(wavelengths))
    try:
        detectors = np.array(enmap_detectors(wavelengths.tolist(), widths.tolist()))
    except SceneError:
        return [everything]
    vnir, swir = (everything[detectors == detector] for detector in ("vnir", "swir"))
    take_turns = len(vnir) and len(swir) and wavelengths[vnir].max() > wavelengths[swir].min()
    return [vnir, swir] if take_turns else [everything]


def spectra_range(spectra: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Lowest and highest reflectance of spectra (band,) with NaN, without bands of noise; 0 to 1 where there is none.

    Of spectra with many bands those of medians over SPIKE_BANDS neighbours: up to three bands of noise stand beyond.
    """
    half = SPIKE_BANDS // 2
    medians = []
    for spectrum in spectra:
        measured = spectrum[np.isfinite(spectrum)]
        if measured.size >= MANY_BANDS:
            padded = np.pad(measured, half, mode="reflect")
            medians.append(np.median(np.lib.stride_tricks.sliding_window_view(padded, SPIKE_BANDS), axis=-1))
        elif measured.size:
            medians.append(measured)
    if not medians:
        return 0.0, 1.0
    return float(min(one.min() for one in medians)), float(max(one.max() for one in medians))


def gap_places(wavelengths: NDArray[Any]) -> list[tuple[int, int]]:
    """The bands before and after each stretch of the spectrum that has none."""
    steps = np.diff(wavelengths)
    return [(int(i), int(i) + 1) for i in np.flatnonzero(steps > SPECTRAL_GAP * np.median(steps))]


def monthly_means(index: NDArray[np.float32], pixels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean over some pixels of (month, y, x) values in each month; NaN where none of them was measured."""
    values = index[:, pixels]
    counts = np.isfinite(values).sum(axis=1)
    return np.where(counts, np.nansum(values, axis=1, dtype=np.float64) / np.maximum(counts, 1), np.nan)
