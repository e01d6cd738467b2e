"""Which Sentinel-2 scenes are used, and the number that is added to their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pystac
from shapely.geometry.base import BaseGeometry

from h2crop_data.catalog.expected_acquisitions import acquisition_series
from h2crop_data.catalog.item_facts import asset_of_band, datastrip_asset, is_jpeg2000, sentinel2_asset
from h2crop_data.catalog.items import number_of
from h2crop_data.errors import NothingToPlanError, PlanError, SceneError
from h2crop_data.recipe.catalogs import none_found
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sentinel2.offset_evidence import NO_GROUND_SEEN, PixelVerdict
from h2crop_data.sentinel2.reference import REFERENCE_BANDS
from h2crop_data.sentinel2.reflectance import L2A_OFFSET, OffsetDecision, UndecidedOffsetError, decide_offset
from h2crop_data.sources.scenes import PinnedItems, SceneDecision, decision, with_catalogs, year_range
from h2crop_data.sources.sentinel2.archive import Acquisitions, as_plain, check_missing
from h2crop_data.sources.sentinel2.detectors import l2a_bands
from h2crop_data.sources.sentinel2.found import find_scenes, sightings_of_other_seasons
from h2crop_data.sources.sentinel2.granules import GranuleGrid, grid_doubt
from h2crop_data.sources.sentinel2.offsets import (
    UNUSABLE_FILES,
    evidence_of,
    offsets_by_pixels,
    rule_of_item,
    sample_of_statements,
)
from h2crop_data.sources.sentinel2.select_l1c import L1cScenes, choose_l1c, with_missing
from h2crop_data.sources.source import Request
from h2crop_data.sources.units import UnitResult


@dataclass(frozen=True)
class Sentinel2Scenes(PinnedItems):
    """The scenes of a season that are used."""

    #: Item -> what is added to its numbers.
    offsets: dict[str, int] = field(default_factory=dict)
    #: L1C of the same datatakes, where a method looks for clouds on it.
    l1c: list[pystac.Item] = field(default_factory=list)
    #: MGRS tile -> the grid of its granules, as far as files were looked at.
    grids: Mapping[str, GranuleGrid] = field(default_factory=dict)
    #: Unit of work -> the masks that it gave, or its error, as far as they were made.
    masks: Mapping[str, UnitResult] = field(default_factory=dict)
    #: By tile, the acquisitions that the catalog lists, and those that it lacks.
    acquisitions: Acquisitions = field(default_factory=dict)
    #: What is strange about the searches.
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        items: list[pystac.Item],
        decisions: Sequence[SceneDecision],
        l1c: Sequence[pystac.Item] = (),
        acquisitions: Acquisitions | None = None,
        notes: Sequence[str] = (),
    ) -> Sentinel2Scenes:
        """Items with the offsets that were decided on."""
        taken = {one.id: one.offset for one in decisions if one.sensor == "sentinel2" and one.taken}
        offsets = {name: offset for name, offset in taken.items() if offset is not None}
        return cls(items, offsets, list(l1c), acquisitions=acquisitions or {}, notes=list(notes))


def choose_sentinel2(
    source: Sentinel2Settings, request: Request, places: Sequence[BaseGeometry]
) -> tuple[Sentinel2Scenes, list[SceneDecision]]:
    """The Sentinel-2 items of a season over some places (longitude, latitude), and the decision on each found.

    Raises PlanError listing the scenes whose offset cannot be decided, unless the recipe records gaps, and where more
    acquisitions lack than the recipe allows.
    """
    found = find_scenes(source, request, places, "Sentinel-2")
    if found.is_empty:
        named = "".join(f"\n  {line}" for line in found.unplaced[:5])
        raise NothingToPlanError(
            f"{none_found(source)} over the cells in {request.season}; "
            f"check sentinel2.catalog and sentinel2.collection{named}"
        )
    kept, decisions = found.kept, list(found.decisions)
    of_masks = l2a_bands(source)
    usable: list[UsableItem] = []
    refused: list[tuple[pystac.Item, str]] = []
    for item in kept.items:
        try:
            cover = number_of(item, "eo:cloud_cover")
            if cover is not None and cover > source.max_cloud_cover:
                refusal = f"cloud cover {cover:g} % is above sentinel2.max_cloud_cover {source.max_cloud_cover:g}"
                decisions.append(decision(item, "sentinel2", refusal))
                continue
            usable.append(usable_item(source, item, of_masks, found.served.get(item.id, "")))
        except SceneError as error:
            refused.append((item, str(error).removeprefix(f"{item.id}: ")))
    decided, unseen, undecided = with_pixels(source, usable, request)
    refused += undecided
    taken = []
    for one in decided:
        assert one.offset is not None, "it was decided on"
        doubts = (found.corrected.get(one.item.id, ""), grid_doubt(one.item))
        notes = [one.offset.warning, twin_warning(one.item, found.twins), *doubts]
        warning = "; ".join(filter(None, notes))
        offset = one.offset
        decisions.append(decision(one.item, "sentinel2", None, offset.offset, offset.reason, warning, offset.evidence))
        # A plan over a country holds many thousands of items: only what the build reads is kept of each.
        one.item.assets = {key: one.item.assets[key] for key in one.keys}
        one.item.clear_links()
        taken.append(one.item)
    decisions += [decision(item, "sentinel2", reason) for item, reason in refused]
    decisions += [decision(item, "sentinel2", reason, warning=f"left out: {reason}") for item, reason in unseen]
    if refused and source.gaps == "fail":
        shown = "\n  ".join(f"{item.id}: {reason}" for item, reason in refused[:5])
        raise PlanError(
            f"{len(refused)} of {len(kept.items)} Sentinel-2 scenes cannot be used:\n  {shown}\nFix the causes, or "
            "leave such scenes out with `sentinel2.gaps: record`."
        )
    decisions = with_catalogs(with_filler_warnings(decisions, kept.fillers), found.served)
    l1c = L1cScenes() if source.clouds.l1c is None else choose_l1c(source.clouds, request, places, taken)
    decisions = [*with_missing(decisions, l1c), *l1c.decisions]
    elsewhere = [*l1c.sightings, *sightings_of_other_seasons(source, request, places)]
    acquisitions = as_plain(acquisition_series(found.sightings, elsewhere, *year_range(request.season)))
    check_missing(acquisitions, source.max_missing_acquisitions, request.season)
    decisions = sorted(decisions, key=lambda one: one.id)
    return Sentinel2Scenes.of(taken, decisions, l1c.items, acquisitions, [*found.notes, *l1c.notes]), decisions


@dataclass(frozen=True)
class UsableItem:
    """An item that has what is needed, and what it says of its offset."""

    item: pystac.Item
    #: Of the assets that the build reads.
    keys: list[str]
    #: None where the item does not say, and then why.
    offset: OffsetDecision | None
    undecided: str = ""
    #: The catalog that listed it, as the recipe calls it.
    catalog: str = ""

    @property
    def files(self) -> list[pystac.Asset]:
        """The assets that the build reads."""
        return [self.item.assets[key] for key in self.keys]


def usable_item(source: Sentinel2Settings, item: pystac.Item, of_masks: Sequence[str], catalog: str) -> UsableItem:
    """An item with the assets that are read of it. of_masks: bands for masks. catalog: the one that listed it.

    Raises SceneError where it lacks some.
    """
    keys = [sentinel2_asset(item, band) for band in (*source.bands, "SCL")]
    keys += mask_assets(item, [band for band in of_masks if band not in source.bands])
    keys += [] if source.alignment == "none" else filter(None, [datastrip_asset(item)])
    keys += reference_assets(item)
    evidence = evidence_of(item, list(dict.fromkeys([*source.bands, *of_masks])), catalog)
    try:
        return UsableItem(item, keys, decide_offset(source.offset, evidence), catalog=catalog)
    except UndecidedOffsetError as error:
        return UsableItem(item, keys, None, error.statement, catalog)


def with_pixels(
    source: Sentinel2Settings, usable: Sequence[UsableItem], request: Request
) -> tuple[list[UsableItem], list[tuple[pystac.Item, str]], list[tuple[pystac.Item, str]]]:
    """Items with their offsets, by pixels where the items do not say them; and those left out, with reasons.

    First those left out that show hardly any ground, with which nothing is lost, then the others. Where the recipe
    or the items decide, some scenes are looked at, and those whose pixels say otherwise have a warning.
    """
    items = [one.item for one in usable]
    stated = {one.item.id: one.offset.offset for one in usable if one.offset is not None}
    if source.offset == "auto":
        # JPEG 2000 is as ESA made it, and would be read whole.
        to_check = [one.item for one in usable if one.offset is not None and not any(map(is_jpeg2000, one.files))]
        asked = [*(one.item for one in usable if one.offset is None), *sample_of_statements(to_check)]
    else:
        asked, stated = sample_of_statements(items), {}
    # Where other methods alone look for clouds, any class can be clear.
    clear = source.clouds.clear if "scl" in source.clouds.methods else range(1, 12)
    verdicts = offsets_by_pixels(asked, stated, items, clear, request.run_units) if asked else {}
    decided, unseen, undecided = [], [], []
    for one in usable:
        verdict = verdicts.get(one.item.id)
        if verdict is None:
            decided.append(one)
        elif one.offset is not None:
            is_auto = source.offset == "auto"
            checked = item_against_pixels(one, verdict) if is_auto else against_pixels(one.offset, verdict)
            decided.append(replace(one, offset=checked))
        elif verdict.offset is not None:
            reason = f"{one.undecided}; decided by its pixels: {verdict.reason}"
            decided.append(replace(one, offset=OffsetDecision(verdict.offset, reason, evidence=verdict.evidence)))
        else:
            told = f"{one.undecided}; its pixels do not tell: {verdict.reason} ({verdict.evidence})"
            if verdict.reason == NO_GROUND_SEEN:
                unseen.append((one.item, told))
            else:
                advice = f"look at a dark pixel, then declare `{L2A_OFFSET}: 0` or `-1000` in the recipe"
                undecided.append((one.item, f"{told}; {advice}"))
    return decided, unseen, undecided


def item_against_pixels(one: UsableItem, verdict: PixelVerdict) -> OffsetDecision:
    """The decision of an item, with a warning where its pixels show another offset."""
    offset = one.offset
    assert offset is not None, "its item decides"
    if verdict.reason == UNUSABLE_FILES:
        return replace(offset, warning=f"{verdict.reason}: {verdict.evidence}")
    if verdict.offset in (None, offset.offset):
        return offset
    provider, rule = rule_of_item(one.item, one.files, one.catalog)
    known = f", although {one.item.collection_id} of {provider} keeps it as far as is known" if rule == "kept" else ""
    warning = (
        f"its item says the offset is {offset.offset} ({offset.reason}), its pixels say {verdict.offset} "
        f"({verdict.reason}){known}: every value of it may be off by 0.1, and of others of its tile whose items say "
        f"the same; look at a dark pixel, then declare `{L2A_OFFSET}: 0` or `-1000` in the recipe, or leave them out"
    )
    return replace(offset, warning=warning, evidence=verdict.evidence)


def against_pixels(declared: OffsetDecision, verdict: PixelVerdict) -> OffsetDecision:
    """A declared offset, with a warning where the pixels show another one."""
    if verdict.offset in (None, declared.offset):
        return replace(declared, evidence=verdict.evidence)
    contradiction = (
        f"`{L2A_OFFSET}: {declared.offset}` is declared, the pixels say {verdict.offset} ({verdict.reason}): every "
        "value of it may be off by 0.1"
    )
    warning = "; ".join(filter(None, [declared.warning, contradiction]))
    return replace(declared, warning=warning, evidence=verdict.evidence)


def reference_assets(item: pystac.Item) -> list[str]:
    """The assets that scenes of other sensors are matched with, those that there are."""
    return [key for band in REFERENCE_BANDS if (key := asset_of_band(item, band)) is not None]


def mask_assets(item: pystac.Item, bands: Sequence[str]) -> list[str]:
    """The assets of bands that only masks and shifts are made of. Raises SceneError that says so where one lacks."""
    try:
        return [sentinel2_asset(item, band) for band in bands]
    except SceneError as error:
        raise SceneError(
            f"{error}: masks of clouds and shifts of dates need {', '.join(bands)} too; sentinel2.clouds "
            "(method, cast_shadows, second_look) and sentinel2.alignment say what is made"
        ) from error


def twin_warning(item: pystac.Item, twins: Mapping[str, str]) -> str:
    """What to say of an item whose id the catalog gave to another one too; empty for other items."""
    return f"the catalog gives the id {twins[item.id]} to another item too" if item.id in twins else ""


def with_filler_warnings(decisions: Sequence[SceneDecision], fillers: Mapping[str, str]) -> list[SceneDecision]:
    """The decisions, with a warning for scenes taken beside one that counts first and may show the same.

    fillers: scene -> a newer one, or one of an earlier catalog.
    """
    taken = {one.id for one in decisions if one.taken}
    result = []
    for one in decisions:
        first = fillers.get(one.id)
        if one.taken and first in taken:
            warning = (
                f"{first}, newer or of an earlier catalog, is of its datatake and tile, but no datastrip proves that "
                "it shows the same ground: this one is used where that has no data"
            )
            one = replace(one, warning="; ".join(filter(None, [one.warning, warning])))
        result.append(one)
    return result
