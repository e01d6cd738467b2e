"""What the artifacts of a run show: tables and texts of plans, gaps, failed blocks, findings, and the whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from h2crop_data.constants import SPLITS
from h2crop_data.pipeline.build import BuildReport
from h2crop_data.pipeline.engine import BlockOutcome, Workers
from h2crop_data.pipeline.estimate import estimate
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.timings import phase_in_words
from h2crop_data.validation.findings import Finding

#: For so many workers a table says hours where a cluster builds: how many it has, it says when they are called.
CLUSTERS = (1, 4, 16, 64)


def estimated_for(workers: Workers) -> tuple[int, ...]:
    """The numbers of workers to say hours for."""
    return CLUSTERS if workers.kind == "dask" else tuple(sorted({1, workers.number}))


def plan_rows(
    plans: Sequence[SeasonPlan], pending: Collection[tuple[int, int]], workers: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each figure of plans, a column for each part of a season that has blocks to build.

    pending: season and number of these blocks; all other figures are of all blocks of a part. workers: numbers of them.
    """
    columns: dict[str, dict[str, Any]] = {}
    for plan in plans:
        missing = sum((plan.season, block) in pending for block in plan.blocks["block"])
        if missing:
            summary = estimate(plan, workers)
            hours, cost = {}, {}
            for number in workers:
                found = summary.on_workers[str(number)]
                hours[f"hours of {number} worker(s) for all blocks, about"] = round(found.hours, 2)
                if found.cost is not None:
                    cost[f"cost of {number} worker(s) for all blocks, about"] = round(found.cost, 2)
            columns[plan.part] = {
                "blocks to build": f"{missing} of {len(plan.blocks)}",
                **{name.replace("_", " "): count for name, count in summary.counts.items()},
                "gigabytes of all blocks, about": round(summary.bytes / 1e9, 3),
                "gigabytes to read for all blocks, about": round(summary.bytes_to_read / 1e9, 3),
                "requests to archives for all blocks, about": summary.requests,
                "gigabytes of work and scratch folders for all blocks, at most": round(
                    (summary.work_bytes + summary.scratch_bytes) / 1e9, 3
                ),
                **hours,
                **cost,
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
        "Seasons that cannot be built yet": waiting,
        "Scenes that could not be read": report.gaps if report else [],
        "Months without a scene": [
            f"{season}: months {', '.join(map(str, empty))}" for season, empty in months.items()
        ],
        "Changed inputs of finished blocks": changes,
        "Scenes with impossible values": report.impossible if report else [],
        "Items that contradict their files": report.differences if report else [],
    }
    sections = [f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) for title, lines in parts.items() if lines]
    return "\n\n".join(sections) or "Nothing is missing."


def release_text(report: BuildReport) -> str:
    """A build in Markdown: its release, size, and where the time went."""
    total = sum(report.steps.values()) or 1.0
    steps = "\n".join(f"| {step} | {seconds:,.1f} | {seconds / total:.0%} |" for step, seconds in report.steps.items())
    phases = ", ".join(f"{phase_in_words(phase)} {seconds:,.1f} s" for phase, seconds in report.phases.items())
    slowest = "\n".join(f"- {one['what']}: {one['seconds']:,.1f} s, mostly {one['step']}" for one in report.slowest)
    return (
        f"# {report.store}, release {report.release}\n\nSeasons {', '.join(map(str, report.seasons))}: "
        f"{report.samples:,} samples, {report.bytes / 1e6:,.1f} MB; {report.built:,} blocks built by this run, "
        f"{report.already_done:,} before; {report.bytes_read / 1e6:,.1f} MB read in {report.tiles_read:,} tiles of "
        f"scenes.\n\n| step | seconds of workers | share |\n|---|---:|---:|\n{steps}\n\nElapsed time: "
        f"{phases}.\n\nThe slowest:\n\n{slowest or 'nothing was built'}\n"
    )
