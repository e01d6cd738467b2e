"""Cloud detectors: found by name, others' beside ours, and what ours do with an image."""

from __future__ import annotations

import builtins
import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from h2crop_data.errors import PluginError, UsageError
from h2crop_data.sentinel2 import clouds
from h2crop_data.sentinel2.clouds import method_named, method_names, to_20_metres
from h2crop_data.sentinel2.s2cloudless_clouds import S2cloudlessClouds
from h2crop_data.sentinel2.ukis_clouds import WEIGHTS, UkisClouds, of_any_size

PLUGIN = Path(__file__).resolve().parents[1] / "plugins" / "whiteness"
#: Reflectance of some ground and of thick cloud, by band.
FIELD = {
    "B01": 0.04,
    "B02": 0.05,
    "B03": 0.08,
    "B04": 0.05,
    "B05": 0.1,
    "B08": 0.38,
    "B8A": 0.4,
    "B11": 0.2,
    "B12": 0.1,
}
FIELD |= {"B09": 0.15, "B10": 0.001}
CLOUD = {
    "B01": 0.75,
    "B02": 0.72,
    "B03": 0.7,
    "B04": 0.7,
    "B05": 0.72,
    "B08": 0.75,
    "B8A": 0.75,
    "B11": 0.5,
    "B12": 0.4,
}
CLOUD |= {"B09": 0.4, "B10": 0.01}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package with a method of a user's own, as if it were installed; gives its folder."""
    folder = tmp_path / "site"
    shutil.copytree(PLUGIN, folder)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("h2crop_whiteness", None)
    yield folder
    sys.modules.pop("h2crop_whiteness", None)


def scene(bands: tuple[str, ...], cloud: Any) -> Any:
    """Reflectance (band, y, x) of fields, under cloud where `cloud` (y, x) says; both with texture."""
    chance = np.random.default_rng(3)
    fields, heaps = (gaussian_filter(chance.standard_normal(cloud.shape), width) for width in (6, 4))
    ground, white = 1 + 0.2 * fields / fields.std(), 1 + 0.15 * heaps / heaps.std()
    return np.array([np.where(cloud, CLOUD[band] * white, FIELD[band] * ground) for band in bands], np.float32)


class TestByName:
    def test_unknown_names_are_answered_with_those_that_exist(self) -> None:
        with pytest.raises(UsageError, match=r"unknown cloud method 'fmask'; known: s2cloudless, ukis$"):
            method_named("fmask")

    @pytest.mark.parametrize(("name", "library"), [("ukis", "onnxruntime"), ("s2cloudless", "s2cloudless")])
    def test_a_missing_extra_is_named(self, name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def without(wanted: str, *arguments: Any, **named: Any) -> Any:
            if wanted.split(".")[0] == library:
                raise ImportError(f"No module named {wanted!r}")
            return real(wanted, *arguments, **named)

        monkeypatch.setattr(builtins, "__import__", without)
        monkeypatch.delitem(sys.modules, clouds.OWN[name][0])
        with pytest.raises(PluginError, match=rf"'{name}' needs .*pip install '\.\[clouds\]'.*{library}"):
            method_named(name)

    def test_a_method_is_made_anew_so_that_each_thread_can_have_its_own(self) -> None:
        assert method_named("s2cloudless") is not method_named("s2cloudless")

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["ukis", "s2cloudless"])
    def test_ours_are_as_they_say(self, name: str) -> None:
        clouds.check_method(method_named(name), name)
        assert importlib.metadata.version({"ukis": "ukis-csmask"}.get(name, name)) in method_named(name).version


