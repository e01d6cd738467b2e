"""Opening the files of scenes: local, over HTTP, on the grid they lie on and on others, and when reading fails."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from granule_reading import read_aligned, read_item
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.warp import reproject
from rasterio.windows import Window, from_bounds

from h2crop_data.catalog.access import (
    raster_geobox,
    read_text,
    read_window,
    retried,
)
from h2crop_data.errors import ReadError, SceneError
from h2crop_data.grid import geobox

#: Upper left corner of the rasters in zone 31, near the border to zone 32; a multiple of 60 m, as Sentinel-2's.
WEST, NORTH, SIDE = 699_960, 5_600_040, 4_800
PAGE = b"<!doctype html><html><body>Please sign in</body></html>"


def write_raster(path: Path, pixels: np.ndarray, size: float, west: float = WEST, north: float = NORTH) -> None:
    """A tiled GeoTIFF of (band, y, x) or (y, x) in zone 31, nodata 0."""
    bands = pixels[None] if pixels.ndim == 2 else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=bands.shape[1],
        width=bands.shape[2],
        count=len(bands),
        dtype=bands.dtype,
        crs="EPSG:32631",
        transform=Affine(size, 0, west, 0, -size, north),
        nodata=0,
        tiled=True,
        blockxsize=64,
        blockysize=64,
    ) as raster:
        raster.write(bands)


#: Asset -> pixel size in metres and dtype.
ASSETS: dict[str, tuple[int, Any]] = {
    "blue": (10, np.uint16),
    "nir": (10, np.uint16),
    "swir16": (20, np.uint16),
    "scl": (20, np.uint8),
}


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rasters of one scene, random numbers without 0 and without those that are none (from 64536 on)."""
    folder = tmp_path_factory.mktemp("scene")
    rng = np.random.default_rng(42)
    for name, (size, dtype) in ASSETS.items():
        high = 12 if dtype == np.uint8 else 64536
        write_raster(folder / f"{name}.tif", rng.integers(1, high, (SIDE // size, SIDE // size)).astype(dtype), size)
    return folder


def pixels_of(folder: Path, name: str) -> np.ndarray:
    """All pixels of an asset."""
    with rasterio.open(folder / f"{name}.tif") as raster:
        return raster.read(1)


def scene(base: str | Path, *, collection: str | None = "sentinel-2-l2a", **hrefs: str) -> pystac.Item:
    """The item of the scene with its files below a folder or URL."""
    outline = {"type": "Polygon", "coordinates": [[[5.8, 50.4], [6, 50.4], [6, 50.6], [5.8, 50.6], [5.8, 50.4]]]}
    moment = datetime(2022, 6, 15, 10, 46, tzinfo=UTC)
    item = pystac.Item(
        "S2B_31UGS_20220615", outline, [5.8, 50.4, 6, 50.6], moment, {"proj:epsg": 32631}, collection=collection
    )
    for name in ASSETS:
        href = hrefs.get(name, f"{base}/{name}.tif")
        item.add_asset(name, pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"]))
    return item


class FileServer:
    """Files of a folder over HTTP with byte ranges, after the failures set for them."""

    def __init__(self, folder: Path) -> None:
        #: What goes wrong with the next requests for a path, first to last: a status, a body sent as 200, or nothing.
        self.failures: dict[str, list[int | bytes | None]] = {}
        self.paths: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                server.paths.append(self.path)
                planned = server.failures.get(self.path)
                failure = planned.pop(0) if planned else None
                path = folder / self.path.lstrip("/")
                if isinstance(failure, int) or (failure is None and not path.is_file()):
                    self.reply(failure or 404, b"")
                elif failure is not None:
                    self.reply(200, failure, **{"Content-Type": "text/html"})
                else:
                    self.give(path.read_bytes())

            def give(self, content: bytes) -> None:
                wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if wanted is None:
                    self.reply(200, content, **{"Accept-Ranges": "bytes"})
                    return
                first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
                span = f"bytes {first}-{last}/{len(content)}"
                self.reply(206, content[first : last + 1], **{"Content-Range": span})

            def reply(self, status: int, content: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Tests run quietly."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def files(scene_folder: Path) -> Iterator[FileServer]:
    """The scene's folder over HTTP; a new server, and so new URLs, for every test, because GDAL caches by URL."""
    server = FileServer(scene_folder)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """URLs of other hosts that were asked for: whatever leaves this machine goes to a proxy that writes it down."""
    proxy = FileServer(tmp_path)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    yield proxy.paths
    proxy.close()
    assert proxy.paths == [], "a host outside this machine was asked"


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own tries follow at once, and GDAL makes none of its own below them."""
    monkeypatch.setenv("H2CROP_READ_PAUSES", "0,0,0")


@pytest.mark.usefixtures("no_pauses")
class TestRetried:
    @pytest.mark.parametrize("failures", [0, 1, 3])
    def test_a_remote_read_is_tried_after_each_pause(self, failures: int) -> None:
        errors: list[Exception] = [RasterioIOError("busy"), OSError("reset"), TimeoutError("late")][:failures]

        def read() -> str:
            if errors:
                raise errors.pop()
            return "pixels"

        assert retried(read, "a file", remote=True) == "pixels"

    @pytest.mark.parametrize(("remote", "tries"), [(True, 4), (False, 1)])
    def test_the_last_failure_is_an_error_that_names_the_file(self, remote: bool, tries: int) -> None:
        calls = []

        def read() -> None:
            calls.append(1)
            raise RasterioIOError("HTTP response code: 503")

        with pytest.raises(ReadError, match=r"cannot read S2B asset blue \(b\.tif\): HTTP response code: 503"):
            retried(read, "S2B asset blue (b.tif)", remote=remote)
        assert len(calls) == tries

    def test_other_errors_are_not_tried_again(self) -> None:
        calls = []

        def read() -> None:
            calls.append(1)
            raise ValueError("a bug")

        with pytest.raises(ValueError, match="a bug"):
            retried(read, "a file", remote=True)
        assert len(calls) == 1


class TestWhereAndWhat:
    """Files that lie askew, or nowhere, or hold something else than numbers."""

    #: 960 m of ground in the files' own zone.
    BOX = GeoBox((96, 96), Affine(10, 0, WEST + 960, 0, -10, NORTH - 960), "EPSG:32631")

    def changed(self, scene_folder: Path, tmp_path: Path, **profile: Any) -> pystac.Item:
        """The scene with one file written with another profile."""
        path = tmp_path / "blue.tif"
        with rasterio.open(scene_folder / "blue.tif") as raster:
            pixels, kept = raster.read(), {**raster.profile, **profile}
        with rasterio.open(path, "w", **{key: value for key, value in kept.items() if value is not None}) as raster:
            raster.write(pixels.astype(np.complex64) if kept["dtype"] == "complex_int16" else pixels)
        return scene(scene_folder, blue=str(path))

    def test_a_sheared_file_is_read_where_its_pixels_lie(self, scene_folder: Path, tmp_path: Path) -> None:
        """Also one that has the grid's pixel size and corner."""
        sheared = Affine(10, 0.5, WEST, 0.5, -10, NORTH)
        item = self.changed(scene_folder, tmp_path, transform=sheared)
        ((numbers,), _) = read_item(item, ["blue"], "scl", self.BOX, "nearest")
        columns, rows = np.meshgrid(np.arange(96) + 0.5, np.arange(96) + 0.5)
        column, row = ~sheared @ (self.BOX.affine @ (columns, rows))
        expected = pixels_of(scene_folder, "blue")[np.floor(row).astype(int), np.floor(column).astype(int)]
        # Pixels whose centre lies on an edge may fall to either side.
        assert (numbers == expected).mean() > 0.95

    def test_a_file_whose_rows_run_north_is_read_where_its_pixels_lie(self, scene_folder: Path, tmp_path: Path) -> None:
        item = self.changed(scene_folder, tmp_path, transform=Affine(10, 0, WEST, 0, 10, NORTH - SIDE))
        ((numbers,), _) = read_item(item, ["blue"], "scl", self.BOX, "nearest")
        assert (numbers == pixels_of(scene_folder, "blue")[::-1][96:192, 96:192]).all()

    @pytest.mark.parametrize(
        ("profile", "reason"),
        [
            ({"crs": None}, "has no CRS"),
            ({"crs": 'LOCAL_CS["barn",UNIT["metre",1]]'}, "has no CRS"),
            ({"transform": None}, "has no geotransform"),
            ({"transform": Affine(0, 0, WEST, 0, 0, NORTH)}, "has no geotransform"),
            (
                {"dtype": "complex_int16", "nodata": None},
                "expected integers of at most 16 bits, reflectance x 10000, got complex_int16",
            ),
        ],
        ids=["no CRS", "a local CRS", "no geotransform", "no pixel size", "complex numbers"],
    )
    @pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
    def test_a_file_that_lies_nowhere_or_holds_no_numbers_is_refused_by_name(
        self, scene_folder: Path, tmp_path: Path, profile: dict[str, Any], reason: str
    ) -> None:
        item = self.changed(scene_folder, tmp_path, **profile)
        for box in (self.BOX, geobox((WEST, NORTH - 960, WEST + 960, NORTH), 32632, 10)):
            with pytest.raises(SceneError, match=rf"S2B_31UGS_20220615 asset blue: .*blue\.tif:? {reason}"):
                read_item(item, ["blue"], "scl", box, "nearest")


class TestRasters:
    def test_a_window_and_bands_in_the_order_asked_for(self, tmp_path: Path) -> None:
        cube = np.random.default_rng(0).integers(1, 9000, (5, 40, 30)).astype(np.int16)
        write_raster(tmp_path / "cube.tif", cube, 30, 364_095, 649_365)
        values, nodata = read_window(str(tmp_path / "cube.tif"), Window(4, 7, 20, 10), [4, 1])
        assert (values == cube[[3, 0], 7:17, 4:24]).all()
        assert nodata == 0
        assert (read_window(str(tmp_path / "cube.tif"))[0] == cube).all()
        grid = raster_geobox(str(tmp_path / "cube.tif"))
        assert (grid.shape, grid.crs.to_epsg()) == ((40, 30), 32631)
        assert grid.affine == Affine(30, 0, 364_095, 0, -30, 649_365)

    def test_a_band_the_raster_does_not_have_is_an_error_that_names_it(self, scene_folder: Path) -> None:
        with pytest.raises(ReadError, match=r"blue\.tif: expected band 3, the file has 1 bands"):
            read_window(str(scene_folder / "blue.tif"), None, [1, 3])

    @pytest.mark.parametrize("read", [read_window, raster_geobox, read_text])
    def test_a_missing_local_file_is_an_error_at_once(self, read: Any, tmp_path: Path) -> None:
        with pytest.raises(ReadError, match=r"gone\.tif"):
            read(str(tmp_path / "gone.tif"))

    def test_over_http_only_the_file_itself_is_asked_for(self, files: FileServer, scene_folder: Path) -> None:
        """No sidecar files, no listing of the folder."""
        assert (read_window(f"{files.url}/blue.tif")[0][0] == pixels_of(scene_folder, "blue")).all()
        assert set(files.paths) == {"/blue.tif"}

    @pytest.mark.usefixtures("no_pauses")
    @pytest.mark.parametrize("failures", [[503], [503, 502, 429], [404], [PAGE, PAGE]])
    def test_a_failure_that_passes_is_no_failure(
        self, files: FileServer, scene_folder: Path, failures: list[int | bytes]
    ) -> None:
        """Each try asks the server anew: GDAL's cache of what failed is not believed."""
        files.failures["/blue.tif"] = list(failures)
        assert (read_window(f"{files.url}/blue.tif")[0][0] == pixels_of(scene_folder, "blue")).all()
        assert files.failures["/blue.tif"] == []

    @pytest.mark.usefixtures("no_pauses")
    def test_a_failure_for_ever_is_an_error_that_names_the_file(self, files: FileServer) -> None:
        files.failures["/blue.tif"] = [503] * 100
        with pytest.raises(ReadError, match=rf"{files.url}/blue\.tif.*503"):
            read_window(f"{files.url}/blue.tif")
        assert len(files.paths) >= 4
        files.failures.clear()
        assert read_window(f"{files.url}/blue.tif", Window(0, 0, 1, 1))[0].shape == (1, 1, 1), "nor is it remembered"

    @pytest.mark.usefixtures("no_pauses")
    def test_a_login_page_instead_of_a_raster_is_called_one(self, files: FileServer) -> None:
        files.failures["/blue.tif"] = [PAGE] * 100
        with pytest.raises(ReadError, match=rf"{files.url}/blue\.tif.*login page"):
            read_window(f"{files.url}/blue.tif")


class TestText:
    def test_local_and_remote_text_is_the_same(self, tmp_path: Path) -> None:
        (tmp_path / "METADATA.XML").write_text("<a>µm</a>", encoding="utf-8")
        server = FileServer(tmp_path)
        try:
            assert read_text(f"{server.url}/METADATA.XML") == read_text(str(tmp_path / "METADATA.XML")) == "<a>µm</a>"
        finally:
            server.close()

    @pytest.mark.usefixtures("no_pauses")
    def test_failing_twice_is_no_failure(self, tmp_path: Path) -> None:
        (tmp_path / "METADATA.XML").write_text("<a/>")
        server = FileServer(tmp_path)
        server.failures["/METADATA.XML"] = [503, 502]
        try:
            assert read_text(f"{server.url}/METADATA.XML") == "<a/>"
            with pytest.raises(ReadError, match=rf"{server.url}/none\.xml.*404"):
                read_text(f"{server.url}/none.xml")
        finally:
            server.close()


def fine_grid(column: int, row: int, width: int = 48, height: int = 36) -> GeoBox:
    """Pixels of 10 m, counted in 10 m from the scene's upper left corner."""
    west, north = WEST + 10 * column, NORTH - 10 * row
    return geobox((west, north - 10 * height, west + 10 * width, north), 32631, 10)


class TestAligned:
    @pytest.mark.parametrize(("column", "row"), [(0, 0), (7, 13), (60, 222), (432, 444)])
    def test_a_10_m_raster_is_read_as_it_is(self, scene_folder: Path, column: int, row: int) -> None:
        grid = fine_grid(column, row)
        with rasterio.open(scene_folder / "blue.tif") as raster:
            expected = raster.read(1, window=from_bounds(*grid.boundingbox.bbox, raster.transform))
        for resampling in ("nearest", "bilinear", "cubic"):
            values = read_aligned(str(scene_folder / "blue.tif"), grid, resampling)
            assert values is not None
            assert (values.dtype, values.shape) == (np.uint16, grid.shape)
            assert (values == expected).all()

    @pytest.mark.parametrize(("column", "row"), [(0, 0), (8, 14), (432, 444)])
    @pytest.mark.parametrize("name", ["swir16", "scl"])
    def test_a_20_m_raster_is_repeated_2_by_2(self, scene_folder: Path, name: str, column: int, row: int) -> None:
        grid = fine_grid(column, row)
        with rasterio.open(scene_folder / f"{name}.tif") as raster:
            coarse = raster.read(1, window=from_bounds(*grid.boundingbox.bbox, raster.transform))
        values = read_aligned(str(scene_folder / f"{name}.tif"), grid, "nearest")
        assert values is not None
        assert values.dtype == coarse.dtype
        assert (values == np.repeat(np.repeat(coarse, 2, axis=0), 2, axis=1)).all()

    @pytest.mark.parametrize(
        ("column", "row"),
        [(-10, -6), (460, 0), (0, 470), (-30, 470), (479, 479), (-1000, 0), (0, -36), (480, 480), (90_000, -90_000)],
    )
    @pytest.mark.parametrize("name", ["blue", "swir16"])
    def test_beyond_the_edge_is_nodata(self, scene_folder: Path, name: str, column: int, row: int) -> None:
        """Partly and wholly; an odd pixel splits a 20 m pixel."""
        grid = fine_grid(column, row)
        size = ASSETS[name][0] // 10
        values = read_aligned(str(scene_folder / f"{name}.tif"), grid, "nearest")
        if column % size or row % size:
            assert values is None
            return
        pixels = pixels_of(scene_folder, name).repeat(size, axis=0).repeat(size, axis=1)
        expected = np.zeros(grid.shape, pixels.dtype)
        for y in range(grid.shape[0]):
            for x in range(grid.shape[1]):
                if 0 <= row + y < 480 and 0 <= column + x < 480:
                    expected[y, x] = pixels[row + y, column + x]
        assert values is not None
        assert (values == expected).all()

    @pytest.mark.parametrize(
        ("name", "grid", "resampling"),
        [
            ("blue", geobox((WEST + 5, NORTH - 480, WEST + 485, NORTH), 32631, 10), "nearest"),
            ("blue", geobox((WEST, NORTH - 485, WEST + 480, NORTH - 5), 32631, 10), "nearest"),
            ("blue", geobox((WEST, NORTH - 480, WEST + 480, NORTH), 32632, 10), "nearest"),
            ("blue", geobox((WEST, NORTH - 480, WEST + 480, NORTH), 32631, 20), "nearest"),
            ("blue", geobox((WEST, NORTH - 480, WEST + 480, NORTH), 32631, 15), "nearest"),
            ("swir16", geobox((WEST, NORTH - 480, WEST + 480, NORTH), 32631, 15), "nearest"),
            ("swir16", fine_grid(1, 0), "nearest"),
            ("swir16", fine_grid(0, 1), "nearest"),
            ("swir16", fine_grid(0, 0, width=47), "nearest"),
            ("swir16", fine_grid(0, 0, height=35), "nearest"),
            ("swir16", fine_grid(0, 0), "bilinear"),
            ("swir16", fine_grid(0, 0), "cubic"),
        ],
    )
    def test_what_is_not_aligned_is_left_to_resampling(
        self, scene_folder: Path, name: str, grid: GeoBox, resampling: Any
    ) -> None:
        assert read_aligned(str(scene_folder / f"{name}.tif"), grid, resampling) is None


def other_zone_grid() -> GeoBox:
    """192 x 192 pixels of 10 m in zone 32 over the middle of the scene."""
    x, y = Transformer.from_crs(32631, 32632, always_xy=True).transform(WEST + SIDE / 2, NORTH - SIDE / 2)
    x, y = round(x / 60) * 60, round(y / 60) * 60
    return geobox((x - 960, y - 960, x + 960, y + 960), 32632, 10)


def warped(folder: Path, name: str, grid: GeoBox, resampling: Resampling) -> np.ndarray:
    """An asset on a grid by rasterio's own reprojection."""
    with rasterio.open(folder / f"{name}.tif") as raster:
        values = np.zeros(grid.shape, raster.dtypes[0])
        reproject(
            rasterio.band(raster, 1),
            values,
            dst_transform=grid.affine,
            dst_crs=str(grid.crs),
            dst_nodata=0,
            resampling=resampling,
        )
    return values


class TestSentinel2:
    keys = ("nir", "blue", "swir16")

    def test_the_scenes_own_zone(self, scene_folder: Path, files: FileServer) -> None:
        grid = fine_grid(48, 120, 96, 96)
        for base in (scene_folder, files.url):
            numbers, scl = read_item(scene(base), self.keys, "scl", grid, "nearest")
            assert [(band.shape, band.dtype) for band in numbers] == [((96, 96), np.uint16)] * 3
            assert (scl.shape, scl.dtype) == ((96, 96), np.uint8)
            for values, name in zip((*numbers, scl), (*self.keys, "scl"), strict=True):
                assert (values == read_aligned(str(scene_folder / f"{name}.tif"), grid, "nearest")).all()

    @pytest.mark.parametrize("collection", ["sentinel-2-l2a", None])
    @pytest.mark.parametrize("remote", [False, True])
    def test_another_zone_takes_the_nearest_pixel(
        self, scene_folder: Path, files: FileServer, remote: bool, collection: str | None
    ) -> None:
        grid = other_zone_grid()
        item = scene(files.url if remote else scene_folder, collection=collection)
        numbers, scl = read_item(item, self.keys, "scl", grid, "nearest")
        assert [(band.shape, band.dtype) for band in numbers] == [((192, 192), np.uint16)] * 3
        assert scl.dtype == np.uint8
        x = grid.affine.c + (np.arange(192) + 0.5) * 10
        y = grid.affine.f - (np.arange(192) + 0.5) * 10
        x, y = Transformer.from_crs(32632, 32631, always_xy=True).transform(*np.meshgrid(x, y))
        for values, name in zip((*numbers, scl), (*self.keys, "scl"), strict=True):
            assert (values == warped(scene_folder, name, grid, Resampling.nearest)).all()
            size = ASSETS[name][0]
            column, row = (x - WEST) / size, (NORTH - y) / size
            nearest = pixels_of(scene_folder, name)[np.floor(row).astype(int), np.floor(column).astype(int)]
            # A centre within a hundredth of a pixel of an edge may fall to either side.
            tie = (np.abs(column - np.round(column)) < 0.01) | (np.abs(row - np.round(row)) < 0.01)
            assert (values == nearest)[~tie].all()
            assert tie.mean() < 0.1

    @pytest.mark.parametrize(("resampling", "method"), [("bilinear", Resampling.bilinear), ("cubic", Resampling.cubic)])
    def test_resampling_of_the_recipe_is_for_bands_off_the_grid_never_for_classes(
        self, scene_folder: Path, resampling: Any, method: Resampling
    ) -> None:
        grid = fine_grid(48, 120, 96, 96)
        numbers, scl = read_item(scene(scene_folder), self.keys, "scl", grid, resampling)
        for values, name in zip((*numbers[:2], scl), ("nir", "blue", "scl"), strict=True):
            assert (values == read_aligned(str(scene_folder / f"{name}.tif"), grid, "nearest")).all()
        expected = warped(scene_folder, "swir16", grid, method)
        assert (numbers[2] == expected).all()
        assert (expected != read_aligned(str(scene_folder / "swir16.tif"), grid, "nearest")).mean() > 0.9

    def test_ground_the_scene_does_not_reach_is_nodata(self, scene_folder: Path) -> None:
        x, y = Transformer.from_crs(32631, 32632, always_xy=True).transform(WEST, NORTH)
        x, y = round(x / 60) * 60, round(y / 60) * 60
        for grid in (fine_grid(-96, -96, 96, 96), geobox((x - 3000, y + 600, x - 2040, y + 1560), 32632, 10)):
            numbers, scl = read_item(scene(scene_folder), self.keys, "scl", grid, "nearest")
            assert not np.any(numbers)
            assert not scl.any()

    @pytest.mark.usefixtures("no_pauses")
    @pytest.mark.parametrize("grid", [fine_grid(48, 120), other_zone_grid()], ids=["own zone", "other zone"])
    def test_an_asset_that_fails_and_then_works_is_no_failure(
        self, scene_folder: Path, files: FileServer, grid: GeoBox
    ) -> None:
        # Of scl.tif the header is read, then its pixels fail.
        files.failures = {"/swir16.tif": [503], "/scl.tif": [None, None, 502, 503, 502]}
        numbers, scl = read_item(scene(files.url), self.keys, "scl", grid, "nearest")
        expected, expected_scl = read_item(scene(scene_folder), self.keys, "scl", grid, "nearest")
        assert np.array_equal(numbers, expected)
        assert (scl == expected_scl).all()
        assert not any(files.failures.values())

    @pytest.mark.usefixtures("no_pauses")
    @pytest.mark.parametrize("failure", [503, PAGE], ids=["503", "login page"])
    @pytest.mark.parametrize("key", ["blue", "scl"])
    def test_an_asset_that_fails_is_an_error_that_names_item_asset_and_file(
        self, files: FileServer, key: str, failure: int | bytes
    ) -> None:
        files.failures[f"/{key}.tif"] = [failure] * 100
        message = rf"S2B_31UGS_20220615 asset {key} \({files.url}/{key}\.tif\)"
        with pytest.raises(ReadError, match=message):
            read_item(scene(files.url), self.keys, "scl", fine_grid(0, 0), "nearest")

    def test_a_missing_local_file_is_an_error_that_names_item_asset_and_file(self, scene_folder: Path) -> None:
        gone = str(scene_folder / "gone.tif")
        with pytest.raises(ReadError, match=rf"S2B_31UGS_20220615 asset nir \({gone}\)"):
            read_item(scene(scene_folder, nir=gone), self.keys, "scl", fine_grid(0, 0), "nearest")


@pytest.mark.usefixtures("no_pauses")
def test_the_proxy_sees_what_would_leave_this_machine(outside: list[str]) -> None:
    """So that its silence in all other tests means something."""
    for read in (read_window, read_text):
        with pytest.raises(ReadError, match=r"outside\.invalid"):
            read("http://outside.invalid/blue.tif")
        assert any("outside.invalid" in path for path in outside)
        outside.clear()
