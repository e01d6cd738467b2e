"""What a source states of its numbers, checked pixel by pixel against a slow reading of the rules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from h2crop_data.constants import ENMAP_FLAGS, REFLECTANCE_FILL
from h2crop_data.cube.schema import ArraySpec, ArrayStatistics, SourceFormat, ValueRules, parsed_source, stated_source
from h2crop_data.sources.formats import known_layout
from h2crop_data.validation.pixels import rule_problems

FILL = -9
BUILT_IN = known_layout(60, 4, enmap_bands=3, s2_bands=["B02", "B03"]).arrays()
#: (sample, band, y, x), small numbers, so that rules are kept and broken.
VALUES = hnp.arrays(np.int16, hnp.array_shapes(min_dims=4, max_dims=4, max_side=3), elements=st.integers(-10, 10))


def spec_of(rules: ValueRules | None, dtype: str = "int16", bands: int = 2, **other: Any) -> ArraySpec:
    dims, shape = ("sample", "layer", "y30", "x30"), (bands, 3, 3)
    return ArraySpec("soil", "soil", dims, shape, (1, *shape), np.dtype(dtype), FILL, rules=rules, **other)


def found(spec: ArraySpec, values: NDArray[Any]) -> dict[int, list[tuple[str, str, int]]]:
    """Sample -> check, severity and how many values."""
    result: dict[int, list[tuple[str, str, int]]] = {}
    for problem in rule_problems(spec, values):
        assert problem.array == "soil"
        count = int(problem.what.split()[0])
        result.setdefault(problem.sample, []).append((problem.check, problem.severity, count))
    return result


@given(VALUES, st.integers(-10, 0), st.integers(0, 10))
def test_numbers_outside_their_bounds_are_counted_by_sample(values: NDArray[np.int16], low: int, high: int) -> None:
    for rules, severity in (
        (ValueRules(possible=(low, high)), "error"),
        (ValueRules(plausible=(low, high)), "warning"),
    ):
        expected = {}
        for place, sample in enumerate(values.tolist()):
            numbers = [number for band in sample for row in band for number in row]
            wrong = [number for number in numbers if number != FILL and not low <= number <= high]
            if wrong:
                expected[place] = [("range", severity, len(wrong))]
        assert found(spec_of(rules), values) == expected


@given(VALUES, st.sets(st.integers(-10, 10), min_size=1))
def test_numbers_that_do_not_exist_are_counted_by_sample(values: NDArray[np.int16], numbers: set[int]) -> None:
    expected = {}
    for place, sample in enumerate(values.tolist()):
        wrong = [n for band in sample for row in band for n in row if n not in numbers and n != FILL]
        if wrong:
            expected[place] = [("range", "error", len(wrong))]
    assert found(spec_of(ValueRules(numbers=tuple(numbers))), values) == expected


@given(hnp.arrays(np.uint16, (2, 2, 2, 2), elements=st.integers(0, 15)), st.integers(0, 15))
def test_flags_that_do_not_exist_are_counted_by_sample(values: NDArray[np.uint16], flags: int) -> None:
    expected = {}
    for place, sample in enumerate(values.tolist()):
        wrong = [
            n for band in sample for row in band for n in row if any(n >> i & 1 > flags >> i & 1 for i in range(4))
        ]
        if wrong:
            expected[place] = [("range", "error", len(wrong))]
    spec = replace(spec_of(None, "uint16"), fill=0, rules=ValueRules(flags=flags))
    assert found(spec, values) == expected


@given(VALUES)
def test_fill_is_where_it_may_be(values: NDArray[np.int16]) -> None:
    nowhere, in_part = {}, {}
    for place, sample in enumerate(values.tolist()):
        bands, height, width = values.shape[1:]
        pixels = [[sample[band][y][x] == FILL for band in range(bands)] for y in range(height) for x in range(width)]
        if filled := sum(map(sum, pixels)):
            nowhere[place] = [("fill", "error", filled)]
        if broken := sum(0 < sum(pixel) < bands for pixel in pixels):
            in_part[place] = [("fill", "error", broken)]
    assert found(spec_of(ValueRules(fill="nowhere")), values) == nowhere
    assert found(spec_of(ValueRules(fill="whole pixels")), values) == in_part
    assert found(spec_of(ValueRules()), values) == found(spec_of(None), values) == {}


def test_what_is_no_number_is_outside_all_bounds() -> None:
    values = np.array([[[[1.0, math.nan], [math.inf, FILL]]]], np.float32)
    assert found(spec_of(ValueRules(possible=(-2, 2)), "float32"), values) == {0: [("range", "error", 2)]}


def test_a_finding_says_numbers_in_the_units_of_the_array() -> None:
    heights = spec_of(ValueRules(possible=(-5, 5)), attributes={"units": "m"})
    (problem,) = rule_problems(heights, np.full((1, 2, 3, 3), 6, np.int16))
    assert problem.what == "18 value(s) outside -5 to 5 m"
    classes = spec_of(ValueRules(numbers=(10, 20)))
    (problem,) = rule_problems(classes, np.array([10, 20, 30, 40], np.int16).reshape(1, 1, 2, 2))
    assert problem.what == "2 value(s) that the format does not know (30, 40)"
    reflectance = BUILT_IN["s2"]
    values = np.full((1, *reflectance.sample_shape), REFLECTANCE_FILL, np.int16)
    values[0, 6, :, 1, 2] = 20001, -2000
    (problem,) = rule_problems(reflectance, values)
    assert (problem.what, problem.severity) == ("1 value(s) outside reflectance -0.2 to 2", "warning")


def test_the_sensors_that_come_with_h2crop_state_theirs() -> None:
    quality = BUILT_IN["enmap_quality"]
    values = np.full((1, *quality.sample_shape), max(ENMAP_FLAGS.values()), np.uint16)
    assert not list(rule_problems(quality, values))
    values[0, 0, 1] = 2 * max(ENMAP_FLAGS.values())
    (problem,) = rule_problems(quality, values)
    assert problem.what == "1 value(s) with flags that do not exist"
    cube = np.full((1, *BUILT_IN["enmap"].sample_shape), 30000, np.int16)
    assert not list(rule_problems(BUILT_IN["enmap"], cube))
    cube[0, 2, 1, 1] += 1
    assert [problem.severity for problem in rule_problems(BUILT_IN["enmap"], cube)] == ["warning"]


@pytest.mark.parametrize(
    ("rules", "dtype", "message"),
    [
        ({"possible": (5, 4)}, "int16", "invalid range of possible numbers, 5 to 4: expected the lower bound first"),
        (
            {"possible": (0, float("inf"))},
            "float32",
            "invalid range of possible numbers, 0 to inf: expected finite bounds",
        ),
        ({"numbers": ()}, "uint8", "numbers: expected at least one number"),
        ({"plausible": (math.nan, 4)}, "int16", "invalid range of plausible numbers, nan to 4"),
        ({"fill": "somewhere"}, "int16", "unknown fill 'somewhere'; expected anywhere, nowhere"),
        ({"flags": 256}, "uint8", "soil: uint8 cannot hold the bit flags 256"),
        ({"flags": 1}, "float32", "soil: float32 cannot hold the bit flags 1"),
    ],
)
def test_rules_that_nothing_can_follow_are_refused(rules: dict[str, Any], dtype: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec_of(ValueRules(**rules), dtype)
    with pytest.raises(ValueError, match="expected an axis of bands"):
        replace(BUILT_IN["enmap_quality"], rules=ValueRules(fill="whole pixels"))


@pytest.mark.parametrize(
    "rules",
    [None, ValueRules(), ValueRules((-1, 2.5), (0, 1), fill="nowhere"), ValueRules(numbers=(1, 2), flags=3)],
)
@pytest.mark.parametrize(
    "statistics", [None, ArrayStatistics("values", by="doubt", flags=5), ArrayStatistics("values")]
)
def test_a_root_states_them_and_gives_them_back(rules: ValueRules | None, statistics: ArrayStatistics | None) -> None:
    source = SourceFormat("soil", "Soil", "soil", (spec_of(rules, statistics=statistics),))
    stated = stated_source(source)
    assert parsed_source(stated) == source
    # What is not stated is left out, as before h2crop knew of it.
    (array,) = stated["arrays"]
    assert ("rules" in array) is (rules is not None)
    assert statistics is None or ("flags" in array["statistics"]) is (statistics.flags is not None)
