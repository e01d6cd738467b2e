"""Building a store: plan what is not planned, build what is not built, seal."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from h2crop_data.cube.marker import Marker
from h2crop_data.cube.retraction import Retractions, complete_retractions
from h2crop_data.cube.writer import StoreBuilder, check_same_layout, hold_store
from h2crop_data.errors import PlanError, UsageError
from h2crop_data.grid import Cell
from h2crop_data.parcels.taxonomy import Taxonomy
from h2crop_data.pipeline.block import BlockTask, BlockTasks
from h2crop_data.pipeline.dates import keep_dates
from h2crop_data.pipeline.engine import (
    BlockOutcome,
    BuildError,
    ReadingOutcome,
    WorkerKind,
    changed_groups,
    run_blocks,
)
from h2crop_data.pipeline.extension import explain_changes, extend_season, kept_plans, known_of
from h2crop_data.pipeline.plan import SeasonPlan, keep_plan, load_plans
from h2crop_data.pipeline.planning import plan_of, with_unit_results
from h2crop_data.pipeline.schedule import SCRATCH_BYTES, Schedule, SeasonCell
from h2crop_data.pipeline.sealing import SealedRelease, seal_store
from h2crop_data.pipeline.survey import survey_season
from h2crop_data.pipeline.units import scratch_folder, work_folder
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.sources.readings import ReadCounts, Reading
from h2crop_data.sources.registry import algorithms, used_sources
from h2crop_data.sources.scratch import Scratch
from h2crop_data.storage.storage import BUILD_FOLDER

#: What an import of published files keeps of itself.
IMPORT_RECORD = f"{BUILD_FOLDER}/import.json"
OnBlock = Callable[[BlockOutcome, int, int], None]


def ignore_outcome(outcome: BlockOutcome, done: int, total: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    store: as it was given. release: the number of the release that was made, or of the newest where nothing changed.
    seasons: those that were asked for. samples, bytes: how many samples these have, and bytes of their shards.
    built, already_done: blocks built by this run, and before it.
    tiles_read, bytes_read: internal tiles of scenes that this run decoded for composites, and their bytes as files
    state them.
    seconds: of work by step, summed over the workers.
    gaps: scenes that could not be read and were left out, as the recipe allows.
    impossible: scenes that call clear some pixels whose numbers no ground has; these pixels were left out.
    differences: what items say of their files where these have something else, `scene: what (assets)`; the files were
    used.
    empty_months: by season, months (1..12) that stay empty because a source has no scene in them.
    changes: inputs that are not those any more that finished blocks were built from, and what can be done.
    sources: by season and part of its plan, what was read: counts, unmapped crop codes, warnings.
    """

    store: str
    release: int
    seasons: list[int]
    built: int
    already_done: int
    samples: int
    bytes: int
    tiles_read: int
    bytes_read: int
    seconds: dict[str, float]
    gaps: list[str]
    impossible: list[str]
    differences: list[str]
    empty_months: dict[int, list[int]]
    changes: list[str]
    sources: dict[int, dict[str, Any]]

    @classmethod
    def of(cls, store: str, planned: RecordedPlans, blocks: BuiltBlocks, sealed: SealedRelease) -> BuildReport:
        """The report of what each step gave."""
        seasons = {season: sealed.seasons[season] for season in planned.seasons if season in sealed.seasons}
        faults = {
            kind: [scene for season in seasons.values() for scene in season.faults.get(kind, [])]
            for kind in ("gaps", "impossible", "differences")
        }
        return cls(
            store=store,
            release=sealed.number,
            seasons=planned.seasons,
            built=blocks.built,
            already_done=blocks.already_done,
            samples=sum(season.samples for season in seasons.values()),
            bytes=sum(season.bytes for season in seasons.values()),
            tiles_read=blocks.read.tiles,
            bytes_read=blocks.read.bytes,
            seconds=blocks.seconds,
            gaps=faults["gaps"],
            impossible=faults["impossible"],
            differences=faults["differences"],
            empty_months={number: season.empty_months for number, season in seasons.items() if season.empty_months},
            changes=planned.changes,
            sources={number: season.sources for number, season in seasons.items()},
        )


@dataclass(frozen=True)
class RecordedPlans:
    """The plans to build, kept in the store."""

    #: In order of season and block; empty once they were let go.
    plans: list[SeasonPlan]
    seasons: list[int]
    #: Inputs that are not those any more that finished blocks were built from, and what can be done.
    changes: list[str]


