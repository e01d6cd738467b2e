"""Labels of a block: a raster of parcels a cell, then the classes of their crops and their numbers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import TIER_COLUMNS, UNKNOWN
from h2crop_data.parcels.rasterize import parcel_numbers, tier_labels
from h2crop_data.sources.parcels.declarations import CellParcels, Declared
from h2crop_data.sources.source import BlockGround, SourceBlock
from h2crop_data.sources.timing import Stopwatch


def label_block(declared: Declared, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
    """`label`, `prior` and `parcel` of a block, and the columns of each sample. declared: what bears on it."""
    arrays: dict[str, list[NDArray[Any]]] = defaultdict(list)
    with watch.step("rasterize parcels"):
        roles = {"label": declared.parcels, "prior": declared.prior}
        near = {name: CellParcels(declarations, ground.cells) for name, declarations in roles.items()}
        for cell in ground.cells:
            for name, parcels in near.items():
                inside, ids, known = parcels.draw(cell)
                tiers = inside[TIER_COLUMNS].to_numpy(np.uint8)
                # A parcel belongs to the split that holds most of it; its pixels in another split would leak.
                tiers = np.where((inside["split"] == ground.split).to_numpy()[:, None], tiers, np.uint8(UNKNOWN))
                arrays[name].append(tier_labels(ids, tiers, known))
                if name == "label":
                    arrays["parcel"].append(parcel_numbers(ids, inside["number"].to_numpy()))
    stacked = {name: np.stack(layers) for name, layers in arrays.items()}
    facts = [
        {
            "parcels": len(np.setdiff1d(stacked["parcel"][i], [0])),
            "declared_share": float((stacked["parcel"][i] > 0).mean()),
            "class_share": [float(((tier > 0) & (tier < UNKNOWN)).mean()) for tier in stacked["label"][i]],
        }
        for i in range(len(ground.cells))
    ]
    return SourceBlock(stacked, facts)
