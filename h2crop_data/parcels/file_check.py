"""What a file of declared parcels would give: rows, repairs, place, crops by tier, overlaps, sizes."""

from __future__ import annotations

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from h2crop_data.crops.tables import CropCodes
from h2crop_data.crops.taxonomy import Taxonomy
from h2crop_data.parcels.coverage import FileCoverage, hectares_of, parcels_coverage
from h2crop_data.parcels.damage import check_rows
from h2crop_data.parcels.extent import COMMON_CRS, NATIONAL_CRS, Extent, misplacement
from h2crop_data.parcels.read import CONTRADICTORY, ParcelFile, count_rows, passed_over, read_parcels

#: Rows of each problem, and parcels of each kind, that are named.
NAMED = 10
#: Overlaps of less are the inaccuracy of shared borders, in hectares (ten square metres).
LEAST_COMMON_GROUND = 0.001
#: A pixel of 10 m, in hectares: a smaller parcel may have none.
PIXEL_AREA = 0.01


@dataclass(frozen=True)
class SizedParcel:
    """A parcel by its row, id and crop code, with its area."""

    fid: int
    parcel_id: str
    code: str
    hectares: float


@dataclass(frozen=True)
class Overlaps:
    """Ground that lies in two parcels. pairs: by their rows, the largest overlap first; at most some are named."""

    number: int
    hectares: float
    pairs: list[tuple[int, int, float]]


@dataclass(frozen=True)
class FileCheck:
    """What a file would give.

    rows: that the file states. counts: rows read, parcels, and rows with each problem; in `problems` some of their
    fids. bounds: of the parcels (west, south, east, north in degrees), None without parcels. place: what is wrong with
    it, in words; empty where nothing is. below_a_pixel: parcels of less than 100 square metres.
    """

    path: str
    layer: str
    driver: str
    crs: str
    code_field: str
    rows: int
    counts: dict[str, int]
    problems: dict[str, list[int]]
    bounds: Extent | None
    place: str
    coverage: FileCoverage
    overlaps: Overlaps
    below_a_pixel: int
    largest: list[SizedParcel]
    smallest: list[SizedParcel]


def check_parcel_file(
    file: ParcelFile, country: str, table: CropCodes, taxonomy: Taxonomy
) -> tuple[FileCheck, gpd.GeoDataFrame]:
    """What a file would give a build, and its parcels as `read_parcels` gives them, with `hcat3` and `tiers` (how many
    tiers know the crop; -1 if its code is not in the table).

    Raises ParcelError where the file cannot be read, or has fewer rows than it states.
    """
    check_rows(file.path, file.layer)
    parcels, found = read_parcels(file)
    problems = pd.concat([passed_over(file), found]).drop_duplicates(["fid", "problem"])
    areas = hectares_of(parcels.geometry.to_numpy())
    coverage, reached = parcels_coverage(parcels["code"], areas, table, taxonomy)
    sizes = np.argsort(areas, kind="stable")
    counts = count_rows(parcels, problems)
    west, south, east, north = parcels.total_bounds.tolist() if len(parcels) else (np.nan,) * 4
    check = FileCheck(
        path=str(file.path),
        layer=file.layer,
        driver=file.driver,
        crs=file.crs,
        code_field=file.code_field,
        rows=file.features,
        counts=counts,
        problems={
            str(name): sorted(rows["fid"].tolist())[:NAMED] for name, rows in problems.groupby("problem") if len(rows)
        },
        bounds=(west, south, east, north) if len(parcels) else None,
        place=problem_of_place(file, country),
        coverage=coverage,
        overlaps=overlaps_of(parcels),
        below_a_pixel=int((areas < PIXEL_AREA).sum()),
        largest=sized(parcels, areas, sizes[::-1][:NAMED]),
        smallest=sized(parcels, areas, sizes[:NAMED]),
    )
    return check, parcels.assign(tiers=reached)


def problem_of_place(file: ParcelFile, country: str) -> str:
    """What is wrong with the place of a file, by the ground that the national CRS of its country is made for."""
    national = NATIONAL_CRS.get(country[:2], ())
    uses = [CRS(name).area_of_use for name in national]
    grounds = [(use.west, use.south, use.east, use.north) for use in uses if use is not None]
    found = [misplacement(file.extent, file.crs, ground, [*national, *COMMON_CRS]) for ground in grounds]
    if not found or None in found:
        return ""
    return next(one.what for one in found if one is not None).replace("the cells", f"parcels of {country}")


def overlaps_of(parcels: gpd.GeoDataFrame) -> Overlaps:
    """The ground that lies in two parcels of a file."""
    shapes, fid = parcels.geometry.to_numpy(), parcels["fid"].to_numpy()
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    once = first < second
    first, second = first[once], second[once]
    touching = shapely.touches(shapes[first], shapes[second])
    first, second = first[~touching], second[~touching]
    common = hectares_of(shapely.intersection(shapes[first], shapes[second]))
    real = common >= LEAST_COMMON_GROUND
    first, second, common = first[real], second[real], common[real]
    order = np.argsort(-common, kind="stable")[:NAMED]
    pairs = [(int(fid[first[i]]), int(fid[second[i]]), round(float(common[i]), 4)) for i in order]
    return Overlaps(len(common), float(common.sum()), pairs)


def sized(parcels: gpd.GeoDataFrame, areas: NDArray[np.float64], rows: NDArray[np.intp]) -> list[SizedParcel]:
    """Some parcels with their areas."""
    chosen = parcels.iloc[rows]
    return [
        SizedParcel(int(fid), str(name), str(code), round(float(area), 4))
        for fid, name, code, area in zip(chosen["fid"], chosen["parcel_id"], chosen["code"], areas[rows], strict=True)
    ]


def findings_of(check: FileCheck) -> list[str]:
    """In words, what of a file needs a look; empty where nothing does."""
    counts = check.counts
    lines = [check.place] if check.place else []
    for name, number in counts.items():
        if name in check.problems and number:
            rows = ", ".join(map(str, check.problems[name]))
            more = f" and {number - len(check.problems[name])} more" if number > len(check.problems[name]) else ""
            lines.append(f"{number} row(s) {WHAT[name]}: fid {rows}{more}")
    if check.overlaps.number:
        pairs = ", ".join(f"{one} and {other} ({area:g} ha)" for one, other, area in check.overlaps.pairs[:3])
        lines.append(f"{check.overlaps.number} overlap(s), {check.overlaps.hectares:.2f} ha: fid {pairs}")
    if check.below_a_pixel:
        lines.append(f"{check.below_a_pixel} parcel(s) are smaller than a pixel of 10 m")
    return lines


#: What becomes of rows with a problem, in words.
WHAT = {
    "invalid": "have a shape that crosses itself, repaired",
    "three_dimensional": "have heights, left out",
    "null": "have no shape, left out",
    "empty": "have an empty shape, left out",
    "unreadable": "have a shape that cannot be read, left out",
    "duplicate": "have the shape of an earlier row, left out",
    CONTRADICTORY: "have the same shape and different crops; their crop is unknown",
}
