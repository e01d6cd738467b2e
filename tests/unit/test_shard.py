"""The shard format: other Zarr readers and ours agree, the bytes are as specified, damage is told and never read."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import re
import shutil
import struct
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tensorstore
import zarr
from changed_stores import overwrite
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numcodecs import Blosc, blosc
from numcodecs.checksum32 import CRC32C
from numpy.typing import NDArray

from h2crop_data.cube.reading import load_root
from h2crop_data.cube.schema import FORMAT_VERSION, ArraySpec, Codec, StoreLayout, group_document
from h2crop_data.cube.shard import (
    IndexCache,
    ShardReader,
    decode_chunk,
    encode_chunk,
    encode_shard,
    open_arrays,
    shard_name,
    size_in_memory,
)
from h2crop_data.cube.writer import hold_store
from h2crop_data.errors import StoreError
from h2crop_data.sources.formats import known_layout
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.storage import canonical_json

SEASON = 2022
CAPACITY = 4
#: Samples in each block that was built; block 2 was not, and two blocks are not full.
SAMPLES = {0: 4, 1: 3, 3: 1}
SLOTS = 4 * CAPACITY
#: A slot whose sample has all-fill chunks: two months of Sentinel-2, and all of EnMAP.
GAPPY_SLOT = 1
EMPTY_MONTHS = [0, 5]
#: A slot of the block that was not built.
MISSING_SLOT = 2 * CAPACITY
#: Seconds after which a child process that reads counts as hung.
PATIENCE = 60
FORK = multiprocessing.get_context("fork")

# A warning of zarr-python that the store's design accepts: the root is consolidated by h2crop itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*onsolidated metadata.*")


def small_layout(codec: Codec = Codec()) -> StoreLayout:  # noqa: B008 -- it cannot be changed
    """Cells of 240 m: 24 x 24 px at 10 m, 8 x 8 px at 30 m, with every array of the format."""
    bands = ("B02", "B03", "B04")
    return known_layout(cell_size=240, capacity=CAPACITY, codec=codec, s2_bands=bands, enmap_bands=7)


def block_arrays(layout: StoreLayout, block: int) -> dict[str, NDArray[Any]]:
    """The arrays of a block, the same at every call."""
    rng = np.random.default_rng(block)
    specs = layout.arrays()
    arrays = {}
    for name, spec in specs.items():
        top = min(5000, int(np.iinfo(spec.dtype).max))
        arrays[name] = rng.integers(0, top, (SAMPLES[block], *spec.sample_shape)).astype(spec.dtype)
    if block == GAPPY_SLOT // CAPACITY:
        for name in ("s2", "s2_clear", "s2_day"):
            arrays[name][GAPPY_SLOT % CAPACITY, EMPTY_MONTHS] = specs[name].fill
        arrays["enmap"][GAPPY_SLOT % CAPACITY] = specs["enmap"].fill
    return arrays


@dataclass(frozen=True)
class Written:
    """A small store and what was written into it: name -> (SLOTS, *sample_shape), fill where nothing was."""

    folder: Path
    layout: StoreLayout
    truth: dict[str, NDArray[Any]]

    def reader(self, name: str) -> ShardReader:
        """A fresh reader of one array, without any cached index."""
        return open_arrays(self.folder, load_root(self.folder), SEASON)[name]

    def shard(self, name: str, block: int) -> Path:
        """The shard file of a block."""
        return self.folder / str(SEASON) / name / shard_name(block, self.truth[name].ndim)


def write_store(folder: Path, layout: StoreLayout) -> Written:
    """Write the blocks through the builder and a consolidated root by hand."""
    specs = layout.arrays()
    truth = {name: np.full((SLOTS, *spec.sample_shape), spec.fill, spec.dtype) for name, spec in specs.items()}
    with hold_store(folder) as builder, ThreadPoolExecutor(2) as pool:
        for block, samples in SAMPLES.items():
            arrays = block_arrays(layout, block)
            builder.write_block(SEASON, block, arrays, layout, pool)
            for name, values in arrays.items():
                truth[name][block * CAPACITY : block * CAPACITY + samples] = values
    members = {f"{SEASON}/{name}": spec.metadata(SLOTS, layout.capacity, layout.codec) for name, spec in specs.items()}
    attributes = {"format_version": FORMAT_VERSION, "release": 1, "layout": layout.attributes()}
    root = group_document(attributes, {str(SEASON): group_document({}), **members})
    (folder / "zarr.json").write_text(canonical_json(root), encoding="utf-8")
    return Written(folder, layout, truth)


@pytest.fixture(scope="module", params=[Codec(), Codec("zstd", checksum=False)], ids=["lz4", "zstd"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A small store of each codec, the second without checksums of chunks, as in format 1; not to be changed."""
    return write_store(tmp_path_factory.mktemp("made") / "store", small_layout(request.param))


