"""Processes that draw a region: the results of many calls, in order or as they come, with few in flight."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from h2crop_data.bounded_map import as_done_of, in_order_of, worker_processes

Result = TypeVar("Result")
#: Calls in flight for each worker; results wait in memory until they are taken.
CALLS_AHEAD = 3


class Simulators:
    """Calls a function for many arguments, in this process (one worker) or in others."""

    def __init__(self, number: int, pool: Executor | None) -> None:
        self.number = number
        self.pool = pool

    def in_order(self, work: Callable[..., Result], calls: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
        """The result of each call, in their order."""
        if self.pool is None:
            yield from (work(*call) for call in calls)
            return
        yield from in_order_of(self.pool, partial(with_arguments, work), calls, CALLS_AHEAD * self.number)

    def as_done(
        self, work: Callable[..., Result], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[tuple[Any, ...], Result]]:
        """Each call and its result, as they are done."""
        if self.pool is None:
            yield from ((call, work(*call)) for call in calls)
            return
        yield from as_done_of(self.pool, partial(with_arguments, work), calls, CALLS_AHEAD * self.number)


def with_arguments(work: Callable[..., Result], call: tuple[Any, ...]) -> Result:
    """The result of a call."""
    return work(*call)


@contextmanager
def started(number: int) -> Iterator[Simulators]:
    """Workers, ended with the block; what was not begun is not begun then."""
    if number == 1:
        yield Simulators(1, None)
        return
    with one_thread_each(), worker_processes(number) as pool:
        yield Simulators(number, pool)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started here do linear algebra with one thread: there is one process a core."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
