"""The four-tier crop taxonomy: from HCAT3 codes to class ids, in its versions.

Tier k of a code is its HCAT3 code cut to 4, 6, 8 or 10 digits; a code without a class there is unknown (255), which is
not background (0, not declared). A version has the classes of the ones before, with the same ids, and may append more.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import TIER_DIGITS, TIERS, UNKNOWN
from h2crop_data.crops.files import read_csv, taxonomy_folder, whole_number
from h2crop_data.errors import ParcelError

#: The classes of the published dataset: of a recipe that states no version, and of imported stores.
PUBLISHED_VERSION = "1"


@dataclass(frozen=True)
class Taxonomy:
    """The classes of the four tiers."""

    version: str
    #: For each tier: HCAT3 digits -> (id, name).
    classes: tuple[dict[str, tuple[int, str]], ...]

    @classmethod
    def load(cls, version: str = PUBLISHED_VERSION, folder: Path | None = None) -> Taxonomy:
        """A version of the classes, from the tables in `folder` (default: those that come with h2crop).

        Raises ParcelError for an unknown version or an invalid table.
        """
        folder = folder or taxonomy_folder()
        known = taxonomy_versions(folder)
        if version not in known:
            raise ParcelError(f"unknown taxonomy version {version!r}; this h2crop has {', '.join(known)}")
        path = folder / "tiers.csv"
        classes: tuple[dict[str, tuple[int, str]], ...] = tuple({} for _ in range(TIERS))
        for line, row in read_csv(path, ("tier", "id", "hcat3_prefix", "name", "since")):
            tier, number, prefix = whole_number(row["tier"]), whole_number(row["id"]), row["hcat3_prefix"]
            fits = (
                1 <= tier <= TIERS
                and 1 <= number < UNKNOWN
                and re.fullmatch(rf"[0-9]{{{TIER_DIGITS[tier - 1]}}}", prefix)
                and row["since"] in known
            )
            if not fits:
                raise ParcelError(
                    f"{path}:{line}: expected tier 1..4, id 1..254, 4/6/8/10 digits and a version, got {row}"
                )
            if known.index(row["since"]) > known.index(version):
                continue
            if prefix in classes[tier - 1] or number in (taken for taken, _ in classes[tier - 1].values()):
                raise ParcelError(f"{path}:{line}: duplicate prefix {prefix} or id {number} in tier {tier}")
            classes[tier - 1][prefix] = (number, row["name"].strip())
        return cls(version, classes)

    def ids(self, hcat3: str) -> tuple[int, ...]:
        """Class ids of an HCAT3 code in the four tiers; 255 where it has none (all four for the empty code)."""
        return tuple(
            tier.get(hcat3[:digits], (UNKNOWN, ""))[0] for tier, digits in zip(self.classes, TIER_DIGITS, strict=True)
        )

    def names(self, tier: int) -> dict[int, str]:
        """Class id -> name at a tier (1..4), without 0 and 255."""
        return dict(sorted(self.classes[tier - 1].values()))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of version and classes."""
        return hashlib.sha256(
            repr((self.version, [sorted(tier.items()) for tier in self.classes])).encode()
        ).hexdigest()


def taxonomy_versions(folder: Path | None = None) -> list[str]:
    """The versions of the classes, oldest first. Raises ParcelError where their table cannot be read."""
    return [row["version"] for _, row in read_csv((folder or taxonomy_folder()) / "versions.csv", ("version",))]


def tier_table(hcat3: pd.Series[str], taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Class ids (n, 4) uint8 of n HCAT3 codes (empty: unknown)."""
    codes, inverse = np.unique(hcat3.to_numpy(dtype=str), return_inverse=True)
    ids = np.array([taxonomy.ids(code) for code in codes.tolist()], np.uint8).reshape(-1, TIERS)
    table: NDArray[np.uint8] = ids[inverse]
    return table
