"""Acquisitions that an archive should have: a satellite comes back to each of its orbits every ten days.

A Sentinel-2 satellite flies 143 orbits in exactly ten days and then sees the same ground at the same time of day
(ESA, Sentinel-2 User Handbook, 2015, orbit). So what it shows of one tile from one relative orbit is a series with a
step of ten days. The dates of a series that is seen at all are expected as long as the satellite is seen in that place
of its orbit; a series that is never seen is not expected.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeVar

from h2crop_data.constants import MONTHS

Placed = TypeVar("Placed")

CYCLE = timedelta(days=10)
ORBITS_A_CYCLE = 143
ORBIT = CYCLE / ORBITS_A_CYCLE
#: Moments of a series are that much off its step at most: some catalogs state when the tile was seen, others when its
#: datatake began, which differs from season to season. Two orbits over one tile are a whole orbit apart or more.
SERIES_SLACK = ORBIT / 2
#: From here moments are placed in the cycle.
CYCLE_ORIGIN = datetime(2015, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sighting:
    """A catalog lists an acquisition of a tile."""

    tile: str
    #: `2A`; empty where nobody says.
    satellite: str
    #: Relative orbit, 1..143; None where nobody says.
    orbit: int | None
    moment: datetime


@dataclass(frozen=True)
class AcquisitionSeries:
    """What an archive has, in a span of time, of the acquisitions of a tile by a satellite from one relative orbit."""

    tile: str
    satellite: str
    orbit: int | None
    #: In order of time; the missing ones to within `SERIES_SLACK`.
    found: tuple[datetime, ...]
    missing: tuple[datetime, ...]

    @property
    def name(self) -> str:
        """`S2A R051`, as far as it is known."""
        satellite = f"S{self.satellite}" if self.satellite else "S2"
        return satellite if self.orbit is None else f"{satellite} R{self.orbit:03}"


def acquisition_series(
    listed: Sequence[Sighting], elsewhere: Sequence[Sighting], start: datetime, end: datetime
) -> list[AcquisitionSeries]:
    """The series that an archive should have in start <= time < end, in order of tile and time in the cycle.

    listed: what the archive has. elsewhere: what other catalogs have, and what there is at other times; series that
    only these show are expected too.
    """
    here = set(listed)
    groups = series_of_tiles({*here, *elsewhere})
    spans = observed_spans(groups)
    found = [
        series_between(group, here, max(start, first - SERIES_SLACK), min(end, last + SERIES_SLACK))
        for group, (first, last) in zip(groups, spans, strict=True)
    ]
    return [series for series in found if series.found or series.missing]


def series_between(group: Sequence[Sighting], here: set[Sighting], start: datetime, end: datetime) -> AcquisitionSeries:
    """One series in start <= time < end. group: all that is seen of it; here: what the archive lists."""
    first = group[0].moment
    seen: dict[int, Sighting] = {}
    for one in sorted(group, key=lambda one: (one not in here, one.moment)):
        seen.setdefault(round((one.moment - first) / CYCLE), one)
    found: list[datetime] = []
    missing: list[datetime] = []
    for cycle in range(math.floor((start - first) / CYCLE), math.ceil((end - first) / CYCLE) + 1):
        nearest = min(seen, key=lambda other: (abs(other - cycle), other))
        moment = seen[nearest].moment + (cycle - nearest) * CYCLE
        if start <= moment < end:
            (found if nearest == cycle and seen[cycle] in here else missing).append(moment)
    orbits = Counter(one.orbit for one in group if one.orbit is not None)
    orbit = min(orbits, key=lambda number: (-orbits[number], number)) if orbits else None
    return AcquisitionSeries(group[0].tile, satellite_of(group), orbit, tuple(found), tuple(missing))


def series_of_tiles(sightings: Iterable[Sighting]) -> list[list[Sighting]]:
    """Sightings by tile, satellite and time in the cycle. What names no satellite belongs to the only one there."""
    tiles: dict[str, list[Sighting]] = defaultdict(list)
    for one in sorted(sightings, key=lambda one: (one.tile, one.moment, one.satellite, one.orbit or 0)):
        tiles[one.tile].append(one)
    groups = []
    for of_tile in tiles.values():
        for near in near_in_cycle(of_tile, lambda one: one.moment):
            named = sorted({one.satellite for one in near if one.satellite})
            if len(named) < 2:
                groups.append(near)
                continue
            by_satellite = [[one for one in near if one.satellite == name] for name in ("", *named)]
            groups += [of_satellite for of_satellite in by_satellite if of_satellite]
    return groups


def observed_spans(groups: Sequence[Sequence[Sighting]]) -> list[tuple[datetime, datetime]]:
    """For each series the first and last time that its satellite is seen in that place of its orbit, over any tile.

    A satellite that is moved along its orbit (2A in 2025) begins other series. Where satellite or orbit are not known,
    the series stands for itself.
    """
    spans = [(min(one.moment for one in group), max(one.moment for one in group)) for group in groups]
    satellites: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for number, group in enumerate(groups):
        orbit = next((one for one in group if one.orbit is not None), None)
        if orbit is not None and orbit.orbit is not None and (name := satellite_of(group)):
            satellites[name].append((orbit.moment - orbit.orbit * ORBIT, number))
    for of_satellite in satellites.values():
        for same in near_in_cycle(of_satellite, lambda placed: placed[0]):
            together = [spans[number] for _, number in same]
            whole = min(first for first, _ in together), max(last for _, last in together)
            for _, number in same:
                spans[number] = whole
    return spans


def satellite_of(group: Sequence[Sighting]) -> str:
    """The satellite of a series; empty where unknown."""
    return next((one.satellite for one in group if one.satellite), "")


def near_in_cycle(placed: Sequence[Placed], moment: Callable[[Placed], datetime]) -> list[list[Placed]]:
    """Things in groups of the same time in the cycle, each in order of that time, the cycle being a circle."""
    times = sorted(((moment(one) - CYCLE_ORIGIN) % CYCLE, number) for number, one in enumerate(placed))
    # The circle is cut where nothing is for longest.
    steps = [after - before for (before, _), (after, _) in pairwise([*times, (times[0][0] + CYCLE, 0)])]
    widest = steps.index(max(steps)) + 1
    turned = times[widest:] + times[:widest]
    groups: list[list[Placed]] = [[]]
    for (_, number), step in zip(turned, steps[widest:] + steps[:widest], strict=True):
        groups[-1].append(placed[number])
        if step > SERIES_SLACK:
            groups.append([])
    return [group for group in groups if group]


def by_month(moments: Iterable[datetime]) -> list[int]:
    """How many of some moments of a year lie in each of its months."""
    counted = Counter(moment.month for moment in moments)
    return [counted[month] for month in range(1, MONTHS + 1)]
