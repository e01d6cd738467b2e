"""Cloud detectors on real images: s2cloudless as its authors' result has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from h2crop_data.sentinel2.clouds import method_named
from h2crop_data.sentinel2.s2cloudless_clouds import S2cloudlessClouds
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI

#: Columns and rows of 10 m that are whole pixels of 60 m.
WHOLE = 96


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    """Five dates of L1C (date, y, x, 13), with the probability and mask that s2cloudless gives."""
    path = shared / "slovenia_l1c_2015" / "eolearn_l1c_5dates_13bands_golden.npz"
    with np.load(path) as file:
        return {name: file[name] for name in ("bands", "CLP_S2C", "CLM_S2C")}


def image_of(golden: dict[str, Any], date: int, bands: tuple[str, ...]) -> Any:
    """Reflectance (band, y, x) of a date."""
    return np.moveaxis(golden["bands"][date][..., [SENTINEL2_MSI.index(band) for band in bands]], -1, 0)


@pytest.mark.parametrize("date", range(5))
def test_the_golden_mask_is_reproduced_at_its_settings(golden: dict[str, Any], date: int) -> None:
    method = S2cloudlessClouds(average_over=4, dilation_size=2)
    image = image_of(golden, date, method.bands)
    found = method.detect(image, np.ones(image.shape[1:], bool))
    assert found.probability is not None
    assert (found.cloud == golden["CLM_S2C"][date, ..., 0]).all()
    assert abs(found.probability - golden["CLP_S2C"][date, ..., 0]).max() < 1e-6


@pytest.mark.parametrize("date", range(5))
def test_at_60_m_it_agrees_with_the_golden_mask(golden: dict[str, Any], date: int) -> None:
    method = method_named("s2cloudless")
    image = image_of(golden, date, method.bands)[:, :WHOLE, :WHOLE]
    coarse = image.reshape(len(image), WHOLE // 6, 6, WHOLE // 6, 6).mean(axis=(2, 4))
    found = method.detect(coarse, np.ones(coarse.shape[1:], bool)).cloud.repeat(6, 0).repeat(6, 1)
    assert (found == golden["CLM_S2C"][date, :WHOLE, :WHOLE, 0]).mean() >= 0.97


def test_the_golden_dates_are_clear_and_overcast(golden: dict[str, Any]) -> None:
    shares = golden["CLM_S2C"].mean(axis=(1, 2, 3))
    assert (shares > 0.9).sum() == 2
    assert (shares < 0.1).sum() == 3
