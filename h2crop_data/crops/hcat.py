"""HCAT3, the codes that country tables point to, and HCAT4, which has other digits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from h2crop_data.constants import TIER_DIGITS
from h2crop_data.crops.files import read_csv, taxonomy_folder

DIGITS = TIER_DIGITS[-1]
PAIR = 2


@dataclass(frozen=True)
class Crosswalk:
    """What an HCAT4 code means in HCAT3, with a use or without (empty)."""

    hcat4: str
    use: str
    #: Empty: unknown at all tiers.
    hcat3: str
    #: `one_to_one`, `narrower` or `ambiguous`.
    relation: str
    name: str


@cache
def hcat3_names(folder: Path | None = None) -> dict[str, str]:
    """HCAT3 code -> name, of the codes of its list and the listed exceptions. Raises ParcelError."""
    path = (folder or taxonomy_folder()) / "hcat" / "hcat3.csv"
    return {row["hcat3"]: row["name"] for _, row in read_csv(path, ("hcat3", "name"))}


@cache
def crosswalk(folder: Path | None = None) -> dict[tuple[str, str], Crosswalk]:
    """(HCAT4 code, use) -> what it means in HCAT3. Raises ParcelError."""
    path = (folder or taxonomy_folder()) / "hcat" / "hcat4.csv"
    columns = ("hcat4", "use", "hcat3", "relation", "name")
    rows = [Crosswalk(*(row[name].strip() for name in columns)) for _, row in read_csv(path, columns)]
    return {(row.hcat4, row.use): row for row in rows}


def hcat3_of_hcat4(hcat4: str, use: str = "") -> str | None:
    """The HCAT3 code of an HCAT4 code with a use (1 to 11; empty or 0: not told); None for an unknown HCAT4 code."""
    known = crosswalk()
    found = known.get((hcat4, use)) or known.get((hcat4, ""))
    return None if found is None else found.hcat3


def agreed(codes: Iterable[str]) -> str:
    """The HCAT3 code of the finest tier at which some HCAT3 codes agree; empty where they agree on none."""
    different = set(codes)
    if len(different) == 1:
        return different.pop()
    for digits in reversed(TIER_DIGITS):
        heads = {code[:digits] for code in different}
        if len(heads) == 1 and "" not in different:
            return heads.pop().ljust(DIGITS, "0")
    return ""


def significant(code: str) -> str:
    """The digits of a code without the pairs `00` at its end."""
    while code.endswith("00"):
        code = code[:-PAIR]
    return code
