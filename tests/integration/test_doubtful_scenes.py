"""Scenes that are not what they say: what of them reaches a store, and who is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from tiny_region import BANDS, CLASSES_ALONE, EAST, NORTH, SOUTH, WEST, TinyRegion
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index, read_index_json
from h2crop_data.errors import PlanError
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline.build import BuildReport, build_store
from h2crop_data.pipeline.engine import BuildError
from h2crop_data.pipeline.estimate import estimate
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import Recipe
from h2crop_data.validation.validate import validate_store

FILL = -32768
#: Rows and columns of the made Sentinel-2 rasters at 10 m, of the SCL at 20 m, and of EnMAP's at 30 m.
FINE_SHAPE, SCL_SHAPE, ENMAP_SHAPE = (60, 60), (30, 30), (19, 19)


#: A band more than the image of a tiny region has.
FIFTH_BAND = (
    '<bandID number="5"><wavelengthCenterOfBand>700</wavelengthCenterOfBand><FWHMOfBand>7</FWHMOfBand>'
    "<GainOfBand>0.0001</GainOfBand><OffsetOfBand>0</OffsetOfBand></bandID>"
)


def rewrite(path: Path, change: Callable[[NDArray[Any]], NDArray[Any]] | None = None, **profile: Any) -> None:
    """Write a raster anew with other pixels (band, y, x), or another profile."""
    with rasterio.open(path) as raster:
        pixels, kept = raster.read(), raster.profile
    pixels = pixels if change is None else change(pixels)
    kept |= {
        "dtype": pixels.dtype,
        "count": len(pixels),
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        **profile,
    }
    if kept["crs"] is None:
        del kept["crs"]
    with rasterio.open(path, "w", **kept) as raster:
        raster.write(pixels)


def west_half(pixels: NDArray[Any], value: int) -> NDArray[Any]:
    """Pixels (band, y, x) whose western half has one value."""
    changed = pixels.copy()
    changed[..., : pixels.shape[2] // 2] = value
    return changed


def built(recipe: Recipe, folder: Path, year: int = 2022) -> tuple[xr.Dataset, BuildReport]:
    """The season of a store, and the report of building it."""
    report = build_store(recipe, folder, workers=1)
    season = h2crop_data.open(folder, year).load()
    # What items say of their files is told by whoever looks, and nothing else is wrong.
    told = [finding.what.partition(":")[0] for finding in validate_store(folder).findings]
    assert told == (["items say something else of their files than these have"] if report.differences else [])
    return season, report


def in_west(season: xr.Dataset) -> NDArray[np.bool_]:
    """Which samples lie in the western half of the region."""
    return np.asarray(season.x0.values < WEST + 240)


class TestNumbers:
    """Number 22000 with an offset of -1000 is reflectance 2.1; ground has none above 2."""

    @pytest.mark.parametrize("number", [64536, 64700, 65535, 33767, 21001])
    def test_what_no_ground_reflects_is_never_clear_and_named(
        self, region: TinyRegion, tmp_path: Path, number: int
    ) -> None:
        folder = region.add_sentinel2("odd", "2022-07-01T10:50:00Z", 900)
        rewrite(folder / "nir.tif", lambda pixels: west_half(pixels, number))
        season, report = built(region.recipe(), tmp_path / "store")
        july, west = season.sel(month=7), in_west(season)
        assert (july.s2.values[west] == FILL).all()
        assert (july.s2_clear.values[west] == 0).all()
        assert (july.s2.values[~west] == np.array([900, 901, 902])[:, None, None]).all()
        assert (july.s2_clear.values[~west] == 1).all()
        assert report.impossible == ["odd"]
        named = [list(names) for names in read_index(tmp_path / "store", "samples-2022")["s2_impossible"]]
        assert named == [["odd"] if is_west else [] for is_west in west]
        sheet = (tmp_path / "store/DATASHEET.md").read_text()
        assert "pixels above reflectance 2 (these pixels were not used): 1, over 2 samples: `odd`" in sheet

    def test_the_brightest_ground_stays_clear(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("snow", "2022-07-01T10:50:00Z", 19998)
        season, report = built(region.recipe(), tmp_path / "store")
        assert (season.s2.sel(month=7)[:, 2] == 20000).all()
        assert report.impossible == []

    def test_such_pixels_do_not_spoil_the_median_of_other_days(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("good", "2022-07-11T10:50:00Z", 900)
        folder = region.add_sentinel2("wrapped", "2022-07-01T10:50:00Z", 900)
        for key in BANDS.values():
            rewrite(folder / f"{key}.tif", lambda pixels: np.full_like(pixels, 64700))
        season, _ = built(region.recipe(), tmp_path / "store")
        assert (season.s2.sel(month=7)[:, 0] == 900).all()
        assert (season.s2_clear.sel(month=7) == 1).all()

    @pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
    def test_such_numbers_are_not_mixed_into_their_neighbours(
        self, region: TinyRegion, tmp_path: Path, resampling: str
    ) -> None:
        folder = region.add_sentinel2("wrapped", "2022-07-01T10:50:00Z", 898)
        rewrite(folder / "swir16.tif", lambda pixels: west_half(pixels, 64700))
        season, _ = built(region.recipe(sentinel2={"resampling": resampling}), tmp_path / "store")
        swir = season.s2.sel(month=7).values[:, 2]
        assert set(np.unique(swir)) == {FILL, 900}
        assert (swir[~in_west(season)] == 900).all()

    @pytest.mark.parametrize("zone", ["own", "other"])
    @pytest.mark.parametrize("nodata", [-32768, -9999])
    def test_files_with_a_sign_keep_it(self, region: TinyRegion, tmp_path: Path, zone: str, nodata: int) -> None:
        folder = region.add_sentinel2("signed", "2022-03-02T10:50:00Z", 1200, offset=0)
        region.sentinel2[-1]["properties"]["earthsearch:boa_offset_applied"] = True

        def signed(pixels: NDArray[Any]) -> NDArray[Any]:
            numbers = west_half(pixels.astype(np.int16), -60)
            # Zero is a number where something else stands for nodata.
            numbers[:, : pixels.shape[1] // 2, pixels.shape[2] // 2 :] = 0
            numbers[:, -pixels.shape[1] // 6 :] = nodata
            return numbers

        for key in BANDS.values():
            rewrite(folder / f"{key}.tif", signed, nodata=nodata)
        if zone == "other":
            move_to_zone_32(folder)
        season, _ = built(region.recipe(), tmp_path / "store")
        march = season.sel(month=3)
        inside = (slice(4, -10), slice(4, -4))
        for i in range(4):
            west, north = season.x0.values[i] < WEST + 240, season.y0.values[i] > SOUTH + 240
            expected = -60 if west else (0 if north else 1200)
            assert (march.s2.values[i][0, *inside] == expected).all()
            assert (march.s2_clear.values[i][*inside] == 1).all()
            if not north:
                # Nodata over the southernmost 100 m of the files, of which 60 m lie beyond the cells.
                assert (march.s2.values[i][:, -3:] == FILL).all()

    def test_floating_point_files_are_refused_by_name(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("whole", "2022-07-11T10:50:00Z", 900)
        folder = region.add_sentinel2("float", "2022-07-01T10:50:00Z", 900)
        rewrite(folder / "nir.tif", lambda pixels: pixels.astype(np.float32) / 10000)
        with pytest.raises(
            BuildError, match=r"float asset nir: .*nir\.tif has float32 values without a scale in the file or its item"
        ):
            build_store(region.recipe(), tmp_path / "store", workers=1)
        season, report = built(region.recipe(sentinel2={"gaps": "record"}), tmp_path / "recorded")
        assert report.gaps == ["float"]
        assert (season.s2_clear.sel(month=7) == 1).all()

    @pytest.mark.parametrize("zone", ["own", "other"])
    @pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
    @pytest.mark.parametrize(
        ("stated", "scale", "dtype"),
        [("by the item", 1.0, np.float32), ("by the item", 0.01, np.float64), ("by the file", 0.01, np.float32)],
    )
    def test_floating_point_files_whose_scale_is_stated(
        self,
        region: TinyRegion,
        tmp_path: Path,
        zone: str,
        resampling: str,
        stated: str,
        scale: float,
        dtype: type[np.floating[Any]],
    ) -> None:
        folder = region.add_sentinel2("float", "2022-07-01T10:50:00Z", 1200, offset=0)
        region.sentinel2[-1]["properties"]["earthsearch:boa_offset_applied"] = True

        def floats(pixels: NDArray[Any]) -> NDArray[Any]:
            numbers = west_half(pixels.astype(np.float64), -60) / 10000 / scale
            numbers[:, -pixels.shape[1] // 6 :] = np.nan
            return numbers.astype(dtype)

        for key in BANDS.values():
            path = folder / f"{key}.tif"
            rewrite(path, floats, nodata=None)
            if stated == "by the item":
                region.sentinel2[-1]["assets"][key]["raster:bands"] = [{"scale": scale}]
        if zone == "other":
            move_to_zone_32(folder, nodata=np.nan)
        if stated == "by the file":
            for key in BANDS.values():
                with rasterio.open(folder / f"{key}.tif", "r+") as raster:
                    raster.scales = (scale,)
        recipe = region.recipe(sentinel2={"resampling": resampling})
        season, _ = built(recipe, tmp_path / "store")
        july, west = season.sel(month=7), in_west(season)
        southern = season.y0.values <= SOUTH + 240
        for sample in range(4):
            inside = july.s2.values[sample][0, 4:-12, 4:-4]
            assert (inside == (-60 if west[sample] else 1200)).all()
            if southern[sample]:
                assert (july.s2.values[sample][:, -3:] == FILL).all()

    @pytest.mark.parametrize("masked", ["by classes", "by masks of tiles"])
    def test_floating_point_files_of_which_their_item_does_not_speak(
        self, region: TinyRegion, tmp_path: Path, masked: str
    ) -> None:
        """Of whole numbers the baseline says that the offset is in; of others it says nothing."""
        region.add_sentinel2("good", "2022-07-11T10:50:00Z", 1200)
        folder = region.add_sentinel2("float", "2022-08-01T10:50:00Z", 1200, offset=0)
        for key in BANDS.values():
            rewrite(folder / f"{key}.tif", lambda pixels: pixels.astype(np.float32) / 100)
            with rasterio.open(folder / f"{key}.tif", "r+") as raster:
                raster.scales = (0.01,)
        changes: dict[str, Any] = {}
        if masked == "by masks of tiles":
            # Shifts are measured in bands.
            changes = {"clouds": {**CLASSES_ALONE, "dilation": 20}, "alignment": "report"}
        with pytest.raises(
            BuildError, match=r"float asset (?s:.*) has float32 values, which its item does not mention: baseline"
        ):
            build_store(region.recipe(sentinel2=changes), tmp_path / "store", workers=1)
        season, report = built(region.recipe(sentinel2={**changes, "gaps": "record"}), tmp_path / "recorded")
        assert report.gaps == ["float"]
        assert (season.s2_clear.sel(month=8) == 0).all()
        assert (season.s2.sel(month=7, s2_band="B02") == 1200).all()

    @pytest.mark.parametrize("way", ["declared", "removed", "stated"])
    def test_the_ways_out_of_that(self, region: TinyRegion, tmp_path: Path, way: str) -> None:
        folder = region.add_sentinel2("float", "2022-07-01T10:50:00Z", 1200, offset=0)
        item, changes = region.sentinel2[-1], {"offset": 0} if way == "declared" else {}
        if way == "removed":
            item["properties"]["earthsearch:boa_offset_applied"] = True
        for key in BANDS.values():
            rewrite(folder / f"{key}.tif", lambda pixels: pixels.astype(np.float32) / 100)
            with rasterio.open(folder / f"{key}.tif", "r+") as raster:
                raster.scales = (0.01,)
            if way == "stated":
                item["assets"][key]["raster:bands"] = [{"data_type": "float32", "scale": 0.01, "offset": -0.1}]
                rewrite(folder / f"{key}.tif", lambda pixels: pixels + 10)
        season, _ = built(region.recipe(sentinel2=changes), tmp_path / "store")
        assert (season.s2.sel(month=7) == np.array([1200, 1201, 1202])[:, None, None]).all()

    def test_scales_of_file_and_item_that_differ_are_refused(self, region: TinyRegion, tmp_path: Path) -> None:
        folder = region.add_sentinel2("float", "2022-07-01T10:50:00Z", 900)
        rewrite(folder / "nir.tif", lambda pixels: pixels.astype(np.float32) / 10)
        with rasterio.open(folder / "nir.tif", "r+") as raster:
            raster.scales = (0.001,)
        region.sentinel2[-1]["assets"]["nir"]["raster:bands"] = [{"scale": 0.0001}]
        with pytest.raises(BuildError, match=r"nir\.tif states the scale 0\.001, its item 0\.0001"):
            build_store(region.recipe(), tmp_path / "store", workers=1)

    def test_several_bands_in_a_file_are_refused_by_name_or_a_gap(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("good", "2022-07-11T10:50:00Z", 900)
        folder = region.add_sentinel2("stack", "2022-07-01T10:50:00Z", 3000)
        rewrite(folder / "nir.tif", lambda pixels: pixels.repeat(3, axis=0))
        with pytest.raises(BuildError, match=r"stack asset nir: .*nir\.tif: expected one band, got 3"):
            build_store(region.recipe(), tmp_path / "store", workers=1)
        season, report = built(region.recipe(sentinel2={"gaps": "record"}), tmp_path / "recorded")
        assert report.gaps == ["stack"]
        assert (season.s2.sel(month=7)[:, 0] == 900).all()

    def test_a_file_of_other_ground_than_its_scene_is_refused_by_name_or_a_gap(
        self, region: TinyRegion, tmp_path: Path
    ) -> None:
        region.add_sentinel2("good", "2022-07-11T10:50:00Z", 900)
        folder = region.add_sentinel2("moved", "2022-07-01T10:50:00Z", 3000)
        # As the file of a neighbouring granule in the place of its own.
        rewrite(folder / "nir.tif", transform=Affine(10, 0, WEST + 180, 0, -10, NORTH + 60))
        with pytest.raises(BuildError, match=r"moved asset nir: .*nir\.tif covers 60 x 60 pixels .*not the ground of"):
            build_store(region.recipe(), tmp_path / "store", workers=1)
        season, report = built(region.recipe(sentinel2={"gaps": "record"}), tmp_path / "recorded")
        assert report.gaps == ["moved"]
        assert (season.s2.sel(month=7)[:, 1] == 901).all()


def move_to_zone_32(folder: Path, nodata: float | None = None) -> None:
    """Warp every raster of a scene to the next UTM zone, at its own pixel size, nearest pixels.

    nodata: what rasters hold that state none.
    """
    to_east = Transformer.from_crs("EPSG:32631", "EPSG:32632", always_xy=True)
    for path in folder.glob("*.tif"):
        with rasterio.open(path) as raster:
            pixels, profile = raster.read(1), raster.profile
        size = profile["transform"].a
        x, y = to_east.transform([WEST - 60, EAST + 60] * 2, [SOUTH - 60, SOUTH - 60, NORTH + 60, NORTH + 60])
        west, north = np.floor(min(x) / 60) * 60, np.ceil(max(y) / 60) * 60
        width, height = (int(np.ceil((max(x) - west) / size)), int(np.ceil((north - min(y)) / size)))
        columns, rows = np.meshgrid(west + (np.arange(width) + 0.5) * size, north - (np.arange(height) + 0.5) * size)
        x, y = to_east.transform(columns, rows, direction="INVERSE")
        column = np.floor((x - (WEST - 60)) / size).astype(int)
        row = np.floor(((NORTH + 60) - y) / size).astype(int)
        inside = (column >= 0) & (column < pixels.shape[1]) & (row >= 0) & (row < pixels.shape[0])
        nothing = nodata if profile["nodata"] is None else profile["nodata"]
        warped = np.full((height, width), nothing, pixels.dtype)
        warped[inside] = pixels[row[inside], column[inside]]
        grid = {"crs": "EPSG:32632", "transform": Affine(size, 0, west, 0, -size, north)}
        rewrite(path, lambda _, warped=warped: warped[None], **grid)


class TestWhereFilesLie:
    @pytest.mark.parametrize(
        "lie",
        [
            {},
            {"proj:epsg": 32631},
            {"proj:epsg": None},
            {"proj:shape": [10, 10]},
            {"proj:transform": [10, 0, 300000, 0, -10, 6000000]},
            {"proj:epsg": 32631, "proj:shape": [600, 600], "proj:transform": [10, 0, WEST, 0, -10, NORTH]},
        ],
        ids=["says nothing", "another zone", "null", "another size", "another place", "wrong in everything"],
    )
    def test_the_file_says_where_its_pixels_are(self, region: TinyRegion, tmp_path: Path, lie: dict[str, Any]) -> None:
        folder = region.add_sentinel2("east", "2022-07-01T10:50:00Z", 1500)
        for key in BANDS.values():
            rewrite(folder / f"{key}.tif", lambda pixels: west_half(pixels, 3000))
        move_to_zone_32(folder)
        item = region.sentinel2[-1]
        del item["properties"]["proj:epsg"]
        item["properties"] |= {key: value for key, value in lie.items() if key == "proj:epsg"}
        for asset in item["assets"].values():
            asset |= {key: value for key, value in lie.items() if key != "proj:epsg"}
        season, report = built(region.recipe(), tmp_path / "store")
        assert bool(report.differences) == any(lie.values()), report.differences
        july, west = season.sel(month=7), in_west(season)
        # A pixel or two at the middle of the region may fall to either side.
        assert (july.s2.values[west][:, 0, :, :-3] == 2000).all()
        assert (july.s2.values[~west][:, 0, :, 3:] == 1500).all()
        assert (july.s2_clear == 1).all()

    def test_a_file_without_crs_is_refused_by_name_or_a_gap(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("good", "2022-07-11T10:50:00Z", 900)
        folder = region.add_sentinel2("lost", "2022-07-01T10:50:00Z", 3000)
        rewrite(folder / "nir.tif", crs=None)
        with pytest.raises(BuildError, match=r"lost asset nir: .*nir\.tif has no CRS"):
            build_store(region.recipe(), tmp_path / "store", workers=1)
        season, report = built(region.recipe(sentinel2={"gaps": "record"}), tmp_path / "recorded")
        assert report.gaps == ["lost"]
        assert (season.s2.sel(month=7)[:, 0] == 900).all()

    @pytest.mark.parametrize(
        ("geometry", "reason"),
        [
            (None, "it has no footprint"),
            ({"type": "Polygon", "coordinates": [[[3, 50]]]}, "its footprint is damaged"),
            ({"type": "Polygon", "coordinates": []}, "its footprint is empty"),
            ("swapped", "longitude and latitude are swapped"),
        ],
    )
    def test_scenes_nobody_can_place_are_named_as_refused(
        self, region: TinyRegion, tmp_path: Path, geometry: Any, reason: str
    ) -> None:
        region.add_sentinel2("good", "2022-07-11T10:50:00Z", 900)
        region.add_sentinel2("lost", "2022-07-01T10:50:00Z", 3000)
        item = region.sentinel2[-1]
        if geometry == "swapped":
            ring = item["geometry"]["coordinates"][0]
            geometry = {"type": "Polygon", "coordinates": [[[y, x] for x, y in ring]]}
        del item["properties"]["grid:code"]
        item["geometry"] = geometry
        season, report = built(region.recipe(), tmp_path / "store")
        assert (season.s2.sel(month=7)[:, 0] == 900).all()
        scene = read_index(tmp_path / "store", "scenes").set_index("id").loc["lost"]
        assert not scene["taken"]
        assert reason in scene["reason"]
        (warning,) = report.sources[2022]["2022"]["warnings"]
        assert reason in warning
        assert "lost" in warning
        assert "left out, although it may cover the cells" in (tmp_path / "store/DATASHEET.md").read_text()

    def test_swapped_coordinates_are_understood_where_the_tile_is_named(
        self, region: TinyRegion, tmp_path: Path
    ) -> None:
        region.add_sentinel2("swapped", "2022-07-01T10:50:00Z", 900)
        item = region.sentinel2[-1]
        item["geometry"]["coordinates"] = [[[y, x] for x, y in item["geometry"]["coordinates"][0]]]
        season, report = built(region.recipe(), tmp_path / "store")
        assert (season.s2.sel(month=7)[:, 0] == 900).all()
        (warning,) = report.sources[2022]["2022"]["warnings"]
        assert "longitude and latitude of its footprint are swapped" in warning
        assert "(swapped)" in warning

    def test_a_scene_without_a_footprint_lies_where_its_tile_does(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("bare", "2022-07-01T10:50:00Z", 900)
        region.sentinel2[-1]["geometry"] = None
        season, report = built(region.recipe(), tmp_path / "store")
        assert (season.s2.sel(month=7)[:, 0] == 900).all()
        (warning,) = report.sources[2022]["2022"]["warnings"]
        assert "it has no footprint (`geometry`); the outline of its pixels is used instead" in warning
        assert "(bare)" in warning

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            ({"properties": None}, "as its properties, got None"),
            ({"assets": None}, "expected an object as its assets, got None"),
            ({"assets": {"blue": {"title": "a file"}}}, "its asset blue has no address"),
        ],
    )
    def test_a_damaged_item_does_not_hide_the_others(
        self, region: TinyRegion, tmp_path: Path, damage: dict[str, Any], reason: str
    ) -> None:
        region.add_sentinel2("good", "2022-07-11T10:50:00Z", 900)
        region.add_sentinel2("odd", "2022-07-01T10:50:00Z", 3000)
        region.sentinel2[-1] |= damage
        season, report = built(region.recipe(), tmp_path / "store")
        assert (season.s2.sel(month=7)[:, 0] == 900).all()
        scene = read_index(tmp_path / "store", "scenes").set_index("id").loc["odd"]
        assert not scene["taken"]
        assert reason in scene["reason"]
        (warning,) = report.sources[2022]["2022"]["warnings"]
        assert reason in warning
        assert "(odd)" in warning

    def test_a_scene_without_a_time_is_named_as_refused(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("good", "2022-07-11T10:50:00Z", 900)
        region.add_sentinel2("timeless", "2022-07-01T10:50:00Z", 3000)
        region.sentinel2[-1]["properties"]["datetime"] = None
        season, report = built(region.recipe(), tmp_path / "store")
        assert (season.s2.sel(month=7)[:, 0] == 900).all()
        scene = read_index(tmp_path / "store", "scenes").set_index("id").loc["timeless"]
        assert not scene["taken"]
        assert pd.isna(scene["time"])
        assert scene["reason"] == "it has no time of acquisition"
        assert "timeless" in report.sources[2022]["2022"]["warnings"][0]

    def test_one_that_shares_its_id_with_another_scene_is_named_too(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("scene", "2022-07-01T10:50:00Z", 900)
        region.add_sentinel2("lost", "2022-07-01T10:50:00Z", 900)
        region.sentinel2[-1] |= {"id": "scene", "geometry": None}
        del region.sentinel2[-1]["properties"]["grid:code"]
        season, report = built(region.recipe(), tmp_path / "store")
        assert (season.s2.sel(month=7)[:, 0] == 900).all()
        scenes = read_index(tmp_path / "store", "scenes").set_index("id")
        assert scenes["taken"].to_dict() == {"scene": True, "scene~2": False}
        assert "give the position of its pixels (scene~2)" in report.sources[2022]["2022"]["warnings"][0]

    def test_when_only_such_scenes_are_there_they_are_named(self, region: TinyRegion) -> None:
        region.add_sentinel2("lost", "2022-07-01T10:50:00Z", 3000)
        region.sentinel2[-1]["geometry"] = None
        del region.sentinel2[-1]["properties"]["grid:code"]
        with pytest.raises(PlanError, match=r"(?s)has no scenes of collection.*lost: it has no footprint"):
            make_plan(region.recipe(), 2022)


def test_properties_of_mixed_types_are_read(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("a", "2022-07-01T10:50:00Z", 1000)
    region.sentinel2[-1]["properties"] |= {"eo:cloud_cover": "12.5", "proj:epsg": None, "x": [1, "a"], "created": "now"}
    region.sentinel2[-1]["assets"]["blue"]["raster:bands"] = [{"offset": -0.1}]
    region.add_sentinel2("b", "2022-07-11T10:50:00Z", 3000)
    region.sentinel2[-1]["properties"] |= {"eo:cloud_cover": "97", "x": {"y": 1}, "created": "2022-07-12T00:00:00Z"}
    region.sentinel2[-1]["assets"]["blue"]["raster:bands"] = [{"offset": "-0.1", "scale": None}]
    region.add_sentinel2("c", "2022-07-21T10:50:00Z", 5000)
    region.sentinel2[-1]["properties"] |= {"eo:cloud_cover": "cloudy"}
    recipe = region.recipe(sentinel2={"max_cloud_cover": 50, "gaps": "record"})
    season, _ = built(recipe, tmp_path / "store")
    assert (season.s2.sel(month=7)[:, 0] == 1000).all()
    scenes = read_index(tmp_path / "store", "scenes").set_index("id")
    assert scenes["taken"].to_dict() == {"a": True, "b": False, "c": False}
    assert "97 % is above" in scenes.loc["b", "reason"]
    assert "eo:cloud_cover is 'cloudy', expected a number" in scenes.loc["c", "reason"]
    with pytest.raises(PlanError, match=r"  c: eo:cloud_cover is 'cloudy'"):
        make_plan(region.recipe(sentinel2={"max_cloud_cover": 50}), 2022)


class TestWhatItemsSayOfTheirFiles:
    """The files are used; where an item says something else, the release says so to everyone who looks."""

    @pytest.mark.parametrize(
        ("lie", "told"),
        [
            ({"proj:code": "EPSG:32632"}, "`proj:code` says EPSG:32632, the file has EPSG:32631"),
            ({"proj:epsg": "32632"}, "`proj:epsg` says EPSG:32632, the file has EPSG:32631"),
            ({"proj:code": "EPSG:999999"}, "`proj:code` says EPSG:999999, the file has EPSG:32631"),
            ({"proj:shape": [10980, 10980]}, "`proj:shape` says 10980 10980, the file has 60 60"),
            (
                {"proj:transform": [10, 0, WEST, 0, -10, NORTH, 0, 0, 1]},
                f"`proj:transform` says 10 0 {WEST} 0 -10 {NORTH}, the file has 10 0 {WEST - 60} 0 -10 {NORTH + 60}",
            ),
            (
                {"proj:bbox": [WEST - 60, SOUTH, EAST, NORTH + 60]},
                f"`proj:bbox` says {WEST - 60} {SOUTH} {EAST} {NORTH + 60}, "
                f"the file has {WEST - 60} {SOUTH - 60} {EAST + 60} {NORTH + 60}",
            ),
            ({"raster:bands": [{"data_type": "int16"}]}, "`data_type` says int16, the file has uint16"),
            ({"data_type": "uint8"}, "`data_type` says uint8, the file has uint16"),
            ({"bands": [{"nodata": 65535}]}, "`nodata` says 65535, the file has 0"),
            ({"raster:bands": [{"nodata": "nan"}]}, "`nodata` says nan, the file has 0"),
        ],
    )
    def test_each_statement_is_held_against_the_file(
        self, region: TinyRegion, tmp_path: Path, lie: dict[str, Any], told: str
    ) -> None:
        region.add_sentinel2("odd", "2022-07-01T10:50:00Z", 900)
        region.sentinel2[-1]["assets"]["nir"] |= lie
        season, report = built(region.recipe(), tmp_path / "store")
        assert (season.s2.sel(month=7) == np.array([900, 901, 902])[:, None, None]).all()
        assert report.differences == [f"odd: {told} (nir)"]
        named = read_index(tmp_path / "store", "samples-2022")["s2_differences"]
        assert [list(texts) for texts in named] == [report.differences] * 4
        sheet = (tmp_path / "store/DATASHEET.md").read_text()
        line = next(line for line in sheet.splitlines() if "Items that contradict their files" in line)
        assert "(the files were used): 1, over 4 samples: odd: " in line
        (finding,) = validate_store(tmp_path / "store").findings
        assert (finding.severity, finding.check) == ("warning", "provenance")
        assert report.differences[0] in finding.what

    def test_the_command_says_it(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("odd", "2022-07-01T10:50:00Z", 900)
        region.sentinel2[-1]["properties"]["proj:epsg"] = 32632
        region.recipe()
        asked = ["build", str(region.folder / "recipe.yaml"), "--out", str(tmp_path / "store")]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 0, done.output
        assert "1 item(s) contradict their files; the files were used:" in done.output
        assert "odd: `proj:epsg` says EPSG:32632, the file has EPSG:32631 (blue, nir, scl, swir16)" in done.output

    def test_what_is_stated_truly_or_not_at_all_is_no_difference(self, region: TinyRegion, tmp_path: Path) -> None:
        region.add_sentinel2("plain", "2022-07-01T10:50:00Z", 900)
        region.add_sentinel2("true", "2022-07-11T10:50:00Z", 900)
        item = region.sentinel2[-1]
        item["properties"]["proj:epsg"] = 32631
        for key, asset in item["assets"].items():
            with rasterio.open(region.folder / asset["href"]) as raster:
                asset |= {"proj:code": "EPSG:32631", "proj:shape": list(raster.shape), "proj:bbox": list(raster.bounds)}
                asset["proj:transform"] = list(raster.transform)
                asset["raster:bands"] = [{"data_type": raster.dtypes[0], "nodata": "0", "offset": None}]
                if key != "scl":
                    asset["raster:bands"][0] |= {"scale": 0.0001}
        region.add_sentinel2("unreadable", "2022-07-21T10:50:00Z", 900)
        region.sentinel2[-1]["assets"]["nir"] |= {"proj:shape": "wide", "proj:transform": [1, 2], "nodata": "no"}
        # Of one resolution, and of the same ground as all files.
        region.sentinel2[-1]["properties"] |= {
            "proj:shape": [10, 10],
            "proj:transform": [60, 0, WEST - 60, 0, -60, NORTH + 60],
        }
        _, report = built(region.recipe(), tmp_path / "store")
        assert report.differences == []
        assert "s2_differences" not in read_index(tmp_path / "store", "samples-2022")
        assert "Items that contradict their files" not in (tmp_path / "store/DATASHEET.md").read_text()

    def test_a_scale_that_both_state_and_both_of_which_are_usual(self, region: TinyRegion, tmp_path: Path) -> None:
        folder = region.add_sentinel2("odd", "2022-07-01T10:50:00Z", 900)
        region.sentinel2[-1]["assets"]["nir"]["raster:bands"] = [{"scale": 1, "offset": 0}]
        with rasterio.open(folder / "nir.tif", "r+") as raster:
            raster.scales = (0.0001,)
        recipe = region.recipe(sentinel2={"offset": -1000})
        season, report = built(recipe, tmp_path / "store")
        assert (season.s2.sel(month=7, s2_band="B08") == 901).all()
        assert report.differences == ["odd: `scale` says 1, the file has 0.0001 (nir)"]

    @pytest.mark.parametrize("masked", ["by classes", "by masks of tiles"])
    def test_a_scene_whose_files_lie_elsewhere_does_not_vanish_in_silence(
        self, region: TinyRegion, tmp_path: Path, masked: str
    ) -> None:
        region.add_sentinel2("good", "2022-07-11T10:50:00Z", 900)
        folder = region.add_sentinel2("away", "2022-07-01T10:50:00Z", 3000)
        region.sentinel2[-1]["properties"]["proj:epsg"] = 32631
        for path in folder.glob("*.tif"):
            rewrite(path, crs="EPSG:32637")
        changes = {} if masked == "by classes" else {"clouds": {**CLASSES_ALONE, "dilation": 20}}
        season, report = built(region.recipe(sentinel2=changes), tmp_path / "store")
        assert (season.s2.sel(month=7)[:, 0] == 900).all()
        assert (season.s2_clear.sel(month=7) == 1).all()
        assert report.differences == ["away: `proj:epsg` says EPSG:32631, the file has EPSG:32637 (scl)"]


class TestAcquisitions:
    def test_two_items_of_one_id_are_two_items(self, region: TinyRegion, tmp_path: Path) -> None:
        began = {"datatake": "20220510T105031"}
        middle = WEST + 240
        region.add_sentinel2("west", "2022-05-10T10:50:41Z", 500, east=middle, **began)
        region.add_sentinel2("east", "2022-05-10T10:50:45Z", 1500, west=middle, **began)
        for item in region.sentinel2:
            item["id"] = "S2A_MSIL2A_20220510T105031_R051_T31UDS"
        season, report = built(region.recipe(), tmp_path / "store")
        may, west = season.sel(month=5), in_west(season)
        assert (may.s2.values[west][:, 0] == 500).all()
        assert (may.s2.values[~west][:, 0] == 1500).all()
        assert (may.s2_clear == 1).all()
        scenes = read_index(tmp_path / "store", "scenes")
        name = "S2A_MSIL2A_20220510T105031_R051_T31UDS"
        assert sorted(scenes.loc[scenes["taken"], "id"]) == [name, f"{name}~2"]
        assert f"the catalog gives the id {name} to another item too" in report.sources[2022]["2022"]["warnings"][0]

    def test_granules_with_footprints_of_the_whole_tile_each_give_what_they_have(
        self, region: TinyRegion, tmp_path: Path
    ) -> None:
        """Two datastrips of a tile, each with data on one half, both with the footprint of all of it."""
        for name, reflectance, east_empty in (("a", 500, True), ("b", 1500, False)):
            folder = region.add_sentinel2(name, "2022-05-10T10:50:41Z", reflectance, datatake="20220510T105031")
            for path in folder.glob("*.tif"):
                rewrite(path, lambda pixels, flip=east_empty: west_half(pixels[..., :: -1 if flip else 1], 0))
                if east_empty:
                    rewrite(path, lambda pixels: np.ascontiguousarray(pixels[..., ::-1]))
        season, report = built(region.recipe(), tmp_path / "store")
        may, west = season.sel(month=5), in_west(season)
        assert (may.s2.values[west][:, 0] == 500).all()
        assert (may.s2.values[~west][:, 0] == 1500).all()
        assert (may.s2_clear == 1).all()
        assert "no datastrip proves that it shows the same ground" in report.sources[2022]["2022"]["warnings"][0]

    def test_an_older_granule_never_replaces_the_clouds_of_the_newest(self, region: TinyRegion, tmp_path: Path) -> None:
        cloudy = np.full(SCL_SHAPE, 4, np.uint8)
        cloudy[: SCL_SHAPE[0] // 2] = 9
        region.add_sentinel2("new", "2022-05-10T10:50:41Z", 500, datatake="20220510T105031", scl=cloudy)
        region.add_sentinel2("old", "2022-05-10T10:50:41Z", 700, datatake="20220510T105031", baseline="04.00")
        season, _ = built(region.recipe(), tmp_path / "store")
        may, north = season.sel(month=5), season.y0.values > SOUTH + 240
        assert (may.s2_clear.values[north] == 0).all()
        assert (may.s2.values[~north][:, 0] == 500).all()

    def test_an_older_granule_stands_in_for_a_newest_that_is_left_out(self, region: TinyRegion) -> None:
        """Then it fills nothing, and nothing of the kind is said."""
        region.add_sentinel2("new", "2022-05-10T10:50:41Z", datatake="20220510T105031", cloud_cover=90)
        region.add_sentinel2("old", "2022-05-10T10:50:41Z", datatake="20220510T105031", baseline="04.00")
        plan = make_plan(region.recipe(sentinel2={"max_cloud_cover": 50}), 2022)
        assert [(scene.id, scene.taken, scene.warning) for scene in plan.scenes] == [
            ("new", False, ""),
            ("old", True, ""),
        ]

    def test_what_was_retracted_by_an_id_does_not_come_back_as_its_twin(
        self, region: TinyRegion, tmp_path: Path
    ) -> None:
        """Which of two items of one id is the first depends on the ground that is searched."""
        began = {"datatake": "20220510T105031"}
        middle = WEST + 240
        region.add_sentinel2("west", "2022-05-10T10:50:41Z", 500, east=middle - 10, **began)
        region.add_sentinel2("east", "2022-05-10T10:50:45Z", 1500, west=middle + 10, **began)
        region.add_sentinel2("other", "2022-06-10T10:50:45Z", 900)
        for item in region.sentinel2[:2]:
            item["id"] = "S2A_X"
        east = region.recipe(area={"bbox": [middle, SOUTH, EAST, NORTH]})
        build_store(east, tmp_path / "store", workers=1)
        retract_from_store(tmp_path / "store", {}, ["S2A_X"], "wrong by a pixel")
        report = build_store(region.recipe(), tmp_path / "store", extend=True, workers=1)
        season = h2crop_data.open(tmp_path / "store", 2022).load()
        assert season.sizes["sample"] == 4
        assert (season.s2_clear.sel(month=5) == 0).all()
        told = [line for facts in report.sources[2022].values() for line in facts["warnings"]]
        assert any("a scene of the same id was retracted: wrong by a pixel" in line for line in told)

    def test_two_strips_proved_by_their_names_are_both_kept(self, region: TinyRegion) -> None:
        for name, strip in (("a", "20220510T105031"), ("b", "20220510T105231")):
            region.add_sentinel2(name, "2022-05-10T10:50:41Z", 500, datatake="20220510T105031", strip=strip)
        plan = make_plan(region.recipe(), 2022)
        assert [item.id for item in plan.pinned["sentinel2"].items] == ["a", "b"]

    def test_a_datatake_over_midnight_is_one_look(self, region: TinyRegion, tmp_path: Path) -> None:
        """Of the year's last day too: what was seen after its midnight belongs to the season in which it began."""
        datatake = "20220731T234900"
        region.add_sentinel2("before", "2022-07-31T23:59:50Z", 500, datatake=datatake, tile="01KAB")
        region.add_sentinel2("after", "2022-08-01T00:00:05Z", 500, datatake=datatake, tile="01KAC")
        region.add_sentinel2("new year", "2022-01-01T00:10:05Z", 700, datatake="20211231T235500")
        season, _ = built(region.recipe(), tmp_path / "store")
        assert (season.s2_clear.sel(month=7) == 1).all()
        assert (season.s2_day.sel(month=7) == 212).all()
        assert (season.s2_clear.sel(month=8) == 0).all()
        assert (season.s2_clear.sel(month=1) == 0).all()
        assert (season.s2_clear.sel(month=12) == 0).all()
        before, _ = built(region.recipe(seasons=[2021]), tmp_path / "before", 2021)
        assert (before.s2_day.sel(month=12) == 365).all()
        assert (before.s2.sel(month=12)[:, 0] == 700).all()

    def test_a_month_whose_only_look_began_in_the_month_before_is_told_as_empty(self, region: TinyRegion) -> None:
        region.add_sentinel2("before", "2022-07-31T23:59:50Z", 500, datatake="20220731T234900")
        region.add_sentinel2("after", "2022-08-01T00:00:05Z", 500, datatake="20220731T234900", tile="01KAC")
        empty = estimate(make_plan(region.recipe(), 2022)).months_without_scenes
        assert empty == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]

    @pytest.mark.parametrize(
        ("first", "second", "platforms", "looks"),
        [
            ("2022-07-31T23:55:00Z", "2022-08-01T00:20:00Z", ("sentinel-2a", "Sentinel-2A"), 1),
            ("2022-07-31T23:30:00Z", "2022-07-31T23:58:00Z", ("sentinel-2a", "sentinel-2a"), 1),
            ("2022-07-31T10:00:00Z", "2022-07-31T11:40:00Z", ("sentinel-2a", "sentinel-2a"), 2),
            ("2022-07-31T10:00:00Z", "2022-07-31T10:10:00Z", ("sentinel-2a", "sentinel-2b"), 2),
        ],
        ids=["over midnight", "half an hour", "the next orbit", "another satellite"],
    )
    def test_where_no_datatake_is_named_time_and_satellite_tell(
        self, region: TinyRegion, tmp_path: Path, first: str, second: str, platforms: tuple[str, str], looks: int
    ) -> None:
        region.add_sentinel2("one", first, 500)
        region.add_sentinel2("two", second, 500, tile="31UES")
        for item, platform in zip(region.sentinel2, platforms, strict=True):
            item["properties"]["platform"] = platform
        season, _ = built(region.recipe(), tmp_path / "store")
        assert (season.s2_clear.sel(month=7) == looks).all()
        assert (season.s2_clear.sel(month=8) == 0).all()


