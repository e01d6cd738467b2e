"""Splits: every class everywhere where that can be, shares met, ground apart, and leaks found."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from functools import lru_cache

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from h2crop_data.grid import LONLAT, SPLIT_CRS, Cell, split_of_square, split_squares
from h2crop_data.splits.search import Exchange, SquaresToSplit
from h2crop_data.splits.squares import (
    Square,
    SquareContent,
    inside_buffer,
    leaks,
    optimised_splits,
    promised_classes,
    split_problems,
)

SHARES = {"train": 0.735, "val": 0.129, "test": 0.136}
SIZE = 15_360
CELL = 1920
GEOD = pyproj.Geod(ellps="WGS84")

Contents = dict[Square, SquareContent]


@lru_cache(maxsize=64)
def transformer(source: str | int, target: str | int) -> pyproj.Transformer:
    """A transformer with x or longitude first."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def hashed(squares: Sequence[Square], shares: dict[str, float] = SHARES, seed: int = 0) -> dict[Square, str]:
    """The splits by hash alone."""
    return {square: split_of_square(square, SIZE, shares, seed) for square in squares}


def sample_shares(contents: Contents, splits: dict[Square, str]) -> dict[str, float]:
    """The share of the samples in each split, counted one by one."""
    total = sum(content.samples for content in contents.values())
    return {
        name: sum(content.samples for square, content in contents.items() if splits[square] == name) / total
        for name in SHARES
    }


def missing_pairs(contents: Contents, splits: dict[Square, str], names: Sequence[str]) -> int:
    """How many (class, split) are missing, of classes that at least as many squares show as there are splits."""
    found: dict[tuple[int, int], list[str]] = {}
    for square, content in contents.items():
        for name in content.classes if content.samples else ():
            found.setdefault(name, []).append(splits[square])
    return sum(len(set(names) - set(where)) for where in found.values() if len(where) >= len(names))


def fewest_missing_pairs(contents: Contents, fixed: dict[Square, str], names: Sequence[str]) -> int:
    """The least of it over every assignment there is."""
    squares = sorted(contents)
    choices = [[fixed[square]] if square in fixed else names for square in squares]
    return min(
        missing_pairs(contents, dict(zip(squares, choice, strict=True)), names)
        for choice in itertools.product(*choices)
    )


def contents_of(samples: Sequence[int], places: dict[int, Sequence[int]]) -> Contents:
    """Squares in a row with so many samples; places: number of a class of tier 4 -> the squares that show it."""
    return {
        (220 + i, 180): SquareContent(count, frozenset((4, name) for name, shown in places.items() if i in shown))
        for i, count in enumerate(samples)
    }


@st.composite
def small_contents(draw: st.DrawFn, most: int = 6) -> Contents:
    """A few squares with classes in some of them."""
    count = draw(st.integers(1, most))
    square = st.integers(0, count - 1)
    places = draw(st.lists(st.sets(square, min_size=1, max_size=4), max_size=8))
    samples = draw(st.lists(st.sampled_from([0, 1, 10, 64, 64, 64]), min_size=count, max_size=count))
    return contents_of(samples, dict(enumerate(places)))


# Optimised splits


@pytest.mark.slow
@given(small_contents(), st.data())
@settings(deadline=None, max_examples=40, derandomize=True)
def test_no_assignment_misses_fewer_classes(contents: Contents, data: st.DataObject) -> None:
    fixed = data.draw(st.dictionaries(st.sampled_from(sorted(contents)), st.sampled_from(sorted(SHARES)), max_size=2))
    splits = optimised_splits(contents, SHARES, 0, SIZE, fixed)
    assert missing_pairs(contents, splits, list(SHARES)) == fewest_missing_pairs(contents, fixed, list(SHARES))


def hidden_contents(count: int, classes: int, seed: int) -> Contents:
    """Squares whose classes hide an assignment: each class is in one square of each split, as rare as can be."""
    draw = random.Random(seed)
    hidden = ["train", "val", "test", *draw.choices(list(SHARES), [0.6, 0.2, 0.2], k=count - 3)]
    of_split = {name: [i for i in range(count) if hidden[i] == name] for name in SHARES}
    places = {number: [draw.choice(of_split[name]) for name in SHARES] for number in range(classes)}
    return contents_of(draw.choices([64, 50, 10], k=count), places)


