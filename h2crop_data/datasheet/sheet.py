"""The datasheet of a release: its content, origin, method and known limits.

Written for readers who do not know the store. A pure function of the release: it reads no array and no clock, and the
same release has the same sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from h2crop_data.constants import COARSE, FINE
from h2crop_data.cube.root import SealedAttributes
from h2crop_data.cube.schema import ArraySpec, StoreLayout
from h2crop_data.cube.windows import TIME_AXIS
from h2crop_data.datasheet.facts import (
    ReleaseFacts,
    added,
    has_classes,
    labelled,
    parcels_drawn,
    pixel_counts,
    split_names,
)
from h2crop_data.datasheet.limits import limits_section
from h2crop_data.datasheet.markdown import NOTHING, byte_size, code, count, listing, plain, plural, share, table
from h2crop_data.datasheet.quality import (
    classes_section,
    quality_section,
    sources_read_section,
    statistics_section,
)
from h2crop_data.datasheet.words import Coordinates, SourceWords

#: How the split squares were drawn, by the recipe's `method`.
SPLIT_METHODS = {
    "hash": "each assigned to a split by a hash of its position",
    "optimised": (
        "each assigned to a split by a hash of its position, some moved to meet the shares and to have all classes "
        "in every split"
    ),
}
#: The axes of the grids that samples lie on, and the size of their pixels in metres.
GRIDS = (("y", "x", FINE), ("y30", "x30", COARSE))
PIXEL_AXES = {axis for *axes_of_grid, _ in GRIDS for axis in axes_of_grid}
#: Names that a line lists.
NAMED = 6


def datasheet(
    attributes: SealedAttributes,
    facts: ReleaseFacts,
    layout: StoreLayout,
    words: Mapping[str, SourceWords],
) -> str:
    """The datasheet of a release in Markdown.

    attributes: of the root; at least title, format_version, release, software. words: of every source of the layout.
    """
    coordinates: Coordinates = next((season["coordinates"] for season in facts.seasons.values()), {})
    sections = [
        heading(attributes, facts, layout, words),
        contents_section(attributes, facts, layout, words),
        place_section(facts, layout),
        time_section(facts, layout),
        sources_section(facts, layout, words),
        split_section(facts, layout),
        statistics_section(facts, layout, words, coordinates),
        quality_section(facts, layout, words),
        sources_read_section(facts),
        limits_section(facts, layout, words),
        reading_section(facts),
        making_section(attributes, facts),
        citation_section(facts),
        classes_section(facts) if has_classes(layout) else [],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def heading(
    attributes: SealedAttributes, facts: ReleaseFacts, layout: StoreLayout, words: Mapping[str, SourceWords]
) -> list[str]:
    """Title, what the recipes say it is for, and the whole in one sentence."""
    sources = [words[source.name].summary(source) for source in layout.sources]
    seasons = list(facts.seasons)
    years = f"season {seasons[0]}" if len(seasons) == 1 else f"seasons {listing(seasons, len(seasons))}"
    samples = plural(facts.samples, "sample")
    lines = [f"# {plain(attributes['title'])}, release {attributes['release']}", ""]
    recipes = [season["recipe"] for season in facts.seasons.values()]
    names = [(recipe.get("name"), recipe.get("description")) for recipe in recipes]
    for name, description in dict.fromkeys(names):
        purpose = f": {plain(description)}" if description else ""
        lines += [f"**{plain(name or 'A recipe without a name')}**{purpose}", ""]
    side = f"{layout.cell_size} x {layout.cell_size} m"
    return [*lines, f"Cubes for crop mapping: **{samples}** of {side}, {years}: {'; '.join(sources)}."]


def contents_section(
    attributes: SealedAttributes,
    facts: ReleaseFacts,
    layout: StoreLayout,
    words: Mapping[str, SourceWords],
) -> list[str]:
    """Size by season, and the arrays."""
    counted = has_classes(layout) and bool(facts.statistics.get("class_parcels"))
    rows = []
    for season, of_season in facts.seasons.items():
        row = [str(season), count(of_season["samples"]), count(of_season["cells"] or None), count(of_season["blocks"])]
        rows.append(row + ([count(parcels_drawn(facts, season))] if counted else []))
    arrays = [
        [
            code(spec.name),
            plain(spec.attributes.get("long_name", "")),
            axes(spec),
            spec.dtype.name,
            str(spec.fill),
            plain(spec.unit),
        ]
        for spec in layout.arrays().values()
    ]
    size = f", {byte_size(sum(of_season['bytes'] for of_season in facts.seasons.values()))} of arrays"
    seen = [f", {text}" for source in layout.sources if (text := words[source.name].sample(source))]
    form = (
        f"Format {attributes['format_version']}: a sharded Zarr v3 store{size}. A sample is a square cell of ground"
        f"{''.join(seen)}; its rows run from north to south, and "
        "its upper left corner is (`x0`, `y0`) in the UTM zone `epsg`. A block is what lies in one file of each array. "
        "A season is a calendar year."
    )
    return [
        "## What is in it",
        "",
        form,
        "",
        *table(["season", "samples", "cells", "blocks", *(["parcels with a class"] if counted else [])], rows),
        "",
        *table(["array", "what", "axes of a sample", "type", "fill", "unit"], arrays, texts=6),
    ]


def axes(spec: ArraySpec) -> str:
    """The axes of a sample, `12 months, 10 bands, 192 x 192 pixels of 10 m`."""
    words = {"s2_band": "band", TIME_AXIS: "month"}
    lengths = dict(zip(spec.dims[1:], spec.sample_shape, strict=True))
    told = [plural(length, words.get(name, name)) for name, length in lengths.items() if name not in PIXEL_AXES]
    pixels = {f"{lengths[y]} x {lengths[x]} pixels of {size} m" for y, x, size in GRIDS if {x, y} <= lengths.keys()}
    return ", ".join([*told, *sorted(pixels)])


def place_section(facts: ReleaseFacts, layout: StoreLayout) -> list[str]:
    """Bounding box, UTM zones, area, countries."""
    lines = ["## Where", ""]
    bounds = np.array([of_season["bounds"] for of_season in facts.seasons.values() if of_season["bounds"]], float)
    if bounds.size:
        west, south = bounds[:, :2].min(axis=0)
        east, north = bounds[:, 2:].max(axis=0)
        lines.append(
            f"- Longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f} (degrees, the box around all)"
        )
    zones = facts.united("zones")
    if zones:
        lines.append(f"- UTM zones: {', '.join(f'EPSG:{zone}' for zone in zones)}")
    of_one = len(facts.seasons) == 1
    for season, of_season in facts.seasons.items():
        if cells := of_season["cells"]:
            ground = f"{plural(cells, 'cell')}, {cells * (layout.cell_size / 1000) ** 2:,.1f} km² of ground"
            lines.append(f"- {ground}" if of_one else f"- {season}: {ground}")
    countries = added(of_season["countries"] for of_season in facts.seasons.values())
    if countries:
        told = ", ".join(f"{plain(name)} ({count(number)})" for name, number in sorted(countries.items()))
        lines.append(f"- Parcels on and around this ground, by country: {told}")
    return lines


def time_section(facts: ReleaseFacts, layout: StoreLayout) -> list[str]:
    """The scenes of each season: how many were found and used, from when to when."""
    titles = {source.name: source.title for source in layout.sources}
    rows = []
    for season, of_season in facts.seasons.items():
        for scenes in of_season["scenes"]:
            title = plain(titles.get(scenes["sensor"], scenes["sensor"]))
            span = " to ".join(scenes["days"]) or NOTHING
            rows.append([str(season), title, count(scenes["found"]), count(scenes["used"]), span])
    columns = ["season", "sensor", "scenes found", "scenes used", "dates of those used"]
    return ["## When", "", *table(columns, rows, texts=2)] if rows else []


def sources_section(facts: ReleaseFacts, layout: StoreLayout, words: Mapping[str, SourceWords]) -> list[str]:
    """Where everything comes from, and under which licence."""
    lines = ["## Sources and licences", ""]
    lines += [line for source in layout.sources for line in words[source.name].origin(source, facts)]
    closing = "These are the licences of the sources as known to h2crop; no licence of the store as a whole is stated."
    return [*lines, "", closing]


def split_section(facts: ReleaseFacts, layout: StoreLayout) -> list[str]:
    """Shares asked and reached."""
    settings = next(iter(facts.sections("split")), {})
    shares = settings.get("shares") or {}
    by_season = [of_season["squares"] for of_season in facts.seasons.values() if of_season["squares"] is not None]
    squares = {tuple(square) for of_season in by_season for square in of_season} if by_season else None
    columns = ["split", "asked", "samples", "of the samples"]
    columns += ["squares", "of the squares"] if squares is not None else []
    columns += ["pixels with a class"] if has_classes(layout) else []
    counted = has_classes(layout) and bool(facts.statistics.get("class_parcels"))
    columns += ["parcels with a class"] if counted else []
    rows = []
    for name in split_names(facts):
        inside = facts.splits[name]
        row = [plain(name), share(shares.get(name)), count(inside), share(part(inside, facts.samples))]
        if squares is not None:
            here = sum(split == name for _, _, split in squares)
            row += [count(here), share(part(here, len(squares)))]
        row += [count(labelled(pixel_counts(facts, name, 0)))] if has_classes(layout) else []
        row += [count(sum(parcels_drawn(facts, season, name) or 0 for season in facts.seasons))] if counted else []
        rows.append(row)
    return ["## How it is split", "", split_rule(settings), "", *table(columns, rows)]


def part(number: int, whole: int) -> float | None:
    """A share, where there is a whole."""
    return number / whole if whole else None


def split_rule(settings: dict[str, Any]) -> str:
    """How ground came into a split."""
    if not settings.get("square_size"):
        return "The method of the split is not recorded, only the result."
    buffer = settings.get("buffer") or 0
    apart = "Samples of different splits may touch where two squares meet."
    if buffer:
        apart = f"Samples of different splits are at least {buffer:g} m apart; cells nearer than that were left out."
    method = SPLIT_METHODS.get(settings.get("method", "hash"), plain(settings.get("method")))
    return (
        f"By ground: squares of {settings['square_size'] / 1000:g} km in EPSG:3035, {method} (seed "
        f"{settings.get('seed', 0)}). The same ground is in the same split in every season and for every scene. {apart}"
    )


def reading_section(facts: ReleaseFacts) -> list[str]:
    """Three lines of Python."""
    season = max(facts.seasons, default=0)
    return [
        "## How to read it",
        "",
        "Any reader of Zarr v3 opens the store, in a folder or over HTTP; the tables are GeoParquet, their paths "
        "are listed in `zarr.json`. With the package `h2crop-data`:",
        "",
        "```python",
        "import h2crop_data",
        f'season = h2crop_data.open("STORE", {season}, scaled=True)  # xarray, lazily; STORE: folder or URL',
        "print(season)",
        "```",
    ]


def making_section(attributes: SealedAttributes, facts: ReleaseFacts) -> list[str]:
    """Software, recipes, classes, and how the offset of Sentinel-2 was decided."""
    software = names_in("blocks built by", facts.united("software"), plain)
    lines = [f"- Sealed by {plain(attributes['software'])}{software}"]
    for season, of_season in facts.seasons.items():
        digests = names_in("SHA-256", of_season["recipe_hashes"], code)
        lines.append(f"- Recipe of {season}: {code(of_season['recipe'].get('name') or 'without a name')}{digests}")
    for text in facts.united("taxonomy"):
        version, _, digest = text.partition(" ")
        lines.append(f"- Crop classes: version {plain(version)}{f', SHA-256 {code(digest)}' if digest else ''}")
    decisions = added(of_season["decisions"] for of_season in facts.seasons.values())
    told = [f"{plain(reason)} ({plural(number, 'scene')})" for reason, number in decisions.items()]
    lines += [f"- Offset of the values, decided by: {listing(told, NAMED)}"] if told else []
    return ["## How it was made", "", *lines, "", "The complete recipes are in the index, under `recipes`."]


def names_in(words: str, values: Sequence[str], form: Callable[[Any], str]) -> str:
    """Some values, for the end of a line; nothing where there are none."""
    return f"; {words} {', '.join(map(form, values))}" if values else ""


def citation_section(facts: ReleaseFacts) -> list[str]:
    """How to cite it, where a recipe says."""
    recipes = [of_season["recipe"] for of_season in facts.seasons.values()]
    cited = dict.fromkeys(plain(recipe["citation"]) for recipe in recipes if recipe.get("citation"))
    return ["## How to cite it", "", *cited] if cited else []
