"""The index of a release: its tables, and the files they are kept in."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from h2crop_data.constants import TIERS
from h2crop_data.cube.schema import ArraySpec
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.cube.statistics import TRAINING, class_counts, parcel_counts, statistics_of_training, total
from h2crop_data.grid import LONLAT, SPLIT_CRS, transformer
from h2crop_data.storage.storage import canonical_json


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


def statistics(seasons: Sequence[FinishedSeason], specs: Mapping[str, ArraySpec]) -> dict[str, Any]:
    """Statistics of a release: values over the training split; classes by season, split and tier."""
    training = [finished.sums[TRAINING] for finished in seasons if TRAINING in finished.sums]
    result: dict[str, Any] = {
        "reflectance": {"split": TRAINING, "units": "1"},
        "clear_observations": [],
        "class_pixels": {},
        "class_parcels": {},
    }
    if training:
        found = statistics_of_training(total(training), specs)
        result |= {**found, "reflectance": {**result["reflectance"], **found["reflectance"]}}
    for finished in seasons:
        by_split = sorted(finished.sums.items())
        result["class_pixels"][str(finished.season)] = {split: class_counts(sums, specs) for split, sums in by_split}
        if finished.parcels is not None:
            tiers = finished.parcels[[f"tier{tier}" for tier in range(1, TIERS + 1)]].to_numpy(np.uint8)
            numbers = finished.parcels["number"].to_numpy(np.uint32)
            result["class_parcels"][str(finished.season)] = {
                split: parcel_counts(sums, numbers, tiers) for split, sums in by_split
            }
    return result


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
