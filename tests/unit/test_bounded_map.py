"""Work on many things at a time: order, how far ahead it begins, errors, interruptions."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2crop_data.bounded_map import (
    AbandonedWorkError,
    as_done_of,
    in_order,
    in_order_of,
    worker_processes,
    worker_threads,
)


class Noted:
    """Numbers that note how many of them were asked for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.begun: list[int] = []

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            self.begun.append(number)
            yield number


def square(number: int) -> int:
    return number * number


def fail_at_one(number: int) -> int:
    if number == 1:
        raise ValueError("broken")
    return number


#: What the initializer left in a worker process.
LEFT: list[str] = []


def leave(text: str) -> None:
    LEFT.append(text)


def what_is_left(number: int) -> tuple[int, str, int]:
    return number, "".join(LEFT), os.getpid()


def test_work_in_threads_begins_little_ahead_and_nothing_after_an_error() -> None:
    things = Noted(20)
    results = in_order(square, things, 2, ahead=3)
    assert next(results) == 0
    assert len(things.begun) <= 3
    assert list(results) == [number * number for number in range(1, 20)]
    assert things.begun == list(range(20))
    others = Noted(20)
    with pytest.raises(ValueError, match="broken"):
        list(in_order(fail_at_one, others, 2))
    assert len(others.begun) < 20


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4))
def test_every_thing_is_worked_on_once(things: list[int], workers: int) -> None:
    assert list(in_order(lambda number: 2 * number, things, workers)) == [2 * number for number in things]


@pytest.mark.slow
@given(st.lists(st.integers(), max_size=20), st.integers(1, 4), st.integers(1, 8))
def test_as_done_every_thing_comes_once_with_its_own_result(things: list[int], workers: int, ahead: int) -> None:
    with worker_threads(workers, "test") as pool:
        results = list(as_done_of(pool, square, things, ahead))
    assert sorted(results) == sorted((number, number * number) for number in things)


def test_what_is_done_first_comes_first() -> None:
    second_came = threading.Event()

    def first_waits(number: int) -> int:
        assert number or second_came.wait(30)
        return number

    with worker_threads(2, "test") as pool:
        results = as_done_of(pool, first_waits, [0, 1], 2)
        assert next(results) == (1, 1)
        second_came.set()
        assert list(results) == [(0, 0)]


def test_as_done_begins_no_more_than_asked_for() -> None:
    things = Noted(20)
    with worker_threads(2, "test") as pool:
        results = as_done_of(pool, square, things, 3)
        next(results)
        assert len(things.begun) == 3
        assert len(list(results)) == 19


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_more_is_begun_when_the_block_of_a_pool_is_left(error: type[BaseException]) -> None:
    at_work, go_on, done = threading.Event(), threading.Event(), []

    def work(number: int) -> None:
        at_work.set()
        assert go_on.wait(30)
        done.append(number)

    def interrupted() -> None:
        with worker_threads(1, "test") as pool:
            for number in range(5):
                pool.submit(work, number)
            assert at_work.wait(30)
            threading.Timer(0.2, go_on.set).start()
            raise error

    with pytest.raises(error):
        interrupted()
    # What was being worked on is finished, what waited is not begun.
    assert done == [0]


def test_an_error_comes_out_of_what_is_done() -> None:
    with worker_threads(1, "test") as pool, pytest.raises(ValueError, match="broken"):
        list(as_done_of(pool, fail_at_one, range(5), 2))


def test_a_thing_at_which_the_pool_failed_can_have_a_result_instead() -> None:
    def told(number: int, error: Exception) -> int:
        assert str(error) == "broken"
        return -number

    with worker_threads(1, "test") as pool:
        assert list(as_done_of(pool, fail_at_one, range(3), 1, told)) == [(0, 0), (1, -1), (2, 2)]


@pytest.mark.slow
def test_more_is_begun_when_more_workers_come_without_waiting_for_a_result() -> None:
    """Nothing ends before three things are at work; at first there is one worker."""
    together = threading.Barrier(3)
    answers = iter([1, 1])

    def work(number: int) -> int:
        together.wait(30)
        return number

    with worker_threads(3, "test") as pool:
        results = dict(as_done_of(pool, work, range(3), lambda: next(answers, 3)))
    assert results == {0: 0, 1: 1, 2: 2}


def test_without_workers_one_thing_waits_for_the_first() -> None:
    things = Noted(3)
    with worker_threads(1, "test") as pool:
        results = as_done_of(pool, square, things, lambda: 0)
        assert next(results) == (0, 0)
        assert things.begun == [0]
        assert list(results) == [(1, 1), (2, 4)]
        assert list(in_order_of(pool, square, Noted(3), lambda: 0)) == [0, 1, 4]


def test_processes_are_others_and_start_with_what_they_are_given() -> None:
    with worker_processes(1, leave, ("hello",)) as pool:
        results = dict(as_done_of(pool, what_is_left, [1, 2], 2))
    assert {(number, text) for number, text, _ in results.values()} == {(1, "hello"), (2, "hello")}
    assert os.getpid() not in {process for _, _, process in results.values()}
    assert LEFT == []


def test_work_that_is_abandoned_is_not_waited_for() -> None:
    never = threading.Event()
    try:
        with suppress(AbandonedWorkError), worker_threads(1, "hangs") as pool:
            hanging = pool.submit(never.wait, 60)
            raise AbandonedWorkError
        assert not hanging.done()
    finally:
        never.set()
    with suppress(AbandonedWorkError), worker_processes(1) as pool:
        pool.submit(time.sleep, 600)
        (process,) = multiprocessing.active_children()
        raise AbandonedWorkError
    process.join(60)
    assert not process.is_alive()
