"""Cloud-optimised GeoTIFFs written window by window, so that the size of a scene does not matter."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

#: Fast, and within a tenth of the size of the strongest deflate for noisy images.
DEFLATE_LEVEL = 1
#: Rasters with more pixels than this on a side get overviews.
OVERVIEWS_FROM = 1024


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class CogWriter:
    """A GeoTIFF that becomes cloud-optimised when it is closed; absent, not half there, when writing fails."""

    def __init__(
        self,
        path: Path,
        epsg: int,
        bounds: tuple[float, float, float, float],
        size: float,
        dtype: str,
        *,
        count: int = 1,
        nodata: float | None = None,
        block: int = 256,
        resampling: str = "average",
        descriptions: Sequence[str] = (),
    ) -> None:
        """bounds: west, south, east, north in metres; size: of a pixel in metres; resampling: of overviews."""
        self.path = path
        self.size = size
        self.west, self.north = bounds[0], bounds[3]
        self.draft = path.with_suffix(".draft")
        self.options = {
            "driver": "COG",
            "BLOCKSIZE": str(block),
            "COMPRESS": "DEFLATE",
            "LEVEL": str(DEFLATE_LEVEL),
            "PREDICTOR": "YES" if dtype != "uint8" else "NO",
            "RESAMPLING": resampling,
            "BIGTIFF": "IF_SAFER",
            "OVERVIEWS": "AUTO"
            if max(bounds[2] - bounds[0], bounds[3] - bounds[1]) > OVERVIEWS_FROM * size
            else "NONE",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        self.raster = rasterio.open(
            self.draft,
            "w+",
            driver="GTiff",
            width=round((bounds[2] - bounds[0]) / size),
            height=round((bounds[3] - bounds[1]) / size),
            count=count,
            dtype=dtype,
            crs=f"EPSG:{epsg}",
            transform=Affine(size, 0, self.west, 0, -size, self.north),
            nodata=nodata,
            tiled=True,
            blockxsize=block,
            blockysize=block,
            interleave="pixel",
            bigtiff="IF_SAFER",
        )
        for number, text in enumerate(descriptions, 1):
            self.raster.set_band_description(number, text)

    def write(self, pixels: NDArray[Any], west: float, north: float) -> None:
        """Write pixels (y, x) or (band, y, x) whose upper left corner is at (west, north); what lies beyond is cut."""
        layers = pixels if pixels.ndim == 3 else pixels[None]
        cut = self.cut(layers.shape[1:], west, north)
        if cut is not None:
            rows, columns, window = cut
            with told_as_os_error(self.path):
                self.raster.write(layers[:, rows, columns], window=window)

    def overlay(self, pixels: NDArray[Any], west: float, north: float) -> None:
        """Write those pixels (y, x) that are not 0, and leave what is there under the others."""
        cut = self.cut(pixels.shape, west, north)
        if cut is not None:
            rows, columns, window = cut
            with told_as_os_error(self.path):
                there = self.raster.read(1, window=window)
                self.raster.write(np.where(pixels[rows, columns], pixels[rows, columns], there), 1, window=window)

    def cut(self, shape: tuple[int, ...], west: float, north: float) -> tuple[slice, slice, Window] | None:
        """The part of an image (rows, columns) with its upper left corner at (west, north) that lies in the raster."""
        column, row = round((west - self.west) / self.size), round((self.north - north) / self.size)
        top, left = max(0, -row), max(0, -column)
        bottom, right = min(shape[0], self.raster.height - row), min(shape[1], self.raster.width - column)
        if bottom <= top or right <= left:
            return None
        window = Window(column + left, row + top, right - left, bottom - top)
        return slice(top, bottom), slice(left, right), window

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with told_as_os_error(self.path):
                self.raster.close()
                if kind is None:
                    rasterio.shutil.copy(self.draft, self.path, **self.options)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            self.draft.unlink()


@contextmanager
def told_as_os_error(path: Path) -> Iterator[None]:
    """Make an OSError with the path of what rasterio raises when a write fails, some of which has no public class."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise OSError(f"{path}: {error}") from error
