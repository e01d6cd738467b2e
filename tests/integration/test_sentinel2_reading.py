"""However granules are read, the composites are those of a slow pass that reads each of them whole, cell by cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from granules import COG, JPEG2000, STRIPS, WHOLE, Archive, Grid, tiles
from pyproj import Transformer
from slow_composites import SlowPass, SlowSample, home_tile

import h2crop_data
from h2crop_data.catalog.search import read_item_collection
from h2crop_data.cube.reading import read_index
from h2crop_data.grid import Cell
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError, Workers
from h2crop_data.pipeline.estimate import estimate
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.sentinel2 import granules as granule_grids
from h2crop_data.sources.sentinel2.granules import grid_from_result, grid_unit
from h2crop_data.sources.sentinel2.readings import readings_of
from h2crop_data.sources.sentinel2.to_read import sentinel2_to_read

#: Three dates of June, so that some medians are of two values, and one of July.
DAYS = ("2022-06-05", "2022-06-10", "2022-06-20", "2022-07-05")
#: A tile whose corner is, as in the archives, on a multiple of 60 m but on no corner of a cell.
LEFT = Grid("31UDS", 499_980, 5_630_040, 3000, 3000)
#: 4 x 4 cells of 480 m inside it.
AREA = (500_160, 5_627_520, 502_080, 5_629_440)
#: Cells of 480 m in and around LEFT and a tile east of it.
WIDE_AREA = (501_120, 5_628_000, 504_480, 5_629_920)


def east(shift: int, down: int = 0, tile: str = "31UES") -> Grid:
    """A tile of the size of LEFT, so many metres further east and south."""
    return Grid(tile, LEFT.west + shift, LEFT.north - down, LEFT.width, LEFT.height)


#: 138 pixels of 10 m to the east, 42 to the south: internal tiles of 64 pixels are out of step.
RIGHT = east(1380, 420)


def side_by_side(number: int, right: int = 0, down: int = 0) -> Grid:
    """One of a row of small tiles that do not overlap; its corner moved by some metres."""
    return Grid(f"31UE{'CDEFGH'[number]}", LEFT.west + 1560 * number + right, LEFT.north - down, 1500, 1500)


def cells_along(number: int) -> tuple[int, int, int, int]:
    """The area of two rows of cells in so many small tiles, and between them."""
    return 500_160, 5_628_960, LEFT.west + 1560 * number, 5_629_920


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of 128 pixels and pieces of 64, so that cells lie across both (but where workers are processes)."""
    monkeypatch.setattr(granule_grids, "UNIT_SIDE", 128)
    monkeypatch.setattr(granule_grids, "PIECE_SIDE", 64)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path, layout=tiles(64))


def compare(recipe: Recipe, store: Path, **options: Any) -> list[SlowSample]:
    """Build a store and compare all of it with the slow pass, whose samples it gives. options: of `build_store`."""
    build_store(recipe, store, **{"workers": 1, **options})
    season, index = h2crop_data.open(store, 2022).load(), read_index(store, "samples-2022")
    assert read_index(store, "scenes")["taken"].all()
    source = recipe.sentinel2
    assert source is not None
    items = list(read_item_collection(Path(recipe.locate_catalog(source.catalog))))
    slow = SlowPass(items, 2022, source.bands, source.clouds.clear, source.resampling)
    samples = [slow.sample(Cell.parse(name)) for name in index["cell"]]
    assert samples
    for i, (name, expected) in enumerate(zip(index["cell"], samples, strict=True)):
        where = f"{name}, at home in {expected.home}"
        assert list(index["s2_gaps"][i]) == expected.gaps, where
        for array in ("s2_clear", "s2_day", "s2"):
            stored = season[array].values[i]
            np.testing.assert_array_equal(stored, getattr(expected, array), err_msg=f"{where}: {array}")
        assert list(index["s2_dates"][i]) == expected.dates, where
        assert list(index["s2_clear_share"][i]) == pytest.approx((expected.s2_clear > 0).mean(axis=(1, 2)), abs=1e-6)
        assert list(index["s2_impossible"][i]) == expected.impossible, where
    return samples


def with_lies(archive: Archive) -> None:
    """Let every item say something false of its classification and of one of its bands."""
    for item in archive.items:
        item["assets"]["scl"]["proj:shape"] = [1, 1]
        item["assets"]["nir"]["data_type"] = "uint8"


