"""What farmers declare: parcels as the French register publishes them, with what is wrong in real files, and the truth.

A record has the fields of the Registre parcellaire graphique (IGN; layer, types and widths as in its GeoPackages, names
in capitals as in its complete deliveries). What is wrong with a parcel is drawn for each field and season on its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray

from h2crop_data.grid import transformer
from h2crop_data.simulate.chance import Chance
from h2crop_data.simulate.land.crops import load_crops
from h2crop_data.simulate.settings import ParcelSettings

RPG_CRS = "EPSG:2154"
RPG_LAYER = "parcelles_graphiques"
RPG_COLUMNS = ("ID_PARCEL", "SURF_PARC", "CODE_CULTU", "CODE_GROUP", "CULTURE_D1", "CULTURE_D2")
TRUTH_COLUMNS = ("number", "season", "crop", "declared_crop", "declared", "id_parcel", "dirt", "area_ha")
#: Decimals of coordinates in metres: far finer than a pixel, and the same for both neighbours of a border.
DECIMALS = 4
#: What can be wrong, in the order it is listed: names of ParcelSettings.
DIRT = (
    *("undeclared", "null_geometry", "invalid", "duplicates", "overlaps", "slivers", "three_dimensional"),
    *("unmapped", "wrong"),
)
#: Codes of the form of the register's that no table lists, as new codes are.
UNMAPPED_CODES = ("QXA", "QXB", "WZK", "YJQ")
#: CODE_GROUP of what has no group of its own.
OTHER_GROUP = 28
#: Metres a ring overshoots its corner, a parcel reaches into its neighbour, a sliver is wide; heights of 3D corners.
OVERSHOOT, OVERLAP, SLIVER, HEIGHT = (1.5, 4.0), (1.0, 4.0), (0.2, 0.9), (20.0, 300.0)
#: A prime of ten digits: parcel numbers of a season are those of the fields times a factor, modulo this (2^33 + 17).
PRIME = 8_589_934_609
#: Records that no field has alone (slivers) are numbered from here.
EXTRA = 1 << 31
#: Rows written at once, and the time all files state as that of their last change.
BATCH = 20_000
LAST_CHANGE = "2024-01-01T00:00:00.000Z"


def declare(
    fields: gpd.GeoDataFrame, season: int, settings: ParcelSettings, seed: int = 0
) -> tuple[gpd.GeoDataFrame, pd.DataFrame]:
    """The records of a season and the truth about every field.

    fields: in metres of a zone, with CRS; `number` (whole, 1 to 2^31 - 1, each once), `key` (uint64), `crop` (code that
    grows), and, when there are catch crops, `catch_1` and `catch_2` (code or "").
    Gives RPG_COLUMNS with geometry (multipolygons, EPSG:2154), in the order of the fields, then slivers, then
    duplicates; and TRUTH_COLUMNS, one row a field: `dirt` lists what is wrong (of DIRT, with spaces between), `area_ha`
    is measured in the zone, `id_parcel` and `declared_crop` are "" for undeclared fields.
    """
    chance = Chance(seed)
    keys = fields["key"].to_numpy(np.uint64)
    dirt = drawn_dirt(chance, keys, season, settings)
    code = declared_codes(chance, keys, season, fields["crop"].to_numpy(str), dirt)
    identifiers = parcel_ids(chance, season, fields["number"].to_numpy(np.int64))
    clean = lambert(fields)
    declared = ~dirt["undeclared"]
    records = gpd.GeoDataFrame(
        {
            "ID_PARCEL": identifiers,
            "SURF_PARC": hectares(clean),
            "CODE_CULTU": code,
            "CODE_GROUP": groups(code),
            "CULTURE_D1": catch_column(fields, "catch_1"),
            "CULTURE_D2": catch_column(fields, "catch_2"),
        },
        geometry=multi(damaged(chance, keys, season, clean, dirt)),
        crs=RPG_CRS,
    )
    slivers = records[dirt["slivers"]].copy()
    slivers.geometry = multi(slivers_of(chance, keys[dirt["slivers"]], season, clean[dirt["slivers"]]))
    slivers["SURF_PARC"] = hectares(slivers.geometry.to_numpy())
    slivers["ID_PARCEL"] = parcel_ids(chance, season, fields["number"].to_numpy(np.int64)[dirt["slivers"]] + EXTRA)
    parts = [records[declared], slivers, records[dirt["duplicates"]]]
    frame = gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=RPG_CRS)
    return frame[[*RPG_COLUMNS, "geometry"]], declaration_truth(fields, season, code, identifiers, dirt)


def declaration_truth(
    fields: gpd.GeoDataFrame,
    season: int,
    code: NDArray[np.str_],
    identifiers: NDArray[np.str_],
    dirt: dict[str, NDArray[np.bool_]],
) -> pd.DataFrame:
    """TRUTH_COLUMNS of every field."""
    declared = ~dirt["undeclared"]
    table = {
        "number": fields["number"].to_numpy(np.int64),
        "season": np.full(len(fields), season, np.int16),
        "crop": fields["crop"].to_numpy(str),
        "declared_crop": np.where(declared, code, ""),
        "declared": declared,
        "id_parcel": np.where(declared, identifiers, ""),
        "dirt": [" ".join(name for name in DIRT if dirt[name][i]) for i in range(len(fields))],
        "area_ha": shapely.area(fields.geometry.to_numpy()) / 1e4,
    }
    text = dict.fromkeys(("crop", "declared_crop", "id_parcel", "dirt"), "str")
    return pd.DataFrame(table).astype(text)


def drawn_dirt(
    chance: Chance, keys: NDArray[np.uint64], season: int, settings: ParcelSettings
) -> dict[str, NDArray[np.bool_]]:
    """What is wrong with each field (n,), by kind: every kind is drawn with its share, alone.

    Where kinds exclude each other the first wins: what is not declared has no faults, what has no shape none of shape,
    an unmapped code is not a wrong one as well.
    """
    dirt = {name: chance.uniform(f"dirt {name}", keys, season) < getattr(settings, name) for name in DIRT}
    for name in DIRT[1:]:
        dirt[name] &= ~dirt["undeclared"]
    for name in ("invalid", "overlaps", "slivers", "three_dimensional", "duplicates"):
        dirt[name] &= ~dirt["null_geometry"]
    dirt["wrong"] &= ~dirt["unmapped"]
    return dirt


def declared_codes(
    chance: Chance, keys: NDArray[np.uint64], season: int, grown: NDArray[np.str_], dirt: dict[str, NDArray[np.bool_]]
) -> NDArray[np.str_]:
    """The code (n,) each field is declared with."""
    crops = load_crops()
    codes, limits = crops["code"].to_numpy(str), np.cumsum(np.sqrt(crops["share"].to_numpy(float)))
    draw = chance.uniform("declared code", keys, season)
    other = np.searchsorted(limits, draw * limits[-1], side="right")
    other = np.where(codes[other] == grown, (other + 1) % len(codes), other)
    unmapped = np.array(UNMAPPED_CODES)[(draw * len(UNMAPPED_CODES)).astype(int)]
    return np.where(dirt["unmapped"], unmapped, np.where(dirt["wrong"], codes[other], grown))


def groups(codes: NDArray[np.str_]) -> list[str]:
    """CODE_GROUP of crop codes."""
    crops = load_crops()
    known = dict(zip(crops["code"], crops["group"], strict=True))
    return [str(known.get(code, OTHER_GROUP)) for code in codes.tolist()]


def catch_column(fields: gpd.GeoDataFrame, name: str) -> NDArray[np.str_]:
    """Codes of catch crops, "" where the fields have none."""
    return fields[name].to_numpy(str) if name in fields else np.full(len(fields), "")


def parcel_ids(chance: Chance, season: int, numbers: NDArray[np.int64]) -> NDArray[np.str_]:
    """ID_PARCEL (n,) of a season: up to ten digits, each once, others every year as in the register."""
    name = np.full(1, season, np.uint64)
    factor = 1 + int(chance.uniform("parcel factor", name)[0] * (2**30 - 2))
    start = int(chance.uniform("parcel start", name)[0] * PRIME)
    # Below 2^32 times 2^30: no overflow.
    return ((numbers.astype(np.uint64) * np.uint64(factor) + np.uint64(start)) % np.uint64(PRIME)).astype(str)


def lambert(fields: gpd.GeoDataFrame) -> NDArray[np.object_]:
    """The fields' polygons in EPSG:2154: every corner moved and rounded, none added, so borders stay shared."""
    to_lambert = transformer(fields.crs.to_string(), RPG_CRS)

    def moved(corners: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.round(np.stack(to_lambert.transform(*corners.T), axis=-1), DECIMALS)

    polygons: NDArray[np.object_] = shapely.transform(fields.geometry.to_numpy(), moved)
    return polygons


def hectares(geometry: NDArray[np.object_]) -> NDArray[np.float32]:
    """SURF_PARC: hectares with two decimals."""
    area: NDArray[np.float32] = np.round(shapely.area(geometry) / 1e4, 2).astype(np.float32)
    return area


def multi(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    """Multipolygons; missing stays missing."""
    several = geometry.copy()
    single = np.flatnonzero(shapely.get_type_id(geometry) == 3)
    several[single] = shapely.multipolygons(geometry[single], indices=np.arange(len(single)))
    return several


def damaged(
    chance: Chance,
    keys: NDArray[np.uint64],
    season: int,
    clean: NDArray[np.object_],
    dirt: dict[str, NDArray[np.bool_]],
) -> NDArray[np.object_]:
    """The polygons as they are declared."""
    shapes = clean.copy()
    drawn = {name: chance.uniform(f"much {name}", keys, season) for name in DIRT}
    for i in np.flatnonzero(dirt["overlaps"]):
        shapes[i] = shapely.buffer(shapes[i], between(OVERLAP, drawn["overlaps"][i]), join_style="mitre", mitre_limit=2)
    for i in np.flatnonzero(dirt["invalid"]):
        shapes[i] = broken_ring(shapes[i], drawn["invalid"][i])
    high = dirt["three_dimensional"]
    shapes[high] = shapely.force_3d(shapes[high], np.round(between(HEIGHT, drawn["three_dimensional"][high]), 1))
    shapes[dirt["null_geometry"]] = None
    return shapes


def between(limits: tuple[float, float], draw: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
    """The value a draw in [0, 1) stands for."""
    return limits[0] + (limits[1] - limits[0]) * draw


def broken_ring(polygon: shapely.Polygon, draw: float) -> shapely.Polygon:
    """A polygon whose outer ring crosses itself at a corner, or runs out from it and back; draw in [0, 1)."""
    ring = shapely.get_coordinates(polygon.exterior)
    sides = np.diff(ring, axis=0)
    sides /= np.hypot(*sides.T)[:, None]
    # The sharpest corner: near a flat one the ring would not cross itself.
    corner = 1 + int(np.argmax(np.abs(sides[:-1, 0] * sides[1:, 1] - sides[:-1, 1] * sides[1:, 0])))
    here = ring[corner]
    reach = float(between(OVERSHOOT, draw * 2 % 1))
    beyond, back = here + reach * sides[corner - 1], here - reach * sides[corner]
    # A bow-tie: past the corner, across, and back through it; or a spike of no width.
    inserted = [beyond, back] if draw < 0.5 else [here, beyond, here]
    broken = np.concatenate([ring[:corner], np.round(inserted, DECIMALS), ring[corner + 1 :]])
    return shapely.Polygon(broken, polygon.interiors)


def slivers_of(
    chance: Chance, keys: NDArray[np.uint64], season: int, clean: NDArray[np.object_]
) -> NDArray[np.object_]:
    """A sliver along the longest side of each polygon."""
    slivers = np.empty(len(clean), dtype=object)
    widths = between(SLIVER, chance.uniform("sliver width", keys, season))
    for i, (polygon, width) in enumerate(zip(clean, np.atleast_1d(widths), strict=True)):
        ring = shapely.get_coordinates(polygon.exterior)
        sides = np.diff(ring, axis=0)
        longest = int(np.argmax(np.hypot(*sides.T)))
        start, along = ring[longest], sides[longest]
        aside = width * np.array([-along[1], along[0]]) / np.hypot(*along)
        corners = [start, start + along, start + along + aside, start + aside]
        slivers[i] = shapely.Polygon(np.round(corners, DECIMALS))
    return slivers


def write_geopackage(path: Path, frames: Iterable[gpd.GeoDataFrame], batch_rows: int = BATCH) -> int:
    """Write records (as `declare` gives them) to one GeoPackage, so many rows at once; the number of records.

    The same records in the same order give the same bytes, however they are divided into frames. An existing file is
    replaced.
    """
    path.unlink(missing_ok=True)
    written = 0
    with fixed_time():
        for batch in batches(frames, batch_rows):
            pyogrio.write_dataframe(
                batch,
                path,
                layer=RPG_LAYER,
                driver="GPKG",
                append=written > 0,
                geometry_type="MultiPolygon",
                layer_options={} if written else {"GEOMETRY_NAME": "geom", "FID": "fid"},
            )
            written += len(batch)
    return written


def batches(frames: Iterable[gpd.GeoDataFrame], size: int) -> Iterator[gpd.GeoDataFrame]:
    """The rows of all frames, `size` at a time; one empty batch when there are none."""
    held: list[gpd.GeoDataFrame] = []
    full = False
    for frame in frames:
        held.append(frame)
        while sum(map(len, held)) >= size:
            rows = pd.concat(held, ignore_index=True)
            yield rows.iloc[:size]
            held, full = [rows.iloc[size:]], True
    if held and (not full or any(map(len, held))):
        yield pd.concat(held, ignore_index=True)


@contextmanager
def fixed_time() -> Iterator[None]:
    """GeoPackages written inside state LAST_CHANGE as their time, not the clock's."""
    option = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(option)
    pyogrio.set_gdal_config_options({option: LAST_CHANGE})
    try:
        with warnings.catch_warnings():
            # As in real files, some parcels have heights and the layer does not say so.
            warnings.filterwarnings("ignore", "Layer .* declared with non-Z geometry type", RuntimeWarning)
            yield
    finally:
        pyogrio.set_gdal_config_options({option: before})
