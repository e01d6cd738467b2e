"""The benchmark of the model on a GPU: its search, its budget, and the whole of it on tiny sizes without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_model.py"
#: What machines with a GPU may lack.
ABSENT = ("pydantic", "safetensors", "pandas", "pyarrow", "xarray", "typer", "rich", "h5py", "zarr", "fsspec")


def loaded() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu_model", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BENCHMARK = loaded()


@given(capacity=st.integers(0, 600), start=st.integers(1, 64), limit=st.integers(1, 512))
def test_the_largest_batch_is_found_within_an_eighth(capacity: int, start: int, limit: int) -> None:
    tried: list[int] = []

    def fit(size: int) -> bool:
        tried.append(size)
        return size <= capacity

    found = BENCHMARK.largest_batch(fit, start, limit)
    truth = min(capacity, limit)
    assert found <= truth
    assert truth - found < max(1, found / 8)
    assert not tried or 1 <= min(tried) <= max(tried) <= limit
    assert len(tried) == len(set(tried)) <= 20


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")])
def test_a_step_without_memory_does_not_fit_and_leaves_no_gradients(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BENCHMARK.configuration(small=True)
    training = BENCHMARK.Training(BENCHMARK.VARIANTS[2], BENCHMARK.CropModel(config), "cpu", "eager")
    assert BENCHMARK.fits(training, config, 1)

    def fails(batch: Any) -> float:
        training.step(batch)
        raise error

    monkeypatch.setattr(training, "seconds", fails)
    assert not BENCHMARK.fits(training, config, 1)
    assert all(weight.grad is None for group in training.optimiser.param_groups for weight in group["params"])
    assert str(error) in capsys.readouterr().out


def sleep() -> dict[str, Any]:
    time.sleep(60)
    return {"ms": 1}


def fail() -> dict[str, Any]:
    raise torch.OutOfMemoryError("tried to allocate 9 GiB\nmore")


def test_figures_are_kept_and_what_fails_is_named() -> None:
    budget = BENCHMARK.Budget(60)
    assert BENCHMARK.in_time(budget, "cpu", "kept", lambda: {"ms": 1}) == {"ms": 1}
    assert BENCHMARK.in_time(budget, "cpu", "failed", fail) == {
        "not_measured": "OutOfMemoryError: tried to allocate 9 GiB"
    }


def test_what_takes_too_long_is_stopped_and_nothing_more_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BENCHMARK, "LEAST_LEFT", 0.05)
    budget = BENCHMARK.Budget(1)
    assert "it took longer than the" in BENCHMARK.in_time(budget, "cpu", "stopped", sleep)["not_measured"]
    assert BENCHMARK.in_time(budget, "cpu", "not begun", sleep) == {"not_measured": "0 s of 1 s were left"}
    assert budget.used < 30


def test_without_cuda_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    assert BENCHMARK.main() == 2
    assert capsys.readouterr().out == "no CUDA device: not measured\n"


def test_all_of_it_runs_on_tiny_sizes_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT!r})); runpy.run_path(sys.argv.pop(1), None, "
    code += "'__main__')"
    options = ["--device", "cpu", "--small", "--batch", "1", "--limit", "2", "--repeats", "2", "--budget", "50"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT), *options, "--out", str(tmp_path / "results" / "cpu.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures == json.loads((tmp_path / "results" / "cpu.json").read_text(encoding="utf-8"))
    assert figures["device"] == "cpu"
    assert figures["torch"] == torch.__version__
    assert figures["normalise"]["ms"] > 0
    variants = figures["variants"]
    assert list(variants) == [
        *("eager float32", "eager autocast", "ours float32", "ours bf16"),
        *("ours bf16 checkpointing", "ours bf16 compiled"),
    ]
    judge = variants["eager float32"]["batch"]
    assert judge["steps"] == 2
    for name, of_variant in variants.items():
        for kind, size in (("batch", 1), ("largest", 2)):
            run = of_variant[kind]
            # A busy machine may not reach the last ones in time; then the reason is stated.
            if "not_measured" in run:
                assert "left" in run["not_measured"] or "no batch is known" in run["not_measured"], name
                continue
            assert run["batch"] == size
            assert run["samples_per_s"] == pytest.approx(1e3 * size / run["ms_per_step"], rel=1e-2)
            assert run["peak_mb"] is None
        batch = of_variant["batch"]
        if "not_measured" not in batch:
            assert batch["first_loss"] == pytest.approx(judge["first_loss"], rel=1e-3 if "bf16" in name else 1e-5)
            ratio = batch["ms_per_step"] / judge["ms_per_step"]
            assert batch["time_vs_eager_float32"] == pytest.approx(ratio, abs=1e-3)
