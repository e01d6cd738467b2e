"""Building a store: plan what is not planned, build what is not built, seal."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from h2crop_data import __version__
from h2crop_data.build.block import BlockTask, block_task
from h2crop_data.build.engine import BlockOutcome, BuildError, Workers, marker_matches, run_blocks
from h2crop_data.build.estimate import empty_months
from h2crop_data.build.plan import SeasonPlan, kept_seasons, load_season, save_season, scenes_table, season_folders
from h2crop_data.build.planning import ALGORITHM, Progress, make_plan, silent
from h2crop_data.cube.seal import FinishedSeason, current_attributes, seal
from h2crop_data.cube.statistics import add_partial
from h2crop_data.cube.store import BUILD_FOLDER, StoreBuilder, check_same_layout, hold_store
from h2crop_data.errors import PlanError
from h2crop_data.parcels.taxonomy import Taxonomy
from h2crop_data.recipe import Recipe

PLAN_FOLDER = f"{BUILD_FOLDER}/plan"


@dataclass
class BuildReport:
    """What a build did."""

    store: str
    release: int = 0
    seasons: list[int] = field(default_factory=list)
    built: int = 0
    already_done: int = 0
    samples: int = 0
    bytes: int = 0
    #: Seconds of work by step, summed over the workers.
    seconds: dict[str, float] = field(default_factory=dict)
    #: Scenes that could not be read and were left out, as the recipe allows.
    gaps: list[str] = field(default_factory=list)
    #: Months without any Sentinel-2 scene, by season: they stay empty.
    empty_months: dict[int, list[int]] = field(default_factory=dict)


OnBlock = Callable[[BlockOutcome, int, int], None]


def ignore_outcome(outcome: BlockOutcome, done: int, total: int) -> None:
    """Nobody watches."""


def build_store(
    source: Recipe | Path,
    folder: Path,
    *,
    workers: int | None = None,
    kind: Workers = "threads",
    progress: Progress = silent,
    on_block: OnBlock = ignore_outcome,
) -> BuildReport:
    """Build the seasons of a recipe or of a plan folder into a store, resuming what is there, and seal it.

    Raises PlanError where the store was begun from other inputs, BuildError when blocks failed, StoreError when the
    store cannot be written or another builder holds it. Whatever is finished is kept in every case.
    """
    workers = workers or os.cpu_count() or 1
    with hold_store(folder) as builder:
        plans = pinned_plans(builder, source, progress)
        report = BuildReport(str(folder), seasons=[plan.season for plan in plans])
        build_blocks(builder, plans, report, workers, kind, on_block)
        seal_store(builder, report)
    return report


def pinned_plans(builder: StoreBuilder, source: Recipe | Path, progress: Progress) -> list[SeasonPlan]:
    """The plans to build, kept in the store; a season planned before is not planned again.

    Raises PlanError where the store was begun from other inputs.
    """
    if isinstance(source, Path):
        given = [load_season(folder) for folder in season_folders(source)]
        check_versions(given)
        return [pin(builder, plan) for plan in given]
    plans = []
    for season in sorted(source.seasons):
        kept = builder.folder / PLAN_FOLDER / str(season)
        if (kept / "plan.json").exists():
            plan = load_season(kept)
            check_same_recipe(builder.folder, plan, source)
            plans.append(plan)
        else:
            plans.append(pin(builder, make_plan(source, season, progress)))
    check_versions(plans)
    return plans


def check_versions(plans: Sequence[SeasonPlan]) -> None:
    """Refuse to go on with plans of another version of the classes or the algorithm. Raises PlanError."""
    taxonomy = Taxonomy.load()
    for plan in plans:
        if plan.taxonomy_hash != taxonomy.hash:
            raise PlanError(
                f"{plan.season} was planned with other crop classes than this h2crop has; build a new store"
            )
        if plan.algorithm != ALGORITHM:
            raise PlanError(f"{plan.season} was planned by an h2crop that computes otherwise; build a new store")


def check_same_recipe(folder: Path, plan: SeasonPlan, recipe: Recipe) -> None:
    """Refuse to go on with another recipe than a season was planned with. Raises PlanError naming what differs."""
    old, new = plan.recipe.as_written(), recipe.as_written()
    # Texts say nothing about the data, and seasons are planned one by one.
    differing = [key for key in old if key not in ("name", "description", "seasons") and old[key] != new[key]]
    if differing:
        raise PlanError(
            f"{folder} was begun with another recipe for {plan.season} (it differs in {', '.join(differing)}); "
            "build into a new store, or go back to the first recipe"
        )


def pin(builder: StoreBuilder, plan: SeasonPlan) -> SeasonPlan:
    """Keep a plan in the store; gives it as read back. Raises PlanError when another one is kept for the season."""
    kept = builder.folder / PLAN_FOLDER / str(plan.season)
    if (kept / "plan.json").exists():
        old = load_season(kept)
        columns = ["hash_s2", "hash_enmap", "hash_labels", "samples"]
        if not old.blocks[columns].equals(plan.blocks[columns]):
            raise PlanError(f"{builder.folder} was begun with another plan for {plan.season}; build into a new store")
        return old
    for other in kept_seasons(builder.folder / PLAN_FOLDER):
        check_fits(builder.folder, load_season(other), plan)
    save_season(plan, kept)
    return load_season(kept)


def check_fits(folder: Path, other: SeasonPlan, plan: SeasonPlan) -> None:
    """Refuse a season that does not fit another one of the store: layout, classes, split. Raises PlanError."""
    check_same_layout(folder, other.layout, plan.layout)
    if other.recipe.split != plan.recipe.split:
        raise PlanError(
            f"{folder} has another split since {other.season}: the same ground must be in the same split in every "
            "season. Give the recipe the split of the first season, or build into a new store"
        )
    if other.taxonomy_hash != plan.taxonomy_hash:
        raise PlanError(f"{folder} has other crop classes since {other.season}; build into a new store")


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
    report.already_done = done = total - len(pending)
    seconds: dict[str, float] = defaultdict(float)
    failed: list[BlockOutcome] = []

    def tasks() -> Iterator[BlockTask]:
        for plan, block in pending:
            yield block_task(plan, block)

    for outcome in run_blocks(builder.folder, tasks(), workers, kind):
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
            f"{len(failed)} of {len(pending)} blocks failed:\n  {shown}\n"
            "The finished blocks are kept; mend the cause and run the same command again."
        )


def pending_blocks(builder: StoreBuilder, plans: Sequence[SeasonPlan]) -> list[tuple[SeasonPlan, int]]:
    """The blocks without a marker, or whose files are not all there.

    Raises PlanError for a finished block whose inputs are not those of the plan.
    """
    pending = []
    for plan in plans:
        for row in plan.blocks.to_dict("records"):
            marker = builder.read_marker(plan.season, row["block"])
            if marker is None or not all(builder.is_whole(file) for file in marker["files"]):
                pending.append((plan, row["block"]))
                continue
            changed = marker_matches(marker, {group: row[f"hash_{group}"] for group in ("s2", "enmap", "labels")})
            if changed:
                raise PlanError(
                    f"block {row['block']} of {plan.season} was built from other inputs ({', '.join(changed)}); "
                    "build into a new store"
                )
    return pending


def seal_store(builder: StoreBuilder, report: BuildReport) -> None:
    """Make a release of every season all of whose blocks are done, and finish the report."""
    finished, layout = [], None
    released = (current_attributes(builder.folder) or {"seasons": {}})["seasons"]
    for kept in kept_seasons(builder.folder / PLAN_FOLDER):
        plan = load_season(kept)
        markers = [builder.read_marker(plan.season, block) for block in plan.blocks["block"]]
        if any(marker is None for marker in markers):
            if str(plan.season) in released:
                raise PlanError(
                    f"season {plan.season} of the current release lost the marker of a block; build it first "
                    f"(--season {plan.season}), then the others"
                )
            continue
        season = finished_season(plan, [marker for marker in markers if marker is not None])
        finished.append(season)
        layout = plan.layout
        if plan.season in report.seasons:
            if months := empty_months(plan):
                report.empty_months[plan.season] = months
            report.samples += len(season.samples)
            report.bytes += sum(file["bytes"] for file in season.files)
            report.gaps += sorted({gap for gaps in season.samples.get("s2_gaps", []) for gap in gaps})
    if layout is None:
        raise PlanError(f"{builder.folder} has no finished season to seal")
    taxonomy = Taxonomy.load()
    classes = [taxonomy.names(tier) for tier in range(1, len(taxonomy.classes) + 1)]
    report.release = seal(builder, layout, finished, classes, f"h2crop-data {__version__}")


def finished_season(plan: SeasonPlan, markers: list[dict[str, Any]]) -> FinishedSeason:
    """What sealing needs of a season, from its plan and the markers of its blocks."""
    provenance = pd.DataFrame([row for marker in markers for row in marker["provenance"]], index=plan.samples.index)
    samples = gpd.GeoDataFrame(
        pd.concat([plan.samples.drop(columns="geometry"), provenance], axis=1),
        geometry=plan.samples.geometry,
    )
    blocks = plan.blocks.copy()
    blocks["files"] = [[file["path"] for file in marker["files"]] for marker in markers]
    blocks["sha256"] = [[file["sha256"] for file in marker["files"]] for marker in markers]
    blocks["software"] = [marker["software"] for marker in markers]
    blocks["recipe"] = plan.recipe.hash
    blocks["taxonomy"] = f"{plan.taxonomy_version} {plan.taxonomy_hash}"
    by_split: dict[str, dict[str, Any]] = {}
    for marker in markers:
        split = marker["split"]
        known = by_split.get(split)
        by_split[split] = add_partial(known, marker["statistics"]) if known else marker["statistics"]
    return FinishedSeason(
        season=plan.season,
        samples=samples,
        blocks=blocks,
        scenes=scenes_table(plan.scenes),
        parcels=plan.parcels.parcels if plan.recipe.parcels else None,
        spectra=[marker["spectrum"] for marker in markers if marker["spectrum"]],
        statistics=by_split,
        files=[file for marker in markers for file in marker["files"]],
        recipe=plan.recipe.as_written(),
    )
