"""The layout of a store, from what its root says: the sources that come with h2crop, and those the root states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from h2crop_data.cube.root import SealedAttributes, stored_data
from h2crop_data.cube.schema import (
    LAYOUT_GENERATION,
    STATED_COLUMNS,
    Codec,
    SourceFormat,
    StoreLayout,
    axis_of_2,
    is_format_1,
    parsed_source,
)
from h2crop_data.sources.enmap.format import FIRST_DTYPES, enmap_format
from h2crop_data.sources.parcels.format import parcels_format
from h2crop_data.sources.sentinel2.format import FIRST_ATTRIBUTES, sentinel2_format


def known_formats(
    cell_size: int, *, s2_bands: Sequence[str] = (), enmap_bands: int = 0, enmap_mask: bool = False, labels: bool = True
) -> tuple[SourceFormat, ...]:
    """What a store holds of the sources that come with h2crop."""
    formats = []
    if enmap_bands:
        formats.append(enmap_format(enmap_bands, cell_size, mask=enmap_mask))
    if s2_bands:
        formats.append(sentinel2_format(s2_bands, cell_size))
    if labels:
        formats.append(parcels_format(cell_size))
    return tuple(formats)


def known_layout(cell_size: int, capacity: int, codec: Codec = Codec(), **stored: Any) -> StoreLayout:  # noqa: B008
    """A layout of these sources alone. stored: as for `known_formats`."""
    return StoreLayout(cell_size, capacity, codec, known_formats(cell_size, **stored))


def of_generation(layout: StoreLayout, generation: int) -> StoreLayout:
    """A layout of the current generation as stores of another one have it."""
    if generation == LAYOUT_GENERATION:
        return layout
    sources = tuple(
        replace(
            source,
            arrays=tuple(replace(spec, dtype=FIRST_DTYPES.get(spec.name, spec.dtype)) for spec in source.arrays),
        )
        for source in layout.sources
    )
    return replace(layout, codec=replace(layout.codec, checksum=False), sources=sources)


def layout_of_root(attributes: SealedAttributes) -> StoreLayout:
    """The layout of a store, with the axes and coordinates of format 2. attributes: of its root, in any format.

    Raises KeyError, TypeError or ValueError where they do not say it.
    """
    layout = attributes["layout"]
    codec = replace(Codec(checksum=False), **layout["codec"])
    made = StoreLayout(layout["cell_size"], layout["block_capacity"], codec)
    stated = [parsed_source(facts) for facts in layout.get("sources", {}).values()]
    if is_format_1(attributes):
        known = known_formats(layout["cell_size"], **asdict(stored_data(layout)))
        return of_generation(replace(made, sources=(*map(as_in_format_1, known), *map(with_time, stated))), 1)
    own = {
        source.name: source
        for source in known_formats(layout["cell_size"], s2_bands=("B02",), enmap_bands=1, enmap_mask=True)
    }
    first = [with_known_columns(source, own[source.name]) for source in stated if source.name in own]
    first.sort(key=lambda source: list(own).index(source.name))
    return replace(made, sources=(*first, *(source for source in stated if source.name not in own)))


def with_known_columns(stated: SourceFormat, known: SourceFormat) -> SourceFormat:
    """A source that comes with h2crop, from what a root states of it, with columns and rules, which are known."""
    columns = {name: getattr(known, name) for name in STATED_COLUMNS}
    rules = {spec.name: spec.rules for spec in known.arrays}
    arrays = tuple(replace(spec, rules=rules.get(spec.name)) for spec in stated.arrays)
    return replace(stated, built_in=True, arrays=arrays, **columns)


def as_in_format_1(source: SourceFormat) -> SourceFormat:
    """A source that comes with h2crop with the attributes of its arrays in stores of format 1."""
    arrays = tuple(replace(spec, attributes=FIRST_ATTRIBUTES.get(spec.name, spec.attributes)) for spec in source.arrays)
    return replace(source, arrays=arrays)


def with_time(source: SourceFormat) -> SourceFormat:
    """A source of another package as a root of format 1 states it, with the axis by time as format 2 calls it."""
    arrays = tuple(replace(spec, dims=tuple(map(axis_of_2, spec.dims))) for spec in source.arrays)
    return replace(source, arrays=arrays)
