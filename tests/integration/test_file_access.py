"""Files as providers give them: signed right before each read, from buckets with keys, or not at all."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from download_server import COOKIE, PASSWORD, USER, Archive, archive_server
from lender_provider import lender_installed, without_accounts
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.windows import Window
from s3_server import BUCKET, Fault, Proxy, put_plainly, s3_proxy, s3_server
from signing_server import MARK, Lender, lending
from stac_items import item_of

from h2crop_data.catalog.access import load_placed, raster_geobox, read_beginning, read_text, read_window
from h2crop_data.catalog.accounts import s3_keys
from h2crop_data.catalog.file_access import access_to, connections_of
from h2crop_data.catalog.granule_reader import GranuleReader
from h2crop_data.errors import AccountError, ReadError
from h2crop_data.grid import geobox
from h2crop_data.redaction import has_secrets, redacted, without_secrets
from h2crop_data.settings import Archives

WEST, NORTH, SIDE = 699_960, 5_600_040, 512
KEY_ID, SECRET = "PLANTEDKEYID", "planted/secret+key"


@pytest.fixture(autouse=True)
def no_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No account of whoever runs the tests counts; gives the home that they have instead."""
    home = tmp_path / "home"
    without_accounts(monkeypatch, home)
    return home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A raster of random numbers, tiled, that GDAL reads with several requests; and a text."""
    folder = tmp_path / "files"
    folder.mkdir()
    numbers = np.random.default_rng(7).integers(1, 10_000, (SIDE, SIDE)).astype(np.uint16)
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 1, "dtype": "uint16", "crs": "EPSG:32631"}
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128, "nodata": 0}
    transform = Affine(10, 0, WEST, 0, -10, NORTH)
    with rasterio.open(folder / "B02.tif", "w", **profile, **tiles, transform=transform) as raster:
        raster.write(numbers, 1)
    (folder / "about.xml").write_text("<about><kind>ä</kind><more>of it</more></about>", encoding="utf-8")
    return folder


def pixels(folder: Path) -> np.ndarray:
    with rasterio.open(folder / "B02.tif") as raster:
        return raster.read(1)


def own_grid(row: int, column: int, side: int) -> GeoBox:
    """A square of the raster's own pixels."""
    west, north = WEST + 10 * column, NORTH - 10 * row
    return geobox((west, north - 10 * side, west + 10 * side, north), 32631, 10)


