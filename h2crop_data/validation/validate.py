"""Everything `h2crop validate` looks at, in order; one check never keeps another from looking."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from h2crop_data.cube.release_numbers import ROOT, SEALING, copied_releases
from h2crop_data.errors import StoreError, UsageError
from h2crop_data.progress import Progress, silent
from h2crop_data.storage.location import WEB, open_storage
from h2crop_data.storage.storage import BUILD_FOLDER, Storage
from h2crop_data.validation.agreement import AgreementChecks
from h2crop_data.validation.figures import check_form
from h2crop_data.validation.files import (
    behind_links,
    check_kept_files,
    check_later_releases,
    check_links,
    check_older_releases,
    check_presence,
    check_small_checksums,
    check_strays,
    read_manifest,
)
from h2crop_data.validation.findings import (
    Checking,
    Counted,
    Finding,
    Measured,
    NotChecked,
    Read,
    Remedies,
    Report,
    Reports,
    error,
    origin_of,
)
from h2crop_data.validation.index import Sources, check_blocks, check_provenance, check_samples, read_parts
from h2crop_data.validation.labels import ParcelChecks, check_classes, check_parcels
from h2crop_data.validation.metadata import (
    check_consolidated,
    check_documents,
    check_format,
    choose_root,
    opened_release,
)
from h2crop_data.validation.pixels import check_pixels, check_shard_indexes
from h2crop_data.validation.places import check_coordinates, check_georeferencing, check_splits
from h2crop_data.validation.release import Release
from h2crop_data.validation.sources import EnmapChecks, Sentinel2Checks, SourceChecks

log = logging.getLogger(__name__)
Mode = Literal["quick", "full"]
#: Times that a store is looked at from the start, where releases are made meanwhile.
LOOKS = 5
OnFinding = Callable[[Finding], None]
#: The checks of the sources that come with h2crop.
KNOWN: dict[str, type[SourceChecks[Any, Any, Any]]] = {
    checks.name: checks for checks in (EnmapChecks, Sentinel2Checks, ParcelChecks)
}


def ignore(finding: Finding) -> None:
    """Report nothing while validation runs; the result has all findings."""


@dataclass
class Validation:
    """What was looked at, and what was found.

    store: as it was given. mode: `quick` or `full`. release: the one looked at; 0 where no root could be read.
    checked: what was looked at -> how many. not_checked: in words, what could not be checked, and why.
    distributions: figure of the samples -> how it is distributed over the store, as docs/validate.md says.
    findings: everything that is wrong, in the order it was found.
    """

    store: str
    mode: Mode
    release: int = 0
    checked: dict[str, int] = field(default_factory=dict)
    not_checked: list[str] = field(default_factory=list)
    distributions: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many are warnings."""
        return len(self.findings) - self.errors

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "store": self.store,
            "release": self.release,
            "mode": self.mode,
            "errors": self.errors,
            "warnings": self.warnings,
            "checked": self.checked,
            "not_checked": self.not_checked,
            "distributions": self.distributions,
            "findings": [asdict(finding) for finding in self.findings],
        }


def validate_store(
    location: str | Path,
    *,
    mode: Mode = "full",
    partial: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
    on_finding: OnFinding = ignore,
) -> Validation:
    """Look at a store in a folder or at an `s3://` URL; findings are reported as they come, and together at the end.

    A store on a web server cannot be validated: what is missing or does not belong there shows in a list of all files.

    mode: `quick` reads everything but the chunks of shards. partial: blocks may be missing by intention. workers:
    blocks that are read at a time. Raises UsageError where there is no store, FormatVersionError for one of another
    major version, StoreError where the place cannot be listed.

    Where another release is made or an older one is pruned meanwhile, what was found so far is forgotten at the first
    error, and the store is looked at again from the start.
    """
    if str(location).startswith(WEB):
        raise StoreError(
            f"cannot validate {location}: that takes a list of all its files, which a web server does not give; copy "
            "the store into a folder and validate that, or validate it where it is served from"
        )
    files = open_storage(location)
    reported: set[tuple[str, str, str]] = set()

    def report_once(finding: Finding) -> None:
        """Report a finding that no earlier look has reported."""
        key = finding.check, finding.where, finding.what
        if key not in reported:
            reported.add(key)
            on_finding(finding)

    for _ in range(LOOKS - 1):
        try:
            return look_at_store(files, location, mode, partial, workers, progress, report_once, may_change=True)
        except ChangedStoreError:
            log.info("%s: another release was made meanwhile; looking again", location)
    result = look_at_store(files, location, mode, partial, workers, progress, report_once, may_change=False)
    result.not_checked.append(
        f"a store at rest: releases were made or pruned during each of {LOOKS} looks; validate again"
    )
    return result


class ChangedStoreError(Exception):
    """A store has another release, or lacks an older one, than when it was listed."""


def release_state(files: Storage) -> tuple[bytes, bool, tuple[int, ...]]:
    """What changes when a release is begun, made or pruned: the root, the note of a sealing, the copies of roots."""
    try:
        root = files.read(ROOT) if files.exists(ROOT) else b""
        return root, files.exists(SEALING), tuple(sorted(copied_releases(files)))
    except (StoreError, OSError):
        # It is reported by the check that reads it.
        return b"", False, ()


