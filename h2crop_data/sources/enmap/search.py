"""The EnMAP scenes over an area, judged by the rules of a build, without opening their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.footprints import footprint
from h2crop_data.catalog.item_facts import ENMAP_NAME, enmap_scene, processing_version
from h2crop_data.catalog.items import LAST, acquired_if_stated
from h2crop_data.errors import SceneError
from h2crop_data.grid import LONLAT, to_crs
from h2crop_data.progress import Progress, silent
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.enmap.select import ListedScene, listed_scenes

#: Shares of ground are measured where equal areas have equal sizes (EASE-Grid 2.0).
EQUAL_AREA = "EPSG:6933"


@dataclass(frozen=True)
class SceneSighting:
    """One scene over an area, and what a build would do with it."""

    id: str
    season: int
    #: None where the item does not state it.
    time: datetime | None
    #: Ten digits, and three; empty where the name is no product's.
    datatake: str
    tile: str
    #: Processing version, `01.04.02`; empty where nothing states it.
    version: str
    #: 0 nominal, 1 reduced, 2 low; percent of the imaged ground; degrees. None where the item does not state it.
    quality: int | None
    cloud_cover: float | None
    sun_elevation: float | None
    across_off_nadir: float | None
    #: Share of the area that its footprint covers; None where nobody can say where it lies.
    covered: float | None
    taken: bool
    reason: str
    warning: str
    #: As the recipe calls it.
    catalog: str
    item: pystac.Item = field(repr=False, compare=False)

    def row(self) -> dict[str, Any]:
        """The scene as JSON, without its item."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "item"}
        return {**values, "time": self.time and self.time.isoformat()}


@dataclass(frozen=True)
class SearchedArea:
    """What the catalogs have over an area."""

    #: In order of season, time and id.
    scenes: list[SceneSighting]
    #: Season -> share of the area that the scenes to be taken cover together.
    covered: dict[int, float]
    #: What is strange about the searches as a whole.
    notes: list[str]


def search_enmap(
    source: EnmapSettings,
    locate: Callable[[str], str],
    ground: BaseGeometry,
    seasons: Sequence[int],
    progress: Progress = silent,
) -> SearchedArea:
    """The scenes over some ground (longitude, latitude) in some seasons; a build refuses some when it opens them.

    locate: gives the URL or the absolute path of a catalog. Raises CatalogError.
    """
    area = to_crs(ground, LONLAT, EQUAL_AREA)
    scenes: list[SceneSighting] = []
    covered: dict[int, float] = {}
    notes: list[str] = []
    for number, season in enumerate(sorted(seasons)):
        progress(number, len(seasons), f"search {source.collection}, {season}")
        listed = listed_scenes(source, locate, ground, season, {})
        # Those too that an older or lost product keeps out.
        found = [*listed.scenes, *listed.replaced, *listed.lost]
        places = {one.item.id: equal_area_ground(one.item) for one in found}
        of_season = [listed_sighting(one, season, area, places[one.item.id], listed.served) for one in found]
        taken = [places[one.id] for one in of_season if one.taken]
        covered[season] = share_of(area, shapely.union_all([place for place in taken if place is not None]))
        notes += listed.notes
        scenes += sorted(of_season, key=lambda one: (one.time or LAST, one.id))
    progress(len(seasons), len(seasons), "searched")
    return SearchedArea(scenes, covered, list(dict.fromkeys(notes)))


def equal_area_ground(item: pystac.Item) -> BaseGeometry | None:
    """The footprint of an item in EQUAL_AREA; None where its position is unknown."""
    try:
        return to_crs(footprint(item), LONLAT, EQUAL_AREA)
    except SceneError:
        return None


def share_of(area: BaseGeometry, place: BaseGeometry) -> float:
    """The share of an area that a place covers."""
    return round(float(shapely.area(shapely.intersection(area, place)) / shapely.area(area)), 6)


def listed_sighting(
    scene: ListedScene, season: int, area: BaseGeometry, place: BaseGeometry | None, served: Mapping[str, str]
) -> SceneSighting:
    """The report on a scene; None for what its item does not state. served: scene -> its catalog."""
    item = scene.item
    name = ENMAP_NAME.match(item.id)
    return SceneSighting(
        id=item.id,
        season=season,
        time=acquired_if_stated(item),
        datatake=name["datatake"] if name else "",
        tile=name["tile"] if name else "",
        version=processing_version(item),
        **scene_facts_stated(item),
        covered=None if place is None else share_of(area, place),
        taken=scene.refusal is None,
        reason="" if scene.refusal is None else scene.refusal,
        warning=scene.warning,
        catalog=served[item.id],
        item=item,
    )


def scene_facts_stated(item: pystac.Item) -> Mapping[str, Any]:
    """Quality, clouds and angles; all None where the item is too damaged to be read."""
    names = ("quality", "cloud_cover", "sun_elevation", "across_off_nadir")
    try:
        scene = enmap_scene(item)
    except SceneError:
        return dict.fromkeys(names)
    return {name: getattr(scene, name) for name in names}
