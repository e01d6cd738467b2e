"""The figures behind docs/scale.md, and what follows from them.

Each figure says where it comes from: measured by `make bench` (read from docs/benchmarks.md), measured by hand on the
same machine, taken from the code, given, or assumed. A worker is one core that computes and waits in turns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, cos, prod, radians, sqrt
from pathlib import Path
from typing import Any

from h2crop_data.catalog.search import PAGE_SIZE
from h2crop_data.constants import ARCHIVE_BYTES_A_SECOND, REQUEST_SECONDS, SENTINEL2_BANDS
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.grid import TILE_SIZE
from h2crop_data.pipeline.units import WORKERS as UNITS_AT_A_TIME
from h2crop_data.recipe.model import load_recipe
from h2crop_data.sources.formats import known_layout
from h2crop_data.sources.sentinel2.detectors import l2a_bands
from h2crop_data.sources.sentinel2.to_read import OPENING, TILES_OF_FILE
from h2crop_data.storage.s3 import PAGE

DOCS = Path(__file__).parent
BENCHMARKS = DOCS / "benchmarks.md"
RESULTS = DOCS.parent / "tests/benchmarks/results"

# The ground and what is on it.
PUBLISHED_SAMPLES, PUBLISHED_TRAINING, PUBLISHED_SEASONS = 16_344, 12_016, 2  # given
PUBLISHED_TILES, PUBLISHED_PARCELS = 24, 1_023_489  # given
FRANCE_KM2 = 544_000  # given: metropolitan France with Corsica
FRANCE_PARCELS = 9_800_000  # given: declared in a year
#: Given: EU27 without overseas 4.13, United Kingdom 0.244, Norway's mainland 0.324, Switzerland 0.041 million.
EUROPE_KM2 = 4_739_000
#: Assumed: parcels are as dense in Europe as in France; there is no uniform count.
EUROPE_PARCELS = round(FRANCE_PARCELS * EUROPE_KM2 / FRANCE_KM2)
FRANCE_LATITUDE, EUROPE_LATITUDE = 46.5, 52.0  # of the middle of the ground; Europe's is assumed
SQUARE_KM = 15.36  # a split square of the shipped recipe
TRAINING_SHARE = PUBLISHED_TRAINING / PUBLISHED_SAMPLES  # only training blocks keep histograms of reflectance

# Blocks. Measured by hand with the real lattice and block cutting (tests/unit/test_scale_plan.py counts again).
FILL_WHOLE = 0.92  # every cell of a square: 64 cells are four blocks, a few squares hold more and need five
FILL_SCENE = 0.70  # an EnMAP scene (30 km, tilted by 13 degrees) of whose cells 70 % are clear enough
CELLS_A_SCENE = 146  # what such a scene gives
BLOCK_PIXELS_30M = 100_000  # of the box around its blocks
#: Measured by hand with the real lattice (counted again): of the internal tiles of all granules over 200 x 200 km the
#: share that some cell is read from, at 10 m and 20 m. The others lie in a neighbour's home.
HOME_10M, HOME_20M = 0.958, 0.929

# Bytes. Shares of a stored sample by array group, measured by hand on the block of bench_store (tested).
STORED_SHARES = {
    "lz4": {"s2": 0.822, "enmap": 0.167, "labels": 0.011},
    "zstd": {"s2": 0.827, "enmap": 0.169, "labels": 0.004},
}
#: Measured by hand: bytes of index rows like real ones (random shares, 70 dates a sample, outlines of 16 points).
INDEX_SAMPLE, INDEX_BLOCK, INDEX_PARCEL, INDEX_SQUARE = 242, 414 + 341, 277, 1_572
ROOT_KB_A_SEASON = 20  # measured by hand: metadata documents of all arrays, the same for any number of samples
SUMS_BYTES = 1_000_000  # measured by hand: 0.73 to 0.96 MB for a training block of 3 to 9 samples, next to none else

# Scenes.
SWATH_KM, ORBITS, CYCLE_DAYS, SATELLITES = 290, 143, 10, 2  # given: Sentinel-2
TILE_KM, TILE_STEP_KM = 109.8, 100  # given: Sentinel-2's granules overlap
EQUATOR_KM = 40_075
EDGE_TILES = 1.5  # assumed: granules needed for a country, against its area / 100 km squared
KEPT_SCENES = 0.7  # assumed: share of granules with at most 90 % cloud
ARCHIVE_BYTES_A_PIXEL = 1.4  # measured by hand on a made COG; a cloudy granule in Copernicus' catalog tells 1.0
ARCHIVE_TILE = 1024  # assumed: pixels along a side of an internal tile of Earth Search's files
#: Internal tiles along a side of a granule.
TILES_10M, TILES_20M = ceil(10_980 / ARCHIVE_TILE), ceil(5_490 / ARCHIVE_TILE)
BANDS_10M = 4  # B02 B03 B04 B08; the others are 20 m. SCL compresses to almost nothing and is left out of bytes
ENMAP_BANDS, ENMAP_READS = 218, 9  # of the shipped recipe; image, metadata and quality layers of a scene
ENMAP_TRIED = 2  # assumed: scenes looked at for one that is taken
ENMAP_SWATH_KM, ENMAP_KM_A_DAY = 30, 5_000  # given: what the instrument can take in a day, the world over

# Time.
CONNECTIONS, PAGE_OF_SEARCH = 12, PAGE_SIZE  # assumed: connections of a worker; of the code: items of a page
LATENCY = REQUEST_SECONDS  # assumed (constants.py): until an answer begins
BANDWIDTH = ARCHIVE_BYTES_A_SECOND  # assumed (constants.py): bytes a second, here for one worker
SECONDS_A_SEARCH = 3.0  # assumed: one page of a catalog
SECONDS_A_PARCEL_READ = 60e-6  # measured by hand: reading and mending parcels square by square
SECONDS_A_PARCEL_SEALED = 15e-6  # measured by hand: parcels and prior loaded, the index written
SECONDS_A_SAMPLE_SEALED = 10 / 100_000  # measured by hand: bench_growth with rows like real ones
SECONDS_A_TRAINING_BLOCK = 0.033  # measured by hand: its sums read, decoded and added
WORKERS = (1, 4, 16, 64, 256)

# A cluster (docs/scale_cases.py simulates it).
#: Of the code: connections of all workers to one archive that a recipe asks for by default, and at most.
RECIPE_CONNECTIONS, MOST_CONNECTIONS = 24, 256
STORAGE, STORAGE_EACH = 1.25e9, 250e6  # assumed: bytes a second of shared storage, 10 Gbit/s; of one worker
SCRATCH = 200e9  # assumed: bytes of the scratch folder on that storage (`--scratch-gb 200`; the default is 20)
DASK_MS = 2.3  # measured by hand: of Dask's scheduler, over TCP, for a task
CLIENT_CORES = 16  # assumed: of the client's machine, which alone looks where images lie against parcels

# Memory of the builder, measured by hand: plan, build and seal 100,000 parcels more (and as many of the year before).
BYTES_A_PARCEL, BYTES_A_PARCEL_MORE = 6_500, 1_600  # the first season; each season that is already there
#: Measured by hand: a row of the samples' index with its provenance while it is sealed; an item as a catalog gives it.
BYTES_A_SAMPLE, BYTES_AN_ITEM = 12_000, 72_000
LARGEST_PUT = 5 * 2**30  # given: S3

# Prices of S3 in us-east-1, US dollars, as listed in 2025. Nothing is charged for reading the archives (open data).
PRICE_PUT, PRICE_GET, PRICE_GB_MONTH = 0.005 / 1000, 0.0004 / 1000, 0.023


@dataclass(frozen=True)
class Case:
    """Something to build: so many seasons of so many samples."""

    name: str
    #: Of one season, as are parcels.
    samples: float
    parcels: float
    #: Granules of Sentinel-2 that lie over the ground.
    tiles: float
    latitude: float
    seasons: int = 1
    #: Releases, one a season where they are built one after the other.
    releases: int = 1
    enmap: bool = True

    @property
    def layout(self) -> StoreLayout:
        """The layout of the shipped recipe, with or without EnMAP."""
        return known_layout(1920, 16, s2_bands=tuple(SENTINEL2_BANDS), enmap_bands=ENMAP_BANDS if self.enmap else 0)

    @property
    def blocks(self) -> int:
        """Blocks of one season."""
        return ceil(self.samples / (self.layout.capacity * self.fill))

    @property
    def fill(self) -> float:
        """Share of a block's slots that hold samples."""
        return FILL_SCENE if self.enmap else FILL_WHOLE


