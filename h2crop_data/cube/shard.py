"""One block's shard of one array: its bytes, and the reader.

A shard is the inner chunks in C order, each compressed on its own and followed by its CRC32C (which chunks of stores
that were begun in format 1 do not have), then an index of (offset, length) pairs and the index's CRC32C (Zarr v3
`sharding_indexed`, index at the end). Chunks that hold nothing but the fill value are left out. The reader keeps the
indexes it used last, fetches neighbouring chunks at once (in a folder with one `pread`) and decodes them straight into
the caller's buffer; it keeps no open file and no thread of its own.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from h2crop_data.cube.root import Root
from h2crop_data.cube.schema import ArraySpec, Codec
from h2crop_data.errors import MissingFileError, StoreError
from h2crop_data.storage.location import open_readable
from h2crop_data.storage.storage import ReadableStorage

#: Both words of an index entry of a chunk that was left out.
MISSING = np.uint64(2**64 - 1)
INDEX_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])
#: Bytes of the indexes that readers keep together. Those of 85,000 samples fit, as the model reads them (16 a block);
#: with many more, reading at random fetches indexes again. Every worker of a loader keeps so many bytes of its own.
INDEX_BYTES = 32 * 1024**2
#: Bytes that Python takes for an index beside its entries: array, bytes, key, and the place in the cache.
INDEX_OVERHEAD = 600
BITSHUFFLE = 2
#: Blosc's header: format version, codec version, flags, bytes an element, bytes decoded, block size, bytes encoded.
BLOSC_HEADER = struct.Struct("<4B3I")
CHECKSUM_BYTES = 4
#: The bits of its flags that tell the shuffle, and what they are in every chunk of a store.
SHUFFLE_FLAGS, BITSHUFFLED = 0b101, 0b100

# With its own threads Blosc cuts chunks by their number: the bytes of a store would depend on the cores of a machine.
blosc.use_threads = False

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def encode_shard(
    samples: NDArray[Any], spec: ArraySpec, capacity: int, codec: Codec, map_: Map = map
) -> Iterator[bytes]:
    """The parts of a shard file, to be written one after the other as they come.

    samples: (n <= capacity, *spec.sample_shape) of spec.dtype; the slots after n stay empty.
    map_: applied over the chunks at once; a thread pool's `map` compresses in parallel (Blosc releases the GIL), while
    the caller is busy with the parts before.
    Raises ValueError for samples that do not fit, before any part is asked for.
    """
    n = len(samples)
    if n > capacity or samples.shape[1:] != spec.sample_shape or samples.dtype != spec.dtype:
        raise ValueError(
            f"{spec.name}: expected {spec.dtype} (n <= {capacity}, {', '.join(map(str, spec.sample_shape))}), got "
            f"{samples.dtype} {samples.shape}"
        )
    chunks = np.ascontiguousarray(samples).reshape(n * spec.chunks_per_sample, *spec.chunk[1:])
    encoded = map_(lambda chunk: encode_chunk(chunk, spec.fill, codec), chunks)
    return append_index(encoded, capacity * spec.chunks_per_sample)


def append_index(encoded: Iterable[bytes | None], entries: int) -> Iterator[bytes]:
    """The chunks that are there, in their order, then the index of all `entries` and its checksum."""
    index = np.full(entries, MISSING, INDEX_ENTRY)
    position = 0
    for i, data in enumerate(encoded):
        if data is not None:
            index[i] = (position, len(data))
            position += len(data)
            yield data
    table = index.tobytes()
    yield table + crc32c(table)


def crc32c(data: bytes) -> bytes:
    """The CRC32C (Castagnoli) of some bytes, as it is stored: little-endian uint32."""
    return int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")


def encode_chunk(chunk: NDArray[Any], fill: int, codec: Codec) -> bytes | None:
    """One compressed chunk, or None where every element is the fill value."""
    if chunk.flat[0] == fill and (chunk == fill).all():
        return None
    data: bytes = blosc.compress(chunk, codec.name.encode(), codec.level, BITSHUFFLE)
    return data + crc32c(data) if codec.checksum else data


def decode_chunk(chunk: memoryview, out: NDArray[Any], *, checksum: bool) -> None:
    """Decompress one chunk into `out`. Raises ValueError or RuntimeError for bytes that are not such a chunk.

    checksum: whether the chunk ends with its CRC32C, as the codec of its array says.
    """
    if checksum:
        chunk, stated = chunk[:-CHECKSUM_BYTES], chunk[-CHECKSUM_BYTES:]
        # The library takes no views.
        if crc32c(bytes(chunk)) != stated:
            raise ValueError("its CRC32C is not that of its bytes")
    if len(chunk) < BLOSC_HEADER.size:
        raise ValueError(f"only {len(chunk)} bytes")
    # Blosc trusts its header: a damaged one makes it read past the end, or undo a shuffle that never was.
    _, _, flags, itemsize, decoded, _, encoded = BLOSC_HEADER.unpack_from(chunk)
    if decoded != out.nbytes or encoded != len(chunk):
        raise ValueError(
            f"expected {out.nbytes} bytes encoded in {len(chunk)}, its header states {decoded} in {encoded}"
        )
    if itemsize != out.itemsize or flags & SHUFFLE_FLAGS != BITSHUFFLED:
        raise ValueError(f"its header states a shuffle for elements of another size than {out.itemsize} bytes")
    blosc.decompress(chunk, out)


def decode_shard(data: bytes, spec: ArraySpec, capacity: int, codec: Codec) -> NDArray[Any]:
    """All slots of a shard file, (capacity, *spec.sample_shape); fill where nothing is stored.

    codec: that of its store. Raises ValueError for bytes that are no such shard.
    """
    index = parse_index(
        data[-index_size(capacity * spec.chunks_per_sample) :], len(data), capacity * spec.chunks_per_sample
    )
    samples = np.full((capacity, *spec.sample_shape), spec.fill, spec.dtype)
    rows = samples.reshape(len(index), -1)
    view = memoryview(data)
    for row, (offset, length) in zip(rows, index.tolist(), strict=True):
        if offset != int(MISSING):
            try:
                decode_chunk(view[offset : offset + length], row, checksum=codec.checksum)
            except RuntimeError as error:
                raise ValueError(f"chunk at byte {offset} is damaged ({error})") from error
    return samples


def shard_name(block: int, dimensions: int) -> str:
    """File name of a block's shard in the folder of an array of so many dimensions."""
    return f"c.{block}" + ".0" * (dimensions - 1)


