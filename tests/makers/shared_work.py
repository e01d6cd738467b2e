"""Stores of one region that differ in a setting: what is the same for all of them is computed once."""

from __future__ import annotations

import shutil
from pathlib import Path


def with_work_of(other: Path, store: Path) -> Path:
    """The folder of a store yet to be built, with a copy of what the units of another store gave.

    A unit has the same id where inputs, settings and algorithm are the same: only such results are taken.
    """
    shutil.copytree(other / ".build/work", store / ".build/work")
    return store
