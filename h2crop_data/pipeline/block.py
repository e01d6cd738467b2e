"""One block, from pinned inputs to arrays: reads scenes, calls the science, knows no store and no scheduler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from h2crop_data.catalog.access import load_sentinel2, raster_geobox, read_window
from h2crop_data.catalog.acquisitions import Look, looks_of
from h2crop_data.catalog.items import item_epsg
from h2crop_data.catalog.providers import sentinel2_asset
from h2crop_data.constants import COARSE, ENMAP_FLAGS, FINE, MONTHS, REFLECTANCE_FILL, UNKNOWN
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.cube.statistics import BlockSums, block_sums
from h2crop_data.enmap.product import select_bands
from h2crop_data.enmap.product import to_reflectance as enmap_reflectance
from h2crop_data.enmap.quality import footprint_or, quality_flags
from h2crop_data.enmap.resample import resample_cubic
from h2crop_data.errors import ReadError, SceneError
from h2crop_data.grid import Cell, bounds_of, geobox, transformer
from h2crop_data.parcels.rasterize import parcel_numbers, tier_labels
from h2crop_data.pipeline.declarations import TIER_COLUMNS, CellParcels, Declarations
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.pipeline.scenes import metadata_of, read_quality
from h2crop_data.pipeline.timing import Stopwatch
from h2crop_data.recipe.model import EnmapSource, Sentinel2Source
from h2crop_data.sentinel2.composite import (
    Observation,
    filled_from,
    median_composite,
    mosaic_day,
    observation,
    too_bright,
    without_data,
)
from h2crop_data.sentinel2.reflectance import clear_pixels, to_reflectance

#: Source pixels read around a block of EnMAP, for the kernel of cubic convolution.
KERNEL_MARGIN = 3


@dataclass(frozen=True)
class BlockTask:
    """Everything one block needs; small enough to send to another process."""

    season: int
    block: int
    split: str
    cells: list[Cell]
    layout: StoreLayout
    sentinel2: Sentinel2Source | None
    #: Items over the block and what is added to their numbers.
    items: list[pystac.Item]
    offsets: dict[str, int]
    enmap: EnmapSource | None
    scene: pystac.Item | None
    parcels: Declarations
    prior: Declarations
    hashes: dict[str, str]


@dataclass(frozen=True)
class AssembledBlock:
    """A block's arrays (name -> (n, ...) as the layout tells), and what its marker records."""

    arrays: dict[str, NDArray[Any]]
    #: Wavelength and FWHM in nm of the scene's stored bands; None without EnMAP.
    bands: tuple[list[float], list[float]] | None
    #: One dictionary a sample, columns of the index.
    provenance: list[dict[str, Any]]
    sums: BlockSums
    seconds: dict[str, float]


def block_task(plan: SeasonPlan, block: int) -> BlockTask:
    """The task of a block of a plan."""
    row = plan.blocks[plan.blocks["block"] == block].iloc[0]
    cells = [Cell.parse(name) for name in plan.samples.loc[plan.samples["block"] == block, "cell"]]
    wanted = set(row["s2_items"]) if plan.recipe.sentinel2 else set()
    offsets = {scene.id: scene.offset for scene in plan.scenes if scene.id in wanted and scene.offset is not None}
    return BlockTask(
        season=plan.season,
        block=block,
        split=row["split"],
        cells=cells,
        layout=plan.layout,
        sentinel2=plan.recipe.sentinel2,
        items=[item for item in plan.sentinel2 if item.id in wanted],
        offsets=offsets,
        enmap=plan.recipe.enmap,
        scene=next((item for item in plan.enmap if item.id == row["scene"]), None),
        parcels=plan.parcels.near(cells),
        prior=plan.prior.near(cells),
        hashes={group: row[f"hash_{group}"] for group in ("s2", "enmap", "labels")},
    )


def assemble_block(task: BlockTask) -> AssembledBlock:
    """Compute a block's arrays from its inputs.

    Raises ReadError for a scene that cannot be read (unless the recipe records gaps) and SceneError for one that does
    not fit.
    """
    watch = Stopwatch()
    arrays: dict[str, NDArray[Any]] = {}
    provenance: list[dict[str, Any]] = [{} for _ in task.cells]
    bands = None
    if task.enmap and task.scene:
        found, bands, facts = enmap_arrays(task, task.enmap, task.scene, watch)
        arrays |= found
        provenance = merged_rows(provenance, facts)
    if task.sentinel2:
        found, facts = sentinel2_arrays(task, task.sentinel2, watch)
        arrays |= found
        provenance = merged_rows(provenance, facts)
    if task.layout.labels:
        found, facts = label_arrays(task, watch)
        arrays |= found
        provenance = merged_rows(provenance, facts)
    with watch.step("statistics"):
        sums = block_sums(arrays, task.split, task.enmap.flag_mask if task.enmap else 0)
    return AssembledBlock(arrays, bands, provenance, sums, dict(watch.seconds))


