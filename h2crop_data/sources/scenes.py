"""The scenes of catalogs: which are used and why, and which cover some ground."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import pystac
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from h2crop_data.bounded_map import in_order
from h2crop_data.catalog.access import try_file
from h2crop_data.catalog.acquisitions import catalogs_before
from h2crop_data.catalog.inventory import items_from_parquet, items_to_parquet
from h2crop_data.catalog.item_facts import baseline
from h2crop_data.catalog.items import acquired, acquired_if_stated, shared_id
from h2crop_data.cube.retraction import SCENE_REASON
from h2crop_data.errors import ReadError, SceneError
from h2crop_data.progress import Progress, silent
from h2crop_data.redaction import without_secrets
from h2crop_data.sources.changes import ChangeKind, InputChange

log = logging.getLogger(__name__)
#: Files that could not be read are tried so many at a time.
FILES_TRIED = 8


@dataclass(frozen=True)
class PinnedItems:
    """The items of a source that a plan keeps."""

    items: list[pystac.Item] = field(default_factory=list)

    @cached_property
    def by_id(self) -> dict[str, pystac.Item]:
        """The items by id."""
        return {item.id: item for item in self.items}

    def files(self, name: str) -> dict[str, bytes]:
        """What a plan keeps of them; no file where there are none."""
        return {f"{name}.parquet": items_to_parquet(self.items)} if self.items else {}


def read_items(name: str, facts: Mapping[str, Any], read: Callable[[str], bytes]) -> list[pystac.Item]:
    """The items of a source that a plan kept. Raises ValueError where some are missing."""
    wanted = facts["items"][name]
    items = items_from_parquet(read(f"{name}.parquet")) if wanted else []
    if len(items) != wanted:
        raise ValueError(f"scenes of {name} are missing")
    return items


def item_identity(item: pystac.Item) -> list[Any]:
    """The identity of an item, without the position of its files; with its place after items of other catalogs."""
    place = [before] if (before := catalogs_before(item)) else []
    moment = acquired(item).isoformat()
    return [item.collection_id, item.id, moment, baseline(item), *place, item.properties.get("updated")]


def kept_identity(item: pystac.Item) -> list[Any]:
    """The same for an item of a catalog and for that item read back from a plan, where times are written otherwise.

    What names units of work and readings: these are computed before a plan is kept, and after it was read back.
    """
    *stated, changed = item_identity(item)
    try:
        changed = datetime.fromisoformat(str(changed)).astimezone(UTC).isoformat()
    except ValueError:
        changed = None if changed is None else str(changed)
    return [*stated, changed]


@dataclass(frozen=True)
class SceneDecision:
    """One scene of a catalog: used or not, and why. One row of the index `scenes`."""

    id: str
    sensor: str
    collection: str
    #: None where the item does not say.
    time: datetime | None
    baseline: str | None
    taken: bool
    reason: str
    #: Sentinel-2: what is added to its numbers; None for EnMAP and for scenes left out.
    offset: int | None = None
    #: What to look at although the scene was taken; empty where there is nothing.
    warning: str = ""
    #: Sentinel-2: what the pixels showed, with figures, where they were asked for the offset.
    evidence: str = ""
    #: The catalog that listed it, as the recipe calls it; empty where an older h2crop planned.
    catalog: str = ""


def year_range(season: int) -> tuple[datetime, datetime]:
    """The calendar year of a season."""
    return datetime(season, 1, 1, tzinfo=UTC), datetime(season + 1, 1, 1, tzinfo=UTC)


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


def unplaced(item: pystac.Item, sensor: str, reason: str) -> SceneDecision:
    """The row of a scene whose position or time of acquisition is unknown."""
    return decision(item, sensor, reason, warning=f"left out, although it may cover the cells: {reason}")


def decision(
    item: pystac.Item,
    sensor: str,
    refusal: str | None,
    offset: int | None = None,
    reason: str = "taken",
    warning: str = "",
    evidence: str = "",
) -> SceneDecision:
    """The row of a scene in the index."""
    return SceneDecision(
        id=item.id,
        sensor=sensor,
        collection=item.collection_id or "",
        time=acquired_if_stated(item),
        baseline=baseline(item),
        taken=refusal is None,
        reason=reason if refusal is None else refusal,
        offset=offset,
        warning=warning,
        evidence=evidence,
    )


def with_catalogs(decisions: Sequence[SceneDecision], served: Mapping[str, str]) -> list[SceneDecision]:
    """The decisions with the catalog that each scene comes from. served: scene -> catalog."""
    return [replace(one, catalog=served.get(one.id, one.catalog)) for one in decisions]


def items_over(items: Sequence[pystac.Item], places: Sequence[BaseGeometry]) -> list[list[str]]:
    """For each place (longitude, latitude) the ids of the items that meet it, in order of id."""
    tree = shapely.STRtree([shape(item.geometry) for item in items])
    over: dict[int, list[str]] = defaultdict(list)
    places_found, items_found = tree.query(np.array(places, dtype=object), predicate="intersects")
    for place, item in zip(places_found.tolist(), items_found.tolist(), strict=True):
        over[place].append(items[item].id)
    return [sorted(over[place]) for place in range(len(places))]


def item_changes(
    before: Sequence[pystac.Item],
    now: Sequence[pystac.Item],
    is_same: Callable[[pystac.Item, pystac.Item], bool],
    planned: date | None,
) -> list[InputChange]:
    """How the items that a block is made of differ from those it was made of.

    is_same: whether two items are products of one acquisition. planned: when the block was planned, where its season
    was not complete then: what was acquired later could not be there.
    """
    old, new = ({item.id: item for item in items} for items in (before, now))
    processed = [name for name in old.keys() & new.keys() if kept_identity(old[name]) != kept_identity(new[name])]
    gone = {name: old[name] for name in sorted(old.keys() - new.keys())}
    added: list[str] = []
    later: list[str] = []
    for name in sorted(new.keys() - old.keys()):
        earlier = next((other for other, item in gone.items() if is_same(item, new[name])), None)
        if earlier is not None:
            del gone[earlier]
            processed.append(f"{earlier} -> {name}")
        elif planned is not None and acquired(new[name]).date() >= planned:
            later.append(name)
        else:
            added.append(name)
    found = {"added": added, "acquired since": later, "reprocessed": sorted(processed), "gone": list(gone)}
    kinds: list[ChangeKind] = ["added", "acquired since", "reprocessed", "gone"]
    return [InputChange(kind, tuple(found[kind])) for kind in kinds if found[kind]]


def unreadable_items(
    asked: Sequence[tuple[Sequence[pystac.Item], BaseGeometry]], progress: Progress = silent
) -> list[dict[str, str]]:
    """For items over places (longitude, latitude), place by place, why their files cannot be read there.

    Empty text where they can. Items that cannot be opened at all are not tried again place by place. Raises
    AccountError where an archive requires an account.
    """
    distinct = list({item.id: item for items, _ in asked for item in items}.values())
    closed: dict[str, str] = {}
    opened = in_order(partial(why_unreadable, place=None), distinct, FILES_TRIED)
    for done, (item, reason) in enumerate(zip(distinct, opened, strict=True), 1):
        closed[item.id] = reason
        if reason:
            log.warning("scene %s cannot be read: %s", item.id, without_secrets(reason), extra={"scene": item.id})
        progress(done, len(distinct), "scenes that could not be read: opening their files")

    def try_over(task: tuple[Sequence[pystac.Item], BaseGeometry]) -> dict[str, str]:
        items, place = task
        return {item.id: closed[item.id] or why_unreadable(item, place) for item in items}

    found = []
    for done, of_place in enumerate(in_order(try_over, asked, FILES_TRIED), 1):
        found.append(of_place)
        progress(done, len(asked), "scenes that could not be read: reading them over blocks")
    return found


def why_unreadable(item: pystac.Item, place: BaseGeometry | None) -> str:
    """Why a file of an item cannot be read over a place, or not opened where there is none; empty where all can."""
    try:
        for asset in item.assets.values():
            try_file(asset.href, place)
    except (ReadError, SceneError) as error:
        return str(error)
    return ""


def scenes_table(scenes: list[SceneDecision]) -> pd.DataFrame:
    """The decisions on scenes as a table with the same columns and types whatever is in it.

    But for catalogs and evidence in the plan of an older h2crop, which knew neither: its tables stay the same bytes.
    """
    columns = list(SceneDecision.__dataclass_fields__)
    if scenes and not any(scene.catalog for scene in scenes):
        columns = [name for name in columns if name not in ("catalog", "evidence")]
    table = pd.DataFrame([asdict(scene) for scene in scenes], columns=columns)
    table["time"] = pd.to_datetime(table["time"], utc=True).dt.as_unit("us")
    named = ("id", "sensor", "collection", "baseline", "reason", "warning", "catalog", "evidence")
    texts = {name: "str" for name in named if name in table}
    return table.astype({"taken": "bool", "offset": "Int32", **texts})


def scene_decisions(table: pd.DataFrame) -> list[SceneDecision]:
    """The rows of such a table."""
    known = table.astype(object).where(table.notna(), None)
    rows: list[dict[str, Any]] = [{str(key): value for key, value in row.items()} for row in known.to_dict("records")]
    return [SceneDecision(**{**row, "time": row["time"] and row["time"].to_pydatetime()}) for row in rows]
