"""Change the code in small ways, run the tests that execute what was changed, and write which changes none notices.

    python tests/sweeps/mutants.py [--modules PATH ...] [--sample N --seed S] [--minutes M] [--again] [--page-only]

What was tried is kept in build/mutant-results.json: it is not tried again unless its function changed, or, of what no
test noticed, a test file that executes it. What tests execute is kept in build/mutant-tests.json. Of the checkout
nothing is changed but the page. Stopped at any moment, the same command continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from mutant_runs import CHECKOUT, Attempts, Outcome, Session, TestRun, in_session, seconds_of, warm_up
from mutations import Mutant, function_states, functions_by_line, line_mark, mutants_of

#: What is changed.
PACKAGES = ("cube", "enmap", "grid.py", "parcels", "sentinel2", "sources", "splits")
#: Modules of words for people; tests of pages and reports read them.
WORDS = ("words.py", "report.py")
#: Modules of which every mutant is tried, whatever the sample.
WHOLE = (
    "grid.py",
    "splits/",
    "sentinel2/composite.py",
    "sentinel2/reflectance.py",
    "cube/statistics.py",
    "cube/shard.py",
    "enmap/resample.py",
    "parcels/rasterize.py",
)
#: Tests that look at the checkout, the installation or other parts, not at what this code computes.
OTHER_TESTS = (
    "architecture", "dataset", "evaluation", "flows", "gpu_model", "infra", "inspect", "local_storage", "losses",
    "makefile", "model", "model_alone", "model_weights", "natural_sky", "normalisation", "operations", "outages",
    "packaging", "public_face", "real_conftest", "redaction", "schedule", "settings", "scale_cases", "scale_engine",
    "scale_plan", "simulated_declarations", "simulated_land", "simulated_phenology", "simulated_rotation",
    "simulated_sensors", "simulated_shifts", "simulated_spectra", "timings", "trainer", "training_run", "transforms",
    "mutants",
)  # fmt: skip
#: Tests of other folders that are fast and fit.
FURTHER_TESTS = ("integration/test_formats.py", "integration/test_enmap_layers.py")
#: Processor seconds, with shared fixtures, beyond which a test is not used.
SLOW = 4.0
WHY = Path(__file__).with_name("surviving_mutants.toml")


def main() -> int:
    """Record, try, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="*", default=[], metavar="PATH", help="below h2crop_data; all by default")
    parser.add_argument("--sample", type=int, default=60, help="of each package, beside modules that are tried whole")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600.0, help="no mutant is begun later")
    parser.add_argument("--again", action="store_true", help="try again what no test noticed")
    parser.add_argument("--page-only", action="store_true", help="write the page of what was tried before")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the processor, of the tests of one mutant")
    parser.add_argument("--tests", nargs="*", metavar="FILE", help="in the checkout; the fast fitting ones by default")
    parser.add_argument("--work", type=Path, default=CHECKOUT / "build", help="where what was tried is kept")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "mutants.md")
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    everything = all_mutants()
    wanted = chosen_mutants(everything, arguments.modules, arguments.sample, arguments.seed)
    kept = Kept(arguments.work)
    if not arguments.page_only:
        warm_up()
        tries = Tries(recorded(kept, arguments.tests or files_of_tests()), kept, arguments.seconds)
        tries.run([mutant for mutant in wanted if tries.is_to_try(mutant, again=arguments.again)], until)
    arguments.out.write_text(page(everything, read(kept.results), arguments.seed), encoding="utf-8")
    print(f"wrote {arguments.out}")
    return 0


