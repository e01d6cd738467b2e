"""The datasheet of a release: what it is, where it is from, how it was made, what is wrong with it.

Written for someone who never saw the store. A pure function of the release: it reads no array and no clock, and the
same release has the same sheet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from h2crop_data.constants import COARSE, FINE
from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.schema import ArraySpec, StoreLayout
from h2crop_data.datasheet.facts import (
    NONE,
    cells_of,
    everything,
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

SENSORS = {"sentinel2": "Sentinel-2", "enmap": "EnMAP"}
#: Where declared parcels come from and under which licence, by country.
PARCEL_SOURCES = {"fr": "Registre parcellaire graphique, under the Licence Ouverte / Open Licence 2.0 (Etalab)"}
#: How the split squares were drawn, by the recipe's `method`.
SPLIT_METHODS = {
    "hash": "each in the split that a hash of its place gives",
    "optimised": "each in the split that a hash of its place gives, some moved so that shares and classes fit",
}
#: Countries whose table of crop codes comes with h2crop, made from EuroCrops'.
EUROCROPS_TABLES = ("at", "fr", "si")
#: Names that a line lists.
NAMED = 6


def datasheet(
    attributes: dict[str, Any],
    tables: IndexTables,
    data_bytes: int | None = None,
    wavelengths: Sequence[float] | None = None,
) -> str:
    """The datasheet of a release in Markdown.

    attributes: of the root; at least title, format_version, release, layout, software. data_bytes: of all arrays and
    coordinates together. wavelengths: centre of every EnMAP band in nm; without them, or with zeros, bands are told by
    number.
    """
    layout = StoreLayout.from_attributes(attributes["layout"])
    sections = [
        heading(attributes, tables, layout),
        contents_section(attributes, tables, layout, data_bytes),
        place_section(tables, layout),
        time_section(tables),
        sources_section(tables, layout),
        split_section(tables, layout),
        statistics_section(tables, layout, wavelengths),
        quality_section(tables, layout),
        sources_read_section(tables),
        limits_section(tables, layout),
        reading_section(tables),
        making_section(attributes, tables),
        citation_section(tables),
        classes_section(tables) if layout.labels else [],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def heading(attributes: dict[str, Any], tables: IndexTables, layout: StoreLayout) -> list[str]:
    """Title, what the recipes say it is for, and the whole in one sentence."""
    sources = [
        text
        for there, text in (
            (layout.enmap_bands, f"EnMAP reflectance in {layout.enmap_bands} bands"),
            (layout.s2_bands, f"monthly Sentinel-2 composites in {plural(len(layout.s2_bands), 'band')}"),
            (layout.labels, "declared crops in four tiers"),
        )
        if there
    ]
    seasons = list(tables.samples)
    years = f"season {seasons[0]}" if len(seasons) == 1 else f"seasons {listing(seasons, len(seasons))}"
    samples = plural(len(everything(tables)), "sample")
    lines = [f"# {plain(attributes['title'])}, release {attributes['release']}", ""]
    names = [(recipe.get("name"), recipe.get("description")) for recipe in tables.recipes.values()]
    for name, description in dict.fromkeys(names):
        words = f": {plain(description)}" if description else ""
        lines += [f"**{plain(name or 'A recipe without a name')}**{words}", ""]
    side = f"{layout.cell_size} x {layout.cell_size} m"
    return [*lines, f"Cubes for crop mapping: **{samples}** of {side}, {years}: {'; '.join(sources)}."]


def contents_section(
    attributes: dict[str, Any], tables: IndexTables, layout: StoreLayout, data_bytes: int | None
) -> list[str]:
    """Size by season, and the arrays."""
    counted = layout.labels and bool(tables.statistics.get("class_parcels"))
    rows = []
    for season, samples in tables.samples.items():
        blocks = of_season(tables.blocks[~is_retracted(tables.blocks)], season)
        row = [str(season), count(len(samples)), count(cells_of(samples) or None), count(len(blocks))]
        rows.append(row + ([count(parcels_drawn(tables, season))] if counted else []))
    arrays = [
        [code(spec.name), plain(spec.attributes["long_name"]), axes(spec), spec.dtype.name, str(spec.fill), unit(spec)]
        for spec in layout.arrays().values()
    ]
    size = f", {byte_size(data_bytes)} of arrays" if data_bytes is not None else ""
    words = (
        f"Format {attributes['format_version']}: a sharded Zarr v3 store{size}. A sample is a square cell of ground"
        f"{', with EnMAP as one scene saw it' if layout.enmap_bands else ''}; its rows run from north to south, and "
        "its upper left corner is (`x0`, `y0`) in the UTM zone `epsg`. A block is what lies in one file of each array. "
        "A season is a calendar year."
    )
    return [
        "## What is in it",
        "",
        words,
        "",
        *table(["season", "samples", "cells", "blocks", *(["parcels with a class"] if counted else [])], rows),
        "",
        *table(["array", "what", "axes of a sample", "type", "fill", "unit"], arrays, texts=6),
    ]


def axes(spec: ArraySpec) -> str:
    """The axes of a sample, `12 months, 10 bands, 192 x 192 pixels of 10 m`."""
    words = {"month": "month", "tier": "tier", "band": "band", "s2_band": "band"}
    *others, side = zip(spec.dims[2:], spec.sample_shape[1:], strict=True)
    named = [(spec.dims[1], spec.sample_shape[0]), *others]
    told = [plural(length, words[name]) for name, length in named if name in words]
    pixel = COARSE if side[0] == "x30" else FINE
    return ", ".join([*told, f"{side[1]} x {side[1]} pixels of {pixel} m"])


def unit(spec: ArraySpec) -> str:
    """The unit of an array, or what its numbers are."""
    words = {"enmap": "reflectance x 10000", "s2": "reflectance x 10000", "enmap_quality": "bit flags"}
    words |= {"label": "class id", "prior": "class id", "parcel": "number", "s2_clear": "days", "s2_day": "day of year"}
    return words[spec.name]


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


def time_section(tables: IndexTables) -> list[str]:
    """The scenes of each season: how many were found and used, from when to when."""
    if not {"id", "sensor", "taken", "time"} <= set(tables.scenes.columns):
        return []
    rows = []
    for season, samples in tables.samples.items():
        scenes = of_season(tables.scenes, season)
        for sensor in sorted(scenes["sensor"].unique()):
            found = scenes[scenes["sensor"] == sensor]
            used = found[found["taken"]]
            if sensor == "enmap" and "scene" in samples:
                used = used[used["id"].isin(samples["scene"])]
            times = used["time"].dropna()
            span = f"{times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}" if len(times) else NOTHING
            rows.append([str(season), SENSORS.get(sensor, plain(sensor)), count(len(found)), count(len(used)), span])
    columns = ["season", "sensor", "scenes found", "scenes used", "dates of those used"]
    return ["## When", "", *table(columns, rows, texts=2)] if rows else []


def sources_section(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """Where everything comes from, and under which licence."""
    lines = ["## Sources and licences", ""]
    if layout.enmap_bands:
        lines.append(
            f"- **EnMAP L2A**{found_in(tables, 'enmap')}. EnMAP data are © DLR, under DLR's licence agreement on the "
            "use of EnMAP data."
        )
    if layout.s2_bands:
        lines.append(
            f"- **Sentinel-2 L2A**{found_in(tables, 'sentinel2')}. Copernicus data are free, full and open; what is "
            f"made from them says: “contains modified Copernicus Sentinel data {', '.join(map(str, tables.samples))}”."
        )
    if layout.labels:
        lines += parcel_sources(tables)
        lines.append(
            "- **Classes**: the tiers are the codes of HCAT3 cut to 4, 6, 8 and 10 digits, from EuroCrops "
            "(M. Schneider, A. Broszeit, M. Körner; CC BY-SA 4.0); their ids and names began with the published H2Crop "
            "dataset (Apache-2.0)."
        )
    closing = (
        "These are the licences of the sources as h2crop knows them; no licence of the store as a whole is stated."
    )
    return [*lines, "", closing]


def found_in(tables: IndexTables, source: str) -> str:
    """The catalogs a source was found in, as the recipes name them."""
    told = []
    for section in recipe_sections(tables, source):
        if section.get("catalog"):
            place = code(section["catalog"])
            if "://" not in str(section["catalog"]):
                place = f"a local list of scenes, {place}, which does not say whose they are"
            told.append(place + (f", collection {code(section['collection'])}" if section.get("collection") else ""))
    return f" from {'; '.join(dict.fromkeys(told))}" if told else ""


def parcel_sources(tables: IndexTables) -> list[str]:
    """Whose declarations the labels are, country by country, and the table of their codes."""
    countries = {
        str(name) for parcels in tables.parcels.values() if "country" in parcels for name in parcels["country"]
    }
    own: dict[str, str] = {}
    for section in recipe_sections(tables, "parcels"):
        prior = section.get("prior")
        for source in [*section.get("season", []), *(prior if isinstance(prior, list) else [])]:
            countries.add(source["country"])
            crops = source.get("table")
            if isinstance(crops, dict):
                own[source["country"]] = str(crops.get("path"))
    if not countries:
        return ["- **Declared parcels**: the store does not say whose; their licence is not known."]
    lines = []
    for country in sorted(countries):
        told = PARCEL_SOURCES.get(country, "the licence is **not known** to h2crop; ask where the file comes from")
        if country in own:
            crops = f"a table of whoever built the store ({code(own[country])}), which states no licence here"
        elif country in EUROCROPS_TABLES:
            crops = "a table derived from EuroCrops', CC BY-SA 4.0"
        else:
            crops = "a table whose licence is not known"
        lines.append(f"- **Declared parcels, {plain(country)}**: {told}. Crop codes: {crops}.")
    return lines


def split_section(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """Shares asked and reached."""
    samples = everything(tables)
    settings = next(iter(recipe_sections(tables, "split")), {})
    shares = settings.get("shares") or {}
    squares = tables.squares[["column", "row", "split"]].drop_duplicates() if tables.squares is not None else None
    columns = ["split", "asked", "samples", "of the samples"]
    columns += ["squares", "of the squares"] if squares is not None else []
    columns += ["pixels with a class"] if layout.labels else []
    counted = layout.labels and bool(tables.statistics.get("class_parcels"))
    columns += ["parcels with a class"] if counted else []
    rows = []
    for name in split_names(tables):
        inside = int((samples["split"] == name).sum())
        row = [plain(name), share(shares.get(name)), count(inside), share(part(inside, len(samples)))]
        if squares is not None:
            here = int((squares["split"] == name).sum())
            row += [count(here), share(part(here, len(squares)))]
        row += [count(labelled(pixel_counts(tables, name, 0)))] if layout.labels else []
        row += [count(sum(parcels_drawn(tables, season, name) or 0 for season in tables.samples))] if counted else []
        rows.append(row)
    return ["## How it is split", "", split_rule(settings), "", *table(columns, rows)]


def part(number: int, whole: int) -> float | None:
    """A share, where there is a whole."""
    return number / whole if whole else None


def split_rule(settings: dict[str, Any]) -> str:
    """How ground came into a split."""
    if not settings.get("square_size"):
        return "How the samples were divided is not recorded here, only the outcome."
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
        "Any reader of Zarr v3 opens the store, in a folder or over HTTP; the tables are GeoParquet, their paths stand "
        "in `zarr.json`. With the package `h2crop-data`:",
        "",
        "```python",
        "import h2crop_data",
        f'season = h2crop_data.open("STORE", {season}, scaled=True)  # xarray, lazily; STORE: folder or URL',
        "print(season)",
        "```",
    ]


def making_section(attributes: dict[str, Any], tables: IndexTables) -> list[str]:
    """Software, recipes, classes, and how the offset of Sentinel-2 was decided."""
    blocks = tables.blocks
    lines = [f"- Sealed by {plain(attributes['software'])}{named('blocks built by', blocks, 'software', plain)}"]
    for season, recipe in tables.recipes.items():
        digests = named("SHA-256", of_season(blocks, season), "recipe", code)
        lines.append(f"- Recipe of {season}: {code(recipe.get('name') or 'without a name')}{digests}")
    versions = sorted(set(blocks["taxonomy"].dropna()) - {NONE}) if "taxonomy" in blocks else []
    for text in versions:
        version, _, digest = str(text).partition(" ")
        lines.append(f"- Crop classes: version {plain(version)}{f', SHA-256 {code(digest)}' if digest else ''}")
    scenes = tables.scenes
    if {"sensor", "taken", "reason"} <= set(scenes.columns):
        reasons = scenes.loc[(scenes["sensor"] == "sentinel2") & scenes["taken"], "reason"].value_counts()
        often = sorted(reasons.items(), key=lambda item: (-item[1], str(item[0])))
        told = [f"{plain(reason)} ({plural(number, 'scene')})" for reason, number in often]
        lines += [f"- Offset of the Sentinel-2 numbers, decided by: {listing(told, NAMED)}"] if told else []
    return ["## How it was made", "", *lines, "", "The recipes stand whole in `recipes.json`."]


def named(words: str, rows: pd.DataFrame, column: str, form: Callable[[Any], str]) -> str:
    """What a column holds, for the end of a line; nothing where there is none."""
    values = sorted(set(rows[column].dropna()) - {NONE}) if column in rows else []
    return f"; {words} {', '.join(map(form, values))}" if values else ""


def citation_section(tables: IndexTables) -> list[str]:
    """How to cite it, where a recipe says."""
    cited = dict.fromkeys(plain(recipe["citation"]) for recipe in tables.recipes.values() if recipe.get("citation"))
    return ["## How to cite it", "", *cited] if cited else []