def rare_contents(count: int, classes: int, seed: int) -> Contents:
    """Squares whose classes are each in three of them, anywhere."""
    draw = random.Random(seed)
    places = {number: draw.sample(range(count), 3) for number in range(classes)}
    return contents_of(draw.choices([64, 50, 10], k=count), places)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("count", "classes"), [(12, 10), (40, 25), (60, 120), (100, 66)])
def test_every_class_is_in_every_split_where_some_assignment_manages_that(count: int, classes: int, seed: int) -> None:
    contents = hidden_contents(count, classes, seed)
    assert missing_pairs(contents, hashed(list(contents)), list(SHARES)) > 0
    splits = optimised_splits(contents, SHARES, 0, SIZE, {})
    assert missing_pairs(contents, splits, list(SHARES)) == 0
    assert not [problem for problem in split_problems(contents, splits, SHARES) if problem.startswith("class")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("contents", "missing", "distance"),
    [
        (rare_contents(60, 20, 0), 0, 0.05699473),
        (rare_contents(40, 20, 1), 0, 0.39119565),
        (rare_contents(40, 20, 0), 1, None),
        (rare_contents(40, 20, 2), 2, None),
        (rare_contents(60, 40, 0), 3, None),
        (rare_contents(60, 40, 1), 1, None),
        (rare_contents(60, 40, 2), 2, None),
        (hidden_contents(40, 25, 0), 0, 0.28683732),
        (hidden_contents(40, 25, 2), 0, 0.18557562),
        (hidden_contents(60, 40, 1), 0, 0.04563767),
        (hidden_contents(100, 66, 0), 0, 0.37413448),
        (hidden_contents(100, 66, 1), 0, 0.24113010),
    ],
)
def test_nothing_better_exists(contents: Contents, missing: int, distance: float | None) -> None:
    # An exact solver (HiGHS, as mixed integer program) found, and proved, the fewest missing classes and, where none is
    # missing, the least sum of the differences from the wanted shares.
    splits = optimised_splits(contents, SHARES, 0, SIZE, {})
    assert missing_pairs(contents, splits, list(SHARES)) == missing
    found = sample_shares(contents, splits)
    if distance is not None:
        assert sum(abs(found[name] - SHARES[name]) for name in SHARES) == pytest.approx(distance, abs=1e-7)


def test_squares_that_left_their_split_for_nothing_come_back() -> None:
    home = np.array([0, 0, 1, 1])
    squares = SquaresToSplit(np.zeros((4, 0), bool), np.full(4, 5), np.array([10, 10]), home, np.ones(4, bool))
    state = Exchange(squares, random.Random(0))
    state.place(1 - state.home)
    state.meet_shares()
    np.testing.assert_array_equal(state.in_given_order(), home)


@pytest.mark.slow
@given(small_contents(12), st.integers(0, 3), st.randoms(use_true_random=False), st.data())
@settings(deadline=None, max_examples=15, derandomize=True)
def test_the_order_of_what_is_given_does_not_matter_and_fixed_squares_stay(
    contents: Contents, seed: int, shuffler: random.Random, data: st.DataObject
) -> None:
    fixed = data.draw(st.dictionaries(st.sampled_from(sorted(contents)), st.sampled_from(sorted(SHARES)), max_size=4))
    # A square that was decided before and holds nothing now.
    fixed[900, 900] = "val"
    splits = optimised_splits(contents, SHARES, seed, SIZE, fixed)
    again = optimised_splits(
        *(dict(shuffler.sample(list(given.items()), len(given))) for given in (contents, SHARES)),
        seed,
        SIZE,
        dict(reversed(fixed.items())),
    )
    assert list(again.items()) == list(splits.items())
    assert set(splits) == set(contents) | set(fixed)
    assert {square: splits[square] for square in fixed} == fixed
    empty = [square for square in contents if not contents[square].samples and square not in fixed]
    assert {square: splits[square] for square in empty} == hashed(empty, seed=seed)


def test_the_splits_of_a_store_stay_the_same_in_later_versions() -> None:
    contents = contents_of([64] * 12, {1: [0, 1, 2], 2: [3, 4, 5, 6], 3: [0, 7, 8], 4: [9, 10, 11]})
    assert " ".join(hashed(sorted(contents)).values()) == (
        "test train train test test train test train train val train train"
    )
    splits = optimised_splits(contents, SHARES, 0, SIZE, {})
    assert " ".join(splits.values()) == "test val train test train train val train val val train test"


