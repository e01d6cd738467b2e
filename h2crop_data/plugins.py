"""Sources that other packages bring: found by the entry point `h2crop.sources`, so that every process sees them."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from h2crop_data.errors import PluginError

GROUP = "h2crop.sources"


@cache
def installed_sources() -> dict[str, EntryPoint]:
    """The entry points of sources by name, which is the section of the recipe. Raises PluginError for a name twice."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if found.setdefault(point.name, point).value != point.value:
            raise PluginError(
                f"two packages bring a source {point.name!r} ({found[point.name].value} and {point.value}): remove one"
            )
    return found


@cache
def load_installed(name: str) -> Any:
    """The source behind an entry point, made once. Raises PluginError where it cannot be loaded."""
    point = installed_sources()[name]
    try:
        return point.load()()
    except Exception as error:
        raise PluginError(
            f"the source {name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
