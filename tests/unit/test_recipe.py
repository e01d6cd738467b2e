"""Recipes: the shipped one says what it should; a wrong one is refused with the place, the value and the way out."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from h2crop_data.cli import recipe as recipe_verbs
from h2crop_data.constants import ENMAP_FLAGS, SENTINEL2_BANDS
from h2crop_data.errors import RecipeError
from h2crop_data.recipe.catalogs import catalogs_in_order
from h2crop_data.recipe.model import Recipe, load_recipe, parse_recipe, shipped_recipes

FRANCE = "h2crop-france.yaml"
SECTIONS = {
    *("Area", "EnmapSettings", "EnmapBands", "Sentinel2Settings", "Clouds", "L1cSource", "Parcels"),
    *("ParcelSource", "CropTable", "TaxonomySettings", "Split", "StoreOptions", "CatalogChoice"),
}

Document = dict[str, Any]


@pytest.fixture
def france() -> Document:
    """The shipped recipe of France as plain data, to be spoiled."""
    document = yaml.safe_load(shipped_recipes()[FRANCE].read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def put(document: Document, path: str, value: Any) -> Document:
    """A copy of a document with a value at `parcels/season/0/table`."""
    changed = copy.deepcopy(document)
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("/"))
    inner: Any = changed
    for step in steps:
        inner = inner[step]
    inner[last] = value
    return changed


def refusal(document: Document) -> list[str]:
    """The lines a wrong recipe is refused with, the first of which names the recipe."""
    with pytest.raises(RecipeError) as raised:
        parse_recipe(document, Path("/"), "wrong.yaml")
    first, *lines = str(raised.value).splitlines()
    assert first.startswith("wrong.yaml: the recipe is wrong in ")
    return [line.strip() for line in lines]


# The shipped recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_by_name_and_by_path(name: str) -> None:
    assert load_recipe(name) == load_recipe(shipped_recipes()[name])


def test_france_takes_the_scenes_of_the_published_dataset() -> None:
    recipe = load_recipe(FRANCE)
    assert recipe.seasons == [2022, 2023]
    assert recipe.cell_size == 1920
    enmap = recipe.enmap
    assert enmap is not None
    assert enmap.catalog == "https://geoservice.dlr.de/eoc/ogc/stac/v1/"
    assert enmap.collection == "ENMAP_HSI_L2A"
    assert enmap.months == [5, 6, 7]
    assert enmap.max_quality == 1
    assert enmap.min_sun_elevation == 30
    assert enmap.max_cloud_cover == 20
    assert enmap.bands.count == 218
    assert enmap.bands.exclude_nm == [(1325, 1395)]
    assert enmap.max_flagged_share == 0.05
    assert enmap.flagged == ["cloud", "cloud_shadow", "haze", "cirrus_medium", "cirrus_thick", "snow"]
    assert enmap.flag_mask == 4 + 8 + 16 + 64 + 128 + 256
    sentinel2 = recipe.sentinel2
    assert sentinel2 is not None
    assert sentinel2.collection == "sentinel-2-c1-l2a"
    assert sentinel2.bands == ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
    assert sentinel2.clouds.clear == [4, 5, 6]
    assert sentinel2.offset == "auto"
    assert sentinel2.gaps == "fail"


def test_france_takes_its_crops_from_the_season_and_the_year_before() -> None:
    parcels = load_recipe(FRANCE).parcels
    assert parcels is not None
    (source,) = parcels.season
    assert source.country == "fr"
    assert source.code_field.lower() == "code_cultu"
    assert "{year}" in source.path
    assert "rpg" in source.path.lower()
    assert source.years is None
    assert parcels.prior == "same"
    assert parcels.min_labelled_share == 0.10


def test_france_is_split_in_squares_of_eight_cells_by_the_published_shares() -> None:
    recipe = load_recipe(FRANCE)
    assert recipe.split.square_size == 15_360 == 8 * recipe.cell_size
    assert recipe.split.shares == {"train": 0.735, "val": 0.129, "test": 0.136}
    for name, samples in {"train": 12_016, "val": 2_112, "test": 2_216}.items():
        assert recipe.split.shares[name] == pytest.approx(samples / 16_344, abs=5e-4)  # type: ignore[index]


def test_france_states_every_threshold_itself(france: Document) -> None:
    # A default that changes must not change what the shipped recipe builds.
    for section, model in (("enmap", "EnmapSettings"), ("sentinel2", "Sentinel2Settings"), ("parcels", "Parcels")):
        assert set(france[section]) == set(Recipe.model_json_schema()["$defs"][model]["properties"])
    assert set(france) == set(Recipe.model_fields)
    for section in ("split", "store", "taxonomy"):
        assert set(france[section]) == set(Recipe.model_fields[section].annotation.model_fields)  # type: ignore[union-attr]


def test_the_next_season_is_the_same_recipe_for_another_year() -> None:
    recipe = load_recipe(FRANCE)
    later = recipe.for_seasons([2024])
    assert later.seasons == [2024]
    assert {**later.as_written(), "seasons": None} == {**recipe.as_written(), "seasons": None}
    assert later.hash == recipe.hash
    assert later.locate("parcels.gpkg") == recipe.locate("parcels.gpkg")
    assert recipe.seasons == [2022, 2023]


@pytest.mark.parametrize(
    ("seasons", "place"), [([1234], "seasons[0]: 1234"), ([], "seasons"), ([2024, 2024], "each year once")]
)
def test_seasons_that_cannot_be_are_refused(seasons: list[int], place: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load_recipe(FRANCE).for_seasons(seasons)
    assert "--season" in str(raised.value)
    assert place in str(raised.value)


# What is refused


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("seasns", "seasons"),
        ("Name", "name"),
        ("enmap/max_cloudcover", "max_cloud_cover"),
        ("enmap/max-cloud-cover", "max_cloud_cover"),
        ("enmap/bands/exclude", "exclude_nm"),
        ("sentinel2/clouds/metod", "method"),  # codespell:ignore
        ("parcels/season/0/code_fild", "code_field"),
        ("split/seeds", "seed"),
        ("store/codecs", "codec"),
    ],
)
def test_an_unknown_key_is_refused_with_its_place_the_nearest_key_and_all_that_are_allowed(
    france: Document, path: str, near: str
) -> None:
    (line,) = refusal(put(france, path, 1))
    written = path.replace("/0", "[0]").replace("/", ".")
    assert line.startswith(f"{written}: unknown key; did you mean {near}? Allowed: ")
    section = Recipe.model_json_schema()
    for step in [step for step in path.split("/")[:-1] if not step.isdigit()]:
        kinds = json.dumps(section["properties"][step])
        (name,) = (name for name in SECTIONS if f"$defs/{name}" + '"' in kinds)
        section = Recipe.model_json_schema()["$defs"][name]
    assert line.split("Allowed: ")[1].split(", ") == list(section["properties"])


def test_a_key_like_no_other_gets_no_guess(france: Document) -> None:
    (line,) = refusal(put(france, "parcels/season/0/zzz", 1))
    assert line.startswith("parcels.season[0].zzz: unknown key Allowed: path, country, code_field")


@pytest.mark.parametrize(
    ("path", "value", "starts", "says"),
    [
        ("cell_size", 1000, "cell_size: 1000:", "multiple of 60"),
        ("cell_size", "big", 'cell_size: "big":', "integer"),
        ("name", "My Recipe", 'name: "My Recipe":', "^[a-z0-9]"),
        ("seasons/1", "x", 'seasons[1]: "x":', "integer"),
        ("area/bbox", [5, 41, 4, 51], "area:", "west < east"),
        ("area/bbox", [5, 41, 4], "area.bbox[3]:", "required"),
        ("area/bbox/2", float("inf"), "area.bbox[2]: Infinity:", "finite"),
        ("area/crs", "EPSG:1", "area.crs:", "invalid CRS 'EPSG:1'"),
        ("area/cells", "all", 'area.cells: "all":', "'centre', 'inside' or 'touching'"),
        ("area/file", "x.gpkg", "area:", "exactly one of bbox, geojson, file (given: bbox, file)"),
        ("enmap", "nothing", 'enmap: "nothing":', "dictionary"),
        ("enmap/months/1", 13, "enmap.months[1]: 13:", "less than or equal to 12"),
        ("enmap/max_quality", 3, "enmap.max_quality: 3:", "0, 1 or 2"),
        ("enmap/min_sun_elevation", float("nan"), "enmap.min_sun_elevation: NaN:", ""),
        ("enmap/max_flagged_share", 5, "enmap.max_flagged_share: 5:", "less than or equal to 1"),
        ("enmap/flagged/0", "clouds", "enmap:", "unknown quality flag clouds"),
        ("enmap/bands/exclude_nm/0", [1, 2, 3], "enmap.bands.exclude_nm[0]: [1, 2, 3]:", "2 items"),
        ("enmap/bands/exclude_nm/0/1", "x", 'enmap.bands.exclude_nm[0][1]: "x":', "number"),
        ("sentinel2/bands/1", "B99", 'sentinel2.bands[1]: "B99":', "'B02', 'B03'"),
        ("sentinel2/bands", ["B02", "B02"], "sentinel2:", "each band once"),
        ("sentinel2/offset", 1000, "sentinel2.offset: 1000:", "'auto', 0 or -1000"),
        ("sentinel2/clouds/clear/2", 12, "sentinel2.clouds.clear[2]: 12:", "less than or equal to 11"),
        ("parcels/season/0/country", "FR", 'parcels.season[0].country: "FR":', "^[a-z]{2}"),
        ("parcels/season/0/crs", "Lambert", "parcels.season[0].crs:", "invalid CRS 'Lambert'"),
        ("parcels/season/0/years", [2022, "x"], 'parcels.season[0].years[1]: "x":', "integer"),
        ("parcels/season/0/table", {"path": "x.csv", "code": 1}, "parcels.season[0].table.code:", "code_column"),
        ("parcels/season", {"path": "x"}, "parcels.season:", "list"),
        ("parcels/season", [], "parcels.season: []:", "at least 1"),
        ("parcels/prior", [{"path": "x", "country": "F", "code_field": "c"}], "parcels.prior[0].country:", '"F"'),
        ("parcels/prior", [{"path": "x", "country": "fr"}], "parcels.prior[0].code_field:", "required"),
        ("split/shares", {"train": 0.5, "val": 0.1, "test": 0.1}, "split:", "add up to 1, got 0.7"),
        ("split/shares", {"train": 0.5, "trial": 0.5}, "split.shares.trial:", "'train', 'val' or 'test'"),
        ("store/level", 10, "store.level: 10:", "less than or equal to 9"),
        ("taxonomy", {"version": 1.5}, "taxonomy.version: 1.5:", "string"),
        ("enmap/catalog", None, "enmap.catalog: null:", "string"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_the_value_and_what_is_allowed(
    france: Document, path: str, value: Any, starts: str, says: str
) -> None:
    (line,) = refusal(put(france, path, value))
    assert line.startswith(starts)
    assert says in line


def test_a_value_that_fits_no_allowed_form_names_each_form(france: Document) -> None:
    lines = refusal(put(france, "parcels/prior", "older"))
    assert all(line.startswith('parcels.prior: "older":') for line in lines)
    assert "'same'" in " ".join(lines)
    assert "list" in " ".join(lines)


def test_everything_wrong_is_reported_at_once(france: Document) -> None:
    wrong = put(put(put(france, "cell_size", 7), "enmap/months/0", 0), "parcels/season/0/code_feld", "x")
    del wrong["area"]
    with pytest.raises(RecipeError, match="wrong in 4 place") as raised:
        parse_recipe(wrong, Path("/"), "wrong.yaml")
    places = [line.strip().split(": ")[0] for line in str(raised.value).splitlines()[1:]]
    assert sorted(places) == ["area", "cell_size", "enmap.months[0]", "parcels.season[0].code_feld"]


@pytest.mark.parametrize(
    ("geojson", "says"),
    [
        ({"type": "Point", "coordinates": [1, 2]}, "expected a polygon, got Point"),
        ({"type": "Polygon"}, "not a valid GeoJSON polygon"),
        ({"coordinates": []}, "not a valid GeoJSON polygon"),
        ({"type": "FeatureCollection", "features": []}, "no polygon"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}, "Self-intersection"),
    ],
)
def test_geojson_that_is_no_area_is_refused(france: Document, geojson: Document, says: str) -> None:
    (line,) = refusal({**france, "area": {"geojson": geojson}})
    assert line.startswith("area: ")
    assert says in line


def test_geojson_of_several_features_is_one_area(france: Document) -> None:
    ring = [[5, 45], [6, 45], [6, 46], [5, 46], [5, 45]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    features = [{"type": "Feature", "properties": {}, "geometry": polygon}] * 2
    document = {**france, "area": {"geojson": {"type": "FeatureCollection", "features": features}}}
    assert parse_recipe(document, Path("/"), "x").area.geojson == document["area"]["geojson"]


# Sources that are left out


@pytest.mark.parametrize("source", ["enmap", "sentinel2", "parcels"])
@pytest.mark.parametrize("word", ["none", None])
def test_a_source_may_be_none(france: Document, source: str, word: str | None) -> None:
    recipe = parse_recipe(put(france, source, word), Path("/"), "x")
    assert getattr(recipe, source) is None
    without = {key: value for key, value in france.items() if key != source}
    assert parse_recipe(without, Path("/"), "x") == recipe


def test_the_prior_may_be_none(france: Document) -> None:
    recipe = parse_recipe(put(france, "parcels/prior", "none"), Path("/"), "x")
    assert recipe.parcels is not None
    assert recipe.parcels.prior is None


def test_a_recipe_without_any_source_is_refused(france: Document) -> None:
    (line,) = refusal({**france, "enmap": "none", "sentinel2": "none", "parcels": "none"})
    assert line == "recipe: expected at least one of enmap, sentinel2, parcels"


# One year a file


def declared(seasons: list[int], prior: Any = "same", **source: Any) -> Document:
    """A recipe of parcels alone, whose path has no `{year}` unless one is given."""
    declarations = [{"path": "fr.gpkg", "country": "fr", "code_field": "CODE", **source}]
    area = {"bbox": [3, 46, 4, 47]}
    return {"name": "x", "area": area, "seasons": seasons, "parcels": {"season": declarations, "prior": prior}}


def file_of(path: str = "fr.gpkg", **source: Any) -> list[Document]:
    """A source of parcels of the year before."""
    return [{"path": path, "country": "fr", "code_field": "CODE", **source}]


def test_one_file_is_not_both_the_season_and_its_prior() -> None:
    for prior in ("same", file_of(), file_of(code_field="code")):
        (line,) = refusal(declared([2022], prior))
        assert line.startswith(
            'parcels.season[0].path: "fr.gpkg" would be read for 2021 and 2022: every prior would equal'
        )
        for remedy in ("write `{year}` into the path", "(`years: [2022]`)", "choose `prior: none`"):
            assert remedy in line


def test_one_file_is_not_the_season_of_several_years() -> None:
    for prior in ("none", file_of("before_{year}.gpkg")):
        (line,) = refusal(declared([2022, 2023], prior))
        assert line.startswith('parcels.season[0].path: "fr.gpkg" would be read for 2022 and 2023:')
        assert "prior: none" not in line
    (line,) = refusal(declared([2022, 2023], file_of("before.gpkg"), path="fr_{year}.gpkg"))
    assert line.startswith('parcels.prior[0].path: "before.gpkg" would be read for 2021 and 2022:')


@pytest.mark.parametrize(
    "document",
    [
        declared([2022], path="fr_{year}.gpkg"),
        declared([2022], "none"),
        declared([2022], years=[2022]),
        # The file of 2022 is the labels of 2022 and the priors of 2023.
        declared([2022, 2023], years=[2022]),
        declared([2022], file_of("before.gpkg")),
        # Several years side by side: in the fields or the layers of one file.
        declared([2022], file_of(code_field="CODE_2021")),
        declared([2022], file_of(layer="y2021"), layer="y2022"),
    ],
)
def test_a_file_of_one_year_needs_no_year_in_its_path(document: Document) -> None:
    assert parse_recipe(document, Path("/"), "x").parcels is not None


def test_another_season_does_not_take_the_file_of_the_recipes_own() -> None:
    recipe = parse_recipe(declared([2022], "none"), Path("/"), "x")
    with pytest.raises(RecipeError, match="would be read for 2022 and 2023"):
        recipe.for_seasons([2023])
    assert recipe.for_seasons([2022]) == recipe


def test_the_recipe_of_a_store_is_read_as_it_was_built() -> None:
    # Such stores were built before this was asked; they are looked at, relabelled and kept all the same.
    assert parse_recipe(declared([2022]), Path("/"), "x", stored=True).parcels is not None


# Paths


def test_paths_start_from_the_folder_of_the_recipe(tmp_path: Path, france: Document) -> None:
    file = tmp_path / "inner" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(france))
    recipe = load_recipe(file)
    assert recipe.locate("parcels.gpkg") == tmp_path / "inner" / "parcels.gpkg"
    assert recipe.locate("../parcels.gpkg") == tmp_path / "parcels.gpkg"
    assert recipe.locate(f"{tmp_path}/other.gpkg") == tmp_path / "other.gpkg"
    assert recipe.locate_catalog("items.json") == str(tmp_path / "inner" / "items.json")
    assert recipe.locate_catalog("https://example.org/stac") == "https://example.org/stac"
    assert recipe.for_seasons([2024]).locate("parcels.gpkg") == tmp_path / "inner" / "parcels.gpkg"


def test_environment_variables_stand_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2CROP_DATA", str(tmp_path))
    monkeypatch.setenv("EDITION", "v2")
    recipe = load_recipe(FRANCE)
    assert recipe.parcels is not None
    path = recipe.parcels.season[0].path.replace("{year}", "2022")
    assert recipe.locate(path) == tmp_path / "rpg" / "RPG_2022.gpkg"
    assert recipe.locate("${H2CROP_DATA}/${EDITION}/a.gpkg") == tmp_path / "v2" / "a.gpkg"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert recipe.locate("~/a.gpkg") == tmp_path / "home" / "a.gpkg"


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("H2CROP_DATA", raising=False)
    recipe = load_recipe(FRANCE)
    with pytest.raises(RecipeError, match="H2CROP_DATA is not set"):
        recipe.locate("${H2CROP_DATA}/a.gpkg")


# The hash


def test_the_hash_does_not_know_folder_seasons_or_the_order_of_keys(tmp_path: Path, france: Document) -> None:
    recipe = load_recipe(FRANCE)
    backwards = {key: france[key] for key in reversed(france)}
    backwards["split"] = {**france["split"], "shares": dict(reversed(france["split"]["shares"].items()))}
    moved = parse_recipe({**backwards, "seasons": [1999]}, tmp_path, "x")
    assert moved.hash == recipe.hash
    assert len(recipe.hash) == 64
    # One hash is one recipe: the order of the shares must not draw other splits either.
    squares = [(column, row) for column in range(20) for row in range(20)]
    assert [moved.split.split_of(square) for square in squares] == [recipe.split.split_of(square) for square in squares]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of a document with its path."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}/{key}" if path else str(key))
    else:
        yield path, value


def test_the_hash_knows_everything_else(france: Document) -> None:
    other = {
        "area/cells": "inside",
        "enmap/max_quality": 2,
        "sentinel2/bands/0": None,
        "sentinel2/clouds/method": None,
        "sentinel2/composite": None,
        "sentinel2/alignment": "report",
        "sentinel2/offset": 0,
        "sentinel2/resampling": "cubic",
        "sentinel2/gaps": "record",
        "sentinel2/max_missing_acquisitions": 1,
        "parcels/prior": "none",
        "parcels/season/0/country": "at",
        "store/codec": "zstd",
        "split/method": "hash",
        "split/lists": None,
        "split/shares/train": None,
        "split/shares/val": None,
        "split/shares/test": None,
        "cell_size": 960,
        "enmap/flagged/0": "water",
        "enmap/cloud_layer": "optional",
        "enmap/mask": "apply",
        "enmap/coregistration": "report",
        "enmap/unmatched": "refuse",
    }
    first = load_recipe(FRANCE).hash
    hashes = {first}
    tried = 0
    for path, value in leaves(france):
        if path.startswith(("seasons", "enmap/flagged/")) and path not in other:
            continue
        if path.startswith("sentinel2/bands") or (path in other and other[path] is None):
            continue  # only one value is allowed, or values that belong together: below
        changed = other.get(path, value + "x" if isinstance(value, str) else value + 1)
        if path in ("enmap/max_flagged_share", "parcels/min_labelled_share"):
            changed = 0.5
        hashes.add(parse_recipe(put(france, path, changed), Path("/"), "x").hash)
        tried += 1
    assert tried >= 30
    hashes.add(parse_recipe(put(france, "sentinel2/bands", ["B04", "B03"]), Path("/"), "x").hash)
    hashes.add(parse_recipe(put(france, "sentinel2/bands", ["B03", "B04"]), Path("/"), "x").hash)
    hashes.add(parse_recipe(put(france, "split/shares", {"train": 1}), Path("/"), "x").hash)
    assert len(hashes) == tried + 4


# The schema


def test_the_schema_describes_every_field() -> None:
    schema = Recipe.model_json_schema()
    assert set(schema["$defs"]) == SECTIONS
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False
        assert section["description"]
        for name, field in section["properties"].items():
            assert len(field.get("description", "")) >= 5, f"{section['title']}.{name} has no description"


def test_the_schema_takes_what_recipes_say(france: Document) -> None:
    schema = Recipe.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in shipped_recipes().values():
        validator.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    for path in ("enmap", "sentinel2", "parcels", "parcels/prior"):
        validator.validate(put(france, path, "none"))
        validator.validate(put(france, path, None))
    for path, value in (("seasns", 1), ("cell_size", 1000), ("enmap", "nothing"), ("sentinel2/bands/0", "B99")):
        assert not validator.is_valid(put(france, path, value))


def test_flags_and_bands_of_recipes_are_those_of_the_store(france: Document) -> None:
    every_flag = parse_recipe(put(france, "enmap/flagged", list(ENMAP_FLAGS)), Path("/"), "x")
    assert every_flag.enmap is not None
    assert every_flag.enmap.flag_mask == 2 ** len(ENMAP_FLAGS) - 1
    bands = Recipe.model_json_schema()["$defs"]["Sentinel2Settings"]["properties"]["bands"]
    assert tuple(bands["items"]["enum"]) == SENTINEL2_BANDS


# Files


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name: [unclosed", "not valid YAML"),
        (b"- a\n- b\n", "mapping of keys, got list"),
        (b"", "mapping of keys, got NoneType"),
        (b"name: caf\xe9", "cannot read the recipe"),  # codespell:ignore
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=says) as raised:
        load_recipe(file)
    assert str(file) in str(raised.value)


def test_a_missing_recipe_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=FRANCE) as raised:
        load_recipe(tmp_path / "mine.yaml")
    assert str(tmp_path / "mine.yaml") in str(raised.value)


# The command line


def test_the_schema_verb_prints_the_schema() -> None:
    result = CliRunner().invoke(recipe_verbs.app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == Recipe.model_json_schema()


def test_the_check_verb_names_what_the_recipe_builds() -> None:
    result = CliRunner().invoke(recipe_verbs.app, ["check", FRANCE])
    assert result.exit_code == 0
    for word in ("valid", "h2crop-france", "2022, 2023", "enmap + sentinel2 + parcels"):
        assert word in result.stderr.replace("\n", " ")
    assert result.stdout == ""


def test_the_check_verb_prints_the_whole_recipe_for_scripts(tmp_path: Path) -> None:
    file = tmp_path / "least.yaml"
    file.write_text(
        "name: least\narea: {bbox: [5, 45, 6, 46]}\nseasons: [2022]\n"
        "sentinel2: {catalog: 'https://example.org/stac'}\nparcels: none\n"
    )
    result = CliRunner().invoke(recipe_verbs.app, ["check", str(file), "--json"])
    assert result.exit_code == 0
    whole = json.loads(result.stdout)
    assert whole["sentinel2"]["bands"] == list(SENTINEL2_BANDS)
    assert whole["parcels"] is None
    assert parse_recipe(whole, tmp_path, "x") == load_recipe(file)


@pytest.mark.slow
def test_a_wrong_recipe_ends_the_command_with_exit_code_2_and_its_place(tmp_path: Path, france: Document) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(put(put(france, "enmap/months/1", 13), "name", "[bold]x[/]")))
    command = "from h2crop_data.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", command, "recipe", "check", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "NO_COLOR": "1", "COLUMNS": "80"},
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    # Brackets are part of the message, not markup.
    for text in (str(file), "enmap.months[1]: 13: ", 'name: "[bold]x[/]": ', "'^[a-z0-9][a-z0-9_.-]*$'"):
        assert text in result.stderr


def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\narea: {bbox: [0, 1, 2, 3]}\nseasons: [2022]\narea: {bbox: [4, 5, 6, 7]}\n", "utf-8")
    with pytest.raises(RecipeError, match=r"(?s)duplicate key 'area'.*line 4"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"cell_size": "240"}, "cell_size"),
        ({"cell_size": 240.5}, "cell_size"),
        ({"seasons": ["2022"]}, r"seasons\[0\]"),
        ({"store": {"level": True}}, "store.level"),
        ({"split": {"seed": "1"}}, "split.seed"),
    ],
)
def test_a_value_of_another_type_is_refused_not_converted(change: dict[str, Any], place: str) -> None:
    sentinel2 = {"catalog": "items.json"}
    document = {"name": "a", "area": {"bbox": [0, 1, 2, 3]}, "seasons": [2022], "sentinel2": sentinel2}
    parse_recipe(document, Path(), "fits")
    with pytest.raises(RecipeError, match=f"(?m)^  {place}: "):
        parse_recipe({**document, **change}, Path(), "does not")


class TestCatalogs:
    """One catalog, or several in order."""

    @staticmethod
    def recipe_of(catalog: Any, folder: Path, **context: Any) -> Recipe:
        document = {"name": "a", "area": {"bbox": [1, 1, 2, 2]}, "seasons": [2022], "sentinel2": {"catalog": catalog}}
        return parse_recipe(document, folder, "a.yaml", **context)

    def test_one_stays_as_it_was_written(self, tmp_path: Path) -> None:
        recipe = self.recipe_of("https://a.example/v1", tmp_path)
        assert recipe.as_written()["sentinel2"]["catalog"] == "https://a.example/v1"
        document = {"name": "x", "area": {"bbox": [1, 48, 1.1, 48.1]}, "seasons": [2022]}
        document["sentinel2"] = {"catalog": "https://a.example/v1"}
        # As it was hashed before recipes could name several.
        assert parse_recipe(document, tmp_path, "x").hash.startswith("44559934e93279ab")

    def test_several_are_in_order_each_with_its_collection(self, tmp_path: Path) -> None:
        entries = ["earth-search", {"catalog": "mine/items.json"}, {"catalog": "copernicus", "collection": "other"}]
        recipe = self.recipe_of(entries, tmp_path)
        assert recipe.sentinel2 is not None
        places = catalogs_in_order(recipe.sentinel2, recipe.locate_catalog)
        assert [(one.name, one.place, one.collection) for one in places] == [
            ("earth-search", "https://earth-search.aws.element84.com/v1", "sentinel-2-l2a"),
            ("mine/items.json", str(tmp_path / "mine/items.json"), "sentinel-2-l2a"),
            ("copernicus", "https://stac.dataspace.copernicus.eu/v1", "other"),
        ]
        assert recipe.as_written()["sentinel2"]["catalog"] == entries
        again = parse_recipe(recipe.complete(), tmp_path, "again")
        assert again.hash == recipe.hash
        assert again.sentinel2 == recipe.sentinel2

    @pytest.mark.parametrize(
        ("catalog", "said"),
        [
            ([], "sentinel2.catalog: []:"),
            ("", 'sentinel2.catalog: "":'),
            (["a", 3], "sentinel2.catalog[1]: 3:"),
            ([{"collection": "x"}], "sentinel2.catalog[0].catalog: Field required"),
            ([{"catalog": "a", "colection": "x"}], "did you mean collection?"),  # codespell:ignore
        ],
    )
    def test_what_is_wrong_is_told_by_its_place(self, catalog: Any, said: str, tmp_path: Path) -> None:
        with pytest.raises(RecipeError) as caught:
            self.recipe_of(catalog, tmp_path)
        assert said in str(caught.value)
        assert "in 1 place" in str(caught.value)

    @pytest.mark.parametrize(
        "address",
        [
            "https://me:planted@a.example/v1",
            "https://a.example/v1?apikey=planted",
            "https://a.example/v1?X-Amz-Signature=planted",
        ],
    )
    @pytest.mark.parametrize("form", [lambda one: one, lambda one: [one], lambda one: [{"catalog": one}]])
    def test_an_account_does_not_belong_into_a_recipe(self, address: str, form: Any, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"~/\.netrc") as caught:
            self.recipe_of(form(address), tmp_path)
        assert "planted" not in str(caught.getrepr(style="native"))
        # Recipes of stores that were planned before this was asked are read.
        assert self.recipe_of(form(address), tmp_path, stored=True)