def differences_in(store: Path) -> list[tuple[set[str], set[str]]]:
    """Of each sample the scenes whose classification, and whose band, is not as their item says."""
    index = read_index(store, "samples-2022")
    told = index.get("s2_differences", [None] * len(index))
    found = []
    for texts in told:
        of_files: dict[str, set[str]] = {"scl": set(), "nir": set()}
        for text in [] if texts is None else texts:
            of_files[text.rpartition("(")[2].rstrip(")")].add(text.partition(":")[0])
        found.append((of_files["scl"], of_files["nir"]))
    return found


def counts(samples: Sequence[SlowSample]) -> set[int]:
    """The numbers of clear looks that some pixel has in some month."""
    return {int(count) for sample in samples for count in np.unique(sample.s2_clear)}


def clear_by_tile(sample: SlowSample) -> Counter[str]:
    """How many clear pixels a sample has from granules of each tile."""
    by_tile: Counter[str] = Counter()
    for name, pixels in sample.clear_from.items():
        by_tile[name.split("_")[1]] += pixels
    return by_tile


def break_files(folder: Path, *names: str) -> None:
    """Cut files of a granule so short that they cannot be opened: all of them, or those of some names."""
    for path in [folder / name for name in names] or sorted(folder.iterdir()):
        path.write_bytes(path.read_bytes()[:6])


class TestOneGranule:
    def test_however_its_pixels_are_kept(self, archive: Archive, tmp_path: Path) -> None:
        """Each tile in another way: internal tiles, one, strips, one strip, with overviews, JPEG 2000."""
        layouts = (tiles(128, predictor=2), tiles(512, compress="zstd"), STRIPS, WHOLE, COG, JPEG2000)
        for number, layout in enumerate(layouts):
            for day in DAYS[:3]:
                archive.add(side_by_side(number), day, layout=layout)
        samples = compare(archive.recipe(cells_along(len(layouts))), tmp_path / "store")
        assert counts(samples) == {0, 1, 2, 3}
        assert len({sample.home for sample in samples}) == len(layouts)

    @pytest.mark.parametrize(
        ("cell_size", "area"),
        [(240, (500_160, 5_627_520, 501_120, 5_628_480)), (960, AREA)],
        ids=["smaller", "larger"],
    )
    def test_cells_smaller_and_larger_than_an_internal_tile(
        self, archive: Archive, tmp_path: Path, cell_size: int, area: tuple[int, ...]
    ) -> None:
        """An internal tile is 640 m wide at 10 m, 1280 m at 20 m."""
        for day in DAYS:
            archive.add(LEFT, day)
        samples = compare(archive.recipe(area, cell_size=cell_size), tmp_path / "store")
        assert counts(samples) == {0, 1, 2, 3}

    def test_scenes_of_other_layouts_and_offsets_two_on_a_day_and_over_the_end_of_a_month(
        self, archive: Archive, tmp_path: Path
    ) -> None:
        archive.add(LEFT, DAYS[0], layout=STRIPS)
        archive.add(LEFT, DAYS[1], layout=tiles(128), baseline="03.01")
        archive.add(LEFT, DAYS[2], layout=COG)
        archive.add(LEFT, DAYS[2], satellite="S2B", began=f"{DAYS[2]}T10:56:19")
        archive.add(LEFT, "2022-07-01", began="2022-06-30T23:58:00", layout=JPEG2000)
        samples = compare(archive.recipe(AREA), tmp_path / "store")
        assert counts(samples) == {0, 1, 2, 3, 4, 5}
        assert any("2022-06-30" in sample.dates for sample in samples)
        assert not any(sample.s2_clear[6].any() for sample in samples)

    def test_on_a_grid_whose_pixels_of_20_m_are_cut_by_cells(self, archive: Archive, tmp_path: Path) -> None:
        for number, (right, down) in enumerate([(10, 0), (0, 10), (10, 10)]):
            for day in DAYS[:2]:
                archive.add(side_by_side(number, right, down), day)
        compare(archive.recipe(cells_along(3)), tmp_path / "store")

    @pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
    def test_bands_of_20_m_resampled(self, archive: Archive, tmp_path: Path, resampling: str) -> None:
        """Near the edge of what is read at a time too, the values are those of a file resampled as a whole."""
        for number, right in enumerate([0, 10]):
            for day in DAYS[:2]:
                archive.add(side_by_side(number, right), day)
        recipe = archive.recipe(cells_along(2), sentinel2={"resampling": resampling})
        samples = compare(recipe, tmp_path / "store")
        assert any((sample.s2[5, 2, ::2] != sample.s2[5, 2, 1::2]).mean() > 0.1 for sample in samples)


