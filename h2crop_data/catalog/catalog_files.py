"""Catalogs in files, here or on a web server: an ItemCollection (JSON), a static catalog of linked files, or
stac-geoparquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pyarrow as pa

from h2crop_data.catalog.access import PIECE_BYTES, retried
from h2crop_data.catalog.file_access import remote_pieces
from h2crop_data.catalog.inventory import features_from_parquet
from h2crop_data.catalog.registry import known_providers
from h2crop_data.errors import ArchiveOutageError, CatalogError, CatalogOutageError, ReadError
from h2crop_data.settings import Archives

PARQUET = (".parquet", ".geoparquet")
#: What catalogs in files are called; any other address is that of an API.
FILES = (*PARQUET, ".json", ".geojson")
#: Links of a static catalog that lead to its parts.
LINKED_PARTS = ("child", "item")
#: What a file of a folder is called that is given as a catalog.
ROOTS = ("catalog.json", "collection.json")


def is_web(place: str) -> bool:
    """Whether a place is on a web server."""
    return place.startswith(("http://", "https://"))


def is_file_of_items(source: str) -> bool:
    """Whether a catalog is a file, here or on a web server, and not an API."""
    return not is_web(source) or suffix_of(source) in FILES


def suffix_of(place: str) -> str:
    """The ending of a file's name in lower case."""
    return Path(urlsplit(place).path if is_web(place) else place).suffix.lower()


def features_of(catalog: str) -> Iterator[tuple[Any, str]]:
    """The features of a catalog in files, each with the file it stands in. Raises CatalogError naming a damaged file.

    catalog: path or URL.
    """
    if not is_web(catalog) and Path(catalog).is_dir():
        root = next((str(Path(catalog) / name) for name in ROOTS if (Path(catalog) / name).exists()), None)
        if root is None:
            raise CatalogError(
                f"the folder {catalog} has no {' or '.join(ROOTS)}: give the file in it that lists the items"
            )
        catalog = root
    if suffix_of(catalog) in PARQUET:
        yield from ((feature, catalog) for feature in parquet_features(catalog))
        return
    document = document_of(catalog)
    if isinstance(document, dict) and document.get("type") in ("Catalog", "Collection"):
        yield from linked_features(document, catalog)
        return
    try:
        features = document["features"]
    except (KeyError, TypeError) as error:
        raise CatalogError(f"{catalog} is not a STAC ItemCollection (JSON with features): {error}") from error
    if not isinstance(features, list):
        raise CatalogError(f"{catalog} is not a STAC ItemCollection: expected its `features` to be a list")
    yield from ((feature, catalog) for feature in features)


def content_of(place: str) -> bytes:
    """The bytes of a file. Raises CatalogError."""
    try:
        if is_web(place):
            return retried(
                lambda: b"".join(remote_pieces(place, PIECE_BYTES, Archives.read().timeout)), place, remote=True
            )
        return Path(place).read_bytes()
    except ReadError as error:
        kind = CatalogOutageError if isinstance(error, ArchiveOutageError) else CatalogError
        raise kind(str(error)) from error
    except OSError as error:
        hint = "" if suffix_of(place) else f" (not a provider either; known providers: {', '.join(known_providers())})"
        raise CatalogError(f"cannot read the ItemCollection {place}: {error.strerror or error}{hint}") from error


def document_of(place: str) -> Any:
    """The JSON of a file. Raises CatalogError."""
    try:
        return json.loads(content_of(place))
    except ValueError as error:
        raise CatalogError(f"{place} is not a STAC ItemCollection (JSON with features): {error}") from error


def parquet_features(place: str) -> list[Any]:
    """The features of a stac-geoparquet file. Raises CatalogError."""
    try:
        return features_from_parquet(content_of(place))
    except (pa.ArrowException, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CatalogError(f"{place} is not a stac-geoparquet file: {type(error).__name__}: {error}") from error


def linked_features(document: dict[str, Any], place: str) -> Iterator[tuple[Any, str]]:
    """The items below a static catalog, each once, however often it is linked. Raises CatalogError for none."""
    seen, found = {address_beside(place, place)}, 0
    waiting = [(document, place)]
    while waiting:
        parent, own = waiting.pop()
        for href in linked_parts(parent, own):
            part = address_beside(href, own)
            if part in seen:
                continue
            seen.add(part)
            if is_web(part) and not is_web(place):
                raise CatalogError(
                    f"{own} links to {part}, which is not a file on this machine: give the catalog by its URL"
                )
            child = document_of(part)
            kind = child.get("type") if isinstance(child, dict) else None
            if kind == "Feature":
                found += 1
                yield child, part
            elif kind in ("Catalog", "Collection"):
                waiting.append((child, part))
            else:
                raise CatalogError(f"{part}, linked from {own}, is neither a STAC item nor a STAC catalog")
    if not found:
        raise CatalogError(f"{place} is a static catalog without links to items")


def linked_parts(document: dict[str, Any], place: str) -> Iterator[str]:
    """The addresses of the parts of a static catalog, as they stand in its file. Raises CatalogError for odd links."""
    links = document.get("links") or []
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise CatalogError(
            f"{place}: expected `links` to be a list of objects with `rel` and `href`, got {links!r:.60}"
        )
    for link in links:
        if link.get("rel") not in LINKED_PARTS:
            continue
        if not isinstance(link.get("href"), str):
            raise CatalogError(f"{place} has a link ({link['rel']}) without an address (`href`)")
        yield link["href"]


def address_beside(href: str, place: str) -> str:
    """The absolute path or URL of a file that another one names: relative, absolute, or with a scheme."""
    if href.startswith("file://"):
        return unquote(urlsplit(href).path)
    if "://" in href or href.startswith("/vsi"):
        return href
    if is_web(place):
        return urljoin(place, href)
    return href if href.startswith("/") else str((Path(place).parent / href).resolve())
