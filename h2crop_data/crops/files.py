"""The tables in the folder `taxonomy`, as they are read."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from h2crop_data.errors import ParcelError


def taxonomy_folder() -> Path:
    """The folder of the taxonomy tables: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "taxonomy"
    return inside if inside.is_dir() else package.parent / "taxonomy"


def read_csv(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV (UTF-8, or Latin-1 where it is not) as text, each with its line in the file.

    Columns are separated by commas, or by semicolons or tabs if its first line has no comma. Raises ParcelError for a
    file that is not a text file, and for missing columns.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ParcelError(f"cannot read the table {path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "\0" in text:
        raise ParcelError(f"{path} is not a text file; expected a CSV")
    header = text.partition("\n")[0]
    separator = next((mark for mark in ",;\t" if mark in header), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="", delimiter=separator)
    rows = [(reader.line_num, row) for row in reader]
    present = list(reader.fieldnames or [])
    missing = [column for column in columns if column not in present]
    if missing:
        raise ParcelError(f"{path}: no column {', '.join(missing)}; it has {', '.join(present) or 'no columns'}")
    return rows


def whole_number(text: str) -> int:
    """A whole number, or -1 where the text is none."""
    return int(text) if re.fullmatch(r"[0-9]+", text) else -1
