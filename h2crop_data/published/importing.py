"""From a folder of the published dataset to a store: the one place here that writes a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from h2crop_data import __version__
from h2crop_data.bounded_map import in_order
from h2crop_data.cube.marker import Marker
from h2crop_data.cube.retraction import complete_retractions
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.cube.seal import seal
from h2crop_data.cube.season import FinishedSeason, stacked_coordinates
from h2crop_data.cube.statistics import block_sums, total
from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.errors import PlanError
from h2crop_data.parcels.taxonomy import Taxonomy
from h2crop_data.progress import Progress, silent
from h2crop_data.published.blocks import (
    FLAGGED,
    PublishedBlock,
    assemble,
    blocks_of_samples,
    input_hash,
    published_layout,
)
from h2crop_data.published.kept import kept_path
from h2crop_data.published.layout import OFFSET, check_files, find_samples, sample_files
from h2crop_data.published.options import (
    ImportOptions,
    Spectrum,
    import_recipe,
    json_digest,
    pinned_import,
    read_spectrum,
)
from h2crop_data.published.places import SceneCatalog, place_of, read_scenes
from h2crop_data.published.tables import block_row, imported_scenes, sample_row, samples_table
from h2crop_data.published_ids import PublishedId
from h2crop_data.sources.describe import describe_release
from h2crop_data.storage.storage import BUILD_FOLDER, FileRecord

#: The record of an import, by which it is gone on with.
IMPORT_FILE = f"{BUILD_FOLDER}/import.json"
#: Blocks at a time, if nothing else is asked for: each takes some 400 MB, and HDF5 reads one file at a time.
MOST_WORKERS = 4
#: The arrays each input hash of a block is made of.
HASHED = {
    "s2": ("s2", "s2_clear", "s2_day"),
    "enmap": ("enmap", "enmap_quality"),
    "labels": ("label", "prior", "parcel"),
}


@dataclass
class ImportReport:
    """What an import did."""

    store: str
    release: int = 0
    seasons: list[int] = field(default_factory=list)
    #: Blocks.
    imported: int = 0
    already_done: int = 0
    samples: int = 0
    bytes: int = 0
    #: How many samples are placed how exactly (`scene`, `footprint`, `tile`).
    located: dict[str, int] = field(default_factory=dict)
    #: Files in no list that were left out.
    skipped: int = 0
    #: Scenes whose samples a given catalog does not place exactly, and why.
    not_located: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ImportTask:
    """A block to import, and what all blocks share."""

    block: PublishedBlock
    layout: StoreLayout
    options: ImportOptions
    spectrum: Spectrum
    scenes: SceneCatalog
    #: How many compress and hash.
    threads: int


def import_published(
    folder: Path,
    store: str | Path,
    options: ImportOptions | None = None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> ImportReport:
    """Import a folder of the published dataset into a store, going on with what is there, and seal it.

    workers: blocks at a time, by default a core each and four at most. Raises PublishedError naming everything that is
    wrong with the folder before anything is written; ReadError where a file is damaged inside, StoreError where the
    store cannot be written, PlanError where it was begun with other samples or settings. Finished blocks are kept.
    """
    options = options or ImportOptions()
    spectrum = read_spectrum(options.wavelengths)
    scenes = read_scenes(options.catalogs)
    samples = find_samples(folder, options.lists, options.unlisted)
    check_files(samples, progress)
    blocks = blocks_of_samples(samples, options.capacity)
    pinned = pinned_import(options, spectrum, scenes if options.catalogs else None, blocks)
    report = ImportReport(str(store), samples=len(samples), seasons=sorted({block.season for block in blocks}))
    report.skipped = len(sample_files(folder)) - len(samples)
    with hold_store(store) as builder:
        record_import(builder, pinned)
        pending = blocks_to_import(builder, blocks)
        report.already_done = done = len(blocks) - len(pending)
        layout = published_layout(options.capacity)
        cores = os.cpu_count() or 1
        workers = workers or min(cores, MOST_WORKERS)
        threads = max(1, cores // workers)
        tasks = (ImportTask(block, layout, options, spectrum, scenes, threads) for block in pending)
        for block in in_order(lambda task: import_block(builder, task), tasks, workers):
            done += 1
            report.imported += 1
            progress(done, len(blocks), f"blocks, season {block.season} block {block.number}")
        seasons = imported_seasons(builder)
        report.release = seal_import(builder, seasons)
    report.bytes = sum(file["bytes"] for season in seasons for file in season.files)
    note_places(report, seasons, scenes if options.catalogs else None)
    return report


def record_import(builder: StoreBuilder, pinned: dict[str, Any]) -> None:
    """Keep the record of an import. Raises PlanError where the store was begun otherwise, naming what differs."""
    if not builder.storage.exists(IMPORT_FILE):
        begun = next(builder.storage.names(f"{BUILD_FOLDER}/plan/"), None)
        if begun is not None or builder.storage.exists("zarr.json"):
            raise PlanError(f"{builder.location} is a store that was not imported; import into a new one")
        builder.write_json(IMPORT_FILE, pinned)
        return
    kept = builder.storage.read_json(IMPORT_FILE)
    differing = sorted(key for key in {*kept, *pinned} if kept.get(key) != pinned.get(key))
    if differing:
        raise PlanError(
            f"{builder.location} was begun with another import (it differs in {', '.join(differing)}); give the same "
            "folder and options again, or import into a new store"
        )


def blocks_to_import(builder: StoreBuilder, blocks: Sequence[PublishedBlock]) -> list[PublishedBlock]:
    """The blocks without a marker, or whose files are not all there.

    Raises PlanError where a file of a finished block is not the one any more that was imported.
    """
    pending = []
    for season in sorted({block.season for block in blocks}):
        sizes = builder.sizes(season)
        of_season = [block for block in blocks if block.season == season]
        markers = builder.read_markers(season, [block.number for block in of_season])
        for block, marker in zip(of_season, markers, strict=True):
            if marker is None or any(sizes.get(file["path"]) != file["bytes"] for file in marker["files"]):
                pending.append(block)
                continue
            for sample in block.samples:
                if sample.path.stat().st_size != marker["sources"][sample.id.text]:
                    raise PlanError(f"{sample.path} has changed since it was imported; import into a new store")
    return pending


def import_block(builder: StoreBuilder, task: ImportTask) -> PublishedBlock:
    """Read a block, write its shards and what they do not hold, then its marker; gives the block."""
    block, options = task.block, task.options
    assembled = assemble(block, task.layout, options.removed)
    arrays = assembled.arrays
    with ThreadPoolExecutor(task.threads) as pool:
        names = builder.write_block(block.season, block.number, arrays, task.layout, pool)
        names.append(builder.write(kept_path(block.season, block.number), [assembled.kept]))
        hashes = pool.map(lambda group: input_hash(arrays, HASHED[group], block.ids), HASHED)
        files = list(pool.map(builder.describe, names))
    scene = task.scenes.get(block.scene)
    rows = [
        sample_row(
            sample,
            place_of(sample.id, scene),
            scene,
            block.number,
            block.number * options.capacity + place,
            OFFSET - options.removed,
        )
        for place, sample in enumerate(block.samples)
    ]
    sums = block_sums(arrays, task.layout.arrays(), block.split, {"enmap_quality": FLAGGED})
    marker: Marker = {
        "block": block.number,
        "split": block.split,
        "hashes": dict(zip(HASHED, hashes, strict=True)),
        "software": __version__,
        "files": files,
        "coordinates": dict(zip(("wavelength", "fwhm"), task.spectrum, strict=True)),
        "provenance": [row | facts for row, facts in zip(rows, assembled.provenance, strict=True)],
        "sums": builder.write_sums(block.season, block.number, sums),
        "sources": assembled.sizes,
    }
    builder.write_marker(block.season, block.number, marker)
    return block


def imported_seasons(builder: StoreBuilder) -> list[FinishedSeason]:
    """What sealing needs of every season of an imported store, from its record and markers alone.

    Raises PlanError where a block is not done, StoreError where the record of what was retracted is lost.
    """
    pinned = builder.storage.read_json(IMPORT_FILE)
    retracted = complete_retractions(builder.storage).blocks
    recipe = import_recipe(pinned)
    return [
        imported_season(builder, int(season), count, recipe, retracted.get(int(season), {}))
        for season, count in pinned["blocks"].items()
    ]


def imported_season(
    builder: StoreBuilder, season: int, count: int, recipe: dict[str, Any], retracted: dict[int, str]
) -> FinishedSeason:
    """What sealing needs of a season of so many blocks. retracted: block -> why it is kept out."""
    layout = published_layout(builder.storage.read_json(IMPORT_FILE)["block capacity"])
    rows: list[dict[str, Any]] = []
    block_rows, coordinates, files = [], [], []
    sums: dict[int, FileRecord] = {}
    for block, marker in enumerate(builder.read_markers(season, range(count))):
        if marker is None:
            raise PlanError(f"block {block} of {season} in {builder.location} is not done; run the import again")
        rows += marker["provenance"]
        block_rows.append(block_row(marker, json_digest(recipe), retracted.get(block, "")))
        coordinates.append(marker["coordinates"])
        if block not in retracted:
            files += marker["files"]
            sums[block] = marker["sums"]
    samples, blocks = samples_table(rows, layout.sample_columns()), pd.DataFrame(block_rows)
    kept = blocks[blocks["retracted"] == ""]
    return FinishedSeason(
        season=season,
        samples=samples,
        blocks=blocks,
        scenes=imported_scenes(samples),
        parcels=None,
        by_block=stacked_coordinates(coordinates),
        sums={
            str(split): total(builder.read_all_sums(season, {block: sums[block] for block in of_split["block"]}))
            for split, of_split in kept.groupby("split", sort=True)
        },
        files=files,
        recipe=recipe,
    )


def seal_import(builder: StoreBuilder, seasons: list[FinishedSeason]) -> int:
    """Make a release of an imported store; gives its number."""
    taxonomy = Taxonomy.load()
    classes = [taxonomy.names(tier) for tier in range(1, len(taxonomy.classes) + 1)]
    capacity = builder.storage.read_json(IMPORT_FILE)["block capacity"]
    return seal(builder, published_layout(capacity), seasons, classes, f"h2crop-data {__version__}", describe_release)


def note_places(report: ImportReport, seasons: Sequence[FinishedSeason], scenes: SceneCatalog | None) -> None:
    """Put into the report how exactly samples are placed, and which scenes a catalog (if one was given) left vague."""
    for season in seasons:
        for sample, how in zip(season.samples["sample"], season.samples["located"], strict=True):
            report.located[how] = report.located.get(how, 0) + 1
            scene = PublishedId.parse(sample).scene
            if scenes is not None and how != "scene":
                why = "its item does not place the pixels" if scene in scenes else "the catalog has no such scene"
                report.not_located.append(f"{scene}: {why}")
    report.located = dict(sorted(report.located.items()))
    report.not_located = sorted(set(report.not_located))
