"""The root document: which one to believe, and what is wrong with it.

A release keeps a copy of its root in its index. Where the root is damaged the copy is believed, so that everything
else can still be looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.cube.root import Root
from h2crop_data.cube.schema import ROOT_COPY, check_format_version
from h2crop_data.errors import FormatVersionError, StoreError
from h2crop_data.grid import CELL_STEP
from h2crop_data.sources.formats import layout_of_root
from h2crop_data.storage.storage import Storage, canonical_json
from h2crop_data.validation.documents import difference, store_documents
from h2crop_data.validation.findings import Finding, error
from h2crop_data.validation.remedies import Remedies

COPY = re.compile(rf"index/r(\d+)/{re.escape(ROOT_COPY)}")
SHA256 = r"^[0-9a-f]{64}$"
#: Endings of index files.
ENDINGS = ("parquet", "json", "md")


class Facts(BaseModel):
    """A part of the root attributes."""

    model_config = ConfigDict(strict=True)


class CodecFacts(Facts):
    """How chunks are compressed."""

    name: Literal["lz4", "zstd"]
    level: int = Field(ge=1, le=9)


class LayoutFacts(Facts):
    """The shape of everything."""

    cell_size: int = Field(ge=CELL_STEP, multiple_of=CELL_STEP)
    block_capacity: int = Field(ge=1)
    codec: CodecFacts
    s2_bands: list[str]
    enmap_bands: int = Field(ge=0)
    labels: bool
    enmap_mask: bool = False


class SeasonFacts(Facts):
    """A season, in short."""

    blocks: int = Field(ge=1)
    samples: int = Field(ge=0)
    sha256: str = Field(pattern=SHA256)


class ManifestFacts(Facts):
    """The manifest, in short."""

    bytes: int = Field(ge=1)
    sha256: str = Field(pattern=SHA256)
    files: int = Field(ge=1)


class RootFacts(Facts):
    """The attributes of a root document."""

    title: str
    format_version: str = Field(pattern=r"^\d+\.\d+$")
    release: int = Field(ge=1)
    layout: LayoutFacts
    seasons: dict[str, SeasonFacts] = Field(min_length=1)
    index: dict[str, str]
    manifest: ManifestFacts
    software: str

    @model_validator(mode="after")
    def names_that_fit(self) -> RootFacts:
        """Seasons are years, and index files lie where they belong, each under its own name."""
        for season in self.seasons:
            if not re.fullmatch(r"\d{4}", season):
                raise ValueError(f"{season!r} is no season")
        for name, path in self.index.items():
            if path not in {f"index/r{self.release}/{name}.{ending}" for ending in ENDINGS}:
                raise ValueError(f"the index {name!r} cannot lie in {path!r}")
        if "manifest" not in self.index:
            raise ValueError("it names no manifest")
        return self


@dataclass(frozen=True)
class RootFile:
    """A root document, or a copy of one, as it was found."""

    name: str
    data: bytes = b""
    #: None where it cannot be used.
    document: Root | None = None
    #: Why it cannot be used.
    problem: str = ""
    #: It is of a major version this h2crop does not read.
    foreign: bool = False


def read_root_file(files: Storage, name: str) -> RootFile:
    """Read a root document, or a copy."""
    if not files.exists(name):
        return RootFile(name, problem="is missing")
    try:
        data = files.read(name)
        document: Root = json.loads(data)
        attributes = document["attributes"]
        check_format_version(attributes, files.location)
        RootFacts.model_validate(attributes)
        layout_of_root(attributes)
        document["consolidated_metadata"]["metadata"].keys()
    except FormatVersionError as failure:
        return RootFile(name, data, problem=str(failure), foreign=True)
    except ValidationError as failure:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in failure.errors()]
        return RootFile(name, problem=f"does not say what a root must say ({'; '.join(problems[:3])})")
    except StoreError as failure:
        return RootFile(name, problem=f"cannot be read ({failure})")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as failure:
        return RootFile(name, problem=f"is no root of a store ({type(failure).__name__}: {str(failure)[:80]})")
    return RootFile(name, data, document)


def documents_of(document: Root) -> dict[str, dict[str, Any]]:
    """The metadata documents that the store of a root must have."""
    attributes = document["attributes"]
    seasons = {int(season): facts["blocks"] for season, facts in attributes["seasons"].items()}
    return store_documents(layout_of_root(attributes), seasons)


def is_sound(files: Storage, root: RootFile) -> bool:
    """Whether a root agrees with itself and with the manifest it names."""
    assert root.document is not None
    attributes = root.document["attributes"]
    try:
        manifest = files.read(attributes["index"]["manifest"])
    except StoreError:
        return False
    return (
        root.document["consolidated_metadata"]["metadata"] == documents_of(root.document)
        and attributes["manifest"]["sha256"] == hashlib.sha256(manifest).hexdigest()
        and attributes["manifest"]["bytes"] == len(manifest)
        and root.data == canonical_json(root.document).encode()
    )


def release_of(copy: str) -> int:
    """The number of the release that a copy of a root belongs to."""
    return int(copy.split("/")[1].removeprefix("r"))


class RootChoice:
    """Which root document to believe: the root, or where that is damaged its copy."""

    def __init__(self, files: Storage, sizes: Mapping[str, int], remedies: Remedies) -> None:
        self.files = files
        self.remedies = remedies
        #: None where there is none, and before the findings were asked for.
        self.document: Root | None = None
        #: Copies of roots, that of the newest release first.
        self.copies = sorted((name for name in sizes if COPY.fullmatch(name)), key=release_of, reverse=True)

    def findings(self) -> Iterator[Finding]:
        """Choose; gives what is wrong with the root and its copy. Raises FormatVersionError for a foreign format."""
        root = read_root_file(self.files, ROOT)
        if root.document is None:
            yield from self.from_copy(root)
            return
        self.document = root.document
        path = root.document["attributes"]["index"].get("root")
        if path is not None:
            yield from self.compare(root, read_root_file(self.files, path))

    def from_copy(self, root: RootFile) -> Iterator[Finding]:
        """What to do without a root."""
        # The newest that can be used: a release that was not finished has a copy and no root.
        copies = (read_root_file(self.files, name) for name in self.copies)
        copy = next((file for file in copies if file.document is not None), None)
        # A copy beside a root of another format is of an earlier release, unless it is of the same one.
        if root.foreign and (copy is None or read_root_file(self.files, self.copies[0]).foreign):
            raise FormatVersionError(root.problem)
        self.document = None if copy is None else copy.document
        yield error("root", ROOT, root.problem, self.remedies.root(None if copy is None else copy.name))

    def compare(self, root: RootFile, copy: RootFile) -> Iterator[Finding]:
        """A root that can be read against its copy."""
        assert root.document is not None
        if copy.document is None:
            yield error("root", copy.name, copy.problem, f"copy {ROOT} over {copy.name}")
            return
        if copy.data == root.data:
            return
        differs = difference(root.document, copy.document) or "their bytes differ"
        sound = is_sound(self.files, root), is_sound(self.files, copy)
        if sound == (False, True):
            self.document = copy.document
            yield error("root", ROOT, f"was changed: in its copy {copy.name} {differs}", self.remedies.root(copy.name))
        elif sound == (True, False):
            yield error("root", copy.name, f"was changed: against {ROOT} {differs}", f"copy {ROOT} over {copy.name}")
        else:
            what = f"one of them was changed: in the second {differs}"
            yield error("root", f"{ROOT} and {copy.name}", what, self.remedies.sealed())


def consolidated_problems(document: Root) -> Iterator[tuple[str, str]]:
    """Path and difference of every consolidated entry that is not as the layout wants it."""
    expected = documents_of(document)
    stored = document["consolidated_metadata"]["metadata"]
    for path in sorted({*expected, *stored}):
        if path not in stored:
            yield path, "is missing"
        elif path not in expected:
            yield path, "is not expected"
        elif differs := difference(expected[path], stored[path]):
            yield path, differs
