"""Draw a cell in the overlap of two granules: composed of the first clear pixels of both, and of its home granule.

python docs/overlap.py

The granules are made: one datatake a date, the eastern tile 3 % brighter than the western one, as after another
processing, and with clouds masked otherwise.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests" / "makers"))

from granules import Archive, Grid
from slow_composites import FILL, Observed, SlowPass, composite, home_tile, in_order

from h2crop_data.catalog.acquisitions import Look, looks_of
from h2crop_data.catalog.search import read_item_collection
from h2crop_data.grid import Cell

TARGET = Path(__file__).parent / "images" / "overlap.png"
DAYS = ("2022-06-05", "2022-06-10", "2022-06-20", "2022-06-25")
BAND, BRIGHTER, NOISE = "B08", 1.03, 0.003
#: Both hold all of the cell; the centre of the western one is nearer.
WEST, EAST = Grid("31UDS", 499_980, 5_630_040, 3600, 3000), Grid("31UES", 501_060, 5_630_040, 3600, 3000)
CELL = Cell(32631, 1920, 261, 2931)


def main() -> None:
    """Make the granules, compose the cell in both ways, draw."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive(Path(folder))
        for day in DAYS:
            archive.add(WEST, day, level=1.0, noise=NOISE, faulty=0, rare=0)
            archive.add(EAST, day, level=BRIGHTER, noise=NOISE, faulty=0, rare=0)
        # What the western tile shows without clouds and noise.
        archive.add(WEST, "2022-07-05", level=1.0, noise=0, faulty=0, rare=0, cloudy=0)
        archive.recipe(CELL.bounds)
        slow = SlowPass(list(read_item_collection(archive.folder / "items.json")), 2022, [BAND])
        home = home_tile(CELL, slow.grids(slow.items, CELL.epsg))
        *looks, cloudless = looks_of(slow.items, slow.season)
        ground = slow.observe(cloudless, CELL, home).values[0]
        first = median([first_clear(slow, look, home) for look in looks])
        own = median([slow.observe(look, CELL, home) for look in looks])
    draw({"the first clear pixel of any granule": first, "the home granule first": own}, ground)


def first_clear(slow: SlowPass, look: Look, home: str | None) -> Observed:
    """A look whose pixels each come from the first granule that is clear there: the rule before."""
    views = [view for item in in_order(look, CELL, home) if (view := slow.view(item, CELL)) is not None]
    values, clear = views[0].values, views[0].clear
    for view in views[1:]:
        values = np.where(clear, values, view.values)
        clear = clear | view.clear
    return Observed(look, values, clear, [], {})


def median(looks: list[Observed]) -> NDArray[np.float64]:
    """The composite of the band, NaN where no look is clear."""
    values, _, _ = composite(looks, 1, CELL)
    return np.where(values[0] == FILL, np.nan, values[0])


def draw(composites: dict[str, NDArray[np.float64]], ground: NDArray[np.int64]) -> None:
    """Both composites, and below how far they are from what the home tile shows without clouds."""
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 7.8), layout="constrained")
    for (top, bottom), (name, values) in zip(axes.T, composites.items(), strict=True):
        reflectance = top.imshow(values / 10000, cmap="gray", vmin=0.2, vmax=0.4)
        top.set_title(name, fontsize=10, loc="left")
        excess = bottom.imshow(100 * (values / ground - 1), cmap="RdBu_r", vmin=-4, vmax=4)
        for axis in (top, bottom):
            axis.set_facecolor("#e8d36b")
            axis.set(xticks=[], yticks=[])
    figure.colorbar(reflectance, ax=axes[0], label=f"{BAND}, median of {len(DAYS)} dates", shrink=0.85)
    figure.colorbar(excess, ax=axes[1], label="% above the home tile without clouds", shrink=0.85)
    figure.text(0.01, -0.02, "Yellow: no clear look. The neighbour's granules are 3 % brighter.", fontsize=9)
    figure.savefig(TARGET, dpi=90, bbox_inches="tight")
    plt.close(figure)
    with Image.open(TARGET) as image:
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            TARGET, optimize=True
        )
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