def in_zone_32() -> GeoBox:
    """A square in the middle of the raster in the other zone's grid."""
    to_32 = Transformer.from_crs("EPSG:32631", "EPSG:32632", always_xy=True)
    west, south = (round(value, -1) for value in to_32.transform(WEST + 2000, NORTH - 3000))
    return geobox((west, south, west + 600, south + 600), 32632, 10)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The package of the lender, once its place is known."""
    with lender_installed():
        yield monkeypatch


@pytest.fixture
def lender(folder: Path, installed: pytest.MonkeyPatch) -> Iterator[Lender]:
    with lending(folder) as archive:
        installed.setenv("LENDER_URL", archive.url)
        yield archive


def item_at(href: str) -> pystac.Item:
    return item_of("S2B_31UGS", assets={"B02": {"href": href}})


class TestSigning:
    def test_every_way_of_reading_is_signed_anew(self, lender: Lender, folder: Path) -> None:
        raster, text = f"{lender.url}/files/B02.tif", f"{lender.url}/files/about.xml"
        lender.uses = 1_000_000
        window, nodata = read_window(raster, Window(100, 50, 60, 40))
        np.testing.assert_array_equal(window[0], pixels(folder)[50:90, 100:160])
        assert nodata == 0
        assert raster_geobox(raster).affine.c == WEST
        assert read_text(text) == (folder / "about.xml").read_text(encoding="utf-8")
        assert read_beginning(text, b"</kind>") == "<about><kind>ä</kind>".encode()
        grid = in_zone_32()
        placed = load_placed(item_at(raster), "B02", grid, "nearest")
        np.testing.assert_array_equal(placed, load_placed(item_at(str(folder / "B02.tif")), "B02", grid, "nearest"))
        assert (placed > 0).all()
        assert lender.refused == 0

    @pytest.mark.parametrize("way", ["open reader", "window", "text", "other zone"])
    def test_every_way_of_reading_waits_for_a_connection_that_the_archive_allows(
        self, lender: Lender, way: str
    ) -> None:
        raster, text = f"{lender.url}/files/B02.tif", f"{lender.url}/files/about.xml"

        def read_by_reader() -> None:
            with GranuleReader(connections=24) as reader:
                item = item_at(raster)
                reader.begin(lambda: reader.read(item, "B02", own_grid(0, 0, 128), "nearest"), raster)()

        ways: dict[str, Callable[[], Any]] = {
            "open reader": read_by_reader,
            "window": lambda: read_window(raster, Window(0, 0, 10, 10)),
            "text": lambda: read_text(text),
            "other zone": lambda: load_placed(item_at(raster), "B02", in_zone_32(), "nearest"),
        }
        allowed = access_to(raster).connections
        assert allowed is not None
        taken, done = threading.Barrier(allowed.number + 1), threading.Event()

        def hold() -> None:
            with allowed.one():
                taken.wait(10)
                done.wait(10)

        with ThreadPoolExecutor(allowed.number + 1) as threads:
            for _ in range(allowed.number):
                threads.submit(hold)
            taken.wait(10)
            reading = threads.submit(ways[way])
            with pytest.raises(TimeoutError):
                reading.result(0.4)
            done.set()
            reading.result(20)

    def test_an_unsigned_address_gives_nothing(self, lender: Lender) -> None:
        with rasterio.Env(), pytest.raises(rasterio.RasterioIOError):
            rasterio.open(f"{lender.url}/files/B02.tif")
        assert lender.refused > 0

    def test_signatures_that_end_while_files_are_open(
        self, lender: Lender, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("H2CROP_READ_PAUSES", "0,0,0")
        # One is for the version of the file.
        lender.uses = 5
        item = item_at(f"{lender.url}/files/B02.tif")
        expected = pixels(folder)
        with GranuleReader(connections=2) as reader:
            for row in range(0, SIDE, 128):
                for column in range(0, SIDE, 128):
                    grid = own_grid(row, column, 128)
                    found = reader.begin(lambda grid=grid: reader.read(item, "B02", grid, "nearest"), "x://")()
                    np.testing.assert_array_equal(found, expected[row : row + 128, column : column + 128])
        assert lender.signatures > 2
        assert lender.refused > 0

    def test_no_signature_in_errors_and_logs(
        self, lender: Lender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
        caplog.set_level(logging.DEBUG)
        lost, page = f"{lender.url}/files/lost.tif", f"{lender.url}/files/about.xml"
        errors = []
        for read in (
            lambda: read_window(lost),
            lambda: read_text(lost),
            lambda: read_beginning(lost, b"x"),
            lambda: read_window(page),
            lambda: load_placed(item_at(lost), "B02", in_zone_32(), "nearest"),
            lambda: GranuleReader(1).read(item_at(lost), "B02", own_grid(0, 0, 64), "nearest"),
        ):
            with pytest.raises(ReadError) as caught:
                read()
            errors.append(caught)
        shown = "".join(str(caught.getrepr(style="native")) for caught in errors) + caplog.text
        assert "lost.tif" in shown
        assert lender.signatures == 1
        assert MARK not in shown

    def test_what_stays_open_is_read_by_as_many_as_the_provider_allows(self, lender: Lender) -> None:
        assert connections_of(f"{lender.url}/files/B02.tif", 24) == 3
        assert connections_of(f"{lender.url}/files/B02.tif", 2) == 2
        assert connections_of("https://elsewhere.example/B02.tif", 24) == 24
        assert connections_of("s3://eodata/Sentinel-2/B02.jp2", 24) == 4
        assert GranuleReader(24).connections_for("s3://eodata/Sentinel-2/B02.jp2") == 4
        assert access_to("https://elsewhere.example/B02.tif").address == "https://elsewhere.example/B02.tif"


class TestMissingAccounts:
    @pytest.mark.parametrize(
        ("href", "said"),
        [
            ("s3://eodata/Sentinel-2/B02.jp2", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.*\\[copernicus\\]"),
            ("s3://sentinel-s2-l1c/tiles/20/B02.jp2", "AWS_ACCESS_KEY_ID.*\\[earth-search\\]"),
            ("https://download.geoservice.dlr.de/ENMAP/a.TIF", "no account for download.geoservice"),
        ],
    )
    def test_a_read_fails_at_once_and_names_what_is_missing(self, href: str, said: str) -> None:
        begun = time.monotonic()
        for read in (read_window, read_text, raster_geobox, lambda href: read_beginning(href, b"x")):
            with pytest.raises(AccountError, match=said):
                read(href)
        with pytest.raises(AccountError, match=said), GranuleReader(4) as reader:
            reader.read(item_at(href), "B02", own_grid(0, 0, 64), "nearest")
        # One pause before another try would be longer than all of it.
        first = Archives.read().pauses[0]
        assert 0 < time.monotonic() - begun < 5 * first

    def test_the_library_that_signs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("h2crop_data.catalog.accounts.find_spec", lambda name: None)
        with pytest.raises(
            AccountError, match=r"planetary_computer is not installed; install it with pip install '\.\[build\]'"
        ):
            read_window("https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/B02.tif")

    def test_an_account_for_another_host_does_not_count(self, no_accounts: Path) -> None:
        (no_accounts / ".netrc").write_text("machine elsewhere.example login a password b\n")
        (no_accounts / ".netrc").chmod(0o600)
        with pytest.raises(AccountError, match="no account for download"):
            access_to("https://download.geoservice.dlr.de/ENMAP/a.TIF")
        with (no_accounts / ".netrc").open("a") as file:
            file.write("machine download.geoservice.dlr.de login a password b\n")
        access_to("https://download.geoservice.dlr.de/ENMAP/a.TIF")

    def test_damaged_files_of_accounts_are_named_and_not_shown(self, no_accounts: Path) -> None:
        (no_accounts / ".netrc").write_text(f"machine x login y {SECRET}\n")
        (no_accounts / ".netrc").chmod(0o600)
        with pytest.raises(AccountError, match=r"cannot read .*\.netrc: it is damaged") as caught:
            access_to("https://download.geoservice.dlr.de/ENMAP/a.TIF")
        assert SECRET not in str(caught.getrepr(style="native"))
        (no_accounts / ".aws").mkdir()
        (no_accounts / ".aws/credentials").write_text(f"aws_secret_access_key = {SECRET}\n")
        with pytest.raises(AccountError, match="credentials is damaged") as caught:
            access_to("s3://eodata/a.jp2")
        assert SECRET not in str(caught.getrepr(style="native"))


class TestKeys:
    def test_where_they_are_looked_for(self, no_accounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert s3_keys("copernicus") is None
        (no_accounts / ".aws").mkdir()
        profiles = {
            name: f"[{name}]\naws_access_key_id = of-{name}\naws_secret_access_key = 50%\n"
            for name in ("default", "copernicus", "other")
        }
        (no_accounts / ".aws/credentials").write_text("\n".join(profiles.values()))
        found = {name: s3_keys(name) for name in ("copernicus", "earth-search")}
        assert [keys.key_id for keys in found.values() if keys] == ["of-copernicus", "of-default"]
        assert found["copernicus"].secret == "50%"
        monkeypatch.setenv("AWS_PROFILE", "other")
        assert s3_keys("copernicus").key_id == "of-other"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-environment")
        assert s3_keys("copernicus").key_id == "of-other"
        # Both are set: they are those of a store's bucket, and go before `default` alone.
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        assert s3_keys("copernicus").key_id == "of-other"
        monkeypatch.delenv("AWS_PROFILE")
        found = {name: s3_keys(name) for name in ("copernicus", "earth-search")}
        assert [keys.key_id for keys in found.values() if keys] == ["of-copernicus", "of-environment"]
        assert [keys.found for keys in found.values() if keys] == [
            "profile copernicus",
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ]
        assert SECRET not in repr(s3_keys("earth-search"))
        monkeypatch.setenv("AWS_PROFILE", "that is not there")
        assert s3_keys("copernicus").key_id == "of-environment"

    def test_a_store_in_a_bucket_of_its_own_and_an_archive_use_keys_of_their_own(
        self, no_accounts: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-store")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        credentials = no_accounts / "keys-of-archives"
        credentials.write_text("[copernicus]\naws_access_key_id = of-copernicus\naws_secret_access_key = x\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
        session = access_to("s3://eodata/Sentinel-2/B02.jp2").session
        assert session is not None
        assert session.get_credential_options()["AWS_ACCESS_KEY_ID"] == "of-copernicus"

    def test_each_bucket_has_its_endpoint_and_who_pays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
        amazon = access_to("s3://sentinel-s2-l1c/tiles/20/E/PT/2025/7/31/0/B02.jp2")
        assert amazon.opened == "/vsis3/sentinel-s2-l1c/tiles/20/E/PT/2025/7/31/0/B02.jp2"
        assert amazon.session is not None
        assert amazon.session.get_credential_options() == {
            **keys,
            "AWS_REGION": "eu-central-1",
            "AWS_REQUEST_PAYER": "requester",
        }
        copernicus = access_to("s3://eodata/Sentinel-2/B02.jp2")
        assert copernicus.session is not None
        assert copernicus.session.get_credential_options() == {
            **keys,
            "AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_HTTPS": "YES",
        }


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url:
        put_plainly(url, "lent")
        yield url


@pytest.fixture
def bucket(s3: str, installed: pytest.MonkeyPatch, folder: Path, no_accounts: Path) -> Iterator[Proxy]:
    """The lender's bucket with the raster and the text in it, and a profile with keys; gives what it was asked for."""
    from obstore.store import S3Store

    keys = {"access_key_id": "maker", "secret_access_key": "maker", "region": "us-east-1"}
    store = S3Store("lent", config={**keys, "endpoint": s3}, client_options={"allow_http": True})
    for name in ("B02.tif", "about.xml"):
        store.put(f"a/{name}", (folder / name).read_bytes())
    (no_accounts / ".aws").mkdir()
    profile = f"[lender]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
    (no_accounts / ".aws/credentials").write_text(profile)
    with s3_proxy(s3) as proxy:
        installed.setenv("LENDER_S3", proxy.url.removeprefix("http://"))
        yield proxy