def large_contents() -> Contents:
    """5000 squares and 300 classes, many of them rare."""
    draw = random.Random(5)
    squares = [(200 + i % 71, 150 + i // 71) for i in range(5000)]
    classes: dict[Square, set[tuple[int, int]]] = {square: set() for square in squares}
    for number in range(300):
        for square in draw.sample(squares, int(4500 * draw.random() ** 8) + draw.randint(1, 5)):
            classes[square].add((1 + number % 4, number))
    return {square: SquareContent(draw.choice([64, 64, 50, 10]), frozenset(classes[square])) for square in squares}


@pytest.mark.slow
def test_a_continent_meets_classes_and_shares_with_few_squares_moved() -> None:
    contents = large_contents()
    before = hashed(list(contents))
    assert missing_pairs(contents, before, list(SHARES)) > 30
    splits = optimised_splits(contents, SHARES, 0, SIZE, {})
    assert missing_pairs(contents, splits, list(SHARES)) == 0
    assert sample_shares(contents, splits) == pytest.approx(SHARES, abs=5e-4)
    assert sum(splits[square] != before[square] for square in contents) < 200
    assert split_problems(contents, splits, SHARES) == []


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_met_to_a_square_with_no_more_moves_than_it_takes(seed: int) -> None:
    contents = contents_of([10] * 200, {})
    before = hashed(list(contents), seed=seed)
    splits = optimised_splits(contents, SHARES, seed, SIZE, {})
    found, wrong = sample_shares(contents, splits), sample_shares(contents, before)
    assert all(abs(found[name] - SHARES[name]) <= 1 / 200 for name in SHARES)
    needed = sum(max(0.0, wrong[name] - SHARES[name]) for name in SHARES) * 200
    assert sum(splits[square] != before[square] for square in contents) <= needed + 2


def test_shares_are_met_as_closely_as_squares_allow() -> None:
    # Large squares that no single move makes even, and one way to fill train: 64 + 9 of 100 samples.
    contents = contents_of([64, 14, 13, 9], {})
    splits = optimised_splits(contents, {"train": 0.73, "val": 0.14, "test": 0.13}, 0, SIZE, {})
    assert list(splits.values()) == ["train", "val", "test", "train"]


def test_a_hash_that_meets_everything_is_left_alone() -> None:
    squares = [(220 + i, 180) for i in range(60)]
    before = hashed(squares)
    members = {name: [square for square in squares if before[square] == name] for name in SHARES}
    samples = dict.fromkeys(squares, 1)
    for name, inside in members.items():
        samples[inside[0]] += round(1000 * SHARES[name]) - len(inside)
    contents = {square: SquareContent(samples[square], frozenset({(1, 1), (4, 2)})) for square in squares}
    assert sample_shares(contents, before) == pytest.approx(SHARES)
    assert optimised_splits(contents, SHARES, 0, SIZE, {}) == before


def test_classes_take_precedence_over_shares() -> None:
    contents = contents_of([1000, 1000, 1000, 1], {1: [0, 1, 2]})
    splits = optimised_splits(contents, {"train": 0.98, "val": 0.01, "test": 0.01}, 0, SIZE, {})
    assert {splits[square] for square in sorted(contents)[:3]} == {"train", "val", "test"}


def test_two_splits_promise_classes_of_two_squares_and_the_third_gets_nothing() -> None:
    shares = {"train": 0.8, "val": 0.0, "test": 0.2}
    contents = contents_of([10] * 10, {1: [0, 1], 2: [1, 2], 3: [5]})
    splits = optimised_splits(contents, shares, 0, SIZE, {})
    assert missing_pairs(contents, splits, ["train", "test"]) == 0
    assert set(splits.values()) == {"train", "test"}
    # A square of an earlier time may be in a split that gets nothing now.
    assert optimised_splits(contents, shares, 0, SIZE, {(220, 180): "val"})[220, 180] == "val"


@pytest.mark.parametrize("contents", [{}, contents_of([5, 0, 3], {1: [0, 1, 2]})])
def test_one_split_or_nothing_to_split(contents: Contents) -> None:
    assert optimised_splits(contents, {"train": 1.0}, 0, SIZE, {}) == dict.fromkeys(sorted(contents), "train")
    assert set(optimised_splits(contents, SHARES, 0, SIZE, {})) == set(contents)


def test_classes_of_squares_without_samples_are_promised_nothing() -> None:
    contents = contents_of([5, 0, 3, 2], {1: [0, 1, 2], 2: [0, 2, 3]})
    assert promised_classes(contents, SHARES) == {(4, 2): [(220, 180), (222, 180), (223, 180)]}


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """A state of the search on its way."""
    n, k, s = draw(st.integers(2, 9)), draw(st.integers(0, 6)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    squares = SquaresToSplit(
        shows=rng.random((n, k)) < 0.4,
        samples=rng.integers(1, 65, n),
        wanted=rng.integers(0, 300, s),
        home=rng.integers(0, s, n),
        movable=np.ones(n, bool),
    )
    state = Exchange(squares, random.Random(0))
    for square, target in draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, s - 1)), max_size=12)):
        if state.split[square] != target:
            state.move(square, target)
    return state


