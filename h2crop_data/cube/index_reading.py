"""Tables and documents of an index from the bytes of their files: one file, or several that belong together."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from h2crop_data.cube.columns import CROP_CODES, GEOMETRY, PARCELS, in_declared_order

#: The columns by which the classes of a parcel are found in the table of codes.
KEY_OF_CODES = ["country", "code"]


def decode_table(files: Iterable[bytes]) -> pd.DataFrame:
    """The rows of some files of one table, one file after the other; a GeoDataFrame where it has geometry."""
    return joined_rows([decode_file(data) for data in files])


def decode_file(data: bytes) -> pd.DataFrame:
    """A table from its file."""
    has_geometry = GEOMETRY.name in pq.read_schema(io.BytesIO(data)).names
    table: pd.DataFrame = (gpd if has_geometry else pd).read_parquet(io.BytesIO(data))
    return table


def joined_rows(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several tables in order; an empty one changes no type of the others."""
    filled = [part for part in parts if len(part)] or list(parts[:1])
    return filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)


def needs_classes(name: str, columns: Iterable[str]) -> bool:
    """Whether a table of parcels has codes without their classes, which the table of codes then has."""
    return name.startswith("parcels-") and "hcat3" not in columns


def codes_name(name: str) -> str:
    """The name of the table of codes that belongs to a table of parcels."""
    return name.replace("parcels-", "codes-", 1)


def with_classes(parcels: pd.DataFrame, codes: pd.DataFrame) -> pd.DataFrame:
    """Parcels with the classes of their codes, in order of number.

    Raises ValueError for a code that the table of codes lacks, or has twice.
    """
    joined = parcels.merge(codes, on=KEY_OF_CODES, how="left", validate="many_to_one", indicator=True)
    unknown = joined[joined.pop("_merge") == "left_only"]
    if len(unknown):
        country, code = unknown.iloc[0][KEY_OF_CODES]
        raise ValueError(f"the table of codes lacks {code!r} of {country}, the code of {len(unknown)} parcel(s)")
    types = codes.dtypes[[column.name for column in CROP_CODES if column.name not in KEY_OF_CODES]]
    ordered = in_declared_order(joined.astype(types.to_dict()), PARCELS)
    return ordered.sort_values("number", ignore_index=True)


def joined_columns(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of several Arrow tables in order; a column that some lack is null there."""
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")


def decode_document(files: Sequence[bytes]) -> Any:
    """A JSON document; one of several files is the union of their objects."""
    documents = [json.loads(data) for data in files]
    return documents[0] if len(documents) == 1 else {key: value for part in documents for key, value in part.items()}
