"""Crop tables: what the crop codes of a country mean, in HCAT3, in each year."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.crops.codes import CONTRADICTS, clean_code, exact_code, near_misses, normal_code
from h2crop_data.crops.files import read_csv, taxonomy_folder, whole_number
from h2crop_data.crops.taxonomy import PUBLISHED_VERSION
from h2crop_data.errors import ParcelError

HCAT3_CODE = re.compile(r"[0-9]{10}")
#: The years of a code that has no bounds.
EARLIEST, LATEST = 0, 9999
#: Tables of codes that mean the same in every country: HCAT3 codes themselves, and HCAT4 codes by the crosswalk.
HCAT3_TABLE, HCAT4_TABLE = "hcat3", "hcat4"
HCAT_FOLDER, PUBLISHED_TABLES = "hcat", "version-1"
TABLE_NAME = re.compile(r"[a-z0-9-]+")
#: Uses of HCAT4 are 1 to 11; 0 is no stated use.
HCAT4_USES = 11


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


@dataclass(frozen=True)
class TableRow:
    """What a code means in some years."""

    line: int
    code: str
    #: Ten digits, or empty: unknown.
    hcat3: str
    #: Years, both inclusive.
    first: int
    last: int
    name: str = ""
    english: str = ""
    #: `source` or `us`; None in tables that do not say it.
    decided: str | None = None
    reason: str = ""

    @property
    def years(self) -> str:
        """The years in words, such as `2015-2022`; empty for all."""
        first, last = (str(year) if EARLIEST < year < LATEST else "" for year in (self.first, self.last))
        return "" if not (first or last) else first if first == last else f"{first}-{last}"


@dataclass(frozen=True)
class CropCodes:
    """What the crop codes of a country mean in a year."""

    #: Code as the table has it -> HCAT3 (ten digits, or empty).
    meanings: Mapping[str, str]
    #: The form in which codes of files and of the table are compared.
    form: Callable[[str], str] = exact_code
    #: Name of a crop in the normal form -> HCAT3, for files that have names in the place of codes.
    names: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def by_form(self) -> dict[str, str]:
        """The same by the form of the code or name."""
        return {**self.names, **{self.form(code): hcat3 for code, hcat3 in self.meanings.items()}}

    def hcat3(self, codes: pd.Series[str]) -> pd.Series[str]:
        """The HCAT3 code of each crop code; empty where the table has none."""
        of_code = {code: "" if CONTRADICTS in code else self.by_form.get(self.form(code), "") for code in set(codes)}
        return codes.map(of_code).astype("str")

    def unmapped(self, codes: pd.Series[str]) -> NDArray[np.bool_]:
        """Which crop codes the table does not have; those of several crops are in none and not counted."""
        missing = {code for code in set(codes) if CONTRADICTS not in code and self.form(code) not in self.by_form}
        found: NDArray[np.bool_] = codes.isin(missing).to_numpy()
        return found

    def near_misses(self, codes: Iterable[str]) -> dict[str, str]:
        """Of crop codes that the table does not have, those that look like one it has, with that one."""
        return near_misses((code for code in codes if self.form(code) not in self.by_form), self.meanings)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the JSON text of the table, `[["<code>", "<hcat3>"], ...]` in order of code."""
        return hashlib.sha256(json.dumps([list(row) for row in sorted(self.by_form.items())]).encode()).hexdigest()


def load_crop_table(
    table: str | CropTableFile | None,
    country: str,
    path: Path | None = None,
    *,
    version: str = PUBLISHED_VERSION,
    year: int | None = None,
) -> CropCodes:
    """The crop codes of a country.

    table: a name in taxonomy/countries (None: the country's own), `hcat3` or `hcat4` for codes of these, or a table of
    the user's, which lies at `path`. version: of the taxonomy. year: of the declarations; without it codes that change
    their meaning are an error.
    Raises ParcelError for an unknown name, missing columns, malformed codes, or one code with two meanings in a year.
    """
    if table is not None and not isinstance(table, str):
        file = path or Path(table.path)
        rows = read_crop_table(file, table.code_column, table.hcat3_column)
        form = exact_code if version == PUBLISHED_VERSION else normal_code
    else:
        file = country_table(table or country, version)
        rows = read_crop_table(file) if file.parent.name != HCAT_FOLDER else read_hcat_table(file)
        form = exact_code if file.parent.name == PUBLISHED_TABLES else normal_code
    of_year = [row for row in rows if year is None or row.first <= year <= row.last]
    refuse_two_meanings(file, of_year, form, in_any_year=year is None)
    names = names_with_one_meaning(of_year) if form is normal_code else {}
    return CropCodes({row.code: row.hcat3 for row in of_year}, form, names)


