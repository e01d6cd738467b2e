"""The estimated work of masks, references and readings: seconds, bytes and requests, by the footprints of items.

Seconds are of one core. They were measured by `thread_time` of a build with one worker on local files, of two simulated
regions (16 cells, three dates a month, 20 % cloud; 49 cells, one date a month, 10 % cloud; 2026-11-30); those of masks
over a whole tile are of bench_clouds and bench_alignment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, sqrt

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.access import is_remote
from h2crop_data.catalog.file_access import connections_of
from h2crop_data.catalog.item_facts import sentinel2_asset
from h2crop_data.catalog.items import number_of
from h2crop_data.constants import FINE
from h2crop_data.grid import LONLAT, TILE_SIZE, transformer
from h2crop_data.sentinel2.clouds import MASK_PIXEL
from h2crop_data.sentinel2.reference import MOST_DATES, REFERENCE_BANDS
from h2crop_data.sources.sentinel2.detectors import CLASSIFICATION, l1c_bands, l2a_bands
from h2crop_data.sources.sentinel2.readings import Sentinel2Reading
from h2crop_data.sources.sentinel2.tile_reading import SIDE_WITH_MARGIN, TileTask
from h2crop_data.sources.sentinel2.to_read import (
    BAND_BYTES,
    CLASS_BYTES,
    PIXEL_OF,
    SECONDS_OF_DETECTORS,
    SECONDS_OF_OTHERS,
    SECONDS_OF_RULES,
    SECONDS_OF_SHIFTS,
    TILE_PIXELS,
    TILE_SIDE,
    pieces_with_cells,
    unit_to_read,
)
from h2crop_data.sources.work import OPENING, Work, ground_of_item, size_of, square_metres

#: A date over a tile, whatever part of it is imaged.
SECONDS_A_DATE = 0.1
#: Opening a file.
SECONDS_A_FILE = 0.0015
#: A megabyte of files in a reading: decoded, and composited.
SECONDS_A_MEGABYTE_READ = 0.011
#: A date and band of a reference, whatever part of the tile is imaged, and besides for all of it.
SECONDS_A_LAYER, SECONDS_OF_WHOLE_LAYER = 0.043, 0.022
#: Bytes of the masks of a date over a whole tile, and of a reference.
DATE_BYTES, REFERENCE_BYTES = 40_000, 10_000_000
#: A piece has something clear by its look's share of cloud: all have up to a half, of overcast looks few.
CLEAR_PIECES = 2.0
#: Ground that is imaged but for this share is taken as imaged wholly.
UNSHOWN_SHARE = 0.001


@dataclass(frozen=True)
class ShownGround:
    """What an item shows of some ground, and in all, in square metres."""

    item: pystac.Item
    seen: float
    whole: float


def imaged(items: Iterable[pystac.Item], ground: BaseGeometry) -> tuple[list[ShownGround], float]:
    """The items of a look that are asked for some ground, until all is seen, and the share of it that they show."""
    asked = []
    left = ground
    for item in items:
        place = ground_of_item(item)
        asked.append(ShownGround(item, square_metres(place.intersection(ground)), square_metres(place)))
        left = left.difference(place)
        if left.area <= UNSHOWN_SHARE * ground.area:
            break
    return asked, 1 - left.area / ground.area


def bytes_of_band(shown: ShownGround, band: str) -> tuple[int, int]:
    """Bytes that are read of a band over what is shown of some ground, and the requests for them.

    Files give whole internal tiles, at most all they have.
    """
    pixel = PIXEL_OF.get(band, 20)
    per_pixel = CLASS_BYTES if band == "SCL" else BAND_BYTES
    pixels = min((sqrt(shown.seen) / pixel + TILE_SIDE) ** 2, shown.whole / pixel**2)
    asset = shown.item.assets.get(sentinel2_asset(shown.item, band))
    size = None if asset is None else size_of(asset)
    if size is not None:
        per_pixel = size * pixel**2 / max(1.0, shown.whole)
    return round(per_pixel * pixels), OPENING + ceil(pixels / TILE_PIXELS)


def first_href(items: Iterable[pystac.Item]) -> str:
    """The address of some file of some items; empty for none."""
    return next((asset.href for item in items for asset in item.assets.values()), "")


def connections_to_items(items: Iterable[pystac.Item], wanted: int) -> int:
    """Connections to the archive of some items, of all workers together."""
    href = first_href(items)
    return connections_of(href, wanted) if is_remote(href) else wanted


def tile_mask_work(task: TileTask) -> Work:
    """What masking a tile takes: of each date its classification, and its bands where it is not all cloud."""
    clouds = task.settings.clouds
    seconds = SECONDS_OF_RULES + sum(
        SECONDS_OF_DETECTORS.get(name, SECONDS_OF_OTHERS) for name in clouds.methods if name != CLASSIFICATION
    )
    seconds += SECONDS_OF_SHIFTS if task.settings.alignment != "none" else 0.0
    of_l2a, of_l1c = l2a_bands(task.settings), l1c_bands(clouds)
    whole = (SIDE_WITH_MARGIN * MASK_PIXEL) ** 2
    ground = ground_under(task, whole)
    cpu, size, requests, files = 0.0, 0, 0, 0
    for look in task.looks:
        shown, share = imaged((task.items[name] for name in look.items), ground)
        overcast = all((number_of(one.item, "eo:cloud_cover") or 0.0) > 99 for one in shown)
        cpu += SECONDS_A_DATE + (0.0 if overcast else share * seconds)
        wanted = [(one, band) for one in shown for band in ("SCL", *(() if overcast else of_l2a))]
        if of_l1c and not overcast:
            others = [task.l1c_items[name] for one in shown for name in (task.l1c or {}).get(one.item.id, ())]
            wanted += [(one, band) for one in imaged(others, ground)[0] for band in of_l1c]
        for one, band in wanted:
            read, asked = bytes_of_band(one, band)
            size, requests, files = size + read, requests + asked, files + 1
    remote = is_remote(first_href(task.items.values()))
    return Work(
        cpu=cpu + files * SECONDS_A_FILE,
        bytes=size,
        remote_bytes=size if remote else 0,
        written=DATE_BYTES * len(task.looks),
        requests=requests if remote else 0,
        # The bands of a date at once; classifications all at once.
        at_once=max(1, len(of_l2a) + len(of_l1c)),
        connections=connections_to_items(task.items.values(), task.settings.connections),
        overlaps=True,
    )


def ground_under(task: TileTask, whole: float) -> BaseGeometry:
    """A tile, with its margin where `whole` square metres have it, in longitude and latitude."""
    bounds = task.tile.bounds_with_margin if whole > TILE_SIZE**2 else task.tile.bounds
    ground = shapely.box(*bounds)
    return shapely.transform(ground, transformer(f"EPSG:{task.tile.epsg}", LONLAT).transform, interleaved=False)


def reference_work(task: TileTask) -> Work:
    """What the picture of a tile takes that scenes are matched with: some dates, file by file."""
    ground = ground_under(task, TILE_SIZE**2)
    dates = min(MOST_DATES, len(task.looks))
    size, requests, files, seen, layers = 0, 0, 0, 0.0, 0.0
    for look in task.looks[:dates]:
        shown, share = imaged((task.items[name] for name in look.items), ground)
        seen = max(seen, share)
        layers += len(REFERENCE_BANDS) * (SECONDS_A_LAYER + share * SECONDS_OF_WHOLE_LAYER)
        for one in shown:
            for band in REFERENCE_BANDS:
                read, asked = bytes_of_band(one, band)
                size, requests, files = size + read, requests + asked, files + 1
    remote = is_remote(first_href(task.items.values()))
    return Work(
        cpu=layers + files * SECONDS_A_FILE,
        bytes=size,
        remote_bytes=size if remote else 0,
        written=round(REFERENCE_BYTES * seen),
        requests=requests if remote else 0,
        connections=connections_to_items(task.items.values(), task.settings.connections),
    )


def composite_work(reading: Sentinel2Reading) -> Work:
    """What a reading takes: of looks under much cloud only some pieces have anything clear."""
    bands = reading.settings.bands
    looks = {look.items[0] for part in reading.parts for look in part.looks}
    at_most = unit_to_read(reading)
    of_look, tiles_of_look = (number / max(1, len(looks)) for number in (at_most.bytes, at_most.tiles))
    ground = ground_of_pieces(reading)
    size, requests, files = 0.0, 0.0, 0
    for name in looks:
        item = reading.items[name]
        cover = number_of(item, "eo:cloud_cover")
        clear = 1.0 if cover is None else min(1.0, CLEAR_PIECES * (1 - cover / 100))
        known = [size_of(item.assets[sentinel2_asset(item, band)]) for band in (*bands, "SCL")]
        [of_item], shown = imaged([item], ground)
        share = clear * shown
        if None in known:
            size += share * of_look
        else:
            size += clear * sum(one for one in known if one is not None) * of_item.seen / max(1.0, of_item.whole)
        opened = 1 + (len(bands) if clear > 0 else 0)
        files += opened
        requests += OPENING * opened + max(share * tiles_of_look, opened)
    remote = is_remote(first_href(reading.items.values()))
    return Work(
        cpu=files * SECONDS_A_FILE + size / 1e6 * SECONDS_A_MEGABYTE_READ,
        bytes=round(size),
        remote_bytes=round(size) if remote else 0,
        requests=round(requests) if remote else 0,
        at_once=reading.settings.connections,
        connections=connections_to_items(reading.items.values(), reading.settings.connections),
    )


def ground_of_pieces(reading: Sentinel2Reading) -> BaseGeometry:
    """The pieces of a reading that some cell lies in, in longitude and latitude."""
    grid = reading.grid
    boxes = [
        shapely.box(grid.x + FINE * left, grid.y - FINE * bottom, grid.x + FINE * right, grid.y - FINE * top)
        for top, bottom, left, right in pieces_with_cells(reading)
    ]
    to_lonlat = transformer(f"EPSG:{grid.epsg}", LONLAT).transform
    return shapely.transform(shapely.union_all(boxes), to_lonlat, interleaved=False)
