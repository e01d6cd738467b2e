"""Which Sentinel-2 L1C scenes are looked at for clouds: those of the granules whose L2A is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pystac
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.acquisitions import l1c_of_items
from h2crop_data.catalog.expected_acquisitions import Sighting
from h2crop_data.catalog.item_facts import sentinel2_asset
from h2crop_data.errors import PlanError, SceneError
from h2crop_data.recipe.model import Clouds
from h2crop_data.sentinel2.reflectance import L1C_OFFSET, decide_offset
from h2crop_data.sources.scenes import SceneDecision, decision, with_catalogs
from h2crop_data.sources.sentinel2.detectors import l1c_bands
from h2crop_data.sources.sentinel2.found import find_scenes
from h2crop_data.sources.sentinel2.offsets import evidence_of
from h2crop_data.sources.source import Request


@dataclass
class L1cScenes:
    """The L1C scenes of a season that are used."""

    items: list[pystac.Item] = field(default_factory=list)
    decisions: list[SceneDecision] = field(default_factory=list)
    #: L2A items that are used -> why there is no L1C of them.
    missing: dict[str, str] = field(default_factory=dict)
    #: The acquisitions that their catalog lists.
    sightings: list[Sighting] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def choose_l1c(
    clouds: Clouds, request: Request, places: Sequence[BaseGeometry], used: Sequence[pystac.Item]
) -> L1cScenes:
    """The L1C items of a season over some places (longitude, latitude) that show what L2A items do, with decisions.

    used: the L2A items. None where no method looks at L1C. Raises PlanError where an L2A item has no L1C and the recipe
    does not skip such dates, or shares its id with an L1C item.
    """
    bands = l1c_bands(clouds)
    if clouds.l1c is None or not bands:
        return L1cScenes()
    found = find_scenes(clouds.l1c, request, places, "Sentinel-2 L1C")
    kept, decisions = found.kept, list(found.decisions)
    shared = sorted({item.id for item in used} & {item.id for item in kept.items})
    if shared:
        raise PlanError(
            f"L2A and L1C scenes have the same id, {shared[0]}: sentinel2.clouds.l1c must be a catalog of L1C alone"
        )
    wanted = {other.id for found in l1c_of_items(used, kept.items).values() for other in found}
    taken = []
    refused = {}
    for item in kept.items:
        if item.id not in wanted:
            decisions.append(decision(item, "sentinel2", "no L2A scene of the same granule is used"))
            continue
        try:
            keys = [sentinel2_asset(item, band) for band in bands]
            evidence = evidence_of(item, bands, found.served.get(item.id, ""))
            offset = decide_offset(clouds.l1c.offset, evidence, L1C_OFFSET)
        except SceneError as error:
            refused[item.id] = str(error).removeprefix(f"{item.id}: ")
            decisions.append(decision(item, "sentinel2", refused[item.id]))
            continue
        decisions.append(decision(item, "sentinel2", None, offset.offset, offset.reason, offset.warning))
        item.assets = {key: item.assets[key] for key in keys}
        item.clear_links()
        taken.append(item)
    missing = missing_l1c(used, taken, kept.items, refused)
    if clouds.missing == "fail":
        check_l1c(missing)
    return L1cScenes(taken, with_catalogs(decisions, found.served), missing, found.sightings, found.notes)


def missing_l1c(
    used: Sequence[pystac.Item],
    taken: Sequence[pystac.Item],
    listed: Sequence[pystac.Item],
    refused: Mapping[str, str],
) -> dict[str, str]:
    """L2A items without L1C -> why."""
    matched, offered = l1c_of_items(used, taken), l1c_of_items(used, listed)
    return {
        item.id: next((f"{other.id}: {refused[other.id]}" for other in offered[item.id]), "the catalog lists none")
        for item in used
        if not matched[item.id]
    }


def check_l1c(missing: Mapping[str, str]) -> None:
    """Raise PlanError where some L2A has no L1C. missing: L2A item -> why."""
    if missing:
        shown = "\n  ".join(f"{name}: {reason}" for name, reason in list(missing.items())[:5])
        raise PlanError(
            f"{len(missing)} Sentinel-2 scenes have no L1C, which the cloud methods require:\n  {shown}\nCheck "
            "sentinel2.clouds.l1c, or leave such dates out with `sentinel2.clouds.missing: skip`."
        )


def with_missing(decisions: Sequence[SceneDecision], found: L1cScenes) -> list[SceneDecision]:
    """Decisions on L2A scenes, with a warning for those that are not used since there is no L1C of them."""

    def warned(one: SceneDecision) -> SceneDecision:
        reason = found.missing.get(one.id)
        if reason is None:
            return one
        warning = f"no L1C for it ({reason}): the scene is not used"
        return replace(one, warning="; ".join(filter(None, [one.warning, warning])))

    return [warned(one) for one in decisions]
