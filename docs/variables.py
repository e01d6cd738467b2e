"""Writes the tables of environment variables into docs/configuration.md, from what h2crop_data/settings/ declares.

python docs/variables.py
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from h2crop_data.settings import Variable, declared_variables

PAGE = Path(__file__).parent / "configuration.md"
BEGIN, END = "<!-- variables: written by docs/variables.py -->", "<!-- end of variables -->"


def main() -> None:
    """Write the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")


def table() -> str:
    """A line for each variable, below the title of its group."""
    lines = ["", "", "| variable | meaning | default | secret | read by |", "|---|---|---|---|---|"]
    for title, group in groupby(declared_variables(), lambda one: one.group):
        lines += [f"| **{title}** | | | | |", *(line_of(one) for one in group)]
    return "\n".join([*lines, "", ""])


def line_of(one: Variable) -> str:
    """The line of one variable."""
    return f"| `{one.name}` | {one.text} | {one.default} | {'secret' if one.secret else ''} | {one.read_by} |"


if __name__ == "__main__":
    main()
