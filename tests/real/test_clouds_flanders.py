"""Masks of 118 real dates over one patch: what someone who looked at each picture saw, against what the masks say.

Pictures and verdicts: docs/clouds.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from flanders_dates import CLEAR_DATES, Dates, default_rules, detected, read_dates, tile_dates, with_detector
from numpy.typing import NDArray

import h2crop_data
from h2crop_data.sentinel2.clouds import method_named
from h2crop_data.sentinel2.tile_masks import MaskCode, TileDates, mask_tile

RECIPE = Path(__file__).parent / "recipes/flanders_2018.yaml"
MAIZE, GRASS = 1200, 9120
#: No ground shows through anywhere.
OVERCAST = (
    "2017-08-04", "2017-09-06", "2017-09-13", "2017-09-16", "2017-10-06", "2017-11-05", "2017-11-15", "2017-11-25",
    "2017-12-02", "2017-12-15", "2017-12-20", "2017-12-22", "2018-01-11", "2018-02-15", "2018-04-04", "2018-04-11",
    "2018-04-14", "2018-05-01", "2018-05-16", "2018-05-19", "2018-05-31", "2018-06-20", "2018-07-03", "2018-08-12",
    "2018-08-19", "2018-08-22", "2018-08-27", "2018-09-03", "2018-09-06", "2018-09-23", "2018-09-28", "2018-10-01",
    "2018-10-18", "2018-11-07", "2018-11-10", "2018-11-15",
)  # fmt: skip
#: Parts of the patch, rows from north and columns from west, 20 m.
Part = tuple[slice, slice]
WHOLE = (slice(None), slice(None))
DEFAULTS = ("scl", "scl+ukis")


@pytest.fixture(scope="module")
def dates(shared: Path) -> Dates:
    return read_dates(shared / "flanders_2018")


@pytest.fixture(scope="module")
def ukis(dates: Dates) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return detected(dates, method_named("ukis"))


Kept = Callable[[str, str, Part], float]


@pytest.fixture(scope="module")
def codes(dates: Dates, ukis: Any) -> dict[str, NDArray[np.uint8]]:
    """The codes (n, 32, 32) of the masks by their methods."""
    tile = tile_dates(dates)
    seen = with_detector(tile, ukis)
    return {
        "scl": mask_tile(tile, default_rules("scl")),
        "scl+ukis": mask_tile(seen, default_rules("scl+ukis")),
        "ukis": mask_tile(seen, default_rules("ukis")),
    }


@pytest.fixture(scope="module")
def kept(dates: Dates, codes: dict[str, NDArray[np.uint8]]) -> Kept:
    """A function that says which share of a part of a date a mask keeps."""

    def share(method: str, day: str, part: Part = WHOLE) -> float:
        return float((codes[method][dates.place(day)][part] == MaskCode.CLEAR).mean())

    return share


def test_no_overcast_date_is_kept(kept: Any) -> None:
    """36 dates; the network knows them all without the classification too."""
    for method in (*DEFAULTS, "ukis"):
        assert max(kept(method, day) for day in OVERCAST) < 0.01, method


@pytest.mark.parametrize("method", DEFAULTS)
def test_dates_seen_to_be_clear_are_kept(method: str, kept: Any, dates: Dates) -> None:
    """36 dates, of which the classes 4, 5, 6 alone keep 90.8 %: 16 to 46 % of winter dates are unclassified."""
    alone = np.isin(dates.classes[[dates.place(day) for day in CLEAR_DATES]], (4, 5, 6)).mean()
    shares = [kept(method, day) for day in CLEAR_DATES]
    assert np.mean(shares) > max(0.95, alone)
    assert np.median(shares) > 0.97
    assert min(shares) > 0.7


@pytest.mark.parametrize("method", DEFAULTS)
def test_the_second_look_leaves_clear_ground_alone(
    method: str, dates: Dates, codes: dict[str, NDArray[np.uint8]]
) -> None:
    """Harvests, ploughing and drying of a year are among these dates. A date in shadow it drops nevertheless."""
    dropped = codes[method] == MaskCode.SECOND_LOOK
    assert dropped[[dates.place(day) for day in CLEAR_DATES]].mean() < 0.02
    assert dropped[dates.place("2017-12-27")].mean() > 0.2


@pytest.mark.parametrize(("day", "most"), [("2018-05-24", 0.1), ("2018-06-10", 0.02)])
def test_veils_and_broken_overcast_that_the_classification_takes_for_ground(
    day: str, most: float, kept: Any, dates: Dates
) -> None:
    """39 and 48 % of these dates are of the classes 4, 5, 6; in the pictures nothing of them is clear."""
    assert np.isin(dates.classes[dates.place(day)], (4, 5, 6)).mean() > 0.35
    assert kept("scl+ukis", day) < most


def test_a_bright_veil_that_the_network_takes_for_ground(kept: Any, dates: Dates, ukis: Any) -> None:
    """2018-06-15: all of it 0.03 too bright in blue. Neither method is right alone."""
    place = dates.place("2018-06-15")
    assert not ukis[0][place].any()
    assert not ukis[1][place].any()
    assert kept("scl", "2018-06-15") == kept("scl+ukis", "2018-06-15") == 0


@pytest.mark.parametrize("method", DEFAULTS)
@pytest.mark.parametrize(
    ("day", "part", "least", "most"),
    [
        # All of it in the shadow of a cloud outside, half as bright as usual: SCL says a third of it is vegetation.
        ("2017-12-27", WHOLE, 0, 0.12),
        # Slight haze, 0.02 in blue: usable.
        ("2018-07-05", WHOLE, 0.98, 1),
        # A shadow as black as can be, and the ground beside it.
        ("2018-06-03", (slice(14, 24), slice(4, 10)), 0, 0.02),
        ("2018-06-03", (slice(None), slice(16, None)), 0.75, 1),
        # A cloud in the corner.
        ("2018-07-18", (slice(0, 6), slice(28, None)), 0, 0.25),
        # Cloud and veil in the north-east.
        ("2018-06-25", (slice(0, 10), slice(20, None)), 0, 0.25),
        # Thick in the corner of a veil.
        ("2018-07-13", (slice(0, 8), slice(24, None)), 0, 0.05),
        # Under a cloud's shadow but for the north-eastern corner.
        ("2018-11-02", (slice(12, None), slice(0, 14)), 0, 0.02),
        # East of a small cloud.
        ("2018-03-20", (slice(None), slice(14, None)), 0.95, 1),
    ],
)
def test_what_pictures_show(method: str, day: str, part: Part, least: float, most: float, kept: Any) -> None:
    assert least <= kept(method, day, part) <= most


def test_the_halo_of_a_small_cloud(kept: Any, dates: Dates) -> None:
    """2018-03-20: the classification knows the core of it only."""
    halo = (slice(9, 18), slice(0, 7))
    assert np.isin(dates.classes[dates.place("2018-03-20")][halo], (4, 5, 6)).mean() > 0.3
    assert kept("scl+ukis", "2018-03-20", halo) < 0.2


def test_a_shadow_that_the_classification_does_not_see(kept: Any, dates: Dates) -> None:
    """2018-06-25, the southern edge, under a cloud of which little stands over the patch."""
    south = (slice(26, None), slice(None))
    alone = np.isin(dates.classes[dates.place("2018-06-25")][south], (4, 5, 6)).mean()
    assert alone > 0.8
    assert kept("scl", "2018-06-25", south) < 0.7 * alone
    assert kept("scl+ukis", "2018-06-25", south) < 0.3


@pytest.fixture(scope="module")
def season(build_real: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The four samples of 2018, built with the masks of a recipe that says nothing of clouds."""
    document = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    document["sentinel2"].pop("clouds", None)
    path = tmp_path_factory.mktemp("recipes") / "flanders_default.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return h2crop_data.open(build_real(path), 2018, scaled=True).load()


