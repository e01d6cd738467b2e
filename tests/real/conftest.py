"""Tests on the real sample data, which lies outside the repository: skipped without it, never skipped with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


def shared_folder() -> Path:
    """The folder named by H2CROP_SHARED (relative to the repository), ../shared by default; it may not exist."""
    return (REPOSITORY / (os.environ.get("H2CROP_SHARED") or "../shared")).resolve()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the real sample data."""
    data = shared_folder() / "data"
    if not data.is_dir():
        pytest.fail(f"{shared_folder()} exists but holds no folder named data")
    return data


@pytest.fixture(scope="session")
def build_real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that builds a recipe (for other seasons, into a folder that is there) and gives the store."""

    def build(recipe: Path, seasons: list[int] | None = None, store: Path | None = None) -> Path:
        from h2crop_data.pipeline.build import build_store
        from h2crop_data.recipe.model import load_recipe

        folder = store or tmp_path_factory.mktemp(recipe.stem) / "store"
        chosen = load_recipe(recipe)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("H2CROP_SHARED", str(shared.parent))
            build_store(chosen.for_seasons(seasons) if seasons else chosen, folder, workers=1)
        return folder

    return build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shared_folder().is_dir():
        return
    absent = pytest.mark.skip(reason=f"no real sample data: {shared_folder()} does not exist (see H2CROP_SHARED)")
    for item in items:  # of every folder, not of this one only
        if item.path.is_relative_to(HERE):
            item.add_marker(absent, append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    # A module that skips itself (importorskip) leaves no test behind that could be reported as skipped.
    report = yield
    fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail") or not shared_folder().is_dir():
        return
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} was skipped although the real sample data is in {shared_folder()}: {reason}"
