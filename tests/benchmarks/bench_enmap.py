"""Cutting an EnMAP scene into blocks, reading each internal tile once, against a plain read of the same file.

    python tests/benchmarks/bench_enmap.py [--repeats 3] [--side 1000] [--folder DIR]

A scene of 1000 x 1000 px x 218 bands with all its quality layers, spectra with noise, is written as the archive's COGs
are: tiles of 512 px, deflate, bands interleaved by pixel. All its cells of 1920 m are read, resampled, kept in a
scratch folder, and put together in blocks of 32, in a process of its own; so is the plain read, rasterio's of the whole
image, and one of the image and all its layers.
Other layouts are the same pixels with bands one after the other in tiles, and in strips, as in products without COG.
Cells are compared with GDAL's warp of the whole image.

The last line is one JSON object:

- ratio_to_read: CPU of reading, resampling, keeping and putting together / CPU of the plain read; median of the repeats
  (bound: at most 2.5), and ratio_to_read_wall; ratio_to_read_all: with the layers, which the blocks need, in the plain
  read
- peak_mb: resident memory of the process, its libraries too (bound: at most 1.5 GiB, 1611 MB); peak_mb_plain
- decode_ratio: internal tiles of image and layers that were decoded / those under the cells (at most 1)
- with_shift_ratio: CPU with a shift of each detector of its own / without
- band.*, strips.*: the same of the other layouts
- cpu_seconds.*, share.<step>: of the CPU, and of our time by step; cells, blocks, file_mb; cells_compared
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pystac
import rasterio
import shapely
from affine import Affine
from bench_reading import cpu_seconds, rounded
from bench_store import peak_memory, reset_peak_memory
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject
from reading_tiles import counting_decoded

from h2crop_data.constants import COARSE, REFLECTANCE_FILL
from h2crop_data.enmap.detectors import Detector
from h2crop_data.enmap.product import Band
from h2crop_data.enmap.quality import LAYERS
from h2crop_data.grid import Cell, cells_of_area
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.shift import Shift
from h2crop_data.sources.enmap.assemble import EnmapTask, enmap_block, read_scene_into
from h2crop_data.sources.enmap.readings import EnmapReading, scene_reading
from h2crop_data.sources.enmap.scene import SceneFacts
from h2crop_data.sources.scratch import Scratch
from h2crop_data.sources.source import BlockGround
from h2crop_data.sources.timing import Stopwatch

EPSG, WEST, NORTH = 32632, 600_015, 5_800_035
BANDS, TILE, CELL = 218, 512, 1920
#: Cells of a block, and cells that are compared.
CAPACITY, COMPARED = 32, 3
#: The first bands are of one detector, the others of the other.
VNIR_BANDS, SHIFTS = 88, (Shift(7, -11), Shift(4, -8))
#: Options of each layout: of the COG driver, and of GTiff.
DEFLATED = {"compress": "deflate", "predictor": 2, "zlevel": 6}
TILED = {"tiled": True, "blockxsize": TILE, "blockysize": TILE}
LAYOUTS: dict[str, dict[str, Any]] = {
    "cog": {"driver": "COG", "blocksize": TILE, "compress": "deflate", "predictor": "yes", "overviews": "none"},
    "band": {"driver": "GTiff", "interleave": "band", **TILED, **DEFLATED},
    "strips": {"driver": "GTiff", "interleave": "pixel", "blockysize": 16, **DEFLATED},
}
AT_MOST = {"ratio_to_read": 2.5, "peak_mb": 1.5 * 2**30 / 1e6, "decode_ratio": 1.0}


def image_file(folder: Path, layout: str) -> Path:
    """The spectral image in one of the layouts."""
    return folder / f"{layout}-SPECTRAL_IMAGE.TIF"


def write_scene(folder: Path, side: int) -> None:
    """Image and layers, the image in every layout."""
    chance = np.random.default_rng(15)
    ground = [cv2.GaussianBlur(chance.normal(size=(side, side)).astype(np.float32), (0, 0), 3) * 8 for _ in range(3)]
    grid = {"width": side, "height": side, "crs": f"EPSG:{EPSG}", "transform": Affine(30, 0, WEST, 0, -30, NORTH)}
    spectral = np.empty((BANDS, side, side), np.int16)
    for band in range(BANDS):
        weights = np.cos(np.arange(3) + band / 40)
        reflectance = 2500 + 500 * sum(w * g for w, g in zip(weights, ground, strict=True))
        spectral[band] = reflectance + chance.normal(0, 20, (side, side))
    layers = {key: (ground[0] > 2.5).astype(np.uint8)[None] for key in LAYERS}
    layers["quality_classes"] = 1 + layers["quality_classes"]
    layers["defective_pixel_mask"] = (chance.random((BANDS, side, side), np.float32) < 1e-5).astype(np.uint8)
    for layout, options in LAYOUTS.items():
        images = {image_file(folder, layout): spectral}
        if layout == "cog":
            images |= {folder / f"{key}.TIF": pixels for key, pixels in layers.items()}
        for path, pixels in images.items():
            kind = {"count": len(pixels), "dtype": pixels.dtype, "nodata": -32768 if pixels is spectral else None}
            with rasterio.open(path, "w", **grid, **kind, **options) as file:
                file.write(pixels)


def reading_of(folder: Path, layout: str, shifted: bool) -> EnmapReading:
    """The scene over all cells that lie inside it."""
    item = pystac.Item("made", None, None, datetime(2022, 7, 1, tzinfo=UTC), {})
    item.add_asset("image", pystac.Asset(str(image_file(folder, layout))))
    for key in LAYERS:
        item.add_asset(key, pystac.Asset(str(folder / f"{key}.TIF")))
    with rasterio.open(image_file(folder, layout)) as file:
        area = shapely.box(*file.bounds)
    cells = cells_of_area(area, f"EPSG:{EPSG}", CELL, "inside")
    detectors: list[Detector] = ["vnir" if i < VNIR_BANDS else "swir" for i in range(BANDS)]
    bands = tuple(Band(i + 1, 420 + 9 * i, 8, 1e-4, 0, detector) for i, detector in enumerate(detectors))
    facts = SceneFacts(bands, {})
    shifts = {band.number: SHIFTS[band.detector == "swir"] for band in bands} if shifted else {}
    return scene_reading(item, facts, cells, shifts)


def in_blocks(folder: Path, layout: str, shifted: bool = False) -> dict[str, Any]:
    """Read the scene and make its blocks; cells to compare are kept."""
    reading, watch = reading_of(folder, layout, shifted), Stopwatch()
    scratch = Scratch(Path(tempfile.mkdtemp(prefix="scratch-", dir=folder)))
    settings = EnmapSettings(catalog="made")
    read_scene_into(scratch, reading.id, reading, watch)
    kept: dict[Cell, NDArray[np.int16]] = {}
    blocks = [reading.cells[first : first + CAPACITY] for first in range(0, len(reading.cells), CAPACITY)]
    for number, cells in enumerate(blocks):
        task = EnmapTask(settings, reading.only(set(cells)), reading.id)
        made = enmap_block(task, BlockGround(2022, "train", list(cells), CELL, scratch), watch)
        if number in (0, len(blocks) // 2, len(blocks) - 1):
            kept[cells[-1]] = made.arrays["enmap"][-1]
    scratch.delete()
    np.savez(folder / "kept.npz", **{cell.id: values for cell, values in kept.items()})
    return {"cells": len(reading.cells), "blocks": len(blocks), "steps": dict(watch.seconds)}


def plain(folder: Path, layout: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The whole image by rasterio, and layers."""
    total = 0
    for path in (image_file(folder, layout), *(folder / f"{key}.TIF" for key in keys)):
        with rasterio.open(path) as file:
            total += file.read().nbytes
    return {"bytes": total}


