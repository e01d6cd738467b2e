"""One training step, and epochs of them: loss, gradients, new weights; what is needed to go on after an interruption.

`python -m h2crop_data.training.step STORE --config small` trains an epoch on the samples of a store and prints metrics.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.utils.data import DataLoader
from typer import Argument, Option, run

from h2crop_data.cube.reading import load_root
from h2crop_data.errors import H2cropError, ModelError, UsageError
from h2crop_data.progress import Progress, silent
from h2crop_data.training.augmentation import Augmentation
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.evaluation import Evaluation, EvaluationReport, sample_places
from h2crop_data.training.fitting import Sizes, check_taxonomy, config_for_store
from h2crop_data.training.losses import hierarchical_loss
from h2crop_data.training.model import CropModel
from h2crop_data.training.transforms import BatchTransforms

#: Seconds between two lines of progress.
SECONDS_BETWEEN_LINES = 5.0
Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class TrainingSettings(BaseModel):
    """Training settings. The defaults are the published ones, but for `precision`, which was float16."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: How often every sample is seen.
    epochs: int = Field(default=100, ge=1)
    #: Samples in a batch.
    batch_size: int = Field(default=4, ge=1)
    #: Batches whose gradients are averaged for one update. Each batch counts the same, however many of its pixels have
    #: a label.
    accumulation: int = Field(default=1, ge=1)
    #: AdamW: the highest learning rate, and the decay of weights.
    learning_rate: float = Field(default=6e-5, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    #: Updates over which the learning rate rises in a straight line from `warm_up_start` times the highest.
    warm_up: int = Field(default=1000, ge=0)
    warm_up_start: float = Field(default=0.01, gt=0, le=1)
    #: The learning rate that the cosine falls to.
    last_learning_rate: float = Field(default=6e-6, ge=0)
    #: dtype of the forward pass; weights, loss and optimiser stay float32.
    precision: Precision = "float32"
    #: Compute transformer blocks again in the backward pass instead of keeping them: at the published sizes less memory
    #: and a third more time.
    checkpointing: bool = False
    #: Compile the model. A resumed run is then the same only up to rounding.
    compile: bool = False
    #: Of initial weights, order of samples, augmentation and stochastic depth.
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def check_rates(self) -> Self:
        """The learning rate falls."""
        if self.last_learning_rate > self.learning_rate:
            raise ValueError(
                f"last_learning_rate {self.last_learning_rate:g} is above learning_rate {self.learning_rate:g}"
            )
        return self

    @classmethod
    def small(cls, **chosen: Any) -> Self:
        """For the small model and few samples: higher learning rates, a short warm-up. chosen: other settings."""
        return cls(**{"learning_rate": 1e-3, "last_learning_rate": 1e-4, "warm_up": 10, "epochs": 1} | chosen)

    def learning_rate_at(self, update: int, updates: int) -> float:
        """The learning rate of an update (0-based) of a training of so many.

        Linear from `warm_up_start` times the highest in update 0 to the highest in update `warm_up`, then half a cosine
        down to `last_learning_rate` in update `updates`. A warm-up is at most half of the training.
        """
        warm_up = min(self.warm_up, updates // 2)
        if update < warm_up:
            return self.learning_rate * (self.warm_up_start + (1 - self.warm_up_start) * update / warm_up)
        done = min(1.0, (update - warm_up) / max(1, updates - warm_up))
        span = self.learning_rate - self.last_learning_rate
        return self.last_learning_rate + span * (1 + math.cos(math.pi * done)) / 2


class Trainer:
    """A model in training: `step` takes a batch, `save` and `load` interrupt and resume.

    On a CPU the same seed gives the same weights, interrupted or not. On a GPU some sums depend on the order in which
    threads end, so weights agree up to rounding.
    """

    def __init__(
        self,
        model: CropModel,
        settings: TrainingSettings,
        updates: int,
        device: torch.device | str = "cpu",
        samples: Sequence[str] = (),
    ) -> None:
        """model: is moved to the device and put into training mode. updates: of the whole training. samples: ids of the
        training samples, so that a state of others is not resumed.

        Seeds PyTorch's own random numbers, which stochastic depth draws from, with `settings.seed`.
        """
        self.settings = settings
        self.samples = hashlib.sha256("\n".join(samples).encode()).hexdigest()
        self.updates = updates
        self.device = torch.device(device)
        self.model = model.to(self.device).train()
        self.model.checkpointing = settings.checkpointing
        self.forward: Callable[..., dict[int, Tensor]] = torch.compile(model) if settings.compile else model
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.precision = PRECISIONS[settings.precision]
        # Gradients of float16 are scaled, so that small ones do not become 0.
        self.scaler = GradScaler(self.device.type, enabled=self.precision == torch.float16)
        #: Batches that were seen, updates that were made, and batches since the last one.
        self.batches = 0
        self.done = 0
        self.pending = 0
        #: Whether a loss was not finite: batch normalisation has seen values that are none.
        self.broken = False
        torch.manual_seed(settings.seed)

    def step(self, batch: Mapping[str, Any]) -> Tensor:
        """Add a batch's gradients, and update weights after every `accumulation` batches; gives the loss.

        batch: on the device, as `BatchTransforms` gives it (float32), with `s2`, `label` and what the model sees
        besides. The loss is a scalar float32 on the device, detached: the sum of the tiers (`hierarchical_loss`).
        Raises ModelError where the loss is not finite: parameters are then those before the batch, but running means
        and variances of batch normalisation are not, so the trainer takes no more batches and is not saved. Raises
        UsageError for inputs of other shapes and after the last update.
        """
        if self.broken:
            raise ModelError("a loss was not finite before; load the state that was saved last")
        if self.done >= self.updates:
            raise UsageError(f"the training has ended after its {self.updates} updates; give more of them to go on")
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.forward(**inputs_of(self.model, batch))
        loss = hierarchical_loss(logits, batch["label"])
        if not torch.isfinite(loss):
            self.broken = True
            named = ", ".join(map(str, batch.get("id", []))) or "without ids"
            raise ModelError(
                f"the loss of batch {self.batches + 1} is {loss.item()} (samples: {named}); "
                "lower the learning rate, or train in float32 or bfloat16"
            )
        scaled: Tensor = self.scaler.scale(loss / self.settings.accumulation)
        torch.autograd.backward(scaled)
        self.batches += 1
        self.pending += 1
        if self.pending == self.settings.accumulation:
            self.update()
        return loss.detach()

    def update(self) -> None:
        """Update weights by the mean of the gradients so far, also those of fewer batches than `accumulation`."""
        if not self.pending:
            return
        if self.pending < self.settings.accumulation:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad *= self.settings.accumulation / self.pending
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate_at(self.done, self.updates)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1
        self.pending = 0

    def save(self, path: Path) -> None:
        """Write everything that resuming needs into a file, which is replaced whole.

        Raises UsageError between batches whose gradients are still to be used, ModelError where it cannot be written or
        a loss was not finite.
        """
        if self.pending:
            raise UsageError("a training is saved after an update: call update() before save()")
        if self.broken:
            raise ModelError("a training whose loss was not finite is not saved; load the state that was saved last")
        state = {
            **self.identity(),
            "batches": self.batches,
            "done": self.done,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        partial = path.with_name(f"{path.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise ModelError(f"cannot write {path}: {error}") from error

    def identity(self) -> dict[str, str]:
        """What a state must agree in to be resumed, as JSON: settings, updates, model, samples."""
        config = asdict(self.model.config)
        if self.model.config.normalisation is not None:
            config["normalisation"] = repr(self.model.config.normalisation)
        return {
            "settings": self.settings.model_dump_json(),
            "updates": str(self.updates),
            "model configuration": json.dumps(config, sort_keys=True),
            "samples": self.samples,
        }

    def load(self, path: Path) -> None:
        """Resume the training that was saved.

        Raises ModelError for a damaged file, UsageError for a training with other settings, samples or another model.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            other = [name for name, value in self.identity().items() if state[name] != value]
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise ModelError(f"cannot read {path}: {error}; remove it to begin again") from error
        if other:
            raise UsageError(f"{path} was saved by a training with other {' and '.join(other)}; choose another folder")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.broken = False
        self.scaler.load_state_dict(state["scaler"])
        self.batches, self.done, self.pending = state["batches"], state["done"], 0
        torch.set_rng_state(state["random"])
        if state["device_random"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_random"], self.device)


def inputs_of(model: CropModel, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """What of a batch a model sees: `s2`, and `enmap`, `prior` where its configuration has them."""
    config = model.config
    wanted = {"s2": True, "enmap": config.enmap is not None, "prior": config.prior, "enmap_present": config.enmap}
    return {name: batch[name] for name, used in wanted.items() if used and name in batch}


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


def loaded(dataset: CropSamples, batches: list[list[int]], workers: int = 0) -> Iterator[dict[str, Any]]:
    """Batches of a dataset as stored, read ahead by worker processes."""
    more: dict[str, Any] = {"multiprocessing_context": "forkserver", "prefetch_factor": 2} if workers else {}
    # A generator of its own: by default a loader draws from the numbers that stochastic depth goes on from.
    yield from DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, generator=torch.Generator().manual_seed(0), **more
    )


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


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
    """Train on the epoch that is next, from the batch that is next; gives the mean loss of its batches.

    transforms: with or without augmentation, which is drawn from seed, epoch and batch alone. checkpoint: the file that
    the state is written to after every so many updates and at the end. progress: called with (done, total, text) after
    every batch. The mean is over the batches of this call, that is since the training was resumed.
    Raises as `Trainer.step`, and StoreError where a sample cannot be read.
    """
    settings = trainer.settings
    a_epoch = len(batches_of_epoch(len(dataset), settings, 0))
    epoch, first = divmod(trainer.batches, a_epoch)
    batches = batches_of_epoch(len(dataset), settings, epoch)
    total = torch.zeros((), device=trainer.device)
    for place, batch in enumerate(loaded(dataset, batches[first:], workers), first):
        changed = transforms(on_device(batch, trainer.device), generator_of(settings.seed, epoch, place))
        total += trainer.step(changed)
        if place + 1 == a_epoch:
            trainer.update()
        if checkpoint is not None and not trainer.pending and (trainer.done % every == 0 or place + 1 == a_epoch):
            trainer.save(checkpoint)
        mean = float(total) / (place + 1 - first)
        progress(place + 1, a_epoch, f"epoch {epoch + 1} of {settings.epochs}, loss {mean:.3f}")
    return float(total) / max(1, a_epoch - first)


@torch.inference_mode()
def evaluate(
    model: CropModel,
    dataset: CropSamples,
    transforms: BatchTransforms,
    *,
    batch_size: int = 4,
    workers: int = 0,
    progress: Progress = silent,
) -> EvaluationReport:
    """Metrics of a model on the samples of a dataset (docs/evaluation.md); the model's mode stays as it was.

    dataset: with `label` and what the model sees; also with `prior` and `parcel` for the figures that need them.
    Raises UsageError for classes of the model, the store and h2crop that are not the same, StoreError where a sample
    cannot be read.
    """
    check_taxonomy(model.config, dataset.store, dataset.release)
    places = sample_places(dataset.store, release=dataset.release)
    device = next(model.parameters()).device
    evaluation = Evaluation(tiers=model.config.tiers)
    batches = [
        list(range(start, min(start + batch_size, len(dataset)))) for start in range(0, len(dataset), batch_size)
    ]
    training = model.training
    model.eval()
    try:
        for done, batch in enumerate(loaded(dataset, batches, workers), 1):
            changed = transforms(on_device(batch, device))
            of_samples = [places[name] for name in changed["id"]]
            evaluation.add(
                model(**inputs_of(model, changed)),
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


def metrics_table(report: EvaluationReport, split: str = "") -> str:
    """The figures of an evaluation in lines of text, in per cent with their intervals."""

    def cell(value: float | None, interval: tuple[float, float] | None = None) -> str:
        if value is None:
            return "-"
        return f"{100 * value:.1f}" + (
            "" if interval is None else f" ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"
        )

    which = f" of the split {split}" if split else ""
    title = f"{report.samples} samples{which} in {report.squares} split squares, per cent"
    table = Table(title=title, title_justify="left")
    for name in ("tier", "accuracy", "mean IoU", "mean F1", "published mean F1", "F1 of parcels", "F1 where changed"):
        table.add_column(name, justify="right")
    for tier, of_tier in report.tiers.items():
        crops, published = of_tier.crops["all"], of_tier.published["all"]
        intervals = crops.intervals or {}
        table.add_row(
            str(tier),
            *(cell(getattr(crops, name), intervals.get(name)) for name in ("accuracy", "mean_iou", "mean_f1")),
            cell(published.mean_f1, (published.intervals or {}).get("mean_f1")),
            cell(None if of_tier.parcels is None else of_tier.parcels.mean_f1),
            cell(of_tier.crops["changed"].mean_f1),
        )
    text = io.StringIO()
    Console(file=text, width=120).print(table)
    path = None if report.consistency is None else report.consistency.share
    return f"{text.getvalue()}pixels whose tiers form one path of the taxonomy: {cell(path)}\n"


def main(
    store: Annotated[str, Argument(help="Folder or URL of a store.")],
    config: Annotated[Sizes, Option(help="Sizes of the model.")] = "small",
    until: Annotated[str | None, Option(help="Last day that is known, as 06-30 or 2022-06-30.")] = None,
    epochs: Annotated[int, Option(help="How often every sample is seen.")] = 1,
    batch_size: Annotated[int, Option(help="Samples in a batch.")] = 4,
    accumulation: Annotated[int, Option(help="Batches whose gradients are averaged for one update.")] = 1,
    learning_rate: Annotated[float | None, Option(help="The highest one; it falls to a tenth.")] = None,
    enmap: Annotated[bool, Option(help="Whether the model sees EnMAP.")] = True,
    prior: Annotated[bool, Option(help="Whether the model sees the crops of the year before.")] = True,
    precision: Annotated[Precision, Option(help="dtype of the forward pass.")] = "float32",
    checkpointing: Annotated[bool, Option(help="Compute blocks again in the backward pass: less memory.")] = False,
    compiled: Annotated[bool, Option("--compile", help="Compile the model.")] = False,
    device: Annotated[str, Option(help="cpu, cuda, cuda:1.")] = "cuda" if torch.cuda.is_available() else "cpu",
    workers: Annotated[int, Option(help="Processes that read ahead; 0: none.")] = 0,
    seed: Annotated[int, Option(help="Of initial weights, order, augmentation.")] = 0,
    out: Annotated[Path | None, Option(help="Folder for the model, its state and metrics; resumes there.")] = None,
    save_every: Annotated[int, Option(help="Updates after which the state is saved.")] = 100,
    as_json: Annotated[bool, Option("--json", help="Metrics as JSON.")] = False,
) -> None:
    """Train a model on the split `train` of a store, evaluate the last weights on `val`, print metrics."""
    try:
        chosen: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "accumulation": accumulation,
            "precision": precision,
            "checkpointing": checkpointing,
            "compile": compiled,
            "seed": seed,
        }
        if learning_rate is not None:
            chosen |= {"learning_rate": learning_rate, "last_learning_rate": learning_rate / 10}
        settings = TrainingSettings.small(**chosen) if config == "small" else TrainingSettings(**chosen)
        split, report = train(
            store,
            settings,
            config,
            until=until,
            enmap=enmap,
            prior=prior,
            device=device,
            workers=workers,
            out=out,
            save_every=save_every,
        )
    except ValidationError as error:
        for problem in error.errors():
            write_line(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}")
        raise SystemExit(2) from error
    except H2cropError as error:
        write_line(str(error))
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from error
    sys.stdout.write(metrics_json(split, report) if as_json else metrics_table(report, split))


def train(
    store: str | Path,
    settings: TrainingSettings,
    sizes: Sizes,
    *,
    until: str | None = None,
    enmap: bool = True,
    prior: bool = True,
    device: str = "cpu",
    workers: int = 0,
    out: Path | None = None,
    save_every: int = 100,
) -> tuple[str, EvaluationReport]:
    """Train on the split `train` of a store; gives the split that was evaluated, and its metrics.

    That split is `val`, or `train` itself where the store has no `val`. The weights are the last ones. out: folder for
    `state.pt`, which an interrupted training resumes from, `model` (`CropModel.from_pretrained`) and `metrics.json`.
    Raises H2cropError.
    """
    chosen_device = available_device(device)
    has_enmap = enmap and load_root(store)["attributes"]["layout"]["enmap_bands"] > 0
    arrays = ["s2", "label", "prior", "parcel", *(["enmap"] if has_enmap else [])]
    dataset = CropSamples(store, split="train", until=until, arrays=arrays)
    config = config_for_store(store, sizes, months=dataset.months, enmap=has_enmap, prior=prior)
    split = "val" if sample_places(store, "val") else "train"
    judged = dataset if split == "train" else CropSamples(store, split="val", until=until, arrays=arrays)
    if split == "train":
        write_line("the store has no split val: the metrics are those of the training samples themselves")
    torch.manual_seed(settings.seed)
    updates = updates_of(len(dataset), settings)
    trainer = Trainer(CropModel(config), settings, updates, chosen_device, dataset.ids)
    write_line(
        f"{len(dataset)} training samples of {dataset.months} months; {dataset.left_out} of later scenes left out"
    )
    state = None if out is None else out / "state.pt"
    if state is not None:
        try:
            state.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"cannot make the folder {out}: {error}") from error
        if state.exists():
            trainer.load(state)
            write_line(f"resuming after {trainer.batches} batches")
    transforms = BatchTransforms.for_store(store, augmentation=Augmentation())
    while trainer.done < trainer.updates:
        train_epoch(trainer, dataset, transforms, workers=workers, checkpoint=state, every=save_every, progress=Lines())
    if out is not None:
        trainer.model.save_pretrained(out / "model")
    report = evaluate(
        trainer.model,
        judged,
        BatchTransforms.for_store(store),
        batch_size=settings.batch_size,
        workers=workers,
        progress=Lines(),
    )
    if out is not None:
        try:
            (out / "metrics.json").write_text(metrics_json(split, report), encoding="utf-8")
        except OSError as error:
            raise ModelError(f"cannot write {out / 'metrics.json'}: {error}") from error
    return split, report


def metrics_json(split: str, report: EvaluationReport) -> str:
    """The metrics of a split as JSON."""
    return json.dumps({"split": split, **report.model_dump(mode="json")}, indent=1) + "\n"


def available_device(name: str) -> torch.device:
    """The device of a name. Raises UsageError where there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device: expected cpu, cuda or cuda:1, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device: PyTorch finds no CUDA device for {name!r}; choose cpu")
    return device


class Lines:
    """Progress in lines on standard error: the first, the last, and one every five seconds between."""

    def __init__(self) -> None:
        self.said = -math.inf

    def __call__(self, done: int, total: int, text: str) -> None:
        if done == total or time.monotonic() - self.said > SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            write_line(f"{text}: {done} of {total}")


def write_line(text: str) -> None:
    """A line for people, on standard error."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    run(main)
