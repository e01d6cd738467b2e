"""Units of work that mask clouds: a processing tile with all dates of a season, whatever cells are built on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.access import file_stamp
from h2crop_data.catalog.acquisitions import l1c_of_items, looks_of
from h2crop_data.catalog.item_facts import sentinel2_asset, sentinel2_tile
from h2crop_data.grid import LONLAT, TILE_SIZE, Cell, ProcessingTile, tiles_of, transformer
from h2crop_data.recipe.model import Clouds, Sentinel2Settings
from h2crop_data.sentinel2.tile_masks import MaskRules
from h2crop_data.sources.scenes import items_over, kept_identity
from h2crop_data.sources.sentinel2.detectors import CLASSIFICATION, l1c_bands, l2a_bands, versions_of
from h2crop_data.sources.sentinel2.granules import expected_grid, home_of
from h2crop_data.sources.sentinel2.looks import CellLook, months_of
from h2crop_data.sources.sentinel2.select import Sentinel2Scenes
from h2crop_data.sources.sentinel2.tile_reading import TileTask, make_masks
from h2crop_data.sources.sentinel2.work import tile_mask_work
from h2crop_data.sources.units import Unit

#: Raised whenever the same scenes and settings give other masks.
MASK_ALGORITHM = 1
#: The same of shifts.
SHIFT_ALGORITHM = 1
MASK_STEP = "sentinel2 masks"


def rules_of(clouds: Clouds) -> MaskRules:
    """The rules of a recipe."""
    return MaskRules(
        clear_classes=tuple(sorted(clouds.clear)),
        uses_classes=CLASSIFICATION in clouds.methods,
        dilation=clouds.dilation_metres,
        cast_shadows=clouds.cast_shadows,
        second_look=clouds.second_look,
    )


def mask_ground(cells: Sequence[Cell]) -> list[BaseGeometry]:
    """The ground (longitude, latitude) that masks of some cells look at: their tiles, with margins."""
    return [tile_ground(tile) for tile in sorted({tile for cell in cells for tile in tiles_of(cell)})]


def tile_ground(tile: ProcessingTile) -> BaseGeometry:
    """A tile with its margin in longitude and latitude."""
    ground = shapely.box(*tile.bounds_with_margin)
    return shapely.transform(ground, transformer(f"EPSG:{tile.epsg}", LONLAT).transform, interleaved=False)


def mask_units(
    settings: Sentinel2Settings, scenes: Sentinel2Scenes, tiles: Sequence[ProcessingTile], season: int
) -> dict[ProcessingTile, Unit]:
    """The unit of work that masks the clouds of a season over each of some tiles; none where clouds are not masked."""
    return {task.tile: mask_unit(task, season) for task in tile_tasks(settings, scenes, tiles, season)}


def tile_tasks(
    settings: Sentinel2Settings, scenes: Sentinel2Scenes, tiles: Sequence[ProcessingTile], season: int
) -> list[TileTask]:
    """What is masked: some tiles, in order, each with its scenes of a season; nothing where clouds are not masked."""
    return tasks_of_tiles(settings, scenes, tiles, season) if settings.looks_at_tiles and tiles else []


def tasks_of_tiles(
    settings: Sentinel2Settings, scenes: Sentinel2Scenes, tiles: Sequence[ProcessingTile], season: int
) -> list[TileTask]:
    """Some tiles, in order, each with its scenes of a season."""
    ordered = sorted(set(tiles))
    over = items_over(scenes.items, list(map(tile_ground, ordered)))
    matches = l1c_of_items(scenes.items, scenes.l1c) if l1c_bands(settings.clouds) else None
    return [
        tile_task(settings, scenes, tile, season, [scenes.by_id[name] for name in names], matches)
        for tile, names in zip(ordered, over, strict=True)
    ]


def tile_task(
    settings: Sentinel2Settings,
    scenes: Sentinel2Scenes,
    tile: ProcessingTile,
    season: int,
    items: Sequence[pystac.Item],
    matches: Mapping[str, Sequence[pystac.Item]] | None,
) -> TileTask:
    """What is masked on a tile. items: over it. matches: L2A item -> the L1C items that show the same, if needed."""
    l1c = {} if matches is None else {item.id: list(matches.get(item.id, ())) for item in items}
    others = {other.id: other for found in l1c.values() for other in found}
    return TileTask(
        settings=settings,
        rules=rules_of(settings.clouds),
        tile=tile,
        looks=tuple(looks_on_tile(tile, items, season)),
        items={item.id: item for item in items},
        offsets={name: scenes.offsets[name] for name in [*(item.id for item in items), *others]},
        l1c=None if matches is None else {name: tuple(one.id for one in found) for name, found in l1c.items()},
        l1c_items=others,
    )


def mask_unit(task: TileTask, season: int) -> Unit:
    """The unit of work of a tile."""
    settings, items, others = task.settings, list(task.items.values()), task.l1c_items
    bands = sorted({*l2a_bands(settings), "SCL"})
    stamps = [[file_stamp(item.assets[sentinel2_asset(item, band)].href) for band in bands] for item in items]
    stamps += [[file_stamp(asset.href) for _, asset in sorted(other.assets.items())] for other in others.values()]
    return Unit(
        kind="tile",
        step=MASK_STEP,
        name=f"clouds over {task.tile.id}, {season}",
        algorithm=MASK_ALGORITHM,
        inputs={
            "season": season,
            "items": [[kept_identity(item), task.offsets[name]] for name, item in sorted(task.items.items())],
            "l1c": [[kept_identity(other), task.offsets[name]] for name, other in sorted(others.items())],
        },
        settings=settings_of_masks(settings),
        compute=partial(make_masks, task),
        stamp=stamps if any(stamp is not None for of_item in stamps for stamp in of_item) else None,
        work=partial(tile_mask_work, task),
    )


def settings_of_masks(settings: Sentinel2Settings) -> dict[str, Any]:
    """What of a recipe changes masks, as plain data, with the versions of methods."""
    clouds = settings.clouds
    # What becomes of a shift is decided when it is used: no mask is made again for it.
    shifts = {"shifts": SHIFT_ALGORITHM} if settings.alignment != "none" else {}
    return {
        **shifts,
        "methods": list(map(list, versions_of(clouds))),
        "rules": asdict(rules_of(clouds)),
        "missing": clouds.missing,
        "gaps": settings.gaps,
    }


def looks_on_tile(tile: ProcessingTile, items: Sequence[pystac.Item], season: int) -> list[CellLook]:
    """The looks of a season on a tile, in order of time, each with its items in the order in which they are asked.

    The order is that of granules by their names, whatever their files hold: masks must not depend on what was opened.
    """
    grids = {sentinel2_tile(item): grid for item in items if (grid := expected_grid(item)) is not None}
    home = home_of(Cell(tile.epsg, TILE_SIZE, tile.column, tile.row), list(grids.values()))
    months = months_of(looks_of(items, season), home, grids)
    return sorted((look for of_month in months.values() for look in of_month), key=lambda look: look.moment)
