"""The layout of a store, from what its root says: the sources that come with h2crop, and those the root states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from h2crop_data.cube.root import SealedAttributes
from h2crop_data.cube.schema import LAYOUT_GENERATION, Codec, SourceFormat, StoreLayout, parsed_source
from h2crop_data.sources.enmap.format import FIRST_DTYPES, enmap_format
from h2crop_data.sources.parcels.format import parcels_format
from h2crop_data.sources.sentinel2.format import sentinel2_format


def known_formats(
    cell_size: int, *, s2_bands: Sequence[str] = (), enmap_bands: int = 0, enmap_mask: bool = False, labels: bool = True
) -> tuple[SourceFormat, ...]:
    """What a store holds of the sources that come with h2crop, by what format 1 says of them."""
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
    """The layout of a store. attributes: of its root. Raises KeyError or TypeError where they do not say it."""
    layout = attributes["layout"]
    known = known_formats(
        layout["cell_size"],
        s2_bands=layout["s2_bands"],
        enmap_bands=layout["enmap_bands"],
        enmap_mask=layout.get("enmap_mask", False),
        labels=layout["labels"],
    )
    stated = [parsed_source(facts) for facts in layout.get("sources", {}).values()]
    made = StoreLayout(layout["cell_size"], layout["block_capacity"], Codec(**layout["codec"]), (*known, *stated))
    return of_generation(made, LAYOUT_GENERATION if layout["codec"].get("checksum") else 1)
