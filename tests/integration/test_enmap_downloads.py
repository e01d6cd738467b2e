"""Downloads from an archive that wants an account and misbehaves: what is kept is the file, whole, or nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rasterio
import yaml
from download_server import COOKIE, LOGIN_PAGE, PASSWORD, USER, Archive, Misbehaviour, archive_server
from enmap_products import BOX, PRODUCT, TO_LONLAT, product_of, write_product
from shapely import transform
from typer.testing import CliRunner

from h2crop_data.catalog.access import read_text, read_window
from h2crop_data.catalog.downloads import Account, FileCache
from h2crop_data.catalog.item_facts import enmap_scene
from h2crop_data.catalog.search import read_item_collection
from h2crop_data.cli.main import app
from h2crop_data.errors import ReadError, UsageError
from h2crop_data.simulate.enmap.items import EnmapProduct, enmap_item, enmap_product_name, file_folder, file_names
from h2crop_data.sources.scenes import item_identity

PATH = "/files/image_COG.TIF"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A TIFF."""
    return write_product(tmp_path_factory.mktemp("product"))["image"].read_bytes()


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No account of this machine, and no proxy."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("H2CROP_DOWNLOAD_HOST", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    for name in ("NETRC", "H2CROP_DOWNLOAD_USER", "H2CROP_DOWNLOAD_PASSWORD", "H2CROP_DOWNLOAD_COOKIE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def archive(content: bytes) -> Iterator[Archive]:
    archive = Archive({PATH: content})
    with archive_server(archive):
        yield archive


def cache_in(folder: Path, reported_after: float = 1.0) -> FileCache:
    """A cache that tries three times more, at once. reported_after: seconds until a wait is reported."""
    return FileCache(folder / "cache", pauses=(0, 0, 0), reported_after=reported_after)


def kept_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache" / "files").rglob("*") if path.is_file()]


