"""Excluding blocks or scenes from later releases, and deleting releases that are no longer needed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from h2crop_data.cube.reading import read_index
from h2crop_data.cube.release_numbers import (
    attributes_of_copy,
    copied_releases,
    copy_of_root,
    current_attributes,
    index_files_by_release,
)
from h2crop_data.cube.released_tables import named_files, released_among
from h2crop_data.cube.retraction import NEVER_BUILT, REBUILT, Retractions, released_retractions
from h2crop_data.cube.root import RootAttributes
from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.errors import PlanError, StoreError
from h2crop_data.pipeline.extension import kept_plans
from h2crop_data.pipeline.finished import finished_plans, left_with, refuse_lost_plans, unfinished_blocks
from h2crop_data.pipeline.plan import SeasonPlan, replaced_by, with_replaced
from h2crop_data.pipeline.sealing import NothingFinishedError, seal_store
from h2crop_data.sources.formats import layout_of_root
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.storage import Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retraction:
    """The blocks and scenes of a retraction.

    blocks: season -> numbers of its blocks. scenes: ids. samples: how many these blocks have. never_built: by season,
    those of the blocks that are not built and will not be built; their samples may be planned again.
    """

    blocks: dict[int, list[int]]
    scenes: list[str]
    samples: int
    never_built: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class PruneReport:
    """The report of pruning.

    store: as it was given. releases, kept: numbers of the releases that were deleted, and of those that stay.
    files, bytes: how many files were deleted, and their size.
    """

    store: str
    releases: list[int]
    kept: list[int]
    files: int
    bytes: int


def find_retraction(store: str | Path, blocks: Mapping[int, Sequence[int]], scenes: Sequence[str]) -> Retraction:
    """What keeping some blocks (by season) and everything made from some scenes out of a store would take out.

    Raises PlanError for a block or scene the store does not have, or a block that is being rebuilt, StoreError where a
    plan of the newest release is lost.
    """
    files = open_storage(store)
    return retraction_of(files, str(store), Retractions.read(files), blocks, scenes)


def retraction_of(
    files: Storage, store: str, retractions: Retractions, blocks: Mapping[int, Sequence[int]], scenes: Sequence[str]
) -> Retraction:
    """The same for the storage of a store. retractions: those before it."""
    plans = kept_plans(files, ())
    if plans:
        # Before the record is written: no release could be made with it.
        refuse_lost_plans(files, {plan.season for plan in plans})
    gone = with_replaced(retractions, finished_plans(files, plans, retractions))
    found = retraction_in(plans, gone, store, blocks, scenes, scenes_of_masks(store))
    return with_unbuilt(files, store, plans, retractions, found)


def scenes_of_masks(store: str | Path) -> dict[str, set[tuple[int, int]]]:
    """Scene -> the blocks (season, number) of the newest release whose clouds were masked with it."""
    found: dict[str, set[tuple[int, int]]] = {}
    root = current_attributes(open_storage(store))
    blocks = read_index(store, "blocks") if root else pd.DataFrame()
    if root is None or "dates" not in blocks:
        return found
    columns = [column.name for column in layout_of_root(root).date_columns() if column.scenes]
    for season in sorted(set(blocks["season"])):
        if f"dates-{season}" not in root["index"]:
            continue
        dates = read_index(store, f"dates-{season}")
        here = [column for column in columns if column in dates]
        named = {
            digest: {name for column in here for names in rows[column].dropna() for name in names}
            for digest, rows in dates.groupby("masks")
        }
        of_season = blocks[(blocks["season"] == season) & blocks["dates"].notna()]
        for block, digests in zip(of_season["block"], of_season["dates"], strict=True):
            for name in {name for digest in digests for name in named.get(digest, ())}:
                found.setdefault(name, set()).add((int(season), int(block)))
    return found


def retraction_in(
    plans: Sequence[SeasonPlan],
    before: Retractions,
    store: str,
    blocks: Mapping[int, Sequence[int]],
    scenes: Sequence[str],
    of_masks: Mapping[str, set[tuple[int, int]]],
) -> Retraction:
    """The same from the plans of a store and what was retracted before. of_masks: blocks by scenes of their masks."""
    if not plans:
        raise PlanError(f"{store} has no plans (.build/plan): retract where it was built, or import it again")
    sizes: dict[tuple[int, int], int] = {}
    of_scene: dict[str, set[tuple[int, int]]] = {name: set(keys) for name, keys in of_masks.items()}
    for plan in plans:
        lists = [column.name for column in plan.layout.block_columns() if column.scenes]
        for row in plan.blocks.to_dict("records"):
            key = (plan.season, int(row["block"]))
            sizes[key] = int(row["samples"])
            for scene in [row["scene"], *(name for column in lists for name in row[column])]:
                of_scene.setdefault(scene, set()).add(key)
    wanted = {(season, block) for season, numbers in blocks.items() for block in numbers}
    unknown = [f"block {block} of {season}" for season, block in sorted(wanted - set(sizes))]
    unknown += [f"scene {scene}" for scene in scenes if scene not in of_scene]
    if unknown:
        raise PlanError(
            f"{store} has no {', no '.join(unknown)}; see the index of blocks and scenes (`h2crop inspect {store}`)"
        )
    wanted |= {key for scene in scenes for key in of_scene[scene]}
    wanted -= {(season, block) for season, of_season in before.blocks.items() for block in of_season}
    by_season: dict[int, list[int]] = {}
    for season, block in sorted(wanted):
        by_season.setdefault(season, []).append(block)
    return Retraction(by_season, list(scenes), sum(sizes[key] for key in wanted))


def retract_from_store(
    store: str | Path, blocks: Mapping[int, Sequence[int]], scenes: Sequence[str], reason: str
) -> tuple[Retraction, int]:
    """Exclude blocks, and everything made from some scenes, from the next release, and make it; gives its number.

    The samples stay readable in the releases that have them. `--extend` does not use a retracted scene again; samples
    of retracted blocks may return in new blocks. A block that is not built yet will not be built, so that the release
    can be made without it. The number is 0 where there is nothing to make a release of yet. Raises PlanError for a
    block or scene the store does not have, or a block that is being rebuilt, StoreError where a plan of the newest
    release is lost.
    """
    if not reason.strip():
        raise PlanError("give a reason: it is stored permanently in the index")
    if reason.startswith(REBUILT):
        raise PlanError(
            f"the reason must not begin with {REBUILT!r}, which marks blocks that `--changed rebuild` replaced"
        )
    if reason.startswith(NEVER_BUILT):
        raise PlanError(f"the reason must not begin with {NEVER_BUILT!r}, which is added to blocks that were not built")
    with hold_store(store) as builder:
        retractions = Retractions.read(builder.storage)
        found = retraction_of(builder.storage, str(store), retractions, blocks, scenes)
        for season, numbers in found.blocks.items():
            of_season, never = retractions.blocks.setdefault(season, {}), found.never_built.get(season, ())
            for block in numbers:
                of_season[block] = f"{NEVER_BUILT}{reason}" if block in never else reason
        for scene in found.scenes:
            retractions.scenes.setdefault(scene, reason)
        retractions.write(builder.storage)
        log.info("%s: %d samples retracted, of %s: %s", store, found.samples, found.blocks, reason)
        try:
            return found, seal_store(builder).number
        except NothingFinishedError:
            return found, 0


def with_unbuilt(
    files: Storage, store: str, plans: Sequence[SeasonPlan], retractions: Retractions, found: Retraction
) -> Retraction:
    """A retraction with what is said of blocks that are not built: they never will be.

    retractions: those before it. Raises PlanError for a block of the newest release that lost its marker, and for one
    that is being rebuilt: its samples would come back.
    """
    unbuilt: dict[int, set[int]] = {}
    released = (current_attributes(files) or {"seasons": {}})["seasons"]
    known = released_retractions(files)
    for season, numbers in found.blocks.items():
        missing = unfinished_blocks(files, [plan for plan in plans if plan.season == season]) & set(numbers)
        count = released.get(str(season), {"blocks": 0})["blocks"]
        lost = sorted(block for block in missing - known.never_built(season) if block < count)
        if lost:
            raise PlanError(f"{store}: block {lost[0]} of {season} has lost its marker; rerun the build first")
        if missing:
            unbuilt[season] = missing
    never_built = left_with(plans, unbuilt)
    after = Retractions({season: dict(blocks) for season, blocks in retractions.blocks.items()})
    after.add(Retractions({season: dict.fromkeys(blocks, NEVER_BUILT) for season, blocks in never_built.items()}))
    gone = with_replaced(after, finished_plans(files, plans, after))
    sizes = {
        (plan.season, int(block)): int(samples)
        for plan in plans
        for block, samples in zip(plan.blocks["block"], plan.blocks["samples"], strict=True)
    }
    for plan in plans:
        begun = replaced_by(plan, after).keys() - gone.blocks.get(plan.season, {}).keys()
        both = sorted(begun & set(found.blocks.get(plan.season, ())))
        if both:
            rebuilt = plan.replaces[both[0]].split(":")[0]
            raise PlanError(
                f"{store}: block {both[0]} of {plan.season} is being {rebuilt}; finish that build first, then retract "
                "the new block"
            )
    blocks = {
        season: sorted(
            {*found.blocks.get(season, ()), *never_built.get(season, ())} - retracted_of(retractions, season)
        )
        for season in sorted({*found.blocks, *never_built})
    }
    return Retraction(
        blocks,
        found.scenes,
        sum(sizes[season, block] for season, numbers in blocks.items() for block in numbers),
        {season: sorted(numbers) for season, numbers in sorted(never_built.items())},
    )


def retracted_of(retractions: Retractions, season: int) -> set[int]:
    """The blocks of a season that were retracted."""
    return set(retractions.blocks.get(season, ()))


def prune_store(store: str | Path | Storage, keep: Sequence[int]) -> PruneReport:
    """Delete all releases except the newest and those to keep, and the shards that only they need.

    Such shards are those of retracted and of rebuilt blocks; nothing else of a store ever falls out of use. Files of
    the index that a kept release names stay, in whichever folder they are. The copy of the root of a release goes
    first: an interrupted run leaves no release that lacks a file, and the next one deletes what is left of it.
    Raises PlanError for a release to keep that is not there, StoreError where the manifest of a kept one is damaged.
    """
    with hold_store(store) as builder:
        attributes = current_attributes(builder.storage)
        if attributes is None:
            raise StoreError(f"{builder.location} has no release yet; finish the build")
        newest = int(attributes["release"])
        copies = sorted({*copied_releases(builder.storage), newest})
        missing = sorted(set(keep) - set(copies))
        if missing:
            raise PlanError(f"{builder.location} has no release {missing[0]}; it has {', '.join(map(str, copies))}")
        kept = sorted({*keep, newest})
        roots = [attributes_of_copy(builder.storage, release) for release in kept if release != newest]
        gone = unneeded_index_files(builder.storage, kept, [*roots, attributes])
        files = [file for of_release in gone.values() for file in of_release]
        files += unneeded_shards(builder, [*roots, attributes])
        for name, _ in files:
            builder.storage.delete(name)
        log.info("%s: %d files deleted, releases that stay: %s", builder.location, len(files), kept)
        return PruneReport(
            builder.location,
            releases=sorted(gone),
            kept=kept,
            files=len(files),
            bytes=sum(size for _, size in files),
        )


def unneeded_index_files(
    storage: Storage, kept: Sequence[int], roots: Sequence[RootAttributes]
) -> dict[int, list[tuple[str, int]]]:
    """Name and size of the index files that no kept release needs, by release, the copies of roots first.

    roots: the attributes of the kept releases, the newest last. Folders with a higher number than that stay: a sealing
    is in progress there, or they keep the number from being used again.
    """
    needed = {path for attributes in roots for path in named_files(attributes)}
    gone = {}
    for release, files in sorted(index_files_by_release(storage).items()):
        copy = copy_of_root(release)
        unneeded = [file for file in files if file[0] not in needed and release not in kept]
        if unneeded and release < kept[-1]:
            gone[release] = sorted(unneeded, key=lambda file: (file[0] != copy, file[0]))
    return gone


def unneeded_shards(builder: StoreBuilder, roots: Sequence[RootAttributes]) -> list[tuple[str, int]]:
    """The shards of retracted and of rebuilt blocks that no kept release has, with their sizes.

    roots: the attributes of the kept releases. Raises StoreError where a manifest of theirs is lost or damaged.
    """
    shards: dict[str, int] = {}
    retractions = Retractions.read(builder.storage)
    # What an unfinished part replaces is in the next release too.
    finished = finished_plans(builder.storage, kept_plans(builder.storage, ()), retractions)
    gone = with_replaced(retractions, finished)
    layout = layout_of_root(roots[-1])
    for season, blocks in gone.blocks.items():
        sizes = builder.sizes(season)
        for marker in builder.read_markers(season, sorted(blocks), layout):
            paths = [file["path"] for file in marker["files"]] if marker else []
            shards |= {path: sizes[path] for path in paths if path in sizes}
    for attributes in roots if shards else ():
        for path in released_among(builder.storage, attributes, list(shards)):
            del shards[path]
    return list(shards.items())
