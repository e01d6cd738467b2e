"""A Dask cluster as a pool of workers: what its workers must be like, how much they are given, and what is lost.

WORK/cluster/<session>/session.json   what a worker must be like: versions, and the folders that it must see
                       <task>-<n>     a task that was begun for the n-th time and has not ended

A session lasts as long as its pool. Only the scheduler knows the workers, who come and go: each checks itself by the
session before its first task. A task that a lost worker had is given to another one by the scheduler, which is safe: a
block, a part of a cell and the result of a unit are the same whoever writes them.

This module and `engine.py`, which opens the pool, are all that knows Dask.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import pickle
import platform
import shutil
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import h2crop_data
from h2crop_data.bounded_map import WorkerPool
from h2crop_data.constants import SHARING_PROCESSES
from h2crop_data.errors import ClusterError, H2cropError, UsageError
from h2crop_data.plugins import GROUP, PROVIDERS, entry_points_of
from h2crop_data.shared_connections import counted_by
from h2crop_data.sources.registry import forget_other_builds

if TYPE_CHECKING:
    from distributed import Client, Semaphore, Worker

Outcome = TypeVar("Outcome")
#: How addresses of schedulers begin.
SCHEMES = ("tcp://", "tls://")
#: Tasks that are with the cluster for each thread of its workers: one it works on, one that waits.
TASKS_A_THREAD = 2
#: Workers that may die at a task before it is given up.
DEATHS = 3
#: Seconds between looks at the cluster; that workers have to say whether they are fit; that pass without an answer of
#: the scheduler, and without any worker, until the cluster is given up.
LOOK_EVERY = 1.0
ASK_WITHIN = 30.0
ANSWER_WITHIN = 60.0
WORKERS_WITHIN = 600.0
#: Seconds that a scheduler has for answering the first time, and for taking leave.
CONNECT_WITHIN, LEAVE_WITHIN = 30.0, 5.0
SESSION_FILE = "session.json"
#: Packages whose version changes bytes of a store, or what is sent between processes.
PACKAGES = (
    *("numpy", "pandas", "pyarrow", "scipy", "zarr", "numcodecs", "obstore", "xarray", "pydantic"),
    *("rasterio", "pyproj", "shapely", "geopandas", "pyogrio", "affine", "odc-geo", "odc-stac"),
    *("pystac", "pystac-client", "stac-geoparquet", "planetary-computer", "opencv-python-headless"),
    *("s2cloudless", "lightgbm", "ukis-csmask", "onnxruntime", "distributed", "dask", "cloudpickle"),
)
#: Sessions that this process has seen to be fit for.
FIT: set[str] = set()
CHECKING = threading.Lock()


class LostWorkError(H2cropError, RuntimeError):
    """The workers of a cluster died while they worked on a task, several of them one after the other."""


@dataclass(frozen=True)
class Session:
    """What a task takes along: where the worker finds what it must be like. Small, as every task has it."""

    folder: Path

    @property
    def name(self) -> str:
        """What no other session is called."""
        return self.folder.name

    def description(self) -> dict[str, Any]:
        """What a worker must be like. Raises OSError where it cannot be read, ValueError where it is damaged."""
        found: dict[str, Any] = json.loads((self.folder / SESSION_FILE).read_text(encoding="utf-8"))
        return found


@contextmanager
def open_cluster(address: str, work: Path, shared: Mapping[str, Path]) -> Iterator[WorkerPool]:
    """The workers of a cluster as a pool, which ends with the block: what waits is dropped then.

    address: of the scheduler, `tcp://host:port`. work: the work folder of the store. shared: other folders that all
    workers must see, by what they are called.

    Raises UsageError for another kind of address, ClusterError where no scheduler answers, workers are unfit, or the
    cluster is lost while it works.
    """
    if not address.startswith(SCHEMES):
        raise UsageError(f"--dask {address}: an address of a Dask scheduler begins with {' or '.join(SCHEMES)}")
    with connected(address) as client, open_session(work, shared) as session:
        try:
            refuse_unfit(address, ask_workers(client, session))
            executor = ClusterExecutor(client, address, session)
        except (OSError, CancelledError) as error:
            raise lost_cluster(address) from error
        try:
            yield WorkerPool(executor, executor.ahead, threads=1)
        finally:
            executor.shutdown()


def lost_cluster(address: str, what: str = "lost") -> ClusterError:
    """The error to raise for a cluster that is lost."""
    return ClusterError(
        f"the cluster at {address} was {what}: finished blocks are kept; start it again and run the same command"
    )


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of a scheduler. Raises ClusterError where none answers, UsageError without the package."""
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--dask needs more than a build on one machine: pip install 'h2crop-data[cluster]' ({error})"
        ) from error
    # What it would log with stack traces, and go on logging after it was closed, is reported here as an error.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=CONNECT_WITHIN, set_as_default=False, name="h2crop")
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} ({error}): start one (`dask scheduler`), or correct the address"
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=LEAVE_WITHIN)


