"""The quality layers of an EnMAP scene, each placed by its own georeference, as flags on the image's pixels.

A layer on the image's grid is taken as it is. One on another grid of the same zone (shifted, cut, with other pixels)
gives an image pixel the flags of all its pixels under it. Ground that a layer does not cover counts as `outside`: what
the layer would say is not known there. A layer that cannot be placed (no CRS, another CRS, rotated) or that covers
nothing of the image refuses the scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pystac
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from h2crop_data.catalog.access import grid_of, in_words, is_remote, opened, retried, same_grid
from h2crop_data.constants import ENMAP_FLAGS
from h2crop_data.enmap.quality import LAYERS, footprint_or, layer_flags
from h2crop_data.errors import SceneError

#: A layer whose pixels are this near to the image's, in pixels, lies on them.
SAME_PIXELS = 0.01


class PlacedLayer(NamedTuple):
    """A layer, or the part of it that was read, where it lies."""

    #: (band, y, x), the codes of the file.
    codes: NDArray[Any]
    grid: GeoBox


def read_flags(
    item: pystac.Item, image: GeoBox, window: Window | None = None, bands: Sequence[int] | None = None
) -> NDArray[np.uint16]:
    """The flags of a scene, (y, x) uint16 as ENMAP_FLAGS, on the image's grid or a window of it.

    Parameters and errors as for `read_layers`.
    """
    target = image if window is None else part_of(image, window)
    return flags_on(read_layers(item, image, target, bands), target)


def read_layers(
    item: pystac.Item, image: GeoBox, target: GeoBox, bands: Sequence[int] | None = None
) -> Iterator[tuple[str, PlacedLayer]]:
    """The layers that a scene has under a part of its image, by name.

    image: the whole grid of the image. bands: numbers of the bands whose defective pixels count; without them none do,
    but the mask is placed like the other layers. Raises SceneError for a layer that cannot be placed, ReadError.
    """
    if "quality_classes" not in item.assets:
        raise SceneError(f"{item.id} has no asset `quality_classes`")
    for layer in LAYERS:
        if layer in item.assets:
            wanted = (bands or []) if layer == "defective_pixel_mask" else [1]
            yield layer, read_layer(item.assets[layer].href, image, target, wanted)


def flags_on(layers: Iterable[tuple[str, PlacedLayer]], target: GeoBox) -> NDArray[np.uint16]:
    """What some layers say of the pixels of a grid, (y, x) uint16 as ENMAP_FLAGS."""
    flags = np.zeros(target.shape, np.uint16)
    for layer, placed in layers:
        own = layer_flags(layer, placed.codes)
        flags |= own if placed.grid == target else footprint_or(own, placed.grid, target, ENMAP_FLAGS["outside"])
    return flags


def layers_elsewhere(layers: Iterable[tuple[str, PlacedLayer]], image: GeoBox) -> list[str]:
    """What to say of layers that lie on another grid than the image, in words."""
    return [
        f"its layer `{layer}` has another grid than the image ({in_words(placed.grid)} under it): it is placed by "
        "its own georeference, and pixels that it does not cover count as outside"
        for layer, placed in layers
        if placed.grid != image
    ]


def read_layer(href: str, image: GeoBox, target: GeoBox, bands: Sequence[int]) -> PlacedLayer:
    """Some bands of a layer under a part of the image. Raises SceneError where it cannot be placed, ReadError.

    Without bands nothing is read: it has no band, and the grid says what it covers.
    """

    def read() -> PlacedLayer:
        with opened(href) as dataset:
            own = placed_grid(href, grid_of(dataset), image)
            if not np.issubdtype(np.dtype(dataset.dtypes[0]), np.integer):
                raise SceneError(f"{href}: expected integers, got {dataset.dtypes[0]}")
            if bands and max(bands) > dataset.count:
                raise SceneError(f"{href}: expected band {max(bands)}, the file has {dataset.count} bands")
            window = pixels_under(own, target)
            part = part_of(own, window)
            codes = dataset.read(list(bands), window=window) if bands else np.zeros((0, *part.shape), np.uint8)
            return PlacedLayer(codes, target if same_grid(part, target) else part)

    return retried(read, href, remote=is_remote(href))


def placed_grid(href: str, own: GeoBox, image: GeoBox) -> GeoBox:
    """The grid of a layer, on the image's pixels exactly where it lies on them within SAME_PIXELS.

    Raises SceneError for one that cannot be placed, or covers nothing of the image.
    """
    if own.crs != image.crs:
        raise SceneError(f"{href} has another CRS than the image: expected {in_words(image)}, got {in_words(own)}")
    if same_grid(own, image):
        return image
    if own.affine.b or own.affine.d:
        raise SceneError(f"{href} is rotated against north, the image is not: its pixels cannot be placed")
    if not pixels_under(own, image).width or not pixels_under(own, image).height:
        raise SceneError(f"{href} does not overlap the image: expected {in_words(image)}, got {in_words(own)}")
    to_image = ~image.affine @ own.affine
    start = round(to_image.c), round(to_image.f)
    corners = [(0, 0), own.shape[::-1]]
    moved = Affine.translation(*start)
    apart = [np.subtract(to_image @ corner, moved @ corner) for corner in corners]
    return GeoBox(own.shape, image.affine @ moved, image.crs) if np.abs(apart).max() < SAME_PIXELS else own


def pixels_under(own: GeoBox, target: GeoBox) -> Window:
    """The pixels of a grid under another in the same CRS, cut to the grid; empty where it has none."""
    height, width = target.shape
    corners = np.array([~own.affine @ (target.affine @ corner) for corner in [(0, 0), (width, height)]])
    rows, columns = own.shape
    left, top = np.clip(np.floor(corners.min(axis=0) + 1e-3), 0, [columns, rows]).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0) - 1e-3), 0, [columns, rows]).astype(int)
    return Window(int(left), int(top), max(0, int(right - left)), max(0, int(bottom - top)))


def part_of(grid: GeoBox, window: Window) -> GeoBox:
    """The grid of a window."""
    shape = (window.height, window.width)
    return GeoBox(shape, grid.affine @ Affine.translation(window.col_off, window.row_off), grid.crs)
