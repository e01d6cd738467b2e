"""Work on many things at a time, in their order, with few of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Iterator[Result]:
    """What `work` gives for each item, in their order, by threads.

    ahead: the most items begun whose results were not taken, by default two a worker. The first error is raised when
    what is being worked on is finished; what waits is dropped.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="in order")
    try:
        yield from in_order_of(pool, work, items, ahead or 2 * workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order_of(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """The same by a pool that is there already; with processes `work` and items must be picklable."""
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) >= ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