Index = NDArray[np.void] | None
#: Held for moments by every change of a cache, and while the process forks: a child finds its caches whole.
_changing = threading.Lock()
os.register_at_fork(before=_changing.acquire, after_in_parent=_changing.release, after_in_child=_changing.release)


class IndexCache:
    """The shard indexes used last, of any readers of one store, within a bound. Safe in threads and after a fork."""

    def __init__(self, limit: int = INDEX_BYTES) -> None:
        """limit: bytes; the index used last is kept whatever its size."""
        self.limit = limit
        self.bytes = 0
        self.indexes: OrderedDict[tuple[str, int], Index] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without what it holds."""
        return IndexCache, (self.limit,)

    def get(self, folder: str, block: int, read: Callable[[int], Index]) -> Index:
        """The index of an array's block, by `read` where it is not here. None for a shard that does not exist."""
        key = (folder, block)
        with _changing:
            if key in self.indexes:
                self.indexes.move_to_end(key)
                return self.indexes[key]
        index = read(block)
        with _changing:
            if key not in self.indexes:
                self.indexes[key] = index
                self.bytes += size_in_memory(index)
            while self.bytes > self.limit and len(self.indexes) > 1:
                _, dropped = self.indexes.popitem(last=False)
                self.bytes -= size_in_memory(dropped)
        return index


