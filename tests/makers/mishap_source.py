"""The source of `tests/plugins/mishaps`, as if its package were installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from h2crop_data import plugins

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugins" / "mishaps"


@contextmanager
def mishaps_installed() -> Iterator[None]:
    """The package is there, for processes too; recipes have the section `mishaps: {}`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN))
        before = filter(None, [os.environ.get("PYTHONPATH")])
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGIN), str(ROOT), *before]))
        forget_sources()
        yield
    forget_sources()


def forget_sources() -> None:
    """Let sources be looked for again."""
    plugins.installed_sources.cache_clear()
    plugins.load_installed.cache_clear()
