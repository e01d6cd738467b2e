"""Sentinel-2 in a block: the parts of its cells put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from h2crop_data.catalog.file_against_item import in_sentences
from h2crop_data.constants import FINE, MONTHS, REFLECTANCE_FILL
from h2crop_data.grid import Cell, tiles_of
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sources.readings import ReadCounts
from h2crop_data.sources.scratch import Part, Scratch
from h2crop_data.sources.sentinel2.readings import Sentinel2Reading
from h2crop_data.sources.sentinel2.unit import MadePart, read_unit
from h2crop_data.sources.source import BlockGround, SourceBlock
from h2crop_data.sources.timing import Stopwatch


@dataclass(frozen=True)
class Sentinel2Task:
    """What Sentinel-2 needs of one block: the readings of its cells, by their ids."""

    settings: Sentinel2Settings
    readings: Mapping[str, Sentinel2Reading]


def read_into(scratch: Scratch, name: str, reading: Sentinel2Reading, watch: Stopwatch) -> ReadCounts:
    """Keep what a reading gives of its cells. name: its id. Raises ReadError, SceneError, StoreError."""
    made, counts = read_unit(reading, watch)
    with watch.step("scratch"):
        for one in made:
            scratch.write(one.part.cell, name, as_part(reading, one))
    return counts


def as_part(reading: Sentinel2Reading, made: MadePart) -> Part:
    """What the scratch folder keeps of a part of a cell; without pixels where no look was clear."""
    top, bottom, left, right = made.part.box
    first_row, _, first_column, _ = reading.grid.pixels_of(made.part.cell)
    facts = {
        "month": reading.month,
        "rows": [top - first_row, bottom - first_row],
        "columns": [left - first_column, right - first_column],
        "moments": sorted(made.moments),
        "gaps": sorted(made.gaps),
        "impossible": sorted(made.impossible),
        "differences": sorted(made.differences),
    }
    if reading.masks:
        facts["masks"] = masks_under(reading, made.part.cell)
    return Part(facts, (made.values, made.clear, made.day) if made.moments else ())


def sentinel2_block(task: Sentinel2Task, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
    """`s2`, `s2_clear` and `s2_day` of a block, and the columns of each sample.

    Parts of its cells that are not in the scratch folder are read for this block alone.
    """
    source, cells = task.settings, ground.cells
    parts = parts_of(task, cells, watch, ground.scratch)
    n, side = len(cells), ground.cell_size // FINE
    with watch.step("assemble Sentinel-2"):
        s2 = np.full((n, MONTHS, len(source.bands), side, side), REFLECTANCE_FILL, np.int16)
        clear = np.zeros((n, MONTHS, side, side), np.uint8)
        day = np.zeros((n, MONTHS, side, side), np.uint16)
        for place, cell in enumerate(cells):
            for part in parts[cell]:
                if part.arrays:
                    values, clear_looks, median_day = part.arrays
                    month = part.facts["month"] - 1
                    rows, columns = slice(*part.facts["rows"]), slice(*part.facts["columns"])
                    s2[place, month, :, rows, columns] = values
                    clear[place, month, rows, columns] = clear_looks
                    day[place, month, rows, columns] = median_day
        shares = (clear > 0).mean(axis=(2, 3))
        facts = [
            facts_of_cell([part.facts for part in parts[cell]])
            | {"s2_clear_share": [float(share) for share in shares[place]]}
            for place, cell in enumerate(cells)
        ]
    used = [masks.opened() for reading in task.readings.values() for masks in reading.masks]
    digests = sorted({masks.digest for masks in used if masks.dates})
    return SourceBlock(
        {"s2": s2, "s2_clear": clear, "s2_day": day}, facts, dates=digests if source.looks_at_tiles else None
    )


def parts_of(
    task: Sentinel2Task, cells: Sequence[Cell], watch: Stopwatch, scratch: Scratch | None
) -> dict[Cell, list[Part]]:
    """The parts of each cell."""
    parts: dict[Cell, list[Part]] = {cell: [] for cell in cells}
    for name, reading in task.readings.items():
        missing = set()
        for part in reading.parts:
            with watch.step("scratch"):
                found = None if scratch is None else scratch.read(part.cell, name)
            # Masks that held for an earlier build alone may be others now.
            if found is None or found.facts.get("masks", []) != masks_under(reading, part.cell):
                missing.add(part.cell)
            else:
                parts[part.cell].append(found)
        if missing:
            made, _ = read_unit(reading.only(missing), watch)
            for one in made:
                parts[one.part.cell].append(as_part(reading, one))
    return parts


def masks_under(reading: Sentinel2Reading, cell: Cell) -> list[str]:
    """The digests of the masks that a cell's pixels depend on. Raises the error of a tile that has none."""
    tiles = tiles_of(cell)
    return [masks.opened().digest for masks in reading.masks if masks.tile in tiles]


def facts_of_cell(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The columns that the facts of a cell's parts add up to, but for the shares of clear pixels."""
    moments = sorted({moment for part in parts for moment in part["moments"]})
    # Parts that an older h2crop left in the scratch folder do not tell.
    differences = in_sentences(difference for part in parts for difference in part.get("differences", []))
    return {
        "s2_dates": [moment[:10] for moment in moments],
        "s2_gaps": sorted({name for part in parts for name in part["gaps"]}),
        "s2_impossible": sorted({name for part in parts for name in part["impossible"]}),
        **({"s2_differences": differences} if differences else {}),
    }
