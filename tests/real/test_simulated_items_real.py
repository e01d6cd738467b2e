"""Simulated tiles, items and metadata against recorded real ones, field by field.

What a real item has and a simulated one has not, and the other way round, is listed here with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import shapely

from h2crop_data.simulate.enmap import items as enmap_items
from h2crop_data.simulate.enmap.items import EnmapProduct
from h2crop_data.simulate.enmap.metadata import metadata_xml
from h2crop_data.simulate.sentinel2 import items as sentinel2_items
from h2crop_data.simulate.sentinel2.granules import CLASS_NAMES, DATASTRIP, Granule
from h2crop_data.simulate.sentinel2.tiles import tile_at, tiles_over

SENTINEL2_FILES = ("earth_search_v1", "planetary_computer", "cdse")
ARCHIVES = ("sentinel-2-c1-l2a", "sentinel-2-l2a", "sentinel-2-l1c", "planetary-computer", "copernicus")
EXTENSION = "https://stac-extensions.github.io/{}/schema.json"

#: Assets of real items whose files are not simulated.
ASSETS_LEFT_OUT = re.compile(
    r"aot|AOT.*|wvp|WVP.*|visual|TCI.*|cloud|snow"  # aerosol, water vapour, true colour, probabilities
    r"|preview|thumbnail|rendered_preview|tilejson|vnir|swir"  # pictures
    r"|.*-jp2|B.._20m|B.._60m|SCL_60m"  # the same bands in another format or resampled
    r"|(granule|tileinfo|product|inspire)[_-]metadata|safe[_-]manifest|Product"  # metadata and archives
)
#: Properties of real items that simulated ones do not have: access to the archive's servers.
PROPERTIES_LEFT_OUT = {"copernicus": {"auth:schemes", "storage:schemes"}}
#: Fields of real assets that simulated ones do not have: access to the archive's servers, and their description.
FIELDS_LEFT_OUT = {"copernicus": {"alternate", "alternate:name", "auth:refs", "storage:refs", "description"}}
EXTENSIONS_LEFT_OUT = {
    "copernicus": {EXTENSION.format(name) for name in ("alternate-assets/v1.2.0", "authentication/v1.1.0")}
    | {EXTENSION.format("storage/v2.0.0")}
}
#: What only some recorded EnMAP items have: the archive changed, and there is no sun elevation at night.
ENMAP_NOT_ALWAYS = {"sat:orbit_state", "sci:citation", "view:sun_elevation"}
#: Formats that real and simulated values share, by property.
FORMATS = {
    "datetime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?Z",
    "start_datetime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})Z",
    "end_datetime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})Z",
    "created": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(\d{3}|\d{6})(Z|\+00:00)",
    "updated": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(\d{3}|\d{6})(Z|\+00:00)",
    "published": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "processing:datetime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "eopf:origin_datetime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "s2:generation_time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(\d{3}|\d{6})Z",
    "enmap:processingDate": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "grid:code": r"MGRS-\d\d[C-X][A-Z]{2}",
    "platform": r"sentinel-2[a-c]|Sentinel-2[A-C]|enmap",
    "s2:datatake_id": r"GS2[A-C]_\d{8}T\d{6}_\d{6}_N\d\d\.\d\d",
    "eopf:datatake_id": r"GS2[A-C]_\d{8}T\d{6}_\d{6}_N\d\d\.\d\d",
    "s2:datastrip_id": r"S2[A-C]_OPER_MSI_L(1C|2A)_DS_[A-Z0-9]{4}_\d{8}T\d{6}_S\d{8}T\d{6}_N\d\d\.\d\d",
    "eopf:datastrip_id": r"S2[A-C]_OPER_MSI_L(1C|2A)_DS_[A-Z0-9]{4}_\d{8}T\d{6}_S\d{8}T\d{6}_N\d\d\.\d\d",
    "s2:tile_id": r"S2[A-C]_OPER_MSI_L(1C|2A)_TL_[A-Z0-9]{4}_\d{8}T\d{6}_A\d{6}_T\d\d[C-X][A-Z]{2}_N\d\d\.\d\d",
    "s2:granule_id": r"S2[A-C]_OPER_MSI_L2A_TL_[A-Z0-9]{4}_\d{8}T\d{6}_A\d{6}_T\d\d[C-X][A-Z]{2}_N\d\d\.\d\d",
    "s2:product_uri": r"S2[A-C]_MSIL(1C|2A)_\d{8}T\d{6}_N\d{4}_R\d{3}_T\d\d[C-X][A-Z]{2}_\d{8}T\d{6}\.SAFE",
    "s2:sequence": r"\d",
    "sci:citation": r".+ \(\d{4}\): EnMAP L0 Product \d{10}_\d\d_L0_\d{8}T\d{6}_\d{6}_\d{6} "
    r"(doi: \S+ )?Processed to level 2A \(parameters: U0BLNNT[SW]\d{3}G\)",
    "earthsearch:payload_id": r"[\w/-]+/[0-9a-f]{32}",
    "earthsearch:s3_path": r"s3://[\w./-]+/\d+/[C-X]/[A-Z]{2}/\d{4}/\d+/S2[A-C]_\w+_L(1C|2A)",
}


# What is recorded, and the same granule simulated


def recorded(shared: Path, archive: str) -> list[dict[str, Any]]:
    """The recorded items of an archive."""
    file = {"planetary-computer": "planetary_computer", "copernicus": "cdse"}.get(archive, "earth_search_v1")
    items = json.loads((shared / "stac" / f"{file}_items.json").read_text(encoding="utf-8"))["features"]
    return [item for item in items if item["collection"] == archive or file != "earth_search_v1"]


def recorded_enmap(shared: Path) -> list[dict[str, Any]]:
    """The recorded items of DLR's archive."""
    items = json.loads((shared / "stac" / "dlr_enmap_l2a_items.json").read_text(encoding="utf-8"))["features"]
    return list(items)


