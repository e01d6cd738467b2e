"""`h2crop status` on builds that run, hang, are stopped, killed, fail and finish, and the timings they leave."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dask_cluster import dask_cluster
from killed_builds import build as build_until
from killed_builds import small_region
from s3_server import BUCKET, s3_environment, s3_server, use_server
from tiny_region import BANDS, TinyRegion
from typer.testing import CliRunner
from web_server import Stalling, served

from h2crop_data.cli.main import app
from h2crop_data.cube.writer import hold_store
from h2crop_data.errors import H2cropError
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.build_state import BuildState, StoreLook
from h2crop_data.pipeline.engine import BuildError, Workers
from h2crop_data.recipe.model import load_recipe
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.requests import Patience
from h2crop_data.storage.s3 import ObjectStorage

#: Seconds for what takes one.
PATIENCE = 60.0
#: Seconds of a lease, and between two states, of builders in a bucket.
LEASE, EVERY = 2.0, 0.5


def seen(store: Path | str, *options: str) -> tuple[int, BuildState]:
    """The exit code of `h2crop status`, and what it says."""
    result = CliRunner().invoke(app, ["status", str(store), "--json", *options])
    assert result.stdout, result.output
    return result.exit_code, BuildState.model_validate_json(result.stdout)


def shown(store: Path | str, *options: str) -> str:
    """What `h2crop status` shows to people."""
    return CliRunner().invoke(app, ["status", str(store), *options], env={"COLUMNS": "200"}).output


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.05)


class OftenInFolder(LocalStorage):
    """A folder with a status every half second."""

    status_every = EVERY


class AlmostAlways(LocalStorage):
    """A folder with twenty statuses a second."""

    status_every = 0.05


class OftenInBucket(ObjectStorage):
    """A bucket with a status every half second."""

    status_every = EVERY


def in_child(recipe: Path, store: str, environment: dict[str, str], hang_after: int | None) -> None:
    """What a child does: build, and hang when so many blocks are done."""
    os.environ.update(environment)
    storage = OftenInBucket(store, Patience(lease=LEASE)) if store.startswith("s3://") else OftenInFolder(Path(store))

    def note(outcome: object, done: int, total: int) -> None:
        while done == hang_after:
            time.sleep(1)

    build_store(load_recipe(recipe), storage, workers=1, on_block=note)


@pytest.fixture
def start() -> Iterator[Callable[..., BaseProcess]]:
    """Starts a build in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["h2crop_data.pipeline.build", "killed_builds"])
    begun: list[BaseProcess] = []

    def start(recipe: Path, store: Path | str, hang_after: int | None = None, **environment: str) -> BaseProcess:
        process = context.Process(target=in_child, args=(recipe, str(store), environment, hang_after))
        process.start()
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def region_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region with a recipe of two seasons of four blocks, and one of a season of two."""
    folder = tmp_path_factory.mktemp("region")
    small_region(folder)
    return folder


@pytest.fixture(scope="module")
def recipe(region_of_two: Path) -> Path:
    return region_of_two / "recipe.yaml"


@pytest.fixture(scope="module")
def half(region_of_two: Path) -> Path:
    return region_of_two / "half.yaml"


def test_a_build_whose_read_hangs_is_seen_to_live_to_be_stopped_and_to_be_dead(
    region: TinyRegion, tmp_path: Path, start: Callable[..., BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, archive = tmp_path / "store", type("Archive", (Stalling,), {"released": threading.Event()})
    # A band that planning does not look at.
    monkeypatch.setitem(BANDS, "B03", "green")
    region.add_sentinel2("july", "2022-07-01T10:50:00Z", 900)
    region.recipe(store={"block_capacity": 1})
    code, state = seen(store)
    assert (code, state.state) == (14, "not begun")
    with served(region.folder, archive) as (url, asked):
        catalog = region.folder / "sentinel2.json"
        catalog.write_text(catalog.read_text().replace('"./sentinel2/', f'"{url}/sentinel2/'))
        archive.stalled = "green.tif"
        process = start(region.folder / "recipe.yaml", store)
        wait_for(lambda: ("/sentinel2/july/green.tif", 0) in asked and seen(store)[1].run)
        wait_for(lambda: seen(store)[1].run.phase == "blocks")  # type: ignore[union-attr]
        code, state = seen(store)
        assert (code, state.state, state.seasons[2022].blocks_done, state.seasons[2022].blocks) == (10, "running", 0, 4)
        assert state.holder is not None
        assert (state.holder.alive, state.holder.process) == (True, process.pid)
        # It says that it lives, although nothing goes on.
        written = state.run.written  # type: ignore[union-attr]
        wait_for(lambda: seen(store)[1].run.written > written)  # type: ignore[union-attr]
        code, state = seen(store, "--stuck-after", "0.01")
        assert (code, state.state) == (11, "stuck")
        assert [one.what for one in state.run.at_work] == [f"season 2022 reading {reading_in(state)}"]  # type: ignore[union-attr]
        assert "is alive, but nothing was started or finished" in state.explanation
        # Stopped, it says nothing any more.
        look = StoreLook(str(store), silent_after=1.0)
        assert look.look().state == "running"
        os.kill(process.pid or 0, signal.SIGSTOP)
        wait_for(lambda: look.look().state == "stuck")
        assert "has reported nothing for" in look.look().explanation
        os.kill(process.pid or 0, signal.SIGCONT)
        wait_for(lambda: look.look().state == "running")
        process.kill()
        process.join()
        code, state = seen(store)
        assert (code, state.state) == (12, "dead")
        assert "ended without a report, in the phase `blocks`; rerun the same command" in state.explanation
        assert state.holder is not None
        assert not state.holder.alive
        # To look changes nothing, and keeps nobody out.
        archive.stalled = None
        archive.released.set()
        before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
        assert seen(store)[0] == 12
        assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
        build_store(load_recipe(region.folder / "recipe.yaml"), store, workers=1)
    code, state = seen(store)
    assert (code, state.state, state.release, state.holder) == (0, "finished", 1, None)


def reading_in(state: BuildState) -> str:
    """The name of the first reading that workers were given."""
    assert state.run is not None
    return state.run.at_work[0].what.removeprefix("season 2022 reading ")


def test_a_running_build_tells_how_far_it_is_and_how_fast(
    recipe: Path, tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    store = tmp_path / "store"
    process = start(recipe, store, hang_after=3)
    wait_for(lambda: (run := seen(store)[1].run) and run.blocks_built == 3)
    code, state = seen(store)
    run = state.run
    assert code == 10
    assert run is not None
    assert (run.command, run.workers, run.phase, run.samples_built) == ("build", "1 threads", "blocks", 3)
    assert (run.readings, run.tiles_read > 0, run.bytes_read > 0, run.failing_blocks) == (4, True, True, 0)
    # Another block may have been built meanwhile: its outcome is not taken while the first hangs.
    assert state.seasons[2022].blocks_done in (3, 4)
    assert state.seasons[2022].empty_months == [1, 2, 4, 5, 6, 8, 10, 11, 12]
    assert state.rate is not None
    assert state.seconds_left is not None
    assert state.rate.blocks_per_hour == state.rate.samples_per_hour > 0
    told = json.loads(CliRunner().invoke(app, ["status", str(store), "--json"]).stdout)
    keys = documented_keys()
    assert keys.pop("") == set(told)
    assert keys.pop("failing") == {"season", "block", "error"}
    assert keys == {"seasons": set(told["seasons"]["2022"]), "holder": set(told["holder"]), "rate": set(told["rate"])}
    text = shown(store)
    assert "running" in text
    assert "no release yet" in text
    assert "an hour over the last" in text
    process.kill()
    process.join()
    assert seen(store)[0] == 12
    # The next run goes on; what the killed one had read and built has its rows, none twice.
    build_store(load_recipe(recipe), store, workers=2)
    assert seen(store)[0] == 0
    table = timings(store)
    assert table["run"].nunique() == 2
    check_blocks_and_units(store, table, 8)


def documented_keys() -> dict[str, set[str]]:
    """The keys of `--json` that docs/monitoring.md lists: all under an empty text, and the keys of some of them."""
    page = (Path(__file__).parents[2] / "docs/monitoring.md").read_text(encoding="utf-8")
    listed = page.split("Keys of `--json`: ")[1].split(". ")[0].replace("\n", " ")
    found = {"": set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", listed)))}
    for key, inner in re.findall(r"`(seasons|holder|rate|failing)` \(([^)]*)\)", listed):
        found[key] = set(re.findall(r"`(\w\w+)`", inner))
    return found


def test_timings_of_a_build_that_was_killed_are_gathered_by_the_next(recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["h2crop_data.pipeline.build", "killed_builds"])
    process = context.Process(target=build_until, args=(recipe, store, False, "write .build/2023/000001.json"))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not (store / ".build/timings.parquet").exists()
    killed = json.loads((store / ".build/status.json").read_text())["run"]
    finished = {block for block in range(4) if (store / f".build/2022/{block:06d}.json").exists()}
    build_store(load_recipe(recipe), store, workers=2)
    table = timings(store)
    check_blocks_and_units(store, table, 8)
    blocks = table[table["kind"] == "block"]
    of_killed = blocks[(blocks["season"] == 2022) & (blocks["run"] == killed)]
    assert set(of_killed["name"].astype(int)) == finished
    assert len(finished) >= 3
    # A run with nothing to do adds what it spent itself.
    report = build_store(load_recipe(recipe), store, workers=1)
    assert report.built == 0
    again = timings(store)
    assert again[again["kind"] != "phase"].equals(
        table[table["kind"] != "phase"].set_axis(again[again["kind"] != "phase"].index)
    )


def timings(store: Path) -> pd.DataFrame:
    return pd.read_parquet(store / ".build/timings.parquet")


def check_blocks_and_units(store: Path, table: pd.DataFrame, blocks: int) -> None:
    """Every block (so many) and unit has its rows once, with the seconds that its marker says."""
    things = ["kind", "season", "name", "detail"]
    rows = table[table["kind"].isin(["block", "unit"])]
    assert not rows.duplicated(things).any()
    markers = [json.loads(path.read_text()) for path in store.glob(".build/20*/*.json")]
    seasons = [int(path.parent.name) for path in store.glob(".build/20*/*.json")]
    assert len(markers) == blocks
    for season, marker in zip(seasons, markers, strict=True):
        own = rows[(rows["kind"] == "block") & (rows["season"] == season) & (rows["name"] == str(marker["block"]))]
        assert dict(zip(own["detail"], own["seconds"], strict=True)) == marker["seconds"]
        assert own["seconds"].sum() == pytest.approx(sum(marker["seconds"].values()))
        assert set(own["finished"]) == {pd.Timestamp(marker["finished"])}
        assert set(own["step"]) == {"composite", "enmap", "label", "write"}
    units = [json.loads(path.read_text()) for path in store.glob(".build/work/*/*.json")]
    told = rows[rows["kind"] == "unit"]
    assert Counter(f"{unit['step']} {unit['name']}" for unit in units) == Counter(told["name"]) != Counter()
    assert told["seconds"].sum() == pytest.approx(sum(unit["spent"]["seconds"] for unit in units))
    assert (table["software"] != "").all()
    assert (table.loc[table["kind"] == "unit", "worker"].str.len() > 0).all()


def test_a_build_ends_with_where_its_time_went(half: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    result = CliRunner().invoke(app, ["build", str(half), "--out", str(store), "--workers", "2", "--json"])
    report = json.loads(result.stdout)
    table = timings(store)
    worked = table[table["kind"] != "phase"].groupby("step", observed=True)["seconds"].sum()
    for step, seconds in worked.items():
        assert report["steps"][step] == pytest.approx(seconds, abs=0.01)
    assert set(report["steps"]) == set(worked.index)
    phases = table[table["kind"] == "phase"].set_index("name")["seconds"]
    assert set(report["phases"]) == set(phases.index) == {"planning", "units", "blocks", "sealing"}
    assert report["phases"]["planning"] == pytest.approx(phases["planning"], abs=0.01)
    readings = table[table["kind"] == "reading"]
    assert readings["name"].nunique() == seen(store)[1].run.readings > 0  # type: ignore[union-attr]
    assert {"read", "composite", "write"} <= set(readings["step"])
    slowest = max(table.groupby(["kind", "name", "season"], observed=True, dropna=False)["seconds"].sum().drop("phase"))
    assert report["slowest"][0]["seconds"] == pytest.approx(slowest, abs=0.01)
    # The keys of before are there.
    assert sum(report["seconds"].values()) > 0
    text = CliRunner().invoke(app, ["build", str(half), "--out", str(tmp_path / "other")]).output
    assert "worker time by step" in text
    assert "elapsed time: planning (search) " in text
    assert ", sealing (seal) " in text
    assert "slow: season" in text


@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_workers_elsewhere_are_named_with_what_they_did(half: Path, tmp_path: Path, kind: str) -> None:
    store = tmp_path / "store"
    if kind == "processes":
        build_store(load_recipe(half), store, workers=Workers(2, "processes"))
    else:
        with dask_cluster(tmp_path / "dask", 2, {"H2CROP_WORK": ""}) as cluster:
            build_store(load_recipe(half), store, workers=Workers(1, "dask", cluster.address))
    table = timings(store)
    check_blocks_and_units(store, table, 2)
    of_blocks = table.loc[table["kind"].isin(["block", "reading"]), "worker"]
    assert of_blocks.str.match(r".+:\d+/.+").all()
    assert not of_blocks.str.contains(f":{os.getpid()}/").any()
    assert table.loc[table["kind"] == "phase", "worker"].str.contains(f":{os.getpid()}").all()


def test_a_build_that_failed_lists_its_blocks_until_it_is_continued(tmp_path: Path) -> None:
    small_region(tmp_path / "region")
    recipe, store = load_recipe(tmp_path / "region/recipe.yaml"), tmp_path / "store"
    image = next((tmp_path / "region").glob("enmap/*20230724*/SPECTRAL_IMAGE.TIF"))
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 8])
    with pytest.raises(BuildError):
        build_store(recipe, store, workers=1)
    code, state = seen(store)
    assert (code, state.state, state.release) == (13, "failed", None)
    assert [(block.season, block.block) for block in state.failing] == [(2023, block) for block in range(4)]
    assert all("SPECTRAL_IMAGE" in block.error for block in state.failing)
    assert (state.seasons[2022].blocks_done, state.seasons[2023].blocks_done) == (4, 0)
    assert state.run is not None
    assert (state.run.phase, state.run.failing_blocks) == ("blocks", 4)
    assert "4 of 8 blocks failed:; fix the cause and rerun the same command" in state.explanation
    assert "failing: season 2023 block 0: " in shown(store)
    image.write_bytes(whole)
    build_store(recipe, store, workers=1)
    code, state = seen(store)
    assert (code, state.state, state.failing, state.release) == (0, "finished", [], 1)
    assert (state.last_run, seen(store, "--last-run")[0]) == ("finished", 0)
    # A run that adds fails: the store stays finished, which is not all that a service asks for.
    catalog = tmp_path / "region/sentinel2.json"
    catalog.rename(tmp_path / "away")
    with pytest.raises(H2cropError):
        build_store(recipe, store, extend=True, workers=1)
    (tmp_path / "away").rename(catalog)
    code, state = seen(store)
    assert (code, state.state, state.last_run, seen(store, "--last-run")[0]) == (0, "finished", "failed", 13)
    assert "contains all planned blocks; the last run (`build`, process" in shown(store)
    # A command that says nothing holds the store, a refused one failed: the store is what it was.
    with hold_store(store):
        code, state = seen(store)
        assert (code, state.state) == (10, "running")
        assert f"process {os.getpid()} on" in state.explanation
    retract_from_store(store, {2022: [0]}, [], "haze")
    code, state = seen(store)
    assert (code, state.release, state.seasons[2022].blocks, state.seasons[2022].blocks_done) == (0, 2, 3, 3)


def test_stores_without_a_status_are_told_by_what_else_is_there(half: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build_store(load_recipe(half), store, workers=2)
    for name in ("status.json", "timings.parquet"):
        (store / ".build" / name).unlink()
    code, state = seen(store)
    assert (code, state.state, state.run, state.release) == (0, "finished", None, 1)
    (store / ".build/2022/000001.json").unlink()
    code, state = seen(store)
    assert (code, state.state, state.seasons[2022].blocks_done) == (12, "dead", 1)
    # Rows come of markers then, which no run is known of but the last.
    build_store(load_recipe(half), store, workers=2)
    check_blocks_and_units(store, timings(store), 2)
    (store / ".build/status.json").write_text("{")
    code, state = seen(store)
    assert (code, state.run) == (0, None)
    assert "status.json is damaged" in state.explanation


def test_a_status_that_cannot_be_written_costs_the_build_nothing(
    half: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    (store / ".build/status.json/in the way").mkdir(parents=True)
    assert build_store(load_recipe(half), AlmostAlways(store), workers=2).built == 2
    told = [record.getMessage() for record in caplog.records if "the status of the build" in record.getMessage()]
    assert len(told) == 1
    assert "cannot be written, the build continues without it: cannot write" in told[0]
    assert (
        caplog.messages.count(next(line for line in caplog.messages if line.startswith("the status at the end"))) == 1
    )
    assert len(timings(store)) > 0


def test_watching_goes_on_until_the_build_ends(half: Path, tmp_path: Path, start: Callable[..., BaseProcess]) -> None:
    store = tmp_path / "store"
    process = start(half, store)
    wait_for(lambda: (store / ".build/status.json").exists())
    result = CliRunner().invoke(app, ["status", str(store), "--json", "--watch", "0.2"])
    process.join(PATIENCE)
    states = [BuildState.model_validate_json(line).state for line in result.stdout.splitlines()]
    assert (result.exit_code, states[-1]) == (0, "finished")
    assert set(states[:-1]) == {"running"}


def test_watching_goes_on_after_what_cannot_be_read_for_a_while(half: Path, tmp_path: Path) -> None:
    store = tmp_path / "[red]store"
    build_store(load_recipe(half), store, workers=1)
    root, looked, over = store / "zarr.json", threading.Event(), threading.Event()

    def hold() -> None:
        with hold_store(store):
            looked.set()
            over.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    looked.wait(PATIENCE)
    command = [sys.executable, "-m", "h2crop_data", "status", str(store), "--watch", "0.1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stderr is not None
        # Brackets of a path are no markup.
        assert watching.stderr.readline().startswith(f"{store}: running, release 1")
        whole = root.read_bytes()
        root.write_text("{")
        assert any("cannot be read now: " in line for line in watching.stderr)
        root.write_bytes(whole)
        over.set()
        assert "finished" in watching.stderr.read()
        assert watching.wait(PATIENCE) == 0
    holder.join()
    # What could never be read is an error.
    root.write_text("{")
    assert CliRunner().invoke(app, ["status", str(store), "--watch", "0.1"]).exit_code == 1


def test_scenes_that_could_not_be_read_are_told_while_it_is_built(
    region: TinyRegion, tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    store = tmp_path / "store"
    region.add_sentinel2("whole", "2022-07-11T10:50:00Z", 900)
    image = region.add_sentinel2("lost", "2022-07-01T10:50:00Z", 900) / "nir.tif"
    image.write_bytes(image.read_bytes()[:200])
    region.recipe(sentinel2={"gaps": "record"}, store={"block_capacity": 1})
    recipe = region.folder / "recipe.yaml"
    process = start(recipe, store, hang_after=1)
    wait_for(lambda: (run := seen(store)[1].run) and run.blocks_built == 1)
    code, state = seen(store)
    assert (code, state.release, state.gaps, state.gap_scenes) == (10, None, ["lost"], 1)
    assert "gap: lost could not be read and was left out" in shown(store)
    process.kill()
    process.join()
    # The next run knows it of the markers, and tells how far sealing is.
    told: list[str] = []
    build_store(load_recipe(recipe), store, workers=1, progress=lambda done, total, text: told.append(text))
    assert [text for text in told if text.startswith("release")] == [
        "release, season 2022",
        "release, season 2022, statistics of train",
        "release 1, coordinates of season 2022",
        "release 1, index",
        "release 1, files of the index",
    ]
    # Of a release whose run says nothing any more its index tells.
    (store / ".build/status.json").unlink()
    code, state = seen(store)
    assert (code, state.run, state.gaps, state.gap_scenes) == (0, None, ["lost"], 1)


def test_builds_in_a_bucket_run_die_and_finish(
    half: Path, tmp_path: Path, start: Callable[..., BaseProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as server:
        use_server(server, monkeypatch)
        monkeypatch.setenv("H2CROP_WORK", str(tmp_path / "work"))
        environment = {name: value for name, value in s3_environment(server).items() if name.startswith("AWS_")}
        store = f"s3://{BUCKET}/status/store"
        assert seen(store)[0] == 14
        process = start(half, store, hang_after=1, H2CROP_WORK=str(tmp_path / "work"), **environment)
        wait_for(lambda: (run := seen(store)[1].run) and run.blocks_built == 1)
        # Longer than a lease, which is renewed.
        time.sleep(LEASE + 3)
        code, state = seen(store)
        assert (code, state.state) == (10, "running")
        assert state.holder is not None
        assert (state.holder.process, state.holder.alive) == (process.pid, True)
        process.kill()
        process.join()
        wait_for(lambda: seen(store)[0] == 12)
        assert "rerun the same command" in shown(store)
        build_store(load_recipe(half), OftenInBucket(store), workers=1)
        code, state = seen(store)
        assert (code, state.state, state.release, state.holder) == (0, "finished", 1, None)