def cost_after(state: Exchange, *changes: tuple[int, int]) -> float:
    """The cost once squares have moved, computed from nothing, with the state as it was before."""
    before, after = state.split.copy(), state.split.copy()
    for square, target in changes:
        after[square] = target
    state.place(after)
    cost = state.cost
    state.place(before)
    return cost


@pytest.mark.slow
@given(exchanges())
@settings(deadline=None, max_examples=100)
def test_costs_of_moves_and_exchanges_are_those_of_a_fresh_count(state: Exchange) -> None:
    names = ("counts", "alone", "brings", "over", "missing")
    followed = {name: np.copy(getattr(state, name)) for name in names}
    fresh = cost_after(state)
    for name in names:
        np.testing.assert_array_equal(getattr(state, name), followed[name], name)
    squares, splits = range(len(state.split)), range(len(state.wanted))
    moves = state.move_costs(state.all, weight=1)
    for square, target in itertools.product(squares, splits):
        if target == state.split[square]:
            assert moves[square, target] == np.inf
        else:
            assert moves[square, target] == pytest.approx(cost_after(state, (square, target)) - fresh, abs=1e-9)
    cheapest = list(state.exchanges(moves, weight=1))
    for cost, changes in cheapest:
        assert cost == pytest.approx(cost_after(state, *changes) - fresh, abs=1e-9)
    both_ways = [
        cost_after(state, (one, int(state.split[other])), (other, int(state.split[one]))) - fresh
        for one, other in itertools.combinations(squares, 2)
        if state.split[one] != state.split[other]
    ]
    assert min((cost for cost, _ in cheapest), default=0) == pytest.approx(min(both_ways, default=0), abs=1e-9)


# What is told


def test_problems_name_the_class_where_it_lacks_and_the_share() -> None:
    contents = contents_of([60, 20, 20, 100], {63: [0, 1, 2], 7: [0, 1], 8: [0, 1, 2, 3]})
    splits = dict(zip(sorted(contents), ["train", "train", "val", "test"], strict=True))
    assert split_problems(contents, splits, {"train": 0.41, "val": 0.09, "test": 0.50}) == [
        "class 4/63 occurs in 3 split squares, but in none of test"
    ]
    assert split_problems(contents, splits, {"train": 0.43, "val": 0.10, "test": 0.47})[1:] == [
        "test: expected 47.0% of the samples, got 50.0%",
        "train: expected 43.0% of the samples, got 40.0%",
    ]
    all_train = dict.fromkeys(contents, "train")
    assert split_problems(contents, all_train, {"train": 1.0}) == []
    assert "class 4/8 occurs in 4 split squares, but in none of test, val" in split_problems(
        contents, all_train, SHARES
    )
    assert split_problems(contents_of([0, 0], {}), dict.fromkeys(contents, "val"), SHARES) == []


# Buffers


