"""One sample as a folder of GeoTIFFs that QGIS and GDAL show with dates, wavelengths, colours and names of classes.

Numbers are those of the store; reflectance has the scale 0.0001 and its fill as nodata in the metadata of the bands.
Names of classes are in a file `.aux.xml` beside each file of classes, where GDAL looks for them: TIFF has no place for
them.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import xarray as xr
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import from_origin

from h2crop_data.constants import REFLECTANCE_SCALE, UNKNOWN
from h2crop_data.crops.mapping import ClassMapping
from h2crop_data.cube.reading import load_root, read_document, read_file
from h2crop_data.cube.root import index_paths
from h2crop_data.cube.schema import REFLECTANCE_UNITS
from h2crop_data.cube.user_classes import names_of_mapping, with_user_classes
from h2crop_data.cube.windows import TIME_AXIS
from h2crop_data.errors import StoreError, UsageError
from h2crop_data.one_sample.dataset import GRID_MAPPING, class_table, open_sample
from h2crop_data.report.layers import CLASS_COLOURS, spare_colour

#: What describes the export; a folder without it is never replaced.
FACTS_FILE, README, SHEET_FILE = "sample.json", "README.txt", "DATASHEET.md"
#: Red, green, blue of numbers that are no class.
NOT_DECLARED_COLOUR, UNKNOWN_COLOUR = (232, 232, 232), (120, 120, 120)
#: A coordinate of this module: the first and the last day of each window of time.
WINDOW = "window"
#: Tiles of the files, pixels along a side; smaller rasters are one tile.
TIFF_TILE = 256
#: Nodata of arrays of whole numbers in which 0 means that there is nothing.
ZERO_IS_NOTHING = ("parcel", "s2_day")
NANOMETRES_PER_MICROMETRE = 1000.0


@dataclass(frozen=True)
class RasterBand:
    """One band of a raster."""

    description: str
    tags: dict[str, str] = field(default_factory=dict)
    #: The tags by which GDAL knows wavelengths.
    imagery: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raster:
    """A file to write: (bands, y, x) as stored."""

    name: str
    what: str
    values: NDArray[Any]
    #: The dimensions of its rows and columns.
    grid: tuple[str, str]
    bands: Sequence[RasterBand]
    nodata: float | None = None
    scale: float = 1.0
    tags: dict[str, str] = field(default_factory=dict)
    #: Number -> name of each class; None for what is no class.
    classes: dict[int, str] | None = None


@dataclass(frozen=True)
class SampleExport:
    """What was exported. files: name -> what it is. georeferenced: whether the place of the sample is known."""

    folder: str
    sample: str
    season: int
    release: int
    georeferenced: bool
    files: dict[str, str]
    bytes: int


def write_geotiffs(
    store: str | Path,
    sample: str,
    folder: str | Path,
    *,
    classes: str | Path | None = None,
    release: int | None = None,
    force: bool = False,
) -> SampleExport:
    """Write one sample as GeoTIFFs into a folder, whole or not at all.

    store: folder, http(s) or s3 URL. sample: its id. classes: a mapping file, or the name of one that comes with
    h2crop, to write `label` and `prior` in its classes too. force: whether an earlier export in that folder is
    replaced.

    Raises UsageError for a folder with files, or with other files than those of an export where `force` is given;
    StoreError for an unknown sample, and for what cannot be read or written; ParcelError for an invalid mapping.
    """
    target = Path(folder)
    refuse_other_files(target, force=force)
    root = load_root(store, release)
    attributes = root["attributes"]
    opened = open_sample(store, sample, scaled=False, release=attributes["release"])
    rasters = list(rasters_of(opened, read_document(store, attributes, "classes")))
    if classes is not None:
        mapping = ClassMapping.load(classes)
        rasters += user_class_rasters(with_user_classes(opened, mapping, attributes), mapping)
    sheets = [read_file(store, path).decode() for path in index_paths(attributes, "datasheet")]
    texts = {SHEET_FILE: sheets[0]} if sheets else {}
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
        for raster in rasters:
            write_raster(partial, raster, opened)
        files = {f"{raster.name}.tif": raster.what for raster in rasters}
        facts = {**opened.attrs, "epsg": epsg_of_sample(opened), "files": files}
        texts |= {FACTS_FILE: json.dumps(facts, indent=1) + "\n", README: readme_text(opened, files)}
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        written = sum(path.stat().st_size for path in partial.iterdir())
        put_in_place(partial, target)
    except (OSError, RasterioError) as error:
        raise StoreError(f"cannot write {target}: {error}; nothing was exported") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return SampleExport(
        str(target),
        sample,
        int(opened.attrs["season"]),
        int(opened.attrs["release"]),
        GRID_MAPPING in opened.coords,
        {**files, **{name: "facts" if name == FACTS_FILE else "text" for name in texts}},
        written,
    )


def refuse_other_files(target: Path, *, force: bool) -> None:
    """Refuse a folder whose files would be lost. Raises UsageError."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not (target / FACTS_FILE).is_file():
        raise UsageError(f"{target} exists and is not an exported sample; choose another folder")
    if not force:
        raise UsageError(f"{target} has an exported sample; replace it with --force, or choose another folder")


