"""Figures of an evaluation are those of a slow loop over pixels, however its batches are cut and merged."""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import make_store
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.errors import UsageError
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.evaluation import Evaluation, SamplePlace, sample_places
from h2crop_data.training.metrics import Figures
from h2crop_data.training.transforms import BatchTransforms

#: Two crops at the coarsest tier, the first of which has two kinds, the second one; and so on. 3302020000 ends early.
TAXONOMY = Taxonomy(
    "test",
    (
        {"3301": (1, "a"), "3302": (2, "b")},
        {"330101": (1, "aa"), "330102": (2, "ab"), "330201": (3, "ba"), "330202": (4, "bb")},
        {"33010101": (1, "aaa"), "33010201": (2, "aba"), "33020101": (3, "baa")},
        {"3301010101": (1, "aaaa"), "3301020101": (2, "abaa"), "3302010101": (3, "baaa"), "3302010102": (4, "baab")},
    ),
)
SIZES = {1: 3, 2: 5, 3: 4, 4: 5}
PATHS = {
    *((0, 0, 0, 0), (1, 1, 1, 1), (1, 2, 2, 2), (2, 3, 3, 3), (2, 3, 3, 4)),
    (2, 4, 0, 0),
}
SIDE = 4


class MadeMaps:
    """Random predictions, labels, priors and parcels of some samples."""

    def __init__(self, seed: int, samples: int = 5) -> None:
        draw = np.random.default_rng(seed)
        shape = (samples, SIDE, SIDE)
        self.predicted = {tier: draw.integers(size, size=shape) for tier, size in SIZES.items()}
        # Some pixels along a path, so that consistency is neither 0 nor 1.
        along = draw.random(shape) < 0.5
        chosen = np.array(sorted(PATHS))[draw.integers(len(PATHS), size=shape)]
        for tier in SIZES:
            self.predicted[tier] = np.where(along, chosen[..., tier - 1], self.predicted[tier])
        self.label, self.prior = (
            np.stack([draw.choice([*range(size), 255], size=shape) for size in SIZES.values()], 1) for _ in range(2)
        )
        self.prior = np.where(draw.random(self.prior.shape) < 0.5, self.label, self.prior)
        self.parcels = draw.integers(4, size=shape)
        self.seasons = draw.integers(2022, 2024, size=samples).tolist()
        self.squares = [f"0_{number}" for number in draw.integers(3, size=samples)]

    def batch(self, chosen: slice, logits: bool = False) -> dict[str, Any]:
        predicted = {tier: torch.from_numpy(values[chosen]) for tier, values in self.predicted.items()}
        if logits:
            predicted = {
                tier: torch.nn.functional.one_hot(values, SIZES[tier]).movedim(-1, 1).float()
                for tier, values in predicted.items()
            }
        return {
            "predicted": predicted,
            "label": torch.from_numpy(self.label[chosen]).to(torch.uint8),
            "prior": torch.from_numpy(self.prior[chosen]).long(),
            "parcels": torch.from_numpy(self.parcels[chosen]).to(torch.uint32),
            "squares": self.squares[chosen],
            "seasons": self.seasons[chosen],
        }


def evaluated(made: MadeMaps, *parts: slice, logits: bool = False) -> Evaluation:
    evaluation = Evaluation(TAXONOMY)
    for part in parts:
        evaluation.add(**made.batch(part, logits))
    return evaluation


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def slow_published(pairs: list[tuple[int, int]], size: int) -> dict[str, Any]:
    """The published figures of (label, predicted) pairs."""
    figures: dict[str, Any] = {name: [] for name in ("iou", "f1", "recall", "precision")}
    for number in range(size):
        hits = sum(pair == (number, number) for pair in pairs)
        labelled = sum(label == number for label, _ in pairs)
        predicted = sum(found == number for _, found in pairs)
        recall, precision = share(hits, labelled), hits / (predicted + 1e-8)
        figures["iou"].append(share(hits, labelled + predicted - hits))
        figures["recall"].append(recall)
        figures["precision"].append(precision)
        figures["f1"].append(None if recall is None else 2 * recall * precision / (recall + precision + 1e-8))
    return finished(figures, pairs)


