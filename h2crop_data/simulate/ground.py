"""The ground of a region on a day: which object lies where, and what each reflects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from h2crop_data.grid import transformer
from h2crop_data.simulate.optics import FINE_GROUND
from h2crop_data.simulate.plants.bright import with_bright_ground
from h2crop_data.simulate.plants.phenology import Ground, Pairs, abundances, some_ground
from h2crop_data.simulate.randomness import key_of, noise_at, noise_grid
from h2crop_data.simulate.shade import SHADE_REACH, heights_of_objects, heights_on_ground, shaded
from h2crop_data.simulate.sky.clouds import Sun

#: West, south, east, north in metres of a zone.
Bounds = tuple[int, int, int, int]
#: Ground known beyond the last pixel of any scene: point spread, shifts, distortion.
GROUND_MARGIN = 780
#: Vigour varies within a field by this standard deviation; brightness by that of its kind.
FIELD_VARIATION = 0.10
ROUGHNESS = {"field": 0.03, "wood": 0.10, "water": 0.03, "village": 0.22, "road": 0.06}
#: The same of natural ground: roofs of a village differ more.
NATURAL_ROUGHNESS = {**ROUGHNESS, "village": 0.34}
#: Places along each side of a region of which the brightness of its ground is taken, and how much of the variation of
#: brightness within objects is left in pixels of 20 m.
PLACES_LOOKED_AT, EVENED_OUT = 160, 0.35
#: Days over which wet and dry change.
WET_SPELL = 9
#: Windows of ground kept for the next date, of about two megabytes.
WINDOWS_KEPT = 36
#: Spacing in metres of the variation within fields.
TEXTURE_SCALES = ((140, 0.8), (35, 0.6))


@dataclass(frozen=True)
class Spectra:
    """Reflectance of objects in the bands of an instrument on a day."""

    #: (object, band) float32, and how it changes with one standard deviation of vigour.
    mean: NDArray[np.float32]
    change: NDArray[np.float32]


@dataclass(frozen=True)
class FineGround:
    """A window of ground at 5 m."""

    #: Easting of columns and northing of rows, metres.
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    #: Numbers of the objects here, (n,).
    objects: NDArray[np.intp]
    #: Place in `objects`, and variation of vigour and of brightness within objects (standard deviation 1), each (y, x).
    places: NDArray[np.intp]
    vigour: NDArray[np.float32]
    brightness: NDArray[np.float32]
    #: Height in tenths of a metre of this ground and SHADE_REACH metres around it, (y, x); None: nothing casts shade.
    heights: NDArray[np.uint8] | None = None

    def shade(self, sun: Sun) -> NDArray[np.float32] | None:
        """Share (y, x) of the direct sunlight that woods and houses keep from the ground."""
        return None if self.heights is None else shaded(self.heights, self.x, self.y, sun)


class RegionGround:
    """The objects of a region, from its `truth` folder."""

    def __init__(
        self, truth: Path, epsg: int, seed: int, pairs: Pairs, growth: dict[str, str], *, natural: bool = False
    ) -> None:
        """growth: how the crop of each code grows. natural: with shadows of woods and houses, and bright ground."""
        self.truth = truth
        self.epsg = epsg
        self.seed = seed
        self.pairs = pairs
        self.growth = growth
        self.natural = natural
        self.objects = pd.read_parquet(truth / "objects.parquet")
        # Object 0 is everywhere.
        self.x, self.y = (np.concatenate([[0.0], self.objects[axis].to_numpy(float)]) for axis in ("x", "y"))
        # The same windows are drawn on every date.
        self.window = lru_cache(maxsize=WINDOWS_KEPT)(self.fine_ground)
        self.growing = lru_cache(maxsize=1)(self.objects_growing)

    @cached_property
    def kinds(self) -> NDArray[np.str_]:
        """Kind of object 0..n; 0 is what lies between the others, roads and their verges."""
        return np.concatenate([["road"], self.objects["kind"].to_numpy(str)])

    @cached_property
    def roughness(self) -> NDArray[np.float32]:
        """How much the brightness of object 0..n varies within it."""
        of_kind = NATURAL_ROUGHNESS if self.natural else ROUGHNESS
        return np.array([of_kind[kind] for kind in self.kinds.tolist()], np.float32)

    @cached_property
    def heights(self) -> NDArray[np.float32]:
        """Height in metres of what stands on object 0..n."""
        return heights_of_objects(self.seed, self.kinds, self.x, self.y)

    def objects_growing(self, season: int) -> Ground:
        """What stands on objects 0..n in a season, stood there before and comes after."""
        crops = pd.read_parquet(self.truth / f"crops-{season}.parquet").set_index("number")
        of_object = crops.reindex(np.arange(len(self.kinds)))
        names = {name: of_object[name].fillna("").to_numpy(str) for name in ("last_crop", "crop", "next_crop")}
        grown = {
            name.replace("crop", "growth"): np.array([self.growth.get(code, "") for code in codes.tolist()])
            for name, codes in names.items()
        }

        def column(name: str, road: float) -> NDArray[np.float32]:
            return np.concatenate([[road], self.objects[name].to_numpy()]).astype(np.float32)

        return Ground(
            kind=self.kinds,
            variant=column("variant", 0.5),
            soil=column("soil", 0.5),
            shift_days=column("shift_days", 0.0),
            vigour=column("vigour", 1.0),
            catch_crop=of_object["catch_1"].fillna("").to_numpy(str) != "",
            last_catch=of_object["last_catch"].fillna("").to_numpy(str) != "",
            **names,
            **grown,
        )

    def wetness(self, day: date, objects: NDArray[np.intp]) -> NDArray[np.float32]:
        """How wet the soil of some objects is on a day, 0..1: it dries and rains from week to week, not everywhere."""
        number = day.toordinal()
        week = float(noise_at(key_of(self.seed, "weeks"), [number], [0.0], WET_SPELL)[0])
        rain = noise_at(key_of(self.seed, "rain", number // WET_SPELL), self.x[objects], self.y[objects], 6000)
        return np.asarray(np.clip(NormalDist().cdf(week) + 0.12 * rain, 0, 1), np.float32)

    def spectra(self, day: date, objects: NDArray[np.intp], bands: NDArray[np.float64]) -> Spectra:
        """Reflectance of some objects on a day; bands: (endmember, band) reflectance of the endmembers."""
        ground = some_ground(self.growing(day.year), objects)
        wet, number = self.wetness(day, objects), day.timetuple().tm_yday
        mean, more = (abundances(ground, number, wet, vigour, self.pairs) for vigour in (1.0, 1.2))
        if self.natural:
            mean, more = (with_bright_ground(shares, ground, number) for shares in (mean, more))
        change = (more - mean) * np.float32(FIELD_VARIATION / 0.2)
        seen = [(table.astype(np.float64) @ bands).astype(np.float32) for table in (mean, change)]
        return Spectra(*seen)

    @cached_property
    def shown(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Objects on a lattice over the ground that scenes show, and on how many places each lies."""
        with rasterio.open(self.truth / "land.tif") as land:
            room = GROUND_MARGIN // FINE_GROUND
            width, height = land.width - 2 * room, land.height - 2 * room
            shape = min(height, PLACES_LOOKED_AT), min(width, PLACES_LOOKED_AT)
            numbers = land.read(1, window=Window(room, room, width, height), out_shape=shape)
        objects, places = np.unique(numbers, return_counts=True)
        return objects.astype(np.intp), places

    def brightest(self, day: date, shares: Sequence[float], bands: NDArray[np.float64]) -> list[float]:
        """Reflectance that each of some shares of the region's ground exceeds on a day, in one band (endmember, 1)."""
        objects, places = self.shown
        mean = self.spectra(day, objects, bands).mean
        # Within an object brightness varies; pixels of 20 m even out much of it.
        steps = np.array([NormalDist().inv_cdf((i + 0.5) / 20) for i in range(20)], np.float32)
        values = (mean * (1 + EVENED_OUT * self.roughness[objects, None] * steps)).ravel()
        order = np.argsort(-values, kind="stable")
        above = np.cumsum(np.repeat(places, len(steps))[order]) / (places.sum() * len(steps))
        last = [order[min(int(np.searchsorted(above, share)), len(order) - 1)] for share in shares]
        return [float(values[place]) if share else math.inf for place, share in zip(last, shares, strict=True)]

    def objects_at(self, epsg: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int32]:
        """Object number where columns x and rows y cross (metres of a zone), (y, x) int32; 0 beyond the land."""
        if epsg == self.epsg:
            east, north = x[None, :], y[:, None]
        else:
            east, north = transformer(f"EPSG:{epsg}", f"EPSG:{self.epsg}").transform(*np.meshgrid(x, y))
        with rasterio.open(self.truth / "land.tif") as land:
            columns = np.floor((east - land.transform.c) / FINE_GROUND).astype(int)
            rows = np.floor((land.transform.f - north) / FINE_GROUND).astype(int)
            inside = (columns >= 0) & (columns < land.width) & (rows >= 0) & (rows < land.height)
            columns, rows = columns.clip(0, land.width - 1), rows.clip(0, land.height - 1)
            left, top = columns.min(), rows.min()
            window = Window(left, top, columns.max() - left + 1, rows.max() - top + 1)
            around = land.read(1, window=window)
        numbers: NDArray[np.int32] = around[rows - top, columns - left]
        numbers[~inside] = 0
        return numbers

    def fine_ground(self, epsg: int, x: tuple[float, float], y: tuple[float, float], reach: int) -> FineGround:
        """The ground from x[0] to x[1] and y[0] to y[1] (metres of a zone, in the order of pixels), `reach` further."""
        if self.natural:
            return self.ground_with_heights(self.plain_ground(epsg, x, y, reach + SHADE_REACH))
        return self.plain_ground(epsg, x, y, reach)

    def ground_with_heights(self, wide: FineGround) -> FineGround:
        """The inner part of some ground, without SHADE_REACH on all sides, with the heights of all of it."""
        of_place = self.heights[wide.objects][wide.places]
        wooded = (self.kinds == "wood")[wide.objects][wide.places]
        room = SHADE_REACH // FINE_GROUND
        inner = slice(room, -room)
        return replace(
            wide,
            x=wide.x[inner],
            y=wide.y[inner],
            **{name: getattr(wide, name)[inner, inner].copy() for name in ("places", "vigour", "brightness")},
            heights=heights_on_ground(of_place, wooded, wide.brightness),
        )

    def plain_ground(self, epsg: int, x: tuple[float, float], y: tuple[float, float], reach: int) -> FineGround:
        """The same without heights."""
        columns, rows = fine_axis(*x, reach), fine_axis(*y, reach)
        vigour = np.zeros((len(rows), len(columns)), np.float32)
        for scale, weight in TEXTURE_SCALES:
            vigour += weight * noise_grid(key_of(self.seed, "vigour", scale), columns, rows, scale)
        brightness = noise_grid(key_of(self.seed, "brightness"), columns, rows, 12)
        # Indices of the machine's own size: looking up what each object reflects is what takes longest.
        objects, places = np.unique(self.objects_at(epsg, columns, rows).astype(np.intp), return_inverse=True)
        return FineGround(columns, rows, objects, places, vigour, brightness)