def cells_around(longitude: float, latitude: float, epsg: int, count: int) -> list[Cell]:
    """A square of cells of a zone around a place; those beyond the zone are left out."""
    x, y = transformer(LONLAT, epsg).transform(longitude, latitude)
    column, row = int(x // CELL), int(y // CELL)
    cells = [
        Cell(epsg, CELL, column + i, row + j)
        for i in range(-count // 2, count // 2)
        for j in range(-count // 2, count // 2)
    ]
    west, east = (epsg % 100) * 6 - 186, (epsg % 100) * 6 - 180
    south, north = (0, 84) if epsg < 32700 else (-80, 0)
    inside = []
    for cell in cells:
        bounds = cell.outline.bounds
        if west <= bounds[0] and bounds[2] <= east and south <= bounds[1] and bounds[3] <= north:
            inside.append(cell)
    return inside


#: Places where zones meet: near Potsdam, in Lapland, near the Canaries, on the equator, and far from Europe.
BORDERS = {
    "potsdam": (12.0, 52.4, (32632, 32633)),
    "lapland": (24.0, 68.0, (32634, 32635)),
    "canaries": (-18.0, 28.0, (32627, 32628)),
    "equator": (6.0, 0.0, (32631, 32632, 32731, 32732)),
    "brazil": (-48.0, -12.0, (32722, 32723)),
}


@lru_cache(maxsize=64)
def border_cells(name: str, count: int) -> list[Cell]:
    longitude, latitude, zones = BORDERS[name]
    return [cell for epsg in zones for cell in cells_around(longitude, latitude, epsg, count)]


def random_splits(seed: int, unknown: float = 0.0) -> Callable[[Square], str | None]:
    """Splits of squares that have nothing to do with our hash; some not decided."""

    @lru_cache(maxsize=4096)
    def split_of(square: Square) -> str | None:
        draw = random.Random(f"{seed}/{square}")
        return None if draw.random() < unknown else draw.choice(["train", "train", "val", "test"])

    return split_of


def edge_points(cell: Cell, step: float = 120) -> NDArray[np.float64]:
    """Points along a cell's outline, (n, 2) longitude and latitude."""
    x, y = shapely.get_coordinates(shapely.segmentize(shapely.box(*cell.bounds), step)).T
    return np.stack(transformer(cell.epsg, LONLAT).transform(x, y), axis=1)


def ground_distance(one: Cell, other: Cell) -> float:
    """Metres between two cells on the ellipsoid, by geodesics between points of their outlines."""
    a, b = edge_points(one), edge_points(other)
    pairs = np.hstack([np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))])
    return float(GEOD.inv(*pairs.T)[2].min())


def near_pairs(cells: Sequence[Cell], distance: float) -> list[tuple[Cell, Cell]]:
    """Pairs of cells whose centres are near enough for their outlines to be within a distance."""
    centres = np.array([edge_points(cell, CELL).mean(axis=0) for cell in cells])
    pairs = np.array(list(itertools.combinations(range(len(cells)), 2)))
    apart = GEOD.inv(*centres[pairs[:, 0]].T, *centres[pairs[:, 1]].T)[2]
    return [(cells[i], cells[j]) for i, j in pairs[apart < distance + 1.5 * CELL].tolist()]


@pytest.mark.slow
@pytest.mark.parametrize("name", BORDERS)
@pytest.mark.parametrize("buffer", [300.0, 2500.0])
def test_kept_cells_of_two_splits_are_a_buffer_apart_now_and_when_more_is_decided(name: str, buffer: float) -> None:
    cells = border_cells(name, 16)
    squares = split_squares(cells, SIZE)
    square_of = dict(zip(cells, squares, strict=True))
    later = random_splits(1)

    def now(square: Square) -> str | None:
        return None if random.Random(f"{square}").random() < 0.3 else later(square)

    kept = set()
    for split_of in (now, later):
        left_out = inside_buffer(cells, squares, split_of, SIZE, buffer)
        assert left_out.dtype == bool
        kept |= {cell for cell, out in zip(cells, left_out, strict=True) if not out}
        assert all(split_of(square_of[cell]) for cell, out in zip(cells, left_out, strict=True) if not out)
    assert len({later(square_of[cell]) for cell in kept}) > 1
    assert len({cell.epsg for cell in kept}) > 1
    near = [
        (one, other)
        for one, other in near_pairs(sorted(kept), buffer)
        if later(square_of[one]) != later(square_of[other])
    ]
    for one, other in near:
        assert ground_distance(one, other) >= buffer


@pytest.mark.slow
@pytest.mark.parametrize("name", BORDERS)
@pytest.mark.parametrize("buffer", [50.0, 1000.0, 6000.0])
def test_a_cell_is_left_out_exactly_when_another_split_is_nearer_than_half_the_buffer(name: str, buffer: float) -> None:
    # The other way round than it is done: squares are brought to the cells' zone, and distances measured there.
    cells = border_cells(name, 14)
    squares = split_squares(cells, SIZE)
    split_of = random_splits(3, unknown=0.1)
    left_out = inside_buffer(cells, squares, split_of, SIZE, buffer)
    assert 0 < left_out.sum() < len(cells)
    columns, rows = np.array(squares).T
    around = list(
        itertools.product(
            range(columns.min() - 2, columns.max() + 3),
            range(rows.min() - 2, rows.max() + 3),
        )
    )
    boxes = [
        shapely.segmentize(shapely.box(c * SIZE, r * SIZE, (c + 1) * SIZE, (r + 1) * SIZE), 100) for c, r in around
    ]
    for epsg in {cell.epsg for cell in cells}:
        to_zone = transformer(SPLIT_CRS, epsg).transform
        there = shapely.transform(boxes, to_zone, interleaved=False)
        for cell, own, out in zip(cells, squares, left_out, strict=True):
            if cell.epsg != epsg:
                continue
            box = shapely.box(*cell.bounds)
            foreign = there[[split_of(square) != split_of(own) for square in around]]
            distance = shapely.distance(box, foreign).min()
            if split_of(own) is None or distance < buffer / 2:
                assert out
            elif distance > buffer / 2 * 1.006 + 0.01:
                assert not out


def test_no_buffer_leaves_nothing_out_and_one_split_needs_none() -> None:
    cells = border_cells("potsdam", 14)
    squares = split_squares(cells, SIZE)
    assert not inside_buffer(cells, squares, random_splits(0, unknown=0.5), SIZE, 0).any()
    assert not inside_buffer(cells, squares, lambda square: "train", SIZE, 5000).any()
    assert inside_buffer(cells, squares, lambda square: None, SIZE, 5000).all()
    assert inside_buffer([], [], lambda square: None, SIZE, 5000).shape == (0,)


def test_cells_larger_than_squares_are_left_out_wherever_they_reach_another_split() -> None:
    cells = [Cell(32632, 19_200, column, row) for column in range(25, 33) for row in range(300, 308)]
    squares = split_squares(cells, 10_000)
    left_out = inside_buffer(cells, squares, lambda square: "train" if square[0] < 430 else "val", 10_000, 10)
    x = transformer(32632, SPLIT_CRS).transform
    for cell, out in zip(cells, left_out, strict=True):
        east = x(*shapely.get_coordinates(shapely.segmentize(cell.polygon, 100)).T)[0]
        assert out == (east.min() < 4_300_000 < east.max())
    assert left_out.any()
    assert not left_out.all()


# Leaks


def sample_frame(cells: Sequence[Cell], splits: Sequence[str], stamps: Sequence[str] | None = None) -> gpd.GeoDataFrame:
    """The samples of some cells as the index has them."""
    stamps = stamps or ["2022"] * len(cells)
    return gpd.GeoDataFrame(
        {
            "sample": [f"{cell.id}_{stamp}" for cell, stamp in zip(cells, stamps, strict=True)],
            "cell": [cell.id for cell in cells],
            "epsg": np.array([cell.epsg for cell in cells], np.int32),
            "x0": [float(cell.corner[0]) for cell in cells],
            "y0": [float(cell.corner[1]) for cell in cells],
            "split": list(splits),
        },
        geometry=[cell.outline for cell in cells],
        crs=LONLAT,
    )


def slow_leaks(samples: gpd.GeoDataFrame, buffer: float) -> set[tuple[str, str, str]]:
    """Every pair of samples, one by one, in the zone of the one with the smaller EPSG code."""
    found = set()
    shapes = {}
    for row in samples.itertuples():
        to_zone = transformer(LONLAT, row.epsg).transform
        own = shapely.segmentize(shapely.transform(row.geometry, to_zone, interleaved=False), 100)
        for epsg in set(samples["epsg"]):
            there = transformer(row.epsg, epsg).transform
            shapes[row.sample, epsg] = shapely.transform(own, there, interleaved=False)
    for one, other in itertools.combinations(samples.sort_values("sample").itertuples(), 2):
        if one.split == other.split:
            continue
        epsg = min(one.epsg, other.epsg)
        a, b = shapes[one.sample, epsg], shapes[other.sample, epsg]
        distance = a.distance(b)
        if one.cell == other.cell:
            found.add((one.sample, other.sample, "same"))
        elif a.intersection(b).area > 1:
            found.add((one.sample, other.sample, "overlap"))
        elif distance < buffer - 0.01:
            found.add((one.sample, other.sample, "near"))
    return found


def kind(why: str) -> str:
    return {"same cell": "same", "footprints overlap": "overlap"}.get(why, "near")


@pytest.mark.slow
@given(st.sampled_from(sorted(BORDERS)), st.integers(0, 10**6), st.sampled_from([0.0, 10.0, 1000.0, 4000.0]))
@settings(deadline=None, max_examples=12)
@example("potsdam", 0, 4000.0)
@example("equator", 1, 4000.0)
def test_leaks_are_those_of_a_look_at_every_pair(name: str, seed: int, buffer: float) -> None:
    draw = random.Random(seed)
    cells = draw.sample(border_cells(name, 10), 14)
    splits = [draw.choice(["train", "val", "test"]) for _ in cells]
    found = leaks(sample_frame(cells, splits), buffer)
    assert found == sorted(found)
    assert {(one, other, kind(why)) for one, other, why in found} == slow_leaks(sample_frame(cells, splits), buffer)


def test_ground_that_is_not_on_the_lattice_overlaps_by_area_but_may_touch() -> None:
    cells = [Cell(32632, CELL, 270, 3000), Cell(32632, CELL, 271, 3000), Cell(32632, CELL, 280, 3000)]
    samples = sample_frame(cells, ["train", "val", "train"])
    assert leaks(samples, 0) == []
    x, y = cells[2].corner
    shifted = sample_frame([Cell(32632, CELL, 290, 3000)], ["test"])
    shifted["geometry"] = [
        shapely.transform(
            shapely.box(x + 15, y - CELL + 15, x + CELL + 15, y + 15),
            transformer(32632, LONLAT).transform,
            interleaved=False,
        )
    ]
    both = gpd.GeoDataFrame(gpd.pd.concat([samples, shifted], ignore_index=True), crs=LONLAT)
    assert leaks(both, 0) == [(f"{cells[2].id}_2022", "32632_1920_0290_3000_2022", "footprints overlap")]


def test_distances_are_told_and_a_buffer_that_is_just_kept_is_no_leak() -> None:
    cells = [Cell(32632, CELL, 270, 3000), Cell(32632, CELL, 272, 3000)]
    samples = sample_frame(cells, ["train", "val"])
    assert leaks(samples, CELL) == []
    assert leaks(samples, CELL + 1) == [(*samples["sample"], "1920.0 m apart, less than 1921 m")]


def test_one_cell_in_two_splits_leaks_once_however_often_it_was_seen() -> None:
    cell, other = Cell(32632, CELL, 270, 3000), Cell(32632, CELL, 270, 3001)
    stamps = ["20220613T112220", "20220724T104526", "20220801T112220", "20220613T112220"]
    samples = sample_frame([cell, cell, cell, other], ["train", "val", "val", "train"], stamps)
    assert leaks(samples, 0) == [(f"{cell.id}_20220613T112220", f"{cell.id}_20220724T104526", "same cell")]
    assert leaks(samples.assign(split="train"), 5000) == []
    assert leaks(samples.iloc[:0], 5000) == []


@pytest.mark.parametrize("name", BORDERS)
def test_cells_that_the_buffer_keeps_do_not_leak_and_one_in_the_wrong_split_does(name: str) -> None:
    cells = border_cells(name, 16)
    squares = split_squares(cells, SIZE)
    split_of = random_splits(1)
    for buffer in (20.0, 1000.0, 2500.0):
        left_out = inside_buffer(cells, squares, split_of, SIZE, buffer)
        kept = [i for i, out in enumerate(left_out) if not out]
        splits = [str(split_of(squares[i])) for i in kept]
        assert len(set(splits)) > 1
        samples = sample_frame([cells[i] for i in kept], splits)
        assert leaks(samples, buffer) == []
        samples.loc[len(samples) // 2, "split"] = "wrong"
        found = leaks(samples, buffer)
        wrong = samples["sample"][len(samples) // 2]
        assert found
        assert all(wrong in pair[:2] for pair in found)
