"""What Sentinel-2 must be beside the rules of its arrays: clear days and days that agree with each other and scenes."""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import LONGEST_DATATAKE, MONTHS, REFLECTANCE_FILL
from h2crop_data.sources.sentinel2.format import DECISIONS, TRUSTED
from h2crop_data.validation.checks.source_checks import Arrays, BlockValues, DerivedColumn, SourceChecks, ValueCheck
from h2crop_data.validation.findings import Findings, error, first, warning
from h2crop_data.validation.values import Problem, wrong_samples

#: Columns of the table of dates that are shares of what was imaged and add up to 1, to what rounding leaves.
CODE_SHARES = ("clear", "cloud", "shadow", "cast_shadow", "snow", "second_look", "near", "unusable")
SHARES_ADD_UP = 1e-4


class Sentinel2Checks(SourceChecks[None]):
    """The checks of Sentinel-2. Published files know no clear days, no scenes, and perhaps no days."""

    name = "sentinel2"

    def check_scenes(self, season: int, blocks: pd.DataFrame, taken: pd.DataFrame) -> Findings:
        """The days and gaps of a sample are of scenes over its block, and the table of dates fits both."""
        if not self.release.is_imported(season):
            yield from self.check_dates(season, blocks, taken)
            yield from self.check_frames(season)
            yield from self.check_differences(season)
        samples = self.release.samples(season)
        if "s2_items" not in blocks or self.release.is_imported(season):
            return
        if samples is None or not {"s2_dates", "s2_gaps"} <= set(samples):
            return
        times = pd.to_datetime(taken["time"], utc=True)
        # A look has the day on which its datatake began, which may be before midnight.
        began = [(time - LONGEST_DATATAKE, time) for time in times]
        days = {name: {f"{moment:%Y-%m-%d}" for moment in span} for name, span in zip(taken["id"], began, strict=True)}
        items = {block: set(names) for block, names in zip(blocks["block"], blocks["s2_items"], strict=True)}
        path, remedy = self.release.index_path(f"samples-{season}"), self.release.remedies.wrong_index()
        for row in samples[["sample", "block", "s2_dates", "s2_gaps"]].to_dict("records"):
            over = items.get(row["block"], set())
            strange = sorted(set(row["s2_dates"]) - {day for item in over for day in days.get(item, ())})
            strange += sorted(set(row["s2_gaps"]) - over)
            if strange:
                what = f"names days or gaps of no scene over its block: {first(strange)}"
                yield error("provenance", f"{path}, sample {row['sample']}", what, remedy)

    def check_differences(self, season: int) -> Findings:
        """What items say of their files where these have something else, as the release says itself."""
        samples = self.release.samples(season)
        if samples is None or "s2_differences" not in samples:
            return
        told = {text for texts in samples["s2_differences"].dropna() for text in texts}
        if told:
            path = self.release.index_path(f"samples-{season}")
            what = f"items say something else of their files than these have: {first(sorted(told))}"
            remedy = "the files were used: look whether these are the scenes, and tell the catalog"
            yield warning("provenance", path, what, remedy)

    def check_dates(self, season: int, blocks: pd.DataFrame, taken: pd.DataFrame) -> Findings:
        """What was masked date by date adds up, is of scenes that are used, and has the days that samples name."""
        table, named = self.release.tables.get(f"dates-{season}"), set()
        if "dates" in blocks:
            # Those of retracted blocks are not part of the release.
            blocks = blocks[blocks["retracted"] == ""]
            named = {digest for digests in blocks["dates"].dropna() for digest in digests}
        path, remedy = self.release.index_path(f"dates-{season}"), self.release.remedies.wrong_index()
        if table is None:
            if named and f"dates-{season}" not in self.release.attributes["index"]:
                yield error("provenance", path, f"blocks of {season} name dates, the index has none", remedy)
            return
        for what in date_table_problems(table, named, set(taken["id"])):
            yield error("provenance", path, what, remedy)
        samples = self.release.samples(season)
        if samples is None or "s2_dates" not in samples or "dates" not in blocks:
            return
        clear = table[table["clear"] > 0]
        days = {digest: set(times.dt.strftime("%Y-%m-%d")) for digest, times in clear.groupby("masks")["time"]}
        masked = blocks[blocks["dates"].notna() & (blocks["dates"].str.len() > 0)]
        of_block = {
            block: set().union(*(days.get(digest, set()) for digest in digests))
            for block, digests in zip(masked["block"], masked["dates"], strict=True)
        }
        rows = samples[samples["block"].isin(list(of_block))]
        for sample, block, named_days in zip(rows["sample"], rows["block"], rows["s2_dates"], strict=True):
            strange = sorted(set(named_days) - of_block[block])
            if strange:
                what = f"sample {sample} names days that no mask of its block shows clear: {first(strange)}"
                yield error("provenance", self.release.index_path(f"samples-{season}"), what, remedy)

    def check_frames(self, season: int) -> Findings:
        """Whether images lie on the parcels, as the release says itself."""
        table = self.release.tables.get(f"frames-{season}")
        if table is None:
            return
        path = self.release.index_path(f"frames-{season}")
        whole = table[table["window"] == "whole"]
        for tile, told in zip(whole["tile"], whole["warning"], strict=True):
            if told:
                remedy = "compare images and parcels in a picture; move the parcels in their file where these are off"
                yield warning("frame", f"{path}, tile {tile}", told, remedy)

    def check_values(self, block: BlockValues) -> ValueCheck[None]:
        """Composites, clear days and days of the year."""
        return ValueCheck(list(value_problems(block.arrays, block.season, imported=block.imported)))

    def derived_columns(self, season: int, arrays: Arrays, *, imported: bool) -> Iterator[DerivedColumn]:
        """The share of clear pixels by month."""
        if "s2_clear" in arrays:
            shares = [float(share) for share in (arrays["s2_clear"] > 0).mean(axis=(1, 2))]
            yield DerivedColumn("s2_clear_share", "s2_clear", shares)

    def check_sample(self, arrays: Arrays, row: Mapping[Any, Any], *, imported: bool) -> Iterator[tuple[str, str]]:
        """The days a sample names are those its clear days can come from."""
        if "s2_clear" in arrays and not imported:
            for what in date_problems(arrays["s2_clear"], list(row.get("s2_dates", []))):
                yield "s2_clear", what


