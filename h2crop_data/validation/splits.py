"""That no ground is in two splits: cells, footprints, squares, and what the index says of them."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from h2crop_data.constants import NONE
from h2crop_data.cube.index import square_table
from h2crop_data.grid import split_of_square
from h2crop_data.splits.squares import leaks
from h2crop_data.validation.findings import Finding, Findings, error, first, warning
from h2crop_data.validation.release import Release

LEAK_COLUMNS = ["sample", "cell", "epsg", "x0", "y0", "split", "geometry"]


def check_splits(release: Release) -> Findings:
    """Every split as the recipe draws it, the squares as the samples have them, and no leaks."""
    tables = {season: table for season in release.seasons if (table := release.samples(season)) is not None}
    for season, samples in tables.items():
        yield from check_drawn(release, season, samples)
    if tables:
        yield from check_squares(release, tables)
        yield from check_leaks(release, tables)


def check_drawn(release: Release, season: int, samples: pd.DataFrame) -> Findings:
    """Where squares are drawn by their hash, every sample has the split of its square."""
    if release.is_imported(season):
        return
    split = release.settings(season, "split")
    try:
        if split.get("method", "hash") != "hash" or split.get("lists"):
            return
        size, shares, seed = int(split["square_size"]), dict(split["shares"]), int(split["seed"])
        squares = {name: tuple(map(int, name.split("_"))) for name in samples["square"].unique()}
        drawn = {name: split_of_square((square[0], square[1]), size, shares, seed) for name, square in squares.items()}
    except (KeyError, TypeError, ValueError, IndexError):
        release.cannot_check(f"whether the splits of {season} are those its recipe draws: it does not say how")
        return
    wrong = samples["sample"][samples["split"] != samples["square"].map(drawn)].tolist()
    if wrong:
        told = f"{len(wrong)} samples are not in the split the recipe draws for their square: {first(wrong)}"
        yield error("split", release.index_path(f"samples-{season}"), told, release.remedies.wrong_index())


def check_squares(release: Release, tables: dict[int, gpd.GeoDataFrame]) -> Findings:
    """The table of split squares is what the samples of all seasons give, each square in one split."""
    stored, path = release.tables.get("squares"), release.index_path("squares")
    remedy = release.remedies.wrong_index()
    whole = pd.concat([table[["square", "split", "sample"]] for table in tables.values()])
    listed = any(release.settings(season, "split").get("lists") for season in tables)
    if not listed and not any(release.is_imported(season) for season in tables):
        several = whole.groupby("square")["split"].nunique()
        if twice := several[several > 1].index.tolist():
            told = f"split squares are in several splits: {first(twice)}"
            yield error("split", release.index_path(f"samples-{min(tables)}"), told, remedy)
    if len(tables) < len(release.named_seasons) or not release.minor or not release.recipe(min(tables)):
        return
    expected = square_table(list(tables.values()), release.recipe(min(tables)))
    if expected is None and stored is None:
        return
    columns = ["column", "row", "split", "samples"]
    if expected is None or stored is None:
        told = "is not part of the index" if stored is None else "is not expected: the split is not drawn by squares"
        yield error("split", path, told, remedy)
    elif not expected[columns].astype(object).equals(stored[columns].astype(object)):
        yield error("split", path, "does not count the samples of each square as the samples index does", remedy)
    elif not expected.geometry.geom_equals_exact(stored.geometry, 1e-6).all():
        yield error("split", path, "has outlines that are not those of its squares", remedy)


def check_leaks(release: Release, tables: dict[int, gpd.GeoDataFrame]) -> Findings:
    """No cell, no ground and nothing within the buffer is in two splits, in all seasons together."""
    samples = pd.concat([table[LEAK_COLUMNS] for table in tables.values()], ignore_index=True)
    placed = samples[np.isfinite(samples[["x0", "y0"]].to_numpy(float)).all(axis=1)]
    # Imported samples have no cell: only their ground can be compared.
    placed = placed.assign(cell=placed["cell"].where(placed["cell"] != NONE, placed["sample"]))
    buffers = [release.settings(season, "split").get("buffer", 0.0) for season in tables]
    buffer = max((float(one) for one in buffers if isinstance(one, int | float)), default=0.0)
    found = leaks(gpd.GeoDataFrame(placed, geometry="geometry", crs=tables[min(tables)].crs), buffer)
    release.counts["leaks"] = len(found)
    for sample, other, reason in found:
        yield leak(release, sample, other, reason, buffer)


def leak(release: Release, sample: str, other: str, reason: Any, buffer: float) -> Finding:
    """The finding of two samples of different splits that share ground, or are too near each other."""
    where = f"samples {sample} and {other}"
    told = f"are in different splits: {reason}" + (f" (buffer {buffer:g} m)" if buffer else "")
    if any(release.is_imported(season) for season in release.seasons):
        # The lists of a published dataset are as they are; nobody promised that they keep ground apart.
        remedy = "the published lists are like this: evaluate on a split by ground if that matters"
        return warning("leak", where, told, remedy)
    return error("leak", where, told, release.remedies.leak())
