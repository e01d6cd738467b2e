"""The land of a region on disk: objects, crops of each year, rasters of the truth, declared parcels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray

from h2crop_data.constants import FINE, TIERS
from h2crop_data.crops.tables import load_crop_table
from h2crop_data.crops.taxonomy import Taxonomy, tier_table
from h2crop_data.progress import Progress
from h2crop_data.simulate.files import CogWriter
from h2crop_data.simulate.land.declarations import declare, write_geopackage
from h2crop_data.simulate.land.objects import land_of_square, squares_of_bounds
from h2crop_data.simulate.land.rotation import catch_crops, crop_of
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.optics import FINE_GROUND
from h2crop_data.simulate.workers import Simulators

#: What the truth keeps of an object; `number` 1..n is its value in the rasters.
OBJECT_COLUMNS = ("number", "kind", "x", "y", "area_ha", "variant", "soil", "shift_days", "vigour", "crop_region")


def write_landscape(layout: Layout, folder: Path, workers: Simulators, progress: Progress) -> int:
    """Make the land of a region, square by square, and write all of it; gives the number of declared parcels.

    Below `truth`: `land/<column>_<row>.parquet` (objects with geometry, GeoParquet), `objects.parquet` (all of them,
    without), `land.tif` (their numbers at 5 m, as the instruments see it), `fields.tif` (at 10 m over the cells), and
    for each year `crops-<year>.parquet` (what grows), `parcels-<year>.parquet` (what was declared and what is wrong
    with it), `labels-<year>.tif` (classes of what grows). Below `parcels`: one GeoPackage a year, as declared.
    """
    truth = folder / "truth"
    squares = write_land(layout, truth, workers, progress)
    parcels = 0
    for done, year in enumerate(declared_years(layout.simulation.seasons)):
        progress(done, len(declared_years(layout.simulation.seasons)), f"parcels of {year}")
        parcels += write_year(layout, folder, squares, year, workers)
    return parcels


def write_land(layout: Layout, truth: Path, workers: Simulators, progress: Progress) -> list[Path]:
    """The objects of the region's land, numbered from 1; gives the file of each land square."""
    (truth / "land").mkdir(parents=True, exist_ok=True)
    squares = list(squares_of_bounds(layout.land_bounds))
    objects: list[pd.DataFrame] = []
    files: list[Path] = []
    number = 1
    with (
        numbers_raster(truth / "land.tif", layout, layout.land_bounds, FINE_GROUND) as land,
        numbers_raster(truth / "fields.tif", layout, layout.bounds, FINE) as fields,
    ):
        made = workers.in_order(square_of_region, [(layout, *place) for place in squares])
        for done, ((column, row), square) in enumerate(zip(squares, made, strict=True)):
            progress(done, len(squares), "land")
            if square.empty:
                continue
            square = square.assign(number=np.arange(number, number + len(square)))
            number += len(square)
            draw(land, square, FINE_GROUND)
            draw(fields, square, FINE)
            objects.append(pd.DataFrame(square[list(OBJECT_COLUMNS)]))
            files.append(truth / "land" / f"{column}_{row}.parquet")
            square.to_parquet(files[-1], index=False)
    pd.concat(objects).to_parquet(truth / "objects.parquet", index=False)
    return files


def write_year(layout: Layout, folder: Path, squares: list[Path], year: int, workers: Simulators) -> int:
    """What grows in a year and what is declared of it; gives the number of declared fields."""
    truth = folder / "truth"
    grown: list[pd.DataFrame] = []
    facts: list[pd.DataFrame] = []

    def declared() -> Iterator[gpd.GeoDataFrame]:
        for crops, records, truths in workers.in_order(year_of_square, [(layout, square, year) for square in squares]):
            grown.append(crops)
            facts.append(truths)
            yield records

    path = folder / "parcels" / f"RPG_{year}.gpkg"
    path.parent.mkdir(exist_ok=True)
    write_geopackage(path, declared())
    crops = pd.concat(grown, ignore_index=True)
    crops.to_parquet(truth / f"crops-{year}.parquet", index=False)
    table = pd.concat(facts, ignore_index=True)
    table.to_parquet(truth / f"parcels-{year}.parquet", index=False)
    write_labels(truth, layout, year, crops)
    return int(table["declared"].sum())


