"""Running units of work: each once, in the order of what they need, resumed by their markers.

WORK/<step>/<id>.bin   the result of a unit
            <id>.json  its marker, written after it: what it is the result of, the SHA-256 of the result, and in `spent`
                       the time it took; of a result that holds for one build alone there is no SHA-256

A work folder is the builder's own and always local: `<store>/.build/work`, for a store in a bucket one in the user's
cache. Its results can be deleted at any time: they are computed again where they are needed.

The loop over units is not `bounded_map`: which units can be begun follows from results that came, and results bound the
folder they lie in.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from h2crop_data import __version__
from h2crop_data.bounded_map import LOOK_AGAIN, WorkerPool, allowed_by
from h2crop_data.errors import AccountError, ClusterError, H2cropError, StoreError
from h2crop_data.pipeline.timings import iso_time, utc_now, worker_name
from h2crop_data.progress import Progress, silent
from h2crop_data.redaction import without_secrets
from h2crop_data.settings import Folders
from h2crop_data.sources.units import ProvisionalResult, RunUnits, Unit, UnitResult
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.storage import BUILD_FOLDER, TEMPORARY, Storage, canonical_json

log = logging.getLogger(__name__)
#: Units at work at a time while a season is planned: these wait for files more than they compute. A build has as many
#: as workers, in threads also where its blocks are built by processes.
WORKERS = 4
RESULT, MARKER = ".bin", ".json"
#: Parts of cells that wait for their blocks, beside the folders of steps.
SCRATCH = "scratch"


@dataclass(frozen=True)
class WorkFolder:
    """Where results lie. One builder at a time uses it: the one that has locked its store."""

    files: LocalStorage
    #: Its place below `files`: empty, or ending in a slash.
    prefix: str = ""
    #: Results used longest ago are deleted beyond so many bytes, except those still needed.
    bound: int = field(default_factory=lambda: Folders.read().work_bytes)

    def result(self, unit: Unit) -> Path | None:
        """The file with the result of a unit; None where there is none, or not the one its marker tells."""
        name = self.name_of(unit)
        try:
            marker = self.files.read_json(name + MARKER)
            found = self.files.describe(name + RESULT)
        except StoreError:
            return None
        if not isinstance(marker, dict) or found["sha256"] != marker.get("sha256") or marker.get("stamp") != unit.stamp:
            return None
        path = self.path_of(name)
        with suppress(OSError):
            # The time of the file is that of its last use.
            os.utime(path)
        return path

    def keep(self, name: str, result: bytes, marker: Mapping[str, Any]) -> Path:
        """Write the result of a unit, then its marker, each whole or not at all; gives the file. Raises StoreError.

        name: of its files, without their ending. marker: what it says of the unit.
        """
        self.files.write(name + RESULT, [result])
        whole = {**marker, "bytes": len(result)}
        if not isinstance(result, ProvisionalResult):
            # A marker without it is one of no result: it is computed again by the next build.
            whole["sha256"] = hashlib.sha256(result).hexdigest()
        self.files.write(name + MARKER, [canonical_json(whole).encode()])
        return self.path_of(name)

    def path_of(self, name: str) -> Path:
        """The file of a result, by a path that other processes know too."""
        return (self.files.folder / f"{name}{RESULT}").absolute()

    def sizes(self) -> dict[str, int]:
        """The files of results and their bytes. Raises StoreError where the folder cannot be read."""
        root = self.files.folder / self.prefix
        found = {}
        try:
            # The scratch folder lies beside the steps: its files come and go while blocks are built.
            steps = [path for path in root.iterdir() if path.is_dir() and path.name != SCRATCH] if root.exists() else []
            for path in (path for step in steps for path in step.glob(f"*{RESULT}")):
                with suppress(FileNotFoundError):
                    found[path.relative_to(self.files.folder).as_posix()] = path.stat().st_size
        except OSError as error:
            raise self.files.cannot("read", self.prefix, error) from error
        return found

    def shrink(self, needed: Collection[str]) -> int:
        """Delete the results used longest ago until the others keep the bound; never those of `needed` (ids).

        Gives the bytes of what is left.
        """
        sizes = self.sizes()
        left = before = sum(sizes.values())
        for _, name in sorted((self.last_use(name), name) for name in sizes if Path(name).stem not in needed):
            if left <= self.bound:
                break
            self.delete(name.removesuffix(RESULT) + MARKER)
            self.delete(name)
            left -= sizes[name]
        if left < before:
            freed, where = (before - left) / 1e6, self.files.folder / self.prefix
            log.info("deleted %.0f MB of results that were not used for longest from %s", freed, where)
        return left

    def delete(self, name: str) -> None:
        """Delete a file, but not its folder: another result may be about to be written there."""
        self.files.refuse_links(*reversed(Path(name).parents[:-1]))
        try:
            (self.files.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self.files.cannot("delete", name, error) from error

    def last_use(self, name: str) -> float:
        """When a result was used last; 0 for one that is gone."""
        try:
            return (self.files.folder / name).stat().st_mtime
        except OSError:
            return 0.0

    def name_of(self, unit: Unit) -> str:
        """The files of a unit, without their ending."""
        return f"{self.prefix}{unit.step.replace(' ', '-')}/{unit.id}"


def work_folder(store: str, held: Storage | None = None) -> WorkFolder:
    """The work folder of a locked store. held: its storage; files in the store are written under that lock."""
    chosen = Folders.read().work
    if chosen is None and "://" not in store:
        files = held if isinstance(held, LocalStorage) else LocalStorage(Path(store))
        return WorkFolder(files, f"{BUILD_FOLDER}/work/")
    root = chosen or cache_folder() / "h2crop" / "work"
    files = LocalStorage(root / name_of_store(store))
    files.refuse_links(BUILD_FOLDER, TEMPORARY)
    files.remove_temporary()
    return WorkFolder(files)


def scratch_folder(store: str, chosen: Path | None = None) -> Path:
    """Where parts of cells lie while a store is built: in a folder that is chosen here, else by H2CROP_SCRATCH, else
    beside the results of its units.

    It is a folder of the store's own, which is deleted at the end.
    """
    chosen = chosen or Folders.read().scratch
    if chosen is not None:
        return chosen / f"h2crop-scratch-{name_of_store(store)}"
    work = work_folder(store)
    return work.files.folder / work.prefix / SCRATCH


def name_of_store(store: str) -> str:
    """A name for the files of a store that lie elsewhere."""
    whole = store if "://" in store else str(Path(store).resolve())
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Where programs keep what can be made again, by the XDG base directory specification."""
    return Folders.read().caches or Path.home() / ".cache"


