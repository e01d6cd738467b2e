"""Training steps of the published model on one GPU: time, memory and the largest batch, against plain eager ones.

    python tests/benchmarks/gpu_model.py [--out FILE] [--batch 4] [--budget 450]
    python tests/benchmarks/gpu_model.py --device cpu --small      # the same code on tiny sizes, to try it

Needs PyTorch, numpy and this checkout on PYTHONPATH, nothing else; the data are random numbers. A step is forward pass,
loss, backward pass and AdamW, of 6 months with EnMAP and prior, stochastic depth off. Variants:

- `eager float32`, `eager autocast`: the plain model (tests/makers/plain_model.py), attention as softmax(Q K^T) V
- `ours float32`, `ours bf16` (autocast), `ours bf16 checkpointing`, `ours bf16 compiled` (torch.compile)

Each starts from the same weights, so losses of first steps must agree. The largest batch is found by doubling, then by
bisection to within an eighth. A budget of seconds bounds the run: what it leaves no time for, and what fails, has
`not_measured`, with the reason, in place of figures. Without CUDA: one line, and exit code 2.

The last line is one JSON object (`--out` writes it too):

- device, torch, cuda, numpy, tf32, parameters, budget_s, wall_s
- variants: name -> `batch` (steps of --batch samples) and `largest` (of the largest batch): batch, ms_per_step
  (median), steps, samples_per_s, peak_mb (torch.cuda.max_memory_allocated: weights, optimiser and activations),
  first_step_s (compiling included), first_loss; `batch` also has time_vs_eager_float32 and time_vs_eager_autocast
  (below 1 is faster), `largest` the same of samples_per_s as throughput_vs_... (above 1 is faster)
- normalise: ms, batch, and bytes read and written a second, of both images of a batch on the device
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from h2crop_data.constants import UNKNOWN
from h2crop_data.training.losses import hierarchical_loss
from h2crop_data.training.model import CropModel, ModelConfig, SwinConfig, to_published
from h2crop_data.training.model.published import unused_weights
from h2crop_data.training.normalisation import Normalisation, normalise

sys.path.append(str(Path(__file__).resolve().parents[1] / "makers"))
import plain_model

MONTHS = 6
#: Frames that each patch merging averages at 6 months.
STEPS = (2, 2, 1)
#: Steps before the clock runs.
WARM_UP = 2
#: No measurement is begun with less time left, in seconds.
LEAST_LEFT = 5.0
#: Part of the budget that compiling, or one search for the largest batch, may take.
LARGEST_SHARE = 0.35
#: What is measured against.
BASES = {"vs_eager_float32": "eager float32", "vs_eager_autocast": "eager autocast"}
#: Sizes to try the script with.
TINY = SwinConfig(width=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), stochastic_depth=0.0)

Figures = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A way to compute a step."""

    name: str
    plain: bool = False
    autocast: bool = False
    checkpointing: bool = False
    compiled: bool = False


#: In the order of measuring at the batch that is given.
VARIANTS = (
    Variant("eager float32", plain=True),
    Variant("eager autocast", plain=True, autocast=True),
    Variant("ours float32"),
    Variant("ours bf16", autocast=True),
    Variant("ours bf16 checkpointing", autocast=True, checkpointing=True),
    Variant("ours bf16 compiled", autocast=True, compiled=True),
)
#: Order of measuring at the largest batch, what matters most first. The compiled model takes that of `ours bf16`.
LARGEST_ORDER = (3, 1, 4, 2, 0, 5)


class OutOfTime(BaseException):
    """The time of a measurement is over. No Exception, so that nothing in between catches it."""


