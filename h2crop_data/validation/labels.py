"""Classes and parcels: the numbers labels are made of, and whether every pixel is that of its parcel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import BACKGROUND, SPLITS, TIER_COLUMNS, TIERS, UNKNOWN
from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.validation.documents import holds_classes
from h2crop_data.validation.findings import Checking, Counted, Findings, NotChecked, Problem, error, first, warning
from h2crop_data.validation.ground import Outlines, Place, ground_problems
from h2crop_data.validation.index import SOURCES
from h2crop_data.validation.metadata import stated_meanings
from h2crop_data.validation.places import ground_of_cell
from h2crop_data.validation.release import Release
from h2crop_data.validation.sources import Arrays, BlockValues, DerivedColumn, SourceChecks, ValueCheck

#: The split of a parcel on ground that no list of samples has.
NO_SPLIT = ""
#: Combinations reported of one sample.
REPORTED = 3
ALL_UNKNOWN = (UNKNOWN,) * TIERS
NOT_DECLARED = (BACKGROUND,) * TIERS
#: Begins what is said where parcels cannot be compared with their outlines.
OUTLINES_OF = "whether parcels lie where their outlines are, in"
#: Child class -> parent class, for tiers 2 to 4 on tiers 1 to 3.
Parents = list[dict[int, int]]
#: (tier of the child from 2, child class) -> parent class.
TierPairs = dict[tuple[int, int], int]


# The tables of the index


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


def tier_problems(
    combinations: Sequence[Sequence[int]], known: Parents
) -> tuple[list[tuple[Sequence[int], str]], Parents]:
    """Combinations of classes (tier 1 to 4) that cannot be, and why; and the classes above each class.

    known: the classes above each class as others have them; those of the combinations are added in the result.
    """
    problems: list[tuple[Sequence[int], str]] = []
    parents = [dict(of_tier) for of_tier in known]
    for combination in combinations:
        for above, (parent, child) in enumerate(pairwise(combination)):
            if not is_class(child):
                continue
            expected = parents[above].setdefault(child, parent)
            if not is_class(parent):
                what = f"class {child} of tier {above + 2} without one of tier {above + 1} ({parent})"
                problems.append((combination, what))
            elif expected != parent:
                what = (
                    f"class {child} of tier {above + 2} under {parent} of tier {above + 1}, elsewhere under {expected}"
                )
                problems.append((combination, what))
        if BACKGROUND in combination and any(combination):
            problems.append((combination, f"not declared at one tier only: {list(combination)}"))
    return problems, parents


def check_classes(release: Release) -> Findings:
    """Four tiers of ids and names, which the attributes of arrays have as well."""
    problems = list(problems_of_classes(release))
    yield from problems
    if not problems:
        yield from meaning_problems(release)


def problems_of_classes(release: Release) -> Findings:
    """What is wrong with the list of classes."""
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
                "classes", path, f"tier {tier} has invalid ids, or ids without a name: {first(strange)}", remedy
            )


def meaning_problems(release: Release) -> Findings:
    """Arrays whose attributes do not name the classes of the index; format 1 has no such attributes."""
    stated, document = stated_meanings(release.root), release.documents.get("classes")
    if stated is None or document is None:
        return
    wanted = {}
    for tier, names in enumerate(document, 1):
        every = {0: "not_declared", UNKNOWN: "unknown", **{int(number): name for number, name in names.items()}}
        pairs = [f"{number}={'_'.join(every[number].split())}" for number in sorted(every)]
        wanted[f"classes_tier{tier}"] = " ".join(pairs)
    for name, spec in release.specs.items():
        if holds_classes(spec) and stated.get(name, {}) != wanted:
            what = f"the attributes of {name} do not name the classes of {release.index_path('classes')}"
            yield error("metadata", ROOT, what, release.remedies.sealed())


def check_parcels(release: Release) -> Checking[Release]:
    """The parcels of every season: numbers, splits, classes and tiers; gives the release with what is doubtful."""
    ids = class_ids(release)
    parents: Parents = [{} for _ in range(TIERS - 1)]
    doubtful = set()
    for season in release.seasons:
        table = release.tables.get(f"parcels-{season}")
        if table is None:
            continue
        path, remedy = release.index_path(f"parcels-{season}"), release.remedies.wrong_index()
        yield Counted("parcels", len(table))
        numbers = table["number"].to_numpy(np.int64)
        for what, wrong in (
            ("numbers are not 1 or more, each once and in order", (numbers < 1) | (np.diff(numbers, prepend=0) < 1)),
            (f"splits are none of {', '.join(SPLITS)}", ~table["split"].isin([*SPLITS, NO_SPLIT]).to_numpy()),
            ("one crop code has several classes", several_classes(table)),
        ):
            if wrong.any():
                doubtful.add(season)
                yield error("parcels", path, f"{what}: parcel {first(numbers[wrong].tolist())}", remedy)
        combinations = np.unique(table[TIER_COLUMNS].to_numpy(np.int64), axis=0).tolist()
        found, parents = tier_problems(combinations, parents)
        for _, what in found:
            yield error("tiers", path, what, remedy)
        for tier, column in enumerate(TIER_COLUMNS):
            unknown = sorted(set(table[column].tolist()) - {UNKNOWN} - (ids[tier] if ids else set(range(1, UNKNOWN))))
            if unknown:
                what = f"classes of tier {tier + 1} that classes.json does not have: {first(unknown)}"
                yield error("parcels", path, what, remedy)
    return replace(release, doubtful_parcels=frozenset(doubtful))


def several_classes(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Parcels whose HCAT3 code has other classes elsewhere."""
    rows = table[["hcat3", *TIER_COLUMNS]].drop_duplicates()
    twice = set(rows["hcat3"][rows["hcat3"].duplicated()])
    return table["hcat3"].isin(twice).to_numpy()


