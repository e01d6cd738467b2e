"""Sentinel-2 as a source: its scenes over the cells of a plan become monthly composites."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.acquisitions import looks_of
from h2crop_data.constants import MONTHS
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sources.scenes import SceneDecision, item_identity, items_over, read_items
from h2crop_data.sources.sentinel2.assemble import Sentinel2Task, sentinel2_block
from h2crop_data.sources.sentinel2.format import sentinel2_format
from h2crop_data.sources.sentinel2.select import Sentinel2Scenes, choose_sentinel2
from h2crop_data.sources.sentinel2.words import Sentinel2Words
from h2crop_data.sources.source import BlockGround, PlannedBlock, ReadFile, Request, Selected, Source, SourceBlock
from h2crop_data.sources.timing import Stopwatch


class Sentinel2(Source):
    """Sentinel-2 L2A scenes of a calendar year."""

    name = "sentinel2"
    group = "s2"
    algorithm = 2
    settings = Sentinel2Settings
    words = Sentinel2Words()
    not_identity = frozenset({"catalog"})
    faults: ClassVar = {"gaps": "s2_gaps", "impossible": "s2_impossible"}

    def format(self, settings: Sentinel2Settings, cell_size: int) -> SourceFormat:
        return sentinel2_format(settings.bands, cell_size)

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

    def files(self, pinned: Sentinel2Scenes) -> dict[str, bytes]:
        return pinned.files(self.name)

    def facts(self, pinned: Sentinel2Scenes) -> dict[str, Any]:
        return {"items": {self.name: len(pinned.items)}}

    def load(
        self, facts: Mapping[str, Any], read: ReadFile, scenes: Sequence[SceneDecision], *, whole: bool
    ) -> Sentinel2Scenes:
        return Sentinel2Scenes.of(read_items(self.name, facts, read), scenes)

    def counts(self, pinned: Sentinel2Scenes) -> dict[str, int]:
        return {"sentinel2_scenes": len(pinned.items)}

    def seconds_to_read(
        self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, blocks: Collection[Mapping[str, Any]]
    ) -> float:
        over = sum(len(row["s2_items"]) for row in blocks)
        return over * (len(settings.bands) + 1) * pinned.seconds_a_read

    def months_without(self, pinned: Sentinel2Scenes, season: int) -> list[int]:
        months = {look.moment.month for look in looks_of(pinned.items, season)}
        return [month for month in range(1, MONTHS + 1) if month not in months]

    def task(self, settings: Sentinel2Settings, pinned: Sentinel2Scenes, block: PlannedBlock) -> Sentinel2Task:
        names = list(block.row["s2_items"])
        offsets = {name: pinned.offsets[name] for name in names}
        return Sentinel2Task(settings, [pinned.by_id[name] for name in names], offsets)

    def assemble(self, task: Sentinel2Task, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
        return sentinel2_block(task, ground, watch)
