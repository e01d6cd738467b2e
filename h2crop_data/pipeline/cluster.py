"""A Dask cluster as a pool of workers: requirements of workers, the number of their tasks, and lost workers.

WORK/cluster/<session>/session.json   what a worker must be like: versions, and the folders that it must see
                       <task>-<n>     a task that was begun for the n-th time and has not ended
                       <task>.part    what a task gave, while it is written
                       <task>         what a task gave, until the client has read it

Outcomes lie there, and do not come back as results of Dask, because these take twice the messages: the client learns
that there is one and asks the scheduler, who asks the worker.

A session lasts as long as its pool. Only the scheduler knows the workers, who come and go: each checks itself by the
session before its first task. A task that a lost worker had is given to another one by the scheduler, which is safe:
the bytes of a block, a part of a cell and the result of a unit do not depend on the writer.

This module and `engine.py`, which opens the pool, are all that knows Dask. What workers must be like says
`cluster_session.py`.
"""

from __future__ import annotations

import logging
import math
import pickle
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from h2crop_data.bounded_map import WorkerPool
from h2crop_data.constants import SCHEDULER_SCHEMES
from h2crop_data.errors import ClusterError, H2cropError, StoreError, UsageError
from h2crop_data.logs import show_lines_from
from h2crop_data.pipeline.cluster_session import Session, open_session, unfitness
from h2crop_data.settings import Processes
from h2crop_data.shared_connections import counted_by
from h2crop_data.sources.registry import forget_other_builds
from h2crop_data.waits import REPORTED_AFTER, Wait

if TYPE_CHECKING:
    from distributed import Client, Semaphore, Worker
    from distributed import Future as DaskFuture

log = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")
#: Tasks that are with the cluster for each thread of its workers: one it works on, one that waits; and the most, while
#: tasks are so short that a worker would be idle until the next one has come.
TASKS_A_THREAD, SHORT_TASKS_A_THREAD = 2, 8
#: Seconds of work that are with the cluster for each thread; tasks of which the mean is taken.
AHEAD_SECONDS, LAST_TASKS = 0.1, 16
#: Bytes of a call that are sent as they are; larger ones are compressed.
SENT_PLAIN = 4000
#: Workers that may die at a task before it is given up.
DEATHS = 3
#: Seconds between looks at the cluster; that workers have to say whether they are fit; that pass without an answer of
#: the scheduler, and without any worker, until the cluster is given up.
LOOK_EVERY = 1.0
ASK_WITHIN = 30.0
ANSWER_WITHIN = 60.0
WORKERS_WITHIN = 600.0
#: What Dask's configuration names the time in which a scheduler must answer.
CONNECT_WITHIN = "distributed.comm.timeouts.connect"
#: Seconds that a scheduler has for taking leave.
LEAVE_WITHIN = 5.0
#: Sessions that this process has seen to be fit for.
FIT: set[str] = set()
CHECKING = threading.Lock()


class LostWorkError(H2cropError, RuntimeError):
    """Several workers of a cluster died one after the other while they worked on a task."""


@contextmanager
def open_cluster(address: str, work: Path, shared: Mapping[str, Path]) -> Iterator[WorkerPool]:
    """The workers of a cluster as a pool, which ends with the block: what waits is dropped then.

    address: of the scheduler, `tcp://host:port`. work: the work folder of the store. shared: other folders that all
    workers must see, by what they are called.

    Raises UsageError for another kind of address, ClusterError where no scheduler answers, workers are unfit, or the
    cluster is lost while it works.
    """
    if not address.startswith(SCHEDULER_SCHEMES):
        raise UsageError(f"--dask {address}: expected an address that begins with {' or '.join(SCHEDULER_SCHEMES)}")
    with connected(address) as client, open_session(work, shared) as session:
        try:
            refuse_unfit(address, ask_workers(client, session))
            executor = ClusterExecutor(client, address, session)
            log.info("building on the cluster at %s: %d worker(s)", address, executor.workers)
        except (OSError, CancelledError) as error:
            raise lost_cluster(address) from error
        try:
            yield WorkerPool(executor, executor.ahead, threads=1)
        finally:
            executor.shutdown()