@dataclass(frozen=True)
class BuiltBlocks:
    """How many blocks were built."""

    built: int
    already_done: int
    #: Seconds of work by step, summed over the workers.
    seconds: dict[str, float]
    #: What was read for composites.
    read: ReadCounts = field(default_factory=ReadCounts)


def build_store(
    source: Recipe | SeasonPlan | Path | str,
    store: str | Path,
    *,
    extend: bool = False,
    workers: int | None = None,
    kind: WorkerKind = "threads",
    scratch: Path | None = None,
    scratch_bytes: int = SCRATCH_BYTES,
    progress: Progress = silent,
    on_block: OnBlock = ignore_outcome,
) -> BuildReport:
    """Build the seasons of a recipe or of a plan into a store, resuming what is there, and seal it.

    source: a recipe, a plan, the folder of plans, a recipe file or the name of a shipped recipe. store: folder or
    `s3://` URL. extend: search again for seasons the store has, and add what is new. scratch: a folder on this machine
    for composites that wait for the rest of their block, by default in the store's work folder; scratch_bytes: how much
    it may hold, about. progress: called with (done, total, text) while a season is planned, and with the blocks that
    are done and what was read of scenes.
    Raises UsageError for another kind of source, PlanError where the store was begun from other inputs, BuildError
    when blocks failed, StoreError when the store cannot be written or another builder has locked it. Whatever is
    finished is kept in every case.
    """
    workers = workers or os.cpu_count() or 1
    with hold_store(store) as builder:
        planned = recorded_plans(builder, source, extend=extend, progress=progress)
        blocks = build_blocks(
            builder,
            planned.plans,
            workers,
            kind,
            on_block,
            progress=progress,
            scratch=scratch,
            scratch_bytes=scratch_bytes,
        )
        # Plans hold a country's parcels: they are let go before sealing reads its own.
        planned = replace(planned, plans=[])
        return BuildReport.of(str(store), planned, blocks, seal_store(builder, workers, kind, progress))


def plans_or_recipe(source: Recipe | SeasonPlan | Path | str) -> list[SeasonPlan] | Recipe:
    """The plans that a source gives, or the recipe to plan. Raises UsageError for anything else."""
    if isinstance(source, Recipe):
        return source
    if isinstance(source, SeasonPlan):
        return [source]
    if not isinstance(source, str | Path):
        raise UsageError(f"a recipe, a plan or the path of one is needed to build, not {type(source).__name__}")
    return load_plans(Path(source)) if Path(source).is_dir() else load_recipe(source)


def recorded_plans(
    builder: StoreBuilder,
    source: Recipe | SeasonPlan | Path | str,
    *,
    extend: bool = False,
    progress: Progress = silent,
) -> RecordedPlans:
    """The plans to build, kept in the store; a season planned before is planned again only to extend it.

    Raises PlanError where the store was begun from other inputs, StoreError where the record of what was retracted is
    lost: planning and building would take it again.
    """
    complete_retractions(builder.storage)
    if builder.storage.exists(IMPORT_RECORD):
        raise PlanError(f"{builder.location} was imported from published files; build into a store of its own")
    asked = plans_or_recipe(source)
    given = [] if isinstance(asked, Recipe) else asked
    seasons = sorted(set(asked.seasons) if isinstance(asked, Recipe) else {plan.season for plan in given})
    plans = kept_plans(builder.storage, seasons)
    changes = [line for plan in plans if plan.season in seasons for line in older_algorithms(plan)]
    if isinstance(asked, Recipe):
        for season in seasons:
            # Each is kept before the next is planned, which must agree with it.
            missing = missing_plan(builder, asked, season, plans, extend, progress)
            changes += missing.changes
            plans += [record_plan(builder, plans, plan) for plan in missing.plans]
    for plan in given:
        recorded = record_plan(builder, plans, plan)
        plans = [*(other for other in plans if other.part != recorded.part), recorded]
    wanted = [plan for plan in plans if plan.season in seasons]
    return RecordedPlans(sorted(wanted, key=lambda plan: (plan.season, plan.first_block)), seasons, changes)


