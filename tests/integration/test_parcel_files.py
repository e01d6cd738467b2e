"""Files of declarations that cannot be what a recipe takes them for are refused; what was read is told everywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from changed_stores import edit_json
from damaged_files import change_geometry, cut, polygon_wkb, with_wkb, without_triggers
from tiny_region import EAST, EPSG, NORTH, SOUTH, WEST, TinyRegion
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.cube.reading import read_index, read_index_json
from h2crop_data.errors import H2cropError, ParcelError, RecipeError
from h2crop_data.grid import cells_of_area
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.plan import load_plan, save_plan
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.pipeline.source_facts import explain_sources, source_facts
from h2crop_data.pipeline.survey import silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.parcels.declarations import declarations_of
from h2crop_data.sources.parcels.files import season_files
from h2crop_data.sources.parcels.source import DeclaredParcels
from h2crop_data.storage.local import LocalStorage
from h2crop_data.validation.validate import validate_store

Box = tuple[float, float, float, float]
ZONE = f"EPSG:{EPSG}"
#: A field in each of the four cells.
FIELDS: list[tuple[Box, str]] = [
    ((WEST + 10, SOUTH + 20, WEST + 200, SOUTH + 200), "BTH"),
    ((WEST + 250, SOUTH + 30, WEST + 400, SOUTH + 230), "MIS"),
    ((WEST + 20, SOUTH + 260, WEST + 230, SOUTH + 460), "PPH"),
    ((WEST + 260, SOUTH + 260, WEST + 470, SOUTH + 460), "BTH"),
]


def frame(fields: Sequence[tuple[Box, str]] = FIELDS, east: float = 0) -> gpd.GeoDataFrame:
    """Fields as the French register has them, so many metres further to the east."""
    boxes = [shapely.box(west + east, south, west2 + east, north) for (west, south, west2, north), _ in fields]
    columns = {"CODE_CULTU": [code for _, code in fields], "ID_PARCEL": [f"p{i}" for i in range(len(fields))]}
    return gpd.GeoDataFrame(columns, geometry=boxes, crs=ZONE)


def swapped(parcels: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Parcels whose x and y are in each other's place."""
    turned = shapely.transform(parcels.geometry.to_numpy(), lambda corners: corners[:, ::-1])
    return parcels.set_geometry(turned, crs=parcels.crs)


def labelled(parcels: gpd.GeoDataFrame, crs: str) -> gpd.GeoDataFrame:
    """Parcels whose file states another CRS than that of their numbers."""
    return parcels.set_crs(crs, allow_override=True)


def plan(region: TinyRegion, out: Path, *arguments: str) -> Any:
    """`h2crop plan` with the recipe of a region."""
    return CliRunner().invoke(app, ["plan", str(region.folder / "recipe.yaml"), "--out", str(out), *arguments])


def refused(region: TinyRegion, out: Path, kind: type[H2cropError] = ParcelError) -> str:
    """What `h2crop plan` refuses a region with; no plan is left."""
    done = plan(region, out)
    assert done.exit_code != 0
    assert isinstance(done.exception, kind), done.exception
    assert not out.exists()
    return str(done.exception)


@pytest.fixture
def season(region: TinyRegion) -> TinyRegion:
    """A region with a scene, and good parcels of the season and the year before."""
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    frame().to_crs("EPSG:2154").to_file(region.folder / "RPG_2022.gpkg")
    frame([(box, "MIS") for box, _ in FIELDS]).to_crs("EPSG:2154").to_file(region.folder / "RPG_2021.gpkg")
    region.recipe()
    return region


# Where a file lies

