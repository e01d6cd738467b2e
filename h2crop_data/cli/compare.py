"""`h2crop compare`: what differs between two stores, by array and sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from h2crop_data.cli.console import Exit, console, print_json, print_table, progress_line, say
from h2crop_data.errors import StoreError, UsageError
from h2crop_data.maintenance.compare import Choice, SeasonComparison, StoreComparison, compare_stores
from h2crop_data.maintenance.differences import ArrayDifference, Change, TableDifference
from h2crop_data.validation.findings import first

#: Places along an axis, and keys of a table, that a line names.
NAMED = 3
#: Characters of a value that a line shows.
SHOWN_VALUE = 48


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Folder or URL of store A.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Folder or URL of store B.")],
    release_a: Annotated[int | None, typer.Option(help="Release of A (default: the newest).")] = None,
    release_b: Annotated[int | None, typer.Option(help="Release of B (default: the newest).")] = None,
    season: Annotated[list[int] | None, typer.Option(help="Compare only this season; may be repeated.")] = None,
    samples: Annotated[
        list[str] | None, typer.Option(help="Compare only these samples: comma-separated ids; may be repeated.")
    ] = None,
    arrays: Annotated[
        list[str] | None, typer.Option(help="Compare the values of these arrays only: comma-separated names.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Also read arrays whose checksums are equal.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of rows in each table.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print every difference as JSON.")] = False,
) -> None:
    """Report what differs between two stores, sample by sample.

    The order of samples, blocks and compression are not compared. Exit codes: 0 the same, 1 they differ, 2 wrong use or
    a store that cannot be read.
    """
    choice = Choice(frozenset(season or ()), frozenset(listed(samples)), frozenset(listed(arrays)), full)
    try:
        with progress_line(as_json) as progress:
            found = compare_stores(a, b, choice, release_a=release_a, release_b=release_b, progress=progress)
    except StoreError as error:
        # 1 says that they differ: what could not be compared must not say so.
        raise UsageError(str(error)) from error
    if as_json:
        print_json(found.as_json())
    else:
        show_comparison(found, limit)
    raise typer.Exit(Exit.DONE if found.same else Exit.FAILED)


def listed(values: Sequence[str] | None) -> list[str]:
    """The names in options that may hold several with commas between them."""
    return [name.strip() for value in values or () for name in value.split(",") if name.strip()]


def show_comparison(found: StoreComparison, limit: int) -> None:
    """The differences for people, and at the end whether there are any."""
    say(f"A: {found.a}, release {found.release_a}")
    say(f"B: {found.b}, release {found.release_b}")
    show_changes("root attributes that differ", found.attributes, limit)
    for side, seasons in (("A", found.seasons_only_a), ("B", found.seasons_only_b)):
        if seasons:
            say(f"seasons only in {side}: {', '.join(map(str, seasons))}")
    for name, reason in found.incomparable.items():
        say(f"{name} cannot be compared: {reason}")
    for season in found.seasons:
        show_season(season, limit)
    show_changes("class names that differ", found.classes, limit)
    show_changes("statistics that differ", found.statistics, limit)
    show_changes("other layout or recipe; not counted as a difference", found.told, limit)
    compared = sum(season.samples.common for season in found.seasons)
    console.print()
    if found.same:
        say(f"the same: {compared} samples")
    else:
        say(f"they differ ({compared} samples in both)")


def show_season(season: SeasonComparison, limit: int) -> None:
    """A season that both stores have."""
    told = f"season {season.season}: {season.samples.common} samples in both"
    if season.moved:
        told += f", {season.moved} of them in another slot"
    say(f"{told}; arrays of samples read {season.read}, equal by checksum {season.unread}")
    show_table_difference("samples", season.samples, limit)
    for name, samples in season.coordinates.items():
        say(f"  coordinate {name} differs for {len(samples)} samples: {first(samples, NAMED)}")
    show_array_differences(season, limit)
    for title, table in (
        (f"parcels of {season.season}", season.parcels),
        (f"scenes of {season.season}", season.scenes),
    ):
        if table is not None:
            show_table_difference(title, table, limit)


def show_array_differences(season: SeasonComparison, limit: int) -> None:
    """The arrays that differ, all samples together and then one by one."""
    by_array: dict[str, list[ArrayDifference]] = defaultdict(list)
    for difference in season.arrays:
        by_array[difference.array].append(difference)
    if not by_array:
        return
    rows = []
    for name, differences in by_array.items():
        differing, values = (sum(getattr(one, key) for one in differences) for key in ("differing", "values"))
        largest = max((one.largest for one in differences if one.largest is not None), default=None)
        rows.append([name, str(len(differences)), str(differing), f"{differing / values:.3%}", shown(largest)])
    columns = ["array", "samples", "values", "of their values", "largest"]
    show_rows(f"arrays of {season.season} that differ", columns, rows, len(rows))
    for one in season.arrays[:limit]:
        say(f"  {one.sample} {difference_line(one)}")
    tell_left_out(len(season.arrays), limit)


def difference_line(difference: ArrayDifference) -> str:
    """The difference of one sample in one array."""
    parts = [f"{difference.differing} of {difference.values} values"]
    if difference.largest is not None:
        parts.append(f"at most {difference.largest} apart")
    for side, count in (("B", difference.only_a), ("A", difference.only_b)):
        if count:
            parts.append(f"{count} of them empty in {side}")
    parts += [f"{axis} {first(places, NAMED)}" for axis, places in difference.where.items()]
    return f"{difference.array}: {'; '.join(parts)}"


def show_table_difference(title: str, table: TableDifference, limit: int) -> None:
    """How a table of the index differs."""
    for side, keys, columns in (("A", table.only_a, table.columns_only_a), ("B", table.only_b, table.columns_only_b)):
        if keys:
            say(f"  {title}: {len(keys)} only in {side}: {first(keys, limit)}")
        if columns:
            say(f"  {title}: columns only in {side}: {', '.join(columns)}")
    rows = [[column, str(len(keys)), first(keys, NAMED)] for column, keys in table.columns.items()]
    if rows:
        show_rows(f"{title}, columns that differ", ["column", "rows", "first samples"], rows, limit)


def show_changes(title: str, found: Sequence[Change], limit: int) -> None:
    """Values that differ."""
    if found:
        show_rows(title, ["", "A", "B"], [[change.name, shown(change.a), shown(change.b)] for change in found], limit)


def show_rows(title: str, columns: list[str], rows: list[list[str]], limit: int) -> None:
    """A table with a line of air above it, and below it how many rows were left out."""
    console.print()
    say(title)
    print_table("", columns, rows[:limit])
    tell_left_out(len(rows), limit)


def tell_left_out(rows: int, limit: int) -> None:
    """How many rows were not shown."""
    if rows > limit:
        say(f"  and {rows - limit} more: --limit {rows} or --json shows all")


def shown(value: Any) -> str:
    """A value in a cell of a table."""
    text = "-" if value is None else str(value)
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}…"
