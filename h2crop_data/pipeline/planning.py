"""Making a plan: search, choose, pin."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import chain
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.bounded_map import WorkerPool
from h2crop_data.constants import NONE
from h2crop_data.cube.columns import in_declared_order, with_nullable_integers
from h2crop_data.errors import NothingToPlanError
from h2crop_data.grid import LONLAT, Cell, blocks_of_cells
from h2crop_data.pipeline.plan import SeasonPlan, row_dictionaries
from h2crop_data.pipeline.seasons import check_season, planning_date, today_utc
from h2crop_data.pipeline.source_facts import reasons_left_out, scene_warnings
from h2crop_data.pipeline.survey import Known, Survey, survey_season
from h2crop_data.pipeline.units import WorkFolder, run_units, temporary_work
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.registry import UsedSources, algorithms, layout_of_recipe, sources_of, used_sources
from h2crop_data.sources.source import Candidate, PlannedBlock, Reference, Source
from h2crop_data.sources.units import Unit, hashed_ids

log = logging.getLogger(__name__)


class NothingNewError(NothingToPlanError):
    """A store has every sample of a recipe."""


def make_plan(recipe: Recipe, season: int, progress: Progress = silent, today: date | None = None) -> SeasonPlan:
    """Search the catalogs, choose scenes, cells and parcels, and pin them for one season.

    progress: called with (done, total, text). today: a date in UTC, by default that of the day. Raises PlanError, which
    names the step, when the season cannot be built yet or nothing is left to build.
    """
    day = today or today_utc()
    check_season(recipe, season, day)
    with temporary_work() as work:
        return plan_of(survey_season(recipe, season, Known(), work, progress), planned=planning_date(season, day))


def plan_of(
    survey: Survey,
    known: Known = Known(),  # noqa: B008 -- it cannot be changed
    *,
    planned: date | None = None,
) -> SeasonPlan:
    """The plan of what a survey found and the store does not have, its blocks numbered after those of the store.

    planned: as `SeasonPlan` has it. Raises PlanError where there is nothing to plan.
    """
    new = [candidate for candidate in survey.candidates if sighting(candidate) not in known.seen]
    if not new:
        raise NothingNewError(f"{survey.season}: the store has every sample of the recipe; nothing to add")
    samples = sample_table(survey, new, known.first_block)
    further = known.first_block > 0
    pinned = {
        source.name: source.for_samples(survey.pinned[source.name], samples, further=further)
        for source in sources_of(survey.recipe)
    }
    plan = SeasonPlan(
        season=survey.season,
        recipe=survey.recipe,
        samples=samples,
        blocks=with_source_columns(used_sources(survey.recipe), pinned, block_table(samples), block_places(samples)),
        scenes=survey.scenes,
        pinned=pinned,
        taxonomy_version=survey.taxonomy.version,
        taxonomy_hash=survey.taxonomy.hash,
        algorithm=algorithms(survey.recipe),
        squares={square: name for square, name in survey.splits.fixed.items() if square not in known.squares},
        split_problems=survey.split_problems,
        planned=planned,
    )
    report_plan(plan)
    return replace(plan, blocks=with_hashes(plan))


def report_plan(plan: SeasonPlan) -> None:
    """Log what a plan has, why scenes are left out, and what is to be looked at of others."""
    taken = sum(scene.taken for scene in plan.scenes)
    log.info(
        "season %d: %d samples in %d blocks of %d scenes planned, %d scenes left out",
        *(plan.season, len(plan.samples), len(plan.blocks), taken, len(plan.scenes) - taken),
        extra={"season": plan.season, "samples": len(plan.samples), "blocks": len(plan.blocks)},
    )
    for reason, count in reasons_left_out(plan.scenes).most_common():
        log.info("season %d: %d scene(s) left out: %s", plan.season, count, reason)
    for scene in plan.scenes:
        if not scene.taken:
            log.debug("season %d: scene %s is left out: %s", plan.season, scene.id, scene.reason)
    for warning in scene_warnings(plan.scenes):
        log.warning("season %d: %s", plan.season, warning)


def with_source_columns(
    used: UsedSources, pinned: Mapping[str, Any], blocks: pd.DataFrame, places: Sequence[BaseGeometry]
) -> pd.DataFrame:
    """The blocks with the columns that the used sources add. places: the ground of each."""
    columns: dict[str, list[Any]] = {}
    for source, _ in used:
        columns |= source.block_columns(pinned[source.name], places)
    return blocks.assign(**columns)


def sighting(candidate: Candidate) -> tuple[str, str]:
    """What a season holds once: a cell and the datatake that saw it."""
    return candidate.cell.id, candidate.scene.datatake if candidate.scene else ""


def planned_sightings(plan: SeasonPlan) -> list[tuple[str, str]]:
    """The same for every sample of a plan, in its order."""
    datatakes = {NONE: ""}
    for source in sources_of(plan.recipe):
        datatakes |= source.datatakes(plan.pinned[source.name])
    return [(cell, datatakes[scene]) for cell, scene in zip(plan.samples["cell"], plan.samples["scene"], strict=True)]


def sample_table(survey: Survey, chosen: Sequence[Candidate], first_block: int) -> gpd.GeoDataFrame:
    """One row a sample, in order of block and slot."""
    recipe, season = survey.recipe, survey.season
    planned = [column for column in layout_of_recipe(recipe).sample_columns() if column.known == "planned"]
    by_scene: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in chosen:
        by_scene[candidate.scene.id if candidate.scene else NONE].append(candidate)
    rows: list[dict[str, Any]] = []
    block = first_block
    for name in sorted(by_scene):
        of_cell = {candidate.cell: candidate for candidate in by_scene[name]}
        for square, cells in blocks_of_scene(survey, list(of_cell)):
            split = survey.splits.split_of_cell(cells[0], square)
            for place, cell in enumerate(cells):
                candidate = of_cell[cell]
                x0, y0 = cell.corner
                known = {
                    **candidate.columns,
                    "sample": f"{cell.id}_{candidate.scene.stamp if candidate.scene else season}",
                    "cell": cell.id,
                    "epsg": cell.epsg,
                    "x0": float(x0),
                    "y0": float(y0),
                    "block": block,
                    "slot": block * recipe.store.block_capacity + place,
                    "split": split,
                    "square": f"{square[0]}_{square[1]}",
                    "scene": name,
                }
                rows.append({column.name: known.get(column.name) for column in planned} | {"geometry": cell.outline})
            block += 1
    table = gpd.GeoDataFrame(rows, geometry="geometry", crs=LONLAT)
    for column in planned:
        if column.dtype == "time":
            table[column.name] = pd.to_datetime(table[column.name], utc=True).dt.as_unit("us")
    numbers = table.astype({column.name: "float64" for column in planned if column.dtype == "number"})
    return with_nullable_integers(numbers, planned)


def blocks_of_scene(survey: Survey, cells: Sequence[Cell]) -> list[tuple[tuple[int, int], list[Cell]]]:
    """The cells of one scene cut into blocks of one split, with the square of each."""
    capacity = survey.recipe.store.block_capacity
    return [
        block
        for group in survey.splits.apart(cells)
        for block in blocks_of_cells(group, [survey.squares[cell] for cell in group], capacity)
    ]


def block_table(samples: gpd.GeoDataFrame) -> pd.DataFrame:
    """One row a block."""
    grouped = samples.groupby("block", sort=True)
    blocks = grouped[["split", "square", "epsg", "scene"]].first()
    blocks["samples"] = grouped.size()
    table: pd.DataFrame = blocks.reset_index()
    return table


def block_places(samples: gpd.GeoDataFrame) -> list[BaseGeometry]:
    """The ground of each block (longitude, latitude), in order of block."""
    return [shapely.union_all(group.geometry.to_numpy()) for _, group in samples.groupby("block", sort=True)]


def with_hashes(plan: SeasonPlan) -> pd.DataFrame:
    """The blocks with the hash of what goes into each of their array groups.

    Paths and addresses of files are not part of it: the same inputs give the same hash wherever they lie.
    """
    planned = list(PlannedBlocks(plan))
    hashes = {}
    for source in sources_of(plan.recipe):
        inputs = source.inputs(plan.recipe.settings_of(source.name), plan.pinned[source.name], planned)
        units = units_of_blocks(plan, source, planned)
        hashes[f"hash_{source.group}"] = [
            digest(source.algorithm, [[cell.id for cell in block.cells], plan.season], *content, *hashed_ids(used))
            for block, content, used in zip(planned, inputs, units, strict=True)
        ]
    return in_declared_order(plan.blocks.assign(**hashes), plan.layout.block_columns())


def units_of_blocks(plan: SeasonPlan, source: Source, blocks: Sequence[PlannedBlock]) -> list[list[Unit]]:
    """For each of some blocks of a plan the units of work of a source that it uses."""
    settings, pinned = plan.recipe.settings_of(source.name), plan.pinned[source.name]
    if settings is None:
        return [[] for _ in blocks]
    own = source.units(settings, pinned, blocks)
    matching = source.matching_units(settings, pinned, blocks, reference_of(plan))
    return [[*units, *more] for units, more in zip(own, matching, strict=True)]


def matching_units(plan: SeasonPlan) -> list[list[Unit]]:
    """For each block of a plan the units of work that match its scenes with others, of all sources."""
    blocks, reference = list(PlannedBlocks(plan)), reference_of(plan)
    of_sources = [
        source.matching_units(settings, plan.pinned[source.name], blocks, reference)
        for source, settings in used_sources(plan.recipe)
    ]
    return [list(chain.from_iterable(of_block)) for of_block in zip(*of_sources, strict=True)]


def reference_of(plan: SeasonPlan) -> Reference | None:
    """The units of work of the first source that others can be matched with; None where a recipe uses none."""
    for source, settings in used_sources(plan.recipe):
        if source.gives_reference:
            return partial(source.reference_units, settings, plan.pinned[source.name], season=plan.season)
    return None


def with_unit_results(
    plan: SeasonPlan,
    wanted: Collection[int],
    work: WorkFolder,
    *,
    workers: int,
    pool: WorkerPool | None = None,
    needed: set[str],
    progress: Progress = silent,
) -> tuple[SeasonPlan, dict[str, float]]:
    """A plan whose sources have the results of the units that some of its blocks use; those that are lost are run.

    Gives the seconds of work besides, by step, summed over the workers. workers: threads that run units, where there is
    no pool. needed: units whose results are used until the build ends; those of this plan are added.

    Implied units are run for all blocks: they say how scenes are read, which must not depend on what is done already.
    A unit that fails costs the blocks that use it, no others. Raises StoreError where a result cannot be written.
    """
    if not wanted:
        return plan, {}
    blocks = list(PlannedBlocks(plan))
    units = {}
    for source, _ in used_sources(plan.recipe):
        of_blocks = zip(blocks, units_of_blocks(plan, source, blocks), strict=True)
        units[source] = [unit for block, own in of_blocks for unit in own if unit.implied or block.number in wanted]
    asked = list(chain.from_iterable(units.values()))
    results = run_units(work, asked, workers=workers, pool=pool, needed=needed, progress=progress)
    needed |= results.keys()
    pinned = {
        source.name: source.with_results(plan.pinned[source.name], own, results) for source, own in units.items() if own
    }
    seconds: dict[str, float] = defaultdict(float)
    for result in results.values():
        for step, spent in result.steps.items():
            seconds[step] += spent
    return replace(plan, pinned={**plan.pinned, **pinned}), dict(seconds)


class PlannedBlocks:
    """The blocks of a plan with their cells, grouped once, each made when it is asked for."""

    def __init__(self, plan: SeasonPlan) -> None:
        self.plan = plan
        self.cells, self.outlines = plan.samples["cell"].to_numpy(), plan.samples.geometry.to_numpy()
        # Samples are in order of block.
        starts = np.searchsorted(plan.samples["block"].to_numpy(), plan.blocks["block"].to_numpy()).tolist()
        ends = [*starts[1:], len(self.cells)]
        rows = row_dictionaries(plan.blocks)
        #: Number -> where its samples begin and end, and its row.
        self.places = {row["block"]: (start, end, row) for start, end, row in zip(starts, ends, rows, strict=True)}

    def __iter__(self) -> Iterator[PlannedBlock]:
        return map(self.block, self.places)

    def block(self, number: int) -> PlannedBlock:
        """One of them."""
        start, end, row = self.places[number]
        return PlannedBlock(
            number=number,
            season=self.plan.season,
            split=row["split"],
            scene=row["scene"],
            cells=[Cell.parse(name) for name in self.cells[start:end]],
            outlines=list(self.outlines[start:end]),
            row=row,
            taxonomy_hash=self.plan.taxonomy_hash,
        )


def digest(*values: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
