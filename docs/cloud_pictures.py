"""Draw the pictures of docs/clouds.md and write its tables: cloud masks on real dates, and on a simulated scene.

    h2crop simulate build/natural --natural --l1c --scenes 0 --cloudiness 0.4 --seed 7
    python docs/cloud_pictures.py build/natural

Real dates are those of `flanders_2018` in H2CROP_SHARED, which must be set; needs the extra `clouds`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests" / "makers"))
sys.path.append(str(Path(__file__).parents[1] / "tests" / "benchmarks"))

import cloud_regions
from cloud_regions import Region, read_region
from flanders_dates import CLEAR_DATES, Dates, default_rules, detected, read_dates, tile_dates, with_detector

from h2crop_data.sentinel2.clouds import method_named
from h2crop_data.sentinel2.tile_masks import MaskCode, TileDates, mask_tile

PAGE = Path(__file__).parent / "clouds.md"
IMAGES = Path(__file__).parent / "images"
#: Between which tables stand in the page.
BEGIN, END = "<!-- table {} of docs/cloud_pictures.py -->", "<!-- end of table {} -->"
DISPUTED = (
    "2017-08-24",
    "2017-12-27",
    "2018-03-20",
    "2018-04-21",
    "2018-05-04",
    "2018-05-24",
    "2018-06-10",
    "2018-06-15",
    "2018-06-23",
    "2018-06-25",
    "2018-07-05",
    "2018-07-13",
    "2018-07-18",
    "2018-11-22",
)
#: Dates of the simulated scene: cirrus, broken clouds, small clouds, haze; the part drawn, in pixels of 20 m.
SIMULATED = ("2022-03-13", "2022-04-02", "2022-05-15", "2022-07-21")
PART = slice(100, 300)
CLASSES = {
    0: ("#000000", "no data"),
    1: ("#ff0000", "saturated"),
    2: ("#4d4d4d", "dark"),
    3: ("#5a3a22", "shadow"),
    4: ("#3fa34d", "vegetation"),
    5: ("#e0c068", "bare"),
    6: ("#2b6cb0", "water"),
    7: ("#9a9a9a", "unclassified"),
    8: ("#d9d9d9", "cloud, medium"),
    9: ("#ffffff", "cloud, high"),
    10: ("#8fd3ff", "cirrus"),
    11: ("#ff8fd0", "snow"),
}
CODES = {
    MaskCode.NOT_IMAGED: ("#000000", "not imaged"),
    MaskCode.CLEAR: ("#3fa34d", "clear"),
    MaskCode.CLOUD: ("#ffffff", "cloud"),
    MaskCode.SHADOW: ("#5a3a22", "shadow"),
    MaskCode.CAST_SHADOW: ("#d2752b", "cast shadow"),
    MaskCode.SNOW: ("#ff8fd0", "snow"),
    MaskCode.SECOND_LOOK: ("#e31a1c", "second look"),
    MaskCode.NEAR: ("#ffd92f", "near"),
    MaskCode.UNUSABLE: ("#9a9a9a", "unusable"),
}
#: Names of what is drawn, SCL's and ours, and their colours; haze of the simulator's truth.
COLOURS = {name: colour for colour, name in [*CLASSES.values(), *CODES.values()] if not name.startswith("no")}
HAZE = "#b7d5a8"
CLASS_COLOURS = np.array([to_rgb(colour) for colour, _ in CLASSES.values()])
CODE_COLOURS = np.array([to_rgb(CODES[code][0]) for code in MaskCode])


def main() -> None:
    """Draw both pictures and write the tables."""
    draw_real(read_dates(Path(os.environ["H2CROP_SHARED"]) / "data/flanders_2018"))
    draw_simulated(Path(sys.argv[1]))


def draw_real(dates: Dates) -> None:
    """The disputed dates, and how methods disagree on all."""
    tile, ukis = tile_dates(dates), method_named("ukis")
    found = {f"ukis{note}": detected(dates, ukis, way) for way, note in (("30 m", ""), ("10 m", " at 10 m"))}
    masks = {"`scl`": mask_tile(tile, default_rules("scl"))}
    for name, layers in found.items():
        for method in ("scl+ukis", "ukis"):
            seen = with_detector(tile, layers)
            masks[f"`{method}`{name.removeprefix('ukis')}"] = mask_tile(seen, default_rules(method))
    write_tables(kept_table(dates, tile, masks), disputed_table(dates, tile, masks), disagreement_table(tile, found))
    draw_disputed(dates, tile, found["ukis"], masks)


def true_colour(dates: Dates, place: int) -> NDArray[np.float64]:
    """Red, green, blue of a date (y, x, 3), 0..1, all dates alike."""
    return np.clip(reflectance(dates, place) / 0.24, 0, 1) ** 0.75


def stretched(dates: Dates, place: int) -> NDArray[np.float64]:
    """Red, green, blue of a date (y, x, 3), 0..1, from its darkest to its brightest."""
    values = reflectance(dates, place)
    low, high = np.percentile(values, [2, 98])
    return np.clip((values - low) / (high - low), 0, 1)


def reflectance(dates: Dates, place: int) -> NDArray[np.float64]:
    """Red, green, blue of a date, (y, x, 3)."""
    return np.stack([dates.bands[band][place] for band in ("B04", "B03", "B02")], axis=-1) / 10_000


def of_detector(cloud: NDArray[np.bool_], shadow: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What a detector says in the colours of codes (y, x, 3)."""
    return CODE_COLOURS[np.select([cloud, shadow], [MaskCode.CLOUD, MaskCode.SHADOW], MaskCode.CLEAR)]