@pytest.fixture
def damageable(store: Written, tmp_path: Path) -> Written:
    """A copy of the store whose files a test may damage."""
    return Written(Path(shutil.copytree(store.folder, tmp_path / "store")), store.layout, store.truth)


# What readers see


def test_every_array_holds_what_was_written_and_zarr_python_reads_the_same(store: Written) -> None:
    readers = open_arrays(store.folder, load_root(store.folder), SEASON)
    season = zarr.open_group(store.folder, mode="r")[str(SEASON)]
    assert set(readers) == set(store.layout.arrays())
    for name, reader in readers.items():
        theirs = season[name]
        assert (len(reader), reader.dtype, reader.shape) == (SLOTS, theirs.dtype, theirs.shape)
        for slot in range(SLOTS):
            ours = reader.read(slot)
            np.testing.assert_array_equal(ours, store.truth[name][slot], err_msg=f"{name} {slot}")
            np.testing.assert_array_equal(ours, theirs[slot], err_msg=f"{name} {slot}")


@pytest.mark.parametrize("name", ["s2", "s2_clear", "s2_day"])
def test_any_range_of_months_can_be_read(store: Written, name: str) -> None:
    reader = store.reader(name)
    months = len(store.truth[name][0])
    for slot in (0, GAPPY_SLOT, 2 * CAPACITY, 3 * CAPACITY):
        for first in range(months):
            for count in range(1, months - first + 1):
                out = np.ones((count, *reader.sample_shape[1:]), reader.dtype)
                reader.read_into(slot, out, first)
                np.testing.assert_array_equal(out, store.truth[name][slot, first : first + count])


def test_a_month_that_holds_nothing_can_be_read_alone(store: Written) -> None:
    reader = store.reader("s2")
    out = np.ones((1, *reader.sample_shape[1:]), reader.dtype)
    reader.read_into(GAPPY_SLOT, out, first=EMPTY_MONTHS[1])
    assert (out == reader.fill).all()


def test_slots_of_a_missing_block_and_past_the_last_sample_give_the_fill_value(store: Written) -> None:
    assert not store.shard("s2", 2).exists()
    for name in store.truth:
        reader = store.reader(name)
        for slot in (2 * CAPACITY, 3 * CAPACITY - 1, 3 * CAPACITY + 1, SLOTS - 1):
            assert (reader.read(slot) == reader.fill).all(), (name, slot)


def write_with_zarr_python(folder: Path, document: dict[str, Any], values: NDArray[Any]) -> None:
    """Fill an array of this metadata with zarr-python's own shard writer."""
    folder.mkdir()
    (folder / "zarr.json").write_text(json.dumps(document), encoding="utf-8")
    array = zarr.open_array(folder, mode="r+")
    array[: len(values)] = values