LAMBERT = frame().to_crs("EPSG:2154")
DEGREES = frame().to_crs("EPSG:4326")
MISPLACED: dict[str, tuple[gpd.GeoDataFrame, str, tuple[str, ...]]] = {
    "degrees labelled as metres": (
        labelled(DEGREES, "EPSG:2154"),
        "gpkg",
        ("looks like degrees", "EPSG:2154 is metre", "`crs: OGC:CRS84`"),
    ),
    "metres labelled as degrees": (
        labelled(LAMBERT, "EPSG:4326"),
        "gpkg",
        ("looks like metres", "EPSG:4326 is in degrees", "`crs: EPSG:2154`"),
    ),
    "degrees with swapped axes": (swapped(DEGREES), "gpkg", ("axes look swapped", "EPSG:4326")),
    "metres with swapped axes": (swapped(LAMBERT), "gpkg", ("axes look swapped", "EPSG:2154")),
    "another projection": (
        labelled(LAMBERT, "EPSG:3035"),
        "shp",
        ("in EPSG:3035 is far from the cells", "`crs: EPSG:2154`"),
    ),
    "another zone": (labelled(frame(), "EPSG:32632"), "gpkg", ("far from the cells", "`crs: EPSG:32631`")),
    "another region": (frame(east=200_000), "gpkg", ("seems to be of another region", "longitude 5.8")),
    "GeoJSON in metres": (
        labelled(LAMBERT, "OGC:CRS84"),
        "geojson",
        ("looks like metres", "is in degrees", "`crs: EPSG:2154`"),
    ),
    "no features": (LAMBERT.iloc[:0], "gpkg", ("has no parcels",)),
    "no shapes": (LAMBERT.set_geometry([shapely.Polygon()] * 4, crs="EPSG:2154"), "geojson", ("no extent",)),
}


@pytest.mark.parametrize("role", ["season", "prior"])
@pytest.mark.parametrize("kind", MISPLACED)
def test_a_file_that_does_not_lie_where_it_should_is_refused(
    season: TinyRegion, tmp_path: Path, kind: str, role: str
) -> None:
    parcels, ending, words = MISPLACED[kind]
    wrong = season.folder / f"wrong.{ending}"
    parcels.to_file(wrong)
    source = {"country": "fr", "code_field": "CODE_CULTU"}
    good = [{**source, "path": "RPG_{year}.gpkg"}]
    declared = {"season": [{**source, "path": wrong.name}], "prior": good}
    if role == "prior":
        declared = {"season": good, "prior": declared["season"]}
    season.recipe(parcels=declared)
    message = refused(season, tmp_path / "plan")
    assert str(wrong) in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("kind", ["metres labelled as degrees", "another projection", "GeoJSON in metres"])
def test_the_crs_that_a_refusal_names_lets_the_plan_go_on(season: TinyRegion, tmp_path: Path, kind: str) -> None:
    parcels, ending, _ = MISPLACED[kind]
    parcels.to_file(season.folder / f"wrong_2022.{ending}")
    source = {"path": f"wrong_{{year}}.{ending}", "years": [2022], "crs": "EPSG:2154"}
    season.recipe(parcels={"season": [{**source, "country": "fr", "code_field": "CODE_CULTU"}]})
    assert plan(season, tmp_path / "plan").exit_code == 0
    assert load_plan(LocalStorage(tmp_path / "plan"), "2022/").pinned["parcels"].parcels.counts["parcels"] == len(
        FIELDS
    )


def test_a_file_whose_stated_extent_is_out_of_date_is_taken(season: TinyRegion, tmp_path: Path) -> None:
    with without_triggers(season.folder / "RPG_2022.gpkg") as database:
        database.execute("UPDATE gpkg_contents SET min_x = 0, min_y = 0, max_x = 1, max_y = 1")
    assert plan(season, tmp_path / "plan").exit_code == 0
    assert load_plan(LocalStorage(tmp_path / "plan"), "2022/").pinned["parcels"].parcels.counts["parcels"] == len(
        FIELDS
    )


def two_sources(season: TinyRegion, other: gpd.GeoDataFrame) -> Recipe:
    """A recipe with the good parcels and those of another country."""
    other.to_file(season.folder / "OTHER_2022.gpkg")
    source = {"country": "fr", "code_field": "CODE_CULTU", "years": [2022]}
    paths = ("RPG_{year}.gpkg", "OTHER_{year}.gpkg")
    return season.recipe(parcels={"season": [{**source, "path": path} for path in paths]})


def test_of_several_files_one_may_lie_elsewhere_and_is_told(season: TinyRegion, tmp_path: Path) -> None:
    two_sources(season, frame(east=200_000))
    done = plan(season, tmp_path / "plan")
    assert done.exit_code == 0
    assert "warning: parcels: OTHER_2022.gpkg: it covers longitude" in done.stderr
    facts = source_facts(load_plan(LocalStorage(tmp_path / "plan"), "2022/"))
    assert len(facts["warnings"]) == 1
    assert facts["parcels"]["counts"]["parcels"] == len(FIELDS)


def test_of_several_files_none_may_contradict_its_crs(season: TinyRegion, tmp_path: Path) -> None:
    two_sources(season, labelled(DEGREES, "EPSG:2154"))
    assert "looks like degrees" in refused(season, tmp_path / "plan")


