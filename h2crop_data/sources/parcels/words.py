"""The texts of a datasheet about declared parcels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from h2crop_data.constants import BACKGROUND, TIERS, UNKNOWN
from h2crop_data.cube.index import SeasonTables
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.facts import ReleaseFacts, labelled, pixel_counts, split_names
from h2crop_data.datasheet.markdown import code, count, plain, plural, share, table
from h2crop_data.datasheet.words import SourceWords

#: Where declared parcels come from and under which licence, by country.
PARCEL_SOURCES = {"fr": "Registre parcellaire graphique, under the Licence Ouverte / Open Licence 2.0 (Etalab)"}
#: Tiles whose frames a datasheet names, those farthest off.
TILES_NAMED = 10
#: Columns of frames that it states, in metres.
FRAME_FIGURES = ("shift_east", "shift_north", "shift_uncertainty")
#: Countries whose table of crop codes comes with h2crop, made from EuroCrops'.
EUROCROPS_TABLES = ("at", "fr", "si")


class ParcelWords(SourceWords):
    """Declared parcels in a datasheet."""

    def season_facts(self, source: SourceFormat, tables: SeasonTables) -> dict[str, Any]:
        return {} if tables.frames is None else {"frames": frames_of(tables.frames)}

    def summary(self, source: SourceFormat) -> str:
        return "declared crops in four tiers"

    def origin(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        return [
            *parcel_sources(facts),
            "- **Classes**: the tiers are the codes of HCAT3 cut to 4, 6, 8 and 10 digits, from EuroCrops "
            "(M. Schneider, A. Broszeit, M. Körner; CC BY-SA 4.0); their ids and names began with the published H2Crop "
            "dataset (Apache-2.0).",
        ]

    def quality(self, source: SourceFormat, facts: ReleaseFacts) -> list[list[str]]:
        frames = frames_by_season(facts, source)
        return [label_shares(facts), *([frames_of_images(frames)] if frames else [])]

    def limits(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        return [*label_limits(facts), *missing_classes(facts), *limits_of_frames(frames_by_season(facts, source))]


def frames_by_season(facts: ReleaseFacts, source: SourceFormat) -> dict[int, Mapping[str, Any]]:
    """Season -> how far its tiles lie off; only seasons where that was looked at."""
    seasons = facts.of_source(source.name)
    return {season: of_season["frames"] for season, of_season in seasons.items() if "frames" in of_season}


def frames_of(frames: pd.DataFrame) -> dict[str, Any]:
    """How far the tiles of a season lie off: those farthest off, how many were measured, why others were not, and how
    many tiles and windows have a warning.
    """
    whole = frames[frames["window"] == "whole"]
    measured = whole[whole["frame"] == "measured"]
    lengths = np.hypot(measured["shift_east"].to_numpy(), measured["shift_north"].to_numpy())
    farthest = measured.iloc[np.argsort(-lengths, kind="stable")[:TILES_NAMED]]
    unmeasured = whole["frame"][whole["frame"] != "measured"].str.removeprefix("not_measured: ").value_counts()
    off = frames["window"][frames["warning"].fillna("") != ""]
    tiles = int((off == "whole").sum())
    return {
        "farthest": [
            {
                "tile": str(row["tile"]),
                **{name: float(row[name]) for name in FRAME_FIGURES},
                "parcel_count": int(row["parcel_count"]),
                "doubtful": None if np.isnan(row["check_east"]) else bool(row["doubtful"]),
            }
            for row in farthest.to_dict("records")
        ],
        "measured": len(measured),
        "unmeasured": {str(why): int(number) for why, number in unmeasured.items()},
        "warned": [tiles, len(off) - tiles],
    }


def frames_of_images(seasons: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """The shift of images against parcels, tile by tile, the largest first; the other tiles are counted."""
    lines = [
        "Position of images = position of parcels + shift, by processing tile (`frames-<season>.parquet` has "
        "windows of 4 km):",
        "",
    ]
    rows, others = [], []
    for season, frames in seasons.items():
        rows += [frame_row(season, row) for row in frames["farthest"]]
        if frames["measured"] > TILES_NAMED:
            others.append(f"{season}: {plural(frames['measured'] - TILES_NAMED, 'tile')} more, nearer to the parcels.")
        reasons = frames["unmeasured"].items()
        others += [f"{season}: {plural(number, 'tile')} not measured, {plain(why)}." for why, number in reasons]
    columns = ["season", "tile", "east", "north", "uncertainty", "parcels", "doubtful"]
    body = table(columns, rows, texts=2) if rows else []
    return [*lines, *body, *([""] if rows and others else []), *others]


def frame_row(season: int, row: Mapping[str, Any]) -> list[str]:
    """The cells of a measured tile."""
    figures = [f"{row[name]:.1f} m" for name in FRAME_FIGURES]
    # Where painted parcels say nothing there is one measurement, which nothing contradicts or confirms.
    doubtful = "not known" if row["doubtful"] is None else "yes" if row["doubtful"] else "no"
    return [str(season), code(row["tile"]), *figures, count(row["parcel_count"]), doubtful]


def limits_of_frames(seasons: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """The limit where images are shifted against their parcels."""
    limits = []
    for season, frames in seasons.items():
        tiles, windows = frames["warned"]
        if tiles + windows:
            where = f"{season}: in {plural(tiles, 'tile')} and {plural(windows, 'window')} of 4 km"
            limits.append(
                f"{where} images are shifted by more than half a pixel against the parcels; labels are not moved."
            )
    return limits


def parcel_sources(facts: ReleaseFacts) -> list[str]:
    """Whose declarations the labels are, country by country, and the table of their codes."""
    countries = set(facts.united("countries"))
    own: dict[str, str] = {}
    for section in facts.sections("parcels"):
        prior = section.get("prior")
        for source in [*section.get("season", []), *(prior if isinstance(prior, list) else [])]:
            countries.add(source["country"])
            crops = source.get("table")
            if isinstance(crops, dict):
                own[source["country"]] = str(crops.get("path"))
    if not countries:
        return ["- **Declared parcels**: their origin is not recorded; their licence is unknown."]
    lines = []
    for country in sorted(countries):
        told = PARCEL_SOURCES.get(country, "the licence is **unknown** to h2crop; ask the provider of the file")
        if country in own:
            crops = f"a table of the builder of the store ({code(own[country])}), without a stated licence"
        elif country in EUROCROPS_TABLES:
            crops = "a table derived from EuroCrops', CC BY-SA 4.0"
        else:
            crops = "a table whose licence is unknown"
        lines.append(f"- **Declared parcels, {plain(country)}**: {told}. Crop codes: {crops}.")
    return lines


def label_shares(facts: ReleaseFacts) -> list[str]:
    """At each tier the share of pixels with a class, not declared, unknown."""
    rows = []
    for name, words in (("label", "label"), ("prior", "the year before")):
        for tier in range(TIERS):
            pixels = pixel_counts(facts, None, tier, name)
            total = pixels.total()
            if total:
                parts = (labelled(pixels), pixels[BACKGROUND], pixels[UNKNOWN])
                rows.append([f"{words}, tier {tier + 1}", *(share(part / total) for part in parts)])
    return table(["share of the pixels", "with a class", "not declared", "unknown"], rows) if rows else []


def label_limits(facts: ReleaseFacts) -> list[str]:
    """The limits of the labels."""
    limits = [
        "Labels are declarations, not observations; a wrong declaration is a wrong label.",
        "0 means “not declared”, which is not “no crop”.",
        "255 means “unknown at this tier”: the crop has no class there, its code is in no table, no declarations "
        "cover the ground, or its parcel lies mostly in another split. Leave these pixels out of training and of "
        "scores.",
    ]
    prior = pixel_counts(facts, None, 0, "prior")
    if prior and prior[UNKNOWN] == prior.total():
        limits.append("The year before is unknown everywhere: `prior` is 255.")
    return limits


def missing_classes(facts: ReleaseFacts) -> list[str]:
    """How many classes other splits show and one does not, tier by tier."""
    splits = [name for name in split_names(facts) if facts.splits[name]]
    missing: dict[str, list[str]] = {split: [] for split in splits}
    for tier in range(TIERS):
        shown = {split: set(pixel_counts(facts, split, tier)) - {BACKGROUND, UNKNOWN} for split in splits}
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
