"""The crops of the synthetic region: French codes, growth, frequency, place in a rotation.

`share` is parts per million of the labelled pixels of the published H2Crop training data (class counts by its authors,
2025, Apache-2.0), rounded to two digits; where one class has several codes it is divided among them by estimate. Codes
that are no published class have an estimated share: they reach tiers 1 to 3 only, or no tier, as in real files.
The codes chosen reach all 101 published classes of tier 4; class 63 (Jerusalem artichoke) has no pixel in the counts.
`group` is the number of the crop group that French declarations give beside the code (CODE_GROUP).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pandas as pd

#: Places a crop can take in a rotation.
ROTATION_GROUPS = (
    "cereal",
    "break",
    "maize",
    "root",
    "legume",
    "grass",
    "permanent",
    "vegetable",
    "fallow",
)


@lru_cache(maxsize=1)
def load_crops() -> pd.DataFrame:
    """One row a crop: code, growth, share (parts per million), rotation (of ROTATION_GROUPS), group.

    All callers get the same frame: do not change it.
    """
    path = Path(__file__).with_name("crops.csv")
    text = {"code": "str", "growth": "str", "rotation": "str"}
    return pd.read_csv(path, dtype=text | {"share": "int64", "group": "int64"}, keep_default_na=False)
