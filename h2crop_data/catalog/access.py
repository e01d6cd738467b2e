"""Opens the files of scenes, with credentials, retries and errors that name the file; no other module does."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject
from rasterio.windows import Window, intersect
from requests.exceptions import ConnectionError as LostConnectionError
from requests.exceptions import Timeout
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.answers import LateAnswerError, is_passing_status
from h2crop_data.catalog.file_access import ASK_AGAIN, opened_raster, remote_pieces
from h2crop_data.catalog.file_versions import opened_version
from h2crop_data.catalog.items import acquired
from h2crop_data.catalog.number_formats import as_numbers, check_file_offset, number_format, stated_scale
from h2crop_data.errors import ArchiveOutageError, ReadError, SceneError
from h2crop_data.grid import LONLAT, to_crs
from h2crop_data.redaction import without_secrets
from h2crop_data.sentinel2.reflectance import NO_NUMBER, WRAPPED
from h2crop_data.settings import Archives
from h2crop_data.waits import report_retry

log = logging.getLogger(__name__)
Result = TypeVar("Result")
ResamplingName = Literal["nearest", "bilinear", "cubic"]
#: Seconds for what is asked for once and can be missed.
SHORT_TIMEOUT = 10.0
#: Collection of the items that odc-stac is given.
PLACED = "placed"
#: Source pixels read around a grid that a raster is resampled to.
KERNEL_MARGIN = 4
#: Bytes of a file that is read piece by piece.
PIECE_BYTES = 2**18
#: What rasterio says instead of what GDAL said.
SEE_BEFORE = "See previous exception for details."
#: What GDAL says -> what it may mean.
MEANINGS = {
    "not recognized as being in": "possibly a login page, or no answer in time; check the account, then try again",
    "TIFFReadEncoded": "the file, or what the server sent of it, is truncated or damaged",
    "TIFFFillTile": "the file, or what the server sent of it, is truncated or damaged",
}
#: The status of an answer, as GDAL, requests and obstore write it.
STATUS = re.compile(r"(?:HTTP|code)[ :a-z]{0,20}(\d{3})\b|\b(\d{3}) (?:Client|Server) Error")
#: What is raised, and what GDAL says, where no answer came.
NO_ANSWER = (ConnectionError, TimeoutError, LateAnswerError, LostConnectionError, Timeout)
SIGNS_OF_NO_ANSWER = ("CURL error", "timed out", "Connection refused", "Connection reset", "Could not resolve")
#: Basic authentication comes from ~/.netrc; `gdal_options` adds what the environment says.
GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_NETRC": "YES",
    # Fewer bytes a second than that, for so many seconds, are no answer.
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    # Bytes of decoded tiles: of those of scenes each is used once.
    "GDAL_CACHEMAX": 200 * 2**20,
    # Bytes of files as they come. With as many tiles under way as the default holds, parts are dropped and asked again.
    "CPL_VSIL_CURL_CACHE_SIZE": str(64 * 2**20),
}


def gdal_options() -> dict[str, Any]:
    """Options of GDAL for files of archives.

    GDAL repeats failed requests itself, below our own tries, where there is a pause before these.
    """
    patience = Archives.read()
    pause = patience.pauses[0] if patience.pauses else 0
    return {
        **GDAL_OPTIONS,
        "GDAL_HTTP_MAX_RETRY": "3" if pause else "0",
        "GDAL_HTTP_RETRY_DELAY": f"{pause:g}",
        "GDAL_HTTP_TIMEOUT": f"{patience.timeout:g}",
    }


def retried(read: Callable[[], Result], what: str, *, remote: bool, tries: int | None = None) -> Result:
    """The result of `read`, tried again after each pause (`H2CROP_READ_PAUSES`) when a remote file fails.

    tries: how often at most, where that is fewer. Raises ReadError naming `what`, ArchiveOutageError where its server
    did not answer.
    """
    pauses = Archives.read().pauses[: None if tries is None else tries - 1] if remote else ()
    for number, pause in enumerate([*pauses, None]):
        try:
            with rasterio.Env(**ASK_AGAIN) if number else nullcontext():
                return read()
        except (RasterioError, OSError) as error:
            told = failure_in_words(error)
            if pause is None:
                shown = without_secrets(told)
                kind = ArchiveOutageError if remote and is_outage(error, told) else ReadError
                raise kind(f"cannot read {what}: {shown}") from (error if shown == told else None)
            report_retry(log, f"reading {what}", told, pause, number + 1, len(pauses) + 1)
            time.sleep(pause)
    raise AssertionError("unreachable")


def is_outage(error: BaseException, words: str) -> bool:
    """Whether a file's server did not answer, or is down or busy. words: of the failure."""
    status = STATUS.search(words)
    if status is not None:
        return is_passing_status(int(status[1] or status[2]))
    return isinstance(error, NO_ANSWER) or any(sign in words for sign in SIGNS_OF_NO_ANSWER)


