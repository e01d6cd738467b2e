"""Sentinel-2 as a source: its scenes over the cells of a plan become monthly composites."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.acquisitions import is_same_granule, looks_of
from h2crop_data.catalog.file_versions import VERSIONS
from h2crop_data.catalog.item_facts import sentinel2_tile
from h2crop_data.catalog.items import acquired
from h2crop_data.constants import MONTHS
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.grid import Cell, ProcessingTile, tiles_of
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sources.changes import InputChange
from h2crop_data.sources.moved_files import found_again
from h2crop_data.sources.readings import ReadCounts, Reading, ToRead
from h2crop_data.sources.scenes import (
    PinnedItems,
    SceneDecision,
    item_changes,
    item_identity,
    items_over,
    read_items,
    unreadable_items,
)
from h2crop_data.sources.scratch import Scratch
from h2crop_data.sources.sentinel2.alignment import alignment_of
from h2crop_data.sources.sentinel2.archive import explain_acquisitions
from h2crop_data.sources.sentinel2.assemble import Sentinel2Task, read_into, sentinel2_block
from h2crop_data.sources.sentinel2.format import sentinel2_format
from h2crop_data.sources.sentinel2.granules import grid_from_result, grid_unit
from h2crop_data.sources.sentinel2.mask_file import MaskFile, open_masks
from h2crop_data.sources.sentinel2.readings import ALGORITHM, NO_PIXELS, Sentinel2Reading, as_reading, readings_of
from h2crop_data.sources.sentinel2.reference import reference_unit
from h2crop_data.sources.sentinel2.select import Sentinel2Scenes, choose_sentinel2
from h2crop_data.sources.sentinel2.tile_unit import (
    MASK_STEP,
    mask_ground,
    mask_unit,
    mask_units,
    tasks_of_tiles,
    tile_tasks,
)
from h2crop_data.sources.sentinel2.to_read import masks_to_read, sentinel2_to_read
from h2crop_data.sources.sentinel2.words import Sentinel2Words
from h2crop_data.sources.sentinel2.work import composite_work
from h2crop_data.sources.source import (
    BlockGround,
    BlockInputs,
    GroundNear,
    MatchedBands,
    PlannedBlock,
    ReadFile,
    Request,
    Selected,
    Source,
    SourceBlock,
)
from h2crop_data.sources.timing import Stopwatch
from h2crop_data.sources.units import Results, Unit, UnitResult
from h2crop_data.sources.work import Work

#: The file of a plan with its L1C scenes.
L1C_FILE = "sentinel2-l1c"
#: The bands that are matched with parcels.
MATCHED_RED, MATCHED_INFRARED = "B04", "B08"
#: Granules of a tile that are tried until one tells its grid.
GRANULES_TRIED = 3


class Sentinel2(Source):
    """Sentinel-2 L2A scenes of a calendar year."""

    name = "sentinel2"
    group = "s2"
    algorithm = ALGORITHM
    settings = Sentinel2Settings
    words = Sentinel2Words()
    not_identity = NO_PIXELS
    gives_reference = True
    faults: ClassVar = {"gaps": "s2_gaps", "impossible": "s2_impossible", "differences": "s2_differences"}

    def format(self, settings: Sentinel2Settings, cell_size: int) -> SourceFormat:
        return sentinel2_format(settings.bands, cell_size)

    def begin_build(self) -> None:
        VERSIONS.forget()

    def ground(self, settings: Sentinel2Settings, cells: Sequence[Cell]) -> list[BaseGeometry]:
        return mask_ground(cells) if settings.looks_at_tiles else super().ground(settings, cells)

    def select(self, settings: Sentinel2Settings, request: Request, places: Sequence[BaseGeometry]) -> Selected:
        return Selected(*choose_sentinel2(settings, request, places))

    def nothing(self) -> Sentinel2Scenes:
        return Sentinel2Scenes()

    def block_columns(self, pinned: Sentinel2Scenes, places: Sequence[BaseGeometry]) -> dict[str, list[Any]]:
        return {"s2_items": items_over(pinned.items, places)}

    def inputs(
        self, settings: Sentinel2Settings | None, pinned: Sentinel2Scenes, blocks: Sequence[PlannedBlock]
    ) -> list[list[Any]]:
        items = {item.id: item_identity(item) for item in pinned.items}
        identity = self.identity(settings)
        return [
            [identity, [[items[name], pinned.offsets[name]] for name in (block.row["s2_items"] if settings else [])]]
            for block in blocks
        ]

    def input_changes(self, before: BlockInputs, now: BlockInputs) -> list[list[InputChange]]:
        # Masks and shifts look at all dates of the tiles under a block.
        whole_tiles = now.settings.looks_at_tiles
        places = [shapely.union_all(mask_ground(block.cells)) if whole_tiles else block.place for block in now.blocks]
        old, new = (items_on(inputs.pinned, places) for inputs in (before, now))
        known = before.pinned.offsets
        other = {name for name, offset in now.pinned.offsets.items() if name in known and known[name] != offset}
        found = []
        for was, is_now in zip(old, new, strict=True):
            changes = item_changes(was, is_now, is_one_acquisition, before.planned)
            decided = tuple(item.id for item in is_now if item.id in other)
            found.append(changes if changes or not decided else [InputChange("reprocessed", decided)])
        return found

    def unreadable(
        self,
        settings: Sentinel2Settings,
        pinned: Sentinel2Scenes,
        asked: Sequence[tuple[Collection[str], BaseGeometry]],
        progress: Progress = silent,
    ) -> list[dict[str, str]]:
        items = {item.id: item for item in (*pinned.items, *pinned.l1c)}
        return unreadable_items(
            [([items[name] for name in sorted(scenes) if name in items], place) for scenes, place in asked], progress
        )

    def files(self, pinned: Sentinel2Scenes) -> dict[str, bytes]:
        return {**pinned.files(self.name), **PinnedItems(pinned.l1c).files(L1C_FILE)}

    def facts(self, pinned: Sentinel2Scenes) -> dict[str, Any]:
        items = {self.name: len(pinned.items), **({L1C_FILE: len(pinned.l1c)} if pinned.l1c else {})}
        return {"items": items, "acquisitions": pinned.acquisitions, "notes": {self.name: pinned.notes}}

    def load(
        self, facts: Mapping[str, Any], read: ReadFile, scenes: Sequence[SceneDecision], *, whole: bool
    ) -> Sentinel2Scenes:
        l1c = read_items(L1C_FILE, facts, read) if L1C_FILE in facts["items"] else []
        # Plans of earlier versions do not compare.
        acquisitions, notes = facts.get("acquisitions"), facts.get("notes", {}).get(self.name, [])
        return Sentinel2Scenes.of(read_items(self.name, facts, read), scenes, l1c, acquisitions, notes)

    def with_moved_files(
        self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, locate: Callable[[str], str]
    ) -> Sentinel2Scenes:
        of_l1c = settings.clouds.l1c
        l1c = pinned.l1c if of_l1c is None else found_again(pinned.l1c, of_l1c, locate)
        return replace(pinned, items=found_again(pinned.items, settings, locate), l1c=l1c)

    def counts(self, pinned: Sentinel2Scenes) -> dict[str, int]:
        return {"sentinel2_scenes": len(pinned.items)}

    def to_read(self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, blocks: Sequence[PlannedBlock]) -> ToRead:
        season = blocks[0].season if blocks else 0
        masked = tile_tasks(settings, pinned, tiles_under(blocks), season)
        return sentinel2_to_read(self.readings_of_blocks(settings, pinned, blocks)) + masks_to_read(masked)

    def reading_work(
        self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, blocks: Sequence[PlannedBlock]
    ) -> list[Work]:
        return list(map(composite_work, self.readings_of_blocks(settings, pinned, blocks)))

    def units(
        self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, blocks: Sequence[PlannedBlock]
    ) -> list[list[Unit]]:
        units = {
            tile: grid_unit(items[:GRANULES_TRIED], settings)
            for tile, items in granules_of_tiles(pinned.items).items()
            if tile not in pinned.grids
        }
        tiles = {item.id: sentinel2_tile(item) for item in pinned.items}
        over = [{tiles[name] for name in block.row["s2_items"]} for block in blocks]
        of_blocks = [[units[tile] for tile in sorted(of_block) if tile in units] for of_block in over]
        under = [tiles_under([block]) for block in blocks]
        masks = self.mask_units(settings, pinned, blocks)
        return [
            [*grids, *(masks[tile] for tile in of_block if tile in masks)]
            for grids, of_block in zip(of_blocks, under, strict=True)
        ]

    def mask_units(
        self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, blocks: Sequence[PlannedBlock]
    ) -> dict[ProcessingTile, Unit]:
        """The units that mask clouds under some blocks, by tile."""
        return mask_units(settings, pinned, tiles_under(blocks), blocks[0].season if blocks else 0)

    def reference_units(
        self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, wanted: Sequence[GroundNear], season: int
    ) -> list[list[Unit]]:
        # Clouds are masked over them even where a recipe masks its composites by the classification alone.
        tiles = {tile for of_ground, _ in wanted for tile in of_ground}
        tasks = {task.tile: task for task in tasks_of_tiles(settings, pinned, sorted(tiles), season)}
        masks = {tile: mask_unit(task, season) for tile, task in tasks.items()}
        return [[reference_unit(tasks[tile], masks[tile], moment) for tile in own] for own, moment in wanted]

    def with_results(self, pinned: Sentinel2Scenes, units: Sequence[Unit], results: Results) -> Sentinel2Scenes:
        # Files that cannot be read now cost the blocks that need them, when they are built.
        known = [(unit, results[unit.id]) for unit in units]
        found = [
            grid_from_result(result.read()) for unit, result in known if unit.kind == "scene" and result.error is None
        ]
        grids = {grid.tile: grid for grid in found if grid is not None}
        masks = {unit.id: result for unit, result in known if unit.step == MASK_STEP}
        return replace(pinned, grids={**pinned.grids, **grids}, masks={**pinned.masks, **masks})

    def readings(
        self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, blocks: Sequence[PlannedBlock]
    ) -> list[Reading]:
        return list(map(as_reading, self.readings_of_blocks(settings, pinned, blocks)))

    def readings_of_blocks(
        self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, blocks: Sequence[PlannedBlock]
    ) -> list[Sentinel2Reading]:
        """The readings of all cells of some blocks."""
        outlines = {
            cell: outline for block in blocks for cell, outline in zip(block.cells, block.outlines, strict=True)
        }
        season = blocks[0].season if blocks else 0
        units = self.mask_units(settings, pinned, blocks)
        masks = {tile: mask_file(tile, unit, settings, pinned.masks.get(unit.id)) for tile, unit in units.items()}
        return readings_of(settings, pinned, list(outlines), list(outlines.values()), season, masks)

    def read(self, reading: Reading, scratch: Scratch, watch: Stopwatch) -> ReadCounts:
        return read_into(scratch, reading.id, reading.task.only(set(reading.cells)), watch)

    def months_without(self, pinned: Sentinel2Scenes, season: int) -> list[int]:
        months = {look.moment.month for look in looks_of(pinned.items, season)}
        return [month for month in range(1, MONTHS + 1) if month not in months]

    def what_was_read(self, pinned: Sentinel2Scenes) -> tuple[dict[str, Any], list[str]]:
        return {"acquisitions": pinned.acquisitions} if pinned.acquisitions else {}, pinned.notes

    def explain(self, facts: Mapping[str, Any]) -> list[str]:
        return explain_acquisitions(facts.get("acquisitions", {}))

    def dates(self, settings: Sentinel2Settings, pinned: Sentinel2Scenes) -> dict[str, list[dict[str, Any]]]:
        found = [
            open_masks(result.file.resolve(), alignment_of(settings))
            for result in pinned.masks.values()
            if result.file is not None
        ]
        return {masks.digest: masks.dates for masks in found if masks.dates}

    def matched_bands(self, settings: Sentinel2Settings) -> MatchedBands | None:
        places: dict[str, int] = {band: place for place, band in enumerate(settings.bands)}
        if settings.alignment == "none" or not {MATCHED_RED, MATCHED_INFRARED} <= places.keys():
            return None
        return MatchedBands("s2", places[MATCHED_RED], places[MATCHED_INFRARED])

    def task(self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, block: PlannedBlock) -> Sentinel2Task:
        cells = set(block.cells)
        own = {reading.id: reading.task.only(cells) for reading in block.readings if reading.source == self.name}
        return Sentinel2Task(settings, own)

    def assemble(self, task: Sentinel2Task, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
        return sentinel2_block(task, ground, watch)


def items_on(pinned: Sentinel2Scenes, places: Sequence[BaseGeometry]) -> list[list[pystac.Item]]:
    """For each place (longitude, latitude) the items that meet it."""
    return [[pinned.by_id[name] for name in names] for names in items_over(pinned.items, places)]


def is_one_acquisition(one: pystac.Item, other: pystac.Item) -> bool:
    """Whether two items are products of one granule."""
    return sentinel2_tile(one) == sentinel2_tile(other) and is_same_granule(one, other)


def tiles_under(blocks: Sequence[PlannedBlock]) -> list[ProcessingTile]:
    """The processing tiles that the cells of some blocks take their parts from."""
    return sorted({tile for block in blocks for cell in block.cells for tile in tiles_of(cell)})


def mask_file(tile: ProcessingTile, unit: Unit, settings: Sentinel2Settings, result: UnitResult | None) -> MaskFile:
    """Where the masks of a tile are. result: None before they were made."""
    file = None if result is None or result.file is None else result.file.resolve()
    return MaskFile(tile, unit.id, alignment_of(settings), file, None if result is None else result.error)


def granules_of_tiles(items: Sequence[pystac.Item]) -> dict[str, list[pystac.Item]]:
    """The granules of each tile, those acquired last first."""
    granules: dict[str, list[pystac.Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: (acquired(item), item.id), reverse=True):
        granules[sentinel2_tile(item)].append(item)
    return granules
