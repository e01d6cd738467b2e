"""Stores by builders with one formula broken: whole, with right checksums, and `h2crop validate` finds each of them.

What it judges by is its own: a formula that were shared with the builder would agree with itself here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from falsified_builder import CHECKOUT, Falsehood, falsified_package, falsified_stores
from made_stores import made_once
from two_sensors import make_region

from h2crop_data.validation.validate import Validation, validate_store

#: A file system that the checkout is not on.
MEMORY = Path("/dev/shm")
S2, ENMAP_BLOCK, LABELS = (f"sources/{name}/assemble.py" for name in ("sentinel2", "enmap", "parcels"))
STATISTICS, PLANNING, INDEX, RASTER = (
    "cube/statistics.py",
    "pipeline/planning.py",
    "cube/index.py",
    "parcels/rasterize.py",
)
AFFINE = 'transform=geobox.affine, fill=0, dtype="int32"'


@dataclass(frozen=True)
class Case:
    """A broken builder."""

    file: str
    line: str
    instead: str
    #: The check that must find it.
    found: str


CASES = {
    "band means + 0.1": Case(
        STATISTICS, '"mean": total / n * scale,', '"mean": total / n * scale + 0.1,', "statistics"
    ),
    "sd x 2": Case(STATISTICS, '"sd": math.sqrt(', '"sd": 2 * math.sqrt(', "statistics"),
    "split squares one off": Case(
        "grid.py",
        "columns, rows = np.floor(x / square_size).astype(int), ",
        "columns, rows = np.floor(x / square_size).astype(int) + 1, ",
        "georeferencing",
    ),
    "class share": Case(
        LABELS,
        "float(((tier > 0) & (tier < UNKNOWN)).mean()) for tier in",
        "float((tier > 0).mean()) for tier in",
        "shares",
    ),
    "ids of two samples swapped": Case(
        PLANNING, '"sample": f"{cell.id}_{', '"sample": f"{cells[place - 1].id}_{', "samples"
    ),
    "pixels of two samples swapped": Case(
        PLANNING, "for name in self.cells[start:end]]", "for name in self.cells[start:end][::-1]]", "ground"
    ),
    "rows of s2 flipped": Case(
        S2,
        "s2[place, month, :, rows, columns] = values",
        "s2[place, month, :, rows, columns] = values[:, ::-1]",
        "fill",
    ),
    "rows of all of Sentinel-2 flipped": Case(
        S2,
        "values, clear_looks, median_day = part.arrays",
        "values, clear_looks, median_day = (array[..., ::-1, :] for array in part.arrays)",
        "agreement",
    ),
    "rows of EnMAP flipped": Case(
        ENMAP_BLOCK, "np.stack([found[cell][place] for", "np.stack([found[cell][place][..., ::-1, :] for", "agreement"
    ),
    "rows of parcels flipped": Case(
        RASTER, "    return ids\n\n\ndef tier", "    return ids[::-1]\n\n\ndef tier", "ground"
    ),
    "x0 half a pixel off": Case(PLANNING, '"x0": float(x0)', '"x0": float(x0) + 5', "georeferencing"),
    "outlines half a pixel off": Case(
        "grid.py",
        "return shapely.transform(self.polygon, ",
        "return shapely.transform(shapely.box(self.bounds[0] + 5, *self.bounds[1:]), ",
        "georeferencing",
    ),
    "a parcel of each sample not drawn": Case(
        RASTER, "int(i) + 1) for i in order]", "int(i) + 1) for i in np.delete(order, len(order) // 2)]", "ground"
    ),
    "parcels drawn half a pixel off": Case(
        RASTER, AFFINE, AFFINE.replace("geobox", "geobox.affine.translation(5, 0) * geobox"), "ground"
    ),
    "s2 of one month in the next": Case(S2, "s2[place, month, :, rows", "s2[place, (month + 1) % 12, :, rows", "fill"),
    "s2 of two months exchanged": Case(
        S2, "s2[place, month, :, rows", "s2[place, {4: 5, 5: 4}.get(month, month), :, rows", "fill"
    ),
    "all of a month in the next": Case(
        S2, 'month = part.facts["month"] - 1', 'month = part.facts["month"] % 12', "range"
    ),
    "days a month late": Case(
        S2,
        "day[place, month, rows, columns] = median_day",
        "day[place, month, rows, columns] = median_day + 31 * (median_day > 0)",
        "range",
    ),
    "percentiles a rank too high": Case(
        STATISTICS, "[-(-percent * n // 100) for", "[1 + percent * n // 100 for", "statistics"
    ),
    "flagged pixels counted": Case(
        STATISTICS,
        "usable = (arrays[statistics.by] & mask) == 0",
        "usable = (arrays[statistics.by] & mask) >= 0",
        "statistics",
    ),
    "pixels of classes": Case(
        STATISTICS,
        "return {str(number): int(counts[number]) for number in np.flatnonzero(counts)}",
        "return {str(number): int(counts[number]) + 1 for number in np.flatnonzero(counts)}",
        "statistics",
    ),
    "draw of squares": Case("grid.py", '.digest()[:8], "big")', '.digest()[-8:], "big")', "split"),
    "samples of squares": Case(
        INDEX, "sort=True).size().reset_index(", "sort=True).size().add(1).reset_index(", "split"
    ),
    "wavelengths the other way round": Case(
        ENMAP_BLOCK, "[band.wavelength for band in bands]", "[band.wavelength for band in bands[::-1]]", "coordinate"
    ),
    "declared share": Case(
        LABELS, 'float((stacked["parcel"][i] > 0).mean())', 'float((stacked["parcel"][i] >= 0).mean())', "shares"
    ),
    "classes of another split's parcels": Case(
        LABELS, '(inside["split"] == ground.split).to_numpy()', '(inside["split"] != "").to_numpy()', "labels"
    ),
    "dimensions in another order": Case(
        "cube/schema.py",
        '"configuration": sharding}],\n            dims=self.dims,',
        '"configuration": sharding}],\n            dims=self.dims[:-2] + self.dims[:-3:-1],',
        "metadata",
    ),
    "shape of inner chunks": Case(
        "cube/schema.py", '"chunk_shape": list(self.chunk),', '"chunk_shape": list(self.sample_shape),', "metadata"
    ),
    "shape of chunks of coordinates": Case(
        "cube/schema.py", "chunk=(self.chunk or shape[0], *shape[1:])", "chunk=shape", "metadata"
    ),
    "hash of a season": Case(
        "cube/season.py", "files = sorted(self.files, ", "files = sorted(self.files[1:], ", "identity"
    ),
    "clear looks": Case(
        S2,
        "clear[place, month, rows, columns] = clear_looks",
        "clear[place, month, rows, columns] = clear_looks + (clear_looks > 0)",
        "shares",
    ),
}
#: What says that a file is not the one that was sealed: these stores are as they were built.
OF_FILES = {"missing", "size", "checksum", "unreadable", "chunk", "shard", "index", "metadata", "root", "unforeseen"}


@pytest.fixture(scope="module")
def recipe() -> Path:
    """The recipe of the region that all are built of."""
    return made_once("two sensors", make_region) / "plain.yaml"


@pytest.fixture(scope="module")
def stores(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The store of every builder by name; `honest` is that of the builder as it is."""
    broken = {name: Falsehood(case.file, case.line, case.instead) for name, case in CASES.items()}
    return falsified_stores(recipe, {"honest": None, **broken}, tmp_path_factory.mktemp("stores"))


