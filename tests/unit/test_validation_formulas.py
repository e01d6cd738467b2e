"""What validation computes for itself: against plain numpy, and against the builder, which shares no line with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from h2crop_data.grid import Cell, in_own_zone, split_of_square, split_squares
from h2crop_data.sources.formats import known_layout
from h2crop_data.splits.squares import leaks
from h2crop_data.validation.figures import (
    BandTally,
    figures_of_array,
    figures_of_band,
    figures_of_block,
    figures_together,
    tallied,
    tally_together,
    unlike,
)
from h2crop_data.validation.places import (
    drawn_split,
    ground_of_cell,
    inside_zone,
    leaking_pairs,
    squares_of_grounds,
)

SPECS = known_layout(60, 4, enmap_bands=3, s2_bands=["B02", "B03"]).arrays()
FILL = -32768
NUMBERS = hnp.arrays(np.int16, st.integers(1, 60), elements=st.integers(-32768, 32767))


@given(NUMBERS)
def test_figures_of_a_band_are_those_of_numpy(values: NDArray[np.int16]) -> None:
    found = figures_of_band(tallied(values), 1e-4)
    exact = values.astype(float)
    assert found["count"] == len(values)
    assert found["mean"] == pytest.approx(exact.mean() * 1e-4, rel=1e-12, abs=1e-12)
    assert found["sd"] == pytest.approx(exact.std() * 1e-4, rel=1e-9, abs=1e-12)
    assert (found["min"], found["max"]) == pytest.approx((exact.min() * 1e-4, exact.max() * 1e-4))
    # What numpy calls the inverted distribution is the nearest rank.
    percent = [int(name) for name in found["percentiles"]]
    wanted = np.percentile(exact, percent, method="inverted_cdf") * 1e-4
    assert list(found["percentiles"].values()) == pytest.approx(wanted.tolist())


@given(NUMBERS, NUMBERS)
def test_tallies_together_are_the_tally_of_all(one: NDArray[np.int16], other: NDArray[np.int16]) -> None:
    together = tally_together([tallied(one), BandTally(0, np.zeros(0, np.int64)), tallied(other)])
    whole = tallied(np.concatenate([one, other]))
    assert together.lowest == whole.lowest
    np.testing.assert_array_equal(together.pixels, whole.pixels)


def arrays_of(chance: np.random.Generator, samples: int) -> dict[str, NDArray[Any]]:
    """Random arrays of a block, with fill and flags."""
    arrays = {}
    for name, spec in SPECS.items():
        shape = (samples, *spec.sample_shape)
        high = 5000 if spec.is_reflectance else 6
        arrays[name] = chance.integers(0, high, shape).astype(spec.dtype)
        if spec.is_reflectance:
            arrays[name][chance.random(shape) < 0.3] = FILL
    return arrays


def test_figures_of_blocks_are_those_of_all_their_pixels() -> None:
    chance = np.random.default_rng(3)
    blocks = [arrays_of(chance, samples) for samples in (1, 3)]
    masks = {"enmap_quality": 4, "enmap_mask": 0}
    together = figures_together([figures_of_block(arrays, SPECS, "train", masks) for arrays in blocks])
    whole = {name: np.concatenate([arrays[name] for arrays in blocks]) for name in SPECS}
    assert together.samples == 4
    usable = (whole["enmap_quality"] & 4) == 0
    for band, figures in enumerate(figures_of_array(together.tallies["enmap"], SPECS["enmap"])["enmap"]):
        values = whole["enmap"][:, band]
        values = values[usable & (values != FILL)]
        assert (figures["count"], figures["mean"]) == (len(values), pytest.approx(values.mean() * 1e-4, rel=1e-12))
    of_s2 = figures_of_array(together.tallies["s2"], SPECS["s2"])
    for band in range(2):
        year = whole["s2"][:, :, band]
        assert of_s2["s2"][band]["sd"] == pytest.approx(year[year != FILL].std() * 1e-4, rel=1e-9)
        july = year[:, 6]
        assert of_s2["s2_by_month"][6][band]["mean"] == pytest.approx(july[july != FILL].mean() * 1e-4, rel=1e-12)
    for tier in range(4):
        counts = [int((whole["label"][:, tier] == number).sum()) for number in range(256)]
        assert together.pixels["label"][tier].tolist() == counts
    labelled = set(whole["parcel"][whole["label"][:, 0] > 0].tolist()) - {0}
    assert together.labelled_parcels.tolist() == sorted(labelled)
    # In other splits values are not described.
    assert figures_of_block(blocks[0], SPECS, "val", masks).tallies == {}


def test_flags_that_the_format_states_go_before_those_of_the_recipe() -> None:
    arrays = arrays_of(np.random.default_rng(4), 2)
    counted = SPECS["enmap"].statistics
    assert counted is not None
    stated = {**SPECS, "enmap": replace(SPECS["enmap"], statistics=replace(counted, flags=1))}
    figures = figures_of_block(arrays, stated, "train", {"enmap_quality": 7})
    wanted = ((arrays["enmap_quality"] & 1 == 0) & (arrays["enmap"][:, 0] != FILL)).sum()
    assert figures.tallies["enmap"][0].pixels.sum() == wanted > 0


def test_documents_may_differ_by_rounding_alone() -> None:
    document = {"mean": [0.1, 2.0], "count": 7, "name": "x"}
    assert unlike(document, {"mean": [0.1 * (1 + 1e-12), 2], "count": 7, "name": "x"}) == ""
    assert unlike(document, {"mean": [0.1 * (1 + 1e-7), 2.0], "count": 7, "name": "x"}).startswith("mean[0] is 0.1")
    assert unlike(document, {"mean": [0.1, 2.0], "count": 8, "name": "x"}) == "count is 8, expected 7"
    assert unlike(document, {"mean": [0.1, 2.0], "name": "x"}) == "count is missing"
    assert unlike(document, {**document, "more": 1}) == "more is not expected"
    assert unlike(document, {**document, "mean": [0.1]})
    assert unlike(document, {**document, "count": True})


SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


@given(st.integers(-9999, 9999), st.integers(-9999, 9999), st.integers(0, 99))
def test_the_draw_of_a_square_is_the_one_of_the_builder(column: int, row: int, seed: int) -> None:
    assert drawn_split(f"{column}_{row}", 15360, SHARES, seed) == split_of_square((column, row), 15360, SHARES, seed)


def test_shares_that_are_rounded_leave_no_square_without_a_split() -> None:
    assert drawn_split("1_1", 1000, {"train": 1e-9, "val": 0.0}, 1) == "train"
    with pytest.raises(ValueError, match="invalid literal"):
        drawn_split("none", 1000, SHARES, 1)


@given(st.sampled_from([32631, 32660, 32701]), st.integers(1, 40), st.integers(-12000, 12000), st.integers(0, 99999))
def test_the_ground_of_a_cell_is_the_one_of_the_builder(epsg: int, size: int, column: int, row: int) -> None:
    cell = Cell(epsg, 60 * size, column, row)
    assert ground_of_cell(cell.id) == (epsg, 60 * size, *cell.corner)


@pytest.mark.parametrize(
    "name",
    [
        *("none", "32631_1920_261_2932", "32631_1920_00261_2932", "32661_1920_0261_2932", "32631_1930_0261_2932"),
        *("32631_0_0261_2932", "12631_1920_0261_2932", "32631_1920_0261", 7, None),
    ],
)
def test_other_texts_are_no_cells(name: Any) -> None:
    assert ground_of_cell(name) is None


def test_squares_and_zones_are_those_of_the_builder() -> None:
    chance = np.random.default_rng(5)
    places = chance.integers((0, 2500), (600, 3100), (300, 2)).tolist()
    cells = [Cell(int(chance.choice([32631, 32632])), 1920, *place) for place in places]
    grounds = [ground_of_cell(cell.id) for cell in cells]
    epsg, side, west, north = np.array(grounds, np.int64).T
    expected = [f"{column}_{row}" for column, row in split_squares(cells, 15360)]
    assert squares_of_grounds(epsg, side, west, north, 15360).tolist() == expected
    inside = inside_zone(epsg, side, west, north)
    wanted = [bool(in_own_zone(cell.epsg, *np.array(cell.bounds[:2])[:, None], 1920)[0]) for cell in cells]
    assert inside.tolist() == wanted
    assert 0 < inside.sum() < len(cells)


@pytest.mark.parametrize("buffer", [0.0, 700.0])
def test_leaks_are_those_that_the_builder_finds(buffer: float) -> None:
    """On both sides of the border of two zones, where cells of one overlap those of the other, and cells twice."""
    chance = np.random.default_rng(6)
    rows = []
    for number in range(120):
        epsg, column = (32631, 368) if number % 2 else (32632, 146)
        cell = Cell(epsg, 1920, column + int(chance.integers(0, 8)), 2900 + int(chance.integers(0, 10)))
        rows.append(
            {
                "sample": f"{cell.id}_{number:03d}",
                "cell": cell.id,
                "epsg": epsg,
                "x0": float(cell.corner[0]),
                "y0": float(cell.corner[1]),
                "split": str(chance.choice(["train", "val", "test"])),
                "geometry": cell.outline,
            }
        )
    samples = gpd.GeoDataFrame(rows, geometry="geometry", crs="OGC:CRS84")
    found = leaking_pairs(samples, buffer)
    expected = {(one, other): why for one, other, why in leaks(samples, buffer)}
    assert set(found) == set(expected)
    across = [pair for pair in found if pair[0][:5] != pair[1][:5]]
    assert across
    assert {why.split()[-1] for why in found.values()} >= {"cell", "overlap"}
