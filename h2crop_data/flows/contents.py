"""What the artifacts of a run show: tables and texts of plans, gaps, failed blocks, findings, and the whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from h2crop_data.constants import SPLITS
from h2crop_data.pipeline.build import BuildReport
from h2crop_data.pipeline.engine import BlockOutcome
from h2crop_data.pipeline.estimate import estimate
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.timings import phase_in_words
from h2crop_data.validation.findings import Finding


def plan_rows(
    plans: Sequence[SeasonPlan], pending: Collection[tuple[int, int]], workers: int = 1
) -> list[dict[str, Any]]:
    """A row for each figure of what is to be built, a column for each part of a season that has blocks to build.

    pending: season and number of these blocks. workers: those of this run; hours and bytes are of all blocks of a part.
    """
    columns: dict[str, dict[str, Any]] = {}
    for plan in plans:
        missing = sum((plan.season, block) in pending for block in plan.blocks["block"])
        if missing:
            summary = estimate(plan, [workers])
            on_workers = summary.on_workers[str(workers)]
            columns[plan.part] = {
                "blocks to build": missing,
                **{name.replace("_", " "): count for name, count in summary.counts.items()},
                "gigabytes, about": round(summary.bytes / 1e9, 3),
                "gigabytes to read, about": round(summary.bytes_to_read / 1e9, 3),
                "requests to archives, about": summary.requests,
                "gigabytes of work and scratch folders, at most": round(
                    (summary.work_bytes + summary.scratch_bytes) / 1e9, 3
                ),
                "hours of one worker, about": round(summary.seconds / 3600, 2),
                **({f"hours of {workers} workers, about": round(on_workers.hours, 2)} if workers > 1 else {}),
                **({} if on_workers.cost is None else {"cost, about": round(on_workers.cost, 2)}),
                "scenes left out": sum(summary.left_out.values()),
            }
    figures = dict.fromkeys(name for column in columns.values() for name in column)
    return [{"figure": name, **{part: column.get(name, "") for part, column in columns.items()}} for name in figures]


def cells_text(samples: pd.DataFrame) -> str:
    """How many cells each split has, in Markdown."""
    cells = samples.drop_duplicates("cell")["split"].value_counts()
    rows = "\n".join(f"| {split} | {int(cells.get(split, 0)):,} |" for split in SPLITS)
    return f"North is up.\n\n| split | cells |\n|---|---:|\n{rows}"


def failed_rows(failed: Sequence[BlockOutcome]) -> list[dict[str, Any]]:
    """A row for each block that failed."""
    return [
        {
            "season": outcome.season,
            "block": outcome.block,
            "samples": outcome.samples,
            "kind": type(outcome.error).__name__,
            "error": str(outcome.error),
        }
        for outcome in failed
    ]


def finding_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """A row for each finding, errors first."""
    ordered = sorted(findings, key=lambda finding: finding.severity != "error")
    return [
        {
            "severity": finding.severity,
            "check": finding.check,
            "where": finding.where,
            "what": finding.what,
            "remedy": finding.remedy,
        }
        for finding in ordered
    ]


def gaps_text(
    report: BuildReport | None, waiting: Sequence[str], failed_seasons: Mapping[int, str], changes: Sequence[str]
) -> str:
    """What is missing and what has changed, in Markdown."""
    months = report.empty_months if report else {}
    parts = {
        "Seasons that could not be planned": [f"{season}: {error}" for season, error in failed_seasons.items()],
        "Seasons that wait": waiting,
        "Scenes that could not be read": report.gaps if report else [],
        "Months without a scene": [
            f"{season}: months {', '.join(map(str, empty))}" for season, empty in months.items()
        ],
        "Changed inputs of finished blocks": changes,
        "Scenes with impossible numbers": report.impossible if report else [],
        "Items that say something else of their files": report.differences if report else [],
    }
    sections = [f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) for title, lines in parts.items() if lines]
    return "\n\n".join(sections) or "Nothing is missing."


def release_text(report: BuildReport) -> str:
    """A build in Markdown: its release, size, and where the time went."""
    total = sum(report.steps.values()) or 1.0
    steps = "\n".join(f"| {step} | {seconds:,.1f} | {seconds / total:.0%} |" for step, seconds in report.steps.items())
    phases = ", ".join(f"{phase_in_words(phase)} {seconds:,.1f} s" for phase, seconds in report.phases.items())
    slowest = "\n".join(f"- {one['what']}: {one['seconds']:,.1f} s, most in {one['step']}" for one in report.slowest)
    return (
        f"# {report.store}, release {report.release}\n\n"
        f"Seasons {', '.join(map(str, report.seasons))}: {report.samples:,} samples, {report.bytes / 1e6:,.1f} MB; "
        f"{report.built:,} blocks built by this run, {report.already_done:,} before; "
        f"{report.bytes_read / 1e6:,.1f} MB read in {report.tiles_read:,} tiles of scenes.\n\n"
        f"| step | seconds of workers | share |\n|---|---:|---:|\n{steps}\n\n"
        f"By the clock: {phases}.\n\nThe slowest:\n\n{slowest or 'nothing was built'}\n"
    )