# The pixels


@dataclass(frozen=True)
class Priors:
    """How the priors of some samples compare with their labels."""

    #: Samples whose prior is known anywhere, of these those whose prior is their label everywhere, and of these those
    #: with a class.
    known: int = 0
    alike: int = 0
    telling: int = 0

    def __add__(self, other: Priors) -> Priors:
        return Priors(self.known + other.known, self.alike + other.alike, self.telling + other.telling)

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
    #: None where the index does not tell where parcels lie.
    outlines: Outlines | None = None
    #: Whether the season was planned in several parts, between which declarations may have changed.
    grown: bool = False

    @classmethod
    def of(cls, release: Release, season: int) -> SeasonLabels:
        """From the index of a release."""
        table = release.tables.get(f"parcels-{season}")
        parcels = None if table is None else SeasonParcels.of(table)
        outlines = None if table is None or season in release.doubtful_parcels else Outlines.of(table)
        uncovered, grown = may_be_uncovered(release, season), may_have_parts(release, season)
        return cls(class_ids(release), parcels, parents_of(release), uncovered, outlines, grown)


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


def may_have_parts(release: Release, season: int) -> bool:
    """Whether a season may have been planned in several parts, by what was read for each; True where it is unknown."""
    sources = release.documents.get(SOURCES)
    parts = sources.get(str(season)) if isinstance(sources, dict) else None
    return not isinstance(parts, dict) or len(parts) != 1


@dataclass(frozen=True)
class BlockLabels:
    """What of the labels of a block is compared with other blocks, and how many samples lie where outlines say."""

    pairs: TierPairs = field(default_factory=dict)
    priors: Priors = field(default_factory=Priors)
    #: None where the index does not say where its samples lie.
    placed: int | None = 0