def test_of_several_files_one_must_lie_on_the_cells(season: TinyRegion, tmp_path: Path) -> None:
    recipe = two_sources(season, frame(east=200_000))
    frame(east=100_000).to_file(season.folder / "RPG_2022.gpkg")
    assert recipe.seasons == [2022]
    message = refused(season, tmp_path / "plan")
    assert message.count("another region") == 2


# Files that say nothing of the cells


def test_a_season_or_prior_without_a_parcel_on_the_cells_is_refused(season: TinyRegion, tmp_path: Path) -> None:
    around = [((WEST - 400, SOUTH, WEST - 300, NORTH), "BTH"), ((EAST + 300, SOUTH, EAST + 400, NORTH), "MIS")]
    for year in (2022, 2021):
        kept = (season.folder / f"RPG_{year}.gpkg").read_bytes()
        frame(around).to_file(season.folder / f"RPG_{year}.gpkg")
        message = refused(season, tmp_path / "plan")
        assert message.startswith(f"{year}: no parcel of {season.folder / f'RPG_{year}.gpkg'} lies on the cells")
        (season.folder / f"RPG_{year}.gpkg").write_bytes(kept)
    assert plan(season, tmp_path / "plan").exit_code == 0


def test_a_year_without_a_source_stays_unknown(season: TinyRegion, tmp_path: Path) -> None:
    (season.folder / "RPG_2021.gpkg").unlink()
    season.recipe()
    assert plan(season, tmp_path / "plan").exit_code == 0
    found = load_plan(LocalStorage(tmp_path / "plan"), "2022/").pinned["parcels"].prior
    assert (len(found.parcels), found.counts) == (0, {})


def test_a_season_or_prior_without_a_known_code_is_refused_and_names_its_codes(
    season: TinyRegion, tmp_path: Path
) -> None:
    for year in (2022, 2021):
        kept = (season.folder / f"RPG_{year}.gpkg").read_bytes()
        frame([(box, code) for (box, _), code in zip(FIELDS, ("X1", "X2", "X1", None), strict=True)]).to_file(  # type: ignore[list-item]
            season.folder / f"RPG_{year}.gpkg"
        )
        message = refused(season, tmp_path / "plan")
        assert message.startswith(f"{year}: none of 4 parcel(s) of ")
        assert "X1 (2), " in message
        assert "no code (1)" in message
        assert "`code_field`" in message
        (season.folder / f"RPG_{year}.gpkg").write_bytes(kept)


def test_lost_leading_zeros_are_told(season: TinyRegion, tmp_path: Path) -> None:
    (season.folder / "mine.csv").write_text("code,hcat3\n0110,3301010101\n020,3302000000\n")
    for year, codes in ((2022, ("110", "110", "020", "77")), (2021, ("110", "20", "00110", "20"))):
        fields = [(box, code) for (box, _), code in zip(FIELDS, codes, strict=True)]
        frame(fields).to_file(season.folder / f"RPG_{year}.gpkg")
    source = {"path": "RPG_{year}.gpkg", "country": "be-vlg", "code_field": "CODE_CULTU", "table": {"path": "mine.csv"}}
    season.recipe(parcels={"season": [source], "prior": "none"})
    done = plan(season, tmp_path / "plan")
    assert done.exit_code == 0
    assert "110 is in the table as 0110; their spelling may be damaged" in done.stderr
    # Nothing is guessed: such a code stays unknown.
    parcels = load_plan(LocalStorage(tmp_path / "plan"), "2022/").pinned["parcels"].parcels
    assert parcels.unmapped == {"be-vlg": {"110": 2, "77": 1}}
    assert parcels.parcels["tier1"].tolist().count(255) == 3
    shutil.rmtree(tmp_path / "plan")
    season.recipe(parcels={"season": [source]})
    message = refused(season, tmp_path / "plan")
    assert message.startswith("2021: none of 4 parcel(s)")
    assert "00110 is in the table as 0110, 110 is in the table as 0110, 20 is in the table as 020;" in message


# One file for two years


