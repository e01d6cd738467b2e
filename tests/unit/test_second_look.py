"""The second look in time: clouds and shadows that were missed are dropped, real change and suspicion are not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from h2crop_data.sentinel2.neighbours import nearest_clear
from h2crop_data.sentinel2.second_look import LookLimits, second_look

#: Reflectance x 10000 of B02, B8A, B11.
CROP = (350, 4200, 2000)
STUBBLE = (900, 2900, 3300)
PLOUGHED = (600, 1500, 2100)
DRY_SOIL = (1150, 2900, 4000)
FLOOD = (750, 500, 150)


def under_cloud(ground: Any, opacity: float) -> Any:
    """The ground under a cloud."""
    return tuple(
        (1 - opacity) * value + opacity * cloud for value, cloud in zip(ground, (5500, 5200, 3600), strict=True)
    )


def in_shadow(ground: Any, share: float) -> Any:
    """The ground where a share of the direct light is kept off; the sky gives 0.4, 0.17, 0.1 of all light."""
    return tuple(value * (1 - share * (1 - sky)) for value, sky in zip(ground, (0.4, 0.17, 0.1), strict=True))


def look(*dates: Any, clear: Any = None, suspect: Any = None, unclassified: Any = None, every: int = 10) -> Any:
    """What the second look drops and restores of one pixel's dates, `every` so many days, each (n,)."""
    number = len(dates)
    values = np.array(dates, np.float32)[:, :, None, None]
    nothing = np.zeros(number, bool)
    unclassified = nothing if unclassified is None else np.array(unclassified, bool)
    clear = ~unclassified if clear is None else np.array(clear, bool)
    suspect = ~clear & ~unclassified if suspect is None else np.array(suspect, bool)
    masks = [mask.reshape(number, 1, 1) for mask in (clear, suspect, unclassified)]
    looked = second_look(values, np.arange(0, every * number, every, np.int32), *masks)
    return looked.dropped[:, 0, 0], looked.restored[:, 0, 0]


class TestWhatIsDropped:
    @pytest.mark.parametrize("opacity", [0.08, 0.2, 0.6, 1.0])
    @pytest.mark.parametrize("ground", [CROP, STUBBLE, PLOUGHED])
    def test_clouds(self, ground: Any, opacity: float) -> None:
        dropped, _ = look(ground, under_cloud(ground, opacity), ground)
        assert dropped.tolist() == [False, True, False]

    @pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
    @pytest.mark.parametrize("ground", [CROP, STUBBLE, PLOUGHED])
    def test_shadows(self, ground: Any, share: float) -> None:
        dropped, _ = look(ground, in_shadow(ground, share), ground)
        assert dropped.tolist() == [False, True, False]

    def test_haze_that_brightens_blue(self) -> None:
        dropped, _ = look(CROP, (CROP[0] + 400, CROP[1] + 120, CROP[2] + 30), CROP)
        assert dropped.tolist() == [False, True, False]

    def test_of_two_cloudy_dates_in_a_row_the_brighter_and_then_the_other(self) -> None:
        dropped, _ = look(CROP, under_cloud(CROP, 0.2), under_cloud(CROP, 0.3), CROP)
        assert dropped.tolist() == [False, True, True, False]

    def test_nothing_without_clear_dates_on_both_sides(self) -> None:
        cloud = under_cloud(CROP, 0.5)
        assert not look(cloud, CROP, CROP)[0].any()
        assert not look(cloud, cloud, CROP, clear=[0, 1, 1])[0].any()


class TestWhatReallyChanges:
    def test_harvest_ploughing_and_emergence_stay(self) -> None:
        dropped, _ = look(CROP, CROP, STUBBLE, STUBBLE, PLOUGHED, PLOUGHED, CROP)
        assert not dropped.any()

    def test_stubble_seen_once_between_crop_and_ploughing_stays(self) -> None:
        assert not look(CROP, STUBBLE, PLOUGHED)[0].any()

    def test_soil_that_is_dry_once_stays(self) -> None:
        assert not look(PLOUGHED, DRY_SOIL, PLOUGHED)[0].any()
        assert not look(CROP, DRY_SOIL, PLOUGHED)[0].any()

    def test_ploughing_seen_once_between_stubble_and_the_next_crop_stays(self) -> None:
        assert not look(STUBBLE, PLOUGHED, CROP)[0].any()

    @pytest.mark.parametrize("ground", [CROP, STUBBLE, PLOUGHED])
    def test_a_flood_of_one_date_and_of_several_stays(self, ground: Any) -> None:
        assert not look(ground, FLOOD, ground)[0].any()
        assert not look(ground, FLOOD, FLOOD, ground)[0].any()

    def test_a_mown_meadow_stays(self) -> None:
        assert not look(CROP, (550, 2700, 2300), (400, 3700, 2100))[0].any()


