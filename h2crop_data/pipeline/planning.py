"""Making a plan: search, choose, pin."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import geopandas as gpd
import pandas as pd
import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.items import acquired
from h2crop_data.catalog.providers import baseline
from h2crop_data.errors import PlanError
from h2crop_data.grid import LONLAT, Cell, blocks_of_cells
from h2crop_data.pipeline.declarations import Declarations
from h2crop_data.pipeline.plan import ROLES, SeasonPlan
from h2crop_data.pipeline.scenes import Candidate, items_over
from h2crop_data.pipeline.survey import Known, Progress, Survey, silent, survey_season
from h2crop_data.recipe.model import Recipe

#: Raised whenever the numbers an array group gets from the same inputs change; part of the input hashes.
ALGORITHM = {"s2": 2, "enmap": 1, "labels": 2}
#: The array groups that have input hashes.
GROUPS = tuple(ALGORITHM)
#: The word for the scene of samples without EnMAP.
NO_SCENE = "none"


class NothingNewError(PlanError):
    """A store has every sample of a recipe."""


def make_plan(recipe: Recipe, season: int, progress: Progress = silent) -> SeasonPlan:
    """Search the catalogs, choose scenes, cells and parcels, and pin them for one season.

    progress: called with (done, total, text). Raises PlanError when nothing is left to build, and says at which step.
    """
    return plan_of(survey_season(recipe, season, Known(), progress))


def plan_of(survey: Survey, known: Known = Known()) -> SeasonPlan:  # noqa: B008 -- it cannot be changed
    """The plan of what a survey found and the store does not have, its blocks numbered after those of the store.

    Raises PlanError where that is nothing.
    """
    new = [one for one in survey.candidates if sighting(one) not in known.seen]
    if not new:
        raise NothingNewError(f"{survey.season}: the store has every sample of the recipe; nothing to add")
    samples = sample_table(survey, new, known.first_block)
    blocks = block_table(samples)
    places = block_places(samples)
    if survey.recipe.sentinel2:
        blocks["s2_items"] = items_over(survey.sentinel2, places)
    plan = SeasonPlan(
        season=survey.season,
        recipe=survey.recipe,
        samples=samples,
        blocks=blocks,
        scenes=survey.scenes,
        sentinel2=survey.sentinel2,
        enmap=[item for item in survey.enmap if item.id in set(samples["scene"])],
        parcels=part_of(survey.parcels, new, known),
        prior=part_of(survey.prior, new, known),
        taxonomy_version=survey.taxonomy.version,
        taxonomy_hash=survey.taxonomy.hash,
        algorithm=dict(ALGORITHM),
        squares={square: name for square, name in survey.splits.fixed.items() if square not in known.squares},
        split_problems=survey.split_problems,
    )
    return replace(plan, blocks=with_hashes(plan))


def part_of(declarations: Declarations, chosen: Sequence[Candidate], known: Known) -> Declarations:
    """The declarations a plan keeps: all of them, or for a later part of a season those near its own cells."""
    if not known.first_block:
        return declarations
    cells = sorted({one.cell for one in chosen})
    parts = [declarations.near(list(of_zone)).parcels for _, of_zone in groupby(cells, key=lambda cell: cell.epsg)]
    parcels = pd.concat(parts).drop_duplicates("number").sort_values("number", ignore_index=True)
    return replace(declarations, parcels=parcels)


def sighting(candidate: Candidate) -> tuple[str, str]:
    """What a season holds once: a cell and the datatake that saw it."""
    return candidate.cell.id, candidate.scene.datatake if candidate.scene else ""


def sample_table(survey: Survey, chosen: Sequence[Candidate], first_block: int) -> gpd.GeoDataFrame:
    """One row a sample, in order of block and slot."""
    recipe, season = survey.recipe, survey.season
    by_scene: dict[str, list[Candidate]] = defaultdict(list)
    for one in chosen:
        by_scene[one.scene.id if one.scene else NO_SCENE].append(one)
    rows: list[dict[str, Any]] = []
    block = first_block
    for name in sorted(by_scene):
        of_cell = {one.cell: one for one in by_scene[name]}
        for square, cells in blocks_of_scene(survey, list(of_cell)):
            split = survey.splits.split_of_cell(cells[0], square)
            for place, cell in enumerate(cells):
                scene = of_cell[cell].scene
                x0, y0 = cell.corner
                rows.append(
                    {
                        "sample": f"{cell.id}_{scene.stamp if scene else season}",
                        "cell": cell.id,
                        "epsg": cell.epsg,
                        "x0": float(x0),
                        "y0": float(y0),
                        "block": block,
                        "slot": block * recipe.store.block_capacity + place,
                        "split": split,
                        "square": f"{square[0]}_{square[1]}",
                        "scene": name,
                        "scene_time": scene.time if scene else None,
                        "sun_elevation": scene.sun_elevation if scene else None,
                        "sun_azimuth": scene.sun_azimuth if scene else None,
                        "across_off_nadir": scene.across_off_nadir if scene else None,
                        "flagged_share": of_cell[cell].flagged_share,
                        "labelled_share": survey.labelled.get(cell),
                        "geometry": cell.outline,
                    }
                )
            block += 1
    table = gpd.GeoDataFrame(rows, geometry="geometry", crs=LONLAT)
    table["scene_time"] = pd.to_datetime(table["scene_time"], utc=True).dt.as_unit("us")
    numbers = ["sun_elevation", "sun_azimuth", "across_off_nadir", "flagged_share", "labelled_share"]
    return table.astype(dict.fromkeys(numbers, "float64"))


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
    recipe = plan.recipe.as_written()
    sentinel2 = {item.id: item_identity(item) for item in plan.sentinel2}
    enmap = {item.id: item_identity(item) for item in plan.enmap}
    offsets = {scene.id: scene.offset for scene in plan.scenes if scene.taken}
    s2_settings = {key: value for key, value in (recipe["sentinel2"] or {}).items() if key != "catalog"}
    enmap_settings = {key: value for key, value in (recipe["enmap"] or {}).items() if key in ("bands", "flagged")}
    declared = [digests_near(getattr(plan, role), block_places(plan.samples)) for role in ROLES]
    hashes: dict[str, list[str]] = {"hash_s2": [], "hash_enmap": [], "hash_labels": []}
    cells = plan.samples.groupby("block", sort=True)["cell"].agg(list)
    for i, row in enumerate(plan.blocks.to_dict("records")):
        place = [cells[row["block"]], plan.season]
        items = [[sentinel2[name], offsets[name]] for name in row["s2_items"]] if plan.recipe.sentinel2 else []
        labels = [plan.taxonomy_hash, row["split"], [digests[i] for digests in declared]]
        hashes["hash_s2"].append(digest(ALGORITHM["s2"], place, s2_settings, items))
        hashes["hash_enmap"].append(digest(ALGORITHM["enmap"], place, enmap_settings, enmap.get(row["scene"])))
        hashes["hash_labels"].append(digest(ALGORITHM["labels"], place, labels))
    blocks = plan.blocks.copy()
    for name, values in hashes.items():
        blocks[name] = values
    return blocks


def item_identity(item: pystac.Item) -> list[Any]:
    """What makes an item the one it is, without where its files lie."""
    return [item.collection_id, item.id, acquired(item).isoformat(), baseline(item), item.properties.get("updated")]


def digests_near(declarations: Declarations, places: Sequence[BaseGeometry]) -> list[str]:
    """For each place (longitude, latitude) the SHA-256 of the declarations that bear on it."""
    table = declarations.parcels
    rows = pd.util.hash_pandas_object(table.drop(columns="geometry"), index=False).to_numpy()
    shapes = shapely.to_wkb(table.geometry.to_numpy())
    digests = []
    for place in places:
        state = hashlib.sha256(coverage_near(declarations.coverage, place))
        for i in sorted(table.sindex.query(place, predicate="intersects").tolist()):
            state.update(rows[i].tobytes())
            state.update(shapes[i])
        digests.append(state.hexdigest())
    return digests


def coverage_near(coverage: shapely.Geometry | None, place: BaseGeometry) -> bytes:
    """What of a place is covered, so that ground added elsewhere changes nothing here."""
    if coverage is None or shapely.covers(coverage, place):
        return b"everywhere"
    near: bytes = shapely.to_wkb(shapely.normalize(shapely.intersection(coverage, place)))
    return near


def digest(*values: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
