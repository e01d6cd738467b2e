"""The known limits of a release: those of the method, and those found in its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from h2crop_data.cube.schema import StoreLayout
from h2crop_data.datasheet.facts import ReleaseFacts, split_names
from h2crop_data.datasheet.markdown import plain, plural
from h2crop_data.datasheet.words import SourceWords


def limits_section(facts: ReleaseFacts, layout: StoreLayout, words: Mapping[str, SourceWords]) -> list[str]:
    """The section of known limits."""
    found = [limit for source in layout.sources for limit in words[source.name].limits(source, facts)]
    found += place_limits(facts, layout)
    return ["## Known limits", "", *(f"- {limit}" for limit in found)]


def place_limits(facts: ReleaseFacts, layout: StoreLayout) -> list[str]:
    """Ground and splits that have no sample, samples that have no place."""
    limits = []
    if any(of_season["cells"] for of_season in facts.seasons.values()):
        diagonal = layout.cell_size * math.sqrt(2) / 1000
        limits.append(
            f"Each cell lies in a single UTM zone: a strip of at most {diagonal:.1f} km on either side of a zone "
            "border belongs to no cell."
        )
    lost = sum(of_season["unplaced"] for of_season in facts.seasons.values())
    if lost:
        limits.append(f"The place of {plural(lost, 'sample')} is not known exactly: `x0` and `y0` are missing.")
    empty = [plain(name) for name in split_names(facts) if not facts.splits[name]]
    if empty:
        limits.append(f"There is no sample in {' or '.join(empty)}.")
    return limits
