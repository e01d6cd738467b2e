"""The datasheet of a release: its layout, and the words of its sources."""

from __future__ import annotations

from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.root import SealedAttributes
from h2crop_data.datasheet.sheet import datasheet
from h2crop_data.datasheet.words import Coordinates, SourceWords
from h2crop_data.plugins import installed_sources, load_installed
from h2crop_data.sources.enmap.words import EnmapWords
from h2crop_data.sources.formats import layout_of_root
from h2crop_data.sources.parcels.words import ParcelWords
from h2crop_data.sources.sentinel2.words import Sentinel2Words

WORDS: dict[str, SourceWords] = {"enmap": EnmapWords(), "sentinel2": Sentinel2Words(), "parcels": ParcelWords()}


def words_of(source: str) -> SourceWords:
    """What a datasheet says of a source; of one that is not installed what every source has."""
    if source in WORDS:
        return WORDS[source]
    if source not in installed_sources():
        return SourceWords()
    words: SourceWords = load_installed(source).words
    return words


def describe_release(
    attributes: SealedAttributes,
    tables: IndexTables,
    data_bytes: int | None = None,
    coordinates: Coordinates | None = None,
) -> str:
    """The datasheet of a release in Markdown. Arguments: as for `datasheet`; the root's layout names the sources."""
    layout = layout_of_root(attributes)
    words = {source.name: words_of(source.name) for source in layout.sources}
    return datasheet(attributes, tables, layout, words, data_bytes=data_bytes, coordinates=coordinates)
