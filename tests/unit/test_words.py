"""Texts of the package and pages are in plain words: none has a word of tests/makers/house_words.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from house_words import BANNED_IN_PAGES, banned_in, banned_in_page

import h2crop_data

PACKAGE = Path(h2crop_data.__file__).parent
CHECKOUT = PACKAGE.parent
PAGES = sorted(
    {*CHECKOUT.glob("*.md"), *(p for part in ("docs", "infra", "taxonomy") for p in (CHECKOUT / part).rglob("*.md"))}
)


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string of a module, its docstrings too; of an f-string without what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            filled = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield node.lineno, "".join(filled)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


@pytest.mark.slow
def test_no_text_of_the_package_has_a_banned_word() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {problem}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in texts_of(path)
        for problem in banned_in(" ".join(text.split()))
    ]
    assert found == []


def test_no_page_has_a_banned_word() -> None:
    assert len(PAGES) > 30
    found = [
        f"{path.relative_to(CHECKOUT)}: {problem}"
        for path in PAGES
        for problem in banned_in_page(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "the build goes on",
        "Rows are lost without a word",
        "the color of a neighbor",
        "Colors",
        "optimized",
        "Optimized",
    ],
)
def test_odd_words_of_pages_are_found(text: str) -> None:
    assert banned_in(text, BANNED_IN_PAGES)
    assert (
        banned_in(
            "colour, neighbour, behaviour, optimised, analysed; a Cloud Optimized GeoTIFF; another perimeter",
            BANNED_IN_PAGES,
        )
        == []
    )


@pytest.mark.parametrize(
    "text",
    [
        "the value is no number",
        "the store is held by another builder; run it again",
        "it lost its hold",
        "stored for ever",
        "block 3 is mended",
        "the labels are made anew",
        "the shift is made good",
        "an older build is gone on with",
        "how it is decided is told in the index",
        "Nobody knows",
    ],
)
def test_odd_words_are_found(text: str) -> None:
    assert banned_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "there is no store at this place",
        "the tile is no longer used",
        "one block at a time; rerun the command",
        "a threshold of 3; the household",
        "amended by a recommendation",
    ],
)
def test_usual_words_are_not(text: str) -> None:
    assert banned_in(text) == []
