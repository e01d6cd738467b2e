"""Cost of a growing store: file operations, bytes, memory and time of a block, among few and among a thousand.

    python tests/benchmarks/bench_growth.py [--repeats 3] [--folder DIR]

Cells of 60 m, one a block, with Sentinel-2, EnMAP and parcels, are planned, built and sealed; each size in a process of
its own, in one thread. Operations are the system calls that read or write (of this process: shards, markers, plans,
index, and what the inputs cost) and, beside them, the calls of the store's own storage. What is compared is the cost of
one block more: from 10 to 100 blocks against from 100 to 1000. A cost that is the same for every block gives 1; one
that grows with the store gives more.

The last line is one JSON object:

- ops_per_block_ratio: system calls of a block more, among a thousand / among a hundred
- storage_ops_per_block_ratio, bytes_per_block_ratio: the same of storage calls and of bytes written
- ops_per_block, storage_ops_per_block, bytes_per_block: of a block more, among a thousand
- peak_mb_ratio: peak memory with 1000 blocks / with 10; peak_mb_10, peak_mb_1000
- seconds_per_block_ratio: time of a block more (median of the repeats), among a thousand / among a hundred;
  ms_per_block
- open_s_100k: seconds to open a season of 100,000 samples (`h2crop_data.open`), median; inspect_s_100k: to sum the
  store up as `h2crop inspect` does; index_mb_100k, root_kb_100k: what its index and its root take (synthesised, no
  shards)
- open_rss_mb_100k: what opening `CropSamples` on it adds to the resident memory of a fresh process that has imported
  everything
- seal_s_100k: seconds to seal it
- seal_peak_mb_100k: peak memory of the fresh process that sealed it, with the rows of the season in it (290 MB of it)
- seal_season_s_ratio, seal_season_mb_ratio: seconds and peak memory of sealing one season more of 100,000 samples in a
  store of six others / of one other; seal_season_s, seal_season_mb: among six
- task_ms_ratio: time to make the task of a block, in a plan of 160,000 samples / of 1,600; task_ms_160k
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

MAKERS = Path(__file__).resolve().parents[1] / "makers"
SIZES = (10, 100, 1000)
SEASON = 2022
#: Metres along a cell's side, and cells above each other.
CELL, ROWS = 60, 8
#: Samples of the synthesised index, and in one of its blocks.
MANY, CAPACITY = 100_000, 16
BANDS = 218
#: Seasons of a store to which one more is added.
OTHERS = (1, 6)
#: Samples of the plans whose tasks are made.
PLANNED = (1_600, 160_000)
#: Tasks that are timed together, and how often of each plan.
BATCH, BATCHES = 33, 60


def make_region(folder: Path) -> None:
    """The inputs of a thousand blocks: two dates of Sentinel-2, one EnMAP scene, a hundred parcels."""
    from tiny_region import SOUTH, WEST, TinyRegion

    width = CELL * (SIZES[-1] // ROWS)
    region = TinyRegion(folder)
    for month in (5, 7):
        region.add_sentinel2(f"S2_{month}", f"{SEASON}-{month:02d}-05T10:50:00Z", 900, east=WEST + width + 60)
    region.add_enmap(1, f"{SEASON}0724T104526", east=WEST + width + 45)
    step = width // 100
    fields = [((WEST + i * step, SOUTH + 10, WEST + (i + 1) * step - 20, SOUTH + 470), "BTH") for i in range(100)]
    for year in (SEASON - 1, SEASON):
        region.write_parcels(year, fields)
    region.recipe()


def build(folder: Path, blocks: int) -> dict[str, float]:
    """Plan, build and seal so many blocks; what it cost."""
    from tiny_region import EPSG, NORTH, SOUTH, WEST, TinyRegion

    from h2crop_data.pipeline.build import build_store
    from h2crop_data.storage.local import LocalStorage

    calls = 0

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            return method(*arguments)

        return call

    for name in ("read", "read_range", "size", "write", "delete", "describe"):
        setattr(LocalStorage, name, counted(getattr(LocalStorage, name)))
    columns, rows = (blocks // ROWS, ROWS) if blocks % ROWS == 0 else (blocks // 5, 5)
    region = TinyRegion(folder / "region")
    items = {key: json.loads((folder / f"region/{key}.json").read_text())["features"] for key in ("sentinel2", "enmap")}
    region.sentinel2, region.enmap = items["sentinel2"], items["enmap"]
    bbox = [WEST, SOUTH, WEST + columns * CELL, min(NORTH, SOUTH + rows * CELL)]
    recipe = region.recipe(
        cell_size=CELL,
        area={"bbox": bbox, "crs": f"EPSG:{EPSG}", "cells": "inside"},
        store={"block_capacity": 1},
        seasons=[SEASON],
    )
    before, start = system_calls(), time.perf_counter()
    report = build_store(recipe, folder / f"store-{blocks}", workers=1)
    seconds, after = time.perf_counter() - start, system_calls()
    assert report.built == blocks, report
    shutil.rmtree(folder / f"store-{blocks}")
    return {
        "seconds": seconds,
        "ops": after["syscr"] + after["syscw"] - before["syscr"] - before["syscw"],
        "bytes": after["wchar"] - before["wchar"],
        "storage_ops": calls,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def system_calls() -> dict[str, int]:
    """Reading and writing system calls of this process so far, and the bytes (Linux)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def synthesise(folder: Path) -> dict[str, float]:
    """Seal a store of very many samples without shards, open it and sum it up."""
    import h2crop_data
    from h2crop_data.cube.seal import SeasonInputs, seal
    from h2crop_data.cube.writer import hold_store
    from h2crop_data.report.summary import summarize
    from h2crop_data.sources.describe import DATASHEETS

    layout, finished = synthesised_season()
    with hold_store(folder / "many") as builder:
        start = time.perf_counter()
        inputs = SeasonInputs(SEASON, "synthesised", lambda: (finished, {}))
        seal(builder, layout, [inputs], [{1: "a"}, {1: "b"}, {1: "c"}, {1: "d"}], "bench", DATASHEETS)
        sealed = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def seconds(work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    store = folder / "many"
    return {
        "open_s_100k": statistics.median(seconds(lambda: h2crop_data.open(store, SEASON)) for _ in range(5)),
        "inspect_s_100k": statistics.median(seconds(lambda: summarize(store)) for _ in range(5)),
        **in_a_process(folder, "open"),
        "seal_s_100k": sealed,
        "seal_peak_mb_100k": peak,
        "index_mb_100k": sum(path.stat().st_size for path in (store / "index").rglob("*") if path.is_file()) / 1e6,
        "root_kb_100k": (store / "zarr.json").stat().st_size / 1e3,
    }


def open_samples(folder: Path) -> dict[str, float]:
    """Open the dataset of the store of very many samples, as each worker that is not forked does."""
    from h2crop_data.training.dataset import CropSamples

    before = resident_mb()
    samples = CropSamples(folder / "many")
    grown = resident_mb() - before
    assert len(samples) == MANY
    return {"open_rss_mb_100k": grown}


def seal_others(folder: Path) -> dict[str, float]:
    """Stores of a few seasons of very many samples."""
    for others in OTHERS:
        seal_seasons(folder / f"others-{others}", others)
    return {}


def seal_one_more(folder: Path, others: int) -> dict[str, float]:
    """Seal one season more in a store of so many others."""
    seconds = seal_seasons(folder / f"others-{others}", others + 1)
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def seal_seasons(store: Path, count: int) -> float:
    """Seal so many seasons of the same samples; gives the seconds."""
    from h2crop_data.cube.seal import SeasonInputs, seal
    from h2crop_data.cube.writer import hold_store
    from h2crop_data.sources.describe import DATASHEETS

    layout, finished = synthesised_season()

    def inputs(season: int) -> SeasonInputs:
        def gather() -> tuple[Any, dict[str, Any]]:
            files = [{**file, "path": f"{season}/{file['path'].partition('/')[2]}"} for file in finished.files]
            return replace(finished, season=season, files=files), {}

        return SeasonInputs(season, "synthesised", gather)

    seasons = [inputs(SEASON + number) for number in range(count)]
    with hold_store(store) as builder:
        start = time.perf_counter()
        seal(builder, layout, seasons, [{1: "a"}, {1: "b"}, {1: "c"}, {1: "d"}], "bench", DATASHEETS)
        return time.perf_counter() - start


def growth_by_seasons(folder: Path) -> dict[str, float]:
    """What one season more costs, among few others and among more."""
    in_a_process(folder, "others")
    few, many = (in_a_process(folder, f"one more of {others}") for others in OTHERS)
    return {
        "seal_season_s_ratio": many["seconds"] / few["seconds"],
        "seal_season_s": many["seconds"],
        "seal_season_mb_ratio": many["peak_mb"] / few["peak_mb"],
        "seal_season_mb": many["peak_mb"],
    }


def resident_mb() -> float:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def synthesised_season() -> tuple[Any, Any]:
    """The layout and the tables of a season of very many samples, as full as those of a build."""
    from h2crop_data.constants import SENTINEL2_BANDS
    from h2crop_data.cube.season import FinishedSeason
    from h2crop_data.cube.statistics import BlockSums
    from h2crop_data.sources.formats import known_layout

    layout = known_layout(1920, CAPACITY, s2_bands=SENTINEL2_BANDS, enmap_bands=BANDS)
    blocks = -(-MANY // CAPACITY)
    slot = np.arange(MANY)
    column, row = slot % 400, slot // 400
    x0, y0 = 300_000.0 + 1920 * column, 5_000_000.0 + 1920 * row
    longitude, latitude = 3 + column * 0.02, 45 + row * 0.02
    dates = [f"{SEASON}-{month:02d}-{day:02d}" for month in range(1, 13) for day in (3, 13, 23)]
    samples = gpd.GeoDataFrame(
        {
            "sample": [f"32631_1920_{c:04d}_{r:04d}_{SEASON}0724T104526" for c, r in zip(column, row, strict=True)],
            "cell": [f"32631_1920_{c:04d}_{r:04d}" for c, r in zip(column, row, strict=True)],
            "epsg": 32631,
            "x0": x0,
            "y0": y0,
            "block": slot // CAPACITY,
            "slot": slot,
            "split": np.where(slot // CAPACITY % 7 < 5, "train", "val"),
            "square": [f"{c // 8}_{r // 8}" for c, r in zip(column, row, strict=True)],
            "scene": [f"ENMAP01-____L2A-DT{block // 60:010d}" for block in slot // CAPACITY],
            "scene_time": pd.Timestamp(f"{SEASON}-07-24T10:45:26Z"),
            "sun_elevation": 50.0,
            "flagged_share": 0.01,
            "labelled_share": 0.5,
            "enmap_cloud_share": 0.01,
            "enmap_flagged_share": 0.01,
            "enmap_fill_share": 0.0,
            "s2_dates": [dates] * MANY,
            "s2_clear_share": [[0.9] * 12] * MANY,
            "s2_gaps": [[]] * MANY,
            "parcels": 60,
            "declared_share": 0.5,
            "class_share": [[0.5, 0.5, 0.5, 0.5]] * MANY,
        },
        geometry=shapely.box(longitude, latitude, longitude + 0.02, latitude + 0.017),
        crs="OGC:CRS84",
    )
    arrays = layout.arrays()
    files = [
        {"path": f"{SEASON}/{name}/c.{block}" + ".0" * (len(spec.dims) - 1), "bytes": 1_000_000, "sha256": "0" * 64}
        for block in range(blocks)
        for name, spec in arrays.items()
    ]
    per_block = len(arrays)
    table = pd.DataFrame(
        {
            "block": range(blocks),
            "split": samples["split"].to_numpy()[::CAPACITY],
            "square": samples["square"].to_numpy()[::CAPACITY],
            "scene": samples["scene"].to_numpy()[::CAPACITY],
            "samples": CAPACITY,
            "s2_items": [[f"S2A_31UDQ_{date.replace('-', '')}_0_L2A" for date in dates]] * blocks,
            **{f"hash_{group}": "0" * 64 for group in ("s2", "enmap", "labels")},
            "files": [[file["path"] for file in files[i * per_block : (i + 1) * per_block]] for i in range(blocks)],
            "sha256": [["0" * 64] * per_block] * blocks,
            "software": "bench",
            "retracted": "",
        }
    )
    scenes = pd.DataFrame(
        {"id": [f"scene {i}" for i in range(20_000)], "sensor": "sentinel2", "taken": True, "reason": "taken"}
    )
    pixels = np.zeros((4, 256), np.int64)
    pixels[:, 1] = 1
    sums = BlockSums(MANY, {}, {"label": pixels, "prior": pixels}, np.zeros(0, np.uint32))
    spectrum = np.tile(np.linspace(420, 2450, BANDS, dtype=np.float32), (blocks, 1))
    spectra = {"wavelength": spectrum, "fwhm": spectrum}
    recipe = {"name": "many", "description": "", "split": {"square_size": 15360}}
    finished = FinishedSeason(
        SEASON, samples, table, scenes, None, spectra, {"train": sums, "val": sums}, files, recipe
    )
    return layout, finished


def task_times(folder: Path) -> dict[str, float]:
    """How long the task of a block takes to make, in a small and in a large plan: medians of batches taken in turn."""
    from h2crop_data.pipeline.block import BlockTasks

    made = {samples: BlockTasks(made_plan(samples)) for samples in PLANNED}
    numbers = {samples: itertools.cycle(tasks.blocks.places) for samples, tasks in made.items()}
    batches: dict[int, list[float]] = {samples: [] for samples in PLANNED}
    for _ in range(BATCHES):
        # In turn, so that whatever else the machine does slows both.
        for samples, tasks in made.items():
            start = time.perf_counter()
            for number in itertools.islice(numbers[samples], BATCH):
                assert tasks.task(number).samples == CAPACITY
            batches[samples].append(time.perf_counter() - start)
    few, many = (1000 * statistics.median(batches[samples]) / BATCH for samples in PLANNED)
    return {"task_ms_ratio": many / few, "task_ms_160k": many}


def made_plan(samples: int) -> Any:
    """A plan of so many samples of all three sources, a parcel a cell, 36 scenes of Sentinel-2 over each block."""
    import pystac

    from h2crop_data.grid import Cell
    from h2crop_data.pipeline.plan import SeasonPlan
    from h2crop_data.recipe.model import parse_recipe
    from h2crop_data.sources.enmap.scene import EnmapScenes, SceneFacts
    from h2crop_data.sources.parcels.declarations import TIER_COLUMNS, Declarations, Declared
    from h2crop_data.sources.sentinel2.select import Sentinel2Scenes

    recipe = parse_recipe(
        {
            "name": "many",
            "area": {"bbox": [0, 45, 6, 55]},
            "seasons": [SEASON],
            "enmap": {"catalog": "a.json"},
            "sentinel2": {"catalog": "a.json"},
            "parcels": {"season": [{"path": "{year}.gpkg", "country": "fr", "code_field": "A"}]},
        },
        Path(),
        "many",
    )
    number = np.arange(samples)
    column, row = 160 + number % 200, 2600 + number // 200
    cells = [Cell(32631, 1920, int(c), int(r)) for c, r in zip(column, row, strict=True)]
    longitude, latitude = 3 + (column - 260) * 0.025, 45 + (row - 2600) * 0.017
    outlines = shapely.box(longitude, latitude, longitude + 0.025, latitude + 0.017)
    blocks = samples // CAPACITY
    names = [f"S2_{i:05d}" for i in range(max(36, samples // 160))]
    scenes = [f"ENMAP_{i:05d}" for i in range(blocks // 40 + 1)]

    def item(name: str) -> Any:
        return pystac.Item(name, None, None, pd.Timestamp(f"{SEASON}-07-01").to_pydatetime(), {})

    table = gpd.GeoDataFrame(
        {"block": number // CAPACITY, "cell": [cell.id for cell in cells]}, geometry=outlines, crs="OGC:CRS84"
    )
    starts = np.arange(blocks) % (len(names) - 35)
    rows = pd.DataFrame(
        {
            "block": range(blocks),
            "split": "train",
            "scene": [scenes[block // 40] for block in range(blocks)],
            "s2_items": [names[start : start + 36] for start in starts.tolist()],
            **{f"hash_{group}": "0" * 64 for group in ("s2", "enmap", "labels")},
        }
    )
    parcels = gpd.GeoDataFrame(
        {
            "number": number + 1,
            "country": "fr",
            "parcel_id": "",
            "code": "BTH",
            "hcat3": "3301010101",
            **dict.fromkeys(TIER_COLUMNS, 1),
            "split": "train",
        },
        geometry=shapely.buffer(outlines, -0.004),
        crs="OGC:CRS84",
    )
    declared = Declarations(parcels, None)
    pinned = {
        "enmap": EnmapScenes([item(name) for name in scenes], dict.fromkeys(scenes, SceneFacts((), {}))),
        "sentinel2": Sentinel2Scenes([item(name) for name in names], dict.fromkeys(names, -1000)),
        "parcels": Declared(declared, declared),
    }
    algorithm = {"s2": 2, "enmap": 1, "labels": 2}
    return SeasonPlan(SEASON, recipe, table, rows, [], pinned, "1", "0" * 64, algorithm, {})


def in_a_process(folder: Path, step: str) -> dict[str, float]:
    """A step in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--step", step]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{step}: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(folder: Path, repeats: int) -> dict[str, float]:
    """All figures."""
    make_region(folder / "region")
    runs = {size: [in_a_process(folder, str(size)) for _ in range(repeats)] for size in SIZES}
    middle = {
        size: {name: statistics.median(run[name] for run in of_size) for name in of_size[0]}
        for size, of_size in runs.items()
    }
    few, some, many = (middle[size] for size in SIZES)

    def block_more(name: str) -> tuple[float, float]:
        return (some[name] - few[name]) / (SIZES[1] - SIZES[0]), (many[name] - some[name]) / (SIZES[2] - SIZES[1])

    figures: dict[str, float] = {}
    for name in ("ops", "storage_ops", "bytes"):
        early, late = block_more(name)
        figures[f"{name}_per_block_ratio"] = late / early
        figures[f"{name}_per_block"] = late
    early, late = block_more("seconds")
    figures |= {"seconds_per_block_ratio": late / early, "ms_per_block": 1000 * late}
    figures |= {"peak_mb_ratio": many["peak_mb"] / few["peak_mb"]}
    figures |= {"peak_mb_10": few["peak_mb"], "peak_mb_1000": many["peak_mb"]}
    return figures | in_a_process(folder, "many") | growth_by_seasons(folder) | in_a_process(folder, "tasks")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--step", help="only one step, in a folder prepared")
    arguments = parser.parse_args()
    sys.path.insert(0, str(MAKERS))
    if arguments.step:
        steps = {"many": synthesise, "open": open_samples, "tasks": task_times, "others": seal_others}
        steps |= {f"one more of {others}": partial(seal_one_more, others=others) for others in OTHERS}
        steps["seasons"] = growth_by_seasons
        step = steps.get(arguments.step, lambda folder: build(folder, int(arguments.step)))
        print(json.dumps(step(arguments.folder)))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-growth-", dir=arguments.folder))
    try:
        figures = measure(folder, arguments.repeats)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
