"""Splits given as lists: which cell is in which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from h2crop_data.errors import PlanError
from h2crop_data.grid import Cell
from h2crop_data.published_ids import looks_published
from h2crop_data.sources.registry import source_of
from h2crop_data.sources.source import Candidate
from h2crop_data.splits.lists import read_split_lists, splits_from_lists, splits_from_patches


def listed_splits(path: Path, candidates: Sequence[Candidate], observed: Mapping[str, Any]) -> dict[Cell, str]:
    """The split of every cell that lists put into one; the others are left out of the store.

    path: the folder of the lists. observed: what sources pinned whose scenes make samples, by which patches of the
    published dataset are found.
    Raises RecipeError for lists that cannot be used, PlanError where no cell is in one.
    """
    lists = read_split_lists(path)
    published = {name: split for name, split in lists.items() if looks_published(name)}
    own = {name: split for name, split in lists.items() if name not in published}
    cells = sorted({candidate.cell for candidate in candidates})
    splits = {cell: split for cell, split in splits_from_lists(own, cells).items() if split is not None}
    if published:
        patches = [patch for name, pinned in observed.items() for patch in source_of(name).patches(pinned, published)]
        on_ground = splits_from_patches(patches, cells)
        splits = {cell: split for cell, split in on_ground.splits.items() if split is not None} | splits
    if not splits:
        raise PlanError(f"none of {len(cells)} cells is in the lists of split.lists ({path})")
    return splits
