"""EnMAP as a source: its scenes make samples, one for each cell and datatake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import geopandas as gpd

from h2crop_data.catalog.access import raster_geobox
from h2crop_data.catalog.providers import enmap_scene
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.recipe.model import EnmapSource
from h2crop_data.sources.enmap.assemble import EnmapTask, enmap_block
from h2crop_data.sources.enmap.format import enmap_format
from h2crop_data.sources.enmap.select import choose_enmap
from h2crop_data.sources.enmap.words import EnmapWords
from h2crop_data.sources.scenes import PinnedItems, SceneDecision, item_identity, read_items
from h2crop_data.sources.source import BlockGround, Observed, PlannedBlock, ReadFile, Request, Source, SourceBlock
from h2crop_data.sources.timing import Stopwatch
from h2crop_data.splits.lists import ListedPatch, patch_outline, published_patch

#: Files read for a block: image, metadata and the quality layers.
FILES_A_BLOCK = 9


class Enmap(Source):
    """EnMAP L2A scenes; a plan keeps their items."""

    name = "enmap"
    group = "enmap"
    algorithm = 1
    settings = EnmapSource
    words = EnmapWords()
    #: These choose scenes and cells; what is chosen is part of the input hash itself.
    not_identity = frozenset(
        {
            *("catalog", "collection", "months", "max_quality", "min_sun_elevation", "max_cloud_cover"),
            *("max_flagged_share", "cloud_layer"),
        }
    )

    def format(self, settings: EnmapSource, cell_size: int) -> SourceFormat:
        return enmap_format(settings.bands.count, cell_size)

    def observe(self, settings: EnmapSource, request: Request) -> Observed:
        return choose_enmap(settings, request)

    def nothing(self) -> PinnedItems:
        return PinnedItems()

    def for_samples(self, pinned: PinnedItems, samples: gpd.GeoDataFrame, *, further: bool) -> PinnedItems:
        used = set(samples["scene"])
        return PinnedItems([item for item in pinned.items if item.id in used])

    def inputs(
        self, settings: EnmapSource | None, pinned: PinnedItems, blocks: Sequence[PlannedBlock]
    ) -> list[list[Any]]:
        items = {item.id: item_identity(item) for item in pinned.items}
        identity = self.identity(settings)
        return [[identity, items.get(block.scene)] for block in blocks]

    def files(self, pinned: PinnedItems) -> dict[str, bytes]:
        return pinned.files(self.name)

    def facts(self, pinned: PinnedItems) -> dict[str, Any]:
        return {"items": {self.name: len(pinned.items)}}

    def load(
        self, facts: Mapping[str, Any], read: ReadFile, scenes: Sequence[SceneDecision], *, whole: bool
    ) -> PinnedItems:
        return PinnedItems(read_items(self.name, facts, read))

    def datatakes(self, pinned: PinnedItems) -> dict[str, str]:
        return {item.id: enmap_scene(item).datatake for item in pinned.items}

    def patches(self, pinned: PinnedItems, lists: Mapping[str, str]) -> list[ListedPatch]:
        by_scene: dict[tuple[str, int], list[str]] = defaultdict(list)
        for name in lists:
            patch = published_patch(name)
            by_scene[patch.time.strftime("%Y%m%dT%H%M%S"), patch.tile].append(name)
        patches = []
        for item in pinned.items:
            scene = enmap_scene(item)
            names = by_scene.get((scene.stamp, int(scene.tile)), [])
            if names:
                grid = raster_geobox(item.assets["image"].href)
                epsg = int(str(grid.crs).removeprefix("EPSG:"))
                patches += [ListedPatch(name, lists[name], epsg, patch_outline(name, grid.affine)) for name in names]
        return patches

    def flag_masks(self, settings: EnmapSource) -> dict[str, int]:
        return {"enmap_quality": settings.flag_mask}

    def counts(self, pinned: PinnedItems) -> dict[str, int]:
        return {"enmap_scenes": len(pinned.items)}

    def seconds_to_read(
        self, settings: EnmapSource, pinned: PinnedItems, blocks: Collection[Mapping[str, Any]]
    ) -> float:
        return len(blocks) * FILES_A_BLOCK * pinned.seconds_a_read

    def task(self, settings: EnmapSource, pinned: PinnedItems, block: PlannedBlock) -> EnmapTask | None:
        scene = pinned.by_id.get(block.scene)
        return None if scene is None else EnmapTask(settings, scene)

    def assemble(self, task: EnmapTask, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
        return enmap_block(task, ground, watch)
