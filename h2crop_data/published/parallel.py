"""Work on many things in a few threads, with few of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], things: Iterable[T], workers: int) -> Iterator[R]:
    """The result of each thing as it comes, in any order; at most one more than there are workers is begun.

    The first error is raised when what was begun is finished; nothing new is begun then.
    """
    queue = iter(things)
    with ThreadPoolExecutor(workers, thread_name_prefix="sample") as pool:
        running: set[Future[R]] = set()
        while True:
            running |= {pool.submit(work, thing) for thing in islice(queue, workers + 1 - len(running))}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
