"""One sample in its own grid: `open_sample`, rasters of rioxarray, and the GeoTIFFs of `h2crop export-sample`."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.shutil
import rioxarray  # noqa: F401 - registers `.rio`
import xarray as xr
from made_stores import CLASSES, EPSG, NORTH_WEST, MadeStore, make_store
from small_disk import mounted
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.constants import ENMAP_FLAGS, UNKNOWN
from h2crop_data.errors import StoreError, UsageError
from h2crop_data.grid import Cell
from h2crop_data.one_sample.geotiffs import write_geotiffs

STORES = Path(__file__).parents[1] / "stores"
#: The sample of the store that is looked at.
PLACE = 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """Two seasons, only to be read."""
    return make_store(tmp_path_factory.mktemp("one") / "store", seasons=(2021, 2022))


@pytest.fixture(scope="module")
def exported(made: MadeStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as GeoTIFFs."""
    folder = tmp_path_factory.mktemp("exported") / "sample"
    write_geotiffs(made.folder, sample_id(made), folder)
    return folder


def sample_id(made: MadeStore) -> str:
    return str(made.samples[2022]["sample"].iloc[PLACE])


def bounds(made: MadeStore) -> tuple[float, float, float, float]:
    """West, south, east, north of its ground."""
    return tuple(map(float, Cell.parse(made.samples[2022]["cell"].iloc[PLACE]).bounds))  # type: ignore[return-value]


# The dataset


def test_a_sample_has_values_in_a_grid_of_metres_and_dates(made: MadeStore) -> None:
    one = h2crop_data.open_sample(made.folder, sample_id(made))
    west, south, east, north = bounds(made)
    for x, y, size in (("x", "y", 10), ("x30", "y30", 30)):
        assert one[x].values.tolist() == np.arange(west + size / 2, east, size).tolist()
        assert one[y].values.tolist() == np.arange(north - size / 2, south, -size).tolist()
        assert (one[x].attrs["standard_name"], one[y].attrs["axis"]) == ("projection_x_coordinate", "Y")
    assert one["spatial_ref"].attrs["grid_mapping_name"] == "transverse_mercator"
    for name in ("s2", "enmap"):
        stored = made.arrays[2022][name][PLACE]
        assert one[name].dtype == np.float32
        np.testing.assert_allclose(one[name], np.where(stored == -32768, np.nan, stored / 10000), rtol=1e-6)
    for name in ("s2_clear", "s2_day", "enmap_quality", "label", "prior", "parcel"):
        np.testing.assert_array_equal(one[name], made.arrays[2022][name][PLACE])
    np.testing.assert_array_equal(one.s2.sel(month=7, s2_band="B08"), one.s2.sel(time="2022-07-01")[6])
    row = made.samples[2022].iloc[PLACE]
    assert {name: one.attrs[name] for name in ("sample", "cell", "split", "scene", "season", "release")} == {
        **row[["sample", "cell", "split", "scene"]].to_dict(),
        "season": 2022,
        "release": 1,
    }
    assert one.attrs["scene_time"] == "2022-07-01T10:30:00Z"
    stored_numbers = h2crop_data.open_sample(made.folder, sample_id(made), scaled=False)
    np.testing.assert_array_equal(stored_numbers.s2, made.arrays[2022]["s2"][PLACE])


def test_bands_are_found_by_wavelength(made: MadeStore) -> None:
    one = h2crop_data.open_sample(made.folder, sample_id(made))
    wavelengths = np.array(made.content.wavelengths)
    nearest = int(np.abs(wavelengths - 860).argmin())
    expected = made.arrays[2022]["enmap"][PLACE, nearest] / 10000
    seen = one.enmap.sel(wavelength=860, method="nearest")
    np.testing.assert_allclose(seen.values[:-1], expected[:-1], rtol=1e-6)
    assert float(seen.wavelength) == pytest.approx(wavelengths[nearest])
    assert float(seen.fwhm) == 6.5


def test_classes_have_their_names(made: MadeStore) -> None:
    every = h2crop_data.open_sample(made.folder, sample_id(made))
    names = CLASSES[3][NORTH_WEST[3]].replace(" ", "_")
    assert f"{NORTH_WEST[3]}={names} " in every.label.attrs["classes_tier4"]
    one = h2crop_data.open_sample(made.folder, sample_id(made), tier=4)
    np.testing.assert_array_equal(one.prior, made.arrays[2022]["prior"][PLACE, 3])
    named = dict(zip(one.label.attrs["flag_values"].tolist(), one.label.attrs["flag_meanings"].split(), strict=True))
    assert (named[NORTH_WEST[3]], named[0], named[UNKNOWN]) == (names, "not_declared", "unknown")
    assert int(one.tier) == 4


