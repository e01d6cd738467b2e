"""docs/scale.md: what it says follows from its figures, and the figures that can be counted again are true."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from killed_builds import SAID_BY_RUNS
from tiny_region import EPSG, NORTH, SOUTH, WEST, TinyRegion

import h2crop_data.cube.repair
from h2crop_data.cube.columns import PARCELS
from h2crop_data.cube.schema import Codec
from h2crop_data.cube.shard import encode_shard
from h2crop_data.cube.table_files import encode_table
from h2crop_data.grid import SPLIT_CRS, Cell, blocks_of_cells, bounds_of, cells_of_area, split_squares
from h2crop_data.mgrs import tile_bounds, tile_name
from h2crop_data.pipeline.build import build_store
from h2crop_data.sources.sentinel2.granules import GranuleGrid, home_of
from h2crop_data.storage.local import LocalStorage

REPOSITORY = Path(__file__).parents[2]
#: Rates with which times can be worked out in the head.
RATES = {
    "cores": 2.0,
    "store.lz4_mb": 8.0,
    "store.zstd_mb": 6.0,
    "reader.samples_per_s": 100.0,
    "build.samples_per_minute_threads": 120.0,
    "build.samples": 8.0,
    "build.blocks": 2.0,
    "build.share.resample EnMAP": 0.2,
    "build.share.read EnMAP": 0.1,
    "build.share.rasterize parcels": 0.03,
    "build.share.statistics": 0.02,
    "build.share.hash": 0.02,
    "build.share.compress and write": 0.01,
    "build.share.scratch": 0.015,
    "build.share.assemble Sentinel-2": 0.005,
    "reading.cpu_seconds.now": 10.0,
    "reading.needed_tiles": 500.0,
    "reading.requests_per_tile": 2.0,
}


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The page, its figures, and the benchmark whose block the figures were measured on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "tests" / "benchmarks")
        patch.syspath_prepend(REPOSITORY / "docs")
        yield {name: importlib.import_module(name) for name in ("scale", "scale_figures", "bench_store")}


@pytest.fixture(scope="module")
def figures(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["scale_figures"]


@pytest.fixture
def toy(figures: ModuleType) -> Any:
    """Two seasons of 112 samples, ten full blocks each, released one after the other; at the equator."""
    return figures.Case("toy", samples=112, parcels=1000, tiles=2, latitude=0, seasons=2, releases=2)


def test_the_page_is_what_the_script_writes(modules: dict[str, ModuleType], figures: ModuleType) -> None:
    scale = modules["scale"]
    written = scale.PAGE.read_text(encoding="utf-8")
    assert written == scale.page(figures.read_benchmarks()), "docs/scale.md is out of date: run `python docs/scale.py`"


def test_what_the_toy_holds(figures: ModuleType, toy: Any) -> None:
    # 112 / (16 x 0.7) blocks.
    assert toy.blocks == 10
    # Of a cell: 12 months x 192 x 192 x (10 bands int16, uint8, uint16); 64 x 64 x (218 int16, uint32);
    # 192 x 192 x (4 + 4 uint8, uint32).
    assert figures.raw_bytes(toy) == {"s2": 224 * 10_174_464, "enmap": 224 * 1_802_240, "labels": 224 * 442_368}
    stored = figures.stored_bytes(toy, RATES)
    assert sum(stored.values()) == pytest.approx(224 * 8e6)
    assert stored["enmap"] == pytest.approx(224 * 8e6 * 0.167)
    assert sum(figures.stored_bytes(toy, RATES, "zstd").values()) == pytest.approx(224 * 6e6)
    assert figures.objects(toy) == {
        "shards": 8 * 10 * 2,
        # And the record and sums of each season as it was sealed.
        "markers and sums": 2 * 10 * 2 + 2 * 2,
        # A season: one chunk of each of twelve coordinates, documents of the group, 8 arrays, 12 coordinates.
        "coordinates and documents": 2 * (12 + 1 + 8 + 12) + 2,
        # Eight files of each season, five of each release.
        "index": 2 * 8 + 2 * 5,
        "plans": 2 * 11,
    }
    index = figures.index_bytes(toy)
    assert index["parcels"] == 2 * 1000 * 277
    assert index["samples"] == 224 * 242
    assert index["blocks"] == 20 * 755
    # A square holds 8 x 8 cells, the same ones every year.
    assert index["squares"] == pytest.approx(112 / 64 * 1572)


def test_wavelengths_need_a_chunk_for_every_thousand_slots(figures: ModuleType) -> None:
    # 11,200 samples in 1000 blocks: 16,000 slots, 16 chunks of 1024 for each of two, one chunk for the other ten.
    many = figures.Case("many", samples=11_200, parcels=0, tiles=1, latitude=0)
    assert figures.objects(many)["coordinates and documents"] == 2 * 16 + 10 + 21 + 2
    without = figures.Case("without", samples=11_200, parcels=0, tiles=1, latitude=0, enmap=False)
    assert without.blocks == math.ceil(11_200 / 14.72)
    assert set(figures.stored_bytes(without, RATES)) == {"s2", "labels"}
    assert figures.objects(without)["shards"] == 6 * without.blocks


def test_what_the_toy_asks_of_a_bucket(figures: ModuleType, toy: Any) -> None:
    # Each season is sealed once: 2 x 33 files of seasons, twice root, datasheet and record of the sealing, 26 of the
    # index; 22 of plans; two of each season as it was sealed.
    replaced = 66 + 6 + 26 + 22 + 4
    # Of the markers, and twice of the releases.
    lists = 1 + 2
    looked, read, plans = 20, 2 * 10 * 2, 22 + 22
    # The second release compares the files of the first season: 33, seven tables, four files of no season.
    compared = 2 * (33 + 7 + 4)
    # Blocks and scenes of the first release, twice while the second is made.
    kept_out = 4
    assert figures.writing_requests(toy) == (
        160 + 40 + replaced + lists,
        replaced + looked + read + plans + kept_out + compared,
    )
    # enmap 1 chunk, s2 12, label 1, prior 1, and four indexes.
    assert figures.epoch_requests(toy) == 224 * 19


def test_what_the_toy_reads(figures: ModuleType, toy: Any) -> None:
    # 290 km of swath every 40,075 / 143 km, 73 times a year.
    looks = 290 / (40_075 / 143) * 73
    assert figures.looks(0) == pytest.approx(looks)
    assert figures.looks(60) == pytest.approx(2 * looks)
    assert figures.items(toy) == pytest.approx(2 * 2 * looks * 399.8 / 290)
    # A block is 7.68 km wide and granules overlap by 9.8 km.
    scenes = looks * 1.1748**2 * 0.7
    assert figures.scenes(toy) == pytest.approx(scenes)
    # Eleven tiles along a granule at 10 m, six at 20 m; six bands and the classes have 20 m.
    # The cells of 112 samples, and tiles of 10.24 km around scenes of 30 km, in two granules.
    touched = 112 * 3.6864 * (40.24 / 30) ** 2 / (2 * 109.8**2)
    assert figures.touched(toy) == pytest.approx(touched)
    tiles = figures.items(toy) * 0.7 * touched * (4 * 121 * 0.958 + 7 * 36 * 0.929)
    assert figures.tiles(toy) == pytest.approx(tiles)
    assert figures.enmap_files(toy) == 20 * 9
    enmap = 20 * 2 * 100_000 * 218 * 2 * (0.167 * 8e6 / (218 * 8192))
    sentinel2 = figures.items(toy) * 0.7 * touched * 10_980**2 * (4 * 0.958 + 1.5 * 0.929) * 1.4
    assert figures.archive_bytes(toy, RATES) == pytest.approx(sentinel2 + enmap)
    # Whole granules: 10,980 pixels a side, four bands at 10 m and six with a quarter of the pixels.
    assert figures.granule_bytes(toy) == pytest.approx(figures.items(toy) * 0.7 * 10_980**2 * 5.5 * 1.4)
    assert figures.enmap_scenes(toy) == pytest.approx(224 / 146)


def test_what_the_toy_takes(figures: ModuleType, toy: Any) -> None:
    # A core does a sample a second in the benchmark, four samples a block; the toy has 11.2. A tile takes 0.02 s.
    computed = figures.tiles(toy) * 0.02 + 20 * (11.2 * (0.1 + 0.2) + 4 * 0.1)
    assert figures.work(toy, RATES) == pytest.approx(computed)
    # Two requests a tile, twelve at a time; EnMAP's nine files one by one.
    waited = (figures.tiles(toy) * 2 / 12 + 20 * 9) * 0.5 + figures.archive_bytes(toy, RATES) / 1e6
    assert figures.waiting(toy, RATES, latency=0.5, bandwidth=1e6) == pytest.approx(waited)
    hours = figures.building_hours(toy, 4, RATES, latency=0.5, bandwidth=1e6)
    assert hours == pytest.approx((computed + waited) / 4 / 3600)
    planned = figures.items(toy) / 250 * 3 + 224 / 146 * 2 * 9 * figures.LATENCY / 4 + 2 * 2 * 1000 * 60e-6
    assert figures.planning_hours(toy) == pytest.approx(planned / 3600)
    sealed = 2 * (10 * 12_016 / 16_344 * 0.033 + 112 * 1e-4 + 1000 * 15e-6)
    assert figures.sealing_hours(toy) == pytest.approx(sealed / 3600)
    assert figures.memory(toy) == pytest.approx(1000 * 8_100 + 224 * 12_000 + figures.items(toy) / 2 * 72_000)
    assert figures.epoch_hours(toy, RATES) == pytest.approx(2.24 / 3600)


def test_the_cases_are_what_their_names_say(figures: ModuleType) -> None:
    published, sparse, france, years, _, europe = figures.CASES
    assert published.samples * published.seasons == 16_344
    assert france.samples == pytest.approx(544_000 / 3.6864)
    assert not sparse.enmap
    assert (years.seasons, years.samples) == (5, france.samples)
    assert europe.parcels / europe.samples == pytest.approx(france.parcels / france.samples, rel=1e-4)


def test_benchmarks_are_read_as_they_are_written(figures: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    text = "Machine: 16 CPU cores, Linux.\n\n## build\n\n| figure | value |\n|---|---:|\n| kind | threads |\n"
    path.write_text(text + "| peak_mb | 1,224 |\n| share.read EnMAP | 0.08 |\n\n## store\n| peak_mb | 2e+06 |\n")
    assert figures.read_benchmarks(path) == {
        "cores": 16,
        "build.peak_mb": 1224,
        "build.share.read EnMAP": 0.08,
        "store.peak_mb": 2e6,
    }
    path.write_text("## build\n")
    with pytest.raises(ValueError, match="make bench"):
        figures.read_benchmarks(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (0.5, "0.5"),
        (12.34, "12.3"),
        (100, "100"),
        (999.6, "1,000"),
        (147_569, "148,000"),
    ],
)
def test_numbers_have_three_digits(modules: dict[str, ModuleType], value: float, text: str) -> None:
    assert modules["scale"].short(value) == text


def fill_and_pixels(cells: list[Cell], capacity: int = 16) -> tuple[float, float]:
    """Share of the slots that are used; of the box around a block the pixels of 30 m."""
    blocks = [block for _, block in blocks_of_cells(cells, split_squares(cells, 15_360), capacity)]
    bounds = np.array([bounds_of(block) for block in blocks], float)
    width, height = bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]
    return len(cells) / len(blocks) / capacity, (width * height / 900).mean()


def test_blocks_where_all_ground_is_taken_are_as_full_as_stated(figures: ModuleType) -> None:
    places = [(3_800_000, 2_900_000), (3_800_000, 2_300_000)]
    cells = [
        cell
        for x, y in places
        for cell in cells_of_area(shapely.box(x - 76_800, y - 76_800, x + 76_800, y + 76_800), SPLIT_CRS, 1920)
    ]
    assert fill_and_pixels(cells)[0] == pytest.approx(figures.FILL_WHOLE, abs=0.03)


def test_tiles_of_home_granules_are_as_many_as_stated(figures: ModuleType) -> None:
    """Over 200 x 200 km of zone 31 and the granules over them."""
    west, south = 350_000, 5_000_000
    area = shapely.box(west, south, west + 200_000, south + 200_000)
    names = [tile_name(32631, x * 100_000, y * 100_000) for x in range(2, 7) for y in range(48, 54)]
    grids = []
    for name in names:
        epsg, left, _, _, top = tile_bounds(name)
        grids.append(GranuleGrid(epsg, name, left, top, 10_980, 10_980))
    for side, share in ((1024, figures.HOME_10M), (2048, figures.HOME_20M)):
        home, every = set(), set()
        for cell in cells_of_area(area, "EPSG:32631", 1920)[::3]:
            chosen = home_of(cell, grids)
            for grid in (grid for grid in grids if grid.meets(cell)):
                top, bottom, left, right = np.clip(grid.pixels_of(cell), 0, 10_980).tolist()
                rows, columns = (
                    range(top // side, (bottom - 1) // side + 1),
                    range(left // side, (right - 1) // side + 1),
                )
                touched = {(grid.tile, row, column) for row in rows for column in columns}
                every |= touched
                home |= touched if grid == chosen else set()
        assert len(home) / len(every) == pytest.approx(share, abs=0.02)


def test_blocks_of_enmap_scenes_are_as_full_as_stated(figures: ModuleType) -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(30):
        east, north = rng.uniform(350_000, 650_000), rng.uniform(4_900_000, 5_500_000)
        tile = shapely.affinity.rotate(shapely.box(-15_000, -15_000, 15_000, 15_000), 13, origin=(0, 0))
        inside = cells_of_area(shapely.affinity.translate(tile, east, north), "EPSG:32631", 1920, "inside")
        clear = [cell for cell in inside if rng.random() < 0.7]
        found.append((len(clear), *fill_and_pixels(clear)))
    cells, _, pixels = np.mean(found, axis=0)
    # Blocks of all scenes together: the mean over scenes of 1 / fill is weighted by their cells.
    blocks = sum(count / fill for count, fill, *_ in found)
    assert sum(count for count, *_ in found) / blocks == pytest.approx(figures.FILL_SCENE, abs=0.03)
    assert cells == pytest.approx(figures.CELLS_A_SCENE, rel=0.05)
    assert pixels == pytest.approx(figures.BLOCK_PIXELS_30M, rel=0.1)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_shares_of_stored_bytes_are_those_of_the_benchmark(modules: dict[str, ModuleType], codec: Any) -> None:
    bench = modules["bench_store"]
    layout = bench.full_layout(Codec(codec), capacity=2)
    arrays = bench.believable_block(layout, 2)
    stored: Counter[str] = Counter()
    for name, spec in layout.arrays().items():
        stored[spec.group] += sum(map(len, encode_shard(arrays[name], spec, 2, layout.codec)))
    shares = {group: size / stored.total() for group, size in stored.items()}
    assert shares == pytest.approx(modules["scale_figures"].STORED_SHARES[codec], abs=0.005)


@pytest.mark.slow
def test_a_parcel_takes_as_many_bytes_of_the_index_as_stated(figures: ModuleType) -> None:
    n, points = 20_000, 15
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, 2 * np.pi, (n, points)), axis=1)
    radius = rng.uniform(0.0006, 0.0014, (n, points))
    centre = rng.uniform((-4, 43), (8, 50), (n, 2))
    outline = centre[:, None] + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    crop = rng.integers(0, 100, n)
    table = {
        "number": np.arange(1, n + 1, dtype=np.uint32),
        "country": "fr",
        "parcel_id": pd.Series(rng.permutation(n) + 10_000_000).astype("str"),
        "code": [f"C{number:02d}" for number in crop],
        "hcat3": [f"33010{number:02d}000" for number in crop],
        **{f"tier{tier}": crop.astype(np.uint8) for tier in (1, 2, 3, 4)},
        "split": rng.choice(["train", "val", "test"], n),
    }
    parcels = gpd.GeoDataFrame(table, geometry=shapely.polygons(outline), crs="OGC:CRS84")
    assert len(encode_table("parcels", parcels, PARCELS)) / n == pytest.approx(figures.INDEX_PARCEL, rel=0.1)


def kinds_of_files(store: Path, season_arrays: set[str]) -> Counter[str]:
    """How many files of a store there are of each kind, without those about runs and of the work folder."""
    kinds: Counter[str] = Counter()
    for path in store.rglob("*"):
        parts = path.relative_to(store).parts
        if path.is_dir() or path.name in SAID_BY_RUNS or parts[:2] == (".build", "work"):
            continue
        if parts[0] == ".build":
            kinds["plans" if parts[1] == "plan" else "markers and sums"] += 1
        elif parts[0] == "index":
            kinds["index"] += 1
        elif len(parts) == 3 and parts[1] in season_arrays and parts[2] != "zarr.json":
            kinds["shards"] += 1
        else:
            kinds["coordinates and documents"] += 1
    return kinds


@pytest.mark.slow
def test_a_store_built_year_after_year_has_the_files_and_requests_of_the_plan(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = TinyRegion(tmp_path / "region")
    region.folder.mkdir()
    for year in (2021, 2022, 2023):
        region.write_parcels(year, [((WEST + 10, SOUTH + 20, WEST + 400, SOUTH + 400), "BTH")])
    for year in (2022, 2023):
        region.add_sentinel2(f"S2_{year}", f"{year}-07-05T10:50:00Z")
        region.add_enmap(1, f"{year}0724T104526")
    requests: Counter[str] = Counter()
    for name in ("write", "write_permanent", "replace", "read"):
        method = getattr(LocalStorage, name)

        def counted(*arguments: Any, name: str = name, method: Any = method, **named: Any) -> Any:
            # The work folder is never in a bucket; what a run says of itself is written by the minute.
            is_of_run = arguments[1].rpartition("/")[2] in SAID_BY_RUNS
            requests[name] += not is_of_run and not arguments[1].startswith(".build/work/")
            return method(*arguments, **named)

        monkeypatch.setattr(LocalStorage, name, counted)
    has_bytes_of = h2crop_data.cube.repair.has_bytes_of

    def compared(*arguments: Any) -> bool:
        requests["compared"] += 1
        return has_bytes_of(*arguments)

    monkeypatch.setattr(h2crop_data.cube.repair, "has_bytes_of", compared)

    def build(blocks: int) -> tuple[Counter[str], Counter[str]]:
        """So many blocks of one sample in each of two seasons, one after the other: files and requests."""
        requests.clear()
        store = tmp_path / f"store-{blocks}"
        for year in (2022, 2023):
            bbox = [WEST, SOUTH, WEST + 240 * blocks / 2, NORTH]
            recipe = region.recipe(
                seasons=[year],
                area={"bbox": bbox, "crs": f"EPSG:{EPSG}", "cells": "inside"},
                store={"block_capacity": 1},
            )
            assert build_store(recipe, store, workers=1).built == blocks
        return kinds_of_files(store, set(figures.FRANCE.layout.arrays())), Counter(requests)

    few, many = (
        figures.Case(
            "", samples=blocks * 16 * figures.FILL_SCENE, parcels=1, tiles=1, latitude=0, seasons=2, releases=2
        )
        for blocks in (2, 4)
    )
    assert (few.blocks, many.blocks) == (2, 4)
    files, asked = build(2)
    more_files, more_asked = build(4)
    assert files == figures.objects(few)
    assert more_files == figures.objects(many)
    puts, gets = figures.writing_requests(few)
    more_puts, more_gets = figures.writing_requests(many)
    # `replace` writes by `write` in a folder; in a bucket it asks for the file first (HEAD). The plan has three LIST.
    assert asked["write"] + asked["write_permanent"] == puts - 3
    assert more_asked["write"] + more_asked["write_permanent"] == more_puts - 3
    assert asked["compared"] == figures.compared_files(few)
    assert (more_asked["read"] + more_asked["replace"]) - (asked["read"] + asked["replace"]) == more_gets - gets
    # Beside the blocks, some documents of the store are looked at.
    assert asked["read"] + asked["replace"] + 2 * asked["compared"] == pytest.approx(gets, abs=40)
