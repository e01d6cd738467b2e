"""The format of a store: its arrays, coordinates and Zarr v3 metadata documents (specification: docs/store-format.md).

The metadata documents are written here as plain dictionaries, so that the same store always has the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isinf
from typing import Any, Literal

import numpy as np

from h2crop_data.constants import COARSE, FINE, REFLECTANCE_FILL
from h2crop_data.cube.columns import (
    BLOCK_HASHES,
    BLOCK_RECORDS,
    BLOCKS,
    DATES,
    GEOMETRY,
    IMPORTED_COLUMNS,
    PLAIN_TABLES,
    SAMPLES,
    Column,
)
from h2crop_data.cube.root import LayoutAttributes, Root
from h2crop_data.cube.windows import FIRST_TIME, TIME_AXIS, TimeWindow, calendar_months, days_since_start
from h2crop_data.errors import FormatVersionError

FORMAT_VERSION = "2.0"
#: Major versions of the format that this h2crop reads; it writes the last.
READABLE = ("1", "2")
#: The generation of layouts that new stores get. In generation 1, of format 1, inner chunks have no checksum, and some
#: arrays another dtype. A store keeps its own when it is migrated and when it grows.
LAYOUT_GENERATION = 2
#: What to do about a store of a later one.
NEWER_FORMAT = "a newer h2crop wrote it; install that version or a later one (nothing was changed)"

#: The copy of a release's root document, below its index folder.
ROOT_COPY = "root.json"

#: The units by which a reader knows reflectance.
REFLECTANCE_UNITS = "1e-4"
#: Slots in one chunk of a coordinate along `sample`; one large chunk opens faster than many small ones.
COORDINATE_CHUNK = 65536
#: The same for coordinates that also run along another axis.
BAND_COORDINATE_CHUNK = 1024
#: Fill of coordinates of time: no day that a calendar has, so that a lost chunk is an error and not a date.
NO_DAY = -(2**31)


@dataclass(frozen=True)
class Codec:
    """How chunks are compressed: Blosc with bit shuffle. `lz4` reads fastest, `zstd` is about a tenth smaller."""

    name: Literal["lz4", "zstd"] = "lz4"
    level: int = 5
    #: Whether each chunk ends with its CRC32C; without it a damaged range of a shard can be read as other values.
    checksum: bool = True

    def metadata(self, itemsize: int) -> list[dict[str, Any]]:
        """The Zarr v3 codec documents of an inner chunk with elements of `itemsize` bytes, in order."""
        little: dict[str, Any] = {"name": "bytes"}
        if itemsize > 1:
            little["configuration"] = {"endian": "little"}
        configuration = {
            "typesize": itemsize,
            "cname": self.name,
            "clevel": self.level,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        }
        checksum = [{"name": "crc32c"}] if self.checksum else []
        return [little, {"name": "blosc", "configuration": configuration}, *checksum]


@dataclass(frozen=True)
class ArrayStatistics:
    """The statistics of an array in a release (docs/store-format.md, `statistics.json`).

    - `values`: count, mean and percentiles of its values for each index of the axes between `sample` and the last two;
      of an integer array of at most 16 bits, in the training split, without fill
    - `counts`: how often each number occurs, for each index of the axis after `sample`; of a uint8 array, in the
      training split
    - `classes`: the same in every split
    - `numbers`: which numbers of parcels have a pixel with a class; one array of a store
    """

    kind: Literal["values", "counts", "classes", "numbers"]
    #: The array that says which pixels count: flags for `values` (those without a flag of the recipe; as large as the
    #: last two axes), classes for `numbers` (those that have one in the first tier).
    by: str | None = None
    #: The bits of `by` that keep a pixel out of `values`. None: the recipe says which; validation then recomputes the
    #: statistics of a release only if it knows how (`SourceChecks.flag_masks`).
    flags: int | None = None
    #: Another array of flags, as `by`; it counts where a store has it.
    also: str | None = None
    #: Its key in `statistics.json`, where that is not its name.
    key: str | None = None


@dataclass(frozen=True)
class ValueRules:
    """Rules for the stored numbers of an array. `h2crop validate` checks every number except fill against them.

    - `possible`: lowest and highest possible number; numbers outside and NaN are errors
    - `plausible`: lowest and highest plausible number; numbers outside are warnings
    - `numbers`: the only allowed numbers
    - `flags`: all allowed bits of an array of bit flags
    - `fill`: where fill may be: `anywhere`; `nowhere`; `whole pixels`: a pixel is fill in all bands, along the axis
      before the last two, or in none
    """

    possible: tuple[float, float] | None = None
    plausible: tuple[float, float] | None = None
    numbers: tuple[int, ...] | None = None
    flags: int | None = None
    fill: Literal["anywhere", "nowhere", "whole pixels"] = "anywhere"

    def __post_init__(self) -> None:
        """Refuse rules that no array can satisfy. Raises ValueError or TypeError."""
        for what, bounds in (("possible", self.possible), ("plausible", self.plausible)):
            low, high = bounds or (0, 0)
            if not low <= high:
                raise ValueError(f"invalid range of {what} numbers, {low} to {high}: expected the lower bound first")
            if isinf(low) or isinf(high):
                raise ValueError(
                    f"invalid range of {what} numbers, {low} to {high}: expected finite bounds, because the root "
                    "of a store contains them"
                )
        if self.numbers == ():
            raise ValueError("numbers: expected at least one number, or None")
        if self.fill not in ("anywhere", "nowhere", "whole pixels"):
            raise ValueError(f"unknown fill {self.fill!r}; expected anywhere, nowhere or whole pixels")


@dataclass(frozen=True)
class ArraySpec:
    """One array of a season group, without its number of slots."""

    name: str
    #: Arrays whose inputs share one hash.
    group: str
    dims: tuple[str, ...]
    #: Shape of one sample, that is of all axes but the first.
    sample_shape: tuple[int, ...]
    #: Shape of an inner chunk; the first axis is always 1, the axes after the second are never cut.
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: int
    attributes: dict[str, Any] = field(default_factory=dict)
    #: What its numbers are, in words: `bit flags`.
    unit: str = ""
    #: Whether the difference of two numbers means something.
    quantity: bool = False
    #: None: nothing is counted of it.
    statistics: ArrayStatistics | None = None
    #: None: nothing is known of its numbers, beside the checks of the sources that come with h2crop.
    rules: ValueRules | None = None

    def __post_init__(self) -> None:
        """Refuse statistics that cannot be counted of it, and rules it cannot follow. Raises ValueError."""
        kind = None if self.statistics is None else self.statistics.kind
        if kind == "values" and (self.dtype.kind not in "iu" or self.dtype.itemsize > 2):
            raise ValueError(
                f"{self.name}: expected integers of at most 16 bits for statistics of values, got {self.dtype}"
            )
        if kind in ("counts", "classes") and self.dtype != np.uint8:
            raise ValueError(f"{self.name}: expected uint8 to count {kind}, got {self.dtype}")
        rules = self.rules or ValueRules()
        if rules.flags is not None and (
            self.dtype.kind not in "iu" or not 0 <= rules.flags <= np.iinfo(self.dtype).max
        ):
            raise ValueError(f"{self.name}: {self.dtype} cannot hold the bit flags {rules.flags}")
        if rules.fill == "whole pixels" and len(self.sample_shape) < 3:
            raise ValueError(f"{self.name}: expected an axis of bands for fill in whole pixels, got {self.dims}")

    @property
    def is_reflectance(self) -> bool:
        """Whether its numbers are reflectance in units of `REFLECTANCE_SCALE`."""
        return self.attributes.get("units") == REFLECTANCE_UNITS

    @property
    def chunks_per_sample(self) -> int:
        """How many inner chunks hold one sample (as many as windows of time where these are apart, else 1)."""
        return self.sample_shape[0] // self.chunk[1]

    def metadata(self, slots: int, capacity: int, codec: Codec) -> dict[str, Any]:
        """The array's `zarr.json` for `slots` slots: shards of `capacity` samples, index at the end."""
        index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {
            "chunk_shape": list(self.chunk),
            "codecs": codec.metadata(self.dtype.itemsize),
            "index_codecs": index_codecs,
            "index_location": "end",
        }
        return array_document(
            shape=(slots, *self.sample_shape),
            chunk=(capacity, *self.sample_shape),
            data_type=self.dtype.name,
            fill=self.fill,
            codecs=[{"name": "sharding_indexed", "configuration": sharding}],
            dims=self.dims,
            attributes=self.attributes,
        )


