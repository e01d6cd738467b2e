"""In which order is read and built, and when parts of cells are deleted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2crop_data.errors import ReadError
from h2crop_data.grid import Cell
from h2crop_data.pipeline.block import BlockTask
from h2crop_data.pipeline.schedule import Schedule
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.scratch import Part, Scratch
from h2crop_data.sources.source import BlockGround


def cell(number: int) -> Cell:
    return Cell(32631, 240, number, 0)


def block(number: int, cells: list[int]) -> BlockTask:
    ground = BlockGround(2022, "train", [cell(one) for one in cells], 240)
    nothing: Any = None
    return BlockTask(number, ground, nothing, {}, {}, {})


class MadeSchedule:
    """Blocks of some cells, and readings that give parts of some cells, worked on as an engine does."""

    def __init__(
        self, folder: Path, blocks: list[list[int]], readings: dict[str, list[int]], bound: int = 10**9
    ) -> None:
        self.scratch = Scratch(folder)
        self.tasks = [block(number, cells) for number, cells in enumerate(blocks)]
        self.readings = {
            name: Reading("made", name, tuple(map(cell, cells)), 100 * len(cells), None)
            for name, cells in readings.items()
        }
        uses = Counter(one for task in self.tasks for one in task.ground.cells)
        self.schedule = Schedule(iter([(task, self.needs(task)) for task in self.tasks]), uses, self.scratch, bound)
        self.done: list[str | int] = []
        self.lost: list[int] = []
        self.held: list[int] = []

    def needs(self, task: BlockTask) -> tuple[Reading, ...]:
        cells = set(task.ground.cells)
        return tuple(reading for reading in self.readings.values() if cells & set(reading.cells))

    def end(self, job: BlockTask | Reading, fails: set[str]) -> None:
        """Do a piece of work."""
        if isinstance(job, Reading):
            error = ReadError(job.id) if job.id in fails else None
            if error is None:
                for one in job.cells:
                    self.scratch.write(one, job.id, Part({}, (np.ones(3, np.uint8),)))
            self.schedule.note_reading(job, error)
        else:
            for reading in self.needs(job):
                for one in set(reading.cells) & set(job.ground.cells):
                    assert self.scratch.read(one, reading.id) is not None, "a block is built before its parts are there"
            self.schedule.note_block(job, built=True)
        self.done.append(job.id if isinstance(job, Reading) else job.block)
        self.lost += [task.block for task, _ in self.schedule.lost]
        self.schedule.lost.clear()
        self.held.append(len(list(self.scratch.folder.glob("*/*.part"))))

    def run(self, ahead: int = 1, fails: frozenset[str] = frozenset()) -> MadeSchedule:
        """Work on so many things at a time, the one begun last ending first."""
        running: list[BlockTask | Reading] = []
        while True:
            job: BlockTask | Reading | None = None
            if len(running) < ahead:
                try:
                    job = next(self.schedule)
                except StopIteration:
                    if not running:
                        self.lost += [task.block for task, _ in self.schedule.lost]
                        return self
            if job is not None:
                running.append(job)
            else:
                assert running, "nothing to do and nothing at work"
                self.end(running.pop(), set(fails))


def test_what_the_first_block_needs_is_read_first(tmp_path: Path) -> None:
    made = MadeSchedule(tmp_path, [[0, 1], [2, 3]], {"a": [0, 1, 2], "b": [3], "c": [0]}).run()
    assert made.done == ["a", "c", 0, "b", 1]
    assert not list(tmp_path.glob("*/*.part"))


def test_a_cell_of_two_blocks_is_read_once_and_kept_for_both(tmp_path: Path) -> None:
    made = MadeSchedule(tmp_path, [[0], [1], [0]], {"a": [0], "b": [1]}).run()
    assert made.done == ["a", 0, "b", 1, 2] or made.done == ["a", 0, "b", 2, 1]
    assert made.held[-2] <= 1
    assert made.held[-1] == 0


def test_a_reading_that_fails_costs_its_blocks_alone(tmp_path: Path) -> None:
    made = MadeSchedule(tmp_path, [[0], [1], [0, 2], [3]], {"a": [0], "b": [1, 2], "c": [3]})
    made.run(ahead=3, fails=frozenset({"a"}))
    assert sorted(made.lost) == [0, 2]
    assert {1, 3} <= set(made.done)
    # What a lost block needs besides is kept for the next try.
    assert made.scratch.read(cell(2), "b") is not None
    assert made.scratch.read(cell(1), "b") is None


def test_what_is_there_is_not_read_again_and_other_cells_are_not_read(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.write(cell(0), "a", Part({}, (np.ones(3, np.uint8),)))
    # Cell 9 is in no block to build: it was built before.
    made = MadeSchedule(tmp_path, [[0], [1]], {"a": [0, 9], "b": [1, 9]}).run()
    assert made.done == [0, "b", 1]
    assert not list(tmp_path.glob("*/*.part"))


def test_the_bound_stops_reading_ahead_but_not_what_the_next_block_needs(tmp_path: Path) -> None:
    blocks, readings = [[0], [1], [2]], {"a": [0], "b": [1], "c": [2]}
    free = MadeSchedule(tmp_path / "free", blocks, readings).schedule
    assert [job.id for job in (next(free), next(free), next(free)) if isinstance(job, Reading)] == ["a", "b", "c"]
    bound = MadeSchedule(tmp_path / "bound", blocks, readings, bound=150)
    first = next(bound.schedule)
    assert isinstance(first, Reading)
    assert next(bound.schedule) is None
    bound.end(first, set())
    task = next(bound.schedule)
    assert isinstance(task, BlockTask)
    assert next(bound.schedule) is None
    bound.end(task, set())
    following = next(bound.schedule)
    assert isinstance(following, Reading)
    assert following.id == "b"


@given(
    blocks=st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True), min_size=1, max_size=6),
    cells=st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=5, unique=True), max_size=6),
    ahead=st.integers(1, 5),
    bound=st.integers(0, 900),
    failing=st.sets(st.integers(0, 5)),
)
@settings(max_examples=60, deadline=None)
def test_everything_is_done_once_whatever_depends_on_what(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: list[list[int]],
    cells: list[list[int]],
    ahead: int,
    bound: int,
    failing: set[int],
) -> None:
    readings = {f"r{number}": of_reading for number, of_reading in enumerate(cells)}
    fails = frozenset(f"r{number}" for number in failing)
    made = MadeSchedule(tmp_path_factory.mktemp("schedule"), blocks, readings, bound).run(ahead, fails)
    lost = {task.block for task in made.tasks if any(reading.id in fails for reading in made.needs(task))}
    assert sorted(made.lost) == sorted(lost)
    built = [one for one in made.done if isinstance(one, int)]
    assert sorted(built) == sorted(set(range(len(blocks))) - lost)
    read = [one for one in made.done if isinstance(one, str)]
    assert len(read) == len(set(read))
    if not lost:
        assert not list(made.scratch.folder.glob("*/*.part"))
