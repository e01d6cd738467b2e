"""Statements of an item about its bands (`eo:bands`), compared with METADATA.XML, which is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pystac

from h2crop_data.enmap.product import Band, Product
from h2crop_data.errors import SceneError

#: Centres of one band lie within 0.4 nm in all scenes, neighbours 4.6 nm apart and more.
WAVELENGTH_TOLERANCE = 1.0
#: The fields of the archive's items.
WAVELENGTH_FIELD, GAIN_FIELD, OFFSET_FIELD = "center_wavelength", "enmap:gain_of_band", "enmap:offset_of_band"


def item_differences(item: pystac.Item, product: Product) -> list[str]:
    """Where an item and METADATA.XML differ on the bands, in words; nothing for an item that does not list them.

    Raises SceneError where it is unknown which one is correct: other gains or offsets, or the same bands in another
    order.
    """
    listed = listed_bands(item)
    if not listed:
        return []
    bands = product.bands
    if len(listed) != len(bands):
        return [f"its item lists {len(listed)} bands, METADATA.XML {len(bands)}: METADATA.XML is used"]
    check_factors(item.id, listed, bands)
    stated, own = np.array(numbers(listed, WAVELENGTH_FIELD)), np.array([band.wavelength for band in bands])
    if np.isnan(stated).all():
        return []
    # STAC's own unit is the micrometre; the archive writes nanometres.
    stated = stated * 1000 if np.nanmedian(stated) < 100 else stated
    apart = np.abs(stated - own)
    if np.nanmax(apart) <= WAVELENGTH_TOLERANCE:
        return []
    if np.isfinite(stated).all() and np.abs(np.sort(stated) - np.sort(own)).max() <= WAVELENGTH_TOLERANCE:
        raise SceneError(
            f"{item.id}: its item lists the bands of METADATA.XML in another order (band {int(apart.argmax()) + 1}: "
            f"{stated[apart.argmax()]:g} nm instead of {own[apart.argmax()]:g} nm); the order of the image is "
            "unknown"
        )
    worst = int(np.nanargmax(apart))
    return [
        f"its item and METADATA.XML differ by up to {apart[worst]:.3g} nm (band {worst + 1}: {stated[worst]:g} nm and "
        f"{own[worst]:g} nm): METADATA.XML is used"
    ]


def listed_bands(item: pystac.Item) -> list[dict[str, Any]]:
    """The entries of `eo:bands` of the image, or of the item; none where they are not a list of mappings."""
    of_image = item.assets["image"].extra_fields.get("eo:bands") if "image" in item.assets else None
    listed = of_image or item.properties.get("eo:bands")
    if not isinstance(listed, list) or not all(isinstance(band, dict) for band in listed):
        return []
    return listed


def numbers(listed: Sequence[dict[str, Any]], field: str) -> list[float]:
    """A field of each band; NaN where it is missing or no number."""
    values = (band.get(field) for band in listed)
    return [float(value) if isinstance(value, int | float) else np.nan for value in values]


def check_factors(name: str, listed: Sequence[dict[str, Any]], bands: Sequence[Band]) -> None:
    """Raise SceneError where the item gives a band another gain or offset."""
    for field, own in ((GAIN_FIELD, [band.gain for band in bands]), (OFFSET_FIELD, [band.offset for band in bands])):
        stated = np.array(numbers(listed, field))
        known = np.isfinite(stated)
        wrong = known & ~np.isclose(np.where(known, stated, 0), own, rtol=1e-6, atol=1e-12)
        if wrong.any():
            first = int(wrong.argmax())
            raise SceneError(
                f"{name}: its item says {field} = {stated[first]:g} of band {first + 1}, METADATA.XML says "
                f"{own[first]:g}; it is unknown which one is correct"
            )
