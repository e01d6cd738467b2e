"""Parameters, states, artifacts and log lines of flows, without a server."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from PIL import Image
from prefect.logging.handlers import PrefectConsoleHandler
from pydantic import ValidationError

from h2crop_data.errors import (
    AccountError,
    ArchiveOutageError,
    CatalogError,
    CatalogOutageError,
    ClusterError,
    H2cropError,
    HeldStoreError,
    IncompleteSearchError,
    ParcelError,
    PlanError,
    ReadError,
    RecipeError,
    SceneError,
    StoreError,
    StoreOutageError,
    StoreWarning,
    UsageError,
)
from h2crop_data.flows.artifacts import ArtifactCalls, Artifacts, slug_of
from h2crop_data.flows.contents import failed_rows, gaps_text
from h2crop_data.flows.deadline import TimeoutHoursError
from h2crop_data.flows.parameters import RunSettings, known_recipe
from h2crop_data.flows.result import failed_state, may_recover, skipped_state
from h2crop_data.flows.run_log import library_lines
from h2crop_data.pipeline.engine import BlockOutcome, BuildError, WorkerDiedError, Workers, open_pool
from h2crop_data.report.cell_map import SPLIT_COLOURS, draw_cells


def blocks_failed(*errors: H2cropError) -> BuildError:
    """The error of a build whose blocks failed so."""
    error = BuildError(f"{len(errors)} of 9 blocks failed")
    error.failed = [BlockOutcome(2022, number, 64, 0, {}, cause) for number, cause in enumerate(errors)]
    return error


SECRET = "https://archive.invalid/scene.tif?sig=abc123"


class TestParameters:
    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"out": ""}, "the location of the store is empty"),
            # What `prefect deploy` leaves of a variable that is not set.
            ({"out": "{{ $H2CROP_STORE }}"}, "its variable was not set when this was deployed"),
            ({"out": "ftp://host/store"}, "expected a folder or s3://bucket/prefix"),
            ({"workers": 0}, "greater than or equal to 1"),
            ({"dask": "cluster:8786"}, "expected tcp://HOST:PORT"),
            # What the engine does not speak.
            ({"dask": "ws://cluster:8786"}, "expected tcp://HOST:PORT or tls://HOST:PORT"),
            ({"dask": "ucx://cluster:8786"}, "expected tcp://HOST:PORT or tls://HOST:PORT"),
            ({"retry_seconds": [-1]}, "greater than or equal to 0"),
            ({"retry_seconds": [1] * 51}, "at most 50 items"),
            ({"timeout_hours": 0}, "greater than 0"),
            ({"check": "some"}, "'none', 'quick' or 'full'"),
            ({"batch": 0}, "greater than or equal to 1"),
        ],
    )
    def test_a_wrong_one_is_refused_in_words(self, wrong: dict[str, object], told: str) -> None:
        with pytest.raises(ValidationError, match=told):
            RunSettings.model_validate({"out": "store", **wrong})

    def test_a_recipe_that_cannot_be_read_is_refused_as_on_the_command_line(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"no recipe file .* \(names of shipped recipes"):
            known_recipe(str(tmp_path / "none.yaml"))

    def test_a_batch_is_large_and_there_are_few(self) -> None:
        settings = RunSettings(out="store")
        assert settings.batch_size(10) == 64
        assert settings.batch_size(10_000) == 200
        assert RunSettings(out="store", batch=7).batch_size(10_000) == 7

    def test_a_cluster_has_its_own_workers(self) -> None:
        address = "tcp://127.0.0.1:8786"
        assert RunSettings(out="store", dask=address).engine_workers.scheduler == address
        assert RunSettings(out="store", workers=3, processes=True).engine_workers == Workers(3, "processes")
        with pytest.raises(UsageError, match="the cluster has its own workers"):
            _ = RunSettings(out="store", dask=address, workers=2).engine_workers


class TestStates:
    @pytest.mark.parametrize(
        ("error", "again", "kind"),
        [
            (CatalogOutageError("HTTP 503"), True, "outage: "),
            (ArchiveOutageError("HTTP 503"), True, "outage: "),
            (StoreOutageError("HTTP 503"), False, "outage: "),
            (CatalogError("no such collection (HTTP 404)"), False, ""),
            (IncompleteSearchError("some are missing"), True, ""),
            (ReadError("HTTP 404"), True, ""),
            (BuildError("1 of 2 blocks failed"), True, "blocks failed: "),
            (blocks_failed(ArchiveOutageError("HTTP 503"), ReadError("HTTP 404")), True, "blocks failed: "),
            (blocks_failed(ArchiveOutageError("HTTP 503"), ArchiveOutageError("HTTP 502")), True, "outage: "),
            (WorkerDiedError("a worker process died"), True, "worker died: "),
            (ClusterError("no scheduler"), False, ""),
            (TimeoutHoursError("too long"), False, "TimedOut"),
            (AccountError("no account"), False, ""),
            (SceneError("no offset"), False, ""),
            (ParcelError("no crs"), False, ""),
            (RecipeError("wrong"), False, ""),
            (UsageError("wrong"), False, ""),
            (PlanError("wrong"), False, ""),
            (StoreError("No space left on device"), False, ""),
        ],
    )
    def test_only_what_may_recover_is_tried_again(self, error: Exception, again: bool, kind: str) -> None:
        assert may_recover(error) is again
        state = failed_state(error)
        # Automations look for these names.
        name = kind if kind == "TimedOut" else "Failed"
        assert (state.type.value, state.name) == ("FAILED", name)
        assert (state.message or "").startswith(("" if kind == "TimedOut" else kind) + str(error))

    def test_no_state_says_a_secret(self) -> None:
        for state in (failed_state(ReadError(f"cannot read {SECRET}")), skipped_state("s", HeldStoreError(SECRET))):
            assert "archive.invalid" in (state.message or "")
            assert "abc123" not in (state.message or "")


class TestLog:
    def test_libraries_and_warnings_of_any_thread_are_in_it_without_secrets(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = logging.getLogger("a-run")

        def work() -> None:
            logging.getLogger("odc.loader").warning("retrying %s", SECRET)
            warnings.warn(f"slow server {SECRET}", StoreWarning, stacklevel=1)

        with caplog.at_level(logging.INFO, "a-run"), library_lines(run), warnings.catch_warnings():
            warnings.simplefilter("always")
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        lines = [record.getMessage() for record in caplog.records if record.name == "a-run"]
        assert lines == ["odc.loader: retrying https://archive.invalid/scene.tif", f"slow server {SECRET[:-11]}"]
        logging.getLogger("odc.loader").warning("afterwards")
        assert not [record for record in caplog.records[2:] if record.name == "a-run" and "after" in record.message]

    @pytest.mark.slow
    def test_steps_of_h2crop_are_in_it_and_only_warnings_of_others(
        self, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        run, own = logging.getLogger("a-run"), logging.getLogger("h2crop_data.a_test")
        package = logging.getLogger("h2crop_data")
        before = package.level, [*package.handlers]
        with caplog.at_level(logging.DEBUG, "a-run"), library_lines(run):
            logging.getLogger("rasterio").info("no")
            own.debug("no")
            own.info("read %s", SECRET)
            with open_pool(Workers(1, "processes"), str(tmp_path)) as pool:
                pool.executor.submit(own.warning, "from a worker process").result()
        lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "a-run"]
        assert lines == [
            ("INFO", "h2crop_data.a_test: read https://archive.invalid/scene.tif"),
            ("WARNING", "h2crop_data.a_test: from a worker process"),
        ]
        assert (package.level, package.handlers) == before

    def test_the_console_of_prefect_shows_a_line_of_a_run_once(self) -> None:
        out = io.StringIO()
        console = PrefectConsoleHandler(stream=out)
        logging.getLogger().addHandler(console)
        try:
            with library_lines(logging.getLogger("a-run")):
                logging.getLogger("h2crop_data.a_test").warning("said by the library")
        finally:
            logging.getLogger().removeHandler(console)
        assert out.getvalue().count("said by the library") == 1

    def test_what_prefect_logs_of_an_error_in_words_has_no_stack_trace(self, caplog: pytest.LogCaptureFixture) -> None:
        tasks = logging.getLogger("prefect.task_runs")
        tasks.propagate, before = True, tasks.propagate
        try:
            with library_lines(logging.getLogger("a-run")):
                for error in (ReadError(f"cannot read {SECRET}"), KeyError("a bug")):
                    try:
                        raise error
                    except (ReadError, KeyError):
                        # No run of Prefect is there to send it to.
                        alone = {"send_to_api": False}
                        tasks.error("Task run failed with exception: %r", error, exc_info=True, extra=alone)
        finally:
            tasks.propagate = before
        first, second = [record for record in caplog.records if record.name == tasks.name]
        assert first.getMessage() == f"Task run failed with exception: ReadError('cannot read {SECRET[:-11]}')"
        assert first.exc_info is None
        # A bug keeps its trace.
        assert second.exc_info is not None


class TestDeadline:
    @pytest.mark.slow
    @pytest.mark.parametrize(("variables", "code"), [({"PREFECT__FLOW_RUN_ID": "a-run"}, 1), ({}, 3)])
    def test_the_process_of_a_run_ends_whatever_its_threads_hang_at(self, variables: dict[str, str], code: int) -> None:
        program = (
            "import os, threading\n"
            "from h2crop_data.flows import deadline\n"
            "deadline.end_process_later(0.5)\n"
            "threading.Timer(3 if 'PREFECT__FLOW_RUN_ID' not in os.environ else 60, os._exit, [3]).start()\n"
            "threading.Event().wait()\n"
        )
        others = {name: value for name, value in os.environ.items() if name != "PREFECT__FLOW_RUN_ID"}
        ended = subprocess.run([sys.executable, "-c", program], env={**others, **variables}, timeout=50, check=False)
        assert ended.returncode == code


class TestArtifacts:
    def test_an_api_that_hangs_or_fails_costs_lines_of_the_log_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        hanging = threading.Event()

        def refuse(**_: object) -> None:
            raise ConnectionError(f"refused {SECRET}")

        def hang(**_: object) -> None:
            hanging.wait(30)

        calls = ArtifactCalls(create_table=refuse, create_markdown=hang, create_progress=lambda *_, **__: "id")
        begun = time.monotonic()
        with Artifacts("store", logging.getLogger("a-run"), calls=calls, last_wait=0.5) as shown:
            shown.show_table("plan", [{"a": 1}], "")
            shown.show_markdown("gaps", "none")
            shown.show_progress(1, 2, "blocks")
        assert time.monotonic() - begun < 10
        hanging.set()
        # Other libraries may log meanwhile what they find when memory is tidied up.
        lines = [record.getMessage() for record in caplog.records if record.name == "a-run"]
        assert "artifact plan could not be stored, Prefect's API failed: ConnectionError: refused" in lines[0]
        assert "abc123" not in lines[0]
        assert "the last artifacts of this run could not be stored" in lines[1]

    def test_progress_is_updated_now_and_then_and_at_the_end(self) -> None:
        posted: list[float] = []
        calls = ArtifactCalls(
            create_progress=lambda share, **_: posted.append(share) or "id",
            update_progress=lambda _, share, **__: posted.append(share),
        )
        with Artifacts("store", logging.getLogger("a-run"), calls=calls) as shown:
            for done in range(10_001):
                shown.show_progress(done, 10_000, "blocks")
        assert posted[-1] == 100.0
        assert len(posted) <= 2

    @pytest.mark.parametrize(
        ("store", "slug"),
        [("/data/France 2023/", "data-france-2023-"), ("s3://bucket/a/b", "a-b-"), ("store", "store-"), ("/", "")],
    )
    def test_keys_are_what_prefect_allows(self, store: str, slug: str) -> None:
        assert re.fullmatch(f"{slug}[0-9a-f]{{8}}", slug_of(store))

    def test_two_stores_of_one_name_have_two_histories(self) -> None:
        assert slug_of("/a/france/store") != slug_of("/b/france/store")
        assert slug_of("/a/france/store/") == slug_of("/a/france/store")


class TestContents:
    def test_gaps_name_everything_that_is_missing(self) -> None:
        assert gaps_text(None, [], {}, []) == "Nothing is missing."
        text = gaps_text(
            None, ["season 2023: no parcels"], {2024: "RPG_2024.gpkg is damaged"}, ["season 2022: s2 has other inputs"]
        )
        assert "## Seasons that could not be planned\n\n- 2024: RPG_2024.gpkg is damaged" in text
        assert "## Seasons that cannot be built yet\n\n- season 2023: no parcels" in text
        assert "## Changed inputs of finished blocks\n\n- season 2022: s2 has other inputs" in text

    def test_every_failed_block_has_a_row(self) -> None:
        failed = [BlockOutcome(2022, number, 64, 0, {}, ReadError(f"scene {number}")) for number in range(300)]
        rows = failed_rows(failed)
        assert [row["block"] for row in rows] == list(range(300))
        assert rows[7] == {"season": 2022, "block": 7, "samples": 64, "kind": "ReadError", "error": "scene 7"}


@pytest.mark.slow
def test_a_map_shows_each_cell_in_its_place_and_colour_with_north_up() -> None:
    # Train in the north-west, val in the north-east, test in the south-west, nothing in the south-east.
    corners = {"train": (3.0, 50.1), "val": (3.1, 50.1), "test": (3.0, 50.0)}
    cells = gpd.GeoDataFrame(
        {"cell": list(corners), "split": list(corners)},
        geometry=[shapely.box(west, south, west + 0.1, south + 0.1) for west, south in corners.values()],
        crs="OGC:CRS84",
    )
    picture = np.asarray(Image.open(io.BytesIO(draw_cells(of_two_scenes(cells)))).convert("RGB")).astype(int)
    height, width = picture.shape[:2]
    middle = {}
    for split, colour in SPLIT_COLOURS.items():
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        rows, columns = np.nonzero((np.abs(picture - rgb) < 6).all(axis=2))
        # The legend lies above the map.
        below = rows > 0.12 * height
        middle[split] = rows[below].mean() / height, columns[below].mean() / width
        assert below.sum() > 0.03 * height * width
    assert middle["train"][0] == pytest.approx(middle["val"][0], abs=0.02)
    assert middle["train"][1] == pytest.approx(middle["test"][1], abs=0.02)
    assert middle["test"][0] > middle["train"][0] + 0.2
    assert middle["val"][1] > middle["train"][1] + 0.15


def of_two_scenes(cells: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Cells as samples: each of two scenes."""
    return gpd.GeoDataFrame(cells.loc[[0, 1, 2, 0, 1, 2]], geometry="geometry")