@dataclass(frozen=True)
class CoordinateSpec:
    """One coordinate of a season group: along the samples, growing with the slots, or with fixed values."""

    name: str
    dims: tuple[str, ...]
    #: A numpy dtype name or "string" (Zarr's variable-length UTF-8).
    data_type: str
    fill: Any
    chunk: int | None = COORDINATE_CHUNK
    attributes: dict[str, Any] = field(default_factory=dict)
    #: The values of a coordinate that does not run along the samples.
    values: tuple[Any, ...] | None = None
    #: Lengths of the axes after the first.
    lengths: tuple[int, ...] = ()

    def shape(self, slots: int) -> tuple[int, ...]:
        """Its shape in a season of so many slots."""
        return (slots if self.values is None else len(self.values), *self.lengths)

    def metadata(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """The coordinate's `zarr.json`: chunks along the first axis only, Zstandard."""
        serializer: dict[str, Any] = {"name": "vlen-utf8"}
        if self.data_type != "string":
            serializer = {"name": "bytes"}
            if np.dtype(self.data_type).itemsize > 1:
                serializer["configuration"] = {"endian": "little"}
        zstd = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
        return array_document(
            shape=shape,
            chunk=(self.chunk or shape[0], *shape[1:]),
            data_type=self.data_type,
            fill=self.fill,
            codecs=[serializer, zstd],
            dims=self.dims,
            attributes=self.attributes,
        )


METRES = {"units": "m", "note": "upper left corner of the sample in its epsg"}
#: The coordinates that every season group has.
SAMPLE_COORDINATES = (
    CoordinateSpec("sample", ("sample",), "string", ""),
    CoordinateSpec("valid", ("sample",), "bool", False),
    CoordinateSpec("x0", ("sample",), "float64", 0.0, attributes=METRES),
    CoordinateSpec("y0", ("sample",), "float64", 0.0, attributes=METRES),
    CoordinateSpec("epsg", ("sample",), "int32", 0),
)


def time_coordinates(windows: Sequence[TimeWindow]) -> tuple[CoordinateSpec, ...]:
    """The coordinates along `time`: start and bounds of windows in days since the first began, and their months."""
    days = days_since_start(windows)
    since = {"units": f"days since {windows[0][0].isoformat()}", "calendar": "proleptic_gregorian"}
    starts = {**since, "standard_name": "time", "bounds": "time_bnds"}
    return (
        CoordinateSpec("time", (TIME_AXIS,), "int32", NO_DAY, None, starts, tuple(start for start, _ in days)),
        CoordinateSpec("time_bnds", (TIME_AXIS, "bnds"), "int32", NO_DAY, None, since, tuple(days), (2,)),
        CoordinateSpec("month", (TIME_AXIS,), "int8", 0, None, values=tuple(start.month for start, _ in windows)),
    )


@dataclass(frozen=True)
class SourceFormat:
    """The arrays, coordinates and columns of one source."""

    #: As in the recipe: `sentinel2`.
    name: str
    #: As people call it: `Sentinel-2`.
    title: str
    #: Its arrays share one input hash, `hash_<group>` of the blocks index.
    group: str
    arrays: tuple[ArraySpec, ...]
    coordinates: tuple[CoordinateSpec, ...] = ()
    #: Whether it comes with h2crop: its columns and rules are known, and not stated in roots.
    built_in: bool = False
    #: Its columns of the samples and of the blocks index.
    columns: tuple[Column, ...] = ()
    block_columns: tuple[Column, ...] = ()
    #: Its columns of the table of dates, beside those that every such table has; none where it makes none.
    date_columns: tuple[Column, ...] = ()
    #: Whether its scenes make samples: a cell is one for each scene that saw it.
    makes_samples: bool = False
    #: Whether an offset is decided on for each of its scenes.
    has_offsets: bool = False


@dataclass(frozen=True)
class StoreLayout:
    """The shape of everything in a store; fixed when the store is made and written in its root attributes."""

    cell_size: int
    capacity: int
    codec: Codec = Codec()
    #: In the order of their arrays.
    sources: tuple[SourceFormat, ...] = ()

    @property
    def fine(self) -> int:
        """Pixels along a cell's side at 10 m."""
        return self.cell_size // FINE

    @property
    def coarse(self) -> int:
        """Pixels along a cell's side at 30 m."""
        return self.cell_size // COARSE

    def date_columns(self) -> list[Column]:
        """The columns of the table of dates."""
        return [*DATES, *(column for source in self.sources for column in source.date_columns)]

    def source(self, name: str) -> SourceFormat | None:
        """What the store holds of a source; None where it does not have it."""
        return next((source for source in self.sources if source.name == name), None)

    def arrays(self) -> dict[str, ArraySpec]:
        """The arrays of a season group by name; sources a recipe leaves out have no arrays."""
        return {spec.name: spec for source in self.sources for spec in source.arrays}

    def windows(self, season: int) -> list[TimeWindow]:
        """The windows of a season; none where no array goes by time."""
        return calendar_months(season) if any(TIME_AXIS in spec.dims for spec in self.arrays().values()) else []

    def coordinates(self, season: int) -> list[CoordinateSpec]:
        """The coordinates of the group of a season."""
        windows = self.windows(season)
        return [
            *SAMPLE_COORDINATES,
            *(time_coordinates(windows) if windows else ()),
            *(spec for source in self.sources for spec in source.coordinates),
        ]

    def sample_columns(self) -> list[Column]:
        """The columns of the samples index, in order, but for the geometry: planned ones, then derived ones by name."""
        own = [column for source in self.sources for column in source.columns]
        planned = [column for column in own if column.known == "planned"]
        derived = [column for column in own if column.known == "derived"]
        return [*SAMPLES, *planned, *sorted(derived, key=lambda column: column.name)]

    def block_columns(self) -> list[Column]:
        """The columns of the blocks index, in order."""
        own = [column for source in self.sources for column in source.block_columns]
        # Those of sources that come with h2crop are in every store.
        hashes = [
            Column(f"hash_{source.group}", "text", f"input hash of its {source.title} arrays", source=source.name)
            for source in self.sources
            if not source.built_in
        ]
        return [*BLOCKS, *own, *BLOCK_HASHES, *hashes, *BLOCK_RECORDS]

    def table_columns(self, table: str, *, imported: bool = False) -> list[Column]:
        """The columns that a table of the index may have, in order. table: its name without the season."""
        if table == "samples":
            own = [column for column in self.sample_columns() if column.imported or not imported]
            return [*own, *(IMPORTED_COLUMNS if imported else ()), GEOMETRY]
        if table in ("blocks", "dates"):
            return self.block_columns() if table == "blocks" else self.date_columns()
        return list(PLAIN_TABLES[table])

    def without_rules(self) -> StoreLayout:
        """The same arrays, with nothing stated of their numbers."""
        bare = [
            replace(source, arrays=tuple(replace(spec, rules=None) for spec in source.arrays))
            for source in self.sources
        ]
        return replace(self, sources=tuple(bare))

    def attributes(self) -> LayoutAttributes:
        """What the root attributes say of the layout."""
        return {
            "cell_size": self.cell_size,
            "block_capacity": self.capacity,
            "codec": {"name": self.codec.name, "level": self.codec.level, "checksum": self.codec.checksum},
            "sources": {source.name: stated_source(source) for source in self.sources},
        }


#: What a root states of the columns of a source, unless it comes with h2crop.
STATED_COLUMNS = ("columns", "block_columns", "date_columns")


def stated_source(source: SourceFormat) -> dict[str, Any]:
    """What the root says of a source: plain data that `parsed_source` reads."""
    facts = asdict(source)
    for spec in facts["arrays"]:
        spec["dtype"] = spec["dtype"].name
        if spec["rules"] is None or source.built_in:
            del spec["rules"]
        if spec["statistics"] and spec["statistics"]["flags"] is None:
            del spec["statistics"]["flags"]
        if spec["statistics"] and spec["statistics"]["also"] is None:
            del spec["statistics"]["also"]
    del facts["built_in"]
    if source.built_in:
        for name in STATED_COLUMNS:
            del facts[name]
    elif not source.date_columns:
        # As earlier versions stated it.
        del facts["date_columns"]
    # Lists instead of tuples, as it is read back.
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def parsed_source(facts: Mapping[str, Any]) -> SourceFormat:
    """The source that a root states. Raises KeyError, TypeError or ValueError for anything else."""

    def array(spec: Mapping[str, Any]) -> ArraySpec:
        lists = {name: tuple(spec[name]) for name in ("dims", "sample_shape", "chunk")}
        # Stores of earlier versions do not state what is counted, and what numbers must be.
        counted = None if spec.get("statistics") is None else ArrayStatistics(**spec["statistics"])
        rules = None if spec.get("rules") is None else parsed_rules(spec["rules"])
        return ArraySpec(**{**spec, **lists, "dtype": np.dtype(spec["dtype"]), "statistics": counted, "rules": rules})

    def coordinate(spec: Mapping[str, Any]) -> CoordinateSpec:
        rows = spec["values"]
        values = None if rows is None else tuple(tuple(row) if isinstance(row, list) else row for row in rows)
        return CoordinateSpec(
            **{**spec, "dims": tuple(spec["dims"]), "lengths": tuple(spec["lengths"]), "values": values}
        )

    def columns(kind: str) -> tuple[Column, ...]:
        return tuple(Column(**column) for column in facts.get(kind, []))

    return SourceFormat(
        name=facts["name"],
        title=facts["title"],
        group=facts["group"],
        arrays=tuple(map(array, facts["arrays"])),
        coordinates=tuple(map(coordinate, facts["coordinates"])),
        columns=columns("columns"),
        block_columns=columns("block_columns"),
        date_columns=columns("date_columns"),
        makes_samples=facts["makes_samples"],
        has_offsets=facts["has_offsets"],
    )


def parsed_rules(facts: Mapping[str, Any]) -> ValueRules:
    """The rules of an array that a root states. Raises TypeError or ValueError for anything else."""
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    return ValueRules(**plain)


def check_format_version(attributes: Mapping[str, Any], store: object) -> None:
    """Refuse a store of a major version of the format that this h2crop does not read. Raises FormatVersionError."""
    version = str(attributes.get("format_version", "none"))
    if version.split(".")[0] in READABLE:
        return
    remedy = NEWER_FORMAT if is_newer_format(version) else "use a matching version of h2crop"
    raise FormatVersionError(f"{store} has format {version}, this h2crop reads {'.x and '.join(READABLE)}.x: {remedy}")


def check_format_to_write(attributes: Mapping[str, Any], store: object) -> None:
    """Refuse a store to which this h2crop cannot add a release. Raises FormatVersionError.

    A newer minor version can be read, but the next release would lose what is new in it. A store of format 1 is
    migrated by a command of its own, because readers of earlier versions cannot read it after that.
    """
    check_format_version(attributes, store)
    version = str(attributes["format_version"])
    if is_format_1(attributes):
        raise FormatVersionError(
            f"{store} has format {version}, this h2crop writes {FORMAT_VERSION}: run `h2crop migrate {store}` first. "
            "It makes a release of the new format and changes no shard; earlier versions of h2crop cannot read the "
            "store after that"
        )
    if is_newer_format(version):
        raise FormatVersionError(
            f"{store} has format {version}, this h2crop writes {FORMAT_VERSION} and can only read it: {NEWER_FORMAT}"
        )


def is_format_1(attributes: Mapping[str, Any]) -> bool:
    """Whether root attributes are of a release of format 1."""
    return str(attributes["format_version"]).split(".")[0] == "1"


def is_newer_format(version: str) -> bool:
    """Whether a version of the format (`2.1`) comes after the one this h2crop writes; False for anything but a
    version."""
    try:
        return [int(part) for part in version.split(".")] > [int(part) for part in FORMAT_VERSION.split(".")]
    except ValueError:
        return False


def reflectance_attributes(description: str) -> dict[str, Any]:
    """Attributes of a reflectance array. No `scale_factor`: it would make every reader decode to float64."""
    return {
        "_FillValue": REFLECTANCE_FILL,
        "long_name": description,
        "units": REFLECTANCE_UNITS,
        "note": "reflectance = value * 0.0001",
    }


def array_document(
    *,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    data_type: str,
    fill: Any,
    codecs: list[dict[str, Any]],
    dims: tuple[str, ...],
    attributes: dict[str, Any],
) -> dict[str, Any]:
    """A Zarr v3 array document with a regular grid and flat chunk keys (`c.0.0`): one folder an array."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": attributes,
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def group_document(attributes: Mapping[str, Any], members: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """A Zarr v3 group document; with `members` (path -> document) it is a consolidated one."""
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    if members is not None:
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": members}
    return document


def season_documents(root: Root, season: int) -> dict[str, dict[str, Any]]:
    """The documents of the arrays and coordinates of a season by name, from a release's root.

    Those of format 1 have the names of axes of format 2. The coordinates along `time` follow from
    `windows.windows_of_season`; stores of format 1 have only `month` of them.
    """
    prefix = f"{season}/"
    members = root["consolidated_metadata"]["metadata"]
    documents = {path.removeprefix(prefix): document for path, document in members.items() if path.startswith(prefix)}
    return {name: with_time_axis(document) for name, document in documents.items()}


def with_time_axis(document: dict[str, Any]) -> dict[str, Any]:
    """A document of an array of any format with the axis by time as format 2 calls it."""
    return {**document, "dimension_names": [axis_of_2(name) for name in document["dimension_names"]]}


def axis_of_2(name: str) -> str:
    """What format 2 calls an axis of format 1."""
    return TIME_AXIS if name == FIRST_TIME else name


def is_sharded(document: Mapping[str, Any]) -> bool:
    """Whether a document is that of an array of samples, not of a coordinate."""
    return bool(document["node_type"] == "array" and document["codecs"][0]["name"] == "sharding_indexed")


def shard_capacity(document: Mapping[str, Any]) -> int:
    """How many samples a shard of an array holds."""
    return int(document["chunk_grid"]["configuration"]["chunk_shape"][0])
