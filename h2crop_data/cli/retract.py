"""`h2crop retract` and `h2crop prune`: exclude blocks from releases, and delete old releases."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from h2crop_data.cli.console import megabytes, print_json, say
from h2crop_data.errors import UsageError


def retract(
    store: Annotated[str, typer.Argument(help="Folder or s3:// URL of the store.")],
    reason: Annotated[str, typer.Option(help="Reason; stored permanently in the index.")],
    block: Annotated[
        list[str] | None, typer.Option(help="Block to retract, SEASON:BLOCK, such as 2022:17; may be repeated.")
    ] = None,
    scene: Annotated[
        list[str] | None, typer.Option(help="Id of a scene: retract every block made from it; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON (requires --yes).")] = False,
) -> None:
    """Exclude blocks or scenes from the next release, and make that release. Older releases keep them."""
    from h2crop_data.maintenance.retract import find_retraction, retract_from_store

    blocks = parse_blocks(block or [])
    if not blocks and not scene:
        raise UsageError("nothing to retract: give --block SEASON:BLOCK or --scene ID")
    found = find_retraction(store, blocks, scene or [])
    numbers = "; ".join(f"{season}: {', '.join(map(str, of_season))}" for season, of_season in found.blocks.items())
    say(f"{found.samples} sample(s) in block(s) {numbers} will not be in the next release of {store}")
    for season, never in found.never_built.items():
        say(
            f"block(s) {', '.join(map(str, never))} of {season} are not built and will not be built; `h2crop "
            "refresh` may plan their samples again"
        )
    if not yes and (as_json or not sys.stdin.isatty() or not typer.confirm("retract them?", err=True)):
        raise UsageError("nothing was retracted; add --yes to retract without confirmation")
    found, release = retract_from_store(store, blocks, scene or [], reason)
    if as_json:
        print_json({**asdict(found), "release": release})
        return
    say(
        f"{store}: {f'release {release} does' if release else 'the first release, not built yet, will'} not contain "
        "them"
    )


def parse_blocks(entries: list[str]) -> dict[int, list[int]]:
    """Blocks by season from `2022:17`. Raises UsageError for anything else."""
    blocks: dict[int, list[int]] = {}
    for entry in entries:
        season, _, block = entry.partition(":")
        if not (season.isdecimal() and block.isdecimal()):
            raise UsageError(f"--block {entry}: expected SEASON:BLOCK, such as 2022:17")
        blocks.setdefault(int(season), []).append(int(block))
    return blocks


def prune(
    store: Annotated[str, typer.Argument(help="Folder or s3:// URL of the store.")],
    keep: Annotated[list[int] | None, typer.Option(help="Older release to keep; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Delete all releases except the newest and those to keep, with the shards that only they need."""
    from h2crop_data.maintenance.retract import prune_store

    report = prune_store(store, keep or [])
    if as_json:
        print_json(asdict(report))
        return
    gone = ", ".join(map(str, report.releases)) or "no release"
    kept = ", ".join(map(str, report.kept))
    say(f"{store}: {gone} deleted ({report.files} files, {megabytes(report.bytes)}); kept: {kept}")
