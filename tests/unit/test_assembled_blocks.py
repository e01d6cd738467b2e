"""What each source makes of a block, from small inputs whose arrays and columns are worked out here by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import shapely
from numpy.typing import NDArray

from h2crop_data.catalog.packed_items import PackedItems
from h2crop_data.enmap.product import Angles, Band
from h2crop_data.errors import ReadError
from h2crop_data.grid import LONLAT, Cell
from h2crop_data.recipe.enmap import EnmapSettings
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sources.enmap.assemble import EnmapTask, enmap_block
from h2crop_data.sources.enmap.readings import EnmapReading, MaskOfScene
from h2crop_data.sources.enmap.scene import SceneFacts
from h2crop_data.sources.parcels.assemble import label_block
from h2crop_data.sources.parcels.declarations import Declarations, Declared, no_declarations
from h2crop_data.sources.scratch import Part, Scratch
from h2crop_data.sources.sentinel2.assemble import Sentinel2Task, as_part, sentinel2_block
from h2crop_data.sources.sentinel2.granules import GranuleGrid
from h2crop_data.sources.sentinel2.readings import CellPart, Sentinel2Reading
from h2crop_data.sources.sentinel2.unit import MadePart
from h2crop_data.sources.source import BlockGround
from h2crop_data.sources.timing import Stopwatch

#: Two cells of 60 m side by side: 6 x 6 pixels of 10 m, 2 x 2 of 30 m.
WEST_CELL, EAST_CELL = Cell(32631, 60, 8350, 93820), Cell(32631, 60, 8351, 93820)
WEST, SOUTH, _, NORTH = WEST_CELL.bounds
NOTHING = -32768


def ground(*cells: Cell, scratch: Scratch | None = None) -> BlockGround:
    return BlockGround(2022, "train", list(cells), 60, scratch)


class TestParcels:
    """Fields in metres from the south-west corner of the western cell; a pixel is told by its centre."""

    def declared(self, *fields: tuple[tuple[int, int, int, int], int, list[int], str]) -> gpd.GeoDataFrame:
        rows = [
            {
                "number": number,
                "country": "fr",
                "parcel_id": f"p{number}",
                "code": "BTH",
                "hcat3": "3301010100",
                **{f"tier{tier}": name for tier, name in enumerate(tiers, 1)},
                "split": split,
                "geometry": shapely.box(WEST + west, SOUTH + south, WEST + east, SOUTH + north),
            }
            for (west, south, east, north), number, tiers, split in fields
        ]
        frame = gpd.GeoDataFrame(rows, crs="EPSG:32631").to_crs(LONLAT)
        return frame.astype({"number": "uint32", **{f"tier{tier}": "uint8" for tier in range(1, 5)}})

    def test_pixels_have_the_number_and_classes_of_their_parcel(self) -> None:
        parcels = self.declared(
            # Three columns and two rows in the north-west corner, and a corner that no centre lies in.
            ((0, 40, 34, 60), 7, [1, 2, 3, 4], "train"),
            # Over the border of the cells, in the lowest row; its last class is unknown.
            ((40, 0, 80, 10), 9, [2, 5, 6, 255], "train"),
            # Of another split, in the north-east corner of the eastern cell.
            ((100, 50, 120, 60), 12, [3, 3, 3, 3], "val"),
        )
        prior = self.declared(((60, 0, 120, 30), 1, [8, 8, 8, 8], "train"))
        declared = Declared(Declarations(parcels, None), Declarations(prior, None))
        block = label_block(declared, ground(WEST_CELL, EAST_CELL), Stopwatch())
        number = np.zeros((2, 6, 6), np.uint32)
        number[0, 0:2, 0:3] = 7
        number[0, 5, 4:6] = number[1, 5, 0:2] = 9
        number[1, 0, 4:6] = 12
        tiers = {0: [0, 0, 0, 0], 7: [1, 2, 3, 4], 9: [2, 5, 6, 255], 12: [255, 255, 255, 255]}
        label = np.array(
            [[[[tiers[pixel][tier] for pixel in row] for row in cell] for tier in range(4)] for cell in number.tolist()]
        )
        earlier = np.zeros((2, 4, 6, 6), int)
        earlier[1, :, 3:] = 8
        assert {name: array.dtype.name for name, array in block.arrays.items()} == {
            "label": "uint8",
            "parcel": "uint32",
            "prior": "uint8",
        }
        np.testing.assert_array_equal(block.arrays["parcel"], number)
        np.testing.assert_array_equal(block.arrays["label"], label)
        np.testing.assert_array_equal(block.arrays["prior"], earlier)
        assert block.rows == [
            {"parcels": 2, "declared_share": 8 / 36, "class_share": [8 / 36, 8 / 36, 8 / 36, 6 / 36]},
            {"parcels": 2, "declared_share": 4 / 36, "class_share": [2 / 36, 2 / 36, 2 / 36, 0.0]},
        ]

    def test_of_parcels_that_overlap_the_smaller_one_counts(self) -> None:
        parcels = self.declared(((0, 0, 60, 60), 1, [1] * 4, "train"), ((20, 20, 40, 40), 2, [2] * 4, "train"))
        declared = Declared(Declarations(parcels, None), no_declarations())
        [cell] = label_block(declared, ground(WEST_CELL), Stopwatch()).arrays["parcel"]
        expected = np.ones((6, 6), int)
        expected[2:4, 2:4] = 2
        np.testing.assert_array_equal(cell, expected)

    def test_ground_that_is_not_covered_is_unknown_and_covered_ground_without_a_parcel_is_background(self) -> None:
        covered = gpd.GeoSeries([shapely.box(WEST, SOUTH, WEST + 30, NORTH)], crs="EPSG:32631").to_crs(LONLAT)[0]
        parcels = self.declared(((0, 0, 10, 60), 4, [1] * 4, "train"))
        block = label_block(Declared(Declarations(parcels, covered), no_declarations()), ground(WEST_CELL), Stopwatch())
        row = [1, 0, 0, 255, 255, 255]
        np.testing.assert_array_equal(block.arrays["label"], np.broadcast_to(row, (1, 4, 6, 6)))
        # A year of which nothing is known.
        assert (block.arrays["prior"] == 255).all()


class TestSentinel2:
    #: The corner of the granule lies 20 m west and 10 m north of that of the western cell.
    GRID = GranuleGrid(32631, "31UDS", WEST - 20, NORTH + 10, 100, 100)
    SETTINGS = Sentinel2Settings(
        catalog="x",
        bands=["B02", "B08"],
        alignment="none",
        clouds={"dilation": 0, "cast_shadows": False, "second_look": False},  # type: ignore[arg-type]
    )

    def reading(self, month: int, *parts: CellPart) -> Sentinel2Reading:
        return Sentinel2Reading(self.SETTINGS, 2022, month, self.GRID, parts, PackedItems({}), {}, {})

    def made(self, part: CellPart, base: int, **facts: Any) -> MadePart:
        """Values that tell band, row and column of the part."""
        rows, columns = part.shape
        pixel = np.add.outer(10 * np.arange(rows), np.arange(columns))
        values = np.stack([base + pixel, base + 500 + pixel]).astype(np.int16)
        return MadePart(part, values, (pixel % 3).astype(np.uint8), (200 + pixel).astype(np.uint16), **facts)

    def test_parts_lie_where_their_box_says_and_all_else_is_empty(self, tmp_path: Path) -> None:
        scratch = Scratch(tmp_path)
        # The western cell has rows 1 to 6 and columns 2 to 7 of the granule: its first three rows, then the others.
        upper, lower = CellPart(WEST_CELL, (1, 4, 2, 8), ()), CellPart(WEST_CELL, (4, 7, 2, 8), ())
        # Of the eastern cell two columns.
        strip = CellPart(EAST_CELL, (1, 7, 12, 14), ())
        looks = {"moments": {"2022-07-11T10:50:00+00:00", "2022-07-01T10:50:00+00:00"}, "gaps": {"b", "a"}}
        made = {
            "upper": self.made(upper, 1000, **looks),
            "lower": self.made(lower, 2000, moments={"2022-07-11T10:50:00+00:00"}, impossible={"c"}),
            "strip": self.made(strip, 3000, moments={"2022-07-01T10:50:00+00:00"}),
            # No look was clear.
            "december": MadePart.empty(upper, 2),
        }
        readings = {name: self.reading(12 if name == "december" else 7, one.part) for name, one in made.items()}
        for name, one in made.items():
            scratch.write(one.part.cell, name, as_part(readings[name], one))
        task = Sentinel2Task(self.SETTINGS, readings)
        block = sentinel2_block(task, ground(WEST_CELL, EAST_CELL, scratch=scratch), Stopwatch())

        s2 = np.full((2, 12, 2, 6, 6), NOTHING, np.int16)
        clear, day = np.zeros((2, 12, 6, 6), np.uint8), np.zeros((2, 12, 6, 6), np.uint16)
        places = [(0, 0, 0, 3, 6, 1000), (0, 3, 0, 3, 6, 2000), (1, 0, 4, 6, 2, 3000)]
        for cell, top, left, rows, columns, base in places:
            for row in range(rows):
                for column in range(columns):
                    pixel = 10 * row + column
                    s2[cell, 6, :, top + row, left + column] = base + pixel, base + 500 + pixel
                    clear[cell, 6, top + row, left + column] = pixel % 3
                    day[cell, 6, top + row, left + column] = 200 + pixel
        for name, expected in (("s2", s2), ("s2_clear", clear), ("s2_day", day)):
            assert block.arrays[name].dtype == expected.dtype
            np.testing.assert_array_equal(block.arrays[name], expected)
        # 10 row + column divides by 3 where row + column does: 6 of 18 pixels, and 4 of 12.
        july = [[0.0] * 6 + [share] + [0.0] * 5 for share in (24 / 36, 8 / 36)]
        assert block.rows == [
            {
                "s2_dates": ["2022-07-01", "2022-07-11"],
                "s2_gaps": ["a", "b"],
                "s2_impossible": ["c"],
                "s2_clear_share": july[0],
            },
            {"s2_dates": ["2022-07-01"], "s2_gaps": [], "s2_impossible": [], "s2_clear_share": july[1]},
        ]
        assert block.dates is None

    def test_what_files_have_of_their_own_is_said_once_for_several_bands(self, tmp_path: Path) -> None:
        scratch, part = Scratch(tmp_path), CellPart(WEST_CELL, (1, 7, 2, 8), ())
        differences = {("july", "nir", "says 10 m, has 20 m"), ("july", "blue", "says 10 m, has 20 m")}
        made = self.made(part, 1000, moments={"2022-07-01T10:50:00+00:00"}, differences=differences)
        reading = self.reading(7, part)
        scratch.write(WEST_CELL, "one", as_part(reading, made))
        task = Sentinel2Task(self.SETTINGS, {"one": reading})
        [row] = sentinel2_block(task, ground(WEST_CELL, scratch=scratch), Stopwatch()).rows
        assert row["s2_differences"] == ["july: says 10 m, has 20 m (blue, nir)"]


class TestEnmap:
    BANDS = (Band(2, 490.5, 6.0, 1e-4, 0.0, "vnir"), Band(1, 1610.25, 11.0, 1e-4, 0.0, "swir"))
    FACTS = SceneFacts(
        BANDS,
        {"archivedVersion": "01.04.02", "terrainCorrection": "No"},
        NOTHING,
        Angles(56.0, 170.9, -16.5, None),
        empty_nm=(1610.25,),
    )
    SCENE = pystac.Item("scene", None, None, datetime(2022, 7, 24, 10, 45, tzinfo=UTC), {})

    def task(self, scratch: Scratch, cells: dict[Cell, tuple[NDArray[Any], ...]], **changes: Any) -> EnmapTask:
        """A task whose cells are all in the scratch folder."""
        settings = EnmapSettings(catalog="x", flagged=["cloud", "haze"], mask=changes.pop("mask", "none"))
        reading = replace(EnmapReading(self.SCENE, self.FACTS, tuple(cells), {}), **changes)
        for cell, arrays in cells.items():
            scratch.write(cell, "reading", Part({}, arrays))
        return EnmapTask(settings, reading, "reading", {"enmap_shift_east": 12.5})

    def test_cells_are_stacked_in_the_order_of_the_block_and_flags_are_counted(self, tmp_path: Path) -> None:
        values = {WEST_CELL: [[[1, 2], [3, 4]], [[5, 6], [7, NOTHING]]], EAST_CELL: [[[11, 12], [13, 14]]] * 2}
        # Cloud (4), haze (16), both with water (2); then water alone.
        flags = {WEST_CELL: [[4, 16], [22, 0]], EAST_CELL: [[2, 2], [0, 0]]}
        scratch = Scratch(tmp_path)
        cells = {cell: (np.array(values[cell], np.int16), np.array(flags[cell], np.uint16)) for cell in values}
        block = enmap_block(self.task(scratch, cells), ground(EAST_CELL, WEST_CELL, scratch=scratch), Stopwatch())
        assert block.arrays.keys() == {"enmap", "enmap_quality"}
        np.testing.assert_array_equal(block.arrays["enmap"], [values[EAST_CELL], values[WEST_CELL]])
        np.testing.assert_array_equal(block.arrays["enmap_quality"], [flags[EAST_CELL], flags[WEST_CELL]])
        assert block.coordinates == {"wavelength": [490.5, 1610.25], "fwhm": [6.0, 11.0]}
        scene = {
            "enmap_processing": ["archivedVersion=01.04.02", "terrainCorrection=No"],
            "enmap_version": "01.04.02",
            # 31 + 28 + 31 + 30 + 31 + 30 days before July.
            "enmap_day_of_year": 205,
            "enmap_sun_zenith": 34.0,
            "enmap_sun_azimuth": 170.9,
            "enmap_across_off_nadir": -16.5,
            "enmap_along_off_nadir": None,
            "enmap_layers_missing": [],
            "enmap_empty_bands": ["1610.25"],
            "enmap_noisy_bands": [],
            "enmap_shift_east": 12.5,
        }
        shares = [("enmap_cloud_share", 0, 2 / 4), ("enmap_flagged_share", 0, 3 / 4), ("enmap_fill_share", 0, 1 / 8)]
        for place, row in enumerate(block.rows):
            assert {name: row[name] for name in scene} == scene
            for name, of_east, of_west in shares:
                assert row[name] == (of_west if place else of_east)

    def test_our_own_mask_is_compared_with_the_layers_where_something_was_seen(self, tmp_path: Path) -> None:
        # Cloud (1), shadow (2), nothing, unseen (4); of the layers cloud (4) and shadow (8).
        own, layers = np.array([[1, 2], [0, 4]], np.uint8), np.array([[4, 0], [8, 4]], np.uint16)
        cells = {WEST_CELL: (np.ones((2, 2, 2), np.int16), layers, own)}
        scratch, mask = Scratch(tmp_path), MaskOfScene("unit", None)
        applied = replace(
            self.task(scratch, cells), settings=EnmapSettings(catalog="x", flagged=["haze"], mask="apply")
        )
        applied = replace(applied, reading=replace(applied.reading, mask=mask))  # type: ignore[arg-type]
        block = enmap_block(applied, ground(WEST_CELL, scratch=scratch), Stopwatch())
        np.testing.assert_array_equal(block.arrays["enmap_mask"], own[None])
        [row] = block.rows
        # Of four pixels three have something of our mask; of the three that were seen one is cloud, one shadow, and two
        # are not what the layers say, of which one is ours alone.
        expected = {"enmap_flagged_share": 3 / 4, "enmap_own_cloud_share": 1 / 3, "enmap_own_shadow_share": 1 / 3}
        expected |= {"enmap_mask_disagreement": 2 / 3, "enmap_mask_alone": 1 / 3}
        assert {name: row[name] for name in expected} == expected

    def test_without_the_layer_of_clouds_their_share_is_not_known(self, tmp_path: Path) -> None:
        cells = {WEST_CELL: (np.ones((2, 2, 2), np.int16), np.zeros((2, 2), np.uint16))}
        scratch = Scratch(tmp_path)
        task = self.task(scratch, cells, facts=replace(self.FACTS, missing_layers=("quality_cloud",)))
        [row] = enmap_block(task, ground(WEST_CELL, scratch=scratch), Stopwatch()).rows
        assert row["enmap_cloud_share"] is None
        assert row["enmap_flagged_share"] is None
        assert row["enmap_layers_missing"] == ["quality_cloud"]

    def test_a_scene_that_cannot_be_read_fails_its_block(self) -> None:
        task = EnmapTask(EnmapSettings(catalog="x"), ReadError("cannot read the scene"))
        with pytest.raises(ReadError, match="cannot read the scene"):
            enmap_block(task, ground(WEST_CELL), Stopwatch())