def failure_in_words(error: BaseException) -> str:
    """What went wrong, from GDAL's last word to its first, and what that may mean."""
    found: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).removesuffix(SEE_BEFORE).strip().removesuffix(".")
        if text and not any(text in other for other in found):
            found.append(text)
        cause = cause.__cause__
    words = ": ".join(found)
    return words + next((f" ({meaning})" for sign, meaning in MEANINGS.items() if sign in words), "")


def is_remote(href: str) -> bool:
    """Whether a file is not on this machine."""
    return "://" in href


def file_stamp(href: str) -> list[int] | None:
    """Size and time of change of a file on this machine: another stamp, another file. None for other files."""
    try:
        found = None if is_remote(href) else Path(href).stat()
    except OSError:
        return None
    return None if found is None else [found.st_size, found.st_mtime_ns]


@contextmanager
def opened(href: str) -> Iterator[rasterio.DatasetReader]:
    """A raster, opened with the options above and as its provider wants it."""
    with opened_raster(href, gdal_options()) as dataset:
        yield dataset


def raster_geobox(href: str, dtype: str | None = None) -> GeoBox:
    """The pixel grid of a raster; its type must be `dtype`, if given.

    Raises SceneError for other types, and for a raster without a position.
    """

    def read() -> GeoBox:
        with opened(href) as dataset:
            if dtype is not None and dataset.dtypes[0] != dtype:
                raise SceneError(f"{href}: expected {dtype}, got {dataset.dtypes[0]}")
            return grid_of(dataset)

    return retried(read, href, remote=is_remote(href))


def tile_shape(href: str) -> tuple[int, int]:
    """Rows and columns of a raster's internal tiles, or of its strips."""

    def read() -> tuple[int, int]:
        with opened(href) as dataset:
            rows, columns = dataset.block_shapes[0]
            return rows, columns

    return retried(read, href, remote=is_remote(href))


def grid_of(dataset: rasterio.DatasetReader) -> GeoBox:
    """The pixel grid of an open raster. Raises SceneError for one without a position on Earth."""
    crs, transform = dataset.crs, dataset.transform
    if crs is None or not (crs.is_projected or crs.is_geographic):
        raise SceneError(f"{dataset.name} has no CRS; write it into the file, or leave the scene out")
    if transform.is_identity or transform.is_degenerate:
        raise SceneError(f"{dataset.name} has no geotransform; write it into the file, or leave the scene out")
    return GeoBox(dataset.shape, dataset.transform, str(dataset.crs))


def read_window(
    href: str, window: Window | None = None, bands: Sequence[int] | None = None
) -> tuple[NDArray[Any], float | None]:
    """Pixels (band, y, x) of a raster's window, all of it by default, and its nodata value."""

    def read() -> tuple[NDArray[Any], float | None]:
        with opened(href) as dataset:
            count = dataset.count
            if bands and max(bands) > count:
                raise ReadError(f"expected band {max(bands)}, the file has {count} bands")
            return dataset.read(list(bands) if bands else None, window=window), dataset.nodata

    return retried(read, href, remote=is_remote(href))


