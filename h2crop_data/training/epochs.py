"""Passes over a dataset: an epoch of training, an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from h2crop_data.progress import Progress, silent
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.evaluation import Evaluation, EvaluationReport, sample_places
from h2crop_data.training.fitting import common_taxonomy
from h2crop_data.training.model import CropModel
from h2crop_data.training.settings import PRECISIONS, Precision, TrainingSettings
from h2crop_data.training.trainer import Trainer, inputs_of
from h2crop_data.training.transforms import BatchTransforms


def generator_of(seed: int, *key: int) -> torch.Generator:
    """A generator of random numbers that depends on these alone; keys of other lengths give other numbers."""
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def batches_of_epoch(samples: int, settings: TrainingSettings, epoch: int) -> list[list[int]]:
    """The samples of each batch of an epoch (0-based), in an order of its own; the last batch may be smaller."""
    order = torch.randperm(samples, generator=generator_of(settings.seed, epoch)).tolist()
    return [order[start : start + settings.batch_size] for start in range(0, samples, settings.batch_size)]


def updates_of(samples: int, settings: TrainingSettings) -> int:
    """Updates of a training on so many samples."""
    batches = len(batches_of_epoch(samples, settings, 0))
    return settings.epochs * -(-batches // settings.accumulation)


def loaded(
    dataset: CropSamples, batches: list[list[int]], device: torch.device, workers: int = 0
) -> Iterator[dict[str, Any]]:
    """Batches of a dataset as stored, on a device, read ahead by worker processes.

    For a GPU they pass through pinned memory, so that copying a batch and computing the one before overlap.
    """
    more: dict[str, Any] = {"multiprocessing_context": "forkserver", "prefetch_factor": 2} if workers else {}
    # A generator of its own: by default a loader draws from the numbers that stochastic depth goes on from.
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
        pin_memory=device.type == "cuda",
        **more,
    )
    for batch in loader:
        yield {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }


def train_epoch(
    trainer: Trainer,
    dataset: CropSamples,
    transforms: BatchTransforms,
    *,
    workers: int = 0,
    checkpoint: Path | None = None,
    every: int = 100,
    progress: Progress = silent,
) -> float:
    """Train on the epoch that is next, from the batch that is next; gives the mean loss of all its batches.

    transforms: with or without augmentation, which is drawn from seed, epoch and batch alone. checkpoint: the file that
    the state is written to after every so many updates and at the end. progress: called with (done, total, text) after
    every batch.
    Raises as `Trainer.step`, and StoreError where a sample cannot be read.
    """
    settings = trainer.settings
    a_epoch = len(batches_of_epoch(len(dataset), settings, 0))
    epoch, first = divmod(trainer.batches, a_epoch)
    batches = batches_of_epoch(len(dataset), settings, epoch)
    if first == 0:
        trainer.epoch_loss.zero_()
    for place, batch in enumerate(loaded(dataset, batches[first:], trainer.device, workers), first):
        trainer.step(transforms(batch, generator_of(settings.seed, epoch, place)))
        if place + 1 == a_epoch:
            trainer.update()
        if checkpoint is not None and not trainer.pending and (trainer.done % every == 0 or place + 1 == a_epoch):
            trainer.save(checkpoint)
        mean = float(trainer.epoch_loss) / (place + 1)
        progress(place + 1, a_epoch, f"epoch {epoch + 1} of {settings.epochs}, loss {mean:.3f}")
    return float(trainer.epoch_loss) / a_epoch


@torch.inference_mode()
def evaluate(
    model: CropModel,
    dataset: CropSamples,
    transforms: BatchTransforms,
    *,
    batch_size: int = 4,
    precision: Precision = "float32",
    workers: int = 0,
    progress: Progress = silent,
) -> EvaluationReport:
    """Metrics of a model on the samples of a dataset (docs/evaluation.md); the model's mode stays as it was.

    dataset: with `label` and what the model sees; also with `prior` and `parcel` for the figures that need them.
    precision: dtype of the forward pass, as `TrainingSettings.precision`.
    Raises UsageError for classes of the model, the store and h2crop that are not the same, StoreError where a sample
    cannot be read.
    """
    taxonomy = common_taxonomy(model.config, dataset.store, dataset.release)
    places = sample_places(dataset.store, release=dataset.release)
    device = next(model.parameters()).device
    evaluation = Evaluation(taxonomy, model.config.tiers)
    batches = [
        list(range(start, min(start + batch_size, len(dataset)))) for start in range(0, len(dataset), batch_size)
    ]
    training = model.training
    model.eval()
    try:
        for done, batch in enumerate(loaded(dataset, batches, device, workers), 1):
            changed = transforms(batch)
            with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32"):
                logits = model(**inputs_of(model, changed))
            of_samples = [places[name] for name in changed["id"]]
            evaluation.add(
                logits,
                changed["label"],
                prior=changed.get("prior"),
                parcels=changed.get("parcel"),
                seasons=[place.season for place in of_samples],
                squares=[place.square for place in of_samples],
            )
            progress(done, len(batches), "evaluating")
    finally:
        model.train(training)
    return evaluation.report()
