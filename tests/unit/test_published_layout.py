"""The published layout: ids, tiles, places, numbers, dates, fillings, lists."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from published_files import make_published, write_sample
from pyproj import Transformer

from h2crop_data.errors import CatalogError, UsageError
from h2crop_data.mgrs import tile_bounds, tile_outline, tile_square
from h2crop_data.published.blocks import blocks_of_samples
from h2crop_data.published.dates import composite_days
from h2crop_data.published.files import filled
from h2crop_data.published.filling import fill_bands, fill_classes, fill_months
from h2crop_data.published.layout import PublishedError, PublishedId, PublishedSample, check_files, find_samples
from h2crop_data.published.normalisation import normalisation_files
from h2crop_data.published.options import read_spectrum
from h2crop_data.published.places import place_of, read_scenes
from h2crop_data.published.values import (
    cloud_mask,
    measured_enmap,
    measured_sentinel2,
    publish,
    put_back,
    store,
)

FILL = -32768
ID = "20220613T112220Z_003_x384_y704_T32ULV"

# Corners of real Sentinel-2 tiles, as archives state them.
REAL_TILES = {
    "60VUK": (32660, 300000, 6500040),
    "60VUJ": (32660, 300000, 6400020),
    "59VPC": (32659, 600000, 6300000),
    "59VNF": (32659, 499980, 6600000),
    "59VNE": (32659, 499980, 6500040),
    "36NYH": (32636, 699960, 300000),
    "20EPT": (32720, 600000, 3300040),
    "24MUV": (32724, 300000, 9500020),
    "24MVV": (32724, 399960, 9500020),
    "31UDS": (32631, 399960, 5700000),
}
CITIES = {
    "Brussels": (4.3517, 50.8503, "31UES"),
    "Paris": (2.3522, 48.8566, "31UDQ"),
    "Toulouse": (1.4442, 43.6047, "31TCJ"),
    "London": (-0.1276, 51.5072, "30UXC"),
    "Madrid": (-3.7038, 40.4168, "30TVK"),
    "Potsdam": (13.0645, 52.3906, "33UUU"),
    "Moscow": (37.6173, 55.7558, "37UDB"),
    "New York": (-74.006, 40.7128, "18TWL"),
    "San Francisco": (-122.4194, 37.7749, "10SEG"),
    "Tokyo": (139.6917, 35.6895, "54SUE"),
    "Nairobi": (36.8219, -1.2921, "37MBU"),
    "Sao Paulo": (-46.6333, -23.5505, "23KLP"),
    "Sydney": (151.2093, -33.8688, "56HLH"),
}


def to_metres(epsg: int, longitude: float, latitude: float) -> tuple[float, float]:
    return Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(longitude, latitude)


def test_an_id_tells_time_scene_pixel_and_tile() -> None:
    parsed = PublishedId.parse(ID)
    assert parsed.time == datetime(2022, 6, 13, 11, 22, 20, tzinfo=UTC)
    assert (parsed.season, parsed.scene) == (2022, "20220613T112220Z_003")
    assert (parsed.column, parsed.row, parsed.tile) == (384, 704, "32ULV")


@pytest.mark.parametrize(
    "text",
    [
        "sample_001",
        "20220613T112220Z_003_x384_y704_32ULV",
        "20221313T112220Z_003_x384_y704_T32ULV",
        "20220613T112220Z_003_x384_y704_T32UAV",
        "20220613T112220Z_003_x384_y704_T61ULV",
        "20220613T112220Z_003_x384_y704_T32ULW",
        f"{ID} ",
    ],
)
def test_anything_else_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid (id|MGRS tile) "):
        PublishedId.parse(text)


@pytest.mark.parametrize("tile", REAL_TILES)
def test_tiles_lie_where_the_archives_say(tile: str) -> None:
    epsg, west, south, east, north = tile_bounds(tile)
    assert (epsg, west, north) == REAL_TILES[tile]
    assert (east - west, north - south) == (109_800, 109_800)


@pytest.mark.parametrize("city", CITIES)
def test_known_places_lie_in_their_squares(city: str) -> None:
    longitude, latitude, tile = CITIES[city]
    epsg, x, y = tile_square(tile)
    east, north = to_metres(epsg, longitude, latitude)
    assert x <= east < x + 100_000
    assert y <= north < y + 100_000
    assert shapely.intersects_xy(tile_outline(tile), longitude, latitude)


@given(st.integers(-179_999, 179_999), st.integers(-79_999, 83_999))
def test_every_square_is_found_again_by_its_letters(east_by_1000: int, north_by_1000: int) -> None:
    longitude, latitude = east_by_1000 / 1000, north_by_1000 / 1000
    # The forward way, from the tables of the standard: from a place to its letters.
    zone = math.floor((longitude + 180) / 6) + 1
    epsg = (32600 if latitude >= 0 else 32700) + zone
    east, north = to_metres(epsg, longitude, latitude)
    band = "CDEFGHJKLMNPQRSTUVWX"[min(math.floor((latitude + 80) / 8), 19)]
    columns = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")[(zone - 1) % 3]
    rows = "ABCDEFGHJKLMNPQRSTUV" if zone % 2 else "FGHJKLMNPQRSTUVABCDE"
    tile = f"{zone:02d}{band}{columns[int(east // 100_000) - 1]}{rows[int(north // 100_000) % 20]}"
    assert tile_square(tile) == (epsg, east // 100_000 * 100_000, north // 100_000 * 100_000)


def scene(**changes: Any) -> dict[str, Any]:
    """An item as the archive gives it: its pixels in EPSG:32632, but no proj:epsg."""
    ground = shapely.transform(
        shapely.box(350_000, 5_430_000, 380_000, 5_460_000),
        Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform,
        interleaved=False,
    )
    item: dict[str, Any] = {
        "id": "ENMAP01-____L2A-DT0000001234_20220613T112220Z_003_V010402_20240101T000000Z",
        "geometry": json.loads(shapely.to_geojson(ground)),
        "properties": {"datetime": "2022-06-13T11:22:20Z", "proj:epsg": None, "enmap:tileID": 3},
        "assets": {
            "image": {
                "proj:shape": [1000, 1000],
                "proj:transform": [30.0, 0, 350_025.0, 0, -30.0, 5_460_045.0, 0, 0, 1],
            }
        },
    }
    item["properties"] |= changes.pop("properties", {})
    return item | changes


def catalog(folder: Path, *items: dict[str, Any]) -> Path:
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}), encoding="utf-8")
    return path


def test_a_scene_places_a_sample_to_the_pixel(tmp_path: Path) -> None:
    scenes = read_scenes([catalog(tmp_path, scene(properties={"enmap:sunElevationAngle": 60.5}))])
    place = place_of(PublishedId.parse(ID), scenes["20220613T112220Z_003"])
    assert (place.located, place.epsg) == ("scene", 32632)
    assert (place.x0, place.y0) == (350_025 + 30 * 384, 5_460_045 - 30 * 704)
    assert place.affine == [10, 0, place.x0, 0, -10, place.y0]
    west, south, east, north = shapely.transform(
        place.outline,
        Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True).transform,
        interleaved=False,
    ).bounds
    assert (west, south, east, north) == pytest.approx((place.x0, place.y0 - 1920, place.x0 + 1920, place.y0), abs=0.01)
    assert scenes["20220613T112220Z_003"].sun_elevation == 60.5


@pytest.mark.parametrize(
    "changes",
    [
        {"assets": {}},
        {"assets": {"image": {"proj:shape": [64, 64], "proj:transform": [30.0, 0, 350_025.0, 0, -30.0, 5_460_045.0]}}},
        {"assets": {"image": {"proj:shape": [9, 9], "proj:transform": [60.0, 0, 350_025.0, 0, -60.0, 5_460_045.0]}}},
        {
            "assets": {
                "image": {"proj:shape": [1000, 1000], "proj:transform": [30.0, 0, 750_025.0, 0, -30.0, 5_460_045]}
            }
        },
        {"properties": {"proj:epsg": 32640}},
    ],
    ids=["no pixels", "scene too small", "other pixels", "zone that fits nowhere", "far from the tile"],
)
def test_a_scene_that_cannot_be_right_places_by_its_ground(changes: dict[str, Any], tmp_path: Path) -> None:
    item = read_scenes([catalog(tmp_path, scene(**changes))])["20220613T112220Z_003"]
    place = place_of(PublishedId.parse(ID), item)
    assert place.located == "footprint"
    assert math.isnan(place.x0)
    assert math.isnan(place.y0)
    assert shapely.covers(shapely.buffer(item.ground, 1e-6), place.outline)
    assert shapely.covers(shapely.buffer(tile_outline("32ULV"), 1e-6), place.outline)


def test_versions_of_a_scene_count_once_and_place_only_where_they_agree(tmp_path: Path) -> None:
    newer = scene(id="ENMAP01-____L2A-DT0000001234_20220613T112220Z_003_V010502_20250101T000000Z")
    scenes = read_scenes([catalog(tmp_path, newer, scene())])
    assert {name: item.id for name, item in scenes.items()} == {"20220613T112220Z_003": newer["id"]}
    assert place_of(PublishedId.parse(ID), scenes["20220613T112220Z_003"]).located == "scene"
    moved = newer | {
        "assets": {"image": {"proj:shape": [1000, 1000], "proj:transform": [30.0, 0, 350_055, 0, -30.0, 5_460_045]}}
    }
    scenes = read_scenes([catalog(tmp_path, moved, scene())])
    assert place_of(PublishedId.parse(ID), scenes["20220613T112220Z_003"]).located == "footprint"


def test_a_scene_with_another_name_is_known_by_its_time_and_tile_number(tmp_path: Path) -> None:
    assert list(read_scenes([catalog(tmp_path, scene(id="something"))])) == ["20220613T112220Z_003"]
    assert not read_scenes([catalog(tmp_path, scene(id="something", properties={"enmap:tileID": None}))])


def test_without_a_catalog_a_sample_lies_somewhere_in_its_tile() -> None:
    place = place_of(PublishedId.parse(ID), None)
    assert (place.located, place.epsg) == ("tile", 32632)
    assert place.outline.equals(tile_outline("32ULV"))
    assert math.isnan(place.x0)


@pytest.mark.parametrize("text", ["{", "[]", '{"features": 3}', '{"features": [3]}'])
def test_a_file_that_is_no_catalog_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogError, match=r"items\.json"):
        read_scenes([path])


def test_an_item_without_ground_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="DT0000001234"):
        read_scenes([catalog(tmp_path, scene(geometry=None))])


numbers = st.one_of(st.sampled_from([0, FILL, -32767, -31769, -31768, 32767, 1000, 999]), st.integers(FILL, 32767))


@given(hnp.arrays(np.int16, (2, 3, 2, 3), elements=numbers), st.sampled_from([0, 1000]))
def test_any_sentinel2_numbers_come_back_exactly(published: NDArray[np.int16], offset: int) -> None:
    stored = store(published, measured_sentinel2(published)[:, None], offset)
    back = publish(stored.values, stored.no_data, offset)
    put_back(back, stored.places, stored.numbers)
    np.testing.assert_array_equal(back, published)
    assert back.dtype == np.int16
    # A pixel has a value in every band or in none.
    present = stored.values != FILL
    np.testing.assert_array_equal(present.all(axis=1), present.any(axis=1))


@given(hnp.arrays(np.int16, (4, 2, 3), elements=numbers))
def test_any_enmap_numbers_come_back_exactly(published: NDArray[np.int16]) -> None:
    stored = store(published, measured_enmap(published))
    back = publish(stored.values, stored.no_data)
    put_back(back, stored.places, stored.numbers)
    np.testing.assert_array_equal(back, published)
    np.testing.assert_array_equal(stored.values[stored.values != FILL], published[stored.values != FILL])


def test_nothing_measured_is_fill_and_the_offset_goes_from_what_is() -> None:
    published = np.array([[[[0, 0, 1500, -32768, 1000, 32767]], [[0, 7, 1000, 5, 0, 2]]]], np.int16)
    stored = store(published, measured_sentinel2(published)[:, None], 1000)
    expected = [[[[FILL, -1000, 500, FILL, 0, 31767]], [[FILL, -993, 0, FILL, -1000, -998]]]]
    np.testing.assert_array_equal(stored.values, expected)
    # Fill comes back as 0; what was something else is kept beside.
    assert stored.no_data == 0
    assert stored.places.tolist() == [3, 9]
    assert stored.numbers.tolist() == [-32768, 5]


def test_enmap_pixels_of_nothing_but_0_are_fill_and_a_single_0_is_a_value() -> None:
    published = np.array([[[0, 0, -32768, 4]], [[0, 9, 3, -32768]], [[0, 0, 3, 5]]], np.int16)
    stored = store(published, measured_enmap(published))
    np.testing.assert_array_equal(stored.values[:, 0], [[FILL, 0, FILL, 4], [FILL, 9, 3, FILL], [FILL, 0, 3, 5]])


def test_a_cloud_mask_has_two_numbers() -> None:
    cloud = np.zeros((64, 64), np.uint8)
    cloud[3, 4] = 1
    for form in (cloud, cloud.astype(bool), cloud * 255, cloud[None].astype(float)):
        np.testing.assert_array_equal(cloud_mask(form, 64), cloud > 0)
    np.testing.assert_array_equal(cloud_mask(0 * cloud, 64), np.zeros((64, 64)))
    np.testing.assert_array_equal(cloud_mask(0 * cloud + 1, 64), np.ones((64, 64)))
    codes = cloud.copy()
    codes[0, 0] = 2
    others: list[NDArray[Any]] = [codes, cloud + 1, np.float32(0.3) * np.ones(()), cloud[:32], cloud.astype("S1")]
    assert [cloud_mask(other, 64) for other in others] == [None] * 5
    assert cloud_mask(np.where(cloud, np.nan, 0), 64) is None


def days(season: int) -> list[date]:
    return [date(season, month, 8 + month) for month in range(1, 13)]


@pytest.mark.parametrize("season", [2022, 2024])
def test_dates_are_understood_in_the_forms_they_may_have(season: int) -> None:
    known = days(season)
    expected = [(day - date(season, 1, 1)).days + 1 for day in known]
    compact = [f"{day:%Y%m%d}" for day in known]
    forms: list[NDArray[Any]] = [
        np.array([day.isoformat() for day in known], dtype=object),
        np.array([f"S2A_MSIL2A_{text}T105631_N0400" for text in compact]),
        np.array([text.encode() for text in compact]),
        np.array([[text] for text in compact]),
        np.array([int(text) for text in compact], np.int32),
        np.array([float(text) for text in compact]),
        np.array(expected, np.uint16),
    ]
    for form in forms:
        found = composite_days(form, season)
        assert found is not None
        assert found.tolist() == expected


def test_months_without_a_date_and_dates_of_pixels_are_understood() -> None:
    texts = np.array(["", *(day.isoformat() for day in days(2022)[1:])], dtype=object)
    assert composite_days(texts, 2022)[0] == 0  # type: ignore[index]
    grid = np.zeros((12, 3, 4), np.float32)
    grid[1, 2, 3], grid[1, 0, 0] = 40, np.nan
    found = composite_days(grid, 2022)
    assert found is not None
    assert (found[1, 2, 3], found[1, 0, 0], found.sum()) == (40, 0, 40)


def test_dates_that_are_not_understood_stay_alone() -> None:
    known = np.array([f"{day:%Y%m%d}" for day in days(2022)])
    day_of_month = np.array([day.day for day in days(2022)])
    wrong: list[NDArray[Any]] = [
        known[::-1],
        np.array([*known[:-1], "soon"]),
        np.array([*known[:-1], "20221341"]),
        known[:11],
        np.tile(known, (3, 1)),
        day_of_month,
        np.array([int(text) for text in known]) * 1000,
        np.arange(1.5, 13.5),
        np.full(12, -5),
        np.zeros(12, complex),
        np.float32(3.0) * np.ones(()),
    ]
    assert [composite_days(dates, 2022) for dates in wrong] == [None] * len(wrong)
    assert composite_days(known, 2023) is None


small = st.one_of(st.just(FILL), st.integers(-50, 50), st.integers(-32767, 32767))
year = hnp.arrays(np.int16, (12, 2, 1, 2), elements=small)
#: The first months that the published experiments look at.
WINDOWS = (6, 8, 10, 12)


@pytest.mark.slow
@given(year)
def test_a_month_is_filled_from_the_clear_months_of_its_window(s2: NDArray[np.int16]) -> None:
    expected = s2.copy()
    for band, x in np.ndindex(2, 2):
        series = s2[:, band, 0, x].tolist()
        for month in range(12):
            # Months count from 0 here: a window of 6 has those from 0 to 5.
            window = next(months for months in WINDOWS if month < months)
            clear = [known for known in range(window) if series[known] != FILL]
            if not clear:
                continue
            before = max((known for known in clear if known <= month), default=clear[0])
            after = min((known for known in clear if known >= month), default=clear[-1])
            share = Fraction(month - before, after - before) if after > before else Fraction(0)
            # Python rounds halves to the even number.
            expected[month, band, 0, x] = round(series[before] + (series[after] - series[before]) * share)
    untouched = s2.copy()
    np.testing.assert_array_equal(fill_months(s2), expected)
    np.testing.assert_array_equal(s2, untouched)


@pytest.mark.parametrize(
    ("clear", "expected"),
    [
        # Linear inside the first half, the nearest month at its ends: June has nothing of July's 900.
        ({2: 100, 4: 300, 7: 900}, [100, 100, 200, 300, 300, 300, 900, 900, 900, 900, 900, 900]),
        # A half is rounded to the even number: 150.5 is 150, 151.5 is 152.
        ({1: 150, 3: 151, 4: 151, 6: 152}, [150, 150, 151, 151, 152, 152, 152, 152, 152, 152, 152, 152]),
        # July to October look back as far as June; November's number is not theirs.
        ({6: 600, 11: 1100}, [600, 600, 600, 600, 600, 600, 600, 600, 600, 600, 1100, 1100]),
        # July is filled between April and August, both in its window; May and June have nothing of August.
        ({4: 400, 8: 800}, [400, 400, 400, 400, 400, 400, 700, 800, 800, 800, 800, 800]),
        # November is filled between September and December; October has nothing of December.
        ({9: 900, 12: 1200}, [0, 0, 0, 0, 0, 0, 0, 0, 900, 900, 1100, 1200]),
        # A window without a clear month is 0, one after the other.
        ({7: 700}, [0, 0, 0, 0, 0, 0, 700, 700, 700, 700, 700, 700]),
        ({12: 1200}, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1200, 1200]),
        ({}, [0] * 12),
    ],
)
@pytest.mark.parametrize("offset", [0, 1000])
def test_exported_months_of_a_pixel(clear: dict[int, int], expected: list[int], offset: int) -> None:
    series = np.full(12, FILL, np.int16)
    for month, value in clear.items():
        series[month - 1] = value
    exported = filled({"S2_data": series[:, None, None, None]}, offset)["S2_data"][:, 0, 0, 0]
    # The offset is not added to the 0 of what was never measured.
    assert exported.tolist() == [value + offset if value else 0 for value in expected]


@given(year, year, st.sampled_from(WINDOWS), st.sampled_from([0, 1000]))
def test_the_first_months_of_an_export_depend_on_those_months_alone(
    s2: NDArray[np.int16], other: NDArray[np.int16], months: int, offset: int
) -> None:
    changed = np.concatenate([s2[:months], other[months:]])
    one, two = (filled({"S2_data": values}, offset)["S2_data"][:months] for values in (s2, changed))
    np.testing.assert_array_equal(one, two)


@given(year)
def test_an_exported_gap_is_imported_as_nothing_measured(s2: NDArray[np.int16]) -> None:
    # Clear in every band or in none, as our composites are; a measured 0 in all bands cannot be told from a gap.
    s2[:, 1][s2[:, 0] == FILL] = FILL
    s2[:, 1][(s2[:, 0] != FILL) & ((s2[:, 1] == FILL) | (s2[:, 1] == 0))] = 1
    exported = filled({"S2_data": s2}, 0)["S2_data"]
    gaps = (fill_months(s2) == FILL).all(axis=1)
    assert not measured_sentinel2(exported)[gaps].any()
    assert measured_sentinel2(exported)[~gaps & (exported != 0).any(axis=1)].all()


@given(hnp.arrays(np.int16, (6, 1, 2), elements=small))
def test_bands_are_filled_from_the_nearest(enmap: NDArray[np.int16]) -> None:
    whole = fill_bands(enmap)
    for x in range(2):
        spectrum = enmap[:, 0, x].tolist()
        known = [band for band in range(6) if spectrum[band] != FILL]
        expected = [
            spectrum[min(known, key=lambda other: (abs(other - band), other))] if known else FILL for band in range(6)
        ]
        assert whole[:, 0, x].tolist() == expected


def test_unknown_classes_become_not_declared() -> None:
    assert fill_classes(np.array([0, 1, 254, 255], np.uint8)).tolist() == [0, 1, 254, 0]


def listed(name: str, split: str = "train") -> PublishedSample:
    return PublishedSample(PublishedId.parse(name), Path(f"{name}.h5"), split, 0)


def test_blocks_are_runs_of_one_scene_split_and_zone_whatever_the_order() -> None:
    names = [f"20220613T112220Z_003_x{64 * i}_y64_T32ULV" for i in range(5)]
    samples = [
        *(listed(name) for name in names),
        listed("20220613T112220Z_003_x0_y0_T32ULV", "val"),
        listed("20220613T112220Z_003_x640_y64_T31UGQ"),
        listed("20220613T112220Z_004_x0_y0_T32ULV"),
        listed("20210101T000000Z_001_x0_y0_T31TCJ"),
    ]
    blocks = blocks_of_samples(samples, 2)
    assert blocks == blocks_of_samples(samples[::-1], 2)
    assert [(b.season, b.number, b.split, b.scene[-3:], len(b.samples)) for b in blocks] == [
        (2021, 0, "train", "001", 1),
        (2022, 0, "train", "003", 1),
        (2022, 1, "train", "003", 2),
        (2022, 2, "train", "003", 2),
        (2022, 3, "train", "003", 1),
        (2022, 4, "val", "003", 1),
        (2022, 5, "train", "004", 1),
    ]
    assert [name for block in blocks[2:5] for name in block.ids] == names


def test_lists_are_read_as_the_published_loader_reads_them(tmp_path: Path) -> None:
    made = make_published(tmp_path)
    (tmp_path / "data_lists/val.txt").write_text("\n" + f"  {made.lists['val'][0]}\r\n\n", encoding="utf-8")
    samples = find_samples(tmp_path)
    for split in ("train", "test"):
        expected = np.loadtxt(tmp_path / f"data_lists/{split}.txt", dtype=str).tolist()
        assert [sample.id.text for sample in samples if sample.split == split] == expected
        assert [sample.position for sample in samples if sample.split == split] == list(range(len(expected)))
    assert [sample.id.text for sample in samples if sample.split == "val"] == made.lists["val"]


def test_everything_wrong_with_lists_is_told_at_once(tmp_path: Path) -> None:
    made = make_published(tmp_path)
    first, second = made.lists["train"][:2]
    made.path(first).unlink()
    made.path(second).rename(made.path("20220101T000000Z_001_x0_y0_T32ULV"))
    (tmp_path / "data_lists/test.txt").write_text(f"{made.lists['val'][0]}\nabc\n", encoding="utf-8")
    (tmp_path / "h5_data/abc.h5").touch()
    with pytest.raises(PublishedError) as told:
        find_samples(tmp_path)
    text = str(told.value)
    assert f"{first} of the list train has no file" in text
    assert f"{second} of the list train has no file" in text
    assert f"{made.lists['val'][0]} is in the lists more than once" in text
    assert "20220101T000000Z_001_x0_y0_T32ULV.h5 is in no list" in text
    assert "invalid id 'abc'" in text


def test_files_in_no_list_are_left_out_or_trained_on_where_asked(tmp_path: Path) -> None:
    made = make_published(tmp_path)
    loose = made.lists["test"]
    (tmp_path / "data_lists/test.txt").unlink()
    with pytest.raises(PublishedError, match="--unlisted"):
        find_samples(tmp_path)
    assert {sample.id.text for sample in find_samples(tmp_path, unlisted="skip")} == set(made.ids) - set(loose)
    trained = [sample.id.text for sample in find_samples(tmp_path, unlisted="train") if sample.split == "train"]
    assert trained == [*made.lists["train"], *sorted(loose)]


def test_a_folder_without_files_or_lists_is_told(tmp_path: Path) -> None:
    with pytest.raises(PublishedError, match=r"no \.h5 file"):
        find_samples(tmp_path)
    write_sample(tmp_path / f"{ID}.h5", 0, 2022)
    with pytest.raises(PublishedError, match=r"no train\.txt"):
        find_samples(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/val.txt").write_text(ID, encoding="utf-8")
    assert [sample.split for sample in find_samples(tmp_path, tmp_path / "lists")] == ["val"]


def test_every_unfit_file_is_told_at_once(tmp_path: Path) -> None:
    made = make_published(tmp_path)
    first, second, third, fourth, fifth, sixth, _ = made.ids
    with h5py.File(made.path(first), "a") as file:
        del file["label"], file["priors"]
        file["label"] = np.zeros((4, 192, 192), np.int64)
        file.create_group("priors")
    with h5py.File(made.path(second), "a") as file:
        del file["S2_data"]
        file["S2_data"] = np.zeros((12, 10, 96, 96), np.int16)
    made.path(third).write_bytes(made.path(third).read_bytes()[:100_000])
    made.path(fourth).write_text("no HDF5", encoding="utf-8")
    with h5py.File(made.path(fifth), "a") as file:
        file["S2_data"].attrs["scale"] = file["label"].ref
    with h5py.File(made.path(sixth), "a") as file:
        file["pointers"] = np.array([file["label"].ref], h5py.ref_dtype)
    with pytest.raises(PublishedError) as told:
        check_files(find_samples(tmp_path))
    assert told.value.problems[:3] == [
        f"{made.path(first)}: label: expected uint8 (4, 192, 192), got int64 (4, 192, 192)",
        f"{made.path(first)}: has no dataset priors",
        f"{made.path(second)}: S2_data: expected int16 (12, 10, 192, 192), got int16 (12, 10, 96, 96)",
    ]
    assert [problem.split(": ")[0] for problem in told.value.problems[3:]] == [
        str(made.path(name)) for name in (third, fourth, fifth, sixth)
    ]
    assert "attribute scale of S2_data is a reference" in told.value.problems[5]
    assert "pointers contains references" in told.value.problems[6]


def test_the_awkward_files_of_the_tests_are_fit(tmp_path: Path) -> None:
    make_published(tmp_path)
    check_files(find_samples(tmp_path))


def band(mean: float | None, sd: float | None, count: int = 5) -> dict[str, Any]:
    return {"count": count, "mean": mean, "sd": sd}


def test_normalisation_is_in_the_numbers_of_the_files() -> None:
    reflectance = {
        "split": "train",
        "samples": 3,
        "s2": [band(0.25, 0.1), band(0.5, 0.0), *[band(None, None, 0)] * 8],
        "enmap": [band(0.0123, 0.02)],
    }
    files = normalisation_files(reflectance, 1000)
    found = json.loads(files["normalisation.json"])
    assert found["S2"]["mean"] == pytest.approx([3500, 6000, *[0] * 8])
    # A band without a deviation must not be divided by 0.
    assert found["S2"]["sd"] == pytest.approx([1000, 1, *[1] * 8])
    assert found["EnMAP"] == {"mean": pytest.approx([123]), "sd": pytest.approx([200])}
    names: dict[str, Any] = {}
    exec(files["normalisation.py"], names)  # the published configuration is Python
    assert names["mean"] == {"S2": found["S2"]["mean"], "EnMAP": found["EnMAP"]["mean"]}
    assert names["std"] == {"S2": found["S2"]["sd"], "EnMAP": found["EnMAP"]["sd"]}
    assert (names["s2_mean"], names["EnMAP_std"]) == (found["S2"]["mean"], found["EnMAP"]["sd"])
    assert not normalisation_files({"split": "train", "units": "1"}, 0)


def test_wavelengths_are_read_from_lines(tmp_path: Path) -> None:
    path = tmp_path / "bands.txt"
    centres = [420 + 9.3 * i for i in range(218)]
    path.write_text("\n".join(f"{centre}, 7.5" for centre in centres) + "\n\n", encoding="utf-8")
    assert read_spectrum(path) == (centres, [7.5] * 218)
    path.write_text("\n".join(map(str, centres)), encoding="utf-8")
    assert read_spectrum(path) == (centres, [0.0] * 218)
    assert read_spectrum(None) == ([0.0] * 218, [0.0] * 218)


@pytest.mark.parametrize(
    "lines",
    [
        ["500 7"] * 218,
        [str(400 + i) for i in range(217)],
        [f"{400 + i} 7 9" for i in range(218)],
        ["blue", *(str(400 + i) for i in range(217))],
        [str(i) for i in range(218)],
        [*(str(400 + i) for i in range(217)), "inf"],
    ],
)
def test_wavelengths_that_cannot_be_right_are_refused(lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bands.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UsageError, match="--wavelengths"):
        read_spectrum(path)


def test_dates_count_from_the_first_of_january() -> None:
    found = composite_days(np.array([day.isoformat() for day in days(2024)], dtype=object), 2024)
    assert found is not None
    assert [date(2024, 1, 1) + timedelta(days=int(day) - 1) for day in found] == days(2024)