def put_in_place(partial: Path, target: Path) -> None:
    """Give a finished folder its name; what had the name is deleted after that."""
    earlier = partial.with_suffix(".earlier")
    if target.exists():
        target.rename(earlier)
    try:
        partial.rename(target)
    except OSError:
        if earlier.exists():
            earlier.rename(target)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def rasters_of(opened: xr.Dataset, classes: Sequence[Mapping[str, str]]) -> Iterator[Raster]:
    """The files of a sample: a file for each window of time of an image, and for each tier of classes."""
    if TIME_AXIS in opened.dims:
        days = opened["time_bnds"].values.astype("datetime64[D]") - np.array([0, 1])
        opened = opened.assign_coords({WINDOW: (TIME_AXIS, [f"{first} to {last}" for first, last in days])})
    for name, array in opened.data_vars.items():
        of_array = array.load()
        leading = of_array.dims[:-2]
        if "tier" in leading:
            for tier, names in enumerate(classes, 1):
                yield classes_of_tier(str(name), of_array.sel(tier=tier), tier, names)
        elif leading[:1] == (TIME_AXIS,) and len(leading) > 1:
            for window in range(of_array.sizes[TIME_AXIS]):
                one = of_array.isel({TIME_AXIS: window})
                yield plain_raster(f"{name}_{first_day(one)}", one, f"window {one[WINDOW].item()}")
        else:
            yield plain_raster(str(name), of_array)


def user_class_rasters(opened: xr.Dataset, mapping: ClassMapping) -> Iterator[Raster]:
    """A file for each array of classes, in the classes of a mapping."""
    for name, array in opened.data_vars.items():
        if "class_mapping" in array.attrs:
            what = f"{array.attrs['long_name']}, classes of {mapping.name}"
            table, grid = names_of_mapping(mapping), raster_grid(array)
            values = array.values[None]
            yield Raster(f"{name}_{mapping.name}", what, values, grid, [RasterBand(what)], classes=table)


def classes_of_tier(name: str, array: xr.DataArray, tier: int, names: Mapping[str, str]) -> Raster:
    """The classes of a tier."""
    what = f"{array.attrs['long_name']}, tier {tier}"
    table = class_table(names)
    return Raster(f"{name}_tier{tier}", what, array.values[None], raster_grid(array), [RasterBand(what)], classes=table)


def plain_raster(name: str, array: xr.DataArray, more: str = "") -> Raster:
    """An array with at most one dimension before its rows and columns."""
    attrs = array.attrs
    reflectance = attrs.get("units") == REFLECTANCE_UNITS
    what = ", ".join(part for part in (attrs.get("long_name", name), more) if part)
    values = array.values.reshape(-1, *array.shape[-2:])
    nodata = attrs.get("_FillValue")
    if array.name in ZERO_IS_NOTHING:
        nodata = 0
    tags = {}
    if "flag_masks" in attrs:
        flags = zip(attrs["flag_masks"], attrs["flag_meanings"].split(), strict=True)
        tags["FLAGS"] = ", ".join(f"{bit} {meaning}" for bit, meaning in flags)
    return Raster(
        name,
        what,
        values,
        raster_grid(array),
        list(described_bands(array)),
        nodata,
        REFLECTANCE_SCALE if reflectance else 1.0,
        tags,
    )


def raster_grid(array: xr.DataArray) -> tuple[str, str]:
    """The dimensions of the rows and columns of an array."""
    rows, columns = array.dims[-2:]
    return str(rows), str(columns)


def described_bands(array: xr.DataArray) -> Iterator[RasterBand]:
    """What each band of a file shows."""
    leading = array.dims[:-2]
    dim = str(leading[0]) if leading else ""
    for number in range(array.sizes[dim] if dim else 1):
        one = array.isel({dim: number}) if dim else array
        if dim == TIME_AXIS:
            yield RasterBand(one[WINDOW].item(), {"WINDOW": one[WINDOW].item()})
        elif dim in array.coords and array[dim].dtype.kind == "O":
            yield RasterBand(str(one[dim].values))
        elif "wavelength" in one.coords and one["wavelength"].dims == () and one["wavelength"] > 0:
            yield wavelength_band(number, float(one["wavelength"]), float(one["fwhm"]))
        else:
            yield RasterBand(str(array.attrs.get("long_name", array.name)) if not dim else f"{dim} {number + 1}")


