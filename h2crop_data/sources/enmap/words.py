"""The texts of a datasheet about EnMAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from h2crop_data.cube.index import SeasonTables
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.facts import ReleaseFacts, added, counts_by_text, found_in
from h2crop_data.datasheet.markdown import count, table
from h2crop_data.datasheet.quality import band_row
from h2crop_data.datasheet.words import Coordinates, SourceWords
from h2crop_data.sources.enmap.format import DETECTORS, MATCH_DECISIONS, MATCH_TRUSTED

#: The datatake in the name of a product.
DATATAKE_OF_SCENE = r"-(DT\d{10})_"
#: Wavelengths whose bands stand for EnMAP: blue, green, red, near infrared, short wave infrared, nm.
SHOWN_WAVELENGTHS = (490.0, 560.0, 665.0, 865.0, 1610.0, 2200.0)
#: Columns of lists of texts that a datasheet counts.
LISTED_TEXTS = ("enmap_layers_missing", "enmap_noisy_bands", "enmap_empty_bands")


class EnmapWords(SourceWords):
    """EnMAP in a datasheet."""

    def season_facts(self, source: SourceFormat, tables: SeasonTables) -> dict[str, Any]:
        samples = tables.samples
        texts = {name: samples_by_text(samples, name) for name in LISTED_TEXTS if name in samples}
        found = {**super().season_facts(source, tables), "texts": texts, "doubts": doubts_of_masks(samples)}
        return {**found, "matches": matches_of(samples)} if "enmap_match" in samples else found

    def summary(self, source: SourceFormat) -> str:
        return f"EnMAP reflectance in {source.arrays[0].sample_shape[0]} bands"

    def sample(self, source: SourceFormat) -> str:
        return "with EnMAP as one scene saw it"

    def origin(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        return [
            f"- **EnMAP L2A**{found_in(facts, source.name)}. EnMAP data are © DLR, under DLR's licence agreement on "
            "the use of EnMAP data."
        ]

    def bands(self, source: SourceFormat, facts: ReleaseFacts, coordinates: Coordinates) -> list[list[str]]:
        bands = facts.statistics.get("reflectance", {}).get("enmap", [])
        return [band_row(name, bands[place]) for name, place in shown_bands(len(bands), coordinates.get("wavelength"))]

    def pixels(self, source: SourceFormat) -> str:
        own = any(array.name == "enmap_mask" for array in source.arrays)
        return f"of EnMAP those without a flag that the recipe counts{', of either array of flags' if own else ''}"

    def quality(self, source: SourceFormat, facts: ReleaseFacts) -> list[list[str]]:
        matches = {
            season: of_season["matches"]
            for season, of_season in facts.of_source(source.name).items()
            if "matches" in of_season
        }
        return [*super().quality(source, facts), *([matched_scenes(matches)] if matches else [])]

    def limits(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        own = any(array.name == "enmap_mask" for array in source.arrays)
        named = "`enmap_quality` and `enmap_mask` say" if own else "`enmap_quality` says"
        limits = [f"Flagged EnMAP pixels keep their values: {named} which to leave out."]
        limits += sorted({limit_of_matches(section) for section in facts.sections(source.name)})
        limits += sorted({limit_of_own_mask(section) for section in facts.sections(source.name)} - {""})
        own_facts = list(facts.of_source(source.name).values())
        limits += unknown_flags(own_facts) + unseen_scenes(own_facts) + useless_bands(own_facts)
        cells = sum(of_season["cells"] for of_season in facts.seasons.values())
        samples = facts.samples
        if 0 < cells < samples:
            limits.append(
                "Where several EnMAP scenes saw one cell in a season, each of its samples contains a copy of all "
                f"other data of the cell ({count(samples)} samples, {count(cells)} cells and seasons). Counts of "
                "pixels count every copy."
            )
        return limits


def limit_of_matches(section: Mapping[str, Any]) -> str:
    """The limits of the position of EnMAP. section: of EnMAP in a recipe that was kept."""
    once = "resampled once (cubic) to the grid of 30 m"
    if section.get("coregistration", "none") == "apply":
        return (
            f"EnMAP is shifted to match clear dates of Sentinel-2, each of its two detectors separately, {once}. "
            "Scenes that could not be matched are not shifted, unless `enmap_match` says otherwise."
        )
    measured = (
        "was measured and not corrected: `enmap_match`"
        if section.get("coregistration") == "report"
        else "is not measured: usually below a pixel, not always"
    )
    return f"EnMAP has the georeference of its product, {once}. Its shift against Sentinel-2 {measured}."


def limit_of_own_mask(section: Mapping[str, Any]) -> str:
    """The limits of `enmap_mask`; empty without one. section: of EnMAP in a recipe that was kept."""
    mask = section.get("mask", "none")
    if mask == "none":
        return ""
    applied = "counts as flagged, together with pixels that it could not judge"
    counted = applied if mask == "apply" else "was not counted as flagged"
    return (
        "DLR's layers miss small clouds and shadows. `enmap_mask` is a mask from the bands of the scene; it "
        f"{counted}. It marks some pale roofs as cloud, and finds half of the cloud over snow and no shadows of "
        "clouds outside the scene. `enmap_mask_disagreement` is the share of pixels on which the two differ."
    )


def doubts_of_masks(samples: pd.DataFrame) -> dict[str, int]:
    """Why a mask looked at nothing -> samples."""
    if "enmap_mask_doubt" not in samples:
        return {}
    return counts_by_text(text for text in samples["enmap_mask_doubt"].dropna() if text)


def unseen_scenes(seasons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which samples have a mask that looked at nothing."""
    doubts = added(of_season["doubts"] for of_season in seasons)
    return [
        f"Clouds could not be detected in the scenes of {count(number)} samples ({text}): `enmap_mask` says `unseen`."
        for text, number in sorted(doubts.items())
    ]


