"""Running blocks: in threads, in processes or on a cluster, each block written by the worker that computed it."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from h2crop_data import __version__
from h2crop_data.bounded_map import WorkerPool, as_done_of, worker_processes, worker_threads
from h2crop_data.cube.marker import Marker
from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.errors import ClusterError, H2cropError, StoreError, UsageError
from h2crop_data.logs import lines_of_processes, send_lines_to
from h2crop_data.pipeline.block import BlockTask, assemble_block
from h2crop_data.pipeline.cluster import LostWorkError, open_cluster
from h2crop_data.pipeline.schedule import Schedule
from h2crop_data.pipeline.timings import iso_time, utc_now, worker_name
from h2crop_data.pipeline.units import work_folder
from h2crop_data.redaction import without_secrets
from h2crop_data.settings import Builders, Processes
from h2crop_data.sources.readings import ReadCounts, Reading
from h2crop_data.sources.registry import source_of
from h2crop_data.sources.scratch import Scratch
from h2crop_data.sources.timing import Stopwatch
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.location import is_folder
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

log = logging.getLogger(__name__)
WorkerKind = Literal["threads", "processes", "dask"]
#: Linux: the signal a process gets when its parent dies.
PR_SET_PDEATHSIG = 1
#: What sources call scenes that could not be read (`Source.faults`).
GAPS: Final = "gaps"


@dataclass(frozen=True)
class Workers:
    """The workers of a build."""

    #: How many work at a time on this machine; those of a cluster are as many as it has.
    number: int
    kind: WorkerKind = "threads"
    #: Address of a Dask scheduler, `tcp://host:port`; only of workers of this kind.
    scheduler: str = ""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise UsageError(f"workers: {self.number}; give 1 or more")
        if (self.kind == "dask") != bool(self.scheduler):
            raise UsageError(
                "workers: expected an address of a scheduler with the kind dask and with no other kind, got the kind "
                f"{self.kind} with scheduler {self.scheduler or 'none'}"
            )

    @classmethod
    def of(cls, given: Workers | int | None) -> Workers:
        """Those that were given; of a number so many threads, of none those of the environment."""
        return given if isinstance(given, Workers) else cls.chosen(given, False, None)

    @classmethod
    def chosen(cls, number: int | None, processes: bool, scheduler: str | None) -> Workers:
        """Those that a user chose, else those of the environment (H2CROP_DASK, H2CROP_WORKERS), else one a core.

        Raises UsageError for a cluster together with workers of this machine.
        """
        settings = Builders.read()
        here = settings.workers or os.cpu_count() or 1
        if not scheduler and number is None and not processes:
            scheduler = settings.dask
        if not scheduler:
            return cls(number or here, "processes" if processes else "threads")
        if number is not None or processes:
            raise UsageError("--dask cannot be combined with --workers or --processes: the cluster has its own workers")
        return cls(here, "dask", scheduler)

    def at_most(self, number: int) -> Workers:
        """As many as there are things to work on."""
        return replace(self, number=min(self.number, number))


class BuildError(H2cropError, RuntimeError):
    """Some blocks could not be built; the finished ones are kept."""

    #: All of these blocks; the text has the first ones.
    failed: Sequence[BlockOutcome] = ()


class WorkerDiedError(BuildError):
    """The operating system ended a worker process of this machine."""


@dataclass(frozen=True)
class BlockOutcome:
    """What became of one block."""

    season: int
    block: int
    samples: int
    #: Bytes of its shards.
    bytes: int
    seconds: dict[str, float]
    error: H2cropError | None = None
    #: When its marker says that it was finished, or when it failed.
    finished: datetime = field(default_factory=utc_now)
    #: Who worked on it; empty where workers died.
    worker: str = ""
    #: Scenes that it lacks because they could not be read.
    gaps: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """What it is called, for people."""
        return name_of_job(self.season, f"block {self.block}")


def name_of_job(season: int, name: str) -> str:
    """What a block or a reading is called, for people."""
    return f"season {season} {name}"


def name_of_reading(reading: Reading) -> str:
    """Of what a reading is: the source, the scene where it is of one, and the first digits of its id."""
    return " ".join(filter(None, [reading.source, reading.scene, reading.id[:12]]))


def gaps_in(sources: Iterable[str], provenance: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Scenes that some sources could not read, by the provenance of samples."""
    columns = [source_of(name).faults[GAPS] for name in sources if GAPS in source_of(name).faults]
    return tuple(sorted({scene for row in provenance for column in columns for scene in row.get(column) or ()}))


