"""Building a store: plan what is not planned, build what is not built, seal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from h2crop_data.cube.retraction import Retractions, complete_retractions
from h2crop_data.cube.writer import StoreBuilder, check_same_layout, hold_store
from h2crop_data.errors import PlanError, UsageError
from h2crop_data.pipeline.block_run import BuiltBlocks, OnBlock, build_blocks, ignore_outcome
from h2crop_data.pipeline.engine import Workers
from h2crop_data.pipeline.extension import explain_changes, extend_season, kept_plans, known_of
from h2crop_data.pipeline.plan import SeasonPlan, keep_plan, load_plans
from h2crop_data.pipeline.planning import plan_of
from h2crop_data.pipeline.schedule import SCRATCH_BYTES
from h2crop_data.pipeline.sealing import SealedRelease, seal_store
from h2crop_data.pipeline.survey import survey_season
from h2crop_data.pipeline.units import work_folder
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.sources.registry import algorithms
from h2crop_data.storage.storage import BUILD_FOLDER

#: What an import of published files keeps of itself.
IMPORT_RECORD = f"{BUILD_FOLDER}/import.json"


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
    empty_months: dict[int, list[int]]
    changes: list[str]
    sources: dict[int, dict[str, Any]]

    @classmethod
    def of(cls, store: str, planned: RecordedPlans, blocks: BuiltBlocks, sealed: SealedRelease) -> BuildReport:
        """The report of what each step gave."""
        seasons = {season: sealed.seasons[season] for season in planned.seasons if season in sealed.seasons}
        faults = {
            kind: [scene for season in seasons.values() for scene in season.faults.get(kind, [])]
            for kind in ("gaps", "impossible")
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


def build_store(
    source: Recipe | SeasonPlan | Path | str,
    store: str | Path,
    *,
    extend: bool = False,
    workers: Workers | int | None = None,
    scratch: Path | None = None,
    scratch_bytes: int = SCRATCH_BYTES,
    progress: Progress = silent,
    on_block: OnBlock = ignore_outcome,
) -> BuildReport:
    """Build the seasons of a recipe or of a plan into a store, resuming what is there, and seal it.

    source: a recipe, a plan, the folder of plans, a recipe file or the name of a shipped recipe. store: folder or
    `s3://` URL. extend: search again for seasons the store has, and add what is new. workers: who builds; a number
    means so many threads, None one a core. scratch: a folder for composites that wait for the rest of their block, by
    default in the store's work folder; scratch_bytes: how much it may hold, about. progress: called with (done, total,
    text) while a season is planned, and with the blocks that are done and what was read of scenes.
    Raises UsageError for another kind of source, PlanError where the store was begun from other inputs, BuildError
    when blocks failed, StoreError when the store cannot be written or another builder has locked it. Whatever is
    finished is kept in every case.
    """
    workers = Workers.of(workers)
    with hold_store(store) as builder:
        planned = recorded_plans(builder, source, extend=extend, progress=progress)
        blocks = build_blocks(
            builder,
            planned.plans,
            workers,
            on_block,
            progress=progress,
            scratch=scratch,
            scratch_bytes=scratch_bytes,
        )
        # Plans hold a country's parcels: they are let go before sealing reads its own.
        planned = replace(planned, plans=[])
        return BuildReport.of(str(store), planned, blocks, seal_store(builder, workers, progress))


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
