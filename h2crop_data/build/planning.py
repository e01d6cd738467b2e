"""Making a plan: search, choose, pin."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.build.declarations import CellParcels, Declarations, declarations_of, no_declarations
from h2crop_data.build.plan import ROLES, SeasonPlan
from h2crop_data.build.scenes import Candidate, SceneDecision, choose_enmap, choose_sentinel2, items_over
from h2crop_data.catalog.providers import baseline
from h2crop_data.catalog.search import acquired
from h2crop_data.errors import PlanError, RecipeError
from h2crop_data.grid import LONLAT, Cell, blocks_of_cells, cells_of_area, split_squares
from h2crop_data.parcels.taxonomy import Taxonomy
from h2crop_data.recipe import Recipe, geojson_polygons

#: Raised whenever the numbers an array group gets from the same inputs change; part of the input hashes.
ALGORITHM = {"s2": 1, "enmap": 1, "labels": 1}
#: The word for the scene of samples without EnMAP.
NO_SCENE = "none"

Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, text: str) -> None:
    """Progress nobody watches."""


def make_plan(recipe: Recipe, season: int, progress: Progress = silent) -> SeasonPlan:
    """Search the catalogs, choose scenes, cells and parcels, and pin them for one season.

    progress: called with (done, total, text). Raises PlanError when nothing is left to build, and says at which step.
    """
    taxonomy = Taxonomy.load()
    if taxonomy.version != recipe.taxonomy.version:
        raise RecipeError(f"taxonomy.version: {recipe.taxonomy.version!r}: this h2crop has {taxonomy.version!r}")
    area, crs = area_of(recipe)
    scenes: list[SceneDecision] = []
    enmap_items: list[pystac.Item] = []
    if recipe.enmap:
        chosen, enmap_items, scenes = choose_enmap(recipe, recipe.enmap, season, area, crs, progress)
        if not chosen:
            raise PlanError(f"{season}: no EnMAP scene gives a cell. {why_none(scenes)}")
    else:
        chosen = [Candidate(cell, None, None) for cell in cells_of_area(area, crs, recipe.cell_size, recipe.area.cells)]
        if not chosen:
            raise PlanError(f"the area holds no cell of {recipe.cell_size} m by the rule {recipe.area.cells!r}")
    cells = sorted({one.cell for one in chosen})
    squares = dict(zip(cells, split_squares(cells, recipe.split.square_size), strict=True))
    groups = cells_by_square(squares)
    declarations = pinned_declarations(recipe, season, groups, taxonomy, progress)
    labelled = labelled_shares(declarations["parcels"], groups, progress) if recipe.parcels else {}
    if recipe.parcels:
        least = recipe.parcels.min_labelled_share
        chosen = [one for one in chosen if labelled[one.cell] >= least]
        if not chosen:
            raise PlanError(f"{season}: none of {len(cells)} cells has parcels.min_labelled_share {least:g} labelled")
    samples = sample_table(recipe, season, chosen, squares, labelled)
    blocks = block_table(samples)
    places = block_places(samples)
    sentinel2_items: list[pystac.Item] = []
    if recipe.sentinel2:
        sentinel2_items, decisions = choose_sentinel2(recipe, recipe.sentinel2, season, merged(places), progress)
        scenes = scenes + decisions
        blocks["s2_items"] = items_over(sentinel2_items, places)
    plan = SeasonPlan(
        season=season,
        recipe=recipe,
        samples=samples,
        blocks=blocks,
        scenes=scenes,
        sentinel2=sentinel2_items,
        enmap=[item for item in enmap_items if item.id in set(samples["scene"])],
        parcels=declarations["parcels"],
        prior=declarations["prior"],
        taxonomy_version=taxonomy.version,
        taxonomy_hash=taxonomy.hash,
        algorithm=dict(ALGORITHM),
    )
    return replace(plan, blocks=with_hashes(plan))


def area_of(recipe: Recipe) -> tuple[BaseGeometry, str]:
    """The recipe's area and its CRS."""
    area = recipe.area
    if area.bbox:
        return shapely.box(*area.bbox), area.crs
    if area.geojson:
        return shapely.make_valid(geojson_polygons(area.geojson)), area.crs
    path = recipe.locate(area.file or "")
    try:
        frame = pyogrio.read_dataframe(path, columns=[])
    except pyogrio.errors.DataSourceError as error:
        raise RecipeError(f"area.file: cannot read {path}: {error}") from error
    polygons = [shape for shape in frame.geometry if shape is not None and shape.geom_type.endswith("Polygon")]
    if frame.crs is None or not polygons:
        raise RecipeError(f"area.file: {path} states no CRS or holds no polygon")
    return shapely.union_all(shapely.make_valid(np.array(polygons, dtype=object))), frame.crs.to_string()


