"""The summary of a store, from the index and the statistics of its current release, without reading arrays."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import zarr
from numpy.typing import NDArray

from h2crop_data.constants import MONTHS, TIERS, UNKNOWN
from h2crop_data.cube.reading import (
    ReleaseStore,
    load_root,
    read_columns,
    read_document,
    read_table,
    store_attributes,
)
from h2crop_data.cube.root import Root, manifest_parts, stored_data
from h2crop_data.errors import StoreError

#: Classes of tier 4 that are named, the most frequent first.
NAMED_CLASSES = 10
#: What of the samples' index is summed up: plain columns, and those of lists and of the ground.
SCALAR_COLUMNS = ["sample", "cell", "epsg", "slot", "split", "scene", "enmap_flagged_share", "declared_share"]
SUMMED_COLUMNS = [*SCALAR_COLUMNS, "s2_clear_share", "class_share", "bbox"]
#: Samples that an error names.
NAMED_SAMPLES = 3


def summarize(store: str | Path, release: int | None = None) -> dict[str, Any]:
    """A store's release, size, seasons, labels and training statistics as plain data that JSON can hold.

    store: folder, http(s) or s3 URL. release: the current one by default. Sizes in bytes, shares from 0 to 1,
    wavelengths in nm, statistics in reflectance. Raises StoreError where there is no store.
    """
    root = load_root(store, release)
    attributes, members = root["attributes"], root["consolidated_metadata"]["metadata"]
    manifest = read_table(store, attributes, "manifest")
    statistics, names, recipes = (
        read_document(store, attributes, name) for name in ("statistics", "classes", "recipes")
    )
    scenes = read_columns(store, attributes, "scenes", ["season", "id", "sensor", "taken"]).to_pandas()
    blocks = read_columns(store, attributes, "blocks", ["season", "split"]).to_pandas()
    seasons = {}
    for key in attributes["seasons"]:
        table = read_columns(store, attributes, f"samples-{key}", SUMMED_COLUMNS)
        samples = table.select([name for name in SCALAR_COLUMNS if name in table.column_names]).to_pandas()
        files = manifest[manifest["path"].str.startswith(f"{key}/")]
        seasons[key] = {
            **size_of_season(samples, blocks[blocks["season"] == int(key)], files),
            "recipe": {name: recipes[key].get(name) for name in ("name", "description")},
            "scenes": count_scenes(scenes[scenes["season"] == int(key)], samples),
            "ground": ground(table),
            "arrays": array_facts(members, key, files),
            "wavelength_nm": wavelength_range(store, root, int(key), samples),
            "s2_clear_share": mean_of_lists(table, "s2_clear_share", MONTHS),
            "enmap_flagged_share": mean_of(samples, "enmap_flagged_share"),
            "declared_share": mean_of(samples, "declared_share"),
            "labelled_share": mean_of_lists(table, "class_share", TIERS),
            "classes": frequent_classes(statistics["class_pixels"].get(key, {}), names[-1]),
        }
    stored = stored_data(attributes["layout"])
    summary: dict[str, Any] = {
        "store": str(store),
        "release": attributes["release"],
        "format_version": attributes["format_version"],
        "software": attributes["software"],
        "layout": {**attributes["layout"], **asdict(stored)},
        "files": attributes["manifest"]["files"],
        "bytes": int(manifest["bytes"].sum()) + sum(part["bytes"] for part in manifest_parts(attributes)),
        "seasons": seasons,
        "training": training_statistics(statistics["reflectance"], stored.s2_bands),
    }
    return summary


def size_of_season(samples: pd.DataFrame, blocks: pd.DataFrame, files: pd.DataFrame) -> dict[str, Any]:
    """Counts of samples, blocks, cells and files, samples and blocks by split, and bytes."""
    return {
        "samples": len(samples),
        "blocks": len(blocks),
        "cells": int(samples["cell"].nunique()),
        "splits": {
            split: {"samples": int((samples["split"] == split).sum()), "blocks": int((blocks["split"] == split).sum())}
            for split in sorted(samples["split"].unique())
        },
        "bytes": int(files["bytes"].sum()),
        "files": len(files),
    }


def count_scenes(scenes: pd.DataFrame, samples: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Scenes by sensor: how many were found, and how many are in the store.

    Of Sentinel-2 a taken scene is one that was read; an EnMAP scene is in the store when a sample is of it.
    """
    counts = {}
    for sensor, found in scenes.groupby("sensor"):
        taken = found["taken"]
        if sensor == "enmap":
            taken = taken & found["id"].isin(samples["scene"])
        counts[str(sensor)] = {"found": len(found), "taken": int(taken.sum())}
    return counts


