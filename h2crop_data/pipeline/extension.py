"""Extending a store: what it contains already, and what a recipe would add or rebuild."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from h2crop_data.cube.retraction import Retractions, complete_retractions
from h2crop_data.errors import PlanError
from h2crop_data.pipeline.changes import Changed, ChangedBlock, built_together, find_changes
from h2crop_data.pipeline.finished import refuse_lost_plans, unfinished_blocks
from h2crop_data.pipeline.plan import (
    PLAN_FOLDER,
    SeasonPlan,
    kept_parts,
    load_plan,
    rebuilt_reason,
    season_of_part,
    with_replaced,
)
from h2crop_data.pipeline.planning import NothingNewError, plan_of, planned_sightings
from h2crop_data.pipeline.seasons import check_season, planning_date, today_utc
from h2crop_data.pipeline.survey import Known, survey_season
from h2crop_data.pipeline.units import WorkFolder, temporary_work
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.registry import used_sources
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.storage import Storage


@dataclass(frozen=True)
class Extension:
    """What a recipe would add to a season of a store, and rebuild."""

    season: int
    #: None where there is nothing to add.
    plan: SeasonPlan | None
    #: Blocks of the store that would come out differently today; what the plan replaces is built anew.
    changed: list[ChangedBlock]
    #: Blocks of the store that were retracted, or lie on ground the recipe did not look at: nothing is said of them.
    not_compared: int
    #: Samples of the plan that the store does not have.
    new_samples: int = 0


def kept_plans(files: Storage, declared: Collection[int] | None = None) -> list[SeasonPlan]:
    """Every plan a store keeps, in order of season and block; only those of the seasons `declared` with parcels."""
    return [
        load_plan(files, part, whole=declared is None or season_of_part(part) in declared)
        for part in kept_parts(files, f"{PLAN_FOLDER}/")
    ]


def with_moved_files(
    files: Storage, plans: Sequence[SeasonPlan], seasons: Collection[int], recipe: Recipe
) -> list[SeasonPlan]:
    """Plans that a store keeps; those that have blocks to build with files that are gone where catalogs have them now.

    seasons: those to build. recipe: the one at hand, which may have been moved since they were planned, or name its
    catalogs where they were moved to.
    """
    left = blocks_left(files, plans, seasons)
    return [with_files_by(plan, recipe) if (plan.season, plan.first_block) in left else plan for plan in plans]


def blocks_left(files: Storage, plans: Sequence[SeasonPlan], seasons: Collection[int]) -> set[tuple[int, int]]:
    """Season and first block of the plans of some seasons with a block that has no marker and was not retracted."""
    retracted = Retractions.read(files).blocks
    found = set()
    for season in seasons:
        own = [plan for plan in plans if plan.season == season]
        unfinished = unfinished_blocks(files, own) - retracted.get(season, {}).keys()
        found |= {(season, plan.first_block) for plan in own if unfinished.intersection(plan.blocks["block"])}
    return found


def with_files_by(plan: SeasonPlan, recipe: Recipe) -> SeasonPlan:
    """A plan with files that are gone where the catalogs of a recipe have them now."""
    moved = {
        source.name: source.with_moved_files(settings, plan.pinned[source.name], recipe.locate_catalog)
        for source, settings in used_sources(recipe)
        if plan.recipe.settings_of(source.name) is not None
    }
    return replace(plan, pinned={**plan.pinned, **moved})


def known_of(kept: Sequence[SeasonPlan], season: int, retractions: Retractions) -> Known:
    """What the plans of a store say that a further plan of a season must agree with, but for its samples."""
    own = [plan for plan in kept if plan.season == season]
    return Known(
        squares={square: split for plan in kept for square, split in plan.squares.items()},
        first_block=sum(len(plan.blocks) for plan in own),
        pinned=pinned_by_source(own),
        retracted=dict(retractions.scenes),
    )


def pinned_by_source(plans: Sequence[SeasonPlan]) -> dict[str, list[Any]]:
    """What each source pinned in some plans."""
    by_source: dict[str, list[Any]] = defaultdict(list)
    for plan in plans:
        for name, pinned in plan.pinned.items():
            by_source[name].append(pinned)
    return by_source


def seen_samples(
    own: Sequence[SeasonPlan],
    gone: Collection[int],
    replaced: Collection[int],
    never_built: Collection[int],
    *,
    bring_back: bool,
) -> frozenset[tuple[str, str]]:
    """Cell and datatake of the samples that must not be planned again.

    own: the plans of a season. gone: blocks that were retracted or replaced; bring_back: whether their samples may be
    planned again. replaced: blocks to rebuild. never_built: blocks that no release will have: their samples may be
    planned again in every case, and come without what could not be had then.
    """
    live: set[tuple[str, str]] = set()
    retracted: set[tuple[str, str]] = set()
    again: set[tuple[str, str]] = set()
    for plan in own:
        for block, seen in zip(plan.samples["block"].tolist(), planned_sightings(plan), strict=True):
            if block not in never_built:
                (again if block in replaced else retracted if block in gone else live).add(seen)
    return frozenset(live if bring_back else live | (retracted - again))


def extend_season(
    recipe: Recipe,
    season: int,
    kept: Sequence[SeasonPlan],
    retractions: Retractions,
    files: Storage,
    work: WorkFolder,
    *,
    changed: Changed = "report",
    today: date,
    bring_back: bool = True,
    progress: Progress = silent,
) -> Extension:
    """What a recipe would add to a season, beside the plans a store keeps. Raises PlanError as planning does.

    retractions: as the store records them. changed: whether blocks whose inputs have changed are planned again.
    bring_back: whether samples of blocks that were retracted are planned again.
    """
    own = [plan for plan in kept if plan.season == season]
    gone = with_replaced(retractions, own).blocks.get(season, {})
    known = known_of(kept, season, retractions)
    survey = survey_season(recipe, season, known, work, progress)
    # What is not finished is built as it was planned.
    aside = gone.keys() | unfinished_blocks(files, own)
    found = find_changes(own, survey, aside, files, probe=changed == "rebuild", progress=progress)
    replaced: dict[int, str] = {}
    if changed == "rebuild" and any(not one.kept for one in found.changed):
        replaced = found.rebuilt(built_together(own, survey, aside))
    not_compared = found.not_compared + len(retractions.blocks.get(season, {}))
    never_built = retractions.never_built(season)
    seen = seen_samples(own, gone.keys(), replaced.keys(), never_built, bring_back=bring_back)
    known = replace(known, seen=seen)
    try:
        plan = plan_of(survey, known, planned=planning_date(season, today))
    except NothingNewError:
        return Extension(season, None, found.changed, not_compared)
    before = sum(int(part.samples["block"].isin(list(replaced)).sum()) for part in own)
    plan = replace(plan, replaces=reasons_in_index(plan, own, replaced))
    return Extension(season, plan, found.changed, not_compared, len(plan.samples) - before)


def reasons_in_index(plan: SeasonPlan, own: Sequence[SeasonPlan], replaced: dict[int, str]) -> dict[int, str]:
    """The blocks that a plan replaces, with the reason that the index gives: where their samples are, and why."""
    new = dict(zip(planned_sightings(plan), plan.samples["block"].tolist(), strict=True))
    numbers: dict[int, set[int]] = defaultdict(set)
    for part in own:
        for block, seen in zip(part.samples["block"].tolist(), planned_sightings(part), strict=True):
            if block in replaced:
                numbers[block].add(new[seen])
    return {block: rebuilt_reason(found, replaced[block]) for block, found in sorted(numbers.items())}


def plan_extensions(
    recipe: Recipe,
    store: str,
    progress: Progress = silent,
    *,
    changed: Changed = "report",
    today: date | None = None,
) -> list[Extension]:
    """What a recipe would add to each of its seasons of a store, which is only looked at.

    changed, today: as for `build_store`. Raises PlanError as planning does, StoreError where a plan of a
    release, or the record of what was retracted, is lost.
    """
    files, day = open_storage(store), today or today_utc()
    kept = kept_plans(files, recipe.seasons)
    if not kept:
        raise PlanError(f"{store} has no plans ({PLAN_FOLDER}/): only a store that was built here can be extended")
    refuse_lost_plans(files, {plan.season for plan in kept})
    retractions = complete_retractions(files)
    found = []
    with temporary_work() as work:
        for season in sorted(recipe.seasons):
            check_season(recipe, season, day)
            found.append(
                extend_season(
                    recipe, season, kept, retractions, files, work, changed=changed, today=day, progress=progress
                )
            )
    return found
