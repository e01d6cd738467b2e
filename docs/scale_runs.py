"""The simulated builds of docs/scale.md, and their picture.

    python docs/scale_runs.py

Simulates France and Europe on 1 to 256 workers (some minutes, on two cores), writes what came of it beside the results
of benchmarks, from where docs/scale.py takes it, and draws docs/images/scale.png.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import scale_figures as figures
from scale_cases import Cluster, build
from scale_figures import EUROPE, FRANCE

PICTURE = Path(__file__).parent / "images" / "scale.png"
RUNS = figures.RESULTS / "scale-runs.json"
#: Those of both cases, on all numbers of workers; and workers where one thing is otherwise.
MAIN = ("24", "256", "none")
SOME = (1, 16, 64, 256)
#: Enough that archives limit nothing.
NO_LIMIT = 1e6
#: By name: what a cluster has otherwise than by default.
VARIANTS: dict[str, dict[str, float]] = {
    "24": {},
    "256": {"connections": figures.MOST_CONNECTIONS},
    "none": {"connections": NO_LIMIT},
    "12": {"connections": 12},
    "48": {"connections": 48},
    "128": {"connections": 128},
    "512": {"connections": 512},
    "storage half": {"connections": NO_LIMIT, "storage": figures.STORAGE / 2},
    "storage double": {"connections": NO_LIMIT, "storage": figures.STORAGE * 2},
    "scratch 20 GB": {"connections": NO_LIMIT, "scratch": 20e9},
    "scratch 50 GB": {"connections": NO_LIMIT, "scratch": 50e9},
    "scratch 100 GB": {"connections": NO_LIMIT, "scratch": 100e9},
}
#: Tasks that are simulated as one, on up to MANY_TASKS workers and on more, of which each has fewer.
BULK = {FRANCE.name: (6, 3), EUROPE.name: (48, 16)}
MANY_TASKS = 32
CASES = {case.name: case for case in (FRANCE, EUROPE)}


@dataclass(frozen=True)
class Run:
    """One simulated build."""

    case: str
    variant: str
    workers: int

    def simulate(self) -> dict[str, Any]:
        """How it went, in hours by part, with what limited it."""
        cluster = Cluster(self.workers, **VARIANTS[self.variant])
        went = build(CASES[self.case], cluster, BULK[self.case][self.workers > MANY_TASKS])
        hours = {name: round(getattr(went, name) / 3600, 4) for name in ("plan", "units", "blocks", "seal")}
        return {**asdict(self), **hours, "hours": round(went.seconds / 3600, 4), "limit": went.limit}


def runs() -> list[Run]:
    """What is simulated."""
    main = [
        Run(case, variant, workers)
        for case in CASES
        for variant in ("24", "256", "none")
        for workers in figures.WORKERS
    ]
    others = [name for name in VARIANTS if name not in ("24", "256", "none")]
    return main + [Run(FRANCE.name, variant, workers) for variant in others for workers in SOME]


def efficiency(rows: Sequence[Mapping[str, Any]], case: str, variant: str) -> dict[int, float]:
    """By workers: hours of one worker over all hours of these."""
    hours = {row["workers"]: row["hours"] for row in rows if (row["case"], row["variant"]) == (case, variant)}
    return {workers: hours[1] / spent / workers for workers, spent in sorted(hours.items())}


def workers_down_to(shares: Mapping[int, float], least: float) -> float:
    """Up to how many workers efficiency is at least so much; between two that were simulated by their logarithms."""
    before, above = 1.0, 1.0
    for workers, share in sorted(shares.items()):
        if share < least:
            return float(before * (workers / before) ** ((above - least) / (above - share)))
        before, above = workers, share
    return inf


def read_runs() -> list[dict[str, Any]]:
    """What was simulated last."""
    rows: list[dict[str, Any]] = json.loads(RUNS.read_text(encoding="utf-8"))["runs"]
    return rows


def draw(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw efficiency against workers."""
    names = {"24": "24 connections (as shipped)", "256": "256 connections (the most)", "none": "no limit of archives"}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, case in zip(axes, CASES, strict=True):
        for variant, color in zip(names, ("#b5533c", "#3c7ab5", "#4c8a4c"), strict=True):
            shares = efficiency(rows, case, variant)
            axis.plot(list(shares), list(shares.values()), "o-", color=color, label=names[variant], markersize=4)
        for least in (0.8, 0.5):
            axis.axhline(least, color="#999999", linewidth=0.8, linestyle=":")
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(figures.WORKERS), [str(workers) for workers in figures.WORKERS])
        axis.set_ylim(0, 1.05)
        axis.set_xlabel("workers")
        axis.set_title(case, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("efficiency")
    axes[0].legend(fontsize=8, frameon=False, loc="lower left")
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


def main() -> None:
    """Simulate, write, draw."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        # The longest first.
        asked = sorted(runs(), key=lambda run: (run.case != EUROPE.name, -run.workers))
        rows = sorted(
            pool.imap_unordered(Run.simulate, asked), key=lambda row: (row["case"], row["variant"], row["workers"])
        )
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    RUNS.write_text(f'{{\n "command": "python docs/scale_runs.py",\n "runs": [\n  {lines}\n ]\n}}\n', encoding="utf-8")
    draw(rows)
    print(f"wrote {RUNS} and {PICTURE}")


if __name__ == "__main__":
    main()