def cells(km2: float) -> float:
    """Cells of 1920 m on so much ground."""
    return km2 / 1.92**2


def granules(km2: float) -> float:
    """Granules of Sentinel-2 over so much ground."""
    return km2 / TILE_STEP_KM**2 * EDGE_TILES


FRANCE = Case("France, a year", cells(FRANCE_KM2), FRANCE_PARCELS, granules(FRANCE_KM2), FRANCE_LATITUDE)
EUROPE = Case("Europe, a year", cells(EUROPE_KM2), EUROPE_PARCELS, granules(EUROPE_KM2), EUROPE_LATITUDE)
CASES = (
    Case(
        "published again",
        PUBLISHED_SAMPLES / PUBLISHED_SEASONS,
        PUBLISHED_PARCELS / PUBLISHED_SEASONS,
        PUBLISHED_TILES,
        FRANCE_LATITUDE,
        seasons=PUBLISHED_SEASONS,
    ),
    replace(FRANCE, name="France, a year, no EnMAP", enmap=False),
    FRANCE,
    replace(FRANCE, name="France, 5 years", seasons=5, releases=5),
    replace(EUROPE, name="Europe, a year, no EnMAP", enmap=False),
    EUROPE,
)


def read_benchmarks(path: Path = BENCHMARKS) -> dict[str, float]:
    """The figures of docs/benchmarks.md by `section.figure`, and `cores` of the machine."""
    figures, section = {}, ""
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("## "):
            section = line[3:].strip()
        elif found := re.fullmatch(r"\| ([^|]+) \| (-?[\d.,]+(?:e[+-]?\d+)?) \|", line):
            figures[f"{section}.{found[1].strip()}"] = float(found[2].replace(",", ""))
    cores = re.search(r"Machine: (\d+) CPU cores", text)
    if cores is None:
        raise ValueError(f"{path} does not state the machine's cores; rewrite it with `make bench`")
    return {**figures, "cores": float(cores[1])}