@dataclass(frozen=True)
class LabelsShown:
    """What the labels of the blocks before have shown."""

    #: (tier, class) -> the class above it, and where that was seen first, in the blocks of all seasons.
    parents: Mapping[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    #: Of the season that is looked at.
    priors: Priors = field(default_factory=Priors)


@dataclass(frozen=True)
class ParcelChecks(SourceChecks[SeasonLabels, BlockLabels, LabelsShown]):
    """The checks of declared parcels. Published files know no parcels, and their tiers are as they are."""

    name = "parcels"
    season_tables = ("parcels",)

    def season_facts(self, season: int) -> SeasonLabels:
        """The classes and parcels of a season."""
        return SeasonLabels.of(self.release, season)

    def check_values(self, block: BlockValues, facts: SeasonLabels | None) -> ValueCheck[BlockLabels]:
        """Labels and priors (sample, tier, y, x) and parcel numbers (sample, y, x)."""
        assert facts is not None
        pairs, problems = class_problems_of(block, facts)
        numbers = None if block.imported else block.arrays.get("parcel")
        if numbers is not None and facts.parcels is not None:
            problems += parcel_problems_of(block, facts, facts.parcels)
        placed: int | None = 0
        if numbers is not None and facts.outlines is not None:
            places = None if block.rows is None else places_of(block.rows)
            placed = None if places is None else sum(place is not None for place in places)
            found = ground_problems(numbers, places, facts.outlines, grown=facts.grown) if places is not None else ()
            problems += [Problem(sample, "parcel", "ground", what) for sample, what in found]
        return ValueCheck(problems, BlockLabels(pairs, compare_priors(block.arrays), placed))

    def derived_columns(self, season: int, arrays: Arrays, *, imported: bool) -> Iterator[DerivedColumn]:
        """Shares of classes and of declared pixels, how many parcels there are."""
        if "label" in arrays:
            classes = arrays["label"]
            shares = [float(((tier > BACKGROUND) & (tier < UNKNOWN)).mean()) for tier in classes]
            yield DerivedColumn("class_share", "label", shares)
            if imported:
                yield DerivedColumn("declared_share", "label", float((classes[0] > BACKGROUND).mean()))
        if "parcel" in arrays and not imported:
            numbers = arrays["parcel"]
            yield DerivedColumn("parcels", "parcel", int(np.setdiff1d(numbers, [0]).size))
            yield DerivedColumn("declared_share", "parcel", float((numbers > 0).mean()))

    def compare_block(
        self, shown: LabelsShown | None, season: int, block: int, kept: BlockLabels
    ) -> Checking[LabelsShown | None]:
        """Classes that belong to another class of the tier above than in blocks before."""
        before = shown or LabelsShown()
        where, parents = f"{season}, block {block}", dict(before.parents)
        for (tier, child), parent in sorted(kept.pairs.items()):
            known, there = parents.setdefault((tier, child), (parent, where))
            if known != parent:
                what = f"class {child} of tier {tier} under {parent} of tier {tier - 1}; under {known} in {there}"
                yield error("tiers", where, what, self.release.remedies.wrong_block(season, block))
        if kept.placed is None:
            yield NotChecked(f"{OUTLINES_OF} blocks of {season}: the index does not say where their samples lie")
        else:
            yield Counted("samples_by_outlines", kept.placed)
        return LabelsShown(parents, before.priors + kept.priors)

    def end_season(
        self, shown: LabelsShown | None, season: int, labelled: Mapping[str, NDArray[np.uint32]]
    ) -> Checking[LabelsShown | None]:
        """Parcels in two splits, and a season in which every prior is its label."""
        imported = self.release.is_imported(season)
        if not imported and (f"parcels-{season}" not in self.release.tables or season in self.release.doubtful_parcels):
            yield NotChecked(f"{OUTLINES_OF} {season}: the index does not say where parcels lie")
        splits: dict[int, list[str]] = defaultdict(list)
        for split, numbers in labelled.items():
            for parcel in numbers.tolist():
                splits[parcel].append(split)
        several = sorted(parcel for parcel, names in splits.items() if len(names) > 1)
        if several and not imported:
            what = f"{len(several)} parcel(s) with labelled pixels in several splits: {first(several)}"
            yield error("leak", f"{season}/label", what, self.release.remedies.leak())
        priors = (shown or LabelsShown()).priors
        if priors.are_labels:
            # As when one file was read for both years.
            what = f"the prior is the label in every pixel of all {priors.known} sample(s) that have one"
            yield warning("prior", f"{season}/prior", what, self.release.remedies.same_prior(season))
        return None if shown is None else LabelsShown(shown.parents)


def class_problems_of(block: BlockValues, labels: SeasonLabels) -> tuple[TierPairs, list[Problem]]:
    """Which class belongs to which class of the tier above in a block, and what is wrong with its classes."""
    pairs: TierPairs = {}
    problems = []
    for name in ("label", "prior"):
        for sample, layers in enumerate(block.arrays.get(name, ())):
            of_sample, found = class_problems(layers, labels)
            pairs |= of_sample
            for check, what in found:
                as_published = block.imported and check == "tiers"
                problems.append(Problem(sample, name, check, what, "warning" if as_published else "error"))
    return pairs, problems


def parcel_problems_of(block: BlockValues, labels: SeasonLabels, parcels: SeasonParcels) -> Iterator[Problem]:
    """Parcels that the index does not have, and pixels whose label is not that of their parcel."""
    classes = block.arrays.get("label")
    for sample, numbers in enumerate(block.arrays["parcel"]):
        present = np.setdiff1d(numbers, [0])
        strange = present[parcels.find(present) < 0].tolist()
        if strange:
            yield Problem(sample, "parcel", "parcels", f"has parcels that the index does not have: {first(strange)}")
        elif classes is not None and block.split is not None:
            for what in parcel_problems(classes[sample], numbers, block.split, parcels, labels.uncovered):
                yield Problem(sample, "label", "labels", what)


def places_of(rows: pd.DataFrame) -> list[Place | None]:
    """Where each sample lies; None where its corner is not that of its cell, which is reported of the index."""
    places: list[Place | None] = []
    for cell, epsg, x0, y0 in zip(*(rows[name].tolist() for name in ("cell", "epsg", "x0", "y0")), strict=True):
        ground = ground_of_cell(cell)
        right = ground is not None and (ground[0], *ground[2:]) == (epsg, x0, y0)
        places.append(Place(epsg, x0, y0) if right else None)
    return places


def compare_priors(arrays: Arrays) -> Priors:
    """How the priors of a block compare with its labels, sample by sample."""
    priors = Priors()
    for label, prior in zip(arrays.get("label", ()), arrays.get("prior", ()), strict=False):
        known = bool((prior != UNKNOWN).any())
        alike = known and bool((label == prior).all())
        priors += Priors(known, alike, alike and bool(((prior > BACKGROUND) & (prior < UNKNOWN)).any()))
    return priors


def combined(layers: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The classes of four tiers (tier, y, x) as one number (y, x)."""
    parts = layers.astype(np.uint32)
    together: NDArray[np.uint32] = (parts[0] << 24) | (parts[1] << 16) | (parts[2] << 8) | parts[3]
    return together


def classes_in(number: int) -> tuple[int, ...]:
    """The classes of four tiers in such a number."""
    return tuple(number >> shift & 255 for shift in (24, 16, 8, 0))


def class_problems(layers: NDArray[np.uint8], labels: SeasonLabels) -> tuple[TierPairs, list[tuple[str, str]]]:
    """The tier pairs in the classes of one sample, and what is wrong with them: the check, and what.

    layers: (tier, y, x).
    """
    numbers, counts = np.unique(combined(layers), return_counts=True)
    pairs: TierPairs = {}
    problems: list[tuple[str, str]] = []
    combinations = list(map(classes_in, numbers.tolist()))
    strange: dict[Sequence[int], list[str]] = defaultdict(list)
    for combination, what in tier_problems(combinations, labels.parents)[0]:
        strange[combination].append(what)
    for classes, count in zip(combinations, counts.tolist(), strict=True):
        for tier, found in enumerate(classes):
            if labels.classes is not None and is_class(found) and found not in labels.classes[tier]:
                problems.append(
                    ("range", f"{count} pixel(s) with class {found} of tier {tier + 1}, which does not exist")
                )
        problems += [("tiers", f"{count} pixel(s) with {what}") for what in strange.get(classes, [])]
        if classes not in strange:
            pairs |= {
                (tier + 2, child): parent for tier, (parent, child) in enumerate(pairwise(classes)) if is_class(child)
            }
    return pairs, problems[: 2 * REPORTED]


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
    return problems[:REPORTED]
