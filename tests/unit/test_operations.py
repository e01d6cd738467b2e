"""docs/operations.md and docs/errors.md: every error has its row, and what they quote, type, link and count is so."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import h2crop_data
from h2crop_data.cli.console import Exit
from h2crop_data.cli.main import app
from h2crop_data.storage.lease import RENEWALS
from h2crop_data.storage.requests import Patience
from h2crop_data.storage.s3 import ObjectStorage

PACKAGE = Path(h2crop_data.__file__).parent
DOCS = PACKAGE.parent / "docs"
PAGE = (DOCS / "operations.md").read_text(encoding="utf-8")
ERRORS = (DOCS / "errors.md").read_text(encoding="utf-8")
#: Stands in messages of the page for what differs.
GAP = "…"
#: Stands in messages of the source for what is filled in: no other text has it.
FILLED = "\0"
#: Between two texts of the source.
END = "\x01"
#: Errors whose text is about an argument that was given, so that its place is known.
SAY_THEMSELVES = {"UsageError", "ModelError"}
#: Parts that no service runs: simulated regions, training, pictures, the published files.
OTHER_PARTS = {"simulate", "training", "report", "published"}
#: Words from which on a text is one of its own.
OWN_WORDS = 3
#: What stands in backticks.
SPANS = re.compile(r"`([^`]+)`")


@cache
def trees() -> dict[Path, ast.Module]:
    """The source of the package, by file."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def error_classes() -> set[str]:
    """The exceptions and warnings of the package that reach whoever uses it."""
    bases = {
        node.name: [ast.unparse(base) for base in node.bases]
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"H2cropError", "StoreWarning"}
    while True:
        more = {name for name, of_class in bases.items() if found & set(of_class)} - found
        if not more:
            return found
        found |= more


def error_rows() -> list[list[str]]:
    """The rows of the tables of errors: message, class, cause, cure."""
    return table_rows(ERRORS)


def table_rows(text: str) -> list[list[str]]:
    """The rows of tables of messages."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| message |")]
    return [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]


@cache
def texts_of_source() -> str:
    """Every text in the package but docstrings, with END after each and FILLED for what is filled in."""
    found = []
    for tree in trees().values():
        nodes = list(ast.walk(tree))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append(text_of(node))
    return END.join(found)


@cache
def pattern_of(message: str) -> re.Pattern[str]:
    """What finds a message of the page in the texts of the package."""
    parts = [re.escape(part.strip()) for part in message.split(GAP) if part.strip()]
    return re.compile(f"[^{END}]*".join(parts).replace("'", "['`]"))


def is_in_source(message: str) -> bool:
    """Whether some text of the package has the parts of a message in their order."""
    return pattern_of(message).search(texts_of_source()) is not None


@cache
def raised_texts() -> list[tuple[str, str]]:
    """Class and text of the errors that the package makes, with FILLED for what is filled in."""
    classes = error_classes() - SAY_THEMSELVES
    return [
        (ast.unparse(node.func), text_of(node.args[0]))
        for path, tree in trees().items()
        if path.relative_to(PACKAGE).parts[0] not in OTHER_PARTS
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in classes and node.args
    ]


def text_of(node: ast.expr) -> str:
    """The text of an expression, with FILLED for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else FILLED


@pytest.mark.slow
def test_every_error_class_stands_in_the_tables() -> None:
    rows = error_rows()
    assert len(rows) > 200
    assert all(len(row) == 4 for row in rows), [row for row in rows if len(row) != 4]
    named = {name for row in rows for name in SPANS.findall(row[1])}
    classes = error_classes()
    assert len(classes) > 30
    assert classes - named == {"H2cropError"}, "H2cropError is the base of all: nothing raises it itself"
    assert named <= classes


@pytest.mark.slow
def test_every_message_that_is_quoted_is_one_of_the_package() -> None:
    usual = table_rows(PAGE.split("\n## When something fails")[1].split("\n## ")[0])
    assert 8 <= len(usual) <= 12
    quoted = [message for row in [*error_rows(), *usual] for message in SPANS.findall(row[0])]
    assert len(quoted) > 200
    assert [message for message in quoted if not is_in_source(message)] == []
    assert not is_in_source("a message that … nobody raises")
    # So short that it would be found anywhere it says nothing.
    assert [message for message in quoted if len(message.replace(GAP, "").strip()) < 4] == []
    # A row is one message, to be found by whoever searches for it.
    assert [row[0] for row in error_rows() if len(SPANS.findall(row[0])) > 1] == []


