"""The datasheet: its figures are those of the arrays, it renders, and it says nothing of what is not there."""

from __future__ import annotations

import json
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_stores import CUT_MONTH, EMPTY_MONTH, ENMAP_FLAGGED, SOFTWARE, WAVELENGTHS, MadeStore, make_store
from markdown_it import MarkdownIt
from markdown_it.token import Token

from h2crop_data.constants import MONTHS, SENTINEL2_BANDS, TIERS, UNKNOWN
from h2crop_data.cube.index import SeasonTables
from h2crop_data.cube.reading import read_index, read_index_json, store_attributes
from h2crop_data.cube.root import stored_data
from h2crop_data.datasheet.markdown import byte_size, code, listing, plain, share
from h2crop_data.sources.describe import DATASHEETS
from h2crop_data.sources.formats import layout_of_root

SEASONS = (2021, 2022)
BANDS = {"wavelength": WAVELENGTHS.tolist()}
#: What would show that a missing value was written as a number or a word.
NO_VALUE = re.compile(r"\b(nan|NaN|None|NaT|inf)\b|<NA>")
#: Parts every sheet has.
ALWAYS = ["What is in it", "Where", "Sources and licences", "How it is split", "Quality", "Known limits"]
MONTH_NAMES = [f"{pd.Timestamp(2022, month, 1):%B}" for month in range(1, 13)]


@dataclass
class Sheet:
    """A datasheet as it renders."""

    source: str

    def __post_init__(self) -> None:
        assert not NO_VALUE.search(self.source), NO_VALUE.search(self.source)
        self.tokens = MarkdownIt("commonmark").enable("table").parse(self.source)
        #: Title -> its text, lists included, and its tables: rows by the cell of their first column.
        self.text: dict[str, str] = {}
        self.tables: dict[str, list[list[list[str]]]] = {}
        title = ""
        for i, token in enumerate(self.tokens):
            if token.type == "heading_open":
                title = rendered(self.tokens[i + 1])
                self.text[title], self.tables[title] = "", []
            elif token.type == "table_open":
                self.tables[title].append([])
            elif token.type == "tr_open":
                self.tables[title][-1].append([])
            elif token.type == "inline" and self.tokens[i - 1].type in ("th_open", "td_open"):
                self.tables[title][-1][-1].append(rendered(token))
            elif token.type in ("inline", "fence") and self.tokens[i - 1].type != "heading_open":
                self.text[title] += (token.content if token.type == "fence" else rendered(token)) + "\n"

    def rows(self, title: str, first: str = "") -> list[dict[str, str]]:
        """A table of a section: a dictionary a row. first: its first column, where there are several tables."""
        head, *rows = next(found for found in self.tables[title] if first in ("", found[0][0]))
        return [dict(zip(head, row, strict=True)) for row in rows]


def rendered(token: Token) -> str:
    """The text that a reader sees."""
    return "".join(" " if child.type == "softbreak" else child.content for child in token.children or [])


@dataclass(frozen=True)
class Tables:
    """The tables of all seasons, which tests change."""

    samples: dict[int, gpd.GeoDataFrame]
    parcels: dict[int, gpd.GeoDataFrame]
    blocks: pd.DataFrame
    scenes: pd.DataFrame
    squares: gpd.GeoDataFrame | None
    statistics: dict[str, Any]
    classes: list[dict[int, str]]
    recipes: dict[int, dict[str, Any]]

    def of_season(self, season: int) -> SeasonTables:
        """Those of a season."""
        blocks, scenes = (rows[rows["season"] == season] for rows in (self.blocks, self.scenes))
        samples, parcels, recipe = self.samples[season], self.parcels.get(season), self.recipes[season]
        return SeasonTables(season, samples, parcels, blocks, scenes, self.squares, recipe)


def described(
    attributes: dict[str, Any],
    tables: Tables,
    data_bytes: int = 0,
    coordinates: dict[str, list[float]] = {},  # noqa: B006 -- it is not changed
) -> str:
    """The datasheet of a release, from the facts of each season as they are kept. data_bytes: of each season."""
    layout = layout_of_root(attributes)
    seasons = {
        season: DATASHEETS.season(layout, tables.of_season(season), data_bytes, coordinates)
        for season in tables.samples
    }
    kept = json.loads(json.dumps(seasons, allow_nan=False))
    facts = {int(season): of_season for season, of_season in kept.items()}
    return DATASHEETS.release(attributes, facts, tables.statistics, tables.classes)