@contextmanager
def temporary_work() -> Iterator[WorkFolder]:
    """A work folder for a plan without a store: what the plan needs of it is in the plan."""
    with TemporaryDirectory(prefix="h2crop-work-") as folder:
        yield WorkFolder(LocalStorage(Path(folder)))


def running_in(work: WorkFolder, progress: Progress = silent) -> RunUnits:
    """What runs units in a work folder."""
    return partial(run_units, work, progress=progress)


def run_units(
    work: WorkFolder,
    units: Sequence[Unit],
    tolerated: type[H2cropError] = H2cropError,
    *,
    workers: int = WORKERS,
    pool: WorkerPool | None = None,
    needed: Collection[str] = (),
    progress: Progress = silent,
) -> dict[str, UnitResult]:
    """The results of units by id. Those that are there are not computed again, nor is what they needed.

    A unit that fails leaves nothing, so that it is tried again the next time; its error stands in its result and in
    those of units that need it. Other errors than `tolerated` end the run and are raised; so are StoreError, where a
    result cannot be written, and what others would meet too, AccountError and ClusterError. workers: threads that run
    units, where there is no pool. needed: units (ids) whose results must stay besides. progress: called with (done,
    total, name of a unit).
    """
    wanted = {unit.id: unit for unit in units}
    results, waiting = what_is_there(work, list(wanted.values()))
    total = len(waiting)
    if wanted:
        log.info("units of work: %d to run, %d results are there", total, len(results), extra={"units": total})
    held = sum(work.sizes().values()) if waiting else 0
    running: dict[Future[tuple[Path, float]], Unit] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="unit") as threads:
        executor, ahead = (pool.executor, pool.ahead) if pool else (threads, workers)
        try:
            while waiting or running:
                for unit in [one for one in waiting.values() if all(need.id in results for need in one.needs)]:
                    if running and len(running) >= allowed_by(ahead):
                        break
                    del waiting[unit.id]
                    failed = next((need.id for need in unit.needs if results[need.id].error is not None), None)
                    if failed is not None:
                        results[unit.id] = results[failed]
                    else:
                        progress(total - len(waiting) - len(running) - 1, total, unit.name)
                        running[executor.submit(computed, work, order_of(work, unit, results))] = unit
                done, _ = wait(running, LOOK_AGAIN if callable(ahead) else None, FIRST_COMPLETED)
                for future in done:
                    unit = running.pop(future)
                    result = results[unit.id] = result_of(future, tolerated)
                    report_unit(unit, result)
                    held += 0 if result.file is None else result.file.stat().st_size
                if held > work.bound:
                    pending = [*waiting.values(), *running.values()]
                    held = work.shrink({*needed, *wanted} | {need.id for unit in pending for need in unit.needs})
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
    return {name: replace(results[name], steps=steps) for name, steps in seconds_by_step(wanted, results).items()}


