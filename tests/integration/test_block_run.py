"""One run over pending blocks, batch by batch: the same bytes as at once, nothing read twice, failures listed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from killed_builds import contents, small_region

from h2crop_data.cube.writer import hold_store
from h2crop_data.errors import UsageError
from h2crop_data.pipeline.block_run import BlockRun, BuiltBlocks, SeasonBlock
from h2crop_data.pipeline.build import build_store, recorded_plans
from h2crop_data.pipeline.engine import BlockOutcome, BuildError, Workers
from h2crop_data.pipeline.sealing import seal_store
from h2crop_data.recipe.model import Recipe, load_recipe

BLOCKS = {(season, block) for season in (2022, 2023) for block in range(4)}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Two seasons of four blocks, which are read together."""
    small_region(tmp_path / "region")
    return load_recipe(tmp_path / "region/recipe.yaml")


@contextmanager
def block_run(recipe: Recipe, store: Path, workers: int = 1) -> Iterator[BlockRun]:
    """A run that is sealed after."""
    with hold_store(store) as builder:
        with BlockRun(builder, recorded_plans(builder, recipe).plans, Workers(workers)) as run:
            yield run
        seal_store(builder)


def in_batches(recipe: Recipe, store: Path, size: int) -> tuple[BuiltBlocks, list[SeasonBlock]]:
    """Build in batches; what was built, and in which order."""
    order = []
    with block_run(recipe, store) as run:
        for batch in run.batches(size):
            order += [(outcome.season, outcome.block) for outcome in run.build(batch)]
        return run.finish(), order


@pytest.mark.parametrize("size", [1, 3])
def test_batches_give_the_same_store_and_read_nothing_twice(recipe: Recipe, tmp_path: Path, size: int) -> None:
    report = build_store(recipe, tmp_path / "at once", workers=1)
    blocks, order = in_batches(recipe, tmp_path / "store", size)
    assert set(order) == BLOCKS
    assert len(order) == blocks.built == len(BLOCKS)
    assert contents(tmp_path / "store") == contents(tmp_path / "at once")
    assert blocks.read.tiles == report.tiles_read > 0
    assert not any(tmp_path.rglob("*.part"))


def test_parts_of_cells_wait_for_the_batch_that_needs_them(recipe: Recipe, tmp_path: Path) -> None:
    with block_run(recipe, tmp_path / "store") as run:
        first, *others = run.batches(1)
        run.build(first)
        waiting = {path.parent.name for path in tmp_path.rglob("*.part")}
        # One reading gives parts of all four cells; those of the first are deleted.
        assert len(waiting) == 3
        for batch in others:
            run.build(batch)
        run.finish()


def test_a_failed_block_is_listed_and_built_when_it_is_given_again(recipe: Recipe, tmp_path: Path) -> None:
    build_store(recipe, tmp_path / "at once", workers=1)
    image = next((tmp_path / "region").glob("enmap/*20230724*/SPECTRAL_IMAGE.TIF"))
    seen: list[tuple[BlockOutcome, int, int]] = []
    with block_run(recipe, tmp_path / "store") as run:
        assert (run.missing, run.already_done) == (8, 0)
        aside = image.rename(tmp_path / "aside.tif")
        run.run_units()
        for batch in run.batches(3):
            run.build(batch, lambda *one: seen.append(one))
        assert [(done, total) for _, done, total in seen] == [(done, 8) for done in range(1, 9)]
        with pytest.raises(
            BuildError, match=r"4 of 8 blocks failed:\n  season 2023 block 0: .*SPECTRAL_IMAGE"
        ) as caught:
            run.finish()
        failed = [(outcome.season, outcome.block) for outcome in caught.value.failed]
        assert failed == [(2023, block) for block in range(4)]
        aside.rename(image)
        again = [outcome for batch in run.batches(3) for outcome in run.build(batch)]
        assert [(outcome.season, outcome.block) for outcome in again] == failed
        assert all(outcome.error is None for outcome in again)
        assert run.finish().built == 8
    assert contents(tmp_path / "store") == contents(tmp_path / "at once")


def test_a_run_goes_on_where_another_ended(recipe: Recipe, tmp_path: Path) -> None:
    build_store(recipe, tmp_path / "at once", workers=1)
    with hold_store(tmp_path / "store") as builder:
        plans = recorded_plans(builder, recipe).plans
        with BlockRun(builder, plans, Workers(1)) as run:
            run.build(run.batches(3)[0])
            # Blocks are left, and what is read for them.
            assert run.finish().built == 3
        assert any(tmp_path.rglob("*.part"))
    blocks, _ = in_batches(recipe, tmp_path / "store", 8)
    assert (blocks.already_done, blocks.built) == (3, 5)
    assert contents(tmp_path / "store") == contents(tmp_path / "at once")


def test_blocks_that_are_not_to_be_built_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    with block_run(recipe, tmp_path / "store") as run:
        with pytest.raises(UsageError, match="unknown block 9 of season 2022"):
            run.build([(2022, 0), (2022, 9)])
        for batch in run.batches(8):
            run.build(batch)
        # What is built is not built again.
        assert run.build([(2022, 0)]) == []
        run.finish()
    with block_run(recipe, tmp_path / "store") as run:
        assert (run.missing, run.already_done, run.batches(8)) == (0, 8, [])


def test_workers_must_make_sense() -> None:
    with pytest.raises(UsageError, match="workers: 0; give 1 or more"):
        Workers(0)
    with pytest.raises(UsageError, match="expected an address of a scheduler with the kind dask"):
        Workers(1, "processes", "tcp://127.0.0.1:8786")
    with pytest.raises(UsageError, match="got the kind dask with scheduler none"):
        Workers(1, "dask")
