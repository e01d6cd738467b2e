"""What the unit of work that makes a scene's mask gives.

An archive of arrays: `mask` (y, x) uint8 on the image's pixels, as ENMAP_MASK_FLAGS, and `facts`, JSON: `height` of the
clouds in metres (null where it is not known), `reason` why nothing was looked at (empty otherwise).
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from h2crop_data.array_archive import read_array


class MaskFacts(NamedTuple):
    """What a unit says of its scene."""

    #: Of the clouds, metres above ground; None where it is not known.
    height: float | None
    #: Why nothing was looked at; empty where something was.
    reason: str


def mask_archive(mask: NDArray[np.uint8], facts: MaskFacts) -> bytes:
    """The result of a unit."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, mask=mask, facts=np.array(json.dumps(facts._asdict(), sort_keys=True)))
    return buffer.getvalue()


def mask_facts(file: Path) -> MaskFacts:
    """What the result of a unit says of its scene."""
    return MaskFacts(**json.loads(str(read_array(file, "facts"))))


def mask_in(file: Path) -> NDArray[np.uint8]:
    """The mask (y, x) in the result of a unit."""
    return read_array(file, "mask")
