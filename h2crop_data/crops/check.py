"""Checks of the taxonomy tables: that classes form a tree, that nothing published changed, that codes exist."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

from h2crop_data.constants import TIER_DIGITS, UNKNOWN
from h2crop_data.crops.codes import normal_code
from h2crop_data.crops.files import read_csv, taxonomy_folder
from h2crop_data.crops.hcat import crosswalk, hcat3_names
from h2crop_data.crops.tables import PUBLISHED_TABLES, TableRow, read_crop_table, refuse_two_meanings
from h2crop_data.crops.taxonomy import Taxonomy, taxonomy_versions
from h2crop_data.errors import ParcelError

#: Most classes of a tier: ids are uint8, of which 0 is background and 255 unknown.
MOST_CLASSES = UNKNOWN - 1
DECIDED = ("source", "us")
CHECKSUMS = "SHA256SUMS"
RELATIONS = ("one_to_one", "narrower", "ambiguous")


def check_taxonomy(folder: Path | None = None) -> list[str]:
    """The problems of the tables in a folder (default: those that come with h2crop), each with its file."""
    folder = folder or taxonomy_folder()
    checks = (check_tiers, check_published_tables, check_crosswalk, check_list_of_countries)
    problems: list[str] = []
    for check in checks:
        try:
            problems += check(folder)
        except ParcelError as error:
            problems.append(str(error))
    for file in sorted((folder / "countries").glob("*.csv")):
        problems += check_crop_table(file, folder)
    return problems


def check_tiers(folder: Path) -> Iterator[str]:
    """Problems of the classes: gaps in ids, too many, no class above, a published version that changed."""
    stated = {row["version"]: row["sha256"] for _, row in read_csv(folder / "versions.csv", ("version", "sha256"))}
    for version in taxonomy_versions(folder):
        taxonomy = Taxonomy.load(version, folder)
        for tier, classes in enumerate(taxonomy.classes, 1):
            where = f"tiers.csv: version {version}, tier {tier}"
            ids = sorted(number for number, _ in classes.values())
            if ids != list(range(1, len(ids) + 1)):
                gaps = sorted(set(range(1, max(ids) + 1)) - set(ids))
                yield f"{where}: ids must be 1..{len(ids)}, missing {gaps}"
            if len(ids) > MOST_CLASSES:
                yield f"{where}: {len(ids)} classes; at most {MOST_CLASSES} fit"
            for prefix, (number, name) in classes.items():
                if tier > 1 and prefix[: TIER_DIGITS[tier - 2]] not in taxonomy.classes[tier - 2]:
                    yield f"{where}: class {number} {name} ({prefix}) has no class in tier {tier - 1}"
                if not name:
                    yield f"{where}: class {number} ({prefix}) has no name"
        if stated[version] != taxonomy.hash:
            yield (
                f"versions.csv: version {version} was published as {stated[version] or 'nothing'}, and is "
                f"{taxonomy.hash}: a published version never changes, append classes in a new one"
            )


def check_published_tables(folder: Path) -> Iterator[str]:
    """Problems of the tables of version 1, which stay as they were published."""
    published = folder / "countries" / PUBLISHED_TABLES
    try:
        lines = (published / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ParcelError(f"cannot read {published / CHECKSUMS}: {error.strerror or error}") from error
    stated = {name: digest for digest, _, name in (line.partition("  ") for line in lines if line)}
    present = {file.name for file in published.glob("*.csv")}
    for name in sorted(stated.keys() | present):
        digest = hashlib.sha256((published / name).read_bytes()).hexdigest() if name in present else "missing"
        if stated.get(name) != digest:
            yield f"countries/version-1/{name}: it was published as {stated.get(name)}, and is {digest}"


def check_crop_table(file: Path, folder: Path | None = None) -> list[str]:
    """Problems of the crop table of a country: unknown codes, HCAT4 codes, years that overlap, decisions without a
    reason.
    """
    try:
        rows = read_crop_table(file)
        refuse_two_meanings(file, rows, normal_code)
    except ParcelError as error:
        return [str(error)]
    names, hcat4 = hcat3_names(folder), {code for code, _ in crosswalk(folder)}
    return [f"{file}:{row.line}: {what}" for row in rows for what in problems_of_row(row, names, hcat4)] + [
        f"{file}: code {code} has {number} rows in the same years" for code, number in repeated_codes(rows)
    ]


def problems_of_row(row: TableRow, names: Iterable[str], hcat4: Iterable[str]) -> Iterator[str]:
    """What is wrong with a row of a crop table."""
    if row.hcat3 in hcat4:
        yield f"{row.hcat3} is a code of HCAT4, whose digits mean other crops; give the HCAT3 code"
    elif row.hcat3 and row.hcat3 not in names:
        yield f"{row.hcat3} is not a code of HCAT3"
    if row.decided is not None and row.decided not in DECIDED:
        yield f"expected source or us in `decided`, got {row.decided!r}"
    if row.decided == "us" and not row.reason:
        yield f"{row.code} was decided by us, but has no reason"


def repeated_codes(rows: Iterable[TableRow]) -> list[tuple[str, int]]:
    """Codes that have several rows for one year, with their number."""
    of_code: dict[str, list[TableRow]] = defaultdict(list)
    for row in rows:
        of_code[normal_code(row.code)].append(row)
    return [
        (code, len(found))
        for code, found in of_code.items()
        if any(one.first <= other.last and other.first <= one.last for one, other in combinations(found, 2))
    ]


def check_crosswalk(folder: Path) -> Iterator[str]:
    """Problems of the crosswalk from HCAT4."""
    names, known = hcat3_names(folder), crosswalk(folder)
    back = Counter(row.hcat3 for row in known.values() if row.relation == "one_to_one")
    for (hcat4, use), row in known.items():
        where = f"hcat/hcat4.csv: {hcat4} {use}".rstrip()
        if row.hcat3 and row.hcat3 not in names:
            yield f"{where}: {row.hcat3} is not a code of HCAT3"
        if row.relation not in RELATIONS:
            yield f"{where}: expected a relation of {', '.join(RELATIONS)}, got {row.relation!r}"
        if row.relation == "one_to_one" and back[row.hcat3] > 1:
            yield f"{where}: one_to_one, but {row.hcat3} has {back[row.hcat3]} codes of HCAT4"
        if (hcat4, "") not in known:
            yield f"{where}: no row without a use"


def check_list_of_countries(folder: Path) -> Iterator[str]:
    """Problems of the list of countries."""
    rows = [row for _, row in read_csv(folder / "countries.csv", ("country", "key", "partial", "source"))]
    listed = {row["country"] for row in rows if row["source"] != "no table"}
    tables = {file.stem for file in (folder / "countries").glob("*.csv")}
    for country in sorted(listed ^ tables):
        yield f"countries.csv: {country} is {'listed, but has no table' if country in listed else 'not listed'}"
    for row in rows:
        if row["key"] not in ("code", "name") or row["partial"] not in ("yes", "no", ""):
            yield f"countries.csv: {row['country']}: expected code or name in `key`, yes or no in `partial`"
