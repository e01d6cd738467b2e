"""The builds that docs/scale.md simulates: what they consist of, and what must come out."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "docs")
        names = ("scale_engine", "scale_figures", "scale_cases", "scale_runs")
        yield {name: importlib.import_module(name) for name in names}


@pytest.fixture(scope="module")
def cases(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["scale_cases"]


@pytest.fixture(scope="module")
def measured(modules: dict[str, ModuleType]) -> dict[str, float]:
    return modules["scale_figures"].read_benchmarks()


@pytest.fixture(scope="module")
def piece(modules: dict[str, ModuleType]) -> Any:
    """A hundredth of France."""
    figures = modules["scale_figures"]
    return figures.Case(
        "piece",
        figures.FRANCE.samples / 100,
        figures.FRANCE.parcels / 100,
        figures.FRANCE.tiles / 100,
        figures.FRANCE_LATITUDE,
    )


def test_a_case_has_its_samples_blocks_and_readings(cases: ModuleType, piece: Any) -> None:
    layout = cases.lay_out(piece)
    cells = [cell for task, _ in layout.tasks for cell in task.ground.cells]
    assert len(layout.tasks) == piece.blocks
    assert len(cells) == len(set(cells)) == pytest.approx(piece.samples, abs=1)
    assert all(1 <= task.samples <= 16 for task, _ in layout.tasks)
    for task, needs in layout.tasks:
        sentinel2 = [reading for reading in needs if reading.source == "sentinel2"]
        # Twelve months of each unit that the block touches, and what is read gives parts of all its cells.
        assert set(Counter(reading.id.rsplit("-", 1)[0] for reading in sentinel2).values()) == {12}
        assert set(task.ground.cells) <= {cell for reading in sentinel2 for cell in reading.cells}
        (scene,) = (reading for reading in needs if reading.source == "enmap")
        assert set(task.ground.cells) <= set(scene.cells)
    assert len(layout.enmap) == pytest.approx(piece.samples / 146, rel=0.1)


def test_tasks_ask_in_all_for_what_the_figures_say(
    modules: dict[str, ModuleType], cases: ModuleType, piece: Any, measured: dict[str, float]
) -> None:
    figures = modules["scale_figures"]
    layout = cases.lay_out(piece)
    steps = cases.block_steps(piece)
    total: Counter[str] = Counter()
    for own in steps.values():
        for name, amount in own:
            total[name] += amount
    assert len(steps) == len(layout.tasks) + len(layout.sentinel2) + len(layout.enmap)
    requests = figures.tiles(piece) * measured["reading.requests_per_tile"]
    assert total["archive"] == pytest.approx(requests * figures.LATENCY)
    stored = sum(figures.stored_bytes(piece, measured).values())
    # Every part is written and read once: ten bands, clear looks and their day; EnMAP's bands.
    parts = 12 * 192 * 192 * 23 * piece.samples + 1.8e6 * piece.samples
    assert total["storage"] == pytest.approx(stored + 2 * parts, rel=0.15)
    # Beside computing, the worker waits for bytes, and for EnMAP's files.
    waits = figures.archive_bytes(piece, measured) / figures.BANDWIDTH + figures.enmap_files(piece) * figures.LATENCY
    assert total["core"] - waits == pytest.approx(figures.work(piece, measured), rel=0.4)


def test_one_worker_takes_the_sum_of_all(cases: ModuleType, piece: Any, measured: dict[str, float]) -> None:
    cluster = cases.Cluster(1, connections=1e9, scratch=1e15)
    went = cases.build(piece, cluster)
    each = {name: shared.each for name, shared in cluster.shared.items()} | {"core": 1.0}
    steps = cases.block_steps(piece)
    expected = sum(amount / each[name] for own in steps.values() for name, amount in own)
    assert went.blocks == pytest.approx(expected, rel=0.001)
    jobs, _ = cases.unit_jobs(piece)
    assert went.units == pytest.approx(
        sum(amount / each[name] for job in jobs for name, amount in job.steps), rel=0.001
    )
    assert went.limit == "workers"


def test_limits_are_kept_and_named(
    modules: dict[str, ModuleType],
    cases: ModuleType,
    piece: Any,
    measured: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = modules["scale_figures"]
    asked = figures.tiles(piece) * measured["reading.requests_per_tile"] * figures.LATENCY

    def blocks_alone(workers: int = 16, **cluster: float) -> Any:
        # Units of work, planning and sealing are those of all France.
        went = cases.build(piece, cases.Cluster(workers, **{"connections": 1e9, "scratch": 1e15, **cluster}))
        return replace(went, plan=0.0, units=0.0, seal=0.0)

    monkeypatch.setattr(cases, "unit_jobs", lambda case, bulk=1: ([], {}))
    roomy = blocks_alone()
    assert roomy.limit == "workers"
    few = blocks_alone(connections=2)
    assert few.blocks >= asked / 2
    assert few.limit == "archive"
    # Without room for the parts of more cells, readings of one block at a time are begun, whoever waits.
    tight = blocks_alone(64, scratch=1e6)
    assert tight.limit == "order"
    assert tight.blocks > 2 * blocks_alone(64).blocks
    assert blocks_alone(storage=1e7).limit == "storage"


def test_tasks_in_bulk_take_as_long(cases: ModuleType, piece: Any, measured: dict[str, float]) -> None:
    cluster = cases.Cluster(4, connections=24, scratch=1e15)
    one, bulk = cases.build(piece, cluster), cases.build(piece, cluster, bulk=2)
    assert bulk.seconds == pytest.approx(one.seconds, rel=0.05)


def test_recorded_tasks_by_hand(cases: ModuleType) -> None:
    # Units: 4 and 2 beside one another, then 3 that needs both. Readings take 1 and 2; block 7 needs the first and
    # takes 5, block 8 needs both and takes 1.
    costs = {
        "client_ms": 0,
        "units": [
            {"id": "a", "needs": [], "seconds": 4},
            {"id": "b", "needs": [], "seconds": 2},
            {"id": "c", "needs": ["a", "b"], "seconds": 3},
        ],
        "readings": [
            {"id": "r", "source": "sentinel2", "seconds": 1},
            {"id": "s", "source": "sentinel2", "seconds": 2},
        ],
        "blocks": [{"block": 7, "needs": ["r"], "seconds": 5}, {"block": 8, "needs": ["r", "s"], "seconds": 1}],
    }
    assert cases.seconds_of_recorded(costs, 1) == pytest.approx(9 + 9)
    # Two workers: 4 + 3; then both readings at once, block 7 from 1 to 6, block 8 from 2 to 3.
    assert cases.seconds_of_recorded(costs, 2) == pytest.approx(7 + 6)


def test_efficiency_and_where_it_falls(modules: dict[str, ModuleType]) -> None:
    runs = modules["scale_runs"]
    rows = [
        {"case": "x", "variant": "24", "workers": workers, "hours": hours}
        for workers, hours in ((1, 8), (4, 2), (16, 1))
    ]
    shares = runs.efficiency(rows, "x", "24")
    assert shares == {1: 1.0, 4: 1.0, 16: 0.5}
    assert runs.workers_down_to(shares, 0.5) == inf
    # Half of the way from 4 to 16, by logarithms.
    assert runs.workers_down_to(shares, 0.75) == pytest.approx(8)


@pytest.mark.slow
def test_what_the_page_tells_is_what_comes_out_now(modules: dict[str, ModuleType]) -> None:
    runs = modules["scale_runs"]
    kept = next(
        row for row in runs.read_runs() if (row["case"], row["variant"], row["workers"]) == ("France, a year", "24", 16)
    )
    again = runs.Run("France, a year", "24", 16).simulate()
    hours = {name: pytest.approx(kept[name], rel=0.01) for name in ("plan", "units", "blocks", "seal", "hours")}
    assert {name: again[name] for name in hours} == hours, "run `python docs/scale.py`"
    assert again["limit"] == kept["limit"]
