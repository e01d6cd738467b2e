"""What a Dask worker of a test loads first (`--preload`): it makes blocks slow, failing or deadly, by variables.

H2CROP_TEST_SECONDS   seconds that each block takes longer
H2CROP_TEST_FAILING   blocks (season-number, by commas) that cannot be read
H2CROP_TEST_DEADLY    blocks at which the process dies
"""

from __future__ import annotations

import os
import signal
import time

from h2crop_data.errors import ReadError
from h2crop_data.pipeline import engine
from h2crop_data.pipeline.block import AssembledBlock, BlockTask, assemble_block


def assemble_faultily(task: BlockTask) -> AssembledBlock:
    """Assemble a block, unless it is one that cannot be."""
    name = f"{task.season}-{task.block}"
    if name in os.environ.get("H2CROP_TEST_DEADLY", "").split(","):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(os.environ.get("H2CROP_TEST_SECONDS", "0")))
    if name in os.environ.get("H2CROP_TEST_FAILING", "").split(","):
        raise ReadError(f"cannot read what block {name} needs")
    return assemble_block(task)


engine.assemble_block = assemble_faultily  # type: ignore[attr-defined]
