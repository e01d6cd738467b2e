"""Changes since finished blocks were built: blocks whose inputs have changed, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from h2crop_data.cube.release_numbers import current_attributes
from h2crop_data.cube.retraction import index_rows
from h2crop_data.datasheet.markdown import listing
from h2crop_data.grid import Cell
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.planning import (
    PlannedBlocks,
    block_places,
    matching_units,
    planned_sightings,
    sighting,
    with_hashes,
    with_source_columns,
)
from h2crop_data.pipeline.survey import Survey
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.changes import ChangeKind, InputChange
from h2crop_data.sources.registry import sources_of, used_sources
from h2crop_data.sources.source import BlockInputs, Source
from h2crop_data.storage.storage import Storage

#: What to do about finished blocks whose inputs have changed: list them, or build their samples anew in new blocks.
Changed = Literal["report", "rebuild"]
#: Blocks, scenes that a line names.
NAMED = 10
#: Why a block is built anew whose own inputs did not change.
MATCHED_TOGETHER = "their scene is matched as a whole, and the inputs of other blocks of it have changed"
#: Why a block is kept although its inputs changed.
LOST = (
    "their samples cannot be made any more: their scene or labels do not exist now, or do not meet the recipe's limits"
)
#: What a line calls each kind of change, before the scenes.
KIND_WORDS: dict[ChangeKind, str] = {
    "added": "new scenes",
    "acquired since": "scenes of months that had not happened yet",
    "reprocessed": "reprocessed products",
    "gone": "scenes that are no longer available or used",
    "content": "other parcels or crop codes",
    "crop tables": "another crop table",
    "settings": "other settings in the recipe",
    "algorithm": "other algorithms in this h2crop",
    "matching": "other scenes that their scene is matched with",
    "unread": "scenes that could not be read before",
    "other": "other inputs",
}


@dataclass(frozen=True)
class ChangedBlock:
    """A block whose inputs have changed since it was built, or that lacks scenes that are available now."""

    season: int
    block: int
    #: Array groups that would come out differently; none where scenes could not be read.
    groups: tuple[str, ...]
    #: Why, by the name of the source.
    causes: Mapping[str, tuple[InputChange, ...]]
    #: Why it cannot be built anew; empty where it can.
    kept: str = ""

    @property
    def reason(self) -> str:
        """Why it is rebuilt, in short, for the index."""
        if not self.groups:
            return "scenes that could not be read before can be read now"
        return f"the inputs of {' and '.join(self.causes)} have changed"


@dataclass(frozen=True)
class SeasonChanges:
    """What changed for the finished blocks of a season."""

    changed: list[ChangedBlock]
    #: Blocks on ground that was not looked at, so that nothing can be said of them.
    not_compared: int
    #: Blocks with samples that cannot be made today.
    lost: frozenset[int] = frozenset()

    def rebuilt(self, together: Sequence[set[int]]) -> dict[int, str]:
        """The blocks to rebuild, each with the reason. together: blocks that are rebuilt if one of them is.

        Those with samples that cannot be made today are kept.
        """
        reasons = {one.block: one.reason for one in self.changed if not one.kept}
        for group in together:
            if any(block in reasons for block in group):
                others = sorted(block for block in group if block not in reasons and block not in self.lost)
                reasons |= dict.fromkeys(others, MATCHED_TOGETHER)
        return reasons


def find_changes(
    own: Sequence[SeasonPlan],
    survey: Survey,
    gone: Collection[int],
    files: Storage,
    *,
    probe: bool,
    progress: Progress = silent,
) -> SeasonChanges:
    """The blocks of a season's plans whose inputs have changed.

    gone: blocks that were retracted or are being replaced, and unfinished ones. probe: whether files that could not be
    read are tried.
    """
    changed: list[ChangedBlock] = []
    not_compared = 0
    unread = unread_scenes(files, own)
    lost = lost_samples(own, survey)
    for plan in own:
        on_ground = blocks_on(plan, survey)
        comparable = on_ground - set(gone)
        not_compared += len(set(plan.blocks["block"]) - on_ground - set(gone))
        of_plan = changed_blocks(plan, comparable, survey)
        rest = comparable - {one.block for one in of_plan}
        lacking = {block: scenes for block, scenes in unread.items() if block in rest}
        of_plan += unread_blocks(plan, lacking, survey, probe=probe, progress=progress)
        changed += [replace(one, kept=LOST) if one.block in lost else one for one in of_plan]
    return SeasonChanges(sorted(changed, key=lambda one: one.block), not_compared, lost)


def blocks_on(plan: SeasonPlan, survey: Survey) -> set[int]:
    """The blocks of a plan all of whose cells the survey looked at."""
    cells = zip(plan.samples["block"].tolist(), plan.samples["cell"], strict=True)
    missed = {block for block, cell in cells if Cell.parse(cell) not in survey.squares}
    return set(plan.blocks["block"]) - missed


def changed_blocks(plan: SeasonPlan, blocks: set[int], survey: Survey) -> list[ChangedBlock]:
    """Those of some blocks of a plan whose inputs have changed."""
    if not blocks:
        return []
    again = planned_today(plan, survey)
    again = replace(again, blocks=with_hashes(again))
    seen = set(again.blocks["block"])
    rows = plan.blocks[plan.blocks["block"].isin(seen)]
    old, new = PlannedBlocks(plan), PlannedBlocks(again)
    hashes = list(zip(rows.to_dict("records"), again.blocks.to_dict("records"), strict=True))
    groups: dict[int, list[str]] = defaultdict(list)
    causes: dict[int, dict[str, tuple[InputChange, ...]]] = defaultdict(dict)
    for source in sources_of(survey.recipe):
        key = f"hash_{source.group}"
        differing = [now["block"] for before, now in hashes if before.get(key) != now[key] and now["block"] in blocks]
        if not differing:
            continue
        settings, pinned = plan.recipe.settings_of(source.name), plan.pinned.get(source.name)
        inputs = BlockInputs(settings, pinned, list(map(old.block, differing)), plan.planned)
        settings, pinned = survey.recipe.settings_of(source.name), again.pinned[source.name]
        today = BlockInputs(settings, pinned, list(map(new.block, differing)))
        for block, found in zip(differing, causes_of(source, plan, inputs, today), strict=True):
            groups[block].append(source.group)
            causes[block][source.name] = tuple(found)
    return [ChangedBlock(plan.season, block, tuple(groups[block]), causes[block]) for block in sorted(causes)]


def planned_today(plan: SeasonPlan, survey: Survey) -> SeasonPlan:
    """The blocks of a plan on ground that a survey looked at, with the inputs that they would have today.

    Those that are not part of the release any more too: what a scene is matched with follows from all blocks.
    """
    seen = blocks_on(plan, survey)
    samples = plan.samples[plan.samples["block"].isin(seen)]
    rows = plan.blocks[plan.blocks["block"].isin(seen)].reset_index(drop=True)
    # With the sources of the survey; of those the plan has more, what it pinned.
    pinned = {**plan.pinned, **survey.pinned}
    return replace(
        plan,
        recipe=survey.recipe,
        samples=samples,
        blocks=with_source_columns(used_sources(survey.recipe), pinned, rows, block_places(samples)),
        scenes=survey.scenes,
        pinned=pinned,
        taxonomy_hash=survey.taxonomy.hash,
    )


def causes_of(source: Source, plan: SeasonPlan, before: BlockInputs, now: BlockInputs) -> list[list[InputChange]]:
    """For each of some blocks of a plan why a source would make something else of it; never empty."""
    common: list[InputChange] = []
    if plan.algorithm.get(source.group) != source.algorithm:
        common.append(InputChange("algorithm"))
    if source.identity(before.settings) != source.identity(now.settings):
        common.append(InputChange("settings"))
    used = before.settings is not None and now.settings is not None
    of_blocks = source.input_changes(before, now) if used else [[] for _ in now.blocks]
    return [[*common, *own] or [InputChange("other")] for own in of_blocks]


def unread_scenes(files: Storage, own: Sequence[SeasonPlan]) -> dict[int, dict[str, set[str]]]:
    """By block of the newest release and source, the scenes that could not be read when it was built."""
    found: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    attributes = current_attributes(files)
    table = f"samples-{own[0].season}"
    if attributes is None or table not in attributes["index"]:
        return found
    sources = {source.name: source for plan in own for source, _ in used_sources(plan.recipe)}
    columns = {name: source.faults["gaps"] for name, source in sources.items() if "gaps" in source.faults}
    for name, column in columns.items():
        for block, scenes in index_rows(files, attributes, table, ["block", column]):
            if scenes:
                found[block][name] |= set(scenes)
    return found


def unread_blocks(
    plan: SeasonPlan,
    lacking: Mapping[int, Mapping[str, set[str]]],
    survey: Survey,
    *,
    probe: bool,
    progress: Progress = silent,
) -> list[ChangedBlock]:
    """Blocks of a plan that lack scenes which could not be read when they were built; the inputs are as before.

    lacking: those scenes by block and source. probe: whether their files are tried; a block none of whose scenes can be
    read is kept.
    """
    planned = PlannedBlocks(plan)
    blocks = sorted(lacking)
    scenes = [set().union(*lacking[block].values()) for block in blocks]
    tried = [dict.fromkeys(sorted(names), "it is no longer used" if probe else "") for names in scenes]
    if probe:
        asked = [(names, planned.block(block).place) for block, names in zip(blocks, scenes, strict=True)]
        for source, settings in used_sources(survey.recipe):
            found = source.unreadable(settings, survey.pinned[source.name], asked, progress)
            tried = [{**known, **of_source} for known, of_source in zip(tried, found, strict=True)]
    changed = []
    for block, of_block in zip(blocks, tried, strict=True):
        causes = {name: (InputChange("unread", tuple(sorted(lost))),) for name, lost in lacking[block].items()}
        kept = ""
        if all(of_block.values()):
            kept = "; ".join(f"{scene}: {reason}" for scene, reason in list(of_block.items())[:NAMED])
        changed.append(ChangedBlock(plan.season, block, (), causes, kept))
    return changed


def lost_samples(plans: Sequence[SeasonPlan], survey: Survey) -> frozenset[int]:
    """The blocks of a season's plans with samples that could not be made today."""
    candidates = {sighting(candidate) for candidate in survey.candidates}
    return frozenset(
        block
        for plan in plans
        for block, sample in zip(plan.samples["block"].tolist(), planned_sightings(plan), strict=True)
        if sample not in candidates
    )


