"""A season with all blocks finished, as input of a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.cube.root import SeasonIdentity, digest_of_files
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.cube.statistics import BlockSums
from h2crop_data.cube.windows import stated_windows
from h2crop_data.storage.storage import FileRecord


@dataclass(frozen=True)
class FinishedSeason:
    """The input of sealing for a season with all blocks finished."""

    season: int
    #: One row a slot in use, in order: at least sample, block, slot, x0, y0, epsg, split, geometry; goes to the index,
    #: but for the samples of retracted blocks.
    samples: gpd.GeoDataFrame
    #: One row a block, in order. `retracted`: why it is kept out of the release; empty where it is not.
    blocks: pd.DataFrame
    scenes: pd.DataFrame
    #: None where the store has no labels.
    parcels: gpd.GeoDataFrame | None
    #: Coordinates along `sample` and another axis, which all samples of a block share: name -> (block, ...) float32.
    by_block: dict[str, NDArray[np.float32]]
    #: What statistics need, by split, without retracted blocks.
    sums: dict[str, BlockSums]
    #: Shards of the release: path, bytes, sha256.
    files: list[FileRecord]
    recipe: dict[str, Any]
    #: What units of work say of each date over the ground; None where nobody looked.
    dates: pd.DataFrame | None = None
    #: Where its images lie against its parcels; None where nobody looked.
    frames: pd.DataFrame | None = None
    #: By part of its plan, what was read of the sources: `parcels` and `prior` with `counts` and `unmapped` (country ->
    #: crop code -> parcels), and `warnings` in words. Empty where nobody counted.
    sources: dict[str, Any] = field(default_factory=dict)

    @property
    def first_coordinates(self) -> dict[str, list[float]]:
        """The values of the coordinates that go by block, of the first block."""
        return {name: values[0].tolist() for name, values in self.by_block.items() if len(values)}

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Which of the samples are part of the release."""
        kept = self.blocks["block"][self.blocks["retracted"] == ""]
        return np.asarray(self.samples["block"].isin(kept), bool)

    @property
    def released(self) -> gpd.GeoDataFrame:
        """The samples of the release."""
        return self.samples[self.valid]

    def identity_in(self, layout: StoreLayout) -> SeasonIdentity:
        """What the root says of it: size, a hash of its blocks that changes when any of them does, windows of time."""
        files = sorted(self.files, key=lambda file: str(file["path"]))
        identity: SeasonIdentity = {
            "blocks": len(self.blocks),
            "samples": int(self.valid.sum()),
            "sha256": digest_of_files(files),
        }
        if windows := layout.windows(self.season):
            identity["windows"] = stated_windows(windows)
        return identity


def stacked_coordinates(of_blocks: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, NDArray[np.float32]]:
    """The coordinates that go by block, from those of every block in order. Raises ValueError where one lacks some."""
    names = sorted({name for of_block in of_blocks for name in of_block})
    lacking = [place for place, of_block in enumerate(of_blocks) if set(of_block) != set(names)]
    if lacking:
        raise ValueError(f"block {lacking[0]} has no {', '.join(sorted(set(names) - set(of_blocks[lacking[0]])))}")
    return {name: np.array([of_block[name] for of_block in of_blocks], np.float32) for name in names}
