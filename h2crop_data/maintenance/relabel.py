"""A new store with other labels: label arrays are redone where their inputs changed, everything else is shared."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from h2crop_data import __version__
from h2crop_data.bounded_map import in_order, worker_threads
from h2crop_data.constants import TIER_COLUMNS
from h2crop_data.crops.tables import CropCodes, load_crop_table
from h2crop_data.crops.taxonomy import Taxonomy, taxonomy_versions, tier_table
from h2crop_data.cube.marker import block_path
from h2crop_data.cube.reading import store_attributes
from h2crop_data.cube.release_numbers import refuse_lost_root
from h2crop_data.cube.retraction import Retractions, complete_retractions
from h2crop_data.cube.root import OriginIdentity
from h2crop_data.cube.schema import check_format_to_write
from h2crop_data.cube.statistics import block_sums
from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.errors import PlanError, StoreError, UsageError
from h2crop_data.grid import Cell
from h2crop_data.pipeline.block import BlockTasks
from h2crop_data.pipeline.dates import DATES_FOLDER
from h2crop_data.pipeline.engine import Workers
from h2crop_data.pipeline.extension import kept_plans
from h2crop_data.pipeline.frames import FRAMES_FOLDER
from h2crop_data.pipeline.plan import SeasonPlan, keep_plan, with_replaced
from h2crop_data.pipeline.planning import with_hashes
from h2crop_data.pipeline.sealing import ORIGIN, seal_store
from h2crop_data.pipeline.survey import SplitTable, cells_by_square
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import CropTable, Parcels, ParcelSource, Recipe
from h2crop_data.sources.parcels.declarations import (
    ROLES,
    Declarations,
    Declared,
    check_declared,
    declarations_of,
    keeping_splits,
)
from h2crop_data.sources.parcels.files import (
    YearFiles,
    check_other_files,
    check_year_files,
    is_near_note,
    near_notes,
    season_files,
    unmapped_codes,
)
from h2crop_data.sources.parcels.source import DeclaredParcels
from h2crop_data.sources.timing import Stopwatch
from h2crop_data.storage.checked import checked_json
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.storage import Storage

log = logging.getLogger(__name__)
LABELS = DeclaredParcels()
#: What plans of an earlier version did with rows that have the same shape.
FIRST_ROW = (
    "read by an earlier h2crop, which took the first of several rows with the same shape and different crops; "
    "relabel with --recipe to make such ground unknown"
)


@dataclass(frozen=True)
class RelabelReport:
    """The report of relabelling.

    store, source: the new store and the one it was made from, as they were given. release: the number of the release
    that was made. redone, shared: blocks whose labels were written again, and blocks that were shared unchanged.
    already_done: blocks done before this run. samples: how many the new store has. bytes: of the label shards that this
    run wrote. seasons: all of the store.
    """

    store: str
    source: str
    release: int
    redone: int
    shared: int
    already_done: int
    samples: int
    bytes: int
    seasons: list[int]


def relabel_store(
    source: str | Path,
    target: str | Path,
    *,
    recipe: Recipe | None = None,
    tables: Mapping[str, Path] | None = None,
    taxonomy: str | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> RelabelReport:
    """Make a store from another one with labels from the current inputs; gives a report. An interrupted run is
    continued.

    recipe: read the parcels by its section `parcels`; without it the parcels that the source pinned are classified
    again. tables: crop table (CSV with the columns `code` and `hcat3`) by country, in the place of the recipe's.
    taxonomy: version of the classes (default: what the given recipe states, else that of the store).
    Raises UsageError for an unknown version, PlanError where the source is not finished or has no labels, or the target
    was begun with other inputs, StoreError where a record of what was retracted is lost, FormatVersionError for a
    source of a newer format.
    """
    files = open_storage(source)
    attributes = store_attributes(source)
    versions = taxonomy_versions()
    if taxonomy is not None and taxonomy not in versions:
        raise UsageError(f"unknown taxonomy version {taxonomy!r}; this h2crop has {', '.join(versions)}")
    # The new store is written in the format of this h2crop.
    check_format_to_write(attributes, source)
    refuse_lost_root(files, attributes)
    with hold_store(target) as builder:
        plans = kept_plans(files)
        if not plans:
            raise PlanError(f"{source} has no plans (.build/plan): relabel it where it was built")
        if plans[0].recipe.parcels is None:
            raise PlanError(f"{source} has no labels")
        retracted = complete_retractions(files)
        if store_attributes(source)["release"] != attributes["release"]:
            raise PlanError(f"{source} got another release while it was read; rerun")
        origin: OriginIdentity = {"release": attributes["release"], "manifest": attributes["manifest"]["sha256"]}
        new_plans = pinned(builder, relabelled_plans(plans, recipe, tables or {}, taxonomy, progress), origin)
        take_over_retractions(builder, retracted)
        for folder in (DATES_FOLDER, FRAMES_FOLDER):
            for name, _ in files.names(f"{folder}/"):
                builder.storage.share(name, files)
        gone = with_replaced(retracted, plans)
        of_plans = map(BlockTasks, new_plans)
        work = [
            (tasks, block)
            for tasks in of_plans
            for block in tasks.blocks.places
            if block not in retracted.never_built(tasks.plan.season)
        ]
        blocks: Counter[str] = Counter()
        written = 0
        for done, (kind, size) in enumerate(in_order(partial(relabel_block, files, builder, gone), work, workers), 1):
            blocks[kind] += 1
            written += size
            progress(done, len(work), "blocks")
        log.info("%s: labels of %s", target, ", ".join(f"{number} blocks {kind}" for kind, number in blocks.items()))
        sealed = seal_store(builder, Workers(workers), progress)
    return RelabelReport(
        store=str(target),
        source=str(source),
        release=sealed.number,
        redone=blocks["redone"],
        shared=blocks["shared"],
        already_done=blocks["already_done"],
        samples=sum(season.samples for season in sealed.seasons.values()),
        bytes=written,
        seasons=sorted({plan.season for plan in plans}),
    )


def relabelled_plans(
    plans: Sequence[SeasonPlan],
    recipe: Recipe | None,
    tables: Mapping[str, Path],
    version: str | None,
    progress: Progress,
) -> list[SeasonPlan]:
    """The plans with the declarations of today: the same samples, blocks and numbers of parcels.

    version: of the classes, where it is not that of the recipe or the plans.
    """
    squares = {square: split for plan in plans for square, split in plan.squares.items()}
    stated = recipe is not None and "version" in recipe.taxonomy.model_fields_set
    chosen = version or (recipe.taxonomy.version if recipe is not None and stated else plans[0].taxonomy_version)
    taxonomy = Taxonomy.load(chosen)
    known: dict[tuple[int, str], list[pd.DataFrame]] = {}
    for plan in plans:
        for role in ROLES:
            known.setdefault((plan.season, role), []).append(plan.pinned[LABELS.name].of(role).parcels)
    result = []
    notes = {} if recipe is None else checked_files(plans, recipe)
    for plan in plans:
        own_recipe = with_labels_of(plan.recipe, recipe, tables, taxonomy)
        declared: dict[str, Declarations] = {}
        for role in ROLES:
            numbered = pd.concat(known[plan.season, role]).drop_duplicates("number")
            if recipe is None:
                declared[role] = coded_anew(plan, role, parcels_of(own_recipe), tables, taxonomy)
            else:
                files = files_of(own_recipe, plan.season)[role]
                read = read_anew(plan, files, taxonomy, numbered, squares, progress)
                declared[role] = replace(read, notes=[*notes[plan.season, role], *read.notes])
                known[plan.season, role].append(read.parcels)
        changed = replace(
            plan,
            recipe=own_recipe,
            taxonomy_version=taxonomy.version,
            taxonomy_hash=taxonomy.hash,
            algorithm={**plan.algorithm, LABELS.group: LABELS.algorithm},
            pinned={**plan.pinned, LABELS.name: Declared(declared["parcels"], declared["prior"])},
        )
        hashes = with_hashes(changed)["hash_labels"].to_numpy()
        result.append(replace(changed, blocks=changed.blocks.assign(hash_labels=hashes)))
    for season, role in known:
        of_season = [plan for plan in result if plan.season == season]
        of_plans = [plan.pinned[LABELS.name].of(role) for plan in of_season]
        check_declared(of_plans, files_of(of_season[0].recipe, season)[role])
    return result


def checked_files(plans: Sequence[SeasonPlan], recipe: Recipe) -> dict[tuple[int, str], list[str]]:
    """What of a recipe's files of declarations needs a look, by season and role.

    Raises ParcelError or RecipeError for files that cannot be those of the plans' ground.
    """
    cells: dict[int, set[Cell]] = {}
    for plan in plans:
        cells.setdefault(plan.season, set()).update(map(Cell.parse, plan.samples["cell"]))
    of_seasons = recipe.for_seasons(sorted(cells))
    notes = {}
    for season, of_season in cells.items():
        files = files_of(of_seasons, season)
        for role in ROLES:
            if role == "prior":
                check_other_files(files["parcels"], files[role])
            notes[season, role] = check_year_files(files[role], sorted(of_season), recipe.area.crs)
    return notes


def files_of(recipe: Recipe, season: int) -> dict[str, YearFiles]:
    """By role, the files of declarations of a season. Raises PlanError for a recipe without parcels."""
    return season_files(parcels_of(recipe), recipe.locate, season, recipe.taxonomy.version)


def parcels_of(recipe: Recipe) -> Parcels:
    """The parcels of a recipe. Raises PlanError where it has none."""
    if recipe.parcels is None:
        raise PlanError("the recipe has no section `parcels`; add it to relabel with this recipe")
    return recipe.parcels


def with_labels_of(old: Recipe, recipe: Recipe | None, tables: Mapping[str, Path], taxonomy: Taxonomy) -> Recipe:
    """The recipe of a store with the parcels of another one, other crop tables, and the taxonomy of today."""
    parcels = parcels_of(recipe or old)

    def with_table(source: ParcelSource) -> ParcelSource:
        if source.country not in tables:
            return source
        return source.model_copy(update={"table": CropTable(path=str(tables[source.country].resolve()))})

    changes: dict[str, Any] = {"season": [with_table(source) for source in parcels.season]}
    if isinstance(parcels.prior, list):
        changes["prior"] = [with_table(source) for source in parcels.prior]
    return old.changed(
        recipe or old,
        parcels=parcels.model_copy(update=changes),
        taxonomy=old.taxonomy.model_copy(update={"version": taxonomy.version}),
    )


def coded_anew(
    plan: SeasonPlan, role: str, settings: Parcels, tables: Mapping[str, Path], taxonomy: Taxonomy
) -> Declarations:
    """The parcels a plan pinned, with the crop tables and classes of today.

    Where the settings have a crop table of their own that is not given again, HCAT3 codes stay as they were read.
    """
    declarations: Declarations = plan.pinned[LABELS.name].of(role)
    parcels, counts = declarations.parcels.copy(), dict(declarations.counts)
    named, notes = dict(declarations.unmapped), list(declarations.notes)
    recoded: dict[str, str] = {}
    for country in sorted(set(parcels["country"])):
        year = plan.season - (role == "prior")
        table = table_of(settings, country, tables, taxonomy.version, year)
        if table is not None:
            rows = parcels["country"] == country
            codes = parcels.loc[rows, "code"]
            parcels.loc[rows, "hcat3"] = table.hcat3(codes)
            recoded[country] = table.digest
            missing = table.unmapped(codes)
            named.pop(country, None)
            named |= unmapped_codes(parcels[rows][missing])
            counts["unmapped"] = sum(sum(codes.values()) for codes in named.values())
            notes = [note for note in notes if not is_near_note(note, country)]
            notes += near_notes(country, codes[missing], table)
    if len(parcels) and plan.algorithm["labels"] == 1:
        notes.append(FIRST_ROW)
    parcels["hcat3"] = parcels["hcat3"].astype("str")
    parcels[TIER_COLUMNS] = tier_table(parcels["hcat3"], taxonomy)
    # Of a plan that did not keep its tables they are known if each was given again.
    known = declarations.tables
    if known is None and set(parcels["country"]) <= recoded.keys():
        known = {}
    used = None if known is None else {**known, **recoded}
    return replace(declarations, parcels=parcels, counts=counts, unmapped=named, notes=notes, tables=used)


def table_of(settings: Parcels, country: str, tables: Mapping[str, Path], version: str, year: int) -> CropCodes | None:
    """The crop table of a country in a year: the one given, else that of the settings if h2crop ships it.

    version: of the taxonomy.
    """
    if country in tables:
        own = CropTable(path=str(tables[country]))
        return load_crop_table(own, country, tables[country], version=version, year=year)
    names = [source.table for source in settings.season if source.country == country]
    if not names or isinstance(names[0], CropTable):
        return None
    return load_crop_table(names[0], country, version=version, year=year)


def read_anew(
    plan: SeasonPlan,
    files: YearFiles,
    taxonomy: Taxonomy,
    numbered: gpd.GeoDataFrame,
    squares: dict[tuple[int, int], str],
    progress: Progress,
) -> Declarations:
    """The declarations of some files on the ground of a plan; parcels that were there keep number and split."""
    of_cell = {
        Cell.parse(cell): (int(square.split("_")[0]), int(square.split("_")[1]))
        for cell, square in zip(plan.samples["cell"], plan.samples["square"], strict=True)
    }
    splits = SplitTable(plan.recipe.split, squares)
    declarations = declarations_of(files, cells_by_square(of_cell), splits, taxonomy, progress, numbered)
    return keeping_splits(declarations, numbered)


def pinned(builder: StoreBuilder, plans: Sequence[SeasonPlan], origin: OriginIdentity) -> list[SeasonPlan]:
    """Keep the plans in the new store, and the release they come from, which may be newer than that of the run before.

    Plans of an earlier run must be the same. Raises PlanError where they are those of other labels or of another store.
    """
    kept = {(plan.season, plan.first_block): plan for plan in kept_plans(builder.storage)}
    for plan in plans:
        before = kept.get((plan.season, plan.first_block))
        if before is not None and not has_same_images(before, plan):
            raise PlanError(
                f"{builder.location} was made from another store: its images of {plan.season} have other inputs; "
                "choose another --out"
            )
    result = []
    for plan in plans:
        before = kept.get((plan.season, plan.first_block))
        if before is not None and before.blocks["hash_labels"].tolist() != plan.blocks["hash_labels"].tolist():
            raise PlanError(f"{builder.location} was started with other labels for {plan.season}; choose another --out")
        result.append(before or plan)
    builder.storage.replace(ORIGIN, [checked_json(origin).encode()])
    for plan in plans:
        if (plan.season, plan.first_block) not in kept:
            keep_plan(plan, builder.storage)
    return result


def has_same_images(before: SeasonPlan, plan: SeasonPlan) -> bool:
    """Whether two plans have the same blocks of the same inputs, but for labels."""
    columns = [f"hash_{group}" for group in plan.algorithm if group != LABELS.group]
    columns = ["block", "samples", *(name for name in columns if name in plan.blocks and name in before.blocks)]
    return before.blocks[columns].to_numpy().tolist() == plan.blocks[columns].to_numpy().tolist()


def take_over_retractions(builder: StoreBuilder, retracted: Retractions) -> None:
    """Retract from the new store what was retracted from the source, beside what was retracted from it since."""
    own = Retractions.read(builder.storage)
    own.add(retracted)
    if own.blocks or own.scenes:
        own.write(builder.storage)
    complete_retractions(builder.storage)


def relabel_block(
    files: Storage, builder: StoreBuilder, gone: Retractions, work: tuple[BlockTasks, int]
) -> tuple[str, int]:
    """Share a block, with its labels written again where their inputs changed.

    gone: blocks that are in no new release; what `prune` deleted of them stays so.
    Gives what became of it (`redone`, `shared`, `already_done`), and the bytes of the label shards written.
    """
    tasks, block = work
    season, row = tasks.plan.season, tasks.blocks.places[block][2]
    samples = int(row["samples"])
    if builder.read_marker(season, block, tasks.layout, samples) is not None:
        return "already_done", 0
    marker = StoreBuilder(files).read_marker(season, block, tasks.layout, samples)
    if marker is None:
        raise StoreError(f"{files.location}: block {block} of {season} is not done; finish the build first")
    labels = {name for name, spec in tasks.layout.arrays().items() if spec.group == LABELS.group}
    is_gone = block in gone.blocks.get(season, {})
    if is_gone and not all(files.exists(file["path"]) for file in marker["files"]):
        builder.storage.share(f"{block_path(season, block)}.sums", files)
        builder.write_marker(season, block, marker)
        return "shared", 0
    unchanged = marker["hashes"][LABELS.group] == row[f"hash_{LABELS.group}"]
    redone = set() if unchanged else labels
    shared = [file for file in marker["files"] if file["path"].split("/")[1] not in redone]
    for file in shared:
        builder.storage.share(file["path"], files)
    if unchanged:
        builder.storage.share(f"{block_path(season, block)}.sums", files)
        builder.write_marker(season, block, marker)
        return "shared", 0
    task = tasks.task(block)
    drawn = LABELS.assemble(task.sources[LABELS.name], task.ground, Stopwatch())
    with worker_threads(1, "write") as pool:
        names = builder.write_arrays(season, block, drawn.arrays, task.layout, pool)
    written = {record["path"]: record for record in map(builder.describe, names)}
    counted = block_sums(drawn.arrays, task.layout.arrays(), task.ground.split, {})
    before = StoreBuilder(files).read_sums(season, block, marker["sums"])
    sums = replace(before, counts={**before.counts, **counted.counts}, parcels=counted.parcels)
    builder.write_marker(
        season,
        block,
        {
            **marker,
            "hashes": {**marker["hashes"], LABELS.group: task.hashes[LABELS.group]},
            "software": __version__,
            "files": [written.get(file["path"], file) for file in marker["files"]],
            "provenance": [{**row, **facts} for row, facts in zip(marker["provenance"], drawn.rows, strict=True)],
            "sums": builder.write_sums(season, block, sums),
        },
    )
    return "redone", sum(record["bytes"] for record in written.values())
