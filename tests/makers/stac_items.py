"""STAC items of a few facts."""

from __future__ import annotations

import json
from typing import Any

import pystac
import shapely


def item_json(
    name: str,
    *,
    collection: str | None = "sentinel-2-l2a",
    time: str | None = "2022-06-15T10:30:00Z",
    box: tuple[float, float, float, float] = (5, 50, 6, 51),
    assets: dict[str, Any] | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """A STAC item as JSON; `__` in a property's name stands for a colon."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "geometry": json.loads(shapely.to_geojson(shapely.box(*box))),
        "bbox": list(box),
        "properties": {"datetime": time, **{key.replace("__", ":"): value for key, value in properties.items()}},
        "links": [],
        "assets": {"blue": {"href": "blue.tif"}} if assets is None else assets,
        **({"collection": collection} if collection else {}),
    }


def item_of(name: str, **settings: Any) -> pystac.Item:
    """The same as an item."""
    return pystac.Item.from_dict(item_json(name, **settings), migrate=False)
