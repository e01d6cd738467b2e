"""Finding scenes: in STAC APIs and in local ItemCollections, by the same rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import shapely
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import PystacClientWarning
from requests.exceptions import RequestException
from shapely.errors import ShapelyError
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry
from urllib3.util.retry import Retry

from h2crop_data.errors import CatalogError

#: Seconds to wait for a catalog; tries and the growing pause between them.
TIMEOUT = 60
RETRIES = Retry(
    total=5,
    backoff_factor=1,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    respect_retry_after_header=True,
)
PAGE_SIZE = 250
#: Vertices of the largest geometry a server is asked with.
MOST_VERTICES = 500
#: What pystac raises for JSON that is not what it should be.
NOT_STAC = (pystac.STACError, pystac.STACTypeError, AttributeError, KeyError, TypeError, ValueError)


def find_items(
    source: str, collection: str, area: BaseGeometry, start: datetime, end: datetime, *, retries: Retry = RETRIES
) -> list[pystac.Item]:
    """The items of a collection that meet an area and were acquired in start <= time < end, in order of id.

    source: URL of a STAC API or path of a local ItemCollection, whose relative hrefs become absolute paths.
    area: longitude and latitude. Servers have been seen to ignore parts of a query, so everything is tested again here.
    Raises CatalogError naming the catalog, or the item that is damaged.
    """
    if source.startswith(("http://", "https://")):
        found = search_api(source, collection, area, start, end, retries)
    else:
        found = read_item_collection(Path(source))
    shapely.prepare(area)
    kept = {
        item.id: item
        for item in found
        if item.collection_id in (collection, None) and start <= acquired(item) < end and meets(item, area)
    }
    return [kept[name] for name in sorted(kept)]


def search_api(
    url: str, collection: str, area: BaseGeometry, start: datetime, end: datetime, retries: Retry
) -> Iterator[pystac.Item]:
    """Items of a STAC API search, page by page."""
    # Servers refuse large geometries; what a simpler one finds too much is left out by the caller.
    asked = area if shapely.get_num_coordinates(area) <= MOST_VERTICES else shapely.box(*area.bounds)
    try:
        client = Client.open(url, stac_io=StacApiIO(max_retries=retries, timeout=TIMEOUT))
        search = client.search(
            collections=[collection],
            intersects=json.loads(json.dumps(mapping(asked))),
            datetime=(start, end),
            limit=PAGE_SIZE,
        )
        yield from search.items()
    except APIError as error:
        # It has a status only where an answer came: not after the last retry, nor without a connection.
        status = getattr(error, "status_code", None)
        if status is None:
            raise CatalogError(f"{url} does not answer: {error}") from error
        raise CatalogError(f"{url} refused the search for {collection} (HTTP {status}): {error}") from error
    except (RequestException, ClientTypeError, PystacClientWarning, *NOT_STAC) as error:
        raise CatalogError(f"{url} did not answer as a STAC API: {type(error).__name__}: {error}") from error


def read_item_collection(path: Path) -> Iterator[pystac.Item]:
    """Items of a local ItemCollection; relative hrefs start from its folder."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        features = document["features"]
    except OSError as error:
        raise CatalogError(f"cannot read the ItemCollection {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(f"{path} is not a STAC ItemCollection (JSON with features): {error}") from error
    if not isinstance(features, list):
        raise CatalogError(f"{path} is not a STAC ItemCollection: its features are no list")
    for number, feature in enumerate(features):
        try:
            item = pystac.Item.from_dict(feature, preserve_dict=False, migrate=False)
        except NOT_STAC as error:
            name = feature.get("id") if isinstance(feature, dict) else None
            raise CatalogError(f"{path}: {name or f'feature {number}'} is not a STAC item: {error}") from error
        for asset in item.assets.values():
            if "://" not in asset.href and not asset.href.startswith("/"):
                asset.href = str((path.parent / asset.href).resolve())
        yield item


def acquired(item: pystac.Item) -> datetime:
    """When a scene was acquired, in UTC."""
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise CatalogError(f"item {item.id} states no time of acquisition")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def meets(item: pystac.Item, area: BaseGeometry) -> bool:
    """Whether an item's geometry meets an area (longitude, latitude)."""
    if item.geometry is None:
        return False
    try:
        return bool(shapely.intersects(area, shape(item.geometry)))
    except (AttributeError, KeyError, TypeError, ValueError, ShapelyError) as error:
        raise CatalogError(f"item {item.id} has no usable geometry: {error}") from error