# What a store holds


def raw_bytes(case: Case) -> dict[str, float]:
    """Bytes of all samples in memory by array group."""
    groups: dict[str, float] = {}
    for spec in case.layout.arrays().values():
        size = prod(spec.sample_shape) * spec.dtype.itemsize * case.samples * case.seasons
        groups[spec.group] = groups.get(spec.group, 0) + size
    return groups


def stored_bytes(case: Case, measured: dict[str, float], codec: str = "lz4") -> dict[str, float]:
    """Bytes of all shards by array group."""
    a_sample = measured[f"store.{codec}_mb"] * 1e6
    return {
        group: share * a_sample * case.samples * case.seasons
        for group, share in STORED_SHARES[codec].items()
        if case.enmap or group != "enmap"
    }


def objects(case: Case) -> dict[str, int]:
    """Files of the finished store by kind; the lock is left out."""
    layout, blocks = case.layout, case.blocks
    slots = blocks * layout.capacity
    coordinates = layout.coordinates(2022)
    chunks = sum(ceil(slots / one.chunk) if one.dims[0] == "sample" and one.chunk else 1 for one in coordinates)
    documents = 1 + len(layout.arrays()) + len(coordinates)
    # Of each season samples, parcels, blocks, scenes, squares, recipe, sources and manifest, which later releases name
    # as they are; of each release statistics, classes, datasheet, manifest and root.
    index = 8 * case.seasons + 5 * case.releases
    return {
        "shards": len(layout.arrays()) * blocks * case.seasons,
        # Of each block, and of each season as it was sealed.
        "markers and sums": 2 * (blocks + 1) * case.seasons,
        "coordinates and documents": (chunks + documents) * case.seasons + 2,
        "index": index,
        "plans": plan_files(case) * case.seasons,
    }


