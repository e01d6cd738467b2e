"""Markdown for people: tables, and numbers, shares and free text as they stand in one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

#: What stands where nothing is known.
NOTHING = "–"
#: What would become markup in free text: signs, and underscores at the ends of words.
MARKUP = re.compile(r"[\\`*<>|#&~\[\]]|(?<![^\W_])_|_(?![^\W_])")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """The lines of a table; columns after the first `texts` hold numbers and stand to the right."""
    rule = ["---"] * texts + ["---:"] * (len(columns) - texts)
    return [f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)]


def known(value: Any) -> bool:
    """Whether a number is there."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def count(value: Any) -> str:
    """A whole number, thousands apart."""
    return f"{int(value):,}" if known(value) else NOTHING


def share(value: Any) -> str:
    """A share from 0 to 1 in per cent; what is neither 0 nor 1 is not rounded to them."""
    if not known(value):
        return NOTHING
    if 0 < value < 0.001:
        return "< 0.1 %"
    if 0.999 < value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %"


def reflectance(value: Any) -> str:
    """A reflectance."""
    return f"{value:.4f}" if known(value) else NOTHING


def plain(value: Any) -> str:
    """Free text in the middle of a line, without markup."""
    return MARKUP.sub(r"\\\g<0>", " ".join(str(value).split()))


def code(value: Any) -> str:
    """A name as it is to be typed, also in a cell of a table."""
    return f"`{' '.join(str(value).split()).replace('`', chr(39)).replace('|', '/')}`"


def byte_size(number: int) -> str:
    """Bytes for people."""
    for unit, power in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= power:
            return f"{number / power:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"


def listing(names: Sequence[Any], most: int, number: int | None = None) -> str:
    """The first names of some, and how many more there are. number: of all, where only the first ones are given."""
    total = len(names) if number is None else number
    more = f" and {count(total - most)} more" if total > most else ""
    return ", ".join(map(str, names[:most])) + more


def plural(number: int, one: str, many: str | None = None) -> str:
    """A count with its word."""
    return f"{count(number)} {one if number == 1 else many or f'{one}s'}"
