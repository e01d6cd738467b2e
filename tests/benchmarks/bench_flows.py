"""Overhead of Prefect and Dask for tiny blocks, and the gain from a second worker for blocks of real size.

    python tests/benchmarks/bench_flows.py [--full] [--only flow|dask|workers] [--repeats 3] [--folder DIR]

A region of cells of 60 m is built into stores of one sample a block, so that next to nothing is computed: 480 blocks,
or 10,000 with `--full`. Some lie under a scene whose file is damaged, and fail.

- The flow `h2crop-build` builds them on a Prefect server of its own (SQLite, on this machine), in batches; meanwhile
  the server's API is asked from outside for runs, their tasks and their log.
- The same blocks are built by the engine with worker processes of this machine, and with as many workers of a Dask
  cluster (scheduler and workers are processes that speak over TCP), in turns; the first batch is not counted: in it
  processes start.
- A region like that of bench_build, over two processing tiles and with a block for each sample, is built by one and by
  two workers, threads and processes, in turns: first the units of work, which threads of the builder run, then readings
  and blocks. A worker has one thread: GDAL, BLAS, Blosc, OpenCV, LightGBM and ONNX are told so. CPU is that of all
  processes, user and system. Two busy loops on a core each, against one alone, say what a second core of this machine
  is worth.

Wall figures need a quiet machine; CPU figures bear some company.

The last line is one JSON object (bounds in brackets):

- ms_per_batch: from the end of a batch in the engine to the beginning of the next, median (at most 20);
  ms_per_batch_mean
- api_p95_s: answers of the server's API while the flow ran (at most 1); api_max_s, api_asked
- failed, failed_listed: blocks that could not be built; of these, those with a line of their own in the run's log
- dask_overhead_ms_per_block: wall on Dask less wall of processes, a block (at most 10); cpu_dask_overhead_ms_per_block
- cpu_2_workers_vs_1: CPU a block of two threads over that of one (at most 1.1); cpu_2_processes_vs_1: of processes,
  without their start, which takes process_start_cpu_s each; cpu_2_workers_vs_1_units: of units
- speedup_2_workers: wall of one worker over that of two, of the better kind (at least 1.6), which is `kind`, for units,
  readings and blocks together; speedup_2_threads, speedup_2_processes (the start counts): for readings and blocks
  alone; speedup_2_processes_started: without the start; speedup_2_workers_units: for units, of which tiles can be
  worked on at a time, here two
- second_core: work of two busy loops over that of one; the most that any build can gain
- blocks, batches, real_blocks; wall_s, cpu_s, wall_units_s, cpu_units_s: of each variant
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import runpy
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import bench_build
import cv2
import numpy as np
import yaml
from bench_simulate import SEASON, family

from h2crop_data.cube.writer import hold_store
from h2crop_data.grid import TILE_SIZE
from h2crop_data.pipeline.block_run import BlockRun
from h2crop_data.pipeline.build import recorded_plans
from h2crop_data.pipeline.engine import Workers
from h2crop_data.recipe.model import load_recipe
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import PlaceSettings, Simulation

sys.path.append(str(Path(__file__).resolve().parents[1] / "makers"))
from dask_cluster import dask_cluster
from tiny_region import EPSG, NORTH, SOUTH, WEST, TinyRegion

REPOSITORY = Path(__file__).resolve().parents[2]
#: What each library is told before it is loaded, in processes that are started.
ONE_THREAD = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
        *("GDAL_NUM_THREADS", "BLOSC_NTHREADS", "OPENCV_FOR_THREADS_NUM"),
    ),
    "1",
)
CELL, ROWS = 60, 8
BLOCKS, FULL_BLOCKS = 480, 10_000
#: Columns of cells under the damaged scene.
DAMAGED = 3
#: Blocks of a batch: of the flow, as many small ones; the flow's default is 64 or more.
BATCH = 16
WORKERS = 2
#: Of blocks of real size: a square of so many columns of cells, metres.
COLUMNS, CELL_SIZE = 4, 1920
#: Seconds between two questions to the server, and until it is given up.
ASK_EVERY, START_WITHIN = 0.1, 180.0
VARIANTS = {"one": Workers(1), "threads": Workers(WORKERS), "processes": Workers(WORKERS, "processes")}
#: Figure -> what it must be at most, or at least.
AT_MOST = {"ms_per_batch": 20, "api_p95_s": 1, "dask_overhead_ms_per_block": 10, "cpu_2_workers_vs_1": 1.1}
AT_LEAST = {"speedup_2_workers": 1.6}
Figures = dict[str, Any]


def make_region(folder: Path, blocks: int, damaged: bool) -> Path:
    """A region of so many cells, a block each, eight in a column; gives its recipe. damaged: some cannot be built."""
    columns = -(-blocks // ROWS)
    east = WEST + columns * CELL
    folder.mkdir(parents=True)
    region = TinyRegion(folder)
    region.add_sentinel2("whole", "2022-07-01T10:50:00Z", east=east + 60)
    if damaged:
        lost = region.add_sentinel2("damaged", "2022-07-11T10:50:00Z", east=WEST + DAMAGED * CELL)
        (lost / "blue.tif").write_bytes((lost / "blue.tif").read_bytes()[:300])
    region.write_parcels(2022, [((WEST, SOUTH, east, NORTH), "BTH")])
    region.recipe(
        area={"bbox": [WEST, SOUTH, east, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"},
        cell_size=CELL,
        store={"block_capacity": 1},
    )
    return folder / "recipe.yaml"


# The flow


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """A Prefect server on SQLite; gives the address of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(folder), "PREFECT_API_URL": api, "PREFECT_SERVER_ANALYTICS_ENABLED": "0"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    folder.mkdir(parents=True)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + START_WITHIN
        while not answers(f"{api}/health"):
            if time.monotonic() > end or server.poll() is not None:
                raise RuntimeError(f"no Prefect server: {(folder / 'server.log').read_text(errors='replace')[-2000:]}")
            time.sleep(0.5)
        yield api
    finally:
        # The server's own processes too.
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def answers(url: str) -> bool:
    """Whether something answers."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def ask(api: str, what: str, question: dict[str, Any]) -> Any:
    """Ask the API of a server."""
    request = urllib.request.Request(
        f"{api}/{what}", json.dumps(question).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


class Asker(threading.Thread):
    """Asks a server what its page shows, again and again, and notes how long each answer takes."""

    QUESTIONS = (
        ("flow_runs/filter", {"limit": 20, "sort": "START_TIME_DESC"}),
        ("task_runs/count", {}),
        ("task_runs/filter", {"limit": 200, "sort": "EXPECTED_START_TIME_DESC"}),
        ("logs/filter", {"limit": 200, "sort": "TIMESTAMP_DESC"}),
        ("artifacts/latest/filter", {"limit": 20}),
    )

    def __init__(self, api: str) -> None:
        super().__init__(daemon=True)
        self.api, self.seconds, self.ended = api, list[float](), threading.Event()

    def run(self) -> None:
        """Ask until told to end."""
        while not self.ended.wait(ASK_EVERY):
            for what, question in self.QUESTIONS:
                began = time.perf_counter()
                ask(self.api, what, question)
                self.seconds.append(time.perf_counter() - began)


def measure_flow(folder: Path, blocks: int) -> Figures:
    """Build by the flow while the API is asked."""
    recipe = make_region(folder / "region", blocks, damaged=True)
    with prefect_server(folder / "prefect") as api:
        asker = Asker(api)
        asker.start()
        command = [sys.executable, __file__, "--step", "flow", "--folder", str(folder), "--recipe", str(recipe)]
        environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": api}
        with (folder / "flow.log").open("wb") as log:
            subprocess.run(command, env=environment, stderr=log, stdout=log, check=False)
        asker.ended.set()
        asker.join(60)
        lines = all_lines(api)
    if not (folder / "flow.json").exists():
        raise RuntimeError(f"the flow did not run: {(folder / 'flow.log').read_text(errors='replace')[-3000:]}")
    run = json.loads((folder / "flow.json").read_text(encoding="utf-8"))
    gaps = [1000 * (begin - end) for (_, end), (begin, _) in pairwise(run["batches"])]
    failed = [f"season {season} block {block}:" for season, block in run["failed"]]
    listed = [name for name in failed if any("not built" in line and name in line for line in lines)]
    seconds = sorted(asker.seconds)
    return {
        "ms_per_batch": statistics.median(gaps),
        "ms_per_batch_mean": statistics.mean(gaps),
        "ms_per_batch_max": max(gaps),
        "api_p95_s": seconds[int(0.95 * len(seconds))],
        "api_max_s": seconds[-1],
        "api_asked": len(seconds),
        "failed": len(failed),
        "failed_expected": DAMAGED * ROWS,
        "failed_listed": len(listed),
        "batches": len(run["batches"]),
        "flow_s": run["batches"][-1][1] - run["batches"][0][0],
    }


def all_lines(api: str) -> list[str]:
    """All lines of all logs; those of the last seconds may still be on their way."""
    lines: list[str] = []
    for _ in range(30):
        found: list[str] = []
        while page := ask(api, "logs/filter", {"limit": 200, "offset": len(found), "sort": "TIMESTAMP_ASC"}):
            found += [line["message"] for line in page]
        if len(found) == len(lines):
            return found
        lines = found
        time.sleep(1)
    return lines


def run_flow(folder: Path, recipe: Path) -> None:
    """Run the flow in this process; writes when each batch began and ended, and what failed."""
    build_dataset = runpy.run_path(str(REPOSITORY / "flows" / "build.py"))["build_dataset"]
    build = BlockRun.build
    batches: list[tuple[float, float]] = []
    failed: list[tuple[int, int]] = []

    def timed(run: BlockRun, *arguments: Any) -> Any:
        began = time.perf_counter()
        outcomes = build(run, *arguments)
        batches.append((began, time.perf_counter()))
        failed.extend((one.season, one.block) for one in outcomes if one.error is not None)
        return outcomes

    with patch.object(BlockRun, "build", timed):
        build_dataset(
            str(recipe),
            str(folder / "flow-store"),
            workers=WORKERS,
            batch=BATCH,
            retry_seconds=[],
            check="none",
            return_state=True,
        )
    (folder / "flow.json").write_text(json.dumps({"batches": batches, "failed": failed}), encoding="utf-8")


# Dask


def measure_dask(folder: Path, blocks: int, repeats: int) -> Figures:
    """Build on this machine and on Dask, in turns."""
    recipe = make_region(folder / "region", blocks, damaged=False)
    spent: dict[str, list[tuple[float, float]]] = {"processes": [], "dask": []}
    with dask_cluster(folder / "dask", WORKERS, ONE_THREAD) as cluster:
        pids = [node.process.pid for node in cluster.nodes]
        for turn in range(repeats):
            for kind, of_kind in spent.items():
                workers = Workers(WORKERS, "dask", cluster.address) if kind == "dask" else Workers(WORKERS, "processes")
                of_kind.append(seconds_a_block(recipe, folder / f"{kind}-{turn}", workers, pids))
                shutil.rmtree(folder / f"{kind}-{turn}")
    wall, cpu = (
        {kind: 1000 * statistics.median(one[place] for one in of_kind) for kind, of_kind in spent.items()}
        for place in (0, 1)
    )
    return {
        "dask_overhead_ms_per_block": wall["dask"] - wall["processes"],
        "cpu_dask_overhead_ms_per_block": cpu["dask"] - cpu["processes"],
        "ms_per_block": wall,
        "cpu_ms_per_block": cpu,
    }


def seconds_a_block(recipe: Path, store: Path, workers: Workers, others: Sequence[int]) -> tuple[float, float]:
    """Wall and CPU a block, of all batches but the first. others: processes that belong to it, beside children."""
    with hold_store(store) as builder:
        plans = recorded_plans(builder, load_recipe(recipe)).plans
        with BlockRun(builder, plans, workers) as run:
            first, *rest = run.batches(max(BATCH, run.missing // 8))
            run.build(first)
            pids = {*family(os.getpid()), *others}
            began, busy = time.perf_counter(), sum(map(cpu_of, pids))
            for batch in rest:
                run.build(batch)
            wall, used = time.perf_counter() - began, sum(map(cpu_of, pids)) - busy
            run.finish()
    blocks = sum(map(len, rest))
    return wall / blocks, used / blocks


def cpu_of(pid: int) -> float:
    """Seconds of CPU of a process that runs."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Workers


