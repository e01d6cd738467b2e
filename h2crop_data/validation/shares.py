"""The columns of the samples index that follow from the arrays, computed anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import ENMAP_FLAGS, MONTHS, REFLECTANCE_FILL, UNKNOWN
from h2crop_data.validation.values import Problem


def share_problems(
    arrays: dict[str, NDArray[Any]], samples: pd.DataFrame, mask: int | None, *, imported: bool
) -> Iterator[Problem]:
    """Columns of the index that are not what the arrays of a block give.

    samples: the rows of its samples, in order. mask: the flags that count as flagged; None where nobody says.
    """
    for sample, row in enumerate(samples.to_dict("records")):
        of_sample = {name: values[sample] for name, values in arrays.items()}
        for array, column, value in recomputed(of_sample, mask, imported=imported):
            if column in row and not same(row[column], value, unknown_allowed=imported):
                what = (
                    f"the index says {column} = {value_in_words(row[column])}, the array gives {value_in_words(value)}"
                )
                yield Problem(sample, array, "shares", what)
        if "s2_clear" in of_sample and not imported:
            for what in date_problems(of_sample["s2_clear"], list(row.get("s2_dates", []))):
                yield Problem(sample, "s2_clear", "shares", what)


def recomputed(
    arrays: dict[str, NDArray[Any]], mask: int | None, *, imported: bool
) -> Iterator[tuple[str, str, float | int | list[float]]]:
    """Array, column and value of what follows from the arrays of one sample."""
    if "enmap" in arrays:
        yield "enmap", "enmap_fill_share", float((arrays["enmap"] == REFLECTANCE_FILL).mean())
    if "enmap_quality" in arrays:
        quality = arrays["enmap_quality"]
        yield "enmap_quality", "enmap_cloud_share", float(((quality & ENMAP_FLAGS["cloud"]) != 0).mean())
        if mask is not None:
            yield "enmap_quality", "enmap_flagged_share", float(((quality & mask) != 0).mean())
    if "s2_clear" in arrays:
        yield "s2_clear", "s2_clear_share", [float(share) for share in (arrays["s2_clear"] > 0).mean(axis=(1, 2))]
    if "label" in arrays:
        classes = arrays["label"]
        yield "label", "class_share", [float(((tier > 0) & (tier < UNKNOWN)).mean()) for tier in classes]
        if imported:
            yield "label", "declared_share", float((classes[0] > 0).mean())
    if "parcel" in arrays and not imported:
        numbers = arrays["parcel"]
        yield "parcel", "parcels", int(np.setdiff1d(numbers, [0]).size)
        yield "parcel", "declared_share", float((numbers > 0).mean())


def same(stored: Any, value: float | int | list[float], *, unknown_allowed: bool) -> bool:
    """Whether a column holds a value exactly; an import may not know it."""
    if isinstance(value, list):
        return stored is not None and list(stored) == value
    if stored is None or pd.isna(stored):
        return unknown_allowed
    return bool(stored == value)


def value_in_words(value: Any) -> str:
    """A value of a column in a sentence."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str([round(float(one), 6) for one in value]) if isinstance(value, list | np.ndarray) else str(value)


def date_problems(clear: NDArray[np.uint8], dates: list[str]) -> Iterator[str]:
    """Where the days a sample names are not those its clear days can come from.

    clear: (month, y, x). dates: `2022-07-24` and so on.
    """
    named = np.bincount([int(date[5:7]) for date in dates if date[5:7].isdecimal()], minlength=MONTHS + 1)[1:]
    most = clear.reshape(len(clear), -1).max(axis=1).astype(int)
    for month in range(MONTHS):
        if (named[month] > 0) != (most[month] > 0) or named[month] < most[month]:
            yield f"{most[month]} clear day(s) in month {month + 1}, the index names {named[month]}"