class TestSuspicion:
    def test_what_is_as_its_neighbours_is_clear(self) -> None:
        _, restored = look(CROP, CROP, CROP, clear=[1, 0, 1])
        assert restored.tolist() == [False, True, False]

    def test_dark_woods_are_not_shadow(self) -> None:
        wood = (150, 1900, 700)
        _, restored = look(wood, wood, wood, clear=[1, 0, 1])
        assert restored.tolist() == [False, True, False]

    @pytest.mark.parametrize("seen", [under_cloud(CROP, 0.04), in_shadow(CROP, 0.25), in_shadow(CROP, 1.0)])
    def test_thin_cloud_and_weak_shadow_stay_masked(self, seen: Any) -> None:
        assert not look(CROP, seen, CROP, clear=[1, 0, 1])[1].any()

    def test_what_lies_between_its_neighbours_is_clear(self) -> None:
        _, restored = look(CROP, (600, 3500, 2600), STUBBLE, clear=[1, 0, 1])
        assert restored[1]

    def test_at_the_end_of_a_season_the_only_neighbour_counts_if_it_is_near(self) -> None:
        assert look(CROP, CROP, clear=[0, 1])[1].tolist() == [True, False]
        assert not look(CROP, CROP, clear=[0, 1], every=60)[1].any()

    def test_bright_ground_that_is_never_classified_is_compared_with_itself(self) -> None:
        roof = (1700, 2600, 2900)
        cloudy = under_cloud(roof, 0.3)
        kinds = [1, 1, 1, 1, 1]
        _, restored = look(roof, roof, cloudy, roof, roof, unclassified=kinds)
        assert restored.tolist() == [False, True, False, True, False]

    def test_unclassified_soil_that_is_brighter_as_dry_ground_is_clear(self) -> None:
        _, restored = look(CROP, DRY_SOIL, PLOUGHED, unclassified=[0, 1, 0])
        assert restored.tolist() == [False, True, False]

    def test_unclassified_veils_stay_masked(self) -> None:
        for veiled in (under_cloud(CROP, 0.06), (CROP[0] + 200, CROP[1] + 60, CROP[2] + 20)):
            assert not look(CROP, veiled, CROP, unclassified=[0, 1, 0])[1].any()

    def test_nothing_is_restored_without_neighbours_or_suspicion(self) -> None:
        assert not look(CROP, CROP, clear=[0, 0])[1].any()
        assert not look(CROP, CROP, CROP, clear=[1, 0, 1], suspect=[0, 0, 0])[1].any()


SERIES = st.tuples(
    hnp.arrays(np.float32, (6, 3, 2, 3), elements=st.integers(-200, 9000)),
    hnp.arrays(np.int8, (6, 2, 3), elements=st.integers(0, 3)),
)


def run(values: Any, kinds: Any) -> Any:
    """The second look of observations that are clear (0), suspect (1), unclassified (2) or cloud (3)."""
    days = np.arange(0, 10 * len(values), 10, np.int32)
    return second_look(values, days, kinds == 0, kinds == 1, kinds == 2)


