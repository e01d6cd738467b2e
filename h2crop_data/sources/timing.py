"""The time of a build by step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

#: What a build does, in the order in which it does it; `wait`: the builder waits for its workers.
BUILD_STEPS = ("search", "read", "mask", "align", "composite", "enmap", "label", "write", "seal", "wait", "failed")
#: Which of these the steps of stopwatches, units of work and phases of a run belong to.
STEP_OF = {
    "planning": "search",
    "sentinel2 grid": "read",
    "sentinel2 offset": "read",
    "read Sentinel-2": "read",
    "read EnMAP": "read",
    "sentinel2 masks": "mask",
    "enmap mask": "mask",
    "sentinel2 reference": "align",
    "enmap match": "align",
    "composite": "composite",
    "assemble Sentinel-2": "composite",
    "enmap cells": "enmap",
    "resample EnMAP": "enmap",
    "assemble EnMAP": "enmap",
    "rasterize parcels": "label",
    "scratch": "write",
    "statistics": "write",
    "compress and write": "write",
    "hash": "write",
    "sealing": "seal",
    "units": "wait",
    "blocks": "wait",
    "failed": "failed",
}
#: What steps of sources that another package brings belong to.
OTHER = "other"


def step_of(detail: str) -> str:
    """Which step of a build (`BUILD_STEPS`) something is, by the name that its stopwatch, unit or phase gives it.

    Of sources that another package brings it is the step that its name begins with (`read terrain`), else `other`.
    """
    first = detail.partition(" ")[0]
    return STEP_OF.get(detail) or (first if first in BUILD_STEPS else OTHER)


class Stopwatch:
    """Seconds spent in named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time until the block ends as spent in `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
