"""Comparison of two releases: by array and sample, and by the tables of the index.

Samples are matched by their id. Neither the order of samples, nor how they are cut into blocks, nor compression counts
as a difference. Arrays are read one sample at a time, and a sample at the same place of two shards with one checksum is
not read at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from h2crop_data.cube.reading import ReleaseStore, load_root, read_document, read_table
from h2crop_data.cube.root import stored_data
from h2crop_data.cube.sample_reader import SampleReader, open_samples
from h2crop_data.cube.schema import ArraySpec, CoordinateSpec, StoreLayout, stated_source
from h2crop_data.cube.shard import shard_name
from h2crop_data.errors import UsageError
from h2crop_data.maintenance.differences import (
    ArrayDifference,
    Change,
    TableDifference,
    changes,
    compare_tables,
    compare_values,
)
from h2crop_data.progress import Progress, silent
from h2crop_data.sources.formats import layout_of_root

#: What the axes are called whose places have names.
AXES = {"s2_band": "the bands"}
#: Root attributes that are compared.
COMPARED_ATTRIBUTES = ("title", "format_version", "software")
#: Those of them that say who wrote the bytes and how, not what they mean.
FORM = ("format_version", "layout.block_capacity", "layout.codec")
FIRST_FORMAT = "1.0"
#: Parts of the statistics that go by season.
SEASON_STATISTICS = ("class_pixels", "class_parcels")
#: Columns of the samples index that say where a sample lies in the store.
PLACE_COLUMNS = ["block", "slot"]
#: Samples whose coordinates are read at once.
COORDINATE_BATCH = 1024
#: Names that an error lists.
NAMED = 5


@dataclass(frozen=True)
class Choice:
    """What is compared; empty stands for everything."""

    seasons: frozenset[int] = frozenset()
    samples: frozenset[str] = frozenset()
    arrays: frozenset[str] = frozenset()
    #: Read also what the checksums say is equal.
    full: bool = False

    @property
    def whole_seasons(self) -> bool:
        """Whether seasons are compared with everything that belongs to them."""
        return not self.samples and not self.arrays


EVERYTHING = Choice()


@dataclass
class SeasonComparison:
    """How a season differs that both releases have; a table that was not compared is None.

    season: the year. samples: the samples index without where the samples lie; its rows are the samples both have or
    one has. moved: samples that lie in another slot, which does not count as a difference.
    read, unread: samples of arrays that were read, and those known to be equal by their checksums.
    arrays: one entry for each sample and array that differs. coordinates: coordinate -> samples in which it differs.
    parcels, scenes: these tables of the index.
    """

    season: int
    samples: TableDifference
    moved: int
    read: int = 0
    unread: int = 0
    arrays: list[ArrayDifference] = field(default_factory=list)
    coordinates: dict[str, list[str]] = field(default_factory=dict)
    parcels: TableDifference | None = None
    scenes: TableDifference | None = None

    @property
    def same(self) -> bool:
        """Whether there are no differences that count."""
        tables = (self.samples, self.parcels, self.scenes)
        return not self.arrays and not self.coordinates and all(table is None or table.same for table in tables)


@dataclass
class StoreComparison:
    """How two releases differ.

    a, b: the stores. release_a, release_b: their releases. attributes: of their roots. told: differences of the layout
    of bytes and of recipes, which do not count. seasons_only_a, seasons_only_b: seasons that one of them has.
    incomparable: array -> why its values could not be compared. seasons: those both have. classes, statistics:
    differences of these documents of the index.
    """

    a: str
    b: str
    release_a: int
    release_b: int
    attributes: list[Change] = field(default_factory=list)
    told: list[Change] = field(default_factory=list)
    seasons_only_a: list[int] = field(default_factory=list)
    seasons_only_b: list[int] = field(default_factory=list)
    incomparable: dict[str, str] = field(default_factory=dict)
    seasons: list[SeasonComparison] = field(default_factory=list)
    classes: list[Change] = field(default_factory=list)
    statistics: list[Change] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether there are no differences that count."""
        differing = (self.attributes, self.seasons_only_a, self.seasons_only_b, self.incomparable)
        return not any((*differing, self.classes, self.statistics)) and all(season.same for season in self.seasons)

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data that JSON can hold."""
        return {"same": self.same, **asdict(self)}


class ComparedRelease:
    """One release of a store, opened by its root document alone: the store may grow meanwhile."""

    def __init__(self, store: str | Path, release: int | None) -> None:
        self.store = store
        self.root = load_root(store, release)
        self.attributes = self.root["attributes"]
        self.layout = layout_of_root(self.attributes)
        self.seasons = {int(season) for season in self.attributes["seasons"]}

    @property
    def is_first_format(self) -> bool:
        """Whether it is of format 1.0, which lacks columns and figures that every later one has."""
        return self.attributes["format_version"] == FIRST_FORMAT

    def facts_of_layout(self) -> dict[str, Any]:
        """What is in the store and how it is cut, in one form for stores of every format."""
        codec = {"checksum": False, **self.attributes["layout"]["codec"]}
        facts: dict[str, Any] = {
            "cell_size": self.layout.cell_size,
            "block_capacity": self.layout.capacity,
            "codec": codec,
        }
        others = {source.name: stated_source(source) for source in self.layout.sources if not source.built_in}
        facts |= {**asdict(stored_data(self.attributes["layout"])), "sources": others}
        return dict(sorted(facts.items()))

    def table(self, name: str) -> pd.DataFrame:
        """A table of the index."""
        return read_table(self.store, self.attributes, name)

    def document(self, name: str) -> Any:
        """A document of the index."""
        return read_document(self.store, self.attributes, name)

    @cached_property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file of the release."""
        manifest = self.table("manifest")
        return dict(zip(manifest["path"], manifest["sha256"], strict=True))

    def checksum(self, season: int, spec: ArraySpec, slot: int) -> str | None:
        """The checksum of the shard that holds a slot; None where the manifest does not list it."""
        shard = shard_name(slot // self.layout.capacity, len(spec.dims))
        return self.checksums.get(f"{season}/{spec.name}/{shard}")

    def group(self, season: int) -> Any:
        """The Zarr group of a season."""
        files = ReleaseStore(self.store, self.root)
        return zarr.open_group(files, mode="r", use_consolidated=True, zarr_format=3)[str(season)]

    def readers(self, season: int) -> dict[str, SampleReader]:
        """A reader of every array of a season; a lost shard is an error, as its fill would count as a difference."""
        return open_samples(self.store, self.root, [season])[season]


class SeasonPair:
    """A season of two releases, and which of their samples match."""

    def __init__(self, one: ComparedRelease, other: ComparedRelease, season: int, choice: Choice) -> None:
        self.releases = (one, other)
        self.season = season
        tables = [release.table(f"samples-{season}") for release in self.releases]
        #: Every sample that either has.
        self.known = {sample for table in tables for sample in table["sample"]}
        #: The samples index of both, of the samples that were chosen.
        self.samples = [table[table["sample"].isin(choice.samples)] if choice.samples else table for table in tables]
        slots_a, slots_b = (dict(zip(table["sample"], table["slot"].tolist(), strict=True)) for table in self.samples)
        #: Sample -> its slot in A and in B.
        self.slots = {sample: (slot, slots_b[sample]) for sample, slot in slots_a.items() if sample in slots_b}

    def compare_index(self, name: str, key: list[str]) -> TableDifference | None:
        """A table of the index, its rows of this season; None where neither release has it.

        Columns that only one of them has do not count where format 1.0 had none.
        """
        if not any(name in release.attributes["index"] for release in self.releases):
            return None
        a, b = (self.of_season(release, name, key) for release in self.releases)
        if any(release.is_first_format for release in self.releases):
            shared = [column for column in a if column in b]
            a, b = a[shared], b[shared]
        return compare_tables(a, b, key)

    def of_season(self, release: ComparedRelease, name: str, key: list[str]) -> pd.DataFrame:
        """The rows of this season; none where the release has no such table."""
        if name not in release.attributes["index"]:
            return pd.DataFrame(columns=key)
        table = release.table(name)
        return table[table["season"] == self.season].drop(columns="season") if "season" in table else table


def compare_stores(
    a: str | Path,
    b: str | Path,
    choice: Choice = EVERYTHING,
    *,
    release_a: int | None = None,
    release_b: int | None = None,
    progress: Progress = silent,
) -> StoreComparison:
    """Compare two releases (the newest ones by default) of stores in folders or at URLs.

    Where the choice names samples or arrays, only these are compared: no attributes, class names, statistics, parcels
    and scenes. Where it names seasons, statistics over all seasons are left out. progress: called with (done, total,
    text). Raises UsageError for names that neither store has, StoreError for what cannot be read.
    """
    one, other = ComparedRelease(a, release_a), ComparedRelease(b, release_b)
    check_names("season", choice.seasons, one.seasons | other.seasons)
    check_names("array", choice.arrays, {*one.layout.arrays(), *other.layout.arrays()})
    wanted = choice.seasons or one.seasons | other.seasons
    pairs = [SeasonPair(one, other, season, choice) for season in sorted(wanted & one.seasons & other.seasons)]
    check_names("sample", choice.samples, {sample for pair in pairs for sample in pair.known})
    result = StoreComparison(str(a), str(b), release_a=one.attributes["release"], release_b=other.attributes["release"])
    result.seasons_only_a = sorted((one.seasons - other.seasons) & wanted)
    result.seasons_only_b = sorted((other.seasons - one.seasons) & wanted)
    if choice.whole_seasons:
        compare_attributes(result, one, other)
        compare_documents(result, one, other, [pair.season for pair in pairs], choice)
    specs, result.incomparable = comparable_arrays(one.layout, other.layout, choice)
    result.seasons = [compare_season(pair, specs, choice, progress) for pair in pairs]
    return result


def check_names(kind: str, wanted: Collection[Any], known: Collection[Any]) -> None:
    """Refuse names that neither store has. Raises UsageError that lists some there are."""
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        there = ", ".join(map(str, sorted(known)[:NAMED])) + (", ..." if len(known) > NAMED else "")
        raise UsageError(f"unknown {kind} {', '.join(map(str, unknown))}: neither store has it; known: {there}")


def compare_attributes(result: StoreComparison, one: ComparedRelease, other: ComparedRelease) -> None:
    """Root attributes, those that only say how the bytes are laid out apart."""
    a, b = (
        {
            **{name: value for name, value in release.attributes.items() if name in COMPARED_ATTRIBUTES},
            "layout": release.facts_of_layout(),
        }
        for release in (one, other)
    )
    for change in changes(a, b):
        (result.told if change.name.startswith(FORM) else result.attributes).append(change)


def compare_documents(
    result: StoreComparison, one: ComparedRelease, other: ComparedRelease, seasons: Sequence[int], choice: Choice
) -> None:
    """Class names, statistics, and the recipes of the seasons both have."""
    a, b = (release.document("classes") for release in (one, other))
    a, b = ({f"tier {i + 1}": names for i, names in enumerate(tiers)} for tiers in (a, b))
    result.classes = changes(a, b)
    a, b = (release.document("statistics") for release in (one, other))
    found: list[Change] = []
    if not choice.seasons:
        of_all = [{part: facts for part, facts in both.items() if part not in SEASON_STATISTICS} for both in (a, b)]
        found = changes(of_all[0], of_all[1])
    for part in SEASON_STATISTICS:
        for season in map(str, seasons):
            found += changes(a.get(part, {}).get(season), b.get(part, {}).get(season), f"{part}.{season}")
    for change in found:
        (result.told if is_newer_part(change, one, other) else result.statistics).append(change)
    a, b = (release.document("recipes") for release in (one, other))
    for season in map(str, seasons):
        result.told += changes(a.get(season), b.get(season), f"recipe of {season}")


def is_newer_part(change: Change, one: ComparedRelease, other: ComparedRelease) -> bool:
    """Whether a difference is a part of a document that one of two releases lacks because format 1.0 had none."""
    return (one.is_first_format and change.a is None) or (other.is_first_format and change.b is None)


def comparable_arrays(a: StoreLayout, b: StoreLayout, choice: Choice) -> tuple[list[ArraySpec], dict[str, str]]:
    """The arrays that can be compared value by value, and why the others cannot."""
    specs, reasons = [], {}
    left, right = a.arrays(), b.arrays()
    for name in {**left, **right}:
        if choice.arrays and name not in choice.arrays:
            continue
        if name not in left or name not in right:
            reasons[name] = f"only {'A' if name in left else 'B'} has it"
        elif named := [axis for axis in left[name].dims if names_along(a, axis) != names_along(b, axis)]:
            words = [" ".join(names_along(layout, named[0])) for layout in (a, b)]
            reasons[name] = f"A has {AXES.get(named[0], named[0])} {words[0]}, B {words[1]}"
        elif left[name].sample_shape != right[name].sample_shape:
            shapes = [" x ".join(map(str, spec[name].sample_shape)) for spec in (left, right)]
            reasons[name] = f"a sample has the shape {shapes[0]} in A, {shapes[1]} in B"
        else:
            specs.append(left[name])
    return specs, reasons


def names_along(layout: StoreLayout, axis: str) -> list[str]:
    """What the places along an axis are called; empty where they have numbers only."""
    spec = next((spec for source in layout.sources for spec in source.coordinates if spec.name == axis), None)
    return [] if spec is None or spec.data_type != "string" else list(spec.values or ())


def is_like(spec: CoordinateSpec, others: Mapping[str, CoordinateSpec]) -> bool:
    """Whether another store has the same coordinate in the same shape."""
    return spec.name in others and others[spec.name].lengths == spec.lengths


def compare_season(
    pair: SeasonPair, specs: Sequence[ArraySpec], choice: Choice, progress: Progress
) -> SeasonComparison:
    """A season that both releases have."""
    a, b = (table.drop(columns=PLACE_COLUMNS) for table in pair.samples)
    if choice.arrays:
        a, b = a[["sample"]], b[["sample"]]
    moved = sum(slot_a != slot_b for slot_a, slot_b in pair.slots.values())
    result = SeasonComparison(pair.season, compare_tables(a, b, ["sample"]), moved)
    compare_arrays(result, pair, specs, choice, progress)
    if not choice.arrays:
        result.coordinates = compare_coordinates(pair)
    if choice.whole_seasons:
        result.parcels = pair.compare_index(f"parcels-{pair.season}", ["number"])
        result.scenes = pair.compare_index("scenes", ["sensor", "id"])
    return result


def compare_arrays(
    result: SeasonComparison, pair: SeasonPair, specs: Sequence[ArraySpec], choice: Choice, progress: Progress
) -> None:
    """Every array, one sample at a time."""
    one, other = pair.releases
    readers_a, readers_b = one.readers(pair.season), other.readers(pair.season)
    text = f"samples of {pair.season}"
    for done, (sample, (slot_a, slot_b)) in enumerate(pair.slots.items()):
        progress(done, len(pair.slots), text)
        for spec in specs:
            if not choice.full and known_equal(pair, spec, slot_a, slot_b):
                result.unread += 1
                continue
            result.read += 1
            a, b = readers_a[spec.name].read(slot_a), readers_b[spec.name].read(slot_b)
            names = {axis: names_along(one.layout, axis) for axis in spec.dims}
            difference = compare_values(a, b, spec, sample, names)
            result.arrays += [difference] if difference else []
    progress(len(pair.slots), len(pair.slots), text)


def known_equal(pair: SeasonPair, spec: ArraySpec, slot_a: int, slot_b: int) -> bool:
    """Whether two slots lie at the same place of shards with one checksum."""
    one, other = pair.releases
    if slot_a % one.layout.capacity != slot_b % other.layout.capacity:
        return False
    checksum = one.checksum(pair.season, spec, slot_a)
    return checksum is not None and checksum == other.checksum(pair.season, spec, slot_b)


def compare_coordinates(pair: SeasonPair) -> dict[str, list[str]]:
    """The samples in which a coordinate differs, of the coordinates that both releases have along the samples."""
    one, other = pair.releases
    groups = [release.group(pair.season) for release in pair.releases]
    # Ids matched the samples, and all of them are valid.
    specs = {spec.name: spec for spec in other.layout.coordinates(pair.season)}
    shared = [spec for spec in one.layout.coordinates(pair.season) if spec.dims[0] == "sample" and is_like(spec, specs)]
    names = [spec.name for spec in shared if spec.name not in ("sample", "valid")]
    found: dict[str, list[str]] = {}
    samples, slots = list(pair.slots), np.array(list(pair.slots.values()), np.int64).reshape(-1, 2)
    for start in range(0, len(samples), COORDINATE_BATCH):
        batch = slice(start, start + COORDINATE_BATCH)
        for name in names:
            a, b = (np.asarray(group[name].oindex[slots[batch, i]]) for i, group in enumerate(groups))
            unknown = (a != a) & (b != b)
            differ = ((a != b) & ~unknown).reshape(len(a), -1).any(axis=1)
            if differ.any():
                found.setdefault(name, []).extend(samples[start + i] for i in np.flatnonzero(differ).tolist())
    return found
