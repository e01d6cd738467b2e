"""The tutorial of docs/training.md: its blocks run, one after the other, on a small region like the demo's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from h2crop_data.pipeline.build import build_store
from h2crop_data.recipe.model import load_recipe
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings
from h2crop_data.training.model import CropModel

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
#: The demo with fewer and smaller cells; squares so that every split has some of them.
SETTINGS = {
    "seasons": [2022],
    "cells": 16,
    "cell_size": 480,
    "split_square": 1000,
    "sentinel2": {"dates_per_month": 2, "months": [4, 5, 6, 7]},
    "enmap": {"scenes": 1, "coverage": [1.0], "sky": {"cloudiness": 0.0, "cirrus": 0.0, "haze": 0.0}},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store like the demo's."""
    folder = tmp_path_factory.mktemp("tutorial")
    simulate_region(load_settings(None, json.loads(json.dumps(SETTINGS))), folder / "region", workers=1)
    build_store(load_recipe(folder / "region" / "recipe.yaml"), folder / "store")
    return folder / "store"


def test_every_block_of_the_tutorial_runs_and_the_model_learns(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.replace("build/demo/store", str(store)), str(PAGE), "exec"), names)
    plt.close("all")
    printed = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+): ", printed)]
    # Means from the first batch on: they fall when the batches' losses do.
    assert losses[-1] < losses[0]
    assert "mean F1" in printed
    assert CropModel.from_pretrained(tmp_path / "model").config.months == 7
    for picture in ("sample.png", "map.png"):
        with Image.open(tmp_path / picture) as image:
            assert np.asarray(image.convert("L")).std() > 20, "a picture is not blank"
