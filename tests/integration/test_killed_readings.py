"""Builds that are killed while they read: what was read is not read again, and the store is the same, byte by byte."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
from killed_builds import contents
from tiny_region import TinyRegion

KILLS = 20
#: Pixels along a unit: the region of 48 pixels has sixteen.
UNIT = 16


def build(recipe: Path, store: Path, log: Path) -> None:
    """What a child does: build with small units, and note each reading when it is finished."""
    from h2crop_data.pipeline import engine
    from h2crop_data.pipeline.build import build_store
    from h2crop_data.recipe.model import load_recipe
    from h2crop_data.sources.sentinel2 import granules

    granules.UNIT_SIDE = granules.PIECE_SIDE = UNIT
    granules.fitting = lambda lengths, whole, side: side
    read = engine.run_reading

    def noted(storage: object, scratch: object, reading: object) -> object:
        outcome = read(storage, scratch, reading)  # type: ignore[arg-type]
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{reading.id}\n")  # type: ignore[attr-defined]
        return outcome

    engine.run_reading = noted  # type: ignore[assignment]
    build_store(load_recipe(recipe), store, workers=2)


def noted_in(log: Path) -> int:
    """How many readings a log holds."""
    return log.read_text(encoding="utf-8").count("\n") if log.exists() else 0


def test_twenty_kills_cost_no_finished_reading_and_change_no_byte(tmp_path: Path) -> None:
    region = TinyRegion(tmp_path / "region")
    rng = np.random.default_rng(3)
    for month in range(1, 13):
        for day in (5, 15):
            scl = np.where(rng.random((30, 30)) < 0.4, 9, 4).astype(np.uint8)
            region.add_sentinel2(f"S2_{month}_{day}", f"2022-{month:02d}-{day:02d}T10:50:00Z", 900 + day, scl=scl)
    region.recipe(store={"block_capacity": 1})
    recipe = tmp_path / "region/recipe.yaml"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["h2crop_data.pipeline.build"])

    def start(store: str, log: str) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=build, args=(recipe, tmp_path / store, tmp_path / log))
        process.start()
        return process

    whole = start("whole", "whole.log")
    whole.join(120)
    assert whole.exitcode == 0
    readings = (tmp_path / "whole.log").read_text(encoding="utf-8").split()
    # Cells of 24 pixels lie in two units each way; what is read of a unit and month is read once.
    assert len(readings) == len(set(readings)) >= 9 * 12

    draw = random.Random(8)
    kills, log = 0, tmp_path / "killed.log"
    while kills < KILLS:
        process = start("killed", "killed.log")
        # Some readings after it has begun to read again, so that every run gets a little further.
        wanted = noted_in(log) + draw.randint(1, len(readings) // (2 * KILLS))
        deadline = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline and noted_in(log) < wanted:
            time.sleep(0.002)
        # A part of the next one: about as long as a test of whether it is there.
        time.sleep(draw.random() * 0.02)
        assert process.exitcode is None, "the build ended before it was killed often enough"
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(60)
        kills += 1
    last = start("killed", "killed.log")
    last.join(120)
    assert last.exitcode == 0
    again = Counter(log.read_text(encoding="utf-8").split())
    # A run may die between the end of a reading and its line in the log.
    assert set(again) <= set(readings)
    assert len(set(readings) - set(again)) <= kills
    assert max(again.values()) == 1, "a finished reading was read again"
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.part"))
