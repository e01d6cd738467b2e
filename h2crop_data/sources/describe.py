"""The datasheet of a release: its layout, and the words of its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from h2crop_data.cube.index import SeasonTables
from h2crop_data.cube.root import SealedAttributes
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.datasheet.facts import ReleaseFacts, season_facts
from h2crop_data.datasheet.sheet import datasheet
from h2crop_data.datasheet.words import SourceWords
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


class Datasheets:
    """What puts a release into words: the facts of a season when it is sealed, the datasheet from those of all."""

    def season(
        self, layout: StoreLayout, tables: SeasonTables, data_bytes: int, coordinates: Mapping[str, Sequence[float]]
    ) -> dict[str, Any]:
        """The facts of a season: plain data that JSON can hold, of a size that does not depend on its samples.

        data_bytes: of all its arrays and coordinates together. coordinates: those of its first block, `wavelength` in
        nm for instance; without them, or with zeros, bands are listed by number.
        """
        own = {source.name: words_of(source.name).season_facts(source, tables) for source in layout.sources}
        return {**season_facts(tables, data_bytes, coordinates), "of_sources": own}

    def release(
        self,
        attributes: SealedAttributes,
        seasons: Mapping[int, Mapping[str, Any]],
        statistics: Mapping[str, Any],
        classes: Sequence[Mapping[int, str]],
    ) -> str:
        """The datasheet of a release in Markdown; the root's layout names the sources.

        seasons: season -> its facts. statistics: `statistics.json`. classes: of each tier id -> name.
        """
        layout = layout_of_root(attributes)
        words = {source.name: words_of(source.name) for source in layout.sources}
        return datasheet(attributes, ReleaseFacts(dict(sorted(seasons.items())), statistics, classes), layout, words)


DATASHEETS = Datasheets()
