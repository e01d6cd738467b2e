"""The EnMAP products of a pass: its datatakes and tiles, their files, their items."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import shapely

from h2crop_data.constants import COARSE
from h2crop_data.grid import LONLAT, to_crs
from h2crop_data.simulate.enmap.bands import enmap_bands
from h2crop_data.simulate.enmap.items import EnmapProduct, enmap_item, file_folder, file_names
from h2crop_data.simulate.enmap.metadata import metadata_xml
from h2crop_data.simulate.enmap.scenes import OUTSIDE, WATER, EnmapTile, Swath, swaths, write_pass_truth, write_tile
from h2crop_data.simulate.ground import Bounds, RegionGround
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.overpasses import EnmapPass
from h2crop_data.simulate.randomness import generator, key_of

#: The satellite flies over a metre of ground in this many seconds.
SECONDS_A_METRE = 1 / 6800
#: Adjacent swaths are taken this many days apart.
DAYS_BETWEEN_SWATHS = 4
#: The first detector: bands up to this wavelength in nm are counted as its own.
VNIR_UP_TO = 1000.0


def datatakes_of_pass(layout: Layout, look: EnmapPass) -> list[list[Swath]]:
    """The tiles of each datatake of a pass."""
    return swaths(layout.bounds, layout.simulation.enmap, look.coverage)


def products_of_tile(
    layout: Layout, folder: Path, ground: RegionGround, look: EnmapPass, datatake: int, number: int
) -> dict[str, Any]:
    """Write one tile of a pass; gives its item, the truth of it, and millions of pixels drawn.

    datatake: place in the pass; number: of the tile in the datatake, from 0, in the direction of flight.
    """
    settings = layout.simulation.enmap
    tiles = datatakes_of_pass(layout, look)[datatake]
    # Flown from north to south.
    swath = tiles[len(tiles) - 1 - number]
    seen = look_of_datatake(look, datatake)
    draft = product_of(layout, seen, swath, number, tiles)
    tile = EnmapTile(
        swath=swath,
        datatake_bounds=datatake_bounds(tiles),
        epsg=layout.epsg,
        look=seen,
        dead=dead_columns(layout, seen, swath),
        folder=folder / "products" / "enmap" / file_folder(draft),
        files=file_names(draft),
    )
    counts = write_tile(ground, tile, settings)
    inside = counts["quality_classes"].total() - counts["quality_classes"][OUTSIDE]

    def percent(layer: str, *values: int) -> float:
        return 100 * sum(counts[layer][value] for value in values) / max(inside, 1)

    product = replace(
        draft,
        cloud=percent("quality_cloud", 1),
        cloud_shadow=percent("quality_cloud_shadow", 1),
        haze=percent("quality_haze", 1),
        cirrus=percent("quality_cirrus", 1, 2, 3),
        snow=percent("quality_snow", 1),
        water=percent("quality_classes", WATER),
    )
    (tile.folder / tile.files["metadata"]).write_text(metadata_xml(product), encoding="utf-8")
    if number == 0:
        write_pass_truth(ground, seen, layout.bounds, folder / "truth" / "enmap", layout.simulation.truth_reflectance)
    hrefs = {key: f"../{(tile.folder / name).relative_to(folder).as_posix()}" for key, name in tile.files.items()}
    described = enmap_item(product, hrefs, counts)
    rows, columns = product.shape
    return {
        "items": {"enmap": [described]},
        "scenes": [tile_truth(described["id"], seen, settings.distortion, tile.datatake_bounds)],
        "megapixels": rows * columns * len(product.centres) / 1e6,
    }


def product_of(layout: Layout, look: EnmapPass, swath: Swath, number: int, tiles: list[Swath]) -> EnmapProduct:
    """What a tile's name and item say, before its pixels are counted."""
    west, south, east, north = swath.grid_bounds
    centres, fwhm = enmap_bands()
    chance = generator(layout.simulation.seed, "enmap facts", look.datatake)
    length = swath.along[1] - swath.along[0]
    start = look.moment + timedelta(seconds=round(number * length * SECONDS_A_METRE, 3))
    dead = [band for band, _ in dead_columns(layout, look, swath)]
    vnir = sum(bool(centres[band - 1] <= VNIR_UP_TO) for band in dead)
    return EnmapProduct(
        datatake=look.datatake,
        tile=number + 1,
        start=start,
        stop=start + timedelta(seconds=round(length * SECONDS_A_METRE, 3)),
        processed=start + timedelta(days=340, hours=5),
        epsg=layout.epsg,
        shape=((north - south) // COARSE, (east - west) // COARSE),
        transform=(COARSE, 0, west, 0, -COARSE, north),
        footprint=to_crs(shapely.Polygon(swath.corners), f"EPSG:{layout.epsg}", LONLAT),
        centres=tuple(centres.tolist()),
        fwhm=tuple(fwhm.tolist()),
        quality=0,
        cloud=0,
        cloud_shadow=0,
        haze=0,
        cirrus=0,
        snow=0,
        water=0,
        sun_azimuth=round(look.sun.azimuth, 6),
        sun_elevation=round(look.sun.elevation, 6),
        across_off_nadir=look.across_off_nadir,
        along_off_nadir=round(float(chance.uniform(-1.5, 1.5)), 6),
        scene_azimuth=round(layout.simulation.enmap.tilt, 6),
        tiles=len(tiles),
        defective_vnir=vnir,
        defective_swir=len(dead) - vnir,
        ozone=int(chance.integers(290, 360)),
        aerosol=int(chance.integers(60, 200)),
        water_vapour=int(chance.integers(900, 2800)),
        accuracy=(round(abs(look.shift[0]), 1), round(abs(look.shift[1]), 1)),
    )


def dead_columns(layout: Layout, look: EnmapPass, swath: Swath) -> tuple[tuple[int, int], ...]:
    """The dead pairs of band (from 1) and detector column of a datatake."""
    chance = generator(layout.simulation.seed, "dead", look.datatake)
    columns = int((swath.across[1] - swath.across[0]) // COARSE)
    bands = len(enmap_bands()[0])
    pairs = {
        (int(chance.integers(1, bands + 1)), int(chance.integers(1, columns - 1)))
        for _ in range(layout.simulation.enmap.defective_columns)
    }
    return tuple(sorted(pairs))


def tile_truth(name: str, look: EnmapPass, distortion: float, bounds: Bounds) -> dict[str, Any]:
    """What is true of a tile, whatever its item says.

    Ground at x appears at x + shift_east + distortion * sin(2 pi (x - west) / (east - west)), and so northwards.
    """
    west, south, east, north = bounds
    return {
        "scene": name,
        "archive": "enmap",
        "sensor": "enmap",
        "time": look.moment.isoformat(),
        "truth": f"enmap/{look.name}",
        "shift_east": float(look.shift[0]),
        "shift_north": float(look.shift[1]),
        "distortion": float(distortion),
        "west": west,
        "south": south,
        "east": east,
        "north": north,
    }


def look_of_datatake(look: EnmapPass, datatake: int) -> EnmapPass:
    """A pass's look along its n-th swath: days later (or earlier, at the end of a year), under a sky of its own."""
    if not datatake:
        return look
    apart = timedelta(days=DAYS_BETWEEN_SWATHS * datatake)
    moment = look.moment + apart
    if moment.year != look.moment.year:
        moment = look.moment - apart
    sky = replace(look.sky, key=key_of(look.sky.key, "datatake", datatake))
    return replace(look, datatake=look.datatake + datatake, moment=moment, sky=sky)


def datatake_bounds(tiles: list[Swath]) -> Bounds:
    """West, south, east, north around the tiles of a datatake."""
    west, south, _, _ = (min(values) for values in zip(*(tile.grid_bounds for tile in tiles), strict=True))
    _, _, east, north = (max(values) for values in zip(*(tile.grid_bounds for tile in tiles), strict=True))
    return west, south, east, north
