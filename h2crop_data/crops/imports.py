"""Crop tables of others, brought into the form of `taxonomy/countries`, with a report of what does not fit."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from h2crop_data.crops.codes import clean_code, normal_code
from h2crop_data.crops.files import read_csv
from h2crop_data.crops.hcat import agreed, crosswalk, hcat3_names, hcat3_of_hcat4
from h2crop_data.errors import ParcelError

#: Columns of a table in taxonomy/countries.
TABLE_COLUMNS = ("code", "hcat3", "from", "to", "name", "english", "decided", "reason")


@dataclass(frozen=True)
class ForeignColumns:
    """The columns of a list of crop codes; those it does not have are None."""

    code: str | None = None
    name: str | None = None
    english: str | None = None
    hcat3: str | None = None
    hcat3_name: str | None = None
    hcat4: str | None = None
    use: str | None = None
    #: Column of the country, in lists of several.
    country: str | None = None
    #: Years in which the code means this, inclusive.
    first: str | None = None
    last: str | None = None
    decided: str | None = None
    reason: str | None = None


#: h2crop's own tables; EuroCrops v1 and the lists of fiboa.org; EuroCrops v2.
KNOWN_FORMS = (
    ForeignColumns("code", "name", "english", "hcat3", first="from", last="to", decided="decided", reason="reason"),
    ForeignColumns("original_code", "original_name", "translated_name", "HCAT3_code", "HCAT3_name"),
    ForeignColumns(
        "original_code", "original_name", "translated_name", hcat4="hcat4_code", use="usage_code", country="nuts"
    ),
)


@dataclass(frozen=True)
class ImportedRow:
    """A code, what it means, and its names."""

    line: int
    code: str
    hcat3: str
    name: str
    english: str
    reason: str = ""
    first: str = ""
    last: str = ""
    decided: str = ""

    def fields(self) -> dict[str, str]:
        """The row in the form of taxonomy/countries."""
        decided = self.decided or ("us" if self.reason else "source")
        values = (self.code, self.hcat3, self.first, self.last, self.name, self.english, decided, self.reason)
        return dict(zip(TABLE_COLUMNS, values, strict=True))


@dataclass
class TableReport:
    """What was read of a list of crop codes, and what of it does not fit; lines of the list, with what they say.

    read: rows. kept: rows of the table that was made. by_name: rows without a code, for which the name stands.
    unnamed: rows without code and name, left out. unmapped: rows whose crop is not in HCAT3, kept as unknown. hcat4:
    codes of HCAT4 in the place of an HCAT3 code, kept as unknown. two_meanings: codes with several meanings, taken to
    the tier at which they agree. contradictions: HCAT3 codes whose name is that of another one; the code was
    believed.
    """

    read: int = 0
    kept: int = 0
    repeated: int = 0
    by_name: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)
    hcat4: list[str] = field(default_factory=list)
    two_meanings: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)


def import_table(
    file: Path, columns: ForeignColumns | None = None, country: str | None = None, reason: str = ""
) -> tuple[list[ImportedRow], TableReport]:
    """The rows of a list of crop codes, in order of code, and a report.

    columns: of the list; without it those of h2crop, of EuroCrops v1 or v2, or of fiboa.org are recognised. country:
    whose rows to take of a list of several. reason: why the meanings were decided here, for every row without one;
    without it they are those of the source. Raises ParcelError where columns are missing, no row is left, or none has a
    meaning.
    """
    chosen = columns or known_form(file)
    wanted = tuple(name for name in vars(chosen).values() if name)
    report = TableReport()
    of_code: dict[tuple[str, str, str], list[ImportedRow]] = defaultdict(list)
    for line, row in read_csv(file, wanted):
        values = {part: clean_code(row.get(name)) if name else "" for part, name in vars(chosen).items()}
        if country and chosen.country and values["country"].casefold() != country.casefold():
            continue
        report.read += 1
        found = imported_row(line, values, report, by_hcat4=chosen.hcat4 is not None)
        if found is not None:
            found = found if found.reason else replace(found, reason=reason)
            of_code[normal_code(found.code), found.first, found.last].append(found)
    if not of_code:
        of_country = f" of {country!r}" if country else ""
        raise ParcelError(f"{file}: no row{of_country} with a crop code or name")
    rows = [one_meaning(rows, report) for rows in of_code.values()]
    if not any(row.hcat3 for row in rows):
        column = chosen.hcat4 or chosen.hcat3
        raise ParcelError(f"{file}: no row has a code of HCAT in the column {column}; is it another column?")
    report.kept = len(rows)
    return sorted(rows, key=lambda row: (row.code, row.first)), report


def imported_row(line: int, values: Mapping[str, str], report: TableReport, *, by_hcat4: bool) -> ImportedRow | None:
    """The row of a list with these values, by the names of `ForeignColumns`; None where it has neither code nor name.

    What does not fit is added to the report. by_hcat4: whether its meaning is an HCAT4 code.
    """
    key = values["code"] or values["name"]
    where = f"line {line}: {key or values['english']}"
    if not key:
        report.unnamed.append(where)
        return None
    if not values["code"]:
        report.by_name.append(where)
    names = hcat3_names()
    # Spreadsheets make numbers of codes.
    code = (values["hcat4"] if by_hcat4 else values["hcat3"]).removesuffix(".0")
    if by_hcat4:
        hcat3 = hcat3_of_hcat4(code, values["use"])
    else:
        hcat3 = code if code in names else None
        if hcat3 is None and (code, "") in crosswalk():
            report.hcat4.append(f"{where}: {code}")
    if hcat3 is None:
        report.unmapped.append(f"{where}: {code or 'no HCAT3 code'}")
    stated = values["hcat3_name"]
    if hcat3 and stated in names.values() and names[hcat3] != stated:
        report.contradictions.append(f"{where}: {hcat3} is {names[hcat3]}, the list says {stated}")
    by_crosswalk = f"HCAT4 {code} {values['use']}".rstrip() + ", by the crosswalk"
    return ImportedRow(
        line,
        key,
        hcat3 or "",
        values["name"],
        values["english"],
        values["reason"] or (by_crosswalk if by_hcat4 else ""),
        values["first"],
        values["last"],
        values["decided"],
    )


def one_meaning(rows: Sequence[ImportedRow], report: TableReport) -> ImportedRow:
    """The row for a code that a list has several times; what differs is reported."""
    first, *others = rows
    report.repeated += len(others)
    meanings = sorted({row.hcat3 for row in rows})
    if len(meanings) == 1:
        return first
    hcat3 = agreed(meanings)
    stated = ", ".join(meaning or "unknown" for meaning in meanings)
    report.two_meanings.append(f"line {first.line}: {first.code}: {stated}")
    return replace(first, hcat3=hcat3, decided="us", reason=f"the source has several meanings: {stated}")


def known_form(file: Path) -> ForeignColumns:
    """The columns of a list in a known form. Raises ParcelError for another one."""
    header = read_csv(file, ())
    present = set(header[0][1]) if header else set()
    for form in KNOWN_FORMS:
        meaning = form.hcat4 or form.hcat3
        keys = {form.code, form.name} & present
        if meaning in present and keys:
            return ForeignColumns(**{part: name if name in present else None for part, name in vars(form).items()})
    if not header:
        raise ParcelError(f"{file} has no rows")
    raise ParcelError(
        f"{file} is not a list of EuroCrops or fiboa: name its columns; it has {', '.join(sorted(map(str, present)))}"
    )


def table_text(rows: Sequence[ImportedRow]) -> str:
    """Rows as the CSV of a table in taxonomy/countries."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TABLE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.fields() for row in rows)
    return text.getvalue()
