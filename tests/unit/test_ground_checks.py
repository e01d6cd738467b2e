"""Parcel numbers against outlines, EnMAP against Sentinel-2: what fits gives nothing, what was falsified is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from h2crop_data.constants import ENMAP_FLAGS
from h2crop_data.validation.agreement import (
    NO_OUTLIER_ABOVE,
    OUTLIER_BELOW,
    AgreementChecks,
    Distribution,
    agreement,
)
from h2crop_data.validation.findings import Counted, NotChecked, Remedies
from h2crop_data.validation.ground import (
    GroundCount,
    Outlines,
    Place,
    count_ground,
    ground_problem,
    ground_problems,
)
from h2crop_data.validation.labels import SeasonLabels
from h2crop_data.validation.sources import BlockValues
from h2crop_data.validation.validate import watched

# Parcels

SIDE = 48
#: In a zone of the south, and far from its meridian: degrees and metres are turned against each other.
PLACE = Place(32721, 250_000.0, 7_400_480.0)


def polygons(seed: int, count: int) -> list[list[tuple[float, float]]]:
    """Corners, in metres of the zone, of parcels on and around the sample, some of them over others."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        centre = np.array([PLACE.x0, PLACE.y0 - SIDE * 10]) + random.uniform(-30, SIDE * 10 + 30, 2)
        angles = np.sort(random.uniform(0, 2 * np.pi, 7))
        corners = centre + random.uniform(25, 90, (7, 1)) * np.column_stack([np.cos(angles), np.sin(angles)])
        made.append([tuple(corner) for corner in corners.tolist()])
    return made


def outlines_of(shapes: list[list[tuple[float, float]]], numbers: list[int]) -> Outlines:
    """The index of such parcels: longitude and latitude."""
    to_degrees = Transformer.from_crs(f"EPSG:{PLACE.epsg}", "OGC:CRS84", always_xy=True).transform
    geometry = [shapely.transform(shapely.Polygon(one), to_degrees, interleaved=False) for one in shapes]
    return Outlines.of(pd.DataFrame({"number": numbers, "geometry": geometry}))


