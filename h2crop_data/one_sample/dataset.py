"""One sample as a dataset in its own grid: metres, dates, wavelengths, names of classes.

The arrays of a season hold samples of several UTM zones, each with its own corner, so they have no coordinates along
`y` and `x`: CF and GeoZarr know one grid for an array. A single sample has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from h2crop_data.constants import UNKNOWN
from h2crop_data.crops.mapping import ClassMapping
from h2crop_data.cube.meanings import (
    CLASSES_OF_TIER,
    CONVENTIONS,
    NOT_DECLARED_NAME,
    UNKNOWN_NAME,
    names_in_words,
)
from h2crop_data.cube.reading import load_root, read_columns, read_document, season_dataset
from h2crop_data.cube.root import RootAttributes
from h2crop_data.cube.user_classes import with_user_classes
from h2crop_data.errors import StoreError, UsageError

#: The grid mapping of all arrays of a sample.
GRID_MAPPING = "spatial_ref"
#: What the index says of a sample, as attributes of its dataset.
SAMPLE_FACTS = ("sample", "cell", "split", "scene", "scene_time", "located")
#: Coordinates of a season that a sample's own grid and attributes replace.
REPLACED = ("sample", "valid", "x0", "y0", "epsg")


@dataclass(frozen=True)
class FoundSample:
    """Where a sample lies in a store, and what the index says of it."""

    #: The root attributes of the release.
    attributes: RootAttributes
    season: int
    #: Its row in the samples index.
    row: int
    #: Columns of the index -> values, only those that are known.
    facts: dict[str, Any]


def open_sample(
    store: str | Path,
    sample: str,
    *,
    scaled: bool = True,
    tier: int | None = None,
    classes: str | Path | None = None,
    mask: Sequence[str] = (),
    release: int | None = None,
) -> xr.Dataset:
    """One sample, by its id, in its own grid, lazily.

    Dimensions: `time`, `s2_band`, `y`, `x` (10 m), `band`, `y30`, `x30` (30 m), `tier`. Coordinates: `y`, `x`, `y30`,
    `x30` are the middles of pixels in metres (float64; rows from north to south), `spatial_ref` is the CRS of all
    arrays (CF, EPSG code of the sample's UTM zone), `time` the first day of each window with `time_bnds` and `month`,
    `band` the number of an EnMAP band from 1, `wavelength` (nm, with an index: `sel(wavelength=860, method="nearest")`)
    and `fwhm` along it. Where the place of a sample is not known (imported stores), `y`, `x` and `spatial_ref` do not
    exist.

    store: folder, http(s) or s3 URL. scaled: `s2` and `enmap` as reflectance, float32 with NaN where nothing was
    measured, else as stored; other arrays are always as stored. tier: `label` and `prior` at one tier (1..4), with the
    names of their classes as CF `flag_values` and `flag_meanings`; by default all tiers, with the names as attributes
    `classes_tier1`... classes: a mapping file, or the name of one that comes with h2crop (`worldcereal`, `cdl`):
    `label` and `prior` in its classes instead of the tiers, with their names as CF flags. mask: names of flags of
    `enmap_quality` or `enmap_mask` (`cloud`, `cloud_shadow`, ...): pixels that have one of them become NaN in `enmap`,
    which must be scaled; by default none. release: number of an older release.

    Raises StoreError where the store has no such sample, or lacks a shard of it when it is read; UsageError for an
    unknown tier or flag, and for both a tier and classes; ParcelError for an invalid mapping.
    """
    if tier is not None and classes is not None:
        raise UsageError("tier cannot be combined with classes: a mapping uses every tier")
    root = load_root(store, release)
    attributes = root["attributes"]
    place = find_sample_row(store, attributes, sample)
    season = season_dataset(store, root, place.season, scaled=scaled, missing_is_fill=False)
    opened = season.isel(sample=place.row).drop_vars([name for name in REPLACED if name in season.variables])
    # As objects: the text that netCDF can store too.
    opened = opened.assign_coords(
        {
            name: (array.dims, np.array(array.values.tolist(), object), array.attrs)
            for name, array in opened.coords.items()
            if array.dtype.kind == "T"
        }
    )
    if classes is not None:
        opened = with_user_classes(opened, ClassMapping.load(classes), attributes)
    opened = with_classes_named(opened, read_document(store, attributes, "classes"), tier)
    opened = with_flags_masked(opened, mask, scaled=scaled)
    opened = with_wavelength_index(opened)
    opened = with_grid(opened, season, place)
    for array in opened.data_vars.values():
        if array.dtype == np.float32:
            array.encoding["_FillValue"] = np.float32(np.nan)
    opened.attrs = dataset_attributes(place)
    return opened


def find_sample_row(store: str | Path, attributes: RootAttributes, sample: str) -> FoundSample:
    """Where a sample lies. Raises StoreError where the release has no sample of this id."""
    # The year is usually part of an id.
    for season in sorted(map(int, attributes["seasons"]), key=lambda year: str(year) not in sample):
        samples = read_columns(store, attributes, f"samples-{season}", SAMPLE_FACTS)
        row = pc.index(samples.column("sample"), sample).as_py()
        if row >= 0:
            facts = {name: value for name, value in samples.slice(row, 1).to_pylist()[0].items() if value}
            return FoundSample(attributes, season, row, facts)
    raise StoreError(
        f"{store} has no sample {sample!r} in release {attributes['release']}; `h2crop inspect {store}` and the tables "
        "samples-<season> of its index name the samples there are"
    )


def dataset_attributes(place: FoundSample) -> dict[str, Any]:
    """What the dataset says of its sample; times in ISO 8601, UTC."""
    facts = {
        key: f"{value:%Y-%m-%dT%H:%M:%SZ}" if isinstance(value, datetime) else value
        for key, value in place.facts.items()
        if value != "none"
    }
    return {
        "Conventions": CONVENTIONS,
        "title": f"sample {place.facts['sample']} of an h2crop store",
        **facts,
        "season": place.season,
        "release": place.attributes["release"],
        "source": place.attributes["software"],
    }


def with_classes_named(opened: xr.Dataset, classes: Sequence[Mapping[str, str]], tier: int | None) -> xr.Dataset:
    """The arrays of classes, at one tier or at all, with the names of their classes. classes: of each tier."""
    if tier is not None and not 1 <= tier <= len(classes):
        raise UsageError(f"unknown tier {tier}; expected one of 1 to {len(classes)}")
    for name in [name for name, array in opened.data_vars.items() if "tier" in array.dims]:
        array = opened[name]
        named = {
            f"{CLASSES_OF_TIER}{number}": names_in_words(names_by_number(names))
            for number, names in enumerate(classes, 1)
        }
        attrs = {key: value for key, value in array.attrs.items() if not key.startswith(CLASSES_OF_TIER)} | named
        if tier is not None:
            array = array.sel(tier=tier)
            attrs = {key: value for key, value in attrs.items() if key not in named} | class_flags(classes[tier - 1])
        opened[name] = array.assign_attrs(attrs) if tier is None else array.drop_attrs().assign_attrs(attrs)
    return opened if tier is None or "tier" not in opened.dims else opened.sel(tier=tier)


def names_by_number(names: Mapping[str, str]) -> dict[int, str]:
    """The names of the classes of a tier by number; the index has numbers as text."""
    return {int(number): name for number, name in names.items()}


def class_table(names: Mapping[str, str]) -> dict[int, str]:
    """Every number of a tier, in order -> its name, also those that are no class."""
    return dict(sorted({0: NOT_DECLARED_NAME, **names_by_number(names), UNKNOWN: UNKNOWN_NAME}.items()))


def class_flags(names: Mapping[str, str]) -> dict[str, Any]:
    """The attributes by which CF names the numbers of an array: `flag_values` (uint8) and `flag_meanings`."""
    table = class_table(names)
    return {
        "flag_values": np.array(list(table), np.uint8),
        "flag_meanings": " ".join("_".join(name.split()) for name in table.values()),
    }


def with_flags_masked(opened: xr.Dataset, mask: Sequence[str], *, scaled: bool) -> xr.Dataset:
    """Reflectance without the pixels that have one of some flags, on the grid of the flags. Raises UsageError."""
    if not mask:
        return opened
    if not scaled:
        raise UsageError("mask cannot be combined with scaled=False: stored integers have no NaN")
    known: dict[str, list[str]] = {}
    for name, array in list(opened.data_vars.items()):
        if "flag_masks" not in array.attrs:
            continue
        bits = dict(zip(array.attrs["flag_meanings"].split(), array.attrs["flag_masks"], strict=True))
        known[str(name)] = list(bits)
        chosen = sum(bits[flag] for flag in dict.fromkeys(mask) if flag in bits)
        if not chosen:
            continue
        keep = (array & array.dtype.type(chosen)) == 0
        for of_grid, values in list(opened.data_vars.items()):
            if values.dtype == np.float32 and set(array.dims) <= set(values.dims):
                opened[of_grid] = values.where(keep).transpose(*values.dims).assign_attrs(values.attrs)
    if unknown := [flag for flag in mask if not any(flag in flags for flags in known.values())]:
        there = "; ".join(f"{name} has {', '.join(flags)}" for name, flags in known.items())
        raise UsageError(f"unknown flag {unknown[0]!r} in mask; {there or 'the store has no flags'}")
    return opened


def with_wavelength_index(opened: xr.Dataset) -> xr.Dataset:
    """Bands have numbers from 1, and can be selected by wavelength, where it is known."""
    if "wavelength" not in opened.coords:
        return opened
    (dim,) = opened["wavelength"].dims
    numbers = (dim, np.arange(1, opened.sizes[dim] + 1, dtype=np.int32), {"long_name": "number of the band"})
    opened = opened.assign_coords({dim: numbers, "wavelength": opened["wavelength"].load()})
    return opened.set_xindex("wavelength") if (opened["wavelength"].values > 0).all() else opened


def with_grid(opened: xr.Dataset, season: xr.Dataset, place: FoundSample) -> xr.Dataset:
    """The dataset with the middles of its pixels in metres and its CRS; without them where the place is not known."""
    west, north = (float(season[name].values[place.row]) for name in ("x0", "y0"))
    if not np.isfinite([west, north]).all():
        return opened
    cell_size = place.attributes["layout"]["cell_size"]
    epsg = int(season["epsg"].values[place.row])
    crs = CRS.from_epsg(epsg)
    axes = {axis["axis"]: axis for axis in crs.cs_to_cf()}
    coordinates: dict[str, Any] = {GRID_MAPPING: ((), np.int32(0), {**crs.to_cf(), "epsg": epsg})}
    for name, array in opened.data_vars.items():
        rows, columns = map(str, array.dims[-2:])
        if not (rows.startswith("y") and columns == f"x{rows[1:]}"):
            continue
        for dim, corner, sign, axis in ((rows, north, -1, "Y"), (columns, west, 1, "X")):
            coordinates[dim] = (dim, middles(corner, sign * cell_size / array.sizes[dim], array.sizes[dim]), axes[axis])
        opened[name].encoding["grid_mapping"] = GRID_MAPPING
    # No `GeoTransform`: it would be wrong after any selection of pixels, and there are two grids.
    return opened.assign_coords(coordinates)


def middles(edge: float, step: float, count: int) -> NDArray[np.float64]:
    """The middles of pixels along an axis."""
    return np.asarray(edge + step * (np.arange(count) + 0.5), np.float64)
