"""The training command: its metrics, and a training that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from made_stores import MadeStore, make_training_store

from h2crop_data.training.model import CropModel


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """A store of patches of 24 pixels in three splits; not to be changed."""
    return make_training_store(tmp_path_factory.mktemp("made") / "store")


def command(made: MadeStore, out: Path, *more: str) -> list[str]:
    """The command line of a training with a state saved after every update."""
    options = ["--batch-size", "1", "--epochs", "3", "--until", "07-31", "--device", "cpu", "--save-every", "1"]
    return [sys.executable, "-m", "h2crop_data.training.step", str(made.folder), "--out", str(out), *options, *more]


def test_a_training_that_is_killed_goes_on_to_the_same_weights(made: MadeStore, tmp_path: Path) -> None:
    whole = subprocess.run(command(made, tmp_path / "whole"), capture_output=True, text=True, check=True)
    assert "pixels whose tiers form one path" in whole.stdout
    state = tmp_path / "killed" / "state.pt"
    with subprocess.Popen(command(made, tmp_path / "killed"), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not state.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "killed" / "model").exists()
    other = subprocess.run(
        command(made, tmp_path / "killed", "--learning-rate", "0.01", "--accumulation", "2"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 2
    assert "saved by a training with other settings and updates; choose another folder" in other.stderr
    again = subprocess.run(command(made, tmp_path / "killed"), capture_output=True, text=True, check=True)
    assert "resuming after" in again.stderr
    models = [CropModel.from_pretrained(tmp_path / name / "model") for name in ("whole", "killed")]
    for name, values in models[0].state_dict().items():
        assert torch.equal(values, models[1].state_dict()[name]), name
    report = json.loads((tmp_path / "whole/metrics.json").read_text(encoding="utf-8"))
    assert (report["split"], len(report["epochs"])) == ("val", 3)
    assert f"weights of epoch {report['epoch']}, the best of 3 by published mean F1" in whole.stdout
    assert (tmp_path / "whole/metrics.json").read_bytes() == (tmp_path / "killed/metrics.json").read_bytes()
    # The name of the file of weights has their checksum.
    best = [next((tmp_path / name / "best").glob("model-*")).name for name in ("whole", "killed")]
    assert best[0] == best[1]


def test_wrong_options_are_told_in_a_line(made: MadeStore, tmp_path: Path) -> None:
    for options, problem in (
        (("--until", "June"), "expected a day like"),
        (("--device", "abacus"), "expected cpu, cuda or cuda:1, got 'abacus'"),
        (("--seed", "-1"), "seed: Input should be greater than or equal to 0"),
    ):
        found = subprocess.run(command(made, tmp_path, *options), capture_output=True, text=True, check=False)
        assert found.returncode == 2
        assert problem in found.stderr
        assert "Traceback" not in found.stderr
