"""Writes the tables of columns into docs/store-format.md, from what the package states.

python docs/columns.py
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.cube import columns as stated
from h2crop_data.cube.columns import Column
from h2crop_data.sources.formats import known_layout

PAGE = Path(__file__).parent / "store-format.md"
BEGIN, END = "<!-- columns: written by docs/columns.py -->", "<!-- end of columns -->"
TYPES = {
    "text": "string",
    "texts": "list of strings",
    "integer": "integer",
    "nullable integer": "integer or null",
    "number": "float",
    "numbers": "list of floats",
    "time": "time, UTC",
    "boolean": "bool",
    "geometry": "WKB",
}


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
        "samples-<season>.parquet": [*layout.sample_columns(), stated.GEOMETRY],
        "samples-<season>.parquet, imported seasons only": stated.IMPORTED_COLUMNS,
        "parcels-<season>.parquet": stated.PARCELS,
        "dates-<season>.parquet": layout.date_columns(),
        "frames-<season>.parquet": stated.FRAMES,
        "blocks.parquet": layout.block_columns(),
        "scenes.parquet": stated.SCENES,
        "squares.parquet": stated.SQUARES,
    }
    titles = {source.name: source.title for source in layout.sources}
    lines = [""]
    for name, columns in parts.items():
        lines += ["", f"**`{name.split(',')[0]}`{name.removeprefix(name.split(',')[0])}**", ""]
        lines += table_of(columns, titles)
    return "\n".join([*lines, "", ""])


def table_of(columns: Iterable[Column], titles: dict[str, str]) -> list[str]:
    """One line a column."""
    lines = ["| column | type | unit | source | description |", "|---|---|---|---|---|"]
    for column in columns:
        kind = TYPES[column.dtype] + (f" ({column.length})" if column.length else "")
        note = "" if column.always else "; not in format 1.0"
        note += "" if column.imported else "; not in imported seasons"
        source = titles.get(column.source, "")
        lines.append(f"| `{column.name}` | {kind} | {column.unit} | {source} | {column.text}{note} |")
    return lines


if __name__ == "__main__":
    main()
