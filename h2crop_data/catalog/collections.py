"""Local ItemCollections: writing them, and adding items to them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pystac

from h2crop_data.catalog.access import is_remote
from h2crop_data.catalog.drafts import draft_of
from h2crop_data.catalog.search import read_item_collection
from h2crop_data.errors import CatalogError


def write_items(path: Path, items: Sequence[pystac.Item]) -> None:
    """An ItemCollection of some items, in order of id; the file is there whole or as it was before.

    Files below its folder are named relative to it, so that both can be moved together. Raises CatalogError.
    """
    features = [feature(item, path.parent) for item in sorted(items, key=lambda item: item.id)]
    text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1, ensure_ascii=False)
    try:
        with draft_of(path) as draft:
            draft.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CatalogError(f"cannot write the ItemCollection {path}: {error.strerror or error}") from error


def add_items(path: Path, items: Sequence[pystac.Item]) -> set[str]:
    """Add items to an ItemCollection, which is created if it does not exist; gives the ids that it had already.

    An item of an id that is there takes its place. Processes that add to one file at once wait for each other. Raises
    CatalogError for a file that is not an ItemCollection.
    """
    with locked(path):
        there = {item.id: item for item in read_item_collection(path)} if path.exists() else {}
        replaced = {item.id for item in items} & there.keys()
        write_items(path, list({**there, **{item.id: item for item in items}}.values()))
    return replaced


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """No other process is at a file, by a hidden one beside it meanwhile. Raises CatalogError where none can be."""
    beside = path.with_name(f".{path.name}.lock")
    while True:
        try:
            beside.parent.mkdir(parents=True, exist_ok=True)
            # The folder itself would not do: network file systems lock only what is opened for writing.
            lock = beside.open("w")
        except OSError as error:
            raise CatalogError(f"cannot write the ItemCollection {path}: {error.strerror or error}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever had it before may have deleted it: then others lock a new one.
            if not is_still(beside, os.fstat(lock.fileno())):
                continue
            try:
                yield
            finally:
                beside.unlink()
            return


def is_still(path: Path, opened: os.stat_result) -> bool:
    """Whether a path is the file that was opened there."""
    try:
        return os.path.samestat(path.stat(), opened)
    except FileNotFoundError:
        return False


def feature(item: pystac.Item, folder: Path) -> dict[str, Any]:
    """An item as JSON for a file of a folder."""
    document = item.to_dict(include_self_link=False, transform_hrefs=False)
    # It shares its parts with the item, which is not to change.
    document["assets"] = {
        key: {**asset, "href": href_from(asset["href"], folder)} for key, asset in document["assets"].items()
    }
    return document


def href_from(href: str, folder: Path) -> str:
    """The address of a file as an ItemCollection of a folder writes it."""
    if is_remote(href):
        return href
    target, start = Path(href).resolve(), folder.resolve()
    return f"./{target.relative_to(start).as_posix()}" if target.is_relative_to(start) else str(target)
