"""Normalising is exact, fill is 0, and figures that do not belong to a store are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import ENMAP_FLAGGED, PUBLISHED_WAVELENGTHS, MadeStore, make_store

from h2crop_data.errors import StoreError, UsageError
from h2crop_data.training import normalisation as module
from h2crop_data.training.normalisation import Normalisation, normalise
from h2crop_data.training.normalisation_check import check_normalisation
from h2crop_data.training.store_statistics import stored_offsets

FILL = -32768


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """A store with different values in every pixel of Sentinel-2, as on the ground."""
    return make_store(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture(scope="module")
def folder(made: MadeStore) -> Path:
    return made.folder


def scaled(normalisation: Normalisation, factor: float = 1.0, shift: float = 0.0, array: str = "s2") -> Normalisation:
    """With the means and deviations of an array times a factor, and the means shifted."""
    mean = {**normalisation.mean, array: tuple(factor * value + shift for value in normalisation.mean[array])}
    sd = {**normalisation.sd, array: tuple(factor * value for value in normalisation.sd[array])}
    return replace(normalisation, mean=mean, sd=sd, source="changed")


@given(
    seed=st.integers(0, 2**31),
    lead=st.lists(st.integers(1, 3), max_size=2),
    bands=st.integers(1, 7),
    side=st.integers(1, 9),
    block=st.sampled_from([1, 40, 100, 1 << 18]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
@settings(max_examples=60, deadline=None)
def test_each_number_is_normalised_by_its_band(
    seed: int, lead: list[int], bands: int, side: int, block: int, dtype: torch.dtype
) -> None:
    draw = np.random.default_rng(seed)
    stored = draw.integers(-32767, 32768, (*lead, bands, side, side)).astype(np.int16)
    stored[draw.random(stored.shape) < 0.3] = FILL
    before = stored.copy()
    mean, sd = draw.uniform(-500, 5000, bands).astype(np.float32), draw.uniform(10, 3000, bands).astype(np.float32)
    sd[draw.random(bands) < 0.2] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_BLOCK", block)
        found = normalise(torch.from_numpy(stored), torch.from_numpy(mean), torch.from_numpy(sd), dtype)
    assert found.dtype == dtype
    expected = np.zeros(stored.shape)
    for place in np.ndindex(stored.shape):
        band = place[-3]
        if stored[place] != FILL and sd[band] > 0:
            expected[place] = (float(stored[place]) - float(mean[band])) / float(sd[band])
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-10}[dtype]
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=2 * tolerance, atol=tolerance)
    assert (found.numpy() if dtype != torch.bfloat16 else found.float().numpy())[stored == FILL].any() == np.False_
    np.testing.assert_array_equal(stored, before)


def test_what_is_not_as_stored_is_refused() -> None:
    three = torch.ones(3)
    for stored in (torch.zeros((3, 2, 2)), torch.zeros((4, 2, 2), dtype=torch.int16), torch.zeros(3).short()):
        with pytest.raises(UsageError, match=r"expected numbers as stored, \(\.\.\., 3 bands, y, x\) int16; got"):
            normalise(stored, three, three)


def test_figures_of_a_store_are_those_of_its_training_numbers(made: MadeStore) -> None:
    ours = Normalisation.of_store(made.folder)
    training = (made.samples[2022]["split"] == "train").to_numpy()
    assert ours.offset == {}
    s2 = made.arrays[2022]["s2"][training]
    for band in range(10):
        numbers = s2[:, :, band][s2[:, :, band] != FILL].astype(float)
        assert ours.mean["s2"][band] == pytest.approx(numbers.mean())
        assert ours.sd["s2"][band] == pytest.approx(numbers.std())
    enmap, quality = made.arrays[2022]["enmap"][training], made.arrays[2022]["enmap_quality"][training]
    assert len(ours.mean["enmap"]) == enmap.shape[1] == 32
    unflagged = (quality & ENMAP_FLAGGED) == 0
    numbers = enmap[:, 7][unflagged & (enmap[:, 7] != FILL)].astype(float)
    assert (ours.mean["enmap"][7], ours.sd["enmap"][7]) == pytest.approx((numbers.mean(), numbers.std()))
    assert ours == Normalisation(**json.loads(json.dumps(asdict(ours))))
    check_normalisation(ours, made.folder)


def test_bands_that_say_nothing_become_zero(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "store").folder
    path = folder / "index/r1/statistics.json"
    statistics = json.loads(path.read_text())
    statistics["reflectance"]["enmap"][3] |= {"count": 0, "mean": None, "sd": None}
    statistics["reflectance"]["enmap"][4]["sd"] = 0.0
    path.write_text(json.dumps(statistics))
    ours = Normalisation.of_store(folder)
    assert (ours.mean["enmap"][3], ours.sd["enmap"][3], ours.sd["enmap"][4]) == (0, 0, 0)
    stored = torch.full((32, 2, 2), 1234, dtype=torch.int16)
    found = normalise(stored, *ours.in_stored_numbers("enmap"))
    assert [band for band in range(32) if not found[band].any()] == [3, 4]
    check_normalisation(ours, folder)


def test_a_store_without_a_training_split_has_no_figures(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "store", splits=("val", "test")).folder
    with pytest.raises(StoreError, match="no sample of it is in the split 'train'"):
        Normalisation.of_store(folder)


def test_the_record_is_checked() -> None:
    with pytest.raises(UsageError, match="same number of bands"):
        Normalisation(source="x", mean={"s2": (1.0,)}, sd={"s2": (1.0, 2.0)})
    with pytest.raises(UsageError, match="same arrays"):
        Normalisation(source="x", mean={"s2": (1.0,)}, sd={"enmap": (1.0,)})
    for wrong_type in ({"s2": ("high",)}, {"s2": 1.0}, [1.0]):
        with pytest.raises(UsageError, match="array -> one number a band"):
            Normalisation(source="x", mean=wrong_type, sd={"s2": (1.0,)})  # type: ignore[arg-type]
    for wrong in (-1.0, float("nan")):
        with pytest.raises(UsageError, match="must not be negative"):
            Normalisation(source="x", mean={"s2": (1.0,)}, sd={"s2": (wrong,)})


@pytest.mark.parametrize("array", ["s2", "enmap"])
@pytest.mark.parametrize(("factor", "words"), [(1e-4, "reflectance was used"), (1e4, "multiplied by 10000 twice")])
def test_a_mistaken_scale_is_refused(made: MadeStore, array: str, factor: float, words: str) -> None:
    ours = Normalisation.of_store(made.folder)
    both = scaled(ours, factor, array=array)
    with pytest.raises(UsageError, match=rf"standard deviations of {array}: .*changed.*{words}"):
        check_normalisation(both, made.folder)
    with pytest.raises(UsageError, match=rf"means of {array}: .*changed.*{words}"):
        check_normalisation(replace(both, sd=ours.sd), made.folder)


def test_figures_in_reflectance_are_accepted_where_they_say_so(made: MadeStore) -> None:
    ours = Normalisation.of_store(made.folder)
    in_reflectance = replace(scaled(scaled(ours, 1e-4), 1e-4, array="enmap"), reflectance_scale=1.0)
    check_normalisation(in_reflectance, made.folder)
    for array in ("s2", "enmap"):
        for one, two in zip(in_reflectance.in_stored_numbers(array), ours.in_stored_numbers(array), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=0)


@given(
    noise=st.lists(st.floats(-300, 300), min_size=10, max_size=10),
    offset=st.sampled_from([1000.0, -1000.0]),
)
@settings(max_examples=25, deadline=None)
def test_a_mistaken_offset_is_refused_and_another_region_is_not(
    folder: Path, noise: Sequence[float], offset: float
) -> None:
    """The margin: means that differ by up to 300 neither look like an offset nor hide one."""
    ours = Normalisation.of_store(folder)
    elsewhere = tuple(value + change for value, change in zip(ours.mean["s2"], noise, strict=True))
    other = replace(ours, mean={**ours.mean, "s2": elsewhere}, source="elsewhere")
    check_normalisation(other, folder)
    with pytest.raises(UsageError, match=rf"s2: .*off by about \{offset:+g} stored numbers"):
        check_normalisation(scaled(other, shift=offset), folder)
    # Stated, it is no mistake; stated without being there, it is one.
    check_normalisation(replace(scaled(other, shift=offset), offset={"s2": offset}), folder)
    with pytest.raises(UsageError, match=rf"off by about \{-offset:+g}"):
        check_normalisation(replace(other, offset={"s2": offset}), folder)


def test_other_bands_are_refused(made: MadeStore) -> None:
    ours = Normalisation.of_store(made.folder)
    fewer = {name: {**values, "s2": values["s2"][:9]} for name, values in (("mean", ours.mean), ("sd", ours.sd))}
    with pytest.raises(UsageError, match=r"9 bands of s2, .* has 10"):
        check_normalisation(replace(ours, **fewer), made.folder)
    none = {name: {"s2": values["s2"]} for name, values in (("mean", ours.mean), ("sd", ours.sd))}
    with pytest.raises(UsageError, match="has no enmap"):
        check_normalisation(replace(ours, **none), made.folder)


def test_the_published_figures_need_the_switch_and_the_offset(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "store", wavelengths=PUBLISHED_WAVELENGTHS).folder
    published = Normalisation.published()
    assert (len(published.mean["s2"]), len(published.sd["enmap"])) == (10, 218)
    check_normalisation(published, folder, published=True)
    with pytest.raises(UsageError, match=r"has the published figures, .* give published=True"):
        check_normalisation(published, folder)
    with pytest.raises(UsageError, match="states the offsets none"):
        check_normalisation(replace(published, offset={}), folder, published=True)
    with pytest.raises(UsageError, match="is not the published one"):
        check_normalisation(scaled(published, shift=1), folder, published=True)
    # The store's numbers get the 1000 that the published ones have.
    mean, sd = published.in_stored_numbers("s2")
    stored = torch.randint(0, 9000, (10, 4, 4), dtype=torch.int16, generator=torch.Generator().manual_seed(0))
    expected = (stored.double() + 1000 - torch.tensor(published.mean["s2"])[:, None, None].double()) / torch.tensor(
        published.sd["s2"], dtype=torch.float64
    )[:, None, None]
    torch.testing.assert_close(normalise(stored, mean, sd).double(), expected, rtol=1e-5, atol=1e-6)


def test_published_figures_are_for_published_bands(made: MadeStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has 218 bands of enmap, .* has 32"):
        check_normalisation(Normalisation.published(), made.folder, published=True)
    other = make_store(tmp_path / "store", s2_bands=("B02", "B08"), enmap=False)
    with pytest.raises(UsageError, match=r"is for the bands B02 .* has B02 B08"):
        check_normalisation(Normalisation.published(), other.folder, published=True)


def state_offset(folder: Path, season: str, offset: int) -> None:
    """Say of a season that it was imported with an offset."""
    path = folder / f"index/r1/recipes-{season}.json"
    recipes = json.loads(path.read_text())
    recipes[season]["published"] = {"s2_offset": offset}
    path.write_text(json.dumps(recipes))


def test_the_offset_of_an_imported_store_is_known(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "store", seasons=(2022, 2023)).folder
    assert stored_offsets(folder) == {}
    for season in ("2022", "2023"):
        state_offset(folder, season, 1000)
    assert stored_offsets(folder) == {"s2": 1000}
    ours = Normalisation.of_store(folder)
    assert ours.offset == {"s2": 1000}
    check_normalisation(ours, folder)
    np.testing.assert_allclose(ours.in_stored_numbers("s2", 1000)[0], ours.mean["s2"], rtol=1e-6)
    # Without the statement the figures are 1000 above the reflectance of the store.
    with pytest.raises(UsageError, match=r"off by about \+1000"):
        check_normalisation(replace(ours, offset={}), folder)
    state_offset(folder, "2023", 0)
    with pytest.raises(StoreError, match="different offsets in different seasons"):
        stored_offsets(folder)
