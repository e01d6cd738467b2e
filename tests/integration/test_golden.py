"""A tiny region through the whole pipeline, compared with tests/golden.json: any change of output is a decision.

`make golden` writes the file anew; its difference in a commit shows what changed, and the commit says why.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import h2crop_data
from h2crop_data.cube.reading import read_index
from h2crop_data.pipeline.build import build_store
from h2crop_data.recipe.model import load_recipe
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings

GOLDEN = Path(__file__).resolve().parents[1] / "golden.json"
SETTINGS: dict[str, Any] = {
    "seed": 11,
    "cells": 4,
    "cell_size": 480,
    "split_square": 1000,
    "sentinel2.dates_per_month": 1,
    "sentinel2.months": [1, 4, 5, 7, 9, 12],
    "sentinel2.duplicates": 0.3,
    "enmap.scenes": 1,
    "enmap.shifts": [[4.5, -7.0]],
    "enmap.sky": {"cloudiness": 0.0},
}
#: Values that stand for "nothing here" and are left out of means.
FILLS = {"enmap": -32768, "s2": -32768, "label": 255, "prior": 255}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def of_array(name: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Shape, count, mean and checksum of an array."""
    known = values[values != FILLS[name]] if name in FILLS else values
    return {
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "known": int(known.size),
        "mean": round(float(known.mean(dtype=np.float64)), 6),
        "sha256": sha256(np.ascontiguousarray(values).tobytes()),
    }


def of_file(path: Path) -> str:
    return sha256(path.read_bytes())


def measured(folder: Path) -> dict[str, Any]:
    """What the pipeline gives, from settings to a sealed store."""
    region = folder / "region"
    simulate_region(load_settings(None, SETTINGS), region, workers=1)
    build_store(load_recipe(region / "recipe.yaml"), folder / "store", workers=1)
    data = h2crop_data.open(folder / "store", 2022)
    samples = read_index(folder / "store", "samples-2022")
    scenes = read_index(folder / "store", "scenes")
    parcels = pd.read_parquet(region / "truth" / "parcels-2022.parquet")
    return {
        "region": {
            "files": sum(path.is_file() for path in region.rglob("*")),
            "objects": len(pd.read_parquet(region / "truth" / "objects.parquet")),
            "fields_declared": int(parcels["declared"].sum()),
            "crops": int(parcels["crop"].nunique()),
            "land": of_file(region / "truth" / "land.tif"),
        },
        "store": {
            "samples": [str(name) for name in data["sample"].values],
            "splits": samples["split"].tolist(),
            "clear_share": np.round(np.stack(samples["s2_clear_share"]), 6).tolist(),
            "scenes_taken": sorted(scenes.loc[scenes["taken"], "id"]),
            "scenes_left_out": int((~scenes["taken"]).sum()),
            "arrays": {str(name): of_array(str(name), data[name].values) for name in sorted(data.data_vars)},
        },
    }


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = measured(tmp_path_factory.mktemp("golden"))
    if os.environ.get("H2CROP_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


@pytest.mark.parametrize("part", ["region", "store"])
def test_the_pipeline_gives_what_it_gave(outcome: dict[str, Any], part: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert outcome[part] == golden[part], "if the change is wanted: make golden, and say why in the commit"
