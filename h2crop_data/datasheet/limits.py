"""The known limits of a release: those of the method, and those found in its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.datasheet.facts import cells_of, everything, split_names
from h2crop_data.datasheet.markdown import plain, plural
from h2crop_data.datasheet.words import SourceWords


def limits_section(tables: IndexTables, layout: StoreLayout, words: Mapping[str, SourceWords]) -> list[str]:
    """The section of known limits."""
    found = [limit for source in layout.sources for limit in words[source.name].limits(source, tables)]
    found += place_limits(tables, layout)
    return ["## Known limits", "", *(f"- {limit}" for limit in found)]


def place_limits(tables: IndexTables, layout: StoreLayout) -> list[str]:
    """Ground and splits that have no sample, samples that have no place."""
    samples = everything(tables)
    limits = []
    if cells_of(samples):
        diagonal = layout.cell_size * math.sqrt(2) / 1000
        limits.append(
            f"Each cell lies in a single UTM zone: a strip of at most {diagonal:.1f} km on either side of a zone "
            "border belongs to no cell."
        )
    lost = int(samples["x0"].isna().sum()) if "x0" in samples else 0
    if lost:
        limits.append(f"The place of {plural(lost, 'sample')} is not known exactly: `x0` and `y0` are missing.")
    empty = [plain(name) for name in split_names(tables) if not (samples["split"] == name).any()]
    if empty:
        limits.append(f"There is no sample in {' or '.join(empty)}.")
    return limits
