"""Crop codes as text: as a file has them, and the normal form in which files and tables are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import numpy as np
import pandas as pd

#: Between the codes of one piece of ground that was declared with several crops.
CONTRADICTS = " ≠ "


def clean_code(value: object) -> str:
    """A crop code as text: without spaces around it, whole numbers without `.0`, empty for a missing one."""
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, float | np.floating) and np.isnan(value):
        return ""
    if isinstance(value, float | np.floating) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def normal_code(code: str) -> str:
    """The normal form of a code or of a crop's name.

    Compatible characters are one (NFKC), invisible ones go, white space is one space, case does not count; a whole
    number has no leading zeros and no `.0`.
    """
    text = "".join(" " if letter.isspace() else letter for letter in unicodedata.normalize("NFKC", code))
    visible = (letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cf"))
    text = " ".join("".join(visible).split()).casefold()
    number = re.fullmatch(r"([0-9]+)(\.0+)?", text, re.ASCII)
    return str(int(number[1])) if number else text


def exact_code(code: str) -> str:
    """The code itself: version 1 of the taxonomy compares codes as they are."""
    return code


def likeness(code: str) -> str:
    """What codes have in common that look alike: letters without accents, digits, no zeros before them."""
    letters = unicodedata.normalize("NFKD", normal_code(code))
    text = "".join(letter for letter in letters if letter.isalnum())
    return text.lstrip("0") or text[:1]


def near_misses(codes: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Of crop codes that a table does not have, those that look like one it has, with that one.

    codes, known: as the file and the table have them.
    """
    alike: dict[str, str] = {}
    for code in known:
        alike.setdefault(likeness(code), code)
    found = {code: alike.get(likeness(code)) for code in codes if likeness(code)}
    return {code: table for code, table in found.items() if table is not None}


def code_with_use(code: str, use: str) -> str:
    """An HCAT4 code with its use, 1 to 11, after a space; without another use, or none."""
    return f"{code} {int(use)}" if code and re.fullmatch(r"0*([1-9]|1[01])", use) else code


def several_codes(codes: Iterable[str]) -> str:
    """The code of ground that was declared with several crops: it names them all, and its crop is unknown."""
    return CONTRADICTS.join(sorted(codes))
