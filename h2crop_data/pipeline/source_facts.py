"""Facts of the sources of a season: counts, unknown codes, and warnings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from h2crop_data.datasheet.markdown import listing
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.seasons import missing_months
from h2crop_data.plugins import installed_sources
from h2crop_data.sources.registry import BUILT_IN, source_of, used_sources
from h2crop_data.sources.scenes import SceneDecision

#: Scenes of one warning that a line names.
NAMED = 10


def source_facts(plan: SeasonPlan) -> dict[str, Any]:
    """What a plan read, as plain data (`sources` of the index), and `warnings` in words."""
    facts: dict[str, Any] = {}
    warnings = scene_warnings(plan.scenes)
    for source, _ in used_sources(plan.recipe):
        more, notes = source.what_was_read(plan.pinned[source.name])
        facts |= more
        warnings += notes
    if plan.planned is not None:
        warnings.insert(0, missing_months(plan.season, plan.planned))
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
    """A text with every number as N, so that those that differ in figures alone can be counted; `sentinel2` stays."""
    return re.sub(r"(?<![a-z])\d[\d.]*", "N", text)


def reasons_left_out(scenes: Sequence[SceneDecision]) -> Counter[str]:
    """Why scenes are not used, and how many: reasons that differ in figures and names of scenes alone are one."""
    return Counter(without_figures(without_names(scene.reason)) for scene in scenes if not scene.taken)


def without_names(text: str) -> str:
    """A text with every name of a scene, a word with `_` and a digit, as `…`."""
    return re.sub(r"(?=[\w-]*_)(?=[\w-]*\d)[\w-]+", "…", text)


def explain_sources(facts: Mapping[str, Any]) -> list[str]:
    """The same in words for people; of the counts those of rows that were not taken as they are."""
    others = [source_of(name) for name in facts if name in installed_sources()]
    lines = [line for source in (*BUILT_IN, *others) for line in source.explain(facts)]
    return [*lines, *(f"warning: {warning}" for warning in facts["warnings"])]
