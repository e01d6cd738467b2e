"""Normalisation of arrays by means and standard deviations, before the model sees them.

Needs PyTorch alone, as the model does; what it reads of a store is in `store_statistics`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from h2crop_data.constants import IMAGES, PUBLISHED_OFFSET, REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.errors import UsageError

#: Mean and standard deviation of each band in the configuration of the published H2Crop code (2025, Apache-2.0), in the
#: numbers of its files, restated as array, band (from 1), mean, sd.
PUBLISHED_TABLE = Path(__file__).with_name("published_normalisation.csv")
#: Numbers normalised at a time: as float32 they fit the cache of a CPU core (2 MiB); elsewhere memory is the limit.
CPU_BLOCK, DEVICE_BLOCK = 1 << 19, 1 << 26


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each band, in the numbers that a store holds (reflectance / scale).

    A standard deviation of 0 means that the band says nothing in the training split (no pixel, or one value only):
    normalised it is 0 everywhere. Figures of other types of numbers and sequences become tuples of float. Raises
    UsageError where means and standard deviations do not match, or one is negative or not a number.
    """

    #: Where the figures come from, in words.
    source: str
    #: Array (`enmap`, `s2`) -> mean of each band.
    mean: dict[str, tuple[float, ...]]
    #: Array -> standard deviation of each band.
    sd: dict[str, tuple[float, ...]]
    #: Reflectance of the number 1.
    reflectance_scale: float = REFLECTANCE_SCALE
    #: What the numbers have on top of reflectance / scale, by array: +1000 in the published Sentinel-2 arrays.
    offset: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            figures = {name: numbers_of_bands(getattr(self, name)) for name in ("mean", "sd")}
            offset = {array: float(value) for array, value in self.offset.items()}
            scale = float(self.reflectance_scale)
        except (AttributeError, TypeError, ValueError) as error:
            raise UsageError(
                f"normalisation ({self.source}): mean and sd are array -> one number a band, offset is array -> "
                f"number, reflectance_scale is a number; {error}"
            ) from error
        for name, value in {**figures, "offset": offset, "reflectance_scale": scale}.items():
            object.__setattr__(self, name, value)
        if {name: len(bands) for name, bands in self.mean.items()} != {name: len(sd) for name, sd in self.sd.items()}:
            raise UsageError(
                f"normalisation ({self.source}): mean and sd must have the same arrays with the same number of bands"
            )
        if not all(sd >= 0 for bands in self.sd.values() for sd in bands):
            raise UsageError(f"normalisation ({self.source}): a standard deviation must not be negative or NaN")

    @classmethod
    def of_store(cls, store: str | Path, release: int | None = None) -> Normalisation:
        """The statistics of a release's training split, of every array that the store has.

        store: folder or URL. release: the current one by default. A band without a measured pixel gets mean 0 and
        standard deviation 0, a band of one value the deviation 0 (both are 0 when normalised).
        Raises StoreError where the store has no training split.
        """
        # Reading a store needs far more packages than the rest of this module.
        from h2crop_data.cube.reading import store_attributes
        from h2crop_data.training.store_statistics import reflectance_statistics, stored_number, stored_offsets

        statistics = reflectance_statistics(store, release)
        attributes = store_attributes(store, release)
        present = [name for name in IMAGES if name in statistics]
        return cls(
            source=f"training split of {attributes['title']!r}, release {attributes['release']}, "
            f"{statistics['samples']} sample(s)",
            mean={name: tuple(stored_number(band["mean"]) for band in statistics[name]) for name in present},
            sd={name: tuple(stored_number(band["sd"]) for band in statistics[name]) for name in present},
            offset={name: value for name, value in stored_offsets(store, release).items() if name in present},
        )

    @classmethod
    def published(cls) -> Normalisation:
        """The figures of the published configuration, which published weights need.

        Ten Sentinel-2 bands (`SENTINEL2_BANDS`), whose numbers have 1000 on top and clouds among them, and 218 EnMAP
        bands in order of wavelength.
        """
        rows = published_rows()
        return cls(
            source="published H2Crop configuration (2025, Apache-2.0)",
            mean={name: tuple(mean for array, mean, _ in rows if array == name) for name in IMAGES},
            sd={name: tuple(sd for array, _, sd in rows if array == name) for name in IMAGES},
            offset={"s2": float(PUBLISHED_OFFSET)},
        )

    def in_stored_numbers(self, array: str, stored_offset: float = 0.0) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each band of an array, (band) float32, for the numbers of a store.

        stored_offset: what those numbers have on top of reflectance x 10000 (`stored_offsets`). Taking the difference
        of the offsets from the mean equals adding it to every number.
        """
        factor = self.reflectance_scale / REFLECTANCE_SCALE
        mean = torch.tensor(self.mean[array], dtype=torch.float64) - self.offset.get(array, 0.0)
        sd = torch.tensor(self.sd[array], dtype=torch.float64)
        return (mean * factor + stored_offset).float(), (sd * factor).float()


def numbers_of_bands(figures: Mapping[str, Iterable[float]]) -> dict[str, tuple[float, ...]]:
    """Array -> number of each band, as float."""
    return {array: tuple(float(value) for value in bands) for array, bands in figures.items()}


@cache
def published_rows() -> tuple[tuple[str, float, float], ...]:
    """Array, mean and standard deviation of each published band, in order."""
    with PUBLISHED_TABLE.open(encoding="utf-8", newline="") as file:
        return tuple((row["array"], float(row["mean"]), float(row["sd"])) for row in csv.DictReader(file))


def normalise(stored: Tensor, mean: Tensor, sd: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(stored - mean) / sd of each band, 0 where stored is fill (-32768) or sd is 0.

    stored: (..., band, y, x) int16. mean, sd: (band) float32, in stored numbers. dtype: of the result: float32,
    bfloat16 or float16; computed in float32. Works block by block in one small buffer that stays in the cache, so that
    memory is read and written once.
    Raises UsageError for another dtype of `stored` or another number of bands.
    """
    if stored.dtype != torch.int16 or stored.ndim < 3 or stored.shape[-3] != len(mean):
        raise UsageError(
            f"expected numbers as stored, (..., {len(mean)} bands, y, x) int16; "
            f"got {tuple(stored.shape)} {stored.dtype}"
        )
    result = torch.empty(stored.shape, dtype=dtype, device=stored.device)
    bands, plane = stored.shape[-3], stored.shape[-2] * stored.shape[-1]
    block = CPU_BLOCK if stored.device.type == "cpu" else DEVICE_BLOCK
    images = stored.reshape(-1, *stored.shape[-3:])
    images_at_once = max(1, min(len(images), block // max(1, bands * plane)))
    bands_at_once = min(bands, max(1, block // max(1, plane)))
    buffer = torch.empty((images_at_once, bands_at_once, *stored.shape[-2:]), device=stored.device)
    shift = mean.to(stored.device)[:, None, None]
    scale = torch.where(sd > 0, 1 / sd, 0.0).to(stored.device)[:, None, None]
    targets = result.view(images.shape)
    for start in range(0, len(images), images_at_once):
        source, target = (values[start : start + images_at_once] for values in (images, targets))
        for first in range(0, bands, bands_at_once):
            chosen = slice(first, first + bands_at_once)
            numbers = source[:, chosen]
            values = buffer[: numbers.shape[0], : numbers.shape[1]]
            values.copy_(numbers)
            # Fill is the lowest number of int16: as NaN it survives the arithmetic and is found again.
            F.threshold(values, REFLECTANCE_FILL + 0.5, float("nan"), inplace=True)
            values.sub_(shift[chosen]).mul_(scale[chosen])
            target[:, chosen] = values.nan_to_num_(0.0)
    return result
