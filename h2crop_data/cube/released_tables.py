"""Tables of a release as the builder reads them: by its storage, by season, and checked against the manifest."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from h2crop_data.cube.root import RootAttributes, all_index_paths, index_paths, manifest_parts
from h2crop_data.errors import MissingFileError, StoreError
from h2crop_data.storage.storage import Storage

log = logging.getLogger(__name__)


def named_files(attributes: RootAttributes) -> set[str]:
    """Every file of the index that a release names: its own, and in format 2 those of earlier releases."""
    of_index = {path for paths in all_index_paths(attributes).values() for path in paths}
    return of_index | {part["path"] for part in manifest_parts(attributes)}


def paths_of_season(paths: list[str], season: int) -> list[str]:
    """Those of some files that can have rows of a season: its own where each season has one, else all."""
    return [path for path in paths if path.endswith(f"-{season}.parquet")] if len(paths) > 1 else paths


def released_records(files: Storage, attributes: RootAttributes, season: int) -> pa.Table | None:
    """`path` and `sha256` (text) of the files of a season in the manifest of a release, of all seasons in format 1.

    None where that part of the manifest is lost, or is not what the root states.
    """
    parts = {part["path"]: part["sha256"] for part in manifest_parts(attributes)}
    wanted = paths_of_season([*parts], season)
    tables = [checked_table(files, path, parts[path], ["path", "sha256"]) for path in wanted]
    known = [table for table in tables if table is not None]
    return pa.concat_tables(known) if known and len(known) == len(tables) else None


def released_table(
    files: Storage, attributes: RootAttributes, name: str, season: int, records: pa.Table
) -> pa.Table | None:
    """The rows of a season in a table of the index of a release; None where it is lost or damaged.

    records: `path` and `sha256`, as of `released_records`.
    """
    wanted = paths_of_season(index_paths(attributes, name), season)
    here = records.filter(pc.is_in(records["path"], pa.array(wanted, pa.string())))
    stated = dict(zip(here["path"].to_pylist(), here["sha256"].to_pylist(), strict=True))
    tables = [checked_table(files, path, stated.get(path, "")) for path in wanted]
    known = [table for table in tables if table is not None]
    if not known or len(known) < len(tables):
        return None
    table = pa.concat_tables(known, promote_options="permissive")
    return table.filter(pc.equal(table["season"], season)) if "season" in table.column_names else table


def released_among(files: Storage, attributes: RootAttributes, paths: Sequence[str]) -> set[str]:
    """Those of some files that the manifest of a release lists. Raises StoreError where it is lost or damaged."""
    wanted, found = pa.array(paths, pa.string()), set()
    for part in manifest_parts(attributes):
        table = checked_table(files, part["path"], part["sha256"], ["path"])
        if table is None:
            raise StoreError(
                f"{files.where(part['path'])} is missing or damaged, so it is not known which files release "
                f"{attributes['release']} needs: nothing was deleted. Rerun the build, which repairs the newest "
                "release, or do not keep that release"
            )
        listed = table["path"].cast(pa.string())
        found.update(listed.filter(pc.is_in(listed, wanted)).to_pylist())
    return found


def checked_table(files: Storage, path: str, sha256: str, columns: list[str] | None = None) -> pa.Table | None:
    """A table whose bytes have this SHA-256; None where they have another one, or the file is lost.

    Raises StoreError where it cannot be read now.
    """
    try:
        data = files.read(path)
    except MissingFileError:
        log.warning("%s is missing: it is not compared with the next release", files.where(path))
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        log.warning("%s is not what its manifest states: it is not compared with the next release", files.where(path))
        return None
    return pq.read_table(io.BytesIO(data), columns=columns)
