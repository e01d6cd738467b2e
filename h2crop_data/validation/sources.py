"""What `h2crop validate` asks of a source: what its arrays, columns and coordinates must hold; EnMAP and Sentinel-2.

Validation shares no code with the sources of a build, so that a mistake there is not made here again. What the format
of a source states of its numbers (`ValueRules`) is checked for every source; what arrays must be against each other,
columns, scenes and the index is known of the sources here and in `labels.py` alone.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import (
    ENMAP_FLAGS,
    ENMAP_MASK_FLAGS,
    EXCLUDED_BY_OWN,
    LONGEST_DATATAKE,
    MONTHS,
    OBSCURED_BY_OWN,
    REFLECTANCE_FILL,
)
from h2crop_data.sources.sentinel2.format import DECISIONS, TRUSTED
from h2crop_data.validation.findings import Checking, Findings, Problem, Reports, error, first, warning, wrong_samples
from h2crop_data.validation.release import IMPORTED, Release

Arrays = Mapping[str, NDArray[Any]]
#: What a source reads of the index before the blocks of a season; what its checks keep of a block to compare it with
#: other blocks; what the blocks before have shown.
Facts = TypeVar("Facts")
Kept = TypeVar("Kept")
Shown = TypeVar("Shown")


@dataclass(frozen=True)
class BlockValues:
    """The values of a block."""

    season: int
    #: None where the index does not say.
    split: str | None
    #: Name -> (sample, ...): the arrays of all sources, without those whose files are missing or damaged.
    arrays: Arrays
    #: Whether its season was imported from published files.
    imported: bool
    #: Its rows of the samples index, one a sample, in order; None where that is lost or does not fit.
    rows: pd.DataFrame | None = None


@dataclass(frozen=True)
class ValueCheck(Generic[Kept]):
    """What the values of a block say by themselves."""

    problems: list[Problem] = field(default_factory=list)
    #: None where nothing is to be compared with other blocks.
    kept: Kept | None = None


@dataclass(frozen=True)
class DerivedColumn:
    """A column of the samples index that follows from an array of the sample."""

    column: str
    array: str
    value: float | int | list[float]


@dataclass(frozen=True)
class SourceChecks(Generic[Facts, Kept, Shown]):
    """The checks of one source in one release. Every method has an answer for a source of which nothing is known.

    Nothing here changes: `season_facts` reads what the blocks of a season are held against, `check_values`,
    `derived_columns` and `check_sample` run in several threads, then `compare_block` is asked for the blocks in order
    and `end_season` after them; each is given what the blocks before have shown, and gives that with its own.
    """

    release: Release

    #: As in the recipe.
    name: ClassVar[str]
    #: Tables of the index that every built season has because of this source, without the season in their names.
    season_tables: ClassVar[tuple[str, ...]] = ()

    def check_scenes(self, season: int, blocks: pd.DataFrame, taken: pd.DataFrame) -> Findings:
        """What columns of the index say of scenes that were not taken.

        blocks: the blocks of a season. taken: the scenes of the season that are used, of all sources.
        """
        return iter(())

    def wrong_coordinate(self, name: str, values: NDArray[Any], *, imported: bool) -> NDArray[np.bool_] | None:
        """(slot): where a coordinate along the samples is not what a slot with a sample must have.

        values: (slot, ...), of any value in other slots. None for a coordinate of another source.
        """
        return None

    def flag_masks(self, season: int) -> dict[str, int] | None:
        """Array of flags -> the bits that keep a pixel out of statistics; None where the recipe does not say."""
        return {}

    def season_facts(self, season: int) -> Facts | None:
        """What the blocks of a season are held against."""
        return None

    def check_values(self, block: BlockValues, facts: Facts | None) -> ValueCheck[Kept]:
        """What cannot be true in the values of a block."""
        return ValueCheck()

    def derived_columns(self, season: int, arrays: Arrays, *, imported: bool) -> Iterator[DerivedColumn]:
        """What the samples index must say of a sample. arrays: those of the sample."""
        return iter(())

    def unknown_columns(self, season: int, row: Mapping[Any, Any]) -> frozenset[str]:
        """Derived columns that must be null in the row of a sample, because its scene lacks what they come from."""
        return frozenset()

    def check_sample(self, arrays: Arrays, row: Mapping[Any, Any], *, imported: bool) -> Iterator[tuple[str, str]]:
        """Array, and what of the row of a sample in the index contradicts it, in words."""
        return iter(())

    def compare_block(self, shown: Shown | None, season: int, block: int, kept: Kept) -> Checking[Shown | None]:
        """What contradicts the blocks before. kept: what `check_values` kept of this one."""
        yield from ()
        return shown

    def end_season(
        self, shown: Shown | None, season: int, labelled: Mapping[str, NDArray[np.uint32]]
    ) -> Checking[Shown | None]:
        """What only all blocks of a season together show.

        labelled: by split, the numbers of parcels with a labelled pixel, of the blocks of which all arrays are whole.
        """
        yield from ()
        return shown

    def end_store(self, shown: Shown | None) -> Reports:
        """What only all blocks of all seasons together show."""
        return iter(())


# EnMAP

#: The flags that a quality layer of the archive alone sets.
FLAGS_OF_LAYERS = {
    "quality_cloud": ("cloud",),
    "quality_cloud_shadow": ("cloud_shadow",),
    "quality_haze": ("haze",),
    "quality_cirrus": ("cirrus_thin", "cirrus_medium", "cirrus_thick"),
    "quality_snow": ("snow",),
    "quality_testflags": ("interpolated", "saturated", "artefact", "reduced_quality", "low_quality"),
    "defective_pixel_mask": ("defective",),
}
#: The flags that our own mask is held against.
LAYERS_COMPARED = ENMAP_FLAGS["cloud"] | ENMAP_FLAGS["cloud_shadow"]


class EnmapChecks(SourceChecks[None, None, None]):
    """The checks of EnMAP."""

    name = "enmap"

    def wrong_coordinate(self, name: str, values: NDArray[Any], *, imported: bool) -> NDArray[np.bool_] | None:
        """Wavelengths grow, imported ones may all be unknown (0); widths of bands are numbers from 0 on."""
        if name == "wavelength":
            growing = (values > 0).all(axis=1) & (np.diff(values, axis=1) > 0).all(axis=1)
            unknown = (values == 0).all(axis=1) if imported else np.zeros(len(values), bool)
            return np.asarray(~growing & ~unknown)
        if name == "fwhm":
            return np.asarray(~(np.isfinite(values) & (values >= 0)).all(axis=1))
        return None

    def flag_masks(self, season: int) -> dict[str, int] | None:
        """The flags that the recipe of a season, or its import, counts."""
        settings = self.release.settings(season, IMPORTED) or self.release.settings(season, "enmap")
        flagged = settings.get("flagged")
        if not isinstance(flagged, list) or not all(isinstance(flag, str) and flag in ENMAP_FLAGS for flag in flagged):
            return None
        own = EXCLUDED_BY_OWN if settings.get("mask") == "apply" else 0
        return {"enmap_quality": sum(ENMAP_FLAGS[flag] for flag in set(flagged)), "enmap_mask": own}

    def check_values(self, block: BlockValues, facts: None) -> ValueCheck[None]:
        """Flags against reflectance."""
        return ValueCheck(list(flag_problems(block.arrays)))

    def unknown_columns(self, season: int, row: Mapping[Any, Any]) -> frozenset[str]:
        """Shares of pixels with a flag whose layer the scene lacks."""
        missing = row.get("enmap_layers_missing")
        layers = list(missing) if isinstance(missing, list | np.ndarray) else []
        lost = {flag for layer in layers for flag in FLAGS_OF_LAYERS.get(layer, ())}
        bits = sum(ENMAP_FLAGS[flag] for flag in lost)
        counted = (self.flag_masks(season) or {"enmap_quality": 0})["enmap_quality"]
        shares = {"enmap_cloud_share": ENMAP_FLAGS["cloud"], "enmap_flagged_share": counted}
        unknown = {column for column, mask in shares.items() if mask & bits}
        if bits & LAYERS_COMPARED:
            unknown |= {"enmap_mask_disagreement", "enmap_mask_alone"}
        return frozenset(unknown)

    def derived_columns(self, season: int, arrays: Arrays, *, imported: bool) -> Iterator[DerivedColumn]:
        """Shares of fill, of clouds and of flagged pixels."""
        if "enmap" in arrays:
            yield DerivedColumn("enmap_fill_share", "enmap", float((arrays["enmap"] == REFLECTANCE_FILL).mean()))
        if "enmap_quality" in arrays:
            quality = arrays["enmap_quality"]
            yield DerivedColumn("enmap_cloud_share", "enmap_quality", share_with(quality, ENMAP_FLAGS["cloud"]))
            masks = self.flag_masks(season)
            mask = arrays.get("enmap_mask")
            if masks is not None:
                flagged = (quality & masks["enmap_quality"]) != 0
                if mask is not None:
                    flagged = flagged | ((mask & masks["enmap_mask"]) != 0)
                yield DerivedColumn("enmap_flagged_share", "enmap_quality", float(flagged.mean()))
            if mask is not None:
                yield from mask_shares(mask, quality)


def share_with(quality: NDArray[np.uint16], mask: int) -> float:
    """The share of pixels with one of some flags."""
    return float(((quality & mask) != 0).mean())


def mask_shares(mask: NDArray[np.uint8], quality: NDArray[np.uint16]) -> Iterator[DerivedColumn]:
    """Shares of what `enmap_mask` (y30, x30) says, of the pixels it looked at; none where it looked at none."""
    seen = (mask & ENMAP_MASK_FLAGS["unseen"]) == 0
    if not seen.any():
        return
    mask, quality = mask[seen], quality[seen]
    own, theirs = (mask & OBSCURED_BY_OWN) != 0, (quality & LAYERS_COMPARED) != 0
    shares = {
        "enmap_own_cloud_share": (mask & ENMAP_MASK_FLAGS["cloud"]) != 0,
        "enmap_own_shadow_share": (mask & ENMAP_MASK_FLAGS["cloud_shadow"]) != 0,
        "enmap_mask_disagreement": own ^ theirs,
        "enmap_mask_alone": own & ~theirs,
    }
    for column, found in shares.items():
        yield DerivedColumn(column, "enmap_mask", float(found.mean()))


def flag_problems(arrays: Arrays) -> Iterator[Problem]:
    """What cannot be true in `enmap` (sample, band, y30, x30) and `enmap_quality` (sample, y30, x30)."""
    cube, quality = arrays.get("enmap"), arrays.get("enmap_quality")
    if cube is not None and quality is not None:
        nothing = (cube == REFLECTANCE_FILL).all(axis=1)
        inside = (quality & ENMAP_FLAGS["outside"]) == 0
        what = "without any value and without the flag `outside`"
        yield from wrong_samples("enmap_quality", "fill", nothing & inside, what)


# Sentinel-2

#: Columns of the table of dates that are shares of what was imaged and add up to 1, to what rounding leaves.
CODE_SHARES = ("clear", "cloud", "shadow", "cast_shadow", "snow", "second_look", "near", "unusable")
SHARES_ADD_UP = 1e-4


class Sentinel2Checks(SourceChecks[None, None, None]):
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
        texts = {text for texts in samples["s2_differences"].dropna() for text in texts}
        if texts:
            path = self.release.index_path(f"samples-{season}")
            what = f"items say something else of their files than these have: {first(sorted(texts))}"
            remedy = "the files were used: look whether these are the scenes, and report it to the catalog"
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
        for tile, what in zip(whole["tile"], whole["warning"], strict=True):
            if what:
                remedy = "compare images and parcels in a picture; move the parcels in their file where these are off"
                yield warning("frame", f"{path}, tile {tile}", what, remedy)

    def check_values(self, block: BlockValues, facts: None) -> ValueCheck[None]:
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
        yield f"names scenes that the index of scenes does not have as taken: {first(lost)}"
    if "alignment" in table:
        yield from shift_problems(table)


def shift_problems(table: pd.DataFrame) -> Iterator[str]:
    """What cannot be true of the shifts in a table of dates, in words."""
    stated = table["alignment"].notna()
    became = table["alignment"].fillna("").str.split(":").str[0]
    unknown = sorted(set(table["alignment"][stated & ~became.isin(DECISIONS)]))
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
