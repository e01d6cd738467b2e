"""Sentinel-2: which offset a scene carries, reflectance, clear pixels and monthly medians."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.errors import SceneError
from h2crop_data.recipe.model import Clouds
from h2crop_data.sentinel2.clear import clear_pixels, has_value, too_bright
from h2crop_data.sentinel2.composite import Observation, median_composite, median_values, sort_layers, sorting_network
from h2crop_data.sentinel2.reflectance import (
    L1C_OFFSET,
    NO_NUMBER,
    OffsetEvidence,
    UndecidedOffsetError,
    decide_offset,
    sentinel2_reflectance,
)

FILL = -32768
economical = settings(deadline=None, max_examples=60)


def bands_stating(offset: float | None) -> dict[str, float]:
    """Bands whose metadata all state one offset, or none."""
    return {} if offset is None else dict.fromkeys(("B02", "B8A", "B12"), offset)


class TestOffset:
    @pytest.mark.parametrize(
        ("baseline", "removed", "stated", "offset"),
        [
            ("02.12", None, None, 0),
            ("03.01", None, None, 0),
            ("03.99", None, 0, 0),
            ("04.00", None, None, -1000),
            ("05.00", None, -0.1, -1000),
            ("05.11", None, -0.1, -1000),
            ("N05.11", False, None, -1000),
            ("5.9", None, None, -1000),
            ("10.00", None, None, -1000),
            ("05.11", True, None, 0),
            ("05.11", True, 0, 0),
            ("05.11", True, 0.0, 0),
            # A flag on data that never had an offset changes nothing.
            ("03.00", True, None, 0),
            ("03.00", False, 0, 0),
        ],
    )
    def test_baseline_and_flag_decide(
        self, baseline: str, removed: bool | None, stated: float | None, offset: int
    ) -> None:
        decision = decide_offset("auto", OffsetEvidence(baseline, removed, bands_stating(stated)))
        assert decision.offset == offset
        assert baseline in decision.reason

    @pytest.mark.parametrize(
        ("evidence", "offset"),
        [
            (OffsetEvidence("05.11", False, bands_stating(-0.1)), None),
            (OffsetEvidence("05.11", True, bands_stating(0)), None),
            (OffsetEvidence("04.00"), None),
            (OffsetEvidence("05.11", bands=frozenset({"B02", "B04"}), jpeg2000=frozenset({"B02"})), None),
            # There was none before, and ESA's files have it.
            (OffsetEvidence("03.01", True), 0),
            (OffsetEvidence("05.11", True, bands=frozenset({"B02"}), jpeg2000=frozenset({"B02"})), -1000),
        ],
    )
    def test_items_that_are_known_to_be_wrong_do_not_decide(self, evidence: OffsetEvidence, offset: int | None) -> None:
        doubted = replace(evidence, doubt="nobody believes it")
        if offset is None:
            with pytest.raises(UndecidedOffsetError, match=r"baseline 0.*, but nobody believes it; look at a dark"):
                decide_offset("auto", doubted)
        else:
            assert decide_offset("auto", doubted).offset == offset
        # What it says is still said against a declaration.
        assert decide_offset(0, doubted).warning == decide_offset(0, evidence).warning

    @pytest.mark.parametrize(
        ("evidence", "offset"),
        [
            (OffsetEvidence("05.11"), None),
            (OffsetEvidence("05.11", False), None),
            (OffsetEvidence("05.11", None, {"B04": -0.1}), None),
            (OffsetEvidence("05.11", None, {"B02": -0.1}), -1000),
            (OffsetEvidence("05.11", True), 0),
            (OffsetEvidence("03.01"), 0),
        ],
    )
    def test_the_baseline_alone_does_not_decide_on_rescaled_numbers(
        self, evidence: OffsetEvidence, offset: int | None
    ) -> None:
        rescaled = replace(evidence, rescaled=frozenset({"B02"}))
        if offset is None:
            with pytest.raises(UndecidedOffsetError, match=r"numbers of B02 are not those that ESA wrote"):
                decide_offset("auto", rescaled)
        else:
            assert decide_offset("auto", rescaled).offset == offset

    def test_reason_names_the_flag_it_followed(self) -> None:
        assert "removed" in decide_offset("auto", OffsetEvidence("05.11", True)).reason
        assert "removed" not in decide_offset("auto", OffsetEvidence("05.11", False)).reason

    @pytest.mark.parametrize(
        ("baseline", "removed", "stated"),
        [
            ("05.11", True, -0.1),  # Earth Search sentinel-2-l2a: the flag and the bands' metadata disagree
            ("05.11", None, 0),
            ("05.11", False, 0.0),
            ("02.12", None, -0.1),
            ("05.11", None, 0.1),
        ],
    )
    def test_contradiction_with_the_stated_offset_is_refused(
        self, baseline: str, removed: bool | None, stated: float
    ) -> None:
        with pytest.raises(SceneError, match=r"contradiction.*declare `sentinel2\.offset: 0` or `-1000`"):
            decide_offset("auto", OffsetEvidence(baseline, removed, bands_stating(stated)))

    def test_missing_baseline_is_refused_with_advice(self) -> None:
        with pytest.raises(SceneError, match=r"no processing baseline.*`sentinel2\.offset: 0` or `-1000`"):
            decide_offset("auto", OffsetEvidence(None, True, bands_stating(-0.1)))

    def test_the_advice_names_the_setting_of_the_level(self) -> None:
        with pytest.raises(SceneError, match=r"declare `sentinel2\.clouds\.l1c\.offset: 0` or `-1000`"):
            decide_offset("auto", OffsetEvidence(None), L1C_OFFSET)

    @pytest.mark.parametrize(
        ("stated", "named", "offset"),
        [(None, "05.11", -1000), (None, "02.12", 0), ("99.99", "05.11", -1000), ("05.10", "04.00", -1000)],
    )
    def test_the_baseline_of_the_products_name(self, stated: str | None, named: str, offset: int) -> None:
        assert decide_offset("auto", OffsetEvidence(stated, named=named)).offset == offset

    @pytest.mark.parametrize(
        ("stated", "named", "said"),
        [
            ("03.01", "05.00", "baseline 03.01 is stated, the name of the product says 05.00"),
            ("99.99", None, "'99.99' is none of ESA"),
            (None, "99.99", "'99.99' is none of ESA"),
        ],
    )
    def test_baselines_that_decide_nothing(self, stated: str | None, named: str | None, said: str) -> None:
        with pytest.raises(UndecidedOffsetError, match=said):
            decide_offset("auto", OffsetEvidence(stated, named=named))

    @pytest.mark.parametrize("baseline", ["0511", "latest", "05.11.2", "5", ""])
    def test_damaged_baseline_is_refused(self, baseline: str) -> None:
        with pytest.raises(SceneError, match=r"not like 05\.11"):
            decide_offset("auto", OffsetEvidence(baseline))

    @pytest.mark.parametrize("declared", [0, -1000])
    @pytest.mark.parametrize(
        "evidence",
        [
            OffsetEvidence(None),
            OffsetEvidence("02.12"),
            OffsetEvidence("05.11", True, {"B02": -0.1}),
            OffsetEvidence("garbage"),
        ],
    )
    def test_declared_wins_over_all_evidence(self, declared: Literal[0, -1000], evidence: OffsetEvidence) -> None:
        decision = decide_offset(declared, evidence)
        assert decision.offset == declared
        assert "declared" in decision.reason

    @pytest.mark.parametrize(
        ("declared", "evidence", "warns"),
        [
            (0, OffsetEvidence("05.11"), True),
            (-1000, OffsetEvidence("05.11"), False),
            (-1000, OffsetEvidence("02.12"), True),
            (0, OffsetEvidence("02.12"), False),
            (-1000, OffsetEvidence("05.11", True), True),
            # Nothing is said against it where nothing is said, or one thing and another.
            (0, OffsetEvidence(None), False),
            (0, OffsetEvidence("05.11", True, bands_stating(-0.1)), False),
            # What the bands say counts where there is no baseline, and no number fits bands that differ.
            (0, OffsetEvidence(None, None, bands_stating(-0.1)), True),
            (-1000, OffsetEvidence(None, None, bands_stating(-0.1)), False),
            (0, OffsetEvidence("05.11", None, bands_stating(-0.1) | {"B08": 0.0}), True),
            (-1000, OffsetEvidence("05.11", None, bands_stating(-0.1) | {"B08": 0.0}), True),
        ],
    )
    def test_a_declaration_that_the_item_contradicts_warns(
        self, declared: Literal[0, -1000], evidence: OffsetEvidence, warns: bool
    ) -> None:
        warning = decide_offset(declared, evidence).warning
        assert ("is declared, the" in warning) == warns
        assert warns or warning == ""

    @pytest.mark.parametrize("odd", ["B02", "B8A", "B12"])
    def test_one_band_that_states_another_offset_is_a_contradiction(self, odd: str) -> None:
        stated = bands_stating(-0.1) | {odd: 0.0}
        with pytest.raises(SceneError, match=rf"those of {odd} say 0"):
            decide_offset("auto", OffsetEvidence("05.11", None, stated))

    def test_removed_is_not_believed_of_jpeg_2000(self) -> None:
        bands = frozenset({"B02", "B03"})
        decision = decide_offset("auto", OffsetEvidence("05.11", True, {}, bands, bands))
        assert decision.offset == -1000
        assert "JPEG 2000" in decision.reason
        assert decide_offset("auto", OffsetEvidence("03.01", True, {}, bands, bands)).offset == 0
        with pytest.raises(SceneError, match="B03 are in JPEG 2000, others are not"):
            decide_offset("auto", OffsetEvidence("05.11", True, {}, frozenset({"B03"}), bands))


class TestReflectance:
    @economical
    @given(hnp.arrays(np.uint16, (3, 4)), st.sampled_from([0, -1000]))
    def test_offset_is_added_once_and_only_the_type_limits(self, numbers: np.ndarray, offset: int) -> None:
        before = numbers.copy()
        values = sentinel2_reflectance(numbers, offset)
        expected = [[FILL if n == 0 else min(n + offset, 32767) for n in row] for row in before.tolist()]
        assert values.dtype == np.int16
        assert values.tolist() == expected
        assert (numbers == before).all()

    @pytest.mark.parametrize("offset", [0, -1, -1000, -32767])
    def test_in_16_bits_every_number_is_what_it_is_in_64(self, offset: int) -> None:
        numbers = np.arange(2**16, dtype=np.uint16)
        expected = np.clip(numbers.astype(np.int64) + offset, -32767, 32767)
        expected[0] = FILL
        assert (sentinel2_reflectance(numbers, offset) == expected).all()

    @pytest.mark.parametrize(
        ("number", "offset", "value"),
        [
            (0, 0, FILL),
            (0, -1000, FILL),
            (1, -1000, -999),  # dark water after the offset: negative, and kept
            (999, -1000, -1),
            (1000, -1000, 0),
            (1, 0, 1),
            (3500, -1000, 2500),
            (33767, -1000, 32767),
            (33768, -1000, 32767),
            (32768, 0, 32767),
            (65535, -1000, 32767),
            (65535, 0, 32767),
        ],
    )
    def test_known_numbers(self, number: int, offset: int, value: int) -> None:
        assert sentinel2_reflectance(np.array([number], np.uint16), offset).tolist() == [value]

    @pytest.mark.parametrize(
        ("number", "offset", "value"),
        [
            (NO_NUMBER, 0, FILL),
            (NO_NUMBER, -1000, FILL),
            (0, 0, 0),
            (-60, 0, -60),
            (-32768, -1000, -32767),
            (12, 0, 12),
        ],
    )
    def test_numbers_with_a_sign(self, number: int, offset: int, value: int) -> None:
        assert sentinel2_reflectance(np.array([number], np.int32), offset).tolist() == [value]

    def test_both_generations_of_files_give_one_reflectance(self) -> None:
        reflectance = np.array([1, 200, 9000], np.uint16)
        old, new = sentinel2_reflectance(reflectance, 0), sentinel2_reflectance(reflectance + np.uint16(1000), -1000)
        assert old.tolist() == new.tolist() == [1, 200, 9000]

    @pytest.mark.parametrize("offset", [0, -1000])
    def test_numbers_of_8_bits_are_those_of_16(self, offset: int) -> None:
        numbers = np.arange(256, dtype=np.uint8)
        found = sentinel2_reflectance(numbers, offset)
        assert found.tolist() == [FILL, *range(1 + offset, 256 + offset)]


class TestClearPixels:
    @pytest.mark.parametrize(
        ("scl", "clear"),
        [
            (0, False),
            (1, False),
            (2, False),
            (3, False),
            (4, True),
            (5, True),
            (6, True),
            (7, False),
            (8, False),
            (9, False),
            (10, False),
            (11, False),
        ],
    )
    def test_each_class_by_default(self, scl: int, clear: bool) -> None:
        assert clear_pixels(np.array([[scl]], np.uint8), Clouds().clear).tolist() == [[clear]]

    @economical
    @given(hnp.arrays(np.uint8, (4, 5)), st.lists(st.integers(0, 11), unique=True))
    def test_clear_is_to_be_in_the_list(self, scl: np.ndarray, classes: list[int]) -> None:
        expected = [[number in classes for number in row] for row in scl.tolist()]
        assert clear_pixels(scl, classes).tolist() == expected


def observation(day: int, values: np.ndarray, sky: np.ndarray) -> Observation:
    """A look whose clear pixels have a value in every band, one that ground can have."""
    return Observation(day, values, sky & has_value(values))


def random_observations(seed: int, count: int, shape: tuple[int, int, int] = (3, 4, 5)) -> list[Observation]:
    """Observations with clouds and missing values; few distinct values and days, so that ties are common."""
    rng = np.random.default_rng(seed)
    spread = rng.choice([3, 300, 20000])
    clearness = rng.uniform(0.1, 1)
    looks = []
    for _ in range(count):
        values = rng.integers(-spread, spread, shape, endpoint=True).astype(np.int16)
        values[rng.random(shape) < 0.05] = FILL
        looks.append(observation(int(rng.integers(1, 367)), values, rng.random(shape[1:]) < clearness))
    return looks


def masked_median(layers: list[np.ndarray], clear: list[np.ndarray]) -> Any:
    """numpy's own masked median along the first axis, float64; masked where nothing is clear."""
    stack = np.stack(layers).astype(np.float64)
    return np.ma.median(np.ma.array(stack, mask=~np.broadcast_to(np.stack(clear), stack.shape)), axis=0)


