"""The texts of a datasheet about a source; each source has its own, these are the defaults."""

from __future__ import annotations

from collections.abc import Mapping

from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.facts import everything
from h2crop_data.datasheet.markdown import plain, share, table

#: Values of the coordinates of a first block, by name.
Coordinates = Mapping[str, list[float]]


class SourceWords:
    """The words on one source of a release; lists are lines or paragraphs of Markdown."""

    def summary(self, source: SourceFormat) -> str:
        """What the store holds of it, in half a sentence."""
        return plain(source.title)

    def sample(self, source: SourceFormat) -> str:
        """What makes a sample, to follow “A sample is a square cell of ground”; empty where it makes none."""
        return ""

    def origin(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        """Its origin and its licence."""
        return [f"- **{plain(source.title)}**: its licence is unknown to this h2crop; ask the provider of the source."]

    def bands(self, source: SourceFormat, tables: IndexTables, coordinates: Coordinates) -> list[list[str]]:
        """Rows of the table of reflectance."""
        return []

    def pixels(self, source: SourceFormat) -> str:
        """Which of its pixels that table counts: `of EnMAP those without a flag`; empty where all with a value."""
        return ""

    def quality(self, source: SourceFormat, tables: IndexTables) -> list[list[str]]:
        """Paragraphs and tables on its quality, each a list of lines: by default the shares among its columns."""
        samples = everything(tables)
        rows = []
        for column in source.columns:
            if column.is_share and column.dtype == "number" and column.name in samples:
                values = samples[column.name].dropna()
                words = f"{plain(source.title)}: {plain(column.text)}"
                rows += [[words, share(float(values.mean())), share(float(values.max()))]] if len(values) else []
        return [table(["share of a sample", "mean", "largest"], rows)] if rows else []

    def faults(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        """Sentences on scenes that were not used."""
        return []

    def limits(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        """Its known limits."""
        return []
