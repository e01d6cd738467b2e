"""`h2crop migrate`: migrate a store from an older version of the format to the current one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from h2crop_data.cli.console import print_json, progress_line, say


def migrate(
    store: Annotated[str, typer.Argument(help="Folder or s3:// URL of the store.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a release in the current format, and repair missing statistics of blocks. Samples are not changed."""
    from h2crop_data.maintenance.migrate import migrate_store

    with progress_line(quiet=as_json) as progress:
        report = migrate_store(store, progress)
    if as_json:
        print_json(asdict(report))
        return
    if not report.release:
        say(
            f"{report.store}: statistics of {report.mended} block(s) recomputed; there is no release yet, rerun the "
            "build"
        )
        return
    say(
        f"{report.store}: format {report.before} -> {report.after}, release {report.release}; statistics of "
        f"{report.mended} block(s) recomputed"
    )