class TestOffsets:
    def test_a_declared_offset_that_an_item_contradicts_is_told_everywhere(
        self, region: TinyRegion, tmp_path: Path
    ) -> None:
        region.add_sentinel2("old", "2022-06-01T10:50:00Z", 900, baseline="03.01", offset=0)
        region.add_sentinel2("new", "2022-07-01T10:50:00Z", 900, baseline="05.00", offset=1000)
        recipe = region.recipe(sentinel2={"offset": 0})
        told = "`sentinel2.offset: 0` is declared, the item says -1000 (baseline 05.00) (new)"
        (warning,) = estimate(make_plan(recipe, 2022)).sources["warnings"]
        assert told in warning
        shown = CliRunner().invoke(app, ["plan", str(region.folder / "recipe.yaml"), "--out", str(tmp_path / "plan")])
        assert told in shown.output
        _, report = built(recipe, tmp_path / "store")
        assert told in report.sources[2022]["2022"]["warnings"][0]
        shown = CliRunner().invoke(app, ["build", str(tmp_path / "plan"), "--out", str(tmp_path / "other"), "--json"])
        assert told in json.loads(shown.stdout)["sources"]["2022"]["2022"]["warnings"][0]
        assert "is declared, the item says -1000" in (tmp_path / "store/DATASHEET.md").read_text()
        assert told in read_index_json(tmp_path / "store", "sources")["2022"]["2022"]["warnings"][0]
        scenes = read_index(tmp_path / "store", "scenes").set_index("id")["warning"]
        assert scenes["old"] == ""
        assert "the item says -1000" in scenes["new"]

    @pytest.mark.parametrize("odd", ["nir", "swir16"])
    def test_every_band_says_what_its_offset_is(self, region: TinyRegion, odd: str) -> None:
        region.add_sentinel2("scene", "2022-07-01T10:50:00Z", 900)
        for key in BANDS.values():
            region.sentinel2[-1]["assets"][key]["raster:bands"] = [{"offset": 0 if key == odd else -0.1}]
        band = {"nir": "B08", "swir16": "B11"}[odd]
        with pytest.raises(PlanError, match=rf"scene: contradiction: .* gives offset -1000, those of {band} say 0"):
            make_plan(region.recipe(), 2022)

    def test_an_offset_said_to_be_removed_is_not_believed_of_jpeg_2000(
        self, region: TinyRegion, tmp_path: Path
    ) -> None:
        folder = region.add_sentinel2("esa", "2022-05-10T10:50:00Z", 1500)
        region.add_sentinel2("cog", "2022-06-10T10:50:00Z", 1500, offset=0)
        for item in region.sentinel2:
            item["properties"]["earthsearch:boa_offset_applied"] = True
        for key in BANDS.values():
            with rasterio.open(folder / f"{key}.tif") as raster:
                pixels, profile = raster.read(), raster.profile
            options = {"QUALITY": "100", "REVERSIBLE": "YES"}
            kept = {name: profile[name] for name in ("width", "height", "count", "dtype", "crs", "transform")}
            with rasterio.open(folder / f"{key}.jp2", "w", driver="JP2OpenJPEG", **kept, **options) as raster:
                raster.write(pixels)
            region.sentinel2[0]["assets"][key]["href"] = f"./sentinel2/esa/{key}.jp2"
        season, _ = built(region.recipe(), tmp_path / "store")
        for month in (5, 6):
            assert (season.s2.sel(month=month)[:, 0] == 1500).all()


