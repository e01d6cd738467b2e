"""A day in the life of a service: a Prefect server, a worker and the deployments of infra/prefect.yaml keep a store."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from living_archive import LivingArchive
from misbehaving_api import misbehaving_api
from prefect_service import REPOSITORY, RUN, PrefectService, prefect_service, wait_until

import h2crop_data
from h2crop_data.cube.reading import read_index, store_attributes
from h2crop_data.cube.writer import hold_store
from h2crop_data.errors import HeldStoreError
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.refresh import refresh_store
from h2crop_data.recipe.model import load_recipe
from h2crop_data.validation.validate import validate_store

REFRESH = "h2crop-refresh/refresh"
#: For runs that are asked for: one more try after an outage, at once.
SHORT: dict[str, Any] = {"retry_seconds": [0.1]}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingArchive]:
    """An archive with one year, and a recipe of two."""
    with misbehaving_api([], page_size=50) as api:
        living = LivingArchive(tmp_path_factory.mktemp("archive") / "region", api, [2022, 2023])
        living.add_year(2022)
        living.publish()
        yield living


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "kept"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, archive: LivingArchive, store: Path) -> Iterator[PrefectService]:
    """The deployments as they are in the repository, and a worker."""
    with prefect_service(tmp_path_factory.mktemp("prefect") / "home") as running:
        running.prefect("work-pool", "create", "h2crop", "--type", "process")
        places = {"H2CROP_RECIPE": str(archive.recipe), "H2CROP_STORE": str(store)}
        running.prefect("deploy", "--all", "--prefect-file", "infra/prefect.yaml", **places)
        running.start_worker("h2crop")
        yield running


#: Arrays of which every chunk is a file that is never written again. Chunks of coordinates grow with a season: an older
#: release sees the samples it had.
ARRAYS = ("enmap", "enmap_quality", "s2", "s2_clear", "s2_day", "label", "parcel")


def files_of_release(store: Path, number: int) -> dict[str, str]:
    """The hash of every shard and every file of the index of a release."""
    names = [str(name) for name in read_index(store, "manifest", release=number)["path"]]
    names = [name for name in names if name.split("/")[1:2] and name.split("/")[1] in ARRAYS and "/c." in name]
    names += [str(path.relative_to(store)) for path in (store / f"index/r{number}").iterdir()]
    return {name: hashlib.sha256((store / name).read_bytes()).hexdigest() for name in names}


def contents(store: Path) -> dict[str, str]:
    """The hash of every file that readers see."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file() and path.relative_to(store).parts[0] != ".build"
    }


def is_free(store: Path) -> bool:
    """Whether no builder holds a store."""
    try:
        with hold_store(store):
            return True
    except HeldStoreError:
        return False


