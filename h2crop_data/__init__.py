"""h2crop: from public satellite archives and declared parcels to training cubes for crop mapping.

The public API, stable within a major version (everything else may change):

- `open`: a season of a store as an xarray dataset; `open_sample`: one sample of a store, in its own grid
- `read_index`: a table of a store's index; `CropSamples`: a store as a PyTorch dataset (needs the extra `train`)
- `load_recipe`: a recipe file, checked; `plan`: one season of a recipe, as exact inputs; `build`: a recipe or a plan
  into a store (`plan` and `build` need the extra `build`)
- `validate`, `compare`: check a store; report how two stores differ
- `H2cropError`: the base of every error that a user can act on

Each name is loaded at its first use, so reading a store does not load the libraries that building requires.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from h2crop_data.cube.reading import open_season as open
    from h2crop_data.cube.reading import read_index
    from h2crop_data.errors import H2cropError
    from h2crop_data.maintenance.compare import compare_stores as compare
    from h2crop_data.one_sample.dataset import open_sample
    from h2crop_data.pipeline.build import build_store as build
    from h2crop_data.pipeline.planning import make_plan as plan
    from h2crop_data.recipe.model import load_recipe
    from h2crop_data.training.dataset import CropSamples
    from h2crop_data.validation.validate import validate_store as validate

__version__ = "0.1.0"

__all__ = [
    "CropSamples",
    "H2cropError",
    "build",
    "compare",
    "load_recipe",
    "open",
    "open_sample",
    "plan",
    "read_index",
    "validate",
]

# As a library says nothing by itself: programs set up what is done with its lines (docs/monitoring.md).
logging.getLogger(__name__).addHandler(logging.NullHandler())
#: Public name -> module, and its name there.
_PUBLIC = {
    "CropSamples": ("training.dataset", "CropSamples"),
    "H2cropError": ("errors", "H2cropError"),
    "build": ("pipeline.build", "build_store"),
    "compare": ("maintenance.compare", "compare_stores"),
    "load_recipe": ("recipe.model", "load_recipe"),
    "open": ("cube.reading", "open_season"),
    "open_sample": ("one_sample.dataset", "open_sample"),
    "plan": ("pipeline.planning", "make_plan"),
    "read_index": ("cube.reading", "read_index"),
    "validate": ("validation.validate", "validate_store"),
}
#: What installs what a public name needs beside the base, where it needs more.
_EXTRAS = {"CropSamples": "train", "build": "build", "plan": "build"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    try:
        return getattr(import_module(f"{__name__}.{module}"), attribute)
    except ModuleNotFoundError as error:
        # An AttributeError, so that `help` and `dir` go on without what is not installed.
        extra = _EXTRAS.get(name, "build")
        raise AttributeError(
            f"h2crop_data.{name} needs the package {error.name}: pip install '.[{extra}]' in a checkout of h2crop"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
