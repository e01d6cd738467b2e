"""A thin PyTorch dataset: one sample of a store as tensors, as stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from h2crop_data.cube.reading import load_root, nothing_selected, read_table
from h2crop_data.cube.shard import ShardReader, open_arrays
from h2crop_data.errors import StoreError

#: What the reference model takes.
MODEL_ARRAYS = ("enmap", "s2", "label", "prior")


class CropSamples(Dataset[dict[str, Any]]):
    """The samples of a store, in the order of its index.

    A sample is a dictionary of tensors with the store's own dtypes and fill values (docs/store-format.md), and `id`:
    enmap (band, y30, x30) int16, s2 (month, s2_band, y, x) int16, label and prior (tier, y, x) uint8, and whatever
    else of the store's arrays is asked for. A store in a folder or on a web server can be read in forked, spawned and
    forkserver workers; one in S3 not in forked ones, which raise StoreError that says so: give a DataLoader
    `multiprocessing_context="forkserver"` or `"spawn"`.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        split: str | None = None,
        seasons: Sequence[int] | None = None,
        arrays: Sequence[str] | None = None,
        months: int = 12,
        release: int | None = None,
    ) -> None:
        """Open a store.

        store: folder, http(s) or s3 URL. split: `train`, `val` or `test`; all by default. seasons: all by default.
        arrays: names of arrays, by default those of the reference model that the store has. months: the first so many
        months of the monthly arrays. release: an older one than the current.
        Raises StoreError for a store, season, split or array that is not there, and where no sample is selected.
        """
        self.store = store
        root = load_root(store, release)
        attributes = root["attributes"]
        present = [int(season) for season in attributes["seasons"]]
        chosen = sorted(present if seasons is None else seasons)
        missing = [season for season in chosen if season not in present]
        if missing:
            raise StoreError(f"{store} has no season {missing[0]}; it has {', '.join(map(str, present))}")
        if not 1 <= months <= 12:
            raise ValueError(f"months: {months} is not 1..12")
        self.months = months
        self.readers: dict[int, dict[str, ShardReader]] = {}
        self.monthly: set[str] = set()
        samples = []
        for season in chosen:
            readers = open_arrays(self.store, root, season)
            names = [name for name in MODEL_ARRAYS if name in readers] if arrays is None else list(arrays)
            unknown = [name for name in names if name not in readers]
            if unknown:
                raise StoreError(f"{store} has no array {unknown[0]!r}; it has {', '.join(sorted(readers))}")
            self.readers[season] = {name: readers[name] for name in names}
            for reader in self.readers[season].values():
                reader.missing_is_fill = False
            documents = root["consolidated_metadata"]["metadata"]
            self.monthly |= {name for name in names if documents[f"{season}/{name}"]["dimension_names"][1] == "month"}
            index = read_table(self.store, attributes, f"samples-{season}")
            if split is not None:
                index = index[index["split"] == split]
            samples += [(season, slot, name) for slot, name in zip(index["slot"], index["sample"], strict=True)]
        if not samples:
            raise nothing_selected(store, attributes, split, chosen)
        self.ids = [name for _, _, name in samples]
        self._places = np.array([(season, slot) for season, slot, _ in samples], np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample `index` as tensors."""
        season, slot = self._places[index].tolist()
        sample: dict[str, Any] = {"id": self.ids[index]}
        for name, reader in self.readers[season].items():
            rows = self.months if name in self.monthly else reader.sample_shape[0]
            buffer = np.empty((rows, *reader.sample_shape[1:]), reader.dtype)
            reader.read_into(slot, buffer)
            sample[name] = torch.from_numpy(buffer)
        return sample
