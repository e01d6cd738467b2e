"""Connections to archives on a cluster: all workers together keep to what an archive allows and a recipe wants."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dask_cluster import PATIENCE, QUICK, DaskCluster, dask_cluster, wait_until
from limited_reads import keep_connection, read_as_allowed, read_as_wanted

from h2crop_data.pipeline.engine import Workers, open_pool

WORKERS = 3


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker is given up because it imports something for some seconds."""
    monkeypatch.setitem(QUICK, "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "60s")


@dataclass
class Archive:
    """A web server that answers after a moment, and notes how many requests it has at a time."""

    url: str = ""
    now: int = 0
    most: int = 0
    requests: int = 0
    changing: threading.Lock = field(default_factory=threading.Lock)

    def note(self, change: int) -> None:
        """A request came or went."""
        with self.changing:
            self.now += change
            self.most = max(self.most, self.now)
            self.requests += change > 0


@pytest.fixture
def archive() -> Iterator[Archive]:
    archive = Archive()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            archive.note(1)
            time.sleep(0.03)
            archive.note(-1)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    archive.url = f"http://127.0.0.1:{server.server_port}/scene.tif"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


@contextmanager
def machines(folder: Path, workers: int = WORKERS) -> Iterator[DaskCluster]:
    """A cluster whose workers share no temporary files, as on machines of their own."""
    temporary = [folder / f"machine-{number}" for number in range(workers)]
    with dask_cluster(folder / "cluster", workers=0) as cluster:
        for own in temporary:
            own.mkdir()
        cluster.start_workers(*({"TMPDIR": str(own)} for own in temporary))
        yield cluster


@contextmanager
def pool_of(cluster: DaskCluster, folder: Path) -> Iterator[Executor]:
    """The workers, as the engine has them."""
    (folder / "store").mkdir(exist_ok=True)
    with open_pool(Workers(1, "dask", cluster.address), str(folder / "store")) as pool:
        yield pool.executor


@pytest.mark.parametrize("work", [read_as_allowed, read_as_wanted])
def test_all_workers_together_have_no_more_connections_than_there_are(
    archive: Archive, tmp_path: Path, work: Any
) -> None:
    reads, tasks = 12, 2 * WORKERS
    with machines(tmp_path) as cluster, pool_of(cluster, tmp_path) as pool:
        begun: list[Future[int]] = [pool.submit(work, archive.url, 2, reads) for _ in range(tasks)]
        assert [future.result(PATIENCE) for future in begun] == [reads] * tasks
    assert archive.requests == reads * tasks
    assert archive.most == 2
    # Each machine counted its own as well.
    assert all(list((tmp_path / f"machine-{number}").glob("h2crop-connections-*/*")) for number in range(WORKERS))


def test_those_of_a_worker_that_died_are_free_after_a_while(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_TIMEOUT", "3s")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_VALIDATION_INTERVAL", "500ms")
    taken = tmp_path / "taken"
    with machines(tmp_path, 2) as cluster, pool_of(cluster, tmp_path) as pool:
        pool.submit(keep_connection, 1, str(taken))
        wait_until(taken.exists, lambda: f"no worker took it: {[node.text for node in cluster.workers]}")
        reading = pool.submit(read_as_allowed, archive.url, 1, 1)
        # For longer than a lease that nobody renews.
        with pytest.raises(TimeoutError):
            reading.result(5)
        os.kill(int(taken.read_text()), signal.SIGKILL)
        assert reading.result(PATIENCE) == 1
