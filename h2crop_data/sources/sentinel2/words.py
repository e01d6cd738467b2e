"""The texts of a datasheet about Sentinel-2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import FINE_BANDS, MONTHS
from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.facts import MONTH_NAMES, clear_shares, everything, found_in, median_of, recipe_sections
from h2crop_data.datasheet.markdown import code, count, listing, plain, plural, share, table
from h2crop_data.datasheet.quality import NAMED, band_row
from h2crop_data.datasheet.words import Coordinates, SourceWords
from h2crop_data.recipe.model import Clouds, Sentinel2Settings
from h2crop_data.sources.sentinel2.archive import Acquisitions, counts_of
from h2crop_data.sources.sentinel2.format import DECISIONS, REFINEMENT_WORDS, TRUSTED

#: Columns of the samples index that name scenes, and what is wrong with these.
FAULTS = {
    "s2_gaps": "Sentinel-2 scenes that could not be read",
    "s2_impossible": "Sentinel-2 scenes with clear pixels above reflectance 2 (these pixels were not used)",
}
#: Shares of the table of dates that a datasheet sums up.
MASKED_SHARES = ("clear", "cloud", "shadow", "cast_shadow", "near", "second_look", "snow", "unusable")


class Sentinel2Words(SourceWords):
    """Sentinel-2 in a datasheet."""

    def summary(self, source: SourceFormat) -> str:
        return f"monthly Sentinel-2 composites in {plural(len(band_names(source)), 'band')}"

    def origin(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        return [
            f"- **Sentinel-2 L2A**{found_in(tables, source.name)}. Copernicus data are free, full and open; what is "
            f"made from them says: “contains modified Copernicus Sentinel data {', '.join(map(str, tables.samples))}”."
        ]

    def bands(self, source: SourceFormat, tables: IndexTables, coordinates: Coordinates) -> list[list[str]]:
        found = tables.statistics.get("reflectance", {}).get("s2", [])
        return [band_row(name, band) for name, band in zip(band_names(source), found, strict=False)]

    def pixels(self, source: SourceFormat) -> str:
        return "of Sentinel-2 all months together"

    def quality(self, source: SourceFormat, tables: IndexTables) -> list[list[str]]:
        found = [clear_months(tables)]
        if tables.dates:
            found.append(masked_dates(tables))
        if any("alignment" in dates for dates in tables.dates.values()):
            found.append(shifted_dates(tables))
        found += [listed] if (listed := listed_acquisitions(tables)) else []
        return found

    def faults(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        samples = everything(tables)
        lines = []
        for column, words in FAULTS.items():
            if column in samples:
                named = [list(names) for names in samples[column].dropna()]
                scenes = [code(name) for name in sorted({name for names in named for name in names})]
                told = "none"
                if scenes:
                    touched = sum(bool(names) for names in named)
                    told = f"{count(len(scenes))}, over {plural(touched, 'sample')}: {listing(scenes, NAMED)}"
                lines.append(f"{words}: {told}.")
        if "s2_differences" in samples:
            named = [list(found) for found in samples["s2_differences"].dropna()]
            found = [plain(one) for one in sorted({one for of_sample in named for one in of_sample})]
            lines.append(
                f"Items that contradict their files (the files were used): {count(len(found))}, over "
                f"{plural(len(named), 'sample')}: {listing(found, NAMED)}."
            )
        return lines

    def limits(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        limits = [
            "A pixel that was never clear in a month has no value in that month; gaps are not filled. The number of "
            "clear observations differs from pixel to pixel: `s2_clear`, `s2_day`."
        ]
        sections = recipe_sections(tables, "sentinel2")
        limits += [limit_of_masks(clouds) for clouds in distinct_clouds(sections)]
        limits += sorted(
            {limit_of_shifts(section) for section in sections if section.get("alignment", "none") != "none"}
        )
        limits += [
            f"`s2_clear`: {plain(section['s2_clear'])}."
            for section in recipe_sections(tables, "published")[:1]
            if section.get("s2_clear")
        ]
        coarse = [name for name in band_names(source) if name not in FINE_BANDS]
        if coarse and any(section.get("resampling") == "nearest" for section in sections):
            limits.append(f"{', '.join(coarse)} are measured at 20 m; each of their pixels is repeated 2 x 2.")
        for season, samples in tables.samples.items():
            shares = clear_shares(samples)
            if shares is not None:
                empty = [name for name, most in zip(MONTH_NAMES, shares.max(axis=0), strict=True) if most == 0]
                limits += [f"{season}: no Sentinel-2 scenes in {', '.join(empty)}."] if empty else []
        if listed_acquisitions(tables):
            limits.append(
                "Gaps of the archive are counted in series of acquisitions that occur at other times; a series that "
                "is missing from the catalogs completely is not counted."
            )
        samples = everything(tables)
        if "s2_offset" in samples:
            offsets = sorted({int(number) for number in samples["s2_offset"].dropna()} - {0})
            limits += [
                f"Sentinel-2 values still contain an offset: reflectance = (value - {offset}) x 0.0001."
                for offset in offsets
            ]
        return limits


def distinct_clouds(sections: Sequence[Mapping[str, Any]]) -> list[Clouds]:
    """The settings of cloud masks in some recipes, each once."""
    found = [Clouds.model_validate(one.get("clouds", {}), context={"stored": True}) for one in sections]
    return [one for place, one in enumerate(found) if one not in found[:place]]


def limit_of_masks(clouds: Clouds) -> str:
    """The limits of the cloud masks."""
    if clouds.is_classification_alone:
        return (
            "Clear pixels are those that Sentinel-2's scene classification calls clear; it misses thin cloud and "
            "cloud edges."
        )
    steps = [f"{clouds.dilation_metres:g} m around them"] if clouds.dilation_metres else []
    steps += ["dark ground where clouds cast their shadows"] if clouds.cast_shadows else []
    steps += ["dates that differ from both dates before and after"] if clouds.second_look else []
    masked = f", with {', '.join(steps)}" if steps else ""
    return (
        f"Clouds are masked by {' and '.join(clouds.methods)}{masked}. Thin cirrus and haze remain in part; "
        "`dates-<season>.parquet` has what was masked on each date and why."
    )


def masked_dates(tables: IndexTables) -> list[str]:
    """What was masked, in the mean over all dates of all tiles, by season and methods."""
    rows = []
    for season, dates in tables.dates.items():
        for methods, of_methods in dates.groupby(dates["methods"].map(", ".join), sort=True):
            seen = of_methods[of_methods["imaged"] > 0]
            weights = seen["imaged"].to_numpy()
            means = [
                share(float(np.average(seen[column], weights=weights))) if len(seen) else "-"
                for column in MASKED_SHARES
            ]
            skipped = int((of_methods["skipped"] != "").sum())
            rows.append([str(season), methods, count(of_methods["time"].nunique()), *means, count(skipped)])
    columns = ["season", "clouds by", "dates", *(column.replace("_", " ") for column in MASKED_SHARES), "not used"]
    return table(columns, rows)


def limit_of_shifts(section: Mapping[str, Any]) -> str:
    """The limits of the alignment of dates. section: of Sentinel-2 in a recipe that was kept."""
    limit = section.get("alignment_limit", Sentinel2Settings.neutral_values()["alignment_limit"])
    if section["alignment"] == "report":
        return "Shifts of Sentinel-2's dates were measured and not corrected: `dates-<season>.parquet`, `alignment`."
    return (
        f"Sentinel-2's dates that are shifted by more than {limit:g} m against the median of all dates over their "
        "tile are resampled (cubic) to correct the shift; others are as delivered, and so are dates whose shift is "
        "unknown (too cloudy, or measurements that disagree)."
    )


def shifted_dates(tables: IndexTables) -> list[str]:
    """How far dates lie off, over all tiles, and what became of it, by season."""
    rows = []
    for season, dates in tables.dates.items():
        if "alignment" not in dates:
            continue
        told = dates[dates["alignment"].fillna("") != ""]
        became = told["alignment"].str.split(":").str[0]
        trusted = told[became.isin(TRUSTED)]
        lengths = np.hypot(trusted["shift_east"].to_numpy(), trusted["shift_north"].to_numpy())
        figures = [f"{value:.1f} m" for value in np.percentile(lengths, [50, 95, 100])] if len(lengths) else ["-"] * 3
        sd = trusted["shift_sd"].median()
        words = [count(int((became == word).sum())) for word in DECISIONS]
        refined = [count(int((told["refined"] == word).sum())) for word in REFINEMENT_WORDS]
        rows.append([str(season), *figures, "-" if np.isnan(sd) else f"{sd:.1f} m", *words, *refined])
    columns = [
        "season",
        "shift of a date, median",
        "95 %",
        "largest",
        "sd",
        *(one.replace("_", " ") for one in (*DECISIONS, *REFINEMENT_WORDS)),
    ]
    return table(columns, rows)


def listed_acquisitions(tables: IndexTables) -> list[str]:
    """Month by month, the acquisitions that catalogs list, of those that the ten-day cycle gives, over all tiles."""
    seasons = {}
    for season, parts in tables.sources.items():
        counts = season_counts([facts["acquisitions"] for facts in parts.values() if "acquisitions" in facts])
        if counts:
            seasons[season] = counts
    rows = []
    for month in range(MONTHS):
        cells = []
        for counts in seasons.values():
            found, missing = np.sum(list(counts.values()), axis=0)[:, month]
            tiles = sum(bool(of_tile[1, month]) for of_tile in counts.values())
            lacking = f" ({plural(tiles, 'tile')} with gaps)" if tiles else ""
            cells.append(f"{count(int(found))} of {count(int(found + missing))}{lacking}")
        rows.append([MONTH_NAMES[month], *cells])
    columns = ["month", *(f"acquisitions listed, of those by the ten-day cycle, {season}" for season in seasons)]
    return table(columns, rows) if seasons else []


def season_counts(parts: Sequence[Acquisitions]) -> dict[str, NDArray[np.int64]]:
    """By tile (found or missing, month), of a season's parts; the one that saw most of a tile counts."""
    counts: dict[str, NDArray[np.int64]] = {}
    for acquisitions in parts:
        for tile, series in acquisitions.items():
            own = counts_of(series)
            if tile not in counts or own.sum() > counts[tile].sum():
                counts[tile] = own
    return counts


def band_names(source: SourceFormat) -> Sequence[str]:
    """The stored bands."""
    return next((spec.values or () for spec in source.coordinates if spec.name == "s2_band"), ())


def clear_months(tables: IndexTables) -> list[str]:
    """Month by month: pixels with a clear look by season, and clear days behind a pixel of the training split."""
    seasons = {season: clear_shares(samples) for season, samples in tables.samples.items()}
    told = {season: shares.mean(axis=0) for season, shares in seasons.items() if shares is not None}
    days = tables.statistics.get("clear_observations") or []
    rows = []
    for month in range(MONTHS):
        row = [MONTH_NAMES[month], *(share(float(shares[month])) for shares in told.values())]
        rows.append(row + ([count(median_of(days[month]))] if days else []))
    columns = ["month", *(f"pixels seen clear, {season}" for season in told)]
    columns += ["clear days of a pixel (median, train)"] if days else []
    return table(columns, rows) if len(columns) > 1 else ["The store does not record how often a pixel was clear."]
