"""The one place that opens the files of scenes, with credentials, retries and errors that name the file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import odc.stac
import pystac
import rasterio
import requests
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window

from h2crop_data.catalog.providers import SENTINEL2_ASSETS
from h2crop_data.errors import ReadError

Result = TypeVar("Result")
ResamplingName = Literal["nearest", "bilinear", "cubic"]
#: Assets of one remote scene that are read at a time.
CONNECTIONS = 6
TIMEOUT = 60
#: Pauses in seconds before another try at a remote file.
PAUSES = (1.0, 4.0, 15.0)
#: Basic authentication comes from ~/.netrc; GDAL repeats failed requests itself, below our own tries.
GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_NETRC": "YES",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_TIMEOUT": str(TIMEOUT),
}

#: GDAL remembers that a file failed: without this, another try fails from its cache and never asks the server.
ASK_AGAIN = {"CPL_VSIL_CURL_NON_CACHED": "/vsi"}


def retried(read: Callable[[], Result], what: str, *, remote: bool, pauses: Sequence[float] = PAUSES) -> Result:
    """The result of `read`, tried again after each pause when a remote file fails. Raises ReadError naming `what`."""
    for number, pause in enumerate([*(pauses if remote else ()), None]):
        try:
            with rasterio.Env(**ASK_AGAIN) if number else nullcontext():
                return read()
        except (RasterioError, OSError) as error:
            if pause is None:
                hint = " (a login page? check the account)" if "not recognized as being in" in str(error) else ""
                raise ReadError(f"cannot read {what}: {error}{hint}") from error
            time.sleep(pause)
    raise AssertionError("unreachable")


def is_remote(href: str) -> bool:
    """Whether a file is not on this machine."""
    return "://" in href


@contextmanager
def opened(href: str) -> Iterator[rasterio.DatasetReader]:
    """A raster, opened with the options above."""
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(href) as dataset:
        yield dataset


def raster_geobox(href: str) -> GeoBox:
    """The pixel grid of a raster."""

    def read() -> GeoBox:
        with opened(href) as dataset:
            return GeoBox(dataset.shape, dataset.transform, str(dataset.crs))

    return retried(read, href, remote=is_remote(href))


def read_window(
    href: str, window: Window | None = None, bands: Sequence[int] | None = None
) -> tuple[NDArray[Any], float | None]:
    """Pixels (band, y, x) of a raster's window, all of it by default, and its nodata value."""

    def read() -> tuple[NDArray[Any], float | None]:
        with opened(href) as dataset:
            count = dataset.count
            if bands and max(bands) > count:
                raise ReadError(f"it has {count} bands, band {max(bands)} is wanted")
            return dataset.read(list(bands) if bands else None, window=window), dataset.nodata

    return retried(read, href, remote=is_remote(href))


def read_text(href: str) -> str:
    """A text file. Login comes from ~/.netrc."""

    def read() -> str:
        if not is_remote(href):
            return Path(href).read_text(encoding="utf-8")
        answer = requests.get(href, timeout=TIMEOUT)
        answer.raise_for_status()
        return answer.text

    return retried(read, href, remote=is_remote(href))


def load_sentinel2(
    item: pystac.Item, keys: Sequence[str], scl_key: str, geobox: GeoBox, resampling: ResamplingName
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Numbers (band, y, x) uint16 of the assets `keys`, and SCL (y, x) uint8, of one item on a pixel grid; 0 = nodata.

    Raises ReadError naming the item and the file when any asset cannot be read.
    """
    wanted = [*((key, resampling) for key in keys), (scl_key, "nearest")]
    remote = any(is_remote(item.assets[key].href) for key, _ in wanted)

    def load(asset: tuple[str, ResamplingName]) -> NDArray[Any]:
        key, method = asset
        href = item.assets[key].href
        what = f"{item.id} asset {key} ({href})"
        aligned = retried(lambda: read_aligned(href, geobox, method), what, remote=remote)
        if aligned is not None:
            return aligned
        return retried(lambda: load_warped(item, key, geobox, method), what, remote=remote)

    if remote:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            *numbers, scl = pool.map(load, wanted)
    else:
        # A new thread costs GDAL a new projection database: more than reading a local file.
        *numbers, scl = map(load, wanted)
    return np.stack(numbers).astype(np.uint16, copy=False), scl.astype(np.uint8, copy=False)


def read_aligned(href: str, geobox: GeoBox, resampling: ResamplingName) -> NDArray[Any] | None:
    """A raster's first band on a pixel grid it lies on, (y, x), 0 beyond its edge; None where it does not lie on it.

    It lies on it when both have one CRS and the raster's pixels are whole blocks of the grid's pixels with common
    edges (20 m over 10 m, repeated 2 x 2 for `nearest`): nothing needs to be resampled.
    """
    with opened(href) as dataset:
        transform = dataset.transform
        factor = transform.a / geobox.affine.a
        across = (geobox.affine.c - transform.c) / transform.a
        down = (geobox.affine.f - transform.f) / transform.e
        height, width = geobox.shape[0] / factor, geobox.shape[1] / factor
        whole = all(abs(number - round(number)) < 1e-6 for number in (factor, across, down, height, width))
        if not whole or factor < 1 or dataset.crs != geobox.crs or transform.e != -transform.a:
            return None
        if factor > 1 and resampling != "nearest":
            return None
        left, top, columns, rows = round(across), round(down), round(width), round(height)
        inside = Window.from_slices(
            (max(0, top), max(0, min(dataset.height, top + rows))),
            (max(0, left), max(0, min(dataset.width, left + columns))),
        )
        pixels = np.zeros((rows, columns), dataset.dtypes[0])
        if inside.height > 0 and inside.width > 0:
            y, x = inside.row_off - top, inside.col_off - left
            pixels[y : y + inside.height, x : x + inside.width] = dataset.read(1, window=inside)
    times = round(factor)
    return pixels.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else pixels


def load_warped(item: pystac.Item, key: str, geobox: GeoBox, resampling: ResamplingName) -> NDArray[Any]:
    """One asset warped to a pixel grid by odc-stac, (y, x): another UTM zone, or resampling the recipe asks for."""
    dtype = "uint8" if key in SENTINEL2_ASSETS["SCL"] else "uint16"
    odc.stac.configure_rio(cloud_defaults=True, **GDAL_OPTIONS)
    data = odc.stac.load(
        [item],
        bands=[key],
        geobox=geobox,
        resampling=resampling,
        stac_cfg={item.collection_id or "*": {"assets": {key: {"data_type": dtype, "nodata": 0}}}},
        fail_on_error=True,
    )
    pixels: NDArray[Any] = data[key].values[0]
    return pixels
