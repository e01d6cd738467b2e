"""`h2crop import-h5`: import the published H2Crop dataset into a store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from h2crop_data.cli.console import Exit, console, megabytes, print_json, progress_line, show_repaired
from h2crop_data.errors import UsageError

if TYPE_CHECKING:
    from h2crop_data.published.importing import ImportReport
    from h2crop_data.published.layout import Unlisted

UNLISTED: dict[str, Unlisted] = {"refuse": "refuse", "skip": "skip", "train": "train"}
#: Scenes a message for people names.
NAMED_SCENES = 10


def import_h5(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the dataset, with h5_data/ and data_lists/.", metavar="DIR")
    ],
    store: Annotated[str, typer.Argument(help="Store to write; an unfinished import is continued.")],
    remove_offset: Annotated[
        bool,
        typer.Option(
            "--remove-offset",
            help="Subtract the offset of 1000 from the Sentinel-2 values (default: keep and record it).",
        ),
    ] = False,
    catalog: Annotated[
        list[Path] | None,
        typer.Option(help="ItemCollection of EnMAP scenes, to place samples exactly; may be repeated."),
    ] = None,
    wavelengths: Annotated[
        Path | None, typer.Option(help="Text file with centre and width of each EnMAP band in nm, one band per line.")
    ] = None,
    lists: Annotated[
        Path | None, typer.Option(help="Folder of train.txt, val.txt and test.txt, if not in data_lists/.")
    ] = None,
    unlisted: Annotated[
        str,
        typer.Option(
            help="What to do with files that are in no list: refuse, skip, or train (append to the training list)."
        ),
    ] = "refuse",
    capacity: Annotated[int, typer.Option(min=1, help="Samples in a block.")] = 16,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Blocks imported at the same time (default: one per core, at most 4).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Import the published H2Crop dataset (HDF5 files and split lists) into a store."""
    from h2crop_data.published.importing import import_published
    from h2crop_data.published.options import ImportOptions

    if unlisted not in UNLISTED:
        raise UsageError(f"--unlisted {unlisted}: expected refuse, skip or train")
    options = ImportOptions(
        remove_offset=remove_offset,
        unlisted=UNLISTED[unlisted],
        lists=lists,
        catalogs=tuple(catalog or ()),
        wavelengths=wavelengths,
        capacity=capacity,
    )
    with progress_line(quiet=as_json) as progress:
        report = import_published(folder, store, options, workers=workers, progress=progress)
    if as_json:
        print_json(asdict(report))
    else:
        show_import(report)
    if report.not_located:
        raise typer.Exit(Exit.GAPS)


def show_import(report: ImportReport) -> None:
    """What was imported, and how exactly it is placed."""
    placed = ", ".join(f"{count} by {how}" for how, count in report.located.items())
    lines = [
        f"{report.store}: release {report.release}, season {', '.join(map(str, report.seasons))}: {report.samples} "
        f"samples, {megabytes(report.bytes)}; {report.imported} block(s) imported, {report.already_done} already "
        "imported",
        f"  placed: {placed}",
    ]
    show_repaired(report.repaired)
    if report.skipped:
        lines.append(f"  {report.skipped} file(s) in no list were left out")
    lines += [f"  not placed exactly: {scene}" for scene in report.not_located[:NAMED_SCENES]]
    if len(report.not_located) > NAMED_SCENES:
        lines.append(f"  and {len(report.not_located) - NAMED_SCENES} more scenes")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
