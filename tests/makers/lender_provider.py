"""The provider of `tests/plugins/lender`, as if its package were installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from h2crop_data.catalog import registry

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugins" / "lender"
CACHES = ("known_providers", "assets_of_bands", "datastrip_assets")


def forget_providers() -> None:
    """Let them be looked for again."""
    for name in CACHES:
        getattr(registry, name).cache_clear()


@contextmanager
def lender_installed() -> Iterator[None]:
    """The package is there, for processes too; it reads the environment when its provider is first asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGIN), str(ROOT)]))
        forget_providers()
        try:
            yield
        finally:
            sys.modules.pop("h2crop_lender", None)
    forget_providers()


def without_accounts(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No account of whoever runs the tests counts; they have an empty home instead."""
    home.mkdir()
    for name in [name for name in os.environ if name.startswith(("AWS_", "H2CROP_DOWNLOAD_"))] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
