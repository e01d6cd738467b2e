"""The Prefect flows build what the commands build, in batches; what fails is tried again by its kind, and listed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from dask_cluster import dask_cluster
from mishap_source import mishaps_installed
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.exceptions import ParameterTypeError
from prefect.states import State
from prefect.testing.utilities import prefect_test_harness
from tiny_region import EAST, NORTH, SOUTH, WEST, TinyRegion
from web_server import served

from h2crop_data.cube.reading import read_index
from h2crop_data.cube.writer import hold_store
from h2crop_data.errors import PlanError
from h2crop_data.flows import run as flow_run
from h2crop_data.flows.deadline import TimeoutHoursError
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.pipeline.recording import recorded_plans
from h2crop_data.pipeline.run_status import RunStatus, read_status
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.storage.local import LocalStorage

FLOWS = Path(__file__).parents[2] / "flows"


def load_flow(name: str) -> ModuleType:
    """A file of flows/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"flows_{name}", FLOWS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build() -> Any:
    return load_flow("build").build_dataset


@pytest.fixture(scope="module")
def refresh() -> Any:
    return load_flow("refresh").refresh_dataset


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """A Prefect server of this test's own, on this machine, with a database of its own."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def recipe(region: TinyRegion) -> Recipe:
    """Two blocks of Sentinel-2 and EnMAP with parcels."""
    region.add_sentinel2("one", "2022-07-01T10:50:00Z", 1500)
    region.add_enmap()
    region.write_parcels(2022, [((WEST, SOUTH, EAST, NORTH), "BTH")])
    return region.recipe()


@pytest.fixture
def path(region: TinyRegion, recipe: Recipe) -> str:
    """The file of that recipe."""
    return str(region.folder / "recipe.yaml")


@pytest.fixture
def mishap_path(region: TinyRegion, recipe: Recipe) -> Iterator[str]:
    """The file of that recipe, with the source that goes wrong on request."""
    with mishaps_installed():
        region.recipe(mishaps={})
        yield str(region.folder / "recipe.yaml")


def paused_for(status: RunStatus) -> float | None:
    """Seconds of the pause that a status states; None where it states none."""
    if status.paused_until is None or not status.doing.startswith("pause, then "):
        return None
    return (status.paused_until - status.progressed).total_seconds()


def contents(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file() and path.relative_to(store).parts[0] != ".build"
    }


def tasks_of(state: State[Any]) -> Counter[str]:
    """How many tasks of each name a run had."""
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run_id(state)]))
        deadline = time.monotonic() + 20
        while True:
            # Events of tasks come to the server a moment later.
            tasks = client.read_task_runs(flow_run_filter=wanted)
            if (tasks and all(task.state and task.state.is_final() for task in tasks)) or time.monotonic() > deadline:
                return Counter(task.name.rsplit("-", 1)[0] for task in tasks)
            time.sleep(0.2)


def run_id(state: State[Any]) -> Any:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def artifact_of(state: State[Any], what: str) -> Any:
    """The data of an artifact of a run."""
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id(state)]))
        found = client.read_artifacts(artifact_filter=wanted)
    (artifact,) = [one for one in found if one.key and one.key.startswith(f"h2crop-{what}-")]
    return artifact.data


def test_the_flow_gives_the_same_bytes_as_the_command(build: Any, recipe: Recipe, path: str, tmp_path: Path) -> None:
    build_store(recipe, tmp_path / "command")
    result = build(path, str(tmp_path / "flow"), workers=1)
    assert result.outcome == "built"
    assert (result.build.built, result.build.release, result.build.samples) == (2, 1, 4)
    assert contents(tmp_path / "flow") == contents(tmp_path / "command")
    again = build(path, str(tmp_path / "flow"))
    assert again.outcome == "nothing new"
    assert (again.build.built, again.build.already_done, again.build.release) == (0, 2, 1)


def test_blocks_are_handed_over_in_batches(build: Any, path: str, tmp_path: Path) -> None:
    state = build(path, str(tmp_path / "large"), return_state=True)
    assert tasks_of(state) == {"plan": 1, "units of work": 1, "blocks": 1, "seal": 1, "validate": 1}
    state = build(path, str(tmp_path / "small"), batch=1, check="none", return_state=True)
    assert tasks_of(state) == {"plan": 1, "units of work": 1, "blocks": 2, "seal": 1}
    assert contents(tmp_path / "small") == contents(tmp_path / "large")


def test_wrong_parameters_end_a_run_at_once_in_words(build: Any, path: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterTypeError, match=r"recipe: .*no recipe file none.yaml \(names of shipped recipes"):
        build("none.yaml", str(tmp_path / "store"))
    with pytest.raises(ParameterTypeError, match=r"out: .*expected a folder or s3://bucket/prefix"):
        build(path, "ftp://host/store")
    with pytest.raises(ParameterTypeError, match=r"workers: .*greater than or equal to 1"):
        build(path, str(tmp_path / "store"), workers=0)
    assert not (tmp_path / "store").exists()


def test_what_cannot_recover_is_not_tried_again(build: Any, region: TinyRegion, tmp_path: Path) -> None:
    region.add_enmap(quality=2)
    region.recipe()
    # The defaults would wait for minutes.
    with pytest.raises(PlanError, match="no EnMAP scene gives a cell"):
        build(str(region.folder / "recipe.yaml"), str(tmp_path / "store"))


class TestFailedBlocks:
    @pytest.fixture
    def damaged(self, region: TinyRegion, recipe: Recipe, tmp_path: Path) -> tuple[Path, Path]:
        """A store with a plan of two scenes, of which one has lost its image; and where that has gone."""
        name = region.add_enmap(1, "20220809T104526", datatake=4711)
        image, away = region.folder / "enmap" / name / "SPECTRAL_IMAGE.TIF", tmp_path / "away.tif"
        store = tmp_path / "store"
        with hold_store(store) as builder:
            recorded_plans(builder, region.recipe())
        image.rename(away)
        return image, away

    def test_they_do_not_stop_the_others_and_are_listed_one_by_one(
        self,
        build: Any,
        path: str,
        damaged: tuple[Path, Path],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        store = tmp_path / "store"
        state = build(path, str(store), retry_seconds=[], return_state=True)
        assert (state.type.value, state.name) == ("FAILED", "Failed")
        assert (state.message or "").startswith("blocks failed: 2 of 4 blocks failed")
        assert len(list((store / ".build/2022").glob("*.json"))) == 2
        # As on the command line there is no release.
        assert not (store / "zarr.json").exists()
        lines = [record.getMessage() for record in caplog.records if record.name == "prefect.flow_runs"]
        listed = [line for line in lines if line.startswith("not built: season 2022 block ")]
        assert len(listed) == 2
        assert all("SPECTRAL_IMAGE.TIF" in line for line in listed)
        assert artifact_of(state, "failed").count("ReadError") == 2
        with pytest.raises(BuildError, match="2 of 2 blocks failed"):
            build(path, str(store), retry_seconds=[])
        damaged[1].rename(damaged[0])
        result = build(path, str(store), retry_seconds=[])
        assert (result.build.built, result.build.already_done, result.build.release) == (2, 2, 1)

    def test_they_are_tried_again_at_the_end_by_themselves(
        self, build: Any, path: str, damaged: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []
        store = tmp_path / "store"

        def wait(seconds: float) -> None:
            waited.append(seconds)
            # The status says so, and when the pause ends, once the one of the pause before is replaced.
            deadline = time.monotonic() + 30
            while (status := read_status(LocalStorage(store))) is None or paused_for(status) != seconds:
                assert time.monotonic() < deadline, status
                time.sleep(0.05)
            if len(waited) == 2:
                damaged[1].rename(damaged[0])

        monkeypatch.setattr(flow_run, "sleep", wait)
        state = build(path, str(store), retry_seconds=[5, 50, 500], return_state=True)
        assert state.name == "Completed"
        assert waited == [5, 50]
        assert tasks_of(state)["failed blocks again"] == 2
        monkeypatch.undo()
        build_store(path, tmp_path / "command")
        assert contents(store) == contents(tmp_path / "command")

    def test_they_are_listed_also_where_the_time_is_over(
        self, build: Any, path: str, damaged: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = flow_run.Steps.wait

        def be_late(steps: flow_run.Steps, *arguments: Any) -> bool:
            monkeypatch.setattr(steps.deadline, "_end", 0.0)
            return read(steps, *arguments)

        monkeypatch.setattr(flow_run.Steps, "wait", be_late)
        state = build(path, str(tmp_path / "store"), timeout_hours=1, return_state=True)
        assert state.name == "TimedOut"
        assert artifact_of(state, "failed").count("ReadError") == 2

    def test_a_pause_longer_than_the_time_left_is_not_begun(
        self, build: Any, path: str, damaged: tuple[Path, Path], tmp_path: Path
    ) -> None:
        store = str(tmp_path / "store")
        state = build(path, store, retry_seconds=[7200], timeout_hours=1, return_state=True)
        assert (state.name, (state.message or "")[:15]) == ("Failed", "blocks failed: ")
        assert tasks_of(state)["failed blocks again"] == 0


def test_an_archive_that_is_down_while_blocks_are_read_is_an_outage(
    build: Any, region: TinyRegion, recipe: Recipe, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second try asks the server again, where GDAL would remember.
    monkeypatch.setenv("H2CROP_READ_PAUSES", "0")
    store = tmp_path / "store"
    with served(region.folder) as (url, _):
        for item in region.sentinel2:
            for asset in item["assets"].values():
                asset["href"] = f"{url}/{asset['href']}"
        region.recipe()
        with hold_store(store) as builder:
            recorded_plans(builder, load_recipe(path))
    # Nobody answers at its address any more.
    state = build(path, str(store), retry_seconds=[0], return_state=True)
    assert state.name == "Failed"
    assert (state.message or "").startswith("outage: 2 of 2 blocks failed"), state.message
    assert "the next run continues" in (state.message or "")
    assert tasks_of(state)["failed blocks again"] == 1
    assert artifact_of(state, "failed").count("ArchiveOutageError") == 2


def test_a_worker_process_that_dies_is_replaced(
    build: Any, mishap_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it is at its first block, which is built by another."""
    monkeypatch.setenv("MISHAPS_FOLDER", str(tmp_path))
    monkeypatch.setenv("MISHAPS_DEADLY", "all")
    result = build(mishap_path, str(tmp_path / "store"), workers=1, processes=True)
    assert (tmp_path / "died").exists()
    assert (result.build.built, result.build.release) == (2, 1)
    build_store(mishap_path, tmp_path / "command")
    assert contents(tmp_path / "store") == contents(tmp_path / "command")