def date_table_problems(table: pd.DataFrame, named: set[str], taken: set[str]) -> Iterator[str]:
    """What cannot be true in a table of dates, in words.

    named: rows that blocks name, by digest. taken: scenes that are used.
    """
    lacking = sorted(named - set(table["masks"]))
    if lacking:
        yield f"lacks rows that blocks name: {first(lacking)}"
    twice = table.duplicated(["masks", "time"])
    if twice.any():
        yield f"dates of a tile are listed more than once: {first(table['masks'][twice].tolist())}"
    shares = table[list(CODE_SHARES)]
    outside = ((shares < 0) | (shares > 1)).any(axis=1) | ~table["imaged"].between(0, 1)
    total = shares.sum(axis=1)
    off = (total - np.where(table["imaged"] > 0, 1.0, 0.0)).abs() > SHARES_ADD_UP
    if (outside | off).any():
        moments = table["time"][outside | off].dt.strftime("%Y-%m-%d").tolist()
        yield f"shares of dates do not add up to 1: {first(moments)}"
    scenes = {name for column in ("items", "l1c") for names in table[column] for name in names}
    lost = sorted(scenes - taken)
    if lost:
        yield f"names scenes that scenes.parquet does not have as taken: {first(lost)}"
    if "alignment" in table:
        yield from shift_problems(table)


def shift_problems(table: pd.DataFrame) -> Iterator[str]:
    """What cannot be true of the shifts in a table of dates, in words."""
    told = table["alignment"].notna()
    became = table["alignment"].fillna("").str.split(":").str[0]
    unknown = sorted(set(table["alignment"][told & ~became.isin(DECISIONS)]))
    if unknown:
        yield f"says of shifts what the format does not know: {first(unknown)}"
    known = became.isin(TRUSTED)
    empty = known & table[["shift_east", "shift_north", "shift_sd"]].isna().any(axis=1)
    if empty.any():
        yield f"uses shifts that it does not state: {first(table['time'][empty].dt.strftime('%Y-%m-%d').tolist())}"


def value_problems(arrays: Arrays, season: int, *, imported: bool) -> Iterator[Problem]:
    """What cannot be true in `s2` (sample, month, s2_band, y, x), `s2_clear` and `s2_day` (sample, month, y, x)."""
    values, clear, day = arrays.get("s2"), arrays.get("s2_clear"), arrays.get("s2_day")
    filled = None if values is None else (values == REFLECTANCE_FILL).all(axis=2)
    if clear is not None:
        more = clear > lengths_of_months(season)[:, None, None]
        yield from wrong_samples("s2_clear", "range", more, "with more clear days than the month has")
    if day is not None:
        first_day, last_day = days_of_months(season, whole_year=imported)
        outside = (day != 0) & ((day < first_day[:, None, None]) | (day > last_day[:, None, None]))
        yield from wrong_samples("s2_day", "range", outside, "with a day that is not of the month")
    if filled is not None and clear is not None:
        what = "where `s2` is fill and `s2_clear` is not 0, or the other way round"
        yield from wrong_samples("s2_clear", "fill", filled != (clear == 0), what)
    seen = clear > 0 if clear is not None else None if filled is None else ~filled
    if day is not None and seen is not None:
        wrong = (day > 0) & ~seen if imported else (day > 0) != seen
        what = "where `s2_day` is 0 and there is a clear day, or the other way round"
        yield from wrong_samples("s2_day", "fill", wrong, what)


def lengths_of_months(season: int) -> NDArray[np.int64]:
    """(12): days of each month."""
    return np.array([calendar.monthrange(season, month)[1] for month in range(1, MONTHS + 1)], np.int64)


def days_of_months(season: int, *, whole_year: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last day of the year of each month, or of the year where only that is known."""
    lengths = lengths_of_months(season)
    last = np.cumsum(lengths)
    if whole_year:
        return np.ones(MONTHS, np.int64), np.full(MONTHS, last[-1])
    return last - lengths + 1, last


def date_problems(clear: NDArray[np.uint8], dates: list[str]) -> Iterator[str]:
    """Where the days a sample names are not those its clear days can come from.

    clear: (month, y, x). dates: `2022-07-24` and so on.
    """
    named = np.bincount([int(date[5:7]) for date in dates if date[5:7].isdecimal()], minlength=MONTHS + 1)[1:]
    most = clear.reshape(len(clear), -1).max(axis=1).astype(int)
    for month in range(MONTHS):
        if (named[month] > 0) != (most[month] > 0) or named[month] < most[month]:
            yield f"{most[month]} clear day(s) in month {month + 1}, the index names {named[month]}"
