"""Growing a store: what it holds already, what a recipe would add, and what has changed since."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from h2crop_data.constants import NONE
from h2crop_data.cube.retraction import Retractions, complete_retractions
from h2crop_data.errors import PlanError
from h2crop_data.pipeline.plan import PLAN_FOLDER, SeasonPlan, kept_parts, load_plan, season_of_part
from h2crop_data.pipeline.planning import NothingNewError, block_places, plan_of, with_hashes, with_source_columns
from h2crop_data.pipeline.survey import Known, Survey, survey_season
from h2crop_data.pipeline.units import WorkFolder, temporary_work
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.registry import sources_of, used_sources
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.storage import Storage


@dataclass(frozen=True)
class ChangedBlock:
    """A block whose inputs are not those any more that it was built from."""

    season: int
    block: int
    #: Array groups that would come out differently.
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Extension:
    """What a recipe would add to a season of a store."""

    season: int
    #: None where there is nothing to add.
    plan: SeasonPlan | None
    #: Blocks of the store whose inputs have changed; nothing is done about them unless it is asked for.
    changed: list[ChangedBlock]
    #: Blocks of the store on ground the recipe did not look at, so that nothing can be said of them.
    not_compared: int


def kept_plans(files: Storage, declared: Collection[int] | None = None) -> list[SeasonPlan]:
    """Every plan a store keeps, in order of season and block; only those of the seasons `declared` with parcels."""
    return [
        load_plan(files, part, whole=declared is None or season_of_part(part) in declared)
        for part in kept_parts(files, f"{PLAN_FOLDER}/")
    ]


def known_of(kept: Sequence[SeasonPlan], season: int, retractions: Retractions) -> Known:
    """What the plans of a store say that a further plan of a season must agree with."""
    own = [plan for plan in kept if plan.season == season]
    return Known(
        squares={square: split for plan in kept for square, split in plan.squares.items()},
        seen=frozenset(seen for plan in own for seen in sightings(plan, retractions.blocks.get(season, {}))),
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


def sightings(plan: SeasonPlan, retracted: Mapping[int, str]) -> set[tuple[str, str]]:
    """Cell and datatake of every sample of a plan whose block was not retracted."""
    datatakes = {NONE: ""}
    for source in sources_of(plan.recipe):
        datatakes |= source.datatakes(plan.pinned[source.name])
    samples = plan.samples[~plan.samples["block"].isin(list(retracted))]
    return {(cell, datatakes[scene]) for cell, scene in zip(samples["cell"], samples["scene"], strict=True)}


def extend_season(
    recipe: Recipe,
    season: int,
    kept: Sequence[SeasonPlan],
    retractions: Retractions,
    work: WorkFolder,
    progress: Progress = silent,
) -> Extension:
    """What a recipe would add to a season, beside the plans a store keeps. Raises PlanError as planning does."""
    known = known_of(kept, season, retractions)
    survey = survey_season(recipe, season, known, work, progress)
    own = [plan for plan in kept if plan.season == season]
    changed: list[ChangedBlock] = []
    not_compared = 0
    for plan in own:
        comparable = blocks_on(plan, survey, retractions.blocks.get(season, {}))
        not_compared += len(plan.blocks) - len(comparable)
        changed += changed_blocks(plan, comparable, survey)
    try:
        return Extension(season, plan_of(survey, known), changed, not_compared)
    except NothingNewError:
        return Extension(season, None, changed, not_compared)


def plan_extensions(recipe: Recipe, store: str, progress: Progress = silent) -> list[Extension]:
    """What a recipe would add to each of its seasons of a store, which is only looked at.

    Raises PlanError as planning does, StoreError where the record of what was retracted is lost.
    """
    files = open_storage(store)
    kept = kept_plans(files, recipe.seasons)
    if not kept:
        raise PlanError(f"{store} has no plans of its own ({PLAN_FOLDER}/): only a store that was built here can grow")
    retractions = complete_retractions(files)
    with temporary_work() as work:
        return [extend_season(recipe, season, kept, retractions, work, progress) for season in sorted(recipe.seasons)]


def blocks_on(plan: SeasonPlan, survey: Survey, retracted: Mapping[int, str]) -> set[int]:
    """The blocks of a plan all of whose cells the survey looked at."""
    looked_at = {cell.id for cell in survey.squares}
    missed = set(plan.samples["block"][~plan.samples["cell"].isin(looked_at)])
    return set(plan.blocks["block"]) - missed - set(retracted)


def changed_blocks(plan: SeasonPlan, blocks: set[int], survey: Survey) -> list[ChangedBlock]:
    """Those of some blocks of a plan that would be built from other inputs today."""
    # Retracted ones too: what a scene is matched with follows from all blocks of the plan.
    seen = blocks | blocks_on(plan, survey, {})
    samples = plan.samples[plan.samples["block"].isin(seen)]
    rows = plan.blocks[plan.blocks["block"].isin(seen)].reset_index(drop=True)
    if not blocks:
        return []
    # With the sources of the survey; of those the plan has more, what it pinned.
    pinned = {**plan.pinned, **survey.pinned}
    today = with_source_columns(used_sources(survey.recipe), pinned, rows, block_places(samples))
    again = with_hashes(
        replace(
            plan,
            recipe=survey.recipe,
            samples=samples,
            blocks=today,
            scenes=survey.scenes,
            pinned=pinned,
            taxonomy_hash=survey.taxonomy.hash,
        )
    )
    groups = [source.group for source in sources_of(survey.recipe)]
    changed = []
    for old, new in zip(rows.to_dict("records"), again.to_dict("records"), strict=True):
        differing = tuple(group for group in groups if old.get(f"hash_{group}") != new[f"hash_{group}"])
        if differing and old["block"] in blocks:
            changed.append(ChangedBlock(plan.season, int(old["block"]), differing))
    return changed


def explain_changes(recipe: Recipe, changed: Sequence[ChangedBlock], store: str) -> list[str]:
    """What changed, by array group, and what can be asked for."""
    lines = []
    for source in sources_of(recipe):
        blocks = [block.block for block in changed if source.group in block.groups]
        if blocks:
            shown = ", ".join(map(str, blocks[:5])) + (", …" if len(blocks) > 5 else "")
            lines.append(
                f"{source.group}: other inputs today for {len(blocks)} block(s) ({shown}); kept as they are; "
                f"{source.remedy.format(store=store)}"
            )
    return lines
