"""Figures of agreement between predicted and declared classes, all from counts of a confusion matrix.

Two sets of rules: those of the published H2Crop code, exactly, and those without background, for users. A figure that
is not defined is nan in tensors and None in records. docs/evaluation.md has the definitions in short.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from h2crop_data.constants import UNKNOWN
from h2crop_data.errors import UsageError

#: What the published code adds to the pixels predicted as a class, and to precision + recall, before it divides.
PUBLISHED_EPSILON = 1e-8
#: The percentiles of resampled figures that bound an interval.
INTERVAL = (0.025, 0.975)


class Figures(BaseModel):
    """Figures over some pixels (or parcels), each a share from 0 to 1; None where not defined.

    Their rules are those of `published_rates` or of `crop_rates`. Fields:

    count: how many pixels or parcels were counted. accuracy: share of them whose predicted class is the label.
    mean_iou, mean_f1, mean_recall, mean_precision: means over the classes where the figure is defined.
    first_class: the class id that the lists begin with, 0 or 1. iou, f1, recall, precision: by class.
    labelled, predicted: pixels by class, as the rules count them.
    intervals: accuracy or mean -> its 2.5 and 97.5 per cent percentiles over resampled split squares.
    class_intervals: iou, f1, recall or precision -> those of each class, None for one that is defined in no draw.
    Both are None where there are fewer than two squares.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    accuracy: float | None
    mean_iou: float | None
    mean_f1: float | None
    mean_recall: float | None
    mean_precision: float | None
    first_class: int
    iou: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    precision: tuple[float | None, ...]
    labelled: tuple[int, ...]
    predicted: tuple[int, ...]
    intervals: dict[str, tuple[float, float]] | None = None
    class_intervals: dict[str, tuple[tuple[float, float] | None, ...]] | None = None


class Intervals(NamedTuple):
    """Intervals of figures, as fields of `Figures`."""

    summaries: dict[str, tuple[float, float]]
    by_class: dict[str, tuple[tuple[float, float] | None, ...]]