def measure_workers(folder: Path, repeats: int) -> Figures:
    """Build blocks of real size by one worker and by two, in turns."""
    prepare_real(folder)
    in_own_process(folder, "plan")
    spent: dict[str, list[Figures]] = {variant: [] for variant in VARIANTS}
    for _ in range(repeats):
        for variant, of_variant in spent.items():
            of_variant.append(in_own_process(folder, variant))
    wall, cpu, blocks, units_wall, units_cpu = (
        {variant: statistics.median(one[name] for one in of_variant) for variant, of_variant in spent.items()}
        for name in ("wall", "cpu", "blocks", "units_wall", "units_cpu")
    )
    start = in_own_process(folder, "start")
    started = wall["processes"] - start["wall"]
    whole = {variant: wall[variant] + units_wall[variant] for variant in VARIANTS}
    kind = min(("threads", "processes"), key=whole.__getitem__)
    return {
        "cpu_2_workers_vs_1": cpu["threads"] / cpu["one"],
        "cpu_2_processes_vs_1": (cpu["processes"] - start["cpu"]) / cpu["one"],
        "cpu_2_workers_vs_1_units": units_cpu["threads"] / units_cpu["one"],
        "process_start_cpu_s": start["cpu"] / WORKERS,
        "speedup_2_workers": whole["one"] / whole[kind],
        "kind": kind,
        "speedup_2_threads": wall["one"] / wall["threads"],
        "speedup_2_processes": wall["one"] / wall["processes"],
        "speedup_2_processes_started": wall["one"] / started,
        "speedup_2_workers_units": units_wall["one"] / units_wall["threads"],
        "second_core": second_core(),
        "wall_s": wall,
        "cpu_s": cpu,
        "wall_units_s": units_wall,
        "cpu_units_s": units_cpu,
        "real_blocks": blocks["one"],
    }


