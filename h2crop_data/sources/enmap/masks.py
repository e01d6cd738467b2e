"""The unit of work that detects clouds in a scene by its own bands, once a scene."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pystac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from h2crop_data.cast_shadows import Direction, apparent_sun
from h2crop_data.catalog.access import file_stamp, read_window
from h2crop_data.catalog.items import acquired
from h2crop_data.constants import ENMAP_MASK_FLAGS, REFLECTANCE_FILL, REFLECTANCE_SCALE
from h2crop_data.enmap.own_mask import bands_for_mask, own_mask
from h2crop_data.enmap.product import Angles, Band, enmap_reflectance
from h2crop_data.enmap.shadows import satellite_azimuths
from h2crop_data.errors import ReadError, SceneError
from h2crop_data.grid import LONLAT, meridian_convergence, transformer
from h2crop_data.sentinel2.sun import sun_angles
from h2crop_data.sources.enmap.mask_result import MaskFacts, mask_archive
from h2crop_data.sources.enmap.scene import image_of, metadata_of
from h2crop_data.sources.enmap.work import own_mask_work
from h2crop_data.sources.scenes import kept_identity
from h2crop_data.sources.units import Unit

#: Raised whenever the same scene gives another mask.
OWN_MASK_ALGORITHM = 2
OWN_MASK_STEP = "enmap mask"
#: A scene is not looked at where fewer of its pixels than this share have a value in all bands of the mask.
LEAST_SEEN = 0.5


def own_mask_unit(item: pystac.Item) -> Unit:
    """The unit of work that detects clouds and shadows in a scene."""
    stamp = {key: file_stamp(asset.href) for key, asset in sorted(item.assets.items())}
    return Unit(
        kind="scene",
        step=OWN_MASK_STEP,
        name=item.id,
        algorithm=OWN_MASK_ALGORITHM,
        inputs=[kept_identity(item)],
        settings={},
        compute=partial(mask_scene, item),
        stamp=stamp if any(value is not None for value in stamp.values()) else None,
        work=partial(own_mask_work, item),
    )


def mask_scene(item: pystac.Item, needs: Sequence[Path]) -> bytes:
    """The mask of a scene as an archive of arrays. Raises SceneError for a scene that cannot be used, ReadError.

    An image whose pixels cannot be read is one that cannot be used.
    """
    product = metadata_of(item)
    image = image_of(item, product)
    height, width = image.grid.shape
    try:
        bands = bands_for_mask(product.bands)
    except SceneError as error:
        return unseen_scene((height, width), str(error))
    try:
        numbers, _ = read_window(image.href, Window(0, 0, width, height), [band.number for band in bands])
    except ReadError as error:
        raise SceneError(f"clouds cannot be detected: {error}") from error
    values = enmap_reflectance(numbers, bands, image.nodata)
    del numbers
    measured = values != REFLECTANCE_FILL
    reason = why_unseen(measured, bands)
    if reason:
        return unseen_scene((height, width), reason)
    imaged = measured.all(axis=0)
    reflectance = values.astype(np.float32) * np.float32(REFLECTANCE_SCALE)
    found = own_mask(reflectance, imaged, suns_of(item, product.angles, image.grid), image.grid.affine.a)
    return mask_archive(found.bits, MaskFacts(found.height, ""))


def unseen_scene(shape: tuple[int, int], reason: str) -> bytes:
    """The archive of a scene that was not looked at."""
    return mask_archive(np.full(shape, ENMAP_MASK_FLAGS["unseen"], np.uint8), MaskFacts(None, reason))


def why_unseen(measured: NDArray[np.bool_], bands: Sequence[Band]) -> str:
    """Why clouds cannot be detected in a scene; empty where they can.

    measured: (band, y, x), where `bands` have a value.
    """
    imaged = measured.any(axis=0)
    if not imaged.any():
        return "none of the bands that show clouds has values: clouds cannot be detected"
    if measured.all(axis=0).sum() >= LEAST_SEEN * imaged.sum():
        return ""
    shares = measured[:, imaged].mean(axis=1)
    worst = int(shares.argmin())
    return (
        f"the band at {bands[worst].wavelength:.0f} nm has a value in {shares[worst]:.0%} of the pixels that other "
        "bands imaged: clouds cannot be detected"
    )


def suns_of(item: pystac.Item, angles: Angles, grid: GeoBox) -> list[Direction]:
    """Where the sun may seem to stand for the clouds of a scene: for a satellite on either side of its track.

    Azimuths count from the grid's north, along which rows follow each other. The sun's angles are those of
    METADATA.XML; what it does not say is computed from time and place. Without off-nadir angles the satellite stands
    overhead.
    """
    x, y = grid.affine @ (grid.shape[1] / 2, grid.shape[0] / 2)
    longitude, latitude = transformer(str(grid.crs), LONLAT).transform(x, y)
    azimuth, elevation = sun_angles(acquired(item), longitude, latitude)
    turn = meridian_convergence(str(grid.crs), longitude, latitude)
    sun = (
        (azimuth if angles.sun_azimuth is None else angles.sun_azimuth) - turn,
        elevation if angles.sun_elevation is None else angles.sun_elevation,
    )
    zenith = angles.view_zenith or 0.0
    return [apparent_sun(sun, (side - turn, zenith)) for side in satellite_azimuths(latitude)]
