"""The index of a release: its tables, and the files they are kept in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from h2crop_data.constants import TIER_COLUMNS
from h2crop_data.cube.columns import (
    BLOCK_DIGESTS,
    IMPORTED_COLUMNS,
    MANIFEST,
)
from h2crop_data.cube.schema import ArraySpec, StoreLayout
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.cube.statistics import (
    TRAINING,
    BlockSums,
    class_counts,
    parcel_counts,
    statistics_of_training,
)
from h2crop_data.cube.table_files import encode_table
from h2crop_data.grid import LONLAT, SPLIT_CRS, transformer
from h2crop_data.storage.storage import FileRecord, canonical_json

#: Parts of the index with a file a season, which together are one table or document.
FILES_BY_SEASON = ("blocks", "scenes", "squares", "recipes", "sources", "manifest")


@dataclass(frozen=True)
class SeasonTables:
    """The tables of a season of a release (columns: docs/store-format.md)."""

    season: int
    samples: gpd.GeoDataFrame
    #: None where the store has no labels.
    parcels: gpd.GeoDataFrame | None
    blocks: pd.DataFrame
    scenes: pd.DataFrame
    #: None where the split is not drawn by squares.
    squares: gpd.GeoDataFrame | None
    recipe: dict[str, Any]
    #: What was looked at date by date; None where there are no such units of work.
    dates: pd.DataFrame | None = None
    #: Where images lie against parcels; None where that was not looked at.
    frames: pd.DataFrame | None = None
    #: By part of its plan, what was read of the sources; empty where that was not counted.
    sources: dict[str, Any] = field(default_factory=dict)


def season_tables(finished: FinishedSeason) -> SeasonTables:
    """The tables of a finished season."""
    season = finished.season
    samples = finished.released.reset_index(drop=True)
    return SeasonTables(
        season,
        samples,
        finished.parcels,
        with_season(finished, "blocks").drop(columns=BLOCK_DIGESTS.name, errors="ignore"),
        with_season(finished, "scenes"),
        square_table(season, samples, finished.recipe),
        finished.recipe,
        finished.dates,
        finished.frames,
        finished.sources,
    )


def season_index_files(tables: SeasonTables, layout: StoreLayout) -> Iterator[tuple[str, bytes]]:
    """The files of the index of a season, name and content, one after the other; without the manifest.

    Raises StoreError for a row that does not fit the columns of its table.
    """
    imported = IMPORTED_COLUMNS[0].name in tables.samples
    for name, table in (
        ("samples", tables.samples),
        ("parcels", tables.parcels),
        ("dates", tables.dates),
        ("frames", tables.frames),
        ("blocks", tables.blocks),
        ("scenes", tables.scenes),
        ("squares", tables.squares),
    ):
        if table is not None:
            stem = f"{name}-{tables.season}"
            columns = layout.table_columns(name, imported=imported)
            yield f"{stem}.parquet", encode_table(stem, table, columns)
    season = str(tables.season)
    yield f"recipes-{season}.json", canonical_json({season: tables.recipe}).encode()
    if tables.sources:
        yield f"sources-{season}.json", canonical_json({season: tables.sources}).encode()


def manifest_bytes(files: Iterable[FileRecord]) -> bytes:
    """A part of the manifest: some files in order of path."""
    table = pd.DataFrame(list(files), columns=["path", "bytes", "sha256"])
    return encode_table("manifest", table.sort_values("path", ignore_index=True), MANIFEST)


def index_of(paths: Iterable[str]) -> dict[str, str | list[str]]:
    """What the root says of some files of the index: name -> path, or a list of those with a file a season."""
    index: dict[str, str | list[str]] = {}
    listed: dict[str, list[str]] = {}
    for path in sorted(paths, key=lambda path: PurePosixPath(path).name):
        stem = PurePosixPath(path).stem
        name = stem.partition("-")[0]
        if name in FILES_BY_SEASON:
            listed.setdefault(name, []).append(path)
        else:
            index[stem] = path
    return {**index, **listed}


def class_document(classes: Sequence[Mapping[int, str]]) -> list[dict[str, str]]:
    """`classes.json`: of each tier id, as text -> name."""
    return [{str(number): name for number, name in tier.items()} for tier in classes]


def season_statistics(finished: FinishedSeason, specs: Mapping[str, ArraySpec]) -> dict[str, Any]:
    """What `statistics.json` says of a season: `class_pixels` and, where it has parcels, `class_parcels`, by split."""
    by_split = sorted(finished.sums.items())
    found: dict[str, Any] = {"class_pixels": {split: class_counts(sums, specs) for split, sums in by_split}}
    if finished.parcels is not None:
        tiers = finished.parcels[TIER_COLUMNS].to_numpy(np.uint8)
        numbers = finished.parcels["number"].to_numpy(np.uint32)
        found["class_parcels"] = {split: parcel_counts(sums, numbers, tiers) for split, sums in by_split}
    return found


def release_statistics(
    training: BlockSums | None, of_seasons: Mapping[int, Mapping[str, Any]], specs: Mapping[str, ArraySpec]
) -> dict[str, Any]:
    """`statistics.json`: values over the training split of all seasons; classes by season, split and tier.

    training: the sums of the training split of all seasons; None where there is none. of_seasons: season ->
    `season_statistics`.
    """
    result: dict[str, Any] = {
        "reflectance": {"split": TRAINING, "units": "1"},
        "clear_observations": [],
        "class_pixels": {},
        "class_parcels": {},
    }
    if training is not None:
        found = statistics_of_training(training, specs)
        result |= {**found, "reflectance": {**result["reflectance"], **found["reflectance"]}}
    for season, of_season in sorted(of_seasons.items()):
        for part, counts in of_season.items():
            result[part][str(season)] = counts
    return result


def with_season(finished: FinishedSeason, table: str) -> pd.DataFrame:
    """A table of a season, with the season in front."""
    rows: pd.DataFrame = getattr(finished, table).copy()
    rows.insert(0, "season", finished.season)
    return rows


def square_table(season: int, samples: gpd.GeoDataFrame, recipe: dict[str, Any]) -> gpd.GeoDataFrame | None:
    """The split squares that hold samples of a season: season, column, row, split, samples, outline."""
    size = (recipe.get("split") or {}).get("square_size")
    if size is None or "square" not in samples or samples.empty:
        return None
    counted = samples[["square", "split"]].groupby(["square", "split"], sort=True).size().reset_index(name="samples")
    counted[["column", "row"]] = counted.pop("square").str.split("_", expand=True).astype("int32")
    counted = counted.sort_values(["column", "row", "split"], ignore_index=True)
    west, south = counted["column"].to_numpy() * float(size), counted["row"].to_numpy() * float(size)
    boxes = shapely.box(west, south, west + size, south + size)
    # Eight points a side follow the curved edges to within a decimetre.
    dense = shapely.segmentize(boxes, size / 8)
    outlines = shapely.transform(dense, transformer(SPLIT_CRS, LONLAT).transform, interleaved=False)
    counted.insert(0, "season", season)
    return gpd.GeoDataFrame(counted[["season", "column", "row", "split", "samples"]], geometry=outlines, crs=LONLAT)