def test_a_cluster_builds_the_same_bytes(build: Any, recipe: Recipe, path: str, tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "cluster", workers=1) as cluster:
        result = build(path, str(tmp_path / "flow"), dask=cluster.address)
        assert (result.build.built, result.build.release) == (2, 1)
    build_store(recipe, tmp_path / "command")
    assert contents(tmp_path / "flow") == contents(tmp_path / "command")


@pytest.mark.parametrize("name", ["build", "refresh"])
def test_a_file_of_flows_runs_without_a_server(name: str, path: str, tmp_path: Path) -> None:
    """Prefect brings a server of its own for the run; the exit code is that of the command."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONPATH": str(FLOWS.parent),
    }

    def run(recipe: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(FLOWS / f"{name}.py"), recipe, "--out", str(tmp_path / "store")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)

    done = run(path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["build"]["release"] == 1
    failed = run(str(tmp_path / "none.yaml"))
    assert failed.returncode == 1, failed.stderr
    assert "no recipe file none.yaml" in failed.stderr or f"no recipe file {tmp_path}/none.yaml" in failed.stderr
    assert "Traceback" not in failed.stderr.splitlines()[-1]


@contextmanager
def alarm_after(file: Path) -> Iterator[None]:
    """The alarm of the time limit rings half a second after a file appears: the run gets the signal for it."""
    over = threading.Event()

    def ring() -> None:
        while not file.exists():
            if over.wait(0.02):
                return
        if not over.wait(0.5):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    threading.Thread(target=ring, daemon=True).start()
    try:
        yield
    finally:
        over.set()


class TestTimeouts:
    def test_no_step_is_begun_when_the_time_is_over(self, build: Any, path: str, tmp_path: Path) -> None:
        with pytest.raises(TimeoutHoursError, match="longer than timeout_hours = 1e-09; finished work is kept"):
            build(path, str(tmp_path / "store"), timeout_hours=1e-9)

    def test_a_step_is_ended_and_the_next_run_goes_on(
        self, build: Any, mishap_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, hanging, going_on = tmp_path / "store", tmp_path / "hanging", tmp_path / "go-on"
        monkeypatch.setenv("MISHAPS_FOLDER", str(tmp_path))
        monkeypatch.setenv("MISHAPS_HANGING", "2022-1")
        try:
            # The time is over as soon as the block hangs.
            with alarm_after(hanging):
                state = build(mishap_path, str(store), workers=1, timeout_hours=1, return_state=True)
            assert (state.type.value, state.name) == ("FAILED", "TimedOut")
            # It was not waited for, and the store is free.
            [hung] = [thread for thread in threading.enumerate() if thread.name == hanging.read_text()]
            assert not (store / "zarr.json").exists()
            with hold_store(store):
                pass
        finally:
            going_on.touch()
        # What the thread does when it wakes up is refused.
        hung.join(60)
        assert not hung.is_alive()
        assert not (store / ".build/2022/000001.json").exists()
        result = build(mishap_path, str(store))
        assert result.build.release == 1
        assert result.build.already_done >= 1


def test_an_invalid_release_is_a_failure_that_names_the_first_error(
    build: Any, mishap_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISHAPS_CUTTING", str(tmp_path / "store/2022/s2/c.0.0.0.0.0"))
    state = build(mishap_path, str(tmp_path / "store"), return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "Failed")
    assert (state.message or "").startswith("invalid release: release 1 of ")
    assert re.search(
        r"size, 2022/s2/c\.0\.0\.0\.0\.0: has \d+ bytes, the manifest says \d+ -> delete", state.message or ""
    )
    assert "the manifest says" in artifact_of(state, "findings")


class TestRefresh:
    def test_it_builds_what_is_new_and_nothing_else(self, refresh: Any, region: TinyRegion, path: str) -> None:
        store = region.folder.parent / "store"
        first = refresh(path, str(store), return_state=True)
        assert (first.name, first.result().build.built) == ("Completed", 2)
        before = contents(store)
        again = refresh(path, str(store), return_state=True)
        assert again.name == "Nothing new"
        assert "release 1 is unchanged" in (again.message or "")
        assert contents(store) == before
        assert "validate" not in tasks_of(again)
        region.add_enmap(1, "20220809T104526", datatake=4711)
        region.recipe()
        third = refresh(path, str(store))
        assert (third.build.built, third.build.release) == (2, 2)

    def test_a_season_that_is_not_over_waits(self, refresh: Any, path: str, tmp_path: Path) -> None:
        state = refresh(path, str(tmp_path / "store"), today=date(2022, 8, 1), return_state=True)
        assert state.name == "Nothing new"
        assert "waiting: season 2022: 2022 is complete on " in (state.message or "")
        assert "2022 is complete on" in artifact_of(state, "gaps")

    def test_a_season_that_cannot_be_planned_stops_no_other(
        self, refresh: Any, region: TinyRegion, recipe: Recipe, path: str, tmp_path: Path
    ) -> None:
        region.add_sentinel2("later", "2023-03-05T10:50:00Z", 950)
        region.add_enmap(1, "20230524T104526")
        (region.folder / "RPG_2023.gpkg").write_bytes((region.folder / "RPG_2022.gpkg").read_bytes()[:5000])
        [source] = recipe.as_written()["parcels"]["season"]
        years = {"season": [{**source, "path": "RPG_{year}.gpkg", "years": [2022, 2023]}], "prior": "none"}
        region.recipe(seasons=[2022, 2023], parcels=years)
        store = tmp_path / "store"
        state = refresh(path, str(store), return_state=True)
        assert (state.type.value, state.name) == ("FAILED", "Failed")
        assert (state.message or "").startswith("seasons failed: season 2023 could not be planned: ")
        assert "RPG_2023.gpkg" in artifact_of(state, "gaps")
        assert set(read_index(store, "blocks")["season"]) == {2022}

    def test_an_error_that_nobody_foresaw_is_told_without_secrets(
        self, refresh: Any, mishap_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MISHAPS_SEALING", "cannot get https://archive.example/red.tif?sig=S3CRET-W0RD")
        state = refresh(mishap_path, str(tmp_path / "store"), return_state=True)
        assert (state.message or "").startswith("unforeseen: RuntimeError: cannot get https://archive.example/red.tif")
        with get_client(sync_client=True) as client:
            tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id(state)])))
        told = [state.message or "", *(task.state.message or "" for task in tasks if task.state)]
        assert not [line for line in told if "S3CRET" in line]

    def test_a_store_that_is_held_is_left_alone(self, refresh: Any, path: str, tmp_path: Path) -> None:
        store = tmp_path / "store"
        with hold_store(store):
            state = refresh(path, str(store), return_state=True)
        assert (state.type.value, state.name) == ("COMPLETED", "Skipped")
        assert "is locked by another builder (process " in (state.message or "")
        assert state.result().outcome == "skipped"


def test_what_a_run_planned_is_told_also_of_a_try_that_failed_later() -> None:
    """The first try kept the part 2022-000002 and failed at the next season: the second finds it among the plans."""

    def part(name: str, samples: list[str], replaces: list[int]) -> Any:
        return SimpleNamespace(
            season=int(name[:4]),
            part=name,
            samples=pd.DataFrame({"sample": samples}),
            replaces=dict.fromkeys(replaces, "other inputs"),
        )

    plans = [part("2022", ["a", "b"], []), part("2022-000002", ["b", "c", "d"], [1]), part("2023", ["e"], [])]
    assert flow_run.new_in_plans(plans, [".build/plan/2022/"]) == ({2022: 2, 2023: 1}, {2022: [1]})
    assert flow_run.new_in_plans(plans, [f".build/plan/{plan.part}/" for plan in plans]) == ({}, {})
