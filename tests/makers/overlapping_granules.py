"""Sentinel-2 granules of two neighbouring tiles that overlap, as an archive serves them: COGs in internal tiles.

31UES and 31UFS begin 100,020 m apart and are 109,800 m wide: they share 9,780 m, in which their internal tiles (1024
pixels, 10,240 m) are out of step. Of each granule only the internal tiles are made that cells touch; a cut granule
begins where one of its internal tiles does, and reaches as far to the east as the real one. Both show one ground under
one sky, but the numbers of the eastern granule are higher by EASTERN, so that a composite tells which one it was read
from. About 1.3 bytes a pixel as in real archives: smooth fields and the noise of a sensor, deflated.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

from h2crop_data.grid import LONLAT, SPLIT_CRS, Cell, bounds_of, cells_of_area, split_squares, to_crs, transformer
from h2crop_data.simulate.randomness import generator, noise_grid
from h2crop_data.simulate.stac_fields import COG, bbox, geometry

EPSG = 32631
CELL_SIZE, SQUARE_SIZE = 1920, 15360
#: Where the granules of the two tiles begin in the west; both begin at NORTH, and are SIDE wide and high.
WEST = {"31UES": 499_980, "31UFS": 600_000}
NORTH, SIDE = 5_700_000, 109_800
#: The middle of the ground that both show, halfway down.
MIDDLE = (604_890, 5_645_100)
#: Pixels along an internal tile of every file.
BLOCK = 1024
#: Asset keys in the order of the stored bands: pixel size in metres, and the number of middling ground.
BANDS: dict[str, tuple[int, int]] = {
    "blue": (10, 600),
    "green": (10, 900),
    "red": (10, 700),
    "rededge1": (20, 1200),
    "rededge2": (20, 2200),
    "rededge3": (20, 2700),
    "nir": (10, 3000),
    "nir08": (20, 3100),
    "swir16": (20, 2200),
    "swir22": (20, 1400),
}
SCL = "scl"
#: What is in the numbers since processing baseline 04.00, and what is added in the eastern granule.
OFFSET, EASTERN = 1000, 7
#: Standard deviation of what varies from pixel to pixel (ground and sensor), and of what varies within a field.
NOISE, TEXTURE = 32.0, 60.0
#: Share of clouds by date: a month as they come, and an overcast one.
DATES: dict[str, float] = {
    "2022-06-03": 0.02,
    "2022-06-08": 0.45,
    "2022-06-13": 0.98,
    "2022-06-18": 0.10,
    "2022-06-23": 0.70,
    "2022-06-28": 0.25,
    "2022-08-02": 1.0,
    "2022-08-09": 1.0,
    "2022-08-17": 0.97,
    "2022-08-26": 0.60,
}
CHANGING, OVERCAST = 6, 8


@dataclass(frozen=True)
class Granule:
    """What is made of a granule: some of its internal tiles."""

    tile: str
    #: Upper left corner in metres, and pixels of 10 m.
    west: int
    north: int
    columns: int
    rows: int

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """West, south, east, north in metres."""
        return self.west, self.north - 10 * self.rows, self.west + 10 * self.columns, self.north

    def path(self, date: str, asset: str) -> str:
        """Where its file lies below the folder of the archive."""
        return f"{self.tile}/{date}/{asset}.tif"


def squares_over_both(across: int) -> tuple[list[Cell], list[tuple[int, int]]]:
    """The cells of `across` x `across` split squares around the ground that both show, and the square of each."""
    x, y = transformer(f"EPSG:{EPSG}", SPLIT_CRS).transform(*MIDDLE)
    column, row = (round(place / SQUARE_SIZE - across / 2) for place in (x, y))
    corners = np.array([column, row, column + across, row + across]) * SQUARE_SIZE
    cells = cells_of_area(shapely.box(*corners.tolist()), SPLIT_CRS, CELL_SIZE)
    return cells, split_squares(cells, SQUARE_SIZE)


def granules_over(cells: Sequence[Cell]) -> list[Granule]:
    """The two granules, cut to the internal tiles of 10 m that the cells' bounds touch."""
    west, south, east, north = bounds_of(cells)
    size = BLOCK * 10
    granules = []
    for tile, begin in WEST.items():
        columns = max(0, (west - begin) // size), min(SIDE, -(-(east - begin) // size) * size)
        rows = max(0, (NORTH - north) // size), min(SIDE, -(-(NORTH - south) // size) * size)
        left, top = begin + columns[0] * size, NORTH - rows[0] * size
        granules.append(
            Granule(tile, left, top, (begin + columns[1] - left) // 10, (top - NORTH + rows[1]) // 10),
        )
    return granules


def make_archive(folder: Path, granules: Sequence[Granule], workers: int) -> None:
    """Write the files of every date and granule."""
    ground = make_ground(granules)
    np.savez(folder / "ground.npz", **ground)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # The result is wanted for the errors.
        list(pool.map(partial(make_date, folder, granules), DATES))
    (folder / "ground.npz").unlink()


def make_ground(granules: Sequence[Granule]) -> dict[str, NDArray[Any]]:
    """What every date shows, on the pixels of 10 m of both granules together: fields, texture within them, noise."""
    west, north, columns, rows = extent(granules)
    chance = generator(1, "ground")
    x, y = west + 10.0 * np.arange(columns), north - 10.0 * np.arange(rows)
    across = np.repeat(np.arange(columns // 10), chance.integers(10, 50, columns // 10))[:columns]
    down = np.repeat(np.arange(rows // 10), chance.integers(10, 50, rows // 10))[:rows]
    texture = TEXTURE * noise_grid(1, x, y, 200.0)
    # A margin, so that each band and date takes its noise from another place.
    noise = NOISE * chance.standard_normal((rows + 512, columns + 512), np.float32)
    return {
        "fields": ((down * 73)[:, None] + across * 31).astype(np.uint16) % 4096,
        "texture": texture.astype(np.int16),
        "noise": np.rint(noise).astype(np.int16),
    }


def extent(granules: Sequence[Granule]) -> tuple[int, int, int, int]:
    """West and north of granules together, and columns and rows of 10 m."""
    bounds = np.array([granule.bounds for granule in granules])
    west, north = bounds[:, 0].min(), bounds[:, 3].max()
    return int(west), int(north), int(bounds[:, 2].max() - west) // 10, int(north - bounds[:, 1].min()) // 10


def make_date(folder: Path, granules: Sequence[Granule], date: str) -> None:
    """Write the files of one date."""
    ground = np.load(folder / "ground.npz")
    fields, texture, noise = (ground[name] for name in ("fields", "texture", "noise"))
    west, north, columns, rows = extent(granules)
    x, y = west + 10 + 20.0 * np.arange(columns // 2), north - 10 - 20.0 * np.arange(rows // 2)
    cloud, brightness = make_clouds(date, x, y)
    # Vegetation (4) and bare soil (5); clouds of medium (8) and high probability (9).
    classes = np.where(cloud, np.where(brightness > 6000, 9, 8), 4 + fields[::2, ::2] % 2).astype(np.uint8)
    cut = partial(write_granules, folder, granules, date, (west, north))
    cut(SCL, classes, 20)
    fine_cloud, fine_brightness = (layer.repeat(2, 0).repeat(2, 1) for layer in (cloud, brightness))
    for asset, (size, middling) in BANDS.items():
        chance = generator(1, date, asset)
        levels = np.rint(middling * chance.lognormal(0, 0.3, 4096)).astype(np.int16)
        step = size // 10
        numbers = levels[fields[::step, ::step]] + texture[::step, ::step]
        np.copyto(numbers, brightness if step == 2 else fine_brightness, where=cloud if step == 2 else fine_cloud)
        top, left = chance.integers(0, 512, 2)
        numbers += noise[top : top + numbers.shape[0], left : left + numbers.shape[1]]
        cut(asset, np.maximum(numbers, 1 - OFFSET).astype(np.uint16) + np.uint16(OFFSET), size)


def make_clouds(date: str, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.int16]]:
    """Where clouds of some kilometres are over a grid, and how bright they are."""
    parts = [(8000.0, 1.0), (2500.0, 0.7), (800.0, 0.3)]
    thickness = sum(weight * noise_grid(int(date.replace("-", "")) + i, x, y, s) for i, (s, weight) in enumerate(parts))
    share = DATES[date]
    cloud = thickness > np.quantile(thickness[::8, ::8], 1 - share) if share < 1 else np.ones(thickness.shape, bool)
    return cloud, np.rint(5500 + 600 * thickness).astype(np.int16)


def write_granules(
    folder: Path,
    granules: Sequence[Granule],
    date: str,
    corner: tuple[int, int],
    asset: str,
    numbers: NDArray[Any],
    size: int,
) -> None:
    """Cut an image of both granules, which begins at `corner`, into their files."""
    for granule in granules:
        rows = slice((corner[1] - granule.north) // size, (corner[1] - granule.bounds[1]) // size)
        columns = slice((granule.west - corner[0]) // size, (granule.bounds[2] - corner[0]) // size)
        own = numbers[rows, columns]
        if granule.tile == "31UFS" and asset != SCL:
            own = own + np.uint16(EASTERN)
        path = folder / granule.path(date, asset)
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            path,
            "w",
            driver="COG",
            count=1,
            dtype=own.dtype,
            height=own.shape[0],
            width=own.shape[1],
            crs=f"EPSG:{EPSG}",
            transform=Affine(size, 0, granule.west, 0, -size, granule.north),
            nodata=0,
            compress="DEFLATE",
            level=6,
            predictor="NO" if asset == SCL else "YES",
            blocksize=BLOCK,
            overviews="NONE",
        ) as file:
            file.write(own, 1)


def archive_items(root: str, granules: Sequence[Granule], month: int) -> list[pystac.Item]:
    """The items of a month, as Earth Search describes them, whose files lie below `root`."""
    dates = [date for date in DATES if int(date[5:7]) == month]
    return [archive_item(root, granule, date) for date in dates for granule in granules]


def archive_item(root: str, granule: Granule, date: str) -> pystac.Item:
    """The item of a granule."""
    outline = to_crs(shapely.box(*granule.bounds), f"EPSG:{EPSG}", LONLAT)
    day = date.replace("-", "")
    begin = datetime.fromisoformat(f"{date}T10:56:21").replace(tzinfo=UTC)
    properties = {
        "platform": "sentinel-2a",
        "eo:cloud_cover": 100 * DATES[date],
        "proj:code": f"EPSG:{EPSG}",
        "grid:code": f"MGRS-{granule.tile}",
        "s2:mgrs_tile": granule.tile,
        "s2:datatake_id": f"GS2A_{day}T105621_036000_N05.10",
        "s2:processing_baseline": "05.10",
        "earthsearch:boa_offset_applied": False,
    }
    item = pystac.Item(
        f"S2A_{granule.tile}_{day}_0_L2A",
        geometry(outline),
        bbox(outline, 6),
        begin,
        properties,
        stac_extensions=["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        collection="sentinel-2-l2a",
    )
    for asset, size in [*((name, size) for name, (size, _) in BANDS.items()), (SCL, 20)]:
        item.add_asset(asset, pystac.Asset(f"{root}/{granule.path(date, asset)}", media_type=COG, roles=["data"]))
        item.assets[asset].extra_fields = {
            "proj:shape": [granule.rows * 10 // size, granule.columns * 10 // size],
            "proj:transform": [size, 0, granule.west, 0, -size, granule.north],
        }
    return item
