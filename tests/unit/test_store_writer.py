"""The builder's side of a store: one builder at a time, files that are whole or absent, and nothing left behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_disk import SMALL_DISK, mounted
from temporary_files import unfinished

from h2crop_data.cube.marker import shard_path
from h2crop_data.cube.root import StoredData, stored_data
from h2crop_data.cube.schema import ArraySpec, SourceFormat, StoreLayout, stated_source, time_coordinates
from h2crop_data.cube.statistics import block_sums
from h2crop_data.cube.windows import calendar_months
from h2crop_data.cube.writer import check_same_layout, hold_store
from h2crop_data.errors import PlanError, PluginError, StoreError
from h2crop_data.sources.formats import known_layout, layout_of_root, of_generation
from h2crop_data.sources.registry import check_axes
from h2crop_data.storage.checked import checked_json
from h2crop_data.storage.storage import canonical_json

LABELS = known_layout(cell_size=240, capacity=2)

#: Another builder: holds the store, leaves a file half written, says so, and waits for its end.
HOLDER = """
import sys, time
from pathlib import Path
from h2crop_data.cube.writer import hold_store

with hold_store(Path(sys.argv[1])) as builder:
    (Path(builder.location) / ".build/tmp/c.0.0.0.abc.tmp").write_bytes(b"half a shard")
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def other_builder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store, and is killed at the end if it still lives."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def label_block(samples: int) -> dict[str, NDArray[Any]]:
    """A block of random label arrays, the same at every call."""
    rng = np.random.default_rng(1)
    return {
        name: rng.integers(0, 200, (samples, *spec.sample_shape)).astype(spec.dtype)
        for name, spec in LABELS.arrays().items()
    }


# One builder at a time


def test_a_second_process_is_refused_and_told_who_holds_the_store(tmp_path: Path) -> None:
    with other_builder(tmp_path / "store") as holder:
        with pytest.raises(StoreError, match="locked by another builder") as raised, hold_store(tmp_path / "store"):
            pytest.fail("two builders hold one store")
        assert f"process {holder.pid})" in str(raised.value)
        assert str(tmp_path / "store") in str(raised.value)
        assert list((tmp_path / "store" / ".build" / "tmp").iterdir()), "the refused builder removed the other's file"


def test_after_a_builder_was_killed_its_store_can_be_held_and_its_leftovers_are_gone(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with other_builder(folder) as holder:
        holder.send_signal(signal.SIGKILL)
        assert holder.wait(timeout=60) == -signal.SIGKILL
    assert list((folder / ".build" / "tmp").iterdir())
    with hold_store(folder) as builder:
        assert unfinished(Path(builder.location)) == []
        assert (folder / ".build" / "lock").read_text(encoding="utf-8").strip() == str(os.getpid())


def test_a_store_can_be_held_again_after_its_builder_ended_or_failed(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), hold_store(tmp_path / "store"):
            raise KeyError("a build that failed")
    with hold_store(tmp_path / "store") as builder:
        builder.write_json("a.json", 1)


def test_the_same_process_cannot_hold_a_store_twice(tmp_path: Path) -> None:
    with hold_store(tmp_path), pytest.raises(StoreError, match=f"process {os.getpid()}"), hold_store(tmp_path):
        pytest.fail("one store was held twice")


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear diary", encoding="utf-8")
    with pytest.raises(StoreError, match=r"is not empty and has no .build/ to continue from"), hold_store(tmp_path):
        pytest.fail("a foreign folder was taken for a store")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", '{"attributes": {}}', '{"attributes": {"format_version": "1.1"}}']
)
def test_a_root_that_is_not_one_of_a_store_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "store/.build").mkdir(parents=True)
    (tmp_path / "store/zarr.json").write_text(text, encoding="utf-8")
    with (
        pytest.raises(StoreError, match=r"store/zarr\.json is not the root of an h2crop store .*restore the newest"),
        hold_store(tmp_path / "store"),
    ):
        pass
    assert (tmp_path / "store/zarr.json").read_text(encoding="utf-8") == text


def test_an_empty_folder_and_a_folder_that_is_not_there_become_stores(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "deep" / "down"):
        with hold_store(folder) as builder:
            assert (Path(builder.location) / ".build/tmp").is_dir()


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write in"), hold_store(tmp_path / "file"):
        pytest.fail("a file was taken for a store")


