"""What is wrong with a store, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from h2crop_data.progress import Progress as Progress

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
