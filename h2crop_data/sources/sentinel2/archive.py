"""Gaps of the archive: the acquisitions that a catalog lists, compared with those expected by the ten-day cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.catalog.expected_acquisitions import AcquisitionSeries, by_month
from h2crop_data.constants import MONTHS
from h2crop_data.datasheet.facts import MONTH_NAMES
from h2crop_data.datasheet.markdown import listing, plural
from h2crop_data.errors import PlanError

#: The series of each tile as plain data (`acquisitions` in `sources` of the index): `series`, `found` by month and
#: `missing`.
Acquisitions = Mapping[str, Sequence[Mapping[str, Any]]]
#: Tiles, and dates of each of their series, that a plan names.
NAMED, DATES_NAMED = 10, 5


def as_plain(series: Sequence[AcquisitionSeries]) -> dict[str, list[dict[str, Any]]]:
    """Series by tile, as a plan keeps them."""
    tiles: dict[str, list[dict[str, Any]]] = {}
    for one in series:
        missing = [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in one.missing]
        tiles.setdefault(one.tile, []).append(
            {"series": one.name, "found": by_month(one.found), "missing": missing},
        )
    return tiles


def counts_of(series: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """(2, month): the acquisitions of a tile that are found, and those that are missing."""
    found = np.zeros((2, MONTHS), np.int64)
    for one in series:
        found[0] += one["found"]
        found[1] += by_month(datetime.fromisoformat(moment) for moment in one["missing"])
    return found


def explain_acquisitions(acquisitions: Acquisitions) -> list[str]:
    """Lines on the acquisitions that are missing: of all tiles, then of those that lack most, month by month."""
    counts = {tile: counts_of(series) for tile, series in acquisitions.items()}
    missing = {tile: int(of_tile[1].sum()) for tile, of_tile in counts.items() if of_tile[1].any()}
    if not missing:
        return []
    total = sum(int(of_tile.sum()) for of_tile in counts.values())
    lines = [
        f"gaps of the archive: {sum(missing.values())} of {plural(total, 'Sentinel-2 acquisition')} expected by the "
        f"ten-day cycle are not in the catalog, in {len(missing)} of {plural(len(counts), 'tile')}"
    ]
    worst = sorted(missing, key=lambda tile: (-missing[tile], tile))
    for tile in worst[:NAMED]:
        found, lost = counts[tile]
        months = [
            f"{MONTH_NAMES[month]} {found[month]} of {found[month] + lost[month]}" for month in np.flatnonzero(lost)
        ]
        lines.append(f"  {tile}: {', '.join(months)} ({missing_dates(acquisitions[tile])})")
    if len(worst) > NAMED:
        lines.append(f"  and {plural(len(worst) - NAMED, 'tile')} more; `--json` has all")
    return lines


def missing_dates(series: Sequence[Mapping[str, Any]]) -> str:
    """The missing dates of a tile by series."""
    return "; ".join(
        f"{one['series']}: {listing([moment[:10] for moment in one['missing']], DATES_NAMED)}"
        for one in series
        if one["missing"]
    )


def check_missing(acquisitions: Acquisitions, most: int | None, season: int) -> None:
    """Raise PlanError, naming tiles and dates, where more acquisitions lack in a month of a tile than may (`most`)."""
    if most is None:
        return
    lines = []
    for tile, series in sorted(acquisitions.items()):
        found, lost = counts_of(series)
        months = [
            f"{lost[month]} of {found[month] + lost[month]} in {MONTH_NAMES[month]}"
            for month in np.flatnonzero(lost > most)
        ]
        if months:
            lines.append(f"{tile}: {', '.join(months)} ({missing_dates(series)})")
    if lines:
        shown = "\n  ".join(lines[:NAMED])
        raise PlanError(
            f"{season}: of {plural(len(lines), 'tile')} more than {most} Sentinel-2 acquisitions a month are missing "
            f"from the catalog:\n  {shown}\nUse a catalog that has them, or raise "
            "sentinel2.max_missing_acquisitions (docs/catalogs.md, Gaps)."
        )
