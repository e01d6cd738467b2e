"""A map of declared parcels by how much is known of their crops: north up, longitude and latitude."""

from __future__ import annotations

import io
import math

import geopandas as gpd
import numpy as np
import shapely
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import from_bounds

#: Colours of the legend and of the axes.
LEGEND_INK, AXES_INK = "#1d1d1d", "#5a5a5a"
#: By the number of tiers that know a crop, -1 for codes that are not in the table: colour and words.
KNOWN_TO = {
    4: ("#1b6e3c", "class at tier 4"),
    3: ("#66a84f", "tier 3"),
    2: ("#b3cc57", "tier 2"),
    1: ("#f0d264", "tier 1"),
    0: ("#a8a8a8", "no class"),
    -1: ("#c8372d", "code not in the table"),
}
#: Pixels of the longer side of the map; dots an inch.
MAP_LENGTH, MAP_DOTS = 1000, 120
#: Inches: of a narrow map, and of what is written below and above a map.
LEAST_WIDTH, BELOW, ABOVE = 4.2, 0.55, 0.85
#: Degrees of latitude that are shown at least.
LEAST_DEGREES = 0.002
#: Parcels of a map of few are shown this large at least, in pixels.
LEAST_MARK, MOST_ENLARGED = 4, 5000


def draw_parcel_map(parcels: gpd.GeoDataFrame, title: str) -> bytes:
    """A PNG of parcels, coloured by how many tiers know their crop.

    parcels: polygons in longitude and latitude, and `tiers` (-1 to 4), at least one row.
    """
    west, south, east, north = parcels.total_bounds
    shrink = max(math.cos(math.radians((south + north) / 2)), 0.05)
    margin = 0.03 * max((east - west) * shrink, north - south, LEAST_DEGREES)
    west, east = west - margin / shrink, east + margin / shrink
    south, north = south - margin, north + margin
    scale = MAP_LENGTH / max((east - west) * shrink, north - south)
    width, height = (max(round(span * scale), 1) for span in ((east - west) * shrink, north - south))
    numbers = {tiers: number for number, tiers in enumerate(KNOWN_TO, 1)}
    # Codes that are not in the table are drawn last, so that they are seen.
    order = np.argsort(-parcels["tiers"].to_numpy(), kind="stable")
    outlines = parcels.geometry.to_numpy()[order]
    if len(outlines) <= MOST_ENLARGED:
        outlines = visible(outlines, LEAST_MARK / scale, shrink)
    shapes = zip(outlines, parcels["tiers"].map(numbers).to_numpy()[order].tolist(), strict=True)
    grid = from_bounds(west, south, east, north, width, height)
    drawn = rasterize(shapes, (height, width), transform=grid, all_touched=True, dtype="uint8")
    page = (max(width / MAP_DOTS, LEAST_WIDTH) + 1.0, height / MAP_DOTS + BELOW + ABOVE)
    figure = Figure(figsize=page, dpi=MAP_DOTS)
    axes = figure.add_axes((0.85 / page[0], BELOW / page[1], 1 - 1.0 / page[0], height / MAP_DOTS / page[1]))
    colours = ListedColormap(["white", *(colour for colour, _ in KNOWN_TO.values())])
    axes.imshow(
        drawn,
        cmap=colours,
        vmin=-0.5,
        vmax=len(KNOWN_TO) + 0.5,
        interpolation="nearest",
        extent=(west, east, south, north),
        aspect=1 / shrink,
    )
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=8, colors=AXES_INK)
    axes.set_xlabel("degrees east", fontsize=8, color=AXES_INK)
    axes.set_ylabel("degrees north", fontsize=8, color=AXES_INK)
    axes.set_title(title, fontsize=9, color=LEGEND_INK, pad=4)
    counts = {tiers: int((parcels["tiers"] == tiers).sum()) for tiers in KNOWN_TO}
    legend = [
        Patch(facecolor=colour, label=f"{words}: {counts[tiers]:,}")
        for tiers, (colour, words) in KNOWN_TO.items()
        if counts[tiers]
    ]
    figure.legend(handles=legend, loc="upper center", ncols=3, frameon=False, fontsize=8, labelcolor=LEGEND_INK)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def visible(outlines: NDArray[np.object_], side: float, shrink: float) -> NDArray[np.object_]:
    """Outlines (longitude, latitude), those that are small as boxes of a side in degrees of latitude.

    shrink: a degree of longitude in degrees of latitude.
    """
    west, south, east, north = shapely.bounds(outlines).T
    small = np.maximum((east - west) * shrink, north - south) < side
    x, y = (west + east) / 2, (south + north) / 2
    boxes = shapely.box(x - side / shrink / 2, y - side / 2, x + side / shrink / 2, y + side / 2)
    shown: NDArray[np.object_] = np.where(small, boxes, outlines)
    return shown