# Files whole or absent


def test_a_written_file_is_described_by_its_name_size_and_sha256(tmp_path: Path) -> None:
    with hold_store(tmp_path) as builder:
        entry = builder.describe(builder.write("2022/label/c.0", [b"ab", b"", b"cd"]))
        assert (tmp_path / "2022/label/c.0").read_bytes() == b"abcd"
        assert entry == {"path": "2022/label/c.0", "bytes": 4, "sha256": hashlib.sha256(b"abcd").hexdigest()}
        assert unfinished(Path(builder.location)) == []


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    with hold_store(tmp_path) as builder:
        builder.write_json("zarr.json", {"release": 1})
        before = (tmp_path / "zarr.json").open("rb")
        builder.write_json("zarr.json", {"release": 2})
        with before:
            assert before.read() == canonical_json({"release": 1}).encode(), "who had the old file open lost it"
        assert (tmp_path / "zarr.json").read_bytes() == canonical_json({"release": 2}).encode()


def test_parts_that_fail_midway_leave_no_file(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"first"
        raise OSError(errno.EIO, "Input/output error")

    with hold_store(tmp_path) as builder:
        with pytest.raises(StoreError, match=r"cannot write .*Input/output error"):
            builder.write("2022/label/c.0", parts())
        assert not (tmp_path / "2022/label/c.0").exists()
        assert unfinished(Path(builder.location)) == []


def test_a_block_is_one_file_an_array_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    contents = []
    for threads in (1, 4):
        with hold_store(tmp_path / str(threads)) as builder, ThreadPoolExecutor(threads) as pool:
            names = builder.write_block(2022, 5, label_block(2), LABELS, pool)
            contents.append({name: (tmp_path / str(threads) / name).read_bytes() for name in names})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"2022/label/c.5.0.0.0", "2022/prior/c.5.0.0.0", "2022/parcel/c.5.0.0"}


