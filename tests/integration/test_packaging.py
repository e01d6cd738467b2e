"""The wheel, the wheel made from the source distribution, and the editable install all work away from the checkout."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
RECIPES = {path.name for path in (REPOSITORY / "h2crop_data" / "recipe" / "shipped").glob("*.yaml")}
TAXONOMY = {
    path.relative_to(REPOSITORY / "taxonomy").as_posix()
    for path in (REPOSITORY / "taxonomy").rglob("*")
    if path.is_file()
}

#: What an installed h2crop says about itself, as one JSON object.
QUESTION = """
import importlib.resources, json
import h2crop_data
from h2crop_data.crops.files import taxonomy_folder

folder = taxonomy_folder()
print(json.dumps({
    "package": h2crop_data.__file__,
    "version": h2crop_data.__version__,
    "taxonomy_folder": str(folder),
    "taxonomy": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
    "recipes": sorted(
        entry.name for entry in importlib.resources.files("h2crop_data").joinpath("recipe/shipped").iterdir()
        if entry.name.endswith(".yaml") and entry.read_text(encoding="utf-8")
    ),
    "typed": importlib.resources.files("h2crop_data").joinpath("py.typed").is_file(),
}))
"""


def run(*command: str | Path, cwd: Path, pythonpath: Path | None = None) -> str:
    """The output of a command that finds modules only in `pythonpath` and in this environment."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if pythonpath is not None:
        environment["PYTHONPATH"] = str(pythonpath)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """Build `source` and return the one file made. Without isolation: no network, the pinned backend."""
    run(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, source, cwd=out.parent)
    (made,) = out.iterdir()
    return made


def ask(cwd: Path, pythonpath: Path | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(sys.executable, "-c", QUESTION, cwd=cwd, pythonpath=pythonpath))
    return answer


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", REPOSITORY, tmp_path_factory.mktemp("sdist") / "dist")


@pytest.fixture(scope="session", params=["checkout", "sdist"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made from the checkout, and the one made from the unpacked source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    source = REPOSITORY
    if request.param == "sdist":
        with tarfile.open(request.getfixturevalue("sdist")) as archive:
            # Python 3.11.2, which Debian 12 has, knows no filters.
            safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(folder, **safely)
        (source,) = folder.iterdir()
    return build("wheel", source, folder / "dist")


def test_the_wheel_holds_every_module_and_nothing_beside_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    version = importlib.metadata.version("h2crop-data")
    assert {name.split("/")[0] for name in names} == {"h2crop_data", f"h2crop_data-{version}.dist-info"}
    # A careless pattern in .gitignore leaves out h2crop_data/pipeline.
    modules = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "h2crop_data").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


def test_the_wheel_has_the_command_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        assert "h2crop = h2crop_data.cli.main:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert b"Apache License" in archive.read(f"{info}/licenses/LICENSE")


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    run(*pip, "--target", target, wheel, cwd=elsewhere)

    answer = ask(elsewhere, pythonpath=target)

    # The checkout is importable here too, by the editable install: the answer must come from the wheel.
    assert Path(answer["package"]) == target / "h2crop_data" / "__init__.py"
    assert Path(answer["taxonomy_folder"]).is_relative_to(target)
    assert "tiers.csv" in answer["taxonomy"]
    assert set(answer["taxonomy"]) == TAXONOMY
    assert answer["recipes"]
    assert set(answer["recipes"]) == RECIPES
    assert answer["typed"]
    assert f"-{answer['version']}-" in wheel.name


def test_the_editable_install_reads_the_checkout(tmp_path: Path) -> None:
    answer = ask(tmp_path)
    assert Path(answer["package"]) == REPOSITORY / "h2crop_data" / "__init__.py"
    # Not the copy that the editable install leaves in site-packages: it goes stale with the first edit.
    assert Path(answer["taxonomy_folder"]) == REPOSITORY / "taxonomy"
    assert "tiers.csv" in answer["taxonomy"]
    assert set(answer["recipes"]) == RECIPES
    assert answer["version"] == importlib.metadata.version("h2crop-data")


def test_training_brings_no_torchvision() -> None:
    # With torchvision beside torch, `import lightning` fails in some environments.
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "torch==2.13.0" in pins
    installed = {distribution.name.lower() for distribution in importlib.metadata.distributions()}
    assert "torch" in installed
    assert "torchvision" not in installed | {pin.split("==")[0].lower() for pin in pins}
