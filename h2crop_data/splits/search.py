"""Exchanging split squares until every split shows every class and holds its share of the samples.

To show every class in every split is as hard as colouring a graph, so this is a search with bounded effort (a tabu
search: Glover, 1989). It draws from a seed, stops by counting and adds up whole numbers only: the same question has the
same answer on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, count

import numpy as np
from numpy.typing import NDArray

#: Searches from other beginnings, while classes are missing that need not or a share is further off than GOOD_SHARE.
STARTS, GOOD_SHARE = 4, 0.01
#: Changes without anything better after which a search for classes, or for shares, ends: at most, and by squares.
CLASS_PATIENCE, SHARE_PATIENCE = (1500, 50), (400, 10)
#: Of the squares of a split, as many as are cheapest to move are also tried in pairs with those of another one.
PAIRED = 40
#: What one square costs that is not where it was, next to a class that is missing in a split (1).
MOVED_COST = 1e-8
#: Costs that differ by less are equal.
EQUAL = 1e-12
#: Changes in a row without (or with) a missing class after which it weighs half (or twice) as much, and the least.
PATIENCE_WITH_WEIGHT, LEAST_WEIGHT = 3, 1e-7


@dataclass(frozen=True)
class SquaresToSplit:
    """n squares that show some of k classes, to be put into s splits."""

    #: (n, k) whether a square shows a class that every split must show.
    shows: NDArray[np.bool_]
    #: (n) how many samples a square holds.
    samples: NDArray[np.int64]
    #: (s) how many samples each split wants; together all there are.
    wanted: NDArray[np.int64]
    #: (n) number of the split a square is in before.
    home: NDArray[np.int64]
    #: (n) whether it may leave that.
    movable: NDArray[np.bool_]


def exchange_squares(squares: SquaresToSplit, seed: str) -> NDArray[np.int64]:
    """(n) the split of each square: as few classes missing as found, then shares met, then few squares moved."""
    if len(squares.wanted) < 2 or not squares.movable.any():
        return squares.home
    best: Exchange | None = None
    for start in range(STARTS):
        tried = Exchange(squares, random.Random(f"{seed}/{start}"))
        if start:
            # From one split alone the others get the squares with the most classes, and need fewer of them.
            tried.place(np.where(tried.movable, tried.wanted.argmax(), tried.home))
        tried.show_classes()
        tried.meet_shares()
        if best is None or tried.cost < best.cost - EQUAL:
            best = tried
        if best.missing <= best.unavoidable and abs(best.over).max() <= GOOD_SHARE * best.total:
            break
    assert best is not None
    return best.in_given_order()


class Exchange:
    """Squares in splits while they change sides: what the present state costs, and what each change would."""

    def __init__(self, squares: SquaresToSplit, draw: random.Random) -> None:
        self.draw = draw
        # Of equally good changes the first is taken: the order is drawn.
        self.order = np.argsort([draw.random() for _ in squares.home], kind="stable")
        self.shows = squares.shows[self.order].astype(np.float64)
        self.classes = [np.flatnonzero(row) for row in self.shows]
        self.samples, self.wanted = squares.samples[self.order].astype(np.float64), squares.wanted
        self.total = max(int(squares.wanted.sum()), 1)
        self.home, self.movable = squares.home[self.order], squares.movable[self.order]
        self.all = np.arange(len(self.home))
        self.place(self.home)

    def place(self, split: NDArray[np.int64]) -> None:
        """Put every square into a split."""
        self.split = split.copy()
        members = split == np.arange(len(self.wanted))[:, None]
        #: (s, k) how many squares of each split show each class.
        self.counts = np.stack([self.shows[inside].sum(axis=0) for inside in members])
        #: (n, s) classes of a square that would be missing in a split without it, and that are until it comes.
        self.alone = np.stack([self.shows[:, row == 1].sum(axis=1) for row in self.counts], axis=1)
        self.brings = np.stack([self.shows[:, row == 0].sum(axis=1) for row in self.counts], axis=1)
        #: (s) samples above the wanted number.
        self.over = np.stack([self.samples[inside].sum() for inside in members]) - self.wanted
        #: How often a class is missing in a split.
        self.missing = int((self.counts == 0).sum())

    def in_given_order(self) -> NDArray[np.int64]:
        """(n) the split of each square, in the order of `SquaresToSplit`."""
        given = np.empty_like(self.split)
        given[self.order] = self.split
        return given

    @property
    def cost(self) -> float:
        """A class missing in a split costs 1, uneven shares at most 1/2, squares that moved next to nothing."""
        uneven = float((self.over**2).sum()) / (2 * self.total) ** 2
        return self.missing + uneven + MOVED_COST * int((self.split != self.home).sum())

    @property
    def unavoidable(self) -> int:
        """How often classes are missing at least, because squares that show them are too few or may not move."""
        free = self.shows[self.movable].sum(axis=0)
        held = [self.shows[~self.movable & (self.home == split)].any(axis=0) for split in range(len(self.wanted))]
        return int(np.maximum(0, len(self.wanted) - np.sum(held, axis=0) - free).sum())

    def move(self, square: int, target: int) -> None:
        """Move a square, and follow what that changes for the others."""
        source, classes = int(self.split[square]), self.classes[square]
        left, found = self.counts[source, classes], self.counts[target, classes]
        self.missing += int((left == 1).sum() - (found == 0).sum())
        for table, split, changed, sign in (
            (self.brings, source, left == 1, 1),
            (self.alone, source, left == 1, -1),
            (self.alone, source, left == 2, 1),
            (self.brings, target, found == 0, -1),
            (self.alone, target, found == 0, 1),
            (self.alone, target, found == 1, -1),
        ):
            if changed.any():
                table[:, split] += sign * self.shows[:, classes[changed]].sum(axis=1)
        self.counts[source, classes] -= 1
        self.counts[target, classes] += 1
        self.over[source] -= self.samples[square]
        self.over[target] += self.samples[square]
        self.split[square] = target

    def move_costs(self, squares: NDArray[np.int64], weight: float) -> NDArray[np.float64]:
        """(squares, s) what the cost changes when a square moves to a split; a missing class costs `weight` here."""
        source, samples = self.split[squares], self.samples[squares, None]
        missing = self.alone[squares, source][:, None] - self.brings[squares]
        uneven = 2 * samples * (samples - self.over[source][:, None] + self.over) / (2 * self.total) ** 2
        home = self.home[squares]
        moved = (np.arange(len(self.wanted)) != home[:, None]).astype(float) - (source != home)[:, None]
        costs: NDArray[np.float64] = weight * missing + uneven + MOVED_COST * moved
        costs[np.arange(len(squares)), source] = np.inf
        return costs

    def exchanges(self, moves: NDArray[np.float64], weight: float) -> Iterator[tuple[float, list[tuple[int, int]]]]:
        """For each two splits their cheapest exchange of a square for a square, with what it costs.

        moves: (n, s) costs of moves, infinite where a square must stay.
        """
        for source, target in combinations(range(len(self.wanted)), 2):
            ours = self.cheapest(moves, source, target)
            theirs = self.cheapest(moves, target, source)
            if not len(ours) or not len(theirs):
                continue
            costs = moves[ours, target][:, None] + moves[theirs, source]
            # What either would shift is set off by the other, and a class that both show is neither lost nor brought.
            costs -= self.samples[ours, None] * self.samples[theirs] / self.total**2
            last = (self.counts[[source, target]] == 1).sum(axis=0)
            both = np.flatnonzero((last > 0) & self.shows[ours].any(axis=0) & self.shows[theirs].any(axis=0))
            costs -= weight * (self.shows[np.ix_(ours, both)] * last[both]) @ self.shows[np.ix_(theirs, both)].T
            first, second = divmod(int(costs.argmin()), len(theirs))
            yield float(costs[first, second]), [(int(ours[first]), target), (int(theirs[second]), source)]

    def cheapest(self, moves: NDArray[np.float64], source: int, target: int) -> NDArray[np.int64]:
        """The squares of a split that are cheapest to move to another one."""
        squares = np.flatnonzero((self.split == source) & np.isfinite(moves[:, target]))
        return squares[np.argsort(moves[squares, target], kind="stable")[:PAIRED]]

    def patience(self, most: int, by_square: int) -> int:
        """How many changes to wait for something better."""
        return min(most, by_square * int(self.movable.sum()))

    def show_classes(self) -> None:
        """Move squares that show a missing class until none is missing that need not.

        As in Hertz and de Werra's search for colourings (1987), a square does not go back to a split it has left for a
        while, the longer the more is missing, unless that is better than anything before.
        """
        rests = np.zeros((len(self.split), len(self.wanted)), np.int64)
        best, fewest, found = self.split.copy(), self.missing, 0
        unavoidable = self.unavoidable
        for step in count(1):
            if fewest <= unavoidable or step - found > self.patience(*CLASS_PATIENCE):
                break
            squares = np.flatnonzero(self.brings.any(axis=1) & self.movable)
            costs = self.move_costs(squares, weight=1)
            costs[(rests[squares] >= step) & (self.missing + costs > fewest - 0.5)] = np.inf
            if not np.isfinite(costs).any():
                continue
            place, target = divmod(int(costs.argmin()), costs.shape[1])
            square = int(squares[place])
            rests[square, self.split[square]] = step + 1 + int(0.6 * self.missing + 10 * self.draw.random())
            self.move(square, target)
            if self.missing < fewest:
                best, fewest, found = self.split.copy(), self.missing, step
        self.place(best)

    def meet_shares(self) -> None:
        """Move and exchange squares until the shares are met as well as may be, with no more classes missing.

        A square that alone shows a class in its split is stuck there. So a missing class weighs less and less while
        none is, until one is given up for better shares, and more and more until another square shows it (the way
        routes are searched with too full vehicles: Gendreau, Hertz and Laporte, 1994).
        """
        rests = np.zeros(len(self.split), np.int64)
        best, least, found, allowed = self.split.copy(), self.cost, 0, self.missing
        weight, run = 1.0, 0
        for step in count(1):
            if step - found > self.patience(*SHARE_PATIENCE):
                break
            run = max(run, 0) + 1 if self.missing <= allowed else min(run, 0) - 1
            if abs(run) == PATIENCE_WITH_WEIGHT:
                weight = max(weight / 2, LEAST_WEIGHT) if run > 0 else min(weight * 2, 1.0)
                run = 0
            moves = self.move_costs(self.all, weight)
            moves[~self.movable | (rests >= step)] = np.inf
            square, target = divmod(int(moves.argmin()), moves.shape[1])
            cost, changes = float(moves[square, target]), [(square, target)]
            if cost > -EQUAL:
                for other, exchange in self.exchanges(moves, weight):
                    if other < cost - EQUAL:
                        cost, changes = other, exchange
            if not np.isfinite(cost):
                continue
            for square, target in changes:
                self.move(square, target)
                rests[square] = step + int(min(len(rests) / 4, 8) * self.draw.random())
            if self.cost < least - EQUAL:
                best, least, found = self.split.copy(), self.cost, step
        self.place(best)
