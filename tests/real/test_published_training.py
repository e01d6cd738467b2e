"""Loss, metrics, cut-mix and normalisation give what the published code gave on the same inputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from h2crop_data.training.augmentation import CutMix, cut_mix
from h2crop_data.training.evaluation import strata
from h2crop_data.training.losses import hierarchical_loss, tier_losses
from h2crop_data.training.metrics import Figures, confusion_matrix, published_figures
from h2crop_data.training.normalisation import Normalisation

#: Published name of a figure -> its list and its mean in ours.
FIGURES = {
    "IoU": ("iou", "mean_iou"),
    "Acc": ("recall", "mean_recall"),
    "mFscore": ("f1", "mean_f1"),
    "Precision": ("precision", "mean_precision"),
    "Recall": ("recall", "mean_recall"),
}


@pytest.fixture(scope="module")
def oracle(shared: Path) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((shared / "oracle/aux_oracle.json").read_text())
    return expected


def maps(shared: Path, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, label and prior, (5, 192, 192)."""
    with np.load(shared / f"oracle/metric_inputs_{classes}.npz") as arrays:
        predicted, label, prior = (torch.from_numpy(arrays[name]) for name in ("pred", "lab", "prior"))
    return predicted, label, prior


def assert_figures(found: Figures, expected: dict[str, Any]) -> None:
    assert found.accuracy == pytest.approx(expected["aAcc"]["per_class"][0], rel=1e-6)
    assert round(100 * found.accuracy, 2) == pytest.approx(expected["aAcc"]["summary_pct_2dp"], abs=1e-5)
    for name, (by_class, mean) in FIGURES.items():
        values = expected[name]["per_class"]
        ours = getattr(found, by_class)
        assert [value is None for value in ours] == [math.isnan(value) for value in values], name
        for value, truth in zip(ours, values, strict=True):
            assert value is None or value == pytest.approx(truth, rel=2e-6), name
        assert round(100 * getattr(found, mean), 2) == pytest.approx(expected[name]["summary_pct_2dp"], abs=1e-5), name


@pytest.mark.parametrize("classes", [7, 37])
def test_published_metrics_from_batches_that_add_up(shared: Path, oracle: dict[str, Any], classes: int) -> None:
    predicted, label, prior = maps(shared, classes)
    confusion = torch.zeros((3, classes, classes), dtype=torch.int64)
    for batch in (slice(0, 2), slice(2, 3), slice(3, 5)):
        stratum = strata(label[batch], prior[batch])
        confusion += confusion_matrix(predicted[batch], label[batch], classes, stratum, 3)
    assert_figures(published_figures(confusion.sum(0)), oracle[f"CropIoUMetric_{classes}"])
    assert_figures(published_figures(confusion[2]), oracle[f"CropChangeIoUMetric_changed_{classes}"])
    assert_figures(published_figures(confusion[1]), oracle[f"CropChangeIoUMetric_unchanged_{classes}"])


def test_published_loss(shared: Path, oracle: dict[str, Any]) -> None:
    with np.load(shared / "oracle/loss_inputs.npz") as arrays:
        logits, label = torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["label"])
    expected = oracle["CropBalanceloss_7_with_minus1"]
    stacked = torch.stack([label] * 4, 1)
    assert tier_losses({2: logits}, stacked, ignored=(-1,))[2].item() == pytest.approx(expected, rel=1e-6)
    of_all = hierarchical_loss(dict.fromkeys((1, 2, 3, 4), logits), stacked, ignored=(-1, 255))
    assert of_all.item() == pytest.approx(4 * expected, rel=1e-6)
    # 255 in the place of -1 is the same to our labels.
    ours = torch.where(stacked == -1, 255, stacked.to(torch.int16))
    assert tier_losses({2: logits}, ours)[2].item() == pytest.approx(expected, rel=1e-6)


def test_published_cut_mix(oracle: dict[str, Any]) -> None:
    """Which sample each pixel comes from, for the squares the published code drew: bounds and counts."""
    expected = oracle["CropCutup_seed123"]
    mixes: list[CutMix | None] = []
    for sample, arrays in enumerate(expected):
        partners = [int(name) for name in arrays["label"] if int(name) != sample]
        if not partners:
            mixes.append(None)
            continue
        top, bottom, left, right, _ = arrays["label"][str(partners[0])]
        assert bottom - top == right - left
        mixes.append(CutMix(partners[0], top, left, bottom - top))
    assert sum(mix is not None for mix in mixes) == 2
    number = torch.arange(len(expected))
    batch = {
        "s2": number.view(-1, 1, 1, 1, 1).expand(-1, 2, 1, 192, 192).to(torch.int16),
        "enmap": number.view(-1, 1, 1, 1).expand(-1, 3, 64, 64).to(torch.int16),
        "label": number.view(-1, 1, 1, 1).expand(-1, 4, 192, 192).to(torch.uint8),
        "prior": number.view(-1, 1, 1, 1).expand(-1, 4, 192, 192).to(torch.uint8),
    }
    mixed = cut_mix(batch, mixes, as_published=True)
    names = {"S2": "s2", "EnMAP": "enmap", "label": "label", "priors": "prior"}
    for sample, arrays in enumerate(expected):
        for published, sources in arrays.items():
            planes = mixed[names[published]][sample].flatten(0, -3)
            assert sorted(map(int, sources)) == planes.unique().tolist()
            for source, (top, bottom, left, right, count) in sources.items():
                for plane in planes:
                    rows, columns = (plane == int(source)).nonzero().unbind(1)
                    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1, len(rows)) == (
                        *(top, bottom, left, right),
                        count,
                    )


def test_published_normalisation_is_the_published_one(shared: Path) -> None:
    expected = json.loads((shared / "oracle/published_normalisation.json").read_text())
    ours = Normalisation.published()
    for array, name in (("s2", "S2"), ("enmap", "EnMAP")):
        assert list(ours.mean[array]) == expected[name]["mean"]
        assert list(ours.sd[array]) == expected[name]["sd"]
    assert ours.offset == {"s2": 1000}
