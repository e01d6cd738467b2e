"""Builds in bad places: full disks, folders that may only be read, an S3 server that fails, two builders at once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_builds import contents, small_region
from noting_storage import NotingStorage
from s3_server import BUCKET, Fault, s3_environment, s3_proxy, s3_server
from small_disk import mounted
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index, store_attributes
from h2crop_data.errors import StoreError
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import WorkerKind, Workers
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.storage.location import open_storage


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("small")
    small_region(folder)
    return load_recipe(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def reference(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every file of a store nobody disturbed."""
    folder = tmp_path_factory.mktemp("reference") / "store"
    build_store(recipe, folder, workers=2)
    return contents(folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, whose size and rights can be changed."""
    with mounted(tmp_path / "disk") as folder:
        yield folder


def test_a_disk_that_fills_up_while_building_is_told_and_gone_on_with(
    recipe: Recipe, reference: dict[str, str], disk: Path
) -> None:
    store = disk / "store"
    told: list[str] = []
    for size in range(256, 4096, 96):
        subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
        try:
            build_store(recipe, store, workers=1)
            break
        except StoreError as error:
            told.append(str(error))
        # What a reader finds is nothing or a whole release, and nothing half written lies about.
        assert not (store / "zarr.json").exists()
        assert not list((store / ".build/tmp").glob("*"))
        for path in store.glob("2*/*/c.*"):
            name = str(path.relative_to(store))
            assert hashlib.sha256(path.read_bytes()).hexdigest() == reference[name], name
    assert len(told) >= 3
    assert all("No space left on device" in line and "rerun" in line for line in told)
    assert contents(store) == reference


def test_a_folder_that_may_only_be_read_is_told(recipe: Recipe, reference: dict[str, str], disk: Path) -> None:
    store = disk / "store"
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StoreError, match=r"cannot write in .*Read-only file system"):
        build_store(recipe, store, workers=1)
    subprocess.run(["mount", "-o", "remount,rw,size=8m", disk], check=True)
    build_store(recipe, store, workers=1)
    # A release that cannot be written to is read all the same.
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert h2crop_data.open(store, 2022).load().sizes["sample"] == 4
    done = CliRunner().invoke(app, ["inspect", str(store), "--json"])
    assert done.exit_code == 0
    with pytest.raises(StoreError, match="Read-only file system"):
        build_store(recipe.for_seasons([2023]), store, workers=1)
    assert contents(store) == reference


def test_of_two_builders_one_works_and_the_other_is_told(
    recipe: Recipe, reference: dict[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    path = str(Path(recipe.locate("recipe.yaml")))
    command = [sys.executable, "-m", "h2crop_data", "build", path, "--out", str(store), "--workers", "1"]
    builders = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    told = [" ".join(builder.communicate(timeout=300)[0].split()) for builder in builders]
    codes = [builder.returncode for builder in builders]
    # They may also have come one after the other, and both be right.
    if codes != [0, 0]:
        assert sorted(codes) == [0, 1]
        winner = builders[codes.index(0)].pid
        assert f"locked by another builder (process {winner})" in told[codes.index(1)]
        assert "Traceback" not in told[codes.index(1)]
    assert contents(store) == reference


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_four_workers_write_every_shard_once(
    recipe: Recipe, reference: dict[str, str], tmp_path: Path, kind: WorkerKind
) -> None:
    store = tmp_path / "store"
    build_store(recipe, NotingStorage(store), workers=Workers(4, kind))
    assert contents(store) == reference
    written = [line.split() for line in NotingStorage(store).log.read_text().splitlines()]
    counted = Counter(name for _, name in written)
    arrays = ("enmap", "enmap_quality", "s2", "s2_clear", "s2_day", "label", "prior", "parcel")
    shards = [name for name in reference if "/c." in name and name.split("/")[1] in arrays]
    assert {counted[name] for name in shards} == {1}
    writers = {process for process, name in written if name in shards}
    # Shards are written where they are computed; how many processes get a block depends on the machine.
    here = {str(os.getpid())}
    assert writers == here if kind == "threads" else writers.isdisjoint(here)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as url:
        yield url


def test_a_store_in_a_bucket_grows_is_relabelled_and_retracted(
    recipe: Recipe, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_environment(bucket).items():
        monkeypatch.setenv(name, value)
    store, new = f"s3://{BUCKET}/grown", f"s3://{BUCKET}/relabelled"
    half = load_recipe(recipe.locate("half.yaml"))
    assert build_store(half, store, workers=2).release == 1
    before = {name: open_storage(store).describe(name) for name, _ in open_storage(store).names("2022/s2/")}
    assert build_store(recipe, store, extend=True, workers=2).release == 2
    after = {name: open_storage(store).describe(name) for name, _ in open_storage(store).names("2022/s2/")}
    assert {name: after[name] for name in before if "zarr.json" not in name} == {
        name: record for name, record in before.items() if "zarr.json" not in name
    }
    assert h2crop_data.open(store, 2022, release=1).sizes["sample"] == 2
    assert h2crop_data.open(store, 2022).load().sizes["sample"] == 4
    table = tmp_path / "table.csv"
    table.write_text("code,hcat3\nBTH,3302000000\nMIS,3301010401\nPPH,3302000000\n")
    report = relabel_store(store, new, tables={"fr": table}, workers=2)
    assert report.redone > 0
    for name in ("s2", "enmap", "parcel"):
        assert h2crop_data.open(new, 2022)[name].equals(h2crop_data.open(store, 2022)[name])
    assert not h2crop_data.open(new, 2022)["label"].equals(h2crop_data.open(store, 2022)["label"])
    done = CliRunner().invoke(app, ["retract", new, "--block", "2022:0", "--reason", "x", "--yes"])
    assert done.exit_code == 0, done.stderr
    assert len(read_index(new, "samples-2022")) == 3
    done = CliRunner().invoke(app, ["prune", new, "--json"])
    assert json.loads(done.stdout)["releases"] == [1]
    assert h2crop_data.open(new, 2022).load().sizes["sample"] == 3


def test_a_bucket_that_fails_every_tenth_request_gives_the_same_store(
    recipe: Recipe, reference: dict[str, str], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_proxy(bucket) as proxy:
        for name, value in s3_environment(proxy.url).items():
            monkeypatch.setenv(name, value)
        proxy.fail_every(10, Fault(status=503))
        build_store(recipe, f"s3://{BUCKET}/failing", workers=2)
        assert proxy.count("PUT") > 100
    for name, value in s3_environment(bucket).items():
        monkeypatch.setenv(name, value)
    storage = open_storage(f"s3://{BUCKET}/failing")
    names = {name for name, _ in storage.names() if not name.startswith(".build")}
    assert names == {name for name in reference if not name.startswith(".build")}
    for name in sorted(names):
        assert hashlib.sha256(storage.read(name)).hexdigest() == reference[name], name
    assert store_attributes(f"s3://{BUCKET}/failing")["release"] == 1