def test_a_recipe_that_reads_one_file_for_both_years_is_wrong(season: TinyRegion, tmp_path: Path) -> None:
    path = season.folder / "recipe.yaml"
    text = path.read_text()
    path.write_text(text.replace("RPG_{year}.gpkg", "RPG_2022.gpkg").replace("- 2021\n", ""))
    assert plan(season, tmp_path / "plan").exit_code == 0
    path.write_text(text.replace("RPG_{year}.gpkg", "RPG_2022.gpkg"))
    checked = CliRunner().invoke(app, ["recipe", "check", str(path)])
    assert isinstance(checked.exception, RecipeError)
    shutil.rmtree(tmp_path / "plan")
    assert "parcels.season[0].path" in refused(season, tmp_path / "plan", RecipeError)


def test_two_names_of_one_file_are_one_file(season: TinyRegion, tmp_path: Path) -> None:
    (season.folder / "RPG_2021.gpkg").unlink()
    (season.folder / "RPG_2021.gpkg").symlink_to("RPG_2022.gpkg")
    message = refused(season, tmp_path / "plan")
    assert f"{season.folder / 'RPG_2022.gpkg'} would be read for 2022 and, as the prior, for 2021" in message
    assert "prior: none" in message


def test_one_file_may_have_the_crops_of_both_years(season: TinyRegion, tmp_path: Path) -> None:
    both = frame().assign(BEFORE=["MIS"] * len(FIELDS))
    both.to_file(season.folder / "both.gpkg")
    source = {"path": "both.gpkg", "country": "fr", "code_field": "CODE_CULTU"}
    season.recipe(parcels={"season": [source], "prior": [{**source, "code_field": "BEFORE"}]})
    assert plan(season, tmp_path / "plan").exit_code == 0
    found = load_plan(LocalStorage(tmp_path / "plan"), "2022/")
    assert set(found.pinned["parcels"].prior.parcels["code"]) == {"MIS"}
    assert set(found.pinned["parcels"].parcels.parcels["code"]) == {"BTH", "MIS", "PPH"}


def test_validate_finds_a_season_whose_priors_are_its_labels(season: TinyRegion, tmp_path: Path) -> None:
    build_store(season.recipe(), tmp_path / "good", workers=1)
    assert not validate_store(tmp_path / "good").findings
    # A copy of the file: nothing but its content says that it is the season's.
    shutil.copy(season.folder / "RPG_2022.gpkg", season.folder / "RPG_2021.gpkg")
    build_store(season.recipe(), tmp_path / "same", workers=1)
    (finding,) = validate_store(tmp_path / "same").findings
    assert (finding.severity, finding.check, finding.where) == ("warning", "prior", "2022/prior")
    assert "all 4 sample(s)" in finding.what
    assert not validate_store(tmp_path / "same", mode="quick").findings


def test_validate_takes_a_season_nobody_knows_the_year_before_of(season: TinyRegion, tmp_path: Path) -> None:
    (season.folder / "RPG_2021.gpkg").unlink()
    build_store(season.recipe(), tmp_path / "store", workers=1)
    assert not validate_store(tmp_path / "store").findings


# What was read


def dirty(folder: Path, year: int) -> None:
    """A file with a fault of each kind, of which every parcel stays where it is."""
    (bth, _), (mis, _), (pph, _), (last, _) = FIELDS
    triangle = shapely.Polygon([(WEST + 410, SOUTH + 40), (WEST + 440, SOUTH + 40), (WEST + 410, SOUTH + 80)])
    bow_tie = shapely.Polygon(
        [(WEST + 210, SOUTH + 60), (WEST + 235, SOUTH + 90), (WEST + 235, SOUTH + 60), (WEST + 210, SOUTH + 90)]
    )
    shapes = [
        *(shapely.box(*box) for box in (bth, mis, pph, last)),
        shapely.box(*mis),  # the ground of the second with another crop
        shapely.box(*bth),  # the first once more
        bow_tie,
        shapely.force_3d(triangle, 12.0),
        triangle.centroid,
        shapely.box(WEST + 440, SOUTH + 100, WEST + 470, SOUTH + 140),
        shapely.box(WEST + 440, SOUTH + 150, WEST + 470, SOUTH + 180),
        shapely.box(WEST + 3000, SOUTH, WEST + 3100, SOUTH + 100),  # far from every cell
    ]
    codes = ["BTH", "MIS", "PPH", "BTH", "PPH", "BTH", "MIS", "QQQ", "BTH", "BTH", "QQQ", "ZZZ"]
    parcels = gpd.GeoDataFrame({"CODE_CULTU": codes, "ID_PARCEL": [*"abcdefghijkl"]}, geometry=shapes, crs=ZONE)
    path = folder / f"RPG_{year}.gpkg"
    path.unlink(missing_ok=True)
    parcels.to_file(path, geometry_type="Unknown")
    open_ring = [(WEST + 440.0, SOUTH + 100.0), (WEST + 470.0, SOUTH + 100.0), (WEST + 470.0, SOUTH + 140.0)]
    change_geometry(path, 10, with_wkb(polygon_wkb([*open_ring, (WEST + 441.0, SOUTH + 140.0)])))


