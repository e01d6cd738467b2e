"""What real EnMAP products and items say, read as they stand."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pystac
import pytest
import rasterio

from h2crop_data.array_archive import read_arrays
from h2crop_data.catalog.item_facts import enmap_scene
from h2crop_data.constants import ENMAP_MASK_FLAGS
from h2crop_data.enmap.detectors import enmap_detectors
from h2crop_data.enmap.product import Band, enmap_reflectance, parse_metadata, select_bands
from h2crop_data.errors import SceneError
from h2crop_data.recipe.enmap import EnmapSettings
from h2crop_data.sources.enmap.item_bands import item_differences
from h2crop_data.sources.enmap.masks import mask_scene
from h2crop_data.sources.enmap.scene import look_at_scene, scene_facts
from h2crop_data.sources.enmap.select import enmap_refusal


@pytest.fixture(scope="module")
def items(shared: Path) -> list[dict[str, Any]]:
    """The four recorded items of DLR's catalog."""
    return list(json.loads((shared / "stac/dlr_enmap_l2a_items.json").read_text())["features"])


@pytest.fixture(scope="module")
def xml(shared: Path) -> str:
    """METADATA.XML of the product of Potsdam."""
    return next((shared / "potsdam_2022").glob("*/*METADATA.XML")).read_text(encoding="utf-8")


def test_the_recorded_items_have_91_and_133_bands(items: list[dict[str, Any]]) -> None:
    """No item says which: it follows from wavelengths and widths, and each detector's centres run smoothly."""
    for item in items:
        bands = item["assets"]["image"]["eo:bands"]
        centres = np.array([band["center_wavelength"] for band in bands])
        own = np.array(enmap_detectors(centres.tolist(), [band["full_width_half_max"] for band in bands]))
        assert ((own == "vnir").sum(), (own == "swir").sum()) == (91, 133)
        for detector in ("vnir", "swir"):
            near = centres[(own == detector) & (centres > 850) & (centres < 1100)]
            assert np.abs(np.diff(near, 2)).max() < 0.3


def test_potsdam_states_the_counts_that_were_found(xml: str) -> None:
    detectors = [band.detector for band in parse_metadata(xml).bands]
    without = xml.replace("numberOfVNIRBands", "x").replace("numChannelsExpected", "y")
    assert "<numberOfVNIRBands>91</numberOfVNIRBands>" in xml
    assert detectors.count("vnir") == 91
    assert [band.detector for band in parse_metadata(without).bands] == detectors


def test_the_recorded_items_agree_with_metadata_of_the_same_bands(items: list[dict[str, Any]], xml: str) -> None:
    """Another scene's METADATA.XML differs by up to 0.4 nm, which is no difference; by 2 nm it is one."""
    product = parse_metadata(xml)
    moved = [dataclasses.replace(band, wavelength=band.wavelength + 2) for band in product.bands]
    for item in map(pystac.Item.from_dict, items):
        assert item_differences(item, product) == []
        (said,) = item_differences(item, dataclasses.replace(product, bands=tuple(moved)))
        assert "METADATA.XML is used" in said


def test_older_metadata_of_218_bands_and_incomplete_lists_of_channels_are_read(xml: str) -> None:
    """Made from the real one: by wavelength and by detector; six channels not listed, as of a band that was lost."""
    product = parse_metadata(xml)
    kept = [band for band in product.bands if not 130 <= band.number <= 135]
    orders = {"wavelength": kept, "detector": sorted(kept, key=lambda band: (band.detector != "vnir", band.wavelength))}
    for name, order in orders.items():
        older = parse_metadata(with_bands(xml, order))
        assert [(b.wavelength, b.detector) for b in older.bands] == [(b.wavelength, b.detector) for b in order]
        assert [band.number for band in older.bands] == list(range(1, 219))
        chosen = select_bands(older.bands, [(1325, 1395)], 218)
        assert [band.wavelength for band in chosen] == sorted(band.wavelength for band in kept), name
        with pytest.raises(SceneError, match=r"expected 224 bands .*, got 218: 218 bands less nothing"):
            select_bands(older.bands, [], 224)
    listed = {
        detector: ",".join(str(b.number) for b in product.bands if b.detector == detector and b.number not in LOST)
        for detector in ("vnir", "swir")
    }
    for detector, numbers in listed.items():
        opening = f"<{detector}ProductQuality>"
        assert opening in xml
        xml = xml.replace(opening, f"{opening}<expectedChannelsList>{numbers}</expectedChannelsList>")
    assert parse_metadata(xml).bands == product.bands


