"""Flips, quarter turns and cut-mix of a batch, all arrays together, without interpolation.

What is drawn is a list of records, one a sample; applying them involves no chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from h2crop_data.constants import COARSE, FINE
from h2crop_data.errors import UsageError

#: What the published cut-mix leaves where it was.
FORGOTTEN_AS_PUBLISHED = ("prior",)


@dataclass(frozen=True)
class Augmentation:
    """How likely each random change of a sample is; each sample of a batch is drawn by itself."""

    #: Rows, then columns, in reverse order.
    vertical_flip: float = 0.5
    horizontal_flip: float = 0.5
    #: A turn by 0, 90, 180 or 270 degrees, each as likely.
    rotation: float = 0.5
    #: A square is taken from another sample of the batch.
    cut_mix: float = 0.5
    #: The least side of that square, as a share of the patch; the greatest is the whole patch.
    least_side: float = 0.5
    #: A month of `s2` is masked; one month of a sample is always kept.
    drop_month: float = 0.0
    #: Cut-mix as published: the square lies on the 10 m grid, its EnMAP counterpart is rounded down to 30 m in place
    #: and side, and priors are left where they were. (The published rotation samples a grid that falls on the pixels'
    #: centres, so it differs from ours by rounding only.)
    as_published: bool = False

    def __post_init__(self) -> None:
        shares = {name: value for name, value in vars(self).items() if name != "as_published"}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise UsageError(f"augmentation: {name} is {value}; expected a share from 0 to 1")


@dataclass(frozen=True)
class Orientation:
    """Flips, then quarter turns counterclockwise (seen with the first row on top)."""

    vertical_flip: bool = False
    horizontal_flip: bool = False
    quarter_turns: int = 0

    def apply(self, image: Tensor) -> Tensor:
        """A tensor (..., y, x) in this orientation."""
        flipped = [axis for axis, wanted in ((-2, self.vertical_flip), (-1, self.horizontal_flip)) if wanted]
        turned = image.flip(flipped) if flipped else image
        return torch.rot90(turned, self.quarter_turns, (-2, -1)) if self.quarter_turns else turned


@dataclass(frozen=True)
class CutMix:
    """A square of another sample: the sample's place in the batch, and the square in pixels of the finest grid."""

    partner: int
    top: int
    left: int
    side: int


def draw_orientations(samples: int, augmentation: Augmentation, generator: torch.Generator) -> list[Orientation]:
    """An orientation for each sample."""
    chances = torch.rand((samples, 3), generator=generator).tolist()
    turns = torch.randint(4, (samples,), generator=generator).tolist()
    return [
        Orientation(
            vertical < augmentation.vertical_flip,
            horizontal < augmentation.horizontal_flip,
            turn if rotation < augmentation.rotation else 0,
        )
        for (vertical, horizontal, rotation), turn in zip(chances, turns, strict=True)
    ]


def draw_mixes(
    samples: int, patch: int, step: int, augmentation: Augmentation, generator: torch.Generator
) -> list[CutMix | None]:
    """A square for each sample that gets one; none in a batch of one sample.

    patch: pixels along a side. step: squares lie on a grid of so many pixels (1 as published). Partner, side and place
    are uniform over what is possible.
    """
    mixed = torch.rand(samples, generator=generator) < augmentation.cut_mix
    mixes: list[CutMix | None] = []
    step = 1 if augmentation.as_published else step
    steps = patch // step
    least = max(1, math.ceil(augmentation.least_side * steps))
    for sample, wanted in enumerate(mixed.tolist()):
        if not wanted or samples < 2:
            mixes.append(None)
            continue
        partner = (sample + draw_integer(1, samples - 1, generator)) % samples
        side = draw_integer(least, steps, generator)
        top, left = (draw_integer(0, steps - side, generator) for _ in range(2))
        mixes.append(CutMix(partner, top * step, left * step, side * step))
    return mixes


