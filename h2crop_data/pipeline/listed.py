"""Splits given as lists: which cell is in which, and in which each parcel counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pystac
import shapely

from h2crop_data.catalog.access import raster_geobox
from h2crop_data.catalog.providers import enmap_scene
from h2crop_data.errors import PlanError
from h2crop_data.grid import SPLIT_CRS, Cell, to_crs
from h2crop_data.pipeline.declarations import Declarations, split_ground
from h2crop_data.pipeline.scenes import Candidate
from h2crop_data.recipe.model import Recipe
from h2crop_data.splits.lists import (
    PATCH_ID,
    ListedPatch,
    patch_outline,
    published_patch,
    read_split_lists,
    splits_from_lists,
    splits_from_patches,
)


def listed_splits(recipe: Recipe, candidates: Sequence[Candidate], items: Sequence[pystac.Item]) -> dict[Cell, str]:
    """The split of every cell that the recipe's lists put into one; the others are left out of the store.

    items: the EnMAP scenes of the candidates, which tell where patches of the published dataset lie.
    Raises RecipeError for lists that cannot be used, PlanError where no cell is in one.
    """
    lists = read_split_lists(recipe.locate(recipe.split.lists or ""))
    published = {name: split for name, split in lists.items() if PATCH_ID.fullmatch(name)}
    own = {name: split for name, split in lists.items() if name not in published}
    cells = sorted({one.cell for one in candidates})
    found = {cell: split for cell, split in splits_from_lists(own, cells).items() if split is not None}
    if published:
        on_ground = splits_from_patches(patches_of(published, items), cells)
        found = {cell: split for cell, split in on_ground.splits.items() if split is not None} | found
    if not found:
        raise PlanError(f"none of {len(cells)} cells is in the lists of split.lists ({recipe.split.lists})")
    return found


def patches_of(lists: Mapping[str, str], items: Sequence[pystac.Item]) -> list[ListedPatch]:
    """The ground of those published patches that were cut from the scenes of a plan."""
    by_scene: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in lists:
        patch = published_patch(name)
        by_scene[patch.time.strftime("%Y%m%dT%H%M%S"), patch.tile].append(name)
    patches = []
    for item in items:
        scene = enmap_scene(item)
        names = by_scene.get((scene.stamp, int(scene.tile)), [])
        if names:
            grid = raster_geobox(item.assets["image"].href)
            epsg = int(str(grid.crs).removeprefix("EPSG:"))
            patches += [ListedPatch(name, lists[name], epsg, patch_outline(name, grid.affine)) for name in names]
    return patches


def with_listed_splits(declarations: Declarations, splits: Mapping[Cell, str]) -> Declarations:
    """The same parcels, each in the split whose cells hold most of it; what lies in no listed cell has none."""
    parcels = declarations.parcels.copy()
    if not len(parcels):
        return declarations
    cells = sorted(splits)
    outlines = np.array([to_crs(cell.polygon, cell.crs, SPLIT_CRS) for cell in cells], dtype=object)
    shapes = split_ground(parcels)
    parcel, cell = shapely.STRtree(outlines).query(shapes, predicate="intersects")
    shared = shapely.area(shapely.intersection(shapes[parcel], outlines[cell]))
    areas: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row, number, area in zip(parcel.tolist(), cell.tolist(), shared.tolist(), strict=True):
        areas[row][splits[cells[number]]] += area
    parcels["split"] = [largest(areas[row]) if row in areas else "" for row in range(len(parcels))]
    return replace(declarations, parcels=parcels)


def largest(areas: Mapping[str, float]) -> str:
    """The split with the largest area; the first by name of equals."""
    return max(sorted(areas), key=lambda name: areas[name])