class Budget:
    """The seconds that are left of a run."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.monotonic()

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.seconds - self.used

    @contextmanager
    def limited(self, share: float = 1.0) -> Iterator[None]:
        """Raises OutOfTime in what runs longer than what is left, or than a share of the whole budget."""
        seconds = min(self.left, share * self.seconds)
        if seconds < LEAST_LEFT:
            raise OutOfTime(f"{max(0.0, self.left):.0f} s of {self.seconds:.0f} s were left")

        def over(*_: object) -> None:
            raise OutOfTime(f"it took longer than the {seconds:.0f} s that were left for it")

        before = signal.signal(signal.SIGALRM, over)
        # Again every second, as an exception is lost where Python calls back, such as in a destructor.
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


class Training:
    """A model with its optimiser; `step` is one step on a batch."""

    def __init__(self, variant: Variant, start: CropModel, device: str, backend: str) -> None:
        """start: the weights to start from, which are copied. backend: of torch.compile."""
        self.device = device
        self.autocast = variant.autocast
        model = copy.deepcopy(start).to(device).train()
        self.forward: Callable[..., dict[int, Tensor]] = model
        parameters = list(model.parameters())
        if variant.plain:
            weights = plain_weights(model)
            parameters = [weight for weight in weights.values() if weight.requires_grad]
            sizes = plain_sizes(start.config)
            self.forward = lambda **inputs: plain_model.plain_logits(weights, sizes, **inputs)
        elif variant.compiled:
            self.forward = torch.compile(model, backend=backend, dynamic=False)
        model.checkpointing = variant.checkpointing
        self.optimiser = torch.optim.AdamW(parameters, lr=6e-5, weight_decay=5e-4)

    def step(self, batch: dict[str, Tensor]) -> Tensor:
        """One step. batch: as `batch_of` gives it. Returns the loss."""
        inputs = {name: values for name, values in batch.items() if name != "label"}
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            logits = self.forward(**inputs)
        loss = hierarchical_loss(logits, batch["label"])
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def seconds(self, batch: dict[str, Tensor]) -> tuple[float, float]:
        """Seconds and loss of a step."""
        synchronise(self.device)
        start = time.perf_counter()
        loss = self.step(batch)
        synchronise(self.device)
        return time.perf_counter() - start, float(loss)


def plain_weights(model: CropModel) -> dict[str, Tensor]:
    """The weights that the plain model uses, each a leaf of its own with a gradient where ours has one."""
    unused = unused_weights(model.config)
    weights = {key: tensor.detach().clone() for key, tensor in to_published(model).items() if key not in unused}
    for key, tensor in weights.items():
        tensor.requires_grad_(tensor.is_floating_point() and "running" not in key)
    return weights


def plain_sizes(config: ModelConfig) -> plain_model.PlainSizes:
    """What the plain model must know of a configuration."""
    assert config.enmap
    return plain_model.PlainSizes(
        steps=STEPS,
        spatial_heads=config.enmap.spatial.heads,
        spectral_heads=config.enmap.spectral.heads,
        cell=config.enmap.cell,
        training=True,
    )


def keep_tables_on(device: str) -> None:
    """Let the plain model keep its masks and positions on the device: copying them at each step is not its method."""
    for name in ("region_mask", "sinusoids"):
        made = getattr(plain_model, name)
        setattr(plain_model, name, cache(lambda *sizes, made=made: made(*sizes).to(device)))


def batch_of(config: ModelConfig, size: int, device: str) -> dict[str, Tensor]:
    """Random inputs and labels: images normal, classes of each tier with a tenth unknown."""
    assert config.enmap
    generator = torch.Generator(device).manual_seed(1)
    side, coarse = config.patch, config.coarse

    def classes() -> Tensor:
        shape = (size, 1, side, side)
        of_tiers = [
            torch.randint(0, config.classes[tier] + 1, shape, generator=generator, device=device)
            for tier in config.tiers
        ]
        unknown = torch.rand(shape, generator=generator, device=device) < 0.1
        return torch.cat(of_tiers, 1).masked_fill(unknown, UNKNOWN)

    return {
        "s2": torch.randn(size, config.months, 10, side, side, generator=generator, device=device),
        "enmap": torch.randn(size, config.enmap.bands, coarse, coarse, generator=generator, device=device),
        "prior": classes(),
        "label": classes(),
    }


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def free_memory(device: str) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def measure(training: Training, config: ModelConfig, size: int, repeats: int, budget: Budget) -> Figures:
    """Figures of steps on a batch of a size: so many, or fewer where there is no time for all."""
    free_memory(training.device)
    batch = batch_of(config, size, training.device)
    first, first_loss = training.seconds(batch)
    for _ in range(WARM_UP):
        training.seconds(batch)
    if training.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = [training.seconds(batch)[0]]
    while len(times) < repeats and budget.left > 2 * times[-1] + LEAST_LEFT:
        times.append(training.seconds(batch)[0])
    median = statistics.median(times)
    return {
        "batch": size,
        "ms_per_step": round(1e3 * median, 2),
        "steps": len(times),
        "samples_per_s": round(size / median, 3),
        "peak_mb": round(torch.cuda.max_memory_allocated() / 1e6) if training.device == "cuda" else None,
        "first_step_s": round(first, 2),
        "first_loss": round(first_loss, 5),
    }


def fits(training: Training, config: ModelConfig, size: int) -> bool:
    """Whether a step on a batch of a size works; where it does not, that is mostly for want of memory."""
    problem = ""
    try:
        training.seconds(batch_of(config, size, training.device))
    except RuntimeError as error:  # libraries that get no memory do not all raise OutOfMemoryError
        problem = first_line(error)
    # Outside of `except`: the error refers to the tensors of the step that failed.
    training.optimiser.zero_grad(set_to_none=True)
    free_memory(training.device)
    print(f"          batch {size}: {problem or 'fits'}", flush=True)
    return not problem


def first_line(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0][:200]}"


def largest_batch(fit: Callable[[int], bool], start: int, limit: int) -> int:
    """The largest batch that fits, up to a limit, within an eighth of itself; 0 if not even 1 does.

    Doubles from `start` while batches fit (or halves until one does), then halves the interval in between.
    """
    size, too_large = min(start, limit), limit + 1
    while size and not fit(size):
        size, too_large = size // 2, size
    while size and size < limit and too_large > limit:
        larger = min(2 * size, limit)
        if fit(larger):
            size = larger
        else:
            too_large = larger
    while size and too_large <= limit and too_large - size > max(1, size // 8):
        middle = (size + too_large) // 2
        if fit(middle):
            size = middle
        else:
            too_large = middle
    return size


def in_time(budget: Budget, device: str, what: str, run: Callable[[], Figures], share: float = 1.0) -> Figures:
    """The figures of a measurement, or `not_measured` with the reason."""
    try:
        with budget.limited(share):
            figures = run()
    except OutOfTime as error:
        figures = {"not_measured": str(error)}
    except (RuntimeError, OSError, ImportError) as error:  # the last two where a compiler is missing
        figures = {"not_measured": first_line(error)}
    free_memory(device)
    print(f"{budget.used:6.1f} s  {what}: {json.dumps(figures)}", flush=True)
    return figures


def measure_normalising(config: ModelConfig, size: int, repeats: int, device: str) -> Figures:
    """Milliseconds of normalising the stored images of a batch, on the device."""
    assert config.enmap
    shapes = {
        "s2": (size, config.months, 10, config.patch, config.patch),
        "enmap": (size, config.enmap.bands, config.coarse, config.coarse),
    }
    published = Normalisation.published()
    stored = {name: torch.randint(0, 6000, shape, dtype=torch.int16, device=device) for name, shape in shapes.items()}
    figures = {name: tuple(each.to(device) for each in published.in_stored_numbers(name)) for name in stored}
    times = []
    for _ in range(WARM_UP + repeats):
        synchronise(device)
        start = time.perf_counter()
        for name, numbers in stored.items():
            normalise(numbers, *figures[name])
        synchronise(device)
        times.append(time.perf_counter() - start)
    median = statistics.median(times[WARM_UP:])
    # int16 is read, float32 written.
    moved = sum(numbers.numel() for numbers in stored.values()) * (2 + 4)
    return {"batch": size, "ms": round(1e3 * median, 3), "gb_per_s": round(moved / median / 1e9, 2)}


def add_ratios(variants: dict[str, dict[str, Figures]]) -> None:
    """Add to the figures what they are against the plain model's, where both were measured."""
    for kind, figure, name in (("batch", "ms_per_step", "time"), ("largest", "samples_per_s", "throughput")):
        for ratio, base in BASES.items():
            against = variants[base][kind].get(figure)
            for of_variant in variants.values():
                if against and figure in of_variant[kind]:
                    of_variant[kind][f"{name}_{ratio}"] = round(of_variant[kind][figure] / against, 3)


