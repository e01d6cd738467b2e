"""One sample in all its layers as one picture: north up, pixels without a measurement hatched, only layers that
exist."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from h2crop_data.constants import COARSE, FINE, MONTHS, TIER_DIGITS, UNKNOWN
from h2crop_data.cube.reading import load_root, read_document, read_table, to_reflectance
from h2crop_data.cube.root import stored_data
from h2crop_data.cube.sample_reader import open_samples
from h2crop_data.report import layers
from h2crop_data.report.layers import Color
from h2crop_data.report.page import (
    AFTER,
    GAP,
    HEADING,
    LEFT,
    PAGE_COLUMNS,
    QUIET,
    SIDE,
    TICKS,
    TITLE,
    Entry,
    Page,
    PageSection,
    column,
    compose,
    legend_height,
    percent,
    show_image,
    show_lines,
)
from h2crop_data.report.scene_shift import DrawnShift, draw_shifts, drawn_shifts, match_lines
from h2crop_data.report.summary import find_sample, read_of_bands, sample_facts

#: Colours of the images: of the twelve months where they have so many pixels together, else, and of EnMAP.
MANY_PIXELS, FEW_COLOURS, MORE_COLOURS = 200_000, 48, 128
#: Side of EnMAP's maps in inches where they are the only ones.
LARGE_SIDE = 2.88
#: Inches: a line of the header.
HEADER_LINE = 0.18
#: Inches: height of a chart, and room for the labels of its axis to its left.
CHART, CHART_LABELS = 2.1, 0.55
#: Inches: room for the legend of the shifts of two detectors.
SHIFT_LEGEND = 0.34
LEGEND_CLASSES = 12
#: Classes whose NDVI is drawn.
CURVES = 3
EMPTY_COLOUR, NO_FLAG = "#e0e0e0", "#f8f8f2"
FILL_HATCH = {"facecolor": "#f3f3f3", "edgecolor": "#c2c2c2", "hatch": "////"}
UNKNOWN_HATCH = {"facecolor": "#fdf4fa", "edgecolor": "#b86a9c", "hatch": "xxxx"}
#: Coordinates of EnMAP's bands.
OF_BANDS: tuple[Literal["wavelength", "fwhm"], ...] = ("wavelength", "fwhm")
KIND_COLOURS = dict(zip(layers.LAND_KINDS, ("#222222", "#2e8b3d", "#b5652a", "#2f6fc4"), strict=True))
MONTH_LABELS = list(calendar.month_abbr)[1:]


@dataclass(frozen=True)
class Sample:
    """A sample's layers, with reflectance as float32 and NaN where nothing was measured, and what the index says."""

    #: The arrays of the store by name, and `wavelength` and `fwhm` (nm) with EnMAP.
    arrays: Mapping[str, NDArray[Any]]
    facts: dict[str, Any]
    #: Names of the class ids of each tier.
    names: list[dict[str, str]]
    cell_size: int
    #: Names of the Sentinel-2 bands.
    s2_bands: list[str]
    #: Detector -> how far the EnMAP scene lay from Sentinel-2, where that was measured.
    shifts: Mapping[str, DrawnShift] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def layer(self, name: str) -> NDArray[Any]:
        """One array of the sample."""
        return self.arrays[name]

    @cached_property
    def clear_share(self) -> NDArray[np.float64]:
        """Share of the pixels with a clear observation in each month."""
        share: NDArray[np.float64] = (self.layer("s2_clear") > 0).mean(axis=(1, 2))
        return share

    @cached_property
    def true_colour(self) -> tuple[tuple[str, ...], tuple[float, float], list[NDArray[np.float32]]]:
        """The bands shown, the one stretch of all months (reflectance), and the twelve images (y, x, RGBA)."""
        bands = layers.true_colour(self.s2_bands)
        values = self.layer("s2")[:, [self.s2_bands.index(name) for name in bands]]
        limits = layers.stretch_limits(values)
        images = [layers.picture_of(month, [limits] * 3) for month in values]
        many = values[:, 0].size > MANY_PIXELS
        return bands, limits, layers.fewer_colours(images, FEW_COLOURS if many else MORE_COLOURS)

    @cached_property
    def false_colour(self) -> tuple[list[float], NDArray[np.float32]]:
        """The wavelengths shown (nm) and EnMAP as image (y30, x30, RGBA), each band with its own stretch."""
        wavelengths = self.layer("wavelength")
        bands = layers.nearest_bands(wavelengths)
        values = self.layer("enmap")[bands]
        image = layers.picture_of(values, [layers.stretch_limits(band) for band in values])
        return [float(wavelengths[band]) for band in bands], layers.fewer_colours([image], MORE_COLOURS)[0]

    @cached_property
    def class_colours(self) -> list[dict[int, Color]]:
        """A colour for each class of each tier, the prior's too."""
        return layers.class_colours(self.layer("label"), self.layer("prior")[-1] if "prior" in self else None)


