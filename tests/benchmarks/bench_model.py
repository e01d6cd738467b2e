"""The model's forward and backward pass against a plain eager float32 one: time and peak memory.

    python tests/benchmarks/bench_model.py [--full] [--months 6] [--batch 1] [--repeats 5] [--threads 1]

One training step without the optimiser, float32, all four tiers with EnMAP and prior, on the GPU where there is one.
The plain model (tests/makers/plain_model.py) computes the same logits from the same weights, with attention as
softmax(Q K^T) V; its masks and tables of positions are made once, as ours are. Both take turns in one process; the
ratio of times is the median of the ratios of each turn. Memory is that of a process of its own for each: the peak
resident size, PyTorch and weights included, on a GPU what PyTorch allocated. The default is `ModelConfig.small`.

The last line is one JSON object:

- vs_eager_float32: our time / the plain model's (target at most 1)
- peak_mb, eager_peak_mb, checkpointing_peak_mb: of ours (target: less than eager), plain, and ours with checkpointing
- seconds, eager_seconds, checkpointing_seconds: medians a step
- normalise_ms, plain_normalise_ms: a sample of 12 months and EnMAP (10.9 MB as stored) in one pass, and in plain torch
- device, parameters, threads
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from bench_store import peak_memory
from torch import Tensor

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.training.model import CropModel, ModelConfig, to_published
from h2crop_data.training.normalisation import normalise

sys.path.append(str(Path(__file__).resolve().parents[1] / "makers"))
from plain_model import PlainSizes, plain_logits

VARIANTS = ("ours", "eager", "checkpointing")
#: Frames that each patch merging averages, by months.
STEPS = {6: (2, 2, 1), 8: (2, 2, 1), 10: (2, 2, 2), 12: (2, 2, 2)}

Step = Callable[[], dict[int, Tensor]]


def configuration(full: bool, months: int) -> ModelConfig:
    """Without stochastic depth, so that both compute the same."""
    config = ModelConfig.published(months) if full else ModelConfig.small(months)
    return replace(config, sentinel2=replace(config.sentinel2, stochastic_depth=0.0))


def steps(config: ModelConfig, batch: int, device: str, variants: tuple[str, ...]) -> dict[str, Step]:
    """A forward and backward pass of each variant, over the same weights and inputs."""
    torch.manual_seed(0)
    model = CropModel(config).to(device)
    side = config.patch
    inputs = {
        "s2": torch.randn(batch, config.months, 10, side, side, device=device),
        "enmap": torch.randn(batch, 218, side // 3, side // 3, device=device),
        "prior": torch.randint(0, 7, (batch, 4, side, side), device=device),
    }
    assert config.enmap
    sizes = PlainSizes(
        steps=STEPS[config.months],
        spatial_heads=config.enmap.spatial.heads,
        spectral_heads=config.enmap.spectral.heads,
        cell=config.enmap.cell,
        training=True,
    )
    weights: dict[str, Tensor] = {}
    if "eager" in variants:
        for key, tensor in to_published(model).items():
            own = tensor.clone() if len(variants) > 1 else tensor
            weights[key] = own.requires_grad_(own.is_floating_point() and "running" not in key)

    def ours(checkpointing: bool) -> dict[int, Tensor]:
        model.checkpointing = checkpointing
        return backward(model(**inputs))

    known: dict[str, Step] = {
        "ours": lambda: ours(False),
        "eager": lambda: backward(plain_logits(weights, sizes, **inputs)),
        "checkpointing": lambda: ours(True),
    }
    return {name: known[name] for name in variants}


def backward(logits: dict[int, Tensor]) -> dict[int, Tensor]:
    """Gradients of a loss of all tiers, added to what is there, as a training step does."""
    torch.stack([values.square().mean() for values in logits.values()]).sum().backward()
    return {tier: values.detach() for tier, values in logits.items()}


def seconds(step: Step, device: str) -> float:
    """Of one step."""
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mb(step: Step, device: str) -> float:
    """Of this process, after two steps."""
    step()
    step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return peak_memory() / 1e6


def normalise_ms(device: str, repeats: int) -> tuple[float, float]:
    """Milliseconds to normalise a sample, in one pass and in plain torch, taking turns; both give the same."""
    generator = torch.Generator().manual_seed(0)
    stored = {"s2": (12, 10, 192, 192), "enmap": (218, 64, 64)}
    arrays = {
        name: torch.randint(-200, 9000, shape, generator=generator).to(torch.int16).to(device)
        for name, shape in stored.items()
    }
    figures = {
        name: (torch.full((shape[-3],), 2000.0), torch.full((shape[-3],), 900.0)) for name, shape in stored.items()
    }

    def plain(values: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
        """As anybody would write it."""
        numbers = values.float()
        scaled = (numbers - mean.to(device)[:, None, None]) / sd.to(device)[:, None, None]
        return torch.where(values == REFLECTANCE_FILL, 0.0, scaled)

    for values in arrays.values():
        values[..., :3] = REFLECTANCE_FILL
    for name, values in arrays.items():
        torch.testing.assert_close(normalise(values, *figures[name]), plain(values, *figures[name]))
    turns = [
        [
            1000
            * seconds(lambda way=way: {name: way(values, *figures[name]) for name, values in arrays.items()}, device)
            for way in (normalise, plain)
        ]
        for _ in range(max(5, repeats))
    ]
    ours, others = zip(*turns, strict=True)
    return statistics.median(ours), statistics.median(others)


def measure(arguments: argparse.Namespace, device: str) -> dict[str, float | int | str]:
    """All figures."""
    config = configuration(arguments.full, arguments.months)
    variants = steps(config, arguments.batch, device, VARIANTS)
    results = {name: step() for name, step in variants.items()}  # this warms up, too
    for name, logits in results.items():
        for tier, values in logits.items():
            torch.testing.assert_close(values, results["eager"][tier], rtol=0, atol=1e-4, msg=f"{name}, tier {tier}")
    del results
    turns = [{name: seconds(step, device) for name, step in variants.items()} for _ in range(arguments.repeats)]
    medians = {name: statistics.median(turn[name] for turn in turns) for name in VARIANTS}
    del variants
    peaks = {}
    for name in VARIANTS:
        command = [sys.executable, __file__, "--peak-of", name, f"--months={arguments.months}"]
        command += [f"--batch={arguments.batch}", f"--threads={arguments.threads}", *["--full"] * arguments.full]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks[name] = float(printed)
        print(f"{name:14s} {medians[name]:7.3f} s a step, peak {peaks[name]:7.0f} MB")
    ours, plain = normalise_ms(device, arguments.repeats)
    return {
        "vs_eager_float32": round(statistics.median(turn["ours"] / turn["eager"] for turn in turns), 3),
        "peak_mb": round(peaks["ours"]),
        "eager_peak_mb": round(peaks["eager"]),
        "checkpointing_peak_mb": round(peaks["checkpointing"]),
        "seconds": round(medians["ours"], 3),
        "eager_seconds": round(medians["eager"], 3),
        "checkpointing_seconds": round(medians["checkpointing"], 3),
        "normalise_ms": round(ours, 1),
        "plain_normalise_ms": round(plain, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "parameters": sum(parameter.numel() for parameter in CropModel(config).parameters()),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the published sizes; the plain model needs 12 GB a sample")
    parser.add_argument("--months", type=int, default=6, choices=STEPS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="more of them wait for each other on a busy machine")
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.peak_of:
        config = configuration(arguments.full, arguments.months)
        step = steps(config, arguments.batch, device, (arguments.peak_of,))[arguments.peak_of]
        print(peak_mb(step, device))
        return
    print(json.dumps(measure(arguments, device)))


if __name__ == "__main__":
    main()
