"""The PyTorch dataset gives samples as they are stored."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from store_factory import make_store
from torch_workers import WORKERS

from h2crop_data.errors import StoreError
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
    sample = CropSamples(made.folder, arrays=["s2", "s2_clear", "parcel", "enmap_quality"], months=6)[1]
    np.testing.assert_array_equal(sample["s2"].numpy(), made.arrays[2022]["s2"][1, :6])
    np.testing.assert_array_equal(sample["s2_clear"].numpy(), made.arrays[2022]["s2_clear"][1, :6])
    np.testing.assert_array_equal(sample["parcel"].numpy(), made.arrays[2022]["parcel"][1])
    np.testing.assert_array_equal(sample["enmap_quality"].numpy(), made.arrays[2022]["enmap_quality"][1])


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
    with pytest.raises(ValueError, match="months: 13"):
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
    with pytest.raises(StoreError, match=r"no season of .*store is selected; it has 2022, 2023$"):
        CropSamples(made.folder, seasons=[])
    # No recipe of this store asked for a test split; then one did, and no square fell into it.
    with pytest.raises(StoreError, match=r"store has no split 'test'; it has train, val$"):
        CropSamples(made.folder, split="test")
    recipes = made.folder / "index/r1/recipes.json"
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
