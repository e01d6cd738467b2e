"""The samples that a day of the season knows: those whose scene was acquired by then.

A loader that reads the first months of a season and an export of them go by it: a scene of a later month is a look into
the future.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from h2crop_data.constants import NONE
from h2crop_data.cube.reading import read_columns
from h2crop_data.cube.root import RootAttributes


def scenes_until(store: str | Path, attributes: RootAttributes, season: int, day: date) -> pa.ChunkedArray:
    """Slots of the samples that have no scene, or one that is known to be acquired by the end of a day (UTC)."""
    table = read_columns(store, attributes, f"samples-{season}", ["slot", "scene", "scene_time"])
    times = table["scene_time"].cast(pa.timestamp("us", "UTC"))
    end = pa.scalar(datetime.combine(day + timedelta(days=1), time(), UTC), pa.timestamp("us", "UTC"))
    known = pc.or_(pc.equal(table["scene"], NONE), pc.fill_null(pc.less(times, end), False))
    return table.filter(known)["slot"]


def last_day_of_month(season: int, month: int) -> date:
    """The last day of a month (1..12) of a season."""
    return date(season, month, monthrange(season, month)[1])
