"""Which scenes a plan takes, which it leaves out, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pystac
import shapely
from odc.geo.geobox import GeoBox
from rasterio.windows import Window
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.access import raster_geobox, read_text, read_window
from h2crop_data.catalog.acquisitions import newest_of_each_acquisition
from h2crop_data.catalog.items import acquired, each_once, identity, name_twins, number_of, shared_id, updated
from h2crop_data.catalog.providers import (
    EnmapScene,
    baseline,
    enmap_scene,
    newest_products,
    offset_evidence,
    sentinel2_asset,
)
from h2crop_data.catalog.search import find_items
from h2crop_data.constants import COARSE, ENMAP_FLAGS
from h2crop_data.cube.retraction import SCENE_REASON
from h2crop_data.enmap.product import parse_metadata, select_bands
from h2crop_data.enmap.quality import LAYERS, footprint_or, quality_flags
from h2crop_data.errors import PlanError, ReadError, SceneError
from h2crop_data.grid import LONLAT, Cell, cells_of_area, to_crs
from h2crop_data.recipe.model import EnmapSource, Recipe, Sentinel2Source
from h2crop_data.sentinel2.reflectance import decide_offset

#: The quality layer without which no cloud is flagged.
CLOUD_LAYER = "quality_cloud"


@dataclass(frozen=True)
class SceneDecision:
    """One scene of a catalog: taken or not, and why. One row of the index `scenes`."""

    id: str
    sensor: str
    collection: str
    time: datetime
    baseline: str | None
    taken: bool
    reason: str
    #: Sentinel-2: what is added to its numbers; None for EnMAP and for scenes left out.
    offset: int | None = None
    #: What to look at although the scene was taken; empty where there is nothing.
    warning: str = ""


@dataclass(frozen=True)
class Candidate:
    """A cell that may become a sample, seen by a scene (None where a recipe has no EnMAP)."""

    cell: Cell
    scene: EnmapScene | None
    flagged_share: float | None


def year_range(season: int) -> tuple[datetime, datetime]:
    """The calendar year of a season."""
    return datetime(season, 1, 1, tzinfo=UTC), datetime(season + 1, 1, 1, tzinfo=UTC)


def enmap_refusal(scene: EnmapScene, source: EnmapSource) -> str | None:
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


def choose_enmap(
    recipe: Recipe,
    source: EnmapSource,
    season: int,
    area: BaseGeometry,
    crs: str,
    retracted: Mapping[str, str],
    progress: Any,
) -> tuple[list[Candidate], list[pystac.Item], list[SceneDecision]]:
    """The EnMAP cells of a season, the items behind them, and the decision on every scene the catalog gave.

    area: in `crs`. retracted: scenes not to be used again, and why. progress: called with (done, total, text).
    """
    found = find_items(recipe.source(source.catalog), source.collection, to_crs(area, crs, LONLAT), *year_range(season))
    # An EnMAP item has the name of its product, whatever else a catalog says of it; the one updated last counts.
    by_name = {item.id: item for item in sorted(found.items, key=updated)}
    listed, decisions = without_retracted(list(by_name.values()), "enmap", retracted)
    lost = {item.id: unplaced(item, "enmap", reason) for item, reason in found.refused if item.id not in by_name}
    decisions += lost.values()
    products, replaced = newest_products(listed)
    allowed = set(cells_of_area(area, crs, recipe.cell_size, recipe.area.cells))
    best: dict[tuple[str, Cell], tuple[float, str, Candidate]] = {}
    usable: dict[str, pystac.Item] = {}
    decisions += [
        decision(item, "enmap", f"the same tile as {replaced[item.id]}, which was processed later")
        for item in listed
        if item.id in replaced
    ]
    for done, item in enumerate(products):
        progress(done, len(products), item.id)
        warning = ""
        try:
            scene = enmap_scene(item)
            refusal = enmap_refusal(scene, source)
            if refusal is None:
                select_bands(metadata_of(item).bands, source.bands.exclude_nm, source.bands.count)
                warning = without_cloud_layer(item, source)
                cells = clear_cells(item, recipe.cell_size, source, allowed)
                refusal = None if cells else "no cell of the area lies inside it and is clear enough"
        except SceneError as error:
            refusal = str(error)
        decisions.append(decision(item, "enmap", refusal, warning="" if refusal else warning))
        if refusal is not None:
            continue
        usable[item.id] = item
        for cell, flagged in cells.items():
            # Overlapping tiles of one datatake see the same ground at the same moment: the clearer one.
            candidate = (flagged, item.id, Candidate(cell, scene, flagged))
            key = (scene.datatake, cell)
            best[key] = min(best.get(key, candidate), candidate, key=lambda one: one[:2])
    chosen = [candidate for _, _, candidate in sorted(best.values(), key=lambda one: (one[1], one[2].cell))]
    used = {name for _, name, _ in best.values()}
    return chosen, [usable[name] for name in sorted(used)], sorted(decisions, key=lambda one: one.id)


def without_retracted(
    items: Sequence[pystac.Item], sensor: str, retracted: Mapping[str, str]
) -> tuple[list[pystac.Item], list[SceneDecision]]:
    """The items that may be used, and the decision on those that may not any more: older versions take their place.

    Which of the items that share an id has which number depends on those that a search finds. So a retraction of one
    keeps out all of them.
    """
    shared = {shared_id(name): reason for name, reason in retracted.items()}
    usable, decisions = [], []
    for item in items:
        if item.id in retracted:
            decisions.append(decision(item, sensor, f"{SCENE_REASON}{retracted[item.id]}"))
        elif shared_id(item.id) in shared:
            reason = f"a scene of the same id was retracted: {shared[shared_id(item.id)]}"
            decisions.append(decision(item, sensor, reason, warning=reason))
        else:
            usable.append(item)
    return usable, decisions


def metadata_of(item: pystac.Item) -> Any:
    """The parsed METADATA.XML of an EnMAP item."""
    if "metadata" not in item.assets:
        raise SceneError(f"{item.id} has no asset `metadata`")
    try:
        return parse_metadata(read_text(item.assets["metadata"].href))
    except ReadError as error:
        raise ReadError(f"{item.id}: {error}") from error


def without_cloud_layer(item: pystac.Item, source: EnmapSource) -> str:
    """What to say of a scene that has no cloud layer and is taken all the same; empty for one that has it.

    Raises SceneError where the recipe wants one.
    """
    if CLOUD_LAYER in item.assets:
        return ""
    if source.cloud_layer == "required":
        raise SceneError(
            f"it has no asset `{CLOUD_LAYER}`, so no cloud would be flagged; `enmap.cloud_layer: optional` takes it"
        )
    return f"it has no asset `{CLOUD_LAYER}`: its clouds are not flagged"


def clear_cells(item: pystac.Item, cell_size: int, source: EnmapSource, allowed: set[Cell]) -> dict[Cell, float]:
    """The allowed cells a scene imaged wholly, and their share of flagged pixels, which is at most the recipe's."""
    if "image" not in item.assets:
        raise SceneError(f"{item.id} has no asset `image`")
    grid = raster_geobox(item.assets["image"].href, "int16")
    flags = quality_flags(read_quality(item, grid))
    found = {}
    for cell in cells_of_area(shapely.box(*grid.boundingbox.bbox), str(grid.crs), cell_size, "inside"):
        if cell not in allowed:
            continue
        under = footprint_or(flags, grid, cell.geobox(COARSE), outside=ENMAP_FLAGS["outside"])
        flagged = float(((under & source.flag_mask) != 0).mean())
        if not (under & ENMAP_FLAGS["outside"]).any() and flagged <= source.max_flagged_share:
            found[cell] = flagged
    return found