class TestOfAnotherPackage:
    def test_is_found_and_used_with_its_own_weights(self, plugin: Path) -> None:
        method = method_named("whiteness")
        assert method_names() == ["s2cloudless", "ukis", "whiteness"]
        cloud = np.zeros((40, 60), bool)
        cloud[5:20, 30:50] = True
        found = method.detect(scene(method.bands, cloud), np.ones(cloud.shape, bool))
        assert (found.cloud == cloud).all()
        assert not found.shadow.any()

    def test_other_weights_are_another_version_with_other_masks(self, plugin: Path) -> None:
        before = method_named("whiteness")
        (plugin / "weights.json").write_text('{"weights": [0, 0, 0], "bias": -1}')
        after = method_named("whiteness")
        assert before.version != after.version
        image = scene(after.bands, np.ones((4, 4), bool))
        imaged = np.ones((4, 4), bool)
        assert before.detect(image, imaged).cloud.all()
        assert not after.detect(image, imaged).cloud.any()

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ("pixel = 20", "pixel = 25"),
            ('level: Literal["L2A", "L1C"] = "L2A"', 'level = "L3A"'),
            ('name = "whiteness"', 'name = "darkness"'),
            ('bands = ("B02", "B04", "B11")', "bands = ()"),
            ("    def detect(", "    def look("),
            ('Path(__file__).with_name("weights.json")', 'Path("nowhere.json")'),
        ],
    )
    def test_what_it_lacks_is_said(self, plugin: Path, change: str, problem: str) -> None:
        module = plugin / "h2crop_whiteness.py"
        module.write_text(module.read_text().replace(change, problem))
        with pytest.raises(PluginError, match=r"'whiteness' \(h2crop_whiteness:Whiteness\) cannot be loaded"):
            method_named("whiteness")

    @pytest.mark.parametrize("name", ["whiteness", "ukis"])
    def test_two_of_one_name_are_refused(self, plugin: Path, name: str) -> None:
        other = plugin / "other-1.0.dist-info"
        other.mkdir()
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
        (other / "entry_points.txt").write_text(f"[{clouds.METHODS_GROUP}]\n{name} = other:Clouds\n")
        with pytest.raises(UsageError, match=f"several cloud methods are called '{name}'.*other:Clouds"):
            method_named(name)


class TestGridOfMasks:
    def test_pixels_of_60_m_cover_nine_and_those_of_20_m_stay(self) -> None:
        layer = np.arange(6).reshape(2, 3)
        assert (to_20_metres(layer, 60) == layer.repeat(3, 0).repeat(3, 1)).all()
        assert (to_20_metres(layer, 20) == layer).all()

    @given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
    def test_a_pixel_of_20_m_takes_one_of_30_m_that_lies_over_its_centre(self, y: int, x: int, seed: int) -> None:
        layer = np.random.default_rng(seed).random((2 * y, 2 * x))
        fine = to_20_metres(layer, 30)
        assert fine.shape == (3 * y, 3 * x)
        # Over the same ground at 10 m, a centre of 20 m is a corner of four pixels.
        ground = layer.repeat(3, 0).repeat(3, 1)
        corners = [ground[i::2, j::2] for i in (0, 1) for j in (0, 1)]
        assert np.logical_or.reduce([fine == corner for corner in corners]).all()

    @pytest.mark.parametrize(("shape", "pixel"), [((3, 2), 30), ((2, 2), 10), ((2, 2), 50)])
    def test_ground_that_does_not_fit_is_refused(self, shape: tuple[int, int], pixel: int) -> None:
        with pytest.raises(ValueError, match="m"):
            to_20_metres(np.zeros(shape, bool), pixel)


@pytest.fixture(scope="module")
def ukis() -> UkisClouds:
    return UkisClouds()


