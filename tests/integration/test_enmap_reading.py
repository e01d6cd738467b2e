"""EnMAP scenes are read tile by tile, once for all blocks, and give what the whole image at once would give."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from mishap_source import mishaps_installed
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.transform import from_origin
from tiny_region import TinyRegion

import h2crop_data
from h2crop_data.constants import COARSE, ENMAP_FLAGS, ENMAP_MASK_FLAGS
from h2crop_data.enmap.product import Band
from h2crop_data.enmap.quality import footprint_or
from h2crop_data.enmap.resample import resample_cubic
from h2crop_data.errors import ReadError, SceneError
from h2crop_data.grid import Cell, geobox
from h2crop_data.pipeline.block import BlockTasks
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.shift import NO_SHIFT, Shift
from h2crop_data.sources.enmap import scene_reading as reading_module
from h2crop_data.sources.enmap.assemble import EnmapTask, enmap_block, read_scene_into
from h2crop_data.sources.enmap.mask_result import MaskFacts, mask_archive
from h2crop_data.sources.enmap.readings import EnmapReading, MaskOfScene, scene_reading
from h2crop_data.sources.enmap.scene import SceneFacts
from h2crop_data.sources.enmap.scene_reading import read_cells
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.scratch import Scratch
from h2crop_data.sources.source import BlockGround
from h2crop_data.sources.timing import Stopwatch

FILL, EPSG, TILE, STRIP, CELL = -32768, 32633, 64, 8, 960
WEST, NORTH = 599_985, 5_807_085
ROWS, COLUMNS, BANDS = 210, 170, 5
#: In order of wavelength; in the file the bands stand otherwise, and one of them is not stored.
ORDER = (3, 1, 5, 2)
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "interleave": "pixel"},
    "bands": {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "interleave": "band"},
    "strips": {"blockysize": STRIP, "interleave": "pixel"},
}
#: Columns and rows of the lattice: cells that lie in one tile, across two and four, and far from the others.
CELLS = tuple(Cell(EPSG, CELL, column, row) for column, row in ((625, 6047), (626, 6047), (627, 6046), (628, 6043)))

#: The name of a product.
SCENE = "ENMAP01-____L2A-DT0000001867_20220724T104526Z_008_V010302_20230628T165614Z"


@dataclass(frozen=True)
class MadeScene:
    """A scene on disk, and what is in it."""

    item: pystac.Item
    image: NDArray[np.int16]
    #: As layer_flags has them.
    flags: NDArray[np.uint16]

    def reading(self, cells: tuple[Cell, ...] = CELLS, shifts: dict[int, Shift] | None = None) -> EnmapReading:
        facts = SceneFacts(
            tuple(Band(number, 500 + i, 8, 1e-4, 0, "vnir") for i, number in enumerate(ORDER)), {"a": "b"}
        )
        return scene_reading(self.item, facts, cells, shifts)

    def expected(self, cell: Cell, shifts: dict[int, Shift] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Values and flags of a cell, from the whole image at once."""
        grid = geobox((WEST, NORTH - 30 * ROWS, WEST + 30 * COLUMNS, NORTH), EPSG, 30)
        target = cell.geobox(COARSE)
        of_bands = [(shifts or {}).get(number, NO_SHIFT) for number in ORDER]
        values = [
            resample_cubic(self.image[[number - 1]], grid, target, shift)[0]
            for number, shift in zip(ORDER, of_bands, strict=True)
        ]
        quality = np.bitwise_or.reduce(
            [footprint_or(self.flags, grid, target, ENMAP_FLAGS["outside"], shift) for shift in set(of_bands)]
        )
        return np.stack(values), quality


