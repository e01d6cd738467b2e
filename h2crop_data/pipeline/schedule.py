"""The order of readings and blocks: first what the next blocks need, within the limit of the scratch folder."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from h2crop_data.grid import Cell
from h2crop_data.pipeline.block import BlockTask
from h2crop_data.settings import SCRATCH_BYTES
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.scratch import Scratch

#: A cell in a season.
SeasonCell = tuple[int, Cell]


@dataclass
class Waiting:
    """A block whose readings are not all done."""

    task: BlockTask
    #: Ids of those.
    needs: set[str]


@dataclass
class WaitingParts:
    """Parts of cells that wait for blocks. Schedules of one run share it: what a later batch needs is not deleted."""

    #: In how many blocks that are not built yet each cell is.
    uses: Counter[SeasonCell]
    #: Bytes in the scratch folder by cell.
    held: Counter[SeasonCell] = field(default_factory=Counter)
    #: Readings (ids) whose bytes were added.
    counted: set[str] = field(default_factory=set)

    def hold(self, reading: Reading) -> None:
        """Count the parts that a reading gives, once."""
        if reading.id in self.counted:
            return
        self.counted.add(reading.id)
        for cell in reading.cells:
            if self.uses[reading.season, cell] > 0:
                self.held[reading.season, cell] += reading.bytes // len(reading.cells)


class Schedule(Iterator[BlockTask | Reading | None]):
    """What is to be worked on next: a block whose readings are done, else a reading for one of the next blocks.

    None: nothing, until something that is being worked on has ended, of which `note_reading` and `note_block` tell.
    Parts of a cell are deleted when the last block that holds it has ended. To be used by one thread.
    """

    def __init__(
        self,
        tasks: Iterator[tuple[BlockTask, tuple[Reading, ...]]],
        parts: WaitingParts,
        scratch: Scratch,
        bound: int = SCRATCH_BYTES,
    ) -> None:
        """tasks: the blocks in order, with their readings. parts: of these blocks, and of those of later schedules.

        bound: bytes beyond which readings are begun for one block at a time, and only when nothing else can be done.
        """
        self._tasks, self._parts, self._scratch, self._bound = tasks, parts, scratch, bound
        self._done: set[str] = set()
        self._begun: set[str] = set()
        #: Readings to begin, with the block that asked for each first.
        self._to_read: deque[tuple[BlockTask, Reading]] = deque()
        #: The block for which a reading was begun last.
        self._read_for: BlockTask | None = None
        self._ready: deque[BlockTask] = deque()
        self._waiting: dict[str, list[Waiting]] = defaultdict(list)
        self._running = 0

    def __next__(self) -> BlockTask | Reading | None:
        """What is next. Raises StopIteration when everything was begun."""
        while not self._ready and not self._to_read and self._take_block():
            pass
        if self._ready:
            self._running += 1
            return self._ready.popleft()
        if self._to_read and self._may_read(self._to_read[0][0]):
            self._running += 1
            self._read_for, reading = self._to_read.popleft()
            return reading
        if self._to_read or any(self._waiting.values()):
            return None
        raise StopIteration

    def _may_read(self, task: BlockTask) -> bool:
        """Whether a reading of a block may be begun. Of one block all may: their parts were counted together."""
        return task is self._read_for or self._running == 0 or self._parts.held.total() < self._bound

    def _take_block(self) -> bool:
        """Take the next block; False where there is none."""
        found = next(self._tasks, None)
        if found is None:
            return False
        task, readings = found
        waiting = Waiting(task, set())
        for reading in readings:
            if reading.id in self._done:
                continue
            if reading.id not in self._begun:
                self._begun.add(reading.id)
                # Other cells are in blocks that were built before.
                season = reading.season
                wanted = tuple(cell for cell in reading.cells if self._parts.uses[season, cell] > 0)
                self._parts.hold(reading)
                if self._scratch.of_season(season).has(wanted, reading.id):
                    self._done.add(reading.id)
                    continue
                self._to_read.append((task, replace(reading, cells=wanted)))
            waiting.needs.add(reading.id)
            self._waiting[reading.id].append(waiting)
        if not waiting.needs:
            self._ready.append(task)
        return True

    def note_reading(self, reading: Reading) -> None:
        """A reading has ended. Of one that failed there are no parts: each of its blocks reads what it needs itself."""
        self._running -= 1
        self._done.add(reading.id)
        for block in self._waiting.pop(reading.id, []):
            block.needs.discard(reading.id)
            if not block.needs:
                self._ready.append(block.task)

    def note_block(self, task: BlockTask, *, built: bool) -> None:
        """A block has ended; the parts of one that failed are kept for the next try."""
        self._running -= 1
        for cell in task.ground.cells:
            self._parts.uses[task.season, cell] -= 1
            if built and self._parts.uses[task.season, cell] <= 0:
                self._parts.held.pop((task.season, cell), None)
                self._scratch.of_season(task.season).forget(cell)
