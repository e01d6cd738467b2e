"""The search for splits against costs counted by hand: with weights, squares that stay, classes without a place."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from h2crop_data.splits.search import Exchange, SquaresToSplit

SQUARES, CLASSES, SPLITS = 12, 5, 3


def random_squares(seed: int) -> SquaresToSplit:
    """Squares that show few classes each, so that some classes are missing somewhere and some squares alone."""
    rng = np.random.default_rng(seed)
    samples = rng.integers(1, 30, SQUARES)
    wanted = np.round(samples.sum() * np.array([0.6, 0.25])).astype(np.int64)
    return SquaresToSplit(
        rng.random((SQUARES, CLASSES)) < 0.25,
        samples,
        np.append(wanted, samples.sum() - wanted.sum()),
        rng.integers(0, SPLITS, SQUARES),
        rng.random(SQUARES) < 0.8,
    )


def changed(squares: SquaresToSplit, split: NDArray[np.int64], changes: list[tuple[int, int]]) -> Exchange:
    """The state after some squares went to other splits, counted anew."""
    exchange = Exchange(squares, random.Random(1))
    after = split.copy()
    for square, target in changes:
        after[square] = target
    exchange.place(after)
    return exchange


def begun(squares: SquaresToSplit, seed: int) -> Exchange:
    """A search whose squares lie anywhere."""
    exchange = Exchange(squares, random.Random(1))
    exchange.place(np.random.default_rng(seed + 100).integers(0, SPLITS, SQUARES))
    return exchange


def cost_by_hand(exchange: Exchange, missing_weight: float) -> float:
    """Missing classes, uneven shares and moved squares, one by one."""
    missing = uneven = 0.0
    for split in range(SPLITS):
        inside = [square for square in range(SQUARES) if exchange.split[square] == split]
        missing += sum(not any(exchange.shows[square, name] for square in inside) for name in range(CLASSES))
        uneven += (sum(exchange.samples[square] for square in inside) - exchange.wanted[split]) ** 2
    moved = sum(now != before for now, before in zip(exchange.split, exchange.home, strict=True))
    return float(missing_weight * missing + uneven / (2 * exchange.samples.sum()) ** 2 + 1e-8 * moved)


@pytest.mark.parametrize("seed", range(5))
def test_the_cost_of_every_move_and_exchange_is_what_it_changes(seed: int) -> None:
    squares = random_squares(seed)
    exchange = begun(squares, seed)
    assert exchange.cost == pytest.approx(cost_by_hand(exchange, 1), abs=1e-12)
    for weight in (1.0, 0.25):
        before = cost_by_hand(exchange, weight)
        costs = exchange.move_costs(np.arange(SQUARES), weight)
        by_hand = np.full((SQUARES, SPLITS), np.inf)
        for square, target in product(range(SQUARES), range(SPLITS)):
            if target != exchange.split[square]:
                after = changed(squares, exchange.split, [(square, target)])
                by_hand[square, target] = cost_by_hand(after, weight) - before
        np.testing.assert_allclose(costs, by_hand, atol=1e-12)
        moves = costs.copy()
        moves[~exchange.movable] = np.inf
        found = {frozenset(changes): cost for cost, changes in exchange.exchanges(moves, weight)}
        for changes, cost in found.items():
            (one, target), (other, source) = changes
            assert cost == pytest.approx(cost_by_hand(changed(squares, exchange.split, list(changes)), weight) - before)
            every = [
                cost_by_hand(changed(squares, exchange.split, [(a, target), (b, source)]), weight) - before
                for a, b in product(range(SQUARES), repeat=2)
                if (exchange.split[a], exchange.split[b]) == (source, target) and exchange.movable[[a, b]].all()
            ]
            assert cost == pytest.approx(min(every))
            assert exchange.movable[[one, other]].all()
        assert found


def test_classes_that_must_be_missing_are_counted_by_where_squares_stay() -> None:
    # The first class is in one square that stays and one that may move, the second in none: of three splits one must
    # do without the first, all without the second.
    shows = np.array([[True, False], [True, False], [False, False], [False, False]])
    home, movable = np.array([0, 0, 1, 2]), np.array([False, True, True, False])
    squares = SquaresToSplit(shows, np.full(4, 10), np.array([20, 10, 10]), home, movable)
    assert Exchange(squares, random.Random(1)).unavoidable == 1 + 3
    both_stay = SquaresToSplit(shows, np.full(4, 10), np.array([20, 10, 10]), home, np.zeros(4, bool))
    assert Exchange(both_stay, random.Random(1)).unavoidable == 2 + 3
