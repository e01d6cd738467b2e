"""Units of work that show a processing tile near a day: medians of clear dates, each where its shift says it lies.

The result is a NumPy archive: `bands` (6, 1024, 1024) int16, reflectance x 10000 of REFERENCE_BANDS in pixels of 15 m;
`dates` (1024, 1024) uint8, how many dates show a pixel; `facts`, JSON: `dates` (the days), `aligned` (of these, whose
shift is corrected or small), `frame_sd` (m along an axis), `gaps` (scenes that could not be read).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.catalog.access import file_stamp, repeated
from h2crop_data.catalog.granule_reader import GranuleReader
from h2crop_data.catalog.item_facts import asset_of_band, sentinel2_asset
from h2crop_data.constants import FINE, REFLECTANCE_FILL
from h2crop_data.errors import ReadError, SceneError
from h2crop_data.grid import TILE_SIZE, geobox
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sentinel2.clouds import MASK_PIXEL
from h2crop_data.sentinel2.composite import Observation, median_values
from h2crop_data.sentinel2.reference import (
    REFERENCE_BANDS,
    KnownDate,
    at_15_metres,
    counts_at_15_metres,
    dates_to_take,
    frame_sd,
)
from h2crop_data.sentinel2.reflectance import sentinel2_reflectance
from h2crop_data.shift import APPLIED, NOT_NEEDED, Shift, where_it_lies
from h2crop_data.sources.scenes import kept_identity
from h2crop_data.sources.sentinel2.alignment import DECISION, ONLY_REPORTED, Alignment
from h2crop_data.sources.sentinel2.mask_file import TileMasks
from h2crop_data.sources.sentinel2.shifted_reading import read_shifted
from h2crop_data.sources.sentinel2.tile_reading import TileTask
from h2crop_data.sources.sentinel2.work import reference_work
from h2crop_data.sources.units import ProvisionalResult, Unit

#: Raised whenever the same dates and masks give another picture.
REFERENCE_ALGORITHM = 1
REFERENCE_STEP = "sentinel2 reference"


@dataclass(frozen=True)
class ReferenceTask:
    """A tile with its dates, and the moment near which it is wanted."""

    tile: TileTask
    moment: datetime
    alignment: Alignment


def reference_unit(task: TileTask, masks: Unit, moment: datetime) -> Unit:
    """The unit of work that shows a tile near a moment. masks: the unit that masks the tile."""
    items = [item for _, item in sorted(task.items.items())]
    keys = [[asset_of_band(item, band) for band in REFERENCE_BANDS] for item in items]
    stamps = [
        [key and file_stamp(item.assets[key].href) for key in of_item]
        for item, of_item in zip(items, keys, strict=True)
    ]
    alignment = alignment_for_reference(task.settings)
    return Unit(
        kind="tile",
        step=REFERENCE_STEP,
        name=f"{task.tile.id} near {moment:%Y-%m-%d}",
        algorithm=REFERENCE_ALGORITHM,
        inputs={"day": f"{moment:%Y-%m-%d}", "items": [kept_identity(item) for item in items]},
        settings={"alignment": alignment.mode, "gaps": task.settings.gaps},
        # Scenes of one day share it.
        compute=partial(make_reference, ReferenceTask(task, noon(moment), alignment)),
        needs=(masks,),
        stamp=[stamps, masks.stamp] if masks.stamp or any(stamp for one in stamps for stamp in one) else None,
        work=partial(reference_work, task),
    )


def noon(moment: datetime) -> datetime:
    """The middle of a moment's day."""
    return moment.replace(hour=12, minute=0, second=0, microsecond=0)


def alignment_for_reference(settings: Sentinel2Settings) -> Alignment:
    """What is done with shifts here: where a recipe makes them good, the small ones too that composites can bear."""
    return Alignment(settings.alignment, 0.0 if settings.alignment == "apply" else settings.alignment_limit)


def make_reference(task: ReferenceTask, needs: Sequence[Path]) -> bytes:
    """The picture of a tile; provisional where a scene could not be read and gaps are recorded.

    Raises ReadError, SceneError where they are not.
    """
    masks = TileMasks(needs[0], task.alignment)
    known = [known_date(row, task) for row in masks.dates]
    unreadable: dict[int, str] = {}
    with GranuleReader(task.tile.settings.connections, offset_by_item=task.tile.offset_by_item) as reader:
        while True:
            usable = [place for place in range(len(known)) if place not in unreadable]
            taken = [usable[place] for place in dates_to_take([known[place] for place in usable])]
            maker = ReferenceMaker(task, masks, reader, taken)
            try:
                bands, dates = maker.picture()
                break
            except UnreadableDateError as failure:
                if task.tile.settings.gaps == "fail":
                    raise failure.error from failure
                unreadable[failure.place] = failure.item
    of_taken = [known[place] for place in taken]
    facts = {
        "dates": [masks.dates[place]["time"] for place in taken],
        "aligned": sum(date.sd is not None for date in of_taken),
        "gaps": sorted({*unreadable.values(), *masks.gaps}),
        "frame_sd": frame_sd(of_taken, sum(date.sd is not None for date in known)),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, bands=bands, dates=dates, facts=np.array(json.dumps(facts)))
    result = buffer.getvalue()
    return ProvisionalResult(result) if facts["gaps"] else result