def missing_plan(
    builder: StoreBuilder, recipe: Recipe, season: int, kept: Sequence[SeasonPlan], extend: bool, progress: Progress
) -> RecordedPlans:
    """The plan of a season the store has none of, or of what a recipe adds to it; and what has changed beside it.

    Raises PlanError where the season was begun with another recipe.
    """
    own = [plan for plan in kept if plan.season == season]
    retractions = Retractions.read(builder.storage)
    if not own:
        known = known_of(kept, season, retractions)
        survey = survey_season(recipe, season, known, work_folder(builder.location), progress)
        return RecordedPlans([plan_of(survey, known)], [season], [])
    if not extend:
        check_same_recipe(builder.location, own, recipe)
        return RecordedPlans([], [season], [])
    found = extend_season(recipe, season, kept, retractions, work_folder(builder.location), progress)
    lines = explain_changes(recipe, found.changed, builder.location)
    changes = [f"season {season}: {line}" for line in lines]
    return RecordedPlans([found.plan] if found.plan else [], [season], changes)


def check_same_recipe(store: str, parts: Sequence[SeasonPlan], recipe: Recipe) -> None:
    """Refuse to go on with another recipe than the parts of a season were planned with. Raises PlanError."""
    differences = [differing_keys(plan.recipe, recipe) for plan in parts]
    if all(differences):
        raise PlanError(
            f"{store} was begun with another recipe for {parts[0].season} (it differs in "
            f"{', '.join(differences[-1])}). To add what the new recipe has more, ask for it with --extend "
            f"(`h2crop plan RECIPE --extend {store}` shows it first); for other labels, `h2crop relabel`; for anything "
            "else build into a new store, or go back to the first recipe"
        )


def differing_keys(one: Recipe, other: Recipe) -> list[str]:
    """The parts of two recipes that differ and say something about the data of a season."""
    old, new = one.in_force(), other.in_force()
    told = ("name", "description", "seasons")
    return [key for key in {**old, **new} if key not in told and old.get(key) != new.get(key)]


def record_plan(builder: StoreBuilder, kept: Sequence[SeasonPlan], plan: SeasonPlan) -> SeasonPlan:
    """Keep a plan in the store; gives the one to build, which may be there already.

    Raises PlanError where it does not fit what is there.
    """
    parts = [other for other in kept if other.season == plan.season]
    same = next((other for other in parts if other.first_block == plan.first_block), None)
    if same is not None:
        columns = [*(f"hash_{group}" for group in plan.algorithm), "samples"]
        if same.algorithm.keys() != plan.algorithm.keys() or not same.blocks[columns].equals(plan.blocks[columns]):
            raise PlanError(
                f"{builder.location} was begun with another plan for {plan.season}; build into a new store, or make a "
                f"plan of what is new with `h2crop plan RECIPE --extend {builder.location}`"
            )
        return same
    free = sum(len(other.blocks) for other in parts)
    if plan.first_block != free:
        raise PlanError(
            f"the plan numbers the blocks of {plan.season} from {plan.first_block}, {builder.location} has {free}: it "
            f"grew since; make the plan again with `h2crop plan RECIPE --extend {builder.location}`"
        )
    for other in kept:
        check_fits(builder.location, other, plan)
    keep_plan(plan, builder.storage)
    return plan


def check_fits(store: str, other: SeasonPlan, plan: SeasonPlan) -> None:
    """Refuse a plan that does not fit another one of the store: layout, classes, split. Raises PlanError."""
    check_same_layout(store, other.layout, plan.layout)
    known = dict(zip(other.samples["cell"], other.samples["split"], strict=True))
    disputed = [square for square, split in plan.squares.items() if other.squares.get(square, split) != split]
    disputed += [
        cell
        for cell, split in zip(plan.samples["cell"], plan.samples["split"], strict=True)
        if known.get(cell, split) != split
    ]
    if other.recipe.split != plan.recipe.split or disputed:
        raise PlanError(
            f"{store} has another split since {other.season}: the same ground must be in the same split in every "
            "season. Give the recipe the split of the first season, or build into a new store"
        )
    if other.taxonomy_hash != plan.taxonomy_hash:
        raise PlanError(f"{store} has other crop classes since {other.season}; build into a new store")


def older_algorithms(plan: SeasonPlan) -> list[str]:
    """What of a kept plan is computed otherwise by this h2crop."""
    groups = [group for group, version in algorithms(plan.recipe).items() if plan.algorithm.get(group) != version]
    if not groups:
        return []
    return [
        f"season {plan.season}: this h2crop computes {', '.join(groups)} otherwise; its blocks are kept as they are"
    ]


def check_versions(plan: SeasonPlan) -> None:
    """Refuse to build blocks of a plan of another version of the classes or the algorithm. Raises PlanError."""
    if plan.taxonomy_hash != Taxonomy.load().hash:
        raise PlanError(f"{plan.season} was planned with other crop classes than this h2crop has; build a new store")
    if plan.algorithm != algorithms(plan.recipe):
        raise PlanError(f"{plan.season} was planned by an h2crop that computes otherwise; build a new store")


