"""The parts of a datasheet that count: classes, reflectance, quality."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from h2crop_data.constants import BACKGROUND, TIERS, UNKNOWN
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.cube.windows import TIME_AXIS
from h2crop_data.datasheet.facts import (
    ReleaseFacts,
    class_names,
    parcels_by_class,
    pixel_counts,
    split_names,
)
from h2crop_data.datasheet.markdown import NOTHING, code, count, listing, plain, plural, reflectance, table
from h2crop_data.datasheet.words import Coordinates, SourceWords

SHOWN_PERCENTILES = ("5", "50", "95")
#: How the two years of declarations are called.
DECLARED = {"parcels": "parcels", "prior": "parcels of the year before"}
#: Names that a line lists.
NAMED = 8
#: What rows of declarations were repaired for, and left out for, as counts call it and in words.
REPAIRED_ROWS = {"invalid": "invalid", "three_dimensional": "with heights"}
ROWS_LEFT_OUT = {"null": "without a shape", "empty": "empty", "unreadable": "unreadable", "duplicate": "repeated"}


def classes_section(facts: ReleaseFacts) -> list[str]:
    """A table a tier: pixels and parcels of every class by split."""
    splits = split_names(facts)
    counted = bool(facts.statistics.get("class_parcels"))
    columns = ["id", "class", *(f"pixels, {plain(name)}" for name in splits)]
    columns += [f"parcels, {plain(name)}" for name in splits] if counted else []
    lines = ["## Classes", "", "Pixels of 10 m" + (", and parcels that have a class and a pixel." if counted else ".")]
    for tier in range(TIERS):
        pixels = [pixel_counts(facts, name, tier) for name in splits]
        parcels = [parcels_by_class(facts, name, tier) for name in splits] if counted else []
        names = class_names(facts, tier)
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


def statistics_section(
    facts: ReleaseFacts, layout: StoreLayout, words: Mapping[str, SourceWords], coordinates: Coordinates
) -> list[str]:
    """Reflectance of the bands over the training split."""
    found = facts.statistics.get("reflectance", {})
    rows = [row for source in layout.sources for row in words[source.name].bands(source, facts, coordinates)]
    if not rows:
        return []
    pixels = [words[source.name].pixels(source) for source in layout.sources]
    monthly = any(TIME_AXIS in spec.dims for spec in layout.arrays().values())
    which = ", ".join(["pixels with a value", *filter(None, pixels)])
    told = "Every band, and every month, is" if monthly else "Every band is"
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


def quality_section(facts: ReleaseFacts, layout: StoreLayout, words: Mapping[str, SourceWords]) -> list[str]:
    """What each source counts of its quality, and what was kept out."""
    lines = ["## Quality"]
    for source in layout.sources:
        for part in words[source.name].quality(source, facts):
            lines += ["", *part]
    faults = [line for source in layout.sources for line in words[source.name].faults(source, facts)]
    return [*lines, "", *kept_out(facts), *(text for line in faults for text in ("", line))]


def sources_read_section(facts: ReleaseFacts) -> list[str]:
    """What was read of the sources, repaired and dropped, crop codes in no table, and what needs a look."""
    rows, lines = [], []
    for season, of_season in facts.seasons.items():
        for part, read in of_season["read"].items():
            for role, words in DECLARED.items():
                found = read.get(role, {})
                rows += [[plain(part), words, *count_cells(found["counts"])]] if found.get("counts") else []
                for country, codes in sorted(found.get("unmapped", {}).items()):
                    often = sorted(codes.items(), key=lambda item: (-item[1], item[0]))
                    named = [f"{code(name or 'no code')} ({plural(number, 'parcel')})" for name, number in often]
                    lines.append(
                        f"- {season}, {words}: crop codes of {plain(country)} in no table: {listing(named, NAMED)}"
                    )
            lines += [f"- {season}: {plain(warning)}" for warning in read.get("warnings", [])]
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


def kept_out(facts: ReleaseFacts) -> list[str]:
    """Retracted blocks, those that were rebuilt, and those that were never built."""
    retracted = {season: of_season["retracted"] for season, of_season in facts.seasons.items()}
    built, never = (sum(of_season[name] for of_season in retracted.values()) for name in ("built", "never"))
    lines = [
        "Blocks retracted after they were built, which are not part of this release: "
        f"{count(built) if built else 'none'}."
    ]
    if never:
        lines[0] += f" Blocks that were planned and never built: {count(never)}."
    places: dict[str, list[str]] = defaultdict(list)
    numbers: Counter[str] = Counter()
    for season, of_season in retracted.items():
        for reason, blocks in of_season["reasons"].items():
            places[reason] += [f"block {block} of {season}" for block in blocks["first"]]
            numbers[reason] += blocks["count"]
    lines += [""] if places else []
    return lines + [
        f"- “{plain(reason)}”: {listing(places[reason], NAMED, numbers[reason])}" for reason in sorted(places)
    ]