def tables_of(store: Path) -> tuple[dict[str, Any], Tables]:
    """Root attributes and tables of a store, as its index has them."""
    attributes = store_attributes(store)
    seasons = [int(season) for season in attributes["seasons"]]
    parcels = {season: f"parcels-{season}" for season in seasons if f"parcels-{season}" in attributes["index"]}
    return attributes, Tables(
        samples={season: read_index(store, f"samples-{season}") for season in seasons},
        parcels={season: read_index(store, name) for season, name in parcels.items()},
        blocks=read_index(store, "blocks"),
        scenes=read_index(store, "scenes"),
        squares=None,
        statistics=read_index_json(store, "statistics"),
        classes=[{int(number): name for number, name in tier.items()} for tier in read_index_json(store, "classes")],
        recipes={int(season): recipe for season, recipe in read_index_json(store, "recipes").items()},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """Two seasons of three blocks, train, val and test; not to be changed."""
    return make_store(tmp_path_factory.mktemp("all") / "store", seasons=SEASONS, blocks=3)


@pytest.fixture(scope="module")
def parts(made: MadeStore) -> tuple[dict[str, Any], Tables]:
    return tables_of(made.folder)


@pytest.fixture
def release(parts: tuple[dict[str, Any], Tables]) -> tuple[dict[str, Any], Tables]:
    """Attributes and tables that a test may change."""
    return deepcopy(parts)


@pytest.fixture(scope="module")
def sheet(parts: tuple[dict[str, Any], Tables]) -> Sheet:
    """The sheet of the store with everything."""
    attributes, tables = parts
    return Sheet(described(attributes, tables, data_bytes=6_172_839, coordinates=BANDS))


def of_split(made: MadeStore, split: str, array: str) -> np.ndarray[Any, Any]:
    """An array of the samples of a split, of all seasons: (sample, ...)."""
    chosen = [made.arrays[season][array][(made.samples[season]["split"] == split).to_numpy()] for season in SEASONS]
    return np.concatenate(chosen)


def number(text: str) -> float:
    """A number of the sheet."""
    return float(text.replace(",", "").removesuffix(" %").strip("<> "))


class TestFigures:
    """Every figure is counted again, from the arrays that were written."""

    def test_all_parts_in_order(self, sheet: Sheet) -> None:
        titles = list(sheet.text)
        assert titles[0] == "h2crop store, release 1"
        assert [title for title in titles if title in ALWAYS] == ALWAYS
        assert titles[-5:] == ["Classes", *(f"Tier {tier}" for tier in range(1, TIERS + 1))]
        assert {"When", "Reflectance", "How to read it", "How it was made"} <= set(titles)
        assert "How to cite it" not in titles

    def test_what(self, sheet: Sheet, made: MadeStore) -> None:
        head = sheet.text["h2crop store, release 1"]
        assert "made-2021: A store of the tests." in head
        assert "16 samples of 240 x 240 m, seasons 2021, 2022" in head
        assert "EnMAP reflectance in 32 bands; monthly Sentinel-2 composites in 10 bands; declared crops" in head
        assert "12.3 MB of arrays" in sheet.text["What is in it"]
        for row, season in zip(sheet.rows("What is in it"), SEASONS, strict=True):
            drawn = sum(len(np.setdiff1d(one, [0])) for one in made.arrays[season]["parcel"])
            assert row == {
                "season": str(season),
                "samples": "8",
                "cells": "8",
                "blocks": "3",
                "parcels with a class": str(drawn),
            }
        arrays = {row["array"]: row for row in sheet.rows("What is in it", "array")}
        assert list(arrays) == list(made.layout.arrays())
        assert arrays["s2"]["axes of a sample"] == "12 months, 10 bands, 24 x 24 pixels of 10 m"
        assert arrays["enmap"]["axes of a sample"] == "32 bands, 8 x 8 pixels of 30 m"
        assert arrays["parcel"]["axes of a sample"] == "24 x 24 pixels of 10 m"
        assert [arrays["enmap"][key] for key in ("type", "fill", "unit")] == ["int16", "-32768", "reflectance x 10000"]
        assert [arrays["label"][key] for key in ("type", "fill", "unit")] == ["uint8", "255", "class id"]

    def test_where(self, sheet: Sheet, made: MadeStore) -> None:
        text = sheet.text["Where"]
        corners = np.concatenate([table.get_coordinates().to_numpy() for table in made.samples.values()])
        (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
        assert f"Longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}" in text
        assert "UTM zones: EPSG:32631\n" in text
        # The seasons show the same eight cells.
        assert f"8 cells, {8 * 0.24 * 0.24:.1f} km² of ground" in text
        assert "by country: be-vlg (32)" in text

    def test_when(self, sheet: Sheet) -> None:
        rows = {(row["season"], row["sensor"]): row for row in sheet.rows("When")}
        assert list(rows) == [(str(season), sensor) for season in SEASONS for sensor in ("EnMAP", "Sentinel-2")]
        row = rows["2022", "Sentinel-2"]
        assert (row["scenes found"], row["scenes used"]) == ("12", "11")
        assert row["dates of those used"] == "2022-01-15 to 2022-11-15"
        row = rows["2021", "EnMAP"]
        # Three blocks, but one of their scenes was left out of the table of those taken.
        assert (row["scenes found"], row["scenes used"]) == ("3", "2")
        assert row["dates of those used"] == "2021-07-01 to 2021-07-02"

    def test_split(self, sheet: Sheet, made: MadeStore) -> None:
        rows = sheet.rows("How it is split")
        assert [row["split"] for row in rows] == ["train", "val", "test"]
        for row in rows:
            labels, parcels = (of_split(made, row["split"], name) for name in ("label", "parcel"))
            has_class = (labels[:, 0] > 0) & (labels[:, 0] < UNKNOWN)
            assert number(row["samples"]) == len(labels)
            assert row["of the samples"] == f"{100 * len(labels) / 16:.1f} %"
            assert number(row["pixels with a class"]) == has_class.sum()
            # Numbers are counted in each season anew, so every sample has two parcels of its own.
            assert number(row["parcels with a class"]) == 2 * len(parcels)

    def test_classes(self, sheet: Sheet, made: MadeStore, parts: tuple[dict[str, Any], Tables]) -> None:
        for tier in range(TIERS):
            rows = sheet.rows(f"Tier {tier + 1}")
            labels = {split: of_split(made, split, "label")[:, tier] for split in ("train", "val", "test")}
            there = sorted(set(np.unique(np.concatenate(list(labels.values())))) - {0, UNKNOWN})
            assert [row["id"] for row in rows] == [*map(str, there), "0", "255"]
            names = parts[1].classes[tier]
            assert [row["class"] for row in rows[:-2]] == [names[i] for i in there]
            for row in rows:
                for split, of_tier in labels.items():
                    shown = of_tier == int(row["id"])
                    assert number(row[f"pixels, {split}"]) == shown.sum()
                    numbers = [
                        np.unique(one[where]) for one, where in zip(of_split(made, split, "parcel"), shown, strict=True)
                    ]
                    expected = str(sum(map(len, numbers))) if row["id"] != "0" else "–"
                    assert row[f"parcels, {split}"] == expected
            absent = len(names) - len(there)
            assert (f"{absent} more class has no pixel here." in sheet.text[f"Tier {tier + 1}"]) is bool(absent)

    def test_reflectance(self, sheet: Sheet, made: MadeStore) -> None:
        text = sheet.text["Reflectance"]
        assert text.startswith("Over the 6 samples of train: pixels with a value, of EnMAP those without a flag")
        assert text.endswith("Every band, and every month, is in statistics.json.\n")
        rows = {row["band"]: row for row in sheet.rows("Reflectance")}
        usable = (of_split(made, "train", "enmap_quality") & ENMAP_FLAGGED) == 0
        shown = [int(np.abs(WAVELENGTHS - wanted).argmin()) for wanted in (490, 560, 665, 865, 1610, 2200)]
        assert list(rows) == [*(f"EnMAP, {WAVELENGTHS[place]:.0f} nm" for place in shown), *SENTINEL2_BANDS]
        values = {name: of_split(made, "train", "s2")[:, :, i].ravel() for i, name in enumerate(SENTINEL2_BANDS)}
        values |= {f"EnMAP, {WAVELENGTHS[i]:.0f} nm": of_split(made, "train", "enmap")[:, i][usable] for i in shown}
        for name, row in rows.items():
            stored = np.sort(values[name][values[name] != -32768]).astype(float) / 10000
            assert number(row["pixels"]) == len(stored)
            assert number(row["mean"]) == pytest.approx(stored.mean(), abs=6e-5)
            assert number(row["sd"]) == pytest.approx(stored.std(), abs=6e-5)
            for percent in (5, 50, 95):
                expected = stored[math.ceil(percent * len(stored) / 100) - 1]
                assert number(row[f"{percent} %"]) == pytest.approx(expected, abs=6e-5)

    def test_quality(self, sheet: Sheet, made: MadeStore) -> None:
        rows = sheet.rows("Quality", "month")
        assert [row["month"] for row in rows] == MONTH_NAMES
        days = np.sort(of_split(made, "train", "s2_clear").swapaxes(0, 1).reshape(MONTHS, -1), axis=1)
        for month, row in enumerate(rows):
            for season in SEASONS:
                clear = (made.arrays[season]["s2_clear"][:, month] > 0).mean()
                assert number(row[f"pixels seen clear, {season}"]) == pytest.approx(100 * clear, abs=0.051)
            half = days[month, math.ceil(days.shape[1] / 2) - 1]
            assert number(row["clear days of a pixel (median, train)"]) == half
        shares = {row["share of a sample"]: row for row in sheet.rows("Quality", "share of a sample")}
        fill = [(one == -32768).mean() for season in SEASONS for one in made.arrays[season]["enmap"]]
        row = shares["EnMAP: values without a measurement"]
        assert number(row["mean"]) == pytest.approx(100 * np.mean(fill), abs=0.051)
        assert number(row["largest"]) == pytest.approx(100 * max(fill), abs=0.051)
        pixels = {row["share of the pixels"]: row for row in sheet.rows("Quality", "share of the pixels")}
        for name, words in (("label", "label"), ("prior", "the year before")):
            for tier in range(TIERS):
                values = np.concatenate([made.arrays[season][name][:, tier] for season in SEASONS])
                row = pixels[f"{words}, tier {tier + 1}"]
                assert number(row["not declared"]) == pytest.approx(100 * (values == 0).mean(), abs=0.051)
                assert number(row["unknown"]) == pytest.approx(100 * (values == 255).mean(), abs=0.051)
                assert sum(number(row[key]) for key in row if key != "share of the pixels") == pytest.approx(
                    100, abs=0.2
                )
        assert "which are not part of this release: none." in sheet.text["Quality"]
        assert "could not be read: none." in sheet.text["Quality"]

    def test_sources_limits_and_making(self, sheet: Sheet) -> None:
        sources = sheet.text["Sources and licences"]
        assert "“contains modified Copernicus Sentinel data 2021, 2022”" in sources
        assert "Declared parcels, be-vlg: the licence is unknown" in sources
        assert "CC BY-SA 4.0" in sources
        limits = sheet.text["Known limits"]
        for season in SEASONS:
            assert f"{season}: no Sentinel-2 scenes in {MONTH_NAMES[EMPTY_MONTH]}.\n" in limits
        assert MONTH_NAMES[CUT_MONTH] not in limits
        assert "0 means “not declared”" in limits
        assert "255 means “unknown at this tier”" in limits
        assert "do not occur in" not in limits
        assert f"at most {0.24 * math.sqrt(2):.1f} km on either side of a zone border" in limits
        making = sheet.text["How it was made"]
        assert f"Sealed by {SOFTWARE}; blocks built by {SOFTWARE}" in making
        assert f"Recipe of 2021: made-2021; SHA-256 {'0' * 64}" in making
        assert f"version 1, SHA-256 {'0' * 64}" in making

    def test_its_python_reads_the_store(
        self, sheet: Sheet, made: MadeStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        [program] = [token.content for token in sheet.tokens if token.type == "fence"]
        assert len(program.splitlines()) == 3
        exec(program.replace("STORE", str(made.folder)), {})
        assert "season:   2022" in capsys.readouterr().out

    def test_it_is_not_too_long(self, sheet: Sheet) -> None:
        before_classes = sheet.source.split("## Classes")[0]
        assert len(before_classes.splitlines()) < 160


def test_figures_of_samples_that_differ(release: tuple[dict[str, Any], Tables]) -> None:
    """The made samples resemble each other; these do not."""
    attributes, tables = release
    rng = np.random.default_rng(4)
    clear = {season: rng.random((8, MONTHS)) for season in SEASONS}
    clouds = {season: rng.random(8) for season in SEASONS}
    for season, samples in tables.samples.items():
        samples["s2_clear_share"] = list(clear[season])
        samples["enmap_cloud_share"] = clouds[season]
        # One of the two scenes taken is in no sample.
        samples["scene"] = samples["scene"].iloc[0]
    days = {"0": 5, "1": 40, "2": 10, "7": 35, "12": 10}
    tables.statistics["clear_observations"] = [days] * MONTHS
    sheet = Sheet(described(attributes, tables))
    half = sorted(int(number) for number, pixels in days.items() for _ in range(pixels))[49]
    for month, row in enumerate(sheet.rows("Quality", "month")):
        for season in SEASONS:
            mean = sum(clear[season][:, month]) / 8
            assert number(row[f"pixels seen clear, {season}"]) == pytest.approx(100 * mean, abs=0.051)
        assert number(row["clear days of a pixel (median, train)"]) == half == 2
    row = sheet.rows("Quality", "share of a sample")[0]
    everything = [*clouds[2021], *clouds[2022]]
    assert row["share of a sample"] == "EnMAP: pixels with the flag `cloud`"
    assert number(row["mean"]) == pytest.approx(100 * sum(everything) / 16, abs=0.051)
    assert number(row["largest"]) == pytest.approx(100 * max(everything), abs=0.051)
    for row in sheet.rows("When"):
        if row["sensor"] == "EnMAP":
            assert (row["scenes found"], row["scenes used"]) == ("3", "1")
            assert row["dates of those used"] == f"{row['season']}-07-01 to {row['season']}-07-01"


# --- Stores that lack something, and stores that have more


@pytest.mark.parametrize(
    ("layout", "gone"),
    [
        ({"enmap": False}, ["EnMAP"]),
        ({"s2_bands": ()}, ["monthly", "Copernicus"]),
        ({"labels": False}, ["label", "parcel", "declared", "HCAT3", "Tier"]),
        ({"enmap": False, "s2_bands": ()}, ["EnMAP", "Sentinel-2", "Reflectance", "flagged"]),
        ({"enmap": False, "labels": False}, ["EnMAP", "label", "parcel"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "without",
)
def test_nothing_is_said_of_sources_a_store_does_not_have(
    layout: dict[str, Any], gone: list[str], tmp_path: Path
) -> None:
    made = make_store(tmp_path / "store", **layout)
    sheet = Sheet(described(*tables_of(made.folder)))
    assert [title for title in sheet.text if title in ALWAYS] == ALWAYS
    for word in gone:
        assert word not in sheet.source, word
    assert [row["array"] for row in sheet.tables["What is in it"] and sheet.rows("What is in it", "array")] == list(
        made.layout.arrays()
    )
    assert ("Reflectance" in sheet.text) is (
        stored_data(made.layout.attributes()).enmap_bands > 0 or bool(stored_data(made.layout.attributes()).s2_bands)
    )


def test_a_release_of_the_first_format_has_fewer_columns(release: tuple[dict[str, Any], Tables]) -> None:
    attributes, tables = release
    statistics = tables.statistics
    del statistics["class_parcels"], statistics["clear_observations"]
    for band in [*statistics["reflectance"]["s2"], *statistics["reflectance"]["enmap"]]:
        del band["percentiles"]
    sheet = Sheet(described(attributes, replace(tables, blocks=tables.blocks.drop(columns="retracted"))))
    assert "parcels" not in "".join(sheet.rows("Tier 1")[0])
    assert list(sheet.rows("What is in it")[0]) == ["season", "samples", "cells", "blocks"]
    assert list(sheet.rows("Quality", "month")[0]) == ["month", "pixels seen clear, 2021", "pixels seen clear, 2022"]
    assert {row["95 %"] for row in sheet.rows("Reflectance")} == {"–"}
    assert "EnMAP, band 32 of 32" in [row["band"] for row in sheet.rows("Reflectance")]


def test_a_full_recipe_is_told(release: tuple[dict[str, Any], Tables]) -> None:
    attributes, tables = release
    recipe = {
        "name": "full",
        "description": "Two valleys.",
        "enmap": {"catalog": "https://example.org/stac", "collection": "ENMAP_HSI_L2A"},
        "sentinel2": {"catalog": "lists/s2.json", "collection": "sentinel-2-l2a", "resampling": "nearest"},
        "parcels": {
            "season": [
                {"country": "fr", "table": None},
                {"country": "be-vlg", "table": {"path": "own.csv"}},
                {"country": "dk", "table": None},
            ],
            "prior": [{"country": "at", "table": "at"}],
        },
        "split": {
            "square_size": 15360,
            "shares": {"train": 0.7, "val": 0.2, "test": 0.1},
            "seed": 5,
            "method": "optimised",
            "buffer": 250.0,
        },
        "citation": "Somebody, 2026.",
    }
    squares = gpd.GeoDataFrame(
        {"column": [1, 2, 3, 4], "row": 7, "split": ["train", "train", "val", "test"], "samples": 4},
        geometry=gpd.points_from_xy([3] * 4, [50] * 4, crs="OGC:CRS84"),
    )
    sheet = Sheet(described(attributes, replace(tables, recipes=dict.fromkeys(SEASONS, recipe), squares=squares)))
    assert sheet.text["h2crop store, release 1"].count("full: Two valleys.") == 1
    sources = sheet.text["Sources and licences"]
    assert "EnMAP L2A from https://example.org/stac, collection ENMAP_HSI_L2A." in sources
    assert "from a local list of scenes, lists/s2.json, which does not name their provider" in sources
    assert "Declared parcels, fr: Registre parcellaire graphique, under the Licence Ouverte" in sources
    assert "Declared parcels, be-vlg: the licence is unknown" in sources
    assert "a table of the builder of the store (own.csv), without a stated licence" in sources
    assert (
        "Declared parcels, at: the licence is unknown to h2crop; ask the provider of the file. Crop codes: a" in sources
    )
    assert re.search(r"Declared parcels, dk: .* Crop codes: a table whose licence is unknown", sources)
    assert sources.count("a table derived from EuroCrops', CC BY-SA 4.0") == 2
    split = sheet.text["How it is split"]
    assert "squares of 15.36 km in EPSG:3035" in split
    assert "some moved to meet the shares and to have all classes in every split (seed 5)" in split
    assert "at least 250 m apart" in split
    rows = sheet.rows("How it is split")
    assert [row["asked"] for row in rows] == ["70.0 %", "20.0 %", "10.0 %"]
    assert [(row["squares"], row["of the squares"]) for row in rows] == [
        ("2", "50.0 %"),
        ("1", "25.0 %"),
        ("1", "25.0 %"),
    ]
    assert "B05, B06, B07, B8A, B11, B12 are measured at 20 m" in sheet.text["Known limits"]
    assert "resampled once (cubic)" in sheet.text["Known limits"]
    assert sheet.text["How to cite it"] == "Somebody, 2026.\n"


def test_what_was_kept_out_is_told(release: tuple[dict[str, Any], Tables]) -> None:
    attributes, tables = release
    tables.blocks.loc[[0, 4], "retracted"] = ["haze | not flagged", "a *wrong* offset"]
    tables.blocks.loc[3, "retracted"] = "haze | not flagged"
    tables.samples[2022]["s2_gaps"] = [["S2A_1", "S2B_2"], [], ["S2A_1"], *([] for _ in range(5))]
    sheet = Sheet(described(attributes, tables))
    quality = sheet.text["Quality"]
    assert "which are not part of this release: 3." in quality
    assert "“haze | not flagged”: block 0 of 2021, block 0 of 2022\n" in quality
    assert "“a *wrong* offset”: block 1 of 2022\n" in quality
    assert "could not be read: 2, over 2 samples: S2A_1, S2B_2" in quality
    assert [row["blocks"] for row in sheet.rows("What is in it")] == ["2", "1"]


def test_limits_that_the_tables_show(release: tuple[dict[str, Any], Tables]) -> None:
    attributes, tables = release
    pixels = tables.statistics["class_pixels"]
    for season in ("2021", "2022"):
        for tier in range(TIERS):
            # Everything of the class of the meadows is unknown in test, and the year before is unknown everywhere.
            counts = pixels[season]["test"]["label"][tier]
            counts["255"] = counts.get("255", 0) + counts.pop(str(tier + 1))
            for split in pixels[season].values():
                split["prior"][tier] = {"255": sum(split["prior"][tier].values())}
    samples = tables.samples[2022]
    samples.loc[[0, 1], "cell"] = samples.loc[2, "cell"]
    samples.loc[7, ["x0", "y0"]] = np.nan
    tables.samples[2021]["s2_offset"], samples["s2_offset"] = 0, 1000
    sheet = Sheet(described(attributes, tables))
    limits = sheet.text["Known limits"]
    assert (
        "Classes of the store that do not occur in test: 1 of 2 at tier 1, 1 of 2 at tier 2, 1 of 1 at tier 3, "
        "1 of 1 at tier 4.\n" in limits
    )
    assert "do not occur in train" not in limits
    assert "The year before is unknown everywhere" in limits
    assert "(16 samples, 14 cells and seasons)" in limits
    assert "The place of 1 sample is not known exactly" in limits
    assert "reflectance = (value - 1000) x 0.0001" in limits
    assert limits.count("still contain an offset") == 1
    assert [row["cells"] for row in sheet.rows("What is in it")] == ["8", "6"]


def test_a_split_without_samples_is_told(tmp_path: Path) -> None:
    attributes, tables = tables_of(make_store(tmp_path / "store", blocks=1).folder)
    recipe = {"name": "one", "split": {"square_size": 15360, "shares": {"train": 1, "val": 0, "test": 0}}}
    sheet = Sheet(described(attributes, replace(tables, recipes={2022: recipe})))
    assert "There is no sample in val or test." in sheet.text["Known limits"]
    assert "do not occur in" not in sheet.text["Known limits"]
    assert [row["of the samples"] for row in sheet.rows("How it is split")] == ["100.0 %", "0.0 %", "0.0 %"]
    assert "may touch where two squares meet" in sheet.text["How it is split"]


def test_an_import_with_next_to_no_recipe(release: tuple[dict[str, Any], Tables]) -> None:
    attributes, tables = release
    recipe = {
        "name": "h2crop-published",
        "description": "Imported from the published H2Crop dataset (HDF5).",
        "published": {"s2_clear": "1 where the file has a value; the dataset does not tell clouds"},
    }
    for samples in tables.samples.values():
        samples["cell"] = samples["square"] = "none"
        samples["enmap_cloud_share"] = samples["enmap_flagged_share"] = np.nan
        samples["sun_elevation"] = samples["x0"] = samples["y0"] = np.nan
    tables.blocks["taxonomy"] = "none"
    bare = replace(
        tables,
        parcels={},
        recipes=dict.fromkeys(SEASONS, recipe),
        scenes=tables.scenes[tables.scenes["sensor"] == "enmap"],
        statistics={**tables.statistics, "class_parcels": {}},
    )
    sheet = Sheet(described(attributes, bare, coordinates={"wavelength": [0.0] * len(WAVELENGTHS)}))
    assert (
        "Declared parcels: their origin is not recorded; their licence is unknown."
        in sheet.text["Sources and licences"]
    )
    assert "not recorded, only the result" in sheet.text["How it is split"]
    assert "the dataset does not tell clouds" in sheet.text["Known limits"]
    assert "scene classification" not in sheet.text["Known limits"]
    assert "zone border" not in sheet.text["Known limits"]
    assert "cell" not in sheet.text["Where"]
    assert [row["cells"] for row in sheet.rows("What is in it")] == ["–", "–"]
    assert "Crop classes: version" not in sheet.source
    assert "EnMAP, band 1 of 32" in [row["band"] for row in sheet.rows("Reflectance")]


#: Columns without which the sheet has less to say, and nothing else happens.
OPTIONAL = {
    "samples": [
        "cell",
        "square",
        "scene",
        "enmap_flagged_share",
        "enmap_fill_share",
        "s2_clear_share",
        "s2_gaps",
        "epsg",
        "x0",
    ],
    "blocks": ["software", "recipe", "taxonomy", "retracted"],
    "scenes": ["sensor", "reason", "time", "taken"],
}


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in OPTIONAL for column in OPTIONAL[table]])
def test_a_column_that_is_not_there_leaves_a_gap_only(
    table: str, column: str, release: tuple[dict[str, Any], Tables]
) -> None:
    attributes, tables = release
    whole = described(attributes, tables)
    if table == "samples":
        tables = replace(tables, samples={season: one.drop(columns=column) for season, one in tables.samples.items()})
    else:
        tables = replace(tables, **{table: getattr(tables, table).drop(columns=column)})
    sheet = Sheet(described(attributes, tables))
    assert [title for title in sheet.text if title in ALWAYS] == ALWAYS
    assert len(sheet.source) <= len(whole) + 100


def test_an_empty_recipe_and_empty_tables(release: tuple[dict[str, Any], Tables]) -> None:
    attributes, tables = release
    bare = replace(
        tables,
        recipes={season: {} for season in SEASONS},
        scenes=tables.scenes[:0],
        parcels={season: parcels[:0] for season, parcels in tables.parcels.items()},
        statistics={"reflectance": {"split": "train", "units": "1"}, "class_pixels": {}},
    )
    sheet = Sheet(described(attributes, bare))
    assert "Reflectance" not in sheet.text
    assert "When" not in sheet.text
    assert sheet.text["h2crop store, release 1"].startswith("A recipe without a name\n")


# --- The same release has the same sheet


def test_the_sheet_is_a_pure_function(
    release: tuple[dict[str, Any], Tables], parts: tuple[dict[str, Any], Tables]
) -> None:
    assert described(*release) == described(*parts)
    for season in SEASONS:
        pd.testing.assert_frame_equal(release[1].samples[season], parts[1].samples[season])
    pd.testing.assert_frame_equal(release[1].blocks, parts[1].blocks)
    assert release[0] == parts[0]
    assert release[1].statistics == parts[1].statistics


def test_the_facts_of_a_season_do_not_grow_with_its_samples(parts: tuple[dict[str, Any], Tables]) -> None:
    """They are kept, and read for every release."""
    attributes, tables = parts
    few = tables.of_season(2022)
    samples = pd.concat([few.samples.assign(cell=few.samples["cell"] + f"_{i}") for i in range(50)], ignore_index=True)
    layout = layout_of_root(attributes)
    sizes = [
        len(json.dumps(DATASHEETS.season(layout, of_season, 0, BANDS)))
        for of_season in (few, replace(few, samples=samples))
    ]
    assert len(samples) == 50 * len(few.samples)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


@pytest.mark.slow
def test_it_does_not_depend_on_the_process(parts: tuple[dict[str, Any], Tables], tmp_path: Path) -> None:
    attributes, tables = parts
    seasons = {season: tables.of_season(season) for season in tables.samples}
    given = (attributes, seasons, tables.statistics, tables.classes)
    (tmp_path / "parts").write_bytes(pickle.dumps(given))
    program = (
        "import pickle, sys; from h2crop_data.sources.describe import DATASHEETS; "
        "from h2crop_data.sources.formats import layout_of_root; "
        "attributes, seasons, *others = pickle.load(open(sys.argv[1], 'rb')); layout = layout_of_root(attributes); "
        "facts = {season: DATASHEETS.season(layout, tables, 0, {}) for season, tables in seasons.items()}; "
        "sys.stdout.buffer.write(DATASHEETS.release(attributes, facts, *others).encode())"
    )
    here = described(*parts).encode()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", program, str(tmp_path / "parts")]
        environment = {
            "PYTHONHASHSEED": seed,
            "TZ": "Pacific/Auckland",
            "LC_ALL": "C.UTF-8",
        }
        assert subprocess.run(command, env=environment, capture_output=True, check=True).stdout == here


# --- Markdown


@pytest.mark.slow
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp")), max_size=40))
def test_free_text_stays_what_it_is(text: str) -> None:
    words = " ".join(text.split())
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    [inline] = [token for token in markdown.parse(f"before {plain(text)} after") if token.type == "inline"]
    assert " ".join(rendered(inline).split()) == " ".join(f"before {words} after".split())
    cells = [
        token
        for token in markdown.parse(f"| a | b |\n| --- | --- |\n| x {plain(text)} x | y |")
        if token.type == "inline"
    ]
    assert [" ".join(rendered(cell).split()) for cell in cells[2:]] == [
        f"x {words} x".replace("  ", " "),
        "y",
    ]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (lambda: share(0.0), "0.0 %"),
        (lambda: share(0.0004), "< 0.1 %"),
        (lambda: share(0.99999), "> 99.9 %"),
        (lambda: share(1.0), "100.0 %"),
        (lambda: share(float("nan")), "–"),
        (lambda: byte_size(999), "1.0 kB"),
        (lambda: byte_size(2_500_000_000_000), "2.5 TB"),
        (lambda: listing(["a", "b", "c"], 2), "a, b and 1 more"),
        (lambda: listing(["a", "b"], 2), "a, b"),
        (lambda: code("a `b` | c"), "`a 'b' / c`"),
    ],
)
def test_how_values_are_told(told: Callable[[], str], expected: str) -> None:
    assert told() == expected
