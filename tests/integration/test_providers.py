"""`h2crop providers`, and builds from the provider of another package, whose signatures soon end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from lender_provider import lender_installed, without_accounts
from obstore.store import S3Store
from s3_server import Fault, put_plainly, s3_proxy, s3_server
from signing_server import MARK, Lender, lending
from stac_api import stac_api
from stac_items import item_of
from tiny_region import TinyRegion
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.catalog.item_facts import asset_of_band
from h2crop_data.catalog.registry import known_providers, provider_of
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index
from h2crop_data.errors import H2cropError, PluginError
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.plan import save_plan
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.recipe.model import Recipe


@pytest.fixture(autouse=True)
def no_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_accounts(monkeypatch, tmp_path / "home")


@pytest.fixture
def region(tmp_path: Path) -> TinyRegion:
    region = TinyRegion(tmp_path / "region")
    region.add_sentinel2("a", "2022-05-10T10:50:00Z", 1000)
    region.add_sentinel2("b", "2022-07-09T10:50:00Z", 2000)
    return region


@pytest.fixture
def lender(region: TinyRegion, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lender]:
    """The region's files on the lender's server and its items behind a STAC API; the provider knows both."""
    with lending(region.folder) as archive:
        features = json.loads(json.dumps(region.sentinel2))
        for item in features:
            for asset in item["assets"].values():
                asset["href"] = f"{archive.url}/files/{asset['href'].removeprefix('./')}"
        path = region.folder / "lent.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        with stac_api(path) as api, lender_installed():
            monkeypatch.setenv("LENDER_URL", archive.url)
            monkeypatch.setenv("LENDER_API", api)
            yield archive


def lent(region: TinyRegion) -> Recipe:
    return region.recipe(sentinel2={"catalog": "lender"})


@contextmanager
def answering(status: int) -> Iterator[str]:
    """The URL of a server that answers everything with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run(*arguments: str) -> Any:
    """A command; what it says goes to standard error."""
    return CliRunner().invoke(app, ["providers", *arguments])


