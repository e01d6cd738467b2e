"""Which readings the blocks of a season need of EnMAP: each scene once, over all cells that it makes samples of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pystac

from h2crop_data.catalog.access import file_stamp
from h2crop_data.constants import COARSE
from h2crop_data.grid import Cell
from h2crop_data.shift import NO_SHIFT, Shift
from h2crop_data.sources.enmap.scene import SceneFacts
from h2crop_data.sources.readings import Reading
from h2crop_data.sources.scenes import kept_identity

#: Raised whenever the numbers that cells get from the same scene change: the version of EnMAP's arrays.
CUBE_ALGORITHM = 2
#: Bytes of a number of a band, of a pixel's flags, and of its mask.
NUMBER_BYTES, FLAG_BYTES, MASK_BYTES = 2, 2, 1


@dataclass(frozen=True)
class MaskOfScene:
    """The mask of a scene."""

    #: Of the unit that makes it.
    id: str
    #: Its result; None where it was not run, because nothing is to be built of the scene.
    file: Path | None


@dataclass(frozen=True)
class EnmapReading:
    """A scene over some cells, and what has to be known of it."""

    scene: pystac.Item
    facts: SceneFacts
    cells: tuple[Cell, ...]
    #: Size and time of change of the scene's files on this machine.
    stamps: Mapping[str, list[int] | None]
    #: Number of a band -> how far its image lies off; those without one lie where the product says.
    shifts: Mapping[int, Shift] = field(default_factory=dict)
    #: Its mask; None where the recipe wants none.
    mask: MaskOfScene | None = None

    @property
    def id(self) -> str:
        """SHA-256 of all that makes its pixels."""
        plain = [
            CUBE_ALGORITHM,
            kept_identity(self.scene),
            dict(self.stamps),
            [asdict(band) for band in self.facts.bands],
            [[shift.east, shift.north] for shift in self.shifts_of_bands],
            [cell.id for cell in self.cells],
            *([] if self.mask is None else [self.mask.id]),
        ]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

    @property
    def shifts_of_bands(self) -> list[Shift]:
        """The shift of each stored band."""
        return [self.shifts.get(band.number, NO_SHIFT) for band in self.facts.bands]

    def only(self, cells: set[Cell]) -> EnmapReading:
        """The same for some of the cells."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell in cells))


def scene_reading(
    scene: pystac.Item,
    facts: SceneFacts,
    cells: Sequence[Cell],
    shifts: Mapping[int, Shift] | None = None,
    mask: MaskOfScene | None = None,
) -> EnmapReading:
    """The reading of a scene over some cells, in the order of these."""
    stamps = {key: file_stamp(asset.href) for key, asset in sorted(scene.assets.items())}
    return EnmapReading(scene, facts, tuple(sorted(cells)), stamps, shifts or {}, mask)


def as_enmap_reading(reading: EnmapReading, season: int) -> Reading:
    """A reading as the pipeline knows it."""
    pixels = sum((cell.size // COARSE) ** 2 for cell in reading.cells)
    size = pixels * (NUMBER_BYTES * len(reading.facts.bands) + FLAG_BYTES + (MASK_BYTES if reading.mask else 0))
    return Reading("enmap", reading.id, season, reading.cells, size, reading, reading.scene.id)
