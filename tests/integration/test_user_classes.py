"""A store read and exported in a user's own classes, against the crops of its parcels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from made_stores import checked_store
from numpy.typing import NDArray
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.errors import ParcelError, UsageError
from h2crop_data.training.dataset import CropSamples

SEASON = 2022
#: HCAT3 code of the parcels of the store -> the user's class.
EXPECTED = {"3301010101": 5, "3301010401": 6, "3301010600": 6, "3301090100": 7, "3302000000": 7}
MAPPING = "hcat3,id,name\n3301010101,5,winter wheat\n330101,6,other cereals\n,7,anything else\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checked_store(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def mapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mapping") / "mine.csv"
    path.write_text(MAPPING, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def expected(store: Path) -> dict[str, NDArray[np.uint8]]:
    """By sample the user's class of each pixel, by the crop of its parcel."""
    parcels = h2crop_data.read_index(store, f"parcels-{SEASON}")
    crops = dict(zip(parcels["number"].tolist(), parcels["hcat3"].tolist(), strict=True))
    assert {crop for crop in crops.values() if crop} <= EXPECTED.keys()
    opened = h2crop_data.open(store, SEASON).load()
    found = {}
    for i, sample in enumerate(opened["sample"].values):
        tier1, numbers = opened["label"].values[i, 0], opened["parcel"].values[i]
        classes = np.array([EXPECTED.get(crops.get(number, ""), 255) for number in numbers.ravel().tolist()], np.uint8)
        # Pixels of another split are unknown, whatever grows there.
        found[str(sample)] = np.where(np.isin(tier1, (0, 255)), tier1, classes.reshape(numbers.shape))
    assert {number for one in found.values() for number in np.unique(one).tolist()} >= {0, 5, 7}
    return found


def test_open_gives_the_users_classes(store: Path, mapping: Path, expected: dict[str, Any]) -> None:
    opened = h2crop_data.open(store, SEASON, classes=mapping)
    assert opened["label"].dims == ("sample", "y", "x")
    assert "tier" not in opened.dims
    assert opened["label"].dtype == np.uint8
    for i, sample in enumerate(opened["sample"].values):
        np.testing.assert_array_equal(opened["label"].values[i], expected[str(sample)])
    assert opened["label"].attrs["flag_meanings"] == "not_declared winter_wheat other_cereals anything_else unknown"
    assert opened["label"].attrs["flag_values"].tolist() == [0, 5, 6, 7, 255]
    assert opened["prior"].dims == ("sample", "y", "x")


def test_a_sample_and_the_dataset_agree_with_it(store: Path, mapping: Path, expected: dict[str, Any]) -> None:
    dataset = CropSamples(store, seasons=[SEASON], classes=mapping)
    assert dataset.class_names == {
        0: "not_declared",
        5: "winter wheat",
        6: "other cereals",
        7: "anything else",
        255: "unknown",
    }
    for sample in dataset:
        np.testing.assert_array_equal(sample["label"].numpy(), expected[sample["id"]])
        one = h2crop_data.open_sample(store, sample["id"], classes=mapping)
        np.testing.assert_array_equal(one["label"].values, expected[sample["id"]])
        np.testing.assert_array_equal(one["prior"].values, sample["prior"].numpy())
    assert not CropSamples(store).class_names


def test_an_export_has_a_raster_of_them(store: Path, mapping: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    sample = next(iter(expected))
    arguments = ["export-sample", str(store), sample, str(tmp_path / "out"), "--classes", str(mapping)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    with rasterio.open(tmp_path / "out/label_mine.tif") as raster:
        np.testing.assert_array_equal(raster.read(1), expected[sample])
    assert "winter wheat" in (tmp_path / "out/label_mine.tif.aux.xml").read_text(encoding="utf-8")
    # The tiers are there as before.
    assert (tmp_path / "out/label_tier4.tif").exists()


def test_wrong_uses_are_refused(store: Path, mapping: Path, expected: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="tier cannot be combined with classes"):
        h2crop_data.open_sample(store, next(iter(expected)), classes=mapping, tier=2)
    for read in (
        h2crop_data.open,
        lambda store, season, classes: CropSamples(store, seasons=[season], classes=classes),
    ):
        with pytest.raises(ParcelError, match="no mapping 'nonsense'"):
            read(store, SEASON, classes="nonsense")