def of_year(tile: TileDates, year: int, days: Any) -> TileDates:
    """The dates of a year."""
    wanted = np.array([day.year == year for day in days])
    return replace(tile, **{field.name: getattr(tile, field.name)[wanted] for field in fields(tile)})


def test_a_build_masks_what_the_masks_here_do(season: Any, dates: Dates) -> None:
    """Clear observations of each pixel and month: the build reads, tiles and counts, and computes the sun itself."""
    codes = mask_tile(of_year(tile_dates(dates), 2018, dates.days), default_rules("scl"))
    months = np.array([day.month for day in dates.days if day.year == 2018])
    for i in range(4):
        row, column = round((5629680 - float(season.y0[i])) / 20), round((float(season.x0[i]) - 501360) / 20)
        clear = (codes[:, row : row + 12, column : column + 12] == MaskCode.CLEAR).repeat(2, 1).repeat(2, 2)
        for month in range(1, 13):
            here = clear[months == month].sum(axis=0)
            assert (season.s2_clear[i, month - 1].values == here).mean() > 0.99, month


def test_calendars_of_crops_stay_right(season: Any, shared: Path) -> None:
    """Maize: bare in May, greenest in July or August. Grass: green all summer but for the drought of July."""
    nir, red = season.s2.sel(s2_band="B08").values, season.s2.sel(s2_band="B04").values
    ndvi = (nir - red) / (nir + red)
    with rasterio.open(shared / "flanders_2018/crop_type_2018.tif") as raster:
        of_patch = raster.read(1)
    crops = []
    for i in range(4):
        row, column = round((5629680 - float(season.y0[i])) / 10), round((float(season.x0[i]) - 501360) / 10)
        crops.append(of_patch[row : row + 24, column : column + 24])
    of_sample = np.stack(crops)
    maize, grass = (
        {month: float(np.nanmean(ndvi[:, month - 1][of_sample == crop])) for month in range(4, 11)}
        for crop in (MAIZE, GRASS)
    )
    peak = max(maize, key=lambda month: maize[month])
    assert peak in (7, 8), maize
    assert maize[peak] > 0.7 > 0.5 > maize[5], maize
    assert min(grass.values()) > 0.35, grass
    assert grass[5] > grass[7], grass
    # Clouds make months jump: rise and fall of maize have one peak.
    rise = [maize[month] for month in range(5, peak + 1)]
    fall = [maize[month] for month in range(peak, 11)]
    assert rise == sorted(rise), maize
    assert fall == sorted(fall, reverse=True), maize
