"""Whether a file is complete and of the type in its name: detects login pages, truncated files and others.

Only the bytes of an answer are checked: archives send a login page with status 200 under the name of an image, and
items have no checksum.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.enums import Compression, Interleaving
from rasterio.errors import RasterioError
from rasterio.windows import Window

from h2crop_data.catalog.access import opened
from h2crop_data.errors import ReadError

#: Bytes that tell what a file is.
BEGINNING = 1024
#: TIFF in both byte orders, and BigTIFF.
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_NAME = re.compile(r"\.tiff?$", re.IGNORECASE)
XML_NAME = re.compile(r"\.xml$", re.IGNORECASE)


class RefusedFileError(ReadError):
    """A file is incomplete or not of the type in its name, and cannot be continued."""


def refuse_beginning(beginning: bytes, name: str) -> None:
    """Refuse a file by its first bytes (some BEGINNING of them). Raises RefusedFileError.

    name: the file's own, whose ending says what it should be.
    """
    if b"<html" in beginning.lower():
        raise RefusedFileError("a web page instead of the file, possibly a login page: check the account")
    if TIFF_NAME.search(name) and not beginning.startswith(TIFF):
        raise RefusedFileError(f"not a TIFF file: it begins with {beginning[:12]!r}")
    if XML_NAME.search(name) and not beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise RefusedFileError(f"not an XML file: it begins with {beginning[:12]!r}")


def check_whole(path: Path, name: str = "") -> None:
    """Refuse a file on this machine that is not all of what its name says. Raises RefusedFileError, ReadError.

    name: the file's own where it is stored under another one.
    """
    name = name or path.name
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            beginning = file.read(BEGINNING)
    except OSError as error:
        raise ReadError(f"cannot read it: {error.strerror or error}") from error
    refuse_beginning(beginning, name)
    if TIFF_NAME.search(name):
        check_tiles(path, size)
    elif XML_NAME.search(name):
        try:
            ElementTree.parse(path)
        except ElementTree.ParseError as error:
            raise RefusedFileError(f"incomplete XML: {error}") from error


@dataclass(frozen=True)
class StoredTile:
    """A tile of a TIFF: the band it is of, its window, and where its bytes lie in the file."""

    band: int
    window: Window
    begin: int
    end: int


def check_tiles(path: Path, size: int) -> None:
    """Refuse a TIFF of `size` bytes without a tile, that ends before its last one does, or whose last is damaged."""
    try:
        with opened(str(path)) as dataset:
            tile = last_tile(dataset)
            if tile is None:
                raise RefusedFileError("all its tiles are empty")
            if tile.end > size:
                raise RefusedFileError(f"truncated: it has {size} bytes, its last tile ends at {tile.end}")
            dataset.read(tile.band, window=tile.window)
            if dataset.compression == Compression.deflate:
                check_deflated(path, tile)
    except RasterioError as error:
        raise RefusedFileError(f"its last tile cannot be read: {error}") from error


def last_tile(dataset: rasterio.DatasetReader) -> StoredTile | None:
    """The tile of an open TIFF whose bytes end last; None where none has bytes."""
    # Pixel-interleaved files have the same tiles in every band.
    bands = [1] if dataset.interleaving == Interleaving.pixel else list(dataset.indexes)
    last: StoredTile | None = None
    for band in bands:
        for (row, column), window in dataset.block_windows(band):
            begin = dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band)
            length = dataset.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band)
            if begin is not None and length is not None and (last is None or int(begin) + int(length) > last.end):
                last = StoredTile(band, window, int(begin), int(begin) + int(length))
    return last


def check_deflated(path: Path, tile: StoredTile) -> None:
    """Compare the bytes of a deflated tile with the checksum at their end, which GDAL does not check.

    Most bytes can be inflated to something: zeros where a download left a hole, too.
    """
    with path.open("rb") as file:
        file.seek(tile.begin)
        stream = zlib.decompressobj()
        try:
            stream.decompress(file.read(tile.end - tile.begin))
        except zlib.error as error:
            raise RefusedFileError(f"its last tile is damaged: {error}") from error
    if not stream.eof:
        raise RefusedFileError("its last tile is damaged: it is incomplete")