WAYS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "plain": plain,
    "files": lambda folder, layout: plain(folder, layout, LAYERS),
    "blocks": in_blocks,
    "shifted": lambda folder, layout: in_blocks(folder, layout, shifted=True),
}


def run_way(folder: Path, way: str, layout: str) -> dict[str, Any]:
    """Run a way in this process; what it took."""
    cv2.setNumThreads(1)
    reset_peak_memory()
    begin, start = cpu_seconds(), time.perf_counter()
    with counting_decoded() as decoded:
        found = WAYS[way](folder, layout)
    wall, cpu = time.perf_counter() - start, cpu_seconds() - begin
    return {"cpu": cpu, "wall": wall, "peak_mb": peak_memory() / 1e6, "decoded": decoded.count, **found}


def measure_way(folder: Path, way: str, layout: str) -> dict[str, Any]:
    """Run a way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--layout", layout, "--folder", str(folder)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    print(
        f"{layout:6s} {way:8s} {result['cpu']:6.2f} s CPU, {result['wall']:6.2f} s, peak {result['peak_mb']:5.0f} MB",
        flush=True,
    )
    return result


def tiles_under(folder: Path, layout: str, cells: Sequence[Cell]) -> int:
    """Internal tiles of image and layers under some cells."""
    total = 0
    for path in (image_file(folder, layout), *(folder / f"{key}.TIF" for key in LAYERS)):
        with rasterio.open(path) as file:
            height, width = file.block_shapes[0]
            touched = set[tuple[int, int]]()
            for cell in cells:
                west, south, east, north = cell.bounds
                left, top = ~file.transform @ (west, north)
                right, bottom = ~file.transform @ (east, south)
                # The kernel reaches two pixels further.
                rows = range(int(top - 2) // height, math.ceil(bottom + 2) // height + 1)
                columns = range(int(left - 2) // width, math.ceil(right + 2) // width + 1)
                touched |= {(row, column) for row in rows for column in columns}
            inside = [(y, x) for y, x in touched if 0 <= y * height < file.height and 0 <= x * width < file.width]
            total += len(inside)
    return total


def compare(folder: Path) -> int:
    """The number of cells that are GDAL's, byte by byte. Raises SystemExit where one is another."""
    with rasterio.open(image_file(folder, "cog")) as file:
        image, transform, crs = file.read().astype(np.float32), file.transform, file.crs
    kept = np.load(folder / "kept.npz")
    for name in kept.files:
        target = Cell.parse(name).geobox(COARSE)
        warped = np.empty((BANDS, *target.shape), np.float32)
        reproject(
            image,
            warped,
            src_transform=transform,
            src_crs=crs,
            src_nodata=REFLECTANCE_FILL,
            dst_transform=target.affine,
            dst_crs=crs,
            dst_nodata=REFLECTANCE_FILL,
            resampling=Resampling.cubic,
        )
        if (np.rint(warped) != kept[name]).any():
            raise SystemExit(f"not as GDAL has it: {name}")
    return len(kept.files)


