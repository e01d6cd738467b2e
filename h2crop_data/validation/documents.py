"""The metadata documents a store must have: they follow from its layout and the number of its blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from h2crop_data.cube.schema import CoordinateSpec, StoreLayout, group_document
from h2crop_data.cube.seal import DATASHEET


def expected_documents(layout: StoreLayout, season: int, blocks: int) -> dict[str, dict[str, Any]]:
    """Path below the root -> metadata document, of a season's group, arrays and coordinates."""
    slots = blocks * layout.capacity
    documents = {str(season): group_document({"season": season})}
    for name, spec in layout.arrays().items():
        documents[f"{season}/{name}"] = spec.metadata(slots, layout.capacity, layout.codec)
    for coordinate in layout.coordinates():
        documents[f"{season}/{coordinate.name}"] = coordinate.metadata(coordinate.shape(slots))
    return documents


def store_documents(layout: StoreLayout, seasons: Mapping[int, int]) -> dict[str, dict[str, Any]]:
    """The same of all seasons (season -> blocks) of a store."""
    documents: dict[str, dict[str, Any]] = {}
    for season, blocks in seasons.items():
        documents |= expected_documents(layout, season, blocks)
    return documents


def coordinate_files(coordinate: CoordinateSpec, shape: tuple[int, ...]) -> list[str]:
    """The names of a coordinate's chunks in its folder, in order."""
    size = coordinate.chunk or shape[0]
    return [f"c.{place}" + ".0" * (len(shape) - 1) for place in range(-(-shape[0] // size))]


def difference(expected: Any, found: Any, at: str = "") -> str:
    """In words, the first place where two documents differ; empty where they do not."""
    if json.dumps(expected, sort_keys=True) == json.dumps(found, sort_keys=True):
        return ""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}, key=str):
            place = f"{at}.{key}" if at else str(key)
            if key not in found:
                return f"{place} is missing"
            if key not in expected:
                return f"{place} is not expected"
            if differs := difference(expected[key], found[key], place):
                return differs
        return ""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        inside = (difference(*pair, f"{at}[{place}]") for place, pair in enumerate(zip(expected, found, strict=True)))
        return next(filter(None, inside), "")
    return f"{at or 'it'} is {short(found)}, expected {short(expected)}"


def short(value: Any) -> str:
    """A value in a sentence."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def release_files(layout: StoreLayout, seasons: Mapping[int, int], index: Mapping[str, str]) -> set[str]:
    """The files that sealing writes and the manifest lists: metadata documents, coordinates, index.

    seasons: season -> blocks. index: name -> path.
    """
    files = {path for name, path in index.items() if name not in ("manifest", "root")}
    if "datasheet" in index:
        files.add(DATASHEET)
    for season, blocks in seasons.items():
        files |= {f"{path}/zarr.json" for path in expected_documents(layout, season, blocks)}
        for coordinate in layout.coordinates():
            shape = coordinate.shape(blocks * layout.capacity)
            files |= {f"{season}/{coordinate.name}/{chunk}" for chunk in coordinate_files(coordinate, shape)}
    return files
