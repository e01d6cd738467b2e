"""Blocks and scenes that are excluded from later releases, with the reason."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from h2crop_data.cube.release_numbers import newest_attributes
from h2crop_data.cube.root import RootAttributes, index_paths
from h2crop_data.errors import MissingFileError, StoreError
from h2crop_data.storage.checked import checked_json, parsed_document
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

RETRACTED = f"{BUILD_FOLDER}/retracted.json"
#: What the reason of a retracted scene begins with in the scenes index.
SCENE_REASON = "retracted: "
#: What the reason of a block begins with whose samples were built anew in others: the plan of those says so itself.
REBUILT = "rebuilt as block"
#: What the reason of a block begins with that was retracted before it was built: it has no files, no release ever had
#: it, and its samples may be planned again.
NEVER_BUILT = "never built: "
#: The tables that have the retractions of a season.
RETRACTING = re.compile(r"index/r\d+/(blocks|scenes)-\d+\.parquet")
#: Of so many lost retractions an error names each.
NAMED = 10


Number = Annotated[str, StringConstraints(pattern=r"^\d+$")]
Reason = Annotated[str, StringConstraints(min_length=1)]


class RetractionRecord(BaseModel):
    """What the file of retractions contains; one of an earlier version has no checksum."""

    model_config = ConfigDict(strict=True, extra="forbid")

    #: Season -> block -> reason.
    blocks: dict[Number, dict[Number, Reason]]
    #: Scene -> reason.
    scenes: dict[str, Reason]


def problem_in_short(error: ValueError) -> str:
    """What is wrong with a document: of several problems the first, with its place."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


@dataclass
class Retractions:
    """What was retracted from a store."""

    #: Season -> block -> reason.
    blocks: dict[int, dict[int, str]] = field(default_factory=dict)
    #: Id of a scene that no later plan takes -> reason.
    scenes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, files: Storage) -> Retractions:
        """Those of a store; none where nothing was ever retracted. Raises StoreError for a damaged record."""
        if not files.exists(RETRACTED):
            return cls()
        try:
            record = RetractionRecord.model_validate(parsed_document(files.read(RETRACTED)).content)
        except ValueError as error:
            raise StoreError(
                f"{files.where(RETRACTED)} is damaged ({problem_in_short(error)}); restore it from a backup, or delete "
                "it and retract again what it excluded: the index of the newest release lists that, and the next "
                "command names what is missing"
            ) from error
        blocks = {
            int(season): {int(block): reason for block, reason in of_season.items()}
            for season, of_season in record.blocks.items()
        }
        return cls(blocks, record.scenes)

    def write(self, files: Storage) -> None:
        """Write the record into the store, with a checksum."""
        blocks = {
            str(season): {str(block): reason for block, reason in sorted(of_season.items())}
            for season, of_season in sorted(self.blocks.items())
        }
        files.replace(RETRACTED, [checked_json({"blocks": blocks, "scenes": self.scenes}).encode()])

    def never_built(self, season: int) -> set[int]:
        """The blocks of a season that were retracted before they were built."""
        return {block for block, reason in self.blocks.get(season, {}).items() if reason.startswith(NEVER_BUILT)}

    def add(self, others: Retractions) -> None:
        """Retract what others say as well; what is retracted already keeps its reason."""
        for season, blocks in others.blocks.items():
            self.blocks[season] = {**blocks, **self.blocks.get(season, {})}
        self.scenes = {**others.scenes, **self.scenes}


def complete_retractions(files: Storage) -> Retractions:
    """The retractions of a store, after a look at whether they have everything that its newest release keeps out.

    A damaged table of that release is not compared: sealing repairs it where these retractions give its bytes, and
    makes no release where they do not (`refuse_damaged_tables`).

    Raises StoreError where the record was lost or is an older one: the next release would bring back what it lacks.
    """
    retractions, released = Retractions.read(files), released_retractions(files)
    lost = [
        (f"scene {scene}", f"--scene {scene}", reason)
        for scene, reason in released.scenes.items()
        if scene not in retractions.scenes
    ] + [
        (f"block {block} of {season}", f"--block {season}:{block}", reason)
        for season, blocks in released.blocks.items()
        for block, reason in blocks.items()
        if block not in retractions.blocks.get(season, {})
    ]
    if not lost:
        return retractions
    named = ", ".join(f"{what} ({reason})" for what, _, reason in lost[:NAMED])
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    options: dict[str, list[str]] = {}
    for _, option, reason in lost[:NAMED]:
        options.setdefault(reason.removeprefix(NEVER_BUILT), []).append(option)
    commands = [
        f'`h2crop retract {files.location} {" ".join(given)} --reason "{reason}"`' for reason, given in options.items()
    ]
    raise StoreError(
        f"the newest release of {files.location} excludes {named}{more}, but {files.where(RETRACTED)} does not: "
        "that file is missing or outdated, and the next release would contain them again. Restore it from a "
        f"backup, or retract them again: {', then '.join(commands)}"
    )


def released_retractions(files: Storage) -> Retractions:
    """What was retracted from the newest release of a store, by its index; nothing before the first.

    That is not the one the root says where an older backup was restored over the store.

    Blocks that were rebuilt are not among them: plans say which these are.
    """
    found = Retractions()
    attributes = newest_attributes(files)
    if attributes is None:
        return found
    for season, block, reason in index_rows(files, attributes, "blocks", ["season", "block", "retracted"]):
        if reason and not reason.startswith(REBUILT):
            found.blocks.setdefault(season, {})[block] = reason
    for scene, reason in index_rows(files, attributes, "scenes", ["id", "reason"]):
        if reason.startswith(SCENE_REASON):
            found.scenes[scene] = reason.removeprefix(SCENE_REASON)
    return found


def index_rows(files: Storage, attributes: RootAttributes, name: str, columns: list[str]) -> list[tuple[Any, ...]]:
    """Some columns of a table of a release, row by row; none of files that are lost, damaged or of a format without
    them.

    Raises StoreError for a damaged table of format 1, which is not repaired.
    """
    rows: list[tuple[Any, ...]] = []
    for path in index_paths(attributes, name):
        try:
            rows += rows_of_file(files, path, columns)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, StoreError):
                raise
            if "parts" not in attributes["manifest"]:
                raise damaged_table(files, path, str(error)) from error
    return rows


def refuse_damaged_tables(files: Storage, damaged: Iterable[str]) -> None:
    """Refuse to write a season again where a table is damaged that has its retractions. Raises StoreError.

    damaged: names of files of the newest release that are missing or have other bytes.
    """
    for path in sorted(damaged):
        if RETRACTING.fullmatch(path) and files.exists(path):
            raise damaged_table(files, path, "its bytes are not those of the manifest")


def damaged_table(files: Storage, path: str, why: str) -> StoreError:
    """The error for a table that may have had a retraction."""
    return StoreError(
        f"{files.where(path)} is damaged ({why}), so a retraction may be lost; restore it from a backup, or "
        "delete it if nothing was ever retracted"
    )


def rows_of_file(files: Storage, path: str, columns: list[str]) -> list[tuple[Any, ...]]:
    """The same of one file of a table. Raises an error of Arrow, or OSError, for a damaged one."""
    try:
        data = files.read(path)
    except MissingFileError:
        return []
    file = pq.ParquetFile(io.BytesIO(data))
    if not set(columns) <= set(file.schema_arrow.names):
        return []
    table = file.read(columns)
    return list(zip(*(table[column].to_pylist() for column in columns), strict=True))
