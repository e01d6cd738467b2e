"""EnMAP tiles of one pass, drawn piece by piece: spectral image, quality layers, and the truth on the lattice.

A pixel's spectrum is linear in the endmembers, and so is what the instrument's optics do to it: the abundances of some
twenty endmembers are drawn and blurred, and only then become 224 bands.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import COARSE, REFLECTANCE_FILL
from h2crop_data.simulate.enmap.bands import enmap_bands, enmap_response
from h2crop_data.simulate.enmap.layer_errors import ERRORS_REACH, missed_layers, widened
from h2crop_data.simulate.files import CogWriter
from h2crop_data.simulate.ground import Bounds, RegionGround, layers_on_ground
from h2crop_data.simulate.optics import margin, sample, sampling
from h2crop_data.simulate.overpasses import EnmapPass
from h2crop_data.simulate.plants.spectra import ENDMEMBERS, WAVELENGTHS, endmember_spectra
from h2crop_data.simulate.randomness import generator
from h2crop_data.simulate.settings import EnmapArchive
from h2crop_data.simulate.sky.atmosphere import Bands, at_ground, bands_of, corrected, in_shade
from h2crop_data.simulate.sky.weather import SKY_LAYERS, Weather, half_percents, weather_over

#: EnMAP's pixel corners lie at odd multiples of this, in metres.
HALF_PIXEL = 15
#: Side in metres of the squares that are drawn at a time.
PIECE = 1920
#: Bands in strong water vapour absorption, which hold no data (numbers from 1).
EMPTY_BANDS = range(130, 136)
#: Standard deviation of a band's noise, thousandths of reflectance at wavelengths in nm. Measured in a summer scene of
#: 2022 (Potsdam): what a regression on the four neighbouring bands leaves in squares of 8 pixels, a quarter more, as
#: resampling to the map grid took some of it away. At 1939 and 1949 nm that scene is quieter (45 and 15) than the many
#: of the published dataset, whose standard deviations (275 and 93, next to 70) are followed here.
NOISE = (
    *((418, 1.3), (440, 0.9), (480, 0.6), (550, 0.5), (673, 0.4), (693, 0.65), (713, 0.75), (734, 1.6), (742, 1.1)),
    *((749, 1.1), (756, 2.2), (770, 1.6), (785, 1.2), (871, 1.3), (887, 1.6), (901.5, 2.0)),
    # Both detectors see 902 to 993 nm, band by band in turn; the first of the second one is the noisiest.
    *((902.26, 17.0), (903.6, 2.1), (911.7, 2.0), (911.87, 1.05), (919.8, 2.3), (921.6, 1.1), (928, 3.8), (931.5, 5.0)),
    *((936, 4.6), (941.5, 2.0), (944.2, 4.4), (951.7, 1.9), (952.4, 4.0), (960.5, 3.5), (962, 2.6), (968.6, 2.8)),
    *((972.3, 1.0), (976.8, 2.4), (982.8, 1.05), (984.9, 2.3), (993.08, 2.7), (993.47, 0.8), (1004, 0.55), (1015, 0.5)),
    *((1082, 0.6), (1093, 0.65), (1105, 0.95), (1117, 4.2), (1128, 3.8), (1140, 1.85), (1152, 1.85), (1164, 1.05)),
    *((1187, 0.7), (1223, 0.6), (1259, 0.8), (1295, 0.7), (1320, 1.1), (1340, 3.0), (1385, 9.0), (1461, 3.6)),
    *((1473, 3.0), (1485, 2.2), (1496, 1.2), (1530, 0.6), (1700, 0.75), (1730, 0.9), (1760, 1.5), (1780, 3.0)),
    *((1930, 250.0), (1939.5, 250.0), (1949, 50.0), (1958.5, 10.0), (1968, 2.8), (1977, 1.7), (1987, 1.4), (1996, 3.1)),
    *((2005, 4.5), (2015, 3.5), (2024, 2.2), (2033, 1.15), (2051, 1.6), (2070, 1.3), (2096, 0.95), (2250, 1.05)),
    *((2300, 1.3), (2346, 1.7), (2370, 2.3), (2393, 2.5), (2415, 4.1), (2438, 4.2), (2446, 6.0)),
)
#: Opacities from which the quality layers see something; the three steps of cirrus.
FLAGGED_CLOUD, FLAGGED_SHADOW, FLAGGED_HAZE, FLAGGED_SNOW = 0.25, 0.4, 0.35, 0.5
CIRRUS_STEPS = (0.03, 0.12, 0.25)
LAND, WATER, OUTSIDE = 1, 2, 3


@dataclass(frozen=True)
class Swath:
    """A rectangle along the flight direction, in the frame of `flight_coordinates`."""

    #: Degrees from north of the flight direction.
    tilt: float
    #: Across the flight direction, and along it, in metres.
    across: tuple[float, float]
    along: tuple[float, float]

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Its corners (x, y): upper left, upper right, lower right, lower left."""
        left, right = self.across
        low, high = self.along
        sine, cosine = math.sin(math.radians(self.tilt)), math.cos(math.radians(self.tilt))
        turned_corners = ((left, high), (right, high), (right, low), (left, low))
        return [(cosine * u + sine * v, cosine * v - sine * u) for u, v in turned_corners]

    @property
    def grid_bounds(self) -> Bounds:
        """The smallest bounds on EnMAP's grid around it."""
        x, y = zip(*self.corners, strict=True)

        def snapped(value: float, up: bool) -> int:
            steps = (value - HALF_PIXEL) / COARSE
            return (math.ceil(steps) if up else math.floor(steps)) * COARSE + HALF_PIXEL

        return snapped(min(x), False), snapped(min(y), False), snapped(max(x), True), snapped(max(y), True)


