"""Whoever reads a store while a command writes it sees one release, whole; and validation finds no error in it.

Every command that changes a store is run once, and the store is read after each file that it writes or deletes. These
are all the states that a reader can begin in, and all that a command can leave that is killed. What readers see that
run at the same time as commands that are really killed, `make kill-sweep` looks at.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_builds import Sweep
from published_files import make_published
from witnesses import Witness, after_each_step, truth_of

from h2crop_data.maintenance.migrate import migrate_store
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.maintenance.retract import prune_store, retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.published.importing import import_published
from h2crop_data.recipe.model import load_recipe

STORES = Path(__file__).parents[1] / "stores"
Command = Callable[[Path], object]
#: Steps from one validation to the next.
VALIDATED_EVERY = 4


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(tmp_path_factory.mktemp("sweep"), seed=3)


def is_looked_at(step: str) -> bool:
    """Whether readers could see something else after a step: files of blocks that no release has yet change nothing."""
    verb, name = step.split(" ")
    is_shard = name[:2] == "20" and "/c." in name and name.count(".") > 1
    return not (is_shard and verb == "write") and not name.startswith(".build/2")


def watched(command: Command, before: Path, store: Path, rest: Path) -> tuple[Witness, list[str]]:
    """Run a command on a copy of a store, and look at it after every step; gives the witness and the steps.

    rest: where the same is done undisturbed first, so that the truth of what comes out is known.
    """
    truths = {}
    for folder in (rest, store):
        if before.exists():
            shutil.copytree(before, folder)
    if (before / "zarr.json").exists():
        truths |= {number: truth_of(before, number) for number in releases_of(before)}
    command(rest)
    truths |= {number: truth_of(rest, number) for number in releases_of(rest)}
    witness, looked = Witness(store, truths), list[str]()

    def look(step: str) -> None:
        if not is_looked_at(step) or not witness.has_release:
            return
        looked.append(step)
        try:
            witness.look()
            if len(looked) % VALIDATED_EVERY == 1:
                witness.validate()
        except Exception as error:
            raise AssertionError(f"after {step!r}: {error}") from error

    with after_each_step(store, look) as steps:
        command(store)
    witness.look()
    return witness, steps


def releases_of(store: Path) -> list[int]:
    """The releases that can be read."""
    newest = int(json.loads((store / "zarr.json").read_text())["attributes"]["release"])
    copies = [int(path.parent.name[1:]) for path in store.glob("index/r*/root.json")]
    return sorted({newest, *copies})


def test_a_first_build(sweep: Sweep, tmp_path: Path) -> None:
    command = lambda store: build_store(load_recipe(sweep.recipe), store, workers=1)  # noqa: E731
    witness, steps = watched(command, tmp_path / "nothing", tmp_path / "store", tmp_path / "rest")
    assert witness.seen == [1]
    assert "write zarr.json" in steps


def test_a_build_that_grows_a_store(sweep: Sweep, tmp_path: Path) -> None:
    def command(store: Path) -> None:
        build_store(load_recipe(sweep.recipe), store, extend=True, workers=1)

    witness, steps = watched(command, sweep.half, tmp_path / "store", tmp_path / "rest")
    assert witness.seen == [1, 2]
    assert sum(is_looked_at(step) for step in steps) > 50


def test_a_retraction_and_a_pruning(sweep: Sweep, tmp_path: Path) -> None:
    def retract(store: Path) -> None:
        retract_from_store(store, {2022: [1]}, [], "haze")

    witness, steps = watched(retract, sweep.grown, tmp_path / "store", tmp_path / "rest")
    assert witness.seen == [2, 3]
    assert "write 2022/valid/c.0" in steps

    def prune(store: Path) -> None:
        prune_store(store, [])

    witness, steps = watched(prune, tmp_path / "store", tmp_path / "pruned", tmp_path / "pruned rest")
    assert witness.seen == [3]
    assert sum(step.startswith("delete ") for step in steps) > 10


@pytest.mark.parametrize("name", ["1.0", "1.1-grown", "1.2"])
def test_a_migration(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(STORES / f"format-{name}.zip") as archive:
        archive.extractall(tmp_path / "first")
    first = tmp_path / "first"
    witness, steps = watched(
        migrate_store, first / "store" if name == "1.2" else first, tmp_path / "store", tmp_path / "rest"
    )
    assert len(witness.seen) == 2
    assert any(step.endswith("/time/zarr.json") for step in steps)


def test_a_relabelling_and_a_second_one(sweep: Sweep, tmp_path: Path) -> None:
    table = tmp_path / "fr.csv"
    table.write_text("code,hcat3\nBTH,3301010101\nMIS,3301010600\n", encoding="utf-8")

    def relabel(store: Path) -> None:
        relabel_store(sweep.grown, store, tables={"fr": table})

    witness, _ = watched(relabel, tmp_path / "nothing", tmp_path / "store", tmp_path / "rest")
    assert witness.seen == [1]


def test_an_import(tmp_path: Path) -> None:
    make_published(tmp_path / "published")

    def command(store: Path) -> None:
        import_published(tmp_path / "published", store, workers=1)

    witness, steps = watched(command, tmp_path / "nothing", tmp_path / "store", tmp_path / "rest")
    assert witness.seen == [1]
    assert "write zarr.json" in steps