def draw_integer(first: int, last: int, generator: torch.Generator) -> int:
    """A whole number from first to last, both included."""
    return int(torch.randint(first, last + 1, (1,), generator=generator))


def draw_dropped_months(
    samples: int, months: int, last_month: int, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """(sample, month) bool: which months are masked by chance. One of the first `last_month` is always kept."""
    chances = torch.rand((samples, months), generator=generator)
    dropped = chances < augmentation.drop_month
    usable = chances[:, :last_month]
    nothing_left = dropped[:, :last_month].all(dim=1)
    rows = nothing_left.nonzero()[:, 0]
    dropped[rows, usable[rows].argmax(dim=1)] = False
    return dropped


def spatial_arrays(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The arrays of a batch that have pixels, by name: tensors (sample, ..., y, x).

    Raises UsageError where one is not square, or its side does not divide the finest one's.
    """
    arrays = {name: value for name, value in batch.items() if isinstance(value, Tensor) and value.ndim >= 3}
    finest = max((value.shape[-1] for value in arrays.values()), default=0)
    for name, value in arrays.items():
        if value.shape[-1] != value.shape[-2] or finest % value.shape[-1]:
            raise UsageError(
                f"{name} has {value.shape[-2]} x {value.shape[-1]} pixels; expected a square whose side divides "
                f"{finest}, the side of the finest array of the batch"
            )
    return arrays


def patch_and_step(batch: Mapping[str, Any]) -> tuple[int, int]:
    """Pixels along a patch's side, and along the side of the coarsest pixel of the batch, at least 30 m.

    Raises UsageError as `spatial_arrays`, and where the patch is not a multiple of 30 m.
    """
    sides = [value.shape[-1] for value in spatial_arrays(batch).values()]
    patch = max(sides, default=0)
    step = max([COARSE // FINE, *(patch // side for side in sides)])
    if patch % step:
        raise UsageError(
            f"expected patches of a multiple of {step * FINE} m, the larger pixels, got {patch} pixels of {FINE} m"
        )
    return patch, step


def orient(batch: Mapping[str, Any], orientations: Sequence[Orientation]) -> dict[str, Any]:
    """Each sample of a batch in its orientation, every array alike; the batch that is given stays as it is."""
    oriented = dict(batch)
    if all(orientation == Orientation() for orientation in orientations):
        return oriented
    for name, array in spatial_arrays(batch).items():
        turned = torch.empty_like(array)
        for sample, orientation in enumerate(orientations):
            turned[sample] = orientation.apply(array[sample])
        oriented[name] = turned
    return oriented


def cut_mix(batch: Mapping[str, Any], mixes: Sequence[CutMix | None], *, as_published: bool = False) -> dict[str, Any]:
    """Each sample with a square of its partner, as the partner was before; the batch that is given stays as it is.

    as_published: squares may lie anywhere on the finest grid; top, left and side are rounded down to each coarser
    array's pixels, and `prior` is left out. Otherwise every array moves, and UsageError is raised for a square that
    does not fall on whole pixels of every array. What is no array (`id`) stays that of the sample.
    """
    mixed = dict(batch)
    arrays = spatial_arrays(batch)
    patch = max((array.shape[-1] for array in arrays.values()), default=0)
    for name, array in arrays.items():
        if (as_published and name in FORGOTTEN_AS_PUBLISHED) or not any(mixes):
            continue
        pixel = patch // array.shape[-1]
        changed = array.clone()
        for sample, mix in enumerate(mixes):
            if mix is None:
                continue
            place = (mix.top, mix.left, mix.side)
            if not as_published and any(value % pixel for value in place):
                raise UsageError(f"the square {mix} does not fall on whole pixels of {name}, {pixel} x {pixel} each")
            top, left, side = (value // pixel for value in place)
            square = (..., slice(top, top + side), slice(left, left + side))
            changed[sample][square] = array[mix.partner][square]
        mixed[name] = changed
    return mixed
