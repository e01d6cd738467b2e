"""The datasheet of a release: its content, origin, method and known limits.

Written for readers who do not know the store. A pure function of the release: it reads no array and no clock, and the
same release has the same sheet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from h2crop_data.constants import COARSE, FINE, NONE
from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.root import SealedAttributes
from h2crop_data.cube.schema import ArraySpec, StoreLayout
from h2crop_data.datasheet.facts import (
    cells_of,
    everything,
    has_classes,
    is_retracted,
    labelled,
    of_season,
    parcels_drawn,
    pixel_counts,
    recipe_sections,
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
    tables: IndexTables,
    layout: StoreLayout,
    words: Mapping[str, SourceWords],
    *,
    data_bytes: int | None = None,
    coordinates: Coordinates | None = None,
) -> str:
    """The datasheet of a release in Markdown.

    attributes: of the root; at least title, format_version, release, software. words: of every source of the layout.
    data_bytes: of all arrays and coordinates together. coordinates: those of the first block, `wavelength` in nm for
    instance; without them, or with zeros, bands are listed by number.
    """
    sections = [
        heading(attributes, tables, layout, words),
        contents_section(attributes, tables, layout, words, data_bytes),
        place_section(tables, layout),
        time_section(tables, layout),
        sources_section(tables, layout, words),
        split_section(tables, layout),
        statistics_section(tables, layout, words, coordinates or {}),
        quality_section(tables, layout, words),
        sources_read_section(tables),
        limits_section(tables, layout, words),
        reading_section(tables),
        making_section(attributes, tables),
        citation_section(tables),
        classes_section(tables) if has_classes(layout) else [],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def heading(
    attributes: SealedAttributes, tables: IndexTables, layout: StoreLayout, words: Mapping[str, SourceWords]
) -> list[str]:
    """Title, what the recipes say it is for, and the whole in one sentence."""
    sources = [words[source.name].summary(source) for source in layout.sources]
    seasons = list(tables.samples)
    years = f"season {seasons[0]}" if len(seasons) == 1 else f"seasons {listing(seasons, len(seasons))}"
    samples = plural(len(everything(tables)), "sample")
    lines = [f"# {plain(attributes['title'])}, release {attributes['release']}", ""]
    names = [(recipe.get("name"), recipe.get("description")) for recipe in tables.recipes.values()]
    for name, description in dict.fromkeys(names):
        purpose = f": {plain(description)}" if description else ""
        lines += [f"**{plain(name or 'A recipe without a name')}**{purpose}", ""]
    side = f"{layout.cell_size} x {layout.cell_size} m"
    return [*lines, f"Cubes for crop mapping: **{samples}** of {side}, {years}: {'; '.join(sources)}."]


def contents_section(
    attributes: SealedAttributes,
    tables: IndexTables,
    layout: StoreLayout,
    words: Mapping[str, SourceWords],
    data_bytes: int | None,
) -> list[str]:
    """Size by season, and the arrays."""
    counted = has_classes(layout) and bool(tables.statistics.get("class_parcels"))
    rows = []
    for season, samples in tables.samples.items():
        blocks = of_season(tables.blocks[~is_retracted(tables.blocks)], season)
        row = [str(season), count(len(samples)), count(cells_of(samples) or None), count(len(blocks))]
        rows.append(row + ([count(parcels_drawn(tables, season))] if counted else []))
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
    size = f", {byte_size(data_bytes)} of arrays" if data_bytes is not None else ""
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
    words = {"s2_band": "band"}
    lengths = dict(zip(spec.dims[1:], spec.sample_shape, strict=True))
    told = [plural(length, words.get(name, name)) for name, length in lengths.items() if name not in PIXEL_AXES]
    pixels = {f"{lengths[y]} x {lengths[x]} pixels of {size} m" for y, x, size in GRIDS if {x, y} <= lengths.keys()}
    return ", ".join([*told, *sorted(pixels)])


def place_section(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """Bounding box, UTM zones, area, countries."""
    samples = everything(tables)
    lines = ["## Where", ""]
    bounds = np.array([samples.total_bounds for samples in tables.samples.values() if len(samples)], float)
    if bounds.size and np.isfinite(bounds).all():
        west, south = bounds[:, :2].min(axis=0)
        east, north = bounds[:, 2:].max(axis=0)
        lines.append(
            f"- Longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f} (degrees, the box around all)"
        )
    zones = sorted(int(zone) for zone in samples.get("epsg", pd.Series(dtype=int)).dropna().unique() if int(zone))
    if zones:
        lines.append(f"- UTM zones: {', '.join(f'EPSG:{zone}' for zone in zones)}")
    cells = cells_of(samples)
    if cells:
        lines.append(f"- {plural(cells, 'cell')}, {cells * (layout.cell_size / 1000) ** 2:,.1f} km² of ground")
    countries: Counter[str] = Counter()
    for parcels in tables.parcels.values():
        countries.update(parcels.get("country", []))
    if countries:
        told = ", ".join(f"{plain(name)} ({count(number)})" for name, number in sorted(countries.items()))
        lines.append(f"- Parcels on and around this ground, by country: {told}")
    return lines


def time_section(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """The scenes of each season: how many were found and used, from when to when."""
    if not {"id", "sensor", "taken", "time"} <= set(tables.scenes.columns):
        return []
    titles = {source.name: source.title for source in layout.sources}
    rows = []
    for season, samples in tables.samples.items():
        scenes = of_season(tables.scenes, season)
        for sensor in sorted(scenes["sensor"].unique()):
            found = scenes[scenes["sensor"] == sensor]
            used = found[found["taken"]]
            of_samples = used["id"].isin(samples["scene"]) if "scene" in samples else used["taken"] & False
            used = used[of_samples] if of_samples.any() else used
            times = used["time"].dropna()
            span = f"{times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}" if len(times) else NOTHING
            rows.append([str(season), plain(titles.get(sensor, sensor)), count(len(found)), count(len(used)), span])
    columns = ["season", "sensor", "scenes found", "scenes used", "dates of those used"]
    return ["## When", "", *table(columns, rows, texts=2)] if rows else []


def sources_section(tables: IndexTables, layout: StoreLayout, words: Mapping[str, SourceWords]) -> list[str]:
    """Where everything comes from, and under which licence."""
    lines = ["## Sources and licences", ""]
    lines += [line for source in layout.sources for line in words[source.name].origin(source, tables)]
    closing = "These are the licences of the sources as known to h2crop; no licence of the store as a whole is stated."
    return [*lines, "", closing]


def split_section(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """Shares asked and reached."""
    samples = everything(tables)
    settings = next(iter(recipe_sections(tables, "split")), {})
    shares = settings.get("shares") or {}
    squares = tables.squares[["column", "row", "split"]].drop_duplicates() if tables.squares is not None else None
    columns = ["split", "asked", "samples", "of the samples"]
    columns += ["squares", "of the squares"] if squares is not None else []
    columns += ["pixels with a class"] if has_classes(layout) else []
    counted = has_classes(layout) and bool(tables.statistics.get("class_parcels"))
    columns += ["parcels with a class"] if counted else []
    rows = []
    for name in split_names(tables):
        inside = int((samples["split"] == name).sum())
        row = [plain(name), share(shares.get(name)), count(inside), share(part(inside, len(samples)))]
        if squares is not None:
            here = int((squares["split"] == name).sum())
            row += [count(here), share(part(here, len(squares)))]
        row += [count(labelled(pixel_counts(tables, name, 0)))] if has_classes(layout) else []
        row += [count(sum(parcels_drawn(tables, season, name) or 0 for season in tables.samples))] if counted else []
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


def reading_section(tables: IndexTables) -> list[str]:
    """Three lines of Python."""
    season = max(tables.samples, default=0)
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


def making_section(attributes: SealedAttributes, tables: IndexTables) -> list[str]:
    """Software, recipes, classes, and how the offset of Sentinel-2 was decided."""
    blocks = tables.blocks
    lines = [f"- Sealed by {plain(attributes['software'])}{names_in('blocks built by', blocks, 'software', plain)}"]
    for season, recipe in tables.recipes.items():
        digests = names_in("SHA-256", of_season(blocks, season), "recipe", code)
        lines.append(f"- Recipe of {season}: {code(recipe.get('name') or 'without a name')}{digests}")
    versions = sorted(set(blocks["taxonomy"].dropna()) - {NONE}) if "taxonomy" in blocks else []
    for text in versions:
        version, _, digest = str(text).partition(" ")
        lines.append(f"- Crop classes: version {plain(version)}{f', SHA-256 {code(digest)}' if digest else ''}")
    scenes = tables.scenes
    if {"sensor", "taken", "reason"} <= set(scenes.columns):
        decided = scenes["taken"] & scenes["offset"].notna() if "offset" in scenes else scenes["taken"]
        reasons = scenes.loc[decided, "reason"].value_counts()
        often = sorted(reasons.items(), key=lambda item: (-item[1], str(item[0])))
        told = [f"{plain(reason)} ({plural(number, 'scene')})" for reason, number in often]
        lines += [f"- Offset of the values, decided by: {listing(told, NAMED)}"] if told else []
    return ["## How it was made", "", *lines, "", "The complete recipes are in `recipes.json`."]


def names_in(words: str, rows: pd.DataFrame, column: str, form: Callable[[Any], str]) -> str:
    """What a column holds, for the end of a line; nothing where there is none."""
    values = sorted(set(rows[column].dropna()) - {NONE}) if column in rows else []
    return f"; {words} {', '.join(map(form, values))}" if values else ""


def citation_section(tables: IndexTables) -> list[str]:
    """How to cite it, where a recipe says."""
    cited = dict.fromkeys(plain(recipe["citation"]) for recipe in tables.recipes.values() if recipe.get("citation"))
    return ["## How to cite it", "", *cited] if cited else []
