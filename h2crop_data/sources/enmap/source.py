"""EnMAP as a source: its scenes make samples, one for each cell and datatake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import geopandas as gpd
import pystac

from h2crop_data.catalog.access import raster_geobox
from h2crop_data.catalog.item_facts import enmap_scene
from h2crop_data.catalog.items import acquired
from h2crop_data.constants import COARSE
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.errors import H2cropError, MissingFileError, SceneError
from h2crop_data.grid import Cell, ProcessingTile, tiles_of
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.changes import InputChange
from h2crop_data.sources.enmap.assemble import EnmapTask, enmap_block, read_scene_into
from h2crop_data.sources.enmap.columns import scene_mask_columns
from h2crop_data.sources.enmap.format import REFERENCE_GAPS, enmap_format
from h2crop_data.sources.enmap.mask_result import mask_facts
from h2crop_data.sources.enmap.masks import OWN_MASK_STEP, own_mask_unit
from h2crop_data.sources.enmap.match import (
    MATCH_STEP,
    NOT_MATCHED,
    MatchDecision,
    SceneMatch,
    decided,
    match_columns,
    match_unit,
    scene_match,
)
from h2crop_data.sources.enmap.products import READ_ASSETS
from h2crop_data.sources.enmap.readings import (
    CUBE_ALGORITHM,
    EnmapReading,
    MaskOfScene,
    as_enmap_reading,
    scene_reading,
)
from h2crop_data.sources.enmap.scene import (
    EnmapScenes,
    SceneFacts,
    facts_from_parquet,
    facts_to_parquet,
    scene_facts,
    scene_unit,
)
from h2crop_data.sources.enmap.select import choose_enmap
from h2crop_data.sources.enmap.words import EnmapWords
from h2crop_data.sources.enmap.work import cells_work
from h2crop_data.sources.moved_files import found_again
from h2crop_data.sources.readings import ReadCounts, Reading
from h2crop_data.sources.scenes import SceneDecision, item_changes, item_identity, read_items
from h2crop_data.sources.scratch import Scratch
from h2crop_data.sources.source import (
    BlockGround,
    BlockInputs,
    Observed,
    PlannedBlock,
    ReadFile,
    Reference,
    Request,
    Source,
    SourceBlock,
)
from h2crop_data.sources.timing import Stopwatch
from h2crop_data.sources.units import Results, Unit, UnitResult
from h2crop_data.sources.work import Work
from h2crop_data.splits.lists import ListedPatch, patch_outline, published_patch

#: The file of a plan with the facts of its scenes.
FACTS = "enmap-facts.parquet"


class Enmap(Source):
    """EnMAP L2A scenes; a plan keeps their items."""

    name = "enmap"
    group = "enmap"
    algorithm = CUBE_ALGORITHM
    settings = EnmapSettings
    words = EnmapWords()
    faults: ClassVar = {"gaps": REFERENCE_GAPS}
    #: These choose scenes and cells; what is chosen is part of the input hash itself.
    not_identity = frozenset(
        {
            *("catalog", "collection", "months", "max_quality", "min_sun_elevation", "max_cloud_cover"),
            *("max_flagged_share", "cloud_layer"),
        }
    )

    def format(self, settings: EnmapSettings, cell_size: int) -> SourceFormat:
        return enmap_format(settings.bands.count, cell_size, mask=settings.mask != "none")

    def observe(self, settings: EnmapSettings, request: Request) -> Observed:
        return choose_enmap(settings, request)

    def nothing(self) -> EnmapScenes:
        return EnmapScenes()

    def for_samples(self, pinned: EnmapScenes, samples: gpd.GeoDataFrame, *, further: bool) -> EnmapScenes:
        return pinned.only(set(samples["scene"]))

    def inputs(
        self, settings: EnmapSettings | None, pinned: EnmapScenes, blocks: Sequence[PlannedBlock]
    ) -> list[list[Any]]:
        items = {item.id: item_identity(item) for item in pinned.items}
        identity = self.identity(settings)
        return [[identity, items.get(block.scene)] for block in blocks]

    def input_changes(self, before: BlockInputs, now: BlockInputs) -> list[list[InputChange]]:
        products: dict[tuple[str, str], list[pystac.Item]] = defaultdict(list)
        for item in now.pinned.items:
            products[tile_of(item)].append(item)
        # Blocks of one scene have one answer.
        of_scene: dict[str, list[InputChange]] = {}
        for name in {block.scene for block in before.blocks} & before.pinned.by_id.keys():
            old = before.pinned.by_id[name]
            changes = item_changes([old], products[tile_of(old)], lambda one, other: True, before.planned)
            matched = now.settings.coregistration != "none"
            of_scene[name] = changes or ([InputChange("matching")] if matched else [])
        return [of_scene.get(block.scene, []) for block in before.blocks]

    def units(self, settings: EnmapSettings, pinned: EnmapScenes, blocks: Sequence[PlannedBlock]) -> list[list[Unit]]:
        # What they give is in the plan already, but in one of an earlier h2crop.
        cell_size = {block.scene: block.cells[0].size for block in blocks}
        units: dict[str, list[Unit]] = defaultdict(list)
        for name in cell_size.keys() & pinned.by_id.keys():
            mask = own_mask_unit(pinned.by_id[name])
            if name not in pinned.facts:
                units[name].append(scene_unit(pinned.by_id[name], settings, cell_size[name], mask))
            if settings.mask != "none":
                units[name].append(mask)
        return [units.get(block.scene, []) for block in blocks]

    def matching_units(
        self,
        settings: EnmapSettings,
        pinned: EnmapScenes,
        blocks: Sequence[PlannedBlock],
        reference: Reference | None,
    ) -> list[list[Unit]]:
        if settings.coregistration == "none" or reference is None:
            return [[] for _ in blocks]
        # A scene has one shift: of all ground that is built of it.
        ground: dict[str, set[ProcessingTile]] = defaultdict(set)
        for block in blocks:
            ground[block.scene] |= {tile for cell in block.cells for tile in tiles_of(cell)}
        scenes = {name: (pinned.by_id[name], sorted(ground[name])) for name in sorted(ground) if name in pinned.by_id}
        references = reference([(tiles, acquired(item)) for item, tiles in scenes.values()])
        units = {
            name: match_unit(item, tiles, needs)
            for (name, (item, tiles)), needs in zip(scenes.items(), references, strict=True)
        }
        if settings.unmatched != "datatake":
            return [[units[block.scene]] if block.scene in units else [] for block in blocks]
        together: dict[str, list[Unit]] = defaultdict(list)
        datatakes = self.datatakes(pinned)
        for name, unit in sorted(units.items()):
            together[datatakes[name]].append(unit)
        return [together[datatakes[block.scene]] if block.scene in units else [] for block in blocks]

    def with_results(self, pinned: EnmapScenes, units: Sequence[Unit], results: Results) -> EnmapScenes:
        known = [(unit, results[unit.id]) for unit in units]
        matched, masked = (
            {unit.name: result for unit, result in known if unit.step == step} for step in (MATCH_STEP, OWN_MASK_STEP)
        )
        looked_at = {unit.name: result for unit, result in known if unit.step not in (MATCH_STEP, OWN_MASK_STEP)}
        return replace(
            pinned.with_facts({name: result.error or scene_facts(result.read()) for name, result in looked_at.items()}),
            matches={**pinned.matches, **matched},
            masks={**pinned.masks, **masked},
        )

    def files(self, pinned: EnmapScenes) -> dict[str, bytes]:
        facts = {name: known for name, known in pinned.facts.items() if isinstance(known, SceneFacts)}
        return {**pinned.files(self.name), **({FACTS: facts_to_parquet(facts)} if facts else {})}

    def facts(self, pinned: EnmapScenes) -> dict[str, Any]:
        notes = {"notes": {self.name: list(pinned.notes)}} if pinned.notes else {}
        return {"items": {self.name: len(pinned.items)}, **notes}

    def load(
        self, facts: Mapping[str, Any], read: ReadFile, scenes: Sequence[SceneDecision], *, whole: bool
    ) -> EnmapScenes:
        items = read_items(self.name, facts, read)
        pinned = EnmapScenes(items, notes=tuple(facts.get("notes", {}).get(self.name, ())))
        try:
            return pinned.with_facts(facts_from_parquet(read(FACTS)) if items and whole else {})
        except MissingFileError:
            return pinned

    def with_moved_files(
        self, settings: EnmapSettings, pinned: EnmapScenes, locate: Callable[[str], str]
    ) -> EnmapScenes:
        return replace(pinned, items=found_again(pinned.items, settings, locate, READ_ASSETS))

    def what_was_read(self, pinned: EnmapScenes) -> tuple[dict[str, Any], list[str]]:
        return {}, list(pinned.notes)

    def datatakes(self, pinned: EnmapScenes) -> dict[str, str]:
        return {item.id: enmap_scene(item).datatake for item in pinned.items}

    def patches(self, pinned: EnmapScenes, lists: Mapping[str, str]) -> list[ListedPatch]:
        by_scene: dict[tuple[str, int], list[str]] = defaultdict(list)
        for name in lists:
            patch = published_patch(name)
            by_scene[patch.time.strftime("%Y%m%dT%H%M%S"), int(patch.number)].append(name)
        patches = []
        for item in pinned.items:
            scene = enmap_scene(item)
            names = by_scene.get((scene.stamp, int(scene.tile)), [])
            if names:
                grid = raster_geobox(item.assets["image"].href)
                epsg = int(str(grid.crs).removeprefix("EPSG:"))
                patches += [ListedPatch(name, lists[name], epsg, patch_outline(name, grid.affine)) for name in names]
        return patches

    def flag_masks(self, settings: EnmapSettings) -> dict[str, int]:
        return {"enmap_quality": settings.flag_mask, "enmap_mask": settings.own_flag_mask}

    def counts(self, pinned: EnmapScenes) -> dict[str, int]:
        return {"enmap_scenes": len(pinned.items)}

    def reading_work(self, settings: EnmapSettings, pinned: EnmapScenes, blocks: Sequence[PlannedBlock]) -> list[Work]:
        cells: dict[str, list[Cell]] = defaultdict(list)
        for block in blocks:
            cells[block.scene] += block.cells
        return [
            cells_work(pinned.by_id[scene], len(of_scene), (of_scene[0].size // COARSE) ** 2)
            for scene, of_scene in cells.items()
            if scene in pinned.by_id
        ]

    def readings(self, settings: EnmapSettings, pinned: EnmapScenes, blocks: Sequence[PlannedBlock]) -> list[Reading]:
        cells: dict[str, list[Cell]] = defaultdict(list)
        for block in blocks:
            cells[block.scene] += block.cells
        season = blocks[0].season if blocks else 0
        tasks = [self.scene_task(settings, pinned, scene, of_scene) for scene, of_scene in cells.items()]
        found = [task.reading for task in tasks if task is not None]
        # A scene that cannot be read is told of by its blocks.
        return [as_enmap_reading(reading, season) for reading in found if isinstance(reading, EnmapReading)]

    def scene_task(
        self, settings: EnmapSettings, pinned: EnmapScenes, name: str, cells: Sequence[Cell]
    ) -> EnmapTask | None:
        """What is read of a scene over some cells, or why it cannot be; None where the plan has no such scene."""
        scene = pinned.by_id.get(name)
        if scene is None:
            return None
        unknown = SceneError(f"{name}: its bands are unknown: neither the plan nor a unit of work has them")
        facts = pinned.facts.get(name, unknown)
        if isinstance(facts, H2cropError):
            return EnmapTask(settings, facts)
        columns, shifts = {}, {}
        try:
            mask = self.mask(settings, pinned, name)
            if settings.coregistration != "none":
                match, decision = self.match(settings, pinned, name)
                columns = match_columns(match, decision)
                shifts = {band.number: decision.shifts[band.detector] for band in facts.bands}
        except H2cropError as error:
            return EnmapTask(settings, error)
        if mask is not None and mask.file is not None:
            columns |= scene_mask_columns(mask_facts(mask.file))
        return EnmapTask(settings, scene_reading(scene, facts, cells, shifts, mask), columns=columns)

    def mask(self, settings: EnmapSettings, pinned: EnmapScenes, scene: str) -> MaskOfScene | None:
        """What is known of the mask of a scene; None where a recipe wants none. Raises the error of its unit."""
        if settings.mask == "none":
            return None
        result = pinned.masks.get(scene, UnitResult())
        if result.error is not None:
            raise result.error
        return MaskOfScene(own_mask_unit(pinned.by_id[scene]).id, result.file)

    def match(self, settings: EnmapSettings, pinned: EnmapScenes, scene: str) -> tuple[SceneMatch, MatchDecision]:
        """What was found of a scene's shift and what becomes of it.

        Raises SceneError where the recipe refuses it, and the error of the unit that matched it.
        """
        results = pinned.matches
        match = scene_match(results[scene].read()) if scene in results else NOT_MATCHED
        others = []
        if match.doubt and settings.unmatched == "datatake":
            datatakes = self.datatakes(pinned)
            others = [
                scene_match(result.read())
                for name, result in sorted(results.items())
                if name != scene and datatakes[name] == datatakes[scene] and result.error is None
            ]
        decision = decided(match, settings, others)
        if match.doubt and settings.unmatched == "refuse":
            raise SceneError(
                f"{scene}: its shift against Sentinel-2 is unknown ({match.doubt}); `enmap.unmatched: unshifted` "
                "uses it without a correction"
            )
        return match, decision

    def read(self, reading: Reading, scratch: Scratch, watch: Stopwatch) -> ReadCounts:
        read_scene_into(scratch, reading.id, reading.task.only(set(reading.cells)), watch)
        # Counted are the tiles of composites, as a plan tells them.
        return ReadCounts()

    def task(self, settings: EnmapSettings, pinned: EnmapScenes, block: PlannedBlock) -> EnmapTask | None:
        name = next((reading.id for reading in block.readings if reading.source == self.name), "")
        own = self.scene_task(settings, pinned, block.scene, block.cells)
        return None if own is None else replace(own, name=name)

    def assemble(self, task: EnmapTask, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
        return enmap_block(task, ground, watch)


def tile_of(item: pystac.Item) -> tuple[str, str]:
    """The datatake and the tile of it that a product shows."""
    scene = enmap_scene(item)
    return scene.datatake, scene.tile