def make_scene(folder: Path, layout: str = "tiles") -> MadeScene:
    """Noise with gaps, clouds, and single defective pixels of stored bands and of the one that is not."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(5)
    image = rng.integers(-200, 9000, (BANDS, ROWS, COLUMNS)).astype(np.int16)
    image[rng.random(image.shape) < 0.001] = FILL
    cloud = rng.random((ROWS, COLUMNS)) < 0.01
    defective = rng.random((BANDS, ROWS, COLUMNS)) < 0.002
    layers: dict[str, NDArray[Any]] = {
        "image": image,
        "quality_classes": np.ones((1, ROWS, COLUMNS), np.uint8),
        "quality_cloud": cloud[None].astype(np.uint8),
        "defective_pixel_mask": defective.astype(np.uint8),
    }
    item = pystac.Item(SCENE, None, None, datetime(2022, 7, 24, tzinfo=UTC), {})
    for key, pixels in layers.items():
        path = folder / f"{key}.tif"
        kind = {"count": len(pixels), "dtype": pixels.dtype, "nodata": FILL if key == "image" else None}
        place = {"crs": f"EPSG:{EPSG}", "transform": from_origin(WEST, NORTH, 30, 30)}
        with rasterio.open(
            path, "w", driver="GTiff", height=ROWS, width=COLUMNS, **kind, **place, **LAYOUTS[layout]
        ) as file:
            file.write(pixels)
        item.add_asset(key, pystac.Asset(str(path)))
    of_stored = defective[[number - 1 for number in ORDER]].any(axis=0)
    return MadeScene(item, image, (cloud * ENMAP_FLAGS["cloud"] | of_stored * ENMAP_FLAGS["defective"]).astype("u2"))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles are read one by one, strips by two."""
    monkeypatch.setattr(reading_module, "READ_SIDE", TILE)
    monkeypatch.setattr(reading_module, "READ_ROWS", 2 * STRIP)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The windows that are read of images, as (row, column) of the first and the last tile."""
    seen: list[Any] = []
    plain = reading_module.read_window

    def noted(href: str, window: Any, bands: Any) -> Any:
        (top, bottom), (left, right) = window.toranges()
        seen.append(((top // TILE, left // TILE), ((bottom - 1) // TILE, (right - 1) // TILE)))
        return plain(href, window, bands)

    monkeypatch.setattr(reading_module, "read_window", noted)
    return seen


def tiles_of_cells(cells: tuple[Cell, ...]) -> set[tuple[int, int]]:
    """Rows and columns of the tiles that cells lie on, with the kernel's margin."""
    tiles = set()
    for cell in cells:
        west, south, east, north = cell.bounds
        rows = range((NORTH - north) // 30 - 3, -((south - NORTH) // 30) + 3)
        columns = range((west - WEST) // 30 - 3, -((WEST - east) // 30) + 3)
        tiles |= {(row // TILE, column // TILE) for row in rows for column in columns if row >= 0 and column >= 0}
    return tiles


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cells_are_those_of_the_whole_image(tmp_path: Path, layout: str) -> None:
    scene = make_scene(tmp_path, layout)
    found = {one.cell: one for one in read_cells(scene.reading(), Stopwatch())}
    assert found.keys() == set(CELLS)
    for cell, one in found.items():
        values, quality = scene.expected(cell)
        np.testing.assert_array_equal(one.values, values)
        np.testing.assert_array_equal(one.quality, quality)
    assert any((one.quality & ENMAP_FLAGS["defective"]).any() for one in found.values())


def test_each_tile_under_a_cell_is_read_once_and_no_other(tmp_path: Path, windows: list[Any]) -> None:
    list(read_cells(make_scene(tmp_path).reading(), Stopwatch()))
    assert all(first == last for first, last in windows), "a window over several tiles"
    read = Counter(first for first, _ in windows)
    assert set(read.values()) == {1}
    assert set(read) == tiles_of_cells(CELLS)
    assert len(read) < 4 * 3, "the scene has more tiles than its cells need"


def test_strips_are_read_once_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[int, int]] = []
    plain = reading_module.read_window

    def noted(href: str, window: Any, bands: Any) -> Any:
        rows.append(window.toranges()[0])
        return plain(href, window, bands)

    monkeypatch.setattr(reading_module, "read_window", noted)
    list(read_cells(make_scene(tmp_path, "strips").reading(), Stopwatch()))
    strips = [range(top // STRIP, (bottom - 1) // STRIP + 1) for top, bottom in rows]
    read = Counter(strip for some in strips for strip in some)
    assert set(read.values()) == {1}
    assert max(map(len, strips)) == 2
    under = {(row, column) for row, column in tiles_of_cells(CELLS) if row * TILE < ROWS}
    assert {strip * STRIP // TILE for strip in read} == {row for row, _ in under}


def test_each_detector_has_its_own_shift_and_flags_count_for_both(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    vnir, swir = Shift(40, -20), Shift(-35, 28)
    shifts = {3: vnir, 1: vnir, 5: swir, 2: swir}
    inner = CELLS[1:3]
    found = {one.cell: one for one in read_cells(scene.reading(inner, shifts), Stopwatch())}
    for cell in inner:
        values, quality = scene.expected(cell, shifts)
        np.testing.assert_array_equal(found[cell].values, values)
        np.testing.assert_array_equal(found[cell].quality, quality)
        alone = scene.expected(cell, dict.fromkeys(ORDER, vnir))
        np.testing.assert_array_equal(values[:2], alone[0][:2])
        assert (values[2:] != alone[0][2:]).any()
        assert (quality & ~alone[1]).any(), "flags of one footprint only"


def test_a_mask_lies_where_its_scene_is_read(tmp_path: Path) -> None:
    """Its bits count under the footprints of both detectors, and those of pixels that nobody looked at too."""
    scene, grid = make_scene(tmp_path), geobox((WEST, NORTH - 30 * ROWS, WEST + 30 * COLUMNS, NORTH), EPSG, 30)
    mask = np.random.default_rng(2).choice([0, 1, 2, 4], (ROWS, COLUMNS), p=[0.97, 0.01, 0.01, 0.01]).astype(np.uint8)
    file = tmp_path / "mask.npz"
    file.write_bytes(mask_archive(mask, MaskFacts(1200.0, "")))
    vnir, swir = Shift(40, -20), Shift(-35, 28)
    plain = scene.reading(CELLS[1:3], {3: vnir, 1: vnir, 5: swir, 2: swir})
    reading = replace(plain, mask=MaskOfScene("of this scene", file))
    assert reading.id != plain.id
    assert reading.id != replace(plain, mask=MaskOfScene("of another", file)).id
    for one in read_cells(reading, Stopwatch()):
        target = one.cell.geobox(COARSE)
        of_shifts = [footprint_or(mask, grid, target, ENMAP_MASK_FLAGS["unseen"], shift) for shift in (vnir, swir)]
        assert one.mask is not None
        np.testing.assert_array_equal(one.mask, of_shifts[0] | of_shifts[1])
        assert (one.mask != footprint_or(mask, grid, target, ENMAP_MASK_FLAGS["unseen"])).any()
        np.testing.assert_array_equal(one.quality, scene.expected(one.cell, dict(reading.shifts))[1])
    assert all(one.mask is None for one in read_cells(plain, Stopwatch()))
    file.write_bytes(mask_archive(mask[1:], MaskFacts(None, "")))
    with pytest.raises(SceneError, match="the image was replaced"):
        list(read_cells(reading, Stopwatch()))


def test_a_cell_of_the_neighbouring_zone_is_that_of_the_whole_image(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    x, y = Transformer.from_crs(EPSG, 32632, always_xy=True).transform(WEST + 2500, NORTH - 3000)
    cell = Cell(32632, CELL, int(x // CELL), int(y // CELL))
    (found,) = read_cells(scene.reading((cell,)), Stopwatch())
    values, quality = scene.expected(cell)
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.quality, quality)
    assert (values != FILL).mean() > 0.9


def test_a_cell_beside_the_scene_is_refused_by_name(tmp_path: Path) -> None:
    far = replace(CELLS[0], column=700)
    with pytest.raises(SceneError, match=far.id):
        list(read_cells(make_scene(tmp_path).reading((*CELLS, far)), Stopwatch()))


class TestBlocks:
    def block(self, scene: MadeScene, cells: tuple[Cell, ...], scratch: Scratch | None, name: str) -> Any:
        """The arrays of a block of some cells."""
        task = EnmapTask(EnmapSettings(catalog="made"), scene.reading(cells), name)
        return enmap_block(task, BlockGround(2022, "train", list(cells), CELL, scratch), Stopwatch())

    def test_what_was_read_before_is_not_read_again(self, tmp_path: Path, windows: list[Any]) -> None:
        scene, scratch = make_scene(tmp_path / "scene"), Scratch(tmp_path / "scratch")
        name = scene.reading().id
        read_scene_into(scratch, name, scene.reading(), Stopwatch())
        windows.clear()
        for cells in (CELLS[2:], CELLS[1::-1]):
            made = self.block(scene, cells, scratch, name)
            for i, cell in enumerate(cells):
                values, quality = scene.expected(cell)
                np.testing.assert_array_equal(made.arrays["enmap"][i], values)
                np.testing.assert_array_equal(made.arrays["enmap_quality"][i], quality)
                assert made.rows[i]["enmap_fill_share"] == (values == FILL).mean()
                assert made.rows[i]["enmap_cloud_share"] == ((quality & ENMAP_FLAGS["cloud"]) != 0).mean()
            assert made.coordinates["wavelength"] == [500, 501, 502, 503]
        assert not windows

    @pytest.mark.parametrize("damage", ["lost", "damaged", "never"])
    def test_a_cell_that_is_not_there_is_read_for_its_block_alone(
        self, tmp_path: Path, windows: list[Any], damage: str
    ) -> None:
        scene, scratch = make_scene(tmp_path / "scene"), Scratch(tmp_path / "scratch")
        name = "" if damage == "never" else scene.reading().id
        if name:
            read_scene_into(scratch, name, scene.reading(), Stopwatch())
            path = scratch.path(CELLS[3], name)
            path.unlink() if damage == "lost" else path.write_bytes(path.read_bytes()[:-1])
        windows.clear()
        made = self.block(scene, CELLS, scratch, name)
        for i, cell in enumerate(CELLS):
            np.testing.assert_array_equal(made.arrays["enmap"][i], scene.expected(cell)[0])
        assert {first for first, _ in windows} == tiles_of_cells(CELLS if damage == "never" else CELLS[3:])

    def test_another_file_shift_or_band_is_another_reading(self, tmp_path: Path) -> None:
        scene = make_scene(tmp_path)
        reading = scene.reading()
        assert reading.id == scene.reading(CELLS[::-1]).id
        others = [
            scene.reading(CELLS[:2]),
            scene.reading(shifts={3: Shift(1, 0)}),
            replace(reading, facts=SceneFacts(reading.facts.bands[::-1], {})),
            replace(reading, stamps={**reading.stamps, "image": [1, 2]}),
        ]
        assert len({reading.id, *(other.id for other in others)}) == 5


class TestBuilds:
    def test_a_build_reads_each_scene_once(self, region: TinyRegion, tmp_path: Path, windows: list[Any]) -> None:
        region.add_enmap(1, "20220724T104526", value=2000)
        region.add_enmap(1, "20220903T104526", value=3000, datatake=1900)
        recipe = region.recipe(store={"block_capacity": 1})
        build_store(recipe, tmp_path / "store", workers=2)
        season = h2crop_data.open(tmp_path / "store", 2022).load()
        assert season.sizes["sample"] == 8
        # Each of eight blocks used to read its scene.
        assert len(windows) == 2
        for sample in range(8):
            value = 2000 if "20220724" in str(season.sample[sample].values) else 3000
            assert (season.enmap[sample, 0] == value).all()

    def test_a_build_that_failed_goes_on_with_what_it_read(
        self, region: TinyRegion, tmp_path: Path, windows: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        region.add_enmap(1, "20220724T104526")
        with mishaps_installed():
            recipe = region.recipe(mishaps={})
            with monkeypatch.context() as patched:
                patched.setenv("MISHAPS_FAILING", "all:ZeroDivisionError")
                with pytest.raises(BuildError, match="2 of 2 blocks failed"):
                    build_store(recipe, tmp_path / "store", workers=1)
            assert len(windows) == 1
            assert build_store(recipe, tmp_path / "store", workers=1).samples == 4
        assert len(windows) == 1
        assert not list(tmp_path.rglob("*.part"))

    def test_a_block_waits_for_its_own_scene_alone(self, region: TinyRegion) -> None:
        names = [region.add_enmap(1, "20220724T104526"), region.add_enmap(1, "20220903T104526", datatake=1900)]
        plan = make_plan(region.recipe(), 2022)
        tasks = BlockTasks(plan)
        for row in plan.blocks.to_dict("records"):
            readings: tuple[Reading, ...] = tasks.readings(row["block"])
            assert [reading.scene for reading in readings] == [row["scene"]]
            assert {cell for reading in readings for cell in reading.cells} > set(
                tasks.blocks.block(row["block"]).cells
            )
        assert set(plan.blocks["scene"]) == set(names)

    def test_a_damaged_scene_costs_its_own_blocks_and_is_named(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_enmap(1, "20220724T104526")
        damaged = region.add_enmap(1, "20220903T104526", datatake=1900)
        plan = make_plan(region.recipe(), 2022)
        image = region.folder / "enmap" / damaged / "SPECTRAL_IMAGE.TIF"
        whole = image.read_bytes()
        image.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(BuildError, match="2 of 4 blocks failed") as raised:
            build_store(region.recipe(), tmp_path / "store", workers=1)
        assert damaged in str(raised.value)
        image.write_bytes(whole)
        report = build_store(region.recipe(), tmp_path / "store", workers=1)
        assert (len(plan.blocks), report.samples) == (4, 8)


def test_a_file_that_is_gone_is_a_read_error(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (tmp_path / "image.tif").unlink()
    with pytest.raises(ReadError, match=r"image\.tif"):
        list(read_cells(scene.reading(), Stopwatch()))