#: Bands that a list of channels lacks: of the overlap, of water vapour, and others.
LOST = {84, 85, 98, 130, 131, 132, 133, 134, 135, 164, 1, 224}


def with_bands(xml: str, bands: list[Band]) -> str:
    """A METADATA.XML of some bands, numbered anew in their order, without a count that fits them."""
    rows = "".join(
        f'<bandID number="{k}"><wavelengthCenterOfBand>{band.wavelength}</wavelengthCenterOfBand>'
        f"<FWHMOfBand>{band.fwhm}</FWHMOfBand><GainOfBand>{band.gain}</GainOfBand><OffsetOfBand>{band.offset}</OffsetOfBand></bandID>"
        for k, band in enumerate(bands, 1)
    )
    return re.sub(
        r"<bandCharacterisation>.*</bandCharacterisation>",
        f"<bandCharacterisation>{rows}</bandCharacterisation>",
        xml,
        flags=re.DOTALL,
    )


#: What the default recipe says of the four recorded items: the clear one is taken, and why not the others.
JUDGED = {
    "20230629T110132Z_025": None,
    "20230401T105424Z_001": "overall quality 2 is worse than enmap.max_quality 1",
    "20230225T214731Z_002": "overall quality 2 is worse than enmap.max_quality 1",
    "20230225T104617Z_001": "overall quality 2 is worse than enmap.max_quality 1",
}
#: And where the recipe takes any quality.
JUDGED_BY_THE_REST = {
    "20230629T110132Z_025": None,
    "20230401T105424Z_001": "cloud cover 100 % is above enmap.max_cloud_cover 20",
    "20230225T214731Z_002": "no sun elevation: a night scene",
    "20230225T104617Z_001": "cloud cover 90 % is above enmap.max_cloud_cover 20",
}
#: And any cloud as well, with the sun at least 40 degrees high.
JUDGED_BY_THE_SUN = {
    "20230629T110132Z_025": None,
    "20230401T105424Z_001": None,
    "20230225T214731Z_002": "no sun elevation: a night scene",
    "20230225T104617Z_001": "sun elevation 32.0 is below enmap.min_sun_elevation 40",
}


@pytest.mark.parametrize(
    ("settings", "judged"),
    [
        ({}, JUDGED),
        ({"max_quality": 2}, JUDGED_BY_THE_REST),
        ({"max_quality": 2, "max_cloud_cover": 100.0, "min_sun_elevation": 40.0}, JUDGED_BY_THE_SUN),
    ],
)
def test_the_recorded_items_are_judged_right(
    items: list[dict[str, Any]], settings: dict[str, Any], judged: dict[str, str | None]
) -> None:
    source = EnmapSettings(catalog="x", **settings)
    found = {
        name: enmap_refusal(enmap_scene(item), source)
        for item in map(pystac.Item.from_dict, items)
        for name in judged
        if name in item.id
    }
    assert found == judged


def test_the_sun_of_the_recorded_items_stands_in_the_south_at_noon(items: list[dict[str, Any]]) -> None:
    """`view:sun_azimuth` is 180 degrees off; what is kept is not."""
    for item in map(pystac.Item.from_dict, items):
        scene = enmap_scene(item)
        assert scene.sun_azimuth is not None
        assert item.properties["view:sun_azimuth"] - scene.sun_azimuth == pytest.approx(180)
        if scene.sun_elevation is not None:
            assert 150 < scene.sun_azimuth < 190


class Spectra(NamedTuple):
    """Median spectra of kinds of land: (band,), by wavelength."""

    centres: np.ndarray
    detectors: np.ndarray
    vegetation: np.ndarray
    bare: np.ndarray
    water: np.ndarray

    def at(self, spectrum: np.ndarray, wavelength: float) -> float:
        """Reflectance of the band nearest to a wavelength."""
        return float(spectrum[np.abs(self.centres - wavelength).argmin()])


@pytest.fixture(scope="module")
def spectra(shared: Path, xml: str) -> Spectra:
    """Of the scene of Potsdam: kinds by NDVI and by the water of its classes."""
    bands = select_bands(parse_metadata(xml).bands, [(1325, 1395)], 218)
    folder = next((shared / "potsdam_2022").glob("ENMAP01*"))
    with rasterio.open(next(folder.glob("*SPECTRAL_IMAGE*"))) as image:
        values = enmap_reflectance(image.read([band.number for band in bands]), bands, -32768) / 10000
    with rasterio.open(next(folder.glob("*QL_QUALITY_CLASSES*"))) as classes:
        water = classes.read(1) == 2
    centres = np.array([band.wavelength for band in bands])
    red, infrared = (values[np.abs(centres - centre).argmin()] for centre in (665, 842))
    ndvi = (infrared - red) / np.maximum(infrared + red, 1e-3)
    kinds = (np.median(values[:, pixels], axis=1) for pixels in (ndvi > 0.5, (ndvi > 0.05) & (ndvi < 0.3), water))
    return Spectra(centres, np.array([band.detector for band in bands]), *kinds)


