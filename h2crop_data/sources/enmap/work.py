"""The estimated work of the mask, the match and the cells of an EnMAP scene; files are read one after the other.

Seconds are of one core, measured as those of `sources/sentinel2/work.py`.
"""

from __future__ import annotations

from math import ceil

import pystac

from h2crop_data.catalog.access import is_remote
from h2crop_data.catalog.file_access import connections_of
from h2crop_data.constants import COARSE
from h2crop_data.enmap.quality import LAYERS
from h2crop_data.sources.work import OPENING, Work, ground_of_item, size_of, square_metres

#: Looking for clouds in a scene, whatever its size, and a million pixels of it; matching them.
SECONDS_A_MASK, SECONDS_OF_MASK, SECONDS_OF_MATCH = 0.1, 1.0, 2.5
#: A cell: reading and resampling it.
SECONDS_A_CELL = 0.02
#: Bytes of a pixel of the image in files, of 218 bands as the archive has them.
IMAGE_PIXEL_BYTES = 210
#: Pixels along an internal tile of the archive's images.
IMAGE_TILE = 512
#: Bytes that are kept of a mask (a pixel) and of a match.
MASK_PIXEL_BYTES, MATCH_BYTES = 0.05, 60_000


def scene_pixels(item: pystac.Item) -> float:
    """The pixels of a scene, by its footprint."""
    return square_metres(ground_of_item(item)) / COARSE**2


def image_work(item: pystac.Item, cpu: float, written: int, share: float = 1.0, layers: bool = True) -> Work:
    """What reading a share of a scene's image takes, and its layers. cpu: seconds besides."""
    asset = item.assets.get("image")
    if asset is None:
        return Work(cpu=cpu, written=written)
    known = size_of(asset)
    size = round(min(1.0, share) * (IMAGE_PIXEL_BYTES * scene_pixels(item) if known is None else known))
    remote = is_remote(asset.href)
    tiles = max(1, ceil(min(1.0, share) * scene_pixels(item) / IMAGE_TILE**2))
    files = 1 + (sum(layer in item.assets for layer in LAYERS) if layers else 0)
    return Work(
        cpu=cpu,
        bytes=size,
        remote_bytes=size if remote else 0,
        written=written,
        requests=tiles + files * OPENING if remote else 0,
        connections=connections_of(asset.href, 64) if remote else 1,
    )


def own_mask_work(item: pystac.Item) -> Work:
    """What looking for clouds in a scene takes."""
    pixels = scene_pixels(item)
    return image_work(
        item, SECONDS_A_MASK + pixels / 1e6 * SECONDS_OF_MASK, round(pixels * MASK_PIXEL_BYTES), layers=False
    )


def match_work(item: pystac.Item) -> Work:
    """What matching a scene takes, without the references it is matched with."""
    return image_work(item, scene_pixels(item) / 1e6 * SECONDS_OF_MATCH, MATCH_BYTES)


def cells_work(item: pystac.Item, cells: int, cell_pixels: int) -> Work:
    """What reading and resampling the cells of a scene takes. cell_pixels: of 30 m, in one cell."""
    share = cells * cell_pixels / max(1.0, scene_pixels(item))
    return image_work(item, cells * SECONDS_A_CELL, 0, share)
