"""The known sources: those of h2crop, and those of other packages (plugins.py)."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

from h2crop_data.cube.schema import LAYOUT_GENERATION, Codec, StoreLayout
from h2crop_data.cube.windows import FIRST_TIME, TIME_AXIS
from h2crop_data.errors import PluginError
from h2crop_data.plugins import installed_sources, load_installed
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.enmap.source import Enmap
from h2crop_data.sources.formats import of_generation
from h2crop_data.sources.parcels.source import DeclaredParcels
from h2crop_data.sources.sentinel2.source import Sentinel2
from h2crop_data.sources.source import Source

#: The names of coordinates do not depend on the season.
ANY_SEASON = 2000
#: In the order they are asked.
BUILT_IN: tuple[Source, ...] = (Enmap(), Sentinel2(), DeclaredParcels())


def source_of(name: str) -> Source:
    """A source by name. Raises PluginError where it is not installed, or is not a source."""
    for source in BUILT_IN:
        if source.name == name:
            return source
    if name not in installed_sources():
        raise PluginError(f"the source {name!r} is not installed; install the package that provides it")
    source = load_installed(name)
    if not isinstance(source, Source) or source.name != name:
        raise PluginError(f"the entry point {name!r} gives {source!r}, which is not a source with that name")
    return source


#: Sources, each with its settings.
UsedSources = list[tuple[Source, Any]]


def forget_other_builds() -> None:
    """Notify every source that a build begins in this process; a worker of a cluster runs many builds."""
    for source in BUILT_IN:
        source.begin_build()
    for name in installed_sources():
        # One that cannot be loaded is refused where a recipe uses it.
        with suppress(PluginError):
            source_of(name).begin_build()


def sources_of(recipe: Recipe) -> list[Source]:
    """The sources whose inputs a plan of a recipe keeps: the ones that come with h2crop, and the others it uses."""
    return [*BUILT_IN, *(source_of(name) for name in recipe.other_sources)]


def used_sources(recipe: Recipe) -> UsedSources:
    """The sources a recipe uses, each with its settings."""
    found = ((source, recipe.settings_of(source.name)) for source in sources_of(recipe))
    return [(source, settings) for source, settings in found if settings is not None]


def layout_of_recipe(recipe: Recipe, generation: int = LAYOUT_GENERATION) -> StoreLayout:
    """The layout of the store that a recipe asks for. Raises PluginError where two sources use one name.

    generation: of the layouts, 1 for a store that was begun in format 1.
    """
    formats = tuple(source.format(settings, recipe.cell_size) for source, settings in used_sources(recipe))
    codec = Codec(recipe.store.codec, recipe.store.level)
    layout = StoreLayout(recipe.cell_size, recipe.store.block_capacity, codec, formats)
    check_unique_names(layout)
    check_axes(layout)
    return of_generation(layout, generation)


def check_unique_names(layout: StoreLayout) -> None:
    """Refuse sources that call two things by one name. Raises PluginError."""
    for what, names in (
        ("group of arrays", [source.group for source in layout.sources]),
        (
            "array or coordinate",
            [
                *(spec.name for source in layout.sources for spec in source.arrays),
                *(spec.name for spec in layout.coordinates(ANY_SEASON)),
            ],
        ),
        ("column of the samples", [column.name for column in layout.sample_columns()]),
        ("column of the blocks", [column.name for column in layout.block_columns()]),
    ):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise PluginError(f"two sources have a {what} called {twice[0]!r}: one of them must be renamed")


def check_axes(layout: StoreLayout) -> None:
    """Refuse sources that call the axis by time as format 1 did. Raises PluginError."""
    for source in layout.sources:
        for spec in source.arrays:
            if FIRST_TIME in spec.dims:
                raise PluginError(
                    f"the source {source.name!r} states the dimension {FIRST_TIME!r} of {spec.name!r}: since format 2 "
                    f"of the store it is called {TIME_AXIS!r}; rename it in the package that provides the source"
                )


def algorithms(recipe: Recipe) -> dict[str, int]:
    """Version of the algorithm of each array group of a plan of a recipe."""
    return {source.group: source.algorithm for source in sources_of(recipe)}


def flag_masks(recipe: Recipe) -> dict[str, int]:
    """Quality array -> the bits of it that keep a pixel out of the statistics of a store of a recipe."""
    return {
        name: bits for source, settings in used_sources(recipe) for name, bits in source.flag_masks(settings).items()
    }
