"""The tasks of a build of a case of docs/scale.md, and what the simulated engine makes of them.

A case is laid out on a plane: cells, split squares, blocks, units of granules, EnMAP scenes. The schedule is the
package's own (`pipeline/schedule.py`). How much a task asks for follows from scale_figures.py; how it varies from task
to task, and what blocks, EnMAP readings and matches cost, was recorded by tests/benchmarks/build_costs.py.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from math import ceil, floor, sqrt
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import scale_figures as figures
from scale_engine import CORE, Job, Phase, Shared, simulate
from scale_figures import Case

from h2crop_data.pipeline.block import BlockTask
from h2crop_data.pipeline.schedule import Schedule, WaitingParts
from h2crop_data.settings import SCRATCH_BYTES
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.scratch import Scratch
from h2crop_data.sources.source import BlockGround

SEASON, MONTHS, SEED = 2022, 12, 0
SIDE_OF_SQUARE = 8  # cells of 1920 m along a split square of 15.36 km
#: Side of a unit of a home granule: six of 2048 pixels along a granule's step of 100 km, the outer ones cut.
UNIT_KM = figures.TILE_STEP_KM / 6
#: Bytes of a cell's parts for a month: ten bands of 16 bits, clear looks, their median day.
BYTES_OF_PART = 192 * 192 * 23
BYTES_OF_ENMAP = 218 * 64 * 64 * 2  # of a cell's bands
#: Cells of a square in the order in which blocks take them: quarters of 4 x 4.
IN_SQUARE = sorted(product(range(SIDE_OF_SQUARE), repeat=2), key=lambda at: (at[0] // 4, at[1] // 4, at))


class Cell(NamedTuple):
    """A cell of the plane, which the schedule only compares; quicker to find than a cell of the grid."""

    column: int
    row: int


@dataclass(frozen=True)
class Cluster:
    """What a build runs on."""

    workers: int
    #: Connections to the archive of Sentinel-2, of all workers together (`sentinel2.connections`).
    connections: float = figures.RECIPE_CONNECTIONS
    #: Bytes a second of the storage that all workers share, for the store and the scratch folder.
    storage: float = figures.STORAGE
    #: Bytes of the scratch folder (`--scratch-gb`).
    scratch: float = figures.SCRATCH

    @property
    def shared(self) -> dict[str, Shared]:
        """What tasks ask for."""
        return {
            "archive": Shared(min(figures.CONNECTIONS, self.connections), self.connections),
            "storage": Shared(figures.STORAGE_EACH, self.storage),
        }


@dataclass(frozen=True)
class Build:
    """How a simulated build went: seconds by part, and what limited it."""

    workers: int
    plan: float
    units: float
    blocks: float
    seal: float
    #: Seconds in which all of something was in use; `alone`: of one task of the client after the other.
    full: Mapping[str, float]
    #: Seconds of workers without a task while units, readings and blocks were at work.
    idle: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.plan + self.units + self.blocks + self.seal

    @property
    def limit(self) -> str:
        """What took most of the time: of the workers what is left when nothing else was used up."""
        shares = {**self.full, "plan and seal": self.plan + self.seal, "order": self.idle / self.workers}
        return max({**shares, "workers": self.seconds - sum(shares.values())}.items(), key=lambda one: one[1])[0]


class NoScratch(Scratch):
    """A scratch folder that holds nothing."""

    def of_season(self, season: int) -> NoScratch:
        """Itself."""
        return self

    def has(self, cells: Sequence[Any], reading: str) -> bool:
        """Nothing."""
        return False

    def forget(self, cell: Any) -> None:
        """Nothing is there."""


class UnitOrder(Iterator[Job | None]):
    """Units of work, each when those that it needs are done."""

    def __init__(self, jobs: Sequence[Job], needs: Mapping[object, Sequence[object]]) -> None:
        """needs: key of a job -> keys of others."""
        self._missing = {job.key: set(needs.get(job.key, ())) for job in jobs}
        self._waiting: dict[object, list[Job]] = defaultdict(list)
        self._ready: deque[Job] = deque()
        self._left = len(jobs)
        for job in jobs:
            for need in self._missing[job.key]:
                self._waiting[need].append(job)
            if not self._missing[job.key]:
                self._ready.append(job)

    def __next__(self) -> Job | None:
        if not self._ready:
            if self._left:
                return None
            raise StopIteration
        self._left -= 1
        return self._ready.popleft()

    def note(self, job: Job) -> None:
        """One is done."""
        for waiting in self._waiting.pop(job.key, []):
            self._missing[waiting.key].discard(job.key)
            if not self._missing[waiting.key]:
                self._ready.append(waiting)


class BlockOrder(Iterator[Job | None]):
    """Readings and blocks in the order of the package's own schedule."""

    def __init__(
        self,
        tasks: Sequence[tuple[BlockTask, tuple[Reading, ...]]],
        steps: Mapping[object, tuple[tuple[str, float], ...]],
        scratch: float,
    ) -> None:
        """steps: what the block of a number, and the reading of an id, ask for."""
        uses = Counter((SEASON, cell) for task, _ in tasks for cell in task.ground.cells)
        parts = WaitingParts(uses)
        self._schedule, self._steps = Schedule(iter(tasks), parts, NoScratch(Path()), int(scratch)), steps

    def __next__(self) -> Job | None:
        task = next(self._schedule)
        if task is None:
            return None
        if isinstance(task, Reading):
            return Job("reading", self._steps[task.id], task)
        return Job("block", self._steps[task.block], task)

    def note(self, job: Job) -> None:
        """One is done."""
        if isinstance(job.key, Reading):
            self._schedule.note_reading(job.key)
        elif isinstance(job.key, BlockTask):
            self._schedule.note_block(job.key, built=True)