def slow_crops(pairs: list[tuple[int, int]], size: int) -> dict[str, Any]:
    """The figures without background of (label, predicted) pairs."""
    pairs = [pair for pair in pairs if pair[0] != 0]
    figures: dict[str, Any] = {name: [] for name in ("iou", "f1", "recall", "precision")}
    for number in range(1, size):
        hits = sum(pair == (number, number) for pair in pairs)
        missed = sum(label == number != found for label, found in pairs)
        wrong = sum(label != number == found for label, found in pairs)
        there = hits + missed > 0
        figures["iou"].append(hits / (hits + missed + wrong) if there else None)
        figures["f1"].append(hits / (hits + (missed + wrong) / 2) if there else None)
        figures["recall"].append(hits / (hits + missed) if there else None)
        figures["precision"].append((share(hits, hits + wrong) or 0.0) if there else None)
    return finished(figures, pairs)


def finished(figures: dict[str, Any], pairs: list[tuple[int, int]]) -> dict[str, Any]:
    means = {f"mean_{name}": mean(values) for name, values in figures.items()}
    accuracy = share(sum(label == found for label, found in pairs), len(pairs))
    return {**figures, **means, "accuracy": accuracy, "count": len(pairs)}


def assert_equal(found: Figures, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        ours = getattr(found, name)
        ours = list(ours) if isinstance(ours, tuple) else ours
        if isinstance(value, list):
            assert [one is None for one in ours] == [one is None for one in value], name
            kept = [(one, two) for one, two in zip(ours, value, strict=True) if two is not None]
            assert [one for one, _ in kept] == pytest.approx([two for _, two in kept], abs=1e-9), name
        else:
            assert ours == (value if value is None else pytest.approx(value, abs=1e-9)), name


def pairs_of(made: MadeMaps, tier: int, ground: str) -> list[tuple[int, int]]:
    pairs = []
    for place in np.ndindex(made.parcels.shape):
        label, prior = (int(values[place[0], tier - 1, *place[1:]]) for values in (made.label, made.prior))
        counts = {"all": True, "changed": prior not in (255, label), "unchanged": prior == label != 255}[ground]
        if counts and label != 255:
            pairs.append((label, int(made.predicted[tier][place])))
    return pairs


def parcel_pairs(made: MadeMaps, tier: int) -> list[tuple[int, int]]:
    """(label, majority vote) of each parcel of a season, ties to the lower id."""
    labels: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    votes: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for place in np.ndindex(made.parcels.shape):
        label = int(made.label[place[0], tier - 1, *place[1:]])
        if made.parcels[place] and label != 255:
            parcel = (made.seasons[place[0]], int(made.parcels[place]))
            labels[parcel][label] += 1
            votes[parcel][int(made.predicted[tier][place])] += 1

    def winner(counts: Counter[int]) -> int:
        return min(counts, key=lambda number: (-counts[number], number))

    return [(winner(labels[parcel]), winner(votes[parcel])) for parcel in labels]


@given(seed=st.integers(0, 2**31), logits=st.booleans())
@settings(max_examples=15, deadline=None)
def test_every_figure_is_that_of_a_loop_over_pixels(seed: int, logits: bool) -> None:
    made = MadeMaps(seed)
    report = evaluated(made, slice(0, 2), slice(2, 5), logits=logits).report(resamples=2)
    for tier, size in SIZES.items():
        for ground in ("all", "changed", "unchanged"):
            pairs = pairs_of(made, tier, ground)
            assert_equal(report.tiers[tier].published[ground], slow_published(pairs, size))
            assert_equal(report.tiers[tier].crops[ground], slow_crops(pairs, size))
        of_parcels = report.tiers[tier].parcels
        assert of_parcels is not None
        assert_equal(of_parcels, slow_crops(parcel_pairs(made, tier), size))
    published = [slow_published(pairs_of(made, tier, "all"), size)["mean_f1"] for tier, size in SIZES.items()]
    assert report.published_mean_f1 == pytest.approx(mean(published))
    on_path = [
        tuple(int(made.predicted[tier][place]) for tier in SIZES) in PATHS for place in np.ndindex(5, SIDE, SIDE)
    ]
    declared = np.isin(made.label[:, 0], (1, 2)).ravel()
    assert report.consistency is not None
    assert report.crop_consistency is not None
    assert (report.consistency.pixels, report.consistency.share) == (len(on_path), pytest.approx(np.mean(on_path)))
    assert report.crop_consistency.pixels == declared.sum()
    assert report.crop_consistency.share == pytest.approx(np.array(on_path)[declared].mean())


@pytest.mark.slow
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 5), max_size=4))
@settings(max_examples=15, deadline=None)
def test_cutting_merging_and_order_change_nothing(seed: int, cuts: list[int]) -> None:
    made = MadeMaps(seed)
    whole = evaluated(made, slice(0, 5)).report(resamples=20)
    edges = [0, *sorted(cuts), 5]
    parts = [slice(first, end) for first, end in pairwise(edges) if first < end]
    assert evaluated(made, *parts).report(resamples=20) == whole
    assert evaluated(made, *reversed(parts)).report(resamples=20) == whole
    merged = Evaluation(TAXONOMY)
    for part in reversed(parts):
        before = merged.report(resamples=1)
        other = pickle.loads(pickle.dumps(evaluated(made, part)))
        together = merged + other
        assert merged.report(resamples=1) == before
        merged = together
    assert merged.report(resamples=20) == whole


