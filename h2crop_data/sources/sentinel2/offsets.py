"""Offsets of scenes whose items do not state them, by their pixels; and whether pixels confirm what a recipe declares.

A scene is looked at coarsely, by a unit of work: another plan of the store does not read it again. Scenes of a tile are
compared with each other, and with some whose items state their offset beyond doubt.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pystac
from numpy.typing import NDArray

from h2crop_data.array_archive import read_arrays
from h2crop_data.catalog.access import file_stamp, read_coarsely
from h2crop_data.catalog.item_facts import asset_of_band, offset_evidence, sentinel2_asset, sentinel2_tile
from h2crop_data.catalog.items import acquired, number_of
from h2crop_data.catalog.number_formats import as_classes, is_rescaled
from h2crop_data.catalog.provider import OffsetRule, Provider
from h2crop_data.catalog.registry import files_at, provider_of
from h2crop_data.errors import H2cropError, SceneError
from h2crop_data.sentinel2.offset_evidence import (
    EVIDENCE_BANDS,
    NO_GROUND_SEEN,
    CoarsePicture,
    PixelVerdict,
    decide_by_pixels,
)
from h2crop_data.sentinel2.reflectance import NO_NUMBER, OffsetEvidence, offset_of_item
from h2crop_data.sources.scenes import kept_identity
from h2crop_data.sources.units import RunUnits, Unit, UnitResult

#: Raised whenever the same files give another picture.
PICTURE_ALGORITHM = 2
#: Pixels along a picture, and along its scene classification alone, where it is asked whether anything clear shows.
PICTURE_SIDE, FINER_SIDE = 128, 512
#: A scene may be left out where a smaller share of what it imaged is clear: of a whole granule 2.4 km2.
UNSEEN_SHARE = 0.0002
#: Why pixels do not tell where too few of them are clear for that, but not too few to be missed.
LITTLE_GROUND_SEEN = "too little ground is seen to tell, but some that is clear"
#: Scenes of a tile whose items state their offset that others are compared with, and scenes of a tile and statement
#: that are looked at although a recipe or their items decide: those with the fewest clouds.
COMPARED_WITH, LOOKED_AT = 6, 3
#: Why pixels do not tell where files hold something else than they should.
UNUSABLE_FILES = "its files do not hold what they should"
#: How often a picture is tried.
PICTURE_TRIES = 3


@dataclass(frozen=True)
class PlacedPicture:
    """A coarse picture, and what ground it shows, in words."""

    picture: CoarsePicture
    ground: str
    #: Scene classification in more pixels, uint8.
    finer: NDArray[np.uint8]


def offsets_by_pixels(
    asked: Sequence[pystac.Item],
    stated: Mapping[str, int],
    items: Sequence[pystac.Item],
    clear: Collection[int],
    run_units: RunUnits,
) -> dict[str, PixelVerdict]:
    """What pixels say of the offsets of some items.

    stated: the offsets of those of `items` that state them; some of these may be asked too. Only tiles with an item
    that is asked are looked at. clear: the classes of the scene classification that can become clear pixels.
    """
    of_tiles = items_of_tiles(asked)
    with_offset = items_of_tiles([item for item in items if item.id in stated])
    looked_at = {}
    for tile, of_tile in of_tiles.items():
        # Where all state theirs, they are asked to see whether it is true: no others are read for that.
        has_open = any(item.id not in stated for item in of_tile)
        others = fewest_clouds(with_offset.get(tile, []), COMPARED_WITH) if has_open else []
        looked_at[tile] = [*of_tile, *others]
    units = {item.id: picture_unit(item) for of_tile in looked_at.values() for item in of_tile}
    results = run_units(list(units.values()), H2cropError)
    verdicts: dict[str, PixelVerdict] = {}
    for of_tile in looked_at.values():
        seen: dict[str, dict[str, CoarsePicture]] = defaultdict(dict)
        finer = {}
        for item in of_tile:
            found = picture_or_why_not(results[units[item.id].id])
            if isinstance(found, PixelVerdict):
                verdicts[item.id] = found
            else:
                finer[item.id] = found.finer
                seen[found.ground][item.id] = replace(found.picture, day=acquired(item).timestamp() / 86_400)
        for pictures in seen.values():
            told = decide_by_pixels(pictures, stated)
            verdicts |= {name: unless_clear(verdict, finer[name], clear) for name, verdict in told.items()}
    return {item.id: verdicts[item.id] for item in asked}


def unless_clear(verdict: PixelVerdict, classes: NDArray[np.uint8], clear: Collection[int]) -> PixelVerdict:
    """A verdict; where it is that hardly any ground is seen, another one if some of that would be clear pixels.

    classes: scene classification (y, x). clear: those that can become clear pixels.
    """
    imaged, shown = int((classes != 0).sum()), int(np.isin(classes, list(clear)).sum())
    if verdict.reason != NO_GROUND_SEEN or shown <= UNSEEN_SHARE * imaged:
        return verdict
    return replace(
        verdict,
        reason=LITTLE_GROUND_SEEN,
        evidence=f"{verdict.evidence}; of {imaged} of its scene classification {shown} can be clear",
    )


def picture_or_why_not(result: UnitResult) -> PlacedPicture | PixelVerdict:
    """The picture that a unit gave; a verdict that says why there is none where it could not be read."""
    try:
        return picture_from(result.read())
    except SceneError as error:
        return PixelVerdict(None, UNUSABLE_FILES, str(error))
    except H2cropError as error:
        return PixelVerdict(None, "its pixels cannot be read", str(error))


def items_of_tiles(items: Sequence[pystac.Item]) -> dict[str, list[pystac.Item]]:
    """Items by MGRS tile, in order."""
    found: dict[str, list[pystac.Item]] = defaultdict(list)
    for item in items:
        found[sentinel2_tile(item)].append(item)
    return dict(found)


def fewest_clouds(items: Sequence[pystac.Item], number: int) -> list[pystac.Item]:
    """So many items, those with the fewest clouds first; those that do not say come last."""

    def clouds(item: pystac.Item) -> tuple[float, str]:
        cover = number_of(item, "eo:cloud_cover")
        return (101.0 if cover is None else cover, item.id)

    return sorted(items, key=clouds)[:number]


def evidence_of(item: pystac.Item, bands: Sequence[str], catalog: str) -> OffsetEvidence:
    """The statement of an item about its offset, and whether it is reliable.

    catalog: the one that listed it, as the recipe calls it. Raises SceneError where what it says cannot be read.
    """
    evidence = offset_evidence(item, bands)
    of_bands = {band: item.assets[key] for band in bands if (key := asset_of_band(item, band)) is not None}
    rescaled = frozenset(band for band, asset in of_bands.items() if is_rescaled(asset))
    return replace(evidence, doubt=doubt_by_rule(item, list(of_bands.values()), catalog), rescaled=rescaled)


def doubt_by_rule(item: pystac.Item, files: Sequence[pystac.Asset], catalog: str) -> str:
    """Why what an item says of its offset is no proof, by what is known of its collection; empty where it is."""
    provider, rule = rule_of_item(item, files, catalog)
    return f"items of {item.collection_id} of {provider} are known to be wrong" if rule == "removed, see flags" else ""


def rule_of_item(item: pystac.Item, files: Sequence[pystac.Asset], catalog: str) -> tuple[str, OffsetRule]:
    """The provider of an item, and what is known of the offset in its collection: `none` where nothing is."""
    provider = provider_of_item(files, catalog)
    if provider is None:
        return "", "none"
    rules = (one.offset for one in provider.collections if one.name == item.collection_id)
    return provider.name, next(rules, "none")


def provider_of_item(files: Sequence[pystac.Asset], catalog: str) -> Provider | None:
    """Who provides an item: by its catalog, or, of copies of items in files and other APIs, by where its files lie."""
    provider = provider_of(catalog)
    places = (files_at(asset.href) for asset in files) if provider is None else ()
    return next((place[0] for place in places if place is not None), provider)


def sample_of_statements(items: Sequence[pystac.Item]) -> list[pystac.Item]:
    """Some items of each tile and statement on the offset, to see whether what items or a recipe say is borne out."""
    alike: dict[tuple[str, str], list[pystac.Item]] = defaultdict(list)
    for item in items:
        try:
            statement = offset_of_item(offset_evidence(item)).reason
        except SceneError as error:
            statement = str(error)
        alike[sentinel2_tile(item), statement].append(item)
    return [item for group in alike.values() for item in fewest_clouds(group, LOOKED_AT)]


def picture_unit(item: pystac.Item) -> Unit:
    """The unit of work that looks at a scene coarsely."""
    keys = {band: asset_of_band(item, band) for band in EVIDENCE_BANDS}
    files = {band: item.assets[key] for band, key in keys.items() if key is not None}
    if "B8A" in files:
        files.pop("B08", None)
    classes = item.assets[sentinel2_asset(item, "SCL")]
    return Unit(
        kind="scene",
        step="sentinel2 offset",
        name=f"offset of {item.id}",
        algorithm=PICTURE_ALGORITHM,
        inputs=[kept_identity(item), sorted(files)],
        settings={"side": PICTURE_SIDE, "finer": FINER_SIDE},
        compute=partial(look_coarsely, files, classes),
        implied=True,
        stamp=[file_stamp(asset.href) for asset in (*files.values(), classes)],
    )


def look_coarsely(files: Mapping[str, pystac.Asset], classes: pystac.Asset, needs: Sequence[Path]) -> bytes:
    """A coarse picture as a NumPy archive: `classes`, each band, `ground`, and `finer`, classes in more pixels.

    files: of bands. Bands whose files cover other ground than the classification are left out. Raises ReadError,
    SceneError.
    """
    shown, grid = read_coarsely(classes, PICTURE_SIDE, tries=PICTURE_TRIES)
    finer, _ = read_coarsely(classes, FINER_SIDE, tries=PICTURE_TRIES)
    bands = {}
    for band, asset in files.items():
        numbers, own = read_coarsely(asset, max(shown.shape), tries=PICTURE_TRIES)
        if own.extent == grid.extent and numbers.shape == shown.shape:
            nothing = 0 if numbers.dtype.kind == "u" else NO_NUMBER
            bands[band] = np.where(numbers == nothing, np.int32(NO_NUMBER), numbers.astype(np.int32))
    buffer = io.BytesIO()
    ground = json.dumps([str(grid.crs), *map(float, grid.extent.boundingbox)])
    told = {"classes": as_classes(shown), "finer": as_classes(finer), "ground": np.array(ground)}
    np.savez_compressed(buffer, allow_pickle=False, **told, **bands)
    return buffer.getvalue()


def picture_from(result: bytes) -> PlacedPicture:
    """What `look_coarsely` gave."""
    archive = read_arrays(io.BytesIO(result))
    bands = {band: archive[band] for band in EVIDENCE_BANDS if band in archive}
    return PlacedPicture(CoarsePicture(bands, archive["classes"]), str(archive["ground"]), archive["finer"])
