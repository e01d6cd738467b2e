"""The options of an import, and their record in the store."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from h2crop_data.constants import PUBLISHED_OFFSET
from h2crop_data.errors import UsageError
from h2crop_data.published.blocks import IMPORT_ALGORITHM, PublishedBlock
from h2crop_data.published.layout import CELL_SIZE, ENMAP_BANDS, Unlisted
from h2crop_data.published.places import SceneCatalog

#: The name under which the recipe of an imported season says how it was imported.
MARK = "published"


@dataclass(frozen=True)
class ImportOptions:
    """How a published folder is imported."""

    #: Whether the 1000 of its Sentinel-2 numbers is taken away.
    remove_offset: bool = False
    unlisted: Unlisted = "refuse"
    #: Where the lists are, if not in the folder.
    lists: Path | None = None
    #: ItemCollections of EnMAP scenes.
    catalogs: tuple[Path, ...] = ()
    #: A file with centre wavelength and width of each band.
    wavelengths: Path | None = None
    #: Samples in a block.
    capacity: int = 16

    @property
    def removed(self) -> int:
        """What is taken from the Sentinel-2 numbers."""
        return PUBLISHED_OFFSET if self.remove_offset else 0


#: Centre wavelength and full width at half maximum of each band in nm; 0 is unknown.
Spectrum = tuple[list[float], list[float]]


def read_spectrum(path: Path | None) -> Spectrum:
    """The bands of a text file: a line a band in the order of `EnMAP_data`, centre and (if known) width in nm.

    Numbers are separated by a comma or spaces. Without a file everything is 0. Raises UsageError for other contents.
    """
    if path is None:
        return [0.0] * ENMAP_BANDS, [0.0] * ENMAP_BANDS
    try:
        lines = [line.replace(",", " ").split() for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [[float(number) for number in line] for line in lines if line]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--wavelengths {path}: {error}; expected one line per band: centre and width in nm"
        ) from error
    if len(rows) != ENMAP_BANDS or any(len(row) not in (1, 2) for row in rows):
        raise UsageError(f"--wavelengths {path}: expected {ENMAP_BANDS} lines of one or two numbers, got {len(rows)}")
    centres, widths = [row[0] for row in rows], [row[1] if len(row) == 2 else 0.0 for row in rows]
    numbers = [*centres, *widths]
    growing = all(one < other for one, other in pairwise(centres))
    if not growing or centres[0] <= 0 or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise UsageError(f"--wavelengths {path}: expected centres in nm that increase from band to band")
    return centres, widths


def pinned_import(
    options: ImportOptions, spectrum: Spectrum, scenes: SceneCatalog | None, blocks: Sequence[PublishedBlock]
) -> dict[str, Any]:
    """The record of an import that a later run is compared with: settings, and what goes into which block."""
    catalog = None if scenes is None else {name: repr(item) for name, item in sorted(scenes.items())}
    return {
        "algorithm": IMPORT_ALGORITHM,
        "offset removed": options.removed,
        "block capacity": options.capacity,
        "wavelengths": json_digest(spectrum),
        "catalog": json_digest(catalog),
        "samples": json_digest([[block.season, block.number, block.split, block.ids] for block in blocks]),
        "blocks": {str(season): count for season, count in sorted(Counter(b.season for b in blocks).items())},
    }


def json_digest(value: Any) -> str:
    """The SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def import_recipe(pinned: dict[str, Any]) -> dict[str, Any]:
    """What the index says instead of a recipe: that the season was imported, and by which rules."""
    removed = int(pinned["offset removed"])
    return {
        "name": "h2crop-published",
        "description": "Imported from the published H2Crop dataset (HDF5).",
        "cell_size": CELL_SIZE,
        MARK: {
            "algorithm": pinned["algorithm"],
            "s2_offset": PUBLISHED_OFFSET - removed,
            "s2_offset_removed": removed,
            "s2_clear": "1 where the file has a value; the dataset does not tell clouds",
            "flagged": ["cloud"],
            "wavelengths": pinned["wavelengths"],
            "catalog": pinned["catalog"],
        },
    }