def draw_sample(
    store: str | Path, season: int, sample: int | str | None, path: str | Path, release: int | None = None
) -> Path:
    """Draw one sample in all its layers as PNG; gives the file.

    sample: its place in the season from 0, its id, that of its cell, or None for the one with the most content.
    release: the current one by default. Raises StoreError for a store, season or sample that does not exist, or a file
    that cannot be written.
    """
    shown = read_sample(store, season, sample, release)
    sections = [header(shown)]
    if "s2" in shown:
        sections.append(sentinel2_section(shown))
    if "enmap" in shown:
        sections.append(enmap_section(shown))
    if "label" in shown:
        sections.append(label_section(shown))
    if "s2" in shown and "label" in shown:
        sections += ndvi_sections(shown)
    return compose(sections).save(Path(path))


def read_sample(store: str | Path, season: int, sample: int | str | None, release: int | None = None) -> Sample:
    """The layers of one sample; reads its chunks only. What a partial copy of a store lacks is fill."""
    root = load_root(store, release)
    attributes = root["attributes"]
    index = read_table(store, attributes, f"samples-{season}")
    facts = sample_facts(index, find_sample(index, sample))
    read: dict[str, NDArray[Any]] = {}
    for name, reader in open_samples(store, root, [season], missing_is_fill=True)[season].items():
        stored = reader.read(facts["slot"])
        read[name] = to_reflectance(stored) if name in ("s2", "enmap") else stored
    for coordinate in OF_BANDS:
        values = read_of_bands(store, root, season, facts["slot"], coordinate)
        if values is not None:
            read[coordinate] = values
    facts |= {"store": Path(str(store)).name, "release": attributes["release"], "season": season, "of": len(index)}
    names = read_document(store, attributes, "classes")
    layout = attributes["layout"]
    shifts = drawn_shifts(facts, windows_of_block(index, facts["block"]))
    return Sample(read, facts, names, layout["cell_size"], stored_data(layout).s2_bands, shifts)


def windows_of_block(index: pd.DataFrame, block: int) -> list[str]:
    """What the windows of a block's scene say of its shift; they stand with the first sample of the block."""
    if "enmap_windows" not in index:
        return []
    told = index.loc[index["block"] == block, "enmap_windows"]
    return [window for of_sample in told if of_sample is not None for window in of_sample]


def header(sample: Sample) -> PageSection:
    """Which sample this is, where it lies and when it was taken."""
    facts, size = sample.facts, sample.cell_size
    west, _, _, north = facts["bbox"]
    pixels = [f"{size // FINE} × {size // FINE} px at {FINE} m"] if "s2" in sample or "label" in sample else []
    if "enmap" in sample:
        pixels.append(f"{size // COARSE} × {size // COARSE} px at {COARSE} m")
    corner = "place known only by its tile, whose corner is at"
    if facts["x0"] is not None:
        corner = f"upper left corner x {facts['x0']:.0f} m, y {facts['y0']:.0f} m"
    lines = [
        f"store {facts['store']}, release {facts['release']}  ·  season {facts['season']}  ·  "
        f"split {facts['split']}  ·  sample {facts['number']} (of 0 to {facts['of'] - 1}), "
        f"block {facts['block']}, slot {facts['slot']}",
        f"EPSG:{facts['epsg']}, {corner} (longitude {west:.4f}°, latitude {north:.4f}°)  ·  "
        f"cell {size} m × {size} m  ·  {',  '.join(pixels)}",
        scene_line(facts),
        *match_lines(facts),
    ]

    def draw(page: Page, top: float) -> None:
        page.text(LEFT, top + 0.2, facts["sample"], size=15, weight="bold")
        page.text(LEFT, top + 0.52, "\n".join(lines), size=8.5, color=QUIET, linespacing=1.5)

    return PageSection(0.68 + HEADER_LINE * len(lines), draw)