def read_quality(
    item: pystac.Item, grid: GeoBox, window: Any = None, bands: Sequence[int] | None = None
) -> dict[str, Any]:
    """The quality layers of an EnMAP item, or of a window of it; with `bands` also the defective pixels of these.

    grid: that of the image. Raises SceneError for a layer on another one, which would flag other ground.
    """
    if "quality_classes" not in item.assets:
        raise SceneError(f"{item.id} has no asset `quality_classes`")
    layers = {}
    for layer in LAYERS:
        if layer not in item.assets:
            continue
        href = item.assets[layer].href
        if layer != "defective_pixel_mask":
            layers[layer] = read_window(href, window, None, grid)[0][0]
            if layers[layer].dtype.kind not in "ui":
                raise SceneError(f"{href} holds {layers[layer].dtype} numbers, expected whole numbers")
        elif bands is not None:
            layers[layer] = read_window(href, window, bands, grid)[0]
        else:
            # One pixel is enough to check the grid.
            read_window(href, Window(0, 0, 1, 1), [1], grid)
    return layers


def choose_sentinel2(
    recipe: Recipe,
    source: Sentinel2Source,
    season: int,
    places: Sequence[BaseGeometry],
    retracted: Mapping[str, str],
    progress: Any,
) -> tuple[list[pystac.Item], list[SceneDecision]]:
    """The Sentinel-2 items of a season over some places (longitude, latitude), and the decision on each found.

    retracted: scenes not to be used again, and why.
    Raises PlanError listing the scenes whose offset cannot be decided, unless the recipe records gaps.
    """
    listed: list[pystac.Item] = []
    refused: list[tuple[pystac.Item, str]] = []
    for done, place in enumerate(places):
        progress(done, len(places), "searching Sentinel-2")
        found = find_items(recipe.source(source.catalog), source.collection, place, *year_range(season))
        listed += found.items
        refused += found.refused
    items = each_once(listed)
    lost = {identity(item): (item, reason) for item, reason in refused}
    if not items:
        named = "".join(f"\n  {item.id}: {reason}" for item, reason in list(lost.values())[:5])
        raise PlanError(
            f"{source.catalog} has no scene of collection {source.collection!r} over the cells in {season}; "
            f"check sentinel2.catalog and sentinel2.collection{named}"
        )
    twins = name_twins(items, [item for item, _ in lost.values()])
    by_name = {item.id: item for item in items}
    usable, decisions = without_retracted([by_name[name] for name in sorted(by_name)], "sentinel2", retracted)
    decisions += [unplaced(item, "sentinel2", reason) for item, reason in lost.values()]
    kept = newest_of_each_acquisition(usable)
    decisions += [
        decision(by_name[left_out], "sentinel2", f"the same acquisition as {newest}, which is newer or listed last")
        for left_out, newest in sorted(kept.replaced.items())
    ]
    taken, undecided = [], []
    for item in kept.items:
        try:
            cover = number_of(item, "eo:cloud_cover")
            if cover is not None and cover > source.max_cloud_cover:
                refusal = f"cloud cover {cover:g} % is above sentinel2.max_cloud_cover {source.max_cloud_cover:g}"
                decisions.append(decision(item, "sentinel2", refusal))
                continue
            keys = [sentinel2_asset(item, band) for band in (*source.bands, "SCL")]
            offset = decide_offset(source.offset, offset_evidence(item, source.bands))
        except SceneError as error:
            reason = str(error).removeprefix(f"{item.id}: ")
            decisions.append(decision(item, "sentinel2", reason))
            undecided.append(f"{item.id}: {reason}")
            continue
        warning = "; ".join(filter(None, [offset.warning, twin_warning(item, twins)]))
        decisions.append(decision(item, "sentinel2", None, offset.offset, offset.reason, warning))
        # A plan over a country holds many thousands of items: only what the build reads is kept of each.
        item.assets = {key: item.assets[key] for key in keys}
        item.clear_links()
        taken.append(item)
    if undecided and source.gaps == "fail":
        shown = "\n  ".join(undecided[:5])
        raise PlanError(
            f"{len(undecided)} of {len(kept.items)} Sentinel-2 scenes cannot be used:\n  {shown}\n"
            "Do what the reasons say, or leave such scenes out with `sentinel2.gaps: record`."
        )
    decisions = with_filler_warnings(decisions, kept.fillers)
    return taken, sorted(decisions, key=lambda one: one.id)


