"""Items that go to workers with every block, though few blocks look at them."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator, Mapping

import pystac

#: Of zlib: the JSON of items shrinks to a fifth at any level.
LEVEL = 1


class PackedItems(Mapping[str, pystac.Item]):
    """Items by their ids. Pickled they are compressed, once however often they are sent, and stay so until one is asked
    for: as they were, unpacking those of a block took 24 ms."""

    def __init__(self, items: Mapping[str, pystac.Item]) -> None:
        self._items: dict[str, pystac.Item] | None = dict(items)
        self._packed: bytes | None = None

    def _unpacked(self) -> dict[str, pystac.Item]:
        if self._items is None:
            assert self._packed is not None
            self._items = pickle.loads(zlib.decompress(self._packed))
        return self._items

    def __getstate__(self) -> bytes:
        if self._packed is None:
            self._packed = zlib.compress(pickle.dumps(self._items), LEVEL)
        return self._packed

    def __setstate__(self, packed: bytes) -> None:
        self._items, self._packed = None, packed

    def __getitem__(self, name: str) -> pystac.Item:
        return self._unpacked()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._unpacked())

    def __len__(self) -> int:
        return len(self._unpacked())