class Kept:
    """Files of what was tried before."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.results, self.runs, self.log = (
            folder / f"mutant-{name}" for name in ("results.json", "tests.json", "log")
        )


def all_mutants() -> list[Mutant]:
    """The mutants of every module in question."""
    found = []
    for package in PACKAGES:
        path = CHECKOUT / "h2crop_data" / package
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.name not in WORDS:
                module = file.relative_to(CHECKOUT).as_posix()
                found += mutants_of(module, file.read_text(encoding="utf-8"))
    return found


def chosen_mutants(everything: Sequence[Mutant], modules: Sequence[str], sample: int, seed: int) -> list[Mutant]:
    """Those to try, of some modules or of all: all of `WHOLE` and a sample of each package, in random order."""
    order = random.Random(seed)
    wanted, others = [], defaultdict(list)
    for mutant in everything:
        if in_package(mutant).startswith(tuple(modules) or ""):
            whole = in_package(mutant).startswith(WHOLE)
            (wanted if whole else others[in_package(mutant).partition("/")[0]]).append(mutant)
    for _, of_package in sorted(others.items()):
        order.shuffle(of_package)
        wanted += of_package[:sample]
    order.shuffle(wanted)
    return wanted


def in_package(mutant: Mutant) -> str:
    return mutant.module.removeprefix("h2crop_data/")


def files_of_tests() -> list[str]:
    """The tests that are used, as paths in the checkout."""
    tests = CHECKOUT / "tests"
    files = [file for file in sorted(tests.glob("unit/**/test_*.py")) if file.stem[5:] not in OTHER_TESTS]
    files += [tests / name for name in FURTHER_TESTS if (tests / name).exists()]
    return [file.relative_to(CHECKOUT).as_posix() for file in files]


def recorded(kept: Kept, files: Sequence[str]) -> dict[str, TestRun]:
    """What each test needs and executes; test files that changed are recorded again."""
    known = read(kept.runs)
    digests = {file: file_digest(file) for file in files}
    missing = [file for file, name in digests.items() if known.get(file, {}).get("digest") != name]

    def record(session: Session) -> None:
        for done, file in enumerate(missing):
            print_progress(f"recording {file} ({done + 1} of {len(missing)})")
            items = [item for name, item in session.items.items() if name.partition("::")[0] == file]
            record_in_fork(session, items, kept, file)

    if missing:
        in_session(missing, record, kept.log)
        known = read(kept.runs)
    return {
        name: TestRun(test["seconds"], test["shared"], {module: set(marks) for module, marks in test["lines"].items()})
        for file in digests
        for name, test in known.get(file, {}).get("tests", {}).items()
        if test["seconds"] + test["shared"] <= SLOW
    }


def record_in_fork(session: Session, items: list[Any], kept: Kept, file: str) -> None:
    """Record a file's tests in a process of their own, which adds them to the file of all."""
    pid = os.fork()
    if pid == 0:
        try:
            found = {
                test: {
                    "seconds": round(run.seconds, 3),
                    "shared": round(run.shared, 3),
                    "lines": {module: sorted(marks) for module, marks in run.lines.items()},
                }
                for test, run in session.record(items).items()
            }
            write(kept.runs, read(kept.runs) | {file: {"digest": file_digest(file), "tests": found}})
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


