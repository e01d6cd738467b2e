"""What a datasheet says of EnMAP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from h2crop_data.cube.index import IndexTables
from h2crop_data.cube.schema import SourceFormat
from h2crop_data.datasheet.facts import cells_of, found_in, recipe_sections
from h2crop_data.datasheet.markdown import count
from h2crop_data.datasheet.quality import band_row
from h2crop_data.datasheet.words import Coordinates, SourceWords

#: Wavelengths whose bands stand for EnMAP: blue, green, red, near infrared, short wave infrared, nm.
SHOWN_WAVELENGTHS = (490.0, 560.0, 665.0, 865.0, 1610.0, 2200.0)


class EnmapWords(SourceWords):
    """EnMAP in a datasheet."""

    def summary(self, source: SourceFormat) -> str:
        return f"EnMAP reflectance in {source.arrays[0].sample_shape[0]} bands"

    def sample(self, source: SourceFormat) -> str:
        return "with EnMAP as one scene saw it"

    def origin(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        return [
            f"- **EnMAP L2A**{found_in(tables, source.name)}. EnMAP data are © DLR, under DLR's licence agreement on "
            "the use of EnMAP data."
        ]

    def bands(self, source: SourceFormat, tables: IndexTables, coordinates: Coordinates) -> list[list[str]]:
        bands = tables.statistics.get("reflectance", {}).get("enmap", [])
        return [band_row(name, bands[place]) for name, place in shown_bands(len(bands), coordinates.get("wavelength"))]

    def pixels(self, source: SourceFormat) -> str:
        return "of EnMAP those without a flag that the recipe counts"

    def limits(self, source: SourceFormat, tables: IndexTables) -> list[str]:
        limits = ["Flagged EnMAP pixels keep their values: `enmap_quality` says which to leave out."]
        if recipe_sections(tables, source.name):
            limits.append(
                "EnMAP lies where its product says, resampled once (cubic) to the grid of 30 m. Its shift against "
                "Sentinel-2 is not measured: usually below a pixel, not always."
            )
        samples = sum(len(one) for one in tables.samples.values())
        cells = sum(cells_of(one) for one in tables.samples.values())
        if 0 < cells < samples:
            limits.append(
                "Where several EnMAP scenes saw one cell in a season, each of its samples holds a copy of everything "
                f"else there is of the cell ({count(samples)} samples, {count(cells)} cells and seasons). Counts of "
                "pixels count every copy."
            )
        return limits


def shown_bands(bands: int, wavelengths: Sequence[float] | None) -> list[tuple[str, int]]:
    """Some EnMAP bands that stand for all, with what they are called: (name, place)."""
    if not bands:
        return []
    if wavelengths is None or len(wavelengths) != bands or min(wavelengths) <= 0:
        places = sorted(
            {round(part * (bands - 1) / (len(SHOWN_WAVELENGTHS) - 1)) for part in range(len(SHOWN_WAVELENGTHS))}
        )
        return [(f"EnMAP, band {place + 1} of {bands}", place) for place in places]
    centres = np.asarray(wavelengths, float)
    places = sorted({int(np.abs(centres - wanted).argmin()) for wanted in SHOWN_WAVELENGTHS})
    return [(f"EnMAP, {centres[place]:.0f} nm", place) for place in places]