def year_of_square(layout: Layout, square: Path, year: int) -> tuple[pd.DataFrame, gpd.GeoDataFrame, pd.DataFrame]:
    """Of the fields of a land square: what grows, what is declared, and what is true of the declarations."""
    objects = gpd.read_parquet(square)
    fields = objects[objects["kind"] == "field"].reset_index(drop=True)
    crops = crops_of_year(layout, fields, year)
    sown = fields.assign(**{name: crops[name].to_numpy() for name in ("crop", "catch_1", "catch_2")})
    return crops, *declare(sown, year, layout.simulation.parcels, layout.simulation.seed)


def declared_years(seasons: list[int]) -> list[int]:
    """The seasons and the years before them."""
    return sorted({*seasons, *(season - 1 for season in seasons)})


def square_of_region(layout: Layout, column: int, row: int) -> gpd.GeoDataFrame:
    """The objects of a land square that meet the region's land."""
    square = land_of_square(layout.simulation.seed, column, row)
    near = shapely.intersects(square.geometry.to_numpy(), shapely.box(*layout.land_bounds))
    return square[near].reset_index(drop=True).set_crs(f"EPSG:{layout.epsg}")


def crops_of_year(layout: Layout, fields: gpd.GeoDataFrame, year: int) -> pd.DataFrame:
    """What grows on fields in a year: number, last_crop, crop, next_crop, catch_1, catch_2, last_catch."""
    seed, tail = layout.simulation.seed, layout.simulation.parcels.tail
    last, crop, following = (crop_of(seed, fields, season, tail) for season in (year - 1, year, year + 1))
    first, second = catch_crops(seed, fields, year, tail)
    before, _ = catch_crops(seed, fields, year - 1, tail)
    return pd.DataFrame(
        {
            "number": fields["number"].to_numpy(),
            "last_crop": last,
            "crop": crop,
            "next_crop": following,
            "catch_1": first,
            "catch_2": second,
            "last_catch": before,
        }
    )


def numbers_raster(path: Path, layout: Layout, bounds: tuple[int, int, int, int], size: int) -> CogWriter:
    """A raster of object numbers, 0 where there is none."""
    return CogWriter(path, layout.epsg, bounds, size, "int32", resampling="nearest", nodata=None)


def draw(raster: CogWriter, objects: gpd.GeoDataFrame, size: int) -> None:
    """Draw objects into a raster by the centres of its pixels, over what is there."""
    west, south, east, north = objects.total_bounds
    left, top = np.floor(west / size) * size, np.ceil(north / size) * size
    shape = (int(np.ceil((top - south) / size)), int(np.ceil((east - left) / size)))
    numbers: NDArray[np.int32] = rasterio.features.rasterize(
        zip(objects.geometry, objects["number"].tolist(), strict=True),
        out_shape=shape,
        transform=Affine(size, 0, left, 0, -size, top),
        fill=0,
        dtype="int32",
    )
    raster.overlay(numbers, left, top)


def write_labels(truth: Path, layout: Layout, year: int, crops: pd.DataFrame) -> None:
    """The classes of what grows, (4 tiers, y, x) uint8 at 10 m over the cells: 0 no field, 255 no class at the tier."""
    table = load_crop_table(None, "fr")
    classes = tier_table(table.hcat3(crops["crop"].astype("str")), Taxonomy.load())
    last = int(pd.read_parquet(truth / "objects.parquet", columns=["number"])["number"].max())
    lookup = np.zeros((TIERS, last + 1), np.uint8)
    lookup[:, crops["number"].to_numpy()] = classes.T
    names = [f"tier{tier}" for tier in range(1, TIERS + 1)]
    with (
        rasterio.open(truth / "fields.tif") as fields,
        CogWriter(
            truth / f"labels-{year}.tif",
            layout.epsg,
            layout.bounds,
            FINE,
            "uint8",
            count=TIERS,
            resampling="nearest",
            descriptions=names,
        ) as labels,
    ):
        for window in strips(fields):
            numbers = fields.read(1, window=window)
            west, north = fields.transform @ (window.col_off, window.row_off)
            labels.write(lookup[:, numbers], west, north)


def strips(raster: rasterio.DatasetReader) -> Iterator[rasterio.windows.Window]:
    """A raster cut into strips of its blocks."""
    height = raster.block_shapes[0][0]
    for row in range(0, raster.height, height):
        yield rasterio.windows.Window(0, row, raster.width, min(height, raster.height - row))
