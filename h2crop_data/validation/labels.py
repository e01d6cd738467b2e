"""Labels, priors and parcel numbers: classes that exist, tiers that fit, and every pixel that of its parcel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import BACKGROUND, TIERS, UNKNOWN
from h2crop_data.validation.findings import first
from h2crop_data.validation.parcels import Parents, SeasonParcels, class_ids, is_class, parents_of, tier_problems
from h2crop_data.validation.release import Release
from h2crop_data.validation.values import Problem

#: Combinations told of one sample.
TOLD = 3
ALL_UNKNOWN = (UNKNOWN,) * TIERS
NOT_DECLARED = (BACKGROUND,) * TIERS
#: (tier of the child from 2, child class) -> parent class.
TierPairs = dict[tuple[int, int], int]


@dataclass
class Priors:
    """How the priors of some samples compare with their labels."""

    #: Samples whose prior is known anywhere, of these those whose prior is their label everywhere, and of these those
    #: with a class.
    known: int = 0
    alike: int = 0
    telling: int = 0

    def add(self, other: Priors) -> None:
        """Count other samples as well."""
        self.known += other.known
        self.alike += other.alike
        self.telling += other.telling

    @property
    def are_labels(self) -> bool:
        """Whether every prior is its label, and not only because nothing grew."""
        return self.known == self.alike and self.telling > 0


@dataclass(frozen=True)
class SeasonLabels:
    """What the labels of a season must fit."""

    #: None where the index does not tell.
    classes: list[set[int]] | None
    parcels: SeasonParcels | None
    parents: Parents
    #: Whether there may be ground that no declarations cover, where nothing is known.
    uncovered: bool

    @classmethod
    def of(cls, release: Release, season: int) -> SeasonLabels:
        """From the index of a release."""
        table = release.tables.get(f"parcels-{season}")
        parcels = None if table is None else SeasonParcels.of(table)
        return cls(class_ids(release), parcels, parents_of(release), may_be_uncovered(release, season))


def may_be_uncovered(release: Release, season: int) -> bool:
    """Whether some ground of a season may have no declarations at all, by its recipe."""
    blocks = release.blocks(season)
    sources = release.settings(season, "parcels").get("season")
    # A season that grew was planned by several recipes, of which the index has the newest.
    if blocks is None or blocks["recipe"].nunique() != 1 or not isinstance(sources, list):
        return True
    sources = [source for source in sources if isinstance(source, dict)]
    current = [source for source in sources if source.get("years") is None or season in source["years"]]
    return not current or all(source.get("coverage") is not None for source in current)


def label_problems(
    arrays: dict[str, NDArray[Any]], split: str | None, labels: SeasonLabels, pairs: TierPairs, *, imported: bool
) -> Iterator[Problem]:
    """Labels and priors (sample, tier, y, x) and parcel numbers (sample, y, x) of a block.

    split: of the block. pairs: receives which class belongs to which class of the tier above. imported: the published
    files know no parcels, and their tiers are as they are.
    """
    for name in ("label", "prior"):
        for sample, layers in enumerate(arrays.get(name, ())):
            for check, what in class_problems(layers, labels, pairs):
                as_published = imported and check == "tiers"
                yield Problem(sample, name, check, what, "warning" if as_published else "error")
    if imported or "parcel" not in arrays or labels.parcels is None:
        return
    for sample, numbers in enumerate(arrays["parcel"]):
        present = np.setdiff1d(numbers, [0])
        strange = present[labels.parcels.find(present) < 0].tolist()
        if strange:
            yield Problem(sample, "parcel", "parcels", f"has parcels that the index does not have: {first(strange)}")
        elif "label" in arrays and split is not None:
            for what in parcel_problems(arrays["label"][sample], numbers, split, labels.parcels, labels.uncovered):
                yield Problem(sample, "label", "labels", what)


def compare_priors(arrays: dict[str, NDArray[Any]]) -> Priors:
    """How the priors of a block compare with its labels, sample by sample."""
    priors = Priors()
    for label, prior in zip(arrays["label"], arrays["prior"], strict=False):
        known = bool((prior != UNKNOWN).any())
        alike = known and bool((label == prior).all())
        priors.add(Priors(known, alike, alike and bool(((prior > BACKGROUND) & (prior < UNKNOWN)).any())))
    return priors


def combined(layers: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The classes of four tiers (tier, y, x) as one number (y, x)."""
    parts = layers.astype(np.uint32)
    together: NDArray[np.uint32] = (parts[0] << 24) | (parts[1] << 16) | (parts[2] << 8) | parts[3]
    return together


def classes_in(number: int) -> tuple[int, ...]:
    """The classes of four tiers in such a number."""
    return tuple(number >> shift & 255 for shift in (24, 16, 8, 0))


def class_problems(layers: NDArray[np.uint8], labels: SeasonLabels, pairs: TierPairs) -> list[tuple[str, str]]:
    """What is wrong with the classes of one sample: the check, and what."""
    numbers, counts = np.unique(combined(layers), return_counts=True)
    problems: list[tuple[str, str]] = []
    parents = [dict(of_tier) for of_tier in labels.parents]
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        classes = classes_in(number)
        for tier, found in enumerate(classes):
            if labels.classes is not None and is_class(found) and found not in labels.classes[tier]:
                problems.append(
                    ("range", f"{count} pixel(s) with class {found} of tier {tier + 1}, which does not exist")
                )
        strange = [what for _, what in tier_problems([list(classes)], parents)]
        problems += [("tiers", f"{count} pixel(s) with {what}") for what in strange]
        if not strange:
            pairs |= {
                (tier + 2, child): parent for tier, (parent, child) in enumerate(pairwise(classes)) if is_class(child)
            }
    return problems[: 2 * TOLD]


def parcel_problems(
    layers: NDArray[np.uint8], numbers: NDArray[np.uint32], split: str, parcels: SeasonParcels, uncovered: bool
) -> list[str]:
    """Where the label of a pixel is not that of its parcel, in words; all parcel numbers are known.

    layers: (tier, y, x). numbers: (y, x). split: of the block. uncovered: whether a pixel may be unknown because no
    declarations cover it.
    """
    keys, counts = np.unique((numbers.astype(np.uint64) << np.uint64(32)) | combined(layers), return_counts=True)
    places = parcels.find(keys >> np.uint64(32)).tolist()
    problems = []
    for key, count, place in zip(keys.tolist(), counts.tolist(), places, strict=True):
        parcel, classes = key >> 32, classes_in(key & 0xFFFFFFFF)
        own = bool(parcel) and parcels.split[place] == split
        expected = NOT_DECLARED if not parcel else tuple(parcels.tiers[place].tolist()) if own else ALL_UNKNOWN
        if classes == expected or (classes == ALL_UNKNOWN and uncovered):
            continue
        of_parcel = f"of parcel {parcel}" if parcel else "of no parcel"
        whose = "" if own or not parcel else ", which belongs to another split"
        problems.append(f"{count} pixel(s) {of_parcel}{whose} have the classes {classes}, not {expected}")
    return problems[:TOLD]
