"""Writes the tables of columns into docs/store-format.md, from what the package states.

python docs/columns.py
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pyarrow import types

from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.cube import columns as stated
from h2crop_data.cube.columns import Column
from h2crop_data.sources.formats import known_layout

PAGE = Path(__file__).parent / "store-format.md"
BEGIN, END = "<!-- columns: written by docs/columns.py -->", "<!-- end of columns -->"


def main() -> None:
    """Write the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + tables() + END + after, encoding="utf-8")


def tables() -> str:
    """A table for each file of the index that has columns."""
    layout = known_layout(1920, 16, s2_bands=SENTINEL2_BANDS, enmap_bands=218)
    parts = {
        "samples-<season>.parquet": layout.table_columns("samples"),
        "samples-<season>.parquet, imported seasons only": stated.IMPORTED_COLUMNS,
        "parcels-<season>.parquet": stated.PARCELS,
        "codes-<season>.parquet": stated.CROP_CODES,
        "dates-<season>.parquet": layout.date_columns(),
        "frames-<season>.parquet": stated.FRAMES,
        "blocks-<season>.parquet": layout.block_columns(),
        "scenes-<season>.parquet": stated.SCENES,
        "squares-<season>.parquet": stated.SQUARES,
        "manifest-<season>.parquet": stated.MANIFEST,
    }
    titles = {source.name: source.title for source in layout.sources}
    lines = [""]
    for name, columns in parts.items():
        lines += ["", f"**`{name.split(',')[0]}`{name.removeprefix(name.split(',')[0])}**", ""]
        lines += table_of(columns, titles)
    return "\n".join([*lines, "", ""])


def type_of(column: Column) -> str:
    """Its Arrow type, of a list the type and number of its values; `not null` where every row has a value."""
    kind = stated.TYPES[column.dtype]
    if types.is_list(kind):
        kind = f"list of {kind.value_type}"
    length = f" ({column.length})" if column.length else ""
    return f"{kind}{length}{', not null' if column.filled else ''}"


def table_of(columns: Iterable[Column], titles: dict[str, str]) -> list[str]:
    """One line a column."""
    lines = ["| column | type | unit | source | description |", "|---|---|---|---|---|"]
    for column in columns:
        kind = type_of(column)
        note = "" if column.always else "; not in format 1.0"
        note += "" if column.imported else "; not in imported seasons"
        source = titles.get(column.source, "")
        lines.append(f"| `{column.name}` | {kind} | {column.unit} | {source} | {column.text}{note} |")
    return lines


if __name__ == "__main__":
    main()