def ratios(folder: Path, layout: str, repeats: int) -> dict[str, Any]:
    """Figures of a layout."""
    turns = [[measure_way(folder, way, layout) for way in ("plain", "files", "blocks")] for _ in range(repeats)]
    ours = sorted((blocks for *_, blocks in turns), key=lambda result: result["cpu"])[repeats // 2]
    needed = tiles_under(folder, layout, reading_of(folder, layout, shifted=False).cells)
    return {
        "ratio_to_read": statistics.median(blocks["cpu"] / read["cpu"] for read, _, blocks in turns),
        "ratio_to_read_wall": statistics.median(blocks["wall"] / read["wall"] for read, _, blocks in turns),
        "ratio_to_read_all": statistics.median(blocks["cpu"] / read["cpu"] for _, read, blocks in turns),
        "peak_mb": max(blocks["peak_mb"] for *_, blocks in turns),
        "peak_mb_plain": max(read["peak_mb"] for read, *_ in turns),
        "decode_ratio": ours["decoded"] / needed,
        "cpu_seconds": {"plain": statistics.median(read["cpu"] for read, *_ in turns), "blocks": ours["cpu"]},
        "share": {step: seconds / sum(ours["steps"].values()) for step, seconds in ours["steps"].items()},
        "file_mb": image_file(folder, layout).stat().st_size / 1e6,
        "cells": ours["cells"],
        "blocks": ours["blocks"],
    }


def measure(folder: Path, side: int, repeats: int) -> dict[str, Any]:
    """Write the scene, run every way, and compare."""
    write_scene(folder, side)
    figures = ratios(folder, "cog", repeats)
    figures["cells_compared"] = compare(folder)
    figures["with_shift_ratio"] = measure_way(folder, "shifted", "cog")["cpu"] / figures["cpu_seconds"]["blocks"]
    for layout in ("band", "strips"):
        figures[layout] = ratios(folder, layout, repeats)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=1000, help="pixels along the scene")
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--layout", choices=LAYOUTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(run_way(arguments.folder, arguments.way, arguments.layout)))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-enmap-", dir=arguments.folder))
    try:
        figures = measure(folder, arguments.side, arguments.repeats)
    finally:
        shutil.rmtree(folder)
    for name, bound in AT_MOST.items():
        if figures[name] > bound:
            print(f"bound missed: {name} {figures[name]:.3g}, at most {bound:.4g}")
    print(json.dumps(rounded(figures)))


if __name__ == "__main__":
    main()
