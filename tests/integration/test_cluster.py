"""Builds on a real Dask cluster: processes of this machine that speak over TCP, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_cluster import DaskCluster, dask_cluster
from killed_builds import differences, small_region

from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.engine import Workers
from h2crop_data.recipe.model import Recipe, load_recipe


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("region")
    small_region(folder)
    return folder


@pytest.fixture(scope="module")
def recipe(region: Path) -> Recipe:
    return load_recipe(region / "recipe.yaml")


@pytest.fixture(scope="module")
def reference(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store, built by threads of this process."""
    store = tmp_path_factory.mktemp("reference") / "store"
    build_store(recipe, store, workers=1)
    return store


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def on(cluster: DaskCluster) -> Workers:
    return Workers(1, "dask", cluster.address)


def test_a_cluster_builds_byte_for_byte_what_one_thread_builds(
    cluster: DaskCluster, recipe: Recipe, reference: Path, tmp_path: Path
) -> None:
    report = build_store(recipe, tmp_path / "store", workers=on(cluster))
    assert report.built == 16
    assert differences(tmp_path / "store", reference) == []
