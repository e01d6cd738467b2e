"""Output of the command line: progress, tables, JSON, exit codes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

#: Everything meant for people goes to standard error, so that `--json` leaves standard output to scripts.
console = Console(stderr=True, highlight=False)
#: Seconds between two plain lines where there is no terminal.
PLAIN_EVERY = 5.0


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    FAILED = 1
    WRONG_USE = 2
    GAPS = 3
    #: Of `h2crop status` alone: what a build is that is not finished.
    RUNNING = 10
    STUCK = 11
    DEAD = 12
    BUILD_FAILED = 13
    NOT_BEGUN = 14


def say(text: str) -> None:
    """A line for people, as it is: brackets are no markup, and nothing breaks it."""
    console.print(text, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """A value for scripts, on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def show_repaired(names: Sequence[str]) -> None:
    """Files of a release that were missing or damaged, and were repaired."""
    for name in names:
        console.print(f"  repaired: {name}", markup=False, soft_wrap=True)


def print_table(title: str, columns: list[str], rows: list[list[str]], texts: Collection[str] = ()) -> None:
    """A table for people; columns after the first are numbers, to the right, but for those that are `texts`."""
    # A table narrower than its title would break it.
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, min_width=len(title))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i and column not in texts else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def megabytes(size: float) -> str:
    """A size in bytes for people."""
    for unit, power in (("GB", 1e9), ("MB", 1e6)):
        if size >= power:
            return f"{size / power:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.1f} s"


@contextmanager
def progress_line(quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A function (done, total, text) that shows progress: a bar on a terminal, now and then a plain line elsewhere."""
    if quiet:
        yield lambda done, total, text: None
        return
    if not console.is_terminal:
        yield plain_progress()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


def plain_progress() -> Callable[[int, int, str], None]:
    """Lines for logs: the first, the last, and one every few seconds between."""
    last = 0.0

    def show(done: int, total: int, text: str) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= PLAIN_EVERY:
            last = time.monotonic()
            say(f"{done}/{total} {text}")

    return show
