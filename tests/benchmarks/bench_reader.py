"""Reading training samples: our reader against decoding from memory, zarr-python, and uncompressed HDF5 files.

    python tests/benchmarks/bench_reader.py [--samples 32] [--repeats 7] [--folder DIR]

A sample is what training reads, 10.93 MB: EnMAP (218, 64, 64) and Sentinel-2 (12, 10, 192, 192) as int16, label and
prior (4, 192, 192) as uint8. One thread, one process, a warm page cache; the store is lz4 with blocks of 16 samples.
The variants take turns sample by sample, over the same samples and into the same buffers, so that what else the
machine does meets all of them; a ratio is the median of the ratios of each round over all samples.

The last line is one JSON object:

- samples_per_s: `ShardReader.read_into`, all four arrays
- vs_decode: that rate / the rate of decoding the same compressed chunks, held in memory, with numcodecs' Blosc
  (target at least 0.75)
- vs_zarr_python: our rate / zarr-python's, `array[i]` on the same store
- vs_h5py: our rate / h5py's, `read_direct` from one uncompressed contiguous HDF5 file a sample, opened for each sample
- six_months_ratio: our rate with 6 of the 12 months of Sentinel-2 / with all 12
- decode_samples_per_s, zarr_python_samples_per_s, h5py_samples_per_s, six_months_samples_per_s: the rates compared
- raw_mb, stored_mb: MB a sample in memory and on disk
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from bench_store import SEASON, believable_block, full_layout
from numcodecs import blosc
from numpy.typing import NDArray

from h2crop_data.constants import MONTHS
from h2crop_data.cube.reading import load_root
from h2crop_data.cube.schema import FORMAT_VERSION, Codec, StoreLayout, group_document
from h2crop_data.cube.shard import ShardReader, open_arrays
from h2crop_data.cube.writer import hold_store

TRAINING_ARRAYS = ("enmap", "s2", "label", "prior")
HALF = MONTHS // 2

Buffers = dict[str, NDArray[Any]]


def write_store(folder: Path, layout: StoreLayout, samples: int) -> None:
    """A store of so many samples; its blocks differ in the place of their samples along x."""
    block_arrays = believable_block(layout, layout.capacity)
    slots = -(-samples // layout.capacity) * layout.capacity
    with hold_store(folder) as builder, ThreadPoolExecutor(2) as pool:
        for block in range(slots // layout.capacity):
            moved = {name: np.roll(values, 8 * block, axis=-1) for name, values in block_arrays.items()}
            builder.write_block(SEASON, block, moved, layout, pool)
        members = {
            f"{SEASON}/{name}": spec.metadata(slots, layout.capacity, layout.codec)
            for name, spec in layout.arrays().items()
        }
        attributes = {"format_version": FORMAT_VERSION, "release": 1, "layout": layout.attributes()}
        root = group_document(attributes, {str(SEASON): group_document({}), **members})
        builder.write_json("zarr.json", root)


def write_hdf5(folder: Path, readers: dict[str, ShardReader], samples: int) -> None:
    """The same samples, one uncompressed contiguous HDF5 file each."""
    folder.mkdir()
    for slot in range(samples):
        with h5py.File(folder / f"{slot}.h5", "w") as file:
            for name, reader in readers.items():
                file.create_dataset(name, data=reader.read(slot))


def compressed_chunks(reader: ShardReader, slot: int, out: NDArray[Any]) -> list[tuple[bytes, NDArray[Any]]]:
    """A sample's chunks as they lie on disk, each with the part of the buffer that it decodes into."""
    block, place = divmod(slot, reader.capacity)
    data = reader.storage.read(reader.shard(block))
    count = reader.chunks_per_sample
    table = data[-4 - 16 * count * reader.capacity : -4][16 * count * place : 16 * count * (place + 1)]
    entries = np.frombuffer(table, "<u8").reshape(count, 2).tolist()
    return [
        (data[offset : offset + length], rows)
        for (offset, length), rows in zip(entries, out.reshape(count, -1), strict=True)
    ]