class Tries:
    """Which mutants are tried with which tests, and what came of them."""

    def __init__(self, runs: dict[str, TestRun], kept: Kept, seconds: float) -> None:
        """seconds: what the tests of one mutant may take of the processor."""
        self.runs, self.kept, self.seconds, self.results = runs, kept, seconds, read(kept.results)
        self.by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        for name, run in runs.items():
            for module, marks in run.lines.items():
                for mark in marks:
                    self.by_line[module, mark].add(name)
        #: Function -> how many of its mutants each test killed.
        self.killers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.done, self.wanted = 0, 0

    def is_to_try(self, mutant: Mutant, *, again: bool) -> bool:
        known = self.results.get(mutant.key)
        if known is None or known["function"] != function_digest(mutant):
            return True
        if known["result"] not in ("survived", "not run"):
            return known["result"] == "failed"
        is_shown_less = known["seconds"] < self.seconds and known["left_out"] > 0
        return again or is_shown_less or known["tests"] != self.tests_digest(mutant)

    def run(self, mutants: Sequence[Mutant], until: float) -> None:
        """Try them, those in functions first."""
        self.wanted = len(mutants)
        inside = [mutant for mutant in mutants if mutant.function]
        if inside:
            attempts = Attempts(inside, self.tests, self.runs, self.note, until, self.kept.log)
            files = {name.partition("::")[0] for mutant in inside for name in self.fitting(mutant)}
            in_session(sorted(files), attempts.in_session, self.kept.log)
        # What a session noted stands in the file.
        self.results = read(self.kept.results)
        odd = [mutant for mutant in inside if self.results.get(mutant.key, {}).get("result") == "failed"]
        at_import = [mutant for mutant in mutants if not mutant.function]
        self.done = len(inside) - len(odd)
        Attempts(odd + at_import, self.tests, self.runs, self.note, until, self.kept.log).one_by_one()

    def note(self, mutant: Mutant, outcome: Outcome) -> None:
        self.done += 1
        if outcome.result == "killed":
            self.killers[mutant.module, mutant.function][outcome.by] += 1
        self.results[mutant.key] = {
            "result": outcome.result,
            "by": outcome.by,
            "function": function_digest(mutant),
            "tests": self.tests_digest(mutant),
            "seconds": self.seconds,
            "left_out": len(self.fitting(mutant)) - len(self.tests(mutant)),
        }
        write(self.kept.results, self.results)
        print_progress(f"{self.done} of {self.wanted}: {outcome.result:9} {mutant.key}")

    def fitting(self, mutant: Mutant) -> set[str]:
        """The tests that execute a mutant; of code that runs at import, what executes a use of its names."""
        if mutant.function:
            marks = {mark for line in mutant.lines if (mark := mark_of(mutant.module, line)) is not None}
            return set().union(*(self.by_line.get((mutant.module, mark), ()) for mark in marks))
        found: set[str] = set()
        for module in modules_in_question():
            for line in lines_with(module, mutant.names):
                if (mark := mark_of(module, line)) is not None:
                    found |= self.by_line.get((module, mark), set())
        if not found:
            found = {name for name, run in self.runs.items() if mutant.module in run.lines}
        return found

    def tests(self, mutant: Mutant) -> list[str]:
        """The fitting tests: those that killed neighbours first, then the fastest, as many as the time allows."""
        killers = self.killers[mutant.module, mutant.function]
        order = sorted(
            self.fitting(mutant),
            key=lambda name: (-killers[name], self.runs[name].seconds + self.runs[name].shared, name),
        )
        chosen: list[str] = []
        for name in order:
            if chosen and seconds_of(self.runs, [*chosen, name]) > self.seconds:
                break
            chosen.append(name)
        return chosen

    def tests_digest(self, mutant: Mutant) -> str:
        """Changes when other tests fit, or what they do changed."""
        files = sorted({name.partition("::")[0] for name in self.fitting(mutant)})
        return digest("".join(file_digest(file) for file in files).encode())


@cache
def modules_in_question() -> list[str]:
    return sorted({file.relative_to(CHECKOUT).as_posix() for file in (CHECKOUT / "h2crop_data").rglob("*.py")})


@cache
def lines_of(module: str) -> tuple[list[str], dict[int, str]]:
    source = (CHECKOUT / module).read_text(encoding="utf-8")
    return source.splitlines(), functions_by_line(source)


def mark_of(module: str, line: int) -> int | None:
    texts, functions = lines_of(module)
    return line_mark(functions[line], texts[line - 1]) if line in functions else None


@cache
def lines_with(module: str, names: tuple[str, ...]) -> list[int]:
    texts, _ = lines_of(module)
    return [number for number, text in enumerate(texts, 1) if any(name in text for name in names)]


@cache
def states_of(module: str) -> dict[str, str]:
    """The digest of what each function of a module does."""
    states = function_states((CHECKOUT / module).read_text(encoding="utf-8"))
    return {name: digest(state.encode()) for name, state in states.items()}


def function_digest(mutant: Mutant) -> str:
    """Changes when a mutant's function, or what its module does at import, does."""
    return states_of(mutant.module)[mutant.function]


@cache
def file_digest(file: str) -> str:
    return digest((CHECKOUT / file).read_bytes())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(content, indent=0, sort_keys=True), encoding="utf-8")
    partial.replace(path)


def print_progress(text: str) -> None:
    """To where this process was started; a session's own output goes to the log."""
    os.write(PROGRESS, f"{datetime.now(UTC):%H:%M:%S} {text}\n".encode())


#: Another name of the standard error that pytest does not redirect.
PROGRESS = os.dup(2)


