"""What the metadata documents of a season say for other tools: conventions, coordinates, names of classes.

Formulas: CF conventions 1.11, sections 2.6.1 (`Conventions`) and 5 (`coordinates`, here of a whole group, as xarray
reads it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from h2crop_data.constants import UNKNOWN
from h2crop_data.cube.schema import ArraySpec, StoreLayout, group_document

CONVENTIONS = "CF-1.11"
#: What the attributes of an array of classes are called, before the number of the tier.
CLASSES_OF_TIER = "classes_tier"
#: The names of the numbers that are no class.
NOT_DECLARED_NAME, UNKNOWN_NAME = "not_declared", "unknown"


def season_attributes(season: int, layout: StoreLayout) -> dict[str, Any]:
    """The attributes of the group of a season.

    `coordinates` lists those that are not the coordinate of their own dimension: readers know the others by name.
    """
    auxiliary = [spec.name for spec in layout.coordinates(season) if spec.dims != (spec.name,)]
    return {"Conventions": CONVENTIONS, "coordinates": " ".join(auxiliary), "season": season}


def season_document(group: Mapping[str, Any], members: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The document of a season's group as its file has it: with those of its arrays, so that nothing must be listed.

    group: the same as the root has it. members: name -> document.
    """
    return group_document(group["attributes"], dict(sorted(members.items())))


def class_attributes(spec: ArraySpec, classes: Sequence[Mapping[int, str]]) -> dict[str, str]:
    """The names of the classes of an array, one attribute a tier: `0=not_declared 33=arable_land 255=unknown`.

    classes: of each tier, id -> name. Empty for an array that has no classes.
    """
    if spec.statistics is None or spec.statistics.kind != "classes":
        return {}
    return {f"{CLASSES_OF_TIER}{tier}": names_in_words(names) for tier, names in enumerate(classes, 1)}


def names_in_words(names: Mapping[int, str]) -> str:
    """The classes of a tier as one line of `number=name`, in order of number, without spaces within a name."""
    every = {0: NOT_DECLARED_NAME, **names, UNKNOWN: UNKNOWN_NAME}
    return " ".join(f"{number}={'_'.join(name.split())}" for number, name in sorted(every.items()))
