"""Stores for tests, each made once in a session and copied from then on.

`make_store(folder)`      from arrays, by the real writer: all values are known (`MadeStore.arrays`)
`checked_store(folder)`   from the files of a tiny region, by the real builder: everything a store can have

The layers of the first are not symmetric under flips or turns, so that a swapped axis or band shows: the north-west
quarter of a cell is one parcel, its southern half another, and the north-east quarter is not declared. A store that a
test builds from its own region is built by `build_store` there. `changed_stores` changes stores behind their builders'
backs.
"""

from __future__ import annotations

import atexit
import copy
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from tiny_region import NORTH as NORTH_EDGE
from tiny_region import SOUTH as SOUTH_EDGE
from tiny_region import WEST, TinyRegion

from h2crop_data.constants import ENMAP_FLAGS, MONTHS, SENTINEL2_BANDS, TIERS, UNKNOWN
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.cube.root import stored_data
from h2crop_data.cube.schema import Codec, StoreLayout
from h2crop_data.cube.seal import SealedStore, SeasonInputs, seal
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.cube.statistics import BlockSums, block_sums, total
from h2crop_data.cube.writer import StoreBuilder, hold_store
from h2crop_data.grid import Cell
from h2crop_data.pipeline.build import build_store
from h2crop_data.recipe.model import Recipe
from h2crop_data.sources.describe import DATASHEETS
from h2crop_data.sources.formats import known_layout

SOFTWARE = "h2crop-data of the tests"
EPSG = 32631
#: Column and row of the first cell; the others follow to the east.
FIRST_CELL = (2090, 23455)
#: Splits of the blocks, in turn.
SPLITS = ("train", "val", "test")
#: Two gaps, as real stores have them (water vapour): 1300 to 1500 nm and 1750 to 1950 nm.
WAVELENGTHS = np.array(
    [*np.linspace(450, 1300, 18), *np.linspace(1500, 1750, 6), *np.linspace(1950, 2400, 8)], np.float32
)
#: As many bands as the published dataset has.
PUBLISHED_WAVELENGTHS = tuple(map(float, np.linspace(420, 2450, 218).astype(np.float32)))
#: Month (0-based) no pixel of which was ever clear.
EMPTY_MONTH = 11
#: Month (0-based) that misses its north-west quarter.
CUT_MONTH = 0
#: Class of the north-west parcel at each tier.
NORTH_WEST = (1, 2, 3, 4)
#: Class of the southern parcel at each tier.
SOUTH = (2, 5, UNKNOWN, UNKNOWN)
CLASSES: list[dict[int, str]] = [
    {1: "grassland", 2: "arable"},
    {2: "permanent_grassland", 5: "cereal"},
    {3: "pasture", 6: "winter_cereal"},
    {4: "grazed_pasture", 7: "winter_common_soft_wheat"},
]
ENMAP_FLAGGED = ENMAP_FLAGS["cloud"] | ENMAP_FLAGS["cirrus_thick"]
Arrays = dict[str, NDArray[Any]]


