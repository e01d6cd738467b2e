"""EnMAP in a block: the cells of its scene put together, and the columns of each sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.errors import H2cropError
from h2crop_data.grid import Cell
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.enmap.columns import sample_columns
from h2crop_data.sources.enmap.format import MATCH_WINDOWS
from h2crop_data.sources.enmap.readings import EnmapReading
from h2crop_data.sources.enmap.scene_reading import read_cells
from h2crop_data.sources.scratch import Part, Scratch
from h2crop_data.sources.source import BlockGround, SourceBlock
from h2crop_data.sources.timing import Stopwatch

#: Values (band, y, x), flags (y, x), and where there is one the mask (y, x) of a cell.
CellArrays = tuple[NDArray[Any], ...]
#: The arrays of a block in that order.
CELL_ARRAYS = ("enmap", "enmap_quality", "enmap_mask")


@dataclass(frozen=True)
class EnmapTask:
    """What EnMAP needs of one block."""

    settings: EnmapSettings
    #: Its scene over its cells, or why it cannot be read.
    reading: EnmapReading | H2cropError
    #: The id of the reading that gives its cells and those of other blocks; empty where nothing was read before.
    name: str = ""
    #: Columns of samples that are those of the scene.
    columns: Mapping[str, Any] = field(default_factory=dict)


def read_scene_into(scratch: Scratch, name: str, reading: EnmapReading, watch: Stopwatch) -> None:
    """Keep what a reading gives of its cells. name: its id. Raises ReadError, SceneError, StoreError."""
    for one in read_cells(reading, watch):
        with watch.step("scratch"):
            scratch.write(one.cell, name, Part({}, one.arrays))


def enmap_block(task: EnmapTask, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
    """`enmap`, `enmap_quality`, `enmap_mask` of a block, its wavelengths and FWHM in nm, and the columns of samples.

    Cells that are not in the scratch folder are read for this block alone.
    """
    settings, reading = task.settings, task.reading
    if isinstance(reading, H2cropError):
        raise reading
    found = kept_cells(task.name, reading, ground, watch)
    missing = set(reading.cells) - found.keys()
    if missing:
        found |= {one.cell: one.arrays for one in read_cells(reading.only(missing), watch)}
    with watch.step("assemble EnMAP"):
        number = 2 if reading.mask is None else 3
        arrays = [np.stack([found[cell][place] for cell in ground.cells]) for place in range(number)]
    rows = [
        {
            **sample_columns(reading.scene, reading.facts, settings, *(array[i] for array in arrays)),
            **scene_columns(task, i),
        }
        for i in range(len(ground.cells))
    ]
    bands = reading.facts.bands
    spectrum = {"wavelength": [band.wavelength for band in bands], "fwhm": [band.fwhm for band in bands]}
    return SourceBlock(dict(zip(CELL_ARRAYS, arrays, strict=False)), rows, spectrum)


def scene_columns(task: EnmapTask, place: int) -> dict[str, Any]:
    """The columns of the scene for a sample of a block; the long list of windows stands with the first one alone."""
    return {**task.columns, **({MATCH_WINDOWS: []} if place and MATCH_WINDOWS in task.columns else {})}


def kept_cells(name: str, reading: EnmapReading, ground: BlockGround, watch: Stopwatch) -> dict[Cell, CellArrays]:
    """The cells of a block that are in the scratch folder."""
    found: dict[Cell, CellArrays] = {}
    if ground.scratch is None or not name:
        return found
    for cell in reading.cells:
        with watch.step("scratch"):
            part = ground.scratch.read(cell, name)
        if part is not None:
            found[cell] = part.arrays
    return found
