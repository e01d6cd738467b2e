"""Offsets that items do not say, or say wrongly: what pixels tell, what reaches the store, and who is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from tiny_region import BANDS, NORTH, WEST, TinyRegion, write_raster

import h2crop_data
from h2crop_data.catalog.access import read_coarsely
from h2crop_data.catalog.providers.earth_search import PROVIDER as EARTH_SEARCH
from h2crop_data.catalog.providers.planetary_computer import PROVIDER as PLANETARY_COMPUTER
from h2crop_data.cube.reading import read_index
from h2crop_data.errors import PlanError
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.pipeline.estimate import estimate
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.validation.validate import validate_store

#: Reflectance x 10000 of leaves and of bright soil.
LEAVES = {"B02": 300, "B04": 350, "B08": 3000, "B8A": 3000, "B11": 1700, "B12": 800}
SAND = {"B02": 1500, "B04": 2500, "B08": 3400, "B8A": 3500, "B11": 4600, "B12": 4100}
FILL = -32768


def add_scene(
    region: TinyRegion,
    name: str,
    date: str,
    ground: dict[str, int],
    *,
    in_numbers: int,
    removed: bool | None = None,
    stated: float | None = None,
    baseline: str | None = "05.11",
    **settings: Any,
) -> Path:
    """A scene of one ground with texture; in_numbers: what its numbers hold above reflectance x 10000.

    removed: the archive's flag. stated: the offset of every band's metadata.
    """
    folder = region.add_sentinel2(name, date, 1000, baseline=baseline, **settings)
    item = region.sentinel2[-1]
    keys = {**BANDS, "B04": "red", "B8A": "nir08", "B12": "swir22"}
    for band, key in keys.items():
        size = 10 if band in ("B02", "B04", "B08") else 20
        pixels = textured(ground[band], 600 // size) + in_numbers
        write_raster(folder / f"{key}.tif", pixels[None].astype(np.uint16), WEST - 60, NORTH + 60, size, 0)
        item["assets"][key] = {"href": f"./sentinel2/{name}/{key}.tif", "type": "image/tiff"}
        if stated is not None:
            item["assets"][key]["raster:bands"] = [{"offset": stated}]
    if removed is not None:
        item["properties"]["earthsearch:boa_offset_applied"] = removed
    return folder


def textured(value: int, side: int) -> NDArray[np.int64]:
    """Numbers (y, x) within a tenth of a value, alike at every resolution and on every date."""
    y, x = np.mgrid[:side, :side] * (60 // side) // 2
    return np.rint(value * (1 + 0.1 * np.sin(x * 0.7) * np.cos(y * 0.5))).astype(np.int64)


def blue_of(store: Path, month: int) -> NDArray[np.int16]:
    """The blue of a month of the first sample, (y, x)."""
    season = h2crop_data.open(store, 2022).load()
    return np.asarray(season.s2.sel(month=month, s2_band="B02").values[0])


class TestPixelsDecide:
    @pytest.mark.parametrize("in_numbers", [0, 1000])
    def test_what_the_numbers_hold_whatever_flag_and_metadata_say(
        self, region: TinyRegion, tmp_path: Path, in_numbers: int
    ) -> None:
        # As Earth Search's sentinel-2-l2a says it of all its scenes: removed, and -0.1.
        add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=in_numbers, removed=True, stated=-0.1)
        build_store(region.recipe(), tmp_path / "store", workers=1)
        july = blue_of(tmp_path / "store", 7)
        assert (july.min(), july.max()) == (270, 330)
        (row,) = read_index(tmp_path / "store", "scenes").to_dict("records")
        assert row["offset"] == -in_numbers
        assert "contradiction" in row["reason"]
        why = "leaves have numbers just above 1000" if in_numbers else "too dark for an offset"
        assert row["reason"].endswith(f"decided by its pixels: {why}")
        assert f"B02 {271 + in_numbers}" in row["evidence"]
        assert f"decided by its pixels: {why}" in (tmp_path / "store/DATASHEET.md").read_text()
        assert validate_store(tmp_path / "store").findings == []

    @pytest.mark.parametrize("baseline", [None, "99.99", "latest"])
    def test_scenes_that_say_nothing_usable(self, region: TinyRegion, baseline: str | None) -> None:
        add_scene(region, "dark", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, baseline=baseline)
        add_scene(region, "high", "2022-08-01T10:50:00Z", LEAVES, in_numbers=1000, baseline=baseline)
        plan = make_plan(region.recipe(), 2022)
        assert {scene.id: scene.offset for scene in plan.scenes} == {"dark": 0, "high": -1000}

    def test_bright_ground_is_compared_with_scenes_that_state_their_offset(self, region: TinyRegion) -> None:
        add_scene(region, "asked", "2022-07-01T10:50:00Z", SAND, in_numbers=0, removed=True, stated=-0.1)
        for day in (3, 5):
            add_scene(region, f"told {day}", f"2022-07-0{day}T10:50:00Z", SAND, in_numbers=1000)
        plan = make_plan(region.recipe(), 2022)
        offsets = {scene.id: scene.offset for scene in plan.scenes}
        assert offsets == {"asked": 0, "told 3": -1000, "told 5": -1000}
        (asked,) = [scene for scene in plan.scenes if scene.id == "asked"]
        assert "compared with other scenes" in asked.reason

    def test_what_pixels_do_not_tell_is_refused_with_advice(self, region: TinyRegion) -> None:
        add_scene(region, "sand", "2022-07-01T10:50:00Z", SAND, in_numbers=0, removed=True, stated=-0.1)
        told = (
            r"(?s)sand: contradiction: .*do not tell: nothing is known to be dark .*B02 13\d\d.*`sentinel2.offset: 0`"
        )
        with pytest.raises(PlanError, match=told):
            make_plan(region.recipe(), 2022)
        add_scene(region, "leaves", "2022-08-01T10:50:00Z", LEAVES, in_numbers=1000, removed=False, stated=-0.1)
        plan = make_plan(region.recipe(sentinel2={"gaps": "record"}), 2022)
        assert {scene.id: scene.taken for scene in plan.scenes} == {"sand": False, "leaves": True}

    def test_a_scene_of_clouds_alone_is_left_out_and_named(self, region: TinyRegion) -> None:
        add_scene(region, "clear", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, removed=True, stated=-0.1)
        add_scene(region, "closed", "2022-07-06T10:50:00Z", SAND, in_numbers=0, removed=True, stated=-0.1, scl=9)
        plan = make_plan(region.recipe(), 2022)
        assert {scene.id: scene.taken for scene in plan.scenes} == {"clear": True, "closed": False}
        (warning,) = estimate(plan).sources["warnings"]
        assert "left out" in warning
        assert "hardly any ground is seen (0 of 900 pixels surely show ground) (closed)" in warning

    def test_a_sliver_of_clear_ground_is_not_left_out_in_silence(self, region: TinyRegion) -> None:
        # The end of a swath: 40 pixels, all of them clear.
        sliver = np.zeros((30, 30), np.uint8)
        sliver[:20, :2] = 4
        add_scene(region, "sliver", "2022-07-06T10:50:00Z", LEAVES, in_numbers=0, removed=True, stated=-0.1, scl=sliver)
        add_scene(region, "clear", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, removed=True, stated=-0.1)
        with pytest.raises(PlanError, match=r"(?s)sliver: .*too little ground.* of 40 .* 40 can be clear.*declare"):
            make_plan(region.recipe(), 2022)
        plan = make_plan(region.recipe(sentinel2={"gaps": "record"}), 2022)
        assert {scene.id: scene.taken for scene in plan.scenes} == {"clear": True, "sliver": False}

    def test_what_the_classification_calls_cloud_may_be_clear_by_another_method(self, region: TinyRegion) -> None:
        add_scene(region, "clear", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, removed=True, stated=-0.1)
        add_scene(region, "bright", "2022-07-06T10:50:00Z", SAND, in_numbers=0, removed=True, stated=-0.1, scl=9)
        recipe = region.recipe(sentinel2={"clouds": {"method": "scl", "clear": [4, 5, 6, 9]}})
        with pytest.raises(PlanError, match=r"(?s)bright: .*too little ground.* of 900 .* 900 can be clear"):
            make_plan(recipe, 2022)

    def test_a_scene_that_cannot_be_looked_at_is_refused(self, region: TinyRegion) -> None:
        folder = add_scene(region, "lost", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, removed=True, stated=-0.1)
        (folder / "swir22.tif").unlink()
        with pytest.raises(PlanError, match=r"(?s)lost: .*its pixels cannot be read.*swir22\.tif"):
            make_plan(region.recipe(), 2022)

    @pytest.mark.parametrize("in_numbers", [0, 1000])
    def test_items_of_collections_that_are_known_to_be_wrong(
        self, region: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_numbers: int
    ) -> None:
        # Flag and metadata agree with each other, whatever the numbers hold.
        add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=in_numbers, removed=False, stated=-0.1)
        monkeypatch.setattr("h2crop_data.sources.sentinel2.offsets.provider_of", lambda _: EARTH_SEARCH)
        build_store(region.recipe(), tmp_path / "store", workers=1)
        july = blue_of(tmp_path / "store", 7)
        assert (july.min(), july.max()) == (270, 330)
        (row,) = read_index(tmp_path / "store", "scenes").to_dict("records")
        assert row["reason"].startswith(
            "baseline 05.11, but items of sentinel-2-l2a of earth-search are known to be wrong; decided by its pixels"
        )

    @pytest.mark.parametrize("in_numbers", [0, 1000])
    def test_floating_point_numbers_of_which_no_offset_is_stated(
        self, region: TinyRegion, tmp_path: Path, in_numbers: int
    ) -> None:
        folder = add_scene(region, "float", "2022-07-01T10:50:00Z", LEAVES, in_numbers=in_numbers)
        for key, asset in region.sentinel2[-1]["assets"].items():
            if key != "scl":
                path = folder / f"{key}.tif"
                with rasterio.open(path) as raster:
                    numbers, profile = raster.read(), raster.profile
                with rasterio.open(path, "w", **{**profile, "dtype": "float32", "nodata": np.nan}) as raster:
                    raster.write((numbers / 10000).astype(np.float32))
                asset["raster:bands"] = [{"scale": 1.0}]
        build_store(region.recipe(), tmp_path / "store", workers=1)
        july = blue_of(tmp_path / "store", 7)
        assert (july.min(), july.max()) == (270, 330)
        (row,) = read_index(tmp_path / "store", "scenes").to_dict("records")
        assert "are not those that ESA wrote" in row["reason"]


class TestItemsDecide:
    @pytest.mark.parametrize(
        ("in_numbers", "said", "offset"),
        [
            (0, {"removed": False, "stated": -0.1}, -1000),
            (0, {}, -1000),
            (1000, {"removed": True}, 0),
            (1000, {"removed": True, "stated": 0}, 0),
            (1000, {"baseline": "03.01"}, 0),
        ],
    )
    def test_pixels_that_say_otherwise_are_told_everywhere(
        self, region: TinyRegion, tmp_path: Path, in_numbers: int, said: dict[str, Any], offset: int
    ) -> None:
        add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=in_numbers, **said)
        told = f"its item says the offset is {offset}"
        (warning,) = estimate(make_plan(region.recipe(), 2022)).sources["warnings"]
        assert told in warning
        assert f"its pixels say {-in_numbers}" in warning
        build_store(region.recipe(), tmp_path / "store", workers=1)
        assert told in (tmp_path / "store/DATASHEET.md").read_text()
        (row,) = read_index(tmp_path / "store", "scenes").to_dict("records")
        assert row["offset"] == offset
        assert f"B02 {271 + in_numbers}" in row["evidence"]

    def test_the_warning_names_a_collection_that_is_known_to_keep_the_offset(
        self, region: TinyRegion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, stated=-0.1)
        monkeypatch.setattr("h2crop_data.sources.sentinel2.offsets.provider_of", lambda _: PLANETARY_COMPUTER)
        (scene,) = make_plan(region.recipe(), 2022).scenes
        assert "although sentinel-2-l2a of planetary-computer keeps it as far as is known" in scene.warning

    def test_pixels_that_bear_it_out_change_nothing(self, region: TinyRegion) -> None:
        add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=1000, stated=-0.1)
        (scene,) = make_plan(region.recipe(), 2022).scenes
        assert (scene.offset, scene.warning, scene.evidence) == (-1000, "", "")

    def test_three_scenes_of_a_tile_and_statement_are_looked_at(
        self, region: TinyRegion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for day in range(1, 8):
            add_scene(region, f"{day}", f"2022-07-0{day}T10:50:00Z", LEAVES, in_numbers=1000, cloud_cover=90.0 - day)
        looked_at = []
        monkeypatch.setattr(
            "h2crop_data.sources.sentinel2.offsets.read_coarsely",
            lambda asset, *given, **options: looked_at.append(asset.href) or read_coarsely(asset, *given, **options),
        )
        make_plan(region.recipe(), 2022)
        assert {Path(href).parent.name for href in looked_at} == {"5", "6", "7"}
        # B02, B04, B8A, B11, B12, and the scene classification twice.
        assert len(looked_at) == 3 * 7

    def test_jpeg_2000_is_not_looked_at(self, region: TinyRegion, monkeypatch: pytest.MonkeyPatch) -> None:
        add_scene(region, "esa", "2022-07-01T10:50:00Z", LEAVES, in_numbers=1000)
        for asset in region.sentinel2[-1]["assets"].values():
            asset["type"] = "image/jp2"
        monkeypatch.delattr("h2crop_data.sources.sentinel2.offsets.read_coarsely")
        assert [scene.offset for scene in make_plan(region.recipe(), 2022).scenes] == [-1000]


class TestNumbersThatAreNoReflectance:
    @pytest.mark.parametrize("who", ["the file", "its item"])
    def test_whole_numbers_of_another_scale_are_refused(self, region: TinyRegion, tmp_path: Path, who: str) -> None:
        folder = add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, baseline="02.14")
        if who == "the file":
            with rasterio.open(folder / "blue.tif", "r+") as raster:
                raster.scales = (0.001,)
        else:
            region.sentinel2[-1]["assets"]["blue"]["raster:bands"] = [{"scale": 0.001}]
        told = rf"blue\.tif: expected the scale 0\.0001, .*, got 0\.001, stated by {who} for uint16 values"
        (scene,) = make_plan(region.recipe(), 2022).scenes
        assert re.search(told, scene.warning)
        with pytest.raises(BuildError, match=f"scene asset blue: .*{told}"):
            build_store(region.recipe(), tmp_path / "store", workers=1)

    @pytest.mark.parametrize("scale", [1, 0.0001])
    def test_whole_numbers_of_the_usual_scales_are_read(self, region: TinyRegion, tmp_path: Path, scale: float) -> None:
        folder = add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, baseline="02.14")
        region.sentinel2[-1]["assets"]["blue"]["raster:bands"] = [{"scale": scale}]
        with rasterio.open(folder / "blue.tif", "r+") as raster:
            raster.scales = (0.0001,)
        build_store(region.recipe(), tmp_path / "store", workers=1)
        assert blue_of(tmp_path / "store", 7).max() == 330

    @pytest.mark.parametrize(("stated", "said"), [(None, "none"), (0, "0")])
    @pytest.mark.parametrize("of_file", [-0.1, -1000])
    def test_an_offset_of_the_file_that_its_item_does_not_state_is_refused(
        self, region: TinyRegion, tmp_path: Path, stated: float | None, said: str, of_file: float
    ) -> None:
        folder = add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, removed=True, stated=stated)
        with rasterio.open(folder / "blue.tif", "r+") as raster:
            raster.offsets = (of_file,)
        with pytest.raises(BuildError, match=rf"blue\.tif states the offset -0\.1 .*its item {said}; correct"):
            build_store(region.recipe(), tmp_path / "store", workers=1)

    def test_an_offset_that_file_and_item_state_alike_is_read(self, region: TinyRegion, tmp_path: Path) -> None:
        folder = add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=1000, stated=-0.1)
        with rasterio.open(folder / "blue.tif", "r+") as raster:
            raster.scales, raster.offsets = (0.0001,), (-0.1,)
        build_store(region.recipe(), tmp_path / "store", workers=1)
        assert blue_of(tmp_path / "store", 7).max() == 330


class TestDeclared:
    @pytest.mark.parametrize("in_numbers", [0, 1000])
    def test_pixels_that_say_otherwise_are_told_everywhere(
        self, region: TinyRegion, tmp_path: Path, in_numbers: int
    ) -> None:
        wrong = -1000 if in_numbers == 0 else 0
        add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=in_numbers, removed=True, stated=-0.1)
        recipe = region.recipe(sentinel2={"offset": wrong})
        told = f"`sentinel2.offset: {wrong}` is declared, the pixels say {-in_numbers}"
        (warning,) = estimate(make_plan(recipe, 2022)).sources["warnings"]
        assert told in warning
        report = build_store(recipe, tmp_path / "store", workers=1)
        assert told in report.sources[2022]["2022"]["warnings"][0]
        assert f"the pixels say {-in_numbers}" in (tmp_path / "store/DATASHEET.md").read_text()
        # What is declared holds.
        july = blue_of(tmp_path / "store", 7)
        assert (july.min(), july.max()) == (270 + in_numbers + wrong, 330 + in_numbers + wrong)

    def test_pixels_that_bear_it_out_say_nothing(self, region: TinyRegion) -> None:
        add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=0, removed=True, stated=-0.1)
        plan = make_plan(region.recipe(sentinel2={"offset": 0}), 2022)
        assert [scene.warning for scene in plan.scenes] == [""]

    def test_the_scenes_with_the_fewest_clouds_of_each_statement_are_looked_at(self, region: TinyRegion) -> None:
        for day in range(1, 8):
            cover = 90.0 - 10 * day
            add_scene(
                region, f"{day}", f"2022-07-0{day}T10:50:00Z", LEAVES, in_numbers=1000, stated=-0.1, cloud_cover=cover
            )
        add_scene(region, "old", "2022-08-01T10:50:00Z", LEAVES, in_numbers=0, baseline="03.01", cloud_cover=95.0)
        plan = make_plan(region.recipe(sentinel2={"offset": -1000}), 2022)
        assert {scene.id for scene in plan.scenes if scene.evidence} == {"5", "6", "7", "old"}


class TestOneSceneManyWays:
    @pytest.mark.parametrize(
        ("in_numbers", "said"),
        [
            (0, {"baseline": "02.12"}),
            (1000, {"baseline": "04.00", "stated": -0.1}),
            (1000, {"baseline": "04.00", "removed": False, "stated": -0.1}),
            (0, {"baseline": "04.00", "removed": True, "stated": 0}),
            # Flags that lie.
            (0, {"baseline": "04.00", "removed": True, "stated": -0.1}),
            (0, {"baseline": "04.00", "removed": False, "stated": 0}),
            (1000, {"baseline": "04.00", "removed": True, "stated": -0.1}),
        ],
    )
    def test_gives_one_reflectance(
        self, region: TinyRegion, tmp_path: Path, in_numbers: int, said: dict[str, Any]
    ) -> None:
        folder = add_scene(region, "scene", "2022-07-01T10:50:00Z", LEAVES, in_numbers=in_numbers, **said)
        with rasterio.open(folder / "blue.tif") as raster:
            numbers, profile = raster.read(1).astype(np.int64), raster.profile
        truth = numbers - in_numbers
        # Down to negative reflectance, which an archive that takes the offset out of unsigned numbers makes 1.
        truth[6:14, 6:14] = np.array([-600, -2, -1, 0, 1, 2, 3, 19_999])[:, None]
        written = np.maximum(truth + in_numbers, 1)
        written[20:24, 20:24] = 0
        with rasterio.open(folder / "blue.tif", "w", **profile) as raster:
            raster.write(written.astype(np.uint16), 1)
        build_store(region.recipe(), tmp_path / "store", workers=1)
        season = h2crop_data.open(tmp_path / "store", 2022).load()
        seen = np.full(truth.shape, FILL)
        for sample in range(4):
            row = round((NORTH + 60 - season.y0.values[sample]) / 10)
            column = round((season.x0.values[sample] - (WEST - 60)) / 10)
            seen[row : row + 24, column : column + 24] = season.s2.sel(month=7, s2_band="B02").values[sample]
        inside = np.zeros(truth.shape, bool)
        inside[6:54, 6:54] = True
        nodata = written == 0
        assert (seen[inside & nodata] == FILL).all()
        whole = inside & ~nodata & (truth >= 2)
        np.testing.assert_array_equal(seen[whole], truth[whole])
        low = inside & ~nodata & (truth < 2)
        expected = np.maximum(truth, 1) if in_numbers == 0 else truth
        np.testing.assert_array_equal(seen[low], expected[low])
