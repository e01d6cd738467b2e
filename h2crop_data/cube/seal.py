"""Sealing: coordinates, index, statistics, manifest, and last the root document that makes a release.

Everything written here follows from the blocks; sealing again writes the same bytes under the same names, and a reader
sees the new release when the root is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from h2crop_data.cube.continuity import check_continuity
from h2crop_data.cube.coordinates import coordinate_chunks, encode_coordinate
from h2crop_data.cube.index import SeasonTables, index_files, index_tables, parquet_bytes, season_tables
from h2crop_data.cube.meanings import CONVENTIONS, class_attributes, season_attributes, season_document
from h2crop_data.cube.release_numbers import ROOT, SEALING, current_attributes, next_release
from h2crop_data.cube.root import OriginIdentity, RootAttributes, SealedAttributes
from h2crop_data.cube.schema import FORMAT_VERSION, ROOT_COPY, StoreLayout, group_document
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.cube.writer import StoreBuilder
from h2crop_data.progress import Progress, silent
from h2crop_data.storage.storage import FileRecord

log = logging.getLogger(__name__)
#: The newest release in words, where a visitor looks first.
DATASHEET = "DATASHEET.md"


class Describe(Protocol):
    """What puts a release into words."""

    def season(
        self, layout: StoreLayout, tables: SeasonTables, data_bytes: int, coordinates: Mapping[str, Sequence[float]]
    ) -> dict[str, Any]:
        """The facts of a season: plain data that JSON can hold, of a size that does not depend on its samples."""

    def release(
        self,
        attributes: SealedAttributes,
        seasons: Mapping[int, Mapping[str, Any]],
        statistics: Mapping[str, Any],
        classes: Sequence[Mapping[int, str]],
    ) -> str:
        """The datasheet, from the facts of every season."""


def seal(
    builder: StoreBuilder,
    layout: StoreLayout,
    seasons: list[FinishedSeason],
    classes: list[dict[int, str]],
    software: str,
    describe: Describe,
    origin: OriginIdentity | None = None,
    progress: Progress = silent,
) -> int:
    """Make a release of the finished seasons; gives its number. If nothing changed since the last release, gives the
    number of that one.

    classes: names of the class ids of each tier. describe: what writes the datasheet. origin: the release of another
    store this one was relabelled from. progress: called with (done, total, text) for each season and for the index.
    Raises StoreError where the release would contradict the newest one.
    """
    seasons = sorted(seasons, key=lambda finished: finished.season)
    identity = {str(finished.season): finished.identity_in(layout) for finished in seasons}
    current = current_attributes(builder.storage)
    if current and current["seasons"] == identity and current["format_version"] == FORMAT_VERSION:
        # Left by a builder that died after it had replaced the root.
        builder.storage.delete(SEALING)
        log.info("%s: nothing changed since release %s", builder.location, current["release"])
        return int(current["release"])
    for finished in seasons:
        check_continuity(builder.storage, current, finished.season, finished.samples, finished.blocks, finished.files)
    newest = int(current["release"]) if current else 0
    release = next_release(builder.storage, newest)
    builder.write_json(SEALING, {"release": release, "after": newest})
    members: dict[str, dict[str, Any]] = {}
    files: list[FileRecord] = []
    for done, finished in enumerate(seasons):
        progress(done, len(seasons) + 1, f"release {release}, coordinates of season {finished.season}")
        documents, written = write_season(builder, layout, finished, classes)
        members |= documents
        files += written + finished.files
    attributes: RootAttributes = {
        "title": "h2crop store",
        "Conventions": CONVENTIONS,
        "format_version": FORMAT_VERSION,
        "release": release,
        "layout": layout.attributes(),
        "seasons": identity,
        "software": software,
    }
    if origin:
        attributes["origin"] = origin
    progress(len(seasons), len(seasons) + 1, f"release {release}, index")
    tables = index_tables(seasons, classes, layout.arrays())
    index = index_files(tables)
    progress(len(seasons), len(seasons) + 1, f"release {release}, datasheet")
    facts = {
        finished.season: describe.season(
            layout,
            season_tables(finished),
            sum(int(file["bytes"]) for file in files if str(file["path"]).startswith(f"{finished.season}/")),
            finished.first_coordinates,
        )
        for finished in seasons
    }
    text = describe.release(attributes, facts, tables.statistics, classes)
    index["datasheet.md"] = text.encode()
    folder = f"index/r{release}"
    paths: dict[str, str | list[str]] = {name.split(".")[0]: f"{folder}/{name}" for name in index}
    progress(len(seasons), len(seasons) + 1, f"release {release}, files of the index")
    files += [builder.describe(builder.replace(f"{folder}/{name}", [data])) for name, data in index.items()]
    files.append(builder.describe(builder.replace(DATASHEET, [index["datasheet.md"]])))
    manifest = pd.DataFrame(files, columns=["path", "bytes", "sha256"]).sort_values("path", ignore_index=True)
    name_of_manifest, copy_of_root = f"{folder}/manifest.parquet", f"{folder}/{ROOT_COPY}"
    record = builder.describe(builder.replace(name_of_manifest, [parquet_bytes(manifest)]))
    paths |= {"manifest": name_of_manifest, "root": copy_of_root}
    attributes["index"] = paths
    attributes["manifest"] = {"bytes": record["bytes"], "sha256": record["sha256"], "files": len(manifest)}
    root = group_document(attributes, dict(sorted(members.items())))
    # The copy by which this release can be read when it is no longer the newest.
    builder.write_json(copy_of_root, root)
    builder.write_json(ROOT, root)
    builder.storage.delete(SEALING)
    log.info("%s: release %d is made, %d files", builder.location, release, len(manifest), extra={"release": release})
    return release


def write_season(
    builder: StoreBuilder, layout: StoreLayout, finished: FinishedSeason, classes: Sequence[Mapping[int, str]]
) -> tuple[dict[str, dict[str, Any]], list[FileRecord]]:
    """Metadata documents and coordinates of a season; gives the documents by path, and the files written."""
    slots = len(finished.blocks) * layout.capacity
    prefix = str(finished.season)
    members: dict[str, dict[str, Any]] = {}
    for name, spec in layout.arrays().items():
        document = spec.metadata(slots, layout.capacity, layout.codec)
        members[name] = {**document, "attributes": {**spec.attributes, **class_attributes(spec, classes)}}
    files: list[str] = []
    for coordinate in layout.coordinates(finished.season):
        shape, chunks = coordinate_chunks(coordinate, layout, finished)
        members[coordinate.name] = coordinate.metadata(shape)
        for place, values in enumerate(chunks):
            name = f"{prefix}/{coordinate.name}/c.{place}" + ".0" * (len(shape) - 1)
            files.append(builder.replace(name, [encode_coordinate(coordinate, values)]))
    files += [builder.write_json(f"{prefix}/{name}/zarr.json", document) for name, document in members.items()]
    group = group_document(season_attributes(finished.season, layout))
    files.append(builder.write_json(f"{prefix}/zarr.json", season_document(group, members)))
    documents = {prefix: group, **{f"{prefix}/{name}": document for name, document in members.items()}}
    return documents, [builder.describe(name) for name in files]
