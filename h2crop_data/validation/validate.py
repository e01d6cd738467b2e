"""Everything `h2crop validate` looks at, in order; one check never keeps another from looking."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.cube.schema import FORMAT_VERSION
from h2crop_data.errors import StoreError, UsageError
from h2crop_data.progress import Progress, silent
from h2crop_data.storage.location import WEB, open_storage
from h2crop_data.storage.storage import BUILD_FOLDER
from h2crop_data.validation.blocks import check_blocks
from h2crop_data.validation.checks.known import checks_of
from h2crop_data.validation.checksums import check_kept_files, check_presence, check_small_checksums
from h2crop_data.validation.coordinates import check_coordinates
from h2crop_data.validation.findings import Finding, Findings, error, warning
from h2crop_data.validation.georeferencing import check_georeferencing
from h2crop_data.validation.manifest import check_manifest
from h2crop_data.validation.metadata import check_consolidated, check_documents
from h2crop_data.validation.parcels import check_classes, check_parcels
from h2crop_data.validation.provenance import check_provenance
from h2crop_data.validation.reading import check_pixels
from h2crop_data.validation.release import Release
from h2crop_data.validation.releases import check_older_releases
from h2crop_data.validation.remedies import Remedies, origin_of
from h2crop_data.validation.root import RootChoice
from h2crop_data.validation.samples import check_samples
from h2crop_data.validation.shards import check_shard_indexes
from h2crop_data.validation.splits import check_splits
from h2crop_data.validation.statistics import check_statistics_form
from h2crop_data.validation.tables import check_index
from h2crop_data.validation.unfinished import check_strays

Mode = Literal["quick", "full"]
OnFinding = Callable[[Finding], None]
Check = Callable[[], Findings]


def ignore(finding: Finding) -> None:
    """Nobody watches."""


@dataclass
class Validation:
    """What was looked at, and what was found.

    store: as it was given. mode: `quick` or `full`. release: the one looked at; 0 where no root could be read.
    checked: what was looked at -> how many. not_checked: in words, what could not be checked, and why.
    findings: everything that is wrong, in the order it was found.
    """

    store: str
    mode: Mode
    release: int = 0
    checked: dict[str, int] = field(default_factory=dict)
    not_checked: list[str] = field(default_factory=list)
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
    """Look at a store in a folder or at an `s3://` URL; findings are told as they come, and all together at the end.

    A store on a web server cannot be validated: what is missing or does not belong there shows in a list of all files.

    mode: `quick` reads everything but the chunks of shards. partial: blocks may be missing by intention. workers:
    blocks that are read at a time. Raises UsageError where there is no store, FormatVersionError for one of another
    major version, StoreError where the place cannot be listed.
    """
    if str(location).startswith(WEB):
        raise StoreError(
            f"cannot validate {location}: that takes a list of all its files, which a web server does not give; copy "
            "the store into a folder and validate that, or validate it where it is served from"
        )
    files = open_storage(location)
    try:
        everything = dict(files.names())
    except StoreError:
        raise
    except OSError as failure:
        raise StoreError(f"cannot list {location}: {failure.strerror or failure}") from failure
    if not everything:
        raise UsageError(f"there is no store in {location}: it holds no file")
    remedies = Remedies(files.location, origin_of(everything))
    sizes = {name: size for name, size in everything.items() if not name.startswith(f"{BUILD_FOLDER}/")}
    result = Validation(str(location), mode)

    def note(findings: Iterable[Finding]) -> None:
        for finding in findings:
            result.findings.append(finding)
            on_finding(finding)

    choosing = RootChoice(files, sizes, remedies)
    note(choosing.findings())
    if choosing.document is None:
        result.not_checked.append("everything else: without a root nothing says what the store holds")
    else:
        release = Release(files, sizes, choosing.document, remedies, partial=partial)
        release.counts["builder_files"] = len(everything) - len(sizes)
        for name, check in checks(release, mode, workers or os.cpu_count() or 1, progress):
            note(guarded(release, name, check))
        result.release = release.number
        result.checked = dict(sorted(release.counts.items()))
        result.not_checked = release.not_checked
    return result


def checks(release: Release, mode: Mode, workers: int, progress: Progress) -> list[tuple[str, Check]]:
    """Every check by name, in an order in which later ones can rely on what earlier ones read."""
    older: set[str] = set()
    sources = checks_of(release)
    full = mode == "full"
    quickly: list[tuple[str, Check]] = [("shards", partial(check_shard_indexes, release, progress))]
    wholly: list[tuple[str, Check]] = [
        ("pixels", partial(check_pixels, release, sources, workers, progress)),
        ("kept files", partial(check_kept_files, release, progress)),
    ]
    return [
        ("format", partial(check_format, release)),
        ("manifest", partial(check_manifest, release)),
        ("files", partial(check_presence, release)),
        ("checksums", partial(check_small_checksums, release, progress)),
        ("consolidated metadata", partial(check_consolidated, release)),
        ("metadata documents", partial(check_documents, release, progress)),
        ("index", partial(check_index, release, sources, progress)),
        ("samples", partial(check_samples, release)),
        ("blocks", partial(check_blocks, release)),
        ("provenance", partial(check_provenance, release, sources)),
        ("classes", partial(check_classes, release)),
        ("parcels", partial(check_parcels, release)),
        ("coordinates", partial(check_coordinates, release, sources)),
        ("georeferencing", partial(check_georeferencing, release)),
        ("splits", partial(check_splits, release)),
        ("statistics", partial(check_statistics_form, release)),
        *(wholly if full else quickly),
        ("older releases", partial(check_older_releases, release, older, progress, full=full)),
        ("strays", partial(check_strays, release, older)),
    ]


def guarded(release: Release, name: str, check: Check) -> Findings:
    """The findings of a check; whatever it stumbles over, the others go on."""
    try:
        yield from check()
    except Exception as failure:  # noqa: BLE001 -- nobody foresees every way in which a file can be damaged
        release.cannot_check(f"{name}, in part")
        told = f"the check of {name} came to an end: {type(failure).__name__}: {failure}"
        yield error("unforeseen", name, told, "fix the other findings and validate again; if it stays, report it")


def check_format(release: Release) -> Findings:
    """Whether the store is of this format, or of an older or newer minor version."""
    version, newest = release.attributes["format_version"], FORMAT_VERSION
    if release.minor < int(newest.split(".")[1]):
        if release.remedies.origin == "built":
            remedy = (
                f"`h2crop migrate {release.files.location}` makes a release of format {newest}; nothing must be done"
            )
        else:
            remedy = f"nothing: it can be read as it is; `h2crop migrate` brings it to {newest} where it was built"
        yield warning("format", ROOT, f"has the older format {version}, without a copy of its root", remedy)
    elif release.minor > int(newest.split(".")[1]):
        told = f"has the newer format {version}, and is checked by the rules of {newest}"
        yield warning("format", ROOT, told, "use the newest h2crop")