def test_confusion_matrices_can_be_had() -> None:
    made = MadeMaps(3)
    evaluation = evaluated(made, slice(0, 5))
    expected = np.zeros((5, 5), int)
    for label, predicted in pairs_of(made, 4, "changed"):
        expected[label, predicted] += 1
    np.testing.assert_array_equal(evaluation.confusion(4, "changed").numpy(), expected)


def test_intervals_are_percentiles_over_squares_drawn_with_replacement() -> None:
    made = MadeMaps(11, samples=8)
    report = evaluated(made, slice(0, 8)).report(resamples=4000, seed=5)
    assert report.squares == len(set(made.squares)) == 3
    assert report.seed == 5
    by_square = {
        square: [
            pair
            for sample in np.flatnonzero(np.array(made.squares) == square)
            for pair in pairs_of(only(made, int(sample)), 2, "all")
        ]
        for square in set(made.squares)
    }
    # All 27 draws of three squares are equally likely: the exact distribution, by figure.
    draws = [
        [pair for square in chosen for pair in by_square[square]]
        for chosen in np.array(np.meshgrid(*[sorted(by_square)] * 3)).T.reshape(-1, 3).tolist()
    ]
    for rules, slow in (("published", slow_published), ("crops", slow_crops)):
        figures = getattr(report.tiers[2], rules)["all"]
        assert_bounds(figures, [slow(pairs, SIZES[2]) for pairs in draws])
    assert evaluated(made, slice(0, 8)).report(resamples=50, seed=5) != evaluated(made, slice(0, 8)).report(
        resamples=50, seed=6
    )


def assert_bounds(figures: Figures, exact: list[dict[str, Any]]) -> None:
    """The intervals are the least and the greatest of 27 equally likely values, which have over 2.5 per cent each."""
    assert figures.intervals is not None
    assert set(figures.intervals) == {"accuracy", "mean_iou", "mean_f1", "mean_recall", "mean_precision"}
    for name, found in figures.intervals.items():
        values = [one[name] for one in exact if one[name] is not None]
        assert found == pytest.approx((min(values), max(values)), abs=1e-9), name
    assert figures.class_intervals is not None
    assert set(figures.class_intervals) == {"iou", "f1", "recall", "precision"}
    for name, by_class in figures.class_intervals.items():
        for place, found in enumerate(by_class):
            values = [one[name][place] for one in exact if one[name][place] is not None]
            assert found == (pytest.approx((min(values), max(values)), abs=1e-9) if values else None), name


