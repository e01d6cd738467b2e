"""What the sky does to reflectance, wavelength by wavelength: clouds, shadow, haze, snow, and the air above.

Broad shapes only, from textbook values: clouds are white with ice and water absorption in the short-wave infrared
(Schott, Remote Sensing, 2007, chapter 3), Rayleigh scattering goes with the fourth power of the wavelength (Bucholtz,
1995, Applied Optics 34), gases absorb at 600, 760, 940, 1135, 1380 and 1880 nm (Gao et al., 1993, Remote Sensing of
Environment 44). Good enough to be found by algorithms made for the real ones; not a radiative transfer model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2crop_data.simulate.sky.clouds import Sun
from h2crop_data.simulate.sky.weather import Weather

#: Wavelength in nm and reflectance of water clouds of middling thickness, and of cirrus as if it were thick.
CLOUD = ((400, 0.74), (550, 0.71), (860, 0.68), (1240, 0.63), (1450, 0.38), (1610, 0.48), (1940, 0.26), (2200, 0.38))
#: Clouds are this times as bright where they are thin, and this much more where nothing is seen through them.
THIN_CLOUD, THICK_CLOUD = 0.75, 0.6
ICE = ((400, 0.62), (860, 0.60), (1240, 0.45), (1380, 0.38), (1610, 0.22), (2200, 0.24))
#: Colour of overcast skies relative to the blue, as L2A shows them: medians of 36 dates over Flanders (2018), most of
#: them less coloured by the ground than SCL's clouds are.
OVERCAST = (
    *((400, 1.03), (490, 1.0), (560, 0.935), (620, 0.90), (665, 0.89), (705, 0.945), (740, 0.955), (860, 0.96)),
    *((1240, 0.88), (1450, 0.5), (1610, 0.67), (1940, 0.34), (2200, 0.52)),
)
#: Reflectance in the blue of the densest haze.
HAZE = 0.07
#: Aerosol that the correction left in goes with this power of the wavelength; L1C shows at least this much less of it
#: than usual: there is not much to take away from clean air.
AEROSOL_POWER, CLEANEST = -1.6, -0.006
#: Share of the light on the ground that comes from the whole sky and so reaches shadows.
DIFFUSE = ((400, 0.42), (490, 0.33), (560, 0.28), (665, 0.23), (860, 0.17), (1610, 0.10), (2200, 0.08))
#: Absorption of gases on the way down and up: centre nm, half width nm, depth.
GASES = (
    *((600, 55, 0.06), (687, 4, 0.12), (762, 5, 0.5), (940, 28, 0.72), (1135, 32, 0.78)),
    *((1380, 45, 0.9999), (1880, 60, 0.998)),
)
#: Share of the water vapour that lies above low clouds, and above cirrus.
VAPOUR_ABOVE_CLOUD, VAPOUR_ABOVE_CIRRUS = 0.6, 0.02
#: Light that was scattered more than once, as a share of that scattered once, by optical thickness.
SCATTERED_AGAIN = 0.5
#: Reflectance of the air above all water vapour: what the band at 1375 nm sees of clear ground.
HIGH_AIR = 0.001


@dataclass(frozen=True)
class Bands:
    """What the sky does in the bands of an instrument; each (band,) float32."""

    cloud: NDArray[np.float32]
    ice: NDArray[np.float32]
    diffuse: NDArray[np.float32]
    haze: NDArray[np.float32]
    snow: NDArray[np.float32]
    #: Overcast, and aerosol that the correction left in, relative to the band at 490 nm.
    overcast: NDArray[np.float32]
    aerosol: NDArray[np.float32]
    #: Transmission of gases to the ground and back; of the air above low clouds; above cirrus.
    gases: NDArray[np.float32]
    gases_above_cloud: NDArray[np.float32]
    gases_above_cirrus: NDArray[np.float32]
    #: Rayleigh and aerosol optical thickness.
    thickness: NDArray[np.float32]


def bands_of(wavelengths: NDArray[Any], response: NDArray[Any], snow: NDArray[Any]) -> Bands:
    """The sky in the bands whose response is given, (wavelength, band); snow: its spectrum (wavelength,)."""
    gases = gas_transmission(wavelengths, 1.0)

    def seen(spectrum: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(spectrum @ response, np.float32)

    def table(points: tuple[tuple[float, float], ...]) -> NDArray[np.float32]:
        return seen(np.interp(wavelengths, *np.transpose(points)))

    return Bands(
        cloud=table(CLOUD),
        ice=table(ICE),
        diffuse=table(DIFFUSE),
        haze=seen(HAZE * (490 / wavelengths) ** 2),
        snow=seen(snow),
        overcast=table(OVERCAST),
        aerosol=seen((490 / wavelengths) ** -AEROSOL_POWER),
        gases=seen(gases),
        gases_above_cloud=seen(gas_transmission(wavelengths, VAPOUR_ABOVE_CLOUD)),
        gases_above_cirrus=seen(gas_transmission(wavelengths, VAPOUR_ABOVE_CIRRUS)),
        thickness=seen(0.0088 * (wavelengths / 1000) ** -4.05 + 0.015 * (550 / wavelengths) ** 1.3),
    )


def gas_transmission(wavelengths: NDArray[Any], amount: float) -> NDArray[np.float64]:
    """Transmission of a share of the atmosphere's gases, wavelength by wavelength."""
    depth = np.zeros(len(wavelengths))
    for centre, width, part in GASES:
        depth -= math.log(1 - part) * np.exp(-0.5 * ((wavelengths - centre) / width) ** 2)
    transmission: NDArray[np.float64] = np.exp(-depth * amount)
    return transmission


