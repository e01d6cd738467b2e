"""Building a store from local files: planning, threads against processes, memory, and time by step.

    python tests/benchmarks/bench_build.py [--workers 2] [--repeats 3] [--folder DIR]

A simulated region of 16 cells of 1920 m, two Sentinel-2 dates a month, two EnMAP passes, is planned once and built
again and again: in one thread, in threads, in processes, in turns, each into a fresh store by a process of its own. A
rate is that of the median build, sealing included, with the files in the page cache. Processes take a while to start,
which a region of many blocks does not feel; it is measured alone, and taken out for the second of the two ratios.

The last line is one JSON object:

- samples_per_minute: of the better kind of workers, named by `kind`; samples_per_minute_{threads,processes}
- processes_vs_threads: rate of processes / rate of threads; processes_vs_threads_started: without starting them
- threads_vs_one: rate of threads / rate of one thread (what Python's lock leaves of `workers`)
- start_seconds: until processes are ready to work; plan_seconds: search, choose, pin and save
- mb_per_s: raw bytes of arrays a second, of the better kind
- peak_mb: resident memory of the builder and its workers together, of the better kind; peak_mb_{threads,processes}
- samples, blocks; share.<step>: of the workers' time, with one thread, so that no step waits for another
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench_simulate import SEASON, run_watched

from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import WorkerKind, Workers, open_pool
from h2crop_data.pipeline.plan import save_plan
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import load_recipe
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import Simulation

CELLS = 16
#: Every cell of a clear pass is a sample.
CLEAR = {"cloudiness": 0, "cirrus": 0, "haze": 0}
REGION = {
    "cells": CELLS,
    "sentinel2": {"dates_per_month": 2},
    "enmap": {"scenes": 2, "sky": CLEAR},
    "truth_reflectance": False,
}
#: Kind of workers, and whether there is only one.
VARIANTS: dict[str, tuple[WorkerKind, bool]] = {
    "one": ("threads", True),
    "threads": ("threads", False),
    "processes": ("processes", False),
}


def seconds_to_start(workers: int) -> float:
    """How long processes take until all of them can work."""
    start = time.perf_counter()
    with open_pool(Workers(workers, "processes"), "nowhere") as pool:
        wait([pool.executor.submit(time.sleep, 0.05) for _ in range(2 * workers)])
        return time.perf_counter() - start


def plan(folder: Path) -> dict[str, Any]:
    """Plan the region of a folder; what the plan holds, and the seconds it took."""
    start = time.perf_counter()
    made = make_plan(load_recipe(str(folder / "region" / "recipe.yaml")), SEASON)
    save_plan(made, folder / "plan")
    seconds = time.perf_counter() - start
    arrays = made.layout.arrays().values()
    return {
        "seconds": seconds,
        "samples": len(made.samples),
        "blocks": len(made.blocks),
        "raw_mb": sum(math.prod(spec.sample_shape) * spec.dtype.itemsize for spec in arrays) * len(made.samples) / 1e6,
    }


def build(folder: Path, variant: str, workers: int) -> dict[str, Any]:
    """Build the planned region into a fresh store; the report, with the seconds in all."""
    kind, alone = VARIANTS[variant]
    start = time.perf_counter()
    report = build_store(folder / "plan", folder / variant, workers=Workers(1 if alone else workers, kind))
    return {**asdict(report), "wall": time.perf_counter() - start}


def in_own_process(folder: Path, step: str, workers: int) -> dict[str, Any]:
    """What a step prints, with its `peak_mb`."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--workers", str(workers)]
    printed, peak = run_watched(command)
    return {**printed, "peak_mb": peak}


