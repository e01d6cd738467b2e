"""Variables of the environment: declared once, checked when they are read, and secrets shown nowhere."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError
from script_modules import script_module
from source_trees import nodes_of
from typer.testing import CliRunner

import h2crop_data
from h2crop_data import settings
from h2crop_data.catalog.accounts import Account, s3_keys
from h2crop_data.cli.main import app
from h2crop_data.errors import UsageError
from h2crop_data.pipeline.engine import Workers
from h2crop_data.pipeline.units import scratch_folder, work_folder
from h2crop_data.settings import Buckets, Builders, Folders, Keys, declared_variables, unknown_variables
from h2crop_data.storage.requests import Patience, connect

PACKAGE = Path(h2crop_data.__file__).parent
CHECKOUT = PACKAGE.parent
SECRETS = [one for one in declared_variables() if one.secret]
#: Modules that look into the environment themselves, and why.
OWN_WAY = {
    "h2crop_data/settings/variables.py": "is where it is read",
    "h2crop_data/settings/environment.py": "tells what is set, and reads what recipes name",
    "h2crop_data/settings/acting.py": "tells worker processes how many they are, and takes empty AWS_ variables out",
    "h2crop_data/simulate/workers.py": "sets variables of libraries for processes it starts, and restores them",
}
#: Names in code and documents that are no variables of an environment here, and why.
NO_VARIABLES = {
    **dict.fromkeys(
        ("AWS_S3_ENDPOINT", "AWS_REQUEST_PAYER", "AWS_VIRTUAL_HOSTING", "AWS_HTTPS"), "options that GDAL is given"
    ),
    **dict.fromkeys(
        re.findall(r"^((?:PREFECT|DASK)_\w+)=", (CHECKOUT / "infra/example.env").read_text("utf-8"), re.MULTILINE),
        "of the Compose file alone, explained in infra/example.env",
    ),
    "DASK_MS": "a constant of docs/scale_figures.py",
}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name for one in declared_variables() for name in one.names} | {
        name for name in os.environ if name.startswith("H2CROP_")
    }
    for name in names - {"TMPDIR"}:
        monkeypatch.delenv(name, raising=False)


def test_the_page_has_the_table_of_what_is_declared() -> None:
    script = script_module("docs/variables.py")
    page = (CHECKOUT / "docs/configuration.md").read_text(encoding="utf-8")
    assert page.count(script.BEGIN + script.table() + script.END) == 1, "run `python docs/variables.py`"


def test_each_variable_is_declared_once_with_a_meaning() -> None:
    names = [one.name for one in declared_variables()]
    assert len(set(names)) == len(names)
    assert all(one.text and one.group and one.read_by for one in declared_variables())
    # Secrets cannot be told from their values.
    assert {one.name for one in SECRETS} >= {
        one for one in names if re.search("PASSWORD|SECRET|TOKEN|COOKIE|AUTH|KEY$|KEY_ID", one)
    }


def reads_of_environment(nodes: Iterable[ast.AST]) -> list[str]:
    """What of some code looks into the environment, but through `settings`."""
    found = []
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "expandvars"}:
            found.append(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module in {"os", "os.path"}:
            found += [one.name for one in node.names if one.name in {"environ", "environb", "getenv", "expandvars"}]
        elif isinstance(node, ast.keyword) and node.arg == "envvar":
            found.append("envvar")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value == "environ":
            found.append("environ")
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.environ['A']",
        "import os as o; o.environ.get('A')",
        "from os import environ as e; e['A']",
        "import os; os.getenv('A')",
        "import os; os.path.expandvars('$A')",
        "import os; getattr(os, 'environ')['A']",
        "import typer; typer.Option(envvar='A')",
    ],
)
def test_the_search_for_reads_finds_them(code: str) -> None:
    assert reads_of_environment(ast.walk(ast.parse(code)))


@pytest.mark.slow
def test_no_code_reads_a_variable_past_the_declarations() -> None:
    files = [*PACKAGE.rglob("*.py"), *(CHECKOUT / "flows").glob("*.py")]
    reading = {path.relative_to(CHECKOUT).as_posix() for path in files if reads_of_environment(nodes_of(path))}
    assert reading == OWN_WAY.keys()


def test_every_variable_that_code_documents_and_infra_name_is_declared() -> None:
    places = [PACKAGE, CHECKOUT / "flows", CHECKOUT / "docs", CHECKOUT / "infra", CHECKOUT / "README.md"]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    suffixes = {".py", ".md", ".yaml", ".sh", ".env", ".service", ".timer"}
    texts = [file.read_text(encoding="utf-8") for file in files if file.suffix in suffixes]
    pattern = re.compile(r"(?<!\w)(?:H2CROP|PREFECT|DASK|AWS|OTEL)_[A-Z0-9_]*[A-Z0-9](?!\w)")
    named = {name for text in texts for name in pattern.findall(text)} - NO_VARIABLES.keys()
    assert {name.split("_")[0] for name in named} == {"H2CROP", "PREFECT", "DASK", "AWS", "OTEL"}
    assert NO_VARIABLES.keys() <= {name for text in texts for name in pattern.findall(text)}
    assert sorted(named - {one.name for one in declared_variables()}) == []


class TestReading:
    def test_what_is_set_counts_at_the_next_read_and_empty_is_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Folders.read().work_bytes == 50_000_000_000
        monkeypatch.setenv("H2CROP_WORK_GB", "0.5")
        assert Folders.read().work_bytes == 500_000_000
        monkeypatch.setenv("H2CROP_WORK_GB", "")
        assert Folders.read().work_bytes == 50_000_000_000

    def test_names_are_as_they_are_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("h2crop_work_gb", "1")
        assert Folders.read().work_gb == 50

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            (
                "H2CROP_WORK_GB",
                "much",
                "H2CROP_WORK_GB is 'much': expected a number of gigabytes from 0, such as 20 or 0.5",
            ),
            ("H2CROP_WORK_GB", "-1", "H2CROP_WORK_GB is '-1': expected a number of gigabytes"),
            ("H2CROP_SCRATCH_GB", "nan", "H2CROP_SCRATCH_GB is 'nan': expected a number of gigabytes"),
            ("H2CROP_WORKERS", "0", "H2CROP_WORKERS is '0': expected a whole number from 1"),
            ("H2CROP_DASK", "node7", "H2CROP_DASK is 'node7': expected tcp://HOST:PORT or tls://HOST:PORT"),
            ("H2CROP_SHARING_PROCESSES", "x", "H2CROP_SHARING_PROCESSES is 'x': expected a whole number from 1"),
            ("AWS_ALLOW_HTTP", "perhaps", "AWS_ALLOW_HTTP is 'perhaps': expected true or false"),
            (
                "H2CROP_DOWNLOAD_COOKIE",
                "broken",
                "H2CROP_DOWNLOAD_COOKIE: invalid value, expected `name=value; name=value`",
            ),
        ],
    )
    def test_a_wrong_value_is_named_with_what_is_expected(
        self, name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value)
        group = next(one for one in settings.GROUPS if name in {each.name for each in one.variables()})
        with pytest.raises(UsageError) as caught:
            group.read()
        assert str(caught.value).startswith(said)
        for other in settings.GROUPS:
            if other is not group:
                other.read()

    def test_only_what_h2crop_reads_is_checked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for one in declared_variables():
            if "h2crop" not in one.read_by:
                monkeypatch.setenv(one.name, "odd\t= ;")
        assert all(not group.examined()[1] for group in settings.GROUPS)

    def test_all_that_is_wrong_in_a_group_is_told_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("H2CROP_WORK_GB", "a")
        monkeypatch.setenv("H2CROP_SCRATCH_GB", "b")
        with pytest.raises(UsageError, match=r"H2CROP_WORK_GB is 'a'.*; H2CROP_SCRATCH_GB is 'b'"):
            Folders.read()

    def test_the_server_is_the_first_that_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Buckets.read().server is None
        for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.setenv(name, f"https://{name}")
            assert Buckets.read().server == f"https://{name}"

    def test_every_default_of_the_table_that_is_a_value_is_one_that_may_be_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = [group.read() for group in settings.GROUPS]
        for group in settings.GROUPS:
            for field in group.model_fields.values():
                if field.default is not None and field.default != "":
                    monkeypatch.setenv(str(field.validation_alias), settings.shown_default(field.default))
        assert [group.read() for group in settings.GROUPS] == before


class TestEmptyVariablesOfBuckets:
    """obstore reads the environment too: what is empty there would be an address, a key or a boolean."""

    @pytest.fixture(autouse=True)
    def _refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keys, and a proxy where nobody listens: no request leaves this machine."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            monkeypatch.setenv("AWS_PROXY_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "any")

    @pytest.mark.parametrize(
        "name",
        [
            *(
                one.name
                for one in [*Buckets.variables(), *Keys.variables()]
                if not one.name.endswith(("PROXY_URL", "KEY", "KEY_ID"))
            ),
            "AWS_REQUEST_PAYER",
            "AWS_CONDITIONAL_PUT",
        ],
    )
    def test_they_count_as_not_set(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, "")
        store = connect("bucket", None, Patience(retry=0))
        with pytest.raises(BaseError, match="Connection refused") as caught:
            obstore.head(store, "key")
        assert "https://s3.us-east-1.amazonaws.com/bucket/key" in str(caught.value)

    def test_no_keys_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        store = connect("bucket", None, Patience(retry=0))
        with pytest.raises(BaseError, match="Connection refused"):
            obstore.head(store, "key")


class TestPrecedence:
    def test_options_go_before_variables_before_one_worker_a_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cores = os.cpu_count() or 1
        assert Workers.of(None) == Workers.chosen(None, False, None) == Workers(cores)
        monkeypatch.setenv("H2CROP_WORKERS", "7")
        assert Workers.of(None) == Workers(7)
        assert Workers.chosen(None, True, "") == Workers(7, "processes")
        assert Workers.chosen(3, False, None) == Workers.of(3) == Workers(3)

    def test_a_cluster_of_the_environment_builds_where_no_workers_of_this_machine_are_chosen(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("H2CROP_DASK", "tcp://scheduler:8786")
        assert Workers.chosen(None, False, "").scheduler == "tcp://scheduler:8786"
        assert Workers.chosen(None, False, "tcp://other:8786").scheduler == "tcp://other:8786"
        assert Workers.chosen(2, False, None) == Workers(2)
        assert Workers.chosen(None, True, None).kind == "processes"
        with pytest.raises(UsageError, match="--dask cannot be combined"):
            Workers.chosen(2, False, "tcp://other:8786")

    def test_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = str(tmp_path / "store")
        assert scratch_folder(store) == tmp_path / "store/.build/work/scratch"
        monkeypatch.setenv("H2CROP_SCRATCH", str(tmp_path / "fast"))
        assert scratch_folder(store).parent == tmp_path / "fast"
        assert scratch_folder(store, tmp_path / "given").parent == tmp_path / "given"
        monkeypatch.setenv("H2CROP_WORK_GB", "0.001")
        assert work_folder(store).bound == 1_000_000

    def test_downloads_need_a_folder(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, ["enmap", "fetch", "h2crop-france.yaml", "--into", str(tmp_path / "mine.json")])
        assert isinstance(done.exception, UsageError)
        assert "set H2CROP_CACHE" in str(done.exception)


class TestSecrets:
    @pytest.fixture
    def planted(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Values that only secret variables have."""
        values = []
        for number, one in enumerate(SECRETS):
            values.append(f"planted-{number}-secret")
            monkeypatch.setenv(one.name, f"session={values[-1]}" if "COOKIE" in one.name else values[-1])
        return values

    def test_no_group_shows_them(self, planted: list[str]) -> None:
        for group in settings.GROUPS:
            found = group.read()
            shown = "\n".join([repr(found), str(found), str(found.model_dump()), found.model_dump_json()])
            shown += f"{found!r:}{found.__dict__}{list(group.variables())}"
            assert not [value for value in planted if value in shown]

    def test_they_reach_those_whom_they_are_for(self, planted: list[str]) -> None:
        account, keys = Account.from_environment(), s3_keys("copernicus")
        assert keys is not None
        reached = {account.user, account.password, account.cookie.removeprefix("session=")}
        assert {*reached, keys.key_id, keys.secret, keys.token} <= set(planted)
        assert settings.text_of(Buckets.read().proxy) in planted

    def test_errors_of_wrong_values_beside_them_do_not_show_them(
        self, planted: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("H2CROP_DOWNLOAD_COOKIE", "planted cookie of no form")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "perhaps")
        for read in (Account.from_environment, Buckets.read):
            with pytest.raises(UsageError) as caught:
                read()
            whole = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            # Locals of this test have the planted values themselves.
            whole.stack = traceback.StackSummary.from_list([one for one in whole.stack if one.filename != __file__])
            shown = "".join(whole.format()) + repr(caught.value)
            assert caught.value.__context__ is None
            assert not [value for value in [*planted, "planted cookie"] if value in shown]

    @pytest.mark.slow
    def test_the_command_does_not_show_them(self, planted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "https://me:planted-in-address@s3.example.org?token=planted-in-query")
        monkeypatch.setenv("H2CROP_DOWNLOAD_PASWORD", "planted-by-typing-error")
        monkeypatch.setenv("H2CROP_DOWNLOAD_COOKIE", "planted cookie of no form")
        for options in ([], ["--json"]):
            command = [sys.executable, "-m", "h2crop_data", "config", *options]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 1, done.stderr
            assert "s3.example.org" in done.stdout + done.stderr
            assert not [value for value in [*planted, "planted"] if value in done.stdout + done.stderr]
        found = {one["name"]: one for one in json.loads(done.stdout)["variables"]}
        assert found["H2CROP_DOWNLOAD_PASSWORD"]["value"] == "set"
        assert found["H2CROP_DOWNLOAD_COOKIE"]["problem"].endswith("invalid value, expected `name=value; name=value`")


