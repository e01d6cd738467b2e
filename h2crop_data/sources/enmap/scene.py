"""An EnMAP scene before samples are drawn: which bands are stored of it, and how clear its cells are.

This is a unit of work: each scene is looked at once, while a season is planned. The plan keeps what blocks need of it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from h2crop_data.catalog.access import file_stamp, grid_of, is_remote, opened, read_text, read_window, retried
from h2crop_data.constants import COARSE, ENMAP_FLAGS, REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.enmap.product import Angles, Band, Product, enmap_reflectance, parse_metadata, select_bands
from h2crop_data.enmap.quality import LAYERS, footprint_or
from h2crop_data.enmap.spectra import BandFindings, check_scaling, examine_bands, sample_place
from h2crop_data.errors import H2cropError, ReadError, SceneError
from h2crop_data.grid import Cell, cells_of_area
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.enmap.item_bands import item_differences
from h2crop_data.sources.enmap.layers import flags_on, layers_elsewhere, read_layers
from h2crop_data.sources.enmap.mask_result import mask_facts, mask_in
from h2crop_data.sources.scenes import PinnedItems, kept_identity
from h2crop_data.sources.units import ProvisionalResult, Unit, UnitResult

#: Raised whenever the same scene gives other bands or cells.
SCENE_ALGORITHM = 2
#: Flags of pixels that say little of the bands.
OBSCURING = ("outside", "cloud", "cloud_shadow", "cirrus_medium", "cirrus_thick", "snow", "low_quality")


@dataclass(frozen=True)
class SceneFacts:
    """What a scene's METADATA.XML and pixels say that its blocks need."""

    #: The stored bands, in order of wavelength.
    bands: tuple[Band, ...]
    #: How it was processed: tag -> text.
    processing: dict[str, str]
    #: The number of pixels without a measurement.
    nodata: int = REFLECTANCE_FILL
    angles: Angles = field(default_factory=Angles)
    #: Quality layers that it should have and does not: asset keys.
    missing_layers: tuple[str, ...] = ()
    #: Centres in nm of stored bands without data, and of those that are noise, found from a sample of pixels.
    empty_nm: tuple[float, ...] = ()
    noisy_nm: tuple[float, ...] = ()
    #: What needs a look although the scene can be used, in words.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EnmapScenes(PinnedItems):
    """The EnMAP scenes that a plan keeps."""

    #: Scene -> its facts; plans of an earlier h2crop have none.
    facts: Mapping[str, SceneFacts | H2cropError] = field(default_factory=dict)
    #: Scene -> the result of the unit that matched it; empty before they were run.
    matches: Mapping[str, UnitResult] = field(default_factory=dict)
    #: Scene -> the result of the unit that made its mask; empty before they were run.
    masks: Mapping[str, UnitResult] = field(default_factory=dict)
    #: What is strange about the searches that found them.
    notes: tuple[str, ...] = ()

    def only(self, wanted: set[str]) -> EnmapScenes:
        """Some of the scenes."""
        facts = {name: found for name, found in self.facts.items() if name in wanted}
        return EnmapScenes([item for item in self.items if item.id in wanted], facts, notes=self.notes)

    def with_facts(self, facts: Mapping[str, SceneFacts | H2cropError]) -> EnmapScenes:
        """The scenes with further facts, or why there are none."""
        return replace(self, facts={**self.facts, **facts})


def scene_unit(item: pystac.Item, source: EnmapSettings, cell_size: int, mask: Unit) -> Unit:
    """The unit of work that looks at a scene. What it finds follows from the item, which the input hash has.

    mask: the unit that makes its mask, which is needed where its pixels count as flagged.
    """
    bands = source.bands.model_dump(mode="json")
    applied = source.own_flag_mask != 0
    return Unit(
        kind="scene",
        step="enmap cells",
        name=item.id,
        algorithm=SCENE_ALGORITHM,
        # Files on this machine may be replaced while their item stays the same.
        inputs=[kept_identity(item), {key: file_stamp(asset.href) for key, asset in item.assets.items()}],
        settings={"cell_size": cell_size, "bands": bands, "flagged": sorted(set(source.flagged))},
        compute=partial(look_at_scene, item, source, cell_size),
        needs=(mask,) if applied else (),
        implied=True,
    )


