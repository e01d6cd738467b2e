"""The known limits of a release: those of the way it is made, and those that its tables show."""

from __future__ import annotations

import math

from h2crop_data.constants import BACKGROUND, TIERS, UNKNOWN
from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.datasheet.facts import (
    MONTH_NAMES,
    cells_of,
    clear_shares,
    everything,
    pixel_counts,
    recipe_sections,
    split_names,
)
from h2crop_data.datasheet.markdown import count, plain, plural

TWENTY_METRE_BANDS = {"B05", "B06", "B07", "B8A", "B11", "B12"}


def limits_section(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """What to know before using it: by the way it is made, and by what is in it."""
    found = [
        *(label_limits(tables) if layout.labels else []),
        *(missing_classes(tables) if layout.labels else []),
        *(sentinel2_limits(tables, layout) if layout.s2_bands else []),
        *(enmap_limits(tables, layout) if layout.enmap_bands else []),
        *place_limits(tables, layout),
    ]
    return ["## Known limits", "", *(f"- {limit}" for limit in found)]


def label_limits(tables: IndexTables) -> list[str]:
    """What labels are, and what they are not."""
    limits = [
        "Labels are what was declared, not what was seen growing; a wrong declaration is a wrong label.",
        "0 is “nobody declared it”, which is not “no crop”.",
        "255 is “unknown at this tier”: the crop has no class there, its code is in no table, no declarations cover "
        "the ground, or its parcel lies mostly in another split. Leave these pixels out of training and of scores.",
    ]
    prior = pixel_counts(tables, None, 0, "prior")
    if prior and prior[UNKNOWN] == prior.total():
        limits.append("The year before is unknown everywhere: `prior` is 255.")
    return limits


def missing_classes(tables: IndexTables) -> list[str]:
    """How many classes other splits show and one does not, tier by tier."""
    samples = everything(tables)
    splits = [name for name in split_names(tables) if (samples["split"] == name).any()]
    missing: dict[str, list[str]] = {split: [] for split in splits}
    for tier in range(TIERS):
        shown = {split: set(pixel_counts(tables, split, tier)) - {BACKGROUND, UNKNOWN} for split in splits}
        everywhere = set().union(*shown.values())
        for split, classes in shown.items():
            if everywhere - classes:
                missing[split].append(
                    f"{count(len(everywhere - classes))} of {count(len(everywhere))} at tier {tier + 1}"
                )
    return [
        f"Classes of the store that do not occur in {plain(split)}: {', '.join(told)}."
        for split, told in missing.items()
        if told
    ]


def sentinel2_limits(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """What a composite is and is not, and the months without any."""
    limits = [
        "A pixel that was never clear in a month has no value that month; nothing is filled in. How often a pixel was "
        "clear differs from place to place: `s2_clear`, `s2_day`."
    ]
    sections = recipe_sections(tables, "sentinel2")
    if sections:
        limits.append("Clear is what Sentinel-2's scene classification calls so; it misses thin cloud and cloud edges.")
    limits += [
        f"`s2_clear`: {plain(section['s2_clear'])}."
        for section in recipe_sections(tables, "published")[:1]
        if section.get("s2_clear")
    ]
    coarse = [name for name in layout.s2_bands if name in TWENTY_METRE_BANDS]
    if coarse and any(section.get("resampling") == "nearest" for section in sections):
        limits.append(f"{', '.join(coarse)} are measured at 20 m; each of their pixels is repeated 2 x 2.")
    for season, samples in tables.samples.items():
        shares = clear_shares(samples)
        if shares is not None:
            empty = [name for name, most in zip(MONTH_NAMES, shares.max(axis=0), strict=True) if most == 0]
            limits += [f"{season}: no Sentinel-2 at all in {', '.join(empty)}."] if empty else []
    samples = everything(tables)
    if "s2_offset" in samples:
        offsets = sorted({int(number) for number in samples["s2_offset"].dropna()} - {0})
        limits += [
            f"Sentinel-2 numbers still hold an offset: reflectance = (value - {offset}) x 0.0001." for offset in offsets
        ]
    return limits


def enmap_limits(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """Flags, position, and copies."""
    limits = ["Flagged EnMAP pixels keep their values: `enmap_quality` says which to leave out."]
    if recipe_sections(tables, "enmap"):
        limits.append(
            "EnMAP lies where its product says, resampled once (cubic) to the grid of 30 m. Its shift against "
            "Sentinel-2 is not measured: usually below a pixel, not always."
        )
    samples = sum(len(one) for one in tables.samples.values())
    cells = sum(cells_of(one) for one in tables.samples.values())
    if 0 < cells < samples and (layout.s2_bands or layout.labels):
        limits.append(
            "Where several EnMAP scenes saw one cell in a season, each of its samples holds a copy of Sentinel-2 and "
            f"labels ({count(samples)} samples, {count(cells)} cells and seasons). Counts of pixels count every copy."
        )
    return limits


def place_limits(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """Ground and splits that have no sample, samples that have no place."""
    samples = everything(tables)
    limits = []
    if cells_of(samples):
        diagonal = layout.cell_size * math.sqrt(2) / 1000
        limits.append(
            f"Cells lie wholly in one UTM zone: a strip of at most {diagonal:.1f} km on either side of a zone border "
            "belongs to no cell."
        )
    lost = int(samples["x0"].isna().sum()) if "x0" in samples else 0
    if lost:
        limits.append(f"The place of {plural(lost, 'sample')} is not known exactly: `x0` and `y0` are missing.")
    empty = [plain(name) for name in split_names(tables) if not (samples["split"] == name).any()]
    if empty:
        limits.append(f"There is no sample in {' or '.join(empty)}.")
    return limits
