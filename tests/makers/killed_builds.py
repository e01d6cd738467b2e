"""Builds killed the hard way at random moments, and what is left when they are started again.

A build runs in a process of its own, which is forked from a server that has imported everything, so that a hundred of
them take minutes. The moment is drawn over the time a whole build takes; for some it is drawn after sealing began.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from tiny_region import EAST, EPSG, NORTH, SOUTH, WEST, TinyRegion

from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.storage.local import LocalStorage

#: How builds are killed: once, twice, once while sealing, and once while a finished store grows.
WAYS = ("once", "twice", "sealing", "growing")
#: Attempts to hit a build before it ends by itself.
ATTEMPTS = 20
#: Files of the builder's folder that are about runs, and differ from run to run.
SAID_BY_RUNS = ("lock", "holder", "status.json", "timings.parquet")


@dataclass
class Killed:
    """What became of the builds of a sweep."""

    builds: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    #: What was there when a build was killed: nothing, a plan, some blocks, all blocks, a part of a release.
    found: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def small_region(folder: Path) -> None:
    """A region of two seasons, four cells and two EnMAP scenes, with clouds and parcels."""
    region = TinyRegion(folder)
    rng = np.random.default_rng(1)
    for year in (2022, 2023):
        for month in (3, 7, 9):
            scl = np.where(rng.random((30, 30)) < 0.3, 9, 4).astype(np.uint8)
            region.add_sentinel2(f"S2_{year}_{month}", f"{year}-{month:02d}-05T10:50:00Z", 900 + month, scl=scl)
        region.add_enmap(1, f"{year}0724T104526")
    fields = [
        ((WEST + 10, SOUTH + 20, WEST + 200, SOUTH + 200), "BTH"),
        ((WEST + 210, SOUTH + 30, WEST + 400, SOUTH + 230), "MIS"),
        ((WEST + 20, SOUTH + 260, WEST + 300, SOUTH + 460), "PPH"),
    ]
    for year in (2021, 2022, 2023):
        region.write_parcels(year, fields)
    half = {"bbox": [WEST, SOUTH, WEST + 240, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"}
    whole = {"bbox": [WEST, SOUTH, EAST, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"}
    for name, area, seasons in (("half", half, [2022]), ("recipe", whole, [2022, 2023])):
        region.recipe(seasons=seasons, area=area, store={"block_capacity": 1})
        if name != "recipe":
            (folder / "recipe.yaml").rename(folder / f"{name}.yaml")


class FatalStorage(LocalStorage):
    """A store in a folder whose builder dies just before a step: `write NAME`, `delete NAME`, or `deletion 3` for the
    third one; empty for none."""

    def __init__(self, folder: Path, fatal: str = "") -> None:
        super().__init__(folder)
        self.fatal = fatal
        self.deletions = 0

    def write_file(self, name: str, parts: Iterable[bytes], *, read_only: bool) -> None:
        self.die_before(f"write {name}")
        super().write_file(name, parts, read_only=read_only)

    def delete(self, name: str) -> None:
        self.deletions += 1
        self.die_before(f"deletion {self.deletions}")
        self.die_before(f"delete {name}")
        super().delete(name)

    def die_before(self, step: str) -> None:
        """End this process the hard way before the fatal step."""
        if step == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def build(recipe: Path, store: Path, extend: bool, fatal: str = "") -> None:
    """What a child does. fatal: the step before which it dies."""
    from h2crop_data.pipeline.build import build_store

    build_store(loaded(recipe), FatalStorage(store, fatal), extend=extend, workers=2)


def prune(store: Path, fatal: str) -> None:
    """What a child does that prunes. fatal: the step before which it dies."""
    from h2crop_data.maintenance.retract import prune_store

    prune_store(FatalStorage(store, fatal), [])


def loaded(path: Path) -> Recipe:
    return load_recipe(path)


class Sweep:
    """Kills builds of one small region, and compares what they end with to a build nobody disturbed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["h2crop_data.pipeline.build", "killed_builds"])
        small_region(folder / "region")
        self.recipe = folder / "region/recipe.yaml"
        self.reference = folder / "reference"
        self.half = folder / "half"
        self.grown = folder / "grown"
        self.finish(self.start(self.recipe, self.reference))
        self.finish(self.start(folder / "region/half.yaml", self.half))
        shutil.copytree(self.half, self.grown)
        # The second of each kind is what takes the usual time.
        self.seconds = self.finish(self.start(self.recipe, folder / "again"))
        self.growing_seconds = self.finish(self.start(self.recipe, self.grown, extend=True))
        assert contents(folder / "again") == contents(self.reference)
        self.result = Killed()

    def start(self, recipe: Path, store: Path, extend: bool = False, fatal: str = "") -> BaseProcess:
        """Start a build in a process of its own. fatal: the step (`write NAME`) before which it dies."""
        process = self.context.Process(target=build, args=(recipe, store, extend, fatal))
        process.start()
        return process

    def finish(self, process: BaseProcess) -> float:
        """Wait for a build to end well; gives the seconds."""
        start = time.monotonic()
        process.join(300)
        assert process.exitcode == 0, f"the build ended with {process.exitcode}"
        return time.monotonic() - start

    def kill_before(self, step: str, store: Path, extend: bool = False) -> None:
        """Let a build die before a step (`write NAME`, `delete NAME`)."""
        process = self.start(self.recipe, store, extend, step)
        process.join(300)
        assert process.exitcode == -signal.SIGKILL, f"the build ended with {process.exitcode}"

    def run(self, builds: int) -> Killed:
        """Kill so many builds, in every way in turn, and note what went wrong."""
        for number in range(builds):
            way = WAYS[number % len(WAYS)]
            store = self.folder / f"killed-{number}"
            self.result.builds[way] += 1
            self.kill_and_finish(way, store)
            problems = differences(store, self.grown if way == "growing" else self.reference)
            self.result.failures += [f"build {number} ({way}): {problem}" for problem in problems]
            shutil.rmtree(store)
        return self.result

    def kill_and_finish(self, way: str, store: Path) -> None:
        """Kill a build in a way, then let it go on to its end."""
        extend = way == "growing"
        for _ in range(ATTEMPTS):
            shutil.rmtree(store, ignore_errors=True)
            if extend:
                shutil.copytree(self.half, store)
            if self.killed(way, store, extend):
                break
        else:
            raise AssertionError(f"no build could be killed ({way})")
        if way == "twice":
            self.killed(way, store, extend)
        self.finish(self.start(self.recipe, store, extend))

    def killed(self, way: str, store: Path, extend: bool) -> bool:
        """Start a build and kill it at a random moment; False where it had ended before."""
        process = self.start(self.recipe, store, extend)
        if way == "sealing":
            wait_for(lambda: (store / "2022/zarr.json").exists() or any(store.glob("2022/*/zarr.json")), process)
            time.sleep(self.random.uniform(0, 0.1))
        else:
            # The second time there is less to do.
            whole = self.growing_seconds if extend else self.seconds
            time.sleep(self.random.uniform(0, whole / 2 if store.exists() and not extend else whole))
        process.kill()
        process.join(60)
        if process.exitcode == 0:
            return False
        self.result.kills += 1
        self.result.found[state_of(store)] += 1
        return True