def band_asset(item: dict[str, Any]) -> dict[str, Any]:
    """The asset of B02."""
    return next(item["assets"][key] for key in ("blue", "B02", "B02_10m") if key in item["assets"])


def stamp_time(text: str) -> datetime:
    """The time of `20250731T131909`."""
    return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def same_granule(item: dict[str, Any], archive: str) -> Granule:
    """The granule of a recorded item."""
    facts = item["properties"]
    asset = band_asset(item)
    epsg = facts.get("proj:epsg") or int(asset["proj:code"].removeprefix("EPSG:"))
    _, _, west, _, _, north = map(int, asset["proj:transform"])
    tile = tile_at(epsg, round(west / 100_000), round(north / 100_000) - 1)
    datatake_id = facts.get("s2:datatake_id") or facts["eopf:datatake_id"]
    _, datatake, orbit, baseline = datatake_id.split("_")
    generation = facts.get("s2:generation_time") or facts["processing:datetime"]
    sensed = datetime.fromisoformat(facts["datetime"])
    product = facts.get("s2:product_uri") or item["id"]
    shares = facts.get("statistics") or {
        name: facts.get(f"s2:{name}_percentage", 0.0) for name in (*CLASS_NAMES.values(), "nodata_pixel")
    }
    words = {1: "saturated_defective", 2: "dark_area", 11: "snow"} if archive == "copernicus" else {}
    return Granule(
        platform=product[:3],
        tile=tile,
        footprint=shapely.from_geojson(json.dumps(item["geometry"])),
        bounds=tile.bounds,
        sensing=sensed,
        datatake=sensed if archive in ("planetary-computer", "copernicus") else stamp_time(datatake),
        generation=datetime.fromisoformat(generation),
        relative_orbit=int(re.search(r"_R(\d{3})_", product)[1]),  # type: ignore[index]
        absolute_orbit=int(orbit),
        baseline=baseline.removeprefix("N"),
        classes={n: shares.get(words.get(n, name), 0.0) for n, name in CLASS_NAMES.items()},
        nodata=shares.get("nodata_pixel", shares.get("nodata", 0.0)),
        sun_azimuth=facts.get("view:sun_azimuth", facts.get("s2:mean_solar_azimuth")),
        sun_elevation=facts.get("view:sun_elevation", 90 - facts.get("s2:mean_solar_zenith", 0)),
        view_azimuth=facts.get("view:azimuth", 0.0),
        view_incidence=facts.get("view:incidence_angle", 0.0),
        sequence=int(facts.get("s2:sequence", 0)),
        offset_flag=facts.get("earthsearch:boa_offset_applied"),
    )


