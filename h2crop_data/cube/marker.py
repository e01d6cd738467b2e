"""The marker of a finished block: written by the builder, read by sealing."""

from __future__ import annotations

from typing import Any, TypedDict, cast

from h2crop_data.storage.storage import FileRecord


class FinishedBlock(TypedDict):
    """The content of every marker."""

    block: int
    split: str
    #: Array group -> hash of the inputs it was built from.
    hashes: dict[str, str]
    software: str
    #: Its shards.
    files: list[FileRecord]
    #: Coordinates along `sample` and another axis, which all its samples share.
    coordinates: dict[str, list[float]]
    #: One dictionary a sample: derived columns of the samples index, in an imported store all of them.
    provenance: list[dict[str, Any]]
    #: What the statistics need of it.
    sums: FileRecord


class Marker(FinishedBlock, total=False):
    """What `.build/<season>/<block>.json` says."""

    #: Rows of the table of dates that tell of its pixels, by their digests.
    dates: list[str]
    #: Of a built block: seconds by step, and when it was finished (UTC).
    seconds: dict[str, float]
    finished: str
    #: Of an imported block: bytes of each sample's file.
    sources: dict[str, int]


#: What every marker has.
REQUIRED = frozenset(FinishedBlock.__annotations__)


def parsed_marker(document: dict[str, Any]) -> Marker:
    """A marker as it was written. Raises ValueError naming what it lacks.

    Those of earlier versions list wavelength and FWHM as `spectrum` instead of `coordinates`.
    """
    known = {key: value for key, value in document.items() if key != "spectrum"}
    if "spectrum" in document:
        spectrum = document["spectrum"]
        known["coordinates"] = dict(zip(("wavelength", "fwhm"), spectrum, strict=True)) if spectrum else {}
    missing = sorted(REQUIRED - known.keys())
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return cast(Marker, known)