def draw_disputed(
    dates: Dates,
    tile: TileDates,
    found: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    masks: Mapping[str, NDArray[np.uint8]],
) -> None:
    """A row for each disputed date."""
    clear = [dates.place(day) for day in CLEAR_DATES]
    figure, axes = plt.subplots(len(DISPUTED), 8, figsize=(13.2, 1.78 * len(DISPUTED) + 0.4), layout="constrained")
    for row, day in zip(axes, DISPUTED, strict=True):
        place = dates.place(day)
        before = max((other for other in clear if other < place), default=None)
        after = min((other for other in clear if other > place), default=None)
        panels: list[tuple[str, NDArray[Any] | None]] = [
            ("no clear date" if before is None else str(dates.days[before]), shown(dates, before)),
            (day, true_colour(dates, place)),
            ("stretched", stretched(dates, place)),
            ("no clear date" if after is None else str(dates.days[after]), shown(dates, after)),
            ("SCL", CLASS_COLOURS[tile.classes[place]]),
            *((kept_title(name, codes[place]), CODE_COLOURS[codes[place]]) for name, codes in list(masks.items())[:1]),
            ("ukis at 30 m", of_detector(found[0][place], found[1][place])),
            *((kept_title(name, codes[place]), CODE_COLOURS[codes[place]]) for name, codes in list(masks.items())[1:2]),
        ]
        draw_row(row, panels, bold=day)
    add_keys(figure, COLOURS)
    save(figure, "clouds-flanders.png")


def shown(dates: Dates, place: int | None) -> NDArray[np.float64] | None:
    """True colour of a date, if there is one."""
    return None if place is None else true_colour(dates, place)


def kept_title(name: str, codes: NDArray[np.uint8]) -> str:
    """A mask's name and how much it keeps."""
    return f"{name.replace('`', '')}: {100 * (codes == MaskCode.CLEAR).mean():.0f} %"


def draw_row(axes: Sequence[Any], panels: Sequence[tuple[str, NDArray[Any] | None]], bold: str = "") -> None:
    """Images with their titles."""
    for axis, (title, image) in zip(axes, panels, strict=True):
        axis.axis("off")
        if image is not None:
            axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=8, loc="left", pad=2, fontweight="bold" if title == bold else "normal")


def add_keys(figure: Any, colours: Mapping[str, str]) -> None:
    """What colours mean, below."""
    patches = [
        Patch(facecolor=colour, edgecolor="black", linewidth=0.4, label=name) for name, colour in colours.items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=9, fontsize=7, frameon=False)


def save(figure: Any, name: str) -> None:
    """Write a figure as PNG. Not with a palette: of 256 colours those of rare codes would become others."""
    path = IMAGES / name
    figure.savefig(path, dpi=90)
    plt.close(figure)
    with Image.open(path) as image:
        whole = image.convert("RGB")
    whole.save(path, optimize=True)


def kept_table(dates: Dates, tile: TileDates, masks: Mapping[str, NDArray[np.uint8]]) -> list[str]:
    """How many dates, observations and months each mask keeps."""
    seen_clear = [dates.place(day) for day in CLEAR_DATES]
    months = np.array([day.year * 12 + day.month for day in dates.days])
    keeps = {"SCL 4, 5, 6, no other step": np.isin(tile.classes, (4, 5, 6))}
    keeps |= {name: codes == MaskCode.CLEAR for name, codes in masks.items()}
    lines = [
        "| mask | dates kept by half or more | by nine tenths or more | observations | of dates seen to be clear "
        "| pixel-months |",
        "|---|---|---|---|---|---|",
    ]
    for name, clear in keeps.items():
        share = clear.mean(axis=(1, 2))
        filled = np.mean([clear[months == month].any(axis=0).mean() for month in np.unique(months)])
        lines.append(
            f"| {name} | {(share >= 0.5).sum()} | {(share >= 0.9).sum()} | {100 * clear.mean():.1f} % "
            f"| {100 * clear[seen_clear].mean():.1f} % | {100 * filled:.1f} % |"
        )
    return lines