class TestEdges:
    def test_a_swath_that_ends_in_the_granule_and_cells_beyond_its_grid(self, archive: Archive, tmp_path: Path) -> None:
        for day, top, bottom in zip(DAYS, (0.1, 0.3, 0.5, 0.2), (0.6, 0.2, 0.7, 0.3), strict=True):
            archive.add(LEFT, day, data=LEFT.east_of(top, bottom))
        samples = compare(archive.recipe((499_680, 5_627_520, 503_520, 5_628_960)), tmp_path / "store")
        assert counts(samples) == {0, 1, 2, 3}
        assert any(sample.home and not sample.held and sample.dates for sample in samples)
        assert any(sample.home is None for sample in samples)

    def test_two_datastrips_of_a_tile(self, archive: Archive, tmp_path: Path) -> None:
        for day in DAYS[:3]:
            first, second = (f"{day.replace('-', '')}T10{minute}00" for minute in (47, 48))
            archive.add(LEFT, day, data=LEFT.north_of(0.5), part="_0", strip=first, coarse_edges=True)
            archive.add(LEFT, day, data=LEFT.south_of(0.5), part="_1", strip=second, coarse_edges=True)
        samples = compare(archive.recipe(AREA), tmp_path / "store")
        parts = [{name[-1] for name, pixels in sample.clear_from.items() if pixels} for sample in samples]
        assert {frozenset(part) for part in parts} == {frozenset("0"), frozenset("1"), frozenset("01")}
        assert counts(samples) == {0, 1, 2, 3}

    def test_an_older_granule_of_a_tile_is_asked_where_the_newest_has_no_data(
        self, archive: Archive, tmp_path: Path
    ) -> None:
        for day in DAYS[:3]:
            archive.add(LEFT, day, data=LEFT.west_of(0.5, 0.3), part="_new")
            archive.add(LEFT, day, part="_old", baseline="04.00")
        samples = compare(archive.recipe(AREA), tmp_path / "store")
        for age in ("_new", "_old"):
            assert any(pixels > 500 for sample in samples for name, pixels in sample.clear_from.items() if age in name)


