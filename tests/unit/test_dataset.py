"""The PyTorch dataset gives samples as they are stored."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from made_stores import make_store
from torch_workers import WORKERS

from h2crop_data.errors import StoreError, UsageError
from h2crop_data.training.dataset import CropSamples


def test_a_sample_is_tensors_as_stored(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    samples = CropSamples(made.folder)
    assert samples.ids == made.samples[2022]["sample"].tolist()
    assert len(samples) == len(samples.ids)
    for i in range(len(samples)):
        sample = samples[i]
        assert set(sample) == {"id", "enmap", "s2", "label", "prior"}
        for name in ("enmap", "s2", "label", "prior"):
            expected = made.arrays[2022][name][i]
            assert sample[name].dtype == torch.from_numpy(expected).dtype
            np.testing.assert_array_equal(sample[name].numpy(), expected)


def test_other_arrays_and_fewer_months(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    arrays = ["s2", "s2_clear", "parcel", "enmap_quality"]
    sample = CropSamples(made.folder, arrays=arrays, months=6, later_scenes=True)[1]
    np.testing.assert_array_equal(sample["s2"].numpy(), made.arrays[2022]["s2"][1, :6])
    np.testing.assert_array_equal(sample["s2_clear"].numpy(), made.arrays[2022]["s2_clear"][1, :6])
    np.testing.assert_array_equal(sample["parcel"].numpy(), made.arrays[2022]["parcel"][1])
    np.testing.assert_array_equal(sample["enmap_quality"].numpy(), made.arrays[2022]["enmap_quality"][1])


# Scenes of the made store: 1, 2, 3 July at 10:30 UTC, one a block.


@pytest.mark.parametrize(
    ("window", "months", "blocks"),
    [
        ({}, 12, {0, 1, 2}),
        ({"until": "2022-07-31"}, 7, {0, 1, 2}),
        ({"until": "07-31"}, 7, {0, 1, 2}),
        ({"months": 7}, 7, {0, 1, 2}),
        # July is not over, and the day itself is known to its end.
        ({"until": "2022-07-02"}, 6, {0, 1}),
        ({"until": date(2022, 7, 1)}, 6, {0}),
        ({"until": "06-30", "later_scenes": True}, 6, {0, 1, 2}),
        ({"months": 6, "later_scenes": True}, 6, {0, 1, 2}),
    ],
)
def test_a_window_ends_with_the_last_month_that_is_over_and_the_last_scene_that_is_known(
    tmp_path: Path, window: dict[str, Any], months: int, blocks: set[int]
) -> None:
    made = make_store(tmp_path / "store", blocks=3)
    table = made.samples[2022]
    samples = CropSamples(made.folder, **window)
    assert samples.months == months
    assert samples.ids == table.loc[table["block"].isin(blocks), "sample"].tolist()
    assert samples.left_out == len(table) - len(samples)
    place = table["sample"].tolist().index(samples.ids[-1])
    np.testing.assert_array_equal(samples[len(samples) - 1]["s2"].numpy(), made.arrays[2022]["s2"][place, :months])


def test_a_window_before_every_scene_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", blocks=3)
    with pytest.raises(StoreError, match=r"all 8 sample.*after 2022-06-30; .*later_scenes=True"):
        CropSamples(made.folder, months=6)
    assert len(CropSamples(make_store(tmp_path / "without", enmap=False).folder, months=6)) > 0


def test_a_window_of_several_seasons_is_given_by_month_and_day(tmp_path: Path) -> None:
    # 2024 has a 29 February: in all seasons the months are over that are over in each of them.
    made = make_store(tmp_path / "store", seasons=(2023, 2024), enmap=False)
    assert CropSamples(made.folder, until="02-28").months == 1
    assert CropSamples(made.folder, until="02-29").months == CropSamples(made.folder, months=2).months == 2
    assert CropSamples(made.folder, until="2024-02-29", seasons=[2024]).months == 2
    with pytest.raises(UsageError, match=r"2023-06-30 is not in the season 2024; choose seasons=\[2023\], .*06-30"):
        CropSamples(made.folder, until="2023-06-30")


@pytest.mark.parametrize(
    ("window", "problem"),
    [
        ({"until": "June"}, "expected a day like 2022-06-30 or 06-30, got 'June'"),
        ({"until": "02-30"}, "expected a day"),
        ({"until": "2022-01-30"}, "at least one month is over"),
        ({"until": "06-30", "months": 6}, "until cannot be combined with months"),
        ({"months": 0}, "months: expected 1..12, got 0"),
    ],
)
def test_a_window_that_is_none_is_refused(tmp_path: Path, window: dict[str, Any], problem: str) -> None:
    made = make_store(tmp_path / "store")
    with pytest.raises(UsageError, match=problem):
        CropSamples(made.folder, **window)


def test_seasons_and_splits_select_samples(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", seasons=(2022, 2023), blocks=3)
    both = CropSamples(made.folder)
    assert both.ids == [name for season in (2022, 2023) for name in made.samples[season]["sample"]]
    val = CropSamples(made.folder, split="val", seasons=[2023])
    table = made.samples[2023]
    assert val.ids == table.loc[table["split"] == "val", "sample"].tolist()
    place = table["sample"].tolist().index(val.ids[0])
    np.testing.assert_array_equal(val[0]["s2"].numpy(), made.arrays[2023]["s2"][place])


def test_ids_are_a_sequence_of_strings(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", seasons=(2022, 2023), blocks=3)
    expected = [name for season in (2022, 2023) for name in made.samples[season]["sample"]]
    ids = CropSamples(made.folder).ids
    assert (len(ids), list(ids), ids[:], ids[1:9:3]) == (len(expected), expected, expected, expected[1:9:3])
    for place in (0, -1, np.int64(5)):
        assert ids[place] == expected[place]
        assert type(ids[place]) is str
    assert expected[7] in ids
    assert ids.index(expected[7]) == 7
    assert ids != expected[:-1]
    assert ids != [*expected[:-1], "another"]
    assert pickle.loads(pickle.dumps(ids)) == ids
    with pytest.raises(IndexError):
        ids[len(expected)]


def test_of_the_index_only_the_columns_needed_are_read(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    table = made.folder / "index/r1/samples-2022.parquet"
    data = bytearray(table.read_bytes())
    group = pq.read_metadata(table).row_group(0)
    chunks = [group.column(i) for i in range(group.num_columns)]
    for chunk in chunks:
        if chunk.path_in_schema not in ("sample", "slot", "split"):
            begin = chunk.dictionary_page_offset or chunk.data_page_offset
            data[begin : begin + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    table.write_bytes(data)
    assert CropSamples(made.folder, split="val").ids == made.samples[2022]["sample"].tolist()[3:]
    table.write_bytes(data[:-10])
    with pytest.raises(StoreError, match=r"cannot read .*samples-2022\.parquet: .*copy it again"):
        CropSamples(made.folder)


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", enmap=False)
    assert set(CropSamples(made.folder)[0]) == {"id", "s2", "label", "prior"}
    with pytest.raises(StoreError, match="has no array 'enmap'"):
        CropSamples(made.folder, arrays=["enmap"])
    with pytest.raises(StoreError, match="has no season 1999; it has 2022"):
        CropSamples(made.folder, seasons=[1999])
    with pytest.raises(UsageError, match=r"months: expected 1\.\.12, got 13"):
        CropSamples(made.folder, months=13)
    with pytest.raises(StoreError, match=r"zarr.json"):
        CropSamples(tmp_path)


def test_a_split_the_store_does_not_know_is_refused_with_those_it_knows(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", seasons=(2022, 2023), blocks=3)
    for unknown in ("dev", "Train", ""):
        with pytest.raises(StoreError, match=rf"store has no split '{unknown}'; it has train, val, test$"):
            CropSamples(made.folder, split=unknown)
    for split in ("train", "val", "test"):
        assert len(CropSamples(made.folder, split=split, seasons=[2022])) > 0


def test_a_selection_without_samples_says_what_was_asked_and_what_there_is(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", seasons=(2022, 2023), blocks=2)
    with pytest.raises(StoreError, match=r"no season of .*store is selected; available seasons: 2022, 2023$"):
        CropSamples(made.folder, seasons=[])
    # No recipe of this store asked for a test split; then one did, and no square fell into it.
    with pytest.raises(StoreError, match=r"store has no split 'test'; it has train, val$"):
        CropSamples(made.folder, split="test")
    recipes = made.folder / "index/r1/recipes-2023.json"
    asking = json.loads(recipes.read_text())
    asking["2023"]["split"] = {"shares": {"train": 0.6, "val": 0.3, "test": 0.1, "holdout": 0.0}}
    recipes.write_text(json.dumps(asking))
    with pytest.raises(
        StoreError,
        match=r"store has no sample of the split 'test' in 2023; 2022 has train 3, val 2; 2023 has train 3, val 2$",
    ):
        CropSamples(made.folder, split="test", seasons=[2023])
    with pytest.raises(StoreError, match=r"no split 'holdout'; it has train, val, test$"):
        CropSamples(made.folder, split="holdout")


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_workers_of_every_kind_read_the_same(start: str, tmp_path: Path) -> None:
    made = make_store(tmp_path / "store")
    np.save(tmp_path / "expected.npy", made.arrays[2022]["s2"])
    script = tmp_path / "workers.py"
    script.write_text(WORKERS, encoding="utf-8")
    # A process of its own: what pytest has loaded and started must not decide whether a fork works.
    command = [sys.executable, str(script), str(made.folder), start, str(tmp_path / "expected.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "the same"
