"""The estimated work of a unit, a reading or a block, and the time of many of them on some workers."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import cos, radians

import pystac
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.access import file_stamp

#: Requests that open a file, before those for its tiles.
OPENING = 2
#: Metres along a degree of latitude.
METRES_A_DEGREE = 111_320.0


@dataclass(frozen=True)
class ArchiveLine:
    """The way to an archive: seconds until an answer begins, and bytes a second of all workers together."""

    request_seconds: float
    bytes_a_second: float


@dataclass(frozen=True)
class Work:
    """The estimated work of one task.

    cpu: seconds of a core. bytes: read of files. remote_bytes: those of them that come from servers. written: bytes of
    its result. requests: to servers. at_once: how many of these it has under way at a time. connections: how many all
    tasks together may have. overlaps: whether it computes while it waits.
    """

    cpu: float = 0.0
    bytes: int = 0
    remote_bytes: int = 0
    written: int = 0
    requests: int = 0
    at_once: int = 1
    connections: int = 1
    overlaps: bool = False

    def waiting(self, line: ArchiveLine) -> float:
        """Seconds that it waits for servers when it is alone."""
        at_once = min(self.at_once, self.connections)
        return self.requests / at_once * line.request_seconds + self.remote_bytes / line.bytes_a_second

    def alone(self, line: ArchiveLine) -> float:
        """Seconds that it takes when it is alone."""
        waiting = self.waiting(line)
        return max(self.cpu, waiting) if self.overlaps else self.cpu + waiting


@dataclass(frozen=True)
class WorkStep:
    """Tasks that wait for nothing but workers and connections, in the order in which they are begun."""

    name: str
    tasks: tuple[Work, ...]

    @classmethod
    def of(cls, name: str, tasks: Iterable[Work]) -> WorkStep:
        """A step of some tasks."""
        return cls(name, tuple(tasks))

    @property
    def cpu(self) -> float:
        """Seconds of a core."""
        return sum(task.cpu for task in self.tasks)

    @property
    def requests(self) -> int:
        """Requests to servers."""
        return sum(task.requests for task in self.tasks)

    @property
    def bytes(self) -> int:
        """Bytes read of files."""
        return sum(task.bytes for task in self.tasks)

    @property
    def remote_bytes(self) -> int:
        """Those of them that come from servers."""
        return sum(task.remote_bytes for task in self.tasks)

    def seconds(self, workers: int, line: ArchiveLine) -> float:
        """How long so many workers, each with a core, take: spread over them, but no faster than an archive answers.

        A task is one worker's: what cannot be spread ends with the longest.
        """
        spread = spread_over(workers, [task.alone(line) for task in self.tasks])
        answers = sum(task.requests / task.connections for task in self.tasks) * line.request_seconds
        return max(spread, answers, self.remote_bytes / line.bytes_a_second)


def even_parts(total: int, count: int) -> list[int]:
    """A number in so many parts of which none is larger than another by more than 1, and that are it together."""
    return [total * (place + 1) // count - total * place // count for place in range(count)]


def spread_over(workers: int, seconds: Sequence[float]) -> float:
    """When the last of some tasks ends, each given in its turn to the worker that is free first."""
    free = [0.0] * max(1, min(workers, len(seconds)))
    for task in seconds:
        heapq.heappush(free, heapq.heappop(free) + task)
    return max(free)


def square_metres(ground: BaseGeometry) -> float:
    """The area of some ground in longitude and latitude, about."""
    latitude = 0.0 if ground.is_empty else ground.centroid.y
    return float(ground.area * METRES_A_DEGREE**2 * cos(radians(latitude)))


def ground_of_item(item: pystac.Item) -> BaseGeometry:
    """The ground that an item says it shows, in longitude and latitude; nothing where it does not say."""
    return shapely.make_valid(shape(item.geometry)) if item.geometry else shapely.Polygon()


def size_of(asset: pystac.Asset) -> int | None:
    """Bytes of a file, as it lies on this machine or as the catalog states (`file:size`); None if unknown."""
    stamp, stated = file_stamp(asset.href), asset.extra_fields.get("file:size")
    if stamp is not None:
        return stamp[0]
    return stated if isinstance(stated, int) else None