def configuration(small: bool) -> ModelConfig:
    """Without stochastic depth, so that all variants compute the same."""
    if small:
        return ModelConfig.small(MONTHS, patch=48, sentinel2=TINY)
    config = ModelConfig.published(MONTHS)
    return replace(config, sentinel2=replace(config.sentinel2, stochastic_depth=0.0))


def measure_all(arguments: argparse.Namespace, budget: Budget) -> Figures:
    """Everything that there is time for."""
    device, size, repeats = arguments.device, arguments.batch, arguments.repeats
    config = configuration(arguments.small)
    backend = "eager" if arguments.small else "inductor"
    limit = arguments.limit or (3 if arguments.small else 512)
    torch.manual_seed(0)
    start = CropModel(config)
    keep_tables_on(device)
    print(f"{budget.used:6.1f} s  the model is made", flush=True)

    def steps(variant: Variant, batch: int) -> Figures:
        try:
            return measure(Training(variant, start, device, backend), config, batch, repeats, budget)
        finally:
            if variant.compiled:
                torch.compiler.reset()

    def found(variant: Variant) -> int:
        training = Training(variant, start, device, backend)
        return largest_batch(lambda batch: fits(training, config, batch), size, limit)

    def at_largest(variant: Variant) -> Figures:
        batch = results["ours bf16"]["largest"].get("batch", 0) if variant.compiled else found(variant)
        free_memory(device)
        return steps(variant, batch) if batch else {"not_measured": "no batch is known to fit"}

    normalising = in_time(budget, device, "normalise", lambda: measure_normalising(config, size, repeats, device))
    results: dict[str, dict[str, Figures]] = {variant.name: {} for variant in VARIANTS}
    for variant in VARIANTS:
        run = partial(steps, variant, size)
        share = LARGEST_SHARE if variant.compiled else 1.0
        results[variant.name]["batch"] = in_time(budget, device, variant.name, run, share)
    for variant in (VARIANTS[place] for place in LARGEST_ORDER):
        title = f"{variant.name}, largest batch"
        results[variant.name]["largest"] = in_time(budget, device, title, partial(at_largest, variant), LARGEST_SHARE)
    add_ratios(results)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolutions": torch.backends.cudnn.allow_tf32,
        },
        "model": "small, for trying the script" if arguments.small else f"published, {MONTHS} months, EnMAP, prior",
        "parameters": sum(parameter.numel() for parameter in start.parameters()),
        "compile_backend": backend,
        "budget_s": budget.seconds,
        "wall_s": round(budget.used, 1),
        "variants": results,
        "normalise": normalising,
    }


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the JSON object, such as tests/benchmarks/results/NAME.json")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--limit", type=int, help="the largest batch that is tried; 512, 3 with --small")
    parser.add_argument("--repeats", type=int, default=10, help="steps that are timed")
    parser.add_argument("--budget", type=float, default=450, help="seconds; starting Python and CUDA comes on top")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes; nothing is compiled to machine code")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: not measured")
        return 2
    figures = measure_all(arguments, Budget(arguments.budget))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