def why_none(scenes: Sequence[SceneDecision]) -> str:
    """The most frequent reasons scenes were left out, for an error message."""
    if not scenes:
        return "The catalog has none over the area in that year."
    reasons = pd.Series([scene.reason for scene in scenes]).value_counts()
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.head(3).items())


def cells_by_square(squares: dict[Cell, tuple[int, int]]) -> list[list[Cell]]:
    """Cells near each other: those of one zone in one split square."""
    groups: dict[tuple[tuple[int, int], int], list[Cell]] = defaultdict(list)
    for cell, square in squares.items():
        groups[square, cell.epsg].append(cell)
    return [groups[key] for key in sorted(groups)]


def pinned_declarations(
    recipe: Recipe, season: int, groups: Sequence[Sequence[Cell]], taxonomy: Taxonomy, progress: Progress
) -> dict[str, Declarations]:
    """The declarations of the season and of the year before."""
    if recipe.parcels is None:
        return {role: no_declarations() for role in ROLES}
    prior = recipe.parcels.season if recipe.parcels.prior == "same" else recipe.parcels.prior or []
    return {
        "parcels": declarations_of(recipe, recipe.parcels.season, season, groups, taxonomy, progress),
        "prior": declarations_of(recipe, prior, season - 1, groups, taxonomy, progress),
    }


def labelled_shares(
    declarations: Declarations, groups: Sequence[Sequence[Cell]], progress: Progress
) -> dict[Cell, float]:
    """Share of each cell's pixels whose crop has a class."""
    shares: dict[Cell, float] = {}
    for done, cells in enumerate(groups):
        progress(done, len(groups), "labelled pixels of the cells")
        near = CellParcels(declarations, cells)
        shares |= {cell: near.labelled_share(cell) for cell in cells}
    return shares


def sample_table(
    recipe: Recipe,
    season: int,
    chosen: Sequence[Candidate],
    squares: dict[Cell, tuple[int, int]],
    labelled: dict[Cell, float],
) -> gpd.GeoDataFrame:
    """One row a sample, in order of block and slot."""
    by_scene: dict[str, list[Candidate]] = defaultdict(list)
    for one in chosen:
        by_scene[one.scene.id if one.scene else NO_SCENE].append(one)
    rows: list[dict[str, Any]] = []
    block = 0
    for name in sorted(by_scene):
        of_cell = {one.cell: one for one in by_scene[name]}
        inside = [squares[cell] for cell in of_cell]
        for square, cells in blocks_of_cells(list(of_cell), inside, recipe.store.block_capacity):
            split = recipe.split.split_of(square)
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
                        "labelled_share": labelled.get(cell),
                        "geometry": cell.outline,
                    }
                )
            block += 1
    table = gpd.GeoDataFrame(rows, geometry="geometry", crs=LONLAT)
    table["scene_time"] = pd.to_datetime(table["scene_time"], utc=True).dt.as_unit("us")
    numbers = ["sun_elevation", "sun_azimuth", "across_off_nadir", "flagged_share", "labelled_share"]
    return table.astype(dict.fromkeys(numbers, "float64"))


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


def merged(places: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    """Few boxes that hold the places, for few searches: boxes that meet become one."""
    boxes = [shapely.box(*place.bounds) for place in places]
    while True:
        union = shapely.union_all(boxes)
        larger = [shapely.box(*part.bounds) for part in shapely.get_parts(union)]
        if len(larger) == len(boxes):
            return larger
        boxes = larger


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
    coverage = b"everywhere" if declarations.coverage is None else shapely.to_wkb(declarations.coverage)
    digests = []
    for place in places:
        state = hashlib.sha256(coverage)
        for i in sorted(table.sindex.query(place, predicate="intersects").tolist()):
            state.update(rows[i].tobytes())
            state.update(shapes[i])
        digests.append(state.hexdigest())
    return digests


def digest(*values: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
