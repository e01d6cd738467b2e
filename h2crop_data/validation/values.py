"""How checks report values that cannot be true; the rules that a source states of its arrays, checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_SCALE
from h2crop_data.cube.schema import ArraySpec
from h2crop_data.validation.findings import Severity

#: Numbers that a finding names.
FEW = 5


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


def rule_problems(spec: ArraySpec, values: NDArray[Any]) -> Iterator[Problem]:
    """Where the stored numbers of an array (sample, ...) break the rules that its source states."""
    rules = spec.rules
    if rules is None:
        return
    fill = values == spec.fill
    bounds: tuple[tuple[tuple[float, float] | None, Severity], ...]
    bounds = ((rules.possible, "error"), (rules.plausible, "warning"))
    for limits, severity in bounds:
        if limits is not None:
            outside = ~((values >= limits[0]) & (values <= limits[1])) & ~fill
            yield from wrong_samples(spec.name, "range", outside, f"outside {span_in_words(spec, limits)}", severity)
    if rules.numbers is not None:
        strange = ~np.isin(values, rules.numbers) & ~fill
        what = f"that are none of those there are ({', '.join(map(str, np.unique(values[strange])[:FEW]))})"
        yield from wrong_samples(spec.name, "range", strange, what)
    if rules.flags is not None:
        strange = (values & ~np.array(rules.flags, values.dtype)) != 0
        yield from wrong_samples(spec.name, "range", strange & ~fill, "with flags that do not exist")
    if rules.fill == "nowhere":
        yield from wrong_samples(spec.name, "fill", fill, "without a number, where every pixel has one")
    elif rules.fill == "whole pixels":
        in_part = fill.any(axis=-3) & ~fill.all(axis=-3)
        yield from wrong_samples(spec.name, "fill", in_part, "with fill in some bands only")


def span_in_words(spec: ArraySpec, limits: tuple[float, float]) -> str:
    """Lowest and highest stored number, in the units of the array."""
    low, high = limits
    if spec.is_reflectance:
        return f"reflectance {low * REFLECTANCE_SCALE:g} to {high * REFLECTANCE_SCALE:g}"
    units = spec.attributes.get("units", "1")
    return f"{low:g} to {high:g}" + (f" {units}" if units != "1" else "")
