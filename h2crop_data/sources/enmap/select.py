"""Which EnMAP scenes are used, and which cells they show clear enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pystac
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.item_facts import (
    EnmapScene,
    enmap_scene,
    first_products,
)
from h2crop_data.catalog.items import identity, updated
from h2crop_data.errors import H2cropError, NothingToPlanError, SceneError
from h2crop_data.grid import LONLAT, Cell, cells_of_area, to_crs
from h2crop_data.progress import silent
from h2crop_data.recipe.catalogs import catalogs_in_order
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.catalogs import search_in_order
from h2crop_data.sources.enmap.masks import own_mask_unit
from h2crop_data.sources.enmap.scene import EnmapScenes, SceneFacts, scene_cells, scene_facts, scene_unit
from h2crop_data.sources.scenes import SceneDecision, decision, unplaced, with_catalogs, without_retracted, year_range
from h2crop_data.sources.source import Candidate, Observed, Request, Scene

#: The quality layer without which no cloud is flagged.
CLOUD_LAYER = "quality_cloud"


@dataclass(frozen=True)
class ListedScene:
    """A scene of a catalog, judged by its item alone."""

    item: pystac.Item
    #: Why it is left out; None where its item does not keep it out.
    refusal: str | None
    #: What to look at where it is taken all the same; empty where there is nothing.
    warning: str = ""


@dataclass(frozen=True)
class ListedScenes:
    """What the catalogs have over some ground in a season."""

    #: One for each datatake and tile.
    scenes: list[ListedScene]
    #: Older products of the same tiles.
    replaced: list[ListedScene]
    #: Those of which nobody can say where they lie.
    lost: list[ListedScene]
    #: Those that were retracted.
    retracted: list[SceneDecision]
    #: Scene -> the catalog that it comes from, as the recipe calls it.
    served: dict[str, str]
    #: What is strange about the searches as a whole, each with its catalog.
    notes: list[str]


def choose_enmap(source: EnmapSettings, request: Request) -> Observed:
    """The EnMAP cells of a season, the items behind them, and the decision on every scene the catalog gave.

    Raises PlanError where no scene gives a cell.
    """
    listed = listed_scenes(
        source,
        request.locate_catalog,
        to_crs(request.area, request.crs, LONLAT),
        request.season,
        request.retracted,
    )
    decisions = [decision(scene.item, "enmap", scene.refusal) for scene in listed.replaced]
    decisions += [unplaced(scene.item, "enmap", scene.refusal or "") for scene in listed.lost]
    decisions += listed.retracted
    promising = [(scene.item, scene.refusal, scene.warning) for scene in listed.scenes]
    allowed = set(cells_of_area(request.area, request.crs, request.cell_size, request.cell_rule))
    best: dict[tuple[str, Cell], tuple[float, str, Candidate]] = {}
    usable: dict[str, pystac.Item] = {}
    units = {
        item.id: scene_unit(item, source, request.cell_size, own_mask_unit(item))
        for item, refusal, _ in promising
        if refusal is None
    }
    looked_at = request.run_units(list(units.values()), SceneError)
    facts: dict[str, SceneFacts | H2cropError] = {}
    for item, reason, warning in promising:
        refusal = reason
        if refusal is None:
            try:
                result = looked_at[units[item.id].id].read()
                cells = clear_cells(scene_cells(result), source, allowed)
                refusal = None if cells else "no cell of the area lies inside it and is clear enough"
            except SceneError as error:
                refusal = str(error)
        if refusal is not None:
            decisions.append(decision(item, "enmap", refusal))
            continue
        usable[item.id] = item
        facts[item.id] = known = scene_facts(result)
        warnings = [*([warning] if warning else []), *known.notes]
        decisions.append(decision(item, "enmap", None, warning="; ".join(warnings)))
        scene = enmap_scene(item)
        sighting = Scene(scene.id, scene.datatake, scene.stamp)
        columns = {
            "scene_time": scene.time,
            "sun_elevation": scene.sun_elevation,
            "sun_azimuth": scene.sun_azimuth,
            "across_off_nadir": scene.across_off_nadir,
        }
        for cell, flagged in cells.items():
            # Overlapping tiles of one datatake see the same ground at the same moment: the clearer one.
            candidate = (flagged, item.id, Candidate(cell, sighting, {**columns, "flagged_share": flagged}))
            key = (scene.datatake, cell)
            best[key] = min(best.get(key, candidate), candidate, key=lambda one: one[:2])
    chosen = [candidate for _, _, candidate in sorted(best.values(), key=lambda one: (one[1], one[2].cell))]
    decisions = sorted(with_catalogs(decisions, listed.served), key=lambda one: one.id)
    if not chosen:
        raise NothingToPlanError(f"{request.season}: no EnMAP scene gives a cell. {why_none(decisions)}")
    used = {name for _, name, _ in best.values()}
    pinned = EnmapScenes(
        [usable[name] for name in sorted(used)], {name: facts[name] for name in sorted(used)}, notes=tuple(listed.notes)
    )
    return Observed(chosen, pinned, decisions)


def listed_scenes(
    source: EnmapSettings,
    locate: Callable[[str], str],
    ground: BaseGeometry,
    season: int,
    retracted: Mapping[str, str],
) -> ListedScenes:
    """The scenes that the catalogs have over some ground (longitude, latitude) in a season, without opening files.

    locate: gives the URL or the absolute path of a catalog. retracted: scenes that must not be used again, and why.
    Raises CatalogError.
    """
    catalogs = catalogs_in_order(source, locate)
    found = search_in_order(catalogs, [ground], *year_range(season), silent, "EnMAP")
    # An EnMAP item has the name of its product, whatever else a catalog says of it; the one updated last counts.
    names = [{item.id: item for item in sorted(one.items, key=updated)} for one in found]
    usable, decisions = [], []
    for by_name in names:
        items, gone = without_retracted(list(by_name.values()), "enmap", retracted)
        usable.append(items)
        decisions += gone
    served = {item.id: one.catalog for one in reversed(found) for item, _ in one.refused}
    served |= {name: one.catalog for one, by_name in reversed(list(zip(found, names, strict=True))) for name in by_name}
    known = {item.id: item for items in reversed(usable) for item in items}
    placed = {name for by_name in names for name in by_name}
    refused = [pair for one in reversed(found) for pair in one.refused]
    lost = {item.id: ListedScene(item, reason) for item, reason in refused if item.id not in placed}
    products, instead = first_products(usable)
    replaced = []
    for name, stands in instead.items():
        own = served[stands] == served[name]
        why = "which was processed later" if own else f"which {served[stands]} has, an earlier catalog of the recipe"
        replaced.append(ListedScene(known[name], f"the same tile as {stands}, {why}"))
    corrected = {(one.catalog, identity(item)): wrong for one in found for item, wrong in one.corrected}
    scenes = []
    for item in products:
        refusal, warning = promise_of(item, source)
        wrong = corrected.get((served[item.id], identity(item)))
        scenes.append(ListedScene(item, refusal, "; ".join(filter(None, [warning, wrong]))))
    gone = list({one.id: one for one in decisions}.values())
    notes = list(dict.fromkeys(note for one in found for note in one.notes))
    return ListedScenes(scenes, replaced, list(lost.values()), gone, served, notes)


def promise_of(item: pystac.Item, source: EnmapSettings) -> tuple[str | None, str]:
    """Why a scene is not used by its item alone (None if it is used), and a warning where it is used nevertheless."""
    try:
        refusal = enmap_refusal(enmap_scene(item), source)
        return refusal, "" if refusal else without_cloud_layer(item, source)
    except SceneError as error:
        return str(error), ""


def clear_cells(cells: Mapping[Cell, float], source: EnmapSettings, allowed: set[Cell]) -> dict[Cell, float]:
    """Those of a scene's cells that the area has and whose share of flagged pixels is at most the recipe's."""
    return {cell: flagged for cell, flagged in cells.items() if cell in allowed and flagged <= source.max_flagged_share}


def why_none(scenes: Sequence[SceneDecision]) -> str:
    """The most frequent reasons scenes were left out, for an error message."""
    if not scenes:
        return "The catalog has no scenes over the area in that year."
    often = Counter(scene.reason for scene in scenes).most_common(3)
    return "; ".join(f"{count} x {reason}" for reason, count in often)


def enmap_refusal(scene: EnmapScene, source: EnmapSettings) -> str | None:
    """Why a recipe does not take a scene, or None."""
    if scene.time.month not in source.months:
        return f"month {scene.time.month} is not in enmap.months"
    if scene.quality > source.max_quality:
        return f"overall quality {scene.quality} is worse than enmap.max_quality {source.max_quality}"
    if scene.sun_elevation is None:
        return "no sun elevation: a night scene"
    if scene.sun_elevation < source.min_sun_elevation:
        return f"sun elevation {scene.sun_elevation:.1f} is below enmap.min_sun_elevation {source.min_sun_elevation:g}"
    if scene.cloud_cover > source.max_cloud_cover:
        return f"cloud cover {scene.cloud_cover:g} % is above enmap.max_cloud_cover {source.max_cloud_cover:g}"
    return None


def without_cloud_layer(item: pystac.Item, source: EnmapSettings) -> str:
    """The warning for a scene without cloud layer that is used; empty for one with it.

    Raises SceneError where the recipe requires one.
    """
    if CLOUD_LAYER in item.assets:
        return ""
    if source.cloud_layer == "required":
        raise SceneError(
            f"it has no asset `{CLOUD_LAYER}`, so no cloud would be flagged; `enmap.cloud_layer: optional` uses it"
        )
    return f"it has no asset `{CLOUD_LAYER}`: its clouds are not flagged"
