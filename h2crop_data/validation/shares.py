"""The columns of the samples index that follow from the arrays, computed anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from h2crop_data.validation.checks.source_checks import BlockValues, SourceChecks
from h2crop_data.validation.values import Problem


def share_problems(
    sources: Sequence[SourceChecks[Any]], block: BlockValues, samples: pd.DataFrame
) -> Iterator[Problem]:
    """Columns of the index that are not what the arrays of a block give.

    samples: the rows of its samples, in order.
    """
    for sample, row in enumerate(samples.to_dict("records")):
        arrays = {name: values[sample] for name, values in block.arrays.items()}
        for source in sources:
            unknown = source.unknown_columns(block.season, row)
            for derived in source.derived_columns(block.season, arrays, imported=block.imported):
                stored = row.get(derived.column)
                if derived.column in unknown:
                    if stored is not None and not pd.isna(stored):
                        what = (
                            f"the index says {derived.column} = {value_in_words(stored)}, the scene has no layer for it"
                        )
                        yield Problem(sample, derived.array, "shares", what)
                elif derived.column in row and not same(stored, derived.value, unknown_allowed=block.imported):
                    index, array = value_in_words(stored), value_in_words(derived.value)
                    what = f"the index says {derived.column} = {index}, the array gives {array}"
                    yield Problem(sample, derived.array, "shares", what)
        for source in sources:
            for name, what in source.check_sample(arrays, row, imported=block.imported):
                yield Problem(sample, name, "shares", what)


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
