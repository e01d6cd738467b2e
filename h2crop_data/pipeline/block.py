"""Computes the arrays of one block from what the sources pinned, without knowledge of sensors, stores or schedulers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.cube.schema import StoreLayout
from h2crop_data.cube.statistics import BlockSums, block_sums
from h2crop_data.grid import Cell
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.planning import PlannedBlocks
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.registry import flag_masks, source_of, used_sources
from h2crop_data.sources.scratch import Scratch
from h2crop_data.sources.source import BlockGround
from h2crop_data.sources.timing import Stopwatch


@dataclass(frozen=True)
class BlockTask:
    """Everything one block needs; small enough to send to another process."""

    block: int
    ground: BlockGround
    layout: StoreLayout
    #: What each source needs, by its name.
    sources: dict[str, Any]
    #: Quality array -> the bits of it that keep a pixel out of the statistics.
    flag_masks: dict[str, int]
    #: Input hash of each array group.
    hashes: dict[str, str]

    def with_scratch(self, scratch: Scratch) -> BlockTask:
        """The task with the folder in which parts of its season's cells lie."""
        return replace(self, ground=replace(self.ground, scratch=scratch.of_season(self.season)))

    @property
    def season(self) -> int:
        """Its season."""
        return self.ground.season

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return len(self.ground.cells)


@dataclass(frozen=True)
class AssembledBlock:
    """A block's arrays (name -> (n, ...) as the layout tells), and what its marker records."""

    arrays: dict[str, NDArray[Any]]
    #: Values of the coordinates that all samples of the block share, by name.
    coordinates: dict[str, list[float]]
    #: One dictionary a sample, derived columns of the index.
    provenance: list[dict[str, Any]]
    sums: BlockSums
    seconds: dict[str, float]
    #: Rows of the table of dates that tell of its pixels, by their digests; None where no source makes any.
    dates: list[str] | None = None


class BlockTasks:
    """The tasks of the blocks of a plan, each made when it is asked for."""

    def __init__(self, plan: SeasonPlan) -> None:
        self.plan, self.layout = plan, plan.layout
        self.blocks = PlannedBlocks(plan)
        self.used, self.flag_masks = used_sources(plan.recipe), flag_masks(plan.recipe)
        self._readings: dict[Cell, list[Reading]] = defaultdict(list)
        blocks = list(self.blocks)
        for source, settings in self.used:
            for reading in source.readings(settings, plan.pinned[source.name], blocks):
                for cell in reading.cells:
                    self._readings[cell].append(reading)

    def readings(self, number: int) -> tuple[Reading, ...]:
        """The readings that give parts of the cells of a block."""
        block = self.blocks.block(number)
        of_cells = (reading for cell in block.cells for reading in self._readings.get(cell, ()))
        return tuple({reading.id: reading for reading in of_cells if reading.scene in (None, block.scene)}.values())

    def task(self, number: int) -> BlockTask:
        """The task of a block."""
        pinned = self.plan.pinned
        block = replace(self.blocks.block(number), readings=self.readings(number))
        tasks = {source.name: source.task(settings, pinned[source.name], block) for source, settings in self.used}
        return BlockTask(
            block=number,
            ground=BlockGround(self.plan.season, block.split, block.cells, self.layout.cell_size),
            layout=self.layout,
            sources={name: task for name, task in tasks.items() if task is not None},
            flag_masks=self.flag_masks,
            hashes={group: block.row[f"hash_{group}"] for group in self.plan.algorithm},
        )


def in_store_dtypes(arrays: Mapping[str, NDArray[Any]], layout: StoreLayout) -> dict[str, NDArray[Any]]:
    """Arrays in the dtypes of a store, where these hold every number; others are refused when they are written."""
    specs = layout.arrays()
    return {
        name: values.astype(specs[name].dtype, copy=False)
        if name in specs and np.can_cast(values.dtype, specs[name].dtype)
        else values
        for name, values in arrays.items()
    }


def assemble_block(task: BlockTask) -> AssembledBlock:
    """Compute a block's arrays from its inputs, source by source.

    Raises ReadError for a scene that cannot be read (unless the recipe records gaps) and SceneError for one that does
    not fit.
    """
    watch = Stopwatch()
    arrays: dict[str, NDArray[Any]] = {}
    provenance: list[dict[str, Any]] = [{} for _ in task.ground.cells]
    coordinates: dict[str, list[float]] = {}
    dates: list[str] | None = None
    for name, own in task.sources.items():
        made = source_of(name).assemble(own, task.ground, watch)
        arrays |= in_store_dtypes(made.arrays, task.layout)
        if made.dates is not None:
            dates = [*(dates or []), *made.dates]
        coordinates |= made.coordinates
        provenance = [{**row, **more} for row, more in zip(provenance, made.rows, strict=True)]
    with watch.step("statistics"):
        sums = block_sums(arrays, task.layout.arrays(), task.ground.split, task.flag_masks)
    return AssembledBlock(arrays, coordinates, provenance, sums, dict(watch.seconds), dates)