def confusion_matrix(predicted: Tensor, label: Tensor, classes: int, group: Tensor, groups: int) -> Tensor:
    """Counts (groups, classes, classes) int64 by group, label (row) and predicted class (column).

    predicted, label, group: integers of one shape, of any size. A pixel counts where its label is not 255.
    classes: N + 1, background among them. group: 0..groups - 1.
    Raises UsageError for a label or a prediction above N.
    """
    known = label != UNKNOWN
    predicted, label, group = (values[known].long() for values in (predicted, label, group))
    for name, values in (("label", label), ("predicted class", predicted)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < classes:
            raise UsageError(
                f"{name}: expected the classes 0..{classes - 1} of this tier (255: unknown), got "
                f"{int(values.max() if values.min() >= 0 else values.min())}; check that labels and predictions "
                "have the same taxonomy"
            )
    place = (group * classes + label) * classes + predicted
    return torch.bincount(place, minlength=groups * classes * classes).view(groups, classes, classes)


@dataclass(frozen=True)
class ClassCounts:
    """Pixels by class, which every figure follows from: tensors (..., class)."""

    #: Pixels of a class that were predicted as it, that are labelled as it, and that were predicted as it.
    hits: Tensor
    labelled: Tensor
    predicted: Tensor


def count_vectors(confusion: Tensor) -> Tensor:
    """What figures need of confusion matrices (..., N + 1, N + 1): (..., 4, N + 1), which add up as they do.

    By class: hits; labelled; predicted; predicted where a crop is the label.
    """
    hits = confusion.diagonal(dim1=-2, dim2=-1)
    return torch.stack([hits, confusion.sum(-1), confusion.sum(-2), confusion[..., 1:, :].sum(-2)], -2)


def published_counts(vectors: Tensor) -> ClassCounts:
    """Counts of the classes 0..N, background like any other. vectors: as `count_vectors`."""
    hits, labelled, predicted, _ = vectors.unbind(-2)
    return ClassCounts(hits, labelled, predicted)


def crop_counts(vectors: Tensor) -> ClassCounts:
    """Counts of the classes 1..N over the pixels that are labelled as one of them. vectors: as `count_vectors`.

    A pixel that was not declared is not counted: whatever was predicted there, its true class is unknown. A declared
    pixel that was predicted as background is counted, and was missed.
    """
    hits, labelled, _, predicted = (values[..., 1:] for values in vectors.unbind(-2))
    return ClassCounts(hits, labelled, predicted)


def published_rates(counts: ClassCounts) -> dict[str, Tensor]:
    """The published figures: `accuracy` (...), and `iou`, `f1`, `recall`, `precision` (..., class), float64.

    accuracy = all hits / all labelled ("aAcc"). iou = hits / (labelled + predicted - hits): not defined only for a
    class in neither map, so 0 for one that is predicted and absent from labels. recall ("Acc", "Recall") = hits /
    labelled: not defined for a class absent from labels. precision = hits / (predicted + 1e-8): 0 for a class that is
    never predicted. f1 ("mFscore") = 2 precision recall / (precision + recall + 1e-8): not defined where recall is
    not. Means are over the classes where a figure is defined.
    """
    hits, labelled, predicted = (values.double() for values in (counts.hits, counts.labelled, counts.predicted))
    recall = hits / labelled
    precision = hits / (predicted + PUBLISHED_EPSILON)
    return {
        "accuracy": hits.sum(-1) / labelled.sum(-1),
        "iou": hits / (labelled + predicted - hits),
        "f1": 2 * precision * recall / (precision + recall + PUBLISHED_EPSILON),
        "recall": recall,
        "precision": precision,
    }


def crop_rates(counts: ClassCounts) -> dict[str, Tensor]:
    """Figures for users, of `crop_counts` (or of parcels): shapes as `published_rates`, float64.

    accuracy = all hits / all labelled. By class: recall = hits / labelled, iou = hits / (labelled + predicted - hits),
    f1 = 2 hits / (labelled + predicted), precision = hits / predicted, 0 where it was never predicted. All four are
    defined for the classes that labels have, and only for those: means are over the same classes, and a class that is
    labelled and never found counts as 0 in every mean.
    """
    hits, labelled, predicted = (values.double() for values in (counts.hits, counts.labelled, counts.predicted))
    absent = labelled == 0
    rates = {
        "iou": hits / (labelled + predicted - hits),
        "f1": 2 * hits / (labelled + predicted),
        "recall": hits / labelled,
        "precision": hits / predicted.clamp(min=1),
    }
    by_class = {name: values.masked_fill(absent, math.nan) for name, values in rates.items()}
    return {"accuracy": hits.sum(-1) / labelled.sum(-1), **by_class}


def summaries(rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Accuracy, and the means over classes of the others: figure -> (...)."""
    means = {f"mean_{name}": values.nanmean(-1) for name, values in rates.items() if name != "accuracy"}
    return {"accuracy": rates["accuracy"], **means}


def figures(
    rates: Mapping[str, Tensor],
    counts: ClassCounts,
    first_class: int,
    intervals: Intervals | None = None,
) -> Figures:
    """The record of rates and of the counts (class) they were made of."""
    means = {name: optional(float(value)) for name, value in summaries(rates).items()}
    by_class = {
        name: tuple(optional(value) for value in rates[name].tolist()) for name in ("iou", "f1", "recall", "precision")
    }
    return Figures.model_validate(
        {
            "count": int(counts.labelled.sum()),
            "first_class": first_class,
            "labelled": tuple(counts.labelled.tolist()),
            "predicted": tuple(counts.predicted.tolist()),
            "intervals": None if intervals is None else intervals.summaries,
            "class_intervals": None if intervals is None else intervals.by_class,
            **means,
            **by_class,
        }
    )


def published_figures(confusion: Tensor, intervals: Intervals | None = None) -> Figures:
    """The published figures of a confusion matrix (N + 1, N + 1), classes 0..N."""
    counts = published_counts(count_vectors(confusion))
    return figures(published_rates(counts), counts, 0, intervals)


def crop_figures(confusion: Tensor, intervals: Intervals | None = None) -> Figures:
    """The figures without background of a confusion matrix (N + 1, N + 1), classes 1..N."""
    return figures_of_crops(count_vectors(confusion), intervals)


def figures_of_crops(vectors: Tensor, intervals: Intervals | None = None) -> Figures:
    """The figures without background of counts (4, N + 1), as `count_vectors` gives them."""
    counts = crop_counts(vectors)
    return figures(crop_rates(counts), counts, 1, intervals)


def optional(value: float) -> float | None:
    """A figure, or None for nan."""
    return None if math.isnan(value) else value


def resampling_weights(squares: int, resamples: int, seed: int) -> Tensor:
    """How often each square is drawn when as many as there are are drawn with replacement: (resamples, squares)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(squares, (resamples, squares), generator=generator)
    return torch.zeros((resamples, squares), dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones_like(drawn, dtype=torch.float64)
    )


def resampled(weights: Tensor, counts: Tensor) -> Tensor:
    """Sums of counts over resampled squares, (resamples, ...), of counts (squares, ...)."""
    return (weights @ counts.double().flatten(1)).view(len(weights), *counts.shape[1:])


def intervals_of(rates: Mapping[str, Tensor]) -> Intervals:
    """The intervals of resampled rates: `accuracy` (resamples), the others (resamples, class)."""
    of_summaries = {name: percentile_interval(values) for name, values in summaries(rates).items()}
    return Intervals(
        {name: interval for name, interval in of_summaries.items() if interval is not None},
        {name: percentile_intervals(values) for name, values in rates.items() if name != "accuracy"},
    )


def percentile_intervals(values: Tensor) -> tuple[tuple[float, float] | None, ...]:
    """As `percentile_interval`, of each column of (resamples, class)."""
    bounds = torch.nanquantile(values, torch.tensor(INTERVAL, dtype=values.dtype), dim=0)
    return tuple(None if math.isnan(low) else (low, high) for low, high in bounds.T.tolist())


def percentile_interval(values: Tensor) -> tuple[float, float] | None:
    """The 2.5 and 97.5 per cent percentiles of resampled figures, over those where it is defined; None for none."""
    defined = values[~values.isnan()]
    if not defined.numel():
        return None
    low, high = torch.quantile(defined, torch.tensor(INTERVAL, dtype=defined.dtype)).tolist()
    return low, high