def build_in_turns(folder: Path, workers: int, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """The reports of every build by variant; stores are removed."""
    builds: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    for _ in range(repeats):
        for variant, done in builds.items():
            done.append(in_own_process(folder, variant, workers))
            shutil.rmtree(folder / variant)
    return builds


def prepare(folder: Path) -> None:
    """Simulate the region, and read its products once so that they are in the page cache."""
    start = time.perf_counter()
    settings = Simulation.model_validate({"seed": 1, "seasons": [SEASON], **REGION})
    report = simulate_region(settings, folder / "region")
    print(f"simulated {CELLS} cells, {report.bytes / 1e6:.0f} MB, in {time.perf_counter() - start:.0f} s")
    for path in (folder / "region" / "products").rglob("*.*"):
        path.read_bytes()


def told(planned: dict[str, Any], builds: dict[str, list[dict[str, Any]]]) -> None:
    """Print what was measured."""
    print(
        f"planned {planned['samples']} samples in {planned['blocks']} blocks, {planned['raw_mb']:.0f} MB raw, in "
        f"{planned['seconds']:.1f} s"
    )
    for variant, done in builds.items():
        walls = [one["wall"] for one in done]
        work = statistics.median(sum(one["seconds"].values()) for one in done)
        print(
            f"{variant:10s}{statistics.median(walls):6.2f} s ({min(walls):.2f} to {max(walls):.2f}), workers' time "
            f"{work:.2f} s, peak {max(one['peak_mb'] for one in done):.0f} MB"
        )
        steps = {step: statistics.median(one["seconds"][step] for one in done) for step in done[0]["seconds"]}
        for step, spent in sorted(steps.items(), key=lambda item: -item[1]):
            print(f"    {step:20s}{spent:6.2f} s")


def figures_of(
    planned: dict[str, Any], builds: dict[str, list[dict[str, Any]]], start_seconds: float
) -> dict[str, Any]:
    """Every figure of this benchmark."""
    wall = {variant: statistics.median(one["wall"] for one in done) for variant, done in builds.items()}
    peak = {variant: max(one["peak_mb"] for one in done) for variant, done in builds.items()}
    kind = min(("threads", "processes"), key=wall.__getitem__)
    alone = sorted(builds["one"], key=lambda one: one["wall"])[len(builds["one"]) // 2]["seconds"]
    return {
        "samples_per_minute": 60 * planned["samples"] / wall[kind],
        "kind": kind,
        **{f"samples_per_minute_{one}": 60 * planned["samples"] / wall[one] for one in ("threads", "processes")},
        "processes_vs_threads": wall["threads"] / wall["processes"],
        "processes_vs_threads_started": wall["threads"] / (wall["processes"] - start_seconds),
        "threads_vs_one": wall["one"] / wall["threads"],
        "start_seconds": start_seconds,
        "plan_seconds": planned["seconds"],
        "mb_per_s": planned["raw_mb"] / wall[kind],
        "peak_mb": peak[kind],
        **{f"peak_mb_{one}": peak[one] for one in ("threads", "processes")},
        "samples": planned["samples"],
        "blocks": planned["blocks"],
        "share": {
            step: round(spent / sum(alone.values()), 3)
            for step, spent in sorted(alone.items(), key=lambda item: -item[1])
        },
    }


def measure(folder: Path, workers: int, repeats: int) -> dict[str, Any]:
    """Simulate, plan and build."""
    prepare(folder)
    planned = in_own_process(folder, "plan", workers)
    builds = build_in_turns(folder, workers, repeats)
    start_seconds = statistics.median(in_own_process(folder, "start", workers)["seconds"] for _ in range(3))
    told(planned, builds)
    print(f"processes start in {start_seconds:.2f} s")
    return figures_of(planned, builds, start_seconds)


def step(folder: Path, name: str, workers: int) -> dict[str, Any]:
    """One step of the measurement."""
    if name == "plan":
        return plan(folder)
    if name == "start":
        return {"seconds": seconds_to_start(workers)}
    return build(folder, name, workers)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--step", choices=["plan", "start", *VARIANTS], help="only one step, in a folder prepared")
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(step(arguments.folder, arguments.step, arguments.workers)))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-build-", dir=arguments.folder))
    try:
        figures = measure(folder, arguments.workers, arguments.repeats)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}))


if __name__ == "__main__":
    main()
