"""From finished blocks to a release: the plans and markers of a store, gathered for sealing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import geopandas as gpd
import pandas as pd

from h2crop_data import __version__
from h2crop_data.constants import NONE
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.cube.columns import in_declared_order, with_nullable_integers
from h2crop_data.cube.crop_tables import crop_table_texts
from h2crop_data.cube.release_numbers import current_attributes
from h2crop_data.cube.retraction import NEVER_BUILT, REBUILT, SCENE_REASON, Retractions, complete_retractions
from h2crop_data.cube.root import OriginIdentity
from h2crop_data.cube.schema import FORMAT_VERSION, StoreLayout
from h2crop_data.cube.seal import SeasonInputs, seal
from h2crop_data.cube.season import FinishedSeason, stacked_coordinates
from h2crop_data.cube.statistics import total
from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.errors import MissingFileError, PlanError, StoreError
from h2crop_data.pipeline.dates import table_of_dates
from h2crop_data.pipeline.engine import Workers
from h2crop_data.pipeline.estimate import empty_months
from h2crop_data.pipeline.finished import finished_parts, refuse_lost_plans
from h2crop_data.pipeline.frames import frame_warnings, frames_of_season
from h2crop_data.pipeline.plan import PLAN_FOLDER, SeasonPlan, kept_parts, load_plan, season_of_part, with_replaced
from h2crop_data.pipeline.source_facts import source_facts
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import parse_recipe
from h2crop_data.sources.describe import DATASHEETS
from h2crop_data.sources.registry import layout_of_recipe, used_sources
from h2crop_data.sources.scenes import scenes_table
from h2crop_data.storage.checked import digest_of, parsed_document
from h2crop_data.storage.storage import BUILD_FOLDER, FileRecord, Storage, canonical_json

log = logging.getLogger(__name__)
Thing = TypeVar("Thing")
#: Blocks between two words of sealing.
TOLD_EVERY = 200
#: Why a scene is not used that blocks were made of which have been rebuilt.
NOT_USED = "no longer used: the blocks made of it were rebuilt"
#: The same of blocks that were retracted before they were built.
NEVER_USED = "not used: the blocks that were planned with it were never built"
#: What a release says it was sealed by.
SOFTWARE = f"h2crop-data {__version__}"
#: The release another store was relabelled from.
ORIGIN = f"{BUILD_FOLDER}/origin.json"


class NothingFinishedError(PlanError):
    """No season of a store has a finished plan: there is nothing to make a release of."""


@dataclass(frozen=True)
class SealedSeason:
    """A season of a release, in figures."""

    samples: int
    #: Of its shards.
    bytes: int
    #: Scenes at fault, or what is, by kind, as the report of a build calls them: `gaps`, `impossible`, `differences`.
    faults: dict[str, list[str]]
    #: Months (1..12) for which a source has nothing.
    empty_months: list[int]
    #: By part of its plan, what was read of the sources: counts, unmapped crop codes, warnings.
    sources: dict[str, Any]


@dataclass(frozen=True)
class SealedRelease:
    """A release that was made, or is the newest already."""

    number: int
    seasons: dict[int, SealedSeason]
    #: Names of files of the newest release that were missing or damaged: they are repaired, or right in this release.
    repaired: list[str]

    def faults(self) -> dict[str, list[str]]:
        """Scenes at fault in any season, by kind."""
        found: dict[str, set[str]] = {}
        for season in self.seasons.values():
            for kind, scenes in season.faults.items():
                found.setdefault(kind, set()).update(scenes)
        return {kind: sorted(scenes) for kind, scenes in found.items()}


def seal_store(
    builder: StoreBuilder,
    workers: Workers = Workers(1),  # noqa: B008 -- it cannot be changed
    progress: Progress = silent,
) -> SealedRelease:
    """Make a release of every season of the store as far as its blocks are done.

    Blocks that a finished part of a plan replaces leave the release in which the blocks of that part are: one follows
    from the other, so that a release has the old ones or the new ones, whenever it is made.
    workers: those that look where images lie against parcels. Raises NothingFinishedError where nothing is done,
    PlanError where a block of the current release lost its marker, StoreError where the release would bring back what
    was retracted, or a plan was lost.
    """
    planned = plan_folders(builder)
    refuse_lost_plans(builder.storage, planned)
    if not planned:
        raise NothingFinishedError(f"{builder.location} has no finished season to seal")
    layout, taxonomy_version = planned_layout(builder.storage, next(iter(planned.values()))[0])
    taxonomy = Taxonomy.load(taxonomy_version)
    store = StoreInputs(
        builder,
        layout,
        complete_retractions(builder.storage),
        taxonomy,
        sizes=dict(builder.storage.names(f"{PLAN_FOLDER}/")),
    )

    def inputs(season: int, folders: list[str]) -> SeasonInputs:
        return SeasonInputs(
            season, store.digest(season, folders), lambda: gathered_season(store, season, folders, workers, progress)
        )

    sealed = seal(
        builder,
        store.layout,
        [inputs(season, folders) for season, folders in planned.items()],
        [taxonomy.names(tier) for tier in range(1, len(taxonomy.classes) + 1)],
        SOFTWARE,
        DATASHEETS,
        origin=recorded_origin(builder.storage),
        taxonomy={"version": taxonomy.version, "sha256": taxonomy.hash},
        progress=progress,
    )
    if not sealed.release:
        raise NothingFinishedError(f"{builder.location} has no finished season to seal")
    seasons = {season: SealedSeason(**figures) for season, figures in sealed.figures.items()}
    return SealedRelease(sealed.release, seasons, sealed.repaired)


def recorded_origin(files: Storage) -> OriginIdentity | None:
    """The release of another store that a store was relabelled from. Raises StoreError for a damaged record."""
    try:
        content = parsed_document(files.read(ORIGIN)).content
        return {"release": int(content["release"]), "manifest": str(content["manifest"])}
    except MissingFileError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{files.where(ORIGIN)} is damaged ({type(error).__name__}: {error}); restore it from a backup, or run the "
            "same `h2crop relabel` again, which writes it"
        ) from error


@dataclass(frozen=True)
class StoreInputs:
    """What all seasons of a store are sealed with."""

    builder: StoreBuilder
    layout: StoreLayout
    retractions: Retractions
    taxonomy: Taxonomy
    #: Bytes of every file of the plans, by name.
    sizes: dict[str, int]

    def digest(self, season: int, folders: Sequence[str]) -> str:
        """A digest of everything that a season follows from, without reading tables and markers.

        Tables of plans are known by their checksums in `plan.json`, markers by name and size: who writes a marker also
        deletes the record of its season.
        """
        files = self.builder.storage
        plans = {
            folder: [
                {name: size for name, size in self.sizes.items() if name.startswith(folder)},
                digest_of(files.read(f"{folder}plan.json")),
            ]
            for folder in folders
        }
        blocks = digest_of(canonical_json(list(files.names(f"{BUILD_FOLDER}/{season}/"))).encode())
        content = {
            "software": SOFTWARE,
            "format": FORMAT_VERSION,
            "taxonomy": [self.taxonomy.version, self.taxonomy.hash],
            "layout": self.layout.attributes(),
            "plans": plans,
            "blocks": blocks,
            "retracted": sorted(self.retractions.blocks.get(season, {}).items()),
            "scenes": self.retractions.scenes,
        }
        return digest_of(canonical_json(content).encode())


def planned_layout(files: Storage, folder: str) -> tuple[StoreLayout, str]:
    """The layout of a store and the version of its crop classes by one of its plans, of which only `plan.json` is read.

    Raises PlanError.
    """
    where = files.where(folder.rstrip("/"))
    try:
        facts = parsed_document(files.read(f"{folder}plan.json")).content
        recipe = parse_recipe(facts["recipe"], Path(where), where, stored=True)
        return layout_of_recipe(recipe, facts.get("layout", 1)), str(facts["taxonomy"]["version"])
    except (ValueError, KeyError):
        # What is wrong with it is found by whoever reads all of it.
        plan = load_plan(files, folder, whole=False)
        return plan.layout, plan.taxonomy_version


def gathered_season(
    store: StoreInputs, season: int, folders: Sequence[str], workers: Workers, progress: Progress
) -> tuple[FinishedSeason, dict[str, Any]] | None:
    """A season as far as its plans are finished, and its figures; None where none of them is.

    Raises PlanError where a block of the newest release lost its marker.
    """
    builder = store.builder
    plans = (load_plan(builder.storage, folder) for folder in folders)
    parts = finished_parts(builder.storage, plans, store.retractions)
    released = (current_attributes(builder.storage) or {"seasons": {}})["seasons"]
    lost = released.get(str(season), {"blocks": 0})["blocks"] - sum(len(plan.blocks) for plan in parts)
    if lost > 0:
        raise PlanError(
            f"season {season} of the current release has lost the marker of a block; build it first (--season "
            f"{season}), then the others"
        )
    if not parts:
        return None
    finished = finished_season(builder, parts, store.retractions, workers, progress)
    figures = sealed_season(finished, parts)
    log.info("season %d: %d samples for the release", season, figures.samples, extra={"season": season})
    return finished, asdict(figures)


def plan_folders(builder: StoreBuilder) -> dict[int, list[str]]:
    """The folders of a store's plans by season, in order."""
    folders: dict[int, list[str]] = {}
    for folder in kept_parts(builder.storage, f"{PLAN_FOLDER}/"):
        folders.setdefault(season_of_part(folder), []).append(folder)
    return folders


