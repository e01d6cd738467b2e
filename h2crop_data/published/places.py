"""The position of published samples: approximately by their ids, and exactly with the EnMAP items of a catalog.

An id tells the MGRS tile, and the sample's place in an EnMAP scene that it names by time and tile number. Only an item
of that scene tells where the scene's pixels lie.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.constants import COARSE, FINE
from h2crop_data.errors import CatalogError
from h2crop_data.grid import LONLAT, transformer
from h2crop_data.mgrs import tile_outline, tile_square
from h2crop_data.published.layout import CELL_SIZE
from h2crop_data.published_ids import PublishedId

#: How exactly a sample's place is known: its own pixels; its scene's ground inside its tile; its tile.
Located = Literal["scene", "footprint", "tile"]
SCENE_NAME = re.compile(r"ENMAP01-____L2A-DT\d{10}_(?P<time>\d{8}T\d{6})Z_(?P<number>\d{3})_")
#: Metres between the middle of a scene's pixels and that of its item's geometry, at most: tells the UTM zone.
SAME_MIDDLE = 5000.0


@dataclass(frozen=True)
class SceneGrid:
    """The pixels of an EnMAP scene: CRS, upper left corner in metres, rows and columns of 30 m."""

    epsg: int
    x0: float
    y0: float
    rows: int
    columns: int


@dataclass(frozen=True)
class SceneItem:
    """What a catalog says of an EnMAP scene."""

    id: str
    #: None where the item does not say, or not without doubt.
    grid: SceneGrid | None
    #: In longitude and latitude.
    ground: BaseGeometry
    #: Degrees; None where the item does not say.
    sun_elevation: float | None
    sun_azimuth: float | None
    across_off_nadir: float | None


#: Scenes by what ids have of them, `20220613T112220Z_003`.
SceneCatalog = dict[str, SceneItem]


@dataclass(frozen=True)
class PublishedPlace:
    """Where a sample lies."""

    epsg: int
    #: Upper left corner in metres; NaN where it is not known.
    x0: float
    y0: float
    located: Located
    #: In longitude and latitude: the sample, or the ground it lies somewhere in.
    outline: BaseGeometry

    @property
    def affine(self) -> list[float]:
        """The six numbers that take (column, row) of 10 m pixels to metres."""
        return [float(FINE), 0.0, self.x0, 0.0, -float(FINE), self.y0]


def place_of(sample: PublishedId, scene: SceneItem | None) -> PublishedPlace:
    """Where a sample lies, as exactly as its id and the item of its scene (if there is one) tell.

    A scene whose pixels put the sample outside the scene, or outside its tile, is not used.
    """
    tile = tile_outline(sample.tile)
    if scene is not None and scene.grid is not None:
        grid = scene.grid
        x0, y0 = grid.x0 + COARSE * sample.column, grid.y0 - COARSE * sample.row
        square = shapely.box(x0, y0 - CELL_SIZE, x0 + CELL_SIZE, y0)
        outline = shapely.transform(square, transformer(f"EPSG:{grid.epsg}", LONLAT).transform, interleaved=False)
        side = CELL_SIZE // COARSE
        inside = sample.column + side <= grid.columns and sample.row + side <= grid.rows
        if inside and shapely.intersects(outline, tile):
            return PublishedPlace(grid.epsg, x0, y0, "scene", outline)
    epsg, _, _ = tile_square(sample.tile)
    if scene is not None:
        shared = shapely.intersection(scene.ground, tile)
        if shared.area > 0:
            return PublishedPlace(epsg, math.nan, math.nan, "footprint", shared)
    return PublishedPlace(epsg, math.nan, math.nan, "tile", tile)


def read_scenes(catalogs: Sequence[Path]) -> SceneCatalog:
    """The EnMAP scenes of some ItemCollections. Of one scene listed more than once the last version counts.

    Versions of one scene whose pixels lie elsewhere leave its grid unknown: nothing tells which was cut.
    Raises CatalogError naming file and item.
    """
    versions: dict[str, list[SceneItem]] = defaultdict(list)
    for path in catalogs:
        for feature in read_features(path):
            name = scene_name(feature)
            if name is not None:
                try:
                    versions[name].append(scene_item(feature))
                except (KeyError, TypeError, ValueError, IndexError, shapely.errors.ShapelyError) as error:
                    raise CatalogError(f"{path}: the item {feature.get('id')} cannot be used: {error!r}") from error
    scenes = {}
    for name, items in sorted(versions.items()):
        last = max(items, key=lambda item: item.id)
        agreed = len({item.grid for item in items}) == 1
        scenes[name] = last if agreed else without_grid(last)
    return scenes


def without_grid(item: SceneItem) -> SceneItem:
    """The same scene, with nothing said of its pixels."""
    return SceneItem(item.id, None, item.ground, item.sun_elevation, item.sun_azimuth, item.across_off_nadir)


def read_features(path: Path) -> list[dict[str, Any]]:
    """The features of an ItemCollection. Raises CatalogError."""
    try:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
    except OSError as error:
        raise CatalogError(f"cannot read the ItemCollection {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(f"{path} is not a STAC ItemCollection (JSON with features): {error!r}") from error
    if not isinstance(features, list) or not all(isinstance(feature, dict) for feature in features):
        raise CatalogError(f"{path} is not a STAC ItemCollection: expected its `features` to be a list of items")
    return features


def scene_name(feature: dict[str, Any]) -> str | None:
    """What published ids have of the item's scene: from its name, else from its time and tile number; None without."""
    match = SCENE_NAME.match(str(feature.get("id")))
    if match:
        return f"{match['time']}Z_{match['number']}"
    properties = feature.get("properties") or {}
    try:
        moment = datetime.fromisoformat(properties["datetime"]).astimezone(UTC)
        return f"{moment:%Y%m%dT%H%M%S}Z_{int(properties['enmap:tileID']):03d}"
    except (KeyError, TypeError, ValueError):
        return None


