"""The looks on some ground: which items show it on which date, in the order in which they are asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from h2crop_data.catalog.acquisitions import Look
from h2crop_data.catalog.item_facts import sentinel2_tile
from h2crop_data.sources.sentinel2.granules import GranuleGrid, epsg_of


@dataclass(frozen=True)
class CellLook:
    """One observation of some cells: the items that may show it, in the order in which they are asked."""

    moment: datetime
    #: Ids of the home granules, the newest first; then other tiles of the zone by name; then those of other zones.
    items: tuple[str, ...]

    @property
    def day(self) -> int:
        """Day of the year."""
        return self.moment.timetuple().tm_yday


def months_of(
    looks: Sequence[Look], home: GranuleGrid, grids: dict[str, GranuleGrid]
) -> dict[int, tuple[CellLook, ...]]:
    """Looks by month, each with its items in the order in which they are asked."""
    months: dict[int, list[CellLook]] = defaultdict(list)
    for look in looks:
        ordered = sorted(
            look.tiles,
            key=lambda tile: (
                sentinel2_tile(tile[0]) != home.tile,
                epsg_of(tile[0], grids) != home.epsg,
                sentinel2_tile(tile[0]),
            ),
        )
        names = tuple(item.id for granules in ordered for item in granules)
        months[look.moment.month].append(CellLook(look.moment, names))
    return {month: tuple(of_month) for month, of_month in months.items()}
