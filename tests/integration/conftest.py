"""Fixtures of the integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_region import TinyRegion


@pytest.fixture
def region(tmp_path: Path) -> TinyRegion:
    folder = tmp_path / "region"
    folder.mkdir()
    return TinyRegion(folder)