def scene_item(feature: dict[str, Any]) -> SceneItem:
    """The facts of an item. Raises what JSON of another shape raises."""
    ground = shapely.make_valid(shapely.from_geojson(json.dumps(feature["geometry"])))
    properties = feature.get("properties") or {}
    image = (feature.get("assets") or {}).get("image") or {}
    stated = {**properties, **{key: value for key, value in image.items() if value is not None}}
    grid = None
    if stated.get("proj:transform") and stated.get("proj:shape"):
        a, b, x0, d, e, y0 = (float(number) for number in stated["proj:transform"][:6])
        rows, columns = (int(number) for number in stated["proj:shape"])
        code = stated.get("proj:code") or stated.get("proj:epsg")
        if (a, b, d, e) == (COARSE, 0, 0, -COARSE):
            middle = (x0 + COARSE * columns / 2, y0 - COARSE * rows / 2)
            epsg = int(str(code).removeprefix("EPSG:")) if code else zone_of(middle, ground)
            grid = None if epsg is None else SceneGrid(epsg, x0, y0, rows, columns)
    # At night the archive leaves out the one and writes 0 for the other.
    elevation = properties.get("enmap:sunElevationAngle") or properties.get("view:sun_elevation") or None
    return SceneItem(
        str(feature["id"]),
        grid,
        ground,
        elevation,
        properties.get("enmap:sunAzimuthAngle"),
        properties.get("enmap:acrossOffNadirAngle"),
    )


def zone_of(middle: tuple[float, float], ground: BaseGeometry) -> int | None:
    """The UTM zone in which a point in metres is the middle of some ground; None where no zone fits.

    The archive's own items leave `proj:epsg` empty.
    """
    west, south, east, north = ground.bounds
    longitude, latitude = (west + east) / 2, (south + north) / 2
    nearest = math.floor((longitude + 180) / 6) + 1
    for number in (nearest, nearest - 1, nearest + 1):
        epsg: int = (32600 if latitude >= 0 else 32700) + (number - 1) % 60 + 1
        x, y = transformer(LONLAT, f"EPSG:{epsg}").transform(longitude, latitude)
        if math.hypot(x - middle[0], y - middle[1]) <= SAME_MIDDLE:
            return epsg
    return None