def clouded(shape: tuple[int, int]) -> Any:
    """A round cloud."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside: Any = (y - 90) ** 2 + (x - 130) ** 2 < 45**2
    return inside


class TestUkis:
    @pytest.mark.slow
    def test_a_cloud_is_found_in_one_pass_over_any_size(self, ukis: UkisClouds) -> None:
        for shape in ((256, 256), (272, 304), (300, 260)):
            cloud = clouded(shape)
            found = ukis.detect(scene(ukis.bands, cloud), np.ones(shape, bool))
            assert found.cloud.shape == found.shadow.shape == shape
            assert (found.cloud == cloud).mean() > 0.97
            assert found.probability is not None
            assert found.probability[cloud].mean() > 0.8 > 0.1 > found.probability[~cloud].mean()

    @pytest.mark.slow
    def test_it_is_the_network_of_the_package(self, ukis: UkisClouds) -> None:
        image = scene(ukis.bands, clouded((256, 256)))
        statistics = json.loads(WEIGHTS.with_suffix(".json").read_text())["data"]["dataset_statistics"]
        assert statistics["band_names"] == ["blue", "green", "red", "nir", "swir16", "swir22"]
        mean, deviation = (np.array(values)[:, None, None] for values in statistics["img"])
        session = onnxruntime.InferenceSession(str(WEIGHTS), providers=["CPUExecutionProvider"])
        window = ((image - mean) / deviation).astype(np.float32)[None]
        best = session.run(None, {session.get_inputs()[0].name: window})[0][0].argmax(axis=0)
        found = ukis.detect(image, np.ones((256, 256), bool))
        assert ((best == 1) == found.cloud).mean() > 0.9999
        assert ((best == 2) == found.shadow).mean() > 0.9999
        assert 0.05 < found.cloud.mean() < 0.5

    @pytest.mark.slow
    def test_the_same_image_gives_the_same_whatever_came_before(self, ukis: UkisClouds) -> None:
        imaged = np.ones((256, 256), bool)
        image = scene(ukis.bands, clouded((256, 256)))
        first = ukis.detect(image, imaged)
        ukis.detect(scene(ukis.bands, imaged), imaged)
        again = UkisClouds().detect(image, imaged)
        for one in (ukis.detect(image, imaged), again):
            assert (one.probability == first.probability).all()
            assert (one.cloud == first.cloud).all()

    def test_what_stands_where_nothing_was_imaged_does_not_matter(self, ukis: UkisClouds) -> None:
        cloud = clouded((256, 256))
        imaged = np.ones(cloud.shape, bool)
        imaged[:, 200:] = False
        image = scene(ukis.bands, cloud)
        other = np.where(imaged, image, np.float32(np.nan))
        found, same = ukis.detect(image, imaged), ukis.detect(other, imaged)
        assert (found.cloud == same.cloud).all()
        assert not (found.cloud | found.shadow)[~imaged].any()
        assert (found.cloud == cloud)[imaged].mean() > 0.97

    def test_a_small_image_is_looked_at_as_if_it_were_alone(self, ukis: UkisClouds) -> None:
        """Even ground around 640 m of a real patch made a tenth of its clear ground shadow."""
        image = np.random.default_rng(8).uniform(0.02, 0.4, (6, 22, 30)).astype(np.float32)
        whole = np.full((6, 320, 320), np.nan, np.float32)
        imaged = np.zeros((320, 320), bool)
        place = (slice(100, 122), slice(51, 81))
        whole[:, *place], imaged[place] = image, True
        alone = ukis.detect(image, np.ones((22, 30), bool))
        found = ukis.detect(whole, imaged)
        np.testing.assert_array_equal(found.cloud[place], alone.cloud)
        np.testing.assert_array_equal(found.shadow[place], alone.shadow)
        assert alone.probability is not None
        assert found.probability is not None
        np.testing.assert_array_equal(found.probability[place], alone.probability)
        assert not (found.cloud | found.shadow | (found.probability > 0))[~imaged].any()

    def test_nothing_imaged_is_no_cloud(self, ukis: UkisClouds) -> None:
        found = ukis.detect(np.full((6, 256, 256), np.nan, np.float32), np.zeros((256, 256), bool))
        assert not (found.cloud | found.shadow).any()

    def test_another_network_is_refused(self) -> None:
        with pytest.raises(PluginError, match=r"is not the network of ukis-csmask 1\.0\.0"):
            of_any_size(b"\n\x05input\x12 of another make")


class TestS2cloudless:
    def test_clouds_are_found_pixel_by_pixel(self) -> None:
        method = S2cloudlessClouds()
        cloud = np.random.default_rng(1).random((30, 20)) > 0.6
        imaged = np.ones(cloud.shape, bool)
        imaged[:3] = False
        found = method.detect(scene(method.bands, cloud), imaged)
        assert (found.cloud == (cloud & imaged)).all()
        assert not found.shadow.any()
        assert found.probability is not None
        assert ((found.probability > 0.4) == found.cloud).all()


def test_methods_are_checked_before_they_are_used() -> None:
    fine = SimpleNamespace(name="a", version="1", level="L2A", bands=("B02",), pixel=30, detect=lambda *_: None)
    clouds.check_method(fine, "a")
    with pytest.raises(TypeError, match="version"):
        clouds.check_method(SimpleNamespace(**{**vars(fine), "version": 1}), "a")
