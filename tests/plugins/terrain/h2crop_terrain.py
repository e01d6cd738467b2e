"""Terrain as a source of h2crop: the elevation of every cell at 30 m, from one raster."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from h2crop_data.constants import COARSE
from h2crop_data.cube.columns import Column
from h2crop_data.cube.schema import ArraySpec, ArrayStatistics, SourceFormat, ValueRules
from h2crop_data.datasheet.facts import ReleaseFacts
from h2crop_data.datasheet.words import SourceWords
from h2crop_data.errors import ReadError
from h2crop_data.grid import Cell
from h2crop_data.recipe.model import Section
from h2crop_data.sources.source import BlockGround, PlannedBlock, Request, Selected, Source, SourceBlock

FILL = -32768
COLUMNS = (
    Column("terrain_mean", "number", "mean elevation", "m", "terrain", "derived"),
    Column("terrain_range", "number", "highest minus lowest elevation", "m", "terrain", "derived"),
)


class TerrainSettings(Section):
    """Where elevation comes from."""

    path: str
    """Raster of elevation in metres, in any CRS."""
    smooth: bool = False
    """Resample with a cubic kernel instead of the nearest pixel."""


@dataclass(frozen=True)
class Raster:
    """The raster a plan was made with."""

    path: str
    sha256: str


class TerrainWords(SourceWords):
    """Terrain in a datasheet."""

    def origin(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        return ["- **Terrain**: a raster of the user's own."]

    def limits(self, source: SourceFormat, facts: ReleaseFacts) -> list[str]:
        return ["`elevation` is that of the raster, whatever it means by ground: trees and roofs may be part of it."]


class Terrain(Source):
    """One raster of elevation."""

    name = "terrain"
    group = "terrain"
    algorithm = 1
    settings = TerrainSettings
    not_identity = frozenset({"path"})
    words = TerrainWords()

    def format(self, settings: TerrainSettings, cell_size: int) -> SourceFormat:
        side = cell_size // COARSE
        attributes = {"long_name": "elevation", "units": "m", "_FillValue": FILL}
        dims, shape = ("sample", "y30", "x30"), (side, side)
        elevation = ArraySpec(
            "elevation",
            self.group,
            dims,
            shape,
            (1, *shape),
            np.dtype("int16"),
            FILL,
            attributes,
            "m",
            quantity=True,
            statistics=ArrayStatistics("values"),
            rules=ValueRules(possible=(-500, 9000)),
        )
        return SourceFormat(self.name, "Terrain", self.group, (elevation,), columns=COLUMNS)

    def select(self, settings: TerrainSettings, request: Request, places: Sequence[Any]) -> Selected:
        path = request.locate(settings.path)
        return Selected(Raster(str(path), hashlib.sha256(path.read_bytes()).hexdigest()))

    def inputs(self, settings: Any, pinned: Raster, blocks: Sequence[PlannedBlock]) -> list[list[Any]]:
        return [[self.identity(settings), pinned.sha256] for _ in blocks]

    def facts(self, pinned: Raster) -> dict[str, Any]:
        return {self.name: asdict(pinned)}

    def load(self, facts: Mapping[str, Any], read: Any, scenes: Any, *, whole: bool) -> Raster:
        return Raster(**facts[self.name])

    def task(self, settings: TerrainSettings, pinned: Raster, block: PlannedBlock) -> tuple[Path, Resampling]:
        return Path(pinned.path), Resampling.cubic if settings.smooth else Resampling.nearest

    def assemble(self, task: tuple[Path, Resampling], ground: BlockGround, watch: Any) -> SourceBlock:
        with watch.step("read terrain"):
            elevation = np.stack([elevation_of(cell, *task) for cell in ground.cells])
        known = np.ma.masked_equal(elevation, FILL).astype(float)
        rows = [{"terrain_mean": float(cell.mean()), "terrain_range": float(np.ptp(cell))} for cell in known]
        return SourceBlock({"elevation": elevation}, rows)


def elevation_of(cell: Cell, path: Path, resampling: Resampling) -> np.ndarray[Any, np.dtype[np.int16]]:
    """(y30, x30) int16 in metres; FILL where the raster has none. Raises ReadError."""
    box = cell.geobox(COARSE)
    grid = {"crs": cell.crs, "transform": box.affine, "height": box.shape[0], "width": box.shape[1]}
    try:
        with rasterio.open(path) as raster, WarpedVRT(raster, **grid, nodata=FILL, resampling=resampling) as warped:
            return warped.read(1, out_dtype="int16")
    except rasterio.RasterioIOError as error:
        raise ReadError(f"{path}: {error}") from error
