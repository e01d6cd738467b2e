"""Cells and scenes of the sources for a season of a recipe, before they are cut into samples and blocks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.crops.taxonomy import Taxonomy, taxonomy_versions
from h2crop_data.errors import PlanError, RecipeError
from h2crop_data.grid import Cell, cells_of_area, geojson_polygons, split_squares
from h2crop_data.pipeline.listed import listed_splits
from h2crop_data.pipeline.units import WorkFolder, running_in
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Area, Recipe, Split
from h2crop_data.sources.registry import UsedSources, sources_of, used_sources
from h2crop_data.sources.scenes import SceneDecision
from h2crop_data.sources.source import Candidate, Described, Observed, Request, SurveyedGround
from h2crop_data.splits.squares import Square, SquareContent, inside_buffer, optimised_splits, split_problems


@dataclass(frozen=True)
class Known:
    """What a store holds already that a new plan must agree with."""

    #: The split of every square that has one.
    squares: dict[Square, str] = field(default_factory=dict)
    #: Cell and datatake of every sample of the season; (cell, "") without a scene that makes samples.
    seen: frozenset[tuple[str, str]] = frozenset()
    #: Number of the first block to come.
    first_block: int = 0
    #: What each source pinned in the parts of the season, by name.
    pinned: dict[str, list[Any]] = field(default_factory=dict)
    #: Scenes that must not be used again, and why.
    retracted: dict[str, str] = field(default_factory=dict)

    def of(self, source: str) -> list[Any]:
        """What a source pinned in the parts of the season."""
        return self.pinned.get(source, [])


@dataclass(frozen=True)
class SplitTable:
    """The split of every square: as fixed, else by its hash; or of every cell, where lists say so."""

    split: Split
    fixed: dict[Square, str]
    #: Where the split is given as lists: the split of every listed cell.
    cells: dict[Cell, str] | None = None

    @property
    def method(self) -> str:
        """How splits were decided: `hash`, `optimised` or `lists`."""
        return self.split.method if self.cells is None else "lists"

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
    """Cells, scenes and whatever else the sources have for a season of a recipe."""

    recipe: Recipe
    season: int
    #: What may become samples: cells with their scenes and planned columns, clear and labelled enough.
    candidates: list[Candidate]
    #: Every cell that was looked at, and its square.
    squares: dict[Cell, Square]
    splits: SplitTable
    scenes: list[SceneDecision]
    #: What each source found, by name.
    pinned: dict[str, Any]
    taxonomy: Taxonomy
    #: In words, what the split could not be made to meet.
    split_problems: list[str]


def survey_season(recipe: Recipe, season: int, known: Known, work: WorkFolder, progress: Progress = silent) -> Survey:
    """Search the catalogs and read the declarations of one season.

    work: where units of work find and leave their results. progress: called with (done, total, text). Raises PlanError,
    which names the step, when nothing is left to build.
    """
    versions = taxonomy_versions()
    if recipe.taxonomy.version not in versions:
        raise RecipeError(
            f"taxonomy.version: unknown version {recipe.taxonomy.version!r}; this h2crop has {', '.join(versions)}"
        )
    taxonomy = Taxonomy.load(recipe.taxonomy.version)
    used = used_sources(recipe)
    area, crs = area_of(recipe.area, recipe.locate)
    request = Request(
        season=season,
        area=area,
        crs=crs,
        cell_size=recipe.cell_size,
        cell_rule=recipe.area.cells,
        split=recipe.split,
        locate=recipe.locate,
        locate_catalog=recipe.locate_catalog,
        retracted=known.retracted,
        run_units=running_in(work, progress),
        taxonomy=taxonomy.version,
        other_seasons=tuple(sorted(set(recipe.seasons) - {season})),
        progress=progress,
    )
    observed = observations(used, request)
    of_scenes = [candidate for seen in observed.values() for candidate in seen.candidates]
    candidates = of_scenes if observed else area_cells(request)
    cells = sorted({candidate.cell for candidate in candidates})
    squares = dict(zip(cells, split_squares(cells, recipe.split.square_size), strict=True))
    ground = SurveyedGround(squares, cells_by_square(squares))
    described = descriptions(used, request, ground, known)
    candidates = [
        with_columns(candidate, described) for candidate in candidates if is_usable(candidate.cell, described)
    ]
    classes = merged_classes(described)
    if recipe.split.lists is not None:
        lists = recipe.locate(recipe.split.lists)
        listed = listed_splits(lists, candidates, {name: seen.pinned for name, seen in observed.items()})
        splits = SplitTable(recipe.split, {}, listed)
        candidates = [candidate for candidate in candidates if candidate.cell in listed]
    else:
        splits = decide_splits(recipe.split, square_contents(candidates, squares, classes), described, known)
    pinned = {source.name: source.nothing() for source in sources_of(recipe)}
    pinned |= {name: seen.pinned for name, seen in observed.items()}
    for source, settings in used:
        if source.name in described:
            own = described[source.name].pinned
            pinned[source.name] = source.split(settings, own, splits, known.of(source.name))
    candidates = outside_buffer(season, candidates, squares, splits)
    chosen = sorted({candidate.cell for candidate in candidates})
    scenes = [scene for seen in observed.values() for scene in seen.scenes]
    for source, settings in used:
        selected = source.select(settings, request, merged(source.ground(settings, chosen)))
        if selected is not None:
            pinned[source.name] = selected.pinned
            scenes = scenes + selected.scenes
    return Survey(
        recipe=recipe,
        season=season,
        candidates=candidates,
        squares=squares,
        splits=splits,
        scenes=scenes,
        pinned=pinned,
        taxonomy=taxonomy,
        split_problems=problems_of(recipe.split, square_contents(candidates, squares, classes), splits),
    )


def observations(used: UsedSources, request: Request) -> dict[str, Observed]:
    """The samples that the scenes of a source make. Raises PlanError where two sources make samples."""
    observed = {source.name: source.observe(settings, request) for source, settings in used}
    makers = {name: samples for name, samples in observed.items() if samples is not None}
    if len(makers) > 1:
        raise PlanError(f"the sources {' and '.join(makers)} both make samples of their scenes; use one of them")
    return makers


def area_cells(request: Request) -> list[Candidate]:
    """Every cell of the area, where no source makes samples. Raises PlanError where there is none."""
    cells = cells_of_area(request.area, request.crs, request.cell_size, request.cell_rule)
    if not cells:
        raise PlanError(f"the area contains no cell of {request.cell_size} m by the rule {request.cell_rule!r}")
    return [Candidate(cell) for cell in cells]


def descriptions(used: UsedSources, request: Request, ground: SurveyedGround, known: Known) -> dict[str, Described]:
    """What sources know of the cells before they are split, by source."""
    described = {
        source.name: source.describe(settings, request, ground, known.of(source.name)) for source, settings in used
    }
    return {name: of_source for name, of_source in described.items() if of_source is not None}


def is_usable(cell: Cell, described: Mapping[str, Described]) -> bool:
    """Whether no source keeps a cell out."""
    return all(of_source.usable is None or cell in of_source.usable for of_source in described.values())


def with_columns(candidate: Candidate, described: Mapping[str, Described]) -> Candidate:
    """A candidate with the planned columns that sources know of its cell."""
    more = {
        column: values[candidate.cell]
        for of_source in described.values()
        for column, values in of_source.columns.items()
        if candidate.cell in values
    }
    return replace(candidate, columns={**candidate.columns, **more}) if more else candidate


def merged_classes(described: Mapping[str, Described]) -> dict[Square, set[tuple[int, int]]]:
    """The classes sure to occur in each square, of all sources together."""
    classes: dict[Square, set[tuple[int, int]]] = defaultdict(set)
    for of_source in described.values():
        for square, of_square in of_source.classes.items():
            classes[square] |= of_square
    return classes


def square_contents(
    candidates: Sequence[Candidate], squares: dict[Cell, Square], classes: dict[Square, set[tuple[int, int]]]
) -> dict[Square, SquareContent]:
    """How many samples each square would hold, and which classes."""
    counted = Counter(squares[candidate.cell] for candidate in candidates)
    return {square: SquareContent(counted[square], frozenset(classes.get(square, ()))) for square in sorted(counted)}


def decide_splits(
    split: Split, contents: dict[Square, SquareContent], described: Mapping[str, Described], known: Known
) -> SplitTable:
    """The split of every square that holds a sample, or a part of a parcel near one.

    Squares the store knows keep theirs. Hashed ones need no table, but are written down all the same.
    """
    shares = {str(name): share for name, share in split.shares.items()}
    squares = dict(known.squares)
    if split.method == "optimised":
        squares |= optimised_splits(contents, shares, split.seed, split.square_size, known.squares)
        touched = {square for of_source in described.values() for square in of_source.touched}
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
    season: int, candidates: list[Candidate], squares: dict[Cell, Square], splits: SplitTable
) -> list[Candidate]:
    """The candidates that are as far from every other split as `split.buffer`. Raises PlanError where none is."""
    buffer = splits.split.buffer
    if not buffer:
        return candidates
    cells = sorted({candidate.cell for candidate in candidates})
    # A square whose split may still be decided otherwise counts as another split.
    sure = splits.fixed.get if splits.method == "optimised" else splits.split_of
    left_out = inside_buffer(cells, [squares[cell] for cell in cells], sure, splits.square_size, buffer)
    kept = {cell for cell, out in zip(cells, left_out, strict=True) if not out}
    if not kept:
        raise PlanError(f"{season}: split.buffer {buffer:g} m leaves none of {len(cells)} cells; make it smaller")
    return [candidate for candidate in candidates if candidate.cell in kept]


def area_of(area: Area, locate: Callable[[str], Path]) -> tuple[BaseGeometry, str]:
    """The polygons of an area and their CRS. locate: a path of the recipe as an absolute one.

    Raises RecipeError for a file that cannot be read or holds no polygon.
    """
    if area.bbox:
        return shapely.box(*area.bbox), area.crs
    if area.geojson:
        return shapely.make_valid(geojson_polygons(area.geojson)), area.crs
    path = locate(area.file or "")
    try:
        frame = pyogrio.read_dataframe(path, columns=[])
    except pyogrio.errors.DataSourceError as error:
        raise RecipeError(f"area.file: cannot read {path}: {error}") from error
    polygons = [shape for shape in frame.geometry if shape is not None and shape.geom_type.endswith("Polygon")]
    if frame.crs is None or not polygons:
        raise RecipeError(f"area.file: {path} has no CRS or no polygon")
    return shapely.union_all(shapely.make_valid(np.array(polygons, dtype=object))), frame.crs.to_string()


def cells_by_square(squares: dict[Cell, Square]) -> list[list[Cell]]:
    """Cells near each other: those of one zone in one split square."""
    groups: dict[tuple[Square, int], list[Cell]] = defaultdict(list)
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