def known_date(row: dict[str, Any], task: ReferenceTask) -> KnownDate:
    """What the table of dates says of one; one whose items lack a band shows nothing."""
    items = [task.tile.items[name] for name in row["items"]]
    has_bands = all(asset_of_band(item, band) is not None for item in items for band in REFERENCE_BANDS)
    usable = not row["skipped"] and row["clear"] and has_bands
    days = (datetime.fromisoformat(row["time"]) - task.moment).total_seconds() / 86400
    decision = row.get(DECISION)
    sd: float | None = None
    if decision == APPLIED:
        sd = row["shift_sd"]
    elif decision in (NOT_NEEDED, ONLY_REPORTED):
        # It is used where it lies.
        sd = hypot(row["shift_sd"], hypot(row["shift_east"], row["shift_north"]) / 2**0.5)
    return KnownDate(days, row["clear"] * row["imaged"] if usable else 0.0, sd)


class UnreadableDateError(Exception):
    """A date cannot be read."""

    def __init__(self, place: int, item: str, error: ReadError | SceneError) -> None:
        super().__init__(str(error))
        self.place, self.item, self.error = place, item, error


class ReferenceMaker:
    """Makes the picture of one tile of some of its dates."""

    def __init__(self, task: ReferenceTask, masks: TileMasks, reader: GranuleReader, taken: Sequence[int]) -> None:
        """taken: places of dates in the masks."""
        self.task, self.masks, self.reader, self.taken = task, masks, reader, taken
        self.grid = geobox(task.tile.tile.bounds, task.tile.tile.epsg, FINE)

    def picture(self) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """Bands (band, y, x) and dates (y, x) at 15 m. Raises UnreadableDateError."""
        clear = {place: self.masks.clear_on_ground(place) for place in self.taken}
        bands, dates = [], []
        for band in REFERENCE_BANDS:
            layers = {place: self.layer(place, band) for place in self.taken}
            side = max(map(len, layers.values()), default=TILE_SIZE // MASK_PIXEL)
            looks = []
            for place, layer in layers.items():
                whole = repeated(layer, side // len(layer))
                seen = repeated(clear[place], side // len(clear[place])) & (whole != REFLECTANCE_FILL)
                looks.append(Observation(1, whole[None], seen))
            pixel = TILE_SIZE // side
            median = median_values(looks)[0] if looks else np.full((side, side), REFLECTANCE_FILL, np.int16)
            count = np.zeros((side, side), np.uint8)
            for look in looks:
                count += look.clear
            bands.append(at_15_metres(median, pixel))
            dates.append(counts_at_15_metres(count, pixel))
        return np.stack(bands), np.min(dates, axis=0)

    def layer(self, place: int, band: str) -> NDArray[np.int16]:
        """A band of a date, reflectance x 10000 (y, x) of 10 or 20 m; each pixel of the first item that shows it."""
        row = self.masks.dates[place]
        shift = self.masks.shift(row["items"][0])
        whole: NDArray[np.int16] | None = None
        for name in row["items"]:
            try:
                found = self.of_item(name, band, shift)
            except (ReadError, SceneError) as error:
                raise UnreadableDateError(place, name, error) from error
            if whole is None:
                whole = found
            else:
                side = max(len(whole), len(found))
                whole, found = repeated(whole, side // len(whole)), repeated(found, side // len(found))
                whole = np.where(whole == REFLECTANCE_FILL, found, whole)
            if (whole != REFLECTANCE_FILL).all():
                break
        assert whole is not None, "a date has items"
        return whole

    def of_item(self, name: str, band: str, shift: Shift) -> NDArray[np.int16]:
        """A band of an item over the tile, reflectance x 10000 (y, x) of 10 or 20 m."""
        item = self.task.tile.items[name]
        key = sentinel2_asset(item, band)
        try:
            if shift:
                found = read_shifted(self.reader, item, key, self.grid, shift)
            else:
                found = self.reader.read(item, key, self.grid, "nearest")
            if found is None:
                found = self.reader.warp(item, key, where_it_lies(self.grid, shift), "cubic")
        finally:
            self.reader.close([item.assets[key].href])
        wide = found.astype(np.uint16) if found.dtype == np.uint8 else found
        return sentinel2_reflectance(wide, self.task.tile.offsets[name])
