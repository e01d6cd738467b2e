"""The spectra that simulated ground is mixed of, and how both sensors see them."""

from __future__ import annotations

import numpy as np
import pytest

from h2crop_data.simulate.enmap.bands import enmap_bands, enmap_response
from h2crop_data.simulate.plants.spectra import ENDMEMBERS, INVISIBLE, WAVELENGTHS, endmember_spectra, smooth_curve
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_CENTRE_WIDTH, SENTINEL2_MSI, sentinel2_response

DIFFERENCES = {"red_edge_shift", "nitrogen", *INVISIBLE}
SURFACES = [name for name in ENDMEMBERS if name not in DIFFERENCES]
GREEN = ["canopy_green_wet", "canopy_green_dry", "canopy_pale_wet", "canopy_pale_dry", "conifer"]


def spectrum(name: str) -> np.ndarray:
    return endmember_spectra()[ENDMEMBERS.index(name)].astype(float)


def at(name: str, wavelength: float) -> float:
    return float(spectrum(name)[np.searchsorted(WAVELENGTHS, wavelength)])


def red_edge(name: str) -> float:
    """The wavelength of the steepest rise."""
    return float(WAVELENGTHS[np.gradient(spectrum(name)).argmax()])


def test_every_endmember_has_a_spectrum() -> None:
    spectra = endmember_spectra()
    assert spectra.shape == (len(ENDMEMBERS), 2101)
    assert spectra.dtype == np.float32
    assert WAVELENGTHS[[0, -1]].tolist() == [400, 2500]
    assert len(set(ENDMEMBERS)) == len(ENDMEMBERS)
    assert len(np.unique(spectra, axis=0)) == len(ENDMEMBERS)


@pytest.mark.parametrize("name", SURFACES)
def test_a_surface_reflects_a_share_of_the_light(name: str) -> None:
    assert spectrum(name).min() > 0
    assert spectrum(name).max() < 1


@pytest.mark.parametrize("name", ENDMEMBERS)
def test_a_spectrum_has_no_jumps_and_no_kinks(name: str) -> None:
    # The steepest place of all is the edge of snow and of bloom; per nm squared, the ends of leaf water's plateaus.
    assert np.abs(np.diff(spectrum(name))).max() < 0.012
    assert np.abs(np.diff(spectrum(name), 2)).max() < 0.0012
    assert np.ptp(spectrum(name)) > 0.01


@pytest.mark.parametrize("name", GREEN)
def test_the_red_edge_of_leaves_lies_between_690_and_740_nm(name: str) -> None:
    # Horler, Dockray & Barber (1983).
    assert 690 <= red_edge(name) <= 740
    assert at(name, 800) > 5 * at(name, 675)
    assert at(name, 550) > 1.3 * at(name, 675)


def test_the_red_edge_moves_to_longer_wavelengths_with_more_chlorophyll() -> None:
    assert red_edge("canopy_green_wet") > red_edge("canopy_pale_wet") + 2
    shifted = spectrum("canopy_green_wet") + spectrum("red_edge_shift")
    assert 2 <= WAVELENGTHS[np.gradient(shifted).argmax()] - red_edge("canopy_green_wet") <= 4


@pytest.mark.parametrize(("dip", "shoulder"), [(970, 920), (1200, 1100), (1450, 1300), (1940, 1650)])
def test_leaf_water_absorbs_where_water_does(dip: float, shoulder: float) -> None:
    # Curran (1989).
    wet, dry = (at(name, dip) / at(name, shoulder) for name in ("canopy_green_wet", "canopy_green_dry"))
    assert wet < 0.97
    assert wet < dry - 0.004


def test_straw_shows_cellulose_where_wet_leaves_hide_it() -> None:
    # The cellulose absorption index: 100 (0.5 (R2000 + R2200) - R2100) (Daughtry 2001).
    index = {name: 50 * (at(name, 2020) + at(name, 2220)) - 100 * at(name, 2100) for name in ("straw", "litter")}
    assert index["straw"] > 3
    assert index["litter"] > 2
    assert 50 * (at("canopy_green_wet", 2020) + at("canopy_green_wet", 2220)) - 100 * at("canopy_green_wet", 2100) < 0


def test_water_is_dark_and_snow_bright_in_the_visible_only() -> None:
    assert at("water_clear", 850) < 0.01
    assert 0.01 < at("water_turbid", 850) < 0.03
    assert at("snow", 560) > 0.9
    assert at("snow", 1610) < 0.12
    assert at("soil_dark", 800) < at("soil_brown", 800) < at("soil_bright", 800)


def test_a_smooth_curve_passes_its_points_and_does_not_overshoot() -> None:
    points = ((400, 0.1), (500, 0.1), (700, 0.4), (1000, 0.4), (1200, 0.2), (2500, 0.25))
    curve = smooth_curve(points)
    np.testing.assert_allclose([curve[int(wavelength) - 400] for wavelength, _ in points], [y for _, y in points])
    assert curve.min() == pytest.approx(0.1)
    assert curve.max() == pytest.approx(0.4)
    assert np.all(curve[:100] == pytest.approx(0.1))


def test_sentinel2_bands_lie_where_esa_says() -> None:
    response = sentinel2_response().astype(float)
    assert response.shape == (2101, len(SENTINEL2_MSI))
    assert sentinel2_response().dtype == np.float32
    np.testing.assert_allclose(response.sum(axis=0), 1, atol=1e-5)
    for column, (centre, width) in zip(response.T, SENTINEL2_CENTRE_WIDTH, strict=True):
        assert (column * WAVELENGTHS).sum() == pytest.approx(centre, abs=0.2)
        half = WAVELENGTHS[column > column.max() / 2]
        assert half[-1] - half[0] == pytest.approx(width, abs=2)
        used = WAVELENGTHS[column > 0]
        assert used[-1] - used[0] <= width + 21


def test_enmap_bands_are_gaussian_and_whole_at_the_ends() -> None:
    centres, fwhm = enmap_bands()
    assert len(centres) == len(fwhm) == 224
    assert (np.diff(centres) > 0).all()
    assert (centres[0], centres[-1]) == pytest.approx((418.24, 2445.53))
    assert 5 < fwhm.min() < fwhm.max() < 13
    response = enmap_response([402.0, *centres, 2499.0], [10.0, *fwhm, 10.0]).astype(float)
    np.testing.assert_allclose(response.sum(axis=0), 1, atol=1e-5)
    means = (response * WAVELENGTHS[:, None]).sum(axis=0)
    np.testing.assert_allclose(means[1:-1], centres, atol=0.05)
    spread = np.sqrt((response * WAVELENGTHS[:, None] ** 2).sum(axis=0) - means**2)[1:-1]
    np.testing.assert_allclose(spread * 2.3548, fwhm, rtol=0.01)


def test_enmap_sees_three_features_that_sentinel2_cannot() -> None:
    sentinel2 = endmember_spectra() @ sentinel2_response()
    enmap = endmember_spectra() @ enmap_response(*enmap_bands())
    for name, wavelength in zip(INVISIBLE, (1200, 1725, 2330), strict=True):
        row = ENDMEMBERS.index(name)
        assert np.abs(sentinel2[row]).max() < 1e-6
        assert np.abs(enmap[row]).max() > 0.008
        assert abs(enmap_bands()[0][np.abs(enmap[row]).argmax()] - wavelength) < 12
    assert np.abs(sentinel2[ENDMEMBERS.index("nitrogen")]).max() > 1e-4
