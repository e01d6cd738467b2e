"""The few facts every part shares: fill values, pixel sizes, band names, flags."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

#: Reflectance x 10000 of a pixel nobody measured, in `enmap` and `s2`.
REFLECTANCE_FILL = -32768
#: Stored reflectance is round(reflectance / REFLECTANCE_SCALE).
REFLECTANCE_SCALE = 1e-4
#: What the Sentinel-2 numbers of the published dataset are above reflectance x 10000.
PUBLISHED_OFFSET = 1000
#: Arrays of reflectance.
IMAGES = ("enmap", "s2")
#: Label of a pixel whose crop is not known at a tier.
UNKNOWN = 255
#: Label of a pixel nobody declared.
BACKGROUND = 0
MONTHS = 12
#: Digits of the HCAT3 code that a class of each tier stands for.
TIER_DIGITS = (4, 6, 8, 10)
TIERS = len(TIER_DIGITS)
#: Pixel sizes in metres.
FINE, COARSE = 10, 30

Sentinel2Band = Literal["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
#: Order of the published dataset.
SENTINEL2_BANDS: tuple[Sentinel2Band, ...] = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
#: Those of 10 m; the others have pixels of 20 m.
FINE_BANDS = ("B02", "B03", "B04", "B08")

#: Assumed, of no archive measured: seconds until one begins to answer a request for a piece of a file, and bytes a
#: second that it gives (docs/scale.md tells what other numbers make of a country). Environment and options go before.
REQUEST_SECONDS, ARCHIVE_BYTES_A_SECOND = 0.35, 50e6

#: A datatake lasts at most some 40 minutes: no scene of one is acquired later than this after its beginning.
LONGEST_DATATAKE = timedelta(minutes=60)

#: Bits of `enmap_quality`; a bit is set when any source pixel under the stored pixel's footprint has it.
ENMAP_FLAGS: dict[str, int] = {
    "outside": 1,
    "water": 2,
    "cloud": 4,
    "cloud_shadow": 8,
    "haze": 16,
    "cirrus_thin": 32,
    "cirrus_medium": 64,
    "cirrus_thick": 128,
    "snow": 256,
    "interpolated": 512,
    "saturated": 1024,
    "artefact": 2048,
    "reduced_quality": 4096,
    "low_quality": 8192,
    "defective": 16384,
}
#: Bits of `enmap_mask`, set in the same way: cloud and shadow that the scene's own bands show, and no value to look at.
ENMAP_MASK_FLAGS: dict[str, int] = {"cloud": 1, "cloud_shadow": 2, "unseen": 4}
#: Those that say that something hides the ground.
OBSCURED_BY_OWN = ENMAP_MASK_FLAGS["cloud"] | ENMAP_MASK_FLAGS["cloud_shadow"]
#: Those that count as flagged where a recipe applies the mask: what nobody could look at is not taken for clear.
EXCLUDED_BY_OWN = OBSCURED_BY_OWN | ENMAP_MASK_FLAGS["unseen"]

#: The splits, in the order they are named.
SPLITS = ("train", "val", "test")
#: What stands in the index for a cell, a split square, a scene, a plan or a taxonomy where there is none.
NONE = "none"
#: The class columns of parcels.
TIER_COLUMNS = [f"tier{tier}" for tier in range(1, TIERS + 1)]

#: How addresses of Dask schedulers begin.
SCHEDULER_SCHEMES = ("tcp://", "tls://")
