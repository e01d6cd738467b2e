"""A batch of ours, normalised as published, is what the published loader reads from an export of the same store.

What an export does besides (docs/published-layout.md): 1000 is added to Sentinel-2 where asked for; unmeasured months,
bands and pixels get numbers, since the published code knows no fill; unknown classes become 0. So where a store has
fill the two differ there, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from made_stores import PUBLISHED_WAVELENGTHS, MadeStore, make_store
from numpy.typing import NDArray
from published_files import make_published
from torch.utils.data import DataLoader

from h2crop_data.published.exporting import ExportOptions, export_published
from h2crop_data.published.importing import import_published
from h2crop_data.published.options import ImportOptions
from h2crop_data.training.augmentation import Augmentation
from h2crop_data.training.dataset import CropSamples
from h2crop_data.training.normalisation import Normalisation
from h2crop_data.training.transforms import BatchTransforms

FILL = -32768
NAMES = {"S2": "s2", "EnMAP": "enmap", "label": "label", "priors": "prior"}


def published_sample(path: Path, months: int) -> dict[str, NDArray[Any]]:
    """A sample as the published loader gives it, without its random turns: float32 images, int64 classes."""
    figures = Normalisation.published()
    with h5py.File(path, "r") as file:
        images = {
            "S2": file["S2_data"][0:months].astype(np.float32),
            "EnMAP": file["EnMAP_data"][:].astype(np.float32),
        }
        classes = {"label": file["label"][:].astype(np.int64), "priors": file["priors"][:].astype(np.int64)}
    for name, values in images.items():
        mean, sd = (np.array(figure[NAMES[name]])[:, None, None] for figure in (figures.mean, figures.sd))
        images[name] = ((values - mean) / sd).astype(np.float32)
    return {**images, **classes}


def measured(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of a sample with a value everywhere."""
    draw = np.random.default_rng(int(arrays["parcel"].max()))
    complete = dict(arrays)
    for name, unknown in (("s2", FILL), ("enmap", FILL), ("label", 255), ("prior", 255)):
        values = draw.integers(1, 100, arrays[name].shape).astype(arrays[name].dtype)
        complete[name] = np.where(arrays[name] == unknown, values, arrays[name])
    complete["s2_clear"] = np.full_like(arrays["s2_clear"], 2)
    return complete


def published_sized(folder: Path, change: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]) -> MadeStore:
    """Two samples of the sizes of the published dataset."""
    return make_store(folder, blocks=2, capacity=1, cell_size=1920, wavelengths=PUBLISHED_WAVELENGTHS, change=change)


def ours(store: Path, months: int) -> dict[str, Any]:
    """All samples of a store in one batch, normalised as published."""
    samples = CropSamples(store, months=months, later_scenes=True)
    (batch,) = DataLoader(samples, batch_size=len(samples))
    return BatchTransforms.for_store(store, published=True)(batch)


@pytest.mark.parametrize("months", [6, 12])
def test_where_everything_is_measured_all_tensors_are_equal(months: int, tmp_path: Path) -> None:
    made = published_sized(tmp_path / "store", measured)
    export_published(made.folder, tmp_path / "out", ExportOptions(published_offset=True))
    batch = ours(made.folder, months)
    for place, name in enumerate(batch["id"]):
        sample = published_sample(tmp_path / f"out/h5_data/{name}.h5", months)
        for published, own in NAMES.items():
            assert str(batch[own].dtype).removeprefix("torch.") == sample[published].dtype.name
            np.testing.assert_allclose(batch[own][place].numpy(), sample[published], rtol=1e-5, atol=2e-6)


def test_where_nothing_is_measured_ours_is_zero_and_all_else_is_equal(tmp_path: Path) -> None:
    made = published_sized(tmp_path / "store", dict)
    export_published(made.folder, tmp_path / "out", ExportOptions(published_offset=True))
    batch = ours(made.folder, 12)
    for place, name in enumerate(batch["id"]):
        sample = published_sample(tmp_path / f"out/h5_data/{name}.h5", 12)
        for published, own in NAMES.items():
            stored, found = made.arrays[2022][own][place], batch[own][place].numpy()
            unknown = stored == (FILL if own in ("s2", "enmap") else 255)
            assert unknown.any()
            np.testing.assert_allclose(found[~unknown], sample[published][~unknown], rtol=1e-5, atol=2e-6)
            assert (found[unknown] == (0 if own in ("s2", "enmap") else 255)).all()
            if own in ("label", "prior"):
                assert (sample[published][unknown] == 0).all()


@pytest.mark.parametrize("remove_offset", [False, True])
def test_published_files_through_a_store_are_what_they_were(remove_offset: bool, tmp_path: Path) -> None:
    """Whether the import kept the offset of 1000 or took it away: published mode knows, and adds what is missing."""
    published = make_published(tmp_path / "in")
    store = tmp_path / "store"
    import_published(published.folder, store, ImportOptions(remove_offset=remove_offset))
    batch = ours(store, 12)
    samples = CropSamples(store)
    for place, name in enumerate(batch["id"]):
        sample, stored = published_sample(published.path(name), 12), samples[place]
        for key, own in NAMES.items():
            found = batch[own][place].numpy()
            known = (stored[own] > -32767).numpy() if own in ("s2", "enmap") else np.ones(found.shape, dtype=bool)
            np.testing.assert_allclose(found[known], sample[key][known], rtol=1e-5, atol=1e-5)


def test_flips_and_turns_of_ours_are_those_of_the_published_sample(tmp_path: Path) -> None:
    """One of the eight ways a square can lie, the same in all four tensors of a sample."""
    made = published_sized(tmp_path / "store", measured)
    export_published(made.folder, tmp_path / "out", ExportOptions(published_offset=True))
    (batch,) = DataLoader(CropSamples(made.folder), batch_size=2)
    transforms = BatchTransforms.for_store(made.folder, published=True, augmentation=Augmentation(cut_mix=0))
    seen = set()
    for seed in range(6):
        turned = transforms(batch, torch.Generator().manual_seed(seed))
        for place, name in enumerate(turned["id"]):
            sample = published_sample(tmp_path / f"out/h5_data/{name}.h5", 12)
            matching = [
                (flip, turns)
                for flip in (False, True)
                for turns in range(4)
                if all(same(turned[own][place], sample[key], flip, turns) for key, own in NAMES.items())
            ]
            assert len(matching) == 1
            seen.add(matching[0])
    assert len(seen) > 3


def same(found: torch.Tensor, expected: NDArray[Any], flip: bool, turns: int) -> bool:
    image = np.flip(expected, -2) if flip else expected
    return np.allclose(np.rot90(image, turns, (-2, -1)), found.numpy(), rtol=1e-5, atol=2e-6)
