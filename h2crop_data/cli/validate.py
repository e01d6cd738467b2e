"""`h2crop validate`: check a store; each finding states what to do."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from h2crop_data.cli.console import Exit, megabytes, print_json, progress_line, say
from h2crop_data.errors import StoreError, UsageError

if TYPE_CHECKING:
    from h2crop_data.validation.findings import Finding
    from h2crop_data.validation.validate import Validation

#: Findings of one check that are shown without `--all`.
SHOWN = 5


def validate(
    store: Annotated[str, typer.Argument(help="Folder or s3:// URL of a store.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Check everything except the pixels: minutes instead of hours.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Blocks may be missing intentionally, as in a partial download.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Blocks checked at the same time (default: one per core).")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every finding, instead of the first ones of each check.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print checks and findings as JSON.")] = False,
) -> None:
    """Check a store: files, checksums, metadata, index, places, splits, provenance, and every pixel.

    Exit codes: 0 no errors (there may be warnings), 1 errors, 2 wrong use or a store that cannot be read.
    """
    from h2crop_data.validation.validate import validate_store

    found = 0

    def count(finding: Finding) -> None:
        nonlocal found
        found += 1

    with progress_line(quiet=as_json) as progress:

        def show(done: int, total: int, text: str) -> None:
            progress(done, total, f"{text}, {found} finding(s)" if found else text)

        try:
            result = validate_store(
                store,
                mode="quick" if quick else "full",
                partial=partial,
                workers=workers,
                progress=show,
                on_finding=count,
            )
        except StoreError as error:
            # 1 says that the store has errors: what could not be looked at must not say so.
            raise UsageError(str(error)) from error
    if as_json:
        print_json(result.as_json())
    else:
        show_result(result, None if everything else SHOWN)
    if result.errors:
        raise typer.Exit(Exit.FAILED)


def show_result(result: Validation, shown: int | None) -> None:
    """The findings by check, errors first, then what was looked at."""
    for severity in ("error", "warning"):
        by_check: dict[str, list[Finding]] = defaultdict(list)
        for finding in result.findings:
            if finding.severity == severity:
                by_check[finding.check].append(finding)
        for check, findings in by_check.items():
            show_check(severity, check, findings, shown)
    if result.not_checked:
        say("not checked:")
        for what in result.not_checked:
            say(f"  {what}")
    say(summary(result))


def show_check(severity: str, check: str, findings: list[Finding], shown: int | None) -> None:
    """The findings of one check; a remedy that several have is shown once."""
    say(f"{severity}: {check} ({len(findings)})")
    listed = findings[:shown]
    for finding, after in zip(listed, [*listed[1:], None], strict=True):
        say(f"  {finding.where}: {finding.what}")
        if after is None or after.remedy != finding.remedy:
            say(f"    -> {finding.remedy}")
    if len(findings) > len(listed):
        say(f"  and {len(findings) - len(listed)} more; --all shows them")


def summary(result: Validation) -> str:
    """What was looked at, and how much was found, in a line."""
    checked = result.checked
    looked = [f"{checked.get('files', 0)} files", megabytes(checked.get("bytes", 0))]
    looked += [f"{checked[name]} {name}" for name in ("blocks", "samples", "shards", "chunks") if checked.get(name)]
    if checked.get("not_here"):
        looked.append(f"{checked['not_here']} files missing here")
    if checked.get("builder_files"):
        looked.append(f"{checked['builder_files']} files of the builder not checked")
    return (
        f"{result.store}, release {result.release}, {result.mode}: {result.errors} error(s), "
        f"{result.warnings} warning(s) in {', '.join(looked)}"
    )
