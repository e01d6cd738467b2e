"""infra/local-service.sh runs the whole service once, and no secret of it is found anywhere but where it belongs."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psutil
import pytest
import requests
from cryptography.fernet import Fernet
from local_service import PATIENCE, SCRIPT, LocalService, forms_of, local_service
from prefect_service import REPOSITORY, wait_until
from signing_server import MARK, Lender, lending
from tiny_region import EAST, NORTH, SOUTH, WEST, TinyRegion

PLUGIN = REPOSITORY / "tests/plugins/lender"
USER, PASSWORD, WRONG = "somebody@members", "planted/pass word+%=&?:", "mistyped/pass word+%=&?:"
#: The steps of the script, in order, as its lines begin.
STEPS = (
    "Ports, secrets and folders in ",
    "PostgreSQL from /usr/lib/postgresql/",
    "S3 server, Prefect server, Dask scheduler and two workers",
    "h2crop simulate: a small region",
    "All servers answer",
    "Work pool h2crop, whose runs get the bucket's key from a block",
    "Deployments of infra/prefect.yaml, refresh every 15 s on the Dask cluster",
    "First scheduled run: builds s3://cubes/region",
    "h2crop validate s3://cubes/region",
    "h2crop inspect s3://cubes/region",
    "Second scheduled run: nothing new",
    sys.executable,
    "Stopping: prefect-worker dask-worker-2 dask-worker-1 dask-scheduler prefect s3 postgres",
)
#: A line of a log that says that something is wrong.
TROUBLE = re.compile(
    r"ERROR|CRITICAL|FATAL|PANIC|Traceback|\b[Ww]arning(?!\(s\))|WARN|Exception|exited with exit code [^01]"
)
#: Known: moto's server says that it is none for production; Prefect's server records a task run from its API and from
#: an event at the same time, and PostgreSQL refuses the second.
KNOWN = re.compile(
    r"^WARNING: This is a development server\.|ERROR:  duplicate key value violates unique constraint \"pk_task_run\"$"
)

if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
    pytest.skip("no PostgreSQL server below /usr/lib/postgresql: apt-get install postgresql", allow_module_level=True)


@dataclass
class Seen:
    """What was seen of a service from its start to its end."""

    code: int
    output: str
    summary: dict[str, Any]
    #: As they were when all was done that the script does.
    logs: dict[str, str]
    #: By what it is: everything that a secret might be in.
    written: dict[str, bytes]
    secrets: dict[str, str]
    listeners: set[tuple[str, int]]
    #: Of the bucket's region alone.
    store: list[str]
    runs: list[dict[str, Any]]
    #: Two more, in which an archive goes wrong.
    broken: list[dict[str, Any]]
    unknown_user: int
    signatures_used: int
    members_answered: int
    left: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """The service once, with two more runs before it stops, and all that could be read of it."""
    region = lent_region(tmp_path_factory.mktemp("lent"))
    with lending(region.folder) as archive:
        archive.account = (USER, PASSWORD)
        port = archive.url.rpartition(":")[2]
        planted = {
            "PYTHONPATH": os.pathsep.join([str(PLUGIN), str(REPOSITORY)]),
            "LENDER_URL": archive.url,
            "LENDER_MEMBERS": f"http://localhost:{port}/members",
            "H2CROP_DOWNLOAD_HOST": "localhost",
            "H2CROP_DOWNLOAD_USER": USER,
            "H2CROP_DOWNLOAD_PASSWORD": PASSWORD,
        }
        recipe = lent_recipe(region, planted)
        with local_service(tmp_path_factory.mktemp("local") / "own", planted, hold=True) as service:
            wait_until("all is up and done", lambda: is_held(service), PATIENCE, service.output)
            logs = {path.name: path.read_text(encoding="utf-8") for path in (service.folder / "logs").iterdir()}
            runs = scheduled_runs(service)
            broken = broken_runs(service, recipe, archive, planted)
            secrets = {**service.secrets, "account": PASSWORD, "wrong account": WRONG, "signature": MARK}
            objects = service.everything_in_the_bucket()
            written = {
                **objects,
                **service.everything_in_the_api(),
                **service.everything_of_dask(),
                "the database": service.everything_in_the_database(),
            }
            unknown_user = requests_without_password(service)
            written |= service.everything_on_the_disk()
            code = service.finish()
            written |= {f"page {url}": page for url, page in service.pages.items()}
            written |= {"arguments of processes": b"\n".join(service.commands)}
            written |= {str(path): path.read_bytes() for path in (service.folder / "logs").iterdir()}
            written |= {"what the script said": service.output().encode()}
            yield Seen(
                code,
                service.output(),
                json.loads((service.folder / "summary.json").read_text(encoding="utf-8")),
                logs,
                written,
                secrets,
                service.listeners,
                [key for key in objects if key.startswith("region/")],
                runs,
                broken,
                unknown_user,
                archive.used,
                archive.answered,
                sorted(path.name for path in service.folder.iterdir()),
            )


def lent_region(folder: Path) -> TinyRegion:
    """Sentinel-2 for a signature, EnMAP for an account."""
    region = TinyRegion(folder)
    region.add_sentinel2("S2_2022_07", "2022-07-01T10:46:29Z")
    region.add_enmap()
    region.write_parcels(2022, [((WEST, SOUTH, EAST, NORTH), "BTH")])
    return region


def lent_recipe(region: TinyRegion, planted: dict[str, str]) -> Path:
    """The recipe of such a region, whose items name the archive's addresses."""
    for items, root in (
        (region.sentinel2, f"{planted['LENDER_URL']}/files"),
        (region.enmap, planted["LENDER_MEMBERS"]),
    ):
        for item in items:
            for asset in item["assets"].values():
                asset["href"] = f"{root}/{asset['href'].removeprefix('./')}"
    region.recipe()
    return region.folder / "recipe.yaml"


