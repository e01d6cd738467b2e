"""What a datasheet says of declared parcels."""

from __future__ import annotations

from h2crop_data.constants import BACKGROUND, TIERS, UNKNOWN
from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.facts import everything, labelled, pixel_counts, recipe_sections, split_names
from h2crop_data.datasheet.markdown import code, count, plain, share, table
from h2crop_data.datasheet.words import SourceWords

#: Where declared parcels come from and under which licence, by country.
PARCEL_SOURCES = {"fr": "Registre parcellaire graphique, under the Licence Ouverte / Open Licence 2.0 (Etalab)"}
#: Countries whose table of crop codes comes with h2crop, made from EuroCrops'.
EUROCROPS_TABLES = ("at", "fr", "si")


class ParcelWords(SourceWords):
    """Declared parcels in a datasheet."""

    def summary(self, source: SourceFormat) -> str:
        return "declared crops in four tiers"

    def origin(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        return [
            *parcel_sources(tables),
            "- **Classes**: the tiers are the codes of HCAT3 cut to 4, 6, 8 and 10 digits, from EuroCrops "
            "(M. Schneider, A. Broszeit, M. Körner; CC BY-SA 4.0); their ids and names began with the published H2Crop "
            "dataset (Apache-2.0).",
        ]

    def quality(self, source: SourceFormat, tables: IndexTables) -> list[list[str]]:
        return [label_shares(tables)]

    def limits(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        return [*label_limits(tables), *missing_classes(tables)]


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
