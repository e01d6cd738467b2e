"""Acquisitions that an archive should have, against series of known dates."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2crop_data.catalog.expected_acquisitions import (
    CYCLE,
    ORBIT,
    AcquisitionSeries,
    Sighting,
    acquisition_series,
    by_month,
)

START, END = datetime(2022, 1, 1, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)
#: S2A over 31UDS from R051: 2022-05-10 at 10:50:31.
FIRST = datetime(2022, 1, 10, 10, 50, 31, tzinfo=UTC)


def series(
    first: datetime = FIRST,
    *,
    tile: str = "31UDS",
    satellite: str = "2A",
    orbit: int | None = 51,
    end: datetime = END,
    jitter: random.Random | None = None,
) -> list[Sighting]:
    """All sightings of a series up to a time; with jitter each within ten minutes of the step."""
    seen = []
    moment = first
    while moment < end:
        off = timedelta(minutes=jitter.uniform(-10, 10)) if jitter else timedelta()
        seen.append(Sighting(tile, satellite, orbit, moment + off))
        moment += CYCLE
    return seen


def missing(listed: list[Sighting], elsewhere: list[Sighting] | None = None) -> list[datetime]:
    """What lacks in 2022."""
    return sorted(moment for one in acquisition_series(listed, elsewhere or [], START, END) for moment in one.missing)


def test_a_complete_series_lacks_nothing() -> None:
    (found,) = acquisition_series(series(), [], START, END)
    assert found.found == tuple(one.moment for one in series())
    assert found.missing == ()
    assert found.name == "S2A R051"
    assert by_month(found.found) == [3, 2, 4, 3, 3, 3, 3, 3, 3, 3, 3, 3]


def test_a_date_in_between_is_missed() -> None:
    listed = [one for one in series() if one.moment.month != 5]
    assert [moment.date().isoformat() for moment in missing(listed)] == ["2022-05-10", "2022-05-20", "2022-05-30"]


def test_a_satellite_is_not_expected_before_and_after_it_is_seen() -> None:
    """2C took the place of 2A in 2025: neither is missed in the months of the other."""
    listed = series()
    handed_over = listed[:12] + [replace(one, satellite="2C") for one in listed[12:]]
    assert missing(handed_over) == []
    assert {one.name for one in acquisition_series(handed_over, [], START, END)} == {"S2A R051", "S2C R051"}


def test_a_series_ends_when_its_satellite_does_not_when_the_archive_does() -> None:
    """From its other orbits the satellite is seen until December, so what lacks of this one lacks in the archive."""
    other = series(FIRST - 3 * timedelta(days=1), orbit=8)
    # Three days are 42.9 orbits; an orbit that is seen three days earlier has the number 51 - 43.
    assert abs(43 * ORBIT - 3 * timedelta(days=1)) < timedelta(minutes=15)
    # The last one was to come three days after the satellite is seen for the last time.
    assert len(missing(series()[:20] + other)) == len(series()) - 20 - 1
    assert len(missing(series()[20:] + other)) == 20


def test_a_satellite_that_was_moved_along_its_orbit_begins_other_series() -> None:
    """2A was moved in 2025: the same relative orbits on other days."""
    moved = series(FIRST + 10 * CYCLE + timedelta(days=3.6), orbit=51)
    assert missing(series()[:8] + moved) == []


def test_other_catalogs_and_seasons_show_what_to_expect() -> None:
    """The archive lacks a whole series; another catalog, or the years around it, show that there is one."""
    lost = series()
    assert missing([], []) == []
    assert missing([], lost) == [one.moment for one in lost]
    around = [replace(one, moment=one.moment + turn * CYCLE) for one in lost for turn in (-37, 37)]
    assert missing([], around) == [one.moment for one in lost]
    before = [one for one in around if one.moment < START]
    assert missing([], before) == [], "nothing says that the satellite still flew"


def test_neighbouring_orbits_and_tiles_are_series_of_their_own() -> None:
    """In the north the next orbit shows a tile 100 minutes later."""
    listed = series() + series(FIRST + ORBIT, orbit=52) + series(tile="31UES")
    found = acquisition_series(listed, [], START, END)
    assert [(one.tile, one.orbit, len(one.missing)) for one in found] == [
        ("31UDS", 51, 0),
        ("31UDS", 52, 0),
        ("31UES", 51, 0),
    ]


def test_what_names_no_satellite_or_orbit_belongs_to_the_series_of_its_time() -> None:
    listed = [replace(one, satellite="", orbit=None) if place % 2 else one for place, one in enumerate(series())]
    (found,) = acquisition_series(listed, [], START, END)
    assert (found.name, found.missing) == ("S2A R051", ())
    (unknown,) = acquisition_series([replace(one, satellite="", orbit=None) for one in listed], [], START, END)
    assert (unknown.name, len(unknown.found)) == ("S2", len(listed))


def test_granules_of_one_acquisition_count_once() -> None:
    again = [replace(one, moment=one.moment + timedelta(seconds=14)) for one in series()]
    (found,) = acquisition_series(series() + again, [], START, END)
    assert len(found.found) == len(series())
    assert found.missing == ()


def test_series_around_the_end_of_the_cycle_are_one() -> None:
    """Times are placed on a circle of ten days from 2015-01-01: 2022-01-04 at midnight UTC is where it closes."""
    closes = datetime(2015, 1, 1, tzinfo=UTC) + 256 * CYCLE
    first = [
        replace(one, moment=one.moment + (-1) ** place * timedelta(minutes=5))
        for place, one in enumerate(series(closes))
    ]
    (found,) = acquisition_series(first[:9] + first[10:], [], START, END)
    assert (len(found.found), len(found.missing)) == (len(first) - 1, 1)


def test_a_month_counts_by_the_acquisitions_own_date() -> None:
    listed = series(datetime(2022, 1, 1, 23, 59, 50, tzinfo=UTC))
    (found,) = acquisition_series(listed, [], START, END)
    assert by_month(found.found) == list(
        Counter({month: sum(one.moment.month == month for one in listed) for month in range(1, 13)}).values()
    )


@st.composite
def archives(draw: st.DrawFn) -> tuple[list[Sighting], list[Sighting], list[Sighting]]:
    """What was acquired in 2022 of some tiles, in random order; what an archive lost of it; what it has.

    Of each satellite one series is seen to both ends, so that its span is known.
    """
    rng = random.Random(draw(st.integers(0, 2**32)))
    acquired: list[Sighting] = []
    sure: set[Sighting] = set()
    for satellite in draw(st.sets(st.sampled_from(["2A", "2B", "2C"]), min_size=1)):
        place = timedelta(days={"2A": 0, "2B": 5, "2C": 2.4}[satellite])
        for orbit in draw(st.sets(st.integers(1, 143), min_size=1, max_size=3)):
            for tile in draw(st.sets(st.sampled_from(["31UDS", "31UES", "33UUU"]), min_size=1)):
                minute = timedelta(minutes=rng.uniform(0, 8))
                offset = (place + orbit * ORBIT) % CYCLE
                own = series(START + offset + minute, tile=tile, satellite=satellite, orbit=orbit, jitter=rng)
                own = [one for one in own if START <= one.moment < END]
                acquired += own
                sure |= {own[0], own[-1]}
    at_risk = [one for one in acquired if one not in sure]
    # Drawn by place: a strategy of hundreds of sightings takes long to write out, of which hypothesis warns.
    lost = [at_risk[place] for place in draw(st.lists(st.integers(0, len(at_risk) - 1), unique=True))]
    kept = [one for one in acquired if one not in set(lost)]
    rng.shuffle(kept)
    return acquired, lost, kept


@settings(max_examples=60, deadline=None)
@given(archives())
def test_exactly_what_was_lost_is_missed_to_the_hour(
    archive: tuple[list[Sighting], list[Sighting], list[Sighting]],
) -> None:
    acquired, lost, kept = archive
    found = acquisition_series(kept, [], START, END)
    assert sum(len(one.found) for one in found) == len(kept)
    expected = Counter((one.tile, one.satellite, one.orbit) for one in lost)
    assert Counter({key_of(one): len(one.missing) for one in found if one.missing}) == expected
    for one in found:
        truth = sorted(other.moment for other in lost if key_of(one) == (other.tile, other.satellite, other.orbit))
        assert all(abs(a - b) < timedelta(hours=1) for a, b in zip(one.missing, truth, strict=True))
    # The same with what was lost known from another catalog.
    told = acquisition_series(kept, acquired, START, END)
    assert sorted(m for one in told for m in one.missing) == sorted(one.moment for one in lost)


def key_of(one: AcquisitionSeries) -> tuple[str, str, int | None]:
    """What a series is of."""
    return one.tile, one.satellite, one.orbit


@pytest.mark.parametrize("start", [START, datetime(2022, 6, 1, tzinfo=UTC)])
def test_only_the_span_that_was_asked_for_counts(start: datetime) -> None:
    listed = [one for one in series() if one.moment.month not in (3, 9)]
    (found,) = acquisition_series(listed, [], start, END)
    assert {moment.month for moment in found.missing} == ({3, 9} if start == START else {9})
