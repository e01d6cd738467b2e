"""Work on many things at a time, with few of them in memory: results in order, or as they come.

This is the one bounded map of the package, and where its pools are made. `pipeline/units.py` alone has a loop of its
own, because which unit can be begun there depends on the results of others; `catalog/granule_reader.py` keeps the
threads that read from an archive from scene to scene.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


#: How many things may be begun whose results were not taken: a number, or what gives the number of the moment.
Ahead = int | Callable[[], int]
#: Seconds after which a number that may change is asked for again.
LOOK_AGAIN = 1.0


class AbandonedWorkError(BaseException):
    """Raised to leave pools at once: their threads are not waited for, processes are killed.

    The caller makes sure that threads which continue do no harm: a store refuses files written under a lock that is
    over.
    """


@dataclass(frozen=True)
class WorkerPool:
    """Workers that are ready, of this machine or others."""

    executor: Executor
    #: How many things may be begun whose results were not taken: two a worker.
    ahead: Ahead
    #: Threads with which a worker may compress and hash.
    threads: int = 1


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Iterator[Result]:
    """The results of `work` for each item, in order, by threads.

    ahead: the most items begun whose results were not taken, by default two a worker. The first error is raised when
    what is being worked on is finished; what waits is dropped.
    """
    with worker_threads(workers, "in order") as pool:
        yield from in_order_of(pool, work, items, ahead or 2 * workers)


def in_order_of(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: Ahead
) -> Iterator[Result]:
    """The same by a pool that is there already; with processes `work` and items must be picklable."""
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        while begun and len(begun) >= allowed_by(ahead):
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def raise_error(item: Any, error: Exception) -> Any:
    """No error of an item is tolerated."""
    raise error


def as_done_of(
    pool: Executor,
    work: Callable[[Item], Result],
    items: Iterable[Item | None],
    ahead: Ahead,
    failed: Callable[[Any, Exception], Result] = raise_error,
) -> Iterator[tuple[Item, Result]]:
    """Each item and its result as they are done, by a pool that is there already; the first error is raised.

    items: may give None where the next item depends on what is being worked on: it is asked again after a result.
    ahead: the most items begun whose results were not taken; at least one is begun. failed: gives the result of an item
    at which the pool failed, instead of its error.
    """
    queue = iter(items)
    running: dict[Future[Result], Item] = {}
    while True:
        for item in islice(queue, max(0 if running else 1, allowed_by(ahead) - len(running))):
            if item is None:
                break
            running[pool.submit(work, item)] = item
        if not running:
            return
        done, _ = wait(running, LOOK_AGAIN if callable(ahead) else None, FIRST_COMPLETED)
        for future in done:
            item = running.pop(future)
            error = future.exception()
            if error is None:
                yield item, future.result()
            elif isinstance(error, Exception):
                yield item, failed(item, error)
            else:
                raise error


def allowed_by(ahead: Ahead) -> int:
    """How many things may be begun now."""
    return ahead() if callable(ahead) else ahead


@contextmanager
def worker_threads(workers: int, name: str) -> Iterator[Executor]:
    """Threads that end with the block: what is being worked on is finished, what waits is dropped."""
    with ended(ThreadPoolExecutor(workers, thread_name_prefix=name)) as pool:
        yield pool


@contextmanager
def worker_processes(
    workers: int, initializer: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[Executor]:
    """New processes that end with the block in the same way. initializer: called with `arguments` in each."""
    context = multiprocessing.get_context("spawn")
    processes = ProcessPoolExecutor(workers, context, initializer, arguments)
    with ended(processes) as pool:
        try:
            yield pool
        except AbandonedWorkError:
            for process in (processes._processes or {}).values():
                process.kill()
            raise


@contextmanager
def ended(pool: Executor) -> Iterator[Executor]:
    """A pool that ends with the block."""
    try:
        yield pool
    except AbandonedWorkError:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            log.info("stopping after %s: waiting for the work that workers have begun", type(error).__name__)
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True, cancel_futures=True)
