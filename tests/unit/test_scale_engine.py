"""The simulation behind docs/scale.md gives what can be worked out without it."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "docs")
        yield importlib.import_module("scale_engine")


def run(engine: ModuleType, jobs: list[tuple[tuple[str, float], ...]], workers: int, **named: Any) -> Any:
    """Simulate tasks that need no others."""
    ended: list[Any] = []
    shared = named.pop("shared", {})
    phase = engine.simulate((engine.Job("task", one) for one in jobs), ended.append, workers, shared, **named)
    assert phase.jobs == len(jobs)
    assert sorted(one.steps for one in ended) == sorted(jobs)
    return phase


def test_tasks_that_share_nothing_take_their_time_by_the_number_of_workers(engine: ModuleType) -> None:
    rng = np.random.default_rng(0)
    costs = rng.uniform(1, 3, 5000).tolist()
    for workers in (1, 4, 64):
        phase = run(engine, [(("core", cost),) for cost in costs], workers)
        # Of any order in which no worker waits: the last one to end begins before all others are done.
        assert sum(costs) / workers <= phase.seconds + 1e-6
        assert phase.seconds <= sum(costs) / workers + max(costs)
        assert phase.occupied == pytest.approx(sum(costs))
    assert run(engine, [(("core", cost),) for cost in costs], 1).seconds == pytest.approx(sum(costs))


def test_a_list_of_costs_by_hand(engine: ModuleType) -> None:
    # Two workers: 5 and 1; at 1 the second begins 2, at 3 it begins 4, at 5 the first begins 3: 8.
    assert run(engine, [(("core", cost),) for cost in (5, 1, 2, 4, 3)], 2).seconds == pytest.approx(8)
    # Three get 1 a second each of 3 in all; when the one that wants 2 is done, the others get 1.5: 2 + 2 / 1.5.
    shared = {"line": engine.Shared(each=1.5, total=3)}
    phase = run(engine, [(("line", 4),), (("line", 4),), (("line", 2),)], 3, shared=shared)
    assert phase.seconds == pytest.approx(2 + 2 / 1.5)
    assert phase.full["line"] == pytest.approx(2)


@pytest.mark.parametrize("workers", [1, 2, 5, 50])
def test_no_more_comes_through_than_one_shared_thing_gives(engine: ModuleType, workers: int) -> None:
    # 4 connections in all, 2 a task; a task asks for 10 connection seconds, then computes for 3 seconds.
    jobs = [(("archive", 10.0), ("core", 3.0))] * 400
    phase = run(engine, jobs, workers, shared={"archive": engine.Shared(each=2, total=4)})
    assert 400 / phase.seconds <= min(workers / 8, 4 / 10) + 1e-9
    # Alike tasks go hand in hand: all fetch, then all compute.
    assert phase.seconds == pytest.approx(400 / workers * (10 / min(2, 4 / workers) + 3))


def test_tasks_that_differ_use_all_that_is_shared(engine: ModuleType) -> None:
    rng = np.random.default_rng(0)
    jobs = [(("archive", cost * 10), ("core", cost * 3)) for cost in rng.exponential(size=4000)]
    asked, computed = (sum(job[place][1] for job in jobs) for place in (0, 1))
    for workers in (1, 2, 5, 20):
        phase = run(engine, jobs, workers, shared={"archive": engine.Shared(each=2, total=4)})
        bound = max(asked / 4, (asked / 2 + computed) / workers)
        assert bound <= phase.seconds + 1e-6
        # Where both limits are near one another, neither is always in use.
        assert phase.seconds <= bound * (1.2 if workers == 5 else 1.02)


def test_one_client_hands_out_one_task_at_a_time(engine: ModuleType) -> None:
    jobs = [(("core", 1.0),)] * 300
    assert run(engine, jobs, 100, overhead=0.1).seconds == pytest.approx(30 + 1, rel=0.01)
    phase = run(engine, jobs, 4, overhead=0.1)
    # Two tasks a worker are begun, so that none waits for the client.
    assert phase.seconds == pytest.approx(ceil(300 / 4) * 1.0, abs=1)
    assert phase.full["client"] == pytest.approx(30)


class Chain(Iterator[Any]):
    """Tasks each of which needs the one before, as a schedule gives them."""

    def __init__(self, jobs: list[Any]) -> None:
        self.waiting, self.running = deque(jobs), 0

    def __next__(self) -> Any:
        if not self.waiting:
            raise StopIteration
        if self.running:
            return None
        self.running += 1
        return self.waiting.popleft()

    def note(self, _: Any) -> None:
        self.running -= 1


def test_what_needs_another_task_waits_for_it(engine: ModuleType) -> None:
    chain = Chain([engine.Job("task", (("core", 2.0),))] * 10)
    phase = engine.simulate(chain, chain.note, 8, {})
    assert phase.seconds == pytest.approx(20)
    assert phase.occupied == pytest.approx(20)


def test_at_most_two_tasks_a_worker_are_begun(engine: ModuleType) -> None:
    begun = most = 0

    def jobs() -> Iterator[Any]:
        nonlocal begun, most
        for _ in range(50):
            begun += 1
            most = max(most, begun)
            yield engine.Job("task", (("core", 1.0),))

    def note(_: Any) -> None:
        nonlocal begun
        begun -= 1

    engine.simulate(jobs(), note, 3, {})
    assert most == 6


def test_a_schedule_that_waits_for_nothing_is_an_error(engine: ModuleType) -> None:
    with pytest.raises(ValueError, match="nothing runs"):
        engine.simulate(iter([None]), print, 1, {})