def lost_cluster(address: str, what: str = "lost") -> ClusterError:
    """The error to raise for a cluster that is lost."""
    return ClusterError(
        f"the cluster at {address} was {what}: finished blocks are kept; start it again and rerun the same command"
    )


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of a scheduler, which is waited for as long as Dask's configuration says.

    Raises ClusterError where none answers, UsageError without the package.
    """
    try:
        from dask import config
        from distributed import Client
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--dask needs the extra `cluster`: run pip install '.[cluster]' in a checkout of h2crop ({error})"
        ) from error
    # What it would log with stack traces, and go on logging after it was closed, is reported here as an error.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    log.info("connecting to the Dask scheduler at %s, for up to %s", address, config.get(CONNECT_WITHIN))
    try:
        client = Client(address, set_as_default=False, name="h2crop")
    except TypeError as error:
        # What Dask raises for tls:// where its own configuration names no certificates.
        raise UsageError(
            f"--dask {address}: {error}; set the certificates in Dask's configuration (`distributed.comm.tls`)"
        ) from error
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} ({error}): start one (`dask scheduler`), or correct the address"
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=LEAVE_WITHIN)


def ask_workers(client: Client, session: Session) -> dict[str, list[str] | BaseException]:
    """Why each worker cannot work for a session, or the error of the check, by address.

    Those that do not answer in time check themselves before their first task, as later ones do.
    """
    asked = {
        worker: client.submit(call_anywhere(unfitness, session), workers=[worker], priority=1, pure=False)
        for worker in threads_of(client)
    }
    log.info("checking %d worker(s) of the cluster, for up to %.0f s", len(asked), ASK_WITHIN)
    found: dict[str, list[str] | BaseException] = {}
    end = time.monotonic() + ASK_WITHIN
    for worker, future in asked.items():
        with suppress(TimeoutError):
            error = future.exception(timeout=max(0.0, end - time.monotonic()))
            found[worker] = error or future.result()
    return found


def threads_of(client: Client) -> dict[str, int]:
    """How many threads each worker has, by address. Raises OSError or TimeoutError where the scheduler is silent."""
    scheduler: Any = client.scheduler
    return dict(client.sync(scheduler.ncores, callback_timeout=ANSWER_WITHIN))


def refuse_unfit(address: str, found: Mapping[str, list[str] | BaseException]) -> None:
    """Refuse workers that differ. found: what is wrong, or what happened when that was asked, by address.

    Raises ClusterError that names the first of them with what to do.
    """
    told = {worker: unfitness_told(answer) for worker, answer in found.items()}
    unfit = {worker: problems for worker, problems in told.items() if problems}
    if unfit:
        worker, problems = next(iter(unfit.items()))
        others = f" ({len(unfit) - 1} other worker(s) cannot build either)" if len(unfit) > 1 else ""
        raise ClusterError(f"worker {worker} of the cluster at {address} cannot build: {'; '.join(problems)}{others}")


@dataclass(frozen=True)
class CallWhenRead:
    """A call that is made when this is unpickled, and is what that gives."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.work, self.arguments


