"""A source without arrays, which goes wrong where the environment says so, in whichever process builds a block; and a
cloud method, `failing`, which always does.

Blocks are named `2022-1` (season and number), by commas; `all` are all of them.

MISHAPS_SECONDS   seconds that each block takes longer
MISHAPS_HANGING   blocks that wait until there is a file `go-on` in MISHAPS_FOLDER; `hanging` there names their thread
MISHAPS_DEADLY    blocks at which the process dies; with MISHAPS_FOLDER only one, which leaves `died` there
MISHAPS_FAILING   blocks with the error that they raise, `2022-1:ReadError`
MISHAPS_SEALING   what the error says that is raised while a release is made
MISHAPS_CUTTING   a file that loses its last byte while a release is made
"""

from __future__ import annotations

import builtins
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from h2crop_data import errors
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.facts import ReleaseFacts
from h2crop_data.datasheet.words import SourceWords
from h2crop_data.recipe.model import Section
from h2crop_data.sentinel2.clouds import Detection
from h2crop_data.sources.source import BlockGround, PlannedBlock, Source, SourceBlock


class MishapSettings(Section):
    """None: what goes wrong is no property of the data."""


class MishapWords(SourceWords):
    """What a datasheet says of it: nothing, or an error that nobody expects."""

    def origin(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        if "MISHAPS_CUTTING" in os.environ:
            path = Path(os.environ["MISHAPS_CUTTING"])
            os.truncate(path, path.stat().st_size - 1)
        text = os.environ.get("MISHAPS_SEALING")
        if text is not None:
            raise RuntimeError(text)
        return []


class Mishaps(Source):
    """Goes wrong on request."""

    name = "mishaps"
    group = "mishaps"
    algorithm = 1
    settings = MishapSettings
    words = MishapWords()

    def format(self, settings: MishapSettings, cell_size: int) -> SourceFormat:
        return SourceFormat(self.name, "Mishaps", self.group, ())

    def task(self, settings: MishapSettings, pinned: Any, block: PlannedBlock) -> str:
        return f"{block.season}-{block.number}"

    def assemble(self, task: str, ground: BlockGround, watch: Any) -> SourceBlock:
        folder = Path(os.environ["MISHAPS_FOLDER"]) if "MISHAPS_FOLDER" in os.environ else None
        if named(task, "MISHAPS_DEADLY") is not None and (folder is None or not (folder / "died").exists()):
            if folder is not None:
                (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get("MISHAPS_SECONDS", "0")))
        if named(task, "MISHAPS_HANGING") is not None and folder is not None:
            (folder / "hanging").write_text(threading.current_thread().name)
            while not (folder / "go-on").exists():
                time.sleep(0.02)
        failing = named(task, "MISHAPS_FAILING")
        if failing is not None:
            error = getattr(errors, failing, None) or getattr(builtins, failing)
            raise error(f"cannot read what block {task} needs")
        return SourceBlock({}, [{} for _ in ground.cells])


class Failing:
    """A cloud method that finds an error in everything."""

    name = "failing"
    version = "9.9"
    level: Literal["L2A", "L1C"] = "L2A"
    bands = ("B02",)
    pixel = 20

    def detect(self, reflectance: NDArray[np.float32], imaged: NDArray[np.bool_]) -> Detection:
        raise IndexError("nothing at 5")


def named(block: str, variable: str) -> str | None:
    """What a variable says of a block, None where it does not name it."""
    for entry in os.environ.get(variable, "").split(","):
        name, _, text = entry.partition(":")
        if name in (block, "all"):
            return text
    return None
