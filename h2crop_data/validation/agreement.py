"""Whether EnMAP shows what Sentinel-2 shows: a correlation a sample, and its distribution over the store.

The one check that knows two sensors. It is made where a store states both arrays, `enmap` and `s2`. Of two images of
one ground within a month one follows from the other; of images of other ground, or with their rows turned, it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import ENMAP_FLAGS, ENMAP_MASK_FLAGS, REFLECTANCE_FILL
from h2crop_data.cube.root import stored_data
from h2crop_data.validation.findings import Checking, Counted, Measured, NotChecked, Reports, warning
from h2crop_data.validation.sources import BlockValues, SourceChecks, ValueCheck

#: Centre and width in nm of the bands of Sentinel-2 (mean of its satellites; ESA, Sentinel-2 spectral responses).
S2_BANDS = {
    "B01": (443, 20),
    "B02": (492, 66),
    "B03": (560, 36),
    "B04": (665, 31),
    "B05": (704, 15),
    "B06": (740, 15),
    "B07": (782, 20),
    "B08": (833, 106),
    "B8A": (865, 21),
    "B11": (1612, 91),
    "B12": (2198, 175),
}
#: Flags of EnMAP pixels that are not compared: they show no ground, or not clearly.
NOT_COMPARED = sum(
    ENMAP_FLAGS[flag] for flag in ("outside", "cloud", "cloud_shadow", "haze", "cirrus_medium", "cirrus_thick", "snow")
)
NOT_COMPARED_BY_OWN = ENMAP_MASK_FLAGS["cloud"] | ENMAP_MASK_FLAGS["cloud_shadow"]
#: A sample is compared where so many pixels of 30 m are clear in both, in bands of EnMAP whose standard deviation there
#: is at least this (stored numbers: reflectance 0.003); it takes so many bands.
PIXELS_NEEDED, BAND_CONTRAST, BANDS_NEEDED = 256, 30.0, 3
#: Weights are fitted in every other square of so many pixels of 30 m, and judged in the others.
CHESS_SQUARE = 8
#: The agreement of a sample is this quantile of its bands: where crops change within the month, some show it less.
BAND_QUANTILE = 0.75
#: A sample below the first is an outlier in every store, one above the second in none. In between it is one where it
#: lies more than so many standard deviations (by the median absolute deviation) below the median, if there are so many
#: samples.
OUTLIER_BELOW, NO_OUTLIER_ABOVE, OUTLIER_DEVIATIONS, SAMPLES_NEEDED = 0.75, 0.8, 4.0, 20
MAD_TO_SD = 1.4826
AGREEMENT_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def agreement(
    arrays: Mapping[str, NDArray[Any]], wavelength: NDArray[np.floating[Any]], month: int, s2_bands: Sequence[str]
) -> float | None:
    """How well EnMAP follows from the Sentinel-2 composite of its month, -1..1; None where too little shows it.

    EnMAP, averaged over the width of each band of Sentinel-2, is predicted from all bands of the composite by weights
    fitted on other ground of the sample, so that crops may have changed since. The agreement is the correlation of
    prediction and image, of all bands the upper quartile.

    arrays: of the sample: `enmap` (band, y30, x30), `s2` (month, s2_band, y, x), and as far as the store has them
    `enmap_quality` and `enmap_mask` (y30, x30). wavelength: (band) in nm, 0 where not known. month: 1 to 12.
    """
    cube = arrays["enmap"]
    clear = np.ones(cube.shape[1:], bool)
    if "enmap_quality" in arrays:
        clear &= (arrays["enmap_quality"] & NOT_COMPARED) == 0
    if "enmap_mask" in arrays:
        clear &= (arrays["enmap_mask"] & NOT_COMPARED_BY_OWN) == 0
    composite, shown = coarse(arrays["s2"][month - 1])
    bands = enmap_in_bands(cube, wavelength, s2_bands)
    clear &= shown & np.isfinite(bands).all(axis=0)
    if clear.sum() < PIXELS_NEEDED or len(bands) < BANDS_NEEDED:
        return None
    correlations = predicted_correlations(composite[:, clear].T, bands[:, clear].T, other_squares(clear.shape)[clear])
    return None if len(correlations) < BANDS_NEEDED else float(np.quantile(correlations, BAND_QUANTILE))


def enmap_in_bands(
    cube: NDArray[np.int16], wavelength: NDArray[np.floating[Any]], s2_bands: Sequence[str]
) -> NDArray[np.float64]:
    """EnMAP (band, y30, x30) as the mean over the width of each band of Sentinel-2 it has bands in; NaN for fill."""
    means = []
    for centre, width in (S2_BANDS[band] for band in s2_bands if band in S2_BANDS):
        values = cube[(wavelength > 0) & (np.abs(wavelength - centre) <= width / 2)]
        if len(values):
            means.append(np.where((values == REFLECTANCE_FILL).any(axis=0), np.nan, values.mean(axis=0)))
    return np.array(means).reshape(-1, *cube.shape[1:])


def other_squares(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Every other square of a chessboard (y30, x30)."""
    rows, columns = np.indices(shape) // CHESS_SQUARE
    return np.asarray((rows + columns) % 2 == 0)