COUNTS = {
    "read": 11,
    "parcels": 7,
    "invalid": 1,
    "three_dimensional": 1,
    "null": 0,
    "empty": 1,
    "unreadable": 1,
    "duplicate": 2,
    "contradictory": 1,
    "unmapped": 2,
}


@pytest.fixture
def faulty(season: TinyRegion) -> TinyRegion:
    """The region with a file that has a fault of each kind."""
    dirty(season.folder, 2022)
    season.recipe()
    return season


def test_a_plan_tells_what_was_read_repaired_and_left_out(faulty: TinyRegion, tmp_path: Path) -> None:
    done = plan(faulty, tmp_path / "plan")
    assert done.exit_code == 0, done.exception
    for line in (
        "parcels: 11 row(s) read: repaired 2 (1 invalid, 1 with heights); left out 4 (1 empty, 1 unreadable, "
        "2 repeated); 1 declared with several crops, unknown in every tier",
        "parcels, fr: 1 crop code(s) in no table, unknown in every tier: QQQ (2)",
        "warning: parcels: RPG_2022.gpkg: 1 row(s) with unreadable geometry left out: fid 10",
    ):
        assert line in done.stderr
    assert "ZZZ" not in done.stderr
    found = json.loads(plan(faulty, tmp_path / "json", "--json").stdout)["2022"]["sources"]
    assert found["parcels"] == {"counts": COUNTS, "unmapped": {"fr": {"QQQ": 2}}}
    assert found["prior"]["counts"]["parcels"] == len(FIELDS)
    assert found["prior"]["unmapped"] == {}
    (warning,) = found["warnings"]
    assert warning.endswith("fid 10")
    shown = CliRunner().invoke(app, ["plan", "show", str(tmp_path / "plan"), "--json"])
    assert json.loads(shown.stdout)["2022"]["sources"] == found


def test_rows_read_for_several_groups_of_cells_are_counted_once(faulty: TinyRegion) -> None:
    # Each cell by itself: the same row is read for those that it meets, and for those around it.
    recipe = faulty.recipe()
    assert recipe.parcels is not None
    cells = cells_of_area(shapely.box(WEST, SOUTH, EAST, NORTH), ZONE, 240, "inside")
    files = season_files(recipe.parcels, recipe.locate, 2022)["parcels"]
    found = [
        declarations_of(files, groups, recipe.split, Taxonomy.load(), silent)
        for groups in ([cells], [[cell] for cell in cells], [cells, cells])
    ]
    for one in found:
        assert one.counts == COUNTS
        assert one.unmapped == {"fr": {"QQQ": 2}}
        assert len(one.notes) == 1
        assert one.parcels.equals(found[0].parcels)