class TestOverlappingTiles:
    @pytest.mark.parametrize(
        "other",
        [RIGHT, east(1680), east(2400, 1020)],
        ids=["out of step", "as near to one as to the other", "the nearer does not hold it"],
    )
    def test_a_cell_is_seen_by_its_home_granule_clouds_and_all(
        self, archive: Archive, tmp_path: Path, other: Grid
    ) -> None:
        for day in DAYS[:2]:
            archive.add(LEFT, day)
            archive.add(other, day)
        archive.add(LEFT, "2022-08-05", cloudy=1.0)
        archive.add(other, "2022-08-05", cloudy=0.0)
        samples = compare(archive.recipe(WIDE_AREA), tmp_path / "store")
        assert {sample.home for sample in samples} >= {LEFT.tile, other.tile}
        assert counts(samples) == {0, 1, 2}
        for sample in samples:
            if sample.held:
                own = clear_by_tile(sample)[str(sample.home)]
                # Single pixels of its granules lack data.
                assert own > 0.97 * sum(sample.clear_from.values())
                assert ((sample.s2_clear[7] == 0).mean() > 0.97) == (sample.home == LEFT.tile)

    def test_what_makes_a_granule_home(self) -> None:
        """The situations above have cells of each kind."""

        def home(grids: Sequence[Grid], column: int, row: int = 11_726) -> str | None:
            return home_tile(Cell(32631, 480, column, row), {grid.tile: grid.ground for grid in grids})

        # WIDE_AREA has columns from 1044 (501,120 m) and rows from 11,725 (5,628,000 m).
        assert [home([LEFT, RIGHT], column) for column in (1045, 1046)] == ["31UDS", "31UES"], "both hold it"
        assert home([LEFT, east(1680)], 1046) == "31UDS", "equally near: by name"
        assert home([east(0, tile="31UFS"), east(1680)], 1046) == "31UES"
        corner = east(2400, 1020)
        assert home([LEFT, corner], 1047) == "31UES", "LEFT is nearer, but its eastern edge cuts the cell"
        assert home([LEFT, corner], 1047, 11_727) == "31UDS", "none holds it, LEFT is nearer"
        assert home([LEFT], 1060) is None

    def test_where_the_home_granule_has_no_data_a_neighbour_fills(self, archive: Archive, tmp_path: Path) -> None:
        left = (LEFT.west_of(0.4, 0.9), LEFT.ground, LEFT.west_of(0.5, 0.5), LEFT.west_of(0.6, 0.8))
        right = (RIGHT.ground, RIGHT.east_of(0.5, 0.7), RIGHT.east_of(0.1, 0.4), RIGHT.east_of(0.2, 0.5))
        for day, western, eastern in zip(DAYS, left, right, strict=True):
            archive.add(LEFT, day, data=western)
            archive.add(RIGHT, day, data=eastern)
        samples = compare(archive.recipe(WIDE_AREA), tmp_path / "store")
        mixed = [sample for sample in samples if sample.held and len(clear_by_tile(sample)) == 2]
        assert {sample.home for sample in mixed if min(clear_by_tile(sample).values()) > 200} == {"31UDS", "31UES"}
        assert counts(samples) == {0, 1, 2, 3}

    def test_several_neighbours_are_asked_by_name_and_of_each_the_newest_granule_first(
        self, archive: Archive, tmp_path: Path
    ) -> None:
        upper = east(300, -900, "31UDT")
        for day in DAYS[:2]:
            archive.add(LEFT, day, data=LEFT.west_of(0.6, 0.4))
            archive.add(RIGHT, day, data=RIGHT.east_of(0.5, 0.2), part="_new")
            archive.add(RIGHT, day, data=RIGHT.east_of(0.3, 0.1), part="_old", baseline="04.00")
            archive.add(upper, day, data=upper.north_of(0.75))
        for grid in (LEFT, RIGHT, upper):
            archive.add(grid, DAYS[2])
        with_lies(archive)
        samples = compare(archive.recipe((501_120, 5_627_520, 502_560, 5_629_920)), tmp_path / "store")
        assert {sample.home for sample in samples} == {LEFT.tile, RIGHT.tile, upper.tile}
        first_day = [
            (sample.home, {name[4:] for name in sample.clear_from if "20220605" in name}) for sample in samples
        ]
        upper_one, newest, older = (f"{name}_20220605T104619" for name in ("31UDT", "31UES", "31UES"))
        assert any(home == LEFT.tile and {upper_one, f"{older}_old"} <= names for home, names in first_day)
        assert any({upper_one, f"{newest}_new", f"{older}_old"} <= names for _, names in first_day)
        # What items say of their files is held against those that a cell needs, whatever its neighbours need.
        assert differences_in(tmp_path / "store") == [(sample.asked, sample.shown) for sample in samples]
        assert len({frozenset(sample.asked) for sample in samples}) > 2
        assert any(sample.shown < sample.asked for sample in samples)

    def test_a_granule_that_is_missing_on_a_date_by_workers_in_other_processes(
        self, archive: Archive, tmp_path: Path
    ) -> None:
        for grid, day in ((LEFT, DAYS[0]), (RIGHT, DAYS[0]), (RIGHT, DAYS[1]), (LEFT, DAYS[2])):
            archive.add(grid, day)
        samples = compare(archive.recipe(WIDE_AREA), tmp_path / "store", workers=Workers(2, "processes"))
        for home, other in ((LEFT.tile, RIGHT.tile), (RIGHT.tile, LEFT.tile)):
            assert any(clear_by_tile(sample)[other] > 500 for sample in samples if sample.held and sample.home == home)

    @pytest.mark.parametrize("seed", [1, 2])
    def test_wherever_the_tiles_lie(self, archive: Archive, tmp_path: Path, seed: int) -> None:
        """Tiles, swaths, layouts, cells and blocks by chance."""
        rng = np.random.default_rng(seed)

        def metres() -> int:
            return 10 * int(rng.integers(60))

        first = Grid("31UDS", LEFT.west + metres(), LEFT.north, 1600 + 2 * metres(), 2000)
        second = Grid("31UES", first.west + 600 + metres(), LEFT.north + 300 - metres(), 2000, 1800)
        for day in DAYS[: rng.integers(2, 5)]:
            for grid in (first, second):
                part = (grid.east_of, grid.west_of)[rng.integers(2)](rng.random(), rng.random())
                shown = (grid.ground, part)[rng.integers(2)]
                archive.add(grid, day, data=shown, layout=(tiles(64), tiles(128), STRIPS)[rng.integers(3)])
        west = LEFT.west + metres()
        recipe = archive.recipe(
            (west, LEFT.north - 1500, west + 1800, LEFT.north),
            cell_size=(240, 480, 780)[rng.integers(3)],
            store={"block_capacity": int(rng.integers(1, 9))},
        )
        samples = compare(recipe, tmp_path / "store")
        assert {sample.home for sample in samples} >= {"31UDS", "31UES"}
        assert any(len(clear_by_tile(sample)) == 2 for sample in samples)


