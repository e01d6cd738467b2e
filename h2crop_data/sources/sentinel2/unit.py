"""Reading a unit in a month: classifications first, then bands of what is clear, then composites of parts of cells.

The bands of 20 m are read for the whole unit, which is one of their internal tiles, those of 10 m piece by piece, each
one of theirs. While one piece is composited the next is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from h2crop_data.catalog.access import ResamplingName, repeated
from h2crop_data.catalog.file_against_item import Difference
from h2crop_data.catalog.granule_reader import GranuleReader
from h2crop_data.catalog.item_facts import sentinel2_asset
from h2crop_data.catalog.number_formats import as_classes
from h2crop_data.constants import FINE, FINE_BANDS, REFLECTANCE_FILL
from h2crop_data.errors import H2cropError, ReadError, SceneError
from h2crop_data.grid import Cell, geobox
from h2crop_data.sentinel2.clear import has_value, too_bright
from h2crop_data.sentinel2.composite import Observation, median_composite, median_values
from h2crop_data.sentinel2.reflectance import NO_NUMBER, sentinel2_reflectance
from h2crop_data.shift import NO_SHIFT, Shift, where_it_lies
from h2crop_data.sources.readings import ReadCounts
from h2crop_data.sources.sentinel2.cell_shifts import CellShifts
from h2crop_data.sources.sentinel2.masks import (
    ClearByMasks,
    ClearClasses,
    ClearOf,
    LookMask,
    UnitMasks,
    slices_of,
    unit_masks,
)
from h2crop_data.sources.sentinel2.readings import Box, CellPart, Sentinel2Reading
from h2crop_data.sources.sentinel2.shifted_reading import read_shifted
from h2crop_data.sources.timing import Stopwatch

Pixels = NDArray[np.int16]


class UnreadableItemError(Exception):
    """An item cannot be read that some cells of a unit need."""

    def __init__(self, item: str, cells: set[Cell], error: H2cropError) -> None:
        super().__init__(item)
        self.item, self.cells, self.error = item, cells, error


@dataclass
class MadePart:
    """What a reading makes of a part of a cell."""

    part: CellPart
    #: Reflectance x 10000 (band, y, x), clear looks (y, x), median day of year (y, x), as in the store.
    values: Pixels
    clear: NDArray[np.uint8]
    day: NDArray[np.uint16]
    #: Moments of looks with a clear pixel.
    moments: set[str] = field(default_factory=set)
    #: Items that were asked for it and could not be read, and items with clear pixels that are too bright.
    gaps: set[str] = field(default_factory=set)
    impossible: set[str] = field(default_factory=set)
    #: Where items that were looked at for it say something else of their files than these have.
    differences: set[Difference] = field(default_factory=set)

    @classmethod
    def empty(cls, part: CellPart, bands: int) -> MadePart:
        """A part without a clear look."""
        return cls(
            part,
            np.full((bands, *part.shape), REFLECTANCE_FILL, np.int16),
            np.zeros(part.shape, np.uint8),
            np.zeros(part.shape, np.uint16),
        )


def read_unit(
    reading: Sentinel2Reading, watch: Stopwatch, given_up: frozenset[str] = frozenset()
) -> tuple[list[MadePart], ReadCounts]:
    """The parts of the cells of a reading, and what was read for them.

    Where the recipe records gaps and an item cannot be read, the cells that need it are read one by one, so that what
    one gives does not depend on what its neighbours need. given_up: items that were tried for long enough.
    Raises ReadError or SceneError where gaps are not recorded.
    """
    unreadable: set[str] = set()
    counts = ReadCounts()
    while True:
        undeclared = reading.items if reading.settings.offset == "auto" else ()
        with GranuleReader(reading.settings.connections, given_up, undeclared) as reader:
            try:
                made = UnitMaker(reading, reader, unreadable, watch).parts()
                return made, counts + ReadCounts(reader.tiles, reader.bytes)
            except UnreadableItemError as failure:
                counts += ReadCounts(reader.tiles, reader.bytes)
                if reading.settings.gaps == "fail":
                    raise failure.error from failure
                given_up |= {failure.item}
                cells = {part.cell for part in reading.parts}
                if len(cells) > 1:
                    groups = [cells - failure.cells, *({cell} for cell in sorted(failure.cells))]
                    break
                unreadable.add(failure.item)
    parts: list[MadePart] = []
    for group in filter(None, groups):
        of_group, more = read_unit(reading.only(group), watch, given_up)
        parts += of_group
        counts += more
    return parts, counts


@dataclass(frozen=True)
class Bands:
    """Some bands of an item over a box, as reflectance x 10000 (band, y, x), in pixels of `times` x 10 m."""

    box: Box
    times: int
    values: Pixels

    def cut(self, box: Box) -> Pixels:
        """Their own pixels that hold a box."""
        return self.values[:, *slices_of(box, self.box, self.times)]

    def at_10_metres(self, box: Box) -> Pixels:
        """The pixels of 10 m of a box."""
        pixels = repeated(self.cut(box), self.times)
        row, column = (
            (first - corner) % self.times for first, corner in ((box[0], self.box[0]), (box[2], self.box[2]))
        )
        return pixels[:, row : row + box[1] - box[0], column : column + box[3] - box[2]]


@dataclass(frozen=True)
class SeenPiece:
    """What a unit's looks show of a piece: masks, and by item bands of the piece at 10 m, of the unit at 20 m."""

    masks: UnitMasks
    fine: dict[str, Bands]
    coarse: dict[str, Bands]


