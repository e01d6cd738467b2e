"""EnMAP as a source: its scenes make samples, one for each cell and datatake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import geopandas as gpd

from h2crop_data.catalog.access import raster_geobox
from h2crop_data.catalog.providers import enmap_scene
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.errors import MissingFileError, SceneError
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.enmap.assemble import EnmapTask, enmap_block
from h2crop_data.sources.enmap.format import enmap_format
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
from h2crop_data.sources.scenes import SceneDecision, item_identity, read_items
from h2crop_data.sources.source import BlockGround, Observed, PlannedBlock, ReadFile, Request, Source, SourceBlock
from h2crop_data.sources.timing import Stopwatch
from h2crop_data.sources.units import Results, Unit
from h2crop_data.splits.lists import ListedPatch, patch_outline, published_patch

#: Files read for a block: image and quality layers.
FILES_A_BLOCK = 8
#: The file of a plan with the facts of its scenes.
FACTS = "enmap-facts.parquet"


class Enmap(Source):
    """EnMAP L2A scenes; a plan keeps their items."""

    name = "enmap"
    group = "enmap"
    algorithm = 1
    settings = EnmapSettings
    words = EnmapWords()
    #: These choose scenes and cells; what is chosen is part of the input hash itself.
    not_identity = frozenset(
        {
            *("catalog", "collection", "months", "max_quality", "min_sun_elevation", "max_cloud_cover"),
            *("max_flagged_share", "cloud_layer"),
        }
    )

    def format(self, settings: EnmapSettings, cell_size: int) -> SourceFormat:
        return enmap_format(settings.bands.count, cell_size)

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

    def units(self, settings: EnmapSettings, pinned: EnmapScenes, blocks: Sequence[PlannedBlock]) -> list[list[Unit]]:
        # What they give is in the plan already, but in one of an earlier h2crop.
        cell_size = {block.scene: block.cells[0].size for block in blocks}
        units = {
            name: [scene_unit(pinned.by_id[name], settings, size)]
            for name, size in cell_size.items()
            if name in pinned.by_id and name not in pinned.facts
        }
        return [units.get(block.scene, []) for block in blocks]

    def with_results(self, pinned: EnmapScenes, units: Sequence[Unit], results: Results) -> EnmapScenes:
        looked_at = {unit.name: results[unit.id] for unit in units}
        return pinned.with_facts(
            {name: result.error or scene_facts(result.read()) for name, result in looked_at.items()}
        )

    def files(self, pinned: EnmapScenes) -> dict[str, bytes]:
        facts = {name: known for name, known in pinned.facts.items() if isinstance(known, SceneFacts)}
        return {**pinned.files(self.name), **({FACTS: facts_to_parquet(facts)} if facts else {})}

    def facts(self, pinned: EnmapScenes) -> dict[str, Any]:
        return {"items": {self.name: len(pinned.items)}}

    def load(
        self, facts: Mapping[str, Any], read: ReadFile, scenes: Sequence[SceneDecision], *, whole: bool
    ) -> EnmapScenes:
        items = read_items(self.name, facts, read)
        try:
            return EnmapScenes(items, facts_from_parquet(read(FACTS)) if items and whole else {})
        except MissingFileError:
            return EnmapScenes(items)

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
        return {"enmap_quality": settings.flag_mask}

    def counts(self, pinned: EnmapScenes) -> dict[str, int]:
        return {"enmap_scenes": len(pinned.items)}

    def seconds_to_read(
        self, settings: EnmapSettings, pinned: EnmapScenes, blocks: Collection[Mapping[str, Any]]
    ) -> float:
        return len(blocks) * FILES_A_BLOCK * pinned.seconds_a_read

    def task(self, settings: EnmapSettings, pinned: EnmapScenes, block: PlannedBlock) -> EnmapTask | None:
        scene = pinned.by_id.get(block.scene)
        if scene is None:
            return None
        unknown = SceneError(f"{scene.id}: the plan does not say which bands it has, and nobody looked")
        return EnmapTask(settings, scene, pinned.facts.get(scene.id, unknown))

    def assemble(self, task: EnmapTask, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
        return enmap_block(task, ground, watch)
