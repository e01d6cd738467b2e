"""Sealing: coordinates, index, statistics, manifest, and last the root document that makes a release.

Everything written here follows from the blocks; sealing again writes the same bytes under the same names, and a reader
sees the new release when the root is replaced. A season is sealed by itself: a release points at the files of seasons
that did not change.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from h2crop_data.cube.continuity import check_continuity
from h2crop_data.cube.coordinates import coordinate_chunks, encode_coordinate
from h2crop_data.cube.crop_tables import crop_tables_of_texts
from h2crop_data.cube.index import (
    SeasonTables,
    class_document,
    index_of,
    manifest_bytes,
    release_statistics,
    season_index_files,
    season_statistics,
    season_tables,
)
from h2crop_data.cube.meanings import CONVENTIONS, class_attributes, season_attributes, season_document
from h2crop_data.cube.release_numbers import ROOT, SEALING, current_attributes, interrupted_sealing, next_release
from h2crop_data.cube.repair import ReleasedState, has_bytes_of, read_or_none, released_state
from h2crop_data.cube.retraction import refuse_damaged_tables
from h2crop_data.cube.root import ManifestPart, OriginIdentity, RootAttributes, SealedAttributes, manifest_identity
from h2crop_data.cube.schema import FORMAT_VERSION, ROOT_COPY, StoreLayout, group_document
from h2crop_data.cube.sealed import SeasonRecord, read_record, without_parcels
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.cube.statistics import TRAINING, total
from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.progress import Progress, silent
from h2crop_data.storage.storage import FileRecord, canonical_json

log = logging.getLogger(__name__)
#: The newest release in words, where a visitor looks first.
DATASHEET = "DATASHEET.md"
STORE_TITLE = "h2crop store"
#: What becomes of a file of a release: written, compared or only described. Gives its record.
Keep = Callable[[str, bytes], FileRecord]


class Describe(Protocol):
    """The author of datasheets."""

    def season(
        self,
        layout: StoreLayout,
        tables: SeasonTables,
        data_bytes: int,
        coordinates: Mapping[str, list[float]],
    ) -> dict[str, Any]:
        """Facts of a season as JSON, of a size that does not grow with its samples.

        data_bytes: of its arrays and coordinates. coordinates: those of its first
        block.
        """

    def release(
        self,
        attributes: SealedAttributes,
        facts: Mapping[int, dict[str, Any]],
        statistics: Mapping[str, Any],
        classes: Sequence[Mapping[int, str]],
    ) -> str:
        """The datasheet of a release. facts: of each season."""


@dataclass(frozen=True)
class SeasonInputs:
    """A season to seal.

    digest: of everything it follows from; a season with the digest of the newest release is not gathered. Empty for a
    season that is always gathered. gather: reads it; gives also figures for the report of the command, as JSON. None
    for a season that cannot be part of a release yet.
    """

    season: int
    digest: str
    gather: Callable[[], tuple[FinishedSeason, dict[str, Any]] | None]


@dataclass(frozen=True)
class SealedStore:
    """A release that was made, or is the newest already.

    release: its number, 0 where no season can be part of one. figures: by season, what was gathered with it. repaired:
    names of files of the newest release that were missing or damaged; they were written again, or are right in the
    release that was made.
    """

    release: int
    figures: dict[int, dict[str, Any]]
    repaired: list[str] = field(default_factory=list)


def seal(
    builder: StoreBuilder,
    layout: StoreLayout,
    seasons: Sequence[SeasonInputs],
    classes: list[dict[int, str]],
    software: str,
    describe: Describe,
    origin: OriginIdentity | None = None,
    taxonomy: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> SealedStore:
    """Make a release of some seasons. If nothing changed since the newest release, its damaged files are repaired and
    its number is given.

    classes: names of the class ids of each tier. describe: what writes the datasheet. origin: the release of another
    store this one was relabelled from. taxonomy: `version` and `sha256` of that of the classes. progress: called with
    (done, total, text) for each season and for the index. Raises StoreError where the release would contradict the
    newest one.
    """
    sealing = Sealing(builder, layout, classes, software, describe, progress)
    ordered = sorted(seasons, key=lambda inputs: inputs.season)
    found = (sealing.sealed_season(inputs, done, len(ordered) + 1) for done, inputs in enumerate(ordered))
    records = [record for record in found if record is not None]
    if not records:
        return SealedStore(0, {})
    progress(len(ordered), len(ordered) + 1, f"release {sealing.shown_release}, index")
    whole = WholeRelease(layout, records, classes, software, origin, dict(taxonomy or {}))
    number = sealing.sealed_release(whole)
    builder.storage.delete(SEALING)
    return SealedStore(number, {record.season: record.figures for record in records}, sealing.repaired)


@dataclass(frozen=True)
class WholeRelease:
    """What a release consists of, beside its number."""

    layout: StoreLayout
    records: list[SeasonRecord]
    classes: list[dict[int, str]]
    software: str
    origin: OriginIdentity | None
    taxonomy: dict[str, str]

    def attributes(self, release: int, software: str) -> RootAttributes:
        """The attributes of its root, without index and manifest."""
        attributes: RootAttributes = {
            "title": STORE_TITLE,
            "Conventions": CONVENTIONS,
            "format_version": FORMAT_VERSION,
            "release": release,
            "layout": self.layout.attributes(),
            "seasons": {str(record.season): record.identity for record in self.records},
            "software": software,
        }
        if self.taxonomy:
            tables = crop_tables_of_texts(record.crop_tables for record in self.records)
            attributes["taxonomy"] = {
                "version": self.taxonomy["version"],
                "sha256": self.taxonomy["sha256"],
                "countries": tables,
            }
        if self.origin:
            attributes["origin"] = self.origin
        return attributes

    def statistics(self) -> dict[str, Any]:
        """Its `statistics.json`."""
        training = [record.training for record in self.records if record.training is not None]
        return release_statistics(
            total(training) if training else None,
            {record.season: record.statistics for record in self.records},
            self.layout.arrays(),
        )

    def files(self, attributes: RootAttributes, describe: Describe) -> dict[str, bytes]:
        """Its files that belong to no season, by name."""
        statistics = self.statistics()
        facts = {record.season: record.facts for record in self.records}
        text = describe.release(attributes, facts, statistics, self.classes)
        return {
            "statistics.json": canonical_json(statistics).encode(),
            "classes.json": canonical_json(class_document(self.classes)).encode(),
            "datasheet.md": text.encode(),
        }

    def root(self, attributes: RootAttributes, folder: str, part: ManifestPart) -> bytes:
        """Its root document. folder: of its index; part: the manifest of what belongs to no season."""
        parts = [*(record.part for record in self.records), part]
        paths = [f"{folder}/{name}" for name in (*RELEASE_FILES, ROOT_COPY)]
        index = index_of([*(path for record in self.records for path in record.index), *paths])
        index["manifest"] = [one["path"] for one in parts]
        attributes = {**attributes, "index": index, "manifest": manifest_identity(parts)}
        members = {path: document for record in self.records for path, document in record.documents.items()}
        return canonical_json(group_document(attributes, dict(sorted(members.items())))).encode()


#: The files of the index that belong to no season.
RELEASE_FILES = ("statistics.json", "classes.json", "datasheet.md")


class Sealing:
    """One sealing of a store."""

    def __init__(
        self,
        builder: StoreBuilder,
        layout: StoreLayout,
        classes: Sequence[Mapping[int, str]],
        software: str,
        describe: Describe,
        progress: Progress,
    ) -> None:
        self.builder, self.layout, self.classes = builder, layout, classes
        self.software, self.describe, self.progress = software, describe, progress
        # Refuses a root that is not that of a store.
        current_attributes(builder.storage)
        self.before: ReleasedState | None = released_state(builder.storage, layout)
        self.after = 0 if self.before is None else self.before.number
        #: Whether an interrupted sealing may have written files of the next release over those of the newest.
        self.was_interrupted = interrupted_sealing(builder.storage, self.after) is not None
        self.release = next_release(builder.storage, self.after)
        #: Whether files of the new release are being written.
        self.begun = False
        self.repaired: list[str] = []

    @property
    def shown_release(self) -> int:
        """The release that is being made or looked at."""
        return self.release if self.begun or self.before is None else self.after

    def begin(self) -> None:
        """Say which release is being made, before anything of it is written."""
        if not self.begun:
            self.builder.write_json(SEALING, {"release": self.release, "after": self.after})
            self.begun = True

    def sealed_season(self, inputs: SeasonInputs, done: int, steps: int) -> SeasonRecord | None:
        """A season of the release: as it was released where nothing changed, else gathered and compared or written.

        None for a season that cannot be part of it yet.
        """
        files = self.builder.storage
        kept = self.kept_record(inputs)
        if kept is not None:
            log.info("season %d: nothing changed since release %d", inputs.season, self.after)
            return kept
        gathered = inputs.gather()
        if gathered is None:
            return None
        finished, figures = gathered
        check_continuity(
            files,
            None if self.before is None else self.before.attributes,
            *(inputs.season, finished.samples, finished.blocks, finished.files),
            self.software,
        )
        compared = self.compared_season(inputs, finished, figures)
        if compared is not None:
            compared.write(files)
            return compared
        if self.before is not None:
            refuse_damaged_tables(files, self.before.by_season.get(inputs.season, ()))
        self.begin()
        self.progress(done, steps, f"release {self.release}, coordinates of season {inputs.season}")
        record = self.rendered_season(inputs, finished, figures, f"index/r{self.release}", self.write)
        self.note_damage(inputs.season)
        record.write(files)
        return record

    def kept_record(self, inputs: SeasonInputs) -> SeasonRecord | None:
        """The record of a season that is as the newest release has it; None where it has to be gathered."""
        before = self.before
        if before is None or not before.is_current_format or not inputs.digest:
            return None
        record = read_record(self.builder.storage, inputs.season)
        is_right = (
            record is not None
            and record.inputs == inputs.digest
            and before.attributes["seasons"].get(str(inputs.season)) == record.identity
            and before.part(inputs.season) == record.part
            and not before.by_season.get(inputs.season)
        )
        return record if is_right else None

    def compared_season(
        self, inputs: SeasonInputs, finished: FinishedSeason, figures: dict[str, Any]
    ) -> SeasonRecord | None:
        """A gathered season whose files are those of the newest release, which are repaired; None where they differ."""
        before = self.before
        part = None if before is None or not before.is_current_format else before.part(inputs.season)
        identity = finished.identity_in(self.layout)
        if before is None or part is None or before.attributes["seasons"].get(str(inputs.season)) != identity:
            return None
        folder = part["path"].rpartition("/")[0]
        record = self.rendered_season(inputs, finished, figures, folder, record_of_bytes)
        if record.part != part:
            return None
        if before.by_season.get(inputs.season):
            self.rendered_season(inputs, finished, figures, folder, self.repair)
        return record

    def rendered_season(
        self, inputs: SeasonInputs, finished: FinishedSeason, figures: dict[str, Any], folder: str, keep: Keep
    ) -> SeasonRecord:
        """Every file of a season but its shards, given to `keep` one by one. folder: of its index files."""
        season = finished.season
        documents, records = season_documents_and_coordinates(self.layout, finished, self.classes, keep)
        data_bytes = sum(int(file["bytes"]) for file in (*records, *finished.files))
        tables = season_tables(finished)
        statistics = season_statistics(finished, self.layout.arrays())
        coordinates = finished.first_coordinates
        facts = self.describe.season(self.layout, tables, data_bytes, coordinates)
        index = []
        for name, data in season_index_files(tables, self.layout):
            index.append(f"{folder}/{name}")
            records.append(keep(index[-1], data))
        data = manifest_bytes([*records, *finished.files])
        record = keep(f"{folder}/manifest-{season}.parquet", data)
        named: Iterable[Sequence[str] | None] = finished.blocks.get("tables", [])
        return SeasonRecord(
            season=season,
            inputs=inputs.digest,
            identity=finished.identity_in(self.layout),
            documents=documents,
            index=index,
            part={**record, "files": len(records) + len(finished.files)},
            data_bytes=data_bytes,
            statistics=statistics,
            facts=facts,
            figures=figures,
            crop_tables=sorted({text for texts in named if texts is not None for text in texts}),
            training=without_parcels(finished.sums.get(TRAINING)),
        )

    def sealed_release(self, whole: WholeRelease) -> int:
        """The release of some seasons: the newest one, repaired, where nothing changed; gives its number."""
        if not self.begun and self.before is not None and self.is_as_released(whole, self.before):
            log.info("%s: nothing changed since release %s", self.builder.location, self.after)
            return self.after
        self.begin()
        self.note_damage(None)
        folder = f"index/r{self.release}"
        attributes = whole.attributes(self.release, whole.software)
        steps = len(whole.records) + 1
        self.progress(len(whole.records), steps, f"release {self.release}, files of the index")
        files = whole.files(attributes, self.describe)
        part = self.release_part(files, folder, self.write)
        # The copy by which this release can be read when it is no longer the newest.
        root = whole.root(attributes, folder, part)
        self.builder.replace(f"{folder}/{ROOT_COPY}", [root])
        self.builder.replace(ROOT, [root])
        count = sum(record.part["files"] for record in whole.records) + part["files"]
        log.info(
            "%s: release %d is made, %d files",
            *(self.builder.location, self.release, count),
            extra={"release": self.release},
        )
        return self.release

    def is_as_released(self, whole: WholeRelease, before: ReleasedState) -> bool:
        """Whether a release is the newest one, whose damaged files are repaired then.

        The software that sealed it may be another version; its datasheet is written again only if it is damaged.
        """
        part = before.part(None)
        if not before.is_current_format or part is None:
            return False
        files, folder = self.builder.storage, part["path"].rpartition("/")[0]
        attributes = whole.attributes(before.number, before.attributes["software"])
        root, copy = whole.root(attributes, folder, part), f"{folder}/{ROOT_COPY}"
        if root not in (read_or_none(files, ROOT), read_or_none(files, copy)):
            return False
        contents = whole.files(attributes, self.describe)
        damaged = before.by_season[None] - {copy}
        # Of a lost part of the manifest it is not known which of its files are damaged.
        if damaged:
            is_same = self.release_part(contents, folder, record_of_bytes) == part
        else:
            names = ("statistics.json", "classes.json")
            is_same = all(files.read(f"{folder}/{name}") == contents[name] for name in names)
        if not is_same:
            return False
        if damaged:
            self.release_part(contents, folder, self.repair)
        for name in (copy, ROOT):
            self.repair(name, root)
        return True

    def release_part(self, contents: Mapping[str, bytes], folder: str, keep: Keep) -> ManifestPart:
        """The files that belong to no season, and their part of the manifest, given to `keep` one by one."""
        records = [keep(f"{folder}/{name}", data) for name, data in contents.items()]
        records.append(keep(DATASHEET, contents["datasheet.md"]))
        return {**keep(f"{folder}/manifest.parquet", manifest_bytes(records)), "files": len(records)}

    def write(self, name: str, data: bytes) -> FileRecord:
        """Write a file of the new release; gives what the storage then has."""
        return self.builder.describe(self.builder.replace(name, [data]))

    def repair(self, name: str, data: bytes) -> FileRecord:
        """Write a file of the newest release again if it is missing or has other bytes."""
        record = record_of_bytes(name, data)
        if not has_bytes_of(self.builder.storage, record):
            log.warning("%s was missing or damaged, and is repaired", self.builder.storage.where(name))
            self.builder.replace(name, [data])
            self.repaired.append(name)
        return record

    def note_damage(self, season: int | None) -> None:
        """Note the damaged files of the newest release that the new one has again; None for those of no season."""
        if self.before is not None and not self.was_interrupted:
            self.repaired += sorted(self.before.by_season.get(season, ()))


def record_of_bytes(name: str, data: bytes) -> FileRecord:
    """The record of a file of some bytes, which is not written."""
    return FileRecord(path=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def season_documents_and_coordinates(
    layout: StoreLayout, finished: FinishedSeason, classes: Sequence[Mapping[int, str]], keep: Keep
) -> tuple[dict[str, dict[str, Any]], list[FileRecord]]:
    """Metadata documents and coordinates of a season, given to `keep` one by one; gives the documents by path as the
    root has them, and the records of all files."""
    slots = len(finished.blocks) * layout.capacity
    prefix = str(finished.season)
    members: dict[str, dict[str, Any]] = {}
    for name, spec in layout.arrays().items():
        document = spec.metadata(slots, layout.capacity, layout.codec)
        members[name] = {**document, "attributes": {**spec.attributes, **class_attributes(spec, classes)}}
    records: list[FileRecord] = []
    for coordinate in layout.coordinates(finished.season):
        shape, chunks = coordinate_chunks(coordinate, layout, finished)
        members[coordinate.name] = coordinate.metadata(shape)
        for place, values in enumerate(chunks):
            name = f"{prefix}/{coordinate.name}/c.{place}" + ".0" * (len(shape) - 1)
            records.append(keep(name, encode_coordinate(coordinate, values)))
    for name, document in members.items():
        records.append(keep(f"{prefix}/{name}/zarr.json", canonical_json(document).encode()))
    group = group_document(season_attributes(finished.season, layout))
    records.append(keep(f"{prefix}/zarr.json", canonical_json(season_document(group, members)).encode()))
    return {prefix: group, **{f"{prefix}/{name}": document for name, document in members.items()}}, records