def flight_coordinates(x: NDArray[np.float64], y: NDArray[np.float64], tilt: float) -> tuple[NDArray[np.float64], ...]:
    """Coordinates across and along the flight direction, each (y, x)."""
    sine, cosine = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))
    return cosine * x[None, :] - sine * y[:, None], sine * x[None, :] + cosine * y[:, None]


def swaths(region: Bounds, settings: EnmapArchive, coverage: float) -> list[list[Swath]]:
    """The tiles of each datatake that a pass needs to cover a region (or a share of its width)."""
    sine, cosine = math.sin(math.radians(settings.tilt)), math.cos(math.radians(settings.tilt))
    corners = [(x, y) for x in (region[0], region[2]) for y in (region[1], region[3])]
    across = [cosine * x - sine * y for x, y in corners]
    along = [sine * x + cosine * y for x, y in corners]
    room = 4.0 * COARSE
    left, right = min(across) - room, max(across) + room
    if coverage < 1:
        right = left + (right - left) * coverage
    return [
        [Swath(settings.tilt, part, tile) for tile in parts(min(along) - room, max(along) + room, settings)]
        for part in parts(left, right, settings)
    ]


def parts(low: float, high: float, settings: EnmapArchive) -> list[tuple[float, float]]:
    """A length cut into equal parts of at most a tile's size that overlap."""
    step = settings.tile_size - settings.overlap
    number = max(1, math.ceil((high - low - settings.overlap) / step))
    length = (high - low + (number - 1) * settings.overlap) / number
    return [
        (low + i * (length - settings.overlap), low + i * (length - settings.overlap) + length) for i in range(number)
    ]


@dataclass(frozen=True)
class EnmapTile:
    """One tile to write."""

    swath: Swath
    #: Around all tiles of the datatake; its distortion runs over them.
    datatake_bounds: Bounds
    epsg: int
    look: EnmapPass
    #: Pairs (band from 1, detector column) that are dead.
    dead: tuple[tuple[int, int], ...]
    folder: Path
    #: File name of each asset, by DLR's keys.
    files: dict[str, str]