def try_file(href: str, place: BaseGeometry | None) -> None:
    """Read the pixels of a file at a place (longitude, latitude), or one of its tiles where the place lies outside.

    place: None to open the file only. A file that is not a raster is read completely. Raises ReadError or SceneError
    where that fails.
    """
    if href.lower().endswith((".xml", ".json")):
        read_text(href)
        return

    def read() -> None:
        with opened(href) as dataset:
            grid = grid_of(dataset)
            if place is None:
                return
            bounds = to_crs(place, LONLAT, str(grid.crs)).bounds
            rows, columns = dataset.block_shapes[0]
            tile = Window(0, 0, min(columns, dataset.width), min(rows, dataset.height))
            whole = Window(0, 0, dataset.width, dataset.height)
            wanted = dataset.window(*bounds).round_offsets().round_lengths()
            dataset.read(window=wanted.intersection(whole) if intersect(wanted, whole) else tile)

    retried(read, href, remote=is_remote(href))


def read_coarsely(asset: pystac.Asset, side: int, *, tries: int | None = None) -> tuple[NDArray[Any], GeoBox]:
    """An asset in at most `side` x `side` pixels, from its overviews where it has some, and its grid.

    As `as_numbers`. tries: as of `retried`. Raises ReadError, SceneError.
    """
    href, scale = asset.href, stated_scale(asset)

    def read() -> tuple[NDArray[Any], GeoBox]:
        # A process that plans again must not see a picture of the file that was there before.
        with rasterio.Env(**ASK_AGAIN), opened(href) as dataset:
            grid = grid_of(dataset)
            form = number_format(dataset, scale)
            check_file_offset(dataset, asset)
            shape = (min(side, dataset.height), min(side, dataset.width))
            return as_numbers(dataset.read(1, out_shape=shape), form), grid

    return retried(read, href, remote=is_remote(href), tries=tries)


def same_grid(one: GeoBox, other: GeoBox) -> bool:
    """Whether two pixel grids are one: CRS, size, and corners to a hundredth of a pixel."""
    if one.shape != other.shape or one.crs != other.crs:
        return False
    height, width = one.shape
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    apart = [np.subtract(~other.affine @ (one.affine @ corner), corner) for corner in corners]
    return bool(np.abs(apart).max() < 0.01)


def in_words(grid: GeoBox) -> str:
    """A pixel grid in a sentence."""
    height, width = grid.shape
    a = grid.affine
    return f"{height} x {width} pixels of {a.a:g} x {-a.e:g} m from ({a.c:.10g}, {a.f:.10g}) in {grid.crs}"


def read_text(href: str) -> str:
    """A text file. Raises ReadError."""

    def read() -> str:
        if not is_remote(href):
            return Path(href).read_text(encoding="utf-8")
        return b"".join(remote_pieces(href, PIECE_BYTES, Archives.read().timeout)).decode("utf-8", errors="replace")

    return retried(read, href, remote=is_remote(href))


def read_beginning(href: str, end: bytes) -> bytes:
    """A file up to and with its first `end`, all of it where there is none; tried once. Raises ReadError.

    The rest is not fetched: metadata of datastrips have 20 MB, of which only the beginning is needed.
    """

    def pieces() -> Iterator[bytes]:
        if not is_remote(href):
            with Path(href).open("rb") as file:
                yield from iter(lambda: file.read(PIECE_BYTES), b"")
            return
        yield from remote_pieces(href, PIECE_BYTES, min(SHORT_TIMEOUT, Archives.read().timeout))

    def read() -> bytes:
        found = b""
        for piece in pieces():
            # The mark may lie over the border of two pieces.
            looked_at = max(0, len(found) - len(end))
            found += piece
            place = found.find(end, looked_at)
            if place >= 0:
                return found[: place + len(end)]
        return found

    return retried(read, href, remote=is_remote(href), tries=1)


