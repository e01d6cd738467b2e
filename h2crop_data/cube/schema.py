"""What a store holds: its arrays, coordinates and Zarr v3 metadata documents (specification: docs/store-format.md).

The metadata documents are written here as plain dictionaries, so that the same store always has the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from h2crop_data.constants import COARSE, ENMAP_FLAGS, FINE, MONTHS, REFLECTANCE_FILL, TIERS, UNKNOWN
from h2crop_data.errors import FormatVersionError
from h2crop_data.recipe.model import Recipe

FORMAT_VERSION = "1.1"

#: The copy of a release's root document, below its index folder.
ROOT_COPY = "root.json"

#: Slots in one chunk of a coordinate along `sample`; one large chunk opens faster than many small ones.
COORDINATE_CHUNK = 65536
#: The same for the two coordinates that also run along `band`.
BAND_COORDINATE_CHUNK = 1024
ArrayGroup = Literal["s2", "enmap", "labels"]


@dataclass(frozen=True)
class Codec:
    """How chunks are compressed: Blosc with bit shuffle. `lz4` reads fastest, `zstd` is about a tenth smaller."""

    name: Literal["lz4", "zstd"] = "lz4"
    level: int = 5

    def metadata(self, itemsize: int) -> dict[str, Any]:
        """The Zarr v3 codec document for elements of `itemsize` bytes."""
        configuration = {
            "typesize": itemsize,
            "cname": self.name,
            "clevel": self.level,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        }
        return {"name": "blosc", "configuration": configuration}


@dataclass(frozen=True)
class ArraySpec:
    """One array of a season group, without its number of slots."""

    name: str
    group: ArrayGroup
    dims: tuple[str, ...]
    #: Shape of one sample, that is of all axes but the first.
    sample_shape: tuple[int, ...]
    #: Shape of an inner chunk; the first axis is always 1, the axes after the second are never cut.
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: int
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def chunks_per_sample(self) -> int:
        """How many inner chunks hold one sample (12 where months are apart, else 1)."""
        return self.sample_shape[0] // self.chunk[1]

    def metadata(self, slots: int, capacity: int, codec: Codec) -> dict[str, Any]:
        """The array's `zarr.json` for `slots` slots: shards of `capacity` samples, index at the end."""
        little: dict[str, Any] = {"name": "bytes"}
        if self.dtype.itemsize > 1:
            little["configuration"] = {"endian": "little"}
        index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {
            "chunk_shape": list(self.chunk),
            "codecs": [little, codec.metadata(self.dtype.itemsize)],
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
class StoreLayout:
    """The shape of everything in a store; fixed when the store is made and written in its root attributes."""

    cell_size: int
    capacity: int
    codec: Codec = Codec()
    s2_bands: tuple[str, ...] = ()
    enmap_bands: int = 0
    labels: bool = True

    @property
    def fine(self) -> int:
        """Pixels along a cell's side at 10 m."""
        return self.cell_size // FINE

    @property
    def coarse(self) -> int:
        """Pixels along a cell's side at 30 m."""
        return self.cell_size // COARSE

    def arrays(self) -> dict[str, ArraySpec]:
        """The arrays of a season group by name; sources a recipe leaves out have no arrays."""
        specs: list[ArraySpec] = []
        if self.enmap_bands:
            specs += enmap_arrays(self.enmap_bands, self.coarse)
        if self.s2_bands:
            specs += sentinel2_arrays(len(self.s2_bands), self.fine)
        if self.labels:
            specs += label_arrays(self.fine)
        return {spec.name: spec for spec in specs}

    def attributes(self) -> dict[str, Any]:
        """What the root attributes say of the layout."""
        return {
            "cell_size": self.cell_size,
            "block_capacity": self.capacity,
            "codec": {"name": self.codec.name, "level": self.codec.level},
            "s2_bands": list(self.s2_bands),
            "enmap_bands": self.enmap_bands,
            "labels": self.labels,
        }

    @classmethod
    def of(cls, recipe: Recipe) -> StoreLayout:
        """The layout a recipe asks for."""
        return cls(
            cell_size=recipe.cell_size,
            capacity=recipe.store.block_capacity,
            codec=Codec(recipe.store.codec, recipe.store.level),
            s2_bands=tuple(recipe.sentinel2.bands) if recipe.sentinel2 else (),
            enmap_bands=recipe.enmap.bands.count if recipe.enmap else 0,
            labels=recipe.parcels is not None,
        )

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> StoreLayout:
        """The layout that `attributes()` described."""
        return cls(
            cell_size=attributes["cell_size"],
            capacity=attributes["block_capacity"],
            codec=Codec(**attributes["codec"]),
            s2_bands=tuple(attributes["s2_bands"]),
            enmap_bands=attributes["enmap_bands"],
            labels=attributes["labels"],
        )


def check_format_version(attributes: dict[str, Any], store: object) -> None:
    """Refuse a store of another major version of the format. Raises FormatVersionError."""
    version = str(attributes.get("format_version", "none"))
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise FormatVersionError(
            f"{store} has format {version}, this h2crop reads {FORMAT_VERSION.split('.')[0]}.x: "
            f"bring it to this version with `h2crop migrate {store}`, or use a version of h2crop that fits"
        )


def reflectance_attributes(description: str) -> dict[str, Any]:
    """Attributes of a reflectance array. No `scale_factor`: it would make every reader decode to float64."""
    return {
        "_FillValue": REFLECTANCE_FILL,
        "long_name": description,
        "units": "1e-4",
        "note": "reflectance = value * 0.0001",
    }


def enmap_arrays(bands: int, side: int) -> list[ArraySpec]:
    """EnMAP reflectance (sample, band, y30, x30) int16 and its flags (sample, y30, x30) uint16."""
    flags = {"flag_masks": list(ENMAP_FLAGS.values()), "flag_meanings": " ".join(ENMAP_FLAGS)}
    return [
        ArraySpec(
            "enmap",
            "enmap",
            ("sample", "band", "y30", "x30"),
            (bands, side, side),
            (1, bands, side, side),
            np.dtype("int16"),
            REFLECTANCE_FILL,
            reflectance_attributes("EnMAP L2A surface reflectance, bands in order of wavelength"),
        ),
        ArraySpec(
            "enmap_quality",
            "enmap",
            ("sample", "y30", "x30"),
            (side, side),
            (1, side, side),
            np.dtype("uint16"),
            ENMAP_FLAGS["outside"],
            {"long_name": "EnMAP quality flags", **flags},
        ),
    ]


def sentinel2_arrays(bands: int, side: int) -> list[ArraySpec]:
    """Monthly Sentinel-2 composites int16, clear observations uint8 and day of year uint16, chunked by month."""
    monthly = ("sample", "month", "y", "x")
    return [
        ArraySpec(
            "s2",
            "s2",
            ("sample", "month", "s2_band", "y", "x"),
            (MONTHS, bands, side, side),
            (1, 1, bands, side, side),
            np.dtype("int16"),
            REFLECTANCE_FILL,
            reflectance_attributes("Sentinel-2 L2A monthly composite, offset removed"),
        ),
        ArraySpec(
            "s2_clear",
            "s2",
            monthly,
            (MONTHS, side, side),
            (1, 1, side, side),
            np.dtype("uint8"),
            0,
            {"long_name": "clear observations behind the pixel", "units": "1"},
        ),
        ArraySpec(
            "s2_day",
            "s2",
            monthly,
            (MONTHS, side, side),
            (1, 1, side, side),
            np.dtype("uint16"),
            0,
            {"long_name": "median day of year of the clear observations, rounded down; 0 none", "units": "1"},
        ),
    ]


def label_arrays(side: int) -> list[ArraySpec]:
    """Labels and priors (sample, tier, y, x) uint8, parcel numbers (sample, y, x) uint32."""
    tiers = ("sample", "tier", "y", "x")
    meaning = {"note": "0 not declared, 1..N class of the tier, 255 unknown at this tier"}
    return [
        ArraySpec(
            name,
            "labels",
            tiers,
            (TIERS, side, side),
            (1, TIERS, side, side),
            np.dtype("uint8"),
            UNKNOWN,
            {"long_name": description, **meaning},
        )
        for name, description in (("label", "declared crop"), ("prior", "declared crop of the year before"))
    ] + [
        ArraySpec(
            "parcel",
            "labels",
            ("sample", "y", "x"),
            (side, side),
            (1, side, side),
            np.dtype("uint32"),
            0,
            {"long_name": "parcel number of the season; 0 none"},
        )
    ]


@dataclass(frozen=True)
class CoordinateSpec:
    """One coordinate of a season group; `along_sample` ones grow with the slots, the others are fixed."""

    name: str
    dims: tuple[str, ...]
    #: A numpy dtype name or "string" (Zarr's variable-length UTF-8).
    data_type: str
    fill: Any
    chunk: int | None = COORDINATE_CHUNK
    attributes: dict[str, Any] = field(default_factory=dict)

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


def coordinates(layout: StoreLayout) -> list[CoordinateSpec]:
    """The coordinates of a season group of this layout."""
    metres = {"units": "m", "note": "upper left corner of the sample in its epsg"}
    specs = [
        CoordinateSpec("sample", ("sample",), "string", ""),
        CoordinateSpec("valid", ("sample",), "bool", False),
        CoordinateSpec("x0", ("sample",), "float64", 0.0, attributes=metres),
        CoordinateSpec("y0", ("sample",), "float64", 0.0, attributes=metres),
        CoordinateSpec("epsg", ("sample",), "int32", 0),
    ]
    if layout.s2_bands:
        specs += [
            CoordinateSpec("month", ("month",), "int8", 0, None),
            CoordinateSpec("s2_band", ("s2_band",), "string", "", None),
        ]
    if layout.labels:
        specs.append(CoordinateSpec("tier", ("tier",), "int8", 0, None))
    if layout.enmap_bands:
        nanometres = {"units": "nm"}
        specs += [
            CoordinateSpec(name, ("sample", "band"), "float32", 0.0, BAND_COORDINATE_CHUNK, nanometres)
            for name in ("wavelength", "fwhm")
        ]
    return specs


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


def group_document(attributes: dict[str, Any], members: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """A Zarr v3 group document; with `members` (path -> document) it is a consolidated one."""
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    if members is not None:
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": members}
    return document
