"""What the builder keeps of a sealed season, so that the next release need not gather a season that did not change.

.build/sealed/<season>.json   what a release needs of the season, and what it was made from
.build/sealed/<season>.sums   the sums of its training split, for the statistics of all seasons

Both have the same size for every season, but for lists that name scenes. Where they are missing, damaged or outdated,
the season is gathered again and gives the same files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from h2crop_data.cube.root import ManifestPart, SeasonIdentity
from h2crop_data.cube.statistics import BlockSums
from h2crop_data.errors import MissingFileError
from h2crop_data.storage.checked import checked_json, parsed_document
from h2crop_data.storage.storage import BUILD_FOLDER, Storage

SEALED_FOLDER = f"{BUILD_FOLDER}/sealed"


@dataclass(frozen=True)
class SeasonRecord:
    """A season as it was sealed.

    inputs: a digest of everything it follows from. identity: its entry in the root. documents: path -> Zarr document.
    index: paths of its index files. part: its part of the manifest. data_bytes: of its shards, coordinates and
    documents. statistics: counts of its classes. facts: for the datasheet. figures: for the report of the command.
    crop_tables: those that its labels were made with, `fr <sha256>`. training: sums of its training split without the
    numbers of parcels; None without samples in it.
    """

    season: int
    inputs: str
    identity: SeasonIdentity
    documents: dict[str, dict[str, Any]]
    index: list[str]
    part: ManifestPart
    data_bytes: int
    statistics: dict[str, Any]
    facts: dict[str, Any]
    figures: dict[str, Any]
    crop_tables: list[str]
    training: BlockSums | None

    def write(self, files: Storage) -> None:
        """Keep the record in the store."""
        document = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "training"}
        document["sums"] = None
        if self.training is not None:
            data = self.training.encode()
            files.replace(sums_name(self.season), [data])
            document["sums"] = hashlib.sha256(data).hexdigest()
        files.replace(record_name(self.season), [checked_json(document).encode()])


def record_name(season: int) -> str:
    """The file of the record of a season."""
    return f"{SEALED_FOLDER}/{season}.json"


def sums_name(season: int) -> str:
    """The file of the sums of its training split."""
    return f"{SEALED_FOLDER}/{season}.sums"


def read_record(files: Storage, season: int) -> SeasonRecord | None:
    """The record of a season; None where it is missing, damaged or of another version."""
    try:
        document = parsed_document(files.read(record_name(season)))
        content: Mapping[str, Any] = document.content
        wanted = {field.name for field in fields(SeasonRecord)} - {"training"} | {"sums"}
        if not document.checked or content.keys() != wanted or content["season"] != season:
            return None
        training = None
        if content["sums"] is not None:
            data = files.read(sums_name(season))
            if hashlib.sha256(data).hexdigest() != content["sums"]:
                return None
            training = BlockSums.decode(data)
    except (ValueError, MissingFileError):
        return None
    return SeasonRecord(**{name: value for name, value in content.items() if name != "sums"}, training=training)


def forget_season(files: Storage, season: int) -> None:
    """Delete the record of a season whose blocks are about to be written, so that the next seal gathers it."""
    files.delete(record_name(season))


def without_parcels(sums: BlockSums | None) -> BlockSums | None:
    """Sums without the numbers of parcels, so that their size is the same for all seasons."""
    return None if sums is None else replace(sums, parcels=sums.parcels[:0])
