"""By which means and standard deviations arrays are normalised before the model sees them, and doing so."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE, SENTINEL2_BANDS
from h2crop_data.cube.reading import read_index_json, store_attributes
from h2crop_data.errors import StoreError, UsageError

#: Mean and standard deviation of each band in the configuration of the published H2Crop code (2025, Apache-2.0), in the
#: numbers of its files, restated as array, band (from 1), mean, sd.
PUBLISHED_TABLE = Path(__file__).with_name("published_normalisation.csv")
#: What the published Sentinel-2 numbers are above reflectance x 10000.
PUBLISHED_OFFSET = 1000.0
#: Arrays that are normalised.
IMAGES = ("enmap", "s2")
#: A factor of 10000 between reflectance and stored numbers is recognised by a ratio beyond its square root.
SCALE_MARGIN = 100.0
#: An offset is recognised where allowing for it leaves less than this part of the difference.
OFFSET_MARGIN = 0.5
#: Numbers normalised at a time: as float32 they fit the cache of a CPU core (2 MiB); elsewhere memory is the limit.
CPU_BLOCK, DEVICE_BLOCK = 1 << 19, 1 << 26


class Normalisation(BaseModel):
    """Mean and standard deviation of each band, in the numbers that a store holds (reflectance / scale).

    A standard deviation of 0 means that the band says nothing in the training split (no pixel, or one value only):
    normalised it is 0 everywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Where the figures come from, in words.
    source: str
    #: Array (`enmap`, `s2`) -> mean of each band.
    mean: dict[str, tuple[float, ...]]
    #: Array -> standard deviation of each band.
    sd: dict[str, tuple[float, ...]]
    #: Reflectance of the number 1.
    reflectance_scale: float = REFLECTANCE_SCALE
    #: What the numbers have on top of reflectance / scale, by array: +1000 in the published Sentinel-2 arrays.
    offset: dict[str, float] = {}

    @model_validator(mode="after")
    def check_bands(self) -> Self:
        """Every array has as many means as standard deviations, none of which is negative."""
        if {name: len(bands) for name, bands in self.mean.items()} != {name: len(sd) for name, sd in self.sd.items()}:
            raise ValueError("mean and sd must have the same arrays with the same number of bands")
        if not all(sd >= 0 for bands in self.sd.values() for sd in bands):
            raise ValueError("a standard deviation must not be negative")
        return self

    @classmethod
    def of_store(cls, store: str | Path, release: int | None = None) -> Normalisation:
        """The statistics of a release's training split, of every array that the store has.

        store: folder or URL. release: the current one by default. A band without a measured pixel gets mean 0 and
        standard deviation 0, a band of one value the deviation 0 (both are 0 when normalised).
        Raises StoreError where the store has no training split.
        """
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
            offset={"s2": PUBLISHED_OFFSET},
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


@cache
def published_rows() -> tuple[tuple[str, float, float], ...]:
    """Array, mean and standard deviation of each published band, in order."""
    with PUBLISHED_TABLE.open(encoding="utf-8", newline="") as file:
        return tuple((row["array"], float(row["mean"]), float(row["sd"])) for row in csv.DictReader(file))


def reflectance_statistics(store: str | Path, release: int | None = None) -> dict[str, Any]:
    """`reflectance` of a release's `statistics.json`. Raises StoreError where the store has no training split."""
    statistics: dict[str, Any] = read_index_json(store, "statistics", release)["reflectance"]
    if not any(statistics.get(name) for name in IMAGES):
        raise StoreError(
            f"{store} has no statistics of reflectance: no sample of it is in the split 'train'; "
            "normalise with those of another store"
        )
    return statistics


def stored_number(reflectance: float | None) -> float:
    """Reflectance as a stored number; 0 where there is none."""
    return 0.0 if reflectance is None else reflectance / REFLECTANCE_SCALE


def stored_offsets(store: str | Path, release: int | None = None) -> dict[str, float]:
    """What the numbers of a store's arrays have on top of reflectance x 10000: array -> offset, {} for none.

    Only Sentinel-2 numbers that were imported from published files with their offset have one
    (docs/published-layout.md).
    Raises StoreError where it differs between seasons.
    """
    recipes = read_index_json(store, "recipes", release)
    offsets = {float((recipe.get("published") or {}).get("s2_offset", 0)) for recipe in recipes.values()}
    if len(offsets) > 1:
        raise StoreError(
            f"the Sentinel-2 numbers of {store} have different offsets in different seasons; "
            "import all of them with --remove-offset, or none"
        )
    (offset,) = offsets
    return {"s2": offset} if offset else {}