@cache
def measured_figures() -> dict[str, float]:
    """The figures of docs/benchmarks.md."""
    return figures.read_benchmarks()


@cache
def read_costs() -> dict[str, Any]:
    """What tests/benchmarks/build_costs.py recorded."""
    return dict(json.loads((figures.RESULTS / "build-costs.json").read_text(encoding="utf-8")))


def block_task(case: Case, number: int, cells: tuple[Cell, ...]) -> BlockTask:
    """A block as the schedule knows it."""
    return BlockTask(number, BlockGround(SEASON, "train", cast(Any, cells), 1920), case.layout, {}, {}, {})


@dataclass(frozen=True)
class Layout:
    """Where a case lies: its blocks with the readings that they need, in the order of the ground."""

    tasks: list[tuple[BlockTask, tuple[Reading, ...]]]
    sentinel2: list[Reading]
    enmap: list[Reading]


@cache
def lay_out(case: Case) -> Layout:
    """A season of a case on a square."""
    side = ceil(sqrt(case.samples))
    squares = ceil(side / SIDE_OF_SQUARE)
    cells_of_unit: dict[tuple[int, int], list[Cell]] = defaultdict(list)
    blocks: list[tuple[Cell, ...]] = []
    taken = 0
    for column, row in product(range(squares), repeat=2):
        cells = [Cell(column * SIDE_OF_SQUARE + x, row * SIDE_OF_SQUARE + y) for x, y in IN_SQUARE]
        cells = cells[: max(0, ceil(case.samples) - taken)]
        wanted = floor((taken + len(cells)) * case.blocks / case.samples + 1e-9) - len(blocks)
        bounds = np.linspace(0, len(cells), max(1, wanted) + 1).round().astype(int).tolist()
        blocks += [tuple(cells[start:end]) for start, end in pairwise(bounds) if end > start]
        taken += len(cells)
        for cell in cells:
            for unit in units_of(cell):
                cells_of_unit[unit].append(cell)
    readings: dict[tuple[int, int], tuple[Reading, ...]] = {}
    for unit, of_unit in cells_of_unit.items():
        size = BYTES_OF_PART * len(of_unit)
        readings[unit] = tuple(
            Reading("sentinel2", f"{unit[0]}-{unit[1]}-{month}", SEASON, cast(Any, tuple(of_unit)), size, None)
            for month in range(MONTHS)
        )
    scenes: dict[int, list[Cell]] = defaultdict(list)
    a_scene = round(figures.CELLS_A_SCENE / case.samples * case.blocks) if case.enmap else 0
    for number, block in enumerate(blocks):
        if a_scene:
            scenes[number // a_scene] += block
    enmap = {
        scene: Reading(
            "enmap", f"scene-{scene}", SEASON, cast(Any, tuple(cells)), len(cells) * 1_800_000, None, str(scene)
        )
        for scene, cells in scenes.items()
    }
    tasks = []
    for number, block in enumerate(blocks):
        units = sorted({unit for cell in block for unit in units_of(cell)})
        of_scene = [enmap[number // a_scene]] if a_scene else []
        needs = (*(reading for unit in units for reading in readings[unit]), *of_scene)
        tasks.append((block_task(case, number, block), needs))
    return Layout(tasks, [reading for of_unit in readings.values() for reading in of_unit], list(enmap.values()))


def units_of(cell: Cell) -> set[tuple[int, int]]:
    """The units of granules that a cell lies in."""
    west, south = (1.92 * place / UNIT_KM for place in (cell.column, cell.row))
    east, north = west + 1.92 / UNIT_KM - 1e-9, south + 1.92 / UNIT_KM - 1e-9
    return {(floor(x), floor(y)) for x in (west, east) for y in (south, north)}


def spread(costs: Sequence[float], count: int, rng: np.random.Generator) -> list[float]:
    """So many costs drawn from recorded ones, as factors on their mean."""
    recorded = np.array(costs)
    drawn = rng.choice(recorded / recorded.mean(), count)
    return (drawn / drawn.mean()).tolist() if count else []


@cache
def block_steps(case: Case, bulk: int = 1) -> dict[object, tuple[tuple[str, float], ...]]:
    """What each reading and each block asks for: connection seconds, bytes of storage, seconds of its worker.

    bulk: so many are one.
    """
    rng, costs = np.random.default_rng(SEED), read_costs()
    layout, measured = lay_out(case), measured_figures()
    count = len(layout.sentinel2)
    tiles = figures.tiles(case) / case.seasons / count
    waiting = tiles * measured["reading.requests_per_tile"] * figures.LATENCY
    computing = tiles * measured["reading.cpu_seconds.now"] / measured["reading.needed_tiles"]
    coming = figures.sentinel2_bytes(case) / case.seasons / count / figures.BANDWIDTH
    recorded = [one["cpu"] for one in costs["readings"] if one["source"] == "sentinel2" and one["tiles"]]
    steps: dict[object, tuple[tuple[str, float], ...]] = {}
    for reading, factor in zip(layout.sentinel2, spread(recorded, count, rng), strict=True):
        own = (("archive", waiting * factor), (CORE, (coming + computing) * factor), ("storage", float(reading.bytes)))
        steps[reading.id] = own
    of_enmap = [one["cpu"] / one["cells"] for one in costs["readings"] if one["source"] == "enmap"]
    if layout.enmap:
        files = figures.enmap_files(case) / case.seasons / len(layout.enmap)
        size = figures.enmap_archive_bytes(case, measured) / case.seasons / len(layout.enmap)
        waits = files * figures.LATENCY + size / figures.BANDWIDTH
        for reading, cost in zip(layout.enmap, rng.choice(of_enmap, len(layout.enmap)).tolist(), strict=True):
            steps[reading.id] = ((CORE, waits + cost * len(reading.cells)), ("storage", float(reading.bytes)))
    a_sample = [one["cpu"] / one["samples"] for one in costs["blocks"]]
    stored = sum(figures.stored_bytes(case, dict(measured)).values()) / case.samples / case.seasons
    parts = BYTES_OF_PART * MONTHS + BYTES_OF_ENMAP * case.enmap
    for (task, _), cost in zip(layout.tasks, rng.choice(a_sample, len(layout.tasks)).tolist(), strict=True):
        size = task.samples * (parts + stored)
        steps[task.block] = (("storage", size), (CORE, cost * task.samples))
    return {key: tuple((name, bulk * amount) for name, amount in own) for key, own in steps.items()}


def unit_jobs(case: Case, bulk: int = 1) -> tuple[list[Job], dict[object, list[object]]]:
    """The units of work of a season: masks and shifts of tiles; where EnMAP is matched, what that needs.

    bulk: so many are one.
    """
    rng, costs = np.random.default_rng(SEED), read_costs()["units"]
    tiles = ceil(figures.processing_tiles(case) / bulk)
    asked = figures.asked_of_masks(case) / tiles * figures.LATENCY
    computing = (figures.mask_hours(case, False) + figures.shift_hours(case)) * 3600 * figures.KEPT_SCENES / tiles
    recorded = [one["cpu"] for one in costs if one["step"] == "sentinel2 masks"]
    jobs = [
        Job("masks", (("archive", asked * factor), (CORE, computing * factor)), ("masks", number))
        for number, factor in enumerate(spread(recorded, tiles, rng))
    ]
    needs: dict[object, list[object]] = {}
    if case.enmap:
        scenes = round(figures.enmap_scenes(case) / case.seasons / bulk)
        own = Counter[str]()
        for one in costs:
            own[one["step"]] += 0 if one["step"] in ("sentinel2 masks", "sentinel2 grid") else one["cpu"]
        recorded_scenes = max(1, sum(one["step"] == "enmap match" for one in costs))
        a_scene = own.total() / recorded_scenes
        for scene in range(scenes):
            key = ("scene", scene)
            first = scene * tiles // scenes
            needs[key] = [("masks", min(first + more, tiles - 1)) for more in range(4)]
            jobs.append(Job("match", ((CORE, a_scene * bulk),), key))
    return jobs, needs


def build(case: Case, cluster: Cluster, bulk: int = 1) -> Build:
    """Simulate the build of a season of a case. bulk: so many tasks are simulated as one that asks for as much."""
    one = replace(case, seasons=1, releases=1)
    overhead = bulk * figures.client_ms(measured_figures(), read_costs()["client_ms"]) / 1000
    order = UnitOrder(*unit_jobs(one, bulk))
    units = simulate(order, order.note, cluster.workers, cluster.shared, overhead)
    piece = replace(one, samples=one.samples / bulk, parcels=one.parcels / bulk, tiles=one.tiles / bulk)
    # Parts of cells wait along the side of the ground that is built, which is shorter for a piece of it.
    blocks_order = BlockOrder(lay_out(piece).tasks, block_steps(piece, bulk), cluster.scratch / sqrt(bulk))
    blocks = simulate(blocks_order, blocks_order.note, cluster.workers, cluster.shared, overhead)
    frames = figures.frame_hours(one) / min(cluster.workers, figures.CLIENT_CORES)
    phases = (units, blocks)
    return Build(
        workers=cluster.workers,
        plan=figures.planning_hours(one) * 3600,
        units=units.seconds,
        blocks=blocks.seconds,
        seal=(figures.sealing_hours(one) + frames) * 3600,
        full={name: sum(phase.full[name] for phase in phases) for name in units.full},
        idle=sum(cluster.workers * phase.seconds - phase.occupied for phase in phases),
    )


def seconds_of_recorded(costs: Mapping[str, Any], workers: int) -> float:
    """Seconds that recorded tasks take: units, then readings and blocks."""
    jobs = [Job("unit", ((CORE, one["seconds"]),), one["id"]) for one in costs["units"]]
    known = {job.key for job in jobs}
    order = UnitOrder(jobs, {one["id"]: [need for need in one["needs"] if need in known] for one in costs["units"]})
    overhead = costs["client_ms"] / 1000
    units = simulate(order, order.note, workers, {})
    cells = {one["block"]: (Cell(one["block"], 0),) for one in costs["blocks"]}
    of_reading = {need: cells[one["block"]] for one in costs["blocks"] for need in one["needs"]}
    readings = {
        one["id"]: Reading(one["source"], one["id"], SEASON, cast(Any, of_reading[one["id"]]), 0, None)
        for one in costs["readings"]
    }
    tasks = [
        (
            block_task(figures.FRANCE, one["block"], cells[one["block"]]),
            tuple(readings[need] for need in one["needs"] if need in readings),
        )
        for one in costs["blocks"]
    ]
    steps = {one["id"]: ((CORE, one["seconds"]),) for one in costs["readings"]}
    of_blocks = {one["block"]: ((CORE, one["seconds"]),) for one in costs["blocks"]}
    blocks_order = BlockOrder(tasks, {**steps, **of_blocks}, SCRATCH_BYTES)
    blocks: Phase = simulate(blocks_order, blocks_order.note, workers, {}, overhead)
    return units.seconds + blocks.seconds
