"""A map of cells by split: north up, longitude and latitude."""

from __future__ import annotations

import io
import math

import geopandas as gpd
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from shapely import get_coordinates

from h2crop_data.constants import SPLITS
from h2crop_data.report.page import INK, QUIET

#: Told apart by people who see few colours, and in grey.
SPLIT_COLOURS = {"train": "#7fb3d5", "val": "#f0a830", "test": "#8e2f5c"}
#: Inches of the longer side of the map; dots an inch.
MAP_SIDE, MAP_DPI = 6.0, 100
#: Degrees of latitude that are shown at least, so that one cell has some room around it.
LEAST_SPAN = 0.01


def draw_cells(samples: gpd.GeoDataFrame) -> bytes:
    """A PNG of the cells of samples, coloured by split.

    samples: columns `cell`, `split` and the outlines of cells in longitude and latitude, at least one row.
    """
    cells = samples.drop_duplicates("cell")
    outlines = [get_coordinates(outline) for outline in cells.geometry]
    corners = np.concatenate(outlines)
    (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
    # A degree of longitude is as much shorter than one of latitude.
    shrink = max(math.cos(math.radians((south + north) / 2)), 0.05)
    margin = 0.04 * max((east - west) * shrink, north - south, LEAST_SPAN)
    width, height = (east - west) * shrink + 2 * margin, north - south + 2 * margin
    scale = MAP_SIDE / max(width, height)
    figure = Figure(figsize=(max(width * scale, 2.4) + 1.0, max(height * scale, 1.2) + 1.0), dpi=MAP_DPI)
    axes = figure.add_axes((0.13, 0.12, 0.84, 0.76))
    splits = cells["split"].to_numpy()
    for split in SPLITS:
        chosen = [outline for outline, other in zip(outlines, splits, strict=True) if other == split]
        axes.add_collection(PolyCollection(chosen, facecolors=SPLIT_COLOURS[split], edgecolors="white", linewidths=0.2))
    axes.set_xlim(west - margin / shrink, east + margin / shrink)
    axes.set_ylim(south - margin, north + margin)
    axes.set_aspect(1 / shrink)
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=8, colors=QUIET)
    axes.set_xlabel("degrees east", fontsize=8, color=QUIET)
    axes.set_ylabel("degrees north", fontsize=8, color=QUIET)
    counts = {split: int((splits == split).sum()) for split in SPLITS}
    legend = [Patch(facecolor=SPLIT_COLOURS[split], label=f"{split}: {counts[split]:,}") for split in SPLITS]
    figure.legend(handles=legend, loc="upper center", ncols=len(SPLITS), frameon=False, fontsize=9, labelcolor=INK)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