class TestEnmapLayers:
    @pytest.mark.parametrize("layer", ["CLASSES.TIF", "CLOUD.TIF", "PIXELMASK.TIF"])
    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            ("another zone", "has another CRS than the image"),
            ("rotated", "is rotated against north"),
            ("elsewhere", "does not overlap the image"),
            ("without CRS", "has no CRS"),
        ],
    )
    def test_a_layer_that_cannot_be_placed_is_refused(
        self, region: TinyRegion, layer: str, fault: str, told: str
    ) -> None:
        name = region.add_enmap()
        folder = region.folder / "enmap" / name
        with rasterio.open(folder / "SPECTRAL_IMAGE.TIF") as image:
            profile = {**image.profile, "dtype": "uint8", "nodata": 255}
            with rasterio.open(folder / "PIXELMASK.TIF", "w", **profile) as mask:
                mask.write(np.zeros((image.count, *image.shape), np.uint8))
        region.enmap[-1]["assets"]["defective_pixel_mask"] = {"href": f"./enmap/{name}/PIXELMASK.TIF"}
        assert len(make_plan(region.recipe(), 2022).pinned["enmap"].items) == 1
        path = folder / layer
        if fault == "another zone":
            rewrite(path, crs="EPSG:32632")
        elif fault == "rotated":
            rewrite(path, transform=Affine(30, 1, WEST - 45, 1, -30, NORTH + 45))
        elif fault == "elsewhere":
            rewrite(path, transform=Affine(30, 0, WEST + 90_000, 0, -30, NORTH + 45))
        else:
            rewrite(path, crs=None)
        with pytest.raises(PlanError, match=rf"{layer} {told}"):
            make_plan(region.recipe(), 2022)

    def test_a_scene_without_cloud_layer_is_refused_unless_the_recipe_takes_it(
        self, region: TinyRegion, tmp_path: Path
    ) -> None:
        name = region.add_enmap()
        del region.enmap[-1]["assets"]["quality_cloud"]
        with pytest.raises(PlanError, match=r"no asset `quality_cloud`.*`enmap.cloud_layer: optional`"):
            make_plan(region.recipe(), 2022)
        _, report = built(region.recipe(enmap={"cloud_layer": "optional"}), tmp_path / "store")
        told = f"it has no asset `quality_cloud`: its clouds are not flagged ({name})"
        assert told in report.sources[2022]["2022"]["warnings"][0]
        assert "its clouds are not flagged" in (tmp_path / "store/DATASHEET.md").read_text()
        samples = read_index(tmp_path / "store", "samples-2022")
        assert samples["enmap_cloud_share"].isna().all(), "no layer never means no cloud"
        assert samples["enmap_flagged_share"].isna().all()
        assert all("quality_cloud" in missing for missing in samples["enmap_layers_missing"])

    def test_a_layer_ten_pixels_off_flags_the_right_ground(self, region: TinyRegion, tmp_path: Path) -> None:
        """Its clouds lie on the same ground of the store as those of a layer on the image's grid."""
        rng = np.random.default_rng(5)
        shape = (round((NORTH - SOUTH + 90) / 30), round((EAST - WEST + 90) / 30))
        clouds = rng.random(shape) < 0.02
        name = region.add_enmap(cloud=clouds)
        wanted, _ = built(region.recipe(enmap={"max_flagged_share": 1}), tmp_path / "same grid")
        larger = np.pad(clouds, 10).astype(np.uint8)[None]
        moved = Affine(30, 0, WEST - 45 - 300, 0, -30, NORTH + 45 + 300)
        path = region.folder / "enmap" / name / "CLOUD.TIF"
        rewrite(path, lambda _: larger[:, :-5, :-3], transform=moved)
        found, _ = built(region.recipe(enmap={"max_flagged_share": 1}), tmp_path / "own grid")
        assert (wanted.enmap_quality.values & 4).any()
        assert found.sample.values.tolist() == wanted.sample.values.tolist()
        assert (found.enmap_quality.values == wanted.enmap_quality.values).all()
        # Cut where cells lie: they are no samples, and the plan says why.
        rewrite(path, lambda pixels: pixels[:, :20], transform=moved)
        plan = make_plan(region.recipe(enmap={"max_flagged_share": 1}), 2022)
        assert 0 < len(plan.samples) < len(found.sample)
        assert (plan.samples["y0"] == NORTH).all()
        assert "its layer `quality_cloud` has another grid than the image" in plan.scenes[0].warning
        rewrite(path, lambda pixels: pixels[:, :18], transform=moved)
        with pytest.raises(PlanError, match="no cell of the area lies inside it"):
            make_plan(region.recipe(enmap={"max_flagged_share": 1}), 2022)

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            (
                "<GainOfBand>0.0001<",
                "<GainOfBand>0.01<",
                r"band 1 has gain 0\.01 and offset 0, which does not give reflectance",
            ),
            ("<OffsetOfBand>0<", "<OffsetOfBand>0.5<", r"band 1 has gain 0\.0001 and offset 0\.5"),
            (
                "<bandChar",
                "<backgroundValue>0</backgroundValue><bandChar",
                "expected the nodata value 0, as in METADATA.XML",
            ),
            ("</bandChar", f"{FIFTH_BAND}</bandChar", r"SPECTRAL_IMAGE\.TIF has 4 bands, METADATA.XML lists 5"),
        ],
    )
    def test_metadata_that_do_not_fit_the_image_are_refused_by_name(
        self, region: TinyRegion, old: str, new: str, told: str
    ) -> None:
        name = region.add_enmap()
        path = region.folder / "enmap" / name / "METADATA.XML"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(PlanError, match=told):
            make_plan(region.recipe(), 2022)

    def test_numbers_that_are_no_reflectance_are_refused_by_name(self, region: TinyRegion) -> None:
        name = region.add_enmap(value=20000)
        path = region.folder / "enmap" / name / "METADATA.XML"
        path.write_text(path.read_text(encoding="utf-8").replace("0.0001<", "0.001<"), encoding="utf-8")
        with pytest.raises(PlanError, match=r"expected a median reflectance of .*, got 20"):
            make_plan(region.recipe(), 2022)

    def test_the_number_of_nodata_comes_from_metadata_where_the_file_has_none(
        self, region: TinyRegion, tmp_path: Path
    ) -> None:
        name = region.add_enmap()
        folder = region.folder / "enmap" / name
        text = (folder / "METADATA.XML").read_text(encoding="utf-8")
        stated = text.replace("<bandChar", "<backgroundValue>-7</backgroundValue><bandChar")
        (folder / "METADATA.XML").write_text(stated, encoding="utf-8")

        def with_gap(pixels: NDArray[Any]) -> NDArray[Any]:
            pixels[2, 10:12, 10:12] = -7
            return pixels

        rewrite(folder / "SPECTRAL_IMAGE.TIF", with_gap, nodata=None)
        season, _ = built(region.recipe(), tmp_path / "store")
        assert (season.enmap == -32768).any()
        assert not ((season.enmap > -32768) & (season.enmap < 100)).any()

    @pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int32])
    def test_an_image_of_other_numbers_is_refused_by_name(self, region: TinyRegion, dtype: Any) -> None:
        name = region.add_enmap()
        rewrite(region.folder / "enmap" / name / "SPECTRAL_IMAGE.TIF", lambda pixels: pixels.astype(dtype), nodata=0)
        with pytest.raises(PlanError, match=r"SPECTRAL_IMAGE\.TIF: expected int16, got \w+"):
            make_plan(region.recipe(), 2022)

    def test_an_image_without_crs_is_refused_by_name(self, region: TinyRegion) -> None:
        name = region.add_enmap()
        rewrite(region.folder / "enmap" / name / "SPECTRAL_IMAGE.TIF", crs=None)
        with pytest.raises(PlanError, match=r"SPECTRAL_IMAGE\.TIF has no CRS"):
            make_plan(region.recipe(), 2022)