def ground(samples: pa.Table) -> dict[str, Any]:
    """Where the samples lie: their UTM zones, and west, south, east, north in degrees (four decimals)."""
    edges = [math.nan] * 4
    if "bbox" in samples.column_names:
        box = samples.column("bbox").combine_chunks()
        low, high = (
            (pc.min(box.field(name)) for name in ("xmin", "ymin")),
            (pc.max(box.field(n)) for n in ("xmax", "ymax")),
        )
        edges = [edge.as_py() for edge in (*low, *high)]
    return {
        "epsg": sorted(pc.unique(samples.column("epsg")).to_pylist()),
        "bbox": [round(edge, 4) for edge in edges],
    }


def array_facts(members: dict[str, Any], season: str, files: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Shape, names of the axes, dtype, shards and bytes of every sharded array of a season."""
    shards: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for path, size in zip(files["path"].tolist(), files["bytes"].tolist(), strict=True):
        folder, _, name = path.rpartition("/")
        if name != "zarr.json":
            shards[folder] += 1
            sizes[folder] += size
    facts = {}
    for path, document in members.items():
        if not path.startswith(f"{season}/") or document["codecs"][0]["name"] != "sharding_indexed":
            continue
        facts[path.removeprefix(f"{season}/")] = {
            "shape": document["shape"],
            "dims": document["dimension_names"],
            "dtype": document["data_type"],
            "shards": shards[path],
            "bytes": sizes[path],
        }
    return facts


def wavelength_range(store: str | Path, root: Root, season: int, samples: pd.DataFrame) -> list[float] | None:
    """First and last wavelength of the first sample in nm; None without EnMAP."""
    slot = None if samples.empty else int(samples["slot"].iloc[0])
    spectrum = None if slot is None else read_of_bands(store, root, season, slot, "wavelength")
    return None if spectrum is None else [round(float(spectrum.min()), 2), round(float(spectrum.max()), 2)]


def read_of_bands(
    store: str | Path, root: Root, season: int, slot: int, coordinate: Literal["wavelength", "fwhm"]
) -> NDArray[np.float32] | None:
    """A coordinate (band,) in nm of the sample in a slot; None without EnMAP. Reads one chunk of it."""
    name = f"{season}/{coordinate}"
    if name not in root["consolidated_metadata"]["metadata"]:
        return None
    files = ReleaseStore(store, root)
    array: Any = zarr.open_group(files, mode="r", use_consolidated=True, zarr_format=3)[name]
    return np.asarray(array[slot])


def mean_of(samples: pd.DataFrame, column: str) -> float | None:
    """The mean of a column over the samples; None where no sample has a value."""
    if column not in samples or samples[column].isna().all():
        return None
    return float(samples[column].mean())


def mean_of_lists(samples: pa.Table, column: str, length: int) -> list[float] | None:
    """The mean over the samples of a column of lists (a value a month or a tier); None where it has no list."""
    if column not in samples.column_names:
        return None
    values = pc.list_flatten(samples.column(column)).to_numpy()
    return [float(value) for value in values.reshape(-1, length).mean(axis=0)] if len(values) else None


def frequent_classes(class_pixels: dict[str, Any], names: dict[str, str]) -> list[dict[str, Any]]:
    """The most frequent classes of tier 4 over all splits: id, name, pixels, and share of the labelled pixels.

    class_pixels: split -> {"label": pixels by class for each tier}, as in the release's statistics.
    """
    pixels: Counter[int] = Counter()
    for counts in class_pixels.values():
        if "label" in counts:
            pixels.update({int(number): count for number, count in counts["label"][-1].items()})
    labelled = Counter({number: count for number, count in pixels.items() if 0 < number < UNKNOWN})
    total = labelled.total()
    return [
        {"id": number, "name": names.get(str(number), ""), "pixels": count, "share": count / total}
        for number, count in sorted(labelled.items(), key=lambda item: (-item[1], item[0]))[:NAMED_CLASSES]
    ]


def training_statistics(reflectance: dict[str, Any], s2_bands: list[str]) -> dict[str, Any]:
    """Statistics of the training split: of each Sentinel-2 band by name, of EnMAP as lists along its bands."""
    compact: dict[str, Any] = {"split": reflectance["split"], "samples": reflectance.get("samples", 0)}
    if "s2" in reflectance:
        compact["s2"] = dict(zip(s2_bands, reflectance["s2"], strict=True))
    if "enmap" in reflectance:
        bands = reflectance["enmap"]
        compact["enmap"] = {key: [band[key] for band in bands] for key in ("count", "mean", "sd")}
    return compact


def season_of(store: str | Path, wanted: int | None, release: int | None = None) -> int:
    """The wanted season, or the last one of the store. Raises StoreError naming the seasons there are."""
    seasons = sorted(int(key) for key in store_attributes(store, release)["seasons"])
    if not seasons:
        raise StoreError(f"{store} has no season")
    if wanted is None:
        return seasons[-1]
    if wanted not in seasons:
        raise StoreError(f"{store} has no season {wanted}; it has {', '.join(map(str, seasons))}")
    return wanted


def find_sample(samples: pd.DataFrame, wanted: int | str | None) -> int:
    """The place of a sample in the index (and in the opened season), counted from 0.

    wanted: its place, its id, the id of its cell (the first sample of that cell), or None for the one with the most
    content. Raises StoreError naming samples there are.
    """
    if wanted is None:
        return fullest_sample(samples)
    if str(wanted).isdecimal():
        if int(wanted) < len(samples):
            return int(wanted)
    else:
        for column in ("sample", "cell"):
            places = np.flatnonzero(samples[column] == str(wanted))
            if len(places):
                return int(places[0])
    shown = ", ".join(samples["sample"].head(NAMED_SAMPLES)) + (", ..." if len(samples) > NAMED_SAMPLES else "")
    raise StoreError(f"unknown sample {wanted}; expected one of {len(samples)}, numbered from 0: {shown}")


def fullest_sample(samples: pd.DataFrame) -> int:
    """The place of the sample with the most clear, labelled and unflagged pixels; the first of equals."""
    if samples.empty:
        raise StoreError("the season has no samples")
    score = np.zeros(len(samples))
    for column in ("s2_clear_share", "class_share"):
        if column in samples:
            score += [0.0 if shares is None else float(np.mean(shares)) for shares in samples[column]]
    for column in ("enmap_flagged_share", "enmap_fill_share"):
        if column in samples:
            score -= samples[column].fillna(0).to_numpy(float)
    return int(score.argmax())


def sample_facts(samples: gpd.GeoDataFrame, place: int) -> dict[str, Any]:
    """The index row of one sample as plain data that JSON can hold, with its bounds in degrees for the geometry."""
    row = samples.iloc[place]
    facts = {"number": place, **{str(name): json_value(row[name]) for name in samples.columns if name != "geometry"}}
    return {**facts, "bbox": [round(float(edge), 6) for edge in row["geometry"].bounds]}


def json_value(value: Any) -> Any:
    """A value of a table as JSON knows it: missing ones as None, times in ISO 8601."""
    if isinstance(value, np.ndarray | list | tuple):
        return [json_value(item) for item in value]
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value
