"""Where samples lie: a sample's corner against its cell, its outline, and its split square."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from h2crop_data.grid import LONLAT, Cell, in_own_zone, split_squares, transformer
from h2crop_data.validation.findings import NAMED, Findings, error, first, warning
from h2crop_data.validation.release import Release

#: Outlines may differ by so many degrees (a tenth of a metre): versions of PROJ differ in the last digits.
OUTLINE_TOLERANCE = 1e-6


def check_georeferencing(release: Release) -> Findings:
    """Every sample lies where its cell does, or where an import placed it."""
    for season in release.seasons:
        samples = release.samples(season)
        if samples is None or not len(samples):
            continue
        path, remedy = release.index_path(f"samples-{season}"), release.remedies.wrong_index()
        on_lattice = samples["on_lattice"].to_numpy(bool) if "on_lattice" in samples else np.ones(len(samples), bool)
        placed = np.isfinite(samples[["x0", "y0"]].to_numpy(float)).all(axis=1)
        wrong = {
            "has no place": on_lattice & ~placed,
            "its outline is not the square at its corner": placed & ~has_outline(release, samples, placed),
            **lattice_problems(release, season, samples, on_lattice & placed),
        }
        for told, where in wrong.items():
            names = samples["sample"].to_numpy()[where].tolist()
            for name in names[:NAMED]:
                yield error("georeferencing", f"{path}, sample {name}", told, remedy)
            if len(names) > NAMED:
                yield error("georeferencing", path, f"{len(names)} samples: {told}", remedy)
        vague = samples["sample"][~on_lattice & ~placed].tolist()
        if vague:
            told = f"{len(vague)} samples lie somewhere in their tile or scene, so nothing proves where: {first(vague)}"
            remedy = "import again with --catalog and the EnMAP items of their scenes"
            yield warning("georeferencing", path, told, remedy)


def lattice_problems(
    release: Release, season: int, samples: pd.DataFrame, rows: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """What a sample of the lattice must be -> where it is not."""
    cells = [parsed(name) if row else None for name, row in zip(samples["cell"], rows, strict=True)]
    known = np.array([cell is not None for cell in cells], bool)
    facts = np.array([(cell.epsg, cell.size, *cell.corner) if cell else (0, 0, 0, 0) for cell in cells], float)
    stored = samples[["epsg", "x0", "y0"]].to_numpy(float)
    problems = {
        "its cell is no id of a cell": rows & ~known,
        f"its cell has not the {release.layout.cell_size} m of the store": known
        & (facts[:, 1] != release.layout.cell_size),
        "its epsg is not that of its cell": known & (facts[:, 0] != stored[:, 0]),
        "its corner (x0, y0) is not that of its cell": known & (facts[:, 2:] != stored[:, 1:]).any(axis=1),
        "its cell does not lie wholly in its own UTM zone": known & ~in_zones(cells),
    }
    size = release.settings(season, "split").get("square_size")
    if isinstance(size, int) and size > 0:
        inside = [cell for cell in cells if cell is not None]
        squares = np.full(len(cells), "", object)
        squares[known] = [f"{column}_{row}" for column, row in split_squares(inside, size)]
        problems["its split square is not the one its cell lies in"] = known & (squares != samples["square"].to_numpy())
    return problems


def parsed(name: Any) -> Cell | None:
    """The cell of an id, None where it is none."""
    try:
        return Cell.parse(str(name))
    except ValueError:
        return None


def in_zones(cells: list[Cell | None]) -> NDArray[np.bool_]:
    """Whether each cell lies wholly in its zone; True where there is none."""
    inside = np.ones(len(cells), bool)
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        if cell is not None:
            rows[cell.epsg, cell.size].append(i)
    for (epsg, size), members in rows.items():
        corners = np.array([cell.bounds[:2] for i in members if (cell := cells[i]) is not None], np.float64)
        inside[members] = in_own_zone(epsg, corners[:, 0], corners[:, 1], size)
    return inside


def has_outline(release: Release, samples: pd.DataFrame, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the geometry of each sample is the square south-east of its corner."""
    right = np.zeros(len(samples), bool)
    size = release.layout.cell_size
    codes = samples["epsg"].to_numpy()
    for epsg in np.unique(codes[rows]).tolist():
        if not (32601 <= epsg <= 32660 or 32701 <= epsg <= 32760):
            continue
        here = rows & (codes == epsg)
        x, y = samples["x0"].to_numpy()[here], samples["y0"].to_numpy()[here]
        squares = shapely.box(x, y - size, x + size, y)
        outlines = shapely.transform(squares, transformer(f"EPSG:{epsg}", LONLAT).transform, interleaved=False)
        apart = shapely.hausdorff_distance(outlines, samples["geometry"].to_numpy()[here])
        right[here] = apart <= OUTLINE_TOLERANCE
    return right