class TestValues:
    @economical
    @given(st.integers(0, 2**32 - 1))
    def test_a_pixel_with_nodata_in_any_band_has_none(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        values = rng.choice(np.array([FILL, -5, 0, 700], np.int16), (3, 4, 5), p=[0.1, 0.3, 0.3, 0.3])
        there = has_value(values)
        for row in range(4):
            for column in range(5):
                assert there[row, column] == all(values[band, row, column] != FILL for band in range(3))

    @pytest.mark.parametrize(("value", "clear"), [(20000, True), (20001, False), (32767, False), (-32767, True)])
    def test_a_pixel_too_bright_for_ground_in_any_band_has_none(self, value: int, clear: bool) -> None:
        for band in range(3):
            values = np.full((3, 1, 1), 500, np.int16)
            values[band] = value
            assert has_value(values).item() == clear
            assert too_bright(values).item() == (value > 20000)

    def test_without_bands_nothing_is_missing(self) -> None:
        nothing = np.zeros((0, 2, 3), np.int16)
        assert has_value(nothing).all()
        assert not too_bright(nothing).any()


class TestMedian:
    @economical
    @given(st.integers(0, 2**32 - 1), st.integers(1, 15))
    def test_median_equals_numpys_masked_median(self, seed: int, count: int) -> None:
        looks = random_observations(seed, count)
        values, clear, day = median_composite(looks)
        masks = [look.clear for look in looks]
        expected = masked_median([look.values for look in looks], [mask[None] for mask in masks])
        days = masked_median([np.full(look.clear.shape, look.day) for look in looks], masks)
        counts = np.sum(masks, axis=0)
        assert values.dtype == np.int16
        assert clear.dtype == np.uint8
        assert day.dtype == np.uint16
        assert (clear == counts).all()
        assert (values == np.rint(np.ma.filled(expected, FILL))).all()
        assert (values[:, counts == 0] == REFLECTANCE_FILL).all()
        assert (median_values(looks) == values).all()
        assert (day == np.floor(np.ma.filled(days, 0))).all()

    @pytest.mark.parametrize(
        ("series", "median"),
        [
            ([7], 7),
            ([3, 1, 2], 2),
            ([1, 2], 2),  # 1.5: half to even
            ([2, 3], 2),  # 2.5: half to even
            ([-1, -2], -2),
            ([20000, 20000], 20000),
            ([20000, -20000], 0),
            ([20000, 19999, 20000, 20000], 20000),
            ([-32767, -32767], -32767),
        ],
    )
    def test_known_medians(self, series: list[int], median: int) -> None:
        looks = [observation(1, np.full((1, 1, 1), value, np.int16), np.ones((1, 1), bool)) for value in series]
        assert median_composite(looks)[0].item() == median

    def test_median_day_is_rounded_down(self) -> None:
        looks = [observation(day, np.ones((1, 1, 1), np.int16), np.ones((1, 1), bool)) for day in (3, 10, 14, 15)]
        assert median_composite(looks)[2].item() == 12
        assert median_composite(looks[:2])[2].item() == 6

    @economical
    @given(st.integers(0, 2**32 - 1), st.integers(2, 9))
    def test_order_of_observations_does_not_matter(self, seed: int, count: int) -> None:
        looks = random_observations(seed, count)
        order = np.random.default_rng(seed + 1).permutation(count)
        for one, other in zip(median_composite(looks), median_composite([looks[i] for i in order]), strict=True):
            assert (one == other).all()

    def test_observations_are_left_as_they_were(self) -> None:
        looks = random_observations(5, 6)
        before = [(look.values.copy(), look.clear.copy()) for look in looks]
        median_composite(looks)
        for look, (values, clear) in zip(looks, before, strict=True):
            assert (look.values == values).all()
            assert (look.clear == clear).all()

    def test_count_stops_at_255(self) -> None:
        looks = [observation(day + 1, np.full((1, 1, 1), day, np.int16), np.ones((1, 1), bool)) for day in range(300)]
        values, clear, day = median_composite(looks)
        assert (values.item(), clear.item(), day.item()) == (150, 255, 150)  # 149.5 rounds to even


class TestSortingNetwork:
    @pytest.mark.parametrize("n", range(1, 13))
    def test_every_input_of_zeros_and_ones_is_sorted(self, n: int) -> None:
        """The 0-1 principle (Knuth 5.3.4 Z): a network that sorts these sorts everything."""
        inputs = (np.arange(2**n)[None, :] >> np.arange(n)[:, None]) & 1
        ones = inputs.sum(axis=0)
        expected = np.arange(n)[:, None] >= n - ones
        assert (sort_layers(inputs.copy()) == expected).all()

    @pytest.mark.parametrize("n", [*range(1, 33), 366])
    def test_comparators_are_pairs_in_order_and_few(self, n: int) -> None:
        network = sorting_network(n)
        assert all(0 <= i < j < n for i, j in network)
        rounds = math.ceil(math.log2(n)) if n > 1 else 0
        assert len(network) <= n / 2 * rounds * (rounds + 1) / 2

    @economical
    @given(st.integers(1, 40), st.integers(0, 2**32 - 1))
    def test_layers_are_sorted_as_numpy_sorts_them(self, n: int, seed: int) -> None:
        stack = np.random.default_rng(seed).integers(-9, 9, (n, 2, 3), np.int16)
        assert (sort_layers(stack.copy()) == np.sort(stack, axis=0)).all()
