"""Units of work: named by what goes into them, run once, resumed by their markers; tiles are fixed ground."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2crop_data.errors import ReadError, SceneError, StoreError
from h2crop_data.grid import TILE_MARGIN, TILE_SIZE, Cell, ProcessingTile, tiles_of
from h2crop_data.pipeline.units import WorkFolder, run_units, work_folder
from h2crop_data.sources.units import Kind, Unit, hashed_ids
from h2crop_data.storage.local import LocalStorage

DIVIDING = [size for size in range(60, TILE_SIZE + 1, 60) if TILE_SIZE % size == 0]


def noted(log: Path, name: str, content: bytes, files: Sequence[Path]) -> bytes:
    """A made computation: notes that it ran, gives the results it needs and its own."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    return b"".join([*(path.read_bytes() for path in files), content])


def unit(log: Path, name: str, *needs: Unit, kind: Kind = "tile", content: bytes | None = None, **more: Any) -> Unit:
    compute = partial(noted, log, name, f"<{name}>".encode() if content is None else content)
    known = {"step": "made step", "algorithm": 1, "inputs": [name], "settings": {"strength": 1}, **more}
    return Unit(kind=kind, name=name, compute=compute, needs=needs, **known)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


@pytest.fixture
def work(tmp_path: Path) -> WorkFolder:
    return WorkFolder(LocalStorage(tmp_path / "work"))


def scene_against_tiles(log: Path) -> Unit:
    """A scene that needs two tiles."""
    return unit(log, "scene", unit(log, "west"), unit(log, "east"), kind="scene against tiles")


def ran(log: Path) -> list[str]:
    """What was computed since the last call, in order of name."""
    names = log.read_text(encoding="utf-8").split()
    log.write_text("", encoding="utf-8")
    return sorted(names)


