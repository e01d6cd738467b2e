"""A small simulated region that EnMAP and Sentinel-2 show, and its recipe: samples large enough to compare the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import load_settings

#: Six cells in two squares; clouds in both months of Sentinel-2 and in the scene of EnMAP.
REGION: dict[str, Any] = {
    "seed": 23,
    "seasons": [2021, 2022],
    "cells": 6,
    "cell_size": 960,
    "truth_reflectance": False,
    "sentinel2": {
        "dates_per_month": 3,
        "months": [5, 6],
        "duplicates": 0.0,
        "sky": {"cloudiness": 0.3, "cirrus": 0.0, "haze": 0.0, "snow": 0.0},
    },
    "enmap": {
        "scenes": 1,
        "months": [6],
        "coverage": [1.0],
        "sky": {"cloudiness": 0.35, "cirrus": 0.0, "haze": 0.0},
    },
}
RECIPE: dict[str, Any] = {
    "seasons": [2022],
    "store": {"block_capacity": 2},
    "split": {"square_size": 2000, "seed": 1, "shares": {"train": 0.5, "val": 0.25, "test": 0.25}},
}
ENMAP = {"max_flagged_share": 1, "max_cloud_cover": 100, "coregistration": "none", "mask": "none"}
SENTINEL2 = {
    "clouds": {"dilation": 0, "cast_shadows": False, "second_look": False},
    "alignment": "none",
    "max_cloud_cover": 100,
}


def make_region(folder: Path) -> None:
    """Simulate the region into a folder; its recipe is `plain.yaml`."""
    simulate_region(load_settings(None, REGION), folder, workers=1)
    document = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")) | RECIPE
    document["enmap"] |= ENMAP
    document["sentinel2"] |= SENTINEL2
    (folder / "plain.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
