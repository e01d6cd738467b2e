"""Keeping a store up to date: adding scenes, seasons and parcels that are new since the last run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.errors import (
    AccountError,
    CatalogError,
    ClusterError,
    H2cropError,
    NothingToPlanError,
    PlanError,
    RecipeError,
    StoreError,
)
from h2crop_data.pipeline.block_run import OnBlock, build_blocks, ignore_outcome
from h2crop_data.pipeline.changes import Changed
from h2crop_data.pipeline.engine import BuildError, Workers
from h2crop_data.pipeline.extension import kept_plans, with_moved_files
from h2crop_data.pipeline.finished import refuse_lost_plans
from h2crop_data.pipeline.recording import (
    RecordedPlans,
    changes_of,
    check_growable,
    older_algorithms,
    plan_season,
    record_plan,
)
from h2crop_data.pipeline.run_notes import kept_notes
from h2crop_data.pipeline.sealing import NothingFinishedError, seal_store
from h2crop_data.pipeline.seasons import is_complete, today_utc, why_not_yet
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.redaction import without_secrets
from h2crop_data.sources.registry import used_sources
from h2crop_data.storage.storage import Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RefreshReport:
    """The report of a refresh.

    store: as it was given. release: the number of the release that was made, or of the newest where nothing changed; 0
    before the first. nothing_new: whether the store is unchanged. new_samples: by season, samples that the store did
    not have. rebuilt: by season, blocks whose samples were rebuilt. waiting: seasons that cannot be built yet, with the
    reason. changes: inputs of finished blocks that have changed, and what was done or can be done. built: blocks built
    by this run. gaps: scenes that could not be read and were left out, as the recipe allows. impossible, differences:
    as in the report of a build. failed_seasons: seasons that could not be planned, with the error. steps, phases,
    slowest: where the time of this run went, as `TimeSpent` has it.
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
    impossible: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    failed_seasons: dict[int, str] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    slowest: list[dict[str, Any]] = field(default_factory=list)


class FailedSeasonsError(PlanError):
    """Seasons that could not be planned; all others were built and released."""

    def __init__(self, report: RefreshReport) -> None:
        super().__init__(seasons_in_words(report.failed_seasons))
        #: What was done.
        self.report = report


#: Errors in planning a season that other seasons have as well, or that end the run.
OF_ALL_SEASONS = (AccountError, CatalogError, ClusterError, RecipeError, StoreError)


def seasons_in_words(failed: Mapping[int, str]) -> str:
    """The seasons that could not be planned, each with the error."""
    lines = [f"season {season} could not be planned: {error}" for season, error in failed.items()]
    return "\n".join([*lines, "The other seasons are up to date; fix the cause and rerun the same command."])


def refresh_store(
    recipe: Recipe,
    store: str | Path | Storage,
    *,
    changed: Changed = "report",
    workers: Workers | int | None = None,
    progress: Progress = silent,
    on_block: OnBlock = ignore_outcome,
    today: date | None = None,
) -> RefreshReport:
    """Search for what is new since the last run, build only that, and make a release; do nothing if nothing is new.

    Finishes what an interrupted run left. changed, today: as for `refresh_plans`; the others as for `build_store`. A
    season that cannot be planned does not stop the others: FailedSeasonsError is raised at the end. Other errors: as
    `build_store`. Finished work is always kept.
    """
    workers = Workers.of(workers)
    with hold_store(store) as builder, kept_notes(builder, "refresh", workers, progress) as notes:
        progress = notes.progress
        before = builder.found_release
        with notes.phase("planning"):
            planned = refresh_plans(builder, recipe, changed=changed, today=today, progress=progress)
        built, release, faults = 0, before, dict[str, list[str]]()
        if planned.plans:
            try:
                built = build_blocks(builder, planned.plans, workers, on_block, progress=progress, notes=notes).built
            except BuildError as error:
                if planned.failed_seasons:
                    error.args = (f"{error}\n{seasons_in_words(planned.failed_seasons)}",)
                raise
            # Plans hold a country's parcels: they are let go before sealing reads its own.
            planned = replace(planned, plans=[])
            try:
                with notes.phase("sealing"):
                    sealed = seal_store(builder, workers, progress)
                release = sealed.number
                faults = sealed.faults()
            except NothingFinishedError:
                # Of everything that was planned so far nothing will be built.
                pass
        spent = notes.time_spent()
        report = RefreshReport(
            store=store.location if isinstance(store, Storage) else str(store),
            release=release,
            nothing_new=planned.nothing_new and not built and release == before,
            new_samples=planned.new_samples,
            rebuilt=planned.rebuilt,
            waiting=planned.waiting,
            changes=planned.changes,
            built=built,
            gaps=faults.get("gaps", []),
            impossible=faults.get("impossible", []),
            differences=faults.get("differences", []),
            failed_seasons=planned.failed_seasons,
            steps=spent.steps,
            phases=spent.phases,
            slowest=spent.slowest,
        )
        notes.note_release(release or None, report.gaps)
        if report.failed_seasons:
            notes.end("failed", seasons_in_words(report.failed_seasons))
    if report.failed_seasons:
        raise FailedSeasonsError(report)
    return report


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
    their year are there; until then they wait, with the reason. A season that cannot be planned for a reason of its own
    is listed with the error. Samples of blocks that were retracted stay out. changed: whether finished blocks whose
    inputs have changed are listed, or planned again. today: a date in UTC. Raises what stops all seasons: RecipeError,
    CatalogError, AccountError, PlanError for a store that cannot grow, StoreError where the record of what was
    retracted is lost.
    """
    check_growable(builder)
    day = today or today_utc()
    seasons = sorted(recipe.seasons)
    plans = kept_plans(builder.storage, seasons)
    refuse_lost_plans(builder.storage, {plan.season for plan in plans})
    plans = with_moved_files(builder.storage, plans, seasons, recipe)
    changes = older_algorithms(builder, plans, seasons) if changed == "report" else []
    waiting: list[str] = []
    new_samples: dict[int, int] = {}
    rebuilt: dict[int, list[int]] = {}
    failed: dict[int, str] = {}
    for season in seasons:
        begun = any(plan.season == season for plan in plans)
        reason = why_not_yet(recipe, season, day) or ("" if begun else "; ".join(missing_files(recipe, season)))
        if reason:
            waiting.append(f"season {season}: {reason}")
            log.info("season %d is not planned yet: %s", season, reason)
            continue
        try:
            found = plan_season(
                builder, recipe, season, plans, changed=changed, today=day, bring_back=False, progress=progress
            )
            plan = None if found.plan is None else record_plan(builder, plans, found.plan)
        except OF_ALL_SEASONS:
            raise
        except H2cropError as error:
            # Early in a year there is nothing to build yet.
            if isinstance(error, NothingToPlanError) and not begun and not is_complete(season, day):
                waiting.append(f"season {season}: {error}")
            else:
                failed[season] = str(error)
                log.warning("season %d cannot be planned: %s", season, without_secrets(str(error)))
            continue
        changes += changes_of(recipe, found, builder.location, changed)
        if found.plan is not None and plan is not None:
            plans.append(plan)
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
        failed,
    )


def missing_files(recipe: Recipe, season: int) -> list[str]:
    """The files of a season's year that are not there yet, in words."""
    return [
        line
        for source, settings in used_sources(recipe)
        for line in source.missing_files(settings, season, recipe.locate)
    ]
