"""One run over the blocks that are not built yet: batch by batch, by one pool of workers."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from h2crop_data.bounded_map import AbandonedWorkError, WorkerPool
from h2crop_data.crops.taxonomy import Taxonomy, taxonomy_versions
from h2crop_data.cube.marker import Marker
from h2crop_data.cube.retraction import Retractions
from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.datasheet.markdown import listing
from h2crop_data.errors import PlanError, UsageError
from h2crop_data.grid import Cell
from h2crop_data.pipeline.block import BlockTask, BlockTasks
from h2crop_data.pipeline.dates import keep_dates
from h2crop_data.pipeline.engine import (
    BlockOutcome,
    BuildError,
    ReadingOutcome,
    WorkerDiedError,
    Workers,
    changed_groups,
    gaps_in,
    open_pool,
    run_blocks,
)
from h2crop_data.pipeline.finished import finished_plans
from h2crop_data.pipeline.plan import SeasonPlan, with_replaced
from h2crop_data.pipeline.planning import with_unit_results
from h2crop_data.pipeline.run_notes import RunNotes
from h2crop_data.pipeline.schedule import Schedule, SeasonCell, WaitingParts
from h2crop_data.pipeline.units import scratch_folder, work_folder
from h2crop_data.progress import Progress, silent
from h2crop_data.settings import Folders
from h2crop_data.sources.readings import ReadCounts, Reading
from h2crop_data.sources.registry import algorithms, forget_other_builds, used_sources
from h2crop_data.sources.scratch import Scratch

log = logging.getLogger(__name__)
#: Called with what became of a block, and how many of all blocks are done.
OnBlock = Callable[[BlockOutcome, int, int], None]


def ignore_outcome(outcome: BlockOutcome, done: int, total: int) -> None:
    """Ignores all notes."""


#: A block of a store: its season and its number there.
SeasonBlock = tuple[int, int]
#: Worker processes of this machine that may die in one run.
WORKER_DEATHS = 3
#: Failed blocks that the text of an error names.
FAILURES_SHOWN = 5


@dataclass(frozen=True)
class BuiltBlocks:
    """How many blocks were built."""

    built: int
    already_done: int
    #: Seconds of work by step, summed over the workers.
    seconds: dict[str, float]
    #: What was read for composites.
    read: ReadCounts = field(default_factory=ReadCounts)


class BlockRun:
    """One run over the blocks of some plans that have no marker yet. To be used in a `with` block, by one thread.

    Batches share the pool of workers, results of units and parts of cells. What failed may be built again in the same
    run: give its blocks, or the batch they were in, to `build` once more.
    """

    def __init__(
        self,
        builder: StoreBuilder,
        plans: Sequence[SeasonPlan],
        workers: Workers,
        *,
        scratch: Path | None = None,
        scratch_bytes: int | None = None,
        progress: Progress = silent,
        notes: RunNotes | None = None,
    ) -> None:
        """scratch, scratch_bytes, progress: as for `build_store`. notes: where the run notes what it does.

        Raises PlanError for a finished block whose inputs are not those of its plan, or one that cannot be built any
        more.
        """
        self.builder, self.workers, self.progress = builder, workers, progress
        self.notes = notes or RunNotes()
        self._work = work_folder(builder.location, builder.storage)
        self._scratch = Scratch(scratch_folder(builder.location, scratch).absolute())
        self._scratch_bytes = Folders.read().scratch_bytes if scratch_bytes is None else scratch_bytes
        forget_other_builds()
        self._pending = pending_blocks(builder, plans, self.notes)
        self._plan_of = {(plan.season, block): plan for plan, blocks in self._pending for block in blocks}
        self.total = sum(len(plan.blocks) for plan in plans)
        #: How many blocks are to be built, and how many were there before.
        self.missing = len(self._plan_of)
        log.info(
            "%d of %d blocks to build, by %s",
            *(self.missing, self.total, workers.scheduler or f"{workers.number} {workers.kind}"),
            extra={"blocks": self.missing},
        )
        self.already_done = self.total - self.missing
        self._built: set[SeasonBlock] = set()
        self._failed: dict[SeasonBlock, BlockOutcome] = {}
        #: How many worker processes have died.
        self._deaths = 0
        self._seconds: dict[str, float] = defaultdict(float)
        self._read = ReadCounts()
        #: Units whose results are used until the run ends.
        self._needed: set[str] = set()
        #: By part of a season, how many of its blocks are left, and until they are built their tasks.
        self._left = Counter({plan.part: len(blocks) for plan, blocks in self._pending})
        self._tasks: dict[str, BlockTasks] = {}
        self._parts = WaitingParts(Counter())
        for plan, blocks in self._pending:
            self._parts.uses.update(cells_in_blocks(plan, blocks))
        self._stack = ExitStack()
        self._pool: WorkerPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_pool()

    def _close_pool(self) -> None:
        """Release the workers when they have finished their current tasks."""
        self._pool = None
        self._stack.close()

    def abandon(self) -> None:
        """Release the workers at once, without waiting for their tasks: a read may hang without end.

        Work that threads still do is discarded: once the lock is released, the store refuses their files.
        """
        self._pool = None
        self._stack.pop_all().__exit__(AbandonedWorkError, AbandonedWorkError(), None)

    def run_units(self) -> None:
        """Run the units of work that pending blocks need; else `build` runs those of a plan before its first block.

        A unit that fails costs the blocks that use it, no others. Raises StoreError where a result cannot be kept.
        """
        for plan, _ in self._pending:
            if self._left[plan.part]:
                self._tasks_of(plan)

    def batches(self, size: int) -> list[list[SeasonBlock]]:
        """The pending blocks in the order in which to build them, at most so many in a batch.

        Blocks of one place are in one batch, where they are no more than its size; those of two plans never are.
        """
        return [batch for plan, blocks in self._pending for batch in batches_by_ground(plan, blocks, size)]

    def build(self, batch: Sequence[SeasonBlock], on_block: OnBlock = ignore_outcome) -> list[BlockOutcome]:
        """Build some of the pending blocks, in their order; gives what became of each that this run has not built yet.

        A block that fails does not stop the others: its outcome has the error. on_block: called with each outcome.
        Where a worker process of this machine dies, new ones continue with the remaining blocks. Raises StoreError
        where the store or the scratch folder cannot be written, WorkerDiedError where processes die again and again,
        ClusterError where the cluster was lost.
        """
        unknown = [block for block in batch if block not in self._plan_of]
        if unknown:
            raise UsageError(f"unknown block {unknown[0][1]} of season {unknown[0][0]}: this run does not build it")
        wanted = [block for block in dict.fromkeys(batch) if block not in self._built]
        for block in [block for block in wanted if self._failed.pop(block, None)]:
            plan = self._plan_of[block]
            self._parts.uses.update(cells_in_blocks(plan, [block[1]]))
            # Its units may have failed: their results are asked for again.
            self._tasks.pop(plan.part, None)
        outcomes: list[BlockOutcome] = []
        while wanted:
            try:
                for outcome in self._outcomes_of(wanted):
                    outcomes.append(outcome)
                    on_block(outcome, self.done, self.total)
            except WorkerDiedError:
                self._deaths += 1
                self.notes.note_dead_workers()
                self._close_pool()
                if self._deaths >= WORKER_DEATHS:
                    raise
                log.warning(
                    "a worker process died, possibly out of memory; new processes continue with the remaining blocks"
                )
            else:
                return outcomes
            ended = {(outcome.season, outcome.block) for outcome in outcomes}
            wanted = [block for block in wanted if block not in ended]
        return outcomes

    def _outcomes_of(self, wanted: Sequence[SeasonBlock]) -> Iterator[BlockOutcome]:
        """Build some blocks, noting what became of each before it is given. Raises as `build`, at the first death."""
        schedule = Schedule(self._jobs(wanted), self._parts, self._scratch, self._scratch_bytes)
        on_begun = self.notes.note_begun
        for outcome in run_blocks(self.builder.storage, schedule, self._scratch, self.pool, on_begun):
            for step, spent in outcome.seconds.items():
                self._seconds[step] += spent
            if isinstance(outcome, ReadingOutcome):
                self._read += outcome.counts
                self.notes.note_reading(outcome)
                read = f"read {self._read.bytes / 1e6:,.0f} MB in {self._read.tiles:,} tiles of scenes"
                self.progress(self.done, self.total, f"blocks; {read}")
                continue
            self._note(outcome)
            yield outcome

    @property
    def pool(self) -> WorkerPool:
        """The workers, which are started when they are first needed."""
        if self._pool is None:
            self._pool = self._stack.enter_context(open_pool(self.workers, self.builder.location, self._scratch.folder))
        return self._pool

    @property
    def done(self) -> int:
        """How many blocks have been built or have failed, those of earlier runs with them."""
        return self.already_done + len(self._built) + len(self._failed)

    @property
    def failed(self) -> list[BlockOutcome]:
        """The outcomes of the blocks that have failed and were not built since, in order."""
        return [self._failed[block] for block in sorted(self._failed)]

    def finish(self) -> BuiltBlocks:
        """What was built; parts of cells are deleted where no block is left. Raises BuildError where blocks failed."""
        if self._failed:
            failed = self.failed
            shown = "\n  ".join(
                f"season {one.season} block {one.block}: {one.error}" for one in failed[:FAILURES_SHOWN]
            )
            error = BuildError(
                f"{len(failed)} of {self.missing} blocks failed:\n  {shown}\n"
                "Finished blocks are kept; fix the cause and rerun the same command. If it cannot be fixed, for "
                "instance because a scene was deleted permanently, leave the block out: `h2crop retract "
                f'{self.builder.location} --block {failed[0].season}:{failed[0].block} --reason "..."`; the next run '
                "continues without it."
            )
            error.failed = failed
            raise error
        if len(self._built) == self.missing:
            self._scratch.delete()
        return BuiltBlocks(len(self._built), self.already_done, dict(self._seconds), self._read)

    def _jobs(self, wanted: Sequence[SeasonBlock]) -> Iterator[tuple[BlockTask, tuple[Reading, ...]]]:
        """The tasks of blocks with their readings, each made when it is asked for."""
        for season, number in wanted:
            made = self._tasks_of(self._plan_of[season, number])
            yield made.task(number), made.readings(number)

    def _tasks_of(self, plan: SeasonPlan) -> BlockTasks:
        """The tasks of a plan, with the results of the units that its pending blocks need."""
        if plan.part not in self._tasks:
            pending = next(blocks for other, blocks in self._pending if other.part == plan.part)
            left = {block for block in pending if (plan.season, block) not in self._built}
            pool = self.pool if self.workers.kind == "dask" else None
            with self.notes.phase("units"):
                ready, spent = with_unit_results(
                    plan,
                    left,
                    self._work,
                    workers=self.workers.number,
                    pool=pool,
                    needed=self._needed,
                    progress=self.progress,
                )
            for step, of_step in spent.items():
                self._seconds[step] += of_step
            keep_dates(self.builder.storage, ready)
            self._tasks[plan.part] = BlockTasks(ready)
        return self._tasks[plan.part]

    def _note(self, outcome: BlockOutcome) -> None:
        """Note what became of a block."""
        block = outcome.season, outcome.block
        if outcome.error is not None:
            self._failed[block] = outcome
            self.notes.note_block(outcome, self.done, self.total)
            return
        self._built.add(block)
        self.notes.note_block(outcome, self.done, self.total)
        plan = self._plan_of[block]
        self._left[plan.part] -= 1
        if not self._left[plan.part]:
            self._tasks.pop(plan.part, None)


def cells_in_blocks(plan: SeasonPlan, blocks: Collection[int]) -> Iterator[SeasonCell]:
    """The cells of some blocks of a plan, one for each sample."""
    of_blocks = plan.samples["cell"][plan.samples["block"].isin(blocks)]
    return ((plan.season, Cell.parse(name)) for name in of_blocks)


def build_blocks(
    builder: StoreBuilder,
    plans: Sequence[SeasonPlan],
    workers: Workers,
    on_block: OnBlock = ignore_outcome,
    *,
    progress: Progress = silent,
    scratch: Path | None = None,
    scratch_bytes: int | None = None,
    notes: RunNotes | None = None,
) -> BuiltBlocks:
    """Build the blocks that have no marker yet. Raises BuildError naming those that failed.

    progress, scratch, scratch_bytes: as for `build_store`. notes: where the run notes what it does. What is in the
    scratch folder of an interrupted build is used; all of it is deleted at the end, but for what failed blocks may
    need.
    """
    notes = notes or RunNotes()
    run = BlockRun(
        builder, plans, workers, scratch=scratch, scratch_bytes=scratch_bytes, progress=progress, notes=notes
    )
    with notes.phase("blocks"), run:
        for batch in run.batches(max(1, run.missing)):
            run.build(batch, on_block)
        return run.finish()


def check_versions(plan: SeasonPlan, store: str, missing: Sequence[int]) -> None:
    """Refuse to build blocks of a plan of another version of the classes or the algorithm. Raises PlanError."""
    known = plan.taxonomy_version in taxonomy_versions()
    if not known or plan.taxonomy_hash != Taxonomy.load(plan.taxonomy_version).hash:
        raise PlanError(
            f"{plan.season} was planned with other crop classes than those of this h2crop; build a new store"
        )
    if plan.algorithm != algorithms(plan.recipe):
        raise PlanError(
            f"{plan.season} was planned by an h2crop with other algorithms, and {len(missing)} block(s) are not "
            f"built ({listing([str(block) for block in missing], FAILURES_SHOWN)}); finish them with that h2crop, "
            f"leave them out with `h2crop retract {store} --block {plan.season}:{missing[0]} --reason ...`, or "
            "build a new store"
        )


def batches_by_ground(plan: SeasonPlan, blocks: Collection[int], size: int) -> list[list[SeasonBlock]]:
    """Some blocks of a plan in order of their ground, at most so many in a batch, those of a square together."""
    squares = list(zip(plan.blocks["epsg"], plan.blocks["square"], strict=True))
    square_of = dict(zip(plan.blocks["block"], squares, strict=True))
    found: list[list[SeasonBlock]] = []
    batch: list[SeasonBlock] = []
    for _, of_square in groupby(by_ground(plan, blocks), key=lambda block: square_of[block]):
        here = [(plan.season, block) for block in of_square]
        if batch and len(batch) + len(here) > size:
            found.append(batch)
            batch = []
        batch += here
        while len(batch) > size:
            found.append(batch[:size])
            batch = batch[size:]
    return [*found, batch] if batch else found


def by_ground(plan: SeasonPlan, blocks: Collection[int]) -> list[int]:
    """Some blocks of a plan in order of their ground: all scenes over a split square together, so that parts of cells
    need not wait long for the last block that holds them."""
    chosen = plan.blocks[plan.blocks["block"].isin(blocks)]
    squares = [tuple(map(int, square.split("_"))) for square in chosen["square"]]
    keys = zip(chosen["epsg"].tolist(), squares, chosen["block"].tolist(), strict=True)
    return [block for *_, block in sorted(keys)]


def pending_blocks(
    builder: StoreBuilder, plans: Sequence[SeasonPlan], notes: RunNotes
) -> list[tuple[SeasonPlan, list[int]]]:
    """The blocks of each plan without a marker, or whose files are not all there.

    Not those that are retracted, or replaced by a part that is finished; what others replace is still released. notes:
    told of the others.
    Raises PlanError for a finished block whose inputs are not those of the plan, or one that cannot be built any more.
    """
    pending = []
    retracted = Retractions.read(builder.storage)
    retractions = with_replaced(retracted, finished_plans(builder.storage, plans, retracted))
    for season, of_season in groupby(plans, key=lambda plan: plan.season):
        sizes = builder.sizes(season)
        gone = retractions.blocks.get(season, {})
        for plan in of_season:
            rows = [row for row in plan.blocks.to_dict("records") if row["block"] not in gone]
            sources = [source.name for source, _ in used_sources(plan.recipe)]
            samples = {int(row["block"]): int(row["samples"]) for row in rows}
            markers = builder.read_markers(season, list(samples), plan.layout, samples)
            missing = []
            for row, marker in zip(rows, markers, strict=True):
                if not is_finished(builder.location, plan, row, marker, sizes):
                    missing.append(row["block"])
                elif marker is not None:
                    notes.note_earlier(season, marker, gaps_in(sources, marker["provenance"]))
            if missing:
                check_versions(plan, builder.location, missing)
            pending.append((plan, missing))
    return pending


def is_finished(
    store: str, plan: SeasonPlan, row: Mapping[Any, Any], marker: Marker | None, sizes: dict[str, int]
) -> bool:
    """Whether a block has its marker and all its files. Raises PlanError where it was built from other inputs."""
    if marker is None or any(sizes.get(file["path"]) != file["bytes"] for file in marker["files"]):
        return False
    changed = changed_groups(marker, {group: row[f"hash_{group}"] for group in plan.algorithm})
    if changed:
        raise PlanError(
            f"block {row['block']} of {plan.season} in {store} was built from other inputs ({', '.join(changed)}); "
            "build into a new store"
        )
    return True
