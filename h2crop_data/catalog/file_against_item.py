"""Statements of an item about its files, compared with the files: the files are used, and every difference is
reported."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from h2crop_data.catalog.footprints import grid_box
from h2crop_data.catalog.item_facts import first_band

#: A scene, the key of an asset, and in words what the item says of its file and what the file has.
Difference = tuple[str, str, str]
#: A field of an item, what it says, and what the file has.
Contradiction = tuple[str, str, str]
#: Pixels by which a file may lie elsewhere than stated, and metres where a statement is of the whole scene: a pixel of
#: the coarsest bands.
PIXELS_APART, METRES_APART = 0.01, 60


def file_against_item(item: pystac.Item, key: str, dataset: rasterio.DatasetReader, size: int | None = None) -> str:
    """Where an item says something else of the file of an asset than the file has, in words; empty where nowhere.

    dataset: the open file. size: its bytes, where they are known. What either of both leaves open differs from nothing;
    neither does a statement that cannot be read.
    """
    of_asset = item.assets[key].extra_fields
    found = [
        *crs_against(item.properties, of_asset, dataset),
        *grid_against(item.properties, of_asset, dataset),
        *numbers_against(of_asset, dataset),
    ]
    stated = stated_numbers([of_asset.get("file:size")])
    if stated and size is not None and stated[0] != size:
        found.append(("file:size", f"{stated[0]:.0f}", str(size)))
    return ", ".join(f"`{name}` says {said}, the file has {own}" for name, said, own in found)


def crs_against(
    of_item: Mapping[str, Any], of_asset: Mapping[str, Any], dataset: rasterio.DatasetReader
) -> Iterator[Contradiction]:
    """A stated CRS that is not that of an open file. What an asset says counts before what its item says."""
    stated = ((name, facts.get(name)) for facts in (of_asset, of_item) for name in ("proj:code", "proj:epsg"))
    for name, code in stated:
        digits = str(code or "").upper().removeprefix("EPSG:")
        if digits.isdecimal():
            try:
                is_same = CRS.from_epsg(int(digits)) == dataset.crs
            except CRSError:
                is_same = False
            if not is_same:
                yield name, f"EPSG:{digits}", str(dataset.crs)
            return


def grid_against(
    of_item: Mapping[str, Any], of_asset: Mapping[str, Any], dataset: rasterio.DatasetReader
) -> Iterator[Contradiction]:
    """Stated pixels that are not those of an open file.

    What an item says for all its assets is meant of one resolution: of that only the ground is compared.
    """
    shape, transform, box = (stated_numbers(of_asset.get(f"proj:{name}")) for name in ("shape", "transform", "bbox"))
    tolerance = PIXELS_APART * abs(dataset.transform.a)
    if len(shape) == 2 and tuple(shape) != dataset.shape:
        yield "proj:shape", numbers_in_words(shape), numbers_in_words(dataset.shape)
    if len(transform) >= 6 and not lies_as(Affine(*transform[:6]), dataset, tolerance):
        yield "proj:transform", numbers_in_words(transform[:6]), numbers_in_words(list(dataset.transform)[:6])
    if not (shape or transform or box):
        ground = grid_box(dict(of_item))
        box, tolerance = list(ground.bounds) if ground is not None else [], METRES_APART
    if len(box) == 4 and np.abs(np.subtract(box, dataset.bounds)).max() > tolerance:
        yield "proj:bbox", numbers_in_words(box), numbers_in_words(dataset.bounds)


def lies_as(stated: Affine, dataset: rasterio.DatasetReader, tolerance: float) -> bool:
    """Whether a transform puts the corners of an open file where they are, to so many metres."""
    height, width = dataset.shape
    corners = [(0, 0), (width, 0), (0, height)]
    apart = [np.subtract(stated @ corner, dataset.transform @ corner) for corner in corners]
    return bool(np.abs(apart).max() <= tolerance)


def numbers_against(of_asset: Mapping[str, Any], dataset: rasterio.DatasetReader) -> Iterator[Contradiction]:
    """Stated numbers that are not those of an open file: their type, nodata and scale."""
    band = {**of_asset, **first_band(of_asset)}
    dtype = band.get("data_type")
    if dtype is not None and str(dtype) != dataset.dtypes[0]:
        yield "data_type", str(dtype), dataset.dtypes[0]
    nodata = stated_numbers([band.get("nodata")])
    if nodata and dataset.nodata is not None and not np.array_equal(nodata, [dataset.nodata], equal_nan=True):
        yield "nodata", numbers_in_words(nodata), numbers_in_words([dataset.nodata])
    scale, own = (
        stated_numbers([of_asset.get("raster:scale", band.get("scale", band.get("raster:scale")))]),
        dataset.scales[0],
    )
    # GDAL gives 1 where the file states nothing.
    if scale and own != 1 and not math.isclose(scale[0], own, rel_tol=1e-6):
        yield "scale", numbers_in_words(scale), numbers_in_words([own])


def stated_numbers(stated: Any) -> list[float]:
    """Stated numbers, also where they are written as text; none where it is anything else."""
    try:
        return [float(number) for number in stated]
    except (TypeError, ValueError):
        return []


def numbers_in_words(stated: Iterable[float]) -> str:
    """Numbers with a space between them."""
    return " ".join(f"{number:.10g}" for number in stated)


def in_sentences(found: Iterable[Sequence[str]]) -> list[str]:
    """Differences in words, in order: what is the same of several files of a scene is said once."""
    assets: dict[tuple[str, str], set[str]] = defaultdict(set)
    for scene, key, what in found:
        assets[scene, what].add(key)
    return [f"{scene}: {what} ({', '.join(sorted(keys))})" for (scene, what), keys in sorted(assets.items())]