def ours(readers: dict[str, ShardReader], slot: int, out: Buffers) -> None:
    """A sample with our reader."""
    for name, reader in readers.items():
        reader.read_into(slot, out[name])


def decoding(chunks: list[tuple[bytes, NDArray[Any]]]) -> None:
    """A sample from memory: nothing but the decoder."""
    for chunk, rows in chunks:
        blosc.decompress(chunk, rows)


def zarr_python(arrays: dict[str, zarr.Array[Any]], slot: int) -> None:
    """A sample with zarr-python, in new arrays."""
    for array in arrays.values():
        array[slot]


def hdf5(path: Path, out: Buffers) -> None:
    """A sample with h5py."""
    with h5py.File(path, "r") as file:
        for name, buffer in out.items():
            file[name].read_direct(buffer)


def seconds(call: Callable[[], None]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(folder: Path, samples: int, repeats: int) -> dict[str, float]:
    """Every figure of this benchmark."""
    write_store(folder / "store", full_layout(Codec()), samples)
    opened = open_arrays(folder / "store", load_root(folder / "store"), SEASON)
    readers = {name: opened[name] for name in TRAINING_ARRAYS}
    write_hdf5(folder / "hdf5", readers, samples)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*onsolidated metadata.*")
        season = zarr.open_group(folder / "store", mode="r")[str(SEASON)]
    theirs = {name: season[name] for name in TRAINING_ARRAYS}
    out = {name: np.empty(reader.sample_shape, reader.dtype) for name, reader in readers.items()}
    half = {**out, "s2": np.empty_like(out["s2"][:HALF])}
    chunks = [
        [pair for name, reader in readers.items() for pair in compressed_chunks(reader, slot, out[name])]
        for slot in range(samples)
    ]
    stored = sum(len(chunk) for sample in chunks for chunk, _ in sample) / samples / 1e6
    raw = sum(buffer.nbytes for buffer in out.values()) / 1e6
    calls: dict[str, Callable[[int], None]] = {
        "ours": lambda slot: ours(readers, slot, out),
        "decode": lambda slot: decoding(chunks[slot]),
        "zarr_python": lambda slot: zarr_python(theirs, slot),
        "h5py": lambda slot: hdf5(folder / "hdf5" / f"{slot}.h5", out),
        "six_months": lambda slot: ours(readers, slot, half),
    }
    rounds = np.zeros((repeats + 1, len(calls)))
    for turn in rounds:
        for slot in range(samples):
            for i, call in enumerate(calls.values()):
                turn[i] += seconds(lambda call=call, slot=slot: call(slot))
    times = dict(zip(calls, rounds[1:].T, strict=True))  # the first round warms up
    rates = {name: float(samples / np.median(taken)) for name, taken in times.items()}
    print(f"{samples} samples of {raw:.2f} MB ({stored:.2f} stored), one thread, medians of {repeats}")
    for name, taken in times.items():
        print(f"{name:12s} {rates[name]:6.1f} samples/s ({samples / taken.max():.1f} to {samples / taken.min():.1f})")

    def ratio(name: str, other: str) -> float:
        """How many times the rate of the other."""
        return float(np.median(times[other] / times[name]))

    return {
        "samples_per_s": rates["ours"],
        "vs_decode": ratio("ours", "decode"),
        "vs_zarr_python": ratio("ours", "zarr_python"),
        "vs_h5py": ratio("ours", "h5py"),
        "six_months_ratio": ratio("six_months", "ours"),
        **{f"{name}_samples_per_s": rate for name, rate in rates.items() if name != "ours"},
        "raw_mb": raw,
        "stored_mb": stored,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-reader-", dir=arguments.folder))
    try:
        figures = measure(folder, arguments.samples, arguments.repeats)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
