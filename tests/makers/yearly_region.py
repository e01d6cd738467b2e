"""A region with a scene of each sensor and one parcel a year, for stores that grow by seasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tiny_region import NORTH, SOUTH, WEST, TinyRegion


def yearly_region(folder: Path, years: Sequence[int]) -> TinyRegion:
    """The files of such years; the images of each are a little brighter than those of the year before."""
    region = TinyRegion(folder)
    for year in years:
        region.add_sentinel2(f"S2_{year}", f"{year}-07-05T10:50:00Z", 900 + year - years[0])
        region.add_enmap(1, f"{year}0724T104526")
    for year in (years[0] - 1, *years):
        region.write_parcels(year, [((WEST + 10, SOUTH + 20, WEST + 200, NORTH - 20), "BTH")])
    return region