class TestCommand:
    def report(self, code: int) -> dict[str, object]:
        done = CliRunner().invoke(app, ["config", "--json"])
        assert done.exit_code == code
        return json.loads(done.stdout)

    def test_each_variable_with_its_value_and_where_that_comes_from(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("H2CROP_WORKERS", "3")
        report = self.report(0)
        assert report["problems"] == []
        found = {one["name"]: (one["set"], one["value"], one["source"]) for one in report["variables"]}
        assert found.keys() == {one.name for one in declared_variables()}
        assert found["H2CROP_WORKERS"] == (True, "3", "environment")
        assert found["H2CROP_SCRATCH_GB"] == (False, "20", "default")
        assert found["H2CROP_CACHE"] == found["AWS_SECRET_ACCESS_KEY"] == (False, "not set", "")

    def test_what_is_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("H2CROP_WORKERS", "many")
        monkeypatch.setenv("H2CROP_SCRATH", "/fast")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one of two")
        report = self.report(1)
        assert report["unknown"] == {"H2CROP_SCRATH": "H2CROP_SCRATCH"}
        assert report["problems"] == [
            "H2CROP_WORKERS is 'many': expected a whole number from 1",
            "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY: set both or neither",
            "unknown variable H2CROP_SCRATH: nothing reads it; did you mean H2CROP_SCRATCH?",
        ]

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("H2CROP_WORKER", "H2CROP_WORKERS"),
            ("H2CROP_DOWNLOADPASSWORD", "H2CROP_DOWNLOAD_PASSWORD"),
            ("H2CROP_ZZZZZZ", ""),
            ("H2CROP_VERBOSITY", ""),
        ],
    )
    def test_the_nearest_name(self, typed: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(typed, "x")
        assert unknown_variables() == {typed: meant}
        [problem] = self.report(1)["problems"]
        assert problem == f"unknown variable {typed}: nothing reads it" + (f"; did you mean {meant}?" if meant else "")

    def test_small_letters_of_proxies_count_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://large.example")
        monkeypatch.setenv("https_proxy", "http://me:planted@small.example")
        monkeypatch.setenv("no_proxy", "small.example")
        found = {one["name"]: one["value"] for one in self.report(0)["variables"]}
        assert (found["HTTPS_PROXY"], found["NO_PROXY"]) == ("set", "small.example")

    def test_an_empty_variable_is_not_set_and_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "")
        found = {one["name"]: one for one in self.report(0)["variables"]}
        assert (found["AWS_ENDPOINT_URL"]["set"], found["AWS_ENDPOINT_URL"]["empty"]) == (False, True)
        assert [name for name, one in found.items() if one["empty"]] == ["AWS_ENDPOINT_URL"]
        assert "AWS_ENDPOINT_URL  " in (shown := CliRunner().invoke(app, ["config"]).output)
        assert shown.count("(the variable is empty)") == 1

    def test_a_build_says_which_variable_is_wrong_as_for_a_wrong_option(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("H2CROP_WORKERS", "many")
        done = CliRunner().invoke(app, ["build", "h2crop-france.yaml", "--out", "unused"])
        assert isinstance(done.exception, UsageError)
        assert str(done.exception) == "H2CROP_WORKERS is 'many': expected a whole number from 1"


def test_defaults_of_builders_are_those_of_the_table() -> None:
    stated = {one.name: one.default for one in declared_variables()}
    assert stated["H2CROP_SCRATCH_GB"] == f"{settings.SCRATCH_BYTES / 1e9:g}"
    assert stated["H2CROP_WORKERS"] == "one a core"
    assert Builders.read().workers is None
