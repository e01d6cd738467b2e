"""Which pixels of a unit each look shows clear, and which item shows them.

The scene classification says which item has data of a pixel; whether it is clear is decided by the masks of processing
tiles, or, if a recipe has none, by the classification.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from h2crop_data.catalog.access import repeated
from h2crop_data.catalog.file_against_item import Difference
from h2crop_data.constants import FINE
from h2crop_data.grid import TILE_SIZE, Cell, tiles_of
from h2crop_data.sentinel2.clear import clear_pixels
from h2crop_data.sentinel2.clouds import MASK_PIXEL
from h2crop_data.sources.sentinel2.granules import GranuleGrid
from h2crop_data.sources.sentinel2.looks import CellLook
from h2crop_data.sources.sentinel2.mask_file import MASK_SIDE, TileMasks
from h2crop_data.sources.sentinel2.readings import Box, CellPart

#: Scene classification of pixels that a granule did not image.
NOT_IMAGED = 0
#: What stands for no item.
NOBODY = 255

#: Gives the classification of an item (id) over a unit, where some parts need it, (y, x) of 10 or 20 m; None where it
#: cannot be read.
ClassesOf = Callable[[str, Sequence[CellPart]], NDArray[np.uint8] | None]


class ClearOf(Protocol):
    """Which pixels of a unit an item shows clear."""

    def may_be(self, look: CellLook, parts: Sequence[CellPart]) -> bool:
        """Whether a look can show a clear pixel in some parts, before anything is read."""

    def pixels(self, name: str, classes: NDArray[np.uint8], times: int) -> NDArray[np.bool_]:
        """Whether pixels (y, x) of `times` x 10 m over the unit's box are clear. classes: of the item, likewise."""

    def gaps(self, part: CellPart) -> set[str]:
        """Items of a part's looks that could not be read when its ground was masked."""

    def differences(self, part: CellPart) -> set[Difference]:
        """Where items that were read when its ground was masked say something else of their files than these have."""


@dataclass(frozen=True)
class ClearClasses:
    """Clear pixels by the scene classification."""

    classes: list[int]

    def may_be(self, look: CellLook, parts: Sequence[CellPart]) -> bool:
        """It is known when the classification was read."""
        return True

    def pixels(self, name: str, classes: NDArray[np.uint8], times: int) -> NDArray[np.bool_]:
        """By the class of each pixel."""
        return clear_pixels(classes, self.classes)

    def gaps(self, part: CellPart) -> set[str]:
        """Nothing was read before."""
        return set()

    def differences(self, part: CellPart) -> set[Difference]:
        """Nothing was read before."""
        return set()


