"""When the satellites pass over a region, and what each pass is like: drawn from the settings, before any pixel."""

from __future__ import annotations

import calendar
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np

from h2crop_data.cast_shadows import apparent_sun
from h2crop_data.simulate.randomness import generator
from h2crop_data.simulate.settings import Simulation
from h2crop_data.simulate.sky.clouds import Sun
from h2crop_data.simulate.sky.weather import Sky, draw_sky, sun_position

#: Two satellites, five days between the passes of either over one place.
REPEAT_DAYS = 5
#: Relative orbits whose swaths overlap over the region; the second is the one whose edge may cross it.
ORBITS = (8, 51)
#: Sine of the zenith angle at the ground by that of the angle off nadir, from 653 km over a sphere.
ZENITH_OF_OFF_NADIR = (6371.0 + 653.0) / 6371.0
#: First day of each baseline in the archive (ESA, Sentinel-2 processing baselines).
BASELINES = (
    (date(2015, 6, 23), "02.01"),
    (date(2018, 3, 26), "02.07"),
    (date(2019, 7, 8), "02.13"),
    (date(2021, 3, 30), "03.00"),
    (date(2021, 6, 30), "03.01"),
    (date(2022, 1, 25), "04.00"),
    (date(2022, 12, 6), "05.09"),
    (date(2023, 12, 13), "05.10"),
    (date(2024, 7, 23), "05.11"),
)


@dataclass(frozen=True)
class Sentinel2Pass:
    """One day's pass of a Sentinel-2 satellite."""

    platform: str
    moment: datetime
    relative_orbit: int
    absolute_orbit: int
    baseline: str
    sun: Sun
    sky: Sky
    #: Where the swath ends: easting at the middle of the region, in metres; None where it covers all of it.
    swath_end: float | None

    @property
    def name(self) -> str:
        """A name no other pass has."""
        return f"S2-{self.moment:%Y%m%dT%H%M%S}"


@dataclass(frozen=True)
class EnmapPass:
    """One pass of EnMAP: one datatake of one or more tiles."""

    moment: datetime
    datatake: int
    sun: Sun
    sky: Sky
    #: Where the ground appears relative to where it is, in metres east and north.
    shift: tuple[float, float]
    coverage: float
    across_off_nadir: float

    @property
    def name(self) -> str:
        """A name no other pass has."""
        return f"EnMAP-{self.moment:%Y%m%dT%H%M%S}"


def baseline_of(day: date) -> str:
    """The baseline the archive's granules of a day were first processed with."""
    return [name for start, name in BASELINES if start <= day][-1] if day >= BASELINES[0][0] else BASELINES[0][1]


def days_of_month(simulation: Simulation, season: int, month: int) -> list[date]:
    """The days of a month with a Sentinel-2 pass, spread over it on the orbit's five-day beat."""
    wanted = simulation.sentinel2.dates_per_month
    beat = [date(season, month, day) for day in range(1, calendar.monthrange(season, month)[1] + 1)]
    beat = [day for day in beat if day.toordinal() % REPEAT_DAYS in (0, 2)]
    chance = generator(simulation.seed, "days", season, month)
    if wanted >= len(beat):
        return beat
    # One from each of equal parts of the month.
    parts = np.array_split(np.arange(len(beat)), wanted) if wanted else []
    return [beat[int(chance.choice(part))] for part in parts]


def sentinel2_passes(
    simulation: Simulation, season: int, centre: tuple[float, float], bounds: tuple[float, float, float, float]
) -> Iterator[Sentinel2Pass]:
    """The Sentinel-2 passes of a season, in order of time.

    centre: longitude, latitude; bounds: of the region, in metres.
    """
    settings = simulation.sentinel2
    days = [day for month in sorted(set(settings.months)) for day in days_of_month(simulation, season, month)]
    for number, day in enumerate(days):
        chance = generator(simulation.seed, "pass", day)
        second = day.toordinal() % REPEAT_DAYS == 2
        moment = datetime(day.year, day.month, day.day, 10, 40, 31, tzinfo=UTC) + timedelta(
            minutes=10 * second, seconds=float(round(chance.uniform(0, 120), 3))
        )
        moment -= timedelta(minutes=4 * (centre[0] - 3))
        sun = sun_position(moment, *centre)
        edge = None
        if chance.random() < settings.swath_edges:
            edge = float(round(bounds[0] + (bounds[2] - bounds[0]) * chance.uniform(0.15, 0.85), 1))
        baselines = settings.baselines
        listed = baseline_of(day) if baselines == "by_date" else baselines[number % len(baselines)]
        natural = simulation.natural
        sky = draw_sky(
            simulation.seed,
            f"sentinel2/{day}",
            settings.sky,
            day.month,
            sun,
            natural=natural is not None,
            aerosol=natural.aerosol if natural else 0.0,
        )
        yield Sentinel2Pass(
            platform="S2A" if day.toordinal() // REPEAT_DAYS % 2 else "S2B",
            moment=moment,
            relative_orbit=ORBITS[second],
            absolute_orbit=30_000 + (day - date(2021, 3, 1)).days * 14,
            baseline=listed,
            sun=sun,
            sky=sky,
            swath_end=edge,
        )


def enmap_passes(simulation: Simulation, season: int, centre: tuple[float, float]) -> Iterator[EnmapPass]:
    """The EnMAP passes of a season, in order of the settings' months."""
    settings = simulation.enmap
    for number in range(settings.scenes):
        chance = generator(simulation.seed, "enmap", season, number)
        month = settings.months[number % len(settings.months)]
        turn = number // len(settings.months)
        day = 4 + (int(chance.integers(0, 9)) + 9 * turn) % 24
        moment = datetime(season, month, day, 10, 58, 4, tzinfo=UTC) + timedelta(seconds=int(chance.integers(0, 600)))
        moment -= timedelta(minutes=4 * (centre[0] - 3))
        sun = sun_position(moment, *centre)
        if settings.shifts == "drawn":
            east, north = chance.normal(0, settings.shift_sd, 2).round(2).tolist()
        else:
            east, north = settings.shifts[number % len(settings.shifts)]
        sky = draw_sky(
            simulation.seed,
            f"enmap/{season}/{number}",
            settings.sky,
            month,
            sun,
            natural=simulation.natural is not None,
        )
        # A pass over a wide region takes up to a hundred numbers.
        datatake = 10_000 * (season - 1950) + 200 * number + int(chance.integers(0, 100))
        across = float(chance.uniform(-20, 20).__round__(3))
        yield EnmapPass(
            moment=moment.replace(microsecond=0),
            datatake=datatake,
            sun=sun,
            sky=replace(sky, sun=sun_of_seen_clouds(sun, across, settings.tilt)) if settings.parallax else sky,
            shift=(east, north),
            coverage=settings.coverage[number % len(settings.coverage)],
            across_off_nadir=across,
        )


def sun_of_seen_clouds(sun: Sun, across_off_nadir: float, tilt: float) -> Sun:
    """Where the sun would stand that casts shadows from where clouds are seen.

    across_off_nadir: degrees to the right of the direction of flight, southwards, `tilt` degrees from north.
    """
    # The ground right of the track sees the satellite to the left of it.
    side = (180 + tilt - math.copysign(90, across_off_nadir)) % 360
    zenith = math.degrees(math.asin(math.sin(math.radians(abs(across_off_nadir))) * ZENITH_OF_OFF_NADIR))
    return Sun(*apparent_sun((sun.azimuth, sun.elevation), (side, zenith)))
