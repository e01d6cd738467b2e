"""Stores by a builder that has one line of its source changed: whole, with right checksums, and not true.

Each store is built by a copy of the package in which one line is another one, in a process of its own. These fork from
one process that has loaded what the package needs, so that a store takes a second or two.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Falsehood:
    """A line of the builder, and what stands there instead."""

    #: Below `h2crop_data`.
    file: str
    line: str
    instead: str


def link_or_copy(source: str, target: str) -> None:
    """A file a second time, as a link where both places are on one file system."""
    try:
        os.link(source, target)
    except OSError as failure:
        if failure.errno != errno.EXDEV:
            raise
        shutil.copy(source, target)


def falsified_package(falsehood: Falsehood | None, folder: Path) -> None:
    """A copy of the package below a folder with one line changed; None: as it is. Raises ValueError for a line lost."""
    package = folder / "h2crop_data"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "h2crop_data", package, copy_function=link_or_copy, ignore=ignored)
    (folder / "taxonomy").symlink_to(CHECKOUT / "taxonomy")
    if falsehood is None:
        return
    path = package / falsehood.file
    source = path.read_text(encoding="utf-8")
    if source.count(falsehood.line) != 1:
        raise ValueError(f"{falsehood.file} has {source.count(falsehood.line)} times {falsehood.line!r}; expected one")
    # Another file, not another content of the one that is linked.
    path.unlink()
    path.write_text(source.replace(falsehood.line, falsehood.instead), encoding="utf-8")


def falsified_stores(
    recipe: Path, falsehoods: Mapping[str, Falsehood | None], folder: Path, processes: int = 2
) -> dict[str, Path]:
    """A store of the recipe by each builder, by name; those that failed raise RuntimeError with what they said."""
    jobs = {}
    for name, falsehood in falsehoods.items():
        place = folder / name.replace(" ", "-")
        falsified_package(falsehood, place / "package")
        jobs[name] = str(place)
    arguments = [sys.executable, str(Path(__file__)), json.dumps({"recipe": str(recipe), "jobs": jobs, "n": processes})]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    failed = {name: place for name, place in jobs.items() if not (Path(place) / "store/zarr.json").is_file()}
    if done.returncode or failed:
        raise RuntimeError(f"no store by {', '.join(failed)}:\n{done.stdout}\n{done.stderr}")
    return {name: Path(place) / "store" for name, place in jobs.items()}


def build(recipe: str, place: Path) -> None:
    """Build a store by the copy of the package below a folder."""
    for name in [name for name in sys.modules if name.split(".")[0] == "h2crop_data"]:
        del sys.modules[name]
    sys.path.insert(0, str(place / "package"))
    import h2crop_data
    from h2crop_data.pipeline.build import build_store
    from h2crop_data.recipe.model import load_recipe

    assert Path(h2crop_data.__file__).is_relative_to(place), h2crop_data.__file__
    build_store(load_recipe(Path(recipe)), place / "store", workers=1)


def main() -> None:
    """Build the stores that the argument lists, some at a time."""
    # What the package needs is loaded once, before the forks.
    import h2crop_data.pipeline.build
    import h2crop_data.sources.registry  # noqa: F401

    request = json.loads(sys.argv[1])
    running: set[int] = set()
    for name, place in request["jobs"].items():
        if len(running) >= request["n"]:
            running.discard(os.wait()[0])
        child = os.fork()
        if child:
            running.add(child)
            continue
        try:
            build(request["recipe"], Path(place))
        except BaseException:  # noqa: BLE001 -- the child says why, whatever it is, and ends without what pytest would do
            print(name, traceback.format_exc(), flush=True)
        finally:
            os._exit(0)
    while running:
        running.discard(os.wait()[0])


if __name__ == "__main__":
    main()
