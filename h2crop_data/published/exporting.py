"""From a store to a folder of the published dataset's layout, which its code trains on unchanged."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from h2crop_data.bounded_map import in_order
from h2crop_data.constants import MONTHS, PUBLISHED_OFFSET, SENTINEL2_BANDS, SPLITS
from h2crop_data.cube.known_scenes import last_day_of_month, scenes_until
from h2crop_data.cube.reading import load_root, nothing_selected, read_bytes, read_columns, read_document
from h2crop_data.cube.root import LayoutAttributes, RootAttributes, stored_data
from h2crop_data.cube.sample_reader import SampleReader, open_samples
from h2crop_data.errors import PlanError, StoreError, UsageError
from h2crop_data.progress import Progress, silent
from h2crop_data.published.files import STORE_NAMES, SeasonSource, sample_file
from h2crop_data.published.first_months import reflectance_of_first_months
from h2crop_data.published.kept import kept_path
from h2crop_data.published.layout import (
    CELL_SIZE,
    DATA_FOLDER,
    ENMAP_BANDS,
    LIST_FOLDER,
    PublishedError,
)
from h2crop_data.published.normalisation import normalisation_files
from h2crop_data.published.options import MARK
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.storage import BUILD_FOLDER, Storage, canonical_json

log = logging.getLogger(__name__)

#: The record of an export, by which it is gone on with.
EXPORT_FILE = f"{BUILD_FOLDER}/export.json"
#: A change of what is exported changes it.
EXPORT_ALGORITHM = "export 2"
#: What is needed of the samples index; only imported stores have the last.
LISTED_COLUMNS = ("sample", "slot", "split", "list_position")
#: Files that an import keeps beside a block, held in memory: samples come block by block.
KEPT_FILES = 4


@dataclass(frozen=True)
class ExportOptions:
    """What of a store is exported, and how."""

    #: All by default.
    seasons: tuple[int, ...] = ()
    #: All by default.
    split: str | None = None
    #: Whether Sentinel-2 numbers get the 1000 that those of the published dataset have.
    published_offset: bool = False
    #: The current one by default.
    release: int | None = None
    #: How many months of Sentinel-2, from January on. Samples whose scene is of a later month are left out.
    months: int = MONTHS


@dataclass(frozen=True)
class ExportReport:
    """The report of an export.

    folder: as it was given. release: the number of the release that was exported.
    months: of Sentinel-2. left_out: how many samples were left out because their scene is of a later month.
    samples: how many were asked for, without these. exported, already_done: of these by this run, and before it.
    bytes: of the samples' files. arrays: the published arrays that these have.
    lists: split -> number of ids in its list.
    normalisation: files with mean and standard deviation; none where the store has no training split.
    """

    folder: str
    release: int
    months: int
    left_out: int
    samples: int
    exported: int
    already_done: int
    bytes: int
    arrays: list[str]
    lists: dict[str, int]
    normalisation: list[str]


@dataclass(frozen=True)
class ExportTask:
    """A sample to export."""

    source: SeasonSource
    sample: str
    slot: int


def export_published(
    store: str | Path,
    folder: Path,
    options: ExportOptions | None = None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> ExportReport:
    """Export a store into a folder, continuing an unfinished export.

    store: folder or URL. workers: samples at a time, a core each by default. Raises PublishedError naming everything of
    the store that does not fit the published layout, UsageError for options that do not fit the store, PlanError where
    the folder has an export of another store or with other options, StoreError where no sample is selected, the store
    is damaged or the folder cannot be written. Finished files are kept.
    """
    options = options or ExportOptions()
    root = load_root(store, options.release)
    attributes = root["attributes"]
    opened = open_samples(store, root, chosen_seasons(store, attributes, options))
    sources = [season_source(store, attributes, season, readers, options) for season, readers in opened.items()]
    check_fit(store, attributes["layout"])
    every = [samples_of(store, attributes, source.season, options.split) for source in sources]
    tables = [
        known_by_then(store, attributes, source.season, table, options.months)
        for source, table in zip(sources, every, strict=True)
    ]
    left_out = sum(map(len, every)) - sum(map(len, tables))
    if not any(map(len, tables)):
        if left_out:
            raise StoreError(
                f"{store}: all {left_out} sample(s) were left out, because their scenes were acquired after month "
                f"{options.months}; export more months"
            )
        raise nothing_selected(store, attributes, options.split, [source.season for source in sources])
    target = LocalStorage(folder)
    check_target(target)
    samples = sum(len(table) for table in tables)
    with target.hold():
        record_export(target, options, attributes)
        done_before = {name for name, _ in target.names(f"{DATA_FOLDER}/")}
        tasks = [
            ExportTask(source, sample, slot)
            for source, table in zip(sources, tables, strict=True)
            for sample, slot in zip(table["sample"].tolist(), table["slot"].tolist(), strict=True)
            if file_name(sample) not in done_before
        ]
        already_done = samples - len(tasks)

        def export(task: ExportTask) -> str:
            data = sample_file(task.source, task.sample, task.slot, options.published_offset, options.months)
            target.write(file_name(task.sample), [data])
            return task.sample

        exported = in_order(export, tasks, workers or os.cpu_count() or 1)
        for done, sample in enumerate(exported, already_done + 1):
            progress(done, samples, f"samples, {sample}")
        log.info("%s: %d samples exported, %d were there before", folder, len(tasks), already_done)
        lists = write_lists(target, tables, options)
        reflectance = reflectance_of_first_months(store, root, options.months, progress)
        normalisation = write_normalisation(target, reflectance, options)
    return ExportReport(
        folder=str(folder),
        release=attributes["release"],
        months=options.months,
        left_out=left_out,
        samples=samples,
        exported=len(tasks),
        already_done=already_done,
        bytes=sum(size for _, size in target.names(f"{DATA_FOLDER}/")),
        arrays=list(sources[0].readers) if sources else [],
        lists=lists,
        normalisation=normalisation,
    )


def file_name(sample: str) -> str:
    """The file of a sample in the folder."""
    return f"{DATA_FOLDER}/{sample}.h5"


def chosen_seasons(store: str | Path, attributes: RootAttributes, options: ExportOptions) -> list[int]:
    """The seasons to export, in order. Raises StoreError for one that the store does not have."""
    present = [int(season) for season in attributes["seasons"]]
    missing = [season for season in options.seasons if season not in present]
    if missing:
        raise StoreError(f"{store} has no season {missing[0]}; it has {', '.join(map(str, present))}")
    return sorted(set(options.seasons) or present)


def season_source(
    store: str | Path,
    attributes: RootAttributes,
    season: int,
    readers: dict[str, SampleReader],
    options: ExportOptions,
) -> SeasonSource:
    """A season to export. Raises UsageError where the offset is asked for and there already, or months of a season that
    was imported."""
    mark = read_document(store, attributes, "recipes")[str(season)].get(MARK)
    if mark is not None and mark["s2_offset"] and options.published_offset:
        raise UsageError(
            f"--published-offset: the Sentinel-2 numbers of {store} were imported with their offset of "
            f"{PUBLISHED_OFFSET} and still have it; omit the option"
        )

    if mark is not None and options.months != MONTHS:
        raise UsageError(
            f"--months: {store} was imported, and its files are exported as they were published, with {MONTHS} months; "
            "omit the option"
        )

    @lru_cache(KEPT_FILES)
    def kept_file(block: int) -> bytes:
        return read_bytes(store, kept_path(season, block))

    return SeasonSource(
        season,
        {name: readers[stored] for name, stored in STORE_NAMES.items() if stored in readers},
        attributes["layout"]["block_capacity"],
        None if mark is None else mark["s2_offset_removed"],
        kept_file,
    )


def check_fit(store: str | Path, layout: LayoutAttributes) -> None:
    """Refuse a store that the published code cannot read. Raises PublishedError with all reasons.

    layout: as the root says it.
    """
    problems = []
    if layout["cell_size"] != CELL_SIZE:
        problems.append(f"expected cells of {CELL_SIZE} m, got {layout['cell_size']} m")
    stored = stored_data(layout)
    if tuple(stored.s2_bands) != SENTINEL2_BANDS:
        problems.append(
            f"expected the Sentinel-2 bands {' '.join(SENTINEL2_BANDS)}, got {' '.join(stored.s2_bands) or 'none'}"
        )
    if stored.enmap_bands not in (0, ENMAP_BANDS):
        problems.append(f"expected {ENMAP_BANDS} EnMAP bands, got {stored.enmap_bands}")
    if not stored.labels:
        problems.append("it has no labels")
    if problems:
        raise PublishedError(f"{store} does not match the published layout:", problems)


def samples_of(store: str | Path, attributes: RootAttributes, season: int, split: str | None) -> pd.DataFrame:
    """The samples of a season to export, in order of slot. Raises UsageError for a split there is not."""
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    table: pd.DataFrame = read_columns(store, attributes, f"samples-{season}", LISTED_COLUMNS).to_pandas()
    return table if split is None else table[table["split"] == split]


def known_by_then(
    store: str | Path, attributes: RootAttributes, season: int, table: pd.DataFrame, months: int
) -> pd.DataFrame:
    """The samples of a season whose scene was acquired by the end of a month."""
    if months == MONTHS:
        return table
    known = scenes_until(store, attributes, season, last_day_of_month(season, months))
    return table[table["slot"].isin(known.to_numpy())]


def check_target(target: LocalStorage) -> None:
    """Refuse a folder with files that no export began. Raises StoreError."""
    foreign = next((name for name, _ in target.names() if not name.startswith(f"{BUILD_FOLDER}/")), None)
    if foreign is not None and not target.exists(EXPORT_FILE):
        raise StoreError(
            f"{target.location} is not empty ({foreign}) and has no unfinished export; choose another folder"
        )


def record_export(target: Storage, options: ExportOptions, attributes: RootAttributes) -> None:
    """Keep the record of an export. Raises PlanError where the folder was begun otherwise, naming what differs."""
    record: dict[str, Any] = {
        "algorithm": EXPORT_ALGORITHM,
        "release of the store": attributes["manifest"]["sha256"],
        "seasons": sorted(options.seasons),
        "split": options.split,
        "published offset": options.published_offset,
    }
    if options.months != MONTHS:
        record["months"] = options.months
    if not target.exists(EXPORT_FILE):
        target.replace(EXPORT_FILE, [canonical_json(record).encode()])
        return
    kept = target.read_json(EXPORT_FILE)
    differing = sorted(key for key in {*kept, *record} if kept.get(key) != record.get(key))
    if differing:
        raise PlanError(
            f"{target.location} has another export (it differs in {', '.join(differing)}); export into another folder"
        )


def write_lists(target: Storage, tables: Sequence[pd.DataFrame], options: ExportOptions) -> dict[str, int]:
    """Write the lists of ids; gives how many each has, by split.

    Those of an imported store are in the order they had, others in order of season and slot.
    """
    together = pd.concat(list(tables))
    if "list_position" in together:
        together = together.sort_values("list_position", kind="stable")
    lengths = {}
    for split in SPLITS if options.split is None else (options.split,):
        ids = together["sample"][together["split"] == split].tolist()
        target.replace(f"{LIST_FOLDER}/{split}.txt", ["".join(f"{name}\n" for name in ids).encode()])
        lengths[split] = len(ids)
    return lengths


def write_normalisation(target: Storage, reflectance: Mapping[str, Any], options: ExportOptions) -> list[str]:
    """Write mean and standard deviation of the numbers that were exported; gives the names of the files."""
    files = normalisation_files(reflectance, PUBLISHED_OFFSET if options.published_offset else 0)
    for name, data in files.items():
        target.replace(name, [data])
    return list(files)
