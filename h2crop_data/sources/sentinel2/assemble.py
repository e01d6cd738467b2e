"""Sentinel-2 in a block: every look on its 10 m grid, month by month, and the composite of its clear pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pystac
from odc.geo.geobox import GeoBox

from h2crop_data.catalog.access import load_sentinel2
from h2crop_data.catalog.acquisitions import Look, looks_of
from h2crop_data.catalog.items import item_epsg
from h2crop_data.catalog.providers import sentinel2_asset
from h2crop_data.constants import FINE, MONTHS, REFLECTANCE_FILL
from h2crop_data.errors import ReadError, SceneError
from h2crop_data.grid import Cell, bounds_of, geobox
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sentinel2.clear import clear_pixels, too_bright
from h2crop_data.sentinel2.composite import (
    Observation,
    filled_from,
    median_composite,
    mosaic_day,
    observation,
    without_data,
)
from h2crop_data.sentinel2.reflectance import sentinel2_reflectance
from h2crop_data.sources.source import BlockGround, SourceBlock
from h2crop_data.sources.timing import Stopwatch


@dataclass(frozen=True)
class Sentinel2Task:
    """What Sentinel-2 needs of one block."""

    source: Sentinel2Settings
    #: The items over it, and what is added to their numbers.
    items: list[pystac.Item]
    offsets: dict[str, int]


def sentinel2_block(task: Sentinel2Task, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
    """`s2`, `s2_clear` and `s2_day` of a block, month by month, and the columns of each sample."""
    source, cells = task.source, ground.cells
    bounds = bounds_of(cells)
    grid = geobox(bounds, cells[0].epsg, FINE)
    n, side = len(cells), ground.cell_size // FINE
    s2 = np.full((n, MONTHS, len(source.bands), side, side), REFLECTANCE_FILL, np.int16)
    clear = np.zeros((n, MONTHS, side, side), np.uint8)
    day = np.zeros((n, MONTHS, side, side), np.uint16)
    gaps: list[str] = []
    impossible: list[str] = []
    used: list[list[str]] = [[] for _ in cells]
    for month, looks in looks_by_month(task.items, ground.season).items():
        # Cut to the cells look by look: they may be few in a wide block.
        seen: list[list[Observation]] = [[] for _ in cells]
        for look in looks:
            observed = observe_look(task, look, grid, cells[0].epsg, watch)
            gaps += observed.gaps
            impossible += observed.impossible
            if not observed.tiles:
                continue
            with watch.step("composite"):
                mosaic = mosaic_day(observed.tiles)
                for i, cell in enumerate(cells):
                    rows, columns = pixel_slices(cell, bounds, FINE)
                    clear_here = mosaic.clear[rows, columns].copy()
                    seen[i].append(Observation(mosaic.day, mosaic.values[:, rows, columns].copy(), clear_here))
                    if clear_here.any():
                        used[i].append(look.moment.strftime("%Y-%m-%d"))
        with watch.step("composite"):
            for i, cut in enumerate(seen):
                if cut:
                    s2[i, month - 1], clear[i, month - 1], day[i, month - 1] = median_composite(cut)
    facts = [
        {
            "s2_dates": used[i],
            "s2_clear_share": [float(share) for share in (clear[i] > 0).mean(axis=(1, 2))],
            "s2_gaps": gaps,
            "s2_impossible": impossible,
        }
        for i in range(n)
    ]
    return SourceBlock({"s2": s2, "s2_clear": clear, "s2_day": day}, facts)


@dataclass(frozen=True)
class ObservedLook:
    """A look on the grid of a block."""

    #: Its tiles, those of the block's own zone first.
    tiles: list[Observation]
    #: Scenes that could not be read, by their ids.
    gaps: list[str]
    #: Scenes that called clear some pixels whose numbers no ground has.
    impossible: list[str]


def looks_by_month(items: Sequence[pystac.Item], season: int) -> dict[int, list[Look]]:
    """The looks that some items show by month (1..12), in order of time."""
    months: dict[int, list[Look]] = defaultdict(list)
    for look in looks_of(items, season):
        months[look.moment.month].append(look)
    return months


def observe_look(task: Sentinel2Task, look: Look, grid: GeoBox, epsg: int, watch: Stopwatch) -> ObservedLook:
    """Read a look on the grid of a block in the zone `epsg`.

    Raises ReadError or SceneError for a scene that cannot be read, where the recipe does not allow gaps.
    """
    source = task.source
    tiles: list[Observation] = []
    gaps: list[str] = []
    impossible: list[str] = []
    for granules in sorted(look.tiles, key=lambda tile: (item_epsg(tile[0]) != epsg, tile[0].id)):
        tile: Observation | None = None
        for item in granules:
            # An older granule is read only where the newer ones leave something open.
            if tile is not None and not without_data(tile).any():
                break
            try:
                with watch.step("read Sentinel-2"):
                    keys = [sentinel2_asset(item, band) for band in source.bands]
                    numbers, scl = load_sentinel2(item, keys, sentinel2_asset(item, "SCL"), grid, source.resampling)
            except (ReadError, SceneError):
                if source.gaps == "fail":
                    raise
                gaps.append(item.id)
                continue
            with watch.step("composite"):
                values = np.stack([sentinel2_reflectance(band, task.offsets[item.id]) for band in numbers])
                clear = clear_pixels(scl, source.clouds.clear)
                if (clear & too_bright(values)).any():
                    impossible.append(item.id)
                scene = observation(look.moment.timetuple().tm_yday, values, clear)
                tile = scene if tile is None else filled_from(tile, scene)
        if tile is not None:
            tiles.append(tile)
    return ObservedLook(tiles, gaps, impossible)


def pixel_slices(cell: Cell, bounds: Sequence[float], resolution: int) -> tuple[slice, slice]:
    """Rows and columns of a cell in the pixels of `bounds`."""
    west, _, east, north = cell.bounds
    side = (east - west) // resolution
    row, column = round((bounds[3] - north) / resolution), round((west - bounds[0]) / resolution)
    return slice(row, row + side), slice(column, column + side)