@pytest.mark.slow
def test_every_message_that_is_raised_is_quoted_with_its_class() -> None:
    """But for those that name an option or argument, and those that pass on what another error says."""
    rows = [(pattern_of(message), SPANS.findall(row[1])) for row in error_rows() for message in SPANS.findall(row[0])]
    raised = raised_texts()
    assert len(raised) > 250
    missing = {
        (name, text)
        for name, text in raised
        if len(re.findall(r"[a-z]{2,}", text)) >= OWN_WORDS
        and not any(name in classes and pattern.search(text) for pattern, classes in rows)
    }
    assert missing == set()


def test_no_message_has_a_class_that_it_is_never_raised_with() -> None:
    raised = raised_texts()
    wrong = []
    for row in error_rows():
        for message in SPANS.findall(row[0]):
            found = {name for name, text in raised if pattern_of(message).search(text)}
            wrong += [(message, name) for name in SPANS.findall(row[1]) if found and name not in found | SAY_THEMSELVES]
    assert wrong == []


def anchors_of(page: Path) -> set[str]:
    """What can be linked to in a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The links of a page to files, or headings of pages, that do not exist."""
    links = re.findall(r"\]\((?!http)([\w./-]*)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8"))
    broken = []
    for target, anchor in links:
        place = page.parent / target if target else page
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors_of(place)):
            broken.append(f"{page.name}: {target}#{anchor}")
    return broken


