"""In which order is read and built, and when parts of cells are deleted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2crop_data.grid import Cell
from h2crop_data.pipeline.block import BlockTask
from h2crop_data.pipeline.block_run import batches_by_ground, by_ground
from h2crop_data.pipeline.schedule import Schedule, WaitingParts
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.scratch import Part, Scratch
from h2crop_data.sources.source import BlockGround


def cell(number: int) -> Cell:
    return Cell(32631, 240, number, 0)


def block(number: int, cells: list[int], season: int = 2022) -> BlockTask:
    ground = BlockGround(season, "train", [cell(one) for one in cells], 240)
    nothing: Any = None
    return BlockTask(number, ground, nothing, {}, {}, {})


class MadeSchedule:
    """Blocks of some cells, and readings that give parts of some cells, worked on as an engine does."""

    def __init__(
        self, folder: Path, blocks: list[list[int]], readings: dict[str, list[int]], bound: int = 10**9
    ) -> None:
        self.scratch = Scratch(folder).of_season(2022)
        self.tasks = [block(number, cells) for number, cells in enumerate(blocks)]
        self.readings = {
            name: Reading("made", name, 2022, tuple(map(cell, cells)), 100 * len(cells), None)
            for name, cells in readings.items()
        }
        uses = Counter((task.season, one) for task in self.tasks for one in task.ground.cells)
        tasks = iter([(task, self.needs(task)) for task in self.tasks])
        self.schedule = Schedule(tasks, WaitingParts(uses), Scratch(folder), bound)
        self.done: list[str | int] = []
        #: Blocks that fail.
        self.failing: set[int] = set()
        self.held: list[int] = []

    def needs(self, task: BlockTask) -> tuple[Reading, ...]:
        cells = set(task.ground.cells)
        return tuple(reading for reading in self.readings.values() if cells & set(reading.cells))

    def end(self, job: BlockTask | Reading, fails: set[str]) -> None:
        """Do a piece of work."""
        if isinstance(job, Reading):
            if job.id not in fails:
                for one in job.cells:
                    self.scratch.write(one, job.id, Part({}, (np.ones(3, np.uint8),)))
            self.schedule.note_reading(job)
        else:
            for reading in self.needs(job):
                for one in set(reading.cells) & set(job.ground.cells):
                    is_there = self.scratch.read(one, reading.id) is not None
                    assert is_there == (reading.id not in fails), "a block is built before its parts are there"
            self.schedule.note_block(job, built=job.block not in self.failing)
        self.done.append(job.id if isinstance(job, Reading) else job.block)
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
                        return self
            if job is not None:
                running.append(job)
            else:
                assert running, "nothing to do and nothing at work"
                self.end(running.pop(), set(fails))


def test_what_the_first_block_needs_is_read_first(tmp_path: Path) -> None:
    made = MadeSchedule(tmp_path, [[0, 1], [2, 3]], {"a": [0, 1, 2], "b": [3], "c": [0]}).run()
    assert made.done == ["a", "c", 0, "b", 1]
    assert not list(tmp_path.rglob("*.part"))


def test_a_cell_of_two_blocks_is_read_once_and_kept_for_both(tmp_path: Path) -> None:
    made = MadeSchedule(tmp_path, [[0], [1], [0]], {"a": [0], "b": [1]}).run()
    assert made.done == ["a", 0, "b", 1, 2] or made.done == ["a", 0, "b", 2, 1]
    assert made.held[-2] <= 1
    assert made.held[-1] == 0


def test_blocks_follow_a_reading_that_fails_and_read_for_themselves(tmp_path: Path) -> None:
    made = MadeSchedule(tmp_path, [[0], [1], [0, 2], [3]], {"a": [0], "b": [1, 2], "c": [3]})
    made.run(ahead=3, fails=frozenset({"a"}))
    assert {0, 1, 2, 3} <= set(made.done)
    assert not list(tmp_path.rglob("*.part"))


def test_parts_of_a_block_that_fails_are_kept(tmp_path: Path) -> None:
    made = MadeSchedule(tmp_path, [[0], [1, 2]], {"a": [0, 1, 2]})
    made.failing = {1}
    made.run()
    assert made.scratch.read(cell(0), "a") is None
    assert made.scratch.read(cell(1), "a") is not None
    assert made.scratch.read(cell(2), "a") is not None


def test_what_is_there_is_not_read_again_and_other_cells_are_not_read(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path).of_season(2022)
    scratch.write(cell(0), "a", Part({}, (np.ones(3, np.uint8),)))
    # Cell 9 is in no block to build: it was built before.
    made = MadeSchedule(tmp_path, [[0], [1]], {"a": [0, 9], "b": [1, 9]}).run()
    assert made.done == [0, "b", 1]
    assert not list(tmp_path.rglob("*.part"))


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


def test_beyond_the_bound_all_readings_of_one_block_are_begun_together(tmp_path: Path) -> None:
    made = MadeSchedule(tmp_path, [[0], [1]], {"a": [0], "b": [0], "c": [0], "d": [1]}, bound=1)
    jobs = [next(made.schedule) for _ in range(4)]
    assert [job.id if isinstance(job, Reading) else job for job in jobs] == ["a", "b", "c", None]
    for job in jobs[:3]:
        assert job is not None
        made.end(job, set())
    # Then the block, and nothing for another one beside it.
    task = next(made.schedule)
    assert isinstance(task, BlockTask)
    assert next(made.schedule) is None
    made.end(task, set())
    following = next(made.schedule)
    assert isinstance(following, Reading)
    assert following.id == "d"


def test_a_cell_of_two_seasons_is_two(tmp_path: Path) -> None:
    scratch, first, second = Scratch(tmp_path), block(0, [0], 2022), block(0, [0], 2023)
    readings = [Reading("made", f"{year}", year, (cell(0),), 100, None) for year in (2022, 2023)]
    parts = WaitingParts(Counter({(2022, cell(0)): 1, (2023, cell(0)): 1}))
    schedule = Schedule(iter([(first, (readings[0],)), (second, (readings[1],))]), parts, scratch)
    for task, reading in ((first, readings[0]), (second, readings[1])):
        assert next(schedule) == reading
        scratch.of_season(reading.season).write(cell(0), reading.id, Part({}))
        schedule.note_reading(reading)
        assert next(schedule) == task
        schedule.note_block(task, built=True)
        assert not list(tmp_path.rglob("*.part"))
    with pytest.raises(StopIteration):
        next(schedule)


@pytest.fixture
def plan() -> Any:
    """Six blocks of the scenes of April, then of September."""
    blocks = {
        "block": [0, 1, 2, 3, 4, 5],
        "epsg": [32631, 32631, 32632, 32631, 32631, 32631],
        "square": ["10_2", "9_3", "1_1", "9_3", "10_2", "9_12"],
    }
    return SimpleNamespace(season=2022, blocks=pd.DataFrame(blocks))


def test_blocks_are_taken_by_ground_all_scenes_over_a_square_together(plan: Any) -> None:
    assert by_ground(plan, [0, 1, 2, 3, 4, 5]) == [1, 3, 5, 0, 4, 2]
    assert by_ground(plan, [4, 3]) == [3, 4]


@pytest.mark.parametrize(
    ("size", "batches"),
    [
        (1, [[1], [3], [5], [0], [4], [2]]),
        (2, [[1, 3], [5], [0, 4], [2]]),
        (3, [[1, 3, 5], [0, 4, 2]]),
        (4, [[1, 3, 5], [0, 4, 2]]),
        (5, [[1, 3, 5, 0, 4], [2]]),
        (9, [[1, 3, 5, 0, 4, 2]]),
    ],
)
def test_blocks_of_a_square_are_in_one_batch(plan: Any, size: int, batches: list[list[int]]) -> None:
    found = batches_by_ground(plan, [0, 1, 2, 3, 4, 5], size)
    assert [[block for _, block in batch] for batch in found] == batches
    assert {season for batch in found for season, _ in batch} == {2022}


def test_there_is_no_batch_without_blocks(plan: Any) -> None:
    assert batches_by_ground(plan, [], 3) == []


def test_few_parts_wait_where_two_scenes_see_the_same_ground(tmp_path: Path) -> None:
    """Twenty squares, each seen by two scenes: in order of ground parts wait for the other scene's block alone."""
    ground = [[number] for number in range(20) for _ in range(2)]
    readings = {f"{number}": [number] for number in range(20)}
    made = MadeSchedule(tmp_path, ground, readings).run(ahead=4)
    assert len([one for one in made.done if isinstance(one, str)]) == 20
    assert max(made.held) <= 4


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
    built = [one for one in made.done if isinstance(one, int)]
    assert sorted(built) == list(range(len(blocks)))
    read = [one for one in made.done if isinstance(one, str)]
    assert len(read) == len(set(read))
    assert not list(made.scratch.folder.rglob("*.part"))
