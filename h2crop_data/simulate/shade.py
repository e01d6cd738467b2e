"""Shadows that woods and houses cast: how high what stands on the ground is, and where the sun does not reach it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.optics import FINE_GROUND
from h2crop_data.simulate.randomness import key_of, lattice_values
from h2crop_data.simulate.sky.clouds import Sun

#: Height in metres of woods, from stand to stand, and by how much crowns stand out of a canopy (standard deviation).
WOOD_HEIGHT, CROWNS = (15.0, 20.0), 2.8
#: Height of houses, and where in a village they stand: where its brightness, which roofs make vary, is above this.
HOUSE_HEIGHT, ROOF_FROM = 7.0, 0.4
#: Nothing is higher, in metres; heights are kept in tenths of a metre.
HIGHEST = 25.0
#: The sun is taken to stand at least this high, in degrees; so shadows reach at most SHADE_REACH metres.
LOWEST_SUN = 10.0
SHADE_REACH = math.ceil(HIGHEST / math.tan(math.radians(LOWEST_SUN)) / FINE_GROUND) * FINE_GROUND
#: Metres below a shadow's edge where it is full: crowns and roofs are ragged.
PENUMBRA = 2.0


def heights_of_objects(
    seed: int, kinds: NDArray[np.str_], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Height (n,) in metres of what stands on objects of some kinds at places x, y: woods and houses; others are 0."""
    chance = lattice_values(key_of(seed, "height"), np.floor(x).astype(np.int64), np.floor(y).astype(np.int64))
    low, high = WOOD_HEIGHT
    heights = np.select([kinds == "wood", kinds == "village"], [low + (high - low) * chance, HOUSE_HEIGHT], 0.0)
    return np.asarray(heights, np.float32)


def heights_on_ground(
    of_object: NDArray[np.float32], wooded: NDArray[np.bool_], brightness: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Height (y, x) in tenths of a metre of fine ground.

    of_object: of the object on each place (y, x). wooded: whether it is a wood, with crowns; of a village only houses
    are high. brightness: its variation within objects, standard deviation 1.
    """
    crowns = of_object + np.float32(CROWNS) * brightness
    houses = np.where(brightness > ROOF_FROM, of_object, 0)
    heights = np.where(of_object > 0, np.where(wooded, crowns, houses), 0)
    return np.asarray(np.rint(heights.clip(0, HIGHEST) * 10), np.uint8)


def shaded(heights: NDArray[np.uint8], x: NDArray[Any], y: NDArray[Any], sun: Sun) -> NDArray[np.float32]:
    """Share (y, x) float32 of the direct sunlight that something between ground and sun keeps from it.

    heights: in tenths of a metre, of fine ground that reaches SHADE_REACH further on all sides than the columns x and
    rows y whose shade is wanted.
    """
    room = SHADE_REACH // FINE_GROUND
    rise = math.tan(math.radians(max(sun.elevation, LOWEST_SUN)))
    east, north = math.sin(math.radians(sun.azimuth)), math.cos(math.radians(sun.azimuth))
    down = -north if y[0] > y[-1] else north
    ground = heights.astype(np.float32)
    rows, columns = len(y), len(x)
    own = ground[room : room + rows, room : room + columns]
    # The highest line to the sun that anything on the way to it cuts.
    cut = np.zeros((rows, columns), np.float32)
    for step in range(1, math.ceil(HIGHEST / rise / FINE_GROUND) + 1):
        row, column = room + round(step * down), room + round(step * east)
        between = ground[row : row + rows, column : column + columns]
        np.maximum(cut, between - np.float32(10 * FINE_GROUND * rise * step), out=cut)
    return np.asarray(np.clip((cut - own) / np.float32(10 * PENUMBRA), 0, 1), np.float32)
