"""Whether a parcel file has as many rows as it states, and which rows a spatial search silently omits."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyogrio
from numpy.typing import NDArray

from h2crop_data.errors import ParcelError

#: The first bytes of a file of a shapefile by its ending, and its size; None where there is no such file.
Head = Callable[[str], tuple[bytes, int] | None]
#: Bytes of the header of a shapefile's .shp and .shx.
HEADER = 100
FETCH_AGAIN = "it is truncated or damaged; download it again"


@contextmanager
def about_to_name_rows() -> Iterator[None]:
    """Without GDAL's warning of a ring that is not closed, which names no row; such rows are named later."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Non closed ring detected", RuntimeWarning)
        yield


@about_to_name_rows()
def check_rows(path: Path, layer: str) -> None:
    """Refuse a file with fewer rows than it states. Raises ParcelError, which names the numbers."""
    try:
        info = pyogrio.read_info(path, layer=layer, force_feature_count=True)
        if info["driver"] == "ESRI Shapefile":
            check_shapefile(path, layer)
        elif info["driver"] == "GPKG":
            indexed: bool = info["capabilities"]["fast_spatial_filter"]
            check_geopackage(path, layer, info["geometry_name"], info["features"], indexed=indexed)
        else:
            rows = pyogrio.raw.read(path, layer=layer, columns=[], read_geometry=False, return_fids=True)[1]
            check_promise(path, info["features"], len(rows), "row(s)")
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise ParcelError(f"cannot read parcels from {path}: {error}") from error


def check_promise(path: Path, promised: int, there: int, what: str, remedy: str = FETCH_AGAIN) -> None:
    """Raise ParcelError where a file has less than it states."""
    if there < promised:
        raise ParcelError(f"{path}: expected {promised} {what}, got {there}: {remedy}")


def check_geopackage(path: Path, layer: str, column: str, promised: int, *, indexed: bool) -> None:
    """The rows of a table against the number its file keeps, and its spatial index, without which no row is found."""
    there, shapes = query(path, f"SELECT COUNT(*) AS n, COUNT({quoted(column)}) AS shapes FROM {quoted(layer)}")
    check_promise(path, promised, there, "row(s)")
    if not indexed:
        return
    # The table in which SQLite keeps the rows of the index is counted faster than the index.
    (entries,) = query(path, f"SELECT COUNT(*) AS n FROM {quoted(f'rtree_{layer}_{column}_rowid')}")
    if entries < shapes:
        # Empty shapes need not be in the index.
        (shapes,) = query(path, f"SELECT COUNT(*) AS n FROM {quoted(layer)} WHERE ST_IsEmpty({quoted(column)}) = 0")
        remedy = "rows were added without updating it; rewrite the file (`ogr2ogr NEW.gpkg FILE`)"
        check_promise(path, shapes, entries, "row(s) in its spatial index", remedy)


def query(path: Path, statement: str) -> list[int]:
    """The one row of whole numbers that a statement gives on a GeoPackage."""
    columns = pyogrio.raw.read(path, sql=statement, read_geometry=False)[3]
    return [int(column[0]) for column in columns]


def quoted(name: str) -> str:
    """A name as SQL wants it."""
    return '"' + name.replace('"', '""') + '"'


def rows_without_shape(path: Path, layer: str, column: str) -> NDArray[np.int64]:
    """The rows of a GeoPackage whose geometry is neither null nor a geometry."""
    name = quoted(column)
    return rows_where(path, layer, f"{name} IS NOT NULL AND (LENGTH({name}) < 8 OR SUBSTR({name}, 1, 2) <> x'4750')")


def rows_where(path: Path, layer: str, condition: str) -> NDArray[np.int64]:
    """The rows of a layer that meet a condition in SQL."""
    rows: NDArray[np.int64] = pyogrio.raw.read(
        path, layer=layer, columns=[], read_geometry=False, return_fids=True, where=condition
    )[1]
    return rows


def check_shapefile(path: Path, layer: str) -> None:
    """The files of a shapefile against what their headers state, and against each other."""
    head = heads_in_archive(path, layer) if zipfile.is_zipfile(path) else heads_in_folder(path, layer)
    index, shapes, table = head("shx"), head("shp"), head("dbf")
    if index is None or shapes is None or table is None:
        return
    rows, listed = (stated_length(index[0]) - HEADER) // 8, (index[1] - HEADER) // 8
    check_promise(path, rows, listed, "row(s) in its .shx")
    check_promise(path, stated_length(shapes[0]), shapes[1], "bytes in its .shp")
    fields, start, length = (int.from_bytes(table[0][i:j], "little") for i, j in ((4, 8), (8, 10), (10, 12)))
    check_promise(path, fields, (table[1] - start) // length if length else 0, "row(s) in its .dbf")
    check_promise(path, rows, fields, "row(s) in its .dbf, one for each in its .shx")
    check_promise(path, fields, rows, "row(s) in its .shx, one for each in its .dbf")


def stated_length(head: bytes) -> int:
    """The bytes that the header of a .shp or .shx states, which counts in pairs."""
    return 2 * int.from_bytes(head[24:28], "big")


def heads_in_folder(path: Path, layer: str) -> Head:
    """The files of a shapefile that lies in a folder."""
    folder, stem = (path, layer) if path.is_dir() else (path.parent, path.stem)
    files = {entry.name.lower(): entry for entry in folder.iterdir()}

    def head(ending: str) -> tuple[bytes, int] | None:
        file = files.get(f"{stem}.{ending}".lower())
        if file is None:
            return None
        with file.open("rb") as opened:
            return opened.read(HEADER), file.stat().st_size

    return head


def heads_in_archive(path: Path, layer: str) -> Head:
    """The files of a shapefile that lies in a ZIP archive."""

    def head(ending: str) -> tuple[bytes, int] | None:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.lower() == f"{layer}.{ending}".lower():
                    with archive.open(member) as opened:
                        return opened.read(HEADER), member.file_size
        return None

    return head
