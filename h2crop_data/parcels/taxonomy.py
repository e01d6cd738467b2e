"""The four-tier crop taxonomy: from a country's crop code to HCAT3 to class ids.

Tier k of a code is its HCAT3 code cut to 4, 6, 8 or 10 digits; a code without a class there is unknown (255), which is
not background (0, not declared).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import TIER_DIGITS, TIERS, UNKNOWN
from h2crop_data.errors import ParcelError

HCAT3_CODE = re.compile(r"[0-9]{10}")
#: Between the codes of one piece of ground that was declared with several crops.
CONTRADICTS = " ≠ "


class CropTableFile(Protocol):
    """A table of crop codes of the user's own."""

    @property
    def path(self) -> str:
        """Path of the CSV."""

    @property
    def code_column(self) -> str:
        """Column of the country's code."""

    @property
    def hcat3_column(self) -> str:
        """Column of the HCAT3 code."""


def taxonomy_folder() -> Path:
    """The folder of the taxonomy tables: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "taxonomy"
    return inside if inside.is_dir() else package.parent / "taxonomy"


def read_csv(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV (UTF-8, or Latin-1 where it is not) as text, each with its line in the file.

    Raises ParcelError for missing columns.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ParcelError(f"cannot read the table {path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    rows = [(reader.line_num, row) for row in reader]
    present = list(reader.fieldnames or [])
    missing = [column for column in columns if column not in present]
    if missing:
        raise ParcelError(f"{path}: no column {', '.join(missing)}; it has {', '.join(present) or 'no columns'}")
    return rows


@dataclass(frozen=True)
class Taxonomy:
    """The classes of the four tiers."""

    version: str
    #: For each tier: HCAT3 digits -> (id, name).
    classes: tuple[dict[str, tuple[int, str]], ...]

    @classmethod
    def load(cls, folder: Path | None = None) -> Taxonomy:
        """The tables in `folder` (default: those that come with h2crop). Raises ParcelError for a wrong table."""
        folder = folder or taxonomy_folder()
        path = folder / "tiers.csv"
        classes: tuple[dict[str, tuple[int, str]], ...] = tuple({} for _ in range(TIERS))
        for line, row in read_csv(path, ("tier", "id", "hcat3_prefix", "name")):
            tier, number, prefix = whole_number(row["tier"]), whole_number(row["id"]), row["hcat3_prefix"]
            fits = (
                1 <= tier <= TIERS
                and 1 <= number < UNKNOWN
                and re.fullmatch(rf"[0-9]{{{TIER_DIGITS[tier - 1]}}}", prefix)
            )
            if not fits:
                raise ParcelError(f"{path}:{line}: expected tier 1..4, id 1..254 and 4/6/8/10 digits, got {row}")
            if prefix in classes[tier - 1] or number in (known for known, _ in classes[tier - 1].values()):
                raise ParcelError(f"{path}:{line}: duplicate prefix {prefix} or id {number} in tier {tier}")
            classes[tier - 1][prefix] = (number, row["name"].strip())
        try:
            version = (folder / "VERSION").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ParcelError(f"cannot read the version of the tables, {error.filename}: {error.strerror}") from error
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


def load_crop_table(table: str | CropTableFile | None, country: str, path: Path | None = None) -> dict[str, str]:
    """Crop code of a country -> HCAT3 code (ten digits, or empty).

    table: a name in taxonomy/countries (None: the country's own), or a table of the user's, which lies at `path`.
    Raises ParcelError for an unknown name, missing columns, malformed codes, or one code with two meanings.
    """
    if table is not None and not isinstance(table, str):
        file, code_column, hcat3_column = path or Path(table.path), table.code_column, table.hcat3_column
    else:
        folder = taxonomy_folder() / "countries"
        file, code_column, hcat3_column = folder / f"{table or country}.csv", "code", "hcat3"
        if not file.exists():
            known = ", ".join(sorted(entry.stem for entry in folder.glob("*.csv")))
            raise ParcelError(f"no crop table {table or country!r} (known: {known}); give `table: {{path: ...}}`")
    codes: dict[str, str] = {}
    for line, row in read_csv(file, (code_column, hcat3_column)):
        code, hcat3 = clean_code(row[code_column]), row[hcat3_column].strip()
        if hcat3 and not HCAT3_CODE.fullmatch(hcat3):
            raise ParcelError(f"{file}:{line}: expected a ten-digit HCAT3 code, got {hcat3!r}")
        if code and codes.setdefault(code, hcat3) != hcat3:
            raise ParcelError(f"{file}:{line}: code {code} has two meanings, {codes[code]} and {hcat3}")
    return codes


def crop_table_digest(table: Mapping[str, str]) -> str:
    """SHA-256 of a crop table: of the JSON text of its rows, `[["<code>", "<hcat3>"], ...]` in order of code."""
    return hashlib.sha256(json.dumps([list(row) for row in sorted(table.items())]).encode()).hexdigest()


def whole_number(text: str) -> int:
    """A whole number, or -1 where the text is none."""
    return int(text) if re.fullmatch(r"[0-9]+", text) else -1


def clean_code(value: object) -> str:
    """A crop code as text: without spaces around it, whole numbers without `.0`, empty for a missing one."""
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, float | np.floating) and np.isnan(value):
        return ""
    if isinstance(value, float | np.floating) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def several_codes(codes: Iterable[str]) -> str:
    """The code of ground that was declared with several crops: it names them all, and its crop is unknown."""
    return CONTRADICTS.join(sorted(codes))


def hcat3_codes(codes: pd.Series[str], table: Mapping[str, str]) -> pd.Series[str]:
    """The HCAT3 code of each crop code by a table; empty where the table has none."""
    return codes.map(lambda code: "" if CONTRADICTS in code else table.get(code, "")).astype("str")


def unmapped(codes: pd.Series[str], table: Mapping[str, str]) -> NDArray[np.bool_]:
    """Which crop codes a table does not have; those of several crops are in none and not counted."""
    missing: NDArray[np.bool_] = (~codes.isin(list(table)) & ~codes.str.contains(CONTRADICTS, regex=False)).to_numpy()
    return missing


def lost_zeros(codes: Iterable[str], table: Mapping[str, str]) -> dict[str, str]:
    """Crop codes that a table has with more or fewer zeros before them, and how it has them."""
    alike = {code.lstrip("0"): code for code in table}
    return {code: alike[code.lstrip("0")] for code in codes if code and code not in table and code.lstrip("0") in alike}


def tier_table(hcat3: pd.Series[str], taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Class ids (n, 4) uint8 of n HCAT3 codes (empty: unknown)."""
    codes, inverse = np.unique(hcat3.to_numpy(dtype=str), return_inverse=True)
    ids = np.array([taxonomy.ids(code) for code in codes.tolist()], np.uint8).reshape(-1, TIERS)
    table: NDArray[np.uint8] = ids[inverse]
    return table
