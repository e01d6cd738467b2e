"""Fixtures of the integration tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The makers of test regions and stores are shared between folders that are no packages.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "unit")]

from tiny_region import TinyRegion  # noqa: E402


@pytest.fixture
def region(tmp_path: Path) -> TinyRegion:
    folder = tmp_path / "region"
    folder.mkdir()
    return TinyRegion(folder)
