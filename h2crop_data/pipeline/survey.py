"""What the sources hold for a season of a recipe, before it is cut into samples and blocks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.errors import PlanError, RecipeError
from h2crop_data.grid import Cell, cells_of_area, geojson_polygons, split_squares
from h2crop_data.parcels.taxonomy import Taxonomy
from h2crop_data.pipeline.declarations import (
    CellParcels,
    Declarations,
    check_declared,
    declarations_of,
    home_squares,
    keeping_splits,
    no_declarations,
    with_splits,
)
from h2crop_data.pipeline.listed import listed_splits, with_listed_splits
from h2crop_data.pipeline.parcel_files import check_sources, sources_of_role
from h2crop_data.pipeline.plan import ROLES
from h2crop_data.pipeline.scenes import Candidate, SceneDecision, choose_enmap, choose_sentinel2
from h2crop_data.recipe.model import Recipe, Split
from h2crop_data.splits.squares import SquareContent, inside_buffer, optimised_splits, split_problems

Square = tuple[int, int]
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, text: str) -> None:
    """Progress nobody watches."""


@dataclass(frozen=True)
class Known:
    """What a store holds already that a new plan must agree with."""

    #: The split of every square that has one.
    squares: dict[Square, str] = field(default_factory=dict)
    #: Cell and datatake of every sample of the season; (cell, "") without EnMAP.
    seen: frozenset[tuple[str, str]] = frozenset()
    #: Number of the first block to come.
    first_block: int = 0
    #: The parcels of the season that have a number, by role.
    parcels: dict[str, gpd.GeoDataFrame] = field(default_factory=dict)
    #: Scenes that must not be used again, and why.
    retracted: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SplitTable:
    """The split of every square: as fixed, else by its hash; or of every cell, where lists say so."""

    split: Split
    fixed: dict[Square, str]
    #: Where the split is given as lists: the split of every listed cell.
    cells: dict[Cell, str] | None = None

    @property
    def square_size(self) -> int:
        """Side of the squares in metres."""
        return self.split.square_size

    def split_of(self, square: Square) -> str:
        """The split of a square (column, row)."""
        return self.fixed.get(square) or self.split.split_of(square)

    def apart(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """The cells in groups that must not share a block: those of each split, where a square may hold several."""
        if self.cells is None:
            return [list(cells)]
        of = self.cells
        return [[cell for cell in cells if of[cell] == split] for split in sorted({of[cell] for cell in cells})]

    def split_of_cell(self, cell: Cell, square: Square) -> str:
        """The split of a cell of a square."""
        return self.split_of(square) if self.cells is None else self.cells[cell]


@dataclass(frozen=True)
class Survey:
    """Cells, scenes and parcels for a season of a recipe."""

    recipe: Recipe
    season: int
    #: What may become samples: cells with their scenes, clear and labelled enough.
    candidates: list[Candidate]
    #: Every cell that was looked at, and its square.
    squares: dict[Cell, Square]
    splits: SplitTable
    #: Share of pixels with a class at tier 1, by cell; empty without parcels.
    labelled: dict[Cell, float]
    scenes: list[SceneDecision]
    sentinel2: list[pystac.Item]
    enmap: list[pystac.Item]
    parcels: Declarations
    prior: Declarations
    taxonomy: Taxonomy
    #: In words, what the split could not be made to meet.
    split_problems: list[str]


def survey_season(recipe: Recipe, season: int, known: Known, progress: Progress = silent) -> Survey:
    """Search the catalogs and read the declarations of one season.

    progress: called with (done, total, text). Raises PlanError when nothing is left to build, and says at which step.
    """
    taxonomy = Taxonomy.load()
    if taxonomy.version != recipe.taxonomy.version:
        raise RecipeError(f"taxonomy.version: {recipe.taxonomy.version!r}: this h2crop has {taxonomy.version!r}")
    area, crs = area_of(recipe)
    candidates, enmap_items, scenes = find_candidates(recipe, season, area, crs, known, progress)
    cells = sorted({one.cell for one in candidates})
    squares = dict(zip(cells, split_squares(cells, recipe.split.square_size), strict=True))
    groups = cells_by_square(squares)
    declarations = {role: declarations_in(role, recipe, season, groups, taxonomy, known, progress) for role in ROLES}
    labelled, classes = survey_labels(declarations["parcels"], groups, squares, recipe, progress)
    if recipe.parcels:
        least = recipe.parcels.min_labelled_share
        candidates = [one for one in candidates if labelled[one.cell] >= least]
        if not candidates:
            raise PlanError(f"{season}: none of {len(cells)} cells has parcels.min_labelled_share {least:g} labelled")
    contents = square_contents(candidates, squares, classes)
    if recipe.split.lists is not None:
        listed = listed_splits(recipe, candidates, enmap_items)
        splits = SplitTable(recipe.split, {}, listed)
        candidates = [one for one in candidates if one.cell in listed]
        declarations = {
            name: keeping_splits(with_listed_splits(one, listed), known.parcels.get(name))
            for name, one in declarations.items()
        }
    else:
        splits = decide_splits(recipe.split, contents, declarations, known)
    if recipe.split.method == "optimised":
        declarations = {name: with_splits(one, splits, known.parcels.get(name)) for name, one in declarations.items()}
    candidates = outside_buffer(recipe, season, candidates, squares, splits)
    items: list[pystac.Item] = []
    if recipe.sentinel2:
        places = merged([one.cell.outline for one in candidates])
        items, decisions = choose_sentinel2(recipe, recipe.sentinel2, season, places, known.retracted, progress)
        scenes = scenes + decisions
    return Survey(
        recipe=recipe,
        season=season,
        candidates=candidates,
        squares=squares,
        splits=splits,
        labelled=labelled,
        scenes=scenes,
        sentinel2=items,
        enmap=enmap_items,
        parcels=declarations["parcels"],
        prior=declarations["prior"],
        taxonomy=taxonomy,
        split_problems=problems_of(recipe.split, square_contents(candidates, squares, classes), splits),
    )


def find_candidates(
    recipe: Recipe, season: int, area: BaseGeometry, crs: str, known: Known, progress: Progress
) -> tuple[list[Candidate], list[pystac.Item], list[SceneDecision]]:
    """The cells of a season with their scenes, the EnMAP items behind them, and the decision on every scene found.

    area: in `crs`. Raises PlanError where there is none.
    """
    if recipe.enmap:
        chosen, items, scenes = choose_enmap(recipe, recipe.enmap, season, area, crs, known.retracted, progress)
        if not chosen:
            raise PlanError(f"{season}: no EnMAP scene gives a cell. {why_none(scenes)}")
        return chosen, items, scenes
    chosen = [Candidate(cell, None, None) for cell in cells_of_area(area, crs, recipe.cell_size, recipe.area.cells)]
    if not chosen:
        raise PlanError(f"the area holds no cell of {recipe.cell_size} m by the rule {recipe.area.cells!r}")
    return chosen, [], []


def declarations_in(
    role: str,
    recipe: Recipe,
    season: int,
    groups: Sequence[Sequence[Cell]],
    taxonomy: Taxonomy,
    known: Known,
    progress: Progress,
) -> Declarations:
    """The declarations of the season (`parcels`) or of the year before (`prior`).

    Raises ParcelError for files that cannot be those of the cells.
    """
    if recipe.parcels is None:
        return no_declarations()
    year, sources = sources_of_role(recipe, role, season)
    notes = check_sources(recipe, role, season, [cell for cells in groups for cell in cells])
    found = declarations_of(recipe, sources, year, groups, taxonomy, progress, known.parcels.get(role))
    check_declared([found], recipe, role, season)
    return replace(found, notes=[*notes, *found.notes])


def survey_labels(
    declarations: Declarations,
    groups: Sequence[Sequence[Cell]],
    squares: dict[Cell, Square],
    recipe: Recipe,
    progress: Progress,
) -> tuple[dict[Cell, float], dict[Square, set[tuple[int, int]]]]:
    """Share of each cell's pixels whose crop has a class, and the classes (tier, id) sure to occur in each square.

    A class is sure to occur where it has a pixel of a parcel that lies for the most part in that square: such a parcel
    has the split of its square, whatever the other squares' are. Both are empty without parcels.
    """
    shares: dict[Cell, float] = {}
    classes: dict[Square, set[tuple[int, int]]] = defaultdict(set)
    if recipe.parcels is None:
        return shares, classes
    homes = home_squares(declarations.parcels, recipe.split.square_size) if recipe.split.method == "optimised" else None
    for done, cells in enumerate(groups):
        progress(done, len(groups), "labelled pixels of the cells")
        near = CellParcels(declarations, cells)
        for cell in cells:
            shares[cell] = near.labelled_share(cell)
            if homes is not None:
                classes[squares[cell]] |= near.classes_at_home(cell, homes, squares[cell])
    return shares, classes


def square_contents(
    candidates: Sequence[Candidate], squares: dict[Cell, Square], classes: dict[Square, set[tuple[int, int]]]
) -> dict[Square, SquareContent]:
    """How many samples each square would hold, and which classes."""
    counted = Counter(squares[one.cell] for one in candidates)
    return {square: SquareContent(counted[square], frozenset(classes.get(square, ()))) for square in sorted(counted)}


def decide_splits(
    split: Split, contents: dict[Square, SquareContent], declarations: dict[str, Declarations], known: Known
) -> SplitTable:
    """The split of every square that holds a sample, or a part of a parcel near one.

    Squares the store knows keep theirs. Hashed ones need no table, but are written down all the same.
    """
    shares = {str(name): share for name, share in split.shares.items()}
    squares = dict(known.squares)
    if split.method == "optimised":
        squares |= optimised_splits(contents, shares, split.seed, split.square_size, known.squares)
        touched = {square for found in declarations.values() for square in found.touched(split.square_size)}
        squares |= {square: split.split_of(square) for square in touched - set(squares)}
    else:
        squares |= {square: split.split_of(square) for square in contents if square not in squares}
    return SplitTable(split, squares)


def problems_of(split: Split, contents: dict[Square, SquareContent], splits: SplitTable) -> list[str]:
    """What the splits of the samples that are left do not meet; nothing is promised of hashed squares."""
    if split.method != "optimised":
        return []
    shares = {str(name): share for name, share in split.shares.items()}
    return split_problems(contents, {square: splits.split_of(square) for square in contents}, shares)


def outside_buffer(
    recipe: Recipe, season: int, candidates: list[Candidate], squares: dict[Cell, Square], splits: SplitTable
) -> list[Candidate]:
    """The candidates that are as far from every other split as the recipe wants. Raises PlanError where none is."""
    buffer = recipe.split.buffer
    if not buffer:
        return candidates
    cells = sorted({one.cell for one in candidates})
    # A square whose split may still be decided otherwise counts as another split.
    sure = splits.fixed.get if recipe.split.method == "optimised" else splits.split_of
    left_out = inside_buffer(cells, [squares[cell] for cell in cells], sure, recipe.split.square_size, buffer)
    kept = {cell for cell, out in zip(cells, left_out, strict=True) if not out}
    if not kept:
        raise PlanError(f"{season}: split.buffer {buffer:g} m leaves none of {len(cells)} cells; make it smaller")
    return [one for one in candidates if one.cell in kept]


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


def merged(places: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    """Few boxes that hold the places, for few searches: boxes that meet become one."""
    boxes = [shapely.box(*place.bounds) for place in places]
    while True:
        union = shapely.union_all(boxes)
        larger = [shapely.box(*part.bounds) for part in shapely.get_parts(union)]
        if len(larger) == len(boxes):
            return larger
        boxes = larger
