"""`h2crop build`: plan if needed, build, seal; an interrupted build is continued."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from h2crop_data.cli.console import (
    Exit,
    console,
    duration,
    megabytes,
    print_json,
    print_table,
    progress_line,
    say,
    show_repaired,
)
from h2crop_data.errors import UsageError
from h2crop_data.progress import Progress
from h2crop_data.recipe.model import Recipe, load_recipe

if TYPE_CHECKING:
    from h2crop_data.pipeline.block_run import OnBlock
    from h2crop_data.pipeline.build import BuildReport
    from h2crop_data.pipeline.engine import BlockOutcome
    from h2crop_data.pipeline.refresh import RefreshReport

#: Statements that are shown of many.
NAMED_AT_MOST = 5


def build(
    source: Annotated[str, typer.Argument(help="Recipe file, the name of a shipped one, or the folder of a plan.")],
    out: Annotated[
        str, typer.Option("--out", help="Folder or s3:// URL of the store; an unfinished store is continued.")
    ],
    season: Annotated[
        list[int] | None, typer.Option(help="Season to build instead of the recipe's; may be repeated.")
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Search again for the seasons of the store, and add new scenes and cells.")
    ] = False,
    changed: Annotated[
        Literal["report", "rebuild"],
        typer.Option(
            help=(
                "What to do with blocks whose inputs have changed: list them, or rebuild their samples (requires "
                "--extend)."
            )
        ),
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
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Folder for composites until their block is built (default: H2CROP_SCRATCH, else in the work folder)."
        ),
    ] = None,
    scratch_gb: Annotated[
        float | None,
        typer.Option(
            min=0, help="Approximate limit of the scratch folder in gigabytes (default: H2CROP_SCRATCH_GB, else 20)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Build a store from a recipe or a plan, or continue an interrupted build."""
    from h2crop_data.pipeline.build import build_store
    from h2crop_data.pipeline.engine import Workers

    given: Recipe | Path
    if names_a_folder(source):
        given = Path(source)
        if season or extend or changed == "rebuild":
            raise UsageError(
                "--season, --extend and --changed cannot be combined with a plan, which has its seasons and "
                "samples; give a recipe"
            )
    else:
        given = load_recipe(source)
        if season:
            given = given.for_seasons(season)
    with progress_line(quiet=as_json) as progress:
        report = build_store(
            given,
            out,
            extend=extend,
            changed=changed,
            workers=Workers.chosen(workers, processes, dask),
            scratch=scratch,
            scratch_bytes=None if scratch_gb is None else int(scratch_gb * 1e9),
            progress=progress,
            on_block=shown_by(progress),
        )
    if as_json:
        print_json(asdict(report))
    else:
        show_build(report)
    if report.gaps:
        raise typer.Exit(Exit.GAPS)


def shown_by(progress: Progress) -> OnBlock:
    """What shows the outcome of each block in a line of progress."""

    def show(outcome: BlockOutcome, done: int, total: int) -> None:
        failed = f", FAILED: {outcome.error}" if outcome.error else ""
        progress(done, total, f"blocks, season {outcome.season} block {outcome.block}{failed}")

    return show


def names_a_folder(source: str) -> bool:
    """Whether a source is a folder, not a file or a name."""
    try:
        return Path(source).is_dir()
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror or error}") from error


def show_build(report: BuildReport) -> None:
    """What was built and where the time went."""
    from h2crop_data.pipeline.source_facts import explain_sources

    seasons = ", ".join(map(str, report.seasons))
    say(
        f"{report.store}: release {report.release}, season {seasons}: {report.samples} samples, "
        f"{megabytes(report.bytes)}; {report.built} block(s) built, {report.already_done} already built"
    )
    if report.tiles_read:
        console.print(f"  read {megabytes(report.bytes_read)} in {report.tiles_read:,} tiles of scenes")
    show_repaired(report.repaired)
    show_time(report)
    for season, months in report.empty_months.items():
        console.print(
            f"  no Sentinel-2 scene in month {', '.join(map(str, months))} of {season}; these months stay empty"
        )
    for season, parts in report.sources.items():
        for line in dict.fromkeys(line for facts in parts.values() for line in explain_sources(facts)):
            console.print(f"  season {season}: {line}", markup=False, soft_wrap=True)
    for change in report.changes:
        console.print(f"  changed: {change}", markup=False, soft_wrap=True)
    show_faults(report)


def show_time(report: BuildReport | RefreshReport) -> None:
    """Where the time of a run went."""
    from h2crop_data.pipeline.timings import phase_in_words

    total = sum(report.steps.values())
    if total:
        rows = [[step, duration(spent), f"{spent / total:.0%}"] for step, spent in report.steps.items()]
        print_table("worker time by step", ["step", "time", "share"], rows)
    phases = ", ".join(f"{phase_in_words(phase)} {duration(spent)}" for phase, spent in report.phases.items())
    if phases:
        say(f"  elapsed time: {phases}")
    for one in report.slowest:
        say(f"  slow: {one['what']}, {duration(one['seconds'])}, mostly {one['step']}")


def show_faults(report: BuildReport | RefreshReport) -> None:
    """Scenes whose files or items are at fault in the release."""
    if report.impossible:
        named = ", ".join(report.impossible[:NAMED_AT_MOST]) + (", …" if len(report.impossible) > NAMED_AT_MOST else "")
        console.print(
            f"  {len(report.impossible)} scene(s) have clear pixels above reflectance 2 (integer overflow, "
            f"saturation, glint), which were not used: {named}",
            markup=False,
            soft_wrap=True,
        )
    if report.differences:
        scenes = len({line.partition(":")[0] for line in report.differences})
        console.print(
            f"  {scenes} item(s) contradict their files; the files were used:",
            soft_wrap=True,
        )
        for line in report.differences[:NAMED_AT_MOST]:
            console.print(f"    {line}", markup=False, soft_wrap=True)
        if len(report.differences) > NAMED_AT_MOST:
            more = len(report.differences) - NAMED_AT_MOST
            console.print(f"    and {more} more: see column s2_differences of the samples index", soft_wrap=True)
    for gap in report.gaps:
        console.print(f"  gap: {gap} could not be read and was left out", markup=False)