def scene_line(facts: dict[str, Any]) -> str:
    """The EnMAP scene of a sample with its time and sun."""
    if facts["scene"] == "none":
        return "no EnMAP scene"
    parts = [f"EnMAP scene {facts['scene']}"]
    if facts.get("scene_time"):
        parts.append(str(facts["scene_time"])[:16].replace("T", " ") + " UTC")
    for key, name in (("sun_elevation", "sun elevation"), ("across_off_nadir", "across-track off-nadir")):
        if facts.get(key) is not None:
            parts.append(f"{name} {facts[key]:.1f}°")
    return "  ·  ".join(parts)


def sentinel2_section(sample: Sample) -> PageSection:
    """Twelve months in true colour, with one stretch."""
    rows = MONTHS // PAGE_COLUMNS

    def draw(page: Page, top: float) -> None:
        bands, (low, high), images = sample.true_colour
        page.heading(
            top,
            f"Sentinel-2, monthly composites: {', '.join(bands)} as red, green, blue",
            f"One stretch for all months and bands: black is reflectance {low:.3f}, white {high:.3f} (2nd and 98th "
            "percentile). Percentages: pixels with a clear observation; hatched: pixels without one.",
        )
        for month, image in enumerate(images):
            row, place = divmod(month, PAGE_COLUMNS)
            axes = page.map_axes(
                column(place),
                top + HEADING + TITLE + row * (SIDE + TITLE + 0.08),
                SIDE,
                sample.cell_size,
                f"{MONTH_LABELS[month]}   {percent(sample.clear_share[month])} clear",
                FILL_HATCH,
                first=place == 0 and row == rows - 1,
            )
            show_image(axes, image)

    return PageSection(HEADING + rows * (SIDE + TITLE + 0.08) + TICKS + AFTER - 0.08, draw)


def flag_entries(quality: NDArray[np.uint16]) -> list[Entry]:
    """The legend of the flags present, those shown on top first."""
    entries = [
        Entry(f"{percent(share)}  {name.replace('_', ' ')}", {"facecolor": layers.FLAG_COLOURS[name]})
        for name, share in layers.flags_present(quality)
    ]
    return [*entries, Entry(f"{percent(float((quality == 0).mean()))}  no flag", {"facecolor": NO_FLAG})]


def own_mask_entries(mask: NDArray[np.uint8], quality: NDArray[np.uint16]) -> list[Entry]:
    """The legend of what our own mask calls cloud or shadow and DLR's layers do not."""
    return [
        Entry(
            f"{percent(float(pixels.mean()))}  {name.replace('_', ' ')} in enmap_mask only",
            {"facecolor": layers.OWN_COLOURS[name]},
        )
        for name, pixels in layers.own_alone(mask, quality).items()
        if pixels.any()
    ]


def enmap_section(sample: Sample) -> PageSection:
    """EnMAP in false colour, its flags, where it lay, and mean spectra."""
    side = SIDE if "s2" in sample or "label" in sample or sample.shifts else LARGE_SIDE
    quality = sample.layer("enmap_quality")
    mask = sample.layer("enmap_mask") if "enmap_mask" in sample else None
    entries = flag_entries(quality) + ([] if mask is None else own_mask_entries(mask, quality))
    below = max(TICKS + (SHIFT_LEGEND if sample.shifts else 0), 0.08 + legend_height(entries))

    def draw(page: Page, top: float) -> None:
        shown, image = sample.false_colour
        page.heading(
            top,
            f"EnMAP, {len(sample.layer('wavelength'))} bands: "
            f"{', '.join(f'{value:.0f}' for value in shown)} nm as red, green, blue",
            "Each of the three bands is stretched from its 2nd to its 98th percentile; vegetation is red. Percentages: "
            "pixels with a flag; where a pixel has several, the map shows the one named first.",
        )
        top += HEADING + TITLE
        axes = page.map_axes(column(0, side), top, side, sample.cell_size, "False colour", FILL_HATCH, first=True)
        show_image(axes, image)
        axes = page.map_axes(column(1, side), top, side, sample.cell_size, "Quality flags", FILL_HATCH, first=False)
        flags = layers.flag_map(quality, NO_FLAG)
        show_image(axes, flags if mask is None else layers.with_own_mask(flags, mask, quality))
        page.legend(column(1, side), top + side + 0.08, entries)
        if sample.shifts:
            # Tick labels stand to the left of the panel.
            panel = page.axes(column(2, side) + GAP, top, side - GAP, side - GAP)
            page.legend(
                column(2, side), top + side + TICKS - GAP, draw_shifts(panel, sample.shifts, is_trusted(sample))
            )
        left, right = column(3 if sample.shifts else 2, side) + CHART_LABELS - GAP, column(PAGE_COLUMNS - 1)
        kinds = draw_spectra(page.axes(left, top, right - GAP - left, side), sample, mask)
        page.legend(right, top + 0.05, kinds)

    return PageSection(HEADING + TITLE + side + below + AFTER, draw)