def write_with_tensorstore(folder: Path, document: dict[str, Any], values: NDArray[Any]) -> None:
    """Fill an array of this metadata with tensorstore's shard writer."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}, "metadata": document, "create": True}
    tensorstore.open(spec).result()[: len(values)].write(values).result()


@pytest.mark.parametrize("write", [write_with_zarr_python, write_with_tensorstore])
@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_shards_of_other_writers_are_read_right(
    write: Callable[[Path, dict[str, Any], NDArray[Any]], None], codec: Literal["lz4", "zstd"], tmp_path: Path
) -> None:
    layout = small_layout(Codec(codec))
    arrays = block_arrays(layout, 0)
    for name, spec in layout.arrays().items():
        document = spec.metadata(SLOTS, CAPACITY, layout.codec)
        write(tmp_path / name, document, arrays[name])
        reader = ShardReader(LocalStorage(tmp_path), name, document)
        assert (tmp_path / reader.shard(0)).is_file()
        for slot, sample in enumerate(arrays[name]):
            np.testing.assert_array_equal(reader.read(slot), sample, err_msg=f"{name} {slot}")
        if reader.chunks_per_sample > 1:
            out = np.empty((5, *reader.sample_shape[1:]), reader.dtype)
            reader.read_into(GAPPY_SLOT, out, first=3)
            np.testing.assert_array_equal(out, arrays[name][GAPPY_SLOT, 3:8])


# The bytes


def slow_crc32c(data: bytes) -> int:
    """CRC32C bit by bit (RFC 3720, appendix B.4: reflected polynomial 0x82F63B78)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_the_slow_checksum_gives_the_published_check_value() -> None:
    assert slow_crc32c(b"123456789") == 0xE3069283


def parse_index(shard: bytes, entries: int) -> list[tuple[int, int]]:
    """The (offset, length) pairs at the end of a shard, before its checksum."""
    table = shard[-4 - 16 * entries : -4]
    return list(struct.iter_unpack("<QQ", table))


@pytest.mark.parametrize("block", SAMPLES)
def test_a_shard_is_its_chunks_in_c_order_without_gaps_then_the_index_then_its_crc32c(
    store: Written, block: int
) -> None:
    for name, spec in store.layout.arrays().items():
        shard = store.shard(name, block).read_bytes()
        entries = CAPACITY * spec.chunks_per_sample
        assert shard[-4:] == slow_crc32c(shard[-4 - 16 * entries : -4]).to_bytes(4, "little"), name
        values = store.truth[name][block * CAPACITY : (block + 1) * CAPACITY]
        chunks = values.reshape(entries, *spec.chunk[1:])
        position = 0
        for chunk, (offset, length) in zip(chunks, parse_index(shard, entries), strict=True):
            if (chunk == spec.fill).all():
                assert (offset, length) == (2**64 - 1, 2**64 - 1), name
            else:
                assert offset == position, name
                decoded = Blosc().decode(shard[offset : offset + length])
                assert decoded == chunk.astype(spec.dtype.newbyteorder("<")).tobytes(), name
                position += length
        assert position == len(shard) - 16 * entries - 4, name


def test_chunks_without_data_take_no_room(store: Written) -> None:
    entries = parse_index(store.shard("s2", 0).read_bytes(), CAPACITY * 12)
    absent = [i for i, (offset, _) in enumerate(entries) if offset == 2**64 - 1]
    assert absent == [GAPPY_SLOT * 12 + month for month in EMPTY_MONTHS]


def test_a_block_without_data_is_only_an_index() -> None:
    spec = small_layout().arrays()["label"]
    parts = encode_shard(np.full((2, *spec.sample_shape), spec.fill, spec.dtype), spec, CAPACITY, Codec())
    assert len(b"".join(parts)) == 16 * CAPACITY + 4


def test_the_bytes_are_the_same_whatever_the_number_of_threads_and_the_memory_order(store: Written) -> None:
    for name, spec in store.layout.arrays().items():
        values = store.truth[name][:CAPACITY]
        written = store.shard(name, 0).read_bytes()
        assert b"".join(encode_shard(values, spec, CAPACITY, store.layout.codec)) == written
        assert b"".join(encode_shard(np.asfortranarray(values), spec, CAPACITY, store.layout.codec)) == written
        for threads in (1, 5):
            with ThreadPoolExecutor(threads) as pool:
                assert b"".join(encode_shard(values, spec, CAPACITY, store.layout.codec, pool.map)) == written


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_the_bytes_are_the_same_whatever_the_number_of_cores(codec: Literal["lz4", "zstd"]) -> None:
    chunk = np.random.default_rng(1).integers(0, 100, (1, 1024, 1024)).astype(np.int16)
    before = blosc.get_nthreads()
    try:
        encoded = set()
        for cores in (1, 4):
            blosc.set_nthreads(cores)
            encoded.add(encode_chunk(chunk, -1, Codec(codec)))
    finally:
        blosc.set_nthreads(before)
    assert len(encoded) == 1