def sealed_season(finished: FinishedSeason, parts: Sequence[SeasonPlan]) -> SealedSeason:
    """The figures of a season. parts: its plans."""
    live = set(finished.released["block"])
    faults: dict[str, list[str]] = {}
    for source, _ in used_sources(parts[-1].recipe):
        for kind, column in source.faults.items():
            faults[kind] = sorted({*faults.get(kind, []), *named_in(finished.released, column)})
    return SealedSeason(
        samples=len(finished.released),
        bytes=sum(file["bytes"] for file in finished.files),
        faults=faults,
        empty_months=months_empty_in_all([plan for plan in parts if live & set(plan.blocks["block"])]),
        sources=finished.sources,
    )


def months_empty_in_all(parts: Sequence[SeasonPlan]) -> list[int]:
    """The months (1..12) for which a source has nothing in any of some plans; none without plans."""
    months = [set(empty_months(plan)) for plan in parts]
    return sorted(set.intersection(*months)) if months else []


def named_in(samples: pd.DataFrame, column: str) -> list[str]:
    """What a column of the samples lists, scenes for instance, each once; nothing where the table lacks it."""
    return sorted({name for names in samples[column].dropna() for name in names}) if column in samples else []


def finished_season(
    builder: StoreBuilder,
    parts: Sequence[SeasonPlan],
    retractions: Retractions,
    workers: Workers,
    progress: Progress = silent,
) -> FinishedSeason:
    """What sealing needs of a season, from its plans and the markers of its blocks, read one after the other."""
    season = parts[0].season
    retracted = with_replaced(retractions, parts).blocks.get(season, {})
    blocks = pd.concat([blocks_of_part(plan) for plan in parts], ignore_index=True)
    read = read_blocks(builder, season, blocks, parts[-1].layout, retracted, progress)
    samples = samples_of_blocks(parts, read)
    blocks = blocks.assign(**read.columns, retracted=[retracted.get(block, "") for block in blocks["block"]])
    kept = blocks[blocks["retracted"] == ""]
    digests = chain.from_iterable(filter(None, kept.get("dates", [])))
    table = table_of_dates(builder.storage, digests, parts[-1].layout)
    current = current_parts(parts, retracted, scenes_of_dates(table, parts[-1].layout))
    parcels = merged_parcels(current)
    released = samples[samples["block"].isin(kept["block"])]
    frames = frames_of_season(builder.storage, parts[-1], blocks, read.files, released, parcels, workers, progress)
    sources = {plan.part: source_facts(plan) for plan in current}
    if frames is not None:
        of_last = sources[current[-1].part]
        of_last["warnings"] = [*of_last["warnings"], *frame_warnings(frames)]
    return FinishedSeason(
        season=season,
        samples=samples,
        blocks=blocks,
        scenes=merged_scenes([scenes_table(plan.scenes) for plan in current], retractions.scenes),
        parcels=parcels,
        by_block=stacked_coordinates(with_zeros(read.coordinates)),
        sums={
            str(split): total(
                told_now_and_then(
                    builder.read_all_sums(season, {block: read.sums[block] for block in of_split["block"]}),
                    len(of_split),
                    f"season {season}, statistics of {split}",
                    progress,
                )
            )
            for split, of_split in kept.groupby("split", sort=True)
        },
        files=read.files,
        dates=table,
        frames=frames,
        recipe=parts[-1].recipe.as_written(),
        sources=sources,
    )


