"""The checks that come with h2crop, and those that a store needs."""

from __future__ import annotations

from typing import Any

from h2crop_data.validation.checks.enmap import EnmapChecks
from h2crop_data.validation.checks.parcels import ParcelChecks
from h2crop_data.validation.checks.sentinel2 import Sentinel2Checks
from h2crop_data.validation.checks.source_checks import SourceChecks
from h2crop_data.validation.release import Release

KNOWN: dict[str, type[SourceChecks[Any]]] = {
    checks.name: checks for checks in (EnmapChecks, Sentinel2Checks, ParcelChecks)
}


def checks_of(release: Release) -> list[SourceChecks[Any]]:
    """The checks of the sources that a store has, in the order of their arrays; none for a source nobody here knows."""
    return [KNOWN[source.name](release) for source in release.layout.sources if source.name in KNOWN]
