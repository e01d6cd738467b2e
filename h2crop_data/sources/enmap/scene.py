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

import pandas as pd
import pystac
import shapely
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from h2crop_data.catalog.access import file_stamp, raster_geobox, read_text, read_window
from h2crop_data.constants import COARSE, ENMAP_FLAGS
from h2crop_data.enmap.product import Band, Product, parse_metadata, select_bands
from h2crop_data.enmap.quality import LAYERS, footprint_or, quality_flags
from h2crop_data.errors import H2cropError, ReadError, SceneError
from h2crop_data.grid import Cell, cells_of_area
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.scenes import PinnedItems, kept_identity
from h2crop_data.sources.units import Unit

#: Raised whenever the same scene gives other bands or cells.
SCENE_ALGORITHM = 1


@dataclass(frozen=True)
class SceneFacts:
    """What METADATA.XML says of a scene that its blocks need."""

    #: The stored bands, in order of wavelength.
    bands: tuple[Band, ...]
    #: How it was processed: tag -> text.
    processing: dict[str, str]


@dataclass(frozen=True)
class EnmapScenes(PinnedItems):
    """The EnMAP scenes that a plan keeps."""

    #: Scene -> its facts; plans of an earlier h2crop have none.
    facts: Mapping[str, SceneFacts | H2cropError] = field(default_factory=dict)

    def only(self, wanted: set[str]) -> EnmapScenes:
        """Some of the scenes."""
        facts = {name: found for name, found in self.facts.items() if name in wanted}
        return EnmapScenes([item for item in self.items if item.id in wanted], facts)

    def with_facts(self, facts: Mapping[str, SceneFacts | H2cropError]) -> EnmapScenes:
        """The scenes with further facts, or why there are none."""
        return replace(self, facts={**self.facts, **facts})


def scene_unit(item: pystac.Item, source: EnmapSettings, cell_size: int) -> Unit:
    """The unit of work that looks at a scene. What it finds follows from the item, which the input hash has."""
    bands = source.bands.model_dump(mode="json")
    return Unit(
        kind="scene",
        step="enmap cells",
        name=item.id,
        algorithm=SCENE_ALGORITHM,
        # Files on this machine may be replaced while their item stays the same.
        inputs=[kept_identity(item), {key: file_stamp(asset.href) for key, asset in item.assets.items()}],
        settings={"cell_size": cell_size, "bands": bands, "flagged": sorted(set(source.flagged))},
        compute=partial(look_at_scene, item, source, cell_size),
        implied=True,
    )


def look_at_scene(item: pystac.Item, source: EnmapSettings, cell_size: int, needs: Sequence[Path]) -> bytes:
    """Facts and cells of a scene as JSON. Raises SceneError for one that cannot be used, ReadError."""
    product = metadata_of(item)
    bands = select_bands(product.bands, source.bands.exclude_nm, source.bands.count)
    cells = imaged_cells(item, cell_size, source.flag_mask)
    document = {
        **asdict(SceneFacts(tuple(bands), product.processing)),
        "cells": {cell.id: flagged for cell, flagged in cells.items()},
    }
    return json.dumps(document).encode()


def scene_facts(result: bytes) -> SceneFacts:
    """The facts in what `look_at_scene` gave."""
    document = json.loads(result)
    return SceneFacts(tuple(Band(**band) for band in document["bands"]), document["processing"])


def scene_cells(result: bytes) -> dict[Cell, float]:
    """The cells in what `look_at_scene` gave, with their share of flagged pixels."""
    return {Cell.parse(name): flagged for name, flagged in json.loads(result)["cells"].items()}


def facts_to_parquet(facts: Mapping[str, SceneFacts]) -> bytes:
    """Facts of scenes as a file of a plan: one row a stored band, and its scene's processing beside it."""
    rows = [
        {"scene": name, **asdict(band), "processing": json.dumps(known.processing)}
        for name, known in sorted(facts.items())
        for band in known.bands
    ]
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer)
    return buffer.getvalue()


def facts_from_parquet(data: bytes) -> dict[str, SceneFacts]:
    """What `facts_to_parquet` wrote."""
    table = pd.read_parquet(io.BytesIO(data))
    found = {}
    for name, rows in table.groupby("scene", sort=True):
        columns = rows[list(Band.__dataclass_fields__)].to_dict("records")
        bands = tuple(Band(**{str(key): value for key, value in row.items()}) for row in columns)
        found[str(name)] = SceneFacts(bands, json.loads(rows["processing"].iloc[0]))
    return found


def metadata_of(item: pystac.Item) -> Product:
    """The parsed METADATA.XML of an EnMAP item."""
    if "metadata" not in item.assets:
        raise SceneError(f"{item.id} has no asset `metadata`")
    try:
        return parse_metadata(read_text(item.assets["metadata"].href))
    except ReadError as error:
        raise ReadError(f"{item.id}: {error}") from error


def imaged_cells(item: pystac.Item, cell_size: int, flag_mask: int) -> dict[Cell, float]:
    """The cells that a scene imaged wholly, and the share of their pixels with a flag of `flag_mask`."""
    if "image" not in item.assets:
        raise SceneError(f"{item.id} has no asset `image`")
    grid = raster_geobox(item.assets["image"].href, "int16")
    flags = quality_flags(read_quality(item, grid))
    found = {}
    for cell in cells_of_area(shapely.box(*grid.boundingbox.bbox), str(grid.crs), cell_size, "inside"):
        under = footprint_or(flags, grid, cell.geobox(COARSE), outside=ENMAP_FLAGS["outside"])
        if not (under & ENMAP_FLAGS["outside"]).any():
            found[cell] = float(((under & flag_mask) != 0).mean())
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
