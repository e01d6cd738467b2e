"""What was read of declarations, in words: rows that were repaired or left out, crop codes without a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from h2crop_data.datasheet.markdown import listing
from h2crop_data.datasheet.quality import DECLARED, REPAIRED_ROWS, ROWS_LEFT_OUT, with_reasons
from h2crop_data.sources.parcels.declarations import ROLES

#: Crop codes that a line names.
NAMED = 10


def explain_declarations(facts: Mapping[str, Any]) -> list[str]:
    """Lines on the counts of rows that were not taken as they are, and on crop codes in no table, of both years."""
    lines = []
    for role in ROLES:
        found = facts.get(role, {})
        lines += [f"{DECLARED[role]}: {line}" for line in uncommon_rows(found.get("counts", {}))]
        lines += [f"{DECLARED[role]}, {line}" for line in unmapped_lines(found.get("unmapped", {}))]
    return lines


def unmapped_lines(unmapped: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A line a country: the crop codes that are in no table, the most frequent first, with their parcels."""
    lines = []
    for country, codes in sorted(unmapped.items()):
        named = [f"{code or 'no code'} ({number})" for code, number in Counter(codes).most_common()]
        lines.append(
            f"{country}: {len(named)} crop code(s) in no table, unknown in every tier: {listing(named, NAMED)}"
        )
    return lines


def uncommon_rows(counts: Mapping[str, int]) -> list[str]:
    """A line on the rows of declarations that were repaired, left out, or declared with several crops."""
    parts = []
    for told, words in (("repaired", REPAIRED_ROWS), ("left out", ROWS_LEFT_OUT)):
        if sum(counts.get(name, 0) for name in words):
            parts.append(f"{told} {with_reasons(dict(counts), words)}")
    if counts.get("contradictory"):
        parts.append(f"{counts['contradictory']} declared with several crops, unknown in every tier")
    return [f"{counts['read']} row(s) read: {'; '.join(parts)}"] if parts else []
