"""Draw docs/images/alignment.png: borders of fields in composites before and after dates are aligned.

    python docs/alignment_picture.py FLANDERS_NONE FLANDERS_APPLY REGION REGION_NONE REGION_APPLY

The stores are built with `alignment: none` and `apply`: of tests/real/recipes/flanders_2018.yaml with the default
masks, and of a simulated region (the folder REGION) with shifted dates.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import rasterio

import h2crop_data
from h2crop_data.cube.reading import read_index
from h2crop_data.grid import Cell

PICTURE = Path(__file__).parent / "images/alignment.png"
BANDS = ["B08", "B04", "B03"]
#: Reflectance that is white in each band.
WHITE = np.array([0.5, 0.16, 0.16])[:, None, None]
#: Slot and month of what is drawn.
REAL, SIMULATED = (3, 10), (0, 8)
#: The part of a simulated cell that is drawn, in pixels.
PART = slice(60, 100)


def composite(store: str, season: int, slot: int, month: int) -> Any:
    """Near infrared, red and green of a composite (band, y, x), 1 white."""
    data = h2crop_data.open(store, season, scaled=True)
    return data["s2"].isel(sample=slot).sel(month=month, s2_band=BANDS).to_numpy() / WHITE


def ground(region: Path, store: str, slot: int, month: int) -> Any:
    """The same of the ground under a clear sky, from the region's truth: the median of the month's dates."""
    sample = read_index(store, "samples-2022").sort_values("slot").iloc[slot]
    layers = []
    for day in sample["s2_dates"]:
        if int(day[5:7]) == month:
            with rasterio.open(region / f"truth/sentinel2/{day}/surface_10m.tif") as raster:
                # Blue, green, red, near infrared.
                layers.append(raster.read([4, 3, 2], window=raster.window(*Cell.parse(sample["cell"]).bounds)))
    return np.median(layers, axis=0) / 1e4 / WHITE


def main() -> None:
    """Draw."""
    flanders_none, flanders_apply, region, region_none, region_apply = sys.argv[1:]
    mpl.use("Agg")
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.4))
    before, after = (composite(store, 2018, *REAL) for store in (flanders_none, flanders_apply))
    panels = [
        (before, "Flanders, October 2018: as delivered"),
        (after, "aligned"),
        (after[0] - before[0], "change of the near infrared"),
    ]
    simulated = [composite(store, 2022, *SIMULATED) for store in (region_none, region_apply)]
    simulated.append(ground(Path(region), region_apply, *SIMULATED))
    titles = ("simulated, August: two dates 19 m apart", "aligned", "the ground")
    panels += [(image[:, PART, PART], title) for image, title in zip(simulated, titles, strict=True)]
    for place, (image, title) in zip(axes.ravel(), panels, strict=True):
        if image.ndim == 2:
            place.imshow(image, cmap="RdBu", vmin=-0.2, vmax=0.2)
        else:
            place.imshow(np.clip(np.nan_to_num(image), 0, 1).transpose(1, 2, 0))
        place.set_title(title, fontsize=9)
        place.axis("off")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    main()
