"""Where a simulated region lies: its cells, and the ground its scenes need around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import shapely

from h2crop_data.errors import UsageError
from h2crop_data.grid import LONLAT, transformer, utm_epsg
from h2crop_data.simulate.enmap.scenes import swaths
from h2crop_data.simulate.ground import GROUND_MARGIN, Bounds
from h2crop_data.simulate.optics import FINE_GROUND
from h2crop_data.simulate.settings import Simulation

#: Sentinel-2 files reach this far beyond the cells, in metres.
SENTINEL2_MARGIN = 240


@dataclass(frozen=True)
class Layout:
    """The region of a simulation, in metres of its zone; everything lies on the lattice of cells."""

    simulation: Simulation

    @property
    def epsg(self) -> int:
        """The zone of the region."""
        return self.simulation.place.epsg

    @cached_property
    def size(self) -> tuple[int, int]:
        """Columns and rows of cells; the northern row may be shorter."""
        columns = math.ceil(math.sqrt(self.simulation.cells))
        return columns, math.ceil(self.simulation.cells / columns)

    @cached_property
    def bounds(self) -> Bounds:
        """West, south, east, north around the cells."""
        side = self.simulation.cell_size
        west, south = self.simulation.place.west // side * side, self.simulation.place.south // side * side
        columns, rows = self.size
        return west, south, west + columns * side, south + rows * side

    @cached_property
    def cells(self) -> shapely.Polygon:
        """The ground of exactly the cells asked for."""
        west, south, east, north = self.bounds
        side = self.simulation.cell_size
        columns, rows = self.size
        missing = columns * rows - self.simulation.cells
        whole = shapely.box(west, south, east, north)
        return shapely.difference(whole, shapely.box(east - missing * side, north - side, east, north))

    @property
    def sentinel2_bounds(self) -> Bounds:
        """What Sentinel-2 files cover of the zone."""
        west, south, east, north = self.bounds
        room = SENTINEL2_MARGIN
        # Cells may be multiples of 60 m; pixels of 60 m must end with the bounds.
        return west - room, south - room, east + room, north + room

    @cached_property
    def land_bounds(self) -> Bounds:
        """The ground that any scene shows."""
        boxes = [self.sentinel2_bounds]
        if self.simulation.enmap.scenes:
            boxes += [
                tile.grid_bounds for datatake in swaths(self.bounds, self.simulation.enmap, 1.0) for tile in datatake
            ]
        west, south, _, _ = (min(values) for values in zip(*boxes, strict=True))
        _, _, east, north = (max(values) for values in zip(*boxes, strict=True))
        low, high = GROUND_MARGIN // FINE_GROUND * FINE_GROUND, FINE_GROUND
        return (
            (west - low) // high * high,
            (south - low) // high * high,
            (east + low) // high * high,
            (north + low) // high * high,
        )

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the middle."""
        west, south, east, north = self.bounds
        return transformer(f"EPSG:{self.epsg}", LONLAT).transform((west + east) / 2, (south + north) / 2)

    def area(self) -> dict[str, Any]:
        """The `area` of a recipe that takes exactly these cells."""
        if self.cells.equals(shapely.box(*self.bounds)):
            where: dict[str, Any] = {"bbox": list(self.bounds)}
        else:
            where = {"geojson": {"type": "Polygon", "coordinates": [[list(p) for p in self.cells.exterior.coords]]}}
        return {**where, "crs": f"EPSG:{self.epsg}", "cells": "inside"}

    def check(self) -> None:
        """Raise UsageError where the region is not one: in another zone than it says, or not in any."""
        if not (32601 <= self.epsg <= 32660 or 32701 <= self.epsg <= 32760):
            raise UsageError(f"place.epsg: {self.epsg}: 32601..32660 or 32701..32760")
        to_lonlat = transformer(f"EPSG:{self.epsg}", LONLAT)
        if abs(self.centre[1]) > 75:
            raise UsageError(f"place: latitude {self.centre[1]:.1f}: expected a latitude from -75 to 75")
        west, south, east, north = self.bounds
        for x, y in ((west, south), (east, south), (west, north), (east, north)):
            if utm_epsg(*to_lonlat.transform(x, y)) != self.epsg:
                raise UsageError(
                    f"place: the corner ({x}, {y}) of {self.simulation.cells} cells lies outside zone "
                    f"EPSG:{self.epsg}, and a cell must lie in its own zone; move the region or use fewer cells"
                )