def names_with_one_meaning(rows: Iterable[TableRow]) -> dict[str, str]:
    """Name -> HCAT3 code, of the names that mean one crop: some files have names in the place of codes."""
    meanings: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        meanings[normal_code(row.name)].add(row.hcat3)
    return {name: found.pop() for name, found in meanings.items() if name and len(found) == 1}


def country_table(name: str, version: str) -> Path:
    """The shipped table of a name. Version 1 has the tables it was published with, as they were.

    Raises ParcelError for an unknown name.
    """
    folder = taxonomy_folder()
    if name in (HCAT3_TABLE, HCAT4_TABLE):
        return folder / HCAT_FOLDER / f"{name}.csv"
    if not TABLE_NAME.fullmatch(name):
        raise ParcelError(f"no crop table {name!r}; expected a country in lower case, such as fr or be-vlg")
    published = folder / "countries" / PUBLISHED_TABLES / f"{name}.csv"
    if version == PUBLISHED_VERSION and published.exists():
        return published
    file = folder / "countries" / f"{name}.csv"
    if not file.exists():
        known = ", ".join([*country_tables(), HCAT3_TABLE, HCAT4_TABLE])
        raise ParcelError(f"no crop table {name!r} (known: {known}); give `table: {{path: ...}}`")
    return file


def country_tables() -> list[str]:
    """The names of the shipped tables of countries."""
    return sorted(entry.stem for entry in (taxonomy_folder() / "countries").glob("*.csv"))


def read_crop_table(file: Path, code_column: str = "code", hcat3_column: str = "hcat3") -> list[TableRow]:
    """The rows of a crop table that have a code.

    Columns `from` and `to` (years, inclusive; empty: no bound), `name`, `english`, `decided` and `reason` are optional.
    Raises ParcelError for missing columns, malformed HCAT3 codes or years.
    """
    rows = []
    for line, row in read_csv(file, (code_column, hcat3_column)):
        code, hcat3 = clean_code(row[code_column]), row[hcat3_column].strip()
        if hcat3 and not HCAT3_CODE.fullmatch(hcat3):
            raise ParcelError(f"{file}:{line}: expected a ten-digit HCAT3 code, got {hcat3!r}")
        years = [(row.get(name) or "").strip() for name in ("from", "to")]
        if any(year and not 1900 < whole_number(year) < LATEST for year in years):
            raise ParcelError(f"{file}:{line}: expected years in `from` and `to`, got {years}")
        first, last = int(years[0] or EARLIEST), int(years[1] or LATEST)
        if first > last:
            raise ParcelError(f"{file}:{line}: `from` {first} is after `to` {last}")
        others = {name: (row.get(name) or "").strip() for name in ("name", "english", "reason")}
        # None where the table does not say who decided.
        decided = None if "decided" not in row else (row["decided"] or "").strip()
        if code:
            rows.append(TableRow(line, code, hcat3, first, last, decided=decided, **others))
    return rows


def read_hcat_table(file: Path) -> list[TableRow]:
    """The rows of the list of HCAT3, each code standing for itself, or of the crosswalk from HCAT4, each code alone and
    with every use, such as `3310106000 6`.
    """
    if file.stem == HCAT3_TABLE:
        return read_crop_table(file, HCAT3_TABLE, HCAT3_TABLE)
    known = {
        (row[HCAT4_TABLE], row["use"]): (line, row)
        for line, row in read_csv(file, (HCAT4_TABLE, "use", HCAT3_TABLE, "name"))
    }
    rows = []
    for code in dict.fromkeys(code for code, _ in known):
        for use in ("", *map(str, range(HCAT4_USES + 1))):
            line, row = known.get((code, use)) or known[code, ""]
            rows.append(TableRow(line, f"{code} {use}".strip(), row[HCAT3_TABLE], EARLIEST, LATEST, row["name"]))
    return rows


def refuse_two_meanings(
    file: Path, rows: Iterable[TableRow], form: Callable[[str], str], *, in_any_year: bool = False
) -> None:
    """Refuse a table in which one code has two meanings in the same year (in_any_year: in any). Raises ParcelError."""
    of_code: dict[str, list[TableRow]] = defaultdict(list)
    for row in rows:
        for before in of_code[form(row.code)]:
            overlap = in_any_year or (before.first <= row.last and row.first <= before.last)
            if before.hcat3 != row.hcat3 and overlap:
                raise ParcelError(
                    f"{file}:{row.line}: code {row.code} has two meanings, {before.hcat3} and {row.hcat3}"
                )
        of_code[form(row.code)].append(row)
