"""Which pixels of a unit each look shows clear, and which item shows them: from the scene classifications alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.catalog.access import repeated
from h2crop_data.grid import Cell
from h2crop_data.sentinel2.clear import clear_pixels
from h2crop_data.sources.sentinel2.readings import Box, CellLook, CellPart

#: Scene classification of pixels that a granule did not image.
NOT_IMAGED = 0
#: What stands for no item.
NOBODY = 255

#: Gives the classification of an item (id) over a unit, where some parts need it, (y, x) of 10 or 20 m; None where it
#: cannot be read.
ClassesOf = Callable[[str, Sequence[CellPart]], NDArray[np.uint8] | None]


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
    #: The items that were asked for a cell and could not be read.
    gaps: dict[Cell, set[str]]

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


def unit_masks(parts: Sequence[CellPart], box: Box, classes_of: ClassesOf, clear_classes: list[int]) -> UnitMasks:
    """The looks of a month on the ground of a unit.

    box: of even numbers of pixels. classes_of: the classification of an item over the box, in pixels of 10 or 20 m;
    None for an item that cannot be read, which shows nothing.
    """
    is_even = not any(number % 2 for part in parts for number in part.box)
    if is_even:
        try:
            return masks_of_pixels(parts, box, classes_of, clear_classes, 2)
        except FinerClassesError:
            pass
    return masks_of_pixels(parts, box, classes_of, clear_classes, 1)


class FinerClassesError(Exception):
    """A classification has smaller pixels than the masks."""


def masks_of_pixels(
    parts: Sequence[CellPart], box: Box, classes_of: ClassesOf, clear_classes: list[int], times: int
) -> UnitMasks:
    """The masks in pixels of `times` x 10 m. Raises FinerClassesError for a classification of smaller ones."""
    rows, columns = (box[1] - box[0]) // times, (box[3] - box[2]) // times
    members: dict[CellLook, list[CellPart]] = defaultdict(list)
    for part in parts:
        for look in part.looks:
            members[look].append(part)
    gaps: dict[Cell, set[str]] = defaultdict(set)
    masks = {}
    for look, shown_in in members.items():
        unseen = np.zeros((rows, columns), bool)
        for part in shown_in:
            unseen[slices_of(part.box, box, times)] = True
        clear = np.zeros_like(unseen)
        source = np.full(unseen.shape, NOBODY, np.uint8)
        for place, name in enumerate(look.items):
            needing = [part for part in shown_in if unseen[slices_of(part.box, box, times)].any()]
            if not needing:
                break
            classes = classes_of(name, needing)
            if classes is None:
                for part in needing:
                    gaps[part.cell].add(name)
                continue
            if len(classes) < rows:
                classes = repeated(classes, rows // len(classes))
            elif len(classes) > rows:
                raise FinerClassesError
            seen = unseen & (classes != NOT_IMAGED)
            source[seen] = place
            clear |= seen & clear_pixels(classes, clear_classes)
            unseen &= ~seen
        sources = tuple(np.unique(source[clear]).tolist())
        masks[look] = LookMask(look, clear, source, sources)
    return UnitMasks(box, times, masks, dict(gaps))