def load_placed(item: pystac.Item, key: str, geobox: GeoBox, resampling: ResamplingName) -> NDArray[Any]:
    """An asset resampled to another pixel grid, (y, x), as `as_numbers`.

    Raises ReadError naming the item and the file when it cannot be read, SceneError when it does not have integers of
    at most 16 bits, has no CRS, or is another version than the one opened first.
    """
    href, what = item.assets[key].href, asset_in_words(item, key)
    with named(item, key):
        if resampling != "nearest":
            scale = stated_scale(item.assets[key])
            return retried(lambda: read_resampled(href, geobox, resampling, scale), what, remote=is_remote(href))
        return retried(lambda: load_warped(item, key, geobox), what, remote=is_remote(href))


def asset_in_words(item: pystac.Item, key: str) -> str:
    """An asset, for errors."""
    return f"{item.id} asset {key} ({item.assets[key].href})"


@contextmanager
def named(item: pystac.Item, key: str) -> Iterator[None]:
    """Name the asset in errors about its file."""
    try:
        yield
    except SceneError as error:
        raise SceneError(f"{item.id} asset {key}: {error}") from error


@dataclass(frozen=True)
class AlignedWindow:
    """Where a pixel grid lies in a raster whose pixels are whole blocks of its pixels, in pixels of the raster."""

    left: int
    top: int
    columns: int
    rows: int
    #: Pixels of the grid along a pixel of the raster.
    times: int

    def inside(self, dataset: rasterio.DatasetReader) -> Window:
        """The part that the raster has; its width or height is 0 where it has none."""
        return Window.from_slices(
            (max(0, self.top), max(0, min(dataset.height, self.top + self.rows))),
            (max(0, self.left), max(0, min(dataset.width, self.left + self.columns))),
        )


def aligned_window(dataset: rasterio.DatasetReader, geobox: GeoBox, resampling: ResamplingName) -> AlignedWindow | None:
    """Where a pixel grid lies in an open raster; None where something would have to be resampled.

    Nothing has to be where both have one CRS and the raster's pixels are whole blocks of the grid's pixels with common
    edges (20 m over 10 m, repeated 2 x 2 for `nearest`).
    """
    transform = dataset.transform
    if transform.b or transform.d or transform.e != -transform.a or dataset.crs != geobox.crs:
        return None
    factor = transform.a / geobox.affine.a
    across = (geobox.affine.c - transform.c) / transform.a
    down = (geobox.affine.f - transform.f) / transform.e
    height, width = geobox.shape[0] / factor, geobox.shape[1] / factor
    whole = all(abs(number - round(number)) < 1e-6 for number in (factor, across, down, height, width))
    if not whole or factor < 1 or (factor > 1 and resampling != "nearest"):
        return None
    return AlignedWindow(round(across), round(down), round(width), round(height), round(factor))


def read_aligned_window(
    dataset: rasterio.DatasetReader, window: AlignedWindow, scale: float | None = None
) -> NDArray[Any]:
    """The band of an open raster in a window, (rows, columns), as `as_numbers`, nodata beyond its edge.

    scale: as for `number_format`.
    """
    form, shape = number_format(dataset, scale), (window.rows, window.columns)
    inside = window.inside(dataset)
    if (inside.height, inside.width) == shape:
        return as_numbers(dataset.read(1, window=inside), form)
    pixels = np.full(shape, NO_NUMBER, np.int32) if form.is_signed else np.zeros(shape, form.dtype)
    if inside.height > 0 and inside.width > 0:
        y, x = inside.row_off - window.top, inside.col_off - window.left
        numbers = as_numbers(dataset.read(1, window=inside), form)
        pixels[y : y + inside.height, x : x + inside.width] = numbers
    return pixels


