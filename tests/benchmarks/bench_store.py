"""Writing blocks: the builder's time against compressing and writing the same chunks by hand, its memory, its rates.

    python tests/benchmarks/bench_store.py [--samples 16] [--repeats 3] [--threads 2] [--folder DIR]

Cells of 1920 m, 218 EnMAP bands, 10 Sentinel-2 bands, every array of the format, bit shuffle with lz4 and zstd.
By hand means: the same chunks through the same compressor in as many threads, then one file an array, synced, and its
folder synced; no index, no checksums, no renaming. Hashing the files for the manifest is the builder's next step and is
told apart: where the processor has no instructions for sha256 it takes longer than writing. The variants take turns in
one run; a ratio is the median of the ratios of each turn.

The last line is one JSON object:

- write_vs_hand: seconds of `StoreBuilder.write_block` / seconds by hand, lz4 (target at most 1.5)
- write_and_hash_vs_hand: writing and hashing / seconds by hand (which does not hash), lz4
- zstd_write_vs_hand: as write_vs_hand, with zstd
- sha256_mb_per_s: how fast one thread of this machine hashes
- write_extra_mb: peak memory of the process above what it held before with the block's arrays made, lz4
- {lz4,zstd}_mb: MB a sample on disk; {lz4,zstd}_samples_per_s: samples written a second
- lz4_read_samples_per_s: whole samples, every array, read a second from a warm page cache
- raw_mb: MB a sample before compression
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from h2crop_data.constants import MONTHS, TIERS, UNKNOWN
from h2crop_data.cube.root import stored_data
from h2crop_data.cube.schema import Codec, StoreLayout
from h2crop_data.cube.shard import BITSHUFFLE, ShardReader
from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.sources.formats import known_layout
from h2crop_data.storage.local import LocalStorage, sync

SEASON = 2022
S2_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
ENMAP_BANDS = 218
#: The block written with each codec.
BLOCKS = {"lz4": 0, "zstd": 1}
#: Parcels of a cell, and the deviation of a pixel's reflectance x 10000 from its parcel's: with 60 the samples
#: compress as much as real ones do (10.9 MB of training arrays to about 7.2 with lz4, 6.5 with zstd).
PARCELS, NOISE = 40, 60.0


def full_layout(codec: Codec, capacity: int = 16) -> StoreLayout:
    """The layout of a store of full size."""
    return known_layout(1920, capacity, codec, s2_bands=S2_BANDS, enmap_bands=ENMAP_BANDS)


def parcel_map(rng: np.random.Generator, side: int) -> NDArray[np.intp]:
    """(side, side) the number of the parcel of each pixel: the nearest of PARCELS random centres."""
    y, x = np.mgrid[:side, :side]
    centres = rng.integers(0, side, (PARCELS, 2))
    squared = (y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2
    nearest: NDArray[np.intp] = squared.argmin(-1)
    return nearest


def reflectance(rng: np.random.Generator, parcels: NDArray[np.intp], bands: int) -> NDArray[np.int16]:
    """(bands, side, side) int16: smooth spectra of parcels, a gradient over the cell, and noise."""
    spectra = np.abs(rng.normal(1500, 800, (PARCELS, 1)) + rng.normal(0, 60, (PARCELS, bands)).cumsum(1))
    gradient = np.linspace(-100, 100, len(parcels))[:, None]
    noise = rng.standard_normal((bands, *parcels.shape), "float32") * NOISE
    return np.clip(np.moveaxis(spectra[parcels], -1, 0) + gradient + noise, 1, 16000).astype("int16")


def believable_sample(rng: np.random.Generator, layout: StoreLayout) -> dict[str, NDArray[Any]]:
    """One sample of every array, as compressible as real data."""
    fine, coarse = parcel_map(rng, layout.fine), parcel_map(rng, layout.coarse)
    crops = rng.integers(0, 40, (2, TIERS, PARCELS)).astype("uint8")
    crops[:, :, :5], crops[:, TIERS - 1, 5:10] = 0, UNKNOWN
    days = np.arange(15, 15 + 30 * MONTHS, 30)
    return {
        "enmap": reflectance(rng, coarse, stored_data(layout.attributes()).enmap_bands),
        "enmap_quality": np.where(coarse < 4, 4, 0).astype("uint16"),
        "s2": np.stack([reflectance(rng, fine, len(stored_data(layout.attributes()).s2_bands)) for _ in range(MONTHS)]),
        "s2_clear": np.stack([(fine + month) % 5 for month in range(MONTHS)]).astype("uint8"),
        "s2_day": np.stack([day + fine % 7 for day in days]).astype("uint16"),
        "label": crops[0][:, fine],
        "prior": crops[1][:, fine],
        "parcel": (100_000 + fine).astype("uint32"),
    }


def believable_block(layout: StoreLayout, samples: int) -> dict[str, NDArray[Any]]:
    """The arrays of one block: name -> (samples, *sample_shape)."""
    rng = np.random.default_rng(0)
    arrays = {name: np.empty((samples, *spec.sample_shape), spec.dtype) for name, spec in layout.arrays().items()}
    for i in range(samples):
        for name, values in believable_sample(rng, layout).items():
            arrays[name][i] = values
    return arrays


def write_by_hand(folder: Path, arrays: dict[str, NDArray[Any]], layout: StoreLayout, pool: ThreadPoolExecutor) -> None:
    """Compress every chunk of a block and write one file an array: the least that any writer does."""
    codec = layout.codec
    for name, spec in layout.arrays().items():
        chunks = arrays[name].reshape(-1, *spec.chunk[1:])
        parts = pool.map(lambda chunk: blosc.compress(chunk, codec.name.encode(), codec.level, BITSHUFFLE), chunks)
        with (folder / name).open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
    sync(folder)


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def hashing_rate() -> float:
    """MB a second that one thread puts through SHA-256."""
    data = bytes(20_000_000)
    return 20 / statistics.median(seconds(lambda: hashlib.sha256(data)) for _ in range(5))


def peak_memory() -> int:
    """The process's peak resident memory since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def reset_peak_memory() -> None:
    """Let the peak start again from what the process holds now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def measure_memory(folder: Path, samples: int, threads: int) -> float:
    """MB of memory that writing one block takes above what the process holds with its arrays."""
    layout = full_layout(Codec())
    arrays = believable_block(layout, samples)
    with hold_store(folder) as builder, ThreadPoolExecutor(threads) as pool:
        reset_peak_memory()
        before = peak_memory()
        builder.write_block(SEASON, 0, arrays, layout, pool)
        return (peak_memory() - before) / 1e6


def measure_memory_alone(folder: Path, samples: int, threads: int) -> float:
    """The same in a process of its own, whose memory nothing else has stretched before."""
    command = [sys.executable, __file__, "--memory", "--samples", str(samples), "--threads", str(threads)]
    output = subprocess.run([*command, "--folder", str(folder)], check=True, capture_output=True, text=True).stdout
    return float(output)


def variants(
    builder: StoreBuilder, by_hand: Path, arrays: dict[str, NDArray[Any]], pool: ThreadPoolExecutor
) -> dict[str, Callable[[], Any]]:
    """What takes turns: the builder with each codec (blocks as BLOCKS numbers them), and the same by hand."""
    lz4, zstd = full_layout(Codec("lz4")), full_layout(Codec("zstd"))
    for name in ("lz4", "zstd"):
        (by_hand / name).mkdir(parents=True)

    def write_and_hash() -> None:
        names = builder.write_block(SEASON, BLOCKS["lz4"], arrays, lz4, pool)
        list(pool.map(builder.describe, names))

    return {
        "lz4": partial(builder.write_block, SEASON, BLOCKS["lz4"], arrays, lz4, pool),
        "lz4 by hand": partial(write_by_hand, by_hand / "lz4", arrays, lz4, pool),
        "lz4 and hash": write_and_hash,
        "zstd": partial(builder.write_block, SEASON, BLOCKS["zstd"], arrays, zstd, pool),
        "zstd by hand": partial(write_by_hand, by_hand / "zstd", arrays, zstd, pool),
    }


def read_everything(store: Path, layout: StoreLayout, samples: int) -> float:
    """Samples a second that readers of every array give from the first block."""
    specs = layout.arrays()
    readers = {
        name: ShardReader(
            LocalStorage(store), f"{SEASON}/{name}", spec.metadata(layout.capacity, layout.capacity, layout.codec)
        )
        for name, spec in specs.items()
    }
    out = {name: np.empty(spec.sample_shape, spec.dtype) for name, spec in specs.items()}

    def read() -> None:
        for slot in range(samples):
            for name, reader in readers.items():
                reader.read_into(slot, out[name])

    return samples / statistics.median(seconds(read) for _ in range(3))


def measure(folder: Path, samples: int, repeats: int, threads: int) -> dict[str, float]:
    """Every figure of this benchmark."""
    layout = full_layout(Codec())
    arrays = believable_block(layout, samples)
    raw = sum(values.nbytes for values in arrays.values())
    print(f"one block: {samples} samples, {raw / 1e6:.0f} MB raw; {threads} threads; medians of {repeats}")
    times: dict[str, list[float]] = {}
    with hold_store(folder / "store") as builder, ThreadPoolExecutor(threads) as pool:
        calls = variants(builder, folder / "by hand", arrays, pool)
        for _ in range(repeats + 1):
            for written in [*Path(builder.location).glob(f"{SEASON}/*/*"), *folder.glob("by hand/*/*")]:
                written.unlink()
            for name, call in calls.items():
                times.setdefault(name, []).append(seconds(call))
        times = {name: taken[1:] for name, taken in times.items()}  # the first turn warms up
        sizes = {
            name: sum(path.stat().st_size for path in Path(builder.location).glob(f"{SEASON}/*/c.{block}.*"))
            / samples
            / 1e6
            for name, block in BLOCKS.items()
        }

        def ratio(name: str, other: str) -> float:
            """How many times the seconds of the other."""
            return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))

        figures = {
            "write_vs_hand": ratio("lz4", "lz4 by hand"),
            "write_and_hash_vs_hand": ratio("lz4 and hash", "lz4 by hand"),
            "zstd_write_vs_hand": ratio("zstd", "zstd by hand"),
            "sha256_mb_per_s": hashing_rate(),
            "write_extra_mb": measure_memory_alone(folder / "memory", samples, threads),
            "raw_mb": raw / samples / 1e6,
        }
        for name, size in sizes.items():
            figures[f"{name}_mb"] = size
            figures[f"{name}_samples_per_s"] = samples / statistics.median(times[name])
        figures["lz4_read_samples_per_s"] = read_everything(folder / "store", layout, samples)
    for name, taken in times.items():
        median = statistics.median(taken)
        spread = f"{min(taken):.2f} to {max(taken):.2f}"
        print(f"{name:20s} {median:6.2f} s a block ({spread}), {samples / median:6.1f} samples/s")
    print(f"MB a sample: {sizes['lz4']:.2f} with lz4, {sizes['zstd']:.2f} with zstd, {figures['raw_mb']:.2f} raw")
    print(f"write_block / by hand: {figures['write_vs_hand']:.2f} (lz4), {figures['zstd_write_vs_hand']:.2f} (zstd)")
    print(
        f"write_block and hashes / by hand: {figures['write_and_hash_vs_hand']:.2f} (lz4); "
        f"one thread hashes {figures['sha256_mb_per_s']:.0f} MB/s"
    )
    print(f"memory above the block's arrays: {figures['write_extra_mb']:.0f} MB")
    print(f"read, every array: {figures['lz4_read_samples_per_s']:.0f} samples/s")
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16, help="samples in the block")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--memory", action="store_true", help="only print the extra memory of writing one block")
    arguments = parser.parse_args()
    if arguments.memory:
        print(measure_memory(arguments.folder, arguments.samples, arguments.threads))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-store-", dir=arguments.folder))
    try:
        figures = measure(folder, arguments.samples, arguments.repeats, arguments.threads)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
