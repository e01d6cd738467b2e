"""The cloud detectors of a recipe, and the bands they require."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from h2crop_data.errors import RecipeError
from h2crop_data.recipe.model import Clouds, Sentinel2Settings
from h2crop_data.sentinel2.clouds import CloudMethod, method_named

#: The scene classification among methods: it comes with the image.
CLASSIFICATION = "scl"
#: What cast shadows and the second look compare.
BANDS_OF_RULES = ("B02", "B8A", "B11")
#: What the edges are of by which dates are matched: of 10 m, and bright where the others are dark.
BANDS_OF_EDGES = ("B02", "B08")
#: Detectors of this thread: each is used from one thread at a time.
OF_THREAD = threading.local()


def detectors_of(clouds: Clouds) -> list[CloudMethod]:
    """The detectors of a recipe, in its order, those of this thread.

    Raises UsageError or PluginError for those that do not exist, RecipeError where one requires L1C and the recipe has
    no catalog of it.
    """
    known: dict[str, CloudMethod] = OF_THREAD.__dict__.setdefault("methods", {})
    names = [name for name in clouds.methods if name != CLASSIFICATION]
    for name in names:
        if name not in known:
            known[name] = method_named(name)
        if known[name].level == "L1C" and clouds.l1c is None:
            raise RecipeError(
                f"sentinel2.clouds.method: {name} finds clouds on L1C: set its catalog in sentinel2.clouds.l1c "
                "(catalog, collection)"
            )
    return [known[name] for name in names]


def versions_of(clouds: Clouds) -> list[tuple[str, str]]:
    """The methods of a recipe with their versions; that of the classification, empty, is each scene's baseline."""
    known = {detector.name: detector.version for detector in detectors_of(clouds)}
    return [(name, known.get(name, "")) for name in clouds.methods]


def l1c_bands(clouds: Clouds) -> list[str]:
    """The bands of L1C that the detectors of a recipe look at, each once."""
    return bands_of_level(detectors_of(clouds), "L1C")


def l2a_bands(settings: Sentinel2Settings) -> list[str]:
    """The bands of L2A that are read over tiles, each once: for masks and for the shifts of dates."""
    clouds = settings.clouds
    of_rules = BANDS_OF_RULES if clouds.cast_shadows or clouds.second_look else ()
    of_edges = BANDS_OF_EDGES if settings.alignment != "none" else ()
    return list(dict.fromkeys([*of_rules, *bands_of_level(detectors_of(clouds), "L2A"), *of_edges]))


def bands_of_level(detectors: Sequence[CloudMethod], level: str) -> list[str]:
    """The bands that detectors look at on a level, each once."""
    return list(dict.fromkeys(band for one in detectors if one.level == level for band in one.bands))
