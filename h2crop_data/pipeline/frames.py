"""The shift of the images of a season against its parcels: measured tile by tile on finished blocks, before a release.

.build/frames/<digest>.json   what was measured on a tile, called by the digest of all that it was measured on

The numbers are those of the store itself, as anyone reads them. A tile whose blocks and parcels are as before is not
measured again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from h2crop_data.bounded_map import in_order_of
from h2crop_data.cube.columns import FRAMES, in_declared_order
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.cube.shard import ShardReader
from h2crop_data.errors import MissingFileError
from h2crop_data.grid import LONLAT, Cell, ProcessingTile, home_tile, transformer
from h2crop_data.parcels.frame import FRAME_WINDOW, CellImages, FrameShift, frame_of_tile, warning_of
from h2crop_data.pipeline.engine import Workers, open_pool, worker_died
from h2crop_data.pipeline.plan import SeasonPlan
from h2crop_data.progress import Progress, silent
from h2crop_data.sources.registry import used_sources
from h2crop_data.sources.source import MatchedBands
from h2crop_data.storage.checked import checked_rows, parsed_rows
from h2crop_data.storage.storage import BUILD_FOLDER, FileRecord, Storage

log = logging.getLogger(__name__)
FRAMES_FOLDER = f"{BUILD_FOLDER}/frames"
#: Raised whenever the same images and parcels give another frame.
FRAME_ALGORITHM = 1
#: Metres of ground around a tile whose parcels are drawn.
PARCELS_AROUND = 100
#: What the row of a whole tile calls its window.
WHOLE = "whole"


@dataclass(frozen=True)
class FrameTask:
    """A tile with all that its frame is measured on. It is sent to another process."""

    season: int
    tile: ProcessingTile
    #: Cells and their slots in the array, in order.
    cells: tuple[tuple[Cell, int], ...]
    #: The SHA-256 of the shards that hold them.
    shards: tuple[str, ...]
    reader: ShardReader
    bands: MatchedBands
    #: Parcels on the tile and around it, polygons in metres of its zone.
    geometry: NDArray[np.object_]

    @property
    def name(self) -> str:
        """The file of what is measured."""
        parcels = hashlib.sha256(b"".join(shapely.to_wkb(self.geometry).tolist())).hexdigest()
        cells = [cell.id for cell, _ in self.cells]
        content = [FRAME_ALGORITHM, self.tile.id, asdict(self.bands), cells, self.shards, parcels]
        return f"{FRAMES_FOLDER}/{hashlib.sha256(json.dumps(content).encode()).hexdigest()}.json"

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The tile, and what lies beyond it of cells that are in it by their middle."""
        corners = np.array([self.tile.bounds, *(cell.bounds for cell, _ in self.cells)], float)
        (west, south), (east, north) = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
        return float(west), float(south), float(east), float(north)

    def images(self) -> Iterator[CellImages]:
        """What the store holds of the cells, one at a time."""
        for cell, slot in self.cells:
            composites = self.reader.read(slot)
            west, _, _, north = cell.bounds
            red, infrared = (composites[:, place] for place in (self.bands.red, self.bands.infrared))
            yield CellImages(west, north, red, infrared)


