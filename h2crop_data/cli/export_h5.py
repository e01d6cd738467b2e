"""`h2crop export-h5`: a store in the layout of the published H2Crop dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from h2crop_data.cli.console import Exit, console, megabytes, print_json, progress_line

if TYPE_CHECKING:
    from h2crop_data.published.exporting import ExportReport


def export_h5(
    store: Annotated[str, typer.Argument(help="Folder, http(s) or s3 URL of the store.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; an unfinished export is continued.", metavar="DIR")],
    season: Annotated[list[int] | None, typer.Option(help="Seasons (default: all); may be repeated.")] = None,
    split: Annotated[str | None, typer.Option(help="Export one split only: train, val or test.")] = None,
    published_offset: Annotated[
        bool,
        typer.Option(
            "--published-offset", help="Add the offset of 1000 to the Sentinel-2 values, as in the published files."
        ),
    ] = False,
    months: Annotated[
        int,
        typer.Option(
            min=1,
            max=12,
            help="Export the first N months of Sentinel-2 only, and leave out samples whose EnMAP scene is later.",
            metavar="N",
        ),
    ] = 12,
    release: Annotated[int | None, typer.Option(min=1, help="Release to export (default: the current one).")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Samples exported at the same time (default: one per core).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export a store as HDF5 files and split lists that the published H2Crop code trains on."""
    from h2crop_data.published.exporting import ExportOptions, export_published

    options = ExportOptions(tuple(season or ()), split, published_offset, release, months)
    with progress_line(quiet=as_json) as progress:
        report = export_published(store, folder, options, workers=workers, progress=progress)
    if as_json:
        print_json(asdict(report))
    else:
        show_export(report)
    if not report.normalisation:
        raise typer.Exit(Exit.GAPS)


def show_export(report: ExportReport) -> None:
    """The summary of an export, with what training with the published code requires."""
    lists = ", ".join(f"{split} {count}" for split, count in report.lists.items())
    lines = [
        f"{report.folder}: release {report.release}: {report.samples} samples ({lists}), {megabytes(report.bytes)}; "
        f"{report.exported} exported, {report.already_done} already exported",
        f"  arrays: {', '.join(report.arrays)}",
    ]
    if report.left_out:
        lines.append(f"  {report.left_out} sample(s) left out: their EnMAP scene is later than month {report.months}")
    if report.normalisation:
        lines.append(
            f"  mean and standard deviation for the published configuration: {', '.join(report.normalisation)}"
        )
    else:
        lines.append("  no mean and standard deviation: the store has no training split")
    single = [split for split, count in report.lists.items() if count == 1]
    if single:
        lines.append(f"  the published loader cannot read a list with a single id: {', '.join(single)}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
