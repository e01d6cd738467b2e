"""A small folder in the layout of the published H2Crop dataset, as awkward as HDF5 files can be.

No two files store dates, clouds or anything else beside the four arrays in the same way, and the images have numbers
at every limit of their type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

#: Two seasons, four scenes, three MGRS tiles of two UTM zones; one ground under two tiles.
IDS = {
    "train": [
        "20230701T105812Z_001_x0_y0_T31TCJ",
        "20220613T112220Z_003_x448_y704_T32ULV",
        "20220613T112220Z_003_x384_y704_T32ULV",
        "20220613T112220Z_003_x384_y704_T31UGQ",
    ],
    "val": ["20220613T112220Z_003_x512_y704_T32ULV"],
    "test": ["20230702T110001Z_012_x64_y128_T31TCJ", "20220914T105000Z_007_x64_y64_T32ULV"],
}


@dataclass
class MadeFolder:
    """A published folder."""

    folder: Path
    lists: dict[str, list[str]] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return [name for names in self.lists.values() for name in names]

    def path(self, name: str) -> Path:
        return self.folder / "h5_data" / f"{name}.h5"


def make_published(folder: Path, lists: dict[str, list[str]] | None = None) -> MadeFolder:
    """Write files and lists; each file is of the next kind of `KINDS`."""
    made = MadeFolder(folder, IDS if lists is None else lists)
    (folder / "h5_data").mkdir(parents=True)
    (folder / "data_lists").mkdir()
    for split, names in made.lists.items():
        (folder / "data_lists" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    for number, name in enumerate(made.ids):
        write_sample(made.path(name), number, int(name[:4]))
    return made


def write_sample(path: Path, number: int, season: int) -> None:
    """One file, of kind `number`."""
    with h5py.File(path, "w") as file:
        KINDS[number % len(KINDS)](file, number, season)


def sentinel2(number: int) -> NDArray[np.int16]:
    """(12, 10, 192, 192): 1000 and more, and in the corners everything that an offset or fill could spoil."""
    month, band, y, x = np.ogrid[:12, :10, :192, :192]
    values = (1200 + 37 * number + 100 * band + 10 * month + y // 8 + x // 16).astype(np.int16)
    values[:, :, :8, :8] = 0
    values[1, :, 8:16] = 0
    values[2, 3, 20:30, 20:30] = 0
    values[3, :, 0, 100] = (0, 1, 999, 1000, 1001, 32767, -32767, -25536, -31768, -31767)
    values[4, :, 0, 101] = -32768
    values[4, 5, 0, 102] = -32768
    values[4, :, 0, 103] = (0, -32768, 0, 0, 0, 0, 0, 0, 0, 0)
    return values


def enmap(number: int) -> NDArray[np.int16]:
    """(218, 64, 64), with pixels and bands of 0 and of -32768."""
    band, y, x = np.ogrid[:218, :64, :64]
    values = (300 + 11 * number + 10 * band + y + x // 4).astype(np.int16)
    values[:, :2, :2] = -32768
    values[:, 4, 4] = 0
    values[100:110, 5, 5] = -32768
    values[:, 6, 6] = np.where(np.arange(218) % 2, 0, -32768)
    values[7, 8, 8] = 0
    return values


def classes(number: int, shift: int) -> NDArray[np.uint8]:
    """(4, 192, 192), with 0 and 255."""
    tier, y, x = np.ogrid[:4, :192, :192]
    values = ((y // 24 + x // 24 + tier + number + shift) % 6 * (tier + 1)).astype(np.uint8)
    values[3, 100:120] = 255
    return values


def arrays(number: int) -> dict[str, NDArray[Any]]:
    """The four arrays of a sample."""
    return {
        "EnMAP_data": enmap(number),
        "S2_data": sentinel2(number),
        "label": classes(number, 0),
        "priors": classes(number, 2),
    }


def mask(number: int) -> NDArray[np.bool_]:
    """(64, 64): a cloud that no turn or flip leaves where it is."""
    cloud = np.zeros((64, 64), bool)
    cloud[10 + number : 20, 3:9] = True
    return cloud


def write_arrays(file: h5py.File, number: int) -> None:
    for name, values in arrays(number).items():
        file[name] = values


def day_texts(season: int) -> list[str]:
    """The 10th, 11th, … of each month."""
    return [f"{season}-{month:02d}-{9 + month:02d}" for month in range(1, 13)]


def texts(file: h5py.File, number: int, season: int) -> None:
    """Dates as texts of any length, clouds as 0 and 1, attributes of every sort."""
    write_arrays(file, number)
    file.create_dataset("S2_date", data=day_texts(season), dtype=h5py.string_dtype())
    file["EnMAP_cloud"] = mask(number).astype(np.uint8)
    file.attrs["source"] = "H2Crop"
    file.attrs["version"] = np.array([1, 2], ">i4")
    file.attrs["fixed"] = np.bytes_(b"abc")
    file.attrs["names"] = np.array(["a", "bcd"], dtype=object)
    file.attrs["nothing"] = h5py.Empty("f4")
    file["S2_data"].attrs["bands"] = np.array([b"B02", b"B03"])
    file["EnMAP_cloud"].attrs["flag"] = True


def compact_texts(file: h5py.File, number: int, season: int) -> None:
    """Dates as bytes of eight digits, one month without, clouds as truth values."""
    write_arrays(file, number)
    days = [text.replace("-", "") for text in day_texts(season)]
    file["S2_date"] = np.array([b"", *(day.encode() for day in days[1:])], "S8")
    file["EnMAP_cloud"] = mask(number)


def numbers(file: h5py.File, number: int, season: int) -> None:
    """Dates as numbers, a cover instead of a mask."""
    write_arrays(file, number)
    file["S2_date"] = np.array([[int(text.replace("-", ""))] for text in day_texts(season)], np.int32)
    file["EnMAP_cloud"] = np.float32(0.25)


def days_of_pixels(file: h5py.File, number: int, season: int) -> None:
    """A day of the year for each pixel, clouds as 255 in three dimensions."""
    write_arrays(file, number)
    days = np.array([np.datetime64(text) - np.datetime64(f"{season}-01-01") for text in day_texts(season)])
    grid = np.broadcast_to(days.astype(int)[:, None, None] + 1, (12, 192, 192)).astype(np.uint16)
    grid[5, 50:60] = 0
    file.create_dataset("S2_date", data=grid, compression="gzip", chunks=(1, 192, 192))
    file["EnMAP_cloud"] = (255 * mask(number)).astype(np.int16)[None]


def without(file: h5py.File, number: int, season: int) -> None:
    """No dates and no clouds, but groups, records, links and lists nobody asked for."""
    write_arrays(file, number)
    group = file.create_group("more/inside")
    group.attrs["season"] = season
    group["record"] = np.array([(1, 2.5), (3, 4.5)], [("a", "<i4"), ("b", ">f8")])
    rows = file.create_dataset("lists", (3,), h5py.vlen_dtype(np.int16))
    rows[0], rows[2] = [1, 2, 3], [4]
    file["same_labels"] = h5py.SoftLink("/label")
    file["empty"] = h5py.Empty("i8")


def unreadable_dates(file: h5py.File, number: int, season: int) -> None:
    """Dates and clouds in forms that say nothing; arrays big-endian, cut into chunks and compressed."""
    values = arrays(number)
    file.create_dataset(
        "S2_data",
        data=values["S2_data"].astype(">i2"),
        chunks=(1, 10, 192, 192),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fillvalue=7,
    )
    file.create_dataset("EnMAP_data", data=values["EnMAP_data"], chunks=(109, 64, 64), maxshape=(None, 64, 64))
    file.create_dataset("label", data=values["label"], chunks=(4, 192, 192), fletcher32=True)
    file["priors"] = values["priors"]
    file["S2_date"] = np.arange(36, dtype=np.int64).reshape(12, 3)
    file["EnMAP_cloud"] = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


Kind = Callable[[h5py.File, int, int], None]
KINDS: Sequence[Kind] = (texts, compact_texts, numbers, days_of_pixels, without, unreadable_dates)


def scene_catalog(path: Path, *scenes: tuple[str, float, float]) -> Path:
    """EnMAP items (scene of an id, corner in EPSG:32631) as an ItemCollection."""
    features = [
        {
            "id": f"ENMAP01-____L2A-DT0000000001_{name}_V010402_20240101T000000Z",
            "geometry": {"type": "Polygon", "coordinates": [[[0, 43], [2, 43], [2, 44.5], [0, 44.5], [0, 43]]]},
            "properties": {"proj:epsg": 32631, "enmap:acrossOffNadirAngle": -4.5},
            "assets": {"image": {"proj:transform": [30, 0, x, 0, -30, y], "proj:shape": [1000, 1000]}},
        }
        for name, x, y in scenes
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path
