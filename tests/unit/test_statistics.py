"""Statistics against naive passes in float64, in any order of blocks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from h2crop_data.constants import ENMAP_FLAGS, REFLECTANCE_FILL, SENTINEL2_BANDS
from h2crop_data.cube.schema import ArrayStatistics
from h2crop_data.cube.statistics import (
    PERCENTILES,
    BlockSums,
    Histogram,
    block_sums,
    class_counts,
    exact_dot,
    parcel_counts,
    statistics_of_training,
    total,
)
from h2crop_data.sources.formats import known_layout
from h2crop_data.validation.pixels import masks_of_sources

CLOUD = ENMAP_FLAGS["cloud"]
SPECS = known_layout(60, 4, enmap_bands=3, s2_bands=SENTINEL2_BANDS[:2]).arrays()
NUMBERS = hnp.arrays(np.int16, hnp.array_shapes(max_dims=2, max_side=40))


@given(NUMBERS, NUMBERS)
def test_histograms_together_are_the_histogram_of_all(one: NDArray[np.int16], other: NDArray[np.int16]) -> None:
    together = Histogram.of(one) + Histogram.of(other)
    whole = Histogram.of(np.concatenate([one.ravel(), other.ravel()]))
    assert together.first == whole.first
    np.testing.assert_array_equal(together.counts, whole.counts)


@given(NUMBERS)
def test_a_summary_is_that_of_a_naive_pass(values: NDArray[np.int16]) -> None:
    summary = Histogram.of(values).summary()
    exact = values.astype(np.float64) / 10000
    assert summary["count"] == values.size
    assert summary["mean"] == pytest.approx(exact.mean(), rel=1e-9, abs=1e-12)
    assert summary["sd"] == pytest.approx(exact.std(), rel=1e-7, abs=1e-9)
    assert (summary["min"], summary["max"]) == pytest.approx((exact.min(), exact.max()))
    naive = np.sort(exact, axis=None)[[-(-p * values.size // 100) - 1 for p in PERCENTILES]]
    assert list(summary["percentiles"].values()) == pytest.approx(naive.tolist())


def test_nothing_has_no_summary() -> None:
    summary = Histogram.of(np.zeros(0, np.int16)).summary()
    assert summary["count"] == 0
    assert summary["mean"] is summary["percentiles"]["50"] is None


@given(st.lists(st.tuples(st.integers(-(2**30), 2**30), st.integers(0, 2**61)), min_size=1, max_size=20))
def test_sums_of_any_size_are_exact(pairs: list[tuple[int, int]]) -> None:
    values, counts = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    assert exact_dot(values, counts) == sum(value * count for value, count in pairs)


def test_a_great_many_pixels_lose_nothing() -> None:
    # 10^15 pixels, two values: the variance is exact where float64 sums would cancel.
    counts = np.array([10**15, 10**15], np.int64)
    summary = Histogram(9999, counts).summary()
    assert summary["sd"] == pytest.approx(0.5e-4, rel=1e-12)
    assert Fraction(summary["mean"]) == pytest.approx(Fraction(99995, 100000), rel=1e-15)


def arrays_of(rng: np.random.Generator, samples: int) -> dict[str, NDArray]:
    """Random arrays of a block with fill, flags, unknown labels and parcels."""
    enmap = rng.integers(-200, 9000, (samples, 3, 4, 4)).astype(np.int16)
    enmap[rng.random(enmap.shape) < 0.2] = REFLECTANCE_FILL
    s2 = rng.integers(-50, 7000, (samples, 12, 2, 6, 6)).astype(np.int16)
    s2[rng.random(s2.shape) < 0.3] = REFLECTANCE_FILL
    label = rng.choice(np.array([0, 1, 2, 7, 255], np.uint8), (samples, 4, 6, 6))
    return {
        "enmap": enmap,
        "enmap_quality": rng.choice(np.array([0, CLOUD, 1], np.uint16), (samples, 4, 4)),
        "s2": s2,
        "s2_clear": rng.integers(0, 255, (samples, 12, 6, 6)).astype(np.uint8),
        "label": label,
        "prior": label[::-1],
        "parcel": rng.integers(0, 9, (samples, 6, 6)).astype(np.uint32),
    }


def test_the_sums_of_blocks_are_those_of_a_naive_pass_in_any_order() -> None:
    rng = np.random.default_rng(3)
    blocks = [arrays_of(rng, samples) for samples in (2, 1, 3)]
    sums = [block_sums(block, SPECS, "train", {"enmap_quality": CLOUD}) for block in blocks]
    everything = total(sums)
    assert (sums[0] + sums[1] + sums[2]).encode() == everything.encode()
    for order in ([2, 0, 1], [1, 2, 0]):
        other = total(sums[i] for i in order)
        assert other.encode() == everything.encode()
    whole = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    clear = (whole["enmap_quality"] & CLOUD) == 0
    assert everything.samples == 6
    found = statistics_of_training(everything, SPECS)
    assert set(found) == {"reflectance", "clear_observations"}
    statistics = found["reflectance"]
    for band in range(3):
        values = whole["enmap"][:, band][clear & (whole["enmap"][:, band] != REFLECTANCE_FILL)] / 10000
        assert statistics["enmap"][band]["count"] == values.size
        assert statistics["enmap"][band]["mean"] == pytest.approx(values.mean())
        assert statistics["enmap"][band]["sd"] == pytest.approx(values.std())
    for band in range(2):
        of_year = whole["s2"][:, :, band]
        values = of_year[of_year != REFLECTANCE_FILL] / 10000
        assert statistics["s2"][band]["mean"] == pytest.approx(values.mean())
        assert statistics["s2"][band]["percentiles"]["50"] == pytest.approx(
            np.percentile(values, 50, method="inverted_cdf")
        )
        of_month = of_year[:, 4][of_year[:, 4] != REFLECTANCE_FILL] / 10000
        assert statistics["s2_by_month"][4][band]["mean"] == pytest.approx(of_month.mean())
    for tier in range(4):
        names, pixels = np.unique(whole["label"][:, tier], return_counts=True)
        assert class_counts(everything, SPECS)["label"][tier] == dict(
            zip(map(str, names.tolist()), pixels.tolist(), strict=True)
        )
    labelled = np.isin(whole["label"][:, 0], [1, 2, 7])
    assert everything.parcels.tolist() == sorted(set(whole["parcel"][labelled].tolist()) - {0})


def test_parcels_count_whose_pixels_have_a_class_in_the_first_tier() -> None:
    label = np.full((1, 4, 2, 4), 7, np.uint8)
    label[0, 0] = [[1, 254, 255, 0], [1, 1, 255, 0]]
    parcel = np.array([[[11, 12, 13, 14], [0, 11, 15, 0]]], np.uint32)
    sums = block_sums({"label": label, "parcel": parcel}, SPECS, "val", {})
    assert sums.parcels.tolist() == [11, 12]
    other = block_sums({"label": label, "parcel": parcel + 5}, SPECS, "val", {})
    assert (sums + other).parcels.tolist() == [5, 11, 12, 16, 17]


def test_only_the_training_split_counts_reflectance() -> None:
    block = arrays_of(np.random.default_rng(1), 2)
    sums = block_sums(block, SPECS, "val", {"enmap_quality": CLOUD})
    assert sums.values == {}
    assert set(sums.counts) == {"label", "prior"}
    assert class_counts(sums, SPECS)["label"][0]


@pytest.mark.parametrize("without", [(), ("enmap", "enmap_quality"), ("s2", "s2_clear"), ("label", "prior", "parcel")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_sums_come_back_from_their_bytes(without: tuple[str, ...], split: str) -> None:
    block = {name: values for name, values in arrays_of(np.random.default_rng(2), 2).items() if name not in without}
    sums = block_sums(block, SPECS, split, {"enmap_quality": CLOUD})
    back = BlockSums.decode(sums.encode())
    assert back.encode() == sums.encode()
    assert statistics_of_training(back, SPECS) == statistics_of_training(sums, SPECS)
    assert (set(back.values), set(back.counts)) == (set(sums.values), set(sums.counts))


@pytest.mark.parametrize("damaged", [b"", b"x" * 100])
def test_bytes_that_are_no_sums_are_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="invalid sums of a block"):
        BlockSums.decode(damaged)
    whole = block_sums(arrays_of(np.random.default_rng(2), 1), SPECS, "train", {"enmap_quality": CLOUD}).encode()
    with pytest.raises(ValueError, match="invalid sums of a block"):
        BlockSums.decode(whole[: len(whole) // 2])


def test_parcels_are_counted_by_their_classes() -> None:
    block = arrays_of(np.random.default_rng(5), 3)
    tiers = np.array([[1, 2, 3, 255], [1, 2, 4, 9], [2, 5, 6, 7], [1, 1, 1, 1]] * 2, np.uint8)
    sums = block_sums(block, SPECS, "train", {})
    # The parcel of number 4 is not there any more.
    numbers = np.array([1, 2, 3, 5, 6, 7, 8], np.uint32)
    counts = parcel_counts(sums, numbers, tiers[numbers - 1])
    for tier in range(4):
        expected: dict[str, int] = {}
        for number in set(sums.parcels.tolist()) - {4}:
            name = str(tiers[number - 1, tier])
            expected[name] = expected.get(name, 0) + 1
        assert counts[tier] == dict(sorted(expected.items(), key=lambda item: int(item[0])))


def test_statistics_under_flags_that_validation_does_not_know_are_not_recomputed() -> None:
    by = ArrayStatistics("values", by="doubt")
    other = {"height": replace(SPECS["enmap"], name="height", statistics=by)}
    assert masks_of_sources([], other, 2022) is None
    assert masks_of_sources([], {"height": replace(other["height"], statistics=ArrayStatistics("values"))}, 2022) == {}
    stated = {"height": replace(other["height"], statistics=replace(by, flags=4))}
    assert masks_of_sources([], stated, 2022) == {}


def test_statistics_under_flags_that_the_format_states() -> None:
    values = np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2)
    doubt = np.array([[[0, 1], [4, 6]]], np.uint8)
    height = replace(SPECS["enmap"], name="height", statistics=ArrayStatistics("values", by="doubt", flags=4))
    flags = replace(SPECS["enmap_quality"], name="doubt", dtype=np.dtype("uint8"), fill=0, rules=None)
    specs = {"height": height, "doubt": flags}
    # Whatever a recipe says of them.
    sums = block_sums({"height": values, "doubt": doubt}, specs, "train", {"doubt": 3})
    counted = [[of_band.first, of_band.counts.tolist()] for of_band in sums.values["height"]]
    assert counted == [[0, [1, 1]], [4, [1, 1]]]
