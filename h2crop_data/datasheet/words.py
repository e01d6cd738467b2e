"""The texts of a datasheet about a source; each source has its own, these are the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from h2crop_data.cube.index import SeasonTables
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.facts import ReleaseFacts, shares_together, summed_shares
from h2crop_data.datasheet.markdown import plain, share, table

#: Values of the coordinates of a first block, by name.
Coordinates = Mapping[str, list[float]]


class SourceWords:
    """The words on one source of a release; lists are lines or paragraphs of Markdown."""

    def season_facts(self, source: SourceFormat, tables: SeasonTables) -> dict[str, Any]:
        """What the other methods need of a season, counted when it is sealed: plain data that JSON can hold, of a size
        that does not depend on the number of samples. By default the shares among its columns, as `shares`.
        """
        found = {
            column.name: summed_shares(tables.samples[column.name])
            for column in source.columns
            if column.is_share and column.dtype == "number" and column.name in tables.samples
        }
        return {"shares": {name: of_column for name, of_column in found.items() if of_column is not None}}

    def summary(self, source: SourceFormat) -> str:
        """What the store holds of it, in half a sentence."""
        return plain(source.title)

    def sample(self, source: SourceFormat) -> str:
        """What makes a sample, to follow “A sample is a square cell of ground”; empty where it makes none."""
        return ""

    def origin(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        """Its origin and its licence."""
        return [f"- **{plain(source.title)}**: its licence is unknown to this h2crop; ask the provider of the source."]

    def bands(self, source: SourceFormat, facts: ReleaseFacts, coordinates: Coordinates) -> list[list[str]]:
        """Rows of the table of reflectance."""
        return []

    def pixels(self, source: SourceFormat) -> str:
        """Which of its pixels that table counts: `of EnMAP those without a flag`; empty where all with a value."""
        return ""

    def quality(self, source: SourceFormat, facts: ReleaseFacts) -> list[list[str]]:
        """Paragraphs and tables on its quality, each a list of lines: by default the shares among its columns."""
        shares = [of_season.get("shares", {}) for of_season in facts.of_source(source.name).values()]
        rows = []
        for column in source.columns:
            known = [of_season[column.name] for of_season in shares if column.name in of_season]
            if known:
                mean, largest = shares_together(known)
                rows.append([f"{plain(source.title)}: {plain(column.text)}", share(mean), share(largest)])
        return [table(["share of a sample", "mean", "largest"], rows)] if rows else []

    def faults(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        """Sentences on scenes that were not used."""
        return []

    def limits(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        """Its known limits."""
        return []
