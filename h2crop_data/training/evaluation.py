"""Evaluation of a model over a split: counts that add up batch by batch, and the report made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from h2crop_data.constants import BACKGROUND, NONE, TIER_DIGITS, TIERS, UNKNOWN
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.cube.reading import load_root, read_columns
from h2crop_data.errors import UsageError
from h2crop_data.training.metrics import (
    Figures,
    Intervals,
    confusion_matrix,
    count_vectors,
    crop_counts,
    crop_figures,
    crop_rates,
    figures_of_crops,
    intervals_of,
    percentile_interval,
    published_counts,
    published_figures,
    published_rates,
    resampled,
    resampling_weights,
)
from h2crop_data.training.votes import ParcelSquares, ParcelVotes, owners_of

#: What a pixel's class did since the year before: not known (prior 255, or no prior), the same, another.
STRATA = ("prior_unknown", "unchanged", "changed")
#: Whose pixels are counted -> strata.
GROUNDS = {"all": (0, 1, 2), "changed": (2,), "unchanged": (1,)}
RESAMPLES = 1000


class SamplePlace(NamedTuple):
    """Where the evaluation puts a sample."""

    season: int
    square: str


class Consistency(BaseModel):
    """The share of pixels whose predicted classes form one path of the taxonomy; None without a pixel.

    `interval`: as those of `Figures`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixels: int
    share: float | None
    interval: tuple[float, float] | None = None


class TierReport(BaseModel):
    """The figures of a tier.

    published: rules of the published code; crops: without background; each by ground: `all`, and of the pixels whose
    prior is known `changed` (prior is not the label) and `unchanged`. parcels: one vote a parcel, rules as `crops`,
    for the intervals in the split square that most of its pixels lie in; None where no parcels were given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    published: dict[str, Figures]
    crops: dict[str, Figures]
    parcels: Figures | None


class EvaluationReport(BaseModel):
    """What an evaluation found; `model_dump(mode="json")` gives a dictionary for JSON.

    tiers: by tier, 1..4. published_mean_f1: the published mean F1 averaged over the tiers, by which the published
    training chooses its best checkpoint. mean_f1: that of the figures without background. consistency: of all pixels;
    crop_consistency: of those with a crop as label at the coarsest tier. samples: how many were added. squares: split
    squares with a sample, which intervals are resampled over. resamples, seed: of the intervals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: dict[int, TierReport]
    published_mean_f1: float | None
    mean_f1: float | None
    consistency: Consistency | None
    crop_consistency: Consistency | None
    samples: int
    squares: int
    resamples: int
    seed: int


