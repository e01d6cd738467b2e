"""The time of builds by step: a table beside the markers, `.build/timings.parquet`, to which every run adds.

One row a block, unit of work, reading or phase of a run, and step. No release has it and no reader looks there; it can
be deleted at any time. It is written whole or not at all, and holds at most `ROWS_KEPT` rows: the oldest go first.

Work that a killed run had finished is known from the markers of its blocks and units, and added by the next run: only
what was finished since the table was written last, so that dropped rows do not come back.
"""

from __future__ import annotations

import heapq
import io
import json
import logging
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from h2crop_data import __version__
from h2crop_data.cube.marker import Marker
from h2crop_data.errors import MissingFileError
from h2crop_data.sources.timing import step_of
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

log = logging.getLogger(__name__)
TIMINGS = f"{BUILD_FOLDER}/timings.parquet"
TimedKind = Literal["block", "unit", "reading", "phase"]
#: Rows of the table at most.
ROWS_KEPT = 500_000
#: How many of the slowest blocks, units and readings a run names.
SLOWEST = 5
MILLISECONDS = pa.timestamp("ms", tz="UTC")
WORD = pa.dictionary(pa.int32(), pa.string())
TIMING_COLUMNS = pa.schema(
    [
        ("run", WORD),
        ("begun", MILLISECONDS),
        ("kind", WORD),
        ("season", pa.int16()),
        ("name", WORD),
        ("step", WORD),
        ("detail", WORD),
        ("seconds", pa.float64()),
        ("worker", WORD),
        ("finished", MILLISECONDS),
        ("software", WORD),
    ]
)
#: The same in the file, where pandas and others find plain texts.
PLAIN_COLUMNS = pa.schema(
    [(column.name, pa.string() if column.type == WORD else column.type) for column in TIMING_COLUMNS]
)
WORD_COLUMNS = [column.name for column in TIMING_COLUMNS if column.type == WORD]
#: Of markers that are as much older than the newest row it is asked whether they have rows: clocks of workers differ.
CLOCKS_DIFFER = timedelta(hours=1)


def worker_name() -> str:
    """Who works here: host, process, thread."""
    return f"{socket.gethostname()}:{os.getpid()}/{threading.current_thread().name}"


def utc_now() -> datetime:
    """The time in whole seconds, as markers have it."""
    return datetime.now(UTC).replace(microsecond=0)


def iso_time(time: datetime) -> str:
    """A time in UTC as markers have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def phase_in_words(phase: str) -> str:
    """A phase of a run, with its step where that is in no worker's time."""
    step = step_of(phase)
    return f"{phase} ({step})" if step in ("search", "seal") else phase


class RunName(NamedTuple):
    """Which run something belongs to."""

    #: What no other run has; empty for runs of which nothing is known any more.
    id: str
    begun: datetime | None


@dataclass(frozen=True)
class Spent:
    """The time that one thing took, by step as its stopwatch names them."""

    kind: TimedKind
    #: Of a block its number, of a unit its step and name, of a reading source and scene or id, of a phase its name.
    name: str
    seconds: Mapping[str, float]
    finished: datetime
    #: None for what belongs to no season.
    season: int | None = None
    #: Empty where it is not known.
    worker: str = ""
    software: str = __version__

    @property
    def key(self) -> tuple[str, int | None, str, datetime]:
        """What nothing else has in common with it."""
        return self.kind, self.season, self.name, self.finished

    @property
    def label(self) -> str:
        """What it is called, for people."""
        return " ".join([*([] if self.season is None else [f"season {self.season}"]), self.kind, self.name])

    @property
    def total(self) -> float:
        """Seconds in all steps."""
        return sum(self.seconds.values())

    @classmethod
    def of_marker(cls, season: int, marker: Marker) -> Spent | None:
        """What the marker of a block says; None for an imported one."""
        if "seconds" not in marker or "finished" not in marker:
            return None
        finished = datetime.fromisoformat(marker["finished"])
        return cls("block", str(marker["block"]), marker["seconds"], finished, season, software=marker["software"])


@dataclass(frozen=True)
class TimeSpent:
    """Where the time of a run went, in seconds.

    steps: of workers, by step (`sources.timing.BUILD_STEPS`), most first. phases: of the run, by the clock; `search`
    and `seal` are `planning` and `sealing` here. slowest: the blocks, units and readings that took longest: `what`,
    `seconds`, and the step of theirs that took most (`step`).
    """

    steps: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    slowest: list[dict[str, Any]] = field(default_factory=list)


