"""The index of a release: its tables, and the files they are kept in."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from h2crop_data.constants import TIER_COLUMNS
from h2crop_data.cube.columns import BLOCK_DIGESTS
from h2crop_data.cube.schema import ArraySpec
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.cube.statistics import (
    TRAINING,
    BlockSums,
    class_counts,
    parcel_counts,
    statistics_of_training,
    total,
)
from h2crop_data.grid import LONLAT, SPLIT_CRS, transformer
from h2crop_data.storage.storage import FileRecord, canonical_json

#: Parts of the index with a file a season, which together are one table or document.
LISTED = ("blocks", "scenes", "squares", "recipes", "sources", "manifest")


@dataclass(frozen=True)
class IndexTables:
    """The tables of a release (columns: docs/store-format.md)."""

    #: By season.
    samples: dict[int, gpd.GeoDataFrame]
    #: By season; empty where the store has no labels.
    parcels: dict[int, gpd.GeoDataFrame]
    blocks: pd.DataFrame
    scenes: pd.DataFrame
    #: None where the split is not drawn by squares.
    squares: gpd.GeoDataFrame | None
    statistics: dict[str, Any]
    #: Of each tier: id -> name.
    classes: list[dict[int, str]]
    #: By season.
    recipes: dict[int, dict[str, Any]]
    #: By season, what was looked at date by date; only seasons with such units of work.
    dates: dict[int, pd.DataFrame] = field(default_factory=dict)
    #: By season, where images lie against parcels; only seasons where that was looked at.
    frames: dict[int, pd.DataFrame] = field(default_factory=dict)
    #: By season and part of its plan, what was read of the sources; only seasons where that was counted.
    sources: dict[int, dict[str, Any]] = field(default_factory=dict)


def index_tables(
    seasons: Sequence[FinishedSeason], classes: list[dict[int, str]], specs: Mapping[str, ArraySpec]
) -> IndexTables:
    """The tables of a release of some seasons, in order. specs: the arrays of the store."""
    samples = {finished.season: finished.released.reset_index(drop=True) for finished in seasons}
    return IndexTables(
        samples=samples,
        parcels={finished.season: finished.parcels for finished in seasons if finished.parcels is not None},
        blocks=stacked(seasons, "blocks"),
        scenes=stacked(seasons, "scenes"),
        squares=square_table(list(samples.values()), seasons[0].recipe),
        statistics=statistics(seasons, specs),
        classes=classes,
        recipes={finished.season: finished.recipe for finished in seasons},
        dates={finished.season: finished.dates for finished in seasons if finished.dates is not None},
        frames={finished.season: finished.frames for finished in seasons if finished.frames is not None},
        sources={finished.season: finished.sources for finished in seasons if finished.sources},
    )


def index_files(tables: IndexTables) -> dict[str, bytes]:
    """The files of the index by name, without the manifest and the copy of the root."""
    files: dict[str, bytes] = {}
    for season, samples in tables.samples.items():
        files[f"samples-{season}.parquet"] = parquet_bytes(samples)
        if season in tables.parcels:
            files[f"parcels-{season}.parquet"] = parquet_bytes(tables.parcels[season])
        if season in tables.dates:
            files[f"dates-{season}.parquet"] = parquet_bytes(tables.dates[season])
        if season in tables.frames:
            files[f"frames-{season}.parquet"] = parquet_bytes(tables.frames[season])
    files["blocks.parquet"] = parquet_bytes(tables.blocks)
    files["scenes.parquet"] = parquet_bytes(tables.scenes)
    if tables.squares is not None:
        files["squares.parquet"] = parquet_bytes(tables.squares)
    classes = [{str(number): name for number, name in tier.items()} for tier in tables.classes]
    for name, document in (
        ("statistics", tables.statistics),
        ("classes", classes),
        ("recipes", {str(season): recipe for season, recipe in tables.recipes.items()}),
        ("sources", {str(season): parts for season, parts in tables.sources.items()}),
    ):
        files[f"{name}.json"] = canonical_json(document).encode()
    return files


def stacked(seasons: Sequence[FinishedSeason], table: str) -> pd.DataFrame:
    """One table of all seasons, with the season in front."""
    parts = []
    for finished in seasons:
        part: pd.DataFrame = getattr(finished, table).copy()
        part.insert(0, "season", finished.season)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def square_table(samples: Sequence[gpd.GeoDataFrame], recipe: dict[str, Any]) -> gpd.GeoDataFrame | None:
    """The split squares that hold samples: column, row, split, samples of all seasons, outline."""
    size = (recipe.get("split") or {}).get("square_size")
    if size is None or not all("square" in table for table in samples):
        return None
    everything = pd.concat([table[["square", "split"]] for table in samples])
    if everything.empty:
        return None
    counted = everything.groupby(["square", "split"], sort=True).size().reset_index(name="samples")
    counted[["column", "row"]] = counted.pop("square").str.split("_", expand=True).astype("int32")
    counted = counted.sort_values(["column", "row", "split"], ignore_index=True)
    west, south = counted["column"].to_numpy() * float(size), counted["row"].to_numpy() * float(size)
    boxes = shapely.box(west, south, west + size, south + size)
    # Eight points a side follow the curved edges to within a decimetre.
    dense = shapely.segmentize(boxes, size / 8)
    outlines = shapely.transform(dense, transformer(SPLIT_CRS, LONLAT).transform, interleaved=False)
    return gpd.GeoDataFrame(counted[["column", "row", "split", "samples"]], geometry=outlines, crs=LONLAT)


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
    squares = square_table([samples], finished.recipe)
    if squares is not None:
        squares.insert(0, "season", season)
    return SeasonTables(
        season,
        samples,
        finished.parcels,
        stacked([finished], "blocks").drop(columns=BLOCK_DIGESTS.name, errors="ignore"),
        stacked([finished], "scenes"),
        squares,
        finished.recipe,
        finished.dates,
        finished.frames,
        finished.sources,
    )


def season_files(tables: SeasonTables) -> Iterator[tuple[str, bytes]]:
    """The files of the index of a season, name and content, one after the other; without the manifest."""
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
            yield f"{name}-{tables.season}.parquet", parquet_bytes(table)
    season = str(tables.season)
    yield f"recipes-{season}.json", canonical_json({season: tables.recipe}).encode()
    if tables.sources:
        yield f"sources-{season}.json", canonical_json({season: tables.sources}).encode()


def manifest_bytes(files: Iterable[FileRecord]) -> bytes:
    """A part of the manifest: some files in order of path."""
    table = pd.DataFrame(list(files), columns=["path", "bytes", "sha256"])
    return parquet_bytes(table.sort_values("path", ignore_index=True))


def index_of(paths: Iterable[str]) -> dict[str, str | list[str]]:
    """What the root says of some files of the index: name -> path, or a list of those with a file a season."""
    index: dict[str, str | list[str]] = {}
    listed: dict[str, list[str]] = {}
    for path in sorted(paths, key=lambda path: PurePosixPath(path).name):
        stem = PurePosixPath(path).stem
        name = stem.partition("-")[0]
        if name in LISTED:
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


def statistics(seasons: Sequence[FinishedSeason], specs: Mapping[str, ArraySpec]) -> dict[str, Any]:
    """Statistics of a release: values over the training split; classes by season, split and tier."""
    training = [finished.sums[TRAINING] for finished in seasons if TRAINING in finished.sums]
    of_seasons = {finished.season: season_statistics(finished, specs) for finished in seasons}
    return release_statistics(total(training) if training else None, of_seasons, specs)


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """A table as Parquet (GeoParquet where it has geometry)."""
    buffer = io.BytesIO()
    options: dict[str, Any] = (
        {"write_covering_bbox": True} if isinstance(table, gpd.GeoDataFrame) and len(table) else {}
    )
    table.to_parquet(buffer, index=False, compression="zstd", **options)
    stored = pq.read_table(buffer)
    for place, column in enumerate(stored.schema):
        # A column of nothing but empty lists has no type; all our lists that may be empty are of text.
        if pa.types.is_list(column.type) and pa.types.is_null(column.type.value_type):
            texts = stored.column(place).cast(pa.list_(pa.string()))
            stored = stored.set_column(place, pa.field(column.name, texts.type), texts)
    buffer = io.BytesIO()
    pq.write_table(stored, buffer, compression="zstd")
    return buffer.getvalue()
