"""The table of dates: facts of each date over the ground of blocks, from units of work, kept beside the markers.

.build/dates/<digest>.json   the rows of a unit, called by their digest, written before blocks that use them are built

A marker names the rows of its block, and sealing puts them together. The work folder, in which results lie, can be
deleted at any time; these rows cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from h2crop_data.cube.columns import in_declared_order
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.errors import MissingFileError, StoreError
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.sources.registry import used_sources
from h2crop_data.storage.checked import checked_rows, parsed_rows
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

DATES_FOLDER = f"{BUILD_FOLDER}/dates"


def keep_dates(files: Storage, plan: SeasonPlan) -> None:
    """Keep the rows of the units whose results a plan was given. Raises StoreError."""
    for source, settings in used_sources(plan.recipe):
        for digest, rows in source.dates(settings, plan.pinned[source.name]).items():
            if not files.exists(name_of(digest)):
                files.replace(name_of(digest), [checked_rows(rows).encode()])


def table_of_dates(files: Storage, digests: Iterable[str], layout: StoreLayout) -> pd.DataFrame | None:
    """Rows by their digests as a table, in order of ground and time; None where there are none.

    Raises StoreError where rows are lost or damaged.
    """
    rows: list[dict[str, Any]] = []
    for digest in sorted(set(digests)):
        rows += [{"masks": digest, **row} for row in rows_of_dates(files, digest)]
    if not rows:
        return None
    columns = layout.date_columns()
    table = in_declared_order(pd.DataFrame(rows), columns)
    for column in columns:
        if column.name not in table:
            continue
        if column.dtype == "time":
            table[column.name] = pd.to_datetime(table[column.name], utc=True, format="ISO8601").dt.as_unit("us")
        elif column.dtype == "number":
            table[column.name] = table[column.name].astype("float64")
    return table.sort_values(["tile", "time", "masks"], ignore_index=True)


def rows_of_dates(files: Storage, digest: str) -> list[dict[str, Any]]:
    """The rows of a digest. Raises StoreError where they are lost or damaged."""
    try:
        return parsed_rows(files.read(name_of(digest)))
    except (MissingFileError, ValueError) as error:
        raise StoreError(
            f"{files.where(name_of(digest))} is missing or damaged ({error}); it has the table of dates of some "
            "blocks. Restore it from a copy of the store, or delete it and the marker of one of these blocks "
            f"({BUILD_FOLDER}/<season>/<block>.json) and rerun the build"
        ) from error


def name_of(digest: str) -> str:
    """The file of some rows."""
    return f"{DATES_FOLDER}/{digest}.json"