class TestBucket:
    def test_rasters_and_texts_are_read_with_the_keys_of_the_provider(
        self, bucket: Proxy, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        window, _ = read_window("s3://lent/a/B02.tif", Window(0, 0, 200, 300))
        np.testing.assert_array_equal(window[0], pixels(folder)[:300, :200])
        grid = in_zone_32()
        placed = load_placed(item_at("s3://lent/a/B02.tif"), "B02", grid, "nearest")
        np.testing.assert_array_equal(placed, load_placed(item_at(str(folder / "B02.tif")), "B02", grid, "nearest"))
        with GranuleReader(4) as reader:
            own = own_grid(0, 0, 128)
            found = reader.read(item_at("s3://lent/a/B02.tif"), "B02", own, "nearest")
        np.testing.assert_array_equal(found, pixels(folder)[:128, :128])
        assert read_text("s3://lent/a/about.xml") == (folder / "about.xml").read_text(encoding="utf-8")
        assert read_beginning("s3://lent/a/about.xml", b"</kind>").endswith(b"</kind>")
        signed = [request.headers.get("authorization", "") for request in bucket.requests]
        assert len(signed) >= 5
        assert all(f"Credential={KEY_ID}/" in header for header in signed)
        assert SECRET not in caplog.text

    @pytest.mark.parametrize("profile", [True, False])
    def test_it_needs_no_package_of_amazon(
        self, bucket: Proxy, folder: Path, no_accounts: Path, monkeypatch: pytest.MonkeyPatch, profile: bool
    ) -> None:
        """The extra `build` does not bring boto3, by which rasterio looks for keys."""
        monkeypatch.setattr("rasterio.session.boto3", None)
        if not profile:
            (no_accounts / ".aws/credentials").unlink()
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        window, _ = read_window("s3://lent/a/B02.tif", Window(0, 0, 200, 300))
        np.testing.assert_array_equal(window[0], pixels(folder)[:300, :200])

    def test_a_text_that_is_cut_is_asked_for_again(
        self, bucket: Proxy, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("H2CROP_READ_PAUSES", "0.1")
        bucket.fail_if(lambda request: request.method == "GET", Fault(cut_answer=True), times=1)
        assert read_text("s3://lent/a/about.xml") == (folder / "about.xml").read_text(encoding="utf-8")
        assert bucket.count("GET") == 2
        [line] = [one for one in caplog.records if getattr(one, "event", "") == "retry"]
        assert line.getMessage().startswith("reading s3://lent/a/about.xml: attempt 1 of 2 failed: ")

    def test_keys_do_not_reach_other_buckets(self, bucket: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
        asked = len(bucket.requests)
        assert access_to(f"s3://{BUCKET}/a.tif").session is None
        with pytest.raises(AccountError, match="copernicus"):
            read_window("s3://eodata/a.tif")
        assert len(bucket.requests) == asked

    def test_what_is_not_there_is_told_without_keys(
        self, bucket: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
        caplog.set_level(logging.DEBUG)
        shown = ""
        for read in (read_window, read_text):
            with pytest.raises(ReadError, match="s3://lent/a/lost") as caught:
                read("s3://lent/a/lost.tif")
            shown += str(caught.getrepr(style="native"))
        assert SECRET not in shown + caplog.text
        assert KEY_ID not in shown


@pytest.fixture
def members(installed: pytest.MonkeyPatch, folder: Path) -> Iterator[Archive]:
    """An archive that wants an account, whose host the environment names."""
    archive = Archive({f"/{name}": (folder / name).read_bytes() for name in ("B02.tif", "about.xml")})
    with archive_server(archive):
        installed.setenv("LENDER_MEMBERS", archive.url)
        installed.setenv("H2CROP_DOWNLOAD_HOST", "127.0.0.1")
        installed.setenv("H2CROP_READ_PAUSES", "none")
        yield archive


class TestAccounts:
    @pytest.mark.parametrize("way", ["variables", "cookie", "netrc", "netrc elsewhere"])
    def test_each_way_opens_rasters_and_texts(
        self, way: str, members: Archive, folder: Path, no_accounts: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        members.protection = "cookie" if way == "cookie" else "basic"
        with pytest.raises(AccountError, match=r"no account for 127\.0\.0\.1 in ~/.netrc or in H2CROP_DOWNLOAD_USER"):
            read_text(f"{members.url}/about.xml")
        assert members.asked == []
        if way == "variables":
            monkeypatch.setenv("H2CROP_DOWNLOAD_USER", USER)
            monkeypatch.setenv("H2CROP_DOWNLOAD_PASSWORD", PASSWORD)
        elif way == "cookie":
            monkeypatch.setenv("H2CROP_DOWNLOAD_COOKIE", COOKIE)
        else:
            path = no_accounts / (".netrc" if way == "netrc" else "accounts")
            path.write_text(f'machine 127.0.0.1 login {USER} password "{PASSWORD}"\n')
            path.chmod(0o600)
            if way == "netrc elsewhere":
                monkeypatch.setenv("NETRC", str(path))
        assert read_text(f"{members.url}/about.xml").startswith("<about>")
        window, _ = read_window(f"{members.url}/B02.tif")
        np.testing.assert_array_equal(window[0], pixels(folder))
        grid = in_zone_32()
        placed = load_placed(item_at(f"{members.url}/B02.tif"), "B02", grid, "nearest")
        np.testing.assert_array_equal(placed, load_placed(item_at(str(folder / "B02.tif")), "B02", grid, "nearest"))
        assert PASSWORD not in repr(access_to(f"{members.url}/B02.tif"))
        assert COOKIE not in repr(access_to(f"{members.url}/B02.tif"))

    def test_an_account_is_not_sent_to_where_a_server_leads(
        self, members: Archive, installed: pytest.MonkeyPatch
    ) -> None:
        monkeypatch = installed
        monkeypatch.setenv("H2CROP_DOWNLOAD_USER", USER)
        monkeypatch.setenv("H2CROP_DOWNLOAD_PASSWORD", PASSWORD)
        monkeypatch.setenv("H2CROP_DOWNLOAD_COOKIE", COOKIE)
        asked = []

        class Leads(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(
                    (self.headers["Host"].split(":")[0], self.headers["Authorization"], self.headers["Cookie"])
                )
                own = self.headers["Host"].startswith("127")
                self.send_response(302 if own else 404)
                if own:
                    self.send_header("Location", f"http://localhost:{self.server.server_port}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                """Keep the test's output clean."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Leads)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("LENDER_MEMBERS", f"http://127.0.0.1:{server.server_port}")
        try:
            for read in (read_window, read_text):
                with pytest.raises(ReadError):
                    read(f"http://127.0.0.1:{server.server_port}/{read.__name__}.tif")
        finally:
            server.shutdown()
            server.server_close()
        assert {host for host, _, _ in asked} == {"127.0.0.1", "localhost"}
        assert all((bool(login), bool(cookie)) == (host == "127.0.0.1",) * 2 for host, login, cookie in asked)


class TestPlanetaryComputer:
    """Its own library, against a service of signatures on this machine."""

    @pytest.mark.parametrize(("minutes", "asked"), [(45, 1), (0.5, 3)])
    @pytest.mark.filterwarnings("ignore:Support for class-based:DeprecationWarning")
    def test_a_signature_is_kept_until_it_is_about_to_end(
        self, minutes: float, asked: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("planetary_computer")
        from planetary_computer import sas, settings

        tokens: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tokens.append(self.path)
                expiry = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
                body = f'{{"msft:expiry": "{expiry}", "token": "se=1&sig={MARK}{len(tokens)}"}}'.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Keep the test's output clean."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("PC_SDK_SAS_URL", f"http://127.0.0.1:{server.server_port}/token")
        settings.Settings.get.cache_clear()
        sas.TOKEN_CACHE.clear()
        try:
            href = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/60/V/B02.tif"
            found = [access_to(href) for _ in range(3)]
        finally:
            server.shutdown()
            server.server_close()
            settings.Settings.get.cache_clear()
            sas.TOKEN_CACHE.clear()
        assert tokens == ["/token/sentinel2l2a01/sentinel2-l2"] * asked
        assert found[-1].address == f"{href}?se=1&sig={MARK}{asked}"
        assert MARK not in repr(found)

    @pytest.mark.filterwarnings("ignore:Support for class-based:DeprecationWarning")
    def test_a_service_of_signatures_that_never_answers_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("planetary_computer")
        from planetary_computer import sas, settings

        monkeypatch.setenv("H2CROP_READ_TIMEOUT", "0.3")
        monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
        with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
            monkeypatch.setenv("PC_SDK_SAS_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/token")
            settings.Settings.get.cache_clear()
            sas.TOKEN_CACHE.clear()
            try:
                reading = pool.submit(read_text, "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/60/V/a.xml")
                error = reading.exception(20)
            finally:
                # Ends what waits, too.
                silent.close()
                settings.Settings.get.cache_clear()
        assert isinstance(error, ReadError)
        assert "no answer began in time" in str(error)


class TestRedaction:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("cannot read https://a.example/b.tif?st=1&sig=abc: 403", "cannot read https://a.example/b.tif: 403"),
            ("'/vsicurl/https://a.example/b.tif?sig=abc' not", "'/vsicurl/https://a.example/b.tif' not"),
            (
                "Max retries exceeded with url: /b.tif?X-Amz-Signature=abc (Caused",
                "Max retries exceeded with url: /b.tif (Caused",
            ),
            ("see https://me:secret@a.example/stac/", "see https://a.example/stac/"),
            ("https://a.example/search?page=2&token=next", "https://a.example/search"),
            ("https://a.example/search?page=2", "https://a.example/search?page=2"),
            ("is it /a/b? no: me@a.example", "is it /a/b? no: me@a.example"),
            ("https://a.example/me@home/b.tif", "https://a.example/me@home/b.tif"),
            ("(https://a.example/b.tif?q=(1)&sig=abc).", "(https://a.example/b.tif)."),
            ("https://a.example/b.tif?name='b'&sig=abc", "https://a.example/b.tif"),
            ('https://a.example/b.tif?name="b"&sig=abc', 'https://a.example/b.tif?name="b"'),
            ("https://a.example/b.tif?a=1&amp;X-Amz-Signature=abc", "https://a.example/b.tif"),
            ("https://a.example/b.tif?sr=b;sig=abc", "https://a.example/b.tif"),
            ("https://a.example/b.tif;token=abc", "https://a.example/b.tif"),
            ("https://a.example/b.tif#access_token=abc", "https://a.example/b.tif"),
            ("https://a.example/b.tif%3Fsig%3Dabc", "https://a.example/b.tif"),
            ("https://t.example/tiles?url=https%3A%2F%2Fa.example%2Fb.tif%3Fsig%3Dabc", "https://t.example/tiles"),
            ("see https://me:a/b@c.example/stac", "see https://c.example/stac"),
            ("https://a.example:8080/me@home/b.tif", "https://a.example:8080/me@home/b.tif"),
            ("http://[::1]:8080/me@home/b.tif", "http://[::1]:8080/me@home/b.tif"),
            (
                "https://a.example/?keyword=a&author=b&design=c#part",
                "https://a.example/?keyword=a&author=b&design=c#part",
            ),
            ("which one? token=abc", "which one? token=abc"),
            ("sent Authorization: Bearer abc.def-123== (Caused by 401)", "sent Authorization:  (Caused by 401)"),
            ("{'Authorization': 'Basic bWU6c2VjcmV0', 'Accept': 'x'}", "{'Authorization': '', 'Accept': 'x'}"),
            ("authorization=Token abc; next", "authorization=; next"),
            ('Authorization: Digest username="me", nonce="a b", response="c" now', "Authorization:  now"),
            (
                "Authorization: AWS4-HMAC-SHA256 Credential=AK/2022/s3, SignedHeaders=host;date, Signature=abc",
                "Authorization: ",
            ),
            ("b'authorization': b'0123456789abcdef0123'", "b'authorization': b''"),
            ("X-Api-Key: 0123456789abcdef0123 sent", "X-Api-Key:  sent"),
            ("refused Bearer eyJhbGciOiJIUzI1NiJ9.e30.x-y_z", "refused Bearer"),
            ("authorization: see the documentation", "authorization: see the documentation"),
            ("a Bearer token is wanted, no Authorization", "a Bearer token is wanted, no Authorization"),
        ],
    )
    def test_what_is_left_of_a_text(self, text: str, shown: str) -> None:
        assert without_secrets(text) == shown
        assert redacted({"a": [text, 1, None]}) == {"a": [shown, 1, None]}

    @pytest.mark.parametrize(
        "name",
        [
            *("api-key", "x-api-key", "apikey", "api_key", "apiKey", "subscription-key", "key", "AWSAccessKeyId"),
            *(
                "Key-Pair-Id",
                "sas",
                "sig",
                "jwt",
                "ticket",
                "auth",
                "authorization",
                "access_token",
                "X-Amz-Credential",
            ),
            *("X-Goog-Signature", "client_secret", "password", "passwd", "userToken"),
        ],
    )
    def test_names_of_keys(self, name: str) -> None:
        assert without_secrets(f"https://a.example/b.tif?a=1&{name}=abc&b=2 x") == "https://a.example/b.tif x"

    @pytest.mark.parametrize(
        "address", ["https://me:a@b.example/", "https://b.example/?apikey=1", "s3://b/?Signature=1"]
    )
    def test_addresses_with_secrets(self, address: str) -> None:
        assert has_secrets(address)
        assert not has_secrets(without_secrets(address))