def plan_files(case: Case) -> int:
    """Files of the plan of a season: tables, items of each sensor, what EnMAP's units found, plan.json."""
    return 9 + 2 * case.enmap


def index_bytes(case: Case) -> dict[str, float]:
    """Bytes of the newest release's index by table."""
    return {
        "parcels": case.seasons * case.parcels * INDEX_PARCEL,
        "samples": case.seasons * case.samples * INDEX_SAMPLE,
        "blocks": case.seasons * case.blocks * INDEX_BLOCK,
        "squares": case.samples * 1.92**2 / SQUARE_KM**2 * INDEX_SQUARE,
    }


# Requests


def compared_files(case: Case) -> int:
    """Files that seals compare with the manifest of the release before, by size and content: all but its shards.

    Each release adds a season or the same number of them.
    """
    a_season = (objects(case)["coordinates and documents"] - 2) // case.seasons + 7
    known = (case.seasons * release // case.releases for release in range(1, case.releases))
    # Of no season: statistics, classes, the datasheet twice.
    return sum(a_season * seasons + 4 for seasons in known)


def writing_requests(case: Case) -> tuple[int, int]:
    """PUT with LIST, and GET with HEAD, to build and seal (docs/object-stores.md); the lease is left out."""
    held = objects(case)
    blocks = case.blocks * case.seasons
    # Written when a season is sealed: coordinates, documents, index; in every release root, datasheet and the record of
    # the sealing.
    a_season = (held["coordinates and documents"] - 2) // case.seasons
    replaced = a_season * case.seasons + 3 * case.releases + held["index"] + held["plans"] + 2 * case.seasons
    puts = held["shards"] + 2 * blocks + replaced
    # Sealing looks which releases there are, and which markers.
    lists = ceil(2 * blocks / PAGE) + case.releases
    # Each block is looked for before it is built, and gives marker and sums when its season is sealed; so do plans,
    # kept and sealed.
    gets = 3 * blocks + replaced + held["plans"] + plan_files(case) * case.seasons
    gets += 2 * compared_files(case)
    # What the release before keeps out, by its blocks and scenes: before planning, and before sealing.
    gets += 4 * (case.releases - 1)
    return puts + lists, gets


def epoch_requests(case: Case) -> int:
    """GETs to read all training arrays once in random order: the chunks of a sample, and the index of each shard."""
    arrays = [spec for name, spec in case.layout.arrays().items() if name in ("enmap", "s2", "label", "prior")]
    return round(case.samples * case.seasons * sum(1 + spec.chunks_per_sample for spec in arrays))


# What is read


def looks(latitude: float) -> float:
    """Days a year on which Sentinel-2 sees a place: its swaths overlap more towards the poles."""
    between = EQUATOR_KM * cos(radians(latitude)) / ORBITS
    return SWATH_KM / between * 365 / CYCLE_DAYS * SATELLITES


def items(case: Case) -> float:
    """Sentinel-2 items a catalog lists: a granule is touched by more swaths than a place in it."""
    return case.tiles * case.seasons * looks(case.latitude) * (SWATH_KM + TILE_KM) / SWATH_KM


def mask_hours(case: Case, network: bool) -> float:
    """Core hours for the cloud masks of a year: every look over every processing tile, with or without a network."""
    measured = measured_by("clouds")["cost"]
    seconds = measured["other_steps_s"] + (measured["forward_s"] if network else 0)
    return processing_tiles(case) * looks(case.latitude) * seconds / 3600


def shift_hours(case: Case) -> float:
    """Core hours for the shifts of the dates of a year."""
    return processing_tiles(case) * looks(case.latitude) * measured_by("alignment")["cpu_s_a_date"] / 3600


def frame_hours(case: Case) -> float:
    """Core hours for matching the images of a year with parcels."""
    return processing_tiles(case) * measured_by("frame")["cpu_s"] / 3600


def measured_by(benchmark: str) -> Any:
    """The figures of a benchmark whose result is written down."""
    return json.loads((RESULTS / f"{benchmark}.json").read_text(encoding="utf-8"))


def processing_tiles(case: Case) -> float:
    """The processing tiles of the ground."""
    km2 = FRANCE_KM2 if case.latitude == FRANCE_LATITUDE else EUROPE_KM2
    return km2 / (TILE_SIZE / 1000) ** 2


def scenes(case: Case) -> float:
    """Sentinel-2 items over one block: looks, in all granules that overlap there, without the cloudy ones."""
    block_km = 1.92 * sqrt(case.layout.capacity)
    return looks(case.latitude) * ((TILE_KM + block_km) / TILE_STEP_KM) ** 2 * KEPT_SCENES


def touched(case: Case) -> float:
    """The share of the granules' ground whose tiles some cell touches.

    Assumed: cells fill EnMAP scenes of 30 km, around which tiles of 10.24 km reach beyond.
    """
    around = ((ENMAP_SWATH_KM + ARCHIVE_TILE / 100) / ENMAP_SWATH_KM) ** 2
    return min(1.0, case.samples * 1.92**2 * around / (case.tiles * TILE_KM**2))


def tiles(case: Case) -> float:
    """Internal tiles of home granules in all seasons, those of the scene classification too."""
    coarse = (len(SENTINEL2_BANDS) - BANDS_10M + 1) * TILES_20M**2 * HOME_20M
    return items(case) * KEPT_SCENES * touched(case) * (BANDS_10M * TILES_10M**2 * HOME_10M + coarse)


def asked_of_masks(case: Case) -> float:
    """Requests for masks and shifts of all tiles: each file of a date that is not too cloudy is opened, and read."""
    sentinel2 = load_recipe("h2crop-france.yaml").sentinel2
    assert sentinel2 is not None, "the shipped recipe has Sentinel-2"
    files = 1 + len(l2a_bands(sentinel2))
    return processing_tiles(case) * looks(case.latitude) * KEPT_SCENES * files * (OPENING + TILES_OF_FILE)


def asked_of_archive(case: Case, measured: dict[str, float]) -> float:
    """Requests for masks, shifts and composites of a season."""
    return asked_of_masks(case) + tiles(case) / case.seasons * measured["reading.requests_per_tile"]


def enmap_files(case: Case) -> float:
    """EnMAP files opened for all blocks."""
    return case.blocks * case.seasons * ENMAP_READS * case.enmap


def enmap_scenes(case: Case) -> float:
    """EnMAP scenes that give the samples."""
    return case.samples * case.seasons / CELLS_A_SCENE if case.enmap else 0


def archive_bytes(case: Case, measured: dict[str, float]) -> float:
    """Bytes that come from the archives for all blocks."""
    return sentinel2_bytes(case) + enmap_archive_bytes(case, measured)


def sentinel2_bytes(case: Case) -> float:
    """The same of Sentinel-2."""
    return home_bytes(case, HOME_10M, HOME_20M) * touched(case)


def enmap_archive_bytes(case: Case, measured: Mapping[str, float]) -> float:
    """The same of EnMAP."""
    # As compressible as in a store; twice the block's ground, as tiles reach beyond it.
    ratio = STORED_SHARES["lz4"]["enmap"] * measured["store.lz4_mb"] * 1e6 / (ENMAP_BANDS * 64 * 64 * 2)
    return case.enmap * case.blocks * case.seasons * 2 * BLOCK_PIXELS_30M * ENMAP_BANDS * 2 * ratio


def granule_bytes(case: Case) -> float:
    """Bytes of all kept granules, were each read whole and once."""
    return home_bytes(case, 1, 1)


def home_bytes(case: Case, of_10m: float, of_20m: float) -> float:
    """Bytes of such shares of the kept granules, read once."""
    pixels_10m = (TILE_KM * 100) ** 2
    bands = BANDS_10M * of_10m + (len(SENTINEL2_BANDS) - BANDS_10M) / 4 * of_20m
    return items(case) * KEPT_SCENES * pixels_10m * bands * ARCHIVE_BYTES_A_PIXEL


# Time


def work(case: Case, measured: dict[str, float]) -> float:
    """Seconds one core computes for all blocks. Readings are once for all samples of a cell."""
    a_sample = 60 * measured["cores"] / measured["build.samples_per_minute_threads"]
    a_block = a_sample * measured["build.samples"] / measured["build.blocks"]

    def share(*steps: str) -> float:
        return sum(measured[f"build.share.{step}"] for step in steps)

    samples = case.samples / case.blocks
    steps = share("rasterize parcels", "statistics", "hash", "compress and write", "scratch", "assemble Sentinel-2")
    reading = tiles(case) * measured["reading.cpu_seconds.now"] / measured["reading.needed_tiles"]
    of_block = samples * a_sample * (steps + share("resample EnMAP") * case.enmap) + a_block * share("read EnMAP") * (
        case.enmap
    )
    return reading + of_block * case.blocks * case.seasons


def waiting(case: Case, measured: dict[str, float], latency: float = LATENCY, bandwidth: float = BANDWIDTH) -> float:
    """Seconds one worker waits for the archives for all blocks: Sentinel-2 by some connections, EnMAP one by one."""
    asked = tiles(case) * measured["reading.requests_per_tile"] / CONNECTIONS + enmap_files(case)
    return asked * latency + archive_bytes(case, measured) / bandwidth


def building_hours(case: Case, workers: int, measured: dict[str, float], **network: float) -> float:
    """Hours until all blocks of all seasons are built."""
    return (work(case, measured) + waiting(case, measured, **network)) / workers / 3600


def planning_hours(case: Case) -> float:
    """Hours of searching, looking at EnMAP's quality layers some scenes at a time, and reading parcels."""
    searching = items(case) / PAGE_OF_SEARCH * SECONDS_A_SEARCH
    looking = enmap_scenes(case) * ENMAP_TRIED * ENMAP_READS * LATENCY / UNITS_AT_A_TIME
    reading = case.seasons * 2 * case.parcels * SECONDS_A_PARCEL_READ
    return (searching + looking + reading) / 3600


def sealing_hours(case: Case) -> float:
    """Hours of sealing the newest release."""
    a_season = (
        case.blocks * TRAINING_SHARE * SECONDS_A_TRAINING_BLOCK
        + case.samples * SECONDS_A_SAMPLE_SEALED
        + case.parcels * SECONDS_A_PARCEL_SEALED
    )
    return case.seasons * a_season / 3600


def memory(case: Case) -> float:
    """Bytes the builder needs for its tables when the last season is built and sealed, workers aside."""
    parcels = case.parcels * (BYTES_A_PARCEL + (case.seasons - 1) * BYTES_A_PARCEL_MORE)
    return parcels + case.samples * case.seasons * BYTES_A_SAMPLE + items(case) / case.releases * BYTES_AN_ITEM


def client_ms(measured: Mapping[str, float], recorded: float) -> float:
    """Milliseconds of the client a task: what was recorded, and what a task costs on Dask."""
    return recorded + max(0.0, measured.get("flows.dask_overhead_ms_per_block", DASK_MS))


def epoch_hours(case: Case, measured: dict[str, float]) -> float:
    """Core hours to read and decode all training arrays once from files in memory."""
    return case.samples * case.seasons / measured["reader.samples_per_s"] / 3600