def build_block(storage: Storage, task: BlockTask, threads: int = 1) -> BlockOutcome:
    """Compute a block, write its shards, then its marker. Errors come back in the outcome.

    threads: how many compress and hash.
    """
    start = time.perf_counter()
    log.debug("%s: begun", name_of_job(task.season, f"block {task.block}"))
    try:
        built = assemble_block(task)
        writing = time.perf_counter()
        builder = StoreBuilder(storage)
        with worker_threads(threads, "write") as pool:
            names = builder.write_block(task.season, task.block, built.arrays, task.layout, pool)
            hashing = time.perf_counter()
            files = list(pool.map(builder.describe, names))
            sums = builder.write_sums(task.season, task.block, built.sums)
        seconds = {
            **built.seconds,
            "compress and write": hashing - writing,
            "hash": time.perf_counter() - hashing,
        }
        marker: Marker = {
            "block": task.block,
            "split": task.ground.split,
            "hashes": task.hashes,
            "software": __version__,
            "files": files,
            "coordinates": built.coordinates,
            "provenance": built.provenance,
            "sums": sums,
            "seconds": seconds,
            "finished": iso_time(finished := utc_now()),
        }
        if built.dates is not None:
            marker["dates"] = built.dates
        builder.write_marker(task.season, task.block, marker)
    except Exception as error:  # noqa: BLE001 -- whatever a scene or a library does, it must not cost the other blocks
        spent = {"failed": time.perf_counter() - start}
        name = f"{task.season}-{task.block:06d}"
        told = error if isinstance(error, H2cropError) else unexpected(storage, name, error)
        return BlockOutcome(task.season, task.block, task.samples, 0, spent, told, worker=worker_name())
    written = sum(file["bytes"] for file in files)
    return BlockOutcome(
        task.season,
        task.block,
        task.samples,
        written,
        seconds,
        finished=finished,
        worker=worker_name(),
        gaps=gaps_in(task.sources, built.provenance),
    )


@dataclass(frozen=True)
class ReadingOutcome:
    """What became of one reading."""

    counts: ReadCounts
    seconds: dict[str, float]
    error: H2cropError | None = None
    season: int = 0
    #: Of what it is: `name_of_reading`.
    name: str = ""
    finished: datetime = field(default_factory=utc_now)
    #: Who worked on it; empty where workers died.
    worker: str = ""

    @property
    def what(self) -> str:
        """What it is called, for people."""
        return name_of_job(self.season, f"reading {self.name}")


def run_reading(storage: Storage, scratch: Scratch, reading: Reading) -> ReadingOutcome:
    """Read what blocks to come need. Errors come back in the outcome; the blocks they concern will meet them again."""
    watch, name = Stopwatch(), name_of_reading(reading)
    log.debug("%s: begun", name_of_job(reading.season, f"reading {name}"))
    try:
        counts = source_of(reading.source).read(reading, scratch.of_season(reading.season), watch)
    except Exception as error:  # noqa: BLE001 -- it must not cost blocks that do not need it
        file = f"reading-{reading.id[:16]}"
        told = error if isinstance(error, H2cropError) else unexpected(storage, file, error)
        return ReadingOutcome(ReadCounts(), dict(watch.seconds), told, reading.season, name, utc_now(), worker_name())
    return ReadingOutcome(counts, dict(watch.seconds), None, reading.season, name, utc_now(), worker_name())


def unexpected(storage: Storage, name: str, error: Exception) -> BuildError:
    """An unexpected error, with its stack trace kept beside the store."""
    log = f"{BUILD_FOLDER}/logs/{name}.txt"
    with suppress(StoreError):
        storage.write(log, [without_secrets("".join(traceback.format_exception(error))).encode()])
    told = without_secrets(f"{type(error).__name__}: {error}")
    return BuildError(f"{told} (possibly a bug; the stack trace is in {storage.where(log)})")


def run_job(
    storage: Storage, scratch: Scratch, job: BlockTask | Reading, threads: int = 1
) -> BlockOutcome | ReadingOutcome:
    """Read, or build a block. threads: how many compress and hash."""
    if isinstance(storage, LocalStorage):
        # The scratch folder may lie in the store: like there, nothing is written for a build that is over.
        scratch = replace(scratch, check=storage.check_hold)
    if isinstance(job, Reading):
        return run_reading(storage, scratch, job)
    return build_block(storage, job.with_scratch(scratch), threads)