@dataclass(frozen=True)
class ReadBlocks:
    """What the markers of a season say, block by block in order."""

    #: Columns of the blocks index.
    columns: dict[str, list[Any]]
    #: A row a sample, of the blocks that were built.
    provenance: list[dict[str, Any]]
    #: None of a block that was never built.
    coordinates: list[dict[str, list[float]] | None]
    unbuilt: set[int]
    #: Shards and sums of the blocks that are part of the release.
    files: list[FileRecord]
    sums: dict[int, FileRecord]


def read_blocks(
    builder: StoreBuilder,
    season: int,
    blocks: pd.DataFrame,
    layout: StoreLayout,
    retracted: Mapping[int, str],
    progress: Progress = silent,
) -> ReadBlocks:
    """What the markers of some blocks say, read one after the other. Raises PlanError where one is lost."""
    numbers = blocks["block"].tolist()
    columns: dict[str, list[Any]] = {"files": [], "software": [], "dates": []}
    read = ReadBlocks(columns, [], [], set(), [], {})
    planned = dict(zip(numbers, blocks["samples"].tolist(), strict=True))
    found = builder.read_markers(season, numbers, layout, planned)
    markers = told_now_and_then(found, len(numbers), f"season {season}", progress)
    for block, marker in zip(numbers, markers, strict=True):
        if marker is None and not retracted.get(block, "").startswith(NEVER_BUILT):
            raise PlanError(f"block {block} of {season} lost its marker while sealing; rerun the build")
        if marker is None:
            read.unbuilt.add(block)
            read.coordinates.append(None)
            for column, nothing in (("files", []), ("software", NONE), ("dates", None)):
                columns[column].append(nothing)
            continue
        read.provenance.extend(marker["provenance"])
        read.coordinates.append(marker["coordinates"])
        columns["files"].append([file["path"] for file in marker["files"]])
        columns["software"].append(marker["software"])
        columns["dates"].append(marker.get("dates"))
        if block not in retracted:
            read.files.extend(marker["files"])
            read.sums[block] = marker["sums"]
    if all(named is None for named in columns["dates"]):
        # Of blocks that were built before dates were noted, nothing is known.
        del columns["dates"]
    return read


