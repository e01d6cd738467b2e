"""Recording the plans of a build in its store: new plans, existing plans, and whether they are compatible."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from h2crop_data.cube.retraction import Retractions, complete_retractions
from h2crop_data.cube.writer import StoreBuilder, check_same_layout
from h2crop_data.datasheet.markdown import listing
from h2crop_data.errors import PlanError, UsageError
from h2crop_data.pipeline.block_run import check_versions
from h2crop_data.pipeline.changes import Changed, explain_changes
from h2crop_data.pipeline.extension import Extension, extend_season, kept_plans, known_of, with_moved_files
from h2crop_data.pipeline.finished import refuse_lost_plans, unfinished_blocks
from h2crop_data.pipeline.plan import PLAN_FOLDER, SeasonPlan, keep_plan, load_plans, with_replaced
from h2crop_data.pipeline.planning import plan_of, planned_sightings
from h2crop_data.pipeline.seasons import check_season, planning_date, today_utc
from h2crop_data.pipeline.survey import survey_season
from h2crop_data.pipeline.units import work_folder
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.catalogs import is_moved
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.sources.registry import algorithms
from h2crop_data.storage.storage import BUILD_FOLDER

log = logging.getLogger(__name__)
#: Parts of a recipe that say nothing about the data of a season.
SAYS_NO_DATA = ("name", "description", "seasons", "in_season")
#: Settings that an error names, and characters of a value.
SETTINGS_SHOWN, VALUE_SHOWN = 6, 60
#: What an import of published files keeps of itself.
IMPORT_RECORD = f"{BUILD_FOLDER}/import.json"


@dataclass(frozen=True)
class RecordedPlans:
    """The plans to build, kept in the store."""

    #: In order of season and block; empty once they were let go.
    plans: list[SeasonPlan]
    seasons: list[int]
    #: Inputs that are not those any more that finished blocks were built from, and what can be done.
    changes: list[str]
    #: Seasons of the recipe that are not planned yet, each with the reason.
    waiting: list[str] = field(default_factory=list)
    #: By season, how many samples this run planned that the store did not have.
    new_samples: dict[int, int] = field(default_factory=dict)
    #: By season, the blocks of the store whose samples this run planned anew.
    rebuilt: dict[int, list[int]] = field(default_factory=dict)
    #: Seasons that could not be planned, each with the error; what was kept of them before is built all the same.
    failed_seasons: dict[int, str] = field(default_factory=dict)

    @property
    def nothing_new(self) -> bool:
        """Whether this run planned nothing; blocks of plans that were kept before may still have to be built."""
        return not self.new_samples and not self.rebuilt


def plans_or_recipe(source: Recipe | SeasonPlan | Path | str) -> list[SeasonPlan] | Recipe:
    """The plans that a source gives, or the recipe to plan. Raises UsageError for anything else."""
    if isinstance(source, Recipe):
        return source
    if isinstance(source, SeasonPlan):
        return [source]
    if not isinstance(source, str | Path):
        raise UsageError(f"expected a recipe, a plan or the path of one, got {type(source).__name__}")
    return load_plans(Path(source)) if Path(source).is_dir() else load_recipe(source)


def recorded_plans(
    builder: StoreBuilder,
    source: Recipe | SeasonPlan | Path | str,
    *,
    extend: bool = False,
    changed: Changed = "report",
    today: date | None = None,
    progress: Progress = silent,
) -> RecordedPlans:
    """The plans to build, kept in the store; a season planned before is planned again only to extend it.

    changed, today: as for `build_store`. Raises PlanError where the store was begun from other inputs or a season
    cannot be built yet, StoreError where the record of what was retracted is lost: planning and building would take it
    again.
    """
    check_growable(builder)
    day = today or today_utc()
    asked = plans_or_recipe(source)
    given = [] if isinstance(asked, Recipe) else asked
    if changed == "rebuild" and not extend:
        raise UsageError("changed=rebuild requires extend: without it nothing is searched again")
    seasons = sorted(set(asked.seasons) if isinstance(asked, Recipe) else {plan.season for plan in given})
    plans = kept_plans(builder.storage, seasons)
    refuse_lost_plans(builder.storage, {plan.season for plan in plans})
    if isinstance(asked, Recipe):
        plans = with_moved_files(builder.storage, plans, seasons, asked)
    changes = older_algorithms(builder, plans, seasons) if changed == "report" else []
    new_samples: dict[int, int] = {}
    rebuilt: dict[int, list[int]] = {}
    if isinstance(asked, Recipe):
        for season in seasons:
            # Each is kept before the next is planned, which must agree with it.
            own = [plan for plan in plans if plan.season == season]
            if own and not extend:
                check_same_recipe(builder, own, asked)
                log.info("season %d is planned already: going on with %d plan(s) of the store", season, len(own))
                continue
            check_season(asked, season, day)
            found = plan_season(builder, asked, season, plans, changed=changed, today=day, progress=progress)
            changes += changes_of(asked, found, builder.location, changed)
            if found.plan is not None:
                plans.append(record_plan(builder, plans, found.plan))
                new_samples[season], rebuilt[season] = found.new_samples, sorted(found.plan.replaces)
    for plan in given:
        if all(other.part != plan.part for other in plans) and plan.planned is None:
            check_season(plan.recipe, plan.season, day)
        recorded = record_plan(builder, plans, plan)
        plans = [*(other for other in plans if other.part != recorded.part), recorded]
    wanted = [plan for plan in plans if plan.season in seasons]
    return RecordedPlans(
        sorted(wanted, key=lambda plan: (plan.season, plan.first_block)),
        seasons,
        changes,
        new_samples={season: samples for season, samples in new_samples.items() if samples},
        rebuilt={season: blocks for season, blocks in rebuilt.items() if blocks},
    )


def check_growable(builder: StoreBuilder) -> None:
    """Refuse a store that was imported, or whose record of what was retracted is lost. Raises PlanError, StoreError."""
    complete_retractions(builder.storage)
    if builder.storage.exists(IMPORT_RECORD):
        raise PlanError(f"{builder.location} was imported from published files; build into another store")


def plan_season(
    builder: StoreBuilder,
    recipe: Recipe,
    season: int,
    kept: Sequence[SeasonPlan],
    *,
    changed: Changed,
    today: date,
    bring_back: bool = True,
    progress: Progress = silent,
) -> Extension:
    """The plan of a season the store has none of, or of what a recipe adds to it; and what has changed beside it.

    kept: every plan of the store. bring_back: whether samples of retracted blocks are planned again. Raises PlanError.
    """
    retractions, work = Retractions.read(builder.storage), work_folder(builder.location)
    if any(plan.season == season for plan in kept):
        return extend_season(
            recipe,
            season,
            kept,
            retractions,
            builder.storage,
            work,
            changed=changed,
            today=today,
            bring_back=bring_back,
            progress=progress,
        )
    known = known_of(kept, season, retractions)
    plan = plan_of(survey_season(recipe, season, known, work, progress), known, planned=planning_date(season, today))
    return Extension(season, plan, [], 0, len(plan.samples))


def changes_of(recipe: Recipe, found: Extension, store: str, changed: Changed) -> list[str]:
    """What changed for finished blocks of a season, a line each."""
    return [f"season {found.season}: {line}" for line in explain_changes(recipe, found.changed, store, changed)]


def check_same_recipe(builder: StoreBuilder, parts: Sequence[SeasonPlan], recipe: Recipe) -> None:
    """Refuse to continue with another recipe than the parts of a season were planned with. Raises PlanError.

    Where blocks are left that this h2crop cannot build, that is said first: no recipe helps.
    """
    store, season = builder.location, parts[0].season
    differences = [differing_settings(plan.recipe, recipe) for plan in parts]
    if not all(differences):
        return
    gone = with_replaced(Retractions.read(builder.storage), parts).blocks.get(season, {}).keys()
    for plan in parts:
        if missing := unfinished_blocks(builder.storage, [plan]) - gone:
            check_versions(plan, store, sorted(missing))
    settings, kept_recipe = differences[-1], f"{PLAN_FOLDER}/{parts[-1].part}/plan.json"
    raise PlanError(
        f"{store} was started with another recipe for {season} (it differs in {', '.join(keys_of(settings))}): "
        f"{listing(settings, SETTINGS_SHOWN)}. Settings that the recipe does not contain have the defaults of this "
        f"h2crop; write the former values into it to continue: {builder.storage.where(kept_recipe)} has all of them "
        "under `recipe`. To add what the new recipe has in addition, use --extend (`h2crop plan RECIPE --extend "
        f"{store}` shows it first); for other labels, `h2crop relabel`; for anything else build into a new store, "
        "or use the first recipe"
    )


def differing_settings(one: Recipe, other: Recipe) -> list[str]:
    """The settings of two recipes that differ and say something about the data of a season, each with its values.

    one: of a plan. other: the one at hand, which may name a catalog on this machine where it was moved to.
    """
    old, new = flat_settings(one.complete()), flat_settings(other.complete())
    return [
        f"{name} was {setting_in_words(old.get(name))}, is {setting_in_words(new.get(name))}"
        for name in sorted({**old, **new})
        if name.split(".")[0] not in SAYS_NO_DATA
        and old.get(name) != new.get(name)
        and not (name.endswith(".catalog") and is_moved(old.get(name), new.get(name), other.locate_catalog))
    ]


def flat_settings(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by their path, `sentinel2.clouds.dilation`; a list is one value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat_settings(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found


def setting_in_words(value: Any) -> str:
    """A setting as it is written in a recipe, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_SHOWN else f"{text[: VALUE_SHOWN - 1]}…"


