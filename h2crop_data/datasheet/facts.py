"""The facts of a datasheet: those of a season, counts_by_text when it is sealed, and those of all seasons of a release.

The facts of a season are plain data that JSON can hold. Their size does not depend on the number of samples, so that a
datasheet is made without reading the tables of seasons that did not change.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import BACKGROUND, NONE, SPLITS, UNKNOWN
from h2crop_data.cube.index import SeasonTables
from h2crop_data.cube.retraction import NEVER_BUILT, REBUILT
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.datasheet.markdown import code

#: Names of the months, whatever the language of the machine.
MONTH_NAMES = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
#: Names that a list of a season keeps, at least as many as a line of a datasheet lists.
KEPT_NAMES = 8
#: By what used scenes are counts_by_text.
CATALOG_COLUMNS = ("sensor", "catalog", "collection")
#: The two years of declarations, and what a datasheet says of what was read of them.
READ_FACTS = ("parcels", "prior", "warnings")


@dataclass(frozen=True)
class ReleaseFacts:
    """What a datasheet is made from."""

    #: Season, in order -> what `season_facts` gives.
    seasons: Mapping[int, Mapping[str, Any]]
    #: `statistics.json`.
    statistics: Mapping[str, Any]
    #: Of each tier: id -> name.
    classes: Sequence[Mapping[int, str]]

    @property
    def samples(self) -> int:
        """Samples of all seasons."""
        return sum(of_season["samples"] for of_season in self.seasons.values())

    @property
    def splits(self) -> Counter[str]:
        """Split -> samples of all seasons."""
        counts: Counter[str] = Counter()
        for of_season in self.seasons.values():
            counts.update(of_season["splits"])
        return counts

    def of_source(self, name: str) -> dict[int, Mapping[str, Any]]:
        """Season -> what a source counts of it."""
        found = {season: of_season["of_sources"].get(name, {}) for season, of_season in self.seasons.items()}
        return {season: facts for season, facts in found.items() if facts}

    def sections(self, name: str) -> list[dict[str, Any]]:
        """A section of every recipe that has it."""
        recipes = (of_season["recipe"] for of_season in self.seasons.values())
        return [recipe[name] for recipe in recipes if recipe.get(name)]

    def united(self, name: str) -> list[Any]:
        """What the seasons list under a name, each once, in order."""
        return sorted({value for of_season in self.seasons.values() for value in of_season[name]})


def season_facts(tables: SeasonTables, data_bytes: int, coordinates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The facts of a season that do not depend on its sources.

    data_bytes: of its arrays and coordinates together. coordinates: values of those of its first block, by name.
    """
    samples, blocks = tables.samples, tables.blocks
    retracted = is_retracted(blocks)
    bounds = [float(edge) for edge in samples.total_bounds] if len(samples) else []
    zones = samples["epsg"].dropna().unique() if "epsg" in samples else []
    countries = Counter(map(str, tables.parcels["country"])) if tables.parcels is not None else Counter[str]()
    return {
        "samples": len(samples),
        "cells": cells_of(samples),
        "blocks": int((~retracted).sum()),
        "bytes": data_bytes,
        "bounds": bounds if all(map(math.isfinite, bounds)) else [],
        "zones": sorted(int(zone) for zone in zones if int(zone)),
        "unplaced": int(samples["x0"].isna().sum()) if "x0" in samples else 0,
        "countries": dict(sorted(countries.items())),
        "splits": counts_by_text(samples["split"]),
        "squares": square_rows(tables.squares),
        "scenes": scenes_by_sensor(tables.scenes, samples),
        "catalogs": scenes_by_catalog(tables.scenes),
        "decisions": offset_decisions(tables.scenes),
        "retracted": retracted_blocks(blocks[retracted]),
        "software": distinct(blocks, "software"),
        "recipe_hashes": distinct(blocks, "recipe"),
        "taxonomy": distinct(blocks, "taxonomy"),
        "recipe": tables.recipe,
        "read": {part: read_facts(facts) for part, facts in tables.sources.items()},
        "coordinates": {name: list(values) for name, values in coordinates.items()},
    }


