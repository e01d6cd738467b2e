"""What a run notes while it works, kept in the store by a thread of its own: its status, and where the time went.

The status is written every few seconds, less often into a bucket, where each time is a request that costs; at once when
another phase begins. So it shows that the builder lives also while all workers are at something long. What cannot be
written costs the build nothing; it is logged once, and once more at the end.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from h2crop_data import __version__
from h2crop_data.cube.marker import Marker
from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.datasheet.markdown import listing
from h2crop_data.errors import StoreError
from h2crop_data.pipeline.engine import BlockOutcome, ReadingOutcome, Workers
from h2crop_data.pipeline.run_status import (
    LISTED,
    STATUS_FILE,
    AtWork,
    DonePoint,
    FailingBlock,
    RunStatus,
    read_status,
)
from h2crop_data.pipeline.timings import RunName, Spent, TimeSpent, TimeTally, Timings, utc_now
from h2crop_data.pipeline.units import work_folder
from h2crop_data.progress import Progress, silent
from h2crop_data.redaction import without_secrets
from h2crop_data.storage.storage import Storage
from h2crop_data.waits import REPORTED_AFTER

log = logging.getLogger(__name__)
#: Seconds between two states of the table of timings: readings have no markers that tell of them.
TIMINGS_EVERY = 600.0
#: Seconds that the end of a run waits for the last state to be written.
LAST_WITHIN = 20.0
#: Lines and characters of an error in a status.
ERROR_LINES, ERROR_LENGTH = 3, 500
#: Scenes of one block that a line of the log names.
GAPS_LOGGED = 5
#: Seconds between two points of the rate, and how many are kept.
POINT_EVERY, POINTS = 60.0, 61
#: Before the first phase, and after the last.
STARTING, ENDED = "starting", "ended"


def first_lines(error: BaseException | str) -> str:
    """The first lines of an error, without secrets."""
    text = without_secrets(str(error)) or type(error).__name__
    return "\n".join(text.splitlines()[:ERROR_LINES])[:ERROR_LENGTH]


def report_reading(outcome: ReadingOutcome) -> None:
    """Log what became of a reading."""
    seconds = sum(outcome.seconds.values())
    more = {"season": outcome.season, "reading": outcome.name, "worker": outcome.worker, "seconds": round(seconds, 3)}
    if outcome.error is not None:
        log.warning("%s failed: %s", outcome.what, first_lines(outcome.error), extra=more)
    else:
        counts = outcome.counts
        log.debug(
            "%s: %d tiles, %.1f MB in %.1f s", outcome.what, counts.tiles, counts.bytes / 1e6, seconds, extra=more
        )


def report_block(outcome: BlockOutcome, done: int, total: int) -> None:
    """Log what became of a block. done, total: of all blocks."""
    seconds = sum(outcome.seconds.values())
    more = {"season": outcome.season, "block": outcome.block, "worker": outcome.worker, "seconds": round(seconds, 3)}
    if outcome.error is not None:
        log.warning("%s failed: %s", outcome.what, first_lines(outcome.error), extra=more)
        return
    log.info(
        "%s built (%d of %d): %d samples, %.1f MB in %.1f s",
        *(outcome.what, done, total, outcome.samples, outcome.bytes / 1e6, seconds),
        extra={**more, "samples": outcome.samples, "bytes": outcome.bytes},
    )
    if outcome.gaps:
        scenes = listing(list(map(without_secrets, outcome.gaps)), GAPS_LOGGED)
        log.warning("%s lacks %d scene(s) that could not be read: %s", outcome.what, len(outcome.gaps), scenes)


class RunNotes:
    """What one run over a store does and did, in memory. Used by its threads."""

    def __init__(self, progress: Progress = silent, clock: Callable[[], float] = time.perf_counter) -> None:
        """progress: also receives the progress. clock: gives seconds."""
        self._tell, self._now = progress, clock
        self._changing = threading.RLock()
        #: Set when another phase begins, and at the end.
        self.changed = threading.Event()
        now = datetime.now(UTC)
        self.begun = utc_now()
        self._progressed = self._phase_begun = now
        self._phases: list[str] = [STARTING]
        #: The phase in which an error was raised that ends the run.
        self._ended_in = ""
        #: When the phase that is counted now began or went on.
        self._counted_since = clock()
        self._seconds: dict[str, float] = {}
        self._progress = (0, 0, "")
        self._tally = TimeTally()
        #: What is not in the timings yet.
        self._spent: list[Spent] = []
        self._earlier: dict[tuple[Any, ...], Spent] = {}
        self._timings: Timings | None = None
        self._at_work: dict[str, datetime] = {}
        self._failing: dict[tuple[int, int], str] = {}
        #: Scenes that finished blocks lack, as far as they are known.
        self._gaps: set[str] = set()
        self._paused_until: datetime | None = None
        self._counts = dict.fromkeys(
            ("blocks_built", "samples_built", "bytes_built", "readings", "failed_readings", "tiles_read", "bytes_read"),
            0,
        )
        self._points = deque[DonePoint](maxlen=POINTS)
        self.state: dict[str, Any] = {"state": "working"}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note that the run is in a phase. Of phases within others only the inner one's time is counted."""
        self._change_phase([*self._phases, name])
        begun = self._now()
        log.info("%s: begun", name, extra={"phase": name})
        try:
            yield
        except BaseException:
            self._ended_in = self._ended_in or name
            raise
        else:
            spent = self._now() - begun
            log.info("%s: done in %.1f s", name, spent, extra={"phase": name, "seconds": round(spent, 3)})
        finally:
            self._change_phase(self._phases[:-1])

    def _change_phase(self, phases: list[str]) -> None:
        with self._changing:
            now = self._now()
            self._seconds[self._phases[-1]] = self._seconds.get(self._phases[-1], 0.0) + now - self._counted_since
            self._counted_since, self._phases = now, phases
            self._progress = (0, 0, "")
            self._progressed = self._phase_begun = datetime.now(UTC)
        self.changed.set()

    def progress(self, done: int, total: int, text: str) -> None:
        """Note how far the phase is, and tell it."""
        self.note_progress(done, total, text)
        self._tell(done, total, text)

    def note_progress(self, done: int, total: int, text: str) -> None:
        """Note how far the phase is."""
        with self._changing:
            self._progress = (done, total, text)
            self._progressed = datetime.now(UTC)

    def note_pause(self, seconds: float, what: str) -> None:
        """Note that nothing goes on for so long, and for what it is waited."""
        with self._changing:
            self.note_progress(0, 0, what)
            self._paused_until = self._progressed + timedelta(seconds=seconds)
        self.changed.set()

    def note_begun(self, what: str) -> None:
        """Note that workers were given a block or a reading. From the first on the rate counts."""
        log.debug("%s: given to workers", what)
        with self._changing:
            self._at_work[what] = self._progressed = datetime.now(UTC)
            if not self._points:
                self._note_point()

    def note_reading(self, outcome: ReadingOutcome) -> None:
        """Note what became of a reading."""
        report_reading(outcome)
        one = Spent("reading", outcome.name, outcome.seconds, outcome.finished, outcome.season, outcome.worker)
        with self._changing:
            self._at_work.pop(outcome.what, None)
            self._progressed = datetime.now(UTC)
            self._note_spent(one)
            self._counts["readings"] += 1
            self._counts["failed_readings"] += outcome.error is not None
            self._counts["tiles_read"] += outcome.counts.tiles
            self._counts["bytes_read"] += outcome.counts.bytes

    def note_block(self, outcome: BlockOutcome, done: int, total: int) -> None:
        """Note what became of a block. done, total: of all blocks."""
        report_block(outcome, done, total)
        block = outcome.season, outcome.block
        one = Spent("block", str(outcome.block), outcome.seconds, outcome.finished, outcome.season, outcome.worker)
        with self._changing:
            self._at_work.pop(outcome.what, None)
            self._progressed = datetime.now(UTC)
            self._progress = (done, total, outcome.what)
            self._note_spent(one)
            if outcome.error is not None:
                self._failing[block] = first_lines(outcome.error)
                return
            self._failing.pop(block, None)
            self._counts["blocks_built"] += 1
            self._counts["samples_built"] += outcome.samples
            self._counts["bytes_built"] += outcome.bytes
            self._gaps.update(outcome.gaps)
            self._note_point()

    def _note_spent(self, one: Spent) -> None:
        self._tally.add(one)
        if self._timings is not None:
            self._spent.append(one)

    def _note_point(self) -> None:
        now = datetime.now(UTC)
        last = self._points[-1] if self._points else None
        if last is None or (now - last.time).total_seconds() >= POINT_EVERY:
            self._points.append(
                DonePoint(time=now, blocks=self._counts["blocks_built"], samples=self._counts["samples_built"])
            )

    def note_dead_workers(self) -> None:
        """Note that what workers were at is begun again."""
        with self._changing:
            self._at_work.clear()

    def note_earlier(self, season: int, marker: Marker, gaps: Collection[str] = ()) -> None:
        """Note a block that an earlier run built: its gaps, and its time if that run could not write the timings."""
        one = Spent.of_marker(season, marker)
        with self._changing:
            self._gaps.update(gaps)
            if one is not None and self._timings is not None and self._timings.is_new(one):
                self._earlier[one.key] = one

    def keep_timings_in(self, timings: Timings) -> None:
        """What table the time goes to."""
        self._timings = timings

    def write_timings(self) -> None:
        """Write the table of timings as it is now. Raises StoreError."""
        if self._timings is None:
            return
        with self._changing:
            spent, self._spent = self._spent, []
            phases, earlier = self._phases_until_now(), [*self._earlier.values(), *self._timings.earlier_units]
        self._timings.add(spent)
        self._timings.write([*self._timings.own_units(), *phases], earlier)

    def time_spent(self) -> TimeSpent:
        """Where the time of this run went until now."""
        units = [] if self._timings is None else self._timings.own_units()
        with self._changing:
            tally = self._tally.copy()
            for one in [*units, *self._phases_until_now()]:
                tally.add(one)
        return tally.result()

    def _phases_until_now(self) -> list[Spent]:
        """What the phases of this run took, as they are now."""
        seconds = dict(self._seconds)
        seconds[self._phases[-1]] = seconds.get(self._phases[-1], 0.0) + self._now() - self._counted_since
        now, worker = utc_now(), f"{socket.gethostname()}:{os.getpid()}"
        seconds.pop(STARTING, None)
        return [Spent("phase", phase, {phase: spent}, now, None, worker) for phase, spent in seconds.items()]

    def end(self, state: Literal["finished", "failed", "interrupted"], error: BaseException | str = "") -> None:
        """Note how the run ended; what failed before it could end stays failed."""
        with self._changing:
            if self.state["state"] == "working":
                self.state |= {"state": state, "error": "" if error == "" else first_lines(error)}
        self.changed.set()

    def note_release(self, number: int | None, gaps: list[str]) -> None:
        """Note the release that the run made or found."""
        with self._changing:
            self.state |= {"release": number}
            self._gaps = set(gaps)

    def facts(self) -> dict[str, Any]:
        """What a status says of the work."""
        with self._changing:
            done, total, text = self._progress
            ended = self.state["state"] != "working"
            failing = sorted(self._failing.items())[:LISTED]
            at_work = sorted(self._at_work.items(), key=lambda item: item[1])[:LISTED]
            return {
                **self.state,
                "progressed": self._progressed,
                "phase": (self._ended_in or ENDED) if ended else self._phases[-1],
                "phase_begun": self._phase_begun,
                "done": done,
                "total": total,
                "doing": without_secrets(text),
                **self._counts,
                "failing": [FailingBlock(season=key[0], block=key[1], error=error) for key, error in failing],
                "failing_blocks": len(self._failing),
                "at_work": [AtWork(what=what, since=since) for what, since in at_work],
                "recent": list(self._points),
                "steps": self._tally.rounded_steps(),
                "gaps": [without_secrets(gap) for gap in sorted(self._gaps)[:LISTED]],
                "gap_scenes": len(self._gaps),
                "paused_until": self._paused_until,
            }