def samples_of_blocks(parts: Sequence[SeasonPlan], read: ReadBlocks) -> gpd.GeoDataFrame:
    """The samples of a season as they were planned, with what the markers say of them.

    What was never built has no values to derive columns from; its slots stay empty.
    """
    rows = pd.concat([plan.samples for plan in parts], ignore_index=True)
    rows = rows[~rows["block"].isin(read.unbuilt)].reset_index(drop=True)
    derived = pd.DataFrame(read.provenance, index=rows.index)
    together = gpd.GeoDataFrame(pd.concat([rows.drop(columns="geometry"), derived], axis=1), geometry=rows.geometry)
    columns = parts[-1].layout.sample_columns()
    return in_declared_order(with_nullable_integers(together, columns), columns)


def told_now_and_then(things: Iterable[Thing], total: int, text: str, progress: Progress) -> Iterator[Thing]:
    """Some things, one a block, with progress every `TOLD_EVERY` blocks."""
    for done, thing in enumerate(things):
        if done % TOLD_EVERY == 0:
            progress(done, total, f"release, {text}")
        yield thing


def with_zeros(coordinates: Sequence[dict[str, list[float]] | None]) -> list[dict[str, list[float]]]:
    """The coordinates of blocks, of those that were never built zeros."""
    known = next(of_block for of_block in coordinates if of_block is not None)
    zeros = {name: [0.0] * len(values) for name, values in known.items()}
    return [zeros if of_block is None else of_block for of_block in coordinates]


