"""Draw docs/images/enmap-masks.png: simulated scenes, the true sky, layers as the simulator spoils them, our mask;
below them a real scene.

    python docs/enmap_masks_picture.py [ITEMS]

ITEMS: items.json of a product on disk; without it only simulated scenes are drawn.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from rasterio.windows import Window

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "benchmarks"))
from bench_enmap_masks import mask_of
from enmap_mask_scenes import MaskScene, mask_scenes

from h2crop_data.catalog.access import read_window
from h2crop_data.catalog.search import read_item_collection
from h2crop_data.constants import REFLECTANCE_SCALE
from h2crop_data.enmap.own_mask import bands_for_mask, own_mask
from h2crop_data.sources.enmap.layers import read_flags
from h2crop_data.sources.enmap.masks import suns_of
from h2crop_data.sources.enmap.scene import image_of, metadata_of

PICTURE = Path(__file__).parent / "images/enmap-masks.png"
#: A seed that rules were not chosen on, and scenes of it.
SEED, SCENES = 100, ("100-05-2", "100-07-4", "100-09-6", "100-02-3")
TITLES = ("true colour", "true sky", "layers of DLR, simulated", "our mask")
#: Reflectance that is white; colours of cloud, shadow, cirrus.
WHITE = 0.35
CLOUD, SHADOW, CIRRUS = (0.88, 0.27, 0.48), (0.42, 0.30, 0.60), (0.25, 0.72, 0.66)


def true_colour(reflectance: Any) -> Any:
    """Red, green, blue (y, x, 3) of the bands of a mask."""
    return np.clip(np.stack([reflectance[band] for band in (3, 2, 1)], axis=-1) / WHITE, 0, 1)


def painted(image: Any, cloud: Any, shadow: Any, cirrus: Any = None) -> Any:
    """A grey image with clouds and shadows in colour."""
    shown = np.repeat(0.35 + 0.65 * image.mean(axis=-1, keepdims=True), 3, axis=-1)
    for mask, colour in ((cirrus, CIRRUS), (shadow, SHADOW), (cloud, CLOUD)):
        if mask is not None:
            shown[mask] = colour
    return shown


def panels_of(scene: MaskScene) -> list[Any]:
    """The four panels of a simulated scene."""
    image, sky, bits = true_colour(scene.reflectance), scene.weather, mask_of(scene).bits
    truth = painted(image, sky.cloud > 0.25, (sky.shadow > 0.3) & (sky.cloud < 0.1), sky.cirrus > 0.1)
    layers = [scene.layers[name] == 1 for name in ("quality_cloud", "quality_cloud_shadow")]
    return [image, truth, painted(image, *layers), painted(image, (bits & 1) != 0, (bits & 2) != 0)]


def panels_of_product(items: Path) -> list[Any]:
    """The panels of a product on disk, whose true sky is unknown."""
    item = next(iter(read_item_collection(items)))
    product = metadata_of(item)
    image = image_of(item, product)
    height, width = image.grid.shape
    numbers, _ = read_window(
        image.href, Window(0, 0, width, height), [band.number for band in bands_for_mask(product.bands)]
    )
    reflectance = numbers.astype(np.float32) * np.float32(REFLECTANCE_SCALE)
    suns = suns_of(item, product.angles, image.grid)
    bits = own_mask(reflectance, np.ones((height, width), bool), suns, image.grid.affine.a).bits
    flags = read_flags(item, image.grid)
    shown = true_colour(reflectance)
    layers = painted(shown, (flags & 4) != 0, (flags & 8) != 0)
    return [shown, None, layers, painted(shown, (bits & 1) != 0, (bits & 2) != 0)]


def main() -> None:
    """Draw."""
    mpl.use("agg")
    with tempfile.TemporaryDirectory() as folder:
        found = {scene.name: panels_of(scene) for scene in mask_scenes(SEED, Path(folder)) if scene.name in SCENES}
    rows = [found[name] for name in SCENES]
    if len(sys.argv) > 1:
        rows.append(panels_of_product(Path(sys.argv[1])))
    heights = [panels[0].shape[0] / panels[0].shape[1] for panels in rows]
    figure, axes = plt.subplots(
        len(rows), 4, figsize=(9, 9 / 4 * sum(heights) + 0.5), height_ratios=heights, squeeze=False
    )
    for places, panels in zip(axes, rows, strict=True):
        for place, panel in zip(places, panels, strict=True):
            place.axis("off")
            if panel is not None:
                place.imshow(panel, interpolation="nearest")
    for place, title in zip(axes[0], TITLES, strict=True):
        place.set_title(title, fontsize=9)
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - 0.25 / figure.get_figheight(), 0.02, 0.02)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=80)
    # A palette makes the file a quarter as large.
    Image.open(buffer).convert("RGB").quantize(64).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