def built_together(plans: Sequence[SeasonPlan], survey: Survey, gone: Collection[int]) -> list[set[int]]:
    """Blocks of a season whose scenes are matched as a whole: samples of one scene must not have several shifts.

    gone: blocks that are not part of it.
    """
    matched: dict[int, set[str]] = {}
    for plan in plans:
        today = planned_today(plan, survey)
        for block, units in zip(PlannedBlocks(today), matching_units(today), strict=True):
            if units:
                matched[block.number] = {block.scene, *(unit.id for unit in units)}
    groups = [group - set(gone) for group in sharing_names(matched)]
    return [blocks for blocks in groups if len(blocks) > 1]


def sharing_names(names: Mapping[int, Collection[str]]) -> list[set[int]]:
    """Blocks in groups: those that share a name, directly or through blocks between them. Linear in the names."""
    having: dict[str, list[int]] = defaultdict(list)
    for block, own in names.items():
        for name in own:
            having[name].append(block)
    groups, left = [], dict(names)
    while left:
        first, own = left.popitem()
        group, ahead = {first}, list(own)
        while ahead:
            for block in having.pop(ahead.pop(), ()):
                ahead += left.pop(block, ())
                group.add(block)
        groups.append(group)
    return groups


def explain_changes(recipe: Recipe, changed: Sequence[ChangedBlock], store: str, mode: Changed = "report") -> list[str]:
    """The changes by array group, and what was or can be done about them, one line each."""
    lines = []
    for source in sources_of(recipe):
        of_source = [one for one in changed if source.name in one.causes]
        differing = [one for one in of_source if one.groups]
        unread = [one for one in of_source if not one.groups]
        if differing:
            named = f"{blocks_in_words(differing)}: {kinds_in_words(differing, source)}"
            became = what_became(differing, mode, source.remedy.format(store=store))
            lines.append(f"{source.group}: inputs have changed for {named}; {became}")
        if unread:
            named = f"{blocks_in_words(unread)} lack {kinds_in_words(unread, source)}"
            remedy = f"`h2crop build RECIPE --extend --changed rebuild --out {store}` retries them"
            lines.append(f"{source.group}: {named}; {what_became(unread, mode, remedy)}")
    alike: dict[str, list[ChangedBlock]] = defaultdict(list)
    for one in changed:
        if one.kept:
            alike[one.kept].append(one)
    verb = "are kept as they are" if mode == "rebuild" else "would be kept unchanged"
    return lines + [f"{blocks_in_words(of_reason)} {verb}: {reason}" for reason, of_reason in alike.items()]


