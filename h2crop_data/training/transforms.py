"""From a batch as stored to the inputs of the model and the loss, on the device of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from h2crop_data.constants import ENMAP_FLAGS, ENMAP_MASK_FLAGS, IMAGES, MONTHS
from h2crop_data.errors import UsageError
from h2crop_data.training.augmentation import (
    Augmentation,
    cut_mix,
    draw_dropped_months,
    draw_mixes,
    draw_orientations,
    orient,
    patch_and_step,
)
from h2crop_data.training.normalisation import Normalisation, normalise
from h2crop_data.training.normalisation_check import check_normalisation
from h2crop_data.training.store_statistics import stored_offsets

#: Arrays of class ids or parcel numbers, which come out as int64.
NUMBERED = ("label", "prior", "parcel")
#: PyTorch turns and indexes no unsigned numbers of more than 8 bits.
SIGNED_DTYPES = {torch.uint16: torch.int32, torch.uint32: torch.int64}


@dataclass(frozen=True)
class Masks:
    """Pixels that the model must not see: they become 0 after normalisation, as fill does."""

    #: Months of `s2` after this one (1..12).
    last_month: int = MONTHS
    #: `enmap` where any of these flags is set (names of docs/store-format.md); needs `enmap_quality` in the batch.
    enmap_flags: tuple[str, ...] = ()
    #: `enmap` where our own mask has any of these flags (`cloud`, `cloud_shadow`, `unseen`); needs `enmap_mask` in the
    #: batch.
    enmap_mask_flags: tuple[str, ...] = ()
    #: `s2` where a pixel has fewer clear looks in a month; more than 1 needs `s2_clear` in the batch.
    least_clear: int = 1

    def __post_init__(self) -> None:
        for given, known, what in (
            (self.enmap_flags, ENMAP_FLAGS, "EnMAP flag"),
            (self.enmap_mask_flags, ENMAP_MASK_FLAGS, "flag of enmap_mask"),
        ):
            unknown = [flag for flag in given if flag not in known]
            if unknown:
                raise UsageError(f"masks: unknown {what} {unknown[0]!r}; the flags are {', '.join(known)}")
        if not 1 <= self.last_month <= MONTHS:
            raise UsageError(f"masks: last_month is {self.last_month}; expected 1..{MONTHS}")

    @property
    def enmap_bits(self) -> int:
        """The flags as bits of `enmap_quality`."""
        return sum(ENMAP_FLAGS[flag] for flag in set(self.enmap_flags))

    @property
    def enmap_mask_bits(self) -> int:
        """The flags as bits of `enmap_mask`."""
        return sum(ENMAP_MASK_FLAGS[flag] for flag in set(self.enmap_mask_flags))


class BatchTransforms:
    """Augments, masks and normalises a batch.

    Takes samples of `CropSamples` collated by PyTorch's `default_collate`, on any device: `s2` (B, T, band, y, x) and
    `enmap` (B, band, y30, x30) int16, `label` and `prior` (B, tier, y, x) uint8, and whatever else of a store's arrays.
    Gives a dictionary with the same names: `s2` and `enmap` of the dtype asked for, 0 where nothing was measured or
    what was measured is masked; `label`, `prior` and `parcel` int64, 255 still unknown; other arrays moved along.
    The batch that is given stays as it is.
    """

    def __init__(
        self,
        normalisation: Normalisation,
        *,
        stored_offset: Mapping[str, float] | None = None,
        masks: Masks | None = None,
        augmentation: Augmentation | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Nothing is masked and nothing is augmented by default (as in evaluation).

        stored_offset: what the numbers of the store have on top of reflectance x 10000, as `stored_offsets` gives it:
        where the normalisation is for other numbers (the published one for +1000), the difference is added.
        """
        self.normalisation = normalisation
        self.stored_offset = dict(stored_offset or {})
        self.masks = masks or Masks()
        self.augmentation = augmentation
        self.dtype = dtype
        self._figures = {
            array: normalisation.in_stored_numbers(array, self.stored_offset.get(array, 0.0))
            for array in normalisation.mean
        }

    @classmethod
    def for_store(
        cls,
        store: str | Path,
        normalisation: Normalisation | None = None,
        *,
        release: int | None = None,
        published: bool = False,
        masks: Masks | None = None,
        augmentation: Augmentation | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> BatchTransforms:
        """Transforms for the samples of a store: its own statistics by default, or others after a check.

        published: normalise as the published weights need it (`Normalisation.published`), whatever the store's
        Sentinel-2 numbers have on top. Raises as `check_normalisation` and `Normalisation.of_store`.
        """
        if normalisation is None:
            normalisation = Normalisation.published() if published else Normalisation.of_store(store, release)
        check_normalisation(normalisation, store, release, published=published)
        return cls(
            normalisation,
            stored_offset=stored_offsets(store, release),
            masks=masks,
            augmentation=augmentation,
            dtype=dtype,
        )

    def __call__(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> dict[str, Any]:
        """Transform a batch.

        generator: on the CPU; every random choice is drawn from it.
        Raises UsageError where augmentation is configured and no generator is given, an array has no normalisation or
        another number of bands, or an array that a mask needs is missing.
        """
        if self.augmentation is not None and generator is None:
            raise UsageError("augmentation requires a torch.Generator")
        result = {
            name: value.to(SIGNED_DTYPES.get(value.dtype, value.dtype)) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        missing = [name for name in IMAGES if name in result and name not in self._figures]
        if missing:
            raise UsageError(
                f"the normalisation ({self.normalisation.source}) has no {missing[0]}, but the batch does; leave it "
                "out of the arrays to read, or take Normalisation.of_store"
            )
        dropped: Tensor | None = None
        if self.augmentation is not None and generator is not None:
            result, dropped = self.augmented(result, self.augmentation, generator)
        for name in IMAGES:
            if name in result:
                result[name] = normalise(result[name], *self._figures[name], self.dtype)
        self.mask(result, dropped)
        for name in NUMBERED:
            if name in result:
                result[name] = result[name].long()
        return result

    def augmented(
        self, batch: dict[str, Any], augmentation: Augmentation, generator: torch.Generator
    ) -> tuple[dict[str, Any], Tensor | None]:
        """The batch after random flips, turns and cut-mix, and which months are to be masked: (B, T) bool."""
        patch, step = patch_and_step(batch)
        samples = next((len(value) for value in batch.values() if isinstance(value, Tensor)), 0)
        turned = orient(batch, draw_orientations(samples, augmentation, generator))
        mixes = draw_mixes(samples, patch, step, augmentation, generator)
        mixed = cut_mix(turned, mixes, as_published=augmentation.as_published)
        if "s2" not in batch:
            return mixed, None
        months = batch["s2"].shape[1]
        last_month = min(months, self.masks.last_month)
        return mixed, draw_dropped_months(samples, months, last_month, augmentation, generator)

    def mask(self, batch: dict[str, Any], dropped: Tensor | None) -> None:
        """Set to 0, in place, what is masked of the normalised images."""
        if "s2" in batch:
            batch["s2"][:, self.masks.last_month :] = 0
            if dropped is not None and dropped.any():
                batch["s2"].masked_fill_(dropped.to(batch["s2"].device)[:, :, None, None, None], 0)
            if self.masks.least_clear > 1:
                clear = needed(batch, "s2_clear", "least_clear")
                batch["s2"].masked_fill_((clear < self.masks.least_clear)[:, :, None], 0)
        if "enmap" in batch and self.masks.enmap_bits:
            quality = needed(batch, "enmap_quality", "enmap_flags")
            batch["enmap"].masked_fill_(((quality & self.masks.enmap_bits) != 0)[:, None], 0)
        if "enmap" in batch and self.masks.enmap_mask_bits:
            own = needed(batch, "enmap_mask", "enmap_mask_flags")
            batch["enmap"].masked_fill_(((own & self.masks.enmap_mask_bits) != 0)[:, None], 0)


def needed(batch: Mapping[str, Any], array: str, setting: str) -> Tensor:
    """An array that a mask needs. Raises UsageError where the batch does not have it."""
    if array not in batch:
        raise UsageError(f"masks: {setting} needs the array {array}: read it too, CropSamples(..., arrays=[...])")
    found: Tensor = batch[array]
    return found