@dataclass(frozen=True)
class Displacement:
    """Where the ground appears relative to where it is: a shift, and a slow change of it over a datatake."""

    shift: tuple[float, float]
    amplitude: float
    bounds: Bounds

    def east(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Metres east at columns x."""
        width = self.bounds[2] - self.bounds[0]
        return self.shift[0] + self.amplitude * np.sin(2 * np.pi * (x - self.bounds[0]) / width)

    def north(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Metres north at rows y."""
        height = self.bounds[3] - self.bounds[1]
        return self.shift[1] + self.amplitude * np.sin(2 * np.pi * (y - self.bounds[1]) / height)


@lru_cache(maxsize=1)
def hyperspectral() -> tuple[NDArray[np.float64], Bands]:
    """Reflectance of the endmembers in the 224 bands (endmember, band), and what the sky does in them."""
    spectra, response = endmember_spectra().astype(np.float64), enmap_response(*enmap_bands())
    return spectra @ response, bands_of(WAVELENGTHS, response, spectra[ENDMEMBERS.index("snow")])


@lru_cache(maxsize=1)
def noise_of_bands() -> NDArray[np.float32]:
    """Standard deviation of the noise of each band (band,), in reflectance."""
    centres, _ = enmap_bands()
    return np.asarray(np.interp(centres, *np.transpose(NOISE)) / 1000, np.float32)


def axis_pieces(low: int, high: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of the lattice's pieces along an axis of EnMAP's grid."""
    for number in range((low - HALF_PIXEL) // PIECE, (high - HALF_PIXEL - 1) // PIECE + 1):
        start = max(low, number * PIECE + HALF_PIXEL)
        yield number, start, min(high, (number + 1) * PIECE + HALF_PIXEL)


@dataclass(frozen=True)
class PixelGround:
    """What pixels show of the ground."""

    #: (endmember, y, x) float32.
    abundances: NDArray[np.float32]
    #: Where most of the pixel is water, (y, x).
    water: NDArray[np.bool_]
    #: Share (y, x) of the direct sunlight that woods and houses keep from the pixel; None: nothing casts shade.
    shade: NDArray[np.float32] | None

    @property
    def reflectance(self) -> NDArray[np.float32]:
        """Reflectance (band, y, x), of a pixel with shade as if all of it lay in the same."""
        lit = spectra_of(self.abundances)
        return lit if self.shade is None else in_shade(lit, self.shade, hyperspectral()[1].diffuse)


def abundance_pixels(
    ground: RegionGround,
    look: EnmapPass,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    reach: float,
) -> PixelGround:
    """What pixels at places x and y of the ground show."""
    fine = ground.fine_ground(
        ground.epsg, (float(x.min()), float(x.max())), (float(y.max()), float(y.min())), margin(COARSE, reach)
    )
    tables = ground.spectra(look.moment.date(), fine.objects, np.eye(len(ENDMEMBERS)))
    layers = layers_on_ground(fine, ground.roughness, tables, range(len(ENDMEMBERS)))
    water = (ground.kinds == "water")[fine.objects][fine.places].astype(np.float32)
    rows, columns = sampling(y, COARSE, fine.y), sampling(x, COARSE, fine.x)
    shade = fine.shade(look.sun)
    return PixelGround(
        sample(layers, rows, columns),
        sample(water[None], rows, columns)[0] > 0.5,
        None if shade is None else sample(shade[None], rows, columns)[0],
    )


def spectra_of(abundances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reflectance (band, y, x) of abundances (endmember, y, x)."""
    bands, _ = hyperspectral()
    layers = abundances.reshape(len(abundances), -1).astype(np.float64)
    return np.asarray(bands.T @ layers, np.float32).reshape(-1, *abundances.shape[1:])


def write_tile(ground: RegionGround, tile: EnmapTile, settings: EnmapArchive) -> dict[str, Counter[int]]:
    """Draw a tile and write its files; gives the number of pixels of each value of each quality layer."""
    bounds = tile.swath.grid_bounds
    place = Displacement(tile.look.shift, settings.distortion, tile.datatake_bounds)
    counts: dict[str, Counter[int]] = {}
    with ExitStack() as stack:
        writers = {key: stack.enter_context(writer) for key, writer in tile_writers(tile, bounds).items()}
        for row, south, north in axis_pieces(bounds[1], bounds[3]):
            for column, west, east in axis_pieces(bounds[0], bounds[2]):
                x = np.arange(west + COARSE / 2, east, COARSE)
                y = np.arange(north - COARSE / 2, south, -COARSE)
                layers = piece_layers(ground, tile, place, settings, (column, row), x, y)
                for key, writer in writers.items():
                    writer.write(layers[key], west, north)
                count_layers(counts, layers)
    return counts


def piece_layers(
    ground: RegionGround,
    tile: EnmapTile,
    place: Displacement,
    settings: EnmapArchive,
    number: tuple[int, int],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """All layers of a tile over a piece with pixel columns x and rows y."""
    inside, detector = seen_by(tile.swath, x, y)
    if not inside.any():
        return empty_layers(len(y), len(x))
    true_x, true_y = x - place.east(x), y - place.north(y)
    seen = abundance_pixels(ground, tile.look, true_x, true_y, settings.distortion)
    weather = weather_over(tile.look.sky, true_x, true_y)
    _, bands = hyperspectral()
    values = corrected(at_ground(seen.reflectance, weather, bands, seen.shade), weather, bands)
    if settings.noise:
        chance = generator(ground.seed, "noise", tile.look.name, *number)
        noise = chance.standard_normal((len(values), PIECE // COARSE, PIECE // COARSE), np.float32)
        # The same noise in every tile of a datatake: a piece may be a part of its square of the lattice.
        left = round(x[0] - COARSE / 2 - HALF_PIXEL - number[0] * PIECE) // COARSE
        top = round((number[1] + 1) * PIECE + HALF_PIXEL - y[0] - COARSE / 2) // COARSE
        cut = noise[:, top : top + len(y), left : left + len(x)]
        values += settings.noise * noise_of_bands()[:, None, None] * cut
    dead = np.zeros(values.shape, bool)
    for band, column in tile.dead:
        dead[band - 1] = detector == column
    values = np.where(dead, beside(values), values)
    image = np.rint(values * 10000).clip(-32767, 32767).astype(np.int16)
    image[[band - 1 for band in EMPTY_BANDS]] = REFLECTANCE_FILL
    image[:, ~inside] = REFLECTANCE_FILL
    mask = dead.astype(np.uint8)
    mask[:, ~inside] = 255
    layers = quality_layers(weather, seen.water, inside)
    if settings.layer_errors is not None:
        wide_x, wide_y = widened(x, ERRORS_REACH), widened(y, -ERRORS_REACH)
        wide = wide_x - place.east(wide_x), wide_y - place.north(wide_y)
        layers |= missed_layers(layers, weather.shadow, tile.look.sky, wide, settings.layer_errors)
    return {"image": image, "defective_pixel_mask": mask, **layers}


def seen_by(
    swath: Swath, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether pixels (y, x) lie in a swath, and their detector column, from 0 at its left edge."""
    across, along = flight_coordinates(x, y, swath.tilt)
    inside = (across > swath.across[0]) & (across < swath.across[1])
    inside &= (along > swath.along[0]) & (along < swath.along[1])
    return inside, np.floor((across - swath.across[0]) / COARSE).astype(np.int64)


def beside(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the neighbours to the left and right, (band, y, x)."""
    wide = np.pad(values, ((0, 0), (0, 0), (1, 1)), mode="edge")
    return np.asarray((wide[:, :, :-2] + wide[:, :, 2:]) / 2, np.float32)


def quality_layers(
    weather: Weather, water: NDArray[np.bool_], inside: NDArray[np.bool_]
) -> dict[str, NDArray[np.uint8]]:
    """The quality layers, by DLR's asset keys, each (y, x) uint8."""
    cloud = weather.cloud > FLAGGED_CLOUD
    layers = {
        "quality_cloud": cloud,
        "quality_cloud_shadow": (weather.shadow > FLAGGED_SHADOW) & ~cloud,
        "quality_haze": weather.haze > FLAGGED_HAZE,
        "quality_cirrus": np.digitize(weather.cirrus, CIRRUS_STEPS),
        "quality_snow": weather.snow > FLAGGED_SNOW,
        "quality_testflags": np.where(cloud & (weather.cloud > 0.9), 16 | 32, 0),
    }
    coded = {key: np.where(inside, layer, 0).astype(np.uint8) for key, layer in layers.items()}
    coded["quality_classes"] = np.where(inside, np.where(water, WATER, LAND), OUTSIDE).astype(np.uint8)
    return coded


def empty_layers(rows: int, columns: int) -> dict[str, NDArray[Any]]:
    """The layers of a piece that no detector saw."""
    outside = np.zeros((rows, columns), bool)
    none = np.zeros((rows, columns), np.float32)
    bands = len(noise_of_bands())
    return {
        "image": np.full((bands, rows, columns), REFLECTANCE_FILL, np.int16),
        "defective_pixel_mask": np.full((bands, rows, columns), 255, np.uint8),
        **quality_layers(Weather(none, none, none, none, none), outside, outside),
    }


def tile_writers(tile: EnmapTile, bounds: Bounds) -> dict[str, CogWriter]:
    """A writer for each raster of a tile."""
    bands = len(noise_of_bands())
    writers = {}
    for key, name in tile.files.items():
        if key == "metadata":
            continue
        path = tile.folder / name
        if key == "image":
            writer = CogWriter(
                path, tile.epsg, bounds, COARSE, "int16", count=bands, nodata=REFLECTANCE_FILL, block=128
            )
        elif key == "defective_pixel_mask":
            writer = CogWriter(
                path, tile.epsg, bounds, COARSE, "uint8", count=bands, nodata=255, block=128, resampling="nearest"
            )
        else:
            nodata = OUTSIDE if key == "quality_classes" else None
            writer = CogWriter(path, tile.epsg, bounds, COARSE, "uint8", nodata=nodata, resampling="nearest")
        writers[key] = writer
    return writers


def count_layers(counts: dict[str, Counter[int]], layers: dict[str, NDArray[Any]]) -> None:
    """Add the pixels of a piece that have each value of each quality layer."""
    for key, layer in layers.items():
        if key.startswith("quality_"):
            values, pixels = np.unique(layer, return_counts=True)
            counts.setdefault(key, Counter()).update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))


def write_pass_truth(ground: RegionGround, look: EnmapPass, region: Bounds, folder: Path, surface: bool) -> None:
    """What is true of a pass on the lattice's own 30 m grid, without shift: `<name>-sky.tif`, and `<name>.tif`.

    The sky as for Sentinel-2; the surface, if wanted, without clouds and noise: reflectance x 10000 (band, y, x) int16.
    """
    with ExitStack() as stack:
        sky = stack.enter_context(
            CogWriter(
                folder / f"{look.name}-sky.tif",
                ground.epsg,
                region,
                COARSE,
                "uint8",
                count=len(SKY_LAYERS),
                descriptions=SKY_LAYERS,
            )
        )
        path, bands = folder / f"{look.name}.tif", len(noise_of_bands())
        image = (
            stack.enter_context(CogWriter(path, ground.epsg, region, COARSE, "int16", count=bands, block=128))
            if surface
            else None
        )
        for north in range(region[3], region[1], -PIECE):
            for west in range(region[0], region[2], PIECE):
                x = np.arange(west + COARSE / 2, min(west + PIECE, region[2]), COARSE)
                y = np.arange(north - COARSE / 2, max(north - PIECE, region[1]), -COARSE)
                sky.write(half_percents(weather_over(look.sky, x, y)), west, north)
                if image is not None:
                    seen = abundance_pixels(ground, look, x, y, 0)
                    image.write(np.rint(seen.reflectance * 10000).astype(np.int16), west, north)