class TestZones:
    """Cells on both sides of 6 degrees east, where zone 32 begins."""

    AREA = (5.982, 50.792, 6.010, 50.808)

    @staticmethod
    def tile(name: str, west: int, north: int, width: int, height: int) -> Grid:
        """A tile whose corner is given in metres from the place on the border that is in the middle of AREA."""
        to_zone = Transformer.from_crs("OGC:CRS84", f"EPSG:326{name[:2]}", always_xy=True)
        x, y = (60 * round(value / 60) for value in to_zone.transform(6.0, 50.8))
        return Grid(name, x + west, y + north, width, height)

    def test_granules_of_the_own_zone_come_first(self, archive: Archive, tmp_path: Path) -> None:
        western = self.tile("31UGS", -2400, 1200, 3000, 1620)
        eastern, southern = self.tile("32ULB", -1200, 1200, 2700, 2700), self.tile("32ULA", -900, 600, 2700, 2700)
        archive.add(western, DAYS[0], data=western.west_of(0.7, 1.0), cloudy=0.1)
        archive.add(eastern, DAYS[0], data=eastern.east_of(0.68, 0.68))
        archive.add(southern, DAYS[0], data=southern.east_of(0.48, 0.48))
        for day in DAYS[1:3]:
            archive.add(western, day, data=western.west_of(0.6, 0.9))
            archive.add(southern, day)
        archive.add(eastern, DAYS[1])
        unreadable = archive.add(eastern, DAYS[2])
        break_files(unreadable)
        recipe = archive.recipe(self.AREA, "OGC:CRS84", sentinel2={"gaps": "record", "bands": ["B08", "B11"]})
        samples = compare(recipe, tmp_path / "store")
        seen = [(sample.home, set(clear_by_tile(sample))) for sample in samples]
        assert any(home is None and tiles for home, tiles in seen)
        assert any(home == "31UGS" and {"31UGS", "32ULA", "32ULB"} <= tiles for home, tiles in seen)
        assert any(home == "32ULA" and {"31UGS", "32ULA", "32ULB"} <= tiles for home, tiles in seen)
        assert {"31UGS", "32ULB"} <= {sample.home for sample in samples if sample.gaps == [unreadable.name]}


