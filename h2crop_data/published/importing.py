"""From a folder of the published dataset to a store: the one place here that writes a store."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from h2crop_data import __version__
from h2crop_data.bounded_map import in_order, worker_threads
from h2crop_data.constants import PUBLISHED_OFFSET
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.cube.marker import Marker
from h2crop_data.cube.retraction import complete_retractions
from h2crop_data.cube.schema import FORMAT_VERSION, LAYOUT_GENERATION, StoreLayout
from h2crop_data.cube.seal import SealedStore, SeasonInputs, seal
from h2crop_data.cube.season import FinishedSeason, stacked_coordinates
from h2crop_data.cube.statistics import block_sums, total
from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.errors import PlanError, StoreError
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
from h2crop_data.published.layout import check_files, find_samples, sample_files
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
from h2crop_data.sources.describe import DATASHEETS
from h2crop_data.storage.checked import checked_json, digest_of, parsed_document
from h2crop_data.storage.storage import BUILD_FOLDER, FileRecord, Storage, canonical_json

log = logging.getLogger(__name__)

IMPORTED_BY = f"h2crop-data {__version__}"
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


@dataclass(frozen=True)
class ImportReport:
    """The report of an import.

    store: as it was given. release: the number of the release that was made. seasons: those of the samples.
    imported, already_done: blocks imported by this run, and before it.
    samples: how many there are. bytes: of the files of their blocks.
    located: how many samples are placed how exactly (`scene`, `footprint`, `tile`).
    skipped: files in no list that were left out.
    not_located: scenes whose samples a given catalog does not place exactly, and why.
    repaired: files of the newest release that were missing or damaged, and were written again.
    """

    store: str
    release: int
    seasons: list[int]
    imported: int
    already_done: int
    samples: int
    bytes: int
    located: dict[str, int]
    skipped: int
    not_located: list[str]
    repaired: list[str] = field(default_factory=list)


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
    """Import a folder of the published dataset into a store, continuing an unfinished import, and seal it.

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
    with hold_store(store) as builder:
        layout = layout_of_import(record_import(builder, pinned))
        pending = blocks_to_import(builder, blocks, layout)
        already_done = len(blocks) - len(pending)
        cores = os.cpu_count() or 1
        workers = workers or min(cores, MOST_WORKERS)
        threads = max(1, cores // workers)
        tasks = (ImportTask(block, layout, options, spectrum, scenes, threads) for block in pending)
        imported = in_order(lambda task: import_block(builder, task), tasks, workers)
        for done, block in enumerate(imported, already_done + 1):
            progress(done, len(blocks), f"blocks, season {block.season} block {block.number}")
        log.info("%s: %d blocks imported, %d were there before", store, len(pending), already_done)
        sealed = seal_import(builder)
    figures = list(sealed.figures.values())
    counts: Counter[str] = sum((Counter(of_season["located"]) for of_season in figures), Counter())
    vague = {scene for of_season in figures for scene in of_season["vague"]}
    return ImportReport(
        store=str(store),
        release=sealed.release,
        seasons=sorted({block.season for block in blocks}),
        imported=len(pending),
        already_done=already_done,
        samples=len(samples),
        bytes=sum(of_season["bytes"] for of_season in figures),
        located=dict(sorted(counts.items())),
        skipped=len(sample_files(folder)) - len(samples),
        not_located=not_located(vague, scenes) if options.catalogs else [],
        repaired=sealed.repaired,
    )


def record_import(builder: StoreBuilder, pinned: dict[str, Any]) -> dict[str, Any]:
    """Keep the record of an import; gives the one of the store. Raises PlanError where it was begun otherwise, naming
    what differs."""
    if not builder.storage.exists(IMPORT_FILE):
        begun = next(builder.storage.names(f"{BUILD_FOLDER}/plan/"), None)
        if begun is not None or builder.storage.exists("zarr.json"):
            raise PlanError(f"{builder.location} has a store that was not imported; import into a new one")
        record = {**pinned, "layout": LAYOUT_GENERATION}
        builder.replace(IMPORT_FILE, [checked_json(record).encode()])
        return record
    kept = recorded_import(builder.storage)
    differing = sorted(key for key in {*kept, *pinned} - {"layout"} if kept.get(key) != pinned.get(key))
    if differing:
        raise PlanError(
            f"{builder.location} has another import (it differs in {', '.join(differing)}); give the same folder "
            "and options again, or import into a new store"
        )
    return kept


def recorded_import(files: Storage) -> dict[str, Any]:
    """The record of the import of a store. Raises StoreError for a damaged one."""
    try:
        document = parsed_document(files.read(IMPORT_FILE))
        # Only imports that were begun in format 1 have no checksum, and do not state a generation.
        if not document.checked and "layout" in document.content:
            raise ValueError("it has no checksum")
        return document.content
    except ValueError as error:
        raise StoreError(
            f"{files.where(IMPORT_FILE)} is damaged ({error}); restore it from a backup, or import into a new store"
        ) from error


def layout_of_import(record: Mapping[str, Any]) -> StoreLayout:
    """The layout of an imported store, by its record; those that were begun in format 1 do not state a generation."""
    return published_layout(record["block capacity"], record.get("layout", 1))


def blocks_to_import(
    builder: StoreBuilder, blocks: Sequence[PublishedBlock], layout: StoreLayout
) -> list[PublishedBlock]:
    """The blocks without a marker, or whose files are not all there.

    Raises PlanError where a file of a finished block is not the one any more that was imported.
    """
    pending = []
    for season in sorted({block.season for block in blocks}):
        sizes = builder.sizes(season)
        of_season = [block for block in blocks if block.season == season]
        samples = {block.number: len(block.samples) for block in of_season}
        markers = builder.read_markers(season, list(samples), layout, samples)
        for block, marker in zip(of_season, markers, strict=True):
            if marker is None or any(sizes.get(file["path"]) != file["bytes"] for file in marker["files"]):
                pending.append(block)
                continue
            for sample in block.samples:
                if sample.path.stat().st_size != marker["sources"].get(sample.id.text):
                    raise PlanError(f"{sample.path} has changed since it was imported; import into a new store")
    return pending


def import_block(builder: StoreBuilder, task: ImportTask) -> PublishedBlock:
    """Read a block, write its shards and what they do not hold, then its marker; gives the block."""
    block, options = task.block, task.options
    assembled = assemble(block, task.layout, options.removed)
    arrays = assembled.arrays
    with worker_threads(task.threads, "write") as pool:
        names = builder.write_block(block.season, block.number, arrays, task.layout, pool)
        names.append(builder.write_permanent(kept_path(block.season, block.number), [assembled.kept]))
        digests = pool.map(lambda group: input_hash(arrays, HASHED[group], block.ids), HASHED)
        files = list(pool.map(builder.describe, names))
        hashes = dict(zip(HASHED, digests, strict=True))
    scene = task.scenes.get(block.scene)
    rows = [
        sample_row(
            sample,
            place_of(sample.id, scene),
            scene,
            block.number,
            block.number * options.capacity + place,
            PUBLISHED_OFFSET - options.removed,
        )
        for place, sample in enumerate(block.samples)
    ]
    sums = block_sums(arrays, task.layout.arrays(), block.split, {"enmap_quality": FLAGGED})
    marker: Marker = {
        "block": block.number,
        "split": block.split,
        "hashes": hashes,
        "software": __version__,
        "files": files,
        "coordinates": dict(zip(("wavelength", "fwhm"), task.spectrum, strict=True)),
        "provenance": [row | facts for row, facts in zip(rows, assembled.provenance, strict=True)],
        "sums": builder.write_sums(block.season, block.number, sums),
        "sources": assembled.sizes,
    }
    builder.write_marker(block.season, block.number, marker)
    return block


def imported_season(
    builder: StoreBuilder, season: int, count: int, recipe: dict[str, Any], retracted: dict[int, str]
) -> FinishedSeason:
    """What sealing needs of a season of so many blocks. retracted: block -> why it is kept out."""
    layout = layout_of_import(recorded_import(builder.storage))
    rows: list[dict[str, Any]] = []
    block_rows, coordinates, files = [], [], []
    sums: dict[int, FileRecord] = {}
    for block, marker in enumerate(builder.read_markers(season, range(count), layout)):
        if marker is None:
            raise PlanError(f"block {block} of {season} in {builder.location} is not done; rerun the import")
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


def seal_import(builder: StoreBuilder) -> SealedStore:
    """Make a release of an imported store, from its record and markers alone.

    Raises PlanError where a block is not done, StoreError where the record of what was retracted is lost.
    """
    files = builder.storage
    pinned = recorded_import(files)
    retracted = complete_retractions(files).blocks
    recipe = import_recipe(pinned)
    taxonomy = Taxonomy.load()

    def inputs(season: int, count: int) -> SeasonInputs:
        of_season = retracted.get(season, {})
        content = {
            "software": IMPORTED_BY,
            "format": FORMAT_VERSION,
            "taxonomy": [taxonomy.version, taxonomy.hash],
            "import": pinned,
            "blocks": list(files.names(f"{BUILD_FOLDER}/{season}/")),
            "retracted": sorted(of_season.items()),
        }

        def gather() -> tuple[FinishedSeason, dict[str, Any]]:
            finished = imported_season(builder, season, count, recipe, of_season)
            return finished, imported_figures(finished)

        return SeasonInputs(season, digest_of(canonical_json(content).encode()), gather)

    return seal(
        builder,
        layout_of_import(pinned),
        [inputs(int(season), count) for season, count in pinned["blocks"].items()],
        [taxonomy.names(tier) for tier in range(1, len(taxonomy.classes) + 1)],
        IMPORTED_BY,
        DATASHEETS,
        taxonomy={"version": taxonomy.version, "sha256": taxonomy.hash},
    )


def imported_figures(finished: FinishedSeason) -> dict[str, Any]:
    """What a report says of a season: bytes, samples by how exactly they are placed, scenes that are not placed."""
    samples = finished.samples
    vague = {
        PublishedId.parse(sample).scene
        for sample, how in zip(samples["sample"], samples["located"], strict=True)
        if how != "scene"
    }
    return {
        "bytes": sum(file["bytes"] for file in finished.files),
        "located": dict(Counter(map(str, samples["located"]))),
        "vague": sorted(vague),
    }


def not_located(vague: Iterable[str], scenes: SceneCatalog) -> list[str]:
    """The scenes whose samples a catalog does not place exactly, and why."""
    item, nothing = "its item does not give the position of the pixels", "the catalog has no such scene"
    return sorted(f"{scene}: {item if scene in scenes else nothing}" for scene in vague)
