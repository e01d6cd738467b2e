"""What is wrong with a store, where, and what to do about it; what was looked at, and what could not be checked."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from h2crop_data.storage.storage import BUILD_FOLDER

Severity = Literal["error", "warning"]
#: Names that a finding lists before it says how many more there are.
NAMED = 5
#: Small files that are read at a time: an object store takes its time for each.
SMALL_READS = 16


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that a user should know of.

    severity: `error` or `warning`. check: short name of what was looked at; docs/validate.md lists them all.
    where: a file of the store, or season, array and sample. what: what is wrong. remedy: what to do about it.
    """

    severity: Severity
    check: str
    where: str
    what: str
    remedy: str


@dataclass(frozen=True)
class NotChecked:
    """Something that could not be checked, in words, and why."""

    what: str


@dataclass(frozen=True)
class Counted:
    """How many more of something were looked at."""

    name: str
    count: int


@dataclass(frozen=True)
class Measured:
    """How a figure of the samples is distributed over the store."""

    name: str
    distribution: Mapping[str, Any]


#: What a step of validation reports as it goes.
Report = Finding | NotChecked | Counted | Measured
Reports = Iterator[Report]
Read = TypeVar("Read")
#: A step of validation: it reports as it goes, changes nothing, and gives what later steps need.
Checking = Generator[Report, None, Read]
Findings = Iterator[Finding]


def error(check: str, where: str, what: str, remedy: str) -> Finding:
    """Something a reader of the store would suffer from."""
    return Finding("error", check, where, what, remedy)


def warning(check: str, where: str, what: str, remedy: str) -> Finding:
    """Something that does no harm to a reader, or that cannot be known for sure."""
    return Finding("warning", check, where, what, remedy)


def first(names: Sequence[object], count: int = NAMED) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(str, names[:count])) + more


@dataclass(frozen=True)
class Problem:
    """Something that cannot be true in a sample of a block (its place from 0)."""

    sample: int
    array: str
    check: str
    what: str
    severity: Severity = "error"


def wrong_samples(
    array: str, check: str, wrong: NDArray[np.bool_], what: str, severity: Severity = "error"
) -> Iterator[Problem]:
    """A problem for every sample that has wrong pixels. wrong: (sample, ...)."""
    counts = wrong.reshape(len(wrong), -1).sum(axis=1)
    for sample in np.flatnonzero(counts).tolist():
        yield Problem(sample, array, check, f"{counts[sample]} value(s) {what}", severity)


def short(value: Any) -> str:
    """A value in a sentence."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


# What to do about a finding: it depends on where the store came from

Origin = Literal["built", "imported", "copied"]
PLANS, IMPORT = f"{BUILD_FOLDER}/plan/", f"{BUILD_FOLDER}/import.json"


def origin_of(names: Collection[str]) -> Origin:
    """Where a store with these files came from: only where it was made are the builder's files."""
    if IMPORT in names:
        return "imported"
    return "built" if any(name.startswith(PLANS) for name in names) else "copied"


@dataclass(frozen=True)
class Remedies:
    """What to do about the findings of one store."""

    #: The store as the user calls it.
    location: str
    origin: Origin

    @property
    def run_again(self) -> str:
        """The command that made the store."""
        if self.origin == "imported":
            return f"`h2crop import-h5 DIR {self.location}`"
        return f"`h2crop build RECIPE --out {self.location}`"

    def block(self, season: int, block: int) -> str:
        """For a damaged or lost file of a block."""
        if self.origin == "copied":
            return "download this file again"
        command = self.run_again.replace("RECIPE", f"RECIPE --season {season}")
        marker = f"{self.location}/{BUILD_FOLDER}/{season}/{block:06d}.json"
        return f"delete {marker}, then {command} makes this block again"

    def wrong_block(self, season: int, block: int) -> str:
        """For values that were written like this: their checksum is right, or not known."""
        if self.origin == "copied":
            return "the file is as it was published: report it to its publisher, and leave these samples out"
        if self.origin == "imported":
            return "compare with the published file; leave these samples out if it says the same"
        return (
            "the file is as it was written, so the block was built wrong: `h2crop retract "
            f"{self.location} --block {season}:{block} --reason …` keeps it out of the next release"
        )

    def sealed(self) -> str:
        """For a damaged or lost file that sealing writes."""
        if self.origin == "copied":
            return "download this file again"
        return f"{self.run_again} again: it writes the files of a release that are not as they should be"

    def wrong_index(self) -> str:
        """For an index whose checksum is right and that does not say the truth."""
        if self.origin == "copied":
            return "the index is as it was published: report it to its publisher"
        return f"the index was sealed like this: {self.run_again} with the newest h2crop seals it again; report this"

    def leak(self) -> str:
        """For samples of two splits that share ground, which a build never makes."""
        if self.origin == "copied":
            return "report it to the publisher, and leave one of them out of training or of testing"
        retract = f"`h2crop retract {self.location} --block SEASON:BLOCK --reason …`"
        return f"retract the block of one of them with {retract}, and report this as an error of h2crop"

    def same_prior(self, season: int) -> str:
        """For priors that are the labels: one file was read for both years, or nothing changed from year to year."""
        if self.origin == "built":
            return (
                f"if the parcels of {season} were read for {season - 1} as well, give that year a file of its own in "
                f"the recipe, or `prior: none`; `h2crop relabel {self.location} --recipe RECIPE --out NEW` follows it"
            )
        return "do not take the prior for the crop of the year before until its publisher says that nothing changed"

    def disagreement(self, season: int, block: int) -> str:
        """For a sample of which two sensors may not show the same ground."""
        look = f"look at it: `h2crop inspect {self.location} --season {season} --sample SAMPLE --plot PICTURE`; where "
        look += "the two do not show the same ground, "
        if self.origin != "built":
            return f"{look}leave the sample out, and report it to its publisher"
        retract = f"`h2crop retract {self.location} --block {season}:{block} --reason …`"
        return f"{look}{retract} keeps its block out of the next release"

    def root(self, copy: str | None) -> str:
        """For a damaged root; copy: a whole copy of it, if there is one."""
        if copy is not None and self.origin == "copied":
            return f"copy {self.location}/{copy} over {self.location}/zarr.json"
        if copy is not None:
            return f"`h2crop restore {self.location}` puts its copy in its place"
        return self.sealed()

    def copy_of_root(self, name: str) -> str:
        """For a damaged copy of a root that is whole; name: of the copy."""
        return f"copy {self.location}/zarr.json over {self.location}/{name}"

    @staticmethod
    def unforeseen() -> str:
        """For a check that failed, perhaps because of other damage."""
        return "fix the other findings and validate again; report this finding if it remains"

    def unfinished(self) -> str:
        """For what a build at work, or one that was interrupted, leaves."""
        if self.origin == "copied":
            return "delete it, or leave it: readers do not look at it"
        return f"nothing while a build is at work; else {self.run_again} again, which finishes it"
