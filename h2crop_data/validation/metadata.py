"""The root and the metadata documents: which root to believe, and that every document is what the layout wants.

A release keeps a copy of its root in its index. Where the root is damaged the copy is believed, so that everything
else can still be looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from h2crop_data.bounded_map import in_order
from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.cube.root import Root, RootAttributes, index_paths, manifest_parts, stored_data
from h2crop_data.cube.schema import (
    FORMAT_VERSION,
    LAYOUT_GENERATION,
    ROOT_COPY,
    check_format_version,
    is_format_1,
)
from h2crop_data.errors import FormatVersionError, StoreError
from h2crop_data.progress import Progress
from h2crop_data.sources.formats import known_layout, layout_of_root, of_generation
from h2crop_data.storage.storage import Storage, canonical_json
from h2crop_data.validation.documents import (
    Meanings,
    coordinate_files,
    expected_documents,
    expected_windows,
    shape_of,
    with_members,
)
from h2crop_data.validation.findings import (
    SMALL_READS,
    Checking,
    Counted,
    Findings,
    NotChecked,
    Remedies,
    Reports,
    error,
    first,
    short,
    warning,
)
from h2crop_data.validation.release import SHA256, SHEET, Release

INDEX_PATH = re.compile(r"index/r(?P<release>\d+)/(?P<stem>[\w-]+)\.(?P<ending>\w+)")
COPY = re.compile(rf"index/r(\d+)/{re.escape(ROOT_COPY)}")
#: Attributes that name the classes of a tier.
CLASSES = re.compile(r"classes_tier[1-4]")
#: Endings of index files.
ENDINGS = ("parquet", "json", "md")
#: The side of a cell is a multiple of so many metres, so that pixels of 10, 20, 30 and 60 m fit.
SIDE_STEP = 60


# What a root must say


class Facts(BaseModel):
    """A part of the root attributes."""

    model_config = ConfigDict(strict=True)


class CodecFacts(Facts):
    """How chunks are compressed."""

    name: Literal["lz4", "zstd"]
    level: int = Field(ge=1, le=9)
    checksum: bool = False


class LayoutFacts(Facts):
    """The shape of everything."""

    cell_size: int = Field(ge=SIDE_STEP, multiple_of=SIDE_STEP)
    block_capacity: int = Field(ge=1)
    codec: CodecFacts
    sources: dict[str, dict[str, Any]] | None = None
    s2_bands: list[str] | None = None
    enmap_bands: int | None = Field(None, ge=0)
    labels: bool | None = None
    enmap_mask: bool = False


class SeasonFacts(Facts):
    """A season, in short."""

    blocks: int = Field(ge=1)
    samples: int = Field(ge=0)
    sha256: str = Field(pattern=SHA256)
    windows: list[list[str]] | None = None


class ManifestPartFacts(Facts):
    """A file of the manifest, in short."""

    path: str = Field(pattern=r"^index/r\d+/[\w-]+\.parquet$")
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern=SHA256)
    files: int = Field(ge=1)


class ManifestFacts(Facts):
    """The manifest, in short. Format 1 has one file, with its bytes and SHA-256; format 2 parts."""

    sha256: str = Field(pattern=SHA256)
    files: int = Field(ge=1)
    bytes: int | None = Field(None, ge=1)
    parts: list[ManifestPartFacts] = Field(default=[], min_length=1)

    @model_validator(mode="after")
    def parts_that_fit(self) -> ManifestFacts:
        """The whole follows from its parts."""
        if (self.bytes is None) == (not self.parts):
            raise ValueError("it has either bytes or parts")
        if self.parts and self.files != sum(part.files for part in self.parts):
            raise ValueError(f"its parts list {sum(part.files for part in self.parts)} files, it {self.files}")
        listed = "[" + ", ".join(f"[{json.dumps(part.path)}, {json.dumps(part.sha256)}]" for part in self.parts) + "]"
        if self.parts and self.sha256 != hashlib.sha256(listed.encode()).hexdigest():
            raise ValueError("its SHA-256 is not that of its parts")
        return self


class RootFacts(Facts):
    """The attributes of a root document."""

    title: str
    Conventions: str | None = None
    format_version: str = Field(pattern=r"^\d+\.\d+$")
    release: int = Field(ge=1)
    layout: LayoutFacts
    seasons: dict[str, SeasonFacts] = Field(min_length=1)
    index: dict[str, str | list[str]]
    manifest: ManifestFacts
    software: str

    @model_validator(mode="after")
    def names_that_fit(self) -> RootFacts:
        """Seasons are years, and index files lie where they belong, each under its own name."""
        for season in self.seasons:
            if not re.fullmatch(r"\d{4}", season):
                raise ValueError(f"{season!r} is not a season")
        for name, paths in self.index.items():
            for path in [paths] if isinstance(paths, str) else paths:
                if not self.may_lie_in(name, path, alone=isinstance(paths, str)):
                    raise ValueError(f"the index {name!r} cannot lie in {path!r}")
        if "manifest" not in self.index:
            raise ValueError("it names no manifest")
        if self.manifest.parts and [part.path for part in self.manifest.parts] != self.index["manifest"]:
            raise ValueError("its index names other parts of the manifest than its manifest")
        return self

    def may_lie_in(self, name: str, path: str, *, alone: bool) -> bool:
        """Whether a part of the index may lie in a file: of this release, or of an earlier one since format 2."""
        found = INDEX_PATH.fullmatch(path)
        if found is None or found["ending"] not in ENDINGS:
            return False
        if self.format_version.startswith("1."):
            return alone and found["stem"] == name and int(found["release"]) == self.release
        right = found["stem"] == name or (not alone and found["stem"].startswith(f"{name}-"))
        return right and 1 <= int(found["release"]) <= self.release


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
        check_layout(attributes)
        document["consolidated_metadata"]["metadata"].keys()
    except FormatVersionError as failure:
        return RootFile(name, data, problem=str(failure), foreign=True)
    except ValidationError as failure:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in failure.errors()]
        return RootFile(name, problem=f"does not say what a root must say ({'; '.join(problems[:3])})")
    except StoreError as failure:
        return RootFile(name, problem=f"cannot be read ({failure})")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as failure:
        return RootFile(name, problem=f"is not the root of a store ({type(failure).__name__}: {str(failure)[:80]})")
    return RootFile(name, data, document)


def check_layout(attributes: RootAttributes) -> None:
    """Refuse a layout whose sources are not as the format knows them, and other windows. Raises ValueError, KeyError.

    What a root of format 2 states of the sources that come with h2crop follows from a few facts, which format 1 states.
    """
    layout = layout_of_root(attributes)
    for season, facts in attributes["seasons"].items():
        stated, expected = facts.get("windows"), expected_windows(layout, int(season))
        if not is_format_1(attributes) and stated != expected:
            raise ValueError(f"seasons.{season}.windows: {difference(expected, stated)}")
    if is_format_1(attributes):
        return
    known = known_layout(layout.cell_size, layout.capacity, **asdict(stored_data(attributes["layout"])))
    generation = LAYOUT_GENERATION if layout.codec.checksum else 1
    for name, expected_source in of_generation(known, generation).attributes()["sources"].items():
        if what := difference(expected_source, attributes["layout"]["sources"].get(name), f"layout.sources.{name}"):
            raise ValueError(what)


def documents_of(document: Root) -> dict[str, dict[str, Any]]:
    """The entries that the consolidated metadata of a root must have."""
    attributes = document["attributes"]
    seasons = {int(season): facts["blocks"] for season, facts in attributes["seasons"].items()}
    layout = layout_of_root(attributes)
    documents: dict[str, dict[str, Any]] = {}
    for season, blocks in seasons.items():
        documents |= expected_documents(layout, season, blocks, stated_meanings(document))
    return documents


def is_sound(files: Storage, root: RootFile) -> bool:
    """Whether a root agrees with itself and with the manifest it names."""
    assert root.document is not None
    attributes = root.document["attributes"]
    parts = manifest_parts(attributes)
    try:
        stored = [files.read(part["path"]) for part in parts]
    except StoreError:
        return False
    return (
        root.document["consolidated_metadata"]["metadata"] == documents_of(root.document)
        and all(
            part["sha256"] == hashlib.sha256(data).hexdigest() and part["bytes"] == len(data)
            for part, data in zip(parts, stored, strict=True)
        )
        and root.data == canonical_json(root.document).encode()
    )


def release_of(copy: str) -> int:
    """The number of the release that a copy of a root belongs to."""
    return int(copy.split("/")[1].removeprefix("r"))


def choose_root(files: Storage, sizes: Mapping[str, int], remedies: Remedies) -> Checking[Root | None]:
    """Which root document to believe: the root, or where that is damaged its copy; None where neither can be read.

    Raises FormatVersionError for a store of another major version of the format.
    """
    root = read_root_file(files, ROOT)
    if root.document is None:
        copies = sorted((name for name in sizes if COPY.fullmatch(name)), key=release_of, reverse=True)
        return (yield from root_from_copy(files, root, copies, remedies))
    paths = index_paths(root.document["attributes"], "root")
    if not paths:
        return root.document
    return (yield from compare_with_copy(files, root, read_root_file(files, paths[0]), remedies))


def root_from_copy(files: Storage, root: RootFile, copies: list[str], remedies: Remedies) -> Checking[Root | None]:
    """What to read without a root. copies: names of copies of roots, that of the newest release first."""
    # The newest that can be used: a release that was not finished has a copy and no root.
    read = (read_root_file(files, name) for name in copies)
    copy = next((file for file in read if file.document is not None), None)
    # A copy beside a root of another format is of an earlier release, unless it is of the same one.
    if root.foreign and (copy is None or read_root_file(files, copies[0]).foreign):
        raise FormatVersionError(root.problem)
    yield error("root", ROOT, root.problem, remedies.root(None if copy is None else copy.name))
    return None if copy is None else copy.document


def compare_with_copy(files: Storage, root: RootFile, copy: RootFile, remedies: Remedies) -> Checking[Root]:
    """A root that can be read against its copy; gives the one to believe."""
    assert root.document is not None
    if copy.document is None:
        yield error("root", copy.name, copy.problem, remedies.copy_of_root(copy.name))
        return root.document
    if copy.data == root.data:
        return root.document
    differs = difference(root.document, copy.document) or "their bytes differ"
    sound = is_sound(files, root), is_sound(files, copy)
    if sound == (False, True):
        yield error("root", ROOT, f"was changed: in its copy {copy.name} {differs}", remedies.root(copy.name))
        return copy.document
    if sound == (True, False):
        what = f"was changed: against {ROOT} {differs}"
        yield error("root", copy.name, what, remedies.copy_of_root(copy.name))
    else:
        what = f"one of them was changed: in the second {differs}"
        yield error("root", f"{ROOT} and {copy.name}", what, remedies.sealed())
    return root.document


def opened_release(
    files: Storage,
    sizes: Mapping[str, int],
    root: Root,
    remedies: Remedies,
    *,
    partial: bool,
    is_being_sealed: bool = False,
) -> Release:
    """The release of a root, before anything else of it is read."""
    layout, strange = layout_of_root(root["attributes"]), dict(consolidated_problems(root))
    return Release(files, sizes, root, layout, strange, remedies, partial=partial, is_being_sealed=is_being_sealed)


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


def stated_meanings(root: Root) -> Meanings:
    """What a root says of its classes, by array; None for a root of format 1.

    It is compared with the classes of the index when those are read.
    """
    if is_format_1(root["attributes"]):
        return None
    found: dict[str, dict[str, Any]] = {}
    for path, document in root["consolidated_metadata"]["metadata"].items():
        attributes = document.get("attributes", {})
        named = {name: value for name, value in attributes.items() if CLASSES.fullmatch(name)}
        if named:
            found.setdefault(path.split("/")[-1], named)
    return found


def difference(expected: Any, found: Any, at: str = "") -> str:
    """In words, the first place where two documents differ; empty where they do not."""
    if json.dumps(expected, sort_keys=True) == json.dumps(found, sort_keys=True):
        return ""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}, key=str):
            place = f"{at}.{key}" if at else str(key)
            if key not in found:
                return f"{place} is missing"
            if key not in expected:
                return f"{place} is not expected"
            if differs := difference(expected[key], found[key], place):
                return differs
        return ""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        inside = (difference(*pair, f"{at}[{place}]") for place, pair in enumerate(zip(expected, found, strict=True)))
        return next(filter(None, inside), "")
    return f"{at or 'it'} is {short(found)}, expected {short(expected)}"


def release_files(release: Release, index: Mapping[str, Sequence[str]]) -> set[str]:
    """The files that sealing writes and the manifest lists: metadata documents, coordinates, index.

    index: name -> paths.
    """
    files = {path for name, paths in index.items() if name not in ("manifest", "root") for path in paths}
    if "datasheet" in index:
        files.add(SHEET)
    for season, blocks in release.seasons.items():
        coordinates = release.coordinate_specs(season)
        names = [*release.specs, *(coordinate.name for coordinate in coordinates)]
        files |= {f"{season}/zarr.json", *(f"{season}/{name}/zarr.json" for name in names)}
        for coordinate in coordinates:
            shape = shape_of(coordinate, blocks * release.layout.capacity)
            files |= {f"{season}/{coordinate.name}/{chunk}" for chunk in coordinate_files(coordinate, shape)}
    return files


# The documents it has


def check_format(release: Release) -> Findings:
    """Whether the store is of this format, or of an older or newer minor version."""
    version, newest = release.attributes["format_version"], FORMAT_VERSION
    major, minor = map(int, newest.split("."))
    if release.format < (major, minor):
        if release.remedies.origin == "built":
            remedy = (
                f"`h2crop migrate {release.files.location}` makes a release of format {newest}; nothing must be done"
            )
        else:
            remedy = f"nothing: it can be read as it is; `h2crop migrate` brings it to {newest} where it was built"
        lacks = ", without a copy of its root" if release.is_first_format else ""
        yield warning("format", ROOT, f"has the older format {version}{lacks}", remedy)
    elif release.format > (major, minor):
        what = f"has the newer format {version}, and is checked by the rules of {newest}"
        yield warning("format", ROOT, what, "use the newest h2crop")


def check_consolidated(release: Release) -> Reports:
    """Every consolidated entry follows from the layout and the number of blocks: shape, dtype, fill, codecs, all."""
    by_difference: dict[str, list[str]] = {}
    for path, what in release.strange_entries.items():
        by_difference.setdefault(what, []).append(path)
    for what, paths in by_difference.items():
        problem = f"its entry of {first(paths)} does not fit the layout: {what}"
        yield error("metadata", ROOT, problem, release.remedies.sealed())
    for season in sorted(release.named_seasons - set(release.seasons)):
        yield NotChecked(f"season {season}: the root contradicts itself about its size")


def check_documents(release: Release, progress: Progress) -> Reports:
    """The `zarr.json` of every group and array equals what it must be."""
    for season, blocks in release.seasons.items():
        documents = expected_documents(release.layout, season, blocks, stated_meanings(release.root))
        if release.format >= (2, 0):
            documents = with_members(documents, season)
        names = {f"{path}/zarr.json": document for path, document in documents.items()}
        here = [name for name in names if release.is_here(name)]
        documents_here = in_order(lambda name: (name, read_metadata(release, name)), here, SMALL_READS)
        for done, (name, document) in enumerate(documents_here):
            progress(done, len(here), f"metadata of {season}")
            yield Counted("documents", 1)
            yield from document_problems(release, name, names[name], document)


def read_metadata(release: Release, name: str) -> Any:
    """A JSON document of the store; a StoreError or ValueError where it is not one."""
    try:
        return json.loads(release.files.read(name))
    except (StoreError, ValueError, RecursionError) as failure:
        return failure


def document_problems(release: Release, name: str, expected: dict[str, Any], found: Any) -> Reports:
    """What is wrong with a metadata document."""
    if name in release.changed:
        # A store that grows has longer arrays on disk than its root says.
        if is_longer(expected, found, release.layout.capacity) and is_canonical(release, name, found):
            what = "describes a longer season than the release has"
            yield warning("unfinished", name, what, release.remedies.unfinished())
        elif release.is_being_sealed:
            yield release.replaced_by_next(name)
        else:
            yield release.other_bytes(name)
    elif (isinstance(found, Exception) or found != expected) and release.is_replaced_meanwhile(name):
        yield release.replaced_by_next(name)
    elif isinstance(found, Exception):
        yield error("metadata", name, f"is not a metadata document ({found})", release.remedies.sealed())
    elif what := difference(expected, found):
        yield error("metadata", name, f"does not fit the layout: {what}", release.remedies.sealed())


def is_longer(expected: dict[str, Any], found: Any, capacity: int) -> bool:
    """Whether a document is the expected one with more slots."""
    if not isinstance(found, dict) or found.get("node_type") != expected["node_type"]:
        return False
    if expected["node_type"] == "group":
        return is_group_of_longer(expected, found, capacity)
    shape, wanted = found.get("shape"), expected["shape"]
    if not isinstance(shape, list) or not shape or not isinstance(shape[0], int):
        return False
    if shape[0] < wanted[0] or (shape[0] - wanted[0]) % capacity:
        return False
    return found == {**expected, "shape": [shape[0], *wanted[1:]]}


def is_group_of_longer(expected: dict[str, Any], found: dict[str, Any], capacity: int) -> bool:
    """Whether the document of a season is the expected one with more slots in its members."""
    key = "consolidated_metadata"
    try:
        members, wanted = found[key]["metadata"], expected[key]["metadata"]
        same = {**found, key: {**found[key], "metadata": {}}} == {**expected, key: {**expected[key], "metadata": {}}}
        return (
            same
            and set(members) == set(wanted)
            and all(one == wanted[name] or is_longer(wanted[name], one, capacity) for name, one in members.items())
        )
    except (KeyError, TypeError):
        return found == expected


def is_canonical(release: Release, name: str, document: Any) -> bool:
    """Whether a file is the canonical form of its document, as sealing writes it."""
    return release.files.read(name) == canonical_json(document).encode()
