"""Builds on a real Dask cluster: processes of this machine that speak over TCP, and what becomes of them."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dask
import pytest
from dask_cluster import CHECKOUT, PATIENCE, DaskCluster, Node, dask_cluster, wait_until
from distributed import Client
from killed_builds import contents, differences, small_region
from mishap_source import PLUGIN, mishaps_installed
from typer.testing import CliRunner

from h2crop_data import __version__
from h2crop_data.cli.main import app
from h2crop_data.errors import ClusterError, StoreError, UsageError
from h2crop_data.pipeline.build import BuildReport, build_store
from h2crop_data.pipeline.cluster import begin_task, connected, keep_outcome, take_outcome, tasks_a_thread
from h2crop_data.pipeline.cluster_session import TOKEN, Session, open_session
from h2crop_data.pipeline.engine import BuildError, Workers
from h2crop_data.recipe.model import Recipe, load_recipe

BLOCKS = 8
#: Seconds that blocks take longer in builds that are disturbed.
SLOW = {"MISHAPS_SECONDS": "0.7"}
#: A text of the package, and what another one has there.
OTHER_CODE = ("from __future__", "# Changed.\nfrom __future__")
OTHER_VERSION = (f'__version__ = "{__version__}"', '__version__ = "9.9"')


@pytest.fixture(scope="module", autouse=True)
def source_of_mishaps() -> Iterator[None]:
    """Its package, on the builder and on workers, which get their faults by variables."""
    with mishaps_installed():
        yield


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("region")
    small_region(folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"{recipe.read_text(encoding='utf-8')}\nmishaps: {{}}\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe(region: Path) -> Recipe:
    return load_recipe(region / "recipe.yaml")


@pytest.fixture(scope="module")
def reference(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store, built by threads of this process."""
    store = tmp_path_factory.mktemp("reference") / "store"
    assert build_store(recipe, store, workers=1).built == BLOCKS
    return store


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def disturbed_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("disturbed"), workers=0) as cluster:
        yield cluster


@pytest.fixture
def slow_cluster(disturbed_cluster: DaskCluster) -> DaskCluster:
    """Two workers that take their time; they may be killed."""
    disturbed_cluster.renew_workers(2, SLOW)
    return disturbed_cluster


def on(cluster: DaskCluster) -> Workers:
    return Workers(1, "dask", cluster.address)


@contextmanager
def building(recipe: Recipe, store: Path, cluster: DaskCluster) -> Iterator[Future[BuildReport]]:
    """A build that goes on while it is disturbed."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(build_store, recipe, store, workers=on(cluster))


def wait_for_blocks(store: Path, number: int, build: Future[BuildReport]) -> None:
    """Wait until so many blocks are done."""
    wait_until(
        lambda: build.done() or len(list(store.glob(".build/20*/*.json"))) >= number,
        lambda: f"{len(list(store.glob('.build/20*/*.json')))} blocks of {store}",
    )
    assert not build.done(), build.exception() or "the build is done already"


def wait_for_task(store: Path, worker: Node) -> None:
    """Wait until a worker is at a block."""
    notes: list[Path] = []

    def is_busy() -> bool:
        nonlocal notes
        notes = [*store.glob(".build/work/cluster/*/0*-*")]
        return any(text_of(note) == worker.address for note in notes)

    wait_until(is_busy, lambda: f"{worker.address} has none of {notes}")
    # A block takes long; a reading does not.
    time.sleep(0.2)


def assert_nothing_more_comes(store: Path, workers: int, seconds: float) -> None:
    """For so long nothing is written, but the one file each worker may be putting in its place as the build ends."""
    left = contents(store)
    time.sleep(seconds)
    later = contents(store)
    assert left.items() <= later.items()
    assert len(later.items() - left.items()) <= workers
    time.sleep(1)
    assert contents(store) == later


def text_of(note: Path) -> str:
    try:
        return note.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def test_a_cluster_builds_byte_for_byte_what_one_thread_builds(
    cluster: DaskCluster, recipe: Recipe, reference: Path, tmp_path: Path
) -> None:
    assert build_store(recipe, tmp_path / "store", workers=on(cluster)).built == BLOCKS
    assert differences(tmp_path / "store", reference) == []
    # Every block was built by a worker, none here.
    assert all("/cluster" not in str(path) for path in tmp_path.rglob("*"))


def test_a_build_by_relative_paths_is_the_same(
    cluster: DaskCluster, recipe: Recipe, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers run in folders of their own."""
    monkeypatch.chdir(tmp_path)
    build_store(recipe, "store", workers=on(cluster), scratch=Path("scratch"))
    assert differences(tmp_path / "store", reference) == []
    assert not any(cluster.folder.glob("store*"))


