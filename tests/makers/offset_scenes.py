"""Simulated scenes of many kinds of ground and sky, with and without an offset in their numbers, as coarse pictures.

The spectra and the sky are the simulator's; only the ground is laid out here, kind by kind, and harder than most real
ground: deserts, snow, open water, veils that the scene classification does not see, wrong corrections for aerosol.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from h2crop_data.sentinel2.offset_evidence import EVIDENCE_BANDS, CoarsePicture, PixelVerdict, decide_by_pixels
from h2crop_data.sentinel2.reflectance import NO_NUMBER
from h2crop_data.simulate.plants.spectra import ENDMEMBERS
from h2crop_data.simulate.randomness import generator, key_of, noise_grid
from h2crop_data.simulate.sentinel2.bands import SENTINEL2_MSI
from h2crop_data.simulate.sentinel2.classification import patchy_classes
from h2crop_data.simulate.sentinel2.scenes import msi_bands, numbers_in_file, part_of_bands
from h2crop_data.simulate.sky.atmosphere import at_ground, corrected
from h2crop_data.simulate.sky.clouds import CloudLayer, Sun
from h2crop_data.simulate.sky.weather import Sky, weather_over

#: Pixels along a picture, and metres between them.
SIDE, SPACING = 128, 150
#: Kinds of ground, as shares of the picture of what covers it; what is missing is fields.
GROUNDS: dict[str, dict[str, float]] = {
    "fields": {"woods": 0.15, "village": 0.08, "water": 0.01},
    "dark woods": {"woods": 0.9, "water": 0.02},
    "water": {"water": 0.93, "woods": 0.02},
    "bright soil": {"bright": 0.97},
    "dry grass": {"dry": 0.9, "bright": 0.08},
    "snow": {"woods": 0.1},
}
#: Kinds of sky, and how often each is drawn.
SKIES = {"clear": 0.3, "hazy": 0.15, "veiled": 0.12, "broken": 0.2, "overcast": 0.1, "closed": 0.03}
SKIES |= {"over-corrected": 0.1}
#: Scenes of a tile to be decided; in every second tile some others state their offsets.
SCENES, STATED = 10, (("clear", 0), ("hazy", -1000), ("broken", 0))
#: What covers ground: endmembers and their shares on average.
COVERS: dict[str, dict[str, float]] = {
    "woods": {"conifer": 0.55, "canopy_green_wet": 0.3, "litter": 0.1},
    "village": {"roof_tile": 0.2, "concrete": 0.25, "asphalt": 0.3, "canopy_green_wet": 0.2},
    "water": {"water_clear": 0.6, "water_turbid": 0.4},
    "bright": {"soil_bright": 0.85},
    "dry": {"straw": 0.6, "soil_bright": 0.35},
    "green": {"canopy_green_wet": 0.6, "canopy_pale_wet": 0.25, "soil_brown": 0.1},
    "bare": {"soil_brown": 0.6, "soil_bright": 0.25, "soil_dark": 0.15},
}


@dataclass(frozen=True)
class OffsetScene:
    """A scene and the truth about it."""

    picture: CoarsePicture
    #: What is to be added to its numbers.
    offset: int
    ground: str
    sky: str


def drawn_tiles(seed: int, tiles: int) -> list[tuple[list[OffsetScene], list[OffsetScene]]]:
    """Tiles of every kind of ground in turn under skies by chance, with an offset in no scene, in all or in some.

    Gives for each the scenes to be decided, and those whose items state their offsets.
    """
    chance = np.random.default_rng(seed)
    drawn = []
    for tile in range(tiles):
        skies = chance.choice(list(SKIES), SCENES, p=list(SKIES.values())).tolist()
        offsets = chance.choice(([0], [-1000], [0, -1000])[chance.integers(3)], SCENES).tolist()
        stated = STATED if tile % 2 else ()
        ground = list(GROUNDS)[tile % len(GROUNDS)]
        scenes = tile_of_scenes(
            1000 * seed + tile, ground, skies + [sky for sky, _ in stated], offsets + [offset for _, offset in stated]
        )
        drawn.append((scenes[:SCENES], scenes[SCENES:]))
    return drawn


def verdicts_on(scenes: list[OffsetScene], stated: list[OffsetScene]) -> list[PixelVerdict]:
    """What the pixels of the scenes of a tile say of their offsets, in order."""
    pictures = {f"scene {place}": scene.picture for place, scene in enumerate(scenes)}
    known = {f"stated {place}": scene for place, scene in enumerate(stated)}
    verdicts = decide_by_pixels(
        pictures | {name: scene.picture for name, scene in known.items()},
        {name: scene.offset for name, scene in known.items()},
    )
    return [verdicts[name] for name in pictures]


def tile_of_scenes(seed: int, ground: str, skies: list[str], offsets: list[int]) -> list[OffsetScene]:
    """Scenes of one tile over half a year, one for each sky and offset."""
    layout = covers_of(seed, ground)
    return [
        scene_of(seed, number, ground, layout, sky, offset)
        for number, (sky, offset) in enumerate(zip(skies, offsets, strict=True))
    ]


def covers_of(seed: int, ground: str) -> NDArray[np.object_]:
    """What covers each pixel (y, x): patches of a few pixels."""
    patches = noise_grid(key_of(seed, "patches"), *places(), 700.0)
    ranks = patches.ravel().argsort().argsort().reshape(patches.shape) / patches.size
    covers = np.full(patches.shape, "fields", object)
    top = 0.0
    for cover, share in GROUNDS[ground].items():
        covers[(ranks >= top) & (ranks < top + share)] = cover
        top += share
    return covers


def places() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x of the columns and y of the rows, in metres."""
    return np.arange(SIDE) * float(SPACING), -np.arange(SIDE) * float(SPACING)