def look_at_store(
    files: Storage,
    location: str | Path,
    mode: Mode,
    partial: bool,
    workers: int | None,
    progress: Progress,
    on_finding: OnFinding,
    *,
    may_change: bool,
) -> Validation:
    """One look at a store; arguments and errors as of `validate_store`.

    may_change: whether ChangedStoreError is raised at an error in a store that has changed since it was listed.
    """
    before = release_state(files)
    try:
        links = list(files.links())
        everything = {name: size for name, size in files.names() if name not in links} | behind_links(files, links)
    except StoreError:
        raise
    except OSError as failure:
        raise StoreError(f"cannot list {location}: {failure.strerror or failure}") from failure
    if not everything:
        raise UsageError(f"there is no store in {location}: it has no file")
    remedies = Remedies(files.location, origin_of(everything))
    sizes = {name: size for name, size in everything.items() if not name.startswith(f"{BUILD_FOLDER}/")}
    result = Validation(str(location), mode)
    counts: Counter[str] = Counter()

    def note(report: Report) -> None:
        if isinstance(report, Counted):
            counts[report.name] += report.count
        elif isinstance(report, Measured):
            result.distributions[report.name] = dict(report.distribution)
        elif isinstance(report, NotChecked):
            if report.what not in result.not_checked:
                result.not_checked.append(report.what)
        else:
            if may_change and report.severity == "error" and release_state(files) != before:
                raise ChangedStoreError
            result.findings.append(report)
            on_finding(report)

    for report in check_links(links):
        note(report)
    root = watched(choose_root(files, sizes, remedies), note)
    if root is None:
        result.not_checked.append("everything else: without a root nothing says what the store holds")
        return result
    being_sealed = SEALING in everything
    release = opened_release(files, sizes, root, remedies, partial=partial, is_being_sealed=being_sealed)
    counts["builder_files"] = len(everything) - len(sizes)
    watched(checks(release, mode, workers or os.cpu_count() or 1, progress), note)
    result.release = release.number
    result.checked = dict(sorted(counts.items()))
    return result


def watched(step: Checking[Read], note: Callable[[Report], None]) -> Read:
    """What a step gives; each of its reports is noted as it comes."""
    while True:
        try:
            report = next(step)
        except StopIteration as end:
            read: Read = end.value
            return read
        note(report)


def checks(release: Release, mode: Mode, workers: int, progress: Progress) -> Checking[None]:
    """Every check, in an order in which later ones can rely on what earlier ones read."""
    full = mode == "full"
    yield from guarded("format", check_format, release)
    release = yield from reading("manifest", release, read_manifest, release)
    release = yield from reading("files", release, check_presence, release)
    release = yield from reading("checksums", release, check_small_checksums, release, progress)
    yield from guarded("consolidated metadata", check_consolidated, release)
    yield from guarded("metadata documents", check_documents, release, progress)
    release = yield from reading("index", release, read_parts, release, checks_of(release), progress)
    release = yield from reading("samples", release, check_samples, release)
    yield from guarded("blocks", check_blocks, release)
    yield from guarded("provenance", check_provenance, release, checks_of(release))
    yield from guarded("classes", check_classes, release)
    release = yield from reading("parcels", release, check_parcels, release)
    release = yield from reading("coordinates", release, check_coordinates, release, checks_of(release))
    yield from guarded("georeferencing", check_georeferencing, release)
    yield from guarded("splits", check_splits, release)
    yield from guarded("statistics", check_form, release)
    if full:
        yield from guarded("pixels", check_pixels, release, checks_of(release), workers, progress)
        yield from guarded("kept files", check_kept_files, release, progress)
    else:
        yield from guarded("shards", check_shard_indexes, release, progress)
    nothing: frozenset[str] = frozenset()
    older = yield from reading("older releases", nothing, check_older_releases, release, progress, full=full)
    yield from guarded("later releases", check_later_releases, release)
    yield from guarded("strays", check_strays, release, older)


def checks_of(release: Release) -> Sources:
    """The checks of the sources that a store has, in the order of their arrays, then those of several sources.

    There are none for an unknown source.
    """
    single: Sources = [KNOWN[source.name](release) for source in release.layout.sources if source.name in KNOWN]
    return [*single, AgreementChecks(release)] if set(release.specs) >= AgreementChecks.arrays else single


def reading(
    name: str, known: Read, step: Callable[..., Checking[Read]], *arguments: Any, **options: Any
) -> Checking[Read]:
    """What a step reads; if it fails, the others continue with what is known."""
    try:
        return (yield from step(*arguments, **options))
    except Exception as failure:  # noqa: BLE001 -- nobody foresees every way in which a file can be damaged
        yield NotChecked(f"{name}, in part")
        what = f"the check of {name} failed: {type(failure).__name__}: {failure}"
        yield error("unforeseen", name, what, Remedies.unforeseen())
        return known


def guarded(name: str, check: Callable[..., Reports], *arguments: Any) -> Reports:
    """The reports of a check that reads nothing for later ones, in the same way."""

    def step() -> Checking[None]:
        yield from check(*arguments)

    yield from reading(name, None, step)
