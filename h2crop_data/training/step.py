"""The command that trains: `python -m h2crop_data.training.step STORE --config small` trains an epoch, prints metrics.

A step itself is `Trainer.step` (trainer.py), an epoch `train_epoch` (epochs.py), a whole training `train` (run.py).
"""

from __future__ import annotations

import io
import math
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from typer import Argument, Option, run

from h2crop_data.errors import H2cropError, UsageError
from h2crop_data.training.evaluation import EvaluationReport
from h2crop_data.training.fitting import Sizes
from h2crop_data.training.run import TrainingReport, as_json, train
from h2crop_data.training.settings import Precision, TrainingSettings

#: Seconds between two lines of progress.
SECONDS_BETWEEN_LINES = 5.0


def main(
    store: Annotated[str, Argument(help="Folder or URL of a store.")],
    config: Annotated[Sizes, Option(help="Size of the model.")] = "small",
    until: Annotated[
        str | None, Option(help="Last day whose data the model sees, such as 06-30 or 2022-06-30.")
    ] = None,
    epochs: Annotated[int, Option(help="Number of passes over all samples.")] = 1,
    batch_size: Annotated[int, Option(help="Samples in a batch.")] = 4,
    accumulation: Annotated[int, Option(help="Number of batches whose gradients are averaged for one update.")] = 1,
    learning_rate: Annotated[float | None, Option(help="Maximum learning rate; it falls to a tenth.")] = None,
    enmap: Annotated[bool, Option(help="Whether the model sees EnMAP.")] = True,
    enmap_optional: Annotated[
        bool, Option("--enmap-optional", help="Use a learned token instead of EnMAP in samples without it.")
    ] = False,
    prior: Annotated[bool, Option(help="Whether the model sees the crops of the year before.")] = True,
    augment: Annotated[bool, Option(help="Flip, turn and mix samples at random.")] = True,
    precision: Annotated[Precision, Option(help="Data type of the forward pass.")] = "float32",
    checkpointing: Annotated[bool, Option(help="Compute blocks again in the backward pass, to save memory.")] = False,
    compiled: Annotated[bool, Option("--compile", help="Compile the model.")] = False,
    device: Annotated[str, Option(help="cpu, cuda, cuda:1.")] = "cuda" if torch.cuda.is_available() else "cpu",
    workers: Annotated[int, Option(help="Number of processes that read ahead; 0: none.")] = 0,
    seed: Annotated[int, Option(help="Seed of initial weights, order and augmentation.")] = 0,
    out: Annotated[
        Path | None,
        Option(help="Folder for the model, its state and metrics; an interrupted training is resumed there."),
    ] = None,
    save_every: Annotated[int, Option(help="Number of updates after which the state is saved.")] = 100,
    json_wanted: Annotated[bool, Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train a model on the split `train` of a store, judge every epoch on `val`, print the metrics of the best."""
    try:
        chosen: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "accumulation": accumulation,
            "precision": precision,
            "checkpointing": checkpointing,
            "compile": compiled,
            "augment": augment,
            "seed": seed,
        }
        if learning_rate is not None:
            chosen |= {"learning_rate": learning_rate, "last_learning_rate": learning_rate / 10}
        settings = TrainingSettings.small(**chosen) if config == "small" else TrainingSettings(**chosen)
        report = train(
            store,
            settings,
            config,
            until=until,
            enmap=enmap,
            enmap_optional=enmap_optional,
            prior=prior,
            device=device,
            workers=workers,
            out=out,
            save_every=save_every,
            say=write_line,
            progress=Lines(),
        )
    except ValidationError as error:
        for problem in error.errors():
            write_line(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}")
        raise SystemExit(2) from error
    except H2cropError as error:
        write_line(str(error))
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from error
    sys.stdout.write(as_json(report) if json_wanted else report_text(report))


def report_text(report: TrainingReport) -> str:
    """The metrics of a training in lines of text, and whose they are."""
    epochs = len(report.epochs)
    which = f"epoch {report.epoch}" + (f", the best of {epochs} by published mean F1" if epochs > 1 else "")
    return f"{metrics_table(report.metrics, report.split)}weights of {which}\n"


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
