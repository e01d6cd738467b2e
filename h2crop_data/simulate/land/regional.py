"""How a synthetic region differs from place to place: size of fields, woods, soils, kinds of farming, over 6 to 15 km.

Neighbouring ground is alike, as in reality, so that a split at random tells a model what it will be asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.chance import Chance

#: Kinds of farming, and how much each is favoured; the strongest of their noises wins a place.
CROP_REGIONS = ("arable plain", "dairy grassland", "vineyards and orchards", "vegetable district")
REGION_FAVOUR = (0.55, 0.35, -0.25, -0.6)
REGION_SCALE = 9000.0
#: Noise above these is wood, strips, large fields.
WOOD_LEVEL = 0.88
STRIP_LEVEL = 1.4
LARGE_LEVEL = 1.0

Places = NDArray[Any]


@dataclass(frozen=True)
class Regional:
    """What the ground is like at places x, y (n,), in metres of the zone."""

    seed: int

    def noise(self, name: str, x: Places, y: Places, scale: float) -> NDArray[np.float64]:
        """Noise of this name, about standard normal."""
        return Chance(self.seed).noise(f"regional {name}", x, y, scale).astype(np.float64)

    def woodiness(self, x: Places, y: Places) -> NDArray[np.float64]:
        """Above 0 is wood; about normal with standard deviation 1."""
        noise = 0.9 * self.noise("wood", x, y, 1400) + 0.5 * self.noise("forest", x, y, 8000)
        return noise - WOOD_LEVEL

    def field_size(self, x: Places, y: Places) -> NDArray[np.float64]:
        """Hectares of a usual field, 1 to 34."""
        usual = np.exp(1.5 + 0.6 * self.noise("field size", x, y, 7000) + 0.35 * self.noise("block size", x, y, 1300))
        large = 1 / (1 + np.exp(-8 * (self.noise("large fields", x, y, 10_000) - LARGE_LEVEL)))
        size: NDArray[np.float64] = np.clip(usual, 1.0, 12) * 6**large
        return np.minimum(size, 34)

    def strips(self, x: Places, y: Places) -> NDArray[np.bool_]:
        """Whether fields are narrow strips here."""
        return self.noise("strips", x, y, 6000) > STRIP_LEVEL

    def soil(self, x: Places, y: Places, own: Places) -> NDArray[np.float64]:
        """Soil 0..1; own: standard normal part of each field. The logistic curve stands for the normal distribution."""
        noise = 0.85 * self.noise("soil", x, y, 8000) + 0.35 * self.noise("soil of block", x, y, 1000) + 0.25 * own
        soil: NDArray[np.float64] = 1 / (1 + np.exp(-1.7 * noise))
        return soil

    def season(self, x: Places, y: Places) -> NDArray[np.float64]:
        """How late the season is, about standard normal."""
        return self.noise("season", x, y, 12_000)

    def fertility(self, x: Places, y: Places) -> NDArray[np.float64]:
        """How well everything grows, about standard normal."""
        return self.noise("fertility", x, y, 6000)

    def lake_share(self, x: Places, y: Places) -> NDArray[np.float64]:
        """Share of blocks with a lake or pond: few, but many in some districts."""
        share: NDArray[np.float64] = np.clip(0.08 + 0.2 * (self.noise("lakes", x, y, 6000) - 0.2), 0.03, 0.6)
        return share

    def island_share(self, x: Places, y: Places) -> NDArray[np.float64]:
        """Share of 4 ha fields with a clump of trees or a pond inside."""
        share: NDArray[np.float64] = np.clip(0.05 + 0.03 * self.noise("islands", x, y, 6000), 0.01, 0.2)
        return share

    def crop_region(self, x: Places, y: Places) -> NDArray[np.int64]:
        """Index into CROP_REGIONS."""
        strength = [
            favour + self.noise(f"region {name}", x, y, REGION_SCALE)
            for name, favour in zip(CROP_REGIONS, REGION_FAVOUR, strict=True)
        ]
        strongest: NDArray[np.int64] = np.argmax(strength, axis=0)
        return strongest