@contextmanager
def open_session(work: Path, shared: Mapping[str, Path]) -> Iterator[Session]:
    """A new session in the work folder; those that dead clients left are deleted. Raises ClusterError."""
    name = uuid.uuid4().hex
    session = Session(work.absolute() / "cluster" / name)
    folders = {"work folder": session.folder, **{kind: path.absolute() for kind, path in shared.items()}}
    token = f".cluster-{name}"
    try:
        shutil.rmtree(session.folder.parent, ignore_errors=True)
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / token).write_text(name, encoding="utf-8")
        described = {
            "versions": versions(),
            "folders": {kind: str(folder) for kind, folder in folders.items()},
            "token": token,
        }
        (session.folder / SESSION_FILE).write_text(json.dumps(described), encoding="utf-8")
    except OSError as error:
        raise ClusterError(f"cannot write in {error.filename}: {error.strerror or error}") from error
    try:
        with locked(session.folder / SESSION_FILE):
            yield session
    finally:
        for folder in folders.values():
            with suppress(OSError):
                (folder / token).unlink()
        shutil.rmtree(session.folder.parent, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file, for workers to see whether locks are shared between machines."""
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sees_lock(path: Path) -> bool:
    """Whether this process sees that another one has locked a file. Raises OSError."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def versions() -> dict[str, str]:
    """What must be the same on all machines, by name; empty for what is not installed."""
    packages = {name: installed_version(name) for name in PACKAGES}
    plugins = [point.dist for group in (GROUP, PROVIDERS) for point in entry_points_of(group)]
    return {
        "h2crop-data": h2crop_data.__version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **packages,
        **{plugin.name: plugin.version for plugin in plugins if plugin is not None},
        **native_versions(),
        "the code of h2crop-data": digest_of_code(),
    }


def installed_version(package: str) -> str:
    """The version of a package; empty where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def native_versions() -> dict[str, str]:
    """Of the libraries that packages bring along, or find on their machine."""
    import numcodecs.blosc
    import pyproj
    import rasterio
    import shapely

    return {
        "GDAL": str(rasterio.__gdal_version__),
        "PROJ": str(pyproj.proj_version_str),
        "GEOS": str(shapely.geos_version_string),
        "Blosc": str(numcodecs.blosc.VERSION_STRING),
    }


@cache
def digest_of_code() -> str:
    """SHA-256 of the modules of this package: two checkouts of one version need not be the same."""
    package = Path(h2crop_data.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def unfitness(session: Session) -> list[str]:
    """What keeps this process from working for a session, each with what to do; run on a worker."""
    try:
        described = session.description()
    except (OSError, ValueError) as error:
        return [
            f"it cannot read {session.folder / SESSION_FILE} ({error}): all workers must see the work folder of the "
            "store by this path; put it on shared storage (H2CROP_WORK names another place)"
        ]
    own = versions()
    found = [
        f"{name} is {own.get(name) or 'not installed'}, here {wanted or 'not installed'}"
        for name, wanted in described["versions"].items()
        if own.get(name, "") != wanted
    ]
    if found:
        found[-1] += ": install the same versions there"
    for kind, folder in described["folders"].items():
        found += folder_problems(kind, Path(folder), described["token"])
    if not sees_lock(session.folder / SESSION_FILE):
        found.append(
            f"it does not see the locks of this machine in {session.folder.parent.parent}: mount the file system so "
            "that flock works between machines"
        )
    return found


def folder_problems(kind: str, folder: Path, token: str) -> list[str]:
    """What is wrong with a folder that must be the client's."""
    if not (folder / token).is_file():
        return [
            f"its {folder} is not the {kind} of this build: put it on storage that this machine and all workers see by "
            "the same path"
        ]
    try:
        probe = folder / f"{token}-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return [f"it cannot write in the {kind} {folder}: {error.strerror or error}; give its user the right to"]
    return []


def ask_workers(client: Client, session: Session) -> dict[str, list[str] | BaseException]:
    """What keeps each worker from working for a session, or the error that came of asking, by address.

    Those that do not answer in time check themselves before their first task, as later ones do.
    """
    asked = {
        worker: client.submit(unfitness, session, workers=[worker], priority=1, pure=False)
        for worker in threads_of(client)
    }
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
    told = {
        worker: [f"it has no h2crop-data like this one ({answer})"] if isinstance(answer, BaseException) else answer
        for worker, answer in found.items()
    }
    unfit = {worker: problems for worker, problems in told.items() if problems}
    if unfit:
        worker, problems = next(iter(unfit.items()))
        others = f" ({len(unfit) - 1} other worker(s) are unfit too)" if len(unfit) > 1 else ""
        raise ClusterError(f"worker {worker} of the cluster at {address} cannot build: {'; '.join(problems)}{others}")


def packed(work: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bytes:
    """A call as a task takes it along. Packed, what all blocks have in common takes little of it."""
    return zlib.compress(pickle.dumps((work, arguments, options)), level=1)


def do_task(session: Session, task: str, sharing: int, call: bytes) -> Any:
    """Work on a task, on a worker. task: its name in the session. sharing: worker processes of the cluster.

    call: packed, so that it is read when this worker is known to have the same h2crop. Raises ClusterError where it has
    not, LostWorkError where the task is one at which workers die.
    """
    become_fit(session)
    # Who opens files reads from it which part of the connections to an archive is this process's.
    os.environ[SHARING_PROCESSES] = str(sharing)
    begun = begin_task(session, task)
    try:
        work, arguments, options = pickle.loads(zlib.decompress(call))
        with counted_by(ClusterConnections.of_this_worker().one):
            return work(*arguments, **options)
    finally:
        begun.unlink(missing_ok=True)


def become_fit(session: Session) -> None:
    """Check once what this process is like, leave its threads to Dask, and begin anew. Raises ClusterError."""
    with CHECKING:
        if session.name in FIT:
            return
        problems = unfitness(session)
        if problems:
            raise ClusterError(f"worker {worker_address()} cannot build: {'; '.join(problems)}")
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
    """Note that a task is begun; gives the file of the note. Raises LostWorkError after too many beginnings."""
    for number in range(DEATHS):
        note = session.folder / f"{task}-{number}"
        try:
            with note.open("x", encoding="utf-8") as file:
                file.write(worker_address())
            return note
        except FileExistsError:
            continue
        except OSError as error:
            raise ClusterError(f"the build that worker {worker_address()} has a task of is over ({error})") from error
    notes = [session.folder / f"{task}-{number}" for number in range(DEATHS)]
    workers = ", ".join(note.read_text(encoding="utf-8") for note in notes if note.exists())
    raise LostWorkError(
        f"{DEATHS} workers died while they worked on it ({workers}), out of memory? See their logs; give workers more "
        "memory or fewer threads"
    )


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
        try:
            semaphore.acquire()
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


class ClusterExecutor(Executor):
    """Gives tasks to a cluster, and ends all of them with ClusterError when the cluster is lost."""

    def __init__(self, client: Client, address: str, session: Session) -> None:
        """Raises OSError where the scheduler is silent."""
        self._client, self._address, self._session = client, address, session
        self._executor = client.get_executor(pure=False)
        self._waiting: set[Future[Any]] = set()
        self._changing = threading.Lock()
        #: Why nothing can be done any more.
        self._lost: ClusterError | None = None
        self._threads = threads_of(client)
        self._ended = threading.Event()
        self._number = 0
        self._watcher = threading.Thread(target=self._watch, name="cluster", daemon=True)
        self._watcher.start()

    def ahead(self) -> int:
        """How many tasks may be with the cluster, by the threads its workers have now."""
        return TASKS_A_THREAD * sum(self._threads.values())

    def submit(self, work: Callable[..., Outcome], /, *arguments: Any, **options: Any) -> Future[Outcome]:
        """Give a task to the cluster. Raises ClusterError where that is lost."""
        if self._lost is not None:
            raise self._lost
        self._number += 1
        task = f"{self._number:08d}"
        call = partial(do_task, self._session, task, max(1, len(self._threads)), packed(work, arguments, options))
        waiting: Future[Outcome] = Future()
        waiting.set_running_or_notify_cancel()
        with self._changing:
            self._waiting.add(waiting)
        given = self._executor.submit(call, key=f"h2crop-{self._session.name}-{task}")
        given.add_done_callback(partial(self._take, waiting))
        return waiting

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what the cluster was given. What its workers are at they end by themselves, and nobody takes it."""
        self._ended.set()
        with self._changing:
            remaining = len(self._waiting)
            self._waiting.clear()
        if remaining and self._lost is None:
            with suppress(Exception):
                self._executor.shutdown(wait=False)
        self._watcher.join(LEAVE_WITHIN)

    def _take(self, waiting: Future[Any], given: Future[Any]) -> None:
        """Take what became of a task."""
        error = self._lost_with() if given.cancelled() else given.exception()
        with self._changing:
            if waiting not in self._waiting:
                return
            self._waiting.remove(waiting)
        if error is None:
            waiting.set_result(given.result())
        else:
            waiting.set_exception(explained(error))

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
                self._threads = threads_of(self._client)
            except Exception:  # noqa: BLE001 -- whatever keeps it from answering
                lost = lost_cluster(self._address)
            alone_since = None if self._threads else alone_since or time.monotonic()
            if alone_since and time.monotonic() - alone_since > WORKERS_WITHIN:
                lost = lost_cluster(self._address, f"without any worker for {WORKERS_WITHIN:.0f} s")
            if lost is not None and not self._ended.is_set():
                self._give_up(lost)
                return

    def _give_up(self, error: ClusterError) -> None:
        """End all tasks with an error."""
        self._lost = error
        with self._changing:
            waiting = list(self._waiting)
            self._waiting.clear()
        for one in waiting:
            one.set_exception(error)


def explained(error: BaseException) -> BaseException:
    """The error to raise for one that a task ended with."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return LostWorkError(
            f"workers died while they had it ({error.last_worker.address} was the last), out of memory?"
        )
    return error