def report_unit(unit: Unit, result: UnitResult) -> None:
    """Log what became of a unit that was run."""
    more = {"unit": unit.name, "step": unit.step}
    if result.error is not None:
        log.warning("%s of %s failed: %s", unit.step, unit.name, without_secrets(str(result.error)), extra=more)
    else:
        log.debug("%s of %s: %.1f s", unit.step, unit.name, result.seconds, extra={**more, "seconds": result.seconds})


def seconds_by_step(units: Mapping[str, Unit], results: Mapping[str, UnitResult]) -> dict[str, dict[str, float]]:
    """Seconds by step of each unit (by id) and what was run for it; what several need counts with the first."""
    counted = set(units)
    found: dict[str, dict[str, float]] = {}
    for name, unit in units.items():
        steps: dict[str, float] = defaultdict(float)
        of_unit = [unit]
        while of_unit:
            one = of_unit.pop()
            if results[one.id].seconds:
                steps[one.step] += results[one.id].seconds
            more = [need for need in one.needs if need.id in results and need.id not in counted]
            counted |= {need.id for need in more}
            of_unit += more
        found[name] = dict(steps)
    return found


def what_is_there(work: WorkFolder, units: Sequence[Unit]) -> tuple[dict[str, UnitResult], dict[str, Unit]]:
    """The results that units and those they need have already, and the units to compute."""
    results: dict[str, UnitResult] = {}
    missing: dict[str, Unit] = {}
    looked_at = list(units)
    while looked_at:
        unit = looked_at.pop()
        if unit.id in results or unit.id in missing:
            continue
        file = work.result(unit)
        if file is not None:
            results[unit.id] = UnitResult(file)
        else:
            missing[unit.id] = unit
            looked_at += unit.needs
    return results, dict(sorted(missing.items(), key=lambda one: one[1].name))


@dataclass(frozen=True)
class UnitOrder:
    """What it takes to compute a unit whose needs are there, small enough to send to another process."""

    #: Of the files of its result, without their ending.
    name: str
    compute: Callable[[Sequence[Path]], bytes]
    #: The results of what it needs, in order.
    files: tuple[Path, ...]
    marker: Mapping[str, Any]


def order_of(work: WorkFolder, unit: Unit, results: Mapping[str, UnitResult]) -> UnitOrder:
    """The order to compute a unit."""
    files = tuple(file for need in unit.needs if (file := results[need.id].file) is not None)
    return UnitOrder(work.name_of(unit), unit.compute, files, described(unit))


def computed(work: WorkFolder, order: UnitOrder) -> tuple[Path, float]:
    """Compute and keep the result of a unit; gives its file, and the seconds it took."""
    begun = time.perf_counter()
    result = order.compute(order.files)
    spent = {
        "seconds": round(time.perf_counter() - begun, 6),
        "finished": iso_time(utc_now()),
        "worker": worker_name(),
        "software": __version__,
    }
    file = work.keep(order.name, result, {**order.marker, "spent": spent})
    return file, time.perf_counter() - begun


def result_of(future: Future[tuple[Path, float]], tolerated: type[H2cropError]) -> UnitResult:
    """What became of a unit that was run. Raises its error where it is none that is tolerated."""
    try:
        file, seconds = future.result()
        return UnitResult(file, seconds=seconds)
    except tolerated as error:
        if isinstance(error, StoreError | AccountError | ClusterError):
            raise
        return UnitResult(error=error)


def described(unit: Unit) -> dict[str, Any]:
    """What a marker says of a unit."""
    stamp = {} if unit.stamp is None else {"stamp": unit.stamp}
    return {
        "kind": unit.kind,
        "step": unit.step,
        "name": unit.name,
        "algorithm": unit.algorithm,
        "inputs": unit.inputs,
        "settings": unit.settings,
        "needs": [need.id for need in unit.needs],
        **stamp,
    }