class Keeper:
    """Keeps the notes of a run in its store, in a thread, until the run has ended."""

    def __init__(
        self, notes: RunNotes, storage: Storage, fixed: dict[str, Any], *, last_within: float = LAST_WITHIN
    ) -> None:
        """fixed: what every status of the run says. last_within: seconds to wait for the last one."""
        self.notes, self.storage, self.fixed, self.last_within = notes, storage, fixed, last_within
        self.every = storage.status_every
        self._told: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="status", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def end(self) -> None:
        """Write what is the last state; waits for that a while."""
        self._ended.set()
        self.notes.changed.set()
        self._thread.join(REPORTED_AFTER)
        if self._thread.is_alive():
            log.info("waiting up to %g s until the last status and timings of the build are written", self.last_within)
            self._thread.join(self.last_within)
        if self._thread.is_alive():
            log.warning(
                "the last status and timings of the build were not written within %g s; %s may show it as working, "
                "and its rows may be missing",
                self.last_within,
                self.storage.where(STATUS_FILE),
            )

    def _keep(self) -> None:
        timings_at = time.monotonic() + TIMINGS_EVERY
        while True:
            # In this order: an end that comes after the first line is either seen by the second or ends the wait.
            self.notes.changed.clear()
            ended = self._ended.is_set()
            if ended or time.monotonic() >= timings_at:
                self._try("the timings", self.notes.write_timings, ended)
                timings_at = time.monotonic() + TIMINGS_EVERY
            self._try("the status", self._write_status, ended)
            if ended:
                return
            self.notes.changed.wait(self.every)

    def _write_status(self) -> None:
        status = RunStatus.model_validate(
            {**self.fixed, **self.notes.facts(), "written": datetime.now(UTC), "every": self.every}
        )
        self.storage.replace(STATUS_FILE, [status.model_dump_json(indent=1).encode() + b"\n"])

    def _try(self, what: str, write: Callable[[], None], last: bool) -> None:
        """Write something. What cannot be written is logged once, and once more at the end, where it is lost."""
        try:
            write()
        except Exception as error:  # noqa: BLE001 -- whatever keeps it from being written must not cost the build
            if last:
                log.warning("%s at the end of the build could not be written: %s", what, first_lines(error))
            elif what not in self._told:
                log.warning(
                    "%s of the build cannot be written, the build continues without it: %s", what, first_lines(error)
                )
                self._told.add(what)