def test_arrays_that_do_not_fit_the_shard_are_refused() -> None:
    spec = small_layout().arrays()["s2"]
    right = np.zeros((CAPACITY, *spec.sample_shape), spec.dtype)
    for wrong in (right[:, :6], np.zeros((CAPACITY + 1, *spec.sample_shape), spec.dtype), right.astype("int32")):
        with pytest.raises(ValueError, match=r"s2: expected .*, got"):
            encode_shard(wrong, spec, CAPACITY, Codec())


# Round trips of anything


@st.composite
def shards(draw: st.DrawFn) -> tuple[ArraySpec, int, Codec, NDArray[Any]]:
    """An array of random shape and type, the capacity and codec of its shards, and samples of one of them."""
    dtype = np.dtype(draw(st.sampled_from(["uint8", "int16", "uint16", "uint32"])))
    step = draw(st.integers(1, 3))
    inner = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    shape = (step * draw(st.integers(1, 4)), *inner)
    fill = draw(st.sampled_from([0, int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)]))
    dims = tuple(f"d{i}" for i in range(len(shape) + 1))
    spec = ArraySpec("anything", "s2", dims, shape, (1, step, *inner), dtype, fill)
    capacity = draw(st.integers(1, 4))
    codec = Codec(draw(st.sampled_from(["lz4", "zstd"])), draw(st.integers(0, 9)), draw(st.booleans()))
    # Most elements equal the fill value, so that chunks are left out.
    values = draw(hnp.arrays(dtype, (draw(st.integers(0, capacity)), *shape), fill=st.just(fill)))
    return spec, capacity, codec, values


