"""Bands without data and bands of noise are found in spectra whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from h2crop_data.enmap.detectors import enmap_detectors
from h2crop_data.enmap.product import Angles, Band, select_bands
from h2crop_data.enmap.quality import LAYERS, flags_of_layers, layer_flags
from h2crop_data.enmap.spectra import (
    NOISE_LIMIT,
    SAMPLE_SIDE,
    band_noise,
    check_scaling,
    examine_bands,
    sample_place,
)
from h2crop_data.errors import SceneError
from h2crop_data.recipe.enmap import BAND_SETS, EnmapSettings
from h2crop_data.simulate.enmap.bands import enmap_bands, enmap_response
from h2crop_data.simulate.plants.spectra import endmember_spectra

CENTRES, WIDTHS = enmap_bands()


def all_bands(gain: float = 1e-4, offset: float = 0.0) -> list[Band]:
    """The 224 bands of a real scene."""
    detectors = enmap_detectors(CENTRES.tolist(), WIDTHS.tolist())
    rows = zip(CENTRES.tolist(), WIDTHS.tolist(), detectors, strict=True)
    return [Band(k, centre, width, gain, offset, detector) for k, (centre, width, detector) in enumerate(rows, 1)]


@pytest.fixture(scope="module")
def mixed() -> np.ndarray:
    """(band, pixel) reflectance of mixtures of plants, soils and water, with noise of 0.001."""
    rng = np.random.default_rng(2)
    pure = endmember_spectra().astype(float) @ enmap_response(CENTRES, WIDTHS)
    parts = rng.dirichlet(np.full(len(pure), 0.3), 3000)
    return (parts @ pure + rng.normal(0, 0.001, (3000, 224))).T


class TestBands:
    def test_natural_spectra_have_no_band_of_noise(self, mixed: np.ndarray) -> None:
        findings = examine_bands(mixed, all_bands())
        assert findings.empty == findings.noisy == ()

    def test_noise_of_a_band_is_measured(self, mixed: np.ndarray) -> None:
        """Where the spectrum is straight and all three bands are as noisy."""
        rng = np.random.default_rng(4)
        flat = np.full((224, 5000), 0.3) + rng.normal(0, 1, 5000) * 0.05 + rng.normal(0, 0.02, (224, 5000))
        noise = band_noise(flat, all_bands(), range(224))
        assert len(noise) == 224
        assert np.median(list(noise.values())) == pytest.approx(0.02, rel=0.03)

    @pytest.mark.parametrize("places", [[163], [163, 164], [0], [223], [80, 81], [100, 150, 200]])
    def test_noisy_bands_are_found_and_their_neighbours_are_not(self, mixed: np.ndarray, places: list[int]) -> None:
        rng = np.random.default_rng(6)
        values = mixed.copy()
        values[places] += rng.normal(0, 0.27, (len(places), values.shape[1]))
        assert examine_bands(values, all_bands()).noisy == tuple(places)

    def test_less_noise_than_the_limit_is_none(self, mixed: np.ndarray) -> None:
        values = mixed.copy()
        values[163] += np.random.default_rng(8).normal(0, NOISE_LIMIT / 2, values.shape[1])
        assert examine_bands(values, all_bands()).noisy == ()

    def test_bands_without_data_are_found(self, mixed: np.ndarray) -> None:
        values = mixed.copy()
        values[129:135] = np.nan
        values[50, : values.shape[1] * 4 // 10] = np.nan
        values[60, : values.shape[1] * 6 // 10] = np.nan
        assert examine_bands(values, all_bands()).empty == (60, 129, 130, 131, 132, 133, 134)

    def test_a_scene_without_any_data_is_all_empty(self) -> None:
        findings = examine_bands(np.full((224, 10), np.nan), all_bands())
        assert findings.empty == tuple(range(224))
        assert findings.noisy == ()

    @pytest.mark.parametrize(("factor", "plus"), [(100, 0), (-5, 0), (1, -0.8)])
    def test_numbers_that_are_no_reflectance_are_refused(self, mixed: np.ndarray, factor: float, plus: float) -> None:
        with pytest.raises(SceneError, match=r"expected a median reflectance .*gain and offset"):
            examine_bands(mixed * factor + plus, all_bands())

    @pytest.mark.parametrize("scale", [0.02, 3.0])
    def test_dark_water_and_snow_are_reflectance(self, mixed: np.ndarray, scale: float) -> None:
        findings = examine_bands(mixed * scale, all_bands())
        assert findings.empty == ()


class TestScaling:
    @pytest.mark.parametrize(("gain", "offset"), [(1e-4, 0), (2e-4, 0.01), (5e-5, -0.1), (1e-3, 0)])
    def test_plausible(self, gain: float, offset: float) -> None:
        check_scaling(all_bands(gain, offset))

    @pytest.mark.parametrize(
        ("gain", "offset"),
        [(1, 0), (1e-2, 0), (1e-4, 0.5), (1e-4, -0.2), (-1e-4, 0), (0, 0), (np.nan, 0), (1e-4, np.nan)],
    )
    def test_implausible_of_one_band_names_it(self, gain: float, offset: float) -> None:
        bands = all_bands()
        bands[117] = Band(118, 1185.0, 11.0, gain, offset, "swir")
        with pytest.raises(SceneError, match="band 118 has gain"):
            check_scaling(bands)


class TestSample:
    def test_the_square_with_most_usable_pixels_is_taken(self) -> None:
        usable = np.zeros((300, 400), bool)
        usable[128:200, 256:330] = True
        rows, columns = sample_place(usable)
        assert usable[rows, columns].all()
        assert usable[rows, columns].shape == (SAMPLE_SIDE, SAMPLE_SIDE)

    def test_of_equal_squares_that_in_the_middle(self) -> None:
        rows, columns = sample_place(np.ones((640, 640), bool))
        assert abs((rows.start + rows.stop) / 2 - 320) <= SAMPLE_SIDE / 2
        assert abs((columns.start + columns.stop) / 2 - 320) <= SAMPLE_SIDE / 2

    def test_small_images_are_taken_whole(self) -> None:
        assert sample_place(np.zeros((10, 20), bool)) == (slice(0, 10), slice(0, 20))


class TestSets:
    @pytest.mark.parametrize(
        ("name", "numbers"),
        [
            ("h2crop-218", [*range(1, 130), *range(136, 225)]),
            ("spectralearth-202", [*range(1, 127), *range(142, 161), *range(168, 225)]),
            ("all", list(range(1, 225))),
        ],
    )
    @pytest.mark.parametrize("moved", [-0.4, 0.0, 0.4])
    def test_sets_are_the_bands_they_are_named_for(self, name: str, numbers: list[int], moved: float) -> None:
        """However the centres move from scene to scene."""
        assert set(BAND_SETS) == {"h2crop-218", "spectralearth-202", "all"}
        wanted = EnmapSettings(catalog="x", bands=name).bands  # type: ignore[arg-type]
        bands = [Band(b.number, b.wavelength + moved, b.fwhm, b.gain, b.offset, b.detector) for b in all_bands()]
        kept = select_bands(bands, wanted.exclude_nm, wanted.count, wanted.keep_nm)
        assert [band.number for band in kept] == numbers

    def test_ranges_are_kept_less_what_is_left_out(self) -> None:
        kept = select_bands(all_bands(), [(1325, 1395)], 5, [(480, 500), (1310, 1410)])
        assert all(480 <= b.wavelength <= 500 or 1310 <= b.wavelength <= 1410 for b in kept)
        with pytest.raises(SceneError, match=r"got 5: 11 bands in 480-500, 1310-1410 nm less 1325-1395 nm"):
            select_bands(all_bands(), [(1325, 1395)], 9, [(480, 500), (1310, 1410)])

    def test_an_unknown_set_is_refused_by_name(self) -> None:
        with pytest.raises(ValueError, match=r"unknown set of bands 'most'; known: h2crop-218, spectralearth-202, all"):
            EnmapSettings(catalog="x", bands="most")  # type: ignore[arg-type]


def test_flags_of_a_layer_are_all_that_it_can_set() -> None:
    """Except `outside`, which the classes say as well."""
    for layer in LAYERS:
        codes = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
        possible = int(np.bitwise_or.reduce(layer_flags(layer, codes), axis=None))
        assert flags_of_layers([layer]) == possible & (~1 if layer == "quality_testflags" else ~0)
    assert flags_of_layers([]) == 0


@pytest.mark.parametrize(
    ("across", "along", "zenith"),
    # The law of sines in the triangle of satellite, ground and centre of the Earth, 653 km up: by hand.
    [(0, 0, 0), (30, 0, 33.448), (-30, 0, 33.448), (0, 10, 11.037), (None, 0, None)],
)
def test_view_zenith(across: float | None, along: float, zenith: float | None) -> None:
    found = Angles(None, None, across, along).view_zenith
    assert found == (None if zenith is None else pytest.approx(zenith, abs=0.01))
