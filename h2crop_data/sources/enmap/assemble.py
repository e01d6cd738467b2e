"""EnMAP in a block: one window of a scene, its bands by wavelength, resampled once; flags of the footprints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pystac
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from h2crop_data.catalog.access import raster_geobox, read_window
from h2crop_data.constants import COARSE, ENMAP_FLAGS, REFLECTANCE_FILL
from h2crop_data.enmap.product import enmap_reflectance
from h2crop_data.enmap.quality import footprint_or, quality_flags
from h2crop_data.enmap.resample import resample_cubic
from h2crop_data.errors import H2cropError, SceneError
from h2crop_data.grid import Cell, bounds_of, transformer
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.enmap.scene import SceneFacts, read_quality
from h2crop_data.sources.source import BlockGround, SourceBlock
from h2crop_data.sources.timing import Stopwatch

#: Source pixels read around a block of EnMAP, for the kernel of cubic convolution.
CUBIC_MARGIN = 3


@dataclass(frozen=True)
class EnmapTask:
    """What EnMAP needs of one block."""

    source: EnmapSettings
    scene: pystac.Item
    #: Its facts, or why there are none.
    facts: SceneFacts | H2cropError


def enmap_block(task: EnmapTask, ground: BlockGround, watch: Stopwatch) -> SourceBlock:
    """`enmap` and `enmap_quality` of a block, its wavelengths and FWHM in nm, and the columns of each sample."""
    source, scene, facts = task.source, task.scene, task.facts
    if isinstance(facts, H2cropError):
        raise facts
    if "image" not in scene.assets:
        raise SceneError(f"{scene.id} has no asset `image`")
    image = scene.assets["image"].href
    with watch.step("read EnMAP"):
        bands = facts.bands
        grid = raster_geobox(image, "int16")
        window = source_window(grid, ground.cells)
        numbers, nodata = read_window(image, window, [band.number for band in bands])
        layers = read_quality(scene, grid, window, [band.number for band in bands])
    origin = grid[window.row_off : window.row_off + window.height, window.col_off : window.col_off + window.width]
    with watch.step("resample EnMAP"):
        values = enmap_reflectance(numbers, bands, REFLECTANCE_FILL if nodata is None else int(nodata))
        flags = quality_flags(layers)
        side = ground.cell_size // COARSE
        cube = np.empty((len(ground.cells), len(bands), side, side), np.int16)
        quality = np.empty((len(ground.cells), side, side), np.uint16)
        for i, cell in enumerate(ground.cells):
            target = cell.geobox(COARSE)
            cube[i] = resample_cubic(values, origin, target)
            quality[i] = footprint_or(flags, origin, target, outside=ENMAP_FLAGS["outside"])
            quality[i][(cube[i] == REFLECTANCE_FILL).all(axis=0)] |= ENMAP_FLAGS["outside"]
    rows = [
        {
            "enmap_cloud_share": float(((quality[i] & ENMAP_FLAGS["cloud"]) != 0).mean()),
            "enmap_flagged_share": float(((quality[i] & source.flag_mask) != 0).mean()),
            "enmap_fill_share": float((cube[i] == REFLECTANCE_FILL).mean()),
            "enmap_processing": [f"{tag}={text}" for tag, text in facts.processing.items()],
        }
        for i in range(len(ground.cells))
    ]
    spectrum = {"wavelength": [band.wavelength for band in bands], "fwhm": [band.fwhm for band in bands]}
    return SourceBlock({"enmap": cube, "enmap_quality": quality}, rows, spectrum)


def source_window(grid: GeoBox, cells: Sequence[Cell]) -> Window:
    """The pixels of a scene's grid under some cells, with a margin for the kernel, cut to the grid."""
    west, south, east, north = bounds_of(cells)
    x, y = np.array([west, east, west, east], float), np.array([south, south, north, north], float)
    if str(grid.crs) != cells[0].crs:
        x, y = transformer(cells[0].crs, str(grid.crs)).transform(x, y)
    column, row = ~grid.affine @ (x, y)
    height, width = grid.shape
    left, top = (max(0, int(np.floor(values.min())) - CUBIC_MARGIN) for values in (column, row))
    right = min(width, int(np.ceil(column.max())) + CUBIC_MARGIN)
    bottom = min(height, int(np.ceil(row.max())) + CUBIC_MARGIN)
    if right <= left or bottom <= top:
        raise SceneError(f"the scene does not reach the cells {cells[0].id} to {cells[-1].id}")
    return Window(left, top, right - left, bottom - top)
