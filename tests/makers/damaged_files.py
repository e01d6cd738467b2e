"""Parcel files with faults that no writer of vector files would write."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

#: Bytes of a GeoPackage geometry before its WKB: header and bounds.
GEOPACKAGE_HEADER = 40


def polygon_wkb(corners: Sequence[tuple[float, float]]) -> bytes:
    """WKB of a polygon with one ring, of exactly these corners."""
    points = b"".join(struct.pack("<dd", *corner) for corner in corners)
    return struct.pack("<BIII", 1, 3, 1, len(corners)) + points


@contextmanager
def without_triggers(path: Path) -> Iterator[sqlite3.Connection]:
    """The tables of a GeoPackage without what keeps its counts and its spatial index true; changes are kept."""
    with closing(sqlite3.connect(path)) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {quoted(name)}")
        yield database
        database.commit()


def change_geometry(path: Path, row: int, change: Callable[[bytes], bytes | None], table: str | None = None) -> None:
    """Change the stored geometry of a row of a GeoPackage behind the back of its spatial index."""
    name = quoted(table or path.stem)
    with without_triggers(path) as database:
        (stored,) = database.execute(f"SELECT geom FROM {name} WHERE fid = ?", (row,)).fetchone()
        database.execute(f"UPDATE {name} SET geom = ? WHERE fid = ?", (change(stored), row))


def quoted(name: str) -> str:
    """A name as SQL wants it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def with_wkb(wkb: bytes) -> Callable[[bytes], bytes]:
    """A change of a stored geometry: other WKB behind the same header."""
    return lambda stored: stored[:GEOPACKAGE_HEADER] + wkb


def cut(path: Path, share: float) -> None:
    """Cut off the end of a file, as an interrupted download does."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
