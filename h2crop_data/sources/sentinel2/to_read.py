"""The estimate of the readings of a plan: internal tiles, bytes and requests, from the geometry of files and cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from h2crop_data.catalog.access import is_remote
from h2crop_data.catalog.item_facts import sentinel2_asset
from h2crop_data.constants import FINE_BANDS
from h2crop_data.sentinel2.clouds import MASK_PIXEL
from h2crop_data.sources.readings import ToRead
from h2crop_data.sources.sentinel2.detectors import CLASSIFICATION, l1c_bands, l2a_bands
from h2crop_data.sources.sentinel2.readings import Box, Sentinel2Reading
from h2crop_data.sources.sentinel2.tile_reading import SIDE_WITH_MARGIN, TileTask
from h2crop_data.sources.sentinel2.unit import common, ground_of, pieces_of
from h2crop_data.sources.work import OPENING, size_of

#: Bytes of a pixel in files, as measured: numbers of 16 bits, and classes.
BAND_BYTES, CLASS_BYTES = 1.33, 0.1
#: Seconds of a core for a tile of 1024 x 1024 pixels: decoding it, and its part of the composites.
SECONDS_A_TILE = 0.012
#: Internal tiles of a file under a processing tile with its margin, about.
TILES_OF_FILE = 6
#: Pixel size in metres of bands that do not have 20 m.
PIXEL_OF = dict.fromkeys(FINE_BANDS, 10) | dict.fromkeys(("B01", "B09", "B10"), 60)
TILE_SIDE = 1024
TILE_PIXELS = TILE_SIDE**2
#: Seconds of a core that a date over a processing tile takes: by the rules, and by detector (others: the last), as
#: bench_clouds measured.
SECONDS_OF_RULES, SECONDS_OF_DETECTORS, SECONDS_OF_OTHERS = 0.3, {"ukis": 0.9, "s2cloudless": 2.0}, 0.9
#: The same of shifts, as bench_alignment measured.
SECONDS_OF_SHIFTS = 0.3


def sentinel2_to_read(readings: Iterable[Sentinel2Reading]) -> ToRead:
    """What is read where every tile of a home granule has something clear: at most this, but for filled gaps.

    Tiles are taken to be as large as the pieces of the units: 1024 pixels unless files say otherwise. Neighbours that
    fill what a home granule did not image are not counted.
    """
    total = ToRead()
    files: dict[str, int | None] = {}
    for reading in readings:
        total += unit_to_read(reading)
        for item in reading.items.values():
            for band in (*reading.settings.bands, "SCL"):
                asset = item.assets[sentinel2_asset(item, band)]
                if asset.href not in files:
                    files[asset.href] = size_of(asset)
    known = [size for size in files.values() if size is not None]
    if len(known) < len(files):
        return total
    at_most = sum(known)
    return replace(total, bytes=min(total.bytes, at_most), remote_bytes=min(total.remote_bytes, at_most))


def masks_to_read(tasks: Iterable[TileTask]) -> ToRead:
    """What masking clouds takes where every date has something clear; of L1C too."""
    total = ToRead()
    side = SIDE_WITH_MARGIN * MASK_PIXEL
    for task in tasks:
        clouds = task.settings.clouds
        seconds = SECONDS_OF_RULES + sum(
            SECONDS_OF_DETECTORS.get(name, SECONDS_OF_OTHERS) for name in clouds.methods if name != CLASSIFICATION
        )
        bands = (*l2a_bands(task.settings), *l1c_bands(clouds))
        if task.settings.alignment != "none":
            seconds += SECONDS_OF_SHIFTS
        pixels = {PIXEL_OF.get(band, 20): 0 for band in bands}
        for band in bands:
            pixels[PIXEL_OF.get(band, 20)] += 1
        size = CLASS_BYTES * (side // 20 + TILE_SIDE) ** 2
        # Files give whole internal tiles, of which the edges of the window cut some.
        size += sum(BAND_BYTES * count * (side // pixel + TILE_SIDE) ** 2 for pixel, count in pixels.items())
        files = 1 + sum(pixels.values())
        first = next(iter(task.items.values()), None)
        remote = first is not None and is_remote(next(iter(first.assets.values())).href)
        dates = len(task.looks)
        requests = dates * files * (OPENING + TILES_OF_FILE) if remote else 0
        total += ToRead(
            mask_dates=dates,
            mask_bytes=round(dates * size),
            mask_requests=requests,
            mask_seconds=dates * seconds,
            mask_remote_bytes=round(dates * size) if remote else 0,
            mask_turns=requests / task.settings.connections,
        )
    return total


def unit_to_read(reading: Sentinel2Reading) -> ToRead:
    """The estimate of one reading."""
    bands = reading.settings.bands
    fine = sum(band in FINE_BANDS for band in bands)
    tiles = pieces_with_cells(reading)
    # A datatake counts once, however many other granules some cells may also be seen by.
    asked = {look.items[0] for part in reading.parts for look in part.looks}
    fine_pixels = sum(area(tile) for tile in tiles)
    coarse_pixels = area(whole_unit(reading)) / 4
    files = len(bands) + 1
    a_look = {
        "tiles": len(tiles) * fine + (len(bands) - fine) + 1,
        "pixels": fine_pixels * fine + coarse_pixels * (len(bands) - fine),
        "bytes": BAND_BYTES * (fine_pixels * fine + coarse_pixels * (len(bands) - fine)) + CLASS_BYTES * coarse_pixels,
    }
    count = len(asked)
    first = reading.items[min(asked)]
    remote = is_remote(first.assets[sentinel2_asset(first, "SCL")].href)
    size = round(count * a_look["bytes"])
    requests = round(count * (OPENING * files + a_look["tiles"])) if remote else 0
    seconds = count * (a_look["pixels"] + coarse_pixels) / TILE_PIXELS * SECONDS_A_TILE
    return ToRead(
        round(count * a_look["tiles"]),
        size,
        requests,
        seconds,
        remote_bytes=size if remote else 0,
        turns=requests / reading.settings.connections,
    )


def pieces_with_cells(reading: Sentinel2Reading) -> list[Box]:
    """The whole pieces of a reading that some cell lies in."""
    boxes = [part.box for part in reading.parts]
    return [
        piece
        for piece in whole_pieces(reading.grid.piece, ground_of(reading))
        if any(common(box, piece) for box in boxes)
    ]


def whole_pieces(piece: tuple[int, int], ground: Box) -> list[Box]:
    """The whole pieces that ground lies in."""
    height, width = piece
    found = []
    for top, _, left, _ in pieces_of(piece, ground):
        row, column = top // height * height, left // width * width
        found.append((row, row + height, column, column + width))
    return found


def whole_unit(reading: Sentinel2Reading) -> Box:
    """The whole unit of a reading."""
    height, width = reading.grid.unit
    top, _, left, _ = reading.parts[0].box
    row, column = top // height * height, left // width * width
    return row, row + height, column, column + width


def area(box: Box) -> int:
    """Pixels of a box."""
    return (box[1] - box[0]) * (box[3] - box[2])