def wavelength_band(number: int, centre: float, width: float) -> RasterBand:
    """A band of an imaging spectrometer. centre, width: nm; a width of 0 is not known."""
    tags = {"wavelength": f"{centre:.3f}", "wavelength_units": "Nanometers"}
    imagery = {"CENTRAL_WAVELENGTH_UM": f"{centre / NANOMETRES_PER_MICROMETRE:.6f}"}
    if width > 0:
        tags["fwhm"] = f"{width:.3f}"
        imagery["FWHM_UM"] = f"{width / NANOMETRES_PER_MICROMETRE:.6f}"
    return RasterBand(f"band {number + 1} ({centre:.1f} nm)", tags, imagery)


def first_day(one: xr.DataArray) -> str:
    """The first day of the window of an array at one time."""
    return str(one[TIME_AXIS].values.astype("datetime64[D]"))


def epsg_of_sample(opened: xr.Dataset) -> int | None:
    """The EPSG code of a sample; None where its place is not known."""
    return None if GRID_MAPPING not in opened.coords else int(opened[GRID_MAPPING].attrs["epsg"])


def write_raster(folder: Path, raster: Raster, opened: xr.Dataset) -> None:
    """Write a file, with names of classes beside it, and read it again. Raises OSError or RasterioError."""
    path = folder / f"{raster.name}.tif"
    count, height, width = raster.values.shape
    place: dict[str, Any] = {}
    if (epsg := epsg_of_sample(opened)) is not None:
        y, x = (opened[name].values for name in raster.grid)
        size = float(x[1] - x[0])
        place = {"crs": f"EPSG:{epsg}", "transform": from_origin(x[0] - size / 2, y[0] + size / 2, size, size)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=raster.values.dtype,
            nodata=raster.nodata,
            tiled=True,
            blockxsize=TIFF_TILE,
            blockysize=TIFF_TILE,
            compress="deflate",
            predictor=2,
            interleave="band",
            **place,
        ) as file:
            file.write(raster.values)
            file.scales = [raster.scale] * count
            file.update_tags(
                SAMPLE=opened.attrs["sample"], RELEASE=opened.attrs["release"], DESCRIPTION=raster.what, **raster.tags
            )
            for number, band in enumerate(raster.bands, 1):
                file.set_band_description(number, band.description)
                file.update_tags(number, **band.tags)
                if band.imagery:
                    file.update_tags(number, ns="IMAGERY", **band.imagery)
            if raster.classes is not None:
                file.write_colormap(1, {number: class_colour(number) for number in raster.classes})
        with rasterio.open(path) as file:
            # GDAL reports a full disk when it closes a file, to nobody.
            if not np.array_equal(file.read(), raster.values):
                raise OSError(f"{path.name} does not contain what was written, as on a full disk")
    if raster.classes is not None:
        write_class_names(path.with_name(f"{path.name}.aux.xml"), raster.classes)


def class_colour(number: int) -> tuple[int, int, int]:
    """Red, green and blue (0..255) of a class: the same in every sample."""
    if number == 0:
        return NOT_DECLARED_COLOUR
    if number == UNKNOWN:
        return UNKNOWN_COLOUR
    place = number - 1
    colour = CLASS_COLOURS[place] if place < len(CLASS_COLOURS) else spare_colour(place)
    return (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))


def write_class_names(path: Path, names: Mapping[int, str]) -> None:
    """The names of the numbers of a file of classes, where GDAL reads them (its persistent auxiliary metadata)."""
    tree = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(tree, "PAMRasterBand", band="1")
    categories = ElementTree.SubElement(band, "CategoryNames")
    for number in range(max(names) + 1):
        ElementTree.SubElement(categories, "Category").text = names.get(number, "")
    ElementTree.ElementTree(tree).write(path, encoding="utf-8")


def readme_text(opened: xr.Dataset, files: Mapping[str, str]) -> str:
    """What a person finds in the folder."""
    attrs = opened.attrs
    epsg = epsg_of_sample(opened)
    place = "its place is not known: the files are in pixels" if epsg is None else f"EPSG:{epsg}, north up"
    lines = [
        f"Sample {attrs['sample']}, season {attrs['season']}, release {attrs['release']} of an h2crop store; {place}.",
        *(f"{name}: {attrs[name]}" for name in ("split", "scene", "scene_time") if name in attrs),
        "",
        *(f"{name}: {what}" for name, what in files.items()),
        "",
        "Reflectance (s2_*, enmap) is stored as reflectance x 10000: the files state the scale 0.0001 and the nodata",
        "value -32768. Numbers of flags are sums of the bits that the tag FLAGS lists. Files of classes have colours,",
        "and the names of their classes in the .aux.xml beside them.",
        f"Sources and licences: {SHEET_FILE}. Facts for programs: {FACTS_FILE}.",
    ]
    return "\n".join(lines) + "\n"
