"""Builds killed in the middle and started again end as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_builds import SAID_BY_RUNS

RECIPES = Path(__file__).parent / "recipes"
STORES = {"flanders_2018": 2018, "potsdam_2022": 2022}


def build(name: str, out: Path, shared: Path, *options: str) -> subprocess.Popen[str]:
    """Start a build in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "h2crop_data", "build", str(RECIPES / f"{name}.yaml"), "--out", str(out), *options],
        env={**os.environ, "H2CROP_SHARED": str(shared.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Kill a process, and only that, the hard way as soon as the condition holds."""
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"the build ended before it could be killed: {process.communicate()[0]}")
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    # Workers hold the pipe too: they must end with the builder.
    process.communicate(timeout=30)


def contents(store: Path) -> dict[str, str]:
    """Every file of a store but the builder's own folder, and its hash."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file() and path.relative_to(store).parts[0] != ".build"
    }


def builder_files(store: Path) -> set[str]:
    """The names in the builder's own folder."""
    return {str(path.relative_to(store)) for path in (store / ".build").rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", sorted(STORES))
@pytest.mark.parametrize(
    "options", [("--workers", "1"), ("--workers", "2", "--processes")], ids=["thread", "processes"]
)
def test_a_build_killed_twice_ends_byte_identical(
    name: str, options: tuple[str, ...], shared: Path, tmp_path: Path
) -> None:
    reference, broken = tmp_path / "reference", tmp_path / "broken"
    told = finish(build(name, reference, shared, *options))
    season = STORES[name]
    # It tells how far it is, and where the time went.
    assert f"blocks, season {season} block" in told
    assert "worker time by step" in told
    assert re.search(r"^write +\d", told, re.MULTILINE)

    def block_begun() -> bool:
        # The plan is kept, the first block is being computed or written.
        return (broken / f".build/plan/{season}/plan.json").exists()

    def block_done() -> bool:
        return any((broken / f".build/{season}").glob("*.json"))

    kill_when(build(name, broken, shared, *options), block_begun)
    assert not (broken / "zarr.json").exists()
    kill_when(build(name, broken, shared, *options), block_done)
    finish(build(name, broken, shared, *options))
    assert contents(broken) == contents(reference)
    assert builder_files(broken) == builder_files(reference)
    assert not list((broken / ".build/tmp").iterdir())


def test_a_build_killed_while_sealing_ends_byte_identical(shared: Path, tmp_path: Path) -> None:
    reference, broken = tmp_path / "reference", tmp_path / "broken"
    finish(build("potsdam_2022", reference, shared))
    kill_when(build("potsdam_2022", broken, shared), lambda: (broken / "2022/epsg/c.0").exists())
    finish(build("potsdam_2022", broken, shared))
    assert contents(broken) == contents(reference)


def test_building_a_finished_store_again_changes_nothing(shared: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    finish(build("potsdam_2022", store, shared))
    kept = [path for path in store.rglob("*") if path.is_file() and path.name not in SAID_BY_RUNS]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert "release 1" in finish(build("potsdam_2022", store, shared))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (store / "index/r2").exists()


def test_a_second_builder_is_told_who_holds_the_store(shared: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = build("flanders_2018", store, shared, "--workers", "1")
    lock = store / ".build/lock"
    while not (lock.exists() and lock.read_text()):
        assert first.poll() is None
        time.sleep(0.01)
    # It holds the store for as long as the second takes to start.
    first.send_signal(signal.SIGSTOP)
    try:
        second = build("flanders_2018", store, shared)
        output, _ = second.communicate(timeout=60)
    finally:
        first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert f"locked by another builder (process {first.pid})" in " ".join(output.split())
    assert "Traceback" not in output
    finish(first)
