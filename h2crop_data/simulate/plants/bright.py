"""Ground that is taken for cloud: white roofs, plastic on fields, chalk.

Levels from what Sentinel-2 shows of such surfaces: roofs of halls and greenhouses reach 0.3 to 0.6 in the blue, fields
under plastic 0.25 to 0.4, dry chalk 0.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.plants.phenology import Ground
from h2crop_data.simulate.plants.surroundings import INDEX

#: Villages this densely built (`variant`) are halls; share of their ground under the roof, and what it is made of.
HALLS_FROM, HALL_SHARE, HALL_ROOF = 0.92, 0.65, {"concrete": 1.7, "glass": 0.7}
#: Fields of this `variant` and more lie under plastic from one day of the year to another.
PLASTIC_FROM, PLASTIC_DAYS, PLASTIC_SHARE, PLASTIC = 0.985, (65, 165), 0.75, {"glass": 1.4}
#: Bright soils from here on are chalk, and by how much brighter the brightest is.
CHALK_FROM, CHALK_GROUND = 0.8, 0.35


def with_bright_ground(shares: NDArray[np.float32], ground: Ground, day: int) -> NDArray[np.float32]:
    """Shares of ENDMEMBERS (n, endmember) of ground on a day of the year, with what is very bright."""
    changed = shares.copy()
    village, field = ground.kind == "village", ground.kind == "field"
    cover(changed, village & (ground.variant >= HALLS_FROM), HALL_SHARE, HALL_ROOF)
    if PLASTIC_DAYS[0] <= day <= PLASTIC_DAYS[1]:
        cover(changed, field & (ground.variant >= PLASTIC_FROM), PLASTIC_SHARE, PLASTIC)
    chalk = np.clip((ground.soil - CHALK_FROM) / (1 - CHALK_FROM), 0, 1) * field
    changed[:, INDEX["soil_bright"]] *= 1 + np.float32(CHALK_GROUND) * chalk
    return changed


def cover(shares: NDArray[np.float32], where: NDArray[np.bool_], share: float, made_of: dict[str, float]) -> None:
    """Cover a share of some pieces of ground, in place."""
    shares[where] *= np.float32(1 - share)
    for name, amount in made_of.items():
        shares[where, INDEX[name]] += np.float32(share * amount)