def ignore_begun(what: str) -> None:
    """Ignores all calls."""


def run_blocks(
    storage: Storage,
    schedule: Schedule,
    scratch: Scratch,
    pool: WorkerPool,
    on_begun: Callable[[str], None] = ignore_begun,
) -> Iterator[BlockOutcome | ReadingOutcome]:
    """Read and build in the order of a schedule, giving each outcome as it comes. At most two tasks a worker are begun;
    of very short ones a cluster is given more. on_begun: called with the name of what workers are given.

    What fails does not stop the others; a store or a scratch folder that cannot be written does: raises StoreError. So
    does a lost cluster, or one whose scheduler does not answer a worker: raises ClusterError.
    """
    work: Callable[[BlockTask | Reading], BlockOutcome | ReadingOutcome]
    work = partial(run_job, storage, scratch, threads=pool.threads)
    try:
        for job, outcome in as_done_of(pool.executor, work, told_of(schedule, on_begun), pool.ahead, outcome_of_lost):
            if isinstance(outcome.error, StoreError | ClusterError):
                raise outcome.error
            if isinstance(job, Reading):
                schedule.note_reading(job)
            elif isinstance(job, BlockTask):
                schedule.note_block(job, built=outcome.error is None)
            yield outcome
    except BrokenProcessPool as error:
        raise worker_died() from error


def told_of(schedule: Schedule, on_begun: Callable[[str], None]) -> Iterator[BlockTask | Reading | None]:
    """What a schedule gives, told as it is taken."""
    for job in schedule:
        if isinstance(job, BlockTask):
            on_begun(name_of_job(job.season, f"block {job.block}"))
        elif job is not None:
            on_begun(name_of_job(job.season, f"reading {name_of_reading(job)}"))
        yield job


def worker_died() -> WorkerDiedError:
    """The error to raise where the operating system ended a worker process of this machine."""
    return WorkerDiedError("a worker process died, possibly out of memory; use fewer --workers")


def outcome_of_lost(job: BlockTask | Reading, error: Exception) -> BlockOutcome | ReadingOutcome:
    """What became of a job at which workers of a cluster died. Raises every other error."""
    if not isinstance(error, LostWorkError):
        raise error
    if isinstance(job, Reading):
        return ReadingOutcome(ReadCounts(), {}, error, job.season, name_of_reading(job))
    return BlockOutcome(job.season, job.block, job.samples, 0, {}, error)


@contextmanager
def open_pool(workers: Workers, store: str, scratch: Path | None = None) -> Iterator[WorkerPool]:
    """A pool of workers, ended with the block.

    store: what they work for, a folder or URL. scratch: the folder of parts of cells. Workers of a cluster must see
    both, and the work folder of the store: raises ClusterError.
    """
    if workers.kind == "dask":
        work = work_folder(store)
        folders = {} if scratch is None else {"scratch folder": scratch}
        if is_folder(store):
            folders = {"store": Path(store) / BUILD_FOLDER, **folders}
        with open_cluster(workers.scheduler, work.files.folder / work.prefix, folders) as pool:
            yield pool
        return
    threads = max(1, (os.cpu_count() or 1) // workers.number)
    with ExitStack() as stack:
        if workers.kind == "threads":
            made = worker_threads(workers.number, "block")
        else:
            lines = stack.enter_context(lines_of_processes())
            made = worker_processes(workers.number, begin_process, (os.getpid(), workers.number, *lines))
        yield WorkerPool(stack.enter_context(made), 2 * workers.number, threads)


def begin_process(parent: int, workers: int, lines: Any, level: int) -> None:
    """What a worker process does first.

    parent: the builder's process. workers: how many there are. lines, level: where lines of the log go, and which.
    """
    send_lines_to(lines, level)
    Processes.share_connections(workers)
    end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """Make this worker process end when the builder does, however that dies: an orphan must not write on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def changed_groups(marker: Marker, hashes: dict[str, str]) -> list[str]:
    """The array groups whose inputs differ from those a finished block was built from."""
    return [group for group, value in hashes.items() if marker["hashes"].get(group) != value]
