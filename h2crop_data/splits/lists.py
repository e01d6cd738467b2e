"""Splits by list instead of by hash: files of ids, our own or those of the published H2Crop dataset.

The lists are train.txt, val.txt and test.txt in one folder, one id a line. An id is that of a cell, of a sample or of a
patch of the published dataset, whose ground follows from the EnMAP scene it was cut from.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from h2crop_data.constants import COARSE, SPLITS
from h2crop_data.errors import RecipeError
from h2crop_data.grid import Cell
from h2crop_data.published_ids import PublishedId, looks_published
from h2crop_data.splits.squares import moved, neighbouring, overlapping

if TYPE_CHECKING:
    from affine import Affine

#: Side of a published patch in EnMAP pixels.
PATCH_PIXELS = 64
#: What follows the cell in a sample's id: the time in its scene's name, or the season where there is no scene.
SAMPLE_TAIL = re.compile(r"\d{8}T\d{6}|\d{4}")
#: Problems an error message lists.
NAMED = 50


@dataclass(frozen=True)
class ListedPatch:
    """The ground of a published patch, and the split it is listed in."""

    id: str
    split: str
    epsg: int
    #: West, south, east, north in metres of the zone.
    bounds: tuple[float, float, float, float]


@dataclass(frozen=True)
class PatchSplits:
    """The split of cells by the patches on their ground."""

    #: None: no patch lies there, or patches of two splits do.
    splits: dict[Cell, str | None]
    #: The cells with patches of two splits or more, in order.
    conflicts: list[Cell]


def read_split_lists(folder: Path) -> dict[str, str]:
    """The split of every id in train.txt, val.txt and test.txt, in order of split and line.

    Blank lines, and anything behind `#`, do not count; a list may be empty. Raises RecipeError, which names file and
    line of everything wrong: a missing file, text that is not UTF-8, an invalid id, a duplicate id.
    """
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    problems = []
    for split in SPLITS:
        path = folder / f"{split}.txt"
        try:
            lines = path.read_bytes().decode("utf-8-sig").splitlines()
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}; a folder of lists has train.txt, val.txt and test.txt")
            continue
        except UnicodeDecodeError as error:
            bad = error.object[: error.start].count(b"\n") + 1
            problems.append(f"{path}:{bad}: not UTF-8 text")
            continue
        for number, line in enumerate(lines, 1):
            name = line.split("#", 1)[0].strip()
            if not name:
                continue
            if not is_id(name):
                problems.append(
                    f"{path}:{number}: invalid id {name!r}; expected that of a cell, a sample or a published patch"
                )
            places[name].append((split, number))
    for name, found in places.items():
        if len(found) > 1:
            where = ", ".join(f"{split}.txt:{number}" for split, number in found)
            kind = "in two lists" if len({split for split, _ in found}) > 1 else "listed twice"
            problems.append(f"{folder}: {name} is {kind}: {where}")
    refuse_lists(problems, f"the split lists in {folder} cannot be used")
    return {name: found[0][0] for name, found in places.items()}


def refuse_lists(problems: Sequence[str], summary: str) -> None:
    """Raise RecipeError with some problems, unless there are none."""
    if problems:
        more = [f"and {len(problems) - NAMED} more"] if len(problems) > NAMED else []
        raise RecipeError("\n  ".join([f"{summary}:", *problems[:NAMED], *more]))


def is_id(name: str) -> bool:
    """Whether a text is an id that a list may hold."""
    return cell_of(name) is not None or looks_published(name)


def cell_of(name: str) -> Cell | None:
    """The cell of a cell's or a sample's id; None for anything else."""
    cell, _, tail = name.rpartition("_")
    for text in (name, cell if SAMPLE_TAIL.fullmatch(tail) else ""):
        try:
            return Cell.parse(text)
        except ValueError:
            continue
    return None


# Our own ids


def splits_from_lists(lists: Mapping[str, str], cells: Iterable[Cell]) -> dict[Cell, str | None]:
    """The split of each cell by lists of cells and samples; None for a cell that is not listed.

    lists: id -> split. A listed sample decides for its cell, so for all of the cell's samples. Raises RecipeError for
    cells whose samples are listed in different splits, and for ids of the published dataset.
    """
    listed: dict[Cell, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    problems = []
    for name, split in lists.items():
        cell = cell_of(name)
        if cell is None:
            problems.append(
                f"{name}: expected the id of a cell or a sample; published patches require the scenes they were cut "
                "from"
            )
        else:
            listed[cell][split].append(name)
    for cell, by_split in listed.items():
        if len(by_split) > 1:
            where = "; ".join(f"{split}: {', '.join(names)}" for split, names in by_split.items())
            problems.append(f"cell {cell.id} is in several splits ({where}); the same ground must be in one split only")
    refuse_lists(problems, "the split lists cannot be used")
    return {cell: next(iter(listed[cell])) if cell in listed else None for cell in cells}


# Ids of the published dataset


def published_patch(name: str) -> PublishedId:
    """What an id such as `20220613T112220Z_003_x384_y704_T32ULV` says. Raises RecipeError for anything else."""
    try:
        return PublishedId.parse(name)
    except ValueError as error:
        raise RecipeError(f"a list of the split: {error}") from error


def patch_outline(name: str, scene_transform: Affine) -> tuple[float, float, float, float]:
    """West, south, east, north of a published patch, 64 x 64 pixels of its scene, in the scene's CRS.

    scene_transform: from pixels of the EnMAP scene (column, row) to its CRS, north up, 30 m. Raises RecipeError for
    another grid, and for invalid ids of the published dataset.
    """
    patch = published_patch(name)
    grid = scene_transform
    if (grid.a, grid.b, grid.d, grid.e) != (COARSE, 0, 0, -COARSE):
        raise RecipeError(f"{name!r}: expected a scene with a grid of {COARSE} m and north up, got {tuple(grid)[:6]}")
    west, north = grid.c + patch.column * COARSE, grid.f - patch.row * COARSE
    side = PATCH_PIXELS * COARSE
    return west, north - side, west + side, north


def splits_from_patches(patches: Sequence[ListedPatch], cells: Iterable[Cell]) -> PatchSplits:
    """The split of each cell by the published patches it shares ground with (more than a millimetre of it).

    A cell that none lies on has no split, nor has one where patches of two splits meet: its ground is in both.
    """
    splits: dict[Cell, set[str]] = {cell: set() for cell in cells}
    names = np.array([patch.split for patch in patches], object)
    epsgs = np.array([patch.epsg for patch in patches], np.int64)
    outlines = shapely.box(*np.array([patch.bounds for patch in patches], float).reshape(-1, 4).T)
    for zone in sorted({cell.epsg for cell in splits}):
        inside = [cell for cell in splits if cell.epsg == zone]
        squares = shapely.box(*np.array([cell.bounds for cell in inside], float).T)
        for epsg in np.unique(epsgs):
            if not neighbouring(zone, int(epsg)):
                continue
            there = moved(outlines[epsgs == epsg], f"EPSG:{epsg}", f"EPSG:{zone}")
            cell, patch = shapely.STRtree(there).query(squares, predicate="intersects")
            found = zip(cell, names[epsgs == epsg][patch], overlapping(squares[cell], there[patch]), strict=True)
            for number, split, overlap in found:
                if overlap:
                    splits[inside[number]].add(split)
    decided = {cell: next(iter(found)) if len(found) == 1 else None for cell, found in splits.items()}
    return PatchSplits(decided, sorted(cell for cell, found in splits.items() if len(found) > 1))
