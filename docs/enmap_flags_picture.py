"""Draw docs/images/enmap-flags.png: the bits of `enmap_quality`, and those of the real scene over Potsdam.

    python docs/enmap_flags_picture.py [SHARED]

SHARED is the folder that holds data/potsdam_2022, by default that of H2CROP_SHARED. The layers of that sample are made:
water by an index, a square of cloud and one of cirrus.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pystac
from matplotlib.patches import Rectangle
from rasterio.windows import Window

from h2crop_data.catalog.access import raster_geobox, read_window
from h2crop_data.constants import ENMAP_FLAGS
from h2crop_data.report.layers import FLAG_COLOURS, flag_map, flags_present
from h2crop_data.sources.enmap.layers import read_flags

PICTURE = Path(__file__).parent / "images/enmap-flags.png"
#: Where each bit comes from: layer and codes.
ORIGINS = {
    "outside": "CLASSES all but 1, 2; TESTFLAGS low two bits 3",
    "water": "CLASSES 2",
    "cloud": "CLOUD 1",
    "cloud_shadow": "CLOUDSHADOW 1",
    "haze": "HAZE 1",
    "cirrus_thin": "CIRRUS 1",
    "cirrus_medium": "CIRRUS 2",
    "cirrus_thick": "CIRRUS 3",
    "snow": "SNOW 1",
    "interpolated": "TESTFLAGS 4 (SWIR), 8 (VNIR)",
    "saturated": "TESTFLAGS 16 (SWIR), 32 (VNIR)",
    "artefact": "TESTFLAGS 64, 128",
    "reduced_quality": "TESTFLAGS low two bits 1",
    "low_quality": "TESTFLAGS low two bits 2",
    "defective": "PIXELMASK 1 in any stored band",
}
#: Wavelengths shown as red, green and blue: numbers of the product's bands near 860, 650 and 550 nm.
SHOWN = (75, 45, 28)
BITS = 16


def potsdam(folder: Path) -> tuple[Any, Any]:
    """The scene's flags and three of its bands (3, y, x)."""
    (item,) = pystac.ItemCollection.from_file(str(folder / "items.json"))
    for asset in item.assets.values():
        asset.href = str(folder / asset.href)
    grid = raster_geobox(item.assets["image"].href, "int16")
    window = Window(0, 0, grid.shape[1], grid.shape[0])
    bands, _ = read_window(item.assets["image"].href, window, list(SHOWN))
    return read_flags(item, grid), bands


def draw_bits(place: Any) -> None:
    """A line a bit, the lowest on top."""
    names = {value.bit_length() - 1: name for name, value in ENMAP_FLAGS.items()}
    for bit in range(BITS):
        name = names.get(bit)
        y = BITS - bit
        color = FLAG_COLOURS[name] if name else "white"
        place.add_patch(Rectangle((0, y + 0.1), 0.8, 0.8, facecolor=color, edgecolor="#555555", linewidth=0.6))
        place.text(-0.15, y + 0.5, f"{1 << bit}", ha="right", va="center", fontsize=8)
        place.text(1.0, y + 0.5, name or "free", va="center", fontsize=8, family="monospace")
        place.text(4.9, y + 0.5, ORIGINS[name] if name else "", va="center", fontsize=8, color="#555555")
    place.text(-0.15, BITS + 1.4, "value", ha="right", va="center", fontsize=8, weight="bold")
    place.text(1.0, BITS + 1.4, "flag", va="center", fontsize=8, weight="bold")
    place.text(4.9, BITS + 1.4, "layer and codes", va="center", fontsize=8, weight="bold")
    place.set(xlim=(-1.6, 12.5), ylim=(0.8, BITS + 1.9))
    place.axis("off")


def main() -> None:
    """Draw."""
    shared = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["H2CROP_SHARED"])
    flags, bands = potsdam(shared / "data/potsdam_2022")
    mpl.use("Agg")
    figure = plt.figure(figsize=(12, 4.6))
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1), left=0.01, right=0.99, top=0.93, bottom=0.1, hspace=0.28)
    draw_bits(figure.add_subplot(grid[:, 0]))
    colours = np.moveaxis(bands.astype(float), 0, -1)
    low, high = np.percentile(colours, (2, 98), axis=(0, 1))
    image = figure.add_subplot(grid[0, 1])
    image.imshow(np.clip((colours - low) / (high - low), 0, 1), interpolation="nearest")
    image.set_title("Potsdam, 24 July 2022, 128 × 64 pixels: near infrared, red, green", fontsize=9)
    drawn = figure.add_subplot(grid[1, 1])
    drawn.imshow(flag_map(flags, "#f8f8f2"), interpolation="nearest")
    drawn.set_title("its flags, where a pixel has several the first to count", fontsize=9)
    told = [f"{name} {100 * share:.1f} %" for name, share in flags_present(flags)]
    drawn.set_xlabel(", ".join([*told, f"none {100 * float((flags == 0).mean()):.1f} %"]), fontsize=8)
    for place in (image, drawn):
        place.set(xticks=[], yticks=[])
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    main()