class Evaluation:
    """Streamed counts of a model's predictions; nothing is kept per pixel.

    Batches may be added in any order and in any pieces, and evaluations of several processes merged by `+` (an
    evaluation can be pickled): the report is the same to the last bit.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | None = None,
        tiers: Sequence[int] = tuple(range(1, TIERS + 1)),
        device: torch.device | str = "cpu",
    ) -> None:
        """taxonomy: of labels and predictions, by default that of the published dataset. tiers: that are predicted.

        device: where counts are kept; the work is done where the predictions are.
        Raises UsageError for tiers outside 1..4.
        """
        if not tiers or not set(tiers) <= set(range(1, TIERS + 1)):
            raise UsageError(f"tiers {list(tiers)}; expected some of 1..{TIERS}")
        taxonomy = taxonomy or Taxonomy.load()
        self.tiers = tuple(sorted(set(tiers)))
        self.device = torch.device(device)
        #: Tier -> N + 1.
        self.classes = {tier: max(taxonomy.names(tier), default=0) + 1 for tier in self.tiers}
        self._steps = [
            (upper, lower, path_steps(taxonomy, upper, lower))
            for upper, lower in zip(self.tiers, self.tiers[1:], strict=False)
        ]
        self._taxonomy_hash = taxonomy.hash
        self._squares: dict[str, int] = {}
        #: Tier -> (strata, classes, classes) int64.
        self._confusion = {tier: self._zeros(len(STRATA), size, size) for tier, size in self.classes.items()}
        #: Tier -> (squares, strata, 4, classes) int64: what figures need of a square's confusion matrix, and no more.
        #: There may be more rows than squares.
        self._vectors = {tier: self._zeros(0, len(STRATA), 4, size) for tier, size in self.classes.items()}
        self._votes = {tier: ParcelVotes(self.device) for tier in self.tiers}
        self._parcel_squares = ParcelSquares(self.device)
        #: (squares, [all pixels, declared ones], [pixels, consistent ones]); as many rows as `_vectors`.
        self._paths = self._zeros(0, 2, 2)
        self._has_parcels = False
        self.samples = 0

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=self.device)

    @torch.no_grad()
    def add(
        self,
        predicted: Mapping[int, Tensor],
        label: Tensor,
        *,
        prior: Tensor | None = None,
        parcels: Tensor | None = None,
        squares: Sequence[str] | None = None,
        seasons: Sequence[int] | None = None,
    ) -> None:
        """Count a batch.

        predicted: tier -> logits (B, N + 1, H, W), or class ids (B, H, W) of integers; every tier of the evaluation.
        label, prior: (B, 4, H, W) integers, 255 unknown. parcels: (B, H, W), the store's array `parcel`; `seasons`:
        the season of each sample, needed with it. squares: the split square of each sample (`sample_places`).
        Raises UsageError for shapes that do not fit, and for classes the taxonomy does not have.
        """
        classes = {tier: self._class_ids(predicted, tier) for tier in self.tiers}
        samples = len(label)
        shape = (samples, *label.shape[-2:])
        self._check(classes, label, prior, parcels, squares, seasons)
        names = [NONE] * samples if squares is None else list(squares)
        local = {name: place for place, name in enumerate(dict.fromkeys(names))}
        rows = self._rows(list(local))
        device = next(iter(classes.values())).device
        place = torch.tensor([local[name] for name in names], device=device)[:, None, None]
        label = label.to(device)
        prior = None if prior is None else prior.to(device)
        owners = None
        if parcels is not None and seasons is not None:
            owners = owners_of(parcels.to(device), seasons)
            self._parcel_squares.add(owners, rows[place.flatten().to(self.device)].to(device))
            self._has_parcels = True
        for tier, of_tier in classes.items():
            of_label = label[:, tier - 1]
            stratum = strata(of_label, None if prior is None else prior[:, tier - 1])
            group = (place * len(STRATA) + stratum).expand(shape)
            size = self.classes[tier]
            counted = confusion_matrix(of_tier, of_label, size, group, len(local) * len(STRATA))
            by_square = counted.view(len(local), len(STRATA), size, size)
            self._confusion[tier] += by_square.sum(0).to(self.device)
            self._vectors[tier].index_add_(0, rows, count_vectors(by_square).to(self.device))
            if owners is not None:
                self._votes[tier].add(of_tier, of_label, owners)
        if self._steps:
            declared = (label[:, 0] != BACKGROUND) & (label[:, 0] != UNKNOWN)
            consistent = self._consistent(classes)
            flags = torch.stack([torch.ones_like(declared), consistent, declared, declared & consistent], 1)
            by_sample = flags.flatten(2).sum(-1).view(samples, 2, 2)
            paths = torch.zeros((len(local), 2, 2), dtype=torch.int64, device=device)
            paths.index_add_(0, place.flatten(), by_sample)
            self._paths.index_add_(0, rows, paths.to(self.device))
        self.samples += samples

    def _class_ids(self, predicted: Mapping[int, Tensor], tier: int) -> Tensor:
        """The class that each pixel is predicted as, (B, H, W)."""
        if tier not in predicted:
            raise UsageError(f"no prediction of tier {tier}; available: {', '.join(map(str, predicted))}")
        of_tier = predicted[tier]
        if not of_tier.is_floating_point():
            return of_tier
        if of_tier.ndim != 4 or of_tier.shape[1] != self.classes[tier]:
            raise UsageError(
                f"logits of tier {tier} are {tuple(of_tier.shape)}; expected (B, {self.classes[tier]}, H, W), the "
                "classes of the taxonomy and background"
            )
        return of_tier.argmax(1)

    def _check(
        self,
        classes: Mapping[int, Tensor],
        label: Tensor,
        prior: Tensor | None,
        parcels: Tensor | None,
        squares: Sequence[str] | None,
        seasons: Sequence[int] | None,
    ) -> None:
        """Raise UsageError where the parts of a batch do not fit together."""
        samples, *_, height, width = label.shape
        given = {f"the prediction of tier {tier}": of_tier for tier, of_tier in classes.items()}
        given |= {"label": label}
        given |= {name: values for name, values in (("prior", prior), ("parcels", parcels)) if values is not None}
        for name, values in given.items():
            tiers = (TIERS,) if name in ("label", "prior") else ()
            if values.shape != (samples, *tiers, height, width):
                raise UsageError(f"{name} is {tuple(values.shape)}; expected {(samples, *tiers, height, width)}")
        if parcels is not None and seasons is None:
            raise UsageError("parcels are numbered by season: give the season of each sample (sample_places)")
        for name, of_samples in (("squares", squares), ("seasons", seasons)):
            if of_samples is not None and len(of_samples) != samples:
                raise UsageError(f"{len(of_samples)} {name} for {samples} samples")

    def _rows(self, names: Sequence[str]) -> Tensor:
        """The rows of squares in the counts; a square that is new gets one."""
        new = [name for name in names if name not in self._squares]
        if new:
            for name in new:
                self._squares[name] = len(self._squares)
            if len(self._squares) > len(self._paths):
                # Twice as many, so that squares that come one by one are not copied each time.
                more = max(len(new), len(self._paths))
                for tier, vectors in self._vectors.items():
                    self._vectors[tier] = torch.cat([vectors, self._zeros(more, *vectors.shape[1:])])
                self._paths = torch.cat([self._paths, self._zeros(more, 2, 2)])
        return torch.tensor([self._squares[name] for name in names], device=self.device)

    def _consistent(self, classes: Mapping[int, Tensor]) -> Tensor:
        """Which pixels are predicted along one path, (B, H, W) bool."""
        steps = [
            allowed.to(classes[upper].device)[classes[upper].long(), classes[lower].long()]
            for upper, lower, allowed in self._steps
        ]
        return torch.stack(steps).all(0)

    def __add__(self, other: Evaluation) -> Evaluation:
        """The evaluation of the batches of both. Raises UsageError where taxonomy or tiers differ."""
        if (self.tiers, self._taxonomy_hash) != (other.tiers, other._taxonomy_hash):
            raise UsageError("evaluations with different tiers or taxonomies cannot be merged")
        merged = object.__new__(Evaluation)
        merged.__dict__ |= self.__dict__
        merged._squares = dict(self._squares)
        merged._confusion = {
            tier: counts + other._confusion[tier].to(self.device) for tier, counts in self._confusion.items()
        }
        merged._vectors = {tier: vectors.clone() for tier, vectors in self._vectors.items()}
        merged._paths = self._paths.clone()
        rows = merged._rows(list(other._squares))
        for tier, vectors in other._vectors.items():
            merged._vectors[tier].index_add_(0, rows, vectors[: len(rows)].to(self.device))
        merged._paths.index_add_(0, rows, other._paths[: len(rows)].to(self.device))
        merged._parcel_squares = self._parcel_squares.merged(other._parcel_squares, rows)
        merged._votes = {tier: votes + other._votes[tier] for tier, votes in self._votes.items()}
        merged._has_parcels = self._has_parcels or other._has_parcels
        merged.samples = self.samples + other.samples
        return merged

    def confusion(self, tier: int, ground: str = "all") -> Tensor:
        """Pixels by label (row) and predicted class (column), (N + 1, N + 1) int64, on the CPU.

        ground: `all`, `changed` or `unchanged`.
        """
        return self._confusion[tier][list(GROUNDS[ground])].sum(0).cpu()

    def report(self, resamples: int = RESAMPLES, seed: int = 0) -> EvaluationReport:
        """The figures of everything added so far.

        Intervals: the split squares are drawn with replacement, as many as there are, `resamples` times, and a figure
        computed of each draw; its 2.5 and 97.5 per cent percentiles are the interval. Squares, not pixels, since pixels
        of one field are one observation. None where samples lie in fewer than two squares, or in none that is known.
        """
        # In order of name, so that the draws do not depend on the order of batches.
        names = sorted(self._squares)
        order = torch.tensor([self._squares[name] for name in names], dtype=torch.int64)
        known = 0 if NONE in self._squares else len(names)
        weights = resampling_weights(known, resamples, seed) if known > 1 else None
        tiers = {tier: self._tier_report(tier, order, weights) for tier in self.tiers}
        paths = [None, None] if not self._steps else [self._consistency(i, order, weights) for i in range(2)]
        return EvaluationReport(
            tiers=tiers,
            published_mean_f1=defined_mean([of_tier.published["all"].mean_f1 for of_tier in tiers.values()]),
            mean_f1=defined_mean([of_tier.crops["all"].mean_f1 for of_tier in tiers.values()]),
            consistency=paths[0],
            crop_consistency=paths[1],
            samples=self.samples,
            squares=known,
            resamples=resamples,
            seed=seed,
        )

    def _tier_report(self, tier: int, order: Tensor, weights: Tensor | None) -> TierReport:
        by_square = self._vectors[tier].cpu()[order]
        published, crops = {}, {}
        for ground, chosen in GROUNDS.items():
            total = self.confusion(tier, ground)
            vectors = by_square[:, list(chosen)].sum(1)
            published[ground] = published_figures(total, intervals(weights, vectors, published=True))
            crops[ground] = crop_figures(total, intervals(weights, vectors, published=False))
        parcels = None
        if self._has_parcels:
            vectors = self._parcel_vectors(tier, order)
            parcels = figures_of_crops(vectors.sum(0), intervals(weights, vectors, published=False))
        return TierReport(published=published, crops=crops, parcels=parcels)

    def _parcel_vectors(self, tier: int, order: Tensor) -> Tensor:
        """As `count_vectors`, with parcels in the place of pixels, by split square in order: (squares, 4, N + 1)."""
        owner, label, vote = self._votes[tier].decisions()
        square = self._parcel_squares.of_owners(owner, order.argsort()).cpu()
        label, vote = label.cpu(), vote.cpu()
        size = self.classes[tier]

        def counted(classes: Tensor, chosen: Tensor) -> Tensor:
            places = (square * size + classes)[chosen]
            return torch.bincount(places, minlength=len(order) * size).view(len(order), size)

        every = torch.ones_like(label, dtype=torch.bool)
        return torch.stack(
            [
                counted(label, label == vote),
                counted(label, every),
                counted(vote, every),
                counted(vote, label != BACKGROUND),
            ],
            1,
        )

    def _consistency(self, row: int, order: Tensor, weights: Tensor | None) -> Consistency:
        by_square = self._paths.cpu()[order][:, row]
        pixels, consistent = by_square.sum(0).tolist()
        interval = None
        if weights is not None:
            sums = resampled(weights, by_square)
            interval = percentile_interval(sums[:, 1] / sums[:, 0])
        return Consistency(pixels=pixels, share=consistent / pixels if pixels else None, interval=interval)


def strata(label: Tensor, prior: Tensor | None) -> Tensor:
    """The stratum of each pixel, as its place in `STRATA`."""
    if prior is None:
        return torch.zeros_like(label, dtype=torch.int64)
    return torch.where(prior == UNKNOWN, 0, torch.where(prior == label, 1, 2))


def path_steps(taxonomy: Taxonomy, upper: int, lower: int) -> Tensor:
    """Which classes of two tiers may be predicted together: (N_upper + 1, N_lower + 1) bool.

    A class and its descendants; background and background; background below a class without descendants.
    """
    classes = [max(taxonomy.names(tier), default=0) + 1 for tier in (upper, lower)]
    allowed = torch.zeros(classes, dtype=torch.bool)
    for digits, (number, _) in taxonomy.classes[lower - 1].items():
        ancestor = taxonomy.classes[upper - 1].get(digits[: TIER_DIGITS[upper - 1]])
        if ancestor is not None:
            allowed[ancestor[0], number] = True
    allowed[:, BACKGROUND] = ~allowed.any(1)
    return allowed


def intervals(weights: Tensor | None, by_square: Tensor, *, published: bool) -> Intervals | None:
    """The intervals of the figures of counts by square (squares, 4, N + 1)."""
    if weights is None:
        return None
    vectors = resampled(weights, by_square)
    rates = published_rates(published_counts(vectors)) if published else crop_rates(crop_counts(vectors))
    return intervals_of(rates)


def defined_mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values; None where one is missing."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if len(present) == len(values) else None


def sample_places(store: str | Path, split: str | None = None, release: int | None = None) -> dict[str, SamplePlace]:
    """Season and split square of the samples of a store, by id, of a split or of all.

    Raises StoreError where there is no store.
    """
    attributes = load_root(store, release)["attributes"]
    places: dict[str, SamplePlace] = {}
    for season in map(int, attributes["seasons"]):
        table = read_columns(store, attributes, f"samples-{season}", ["sample", "split", "square"]).to_pydict()
        for name, of_split, square in zip(table["sample"], table["split"], table["square"], strict=True):
            if split is None or of_split == split:
                places[name] = SamplePlace(season, square)
    return places
