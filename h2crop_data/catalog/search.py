"""Finding scenes: in STAC APIs and in local ItemCollections, by the same rules."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pystac
import shapely
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.warnings import PystacClientWarning
from requests.exceptions import RequestException
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry
from urllib3.util.retry import Retry

from h2crop_data.catalog.answers import is_passing_status
from h2crop_data.catalog.api_reader import RETRIES, ApiReader, NoAnswerError
from h2crop_data.catalog.catalog_files import features_of, is_file_of_items
from h2crop_data.catalog.features import NOT_STAC, Listing, item_of
from h2crop_data.catalog.footprints import place_item
from h2crop_data.catalog.items import acquired, acquired_if_stated, each_once, identity
from h2crop_data.catalog.registry import provider_of
from h2crop_data.errors import CatalogError, CatalogOutageError, IncompleteSearchError, SceneError
from h2crop_data.redaction import without_secrets

log = logging.getLogger(__name__)
PAGE_SIZE = 250
#: Pages without an item, one after the other, after which a search is given up.
MOST_EMPTY_PAGES = 20
#: What to do about a search that is not whole.
AGAIN = "Rerun; if the error persists, report it to the operator of the catalog, or search a smaller area"
#: Vertices of the largest geometry a server is asked with.
MOST_VERTICES = 500


class RepeatedPageError(IncompleteSearchError):
    """A search that returned a page a second time."""


class EndlessSearchError(IncompleteSearchError):
    """A search that continues with pages without items."""


@dataclass(frozen=True)
class Found:
    """The items of a collection over an area in a span of time."""

    #: Each item once, in order of id, ground and product.
    items: list[pystac.Item]
    #: Items of that collection that are damaged, or of which nobody can say where they lie or when they were acquired,
    #: with the reason.
    refused: list[tuple[pystac.Item, str]]
    #: Those of `items` whose footprint is not the stated one, with what is wrong with that.
    corrected: list[tuple[pystac.Item, str]]
    #: What is strange about the search as a whole, though nothing is missing.
    notes: list[str]


def find_items(
    source: str,
    collection: str,
    area: BaseGeometry,
    start: datetime,
    end: datetime,
    *,
    retries: Retry = RETRIES,
    sleep: Callable[[float], None] = time.sleep,
) -> Found:
    """The items of a collection that meet an area and were acquired in start <= time < end.

    source: URL of a STAC API, or path or URL of a catalog in files, whose relative hrefs become absolute. area:
    longitude and latitude. Some servers ignore parts of a query, so everything is tested again here. The footprint of
    each item becomes the ground it means. retries, sleep: as for `ApiReader`. Raises CatalogError naming the catalog,
    CatalogOutageError where it may answer later.
    """
    begun = time.monotonic()
    listing = (
        listed_in_files(source)
        if is_file_of_items(source)
        else search_api(source, collection, area, start, end, partial(ApiReader, retries, sleep))
    )
    shapely.prepare(area)
    kept: list[pystac.Item] = []
    refused: list[tuple[pystac.Item, str]] = []
    corrected: list[tuple[pystac.Item, str]] = []
    known = [(item, "") for item in each_once(listing.items)]
    for item, damage in known + list({identity(item): (item, why) for item, why in listing.damaged}.values()):
        moment = acquired_if_stated(item)
        if item.collection_id not in (collection, None) or (moment and not start <= moment < end):
            continue
        try:
            wrong = place_item(item)
            if not shapely.intersects(area, shape(item.geometry)):
                continue
            # An item that does not say when it was acquired may belong here or not.
            acquired(item)
        except SceneError as error:
            refused.append((item, damage or str(error)))
            continue
        if damage:
            refused.append((item, damage))
            continue
        kept.append(item)
        if wrong:
            corrected.append((item, wrong))
    found, spent = Found(kept, refused, corrected, listing.notes), time.monotonic() - begun
    log.info(
        "%s: %d items of %s from %s to %s, %d with a corrected footprint; %d refused (%.1f s)",
        without_secrets(source),
        len(kept),
        collection,
        start.date(),
        end.date(),
        len(corrected),
        len(refused),
        spent,
        extra={"items": len(kept), "refused": len(refused), "seconds": round(spent, 3)},
    )
    return found


@dataclass(frozen=True)
class Pages:
    """All pages of a search."""

    listing: Listing
    #: Of each item that was given, in order, what makes it the one it is.
    given: list[tuple[str, str, str, str]]
    #: How many the pages say there are.
    promised: list[int]

    @property
    def different(self) -> int:
        """How many items were given, each counted once."""
        return len(set(self.given))

    @property
    def is_whole(self) -> bool:
        """Whether it has as many items as it states: while a catalog grows, later pages state more than the first."""
        return not self.promised or self.different >= min(self.promised)


def search_api(
    url: str, collection: str, area: BaseGeometry, start: datetime, end: datetime, new_reader: Callable[[], ApiReader]
) -> Listing:
    """Items of a STAC API search, and notes on anomalies. new_reader: makes what reads the API.

    Raises CatalogError where it returns fewer items than it states, also at a second attempt.
    """
    try:
        first = search_once(url, collection, area, start, end, new_reader)
    except RepeatedPageError:
        first = None
    # A catalog that is being written to loses its place between two pages.
    if first is None or not first.is_whole:
        lacking = "a page came twice" if first is None else f"{first.different} of {min(first.promised)} items came"
        log.warning("%s: the search for %s is not whole (%s): asking again", without_secrets(url), collection, lacking)
    pages = first if first and first.is_whole else search_once(url, collection, area, start, end, new_reader)
    told = f"{url} states that {{}} items of {collection} match {{}} search, but returned {pages.different}"
    if not pages.is_whole:
        fewest = min(pages.promised)
        if first is None or len(pages.given) < fewest or pages.given != first.given:
            raise IncompleteSearchError(f"{told.format(fewest, 'the')}: some are missing. {AGAIN}")
        repeated = len(pages.given) - pages.different
        pages.listing.notes.append(
            f"{told.format(fewest, 'a')}, {repeated} of them more than once, and the same when asked again: it "
            "either counts duplicates twice or returns duplicates instead of other items"
        )
    elif pages.promised and pages.different > max(pages.promised):
        pages.listing.notes.append(told.format(max(pages.promised), "a"))
    return pages.listing


def search_once(
    url: str, collection: str, area: BaseGeometry, start: datetime, end: datetime, new_reader: Callable[[], ApiReader]
) -> Pages:
    """The same, asked once. Raises RepeatedPageError where a page comes again, CatalogError."""
    # Servers refuse large geometries; what a simpler one finds too much is left out by the caller.
    provider, shown_url = provider_of(url), without_secrets(url)
    asked = area if shapely.get_num_coordinates(area) <= MOST_VERTICES else shapely.box(*area.bounds)
    found = Pages(Listing(), [], [])
    try:
        reader = new_reader()
        client = Client.open(url, stac_io=reader)
        search = client.search(
            collections=[collection],
            intersects=json.loads(json.dumps(mapping(asked))),
            datetime=(start, end),
            limit=PAGE_SIZE if provider is None else provider.page_size,
        )
        for page in pages_of(url, reader, search):
            before = set(found.given)
            first = len(found.given)
            for number, feature in enumerate(page["features"], first):
                found.given.append(identity(found.listing.add(feature, f"feature {number}")))
            found.promised.extend(matched(page))
            log.debug("%s: a page of %d items, %d so far", shown_url, len(page["features"]), len(found.given))
            if page["features"] and before.issuperset(found.given[first:]):
                raise RepeatedPageError(
                    f"{url} returned a page of the search a second time, so items may be missing. {AGAIN}"
                )
    except EndlessSearchError:
        # Some servers always link to another page.
        if not found.promised or found.different < max(found.promised):
            raise
    except APIError as error:
        if isinstance(error, NoAnswerError):
            raise CatalogOutageError(f"{url} does not answer: {error}") from error
        # It has a status only where an answer came: an address that makes no sense is never asked.
        status = getattr(error, "status_code", None)
        if status is None:
            raise CatalogError(f"cannot connect to {url}: {error}") from error
        kind = CatalogOutageError if is_passing_status(status) else CatalogError
        raise kind(f"{url} refused the search for {collection} (HTTP {status}): {error}") from error
    except (RequestException, ClientTypeError, PystacClientWarning, *NOT_STAC) as error:
        raise CatalogError(f"{url} did not answer as a STAC API: {type(error).__name__}: {error}") from error
    return found


def pages_of(url: str, reader: ApiReader, search: Any) -> Iterator[dict[str, Any]]:
    """Every page of a search, those without an item too: some servers give one with a link to more.

    (pystac-client ends a search at an empty page.) Raises EndlessSearchError where empty pages do not end.
    """
    page = reader.read_json(search.url, method=search.method, parameters=search.get_parameters())
    empty = 0
    while True:
        empty = 0 if page["features"] else empty + 1
        yield page
        link = next((link for link in page.get("links") or [] if link.get("rel") == "next"), None)
        if link is None:
            return
        if empty >= MOST_EMPTY_PAGES:
            raise EndlessSearchError(
                f"{url} returned {empty} pages without items in a row, each with a link to a next page. {AGAIN}"
            )
        method = str(link.get("method", "GET")).upper()
        link = pystac.Link.from_dict({**link, "href": urljoin(search.url, link["href"]), "method": method})
        page = reader.read_json(link, parameters=search.get_parameters())


def matched(page: dict[str, Any]) -> list[int]:
    """How many items a page says match the search, also written as text; nothing where it does not say.

    0 says nothing: an empty last page may say so of itself.
    """
    told = page.get("numberMatched")
    if told is None:
        told = (page.get("context") or {}).get("matched")
    number = str(told).removesuffix(".0")
    return [int(number)] if number.isdecimal() and int(number) else []


def read_item_collection(catalog: Path | str) -> Iterator[pystac.Item]:
    """Items of a catalog in files (`features_of`); relative hrefs start from the file that an item stands in.

    Raises CatalogError for a damaged one.
    """
    for number, (feature, place) in enumerate(features_of(str(catalog))):
        try:
            yield item_of(feature, f"feature {number}", place)
        except ValueError as error:
            raise CatalogError(f"{place}: {error}") from error


def listed_in_files(catalog: str) -> Listing:
    """The same, with damaged items listed separately. Raises CatalogError for anything but an item."""
    listing = Listing()
    for number, (feature, place) in enumerate(features_of(catalog)):
        try:
            listing.add(feature, f"feature {number}", place)
        except ValueError as error:
            raise CatalogError(f"{place}: {error}") from error
    return listing
