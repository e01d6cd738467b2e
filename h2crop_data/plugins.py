"""Sources and providers that other packages bring: found by entry points, so that every process sees them."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from h2crop_data.errors import PluginError

GROUP = "h2crop.sources"
PROVIDERS = "h2crop.providers"


def entry_points_of(group: str) -> list[EntryPoint]:
    """The entry points of a group, each once."""
    return list({(point.name, point.value): point for point in entry_points(group=group)}.values())


@cache
def installed_sources() -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of sources by name, which is the section of the recipe; several where packages clash."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points_of(GROUP):
        found.setdefault(point.name, []).append(point)
    return {name: tuple(points) for name, points in found.items()}


@cache
def load_installed(name: str) -> Any:
    """The source behind an entry point, made once.

    Raises PluginError where it cannot be loaded, or where two packages bring a source of that name.
    """
    point, *others = installed_sources()[name]
    if others:
        raise PluginError(
            f"two packages bring a source {name!r} ({point.value} and {others[0].value}): remove one of them"
        )
    try:
        return point.load()()
    except Exception as error:
        raise PluginError(
            f"the source {name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
