"""In which order is read and built: what the next blocks need first, and no more than the scratch folder may hold."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from h2crop_data.errors import H2cropError
from h2crop_data.grid import Cell
from h2crop_data.pipeline.block import BlockTask
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.scratch import Scratch

#: Bytes that parts of cells may take in the scratch folder while blocks wait for others.
SCRATCH_BYTES = 20_000_000_000


@dataclass
class Waiting:
    """A block whose readings are not all done."""

    task: BlockTask
    #: Ids of those.
    needs: set[str]


class Schedule(Iterator[BlockTask | Reading | None]):
    """What is to be worked on next: a block whose readings are done, else a reading for one of the next blocks.

    None: nothing, until something that is being worked on has ended, of which `note_reading` and `note_block` tell.
    Parts of a cell are deleted when the last block that holds it has ended. To be used by one thread.
    """

    def __init__(
        self,
        tasks: Iterator[tuple[BlockTask, tuple[Reading, ...]]],
        uses: Mapping[Cell, int],
        scratch: Scratch,
        bound: int = SCRATCH_BYTES,
    ) -> None:
        """tasks: the blocks in order, with their readings. uses: in how many of them each cell is.

        bound: bytes beyond which no reading is begun, unless nothing else can be done.
        """
        self._tasks, self._scratch, self._bound = tasks, scratch, bound
        self._uses = Counter(uses)
        self._done: set[str] = set()
        self._begun: set[str] = set()
        self._to_read: deque[Reading] = deque()
        self._ready: deque[BlockTask] = deque()
        self._waiting: dict[str, list[Waiting]] = defaultdict(list)
        self._errors: dict[str, H2cropError] = {}
        #: Blocks that cannot be built, and why; to be taken by whoever runs the schedule.
        self.lost: list[tuple[BlockTask, H2cropError]] = []
        self._running = 0
        #: Bytes in the scratch folder by cell.
        self._held: Counter[Cell] = Counter()

    def __next__(self) -> BlockTask | Reading | None:
        """What is next. Raises StopIteration when everything was begun."""
        while not self._ready and not self._to_read and self._take_block():
            pass
        if self._ready:
            self._running += 1
            return self._ready.popleft()
        if self._to_read and (self._running == 0 or self._held.total() < self._bound):
            self._running += 1
            return self._to_read.popleft()
        if self._to_read or any(self._waiting.values()):
            return None
        raise StopIteration

    def _take_block(self) -> bool:
        """Take the next block; False where there is none."""
        found = next(self._tasks, None)
        if found is None:
            return False
        task, readings = found
        error = next((self._errors[reading.id] for reading in readings if reading.id in self._errors), None)
        if error is not None:
            self._end(task, error)
            return True
        waiting = Waiting(task, set())
        for reading in readings:
            if reading.id in self._done:
                continue
            if reading.id not in self._begun:
                self._begun.add(reading.id)
                # Other cells are in blocks that were built before.
                wanted = tuple(cell for cell in reading.cells if self._uses[cell] > 0)
                for cell in wanted:
                    self._held[cell] += reading.bytes // len(reading.cells)
                if self._scratch.has(wanted, reading.id):
                    self._done.add(reading.id)
                    continue
                self._to_read.append(replace(reading, cells=wanted))
            waiting.needs.add(reading.id)
            self._waiting[reading.id].append(waiting)
        if not waiting.needs:
            self._ready.append(task)
        return True

    def note_reading(self, reading: Reading, error: H2cropError | None) -> None:
        """A reading has ended. error: why it failed; its blocks are lost then, and no others."""
        self._running -= 1
        waiting = self._waiting.pop(reading.id, [])
        if error is None:
            self._done.add(reading.id)
        else:
            self._errors[reading.id] = error
        for block in waiting:
            if error is not None and block.needs:
                # It is told of once.
                for name in block.needs - {reading.id}:
                    self._waiting[name].remove(block)
                block.needs.clear()
                self._end(block.task, error)
            elif block.needs:
                block.needs.discard(reading.id)
                if not block.needs:
                    self._ready.append(block.task)

    def note_block(self, task: BlockTask, *, built: bool) -> None:
        """A block has ended; the parts of one that failed are kept."""
        self._running -= 1
        self._forget(task, keep=not built)

    def _end(self, task: BlockTask, error: H2cropError) -> None:
        """A block cannot be built."""
        self.lost.append((task, error))
        self._forget(task, keep=True)

    def _forget(self, task: BlockTask, *, keep: bool = False) -> None:
        """One block less needs its cells. keep: their parts may be of use when the block is built later."""
        for cell in task.ground.cells:
            self._uses[cell] -= 1
            if self._uses[cell] <= 0:
                self._held.pop(cell, None)
                if not keep:
                    self._scratch.forget(cell)
