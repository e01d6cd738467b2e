"""Readings: parts of cells that are computed once, from files that are read once, before blocks that hold the cells.

A source states its readings; `pipeline/schedule.py` puts them in order before the blocks that need them. What a reading
gives lies in the scratch folder (`scratch.py`), a file a cell, until every block that holds the cell is built.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from h2crop_data.grid import Cell

if TYPE_CHECKING:
    from h2crop_data.sources.work import ArchiveLine


@dataclass(frozen=True)
class Reading:
    """A piece of ground and a part of the season, read at once; small enough to send to another process."""

    #: The source that reads it.
    source: str
    #: SHA-256 of all that goes into it, of the cells it gives parts of too.
    id: str
    season: int
    #: The cells that it gives parts of.
    cells: tuple[Cell, ...]
    #: Bytes of these parts, at most.
    bytes: int
    #: What the source needs.
    task: Any
    #: The scene whose blocks need it; None where all blocks that hold its cells do.
    scene: str | None = None


@dataclass(frozen=True)
class ReadCounts:
    """What was read of files: internal tiles that were decoded, and their bytes as the files state them."""

    tiles: int = 0
    bytes: int = 0

    def __add__(self, other: ReadCounts) -> ReadCounts:
        return ReadCounts(self.tiles + other.tiles, self.bytes + other.bytes)


@dataclass(frozen=True)
class ToRead:
    """What is to be read: internal tiles, their bytes, requests to servers, and seconds of one worker, all about.

    Sources give seconds without waiting for servers: how long that is the plan adds (`waiting`).
    """

    tiles: int = 0
    bytes: int = 0
    requests: int = 0
    seconds: float = 0.0
    #: Beside these, what masking clouds takes: dates over processing tiles, bytes, requests, seconds of one worker.
    mask_dates: int = 0
    mask_bytes: int = 0
    mask_requests: int = 0
    mask_seconds: float = 0.0
    #: Of the bytes those that come from servers; requests that wait for others, as connections have several under way.
    remote_bytes: int = 0
    turns: float = 0.0
    mask_remote_bytes: int = 0
    mask_turns: float = 0.0

    def __add__(self, other: ToRead) -> ToRead:
        return ToRead(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def waiting(self, line: ArchiveLine) -> ToRead:
        """The same, with what waiting for servers takes in `seconds` and `mask_seconds`."""
        return replace(
            self,
            seconds=self.seconds + self.turns * line.request_seconds + self.remote_bytes / line.bytes_a_second,
            mask_seconds=self.mask_seconds
            + self.mask_turns * line.request_seconds
            + self.mask_remote_bytes / line.bytes_a_second,
        )
