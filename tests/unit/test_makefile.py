"""The Makefile makes its environment with the newest Python that will do, of those that are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: An interpreter of a version that notes what it is started with. It evaluates code, and makes environments whose own
#: interpreter notes too.
INTERPRETER = """#!{bash}
if [ "$1" = -c ]; then
    exec {python} -c "import sys; sys.version_info = ({version})
$2"
fi
echo "$(basename "$0") $*" >> {log}
if [ "$2" = venv ]; then
    rm -rf "${{@: -1}}"
    mkdir -p "${{@: -1}}/bin"
    printf '#!{bash}\\necho ".venv $*" >> {log}\\n' > "${{@: -1}}/bin/python"
    chmod +x "${{@: -1}}/bin/python"
fi
"""
#: What a version manager leaves where a version is installed, but not switched on.
SWITCHED_OFF = """#!{bash}
echo "command not found" >&2
exit 127
"""


class Checkout:
    """The Makefile in a folder of its own, and a PATH with interpreters of the test's choice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.names = folder / "bin"
        self.log = folder / "log"
        self.names.mkdir()
        self.folder.mkdir()
        self.log.touch()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder)
        for tool in ("bash", "basename", "chmod", "mkdir", "rm", "touch"):
            (self.names / tool).symlink_to(str(shutil.which(tool)))

    def install(self, name: str, version: str) -> Path:
        """Put an interpreter of a version on the PATH under a name."""
        numbers = ", ".join(version.split("."))
        text = INTERPRETER.format(
            bash=shutil.which("bash"), python=sys.executable, version=f"{numbers}, 0", log=self.log
        )
        return self.write(name, text)

    def write(self, name: str, text: str) -> Path:
        """Put a program on the PATH."""
        path = self.names / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def setup(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `make setup`."""
        command = [str(shutil.which("make")), "setup", *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={"PATH": str(self.names), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def started(self) -> list[str]:
        """The interpreters that were started and the module they ran, in order."""
        return [" ".join(line.split()[:3]) for line in self.log.read_text().splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["python3.11"], "python3.11"),
        (["python3.12"], "python3.12"),
        (["python3.13"], "python3.13"),
        (["python3.11", "python3.12", "python3.13"], "python3.13"),
        (["python3.11", "python3.12", "python3.14"], "python3.12"),
        (["python3", "python3.11"], "python3.11"),
        (["python3"], "python3"),
    ],
)
def test_the_newest_of_3_11_to_3_13_is_taken(checkout: Checkout, there: list[str], taken: str) -> None:
    for name in there:
        checkout.install(name, name.removeprefix("python") if "." in name else "3.12")
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert checkout.started == [f"{taken} -m venv", ".venv -m pip"]
    assert (checkout.folder / ".venv/.h2crop-ready").exists()


def test_a_name_that_does_not_run_or_cannot_make_environments_is_passed_over(checkout: Checkout) -> None:
    bash = shutil.which("bash")
    checkout.write("python3.13", SWITCHED_OFF.format(bash=bash))
    without_venv = f"#!{bash}\nexec {sys.executable} -c \"import sys; sys.modules['ensurepip'] = None\n$2\"\n"
    checkout.write("python3.12", without_venv)
    checkout.install("python3.11", "3.11")
    assert checkout.setup().returncode == 0
    assert checkout.started[0] == "python3.11 -m venv"


@pytest.mark.parametrize("there", [{}, {"python3": "3.10"}, {"python3": "3.14", "python3.10": "3.10"}])
def test_where_none_will_do_one_sentence_says_what_to_install(checkout: Checkout, there: dict[str, str]) -> None:
    for name, version in there.items():
        checkout.install(name, version)
    done = checkout.setup()
    assert done.returncode != 0
    sentence, *rest = done.stderr.splitlines()
    assert sentence.startswith("No Python 3.11, 3.12 or 3.13 with its module venv was found: install one (")
    assert sentence.endswith("or give its path: make PYTHON=/path/to/python")
    assert all(line.startswith("make: ***") for line in rest)
    assert checkout.started == []
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_python_that_is_named_is_used(checkout: Checkout, how: str) -> None:
    for name in ("python3.11", "python3.13"):
        checkout.install(name, name.removeprefix("python"))
    mine = checkout.install("mine", "3.12")
    if how == "argument":
        checkout.setup(f"PYTHON={mine}")
    else:
        checkout.setup(PYTHON=str(mine))
    assert checkout.started == ["mine -m venv", ".venv -m pip"]


def test_an_environment_that_works_is_kept(checkout: Checkout) -> None:
    checkout.install("python3.11", "3.11")
    checkout.setup()
    checkout.install("python3.13", "3.13")
    checkout.log.write_text("")
    assert checkout.setup().returncode == 0
    assert checkout.started == []
    os.utime(checkout.folder / "constraints.txt", (2e9, 2e9))
    assert checkout.setup().returncode == 0
    assert checkout.started == [".venv -m pip"]


def test_an_environment_whose_python_is_gone_is_made_again(checkout: Checkout) -> None:
    checkout.install("python3.11", "3.11")
    checkout.setup()
    python = checkout.folder / ".venv/bin/python"
    python.unlink()
    python.symlink_to(checkout.names / "python3.10")
    (checkout.folder / ".venv/lib").mkdir()
    checkout.log.write_text("")
    assert checkout.setup().returncode == 0
    assert checkout.started == ["python3.11 -m venv", ".venv -m pip"]
    assert "--clear" in checkout.log.read_text()
    assert not (checkout.folder / ".venv/lib").exists()
