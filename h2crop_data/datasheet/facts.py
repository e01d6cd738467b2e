"""Counts of the tables of a release, for the parts of a datasheet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import BACKGROUND, MONTHS, NONE, SPLITS, UNKNOWN
from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.datasheet.markdown import code

#: Names of the months, whatever the language of the machine.
MONTH_NAMES = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def everything(tables: IndexTables) -> pd.DataFrame:
    """The samples of all seasons, without their outlines."""
    parts = [samples.drop(columns="geometry", errors="ignore") for samples in tables.samples.values()]
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True) if parts else pd.DataFrame()


def split_names(tables: IndexTables) -> list[str]:
    """The splits that have samples, and those the recipes asked for, in order."""
    asked = {name for section in recipe_sections(tables, "split") for name in section.get("shares", {})}
    there = {str(name) for samples in tables.samples.values() for name in samples["split"]} | asked
    return [name for name in SPLITS if name in there] + sorted(there - set(SPLITS))


def recipe_sections(tables: IndexTables, name: str) -> list[dict[str, Any]]:
    """A section of every recipe that has it."""
    return [recipe[name] for recipe in tables.recipes.values() if recipe.get(name)]


def class_names(tables: IndexTables, tier: int) -> dict[int, str]:
    """Names of the classes of a tier (from 0)."""
    return {int(number): name for number, name in tables.classes[tier].items()} if tier < len(tables.classes) else {}


def pixel_counts(tables: IndexTables, split: str | None, tier: int, name: str = "label") -> Counter[int]:
    """Pixels by class at a tier (from 0), over all seasons; of one split or of all."""
    pixels: Counter[int] = Counter()
    for splits in tables.statistics.get("class_pixels", {}).values():
        for one, arrays in splits.items():
            if split in (None, one) and name in arrays:
                pixels.update({int(number): found for number, found in arrays[name][tier].items()})
    return pixels


def parcels_by_class(tables: IndexTables, split: str, tier: int) -> Counter[int]:
    """Parcels by class at a tier (from 0), over all seasons."""
    parcels: Counter[int] = Counter()
    for splits in tables.statistics.get("class_parcels", {}).values():
        if split in splits:
            parcels.update({int(number): found for number, found in splits[split][tier].items()})
    return parcels


def labelled(counts: dict[Any, int]) -> int:
    """How many have a class."""
    return sum(number for name, number in counts.items() if BACKGROUND < int(name) < UNKNOWN)


def clear_shares(samples: pd.DataFrame) -> NDArray[np.float64] | None:
    """(sample, month): the share of pixels with a clear Sentinel-2 look; None where no sample says."""
    lists = samples["s2_clear_share"].dropna().to_list() if "s2_clear_share" in samples else []
    return np.array(lists, np.float64).reshape(-1, MONTHS) if lists else None


def of_season(rows: pd.DataFrame, season: int) -> pd.DataFrame:
    """The rows of a season."""
    return rows[rows["season"] == season] if "season" in rows else rows


def is_retracted(blocks: pd.DataFrame) -> NDArray[np.bool_]:
    """Which blocks are kept out of the release."""
    if "retracted" not in blocks:
        return np.zeros(len(blocks), bool)
    return np.asarray(blocks["retracted"].fillna("") != "", bool)


def cells_of(samples: pd.DataFrame) -> int:
    """How many cells of the lattice some samples show."""
    return int(samples.loc[samples["cell"] != NONE, "cell"].nunique()) if "cell" in samples else 0


def parcels_drawn(tables: IndexTables, season: int, split: str | None = None) -> int | None:
    """How many parcels have a pixel with a class; None where that was not counted."""
    counted = tables.statistics.get("class_parcels", {}).get(str(season))
    if counted is None:
        return None
    return sum(labelled(tiers[0]) for name, tiers in counted.items() if split in (None, name))


def found_in(tables: IndexTables, source: str) -> str:
    """The catalogs a source was found in, as the recipes name them; of several, how many scenes came from each."""
    told = []
    for section in recipe_sections(tables, source):
        catalogs = catalogs_of(section)
        for number, (name, collection) in enumerate(catalogs):
            place = f"a local list of scenes, {code(name)}, which does not name their provider"
            place = place if is_local(name) else code(name)
            place += f", collection {code(collection)}" if collection else ""
            before = [of for other, of in catalogs[:number] if other == name]
            others = [*before, *(of for other, of in catalogs[number + 1 :] if other == name)]
            # Items that state no collection are of the first.
            others += [""] if before else []
            used = f" ({scenes_from(tables, source, name, others)} used)" if len(catalogs) > 1 else ""
            told.append(place + used)
    return f" from {'; '.join(dict.fromkeys(told))}" if told else ""


def catalogs_of(section: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The catalogs of a section of a recipe in order, with the collection searched in each."""
    stated = section.get("catalog") or []
    entries = stated if isinstance(stated, list) else [stated]
    own = section.get("collection")
    return [
        (one["catalog"], one.get("collection") or own) if isinstance(one, dict) else (str(one), own) for one in entries
    ]


def is_local(catalog: str) -> bool:
    """Whether a catalog is a path: neither a URL, nor the name of a provider, which has no suffix and no folder."""
    return "://" not in catalog and ("." in catalog or "/" in catalog)


def scenes_from(tables: IndexTables, source: str, catalog: str, others: Sequence[str | None]) -> str:
    """How many scenes of a source that are used came from a catalog, in words.

    others: collections of the same catalog that are listed separately.
    """
    scenes = tables.scenes
    if "catalog" not in scenes:
        return "an unknown number of scenes"
    own = (scenes["sensor"] == source) & (scenes["catalog"] == catalog) & ~scenes["collection"].isin(others)
    count = int((scenes["taken"] & own).sum())
    return f"{count} scene{'' if count == 1 else 's'}"


def median_of(counts: dict[str, int]) -> int | None:
    """The number that half of the pixels do not exceed (nearest rank)."""
    rank, reached = math.ceil(sum(counts.values()) / 2), 0
    for number in sorted(counts, key=int):
        reached += counts[number]
        if reached >= rank > 0:
            return int(number)
    return None


def has_classes(layout: StoreLayout) -> bool:
    """Whether a store has classes in tiers."""
    return any("tier" in spec.dims for spec in layout.arrays().values())
