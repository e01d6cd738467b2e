"""The scratch folder of a build: parts of cells from readings, until the blocks that hold the cells are built.

A part is a file of its own, `<cell>/<reading>.part`: a line of JSON with its checksum, then the pixels. It is written
whole or not at all, so that it is its own marker: a part that is there is not computed again, one that is lost or
damaged is. Nothing else depends on the folder; it can be deleted whenever no build runs.
"""

from __future__ import annotations

import json
import shutil
import uuid
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.errors import StoreError
from h2crop_data.grid import Cell

ENDING, PARTIAL = ".part", ".partial"


@dataclass(frozen=True)
class Part:
    """What a reading gives of a cell: facts as plain data, and arrays; none where there is nothing in them."""

    facts: dict[str, Any]
    arrays: tuple[NDArray[Any], ...] = ()


def allow() -> None:
    """Anything may be written."""


@dataclass(frozen=True)
class Scratch:
    """Parts of cells in a folder."""

    folder: Path
    #: Called before a file gets its name. Raises StoreError where the build it would be for is over.
    check: Callable[[], None] = allow

    def of_season(self, season: int) -> Scratch:
        """The parts of a season: cells have the same names in each."""
        return replace(self, folder=self.folder / str(season))

    def path(self, cell: Cell, reading: str) -> Path:
        """The file of a part."""
        return self.folder / cell.id / f"{reading[:32]}{ENDING}"

    def has(self, cells: Sequence[Cell], reading: str) -> bool:
        """Whether the parts of some cells are all there; whether they are whole is seen when they are read."""
        return all(self.path(cell, reading).exists() for cell in cells)

    def write(self, cell: Cell, reading: str, part: Part) -> None:
        """Keep a part. Raises StoreError where it cannot be written."""
        path = self.path(cell, reading)
        # Of its own: a worker of a cluster that was taken for lost may be at the same part.
        partial = path.with_suffix(f".{uuid.uuid4().hex}{PARTIAL}")
        buffers = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in part.arrays]
        described = {
            "facts": part.facts,
            "arrays": [[array.dtype.str, list(array.shape)] for array in part.arrays],
            "crc32": checksum_of(buffers),
        }
        line = json.dumps(described).encode()
        self.check()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(b"%d %b\n" % (zlib.crc32(line), line))
                file.writelines(buffers)
            self.check()
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"cannot write {path}: {error.strerror or error}; free space there, or choose another folder with "
                "--scratch, and rerun"
            ) from error

    def read(self, cell: Cell, reading: str) -> Part | None:
        """A part; None where it is not there, or not whole."""
        try:
            with self.path(cell, reading).open("rb") as file:
                checksum, _, line = file.readline().rstrip(b"\n").partition(b" ")
                if zlib.crc32(line) != int(checksum):
                    return None
                described = json.loads(line)
                arrays = tuple(np.empty(shape, dtype) for dtype, shape in described["arrays"])
                buffers = [array.reshape(-1).view(np.uint8).data for array in arrays]
                whole = all(file.readinto(buffer) == buffer.nbytes for buffer in buffers) and not file.read(1)
                return (
                    Part(described["facts"], arrays) if whole and checksum_of(buffers) == described["crc32"] else None
                )
        except (OSError, ValueError):
            return None

    def forget(self, cell: Cell) -> None:
        """Delete the parts of a cell."""
        shutil.rmtree(self.folder / cell.id, ignore_errors=True)

    def delete(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def checksum_of(buffers: Sequence[memoryview]) -> int:
    """CRC-32 of some bytes, one after the other."""
    checksum = 0
    for buffer in buffers:
        checksum = zlib.crc32(buffer, checksum)
    return checksum
