"""Where the sun stands: against published values, and against what products state of themselves (tests/real)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2crop_data.sentinel2.sun import sun_angles
from h2crop_data.simulate.sky.weather import sun_position


@pytest.mark.parametrize(
    ("moment", "longitude", "latitude", "azimuth", "elevation"),
    [
        # Reda & Andreas, Solar Position Algorithm (NREL/TP-560-34302, 2008), table A5.1: zenith 50.11, azimuth 194.34.
        (datetime(2003, 10, 17, 19, 30, 30, tzinfo=UTC), -105.1786, 39.742476, 194.34, 39.89),
        # Over the equator at noon of the March equinox of 2022 (15:33 UTC): overhead where it is noon.
        (datetime(2022, 3, 20, 12, 7, 30, tzinfo=UTC), 0.0, 0.0, None, 90.0),
    ],
)
def test_it_is_where_almanacs_say(
    moment: datetime, longitude: float, latitude: float, azimuth: float | None, elevation: float
) -> None:
    found = sun_angles(moment, longitude, latitude)
    assert found[1] == pytest.approx(elevation, abs=0.15)
    if azimuth is not None:
        assert found[0] == pytest.approx(azimuth, abs=0.05)


@given(st.integers(0, 14 * 365 * 24 * 60), st.floats(-179, 179), st.floats(-65, 65))
def test_it_agrees_with_another_series(minutes: int, longitude: float, latitude: float) -> None:
    """The simulator's, by Spencer (1971), which shares no code and is right to half a degree or so."""
    moment = datetime(2016, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    azimuth, elevation = sun_angles(moment, longitude, latitude)
    other = sun_position(moment, longitude, latitude)
    assert elevation == pytest.approx(other.elevation, abs=1.0)
    if abs(elevation) < 70:
        apart = (azimuth - other.azimuth + 180) % 360 - 180
        assert abs(apart) < 3.0


def test_it_rises_in_the_east_and_is_south_at_noon() -> None:
    morning, noon, evening = (
        sun_angles(datetime(2022, 6, 21, hour, 50, tzinfo=UTC), 3.0, 48.5) for hour in (5, 11, 17)
    )
    assert 50 < morning[0] < 90 < 170 < noon[0] < 190 < 270 < evening[0] < 310
    assert noon[1] == pytest.approx(90 - 48.5 + 23.44, abs=0.1)