def keys_of(settings: Sequence[str]) -> list[str]:
    """The sections of a recipe that settings are in."""
    return list(dict.fromkeys(re.split(r"[. ]", line)[0] for line in settings))


def record_plan(builder: StoreBuilder, kept: Sequence[SeasonPlan], plan: SeasonPlan) -> SeasonPlan:
    """Keep a plan in the store; gives the one to build, which may be there already.

    It gets the generation of the layout that the store has. Raises PlanError where it does not fit what is there.
    """
    parts = [other for other in kept if other.season == plan.season]
    same = next((other for other in parts if other.first_block == plan.first_block), None)
    if same is not None:
        columns = [*(f"hash_{group}" for group in plan.algorithm), "samples"]
        is_same = same.algorithm.keys() == plan.algorithm.keys() and same.replaces.keys() == plan.replaces.keys()
        if not is_same or not same.blocks[columns].equals(plan.blocks[columns]):
            raise PlanError(
                f"{builder.location} was started with another plan for {plan.season}; build into a new store, or "
                f"plan what is new with `h2crop plan RECIPE --extend {builder.location}`"
            )
        return same
    free = sum(len(other.blocks) for other in parts)
    if plan.first_block != free:
        raise PlanError(
            f"the plan numbers the blocks of {plan.season} from {plan.first_block}, {builder.location} from {free}: "
            f"it has grown since; plan again with `h2crop plan RECIPE --extend {builder.location}`"
        )
    if kept:
        plan = replace(plan, generation=kept[0].generation)
    for other in kept:
        check_fits(builder.location, other, plan)
    check_replaces(builder, parts, plan)
    keep_plan(plan, builder.storage)
    return plan


