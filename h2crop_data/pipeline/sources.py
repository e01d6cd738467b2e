"""What was read of the sources of a season: counts, crop codes without a class, and what needs a look."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from h2crop_data.datasheet.markdown import listing
from h2crop_data.datasheet.quality import DECLARED, REPAIRED_ROWS, ROWS_LEFT_OUT, with_reasons
from h2crop_data.pipeline.plan import ROLES, SeasonPlan
from h2crop_data.pipeline.scenes import SceneDecision

#: Crop codes, and scenes of one warning, that a line names.
NAMED = 10


def source_facts(plan: SeasonPlan) -> dict[str, Any]:
    """What a plan read, as plain data: by year of declarations `counts` and `unmapped`; and `warnings` in words.

    `unmapped` has the number of parcels by country and crop code, for codes that are in no crop table.
    """
    facts: dict[str, Any] = {}
    warnings = scene_warnings(plan.scenes)
    if plan.recipe.parcels:
        for role in ROLES:
            declarations = getattr(plan, role)
            facts[role] = {"counts": declarations.counts, "unmapped": declarations.unmapped}
            warnings += [f"{DECLARED[role]}: {note}" for note in declarations.notes]
    return {**facts, "warnings": warnings}


def scene_warnings(scenes: Sequence[SceneDecision]) -> list[str]:
    """The warnings of scenes, those that say the same but for their figures as one line with the scenes' names."""
    alike: dict[str, list[SceneDecision]] = {}
    for scene in scenes:
        if scene.warning:
            alike.setdefault(without_figures(scene.warning), []).append(scene)
    lines = []
    for group in alike.values():
        names = listing([scene.id for scene in group], NAMED)
        lines.append(f"{len(group)} scene(s): {group[0].warning} ({names})")
    return lines


def without_figures(text: str) -> str:
    """A text with every number as N, so that those that differ in figures alone can be counted."""
    return re.sub(r"\d[\d.]*", "N", text)


def unmapped_codes(unmapped: Mapping[str, Mapping[str, int]]) -> list[str]:
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


def explain_sources(facts: Mapping[str, Any]) -> list[str]:
    """The same in words for people; of the counts those of rows that were not taken as they are."""
    lines = []
    for role in ROLES:
        found = facts.get(role, {})
        lines += [f"{DECLARED[role]}: {line}" for line in uncommon_rows(found.get("counts", {}))]
        lines += [f"{DECLARED[role]}, {line}" for line in unmapped_codes(found.get("unmapped", {}))]
    return [*lines, *(f"warning: {warning}" for warning in facts["warnings"])]
