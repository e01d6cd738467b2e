"""infra/local-service.sh as a process of a test's own, and all that can be read of it while it runs."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urljoin, urlsplit

import boto3
import psutil
import requests
from botocore.config import Config
from distributed import Client
from prefect_service import ENDED, REPOSITORY, wait_until

SCRIPT = REPOSITORY / "infra/local-service.sh"
#: Seconds for a service to start and to run on a busy machine.
PATIENCE = 900.0
#: What the script runs before it stops everything: says what its environment is, and waits until that is taken away.
HOLD = """
import json, os, pathlib, sys, time
told = pathlib.Path(sys.argv[1])
told.with_suffix(".part").write_text(json.dumps(dict(os.environ)))
told.with_suffix(".part").rename(told)
while told.exists():
    time.sleep(0.1)
"""
#: What Prefect's API lists.
LISTED = (
    "artifacts", "automations", "block_documents", "block_types", "deployments", "events", "flow_runs", "flows",
    "task_runs", "variables", "work_pools", "work_pools/h2crop/queues", "work_pools/h2crop/workers", "work_queues",
)  # fmt: skip


def forms_of(secret: str) -> set[bytes]:
    """A secret as it may be written: as it is, in URLs, in JSON, and in base64, also within a longer text."""
    forms = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1]}
    raw = secret.encode()
    for before in range(3):
        # Of a text in base64 the first and last characters depend on what stands beside it.
        encoded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")[-(-8 * before // 6) :]
        inner = encoded[: len(encoded) - 1] if (before + len(raw)) % 3 else encoded
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return {form.encode() for form in forms}


@dataclass
class LocalService:
    """The script at work. folder: its own. told: where it says that all is up, with its environment."""

    folder: Path
    told: Path
    process: subprocess.Popen[str]
    #: The arguments of every process of this machine that was seen, and where processes of the service listened.
    commands: set[bytes] = field(default_factory=set)
    listeners: set[tuple[str, int]] = field(default_factory=set)
    #: Pages of Dask while tasks were at work, by address; later ones are kept beside earlier ones.
    pages: dict[str, bytes] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> dict[str, str]:
        """What users of the service have to know."""
        found: dict[str, str] = json.loads(self.told.read_text(encoding="utf-8"))
        return found

    @property
    def ports(self) -> dict[str, int]:
        """By server."""
        lines = (self.folder / "ports").read_text(encoding="utf-8").splitlines()
        return {name: int(port) for name, port in (line.split("\t") for line in lines)}

    @property
    def secrets(self) -> dict[str, str]:
        """What the script made, by name."""
        return {path.name: path.read_text(encoding="utf-8") for path in (self.folder / "secrets").iterdir()}

    def output(self) -> str:
        """What the script has said so far."""
        return self.folder.with_name("output").read_text(encoding="utf-8")

    def ask(self, path: str, body: Mapping[str, Any] | None = None, method: str = "POST") -> Any:
        """An answer of Prefect's API."""
        answer = self.request(path, body, method)
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def request(self, path: str, body: Mapping[str, Any] | None = None, method: str = "POST") -> requests.Response:
        """The same, as it comes."""
        user, _, password = self.environment["PREFECT_API_AUTH_STRING"].partition(":")
        url = f"{self.environment['PREFECT_API_URL']}/{path}"
        return requests.request(method, url, json=body, timeout=120, auth=(user, password))

    def trigger(self, deployment: str, **parameters: Any) -> str:
        """Ask for a run with some parameters in place of the deployment's; gives its id."""
        identity = self.ask(f"deployments/name/{deployment}", method="GET")["id"]
        made = self.ask(f"deployments/{identity}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def ended(self, run: str) -> dict[str, Any]:
        """A run when it has ended."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.ask(f"flow_runs/{run}", method="GET")
            return found if found["state"]["type"] in ENDED else None

        return wait_until("the run ends", look, PATIENCE, lambda: self.output())

    def everything_in_the_api(self) -> dict[str, bytes]:
        """What Prefect's API says to whoever has its password."""
        found = {}
        for name in LISTED:
            answer = self.request(f"{name}/filter", {})
            found[f"API {name}"] = answer.content if answer.ok else b""
        for run in self.ask("flow_runs/filter", {}):
            lines: list[Any] = []
            of_run = {"flow_run_id": {"any_": [run["id"]]}}
            while more := self.ask("logs/filter", {"logs": of_run, "offset": len(lines), "limit": 200}):
                lines += more
            states = self.request(f"flow_run_states/?flow_run_id={run['id']}", method="GET").content
            found[f"API log and states of {run['name']}"] = json.dumps(lines).encode() + states
        for name in ("admin/settings", "work_pools/h2crop"):
            found[f"API {name}"] = self.request(name, method="GET").content
        root = self.environment["PREFECT_API_URL"].removesuffix("/api")
        return found | {"UI settings": requests.get(f"{root}/ui-settings", timeout=60).content}

    def everything_in_the_database(self) -> bytes:
        """PostgreSQL's own dump."""
        place = ["-h", "127.0.0.1", "-p", str(self.ports["postgres"]), "-U", "h2crop"]
        known = {**os.environ, "PGPASSWORD": self.secrets["database-password"]}
        done = subprocess.run(["pg_dump", *place, "prefect"], env=known, capture_output=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def everything_in_the_bucket(self) -> dict[str, bytes]:
        """Every object, by its key."""
        known = self.environment
        client = boto3.client(
            "s3",
            endpoint_url=known["AWS_ENDPOINT_URL"],
            aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
            region_name=known["AWS_DEFAULT_REGION"],
            config=Config(s3={"addressing_style": "path"}),
        )
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="cubes")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: client.get_object(Bucket="cubes", Key=key)["Body"].read() for key in keys}

    def everything_on_the_disk(self) -> dict[str, bytes]:
        """Files of the service but for the region and the secrets themselves."""
        mine = [path for path in self.folder.rglob("*") if path.is_file()]
        return {
            str(path): path.read_bytes()
            for path in mine
            if path.relative_to(self.folder).parts[0] not in ("region", "secrets")
        }

    def everything_of_dask(self) -> dict[str, bytes]:
        """What scheduler and workers say of themselves to a client."""
        with Client(f"tcp://127.0.0.1:{self.ports['dask']}", set_as_default=False) as client:
            with tempfile.TemporaryDirectory() as folder:
                client.dump_cluster_state(f"{folder}/state", format="yaml")
                state = Path(folder, "state.yaml").read_bytes()
            return {
                "Dask's state": state,
                "Dask's scheduler": repr(client.scheduler_info(n_workers=-1)).encode(),
                "Dask's logs": repr((client.get_scheduler_logs(), client.get_worker_logs())).encode(),
                "Dask's versions": repr(client.get_versions()).encode(),
            }

    def look(self) -> None:
        """See processes and where they listen until it is over; Dask's pages when tasks are at work."""
        last = 0.0
        while not self._over.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self.commands.add(process.read_bytes())
            if time.monotonic() - last > 8:
                self._look_at_listeners()
                with suppress(requests.RequestException, OSError, KeyError):
                    self._look_at_dask()
                last = time.monotonic()
            time.sleep(0.05)

    def _look_at_listeners(self) -> None:
        started: list[str] = []
        with suppress(OSError):
            started = (self.folder / "started").read_text(encoding="utf-8").split()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if str(process.pid) in started or "H2CROP_LOCAL_SERVICE" in process.environ():
                    found = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
                    self.listeners |= {(one.laddr.ip, one.laddr.port) for one in found}

    def _look_at_dask(self) -> None:
        """Every page that one comes to from the scheduler's own, with those of its workers."""
        root = f"http://127.0.0.1:{self.ports['dashboard']}"
        told = "".join(path.read_text(encoding="utf-8") for path in (self.folder / "logs").glob("dask-worker-*.log"))
        services = [f"http://{address}" for address in re.findall(r"dashboard at: +(127\.0\.0\.1:\d+)", told)]
        paths = requests.get(f"{root}/sitemap.json", timeout=30).json()["paths"]
        # Those that are patterns or no pages are left out, and one that Dask cannot write while tasks are at work.
        no_pages = ("(", "eventstream") if self.told.exists() else ("(", "eventstream", "identity.json")
        ways = [f"{root}{path}" for path in paths if not any(word in path for word in no_pages)]
        ways = [*ways, f"{root}/", f"{root}/status", *[f"{one}/{page}" for one in services for page in ("", "metrics")]]
        done: set[str] = set()
        while ways and len(done) < 150:
            url = ways.pop()
            if url in done or urlsplit(url).netloc not in {urlsplit(one).netloc for one in (root, *services)}:
                continue
            done.add(url)
            answer = requests.get(url, timeout=30)
            page = self.pages.get(url, b"")
            self.pages[url] = page if answer.content in page else page + answer.content
            if "html" in answer.headers.get("Content-Type", ""):
                linked = [urljoin(url, found) for found in re.findall(r"href=\"([^\"#]+)", answer.text)]
                ways += [way for way in linked if not any(word in way for word in no_pages)]

    def finish(self) -> int:
        """Let the script stop everything; gives its exit code."""
        with suppress(FileNotFoundError):
            self.told.unlink()
        code = self.process.wait(PATIENCE)
        self._over.set()
        return code


@contextmanager
def local_service(folder: Path, environment: Mapping[str, str], *, hold: bool) -> Iterator[LocalService]:
    """The script in the small size. hold: it waits, when all is done, until `finish`."""
    folder.mkdir(parents=True)
    told = folder / "told"
    program = folder / "hold.py"
    program.write_text(HOLD, encoding="utf-8")
    then = ["--then", shlex.join([sys.executable, str(program), str(told)])] if hold else []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / "output").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [str(SCRIPT), str(folder / "service"), *then],
            # Its own group, as a terminal would give it; in a shell's background SIGINT would be ignored.
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    service = LocalService(folder / "service", told, process)
    thread = threading.Thread(target=service.look, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        # The script stops what it has started, whatever was to come.
        with suppress(FileNotFoundError):
            told.unlink()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
        service._over.set()
        thread.join()