def matches_of(samples: pd.DataFrame) -> dict[str, Any]:
    """How far scenes of a season lay off by detector, in metres, and how many scenes have which decision.

    Of each detector: median, 95 % and largest shift, standard deviation, and the spread over the tiles of one datatake;
    None where it is not known.
    """
    scenes = samples.drop_duplicates("scene")
    became = scenes["enmap_match"].str.split(":").str[0]
    trusted = scenes[became.isin(MATCH_TRUSTED)]
    detectors = {}
    for name in DETECTORS:
        east, north = (trusted[f"enmap_{name}_{axis}"].to_numpy(float) for axis in ("east", "north"))
        lengths = np.hypot(east, north)
        known = np.percentile(lengths, [50, 95, 100]) if len(lengths) else [np.nan] * 3
        sd = max(trusted[f"enmap_{name}_sd_{axis}"].median() for axis in ("east", "north"))
        by_datatake = trusted.groupby(trusted["scene"].str.extract(DATATAKE_OF_SCENE)[0])
        axes = [by_datatake[f"enmap_{name}_{axis}"] for axis in ("east", "north")]
        spread = max((float((one.max() - one.min()).max()) for one in axes), default=np.nan)
        detectors[name] = [None if np.isnan(value) else float(value) for value in (*known, sd, spread)]
    return {"detectors": detectors, "decisions": [int((became == word).sum()) for word in MATCH_DECISIONS]}


def matched_scenes(seasons: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """How far scenes lay off by detector, what became of it, and how far tiles of one datatake differ, by season."""
    rows = []
    for season, matches in seasons.items():
        for name, values in matches["detectors"].items():
            figures = ["-" if value is None else f"{value:.1f} m" for value in values]
            rows.append([str(season), name.upper(), *figures, *map(count, matches["decisions"])])
    columns = [
        "season",
        "detector",
        "shift of a scene, median",
        "95 %",
        "largest",
        "sd",
        "spread over a datatake's tiles",
    ]
    return table([*columns, *(word.replace("_", " ") for word in MATCH_DECISIONS)], rows)


def samples_by_text(samples: pd.DataFrame, column: str) -> dict[str, int]:
    """Each text of a column of lists of the samples index -> how many samples have it."""
    return counts_by_text(text for texts in samples[column] if is_list(texts) for text in set(texts))


def texts_of(seasons: Sequence[Mapping[str, Any]], column: str) -> dict[str, int]:
    """The same of all seasons, the most frequent first."""
    return added(of_season["texts"].get(column, {}) for of_season in seasons)


def is_list(value: object) -> bool:
    """Whether a row has a list; rows that an earlier h2crop built have none."""
    return isinstance(value, list | np.ndarray)


def unknown_flags(seasons: Sequence[Mapping[str, Any]]) -> list[str]:
    """What missing quality layers mean."""
    missing = texts_of(seasons, "enmap_layers_missing")
    if not missing:
        return []
    named = ", ".join(f"`{layer}` ({count(number)} samples)" for layer, number in missing.items())
    return [
        f"Scenes of some samples lack a quality layer: {named}. Their pixels have none of its flags because these "
        "are unknown: there may be cloud, shadow or defects. `enmap_layers_missing` names the layer; "
        "`enmap_cloud_share` and `enmap_flagged_share` are null where they would need it."
    ]


def useless_bands(seasons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which bands hold noise or nothing."""
    kinds = {"enmap_noisy_bands": "mostly noise", "enmap_empty_bands": "without data"}
    told = []
    for column, what in kinds.items():
        bands = {f"{float(centre):.0f}": 0 for centre in texts_of(seasons, column)}
        if bands:
            centres = ", ".join(sorted(bands, key=int))
            told.append(f"Bands {what} in some scene, and stored all the same: {centres} nm; `{column}` says where.")
    return told


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
