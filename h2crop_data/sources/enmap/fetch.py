"""EnMAP scenes downloaded whole: the files that builds read, in a folder that all builds share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pystac

from h2crop_data.catalog.access import is_remote
from h2crop_data.catalog.collections import add_items
from h2crop_data.catalog.downloads import FileCache
from h2crop_data.errors import ReadError
from h2crop_data.progress import Progress, silent
from h2crop_data.redaction import without_secrets
from h2crop_data.sources.enmap.products import READ_ASSETS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedScene:
    """The result for one scene."""

    id: str
    #: Files that builds read, and those of them that were there before.
    files: int
    kept: int
    #: Bytes downloaded.
    bytes: int
    #: Why it is not there whole; empty where it is.
    reason: str


@dataclass(frozen=True)
class FetchedScenes:
    """The results for some scenes."""

    into: str
    scenes: list[FetchedScene]

    @property
    def failed(self) -> list[FetchedScene]:
        """Those that are not complete."""
        return [scene for scene in self.scenes if scene.reason]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def fetch_scenes(
    items: Sequence[pystac.Item], cache: FileCache, into: Path, progress: Progress = silent
) -> FetchedScenes:
    """Download the files of scenes, and add complete scenes to the ItemCollection `into`.

    A scene whose files fail is reported and left out; others go on. Raises CatalogError where `into` cannot be written.
    """
    scenes = []
    total = sum(len(remote_assets(item)) for item in items)
    done = 0
    for item in items:
        kept = size = 0
        reason, hrefs = "", {}
        for key in remote_assets(item):
            text = f"{item.id} {key}"

            def show(came: int, length: int | None, done: int = done, text: str = text) -> None:
                share = f" of {length / 1e6:.0f}" if length else ""
                progress(done, total, f"{text}: {came / 1e6:.0f}{share} MB")

            progress(done, total, text)
            try:
                file = cache.fetch(item.assets[key].href, show)
            except ReadError as error:
                reason = str(error)
                break
            hrefs[key] = str(file.path)
            kept += not file.downloaded
            size += file.downloaded
            done += 1
        if not reason:
            # Written at once: what is there is used, whatever becomes of the next scene.
            add_items(into, [local_item(item, hrefs)])
            log.info("scene %s: %d files, %.1f MB downloaded", item.id, len(hrefs), size / 1e6)
        else:
            log.warning("scene %s is left out: %s", item.id, without_secrets(reason))
        scenes.append(FetchedScene(item.id, len(hrefs), kept, size, reason))
    progress(total, total, "downloaded")
    return FetchedScenes(str(into), scenes)


def remote_assets(item: pystac.Item) -> list[str]:
    """The assets of an item that builds read and that lie elsewhere."""
    return [key for key in READ_ASSETS if key in item.assets and is_remote(item.assets[key].href)]


def local_item(item: pystac.Item, hrefs: dict[str, str]) -> pystac.Item:
    """The same item with the files that builds read, where these lie now."""
    copy = item.full_copy()
    copy.assets = {key: asset for key, asset in copy.assets.items() if key in READ_ASSETS}
    for key, href in hrefs.items():
        copy.assets[key].href = href
    return copy