def test_intervals_of_parcels_draw_the_square_that_most_of_a_parcel_lies_in() -> None:
    made = MadeMaps(4, samples=9)
    # Half of what is predicted is right.
    right = np.random.default_rng(1).random(made.parcels.shape) < 0.5
    made.predicted[2] = np.where(right & (made.label[:, 1] != 255), made.label[:, 1], made.predicted[2])
    # A parcel in each sample, and one over all squares that has most pixels in the last.
    made.squares = [f"0_{sample // 3}" for sample in range(9)]
    made.seasons = [2022] * 9
    made.parcels[:] = 10 + np.arange(9)[:, None, None]
    made.parcels[:, 0, 0] = 5
    made.parcels[8, 1] = 5
    report = evaluated(made, slice(0, 9)).report(resamples=4000)
    places = {10 + sample: sample // 3 for sample in range(9)} | {5: 2}
    by_parcel = dict(zip(parcel_order(made, 2), parcel_pairs(made, 2), strict=True))
    by_square = [[pair for parcel, pair in by_parcel.items() if places[parcel] == square] for square in range(3)]
    chosen = np.array(np.meshgrid(*[range(3)] * 3)).T.reshape(-1, 3).tolist()
    exact = [slow_crops([pair for square in draw for pair in by_square[square]], SIZES[2]) for draw in chosen]
    found = report.tiers[2].parcels
    assert found is not None
    assert found.accuracy is not None
    assert 0.2 < found.accuracy < 0.9
    assert_bounds(found, exact)


def parcel_order(made: MadeMaps, tier: int) -> list[int]:
    """Parcels of one season in the order of their first counted pixel, as `parcel_pairs` has them."""
    return list(dict.fromkeys(made.parcels[made.label[:, tier - 1] != 255].tolist()))


def test_many_squares_one_by_one_are_those_all_at_once() -> None:
    made = MadeMaps(6, samples=40)
    made.squares = [f"{sample}_0" for sample in range(40)]
    one_by_one = evaluated(made, *(slice(sample, sample + 1) for sample in range(40)))
    report = one_by_one.report(resamples=20)
    assert report.squares == 40
    assert report == evaluated(made, slice(0, 40)).report(resamples=20)
    assert (one_by_one + evaluated(made, slice(0, 40))).report(resamples=20).squares == 40


def only(made: MadeMaps, sample: int) -> MadeMaps:
    """One sample of some."""
    single = object.__new__(MadeMaps)
    chosen = slice(sample, sample + 1)
    single.predicted = {tier: values[chosen] for tier, values in made.predicted.items()}
    single.label, single.prior, single.parcels = (v[chosen] for v in (made.label, made.prior, made.parcels))
    return single


@pytest.mark.parametrize("squares", [None, ["none"] * 5, ["0_1"] * 5, ["0_1", "none", "0_2", "0_2", "0_1"]])
def test_without_two_known_squares_there_is_no_interval(squares: list[str] | None) -> None:
    made = MadeMaps(2)
    evaluation = Evaluation(TAXONOMY)
    evaluation.add(**made.batch(slice(0, 5)) | {"squares": squares})
    report = evaluation.report()
    assert report.squares == (1 if squares == ["0_1"] * 5 else 0)
    assert report.tiers[1].published["all"].intervals is None
    assert report.tiers[1].published["all"].accuracy is not None
    assert report.consistency is not None
    assert report.consistency.interval is None


def test_intervals_of_consistency_hold_its_share() -> None:
    made = MadeMaps(5, samples=12)
    made.squares = [f"0_{sample}" for sample in range(12)]
    found = evaluated(made, slice(0, 12)).report().consistency
    assert found is not None
    assert found.interval is not None
    assert found.share is not None
    low, high = found.interval
    assert low < found.share < high


def test_a_parcel_over_two_samples_is_voted_on_once() -> None:
    """Two of three pixels in one sample are wrong; with the other sample's the majority is right."""
    evaluation = Evaluation(TAXONOMY, tiers=(1,))
    label = torch.ones((1, 4, 1, 3), dtype=torch.uint8)
    parcels = torch.tensor([[[7, 7, 7]]])
    for predicted in ([2, 2, 1], [1, 1, 0]):
        evaluation.add({1: torch.tensor([[predicted]])}, label, parcels=parcels, seasons=[2022])
    found = evaluation.report().tiers[1].parcels
    assert found is not None
    assert (found.count, found.accuracy) == (1, 1.0)
    # The same number in another season is another parcel.
    evaluation.add({1: torch.tensor([[[2, 2, 1]]])}, label, parcels=parcels, seasons=[2023])
    found = evaluation.report().tiers[1].parcels
    assert found is not None
    assert (found.count, found.accuracy) == (2, 0.5)


def test_without_prior_and_parcels_there_are_no_such_figures() -> None:
    made = MadeMaps(4)
    evaluation = Evaluation(TAXONOMY)
    evaluation.add(**made.batch(slice(0, 5)) | {"prior": None, "parcels": None})
    report = evaluation.report()
    assert report.tiers[1].parcels is None
    for ground in ("changed", "unchanged"):
        assert report.tiers[1].crops[ground].count == 0
        assert report.tiers[1].published[ground].accuracy is None
    assert Evaluation(TAXONOMY, tiers=(3,)).report().consistency is None


def test_a_report_is_json_without_nan() -> None:
    report = evaluated(MadeMaps(1), slice(0, 5)).report(resamples=5)
    text = json.dumps(report.model_dump(mode="json"), allow_nan=False)
    assert type(report).model_validate_json(text) == report
    empty = Evaluation(TAXONOMY).report()
    assert empty.published_mean_f1 is None
    json.dumps(empty.model_dump(mode="json"), allow_nan=False)


def test_what_does_not_fit_is_refused() -> None:
    made = MadeMaps(1)
    good = made.batch(slice(0, 5))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"predicted": {1: good["predicted"][1]}}, "no prediction of tier 2; available: 1"),
        ({"predicted": {**good["predicted"], 2: torch.zeros(5, 4, SIDE, SIDE)}}, r"tier 2 are \(5, 4.*expected \(B, 5"),
        (
            {"predicted": {**good["predicted"], 2: torch.full((5, SIDE, SIDE), 9)}},
            r"predicted class: expected the classes 0\.\.4 .*got 9",
        ),
        ({"label": torch.full((5, 4, SIDE, SIDE), 77)}, r"label: expected the classes 0\.\.2 .*got 77"),
        ({"label": torch.full((5, 4, SIDE, SIDE), -1)}, r"label: expected .*got -1"),
        ({"label": good["label"][:, :2]}, r"label is \(5, 2, 4, 4\); expected \(5, 4, 4, 4\)"),
        ({"prior": good["prior"][:, :2]}, r"prior is"),
        ({"parcels": good["parcels"][:3]}, r"parcels is"),
        ({"seasons": None}, "give the season of each sample"),
        ({"squares": ["0_1"]}, "1 squares for 5 samples"),
    ]
    for change, message in wrong:
        with pytest.raises(UsageError, match=message):
            Evaluation(TAXONOMY).add(**good | change)
    with pytest.raises(UsageError, match=r"tiers \[5\]"):
        Evaluation(TAXONOMY, tiers=(5,))
    with pytest.raises(UsageError, match="cannot be merged"):
        Evaluation(TAXONOMY) + Evaluation(TAXONOMY, tiers=(1, 2))
    with pytest.raises(UsageError, match="cannot be merged"):
        Evaluation(TAXONOMY) + Evaluation()