def test_a_block_with_an_array_too_few_or_too_many_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    arrays = label_block(2)
    wrong = [{"label": arrays["label"]}, {**arrays, "s2": arrays["label"]}]
    wrong.append({**arrays, "parcel": arrays["parcel"].astype("int64")})
    with hold_store(tmp_path) as builder, ThreadPoolExecutor(1) as pool:
        for block in wrong:
            with pytest.raises(ValueError, match=r"block 0: expected the arrays|parcel: expected .*, got int64"):
                builder.write_block(2022, 0, block, LABELS, pool)
    assert not (tmp_path / "2022").exists()


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SMALL_DISK bytes."""
    with mounted(tmp_path / "disk") as folder:
        yield folder


def test_a_full_disk_is_told_and_leaves_nothing_of_the_file(small_disk: Path) -> None:
    with hold_store(small_disk / "store") as builder:
        builder.write("fits", [b"x" * (SMALL_DISK // 4)])
        with pytest.raises(StoreError, match=r"No space left on device.*rerun") as raised:
            builder.write("2022/label/c.0", [b"x" * (SMALL_DISK // 2)] * 4)
        assert str(small_disk / "store/2022/label/c.0") in str(raised.value)
        assert not (small_disk / "store/2022/label/c.0").exists()
        assert unfinished(Path(builder.location)) == []
        assert (small_disk / "store/fits").stat().st_size == SMALL_DISK // 4
        builder.write("also fits", [b"x" * (SMALL_DISK // 4)])


def test_a_block_that_does_not_fit_is_told_and_can_be_written_once_there_is_room(small_disk: Path) -> None:
    layout = known_layout(cell_size=960, capacity=4)
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, np.iinfo(spec.dtype).max, (4, *spec.sample_shape), spec.dtype)
        for name, spec in layout.arrays().items()
    }
    with hold_store(small_disk / "store") as builder, ThreadPoolExecutor(2) as pool:
        with pytest.raises(StoreError, match="No space left on device"):
            builder.write_block(2022, 0, arrays, layout, pool)
        assert unfinished(Path(builder.location)) == []
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        for name in builder.write_block(2022, 0, arrays, layout, pool):
            spec = layout.arrays()[name.split("/")[1]]
            stored = (small_disk / "store" / name).stat().st_size
            assert stored > 0.9 * 4 * spec.dtype.itemsize * int(np.prod(spec.sample_shape))


# Markers and layout


BANDS = known_layout(cell_size=240, capacity=2, enmap_bands=3)
DIGEST = "0" * 64


def marker_of(block: int, samples: int = 2, layout: StoreLayout = BANDS, season: int = 2022) -> dict[str, Any]:
    """A whole marker of a block that was built."""
    paths = [shard_path(season, name, block, len(spec.dims)) for name, spec in layout.arrays().items()]
    sums = {"path": f".build/{season}/{block:06d}.sums", "bytes": 7, "sha256": DIGEST}
    return {
        "block": block,
        "split": "train",
        "hashes": dict.fromkeys(("s2", "enmap", "labels"), DIGEST),
        "software": "2.0",
        "files": [{"path": path, "bytes": 12, "sha256": DIGEST} for path in paths],
        "coordinates": {"wavelength": [500.0, 600.5, 700.0], "fwhm": [7, 7, 7.5]},
        "provenance": [{"declared_share": 0.5, "gaps": []} for _ in range(samples)],
        "sums": sums,
        "dates": [DIGEST],
        "seconds": {"read": 1.5},
        "finished": "2026-12-01T10:00:00Z",
    }


def test_a_marker_says_what_was_written_of_a_block_and_others_have_none(tmp_path: Path) -> None:
    with hold_store(tmp_path) as builder:
        builder.write_marker(2022, 3, marker_of(3))
        assert builder.read_marker(2022, 3, BANDS, 2) == marker_of(3)
        assert builder.read_marker(2022, 4, BANDS) is None
        assert builder.read_marker(2023, 3, BANDS) is None
        assert list(builder.read_markers(2022, [3, 4], BANDS, {3: 2, 4: 2})) == [marker_of(3), None]


def imported(marker: dict[str, Any]) -> None:
    """Make it the marker of an imported block."""
    marker["sources"] = {"one": 5, "two": 6}
    marker["files"].append({"path": "2022/published/000003.h5", "bytes": 1, "sha256": DIGEST})


#: Faults of markers without a checksum, and the word of the error that names them.
FAULTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "it lacks sums": lambda marker: marker.pop("sums"),
    "it is the marker of block 4": lambda marker: marker.update(block=4),
    "split: Input should be a valid string": lambda marker: marker.update(split=None),
    "block: Input should be a valid integer": lambda marker: marker.update(block="3"),
    "files: List should have at least 1 item": lambda marker: marker.update(files=[]),
    "got 4, see 2022/enmap_quality/c.3.0.0": lambda marker: marker["files"].pop(1),
    "got 5, see 2022/label/c.3.0.0.0": lambda marker: marker["files"][2].update(marker["files"][0]),
    "see 2022/enmap/c.2.0.0.0": lambda marker: marker["files"][0].update(path="2022/enmap/c.2.0.0.0"),
    "files.0.bytes: Input should be greater": lambda marker: marker["files"][0].update(bytes=-1),
    "files.0.sha256: String should match": lambda marker: marker["files"][0].update(sha256="0" * 63),
    "provenance: List should have at least 1 item": lambda marker: marker.update(provenance=[]),
    "provenance.1: Input should be a valid dictionary": lambda marker: marker.update(provenance=[{}, 1]),
    "provenance of 2 samples, got 1": lambda marker: marker["provenance"].pop(),
    "provenance of 2 samples, got 3": lambda marker: marker["provenance"].append({}),
    "it lacks the input hash of labels": lambda marker: marker["hashes"].pop("labels"),
    "expected the sums .build/2022/000003.sums": lambda marker: marker["sums"].update(path=".build/2022/000002.sums"),
    "expected coordinates": lambda marker: marker["coordinates"].pop("fwhm"),
    "with the lengths": lambda marker: marker["coordinates"]["wavelength"].pop(),
    "coordinates.fwhm.0: Input should be": lambda marker: marker["coordinates"].update(fwhm=["7", 7, 7]),
    "dates.0: String should match": lambda marker: marker.update(dates=["x"]),
    "finished: String should match": lambda marker: marker.update(finished="yesterday"),
    "unknown key 'datez'": lambda marker: marker.update(datez=marker.pop("dates")),
    "see 2022/published/000003.h5": lambda marker: (imported(marker), marker["files"].pop()),
}


@pytest.mark.parametrize("checked", [False, True])
def test_a_damaged_marker_is_told(tmp_path: Path, checked: bool) -> None:
    path = tmp_path / ".build/2022/000003.json"
    with hold_store(tmp_path) as builder:
        builder.write_marker(2022, 3, marker_of(3))
        whole = path.read_bytes()
        damaged = {"Expecting": b"{", "it lacks block": b"{}", "expected a JSON object, got list": b"[1]"}
        for words, change in FAULTS.items():
            marker = marker_of(3)
            change(marker)
            if not checked:
                damaged[words] = canonical_json(marker).encode()
            elif "unknown key" not in words:
                damaged[words] = checked_json(marker).encode()
        damaged |= {"it was changed after it was written": whole.replace(b'"train"', b'"trail"')}
        for words, data in damaged.items():
            path.write_bytes(data)
            with pytest.raises(StoreError, match="delete it and rerun the build") as raised:
                builder.read_marker(2022, 3, BANDS, 2)
            assert words in str(raised.value)
            assert str(path) in str(raised.value)
        # A later version may say more; written in another form it says the same.
        path.write_text(checked_json({**marker_of(3), "more": 1}), encoding="utf-8")
        assert builder.read_marker(2022, 3, BANDS, 2) == {**marker_of(3), "more": 1}
        path.write_text(json.dumps(json.loads(whole)), encoding="utf-8")
        assert builder.read_marker(2022, 3, BANDS, 2) == marker_of(3)


def test_the_marker_of_an_imported_block_has_a_row_a_file(tmp_path: Path) -> None:
    with hold_store(tmp_path) as builder:
        marker = marker_of(3)
        imported(marker)
        builder.write_marker(2022, 3, marker)
        assert builder.read_marker(2022, 3, BANDS) == marker
        marker["provenance"].pop()
        builder.write_marker(2022, 3, marker)
        with pytest.raises(StoreError, match="provenance of 2 samples, got 1"):
            builder.read_marker(2022, 3, BANDS)


def test_sums_that_are_not_those_of_the_marker_are_told(tmp_path: Path) -> None:
    sums = [block_sums(label_block(samples), LABELS.arrays(), "train", {}) for samples in (1, 2)]
    with hold_store(tmp_path) as builder:
        records = [builder.write_sums(2022, block, one) for block, one in enumerate(sums)]
        assert [one.samples for one in builder.read_all_sums(2022, dict(enumerate(records)))] == [1, 2]
        # Sums of another block are whole sums, and wrong here.
        builder.write_sums(2022, 0, sums[1])
        for damaged in ("other", "cut", "lost"):
            path = tmp_path / ".build/2022/000000.sums"
            if damaged == "cut":
                path.write_bytes(path.read_bytes()[:20])
            elif damaged == "lost":
                path.unlink()
            with pytest.raises(StoreError, match=f"missing or damaged.*`h2crop migrate {tmp_path}`") as raised:
                builder.read_sums(2022, 0, records[0])
            assert str(path) in str(raised.value)


def test_what_dead_writers_of_other_libraries_left_is_removed(tmp_path: Path) -> None:
    with hold_store(tmp_path) as builder:
        builder.write("2022/s2/c.0", [b"abcd"])
        (tmp_path / "2022/s2/c.1.__lock").write_bytes(b"x")
        assert builder.sizes(2022) == {"2022/s2/c.0": 4}
    assert sorted(path.name for path in (tmp_path / "2022/s2").iterdir()) == ["c.0"]


def test_locks_of_other_writers_behind_a_link_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "other/s2").mkdir(parents=True)
    (tmp_path / "other/s2/c.1.__lock").write_bytes(b"x")
    with hold_store(tmp_path / "store") as builder:
        (tmp_path / "store/2022").symlink_to(tmp_path / "other")
        with pytest.raises(StoreError, match=r"store/2022 is a symbolic link"):
            builder.sizes(2022)
    assert (tmp_path / "other/s2/c.1.__lock").exists()


def test_garbage_is_removed(tmp_path: Path) -> None:
    with hold_store(tmp_path):
        (tmp_path / ".build/tmp/file.tmp").touch()
        (tmp_path / ".build/tmp/folder").mkdir()
        (tmp_path / ".build/tmp/folder/file").touch()
    with hold_store(tmp_path):
        assert unfinished(tmp_path) == []
    assert list((tmp_path / ".build/tmp").iterdir()) == []


def test_a_store_of_another_layout_is_refused_by_what_differs(tmp_path: Path) -> None:
    check_same_layout(tmp_path, LABELS, LABELS)
    with pytest.raises(PlanError, match="block_capacity: store 2, plan 16"):
        check_same_layout(tmp_path, LABELS, known_layout(cell_size=240, capacity=16))
    with pytest.raises(PlanError, match=r"codec: store lz4 level 5, plan lz4 level 5 without checksums\)"):
        check_same_layout(tmp_path, LABELS, of_generation(LABELS, 1))
    three = known_layout(240, 2, s2_bands=("B02", "B03", "B08"))
    two = known_layout(240, 2, s2_bands=("B02", "B08"))
    with pytest.raises(
        PlanError, match=r"sentinel2: store s2 int16 12 x 3 x 24 x 24, .*; B02 B03 B08, plan .*; B02 B08"
    ):
        check_same_layout(tmp_path, three, two)


@pytest.mark.parametrize("generation", [1, 2])
def test_a_root_states_the_arrays_of_every_source(generation: int) -> None:
    layout = of_generation(known_layout(240, 2, s2_bands=("B02", "B08"), enmap_bands=5, enmap_mask=True), generation)
    stated = json.loads(json.dumps(layout.attributes()))
    assert layout_of_root({"format_version": "2.0", "layout": stated}) == layout
    assert stored_data(stated) == StoredData(["B02", "B08"], 5, True, True)
    assert {name: [spec["name"] for spec in facts["arrays"]] for name, facts in stated["sources"].items()} == {
        "enmap": ["enmap", "enmap_quality", "enmap_mask"],
        "sentinel2": ["s2", "s2_clear", "s2_day"],
        "parcels": ["label", "prior", "parcel"],
    }
    # What the root says counts, not what this h2crop would make.
    stated["sources"]["sentinel2"]["arrays"][0]["dtype"] = "uint16"
    assert layout_of_root({"format_version": "2.0", "layout": stated}).arrays()["s2"].dtype == np.uint16


def test_a_source_of_another_package_has_the_axis_time_and_had_month() -> None:
    def rain(axis: str) -> SourceFormat:
        array = ArraySpec("rain", "weather", ("sample", axis), (12,), (1, 12), np.dtype("int16"), -1)
        return SourceFormat("weather", "weather", "weather", (array,))

    layout = replace(LABELS, sources=(*LABELS.sources, rain("time")))
    check_axes(layout)
    assert {"time", "time_bnds", "month"} < {spec.name for spec in layout.coordinates(2022)}
    with pytest.raises(PluginError, match="the source 'weather' states the dimension 'month' of 'rain'"):
        check_axes(replace(layout, sources=(rain("month"),)))
    # Roots of format 1 state it as it was.
    stated = {"cell_size": 240, "block_capacity": 2, "codec": {"name": "lz4", "level": 5}}
    stated |= {"s2_bands": [], "enmap_bands": 0, "labels": True, "sources": {"weather": stated_source(rain("month"))}}
    assert layout_of_root({"format_version": "1.2", "layout": stated}) == of_generation(layout, 1)


def test_the_windows_of_a_season_are_days_since_it_began() -> None:
    starts, bounds, months = time_coordinates(calendar_months(2024))
    assert starts.values == (0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335)
    assert bounds.values is not None
    assert bounds.values[:2] == ((0, 31), (31, 60))
    assert bounds.values[-1] == (335, 366)
    assert months.values == tuple(range(1, 13))
    assert starts.attributes["units"] == "days since 2024-01-01"
    assert [spec.fill for spec in (starts, bounds, months)] == [-(2**31), -(2**31), 0]
    assert not any("_FillValue" in spec.attributes for spec in (starts, bounds, months))
    assert (starts.dims, bounds.dims, months.dims) == (("time",), ("time", "bnds"), ("time",))
    # Without arrays by time there are none.
    assert {spec.name for spec in LABELS.coordinates(2024)} == {"sample", "valid", "x0", "y0", "epsg", "tier"}
