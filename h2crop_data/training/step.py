"""One training step, and epochs of them: loss, gradients, new weights; what is needed to go on after an interruption.

`python -m h2crop_data.training.step STORE --config small` trains an epoch on the samples of a store and prints metrics.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.utils.data import DataLoader
from typer import Argument, Option, run

from h2crop_data.cube.reading import load_root
from h2crop_data.errors import H2cropError, ModelError, StoreError, UsageError
from h2crop_data.progress import Progress, silent
from h2crop_data.training.augmentation import Augmentation
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.evaluation import Evaluation, EvaluationReport, SamplePlace, sample_places
from h2crop_data.training.fitting import Sizes, check_taxonomy, config_for_store
from h2crop_data.training.losses import hierarchical_loss
from h2crop_data.training.model import CropModel
from h2crop_data.training.transforms import BatchTransforms

#: Seconds between two lines of progress.
SECONDS_BETWEEN_LINES = 5.0
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TrainingSettings(BaseModel):
    """How weights are changed. The defaults are the published ones, but for `precision`, which was float16."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: How often every sample is seen.
    epochs: int = Field(default=100, ge=1)
    #: Samples in a batch.
    batch_size: int = Field(default=4, ge=1)
    #: Batches whose gradients are averaged before weights change. Each batch counts the same, however many pixels of it
    #: have a label.
    accumulation: int = Field(default=1, ge=1)
    #: AdamW: the highest learning rate, and the decay of weights.
    learning_rate: float = Field(default=6e-5, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    #: Changes of weights over which the learning rate rises in a straight line from `warm_up_start` times the highest.
    warm_up: int = Field(default=1000, ge=0)
    warm_up_start: float = Field(default=0.01, gt=0, le=1)
    #: The learning rate that the cosine falls to.
    last_learning_rate: float = Field(default=6e-6, ge=0)
    #: Numbers of the forward pass; weights, loss and optimiser stay float32.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    #: Compute transformer blocks again in the backward pass instead of keeping them: less memory, a third more time.
    checkpointing: bool = False
    #: Compile the model. A resumed run is then the same only up to rounding.
    compile: bool = False
    #: Of start values, order of samples, augmentation and stochastic depth.
    seed: int = 0

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
    """A model in training: `step` takes a batch, `save` and `load` stop and go on."""

    def __init__(
        self, model: CropModel, settings: TrainingSettings, updates: int, device: torch.device | str = "cpu"
    ) -> None:
        """model: is moved to the device and put into training mode. updates: changes of weights of the whole training.

        Seeds PyTorch's own random numbers, which stochastic depth draws from, with `settings.seed`.
        """
        self.settings = settings
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
        #: Batches that were seen, and changes of weights.
        self.batches = 0
        self.done = 0
        self.pending = 0
        torch.manual_seed(settings.seed)

    def step(self, batch: Mapping[str, Any]) -> Tensor:
        """Add a batch's gradients, and change weights after every `accumulation` batches; gives the loss.

        batch: on the device, as `BatchTransforms` gives it, with `s2`, `label` and what the model sees besides.
        The loss is a scalar float32 on the device, detached: the sum of the tiers (`hierarchical_loss`).
        Raises ModelError where the loss is not finite; the weights are then those before the batch.
        """
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.forward(**inputs_of(self.model, batch))
        loss = hierarchical_loss(logits, batch["label"])
        if not torch.isfinite(loss):
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
        """Change weights by the gradients so far, also those of fewer batches than `accumulation`; nothing without."""
        if not self.pending:
            return
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate_at(self.done, self.updates)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1
        self.pending = 0

    def save(self, path: Path) -> None:
        """Write everything that going on needs into a file, which is replaced whole.

        Raises UsageError between batches whose gradients are still to be used, ModelError where it cannot be written.
        """
        if self.pending:
            raise UsageError("a training is saved after an update: call update() before save()")
        state = {
            "settings": self.settings.model_dump(),
            "updates": self.updates,
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

    def load(self, path: Path) -> None:
        """Go on as if the training that was saved had not stopped.

        Raises ModelError for a damaged file, UsageError for one of a training with other settings or another model.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            settings = TrainingSettings.model_validate(state["settings"])
            same = (settings, state["updates"]) == (self.settings, self.updates)
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise ModelError(f"cannot read {path}: {error}; remove it to begin again") from error
        if not same:
            raise UsageError(f"{path} is of a training with other settings or samples; choose another folder")
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"{path} is of another model: {error}") from error
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


def generator_of(*numbers: int) -> torch.Generator:
    """A generator of random numbers that depends on these alone."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def batches_of_epoch(samples: int, settings: TrainingSettings, epoch: int) -> list[list[int]]:
    """The samples of each batch of an epoch (0-based), in an order of its own; the last batch may be smaller."""
    order = torch.randperm(samples, generator=generator_of(settings.seed, epoch)).tolist()
    return [order[start : start + settings.batch_size] for start in range(0, samples, settings.batch_size)]


def updates_of(samples: int, settings: TrainingSettings) -> int:
    """Changes of weights in a training on so many samples."""
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
    every batch.
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
    places: Mapping[str, SamplePlace],
    *,
    batch_size: int = 4,
    workers: int = 0,
    progress: Progress = silent,
) -> EvaluationReport:
    """Metrics of a model on the samples of a dataset (docs/evaluation.md); the model's mode stays as it was.

    places: season and split square of the samples, as `sample_places` gives them.
    Raises UsageError for a model of other classes than those of the dataset's store.
    """
    check_taxonomy(model.config, dataset.store)
    device = next(model.parameters()).device
    evaluation = Evaluation(tiers=model.config.tiers)
    training = model.training
    model.eval()
    batches = [
        list(range(start, min(start + batch_size, len(dataset)))) for start in range(0, len(dataset), batch_size)
    ]
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
    model.train(training)
    return evaluation.report()


def metrics_table(report: EvaluationReport) -> str:
    """The figures of an evaluation in lines of text, in per cent with their intervals."""

    def cell(value: float | None, interval: tuple[float, float] | None = None) -> str:
        if value is None:
            return "-"
        return f"{100 * value:.1f}" + (
            "" if interval is None else f" ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"
        )

    table = Table(title=f"{report.samples} samples in {report.squares} split squares, per cent", title_justify="left")
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
    enmap: Annotated[bool, Option(help="Whether the model sees EnMAP.")] = True,
    prior: Annotated[bool, Option(help="Whether the model sees the crops of the year before.")] = True,
    precision: Annotated[str, Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, Option(help="cpu, cuda, cuda:1.")] = "cuda" if torch.cuda.is_available() else "cpu",
    workers: Annotated[int, Option(help="Processes that read ahead; 0: none.")] = 0,
    seed: Annotated[int, Option(help="Of start values, order, augmentation.")] = 0,
    out: Annotated[Path | None, Option(help="Folder for the model, its state and metrics; goes on there.")] = None,
    save_every: Annotated[int, Option(help="Changes of weights after which the state is saved.")] = 100,
    as_json: Annotated[bool, Option("--json", help="Metrics as JSON.")] = False,
) -> None:
    """Train a model on the split `train` of a store, evaluate it on `val`, print metrics."""
    try:
        chosen: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "precision": precision, "seed": seed}
        settings = TrainingSettings.small(**chosen) if config == "small" else TrainingSettings(**chosen)
        report = train(
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
    except (H2cropError, ValidationError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2 if isinstance(error, UsageError | ValidationError) else 1) from error
    sys.stdout.write(report.model_dump_json(indent=1) + "\n" if as_json else metrics_table(report))


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
) -> EvaluationReport:
    """Train on the split `train` of a store and evaluate on `val` (on `train` itself where the store has no `val`).

    out: folder for `state.pt`, which an interrupted training goes on from, `model` (`CropModel.from_pretrained`) and
    `metrics.json`. Raises H2cropError.
    """
    has_enmap = enmap and load_root(store)["attributes"]["layout"]["enmap_bands"] > 0
    arrays = ["s2", "label", "prior", "parcel", *(["enmap"] if has_enmap else [])]
    dataset = CropSamples(store, split="train", until=until, arrays=arrays)
    config = config_for_store(store, sizes, months=dataset.months, enmap=has_enmap, prior=prior)
    torch.manual_seed(settings.seed)
    trainer = Trainer(CropModel(config), settings, updates_of(len(dataset), settings), device)
    write_line(
        f"{len(dataset)} training samples of {dataset.months} months; {dataset.left_out} of later scenes left out"
    )
    state = None if out is None else out / "state.pt"
    if state is not None:
        state.parent.mkdir(parents=True, exist_ok=True)
        if state.exists():
            trainer.load(state)
            write_line(f"going on after {trainer.batches} batches")
    transforms = BatchTransforms.for_store(store, augmentation=Augmentation())
    while trainer.done < trainer.updates:
        train_epoch(trainer, dataset, transforms, workers=workers, checkpoint=state, every=save_every, progress=Lines())
    try:
        split, judged = "val", CropSamples(store, split="val", until=until, arrays=arrays)
    except StoreError as error:
        write_line(f"{error}: the metrics are those of the training samples themselves")
        split, judged = "train", dataset
    report = evaluate(
        trainer.model,
        judged,
        BatchTransforms.for_store(store),
        sample_places(store, split),
        batch_size=settings.batch_size,
        workers=workers,
        progress=Lines(),
    )
    if out is not None:
        trainer.model.save_pretrained(out / "model")
        (out / "metrics.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return report


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