def scene_of(seed: int, number: int, ground: str, layout: NDArray[np.object_], sky: str, offset: int) -> OffsetScene:
    """One scene of a tile."""
    chance = generator(seed, "scene", number)
    endmembers, sky_bands = msi_bands()
    bands = [SENTINEL2_MSI.index(band) for band in EVIDENCE_BANDS]
    surface = surface_of(seed, number, layout, endmembers[:, bands], chance)
    weather = weather_over(sky_of(seed, number, ground, sky, chance), *places())
    sky_of_bands = part_of_bands(sky_bands, bands)
    seen = corrected(at_ground(surface, weather, sky_of_bands), weather, sky_of_bands)
    if ground == "water" and chance.random() < 0.3:
        # Waves mirror the sun, in every band alike.
        waves = np.exp(0.3 * noise_grid(key_of(seed, number), *places(), 900))
        seen = seen + np.where(layout == "water", np.float32(chance.uniform(0.02, 0.12)) * waves, np.float32(0))
    seen = seen + chance.standard_normal(seen.shape, np.float32) * (0.0008 + 0.004 * np.abs(seen))
    # The scene classification is made of reflectance: it is as right or wrong with an offset as without.
    ten = np.stack([seen[0], seen[0], seen[1], seen[3]]).repeat(2, axis=1).repeat(2, axis=2)
    classes = patchy_classes(weather_sky(seed, number), weather, ten, *places(), 0.02)
    numbers = numbers_in_file(seen, -offset, removed=not offset and bool(chance.random() < 0.5)).astype(np.int32)
    beyond = np.arange(SIDE)[None, :] + 0.23 * np.arange(SIDE)[:, None] > SIDE * chance.uniform(0.4, 2.5)
    numbers[:, beyond], classes[beyond] = NO_NUMBER, 0
    return OffsetScene(CoarsePicture(dict(zip(EVIDENCE_BANDS, numbers, strict=True)), classes), offset, ground, sky)


def surface_of(
    seed: int,
    number: int,
    layout: NDArray[np.object_],
    endmembers: NDArray[np.float64],
    chance: np.random.Generator,
) -> NDArray[np.float32]:
    """Reflectance (band, y, x) of the ground on a date: fields turn green and bare, everything varies in brightness."""
    x, y = places()
    sown = noise_grid(key_of(seed, "sown"), x, y, 300.0)
    green = np.clip(0.5 + sown + 1.2 * np.sin(number / 2 + 2 * sown), 0, 1)
    mixed = {
        cover: np.sum([share * endmembers[ENDMEMBERS.index(name)] for name, share in parts.items()], axis=0)
        for cover, parts in COVERS.items()
    }
    surface = np.zeros((endmembers.shape[1], SIDE, SIDE))
    for cover, spectrum in mixed.items():
        surface += np.where(layout == cover, spectrum[:, None, None], 0)
    fields = green * mixed["green"][:, None, None] + (1 - green) * mixed["bare"][:, None, None]
    surface = np.where(layout == "fields", fields, surface)
    brightness = (1 + 0.18 * noise_grid(key_of(seed, "bright"), x, y, 250.0)) * (1 + 0.06 * chance.standard_normal())
    return np.asarray(surface * np.clip(brightness, 0.4, 1.8), np.float32)


def weather_sky(seed: int, number: int) -> Sky:
    """A cloudless sky of a date."""
    return Sky(key_of(seed, "sky", number), Sun(150, 45), (), 0.0, 0.0)


def sky_of(seed: int, number: int, ground: str, sky: str, chance: np.random.Generator) -> Sky:
    """The sky of a date."""
    layers: tuple[CloudLayer, ...] = ()
    haze, aerosol = 0.0, (float(chance.normal(0, 0.006)), 0.004)
    if sky == "hazy":
        haze, aerosol = float(chance.uniform(0.5, 1.0)), (float(chance.uniform(0.02, 0.06)), 0.01)
    elif sky == "veiled":
        # Below what the scene classification sees: up to 0.07 everywhere.
        layers = (CloudLayer("cirrus", 0.999, float(chance.uniform(0.06, 0.13))),)
    elif sky == "broken":
        layers = (CloudLayer("stratocumulus", float(chance.uniform(0.4, 0.85)), 1.0),)
    elif sky == "overcast":
        layers = (CloudLayer("stratus", float(chance.uniform(0.8, 0.97)), 1.0),)
    elif sky == "closed":
        layers = (CloudLayer("overcast", 1.0, 1.0, float(chance.uniform(0.5, 1.1)), 0.2),)
    elif sky == "over-corrected":
        aerosol = (float(-chance.uniform(0.01, 0.03)), 0.005)
    snow = float(chance.uniform(0.85, 0.99)) if ground == "snow" else 0.0
    return replace(weather_sky(seed, number), layers=layers, haze=haze, snow=snow, aerosol=aerosol)
