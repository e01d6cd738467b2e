"""All readers of a store see one release, whatever a builder has written of the next one when it was killed."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from killed_builds import FatalStorage
from made_stores import checked_store

import h2crop_data
from h2crop_data.cube.retraction import Retractions
from h2crop_data.cube.writer import hold_store
from h2crop_data.maintenance.compare import compare_stores
from h2crop_data.pipeline.sealing import seal_store
from h2crop_data.report.summary import summarize
from h2crop_data.training.dataset import CropSamples

SEASON, BLOCK = 2022, 0


def retract(store: Path, fatal: str) -> None:
    """Retract a block as `h2crop retract` does, and die just before a step."""
    with hold_store(FatalStorage(store, fatal)) as builder:
        retractions = Retractions.read(builder.storage)
        retractions.blocks.setdefault(SEASON, {})[BLOCK] = "haze"
        retractions.write(builder.storage)
        seal_store(builder)


def killed_retract(store: Path, fatal: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=retract, args=(store, fatal))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL


def seen(store: Path, release: int | None = None) -> dict[str, Any]:
    """The samples of the season, by every reader that can choose a release."""
    opened = h2crop_data.open(store, SEASON, release=release)
    index = h2crop_data.read_index(store, f"samples-{SEASON}", release)
    dataset = CropSamples(store, seasons=[SEASON], release=release)
    last = str(index["sample"].iloc[0])
    return {
        "open": opened.sample.values.tolist(),
        "index": index["sample"].tolist(),
        "dataset": list(dataset.ids),
        "values": [int(np.asarray(dataset[i]["s2"], np.int64).sum()) for i in range(len(dataset))],
        "opened values": opened.s2.astype(np.int64).sum(dim=["time", "s2_band", "y", "x"]).values.tolist(),
        "one": h2crop_data.open_sample(store, last, release=release).attrs["release"],
    }


@pytest.mark.parametrize("step", ["delete .build/sealing.json", "write zarr.json"])
def test_a_retract_that_was_killed_between_coordinates_and_root_is_invisible(tmp_path: Path, step: str) -> None:
    store = checked_store(tmp_path)
    before, summary = seen(store), summarize(store)
    whole = h2crop_data.open(store, SEASON).load()
    assert before["open"] == before["index"] == before["dataset"]
    assert before["values"] == before["opened values"]
    killed_retract(store, step)
    plain = xr.open_zarr(str(store), group=str(SEASON))
    # The coordinates are those of the next release already.
    assert int(plain.valid.sum()) < len(before["open"])
    if step.startswith("delete"):
        assert seen(store)["open"] == seen(store)["index"] == seen(store)["dataset"] != before["open"]
        assert seen(store, 1) == before
        xr.testing.assert_identical(h2crop_data.open(store, SEASON, release=1).load(), whole)
        return
    assert seen(store) == before
    assert summarize(store) == summary
    xr.testing.assert_identical(h2crop_data.open(store, SEASON).load(), whole)
    assert compare_stores(store, checked_store(tmp_path / "copy")).same
    with hold_store(store) as builder:
        assert seal_store(builder).number == 2
    assert len(seen(store)["open"]) < len(before["open"])
    assert seen(store)["open"] == seen(store)["index"] == seen(store)["dataset"]
    assert seen(store, 1) == before
