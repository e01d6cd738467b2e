"""What tests replace of the package and of libraries, and why, stands in docs/testing.md: all of it, nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "testing.md"


def replaced_in(source: str) -> Iterator[str]:
    """The names of attributes of others that a test replaces or deletes; of a calculated name, that of the object."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {(name.asname or name.name).partition(".")[0] for node in imports for name in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute) and ast.unparse(target.value).partition(".")[0] in imported:
                    yield target.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "delattr", "patch.object")):
            target, *more = node.args
            is_own = isinstance(node.func, ast.Name) and ast.unparse(target).partition(".")[0] not in imported
            named = target if isinstance(target, ast.Constant) else more[0]
            text = str(named.value) if isinstance(named, ast.Constant) else ast.unparse(target)
            if not is_own:
                yield text.rpartition(".")[2]


def names_of_page(text: str) -> set[str]:
    """The names in the first column of the table of what tests replace."""
    table = text.partition("\n| what is replaced |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)
    return {name.rpartition(".")[2] for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_names_are_found_however_they_are_given() -> None:
    source = """
from package import Class, module
patch.setattr("package.module.one", 1)
patch.delattr("package.module.two")
patch.setattr(module.Class, "three", 3)
patch.setattr(Class, name, 4)
patch.object(Class, "ten", autospec=True)
module.five = module.six = 5
setattr(Class, "seven", 7)
setattr(own, "eight", 8)
own.nine = 9
"""
    assert sorted(replaced_in(source)) == ["Class", "five", "one", "seven", "six", "ten", "three", "two"]


@pytest.mark.slow
def test_all_that_tests_replace_has_its_reason_in_the_page() -> None:
    files = sorted(TESTS.rglob("*.py"))
    replaced = {name for file in files for name in replaced_in(file.read_text(encoding="utf-8"))}
    text = PAGE.read_text(encoding="utf-8")
    named = names_of_page(text)
    assert len(replaced) > 40
    assert replaced - named == set(), "add them to the table of docs/testing.md, with the reason"
    assert named - replaced == set(), "no test replaces them any more"
