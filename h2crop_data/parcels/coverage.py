"""Which share of a file's parcels the crop classes reach, tier by tier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyproj import Geod

from h2crop_data.constants import TIERS, UNKNOWN
from h2crop_data.crops.codes import CONTRADICTS
from h2crop_data.crops.tables import CropCodes
from h2crop_data.crops.taxonomy import Taxonomy, tier_table
from h2crop_data.parcels.read import ParcelFile, read_parcels

SQUARE_METRES_PER_HECTARE = 10_000.0


@dataclass(frozen=True)
class CodeCoverage:
    """A crop code of a file. tiers: at how many tiers it has a class, 0 to 4. known: whether the table has it."""

    code: str
    parcels: int
    hectares: float
    known: bool
    hcat3: str
    tiers: int
    #: The code of the table that looks like it; empty where it is known or none does.
    near: str


@dataclass(frozen=True)
class TierCoverage:
    """The parcels and hectares that have a class at a tier, and their shares of all."""

    tier: int
    parcels: int
    parcel_share: float
    hectares: float
    hectare_share: float


@dataclass(frozen=True)
class FileCoverage:
    """How far the classes reach in a file. codes: those with the most hectares first."""

    parcels: int
    hectares: float
    unmapped: int
    tiers: list[TierCoverage]
    codes: list[CodeCoverage]


def file_coverage(file: ParcelFile, table: CropCodes, taxonomy: Taxonomy) -> FileCoverage:
    """How far the classes of a table and a taxonomy reach in a file; areas on the ellipsoid, in hectares.

    Raises ParcelError where the file cannot be read.
    """
    parcels, _ = read_parcels(file)
    return parcels_coverage(parcels["code"], hectares_of(parcels.geometry.to_numpy()), table, taxonomy)[0]


def parcels_coverage(
    codes: pd.Series[str], hectares: NDArray[np.float64], table: CropCodes, taxonomy: Taxonomy
) -> tuple[FileCoverage, NDArray[np.int8]]:
    """How far the classes reach in parcels with these crop codes and areas; and for each parcel at how many tiers it
    has a class, int8, -1 where the table does not have its code.
    """
    missing, hcat3 = table.unmapped(codes), table.hcat3(codes)
    reached = (tier_table(hcat3, taxonomy) != UNKNOWN).sum(axis=1).astype(np.int8)
    rows = pd.DataFrame(
        {
            "code": codes.to_numpy(),
            "hectares": hectares,
            "missing": missing,
            "hcat3": hcat3.to_numpy(),
            "reached": reached,
        }
    )
    total = float(rows["hectares"].sum())
    found = FileCoverage(
        parcels=len(rows),
        hectares=total,
        unmapped=int(missing.sum()),
        tiers=[tier_coverage(tier, rows, total) for tier in range(1, TIERS + 1)],
        codes=coverage_of_codes(rows, table),
    )
    return found, np.where(missing, np.int8(-1), reached)


def hectares_of(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """The areas of shapes (longitude, latitude) on the ellipsoid, in hectares."""
    geod = Geod(ellps="WGS84")
    areas = (abs(geod.geometry_area_perimeter(shape)[0]) for shape in shapes.tolist())
    return np.fromiter(areas, np.float64, len(shapes)) / SQUARE_METRES_PER_HECTARE


def tier_coverage(tier: int, rows: pd.DataFrame, total: float) -> TierCoverage:
    """The parcels that have a class at a tier. total: hectares of all."""
    there = rows[rows["reached"] >= tier]
    hectares = float(there["hectares"].sum())
    return TierCoverage(tier, len(there), len(there) / max(len(rows), 1), hectares, hectares / total if total else 0.0)


def coverage_of_codes(rows: pd.DataFrame, table: CropCodes) -> list[CodeCoverage]:
    """The crop codes of a file, those with the most hectares first."""
    near = table.near_misses(set(rows["code"]))
    found = [
        CodeCoverage(
            code=str(code),
            parcels=len(of_code),
            hectares=float(of_code["hectares"].sum()),
            known=not of_code["missing"].iloc[0] and CONTRADICTS not in str(code),
            hcat3=str(of_code["hcat3"].iloc[0]),
            tiers=int(of_code["reached"].iloc[0]),
            near=near.get(str(code), ""),
        )
        for code, of_code in rows.groupby("code", sort=True)
    ]
    return sorted(found, key=lambda one: -one.hectares)
