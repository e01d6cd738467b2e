"""What is not a field: shares of the endmember spectra of woods, water, villages and roads on a day.

Seasons of broad-leaved woods after the leaf unfolding and leaf fall of oak and beech (DWD, PEP725), rounded; shares of
roofs, concrete and asphalt between green after Herold et al. (2004) and Ridd (1995).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h2crop_data.simulate.plants.spectra import ENDMEMBERS

Floats = NDArray[np.float64]

YEAR = 365
INDEX = {name: i for i, name in enumerate(ENDMEMBERS)}
CANOPY = [i for i, name in enumerate(ENDMEMBERS) if name.startswith("canopy")]


def wood(variant: Floats, day: Floats, vigour: Floats) -> Floats:
    """Shares of ENDMEMBERS of woods with a share of conifers, (n, endmember)."""
    leafy = step(day - 113, 5.0) * (1 - step(day - 304, 7.0))
    broad = 1 - variant
    autumn = step(day - 288, 8.0)
    mixed = canopy_shares(np.clip(0.9 - 0.8 * autumn, 0, 1), np.clip(0.65 - 0.4 * autumn, 0, 1))
    shares = np.zeros((len(variant), len(ENDMEMBERS)))
    shares[:, CANOPY] = (broad * (0.82 * leafy + 0.12 * (1 - leafy)))[:, None] * mixed
    shares[:, INDEX["bark"]] = broad * (0.04 + 0.38 * (1 - leafy))
    shares[:, INDEX["litter"]] = broad * 0.32 * (1 - leafy)
    shares[:, INDEX["conifer"]] = variant * (0.88 + 0.07 * leafy)
    shares[:, INDEX["nitrogen"]] = 0.3 * leafy * broad
    return shares * (1 + 0.35 * (vigour - 1))[:, None]


def water(variant: Floats, day: Floats, vigour: Floats) -> Floats:
    """Shares of ENDMEMBERS of water, (n, endmember); more turbid, by algae, in summer."""
    turbid = np.clip(variant * (0.85 + 0.15 * np.sin((day - 120) / YEAR * 2 * np.pi)), 0, 1)
    shares = np.zeros((len(variant), len(ENDMEMBERS)))
    shares[:, INDEX["water_clear"]], shares[:, INDEX["water_turbid"]] = 1 - turbid, turbid
    return shares * (1 + 0.1 * (vigour - 1))[:, None]


def village(variant: Floats, day: Floats, vigour: Floats) -> Floats:
    """Shares of ENDMEMBERS of villages: roofs, concrete, asphalt, and gardens between them, (n, endmember)."""
    built = 0.40 + 0.50 * variant
    return mixed_ground(day, vigour, 1 - built, roof_tile=0.26 * built, concrete=0.30 * built, asphalt=0.38 * built)


def road(variant: Floats, day: Floats, vigour: Floats) -> Floats:
    """Shares of ENDMEMBERS of roads with verges, (n, endmember)."""
    verge = 0.35 - 0.15 * variant
    return mixed_ground(day, vigour, verge, asphalt=0.95 * (1 - verge), concrete=0.05 * (1 - verge))


def mixed_ground(day: Floats, vigour: Floats, grown: Floats, **built: Floats) -> Floats:
    """Shares of ENDMEMBERS of built surfaces and of lawns, trees and bare soil between them, (n, endmember)."""
    summer = step(day - 105, 10.0) * (1 - step(day - 305, 10.0))
    green = grown * (0.50 + 0.25 * summer)
    shares = np.zeros((len(grown), len(ENDMEMBERS)))
    shares[:, CANOPY] = (0.85 * green)[:, None] * canopy_shares(np.full_like(grown, 0.7), np.full_like(grown, 0.5))
    for name, share in {**built, "litter": 0.4 * (grown - green), "soil_brown": 0.4 * (grown - green)}.items():
        shares[:, INDEX[name]] = share
    return shares * (1 + 0.35 * (vigour - 1))[:, None]


SURROUNDINGS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "wood": wood,
    "water": water,
    "village": village,
    "road": road,
}


def canopy_shares(chlorophyll: Floats, water: Floats) -> Floats:
    """Shares of the four canopies for chlorophyll and water 0..1, (n, 4) in the order of ENDMEMBERS."""
    return np.stack(
        [
            chlorophyll * water,
            chlorophyll * (1 - water),
            (1 - chlorophyll) * water,
            (1 - chlorophyll) * (1 - water),
        ],
        axis=1,
    )


def step(days: ArrayLike, spread: ArrayLike) -> Floats:
    """A logistic step from 0 to 1 at 0 days, exactly 0 and 1 far from it."""
    scaled = np.asarray(days, np.float64) / np.maximum(spread, 1e-6)
    return np.where(scaled < -15, 0.0, np.where(scaled > 15, 1.0, 1 / (1 + np.exp(-np.clip(scaled, -15, 15)))))


def thick(cover: Floats, vigour: Floats) -> Floats:
    """Cover of plants that stand thicker (vigour > 1) or thinner: leaves overlap, so the gaps shrink by powers."""
    return np.asarray(1 - (1 - np.clip(cover, 0, 1)) ** vigour)
