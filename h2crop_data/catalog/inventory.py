"""Pinned items: the exact scenes of a plan, kept as stac-geoparquet."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pystac
from shapely.geometry import shape
from stac_geoparquet.arrow import parse_stac_items_to_arrow, stac_table_to_items, to_parquet

#: Member that holds, as JSON, what a table cannot: members that have one type in one item and another in the next.
PACKED = "h2crop:packed"
#: Members that a stac-geoparquet table keeps as times.
TIMES = ("created", "updated", "published", "expires", "unpublished", "start_datetime", "end_datetime")
#: What Arrow raises for values that have no type in common.
NO_COMMON_TYPE = (pa.ArrowException, OverflowError, TypeError, ValueError)


def items_to_parquet(items: list[pystac.Item]) -> bytes:
    """Items (at least one) as a stac-geoparquet file."""
    documents = [item.to_dict(include_self_link=False, transform_hrefs=False) for item in items]
    for document in documents:
        # They are the item's own, which is not to change.
        document["properties"] = dict(document["properties"])
        if document["geometry"] is not None and not is_box(document.get("bbox")):
            document["bbox"] = list(shape(document["geometry"]).bounds)
    pack_mixed([document["properties"] for document in documents])
    assets: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for document in documents:
        for key, asset in document["assets"].items():
            assets[key].append(asset)
    for group in assets.values():
        pack_mixed(group)
    table = parse_stac_items_to_arrow(documents)
    # The library takes nothing but a path.
    with NamedTemporaryFile(suffix=".parquet") as file:
        to_parquet(table, file.name)
        return Path(file.name).read_bytes()


def items_from_parquet(data: bytes) -> list[pystac.Item]:
    """The items of a stac-geoparquet file, in its order."""
    return [pystac.Item.from_dict(feature, migrate=False) for feature in features_from_parquet(data)]


def features_from_parquet(data: bytes) -> list[dict[str, Any]]:
    """The same as JSON."""
    found = stac_table_to_items(pq.read_table(io.BytesIO(data)))
    return [unpacked(without_nulls(item)) for item in found]


def is_box(bbox: Any) -> bool:
    """Whether a bounding box is one of longitude and latitude: four numbers."""
    numbers = isinstance(bbox, list) and all(type(number) in (int, float) for number in bbox)
    return numbers and len(bbox) == 4


def pack_mixed(objects: Sequence[dict[str, Any]]) -> None:
    """Move the members that cannot be a column over some JSON objects into one text member of each object."""
    values: dict[str, list[Any]] = defaultdict(list)
    for one in objects:
        for key, value in one.items():
            values[key].append(value)
    mixed = sorted(key for key, found in values.items() if not can_be_column(key, found))
    for one in objects:
        packed = {key: one.pop(key) for key in mixed if key in one}
        if packed:
            one[PACKED] = json.dumps(packed, sort_keys=True)


def can_be_column(key: str, values: list[Any]) -> bool:
    """Whether the values of a member can be a column of a table: they have one type, which Parquet has too."""
    try:
        column = pa.array(values)
        if key in TIMES:
            pa.array(values, pa.string()).cast(pa.timestamp("us", tz="UTC"))
    except NO_COMMON_TYPE:
        return False
    return has_members(column.type)


def has_members(kind: pa.DataType) -> bool:
    """Whether every object in a type has members: Parquet has no others."""
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(has_members(kind.field(i).type) for i in range(kind.num_fields))
    return not pa.types.is_list(kind) or has_members(kind.value_type)


def unpacked(item: dict[str, Any]) -> dict[str, Any]:
    """The item with what was packed where it was."""
    for one in (item["properties"], *item["assets"].values()):
        one |= json.loads(one.pop(PACKED, "{}"))
    return item


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
