"""How far the images of a tile of a datatake lie off the ground, drawn from the settings.

Real products say of every datastrip whether its geometry was refined with the Global Reference Image. Images of
refined ones lie within 5 m of one another in 95 % of places, of others within 12 to 15 m and rarely more (Sentinel-2
L1C Data Quality Reports, ESA); all share what the reference itself lies off the ground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from h2crop_data.grid import LONLAT, transformer
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.overpasses import Sentinel2Pass
from h2crop_data.simulate.randomness import generator
from h2crop_data.simulate.sentinel2.tiles import Tile
from h2crop_data.simulate.settings import GeometrySettings


@dataclass(frozen=True)
class ImageShift:
    """Where images show the ground relative to where it is, in metres east and north along the axes of their zone."""

    east: float
    north: float
    #: The part of it that all images of the region share.
    absolute_east: float
    absolute_north: float
    refined: bool


def image_shift(layout: Layout, geometry: GeometrySettings, look: Sentinel2Pass, tile: Tile) -> ImageShift:
    """The shift of a tile in a pass, the same for every level, archive and processing; in centimetres."""
    seed = layout.simulation.seed
    refined, of_pass = shift_of_pass(geometry, seed, look.name)
    of_tile = generator(seed, "geometry", look.name, tile.name).normal(0, geometry.between_tiles, 2).tolist()
    shared, own = (along_axes(layout, vector, tile.epsg) for vector in (geometry.absolute, of_pass))
    east, north = (sum(parts) for parts in zip(shared, own, of_tile, strict=True))
    return ImageShift(round(east, 2), round(north, 2), round(shared[0], 2), round(shared[1], 2), refined)


def shift_of_pass(geometry: GeometrySettings, seed: int, name: str) -> tuple[bool, tuple[float, float]]:
    """Whether a pass is refined, and its shift in metres along the axes of the region's zone."""
    chance = generator(seed, "geometry", name)
    refined = bool(chance.random() >= geometry.not_refined)
    # All is drawn whatever is taken, so that one setting leaves what another one does as it is.
    near = chance.normal(0, geometry.sd, 2).tolist()
    length, direction = geometry.far * chance.random(), 2 * math.pi * chance.random()
    return refined, (near[0], near[1]) if refined else (length * math.sin(direction), length * math.cos(direction))


def along_axes(layout: Layout, vector: tuple[float, float], epsg: int) -> tuple[float, float]:
    """A vector on the ground in the middle of the region, along the axes of its zone, along those of another one."""
    if epsg == layout.epsg:
        return vector
    x, y = transformer(LONLAT, f"EPSG:{layout.epsg}").transform(*layout.centre)
    there = transformer(f"EPSG:{layout.epsg}", f"EPSG:{epsg}")
    start, end = there.transform(x, y), there.transform(x + vector[0], y + vector[1])
    return end[0] - start[0], end[1] - start[1]


def shift_row(shift: ImageShift, look: Sentinel2Pass, tile: Tile) -> dict[str, Any]:
    """A row of truth/shifts.parquet."""
    return {"pass": look.name, "time": look.moment.isoformat(), "tile": tile.name, "epsg": tile.epsg, **vars(shift)}
