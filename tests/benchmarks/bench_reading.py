"""Reading Sentinel-2 over HTTP, every needed tile once, against the earlier code, odc-stac, and the minimum.

    python tests/benchmarks/bench_reading.py [--full] [--squares 2] [--repeats 3] [--folder DIR]

Two granules that overlap with internal tiles out of step (tests/makers/overlapping_granules.py), ten bands and SCL in
COGs, are served on this machine at 30 ms a request. Each way makes the composites of a month of six dates, 2 to 98 %
cloud, in a process of its own; CPU is that of all its threads without imports, the server not counted. The default is a
region of 2 x 2 split squares; `--full` takes 3 x 3. The ways:

- now: the package's
- before: block by block, each granule over a block (tests/benchmarks/reading_before.py)
- plain: odc.stac.load of each cell, masked by SCL, median in float32; measured on some cells, scaled to all
- plain_tile: the same of each internal tile of 10 m, scaled as well
- floor: each needed tile read once, with GDAL as the package does, and its medians; no cells, nothing kept

A home tile is an internal tile that a cell touches whose home is that granule (of those that hold the cell the one with
the nearest centre); it is needed where such a cell has a clear pixel in it, and always of SCL. Cells of `now` are
compared with medians by numpy of the files on disk.

The last line is one JSON object:

- fetch_ratio: bytes that the server gave / bytes of the needed tiles (bound: at most 1.1)
- decode_ratio: internal tiles that were decoded / needed tiles (at most 1.2)
- skipped_share: of the bytes of home tiles, those not needed for clouds
- cpu_vs_before, cpu_vs_plain: CPU of that way / ours (at least 4; at least 15); cpu_vs_plain_tile
- cpu_vs_floor: our CPU / the floor's (at most 1.3); median of the repeats, as all CPU of these two
- overcast_saved: of the bytes of home tiles of an overcast month (60 to 100 % cloud), the share not fetched (at least
  0.5)
- peak_mb: resident memory above that after imports; peak_mb_before, peak_mb_floor
- requests_per_tile: requests, those for headers too / needed tiles
- tiles_fetched_again, tiles_fetched_in_vain: needed tiles of which the greater part was fetched more than once, and
  others of which it was fetched at all
- before.*, floor.*: the same of these ways
- cpu_seconds.*, wall_seconds.*: of each way
- cells, needed_tiles, needed_mb; cells_compared
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import odc.stac
import pystac
import rasterio
from bench_store import peak_memory, reset_peak_memory
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window
from reading_before import composites_of_block
from reading_tiles import CLEAR, Archive, Needs, TiledFile, counting_decoded, dates_of, pixels_of, touched

from h2crop_data.catalog.access import GDAL_OPTIONS
from h2crop_data.catalog.item_facts import sentinel2_tile
from h2crop_data.constants import FINE, REFLECTANCE_FILL, SENTINEL2_BANDS
from h2crop_data.grid import Cell, blocks_of_cells, geobox
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sentinel2.clear import has_value
from h2crop_data.sentinel2.composite import Observation, median_composite, median_values
from h2crop_data.sentinel2.reflectance import sentinel2_reflectance
from h2crop_data.sources.sentinel2 import granules, readings, select, unit
from h2crop_data.sources.timing import Stopwatch

sys.path.append(str(Path(__file__).resolve().parents[1] / "makers"))
from counting_server import CountingServer, serving
from overlapping_granules import (
    BANDS,
    BLOCK,
    CHANGING,
    EPSG,
    OFFSET,
    OVERCAST,
    SCL,
    Granule,
    archive_items,
    granules_over,
    make_archive,
    squares_over_both,
)

#: Seconds that the server waits before each answer.
DELAY = 0.03
SEASON = 2022
#: Cells of a block, by default.
CAPACITY = 16
#: Threads of the floor, as many as a recipe has connections by default, and of odc-stac.
CONNECTIONS, PLAIN_CONNECTIONS = 12, 6
#: Cells and tiles that are read the plain ways, and cells of ours that are compared.
SAMPLED_CELLS, SAMPLED_TILES, COMPARED = 8, 4, 12
#: Assets by pixel size.
ASSETS = {size: [asset for asset, (own, _) in BANDS.items() if own == size] for size in (10, 20)}
#: Figure -> what it must be at most, or at least.
AT_MOST = {"fetch_ratio": 1.1, "decode_ratio": 1.2, "cpu_vs_floor": 1.3}
AT_LEAST = {"cpu_vs_before": 4.0, "cpu_vs_plain": 15.0, "overcast_saved": 0.5}

Thing = TypeVar("Thing")
#: Values (band, y, x), number of clear days and their median day (y, x) of a cell.
Composite = tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint16]]


@dataclass(frozen=True)
class Task:
    """What a way has to composite."""

    archive: Archive
    squares: Sequence[tuple[int, int]]
    root: str
    month: int

    @classmethod
    def of(cls, folder: Path, across: int, root: str, month: int) -> Task:
        """Over `across` x `across` split squares, from the files of a folder served at `root`."""
        cells, squares = squares_over_both(across)
        return cls(Archive(folder, tuple(granules_over(cells)), cells), squares, root, month)

    @property
    def cells(self) -> Sequence[Cell]:
        """All cells."""
        return self.archive.cells

    def items(self) -> list[pystac.Item]:
        """The items of the month, as a catalog gives them."""
        return archive_items(self.root, self.archive.granules, self.month)

    def spread(self, count: int) -> list[Cell]:
        """Some cells from all over the region."""
        return evenly(self.cells, count)


def now(task: Task) -> dict[str, int]:
    """The package's way, the look at the grids of both tiles with it; checksums of some cells by id."""
    settings = Sentinel2Settings(catalog="made", bands=list(SENTINEL2_BANDS))
    items = task.items()
    grids = {}
    for tile, item in {sentinel2_tile(item): item for item in items}.items():
        grids[tile] = granules.grid_from_result(granules.grid_unit([item], settings).compute([]))
    scenes = select.Sentinel2Scenes(items, {item.id: -OFFSET for item in items}, grids)
    outlines = [cell.outline for cell in task.cells]
    compared = {cell: empty_composite(cell) for cell in task.spread(COMPARED)}
    for reading in readings.readings_of(settings, scenes, task.cells, outlines, SEASON):
        parts, _ = unit.read_unit(reading, Stopwatch())
        for made in parts:
            cell = made.part.cell
            if cell in compared:
                top, _, left, _ = reading.grid.pixels_of(cell)
                first_row, end_row, first_column, end_column = made.part.box
                here = slice(first_row - top, end_row - top), slice(first_column - left, end_column - left)
                values, clear, day = compared[cell]
                values[:, *here], clear[here], day[here] = made.values, made.clear, made.day
    return {cell.id: checksum(composite) for cell, composite in compared.items()}