class TestFaults:
    """What goes wrong on the way, and what comes of it."""

    @pytest.mark.parametrize(
        "plan",
        [
            pytest.param([], id="nothing"),
            pytest.param([Misbehaviour(503), Misbehaviour(429), Misbehaviour(500)], id="busy"),
            pytest.param([Misbehaviour(stop_after=700)], id="cut"),
            pytest.param([Misbehaviour(stop_after=700), Misbehaviour(stop_after=300)] * 2, id="cut again and again"),
            pytest.param([Misbehaviour(stop_after=0)] * 3, id="nothing came"),
            pytest.param([Misbehaviour(stop_after=700), Misbehaviour(416)], id="the rest is refused"),
            pytest.param([Misbehaviour(silent=True)], id="no length, no ETag"),
        ],
    )
    def test_the_file_comes_whole(
        self, archive: Archive, content: bytes, tmp_path: Path, plan: list[Misbehaviour]
    ) -> None:
        archive.plan[PATH] = list(plan)
        file = cache_in(tmp_path).fetch(archive.url + PATH)
        assert file.path.read_bytes() == content
        assert file.path.name == "image_COG.TIF"
        assert archive.plan[PATH] == []
        assert kept_files(tmp_path) == [file.path]

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            pytest.param(Misbehaviour(body=LOGIN_PAGE), "login page", id="login page"),
            pytest.param(
                Misbehaviour(body=LOGIN_PAGE, content_type="image/tiff"), "login page", id="login page sent as TIFF"
            ),
            pytest.param(Misbehaviour(body=b"\x89PNG" * 99, content_type="image/tiff"), "not a TIFF file", id="magic"),
            pytest.param(Misbehaviour(short=1500), "truncated", id="short, and says that this is all"),
            pytest.param(Misbehaviour(short=1500, silent=True), "truncated", id="short, and says nothing"),
            pytest.param(Misbehaviour(403), "does not accept the account", id="403"),
            pytest.param(Misbehaviour(404), "HTTP 404", id="404"),
            pytest.param(Misbehaviour(416), "HTTP 416", id="416 to a whole file"),
        ],
    )
    def test_what_is_not_the_file_is_refused_at_once_and_not_kept(
        self, archive: Archive, content: bytes, tmp_path: Path, wrong: Misbehaviour, message: str
    ) -> None:
        archive.plan[PATH] = [wrong]
        cache = cache_in(tmp_path)
        with pytest.raises(ReadError, match=message) as raised:
            cache.fetch(archive.url + PATH)
        assert f"cannot download {archive.url}{PATH}" in str(raised.value)
        assert len(archive.asked) == 1
        assert kept_files(tmp_path) == []
        # Nothing of it is left that the next download would go on from.
        assert cache.fetch(archive.url + PATH).path.read_bytes() == content

    def test_a_server_that_never_answers_well_is_an_error(self, archive: Archive, tmp_path: Path) -> None:
        archive.plan[PATH] = [Misbehaviour(503)] * 99
        with pytest.raises(ReadError, match=r"busy \(HTTP 503\); rerun to continue the download"):
            cache_in(tmp_path).fetch(archive.url + PATH)
        assert len(archive.asked) == 4

    def test_a_download_goes_on_where_it_stopped_in_another_run(
        self, archive: Archive, content: bytes, tmp_path: Path
    ) -> None:
        archive.plan[PATH] = [Misbehaviour(stop_after=1000), *[Misbehaviour(503)] * 4]
        with pytest.raises(ReadError):
            cache_in(tmp_path).fetch(archive.url + PATH)
        before = archive.sent
        assert before == 1000
        file = cache_in(tmp_path).fetch(archive.url + PATH)
        assert archive.asked[-1][1] == "bytes=1000-"
        assert archive.sent - before == len(content) - 1000 == file.downloaded
        assert file.path.read_bytes() == content

    @pytest.mark.parametrize("length", [2000, 2500])
    def test_a_file_that_changes_in_between_is_downloaded_anew(
        self, archive: Archive, tmp_path: Path, length: int
    ) -> None:
        # Where the length stays, the halves of two files would be taken for one.
        path = "/files/METADATA.XML"
        archive.files[path], changed = b"<a>" + b"1" * 2000 + b"</a>", b"<a>" + b"2" * length + b"</a>"

        def change() -> None:
            archive.files[path] = changed

        archive.plan[path] = [Misbehaviour(stop_after=700, then=change)]
        file = cache_in(tmp_path).fetch(archive.url + path)
        assert file.path.read_bytes() == changed
        assert archive.asked[1][1] == "bytes=700-"

    def test_a_server_without_ranges_sends_all_again(self, archive: Archive, content: bytes, tmp_path: Path) -> None:
        archive.ranges = False
        archive.plan[PATH] = [Misbehaviour(stop_after=1000)]
        assert cache_in(tmp_path).fetch(archive.url + PATH).path.read_bytes() == content
        assert archive.sent == 1000 + len(content)

    def test_a_process_that_ended_after_the_last_byte_asks_for_none_again(
        self, archive: Archive, content: bytes, tmp_path: Path
    ) -> None:
        cache = cache_in(tmp_path)
        archive.plan[PATH] = [Misbehaviour(stop_after=1000), *[Misbehaviour(503)] * 4]
        with pytest.raises(ReadError):
            cache.fetch(archive.url + PATH)
        part = next((tmp_path / "cache" / "parts").glob("*.part"))
        part.write_bytes(content)
        before = archive.sent
        assert cache.fetch(archive.url + PATH).path.read_bytes() == content
        assert archive.sent == before


