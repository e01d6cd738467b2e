"""Builds killed at random moments end byte for byte as if nobody had touched them (the long run: `make kill-sweep`)."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from changed_stores import overwrite
from killed_builds import Sweep, differences, prune

from h2crop_data.cube.reading import store_attributes
from h2crop_data.cube.release_numbers import copied_releases, problem_of_copy
from h2crop_data.errors import StoreError
from h2crop_data.maintenance.restore import restore_root
from h2crop_data.maintenance.retract import prune_store, retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.recipe.model import load_recipe
from h2crop_data.storage.local import LocalStorage


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(tmp_path_factory.mktemp("sweep"), seed=10)


@pytest.mark.parametrize("release", [1, 2])
@pytest.mark.parametrize("file", ["index/rN/manifest.parquet", "index/rN/root.json", "zarr.json"])
def test_a_release_that_was_being_sealed_is_finished_under_its_number(
    sweep: Sweep, tmp_path: Path, file: str, release: int
) -> None:
    store, grows = tmp_path / "store", release == 2
    if grows:
        shutil.copytree(sweep.half, store)
    # What goes on may die as well.
    for _ in range(2):
        sweep.kill_before(f"write {file.replace('N', str(release))}", store, grows)
        assert (store / f"index/r{release}").is_dir()
        assert (store / f"index/r{release}/root.json").exists() == (file == "zarr.json")
        assert (store / "zarr.json").exists() == grows
    sweep.finish(sweep.start(sweep.recipe, store, grows))
    assert differences(store, sweep.grown if grows else sweep.reference) == []


@pytest.mark.parametrize("release", [1, 2])
def test_a_builder_that_died_after_the_root_has_made_its_release(sweep: Sweep, tmp_path: Path, release: int) -> None:
    store, grows = tmp_path / "store", release == 2
    if grows:
        shutil.copytree(sweep.half, store)
    sweep.kill_before("delete .build/sealing.json", store, grows)
    assert differences(store, sweep.grown if grows else sweep.reference) == ["stray file .build/sealing.json"]
    shutil.copytree(store, tmp_path / "grows on")
    sweep.finish(sweep.start(sweep.recipe, store, grows))
    assert differences(store, sweep.grown if grows else sweep.reference) == []
    # The next release has the next number, whatever the dead builder left.
    retract_from_store(tmp_path / "grows on", {2022: [0]}, [], "haze")
    assert store_attributes(tmp_path / "grows on")["release"] == release + 1
    assert not (tmp_path / "grows on/.build/sealing.json").exists()


def test_a_copy_of_a_root_that_never_was_is_taken_for_one_where_nothing_says_that_sealing_began(
    sweep: Sweep, tmp_path: Path
) -> None:
    """As an older h2crop left it: putting the root there is what it would have done next."""
    store = tmp_path / "store"
    sweep.kill_before("write zarr.json", store)
    (store / ".build/sealing.json").unlink()
    with pytest.raises(StoreError, match=rf"lost its root.*`h2crop restore {store}`"):
        build_store(load_recipe(sweep.recipe), store)
    restore_root(store)
    sweep.finish(sweep.start(sweep.recipe, store))
    assert differences(store, sweep.reference) == []


def test_a_release_that_readers_may_have_seen_is_never_written_again(sweep: Sweep, tmp_path: Path) -> None:
    """The builder died right after the root, which was lost then: as if it had died before."""
    store = tmp_path / "store"
    sweep.kill_before("delete .build/sealing.json", store)
    (store / "zarr.json").unlink()
    released = {path: path.read_bytes() for path in (store / "index/r1").iterdir()}
    retract_from_store(store, {2022: [0]}, [], "haze")
    assert store_attributes(store)["release"] == 2
    assert {path: path.read_bytes() for path in released} == released


def test_pruning_that_is_killed_leaves_no_release_without_its_files_and_is_finished_by_the_next(
    sweep: Sweep, tmp_path: Path
) -> None:
    begun, pruned, store = tmp_path / "begun", tmp_path / "pruned", tmp_path / "store"
    shutil.copytree(sweep.half, begun)
    retract_from_store(begun, {2022: [0]}, [], "haze")
    shutil.copytree(begun, pruned)
    report = prune_store(pruned, [])
    assert (report.releases, report.kept) == ([1], [2])
    for number in range(1, report.files + 1):
        shutil.copytree(begun, store)
        process = sweep.context.Process(target=prune, args=(store, f"deletion {number}"))
        process.start()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL, number
        files = LocalStorage(store)
        assert copied_releases(files) == ([1, 2] if number == 1 else [2])
        assert [problem_of_copy(files, release) for release in copied_releases(files)] == [""] * (1 + (number == 1))
        assert prune_store(store, []).files == report.files - number + 1
        assert differences(store, pruned) == []
        shutil.rmtree(store)


def test_killed_builds_end_as_if_nothing_had_happened(sweep: Sweep) -> None:
    result = sweep.run(10)
    assert result.failures == []
    assert sum(result.builds.values()) == 10
    assert result.kills >= 10
    # The comparison sees what it should.
    store = sweep.folder / "again"
    (store / "2022/s2/c.9.0.0.0.0").write_bytes(b"")
    overwrite(store / "2022/s2/c.0.0.0.0.0", b"")
    (store / "2022/s2/c.1.0.0.0.0").unlink()
    assert differences(store, sweep.reference) == [
        "stray file 2022/s2/c.9.0.0.0.0",
        "lost file 2022/s2/c.1.0.0.0.0",
        "2022/s2/c.0.0.0.0.0 differs",
    ]