class TestGaps:
    def test_a_broken_band_costs_the_cells_alone_that_would_have_seen_it_clear(
        self, archive: Archive, tmp_path: Path
    ) -> None:
        broken = archive.add(LEFT, DAYS[0], cloudy=0.6)
        archive.add(RIGHT, DAYS[0])
        archive.add(LEFT, DAYS[1], cloudy=0.2)
        break_files(broken, "nir.tif")
        recipe = archive.recipe(WIDE_AREA, cell_size=240, sentinel2={"gaps": "record"})
        samples = [sample for sample in compare(recipe, tmp_path / "store") if sample.home == "31UDS"]
        assert {tuple(sample.gaps) for sample in samples} == {(), (broken.name,)}

    def test_where_gaps_are_not_allowed_a_broken_file_costs_the_blocks_that_need_it(
        self, archive: Archive, tmp_path: Path
    ) -> None:
        broken = archive.add(LEFT, DAYS[0], data=LEFT.west_of(0.5, 0.5))
        archive.add(LEFT, DAYS[1])
        break_files(broken, "nir.tif")
        recipe = archive.recipe(AREA, store={"block_capacity": 1})
        with pytest.raises(BuildError, match=rf"(\d+) of 16 blocks failed:[\s\S]*{broken.name}"):
            build_store(recipe, tmp_path / "store", workers=2)
        finished = len(list((tmp_path / "store/.build/2022").glob("*.json")))
        assert 0 < finished < 16

    def test_a_date_that_cannot_be_read_is_recorded(self, archive: Archive, tmp_path: Path) -> None:
        archive.add(LEFT, DAYS[0])
        break_files(archive.add(LEFT, DAYS[1], cloudy=0.2), "swir16.tif")
        break_files(archive.add(LEFT, DAYS[2]), "scl.tif")
        samples = compare(archive.recipe(AREA, sentinel2={"gaps": "record"}), tmp_path / "store")
        assert all(len(sample.gaps) == 2 for sample in samples)
        assert counts(samples) == {0, 1}

    def test_in_an_overlap_the_neighbour_fills_and_only_who_needs_it_names_it(
        self, archive: Archive, tmp_path: Path
    ) -> None:
        for grid in (LEFT, RIGHT):
            archive.add(grid, DAYS[0])
        break_files(archive.add(LEFT, DAYS[1]))
        archive.add(RIGHT, DAYS[1])
        # Its classes can be read, and are clear: it must not count for them.
        break_files(archive.add(RIGHT, DAYS[2], cloudy=0.0, rare=0.0), "nir.tif")
        archive.add(LEFT, DAYS[2], rare=0.0)
        samples = compare(archive.recipe(WIDE_AREA, sentinel2={"gaps": "record"}), tmp_path / "store")
        named = {(sample.home, *(name.split("_")[1] for name in sample.gaps)) for sample in samples if sample.held}
        assert {("31UDS", "31UDS"), ("31UES", "31UES")} <= named
        filled = [
            sample for sample in samples if sample.held and sample.home == "31UDS" and "31UDS" in str(sample.gaps)
        ]
        assert any(clear_by_tile(sample)["31UES"] > 500 for sample in filled)


class TestPlan:
    def test_a_plan_tells_as_many_tiles_as_clear_granules_are_read_in(self, archive: Archive, tmp_path: Path) -> None:
        for day in DAYS:
            archive.add(LEFT, day, cloudy=0)
        recipe = archive.recipe(AREA)
        plan = make_plan(recipe, 2022)
        told = estimate(plan).to_read
        files = [asset.href for item in plan.pinned["sentinel2"].items for asset in item.assets.values()]
        assert 0 < told.bytes <= sum(Path(href).stat().st_size for href in files)
        assert (told.requests, told.seconds > 0) == (0, True)
        # By the grids of the files themselves, which the build looks at, the tiles are exactly those that it decodes.
        scenes = plan.pinned["sentinel2"]
        units = [grid_unit([scenes.items[0]], recipe.sentinel2)]
        grids = {grid.tile: grid for unit in units if (grid := grid_from_result(unit.compute([]))) is not None}
        cells = [Cell.parse(name) for name in plan.samples["cell"]]
        known = replace(scenes, grids=grids)
        readings = readings_of(recipe.sentinel2, known, cells, list(plan.samples.geometry), 2022, {})
        report = build_store(recipe, tmp_path / "store", workers=1)
        assert sentinel2_to_read(readings).tiles == report.tiles_read > len(files)

    def test_of_a_scratch_folder_only_what_is_ones_own_is_deleted(self, archive: Archive, tmp_path: Path) -> None:
        archive.add(LEFT, DAYS[0])
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        (scratch / "mine.txt").write_text("kept", encoding="utf-8")
        used: list[set[str]] = []
        recipe = archive.recipe(AREA, store={"block_capacity": 1})
        build_store(
            recipe,
            tmp_path / "store",
            workers=1,
            scratch=scratch,
            progress=lambda done, total, text: used.append({path.suffix for path in scratch.rglob("*.*")}),
        )
        assert {".txt", ".part"} in used
        assert [path.name for path in scratch.iterdir()] == ["mine.txt"]