class UnitMaker:
    """Makes the parts of one reading."""

    def __init__(
        self, reading: Sentinel2Reading, reader: GranuleReader, unreadable: Collection[str], watch: Stopwatch
    ) -> None:
        """unreadable: items that are known not to be readable."""
        self.reading, self.reader, self.unreadable, self.watch = reading, reader, unreadable, watch
        self.box = ground_of(reading)
        #: The masks of the tiles under it, and the shifts of their dates. Raises the error of a tile without.
        self.tile_masks = [masks.opened() for masks in reading.masks]
        self.shifts = CellShifts(self.tile_masks)
        bands = reading.settings.bands
        #: Places of the stored bands that are read for the whole unit in pixels of 20 m, and of the others.
        self.coarse = [
            place
            for place, band in enumerate(bands)
            if reading.settings.resampling == "nearest" and band not in FINE_BANDS
        ]
        self.fine = [place for place in range(len(bands)) if place not in self.coarse]

    def parts(self) -> list[MadePart]:
        """The parts. Raises UnreadableItemError for the first item that cannot be read."""
        masks = self.masks()
        made = [MadePart.empty(part, len(self.reading.settings.bands)) for part in self.reading.parts]
        for one in made:
            one.gaps |= masks.gaps.get(one.part.cell, set())
            one.differences |= masks.differences.get(one.part.cell, set())
            one.differences |= self.differences(masks.asked.get(one.part.cell, ()), ["SCL"])
        pieces = [(piece, self.clear_parts(masks, piece)) for piece in pieces_of(self.reading.grid.piece, self.box)]
        # From last to first: where a file is read onwards, GDAL reads ahead and fetches the next tile twice.
        pieces = [(piece, items) for piece, items in reversed(pieces) if items]
        if not pieces:
            return made
        everywhere: dict[str, dict[Cell, CellPart]] = defaultdict(dict)
        for _, items in pieces:
            for name, parts in items.items():
                everywhere[name] |= {part.cell: part for part in parts}
        begun_coarse = self.begin_bands(
            {name: list(parts.values()) for name, parts in everywhere.items()}, self.coarse, self.box
        )
        begun = self.begin_bands(pieces[0][1], self.fine, pieces[0][0])
        with self.watch.step("read Sentinel-2"):
            coarse = begun_coarse()
        del begun_coarse
        for place, (piece, _) in enumerate(pieces):
            with self.watch.step("read Sentinel-2"):
                fine = begun()
                if place + 1 < len(pieces):
                    following, items = pieces[place + 1]
                    begun = self.begin_bands(items, self.fine, following)
            with self.watch.step("composite"):
                for one in made:
                    box = common(one.part.box, piece)
                    if box is not None:
                        self.composite(one, box, SeenPiece(masks, fine, coarse))
        for one in made:
            names = masks.clear_items(one.part.box, one.part.looks)
            one.differences |= self.differences(names, self.reading.settings.bands)
        return made

    def differences(self, names: Iterable[str], bands: Sequence[str]) -> set[Difference]:
        """Where some items say something else of the files of some bands, which were read, than these have."""
        found: set[Difference] = set()
        for item in map(self.reading.items.__getitem__, names):
            found |= self.reader.differences(item, [sentinel2_asset(item, band) for band in bands])
        return found

    def masks(self) -> UnitMasks:
        """Which pixels each look shows clear."""
        # Of the granules that are asked first; others are read only where these leave something open.
        first: dict[str, list[CellPart]] = defaultdict(list)
        clear_of = self.clear_of()
        for part in self.reading.parts:
            for look in part.looks:
                if not clear_of.may_be(look, [part]):
                    continue
                name = next((name for name in look.items if name not in self.unreadable), None)
                if name is not None:
                    first[name].append(part)
        begun = {name: self.begin(name, "SCL", self.box, parts) for name, parts in first.items()}
        known: dict[str, NDArray[np.uint8]] = {}

        def classes_of(name: str, needing: Sequence[CellPart]) -> NDArray[np.uint8] | None:
            if name in self.unreadable:
                return None
            if {part.cell for part in needing} <= {part.cell for part in first.get(name, ())}:
                if name not in known:
                    known[name] = as_classes(begun[name]())
                return known[name]
            return as_classes(self.begin(name, "SCL", self.box, needing)())

        with self.watch.step("read Sentinel-2"):
            return unit_masks(self.reading.parts, self.box, classes_of, clear_of)

    def clear_of(self) -> ClearOf:
        """What says which pixels are clear."""
        if not self.reading.settings.looks_at_tiles:
            return ClearClasses(self.reading.settings.clouds.clear)
        return ClearByMasks(self.reading.grid, self.box, self.tile_masks)

    def clear_parts(self, masks: UnitMasks, box: Box) -> dict[str, list[CellPart]]:
        """The items that show some clear pixel in a box, and the parts in which they do."""
        found: dict[str, list[CellPart]] = defaultdict(list)
        for part in self.reading.parts:
            shared = common(part.box, box)
            if shared is not None:
                for name in masks.clear_items(shared, part.looks):
                    found[name].append(part)
        return dict(sorted(found.items()))

    def begin(self, name: str, band: str, box: Box, parts: Sequence[CellPart]) -> Callable[[], NDArray[Any]]:
        """Begin to read a band of an item over a box, for some parts; gives what waits for it."""
        item = self.reading.items[name]
        key = sentinel2_asset(item, band)
        groups = self.shifts.grouped(name, parts)
        method: ResamplingName = "nearest" if band == "SCL" else self.reading.settings.resampling

        def read() -> NDArray[Any]:
            try:
                if not any(groups):
                    return self.as_it_lies(item, key, box, parts, method)
                return together(
                    [
                        (self.shifted(item, key, box, of_shift, shift, is_classes=band == "SCL"), of_shift)
                        if shift
                        else (self.as_it_lies(item, key, box, of_shift, method), of_shift)
                        for shift, of_shift in groups.items()
                    ],
                    box,
                )
            except (ReadError, SceneError) as error:
                raise UnreadableItemError(name, {part.cell for part in parts}, error) from error

        return self.reader.begin(read, item.assets[key].href)

    def as_it_lies(
        self, item: pystac.Item, key: str, box: Box, parts: Sequence[CellPart], method: ResamplingName
    ) -> NDArray[Any]:
        """An asset over a box, in pixels of 10 or 20 m."""
        found = self.reader.read(item, key, self.grid(box), method)
        return self.warped(item, key, box, parts, method) if found is None else found

    def shifted(
        self, item: pystac.Item, key: str, box: Box, parts: Sequence[CellPart], shift: Shift, *, is_classes: bool
    ) -> NDArray[Any]:
        """An asset over a box, in pixels of 10 or 20 m, read where its date shows the ground of the box."""
        asked = self.reading.settings.resampling
        if asked != "nearest" and not is_classes:
            return self.reader.warp(item, key, where_it_lies(self.grid(box), shift), asked)
        found = read_shifted(self.reader, item, key, self.grid(box), shift, is_classes=is_classes)
        if found is None:
            return self.warped(item, key, box, parts, "nearest" if is_classes else "cubic", shift)
        return found

    def warped(
        self,
        item: pystac.Item,
        key: str,
        box: Box,
        parts: Sequence[CellPart],
        method: ResamplingName,
        shift: Shift = NO_SHIFT,
    ) -> NDArray[Any]:
        """An asset of another zone over a box, cell by cell: a cell's pixels must not depend on its neighbours.

        shift: how far off it lies on the cells.
        """
        pixels: NDArray[Any] | None = None
        for part in parts:
            shared = common(part.box, box)
            if shared is None:
                continue
            numbers = self.reader.warp(item, key, where_it_lies(part.cell.geobox(FINE), shift), method)
            if pixels is None:
                nothing = 0 if numbers.dtype.kind == "u" else NO_NUMBER
                pixels = np.full((box[1] - box[0], box[3] - box[2]), nothing, numbers.dtype)
            top, _, left, _ = self.reading.grid.pixels_of(part.cell)
            here = slice(shared[0] - top, shared[1] - top), slice(shared[2] - left, shared[3] - left)
            pixels[slices_of(shared, box, 1)] = numbers[here]
        return np.zeros((box[1] - box[0], box[3] - box[2]), np.uint16) if pixels is None else pixels

    def begin_bands(
        self, items: Mapping[str, Sequence[CellPart]], places: list[int], box: Box
    ) -> Callable[[], dict[str, Bands]]:
        """Begin to read some bands of items over a box, for some parts; gives what waits for them, by item."""
        bands = [self.reading.settings.bands[place] for place in places]
        begun = {name: [self.begin(name, band, box, parts) for band in bands] for name, parts in items.items()}

        def wait() -> dict[str, Bands]:
            return {name: self.bands([read() for read in of_item], name, box) for name, of_item in begun.items()}

        return wait

    def bands(self, numbers: list[NDArray[Any]], name: str, box: Box) -> Bands:
        """The numbers of an item's bands over a box, each of 10 or 20 m, as reflectance."""
        rows, columns = box[1] - box[0], box[3] - box[2]
        times = min((rows // len(band) for band in numbers), default=1)
        values = np.empty((len(numbers), rows // times, columns // times), np.int16)
        for place, band in enumerate(numbers):
            whole = band.astype(np.uint16) if band.dtype == np.uint8 else band
            reflectance = sentinel2_reflectance(whole, self.reading.offsets[name])
            values[place] = repeated(reflectance, rows // times // len(band))
        return Bands(box, times, values)

    def grid(self, box: Box) -> GeoBox:
        """The pixels of 10 m of a box."""
        top, bottom, left, right = box
        home = self.reading.grid
        west, east = home.x + left * FINE, home.x + right * FINE
        return geobox((west, home.y - bottom * FINE, east, home.y - top * FINE), home.epsg, FINE)

    def composite(self, made: MadePart, box: Box, seen: SeenPiece) -> None:
        """Composite the looks of a part in a box of 10 m pixels into it."""
        masks = seen.masks
        here = masks.places(box)
        looks = [masks.looks[look] for look in made.part.looks if masks.looks[look].clear[here].any()]
        if not looks:
            return
        is_even = masks.times == 2 and not any(number % 2 for number in box)
        of_one = all(len(mask.sources) == 1 for mask in looks)
        if is_even and of_one and all(seen.coarse[mask.only_item].times == 2 for mask in looks):
            self.composite_by_resolution(made, box, seen, looks)
        else:
            self.composite_at_10_metres(made, box, seen, looks)

    def composite_by_resolution(
        self,
        made: MadePart,
        box: Box,
        seen: SeenPiece,
        looks: list[LookMask],
    ) -> None:
        """The same where each look is of one item: bands of 20 m are composited at 20 m and repeated afterwards.

        That is the same as the other way round where the clear pixels of every look are whole ones of 20 m.
        """
        at_10, at_20 = [], []
        for mask in looks:
            item = mask.only_item
            wide, narrow = seen.coarse[item].cut(box), seen.fine[item].cut(box)
            clear = mask.clear[seen.masks.places(box)]
            bright = clear & too_bright(wide)
            clear_wide = clear & has_value(wide)
            clear_narrow = repeated(clear_wide, 2)
            bright_narrow = repeated(clear, 2) & too_bright(narrow)
            clear_narrow = clear_narrow & has_value(narrow)
            if bright.any() or bright_narrow.any():
                made.impossible.add(item)
            if clear_narrow.any():
                at_10.append(Observation(mask.look.day, narrow, clear_narrow))
                at_20.append(wide)
                made.moments.add(mask.look.moment.isoformat())
        if not at_10:
            return
        values, clear_looks, day = median_composite(at_10)
        halves = [one.clear[::2, ::2] for one in at_10]
        if all(np.array_equal(one.clear, repeated(half, 2)) for one, half in zip(at_10, halves, strict=True)):
            wide_looks = [
                Observation(one.day, wide, half) for one, wide, half in zip(at_10, at_20, halves, strict=True)
            ]
            wide_values = repeated(median_values(wide_looks), 2)
        else:
            wide_looks = [
                Observation(one.day, repeated(wide, 2), one.clear) for one, wide in zip(at_10, at_20, strict=True)
            ]
            wide_values = median_values(wide_looks)
        target = made.values[:, *slices_of(box, made.part.box, 1)]
        target[self.fine], target[self.coarse] = values, wide_values
        self.keep(made, box, clear_looks, day)

    def composite_at_10_metres(
        self,
        made: MadePart,
        box: Box,
        seen: SeenPiece,
        looks: list[LookMask],
    ) -> None:
        """The same where a look is of several items, or pixels of 20 m are cut: everything in pixels of 10 m."""
        observations = []
        shape = (box[1] - box[0], box[3] - box[2])
        for mask in looks:
            clear, source = (seen.masks.at_10_metres(layer, box) for layer in (mask.clear, mask.source))
            values = np.full((len(self.reading.settings.bands), *shape), REFLECTANCE_FILL, np.int16)
            for place in np.unique(source[clear]).tolist():
                item, shown = mask.look.items[place], clear & (source == place)
                own = np.empty_like(values)
                own[self.fine], own[self.coarse] = (
                    seen.fine[item].at_10_metres(box),
                    seen.coarse[item].at_10_metres(box),
                )
                if (shown & too_bright(own)).any():
                    made.impossible.add(item)
                np.copyto(values, own, where=shown)
            clear &= has_value(values)
            if clear.any():
                observations.append(Observation(mask.look.day, values, clear))
                made.moments.add(mask.look.moment.isoformat())
        if observations:
            composite, clear_looks, day = median_composite(observations)
            made.values[:, *slices_of(box, made.part.box, 1)] = composite
            self.keep(made, box, clear_looks, day)

    def keep(self, made: MadePart, box: Box, clear_looks: NDArray[np.uint8], day: NDArray[np.uint16]) -> None:
        """Put the layers that bands share into a part."""
        made.clear[slices_of(box, made.part.box, 1)] = clear_looks
        made.day[slices_of(box, made.part.box, 1)] = day


def together(pieces: Sequence[tuple[NDArray[Any], Sequence[CellPart]]], box: Box) -> NDArray[Any]:
    """Numbers over a box that were read differently for different parts, at the finest of their pixels."""
    finest = max(len(numbers) for numbers, _ in pieces)
    pixels: NDArray[Any] | None = None
    for numbers, parts in pieces:
        own = repeated(numbers, finest // len(numbers))
        pixels = own.copy() if pixels is None else pixels
        for part in parts:
            shared = common(part.box, box)
            if shared is not None:
                places = slices_of(shared, box, (box[1] - box[0]) // finest)
                pixels[places] = own[places]
    assert pixels is not None, "an item is read for some parts"
    return pixels


def ground_of(reading: Sentinel2Reading) -> Box:
    """The box around all parts of a reading, in whole pixels of 20 m."""
    boxes = np.array([part.box for part in reading.parts])
    top, left = (int(number) // 2 * 2 for number in boxes[:, [0, 2]].min(axis=0))
    bottom, right = (-(-int(number) // 2) * 2 for number in boxes[:, [1, 3]].max(axis=0))
    return top, bottom, left, right


def pieces_of(piece: tuple[int, int], box: Box) -> Iterator[Box]:
    """The parts of a box in pieces of so many rows and columns, counted from the corner of the granule."""
    height, width = piece
    for row in range(box[0] // height, (box[1] - 1) // height + 1):
        for column in range(box[2] // width, (box[3] - 1) // width + 1):
            found = common(box, (row * height, (row + 1) * height, column * width, (column + 1) * width))
            if found is not None:
                yield found


def common(one: Box, other: Box) -> Box | None:
    """The ground that two boxes share; None where they share none."""
    top, left = max(one[0], other[0]), max(one[2], other[2])
    bottom, right = min(one[1], other[1]), min(one[3], other[3])
    return (top, bottom, left, right) if top < bottom and left < right else None