def look_at_scene(item: pystac.Item, source: EnmapSettings, cell_size: int, needs: Sequence[Path]) -> bytes:
    """Facts and cells of a scene as JSON. Raises SceneError for one that cannot be used, ReadError.

    needs: the result of the unit that makes its mask, where its pixels count as flagged.
    Provisional where no pixel of its image could be read: that costs the blocks of the scene when they are built.
    """
    product = metadata_of(item)
    image = image_of(item, product)
    layers = list(read_layers(item, image.grid, image.grid))
    notes = [*item_differences(item, product), *layers_elsewhere(layers, image.grid)]
    bands = select_bands(product.bands, source.bands.exclude_nm, source.bands.count, source.bands.keep_nm)
    check_scaling(bands)
    flags = flags_on(layers, image.grid)
    findings, unread = BandFindings((), ()), False
    try:
        findings = examine_sample(image, flags, bands)
    except ReadError as error:
        unread = True
        notes.append(f"no band was looked at: {error}")
    facts = SceneFacts(
        bands=tuple(bands),
        processing=product.processing,
        nodata=image.nodata,
        angles=product.angles,
        missing_layers=tuple(layer for layer in LAYERS if layer not in item.assets),
        empty_nm=tuple(bands[i].wavelength for i in findings.empty),
        noisy_nm=tuple(bands[i].wavelength for i in findings.noisy),
        notes=tuple(notes),
    )
    own = [hidden_by_own(file, source.own_flag_mask) for file in needs]
    cells = imaged_cells(flags, image.grid, cell_size, source.flag_mask, own[0] if own else None)
    document = {"facts": asdict(facts), "cells": {cell.id: flagged for cell, flagged in cells.items()}}
    result = json.dumps(document).encode()
    return ProvisionalResult(result) if unread else result


def hidden_by_own(file: Path, bits: int) -> NDArray[np.bool_]:
    """The pixels (y, x) of a scene with some bits of its mask. Raises SceneError where clouds were not looked for."""
    facts = mask_facts(file)
    if facts.reason:
        raise SceneError(f"its clouds are unknown: {facts.reason}; set `enmap.mask: report` to use the scene")
    return np.asarray((mask_in(file) & bits) != 0)


def scene_facts(result: bytes) -> SceneFacts:
    """The facts in what `look_at_scene` gave."""
    known = json.loads(result)["facts"]
    return facts_in(known, known["bands"])


def facts_in(known: Mapping[str, Any], bands: Sequence[Mapping[str, Any]]) -> SceneFacts:
    """Facts from plain data."""
    lists = {name: tuple(known[name]) for name in ("missing_layers", "empty_nm", "noisy_nm", "notes")}
    return SceneFacts(
        bands=tuple(Band(**band) for band in bands),
        processing=known["processing"],
        nodata=known["nodata"],
        angles=Angles(**known["angles"]),
        **lists,
    )


def scene_cells(result: bytes) -> dict[Cell, float]:
    """The cells in what `look_at_scene` gave, with their share of flagged pixels."""
    return {Cell.parse(name): flagged for name, flagged in json.loads(result)["cells"].items()}


def facts_to_parquet(facts: Mapping[str, SceneFacts]) -> bytes:
    """Facts of scenes as a file of a plan: one row a stored band, and what else is known of its scene beside it."""
    rows = []
    for name, known in sorted(facts.items()):
        others = {key: value for key, value in asdict(known).items() if key != "bands"}
        rows += [{"scene": name, **asdict(band), "facts": json.dumps(others)} for band in known.bands]
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer)
    return buffer.getvalue()


