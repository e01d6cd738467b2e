"""The parts of a datasheet that count: classes, reflectance, quality."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from h2crop_data.constants import BACKGROUND, MONTHS, TIERS, UNKNOWN
from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.datasheet.facts import (
    MONTH_NAMES,
    class_names,
    clear_shares,
    everything,
    is_retracted,
    labelled,
    parcel_counts,
    pixel_counts,
    split_names,
)
from h2crop_data.datasheet.markdown import NOTHING, code, count, listing, plain, plural, reflectance, share, table

#: Wavelengths whose bands stand for EnMAP: blue, green, red, near infrared, short wave infrared, nm.
SHOWN_WAVELENGTHS = (490.0, 560.0, 665.0, 865.0, 1610.0, 2200.0)
SHOWN_PERCENTILES = ("5", "50", "95")
#: How the two years of declarations are called.
DECLARED = {"parcels": "parcels", "prior": "parcels of the year before"}
#: Names that a line lists.
NAMED = 8
#: What rows of declarations were repaired for, and left out for, as counts call it and in words.
REPAIRED_ROWS = {"invalid": "invalid", "three_dimensional": "with heights"}
ROWS_LEFT_OUT = {"null": "without a shape", "empty": "empty", "unreadable": "unreadable", "duplicate": "repeated"}


def classes_section(tables: IndexTables) -> list[str]:
    """A table a tier: pixels and parcels of every class by split."""
    splits = split_names(tables)
    counted = bool(tables.statistics.get("class_parcels"))
    columns = ["id", "class", *(f"pixels, {plain(name)}" for name in splits)]
    columns += [f"parcels, {plain(name)}" for name in splits] if counted else []
    lines = ["## Classes", "", "Pixels of 10 m" + (", and parcels that have a class and a pixel." if counted else ".")]
    for tier in range(TIERS):
        pixels = [pixel_counts(tables, name, tier) for name in splits]
        parcels = [parcel_counts(tables, name, tier) for name in splits] if counted else []
        names = class_names(tables, tier)
        there = sorted(set().union(*pixels) - {BACKGROUND, UNKNOWN})
        rows = [[str(number), plain(names.get(number, "without a name"))] for number in there]
        rows += [[str(BACKGROUND), "*not declared*"], [str(UNKNOWN), "*unknown at this tier*"]]
        for row in rows:
            number = int(row[0])
            row += [count(found[number]) for found in pixels]
            row += [count(found[number] if number != BACKGROUND else None) for found in parcels]
        lines += ["", f"### Tier {tier + 1}", "", *table(columns, rows, texts=2)]
        absent = len(set(names) - set(there))
        if absent:
            lines += ["", f"{plural(absent, 'more class has', 'more classes have')} no pixel here."]
    return lines


def statistics_section(tables: IndexTables, layout: StoreLayout, wavelengths: Sequence[float] | None) -> list[str]:
    """Reflectance of the bands over the training split."""
    found = tables.statistics.get("reflectance", {})
    rows = [band_row(name, band) for name, band in zip(layout.s2_bands, found.get("s2", []), strict=False)]
    bands = found.get("enmap", [])
    rows += [band_row(name, bands[place]) for name, place in shown_bands(len(bands), wavelengths)]
    if not rows:
        return []
    which = "pixels with a value"
    which += ", of EnMAP those without a flag that the recipe counts" if bands else ""
    which += ", of Sentinel-2 all months together" if found.get("s2") else ""
    told = "Every band, and every month, is" if found.get("s2") else "Every band is"
    columns = ["band", "pixels", "mean", "sd", *(f"{percent} %" for percent in SHOWN_PERCENTILES)]
    return [
        "## Reflectance",
        "",
        f"Over the {plural(found.get('samples', 0), 'sample')} of {plain(found.get('split', 'train'))}: {which}. The "
        f"last three columns are percentiles. {told} in `statistics.json`.",
        "",
        *table(columns, rows),
    ]


def band_row(name: str, band: dict[str, Any]) -> list[str]:
    """A line of the table of bands."""
    percentiles = band.get("percentiles") or {}
    numbers = [band.get("mean"), band.get("sd"), *(percentiles.get(percent) for percent in SHOWN_PERCENTILES)]
    return [name, count(band.get("count")), *map(reflectance, numbers)]


def shown_bands(bands: int, wavelengths: Sequence[float] | None) -> list[tuple[str, int]]:
    """Some EnMAP bands that stand for all, with what they are called: (name, place)."""
    if not bands:
        return []
    if wavelengths is None or len(wavelengths) != bands or min(wavelengths) <= 0:
        places = sorted(
            {round(part * (bands - 1) / (len(SHOWN_WAVELENGTHS) - 1)) for part in range(len(SHOWN_WAVELENGTHS))}
        )
        return [(f"EnMAP, band {place + 1} of {bands}", place) for place in places]
    centres = np.asarray(wavelengths, float)
    places = sorted({int(np.abs(centres - wanted).argmin()) for wanted in SHOWN_WAVELENGTHS})
    return [(f"EnMAP, {centres[place]:.0f} nm", place) for place in places]


def quality_section(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """Clear looks month by month, clouds, fill, labels, what was kept out."""
    lines = ["## Quality"]
    if layout.s2_bands:
        lines += ["", *clear_months(tables)]
    samples = everything(tables)
    shares = []
    for column, words in (
        ("enmap_cloud_share", "EnMAP pixels flagged as cloud"),
        ("enmap_flagged_share", "EnMAP pixels with a flag that the recipe counts"),
        ("enmap_fill_share", "EnMAP values without a measurement"),
    ):
        if column in samples and samples[column].notna().any():
            values = samples[column].dropna()
            shares.append([words, share(float(values.mean())), share(float(values.max()))])
    if shares:
        lines += ["", *table(["share of a sample", "mean", "worst sample"], shares)]
    if layout.labels:
        lines += ["", *label_shares(tables)]
    return [*lines, "", *kept_out(tables)]


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
    return table(columns, rows) if len(columns) > 1 else ["The store does not say how often a pixel was seen clear."]


def sources_read_section(tables: IndexTables) -> list[str]:
    """What was read of the sources, repaired and dropped, crop codes in no table, and what needs a look."""
    rows, lines = [], []
    for season, parts in tables.sources.items():
        for part, facts in parts.items():
            for role, words in DECLARED.items():
                found = facts.get(role, {})
                rows += [[plain(part), words, *count_cells(found["counts"])]] if found.get("counts") else []
                for country, codes in sorted(found.get("unmapped", {}).items()):
                    often = sorted(codes.items(), key=lambda item: (-item[1], item[0]))
                    named = [f"{code(name or 'no code')} ({plural(number, 'parcel')})" for name, number in often]
                    lines.append(
                        f"- {season}, {words}: crop codes of {plain(country)} in no table: {listing(named, NAMED)}"
                    )
            lines += [f"- {season}: {plain(warning)}" for warning in facts.get("warnings", [])]
    if not rows and not lines:
        return []
    columns = ["part", "declarations", "rows read", "parcels", "repaired", "left out", "several crops", "in no table"]
    body = table(columns, rows, texts=2) if rows else []
    return ["## What was read", "", *body, *([""] if rows and lines else []), *dict.fromkeys(lines)]


def count_cells(counts: dict[str, int]) -> list[str]:
    """Rows read, parcels, repaired and left out and why, parcels of several crops (unknown), of codes in no table."""
    numbers = {name: count(counts.get(name)) for name in ("read", "parcels", "contradictory", "unmapped")}
    repaired, left_out = with_reasons(counts, REPAIRED_ROWS), with_reasons(counts, ROWS_LEFT_OUT)
    return [numbers["read"], numbers["parcels"], repaired, left_out, numbers["contradictory"], numbers["unmapped"]]


def with_reasons(counts: dict[str, int], words: dict[str, str]) -> str:
    """The sum of some counts, and what it is made of."""
    if not set(words) <= set(counts):
        return NOTHING
    reasons = [f"{count(counts[name])} {word}" for name, word in words.items() if counts[name]]
    total = count(sum(counts[name] for name in words))
    return f"{total} ({', '.join(reasons)})" if reasons else total


def median_of(counts: dict[str, int]) -> int | None:
    """The number that half of the pixels do not exceed (nearest rank)."""
    rank, reached = math.ceil(sum(counts.values()) / 2), 0
    for number in sorted(counts, key=int):
        reached += counts[number]
        if reached >= rank > 0:
            return int(number)
    return None


def label_shares(tables: IndexTables) -> list[str]:
    """At each tier the share of pixels with a class, not declared, unknown."""
    rows = []
    for name, words in (("label", "label"), ("prior", "the year before")):
        for tier in range(TIERS):
            pixels = pixel_counts(tables, None, tier, name)
            total = pixels.total()
            if total:
                parts = (labelled(pixels), pixels[BACKGROUND], pixels[UNKNOWN])
                rows.append([f"{words}, tier {tier + 1}", *(share(part / total) for part in parts)])
    return table(["share of the pixels", "with a class", "not declared", "unknown"], rows) if rows else []


def kept_out(tables: IndexTables) -> list[str]:
    """Retracted blocks, and scenes that could not be read."""
    places: dict[str, list[str]] = defaultdict(list)
    for row in tables.blocks[is_retracted(tables.blocks)].to_dict("records"):
        places[str(row["retracted"])].append(f"block {row['block']} of {row['season']}")
    total = sum(map(len, places.values()))
    lines = [
        f"Blocks retracted after they were built, and no part of this release: {count(total) if total else 'none'}."
    ]
    lines += [""] if places else []
    lines += [f"- “{plain(reason)}”: {listing(places[reason], NAMED)}" for reason in sorted(places)]
    samples = everything(tables)
    for column, words in (
        ("s2_gaps", "Sentinel-2 scenes that could not be read"),
        (
            "s2_impossible",
            "Sentinel-2 scenes with clear pixels above reflectance 2 (these pixels were not used)",
        ),
    ):
        if column in samples:
            named = [list(names) for names in samples[column].dropna()]
            scenes = [code(name) for name in sorted({name for names in named for name in names})]
            told = "none"
            if scenes:
                touched = sum(bool(names) for names in named)
                told = f"{count(len(scenes))}, over {plural(touched, 'sample')}: {listing(scenes, NAMED)}"
            lines += ["", f"{words}: {told}."]
    return lines