def wait_for(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Wait until something holds or a process ends."""
    while process.is_alive() and not condition():
        time.sleep(0.0005)


def state_of(store: Path) -> str:
    """How far a build had come."""
    blocks = len(list(store.glob(".build/20*/*.json")))
    if (store / "index/r1").exists() and not (store / "zarr.json").exists():
        return "a part of the index"
    if any(store.glob("20*/*/zarr.json")) and not (store / "zarr.json").exists():
        return "a part of the metadata"
    if (store / "zarr.json").exists():
        return "a release"
    if blocks:
        return "some blocks"
    return "a plan" if any(store.glob(".build/plan/*/plan.json")) else "nothing"


def contents(store: Path) -> dict[str, str]:
    """Every file of a store but those about runs, and its hash; of markers without what the clock says."""
    return {
        str(path.relative_to(store)): hashlib.sha256(steady(path)).hexdigest()
        for path in store.rglob("*")
        if path.is_file() and path.name not in SAID_BY_RUNS
    }


def steady(path: Path) -> bytes:
    """What of a file does not depend on the clock."""
    data = path.read_bytes()
    if path.suffix == ".json" and (path.parent.parent.name == ".build" or path.parent.parent.parent.name == ".build"):
        marker: dict[str, Any] = json.loads(data)
        return json.dumps(
            {key: marker[key] for key in marker if key not in ("seconds", "finished", "spent", "checksum", "inputs")}
        ).encode()
    return data


def differences(store: Path, reference: Path) -> list[str]:
    """How a store differs from another one, file by file."""
    one, other = contents(store), contents(reference)
    return [
        *(f"stray file {name}" for name in sorted(set(one) - set(other))),
        *(f"lost file {name}" for name in sorted(set(other) - set(one))),
        *(f"{name} differs" for name in sorted(set(one) & set(other)) if one[name] != other[name]),
    ]