class TestFigures:
    @settings(deadline=None, max_examples=40)
    @given(SERIES)
    def test_in_reverse_time_it_says_the_same(self, series: Any) -> None:
        values, kinds = series
        forward, backward = run(values, kinds), run(values[::-1], kinds[::-1])
        assert (forward.dropped == backward.dropped[::-1]).all()
        assert (forward.restored == backward.restored[::-1]).all()

    @settings(deadline=None, max_examples=40)
    @given(SERIES)
    def test_pixels_are_judged_apart(self, series: Any) -> None:
        values, kinds = series
        looked = run(values, kinds)
        assert not (looked.dropped & (kinds != 0)).any()
        assert not (looked.restored & (kinds != 1) & (kinds != 2)).any()
        for y, x in np.ndindex(2, 3):
            alone = run(values[:, :, y : y + 1, x : x + 1], kinds[:, y : y + 1, x : x + 1])
            assert (alone.dropped[:, 0, 0] == looked.dropped[:, y, x]).all()
            assert (alone.restored[:, 0, 0] == looked.restored[:, y, x]).all()

    def test_what_has_no_value_is_left_alone_and_compared_with_nothing(self) -> None:
        nothing = (math.nan,) * 3
        dropped, restored = look(CROP, nothing, under_cloud(CROP, 0.5), CROP)
        assert dropped.tolist() == [False, False, True, False]
        assert not restored.any()

    @settings(deadline=None, max_examples=60)
    @given(hnp.arrays(np.float32, (7, 2, 1, 2), elements=st.integers(0, 99)), hnp.arrays(bool, (7, 1, 2)))
    def test_neighbours_are_those_a_loop_finds(self, values: Any, clear: Any) -> None:
        before, after = nearest_clear(values, clear)
        for date, layer, y, x in np.ndindex(*values.shape):
            earlier = [values[i, layer, y, x] for i in range(date) if clear[i, y, x]]
            later = [values[i, layer, y, x] for i in range(date + 1, 7) if clear[i, y, x]]
            for result, expected in ((before, earlier[-1:]), (after, later[:1])):
                number = result[date, layer, y, x]
                assert np.isnan(number) if not expected else number == expected[0]

    def test_limits_are_what_they_say(self) -> None:
        limits = LookLimits()
        for step, expected in ((limits.brighter * 10_000 - 1, False), (limits.brighter * 10_000 + 1, True)):
            assert look(CROP, (CROP[0] + step, *CROP[1:]), CROP)[0][1] == expected
        for share, expected in ((limits.darker + 0.01, False), (limits.darker - 0.01, True)):
            assert look(CROP, (200, share * CROP[1], share * CROP[2]), CROP)[0][1] == expected


class TestNumbers:
    """The limits as numbers, a case on either side of each: limits that move are noticed."""

    #: Rises that are no dry soil's: as white as haze.
    @pytest.mark.parametrize(("rise", "dropped"), [(195, False), (210, True)])
    def test_blue_may_be_0_02_above_both_neighbours(self, rise: int, dropped: bool) -> None:
        hazy = (CROP[0] + rise, CROP[1], CROP[2])
        assert look(CROP, hazy, CROP)[0].tolist() == [False, dropped, False]

    @pytest.mark.parametrize(("share", "dropped"), [(0.72, False), (0.68, True)])
    def test_infrared_may_be_0_7_of_both(self, share: float, dropped: bool) -> None:
        dark = (CROP[0] * 0.8, CROP[1] * share, CROP[2] * share)
        assert look(CROP, dark, CROP)[0].tolist() == [False, dropped, False]

    @pytest.mark.parametrize(("times", "dropped"), [(0.7, True), (0.9, False)])
    def test_ground_is_dry_that_brightens_at_1610_nm_by_0_8_of_its_rise_in_blue(
        self, times: float, dropped: bool
    ) -> None:
        dry = (CROP[0] + 400, CROP[1], CROP[2] + 400 * times)
        assert look(CROP, dry, CROP)[0].tolist() == [False, dropped, False]

    @pytest.mark.parametrize(("veil", "dropped"), [(0.0, False), (150.0, True)])
    def test_what_the_level_took_off_counts_towards_haze(self, veil: float, dropped: bool) -> None:
        """A date 0.015 too bright all over and 0.01 more here: as bright as haze, whatever part is called aerosol."""
        values = np.array([CROP, (CROP[0] + 100, CROP[1], CROP[2]), CROP], np.float32)[:, :, None, None]
        clear, nothing = np.ones((3, 1, 1), bool), np.zeros((3, 1, 1), bool)
        veils = np.array([0.0, veil, 0.0], np.float32)
        looked = second_look(values, np.array([0, 10, 20]), clear, nothing, nothing, LookLimits(), veils)
        assert looked.dropped[:, 0, 0].tolist() == [False, dropped, False]

    @pytest.mark.parametrize(("rise", "restored"), [(80, True), (120, False)])
    def test_a_suspicion_is_dropped_up_to_0_01_in_blue(self, rise: int, restored: bool) -> None:
        seen = (CROP[0] + rise, CROP[1], CROP[2])
        assert look(CROP, seen, CROP, clear=[True, False, True])[1].tolist() == [False, restored, False]
