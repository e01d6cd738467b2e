"""Clouds and shadows by ukis-csmask (DLR), a network on L2A near 30 m.

ukis-csmask 1.0.0, Apache-2.0, weights in the wheel: a U-Net of six bands.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from h2crop_data.errors import PluginError
from h2crop_data.sentinel2.clouds import Detection

try:
    import onnxruntime
    import ukis_csmask
except ImportError as error:
    raise PluginError(
        f"the cloud method 'ukis' needs ukis-csmask: `pip install 'h2crop-data[clouds]'` ({error})"
    ) from error

WEIGHTS = Path(str(ukis_csmask.__file__)).with_name("model_6b_l2a.onnx")
#: Mean and standard deviation of the six bands in training, of `model_6b_l2a.json`.
MEAN = (0.26681778, 0.27799085, 0.28811994, 0.36494744, 0.22257099, 0.17859040)
DEVIATION = (0.33637598, 0.31254559, 0.31114846, 0.27260706, 0.16653667, 0.14328985)
#: Side of a window in pixels.
WINDOW = 256


class UkisClouds:
    """The detector `ukis`."""

    name = "ukis"
    version = version("ukis-csmask")
    level: Literal["L2A", "L1C"] = "L2A"
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")
    pixel = 30

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(WEIGHTS), options, providers=["CPUExecutionProvider"])

    def detect(self, reflectance: NDArray[np.float32], imaged: NDArray[np.bool_]) -> Detection:
        """Clouds and shadows (y, x) of reflectance (6, y, x), 0..1, at 30 m."""
        mean, deviation = (np.array(values, np.float32)[:, None, None] for values in (MEAN, DEVIATION))
        image = np.where(imaged, (reflectance - mean) / deviation, 0).astype(np.float32)
        likely = np.empty((3, *imaged.shape), np.float32)
        rows, columns = imaged.shape
        padded = np.pad(image, ((0, 0), (0, -rows % WINDOW), (0, -columns % WINDOW)), mode="reflect")
        for y in range(0, rows, WINDOW):
            for x in range(0, columns, WINDOW):
                window = np.ascontiguousarray(padded[None, :, y : y + WINDOW, x : x + WINDOW])
                (scores,) = self.session.run(None, {"input": window})
                powers = np.exp(scores[0] - scores[0].max(axis=0))
                part = likely[:, y : y + WINDOW, x : x + WINDOW]
                part[:] = (powers / powers.sum(axis=0))[:, : part.shape[1], : part.shape[2]]
        best = likely.argmax(axis=0)
        return Detection((best == 1) & imaged, (best == 2) & imaged, likely[1])