class TestNames:
    def test_the_same_work_has_the_same_id_wherever_its_files_lie(self, log: Path) -> None:
        assert unit(log, "west").id == unit(log.with_name("elsewhere"), "west").id

    @pytest.mark.parametrize(
        "change",
        [
            {"kind": "scene"},
            {"step": "another step"},
            {"name": "east"},
            {"algorithm": 2},
            {"inputs": ["newer"]},
            {"settings": {"strength": 2}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_whatever_goes_into_a_result_changes_its_id_and_that_of_what_needs_it(
        self, log: Path, change: dict[str, Any]
    ) -> None:
        tile = unit(log, "west")
        other = replace(tile, **change)
        assert other.id != tile.id
        assert unit(log, "scene", other).id != unit(log, "scene", tile).id

    def test_an_input_hash_gets_the_ids_that_it_does_not_imply(self, log: Path) -> None:
        tile, known = unit(log, "west"), unit(log, "scene", implied=True)
        assert hashed_ids([known]) == hashed_ids([]) == []
        assert hashed_ids([tile, known, tile]) == [[tile.id]]


class TestRuns:
    def test_what_is_needed_runs_first_and_everything_once(self, log: Path, work: WorkFolder) -> None:
        scene = scene_against_tiles(log)
        found = run_units(work, [scene, unit(log, "west"), scene])
        assert found.keys() == {scene.id, unit(log, "west").id}
        assert found[scene.id].read() == b"<west><east><scene>"
        assert ran(log) == ["east", "scene", "west"]
        assert run_units(work, [scene])[scene.id].read() == b"<west><east><scene>"
        assert ran(log) == []

    def test_what_is_needed_counts_once_under_its_own_step(self, log: Path, work: WorkFolder) -> None:
        mask = unit(log, "mask", step="mask")
        west, east = (unit(log, name, mask, step="picture") for name in ("west", "east"))
        first, second = unit(log, "first", west, step="match"), unit(log, "second", west, east, step="match")
        found = run_units(work, [first, second])
        assert set(found[first.id].steps) == {"match", "picture", "mask"}
        assert set(found[second.id].steps) == {"match", "picture"}
        assert found[second.id].steps["match"] == found[second.id].seconds > 0
        again = run_units(work, [first, unit(log, "third", east, step="match")])
        assert [set(result.steps) for result in again.values()] == [set(), {"match"}]

    def test_a_unit_that_is_asked_for_itself_counts_for_itself(self, log: Path, work: WorkFolder) -> None:
        mask = unit(log, "mask", step="mask")
        picture = unit(log, "picture", mask, step="picture")
        found = run_units(work, [picture, mask])
        assert set(found[picture.id].steps) == {"picture"}
        assert set(found[mask.id].steps) == {"mask"}

    def test_the_marker_tells_what_the_result_is_of(self, log: Path, work: WorkFolder) -> None:
        scene = scene_against_tiles(log)
        file = run_units(work, [scene])[scene.id].file
        assert file is not None
        marker = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        assert marker["kind"] == "scene against tiles"
        assert marker["needs"] == [need.id for need in scene.needs]
        assert marker["bytes"] == file.stat().st_size
        assert marker["settings"] == {"strength": 1}

    def test_a_changed_setting_is_other_work_and_leaves_the_first_result(self, log: Path, work: WorkFolder) -> None:
        first, other = unit(log, "west"), unit(log, "west", settings={"strength": 2})
        run_units(work, [first])
        run_units(work, [other])
        assert ran(log) == ["west", "west"]
        run_units(work, [first, other])
        assert ran(log) == []

    @pytest.mark.parametrize("damage", ["flipped byte", "cut", "no result", "no marker", "damaged marker"])
    def test_a_damaged_or_lost_result_is_computed_again(self, log: Path, work: WorkFolder, damage: str) -> None:
        tile = unit(log, "west", content=bytes(100))
        file = run_units(work, [tile])[tile.id].file
        assert file is not None
        marker = file.with_suffix(".json")
        if damage == "flipped byte":
            file.write_bytes(bytes(50) + b"\1" + bytes(49))
        elif damage == "cut":
            os.truncate(file, 10)
        elif damage == "damaged marker":
            marker.write_text("[]", encoding="utf-8")
        else:
            (file if damage == "no result" else marker).unlink()
        ran(log)
        assert run_units(work, [tile])[tile.id].read() == bytes(100)
        assert ran(log) == ["west"]

    def test_what_was_needed_is_not_computed_again_for_a_result_that_is_there(
        self, log: Path, work: WorkFolder
    ) -> None:
        scene = scene_against_tiles(log)
        run_units(work, [scene])
        for tile in scene.needs:
            file = run_units(work, [tile])[tile.id].file
            assert file is not None
            file.unlink()
        ran(log)
        run_units(work, [scene])
        assert ran(log) == []

    def test_units_run_side_by_side(self, log: Path, work: WorkFolder) -> None:
        together = threading.Barrier(3, timeout=20)

        def meet(files: Sequence[Path]) -> bytes:
            together.wait()
            return b""

        units = [replace(unit(log, name), compute=meet) for name in ("a", "b", "c")]
        assert all(result.error is None for result in run_units(work, units, workers=3).values())

    def test_progress_is_told(self, log: Path, work: WorkFolder) -> None:
        told: list[tuple[int, int, str]] = []
        run_units(work, [scene_against_tiles(log)], workers=1, progress=lambda *one: told.append(one))
        assert [name for _, _, name in told] == ["east", "west", "scene"]
        assert told[-1][:2] == (2, 3)


class TestFailures:
    def failing(self, log: Path, error: Exception) -> Unit:
        def fail(files: Sequence[Path]) -> bytes:
            raise error

        return replace(unit(log, "west"), compute=fail)

    def test_a_tolerated_error_costs_only_what_needs_the_unit_and_is_forgotten(
        self, log: Path, work: WorkFolder
    ) -> None:
        broken, good = self.failing(log, SceneError("no bands")), unit(log, "east")
        scene = unit(log, "scene", broken, good)
        further = unit(log, "further", scene)
        found = run_units(work, [further, good], SceneError)
        with pytest.raises(SceneError, match="no bands"):
            found[further.id].read()
        assert found[good.id].read() == b"<east>"
        assert ran(log) == ["east"]
        mended = unit(log, "scene", unit(log, "west"), good)
        assert run_units(work, [mended])[mended.id].read() == b"<west><east><scene>"
        assert ran(log) == ["scene", "west"]

    def test_another_error_ends_the_run_and_what_is_finished_is_kept(self, log: Path, work: WorkFolder) -> None:
        good = unit(log, "east")
        with pytest.raises(ReadError, match="away"):
            run_units(work, [good, self.failing(log, ReadError("away"))], SceneError, workers=1)
        assert ran(log) == ["east"]
        run_units(work, [good])
        assert ran(log) == []

    @pytest.mark.parametrize(("place", "told"), [("work", "cannot read"), ("work/made-step", "cannot write")])
    def test_a_result_that_cannot_be_written_ends_the_run(
        self, log: Path, tmp_path: Path, place: str, told: str
    ) -> None:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("a file", encoding="utf-8")
        with pytest.raises(StoreError, match=told):
            run_units(WorkFolder(LocalStorage(tmp_path / "work")), [unit(log, "west")])


def die_at(log: Path, files: Sequence[Path]) -> bytes:
    """A computation whose process is killed the hard way."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def run_in_child(folder: Path, log: Path) -> None:
    """Runs two tiles, and dies in the scene that needs them."""
    scene = replace(scene_against_tiles(log), compute=partial(die_at, log))
    run_units(WorkFolder(LocalStorage(folder)), [scene], workers=1)


@pytest.mark.slow
def test_after_a_kill_only_what_is_missing_runs(log: Path, work: WorkFolder) -> None:
    child = multiprocessing.get_context("spawn").Process(target=run_in_child, args=(work.files.folder, log))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert ran(log) == ["east", "west"]
    scene = scene_against_tiles(log)
    assert run_units(work, [scene])[scene.id].read() == b"<west><east><scene>"
    assert ran(log) == ["scene"]


class TestRoom:
    def test_results_used_longest_ago_go_first_and_those_needed_stay(self, log: Path, work: WorkFolder) -> None:
        units = [unit(log, name, content=bytes(100)) for name in ("a", "b", "c")]
        for age, (name, result) in enumerate(run_units(work, units).items()):
            assert result.file is not None
            os.utime(result.file, (1_000_000 + age, 1_000_000 + age))
            assert name == units[age].id
        # Looking at the first makes it the one used last.
        run_units(work, units[:1])
        small = replace(work, bound=350)
        scene = unit(log, "scene", units[2], content=b"")
        ran(log)
        found = run_units(small, [scene])
        assert found[scene.id].read() == bytes(100)
        assert ran(log) == ["scene"]
        run_units(replace(work, bound=1000), units)
        # 400 bytes are too much: only `b` had to go, `c` was needed until then.
        assert ran(log) == ["b"]

    def test_results_that_others_still_use_stay(self, log: Path, work: WorkFolder) -> None:
        """Of an earlier part of a build, whose blocks are not all built."""
        first, later = unit(log, "a", content=bytes(100)), unit(log, "b", content=bytes(100))
        small = replace(work, bound=150)
        earlier = run_units(small, [first])
        run_units(small, [later], needed={first.id})
        assert earlier[first.id].read() == bytes(100)
        run_units(small, [unit(log, "c", content=bytes(100))])
        assert work.result(first) is None

    def test_what_is_asked_for_is_there_whatever_the_bound(self, log: Path, work: WorkFolder) -> None:
        tiny = replace(work, bound=1)
        units = [unit(log, name) for name in ("a", "b")]
        found = run_units(tiny, units)
        assert [found[one.id].read() for one in units] == [b"<a>", b"<b>"]
        scene = scene_against_tiles(log)
        assert run_units(tiny, [scene])[scene.id].read() == b"<west><east><scene>"
        assert [path.stem for path in work.files.folder.glob("*/*.bin")] == [scene.id]

    def test_a_folder_without_results_stays_for_those_under_way(self, log: Path, work: WorkFolder) -> None:
        run_units(work, [unit(log, "a")])
        assert replace(work, bound=0).shrink(()) == 0
        assert list(work.files.folder.glob("*")) == [work.files.folder / ".build", work.files.folder / "made-step"]
        assert not any((work.files.folder / "made-step").iterdir())

    def test_nothing_is_written_or_deleted_through_a_link(self, log: Path, work: WorkFolder, tmp_path: Path) -> None:
        beside = replace(work, prefix=".build/work/")
        run_units(beside, [unit(log, "a")])
        (work.files.folder / ".build/work").rename(tmp_path / "elsewhere")
        (work.files.folder / ".build/work").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StoreError, match="symbolic link"):
            run_units(replace(beside, bound=0), [unit(log, "b")])
        assert len(list((tmp_path / "elsewhere/made-step").iterdir())) == 2


class TestPlaces:
    def test_a_local_store_has_its_work_beside_its_plan(self, log: Path, tmp_path: Path) -> None:
        run_units(work_folder(str(tmp_path / "store")), [unit(log, "west")])
        assert len(list(tmp_path.glob("store/.build/work/made-step/*.bin"))) == 1

    def test_a_store_in_a_bucket_has_it_in_the_cache_and_the_variable_moves_both(
        self, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value, folder in (("HOME", "home", "home/.cache"), ("XDG_CACHE_HOME", "cache", "cache")):
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
            monkeypatch.setenv(name, str(tmp_path / value))
            run_units(work_folder("s3://bucket/store"), [unit(log, "west")])
            assert len(list(tmp_path.glob(f"{folder}/h2crop/work/*/made-step/*.bin"))) == 1
        monkeypatch.setenv("H2CROP_WORK", str(tmp_path / "fast"))
        for store in ("s3://bucket/store", str(tmp_path / "store"), str(tmp_path / "other")):
            run_units(work_folder(store), [unit(log, "west")])
        assert len(list(tmp_path.glob("fast/*/made-step/*.bin"))) == 3
        assert not (tmp_path / "store").exists()

    def test_what_a_killed_run_left_half_written_is_deleted(
        self, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("H2CROP_WORK", str(tmp_path / "fast"))
        folder = work_folder("s3://bucket/store").files.folder
        (folder / ".build/tmp").mkdir(parents=True)
        (folder / ".build/tmp/half.tmp").write_bytes(b"half")
        work_folder("s3://bucket/store")
        assert not (folder / ".build/tmp/half.tmp").exists()


places = st.integers(-700, 700)
cells = st.builds(
    Cell, st.sampled_from([32631, 32632, 32731]), st.integers(1, 600).map(lambda steps: 60 * steps), places, places
)


def overlap(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Square metres that two bounds share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


class TestTiles:
    @given(st.sampled_from(DIVIDING), places, places)
    def test_a_cell_whose_size_divides_a_tile_lies_in_one(self, size: int, column: int, row: int) -> None:
        cell = Cell(32631, size, column, row)
        (tile,) = tiles_of(cell)
        assert overlap(tile.bounds, cell.bounds) == size * size

    @given(cells)
    def test_every_cell_is_covered_by_its_tiles_and_each_has_a_part_of_it(self, cell: Cell) -> None:
        parts = [overlap(tile.bounds, cell.bounds) for tile in tiles_of(cell)]
        assert all(parts)
        assert sum(parts) == cell.size**2
        assert {tile.epsg for tile in tiles_of(cell)} == {cell.epsg}

    @given(places, places, places, places)
    def test_tiles_of_a_zone_share_no_ground(self, column: int, row: int, east: int, north: int) -> None:
        one, other = ProcessingTile(32631, column, row), ProcessingTile(32631, column + east, row + north)
        assert overlap(one.bounds, other.bounds) == (TILE_SIZE**2 if one == other else 0)
        assert (one.id == other.id) == (one == other)

    @given(cells, st.sampled_from(DIVIDING))
    def test_ground_has_the_same_tiles_whatever_cells_are_built(self, cell: Cell, size: int) -> None:
        west, south, east, north = cell.bounds
        inside = Cell(cell.epsg, size, west // size, south // size)
        if overlap(inside.bounds, cell.bounds):
            assert set(tiles_of(inside)) & set(tiles_of(cell))
        assert tiles_of(cell)[0].bounds[0] <= west
        assert tiles_of(cell)[-1].bounds[3] >= north
        assert east <= tiles_of(cell)[-1].bounds[2]

    def test_a_tile_of_belgium(self) -> None:
        (tile,) = tiles_of(Cell.parse("32631_1920_0261_2932"))
        assert tile.id == "32631_15360_0032_0366"
        assert tile.bounds == (491520, 5621760, 506880, 5637120)
        assert tile.bounds_with_margin == (
            491520 - TILE_MARGIN,
            5621760 - TILE_MARGIN,
            506880 + TILE_MARGIN,
            5637120 + TILE_MARGIN,
        )
