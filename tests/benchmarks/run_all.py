"""Run every benchmark and write docs/benchmarks.md.

    python tests/benchmarks/run_all.py [--only NAME ...] [--folder DIR] [--out FILE]

A benchmark is a file bench_*.py. It runs as its own process; the first paragraph of its docstring says what it
measures, and the last line it prints is one JSON object of figures. One that fails is named in the report, the others
are still run, and the exit code is 1. With `--only`, the sections of the others stay as they are in the report.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARIES = ("numpy", "numcodecs", "zarr", "tensorstore", "xarray", "rasterio", "odc-stac", "geopandas", "torch")


@dataclass(frozen=True)
class Result:
    """What one benchmark gave."""

    name: str
    purpose: str
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    #: Why there are no figures; empty if there are.
    failure: str = ""


def main() -> int:
    """Run, write, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where the benchmarks are")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these, as `build`")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "benchmarks.md", help="the report to write")
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.resolve().glob("bench_*.py"))
    if arguments.only:
        paths = [path for path in paths if name_of(path) in arguments.only]
    if not paths:
        print(f"no bench_*.py in {arguments.folder}", file=sys.stderr)
        return 1
    kept = sections_of(arguments.out) if arguments.only else {}
    results = [run_benchmark(path) for path in paths]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(report(results, kept), encoding="utf-8")
    print(f"\nwrote {arguments.out}")
    failed = [result for result in results if result.failure]
    for result in failed:
        print(f"FAILED {result.name}: {result.failure}", file=sys.stderr)
    return 1 if failed else 0


def run_benchmark(path: Path) -> Result:
    """Run one benchmark, showing its output as it comes."""
    print(f"\n== {path.name}", flush=True)
    start = time.perf_counter()
    last = ""
    with subprocess.Popen([sys.executable, "-u", path], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    seconds = time.perf_counter() - start
    figures, failure = {}, ""
    if process.returncode:
        failure = f"exit code {process.returncode}"
    else:
        try:
            figures = parse_figures(last)
        except ValueError as error:
            failure = str(error)
    return Result(name_of(path), purpose(path), seconds, figures, failure)


def name_of(path: Path) -> str:
    """The name of a benchmark."""
    return path.stem.removeprefix("bench_")


def sections_of(report: Path) -> dict[str, list[str]]:
    """The lines of the sections of a report that was written before, by benchmark."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in report.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            lines = sections.setdefault(line.removeprefix("## "), [])
        lines.append(line)
    return {name: [*section, *([] if section[-1] == "" else [""])] for name, section in sections.items()}


def parse_figures(line: str) -> dict[str, Any]:
    """The JSON object on the last line of output; objects inside it become `outer.inner`."""
    try:
        document = json.loads(line)
    except json.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or not document:
        raise ValueError(f"the last line printed must be one JSON object of figures, not {line[:80]!r}")
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            flat[name] = value
    return flat


def purpose(path: Path) -> str:
    """The first paragraph of a module's docstring, read without running the module."""
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError:
        docstring = None  # running it says what is wrong
    return " ".join((docstring or "").split("\n\n")[0].split())


def report(results: list[Result], kept: dict[str, list[str]] | None = None) -> str:
    """The report as Markdown. kept: sections of an earlier run."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    sections = dict(kept or {}) | {result.name: section(result, today) for result in results}
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {today}; do not edit. Timings depend on the machine: "
        "read ratios, and compare only figures of one run.",
        "",
        f"Machine: {cpus()} CPU cores, {platform.system()} {platform.machine()}. {versions()}.",
        "",
    ]
    lines += [line for name in sorted(sections) for line in sections[name]]
    return "\n".join(lines).rstrip("\n") + "\n"


def section(result: Result, today: str) -> list[str]:
    """The lines of one benchmark."""
    lines = [f"## {result.name}", ""]
    if result.purpose:
        lines += [result.purpose, ""]
    if result.failure:
        return [*lines, f"**Failed after {result.seconds:.0f} s on {today}: {result.failure}**", ""]
    lines += ["| figure | value |", "|---|---:|"]
    lines += [f"| {name} | {show(value)} |" for name, value in result.figures.items()]
    return [*lines, "", f"Took {result.seconds:.0f} s on {today}.", ""]


def cpus() -> int:
    """The cores this process may use, which in a container are often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> str:
    """Python and the libraries that decide the figures."""
    named = [f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            named.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(named)


def show(value: object) -> str:
    """A figure with as many digits as mean something."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace("|", "\\|")
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
