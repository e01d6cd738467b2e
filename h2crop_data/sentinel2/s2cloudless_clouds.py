"""Clouds by s2cloudless (Sentinel Hub), pixel by pixel on L1C; it knows no shadow.

s2cloudless 1.7.3, CC BY-SA 4.0: boosted trees on ten bands. At 10 m its authors average probabilities over a disk of
four pixels and dilate by two; at 60 m a pixel is such an average, and masks are dilated in `tile_masks`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from h2crop_data.errors import PluginError
from h2crop_data.sentinel2.clouds import Detection

try:
    from s2cloudless.cloud_detector import S2PixelCloudDetector
except ImportError as error:
    raise PluginError(
        f"the cloud method 's2cloudless' needs s2cloudless: `pip install '.[clouds]'` in a checkout of h2crop ({error})"
    ) from error

#: Probability above which a pixel is cloud.
THRESHOLD = 0.4


class S2cloudlessClouds:
    """The detector `s2cloudless`."""

    name = "s2cloudless"
    version = f"{version('s2cloudless')}, threshold {THRESHOLD}"
    level: Literal["L2A", "L1C"] = "L1C"
    bands = ("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")
    pixel = 60

    def __init__(self, average_over: int | None = None, dilation_size: int | None = None) -> None:
        """average_over, dilation_size: in pixels, as s2cloudless has them; nothing at 60 m."""
        self.detector = S2PixelCloudDetector(THRESHOLD, average_over=average_over, dilation_size=dilation_size)

    def detect(self, reflectance: NDArray[np.float32], imaged: NDArray[np.bool_]) -> Detection:
        """Clouds (y, x) of reflectance (10, y, x), 0..1."""
        stack = np.ascontiguousarray(np.moveaxis(reflectance, 0, -1))[None]
        probability: NDArray[np.float32] = self.detector.get_cloud_probability_maps(stack, num_threads=1)[0]
        probability = np.where(imaged, probability, np.float32(0))
        cloud = self.detector.get_mask_from_prob(probability[None])[0].astype(bool)
        return Detection(cloud & imaged, np.zeros(imaged.shape, bool), probability)