def simulated(item: dict[str, Any], archive: str) -> dict[str, Any]:
    """The granule of a recorded item, simulated, with all assets there can be; through strict JSON."""
    suffix = ".jp2" if band_asset(item)["type"] == "image/jp2" else ".tif"
    hrefs = {key: f"./{key}{suffix}" for key in sentinel2_items.archive_form(archive).keys.values()}
    # Earth Search's real items list no metadata of datastrips.
    if archive in ("planetary-computer", "copernicus"):
        hrefs[sentinel2_items.asset_key(archive, DATASTRIP)] = "./MTD_DS.xml"
    keys = list(hrefs)
    granule = same_granule(item, archive)
    made = sentinel2_items.sentinel2_item(
        granule, archive, hrefs, dict.fromkeys(keys, 77), dict.fromkeys(keys, "0a" * 32)
    )
    document: dict[str, Any] = json.loads(json.dumps(made, allow_nan=False))
    return document


def same_product(item: dict[str, Any]) -> EnmapProduct:
    """The EnMAP product of a recorded item."""
    facts, image = item["properties"], item["assets"]["image"]
    bands = image["eo:bands"]
    east, north = facts["card4l:eastern_geometric_accuracy"], facts["card4l:northern_geometric_accuracy"]
    return EnmapProduct(
        datatake=facts["enmap:datatakeID"],
        tile=facts["enmap:tileID"],
        start=datetime.fromisoformat(facts["start_datetime"]),
        stop=datetime.fromisoformat(facts["end_datetime"]),
        processed=datetime.fromisoformat(facts["enmap:processingDate"]),
        epsg=image["proj:epsg"],
        shape=tuple(image["proj:shape"]),
        transform=tuple(image["proj:transform"][:6]),
        footprint=shapely.from_geojson(json.dumps(item["geometry"])),
        centres=tuple(band["center_wavelength"] for band in bands),
        fwhm=tuple(band["full_width_half_max"] for band in bands),
        quality=facts["enmap:overallQuality"],
        cloud=facts["eo:cloud_cover"],
        cloud_shadow=facts["enmap:cloud_shadow"],
        haze=facts["enmap:haze_cover"],
        cirrus=facts["enmap:cirrus_cover"],
        snow=facts["eo:snow_cover"],
        water=facts["enmap:water_cover"],
        sun_azimuth=facts["enmap:sunAzimuthAngle"],
        sun_elevation=facts["enmap:sunElevationAngle"] or None,
        across_off_nadir=facts["enmap:acrossOffNadirAngle"],
        along_off_nadir=facts["enmap:alongOffNadirAngle"],
        scene_azimuth=facts["enmap:sceneAzimuthAngle"],
        version="V" + facts["version"].replace(".", ""),
        tiles=facts["enmap:numberOfTiles"],
        defective_vnir=facts["enmap:defectivePixelsVNIR"],
        defective_swir=facts["enmap:defectivePixelsSWIR"],
        ozone=facts["enmap:ozoneValue"],
        aerosol=facts["enmap:sceneAOT"],
        water_vapour=facts["enmap:sceneWV"],
        accuracy=None if east == -999 else (east, north),
    )


def simulated_enmap(item: dict[str, Any]) -> dict[str, Any]:
    """The product of a recorded item, simulated; through strict JSON."""
    product = same_product(item)
    hrefs = {key: f"./{name}" for key, name in enmap_items.file_names(product).items()}
    counts = {key: {0: 60, 1: 20, 3: 20} for key in hrefs if key.startswith("quality_")}
    document: dict[str, Any] = json.loads(json.dumps(enmap_items.enmap_item(product, hrefs, counts), allow_nan=False))
    return document


# Comparison of structure