def build_blocks(
    builder: StoreBuilder,
    plans: Sequence[SeasonPlan],
    workers: int,
    kind: WorkerKind = "threads",
    on_block: OnBlock = ignore_outcome,
    *,
    progress: Progress = silent,
    scratch: Path | None = None,
    scratch_bytes: int = SCRATCH_BYTES,
) -> BuiltBlocks:
    """Build the blocks that have no marker yet. Raises BuildError naming those that failed.

    progress, scratch, scratch_bytes: as for `build_store`. What is in the scratch folder of an interrupted build is
    used; all of it is deleted at the end, but for what failed blocks may need.
    """
    for plan in plans:
        for source, _ in used_sources(plan.recipe):
            source.begin_build()
    pending = pending_blocks(builder, plans)
    total = sum(len(plan.blocks) for plan in plans)
    missing = sum(len(blocks) for _, blocks in pending)
    already_done = total - missing
    seconds: dict[str, float] = defaultdict(float)
    failed: list[BlockOutcome] = []

    read = ReadCounts()
    done = already_done
    uses: Counter[SeasonCell] = Counter()
    for plan, blocks in pending:
        of_pending = plan.samples["cell"][plan.samples["block"].isin(blocks)]
        uses.update((plan.season, Cell.parse(name)) for name in of_pending)

    needed: set[str] = set()

    def tasks() -> Iterator[tuple[BlockTask, tuple[Reading, ...]]]:
        for plan, blocks in pending:
            if blocks:
                work = work_folder(builder.location)
                ready, spent = with_unit_results(
                    plan, set(blocks), work, workers=workers, needed=needed, progress=progress
                )
                for step, of_step in spent.items():
                    seconds[step] += of_step
                keep_dates(builder.storage, ready)
                made = BlockTasks(ready)
                yield from ((made.task(number), made.readings(number)) for number in by_ground(plan, blocks))

    parts = Scratch(scratch_folder(builder.location, scratch))
    schedule = Schedule(tasks(), uses, parts, scratch_bytes)
    for outcome in run_blocks(builder.storage, schedule, parts, workers, kind):
        for step, spent in outcome.seconds.items():
            seconds[step] += spent
        if isinstance(outcome, ReadingOutcome):
            read += outcome.counts
            progress(done, total, f"blocks; read {read.bytes / 1e6:,.0f} MB in {read.tiles:,} tiles of scenes")
            continue
        done += 1
        if outcome.error is not None:
            failed.append(outcome)
        on_block(outcome, done, total)
    if failed:
        shown = "\n  ".join(f"season {one.season} block {one.block}: {one.error}" for one in failed[:5])
        raise BuildError(
            f"{len(failed)} of {missing} blocks failed:\n  {shown}\n"
            "The finished blocks are kept; fix the cause and run the same command again."
        )
    parts.delete()
    return BuiltBlocks(missing, already_done, dict(seconds), read)


def by_ground(plan: SeasonPlan, blocks: Collection[int]) -> list[int]:
    """Some blocks of a plan in order of their ground: all scenes over a split square together, so that parts of cells
    need not wait long for the last block that holds them."""
    chosen = plan.blocks[plan.blocks["block"].isin(blocks)]
    squares = [tuple(map(int, square.split("_"))) for square in chosen["square"]]
    keys = zip(chosen["epsg"].tolist(), squares, chosen["block"].tolist(), strict=True)
    return [block for *_, block in sorted(keys)]


def pending_blocks(builder: StoreBuilder, plans: Sequence[SeasonPlan]) -> list[tuple[SeasonPlan, list[int]]]:
    """The blocks of each plan without a marker, or whose files are not all there.

    Raises PlanError for a finished block whose inputs are not those of the plan, or one that cannot be built any more.
    """
    pending = []
    for season, of_season in groupby(plans, key=lambda plan: plan.season):
        sizes = builder.sizes(season)
        gone = Retractions.read(builder.storage).blocks.get(season, {})
        for plan in of_season:
            rows = [row for row in plan.blocks.to_dict("records") if row["block"] not in gone]
            markers = builder.read_markers(season, [row["block"] for row in rows])
            missing = [
                row["block"]
                for row, marker in zip(rows, markers, strict=True)
                if not is_finished(builder.location, plan, row, marker, sizes)
            ]
            if missing:
                check_versions(plan)
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