def twin_warning(item: pystac.Item, twins: Mapping[str, str]) -> str:
    """What to say of an item whose id the catalog gave to another one too; empty for other items."""
    return f"the catalog gives the id {twins[item.id]} to another item too" if item.id in twins else ""


def with_filler_warnings(decisions: Sequence[SceneDecision], fillers: Mapping[str, str]) -> list[SceneDecision]:
    """The decisions, with a warning for scenes taken beside a newer one that is not proved to show the same.

    fillers: older scene -> newer scene.
    """
    taken = {one.id for one in decisions if one.taken}
    result = []
    for one in decisions:
        newer = fillers.get(one.id)
        if one.taken and newer in taken:
            warning = (
                f"{newer} is a newer item of its datatake and tile, but no datastrip proves that it shows the same "
                "ground: this one is used where the newer has no data"
            )
            one = replace(one, warning="; ".join(filter(None, [one.warning, warning])))
        result.append(one)
    return result


def unplaced(item: pystac.Item, sensor: str, reason: str) -> SceneDecision:
    """The row of a scene of which nobody can say where it lies."""
    return decision(item, sensor, reason, warning=f"left out, and it may lie over the cells: {reason}")


def decision(
    item: pystac.Item,
    sensor: str,
    refusal: str | None,
    offset: int | None = None,
    reason: str = "taken",
    warning: str = "",
) -> SceneDecision:
    """The row of a scene in the index."""
    return SceneDecision(
        id=item.id,
        sensor=sensor,
        collection=item.collection_id or "",
        time=acquired(item),
        baseline=baseline(item),
        taken=refusal is None,
        reason=reason if refusal is None else refusal,
        offset=offset,
        warning=warning,
    )


def items_over(items: Sequence[pystac.Item], places: Sequence[BaseGeometry]) -> list[list[str]]:
    """For each place (longitude, latitude) the ids of the items that meet it, in order of id."""
    tree = shapely.STRtree([shape(item.geometry) for item in items])
    over: dict[int, list[str]] = defaultdict(list)
    places_found, items_found = tree.query(np.array(places, dtype=object), predicate="intersects")
    for place, item in zip(places_found.tolist(), items_found.tolist(), strict=True):
        over[place].append(items[item].id)
    return [sorted(over[place]) for place in range(len(places))]
