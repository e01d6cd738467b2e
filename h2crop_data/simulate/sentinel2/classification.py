"""The scene classification of simulated L2A: the truth by thresholds, wrong in random patches or as the real one is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.randomness import key_of, noise_grid, quantile
from h2crop_data.simulate.settings import ClassificationErrors
from h2crop_data.simulate.sky.atmosphere import HAZE
from h2crop_data.simulate.sky.clouds import blurred, soft_cover
from h2crop_data.simulate.sky.weather import Sky, Weather, clouds_over

#: Opacity of a cloud from which the scene classification sees it, and is sure; of cirrus; share of lost sunlight.
SEEN, SURE, SEEN_CIRRUS, SEEN_SHADOW = 0.25, 0.65, 0.12, 0.45
#: Of systematic errors: how opacities that are missed vary from place to place, metres over which they do; metres of
#: the pieces in which shadows are missed and clouds made wider; share of lost sunlight that shadows are found from.
CLOUD_JITTER, CIRRUS_JITTER, JITTER_SCALE, PIECES, FOUND_SHADOW = 0.1, 0.05, 160, 400, 0.5
#: Reflectance in the blue of haze and aerosol that is called unclassified, and cirrus.
VEIL_UNCLASSIFIED, VEIL_CIRRUS = 0.03, 0.045
#: A blurred mask above this lies within `width` of it, when blurred by a Gaussian of `width` / NEAR_WIDTHS.
NEAR, NEAR_WIDTHS = 0.05, 1.645


@dataclass(frozen=True)
class BrightGround:
    """Reflectance in the blue from which clear ground is called cloud, and unclassified."""

    cloud: float
    unclassified: float


def clear_classes(ten: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classes (y, x) at 20 m of what is seen (B02, B03, B04, B08; y, x) at 10 m if it is clear, and its NDVI."""
    blue, green, red, infrared = ten.reshape(4, ten.shape[1] // 2, 2, ten.shape[2] // 2, 2).mean(axis=(2, 4))
    vegetation = (infrared - red) / (infrared + red + 1e-3)
    water = (green - infrared) / (green + infrared + 1e-3)
    clear = np.select([(water > 0.05) & (infrared < 0.12), vegetation > 0.35], [6, 4], 5)
    clear = np.where((np.maximum(red, infrared) < 0.06) & (clear != 6), 2, clear)
    return np.where((blue > 0.16) & (clear != 6), 7, clear), vegetation


def patchy_classes(
    sky: Sky,
    weather: Weather,
    ten: NDArray[np.float32],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    errors: float,
) -> NDArray[np.uint8]:
    """The scene classification (y, x) uint8 at 20 m: the truth by thresholds, then wrong on a share of the ground.

    ten: what is seen in B02, B03, B04, B08 at 10 m. weather: at 20 m; x, y: columns and rows of 20 m, in metres.
    """
    clear, vegetation = clear_classes(ten)
    classes = np.select(
        [
            weather.cloud > SURE,
            weather.cloud > SEEN,
            weather.cirrus > SEEN_CIRRUS,
            weather.shadow > SEEN_SHADOW,
            weather.snow > 0.5,
        ],
        [9, 8, 10, 3, 11],
        clear,
    )
    return with_random_errors(classes, clear, vegetation, sky, x, y, errors)


def with_random_errors(
    classes: NDArray[np.int64],
    clear: NDArray[np.int64],
    vegetation: NDArray[np.float32],
    sky: Sky,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    errors: float,
) -> NDArray[np.uint8]:
    """Classes (y, x) uint8 that are wrong in patches on a share of the ground."""
    if errors:
        wrong = soft_cover(noise_grid(key_of(sky.key, "classes"), x, y, 160), errors, 0.1) > 0.5
        missed = np.where(classes >= 8, clear, np.where(vegetation > 0.35, 7, 8))
        classes = np.where(wrong, missed, classes)
    return classes.astype(np.uint8)


def systematic_classes(
    sky: Sky,
    weather: Weather,
    ten: NDArray[np.float32],
    surface: NDArray[np.float32],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    errors: ClassificationErrors,
    bright: BrightGround,
    patches: float = 0.0,
) -> NDArray[np.uint8]:
    """The scene classification (y, x) uint8 at 20 m, wrong as the real one is.

    Thin cloud and cirrus are missed, shadow in pieces; bright ground is cloud; what lies near cloud is unclassified,
    near cirrus cirrus, as is ground under a veil of haze or aerosol. As `patchy_classes`; surface: the ground's
    reflectance in the blue at 10 m. patches: share of the ground that is wrong in random patches on top.
    """
    clear, vegetation = clear_classes(ten)
    aerosol = np.float32(0) if weather.aerosol is None else weather.aerosol
    ground = surface.reshape(surface.shape[0] // 2, 2, surface.shape[1] // 2, 2).mean(axis=(1, 3)) - aerosol
    veil = np.float32(HAZE) * weather.haze + aerosol
    least_cloud, least_cirrus = least_opacities(sky, x, y, errors)
    cloud, cirrus = weather.cloud > least_cloud, weather.cirrus > least_cirrus
    missed = noise_grid(key_of(sky.key, "missed shadow"), x, y, PIECES) < quantile(errors.missed_shadow)
    near_cloud, near_cirrus = near_clouds(sky, x, y, errors)
    classes = np.select(
        [
            cloud & (weather.cloud > SURE),
            cloud,
            cirrus,
            (weather.shadow > FOUND_SHADOW) & ~missed,
            weather.snow > 0.5,
            ground > bright.cloud,
            near_cirrus | (veil > VEIL_CIRRUS),
            near_cloud | (veil > VEIL_UNCLASSIFIED) | (ground > bright.unclassified),
        ],
        [9, 8, 10, 3, 11, 8, 10, 7],
        clear,
    )
    return with_random_errors(classes, clear, vegetation, sky, x, y, patches)


def least_opacities(
    sky: Sky, x: NDArray[np.float64], y: NDArray[np.float64], errors: ClassificationErrors
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Opacity of cloud, and of cirrus, from which it is found at each place, (y, x)."""
    jitter = noise_grid(key_of(sky.key, "least opacity"), x, y, JITTER_SCALE)
    return (
        np.float32(errors.thin_cloud) + np.float32(CLOUD_JITTER if errors.thin_cloud else 0) * jitter,
        np.float32(errors.thin_cirrus) + np.float32(CIRRUS_JITTER if errors.thin_cirrus else 0) * jitter,
    )


def near_clouds(
    sky: Sky, x: NDArray[np.float64], y: NDArray[np.float64], errors: ClassificationErrors
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether places (y, x) are near found low clouds, and near found cirrus."""

    def near(which: int, width: float) -> NDArray[np.bool_]:
        def found(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
            opacity = clouds_over(sky, x, y)[which]
            return (opacity > least_opacities(sky, x, y, errors)[which]).astype(np.float32)

        if not width or not errors.widened or not any((layer.kind == "cirrus") == bool(which) for layer in sky.layers):
            return np.zeros((len(y), len(x)), bool)
        widened = noise_grid(key_of(sky.key, "widened", which), x, y, PIECES) < quantile(errors.widened)
        return widened & (blurred(found, x, y, width / NEAR_WIDTHS) > NEAR)

    return near(0, errors.unclassified_width), near(1, errors.cirrus_width)