def merged_rows(rows: list[dict[str, Any]], more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two lists of dictionaries, one by one together."""
    return [{**one, **other} for one, other in zip(rows, more, strict=True)]


def pixel_slices(cell: Cell, bounds: Sequence[float], resolution: int) -> tuple[slice, slice]:
    """Rows and columns of a cell in the pixels of `bounds`."""
    west, _, east, north = cell.bounds
    side = (east - west) // resolution
    row, column = round((bounds[3] - north) / resolution), round((west - bounds[0]) / resolution)
    return slice(row, row + side), slice(column, column + side)


def enmap_arrays(
    task: BlockTask, source: EnmapSource, scene: pystac.Item, watch: Stopwatch
) -> tuple[dict[str, NDArray[Any]], tuple[list[float], list[float]], list[dict[str, Any]]]:
    """`enmap` and `enmap_quality` of a block, its wavelengths and FWHM, and the facts of each sample."""
    if "image" not in scene.assets:
        raise SceneError(f"{scene.id} has no asset `image`")
    image = scene.assets["image"].href
    with watch.step("read EnMAP"):
        product = metadata_of(scene)
        bands = select_bands(product.bands, source.bands.exclude_nm, source.bands.count)
        grid = raster_geobox(image, "int16")
        window = source_window(grid, task.cells)
        numbers, nodata = read_window(image, window, [band.number for band in bands])
        layers = read_quality(scene, grid, window, [band.number for band in bands])
    origin = grid[window.row_off : window.row_off + window.height, window.col_off : window.col_off + window.width]
    with watch.step("resample EnMAP"):
        values = enmap_reflectance(numbers, bands, REFLECTANCE_FILL if nodata is None else int(nodata))
        flags = quality_flags(layers)
        side = task.layout.coarse
        cube = np.empty((len(task.cells), len(bands), side, side), np.int16)
        quality = np.empty((len(task.cells), side, side), np.uint16)
        for i, cell in enumerate(task.cells):
            target = cell.geobox(COARSE)
            cube[i] = resample_cubic(values, origin, target)
            quality[i] = footprint_or(flags, origin, target, outside=ENMAP_FLAGS["outside"])
            quality[i][(cube[i] == REFLECTANCE_FILL).all(axis=0)] |= ENMAP_FLAGS["outside"]
    facts = [
        {
            "enmap_cloud_share": float(((quality[i] & ENMAP_FLAGS["cloud"]) != 0).mean()),
            "enmap_flagged_share": float(((quality[i] & source.flag_mask) != 0).mean()),
            "enmap_fill_share": float((cube[i] == REFLECTANCE_FILL).mean()),
            "enmap_processing": [f"{tag}={text}" for tag, text in product.processing.items()],
        }
        for i in range(len(task.cells))
    ]
    spectrum = ([band.wavelength for band in bands], [band.fwhm for band in bands])
    return {"enmap": cube, "enmap_quality": quality}, spectrum, facts


def source_window(grid: GeoBox, cells: Sequence[Cell]) -> Window:
    """The pixels of a scene's grid under some cells, with a margin for the kernel, cut to the grid."""
    west, south, east, north = bounds_of(cells)
    x, y = np.array([west, east, west, east], float), np.array([south, south, north, north], float)
    if str(grid.crs) != cells[0].crs:
        x, y = transformer(cells[0].crs, str(grid.crs)).transform(x, y)
    column, row = ~grid.affine @ (x, y)
    height, width = grid.shape
    left, top = (max(0, int(np.floor(values.min())) - KERNEL_MARGIN) for values in (column, row))
    right = min(width, int(np.ceil(column.max())) + KERNEL_MARGIN)
    bottom = min(height, int(np.ceil(row.max())) + KERNEL_MARGIN)
    if right <= left or bottom <= top:
        raise SceneError(f"the scene does not reach the cells {cells[0].id} to {cells[-1].id}")
    return Window(left, top, right - left, bottom - top)


def sentinel2_arrays(
    task: BlockTask, source: Sentinel2Source, watch: Stopwatch
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """`s2`, `s2_clear` and `s2_day` of a block, month by month, and the facts of each sample."""
    bounds = bounds_of(task.cells)
    grid = geobox(bounds, task.cells[0].epsg, FINE)
    n, side = len(task.cells), task.layout.fine
    s2 = np.full((n, MONTHS, len(source.bands), side, side), REFLECTANCE_FILL, np.int16)
    clear = np.zeros((n, MONTHS, side, side), np.uint8)
    day = np.zeros((n, MONTHS, side, side), np.uint16)
    faults = Faults()
    used: list[list[str]] = [[] for _ in task.cells]
    for month, looks in looks_by_month(task).items():
        # Cut to the cells look by look: they may be few in a wide block.
        seen: list[list[Observation]] = [[] for _ in task.cells]
        for look in looks:
            tiles = look_observations(task, source, look, grid, watch, faults)
            if not tiles:
                continue
            with watch.step("composite"):
                mosaic = mosaic_day(tiles)
                for i, cell in enumerate(task.cells):
                    rows, columns = pixel_slices(cell, bounds, FINE)
                    clear_here = mosaic.clear[rows, columns].copy()
                    seen[i].append(Observation(mosaic.day, mosaic.values[:, rows, columns].copy(), clear_here))
                    if clear_here.any():
                        used[i].append(look.moment.strftime("%Y-%m-%d"))
        with watch.step("composite"):
            for i, cut in enumerate(seen):
                if cut:
                    s2[i, month - 1], clear[i, month - 1], day[i, month - 1] = median_composite(cut)
    facts = [
        {
            "s2_dates": used[i],
            "s2_clear_share": [float(share) for share in (clear[i] > 0).mean(axis=(1, 2))],
            "s2_gaps": faults.gaps,
            "s2_impossible": faults.impossible,
        }
        for i in range(n)
    ]
    return {"s2": s2, "s2_clear": clear, "s2_day": day}, facts


@dataclass(frozen=True)
class Faults:
    """Sentinel-2 scenes over a block that were not used, or not wholly, by their ids."""

    #: Could not be read.
    gaps: list[str] = field(default_factory=list)
    #: Called clear some pixels whose numbers no ground has.
    impossible: list[str] = field(default_factory=list)


def looks_by_month(task: BlockTask) -> dict[int, list[Look]]:
    """The looks at a block by month (1..12), in order of time."""
    months: dict[int, list[Look]] = defaultdict(list)
    for look in looks_of(task.items, task.season):
        months[look.moment.month].append(look)
    return months


def look_observations(
    task: BlockTask, source: Sentinel2Source, look: Look, grid: GeoBox, watch: Stopwatch, faults: Faults
) -> list[Observation]:
    """The tiles of a look on the block's grid, those of its own zone first; notes scenes at fault."""
    tiles: list[Observation] = []
    for granules in sorted(look.tiles, key=lambda tile: (item_epsg(tile[0]) != task.cells[0].epsg, tile[0].id)):
        tile: Observation | None = None
        for item in granules:
            # An older granule is read only where the newer ones leave something open.
            if tile is not None and not without_data(tile).any():
                break
            try:
                with watch.step("read Sentinel-2"):
                    keys = [sentinel2_asset(item, band) for band in source.bands]
                    numbers, scl = load_sentinel2(item, keys, sentinel2_asset(item, "SCL"), grid, source.resampling)
            except (ReadError, SceneError):
                if source.gaps == "fail":
                    raise
                faults.gaps.append(item.id)
                continue
            with watch.step("composite"):
                values = np.stack([to_reflectance(band, task.offsets[item.id]) for band in numbers])
                clear = clear_pixels(scl, source.clouds.clear)
                if (clear & too_bright(values)).any():
                    faults.impossible.append(item.id)
                scene = observation(look.moment.timetuple().tm_yday, values, clear)
                tile = scene if tile is None else filled_from(tile, scene)
        if tile is not None:
            tiles.append(tile)
    return tiles


def label_arrays(task: BlockTask, watch: Stopwatch) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """`label`, `prior` and `parcel` of a block, and the facts of each sample."""
    arrays: dict[str, list[NDArray[Any]]] = defaultdict(list)
    with watch.step("rasterize parcels"):
        near = {"label": CellParcels(task.parcels, task.cells), "prior": CellParcels(task.prior, task.cells)}
        for cell in task.cells:
            for name, parcels in near.items():
                inside, ids, known = parcels.draw(cell)
                tiers = inside[TIER_COLUMNS].to_numpy(np.uint8)
                # A parcel belongs to the split that holds most of it; its pixels in another split would leak.
                tiers = np.where((inside["split"] == task.split).to_numpy()[:, None], tiers, np.uint8(UNKNOWN))
                arrays[name].append(tier_labels(ids, tiers, known))
                if name == "label":
                    arrays["parcel"].append(parcel_numbers(ids, inside["number"].to_numpy()))
    stacked = {name: np.stack(layers) for name, layers in arrays.items()}
    facts = [
        {
            "parcels": len(np.setdiff1d(stacked["parcel"][i], [0])),
            "declared_share": float((stacked["parcel"][i] > 0).mean()),
            "class_share": [float(((tier > 0) & (tier < UNKNOWN)).mean()) for tier in stacked["label"][i]],
        }
        for i in range(len(task.cells))
    ]
    return stacked, facts