def repeated(pixels: NDArray[Any], times: int) -> NDArray[Any]:
    """Pixels (..., y, x), each repeated so many times in both directions."""
    return pixels if times == 1 else pixels.repeat(times, axis=-2).repeat(times, axis=-1)


def read_resampled(href: str, geobox: GeoBox, resampling: ResamplingName, scale: float | None = None) -> NDArray[Any]:
    """A raster resampled to a pixel grid, (y, x), as `as_numbers`. scale: as for `number_format`.

    Unsigned numbers from WRAPPED on count as nodata: mixed with their neighbours they would look like ground.
    """
    with opened_version(href, gdal_options()) as (dataset, _):
        source = grid_of(dataset)
        form = number_format(dataset, scale)
        signed = form.is_signed
        west, south, east, north = geobox.extent.to_crs(str(source.crs)).boundingbox
        column, row = ~source.affine @ (np.array([west, east, west, east]), np.array([south, south, north, north]))
        inside = Window.from_slices(
            span_inside(row.min(), row.max(), dataset.height), span_inside(column.min(), column.max(), dataset.width)
        )
        nothing = NO_NUMBER if signed else 0
        resampled = np.full(geobox.shape, nothing, np.int32 if signed else np.uint16)
        if not (inside.height > 0 and inside.width > 0):
            return resampled
        numbers = as_numbers(dataset.read(1, window=inside), form)
        reproject(
            numbers if signed else np.where(numbers >= WRAPPED, np.uint16(0), numbers),
            resampled,
            src_transform=dataset.window_transform(inside),
            src_crs=dataset.crs,
            src_nodata=nothing,
            dst_transform=geobox.affine,
            dst_crs=str(geobox.crs),
            dst_nodata=nothing,
            resampling=Resampling[resampling],
        )
    return resampled


def span_inside(first: float, last: float, length: int) -> tuple[int, int]:
    """The pixels of an axis between two places, with a margin for the kernel, cut to the axis."""
    return min(length, max(0, floor(first) - KERNEL_MARGIN)), max(0, min(length, ceil(last) + KERNEL_MARGIN))


def load_warped(item: pystac.Item, key: str, geobox: GeoBox) -> NDArray[Any]:
    """One asset on a pixel grid of another UTM zone, by odc-stac, the nearest pixels, (y, x), as `as_numbers`."""
    # Here, because it takes a fifth of the start of every worker process, and few builds read other zones.
    import odc.stac

    href = item.assets[key].href
    odc.stac.configure_rio(cloud_defaults=True, **gdal_options())
    with opened_version(href, gdal_options()) as (dataset, access):
        form = number_format(dataset, stated_scale(item.assets[key]))
        data = odc.stac.load(
            [placed_by_its_file(item, key, geobox, access.opened)],
            bands=[key],
            geobox=geobox,
            resampling="nearest",
            stac_cfg={PLACED: {"assets": {key: {"data_type": form.dtype, "nodata": form.nodata or 0}}}},
            fail_on_error=True,
        )
    return as_numbers(data[key].values[0], replace(form, nodata=form.nodata or 0))


def placed_by_its_file(item: pystac.Item, key: str, geobox: GeoBox, address: str) -> pystac.Item:
    """An item of one asset over a pixel grid that says nothing of its own grid. address: what GDAL opens now.

    odc-stac places pixels by what an item says (`proj:`), and leaves out an item whose footprint misses the grid. The
    position in the file is more reliable.
    """
    ground = geobox.extent.to_crs(LONLAT)
    bounds = list(ground.boundingbox)
    placed = pystac.Item(item.id, ground.json, bounds, acquired(item), {}, collection=PLACED)
    own = item.assets[key]
    placed.add_asset(key, pystac.Asset(address, media_type=own.media_type, roles=own.roles))
    return placed