def predicted_correlations(
    known: NDArray[np.float64], wanted: NDArray[np.float64], part: NDArray[np.bool_]
) -> list[float]:
    """How well each column of `wanted` (pixel, band) follows from all of `known` (pixel, band).

    Weights come from one part of the pixels and are judged in the other, both ways. Columns without contrast are left
    out; none where a part has fewer pixels than would fix its weights ten times over.
    """
    if min(part.sum(), (~part).sum()) < 10 * (known.shape[1] + 1):
        return []
    design = np.column_stack([np.ones(len(known)), known])
    predicted = np.empty_like(wanted)
    for judged in (part, ~part):
        weights = np.linalg.lstsq(design[~judged], wanted[~judged], rcond=None)[0]
        predicted[judged] = design[judged] @ weights
    contrast = (wanted.std(axis=0) >= BAND_CONTRAST) & (predicted.std(axis=0) > 0)
    return [float(np.corrcoef(predicted[:, band], wanted[:, band])[0, 1]) for band in np.flatnonzero(contrast)]


def coarse(composite: NDArray[np.int16]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A composite (s2_band, y, x) in pixels of 30 m, the means of 3 x 3, and where all of these have a value."""
    bands, height, width = composite.shape
    pixels = composite.reshape(bands, height // 3, 3, width // 3, 3)
    return pixels.mean(axis=(2, 4)), (pixels != REFLECTANCE_FILL).all(axis=(0, 2, 4))


@dataclass(frozen=True)
class Distribution:
    """The agreement of the samples of a store."""

    samples: int
    #: Percentile -> agreement; empty without samples.
    percentiles: dict[int, float]
    #: Median absolute deviation.
    deviation: float
    #: Samples below it are outliers.
    limit: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution:
        """Of the samples that could be compared."""
        if not values:
            return cls(0, {}, 0.0, OUTLIER_BELOW)
        numbers = np.array(values)
        median = float(np.median(numbers))
        deviation = float(np.median(np.abs(numbers - median)))
        limit = OUTLIER_BELOW
        if len(numbers) >= SAMPLES_NEEDED:
            limit = min(max(median - OUTLIER_DEVIATIONS * MAD_TO_SD * deviation, OUTLIER_BELOW), NO_OUTLIER_ABOVE)
        found = np.percentile(numbers, AGREEMENT_PERCENTILES).tolist()
        return cls(len(numbers), dict(zip(AGREEMENT_PERCENTILES, found, strict=True)), deviation, limit)

    def as_json(self) -> dict[str, Any]:
        """As plain data, rounded to four digits."""
        return {
            "samples": self.samples,
            "percentiles": {str(name): round(value, 4) for name, value in self.percentiles.items()},
            "limit": round(self.limit, 4),
        }


@dataclass(frozen=True)
class Compared:
    """The agreement of a sample, -1..1."""

    season: int
    block: int
    sample: str
    value: float


@dataclass(frozen=True)
class BlockAgreement:
    """The samples of a block that could be compared, or why none could."""

    #: Samples and their agreement.
    values: tuple[tuple[str, float], ...] = ()
    lacking: str = ""


@dataclass(frozen=True)
class AgreementShown:
    """What the blocks before have shown."""

    #: Of the seasons before; of the season that is looked at, those of each block.
    before: tuple[Compared, ...] = ()
    blocks: tuple[tuple[Compared, ...], ...] = ()


@dataclass(frozen=True)
class AgreementChecks(SourceChecks[None, BlockAgreement, AgreementShown]):
    """EnMAP against Sentinel-2, in a store that has both."""

    name = "agreement"
    #: What a store must state for it.
    arrays: ClassVar[frozenset[str]] = frozenset({"enmap", "s2"})

    def check_values(self, block: BlockValues, facts: None) -> ValueCheck[BlockAgreement]:
        """The agreement of each sample of a block that can be compared."""
        wavelength = self.release.coordinates.get(block.season, {}).get("wavelength")
        if not set(block.arrays) >= self.arrays:
            return ValueCheck()
        if wavelength is None or block.rows is None:
            what = "wavelengths" if wavelength is None else "rows of the samples index"
            return ValueCheck(kept=BlockAgreement(lacking=f"their {what} are lost or damaged"))
        compared = []
        bands = stored_data(self.release.attributes["layout"]).s2_bands
        columns = ("sample", "slot", "scene_time")
        for place, (sample, slot, moment) in enumerate(zip(*(block.rows[name] for name in columns), strict=True)):
            if not pd.isna(moment) and 0 <= slot < len(wavelength):
                arrays = {name: values[place] for name, values in block.arrays.items()}
                value = agreement(arrays, wavelength[slot], moment.month, bands)
                compared += [] if value is None else [(str(sample), value)]
        return ValueCheck(kept=BlockAgreement(tuple(compared)))

    def compare_block(
        self, shown: AgreementShown | None, season: int, block: int, kept: BlockAgreement
    ) -> Checking[AgreementShown | None]:
        """Those of the blocks before, and of this one."""
        before = shown or AgreementShown()
        if kept.lacking:
            yield NotChecked(f"whether EnMAP shows what Sentinel-2 shows, in blocks of {season}: {kept.lacking}")
            return before
        yield Counted("samples_of_two_sensors", len(kept.values))
        of_block = tuple(Compared(season, block, sample, value) for sample, value in kept.values)
        return AgreementShown(before.before, (*before.blocks, of_block))

    def end_season(
        self, shown: AgreementShown | None, season: int, labelled: Mapping[str, NDArray[np.uint32]]
    ) -> Checking[AgreementShown | None]:
        """The samples of its blocks together."""
        yield from ()
        return None if shown is None else AgreementShown((*shown.before, *chain.from_iterable(shown.blocks)))

    def end_store(self, shown: AgreementShown | None) -> Reports:
        """The distribution, and the samples that lie outside it."""
        compared = (shown or AgreementShown()).before
        distribution = Distribution.of([one.value for one in compared])
        yield Measured("enmap_with_s2", distribution.as_json())
        for one in compared:
            if one.value < distribution.limit:
                what = (
                    f"EnMAP follows from Sentinel-2 of its month with a correlation of {one.value:.2f} only; of the "
                    f"store's {distribution.samples} samples the median is {distribution.percentiles[50]:.2f}, and "
                    f"below {distribution.limit:.2f} the two may not show the same ground"
                )
                where = f"{one.season}/enmap and s2, sample {one.sample} (block {one.block})"
                yield warning("agreement", where, what, self.release.remedies.disagreement(one.season, one.block))