def validated(store: Path) -> Validation:
    return validate_store(store, workers=1)


def test_the_store_of_the_honest_builder_gives_no_finding(stores: dict[str, Path]) -> None:
    result = validated(stores["honest"])
    assert not result.findings, result.findings
    assert not result.not_checked
    assert result.checked["training_samples"] == 4
    assert result.checked["samples_by_outlines"] == result.checked["samples"]
    assert 0 < result.distributions["enmap_with_s2"]["samples"] == result.checked["samples_of_two_sensors"]


@pytest.mark.parametrize("name", CASES)
def test_what_a_broken_builder_made_is_found(name: str, stores: dict[str, Path]) -> None:
    found = {finding.check for finding in validated(stores[name]).findings}
    assert CASES[name].found in found
    assert not found & OF_FILES - {CASES[name].found}


def test_a_line_that_the_builder_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 times"):
        falsified_package(Falsehood("grid.py", "no such line", ""), tmp_path)
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.skipif(not MEMORY.is_dir(), reason="there is no second file system")
def test_a_package_on_another_file_system_is_copied(tmp_path: Path) -> None:
    with TemporaryDirectory(dir=MEMORY) as other:
        for folder in (Path(other), tmp_path):
            falsified_package(Falsehood("grid.py", "import hashlib", "import json"), folder)
            changed = folder / "h2crop_data/grid.py"
            assert "import json" in changed.read_text(encoding="utf-8")
            names = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
            assert names == {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "h2crop_data").rglob("*.py")}