def test_vegetation_has_its_red_edge_green_peak_and_water_absorption(spectra: Spectra) -> None:
    of = partial(spectra.at, spectra.vegetation)
    edge = (spectra.centres > 660) & (spectra.centres < 790) & (spectra.detectors == "vnir")
    slope = np.gradient(spectra.vegetation[edge], spectra.centres[edge])
    assert 700 < spectra.centres[edge][slope.argmax()] < 735
    assert of(550) > 1.15 * of(480)
    assert of(550) > 1.15 * of(670)
    assert of(865) > 5 * of(670)
    # Absorption by water in leaves at 1450 and 1940 nm (Curran 1989).
    assert of(1490) < 0.8 * of(1650)
    assert of(1490) < 0.5 * of(1240)
    assert of(1980) < of(2200) < of(1650)


def test_water_is_dark_and_bare_ground_rises_without_an_edge(spectra: Spectra) -> None:
    water = spectra.water
    assert spectra.at(water, 560) > spectra.at(water, 865)
    assert (water[spectra.centres > 1000] < 0.01).all()
    bare = spectra.bare
    assert spectra.at(bare, 480) < spectra.at(bare, 560) < spectra.at(bare, 670) < spectra.at(bare, 865)
    assert spectra.at(bare, 865) < 2 * spectra.at(bare, 670)


@pytest.mark.parametrize("kind", ["vegetation", "bare"])
def test_detectors_agree_where_both_see_and_neither_has_a_comb(spectra: Spectra, kind: str) -> None:
    """Each detector's spectrum is smooth beside the water vapour of 940 nm; they differ by a few percent.

    Bands of the wrong detector would make each of them jump by that difference.
    """
    values: np.ndarray = getattr(spectra, kind)
    shared = np.linspace(965, 990, 20)
    per_detector = {}
    for detector in ("vnir", "swir"):
        own = spectra.detectors == detector
        centres, spectrum = spectra.centres[own], values[own]
        per_detector[detector] = np.interp(shared, centres, spectrum)
        near = spectrum[(centres > 955) & (centres < 1050)]
        assert np.abs(np.diff(near, 2)).max(initial=0) < 0.006
    apart = per_detector["swir"] - per_detector["vnir"]
    assert 0.005 < apart.mean() < 0.1 * per_detector["vnir"].mean()
    assert np.ptp(apart) < 0.01


def test_the_clear_real_scene_is_clear_to_our_mask(shared: Path) -> None:
    """The cloud of its layer is made: nothing is there. What is called cloud are pale roofs, far apart."""
    item = next(iter(pystac.ItemCollection.from_file(str(shared / "potsdam_2022/items.json"))))
    for asset in item.assets.values():
        asset.href = str(shared / "potsdam_2022" / asset.href)
    archive = read_arrays(io.BytesIO(mask_scene(item, [])))
    mask = archive["mask"]
    assert mask.shape == (64, 128)
    assert not (mask & ENMAP_MASK_FLAGS["unseen"]).any()
    assert 0 < ((mask & ENMAP_MASK_FLAGS["cloud"]) != 0).mean() < 0.01
    assert ((mask & ENMAP_MASK_FLAGS["cloud_shadow"]) != 0).mean() < 0.002
    # The made cloud, and the lakes.
    assert not mask[6:16, 60:70].any()
    assert not mask[34:52, 26:60].any()


def test_bands_of_noise_are_found_in_the_real_scene(shared: Path) -> None:
    """1939 nm, of which the archive's statistics say a standard deviation of 0.27; and the six of water vapour."""
    catalog = pystac.ItemCollection.from_file(str(shared / "potsdam_2022/items.json"))
    item = next(iter(catalog))
    for asset in item.assets.values():
        asset.href = str(shared / "potsdam_2022" / asset.href)
    source = EnmapSettings(catalog="x", bands="all")  # type: ignore[arg-type]
    facts = scene_facts(look_at_scene(item, source, 960, []))
    assert [round(centre) for centre in facts.noisy_nm] == [1939]
    assert [round(centre) for centre in facts.empty_nm] == [1331, 1343, 1355, 1367, 1379, 1391]
    assert facts.missing_layers == ("defective_pixel_mask",)
    assert facts.notes == ()