class TestCache:
    def test_a_file_is_asked_for_once(self, archive: Archive, tmp_path: Path) -> None:
        first = cache_in(tmp_path).fetch(archive.url + PATH)
        second = cache_in(tmp_path).fetch(archive.url + PATH)
        assert (first.path, len(archive.asked)) == (second.path, 1)
        assert first.downloaded > 0
        assert second.downloaded == 0

    def test_a_file_that_was_damaged_or_deleted_here_is_asked_for_again(
        self, archive: Archive, content: bytes, tmp_path: Path
    ) -> None:
        path = cache_in(tmp_path).fetch(archive.url + PATH).path
        path.write_bytes(content[:100])
        assert cache_in(tmp_path).fetch(archive.url + PATH).path.read_bytes() == content
        path.unlink()
        assert cache_in(tmp_path).fetch(archive.url + PATH).path.read_bytes() == content

    def test_of_several_that_want_a_file_one_downloads_it(
        self,
        archive: Archive,
        content: bytes,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level("INFO", "h2crop_data")
        # The lock is of the open file, so that threads wait for each other as processes do.
        archive.plan[PATH] = [Misbehaviour(first=lambda: time.sleep(0.5))]
        with ThreadPoolExecutor(3) as pool:
            files = list(pool.map(lambda _: cache_in(tmp_path, 0.1).fetch(archive.url + PATH), range(3)))
        assert archive.paths == [PATH]
        assert sorted(file.downloaded for file in files) == [0, 0, len(content)]
        waiting = re.compile(rf"waiting for {archive.url}{PATH} for \d+ s: another process downloads it")
        assert sum(waiting.fullmatch(text) is not None for text in caplog.messages) == 2
        assert [path.read_bytes() for path in kept_files(tmp_path)] == [content]

    def test_a_folder_that_cannot_be_written_is_named(self, archive: Archive, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file", encoding="utf-8")
        with pytest.raises(ReadError, match=rf"cannot save .* in {tmp_path}/cache"):
            cache_in(tmp_path).fetch(archive.url + PATH)

    def test_other_kinds_of_addresses_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ReadError, match="expected an address that begins with http"):
            cache_in(tmp_path).fetch("s3://bucket/image.TIF")


class TestAccount:
    def test_basic_from_the_environment(
        self, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        archive.protection = "basic"
        monkeypatch.setenv("H2CROP_DOWNLOAD_USER", USER)
        monkeypatch.setenv("H2CROP_DOWNLOAD_PASSWORD", PASSWORD)
        assert cache_in(tmp_path).fetch(archive.url + PATH).downloaded

    def test_basic_from_netrc(self, archive: Archive, tmp_path: Path) -> None:
        archive.protection = "basic"
        (tmp_path / ".netrc").write_text(f'machine 127.0.0.1 login {USER} password "{PASSWORD}"\n', encoding="utf-8")
        (tmp_path / ".netrc").chmod(0o600)
        assert cache_in(tmp_path).fetch(archive.url + PATH).downloaded

    def test_the_cookie_of_a_session(self, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        archive.protection = "cookie"
        monkeypatch.setenv("H2CROP_DOWNLOAD_COOKIE", f"{COOKIE}; other=1")
        assert cache_in(tmp_path).fetch(archive.url + PATH).downloaded

    @pytest.mark.parametrize(
        ("protection", "message"),
        [("basic", "does not accept the account .HTTP 401.*netrc.*H2CROP"), ("cookie", "login page")],
    )
    def test_without_one_it_is_told_what_to_set(
        self, archive: Archive, tmp_path: Path, protection: str, message: str
    ) -> None:
        archive.protection = protection
        with pytest.raises(ReadError, match=message):
            cache_in(tmp_path).fetch(archive.url + PATH)

    def test_other_hosts_get_nothing_of_it(
        self, archive: Archive, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("H2CROP_DOWNLOAD_HOST", "download.example.org")
        monkeypatch.setenv("H2CROP_DOWNLOAD_USER", USER)
        monkeypatch.setenv("H2CROP_DOWNLOAD_PASSWORD", PASSWORD)
        monkeypatch.setenv("H2CROP_DOWNLOAD_COOKIE", COOKIE)
        cache_in(tmp_path).fetch(archive.url + PATH)
        assert archive.asked == [(PATH, "", False)]

    def test_it_is_never_shown(self, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("H2CROP_DOWNLOAD_USER", USER)
        monkeypatch.setenv("H2CROP_DOWNLOAD_PASSWORD", "hidden-1")
        monkeypatch.setenv("H2CROP_DOWNLOAD_COOKIE", "session=hidden-2")
        archive.protection = "basic"
        with pytest.raises(ReadError) as raised:
            cache_in(tmp_path).fetch(archive.url + PATH)
        assert archive.asked[0][2]
        shown = str(raised.value) + repr(Account.from_environment())
        assert "hidden" not in shown
        assert not any(b"hidden" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    def test_half_an_account_is_wrong_use(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("H2CROP_DOWNLOAD_USER", USER)
        with pytest.raises(UsageError, match="set both"):
            cache_in(tmp_path)
        monkeypatch.delenv("H2CROP_DOWNLOAD_USER")
        monkeypatch.setenv("H2CROP_DOWNLOAD_COOKIE", "no cookie at all")
        with pytest.raises(UsageError, match="H2CROP_DOWNLOAD_COOKIE: invalid value, expected"):
            cache_in(tmp_path)


class TestReadInPlace:
    """Builds that read the archive itself have the account of `.netrc`, and tell a login page from a file."""

    def netrc(self, folder: Path, password: str) -> None:
        (folder / ".netrc").write_text(f'machine 127.0.0.1 login {USER} password "{password}"\n', encoding="utf-8")
        (folder / ".netrc").chmod(0o600)

    def test_with_the_account_files_are_read(self, archive: Archive, content: bytes, tmp_path: Path) -> None:
        archive.protection = "basic"
        archive.files["/files/METADATA.XML"] = b"<a/>"
        self.netrc(tmp_path, PASSWORD)
        assert read_text(f"{archive.url}/files/METADATA.XML") == "<a/>"
        pixels, _ = read_window(archive.url + PATH)
        with rasterio.MemoryFile(content) as file, file.open() as dataset:
            assert (pixels == dataset.read()).all()

    def test_without_it_the_file_is_named(
        self, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
        archive.protection = "basic"
        self.netrc(tmp_path, "wrong")
        for read in (read_text, read_window):
            with pytest.raises(ReadError, match=rf"cannot read {archive.url}{PATH}: .*401"):
                read(archive.url + PATH)
        archive.protection = "cookie"
        with pytest.raises(ReadError, match=rf"cannot read {archive.url}/.*login page"):
            read_window(f"{archive.url}/other_COG.TIF")


class TestCommand:
    """`h2crop enmap fetch` from a catalog whose files lie on the server."""

    def publish(self, archive: Archive, tmp_path: Path, products: list[EnmapProduct]) -> Path:
        """Put products on the server; gives a recipe whose catalog lists them."""
        features = []
        for product in products:
            home = f"/{file_folder(product)}"
            for path in write_product(tmp_path / "archive", product).values():
                archive.files[f"{home}/{path.name}"] = path.read_bytes()
            hrefs = {key: f"{archive.url}{home}/{name}" for key, name in file_names(product).items()}
            features.append(enmap_item(product, hrefs))
        catalog = {"type": "FeatureCollection", "features": features}
        (tmp_path / "catalog.json").write_text(json.dumps(catalog), encoding="utf-8")
        area = {"bbox": list(transform(BOX, TO_LONLAT, interleaved=False).bounds)}
        recipe = {"name": "x", "area": area, "seasons": [2023], "enmap": {"catalog": "catalog.json"}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return tmp_path / "recipe.yaml"

    def run(self, tmp_path: Path, recipe: Path, *more: str) -> Any:
        into, cache = str(tmp_path / "own" / "items.json"), str(tmp_path / "cache")
        return CliRunner().invoke(app, ["enmap", "fetch", str(recipe), "--into", into, "--cache", cache, *more])

    def test_scenes_to_take_are_fetched_whole(self, archive: Archive, tmp_path: Path) -> None:
        recipe = self.publish(archive, tmp_path, [product_of(1), product_of(2, quality=2)])
        done = self.run(tmp_path, recipe)
        assert done.exit_code == 0, done.stderr
        items = list(read_item_collection(tmp_path / "own" / "items.json"))
        assert [item.id for item in items] == [enmap_product_name(product_of(1))]
        # To a build it is the same scene: hashes of blocks stay as they are.
        listed = next(read_item_collection(tmp_path / "catalog.json"))
        assert item_identity(items[0]) == item_identity(listed)
        assert enmap_scene(items[0]) == enmap_scene(listed)
        for key, name in file_names(product_of(1)).items():
            path = Path(items[0].assets[key].href)
            assert path.is_relative_to(tmp_path / "cache")
            assert path.name == name
            assert path.read_bytes() == next((tmp_path / "archive").rglob(name)).read_bytes()
        # Again, nothing is asked for.
        before = len(archive.asked)
        done = self.run(tmp_path, recipe, "--json")
        assert len(archive.asked) == before
        assert json.loads(done.stdout)["scenes"][0]["kept"] == len(file_names(PRODUCT))

    def test_a_scene_that_cannot_be_had_is_told_and_others_go_on(self, archive: Archive, tmp_path: Path) -> None:
        recipe = self.publish(archive, tmp_path, [product_of(1), product_of(2)])
        image = next(path for path in archive.files if path.endswith("01/" + file_names(product_of(1))["image"]))
        archive.plan[image] = [Misbehaviour(body=LOGIN_PAGE)]
        done = self.run(tmp_path, recipe)
        assert done.exit_code == 3
        assert "incomplete: cannot download" in done.stderr
        assert "login page" in done.stderr
        ids = [item.id for item in read_item_collection(tmp_path / "own" / "items.json")]
        assert ids == [enmap_product_name(product_of(2))]
        # Run again it goes on.
        assert self.run(tmp_path, recipe).exit_code == 0
        assert len(list(read_item_collection(tmp_path / "own" / "items.json"))) == 2

    def test_a_scene_may_be_asked_for_by_name(self, archive: Archive, tmp_path: Path) -> None:
        recipe = self.publish(archive, tmp_path, [product_of(1), product_of(2, quality=2)])
        done = self.run(tmp_path, recipe, "--scene", enmap_product_name(product_of(2)), "--json")
        assert [scene["id"] for scene in json.loads(done.stdout)["scenes"]] == [enmap_product_name(product_of(2))]
        done = self.run(tmp_path, recipe, "--scene", "nothing")
        assert isinstance(done.exception, UsageError)
        assert "unknown scene" in str(done.exception)
