"""How long a plan takes on some workers: what is spread, what is not, what archives allow, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pystac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from script_modules import script_module
from tiny_region import TinyRegion
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.constants import ARCHIVE_BYTES_A_SECOND, REQUEST_SECONDS
from h2crop_data.flows.contents import estimated_for, plan_rows
from h2crop_data.grid import tiles_of
from h2crop_data.pipeline.engine import Workers
from h2crop_data.pipeline.estimate import Prices, estimate
from h2crop_data.pipeline.plan import SeasonPlan, save_plan
from h2crop_data.pipeline.planning import PlannedBlocks, make_plan
from h2crop_data.recipe.model import Clouds, L1cSource
from h2crop_data.sources.enmap.masks import own_mask_unit
from h2crop_data.sources.enmap.source import Enmap
from h2crop_data.sources.enmap.work import cells_work
from h2crop_data.sources.readings import ToRead
from h2crop_data.sources.sentinel2.tile_unit import tile_tasks
from h2crop_data.sources.sentinel2.work import tile_mask_work
from h2crop_data.sources.source import PlannedBlock, Source
from h2crop_data.sources.work import ArchiveLine, Work, WorkStep, spread_over

#: A tenth of a second until an answer, and bytes that cost no time.
LINE = ArchiveLine(0.1, 1e12)
SECONDS = st.floats(0, 1e4)
TASKS = st.lists(
    st.builds(
        Work,
        cpu=SECONDS,
        remote_bytes=st.integers(0, 10**9),
        requests=st.integers(0, 10_000),
        at_once=st.integers(1, 64),
        connections=st.integers(1, 64),
        overlaps=st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


class TestTask:
    def test_requests_go_as_many_at_a_time_as_the_task_has_under_way(self) -> None:
        one = Work(requests=60)
        assert one.alone(LINE) == pytest.approx(6.0)
        assert replace(one, at_once=6, connections=6).alone(LINE) == pytest.approx(1.0)

    def test_an_archive_may_allow_fewer(self) -> None:
        assert Work(requests=60, at_once=6, connections=2).alone(LINE) == pytest.approx(3.0)

    def test_it_computes_after_it_waited_or_meanwhile(self) -> None:
        one = Work(cpu=2, requests=30)
        assert one.alone(LINE) == pytest.approx(5.0)
        assert replace(one, overlaps=True).alone(LINE) == pytest.approx(3.0)

    def test_bytes_take_as_long_as_the_line_needs(self) -> None:
        one = Work(cpu=1, bytes=10_000_000, remote_bytes=10_000_000)
        assert one.alone(ArchiveLine(0.1, 5e6)) == pytest.approx(3.0)
        assert replace(one, remote_bytes=0).alone(ArchiveLine(0.1, 5e6)) == pytest.approx(1.0)


class TestStep:
    def test_tasks_are_spread_over_workers(self) -> None:
        step = WorkStep.of("masks", [Work(cpu=1)] * 8)
        assert [step.seconds(workers, LINE) for workers in (1, 2, 3, 8, 100)] == [8, 4, 3, 1, 1]

    def test_one_task_is_one_workers(self) -> None:
        step = WorkStep.of("masks", [Work(cpu=1), Work(cpu=1), Work(cpu=10)])
        assert step.seconds(16, LINE) == 10

    def test_more_workers_are_not_answered_faster_than_connections_allow(self) -> None:
        tasks = [Work(requests=100, at_once=6, connections=6)] * 12
        step = WorkStep.of("read", tasks)
        # One worker has all six under way already.
        assert step.seconds(1, LINE) == pytest.approx(12 * 100 / 6 * 0.1)
        assert step.seconds(12, LINE) == pytest.approx(step.seconds(1, LINE))
        # Who reads file by file gains from workers, until they have all connections.
        alone = WorkStep.of("read", [replace(task, at_once=1) for task in tasks])
        assert alone.seconds(1, LINE) == pytest.approx(120.0)
        assert alone.seconds(3, LINE) == pytest.approx(40.0)
        assert alone.seconds(12, LINE) == pytest.approx(20.0)

    def test_all_workers_share_the_line(self) -> None:
        step = WorkStep.of("read", [Work(remote_bytes=10_000_000)] * 4)
        assert step.seconds(4, ArchiveLine(0, 1e6)) == pytest.approx(40.0)

    @given(TASKS)
    def test_more_workers_are_never_slower(self, tasks: list[Work]) -> None:
        seconds = [WorkStep.of("any", tasks).seconds(workers, LINE) for workers in range(1, 15)]
        assert all(more <= fewer * (1 + 1e-9) for fewer, more in pairwise(seconds))

    @pytest.mark.slow
    @given(TASKS, st.integers(1, 14))
    def test_no_faster_than_any_bound_and_no_slower_than_one_after_the_other(
        self, tasks: list[Work], workers: int
    ) -> None:
        step = WorkStep.of("any", tasks)
        found, alone = step.seconds(workers, LINE), [task.alone(LINE) for task in tasks]
        answers = sum(task.requests / task.connections for task in tasks) * LINE.request_seconds
        for bound in (max(alone), sum(alone) / workers, step.cpu / workers, answers):
            assert found >= bound * (1 - 1e-9)
        assert found <= max(sum(alone), answers) * (1 + 1e-9)

    @given(st.lists(SECONDS, max_size=12), st.integers(1, 5))
    def test_each_worker_takes_the_next_task_when_it_is_free(self, seconds: list[float], workers: int) -> None:
        ends = [0.0] * workers
        for task in seconds:
            first = ends.index(min(ends))
            ends[first] += task
        assert spread_over(workers, seconds) == pytest.approx(max(ends))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SeasonPlan:
    """A plan of two dates and a scene, with masks, shifts and a match."""
    region = TinyRegion(tmp_path_factory.mktemp("region"))
    region.add_enmap()
    for day in ("2022-07-01", "2022-07-11"):
        region.add_sentinel2(f"S2A_31UDS_{day.replace('-', '')}_0_L2A", f"{day}T10:56:00Z")
    for assets in (item["assets"] for item in region.sentinel2):
        # What masks and references want besides: nothing of it is read to plan.
        assets |= dict.fromkeys(("green", "red"), assets["nir"])
        assets |= dict.fromkeys(("rededge1", "nir08", "swir22"), assets["swir16"])
    recipe = region.recipe(
        sentinel2={"clouds": {}, "alignment": "report"}, enmap={"mask": "report", "coregistration": "report"}
    )
    return make_plan(recipe, 2022)


class TestPlan:
    def test_every_step_of_the_build_is_counted(self, plan: SeasonPlan) -> None:
        found = estimate(plan, [1, 4])
        assert set(found.cpu_seconds) == {
            *("sentinel2 masks", "sentinel2 reference", "enmap mask", "enmap match"),
            *("read sentinel2", "read enmap", "blocks"),
        }
        assert all(seconds > 0 for seconds in found.cpu_seconds.values())
        assert found.bytes_to_read > found.remote_bytes == found.requests == 0
        assert found.bytes_to_write > found.bytes + found.scratch_bytes > found.bytes > 0
        assert found.work_bytes > 0
        assert 3600 * found.on_workers["1"].hours == pytest.approx(found.seconds, abs=0.4)
        assert 0 < found.on_workers["4"].hours <= found.on_workers["1"].hours

    def test_remote_files_are_asked_for(self, plan: SeasonPlan, tmp_path: Path) -> None:
        local, served = estimate(plan, [1], LINE), estimate(with_servers(plan), [1], LINE)
        assert served.requests > 0
        assert served.remote_bytes == served.bytes_to_read > 0
        assert served.on_workers["1"].hours > local.on_workers["1"].hours
        slower = estimate(with_servers(plan), [1], ArchiveLine(1.0, 1e12))
        assert slower.on_workers["1"].hours > served.on_workers["1"].hours

    def test_all_seconds_are_of_one_line(self, plan: SeasonPlan, monkeypatch: pytest.MonkeyPatch) -> None:
        served = with_servers(plan)
        computing, first = (estimate(served, [1], ArchiveLine(seconds, 1e15)).to_read for seconds in (0.0, 1.0))
        for seconds, line in ((0.0, ArchiveLine(0.0, 1e15)), (7.0, ArchiveLine(7.0, 1e15))):
            found = estimate(served, [1], line).to_read
            for name in ("seconds", "mask_seconds"):
                one = getattr(first, name) - getattr(computing, name)
                assert one > 0
                assert getattr(found, name) == pytest.approx(getattr(computing, name) + seconds * one)
        slow = estimate(served, [1], ArchiveLine(0.0, 1e6)).to_read
        assert slow.seconds == pytest.approx(computing.seconds + served_bytes(slow.bytes))
        assert slow.mask_seconds == pytest.approx(computing.mask_seconds + served_bytes(slow.mask_bytes))
        # By default and by the environment as by options: assumed once, in constants, and told so.
        recipes = " ".join((Path(__file__).parents[2] / "docs/recipes.md").read_text(encoding="utf-8").split())
        assumed = f"a request in {REQUEST_SECONDS:g} s and delivers {ARCHIVE_BYTES_A_SECOND / 1e6:g} MB/s"
        assert assumed in recipes
        line = ArchiveLine(REQUEST_SECONDS, ARCHIVE_BYTES_A_SECOND)
        assert estimate(served, [1]) == estimate(served, [1], line)
        monkeypatch.setenv("H2CROP_REQUEST_SECONDS", "7")
        assert estimate(served, [1]) == estimate(served, [1], replace(line, request_seconds=7.0))

    def test_results_that_blocks_use_stay_beyond_the_bound_of_the_work_folder(
        self, plan: SeasonPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = estimate(plan).work_bytes
        monkeypatch.setenv("H2CROP_WORK_GB", "0")
        found = estimate(plan).work_bytes
        cells = [cell for block in PlannedBlocks(plan) for cell in block.cells]
        tiles = {tile for cell in cells for tile in tiles_of(cell)}
        masks = tile_tasks(plan.recipe.sentinel2, plan.pinned["sentinel2"], sorted(tiles), 2022)
        # The masks stay; the reference that the match was made with does not.
        assert found >= sum(tile_mask_work(task).written for task in masks) > 0
        assert whole > found
        save_plan(plan, tmp_path / "plan")
        command = ["plan", "show", str(tmp_path / "plan")]
        assert "above its limit of" in " ".join(CliRunner().invoke(app, command).output.split())
        monkeypatch.delenv("H2CROP_WORK_GB")
        assert "above its limit" not in CliRunner().invoke(app, command).output

    def test_there_is_no_cost_without_a_price(self, plan: SeasonPlan) -> None:
        assert estimate(plan, [3]).on_workers["3"].cost is None
        served = estimate(with_servers(plan), [3], ArchiveLine(30.0, 1e12), Prices(hour=2.0, gigabyte=100.0))
        found = served.on_workers["3"]
        assert found.cost == pytest.approx(3 * found.hours * 2 + served.remote_bytes / 1e9 * 100, rel=0.01)

    def test_prices_and_the_line_come_from_the_environment(
        self, plan: SeasonPlan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = estimate(with_servers(plan), [1]).on_workers["1"]
        monkeypatch.setenv("H2CROP_REQUEST_SECONDS", "20")
        monkeypatch.setenv("H2CROP_PRICE_HOUR", "1")
        found = estimate(with_servers(plan), [1]).on_workers["1"]
        assert found.hours > 10 * before.hours
        assert (before.cost, found.cost) == (None, pytest.approx(found.hours, rel=0.01))

    def test_the_command_says_hours_for_each_number_of_workers(
        self, plan: SeasonPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_plan(plan, tmp_path / "plan")
        options = ["--workers", "1", "--workers", "8", "--price-hour", "1.5", "--request-seconds", "0.2"]
        done = CliRunner().invoke(app, ["plan", "show", str(tmp_path / "plan"), *options, "--json"])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)["2022"]
        assert found["on_workers"].keys() == {"1", "8"}
        assert found["on_workers"]["8"]["cost"] > 0
        assert {"requests", "bytes_to_read", "bytes_to_write", "work_bytes", "scratch_bytes"} <= found.keys()
        monkeypatch.setenv("H2CROP_WORKERS", "5")
        done = CliRunner().invoke(app, ["plan", "show", str(tmp_path / "plan"), "--json"])
        assert json.loads(done.stdout)["2022"]["on_workers"].keys() == {"1", "5"}

    def test_the_artifact_of_a_run_has_them(self, plan: SeasonPlan) -> None:
        pending = {(2022, block) for block in plan.blocks["block"]}
        rows = plan_rows([plan], pending, (1, 4))
        figures = {row["figure"] for row in rows}
        assert {f"hours of {number} worker(s) for all blocks, about" for number in (1, 4)} <= figures
        # What is left is told beside what the plan has: all other figures are of all its blocks.
        [left] = [row for row in plan_rows([plan], sorted(pending)[:1], (1,)) if row["figure"] == "blocks to build"]
        assert list(left.values())[1] == f"1 of {len(pending)}"
        assert plan_rows([plan], sorted(pending)[:1], (1, 4))[1:] == rows[1:]
        assert all("all blocks" in name for name in figures if "about" in name or "at most" in name)

    def test_who_builds_on_a_cluster_sees_hours_of_several_numbers_of_workers(self) -> None:
        assert estimated_for(Workers(4)) == (1, 4)
        assert estimated_for(Workers(1)) == (1,)
        assert len(estimated_for(Workers(1, "dask", "tcp://scheduler:8786"))) > 2


def test_detectors_that_look_at_l1c_read_its_items(plan: SeasonPlan) -> None:
    scenes, wanted = plan.pinned["sentinel2"], plan.recipe.sentinel2
    cells = [cell for block in PlannedBlocks(plan) for cell in block.cells]
    [task] = tile_tasks(wanted, scenes, tiles_of(cells[0]), 2022)
    plain = tile_mask_work(task)
    clouds = Clouds(method="scl+s2cloudless", l1c=L1cSource(catalog="l1c.json"))
    others = {f"{name}_L1C": on_server(item) for name, item in task.items.items()}
    for item in others.values():
        for band in range(1, 13):
            item.add_asset(f"B{band:02d}", pystac.Asset(f"https://archive.example/{item.id}/B{band:02d}.jp2"))
        item.add_asset("B8A", pystac.Asset(f"https://archive.example/{item.id}/B8A.jp2"))
    with_l1c = replace(
        task,
        settings=wanted.model_copy(update={"clouds": clouds}),
        l1c={name: (f"{name}_L1C",) for name in task.items},
        l1c_items=others,
    )
    found = tile_mask_work(with_l1c)
    assert found.bytes > plain.bytes
    assert found.cpu > plain.cpu
    assert found.at_once > plain.at_once


def served_bytes(count: int) -> float:
    """Seconds of so many bytes at a megabyte a second."""
    return count / 1e6


def with_servers(plan: SeasonPlan) -> SeasonPlan:
    """The same plan, its files on a web server."""
    pinned = {
        name: replace(scenes, items=[on_server(item) for item in scenes.items]) if hasattr(scenes, "items") else scenes
        for name, scenes in plan.pinned.items()
    }
    return replace(plan, pinned=pinned)


def on_server(item: pystac.Item) -> pystac.Item:
    """An item whose files are on a web server."""
    moved = item.clone()
    for asset in moved.assets.values():
        asset.href = f"https://archive.example/{Path(asset.href).name}"
    return moved


def scene(side: float) -> pystac.Item:
    """A scene of `side` degrees on the equator."""
    ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    assets = {"image": pystac.Asset("https://archive.example/a.TIF", extra_fields={"file:size": 400_000_000})}
    item = pystac.Item("a", {"type": "Polygon", "coordinates": [ring]}, None, datetime(2022, 7, 24, tzinfo=UTC), {})
    item.assets = assets
    return item


def test_what_the_mask_of_a_scene_reads_is_part_of_the_estimate() -> None:
    unit = own_mask_unit(scene(0.27))
    assert unit.work is not None
    # A million pixels: a second and a bit, the whole image, four tiles.
    found = unit.work()
    assert found.bytes == found.remote_bytes == 400_000_000
    assert found.cpu == pytest.approx(1.1, abs=0.1)
    assert 3 <= found.requests <= 8


@settings(max_examples=20)
@given(st.integers(1, 400))
def test_of_a_scene_as_much_is_read_as_cells_need(cells: int) -> None:
    found = cells_work(scene(0.27), cells, 64**2)
    assert found.bytes == pytest.approx(400e6 * min(1.0, cells * 64**2 / 1.0e6), rel=0.05)


def test_the_benchmark_judges_no_build_on_a_busy_machine() -> None:
    benchmark = script_module("tests/benchmarks/bench_estimate.py")
    figures = {
        "ratio": {"local_1": 3.0, "local_2": 0.2},
        "seconds": {"local_1": 10.0, "local_2": 10.0},
        "waited": {"local_1": 0.9, "local_2": 1.1},
        **{"bytes_read": 1.0, "requests": 0.4, "bytes_of_store": 1.0},
    }
    found = benchmark.verdict_on(figures)
    assert found == {"outside": "local_1, requests", "not_judged": "not judged: machine busy (local_2)"}
    quiet = {**figures, "waited": dict.fromkeys(figures["waited"], 0.0)}
    assert benchmark.verdict_on(quiet) == {"outside": "local_1, local_2, requests"}


class ToldOfOld(Enmap):
    """A source that another package brings, written before readings said what they take."""

    reading_work = Source.reading_work

    def seconds_to_read(self, settings: object, pinned: object, blocks: Collection[Mapping[str, object]]) -> float:
        return 3.0 * len(blocks)

    def to_read(self, settings: object, pinned: object, blocks: Sequence[PlannedBlock]) -> ToRead:
        return ToRead(bytes=80, seconds=2.0)


def test_a_source_that_says_no_more_is_spread_over_its_blocks(plan: SeasonPlan) -> None:
    blocks = list(PlannedBlocks(plan))
    found = ToldOfOld().reading_work(None, None, blocks)
    assert len(found) == len(blocks) == 2
    assert [one.cpu for one in found] == [4.0, 4.0]
    assert [one.bytes for one in found] == [40, 40]
    assert [(one.remote_bytes, one.requests) for one in found] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_what_it_asks_of_servers_is_counted_too(
    plan: SeasonPlan, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = list(PlannedBlocks(plan))
    read = ToRead(bytes=81, requests=9, seconds=seconds)
    monkeypatch.setattr(ToldOfOld, "to_read", lambda *_: read)
    monkeypatch.setattr(ToldOfOld, "seconds_to_read", lambda *_: 0.0)
    found = ToldOfOld().reading_work(None, None, blocks)
    assert [one.cpu for one in found] == [seconds / 2, seconds / 2]
    assert [(one.bytes, one.remote_bytes, one.requests) for one in found] == [(40, 40, 4), (41, 41, 5)]
    read = replace(read, remote_bytes=20, turns=3.0)
    found = ToldOfOld().reading_work(None, None, blocks)
    assert [(one.remote_bytes, one.at_once, one.connections) for one in found] == [(10, 3, 3)] * 2
    assert sum(one.waiting(ArchiveLine(1.0, 1e12)) for one in found) == pytest.approx(3.0)
