"""Draw the pictures of docs/simulation.md and of the README from the demo (`make demo`) and, beside it, real spectra.

    python docs/pictures.py build/demo [SHARED]

SHARED: folder of the real sample data; without it the spectra are drawn alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rasterio
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from h2crop_data.enmap.product import parse_metadata

IMAGES = Path(__file__).parent / "images"
SEASON = 2022
TEN_CROPS = ("BTH", "ORH", "MIS", "CZH", "BTN", "PTC", "TRN", "PPH", "LUZ", "VRC")
GROUND = {"wood": "#3d6b35", "water": "#5b8db8", "village": "#9a8f88", "road": "#f4f1ea"}


def main() -> None:
    """Draw all of them."""
    demo = Path(sys.argv[1])
    shared = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    IMAGES.mkdir(exist_ok=True)
    draw_year(demo / "region")
    draw_clouds(demo / "region")
    draw_land(demo / "region")
    draw_spectra(demo / "region", shared)
    small_copy(demo / "sample.png", IMAGES / "sample.png")


def items(region: Path, catalog: str) -> list[dict[str, Any]]:
    """The items of a catalog, in order of time."""
    found = json.loads((region / "catalog" / f"{catalog}.json").read_text(encoding="utf-8"))["features"]
    return sorted(found, key=lambda item: item["properties"]["datetime"])


def granules(region: Path) -> dict[str, dict[str, Any]]:
    """By day, the item that shows most of the region, newest baseline."""
    chosen: dict[str, dict[str, Any]] = {}
    for item in items(region, "sentinel-2-c1-l2a"):
        day = item["properties"]["datetime"][:10]
        shape = item["assets"]["red"]["proj:shape"]
        if day not in chosen or shape[1] >= chosen[day]["assets"]["red"]["proj:shape"][1]:
            chosen[day] = item
    return chosen


def read(region: Path, item: dict[str, Any], key: str) -> NDArray[Any]:
    """First band of an asset."""
    with rasterio.open(region / "catalog" / item["assets"][key]["href"]) as raster:
        return raster.read(1)


def true_colour(region: Path, item: dict[str, Any], white: float = 0.24) -> NDArray[np.float64]:
    """Red, green, blue 0..1 of a granule whose numbers carry the offset."""
    layers = [(read(region, item, key).astype(float) - 1000) / 10000 for key in ("red", "green", "blue")]
    return np.clip(np.stack(layers, axis=-1) / white, 0, 1) ** 0.75


def save(figure: Any, name: str) -> None:
    """Write a figure as a small PNG with a palette."""
    path = IMAGES / name
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    small_copy(path, path)


def small_copy(source: Path, target: Path) -> None:
    """A PNG with 256 colours."""
    with Image.open(source) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


def draw_year(region: Path) -> None:
    """The clearest date of each month over one cell."""
    best: dict[int, tuple[float, str]] = {}
    for day, item in granules(region).items():
        month = int(day[5:7])
        best[month] = min(best.get(month, (101.0, "")), (item["properties"]["eo:cloud_cover"], day))
    figure, axes = plt.subplots(3, 4, figsize=(10, 7.8), layout="constrained")
    for axis, month in zip(axes.flat, range(1, 13), strict=True):
        cover, day = best[month]
        axis.imshow(true_colour(region, granules(region)[day])[216:408, 216:408])
        axis.set_title(f"{day}   cloud {cover:.0f} %", fontsize=9, loc="left")
        axis.axis("off")
    save(figure, "simulated-year.png")


def draw_clouds(region: Path) -> None:
    """A date with clouds and shadows, in true colour, as the scene classification tells it, and as it is."""
    partly = [
        (abs(item["properties"]["s2:cloud_shadow_percentage"] - 12), day)
        for day, item in granules(region).items()
        if item["properties"]["s2:snow_ice_percentage"] < 1
    ]
    day = min(partly)[1]
    item = granules(region)[day]
    classes = read(region, item, "scl")
    with rasterio.open(region / "truth" / "sentinel2" / day / "sky.tif") as raster:
        cloud, cirrus, shadow = raster.read([1, 2, 3]).astype(float) / 200
    colours = np.zeros((12, 3))
    names = {2: "#4d4d4d", 3: "#5a3a22", 4: "#3fa34d", 5: "#e0c068", 6: "#2b6cb0", 7: "#9a9a9a"}
    names |= {8: "#c8c8c8", 9: "#ffffff", 10: "#8fd3ff", 11: "#ff8fd0"}
    for value, colour in names.items():
        colours[value] = to_rgb(colour)
    truth = np.stack([1 - 0.6 * shadow, 1 - 0.6 * shadow - 0.3 * cirrus, 1 - 0.6 * shadow], axis=-1)
    truth = np.where((cloud > 0)[..., None], 1 - np.stack([cloud, cloud * 0.35, 0 * cloud], axis=-1), truth).clip(0, 1)
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    panels = ((f"{day}, true colour", true_colour(region, item, 0.4)), ("scene classification", colours[classes]))
    for axis, (title, image) in zip(axes, (*panels, ("truth: cloud, shadow, cirrus", truth)), strict=True):
        axis.imshow(image)
        axis.set_title(title, fontsize=9, loc="left")
        axis.axis("off")
    save(figure, "simulated-clouds.png")


def draw_land(region: Path) -> None:
    """Fields by crop, between woods, water, villages and roads."""
    objects = gpd.GeoDataFrame(pd.concat(gpd.read_parquet(path) for path in (region / "truth" / "land").iterdir()))
    crops = pd.read_parquet(region / "truth" / f"crops-{SEASON}.parquet").set_index("number")["crop"]
    codes = objects["number"].map(crops).fillna("")
    palette = plt.get_cmap("tab20").colors + plt.get_cmap("tab20b").colors
    order = {code: place for place, code in enumerate(codes[codes != ""].value_counts().index)}
    objects["colour"] = [
        GROUND[kind] if kind != "field" else palette[order[code] % len(palette)]
        for kind, code in zip(objects["kind"], codes, strict=True)
    ]
    with rasterio.open(region / "truth" / "fields.tif") as raster:
        west, south, east, north = raster.bounds
    figure, axis = plt.subplots(figsize=(8, 8), layout="constrained")
    axis.set_facecolor(GROUND["road"])
    objects.plot(ax=axis, color=objects["colour"], edgecolor="none")
    axis.set(xlim=(west, east), ylim=(south, north), xticks=[], yticks=[], aspect="equal")
    axis.set_title(f"{(east - west) / 1000:.1f} km, crops of {SEASON}", fontsize=9, loc="left")
    save(figure, "simulated-land.png")


def draw_spectra(region: Path, shared: Path | None) -> None:
    """Mean spectra of ten crops in the first EnMAP scene, and real ones of three kinds of ground."""
    item = items(region, "enmap")[0]
    centres = [band["center_wavelength"] for band in item["assets"]["image"]["eo:bands"]]
    crops = pd.read_parquet(region / "truth" / f"crops-{SEASON}.parquet")
    image, numbers = image_and_fields(region, item)
    figure, axes = plt.subplots(1, 2 if shared else 1, figsize=(12 if shared else 7, 4.4), sharey=True, squeeze=False)
    left = axes[0, 0]
    for code in TEN_CROPS:
        of_crop = np.isin(numbers, crops.loc[crops["crop"] == code, "number"])
        if of_crop.sum() >= 4:
            left.plot(centres, np.nanmedian(image[:, of_crop], axis=1), label=f"{code} ({of_crop.sum()} px)", lw=1)
    left.set_title(f"simulated, {item['properties']['datetime'][:10]}", fontsize=9, loc="left")
    if shared:
        draw_real(axes[0, 1], shared)
    for axis in axes.flat:
        axis.set(xlabel="wavelength in nm", ylim=(0, 0.6))
        axis.legend(fontsize=7, ncols=2)
        axis.grid(alpha=0.3)
    left.set_ylabel("reflectance")
    figure.tight_layout()
    save(figure, "simulated-spectra.png")


def image_and_fields(region: Path, item: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Reflectance (band, y, x) of a scene, NaN where there is none, and the object under each pixel's centre.

    Objects only where all 3 x 3 neighbours have the same.
    """
    with rasterio.open(region / "catalog" / item["assets"]["image"]["href"]) as raster:
        image = np.where((values := raster.read()) == raster.nodata, np.nan, values / 10000)
        transform, shape = raster.transform, raster.shape
    with rasterio.open(region / "truth" / "land.tif") as land:
        columns, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
        x, y = transform @ (columns, rows)
        column, row = ~land.transform @ (x, y)
        numbers = land.read(1)[np.floor(row).astype(int), np.floor(column).astype(int)]
    around = np.lib.stride_tricks.sliding_window_view(np.pad(numbers, 1, mode="edge"), (3, 3))
    return image, np.where((around == numbers[:, :, None, None]).all(axis=(2, 3)), numbers, 0)