def is_trusted(sample: Sample) -> bool:
    """Whether the shift of the EnMAP scene was not rejected."""
    return not str(sample.facts.get("enmap_match")).startswith(("rejected", "datatake"))


def draw_spectra(axes: Axes, sample: Sample, mask: NDArray[np.uint8] | None = None) -> list[Entry]:
    """Mean spectra of the cell and of simple kinds of land, each detector a line, with gaps where there are no bands.

    mask: (y, x), as ENMAP_MASK_FLAGS; its clouds and shadows are left out. Gives the legend.
    """
    wavelengths, reflectance = sample.layer("wavelength"), sample.layer("enmap")
    for before, after in layers.gap_places(wavelengths):
        low, high = float(wavelengths[before]), float(wavelengths[after])
        axes.axvspan(low, high, color="#eeeeee", linewidth=0)
        axes.text(
            (low + high) / 2,
            0.5,
            "no bands",
            fontsize=7,
            color=QUIET,
            ha="center",
            va="center",
            rotation=90,
            transform=axes.get_xaxis_transform(),
        )
    lines = layers.bands_of_lines(wavelengths, sample.layer("fwhm"))
    entries, spectra = [], []
    kinds = layers.land_kinds(reflectance, wavelengths, sample.layer("enmap_quality"), mask)
    for kind, pixels in kinds.items():
        color = KIND_COLOURS[kind]
        for bands in lines:
            x, y = layers.mean_spectrum(reflectance[bands], wavelengths[bands], pixels)
            axes.plot(x, y, color=color, linewidth=1.3)
            spectra.append(y)
        entries.append(Entry(f"{kind}, {int(pixels.sum())} px", {"facecolor": color}))
    axes.set_title("Mean spectra of pixels without cloud, shadow or defect", fontsize=8.5, pad=3.5, loc="left")
    axes.set_xlabel("wavelength in nm", fontsize=7.5, color=QUIET, labelpad=1)
    axes.set_ylabel("reflectance", fontsize=7.5, color=QUIET)
    axes.set_xlim(float(wavelengths.min()) - 10, float(wavelengths.max()) + 10)
    low, high = layers.spectra_range(spectra)
    above = 0.05 * (high - min(0.0, low)) or 0.05
    axes.set_ylim(min(0.0, low - above if low < 0 else 0.0), high + above)
    axes.grid(color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)
    return entries or [Entry("all pixels have flags", {"facecolor": "white"})]


def class_entries(sample: Sample, tier: int, labels: NDArray[np.uint8]) -> list[Entry]:
    """The legend of the classes present at a tier, the largest first, then background and unknown."""
    colours, names, size = sample.class_colours[tier], sample.names[tier], labels.size
    present = layers.classes_by_size(labels)
    entries = [
        Entry(
            f"{percent(pixels / size)}  {names.get(str(number), f'class {number}').replace('_', ' ')}",
            {"facecolor": colours[number]},
        )
        for number, pixels in present[:LEGEND_CLASSES]
    ]
    if len(present) > LEGEND_CLASSES:
        rest = sum(pixels for _, pixels in present[LEGEND_CLASSES:]) / size
        entries.append(Entry(f"{percent(rest)}  {len(present) - LEGEND_CLASSES} more classes", {"facecolor": "white"}))
    for number, name, swatch in ((0, "not declared", {"facecolor": EMPTY_COLOUR}), (UNKNOWN, "unknown", UNKNOWN_HATCH)):
        if (labels == number).any():
            entries.append(Entry(f"{percent(float((labels == number).mean()))}  {name}", swatch))
    return entries


