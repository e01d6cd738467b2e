"""A setting that is added to a section does not rewrite what was planned before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import create_model
from tiny_region import EPSG, NORTH, SOUTH, WEST, TinyRegion

from h2crop_data.cube.reading import read_index, read_index_json
from h2crop_data.grid import Cell
from h2crop_data.pipeline.build import build_store
from h2crop_data.recipe import model
from h2crop_data.recipe.model import Neutral, Parcels, Recipe, Section, Sentinel2Settings, parse_recipe
from h2crop_data.sources.parcels.source import DeclaredParcels
from h2crop_data.sources.registry import BUILT_IN
from h2crop_data.sources.sentinel2.source import Sentinel2
from h2crop_data.sources.source import PlannedBlock, Source
from h2crop_data.validation.validate import validate_store

WEST_HALF = {"area": {"bbox": [WEST, SOUTH, WEST + 240, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"}}


class HazeSource(Sentinel2Settings):
    """The section as a later version has it."""

    haze: Annotated[bool, Neutral(False)] = True
    """Whether haze is masked; earlier versions did not."""


LaterRecipe = create_model("Recipe", __base__=Recipe, sentinel2=(HazeSource | None, None))


@pytest.fixture
def season(region: TinyRegion) -> TinyRegion:
    """A region with Sentinel-2 alone."""
    for month in (3, 7):
        region.add_sentinel2(f"S2_{month}", f"2022-{month:02d}-05T10:50:00Z", 900 + month)
    return region


def later(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Recipe:
    """The recipe as the later version reads it, from now on; settings: written into its Sentinel-2 section."""
    monkeypatch.setattr(model, "Recipe", LaterRecipe)
    document = recipe.complete()
    return parse_recipe({**document, "sentinel2": {**document["sentinel2"], **settings}}, recipe._folder, "later")


@pytest.mark.parametrize("haze", [False, True], ids=["neutral", "not neutral"])
def test_a_store_planned_before_a_setting_is_extended(
    season: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, haze: bool
) -> None:
    store = tmp_path / "store"
    build_store(season.recipe(**WEST_HALF), store, workers=1)
    before = read_index(store, "blocks")
    recipe = later(season.recipe(), monkeypatch, **({"haze": False} if not haze else {}))
    assert recipe.sentinel2 is not None
    assert recipe.sentinel2.haze is haze  # type: ignore[attr-defined]
    report = build_store(recipe, store, workers=1, extend=True)
    assert report.built == 1
    told = [change for change in report.changes if "s2: inputs have changed for 1 block(s)" in change]
    assert bool(told) is haze
    assert len(report.changes) == haze
    blocks = read_index(store, "blocks")
    # What was released stays as it was planned, and the new part says what it was planned with.
    kept = [name for name in before if name != "retracted"]
    assert blocks.iloc[: len(before)][kept].equals(before[kept])
    assert blocks["recipe"].iloc[-1] == recipe.hash
    assert ("haze" in read_index_json(store, "recipes")["2022"]["sentinel2"]) is haze
    assert [finding for finding in validate_store(store).findings if finding.check != "prior"] == []


def test_at_its_neutral_value_it_is_in_no_text_and_no_hash(season: TinyRegion, monkeypatch: pytest.MonkeyPatch) -> None:
    before = season.recipe()
    neutral = later(before, monkeypatch, haze=False)
    assert neutral.as_written() == before.as_written()
    assert neutral.hash == before.hash
    assert Sentinel2().identity(neutral.sentinel2) == Sentinel2().identity(before.sentinel2)
    other = later(before, monkeypatch, haze=True)
    assert other.hash != before.hash
    assert Sentinel2().identity(other.sentinel2) != Sentinel2().identity(before.sentinel2)


def test_the_neutral_value_survives_being_read_again(season: TinyRegion, monkeypatch: pytest.MonkeyPatch) -> None:
    neutral = later(season.recipe(), monkeypatch, haze=False)
    again = neutral.for_seasons([2023])
    assert again.sentinel2.haze is False  # type: ignore[union-attr]
    assert again.hash == neutral.hash
    read = parse_recipe(neutral.complete(), season.folder, "printed")
    assert read.sentinel2.haze is False  # type: ignore[union-attr]


def test_a_setting_of_how_parcels_are_drawn_is_an_input_of_labels() -> None:
    class Eroded(Parcels):
        erode: Annotated[float, Neutral(0.0)] = 0.0
        """Metres."""

    source, declared = DeclaredParcels(), DeclaredParcels().nothing()
    cell = Cell(EPSG, 240, 2090, 23455)
    block = PlannedBlock(0, 2022, "train", "none", [cell], [cell.outline], {}, "0" * 64)
    plain, neutral, other = (
        source.inputs(settings, declared, [block])
        for settings in (
            Parcels.model_validate(BASES["parcels"]),
            Eroded.model_validate(BASES["parcels"]),
            Eroded.model_validate({**BASES["parcels"], "erode": 5.0}),
        )
    )
    assert plain == neutral
    assert plain != other


def test_a_half_built_store_goes_on_as_it_was_planned(
    season: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, recipe = tmp_path / "store", season.recipe()
    build_store(recipe, store, workers=1)
    planned = json.loads((store / ".build/plan/2022/plan.json").read_text())["recipe"]
    first = read_index(store, "blocks")
    (store / ".build/2022/000001.json").unlink()
    assembled: list[bool] = []
    assemble = Sentinel2.assemble

    def noting(self: Sentinel2, task: Any, *rest: Any) -> Any:
        assembled.append(task.settings.haze)
        return assemble(self, task, *rest)

    monkeypatch.setattr(Sentinel2, "assemble", noting)
    # The default of the later version is not what the store was planned with.
    asked = later(recipe, monkeypatch, haze=False)
    assert later(recipe, monkeypatch).sentinel2.haze is True  # type: ignore[union-attr]
    report = build_store(asked, store, workers=1)
    assert (report.built, assembled) == (1, [False])
    assert json.loads((store / ".build/plan/2022/plan.json").read_text())["recipe"] == planned
    assert read_index(store, "blocks").equals(first)


def test_a_plan_of_an_older_version_keeps_its_text(season: TinyRegion, tmp_path: Path) -> None:
    """A setting of today without a neutral value, which a plan does not have, is not written into it afterwards."""
    document = season.recipe().as_written()
    del document["sentinel2"]["max_cloud_cover"]
    kept = parse_recipe(document, tmp_path, "plan", stored=True)
    assert kept.as_written() == document
    assert kept.hash == parse_recipe(document, tmp_path, "plan", stored=True).hash
    assert kept.sentinel2 is not None
    assert kept.sentinel2.max_cloud_cover == 100


#: Another value of every setting of the sources that come with h2crop, by section; a setting that is added here must be
#: decided upon: part of the input hash, or on the source's list of those that change no pixel.
OTHERS: dict[str, dict[str, Any]] = {
    "EnmapSettings": {
        "catalog": "other.json",
        "collection": "OTHER",
        "months": [7],
        "max_quality": 2,
        "min_sun_elevation": 10.0,
        "max_cloud_cover": 50.0,
        "bands": {"exclude_nm": [], "keep_nm": [[400.0, 2500.0]], "count": 224},
        "flagged": ["cloud"],
        "max_flagged_share": 0.5,
        "cloud_layer": "optional",
        "mask": "apply",
        "coregistration": "report",
        "coregistration_limit": 2.0,
        "unmatched": "datatake",
    },
    "EnmapBands": {"exclude_nm": [], "keep_nm": [[400.0, 2500.0]], "count": 224},
    "Sentinel2Settings": {
        "catalog": "other.json",
        "collection": "other",
        "bands": ["B02"],
        "offset": -1000,
        "max_cloud_cover": 50.0,
        "clouds": {"clear": [4, 5, 6, 7]},
        "alignment": "report",
        "alignment_limit": 6.0,
        "composite": None,
        "resampling": "cubic",
        "gaps": "record",
        "memory": 3.0,
        "max_missing_acquisitions": 1,
        "connections": 4,
    },
    "Clouds": {
        "method": "scl+ukis",
        "clear": [4, 5, 6, 7],
        "dilation": 100.0,
        "cast_shadows": False,
        "second_look": False,
        "l1c": {"catalog": "l1c.json"},
        "missing": "skip",
    },
    "Parcels": {
        "season": [{"path": "b.gpkg", "country": "fr", "code_field": "B"}],
        "prior": None,
        "min_labelled_share": 0.5,
    },
}
#: Settings that have one possible value today.
SINGLE = {("Sentinel2Settings", "composite")}
BASES: dict[str, dict[str, Any]] = {
    "enmap": {"catalog": "a.json"},
    "sentinel2": {"catalog": "a.json"},
    "parcels": {"season": [{"path": "a.gpkg", "country": "fr", "code_field": "A"}]},
}


def settings_below(
    section: type[Section], place: tuple[str, ...] = ()
) -> Iterator[tuple[type[Section], tuple[str, ...]]]:
    """Every setting of a section and of the sections in it, with its place."""
    for name, info in section.model_fields.items():
        yield section, (*place, name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from settings_below(info.annotation, (*place, name))


CASES = [(source, section, place) for source in BUILT_IN for section, place in settings_below(source.settings)]


@pytest.mark.parametrize(
    ("source", "section", "place"), CASES, ids=[f"{one.name}.{'.'.join(at)}" for one, _, at in CASES]
)
def test_every_setting_changes_the_identity_or_is_on_the_list(
    source: Source, section: type[Section], place: tuple[str, ...]
) -> None:
    if (section.__name__, place[-1]) in SINGLE:
        assert place[0] not in source.not_identity
        return
    base = source.settings.model_validate(BASES[source.name])
    changed = json.loads(base.model_dump_json())
    inside = changed
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = OTHERS[section.__name__][place[-1]]
    other = source.settings.model_validate(changed)
    assert other != base
    left_out = {".".join(place[: depth + 1]) for depth in range(len(place))} & source.not_identity
    assert (source.identity(other) == source.identity(base)) is bool(left_out)


def test_the_list_names_settings_there_are() -> None:
    for source in BUILT_IN:
        assert source.not_identity <= {".".join(place) for _, place in settings_below(source.settings)}
