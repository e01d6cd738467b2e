"""HCAT3 codes for crop names, suggested by how much they resemble names that tables know; never applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rapidfuzz import fuzz, process

from h2crop_data.crops.codes import normal_code
from h2crop_data.crops.files import read_csv
from h2crop_data.crops.hcat import hcat3_names
from h2crop_data.crops.lookup import rows_of_country
from h2crop_data.crops.tables import country_tables

#: Names compared for each name, of which several may mean one crop.
NEAR_NAMES = 30


@dataclass(frozen=True)
class Suggestion:
    """An HCAT3 code. score: 0 to 100, how much the name resembles `like`."""

    hcat3: str
    hcat3_name: str
    like: str
    score: float


@dataclass(frozen=True)
class SuggestedCodes:
    """The suggestions for a name, the best first."""

    code: str
    name: str
    suggestions: list[Suggestion]


def suggested(file: Path, name_column: str, code_column: str | None = None, number: int = 3) -> list[SuggestedCodes]:
    """So many HCAT3 codes for each crop name in a CSV. Raises ParcelError for a missing column."""
    names, known = hcat3_names(), known_names()
    columns = (name_column, *([code_column] if code_column else []))
    found = []
    for _, row in read_csv(file, columns):
        near = process.extract(
            normal_code(row[name_column]), known.keys(), scorer=fuzz.token_sort_ratio, limit=NEAR_NAMES
        )
        best: dict[str, Suggestion] = {}
        for like, score, _ in near if normal_code(row[name_column]) else ():
            best.setdefault(known[like], Suggestion(known[like], names[known[like]], like, round(score, 1)))
        code = row[code_column] if code_column else ""
        found.append(SuggestedCodes(code, row[name_column], list(best.values())[:number]))
    return found


def known_names() -> dict[str, str]:
    """Names of crops in every table -> HCAT3 code."""
    known = {name.replace("_", " "): code for code, name in hcat3_names().items()}
    for country in country_tables():
        for row in rows_of_country(country):
            for name in (row.name, row.english):
                if name and row.hcat3:
                    known.setdefault(normal_code(name), row.hcat3)
    return known
