"""Parts of cells in the scratch folder: what was written is read, and nothing that is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_disk import SMALL_DISK, mounted

from h2crop_data.errors import StoreError
from h2crop_data.grid import Cell
from h2crop_data.sources.scratch import Part, Scratch

CELL, OTHER = Cell(32631, 240, 3, 4), Cell(32631, 240, 3, 5)
PART = Part(
    {"month": 7, "dates": ["2022-07-01"]},
    (np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::-1], np.full((3, 4), 9, np.uint8)),
)


def same(one: Part | None, other: Part) -> bool:
    return (
        one is not None
        and one.facts == other.facts
        and len(one.arrays) == len(other.arrays)
        and all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one.arrays, other.arrays, strict=True))
    )


def test_what_was_kept_is_read(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch")
    assert scratch.read(CELL, "a" * 64) is None
    scratch.write(CELL, "a" * 64, PART)
    scratch.write(OTHER, "a" * 64, Part({"month": 1}))
    assert same(scratch.read(CELL, "a" * 64), PART)
    assert same(scratch.read(OTHER, "a" * 64), Part({"month": 1}))
    assert scratch.has([CELL, OTHER], "a" * 64)
    assert not scratch.has([CELL], "b" * 64)
    assert scratch.of_season(2022).read(CELL, "a" * 64) is None
    scratch.forget(CELL)
    assert scratch.read(CELL, "a" * 64) is None
    assert not scratch.has([CELL, OTHER], "a" * 64)
    scratch.delete()
    assert not scratch.folder.exists()


def test_two_workers_at_the_same_part_do_not_disturb_each_other(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    interrupted = iter([None, lambda: Scratch(tmp_path).write(CELL, "a", PART)])

    def check() -> None:
        # Just before the first writer's part gets its name, another one writes it from the beginning to the end.
        if other := next(interrupted):
            other()

    Scratch(tmp_path, check).write(CELL, "a", PART)
    assert same(scratch.read(CELL, "a"), PART)
    assert [path.suffix for path in (tmp_path / CELL.id).iterdir()] == [".part"]


def test_a_damaged_part_is_none(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.write(CELL, "a", PART)
    path = scratch.path(CELL, "a")
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        assert scratch.read(CELL, "a") is None, place
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert scratch.read(CELL, "a") is None
    path.write_bytes(whole + b"x")
    assert scratch.read(CELL, "a") is None


def test_a_full_disk_leaves_no_part_of_a_part(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as folder:
        scratch = Scratch(folder)
        big = Part({}, (np.zeros(SMALL_DISK, np.uint8),))
        with pytest.raises(StoreError, match="free space there, or choose another folder with --scratch"):
            scratch.write(CELL, "a", big)
        assert scratch.read(CELL, "a") is None
        assert not list(folder.glob("*/*"))
        scratch.write(CELL, "b", PART)
        assert same(scratch.read(CELL, "b"), PART)
