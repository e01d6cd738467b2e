"""The texts of a datasheet about Sentinel-2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import FINE_BANDS, MONTHS
from h2crop_data.cube.index import SeasonTables
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.facts import MONTH_NAMES, ReleaseFacts, found_in, median_of, name_summary, named_together
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

    def season_facts(self, source: SourceFormat, tables: SeasonTables) -> dict[str, Any]:
        samples, dates = tables.samples, tables.dates
        faults = {name: faults_in(samples, name) for name in (*FAULTS, "s2_differences") if name in samples}
        offsets = samples["s2_offset"].dropna() if "s2_offset" in samples else ()
        found: dict[str, Any] = {"faults": faults, "offsets": sorted({int(number) for number in offsets})}
        if (shares := clear_shares(samples)) is not None:
            found["clear"] = {"mean": shares.mean(axis=0).tolist(), "largest": shares.max(axis=0).tolist()}
        if dates is not None:
            found["masked"] = masked_of(dates)
            if "alignment" in dates:
                found["shifted"] = shift_facts(dates)
        if listed := acquisitions_of(tables.sources):
            found["acquisitions"] = listed
        return found

    def summary(self, source: SourceFormat) -> str:
        return f"monthly Sentinel-2 composites in {plural(len(band_names(source)), 'band')}"

    def origin(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        return [
            f"- **Sentinel-2 L2A**{found_in(facts, source.name)}. Copernicus data are free, full and open; what is "
            f"made from them says: “contains modified Copernicus Sentinel data {', '.join(map(str, facts.seasons))}”."
        ]

    def bands(self, source: SourceFormat, facts: ReleaseFacts, coordinates: Coordinates) -> list[list[str]]:
        found = facts.statistics.get("reflectance", {}).get("s2", [])
        return [band_row(name, band) for name, band in zip(band_names(source), found, strict=False)]

    def pixels(self, source: SourceFormat) -> str:
        return "of Sentinel-2 all months together"

    def quality(self, source: SourceFormat, facts: ReleaseFacts) -> list[list[str]]:
        seasons = facts.of_source(source.name)
        found = [clear_months(facts, source.name)]
        if any("masked" in of_season for of_season in seasons.values()):
            found.append(masked_dates(seasons))
        if any("shifted" in of_season for of_season in seasons.values()):
            found.append(shifted_dates(seasons))
        found += [listed] if (listed := listed_acquisitions(seasons)) else []
        return found

    def faults(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        by_season = [of_season["faults"] for of_season in facts.of_source(source.name).values()]
        lines = []
        for column, words in FAULTS.items():
            if known := [of_season[column] for of_season in by_season if column in of_season]:
                number, first = named_together(known)
                touched = plural(sum(one["samples"] for one in known), "sample")
                told = f"{count(number)}, over {touched}: {listing(list(map(code, first)), NAMED, number)}"
                lines.append(f"{words}: {told if number else 'none'}.")
        if known := [of_season["s2_differences"] for of_season in by_season if "s2_differences" in of_season]:
            number, first = named_together(known)
            touched = plural(sum(one["samples"] for one in known), "sample")
            lines.append(
                f"Items that contradict their files (the files were used): {count(number)}, over {touched}: "
                f"{listing(list(map(plain, first)), NAMED, number)}."
            )
        return lines

    def limits(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        limits = [
            "A pixel that was never clear in a month has no value in that month; gaps are not filled. The number of "
            "clear observations differs from pixel to pixel: `s2_clear`, `s2_day`."
        ]
        sections = facts.sections("sentinel2")
        limits += [limit_of_masks(clouds) for clouds in distinct_clouds(sections)]
        limits += sorted(
            {limit_of_shifts(section) for section in sections if section.get("alignment", "none") != "none"}
        )
        limits += [
            f"`s2_clear`: {plain(section['s2_clear'])}."
            for section in facts.sections("published")[:1]
            if section.get("s2_clear")
        ]
        coarse = [name for name in band_names(source) if name not in FINE_BANDS]
        if coarse and any(section.get("resampling") == "nearest" for section in sections):
            limits.append(f"{', '.join(coarse)} are measured at 20 m; each of their pixels is repeated 2 x 2.")
        seasons = facts.of_source(source.name)
        for season, of_season in seasons.items():
            if clear := of_season.get("clear"):
                empty = [name for name, most in zip(MONTH_NAMES, clear["largest"], strict=True) if most == 0]
                limits += [f"{season}: no Sentinel-2 scenes in {', '.join(empty)}."] if empty else []
        if listed_acquisitions(seasons):
            limits.append(
                "Gaps of the archive are counted in series of acquisitions that occur at other times; a series that "
                "is missing from the catalogs completely is not counted."
            )
        offsets = sorted({offset for of_season in seasons.values() for offset in of_season["offsets"]} - {0})
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


def faults_in(samples: pd.DataFrame, column: str) -> dict[str, Any]:
    """What a column of lists names: how many, the first ones, and how many samples name any."""
    lists = [list(names) for names in samples[column].dropna()]
    return {**name_summary(name for names in lists for name in names), "samples": sum(map(bool, lists))}


def clear_shares(samples: pd.DataFrame) -> NDArray[np.float64] | None:
    """(sample, month): the share of pixels with a clear look; None where no sample says."""
    lists = samples["s2_clear_share"].dropna().to_list() if "s2_clear_share" in samples else []
    return np.array(lists, np.float64) if lists else None


def masked_of(dates: pd.DataFrame) -> list[dict[str, Any]]:
    """What was masked in a season, in the mean over all dates of all tiles, by methods; None where it is not known."""
    rows = []
    for methods, of_methods in dates.groupby(dates["methods"].map(", ".join), sort=True):
        seen = of_methods[of_methods["imaged"] > 0]
        weights = seen["imaged"].to_numpy()
        means = [float(np.average(seen[column], weights=weights)) if len(seen) else None for column in MASKED_SHARES]
        rows.append(
            {
                "methods": str(methods),
                "dates": int(of_methods["time"].nunique()),
                "means": [None if mean is None or np.isnan(mean) else mean for mean in means],
                "skipped": int((of_methods["skipped"] != "").sum()),
            }
        )
    return rows


def masked_dates(seasons: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """What was masked, by season and methods."""
    rows = []
    for season, of_season in seasons.items():
        for masked in of_season.get("masked", ()):
            means = ["-" if mean is None else share(mean) for mean in masked["means"]]
            rows.append([str(season), masked["methods"], count(masked["dates"]), *means, count(masked["skipped"])])
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


def shift_facts(dates: pd.DataFrame) -> dict[str, Any]:
    """How far dates of a season lie off in metres (median, 95 %, largest, standard deviation), and what became of them.

    None where it is not known.
    """
    told = dates[dates["alignment"].fillna("") != ""]
    became = told["alignment"].str.split(":").str[0]
    trusted = told[became.isin(TRUSTED)]
    lengths = np.hypot(trusted["shift_east"].to_numpy(), trusted["shift_north"].to_numpy())
    figures = [float(value) for value in np.percentile(lengths, [50, 95, 100])] if len(lengths) else [None] * 3
    sd = float(trusted["shift_sd"].median())
    return {
        "figures": [*figures, None if np.isnan(sd) else sd],
        "decisions": [int((became == word).sum()) for word in DECISIONS],
        "refined": [int((told["refined"] == word).sum()) for word in REFINEMENT_WORDS],
    }


def shifted_dates(seasons: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """How far dates lie off, over all tiles, and what became of it, by season."""
    rows = []
    for season, of_season in seasons.items():
        if shifted := of_season.get("shifted"):
            figures = ["-" if value is None else f"{value:.1f} m" for value in shifted["figures"]]
            rows.append([str(season), *figures, *map(count, (*shifted["decisions"], *shifted["refined"]))])
    columns = [
        "season",
        "shift of a date, median",
        "95 %",
        "largest",
        "sd",
        *(one.replace("_", " ") for one in (*DECISIONS, *REFINEMENT_WORDS)),
    ]
    return table(columns, rows)


def acquisitions_of(parts: Mapping[str, Mapping[str, Any]]) -> list[list[int]]:
    """Of each month of a season, acquisitions that catalogs list, those that are missing, and tiles that miss some.

    Empty where they were not counted. parts: what was read of the sources, by part of its plan.
    """
    counts = season_counts([facts["acquisitions"] for facts in parts.values() if "acquisitions" in facts])
    if not counts:
        return []
    by_tile = np.array(list(counts.values()))
    found, missing = by_tile.sum(axis=0)
    lacking = (by_tile[:, 1] > 0).sum(axis=0)
    return [list(map(int, of_month)) for of_month in zip(found, missing, lacking, strict=True)]


def listed_acquisitions(seasons: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Month by month, the acquisitions that catalogs list, of those that the ten-day cycle gives, over all tiles."""
    listed = {season: of_season["acquisitions"] for season, of_season in seasons.items() if "acquisitions" in of_season}
    rows = []
    for month in range(MONTHS):
        cells = []
        for of_season in listed.values():
            found, missing, tiles = of_season[month]
            lacking = f" ({plural(tiles, 'tile')} with gaps)" if tiles else ""
            cells.append(f"{count(found)} of {count(found + missing)}{lacking}")
        rows.append([MONTH_NAMES[month], *cells])
    columns = ["month", *(f"acquisitions listed, of those by the ten-day cycle, {season}" for season in listed)]
    return table(columns, rows) if listed else []


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


def clear_months(facts: ReleaseFacts, source: str) -> list[str]:
    """Month by month: pixels with a clear look by season, and clear days behind a pixel of the training split."""
    seasons = facts.of_source(source)
    told = {season: of_season["clear"]["mean"] for season, of_season in seasons.items() if "clear" in of_season}
    days = facts.statistics.get("clear_observations") or []
    rows = []
    for month in range(MONTHS):
        row = [MONTH_NAMES[month], *(share(shares[month]) for shares in told.values())]
        rows.append(row + ([count(median_of(days[month]))] if days else []))
    columns = ["month", *(f"pixels seen clear, {season}" for season in told)]
    columns += ["clear days of a pixel (median, train)"] if days else []
    return table(columns, rows) if len(columns) > 1 else ["The store does not record how often a pixel was clear."]
