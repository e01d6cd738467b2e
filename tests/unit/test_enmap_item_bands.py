"""An item's list of bands against METADATA.XML: what is reported, and what nobody can decide."""

from __future__ import annotations

from typing import Any

import pystac
import pytest

from h2crop_data.enmap.product import Angles, Band, Product
from h2crop_data.errors import SceneError
from h2crop_data.sources.enmap.item_bands import item_differences

CENTRES = (420.0, 490.0, 560.0, 665.0, 842.0)
PRODUCT = Product(tuple(Band(k, centre, 6.5, 1e-4, 0.0, "vnir") for k, centre in enumerate(CENTRES, 1)), Angles(), {})


def listed(*centres: float, **fields: Any) -> list[dict[str, Any]]:
    """`eo:bands` as the archive writes them."""
    usual = {"full_width_half_max": 6.5, "enmap:gain_of_band": 0.0001, "enmap:offset_of_band": 0}
    return [{"name": k, "center_wavelength": centre, **usual, **fields} for k, centre in enumerate(centres, 1)]


def differences(bands: Any, *, of_item: bool = False) -> list[str]:
    """What is said of an item whose image, or itself, lists these bands."""
    item = pystac.Item("scene", None, None, pystac.utils.str_to_datetime("2022-07-24T10:45:26Z"), {})
    item.add_asset("image", pystac.Asset("x.tif", extra_fields={} if of_item else {"eo:bands": bands}))
    if of_item:
        item.properties["eo:bands"] = bands
    return item_differences(item, PRODUCT)


@pytest.mark.parametrize("of_item", [False, True])
def test_a_list_that_agrees_says_nothing(of_item: bool) -> None:
    assert differences(listed(*CENTRES), of_item=of_item) == []
    assert differences(listed(*(centre + 0.4 for centre in CENTRES)), of_item=of_item) == []
    assert differences(listed(*(centre / 1000 for centre in CENTRES)), of_item=of_item) == []


@pytest.mark.parametrize("nothing", [None, [], "no list", [1, 2], {}])
def test_an_item_may_list_none(nothing: Any) -> None:
    assert differences(nothing) == []


def test_other_wavelengths_and_counts_are_reported_and_metadata_counts() -> None:
    (said,) = differences(listed(420, 490, 562.5, 665, 842))
    assert said.startswith("its item and METADATA.XML differ by up to 2.5 nm (band 3: 562.5 nm and 560 nm)")
    (said,) = differences(listed(420, 490, 560))
    assert said.startswith("its item lists 3 bands, METADATA.XML 5")


def test_the_same_bands_in_another_order_are_refused() -> None:
    with pytest.raises(SceneError, match=r"another order .*the order of the image is unknown"):
        differences(listed(420, 560, 490, 665, 842))


@pytest.mark.parametrize(
    ("field", "value"), [("enmap:gain_of_band", 1e-3), ("enmap:gain_of_band", 1), ("enmap:offset_of_band", -0.1)]
)
def test_other_factors_are_refused(field: str, value: float) -> None:
    with pytest.raises(SceneError, match=rf"{field} = {value:g} of band 1.*it is unknown which one is correct"):
        differences(listed(*CENTRES, **{field: value}))


def test_bands_without_wavelengths_or_factors_are_none_to_compare() -> None:
    assert differences([{"name": k} for k in range(5)]) == []
