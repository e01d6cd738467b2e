"""Parcels of a file and what was counted of its rows, in one call."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
from shapely.geometry.base import BaseGeometry

from h2crop_data.parcels.read import count_rows, open_parcels
from h2crop_data.parcels.read import read_parcels as read_opened

#: The counts of a file without any fault, but for how many rows it has.
NO_FAULT = dict.fromkeys(
    ("invalid", "three_dimensional", "null", "empty", "unreadable", "duplicate", "contradictory"), 0
)


def read_parcels(
    path: Path,
    code_field: str,
    *,
    id_field: str | None = None,
    layer: str | None = None,
    crs: str | None = None,
    area: BaseGeometry | None = None,
) -> tuple[gpd.GeoDataFrame, dict[str, int]]:
    """The parcels of a file, and how many rows were read, repaired and left out."""
    parcels, problems = read_opened(open_parcels(path, code_field, id_field=id_field, layer=layer, crs=crs), area)
    return parcels, count_rows(parcels, problems)