def what_became(blocks: Sequence[ChangedBlock], mode: Changed, remedy: str) -> str:
    """What was done about some changed blocks, or can be done."""
    if mode == "report":
        return f"kept as they are; {remedy}"
    kept = [one for one in blocks if one.kept]
    return f"{len(blocks) - len(kept)} rebuilt, {len(kept)} kept" if kept else "rebuilt"


def blocks_in_words(blocks: Sequence[ChangedBlock]) -> str:
    """How many blocks, and some of their numbers."""
    return f"{len(blocks)} block(s) ({listing([str(one.block) for one in blocks], NAMED)})"


def kinds_in_words(blocks: Sequence[ChangedBlock], source: Source) -> str:
    """The kinds of change of a source's inputs, with the scenes and how many blocks each concerns."""
    scenes: dict[ChangeKind, dict[str, None]] = defaultdict(dict)
    counts: Counter[ChangeKind] = Counter()
    for one in blocks:
        for cause in one.causes[source.name]:
            scenes[cause.kind] |= dict.fromkeys(cause.scenes)
        counts.update({cause.kind for cause in one.causes[source.name]})
    texts = []
    for kind in (kind for kind in KIND_WORDS if counts[kind]):
        named = f" ({listing(sorted(scenes[kind]), NAMED)})" if scenes[kind] else ""
        share = f" in {counts[kind]} of them" if counts[kind] < len(blocks) else ""
        texts.append(f"{KIND_WORDS[kind]}{named}{share}")
    return ", ".join(texts)
