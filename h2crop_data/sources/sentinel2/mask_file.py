"""The masks of a processing tile as one file: what each date shows at 20 m, how far off it lies, and figures on it.

A ZIP archive with `dates.json` and one member a date, `<place>.codes`: what each of the tile's 768 x 768 pixels is,
uint8 (`sentinel2.tile_masks.MaskCode`), rows from north to south. A date is decoded only when it is asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.catalog.file_against_item import Difference
from h2crop_data.errors import H2cropError
from h2crop_data.grid import TILE_SIZE, ProcessingTile
from h2crop_data.sentinel2.clouds import MASK_PIXEL
from h2crop_data.sentinel2.tile_masks import MaskCode
from h2crop_data.shift import NO_SHIFT, Shift
from h2crop_data.sources.sentinel2.alignment import Alignment, applied_shift

#: Pixels of masks along a tile.
MASK_SIDE = TILE_SIZE // MASK_PIXEL
DATES_MEMBER = "dates.json"
#: ZIP archives hold a time for each member; the same masks must give the same bytes.
NO_TIME = (1980, 1, 1, 0, 0, 0)
#: Files that a process keeps open.
KEPT_OPEN = 16


@dataclass(frozen=True)
class MaskFile:
    """Where the masks of a tile are, or why there are none."""

    tile: ProcessingTile
    #: Id of the unit of work that makes them.
    unit: str
    #: What becomes of the shifts in it.
    alignment: Alignment
    #: None where nobody made them yet.
    path: Path | None = None
    error: H2cropError | None = None

    def opened(self) -> TileMasks:
        """The masks. Raises the error of the unit that makes them."""
        if self.error is not None:
            raise self.error
        assert self.path is not None, f"the masks of {self.tile.id} do not exist"
        return open_masks(self.path, self.alignment)


class TileMasks:
    """The masks of a tile, date by date."""

    def __init__(self, path: Path, alignment: Alignment) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            written = archive.read(DATES_MEMBER)
        document = json.loads(written)
        self.tile = ProcessingTile(*document["tile"])
        #: Rows of the table of dates.
        self.dates: list[dict[str, Any]] = [alignment.decided(row) for row in document["dates"]]
        self._differences: list[Difference] = [(name, key, what) for name, key, what in document.get("differences", [])]
        # Whether a datastrip's metadata could be read just then changes no pixel.
        told = [{name: value for name, value in row.items() if name != "refined"} for row in self.dates]
        #: What blocks call the rows: SHA-256 of them as they are written.
        self.digest = hashlib.sha256(as_written(self.tile, told)).hexdigest()

    @cached_property
    def places(self) -> dict[str, int]:
        """Item -> the place of its date."""
        return {name: place for place, row in enumerate(self.dates) for name in row["items"]}

    def shift(self, name: str) -> Shift:
        """The shift of the date that an item shows, where it is corrected."""
        place = self.places.get(name)
        return NO_SHIFT if place is None else applied_shift(self.dates[place])

    @property
    def gaps(self) -> set[str]:
        """Items that could not be read for the masks."""
        return {name for row in self.dates for name in row["gaps"]}

    def differences_in(self, names: Collection[str]) -> set[Difference]:
        """Where some items, and the L1C of their dates, say something else of their files than these have."""
        if not self._differences:
            return set()
        known = {*names, *(other for row in self.dates if {*names} & {*row["items"]} for other in row["l1c"])}
        return {found for found in self._differences if found[0] in known}

    def codes(self, place: int) -> NDArray[np.uint8]:
        """What a date shows, (y, x) codes at 20 m."""
        with zipfile.ZipFile(self.path) as archive:
            return np.frombuffer(archive.read(member(place)), np.uint8).reshape(MASK_SIDE, MASK_SIDE)

    def clear_on_ground(self, place: int) -> NDArray[np.bool_]:
        """Where a date is clear, (y, x) at 20 m of the ground that it shows after its shift is corrected."""
        shift = applied_shift(self.dates[place])
        steps = np.arange(MASK_SIDE) + 0.5
        rows = np.floor(steps - shift.north / MASK_PIXEL).astype(int).clip(0, MASK_SIDE - 1)
        columns = np.floor(steps + shift.east / MASK_PIXEL).astype(int).clip(0, MASK_SIDE - 1)
        cleared: NDArray[np.bool_] = self.codes(place)[np.ix_(rows, columns)] == MaskCode.CLEAR
        return cleared

    def clear(self, name: str) -> NDArray[np.bool_]:
        """Where the date that an item shows is clear, (y, x) at 20 m; nowhere for an item it has nothing of."""
        place = self.places.get(name)
        if place is None or not self.dates[place]["clear"]:
            return np.zeros((MASK_SIDE, MASK_SIDE), bool)
        cleared: NDArray[np.bool_] = self.codes(place) == MaskCode.CLEAR
        return cleared


def open_masks(path: Path, alignment: Alignment) -> TileMasks:
    """The masks in a file, its table of dates read once as long as the file stays the same."""
    found = path.stat()
    return opened_masks(path, alignment, (found.st_size, found.st_mtime_ns, found.st_ino))


@lru_cache(maxsize=KEPT_OPEN)
def opened_masks(path: Path, alignment: Alignment, stamp: tuple[int, ...]) -> TileMasks:
    """The masks in a file as it is: another stamp, another file."""
    return TileMasks(path, alignment)


def as_written(
    tile: ProcessingTile, rows: Sequence[Mapping[str, Any]], differences: Sequence[Difference] = ()
) -> bytes:
    """The rows of a tile as they are written, and what was met that is no row."""
    document: dict[str, Any] = {"tile": [tile.epsg, tile.column, tile.row], "dates": list(rows)}
    document |= {"differences": differences} if differences else {}
    return json.dumps(document, sort_keys=True).encode()


def member(place: int) -> str:
    """The member of a date."""
    return f"{place:03d}.codes"


def masks_as_bytes(
    tile: ProcessingTile,
    rows: Sequence[Mapping[str, Any]],
    codes: Sequence[NDArray[np.uint8]],
    differences: Iterable[Difference] = (),
) -> bytes:
    """The file of a tile's masks. rows: of the table of dates; codes: of each of them, (y, x) at 20 m.

    differences: where items say something else of the files that were read than these have.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr(zipfile.ZipInfo(DATES_MEMBER, NO_TIME), as_written(tile, rows, sorted(differences)))
        for place, of_date in enumerate(codes):
            info = zipfile.ZipInfo(member(place), NO_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, np.ascontiguousarray(of_date).tobytes())
    return buffer.getvalue()