def label_section(sample: Sample) -> PageSection:
    """The four tiers, the prior's fourth tier, and the parcels."""
    tiers = sample.layer("label")
    panels = [(f"Tier {tier + 1} ({TIER_DIGITS[tier]} digits)", tier, labels) for tier, labels in enumerate(tiers)]
    if "prior" in sample:
        last = len(tiers) - 1
        panels.append((f"Prior: tier {last + 1} of {sample.facts['season'] - 1}", last, sample.layer("prior")[last]))
    entries = [class_entries(sample, tier, labels) for _, tier, labels in panels]
    borders = layers.parcel_borders(sample.layer("parcel"), FINE) if "parcel" in sample else []

    def draw(page: Page, top: float) -> None:
        page.heading(
            top,
            "Declared crops: the four tiers of HCAT3, and the year before",
            "Percentages of the cell's pixels. Light grey: not declared (0); crossed: unknown at this tier, or no "
            "declarations (255). Lines: borders of the season's parcels.",
        )
        top += HEADING + TITLE
        for place, ((title, tier, labels), legend) in enumerate(zip(panels, entries, strict=True)):
            axes = page.map_axes(column(place), top, SIDE, sample.cell_size, title, UNKNOWN_HATCH, first=place == 0)
            show_image(axes, layers.class_map(labels, sample.class_colours[tier], EMPTY_COLOUR))
            show_lines(axes, borders, "#3a3a3a", 0.5)
            page.legend(column(place), top + SIDE + TICKS, legend)
        if "parcel" in sample:
            draw_parcels(page, top, sample, borders, column(len(panels)))

    return PageSection(HEADING + TITLE + SIDE + TICKS + max(map(legend_height, entries)) + AFTER, draw)


def draw_parcels(page: Page, top: float, sample: Sample, borders: list[layers.Line], left: float) -> None:
    """The borders of the parcels over the clearest image there is."""
    parcels = sample.layer("parcel")
    count = len(np.setdiff1d(parcels, [0]))
    if "s2" in sample:
        month = clearest_month(sample.clear_share)
        image, under = sample.true_colour[2][month], f" on S2 of {MONTH_LABELS[month]}"
    elif "enmap" in sample:
        image, under = sample.false_colour[1], " on EnMAP"
    else:
        image, under = layers.class_map((parcels > 0).astype(np.uint8), {1: "#ffffff"}, EMPTY_COLOUR), ""
    title = f"{count} parcel{'s' if count != 1 else ''}{under}"
    axes = page.map_axes(left, top, SIDE, sample.cell_size, title, FILL_HATCH, first=False)
    show_image(axes, image)
    show_lines(axes, borders, *(("#ffffff", 0.5, "#222222") if under else ("#3a3a3a", 0.5)))


def clearest_month(clear_share: NDArray[np.float64]) -> int:
    """The month (from 0) with most clear pixels; of equals the one nearest to July, when parcels differ most."""
    return min(range(MONTHS), key=lambda month: (-round(float(clear_share[month]), 2), abs(month - 6)))


def ndvi_sections(sample: Sample) -> list[PageSection]:
    """The year's NDVI of the largest classes, if the bands and a labelled pixel exist."""
    infrared = next((name for name in ("B08", "B8A") if name in sample.s2_bands), None)
    tiers = sample.layer("label")
    labelled = [tier for tier in range(len(tiers)) if layers.classes_by_size(tiers[tier])]
    if infrared is None or "B04" not in sample.s2_bands or not labelled:
        return []
    tier = labelled[-1]
    ndvi = layers.ratio(*(sample.layer("s2")[:, sample.s2_bands.index(name)] for name in (infrared, "B04")))

    def draw(page: Page, top: float) -> None:
        page.heading(
            top,
            f"The year of the largest classes of tier {tier + 1}: NDVI from {infrared} and B04",
            "Mean over the class's pixels that are clear in the month; no point where there is none.",
        )
        left = LEFT + CHART_LABELS - 0.2
        axes = page.axes(left, top + HEADING + 0.05, column(4) - GAP - left, CHART)
        axes.set(xlim=(0.6, MONTHS + 0.4), ylim=(0, 1), xticks=range(1, MONTHS + 1), xticklabels=MONTH_LABELS)
        axes.set_ylabel("NDVI", fontsize=7.5, color=QUIET)
        axes.grid(color="#e6e6e6", linewidth=0.5)
        axes.set_axisbelow(True)
        entries = []
        for number, pixels in layers.classes_by_size(tiers[tier])[:CURVES]:
            color = sample.class_colours[tier][number]
            means = layers.monthly_means(ndvi, tiers[tier] == number)
            axes.plot(range(1, MONTHS + 1), means, color=color, linewidth=1.8, marker="o", markersize=4.5)
            name = sample.names[tier].get(str(number), f"class {number}").replace("_", " ")
            entries.append(Entry(f"{name}, {pixels} px", {"facecolor": color}))
        axes.set_ylim(bottom=min(0.0, axes.dataLim.y0 - 0.05))
        page.legend(column(4), top + HEADING + 0.1, entries)

    return [PageSection(HEADING + 0.05 + CHART + TICKS + AFTER, draw)]