def test_flagged_pixels_are_masked_on_request(made: MadeStore) -> None:
    name = sample_id(made)
    plain, masked = (h2crop_data.open_sample(made.folder, name, mask=mask) for mask in ((), ("cloud", "water")))
    flagged = (made.arrays[2022]["enmap_quality"][PLACE] & (ENMAP_FLAGS["cloud"] | ENMAP_FLAGS["water"])) != 0
    assert flagged.any()
    assert not np.isnan(plain.enmap.values[:, flagged]).any()
    np.testing.assert_array_equal(np.isnan(masked.enmap), np.isnan(plain.enmap) | flagged)
    np.testing.assert_array_equal(masked.s2, plain.s2)
    assert masked.enmap.attrs == plain.enmap.attrs
    with pytest.raises(UsageError, match="unknown flag 'clouds' in mask; enmap_quality has outside, water, cloud"):
        h2crop_data.open_sample(made.folder, name, mask=("clouds",))
    with pytest.raises(UsageError, match="mask cannot be combined with scaled=False"):
        h2crop_data.open_sample(made.folder, name, mask=("cloud",), scaled=False)


def test_what_does_not_exist_is_refused(made: MadeStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no sample 'nowhere' in release 1; `h2crop inspect"):
        h2crop_data.open_sample(made.folder, "nowhere")
    with pytest.raises(UsageError, match="unknown tier 5; expected one of 1 to 4"):
        h2crop_data.open_sample(made.folder, sample_id(made), tier=5)
    # Fill instead of a sample that was asked for would be a wrong answer.
    partial = Path(shutil.copytree(made.folder, tmp_path / "partial"))
    (partial / "2022/s2/c.0.0.0.0.0").unlink()
    one = h2crop_data.open_sample(partial, sample_id(made))
    with pytest.raises(StoreError, match=r"c\.0\.0\.0\.0\.0 is missing; download or build this block again"):
        one.s2.load()
    with pytest.raises(StoreError, match="is missing"):
        write_geotiffs(partial, sample_id(made), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["partial"]


def test_other_tools_get_rasters_and_files(made: MadeStore, tmp_path: Path) -> None:
    one = h2crop_data.open_sample(made.folder, sample_id(made))
    for array, size in ((one.s2.sel(month=7), 10), (one.label, 10), (one.enmap, 30), (one.s2_clear[:, 6:, 6:], 10)):
        array.rio.to_raster(tmp_path / "raster.tif")
        with rasterio.open(tmp_path / "raster.tif") as raster:
            np.testing.assert_array_equal(raster.read(), array)
            assert raster.crs.to_epsg() == EPSG
            assert raster.transform.a == -raster.transform.e == size
            west, _, _, north = bounds(made)
            moved = 60 * (array.name == "s2_clear")
            assert (raster.transform.c, raster.transform.f) == (west + moved, north - moved)
            assert raster.nodata is None or np.isnan(raster.nodata)
    one.to_zarr(tmp_path / "one.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "one.zarr", consolidated=False, decode_coords="all").load()
    xr.testing.assert_equal(again, one.reset_coords(drop=False).set_coords(list(one.coords)).load())
    assert again.rio.crs.to_epsg() == EPSG


def test_a_sample_of_the_first_format(tmp_path: Path) -> None:
    with zipfile.ZipFile(STORES / "format-1.0.zip") as archive:
        archive.extractall(tmp_path / "first")
    season = h2crop_data.open(tmp_path / "first", 2022, scaled=True)
    one = h2crop_data.open_sample(tmp_path / "first", str(season.sample.values[0]))
    for name in ("s2", "enmap", "label"):
        np.testing.assert_array_equal(one[name], season[name][0])
    assert (float(one.x[0]), float(one.y[0])) == (float(season.x0[0]) + 5, float(season.y0[0]) - 5)
    assert "classes_tier4" in one.label.attrs


def test_a_sample_of_unknown_place_is_in_pixels(tmp_path: Path) -> None:
    with zipfile.ZipFile(STORES / "format-1.1-imported.zip") as archive:
        archive.extractall(tmp_path / "imported")
    season = h2crop_data.open(tmp_path / "imported", 2022)
    name = str(season.sample.values[np.isnan(season.x0.values)][0])
    one = h2crop_data.open_sample(tmp_path / "imported", name)
    assert not {"x", "y", "x30", "y30", "spatial_ref"} & set(one.coords)
    report = write_geotiffs(tmp_path / "imported", name, tmp_path / "out")
    assert not report.georeferenced
    assert "its place is not known: the files are in pixels" in (tmp_path / "out/README.txt").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "out/label_tier1.tif") as raster:
            assert raster.crs is None


# GeoTIFFs


def test_geotiffs_have_the_numbers_of_the_store_where_they_lie(made: MadeStore, exported: Path) -> None:
    arrays = {name: values[PLACE] for name, values in made.arrays[2022].items()}
    expected = {f"s2_2022-{month:02d}-01": arrays["s2"][month - 1] for month in range(1, 13)}
    expected |= {name: arrays[name] for name in ("s2_clear", "s2_day", "enmap")}
    expected |= {name: arrays[name][None] for name in ("enmap_quality", "parcel")}
    expected |= {f"{name}_tier{i + 1}": arrays[name][i][None] for name in ("label", "prior") for i in range(4)}
    assert {path.stem for path in exported.glob("*.tif")} == set(expected)
    for name, values in expected.items():
        with rasterio.open(exported / f"{name}.tif") as raster:
            np.testing.assert_array_equal(raster.read(), values)
            assert raster.crs.to_epsg() == EPSG
            assert tuple(raster.bounds) == bounds(made)
            reflectance = name.startswith("s2_2") or name == "enmap"
            assert raster.scales[0] == (0.0001 if reflectance else 1)
            nodata = -32768 if reflectance else 0 if name in ("parcel", "s2_day") else None
            assert raster.nodata == nodata


def test_parcels_of_the_index_lie_on_their_pixels(made: MadeStore, exported: Path) -> None:
    parcels = h2crop_data.read_index(made.folder, "parcels-2022").to_crs(EPSG)
    with rasterio.open(exported / "parcel.tif") as raster:
        shapes = zip(parcels.geometry, parcels["number"], strict=True)
        drawn = rasterio.features.rasterize(shapes, raster.shape, transform=raster.transform, dtype=np.uint32)
        np.testing.assert_array_equal(raster.read(1), drawn)


def test_bands_and_classes_are_described_for_gdal(made: MadeStore, exported: Path, tmp_path: Path) -> None:
    with rasterio.open(exported / "enmap.tif") as raster:
        centres = [float(raster.tags(i, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"]) for i in raster.indexes]
        assert centres == pytest.approx([nm / 1000 for nm in made.content.wavelengths])
        assert raster.tags(1, ns="IMAGERY")["FWHM_UM"] == "0.006500"
        assert raster.descriptions[0] == f"band 1 ({made.content.wavelengths[0]:.1f} nm)"
    with rasterio.open(exported / "s2_2022-07-01.tif") as raster:
        assert raster.descriptions[:2] == ("B02", "B03")
        assert "window 2022-07-01 to 2022-07-31" in raster.tags()["DESCRIPTION"]
    with rasterio.open(exported / "s2_clear.tif") as raster:
        assert raster.descriptions[1] == "2022-02-01 to 2022-02-28"
    with rasterio.open(exported / "enmap_quality.tif") as raster:
        assert raster.tags()["FLAGS"].startswith("1 outside, 2 water, 4 cloud,")
    # GDAL writes what it read of the file of names.
    rasterio.shutil.copy(exported / "label_tier4.tif", tmp_path / "copy.vrt", driver="VRT")
    band = ElementTree.parse(tmp_path / "copy.vrt").getroot().find("VRTRasterBand")
    assert band is not None
    names = [category.text or "" for category in band.iter("Category")]
    assert (names[0], names[UNKNOWN]) == ("not_declared", "unknown")
    assert {i: name for i, name in enumerate(names) if name and 0 < i < UNKNOWN} == CLASSES[3]
    with rasterio.open(exported / "label_tier4.tif") as raster:
        colours = raster.colormap(1)
    shown = {colours[number] for number in (0, *CLASSES[3], UNKNOWN)}
    assert len(shown) == len(CLASSES[3]) + 2


def test_the_folder_says_what_is_in_it(made: MadeStore, exported: Path) -> None:
    facts = json.loads((exported / "sample.json").read_text())
    assert (facts["sample"], facts["epsg"], facts["release"]) == (sample_id(made), EPSG, 1)
    assert {path.name for path in exported.glob("*.tif")} == set(facts["files"])
    assert "## Sources and licences" in (exported / "DATASHEET.md").read_text()
    assert all(name in (exported / "README.txt").read_text() for name in facts["files"])


def test_the_command_replaces_an_export_only_when_asked(made: MadeStore, tmp_path: Path) -> None:
    folder, name = tmp_path / "out", sample_id(made)
    command = ["export-sample", str(made.folder), name, str(folder)]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["sample"], report["season"], report["georeferenced"]) == (name, 2022, True)
    assert set(report["files"]) == {path.name for path in folder.iterdir() if path.suffix != ".xml"}
    (folder / "label_tier1.tif").write_bytes(b"changed")
    with pytest.raises(UsageError, match=r"has an exported sample; replace it with --force"):
        write_geotiffs(made.folder, name, folder)
    write_geotiffs(made.folder, name, folder, force=True)
    assert (folder / "label_tier1.tif").stat().st_size > 100
    other = tmp_path / "photos"
    other.mkdir()
    (other / "holiday.jpg").write_bytes(b"")
    for force in (False, True):
        with pytest.raises(UsageError, match="exists and is not an exported sample; choose another folder"):
            write_geotiffs(made.folder, name, other, force=force)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "photos"}


def test_a_full_disk_leaves_the_earlier_export(made: MadeStore, tmp_path: Path) -> None:
    with mounted(tmp_path / "small") as disk:
        write_geotiffs(made.folder, sample_id(made), disk / "out")
        before = {path.name: path.read_bytes() for path in (disk / "out").iterdir()}
        with pytest.raises(StoreError, match=r"cannot write .*/out: .*; nothing was exported"):
            write_geotiffs(made.folder, sample_id(made), disk / "out", force=True)
        assert {path.name: path.read_bytes() for path in (disk / "out").iterdir()} == before
        assert [path.name for path in disk.iterdir()] == ["out"]
