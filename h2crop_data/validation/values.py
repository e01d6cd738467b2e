"""How checks report values that cannot be true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.validation.findings import Severity


@dataclass(frozen=True)
class Problem:
    """Something that cannot be true in a sample of a block (its place from 0)."""

    sample: int
    array: str
    check: str
    what: str
    severity: Severity = "error"


def wrong_samples(
    array: str, check: str, wrong: NDArray[np.bool_], what: str, severity: Severity = "error"
) -> Iterator[Problem]:
    """A problem for every sample that has wrong pixels. wrong: (sample, ...)."""
    counts = wrong.reshape(len(wrong), -1).sum(axis=1)
    for sample in np.flatnonzero(counts).tolist():
        yield Problem(sample, array, check, f"{counts[sample]} value(s) {what}", severity)


def implausible(array: str, values: NDArray[np.int16], bounds: tuple[int, int]) -> Iterator[Problem]:
    """Reflectance that is hardly that of ground. bounds: lowest and highest plausible stored number."""
    low, high = bounds
    outside = ((values < low) & (values != REFLECTANCE_FILL)) | (values > high)
    what = f"outside reflectance {low * REFLECTANCE_SCALE:g} to {high * REFLECTANCE_SCALE:g}"
    yield from wrong_samples(array, "range", outside, what, "warning")
