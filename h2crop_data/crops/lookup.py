"""What the tables say of a code or a class, and what differs between two versions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from h2crop_data.constants import TIER_DIGITS, TIERS
from h2crop_data.crops.codes import normal_code
from h2crop_data.crops.files import taxonomy_folder
from h2crop_data.crops.hcat import DIGITS, crosswalk, hcat3_names
from h2crop_data.crops.tables import PUBLISHED_TABLES, TableRow, country_tables, read_crop_table
from h2crop_data.crops.taxonomy import Taxonomy, taxonomy_versions
from h2crop_data.errors import UsageError


@dataclass(frozen=True)
class TierClass:
    """A class of a tier. id: None where the tier has none for the code."""

    tier: int
    prefix: str
    id: int | None
    name: str


@dataclass(frozen=True)
class CountryCode:
    """A code of a country."""

    country: str
    code: str
    hcat3: str
    years: str
    name: str
    english: str
    decided: str
    reason: str


@dataclass
class KnownCrop:
    """What is known of an HCAT3 code.

    path: version -> its class in each tier. countries: the codes that mean it. hcat4: codes of HCAT4 that mean it, with
    their use.
    """

    hcat3: str
    name: str
    path: dict[str, list[TierClass]] = field(default_factory=dict)
    countries: list[CountryCode] = field(default_factory=list)
    hcat4: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class VersionDifference:
    """What a version of the taxonomy has that another one has not.

    added, removed: tier -> classes, by prefix and name. renamed: tier -> prefix, with both names. codes: country ->
    code, with its HCAT3 code in both, empty where it is unknown, None where the table does not have it; of the
    countries that have a table of their own in version 1.
    """

    added: dict[int, list[tuple[str, str]]]
    removed: dict[int, list[tuple[str, str]]]
    renamed: dict[int, list[tuple[str, str, str]]]
    codes: dict[str, dict[str, tuple[str | None, str | None]]]


def crops_of(text: str, country: str | None = None) -> list[KnownCrop]:
    """The crops that a text names: a country's code or name of a crop, an HCAT3 code or its first digits, or a class.

    Raises UsageError where there is none.
    """
    names, wanted = hcat3_names(), normal_code(text)
    if country is not None and country not in country_tables():
        raise UsageError(f"no crop table {country!r} (known: {', '.join(country_tables())})")
    if not wanted:
        raise UsageError("give a country's code, an HCAT3 code or its name")
    chosen: set[str] = set()
    if re.fullmatch(r"33[0-9]{2,8}", text) and len(text) % 2 == 0 and country is None:
        chosen |= {text.ljust(DIGITS, "0")} & names.keys()
    for name in country_tables():
        if country in (None, name):
            chosen |= {
                row.hcat3 for row in rows_of_country(name) if wanted in (normal_code(row.code), normal_code(row.name))
            }
    if country is None:
        chosen |= {code for code, name in names.items() if normal_code(name) == wanted.replace(" ", "_")}
        chosen |= {
            prefix.ljust(DIGITS, "0")
            for classes in Taxonomy.load(taxonomy_versions()[-1]).classes
            for prefix, (_, name) in classes.items()
            if normal_code(name) == wanted.replace(" ", "_")
        }
    if country is None:
        chosen |= {row.hcat3 for (hcat4, _), row in crosswalk().items() if hcat4 == text}
    if not chosen:
        where = f" in the table of {country}" if country else ""
        raise UsageError(
            f"no crop {text!r}{where}; give a country's code, an HCAT3 code or its name (`h2crop taxonomy suggest` "
            "finds names that are near)"
        )
    return [known_crop(code) for code in sorted(chosen)]


def known_crop(hcat3: str) -> KnownCrop:
    """What is known of an HCAT3 code; empty stands for crops that are unknown."""
    found = KnownCrop(hcat3, hcat3_names().get(hcat3, "") if hcat3 else "unknown")
    for version in taxonomy_versions():
        classes = Taxonomy.load(version).classes
        path = []
        for tier, digits in enumerate(TIER_DIGITS, 1):
            number, name = classes[tier - 1].get(hcat3[:digits], (None, ""))
            path.append(TierClass(tier, hcat3[:digits], number, name))
        found.path[version] = path
    for country in country_tables():
        rows = (row for row in rows_of_country(country) if row.hcat3 == hcat3)
        found.countries += [
            CountryCode(country, row.code, row.hcat3, row.years, row.name, row.english, row.decided or "", row.reason)
            for row in rows
        ]
    found.hcat4 = [
        f"{row.hcat4} {row.name}{f' (use {row.use})' if row.use else ''}"
        for row in crosswalk().values()
        if hcat3 and row.hcat3 == hcat3
    ]
    return found


def rows_of_country(country: str) -> list[TableRow]:
    """The rows of the table of a country as it is today."""
    return read_crop_table(taxonomy_folder() / "countries" / f"{country}.csv")


def version_difference(before: str, after: str) -> VersionDifference:
    """What differs between two versions. Raises UsageError for an unknown version."""
    for version in (before, after):
        if version not in taxonomy_versions():
            raise UsageError(f"unknown taxonomy version {version!r}; this h2crop has {', '.join(taxonomy_versions())}")
    old, new = Taxonomy.load(before).classes, Taxonomy.load(after).classes
    tiers = range(1, TIERS + 1)
    return VersionDifference(
        added={tier: only_in(new[tier - 1], old[tier - 1]) for tier in tiers},
        removed={tier: only_in(old[tier - 1], new[tier - 1]) for tier in tiers},
        renamed={
            tier: [
                (prefix, old[tier - 1][prefix][1], name)
                for prefix, (_, name) in new[tier - 1].items()
                if prefix in old[tier - 1] and old[tier - 1][prefix][1] != name
            ]
            for tier in tiers
        },
        codes=differing_codes(before, after),
    )


def only_in(classes: dict[str, tuple[int, str]], others: dict[str, tuple[int, str]]) -> list[tuple[str, str]]:
    """Prefix and name of the classes that others lack, in order of id."""
    return [
        (prefix, name) for prefix, (_, name) in sorted(classes.items(), key=lambda one: one[1]) if prefix not in others
    ]


def differing_codes(before: str, after: str) -> dict[str, dict[str, tuple[str | None, str | None]]]:
    """By country the codes whose meaning in the last year differs between the tables of two versions."""
    folder = taxonomy_folder() / "countries"
    found = {}
    for published in sorted((folder / PUBLISHED_TABLES).glob("*.csv")):
        meanings = {
            version: last_meanings(published if version == taxonomy_versions()[0] else folder / published.name)
            for version in (before, after)
        }
        old, new = meanings[before], meanings[after]
        found[published.stem] = {
            code: (old.get(code), new.get(code)) for code in sorted({*old, *new}) if old.get(code) != new.get(code)
        }
    return found


def last_meanings(file: Path) -> dict[str, str]:
    """Code -> HCAT3 code in its last years."""
    rows = sorted(read_crop_table(file), key=lambda row: row.last)
    return {row.code: row.hcat3 for row in rows}
