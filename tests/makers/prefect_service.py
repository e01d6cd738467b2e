"""A Prefect server on SQLite and a process worker on this machine, as processes of a test's own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests

REPOSITORY = Path(__file__).parents[2]
#: Seconds that a server, a worker or a run may take to start on a busy machine.
START, RUN = 240.0, 300.0
#: Seconds that all processes together may take to end by themselves.
TIDY_END = 6.0
#: Types of states that stay.
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
Found = TypeVar("Found")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: str, look: Callable[[], Found | None], seconds: float, last: Callable[[], object] = str) -> Found:
    """What looking gives, once not None. Raises AssertionError with what was seen last when it takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not after {seconds:.0f} s; {last()}")


@dataclass
class PrefectService:
    """Folders and processes of a service. folder: of its database, settings and logs."""

    folder: Path
    port: int = field(default_factory=free_port)
    server: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """For every process of the service; the worker looks often, so that a test need not wait."""
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "H2CROP_WORK": str(self.folder / "work"),
            "OMP_NUM_THREADS": "1",
        }

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        self.server = self._start("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        wait_until("the server answers", self._answers, START, lambda: self.log_of("server"))

    def kill_server(self) -> None:
        """End the server as a power cut would."""
        assert self.server is not None
        self.server.send_signal(signal.SIGKILL)
        self.server.wait(30)

    def start_worker(self, pool: str) -> None:
        """Start a worker of a pool that is there."""
        self.workers.append(self._start("worker", "worker", "start", "--pool", pool))

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "prefect", *arguments]
            return subprocess.Popen(command, env=self.environment, cwd=REPOSITORY, stdout=log, stderr=log)

    def _answers(self) -> bool | None:
        try:
            return True if requests.get(f"{self.url}/health", timeout=2).ok else None
        except requests.RequestException:
            return None

    def log_of(self, name: str) -> str:
        """The end of what a process wrote."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def prefect(self, *arguments: str, **environment: str) -> str:
        """What a command of Prefect prints. Raises AssertionError where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            env={**self.environment, **environment},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str) -> str:
        """What some Python prints that talks to the server."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """An answer of the API; a server whose database is busy for a moment is asked again."""

        def look() -> requests.Response | None:
            answer = requests.request(method, f"{self.url}/{path}", json=body, timeout=120)
            return answer if answer.status_code != 503 else None

        answer = wait_until(f"{path} is answered", look, START, lambda: self.log_of("server"))
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by the names of its flow and itself, `flow/deployment`."""
        found: dict[str, Any] = self.ask(f"deployments/name/{name}", method="GET")
        return found

    def trigger(self, deployment: str, **parameters: Any) -> str:
        """Ask for a run now; gives its id. parameters: beside those of the deployment."""
        known = self.deployment(deployment)
        body = {"state": {"type": "SCHEDULED"}, "parameters": {**known["parameters"], **parameters}}
        return str(self.ask(f"deployments/{known['id']}/create_flow_run", body)["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """A run of a flow."""
        found: dict[str, Any] = self.ask(f"flow_runs/{run_id}", method="GET")
        return found

    def state(self, run_id: str) -> tuple[str, str, str]:
        """Type, name and message of a run's state."""
        state = self.run(run_id)["state"]
        return state["type"], state["name"], state["message"] or ""

    def ended(self, run_id: str, seconds: float = RUN) -> tuple[str, str, str]:
        """The state that a run ends in."""

        def look() -> tuple[str, str, str] | None:
            state = self.state(run_id)
            return state if state[0] in ENDED else None

        return wait_until(f"run {run_id} ends", look, seconds, lambda: f"{self.state(run_id)}\n{self.log_of('worker')}")

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        """All runs of a deployment, in order of the time they are due."""
        of_it = {"id": {"any_": [self.deployment(deployment)["id"]]}}
        runs: list[dict[str, Any]] = self.ask(
            "flow_runs/filter", {"deployments": of_it, "sort": "EXPECTED_START_TIME_ASC"}
        )
        return runs

    def scheduled_runs(self, deployment: str) -> list[dict[str, Any]]:
        """The runs that the scheduler made of a deployment and that have begun."""
        return [run for run in self.runs_of(deployment) if run["auto_scheduled"] and run["start_time"]]

    def wait_for_all(self, deployment: str) -> None:
        """Wait until no run of a deployment without a schedule is left."""

        def look() -> bool | None:
            return all(run["state"]["type"] in ENDED for run in self.runs_of(deployment)) or None

        wait_until("all runs end", look, RUN, lambda: str([run["state"] for run in self.runs_of(deployment)]))

    def lines(self, run_id: str) -> list[str]:
        """The log of a run."""
        return [line["message"] for line in self.log_of_run(run_id)]

    def levels(self, run_id: str) -> dict[str, str]:
        """The level of each line of the log of a run."""
        return {line["message"]: logging.getLevelName(line["level"]) for line in self.log_of_run(run_id)}

    def log_of_run(self, run_id: str) -> list[dict[str, Any]]:
        """The log of a run as the server has it."""
        found: list[dict[str, Any]] = self.ask(
            "logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        )
        return found

    def artifacts(self, run_id: str) -> dict[str, Any]:
        """What a run shows: by the key of an artifact without the store's part, its data."""
        found = self.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
        return {artifact["key"].split("-")[1]: artifact["data"] for artifact in found}

    def stop(self) -> None:
        """End every process, those of runs with their worker."""
        processes = [*self.workers, *([self.server] if self.server else [])]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        # A worker that lost its server may wait for it: nobody needs a tidy end.
        deadline = time.monotonic() + TIDY_END
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)


@contextmanager
def prefect_service(folder: Path) -> Iterator[PrefectService]:
    """A service while it is needed: a server that answers, no worker yet."""
    folder.mkdir(parents=True)
    service = PrefectService(folder)
    try:
        service.start_server()
        yield service
    finally:
        service.stop()