def facts_from_parquet(data: bytes) -> dict[str, SceneFacts]:
    """What `facts_to_parquet` wrote; nothing for a file of an earlier h2crop: its scenes are looked at again."""
    table = pd.read_parquet(io.BytesIO(data))
    if not {"detector", "facts"} <= set(table):
        return {}
    found = {}
    for name, rows in table.groupby("scene", sort=True):
        bands = rows[list(Band.__dataclass_fields__)].to_dict("records")
        plain = [{str(key): value for key, value in band.items()} for band in bands]
        found[str(name)] = facts_in(json.loads(rows["facts"].iloc[0]), plain)
    return found


def metadata_of(item: pystac.Item) -> Product:
    """The parsed METADATA.XML of an EnMAP item."""
    if "metadata" not in item.assets:
        raise SceneError(f"{item.id} has no asset `metadata`")
    try:
        return parse_metadata(read_text(item.assets["metadata"].href))
    except ReadError as error:
        raise type(error)(f"{item.id}: {error}") from error


@dataclass(frozen=True)
class Image:
    """The spectral image of a scene, as its file says."""

    href: str
    grid: GeoBox
    #: The number of pixels without a measurement.
    nodata: int


def image_of(item: pystac.Item, product: Product) -> Image:
    """The image of a scene, held against METADATA.XML. Raises SceneError where the two differ, ReadError."""
    if "image" not in item.assets:
        raise SceneError(f"{item.id} has no asset `image`")
    href = item.assets["image"].href

    def read() -> Image:
        with opened(href) as dataset:
            if dataset.dtypes[0] != "int16":
                raise SceneError(f"{href}: expected int16, got {dataset.dtypes[0]}")
            if dataset.count != len(product.bands):
                raise SceneError(f"{href} has {dataset.count} bands, METADATA.XML lists {len(product.bands)}")
            stated = None if dataset.nodata is None else int(dataset.nodata)
            if None not in (stated, product.background) and stated != product.background:
                raise SceneError(
                    f"{href}: expected the nodata value {product.background}, as in METADATA.XML, got {stated}: "
                    "correct the file"
                )
            nodata = next((number for number in (stated, product.background) if number is not None), REFLECTANCE_FILL)
            return Image(href, grid_of(dataset), nodata)

    return retried(read, href, remote=is_remote(href))


def examine_sample(image: Image, flags: NDArray[np.uint16], bands: Sequence[Band]) -> BandFindings:
    """What the pixels of a square of the image with few clouds say of the bands. Raises SceneError, ReadError.

    flags: (y, x) of the whole image.
    """
    obscured = sum(ENMAP_FLAGS[name] for name in OBSCURING)
    rows, columns = sample_place((flags & obscured) == 0)
    window = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    numbers = read_window(image.href, window, [band.number for band in bands])[0]
    values = enmap_reflectance(numbers, bands, image.nodata).astype(np.float32).reshape(len(bands), -1)
    inside = (flags[rows, columns] & ENMAP_FLAGS["outside"]).ravel() == 0
    values[values == REFLECTANCE_FILL] = np.nan
    return examine_bands(values[:, inside if inside.any() else slice(None)] * REFLECTANCE_SCALE, bands)


def imaged_cells(
    flags: NDArray[np.uint16],
    grid: GeoBox,
    cell_size: int,
    flag_mask: int,
    further: NDArray[np.bool_] | None = None,
) -> dict[Cell, float]:
    """The cells that a scene imaged wholly, and the share of their pixels with a flag of `flag_mask`.

    flags: (y, x) of the whole image, whose grid is `grid`. further: pixels (y, x) that count as flagged besides.
    """
    found = {}
    for cell in cells_of_area(shapely.box(*grid.boundingbox.bbox), str(grid.crs), cell_size, "inside"):
        under = footprint_or(flags, grid, cell.geobox(COARSE), outside=ENMAP_FLAGS["outside"])
        if not (under & ENMAP_FLAGS["outside"]).any():
            flagged = (under & flag_mask) != 0
            if further is not None:
                flagged |= footprint_or(further, grid, cell.geobox(COARSE), outside=True)
            found[cell] = float(flagged.mean())
    return found