def test_the_shipped_taxonomy_has_a_path_for_every_class() -> None:
    """Of each class of the finest tier, with its digits cut, exactly one path is consistent."""
    taxonomy = Taxonomy.load()
    finest = sorted(taxonomy.classes[3].items())
    paths = np.array([taxonomy.ids(digits) for digits, _ in finest])
    assert (paths < 255).all()

    def consistency(classes: NDArray[np.int64]) -> float | None:
        evaluation = Evaluation()
        maps = {tier: torch.from_numpy(classes[None, None, :, tier - 1]) for tier in SIZES}
        evaluation.add(maps, torch.ones((1, 4, 1, len(classes)), dtype=torch.int64))
        found = evaluation.report().consistency
        assert found is not None
        return found.share

    assert consistency(paths) == 1
    broken = paths.copy()
    broken[:, 0] = paths[:, 0] % 6 + 1
    assert consistency(broken) == 0
    for tier in (1, 2, 3):
        shortened = paths.copy()
        shortened[:, tier:] = 0
        assert consistency(shortened) == 0


def test_samples_have_a_season_and_a_square(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", seasons=(2022, 2023), blocks=3)
    places = sample_places(made.folder)
    expected = {
        row["sample"]: SamplePlace(season, row["square"])
        for season in (2022, 2023)
        for _, row in made.samples[season].iterrows()
    }
    assert places == expected
    val = sample_places(made.folder, "val")
    assert {name: places[name] for name in val} == val
    assert {place.square for place in val.values()} == {"0_1"}


def test_a_store_is_evaluated_as_documented(tmp_path: Path) -> None:
    """Predictions that are the labels, of every sample of a split, through loader and transforms."""
    store = make_store(tmp_path / "store", blocks=6, capacity=2).folder
    samples = CropSamples(store, split="val", arrays=["enmap", "s2", "label", "prior", "parcel"])
    places = sample_places(store, "val")
    evaluation = Evaluation()
    for batch in map(BatchTransforms.for_store(store), DataLoader(samples, batch_size=2)):
        predicted = {tier: batch["label"][:, tier - 1] % 255 for tier in SIZES}
        evaluation.add(
            predicted,
            batch["label"],
            prior=batch["prior"],
            parcels=batch["parcel"],
            seasons=[places[name].season for name in batch["id"]],
            squares=[places[name].square for name in batch["id"]],
        )
    report = evaluation.report()
    assert (report.samples, report.squares) == (4, 2)
    side = 24
    for tier, of_tier in report.tiers.items():
        crops, parcels = of_tier.crops["all"], of_tier.parcels
        assert parcels is not None
        # The quarter in the north-west and, where its class is known, the southern half.
        declared = side * side * (3 if tier < 3 else 1) // 4
        assert (crops.count, crops.accuracy, crops.mean_f1) == (4 * declared, 1, 1)
        assert crops.intervals is not None
        assert crops.intervals["mean_iou"] == (1, 1)
        assert (parcels.count, parcels.accuracy) == (4 * (2 if tier < 3 else 1), 1)
        # Crops swap places from year to year.
        assert of_tier.crops["unchanged"].count == 0
        assert of_tier.crops["changed"].count == (4 * declared if tier < 3 else 0)


def test_nan_never_reaches_a_record() -> None:
    report = evaluated(MadeMaps(9), slice(0, 1)).report()
    for of_tier in report.tiers.values():
        for figures in (*of_tier.published.values(), *of_tier.crops.values()):
            values = [*figures.iou, *figures.f1, *figures.recall, *figures.precision, figures.accuracy]
            assert not any(value is not None and math.isnan(value) for value in values)