def test_a_build_and_its_release_tell_what_was_read(faulty: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = CliRunner().invoke(app, ["build", str(faulty.folder / "recipe.yaml"), "--out", str(store)])
    assert done.exit_code == 0, done.exception
    assert "season 2022: parcels: 11 row(s) read: repaired 2" in done.stderr
    assert "season 2022: parcels, fr: 1 crop code(s) in no table, unknown in every tier: QQQ (2)" in done.stderr
    again = CliRunner().invoke(app, ["build", str(faulty.folder / "recipe.yaml"), "--out", str(store), "--json"])
    told = json.loads(again.stdout)["sources"]["2022"]["2022"]
    assert told["parcels"] == {"counts": COUNTS, "unmapped": {"fr": {"QQQ": 2}}}
    assert read_index_json(store, "sources")["2022"]["2022"] == told
    sheet = (store / "DATASHEET.md").read_text()
    assert "2 (1 invalid, 1 with heights)" in sheet
    assert "4 (1 empty, 1 unreadable, 2 repeated)" in sheet
    assert "crop codes of fr in no table: `QQQ` (2 parcels)" in sheet
    assert "unreadable geometry left out: fid 10" in sheet


def test_ground_with_two_crops_is_unknown_in_every_tier_whatever_row_comes_first(
    season: TinyRegion, tmp_path: Path
) -> None:
    # Barley and wheat are both cereals: their tiers agree where nobody may know.
    twice = [*FIELDS, (FIELDS[0][0], "ORH")]
    stores = []
    for name, fields in (("one", twice), ("other", twice[::-1])):
        frame(fields).to_file(season.folder / "RPG_2022.gpkg")
        build_store(season.recipe(), tmp_path / name, workers=1)
        stores.append(h2crop_data.open(tmp_path / name, 2022).load())
        parcels = read_index(tmp_path / name, "parcels-2022").set_index("code")
        assert len(parcels) == len(FIELDS)
        assert parcels.loc["BTH ≠ ORH", ["hcat3", "tier1", "tier4"]].tolist() == ["", 255, 255]
        assert read_index_json(tmp_path / name, "sources")["2022"]["2022"]["parcels"]["unmapped"] == {}
    one, other = stores
    assert one["label"].equals(other["label"])
    (row,) = np.flatnonzero((one["x0"].values == WEST) & (one["y0"].values == SOUTH + 240))
    # 19 x 18 pixels of wheat and barley, all of them declared.
    assert (one["label"].values[row] == 255).sum() == 4 * 19 * 18
    assert (one["parcel"].values[row] > 0).sum() == 19 * 18


def test_a_file_that_lost_rows_ends_the_plan_with_the_numbers(season: TinyRegion, tmp_path: Path) -> None:
    many = [((WEST + i, SOUTH, WEST + i + 5, NORTH), "BTH") for i in range(0, 480, 5)]
    frame(many).to_file(season.folder / "wrong_2022.shp")
    cut(season.folder / "wrong_2022.dbf", 0.5)
    source = {"path": "wrong_{year}.shp", "years": [2022], "country": "fr", "code_field": "CODE_CULTU"}
    season.recipe(parcels={"season": [source]})
    assert "expected 96 row(s) in its .dbf, got 47" in refused(season, tmp_path / "plan")


# Relabelling


@pytest.fixture
def source(faulty: TinyRegion, tmp_path: Path) -> Path:
    """A store of such a file."""
    build_store(faulty.recipe(), tmp_path / "source", workers=1)
    return tmp_path / "source"


def told_of(store: Path) -> dict[str, Any]:
    """What a release says of the parcels of 2022."""
    facts: dict[str, Any] = read_index_json(store, "sources")["2022"]["2022"]
    return facts


def test_a_corrected_table_changes_what_is_told_of_codes(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "corrected.csv"
    table.write_text("code,hcat3\nBTH,3301010101\nMIS,3301010600\nQQQ,3302000000\n00PPH,3302000000\n")
    before = h2crop_data.open(source, 2022).load()
    relabel_store(source, tmp_path / "new", tables={"fr": table})
    told = told_of(tmp_path / "new")
    assert told["parcels"] == {"counts": {**COUNTS, "unmapped": 1}, "unmapped": {"fr": {"PPH": 1}}}
    note = "PPH is in the table as 00PPH; their spelling may be damaged, for instance by lost zeros"
    assert f"parcels: crop codes of fr: {note}" in told["warnings"]
    after = h2crop_data.open(tmp_path / "new", 2022).load()
    parcels = read_index(tmp_path / "new", "parcels-2022").set_index("code")
    contradictory = parcels.loc["MIS ≠ PPH"]
    assert contradictory[["hcat3", "tier1", "tier2", "tier3", "tier4"]].tolist() == ["", 255, 255, 255, 255]
    ground = before["parcel"].values == contradictory["number"]
    assert ground.sum() > 100
    assert (after["label"].values.transpose(0, 2, 3, 1)[ground] == 255).all()
    # The note goes when its reason does.
    table.write_text("code,hcat3\nBTH,3301010101\nMIS,3301010600\nPPH,3302000000\n")
    relabel_store(tmp_path / "new", tmp_path / "newer", tables={"fr": table})
    told = told_of(tmp_path / "newer")
    assert told["parcels"]["unmapped"] == {"fr": {"QQQ": 2}}
    assert [warning for warning in told["warnings"] if "zeros" in warning] == []
    # And so does a code that got its meaning, the last of its country.
    table.write_text("code,hcat3\nBTH,3301010101\nMIS,3301010600\nPPH,3302000000\nQQQ,3302000000\n")
    relabel_store(tmp_path / "newer", tmp_path / "newest", tables={"fr": table})
    assert told_of(tmp_path / "newest")["parcels"] == {"counts": {**COUNTS, "unmapped": 0}, "unmapped": {}}


def test_a_table_that_knows_no_code_is_refused(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text("code,hcat3\n1,3301010101\n")
    with pytest.raises(ParcelError, match=r"2022: none of 7 parcel\(s\) .*PPH"):
        relabel_store(source, tmp_path / "new", tables={"fr": table})
    assert not (tmp_path / "new/zarr.json").exists()


def test_files_read_anew_are_looked_at_like_those_of_a_plan(faulty: TinyRegion, source: Path, tmp_path: Path) -> None:
    relabel_store(source, tmp_path / "same", recipe=faulty.recipe())
    assert told_of(tmp_path / "same") == told_of(source)
    labelled(DEGREES, "EPSG:2154").to_file(faulty.folder / "RPG_2022.gpkg")
    with pytest.raises(ParcelError, match="looks like degrees"):
        relabel_store(source, tmp_path / "new", recipe=faulty.recipe())
    frame([((EAST + 300, SOUTH, EAST + 400, NORTH), "MIS"), ((WEST - 400, SOUTH, WEST - 300, NORTH), "MIS")]).to_file(
        faulty.folder / "RPG_2022.gpkg"
    )
    with pytest.raises(ParcelError, match=r"2022: no parcel of .* lies on the cells"):
        relabel_store(source, tmp_path / "new", recipe=faulty.recipe())


def test_a_store_that_read_one_file_for_both_years_is_put_right_by_relabelling(
    season: TinyRegion, tmp_path: Path
) -> None:
    # As such stores were built before a recipe like that was refused.
    shutil.copy(season.folder / "RPG_2022.gpkg", season.folder / "RPG_2021.gpkg")
    store = tmp_path / "store"
    build_store(season.recipe(), store, workers=1)

    def read_one_file(plan: dict[str, Any]) -> None:
        plan["recipe"]["parcels"]["season"][0] |= {"path": "RPG_2022.gpkg", "years": None}

    edit_json(store / ".build/plan/2022/plan.json", read_one_file)
    (season.folder / "RPG_2021.gpkg").unlink()
    frame([(box, "MIS") for box, _ in FIELDS]).to_file(season.folder / "RPG_2021.gpkg")
    relabel_store(store, tmp_path / "new", recipe=season.recipe())
    assert [finding.check for finding in validate_store(store).findings] == ["prior"]
    assert not validate_store(tmp_path / "new").findings


def test_a_part_of_a_season_may_be_without_parcels_when_relabelled(season: TinyRegion, tmp_path: Path) -> None:
    west = [field for field in FIELDS if field[0][2] < WEST + 240]
    frame(west).to_file(season.folder / "RPG_2022.gpkg")
    narrow = {"bbox": [WEST, SOUTH, WEST + 240, NORTH]}
    build_store(season.recipe(area=narrow), tmp_path / "store", workers=1)
    recipe = season.recipe(area={"bbox": [WEST, SOUTH, EAST, NORTH]})
    build_store(recipe, tmp_path / "store", extend=True, workers=1)
    parts = read_index(tmp_path / "store", "blocks")["part"]
    assert parts.nunique() == 2
    report = relabel_store(tmp_path / "store", tmp_path / "new", recipe=recipe)
    assert (report.redone, report.shared) == (0, len(parts))


def test_a_store_of_an_older_algorithm_says_how_its_twins_were_read(
    season: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make_plan(season.recipe(), 2022)
    assert explain_sources(source_facts(found)) == []
    object.__setattr__(found, "algorithm", {**found.algorithm, "labels": 1})
    save_plan(found, tmp_path / "plan")
    monkeypatch.setattr(DeclaredParcels, "algorithm", 1)
    build_store(tmp_path / "plan", tmp_path / "store", workers=1)
    monkeypatch.undo()
    relabel_store(tmp_path / "store", tmp_path / "new")
    assert [warning for warning in told_of(tmp_path / "new")["warnings"] if "--recipe" in warning]
    relabel_store(tmp_path / "store", tmp_path / "read", recipe=season.recipe())
    assert told_of(tmp_path / "read")["warnings"] == []
    labels = [h2crop_data.open(tmp_path / name, 2022)["label"].values for name in ("store", "new", "read")]
    for other in labels[1:]:
        np.testing.assert_array_equal(other, labels[0])