def size_in_memory(index: Index) -> int:
    """Bytes that an index takes."""
    return INDEX_OVERHEAD + (0 if index is None else index.nbytes)


class ShardReader:
    """Reads samples of one sharded array: a SampleReader. Cheap to pickle and to share between processes.

    The metadata is what the release's root says; shards are never rewritten, so an index that is kept stays true.
    """

    def __init__(
        self,
        storage: ReadableStorage,
        folder: str,
        document: dict[str, Any],
        indexes: IndexCache | None = None,
        *,
        missing_is_fill: bool = True,
    ) -> None:
        """A reader of the array in a folder of its store, `2022/s2`.

        document: its metadata. indexes: where those of its shards are kept, shared by the readers of one store; its own
        by default. missing_is_fill: a shard that does not exist is fill in a partial copy of a store, damage where a
        sample should be.
        """
        sharding = document["codecs"][0]["configuration"]
        self.storage = storage
        self.folder = folder
        self.name = folder.rpartition("/")[2]
        self.shape = tuple(document["shape"])
        self.sample_shape = self.shape[1:]
        self.dtype = np.dtype(document["data_type"])
        self.fill = document["fill_value"]
        self.capacity: int = document["chunk_grid"]["configuration"]["chunk_shape"][0]
        self.step: int = sharding["chunk_shape"][1]
        self.chunks_per_sample = self.sample_shape[0] // self.step
        self.checksum = any(codec["name"] == "crc32c" for codec in sharding["codecs"])
        self.missing_is_fill = missing_is_fill
        self.indexes = IndexCache() if indexes is None else indexes

    def __len__(self) -> int:
        return int(self.shape[0])

    def read(self, slot: int) -> NDArray[Any]:
        """One sample, (sample_shape) of the array's dtype, in a new buffer."""
        out = np.empty(self.sample_shape, self.dtype)
        self.read_into(slot, out)
        return out

    def read_into(self, slot: int, out: NDArray[Any], first: int = 0) -> None:
        """Fill `out` with sample `slot`.

        out: C-contiguous, (n, *sample_shape[1:]) of the array's dtype; receives rows first..first+n of the sample's
        first axis (months of `s2`), whole chunks only. Slots and chunks without data give the fill value.
        Raises IndexError for a slot or range outside, StoreError for a damaged shard.
        """
        n = len(out)
        check_request(self.name, self.shape, self.dtype, self.step, slot, out, first)
        block, place = divmod(slot, self.capacity)
        start = place * self.chunks_per_sample + first // self.step
        index = self._index(block)
        if index is None and not self.missing_is_fill:
            raise StoreError(f"{self.where(block)} is missing; download or build this block again")
        if index is None:
            out[...] = self.fill
            return
        entries = index[start : start + n // self.step]
        self._decode(block, entries, out.reshape(len(entries), -1))

    def _decode(self, block: int, entries: NDArray[np.void], rows: NDArray[Any]) -> None:
        """Decode consecutive chunks into the rows of the buffer; chunks that touch in the file are read at once."""
        present = entries["offset"] != MISSING
        if not present.all():
            rows[~present] = self.fill
        wanted = np.flatnonzero(present).tolist()
        if not wanted:
            return
        offsets, lengths = entries["offset"].tolist(), entries["length"].tolist()
        # Chunks lie in C order and left-out ones take no room, so this span holds what is wanted and nothing else.
        begin = min(offsets[i] for i in wanted)
        end = max(offsets[i] + lengths[i] for i in wanted)
        try:
            data = memoryview(self.storage.read_range(self.shard(block), begin, end - begin))
        except MissingFileError as error:
            raise StoreError(f"{error}; it may have been removed") from error
        for i in wanted:
            chunk = data[offsets[i] - begin : offsets[i] - begin + lengths[i]]
            try:
                decode_chunk(chunk, rows[i], checksum=self.checksum)
            except (RuntimeError, ValueError) as error:
                raise StoreError(
                    f"{self.where(block)}: chunk at byte {offsets[i]} is damaged ({error}); "
                    "download or build this block again"
                ) from error

    def shard(self, block: int) -> str:
        """The name of a block's shard in the store."""
        return f"{self.folder}/{shard_name(block, len(self.shape))}"

    def where(self, block: int) -> str:
        """The shard of a block as the user would find it."""
        return self.storage.where(self.shard(block))

    def _index(self, block: int) -> Index:
        """The shard's index, (capacity x chunks per sample) of INDEX_ENTRY; None where the shard does not exist."""
        return self.indexes.get(self.folder, block, self._read_index)

    def _read_index(self, block: int) -> Index:
        """The index at the end of a shard, checked against its CRC32C; None where the shard does not exist."""
        entries = self.capacity * self.chunks_per_sample
        found = self.storage.read_end(self.shard(block), index_size(entries))
        if found is None:
            return None
        try:
            return parse_index(*found, entries)
        except ValueError as error:
            raise StoreError(f"{self.where(block)}: {error}; download or build this block again") from error


def check_request(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    step: int,
    slot: int,
    out: NDArray[Any],
    first: int,
) -> None:
    """Refuse what cannot be read of an array into a buffer: IndexError for places, ValueError for the buffer.

    step: rows of a sample's first axis in a chunk. slot, out, first: as of `SampleReader.read_into`.
    """
    if not 0 <= slot < shape[0]:
        raise IndexError(f"{name}: slot {slot} of {shape[0]}")
    if out.shape[1:] != shape[2:] or out.dtype != dtype or not out.flags.carray:
        raise ValueError(
            f"{name}: expected a writeable C-contiguous buffer of {dtype} (n, {', '.join(map(str, shape[2:]))})"
        )
    rows = shape[1]
    if first < 0 or first + len(out) > rows or first % step or len(out) % step:
        raise IndexError(f"{name}: rows {first}..{first + len(out)} are not whole chunks of {rows}")


def index_size(entries: int) -> int:
    """Bytes of the index of so many chunks, with its checksum."""
    return entries * INDEX_ENTRY.itemsize + CHECKSUM_BYTES


def parse_index(tail: bytes, length: int, entries: int) -> NDArray[np.void]:
    """The index in the last bytes of a shard file of `length` bytes. Raises ValueError for a damaged one."""
    table = tail[:-CHECKSUM_BYTES]
    if len(tail) != index_size(entries) or crc32c(table) != tail[-CHECKSUM_BYTES:]:
        raise ValueError("the shard's index is damaged or truncated")
    index = np.frombuffer(table, INDEX_ENTRY)
    present = index["offset"] != MISSING
    offsets, lengths = index["offset"][present], index["length"][present]
    room = np.uint64(length - index_size(entries))
    if ((lengths > room) | (offsets > room - np.minimum(lengths, room))).any():
        raise ValueError("the shard's index points outside the file")
    return index


def open_arrays(
    store: str | Path,
    root: Root,
    season: int,
    indexes: IndexCache | None = None,
    *,
    missing_is_fill: bool = True,
) -> dict[str, ShardReader]:
    """Readers of every sharded array of a season, by name, from the release's consolidated root document.

    store: folder, http(s) or s3 URL. indexes, missing_is_fill: as of ShardReader; by default the arrays share a cache
    of their own. Raises StoreError for other URLs.
    """
    storage = open_readable(store)
    indexes = IndexCache() if indexes is None else indexes
    members = root["consolidated_metadata"]["metadata"]
    prefix = f"{season}/"
    return {
        path.removeprefix(prefix): ShardReader(storage, path, document, indexes, missing_is_fill=missing_is_fill)
        for path, document in members.items()
        if path.startswith(prefix) and document["codecs"][0]["name"] == "sharding_indexed"
    }
