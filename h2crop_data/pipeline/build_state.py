"""The state of the build of a store, for anyone who can read the store: nothing is locked or written.

The lock shows whether a builder is alive, markers show which blocks are done, `status.json` the current step of the
builder (`run_status.py`), the root whether there is a release. Without `status.json` the state follows from the others.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from h2crop_data.cube.release_numbers import SEALING, current_attributes
from h2crop_data.cube.retraction import Retractions, index_rows
from h2crop_data.cube.root import RootAttributes
from h2crop_data.errors import StoreError
from h2crop_data.pipeline.estimate import empty_months
from h2crop_data.pipeline.plan import PLAN_FOLDER, SeasonPlan, kept_parts, load_plan
from h2crop_data.pipeline.run_status import LISTED, DonePoint, FailingBlock, RunStatus, read_status
from h2crop_data.pipeline.source_facts import reasons_left_out
from h2crop_data.sources.registry import used_sources
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.storage import BUILD_FOLDER, Holder, Storage

State = Literal["finished", "running", "stuck", "dead", "failed", "not begun"]
LastRun = Literal["finished", "failed", "dead", "running"]
#: Seconds without a sign of life after which a builder is taken for stopped; at least so many times its own pace.
SILENT_AFTER, SILENT_TIMES = 60.0, 4
#: Minutes without progress after which a builder is taken for stuck.
STUCK_MINUTES = 30.0
#: Minutes over which the rate is taken.
RATE_MINUTES = 30.0
MARKER_NAME = re.compile(r"(\d{4})/(\d{6})\.json")


class StatePart(BaseModel):
    """A part of what `h2crop status --json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HolderState(StatePart):
    """The builder that has the lock of the store, or died with it."""

    host: str
    process: int
    #: UTC.
    since: str
    alive: bool


class SeasonState(StatePart):
    """How far a season is; without blocks that were retracted."""

    blocks: int
    blocks_done: int
    samples: int
    samples_done: int
    #: Whether the newest release has all that is planned of it.
    released: bool
    #: Scenes that are not used, counted by the reason, in which numbers are `N`.
    scenes_left_out: dict[str, int]
    #: Months (1..12) that stay empty because a source has no scene in them.
    empty_months: list[int]


class Rate(StatePart):
    """How fast blocks are built, over the last minutes."""

    minutes: float
    blocks_per_hour: float
    samples_per_hour: float


class BuildState(StatePart):
    """The state of the build of a store."""

    store: str
    state: State
    #: Why this state, and what to do, in words.
    explanation: str
    #: The newest release; None before the first.
    release: int | None
    seasons: dict[int, SeasonState]
    holder: HolderState | None
    #: What the last run said of itself; of earlier versions, and of other commands that hold the store, None.
    run: RunStatus | None
    #: Seconds since the last run said anything, and since it came further.
    silent_seconds: float | None
    idle_seconds: float | None
    rate: Rate | None
    #: Until the blocks are built, at this rate.
    seconds_left: float | None
    failing: list[FailingBlock]
    #: Scenes that could not be read and were left out: of the blocks of the last run, where it says any or made the
    #: newest release, else of that release. The first ones, and how many there are.
    gaps: list[str]
    gap_scenes: int
    #: What became of the last run that said anything of itself; None where none did.
    last_run: LastRun | None


@dataclass(frozen=True)
class PlanFacts:
    """What a status needs of a part of a season's plan, which never changes."""

    season: int
    #: Block -> its samples.
    blocks: dict[int, int]
    left_out: Counter[str]
    empty_months: frozenset[int]
    #: Columns of the samples that name scenes which could not be read.
    gap_columns: frozenset[str]

    @classmethod
    def of(cls, plan: SeasonPlan) -> PlanFacts:
        """Of a plan."""
        blocks = {int(block): int(n) for block, n in zip(plan.blocks["block"], plan.blocks["samples"], strict=True)}
        left_out = reasons_left_out(plan.scenes)
        gaps = {source.faults["gaps"] for source, _ in used_sources(plan.recipe) if "gaps" in source.faults}
        return cls(plan.season, blocks, left_out, frozenset(empty_months(plan)), frozenset(gaps))


@dataclass
class StoreLook:
    """Looks at a store, again and again; plans are read once."""

    location: str
    #: Minutes without progress after which a builder is taken for stuck.
    stuck_minutes: float = STUCK_MINUTES
    #: Seconds without a sign of life after which a builder is taken for stopped.
    silent_after: float = SILENT_AFTER
    _plans: dict[str, PlanFacts] = field(default_factory=dict)
    #: By the number of a release.
    _gaps: dict[int, list[str]] = field(default_factory=dict)

    def look(self) -> BuildState:
        """How the build is doing now. Raises StoreError, or PlanError for a damaged plan."""
        storage = open_storage(self.location)
        # The lock first: what a builder writes before it lets go is there then.
        holder = storage.holder()
        run, trouble = None, ""
        try:
            run = read_status(storage)
        except StoreError as error:
            trouble = str(error)
        attributes = current_attributes(storage)
        seasons = self.seasons(storage, attributes or {"seasons": {}})
        now = datetime.now(UTC)
        facts = StateFacts(
            holder,
            run,
            None if attributes is None else int(attributes["release"]),
            seasons,
            sealing=storage.exists(SEALING),
            now=now,
            stuck_minutes=self.stuck_minutes,
            silent_after=self.silent_after,
            # The operating system tells of every process of this machine, a lease of every machine.
            can_miss_lock=isinstance(storage, LocalStorage) and run is not None and run.host != socket.gethostname(),
        )
        state, explanation = facts.state()
        is_at_work = state in ("running", "stuck") and facts.run_is_holders
        gaps, gap_scenes = ([], 0) if run is None else (run.gaps, max(run.gap_scenes, len(run.gaps)))
        if attributes is not None and not gaps and (run is None or run.release != facts.release):
            try:
                gaps = self.released_gaps(storage, attributes)
                gap_scenes = len(gaps)
            except StoreError as error:
                trouble = "; ".join(filter(None, [trouble, str(error)]))
        rate = rate_of(run) if is_at_work and run is not None else None
        return BuildState(
            store=self.location,
            state=state,
            explanation="; ".join(filter(None, [explanation, trouble])),
            release=facts.release,
            seasons=seasons,
            holder=None if holder is None else HolderState(**{k: getattr(holder, k) for k in HolderState.model_fields}),
            run=run,
            silent_seconds=None if run is None else max(0.0, (now - run.written).total_seconds()),
            idle_seconds=None if run is None else max(0.0, idle_seconds(run, now)),
            rate=rate,
            seconds_left=facts.blocks_left / rate.blocks_per_hour * 3600 if rate and facts.blocks_left else None,
            failing=[] if run is None or state == "finished" else run.failing,
            gaps=gaps[:LISTED],
            gap_scenes=gap_scenes,
            last_run=facts.last_run,
        )

    def released_gaps(self, storage: Storage, attributes: RootAttributes) -> list[str]:
        """Scenes that a release lacks because they could not be read. Raises StoreError for a damaged index."""
        release = int(attributes["release"])
        if release not in self._gaps:
            found: set[str] = set()
            for plan in self._plans.values():
                table = f"samples-{plan.season}"
                if table in attributes["index"]:
                    for column in plan.gap_columns:
                        rows = index_rows(storage, attributes, table, [column])
                        found.update(name for (names,) in rows for name in names or ())
            self._gaps = {release: sorted(found)}
        return self._gaps[release]

    def seasons(self, storage: Storage, attributes: Mapping[str, Any]) -> dict[int, SeasonState]:
        """How far each season is. attributes: of the newest release."""
        parts = kept_parts(storage, f"{PLAN_FOLDER}/")
        for part in parts:
            if part not in self._plans:
                self._plans[part] = PlanFacts.of(load_plan(storage, part, whole=False))
        retracted = Retractions.read(storage).blocks
        of_season: dict[int, list[PlanFacts]] = {}
        for part in parts:
            of_season.setdefault(self._plans[part].season, []).append(self._plans[part])
        released = {int(season): of_season["blocks"] for season, of_season in attributes["seasons"].items()}
        return {
            season: season_state(
                plans, done_blocks(storage, season), set(retracted.get(season, {})), released.get(season, 0)
            )
            for season, plans in sorted(of_season.items())
        }


def done_blocks(storage: Storage, season: int) -> set[int]:
    """The blocks of a season that have a marker."""
    prefix = f"{BUILD_FOLDER}/"
    found = (MARKER_NAME.fullmatch(name.removeprefix(prefix)) for name, _ in storage.names(f"{prefix}{season}/"))
    return {int(match[2]) for match in found if match}


def season_state(plans: list[PlanFacts], done: set[int], retracted: set[int], released: int) -> SeasonState:
    """How far a season is, by its plans. released: how many of its blocks the newest release knows, retracted too."""
    blocks = {block: samples for plan in plans for block, samples in plan.blocks.items() if block not in retracted}
    return SeasonState(
        blocks=len(blocks),
        blocks_done=len(done & blocks.keys()),
        samples=sum(blocks.values()),
        samples_done=sum(blocks[block] for block in done & blocks.keys()),
        released=released >= sum(len(plan.blocks) for plan in plans),
        scenes_left_out=dict(sum((plan.left_out for plan in plans), Counter()).most_common()),
        empty_months=sorted(frozenset.intersection(*(plan.empty_months for plan in plans))),
    )


def rate_of(run: RunStatus) -> Rate | None:
    """How fast a run builds blocks; None before the first."""
    now = DonePoint(time=run.written, blocks=run.blocks_built, samples=run.samples_built)
    window = timedelta(minutes=RATE_MINUTES)
    points = [point for point in run.recent if now.time - point.time <= window] or run.recent[-1:]
    if not points or now.blocks == points[0].blocks:
        return None
    seconds = max(1.0, (now.time - points[0].time).total_seconds())
    blocks, samples = now.blocks - points[0].blocks, now.samples - points[0].samples
    return Rate(
        minutes=round(seconds / 60, 2),
        blocks_per_hour=round(blocks / seconds * 3600, 2),
        samples_per_hour=round(samples / seconds * 3600, 2),
    )


@dataclass(frozen=True)
class StateFacts:
    """What the state of a build follows from."""

    holder: Holder | None
    run: RunStatus | None
    release: int | None
    seasons: dict[int, SeasonState]
    #: Whether a release is being made.
    sealing: bool
    now: datetime
    stuck_minutes: float
    silent_after: float = SILENT_AFTER
    #: Whether the lock of the last run may be one that this machine cannot see.
    can_miss_lock: bool = False

    @property
    def blocks_left(self) -> int:
        """How many blocks are to be built."""
        return sum(season.blocks - season.blocks_done for season in self.seasons.values())

    @property
    def run_is_holders(self) -> bool:
        """Whether the last run that said anything is the one that has the lock, or had it and died."""
        return self.holder is not None and self.run is not None and self.holder.id == self.run.hold

    @property
    def is_whole(self) -> bool:
        """Whether all blocks are done and released."""
        released = all(season.released or not season.blocks for season in self.seasons.values())
        return self.release is not None and not self.sealing and not self.blocks_left and released

    @property
    def lock_is_unseen(self) -> bool:
        """Whether the last run lives on another machine by what it says, although its lock seems to be free."""
        run = self.run
        is_dead = self.holder is not None and not self.holder.alive
        if run is None or run.state != "working" or not (self.can_miss_lock and is_dead and self.run_is_holders):
            return False
        return (self.now - run.written).total_seconds() <= self.silent_limit(run)

    @property
    def last_run(self) -> LastRun | None:
        """What became of the last run that said anything."""
        run = self.run
        if run is None:
            return None
        if run.state == "working":
            lives = self.holder is not None and self.holder.alive and self.run_is_holders
            return "running" if lives or self.lock_is_unseen else "dead"
        return "dead" if run.state == "interrupted" else run.state

    def silent_limit(self, run: RunStatus) -> float:
        """Seconds without a sign of life after which a run is taken for stopped."""
        return max(self.silent_after, SILENT_TIMES * run.every)

    def state(self) -> tuple[State, str]:
        """The state of the build, and why."""
        if self.holder is not None and self.holder.alive:
            return self.state_of_held(self.holder)
        run = self.run
        if run is not None and self.lock_is_unseen:
            return "running", f"{who(run)}; its lock cannot be seen from here"
        if self.is_whole:
            since = ""
            if run is not None and self.last_run == "failed":
                since = f"; {failure(run)}"
            elif run is not None and self.last_run == "dead":
                since = f"; the last run ({who(run)}) ended early, while {run.phase}: rerun the same command"
            return "finished", f"release {self.release} contains all planned blocks{since}"
        if run is not None and run.state == "failed":
            return "failed", failure(run)
        if run is not None and run.state == "finished" and self.release is None and not self.blocks_left:
            return "finished", "the last run found nothing to build; no release exists yet"
        if run is None and self.holder is None and self.release is None and not self.seasons:
            return "not begun", "nothing has been planned or built here"
        again = "rerun the same command: it continues with the unfinished work"
        if run is not None and run.state == "interrupted":
            return "dead", f"the last run ({who(run)}) was interrupted while {run.phase}; {again}"
        if run is not None and run.state == "working":
            return (
                "dead",
                f"the last run ({who(run)}) ended without a report, in the phase `{run.phase}`; {again}",
            )
        return "dead", f"no builder is working, and the store is not finished; {again}"

    def state_of_held(self, holder: Holder) -> tuple[State, str]:
        """The state of a build that has the lock."""
        run = self.run
        name = f"process {holder.process} on {holder.host}, since {holder.since}" if holder.host else "a process"
        if run is None or not self.run_is_holders:
            return "running", f"{name} has the lock; it has not reported anything yet, or is a command without reports"
        silent, idle = (self.now - run.written).total_seconds(), idle_seconds(run, self.now)
        if silent > self.silent_limit(run):
            return "stuck", (
                f"{name} has the lock and has reported nothing for {minutes(silent)}: stopped, swapped out, or its "
                "storage does not answer. Check the process; if it does not continue, end it and rerun the same "
                "command: finished work is kept"
            )
        if idle > self.stuck_minutes * 60 and run.phase == "sealing":
            return "stuck", (
                f"{name} is alive and makes a release, but has made no progress for {minutes(idle)}. This takes "
                "long in a large store: do not end it as long as it computes, reads or writes"
            )
        if idle > self.stuck_minutes * 60:
            return "stuck", (
                f"{name} is alive, but nothing was started or finished for {minutes(idle)}; check its current step. "
                "If it does not continue, end it and rerun the same command: finished work is kept"
            )
        return "running", name


def idle_seconds(run: RunStatus, now: datetime) -> float:
    """Seconds since a run came further, or ended a pause; less than 0 in a pause."""
    return (now - max(run.progressed, run.paused_until or run.progressed)).total_seconds()


def minutes(seconds: float) -> str:
    """A time in words."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def who(run: RunStatus) -> str:
    """Which run it was, in words."""
    return f"`{run.command}`, process {run.process} on {run.host}"


def failure(run: RunStatus) -> str:
    """Why a run failed, and what to do."""
    first = run.error.partition("\n")[0]
    return f"the last run ({who(run)}) failed: {first}; fix the cause and rerun the same command"
