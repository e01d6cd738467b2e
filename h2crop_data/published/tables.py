"""The index of an imported season, from the markers of its blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import pandas as pd
import shapely

from h2crop_data.constants import NONE
from h2crop_data.cube.columns import Column
from h2crop_data.cube.marker import Marker
from h2crop_data.grid import LONLAT
from h2crop_data.published.layout import PublishedSample
from h2crop_data.published.places import PublishedPlace, SceneItem


def sample_row(
    sample: PublishedSample, place: PublishedPlace, scene: SceneItem | None, block: int, slot: int, offset: int
) -> dict[str, Any]:
    """The index row of a sample as its block's marker keeps it: plain JSON, the outline as hexadecimal WKB.

    offset: what its Sentinel-2 numbers still have above reflectance x 10000.
    """
    return {
        "sample": sample.id.text,
        "cell": NONE,
        "epsg": place.epsg,
        "x0": None if math.isnan(place.x0) else place.x0,
        "y0": None if math.isnan(place.y0) else place.y0,
        "block": block,
        "slot": slot,
        "split": sample.split,
        "square": NONE,
        "scene": sample.id.scene if scene is None else scene.id,
        "scene_time": sample.id.time.isoformat(),
        "sun_elevation": None if scene is None else scene.sun_elevation,
        "sun_azimuth": None if scene is None else scene.sun_azimuth,
        "across_off_nadir": None if scene is None else scene.across_off_nadir,
        "on_lattice": False,
        "located": place.located,
        "mgrs_tile": sample.id.tile,
        "list_position": sample.position,
        "s2_offset": offset,
        "geometry": shapely.to_wkb(place.outline, hex=True),
    }


def samples_table(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> gpd.GeoDataFrame:
    """The samples of a season as its index has them. columns: of the store's layout."""
    table = pd.DataFrame(list(rows))
    for column in columns:
        # A column of numbers that nobody knows would have no type.
        if column.dtype == "number" and column.name in table:
            table[column.name] = table[column.name].astype("float64")
    table["scene_time"] = pd.to_datetime(table["scene_time"], utc=True)
    table["affine"] = [[10.0, 0.0, x0, 0.0, -10.0, y0] for x0, y0 in zip(table["x0"], table["y0"], strict=True)]
    outlines = shapely.from_wkb(table.pop("geometry").to_numpy())
    return gpd.GeoDataFrame(table, geometry=outlines, crs=LONLAT)


def imported_scenes(samples: pd.DataFrame) -> pd.DataFrame:
    """The EnMAP scenes of a season; those of Sentinel-2 are unknown."""
    scenes = samples[["scene", "scene_time"]].drop_duplicates("scene").sort_values("scene", ignore_index=True)
    table = pd.DataFrame(
        {
            "id": scenes["scene"],
            "sensor": "enmap",
            "collection": "ENMAP_HSI_L2A",
            "time": scenes["scene_time"],
            "baseline": None,
            "taken": True,
            "reason": "part of the published dataset",
            "offset": None,
        }
    )
    texts = dict.fromkeys(("id", "sensor", "collection", "baseline", "reason"), "str")
    table["time"] = table["time"].dt.as_unit("us")
    return table.astype({"taken": "bool", "offset": "Int32", **texts})


def block_row(marker: Marker, recipe_hash: str, retracted: str) -> dict[str, Any]:
    """The index row of a block. retracted: why it is kept out of the release; empty where it is not."""
    rows = marker["provenance"]
    first = rows[0]
    return {
        "block": first["block"],
        "split": first["split"],
        "square": NONE,
        "epsg": first["epsg"],
        "scene": first["scene"],
        "samples": len(rows),
        "s2_items": [],
        **{f"hash_{group}": marker["hashes"][group] for group in ("s2", "enmap", "labels")},
        "part": NONE,
        "recipe": recipe_hash,
        "taxonomy": NONE,
        "files": [file["path"] for file in marker["files"]],
        "sha256": [file["sha256"] for file in marker["files"]],
        "software": marker["software"],
        "retracted": retracted,
    }
