"""The columns of the tables of an index: name, type, unit, origin and meaning.

Here are the columns that every store has. A source states its own (`SourceFormat.columns`, `.block_columns`); a table
is their sum. Builder, importer, validation, datasheet and the tables of docs/store-format.md come from these rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import pandas as pd
import pyarrow as pa

from h2crop_data.constants import TIER_COLUMNS

Dtype = Literal[
    "text",
    "texts",
    "integer",
    "int32",
    "uint32",
    "uint8",
    "nullable integer",
    "number",
    "numbers",
    "time",
    "boolean",
    "geometry",
]
#: When a column is known: before a pixel is read, or from the arrays of a block.
WhenKnown = Literal["planned", "derived"]
#: The Arrow type of each of these.
TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "integer": pa.int64(),
    "int32": pa.int32(),
    "uint32": pa.uint32(),
    "uint8": pa.uint8(),
    "nullable integer": pa.int64(),
    "number": pa.float64(),
    "numbers": pa.list_(pa.float64()),
    "time": pa.timestamp("us", tz="UTC"),
    "boolean": pa.bool_(),
    "geometry": pa.binary(),
}
Table = TypeVar("Table", bound=pd.DataFrame)


@dataclass(frozen=True)
class Column:
    """One column of a table of the index."""

    name: str
    #: `texts` and `numbers` are lists; `integer` has 64 bits; `number` is a floating point number that may be null;
    #: times are in UTC.
    dtype: Dtype
    #: One line on what it says.
    text: str
    unit: str = ""
    #: Name of the source that states it; empty for columns that every store has.
    source: str = ""
    known: WhenKnown = "planned"
    #: How many numbers a list holds.
    length: int | None = None
    #: Whether every row has a value.
    filled: bool = False
    #: Whether every release has it; false for columns that came later than format 1.0 without a version of their own.
    always: bool = True
    #: Whether an imported season has it as well.
    imported: bool = True
    #: Whether it lists scenes of its source, which the index of scenes has.
    scenes: bool = False

    @property
    def is_share(self) -> bool:
        """Whether it holds shares, which lie in 0..1."""
        return self.unit == "share"


SAMPLES = (
    Column("sample", "text", "id: cell and time of the scene, or season", filled=True),
    Column("cell", "text", "cell of the lattice", filled=True),
    Column("epsg", "integer", "CRS of `x0`, `y0`"),
    Column("x0", "number", "western edge in `epsg`", "m"),
    Column("y0", "number", "northern edge in `epsg`", "m"),
    Column("block", "integer", "number of its block in the season", filled=True),
    Column("slot", "integer", "place along `sample` in the season", filled=True),
    Column("split", "text", "`train`, `val` or `test`", filled=True),
    Column("square", "text", "column_row of its split square in EPSG:3035"),
    Column("scene", "text", "EnMAP scene; `none` where there is none"),
    Column("scene_time", "time", "when that scene was acquired"),
    Column("sun_elevation", "number", "of that scene", "degrees"),
    Column("sun_azimuth", "number", "of that scene", "degrees"),
    Column("across_off_nadir", "number", "of that scene", "degrees"),
    Column("flagged_share", "number", "pixels with a flag the recipe counts, as planned", "share", imported=False),
    Column("labelled_share", "number", "pixels with a class at tier 1, as planned", "share", imported=False),
)
#: What samples of an imported season have besides (docs/published-layout.md).
IMPORTED_COLUMNS = (
    Column("on_lattice", "boolean", "whether its ground is a cell of the lattice; false", filled=True),
    Column("affine", "numbers", "from 10 m pixels (column, row) to `epsg`", "m", length=6),
    Column("located", "text", "how exactly its place is known: `scene`, `footprint` or `tile`", filled=True),
    Column("mgrs_tile", "text", "MGRS tile of its id", filled=True),
    Column("list_position", "integer", "its place in the list it came from"),
    Column("s2_offset", "integer", "offset that is left in the values of `s2`"),
)
GEOMETRY = Column("geometry", "geometry", "outline in longitude and latitude", "degrees", filled=True)
BLOCKS = (
    Column("season", "integer", "calendar year", filled=True),
    Column("block", "integer", "number in its season", filled=True),
    Column("split", "text", "of all its samples", filled=True),
    Column("square", "text", "split square of all its samples"),
    Column("epsg", "integer", "CRS of all its samples"),
    Column("scene", "text", "EnMAP scene; `none` where there is none"),
    Column("samples", "integer", "how many"),
)
#: The columns of blocks after those of the sources, in every store of format 1.
BLOCK_HASHES = (
    Column("hash_s2", "text", "input hash of its Sentinel-2 arrays"),
    Column("hash_enmap", "text", "input hash of its EnMAP arrays"),
    Column("hash_labels", "text", "input hash of its label arrays"),
)
BLOCK_RECORDS = (
    Column("part", "text", "part of the season's plans: the season, or season and first block of what was added"),
    Column("recipe", "text", "SHA-256 of the recipe without its seasons"),
    Column("taxonomy", "text", "version and SHA-256 of the classes"),
    Column(
        "tables",
        "texts",
        "crop tables of its labels: country and SHA-256 of its rows, `fr 9f2c…`; null where they are unknown",
        always=False,
    ),
    Column("files", "texts", "its shards", filled=True, known="derived"),
    Column("software", "text", "what built it", known="derived"),
    Column(
        "dates",
        "texts",
        "rows of the table of dates on its ground, by `masks`",
        known="derived",
        always=False,
    ),
    Column("retracted", "text", "why it is not part of the release; empty where it is"),
)
#: What blocks had in format 1 only; since then the manifest alone has it.
BLOCK_DIGESTS = Column(
    "sha256", "texts", "SHA-256 of its files, in the same order; in format 1 only", filled=True, known="derived"
)
#: Of the parts of the manifest.
MANIFEST = (
    Column("path", "text", "of a file, below the store", filled=True),
    Column("bytes", "integer", "its size", "bytes", filled=True),
    Column("sha256", "text", "its SHA-256", filled=True),
)
#: Columns of blocks that came with format 1.1.
BLOCKS_SINCE_1_1 = ("part", "retracted")
#: Of frames-<season>.parquet: where the images lie against the parcels, by tile and by window of it.
FRAMES = (
    Column("tile", "text", "processing tile: EPSG, size in metres, column, row", filled=True),
    Column("window", "text", "`whole`, or row_column of a window of 4 km from the north west", filled=True),
    Column("epsg", "integer", "CRS of the next four", filled=True),
    Column("west", "number", "of its ground", "m", filled=True),
    Column("south", "number", "of its ground", "m", filled=True),
    Column("east", "number", "of its ground", "m", filled=True),
    Column("north", "number", "of its ground", "m", filled=True),
    Column("parcel_count", "integer", "number of parcels on ground with images", filled=True),
    Column("shift_east", "number", "shift of images against parcels: metres east", "m"),
    Column("shift_north", "number", "and north", "m"),
    Column("shift_uncertainty", "number", "standard deviation of the shift, both directions together", "m"),
    Column("correlation", "number", "of edges in the images with borders of parcels"),
    Column("check_east", "number", "the shift by painted parcels, an independent measurement: metres east", "m"),
    Column("check_north", "number", "and north", "m"),
    Column("doubtful", "boolean", "whether the two measurements differ by more than 2 m", filled=True),
    Column("frame", "text", "`measured`, or `not_measured: why`", filled=True),
    Column("warning", "text", "warning where the shift surely exceeds half a pixel; empty elsewhere"),
)
SCENES = (
    Column("season", "integer", "calendar year", filled=True),
    Column("id", "text", "of the catalog's item", filled=True),
    Column("sensor", "text", "name of its source, `sentinel2` or `enmap` for instance"),
    Column("collection", "text", "of the catalog"),
    Column("time", "time", "when it was acquired"),
    Column("baseline", "text", "processing baseline or version"),
    Column("taken", "boolean", "whether it is used"),
    Column("reason", "text", "why it is not used, or how its offset was decided"),
    Column("offset", "nullable integer", "offset added to its values; null where there is none"),
    Column("warning", "text", "warning about a scene that is used; empty without one", always=False),
    Column("catalog", "text", "catalog that listed it, by its name in the recipe", always=False),
    Column(
        "evidence", "text", "evidence of its pixels for the offset, where pixels were used to decide it", always=False
    ),
)
PARCELS = (
    Column("number", "uint32", "as in the array `parcel`", filled=True),
    Column("country", "text", "of the declarations"),
    Column("parcel_id", "text", "its own id in the file"),
    Column("code", "text", "crop code; several, as `BTH ≠ MIS`, where its ground was declared with several crops"),
    Column("hcat3", "text", "HCAT3 code of the crop"),
    *(Column(name, "uint8", f"class at tier {tier}") for tier, name in enumerate(TIER_COLUMNS, 1)),
    Column("split", "text", "the split that holds most of it", filled=True),
    GEOMETRY,
)
#: Of codes-<season>.parquet, where rows of parcels have codes without classes: those of each code.
CROP_CODES = tuple(
    Column(column.name, column.dtype, column.text, filled=True)
    for column in PARCELS
    if column.name in ("country", "code", "hcat3") or column.name in TIER_COLUMNS
)
#: What every table of dates has; the rest states the source whose dates they are.
DATES = (
    Column("masks", "text", "SHA-256 of the rows of a tile; `dates` of the blocks names it", filled=True),
    Column("tile", "text", "processing tile: EPSG, size in metres, column, row", filled=True),
    Column("time", "time", "of the look: when its datatake began", filled=True),
)
SQUARES = (
    Column("season", "integer", "calendar year", always=False),
    Column("column", "int32", "of the split square"),
    Column("row", "int32", "of the split square"),
    Column("split", "text", "of all ground in it", filled=True),
    Column("samples", "integer", "of the season"),
    GEOMETRY,
)


#: The box of each row, which is no column of its own: readers that look for some ground read it first.
BOX = "bbox"
EDGES = ("xmin", "ymin", "xmax", "ymax")
#: The columns of tables that are the same in every store.
PLAIN_TABLES = {
    "parcels": PARCELS,
    "codes": CROP_CODES,
    "frames": FRAMES,
    "scenes": SCENES,
    "squares": SQUARES,
    "manifest": MANIFEST,
}


def table_schema(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of some columns: types, whether every row has a value, and as metadata what they mean."""
    fields = []
    for column in columns:
        meaning = {"description": column.text, **({"unit": column.unit} if column.unit else {})}
        fields.append(pa.field(column.name, TYPES[column.dtype], nullable=not column.filled, metadata=meaning))
    if any(column.name == GEOMETRY.name for column in columns):
        edges = [pa.field(edge, pa.float64()) for edge in EDGES]
        meaning = {"description": "the box around the outline", "unit": GEOMETRY.unit}
        fields.append(pa.field(BOX, pa.struct(edges), metadata=meaning))
    return pa.schema(fields)


def with_nullable_integers(table: Table, columns: Iterable[Column]) -> Table:
    """A table with nullable integer columns as nullable integers, not as floating point numbers."""
    names = [column.name for column in columns if column.dtype == "nullable integer" and column.name in table]
    typed: Table = table.astype(dict.fromkeys(names, "Int64"))
    return typed


def in_declared_order(table: Table, columns: Iterable[Column]) -> Table:
    """A table with its columns in the order they are stated; others follow, the geometry is last.

    A column that no row has is left out; one that some rows lack is null there.
    """
    stated = [column.name for column in columns if column.name in table and column.name != GEOMETRY.name]
    others = [name for name in table if name not in stated and name != GEOMETRY.name]
    last = [GEOMETRY.name] if GEOMETRY.name in table else []
    ordered: Table = table[[*stated, *others, *last]]
    return ordered
