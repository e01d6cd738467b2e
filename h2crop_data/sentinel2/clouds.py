"""Cloud detectors: what one is, and finding one by its name.

A detector looks at one date over a processing tile and says where cloud and, if it knows any, shadow is. Ours are in
`ukis_clouds` and `s2cloudless_clouds`; a package brings another by an entry point of the group `h2crop.cloud_methods`
that names a class with the attributes and the method of `CloudMethod`. The scene classification of L2A is no detector:
it is read with the image (`tile_masks.MaskRules.uses_classes`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from h2crop_data.errors import PluginError, UsageError

Scalar = TypeVar("Scalar", bound=np.generic)

METHODS_GROUP = "h2crop.cloud_methods"
#: Ours: name -> module, class.
OWN = {
    "ukis": ("h2crop_data.sentinel2.ukis_clouds", "UkisClouds"),
    "s2cloudless": ("h2crop_data.sentinel2.s2cloudless_clouds", "S2cloudlessClouds"),
}
#: Pixel sizes in metres at which a detector may look.
PIXELS = (20, 30, 60)
#: Pixel size in metres of masks.
MASK_PIXEL = 20


@dataclass(frozen=True)
class Detection:
    """What a detector says of one date; each (y, x) on the grid it was given."""

    cloud: NDArray[np.bool_]
    #: All False for detectors that know no shadow.
    shadow: NDArray[np.bool_]
    #: Probability of cloud, 0..1 float32; None for detectors that give none.
    probability: NDArray[np.float32] | None


class CloudMethod(Protocol):
    """A detector of clouds. It is made once and used for many dates, from one thread at a time."""

    #: As it is called in recipes and provenance.
    name: str
    #: Of the method and of its weights: enters hashes and provenance, so it must change whenever masks may.
    version: str
    #: Which products it looks at.
    level: Literal["L2A", "L1C"]
    #: The bands it wants, in its order.
    bands: tuple[str, ...]
    #: Pixel size in metres at which it wants them: 20, 30 or 60.
    pixel: int

    def detect(self, reflectance: NDArray[np.float32], imaged: NDArray[np.bool_]) -> Detection:
        """Clouds of one date over a tile with its margin, any whole number of pixels.

        reflectance: (band, y, x), 0..1 (slightly negative and above 1 occur); without meaning where not imaged (y, x).
        The same array gives the same masks, whatever was looked at before and however many cores there are.
        """
        ...


def installed_methods() -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of detectors that other packages bring, by name; several where packages clash."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=METHODS_GROUP):
        found.setdefault(point.name, {})[point.value] = point
    return {name: tuple(points.values()) for name, points in found.items()}


def method_names() -> list[str]:
    """The names that `method_named` knows, sorted."""
    return sorted({*OWN, *installed_methods()})


def method_named(name: str) -> CloudMethod:
    """A new detector of a name.

    Raises UsageError for an unknown name and for a name that two packages bring or that is ours, and PluginError where
    a detector cannot be loaded: an extra is missing, or its package fails.
    """
    points = installed_methods().get(name, ())
    if len(points) > (0 if name in OWN else 1):
        values = ", ".join([*([OWN[name][0]] if name in OWN else []), *(point.value for point in points)])
        raise UsageError(f"several cloud methods are called {name!r} ({values}): uninstall all but one")
    if name in OWN:
        module, class_name = OWN[name]
        make: Callable[[], CloudMethod] = getattr(import_module(module), class_name)
        return make()
    if not points:
        raise UsageError(f"unknown cloud method {name!r}; known: {', '.join(method_names())}")
    try:
        method: CloudMethod = points[0].load()()
        check_method(method, name)
    except Exception as error:
        raise PluginError(
            f"the cloud method {name!r} ({points[0].value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return method


def check_method(method: CloudMethod, name: str) -> None:
    """Raise TypeError where a detector lacks an attribute or has an invalid one."""
    for attribute, kind in (("name", str), ("version", str), ("bands", tuple), ("pixel", int)):
        if not isinstance(getattr(method, attribute, None), kind):
            raise TypeError(f"{attribute}: expected type {kind.__name__}, got {getattr(method, attribute, None)!r}")
    if method.name != name:
        raise TypeError(f"expected the name of its entry point, {name!r}, got {method.name!r}")
    if method.level not in ("L2A", "L1C") or method.pixel not in PIXELS:
        raise TypeError(f"expected level L2A or L1C and pixel 20, 30 or 60, got {method.level!r}, {method.pixel!r}")
    if not method.version or not method.bands or not callable(getattr(method, "detect", None)):
        raise TypeError("expected a version, bands and a method `detect`")


def to_20_metres(layer: NDArray[Scalar], pixel: int) -> NDArray[Scalar]:
    """A layer (y, x) with pixels of 20, 30 or 60 m on the grid of masks (20 m) over the same ground, by nearest pixel.

    A pixel of 20 m whose centre lies on the border of two of 30 m takes the one that it lies in for the greater part.
    Raises ValueError where the ground is no whole number of masks' pixels.
    """
    if pixel not in PIXELS:
        raise ValueError(f"expected pixels of 20, 30 or 60 m, got {pixel} m")
    if any(length * pixel % MASK_PIXEL for length in layer.shape):
        raise ValueError(f"expected whole pixels of {MASK_PIXEL} m, got {layer.shape} pixels of {pixel} m")
    rows, columns = (
        (np.arange(length * pixel // MASK_PIXEL) * MASK_PIXEL + MASK_PIXEL // 2) // pixel for length in layer.shape
    )
    resampled: NDArray[Scalar] = layer[rows[:, None], columns[None, :]]
    return resampled
