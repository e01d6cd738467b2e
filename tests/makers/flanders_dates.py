"""The dates of `flanders_2018` as cloud masks see them, read with rasterio; and what detectors say of them.

The patch is 640 m wide. A network that wants to see 30 m pixels sees 22 of them, so it is shown the patch in several
ways: see WAYS.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.recipe.model import Clouds
from h2crop_data.sentinel2.clouds import CloudMethod
from h2crop_data.sentinel2.tile_masks import MaskRules, TileDates
from h2crop_data.sources.sentinel2.tile_unit import rules_of

#: Pixels of 10 m and of 20 m along the patch.
FINE, COARSE = 64, 32
#: Dates that someone who looked at every picture saw to be clear, all over or but for specks; some are a little hazy.
CLEAR_DATES = (
    "2017-08-27", "2017-09-26", "2017-11-02", "2017-11-22", "2018-01-16", "2018-01-19", "2018-01-26", "2018-02-08",
    "2018-02-25", "2018-02-28", "2018-03-25", "2018-04-19", "2018-04-26", "2018-05-04", "2018-05-06", "2018-05-09",
    "2018-05-11", "2018-05-26", "2018-06-23", "2018-06-28", "2018-06-30", "2018-07-05", "2018-07-08", "2018-07-15",
    "2018-07-23", "2018-08-02", "2018-08-07", "2018-08-17", "2018-09-01", "2018-09-21", "2018-09-26", "2018-10-06",
    "2018-10-08", "2018-10-13", "2018-10-21", "2018-10-28",
)  # fmt: skip
KEYS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B8A": "nir08", "B11": "swir16", "B12": "swir22"}


@dataclass(frozen=True)
class Dates:
    """All dates in order of time; reflectance x 10000 has no offset, 0 where there is no value."""

    days: tuple[date, ...]
    #: Azimuth and elevation of the sun in degrees, (n, 2).
    sun: NDArray[np.float64]
    #: SCL (n, 32, 32).
    classes: NDArray[np.uint8]
    #: By band: (n, 64, 64), pixels of 10 m; those of 20 m repeated.
    bands: dict[str, NDArray[np.uint16]]

    def place(self, day: str) -> int:
        """The place of a date, named as 2018-06-10."""
        return self.days.index(date.fromisoformat(day))


def read_dates(folder: Path) -> Dates:
    """The dates of the patch in a folder."""
    items = json.loads((folder / "items.json").read_text(encoding="utf-8"))["features"]
    items.sort(key=lambda item: item["properties"]["datetime"])
    return Dates(
        days=tuple(datetime.fromisoformat(item["properties"]["datetime"]).date() for item in items),
        sun=np.array(
            [(item["properties"]["view:sun_azimuth"], 90 - item["properties"]["view:sun_zenith"]) for item in items]
        ),
        classes=np.stack([read(folder, item, "scl") for item in items]).astype(np.uint8),
        bands={band: np.stack([at_10_metres(read(folder, item, key)) for item in items]) for band, key in KEYS.items()},
    )


def read(folder: Path, item: dict[str, Any], key: str) -> NDArray[Any]:
    """The only band of an asset."""
    with rasterio.open(folder / item["assets"][key]["href"]) as raster:
        values: NDArray[Any] = raster.read(1)
    return values


def at_10_metres(values: NDArray[Any]) -> NDArray[Any]:
    """Pixels of 10 m, or of 20 m repeated."""
    times = FINE // len(values)
    return values.repeat(times, 0).repeat(times, 1)


def at_20_metres(values: NDArray[Any]) -> NDArray[np.int16]:
    """Means of 2 x 2 pixels of 10 m (n, y, x), REFLECTANCE_FILL where one has no value."""
    squares = values.reshape(len(values), COARSE, 2, COARSE, 2)
    means = np.rint(squares.mean(axis=(2, 4))).astype(np.int16)
    return np.where((squares == 0).any(axis=(2, 4)), np.int16(REFLECTANCE_FILL), means)


def tile_dates(dates: Dates) -> TileDates:
    """What masks are made of, without what a detector says."""
    return TileDates(
        days=np.array([day.toordinal() for day in dates.days], np.int32),
        sun=dates.sun,
        classes=dates.classes,
        blue=at_20_metres(dates.bands["B02"]),
        infrared=at_20_metres(dates.bands["B8A"]),
        swir=at_20_metres(dates.bands["B11"]),
        cloud=np.zeros(dates.classes.shape, bool),
        shadow=np.zeros(dates.classes.shape, bool),
    )


#: How a detector that looks at 30 m is shown a patch of 640 m.
WAYS = {
    "30 m": "22 pixels of 30 m, as a build shows them; `ukis` mirrors them to 256",
    "10 m": "its 64 pixels of 10 m as if they were of 30 m: three times too large",
}


def detected(dates: Dates, method: CloudMethod, way: str = "30 m") -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cloud and shadow (n, 32, 32) by a detector on L2A that is shown the patch in one of WAYS."""
    cloud, shadow = np.zeros((2, *dates.classes.shape), bool)
    for i in range(len(dates.days)):
        fine = np.stack([dates.bands[band][i] for band in method.bands]).astype(np.float32) / 10_000
        found = method.detect(at_30_metres(fine) if way == "30 m" else fine, imaged_by(way))
        for result, layer in ((cloud, found.cloud), (shadow, found.shadow)):
            if way == "30 m":
                places = (20 * np.arange(COARSE) + 10) // 30
                result[i] = layer[places[:, None], places[None]]
            else:
                result[i] = layer.reshape(COARSE, 2, COARSE, 2).any(axis=(1, 3))
    return cloud, shadow & ~cloud


def at_30_metres(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 3 x 3 pixels of 10 m (band, y, x), the last ones repeating the edge."""
    padded = np.pad(fine, ((0, 0), (0, 2), (0, 2)), mode="edge")
    means: NDArray[np.float32] = padded.reshape(len(fine), 22, 3, 22, 3).mean(axis=(2, 4))
    return means


def imaged_by(way: str) -> NDArray[np.bool_]:
    """All of the pixels of a way."""
    return np.ones((22, 22) if way == "30 m" else (FINE, FINE), bool)


def with_detector(dates: TileDates, found: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> TileDates:
    """Dates with what a detector says of them."""
    return replace(dates, cloud=found[0], shadow=found[1])


def default_rules(method: str) -> MaskRules:
    """The rules of a recipe that names only the method, and L1C where that needs it."""
    document: dict[str, Any] = {"method": method}
    if "s2cloudless" in method:
        document["l1c"] = {"catalog": "l1c.json"}
    return rules_of(Clouds.model_validate(document))
