"""Number formats of Sentinel-2 files: signed, unsigned or scaled floating point, and what items state about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray

from h2crop_data.catalog.item_facts import asset_of_band, first_band, offset_evidence, stated_offset
from h2crop_data.catalog.items import finite_number
from h2crop_data.constants import SENTINEL2_BANDS
from h2crop_data.errors import SceneError
from h2crop_data.sentinel2.reflectance import NO_NUMBER, UndecidedOffsetError, offset_of_item

#: Types of the numbers in Sentinel-2 files.
UNSIGNED, SIGNED, FLOATING = ("uint8", "uint16"), ("int8", "int16"), ("float32", "float64")
#: Numbers of files for a reflectance of 1, without the offset.
NUMBERS_OF_ONE = 10_000
#: The scale of whole numbers, which are taken as they are; 1 is stated where nothing is meant.
SCALE_OF_NUMBERS = 1 / NUMBERS_OF_ONE
WHOLE_NUMBER_SCALES = (1.0, SCALE_OF_NUMBERS)


@dataclass(frozen=True)
class NumberFormat:
    """How a raster of one band holds 10000 x reflectance, or classes."""

    dtype: str
    nodata: float | None
    #: What floating point numbers are multiplied with; None for whole numbers, which are taken as they are.
    factor: float | None = None

    @property
    def is_signed(self) -> bool:
        """Whether numbers may be negative: they are read as int32."""
        return self.dtype not in UNSIGNED


def number_format(dataset: rasterio.DatasetReader, scale: float | None) -> NumberFormat:
    """How an open raster holds its numbers. scale: that of the numbers as the item states it.

    Raises SceneError for numbers that reflectance x 10000 does not come in, and for several bands.
    """
    dtype: str = dataset.dtypes[0]
    if dataset.count != 1:
        raise SceneError(f"{dataset.name}: expected one band, got {dataset.count}; leave the scene out")
    if dtype in FLOATING:
        return NumberFormat(dtype, dataset.nodata, scale_of_floats(dataset, scale) * NUMBERS_OF_ONE)
    if dtype not in (*UNSIGNED, *SIGNED):
        raise SceneError(
            f"{dataset.name}: expected integers of at most 16 bits, reflectance x 10000, got {dtype}; convert the "
            "file, or leave such scenes out with `sentinel2.gaps: record`"
        )
    check_scale_of_whole(dataset, scale)
    return NumberFormat(dtype, dataset.nodata)


def check_scale_of_whole(dataset: rasterio.DatasetReader, stated: float | None) -> None:
    """Raise SceneError for a file of whole numbers that are not reflectance x 10000, as it or its item states."""
    for who, scale in (("the file", float(dataset.scales[0])), ("its item", stated)):
        if scale is not None and not np.isclose(scale, WHOLE_NUMBER_SCALES, rtol=1e-6, atol=0).any():
            raise SceneError(
                f"{dataset.name}: expected the scale 0.0001, reflectance x 10000, got {scale:g}, stated by {who} "
                f"for {dataset.dtypes[0]} values; if the scale is wrong, correct it, if it is right, convert the "
                "file, or leave such scenes out with `sentinel2.gaps: record`"
            )


def check_file_offset(dataset: rasterio.DatasetReader, asset: pystac.Asset) -> None:
    """Raise SceneError for a file that states another offset of its numbers than its item, by which it is decided.

    A file that states 0 may as well state nothing: GDAL gives 0 for both.
    """
    own = float(dataset.offsets[0])
    # In reflectance, or in numbers.
    own = own if abs(own) < 1 else own / NUMBERS_OF_ONE
    stated = stated_offset(asset)
    if own and (stated is None or not np.isclose(own, stated, rtol=0, atol=1e-6)):
        said = "none" if stated is None else f"{stated:g}"
        raise SceneError(
            f"{dataset.name} states the offset {own:g} (in reflectance), its item {said}; correct the wrong one (in "
            "the item: `raster:bands`, `offset`), or leave such scenes out with `sentinel2.gaps: record`"
        )


def scale_of_floats(dataset: rasterio.DatasetReader, stated: float | None) -> float:
    """The factor from floating point numbers to reflectance, of the file or its item. Raises SceneError."""
    own = float(dataset.scales[0])
    # GDAL gives 1 where the file states nothing.
    known = {scale for scale in (stated, None if own == 1 else own) if scale is not None}
    if len(known) == 1:
        return known.pop()
    if known:
        raise SceneError(f"{dataset.name} states the scale {own:g}, its item {stated:g}; leave the scene out")
    raise SceneError(
        f"{dataset.name} has {dataset.dtypes[0]} values without a scale in the file or its item; write the scale "
        "into the item (`raster:bands`, `scale`), convert the file to integers of at most 16 bits, reflectance x "
        "10000, or leave such scenes out with `sentinel2.gaps: record`"
    )


def stated_scale(asset: pystac.Asset) -> float | None:
    """The scale that an asset states for its band; None where it states none. Raises SceneError for anything but a
    number."""
    facts, band = asset.extra_fields, first_band(asset.extra_fields)
    return finite_number(
        facts.get("raster:scale", band.get("scale", band.get("raster:scale"))), f"{asset.href}: its scale"
    )


def is_rescaled(asset: pystac.Asset) -> bool:
    """Whether an asset states that its numbers are not integers of 0.0001. Raises SceneError for anything but a
    number."""
    facts, scale = asset.extra_fields, stated_scale(asset)
    is_other = scale is not None and not np.isclose(scale, SCALE_OF_NUMBERS, rtol=1e-6, atol=0)
    return is_other or facts.get("data_type", first_band(facts).get("data_type")) in FLOATING


def check_offset_of_floats(dataset: rasterio.DatasetReader, item: pystac.Item, key: str) -> None:
    """Raise SceneError for a file of floating point numbers that its item does not mention when it states the offset.

    ESA writes integers: software that converted them may have removed the offset.
    """
    if dataset.dtypes[0] not in FLOATING or is_rescaled(item.assets[key]):
        return
    evidence = offset_evidence(item)
    bands = frozenset(band for band in SENTINEL2_BANDS if asset_of_band(item, band) == key)
    try:
        offset_of_item(evidence)
    except SceneError:
        # Then pixels of its files decided.
        return
    try:
        offset_of_item(replace(evidence, rescaled=bands))
    except UndecidedOffsetError as error:
        raise SceneError(
            f"{dataset.name} has {dataset.dtypes[0]} values, which its item does not mention: {error.statement}; "
            "write `data_type`, `scale`, `offset` into the item (`raster:bands`), declare `sentinel2.offset` (for "
            "L1C `sentinel2.clouds.l1c.offset`), or leave such scenes out with `sentinel2.gaps: record`"
        ) from error


def as_numbers(pixels: NDArray[Any], form: NumberFormat) -> NDArray[Any]:
    """The pixels of a file: uint8 or uint16 with 0 for nodata, or int32 with NO_NUMBER where they have a sign.

    0 is nodata besides what the file states in files without a sign (the archives' rule), and in those with a sign that
    state none. Floating point numbers become whole ones, reflectance x 10000.
    """
    nodata = form.nodata
    if not form.is_signed:
        return np.where(pixels == nodata, pixels.dtype.type(0), pixels) if nodata else pixels
    nothing = pixels == (nodata or 0)
    if form.factor is None:
        return np.where(nothing, np.int32(NO_NUMBER), pixels.astype(np.int32))
    # What no reflectance comes near stays far above the brightest, and in the type.
    scaled = np.clip(pixels.astype(np.float64) * form.factor, -(2**30), 2**30)
    nothing |= ~np.isfinite(pixels)
    return np.where(nothing, np.int32(NO_NUMBER), np.rint(np.where(nothing, 0, scaled)).astype(np.int32))


def as_classes(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Classes as uint8; what is no class of the scene classification, nodata too, is 0."""
    if numbers.dtype == np.uint8:
        return numbers
    return np.where((numbers < 0) | (numbers > 255), 0, numbers).astype(np.uint8)
