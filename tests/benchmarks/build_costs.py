"""What each unit of work, reading and block of a build costs: recorded for the simulation of docs/scale.py.

    python tests/benchmarks/build_costs.py [--compare] [--region FOLDER]

A simulated region of 100 cells, one Sentinel-2 date a month and two clear EnMAP passes, is built with masks of clouds,
shifts of dates and EnMAP matched with Sentinel-2, as the shipped recipe does. First every unit, reading and block runs
alone, one after the other, in one thread that nothing else helps (the libraries have one thread each): their seconds of
CPU are recorded in tests/benchmarks/results/build-costs.json, with what each waits for. With `--compare` the same plan
is then built by one worker, by two threads and by two processes into fresh stores, and the simulation is asked for the
same: the ratios say how far it can be believed. These need a quiet machine.

The last line is one JSON object:

- units, readings, blocks: how many; cpu.<step>: seconds of the blocks' steps a sample, the mean
- client_ms: of the client's time for each reading and block, to make tasks and to keep their order
- real_s.<workers>, simulated_s.<workers>, ratio.<workers>: units, readings and blocks, without planning and sealing
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2

from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.pipeline.block import BlockTask, BlockTasks
from h2crop_data.pipeline.block_run import build_blocks, by_ground, cells_in_blocks
from h2crop_data.pipeline.build import recorded_plans
from h2crop_data.pipeline.engine import Workers, build_block, run_reading
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.planning import PlannedBlocks, units_of_blocks, with_unit_results
from h2crop_data.pipeline.schedule import Schedule, WaitingParts
from h2crop_data.pipeline.units import run_units, scratch_folder, work_folder
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import Simulation
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.registry import used_sources
from h2crop_data.sources.scratch import Scratch
from h2crop_data.sources.units import Unit

REPOSITORY = Path(__file__).resolve().parents[2]
RESULT = Path(__file__).parent / "results" / "build-costs.json"
#: What each library is told before it is loaded.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS", "GDAL_NUM_THREADS"), "1"
)
SEASON = 2022
CLEAR = {"cloudiness": 0, "cirrus": 0, "haze": 0}
REGION = {
    "cells": 100,
    "sentinel2": {"dates_per_month": 1},
    "enmap": {"scenes": 2, "sky": CLEAR},
    "truth_reflectance": False,
}
BUILDS = {"one": Workers(1), "threads": Workers(2), "processes": Workers(2, "processes")}
#: What is recorded of a task, and its name in the file.
Recorded = dict[str, Any]


def simulate(folder: Path) -> None:
    """Simulate the region."""
    settings = Simulation.model_validate({"seed": 1, "seasons": [SEASON], **REGION})
    report = simulate_region(settings, folder)
    print(f"simulated {report.cells} cells, {report.bytes / 1e6:.0f} MB, in {report.seconds:.0f} s", flush=True)


def recipe_of(region: Path) -> Recipe:
    """The recipe of a region with what the shipped one does besides: EnMAP matched, and masked by its own bands."""
    recipe = load_recipe(str(region / "recipe.yaml"))
    assert recipe.enmap is not None, "the region has EnMAP"
    enmap = recipe.enmap.model_copy(update={"coregistration": "apply", "mask": "report"})
    return recipe.model_copy(update={"enmap": enmap})


def record(recipe: Recipe, store: Path) -> Recorded:
    """The costs of every unit, reading and block of a build, and what waits for what."""
    with hold_store(store) as builder:
        plan = recorded_plans(builder, recipe).plans[0]
        units = record_units(builder, plan)
        began = time.process_time()
        ready, _ = with_unit_results(
            plan, set(plan.blocks["block"]), work_folder(builder.location), workers=1, needed=set()
        )
        made = BlockTasks(ready)
        client = time.process_time() - began
        return {**record_blocks(builder, ready, made, client), "units": units}


def record_units(builder: StoreBuilder, plan: SeasonPlan) -> list[Recorded]:
    """The units that blocks of a plan use, and those they need, run one after the other."""
    blocks = list(PlannedBlocks(plan))
    asked = [
        unit for source, _ in used_sources(plan.recipe) for own in units_of_blocks(plan, source, blocks) for unit in own
    ]
    units = with_needs(asked)
    costs = {}
    for name, unit in units.items():
        began = time.process_time()
        result = run_units(work_folder(builder.location), [unit], workers=1)[name]
        if result.seconds:
            costs[name] = {
                "step": unit.step,
                "id": name[:8],
                "needs": [need.id[:8] for need in unit.needs],
                "cpu": round(time.process_time() - began, 4),
                "seconds": round(result.seconds, 4),
            }
    return list(costs.values())


def with_needs(units: list[Unit]) -> dict[str, Unit]:
    """Units by id, after those that they need."""
    found: dict[str, Unit] = {}
    for unit in units:
        if unit.id not in found:
            found |= with_needs(list(unit.needs)) | {unit.id: unit}
    return found


def record_blocks(builder: StoreBuilder, plan: SeasonPlan, made: BlockTasks, client: float) -> Recorded:
    """The readings and blocks of a plan, run one after the other as the schedule gives them.

    client: seconds of CPU that it took to make `made`; what its tasks and their order take is added.
    """
    scratch = Scratch(scratch_folder(builder.location))
    needs: dict[int, list[str]] = {}

    def tasks() -> Iterator[tuple[BlockTask, tuple[Reading, ...]]]:
        for number in by_ground(plan, plan.blocks["block"]):
            needs[number] = [reading.id[:8] for reading in made.readings(number)]
            yield made.task(number), made.readings(number)

    uses = Counter(cells_in_blocks(plan, plan.blocks["block"]))
    schedule = Schedule(tasks(), WaitingParts(uses), scratch)
    readings: list[Recorded] = []
    blocks: list[Recorded] = []
    began = time.process_time()
    for job in schedule:
        assert job is not None, "nothing runs beside"
        client += time.process_time() - began
        began, wall = time.process_time(), time.perf_counter()
        if isinstance(job, Reading):
            read = run_reading(builder.storage, scratch, job)
            assert read.error is None, read.error
            cost = {"source": job.source, "id": job.id[:8], "tiles": read.counts.tiles, "cells": len(job.cells)}
            readings.append({**cost, **spent(began, wall)})
            began = time.process_time()
            schedule.note_reading(job)
        else:
            built = build_block(builder.storage, job.with_scratch(scratch))
            assert built.error is None, built.error
            cost = {"block": job.block, "samples": job.samples, "needs": needs[job.block]}
            steps = {step: round(seconds, 4) for step, seconds in built.seconds.items()}
            blocks.append({**cost, **spent(began, wall), "steps": steps})
            began = time.process_time()
            schedule.note_block(job, built=True)
    return {"readings": readings, "blocks": blocks, "client_ms": 1000 * client / (len(readings) + len(blocks))}


def spent(began: float, wall: float) -> Recorded:
    """CPU of this process, and seconds, since."""
    return {"cpu": round(time.process_time() - began, 4), "seconds": round(time.perf_counter() - wall, 4)}


def build(recipe: Recipe, store: Path, workers: Workers) -> float:
    """Seconds to run all units, readings and blocks of a plan in a fresh store."""
    # A worker has one thread: alone it would compress with those of other cores too.
    with hold_store(store) as builder, patch("os.cpu_count", return_value=workers.number):
        # What planning computes of EnMAP's scenes is there already, as it was for the record.
        plans = recorded_plans(builder, recipe).plans
        began = time.perf_counter()
        build_blocks(builder, plans, workers)
        return time.perf_counter() - began


def simulated(costs: Recorded, workers: int) -> float:
    """Seconds that the simulation gives for the recorded tasks."""
    sys.path.append(str(REPOSITORY / "docs"))
    from scale_cases import seconds_of_recorded

    seconds: float = seconds_of_recorded(costs, workers)
    return seconds


def figures_of(costs: Recorded) -> Recorded:
    """What was recorded, in short."""
    samples = sum(block["samples"] for block in costs["blocks"])
    steps = sorted({step for block in costs["blocks"] for step in block["steps"]})
    return {
        **{name: len(costs[name]) for name in ("units", "readings", "blocks")},
        "samples": samples,
        "client_ms": round(costs["client_ms"], 3),
        "cpu": {
            step: round(sum(block["steps"].get(step, 0) for block in costs["blocks"]) / samples, 4) for step in steps
        },
    }


def compare(recipe: Recipe, folder: Path, costs: Recorded) -> Recorded:
    """Build and simulate the same; figures by kind of workers."""
    figures: Recorded = {"real_s": {}, "simulated_s": {}, "ratio": {}}
    for variant, workers in BUILDS.items():
        real = build(recipe, folder / variant, workers)
        shutil.rmtree(folder / variant)
        expected = simulated(costs, workers.number)
        for name, value in (("real_s", real), ("simulated_s", expected), ("ratio", expected / real)):
            figures[name][variant] = round(value, 3)
    return figures


def write(costs: Recorded, figures: Recorded) -> None:
    """Write what was recorded, and measured of it."""
    made = {
        "command": "python tests/benchmarks/build_costs.py",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} CPU cores, Linux x86_64",
        "figures": figures,
        **costs,
    }
    RESULT.write_text(compact(made), encoding="utf-8")
    print(f"wrote {RESULT}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--region", type=Path, help="a region simulated before; by default a new one")
    parser.add_argument("--compare", action="store_true", help="build with one and two workers too, and compare")
    arguments = parser.parse_args()
    if ONE_THREAD.items() - os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    cv2.setNumThreads(1)
    folder = Path(tempfile.mkdtemp(prefix="build-costs-"))
    try:
        region = arguments.region or folder / "region"
        if arguments.region is None:
            simulate(region)
        recipe = recipe_of(region)
        costs = record(recipe, folder / "recorded")
        shutil.rmtree(folder / "recorded")
        figures = figures_of(costs)
        write(costs, figures)
        if arguments.compare:
            figures |= compare(recipe, folder, costs)
            write(costs, figures)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(figures))


def compact(document: Recorded) -> str:
    """JSON with a line for each entry of a list."""
    parts = []
    for name, value in document.items():
        if isinstance(value, list):
            text = "[\n  " + ",\n  ".join(json.dumps(entry) for entry in value) + "\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
