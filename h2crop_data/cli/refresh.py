"""`h2crop refresh`: keep a store up to date: search for what is new, and build only that."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from h2crop_data.cli.build import show_faults, show_time, shown_by
from h2crop_data.cli.console import Exit, print_json, progress_line, say
from h2crop_data.recipe.model import load_recipe

if TYPE_CHECKING:
    from h2crop_data.pipeline.refresh import RefreshReport


def refresh(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped one.")],
    out: Annotated[str, typer.Option("--out", help="Folder or s3:// URL of the store; created if it does not exist.")],
    changed: Annotated[
        Literal["report", "rebuild"],
        typer.Option(help="What to do with blocks whose inputs have changed: list them, or rebuild their samples."),
    ] = "report",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Blocks built at the same time (default: H2CROP_WORKERS, else one per core)."),
    ] = None,
    processes: Annotated[bool, typer.Option("--processes", help="Use worker processes instead of threads.")] = False,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask", help="Address of a Dask scheduler (tcp://host:port) whose workers build (default: H2CROP_DASK)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Add scenes, seasons and parcels that are new since the last run; do nothing if nothing is new."""
    from h2crop_data.pipeline.engine import Workers
    from h2crop_data.pipeline.refresh import FailedSeasonsError, refresh_store

    chosen = load_recipe(recipe)
    with progress_line(quiet=as_json) as progress:
        error = None
        try:
            report = refresh_store(
                chosen,
                out,
                changed=changed,
                workers=Workers.chosen(workers, processes, dask),
                progress=progress,
                on_block=shown_by(progress),
            )
        except FailedSeasonsError as failed:
            report, error = failed.report, failed
    if as_json:
        print_json(asdict(report))
    else:
        show_refresh(report)
    if error is not None:
        raise error
    if report.gaps and not report.nothing_new:
        raise typer.Exit(Exit.GAPS)


def show_refresh(report: RefreshReport) -> None:
    """What is new, what changed and what waits."""
    if report.nothing_new:
        release = f"release {report.release} is unchanged" if report.release else "there is no release yet"
        say(f"{report.store}: nothing new; {release}")
    else:
        seasons = sorted({*report.new_samples, *report.rebuilt})
        parts = [
            f"season {season}: {report.new_samples.get(season, 0)} new sample(s), "
            f"{len(report.rebuilt.get(season, []))} block(s) rebuilt"
            for season in seasons
        ]
        say("; ".join([f"{report.store}: release {report.release}", *parts, f"{report.built} block(s) built"]))
    if report.built:
        show_time(report)
    for line in report.changes:
        say(f"  changed: {line}")
    for line in report.waiting:
        say(f"  waiting: {line}")
    show_faults(report)
