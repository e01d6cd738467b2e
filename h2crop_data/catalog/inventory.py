"""Pinned items: the exact scenes of a plan, kept as stac-geoparquet."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pyarrow.parquet as pq
import pystac
from stac_geoparquet.arrow import parse_stac_items_to_arrow, stac_table_to_items, to_parquet


def items_to_parquet(items: list[pystac.Item]) -> bytes:
    """Items (at least one) as a stac-geoparquet file."""
    table = parse_stac_items_to_arrow([item.to_dict(include_self_link=False, transform_hrefs=False) for item in items])
    # The library takes nothing but a path.
    with NamedTemporaryFile(suffix=".parquet") as file:
        to_parquet(table, file.name)
        return Path(file.name).read_bytes()


def items_from_parquet(data: bytes) -> list[pystac.Item]:
    """The items of a stac-geoparquet file, in its order."""
    found = stac_table_to_items(pq.read_table(io.BytesIO(data)))
    return [pystac.Item.from_dict(without_nulls(item), migrate=False) for item in found]


def without_nulls(item: dict[str, Any]) -> dict[str, Any]:
    """The item without the nulls, however deep, that stand where only other items of the file have a value."""
    properties, assets = filled_in(item["properties"]), filled_in(item["assets"])
    # `datetime: null` is meant (a range instead).
    properties.setdefault("datetime", None)
    return {**item, "properties": properties, "assets": assets}


def filled_in(value: Any) -> Any:
    """A JSON value without the members of its objects that are null."""
    if isinstance(value, dict):
        return {key: filled_in(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [filled_in(member) for member in value]
    return value
