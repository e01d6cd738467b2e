"""Tests on real data: skipped without the sample data, never skipped with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "real" / "conftest.py"
READS_DATA = """
    def test_reads(shared):
        assert (shared / "scene.txt").read_text() == "pixels"
"""
SKIPS = """
    import pytest

    def test_skips():
        pytest.skip("the parcel file is missing")
"""


#: Of the pytest that runs inside a test: pytest alone, without the plugins installed here.
OPTIONS = ("--disable-plugin-autoload", "--import-mode=importlib")


@pytest.fixture
def shared_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared folder with one data file; removing it is up to the test."""
    data = tmp_path / "shared" / "data"
    data.mkdir(parents=True)
    (data / "scene.txt").write_text("pixels")
    monkeypatch.setenv("H2CROP_SHARED", str(data.parent))
    return data


def run(pytester: pytest.Pytester, **modules: str) -> pytest.RunResult:
    """Run the given modules in a tests/real with our conftest, beside a test of tests/unit that skips itself.

    The repository is a folder of pytester's, so that its conftest is not imported under the name of the real one.
    """
    pytester.makepyfile(**{f"repository/tests/real/{name}": text for name, text in modules.items()})
    pytester.makepyfile(**{"repository/tests/unit/test_other": SKIPS})
    shutil.copy(CONFTEST, pytester.path / "repository" / "tests" / "real")
    return pytester.runpytest_inprocess(*OPTIONS, "-rs", "repository")


def test_with_the_data_the_fixture_gives_its_folder(pytester: pytest.Pytester, shared_data: Path) -> None:
    run(pytester, test_real=READS_DATA).assert_outcomes(passed=1, skipped=1)


def test_with_the_data_a_skip_is_a_failure_that_names_its_reason(pytester: pytest.Pytester, shared_data: Path) -> None:
    result = run(pytester, test_real=SKIPS)
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*test_real.py::test_skips was skipped although*the parcel file is missing"])


@pytest.mark.parametrize(
    "skips",
    [
        "import pytest\n@pytest.mark.skip(reason='too slow')\ndef test_a(): pass",
        "import pytest\n@pytest.mark.skipif(True, reason='too slow')\ndef test_a(): pass",
        "import pytest\n@pytest.fixture\ndef scene(): pytest.skip('too slow')\ndef test_a(scene): pass",
    ],
    ids=["mark", "condition", "fixture"],
)
def test_with_the_data_no_way_to_skip_is_overlooked(pytester: pytest.Pytester, shared_data: Path, skips: str) -> None:
    outcomes = run(pytester, test_real=skips).parseoutcomes()
    assert outcomes["skipped"] == 1  # the one in tests/unit
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1


def test_with_the_data_a_module_that_skips_itself_is_an_error(pytester: pytest.Pytester, shared_data: Path) -> None:
    result = run(pytester, test_real="import pytest\npytest.importorskip('no_such_module')")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*was skipped although*no_such_module*"])


def test_with_the_data_an_expected_failure_stays_one(pytester: pytest.Pytester, shared_data: Path) -> None:
    fails = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_a(): assert False"
    run(pytester, test_real=fails).assert_outcomes(xfailed=1, skipped=1)


def test_a_shared_folder_without_data_fails(pytester: pytest.Pytester, shared_data: Path) -> None:
    shutil.rmtree(shared_data)
    run(pytester, test_real=READS_DATA).assert_outcomes(errors=1, skipped=1)


def test_without_the_data_every_real_test_is_skipped_with_the_reason(
    pytester: pytest.Pytester, shared_data: Path
) -> None:
    shutil.rmtree(shared_data.parent)
    would_fail = "def test_a(): assert False\ndef test_b(unknown_fixture): pass"
    result = run(pytester, test_real=READS_DATA, test_more=would_fail)
    result.assert_outcomes(skipped=4)
    reason = "no real sample data: */shared does not exist (see H2CROP_SHARED)"
    result.stdout.fnmatch_lines(
        [f"SKIPPED * repository/tests/real/test_{name}.py: {reason}" for name in ("more", "real")]
    )


def test_the_default_lies_beside_the_repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("H2CROP_SHARED", raising=False)
    result = run(pytester, test_real=READS_DATA)
    result.stdout.fnmatch_lines([f"*no real sample data: {pytester.path / 'shared'} does not exist*"])
