"""HCAT3 codes for crop names, suggested by how much they resemble names that tables know; never applied."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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


def suggested_for_file(
    file: Path, name_column: str, code_column: str | None = None, number: int = 3
) -> list[SuggestedCodes]:
    """So many HCAT3 codes for each crop name in a CSV. Raises ParcelError for a missing column."""
    columns = (name_column, *([code_column] if code_column else []))
    return [
        suggested_codes(row[name_column], number, row[code_column] if code_column else "")
        for _, row in read_csv(file, columns)
    ]


def suggested_codes(name: str, number: int = 3, code: str = "") -> SuggestedCodes:
    """So many HCAT3 codes for a crop name; none for an empty one. code: to show with it."""
    names, known, wanted = hcat3_names(), known_names(), normal_code(name)
    near = process.extract(wanted, known.keys(), scorer=fuzz.token_sort_ratio, limit=NEAR_NAMES) if wanted else []
    best: dict[str, Suggestion] = {}
    for like, score, _ in near:
        best.setdefault(known[like], Suggestion(known[like], names[known[like]], like, round(score, 1)))
    return SuggestedCodes(code, name, list(best.values())[:number])


@cache
def known_names() -> dict[str, str]:
    """Names of crops in every table -> HCAT3 code."""
    known = {name.replace("_", " "): code for code, name in hcat3_names().items()}
    for country in country_tables():
        for row in rows_of_country(country):
            for name in (row.name, row.english):
                if name and row.hcat3:
                    known.setdefault(normal_code(name), row.hcat3)
    return known
