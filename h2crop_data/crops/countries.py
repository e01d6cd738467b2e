"""What is known of the declarations of each country: its crop table and the field of its crop codes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from h2crop_data.crops.files import read_csv, taxonomy_folder


@dataclass(frozen=True)
class Country:
    """A country, or a part of it that publishes its own declarations."""

    #: As in recipes, such as `be-vlg`.
    country: str
    name: str
    #: Its region in EuroCrops v2; empty if unknown.
    nuts: str
    #: Whether crops are told by `code` or only by `name`.
    key: str
    #: Whether its table has some of the crops only.
    partial: bool
    #: Where the table is from.
    source: str
    #: Names that the field of the crop code has had, `*` for anything, the first of several to be preferred.
    fields: tuple[str, ...]


@cache
def countries() -> dict[str, Country]:
    """The countries by their short name. Raises ParcelError where the list cannot be read."""
    columns = ("country", "name", "nuts", "key", "partial", "source", "fields")
    rows = [row for _, row in read_csv(taxonomy_folder() / "countries.csv", columns)]
    return {
        row["country"]: Country(
            row["country"],
            row["name"],
            row["nuts"],
            row["key"],
            row["partial"] == "yes",
            row["source"],
            tuple(row["fields"].split()),
        )
        for row in rows
    }


def code_field(country: str, fields: Iterable[str]) -> str | None:
    """The field of a file's crop codes, by the names that it has had in the country; None where it has none of them.

    Of an unknown country the names of all countries count, if exactly one field has such a name. Case and spaces around
    a name do not count.
    """
    known = countries().get(country)
    present = [(field.strip().casefold(), field) for field in fields]
    for name in known.fields if known else ():
        for spelling, field in present:
            if fnmatchcase(spelling, name.casefold()):
                return field
    if known and known.fields:
        return None
    names = {name.casefold() for one in countries().values() for name in one.fields}
    found = [field for spelling, field in present if any(fnmatchcase(spelling, name) for name in names)]
    return found[0] if len(found) == 1 else None