def read_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a datasheet says of what was read for a part of the plan."""
    return {name: facts[name] for name in READ_FACTS if name in facts}


def counts_by_text(values: Iterable[Any]) -> dict[str, int]:
    """How often each value occurs, by its text."""
    return dict(sorted(Counter(map(str, values)).items()))


def name_summary(names: Iterable[str]) -> dict[str, Any]:
    """Some names: how many there are, and the first ones in order."""
    found = sorted(set(names))
    return {"count": len(found), "first": found[:KEPT_NAMES]}


def named_together(parts: Iterable[Mapping[str, Any]]) -> tuple[int, list[str]]:
    """Names of several seasons, none of which is of two: how many there are, and the first ones in order."""
    kept = list(parts)
    return sum(part["count"] for part in kept), sorted(name for part in kept for name in part["first"])


def added(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts of several seasons together, the most frequent first."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items(), key=lambda one: (-one[1], one[0])))


def distinct(rows: pd.DataFrame, column: str) -> list[str]:
    """What a column holds, each value once, in order; nothing where there is none."""
    return sorted(set(map(str, rows[column].dropna())) - {NONE}) if column in rows else []


def square_rows(squares: pd.DataFrame | None) -> list[list[Any]] | None:
    """The split squares of a season: column, row, split; None where the split is not drawn by squares."""
    if squares is None:
        return None
    rows = squares[["column", "row", "split"]].itertuples(index=False, name=None)
    return [[int(column), int(row), str(split)] for column, row, split in rows]


def scenes_by_sensor(scenes: pd.DataFrame, samples: pd.DataFrame) -> list[dict[str, Any]]:
    """By sensor: how many scenes were found and used, and the first and last day of those used."""
    if not {"id", "sensor", "taken", "time"} <= set(scenes.columns):
        return []
    rows = []
    for sensor in sorted(scenes["sensor"].unique()):
        found = scenes[scenes["sensor"] == sensor]
        used = found[found["taken"]]
        of_samples = used["id"].isin(samples["scene"]) if "scene" in samples else used["taken"] & False
        used = used[of_samples] if of_samples.any() else used
        times = used["time"].dropna()
        days = [f"{time:%Y-%m-%d}" for time in (times.min(), times.max())] if len(times) else []
        rows.append({"sensor": str(sensor), "found": len(found), "used": len(used), "days": days})
    return rows


def scenes_by_catalog(scenes: pd.DataFrame) -> list[dict[str, Any]] | None:
    """Used scenes by sensor, catalog and collection; None where it is not recorded which catalog listed them."""
    if "catalog" not in scenes:
        return None
    used = scenes[scenes["taken"]]
    columns = [used[name].astype(object).where(used[name].notna(), None) for name in CATALOG_COLUMNS]
    return [
        {"sensor": sensor, "catalog": catalog, "collection": collection, "used": number}
        for (sensor, catalog, collection), number in Counter(zip(*columns, strict=True)).items()
    ]


def offset_decisions(scenes: pd.DataFrame) -> dict[str, int]:
    """How the offset of the scenes that are used was decided -> how many scenes."""
    if not {"sensor", "taken", "reason"} <= set(scenes.columns):
        return {}
    decided = scenes["taken"] & scenes["offset"].notna() if "offset" in scenes else scenes["taken"]
    return counts_by_text(scenes.loc[decided, "reason"].dropna())


def is_retracted(blocks: pd.DataFrame) -> NDArray[np.bool_]:
    """Which blocks are kept out of the release."""
    if "retracted" not in blocks:
        return np.zeros(len(blocks), bool)
    return np.asarray(blocks["retracted"].fillna("") != "", bool)


def retracted_blocks(blocks: pd.DataFrame) -> dict[str, Any]:
    """Blocks that are kept out: how many were built, how many never, and by reason their numbers, the first ones."""
    numbers: dict[str, list[int]] = defaultdict(list)
    never = 0
    for row in blocks.to_dict("records"):
        reason = str(row["retracted"])
        never += reason.startswith(NEVER_BUILT)
        # Of one that was rebuilt without the numbers of the new blocks, which differ.
        words = f"rebuilt: {reason.split(': ', 1)[-1]}" if reason.startswith(REBUILT) else reason
        numbers[words].append(int(row["block"]))
    reasons = {words: {"count": len(found), "first": found[:KEPT_NAMES]} for words, found in sorted(numbers.items())}
    return {"built": len(blocks) - never, "never": never, "reasons": reasons}


def cells_of(samples: pd.DataFrame) -> int:
    """How many cells of the lattice some samples show."""
    return int(samples.loc[samples["cell"] != NONE, "cell"].nunique()) if "cell" in samples else 0


def summed_shares(values: pd.Series[float]) -> dict[str, Any] | None:
    """Shares of samples summed up: how many samples have one, their mean and the largest; None where none has."""
    known = values.dropna()
    if not len(known):
        return None
    return {"samples": len(known), "mean": float(known.mean()), "largest": float(known.max())}


def shares_together(parts: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The mean and the largest of shares of several seasons."""
    samples = sum(part["samples"] for part in parts)
    mean = sum(part["mean"] * part["samples"] for part in parts) / samples
    return mean, max(part["largest"] for part in parts)


