"""Facts of a store from its index: statistics of the training split, and offsets of stored numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from h2crop_data.constants import IMAGES, REFLECTANCE_SCALE
from h2crop_data.cube.reading import read_index_json
from h2crop_data.errors import StoreError


def reflectance_statistics(store: str | Path, release: int | None = None) -> dict[str, Any]:
    """`reflectance` of a release's `statistics.json`. Raises StoreError where the store has no training split."""
    statistics: dict[str, Any] = read_index_json(store, "statistics", release)["reflectance"]
    if not any(statistics.get(name) for name in IMAGES):
        raise StoreError(
            f"{store} has no statistics of reflectance: no sample of it is in the split 'train'; "
            "normalise with those of another store"
        )
    return statistics


def stored_number(reflectance: float | None) -> float:
    """Reflectance as a stored number; 0 where there is none."""
    return 0.0 if reflectance is None else reflectance / REFLECTANCE_SCALE


def stored_offsets(store: str | Path, release: int | None = None) -> dict[str, float]:
    """What the numbers of a store's arrays have on top of reflectance x 10000: array -> offset, {} for none.

    Only Sentinel-2 numbers that were imported from published files with their offset have one
    (docs/published-layout.md).
    Raises StoreError where it differs between seasons.
    """
    recipes = read_index_json(store, "recipes", release)
    offsets = {float((recipe.get("published") or {}).get("s2_offset", 0)) for recipe in recipes.values()}
    if len(offsets) > 1:
        raise StoreError(
            f"the Sentinel-2 numbers of {store} have different offsets in different seasons; "
            "import all of them with --remove-offset, or none"
        )
    (offset,) = offsets
    return {"s2": offset} if offset else {}
