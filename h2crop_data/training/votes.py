"""Majority votes of parcels: the class most of a parcel's pixels were predicted as, against the class it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from h2crop_data.constants import UNKNOWN
from h2crop_data.errors import UsageError

#: An owner is season and parcel in so many bits. A key of 63 bits has besides the label and the predicted class, or
#: the place of a split square.
SEASON_BITS, PARCEL_BITS, CLASS_BITS, SQUARE_BITS = 15, 32, 8, 16
#: Counts that may wait before equal keys are added up.
MOST_PENDING = 1 << 21


class Tally:
    """Streamed counts of int64 keys. Memory grows with the distinct keys."""

    def __init__(self, device: torch.device) -> None:
        self._keys = [torch.zeros(0, dtype=torch.int64, device=device)]
        self._counts = [torch.zeros(0, dtype=torch.int64, device=device)]

    def add(self, keys: Tensor) -> None:
        """Count each of the keys, (n) int64, once."""
        distinct, counts = torch.unique(keys, return_counts=True)
        self.add_counts(distinct, counts)

    def add_counts(self, keys: Tensor, counts: Tensor) -> None:
        """Add counts (n) of keys (n)."""
        device = self._keys[0].device
        self._keys.append(keys.to(device))
        self._counts.append(counts.to(device))
        if sum(map(len, self._keys[1:])) > max(MOST_PENDING, len(self._keys[0])):
            self.totals()

    def totals(self) -> tuple[Tensor, Tensor]:
        """Distinct keys in order, and their counts."""
        if len(self._keys) > 1:
            keys, counts = totals(torch.cat(self._keys), torch.cat(self._counts))
            self._keys, self._counts = [keys], [counts]
        return self._keys[0], self._counts[0]


class Decisions(NamedTuple):
    """Parcels that have a counted pixel, in order of owner, (n) int64 each."""

    owner: Tensor
    #: The class that most of its counted pixels are labelled as.
    label: Tensor
    #: The class that most of them were predicted as, background included.
    vote: Tensor


class ParcelVotes:
    """How many pixels of each parcel have a label and were predicted as a class, at one tier.

    Votes add up over batches and samples: a parcel lies in several samples, and a cell is seen by several scenes.
    Memory grows with the parcels, not with the pixels.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tally = Tally(device)

    def add(self, predicted: Tensor, label: Tensor, owners: Tensor) -> None:
        """Count pixels.

        predicted, label: integers (B, H, W). owners: as `owners_of`. Pixels of no parcel (-1) and pixels whose label is
        255 do not count.
        """
        counted = (owners >= 0) & (label != UNKNOWN)
        classes = (label.long() << CLASS_BITS) | predicted.long()
        self._tally.add(((owners << 2 * CLASS_BITS) | classes)[counted])

    def __add__(self, other: ParcelVotes) -> ParcelVotes:
        merged = ParcelVotes(self._device)
        for part in (self, other):
            merged._tally.add_counts(*part._tally.totals())
        return merged

    def decisions(self) -> Decisions:
        """Label and vote of each parcel; of equally many pixels the lower id."""
        keys, counts = self._tally.totals()
        owner, lowest = keys >> 2 * CLASS_BITS, (1 << CLASS_BITS) - 1
        owners, label = majority(owner, (keys >> CLASS_BITS) & lowest, counts, CLASS_BITS)
        return Decisions(owners, label, majority(owner, keys & lowest, counts, CLASS_BITS)[1])


class ParcelSquares:
    """How many pixels of each parcel lie in each split square; a square is given by its place, 0..65535."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tally = Tally(device)

    def add(self, owners: Tensor, squares: Tensor) -> None:
        """Count pixels. owners: (B, H, W) as `owners_of`. squares: (B), the place of each sample's square.

        Raises UsageError for a place above 65535.
        """
        if squares.numel() and int(squares.max()) >= 1 << SQUARE_BITS:
            raise UsageError(f"expected parcels of at most {1 << SQUARE_BITS} split squares; evaluate by region")
        keys = (owners << SQUARE_BITS) | squares.long()[:, None, None]
        self._tally.add(keys[owners >= 0])

    def merged(self, other: ParcelSquares, places: Tensor) -> ParcelSquares:
        """The counts of both. places: of this one's squares, by the other's place, (n) int64."""
        merged = ParcelSquares(self._device)
        merged._tally.add_counts(*self._tally.totals())
        keys, counts = other._tally.totals()
        squares = places.to(keys.device)[keys & ((1 << SQUARE_BITS) - 1)]
        merged._tally.add_counts((keys >> SQUARE_BITS << SQUARE_BITS) | squares, counts)
        return merged

    def of_owners(self, owners: Tensor, rank: Tensor) -> Tensor:
        """The rank of the square that most pixels of each parcel lie in, of equally many the lowest: (n) int64.

        owners: (n), of parcels that were counted. rank: of each place, (squares) int64.
        """
        keys, counts = self._tally.totals()
        squares = rank.to(keys.device)[keys & ((1 << SQUARE_BITS) - 1)]
        known, square = majority(keys >> SQUARE_BITS, squares, counts, SQUARE_BITS)
        return square[torch.searchsorted(known, owners)]


def owners_of(parcels: Tensor, seasons: Sequence[int]) -> Tensor:
    """A number for each pixel's parcel that no parcel of another season has; -1 for no parcel (0).

    parcels: integers (B, H, W), numbered by season. seasons: of the samples. Gives (B, H, W) int64.
    Raises UsageError for a season outside 0..32767.
    """
    if seasons and not 0 <= min(seasons) <= max(seasons) < 1 << SEASON_BITS:
        raise UsageError(f"seasons {list(seasons)}; expected calendar years, 0..{(1 << SEASON_BITS) - 1}")
    season = torch.tensor(list(seasons), device=parcels.device)[:, None, None]
    return ((season << PARCEL_BITS) | parcels.long()).masked_fill(parcels == 0, -1)


def totals(keys: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct keys in order, and the sum of the counts of each."""
    distinct, place = torch.unique(keys, return_inverse=True)
    return distinct, torch.zeros_like(distinct).index_add_(0, place, counts)


def majority(owner: Tensor, value: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The distinct owners in order, and the value with most counts of each, the lowest of equals.

    owner, value (of so many bits), counts: (n) int64. Gives two (number of distinct owners) int64.
    """
    keys, sums = totals((owner << bits) | value, counts)
    owners, place = torch.unique(keys >> bits, return_inverse=True)
    highest = torch.zeros_like(owners).scatter_reduce_(0, place, sums, "amax")
    winning = sums == highest[place]
    values = keys & ((1 << bits) - 1)
    lowest = torch.full_like(owners, 1 << bits)
    return owners, lowest.scatter_reduce_(0, place[winning], values[winning], "amin")