def test_links_of_all_pages_lead_somewhere() -> None:
    places = (DOCS.parent / part for part in ("README.md", "docs", "infra", "taxonomy", "tests/stores"))
    pages = [page for place in places for page in ([place] if place.is_file() else sorted(place.rglob("*.md")))]
    assert len(pages) > 35
    assert [link for page in pages for link in broken_links(page)] == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One, two\n[a](#one-two) [b](page.md#one-two) [c](#three) [d](gone.md) [e](https://example.org)")
    assert broken_links(page) == ["page.md: #three", "page.md: gone.md#"]


FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PARSERS: dict[str, Any] = {"yaml": yaml.safe_load, "python": ast.parse, "toml": tomllib.loads}


def test_code_of_pages_can_be_parsed() -> None:
    texts = [page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")]
    blocks = [(kind, code) for text in texts for kind, code in FENCED.findall(text) if kind in PARSERS]
    assert len(blocks) > 30
    for kind, code in blocks:
        PARSERS[kind](code)


def commands_of(text: str) -> list[str]:
    """The h2crop commands that a text names."""
    spans = [span for span in SPANS.findall(text) if span.startswith("h2crop ")]
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ") and "h2crop " in line]
    typed = [
        re.sub(r"^.*?\bh2crop (?!-)", "h2crop ", line).split("  #")[0] for line in lines if "/h2crop refresh" in line
    ]
    plain = [line.split("  #")[0] for line in lines if line.startswith("h2crop ")]
    return [*spans, *plain, *typed]


def unknown_in(command: str) -> list[str]:
    """What of a command the command line does not know."""
    words = [word for word in command.split()[1:] if not word.startswith((">", "2>"))]
    place: Any = typer.main.get_command(app)
    if words and words[0] == "--version":
        return []
    while hasattr(place, "commands") and words:
        name = words[0]
        if name not in place.commands:
            # `h2crop plan RECIPE` is `h2crop plan make RECIPE`.
            if "make" not in place.commands:
                return [name]
            place = place.commands["make"]
            break
        place = place.commands[name]
        words = words[1:]
    options = {option for parameter in place.params for option in parameter.opts}
    return [word for word in words if word.startswith("--") and word not in options]


@pytest.mark.slow
def test_every_command_of_the_page_is_one_of_the_command_line() -> None:
    commands = [*commands_of(PAGE), *commands_of(ERRORS)]
    assert len(commands) > 40
    assert {command: unknown_in(command) for command in commands if unknown_in(command)} == {}
    assert unknown_in("h2crop build RECIPE --uot STORE") == ["--uot"]
    assert unknown_in("h2crop bulid RECIPE") == ["bulid"]  # codespell:ignore


def test_the_page_has_every_exit_code() -> None:
    [told] = [part for part in PAGE.split("\n\n") if part.startswith("Exit codes of commands: ")]
    assert {int(code) for code in re.findall(r"\b\d+\b", told)} == set(Exit)
    states = {code.name.lower().replace("_", " ") for code in Exit if code >= Exit.RUNNING}
    assert all(state.removeprefix("build ") in told for state in states)


def test_what_a_build_asks_of_a_bucket_each_minute_is_that_of_the_code() -> None:
    leases = 60 / (Patience().lease / RENEWALS)
    # The status is a file that is replaced.
    statuses = 60 / ObjectStorage.status_every
    told = f"{leases + statuses:g} PUT and {statuses:g} HEAD a minute"
    assert told == "4 PUT and 1 HEAD a minute"
    assert told in PAGE
    assert told.replace("1 HEAD", "a HEAD") in (DOCS / "scale.md").read_text(encoding="utf-8")
    assert "one HEAD and one PUT each" in (DOCS / "monitoring.md").read_text(encoding="utf-8")
    assert f"and {leases:g} PUT a minute |" in (DOCS / "object-stores.md").read_text(encoding="utf-8")


def test_no_page_names_a_constant_of_the_settings_for_its_variable() -> None:
    # testing.md lists the constants that tests replace.
    pages = set(DOCS.rglob("*.md")) - {DOCS / "testing.md"}
    assert not [page.name for page in pages if "_BYTES`" in page.read_text(encoding="utf-8")]


def scale(row: str) -> list[float]:
    """The figures of a row of docs/scale.md: of the published dataset, of France without EnMAP and with it, ..."""
    line = next(line for line in (DOCS / "scale.md").read_text().splitlines() if line.startswith(f"| {row} |"))
    return [float(cell.replace(",", "")) for cell in line.split("|")[2:-1]]


def table_row(row: str) -> list[float]:
    """The figures of a row of the page's tables."""
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {row} |"))
    return [float(cell.replace(",", "")) for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize(
    ("row", "source", "factor"),
    [
        ("stored, MB (lz4)", "stored with lz4, GB", 1e3),
        ("read from archives for composites, MB", "read from archives, TB", 1e6),
        ("… in requests", "… requests, million", 1e6),
        ("computing of blocks, core seconds", "computing, core hours", 3600),
        ("waiting for archives at 0.35 s an answer, worker seconds", "waiting, worker hours", 3600),
        ("PUT and LIST, in a bucket", "PUT and LIST to build and seal", 1),
        ("GET and HEAD, in a bucket", "GET and HEAD to build and seal", 1),
    ],
)
def test_costs_of_a_sample_are_those_of_a_year_of_france(row: str, source: str, factor: float) -> None:
    samples = scale("samples")
    for told, whole, count in zip(table_row(row), scale(source)[1:3], samples[1:3], strict=True):
        assert told == pytest.approx(whole * factor / count, rel=0.03)


def test_costs_of_larger_ground_follow_from_those_of_a_sample() -> None:
    rows: dict[str, Any] = {
        name: table_row(name)
        for name in ("one split square (15,360 m, 64 cells)", "a region of 100 squares (23,600 km²)", "France, a year")
    }
    stored, read, computing, put = (
        table_row(name)[0]
        for name in (
            "stored, MB (lz4)",
            "read from archives for composites, MB",
            "computing of blocks, core seconds",
            "PUT and LIST, in a bucket",
        )
    )
    # Masks by the classification, shifts of dates, images against parcels.
    on_top = 0.4 + 0.4 + 0.4
    for samples, *told in rows.values():
        expected = [
            samples * stored / 1e3,
            samples * read / 1e3,
            samples * (computing + on_top) / 3600,
            samples * put,
        ]
        assert told == pytest.approx(expected, rel=0.06)
