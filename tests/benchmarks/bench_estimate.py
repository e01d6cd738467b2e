"""Estimates of a plan against the build: seconds, bytes and requests, of local files and over HTTP at 30 ms a request.

    python tests/benchmarks/bench_estimate.py [--repeats 1] [--folder DIR] [--region DIR]

A simulated region of 25 cells, two Sentinel-2 dates a month under 50 % cloud and two EnMAP passes, is planned from
files of this machine and from the same files on a web server of this machine. Each plan is built by one and by two
threads, each time in a process of its own, and what the plan said is divided by what the build took: 1 is exact, above
1 the plan said too much. The constants of the estimate come from two other regions
(h2crop_data/sources/sentinel2/work.py).

Other processes of the machine make a build longer, not its estimate: run it on a quiet machine. The figures say for how
long the threads of a build waited for a core (/proc/self/task/*/schedstat). A build that waited for more than a tenth
of its time is not judged.

The last line is one JSON object:

- ratio.<place>_<workers>: estimated seconds / seconds of the build (goal: 0.5 to 2)
- bytes_read, requests: estimated / given by the server (goal: 0.5 to 2)
- bytes_of_store, bytes_of_work: estimated / on the disk (goal for the store: 0.5 to 2; the work folder's is a bound)
- estimated.*, seconds.*: of each build; waited.*: seconds that its threads waited for cores, all together
- cpu_estimated, cpu: seconds of a core, of local files with one worker
- samples, blocks, outside: ratios outside of the goal, by name; not_judged: builds on a machine that was busy
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

sys.path.append(str(Path(__file__).resolve().parents[1] / "makers"))
from counting_server import CountingServer, serving

from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import Workers
from h2crop_data.pipeline.estimate import estimate
from h2crop_data.pipeline.plan import load_plans, save_plan
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import load_recipe
from h2crop_data.simulate.region import simulate_region
from h2crop_data.simulate.settings import Simulation
from h2crop_data.sources.work import ArchiveLine

SEASON = 2022
#: Seconds that the server waits before each answer, and bytes a second that loopback gives at least.
DELAY, LOOPBACK = 0.03, 500e6
REGION = {
    "seed": 5,
    "seasons": [SEASON],
    "cells": 25,
    "sentinel2": {"dates_per_month": 2, "sky": {"cloudiness": 0.5}},
    "enmap": {"scenes": 2},
    "truth_reflectance": False,
}
WORKERS = (1, 2)
LEAST, MOST = 0.5, 2.0
#: Seconds that threads waited for cores over seconds of the build, beyond which the machine was busy.
BUSY = 0.1


def serve_catalogs(region: Path, url: str) -> Path:
    """Write a recipe whose catalogs name the files of a region at a server; gives its file."""
    (region / "served").mkdir(exist_ok=True)
    for path in (region / "catalog").glob("*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        for asset in (asset for item in document["features"] for asset in item["assets"].values()):
            file = (path.parent / asset["href"]).resolve().relative_to(region.resolve())
            asset["href"] = f"{url}/{file.as_posix()}"
        (region / "served" / path.name).write_text(json.dumps(document), encoding="utf-8")
    recipe = region / "recipe-served.yaml"
    text = (region / "recipe.yaml").read_text(encoding="utf-8")
    recipe.write_text(text.replace("catalog: catalog/", "catalog: served/"), encoding="utf-8")
    return recipe


def plan(recipe: str, folder: Path) -> dict[str, Any]:
    """Plan a recipe into a folder, and estimate it."""
    save_plan(make_plan(load_recipe(recipe), SEASON), folder)
    [made] = load_plans(folder)
    found = estimate(made, WORKERS, ArchiveLine(DELAY, LOOPBACK))
    return {
        "seconds": {str(number): 3600 * found.on_workers[str(number)].hours for number in WORKERS},
        "bytes_read": found.bytes_to_read,
        "requests": found.requests,
        "bytes_of_store": found.bytes,
        "bytes_of_work": found.work_bytes,
        "cpu": sum(found.cpu_seconds.values()),
        "samples": len(made.samples),
        "blocks": len(made.blocks),
    }


def build(folder: Path, store: Path, workers: int) -> dict[str, Any]:
    """Build a plan; seconds, and what lies on the disk."""
    cpu, start = time.process_time(), time.perf_counter()
    with CoreWatch() as watch:
        report = build_store(folder, store, workers=Workers(workers))
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    work = sum(path.stat().st_size for path in store.glob(".build/work/*/*.bin"))
    return {"wall": wall, "cpu": cpu, "bytes": report.bytes, "work": work, "waited": watch.seconds}


class CoreWatch:
    """Seconds that the threads of this process wait for a core, all together, those too that end meanwhile."""

    def __init__(self) -> None:
        self._waited: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    @property
    def seconds(self) -> float:
        """Those so far."""
        return sum(self._waited.values()) / 1e9

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            self._look()

    def _look(self) -> None:
        for path in Path("/proc/self/task").glob("*/schedstat"):
            with suppress(OSError):
                self._waited[path.parent.name] = int(path.read_text(encoding="ascii").split()[1])


def in_own_process(*arguments: str) -> dict[str, Any]:
    """What a step of this file prints."""
    printed = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(printed.stdout.splitlines()[-1])
    return result


def builds_of(
    folder: Path, place: str, repeats: int, server: CountingServer | None
) -> dict[int, tuple[dict[str, Any], Any]]:
    """The fastest build of a plan by each number of workers, with what the server gave."""
    best: dict[int, tuple[dict[str, Any], Any]] = {}
    for _ in range(repeats):
        for number in WORKERS:
            if server is not None:
                server.reset()
            store = folder / "store"
            found = in_own_process("--build", str(folder / place), "--store", str(store), "--workers", str(number))
            shutil.rmtree(store)
            counts = None if server is None else server.counts()
            given = "" if counts is None else f", {counts.requests} requests, {counts.bytes / 1e6:.0f} MB"
            cores = f"{found['cpu']:.1f} s of cores, {found['waited']:.1f} s waited for them"
            print(f"{place} {number}: {found['wall']:.1f} s, {cores}{given}", flush=True)
            if number not in best or found["wall"] < best[number][0]["wall"]:
                best[number] = found, counts
    return best


def measure(folder: Path, region: Path, repeats: int) -> dict[str, Any]:
    """Plan and build from both places, and compare."""
    figures: dict[str, Any] = {name: {} for name in ("ratio", "estimated", "seconds", "waited")}
    with serving(region, DELAY) as server:
        recipes = {"local": region / "recipe.yaml", "remote": serve_catalogs(region, server.url)}
        for place, recipe in recipes.items():
            said = in_own_process("--plan", str(recipe), "--store", str(folder / place))
            built = builds_of(folder, place, repeats, server if place == "remote" else None)
            for number, (found, _) in built.items():
                name, seconds = f"{place}_{number}", said["seconds"][str(number)]
                figures["ratio"][name] = seconds / found["wall"]
                figures["estimated"][name], figures["seconds"][name] = seconds, found["wall"]
                figures["waited"][name] = found["waited"]
            one, counts = built[1]
            if counts is None:
                figures |= {"cpu_estimated": said["cpu"], "cpu": one["cpu"]}
                continue
            figures |= {
                "bytes_read": said["bytes_read"] / counts.bytes,
                "requests": said["requests"] / counts.requests,
                "bytes_of_store": said["bytes_of_store"] / one["bytes"],
                "bytes_of_work": said["bytes_of_work"] / one["work"],
                "samples": said["samples"],
                "blocks": said["blocks"],
            }
    return {**figures, **verdict_on(figures)}


def verdict_on(figures: dict[str, Any]) -> dict[str, str]:
    """The ratios that miss the goal, by name; and the builds that cannot be judged, where there are some."""
    busy = [name for name, seconds in figures["seconds"].items() if figures["waited"][name] > BUSY * seconds]
    judged = {name: ratio for name, ratio in figures["ratio"].items() if name not in busy}
    judged |= {name: figures[name] for name in ("bytes_read", "requests", "bytes_of_store")}
    outside = [name for name, ratio in judged.items() if not LEAST <= ratio <= MOST]
    not_judged = {"not_judged": f"not judged: machine busy ({', '.join(busy)})"} if busy else {}
    return {"outside": ", ".join(outside) or ("none of those judged" if busy else "none"), **not_judged}


def rounded(value: Any) -> Any:
    """Figures with three digits after the point, those in dictionaries too."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--region", type=Path, help="a region that was simulated before; its files are kept")
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.plan:
        print(json.dumps(plan(arguments.plan, arguments.store)))
        return
    if arguments.build:
        print(json.dumps(build(arguments.build, arguments.store, arguments.workers)))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-estimate-", dir=arguments.folder))
    try:
        region = arguments.region or folder / "region"
        if arguments.region is None:
            start = time.perf_counter()
            made = simulate_region(Simulation.model_validate(REGION), region)
            print(f"simulated {made.cells} cells, {made.bytes / 1e6:.0f} MB, in {time.perf_counter() - start:.0f} s")
        figures = measure(folder, region, arguments.repeats)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(rounded(figures)))


if __name__ == "__main__":
    main()
