"""Keeping a store up to date: what is new since the last run, in scenes, seasons and parcels, and only that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from h2crop_data.cube.release_numbers import current_attributes
from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.errors import PlanError
from h2crop_data.pipeline.block_run import OnBlock, build_blocks, ignore_outcome
from h2crop_data.pipeline.changes import Changed
from h2crop_data.pipeline.engine import Workers
from h2crop_data.pipeline.extension import kept_plans
from h2crop_data.pipeline.recording import (
    RecordedPlans,
    changes_of,
    check_growable,
    older_algorithms,
    plan_season,
    record_plan,
)
from h2crop_data.pipeline.sealing import seal_store
from h2crop_data.pipeline.seasons import is_complete, today_utc, why_not_yet
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.registry import used_sources


@dataclass(frozen=True)
class RefreshReport:
    """What a refresh did.

    store: as it was given. release: the number of the release that was made, or of the newest where nothing changed; 0
    before the first. nothing_new: whether the store is as it was.
    new_samples: by season, samples that the store did not have. rebuilt: by season, blocks whose samples were built
    anew. waiting: seasons that cannot be built yet, with the reason. changes: inputs of finished blocks that are others
    now, and what became of it or can be done. built: blocks built by this run. gaps: scenes that could not be read and
    were left out, as the recipe allows.
    """

    store: str
    release: int
    nothing_new: bool
    new_samples: dict[int, int]
    rebuilt: dict[int, list[int]]
    waiting: list[str]
    changes: list[str]
    built: int
    gaps: list[str]


def refresh_store(
    recipe: Recipe,
    store: str | Path,
    *,
    changed: Changed = "report",
    workers: Workers | int | None = None,
    progress: Progress = silent,
    on_block: OnBlock = ignore_outcome,
    today: date | None = None,
) -> RefreshReport:
    """Search what is new since the last run, build only that, and make a release; nothing where nothing is new.

    Finishes what an interrupted run left. changed, today: as for `refresh_plans`; the others as for `build_store`.
    Raises as `build_store` does. Whatever is finished is kept in every case.
    """
    workers = Workers.of(workers)
    with hold_store(store) as builder:
        before = newest_release(builder)
        planned = refresh_plans(builder, recipe, changed=changed, today=today, progress=progress)
        built, gaps, release = 0, list[str](), before
        if planned.plans:
            built = build_blocks(builder, planned.plans, workers, on_block, progress=progress).built
            # Plans hold a country's parcels: they are let go before sealing reads its own.
            planned = replace(planned, plans=[])
            sealed = seal_store(builder, workers, progress)
            release = sealed.number
            gaps = sorted({scene for season in sealed.seasons.values() for scene in season.faults.get("gaps", [])})
        return RefreshReport(
            store=str(store),
            release=release,
            nothing_new=planned.nothing_new and not built and release == before,
            new_samples=planned.new_samples,
            rebuilt=planned.rebuilt,
            waiting=planned.waiting,
            changes=planned.changes,
            built=built,
            gaps=gaps,
        )


def newest_release(builder: StoreBuilder) -> int:
    """The number of a store's newest release; 0 before the first."""
    attributes = current_attributes(builder.storage)
    return 0 if attributes is None else int(attributes["release"])


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
    changes = older_algorithms(builder, plans, seasons) if changed == "report" else []
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
