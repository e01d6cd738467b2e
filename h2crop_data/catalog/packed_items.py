"""Items that are sent to workers with every block, although few blocks read them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping

import pystac


class PackedItems(Mapping[str, pystac.Item]):
    """Items by their ids. Sent to a worker they stay pickled until one is asked for, and are pickled once however often
    they are sent: unpacking those of a block took 24 ms."""

    def __init__(self, items: Mapping[str, pystac.Item]) -> None:
        self._items: dict[str, pystac.Item] | None = dict(items)
        self._packed: bytes | None = None

    def _unpacked(self) -> dict[str, pystac.Item]:
        if self._items is None:
            assert self._packed is not None
            self._items = pickle.loads(self._packed)
        return self._items

    def __getstate__(self) -> bytes:
        if self._packed is None:
            self._packed = pickle.dumps(self._items)
        return self._packed

    def __setstate__(self, packed: bytes) -> None:
        self._items, self._packed = None, packed

    def __getitem__(self, name: str) -> pystac.Item:
        return self._unpacked()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._unpacked())

    def __len__(self) -> int:
        return len(self._unpacked())
