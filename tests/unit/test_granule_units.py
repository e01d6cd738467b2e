"""Which granule a cell is read from, and how its ground is cut into units and pieces of whole internal tiles."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stac_items import item_of

from h2crop_data.catalog.granule_reader import GranuleReader, connections_to
from h2crop_data.grid import Cell
from h2crop_data.mgrs import tile_bounds
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sources.sentinel2.granules import GranuleGrid, grid_doubt, home_of, lattice_grid, unit_shape
from h2crop_data.sources.sentinel2.looks import CellLook
from h2crop_data.sources.sentinel2.masks import ClearClasses, unit_masks
from h2crop_data.sources.sentinel2.readings import CellPart, units_of, within_memory
from h2crop_data.sources.sentinel2.unit import pieces_of


def grid_of_tile(tile: str) -> GranuleGrid:
    epsg, west, _, _, north = tile_bounds(tile)
    return GranuleGrid(epsg, tile, west, north, 10980, 10980)


#: Neighbours: 31UES lies east of 31UDS, with 9.8 km in common; 31UER and 31UDR south of them.
TILES = [grid_of_tile(tile) for tile in ("31UDS", "31UES", "31UDR", "31UER")]


def cell_at(west: float, south: float, size: int = 1920) -> Cell:
    return Cell(32631, size, int(west // size), int(south // size))


def test_a_cell_is_read_from_the_granule_whose_centre_is_nearest() -> None:
    west_tile, east_tile = TILES[:2]
    # Tiles are 109.8 km wide and begin 100 km apart: the middle of what they share is nearer to neither.
    seam = (east_tile.x + west_tile.x + 109_800) / 2
    middle = west_tile.y - 54_900
    assert home_of(cell_at(seam - 4000, middle), TILES).tile == "31UDS"
    assert home_of(cell_at(seam + 4000, middle), TILES).tile == "31UES"
    # Whatever the order, and whatever else there is.
    assert home_of(cell_at(seam - 4000, middle), TILES[::-1]).tile == "31UDS"
    assert home_of(cell_at(seam - 4000, middle), [east_tile]).tile == "31UES"


def test_a_granule_that_holds_a_cell_comes_before_a_nearer_one_that_does_not() -> None:
    cell = Cell(32631, 1920, 100, 100)
    west, south, east, north = cell.bounds
    whole = GranuleGrid(32631, "far", west - 60_000, north + 600, 400, 6100 + 300)
    cut = GranuleGrid(32631, "near", west + 60, north + 900, 400, 300)
    assert not cut.holds(cell)
    assert cut.meets(cell)
    assert whole.holds(cell)
    assert home_of(cell, [cut, whole]) == whole
    assert home_of(cell, [cut]) == cut
    assert (east, south) == (west + 1920, north - 1920)


def test_equally_near_granules_are_taken_by_name() -> None:
    cell = Cell(32631, 1920, 100, 100)
    west, _, _, north = cell.bounds
    left, right = (
        GranuleGrid(32631, name, west - away, north + 1920, 576, 1152) for name, away in (("b", 9600), ("a", 0))
    )
    assert left.distance(cell) == right.distance(cell)
    assert home_of(cell, [left, right]) == right


def test_a_cell_beyond_all_granules_of_its_zone_is_read_on_the_lattice() -> None:
    other_zone = replace(TILES[0], epsg=32632)
    assert home_of(cell_at(TILES[0].x + 5000, TILES[0].y - 5000), [other_zone]) == lattice_grid(32631)
    assert home_of(cell_at(TILES[0].x - 5000, TILES[0].y - 5000), [TILES[0]]) == lattice_grid(32631)


@given(
    west=st.integers(-3, 120).map(lambda cells: 399_360 + cells * 1920),
    south=st.integers(-3, 60).map(lambda cells: 5_592_960 + cells * 1920),
    unit=st.tuples(st.integers(1, 3).map(lambda n: n * 512), st.integers(1, 3).map(lambda n: n * 512)),
)
def test_units_cut_a_cell_into_parts_that_lie_in_one_unit_each(west: int, south: int, unit: tuple[int, int]) -> None:
    grid = replace(TILES[0], unit=unit, piece=(512, 256))
    box = grid.pixels_of(cell_at(west, south))
    seen = np.zeros((box[1] - box[0], box[3] - box[2]), int)
    for row, column, part in units_of(grid, box):
        assert row * unit[0] <= part[0] < part[1] <= (row + 1) * unit[0]
        assert column * unit[1] <= part[2] < part[3] <= (column + 1) * unit[1]
        for piece in pieces_of(grid.piece, part):
            assert piece[0] // 512 == (piece[1] - 1) // 512
            assert piece[2] // 256 == (piece[3] - 1) // 256
            seen[piece[0] - box[0] : piece[1] - box[0], piece[2] - box[2] : piece[3] - box[2]] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("blocks", "size", "unit"),
    [
        # Tiles of 1024 pixels at 10 and 20 m: one of 20 m, four of 10 m.
        ([(1024, 1024), (2048, 2048)], (10980, 10980), (2048, 2048)),
        ([(512, 512), (1024, 1024)], (10980, 10980), (2048, 2048)),
        ([(256, 256), (1024, 1024)], (10980, 10980), (2048, 2048)),
        # JPEG 2000 as the archives make it: tiles of 1024 pixels at 10 m, of 640 at 20 m. Whole ones of both across, of
        # 10 m along.
        ([(1024, 1024), (1280, 1280)], (10980, 10980), (1024, 5120)),
        # Only bands of 20 m, tiles of 2048.
        ([(4096, 4096)], (10980, 10980), (4096, 4096)),
        # Strips over the whole width: flat units of as many pixels.
        ([(1, 10980), (2, 10980)], (10980, 10980), (380, 10980)),
        ([(16, 10980), (32, 10980)], (10980, 10980), (352, 10980)),
        # One tile for the whole file: memory bounds units all the same.
        ([(10980, 10980)], (10980, 10980), (380, 10980)),
        # Tiles that never end together.
        ([(1000, 1000), (2048, 2048)], (10980, 10980), (2000, 2000)),
        # A granule smaller than a unit.
        ([(60, 60), (60, 60)], (60, 60), (60, 60)),
    ],
)
def test_units_are_whole_tiles_of_the_files(
    blocks: list[tuple[int, int]], size: tuple[int, int], unit: tuple[int, int]
) -> None:
    assert unit_shape(blocks, size, 2048) == unit


def test_little_memory_makes_units_as_small_as_their_pieces() -> None:
    settings = Sentinel2Settings(catalog="x")
    grid = TILES[0]
    assert within_memory(grid, settings, 24) == grid
    small = settings.model_copy(update={"memory": 0.7})
    assert within_memory(grid, small, 24).unit == grid.piece
    assert within_memory(grid, small, 1) == grid


def test_processes_share_the_connections_to_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GranuleReader(24).connections == 24
    monkeypatch.setenv("H2CROP_SHARING_PROCESSES", "16")
    assert GranuleReader(24).connections == 1
    monkeypatch.setenv("H2CROP_SHARING_PROCESSES", "5")
    assert GranuleReader(24).connections == 4


def test_all_readers_of_a_process_have_one_pool_of_connections_to_an_archive() -> None:
    with ThreadPoolExecutor(8) as asking:
        pools = set(asking.map(lambda _: connections_to("archive.example", 3), range(64)))
    assert len(pools) == 1
    assert connections_to("other.example", 3) not in pools
    threads = Counter(pools.pop().map(lambda _: threading.get_ident(), range(200)))
    assert len(threads) <= 3


def test_an_item_that_places_its_pixels_elsewhere_than_its_tile_is_doubted() -> None:
    def doubt(epsg: int | None = None, west: float = 399960, north: float = 5700000, side: int = 10980) -> str:
        place = {} if epsg is None else {"proj:transform": [10, 0, west, 0, -10, north], "proj:shape": [side, side]}
        facts = {"grid:code": "MGRS-31UDS", "proj:epsg": epsg, **place}
        return grid_doubt(item_of("S2B_31UDS_20220510_0_L2A", **facts))

    assert doubt() == ""
    assert doubt(32631) == ""
    # A part of a tile, as sample data have it.
    assert doubt(32631, 501360, 5629680, 64) == ""
    assert "EPSG:32632 for its pixels, its tile 31UDS lies in EPSG:32631" in doubt(32632)
    assert "beyond its tile 31UDS" in doubt(32631, 399960 + 109800)


@dataclass(frozen=True)
class ClearInCells(ClearClasses):
    """By the classification, of which it is known before that it shows nothing clear but in some cells."""

    cells: set[Cell] = field(default_factory=set)

    def may_be(self, look: CellLook, parts: Sequence[CellPart]) -> bool:
        return any(part.cell in self.cells for part in parts)


def test_which_items_are_asked_for_a_cell_does_not_depend_on_its_neighbours() -> None:
    look = CellLook(datetime(2022, 7, 1, tzinfo=UTC), ("whole", "older"))
    first, second = (
        CellPart(cell_at(1920 * place, 0), (0, 192, 192 * place, 192 * place + 192), (look,)) for place in (0, 1)
    )
    read = []

    def classes_of(name: str, needing: Sequence[CellPart]) -> np.ndarray:
        read.append(name)
        return np.full((96, 192), 4, np.uint8)

    def asked(cells: set[Cell]) -> dict[Cell, set[str]]:
        return unit_masks([first, second], (0, 192, 0, 384), classes_of, ClearInCells([4], cells)).asked

    assert asked({first.cell}) == {first.cell: {"whole"}}
    assert asked({first.cell, second.cell}) == {first.cell: {"whole"}, second.cell: {"whole"}}
    assert read == ["whole", "whole"]
    assert asked(set()) == {}