def draw_real(axis: Any, shared: Path) -> None:
    """Mean spectra of vegetation, water and built-up ground of the real scene."""
    product = next(path for path in (shared / "data" / "potsdam_2022").iterdir() if path.is_dir())
    bands = parse_metadata(next(product.glob("*METADATA.XML")).read_text(encoding="utf-8")).bands
    with rasterio.open(next(product.glob("*SPECTRAL_IMAGE_COG.TIF"))) as raster:
        image = np.where((values := raster.read()) == raster.nodata, np.nan, values / 10000)
    centres = np.array([band.wavelength for band in bands])

    def near(wavelength: float) -> NDArray[np.float64]:
        return image[np.abs(centres - wavelength).argmin()]

    vegetation = (near(860) - near(665)) / (near(860) + near(665))
    water = (near(560) - near(860)) / (near(560) + near(860))
    kinds = {
        "vegetation (NDVI > 0.8)": vegetation > 0.8,
        "built-up, bare (NDVI 0.1-0.3)": (vegetation > 0.1) & (vegetation < 0.3) & (water < 0),
        "water (NDWI > 0.3)": water > 0.3,
    }
    for name, where in kinds.items():
        axis.plot(centres, np.nanmedian(image[:, where], axis=1), label=f"{name}, {where.sum()} px", lw=1)
    axis.set_title("real: EnMAP, Potsdam, 2022-07-24 ((c) DLR, test data of EnMAP-Box)", fontsize=9, loc="left")


if __name__ == "__main__":
    main()
