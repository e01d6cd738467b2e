"""Which ground is train, val or test: split squares that show every class everywhere, buffers, and leaks.

A class *occurs* in a split square when a sample there shows it. Splits are drawn by a hash of each square's place and
may then be optimised: a few squares change sides until the shares of samples are met and no class is missing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from h2crop_data.grid import SPLIT_CRS, split_of_square

Square = tuple[int, int]
#: Shares of samples further than this from the wanted ones are a problem worth telling.
SHARE_TOLERANCE = 0.02
#: The search ends after so many changes that led to nothing better, and starts again so often while classes are missing.
PATIENCE, STARTS = 150, 6
#: Squares are also exchanged, not only moved, where there are at most so many; with more, moves alone meet the shares.
MOST_TO_EXCHANGE = 400
#: What a square away from where the hash puts it costs, next to a class missing in a split (1).
MOVED_COST = 1e-8


@dataclass(frozen=True)
class SquareContent:
    """What the samples of a split square hold: how many they are, and the classes they show (tier, id)."""

    samples: int
    classes: frozenset[tuple[int, int]]


def needed_squares(shares: Mapping[str, float]) -> int:
    """In how many squares a class must occur to be promised to every split: as many as splits have a share."""
    return sum(share > 0 for share in shares.values())


def promised_classes(
    contents: Mapping[Square, SquareContent], shares: Mapping[str, float]
) -> dict[tuple[int, int], list[Square]]:
    """The classes that must occur in every split with a share, with the squares they occur in, all in order."""
    places: dict[tuple[int, int], list[Square]] = defaultdict(list)
    for square in sorted(contents):
        for name in contents[square].classes if contents[square].samples else ():
            places[name].append(square)
    return {name: places[name] for name in sorted(places) if len(places[name]) >= needed_squares(shares)}


def optimised_splits(
    contents: Mapping[Square, SquareContent],
    shares: Mapping[str, float],
    seed: int,
    square_size: int,
    fixed: Mapping[Square, str],
) -> dict[Square, str]:
    """The split of every square of `contents` and `fixed`: hashed, then changed in as few squares as it takes.

    What counts, in this order: every promised class occurs in every split with a share; the splits hold their share
    of the samples; few squares leave the split their hash gives. Fixed squares and squares without samples stay. The
    result depends on what is given, not on its order, and is as good as a search with bounded effort finds:
    `split_problems` tells what it does not meet.

    shares: split -> share of the samples, adding up to 1. fixed: squares whose split was decided before.
    """
    plain = dict(shares)
    splits = {square: fixed.get(square) or split_of_square(square, square_size, plain, seed) for square in contents}
    splits |= fixed
    names = sorted(name for name in shares if shares[name] > 0)
    squares = [square for square in contents if contents[square].samples and splits[square] in names]
    best: Assignment | None = None
    for start in range(STARTS):
        text = f"{SPLIT_CRS}/{square_size}/{seed}/{start}"
        found = Assignment(sorted(squares, key=lambda square: drawn(square, text)), contents, shares, splits, fixed)
        if start:
            found.scatter()
        found.search()
        if best is None or found.missing < best.missing:
            best = found
        if best.missing <= best.least_missing:
            break
    assert best
    return dict(sorted((splits | best.result()).items()))


def drawn(square: Square, text: str) -> bytes:
    """A number drawn for a square: always the same for the same text."""
    return hashlib.sha256(f"{text}/{square[0]}/{square[1]}".encode()).digest()


class Assignment:
    def __init__(self, squares, contents, shares, splits, fixed):
        self.squares = squares
        self.names = sorted(name for name in shares if shares[name] > 0)
        number = {name: i for i, name in enumerate(self.names)}
        promised = promised_classes(contents, shares)
        row = {square: i for i, square in enumerate(squares)}
        n, k, s = len(squares), len(promised), len(self.names)
        self.shows = np.zeros((n, k), np.float32)
        for column, places in enumerate(promised.values()):
            self.shows[[row[square] for square in places if square in row], column] = 1
        self.samples = np.array([contents[square].samples for square in squares], np.int64)
        self.movable = np.array([square not in fixed for square in squares], bool)
        self.home = np.array([number[splits[square]] for square in squares], np.int64)
        self.total = max(sum(c.samples for c in contents.values()), 1)
        self.wanted = np.array([shares[name] for name in self.names]) * self.total
        self.place(self.home.copy())
        free = self.shows[self.movable].sum(axis=0)
        held = np.array([(self.shows[~self.movable & (self.home == i)].sum(axis=0) > 0) for i in range(s)]).sum(axis=0)
        self.least_missing = int(np.maximum(0, s - held - free).sum())

    def place(self, split):
        self.split = split
        onehot = (split[:, None] == np.arange(len(self.names))).astype(np.float32)
        self.counts = onehot.T @ self.shows
        self.over = (onehot * self.samples[:, None]).sum(0, dtype=np.float64) - self.wanted

    @property
    def missing(self):
        return int((self.counts == 0).sum())

    @property
    def cost(self):
        uneven = (self.over / self.total) ** 2
        return self.missing + uneven.sum() / 4 + MOVED_COST * (self.split != self.home).sum()

    def scatter(self):
        n = len(self.split)
        self.place(np.where(self.movable, np.arange(n) % len(self.names), self.split))

    def move_costs(self):
        sole, absent = (self.counts == 1).astype(np.float32), (self.counts == 0).astype(np.float32)
        lost = np.take_along_axis(self.shows @ sole.T, self.split[:, None], 1)
        gained = self.shows @ absent.T
        m = self.samples[:, None] / self.total
        over = self.over / self.total
        uneven = 2 * m * (m - over[self.split][:, None] + over[None, :]) / 4
        s = np.arange(len(self.names))
        away = (s[None, :] != self.home[:, None]).astype(int) - (self.split != self.home)[:, None]
        cost = lost - gained + uneven + MOVED_COST * away
        cost[np.arange(len(self.split)), self.split] = np.inf
        return cost

    def swap_costs(self, moves, q, r):
        s, t = self.split[q[0]], self.split[r[0]]
        both = (self.counts[s] == 1).astype(np.float32) + (self.counts[t] == 1)
        used = both > 0
        kept = (self.shows[np.ix_(q, used)] * both[used]) @ self.shows[np.ix_(r, used)].T
        mq, mr = self.samples[q] / self.total, self.samples[r] / self.total
        return moves[q, t][:, None] + moves[r, s][None, :] - kept - mq[:, None] * mr[None, :]
        # (mq-mr)^2 = mq^2 + mr^2 - 2 mq mr, times 2/4

    def search(self):
        n = len(self.split)
        best, best_cost = self.split.copy(), self.cost
        rests = np.zeros(n, int)
        last = 0
        step = 0
        while step - last < PATIENCE:
            step += 1
            free = self.movable & (rests < step)
            if not free.any():
                continue
            moves = self.move_costs()
            moves[~free] = np.inf
            i = int(moves.argmin())
            change = [(i // moves.shape[1], i % moves.shape[1])]
            least = moves.flat[i]
            if (least >= -1e-12) and free.sum() <= MOST_TO_EXCHANGE:
                for s, t in combinations(range(len(self.names)), 2):
                    q, r = (np.flatnonzero(free & (self.split == x)) for x in (s, t))
                    if len(q) and len(r):
                        cost = self.swap_costs(moves, q, r)
                        j = int(cost.argmin())
                        if cost.flat[j] < least - 1e-12:
                            least = cost.flat[j]
                            a, b = divmod(j, len(r))
                            change = [(int(q[a]), t), (int(r[b]), s)]
            if least == np.inf:
                continue
            if least > -1e-12 and self.missing <= self.least_missing and n > MOST_TO_EXCHANGE:
                break
            split = self.split.copy()
            for a, t in change:
                split[a] = t
                rests[a] = step + 2 + (7 * step) % 5 * min(n, 10) // 10
            self.place(split)
            if self.cost < best_cost - 1e-12:
                best, best_cost, last = split.copy(), self.cost, step
        self.place(best)

    def result(self):
        return {square: self.names[i] for square, i in zip(self.squares, self.split.tolist(), strict=True)}