class TimeTally:
    """Adds up where time goes, thing by thing, without keeping them."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = defaultdict(float)
        self.phases: dict[str, float] = defaultdict(float)
        self.slowest: list[Spent] = []

    def copy(self) -> TimeTally:
        """A copy that can be changed separately."""
        made = TimeTally()
        made.steps |= self.steps
        made.phases |= self.phases
        made.slowest = list(self.slowest)
        return made

    def add(self, one: Spent) -> None:
        """Count what something took."""
        if one.kind == "phase":
            self.phases[one.name] += one.total
            return
        if one.seconds:
            self.slowest = heapq.nlargest(SLOWEST, [*self.slowest, one], key=lambda other: other.total)
        for detail, seconds in one.seconds.items():
            self.steps[step_of(detail)] += seconds

    def rounded_steps(self) -> dict[str, float]:
        """Seconds by step, most first."""
        return {step: round(spent, 3) for step, spent in sorted(self.steps.items(), key=lambda item: -item[1])}

    def result(self) -> TimeSpent:
        """Where the time went."""
        return TimeSpent(
            self.rounded_steps(),
            {phase: round(spent, 3) for phase, spent in self.phases.items()},
            [
                {
                    "what": one.label,
                    "seconds": round(one.total, 3),
                    "step": max(one.seconds, key=one.seconds.__getitem__),
                }
                for one in self.slowest
            ],
        )


class Timings:
    """The table of a store, for the run that holds it. To be used by one thread at a time."""

    def __init__(
        self, storage: Storage, units: Path, run: RunName, last: RunName | None = None, *, rows_kept: int = ROWS_KEPT
    ) -> None:
        """units: the folder in which the markers of units lie, in a folder a step. run: the one that adds rows.

        last: the run before it, which may have been killed. rows_kept: how many at most. Raises StoreError where the
        table cannot be read.
        """
        self.storage, self.units, self.run, self.last = storage, units, run, last
        self.rows_kept = rows_kept
        self._before = read_timings(storage)
        #: Rows of this run, of what was added.
        self._own = TIMING_COLUMNS.empty_table()
        of_things = self._before.group_by(["kind", "season", "name", "finished"]).aggregate([])
        columns = (of_things[name].to_pylist() for name in ("kind", "season", "name", "finished"))
        self._known = set(zip(*columns, strict=True))
        newest = max((finished for *_, finished in self._known), default=None)
        #: What was finished before has rows, or had some that were dropped; None where nothing has.
        self._since = None if newest is None else newest - CLOCKS_DIFFER
        #: What markers of units said before the run began.
        self.earlier_units = self.new_units()
        self._earlier = {one.key for one in self.earlier_units}
        #: What they said since: markers may be deleted while the run works.
        self._units: dict[tuple[Any, ...], Spent] = {}

    def is_new(self, one: Spent) -> bool:
        """Whether something was finished since the table was written last, and has no rows."""
        return one.key not in self._known and (self._since is None or one.finished >= self._since)

    def own_units(self) -> list[Spent]:
        """What markers of units say, or said, that this run computed."""
        self._units |= {one.key: one for one in self.new_units() if one.key not in self._earlier}
        return list(self._units.values())

    def new_units(self) -> list[Spent]:
        """What markers of units say that no earlier run wrote."""
        return [one for one in spent_by_units(self.units, self._since) if self.is_new(one)]

    def add(self, own: Sequence[Spent]) -> None:
        """Add what this run spent, to be written from now on."""
        rows = [row for one in own for row in rows_of(one, self.run)]
        self._own = pa.concat_tables([self._own, pa.Table.from_pylist(rows, TIMING_COLUMNS)]).unify_dictionaries()

    def write(self, own: Sequence[Spent], earlier: Sequence[Spent]) -> None:
        """Write the table again, with what was added. Raises StoreError.

        own: what this run spent until now, to be written this time. earlier: what markers say of runs that could not
        write it. They were of the run before, where that had begun.
        """
        rows = [row for one in earlier for row in rows_of(one, self.run_before(one))]
        now = [row for one in own for row in rows_of(one, self.run)]
        tables = (
            self._before,
            pa.Table.from_pylist(rows, TIMING_COLUMNS),
            self._own,
            pa.Table.from_pylist(now, TIMING_COLUMNS),
        )
        table = pa.concat_tables(tables).unify_dictionaries()
        file = io.BytesIO()
        pq.write_table(table.slice(max(0, len(table) - self.rows_kept)).cast(PLAIN_COLUMNS), file, compression="zstd")
        self.storage.replace(TIMINGS, [file.getvalue()])

    def run_before(self, one: Spent) -> RunName:
        """The earlier run that finished something."""
        last = self.last
        return last if last and last.begun and last.begun <= one.finished else RunName("", None)


def rows_of(one: Spent, run: RunName) -> Iterator[dict[str, Any]]:
    """The rows of the table for something, one a step."""
    for detail, seconds in one.seconds.items():
        yield {
            "run": run.id,
            "begun": run.begun,
            "kind": one.kind,
            "season": one.season,
            "name": one.name,
            "step": step_of(detail),
            "detail": detail,
            "seconds": seconds,
            "worker": one.worker,
            "finished": one.finished,
            "software": one.software,
        }


def read_timings(storage: Storage) -> pa.Table:
    """The table of a store; an empty one where there is none, or a damaged one, which is logged. Raises StoreError."""
    try:
        data = storage.read(TIMINGS)
    except MissingFileError:
        return TIMING_COLUMNS.empty_table()
    try:
        return pq.read_table(io.BytesIO(data), read_dictionary=WORD_COLUMNS).cast(TIMING_COLUMNS)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        log.warning("%s is damaged and is started again: %s", storage.where(TIMINGS), error)
        return TIMING_COLUMNS.empty_table()


def spent_by_units(folder: Path, since: datetime | None) -> Iterator[Spent]:
    """What the markers of units in a work folder say, of those written since; none of those of earlier versions."""
    for path in sorted(folder.glob("*/*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if since is not None and path.stat().st_mtime < since.timestamp():
                continue
            marker = json.loads(path.read_text(encoding="utf-8"))
            spent = marker["spent"]
            finished = datetime.fromisoformat(spent["finished"])
            name, seconds = f"{marker['step']} {marker['name']}", {marker["step"]: float(spent["seconds"])}
            yield Spent("unit", name, seconds, finished, None, spent["worker"], spent["software"])