@contextmanager
def listener() -> Iterator[tuple[str, list[str]]]:
    """A web address of this machine, and what was sent to it."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests run quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def samples_of(store: Path, season: int, release: int | None = None) -> dict[str, Any]:
    """All values of a season by sample."""
    opened = h2crop_data.open(store, season, release=release).load().drop_attrs()
    return {str(name): opened.isel(sample=i).drop_vars("sample") for i, name in enumerate(opened["sample"].values)}


def test_a_day_in_the_life(service: PrefectService, archive: LivingArchive, store: Path) -> None:
    kept: dict[int, dict[str, str]] = {}
    values: dict[int, dict[str, Any]] = {}

    def newest() -> int:
        """The number of the newest release; older ones must be as they were."""
        for number, files in kept.items():
            assert files_of_release(store, number) == files
            assert all(samples_of(store, 2022, number)[name].identical(one) for name, one in values[number].items())
        number = int(store_attributes(store)["release"])
        kept.setdefault(number, files_of_release(store, number))
        values.setdefault(number, samples_of(store, 2022, number))
        assert len(kept[number]) > 10
        return number

    # The scheduler fires the first run, which builds the year that is there; the second finds nothing.
    assert [one["schedule"]["cron"] for one in service.deployment(REFRESH)["schedules"]] == ["30 3 * * *"]
    service.prefect("deployment", "schedule", "create", REFRESH, "--interval", "15", "-y")

    def ended() -> list[dict[str, Any]] | None:
        """The first two runs that were not skipped because the one before took longer than the interval."""
        runs = [run for run in service.scheduled_runs(REFRESH) if run["state"]["name"] != "Skipped"]
        return runs[:2] if [run["state"]["type"] for run in runs[:2]] == ["COMPLETED"] * 2 else None

    first, second = wait_until(
        "two scheduled runs complete",
        ended,
        2 * RUN,
        lambda: f"{[run['state'] for run in service.scheduled_runs(REFRESH)]}\n{service.log_of('worker')}",
    )
    service.prefect("deployment", "schedule", "clear", REFRESH, "--accept-yes")
    assert first["state"]["name"] == "Completed"
    assert "release 1, 2 block(s) built, 0 already built, 4 samples" in first["state"]["message"]
    assert "waiting: season 2023: " in first["state"]["message"]
    assert second["state"]["name"] == "Nothing new"
    assert "release 1 is unchanged" in second["state"]["message"]
    service.wait_for_all(REFRESH)
    assert newest() == 1
    shown = service.artifacts(first["id"])
    assert shown.keys() == {"plan", "progress", "cells", "gaps", "release", "findings"}
    assert "season 2023" in shown["gaps"]
    assert shown["cells"].startswith("![cells](data:image/png;base64,")
    assert shown["progress"] == 100.0
    said = service.lines(first["id"])
    assert any("/2 blocks, season 2022 block" in line for line in said)
    # What the library says of its steps, in whichever thread, with its level.
    for level, module, text in (
        ("INFO", "catalog.search", " items of ENMAP_HSI_L2A from 2022-01-01 to 2023-01-01, "),
        ("INFO", "pipeline.planning", "season 2022: 4 samples in 2 blocks of "),
        ("INFO", "pipeline.run_notes", "season 2022 block 1 built ("),
        ("INFO", "cube.seal", ": release 1 is made, "),
    ):
        found = [line for line in said if line.startswith(f"h2crop_data.{module}: ") and text in line]
        assert found, (module, said)
        assert {service.levels(first["id"])[line] for line in found} == {level}

    # A scene and a parcel year appear: the third run adds both.
    archive.region.add_enmap(1, "20220809T104526", datatake=4711)
    archive.add_year(2023)
    archive.publish()
    before = samples_of(store, 2022)
    third = service.trigger(REFRESH, **SHORT)
    kind, name, message = service.ended(third)
    assert (kind, name) == ("COMPLETED", "Completed"), message
    assert "release 2, 4 block(s) built, 2 already built" in message
    assert newest() == 2
    assert len(samples_of(store, 2023)) == 4
    grown = samples_of(store, 2022)
    assert len(grown) == 8
    assert all(grown[sample].identical(one) for sample, one in before.items())

    # The provider is down: the run says so after its second try, and nothing happens to the store.
    with archive.outage():
        asked = len(archive.api.asked)
        fourth = service.trigger(REFRESH, **SHORT)
        kind, name, message = service.ended(fourth)
    assert (kind, name) == ("FAILED", "Failed")
    assert message.startswith("outage: ")
    assert f"{archive.api.url} does not answer" in message
    assert "the next run continues" in message
    assert len(archive.api.asked) == asked + 2
    # Prefect may log traces of its own, of a server that is slow to answer.
    traces = [line for line in service.lines(fourth) if "Traceback" in line]
    assert not [trace for trace in traces if "h2crop_data" in trace], traces
    assert newest() == 2
    assert store_attributes(store)["release"] == 2

    # It is back, with a scene more: the fifth run catches up.
    archive.region.add_enmap(1, "20230809T104526", datatake=4712)
    archive.publish()
    kind, name, message = service.ended(service.trigger(REFRESH, **SHORT))
    assert (kind, name) == ("COMPLETED", "Completed"), message
    assert "release 3, 2 block(s) built, 6 already built" in message
    assert newest() == 3

    # A scene was processed again: reported, and built anew when that is asked for.
    archive.reprocess(2022)
    archive.publish()
    sixth = service.trigger(REFRESH, **SHORT)
    kind, name, message = service.ended(sixth)
    assert (kind, name) == ("COMPLETED", "Nothing new"), message
    assert "changed: season 2022: s2: inputs have changed for 4 block(s)" in message
    assert "S2_2022_07_again" in service.artifacts(sixth)["gaps"]
    assert newest() == 3
    kind, name, message = service.ended(service.trigger(REFRESH, changed="rebuild", **SHORT))
    assert (kind, name) == ("COMPLETED", "Completed"), message
    assert "release 4, 4 block(s) built" in message
    assert newest() == 4

    # What came of it is what a build of today's archive gives, and is valid.
    anew = store.parent / "anew"
    build_store(load_recipe(archive.recipe), anew, workers=1)
    for season in (2022, 2023):
        today = samples_of(anew, season)
        rebuilt = samples_of(store, season)
        assert rebuilt.keys() == today.keys()
        for sample, one in rebuilt.items():
            assert one.drop_vars("parcel").identical(today[sample].drop_vars("parcel")), sample
    assert samples_of(store, 2022, release=3).keys() == samples_of(store, 2022).keys()
    result = validate_store(str(store))
    assert not result.errors, result.findings


def test_a_run_that_is_due_while_another_builder_works_is_skipped(
    service: PrefectService, store: Path, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    with hold_store(held):
        skipped = service.trigger(REFRESH, out=str(held), **SHORT)
        kind, name, message = service.ended(skipped)
    assert (kind, name) == ("COMPLETED", "Skipped")
    assert message.startswith(f"skipped: {held} is locked by another builder (process ")
    assert not (held / "zarr.json").exists()


def test_a_wrong_parameter_ends_a_run_at_once(service: PrefectService, store: Path) -> None:
    wrong = service.trigger(REFRESH, recipe="/nowhere/recipe.yaml", retry_seconds=[600])
    kind, name, message = service.ended(wrong)
    assert (kind, name) == ("FAILED", "Failed")
    assert "no recipe file /nowhere/recipe.yaml (names of shipped recipes: h2crop-france.yaml)" in message


def test_a_failure_raises_the_alarm(service: PrefectService, archive: LivingArchive, store: Path) -> None:
    with listener() as (address, heard):
        # A notification block that calls a web address, and the automations of the repository with it.
        block = service.python(
            "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
            "said = {'text': '{{subject}} {{body}}'}\n"
            f"print(Block(name='alarm', url='{address}', json_data=said).save('alarm'))"
        )
        text = (REPOSITORY / "infra/automations.yaml").read_text(encoding="utf-8")
        file = service.folder / "automations.yaml"
        file.write_text(text.replace("${H2CROP_ALARM}", block.strip()), encoding="utf-8")
        service.prefect("automation", "create", "--from-file", str(file))
        wrong = service.trigger(REFRESH, recipe="/nowhere/recipe.yaml")
        service.ended(wrong)
        (told,) = wait_until("the alarm is raised", lambda: heard or None, RUN, lambda: service.log_of("server"))
    assert "h2crop: refresh Failed" in told
    assert "no recipe file /nowhere/recipe.yaml" in told


def test_a_server_that_is_killed_in_mid_run_costs_nothing(
    service: PrefectService, archive: LivingArchive, tmp_path: Path
) -> None:
    store, command = tmp_path / "store", tmp_path / "command"
    refresh_store(load_recipe(archive.recipe), command)
    with archive.held_back() as begun:
        run = service.trigger(REFRESH, out=str(store), **SHORT)
        wait_until("the run searches", lambda: begun() or None, RUN, lambda: service.log_of("worker"))
        service.kill_server()
    # The run goes on without an API: it builds, seals and lets go of the store.
    wait_until(
        "the store is sealed", lambda: (store / "zarr.json").exists() or None, RUN, lambda: service.log_of("worker")
    )
    wait_until("the store is let go", lambda: is_free(store) or None, RUN)
    finished = contents(store)
    assert finished == contents(command)
    service.start_server()
    kind, name, _ = service.ended(run)
    assert (kind, name) == ("COMPLETED", "Completed")
    # A worker gives up after some tries; who keeps it running starts it again.
    service.start_worker("h2crop")
    kind, name, _ = service.ended(service.trigger(REFRESH, out=str(store), **SHORT))
    assert (kind, name) == ("COMPLETED", "Nothing new")
    # Nothing was written late.
    assert contents(store) == finished
