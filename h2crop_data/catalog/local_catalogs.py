"""Catalogs in files: an ItemCollection (JSON), a static catalog of linked files, or stac-geoparquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from h2crop_data.catalog.inventory import features_from_parquet
from h2crop_data.catalog.registry import known_providers
from h2crop_data.errors import CatalogError

PARQUET = (".parquet", ".geoparquet")
#: Links of a static catalog that lead to its parts.
PARTS = ("child", "item")
#: What a file of a folder is called that is given as a catalog.
ROOTS = ("catalog.json", "collection.json")


def features_of(path: Path) -> Iterator[tuple[Any, Path]]:
    """The features of a local catalog, each with the file it stands in. Raises CatalogError naming a damaged file."""
    if path.is_dir():
        path = next((path / name for name in ROOTS if (path / name).exists()), path)
    if path.suffix.lower() in PARQUET:
        yield from ((feature, path) for feature in parquet_features(path))
        return
    document = document_of(path)
    if isinstance(document, dict) and document.get("type") in ("Catalog", "Collection"):
        yield from linked_features(document, path)
        return
    try:
        features = document["features"]
    except (KeyError, TypeError) as error:
        raise CatalogError(f"{path} is not a STAC ItemCollection (JSON with features): {error}") from error
    if not isinstance(features, list):
        raise CatalogError(f"{path} is not a STAC ItemCollection: its features are no list")
    yield from ((feature, path) for feature in features)


def document_of(path: Path) -> Any:
    """The JSON of a file. Raises CatalogError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "" if path.suffix else f" (nor is it the name of a provider: {', '.join(known_providers())})"
        raise CatalogError(f"cannot read the ItemCollection {path}: {error.strerror or error}{hint}") from error
    except ValueError as error:
        raise CatalogError(f"{path} is not a STAC ItemCollection (JSON with features): {error}") from error


def parquet_features(path: Path) -> list[Any]:
    """The features of a stac-geoparquet file. Raises CatalogError."""
    try:
        return features_from_parquet(path.read_bytes())
    except OSError as error:
        raise CatalogError(f"cannot read {path}: {error.strerror or error}") from error
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CatalogError(f"{path} is not a stac-geoparquet file: {type(error).__name__}: {error}") from error


def linked_features(document: dict[str, Any], path: Path) -> Iterator[tuple[Any, Path]]:
    """The items below a static catalog, each once, however often it is linked. Raises CatalogError for none."""
    seen, found = {path.resolve()}, 0
    waiting = [(document, path)]
    while waiting:
        parent, place = waiting.pop()
        for link in parent.get("links") or []:
            if link.get("rel") not in PARTS:
                continue
            part = linked_file(str(link.get("href")), place)
            if part in seen:
                continue
            seen.add(part)
            child = document_of(part)
            kind = child.get("type") if isinstance(child, dict) else None
            if kind == "Feature":
                found += 1
                yield child, part
            elif kind in ("Catalog", "Collection"):
                waiting.append((child, part))
            else:
                raise CatalogError(f"{part}, which {place} links to, is neither a STAC item nor a catalog")
    if not found:
        raise CatalogError(f"{path} is a static catalog that links to no item")


def linked_file(href: str, place: Path) -> Path:
    """The file that a link of another file leads to. Raises CatalogError for one that is not on this machine."""
    found = file_beside(href, place)
    if found is None:
        raise CatalogError(f"{place} links to {href}, which is not a file: name the catalog it is part of by its URL")
    return Path(found)


def file_beside(href: str, place: Path) -> str | None:
    """The absolute path of a file that another one names: relative, absolute or `file://`; None for other addresses."""
    if href.startswith("file://"):
        return unquote(urlsplit(href).path)
    if "://" in href or href.startswith("/vsi"):
        return None
    return href if href.startswith("/") else str((place.parent / href).resolve())
