"""Draw docs/images/coregistration.png: EnMAP before and after it was matched, and the shift vectors of a scene.

    python docs/coregistration_picture.py NONE APPLY [SLOT]

The stores are built of one recipe with `enmap.coregistration: none` and `apply`, the second with parcels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

import h2crop_data
from h2crop_data.cube.reading import read_index

PICTURE = Path(__file__).parent / "images/coregistration.png"
#: Near infrared and short wave infrared, nm, and reflectance that is white.
SHOWN = {"VNIR, 842 nm": (842, 0.55), "SWIR, 1610 nm": (1610, 0.45)}
#: The part of a cell that is drawn, in EnMAP pixels, and the factor by which vectors are drawn longer.
PART, LONGER = slice(20, 56), 40
COLOURS = {"vnir": "tab:blue", "swir": "tab:red"}


def image(sample: Any, wavelength: float) -> Any:
    """The band nearest to a wavelength, (y, x)."""
    place = int(np.abs(sample["wavelength"].to_numpy() - wavelength).argmin())
    return sample["enmap"].isel(band=place).to_numpy()


def boundaries(sample: Any) -> Any:
    """Where declared parcels meet, at 10 m (y, x)."""
    numbers = sample["parcel"].to_numpy().astype(np.int64)
    edge = np.zeros(numbers.shape, bool)
    edge[:-1] |= numbers[:-1] != numbers[1:]
    edge[:, :-1] |= numbers[:, :-1] != numbers[:, 1:]
    return edge


def draw_cell(place: Any, sample: Any, name: str, title: str) -> None:
    """A detector's band under the boundaries of parcels."""
    wavelength, white = SHOWN[name]
    place.imshow(image(sample, wavelength)[PART, PART] / white, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
    fine = slice(3 * PART.start, 3 * PART.stop)
    edge = np.ma.masked_equal(boundaries(sample)[fine, fine], 0)
    place.imshow(edge, cmap="autumn", extent=(0, 1, 1, 0), interpolation="nearest", alpha=0.8)
    place.set_title(title, fontsize=9)
    place.axis("off")


def draw_vectors(place: Any, row: Any) -> None:
    """What the windows of a scene say, and what was applied."""
    for window in row["enmap_windows"]:
        detector, *numbers = window.split()
        x, y, east, north, _, _ = map(float, numbers)
        place.annotate(
            "",
            xy=(x + LONGER * east, y + LONGER * north),
            xytext=(x, y),
            arrowprops={"arrowstyle": "->", "color": COLOURS[detector], "lw": 1},
        )
        place.plot(x, y, ".", color="gray", markersize=2)
    told = [
        f"{name.upper()} {row[f'enmap_{name}_east']:+.1f} m east, {row[f'enmap_{name}_north']:+.1f} m north, "
        f"sd {row[f'enmap_{name}_sd_east']:.1f} m"
        for name in COLOURS
    ]
    place.set_title("shift by window, 40 times as long\n" + "\n".join(told), fontsize=8)
    place.set_aspect("equal")
    place.set_axis_off()


def main() -> None:
    """Draw."""
    none, apply, *slot = sys.argv[1:]
    mpl.use("Agg")
    samples = read_index(apply, "samples-2022").sort_values("slot")
    row = samples.iloc[int(slot[0]) if slot else 0]
    # The windows stand with one sample of each block.
    told = samples[(samples["scene"] == row["scene"]) & (samples["enmap_windows"].map(len) > 0)]
    figure, axes = plt.subplots(1, 5, figsize=(13, 3.6), width_ratios=(1, 1, 1, 1, 1.2))
    places = iter(axes)
    for name in SHOWN:
        for store, title in ((none, "as delivered"), (apply, "matched")):
            sample = h2crop_data.open(store, 2022, scaled=True)
            names = read_index(store, "samples-2022").set_index("sample")["slot"]
            draw_cell(next(places), sample.isel(sample=int(names[row["sample"]])), name, f"{name}: {title}")
    draw_vectors(next(places), told.iloc[0])
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.02, top=0.8, wspace=0.05)
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    main()
