"""The unit that looks for clouds in a scene: bands that say nothing, and files that are cut."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from enmap_products import COLUMNS, ROWS, product_of, write_product
from numpy.typing import NDArray

from h2crop_data.array_archive import read_arrays
from h2crop_data.constants import ENMAP_MASK_FLAGS, REFLECTANCE_FILL
from h2crop_data.enmap.clouds import MASK_WAVELENGTHS
from h2crop_data.errors import SceneError
from h2crop_data.recipe.enmap import EnmapBands, EnmapSettings
from h2crop_data.sources.enmap.masks import mask_scene
from h2crop_data.sources.enmap.scene import look_at_scene, scene_cells

BANDS = len(MASK_WAVELENGTHS)
UNSEEN = ENMAP_MASK_FLAGS["unseen"]
CELL_SIZE = 240
#: Reflectance x 10000 at MASK_WAVELENGTHS.
VEGETATION = dict(zip(MASK_WAVELENGTHS, (200, 300, 600, 300, 4500, 2000, 900), strict=True))


def scene(
    folder: Path, empty: dict[int, NDArray[np.bool_]], centres: tuple[float, ...] = MASK_WAVELENGTHS
) -> pystac.Item:
    """A clear product of vegetation with the bands of the mask.

    empty: place of a band -> pixels (y, x) that it does not have.
    """
    files = write_product(folder, product_of(centres=centres, fwhm=(8.0,) * len(centres)))
    item = pystac.Item("scene", None, None, datetime(2023, 6, 29, 11, 1, 32, tzinfo=UTC), {})
    for key, path in files.items():
        item.add_asset(key, pystac.Asset(str(path)))
    values = np.empty((len(centres), ROWS, COLUMNS), np.int16)
    for place, centre in enumerate(centres):
        values[place] = VEGETATION[centre]
        values[place][empty.get(place, part(slice(0)))] = REFLECTANCE_FILL
    with rasterio.open(files["image"]) as image:
        profile = image.profile
    with rasterio.open(files["image"], "w", **profile) as image:
        image.write(values)
    return item


def mask_of(item: pystac.Item) -> tuple[NDArray[np.uint8], str]:
    """The mask of a scene, and why nobody looked."""
    found = read_arrays(io.BytesIO(mask_scene(item, [])))
    return found["mask"], json.loads(str(found["facts"]))["reason"]


def settings(mask: str) -> EnmapSettings:
    return EnmapSettings(catalog="x", mask=mask, bands=EnmapBands(exclude_nm=[], count=BANDS))


def part(rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[np.bool_]:
    """Some pixels of a product."""
    pixels = np.zeros((ROWS, COLUMNS), bool)
    pixels[rows, columns] = True
    return pixels


def test_a_band_without_values_leaves_the_scene_unseen_and_is_named(tmp_path: Path) -> None:
    item = scene(tmp_path, {5: part()})
    mask, reason = mask_of(item)
    assert (mask == UNSEEN).all()
    assert (
        reason
        == "the band at 1610 nm has a value in 0% of the pixels that other bands imaged: clouds cannot be detected"
    )
    kept = tmp_path / "mask.npz"
    kept.write_bytes(mask_scene(item, []))
    with pytest.raises(
        SceneError, match=r"its clouds are unknown: the band at 1610 nm .*set `enmap.mask: report` to use"
    ):
        look_at_scene(item, settings("apply"), CELL_SIZE, [kept])


def test_a_scene_without_any_value_was_not_looked_at(tmp_path: Path) -> None:
    mask, reason = mask_of(scene(tmp_path, dict.fromkeys(range(BANDS), part())))
    assert (mask == UNSEEN).all()
    assert reason.startswith("none of the bands")


def test_a_band_that_the_product_does_not_have_is_named(tmp_path: Path) -> None:
    mask, reason = mask_of(scene(tmp_path, {}, tuple(one for one in MASK_WAVELENGTHS if one != 865)))
    assert (mask == UNSEEN).all()
    assert "within 15 nm of 865 nm" in reason


def test_ground_beyond_the_swath_keeps_no_scene_out(tmp_path: Path) -> None:
    """What no band imaged does not count, however much it is."""
    beyond = part(columns=slice(4, None))
    mask, reason = mask_of(scene(tmp_path, dict.fromkeys(range(BANDS), beyond)))
    assert reason == ""
    assert ((mask == UNSEEN) == beyond).all()


def test_single_pixels_that_could_not_be_looked_at_count_as_flagged_where_the_mask_is_applied(tmp_path: Path) -> None:
    gap = part(slice(4, 6), slice(6, 9))
    item = scene(tmp_path, {2: gap})
    mask, reason = mask_of(item)
    assert reason == ""
    assert ((mask & UNSEEN != 0) == gap).all()
    kept = tmp_path / "mask.npz"
    kept.write_bytes(mask_scene(item, []))
    shares = {
        mode: scene_cells(look_at_scene(item, settings(mode), CELL_SIZE, [kept] if mode == "apply" else []))
        for mode in ("report", "apply")
    }
    assert shares["report"]
    assert set(shares["report"].values()) == {0.0}
    assert (mask[~gap] == 0).all()
    # Cells and pixels lie on grids half a pixel apart: a gap of 2 x 3 pixels is under up to 3 x 4 stored ones.
    pixels = (CELL_SIZE // 30) ** 2
    assert 6 <= pixels * sum(shares["apply"].values()) <= 12


def test_an_image_that_is_cut_refuses_its_scene_alone(tmp_path: Path) -> None:
    """A plan goes on without scenes that raise SceneError."""
    item = scene(tmp_path, {})
    image = Path(item.assets["image"].href)
    whole = image.read_bytes()
    image.write_bytes(whole[: int(0.9 * len(whole))])
    with pytest.raises(SceneError, match="clouds cannot be detected: "):
        mask_scene(item, [])