def before(task: Task) -> None:
    """Block by block."""
    for _, cells in blocks_of_cells(task.cells, task.squares, CAPACITY):
        composites_of_block(task.items(), cells, list(BANDS), CLEAR)


def plain(task: Task) -> float:
    """Some cells by odc-stac, each for itself; how many times as much all are."""
    for cell in task.spread(SAMPLED_CELLS):
        plain_composite(task.items(), cell.geobox(FINE))
    return len(task.cells) / SAMPLED_CELLS


def plain_tile(task: Task) -> float:
    """Some internal tiles of 10 m by odc-stac; how many times as much all are."""
    grids = []
    for granule in task.archive.granules:
        west, _, east, north = granule.bounds
        side = BLOCK * FINE
        for row, column in np.argwhere(touched(task.archive.ground(granule), BLOCK // 2)).tolist():
            left, top = west + column * side, north - row * side
            grids.append(geobox((left, top - side, min(left + side, east), top), EPSG, FINE))
    sampled = evenly(grids, SAMPLED_TILES)
    for grid in sampled:
        plain_composite(task.items(), grid)
    return sum(grid.width for grid in grids) / sum(grid.width for grid in sampled)


def evenly(things: Sequence[Thing], count: int) -> list[Thing]:
    """Some things from first to last, all where there are no more."""
    count = min(count, len(things))
    return [things[i] for i in np.linspace(0, len(things) - 1, count).round().astype(int)]


def plain_composite(items: Sequence[pystac.Item], grid: GeoBox) -> NDArray[np.int16]:
    """Medians of clear pixels (band, y, x) by odc-stac and xarray."""
    data = odc.stac.load(
        items,
        bands=[*BANDS, SCL],
        geobox=grid,
        groupby="solar_day",
        resampling="nearest",
        stac_cfg={"*": {"assets": {"*": {"data_type": "uint16", "nodata": 0}, SCL: {"data_type": "uint8"}}}},
        pool=PLAIN_CONNECTIONS,
        fail_on_error=True,
    )
    clear = data[SCL].isin(CLEAR)
    with warnings.catch_warnings():
        # A pixel that was never clear.
        warnings.simplefilter("ignore", RuntimeWarning)
        medians = np.stack([data[asset].where(clear).median("time", skipna=True).values for asset in BANDS])
    return np.where(np.isnan(medians), REFLECTANCE_FILL, np.rint(medians) - OFFSET).astype(np.int16)


def floor(task: Task) -> None:
    """Each needed tile once: by tiles of 20 m with the four of 10 m in them, for what is clear must be known first."""
    items = {(sentinel2_tile(item), f"{item.datetime:%Y-%m-%d}"): item for item in task.items()}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for granule in task.archive.granules:
            looks = [items[granule.tile, date] for date in dates_of(task.month)]
            ground = task.archive.ground(granule)
            for row, column in np.argwhere(touched(ground, BLOCK)).tolist():
                with OpenFiles(pool) as files:
                    floor_of_tile(files, looks, ground, (row * BLOCK, column * BLOCK))


class OpenFiles:
    """Files that stay open until a tile is done."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool, self.rasters = pool, dict[str, rasterio.DatasetReader]()

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *error: object) -> None:
        for raster in self.rasters.values():
            raster.close()

    def read(self, assets: Sequence[tuple[pystac.Item, str]], window: Window) -> list[NDArray[Any]]:
        """The pixels of some assets, no two of one file, in a window given in pixels of 20 m."""

        def pixels(asset: tuple[pystac.Item, str]) -> NDArray[Any]:
            item, key = asset
            href = item.assets[key].href
            with rasterio.Env(**GDAL_OPTIONS):
                if href not in self.rasters:
                    self.rasters[href] = rasterio.open(href)
                times = 2 if key in ASSETS[10] else 1
                return self.rasters[href].read(1, window=Window(*(times * number for number in window.flatten())))

        return list(self.pool.map(pixels, assets))


def floor_of_tile(
    files: OpenFiles, items: Sequence[pystac.Item], ground: NDArray[np.bool_], corner: tuple[int, int]
) -> None:
    """Medians of a tile of 20 m that begins at a pixel (row, column) of its granule: its 20 m bands, then 10 m."""
    whole = wanted_window(ground, corner, BLOCK)
    assert whole is not None
    classes = files.read([(item, SCL) for item in items], whole)
    clear = [np.isin(layer, CLEAR) & ground[whole.toslices()] for layer in classes]
    half = BLOCK // 2
    # From the last to the first: where a file is read onwards, GDAL reads ahead.
    corners = [(corner[0] + down, corner[1] + across) for down in (half, 0) for across in (half, 0)]
    for size, windows in ((20, [whole]), (10, [wanted_window(ground, place, half) for place in corners])):
        for window in filter(None, windows):
            rows, columns = window.toslices()
            inside = (
                slice(rows.start - whole.row_off, rows.stop - whole.row_off),
                slice(columns.start - whole.col_off, columns.stop - whole.col_off),
            )
            looks = [(item, layer[inside]) for item, layer in zip(items, clear, strict=True) if layer[inside].any()]
            numbers = iter(files.read([(item, asset) for item, _ in looks for asset in ASSETS[size]], window))
            observations = []
            for item, layer in looks:
                assert item.datetime is not None
                values = np.stack([sentinel2_reflectance(next(numbers), -OFFSET) for _ in ASSETS[size]])
                seen = layer.repeat(20 // size, 0).repeat(20 // size, 1)
                day = item.datetime.timetuple().tm_yday
                observations.append(Observation(day, values, seen & has_value(values)))
            if observations:
                # The clear looks and the median day are computed once.
                (median_composite if size == 10 else median_values)(observations)


def wanted_window(ground: NDArray[np.bool_], corner: tuple[int, int], side: int) -> Window | None:
    """The window in pixels of 20 m around what is wanted of a tile, which begins at a corner; None where nothing is."""
    row, column = corner
    part = ground[row : row + side, column : column + side]
    rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return Window.from_slices((row + rows[0], row + rows[-1] + 1), (column + columns[0], column + columns[-1] + 1))


WAYS: dict[str, Callable[[Task], Any]] = {
    "now": now,
    "before": before,
    "plain": plain,
    "plain_tile": plain_tile,
    "floor": floor,
}
#: Those that are measured on a part of the region and scaled.
PLAIN_WAYS = ("plain", "plain_tile")


def empty_composite(cell: Cell) -> Composite:
    """Nothing clear."""
    side = cell.size // FINE
    values = np.full((len(BANDS), side, side), REFLECTANCE_FILL, np.int16)
    return values, np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint16)


def checksum(composite: Composite) -> int:
    """Of all three arrays."""
    result = 0
    for array in composite:
        result = zlib.crc32(np.ascontiguousarray(array), result)
    return result


def expected_composite(archive: Archive, cell: Cell, month: int) -> Composite:
    """A cell's composite by numpy's median, from the files of its home granule."""
    home = archive.home[cell]
    dates = dates_of(month)
    clear = np.stack([np.isin(cut_cell(archive, home, date, SCL, 20, cell), CLEAR) for date in dates])
    count = clear.sum(axis=0)
    never = count == 0

    def median(layers: NDArray[Any]) -> NDArray[np.float64]:
        """Of the clear layers; 0 where there are none."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return np.where(never, 0, np.nanmedian(np.where(clear, layers, np.nan), axis=0))

    values, clear_days, median_day = empty_composite(cell)
    for i, (asset, (size, _)) in enumerate(BANDS.items()):
        numbers = np.stack([cut_cell(archive, home, date, asset, size, cell) for date in dates])
        values[i] = np.where(never, REFLECTANCE_FILL, np.rint(median(numbers - float(OFFSET))))
    days = np.array([np.datetime64(date).item().timetuple().tm_yday for date in dates])
    clear_days[:] = count
    median_day[:] = np.floor(median(np.broadcast_to(days[:, None, None], clear.shape)))
    return values, clear_days, median_day


def cut_cell(archive: Archive, granule: Granule, date: str, asset: str, size: int, cell: Cell) -> NDArray[Any]:
    """A cell's pixels of 10 m in a file on disk."""
    rows, columns = pixels_of(cell, granule, size)
    with rasterio.open(archive.folder / granule.path(date, asset)) as raster:
        pixels = raster.read(1, window=Window.from_slices(rows, columns))
    return pixels.repeat(size // FINE, 0).repeat(size // FINE, 1)


def cpu_seconds() -> float:
    """Of this process with its threads, and of its processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run_way(task: Task, name: str) -> dict[str, Any]:
    """Run a way in this process; what it took."""
    if name in PLAIN_WAYS:
        odc.stac.configure_rio(cloud_defaults=True, **GDAL_OPTIONS)
        # Of rasterio's own scratch raster.
        warnings.filterwarnings("ignore", "Dataset has no geotransform")
        # odc-stac prepares itself, which is not to be scaled with the cells.
        plain_composite(task.items(), task.cells[0].geobox(FINE))
    reset_peak_memory()
    base, begin, start = peak_memory(), cpu_seconds(), time.perf_counter()
    if name in PLAIN_WAYS:
        # GDAL wants no stand-in where it warps.
        result, decoded = WAYS[name](task), 0
    else:
        with counting_decoded() as counter:
            result, decoded = WAYS[name](task), counter.count
    return {
        "cpu": cpu_seconds() - begin,
        "wall": time.perf_counter() - start,
        "peak_mb": (peak_memory() - base) / 1e6,
        "decoded": decoded,
        "result": result,
    }


def measure_way(
    server: CountingServer, arguments: argparse.Namespace, folder: Path, name: str, month: int
) -> dict[str, Any]:
    """Run a way in a process of its own; what it took, with the server's `counts`."""
    server.reset()
    command = [sys.executable, __file__, "--way", name, "--url", server.url, "--folder", str(folder)]
    command += [f"--squares={arguments.squares}", f"--month={month}"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result = {**json.loads(printed.splitlines()[-1]), "counts": server.counts()}
    print(
        f"{name:10s} month {month}: {result['cpu']:7.2f} s CPU, {result['wall']:7.2f} s, peak {result['peak_mb']:5.0f} "
        f"MB, {result['counts'].requests:6d} requests, {result['counts'].bytes / 1e6:7.1f} MB",
        flush=True,
    )
    return result


def middle_of(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The result whose CPU is the median."""
    return sorted(results, key=lambda result: result["cpu"])[len(results) // 2]


def tile_figures(files: Sequence[TiledFile], result: dict[str, Any]) -> dict[str, float]:
    """What a way fetched and decoded against what is needed of the files."""
    counts = result["counts"]
    needs = Needs.of(files, counts)
    return {
        "fetch_ratio": counts.bytes / needs.needed_bytes,
        "decode_ratio": result["decoded"] / needs.needed,
        "requests_per_tile": counts.requests / needs.needed,
        "tiles_fetched_again": needs.fetched_again,
        "tiles_fetched_in_vain": needs.fetched_in_vain,
    }


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the granules, run every way, and compare."""
    task = Task.of(folder, arguments.squares, "", CHANGING)
    archive = task.archive
    start = time.perf_counter()
    make_archive(folder, archive.granules, arguments.workers)
    written = sum(path.stat().st_size for path in folder.rglob("*.tif"))
    print(f"made {len(task.cells)} cells, {written / 1e6:.0f} MB, in {time.perf_counter() - start:.0f} s", flush=True)
    with serving(folder, DELAY) as server:

        def result_of(name: str, month: int = CHANGING) -> dict[str, Any]:
            return measure_way(server, arguments, folder, name, month)

        turns = [(result_of("now"), result_of("floor")) for _ in range(arguments.repeats)]
        ways = {"now": middle_of([ours for ours, _ in turns]), "floor": middle_of([least for _, least in turns])}
        ways |= {name: result_of(name) for name in ("before", "plain", "plain_tile")}
        overcast = result_of("now", OVERCAST)["counts"]
    for name, measured in itertools.product(PLAIN_WAYS, ("cpu", "wall")):
        ways[name][measured] *= ways[name]["result"]
    cpu = {name: result["cpu"] for name, result in ways.items()}
    files = list(archive.files(CHANGING))
    needs = Needs.of(files, ways["now"]["counts"])
    figures = {
        **tile_figures(files, ways["now"]),
        "skipped_share": 1 - needs.needed_bytes / needs.home_bytes,
        **{f"cpu_vs_{name}": cpu[name] / cpu["now"] for name in ("before", "plain", "plain_tile")},
        "cpu_vs_floor": statistics.median(ours["cpu"] / least["cpu"] for ours, least in turns),
        "overcast_saved": 1 - overcast.bytes / Needs.of(list(archive.files(OVERCAST)), overcast).home_bytes,
        "peak_mb": ways["now"]["peak_mb"],
        **{f"peak_mb_{name}": ways[name]["peak_mb"] for name in ("before", "floor")},
        **{name: tile_figures(files, ways[name]) for name in ("before", "floor")},
        "cpu_seconds": cpu,
        "wall_seconds": {name: result["wall"] for name, result in ways.items()},
        "cells": len(task.cells),
        "needed_tiles": needs.needed,
        "needed_mb": needs.needed_bytes / 1e6,
    }
    figures["cells_compared"] = compare(task, ways["now"]["result"])
    return figures


def compare(task: Task, checksums: dict[str, int]) -> int:
    """The number of cells whose composites were compared. Raises SystemExit where one is another."""
    cells = task.spread(COMPARED)
    others = [
        cell.id
        for cell in cells
        if checksum(expected_composite(task.archive, cell, CHANGING)) != checksums.get(cell.id)
    ]
    if others:
        raise SystemExit(f"not as numpy has it: {', '.join(others)}")
    return len(cells)


def missed_bounds(figures: dict[str, Any]) -> list[str]:
    """The bounds that figures miss."""
    missed = [
        f"{name} {figures[name]:.3g}, at most {bound}" for name, bound in AT_MOST.items() if figures[name] > bound
    ]
    return missed + [
        f"{name} {figures[name]:.3g}, at least {bound}" for name, bound in AT_LEAST.items() if figures[name] < bound
    ]


def rounded(value: Any) -> Any:
    """Figures with three digits after the point, those in dictionaries too."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="3 x 3 split squares")
    parser.add_argument("--squares", type=int, default=2, help="split squares along a side of the region")
    parser.add_argument("--repeats", type=int, default=3, help="of ours and the floor")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="that make the granules")
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--month", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        task = Task.of(arguments.folder, arguments.squares, arguments.url, arguments.month)
        print(json.dumps(run_way(task, arguments.way)))
        return
    if arguments.full:
        arguments.squares = 3
    folder = Path(tempfile.mkdtemp(prefix="bench-reading-", dir=arguments.folder))
    try:
        figures = measure(arguments, folder)
    finally:
        shutil.rmtree(folder)
    for missed in missed_bounds(figures):
        print(f"bound missed: {missed}")
    print(json.dumps(rounded(figures)))


if __name__ == "__main__":
    main()
