"""Parcels and classes: the numbers labels are made of, and how the tiers hang together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import BACKGROUND, SPLITS, TIER_COLUMNS, TIERS, UNKNOWN
from h2crop_data.validation.findings import Findings, error, first
from h2crop_data.validation.release import Release

#: The split of a parcel on ground that no list of samples has.
NO_SPLIT = ""
#: Child class -> parent class, for tiers 2 to 4 on tiers 1 to 3.
Parents = list[dict[int, int]]


@dataclass(frozen=True)
class SeasonParcels:
    """The parcels of a season, in order of number."""

    numbers: NDArray[np.int64]
    #: (parcel, 4): classes.
    tiers: NDArray[np.uint8]
    #: (parcel): its split.
    split: NDArray[np.object_]

    @classmethod
    def of(cls, table: pd.DataFrame) -> SeasonParcels:
        """From the index of a season."""
        table = table.sort_values("number")
        tiers = table[TIER_COLUMNS].to_numpy(np.int64).astype(np.uint8)
        return cls(table["number"].to_numpy(np.int64), tiers, table["split"].to_numpy(object))

    def find(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The place of each number in the table, -1 where it has none."""
        if not len(self.numbers):
            return np.full(numbers.shape, -1, np.int64)
        places = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        return np.where(self.numbers[places] == numbers, places, -1)


def class_ids(release: Release) -> list[set[int]] | None:
    """The ids of each tier's classes; None where they are not known."""
    document = release.documents.get("classes")
    try:
        ids = [{int(number) for number in tier} for tier in document]  # type: ignore[union-attr]
    except (TypeError, ValueError):
        return None
    return ids if len(ids) == TIERS else None


def parents_of(release: Release) -> Parents:
    """Which class of the tier above each class belongs to, as the parcels of all seasons have it."""
    parents: Parents = [{} for _ in range(TIERS - 1)]
    for season in release.seasons:
        table = release.tables.get(f"parcels-{season}")
        if table is not None:
            for row in np.unique(table[TIER_COLUMNS].to_numpy(np.int64), axis=0).tolist():
                for above, (parent, child) in enumerate(pairwise(row)):
                    if is_class(child):
                        parents[above].setdefault(child, parent)
    return parents


def is_class(number: int) -> bool:
    """Whether a number in a label stands for a class."""
    return BACKGROUND < number < UNKNOWN


def tier_problems(tiers: Iterator[Any] | list[list[int]], parents: Parents) -> Iterator[tuple[list[int], str]]:
    """Combinations of classes (tier 1 to 4) that cannot be, and why.

    parents: what is known already; grows by what the combinations say.
    """
    for combination in tiers:
        for above, (parent, child) in enumerate(pairwise(combination)):
            if not is_class(child):
                continue
            expected = parents[above].setdefault(child, parent)
            if not is_class(parent):
                yield combination, f"class {child} of tier {above + 2} without one of tier {above + 1} ({parent})"
            elif expected != parent:
                told = (
                    f"class {child} of tier {above + 2} under {parent} of tier {above + 1}, elsewhere under {expected}"
                )
                yield combination, told
        if BACKGROUND in combination and any(combination):
            yield combination, f"not declared at one tier only: {combination}"


def check_classes(release: Release) -> Findings:
    """Four tiers of ids and names."""
    if "classes" not in release.documents:
        return
    document, path = release.documents["classes"], release.index_path("classes")
    remedy = release.remedies.wrong_index()
    ids = class_ids(release)
    if ids is None or not all(isinstance(tier, Mapping) for tier in document):
        yield error("classes", path, f"is not a list of {TIERS} tiers of ids and names", remedy)
        return
    for tier, names in enumerate(document, 1):
        strange = sorted(number for number in ids[tier - 1] if not is_class(number))
        if strange or not all(isinstance(name, str) and name for name in names.values()):
            yield error(
                "classes", path, f"tier {tier} has ids that are no class, or no names: {first(strange)}", remedy
            )


def check_parcels(release: Release) -> Findings:
    """The parcels of every season: numbers, splits, classes and tiers."""
    ids = class_ids(release)
    parents: Parents = [{} for _ in range(TIERS - 1)]
    for season in release.seasons:
        table = release.tables.get(f"parcels-{season}")
        if table is None:
            continue
        path, remedy = release.index_path(f"parcels-{season}"), release.remedies.wrong_index()
        release.counts["parcels"] += len(table)
        numbers = table["number"].to_numpy(np.int64)
        for told, wrong in (
            ("numbers are not 1 or more, each once and in order", (numbers < 1) | (np.diff(numbers, prepend=0) < 1)),
            (f"splits are none of {', '.join(SPLITS)}", ~table["split"].isin([*SPLITS, NO_SPLIT]).to_numpy()),
            ("one crop code has several classes", several_classes(table)),
        ):
            if wrong.any():
                release.doubtful_parcels.add(season)
                yield error("parcels", path, f"{told}: parcel {first(numbers[wrong].tolist())}", remedy)
        combinations = np.unique(table[TIER_COLUMNS].to_numpy(np.int64), axis=0).tolist()
        for _, told in tier_problems(combinations, parents):
            yield error("tiers", path, told, remedy)
        for tier, column in enumerate(TIER_COLUMNS):
            unknown = sorted(set(table[column].tolist()) - {UNKNOWN} - (ids[tier] if ids else set(range(1, UNKNOWN))))
            if unknown:
                told = f"classes of tier {tier + 1} that classes.json does not have: {first(unknown)}"
                yield error("parcels", path, told, remedy)


def several_classes(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Parcels whose HCAT3 code has other classes elsewhere."""
    rows = table[["hcat3", *TIER_COLUMNS]].drop_duplicates()
    twice = set(rows["hcat3"][rows["hcat3"].duplicated()])
    return table["hcat3"].isin(twice).to_numpy()
