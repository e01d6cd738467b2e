"""`h2crop relabel`: a new store with other labels that shares everything else."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from h2crop_data.cli.console import megabytes, print_json, progress_line, say
from h2crop_data.errors import UsageError
from h2crop_data.recipe.model import load_recipe


def relabel(
    store: Annotated[str, typer.Argument(help="Folder or s3:// URL of the store.")],
    out: Annotated[str, typer.Option("--out", help="Folder or s3:// URL of the new store.")],
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe to read the parcels by (default: classify the parcels of the plan again)."),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(help="COUNTRY=FILE: corrected crop table (CSV with columns code, hcat3); may be repeated."),
    ] = None,
    taxonomy: Annotated[
        str | None,
        typer.Option(help="Version of the crop classes (default: that of the recipe, else of the store)."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Blocks relabelled at the same time.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a new store with labels from the current taxonomy, crop tables and parcels; images are not read again."""
    from h2crop_data.maintenance.relabel import relabel_store

    tables = {}
    for entry in table or []:
        country, _, file = entry.partition("=")
        if not file or not Path(file).is_file():
            raise UsageError(f"--table {entry}: expected COUNTRY=FILE with an existing file, such as fr=corrected.csv")
        tables[country] = Path(file)
    chosen = load_recipe(recipe) if recipe else None
    with progress_line(quiet=as_json) as progress:
        report = relabel_store(
            store, out, recipe=chosen, tables=tables, taxonomy=taxonomy, workers=workers, progress=progress
        )
    if as_json:
        print_json(asdict(report))
        return
    say(
        f"{report.store}: release {report.release}, {report.samples} samples; labels of {report.redone} block(s) "
        f"written ({megabytes(report.bytes)}), {report.shared} shared unchanged, {report.already_done} already done"
    )