@settings(max_examples=150, deadline=None)
@given(shards(), st.data())
def test_what_was_encoded_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, shard: tuple[ArraySpec, int, Codec, NDArray[Any]], data: st.DataObject
) -> None:
    spec, capacity, codec, values = shard
    block = data.draw(st.integers(0, 3))
    folder = tmp_path_factory.mktemp("shard")
    document = spec.metadata((block + 1) * capacity, capacity, codec)
    reader = ShardReader(LocalStorage(folder), str(SEASON), document)
    (folder / str(SEASON)).mkdir()
    overwrite(folder / reader.shard(block), b"".join(encode_shard(values, spec, capacity, codec)))
    first = spec.chunk[1] * data.draw(st.integers(0, spec.chunks_per_sample - 1))
    rows = spec.chunk[1] * data.draw(st.integers(1, spec.chunks_per_sample - first // spec.chunk[1]))
    for place in range(capacity):
        truth = values[place] if place < len(values) else np.full(spec.sample_shape, spec.fill, spec.dtype)
        np.testing.assert_array_equal(reader.read(block * capacity + place), truth)
        out = np.empty((rows, *spec.sample_shape[1:]), spec.dtype)
        reader.read_into(block * capacity + place, out, first)
        np.testing.assert_array_equal(out, truth[first : first + rows])


# Damage


def flip(path: Path, position: int, bits: int = 0xFF) -> None:
    """Flip bits of one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= bits
    overwrite(path, data)


def read_or_told(reader: ShardReader, slot: int) -> tuple[str, NDArray[Any] | None]:
    """A sample of a damaged shard, or what the reader said of the damage."""
    try:
        return "", reader.read(slot)
    except StoreError as error:
        return str(error), None


@pytest.mark.parametrize("name", ["s2", "label", "parcel"])
@pytest.mark.parametrize("byte", range(16))
def test_a_flipped_bit_in_a_chunks_header_is_told_or_changes_nothing(damageable: Written, name: str, byte: int) -> None:
    path, truth = damageable.shard(name, 1), damageable.truth[name]
    for bit in range(8):
        flip(path, byte, 1 << bit)
        told, sample = read_or_told(damageable.reader(name), CAPACITY)
        if sample is None:
            assert str(path) in told
        else:
            np.testing.assert_array_equal(sample, truth[CAPACITY], err_msg=f"bit {bit}")
        np.testing.assert_array_equal(damageable.reader(name).read(CAPACITY + 1), truth[CAPACITY + 1])
        flip(path, byte, 1 << bit)


@pytest.mark.parametrize("byte", [0, 2, 3, 4, 7, 12, 15])
def test_a_destroyed_header_is_told(damageable: Written, byte: int) -> None:
    path = damageable.shard("s2", 0)
    flip(path, byte)
    with pytest.raises(StoreError, match=r"chunk at byte 0 is damaged") as raised:
        damageable.reader("s2").read(0)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("behind", [b"\0", b"x" * 100])
def test_a_chunk_with_bytes_behind_it_is_told(behind: bytes) -> None:
    values = np.arange(64, dtype=np.int16)
    encoded = encode_chunk(values, -1, Codec(checksum=False))
    assert encoded is not None
    out = np.empty_like(values)
    decode_chunk(memoryview(encoded), out, checksum=False)
    np.testing.assert_array_equal(out, values)
    with pytest.raises(ValueError, match=f"expected 128 bytes encoded in {len(encoded) + len(behind)}"):
        decode_chunk(memoryview(encoded + behind), out, checksum=False)


def test_a_chunk_is_followed_by_the_crc32c_of_its_bytes() -> None:
    values = np.random.default_rng(3).integers(0, 9000, 256).astype(np.int16)
    plain, checked = (encode_chunk(values, -1, Codec(checksum=checksum)) for checksum in (False, True))
    assert plain is not None
    # The codec of another library is the witness.
    assert checked == bytes(CRC32C().encode(plain))
    out = np.empty_like(values)
    for position in range(len(checked)):
        damaged = bytearray(checked)
        damaged[position] ^= 1
        with pytest.raises(ValueError, match="its CRC32C is not that of its bytes"):
            decode_chunk(memoryview(damaged), out, checksum=True)


@pytest.mark.parametrize("slot", [0, 1])
def test_any_flipped_bit_of_a_chunk_is_reported_with_shard_and_chunk(tmp_path: Path, slot: int) -> None:
    store = write_store(tmp_path / "store", small_layout())
    path = store.shard("label", 0)
    index = path.read_bytes()[-16 * CAPACITY - 4 :]
    offset, length = struct.unpack_from("<2Q", index, 16 * slot)
    for position in np.random.default_rng(slot).integers(offset, offset + length, 40).tolist():
        flip(path, position, 4)
        with pytest.raises(StoreError, match=f"{re.escape(str(path))}: chunk at byte {offset} is damaged"):
            store.reader("label").read(slot)
        flip(path, position, 4)


@pytest.mark.parametrize("from_end", [1, 4, 5, 100, 16 * CAPACITY * 12 + 4])
def test_a_flipped_byte_in_the_index_is_told(damageable: Written, from_end: int) -> None:
    path = damageable.shard("s2", 0)
    flip(path, -from_end, 1)
    with pytest.raises(StoreError, match="index is damaged") as raised:
        damageable.reader("s2").read(0)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("kept", [0, 3, 4, 100, 0.5, -1000, -4, -1])
def test_a_shard_cut_short_is_told(damageable: Written, kept: float) -> None:
    path = damageable.shard("s2", 0)
    data = path.read_bytes()
    overwrite(path, data[: int(kept * len(data)) if kept == 0.5 else int(kept)])
    with pytest.raises(StoreError, match="truncated") as raised:
        damageable.reader("s2").read(0)
    assert str(path) in str(raised.value)


def test_a_shard_cut_short_after_its_index_was_read_is_told(damageable: Written) -> None:
    reader, path = damageable.reader("s2"), damageable.shard("s2", 0)
    reader.read(0)
    overwrite(path, path.read_bytes()[:100])
    for slot in (0, 3):
        with pytest.raises(StoreError, match="damaged") as raised:
            reader.read(slot)
        assert str(path) in str(raised.value)


def test_a_shard_deleted_after_its_index_was_read_is_told(damageable: Written) -> None:
    reader, path = damageable.reader("s2"), damageable.shard("s2", 0)
    reader.read(0)
    path.unlink()
    with pytest.raises(StoreError, match="cannot read") as raised:
        reader.read(0)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("entry", [(10**9, 100), (0, 10**9), (2**64 - 2, 10), (0, 2**64 - 1), (100, 2**64 - 100)])
def test_an_index_that_points_outside_the_file_is_told_even_with_a_right_checksum(
    damageable: Written, entry: tuple[int, int]
) -> None:
    path = damageable.shard("label", 0)
    data = path.read_bytes()
    table = struct.pack("<QQ", *entry) + data[-4 - 16 * CAPACITY : -4][16:]
    overwrite(path, data[: -len(table) - 4] + table + slow_crc32c(table).to_bytes(4, "little"))
    with pytest.raises(StoreError, match="outside the file") as raised:
        damageable.reader("label").read(1)
    assert str(path) in str(raised.value)


def test_damage_anywhere_in_a_chunk_never_ends_the_process_nor_touches_its_neighbours(damageable: Written) -> None:
    """Compressed bytes carry no checksum: what the decoder does not notice, the release's sha256 does."""
    rng = np.random.default_rng(7)
    for name in ("s2", "label"):
        path, intact = damageable.shard(name, 0), damageable.reader(name)
        end = int(intact._index(0)["length"][0])
        for position, bits in zip(rng.integers(16, end, 150), rng.integers(1, 256, 150), strict=True):
            flip(path, position, int(bits))
            told, sample = read_or_told(intact, 0)
            assert str(path) in told if sample is None else sample.shape == intact.sample_shape
            np.testing.assert_array_equal(intact.read(2), damageable.truth[name][2])
            flip(path, position, int(bits))
        np.testing.assert_array_equal(intact.read(0), damageable.truth[name][0])


def test_a_store_without_a_root_or_with_a_broken_one_is_told(damageable: Written, tmp_path: Path) -> None:
    (damageable.folder / "zarr.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="is not the root of an h2crop store"):
        load_root(damageable.folder)
    with pytest.raises(StoreError, match=r"check that .* is a finished store"):
        load_root(tmp_path)


# Processes and threads


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_reader_used_before_works_in_child_processes(store: Written, method: str) -> None:
    readers = {name: store.reader(name) for name in store.truth}
    for name, reader in readers.items():
        np.testing.assert_array_equal(reader.read(0), store.truth[name][0])
    with multiprocessing.get_context(method).Pool(2) as children:
        asked = {
            (name, slot): children.apply_async(reader.read, (slot,))
            for name, reader in readers.items()
            for slot in (0, GAPPY_SLOT, CAPACITY, MISSING_SLOT, SLOTS - 1)
        }
        for (name, slot), answer in asked.items():
            np.testing.assert_array_equal(answer.get(timeout=PATIENCE), store.truth[name][slot])
    for name, reader in readers.items():
        np.testing.assert_array_equal(reader.read(1), store.truth[name][1])


def test_a_pickled_reader_is_small_and_carries_no_index(store: Written) -> None:
    reader = store.reader("s2")
    fresh = len(pickle.dumps(reader))
    reader.read(0)
    assert len(pickle.dumps(reader)) == fresh < 2000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read(2), store.truth["s2"][2])


def test_threads_may_share_a_reader(store: Written) -> None:
    reader = store.reader("s2")
    slots = list(range(SLOTS)) * 10
    with ThreadPoolExecutor(4) as pool:
        for slot, sample in zip(slots, pool.map(reader.read, slots), strict=True):
            np.testing.assert_array_equal(sample, store.truth["s2"][slot])


@pytest.mark.slow
def test_forks_while_threads_read_find_the_indexes_whole(store: Written) -> None:
    reader = store.reader("s2")
    reader.indexes.limit = 2 * size_in_memory(reader._index(0))
    stop = threading.Event()

    def read_on() -> None:
        while not stop.is_set():
            for block in range(4):
                reader._index(block)

    def read_in_child() -> None:
        found = [index for block in SAMPLES if (index := reader._index(block)) is not None]
        sys.exit([len(index) for index in found] != [12 * CAPACITY] * len(SAMPLES))

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(read_on)
        try:
            children = [FORK.Process(target=read_in_child) for _ in range(20)]
            for child in children:
                child.start()
            for child in children:
                child.join(PATIENCE)
            assert [child.exitcode for child in children] == [0] * 20
        finally:
            stop.set()


# What is kept


class Counting(LocalStorage):
    """Counts how often the end of a file is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ends: list[str] = []

    def read_end(self, name: str, length: int) -> tuple[bytes, int] | None:
        self.ends.append(name)
        return super().read_end(name, length)


def counted(store: Written, limit: int) -> tuple[Counting, dict[str, ShardReader]]:
    """Readers of every array with one cache of so many bytes, and what they read through."""
    storage, indexes = Counting(store.folder), IndexCache(limit)
    members = load_root(store.folder)["consolidated_metadata"]["metadata"]
    folders = {name: f"{SEASON}/{name}" for name in store.truth}
    return storage, {name: ShardReader(storage, path, members[path], indexes) for name, path in folders.items()}


def test_an_index_is_read_once_where_all_fit(store: Written) -> None:
    storage, readers = counted(store, 10**6)
    for _ in range(3):
        for name, reader in readers.items():
            for slot in range(SLOTS):
                np.testing.assert_array_equal(reader.read(slot), store.truth[name][slot])
    assert sorted(storage.ends) == sorted(reader.shard(block) for reader in readers.values() for block in range(4))


def test_the_indexes_kept_stay_within_the_bound_and_those_used_last_stay(store: Written) -> None:
    one = size_in_memory(store.reader("s2")._index(0))
    storage, readers = counted(store, 2 * one)
    reader = readers["s2"]
    for block in (0, 1, 0, 3, 0, 1):
        np.testing.assert_array_equal(reader.read(block * CAPACITY), store.truth["s2"][block * CAPACITY])
        assert reader.indexes.bytes <= 2 * one
    assert storage.ends == [reader.shard(block) for block in (0, 1, 3, 1)]
    for name, other in readers.items():
        for slot in range(SLOTS):
            np.testing.assert_array_equal(other.read(slot), store.truth[name][slot])
            assert other.indexes.bytes == sum(map(size_in_memory, other.indexes.indexes.values())) <= 2 * one


def test_with_no_room_at_all_samples_are_read_all_the_same(store: Written) -> None:
    _, readers = counted(store, 0)
    for name, reader in readers.items():
        np.testing.assert_array_equal(reader.read(1), store.truth[name][1])
        assert len(reader.indexes.indexes) == 1


# Wrong use


def test_wrong_buffers_are_refused_and_left_alone(store: Written) -> None:
    reader = store.reader("s2")
    months, bands, side, _ = reader.sample_shape
    read_only = np.zeros(reader.sample_shape, reader.dtype)
    read_only.flags.writeable = False
    wrong = {
        "bands": np.zeros((months, bands + 1, side, side), "int16"),
        "axes": np.zeros((months, bands, side * side), "int16"),
        "unsigned": np.zeros(reader.sample_shape, "uint16"),
        "wide": np.zeros(reader.sample_shape, "int32"),
        "big endian": np.zeros(reader.sample_shape, ">i2"),
        "strided": np.zeros((months, bands, side, 2 * side), "int16")[..., ::2],
        "transposed": np.zeros((side, side, bands, months), "int16").T,
        "read-only": read_only,
    }
    for name, out in wrong.items():
        with pytest.raises(ValueError, match="buffer"):
            reader.read_into(0, out)
        assert not out.any(), name


def test_ranges_that_are_not_whole_chunks_of_the_sample_are_refused(store: Written) -> None:
    s2, label = store.reader("s2"), store.reader("label")
    for reader, first, rows in ((s2, 0, 13), (s2, 7, 6), (s2, -1, 2), (label, 0, 2), (label, 1, 4), (label, 2, 2)):
        with pytest.raises(IndexError, match="not whole chunks"):
            reader.read_into(0, np.zeros((rows, *reader.sample_shape[1:]), reader.dtype), first)


@pytest.mark.parametrize("slot", [-1, SLOTS, SLOTS + 100])
def test_slots_outside_the_array_are_refused(store: Written, slot: int) -> None:
    with pytest.raises(IndexError, match=f"slot {slot} of {SLOTS}"):
        store.reader("label").read(slot)
