"""Reading windows of granules: files stay open from window to window, remote ones are read several at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from h2crop_data.catalog.access import (
    AlignedWindow,
    ResamplingName,
    aligned_window,
    asset_in_words,
    gdal_options,
    grid_of,
    in_words,
    is_remote,
    load_placed,
    named,
    read_aligned_window,
    repeated,
    retried,
)
from h2crop_data.catalog.file_access import READING_ERRORS, FileAccess, access_to, connections_of
from h2crop_data.catalog.file_against_item import Difference, file_against_item
from h2crop_data.catalog.file_versions import VERSIONS
from h2crop_data.catalog.number_formats import check_file_offset, check_offset_of_floats, number_format, stated_scale
from h2crop_data.errors import SceneError
from h2crop_data.redaction import redacted_errors
from h2crop_data.settings import Processes
from h2crop_data.shared_connections import SharedConnections

#: Pixels of a grid along a pixel of a file that are given as the file has them: 20 m over 10 m.
KEPT_TIMES = 2
#: Metres by which files of one granule may end apart: a pixel of its coarsest bands.
COARSEST_PIXEL = 60
#: The threads of each provider.
POOLS: dict[tuple[str, int], ThreadPoolExecutor] = {}
POOLS_LOCK = threading.Lock()


@dataclass(frozen=True)
class OpenFile:
    """A file that stays open, and what it is read with."""

    dataset: rasterio.DatasetReader
    access: FileAccess


class GranuleReader:
    """Reads assets of Sentinel-2 items on grids of 10 m. To be used in a `with` block, which closes the files."""

    def __init__(self, connections: int, given_up: Collection[str] = (), offset_by_item: Collection[str] = ()) -> None:
        """connections: to one provider at a time, of all readers of this process and those it shares them with.

        given_up: items (ids) that were tried for long enough: their files are tried once. offset_by_item: items whose
        offset no recipe declares: what they say of it is held against the type of their numbers.
        """
        self._given_up, self._offset_by_item = given_up, offset_by_item
        self._sharing = Processes.read().sharing
        self._wanted, self.connections = connections, max(1, connections // self._sharing)
        self._files: dict[str, tuple[threading.Lock, list[OpenFile]]] = {}
        #: Item -> the first of its files that was opened, and its grid.
        self._ground: dict[str, tuple[str, GeoBox]] = {}
        #: Item and asset -> where the item says something else of its file than that has; empty for nowhere.
        self._differences: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._begun: set[Future[NDArray[Any]]] = set()
        #: Internal tiles that were decoded, and their bytes as the files state them (0 where they do not).
        self.tiles = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A file is not closed while it is read; after an error what waits is not read.
        begun = set(self._begun)
        for future in begun:
            future.cancel()
        wait(begun)
        for _, opened in self._files.values():
            for file in opened:
                file.dataset.close()
        self._files.clear()

    def begin(self, work: Callable[[], NDArray[Any]], href: str) -> Callable[[], NDArray[Any]]:
        """Begin to read a file, where it is remote; gives what waits for the result."""
        if not is_remote(href):
            return work
        archive = urlsplit(href).netloc
        future: Future[NDArray[Any]] = connections_to(archive, self.connections_for(href)).submit(
            self._in_turn, work, archive
        )
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        return future.result

    def _in_turn(self, work: Callable[[], NDArray[Any]], archive: str) -> NDArray[Any]:
        """Work with one of the connections to an archive, where each process having one would be too many."""
        if self._sharing <= self._wanted:
            return work()
        with SharedConnections(f"{archive}-{self._wanted}", self._wanted).one():
            return work()

    def connections_for(self, href: str) -> int:
        """Connections of this process to the archive of a file: its share of what recipe and archive allow."""
        return max(1, connections_of(href, self._wanted) // self._sharing)

    def close(self, hrefs: Iterable[str]) -> None:
        """Close files that are not read any more."""
        for href in hrefs:
            with self._lock:
                lock, files = self._files.pop(href, (threading.Lock(), []))
            with lock:
                while files:
                    files.pop().dataset.close()

    def read(self, item: pystac.Item, key: str, grid: GeoBox, resampling: ResamplingName) -> NDArray[Any] | None:
        """The numbers of an asset, as `as_numbers`: (y, x) of the grid, or, of a 20 m file that lies on it, half of it.

        None where it has another CRS than the grid: see `warp`. Raises ReadError and SceneError as `load_placed`.
        """

        def aligned(dataset: rasterio.DatasetReader) -> NDArray[Any] | bool:
            window = aligned_window(dataset, grid, resampling)
            if window is None:
                return bool(dataset.crs == grid.crs)
            pixels = read_aligned_window(dataset, window, stated_scale(item.assets[key]))
            self._count(dataset, window)
            return pixels if window.times in (1, KEPT_TIMES) else repeated(pixels, window.times)

        found = self._with_file(item, key, aligned)
        if isinstance(found, bool):
            return load_placed(item, key, grid, resampling) if found else None
        pixels: NDArray[Any] = found
        return pixels

    def warp(self, item: pystac.Item, key: str, grid: GeoBox, resampling: ResamplingName) -> NDArray[Any]:
        """The numbers of an asset of another CRS on a grid, (y, x).

        GDAL approximates where pixels lie, so they depend a little on the grid: take one that depends on nothing else.
        """
        if (item.id, key) not in self._differences:
            self._with_file(item, key, lambda dataset: None)
        return load_placed(item, key, grid, resampling)

    def differences(self, item: pystac.Item, keys: Iterable[str]) -> set[Difference]:
        """Where an item says something else of its files than these have, of those of some assets that were read."""
        found = ((key, self._differences.get((item.id, key))) for key in keys)
        return {(item.id, key, what) for key, what in found if what}

    def _with_file(self, item: pystac.Item, key: str, use: Callable[[rasterio.DatasetReader], Any]) -> Any:
        """What `use` makes of the open file of an asset, which is opened again for another try."""
        href = item.assets[key].href
        with self._lock:
            lock, opened = self._files.setdefault(href, (threading.Lock(), []))

        def work() -> Any:
            is_new = not opened
            if is_new:
                # Signed now; where its signature ends while it is open, reading fails and it is opened again.
                access = VERSIONS.access(href, access_to(href))
                with redacted_errors(*READING_ERRORS), access.environment(gdal_options()):
                    try:
                        opened.append(OpenFile(VERSIONS.open(href, access), access))
                    except READING_ERRORS:
                        VERSIONS.check(href, access)
                        raise
            file = opened[0]
            with redacted_errors(*READING_ERRORS), file.access.environment(gdal_options()):
                try:
                    if is_new:
                        self._check(item, file.dataset)
                        number_format(file.dataset, stated_scale(item.assets[key]))
                        check_file_offset(file.dataset, item.assets[key])
                        if item.id in self._offset_by_item:
                            check_offset_of_floats(file.dataset, item, key)
                    if (item.id, key) not in self._differences:
                        self._differences[item.id, key] = file_against_item(
                            item, key, file.dataset, VERSIONS.size(href)
                        )
                    return use(file.dataset)
                except READING_ERRORS:
                    # A version that is there no more cannot be read.
                    opened.pop().dataset.close()
                    VERSIONS.check(href, file.access)
                    raise
                except Exception:
                    opened.pop().dataset.close()
                    raise

        what, remote = asset_in_words(item, key), is_remote(href)
        with named(item, key), lock:
            if item.id in self._given_up:
                return retried(work, what, remote=remote, tries=1)
            return retried(work, what, remote=remote)

    def _check(self, item: pystac.Item, dataset: rasterio.DatasetReader) -> None:
        """Raise SceneError for a file that says not where it lies, or covers other ground than others of its item."""
        grid = grid_of(dataset)
        if dataset.transform.b or dataset.transform.d:
            return
        bounds = np.array(grid.extent.boundingbox)
        with self._lock:
            name, other = self._ground.setdefault(item.id, (dataset.name, grid))
        apart = np.abs(bounds - np.array(other.extent.boundingbox)).max()
        if grid.crs != other.crs or (dataset.crs.is_projected and apart > COARSEST_PIXEL):
            raise SceneError(
                f"{dataset.name} covers {in_words(grid)}, which is not the ground of {name} of the same scene; "
                "leave the scene out with `sentinel2.gaps: record`"
            )

    def _count(self, dataset: rasterio.DatasetReader, window: AlignedWindow) -> None:
        """Count the internal tiles under a window."""
        inside = window.inside(dataset)
        if not (inside.height > 0 and inside.width > 0):
            return
        height, width = dataset.block_shapes[0]
        rows = range(inside.row_off // height, (inside.row_off + inside.height - 1) // height + 1)
        columns = range(inside.col_off // width, (inside.col_off + inside.width - 1) // width + 1)
        size = 0
        if dataset.driver == "GTiff":
            sizes = (dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1) for y in rows for x in columns)
            size = sum(int(found or 0) for found in sizes)
        with self._lock:
            self.tiles += len(rows) * len(columns)
            self.bytes += size


def connections_to(provider: str, connections: int) -> ThreadPoolExecutor:
    """The threads that read from a provider, kept: a new thread costs GDAL a new projection database."""
    with POOLS_LOCK:
        if (provider, connections) not in POOLS:
            POOLS[provider, connections] = ThreadPoolExecutor(connections, thread_name_prefix=f"read {provider}")
        return POOLS[provider, connections]
