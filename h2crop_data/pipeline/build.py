"""Building a store: plan what is not planned, build what is not built, seal."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from h2crop_data.cube.retraction import Retractions, complete_retractions
from h2crop_data.cube.writer import StoreBuilder, check_same_layout, hold_store
from h2crop_data.errors import PlanError
from h2crop_data.parcels.taxonomy import Taxonomy
from h2crop_data.pipeline.block import BlockTask, block_tasks
from h2crop_data.pipeline.engine import BlockOutcome, BuildError, Workers, changed_groups, run_blocks
from h2crop_data.pipeline.extension import explain_changes, extend_season, kept_plans, known_of
from h2crop_data.pipeline.plan import SeasonPlan, keep_plan, load_plans
from h2crop_data.pipeline.planning import plan_of, with_unit_results
from h2crop_data.pipeline.release import BuildReport, seal_store
from h2crop_data.pipeline.survey import survey_season
from h2crop_data.pipeline.units import work_folder
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.registry import algorithms
from h2crop_data.storage.storage import BUILD_FOLDER

#: What an import of published files keeps of itself.
IMPORTED = f"{BUILD_FOLDER}/import.json"
OnBlock = Callable[[BlockOutcome, int, int], None]


def ignore_outcome(outcome: BlockOutcome, done: int, total: int) -> None:
    """Nobody watches."""


def build_store(
    source: Recipe | Path,
    store: str | Path,
    *,
    extend: bool = False,
    workers: int | None = None,
    kind: Workers = "threads",
    progress: Progress = silent,
    on_block: OnBlock = ignore_outcome,
) -> BuildReport:
    """Build the seasons of a recipe or of a plan folder into a store, resuming what is there, and seal it.

    store: folder or `s3://` URL. extend: search again for seasons the store has, and add what is new.
    Raises PlanError where the store was begun from other inputs, BuildError when blocks failed, StoreError when the
    store cannot be written or another builder holds it. Whatever is finished is kept in every case.
    """
    workers = workers or os.cpu_count() or 1
    with hold_store(store) as builder:
        report = BuildReport(str(store))
        # Plans hold a country's parcels: they are let go before sealing reads its own.
        build_blocks(
            builder,
            pinned_plans(builder, source, report, extend=extend, progress=progress),
            report,
            workers,
            kind,
            on_block,
        )
        seal_store(builder, report)
    return report


def pinned_plans(
    builder: StoreBuilder,
    source: Recipe | Path,
    report: BuildReport,
    *,
    extend: bool = False,
    progress: Progress = silent,
) -> list[SeasonPlan]:
    """The plans to build, kept in the store; a season planned before is planned again only to extend it.

    Raises PlanError where the store was begun from other inputs, StoreError where the record of what was retracted is
    lost: planning and building would take it again.
    """
    complete_retractions(builder.storage)
    if builder.storage.exists(IMPORTED):
        raise PlanError(f"{builder.location} was imported from published files; build into a store of its own")
    given = load_plans(source) if isinstance(source, Path) else []
    wanted = set(source.seasons) if isinstance(source, Recipe) else {plan.season for plan in given}
    plans = kept_plans(builder.storage, wanted)
    report.seasons = sorted(wanted)
    report.changes += [line for plan in plans if plan.season in wanted for line in older_algorithms(plan)]
    if isinstance(source, Recipe):
        for season in report.seasons:
            # Each is kept before the next is planned, which must agree with it.
            for plan in missing_plans(builder, source, season, plans, report, extend, progress):
                plans.append(pin(builder, plans, plan))
    for plan in given:
        pinned = pin(builder, plans, plan)
        plans = [*(other for other in plans if other.part != pinned.part), pinned]
    return sorted((plan for plan in plans if plan.season in wanted), key=lambda plan: (plan.season, plan.first_block))


def missing_plans(
    builder: StoreBuilder,
    recipe: Recipe,
    season: int,
    kept: Sequence[SeasonPlan],
    report: BuildReport,
    extend: bool,
    progress: Progress,
) -> list[SeasonPlan]:
    """The plan of a season the store has none of, or of what a recipe adds to it; notes what has changed beside it.

    Raises PlanError where the season was begun with another recipe.
    """
    own = [plan for plan in kept if plan.season == season]
    retractions = Retractions.read(builder.storage)
    if not own:
        known = known_of(kept, season, retractions)
        return [plan_of(survey_season(recipe, season, known, work_folder(builder.location), progress), known)]
    if not extend:
        check_same_recipe(builder.location, own, recipe)
        return []
    found = extend_season(recipe, season, kept, retractions, work_folder(builder.location), progress)
    report.changes += [f"season {season}: {line}" for line in explain_changes(recipe, found.changed, builder.location)]
    return [found.plan] if found.plan else []


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


def pin(builder: StoreBuilder, kept: Sequence[SeasonPlan], plan: SeasonPlan) -> SeasonPlan:
    """Keep a plan in the store; gives it as read back. Raises PlanError where it does not fit what is there."""
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
    return keep_plan(plan, builder.storage)


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
    report: BuildReport,
    workers: int,
    kind: Workers,
    on_block: OnBlock,
) -> None:
    """Build the blocks that have no marker yet. Raises BuildError naming those that failed."""
    pending = pending_blocks(builder, plans)
    total = sum(len(plan.blocks) for plan in plans)
    missing = sum(len(blocks) for _, blocks in pending)
    report.already_done = done = total - missing
    seconds: dict[str, float] = defaultdict(float)
    failed: list[BlockOutcome] = []

    def tasks() -> Iterator[BlockTask]:
        for plan, blocks in pending:
            yield from block_tasks(with_unit_results(plan, blocks, work_folder(builder.location)), blocks)

    for outcome in run_blocks(builder.storage, tasks(), workers, kind):
        for step, spent in outcome.seconds.items():
            seconds[step] += spent
        if outcome.error is not None:
            failed.append(outcome)
        else:
            report.built += 1
        done += 1
        on_block(outcome, done, total)
    report.seconds = dict(seconds)
    if failed:
        shown = "\n  ".join(f"season {one.season} block {one.block}: {one.error}" for one in failed[:5])
        raise BuildError(
            f"{len(failed)} of {missing} blocks failed:\n  {shown}\n"
            "The finished blocks are kept; mend the cause and run the same command again."
        )


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
    store: str, plan: SeasonPlan, row: Mapping[Any, Any], marker: dict[str, Any] | None, sizes: dict[str, int]
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
