"""A Dask cluster of this machine: a scheduler and workers, each a process of its own, that speak over TCP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h2crop_data

#: Seconds that anything may take before a test fails.
PATIENCE = 120.0
#: Where this package lies: workers run elsewhere, and must find the one that is tested.
CHECKOUT = Path(h2crop_data.__file__).parents[1]
#: What all of its processes find, beside what this one does: the package, and the functions of tests.
MODULES = os.pathsep.join([str(CHECKOUT), str(Path(__file__).parent)])
#: Scheduler and workers notice soon what in production takes minutes.
QUICK = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3s",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
}


def wait_until(condition: Callable[[], bool], what: Callable[[], str], seconds: float = PATIENCE) -> None:
    """Wait until something holds; fail with what was seen instead."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds:g} s: {what()}"
        time.sleep(0.02)


@dataclass
class Node:
    """A process of a cluster."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        """What it has said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def address(self) -> str:
        """Where it listens."""
        match = re.search(r"Listening to:\s+(tcp://127\.0\.0\.1:\d+)", self.text)
        assert match is not None, self.text
        return match.group(1)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it the hard way, stopped or not."""
        self.process.kill()
        self.process.wait(PATIENCE)


@dataclass
class DaskCluster:
    """A scheduler and its workers, whose logs lie in a folder."""

    folder: Path
    nodes: list[Node] = field(default_factory=list)
    address: str = ""
    #: How many processes were started.
    started: int = 0

    @property
    def scheduler(self) -> Node:
        """The process of the scheduler."""
        return self.nodes[0]

    @property
    def workers(self) -> list[Node]:
        """The processes of the workers."""
        return self.nodes[1:]

    def start_scheduler(self) -> None:
        """Start the scheduler at a free port of this machine."""
        node = self.start("dask_scheduler", "--host", "tcp://127.0.0.1:0", "--no-dashboard")

        def said() -> re.Match[str] | None:
            return re.search(r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)", node.text)

        wait_until(lambda: said() is not None, lambda: f"the scheduler said {node.text}")
        match = said()
        assert match is not None
        self.address = match.group(1)

    def start_workers(self, *environments: Mapping[str, str]) -> list[Node]:
        """Start workers with these variables; gives them when the scheduler knows them."""
        nodes = [self.start_worker(environment) for environment in environments]
        for node in nodes:
            self.wait_for(node)
        return nodes

    def renew_workers(self, number: int, environment: Mapping[str, str]) -> None:
        """Have so many workers that live and are known to the scheduler; the others are ended."""
        for node in self.workers:
            if node.process.poll() is not None or f"Remove worker addr: {node.address}" in self.scheduler.text:
                node.kill()
                self.nodes.remove(node)
        self.start_workers(*[environment] * (number - len(self.workers)))

    def end_worker(self, node: Node) -> None:
        """End a worker; the scheduler takes note."""
        node.kill()
        self.nodes.remove(node)
        text = f"Remove worker addr: {node.address}"
        wait_until(lambda: text in self.scheduler.text, lambda: f"the scheduler said {self.scheduler.text}")

    def wait_for(self, worker: Node) -> None:
        """Wait until the scheduler knows a worker."""
        wait_until(lambda: "Starting established connection" in worker.text, lambda: f"the worker said {worker.text}")

    def start_worker(self, environment: Mapping[str, str]) -> Node:
        """Start a worker, in another working folder than the tests'."""
        size = ("--nthreads", "1", "--memory-limit", "0")
        place = ("--host", "127.0.0.1", "--local-directory", str(self.folder))
        options = ("--no-nanny", "--no-dashboard", *place)
        return self.start("dask_worker", self.address, *size, *options, environment=environment)

    def start(self, program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Node:
        """Start a program of Dask's."""
        self.started += 1
        log = self.folder / f"{self.started}-{program}.log"
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments]
        modules = os.pathsep.join(filter(None, [MODULES, os.environ.get("PYTHONPATH")]))
        variables = {**os.environ, **QUICK, "PYTHONPATH": modules, **(environment or {})}
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=self.folder, env=variables, start_new_session=True
            )
        self.nodes.append(Node(process, log))
        return self.nodes[-1]

    def end(self) -> None:
        """End all processes, workers first."""
        for node in reversed(self.nodes):
            node.kill()


@contextmanager
def dask_cluster(folder: Path, workers: int = 2, environment: Mapping[str, str] | None = None) -> Iterator[DaskCluster]:
    """A scheduler and so many workers of one thread. environment: variables of the workers."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder)
    try:
        cluster.start_scheduler()
        cluster.start_workers(*[environment or {}] * workers)
        yield cluster
    finally:
        cluster.end()
