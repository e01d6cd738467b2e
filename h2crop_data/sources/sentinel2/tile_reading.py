"""Masks of a processing tile from its scenes: classes of all dates, then bands of those that can be clear.

Scenes are read over the tile with its margin. Of a date that the classification shows clear nowhere no band is read
where the classification is among the methods: nothing of it can become clear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray

from h2crop_data.catalog.access import repeated
from h2crop_data.catalog.file_against_item import Difference
from h2crop_data.catalog.granule_reader import GranuleReader
from h2crop_data.catalog.item_facts import sentinel2_asset
from h2crop_data.catalog.items import acquired
from h2crop_data.catalog.number_formats import as_classes
from h2crop_data.constants import FINE, REFLECTANCE_FILL
from h2crop_data.errors import PluginError, ReadError, SceneError
from h2crop_data.grid import LONLAT, TILE_MARGIN, ProcessingTile, geobox, meridian_convergence, transformer
from h2crop_data.recipe.model import Sentinel2Settings
from h2crop_data.sentinel2.clouds import MASK_PIXEL, CloudMethod, Detection, to_20_metres
from h2crop_data.sentinel2.date_shifts import measure_shifts
from h2crop_data.sentinel2.edges import UNKNOWN_EDGE, edges_of
from h2crop_data.sentinel2.reflectance import sentinel2_reflectance
from h2crop_data.sentinel2.sun import sun_angles
from h2crop_data.sentinel2.tile_masks import MaskCode, MaskRules, TileDates, mask_tile
from h2crop_data.sources.sentinel2.alignment import rows_of_shifts
from h2crop_data.sources.sentinel2.detectors import BANDS_OF_EDGES, BANDS_OF_RULES, detectors_of, l2a_bands, versions_of
from h2crop_data.sources.sentinel2.looks import CellLook
from h2crop_data.sources.sentinel2.mask_file import MASK_SIDE, masks_as_bytes
from h2crop_data.sources.sentinel2.masks import NOT_IMAGED
from h2crop_data.sources.sentinel2.refinement import refinement_of
from h2crop_data.sources.units import ProvisionalResult

#: Pixels of 20 m in the margin, and along a tile with it; rows and columns of the tile itself.
MARGIN = TILE_MARGIN // MASK_PIXEL
SIDE_WITH_MARGIN = MASK_SIDE + 2 * MARGIN
INNER = (slice(MARGIN, MARGIN + MASK_SIDE), slice(MARGIN, MARGIN + MASK_SIDE))
#: Pixels of 10 m along one of 20 m; their rows and columns of the tile itself, and one more on each side.
FINER = MASK_PIXEL // FINE
AROUND_INNER = (slice(MARGIN * FINER - 1, (MARGIN + MASK_SIDE) * FINER + 1),) * 2
#: Ground is cut to what was imaged in whole steps of so many pixels of 20 m: 60 m.
CUT_STEP = 3
#: Classes of the scene classification that never become clear where it is among the methods, unless a recipe calls them
#: clear: saturated, clouds, snow.
HOPELESS = (1, 8, 9, 10, 11)
#: Columns of the table of dates that are shares of the imaged pixels, and the codes they count.
SHARES = {code.name.lower(): code for code in MaskCode if code != MaskCode.NOT_IMAGED}
#: Waits for the numbers of a band.
Numbers = Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class TileTask:
    """What masks of a tile are made of."""

    settings: Sentinel2Settings
    rules: MaskRules
    tile: ProcessingTile
    #: In order of time.
    looks: tuple[CellLook, ...]
    items: Mapping[str, pystac.Item]
    #: L2A and L1C item -> what is added to its numbers.
    offsets: Mapping[str, int]
    #: L2A item -> the L1C items that show the same; None where no method needs L1C.
    l1c: Mapping[str, tuple[str, ...]] | None = None
    l1c_items: Mapping[str, pystac.Item] = field(default_factory=dict)

    @property
    def offset_by_item(self) -> set[str]:
        """The items whose offset the recipe does not declare."""
        l1c = self.settings.clouds.l1c
        of_l1c = self.l1c_items if l1c is not None and l1c.offset == "auto" else {}
        return {*(self.items if self.settings.offset == "auto" else {}), *of_l1c}


def make_masks(task: TileTask, needs: Sequence[Path]) -> bytes:
    """The masks of a tile, as `mask_file` keeps them; provisional where a scene could not be read.

    Raises ReadError, SceneError where gaps are not recorded.
    """
    with GranuleReader(task.settings.connections, offset_by_item=task.offset_by_item) as reader:
        maker = TileMaker(task, reader)
        masks = maker.masks()
    return ProvisionalResult(masks) if maker.has_gaps else masks


@dataclass
class LookOnTile:
    """What a look shows of a tile with its margin."""

    look: CellLook
    #: Scene classification (y, x) at 20 m, 0 not imaged, and which item of the look shows a pixel.
    classes: NDArray[np.uint8]
    source: NDArray[np.uint8]
    gaps: list[str] = field(default_factory=list)
    #: Why it is not used; empty where it is.
    skipped: str = ""
    #: L1C items that are looked at, in the order in which they are asked, and items that there is no L1C of.
    l1c: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    cloud_probability: float | None = None

    @property
    def shown(self) -> list[str]:
        """The items that show something, in the order in which they are asked."""
        return [self.look.items[place] for place in np.unique(self.source[self.classes > 0]).tolist()]


class TileMaker:
    """Makes the masks of one tile."""

    def __init__(self, task: TileTask, reader: GranuleReader) -> None:
        self.task, self.reader = task, reader
        self.grid = geobox(task.tile.bounds_with_margin, task.tile.epsg, FINE)
        self.detectors = detectors_of(task.settings.clouds)
        #: The bands of L2A that are read: those of the rules, and those of detectors.
        self.bands = l2a_bands(task.settings)
        #: Edges (y, x) at 10 m in what each date shows of the tile, by its place among the looks.
        self.edges: dict[int, NDArray[np.uint8]] = {}
        #: Whether some scene could not be read.
        self.has_gaps = False

    def masks(self) -> bytes:
        """The masks. Raises ReadError, SceneError."""
        looks = self.looks()
        box = imaged_box([one.classes for one in looks])
        stack = (len(looks), box[0].stop - box[0].start, box[1].stop - box[1].start)
        dates = TileDates(
            days=np.array([one.look.moment.toordinal() for one in looks], np.int32),
            sun=np.array([self.sun(one) for one in looks], np.float64).reshape(-1, 2),
            classes=np.zeros(stack, np.uint8),
            blue=np.full(stack, REFLECTANCE_FILL, np.int16),
            infrared=np.full(stack, REFLECTANCE_FILL, np.int16),
            swir=np.full(stack, REFLECTANCE_FILL, np.int16),
            cloud=np.zeros(stack, bool),
            shadow=np.zeros(stack, bool),
        )
        wanted = [place for place, one in enumerate(looks) if self.can_be_clear(one.classes)]
        begun = self.begin_bands(looks[wanted[0]]) if wanted else {}
        for place, following in zip_longest(wanted, wanted[1:]):
            waiting, of_look = begun, looks[place]
            # While clouds of one date are looked for, the next is read.
            begun = {} if following is None else self.begin_bands(looks[following])
            self.look_for_clouds(of_look, waiting, place, dates, box)
            # A year of a tile has more files than a process may have open.
            self.close(waiting)
        for place, one in enumerate(looks):
            dates.classes[place] = one.classes[box]
        whole = np.zeros((len(looks), SIDE_WITH_MARGIN, SIDE_WITH_MARGIN), np.uint8)
        if dates.classes.size:
            whole[:, *box] = mask_tile(dates, self.task.rules)
        inner = whole[:, *INNER]
        rows = [self.row(one, of_date, sun) for one, of_date, sun in zip(looks, inner, dates.sun.tolist(), strict=True)]
        # A year of bands; shifts take as much again.
        del dates
        if self.task.settings.alignment != "none":
            shifts = self.shifts(inner == MaskCode.CLEAR)
            rows = [
                {**row, **of_date, "refined": refinement_of(self.task.items[name] for name in one.look.items)}
                for row, of_date, one in zip(rows, shifts, looks, strict=True)
            ]
        return masks_as_bytes(self.task.tile, rows, list(inner), self.differences())

    def differences(self) -> set[Difference]:
        """Where items say something else of their files that were read than these have."""
        items = [*self.task.items.values(), *self.task.l1c_items.values()]
        return set().union(*(self.reader.differences(item, item.assets) for item in items))

    def shifts(self, clear: NDArray[np.bool_]) -> list[dict[str, Any]]:
        """How far off each date lies, as columns of the table of dates. clear: (n, y, x) at 20 m, of the tile."""
        nothing = np.full((MASK_SIDE * FINER, MASK_SIDE * FINER), UNKNOWN_EDGE, np.uint8)
        edges = [self.edges.get(place, nothing) for place in range(len(clear))]
        return rows_of_shifts(measure_shifts(edges, list(clear), FINE))

    def can_be_clear(self, classes: NDArray[np.uint8]) -> bool:
        """Whether any pixel of a date can be clear, by its classification."""
        rules = self.task.rules
        never = set(HOPELESS) - set(rules.clear_classes) if rules.uses_classes else set()
        return not np.isin(classes, [NOT_IMAGED, *never]).all()

    def looks(self) -> list[LookOnTile]:
        """The looks with their classifications."""
        begun = [self.begin(look.items[0], "SCL") for look in self.task.looks]
        looks = []
        for look, first in zip(self.task.looks, begun, strict=True):
            looks.append(self.look_at(look, first))
            self.close((name, "SCL") for name in look.items)
        return looks

    def look_at(self, look: CellLook, first: Numbers) -> LookOnTile:
        """A look with its classification, from the items that show it. first: what waits for that of the first item."""
        classes = np.zeros((SIDE_WITH_MARGIN, SIDE_WITH_MARGIN), np.uint8)
        one = LookOnTile(look, classes, np.zeros_like(classes))
        for place, name in enumerate(look.items):
            unseen = classes == 0
            if not unseen.any():
                break
            numbers = self.waited(one, name, first if not place else self.begin(name, "SCL"))
            if numbers is not None:
                of_item = as_classes(every_20_metres(numbers))
                seen = unseen & (of_item > 0)
                classes[seen], one.source[seen] = of_item[seen], place
        return one

    def begin_bands(self, one: LookOnTile) -> dict[tuple[str, str], Numbers]:
        """Begin to read the bands of a look, of L2A and L1C; gives what waits for each by item and band."""
        names = [(name, band) for name in one.shown for band in self.bands]
        of_l1c = [band for detector in self.detectors if detector.level == "L1C" for band in detector.bands]
        if of_l1c:
            one.lacking = self.without_l1c(one)
            one.l1c = [] if one.lacking else list(dict.fromkeys(self.l1c_of(one)))
            names += [(name, band) for name in one.l1c for band in of_l1c]
        return {(name, band): self.begin(name, band) for name, band in dict.fromkeys(names)}

    def look_for_clouds(
        self,
        one: LookOnTile,
        begun: Mapping[tuple[str, str], Numbers],
        place: int,
        dates: TileDates,
        box: tuple[slice, slice],
    ) -> None:
        """Take the bands of a look into the dates, and let the detectors look at it."""
        bands = {band: self.mosaic(one, band, begun) for band in self.bands}
        for target, band in zip((dates.blue, dates.infrared, dates.swir), BANDS_OF_RULES, strict=True):
            if band in bands:
                target[place] = averaged(bands[band], MASK_PIXEL)[box]
        if self.task.settings.alignment != "none":
            blue, infrared = (averaged(bands[band], FINE)[AROUND_INNER] for band in BANDS_OF_EDGES)
            self.edges[place] = edges_of(blue, infrared)[1:-1, 1:-1]
        for detector in self.detectors:
            seen = (
                [bands[band] for band in detector.bands]
                if detector.level == "L2A"
                else self.l1c_bands(one, detector, begun)
            )
            if seen is None:
                # Nothing is said of ground that a method of the recipe did not look at.
                one.classes[:] = NOT_IMAGED
                one.cloud_probability = None
                return
            found, imaged = self.detected(one, detector, seen)
            one.classes[~to_20_metres(imaged, detector.pixel)] = NOT_IMAGED
            dates.cloud[place] |= to_20_metres(found.cloud, detector.pixel)[box]
            dates.shadow[place] |= to_20_metres(found.shadow, detector.pixel)[box]
            if found.probability is not None:
                of_tile = to_20_metres(found.probability, detector.pixel)[INNER][one.classes[INNER] > 0]
                if of_tile.size:
                    one.cloud_probability = max(one.cloud_probability or 0.0, float(of_tile.mean()))

    def detected(
        self, one: LookOnTile, detector: CloudMethod, bands: Sequence[NDArray[np.int16]]
    ) -> tuple[Detection, NDArray[np.bool_]]:
        """What a detector finds, and where it had something to look at, (y, x) of its pixels.

        bands: reflectance x 10000 (y, x) in its order, in pixels of 10 or 20 m. Raises PluginError that names method
        and date for whatever the detector raises.
        """
        values = np.stack([averaged(band, detector.pixel) for band in bands])
        imaged = (values != REFLECTANCE_FILL).all(axis=0)
        reflectance = np.where(imaged, values, 0).astype(np.float32) / np.float32(10_000)
        try:
            found = detector.detect(reflectance, imaged)
            if not found.cloud.shape == found.shadow.shape == imaged.shape:
                raise ValueError(f"expected masks of {imaged.shape} pixels, got {found.cloud.shape}")
        except Exception as error:
            raise PluginError(
                f"the cloud method {detector.name} ({detector.version}) failed on {one.look.moment:%Y-%m-%d} over "
                f"{self.task.tile.id}: {type(error).__name__}: {error}"
            ) from error
        return found, imaged

    def l1c_of(self, one: LookOnTile) -> list[str]:
        """The L1C items of a look, in the order in which they are asked."""
        assert self.task.l1c is not None, "L1C was not planned"
        return [other for name in one.shown for other in self.task.l1c[name]]

    def without_l1c(self, one: LookOnTile) -> list[str]:
        """The items of a look that there is no L1C of."""
        assert self.task.l1c is not None, "L1C was not planned"
        return [name for name in one.shown if not self.task.l1c[name]]

    def l1c_bands(
        self, one: LookOnTile, detector: CloudMethod, begun: Mapping[tuple[str, str], Numbers]
    ) -> list[NDArray[np.int16]] | None:
        """The bands of a look's L1C; None where it is not there or cannot be read: the look is not used then."""
        if one.lacking:
            one.skipped = f"no L1C of {', '.join(one.lacking)}"
            return None
        bands = []
        for band in detector.bands:
            layers = [self.reflectance(one, name, band, begun) for name in one.l1c]
            if any(layer is None for layer in layers):
                one.skipped = f"its L1C cannot be read: {', '.join(name for name in one.gaps if name in one.l1c)}"
                # Samples name L2A items.
                one.gaps += [name for name in one.shown if name not in one.gaps]
                return None
            bands.append(first_values([layer for layer in layers if layer is not None]))
        return bands

    def mosaic(self, one: LookOnTile, band: str, begun: Mapping[tuple[str, str], Numbers]) -> NDArray[np.int16]:
        """A band of a look, reflectance x 10000 (y, x), in pixels of 10 or 20 m: each from the item that shows it."""
        layers = []
        for name in one.shown:
            found = self.reflectance(one, name, band, begun)
            if found is not None:
                shown = repeated(one.source == one.look.items.index(name), len(found) // SIDE_WITH_MARGIN)
                layers.append(np.where(shown, found, np.int16(REFLECTANCE_FILL)))
        return first_values(layers)

    def reflectance(
        self, one: LookOnTile, name: str, band: str, begun: Mapping[tuple[str, str], Numbers]
    ) -> NDArray[np.int16] | None:
        """A band of an item as reflectance x 10000, in pixels of 10 or 20 m; None for one that cannot be read."""
        numbers = self.waited(one, name, begun[name, band])
        if numbers is None:
            return None
        wide = numbers.astype(np.uint16) if numbers.dtype == np.uint8 else numbers
        return sentinel2_reflectance(wide, self.task.offsets[name])

    def begin(self, name: str, band: str) -> Numbers:
        """Begin to read an item's band over the tile with its margin; gives what waits for it."""
        item = self.item(name)
        key = sentinel2_asset(item, band)

        def read() -> NDArray[Any]:
            found = self.reader.read(item, key, self.grid, "nearest")
            return self.reader.warp(item, key, self.grid, "nearest") if found is None else found

        return self.reader.begin(read, item.assets[key].href)

    def item(self, name: str) -> pystac.Item:
        """An item of L2A or L1C; `select.py` refuses items of both that share an id."""
        return self.task.l1c_items.get(name) or self.task.items[name]

    def close(self, bands: Iterable[tuple[str, str]]) -> None:
        """Close the files of some bands, each as item and band, that are not read any more."""
        items = [(self.item(name), band) for name, band in bands]
        self.reader.close(item.assets[sentinel2_asset(item, band)].href for item, band in items)

    def waited(self, one: LookOnTile, name: str, numbers: Numbers) -> NDArray[Any] | None:
        """Numbers that are read; None for those of an item that cannot be read: a gap, whose ground is not seen.

        Raises ReadError, SceneError where gaps are not recorded.
        """
        if name in one.gaps:
            return None
        try:
            return numbers()
        except (ReadError, SceneError):
            if self.task.settings.gaps == "fail":
                raise
        self.has_gaps = True
        one.gaps.append(name)
        if name in one.look.items:
            one.classes[one.source == one.look.items.index(name)] = NOT_IMAGED
        return None

    def sun(self, one: LookOnTile) -> tuple[float, float]:
        """Azimuth from the grid's north and elevation of the sun over the middle of the tile, in degrees."""
        west, south, east, north = self.task.tile.bounds
        crs = f"EPSG:{self.task.tile.epsg}"
        longitude, latitude = transformer(crs, LONLAT).transform((west + east) / 2, (south + north) / 2)
        # A datatake takes up to 40 minutes: the time of the granule, not of its beginning.
        azimuth, elevation = sun_angles(acquired(self.task.items[one.look.items[0]]), longitude, latitude)
        return (azimuth - meridian_convergence(crs, longitude, latitude)) % 360, elevation

    def row(self, one: LookOnTile, codes: NDArray[np.uint8], sun: Sequence[float]) -> dict[str, Any]:
        """A row of the table of dates. codes: of the tile."""
        imaged = int((codes != MaskCode.NOT_IMAGED).sum())
        counts = np.bincount(codes.ravel(), minlength=len(MaskCode))
        return {
            "tile": self.task.tile.id,
            "time": one.look.moment.isoformat(),
            "items": list(one.look.items),
            "l1c": sorted(one.l1c),
            "methods": [f"{name} {version}".strip() for name, version in versions_of(self.task.settings.clouds)],
            "sun_azimuth": round(sun[0], 3),
            "sun_elevation": round(sun[1], 3),
            "imaged": round(imaged / codes.size, 6),
            **{name: round(counts[code] / imaged, 6) if imaged else 0.0 for name, code in SHARES.items()},
            "cloud_probability": None if one.cloud_probability is None else round(one.cloud_probability, 4),
            "skipped": one.skipped,
            "gaps": sorted(one.gaps),
        }


def imaged_box(layers: Sequence[NDArray[np.uint8]]) -> tuple[slice, slice]:
    """Rows and columns around the pixels that some layer images (y, x), in whole steps of 60 m; empty where none."""
    imaged = np.zeros_like(layers[0], bool) if layers else np.zeros((0, 0), bool)
    for layer in layers:
        imaged |= layer > 0
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(imaged.any(axis=axis))
        first, last = (int(places[0]), int(places[-1])) if len(places) else (0, -1)
        spans.append(slice(first // CUT_STEP * CUT_STEP, -(-(last + 1) // CUT_STEP) * CUT_STEP))
    return spans[0], spans[1]


def every_20_metres(numbers: NDArray[Any]) -> NDArray[Any]:
    """Classes over a tile with its margin, in pixels of 10 or 20 m, at 20 m: the upper left one of finer pixels."""
    times = len(numbers) // SIDE_WITH_MARGIN
    return numbers[::times, ::times]


def first_values(layers: Sequence[NDArray[np.int16]]) -> NDArray[np.int16]:
    """Layers of one ground in pixels of 10 or 20 m as one: each pixel of the first that has a value, at the finest."""
    if not layers:
        return np.full((SIDE_WITH_MARGIN, SIDE_WITH_MARGIN), REFLECTANCE_FILL, np.int16)
    finest = max(map(len, layers))
    whole = repeated(layers[0], finest // len(layers[0])).copy()
    for layer in layers[1:]:
        np.copyto(whole, repeated(layer, finest // len(layer)), where=whole == REFLECTANCE_FILL)
    return whole


def averaged(pixels: NDArray[np.int16], pixel: int) -> NDArray[np.int16]:
    """Reflectance x 10000 over a tile with its margin in pixels of `pixel` metres, from pixels of 10 or 20 m: means.

    A pixel has a value where all of its parts have one.
    """
    own = MASK_PIXEL * SIDE_WITH_MARGIN // len(pixels)
    if pixel % own:
        pixels, own = repeated(pixels, own // FINE), FINE
    times = pixel // own
    if times == 1:
        return pixels
    blocks = pixels.reshape(len(pixels) // times, times, -1, times)
    means: NDArray[np.int16] = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.int16)
    means[(blocks == REFLECTANCE_FILL).any(axis=(1, 3))] = REFLECTANCE_FILL
    return means