@contextmanager
def kept_notes(
    builder: StoreBuilder, command: str, workers: Workers, progress: Progress = silent
) -> Iterator[RunNotes]:
    """The notes of a run that holds a store, kept there until it ends, however it does.

    command: what runs, `build` for instance. progress: also receives the progress.
    """
    notes, storage, name = RunNotes(progress), builder.storage, uuid.uuid4().hex[:12]
    last: RunName | None = None
    with suppress(StoreError):
        before = read_status(storage)
        last = None if before is None else RunName(before.run, before.begun)
    try:
        work = work_folder(builder.location, storage)
        units = work.files.folder / work.prefix
        notes.keep_timings_in(Timings(storage, units, RunName(name, notes.begun), last))
    except StoreError as error:
        log.warning("the timings of the build are not kept: %s", first_lines(error))
    fixed = {
        "version": 1,
        "run": name,
        "hold": storage.hold_name,
        "command": command,
        "software": __version__,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "begun": notes.begun,
        "workers": workers.scheduler or f"{workers.number} {workers.kind}",
    }
    keeper = Keeper(notes, storage, fixed)
    keeper.start()
    try:
        yield notes
    except Exception as error:
        notes.end("failed", error)
        raise
    except BaseException as error:
        notes.end("interrupted", error)
        raise
    else:
        notes.end("finished")
    finally:
        keeper.end()
