"""`h2crop restore`: put a lost, damaged or older root back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from h2crop_data.cli.console import print_json, say


def restore(
    store: Annotated[str, typer.Argument(help="Folder or s3:// URL of the store.")],
    release: Annotated[
        int | None, typer.Option(help="Release whose root is restored (default: the newest); newer ones are damaged.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Restore the root of a store, if it is lost, damaged or older than the newest release, from its copy in index/."""
    from h2crop_data.maintenance.restore import restore_root

    report = restore_root(store, release)
    if as_json:
        print_json(asdict(report))
        return
    if not report.restored:
        say(f"{report.store}: the root of release {report.release} is in place; nothing was changed")
        return
    before = "lost or damaged" if report.before is None else f"that of release {report.before}"
    say(
        f"{report.store}: the root of release {report.release} is restored, it was {before}; `h2crop validate "
        f"{report.store}` checks the rest"
    )
