"""Pinned items: the exact scenes of a plan, kept as stac-geoparquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pystac
from stac_geoparquet.arrow import parse_stac_items_to_arrow, stac_table_to_items, to_parquet


def write_items(path: Path, items: list[pystac.Item]) -> None:
    """Write items to a stac-geoparquet file; no items, no file."""
    if items:
        to_parquet(parse_stac_items_to_arrow([item.to_dict(include_self_link=False) for item in items]), path)


def read_items(path: Path) -> list[pystac.Item]:
    """The items of a stac-geoparquet file, in its order; none where there is no file."""
    if not path.exists():
        return []
    return [pystac.Item.from_dict(without_nulls(item), migrate=False) for item in stac_table_to_items(pq.read_table(path))]


def without_nulls(item: dict[str, Any]) -> dict[str, Any]:
    """The item without the properties and assets that are null because other items of the file have them."""
    properties = {key: value for key, value in item["properties"].items() if value is not None}
    # `datetime: null` is meant (a range instead).
    properties.setdefault("datetime", None)
    assets = {
        key: {name: value for name, value in asset.items() if value is not None}
        for key, asset in item["assets"].items()
        if asset is not None
    }
    return {**item, "properties": properties, "assets": assets}
