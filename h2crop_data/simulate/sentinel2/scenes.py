"""Sentinel-2 granules of one pass, drawn piece by piece: L2A, SCL, L1C, and the truth behind them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
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
from h2crop_data.simulate.randomness import generator
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI, sentinel2_response
from h2crop_data.simulate.sentinel2.classification import BrightGround, patchy_classes, systematic_classes
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
#: Largest side in metres of what is drawn at a time, and of the squares of its noise; the latter a multiple of 60.
LARGEST_PIECE, NOISE_SQUARE = 2160, 480
#: Metres the end of a swath runs east with each metre north: 13 degrees from north.
SWATH_SLOPE = 0.23
#: Noise of a band: a floor by pixel size, and a part of the reflectance (ratio of signal to noise about 150 at 0.3).
#: Large pixels are quieter: the band at 1375 nm of real clear ground stays within 0.0005 of its mean.
NOISE_FLOOR, NOISE_PART = {10: 0.0008, 20: 0.0008, 60: 0.0003}, 0.004
#: Size in metres of the pixels of the truth of aerosol, which hardly changes over a region.
AEROSOL_PIXEL = 60


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


@dataclass(frozen=True)
class Piece:
    """A part of what is drawn, drawn at a time."""

    epsg: int
    bounds: Bounds

    def centres(self, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Easting of columns and northing of rows of pixels of a size."""
        west, south, east, north = self.bounds
        return np.arange(west + size / 2, east, size), np.arange(north - size / 2, south, -size)


def pieces(epsg: int, bounds: Bounds) -> Iterator[Piece]:
    """The pieces of some bounds (multiples of 60 m), about equal, row by row from the north."""
    west, south, east, north = bounds
    for low, high in reversed(list(cuts(south, north))):
        for left, right in cuts(west, east):
            yield Piece(epsg, (left, low, right, high))


def cuts(low: int, high: int) -> Iterator[tuple[int, int]]:
    """A length cut at multiples of 60 m into parts of at most LARGEST_PIECE."""
    number = math.ceil((high - low) / LARGEST_PIECE)
    edges = [low + 60 * round((high - low) / 60 * i / number) for i in range(number + 1)]
    yield from itertools.pairwise(edges)


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


def draw_piece(ground: RegionGround, look: Sentinel2Pass, piece: Piece, sizes: list[int]) -> PieceImage:
    """A piece on a day, in all bands of some pixel sizes."""
    endmembers, sky_bands = msi_bands()
    x, y = piece.centres(10)
    fine = ground.window(piece.epsg, (x[0], x[-1]), (y[0], y[-1]), margin(max(sizes)))
    tables = ground.spectra(look.moment.date(), fine.objects, endmembers)
    shade, shades = fine.shade(look.sun), {}
    if shade is not None:
        shades = {size: shade_of_pixels(shade, x, y, margin(max(sizes)), size) for size in sizes}
    weather = {10: weather_over(look.sky, x, y)}
    image = PieceImage({}, {}, weather)
    for size in sizes:
        wanted = [SENTINEL2_MSI.index(band) for band in bands_of_size(size)]
        bands = part_of_bands(sky_bands, wanted)
        layers = layers_on_ground(fine, ground.roughness, tables, wanted)
        if shade is not None:
            layers = in_shade(layers, shade, bands.diffuse)
        across, down = piece.centres(size)
        weather.setdefault(size, coarser(weather[10], size // 10))
        surface = sample(layers, sampling(down, size, fine.y), sampling(across, size, fine.x))
        image.ground[size] = at_ground(surface, weather[size], bands, shades.get(size))
        aerosol = weather[size].aerosol
        image.surface[size] = surface if aerosol is None else with_aerosol(surface, aerosol, bands)
    return image


def shade_of_pixels(
    shade: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64], reach: int, size: int
) -> NDArray[np.float32]:
    """Mean shade (y, x) of pixels of a size, from that of fine ground which reaches `reach` metres beyond the centres
    of the pixels of 10 m at columns x and rows y."""
    first = (reach - 5) // FINE_GROUND
    fine = shade[first : first + 10 * len(y) // FINE_GROUND, first : first + 10 * len(x) // FINE_GROUND]
    return mean_of_blocks(fine, size // FINE_GROUND)


def coarser(weather: Weather, times: int) -> Weather:
    """Weather over pixels `times` as large: the mean."""
    fields = vars(weather).items()
    return replace(weather, **{name: mean_of_blocks(field, times) for name, field in fields if field is not None})


def mean_of_blocks(field: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """A field (y, x) over pixels `times` as large."""
    rows, columns = field.shape[0] // times, field.shape[1] // times
    blocks = field.reshape(rows, times, columns, times)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def with_noise(
    values: NDArray[np.float32], piece: Piece, size: int, factor: float, seed: int, name: str
) -> NDArray[np.float32]:
    """Reflectance (band, y, x) with the instrument's noise: the same in every tile that shows the piece."""
    if not factor:
        return values
    noise = noise_over(piece, size, len(values), seed, name)
    return np.asarray(values + factor * noise * (NOISE_FLOOR[size] + NOISE_PART * np.abs(values)), np.float32)


def noise_over(piece: Piece, size: int, layers: int, seed: int, name: str) -> NDArray[np.float32]:
    """Standard normal noise over a piece (layer, y, x), drawn square by square of a lattice from the zone's origin."""
    west, south, east, north = piece.bounds
    columns = range(west // NOISE_SQUARE, -(-east // NOISE_SQUARE))
    rows = range(-(-north // NOISE_SQUARE) - 1, south // NOISE_SQUARE - 1, -1)
    side = NOISE_SQUARE // size
    noise = np.empty((layers, len(rows) * side, len(columns) * side), np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            chance = generator(seed, "noise", name, piece.epsg, column, row, size)
            square = chance.standard_normal((layers, side, side), np.float32)
            noise[:, i * side : (i + 1) * side, j * side : (j + 1) * side] = square
    top, left = ((rows[0] + 1) * NOISE_SQUARE - north) // size, (west - columns[0] * NOISE_SQUARE) // size
    return noise[:, top : top + (north - south) // size, left : left + (east - west) // size]


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
            image = draw_piece(ground, look, piece, sizes)
            write_piece_truth(truths, image, look, piece)
            seen = {
                level: seen_at(level, image, look, piece, settings, ground.seed, classify) for level in sorted(levels)
            }
            for output, writers, count in zip(outputs, files, counts, strict=True):
                write_piece(output, writers, seen[output.level], look, piece, edge)
                if "SCL" in writers:
                    tally(count, seen["L2A"]["SCL"], output, piece, beyond_swath(look, piece, 20, edge))
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