def disagreement_table(tile: TileDates, found: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> list[str]:
    """What ukis says of each class."""
    lines = [
        "| SCL | share | " + " | ".join(f"{name}: cloud | shadow | neither" for name in found) + " |",
        "|---|---|" + "---|---|---|" * len(found),
    ]
    for value, (_, name) in CLASSES.items():
        here = tile.classes == value
        if here.mean() < 0.001:
            continue
        cells = [f"{value} {name}", f"{100 * here.mean():.1f} %"]
        for cloud, shadow in found.values():
            cells += [f"{100 * layer[here].mean():.0f} %" for layer in (cloud, shadow, ~(cloud | shadow))]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def disputed_table(dates: Dates, tile: TileDates, masks: Mapping[str, NDArray[np.uint8]]) -> list[str]:
    """How much of each disputed date the masks keep."""
    lines = ["| date | SCL 4, 5, 6 | " + " | ".join(masks) + " |", "|---|---|" + "---|" * len(masks)]
    for day in DISPUTED:
        place = dates.place(day)
        shares = [np.isin(tile.classes[place], (4, 5, 6))]
        shares += [codes[place] == MaskCode.CLEAR for codes in masks.values()]
        lines.append(f"| {day} | " + " | ".join(f"{100 * share.mean():.0f} %" for share in shares) + " |")
    return lines


def write_tables(*tables: list[str]) -> None:
    """Tables into the page, one after the other between their marks."""
    text = PAGE.read_text(encoding="utf-8")
    for number, lines in enumerate(tables, 1):
        begin, end = BEGIN.format(number), END.format(number)
        before, rest = text.split(begin)
        text = before + begin + "\n\n" + "\n".join(lines) + "\n\n" + end + rest.split(end)[1]
    PAGE.write_text(text, encoding="utf-8")


def draw_simulated(folder: Path) -> None:
    """Dates of a natural scene: as it looks, as it is, and what each default says."""
    region = read_region(folder, ["ukis", "s2cloudless"])
    names = {"scl": (), "scl+ukis": ("ukis",), "s2cloudless+ukis": ("s2cloudless", "ukis")}
    named = [(name, mask_tile(region_dates(region, of), default_rules(name))) for name, of in names.items()]
    figure, axes = plt.subplots(len(SIMULATED), 6, figsize=(13.2, 2.3 * len(SIMULATED) + 0.5), layout="constrained")
    for row, day in zip(axes, SIMULATED, strict=True):
        place = int(np.flatnonzero(region.days == np.datetime64(day))[0])
        item = cloud_regions.items_of(folder, "sentinel-2-c1-l2a")[day]
        image = cloud_regions.Image(folder, item, 1000)
        colour = np.stack([image.band(band, 20) for band in ("B04", "B03", "B02")], axis=-1)[PART, PART]
        said = [(kept_title(name, codes[place]), CODE_COLOURS[codes[place][PART, PART]]) for name, codes in named]
        panels: list[tuple[str, NDArray[Any] | None]] = [
            (day, np.clip(np.nan_to_num(colour) / 0.3, 0, 1) ** 0.75),
            ("truth", truth(region.sky[place])),
            ("SCL", CLASS_COLOURS[region.classes[place][PART, PART]]),
            *said,
        ]
        draw_row(row, panels, bold=day)
    add_keys(figure, COLOURS | {"truth: haze": HAZE})
    save(figure, "clouds-simulated.png")


def truth(sky: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Cloud, cirrus, shadow, haze, snow (5, y, x) in half percent at 10 m as colours at 20 m: above 5 %, haze 20 %."""
    layers = sky[:, ::2, ::2][:, PART, PART]
    image = np.broadcast_to(to_rgb(CODES[MaskCode.CLEAR][0]), (*layers.shape[1:], 3)).copy()
    for layer, colour in ((3, HAZE), (2, CODES[MaskCode.SHADOW][0]), (1, "#8fd3ff"), (0, "#ffffff")):
        image[layers[layer] > (40 if layer == 3 else 10)] = to_rgb(colour)
    return image


def region_dates(region: Region, methods: Sequence[str]) -> TileDates:
    """The dates of a region with what some detectors say of them."""
    cloud, shadow = np.zeros((2, *region.classes.shape), bool)
    for name in methods:
        cloud, shadow = cloud | region.detected[name][0], shadow | region.detected[name][1]
    days = region.days.astype(np.int32)
    bands = (region.blue, region.infrared, region.swir)
    return TileDates(days, region.sun, region.classes, *bands, cloud, shadow)


if __name__ == "__main__":
    main()