def call_anywhere(work: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A call that any Dask worker can read, whether it has this package or not: without it the call fails.

    A worker that cannot read what it is given ends, and takes what else it was at along.
    """
    return partial(pickle.loads, pickle.dumps(CallWhenRead(work, arguments)))


def packed(work: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bytes:
    """A call as a task takes it along. Packed, what all blocks have in common takes little of it."""
    call = pickle.dumps((work, arguments, options))
    return zlib.compress(call, level=4 if len(call) > SENT_PLAIN else 0)


def unfitness_told(answer: list[str] | BaseException) -> list[str]:
    """What is wrong with a worker, by its answer or the error of the check."""
    if isinstance(answer, ImportError | AttributeError):
        return [f"it does not have the same version of h2crop-data ({answer}): install it there"]
    if isinstance(answer, BaseException):
        return [f"the check of the worker failed ({type(answer).__name__}: {answer}): see its log"]
    return answer


def do_task(session: Session, task: str, sharing: int, call: bytes) -> None:
    """Work on a task, on a worker, and keep what it gave for `take_outcome`.

    task: its name in the session. sharing: worker processes of the cluster. call: packed, so that it is read when this
    worker is known to have the same h2crop.

    Raises ClusterError where it has not, LostWorkError where the task is one at which workers die, StoreError where the
    session cannot be written, and what the call raises.
    """
    become_fit(session)
    # Who opens files reads from it which part of the connections to an archive is this process's.
    Processes.share_connections(sharing)
    note = begin_task(session, task)
    began = time.perf_counter()
    try:
        work, arguments, options = pickle.loads(zlib.decompress(call))
        with counted_by(ClusterConnections.of_this_worker().one):
            outcome = work(*arguments, **options)
        kept = pickle.dumps((outcome, time.perf_counter() - began))
    except BaseException:
        with suppress(OSError):
            note.unlink()
        raise
    keep_outcome(session, task, note, kept)


def become_fit(session: Session) -> None:
    """Check this process once, leave its threads to Dask, and reset its state. Raises ClusterError."""
    with CHECKING:
        if session.name in FIT:
            return
        problems = unfitness(session)
        if problems:
            raise ClusterError(f"worker {worker_address()} cannot build: {'; '.join(problems)}")
        show_lines_from(session.description()["log level"])
        with suppress(ModuleNotFoundError):
            import cv2

            cv2.setNumThreads(1)
        forget_other_builds()
        FIT.add(session.name)


def worker_address() -> str:
    """The address of the worker this runs on."""
    from distributed import get_worker

    return str(get_worker().address)


def begin_task(session: Session, task: str) -> Path:
    """Note that a task is begun; gives the file of the note.

    Raises LostWorkError after too many beginnings, ClusterError where the build is over, StoreError where nothing can
    be written.
    """
    for number in range(DEATHS):
        note = session.folder / f"{task}-{number}"
        try:
            with note.open("x", encoding="utf-8") as file:
                file.write(worker_address())
            if number:
                log.warning("task %s: attempt %d of %d, workers died at those before", task, number + 1, DEATHS)
            return note
        except FileExistsError:
            continue
        except OSError as error:
            raise cannot_write(note, error) from error
    notes = [session.folder / f"{task}-{number}" for number in range(DEATHS)]
    workers = ", ".join(note.read_text(encoding="utf-8") for note in notes if note.exists())
    raise LostWorkError(
        f"{DEATHS} workers died while they worked on it ({workers}), possibly out of memory; see their logs, and "
        "give workers more memory or fewer threads"
    )


def keep_outcome(session: Session, task: str, note: Path, kept: bytes) -> None:
    """Write what a task gave, and remove its note. Raises ClusterError where the build is over, StoreError."""
    outcome = session.folder / task
    # Not into the note, which names the worker: who counts deaths reads it.
    written = outcome.with_suffix(".part")
    try:
        written.write_bytes(kept)
        written.replace(outcome)
        note.unlink()
    except OSError as error:
        raise cannot_write(note, error) from error


def cannot_write(note: Path, error: OSError) -> H2cropError:
    """The error to raise for a note of a session that a worker cannot write: its folder goes with the build."""
    if isinstance(error, FileNotFoundError):
        return ClusterError(f"worker {worker_address()}: the build of its task is over ({error})")
    return StoreError(
        f"worker {worker_address()} cannot write {note}: {error.strerror or error}; fix that and rerun the same command"
    )


def take_outcome(session: Session, task: str) -> tuple[Any, float]:
    """What a task gave, taken out of the session, and the seconds it took. Raises StoreError where it is not there."""
    file = session.folder / task
    try:
        kept = file.read_bytes()
    except OSError as error:
        raise StoreError(
            f"cannot read {file}, written by a worker: {error.strerror or error}; fix that and rerun the same command"
        ) from error
    with suppress(OSError):
        file.unlink()
    outcome, seconds = pickle.loads(kept)
    return outcome, seconds


class ClusterConnections:
    """Connections to archives that all workers of a cluster share, counted by its scheduler.

    It takes back those of a worker of which it has not heard for `distributed.scheduler.locks.lease-timeout` (30 s).
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._semaphores: dict[str, Semaphore] = {}
        self._making = threading.Lock()

    @classmethod
    def of_this_worker(cls) -> ClusterConnections:
        """Those of the worker this thread works for; reads happen in threads that know no worker."""
        from distributed import get_worker

        worker = get_worker()
        with CHECKING:
            return CONNECTIONS.setdefault(worker.id, cls(worker))

    @contextmanager
    def one(self, archive: str, number: int) -> Iterator[None]:
        """A connection to an archive that allows so many, as soon as one is free.

        Raises ClusterError where the scheduler does not answer.
        """
        semaphore = self._semaphore(archive, number)
        wait = Wait(log, f"a connection to {archive}", f"workers of the cluster use all {number} that it allows")
        try:
            while not semaphore.acquire(timeout=REPORTED_AFTER):
                wait.look()
            wait.over()
        except (OSError, RuntimeError) as error:
            raise ClusterError(
                f"no connection to {archive}: the scheduler, which counts those of all workers, does not answer "
                f"({error})"
            ) from error
        try:
            yield
        finally:
            # It is free again at the latest when the scheduler has not heard of it for a while.
            with suppress(OSError, RuntimeError):
                semaphore.release()

    def _semaphore(self, archive: str, number: int) -> Semaphore:
        """What counts the connections to an archive, by a name that is the same on all workers."""
        from distributed import Semaphore

        name = f"h2crop-{archive}-{number}"
        with self._making:
            if name not in self._semaphores:
                worker = self._worker
                self._semaphores[name] = Semaphore(number, name, scheduler_rpc=worker.scheduler, loop=worker.loop)
            return self._semaphores[name]


#: Of the workers that this process is, by their id.
CONNECTIONS: dict[str, ClusterConnections] = {}


def tasks_a_thread(seconds: Sequence[float]) -> int:
    """How many tasks may be with the cluster for each thread. seconds: of the last tasks."""
    if len(seconds) < LAST_TASKS:
        return TASKS_A_THREAD
    wanted = math.ceil(AHEAD_SECONDS * len(seconds) / max(sum(seconds), 1e-6))
    return min(max(wanted, TASKS_A_THREAD), SHORT_TASKS_A_THREAD)


class ClusterExecutor(Executor):
    """Gives tasks to a cluster, and ends all of them with ClusterError when the cluster is lost."""

    def __init__(self, client: Client, address: str, session: Session) -> None:
        """Raises OSError where the scheduler is silent."""
        self._client, self._address, self._session = client, address, session
        #: What was not taken yet, with what keeps it on the cluster.
        self._waiting: dict[Future[Any], DaskFuture[None]] = {}
        self._changing = threading.Lock()
        #: Why nothing can be done any more.
        self._lost: ClusterError | None = None
        self._threads = threads_of(client)
        #: Of the last tasks.
        self._seconds = deque[float](maxlen=LAST_TASKS)
        self._ended = threading.Event()
        self._number = 0
        self._watcher = threading.Thread(target=self._watch, name="cluster", daemon=True)
        self._watcher.start()

    @property
    def workers(self) -> int:
        """How many workers the cluster has now."""
        return len(self._threads)

    def ahead(self) -> int:
        """How many tasks may be with the cluster, by the threads its workers have now."""
        with self._changing:
            last = list(self._seconds)
        return tasks_a_thread(last) * sum(self._threads.values())

    def submit(self, work: Callable[..., Outcome], /, *arguments: Any, **options: Any) -> Future[Outcome]:
        """Give a task to the cluster. Raises ClusterError where that is lost."""
        if self._lost is not None:
            raise self._lost
        self._number += 1
        task = f"{self._number:08d}"
        sharing = max(1, len(self._threads))
        call = call_anywhere(do_task, self._session, task, sharing, packed(work, arguments, options))
        waiting: Future[Outcome] = Future()
        waiting.set_running_or_notify_cancel()
        given = self._client.submit(call, key=f"h2crop-{self._session.name}-{task}", pure=False)
        with self._changing:
            if self._lost is not None:
                raise self._lost
            self._waiting[waiting] = given
        given.add_done_callback(partial(self._take, task, waiting))
        return waiting

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what the cluster was given. Its workers finish their current tasks, whose results are not used."""
        self._ended.set()
        with self._changing:
            remaining = list(self._waiting.values())
            self._waiting.clear()
        if remaining and self._lost is None:
            with suppress(Exception):
                self._client.cancel(remaining)
        self._watcher.join(LEAVE_WITHIN)

    def _take(self, task: str, waiting: Future[Any], given: DaskFuture[None]) -> None:
        """Take what became of a task."""
        with self._changing:
            if self._waiting.pop(waiting, None) is None:
                return
        error = self._lost_with() if given.cancelled() else given.exception() if given.status == "error" else None
        if error is not None:
            waiting.set_exception(explained(error, self._address))
            return
        try:
            outcome, seconds = take_outcome(self._session, task)
        except Exception as damaged:  # noqa: BLE001 -- whatever keeps it from being read must reach who waits
            waiting.set_exception(damaged)
        else:
            with self._changing:
                self._seconds.append(seconds)
            waiting.set_result(outcome)

    def _lost_with(self) -> ClusterError:
        """The error of a cluster that dropped tasks: its scheduler is gone."""
        self._lost = self._lost or lost_cluster(self._address)
        return self._lost

    def _watch(self) -> None:
        """Look at the cluster again and again, until it is lost or not needed any more."""
        alone_since: float | None = None
        while not self._ended.wait(LOOK_EVERY):
            lost: ClusterError | None = None
            try:
                before, self._threads = self._threads, threads_of(self._client)
                report_workers(self._address, before, self._threads)
            except Exception:  # noqa: BLE001 -- whatever keeps it from answering
                lost = lost_cluster(self._address)
            alone_since = None if self._threads else alone_since or time.monotonic()
            if alone_since and time.monotonic() - alone_since > WORKERS_WITHIN:
                lost = lost_cluster(self._address, f"without workers for {WORKERS_WITHIN:.0f} s")
            if lost is not None and not self._ended.is_set():
                self._give_up(lost)
                return

    def _give_up(self, error: ClusterError) -> None:
        """End all tasks with an error."""
        with self._changing:
            self._lost = error
            waiting = list(self._waiting)
            self._waiting.clear()
        for one in waiting:
            one.set_exception(error)


def report_workers(address: str, before: Collection[str], now: Collection[str]) -> None:
    """Report workers of a cluster that came or are lost. before, now: addresses of workers."""
    for worker in sorted(set(now) - set(before)):
        log.info("worker %s joined the cluster at %s", worker, address)
    for worker in sorted(set(before) - set(now)):
        log.warning(
            "worker %s left the cluster at %s; others do what it was given (%d left)", worker, address, len(now)
        )
    if before and not now:
        log.warning("waiting up to %.0f s for a worker to join the cluster at %s", WORKERS_WITHIN, address)


def explained(error: BaseException, address: str) -> BaseException:
    """The error to raise for one that a task ended with. address: of the scheduler."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return LostWorkError(
            f"workers died while they worked on it (the last: {error.last_worker.address}), possibly out of memory"
        )
    if isinstance(error, ImportError | AttributeError) and not isinstance(error, H2cropError):
        return ClusterError(
            f"a worker that joined the cluster at {address} does not have the same version of h2crop-data "
            f"({error}): install it there"
        )
    return error
