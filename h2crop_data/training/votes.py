"""Majority votes of parcels: the class most of a parcel's pixels were predicted as, against the class it has."""

from __future__ import annotations

import torch
from torch import Tensor

from h2crop_data.constants import UNKNOWN
from h2crop_data.errors import UsageError

#: A key is season, parcel, label and predicted class in so many bits.
PARCEL_BITS, CLASS_BITS = 32, 8
#: Counts that may wait before equal keys are added up.
MOST_PENDING = 1 << 21


class ParcelVotes:
    """How many pixels of each parcel have a label and were predicted as a class, at one tier.

    Votes add up over batches and samples: a parcel lies in several samples, and a cell is seen by several scenes.
    Memory grows with the parcels, not with the pixels.
    """

    def __init__(self, device: torch.device) -> None:
        self._keys = [torch.zeros(0, dtype=torch.int64, device=device)]
        self._counts = [torch.zeros(0, dtype=torch.int64, device=device)]

    def add(self, predicted: Tensor, label: Tensor, parcels: Tensor, seasons: Tensor) -> None:
        """Count pixels.

        predicted, label, parcels: integers (B, H, W). seasons: (B); parcel numbers are those of a season. Pixels of no
        parcel (0) and pixels whose label is 255 do not count. Raises UsageError for a season outside 0..32767.
        """
        if seasons.numel() and not 0 <= int(seasons.min()) <= int(seasons.max()) < 1 << 15:
            raise UsageError(f"seasons {seasons.tolist()}; expected calendar years, 0..32767")
        votes = (parcels > 0) & (label != UNKNOWN)
        owner = (seasons.long()[:, None, None] << PARCEL_BITS) | parcels.long()
        classes = (label.long() << CLASS_BITS) | predicted.long()
        device = self._keys[0].device
        keys, counts = torch.unique(((owner << 2 * CLASS_BITS) | classes)[votes], return_counts=True)
        self._keys.append(keys.to(device))
        self._counts.append(counts.to(device))
        if sum(map(len, self._keys[1:])) > max(MOST_PENDING, len(self._keys[0])):
            self._compact()

    def __add__(self, other: ParcelVotes) -> ParcelVotes:
        device = self._keys[0].device
        merged = ParcelVotes(device)
        for part in (self, other):
            merged._keys += [keys.to(device) for keys in part._keys]
            merged._counts += [counts.to(device) for counts in part._counts]
        merged._compact()
        return merged

    def _compact(self) -> None:
        """Add up the counts of equal keys."""
        keys, counts = totals(torch.cat(self._keys), torch.cat(self._counts))
        self._keys, self._counts = [keys], [counts]

    def confusion(self, classes: int) -> Tensor:
        """Parcels by label (row) and majority vote (column): (classes, classes) int64.

        A parcel's label is the one that most of its counted pixels have, its vote the class that most of them were
        predicted as, background included; of equally many the lower id.
        """
        self._compact()
        keys, counts = self._keys[0], self._counts[0]
        owner, lowest = keys >> 2 * CLASS_BITS, (1 << CLASS_BITS) - 1
        label = majority(owner, (keys >> CLASS_BITS) & lowest, counts)
        vote = majority(owner, keys & lowest, counts)
        return torch.bincount(label * classes + vote, minlength=classes * classes).view(classes, classes)


def totals(keys: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct keys in order, and the sum of the counts of each."""
    distinct, place = torch.unique(keys, return_inverse=True)
    return distinct, torch.zeros_like(distinct).index_add_(0, place, counts)


def majority(owner: Tensor, value: Tensor, counts: Tensor) -> Tensor:
    """The value with most counts of each owner, the lowest of equals, in order of owner.

    owner, value (below 256), counts: (n) int64. Gives (number of distinct owners) int64.
    """
    keys, sums = totals((owner << CLASS_BITS) | value, counts)
    owners, place = torch.unique(keys >> CLASS_BITS, return_inverse=True)
    highest = torch.zeros_like(owners).scatter_reduce_(0, place, sums, "amax")
    winning = sums == highest[place]
    values = keys & ((1 << CLASS_BITS) - 1)
    lowest = torch.full_like(owners, 1 << CLASS_BITS)
    return lowest.scatter_reduce_(0, place[winning], values[winning], "amin")
