"""Blocks of published samples: which samples share one, and their arrays."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from h2crop_data.constants import COARSE, ENMAP_FLAGS, REFLECTANCE_FILL, SENTINEL2_BANDS, UNKNOWN
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.errors import ReadError
from h2crop_data.mgrs import tile_square
from h2crop_data.published.dates import composite_days
from h2crop_data.published.kept import file_in_memory, image, keep
from h2crop_data.published.layout import CELL_SIZE, ENMAP_BANDS, PublishedSample
from h2crop_data.published.values import Stored, cloud_mask, measured_enmap, measured_sentinel2, store
from h2crop_data.sources.formats import known_layout, of_generation

#: Part of the input hashes of a block; a change of what is computed here changes it.
IMPORT_ALGORITHM = "published 1"
#: Flags that keep a pixel out of the statistics: the only one a published file may tell.
FLAGGED = ENMAP_FLAGS["cloud"]


@dataclass(frozen=True)
class PublishedBlock:
    """Samples of one scene and split, under tiles of one UTM zone."""

    season: int
    number: int
    split: str
    #: What the ids have of the scene.
    scene: str
    samples: tuple[PublishedSample, ...]

    @property
    def ids(self) -> list[str]:
        """The ids of its samples, in order of slot."""
        return [sample.id.text for sample in self.samples]


@dataclass(frozen=True)
class ImportedBlock:
    """What a block becomes: arrays (name -> (n, ...) as the layout tells), the kept rest, and facts for the index."""

    arrays: dict[str, NDArray[Any]]
    #: The HDF5 file of what the arrays do not hold.
    kept: bytes
    #: One dictionary a sample, columns of the index.
    provenance: list[dict[str, Any]]
    #: Bytes of each sample's file.
    sizes: dict[str, int]


def published_layout(capacity: int, generation: int) -> StoreLayout:
    """The layout of a store of published samples. generation: of its layout."""
    layout = known_layout(CELL_SIZE, capacity, s2_bands=SENTINEL2_BANDS, enmap_bands=ENMAP_BANDS)
    return of_generation(layout, generation)


def blocks_of_samples(samples: Sequence[PublishedSample], capacity: int) -> list[PublishedBlock]:
    """Samples cut into blocks, numbered from 0 in each season, whatever their order.

    Blocks follow each other by time and tile of the scene, split, and UTM zone of the MGRS tiles; inside a block
    samples run along the rows of the scene.
    """
    groups: dict[tuple[int, str, str, int], list[PublishedSample]] = defaultdict(list)
    for sample in samples:
        epsg, _, _ = tile_square(sample.id.tile)
        groups[sample.id.season, sample.id.scene, sample.split, epsg].append(sample)
    numbers: dict[int, int] = defaultdict(int)
    blocks = []
    for (season, scene, split, _), members in sorted(groups.items()):
        members.sort(key=lambda sample: (sample.id.row, sample.id.column, sample.id.text))
        for first in range(0, len(members), capacity):
            part = tuple(members[first : first + capacity])
            blocks.append(PublishedBlock(season, numbers[season], split, scene, part))
            numbers[season] += 1
    return blocks


def assemble(block: PublishedBlock, layout: StoreLayout, offset: int) -> ImportedBlock:
    """Read the files of a block, one after the other.

    offset: what is taken from the Sentinel-2 numbers; 0 keeps them. Raises ReadError naming a damaged file.
    """
    count = len(block.samples)
    arrays = {
        name: np.full((count, *spec.sample_shape), spec.fill, spec.dtype) for name, spec in layout.arrays().items()
    }
    # Published files know no parcels, and every pixel of their labels is known.
    arrays["parcel"][:] = 0
    provenance, sizes = [], {}
    with file_in_memory() as kept:
        for place, sample in enumerate(block.samples):
            row = {name: values[place] for name, values in arrays.items()}
            try:
                with h5py.File(sample.path, "r") as file:
                    exact = fill_sample(file, block.season, offset, row)
                    keep(file, kept.create_group(sample.id.text), exact)
                    provenance.append(facts_of(row, block.season, read_cloud_mask(file) is not None))
                sizes[sample.id.text] = sample.path.stat().st_size
            except (OSError, RuntimeError, KeyError) as error:
                raise ReadError(
                    f"cannot read {sample.path}: {error}; finished blocks are kept: replace it by a complete file "
                    "and rerun the same command"
                ) from error
        return ImportedBlock(arrays, image(kept), provenance, sizes)


def fill_sample(file: h5py.File, season: int, offset: int, row: dict[str, NDArray[Any]]) -> dict[str, Stored]:
    """Fill the arrays of one sample from its file; gives the stored forms of the two images."""
    sentinel2 = file["S2_data"][...].astype(np.int16)
    clear = measured_sentinel2(sentinel2)
    stored = store(sentinel2, clear[:, None], offset)
    row["s2"][...] = stored.values
    row["s2_clear"][...] = clear
    days = composite_days(file["S2_date"][...], season) if isinstance(file.get("S2_date"), h5py.Dataset) else None
    if days is not None and days.shape in (clear.shape, clear.shape[:1]):
        row["s2_day"][...] = np.where(clear, days if days.ndim == clear.ndim else days[:, None, None], 0)
    enmap = file["EnMAP_data"][...].astype(np.int16)
    stored_enmap = store(enmap, measured_enmap(enmap))
    row["enmap"][...] = stored_enmap.values
    row["enmap_quality"][...] = enmap_flags(file, stored_enmap.values)
    row["label"][...] = file["label"][...]
    row["prior"][...] = file["priors"][...]
    return {"S2_data": stored, "EnMAP_data": stored_enmap}


def enmap_flags(file: h5py.File, values: NDArray[np.int16]) -> NDArray[np.uint16]:
    """Flags (y30, x30): `outside` where no band has a value, `cloud` where `EnMAP_cloud` is a mask and says so."""
    nothing = (values == REFLECTANCE_FILL).all(axis=0)
    flags = np.where(nothing, ENMAP_FLAGS["outside"], 0).astype(np.uint16)
    mask = read_cloud_mask(file)
    if mask is not None:
        flags[mask] |= ENMAP_FLAGS["cloud"]
    return flags


def read_cloud_mask(file: h5py.File) -> NDArray[np.bool_] | None:
    """(y30, x30): where `EnMAP_cloud` says cloud; None where it is not there or no mask."""
    cloud = file.get("EnMAP_cloud")
    if not isinstance(cloud, h5py.Dataset) or not cloud.shape:
        return None
    return cloud_mask(cloud[...], CELL_SIZE // COARSE)


def facts_of(row: dict[str, NDArray[Any]], season: int, clouds_known: bool) -> dict[str, Any]:
    """The columns of a sample's index row that follow from its arrays.

    clouds_known: whether a pixel without the flag `cloud` is known to have none.
    """
    days = np.unique(row["s2_day"])
    dates = [date(season, 1, 1) + timedelta(days=day - 1) for day in days[days > 0].tolist()]
    cloudy = float(((row["enmap_quality"] & FLAGGED) != 0).mean()) if clouds_known else None
    label = row["label"]
    return {
        "enmap_cloud_share": cloudy,
        "enmap_flagged_share": cloudy,
        "enmap_fill_share": float((row["enmap"] == REFLECTANCE_FILL).mean()),
        "s2_dates": [day.isoformat() for day in dates],
        "s2_clear_share": [float(share) for share in (row["s2_clear"] > 0).mean(axis=(1, 2))],
        "s2_gaps": [],
        "parcels": 0,
        "declared_share": float((label[0] > 0).mean()),
        "class_share": [float(((tier > 0) & (tier < UNKNOWN)).mean()) for tier in label],
    }


def input_hash(arrays: dict[str, NDArray[Any]], names: Sequence[str], ids: Sequence[str]) -> str:
    """The hash of what went into some arrays of a block: they hold it all."""
    digest = hashlib.sha256("\n".join([IMPORT_ALGORITHM, *ids]).encode())
    for name in names:
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
