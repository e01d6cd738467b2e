"""Scripts of the checkout that are in no package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

CHECKOUT = Path(__file__).resolve().parents[2]


def script_module(path: str) -> ModuleType:
    """A script by its path in the checkout, run as a module of a name that nothing else has."""
    name = path.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(f"script_{name}", CHECKOUT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look there for the module they stand in.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