def test_workers_that_outlive_a_build_take_files_that_were_replaced_since(
    region: Path, recipe: Recipe, reference: Path, cluster: DaskCluster, tmp_path: Path
) -> None:
    build_store(recipe, tmp_path / "before", workers=on(cluster))
    times = {scene: scene.stat().st_mtime_ns for scene in region.rglob("*.tif")}
    try:
        for scene in times:
            # The same file at another time: while a build goes on it is taken for another one.
            os.utime(scene, (1, 1))
        build_store(recipe, tmp_path / "after", workers=on(cluster))
    finally:
        for scene, at in times.items():
            os.utime(scene, ns=(at, at))
    # Results of units are kept with the time of the files they were computed from.
    assert not [line for line in differences(tmp_path / "after", reference) if ".build/work/" not in line]


def test_what_a_killed_worker_was_at_is_built_by_another(
    slow_cluster: DaskCluster, recipe: Recipe, reference: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    caplog.set_level("DEBUG", "h2crop_data")
    with building(recipe, store, slow_cluster) as build:
        wait_for_blocks(store, 1, build)
        victim = slow_cluster.workers[0]
        wait_for_task(store, victim)
        victim.kill()
        assert build.result(PATIENCE).built == BLOCKS
    # The client says who is lost; what a worker does is in its own log, from the client's level on.
    left = f"worker {victim.address} left the cluster at {slow_cluster.address}; others do what it was given (1 left)"
    assert [one.levelname for one in caplog.records if one.getMessage() == left] == ["WARNING"]
    assert len([text for text in caplog.messages if re.match(r"season \d+ block \d+ built", text)]) == BLOCKS
    begun = re.findall(
        r"Z DEBUG h2crop_data.pipeline.engine: season \d+ block (\d+): begun", slow_cluster.workers[1].text
    )
    assert len(set(begun)) >= 1
    assert f"Remove worker addr: {victim.address}" in slow_cluster.scheduler.text
    assert differences(store, reference) == []


@pytest.mark.parametrize("until", ["soon", "the end"])
def test_a_worker_that_is_stopped_for_a_while_loses_nothing(
    slow_cluster: DaskCluster, recipe: Recipe, reference: Path, tmp_path: Path, until: str
) -> None:
    store = tmp_path / "store"
    with building(recipe, store, slow_cluster) as build:
        wait_for_blocks(store, 1, build)
        victim = slow_cluster.workers[0]
        wait_for_task(store, victim)
        victim.send(signal.SIGSTOP)
        if until == "soon":
            time.sleep(1)
            victim.send(signal.SIGCONT)
        assert build.result(PATIENCE).built == BLOCKS
    assert (f"Remove worker addr: {victim.address}" in slow_cluster.scheduler.text) == (until == "the end")
    assert differences(store, reference) == []
    # What it goes on with now must change nothing.
    victim.send(signal.SIGCONT)
    time.sleep(2)
    assert differences(store, reference) == []


def test_a_lost_scheduler_ends_the_build_and_nothing_is_written_after(
    cluster: DaskCluster, recipe: Recipe, reference: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with dask_cluster(tmp_path / "killed", environment={"MISHAPS_SECONDS": "3"}) as killed:
        with building(recipe, store, killed) as build:
            wait_for_blocks(store, 1, build)
            for worker in killed.workers:
                wait_for_task(store, worker)
            killed.scheduler.kill()
            with pytest.raises(ClusterError, match=r"cluster at tcp://\S+ was lost: finished blocks are kept; start"):
                build.result(PATIENCE)
        assert_nothing_more_comes(store, len(killed.workers), seconds=7)
    report = build_store(recipe, store, workers=on(cluster))
    assert 0 < report.already_done < BLOCKS
    assert report.built + report.already_done == BLOCKS
    assert differences(store, reference) == []


def another_checkout(folder: Path, change: tuple[str, str]) -> dict[str, str]:
    """Variables of a worker that has another h2crop: the package with a text of its first module replaced."""
    shutil.copytree(CHECKOUT / "h2crop_data", folder / "h2crop_data", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "taxonomy").symlink_to(CHECKOUT / "taxonomy")
    module = folder / "h2crop_data/__init__.py"
    text = module.read_text(encoding="utf-8")
    assert change[0] in text
    module.write_text(text.replace(*change), encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(PLUGIN)])}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (OTHER_VERSION, rf"h2crop-data is 9\.9, here {__version__}; the code of h2crop-data is \w+, here \w+: install"),
        (OTHER_CODE, r"cannot build: the code of h2crop-data is \w+, here \w+: install the same versions there$"),
    ],
)
def test_a_worker_with_another_h2crop_is_refused(
    cluster: DaskCluster, recipe: Recipe, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    [worker] = cluster.start_workers(another_checkout(tmp_path / "other", change))
    try:
        with pytest.raises(ClusterError, match=words) as caught:
            build_store(recipe, tmp_path / "store", workers=on(cluster))
        assert f"worker {worker.address} of the cluster at {cluster.address} cannot build" in str(caught.value)
    finally:
        cluster.end_worker(worker)
    assert not list((tmp_path / "store").glob(".build/20*/*.json"))


def test_a_worker_that_joins_later_is_checked_before_its_first_task(
    slow_cluster: DaskCluster, recipe: Recipe, tmp_path: Path
) -> None:
    other, store = another_checkout(tmp_path / "other", OTHER_VERSION), tmp_path / "store"
    late = slow_cluster.start_worker(other)
    late.send(signal.SIGSTOP)
    try:
        with building(recipe, store, slow_cluster) as build:
            wait_for_blocks(store, 1, build)
            for worker in slow_cluster.workers[:2]:
                worker.send(signal.SIGSTOP)
            late.send(signal.SIGCONT)
            slow_cluster.wait_for(late)
            with pytest.raises(ClusterError, match=rf"worker {late.address} cannot build: .*h2crop-data is 9\.9"):
                build.result(PATIENCE)
    finally:
        slow_cluster.end_worker(late)


def test_a_worker_that_joins_later_takes_its_part(recipe: Recipe, reference: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with dask_cluster(tmp_path / "cluster", workers=0) as cluster, building(recipe, store, cluster) as build:
        wait_until(lambda: any(store.glob(".build/work/cluster/*/session.json")), lambda: "no session")
        time.sleep(1)
        cluster.start_workers({})
        assert build.result(PATIENCE).built == BLOCKS
    assert differences(store, reference) == []


def test_blocks_that_fail_or_kill_workers_are_listed_and_the_others_built(
    recipe: Recipe, reference: Path, tmp_path: Path
) -> None:
    faults = {"MISHAPS_FAILING": "2022-1:ReadError", "MISHAPS_DEADLY": "2023-2"}
    store = tmp_path / "store"
    with dask_cluster(tmp_path / "cluster", workers=4, environment=faults) as cluster:
        with pytest.raises(BuildError, match=r"2 of 8 blocks failed") as caught:
            build_store(recipe, store, workers=on(cluster))
        assert sum(worker.process.poll() == -signal.SIGKILL for worker in cluster.workers) == 3
    failed = {(outcome.season, outcome.block): str(outcome.error) for outcome in caught.value.failed}
    assert failed.keys() == {(2022, 1), (2023, 2)}
    assert failed[2022, 1] == "cannot read what block 2022-1 needs"
    assert "3 workers died while they worked on it (tcp://127.0.0.1:" in failed[2023, 2]
    assert len(list(store.glob(".build/20*/*.json"))) == BLOCKS - 2
    assert build_store(recipe, store, workers=1).built == 2
    assert differences(store, reference) == []


def test_a_folder_that_workers_do_not_see_is_refused(
    cluster: DaskCluster, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this path every process has a folder of its own."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ClusterError, match=r"cannot build: it cannot read .*session\.json .*put it on shared storage"):
        build_store(recipe, "/proc/self/cwd/store", workers=on(cluster))
    with pytest.raises(ClusterError, match=r"its /proc/self/cwd/\S+ is not the scratch folder of this build: put it"):
        build_store(recipe, tmp_path / "store", workers=on(cluster), scratch=Path("/proc/self/cwd"))


def test_a_file_system_that_does_not_share_locks_is_refused(
    cluster: DaskCluster, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where each machine has locks of its own: workers see none of this one."""
    monkeypatch.setattr("h2crop_data.pipeline.cluster_session.lock_held", lambda path: nullcontext())
    with pytest.raises(
        ClusterError, match=r"it does not see the locks of this machine in \S+: mount the file system so"
    ):
        build_store(recipe, tmp_path / "store", workers=on(cluster))


def test_tasks_are_small_and_hold_no_secret(
    cluster: DaskCluster, recipe: Recipe, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a real build gives to the cluster, as Dask sends it; workers have accounts of their own."""
    secret = "s3cr3t-0f-th3-cl13nt"
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "PC_SDK_SUBSCRIPTION_KEY", "DLR_PASSWORD", "CDSE_PASSWORD")
    for name in names:
        monkeypatch.setenv(name, secret)
    sent: list[bytes] = []
    submit = Client.submit

    def submit_noting(self: Client, call: Any, **options: Any) -> Any:
        if "key" in options:  # else it asks a worker what that is like
            sent.append(pickle.dumps(call))
        return submit(self, call, **options)

    monkeypatch.setattr(Client, "submit", submit_noting)
    build_store(recipe, tmp_path / "store", workers=on(cluster))
    calls = [zlib.decompress(call_of(one)) for one in sent]
    kinds = Counter(type(pickle.loads(call)[1][-1]).__name__ for call in calls)
    assert kinds["BlockTask"] == BLOCKS
    assert kinds["Reading"] > 0
    assert kinds["UnitOrder"] > 0
    assert max(map(len, sent)) < 10_000
    assert not any(secret.encode() in one for one in [*sent, *calls])


def call_of(sent: bytes) -> bytes:
    """The packed call of a task, read without making it."""

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return (lambda *arguments: arguments[-1]) if name == "do_task" else super().find_class(module, name)

    return Reader(io.BytesIO(pickle.loads(sent).args[0])).load()


def test_a_worker_without_h2crop_is_refused_and_lives(cluster: DaskCluster, recipe: Recipe, tmp_path: Path) -> None:
    other = tmp_path / "other/h2crop_data"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text('__version__ = "0.0.9"\n', encoding="utf-8")
    worker = cluster.start_worker({"PYTHONPATH": str(other.parent)})
    cluster.wait_for(worker)
    told = (
        rf"worker {worker.address} of the cluster .* it does not have the same version of h2crop-data "
        r"\(No module named .*: install"
    )
    try:
        with pytest.raises(ClusterError, match=told):
            build_store(recipe, tmp_path / "store", workers=on(cluster))
        assert worker.process.poll() is None
    finally:
        cluster.end_worker(worker)


def test_a_build_that_is_interrupted_drops_what_waits_and_goes_on_later(
    slow_cluster: DaskCluster, region: Path, reference: Path, tmp_path: Path
) -> None:
    """Ctrl-C on the command line."""
    store = tmp_path / "store"
    options = ["--out", str(store), "--dask", slow_cluster.address]
    # Processes in the background of a shell ignore the signal.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heeding}; from h2crop_data.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(region / "recipe.yaml"), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PLUGIN), str(CHECKOUT)])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as build:
        try:
            wait_until(
                lambda: build.poll() is not None or any(store.glob(".build/20*/*.json")), lambda: "no block is done"
            )
            build.send_signal(signal.SIGINT)
            said, _ = build.communicate(timeout=PATIENCE)
        finally:
            build.kill()
    assert build.returncode not in (0, None), said
    assert b"Traceback" not in said
    assert_nothing_more_comes(store, len(slow_cluster.workers), seconds=3)
    assert len(list(store.glob(".build/20*/*.json"))) < BLOCKS
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert again.returncode == 0, again.stderr
    assert differences(store, reference) == []


@pytest.mark.parametrize("options", [["--workers", "2"], ["--processes"]])
def test_a_cluster_has_its_own_workers(options: list[str], region: Path, tmp_path: Path) -> None:
    asked = ["build", str(region / "recipe.yaml"), "--out", str(tmp_path / "store"), "--dask", "tcp://127.0.0.1:1"]
    result = CliRunner().invoke(app, [*asked, *options])
    assert isinstance(result.exception, UsageError)
    assert "--dask cannot be combined with --workers or --processes" in str(result.exception)


def test_without_the_package_the_extra_is_named(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[cluster\]'"):
        build_store(recipe, tmp_path / "store", workers=Workers(1, "dask", "tcp://127.0.0.1:1"))


def test_a_cluster_that_does_not_answer_is_named(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--dask localhost:8786: expected an address that begins with tcp:// or tls://"
    ):
        build_store(recipe, tmp_path / "store", workers=Workers(1, "dask", "localhost:8786"))
    quick = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with quick, pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 .*start one"):
        build_store(recipe, tmp_path / "store", workers=Workers(1, "dask", "tcp://127.0.0.1:1"))


def test_a_block_that_meets_a_lost_cluster_ends_the_build(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the scheduler gives no connection to an archive: other blocks would meet it too, and nothing is wrong
    with this one."""

    monkeypatch.setenv("MISHAPS_FAILING", "all:ClusterError")
    with pytest.raises(ClusterError, match=r"^cannot read what block 20\d\d-\d+ needs$"):
        build_store(recipe, tmp_path / "store", workers=1)


def test_a_session_that_cannot_be_written_is_not_taken_for_one_that_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("h2crop_data.pipeline.cluster.worker_address", lambda: "tcp://10.0.0.7:1")
    over, blocked, good = Session(tmp_path / "over"), Session(tmp_path / "file"), Session(tmp_path / "good")
    blocked.folder.touch()
    good.folder.mkdir()
    note = begin_task(good, "1")
    for call in (lambda: begin_task(over, "1"), lambda: keep_outcome(over, "1", over.folder / "1-0", b"")):
        with pytest.raises(ClusterError, match=r"worker tcp://10\.0\.0\.7:1: the build of its task is over"):
            call()
    told = r"^worker tcp://10\.0\.0\.7:1 cannot write \S+1-0: Not a directory; fix that and rerun the same command$"
    for call in (lambda: begin_task(blocked, "1"), lambda: keep_outcome(blocked, "1", blocked.folder / "1-0", b"")):
        with pytest.raises(StoreError, match=told):
            call()
    with pytest.raises(StoreError, match=r"cannot read \S+/1, written by a worker: No such file or directory"):
        take_outcome(good, "1")
    keep_outcome(good, "1", note, pickle.dumps(({"samples": 3}, 0.5)))
    assert take_outcome(good, "1") == ({"samples": 3}, 0.5)
    assert not any(good.folder.iterdir())


def test_two_tasks_a_thread_are_with_the_cluster_and_a_few_more_of_short_ones() -> None:
    assert tasks_a_thread([]) == 2
    assert tasks_a_thread([0.001] * 15) == 2
    assert tasks_a_thread([0.001] * 16) == 8
    assert tasks_a_thread([0.02] * 16) == 5
    assert tasks_a_thread([0.05] * 16) == 2
    # Readings take little, blocks do not.
    assert tasks_a_thread([0.001] * 15 + [2.0]) == 2


def test_an_address_that_needs_certificates_says_so() -> None:
    told = r"--dask tls://127\.0\.0\.1:1: .*set the certificates in Dask's configuration"
    with pytest.raises(UsageError, match=told), connected("tls://127.0.0.1:1"):
        pass


def test_what_a_killed_client_left_in_shared_folders_is_deleted(tmp_path: Path) -> None:
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    with open_session(work, {"scratch folder": scratch}):
        # As it is when the client is killed now.
        left = [path.read_bytes() for path in scratch.iterdir()]
        kept = {path: path.read_bytes() for path in tmp_path.rglob(f"{TOKEN}*")}
    for path, data in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with open_session(work, {"scratch folder": scratch}):
        assert len(left) == len(list(scratch.iterdir())) == 1
    assert not list(tmp_path.rglob(f"{TOKEN}*"))