def in_own_process(folder: Path, step: str) -> Figures:
    """What a step prints."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: Figures = json.loads(printed.splitlines()[-1])
    return figures


def prepare_real(folder: Path) -> None:
    """Simulate the region, whose middle is the edge of two processing tiles, with a block for each sample."""
    west = TILE_SIZE * (PlaceSettings().west // TILE_SIZE) - CELL_SIZE * COLUMNS // 2
    settings = {"seed": 1, "seasons": [SEASON], **bench_build.REGION, "cells": COLUMNS**2, "place": {"west": west}}
    simulate_region(Simulation.model_validate(settings), folder / "region")
    recipe = folder / "region" / "recipe.yaml"
    described = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    described.setdefault("store", {})["block_capacity"] = 1
    recipe.write_text(yaml.safe_dump(described), encoding="utf-8")
    for path in (folder / "region" / "products").rglob("*.*"):
        path.read_bytes()


def build_real(folder: Path, variant: str) -> Figures:
    """Units, then readings and blocks of the planned region, in a fresh store: wall and CPU of each, and blocks."""
    workers, store = VARIANTS[variant], folder / variant
    # One worker alone would compress with the threads of all cores.
    with hold_store(store) as builder, patch("os.cpu_count", return_value=workers.number):
        plans = recorded_plans(builder, folder / "plan").plans
        with BlockRun(builder, plans, workers) as run:
            times = [(time.perf_counter(), cpu_of_family())]
            run.run_units()
            times.append((time.perf_counter(), cpu_of_family()))
            for batch in run.batches(run.missing):
                run.build(batch)
            times.append((time.perf_counter(), cpu_of_family()))
            built = run.finish().built
    shutil.rmtree(store)
    (units_wall, units_cpu), (wall, cpu) = (
        (end - begin, busy_end - busy) for (begin, busy), (end, busy_end) in pairwise(times)
    )
    return {"wall": wall, "cpu": cpu, "units_wall": units_wall, "units_cpu": units_cpu, "blocks": built}


def cpu_of_family() -> float:
    """CPU of this process and of its children that run."""
    return sum(map(cpu_of, family(os.getpid())))


def start_processes() -> Figures:
    """What it takes until processes can work, and end again."""
    began, busy = time.perf_counter(), cpu_here()
    bench_build.seconds_to_start(WORKERS)
    return {"wall": time.perf_counter() - began, "cpu": cpu_here() - busy}


def cpu_here() -> float:
    """CPU of this process and of children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def second_core() -> float:
    """What two busy loops do on two cores over what one does: 2 where the cores share nothing."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        return 1.0
    alone = statistics.median(loops([cores[0]]) for _ in range(3))
    return statistics.median(loops(cores) for _ in range(3)) / alone


def loops(cores: Sequence[int]) -> float:
    """How often processes, one on each core, add up in three seconds together."""
    code = (
        "import os, sys, time; import numpy as np; os.sched_setaffinity(0, {int(sys.argv[1])})\n"
        "a = np.ones((300, 300)); n = 0; input(); end = time.monotonic() + 3\n"
        "while time.monotonic() < end: a = np.sqrt(a * 1.1 + 0.3); n += 1\n"
        "print(n)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for core in cores
    ]
    time.sleep(1)  # until all have loaded
    for one in running:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    return float(sum(int(one.communicate()[0]) for one in running))


def measure(folder: Path, only: Sequence[str], blocks: int, repeats: int) -> Figures:
    """All figures."""
    figures: Figures = {"blocks": blocks}
    if "flow" in only:
        figures |= measure_flow(folder / "flow", blocks)
        print(f"flow: {figures}", flush=True)
    if "dask" in only:
        figures |= measure_dask(folder / "dask", blocks, repeats)
        print(f"dask: {figures}", flush=True)
    if "workers" in only:
        (folder / "workers").mkdir()
        figures |= measure_workers(folder / "workers", repeats)
    for name, bound in AT_MOST.items():
        if figures.get(name, 0) > bound:
            print(f"above its bound: {name} {figures[name]:.3g}, at most {bound}")
    for name, bound in AT_LEAST.items():
        if figures.get(name, bound) < bound:
            print(f"below its bound: {name} {figures[name]:.3g}, at least {bound}")
    return figures


def rounded(value: Any) -> Any:
    """Figures with three decimals."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return round(value, 3) if isinstance(value, float | np.floating) else value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"{FULL_BLOCKS} blocks")
    parser.add_argument("--only", nargs="+", choices=["flow", "dask", "workers"], default=["flow", "dask", "workers"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument(
        "--step", choices=["flow", "plan", "start", *VARIANTS], help="only one step, in a folder prepared"
    )
    parser.add_argument("--recipe", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    os.environ |= ONE_THREAD
    if arguments.step == "flow":
        run_flow(arguments.folder, arguments.recipe)
    elif arguments.step == "plan":
        print(json.dumps(bench_build.plan(arguments.folder)))
    elif arguments.step == "start":
        print(json.dumps(start_processes()))
    elif arguments.step:
        print(json.dumps(build_real(arguments.folder, arguments.step)))
    else:
        folder = Path(tempfile.mkdtemp(prefix="bench-flows-", dir=arguments.folder))
        try:
            blocks = FULL_BLOCKS if arguments.full else BLOCKS
            figures = measure(folder, arguments.only, blocks, arguments.repeats)
        finally:
            shutil.rmtree(folder)
        print(json.dumps(rounded(figures)))


if __name__ == "__main__":
    main()