def fine_axis(first: float, last: float, reach: int) -> NDArray[np.float64]:
    """Centres of the fine ground from `first` to `last` (metres, any order) with `reach` more on both sides."""
    # On the lines of the land's raster: its numbers stand for the middle of their squares.
    low, high = (math.floor(place / FINE_GROUND) for place in (min(first, last) - reach, max(first, last) + reach))
    axis = np.asarray((np.arange(low, high + 1) + 0.5) * FINE_GROUND, np.float64)
    return axis if first <= last else axis[::-1]


def layers_on_ground(
    fine: FineGround, roughness: NDArray[np.float32], tables: Spectra, layers: Sequence[int]
) -> NDArray[np.float32]:
    """Layers (bands or endmembers) of the tables on fine ground, (layer, y, x) float32.

    tables: of the objects here; roughness: how much the brightness of every object of the region varies within it.
    """
    factor = 1 + roughness[fine.objects][fine.places] * fine.brightness
    ground = np.empty((len(layers), *fine.places.shape), np.float32)
    changed = np.empty(fine.places.shape, np.float32)
    for place, layer in enumerate(layers):
        # `clip` lets numpy write straight into `out`; every place is in the tables.
        np.take(np.ascontiguousarray(tables.mean[:, layer]), fine.places, out=ground[place], mode="clip")
        np.take(np.ascontiguousarray(tables.change[:, layer]), fine.places, out=changed, mode="clip")
        changed *= fine.vigour
        ground[place] += changed
        ground[place] *= factor
    return ground
