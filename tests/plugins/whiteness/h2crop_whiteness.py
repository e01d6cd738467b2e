"""A cloud method of a user's own: a logistic regression on three bands, with its weights in a file beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from h2crop_data.sentinel2.clouds import Detection

WEIGHTS = Path(__file__).with_name("weights.json")


class Whiteness:
    """Cloud is what is bright in blue."""

    name = "whiteness"
    level: Literal["L2A", "L1C"] = "L2A"
    bands = ("B02", "B04", "B11")
    pixel = 20

    def __init__(self) -> None:
        text = WEIGHTS.read_bytes()
        document = json.loads(text)
        self.weights = np.array(document["weights"], np.float32)
        self.bias = np.float32(document["bias"])
        #: Other weights are another version: masks made with them are made anew.
        self.version = f"1.0, weights {hashlib.sha256(text).hexdigest()[:12]}"

    def detect(self, reflectance: NDArray[np.float32], imaged: NDArray[np.bool_]) -> Detection:
        score = np.tensordot(self.weights, reflectance, 1) + self.bias
        probability = (1 / (1 + np.exp(-score))).astype(np.float32)
        return Detection((probability > 0.5) & imaged, np.zeros(imaged.shape, bool), probability)
