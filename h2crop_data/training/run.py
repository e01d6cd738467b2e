"""A whole training: epochs on the split `train`, after each an evaluation on `val`; the best weights are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from h2crop_data.cube.reading import load_root
from h2crop_data.cube.root import stored_data
from h2crop_data.errors import ModelError, UsageError
from h2crop_data.progress import Progress, silent
from h2crop_data.training.augmentation import Augmentation
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.epochs import batches_of_epoch, evaluate, train_epoch, updates_of
from h2crop_data.training.evaluation import EvaluationReport, sample_places
from h2crop_data.training.files import write_whole
from h2crop_data.training.fitting import Sizes, config_for_store
from h2crop_data.training.model import CropModel
from h2crop_data.training.settings import TrainingSettings
from h2crop_data.training.trainer import Trainer
from h2crop_data.training.transforms import BatchTransforms

#: Arrays that metrics need beside what the model sees.
JUDGED_ARRAYS = ("s2", "label", "prior", "parcel")


class EpochResult(BaseModel):
    """An epoch (1-based): the mean loss of its batches, and the means over tiers of F1 on the split that judges it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    loss: float
    published_mean_f1: float | None
    mean_f1: float | None


class TrainingReport(BaseModel):
    """The report of a training.

    split: the samples that the metrics are of: `val`, or `train` where the store has no `val`. epoch: whose weights
    they are of (1-based): of the epochs that were judged the one with the highest `published_mean_f1`, the first of
    equals. epochs: all that were judged; with `val` every one, else the last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str
    epoch: int
    epochs: tuple[EpochResult, ...]
    metrics: EvaluationReport


def train(
    store: str | Path,
    settings: TrainingSettings,
    sizes: Sizes,
    *,
    until: str | None = None,
    enmap: bool = True,
    enmap_optional: bool = False,
    prior: bool = True,
    device: str = "cpu",
    workers: int = 0,
    out: Path | None = None,
    save_every: int = 100,
    say: Callable[[str], object] = lambda text: None,
    progress: Progress = silent,
) -> TrainingReport:
    """Train on the split `train` of a store and judge every epoch on `val`.

    Where the store has no `val` the last weights are judged on `train` itself. say: is called with lines of
    information. out: folder for `state.pt`, which is written every `save_every` updates and which an interrupted
    training resumes from; `model` and `best`, the last weights and those of the best epoch
    (`CropModel.from_pretrained`); `metrics.json`, the report. Raises H2cropError.
    """
    chosen_device = available_device(device)
    # One release for everything: another one may be made at any moment.
    attributes = load_root(store)["attributes"]
    release = int(attributes["release"])
    has_enmap = enmap and stored_data(attributes["layout"]).enmap_bands > 0
    arrays = [*JUDGED_ARRAYS, *(["enmap"] if has_enmap else [])]
    dataset = CropSamples(store, split="train", until=until, arrays=arrays, release=release)
    split = "val" if sample_places(store, "val", release) else "train"
    judged = (
        dataset if split == "train" else CropSamples(store, split="val", until=until, arrays=arrays, release=release)
    )
    if split == "train":
        say("the store has no split val: the metrics are those of the training samples themselves")
    config = config_for_store(
        store,
        sizes,
        months=dataset.months,
        enmap=has_enmap,
        enmap_optional=enmap_optional,
        prior=prior,
        release=release,
    )
    torch.manual_seed(settings.seed)
    trainer = Trainer(CropModel(config), settings, updates_of(len(dataset), settings), chosen_device, dataset.ids)
    say(f"{len(dataset)} training samples of {dataset.months} months; {dataset.left_out} of later scenes left out")
    folder = None if out is None else TrainingFolder.make(out)
    epoch_size = len(batches_of_epoch(len(dataset), settings, 0))
    report: TrainingReport | None = None
    if folder is not None and folder.state.exists():
        trainer.load(folder.state)
        say(f"resuming after {trainer.batches} batches")
        report = folder.report(trainer.batches // epoch_size)
        if report is None and split == "val" and trainer.batches > epoch_size:
            say(f"{folder.metrics} lacks the epochs before: the best of the following ones is kept")
    augmenting = BatchTransforms.for_store(
        store, release=release, augmentation=Augmentation() if settings.augment else None
    )
    judging = BatchTransforms.for_store(store, release=release)
    while True:
        epoch, begun = divmod(trainer.batches, epoch_size)
        has_ended = trainer.done == trainer.updates
        is_judged = report is not None and report.epochs[-1].epoch == epoch
        if epoch and not begun and not is_judged and (split == "val" or has_ended):
            metrics = evaluate(
                trainer.model,
                judged,
                judging,
                batch_size=settings.batch_size,
                precision=settings.precision,
                workers=workers,
                progress=progress,
            )
            report = extended(report, metrics, split, epoch, float(trainer.epoch_loss) / epoch_size)
            if folder is not None:
                folder.keep(report, trainer.model)
        if has_ended:
            break
        train_epoch(
            trainer,
            dataset,
            augmenting,
            workers=workers,
            checkpoint=None if folder is None else folder.state,
            every=save_every,
            progress=progress,
        )
    if folder is not None:
        trainer.model.save_pretrained(folder.model)
    if report is None:
        raise ModelError("the training ended without an evaluation")
    return report


def extended(
    before: TrainingReport | None, metrics: EvaluationReport, split: str, epoch: int, loss: float
) -> TrainingReport:
    """The report with one more epoch, whose metrics it has if that is the best so far."""
    result = EpochResult(epoch=epoch, loss=loss, published_mean_f1=metrics.published_mean_f1, mean_f1=metrics.mean_f1)
    if before is None:
        return TrainingReport(split=split, epoch=epoch, epochs=(result,), metrics=metrics)
    best = max((before.metrics, metrics), key=lambda of_epoch: of_epoch.published_mean_f1 or 0.0)
    return TrainingReport(
        split=split,
        epoch=epoch if best is metrics else before.epoch,
        epochs=(*before.epochs, result),
        metrics=best,
    )


@dataclass(frozen=True)
class TrainingFolder:
    """The files of a training: `state.pt`, `model`, `best`, `metrics.json`."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """The files in a folder, which is made. Raises ModelError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"cannot make the folder {folder}: {error}") from error
        return cls(folder)

    @property
    def state(self) -> Path:
        """What an interrupted training resumes from."""
        return self.folder / "state.pt"

    @property
    def model(self) -> Path:
        """The last weights, once the training has ended."""
        return self.folder / "model"

    @property
    def best(self) -> Path:
        """The weights of the best epoch so far."""
        return self.folder / "best"

    @property
    def metrics(self) -> Path:
        """The report."""
        return self.folder / "metrics.json"

    def keep(self, report: TrainingReport, model: CropModel) -> None:
        """Write the report, and before it the weights of its last epoch if that is the best. Raises ModelError."""
        if report.epoch == report.epochs[-1].epoch:
            model.save_pretrained(self.best)
        write_whole(self.metrics, lambda file: file.write(as_json(report).encode()))

    def report(self, epoch: int) -> TrainingReport | None:
        """The report that was written, if it is of this epoch or an earlier one. Raises ModelError for a damaged file.

        One of a later epoch belongs to a training whose state was removed.
        """
        try:
            report = TrainingReport.model_validate_json(self.metrics.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ModelError(f"cannot read {self.metrics}: {error}; remove it to compare later epochs only") from error
        return report if report.epochs[-1].epoch <= epoch else None


def as_json(report: TrainingReport) -> str:
    """A report as JSON."""
    return json.dumps(report.model_dump(mode="json"), indent=1) + "\n"


def available_device(name: str) -> torch.device:
    """The device of a name. Raises UsageError where there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device: expected cpu, cuda or cuda:1, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device: PyTorch finds no CUDA device for {name!r}; choose cpu")
    return device