def check_replaces(builder: StoreBuilder, parts: Sequence[SeasonPlan], plan: SeasonPlan) -> None:
    """Refuse a plan whose blocks replace some that are gone, or that lacks samples of those. Raises PlanError."""
    gone = with_replaced(Retractions.read(builder.storage), parts).blocks.get(plan.season, {})
    here = {block for other in parts for block in other.blocks["block"]} - gone.keys()
    unknown = sorted(plan.replaces.keys() - here)
    replaced = {
        seen
        for other in parts
        for block, seen in zip(other.samples["block"].tolist(), planned_sightings(other), strict=True)
        if block in plan.replaces
    }
    lacking = sorted(replaced - set(planned_sightings(plan)))
    if unknown or lacking:
        what = (
            f"blocks {unknown} that do not exist" if unknown else f"blocks without their sample on cell {lacking[0][0]}"
        )
        raise PlanError(
            f"the plan of {plan.season} replaces {what} in {builder.location}; plan again with `h2crop plan RECIPE "
            f"--extend {builder.location} --changed rebuild`"
        )


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
            f"{store} has another split, that of {other.season}: the same ground must be in the same split in every "
            "season. Set the split of the first season in the recipe, or build into a new store"
        )
    if other.taxonomy_hash != plan.taxonomy_hash:
        raise PlanError(f"{store} has other crop classes, those of {other.season}; build into a new store")


def older_algorithms(builder: StoreBuilder, plans: Sequence[SeasonPlan], seasons: Sequence[int]) -> list[str]:
    """What of the kept plans of some seasons is computed otherwise by this h2crop, where blocks of them are left."""
    gone = with_replaced(Retractions.read(builder.storage), plans).blocks
    lines = []
    for plan in plans:
        current = algorithms(plan.recipe)
        groups = [group for group, version in current.items() if plan.algorithm.get(group) != version]
        is_left = not set(plan.blocks["block"]) <= gone.get(plan.season, {}).keys()
        if plan.season in seasons and groups and is_left:
            named = ", ".join(groups)
            lines.append(
                f"season {plan.season}: this h2crop has other algorithms for {named}; blocks already built are kept "
                "as they are"
            )
    return lines
