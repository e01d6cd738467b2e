"""Cells of an EnMAP scene, each internal tile of its image read once, whatever the number of cells in it.

The tiles are read one after the other. What they have of a cell, with what the kernel needs around it, is put together,
and a cell that is whole is resampled at once: memory holds one tile, and the cells on the borders of those read so far.
The quality layers are read over the same windows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from h2crop_data.catalog.access import raster_geobox, read_window, tile_shape
from h2crop_data.constants import COARSE, ENMAP_FLAGS, ENMAP_MASK_FLAGS, REFLECTANCE_FILL
from h2crop_data.enmap.product import Band, enmap_reflectance
from h2crop_data.enmap.quality import footprint_or
from h2crop_data.enmap.resample import resample_cubic
from h2crop_data.errors import SceneError
from h2crop_data.grid import Cell, transformer
from h2crop_data.shift import Shift
from h2crop_data.sources.enmap.layers import read_flags
from h2crop_data.sources.enmap.mask_result import mask_in
from h2crop_data.sources.enmap.readings import EnmapReading
from h2crop_data.sources.timing import Stopwatch

#: Source pixels around a cell, for the kernel of cubic convolution. One is enough in the zone of the scene; in another
#: zone the pixels of a cell lie askew, and the outermost kernels reach further.
CUBIC_MARGIN = 2
#: Small tiles are read together, so many pixels along a side, at least half of it; of these so many rows at once: the
#: layers have larger tiles than the image may have, and what is read at once should fit into a processor's cache.
READ_SIDE, READ_ROWS = 512, 64


class PixelBox(NamedTuple):
    """Pixels of a scene's grid: first row and the one after the last, first column and the one after the last."""

    top: int
    bottom: int
    left: int
    right: int

    def common(self, other: PixelBox) -> PixelBox:
        """The pixels of both; false where there are none."""
        return PixelBox(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def __bool__(self) -> bool:
        return self.bottom > self.top and self.right > self.left

    @property
    def window(self) -> Window:
        """Its pixels as rasterio reads them."""
        return Window(self.left, self.top, self.right - self.left, self.bottom - self.top)

    def within(self, outer: PixelBox) -> tuple[slice, slice]:
        """Its rows and columns in an array of the pixels of `outer`."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )


@dataclass(frozen=True)
class CellOfScene:
    """What the stored arrays have of a cell in a scene."""

    cell: Cell
    #: (band, y, x) int16 reflectance x 10000, fill -32768, in order of wavelength.
    values: NDArray[np.int16]
    #: (y, x) uint16, as ENMAP_FLAGS.
    quality: NDArray[np.uint16]
    #: (y, x) uint8, as ENMAP_MASK_FLAGS; None where the recipe wants none.
    mask: NDArray[np.uint8] | None = None

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What is stored of it, in the order of the format's arrays."""
        return (self.values, self.quality) if self.mask is None else (self.values, self.quality, self.mask)


@dataclass
class CellInFile:
    """The pixels of a file in and around a cell, as far as they are read."""

    cell: Cell
    box: PixelBox
    #: (band, y, x) of the stored bands, as the file has them.
    numbers: NDArray[np.int16]
    #: (y, x), as ENMAP_FLAGS.
    flags: NDArray[np.uint16]
    #: Pixels that are still to be read.
    to_come: int


def read_cells(reading: EnmapReading, watch: Stopwatch) -> Iterator[CellOfScene]:
    """The cells of a reading, each when it is whole. Raises ReadError, SceneError."""
    scene, bands = reading.scene, reading.facts.bands
    if "image" not in scene.assets:
        raise SceneError(f"{scene.id} has no asset `image`")
    image, numbers = scene.assets["image"].href, [band.number for band in bands]
    with watch.step("read EnMAP"):
        grid, tile = raster_geobox(image, "int16"), tile_shape(image)
        own = None if reading.mask is None else mask_on(grid, reading.mask.file)
    shifts = places_of_shifts(reading.shifts_of_bands)
    boxes = {cell: cell_box(grid, cell, list(shifts)) for cell in reading.cells}
    begun: dict[Cell, CellInFile] = {}
    for box, cells in boxes_to_read(boxes, grid, tile):
        with watch.step("read EnMAP"):
            flags = read_flags(scene, grid, box.window, numbers)
        for rows in strips_of(box, tile[0]):
            with watch.step("read EnMAP"):
                pixels, _ = read_window(image, rows.window, numbers)
            touched = [cell for cell in cells if boxes[cell].common(rows)]
            with watch.step("resample EnMAP"):
                for cell in touched:
                    part = begun.setdefault(cell, nothing_read(cell, boxes[cell], len(bands)))
                    put_in(part, rows, pixels, flags[rows.within(box)])
            del pixels
            for cell in [cell for cell in touched if begun[cell].to_come == 0]:
                with watch.step("resample EnMAP"):
                    whole = on_lattice(begun.pop(cell), grid, bands, shifts, reading.facts.nodata, own)
                yield whole


def mask_on(grid: GeoBox, file: Path | None) -> NDArray[np.uint8]:
    """The mask (y, x) of a whole scene. Raises SceneError without one, and for that of an image of another size."""
    if file is None:
        raise SceneError("its clouds were not detected")
    mask = mask_in(file)
    if mask.shape != tuple(grid.shape):
        raise SceneError(
            f"expected a mask of {tuple(grid.shape)} pixels, as the image, got {mask.shape}: the image was replaced"
        )
    return mask


def cell_box(grid: GeoBox, cell: Cell, shifts: Sequence[Shift]) -> PixelBox:
    """The pixels of a scene's grid under a cell, with a margin for kernel and shifts, cut to the grid.

    Raises SceneError where there are none.
    """
    west, south, east, north = cell.bounds
    x, y = np.array([west, east, west, east], float), np.array([south, south, north, north], float)
    if str(grid.crs) != cell.crs:
        x, y = transformer(cell.crs, str(grid.crs)).transform(x, y)
    column, row = ~grid.affine @ (x, y)
    farthest = max((abs(metres) for shift in shifts for metres in (shift.east, shift.north)), default=0)
    margin = CUBIC_MARGIN + ceil(farthest / COARSE)
    height, width = grid.shape
    around = PixelBox(
        floor(row.min()) - margin, ceil(row.max()) + margin, floor(column.min()) - margin, ceil(column.max()) + margin
    )
    box = around.common(PixelBox(0, height, 0, width))
    if not box:
        raise SceneError(f"the scene does not cover the cell {cell.id}")
    return box


def boxes_to_read(
    boxes: dict[Cell, PixelBox], grid: GeoBox, tile: tuple[int, int]
) -> Iterator[tuple[PixelBox, list[Cell]]]:
    """What is read at once, row by row, and the cells that it has pixels of: of each tile what these need.

    tile: rows and columns of the file's internal tiles.
    """
    height, width = (length * max(1, READ_SIDE // length) for length in tile)
    touched: dict[tuple[int, int], list[Cell]] = defaultdict(list)
    for cell, box in boxes.items():
        for row in range(box.top // height, (box.bottom - 1) // height + 1):
            for column in range(box.left // width, (box.right - 1) // width + 1):
                touched[row, column].append(cell)
    for (row, column), cells in sorted(touched.items()):
        of_tile = PixelBox(row * height, (row + 1) * height, column * width, (column + 1) * width)
        parts = np.array([boxes[cell].common(of_tile) for cell in cells])
        (top, left), (bottom, right) = parts[:, [0, 2]].min(axis=0).tolist(), parts[:, [1, 3]].max(axis=0).tolist()
        yield PixelBox(top, bottom, left, right), cells


def strips_of(box: PixelBox, tile_rows: int) -> Iterator[PixelBox]:
    """A box in parts of whole rows of the file's internal tiles, from north to south."""
    height = tile_rows * max(1, READ_ROWS // tile_rows)
    for top in range(box.top - box.top % height, box.bottom, height):
        yield box._replace(top=max(box.top, top), bottom=min(box.bottom, top + height))


def nothing_read(cell: Cell, box: PixelBox, bands: int) -> CellInFile:
    """A cell of which nothing is read."""
    shape = (box.bottom - box.top, box.right - box.left)
    return CellInFile(cell, box, np.empty((bands, *shape), np.int16), np.empty(shape, np.uint16), shape[0] * shape[1])


def put_in(part: CellInFile, box: PixelBox, numbers: NDArray[np.int16], flags: NDArray[np.uint16]) -> None:
    """Put what was read, the pixels of a box, where a cell needs it."""
    common = part.box.common(box)
    own, read = common.within(part.box), common.within(box)
    part.numbers[:, *own] = numbers[:, *read]
    part.flags[own] = flags[read]
    part.to_come -= (common.bottom - common.top) * (common.right - common.left)


def on_lattice(
    part: CellInFile,
    grid: GeoBox,
    bands: Sequence[Band],
    shifts: Mapping[Shift, Any],
    nodata: int,
    own: NDArray[np.uint8] | None = None,
) -> CellOfScene:
    """A cell's stored pixels. shifts: each with its bands' places. A flag counts where a band's footprint meets it.

    own: the mask (y, x) of the whole scene, whose bits count in the same way.
    """
    box, target = part.box, part.cell.geobox(COARSE)
    source = grid[box.top : box.bottom, box.left : box.right]
    reflectance = enmap_reflectance(part.numbers, bands, nodata)
    values = np.empty((len(bands), *target.shape), np.int16)
    quality = np.zeros(target.shape, np.uint16)
    of_cell = None if own is None else own[box.top : box.bottom, box.left : box.right]
    mask = None if own is None else np.zeros(target.shape, np.uint8)
    for shift, of_shift in shifts.items():
        values[of_shift] = resample_cubic(reflectance[of_shift], source, target, shift)
        quality |= footprint_or(part.flags, source, target, ENMAP_FLAGS["outside"], shift)
        if mask is not None and of_cell is not None:
            mask |= footprint_or(of_cell, source, target, ENMAP_MASK_FLAGS["unseen"], shift)
    quality[(values == REFLECTANCE_FILL).all(axis=0)] |= ENMAP_FLAGS["outside"]
    return CellOfScene(part.cell, values, quality, mask)


def places_of_shifts(shifts: Sequence[Shift]) -> dict[Shift, Any]:
    """Each shift with its places among those of all bands, as an index."""
    places = {shift: [i for i, other in enumerate(shifts) if other == shift] for shift in sorted(set(shifts))}
    return places if len(places) > 1 else dict.fromkeys(places, slice(None))
