"""Which readings the cells of a season need: units of their home granules, month by month, and the looks in them."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.access import file_stamp
from h2crop_data.catalog.acquisitions import looks_of
from h2crop_data.catalog.item_facts import sentinel2_tile
from h2crop_data.catalog.packed_items import PackedItems
from h2crop_data.constants import FINE_BANDS
from h2crop_data.grid import Cell, ProcessingTile, tiles_of
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.scenes import items_over, kept_identity
from h2crop_data.sources.sentinel2.granules import GranuleGrid, expected_grid, home_of
from h2crop_data.sources.sentinel2.looks import CellLook, months_of
from h2crop_data.sources.sentinel2.mask_file import MaskFile
from h2crop_data.sources.sentinel2.select import Sentinel2Scenes

#: Raised whenever the numbers that cells get from the same items change: the version of Sentinel-2's arrays.
ALGORITHM = 3
#: Top, bottom, left, right in pixels of 10 m of a granule's grid: first row, row after the last, and so on.
Box = tuple[int, int, int, int]
#: Settings that change no pixel.
NO_PIXELS = frozenset({"catalog", "memory", "connections", "clouds.l1c", "max_missing_acquisitions"})
#: Bytes of a pixel of a part: two a band, one for the clear looks, two for the day.
PIXEL_BYTES = 3
#: MiB that a worker takes to read a unit beside its pixels (264 are GDAL's caches), and for each connection: estimated,
#: above what was measured, which was 680 MiB for two thirds of a unit, 6 dates and 24 connections.
MIB_AT_LEAST, MIB_A_CONNECTION = 500, 3.5


@dataclass(frozen=True)
class CellPart:
    """The part of a cell in a unit: pixels of the granule's grid."""

    cell: Cell
    box: Box
    #: The looks of the month, in order of time.
    looks: tuple[CellLook, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        top, bottom, left, right = self.box
        return bottom - top, right - left


@dataclass(frozen=True)
class Sentinel2Reading:
    """A unit of a granule in a month of a season, and the parts of cells in it."""

    settings: Sentinel2Settings
    season: int
    month: int
    grid: GranuleGrid
    parts: tuple[CellPart, ...]
    #: The items of the looks, and what is added to their numbers.
    items: PackedItems
    offsets: Mapping[str, int]
    #: Size and time of change of the items' files on this machine.
    stamps: Mapping[str, list[Any]]
    #: The masks of the tiles that the cells lie in, in order; none where the classification of a pixel says it all.
    masks: tuple[MaskFile, ...] = ()

    @property
    def id(self) -> str:
        """SHA-256 of all that makes its pixels."""
        looks: dict[tuple[CellLook, ...], int] = {}
        parts = [[part.cell.id, part.box, looks.setdefault(part.looks, len(looks))] for part in self.parts]
        plain = [
            ALGORITHM,
            self.settings.model_dump(mode="json", exclude={"catalog", "memory", "connections"}),
            [self.season, self.month, self.grid.epsg, self.grid.tile, self.grid.x, self.grid.y],
            parts,
            [[[look.moment.isoformat(), look.items] for look in of_part] for of_part in looks],
            [
                [name, kept_identity(item), self.offsets[name], self.stamps[name]]
                for name, item in sorted(self.items.items())
            ],
            *([[masks.unit for masks in self.masks]] if self.masks else []),
        ]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

    def only(self, cells: set[Cell]) -> Sentinel2Reading:
        """The same for some of the cells."""
        parts = tuple(part for part in self.parts if part.cell in cells)
        tiles = {tile for part in parts for tile in tiles_of(part.cell)}
        return replace(self, parts=parts, masks=tuple(masks for masks in self.masks if masks.tile in tiles))


@dataclass(frozen=True)
class SeenCell:
    """A cell with its home and the looks of the season."""

    cell: Cell
    home: GranuleGrid
    looks: Mapping[int, tuple[CellLook, ...]]


def readings_of(
    settings: Sentinel2Settings,
    scenes: Sentinel2Scenes,
    cells: Sequence[Cell],
    outlines: Sequence[BaseGeometry],
    season: int,
    masks: Mapping[ProcessingTile, MaskFile],
) -> list[Sentinel2Reading]:
    """The readings that some cells need, in order of zone, tile, unit and month.

    outlines: of the cells, in longitude and latitude. masks: of the tiles they lie in; empty where none are made. What
    a reading gives of a cell does not depend on the others.
    """
    cells_of_home: dict[GranuleGrid, list[SeenCell]] = defaultdict(list)
    for seen in seen_cells(scenes, cells, outlines, season):
        cells_of_home[seen.home].append(seen)
    units: dict[tuple[GranuleGrid, int, int], list[tuple[SeenCell, Box]]] = defaultdict(list)
    for home, of_home in cells_of_home.items():
        grid = within_memory(home, settings, max(map(looks_a_month, of_home)))
        for seen in of_home:
            for row, column, box in units_of(grid, grid.pixels_of(seen.cell)):
                units[grid, row, column].append((seen, box))
    stamps = {item.id: [file_stamp(asset.href) for _, asset in sorted(item.assets.items())] for item in scenes.items}
    readings = []
    for (home, _, _), members in sorted(units.items()):
        months = sorted({month for seen, _ in members for month in seen.looks})
        for month in months:
            parts = tuple(CellPart(seen.cell, box, seen.looks[month]) for seen, box in members if month in seen.looks)
            names = {name for part in parts for look in part.looks for name in look.items}
            items = PackedItems({name: scenes.by_id[name] for name in sorted(names)})
            offsets = {name: scenes.offsets[name] for name in items}
            own = {name: stamps[name] for name in items}
            tiles = sorted({tile for part in parts for tile in tiles_of(part.cell)}) if masks else []
            of_tiles = tuple(masks[tile] for tile in tiles)
            readings.append(Sentinel2Reading(settings, season, month, home, parts, items, offsets, own, of_tiles))
    return readings


def looks_a_month(seen: SeenCell) -> int:
    """The most looks of a month."""
    return max(map(len, seen.looks.values()), default=0)


def seen_cells(
    scenes: Sentinel2Scenes,
    cells: Sequence[Cell],
    outlines: Sequence[BaseGeometry],
    season: int,
) -> Iterator[SeenCell]:
    """Cells with their homes and looks. Cells under the same items with one home share the looks."""
    grids = grids_of(scenes)
    known: dict[tuple[GranuleGrid, tuple[str, ...]], dict[int, tuple[CellLook, ...]]] = {}
    for cell, names in zip(cells, items_over(scenes.items, outlines), strict=True):
        tiles = {sentinel2_tile(scenes.by_id[name]) for name in names}
        home = home_of(cell, [grids[tile] for tile in sorted(tiles) if tile in grids])
        key = (home, tuple(names))
        if key not in known:
            items = [scenes.by_id[name] for name in names]
            known[key] = months_of(looks_of(items, season), home, grids)
        yield SeenCell(cell, home, known[key])


def grids_of(scenes: Sentinel2Scenes) -> dict[str, GranuleGrid]:
    """The grid of each tile: as files say, else as its name says."""
    grids = dict(scenes.grids)
    for item in scenes.items:
        tile = sentinel2_tile(item)
        if tile not in grids and (expected := expected_grid(item)) is not None:
            grids[tile] = expected
    return grids


def within_memory(grid: GranuleGrid, settings: Sentinel2Settings, looks: int) -> GranuleGrid:
    """A grid whose units keep the bound of memory: read piece by piece where whole units would not.

    A 20 m tile is then decoded once for each piece. looks: most in a month.
    """
    return grid if mib_to_read(grid, settings, looks) <= settings.memory * 1024 else replace(grid, unit=grid.piece)


def mib_to_read(grid: GranuleGrid, settings: Sentinel2Settings, looks: int) -> float:
    """About how many MiB a worker takes to read a unit in a month of so many looks, each partly clear, of one item."""
    coarse = sum(band not in FINE_BANDS for band in settings.bands)
    fine = len(settings.bands) - coarse
    unit, piece = (rows * columns for rows, columns in (grid.unit, grid.piece))
    # Bands of 20 m and masks of a unit, and two pieces of bands of 10 m: one at work, one to come.
    a_look = unit / 4 * (2 * coarse + 2) + 2 * piece * 2 * fine
    parts = unit * (2 * len(settings.bands) + PIXEL_BYTES)
    return MIB_AT_LEAST + MIB_A_CONNECTION * settings.connections + (parts + a_look * looks) / 2**20


def units_of(grid: GranuleGrid, box: Box) -> Iterator[tuple[int, int, Box]]:
    """Row and column of the units that a box lies in, and its part in each."""
    top, bottom, left, right = box
    height, width = grid.unit
    for row in range(top // height, (bottom - 1) // height + 1):
        for column in range(left // width, (right - 1) // width + 1):
            first_row, first_column = row * height, column * width
            yield (
                row,
                column,
                (
                    max(top, first_row),
                    min(bottom, first_row + height),
                    max(left, first_column),
                    min(right, first_column + width),
                ),
            )


def as_reading(reading: Sentinel2Reading) -> Reading:
    """A reading as the pipeline knows it."""
    pixels = sum(part.shape[0] * part.shape[1] for part in reading.parts)
    cells = tuple(part.cell for part in reading.parts)
    size = pixels * (2 * len(reading.settings.bands) + PIXEL_BYTES)
    return Reading("sentinel2", reading.id, reading.season, cells, size, reading)
