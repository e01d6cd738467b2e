"""The Prefect flow builds what the command builds."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from prefect.states import Failed
from prefect.testing.utilities import prefect_test_harness
from tiny_region import EAST, NORTH, SOUTH, WEST, TinyRegion

from h2crop_data.errors import CatalogError, PlanError, ReadError, RecipeError, StoreError, UsageError
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import BuildError

FLOW = Path(__file__).parents[2] / "flows/build.py"


@pytest.fixture(scope="module")
def flow() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flows_build", FLOW)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A Prefect server of this test's own, on this machine, with a database of its own."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


def contents(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file() and path.relative_to(store).parts[0] != ".build"
    }


@pytest.mark.usefixtures("server")
def test_the_flow_gives_the_same_bytes_as_the_command(flow: ModuleType, region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z", 1500)
    region.add_enmap()
    region.write_parcels(2022, [((WEST, SOUTH, EAST, NORTH), "BTH")])
    recipe = region.recipe()
    build_store(recipe, tmp_path / "command")
    report = flow.build_dataset(str(region.folder / "recipe.yaml"), str(tmp_path / "flow"), workers=1)
    assert (report["built"], report["release"], report["samples"]) == (2, 1, 4)
    assert contents(tmp_path / "flow") == contents(tmp_path / "command")
    again = flow.build_dataset(str(region.folder / "recipe.yaml"), str(tmp_path / "flow"))
    assert (again["built"], again["already_done"], again["release"]) == (0, 2, 1)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (CatalogError("HTTP 503"), True),
        (ReadError("cannot read"), True),
        (BuildError("1 of 2 blocks failed"), True),
        (RecipeError("wrong"), False),
        (UsageError("wrong"), False),
        (StoreError("No space left on device"), False),
    ],
)
def test_only_what_may_recover_is_tried_again(flow: ModuleType, error: Exception, again: bool) -> None:
    assert flow.may_recover(None, None, Failed(data=error)) is again


@pytest.mark.usefixtures("server")
def test_what_cannot_recover_is_not_tried_again(flow: ModuleType, region: TinyRegion, tmp_path: Path) -> None:
    region.add_enmap(quality=2)
    region.recipe()
    with pytest.raises(PlanError, match="no EnMAP scene gives a cell"):
        flow.build_dataset(str(region.folder / "recipe.yaml"), str(tmp_path / "store"))
