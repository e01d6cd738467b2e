"""Sentinel-2 granules of one pass, drawn piece by piece: L2A, SCL, L1C, and the truth behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.grid import transformer
from h2crop_data.simulate.files import CogWriter
from h2crop_data.simulate.ground import Bounds, RegionGround, layers_on_ground
from h2crop_data.simulate.optics import FINE_GROUND, margin, sample, sampling
from h2crop_data.simulate.overpasses import Sentinel2Pass
from h2crop_data.simulate.plants.spectra import ENDMEMBERS, WAVELENGTHS, endmember_spectra
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI, sentinel2_response
from h2crop_data.simulate.sentinel2.classification import BrightGround, patchy_classes, systematic_classes
from h2crop_data.simulate.sentinel2.noise import with_noise
from h2crop_data.simulate.sentinel2.pieces import Piece, pieces
from h2crop_data.simulate.settings import ClassificationErrors, Sentinel2Archive
from h2crop_data.simulate.sky.atmosphere import (
    Bands,
    at_ground,
    bands_of,
    corrected,
    in_shade,
    top_of_atmosphere,
    with_aerosol,
)
from h2crop_data.simulate.sky.weather import SKY_LAYERS, Weather, aerosol_over, half_percents, weather_over

#: Pixel size of each band in metres.
PIXEL = {band: 10 if band in ("B02", "B03", "B04", "B08") else 20 for band in SENTINEL2_MSI} | dict.fromkeys(
    ("B01", "B09", "B10"), 60
)
#: Metres the end of a swath runs east with each metre north: 13 degrees from north.
SWATH_SLOPE = 0.23
#: Size in metres of the pixels of the truth of aerosol, which hardly changes over a region.
AEROSOL_PIXEL = 60
#: Metres east and north by which an image lies off the ground: what is at (x, y) appears at (x + east, y + north).
EastNorth = tuple[float, float]
IN_PLACE: EastNorth = (0.0, 0.0)
#: Shifted images need more ground around them; it is taken in steps of this many metres, so that dates share it.
SHIFT_ROOM = 30


@dataclass(frozen=True)
class Output:
    """One granule to write: a tile's part of the region, processed to one level and baseline."""

    folder: Path
    bounds: Bounds
    #: L2A or L1C.
    level: str
    #: Added to reflectance x 10000.
    offset: int
    #: File name of each band (and SCL).
    files: dict[str, str]
    #: The offset was taken out again by the archive: what was below 1 became 1.
    removed: bool = False
    shift: EastNorth = IN_PLACE

    def shows(self, piece: Piece) -> bool:
        """Whether some of a piece lies in the granule."""
        west, south, east, north = self.bounds
        left, low, right, high = piece.bounds
        return west < right and left < east and south < high and low < north


@dataclass(frozen=True)
class TruthFiles:
    """Where the truth of a pass goes; `surface` False leaves reflectance out."""

    folder: Path
    surface: bool


@dataclass(frozen=True)
class SwathEdge:
    """Where the easting of a pass's `swath_end` is measured: at a northing of a zone; the edge runs aslant."""

    epsg: int
    middle: float


@lru_cache(maxsize=1)
def msi_bands() -> tuple[NDArray[np.float64], Bands]:
    """Reflectance of the endmembers in the 13 bands (endmember, band), and what the sky does in them."""
    spectra, response = endmember_spectra().astype(np.float64), sentinel2_response()
    return spectra @ response, bands_of(WAVELENGTHS, response, spectra[ENDMEMBERS.index("snow")])


def part_of_bands(bands: Bands, wanted: list[int]) -> Bands:
    """Some of the bands."""
    return Bands(**{name: values[wanted] for name, values in vars(bands).items()})


@dataclass
class PieceImage:
    """What the instrument sees of a piece, without noise; each (band, y, x) float32 by pixel size."""

    #: Without clouds and snow, as L2A shows it under a clear sky: the truth.
    surface: dict[int, NDArray[np.float32]]
    #: With snow and shadows.
    ground: dict[int, NDArray[np.float32]]
    weather: dict[int, Weather]


def bands_of_size(size: int) -> list[str]:
    """The bands of a pixel size, in order."""
    return [band for band in SENTINEL2_MSI if PIXEL[band] == size]


