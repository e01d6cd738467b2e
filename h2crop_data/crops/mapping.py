"""A user's own classes, made of the four tiers by a mapping file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import TIERS, UNKNOWN
from h2crop_data.crops.files import read_csv, taxonomy_folder, whole_number
from h2crop_data.crops.hcat import hcat3_names, significant
from h2crop_data.crops.taxonomy import PUBLISHED_VERSION, Taxonomy
from h2crop_data.errors import ParcelError

#: Leading digits of HCAT3 codes; empty for every crop that no other row names.
MAPPED_DIGITS = re.compile(r"(33([0-9]{2}){0,4})?")
BACKGROUND_ID = 0
#: The name of id 255.
UNKNOWN_CLASS = "unknown"


@dataclass(frozen=True)
class ClassMapping:
    """Classes by leading digits of HCAT3 codes, the longest of several counts."""

    name: str
    #: Id (1..255) -> name.
    classes: dict[int, str]
    #: Leading digits -> id.
    prefixes: dict[str, int]

    @classmethod
    def load(cls, mapping: str | Path) -> ClassMapping:
        """A mapping by its path, or by the name of one that comes with h2crop.

        A CSV with the columns `hcat3` (leading digits of HCAT3 codes, 2 to 10; empty: every other crop), `id` (1..254,
        or 255: unknown) and `name`. Raises ParcelError for an unknown name and an invalid file.
        """
        folder = taxonomy_folder() / "mappings"
        path = Path(mapping)
        if not path.suffix and not path.exists():
            path = folder / f"{mapping}.csv"
            if not path.exists():
                known = ", ".join(sorted(file.stem for file in folder.glob("*.csv")))
                raise ParcelError(f"no mapping {str(mapping)!r} (known: {known}); give the path of a CSV")
        classes: dict[int, str] = {}
        prefixes: dict[str, int] = {}
        for line, row in read_csv(path, ("hcat3", "id", "name")):
            prefix, number, name = row["hcat3"].strip(), whole_number(row["id"].strip()), row["name"].strip()
            if not (MAPPED_DIGITS.fullmatch(prefix) and BACKGROUND_ID < number <= UNKNOWN and name):
                raise ParcelError(
                    f"{path}:{line}: expected leading digits of HCAT3 codes, an id of 1..255 and a name, got {row}"
                )
            if not any(code.startswith(significant(prefix)) for code in hcat3_names()):
                raise ParcelError(f"{path}:{line}: no code of HCAT3 begins with {significant(prefix)}")
            if number == UNKNOWN and name != UNKNOWN_CLASS:
                raise ParcelError(f"{path}:{line}: 255 is unknown; give the class {name} another id, 1 to 254")
            if classes.setdefault(number, name) != name:
                raise ParcelError(f"{path}:{line}: id {number} has two names, {classes[number]} and {name}")
            # Pairs of zeros at the end are no digits of their own: 3302000000 is all that begins with 3302.
            prefix = significant(prefix)
            if prefix in prefixes:
                raise ParcelError(f"{path}:{line}: {prefix or 'the row for every other crop'} is there twice")
            prefixes[prefix] = number
        if not prefixes:
            raise ParcelError(f"{path} has no rows")
        return cls(path.stem, dict(sorted(classes.items())), prefixes)

    def of_prefix(self, prefix: str) -> int:
        """The id of crops of which these digits are known; 255 where finer digits would decide, or no row fits.

        Pairs `00` at the end say that nothing finer is known.
        """
        prefix = significant(prefix)
        own = next((self.prefixes[head] for head in heads(prefix) if head in self.prefixes), UNKNOWN)
        finer = {number for longer, number in self.prefixes.items() if longer.startswith(prefix) and longer != prefix}
        return own if finer <= {own} else UNKNOWN

    def tables(self, taxonomy: Taxonomy) -> NDArray[np.uint8]:
        """For each tier (4) and number of a class (256) the id, uint8; 0 stays 0, 255 and no class are 255."""
        tables = np.full((TIERS, UNKNOWN + 1), UNKNOWN, np.uint8)
        tables[:, BACKGROUND_ID] = BACKGROUND_ID
        for tier, classes in enumerate(taxonomy.classes):
            for prefix, (number, _) in classes.items():
                tables[tier, number] = self.of_prefix(prefix)
        return tables


def heads(prefix: str) -> list[str]:
    """Some digits, and what is left of them pair by pair, down to nothing."""
    return [prefix[:length] for length in range(len(prefix), -1, -2)]


def mapped_labels(labels: NDArray[np.uint8], tables: NDArray[np.uint8], axis: int = 0) -> NDArray[np.uint8]:
    """The user's classes of labels, by the finest tier at which each pixel is known.

    labels: uint8 with the four tiers along `axis`. tables: of `ClassMapping.tables`. Gives uint8 without that axis.
    """
    tiers = np.moveaxis(labels, axis, 0)
    mapped: NDArray[np.uint8] = tables[0][tiers[0]]
    for table, numbers in zip(tables[1:], tiers[1:], strict=True):
        mapped = np.where(numbers != UNKNOWN, table[numbers], mapped)
    return mapped


def tables_for(mapping: ClassMapping, attributes: Mapping[str, object]) -> NDArray[np.uint8]:
    """The tables of a mapping for a store with these root attributes; imported stores have the published classes."""
    stated = attributes.get("taxonomy")
    version = str(stated["version"]) if isinstance(stated, Mapping) else PUBLISHED_VERSION
    return mapping.tables(Taxonomy.load(version))
