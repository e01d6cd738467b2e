"""Simulated fields held against real ones: a Sentinel-2 series of Flanders, an EnMAP scene of Potsdam.

The tolerances say how near the simulation is, not how near it ought to be.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from h2crop_data.simulate.enmap.bands import enmap_bands, enmap_response
from h2crop_data.simulate.plants.phenology import Ground, abundances
from h2crop_data.simulate.plants.spectra import endmember_spectra
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI, sentinel2_response

#: SCL classes taken as clear: vegetation and bare soil.
CLEAR = (4, 5)
#: Nobody declares the weather: the real site's year, dry and hot, may be this many days off the table's.
SHIFTS = range(-15, 16)
#: Crop code of the table, growth type, the most that a month's NDVI may differ. Of grassland the summer of 2018 was the
#: driest on record; of potatoes there are 25 pixels, 9 of them without a neighbour of another crop.
CROPS = {"maize": (1200, "maize", 0.12), "grassland": (9120, "grassland", 0.12), "potatoes": (5100, "potato", 0.12)}
RED, NIR = SENTINEL2_MSI.index("B04"), SENTINEL2_MSI.index("B08")


def field(kind: str = "field", variant: float = 0.5, growth: str = "", shift: float = 0.0, last: str = "") -> Ground:
    """One piece of ground; grassland is permanent, other crops stand in a rotation with maize and catch crops."""

    def text(value: str) -> Any:
        return np.array([value])

    def number(value: float) -> Any:
        return np.array([value], np.float32)

    around = last or growth
    return Ground(
        kind=text(kind),
        variant=number(variant),
        soil=number(0.5),
        growth=text(growth),
        crop=text(""),
        next_growth=text(around),
        next_crop=text(""),
        last_growth=text(around),
        last_crop=text(""),
        catch_crop=np.array([True]),
        last_catch=np.array([True]),
        shift_days=number(shift),
        vigour=number(1.0),
    )


def pixels(path: Path, factor: int = 1) -> Any:
    with rasterio.open(path) as file:
        return file.read(1).repeat(factor, 0).repeat(factor, 1)


def inner(same: Any) -> Any:
    """Pixels whose four neighbours are of the same crop."""
    padded = np.pad(same, 1)
    return same & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


@pytest.fixture(scope="module")
def flanders(shared: Path) -> list[tuple[int, int, Any, Any]]:
    """Day of the year, month, NDVI and clear pixels (y, x) of every date of 2018."""
    looks = []
    for scene in sorted((shared / "flanders_2018").glob("S2_*_2018*")):
        date = datetime.strptime(scene.name.split("_")[2] + "+0000", "%Y%m%d%z")
        red, nir = (pixels(scene / f"{name}.tif").astype(float) for name in ("red", "nir"))
        ndvi = (nir - red) / np.maximum(nir + red, 1)
        looks.append((date.timetuple().tm_yday, date.month, ndvi, np.isin(pixels(scene / "scl.tif", 2), CLEAR)))
    return looks


@pytest.fixture(scope="module")
def potsdam(shared: Path) -> tuple[Any, Any]:
    """Reflectance (band, pixel) of the scene in order of wavelength, and which bands are to be trusted.

    Without the deepest water vapour, where the product is noise (1895-1960 nm) or has no values.
    """
    product = next((shared / "potsdam_2022").glob("ENMAP01*"))
    with rasterio.open(next(product.glob("*SPECTRAL_IMAGE_COG.TIF"))) as file:
        numbers = file.read().reshape(224, -1)
    centres = enmap_bands()[0]
    usable = (numbers != -32768).any(axis=1) & ~((centres > 1895) & (centres < 1960))
    return np.where(numbers == -32768, np.nan, numbers / 1e4), usable


def by_month(series: list[tuple[int, float]]) -> dict[int, float]:
    """The median of each month with at least three dates."""
    months = {month for month, _ in series}
    values = {month: [value for at, value in series if at == month] for month in sorted(months)}
    return {month: float(np.median(found)) for month, found in values.items() if len(found) >= 3}


def simulated_ndvi(days: list[int], growth: str, shift: int) -> list[float]:
    place = field(growth=growth, shift=shift, last="" if growth == "grassland" else "maize")
    spectra = endmember_spectra() @ sentinel2_response()
    bands = np.array([(abundances(place, day, np.array([0.2])) @ spectra)[0] for day in days])
    return [float(value) for value in (bands[:, NIR] - bands[:, RED]) / (bands[:, NIR] + bands[:, RED])]


@pytest.mark.parametrize("crop", CROPS)
def test_ndvi_through_the_year_is_that_of_real_fields(flanders: Any, shared: Path, crop: str) -> None:
    code, growth, tolerance = CROPS[crop]
    of_crop = inner(pixels(shared / "flanders_2018/crop_type_2018.tif") == code)
    clear = [look for look in flanders if (look[3] & of_crop).sum() >= of_crop.sum() / 2]
    real = by_month([(month, float(np.median(ndvi[seen & of_crop]))) for _, month, ndvi, seen in clear])
    assert len(real) >= 6
    fits = []
    for shift in SHIFTS:
        values = simulated_ndvi([look[0] for look in clear], growth, shift)
        simulated = by_month([(look[1], value) for look, value in zip(clear, values, strict=True)])
        pairs = np.array([(real[month], simulated[month]) for month in real])
        fits.append((np.abs(pairs[:, 0] - pairs[:, 1]).max(), np.corrcoef(pairs.T)[0, 1], shift))
    difference, correlation, shift = min(fits)
    assert difference < tolerance, (crop, difference, shift)
    assert correlation > 0.9, (crop, correlation, shift)


def simulated_enmap(place: Ground) -> Any:
    """EnMAP reflectance on 24 July, (band,)."""
    return (abundances(place, 205, np.array([0.2])) @ endmember_spectra() @ enmap_response(*enmap_bands()))[0]


def real_pixels(reflectance: Any, kind: str) -> Any:
    """Reflectance (band, pixel) of a kind of ground, told by NDVI and NDWI."""
    centres = enmap_bands()[0]
    green, red, nir = (reflectance[np.abs(centres - wavelength).argmin()] for wavelength in (560, 665, 842))
    with np.errstate(invalid="ignore"):
        ndvi, ndwi = (nir - red) / (nir + red), (green - nir) / (green + nir)
    kinds = {"vegetation": (ndvi > 0.8) & (nir > 0.2), "water": ndwi > 0.3, "built": (ndvi < 0.25) & (ndwi < 0)}
    return reflectance[:, kinds[kind]]


@pytest.mark.parametrize(
    ("kind", "place", "tolerance"),
    [
        # The scene's dense vegetation is woods; crops have brighter leaves.
        ("vegetation", field("wood", 0.0), 0.005),
        ("vegetation", field(growth="maize"), 0.045),
        ("vegetation", field(growth="hemp"), 0.045),
        # The product's lakes are almost black, a few thousandths.
        ("water", field("water", 0.0), 0.03),
        ("built", field("village", 0.5), 0.005),
        ("built", field("village", 1.0), 0.005),
        ("built", field("road", 0.5), 0.005),
    ],
    ids=["wood", "maize", "hemp", "water", "village", "town", "road"],
)
def test_a_simulated_spectrum_lies_within_the_real_ones(
    potsdam: tuple[Any, Any], kind: str, place: Ground, tolerance: float
) -> None:
    reflectance, usable = potsdam
    found = real_pixels(reflectance, kind)[usable]
    assert found.shape[1] > 500
    low, high = np.nanpercentile(found, [1, 99], axis=1)
    spectrum = simulated_enmap(place)[usable]
    assert spectrum.min() > 0
    outside = np.maximum(low - spectrum, spectrum - high)
    assert outside.max() < tolerance, enmap_bands()[0][usable][outside.argmax()]


@pytest.mark.parametrize("growth", ["maize", "sugar_beet", "lucerne", "soybean", "hemp", "potato"])
def test_a_green_crop_has_the_shape_of_real_vegetation(potsdam: tuple[Any, Any], growth: str) -> None:
    reflectance, usable = potsdam
    mean = np.nanmean(real_pixels(reflectance, "vegetation")[usable], axis=1)
    assert np.corrcoef(simulated_enmap(field(growth=growth))[usable], mean)[0, 1] > 0.98


def test_built_up_ground_has_the_shape_of_the_real_one(potsdam: tuple[Any, Any]) -> None:
    reflectance, usable = potsdam
    mean = np.nanmean(real_pixels(reflectance, "built")[usable], axis=1)
    assert np.corrcoef(simulated_enmap(field("village", 0.7))[usable], mean)[0, 1] > 0.93


def test_bands_are_those_of_a_real_scene(shared: Path) -> None:
    xml = next((shared / "potsdam_2022").glob("ENMAP01*/*METADATA.XML")).read_text(encoding="utf-8")
    written = [
        [float(text.split("<")[0]) for text in xml.split(f"<{tag}>")[1:]]
        for tag in ("wavelengthCenterOfBand", "FWHMOfBand")
    ]
    centres, fwhm = np.array(written)[:, np.argsort(written[0])]
    np.testing.assert_array_equal(enmap_bands()[0], centres)
    np.testing.assert_array_equal(enmap_bands()[1], fwhm)