def is_held(service: LocalService) -> bool | None:
    """Whether the script waits; fails where it has ended."""
    assert service.process.poll() is None, service.output()
    return service.told.exists() or None


def scheduled_runs(service: LocalService) -> list[dict[str, Any]]:
    """The runs that the server made, in order."""
    runs = service.ask("flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
    return [run for run in runs if run["auto_scheduled"] and run["start_time"]]


def broken_runs(service: LocalService, recipe: Path, archive: Lender, planted: dict[str, str]) -> list[dict[str, Any]]:
    """A run on the Dask cluster in which signing fails oddly, and one with a password that the archive does not know.

    The second is a process of its own, so that both go on at the same time.
    """
    # As often as a plan reads the file; then the workers want it.
    archive.odd, archive.odd_after = "nir.tif", 1_000_000
    plan = [sys.executable, "-m", "h2crop_data", "plan", str(recipe), "--out", str(recipe.with_name("plan"))]
    subprocess.run(plan, env={**os.environ, **service.environment}, check=True, capture_output=True, timeout=PATIENCE)
    archive.odd_after = 2 * archive.odd_asked
    other = f"build_dataset({str(recipe)!r}, 's3://cubes/refused', retry_seconds=[], return_state=True)"
    with (service.folder / "logs/refused.log").open("w", encoding="utf-8") as log:
        refused = subprocess.Popen(
            [sys.executable, "-c", f"from flows.build import build_dataset; {other}"],
            env={**os.environ, **service.environment, **planted, "H2CROP_DOWNLOAD_PASSWORD": WRONG},
            cwd=REPOSITORY,
            stdout=log,
            stderr=log,
        )
    dask = f"tcp://127.0.0.1:{service.ports['dask']}"
    odd = service.trigger(
        "h2crop-build/build", recipe=str(recipe), out="s3://cubes/odd", dask=dask, retry_seconds=[], check="none"
    )
    first = service.ended(odd)
    assert refused.wait(PATIENCE) == 0
    known = {"flow_runs": {"deployment_id": {"is_null_": True}}}
    (second,) = service.ask("flow_runs/filter", known)
    return [first, second]


def requests_without_password(service: LocalService) -> int:
    """The status of the API's answer to whoever does not know its password."""
    return requests.post(
        f"{service.environment['PREFECT_API_URL']}/block_documents/filter", json={}, timeout=60
    ).status_code


def test_the_steps_come_in_order_and_the_script_says_so(seen: Seen) -> None:
    assert seen.code == 0, seen.output
    lines = [re.sub(r"^ *\d+ s  ", "", line) for line in seen.output.splitlines()]
    found = [next(i for i, line in enumerate(lines) if line.startswith(step)) for step in STEPS]
    assert found == sorted(found), seen.output
    assert [step["name"] for step in seen.summary["steps"]] == [lines[i] for i in found]
    assert lines[-2] == "Nothing is left: no process of this run lives, its ports are free"
    assert lines[-1].startswith("Done: ")
    assert not TROUBLE.search(seen.output), seen.output
    assert seen.summary["ok"]
    assert not seen.summary["failed"]


def test_no_log_has_trouble(seen: Seen) -> None:
    servers = {"postgres", "s3", "prefect", "prefect-worker", "dask-scheduler", "dask-worker-1", "dask-worker-2"}
    assert {f"{name}.log" for name in servers} <= seen.logs.keys()
    trouble = {
        name: lines
        for name, text in seen.logs.items()
        if (lines := [line for line in text.splitlines() if TROUBLE.search(line) and not KNOWN.search(line)])
    }
    assert not trouble
    # Logs say something.
    assert "database system is ready to accept connections" in seen.logs["postgres.log"]
    assert "Registered to: " in seen.logs["dask-worker-1.log"]
    assert "0 error(s), 0 warning(s)" in seen.logs["validate.log"]
    assert "release 1" in seen.logs["inspect.log"]


def test_the_servers_schedule_made_both_runs(seen: Seen) -> None:
    assert [run["state"]["name"] for run in seen.runs] == ["Completed", "Nothing new"]
    assert all(run["auto_scheduled"] and run["created_by"]["type"] == "SCHEDULE" for run in seen.runs)
    built, again = (run["state"]["message"] for run in seen.runs)
    assert built.startswith("s3://cubes/region: release 1, 2 block(s) built, 0 already built, 4 samples")
    assert again == "nothing new for s3://cubes/region: release 1 is unchanged"
    assert [run["id"] for run in seen.summary["runs"]] == [run["id"] for run in seen.runs]
    # The Dask workers built it.
    assert "Receive client connection: Client-h2crop-" in seen.logs["dask-scheduler.log"]
    assert seen.runs[0]["parameters"]["dask"].startswith("tcp://127.0.0.1:")


def test_the_store_is_in_the_bucket(seen: Seen) -> None:
    assert "region/zarr.json" in seen.store
    root = json.loads(seen.written["region/zarr.json"])
    assert root["attributes"]["release"] == 1
    assert sum(key.startswith("region/.build/2022/") for key in seen.store) >= 2
    assert sum(key.startswith("region/.build/plan/") for key in seen.store) > 3


def test_nothing_is_left(seen: Seen) -> None:
    """Neither processes nor open ports nor secrets nor databases."""
    assert not marked_processes(seen.summary["service"])
    assert not [number for number in seen.summary["processes"].values() if psutil.pid_exists(number)]
    listening = {one.laddr.port for one in psutil.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert not listening & set(seen.summary["ports"].values())
    assert seen.left == [".local-service", "logs", "prefect.yaml", "summary.json"]


def marked_processes(service: str) -> list[psutil.Process]:
    """Processes of a service."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("H2CROP_LOCAL_SERVICE") == service:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_all_servers_listen_on_this_machine_alone(seen: Seen) -> None:
    assert {address for address, _ in seen.listeners} == {"127.0.0.1"}
    assert set(seen.summary["ports"].values()) <= {port for _, port in seen.listeners}
    assert seen.unknown_user == 401


def test_runs_that_failed_say_why(seen: Seen) -> None:
    """What is searched below for secrets has the errors that might show them."""
    odd, refused = (run["state"] for run in seen.broken)
    assert (odd["type"], refused["type"]) == ("FAILED", "FAILED")
    assert "blocks failed: " in odd["message"]
    assert b"ValueError: cannot make use of http://127.0.0.1" in seen.written["API artifacts"]
    assert "401" in refused["message"], refused
    assert seen.signatures_used > 5
    assert seen.members_answered > 5
    traces = [text for key, text in seen.written.items() if key.startswith("odd/.build/logs/")]
    assert any(b"in signed" in trace for trace in traces)
    assert b"failed-blocks" in seen.written["API artifacts"]


def test_a_block_keeps_the_buckets_key(seen: Seen) -> None:
    """Encrypted in the database, with a key that is not there; what the API shows is a reference and stars."""
    template = json.loads(seen.written["API work_pools/h2crop"])["base_job_template"]
    given = template["variables"]["properties"]["env"]["default"]
    assert given == {"AWS_SECRET_ACCESS_KEY": "{{ prefect.blocks.secret.h2crop-aws-secret-access-key }}"}
    (block,) = [one for one in json.loads(seen.written["API block_documents"]) if one["name"].startswith("h2crop-")]
    assert set(block["data"]["value"]) == {"*"}
    key = Fernet(seen.secrets["encryption-key"].encode())
    opened = [json.loads(key.decrypt(found)) for found in re.findall(rb"gAAAA[\w=-]+", seen.written["the database"])]
    assert {"value": seen.secrets["s3-secret-key"]} in opened


def test_no_secret_is_found_anywhere(seen: Seen) -> None:
    assert set(seen.secrets) == {
        "account", "api-password", "database-password", "encryption-key", "s3-secret-key", "signature", "wrong account",
    }  # fmt: skip
    # All of it was looked at: not only names.
    for name in ("the database", "Dask's state", "Dask's logs", "arguments of processes", "API admin/settings"):
        assert len(seen.written[name]) > 500, name
    pages = [url for url in seen.written if url.startswith("page ")]
    assert any("/info/main/workers.html" in url for url in pages)
    assert any("/info/logs/" in url for url in pages)
    assert any("/json/identity.json" in url for url in pages)
    assert b"prefect server start" in seen.written["arguments of processes"].replace(b"\0", b" ")
    found = [
        (name, place)
        for name, secret in seen.secrets.items()
        for form in forms_of(secret)
        for place, text in seen.written.items()
        if form in text or form in place.encode()
    ]
    assert not found


def test_forms_of_a_secret_are_found_in_what_hides_them() -> None:
    """The search itself: base64 at any place of a longer text, URLs, JSON."""
    for before in ("", "a", "ab", "user:", "service:"):
        for after in ("", "x", "xy"):
            text = base64.b64encode(f"{before}{PASSWORD}{after}".encode())
            assert any(form in text for form in forms_of(PASSWORD)), (before, after)
            assert any(
                form in base64.urlsafe_b64encode(f"{before}{PASSWORD}{after}".encode()) for form in forms_of(PASSWORD)
            )
    for text in (quote(PASSWORD, safe=""), urlencode({"p": PASSWORD}), json.dumps(PASSWORD), f"x{PASSWORD}"):
        assert any(form in text.encode() for form in forms_of(PASSWORD))
    assert not any(form in b"nothing of it" for form in forms_of(PASSWORD))


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with local_service(tmp_path / "own", {}, hold=False) as service:
        scenes = service.folder / "region"
        wait_until("all work", lambda: any(scenes.rglob("*.tif")) or None, PATIENCE, service.output)
        ports, secrets = service.ports, service.secrets
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.process.wait(120) == 130, service.output()
    assert len(secrets) == 4
    assert "Nothing is left" in service.output()
    summary = json.loads((service.folder / "summary.json").read_text(encoding="utf-8"))
    assert not summary["ok"]
    assert summary["failed"].startswith("h2crop simulate")
    assert not marked_processes(summary["service"])
    assert not [number for number in summary["processes"].values() if psutil.pid_exists(number)]
    listening = {one.laddr.port for one in psutil.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert not listening & set(ports.values())
    assert not (service.folder / "secrets").exists()


def test_a_step_that_fails_ends_the_script_with_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "broken/h2crop_data"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise SystemExit('no region today')", encoding="utf-8")
    with local_service(tmp_path / "own", {"PYTHONPATH": str(broken.parent)}, hold=False) as service:
        assert service.process.wait(PATIENCE) == 1
    said = service.output()
    assert "FAILED: h2crop simulate" in said
    assert "    no region today\n" in said
    assert "Nothing is left" in said
    assert not any(secret in said for secret in ("Traceback", "PREFECT_API_AUTH_STRING"))


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("kept", encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for arguments, words in (
        ([str(tmp_path)], "is not empty and was not made by this script"),
        (["--size", "huge"], "--size"),
        (["--nonsense"], "infra/local-service.sh [FOLDER]"),
    ):
        done = subprocess.run(
            [str(SCRIPT), *arguments], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert words in done.stderr
    assert (tmp_path / "theirs").read_text(encoding="utf-8") == "kept"
