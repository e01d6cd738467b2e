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
import shapely
from shapely.geometry import shape
from stac_geoparquet.arrow import parse_stac_items_to_arrow, stac_table_to_items, to_parquet

#: Member that holds, as JSON, what a table cannot: members that have one type in one item and another in the next.
PACKED = "h2crop:packed"
#: Members that a stac-geoparquet table keeps as times.
TIMES = ("created", "updated", "published", "expires", "unpublished", "start_datetime", "end_datetime")
#: Columns of ground, which the library reads only where every row has one, with what stands in for none meanwhile.
POINT = shapely.Point(0, 0).wkb
GROUND = {"geometry": POINT, "proj:geometry": POINT, "bbox": dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), 0.0)}
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
    pack_mixed([document["properties"] for document in documents], len(documents))
    assets: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for document in documents:
        for key, asset in document["assets"].items():
            assets[key].append(asset)
    for group in assets.values():
        pack_mixed(group, len(documents))
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
    table, bare = with_ground(pq.read_table(io.BytesIO(data)))
    items = list(stac_table_to_items(table))
    for name, rows in bare.items():
        for row in rows:
            items[row].pop(name, None)
            items[row]["properties"].pop(name, None)
    return [unpacked(without_nulls({"geometry": None, **item})) for item in items]


def with_ground(table: pa.Table) -> tuple[pa.Table, dict[str, list[int]]]:
    """The table with something in every row of its columns of ground, and column -> the rows that have nothing."""
    bare: dict[str, list[int]] = {}
    for name, instead in GROUND.items():
        place = table.schema.get_field_index(name)
        if place < 0:
            if name == "bbox":
                bare[name] = list(range(len(table)))
                table = table.append_column(name, pa.array([instead] * len(table)))
            continue
        values = table.column(place).to_pylist()
        rows = [row for row, value in enumerate(values) if is_bare(value)]
        if rows:
            kind = table.schema.field(place).type
            something = instead if name != "bbox" else {field.name: 0.0 for field in kind}
            filled = pa.array([something if is_bare(value) else value for value in values], kind)
            table, bare[name] = table.set_column(place, table.schema.field(place), filled), rows
    return table, bare


def is_bare(ground: Any) -> bool:
    """Whether a geometry or box is none."""
    return ground is None or (isinstance(ground, dict) and None in ground.values())


def is_box(bbox: Any) -> bool:
    """Whether a bounding box is one of longitude and latitude: four numbers."""
    numbers = isinstance(bbox, list) and all(type(number) in (int, float) for number in bbox)
    return numbers and len(bbox) == 4


def pack_mixed(objects: Sequence[dict[str, Any]], rows: int) -> None:
    """Move the members that cannot be a column over some JSON objects into one text member of each object.

    rows: of the table; columns of ground need a value in each.
    """
    values: dict[str, list[Any]] = defaultdict(list)
    for one in objects:
        for key, value in one.items():
            values[key].append(value)
    mixed = sorted(
        key
        for key, found in values.items()
        if not can_be_column(key, found) or (key in GROUND and len(found) - found.count(None) < rows)
    )
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
    for one in (item["properties"], *item.get("assets", {}).values()):
        one |= json.loads(one.pop(PACKED, "{}"))
    return item


def without_nulls(item: dict[str, Any]) -> dict[str, Any]:
    """The item without the nulls, however deep, that stand where only other items of the file have a value."""
    properties = filled_in(item["properties"])
    # `datetime: null` is meant (a range instead).
    properties.setdefault("datetime", None)
    stated = {key: value for key, value in item.items() if value is not None or key == "geometry"}
    own = {"assets": filled_in(item["assets"])} if stated.get("assets") is not None else {}
    return {**stated, "properties": properties, **own}


def filled_in(value: Any) -> Any:
    """A JSON value without the members of its objects that are null."""
    if isinstance(value, dict):
        return {key: filled_in(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [filled_in(member) for member in value]
    return value