def page(everything: Sequence[Mutant], results: dict[str, Any], seed: int) -> str:
    """The results as a page."""
    by_key = {mutant.key: mutant for mutant in everything}
    tried = {
        key: results[key]
        for key, mutant in by_key.items()
        if key in results and results[key]["function"] == function_digest(mutant)
    }
    reasons = reasons_by_key()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for key, mutant in by_key.items():
        counts[mutant.module]["all"] += 1
        if key in tried:
            counts[mutant.module][tried[key]["result"]] += 1
            counts[mutant.module]["tried"] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    rows = [(module, count) for module, count in sorted(counts.items()) if count["tried"]]
    survivors = [by_key[key] for key, found in tried.items() if found["result"] in ("survived", "not run")]
    cannot_run = f", {total['failed']} cannot run" if total["failed"] else ""
    noticed = sum(total[result] for result in ("killed", "timed out"))
    return (
        "\n".join(
            [
                "# Mutants",
                "",
                f"Written by `make mutants` on {datetime.now(UTC):%Y-%m-%d} (seed {seed}); do not edit. Reasons stand",
                "in `tests/sweeps/surviving_mutants.toml`.",
                "",
                INTRODUCTION,
                "",
                f"**{total['tried']} of {total['all']} possible changes were tried; tests noticed {noticed}, "
                f"{len(survivors)} were not noticed{cannot_run}.**",
                "",
                "| module | possible | tried | a test fails | never ends | not noticed | never executed | cannot run |",
                "|---|---:|---:|---:|---:|---:|---:|---:|",
                *(row(f"`{module.removeprefix('h2crop_data/')}`", count) for module, count in rows),
                row("**together**", total),
                "",
                "## What was not noticed",
                "",
                *listed(survivors, tried, reasons),
            ]
        )
        + "\n"
    )


INTRODUCTION = """\
A mutant is the code with one small change: another operator, a limit or a number moved by one, a condition reversed,
a statement left out. A change that no test notices is either equivalent (the code gives the same results) or shows
what the tests do not check. Each mutant runs in memory, in a process of its own, with the fast tests that execute its
line. The modules that `tests/sweeps/mutants.py` lists under WHOLE are to be tried whole, the others by a random sample
of each package. Mutants are tried in random order, and a run that was stopped continues with the next: the table
states how many were tried so far. It leaves out modules of which none was tried; *never ends* are changes that make a
test run into the time limit, *cannot run* those that could not be put into the running module. Slow tests, which build
whole stores, are left out: whether they notice a change listed here was not tried. Texts for users and the messages of
errors are not changed.

On two cores with other work, 477 changes took 34 minutes: 4 s each, half of them 2 s or less. So the default, the
modules of WHOLE and 60 of each package, takes some two and a half hours, and all changes 13 hours (`make mutants
ARGS="--sample 20000"`). What tests execute is recorded first, once for each version of a test file: a quarter of an
hour for all."""


def row(name: str, count: Counter[str]) -> str:
    figures = (count[key] for key in ("all", "tried", "killed", "timed out", "survived", "not run", "failed"))
    return f"| {name} | {' | '.join(map(str, figures))} |"


def reasons_by_key() -> dict[str, str]:
    """Why survivors survive, by key."""
    if not WHY.exists():
        return {}
    tables = tomllib.loads(WHY.read_text(encoding="utf-8"))
    return {f"h2crop_data/{module} {name}": why for module, rows in tables.items() for name, why in rows.items()}


def listed(survivors: Iterable[Mutant], tried: dict[str, Any], reasons: dict[str, str]) -> list[str]:
    """The survivors by module, each with its reason."""
    lines = []
    by_module: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in survivors:
        by_module[mutant.module].append(mutant)
    for module, mutants in sorted(by_module.items()):
        lines += [f"### `{module.removeprefix('h2crop_data/')}`", ""]
        for mutant in sorted(mutants, key=lambda mutant: (mutant.lines[0], mutant.key)):
            left_out = tried[mutant.key]["left_out"]
            state = f"slower tests that were not run: {left_out}; " if left_out else ""
            state = state if tried[mutant.key]["result"] == "survived" else "no fast test executes it; "
            why = reasons.get(mutant.key, "not examined yet")
            where = f"{mutant.lines[0]}, {mutant.function or 'at import'}"
            lines.append(f"- {where}: {mutant.change}: {state}{why}")
        lines.append("")
    return lines


if __name__ == "__main__":
    sys.exit(main())
