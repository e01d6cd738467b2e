"""Spectra that every simulated piece of ground is mixed of.

All spectra are made by the formulas here; what is taken from elsewhere are positions of absorption features and typical
levels:

- pigments: strong absorption at 430-460 and 640-680 nm, red edge 690-740 nm, and the red edge moves to longer
  wavelengths with more chlorophyll (Jacquemoud & Baret 1990, PROSPECT; Horler, Dockray & Barber 1983);
- water in leaves: 970, 1200, 1450, 1940 nm (Curran 1989; levels of liquid water after Palmer & Williams 1974 and Kou,
  Labrie & Chylek 1993, rounded);
- dry matter: cellulose and lignin at 1730, 2100 and 2300 nm, protein at 1510, 2060 and 2180 nm (Curran 1989;
  Kokaly 2001; Kokaly & Clark 1999);
- soils: iron at 480 and 870 nm, clay at 2200 nm, carbonate at 2340 nm, water at 1410 and 1920 nm (Ben-Dor, Irons &
  Epema 1999); roofs, concrete and asphalt: levels after Herold et al. 2004; snow: shape after Wiscombe & Warren 1980.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: nm, the grid of every spectrum and response.
WAVELENGTHS: NDArray[np.float64] = np.arange(400.0, 2501.0)

#: Kinds of surface, then differences (red_edge_shift and from `nitrogen` on) that are added in small amounts and may be
#: negative. The four canopies span chlorophyll (green, pale) and leaf water (wet, dry) for bilinear mixing.
ENDMEMBERS: tuple[str, ...] = (
    "canopy_green_wet",
    "canopy_green_dry",
    "canopy_pale_wet",
    "canopy_pale_dry",
    "red_edge_shift",
    "straw",
    "litter",
    "bark",
    "bloom",
    "soil_dark",
    "soil_brown",
    "soil_bright",
    "conifer",
    "water_clear",
    "water_turbid",
    "roof_tile",
    "concrete",
    "asphalt",
    "glass",
    "snow",
    "nitrogen",
    "feature_1200",
    "feature_1725",
    "feature_2330",
)
#: What Sentinel-2 cannot see: these are zero in all its bands. EnMAP sees all three.
INVISIBLE: tuple[str, ...] = ("feature_1200", "feature_1725", "feature_2330")
#: Reflectance that one unit of a difference spectrum takes away at its deepest.
FEATURE_DEPTH = 0.012

# Levels at wavelengths in nm, between which smooth_curve passes.
#: Absorption of the pigments of a canopy, relative to the red maximum; flatter than of pigments in solution, because
#: they stand in packets and gaps between leaves let light pass (Jacquemoud & Baret 1990, figure 4).
PIGMENTS = (
    *((400, 1.45), (430, 1.45), (450, 1.35), (480, 1.2), (500, 1.05), (520, 0.75), (550, 0.43), (570, 0.48)),
    *((600, 0.62), (620, 0.70), (640, 0.77), (655, 0.89), (672, 1.0), (680, 0.97), (690, 0.63), (700, 0.31)),
    *((710, 0.138), (720, 0.062), (730, 0.028), (740, 0.012), (750, 0.0065), (765, 0.003), (780, 0.0017)),
    *((800, 0.0009), (850, 0.0002), (2500, 0.00001)),
)
#: Absorption of liquid water per cm.
LIQUID_WATER = (
    *((400, 0.0005), (600, 0.002), (700, 0.006), (740, 0.025), (800, 0.022), (850, 0.043), (900, 0.07), (930, 0.2)),
    *(
        (970, 0.46),
        (1000, 0.38),
        (1070, 0.13),
        (1110, 0.18),
        (1135, 0.42),
        (1160, 0.95),
        (1195, 1.25),
        (1260, 0.98),
        (1300, 1.15),
    ),
    *((1350, 3.0), (1400, 13.0), (1450, 29.0), (1500, 19.0), (1550, 10.5), (1600, 7.0), (1645, 5.65)),
    *((1690, 5.3), (1750, 6.5), (1800, 8.2), (1850, 11.5), (1890, 45.0), (1935, 122.0), (1970, 100.0), (2000, 69.0)),
    *((2050, 42.0), (2100, 27.0), (2150, 20.0), (2200, 17.0), (2250, 18.5), (2300, 23.5), (2350, 32.0)),
    *((2400, 44.0), (2450, 62.0), (2500, 90.0)),
)
#: Reflectance of surfaces without the narrow absorptions that SURFACES adds.
LEVELS: dict[str, tuple[tuple[float, float], ...]] = {
    "straw": (
        *((400, 0.06), (450, 0.085), (500, 0.12), (550, 0.165), (600, 0.21), (650, 0.245), (700, 0.285), (750, 0.34)),
        *((800, 0.375), (900, 0.415), (1000, 0.44), (1100, 0.46), (1300, 0.475), (1400, 0.46), (1600, 0.46)),
        *((1800, 0.45), (1900, 0.42), (2000, 0.40), (2200, 0.38), (2400, 0.33), (2500, 0.30)),
    ),
    "litter": (
        *((400, 0.05), (500, 0.075), (600, 0.115), (700, 0.165), (800, 0.22), (900, 0.26), (1000, 0.29), (1100, 0.315)),
        *((1300, 0.34), (1600, 0.36), (1800, 0.355), (2000, 0.33), (2200, 0.31), (2400, 0.265), (2500, 0.24)),
    ),
    "bark": (
        *((400, 0.04), (500, 0.06), (600, 0.085), (700, 0.12), (800, 0.17), (900, 0.205), (1000, 0.23), (1100, 0.25)),
        *((1300, 0.26), (1600, 0.25), (1800, 0.235), (2000, 0.20), (2200, 0.19), (2400, 0.15), (2500, 0.13)),
    ),
    "bloom": (
        *((400, 0.035), (450, 0.04), (490, 0.06), (515, 0.16), (540, 0.30), (570, 0.34), (620, 0.33), (670, 0.29)),
        *((700, 0.40), (740, 0.52), (800, 0.55), (1000, 0.55), (1300, 0.50), (1600, 0.42), (1800, 0.38), (2000, 0.28)),
        *((2200, 0.26), (2400, 0.18), (2500, 0.14)),
    ),
    "soil_dark": (
        *((400, 0.032), (500, 0.048), (600, 0.067), (700, 0.086), (800, 0.110), (900, 0.127), (1000, 0.142)),
        *((1300, 0.172), (1600, 0.19), (1800, 0.194), (2100, 0.19), (2300, 0.178), (2500, 0.165)),
    ),
    "soil_brown": (
        *((400, 0.055), (450, 0.075), (500, 0.098), (550, 0.127), (600, 0.152), (650, 0.170), (700, 0.193)),
        *((750, 0.224), (800, 0.249), (900, 0.281), (1000, 0.300), (1300, 0.335), (1600, 0.345), (1800, 0.345)),
        *((2100, 0.335), (2300, 0.31), (2500, 0.285)),
    ),
    "soil_bright": (
        *((400, 0.16), (450, 0.20), (500, 0.235), (550, 0.275), (600, 0.31), (700, 0.355), (800, 0.385), (1000, 0.42)),
        *((1300, 0.46), (1600, 0.48), (1800, 0.475), (2100, 0.455), (2300, 0.42), (2500, 0.38)),
    ),
    "water_clear": (
        *(
            (400, 0.020),
            (450, 0.022),
            (500, 0.026),
            (550, 0.028),
            (570, 0.027),
            (600, 0.017),
            (650, 0.012),
            (700, 0.009),
        ),
        *((740, 0.006), (800, 0.006), (900, 0.004), (1000, 0.0035), (1400, 0.002), (2500, 0.0015)),
    ),
    "water_turbid": (
        *(
            (400, 0.030),
            (450, 0.036),
            (500, 0.047),
            (550, 0.068),
            (580, 0.072),
            (620, 0.062),
            (670, 0.052),
            (700, 0.056),
        ),
        *((740, 0.026), (810, 0.027), (870, 0.015), (950, 0.008), (1070, 0.009), (1200, 0.004), (1400, 0.002)),
        *((2500, 0.0015),),
    ),
    "roof_tile": (
        *((400, 0.055), (500, 0.075), (550, 0.105), (600, 0.19), (650, 0.235), (700, 0.255), (800, 0.27), (870, 0.27)),
        *((1000, 0.31), (1300, 0.36), (1600, 0.38), (1800, 0.38), (2100, 0.36), (2300, 0.345), (2500, 0.33)),
    ),
    "concrete": (
        *((400, 0.15), (500, 0.20), (600, 0.235), (700, 0.255), (800, 0.265), (1000, 0.285), (1300, 0.31)),
        *((1600, 0.325), (1800, 0.32), (2000, 0.30), (2200, 0.30), (2400, 0.275), (2500, 0.26)),
    ),
    "asphalt": (
        *((400, 0.065), (500, 0.08), (600, 0.092), (700, 0.10), (800, 0.107), (1000, 0.12), (1300, 0.14)),
        *((1600, 0.152), (1800, 0.152), (2100, 0.15), (2300, 0.14), (2500, 0.135)),
    ),
    "glass": (
        *((400, 0.22), (500, 0.28), (600, 0.31), (700, 0.335), (800, 0.36), (1000, 0.38), (1300, 0.37)),
        *((1600, 0.34), (1800, 0.29), (2100, 0.25), (2300, 0.19), (2500, 0.16)),
    ),
    "snow": (
        *((400, 0.94), (600, 0.95), (700, 0.94), (800, 0.91), (900, 0.86), (1000, 0.72), (1030, 0.66), (1100, 0.72)),
        *((1200, 0.48), (1260, 0.42), (1330, 0.46), (1400, 0.20), (1500, 0.035), (1600, 0.07), (1720, 0.14)),
        *((1820, 0.16), (1950, 0.02), (2030, 0.02), (2150, 0.07), (2250, 0.11), (2350, 0.06), (2500, 0.03)),
    ),
}
#: Absorptions of dry plants: centre, standard deviation in nm, depth as a share of the reflectance.
DRY_PLANT = (
    *((1200, 28, 0.04), (1450, 38, 0.13), (1510, 25, 0.03), (1730, 26, 0.06), (1930, 42, 0.22), (2100, 42, 0.17)),
    *((2180, 20, 0.02), (2280, 22, 0.08), (2330, 26, 0.13), (2480, 40, 0.10)),
)
#: The same of mineral surfaces.
SOIL = ((480, 25, 0.04), (870, 70, 0.03), (1415, 22, 0.05), (1920, 32, 0.12), (2205, 18, 0.06))
CHALK = ((480, 25, 0.02), (1415, 20, 0.03), (1920, 30, 0.08), (2205, 18, 0.02), (2340, 24, 0.10))
ABSORPTIONS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "straw": DRY_PLANT,
    "litter": ((670, 12, 0.03), *DRY_PLANT),
    "bark": ((672, 14, 0.06), *DRY_PLANT),
    "bloom": (
        *((672, 14, 0.15), (970, 22, 0.06), (1195, 40, 0.14), (1450, 55, 0.55)),
        *((1725, 26, 0.04), (1940, 60, 0.7), (2320, 40, 0.1)),
    ),
    "soil_dark": SOIL,
    "soil_brown": SOIL,
    "soil_bright": CHALK,
    "roof_tile": ((530, 25, 0.08), (870, 60, 0.06), (1415, 20, 0.02), (1920, 30, 0.05), (2205, 18, 0.04)),
    "concrete": ((1415, 20, 0.04), (1930, 35, 0.12), (2205, 18, 0.02), (2340, 24, 0.07)),
    "asphalt": ((1725, 18, 0.02), (1930, 35, 0.04), (2310, 25, 0.05)),
    "glass": ((1215, 14, 0.03), (1400, 16, 0.05), (1730, 16, 0.12), (1930, 35, 0.08), (2310, 22, 0.15)),
}
#: Chlorophyll, water and dry matter in the absorption of canopies, and the share of light that shade leaves.
CANOPIES: dict[str, tuple[float, float, float, float]] = {
    "canopy_green_wet": (13.0, 0.085, 0.12, 0.60),
    "canopy_green_dry": (13.0, 0.040, 0.16, 0.60),
    "canopy_pale_wet": (4.5, 0.085, 0.12, 0.60),
    "canopy_pale_dry": (4.5, 0.040, 0.16, 0.60),
    "conifer": (12.0, 0.085, 0.26, 0.36),
}


@lru_cache(maxsize=1)
def endmember_spectra() -> NDArray[np.float32]:
    """Reflectance of ENDMEMBERS at WAVELENGTHS, (endmember, wavelength) float32, 0..1 but for the differences."""
    spectra = {name: canopy(*contents) for name, contents in CANOPIES.items()}
    spectra |= {name: surface(name) for name in LEVELS}
    spectra["red_edge_shift"] = red_edge_shift(spectra["canopy_green_wet"])
    spectra["nitrogen"] = -FEATURE_DEPTH * sum_of_dips((1510, 45, 0.8), (2060, 45, 1.0), (2180, 35, 0.6))
    spectra["feature_1200"] = -FEATURE_DEPTH * sum_of_dips((1200, 55, 1.0))
    spectra["feature_1725"] = -FEATURE_DEPTH * sum_of_dips((1725, 45, 1.0))
    spectra["feature_2330"] = -FEATURE_DEPTH * sum_of_dips((2330, 35, 1.0))
    table = np.stack([spectra[name] for name in ENDMEMBERS]).astype(np.float32)
    table.setflags(write=False)
    return table


def canopy(chlorophyll: float, water: float, dry: float, lit: float) -> NDArray[np.float64]:
    """Reflectance of a closed canopy, (wavelength,): that of an infinitely thick scattering layer, part of it in shade.

    Kubelka & Munk (1931): R = 1 + a - sqrt(a (a + 2)) for the ratio a of absorption to scattering. The arguments weigh
    the absorption of chlorophyll, liquid water and dry matter; lit is the share of light that shade leaves.
    """
    absorption = 0.012 + 0.02 * np.exp(-(WAVELENGTHS - 750) / 150) + dry * dry_matter()
    absorption += chlorophyll * log_curve(PIGMENTS) + water * log_curve(LIQUID_WATER)
    return np.asarray(lit * (1 + absorption - np.sqrt(absorption * (absorption + 2))))


def dry_matter() -> NDArray[np.float64]:
    """Absorption of dry leaf matter, relative: more towards 2500 nm, with the features of cellulose and protein."""
    slope = np.clip((WAVELENGTHS - 900) / 1000, 0, None) ** 1.5
    return np.asarray(0.05 + slope * (1 + 3 * sum(depth * bell(centre, sd) for centre, sd, depth in DRY_PLANT)))


def surface(name: str) -> NDArray[np.float64]:
    """Reflectance of a surface of LEVELS with its ABSORPTIONS, (wavelength,)."""
    reflectance = smooth_curve(LEVELS[name])
    for centre, sd, depth in ABSORPTIONS.get(name, ()):
        reflectance = reflectance * (1 - depth * bell(centre, sd))
    return reflectance


def red_edge_shift(green: NDArray[np.float64]) -> NDArray[np.float64]:
    """What moving the red edge of a canopy by 3 nm to longer wavelengths changes, (wavelength,); nothing elsewhere."""
    moved = np.interp(WAVELENGTHS - 3, WAVELENGTHS, green)
    return np.asarray((moved - green) * np.exp(-(((WAVELENGTHS - 718) / 38) ** 4)))


def bell(centre: float, sd: float) -> NDArray[np.float64]:
    """A gaussian of height 1, (wavelength,)."""
    return np.asarray(np.exp(-0.5 * ((WAVELENGTHS - centre) / sd) ** 2))


def sum_of_dips(*dips: tuple[float, float, float]) -> NDArray[np.float64]:
    """Smooth bumps of given centre, half width in nm and height that are exactly zero outside, (wavelength,)."""
    total = np.zeros_like(WAVELENGTHS)
    for centre, half_width, height in dips:
        total += height * np.clip(1 - ((WAVELENGTHS - centre) / half_width) ** 2, 0, None) ** 3
    return total


def log_curve(points: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """A smooth curve through positive levels that span decades, (wavelength,)."""
    return np.asarray(np.exp(smooth_curve(tuple((wavelength, float(np.log(level))) for wavelength, level in points))))


def smooth_curve(points: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """A curve through (wavelength, level) that neither kinks nor overshoots, at WAVELENGTHS.

    Cubic Hermite pieces with the limited slopes of Fritsch & Butland (1984).
    """
    x, y = np.array(points, np.float64).T
    step, rise = np.diff(x), np.diff(y) / np.diff(x)
    weight = (step[:-1] + 2 * step[1:]) / (3 * (step[:-1] + step[1:]))
    product = rise[:-1] * rise[1:]
    mean = weight * rise[:-1] + (1 - weight) * rise[1:]
    inner = np.where(product > 0, product / np.where(product > 0, mean, 1), 0)
    slope = np.concatenate([rise[:1], inner, rise[-1:]])
    piece = np.clip(np.searchsorted(x, WAVELENGTHS, side="right") - 1, 0, len(x) - 2)
    width = step[piece]
    t = (WAVELENGTHS - x[piece]) / width
    start = (1 + 2 * t) * (1 - t) ** 2 * y[piece] + t * (1 - t) ** 2 * width * slope[piece]
    end = t**2 * (3 - 2 * t) * y[piece + 1] + t**2 * (t - 1) * width * slope[piece + 1]
    return np.asarray(start + end)


def unit_columns(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights of WAVELENGTHS, (wavelength, band), with every column divided by its sum."""
    return np.asarray(weights / weights.sum(axis=0), np.float32)