def at_ground(
    surface: NDArray[np.float32], weather: Weather, bands: Bands, shade: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The surface (band, y, x) with snow on it and clouds before the sun.

    shade: share (y, x) of the direct sunlight that the surface lacks already, in the shadow of woods and houses.
    """
    lit, diffuse = surface, bands.diffuse[:, None, None]
    if weather.snow.any():
        snow = bands.snow[:, None, None] if shade is None else bands.snow[:, None, None] * (1 - shade * (1 - diffuse))
        lit = lit + weather.snow * (snow - lit)
    if weather.shadow.any():
        if shade is None:
            lit = lit * (1 - weather.shadow * (1 - diffuse))
        else:
            # Two shadows over one place are one: what is left is diffuse light.
            own = 1 - shade * (1 - diffuse)
            lit = lit * (1 - weather.shadow * (1 - diffuse) * (1 - shade) / own)
    return lit


def in_shade(
    surface: NDArray[np.float32], shade: NDArray[np.float32], diffuse: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The surface (band, y, x) where a share (y, x) of the direct sunlight is kept from it; diffuse: (band,)."""
    seen = np.empty_like(surface)
    # Band by band, because a band fits the processor's cache.
    for band, part in enumerate(diffuse):
        np.multiply(surface[band], 1 - shade * (1 - part), out=seen[band])
    return seen


def cloud_reflectance(weather: Weather, bands: Bands) -> NDArray[np.float32]:
    """Reflectance (band, y, x) of clouds of the opacity that stands over each pixel: thicker ones are brighter.

    With the opacities of `sky` it spans what a year of Sentinel-2 L2A over Flanders holds in SCL class 9: 0.3 to 1.3 at
    490 nm, the middle half 0.5 to 1.0 in summer; 0.6 times that at 1610 nm, 0.5 times at 2200 nm. Overcast skies are
    opaque at any brightness and have a colour of their own.
    """
    if weather.brightness is not None:
        return bands.overcast[:, None, None] * weather.brightness
    brightness: NDArray[np.float32] = THIN_CLOUD + np.float32(THICK_CLOUD) * weather.cloud**2
    return bands.cloud[:, None, None] * brightness


def corrected(ground: NDArray[np.float32], weather: Weather, bands: Bands) -> NDArray[np.float32]:
    """L2A reflectance (band, y, x): the air taken out, but haze, clouds and cirrus still over the ground."""
    seen = ground
    if weather.aerosol is not None:
        seen = with_aerosol(seen, weather.aerosol, bands)
    if weather.haze.any():
        seen = seen + weather.haze * bands.haze[:, None, None]
    if weather.cloud.any():
        seen = seen + weather.cloud * (cloud_reflectance(weather, bands) - seen)
    if weather.cirrus.any():
        seen = seen + weather.cirrus * (bands.ice[:, None, None] - seen)
    return seen


def with_aerosol(surface: NDArray[np.float32], aerosol: NDArray[np.float32], bands: Bands) -> NDArray[np.float32]:
    """The surface (band, y, x) as L2A shows it under a clear sky: with the aerosol (y, x) the correction left in."""
    return surface + bands.aerosol[:, None, None] * aerosol


def top_of_atmosphere(ground: NDArray[np.float32], weather: Weather, bands: Bands, sun: Sun) -> NDArray[np.float32]:
    """L1C reflectance (band, y, x): air and its gases between ground, clouds and instrument."""
    height = math.sin(math.radians(max(sun.elevation, 8.0)))
    path = 1 / height + 1
    thickness = bands.thickness[:, None, None]
    gases = bands.gases[:, None, None]
    scattered = air_reflectance(thickness, height)
    through = np.exp(-0.35 * thickness * path)
    seen = HIGH_AIR + gases * (scattered + through * ground)
    if weather.aerosol is not None:
        seen = seen + gases * bands.aerosol[:, None, None] * np.maximum(weather.aerosol, np.float32(CLEANEST))
    seen = seen + gases * weather.haze * bands.haze[:, None, None]
    cloud = bands.gases_above_cloud[:, None, None] * (cloud_reflectance(weather, bands) + 0.2 * scattered)
    seen = seen + weather.cloud * (cloud - seen)
    ice = bands.gases_above_cirrus[:, None, None] * bands.ice[:, None, None]
    return np.asarray(seen + weather.cirrus * (ice - seen), np.float32)


def air_reflectance(thickness: NDArray[np.float32], height: float) -> NDArray[np.float32]:
    """Reflectance of air seen from above, by optical thickness; height: sine of the sun's elevation.

    Light scattered once by molecules (Hansen & Travis, 1974, Space Science Reviews 16), and a share for the rest. Dark
    forests of a real series (Slovenia, 2015, sun at 62 degrees) show 0.10 at 443 nm, 0.07 at 490 nm, 0.036 at 665 nm.
    """
    phase = 0.75 * (1 + height**2)
    once = phase / (4 * (height + 1)) * (1 - np.exp(-thickness * (1 / height + 1)))
    return np.asarray(once * (1 + SCATTERED_AGAIN * thickness), np.float32)
