"""Keeping a store up to date: what is new since the last run, in scenes, seasons and parcels, and only that."""

from __future__ import annotations

from datetime import date

from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.errors import PlanError
from h2crop_data.pipeline.changes import Changed
from h2crop_data.pipeline.extension import kept_plans
from h2crop_data.pipeline.recording import (
    RecordedPlans,
    changes_of,
    check_growable,
    older_algorithms,
    plan_season,
    record_plan,
)
from h2crop_data.pipeline.seasons import is_complete, today_utc, why_not_yet
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.registry import used_sources


def refresh_plans(
    builder: StoreBuilder,
    recipe: Recipe,
    *,
    changed: Changed = "report",
    today: date | None = None,
    progress: Progress = silent,
) -> RecordedPlans:
    """The plans of all seasons of a recipe, with what is new since the last run; kept in the store.

    Seasons that the store has are searched again. Those it lacks are planned once they can be built and the files of
    their year are there; until then they wait, with the reason. Samples of blocks that were retracted stay out.
    changed: whether finished blocks whose inputs are others today are listed, or planned anew. today: a date in UTC.
    Raises PlanError as planning does, StoreError where the record of what was retracted is lost.
    """
    check_growable(builder)
    day = today or today_utc()
    seasons = sorted(recipe.seasons)
    plans = kept_plans(builder.storage, seasons)
    changes = [line for plan in plans if plan.season in seasons for line in older_algorithms(plan)]
    waiting: list[str] = []
    new_samples: dict[int, int] = {}
    rebuilt: dict[int, list[int]] = {}
    for season in seasons:
        begun = any(plan.season == season for plan in plans)
        reason = why_not_yet(recipe, season, day) or ("" if begun else "; ".join(missing_files(recipe, season)))
        if reason:
            waiting.append(f"season {season}: {reason}")
            continue
        try:
            found = plan_season(
                builder, recipe, season, plans, changed=changed, today=day, bring_back=False, progress=progress
            )
        except PlanError as error:
            if begun or is_complete(season, day):
                raise
            # Early in a year there is nothing to build yet.
            waiting.append(f"season {season}: {error}")
            continue
        changes += changes_of(recipe, found, builder.location, changed)
        if found.plan is not None:
            plans.append(record_plan(builder, plans, found.plan))
            new_samples[season], rebuilt[season] = found.new_samples, sorted(found.plan.replaces)
    wanted = sorted(
        (plan for plan in plans if plan.season in seasons), key=lambda plan: (plan.season, plan.first_block)
    )
    return RecordedPlans(
        wanted,
        seasons,
        changes,
        waiting,
        {season: samples for season, samples in new_samples.items() if samples},
        {season: blocks for season, blocks in rebuilt.items() if blocks},
    )


def missing_files(recipe: Recipe, season: int) -> list[str]:
    """The files of a season's year that are not there yet, in words."""
    return [
        line
        for source, settings in used_sources(recipe)
        for line in source.missing_files(settings, season, recipe.locate)
    ]
