"""The files of declarations a plan reads: which they are, whether they can be used, their parcels near its cells."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyogrio
import shapely

from h2crop_data.crops.tables import CropCodes, load_crop_table
from h2crop_data.crops.taxonomy import PUBLISHED_VERSION
from h2crop_data.cube.crop_tables import merged_crop_tables
from h2crop_data.datasheet.markdown import listing
from h2crop_data.errors import ParcelError
from h2crop_data.grid import LONLAT, Cell, to_crs
from h2crop_data.parcels.damage import about_to_name_rows, check_rows
from h2crop_data.parcels.extent import COMMON_CRS, NATIONAL_CRS, Extent, misplacement
from h2crop_data.parcels.read import NO_PARCEL, ParcelFile, count_rows, open_parcels, passed_over, read_parcels
from h2crop_data.progress import Progress
from h2crop_data.recipe.model import CropTable, Parcels, ParcelSource

log = logging.getLogger(__name__)
#: Rows, codes that a line names.
NAMED = 10
#: The end of a note on codes that look like others.
MISSPELT = "their spelling may be damaged, for instance by lost zeros"


@dataclass(frozen=True)
class NearParcels:
    """The parcels of some sources near some cells."""

    #: fid, parcel_id, code, country, hcat3 and geometry, in order of source and row.
    parcels: Any
    #: What was read, repaired and left out.
    counts: dict[str, int]
    #: By country the crop codes that are in no table, with their number of parcels.
    unmapped: dict[str, dict[str, int]]
    #: In words, what needs a look.
    notes: list[str]
    #: Country -> SHA-256 of its crop table.
    tables: dict[str, str]


@dataclass(frozen=True)
class YearFiles:
    """The files with the declarations of a year."""

    year: int
    sources: Sequence[ParcelSource]
    #: A path of the recipe as an absolute one. Raises RecipeError.
    locate: Callable[[str], Path]
    #: Version of the taxonomy, whose crop tables are used.
    taxonomy: str = PUBLISHED_VERSION

    def path(self, source: ParcelSource) -> Path:
        """The file of a source."""
        return self.locate(source.path.replace("{year}", str(self.year)))

    def open(self, source: ParcelSource) -> ParcelFile:
        """The file of a source. Raises ParcelError where it cannot be read."""
        path = self.path(source)
        return open_parcels(
            path,
            source.code_field,
            use_field=source.use_field,
            id_field=source.id_field,
            layer=source.layer,
            crs=source.crs,
        )


def season_files(
    settings: Parcels, locate: Callable[[str], Path], season: int, taxonomy: str = PUBLISHED_VERSION
) -> dict[str, YearFiles]:
    """By role, the files of a season (`parcels`) and those of the year before (`prior`).

    taxonomy: its version.
    """
    before = settings.season if settings.prior == "same" else settings.prior or []
    years = {"parcels": (season, settings.season), "prior": (season - 1, before)}
    return {
        role: YearFiles(year, [one for one in sources if one.years is None or year in one.years], locate, taxonomy)
        for role, (year, sources) in years.items()
    }


def check_year_files(files: YearFiles, cells: Sequence[Cell], area_crs: str) -> list[str]:
    """Refuse files of declarations that cannot be those of some cells; gives warnings.

    area_crs: the CRS of the recipe's area, which may be that of a file that states another one. Raises ParcelError for
    a file with no rows or fewer than it states, for one whose position contradicts its CRS, and where no file is near
    the cells.
    """
    west, south, east, north = shapely.total_bounds([cell.outline for cell in cells]).tolist()
    ground = (west, south, east, north)
    zones = sorted({cell.crs for cell in cells})
    elsewhere = []
    for source in files.sources:
        file = files.open(source)
        check_rows(file.path, file.layer)
        if not file.features:
            raise ParcelError(f"{file.path}: layer {file.layer} has no parcels")
        likely = [*NATIONAL_CRS.get(source.country[:2], ()), *zones, area_crs, *COMMON_CRS]
        found = misplacement(file.extent, file.crs, ground, list(dict.fromkeys(likely)))
        if found is None or any_near(file, ground):
            continue
        if found.certain:
            raise ParcelError(f"{file.path}: {found.what}")
        elsewhere.append((file.path, found.what))
    if files.sources and len(elsewhere) == len(files.sources):
        raise ParcelError("; ".join(f"{path}: {what}" for path, what in elsewhere))
    return [f"{path.name}: {what}" for path, what in elsewhere]


def check_other_files(own: YearFiles, prior: YearFiles) -> None:
    """Refuse sources of the year before that read the same field of the same file as the season's own.

    Raises ParcelError.
    """
    for label, before in product(own.sources, prior.sources):
        path, other = own.path(label), prior.path(before)
        same_layer = label.layer is None or before.layer is None or label.layer == before.layer
        if path == other and same_layer and label.code_field.casefold() == before.code_field.casefold():
            raise ParcelError(
                f"{path} would be read for {own.year} and, as the prior, for {prior.year}: every prior would equal "
                "its label; use a separate file for the year before (`{year}` in the path), set the `years` of "
                "the file, or choose `prior: none`"
            )


@about_to_name_rows()
def any_near(file: ParcelFile, ground: Extent) -> bool:
    """Whether a file has a row near some ground (longitude, latitude), whatever extent it states."""
    bounds = to_crs(shapely.box(*ground), LONLAT, file.crs).bounds
    if not np.isfinite(bounds).all():
        return False
    try:
        found = pyogrio.raw.read(
            file.path, layer=file.layer, columns=[], read_geometry=False, return_fids=True, bbox=bounds, max_features=1
        )
    except pyogrio.errors.FeatureError:
        # A row near it that cannot be read.
        return True
    return len(found[1]) > 0


def read_near(files: YearFiles, groups: Sequence[Sequence[Cell]], progress: Progress) -> NearParcels:
    """The parcels of a year that meet the cells of some groups (cells near each other), read group by group.

    Raises ParcelError for files, fields or tables that cannot be used.
    """
    parts, problems, notes, tables = [], [], [], []
    for source in files.sources:
        file = files.open(source)
        own = files.locate(source.table.path) if isinstance(source.table, CropTable) else None
        table = load_crop_table(source.table, source.country, own, version=files.taxonomy, year=files.year)
        tables.append({source.country: table.digest})
        near, wrong = [], [passed_over(file)]
        for done, cells in enumerate(groups):
            progress(done, len(groups), f"parcels of {files.year}, {source.country}")
            outlines = shapely.union_all([cell.outline for cell in cells])
            found, found_wrong = read_parcels(file, outlines)
            shapely.prepare(outlines)
            found = found[shapely.intersects(outlines, found.geometry.to_numpy())]
            near.append(found)
            # Of a row without a place nobody knows whether it is near.
            wrong.append(found_wrong[found_wrong["parcel"].isin([*found["fid"], NO_PARCEL])])
        rows = pd.concat(near).drop_duplicates("fid").sort_values("fid")
        missing, hcat3 = table.unmapped(rows["code"]), table.hcat3(rows["code"])
        parts.append(rows.assign(country=source.country, hcat3=hcat3, unmapped=missing))
        problems.append(pd.concat(wrong).drop_duplicates(["fid", "problem"]))
        notes += unreadable_rows(file, problems[-1])
        notes += near_notes(source.country, rows["code"][missing], table)
    parcels = pd.concat(parts, ignore_index=True)
    named = unmapped_codes(parcels[parcels["unmapped"]])
    counts = count_rows(parcels, pd.concat(problems)) | {"unmapped": int(parcels["unmapped"].sum())}
    found = ", ".join(f"{name} {number}" for name, number in counts.items() if number)
    log.info("parcels of %d: %s", files.year, found, extra={"counts": counts})
    for note in notes:
        log.warning("parcels of %d: %s", files.year, note)
    return NearParcels(parcels.drop(columns="unmapped"), counts, named, notes, merged_crop_tables(tables))


def unmapped_codes(parcels: pd.DataFrame) -> dict[str, dict[str, int]]:
    """By country, how many parcels have each crop code."""
    codes: dict[str, Counter[str]] = defaultdict(Counter)
    for country, code in zip(parcels["country"], parcels["code"], strict=True):
        codes[country][code] += 1
    return {country: dict(counted) for country, counted in codes.items()}


def unreadable_rows(file: ParcelFile, problems: pd.DataFrame) -> list[str]:
    """A note on the rows of a file that could not be read."""
    rows = sorted(problems["fid"][problems["problem"] == "unreadable"].tolist())
    told = f"{file.path.name}: {len(rows)} row(s) with unreadable geometry left out: fid {listing(rows, NAMED)}"
    return [told] if rows else []


def near_notes(country: str, codes: Iterable[str], table: CropCodes) -> list[str]:
    """A note on the crop codes that a table does not have, but one that looks alike."""
    pairs = [f"{code} is in the table as {known}" for code, known in sorted(table.near_misses(set(codes)).items())]
    return [f"crop codes of {country}: {listing(pairs, NAMED)}; {MISSPELT}"] if pairs else []


def is_near_note(note: str, country: str) -> bool:
    """Whether a note is one of `near_notes` on a country."""
    return note.startswith(f"crop codes of {country}: ") and note.endswith(
        (MISSPELT, "leading zeros may have been lost")
    )