class ClearByMasks:
    """Clear pixels by the masks of processing tiles, on the pixels of a granule."""

    def __init__(self, grid: GranuleGrid, box: Box, masks: Sequence[TileMasks]) -> None:
        """box: of the unit. masks: of the tiles that its cells lie in."""
        self.grid, self.box, self.masks = grid, box, masks
        self._known: dict[tuple[str, int], NDArray[np.bool_]] = {}

    def may_be(self, look: CellLook, parts: Sequence[CellPart]) -> bool:
        """Whether the masks leave any pixel of the parts clear."""
        times = 1 if any(number % 2 for part in parts for number in part.box) else 2
        places = [slices_of(part.box, self.box, times) for part in parts]
        return any(self.of_item(name, times)[place].any() for name in look.items for place in places)

    def pixels(self, name: str, classes: NDArray[np.uint8], times: int) -> NDArray[np.bool_]:
        """By the mask of the date that the item shows."""
        return self.of_item(name, times)

    def gaps(self, part: CellPart) -> set[str]:
        """What the tiles under it could not read."""
        tiles = tiles_of(part.cell)
        lost = {name for masks in self.masks if masks.tile in tiles for name in masks.gaps}
        return {name for look in part.looks for name in look.items if name in lost}

    def differences(self, part: CellPart) -> set[Difference]:
        """What the tiles under it met in the items of its looks, and in the L1C of these."""
        tiles = tiles_of(part.cell)
        names = {name for look in part.looks for name in look.items}
        return set().union(*(masks.differences_in(names) for masks in self.masks if masks.tile in tiles))

    def of_item(self, name: str, times: int) -> NDArray[np.bool_]:
        """Where the date that an item shows is clear, in pixels of `times` x 10 m over the box."""
        if (name, times) not in self._known:
            self._known[name, times] = self.sampled(name, times)
        return self._known[name, times]

    def sampled(self, name: str, times: int) -> NDArray[np.bool_]:
        """The same from the masks: the pixel of 20 m that a pixel's centre lies in."""
        top, bottom, left, right = self.box
        # Metres of the zone: of the centres of columns and rows.
        across = self.grid.x + FINE * (left + times * (np.arange((right - left) // times) + 0.5))
        down = self.grid.y - FINE * (top + times * (np.arange((bottom - top) // times) + 0.5))
        clear = np.zeros((len(down), len(across)), bool)
        for masks in self.masks:
            if name not in masks.places:
                continue
            west, _, _, north = masks.tile.bounds
            inside_x, inside_y = ((metres >= 0) & (metres < TILE_SIZE) for metres in (across - west, north - down))
            if inside_x.any() and inside_y.any():
                # Where the ground of a pixel lies on this date; a tile shows no more than its own.
                shift = masks.shift(name)
                columns, rows = (
                    np.floor(metres / MASK_PIXEL).astype(int).clip(0, MASK_SIDE - 1)
                    for metres in (across[inside_x] + shift.east - west, north - down[inside_y] - shift.north)
                )
                clear[np.ix_(inside_y, inside_x)] = masks.clear(name)[np.ix_(rows, columns)]
        return clear


@dataclass(frozen=True)
class LookMask:
    """A look on the ground of a unit."""

    look: CellLook
    #: Whether a pixel is clear by the classification of the item that shows it.
    clear: NDArray[np.bool_]
    #: Which item of the look shows a pixel, as its place; NOBODY.
    source: NDArray[np.uint8]
    #: Places of the items that show some clear pixel.
    sources: tuple[int, ...]

    @property
    def only_item(self) -> str:
        """The item that shows all clear pixels, where it is one."""
        return self.look.items[self.sources[0]]


@dataclass(frozen=True)
class UnitMasks:
    """The looks of a month on the ground of a unit."""

    #: The ground, and pixels of 10 m along a pixel of the masks: 2, or 1 where some classification is finer than 20 m.
    box: Box
    times: int
    looks: dict[CellLook, LookMask]
    #: The items that were asked for a cell and could not be read, and those whose classification was read for it.
    gaps: dict[Cell, set[str]]
    asked: dict[Cell, set[str]]
    #: What was met when the ground of a cell was masked.
    differences: dict[Cell, set[Difference]]

    def places(self, box: Box) -> tuple[slice, slice]:
        """Rows and columns of the masks that hold a box of 10 m pixels."""
        return slices_of(box, self.box, self.times)

    def at_10_metres(self, layer: NDArray[Any], box: Box) -> NDArray[Any]:
        """A layer of the masks over a box, in pixels of 10 m."""
        pixels = repeated(layer[self.places(box)], self.times)
        row, column = (
            (first - corner) % self.times for first, corner in ((box[0], self.box[0]), (box[2], self.box[2]))
        )
        return pixels[row : row + box[1] - box[0], column : column + box[3] - box[2]]

    def clear_items(self, box: Box, looks: Sequence[CellLook]) -> set[str]:
        """The items of some looks that show some clear pixel in a box."""
        here = self.places(box)
        found = set()
        for look in looks:
            mask = self.looks[look]
            if not mask.clear[here].any():
                continue
            if len(mask.sources) == 1:
                found.add(mask.look.items[mask.sources[0]])
            else:
                shown = np.unique(mask.source[here][mask.clear[here]])
                found |= {mask.look.items[place] for place in shown.tolist()}
        return found


def slices_of(box: Box, ground: Box, times: int) -> tuple[slice, slice]:
    """Rows and columns of pixels `times` as wide as 10 m, from the corner of `ground`, that hold a box."""
    top, bottom, left, right = box
    return (
        slice((top - ground[0]) // times, -(-(bottom - ground[0]) // times)),
        slice((left - ground[2]) // times, -(-(right - ground[2]) // times)),
    )


def unit_masks(parts: Sequence[CellPart], box: Box, classes_of: ClassesOf, clear_of: ClearOf) -> UnitMasks:
    """The looks of a month on the ground of a unit.

    box: of even numbers of pixels. classes_of: the classification of an item over the box, in pixels of 10 or 20 m;
    None for an item that cannot be read, which shows nothing.
    """
    is_even = not any(number % 2 for part in parts for number in part.box)
    if is_even:
        try:
            return masks_of_pixels(parts, box, classes_of, clear_of, 2)
        except FinerClassesError:
            pass
    return masks_of_pixels(parts, box, classes_of, clear_of, 1)


class FinerClassesError(Exception):
    """A classification has smaller pixels than the masks."""


def masks_of_pixels(
    parts: Sequence[CellPart], box: Box, classes_of: ClassesOf, clear_of: ClearOf, times: int
) -> UnitMasks:
    """The masks in pixels of `times` x 10 m. Raises FinerClassesError for a classification of smaller ones."""
    rows, columns = (box[1] - box[0]) // times, (box[3] - box[2]) // times
    members: dict[CellLook, list[CellPart]] = defaultdict(list)
    for part in parts:
        for look in part.looks:
            members[look].append(part)
    gaps: dict[Cell, set[str]] = defaultdict(set)
    asked: dict[Cell, set[str]] = defaultdict(set)
    differences: dict[Cell, set[Difference]] = defaultdict(set)
    for part in parts:
        gaps[part.cell] |= clear_of.gaps(part)
        differences[part.cell] |= clear_of.differences(part)
    masks = {}
    for look, shown_in in members.items():
        unseen = np.zeros((rows, columns), bool)
        for part in shown_in:
            unseen[slices_of(part.box, box, times)] = True
        clear = np.zeros_like(unseen)
        source = np.full(unseen.shape, NOBODY, np.uint8)
        for place, name in enumerate(look.items if clear_of.may_be(look, shown_in) else ()):
            needing = [part for part in shown_in if unseen[slices_of(part.box, box, times)].any()]
            if not needing:
                break
            classes = classes_of(name, needing)
            if classes is None:
                for part in needing:
                    gaps[part.cell].add(name)
                continue
            for part in needing:
                # What is said of a cell must not depend on what its neighbours need.
                if clear_of.may_be(look, [part]):
                    asked[part.cell].add(name)
            if len(classes) < rows:
                classes = repeated(classes, rows // len(classes))
            elif len(classes) > rows:
                raise FinerClassesError
            seen = unseen & (classes != NOT_IMAGED)
            source[seen] = place
            clear |= seen & clear_of.pixels(name, classes, times)
            unseen &= ~seen
        sources = tuple(np.unique(source[clear]).tolist())
        masks[look] = LookMask(look, clear, source, sources)
    return UnitMasks(box, times, masks, dict(gaps), dict(asked), dict(differences))