def kind(value: Any) -> str:
    """The JSON type of a value; whole and broken numbers are both numbers."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return {str: "string", list: "array", dict: "object", type(None): "null"}[type(value)]


def structure(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, JSON type) of a value and all there is in it; elements of arrays share a path."""
    yield path, kind(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from structure(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from structure(inner, f"{path}/*")


def same_structure(real: Any, made: Any, missing: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Every path of either is in the other with the same type, but for real keys that are `missing` at the top."""
    expected = {one for one in structure(real) if one[0].split("/")[1:2] not in [[key] for key in missing]}
    assert set(structure(made)) == expected


def shared_assets(real: dict[str, Any], made: dict[str, Any]) -> list[str]:
    """Keys of the assets both have: all of the real ones but those left out, and no others."""
    wanted = {key for key in real["assets"] if not ASSETS_LEFT_OUT.fullmatch(key) or key in made["assets"]}
    assert set(made["assets"]) == wanted
    return sorted(wanted)


@pytest.mark.parametrize("archive", ARCHIVES)
def test_a_simulated_sentinel2_item_has_the_fields_of_the_real_one(shared: Path, archive: str) -> None:
    items = recorded(shared, archive)
    assert items
    for real in items:
        made = simulated(real, archive)
        assert set(made) == set(real)
        assert made["type"] == real["type"]
        assert made["stac_version"] == real["stac_version"]
        assert made["collection"] == real["collection"]
        assert set(made["stac_extensions"]) == set(real["stac_extensions"]) - EXTENSIONS_LEFT_OUT.get(archive, set())
        same_structure(real["geometry"], made["geometry"])
        same_structure(real["bbox"], made["bbox"])
        properties = dict(made["properties"])
        # A map from the name of the software to its version: ours is another name.
        if archive in ("sentinel-2-c1-l2a", "sentinel-2-l2a", "sentinel-2-l1c"):
            (name,) = real["properties"]["processing:software"]
            properties["processing:software"] = {name: properties["processing:software"]["h2crop-simulate"]}
        same_structure(real["properties"], properties, PROPERTIES_LEFT_OUT.get(archive, set()))
        for key in shared_assets(real, made):
            same_structure(real["assets"][key], made["assets"][key], FIELDS_LEFT_OUT.get(archive, set()))


#: Properties whose values are not the recorded ones, and why.
OTHER_VALUES = {
    # What says that an item is simulated.
    "processing:software",
    "processing:facility",
    "earthsearch:payload_id",
    "earthsearch:s3_path",
    # When the archive listed the item.
    "created",
    "updated",
    "published",
    "eopf:origin_datetime",
    # Access to the archive's servers.
    *PROPERTIES_LEFT_OUT["copernicus"],
    # Defects of the instrument, which are not simulated.
    "s2:degraded_msi_data_percentage",
}
#: Names that hold the processing centre, and times of strips and granules that nothing else in the item tells.
OTHER_NAMES = {
    "planetary-computer": {"s2:granule_id", "s2:datastrip_id"},
    "copernicus": {"eopf:datastrip_id"},
}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_same_granule_gets_the_recorded_values(shared: Path, archive: str) -> None:
    for real in recorded(shared, archive):
        made = simulated(real, archive)
        assert made["id"] == real["id"]
        assert made["bbox"] == pytest.approx(real["bbox"], abs=1e-6)
        for key, value in real["properties"].items():
            if key in OTHER_VALUES | OTHER_NAMES.get(archive, set()):
                continue
            told = made["properties"][key]
            if key == "s2:reflectance_conversion_factor":
                assert told == pytest.approx(value, abs=3e-4)
            elif key == "proj:centroid":
                assert told == pytest.approx(value, abs=2e-3)
            elif key == "eo:cloud_cover" and archive == "sentinel-2-l1c":
                assert told == 0  # the real one is of another algorithm, without a scene classification
            elif isinstance(value, float):
                assert told == pytest.approx(value, abs=1e-2 if archive == "copernicus" else 2e-6), key
            else:
                assert told == value, key


@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_same_granule_gets_the_recorded_fields_of_assets(shared: Path, archive: str) -> None:
    own = {"href", "file:size", "file:checksum"}
    # Angles and bounds of single bands; the simulation has one view for all.
    own |= {"view:azimuth", "view:incidence_angle"} | FIELDS_LEFT_OUT.get(archive, set())
    if archive == "copernicus":
        own.add("file:local_path")
    for real in recorded(shared, archive):
        made = simulated(real, archive)
        for key in shared_assets(real, made):
            told, value = (
                {name: field for name, field in item["assets"][key].items() if name not in own} for item in (made, real)
            )
            if "classification:classes" in value:
                told["classification:classes"].sort(key=lambda one: one["value"])
            assert told == value


@pytest.mark.parametrize("archive", ARCHIVES)
def test_ids_and_times_have_the_recorded_formats(shared: Path, archive: str) -> None:
    formats = {
        "sentinel-2-c1-l2a": r"S2[A-C]_T\d\d[C-X][A-Z]{2}_\d{8}T\d{6}_L2A",
        "sentinel-2-l2a": r"S2[A-C]_\d\d[C-X][A-Z]{2}_\d{8}_\d_L2A",
        "sentinel-2-l1c": r"S2[A-C]_\d\d[C-X][A-Z]{2}_\d{8}_\d_L1C",
        "planetary-computer": r"S2[A-C]_MSIL2A_\d{8}T\d{6}_R\d{3}_T\d\d[C-X][A-Z]{2}_\d{8}T\d{6}",
        "copernicus": r"S2[A-C]_MSIL2A_\d{8}T\d{6}_N\d{4}_R\d{3}_T\d\d[C-X][A-Z]{2}_\d{8}T\d{6}",
    }
    for real in recorded(shared, archive):
        for item in (real, simulated(real, archive)):
            assert re.fullmatch(formats[archive], item["id"])
            matched = same_formats(item)
            assert matched >= {"datetime", "platform"}
            # Multihash: SHA-256 (Earth Search) or SHA3-256 (Copernicus) of 32 bytes.
            checksum = band_asset(item).get("file:checksum")
            assert (checksum is None) == (archive not in ("sentinel-2-c1-l2a", "copernicus"))
            assert checksum is None or re.fullmatch(r"(12|16)20[0-9a-f]{64}", checksum)


def same_formats(item: dict[str, Any]) -> set[str]:
    """The properties of an item that have a format; all must match it."""
    texts = {key: item["properties"][key] for key in FORMATS if key in item["properties"]}
    wrong = {key: text for key, text in texts.items() if not re.fullmatch(FORMATS[key], text)}
    assert not wrong
    return set(texts)


@pytest.mark.parametrize("archive", ARCHIVES)
def test_files_lie_where_the_recorded_ones_lie(shared: Path, archive: str) -> None:
    for real in recorded(shared, archive):
        granule = same_granule(real, archive)
        href = band_asset(real)["href"]
        told = sentinel2_items.file_path(granule, archive, "B02", Path(href).suffix)
        if archive == "copernicus":
            # The time of the strip, which nothing else tells; that item's is not the datatake's first.
            told, href = (re.sub(r"_\d{8}T\d{6}(?=/IMG_DATA)", "", text) for text in (told, href))
        assert href.endswith(told)


# Tiles


@pytest.mark.parametrize("file", SENTINEL2_FILES)
def test_recorded_tiles_are_those_of_the_formula(shared: Path, file: str) -> None:
    items = json.loads((shared / "stac" / f"{file}_items.json").read_text(encoding="utf-8"))["features"]
    assert items
    for item in items:
        facts, asset = item["properties"], band_asset(item)
        epsg = facts.get("proj:epsg") or int(asset["proj:code"].removeprefix("EPSG:"))
        name = facts.get("s2:mgrs_tile") or facts["grid:code"].removeprefix("MGRS-")
        _, _, west, _, _, north = asset["proj:transform"]
        rows, columns = asset["proj:shape"]
        tile = tile_at(epsg, round(west / 100_000), round(north / 100_000) - 1)
        assert tile.name == name
        assert tile.bounds == (west, north - 10 * rows, west + 10 * columns, north)
        middle = (west + 50_000, north - 60_000, west + 50_010, north - 59_990)
        assert [found.name for found in tiles_over(epsg, middle)] == [name]


# EnMAP


def test_a_simulated_enmap_item_has_the_fields_of_the_real_ones(shared: Path) -> None:
    items = recorded_enmap(shared)
    assert items
    for real in items:
        made = simulated_enmap(real)
        assert set(made) == set(real)
        assert made["stac_version"] == real["stac_version"]
        assert made["collection"] == real["collection"]
        same_structure(real["bbox"], made["bbox"])
        same_structure(real["geometry"], made["geometry"])
        told, facts = (
            {key: value for key, value in item["properties"].items() if key not in ENMAP_NOT_ALWAYS}
            for item in (made, real)
        )
        same_structure(facts, told)
        for key in shared_assets(real, made):
            same_structure(real["assets"][key], made["assets"][key])
    # The newest form of the archive's items has all there is.
    newest = items[0]
    made = simulated_enmap(newest)
    assert set(newest["properties"]) >= ENMAP_NOT_ALWAYS
    assert set(made["properties"]) == set(newest["properties"])
    assert made["stac_extensions"] == newest["stac_extensions"]


def test_the_same_product_gets_the_recorded_values(shared: Path) -> None:
    # What says that an item is simulated; when it was listed; numbers the simulation counts by a rule; results of
    # quality control that it does not simulate; two forms of the time.
    other = {"sci:citation", "processing:facility", "created", "updated", "datetime", "sat:orbit_state"}
    other |= {"enmap:imageID", "sat:relative_orbit", "enmap:orbitNo", "enmap:sceneAtmospericParameters"}
    for real in recorded_enmap(shared):
        made = simulated_enmap(real)
        assert made["id"] == real["id"]
        assert made["bbox"] == real["bbox"]
        for key, value in real["properties"].items():
            if key not in other:
                assert made["properties"][key] == value, key
        assert made["properties"]["enmap:orbitNo"] == pytest.approx(real["properties"]["enmap:orbitNo"], abs=3)
    newest = recorded_enmap(shared)[0]
    assert simulated_enmap(newest)["properties"]["datetime"] == newest["properties"]["datetime"]


def test_the_same_product_gets_the_recorded_fields_of_assets(shared: Path) -> None:
    for real in recorded_enmap(shared):
        made = simulated_enmap(real)
        for key in shared_assets(real, made):
            told, value = (dict(item["assets"][key]) for item in (made, real))
            assert Path(told.pop("href")).name == Path(value.pop("href")).name
            for facts in (told, value):
                for band in facts.get("raster:bands", []):
                    # Of pixels that are not simulated here.
                    assert set(band.pop("statistics")) == {"mean", "minimum", "maximum", "stddev", "valid_percent"}
                    assert len(band.pop("histogram")["buckets"]) == 10
            assert told == value


def test_enmap_ids_and_times_have_the_recorded_formats(shared: Path) -> None:
    for real in recorded_enmap(shared):
        for item in (real, simulated_enmap(real)):
            assert re.fullmatch(r"ENMAP01-____L2A-DT\d{10}_\d{8}T\d{6}Z_\d{3}_V\d{6}_\d{8}T\d{6}Z", item["id"])
            assert same_formats(item) >= {"datetime", "start_datetime", "created", "enmap:processingDate"}


def test_files_of_a_product_lie_where_the_recorded_ones_lie(shared: Path) -> None:
    for real in recorded_enmap(shared):
        product = same_product(real)
        for key, name in enmap_items.file_names(product).items():
            assert real["assets"][key]["href"].endswith(f"/{enmap_items.file_folder(product)}/{name}")


def test_simulated_metadata_have_all_tags_of_the_sample(shared: Path) -> None:
    (path,) = (shared / "potsdam_2022").glob("*/*METADATA.XML")
    made = ElementTree.fromstring(metadata_xml(same_product(recorded_enmap(shared)[0])))

    def tags(node: ElementTree.Element, path: str) -> Iterator[str]:
        yield path
        for child in node:
            yield from tags(child, f"{path}/{child.tag}")

    # Statistics of bands need the pixels.
    wanted = {tag for tag in tags(ElementTree.parse(path).getroot(), "level_X") if "/bandStatistics" not in tag}
    assert len(wanted) > 25
    assert wanted <= set(tags(made, "level_X"))