def is_inside(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    """Whether a point lies in a polygon: how often a ray to the east meets its border."""
    crossings = 0
    for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            crossings += 1
    return crossings % 2 == 1


def area_of(corners: list[tuple[float, float]]) -> float:
    pairs = zip(corners, [*corners[1:], corners[0]], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2


def painted(shapes: list[list[tuple[float, float]]], numbers: list[int]) -> NDArray[np.uint32]:
    """The sample pixel by pixel: the smallest parcel that the centre lies in."""
    pixels = np.zeros((SIDE, SIDE), np.uint32)
    for row in range(SIDE):
        for column in range(SIDE):
            x, y = PLACE.x0 + column * 10 + 5, PLACE.y0 - row * 10 - 5
            over = [(area_of(one), number) for one, number in zip(shapes, numbers, strict=True) if is_inside(x, y, one)]
            pixels[row, column] = min(over)[1] if over else 0
    return pixels


SHAPES = polygons(7, 14)
NUMBERS = [3 + 7 * place for place in range(len(SHAPES))]
DRAWN = painted(SHAPES, NUMBERS)
OUTLINES = outlines_of(SHAPES, NUMBERS)


def test_pixels_of_overlapping_parcels_fit_their_outlines() -> None:
    count = count_ground(DRAWN, PLACE, OUTLINES)
    assert count == GroundCount(SIDE * SIDE, int((DRAWN > 0).sum()), 0, 0)
    assert 500 < count.declared < SIDE * SIDE
    assert ground_problem(count, grown=False) is None
    assert not list(ground_problems(DRAWN[None], [PLACE], OUTLINES, grown=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: pixels[::-1],
        lambda pixels: pixels[:, ::-1],
        lambda pixels: pixels.T,
        lambda pixels: np.roll(pixels, 1, axis=0),
        lambda pixels: np.roll(pixels, -1, axis=1),
        lambda pixels: painted(polygons(8, 14), NUMBERS),
        lambda pixels: np.where(np.indices(pixels.shape)[0] < SIDE // 2, 0, pixels),
    ],
    ids=["rows", "columns", "transposed", "south", "west", "other parcels", "half of it"],
)
def test_pixels_that_lie_elsewhere_do_not(change: Callable[[Any], Any]) -> None:
    for grown in (False, True):
        found = list(ground_problems(np.stack([DRAWN, change(DRAWN)]), [PLACE, PLACE], OUTLINES, grown=grown))
        assert [sample for sample, _ in found] == [1]


@pytest.mark.parametrize("offset", [(5, 0), (0, 5), (-5, 5), (1, 0)])
def test_half_a_pixel_and_less_is_seen(offset: tuple[float, float]) -> None:
    moved = Place(PLACE.epsg, PLACE.x0 + offset[0], PLACE.y0 + offset[1])
    assert ground_problem(count_ground(DRAWN, moved, OUTLINES), grown=True) is not None


def test_every_wrong_pixel_is_counted() -> None:
    pixels = DRAWN.copy()
    own, other = np.unique(DRAWN[DRAWN > 0])[:2]
    inside = np.argwhere(own == DRAWN)[:3]
    pixels[tuple(inside[0])] = other
    pixels[tuple(inside[1])] = 0
    assert count_ground(pixels, PLACE, OUTLINES).wrong == 2
    # A number that no parcel has is reported by the check of numbers.
    pixels[tuple(inside[0])] = 99_999
    assert count_ground(pixels, PLACE, OUTLINES).wrong == 1


def test_a_larger_parcel_over_a_smaller_one_is_wrong() -> None:
    at = [(PLACE.x0 + 40.0, PLACE.y0 - 240.0), (PLACE.x0 + 80.0, PLACE.y0 - 200.0)]
    large, small = (
        list(shapely.box(x, y, x + s, y + s).exterior.coords)[:4] for (x, y), s in zip(at, (200, 50), strict=True)
    )
    index, right = outlines_of([large, small], [1, 2]), painted([large, small], [1, 2])
    assert count_ground(right, PLACE, index).wrong == 0
    wrong = right.copy()
    rows = np.flatnonzero((right == 2).any(axis=1))
    wrong[rows[0]][right[rows[0]] == 2] = 1
    assert count_ground(wrong, PLACE, index).wrong == (right[rows[0]] == 2).sum() == 5


def ring(west: float, south: float, east: float, north: float) -> list[tuple[float, float]]:
    """Corners of a box, in metres from the lower left corner of the sample."""
    x, y = PLACE.x0, PLACE.y0 - SIDE * 10
    return [(x + west, y + south), (x + east, y + south), (x + east, y + north), (x + west, y + north)]


def test_holes_and_parts_of_parcels_are_theirs_alone() -> None:
    outer, hole = ring(43, 52, 301, 398), ring(102, 147, 243, 289)
    parts = [ring(131, 171, 199, 233), ring(330, 96, 421, 187)]
    shapes = [shapely.Polygon(outer, [hole]), shapely.MultiPolygon([shapely.Polygon(one) for one in parts])]
    to_degrees = Transformer.from_crs(f"EPSG:{PLACE.epsg}", "OGC:CRS84", always_xy=True).transform
    geometry = [shapely.transform(shape, to_degrees, interleaved=False) for shape in shapes]
    index = Outlines.of(pd.DataFrame({"number": [5, 9], "geometry": geometry}))
    pixels, in_hole = np.zeros((SIDE, SIDE), np.uint32), np.zeros((SIDE, SIDE), bool)
    for row, column in np.ndindex(SIDE, SIDE):
        x, y = PLACE.x0 + column * 10 + 5, PLACE.y0 - row * 10 - 5
        in_hole[row, column] = is_inside(x, y, hole)
        if any(is_inside(x, y, part) for part in parts):
            pixels[row, column] = 9
        elif is_inside(x, y, outer) and not in_hole[row, column]:
            pixels[row, column] = 5
    assert count_ground(pixels, PLACE, index) == GroundCount(SIDE * SIDE, int((pixels > 0).sum()), 0, 0)
    filled = np.where(in_hole & (pixels == 0), 5, pixels).astype(np.uint32)
    assert count_ground(filled, PLACE, index).wrong == (in_hole & (pixels == 0)).sum() > 100
    second = (pixels == 9) & ~in_hole
    assert count_ground(np.where(second, 0, pixels).astype(np.uint32), PLACE, index).wrong == second.sum() > 50


def test_twins_and_borders_on_centres_are_not_wrong() -> None:
    x, y = PLACE.x0 + 105.0, PLACE.y0 - 305.0
    square = list(shapely.box(x, y, x + 100, y + 100).exterior.coords)[:4]
    pixels = np.zeros((SIDE, SIDE), np.uint32)
    pixels[20:31, 10:21] = 1
    pixels[20:25, 10:21] = 2
    assert count_ground(pixels, PLACE, outlines_of([square, square], [1, 2])).wrong == 0
    # Those on the border may as well be empty, and those within may not.
    pixels[20], pixels[:, 10] = 0, 0
    assert count_ground(pixels, PLACE, outlines_of([square, square], [1, 2])).wrong == 0
    pixels[21] = 0
    assert count_ground(pixels, PLACE, outlines_of([square, square], [1, 2])).wrong == 9


def test_a_parcel_declared_later_is_wrong_only_where_nothing_was_declared_later() -> None:
    gone = int(np.unique(DRAWN[DRAWN > 0])[2])
    count = count_ground(np.where(gone == DRAWN, 0, DRAWN).astype(np.uint32), PLACE, OUTLINES)
    assert count.lost + count.wrong >= (gone == DRAWN).sum() > 10
    assert ground_problem(count, grown=False) is not None
    assert ground_problem(GroundCount(1000, 800, 0, 100), grown=True) is None
    assert ground_problem(GroundCount(1000, 800, 0, 300), grown=True) is not None
    assert ground_problem(GroundCount(1000, 800, 3, 0), grown=False) is None
    assert ground_problem(count_ground(np.zeros_like(DRAWN), PLACE, OUTLINES), grown=True) is not None


@pytest.mark.parametrize(
    ("sources", "grown"),
    [
        ({"2022": {"2022": {}}}, False),
        ({"2022": {"2022": {}, "2022-00004": {}}}, True),
        ({"2021": {"2021": {}}}, True),
        (None, True),
    ],
    ids=["one part", "two parts", "another season", "an older release"],
)
def test_the_index_says_whether_a_season_was_planned_in_parts(sources: Any, grown: bool) -> None:
    release: Any = SimpleNamespace(
        seasons={2022: 4},
        tables={},
        documents={} if sources is None else {"sources": sources},
        doubtful_parcels=frozenset(),
        blocks=lambda season: None,
        settings=lambda season, section: {},
    )
    assert SeasonLabels.of(release, 2022).grown is grown


def test_a_sample_of_unknown_place_and_a_season_without_parcels_give_nothing() -> None:
    assert not list(ground_problems(DRAWN[None, ::-1], [None], OUTLINES, grown=False))
    nobody = Outlines.of(pd.DataFrame({"number": np.array([], int), "geometry": np.array([], object)}))
    assert count_ground(np.zeros((SIDE, SIDE), np.uint32), PLACE, nobody) == GroundCount(SIDE * SIDE, 0, 0, 0)


# EnMAP and Sentinel-2

BANDS = ["B02", "B04", "B08", "B11"]
WAVELENGTH = np.array([485.0, 500.0, 660.0, 670.0, 800.0, 850.0, 1590.0, 1630.0, 2400.0])
FINE, COARSE, JULY = 120, 40, 7
FILL = -32768


def fields(random: np.random.Generator, side: int) -> NDArray[np.int64]:
    """A number a field of 4 x 6 pixels (y, x)."""
    rows, columns = np.indices((side, side))
    return np.asarray((rows // 4) * 100 + columns // 6)


def scene(seed: int) -> dict[str, NDArray[Any]]:
    """A sample whose crops have a spectrum a field, in July as EnMAP sees them, in other months others."""
    random = np.random.default_rng(seed)
    of_pixel = fields(random, COARSE)
    spectra = random.uniform(300, 4000, (12, len(BANDS), of_pixel.max() + 1))
    s2 = np.repeat(np.repeat(spectra[:, :, of_pixel], 3, axis=2), 3, axis=3)
    s2 = (s2 + random.normal(0, 60, s2.shape[1:])).astype(np.int16)
    july = spectra[JULY - 1][:, of_pixel]
    cube = np.concatenate([np.repeat(0.9 * july + 100, 2, axis=0), july[:1]]).astype(np.float64)
    cube += random.normal(0, 60, cube.shape)
    return {
        "enmap": cube.astype(np.int16),
        "enmap_quality": np.zeros((COARSE, COARSE), np.uint16),
        "enmap_mask": np.zeros((COARSE, COARSE), np.uint8),
        "s2": s2,
    }


def agreed(arrays: dict[str, NDArray[Any]], month: int = JULY) -> float | None:
    return agreement(arrays, WAVELENGTH, month, BANDS)


def test_two_images_of_one_ground_agree_and_others_do_not() -> None:
    arrays = scene(1)
    value = agreed(arrays)
    assert value is not None
    assert value > 0.95
    cube = arrays["enmap"]
    wrong = {
        "rows": agreed({**arrays, "enmap": cube[:, ::-1]}),
        "columns": agreed({**arrays, "enmap": cube[:, :, ::-1]}),
        "transposed": agreed({**arrays, "enmap": cube.transpose(0, 2, 1)}),
        "rows of Sentinel-2": agreed({**arrays, "s2": arrays["s2"][:, :, ::-1]}),
        "another sample": agreed({**arrays, "enmap": scene(2)["enmap"]}),
        "another month": agreed(arrays, month=3),
        "90 m": agreed({**arrays, "enmap": np.roll(cube, 3, axis=1)}),
    }
    assert all(one is not None and one < OUTLIER_BELOW for one in wrong.values()), wrong


def test_crops_that_changed_since_agree_all_the_same() -> None:
    """Other reflectance, but one that follows from the composite: ripe fields are bright where they were green."""
    arrays = scene(1)
    first, second = arrays["enmap"][4].astype(float), arrays["enmap"][2].astype(float)
    changed = {**arrays, "enmap": arrays["enmap"].copy()}
    changed["enmap"][4:6] = (4500 - first + 0.3 * second).astype(np.int16)
    value, plain = agreed(changed), agreed(arrays)
    assert value is not None
    assert plain is not None
    assert abs(value - plain) < 0.03


def test_clouds_are_left_out_where_they_are_flagged() -> None:
    arrays = scene(1)
    cloud = np.zeros((COARSE, COARSE), bool)
    cloud[5:30, 8:25] = True
    arrays["enmap"][:, cloud] = np.random.default_rng(3).uniform(5000, 9000, (len(WAVELENGTH), cloud.sum()))
    hidden = agreed(arrays)
    assert hidden is not None
    assert hidden < 0.9
    for flagged in (
        {"enmap_quality": np.where(cloud, ENMAP_FLAGS["cloud"], 0).astype(np.uint16)},
        {"enmap_mask": cloud.astype(np.uint8)},
        {"enmap": np.where(cloud, FILL, arrays["enmap"]).astype(np.int16)},
        {"s2": np.where(np.kron(cloud, np.ones((3, 3), bool)), FILL, arrays["s2"]).astype(np.int16)},
    ):
        value = agreed({**arrays, **flagged})
        assert value is not None
        assert value > 0.95


def test_what_cannot_be_compared_has_no_agreement() -> None:
    arrays = scene(1)
    few = np.zeros((COARSE, COARSE), np.uint16)
    few[:, 6:] = ENMAP_FLAGS["cloud"]
    plain = np.full_like(arrays["enmap"], 2000)
    assert agreed({**arrays, "enmap_quality": few}) is None
    assert agreed({**arrays, "enmap": plain}) is None
    assert agreed({**arrays, "s2": np.full_like(arrays["s2"], FILL)}) is None
    # A composite without a pattern, where EnMAP shows one, is no picture of this ground.
    blank = agreed({**arrays, "s2": np.full_like(arrays["s2"], 2000)})
    assert blank is not None
    assert blank < OUTLIER_BELOW
    assert agreement(arrays, np.zeros(len(WAVELENGTH)), JULY, BANDS) is None
    assert agreement({name: arrays[name] for name in ("enmap", "s2")}, WAVELENGTH, JULY, BANDS) is not None


def test_the_limit_of_a_store_follows_from_its_samples() -> None:
    assert Distribution.of([]).limit == OUTLIER_BELOW
    assert Distribution.of([0.9] * 19).limit == OUTLIER_BELOW
    tight = [0.9 + 0.001 * place for place in range(40)]
    assert Distribution.of(tight).limit == NO_OUTLIER_ABOVE
    assert Distribution.of([0.1 + 0.02 * place for place in range(40)]).limit == OUTLIER_BELOW
    assert Distribution.of([0.88, 0.92] * 20).limit == pytest.approx(0.9 - 4 * 1.4826 * 0.02)
    found = Distribution.of(tight)
    assert found.percentiles[50] == pytest.approx(np.median(tight))
    assert (found.percentiles[0], found.percentiles[100]) == (min(tight), max(tight))
    assert found.as_json()["samples"] == 40


def block_of(places: list[int], turned: int | None) -> BlockValues:
    """A block of samples of these slots; the rows of one are turned."""
    samples = [scene(slot) for slot in places]
    for slot, arrays in zip(places, samples, strict=True):
        if slot == turned:
            arrays["enmap"] = arrays["enmap"][:, ::-1]
    rows = pd.DataFrame(
        {
            "sample": [f"sample {slot}" for slot in places],
            "slot": places,
            "scene_time": pd.to_datetime([f"2022-{JULY:02d}-24T10:45:26Z"] * len(places)),
        }
    )
    stacked = {name: np.stack([one[name] for one in samples]) for name in samples[0]}
    return BlockValues(2022, "train", stacked, imported=False, rows=rows)


def judged(turned: int | None, wavelengths: int = 30, without_rows: int | None = None) -> list[Any]:
    """What is reported of a store of 24 samples in three blocks, of which the wavelengths of some slots are known.

    without_rows: a block whose rows of the samples index are lost.
    """
    known = {"wavelength": np.tile(WAVELENGTH, (wavelengths, 1))} if wavelengths else {}
    release: Any = SimpleNamespace(
        coordinates={2022: known},
        attributes={"layout": {"s2_bands": BANDS, "enmap_bands": 2, "labels": False}},
        remedies=Remedies("STORE", "built"),
    )
    checks = AgreementChecks(release)
    reports: list[Any] = []
    shown = None
    for block in range(3):
        values = block_of(list(range(8 * block, 8 * block + 8)), turned)
        values = replace(values, rows=None) if block == without_rows else values
        kept = checks.check_values(values, None).kept
        assert kept is not None
        shown = watched(checks.compare_block(shown, 2022, block, kept), reports.append)
    shown = watched(checks.end_season(shown, 2022, {}), reports.append)
    return [*reports, *checks.end_store(shown)]


def test_a_store_whose_samples_agree_has_a_distribution_and_no_warning() -> None:
    *counted, measured = judged(turned=None)
    assert counted == [Counted("samples_of_two_sensors", 8)] * 3
    assert (measured.name, measured.distribution["samples"]) == ("enmap_with_s2", 24)
    assert measured.distribution["percentiles"]["0"] > 0.95


def test_a_sample_with_its_rows_turned_is_a_warning_with_its_place() -> None:
    *_, measured, one = judged(turned=13)
    assert (one.severity, one.check) == ("warning", "agreement")
    assert one.where == "2022/enmap and s2, sample sample 13 (block 1)"
    assert f"correlation of {measured.distribution['percentiles']['0']:.2f} only" in one.what
    assert "`h2crop retract STORE --block 2022:1 " in one.remedy
    # Slots whose wavelengths nobody knows are not compared.
    *_, measured = judged(turned=13, wavelengths=13)
    assert measured.distribution["samples"] == 13


def test_blocks_that_cannot_be_compared_are_said_to_be_unchecked() -> None:
    said = NotChecked(
        "whether EnMAP shows what Sentinel-2 shows, in blocks of 2022: their rows of the samples index are lost or "
        "damaged"
    )
    first, second, third, measured = judged(turned=10, without_rows=1)
    assert [first, second, third] == [Counted("samples_of_two_sensors", 8), said, Counted("samples_of_two_sensors", 8)]
    assert measured.distribution["samples"] == 16
    *unchecked, measured = judged(turned=None, wavelengths=0)
    assert {type(one) for one in unchecked} == {NotChecked}
    assert "their wavelengths are lost or damaged" in unchecked[0].what
    assert measured.distribution["samples"] == 0