# Of all seasons


def split_names(facts: ReleaseFacts) -> list[str]:
    """The splits that have samples, and those the recipes asked for, in order."""
    asked = {name for section in facts.sections("split") for name in section.get("shares", {})}
    there = set(facts.splits) | asked
    return [name for name in SPLITS if name in there] + sorted(there - set(SPLITS))


def class_names(facts: ReleaseFacts, tier: int) -> dict[int, str]:
    """Names of the classes of a tier (from 0)."""
    return {int(number): name for number, name in facts.classes[tier].items()} if tier < len(facts.classes) else {}


def pixel_counts(facts: ReleaseFacts, split: str | None, tier: int, name: str = "label") -> Counter[int]:
    """Pixels by class at a tier (from 0), over all seasons; of one split or of all."""
    pixels: Counter[int] = Counter()
    for splits in facts.statistics.get("class_pixels", {}).values():
        for one, arrays in splits.items():
            if split in (None, one) and name in arrays:
                pixels.update({int(number): found for number, found in arrays[name][tier].items()})
    return pixels


def parcels_by_class(facts: ReleaseFacts, split: str, tier: int) -> Counter[int]:
    """Parcels by class at a tier (from 0), over all seasons."""
    parcels: Counter[int] = Counter()
    for splits in facts.statistics.get("class_parcels", {}).values():
        if split in splits:
            parcels.update({int(number): found for number, found in splits[split][tier].items()})
    return parcels


def labelled(counts: Mapping[Any, int]) -> int:
    """How many have a class."""
    return sum(number for name, number in counts.items() if BACKGROUND < int(name) < UNKNOWN)


def parcels_drawn(facts: ReleaseFacts, season: int, split: str | None = None) -> int | None:
    """How many parcels have a pixel with a class; None where that was not counts_by_text."""
    counts = facts.statistics.get("class_parcels", {}).get(str(season))
    if counts is None:
        return None
    return sum(labelled(tiers[0]) for name, tiers in counts.items() if split in (None, name))


def found_in(facts: ReleaseFacts, source: str) -> str:
    """The catalogs a source was found in, as the recipes name them; of several, how many scenes came from each."""
    told = []
    for section in facts.sections(source):
        catalogs = catalogs_of(section)
        for number, (name, collection) in enumerate(catalogs):
            place = f"a local list of scenes, {code(name)}, which does not name their provider"
            place = place if is_local(name) else code(name)
            place += f", collection {code(collection)}" if collection else ""
            before = [of for other, of in catalogs[:number] if other == name]
            others = [*before, *(of for other, of in catalogs[number + 1 :] if other == name)]
            # Items that state no collection are of the first.
            others += [""] if before else []
            used = f" ({scenes_from(facts, source, name, others)} used)" if len(catalogs) > 1 else ""
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


def scenes_from(facts: ReleaseFacts, source: str, catalog: str, others: Sequence[str | None]) -> str:
    """How many scenes of a source that are used came from a catalog, in words.

    others: collections of the same catalog that are listed separately.
    """
    seasons = [of_season["catalogs"] for of_season in facts.seasons.values()]
    if any(of_season is None for of_season in seasons):
        return "an unknown number of scenes"
    count = sum(
        row["used"]
        for of_season in seasons
        for row in of_season
        if (row["sensor"], row["catalog"]) == (source, catalog) and row["collection"] not in others
    )
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