def check_normalisation(
    normalisation: Normalisation, store: str | Path, release: int | None = None, *, published: bool = False
) -> None:
    """Refuse a normalisation that does not belong to the numbers of a store.

    Its figures are compared with those of the store's training split, both as stored numbers, band by band where both
    have a standard deviation above 0. Of each array, in this order:

    - The median ratio of the standard deviations must lie between 1/100 and 100: where reflectance was taken for stored
      numbers, or the other way round, it is off by 10000.
    - Of `s2`, let d be a band's difference of the means. The median of |d - 1000|, and that of |d + 1000|, must not be
      less than half of the median of |d|. A forgotten or doubled offset makes d about 1000, and then one of them is
      about 0. Between regions and years means differ by up to 300 numbers (0.03 reflectance): that neither looks like
      an offset nor hides one.
    - The median ratio of the means must lie between 1/100 and 100 (means below 1 count as 1).

    The published figures are of images with clouds, which lift Sentinel-2 means by more than the offset does: from the
    means alone a mistaken offset cannot be told from clouds. They are known to the last digit instead. Without
    `published` they are refused. With it, the figures must be those of `Normalisation.published`, offset of +1000
    included, and the store must have the published bands; the offset is then known, and the second rule is not applied.
    `BatchTransforms` adds what the store's numbers lack of that offset.

    Raises UsageError that says which rule failed; StoreError where the store has no training split.
    """
    statistics = reflectance_statistics(store, release)
    exact = Normalisation.published()
    has_published_figures = (normalisation.mean, normalisation.sd) == (exact.mean, exact.sd)
    if published:
        if not has_published_figures:
            raise UsageError(
                f"the normalisation ({normalisation.source}) is not the published one; leave out published=True, or "
                "take Normalisation.published()"
            )
        check_published_numbers(normalisation, store, release)
    elif has_published_figures:
        raise UsageError(
            f"the normalisation ({normalisation.source}) has the published figures, which are of images with clouds; "
            f"for published weights give published=True, else take those of {store} (Normalisation.of_store)"
        )
    offsets = stored_offsets(store, release)
    for array in IMAGES:
        bands = statistics.get(array)
        if not bands:
            continue
        if array not in normalisation.mean:
            raise UsageError(f"the normalisation ({normalisation.source}) has no {array}, which {store} has")
        mean, sd = (values.tolist() for values in normalisation.in_stored_numbers(array, offsets.get(array, 0.0)))
        if len(mean) != len(bands):
            raise UsageError(
                f"the normalisation ({normalisation.source}) has {len(mean)} bands of {array}, {store} has {len(bands)}"
            )
        compared = [place for place, band in enumerate(bands) if band["sd"] and sd[place]]
        if not compared:
            continue
        expected = [stored_number(bands[place]["mean"]) for place in compared]
        expected_sd = [stored_number(bands[place]["sd"]) for place in compared]
        where = f"{array}: the normalisation ({normalisation.source}) against the statistics of {store}"
        means = [mean[place] for place in compared]
        check_factor([sd[place] for place in compared], expected_sd, f"standard deviations of {where}")
        if array == "s2" and not published:
            check_offset(means, expected, where)
        check_factor(means, expected, f"means of {where}")


def check_published_numbers(normalisation: Normalisation, store: str | Path, release: int | None) -> None:
    """Whether the published figures are stated to be of the numbers they are of, and a store has their bands.

    Raises UsageError.
    """
    exact = Normalisation.published()
    if normalisation.offset != exact.offset or normalisation.reflectance_scale != exact.reflectance_scale:
        raise UsageError(
            f"the published normalisation is for Sentinel-2 numbers with {PUBLISHED_OFFSET:g} on top, but this one "
            f"states the offsets {normalisation.offset or 'none'}; take Normalisation.published()"
        )
    layout = store_attributes(store, release)["layout"]
    if layout["s2_bands"] and tuple(layout["s2_bands"]) != SENTINEL2_BANDS:
        raise UsageError(
            f"the published normalisation is for the bands {' '.join(SENTINEL2_BANDS)}, {store} has "
            f"{' '.join(layout['s2_bands'])}"
        )


def check_factor(values: list[float], expected: list[float], what: str) -> None:
    """Raise UsageError where figures are off by the reflectance scale in the median."""
    ratio = median(value / max(known, 1.0) for value, known in zip(values, expected, strict=True))
    if 1 / SCALE_MARGIN < ratio < SCALE_MARGIN:
        return
    factor = round(1 / REFLECTANCE_SCALE)
    likely = (
        f"reflectance was taken for stored numbers (factor {factor})"
        if ratio <= 1 / SCALE_MARGIN
        else f"they were multiplied by {factor} twice, or stand for another scale"
    )
    raise UsageError(
        f"{what}: {ratio:.3g} times those of the store in the median, so {likely}; "
        "correct the figures or reflectance_scale, or take Normalisation.of_store"
    )


def check_offset(means: list[float], expected: list[float], where: str) -> None:
    """Raise UsageError where means, in stored numbers, are off by an offset of +1000 or -1000.

    Means that a factor of 10000 explains better are left to `check_factor`: about 1000 below means near 1000 is 0.
    """
    unexplained = distance(means, expected)
    by_factor = distance([value / REFLECTANCE_SCALE for value in means], expected)
    for offset in (PUBLISHED_OFFSET, -PUBLISHED_OFFSET):
        if distance([value - offset for value in means], expected) < min(OFFSET_MARGIN * unexplained, by_factor):
            likely = (
                "its Sentinel-2 numbers had the offset of 1000 that the store's have not; state it as "
                "offset={'s2': 1000}"
                if offset > 0
                else "the offset of 1000 was subtracted from its Sentinel-2 numbers once too often, or is stated "
                "but not in them"
            )
            raise UsageError(
                f"means of {where}: off by about {offset:+g} stored numbers, so {likely}, or take "
                "Normalisation.of_store"
            )


def distance(values: list[float], expected: list[float]) -> float:
    """The median of the absolute differences."""
    return median(abs(value - known) for value, known in zip(values, expected, strict=True))


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
