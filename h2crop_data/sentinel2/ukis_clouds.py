"""Clouds and shadows by ukis-csmask (DLR), a network on L2A near 30 m.

ukis-csmask 1.0.0, Apache-2.0, weights in its wheel: a U-Net on an EfficientNet-B4, trained on CloudSEN12+; six bands
in, background, cloud and shadow out. Called as the package means it, it loads 40 MB for each image and cuts images into
overlapping windows of 256 pixels whose results are blended. The encoder weighs its features by their mean over the
window, so two windows over one ground disagree. Here the network is loaded once and sees a whole tile at a time: its
graph is convolutions, means and resizing by factors, and only its declared input has a fixed size.
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
        f"the cloud method 'ukis' needs ukis-csmask: `pip install '.[clouds]'` in a checkout of h2crop ({error})"
    ) from error

WEIGHTS = Path(str(ukis_csmask.__file__)).with_name("model_6b_l2a.onnx")
#: Mean and standard deviation of the six bands in training, of `model_6b_l2a.json`.
MEAN = (0.266817778, 0.277990848, 0.288119942, 0.364947438, 0.222570986, 0.178590402)
DEVIATION = (0.336375982, 0.312545589, 0.311148465, 0.272607068, 0.166536674, 0.143289849)
#: The network halves its input five times. It was trained on windows of this size; smaller images are mirrored to it.
MULTIPLE, SMALLEST = 32, 256
CLOUD_CLASS, SHADOW_CLASS = 1, 2


class UkisClouds:
    """The detector `ukis`."""

    name = "ukis"
    version = f"{version('ukis-csmask')}, 6 bands, whole tiles"
    level: Literal["L2A", "L1C"] = "L2A"
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")
    pixel = 30

    def __init__(self) -> None:
        """Load the network. Raises PluginError where its file is not the one this was made for."""
        options = onnxruntime.SessionOptions()
        # Sums depend on how many threads share them.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # What warns that output sizes are not those the file declares.
        options.log_severity_level = 3
        network = of_any_size(WEIGHTS.read_bytes())
        self.session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def detect(self, reflectance: NDArray[np.float32], imaged: NDArray[np.bool_]) -> Detection:
        """Clouds and shadows (y, x) of reflectance (6, y, x), 0..1, at 30 m, in one pass.

        The network sees the rows and columns that were imaged, mirrored where they are few: even ground around a small
        image looks to it like the edge of a shadow.
        """
        cloud, shadow = np.zeros((2, *imaged.shape), bool)
        probability = np.zeros(imaged.shape, np.float32)
        if not imaged.any():
            return Detection(cloud, shadow, probability)
        box = rows_and_columns(imaged)
        shown = imaged[box]
        usual = np.median(reflectance[:, imaged], axis=1)[:, None, None]
        mean, deviation = (np.array(values, np.float32)[:, None, None] for values in (MEAN, DEVIATION))
        image = (np.where(shown, reflectance[:, *box], usual) - mean) / deviation
        missing = [max(SMALLEST, -(-length // MULTIPLE) * MULTIPLE) - length for length in shown.shape]
        padded = np.pad(image, ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect")
        (scores,) = self.session.run(None, {"input": padded[None].astype(np.float32)})
        scores = scores[0, :, : shown.shape[0], : shown.shape[1]]
        likely = np.exp(scores - scores.max(axis=0))
        best = scores.argmax(axis=0)
        probability[box] = np.where(shown, likely[CLOUD_CLASS] / likely.sum(axis=0), 0)
        cloud[box], shadow[box] = (best == CLOUD_CLASS) & shown, (best == SHADOW_CLASS) & shown
        return Detection(cloud, shadow, probability)


def rows_and_columns(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rows and columns between the first and the last that hold some of a mask (y, x)."""
    (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
    return slice(top, bottom + 1), slice(left, right + 1)


def of_any_size(network: bytes) -> bytes:
    """The ONNX file of the network with the two lengths of its input and output left open.

    A length of 256 is a protobuf message of two bytes as one with a name of one letter is, so nothing else moves.
    Raises PluginError where the file does not declare two such lengths of each.
    """
    start = network.rfind(b"\n\x05input\x12")
    fixed, named = b"\n\x03\x08\x80\x02" * 2, b"\n\x03\x12\x01y\n\x03\x12\x01x"
    if start < 0 or network.count(fixed, start) != 2:
        raise PluginError(
            f"{WEIGHTS} is not the network of ukis-csmask 1.0.0: run `pip install '.[clouds]'` in a checkout of h2crop"
        )
    return network[:start] + network[start:].replace(fixed, named)