def measured_frame(task: FrameTask) -> list[dict[str, Any]]:
    """The rows of a tile: of the whole, then of each window. Raises StoreError for a damaged shard."""
    frame = frame_of_tile(task.bounds, task.images(), task.geometry)
    west, _, _, north = task.bounds
    rows = [row_of(task.tile, WHOLE, task.bounds, frame.whole)]
    for window in frame.windows:
        row, column = (int(metres // FRAME_WINDOW) for metres in (north - window.bounds[3], window.bounds[0] - west))
        rows.append(row_of(task.tile, f"{row}_{column}", window.bounds, window.shift))
    return rows


def row_of(
    tile: ProcessingTile, window: str, bounds: tuple[float, float, float, float], shift: FrameShift
) -> dict[str, Any]:
    """A row of the table of frames; what is not known is None."""
    figures = {
        "shift_east": shift.east,
        "shift_north": shift.north,
        "shift_uncertainty": shift.sd,
        "correlation": shift.correlation,
        "check_east": shift.check_east,
        "check_north": shift.check_north,
    }
    return {
        "tile": tile.id,
        "window": window,
        "epsg": tile.epsg,
        **dict(zip(("west", "south", "east", "north"), map(float, bounds), strict=True)),
        "parcel_count": shift.parcels,
        **{name: round(float(value), 3) if np.isfinite(value) else None for name, value in figures.items()},
        "doubtful": shift.doubtful,
        "frame": shift.reason or "measured",
        "warning": warning_of(shift) or "",
    }


def frames_of_season(
    files: Storage,
    plan: SeasonPlan,
    blocks: pd.DataFrame,
    records: Iterable[FileRecord],
    samples: pd.DataFrame,
    parcels: gpd.GeoDataFrame | None,
    workers: Workers = Workers(1),  # noqa: B008 -- it cannot be changed
    progress: Progress = silent,
) -> pd.DataFrame | None:
    """Where the images of a season lie against its parcels; None where a recipe has neither both nor the wish.

    plan: of its last part. blocks: of all parts; records, samples: shards and samples of the release. Raises
    StoreError, BuildError.
    """
    bands = [source.matched_bands(settings) for source, settings in used_sources(plan.recipe)]
    matched = next((found for found in bands if found is not None), None)
    if matched is None or parcels is None:
        return None
    tiles = MatchedTiles.of(files, plan.season, plan.layout, blocks, records, samples, parcels, matched)
    return table_of_frames(files, tiles, workers, progress)


def frame_warnings(frames: pd.DataFrame) -> list[str]:
    """Warnings: images shifted against their parcels, and measurements that disagree, by tile."""
    whole = frames[frames["window"] == WHOLE]
    found = [f"{tile}: {warning}" for tile, warning in zip(whole["tile"], whole["warning"], strict=True) if warning]
    doubtful = whole["tile"][whole["doubtful"]].tolist()
    if doubtful:
        found.append(
            "the shift of images against parcels is uncertain, because two measurements disagree: "
            f"{', '.join(doubtful)}"
        )
    return found


@dataclass(frozen=True)
class MatchedTiles:
    """The tiles of a season that are matched with parcels; a task is made when it is asked for."""

    season: int
    reader: ShardReader
    bands: MatchedBands
    parcels: gpd.GeoDataFrame
    #: Tile, its cells with their slots, and the SHA-256 of the shards that hold them, in order.
    tiles: tuple[tuple[ProcessingTile, tuple[tuple[Cell, int], ...], tuple[str, ...]], ...]

    @classmethod
    def of(
        cls,
        files: Storage,
        season: int,
        layout: StoreLayout,
        blocks: pd.DataFrame,
        records: Iterable[FileRecord],
        samples: pd.DataFrame,
        parcels: gpd.GeoDataFrame,
        bands: MatchedBands,
    ) -> MatchedTiles:
        """Those of a season. blocks: all; records, samples: shards and samples of the release; parcels: of all its
        ground.
        """
        spec = layout.arrays()[bands.array]
        document = spec.metadata(len(blocks) * layout.capacity, layout.capacity, layout.codec)
        reader = ShardReader(files, f"{season}/{bands.array}", document, missing_is_fill=False)
        shards = digests_of_shards(records, f"{season}/{bands.array}/")
        cells: dict[ProcessingTile, dict[Cell, tuple[int, int]]] = defaultdict(dict)
        for name, slot, block in zip(samples["cell"], samples["slot"], samples["block"], strict=True):
            cell = Cell.parse(name)
            # A cell that several scenes made samples of has the same images in each.
            cells[home_tile(cell)].setdefault(cell, (int(slot), int(block)))
        tiles = []
        for tile, of_tile in sorted(cells.items()):
            ordered = sorted(of_tile.items())
            digests = tuple(shards[block] for block in sorted({block for _, (_, block) in ordered}))
            tiles.append((tile, tuple((cell, slot) for cell, (slot, _) in ordered), digests))
        return cls(season, reader, bands, parcels, tuple(tiles))

    def __len__(self) -> int:
        return len(self.tiles)

    def task(self, place: int) -> FrameTask:
        """What is measured on a tile, with its parcels in its zone."""
        tile, cells, shards = self.tiles[place]
        geometry = parcels_around(tile, [cell for cell, _ in cells], self.parcels)
        return FrameTask(self.season, tile, cells, shards, self.reader, self.bands, geometry)


def table_of_frames(
    files: Storage,
    tiles: MatchedTiles,
    workers: Workers = Workers(1),  # noqa: B008 -- it cannot be changed
    progress: Progress = silent,
) -> pd.DataFrame | None:
    """The frames of some tiles as a table, measured where they are not known; None without tiles.

    Raises StoreError, and BuildError where a worker process died.
    """
    names = [tiles.task(place).name for place in range(len(tiles))]
    known = {name: kept_frames(files, name) for name in names}
    missing = [place for place, name in enumerate(names) if known[name] is None]
    if missing:
        log.info("season %s: measuring in %d of %d tiles where images lie", tiles.season, len(missing), len(tiles))
        try:
            with open_pool(workers.at_most(len(missing)), files.location) as pool:
                # Parcels of a few tiles are held at a time.
                found = in_order_of(pool.executor, measured_frame, map(tiles.task, missing), pool.ahead)
                for done, (place, rows) in enumerate(zip(missing, found, strict=True), 1):
                    files.replace(names[place], [checked_rows(rows).encode()])
                    known[names[place]] = rows
                    progress(done, len(missing), f"shift of images of {tiles.season} against parcels")
        except BrokenProcessPool as error:
            raise worker_died() from error
    rows = [row for name in names for row in known[name] or ()]
    if not rows:
        return None
    table = in_declared_order(pd.DataFrame(rows), FRAMES)
    numbers = [column.name for column in FRAMES if column.dtype == "number"]
    return table.astype(dict.fromkeys(numbers, "float64")).sort_values(["tile", "window"], ignore_index=True)


def kept_frames(files: Storage, name: str) -> list[dict[str, Any]] | None:
    """The rows of a tile that was measured; None where they are missing or damaged: they are measured again."""
    try:
        return parsed_rows(files.read(name))
    except MissingFileError:
        return None
    except ValueError as error:
        log.warning("%s is damaged (%s) and is measured again", files.where(name), error)
        return None


def digests_of_shards(records: Iterable[FileRecord], folder: str) -> Mapping[int, str]:
    """Block -> SHA-256 of its shard in the folder of an array."""
    return {
        int(record["path"].removeprefix(folder).split(".")[1]): record["sha256"]
        for record in records
        if record["path"].startswith(folder)
    }


def parcels_around(tile: ProcessingTile, cells: Sequence[Cell], parcels: gpd.GeoDataFrame) -> NDArray[np.object_]:
    """The polygons of parcels on some cells of a tile and around them, in metres of its zone, in order of number."""
    grounds = [shapely.box(*cell.bounds).buffer(PARCELS_AROUND, join_style="mitre") for cell in cells]
    to_degrees = transformer(f"EPSG:{tile.epsg}", LONLAT).transform
    ground = shapely.transform(shapely.union_all(grounds), to_degrees, interleaved=False)
    near = parcels.iloc[np.sort(parcels.sindex.query(ground, predicate="intersects"))]
    placed = shapely.transform(
        near.geometry.to_numpy(), transformer(LONLAT, f"EPSG:{tile.epsg}").transform, interleaved=False
    )
    return np.asarray(shapely.make_valid(placed), object)