class TestList:
    def test_each_is_a_line_with_what_it_needs(self) -> None:
        result = run()
        assert result.exit_code == 0
        lines = {line.split()[0]: line for line in result.stderr.splitlines()}
        assert list(lines) == ["earth-search", "planetary-computer", "copernicus", "dlr"]
        assert "sentinel-2-c1-l2a" in lines["earth-search"]
        assert "S3 keys" in lines["copernicus"]
        assert "planetary-computer" in lines["planetary-computer"]
        assert "~/.netrc" in lines["dlr"]

    def test_for_scripts(self) -> None:
        listed = {one["name"]: one for one in json.loads(run("--json").stdout)}
        assert listed["copernicus"]["connections"] == 4
        assert listed["earth-search"]["connections"] is None
        offsets = {one["name"]: one["offset"] for one in listed["earth-search"]["collections"]}
        assert offsets == {
            "sentinel-2-l2a": "removed, see flags",
            "sentinel-2-c1-l2a": "kept",
            "sentinel-2-l1c": "kept",
        }

    @pytest.mark.parametrize(
        ("catalog", "name"),
        [
            ("earth-search", "earth-search"),
            ("https://earth-search.aws.element84.com/v1", "earth-search"),
            ("https://earth-search.aws.element84.com/v1/", "earth-search"),
            ("https://geoservice.dlr.de/eoc/ogc/stac/v1/", "dlr"),
            ("https://stac.dataspace.copernicus.eu/v1/search", "copernicus"),
            ("https://stac.dataspace.copernicus.eu/v11", None),
            ("https://elsewhere.example/v1", None),
            ("items.json", None),
            ("/data/earth-search", None),
        ],
    )
    def test_a_catalog_is_a_provider_s_by_its_name_or_address(self, catalog: str, name: str | None) -> None:
        provider = provider_of(catalog)
        assert (provider and provider.name) == name

    def test_one_of_another_package_is_listed_and_a_damaged_one_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with lender_installed():
            assert "lender" in known_providers()
            assert "The lender" in run().stderr
            assert asset_of_band(item_of("a", assets={"blau": {"href": "/b.tif"}}), "B02") == "blau"
        assert asset_of_band(item_of("a", assets={"blau": {"href": "/b.tif"}}), "B02") is None
        for target, said in [
            ("h2crop_broken:NOTHING", "cannot be loaded: ModuleNotFoundError"),
            ("json:dumps", "is not a Provider named 'lender'"),
            ("h2crop_data.catalog.providers.dlr:PROVIDER", "is not a Provider named 'lender'"),
        ]:
            folder = tmp_path / target.replace(":", "-") / "h2crop_broken-1.0.dist-info"
            folder.mkdir(parents=True)
            (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: h2crop-broken\nVersion: 1.0\n")
            (folder / "entry_points.txt").write_text(f"[h2crop.providers]\nlender = {target}\n")
            with monkeypatch.context() as patch:
                patch.syspath_prepend(str(folder.parent))
                known_providers.cache_clear()
                with pytest.raises(PluginError, match=said):
                    known_providers()
        known_providers.cache_clear()


@contextmanager
def files_lent_at(place: str, region: TinyRegion, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The lender is installed, and its catalog says that the files of a region lie at a place."""
    for item in region.sentinel2:
        for key, asset in item["assets"].items():
            asset["href"] = f"{place}/{item['id']}/{key}.tif"
    path = region.folder / "lent.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": region.sentinel2}))
    with stac_api(path) as api, lender_installed():
        monkeypatch.setenv("LENDER_API", api)
        yield


class TestCheck:
    def test_one_that_works(self, lender: Lender) -> None:
        result = run("check", "lender")
        assert result.exit_code == 0, result.stderr
        assert "lender sentinel-2-l2a: search ok" in result.stderr
        assert "lender sentinel-2-l2a: read ok: 30 x 30 pixels, GTiff" in result.stderr
        assert MARK not in result.stderr

    def test_a_file_that_is_lost(self, lender: Lender, region: TinyRegion) -> None:
        for path in region.folder.rglob("scl.tif"):
            path.unlink()
        result = run("check", "lender", "--json")
        assert result.exit_code == 1
        steps = json.loads(result.stdout)["lender"]
        assert [(step["step"], step["passed"]) for step in steps] == [
            ("search", True),
            ("account", True),
            ("read", False),
        ]
        assert "scl.tif" in steps[-1]["text"]
        assert "404" in steps[-1]["text"]
        assert "The catalog lists a file that does not exist" in steps[-1]["text"]
        assert "online" not in steps[-1]["text"]
        assert MARK not in result.stdout

    def test_an_account_that_is_missing(self, region: TinyRegion, monkeypatch: pytest.MonkeyPatch) -> None:
        with files_lent_at("s3://lent", region, monkeypatch):
            result = run("check", "lender")
        assert result.exit_code == 1
        assert "lender sentinel-2-l2a: account FAILED: The lender: no S3 keys; ask the lender" in result.stderr

    def test_half_an_account_fails_one_step_and_the_next_provider_is_tried(
        self, region: TinyRegion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("H2CROP_DOWNLOAD_USER", "me")
        with files_lent_at("https://members.lender.example", region, monkeypatch):
            lent_by = known_providers()["lender"]
            both = {"lender": lent_by, "next": replace(lent_by, name="next")}
            monkeypatch.setattr("h2crop_data.cli.providers.known_providers", lambda: both)
            result = run("check", "--json")
        said = "set both H2CROP_DOWNLOAD_USER and H2CROP_DOWNLOAD_PASSWORD, or neither"
        checked = json.loads(result.stdout)
        assert [steps[-1]["text"] for steps in checked.values()] == [said, said]
        assert [steps[-1]["step"] for steps in checked.values()] == ["account", "account"]

    def test_a_file_of_an_archive_that_does_not_answer_has_a_remedy(
        self, region: TinyRegion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with files_lent_at("http://127.0.0.1:9", region, monkeypatch):
            result = run("check", "lender")
        assert result.exit_code == 1
        assert "read FAILED" in result.stderr
        assert "check that this machine is online, and whether it needs a proxy" in result.stderr

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (403, "refuses this machine or requires an account"),
            (404, "The address of the catalog or the name of the collection may have changed"),
            (500, "answers HTTP 500"),
        ],
    )
    def test_a_catalog_that_refuses_is_not_told_to_be_out_of_reach(
        self, monkeypatch: pytest.MonkeyPatch, status: int, said: str
    ) -> None:
        with answering(status) as url, lender_installed():
            monkeypatch.setenv("LENDER_API", url)
            result = run("check", "lender")
        assert result.exit_code == 1
        assert f"answers HTTP {status}" in result.stderr
        assert said in result.stderr
        assert "online" not in result.stderr

    def test_a_catalog_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with lender_installed():
            monkeypatch.setenv("LENDER_API", f"http://me:{MARK}@127.0.0.1:9/stac")
            result = run("check", "lender")
        assert result.exit_code == 1
        assert "search FAILED" in result.stderr
        assert "127.0.0.1" in result.stderr
        assert "check that this machine is online" in result.stderr
        assert MARK not in result.stderr

    def test_an_unknown_name(self) -> None:
        result = run("check", "earth-serach")
        assert result.exit_code != 0
        assert "known: earth-search" in str(result.exception)


class TestBuilds:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_signatures_end_while_a_store_is_built(
        self, region: TinyRegion, lender: Lender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
    ) -> None:
        monkeypatch.setenv("H2CROP_READ_PAUSES", "0,0,0,0,0,0")
        lender.uses = 1_000_000 if workers > 1 else 7
        save_plan(make_plan(lent(region), 2022), tmp_path / "plan")
        build_store(lent(region), tmp_path / "store", workers=workers)
        season = h2crop_data.open(tmp_path / "store", 2022).load()
        for month, expected in ((5, 1000), (7, 2000)):
            bands = season.s2.sel(month=month).values
            np.testing.assert_array_equal(
                bands, np.broadcast_to(np.array([0, 1, 2])[:, None, None] + expected, bands.shape)
            )
        if workers == 1:
            assert lender.signatures > 2
            assert lender.refused > 0
        scenes = read_index(tmp_path / "store", "scenes")
        assert set(scenes["catalog"]) == {"lender"}
        written = [path for name in ("plan", "store") for path in (tmp_path / name).rglob("*") if path.is_file()]
        assert len(written) > 10
        assert not [path for path in written if MARK.encode() in path.read_bytes()]

    @pytest.mark.parametrize("allowed", [True, False])
    def test_keys_of_a_bucket_are_written_nowhere(
        self,
        region: TinyRegion,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        allowed: bool,
    ) -> None:
        """Planted in the environment and in profiles: in a build that works, and in one whose keys are refused."""
        monkeypatch.setenv("H2CROP_READ_PAUSES", "none")
        planted = ["PLANTEDKEYID", "planted/secret+key", "planted-session-token", "planted-password", "planted-cookie"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", planted[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", planted[1])
        monkeypatch.setenv("AWS_SESSION_TOKEN", planted[2])
        monkeypatch.setenv("H2CROP_DOWNLOAD_COOKIE", f"session={planted[4]}")
        netrc = Path.home() / ".netrc"
        netrc.write_text(f"machine 127.0.0.1 login me password {planted[3]}\n")
        netrc.chmod(0o600)
        for item in region.sentinel2:
            for key, asset in item["assets"].items():
                asset["href"] = f"s3://lent/{item['id']}/{key}.tif"
        with s3_server() as server, s3_proxy(server) as proxy:
            put_plainly(server, "lent")
            config = {"access_key_id": "maker", "secret_access_key": "maker", "region": "us-east-1", "endpoint": server}
            bucket = S3Store("lent", config=config, client_options={"allow_http": True})
            for item in region.sentinel2:
                for key in item["assets"]:
                    path = region.folder / "sentinel2" / item["id"] / f"{key}.tif"
                    bucket.put(f"{item['id']}/{key}.tif", path.read_bytes())
            monkeypatch.setenv("LENDER_S3", proxy.url.removeprefix("http://"))
            if not allowed:
                proxy.fault = lambda request: Fault(status=403, code="InvalidAccessKeyId")
            with lender_installed():
                planned = CliRunner().invoke(app, ["plan", str(recipe_file(region)), "--out", str(tmp_path / "plan")])
                assert planned.exit_code == 0, planned.stderr
                store = tmp_path / "store"
                result = CliRunner().invoke(app, ["build", str(recipe_file(region)), "--out", str(store)])
                assert result.exit_code == (0 if allowed else 1), result.stderr
                if allowed:
                    season = h2crop_data.open(store, 2022).load()
                    assert (season.s2.sel(month=7)[:, 0] == 2000).all()
            assert any(planted[0] in request.headers.get("authorization", "") for request in proxy.requests)
        shown = "".join([planned.output, result.output, repr(result.exception), *capfd.readouterr()])
        written = [path for path in tmp_path.rglob("*") if path.is_file() and path != netrc]
        assert written
        for secret in planted:
            assert secret not in shown
            assert not [path for path in written if secret.encode() in path.read_bytes()]


def recipe_file(region: TinyRegion) -> Path:
    """The recipe, written beside its files."""
    region.recipe()
    return region.folder / "recipe.yaml"


@pytest.mark.parametrize("clouds", [{}, {"dilation": "default", "cast_shadows": True, "second_look": True}])
def test_a_missing_account_is_never_a_gap(region: TinyRegion, tmp_path: Path, clouds: dict[str, Any]) -> None:
    for item in region.sentinel2:
        for key in (*item["assets"], "nir08"):
            item["assets"][key] = {"href": f"s3://eodata/{item['id']}/{key}.tif"}
    recipe = region.recipe(sentinel2={"gaps": "record", **({"clouds": clouds} if clouds else {})})
    with pytest.raises(H2cropError, match=r"Copernicus Data Space Ecosystem: no S3 keys.*AWS_ACCESS_KEY_ID"):
        build_store(recipe, tmp_path / "store", workers=1)
    assert not (tmp_path / "store" / "zarr.json").exists()