@cache
def shared_folder() -> Path:
    """Where stores lie that are made once: the session's, or where there is none, one that ends with the process."""
    if named := os.environ.get("H2CROP_TEST_STORES"):
        return Path(named)
    folder = Path(tempfile.mkdtemp(prefix="made-stores-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills once in a session, in whichever process needs it first; only to be copied."""
    folder = shared_folder() / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done := folder.with_suffix(".done")).exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


@dataclass(frozen=True)
class Content:
    """What differs between stores made from arrays."""

    seasons: tuple[int, ...] = (2022,)
    blocks: int = 2
    splits: tuple[str, ...] = SPLITS
    wavelengths: tuple[float, ...] = tuple(map(float, WAVELENGTHS))
    empty_month: int = EMPTY_MONTH
    #: Days from the EnMAP scene of a block to that of the next; the first is of 1 July.
    scene_step: int = 1
    taxonomy: str = "1 " + "0" * 64
    #: Changes the arrays of each sample before they are written.
    change: Callable[[Arrays], Arrays] = dict


@dataclass
class MadeStore:
    """A store and what was written into it."""

    folder: Path
    layout: StoreLayout
    #: season -> array -> (samples, *sample_shape), in order of slot.
    arrays: dict[int, dict[str, NDArray[Any]]] = field(default_factory=dict)
    #: season -> the samples' index.
    samples: dict[int, gpd.GeoDataFrame] = field(default_factory=dict)
    release: int = 0
    content: Content = Content()


def make_store(
    folder: Path,
    seasons: Sequence[int] = (2022,),
    blocks: int = 2,
    capacity: int = 3,
    *,
    cell_size: int = 240,
    s2_bands: Sequence[str] = SENTINEL2_BANDS,
    enmap: bool = True,
    labels: bool = True,
    codec: Codec | None = None,
    classes: list[dict[int, str]] = CLASSES,
    **content: Any,
) -> MadeStore:
    """A sealed store; the last block of a season has one sample less than it could hold (if it holds two).

    s2_bands: none for a store without Sentinel-2; enmap, labels: whether it has them. classes: of each tier.
    content: other fields of `Content`.
    """
    wanted = Content(tuple(seasons), blocks, **content)
    layout = known_layout(
        cell_size=cell_size,
        capacity=capacity,
        codec=codec or Codec(),
        s2_bands=tuple(s2_bands),
        enmap_bands=len(wanted.wavelengths) if enmap else 0,
        labels=labels,
    )
    key = repr((layout, wanted, classes))
    if key not in WRITTEN:
        WRITTEN[key] = written_store(layout, wanted, classes)
    made = WRITTEN[key]
    shutil.copytree(made.folder, folder)
    return replace(copy.deepcopy(made), folder=folder)


#: What others are copies of, by what was asked for.
WRITTEN: dict[str, MadeStore] = {}


def written_store(layout: StoreLayout, content: Content, classes: list[dict[int, str]]) -> MadeStore:
    """Write and seal a store in a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=shared_folder())) / "store"
    made = MadeStore(folder, layout, content=content)
    with hold_store(folder) as builder, ThreadPoolExecutor(2) as pool:
        finished = [write_season(builder, pool, made, season, content.blocks) for season in content.seasons]
        made.release = seal_made(builder, layout, finished, classes).release
    return made


def seal_made(
    builder: StoreBuilder,
    layout: StoreLayout,
    seasons: Sequence[FinishedSeason],
    classes: list[dict[int, str]] = CLASSES,
    software: str = SOFTWARE,
) -> SealedStore:
    """Make a release of gathered seasons."""

    def inputs(finished: FinishedSeason) -> SeasonInputs:
        return SeasonInputs(finished.season, "", lambda: (finished, {}))

    return seal(builder, layout, list(map(inputs, seasons)), classes, software, DATASHEETS)


def make_training_store(folder: Path, blocks: int = 3, version: str = "1") -> MadeStore:
    """A store of patches of 24 pixels in three splits, with the classes that come with h2crop.

    blocks: one for a store of training samples alone.
    """
    taxonomy = Taxonomy.load(version)
    classes = [taxonomy.names(tier) for tier in (1, 2, 3, 4)]
    return make_store(folder, blocks=blocks, classes=classes, taxonomy=f"{taxonomy.version} {taxonomy.hash}")


def write_season(
    builder: StoreBuilder, pool: ThreadPoolExecutor, made: MadeStore, season: int, blocks: int
) -> FinishedSeason:
    """Write the blocks of a season; gives what sealing needs, and notes the truth in `made`."""
    layout, content = made.layout, made.content
    files: list[dict[str, Any]] = []
    sums: dict[str, list[BlockSums]] = {}
    parts: list[dict[str, NDArray[Any]]] = []
    rows: list[dict[str, Any]] = []
    block_rows: list[dict[str, Any]] = []
    for block in range(blocks):
        split = content.splits[block % len(content.splits)]
        count = layout.capacity - 1 if block == blocks - 1 and layout.capacity > 1 else layout.capacity
        slots = range(block * layout.capacity, block * layout.capacity + count)
        stacked = [content.change(sample_arrays(layout, slot, content)) for slot in slots]
        arrays = {name: np.stack([one[name] for one in stacked]) for name in stacked[0]}
        written = [builder.describe(name) for name in builder.write_block(season, block, arrays, layout, pool)]
        sums.setdefault(split, []).append(block_sums(arrays, layout.arrays(), split, {"enmap_quality": ENMAP_FLAGGED}))
        rows += [
            sample_row(layout, season, block, slot, split, one, content.scene_step)
            for slot, one in zip(slots, stacked, strict=True)
        ]
        block_rows.append(
            block_row(season, block, split, count, written, layout, content.scene_step) | {"taxonomy": content.taxonomy}
        )
        files += written
        parts.append(arrays)
    made.arrays[season] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    made.samples[season] = gpd.GeoDataFrame(rows, crs="OGC:CRS84")
    spectrum = {
        "wavelength": np.tile(content.wavelengths, (blocks, 1)).astype(np.float32),
        "fwhm": np.full((blocks, len(content.wavelengths)), 6.5, np.float32),
    }
    return FinishedSeason(
        season=season,
        samples=made.samples[season],
        blocks=pd.DataFrame(block_rows),
        scenes=scenes_table(layout, season, content.empty_month, content.scene_step),
        parcels=parcels_table(layout, rows),
        by_block=spectrum if stored_data(layout.attributes()).enmap_bands else {},
        sums={split: total(parts) for split, parts in sums.items()},
        files=files,
        recipe={
            "name": f"made-{season}",
            "description": "A store of the tests.",
            "cell_size": layout.cell_size,
            "enmap": {"catalog": "items.json", "flagged": ["cloud", "cirrus_thick"]},
        },
    )


def sample_arrays(layout: StoreLayout, slot: int, content: Content = Content()) -> Arrays:
    """Every array of one sample, (sample_shape) of its dtype."""
    arrays: dict[str, NDArray[Any]] = {}
    specs = layout.arrays()
    if stored_data(layout.attributes()).enmap_bands:
        arrays["enmap"], arrays["enmap_quality"] = enmap_values(layout.coarse, slot, np.array(content.wavelengths))
    if stored_data(layout.attributes()).s2_bands:
        clear = np.full((MONTHS, layout.fine, layout.fine), 2, np.uint8)
        clear[content.empty_month] = 0
        clear[CUT_MONTH, : layout.fine // 2, : layout.fine // 2] = 0
        values = sentinel2_values(layout, slot)
        arrays["s2"] = np.where(clear[:, None] > 0, values, specs["s2"].fill).astype(np.int16)
        arrays["s2_clear"] = clear
        day = (30 * np.arange(MONTHS) + 15)[:, None, None]
        arrays["s2_day"] = np.where(clear > 0, day, 0).astype(np.uint16)
    if stored_data(layout.attributes()).labels:
        arrays["label"] = tier_layers(layout.fine, NORTH_WEST, SOUTH)
        arrays["prior"] = tier_layers(layout.fine, SOUTH, NORTH_WEST)
        numbers = tier_layers(layout.fine, (1,), (2,))[0].astype(np.uint32)
        arrays["parcel"] = np.where(numbers > 0, numbers + np.uint32(2 * slot), 0).astype(np.uint32)
    return arrays


def sentinel2_values(layout: StoreLayout, slot: int) -> NDArray[np.int16]:
    """Reflectance x 10000, (month, band, y, x): 100 a band, 10 a month, 1 a slot, brighter to the south and east.

    The near infrared of the north-west quarter swings over the year, as that of a meadow.
    """
    side = layout.fine
    band = np.array([100 * (SENTINEL2_BANDS.index(name) + 1) for name in stored_data(layout.attributes()).s2_bands])
    month = 10 * np.arange(MONTHS)
    y, x = np.mgrid[:side, :side]
    values = band[:, None, None] + month[:, None, None, None] + slot + 2 * y + x
    for i, name in enumerate(stored_data(layout.attributes()).s2_bands):
        if name in ("B08", "B8A"):
            season = 1500 + 1000 * np.sin(np.pi * np.arange(MONTHS) / MONTHS)
            values[:, i, : side // 2, : side // 2] += season.astype(int)[:, None, None]
    return values.astype(np.int16)


def enmap_values(side: int, slot: int, wavelengths: NDArray[Any]) -> tuple[NDArray[np.int16], NDArray[np.uint32]]:
    """EnMAP reflectance x 10000 (band, y30, x30) and flags (y30, x30).

    The north-west quarter is vegetation, the southern half bare soil, the north-east quarter water; the south-east
    corner pixel lies outside the scene, and the pixel west of it is flagged as cloud.
    """
    near_infrared, short_wave = wavelengths > 720, wavelengths > 1400
    vegetation = np.where(short_wave, 1800, np.where(near_infrared, 4000, 400))
    soil = 1200 + wavelengths.astype(int)
    water = np.where(near_infrared, 50, 500)
    values = np.empty((len(wavelengths), side, side), np.int16)
    values[:] = water[:, None, None] + slot
    values[:, : side // 2, : side // 2] = vegetation[:, None, None] + slot
    values[:, side // 2 :] = soil[:, None, None] + slot
    flags = np.zeros((side, side), np.uint32)
    flags[: side // 2, side // 2 :] = ENMAP_FLAGS["water"]
    flags[-1, -2] = ENMAP_FLAGS["cloud"]
    flags[-1, -1] = ENMAP_FLAGS["outside"]
    values[:, -1, -1] = -32768
    return values, flags


def tier_layers(side: int, north_west: Sequence[int], south: Sequence[int]) -> NDArray[np.uint8]:
    """Numbers (tier, y, x): of the north-west quarter, of the southern half, 0 in the north-east quarter."""
    layers = np.zeros((len(north_west), side, side), np.uint8)
    for tier, (first, second) in enumerate(zip(north_west, south, strict=True)):
        layers[tier, : side // 2, : side // 2] = first
        layers[tier, side // 2 :] = second
    return layers


def sample_row(
    layout: StoreLayout, season: int, block: int, slot: int, split: str, arrays: dict[str, NDArray[Any]], step: int = 1
) -> dict[str, Any]:
    """The index row of a sample, with the columns a build gives. step: days between the scenes of two blocks."""
    cell = Cell(EPSG, layout.cell_size, FIRST_CELL[0] + slot, FIRST_CELL[1])
    time = scene_time(season, block, step) if stored_data(layout.attributes()).enmap_bands else None
    row: dict[str, Any] = {
        "sample": f"{cell.id}_{time:%Y%m%dT%H%M%S}" if time else f"{cell.id}_{season}",
        "cell": cell.id,
        "epsg": cell.epsg,
        "x0": float(cell.corner[0]),
        "y0": float(cell.corner[1]),
        "block": block,
        "slot": slot,
        "split": split,
        "square": f"0_{block}",
        "scene": scene_id(season, block, step) if time else "none",
        "scene_time": pd.Timestamp(time) if time else pd.NaT,
        "sun_elevation": 55.0 if time else np.nan,
        "sun_azimuth": 150.0 if time else np.nan,
        "across_off_nadir": 4.5 if time else np.nan,
    }
    if stored_data(layout.attributes()).enmap_bands:
        flagged = (arrays["enmap_quality"] & ENMAP_FLAGGED) != 0
        row["enmap_flagged_share"] = float(flagged.mean())
        row["enmap_fill_share"] = float((arrays["enmap"] == -32768).mean())
    if stored_data(layout.attributes()).s2_bands:
        row["s2_clear_share"] = (arrays["s2_clear"] > 0).mean(axis=(1, 2)).tolist()
        row["s2_dates"] = [f"{season}-{month:02d}-15" for month in range(1, MONTHS)]
        row["s2_gaps"] = []
    if stored_data(layout.attributes()).labels:
        row["parcels"] = len(np.setdiff1d(arrays["parcel"], [0]))
        row["declared_share"] = float((arrays["parcel"] > 0).mean())
        row["class_share"] = [float(((tier > 0) & (tier < UNKNOWN)).mean()) for tier in arrays["label"]]
    return {**row, "geometry": cell.outline}


def block_row(
    season: int, block: int, split: str, samples: int, files: list[dict[str, Any]], layout: StoreLayout, step: int = 1
) -> dict[str, Any]:
    """The index row of a block, with the columns a build gives."""
    return {
        "block": block,
        "split": split,
        "square": f"0_{block}",
        "epsg": EPSG,
        "scene": scene_id(season, block, step) if stored_data(layout.attributes()).enmap_bands else "none",
        "samples": samples,
        **{f"hash_{group}": f"{group} {season} {block}" for group in ("s2", "enmap", "labels")},
        "files": [file["path"] for file in files],
        "software": SOFTWARE,
        "recipe": "0" * 64,
        "taxonomy": "1 " + "0" * 64,
        "retracted": "",
    }


def scene_time(season: int, block: int, step: int = 1) -> datetime:
    """When the EnMAP scene of a block was taken. step: days from one to the next."""
    return datetime(season, 7, 1, 10, 30, tzinfo=UTC) + timedelta(days=block * step)


def scene_id(season: int, block: int, step: int = 1) -> str:
    """The EnMAP scene of a block."""
    return f"ENMAP01-____L2A-DT000000{block:04d}_{scene_time(season, block, step):%Y%m%dT%H%M%S}Z_001_V010502"


def scenes_table(layout: StoreLayout, season: int, empty_month: int = EMPTY_MONTH, step: int = 1) -> pd.DataFrame:
    """Decisions on scenes: eleven Sentinel-2 scenes and two EnMAP scenes taken, one of each left out."""
    moments: list[tuple[str, str, datetime, bool]] = []
    if stored_data(layout.attributes()).s2_bands:
        for month in range(1, MONTHS + 1):
            time = datetime(season, month, 15, 10, 50, tzinfo=UTC)
            moments.append(("sentinel2", f"S2A_31UES_{time:%Y%m%d}_0_L2A", time, month - 1 != empty_month))
    if stored_data(layout.attributes()).enmap_bands:
        moments += [("enmap", scene_id(season, i, step), scene_time(season, i, step), i < 2) for i in range(3)]
    facts = {
        "sentinel2": {"collection": "sentinel-2-l2a", "baseline": "05.09", "offset": -1000},
        "enmap": {"collection": "ENMAP_HSI_L2A", "baseline": None, "offset": None},
    }
    rows = [
        {"id": name, "sensor": sensor, "time": time, "taken": taken, "reason": "taken" if taken else "cloudy"}
        | facts[sensor]
        for sensor, name, time, taken in moments
    ]
    columns = ["id", "sensor", "collection", "time", "baseline", "taken", "reason", "offset"]
    table = pd.DataFrame(rows, columns=columns)
    table["time"] = pd.to_datetime(table["time"], utc=True)
    return table.astype({"offset": "Int32", "taken": "bool"})


def parcels_table(layout: StoreLayout, samples: Sequence[dict[str, Any]]) -> gpd.GeoDataFrame:
    """The two parcels of every cell, in longitude and latitude; no row without labels."""
    columns = ["number", "country", "parcel_id", "code", "hcat3", *(f"tier{tier + 1}" for tier in range(TIERS))]
    rows = []
    for i, sample in enumerate(samples if stored_data(layout.attributes()).labels else []):
        west, south, east, north = Cell.parse(sample["cell"]).bounds
        middle = (south + north) // 2
        shapes = (shapely.box(west, middle, (west + east) // 2, north), shapely.box(west, south, east, middle))
        for part, (shape, tiers) in enumerate(zip(shapes, (NORTH_WEST, SOUTH), strict=True)):
            number = 2 * i + part + 1
            facts = [number, "be-vlg", str(number), "60", "3302000000", *tiers]
            rows.append({**dict(zip(columns, facts, strict=True)), "split": sample["split"], "geometry": shape})
    table = gpd.GeoDataFrame(rows, columns=[*columns, "split", "geometry"], crs=f"EPSG:{EPSG}")
    return table.to_crs("OGC:CRS84")


# A store with everything, built by the real builder: ten cells in three splits, two seasons, EnMAP scenes with clouds,
# months with and without clear days, parcels on both sides of a split's border, parcels nobody has a class for, ground
# nobody declared.

#: East end of the cells: ten columns of 240 m.
END = WEST + 2400
SEASONS = (2021, 2022)
#: With samples in all three.
SPLIT = {"square_size": 1000, "shares": {"train": 0.4, "val": 0.3, "test": 0.3}, "seed": 19}
#: French crop codes, one of which no table knows.
CROP_CODES = ("BTH", "MIS", "???", "PTR", "ORH")
CLOUD = 9


def clouds(columns: slice) -> NDArray[np.uint8]:
    """A scene classification (20 m) with clouds in some columns."""
    classes = np.full(((NORTH_EDGE - SOUTH_EDGE + 120) // 20, (END - WEST + 120) // 20), 4, np.uint8)
    classes[:, columns] = CLOUD
    return classes


def add_season(region: TinyRegion, season: int) -> None:
    """Scenes and parcels of a season."""
    wide: dict[str, Any] = {"east": END + 60}
    region.add_sentinel2(f"may{season}", f"{season}-05-02T10:50:00Z", 900, **wide)
    region.add_sentinel2(f"july{season}a", f"{season}-07-01T10:50:00Z", 1500, scl=clouds(slice(0, 40)), **wide)
    region.add_sentinel2(f"july{season}b", f"{season}-07-21T10:50:00Z", 2101, scl=clouds(slice(20, 60)), **wide)
    region.add_sentinel2(f"august{season}", f"{season}-08-01T10:50:00Z", 2500, scl=clouds(slice(0, 70)), **wide)
    cloud = np.zeros(((NORTH_EDGE - SOUTH_EDGE + 90) // 30, (END - WEST + 90) // 30), bool)
    cloud[10:14, ::7] = True
    region.add_enmap(1, f"{season}0724T104526", cloud=cloud, east=END + 45, datatake=season)
    if season == SEASONS[-1]:
        region.add_enmap(2, f"{season}0830T104526", value=3000, east=END + 45, datatake=season + 100)
    west = range(WEST, END - 150, 170)
    # Crops rotate: the year before is not the season.
    turn = SEASONS[-1] - season
    fields = [
        ((x, SOUTH_EDGE + 20, x + 150, SOUTH_EDGE + 180), CROP_CODES[(i + turn) % len(CROP_CODES)])
        for i, x in enumerate(west)
    ]
    region.write_parcels(season, [*fields, ((WEST + 100, SOUTH_EDGE + 190, END - 300, SOUTH_EDGE + 230), "BTH")])


def checked_region(folder: Path) -> Recipe:
    """Write the region's files; gives its recipe."""
    folder.mkdir(parents=True)
    region = TinyRegion(folder)
    for season in SEASONS:
        add_season(region, season)
    return region.recipe(
        area={"bbox": [WEST, SOUTH_EDGE, END, SOUTH_EDGE + 240]},
        seasons=list(SEASONS),
        split=SPLIT,
        store={"block_capacity": 4},
        enmap={"max_flagged_share": 1},
    )


def checked_store(folder: Path) -> Path:
    """The store of that region, below a folder; gives where it lies. Its plan names files that are to stay."""

    def make(made: Path) -> None:
        build_store(checked_region(made / "region"), made / "store", workers=1)

    return Path(shutil.copytree(made_once("checked", make) / "store", folder / "store"))