def draw_piece(
    ground: RegionGround, look: Sentinel2Pass, piece: Piece, sizes: list[int], shifts: Collection[EastNorth]
) -> dict[EastNorth, PieceImage]:
    """A piece on a day, in all bands of some pixel sizes: an image for each way it may lie off the ground.

    Woods and houses move with their shadows; clouds, their shadows, haze and snow are where the sky has them.
    """
    endmembers, sky_bands = msi_bands()
    x, y = piece.centres(10)
    reach = margin(max(sizes), room_for(shifts))
    fine = ground.window(piece.epsg, (x[0], x[-1]), (y[0], y[-1]), reach)
    tables = ground.spectra(look.moment.date(), fine.objects, endmembers)
    shade = fine.shade(look.sun)
    weather = {10: weather_over(look.sky, x, y)}
    images = {shift: PieceImage({}, {}, weather) for shift in shifts}
    for size in sizes:
        wanted = [SENTINEL2_MSI.index(band) for band in bands_of_size(size)]
        bands = part_of_bands(sky_bands, wanted)
        layers = layers_on_ground(fine, ground.roughness, tables, wanted)
        if shade is not None:
            layers = in_shade(layers, shade, bands.diffuse)
        across, down = piece.centres(size)
        weather.setdefault(size, coarser(weather[10], size // 10))
        for shift, image in images.items():
            east, north = shift
            surface = sample(layers, sampling(down - north, size, fine.y), sampling(across - east, size, fine.x))
            shades = None if shade is None else shade_of_pixels(shade, x, y, reach, size, shift)
            image.ground[size] = at_ground(surface, weather[size], bands, shades)
            aerosol = weather[size].aerosol
            image.surface[size] = surface if aerosol is None else with_aerosol(surface, aerosol, bands)
    return images


def room_for(shifts: Collection[EastNorth]) -> int:
    """Metres of ground that images need on all sides to be shifted."""
    return math.ceil(max(abs(part) for shift in shifts for part in shift) / SHIFT_ROOM) * SHIFT_ROOM


def shade_of_pixels(
    shade: NDArray[np.float32],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    reach: int,
    size: int,
    shift: EastNorth,
) -> NDArray[np.float32]:
    """Mean shade (y, x) of pixels of a size, from that of fine ground which reaches `reach` metres beyond the centres
    of the pixels of 10 m at columns x and rows y of an image that is shifted."""
    first, (east, north) = (reach - 5) // FINE_GROUND, shift
    rows = rows_from(shade, first + north / FINE_GROUND, 10 * len(y) // FINE_GROUND)
    fine = rows_from(rows.T, first - east / FINE_GROUND, 10 * len(x) // FINE_GROUND).T
    return mean_of_blocks(fine, size // FINE_GROUND)


def rows_from(field: NDArray[np.float32], start: float, number: int) -> NDArray[np.float32]:
    """Some rows of a field, evenly mixed of two neighbours where the first is to start between two."""
    whole = math.floor(start)
    rows = field[whole : whole + number]
    if start == whole:
        return rows
    return np.asarray(rows + np.float32(start - whole) * (field[whole + 1 : whole + 1 + number] - rows), np.float32)


def coarser(weather: Weather, times: int) -> Weather:
    """Weather over pixels `times` as large: the mean."""
    fields = vars(weather).items()
    return replace(weather, **{name: mean_of_blocks(field, times) for name, field in fields if field is not None})


def mean_of_blocks(field: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """A field (y, x) over pixels `times` as large."""
    rows, columns = field.shape[0] // times, field.shape[1] // times
    blocks = field.reshape(rows, times, columns, times)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def numbers_in_file(values: NDArray[np.float32], offset: int, removed: bool) -> NDArray[np.uint16]:
    """The numbers of a file; 0 is kept for nodata, and where the archive took an offset out, what lay below 1 is 1."""
    numbers = (np.rint(values * 10000) + (1000 if removed else offset)).clip(1, 65535)
    return (np.maximum(numbers - 1000, 1) if removed else numbers).astype(np.uint16)


#: The scene classification (y, x) at 20 m of a piece; the second argument is what is seen of it in the bands of 10 m.
Classifier = Callable[["PieceImage", NDArray[np.float32], "Piece"], NDArray[np.uint8]]


def classifier(
    ground: RegionGround, look: Sentinel2Pass, settings: Sentinel2Archive, errors: ClassificationErrors | None
) -> Classifier:
    """What classifies the pieces of a pass."""
    if errors is None:

        def patchy(image: PieceImage, ten: NDArray[np.float32], piece: Piece) -> NDArray[np.uint8]:
            return patchy_classes(look.sky, image_weather(image, 20), ten, *piece.centres(20), settings.scl_errors)

        return patchy
    endmembers, _ = msi_bands()
    blue = endmembers[:, [SENTINEL2_MSI.index("B02")]]
    shares = (errors.bright_ground, min(1.0, errors.bright_ground + errors.unclassified_ground))
    bright = BrightGround(*ground.brightest(look.moment.date(), shares, blue))

    def systematic(image: PieceImage, ten: NDArray[np.float32], piece: Piece) -> NDArray[np.uint8]:
        weather, surface = image_weather(image, 20), image.surface[10][0]
        x, y = piece.centres(20)
        return systematic_classes(look.sky, weather, ten, surface, x, y, errors, bright, settings.scl_errors)

    return systematic


def beyond_swath(look: Sentinel2Pass, piece: Piece, size: int, edge: SwathEdge) -> NDArray[np.bool_]:
    """Whether pixels (y, x) lie beyond the end of the swath."""
    x, y = piece.centres(size)
    if look.swath_end is None:
        return np.zeros((len(y), len(x)), bool)
    east, north = np.meshgrid(x, y)
    if piece.epsg != edge.epsg:
        east, north = transformer(f"EPSG:{piece.epsg}", f"EPSG:{edge.epsg}").transform(east, north)
    beyond: NDArray[np.bool_] = east > look.swath_end + SWATH_SLOPE * (north - edge.middle)
    return beyond


def write_pass(
    ground: RegionGround,
    look: Sentinel2Pass,
    epsg: int,
    bounds: Bounds,
    outputs: list[Output],
    truth: TruthFiles | None,
    settings: Sentinel2Archive,
    edge: SwathEdge,
    errors: ClassificationErrors | None = None,
) -> list[dict[int, int]]:
    """Draw a pass over some bounds of a zone and write its granules; gives the pixels of each SCL class of each.

    Counts are empty for L1C. errors: of the scene classification of natural ground; None: only random ones.
    """
    classify = classifier(ground, look, settings, errors)
    levels = {output.level for output in outputs}
    sizes = [10, 20] + ([60] if "L1C" in levels else [])
    counts: list[dict[int, int]] = [{} for _ in outputs]
    with ExitStack() as stack:
        files = [open_output(stack, output, epsg) for output in outputs]
        truths = open_truth(stack, truth, epsg, bounds, any(look.sky.aerosol)) if truth else {}
        for piece in pieces(epsg, bounds):
            shown = [one for one in zip(outputs, files, counts, strict=True) if one[0].shows(piece)]
            # The truth is the ground where it is.
            shifts = {output.shift for output, _, _ in shown} | ({IN_PLACE} if truth else set())
            if not shifts:
                continue
            images = draw_piece(ground, look, piece, sizes, sorted(shifts))
            if truth:
                write_piece_truth(truths, images[IN_PLACE], look, piece)
            seen = {
                (level, shift): seen_at(level, images[shift], look, piece, settings, ground.seed, classify)
                for level, shift in sorted({(output.level, output.shift) for output, _, _ in shown})
            }
            for output, writers, count in shown:
                bands = seen[output.level, output.shift]
                write_piece(output, writers, bands, look, piece, edge)
                if "SCL" in writers:
                    tally(count, bands["SCL"], output, piece, beyond_swath(look, piece, 20, edge))
    return counts


def seen_at(
    level: str,
    image: PieceImage,
    look: Sentinel2Pass,
    piece: Piece,
    settings: Sentinel2Archive,
    seed: int,
    classify: Classifier,
) -> dict[str, NDArray[Any]]:
    """Reflectance of each band of a level with noise (y, x), and for L2A the scene classification."""
    _, sky_bands = msi_bands()
    seen: dict[str, NDArray[Any]] = {}
    for size, ground in image.ground.items():
        names = bands_of_size(size)
        bands = part_of_bands(sky_bands, [SENTINEL2_MSI.index(band) for band in names])
        if level == "L1C":
            values = top_of_atmosphere(ground, image.weather[size], bands, look.sun)
        elif size == 60:
            continue
        else:
            values = corrected(ground, image.weather[size], bands)
        noisy = with_noise(values, piece, size, settings.noise, seed, f"{look.name}/{level}")
        seen |= dict(zip(names, noisy, strict=True))
        if level == "L2A" and size == 10:
            seen["SCL"] = classify(image, noisy, piece)
    return seen


def image_weather(image: PieceImage, size: int) -> Weather:
    """The weather at a pixel size."""
    return image.weather.setdefault(size, coarser(image.weather[10], size // 10))


def open_output(stack: ExitStack, output: Output, epsg: int) -> dict[str, CogWriter]:
    """A writer for each file of a granule."""
    writers = {}
    for band, name in output.files.items():
        classes = band == "SCL"
        writers[band] = stack.enter_context(
            CogWriter(
                output.folder / name,
                epsg,
                output.bounds,
                20 if classes else PIXEL[band],
                "uint8" if classes else "uint16",
                nodata=0,
                resampling="nearest" if classes else "average",
            )
        )
    return writers


def write_piece(
    output: Output,
    writers: dict[str, CogWriter],
    seen: dict[str, NDArray[Any]],
    look: Sentinel2Pass,
    piece: Piece,
    edge: SwathEdge,
) -> None:
    """Write a piece into the files of a granule."""
    west, _, _, north = piece.bounds
    for band, writer in writers.items():
        size = 20 if band == "SCL" else PIXEL[band]
        pixels = seen[band] if band == "SCL" else numbers_in_file(seen[band], output.offset, output.removed)
        writer.write(np.where(beyond_swath(look, piece, size, edge), 0, pixels).astype(pixels.dtype), west, north)


def tally(
    count: dict[int, int], classes: NDArray[np.uint8], output: Output, piece: Piece, beyond: NDArray[np.bool_]
) -> None:
    """Add the classes of the part of a piece that lies in a granule."""
    x, y = piece.centres(20)
    west, south, east, north = output.bounds
    inside = ((x > west) & (x < east))[None, :] & ((y > south) & (y < north))[:, None]
    values, pixels = np.unique(np.where(beyond, 0, classes)[inside], return_counts=True)
    for value, number in zip(values.tolist(), pixels.tolist(), strict=True):
        count[value] = count.get(value, 0) + number


def open_truth(stack: ExitStack, truth: TruthFiles, epsg: int, bounds: Bounds, aerosol: bool) -> dict[str, CogWriter]:
    """Writers of the truth: the sky at 10 m, the surface under a clear sky at 10 and 20 m, the aerosol in it."""
    writers = {
        "sky": CogWriter(
            truth.folder / "sky.tif", epsg, bounds, 10, "uint8", count=len(SKY_LAYERS), descriptions=SKY_LAYERS
        )
    }
    if truth.surface:
        for size in (10, 20):
            names = bands_of_size(size)
            path = truth.folder / f"surface_{size}m.tif"
            writers[f"surface_{size}"] = CogWriter(
                path, epsg, bounds, size, "int16", count=len(names), nodata=-32768, descriptions=names
            )
    if aerosol:
        writers["aerosol"] = CogWriter(truth.folder / "aerosol.tif", epsg, bounds, AEROSOL_PIXEL, "float32")
    for writer in writers.values():
        stack.enter_context(writer)
    return writers


def write_piece_truth(writers: dict[str, CogWriter], image: PieceImage, look: Sentinel2Pass, piece: Piece) -> None:
    """Write the truth of a piece."""
    west, _, _, north = piece.bounds
    for name, writer in writers.items():
        if name == "sky":
            writer.write(half_percents(image.weather[10]), west, north)
        elif name == "aerosol":
            writer.write(aerosol_over(look.sky, *piece.centres(AEROSOL_PIXEL)), west, north)
        else:
            surface = image.surface[int(name.removeprefix("surface_"))]
            writer.write(np.rint(surface * 10000).astype(np.int16), west, north)


def stored_bands(level: str) -> tuple[str, ...]:
    """The bands a level's granules have."""
    return SENTINEL2_MSI if level == "L1C" else (*SENTINEL2_BANDS, "SCL")
