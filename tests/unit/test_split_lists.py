"""Splits by list: files of ids are read or refused with file and line, and decide for ground."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from pathlib import Path

import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from h2crop_data.errors import RecipeError
from h2crop_data.grid import Cell
from h2crop_data.published_ids import PublishedId
from h2crop_data.splits.lists import (
    ListedPatch,
    patch_outline,
    published_patch,
    read_split_lists,
    splits_from_lists,
    splits_from_patches,
)

PATCH = "20220613T112220Z_003_x384_y704_T32ULV"
CELL = "32631_1920_0261_2932"
SAMPLE = "32633_960_0381_6048_20220724T104526"
SEASON_SAMPLE = "32631_240_2089_23455_2018"


def write_lists(folder: Path, **lists: str | bytes) -> Path:
    """train.txt, val.txt and test.txt; empty where not given."""
    for split in ("train", "val", "test"):
        content = lists.get(split, "")
        (folder / f"{split}.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(RecipeError) as error:
        read_split_lists(folder)
    return str(error.value)


# Files


def test_lists_hold_ids_of_cells_samples_and_published_patches(tmp_path: Path) -> None:
    folder = write_lists(
        tmp_path,
        train=f"# our own\n{CELL}\n\n  {SAMPLE}  # seen in July\n",
        val=f"\ufeff{SEASON_SAMPLE}\r\n".encode(),
        test=PATCH,
    )
    assert read_split_lists(folder) == {CELL: "train", SAMPLE: "train", SEASON_SAMPLE: "val", PATCH: "test"}


def test_a_list_may_be_empty(tmp_path: Path) -> None:
    assert read_split_lists(write_lists(tmp_path)) == {}


def test_every_id_that_is_listed_twice_is_named_with_its_lines(tmp_path: Path) -> None:
    folder = write_lists(tmp_path, train=f"{CELL}\n{SAMPLE}\n{PATCH}", val=f"\n{CELL}\n", test=f"{PATCH}\n{SAMPLE}")
    (folder / "train.txt").write_text(f"{CELL}\n{SAMPLE}\n{PATCH}\n{SEASON_SAMPLE}\n# x\n{SEASON_SAMPLE}\n")
    message = refusal(folder)
    assert f"{CELL} is in two lists: train.txt:1, val.txt:2" in message
    assert f"{SAMPLE} is in two lists: train.txt:2, test.txt:2" in message
    assert f"{PATCH} is in two lists: train.txt:3, test.txt:1" in message
    assert f"{SEASON_SAMPLE} is listed twice: train.txt:4, train.txt:6" in message
    assert str(folder) in message


@pytest.mark.parametrize(
    "text",
    [
        "32631_1920_261_2932",
        f"{CELL} {SAMPLE}",
        f"{CELL}_20220724",
        f"{PATCH}.h5",
        "20220613T112220Z_003_x384_y704",
        "32631_1000_0261_2932",
        "train",
    ],
)
def test_a_line_that_is_no_id_is_named(tmp_path: Path, text: str) -> None:
    assert f"val.txt:2: invalid id {text!r}" in refusal(write_lists(tmp_path, val=f"{CELL}\n{text}\n"))


def test_missing_files_and_other_encodings_are_named(tmp_path: Path) -> None:
    folder = write_lists(tmp_path, train=f"{CELL}\n# Fl\u00e4che\n".encode("latin-1"))
    (folder / "test.txt").unlink()
    message = refusal(folder)
    assert "train.txt:2: not UTF-8" in message
    assert "test.txt: No such file" in message
    assert "val.txt" not in message.replace("train.txt, val.txt and test.txt", "")


def test_of_many_problems_the_first_are_told_and_the_others_counted(tmp_path: Path) -> None:
    message = refusal(write_lists(tmp_path, train="\n".join(f"wrong{i}" for i in range(60))))
    assert "train.txt:50:" in message
    assert "train.txt:51:" not in message
    assert message.endswith("and 10 more")


# Our own ids


def test_a_listed_sample_decides_for_its_cell(tmp_path: Path) -> None:
    cells = [Cell.parse(CELL), Cell(32633, 960, 381, 6048), Cell(32631, 240, 2089, 23455), Cell(32631, 1920, 1, 1)]
    lists = {CELL: "train", SAMPLE: "val", SAMPLE.replace("2022", "2023"): "val", SEASON_SAMPLE: "test"}
    assert splits_from_lists(lists, cells) == dict(zip(cells, ["train", "val", "test", None], strict=True))
    assert splits_from_lists(lists, []) == {}


def test_samples_of_one_cell_in_two_splits_are_refused() -> None:
    cell = SAMPLE.rpartition("_")[0]
    later = SAMPLE.replace("2022", "2023")
    with pytest.raises(RecipeError, match=f"{cell} is in several splits.*train: {SAMPLE}; val: {later}"):
        splits_from_lists({SAMPLE: "train", later: "val"}, [])
    with pytest.raises(RecipeError, match="in several splits"):
        splits_from_lists({cell: "train", later: "val"}, [])


def test_published_patches_need_their_scenes() -> None:
    with pytest.raises(RecipeError, match=f"{PATCH}.*scenes"):
        splits_from_lists({PATCH: "train"}, [])


# Ids of the published dataset


def test_an_id_of_the_published_dataset_says_time_place_and_tile() -> None:
    time = datetime(2022, 6, 13, 11, 22, 20, tzinfo=UTC)
    assert published_patch(PATCH) == PublishedId(PATCH, time, "003", 384, 704, "32ULV")


@pytest.mark.parametrize("name", ["", CELL, PATCH.lower(), PATCH + "\n", PATCH.replace("T32ULV", "32ULV"), PATCH[:-1]])
def test_what_is_no_published_id_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="one like 20220613T112220Z_003_x384_y704_T32ULV"):
        published_patch(name)


def test_a_time_that_never_was_is_refused() -> None:
    with pytest.raises(RecipeError, match="does not begin with a time"):
        published_patch(PATCH.replace("20220613", "20221313"))


def test_the_outline_of_a_patch_is_64_pixels_of_its_scene() -> None:
    scene = Affine(30, 0, 364_095, 0, -30, 5_849_365)
    west, south, east, north = patch_outline(PATCH, scene)
    assert (west, north) == scene @ (384, 704)
    assert (east, south) == scene @ (384 + 64, 704 + 64)
    assert east - west == north - south == 1920


@pytest.mark.parametrize("grid", [Affine(10, 0, 0, 0, -10, 0), Affine(30, 0, 0, 0, 30, 0), Affine(30, 1, 0, 0, -30, 0)])
def test_a_scene_on_another_grid_is_refused(grid: Affine) -> None:
    with pytest.raises(RecipeError, match="grid of 30 m"):
        patch_outline(PATCH, grid)


def patch(split: str, west: float, north: float, epsg: int = 32632) -> ListedPatch:
    return ListedPatch(f"{split} {west} {north}", split, epsg, (west, north - 1920, west + 1920, north))


def test_cells_have_the_split_of_the_patches_on_their_ground() -> None:
    cells = [Cell(32632, 1920, column, 3000) for column in range(260, 268)]
    west, north = cells[0].corner
    patches = [
        patch("train", west, north),  # the first cell, exactly: its neighbours touch it only
        patch("val", west + 2 * 1920 + 15, north + 15),  # the third and, by 15 m, the fourth
        patch("test", west + 4 * 1920 - 15, north),  # the fifth and, by 15 m, the fourth
        patch("test", west + 4 * 1920, north - 1900),  # the fifth again, by 20 m
        patch("val", west + 6 * 1920, north - 1920),  # below the seventh
    ]
    found = splits_from_patches(patches, cells)
    assert list(found.splits.values()) == ["train", None, "val", None, "test", None, None, None]
    assert list(found.splits) == cells
    assert found.conflicts == [cells[3]]
    assert splits_from_patches([], cells).splits == dict.fromkeys(cells)
    assert splits_from_patches(patches, []).splits == {}


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_patches_of_another_zone_count_where_they_share_ground(seed: int) -> None:
    # 12 degrees east, where zones 32 and 33 meet; a scene's raster reaches across the border.
    draw = random.Random(seed)
    x, y = pyproj.Transformer.from_crs("OGC:CRS84", 32633, always_xy=True).transform(12.0, 52.4)
    column, row = int(x // 1920), int(y // 1920)
    cells = [Cell(32633, 1920, column + i, row + j) for i, j in itertools.product(range(1, 5), range(4))]
    there = pyproj.Transformer.from_crs(32633, 32632, always_xy=True)
    patches = []
    for _ in range(4):
        west, north = there.transform(x + draw.uniform(0, 9000), y + draw.uniform(0, 9000))
        patches.append(patch(draw.choice(["train", "val"]), west, north))
    expected = {}
    for cell in cells:
        # The other way round: the cell in the patches' zone.
        square = shapely.transform(shapely.segmentize(cell.polygon, 60), there.transform, interleaved=False)
        areas = [square.intersection(shapely.box(*one.bounds)).area for one in patches]
        assume(not any(0 < area < 1 for area in areas))
        met = {one.split for one, area in zip(patches, areas, strict=True) if area}
        expected[cell] = met
    found = splits_from_patches(patches, cells)
    assert found.splits == {cell: next(iter(met)) if len(met) == 1 else None for cell, met in expected.items()}
    assert found.conflicts == sorted(cell for cell, met in expected.items() if len(met) > 1)