def blocks_of_part(plan: SeasonPlan) -> pd.DataFrame:
    """The blocks of a plan, with what they were planned by."""
    tables: Any = None if plan.crop_tables is None else crop_table_texts(plan.crop_tables)
    return plan.blocks.assign(
        part=plan.part,
        recipe=plan.recipe.hash,
        taxonomy=f"{plan.taxonomy_version} {plan.taxonomy_hash}",
        tables=[tables] * len(plan.blocks),
    )


def scenes_of_dates(table: pd.DataFrame | None, layout: StoreLayout) -> set[str]:
    """The scenes that a table of dates names."""
    if table is None:
        return set()
    columns = [column.name for column in layout.date_columns() if column.scenes and column.name in table]
    return {name for column in columns for names in table[column].dropna() for name in names}


def current_parts(parts: Sequence[SeasonPlan], retracted: Mapping[int, str], of_dates: set[str]) -> list[SeasonPlan]:
    """The plans of a season without what only blocks needed that were rebuilt or never built: scenes, parcels, counts.

    of_dates: scenes that dates of the release were seen on. Plans without such blocks are as they were recorded, and
    so are all where no block is left.
    """
    found = []
    for plan in parts:
        numbers = set(plan.blocks["block"])
        reasons = [retracted[block] for block in numbers & retracted.keys()]
        live = numbers - retracted.keys()
        if not any(reason.startswith((REBUILT, NEVER_BUILT)) for reason in reasons):
            found.append(plan)
        elif live:
            why = NOT_USED if any(reason.startswith(REBUILT) for reason in reasons) else NEVER_USED
            found.append(without_blocks(plan, live, of_dates, why))
    return found or list(parts)


def without_blocks(plan: SeasonPlan, live: set[int], of_dates: set[str], why: str) -> SeasonPlan:
    """A plan with what its live blocks need alone: a scene that only others used is not taken, and this is why."""
    samples = plan.samples[plan.samples["block"].isin(live)]
    pinned = {
        source.name: source.for_samples(plan.pinned[source.name], samples, further=True)
        for source, _ in used_sources(plan.recipe)
    }
    used, dropped = (scenes_of_blocks(plan, blocks) for blocks in (live, set(plan.blocks["block"]) - live))
    lost = dropped - used - of_dates
    scenes = [replace(one, taken=False, reason=why) if one.taken and one.id in lost else one for one in plan.scenes]
    return replace(plan, samples=samples, pinned={**plan.pinned, **pinned}, scenes=scenes)


def scenes_of_blocks(plan: SeasonPlan, blocks: set[int]) -> set[str]:
    """The scenes that some blocks of a plan were made of."""
    rows = plan.blocks[plan.blocks["block"].isin(blocks)]
    lists = [column.name for column in plan.layout.block_columns() if column.scenes]
    return {*rows["scene"], *(name for column in lists for names in rows[column] for name in names)}


def merged_scenes(tables: Sequence[pd.DataFrame], retracted: Mapping[str, str]) -> pd.DataFrame:
    """The decisions of several plans: of each scene the one that took it, else the newest; none for retracted ones."""
    together = pd.concat(tables, ignore_index=True)
    order = together.assign(place=together.index).sort_values(["taken", "place"], kind="stable").index
    scenes = together.loc[order].drop_duplicates(["sensor", "id"], keep="last").sort_index(ignore_index=True)
    gone = scenes["id"].isin(list(retracted))
    scenes.loc[gone, "taken"] = False
    scenes.loc[gone, "reason"] = [f"{SCENE_REASON}{retracted[name]}" for name in scenes.loc[gone, "id"]]
    return scenes


def merged_parcels(parts: Sequence[SeasonPlan]) -> gpd.GeoDataFrame | None:
    """The parcels of all plans of a season, in order of number; None where no source numbers any."""
    found = [source.parcels(plan.pinned[source.name]) for plan in parts for source, _ in used_sources(plan.recipe)]
    numbered = [parcels for parcels in found if parcels is not None]
    if not numbered:
        return None
    return pd.concat(numbered).drop_duplicates("number").sort_values("number", ignore_index=True)
