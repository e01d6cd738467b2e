"""Reading items where the shift of their date says that the ground of a cell lies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from h2crop_data.grid import Cell, home_tile
from h2crop_data.shift import NO_SHIFT, Shift
from h2crop_data.sources.sentinel2.mask_file import TileMasks
from h2crop_data.sources.sentinel2.readings import CellPart


class CellShifts:
    """The shifts that are corrected on the cells of a unit: those of the tile that a cell's middle lies in."""

    def __init__(self, masks: Sequence[TileMasks]) -> None:
        self.masks = {of_tile.tile: of_tile for of_tile in masks}

    def grouped(self, name: str, parts: Sequence[CellPart]) -> dict[Shift, list[CellPart]]:
        """Parts of cells by how far off an item lies on them."""
        groups: dict[Shift, list[CellPart]] = defaultdict(list)
        for part in parts:
            groups[self.of(name, part.cell)].append(part)
        return dict(groups)

    def of(self, name: str, cell: Cell) -> Shift:
        """How far off an item lies on a cell."""
        masks = self.masks.get(home_tile(cell))
        return NO_SHIFT if masks is None else masks.shift(name)
