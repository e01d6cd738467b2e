"""The mask of a tile: what votes, in which order, and that drawn clouds and shadows are found on drawn ground."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, gaussian_filter

from h2crop_data.cast_shadows import matched_height, moved_along
from h2crop_data.constants import REFLECTANCE_FILL
from h2crop_data.sentinel2 import tile_masks
from h2crop_data.sentinel2.tile_masks import MaskCode, MaskRules, TileDates, mask_tile

PLAIN = MaskRules((4, 5, 6), uses_classes=True, dilation=0, cast_shadows=False, second_look=False)
FULL = MaskRules((4, 5, 6), uses_classes=True, dilation=30, cast_shadows=True, second_look=True)
SIDE, DATES = 150, 9
SUN = (155.0, 45.0)
#: Of the date with clouds.
CLOUDY, HEIGHT = 4, 1200.0


def dates_of(classes: Any, **changes: Any) -> TileDates:
    """Dates with some SCL, (n, y, x), and nothing else of note."""
    classes = np.array(classes, np.uint8)
    ground = {"blue": 500, "infrared": 3500, "swir": 2000}
    return TileDates(
        days=np.arange(0, 10 * len(classes), 10, np.int32),
        sun=np.tile(np.array(SUN), (len(classes), 1)),
        classes=classes,
        cloud=changes.pop("cloud", np.zeros(classes.shape, bool)),
        shadow=changes.pop("shadow", np.zeros(classes.shape, bool)),
        **{name: changes.pop(name, np.full(classes.shape, value, np.int16)) for name, value in ground.items()},
    )


class Drawn:
    """Nine dates over fields, a wood and a lake; on the fifth date round clouds of one height and their shadows."""

    def __init__(self, seed: int = 1, opacity: float = 0.9, darkness: float = 1.0, size: float = 1.0) -> None:
        chance = np.random.default_rng(seed)
        fields = chance.uniform((350, 2600, 1700), (700, 4300, 3300), (15, 15, 3)).repeat(10, 0).repeat(10, 1)
        fields[100:130, 20:60] = (180, 1900, 700)
        fields[40:70, 100:140] = (400, 150, 60)
        trend = 1 + 0.01 * np.arange(DATES)[:, None, None, None]
        values = fields * trend + chance.normal(0, 20, (DATES, SIDE, SIDE, 3))
        y, x = np.mgrid[:SIDE, :SIDE]
        middles = [(60, 50, 8), (90, 100, 10), (125, 40, 6), (30, 60, 9), (110, 75, 5)]
        self.cloud = np.any([(y - a) ** 2 + (x - b) ** 2 < (size * c) ** 2 for a, b, c in middles], axis=0)
        length, away = HEIGHT / math.tan(math.radians(SUN[1])) / 20, math.radians(SUN[0] + 180)
        down, right = round(-length * math.cos(away)), round(length * math.sin(away))
        self.shadow = shifted(self.cloud, down, right)
        soft = darkness * gaussian_filter(self.shadow.astype(float), 0.7)[..., None]
        values[CLOUDY] *= 1 - soft * (1 - np.array([0.4, 0.17, 0.1]))
        thick = opacity * self.cloud[..., None]
        values[CLOUDY] = (1 - thick) * values[CLOUDY] + thick * np.array([5500, 5200, 3600])
        self.values = values
        self.classes = np.full((DATES, SIDE, SIDE), 4, np.uint8)
        self.classes[CLOUDY][self.cloud] = 9

    def dates(self, **changes: Any) -> TileDates:
        blue, infrared, swir = self.values.round().astype(np.int16).transpose(3, 0, 1, 2)
        return dates_of(changes.pop("classes", self.classes), blue=blue, infrared=infrared, swir=swir, **changes)


def shifted(mask: Any, down: int, right: int) -> Any:
    """A mask moved down and right; nothing comes in."""
    result = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        if 0 <= y + down < SIDE and 0 <= x + right < SIDE:
            result[y + down, x + right] = True
    return result


def codes_of(classes: Any, rules: MaskRules, **changes: Any) -> Any:
    return mask_tile(dates_of(classes, **changes), rules)


class TestFirstCodes:
    def test_each_class_has_its_code(self) -> None:
        classes = np.arange(12).reshape(1, 3, 4)
        expected = [0, 8, 8, 3, 1, 1, 1, 8, 2, 2, 2, 5]
        assert codes_of(classes, PLAIN).ravel().tolist() == expected
        assert codes_of(classes, replace(PLAIN, clear_classes=(4, 7, 11))).ravel().tolist() == [
            *(0, 8, 8, 3, 1, 8, 8, 1, 2, 2, 2, 1)
        ]

    def test_without_its_vote_classes_say_no_data_saturation_and_snow(self) -> None:
        codes = codes_of(np.arange(12).reshape(1, 3, 4), replace(PLAIN, uses_classes=False))
        assert codes.ravel().tolist() == [0, 8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5]

    def test_detectors_say_cloud_before_shadow_before_snow_and_nothing_where_nothing_is(self) -> None:
        classes = np.array([[[4, 4, 4, 11, 11, 0, 9]]])
        cloud = np.array([[[1, 0, 1, 0, 1, 1, 0]]], bool)
        shadow = np.array([[[0, 1, 1, 1, 0, 0, 1]]], bool)
        codes = codes_of(classes, PLAIN, cloud=cloud, shadow=shadow)
        assert codes.ravel().tolist() == [2, 3, 2, 3, 2, 0, 2]

    @pytest.mark.parametrize(("metres", "reach"), [(0, 0.0), (30, 1.5), (60, 3.0), (100, 5.0)])
    def test_what_is_near_a_cloud_is_not_clear(self, metres: int, reach: float) -> None:
        classes = np.full((1, 15, 15), 4)
        classes[0, 7, 7] = 8
        codes = codes_of(classes, replace(PLAIN, dilation=metres))[0]
        y, x = np.mgrid[:15, :15] - 7
        near = (np.hypot(y, x) <= reach) & ((y != 0) | (x != 0))
        assert ((codes == MaskCode.NEAR) == near).all()
        assert codes[7, 7] == MaskCode.CLOUD

    def test_dates_out_of_order_are_refused(self) -> None:
        dates = dates_of(np.full((3, 2, 2), 4))
        dates.days = dates.days[::-1].copy()
        with pytest.raises(ValueError, match=r"order of time, got \[20, 10, 0\]"):
            mask_tile(dates, PLAIN)


class TestShadowsCast:
    def test_shadows_of_drawn_clouds_are_found_and_nothing_else(self) -> None:
        drawn = Drawn()
        codes = mask_tile(drawn.dates(), FULL)
        kept = codes == MaskCode.CLEAR
        shadow = drawn.shadow & ~drawn.cloud
        # The lake is as dark without sun.
        shadow[35:75, 95:145] = False
        assert shadow.sum() > 300
        assert kept[CLOUDY][shadow].mean() < 0.02
        near = binary_dilation(drawn.cloud | drawn.shadow, iterations=5)
        assert kept[CLOUDY][~near].mean() > 0.98
        assert kept[np.arange(DATES) != CLOUDY].mean() > 0.999
        assert (codes[CLOUDY] == MaskCode.CAST_SHADOW)[shadow].mean() > 0.9

    def test_the_wood_and_the_lake_are_no_shadow(self) -> None:
        drawn = Drawn()
        codes = mask_tile(drawn.dates(), FULL)
        for ground in (np.s_[100:130, 20:60], np.s_[40:70, 100:140]):
            far = ~binary_dilation(drawn.cloud | drawn.shadow, iterations=5)[ground]
            assert (codes[CLOUDY][ground] == MaskCode.CLEAR)[far].mean() > 0.97

    def test_a_detector_that_calls_the_wood_shadow_is_not_followed(self) -> None:
        drawn = Drawn()
        shadow = np.zeros(drawn.classes.shape, bool)
        shadow[3:6, 100:130, 20:60] = True
        kept = mask_tile(drawn.dates(shadow=shadow), FULL) == MaskCode.CLEAR
        far = ~binary_dilation(drawn.cloud | drawn.shadow, iterations=5)[100:130, 20:60]
        assert kept[3:6, 100:130, 20:60][:, far].mean() > 0.95
        # A real shadow, called so by the detector, stays.
        called = np.zeros(drawn.classes.shape, bool)
        called[CLOUDY] = drawn.shadow
        kept = mask_tile(drawn.dates(shadow=called), replace(FULL, cast_shadows=False)) == MaskCode.CLEAR
        ground = drawn.shadow.copy()
        ground[35:75, 95:145] = False
        assert kept[CLOUDY][ground].mean() < 0.05

    def test_without_the_step_shadows_stay_until_the_second_look(self) -> None:
        drawn = Drawn()
        rules = replace(FULL, cast_shadows=False)
        codes = mask_tile(drawn.dates(), rules)
        assert not (codes == MaskCode.CAST_SHADOW).any()
        shadow = drawn.shadow & ~drawn.cloud
        shadow[35:75, 95:145] = False
        assert (codes[CLOUDY] == MaskCode.SECOND_LOOK)[shadow].mean() > 0.6
        plain = mask_tile(drawn.dates(), replace(rules, second_look=False))
        assert (plain[CLOUDY] == MaskCode.CLEAR)[shadow].mean() > 0.8

    def test_dark_ground_without_any_cloud_is_not_cast_on(self) -> None:
        drawn = Drawn()
        values = drawn.values.copy()
        values[2, 20:40, 20:40] *= 0.5
        drawn.values = values
        codes = mask_tile(drawn.dates(), replace(FULL, second_look=False))
        assert (codes[2] == MaskCode.CLEAR).all()

    def test_clouds_that_stand_beyond_the_tile_are_reckoned_with(self) -> None:
        drawn = Drawn()
        values = drawn.values.copy()
        # A shadow at the southern edge, whose cloud would stand south of it.
        values[CLOUDY, 140:, 60:90] *= (0.4, 0.17, 0.1)
        drawn.values = values
        rules = replace(FULL, second_look=False)
        codes = mask_tile(drawn.dates(), replace(rules, beyond=0.01))
        assert (codes[CLOUDY, 142:, 62:88] == MaskCode.CAST_SHADOW).mean() > 0.95
        # Not where few clouds are seen.
        codes = mask_tile(drawn.dates(), replace(rules, beyond=0.2))
        assert (codes[CLOUDY, 142:, 62:88] == MaskCode.CLEAR).mean() > 0.95


class TestWeakShadows:
    """Shadows of a sixth of the light, each step on its own."""

    WEAK = 0.17

    def found(self, drawn: Drawn, rules: MaskRules) -> float:
        """The share of the shadow that is cast shadow, without the lake and what is near clouds."""
        ground = drawn.shadow & ~binary_dilation(drawn.cloud, iterations=3)
        ground[35:75, 95:145] = False
        codes = mask_tile(drawn.dates(), replace(rules, second_look=False))
        return float((codes[CLOUDY] == MaskCode.CAST_SHADOW)[ground].mean())

    def test_darker_than_both_neighbours_under_a_cloud_is_shadow(self) -> None:
        alone = replace(FULL, matched=10.0)
        assert self.found(Drawn(darkness=self.WEAK), alone) > 0.8
        assert self.found(Drawn(darkness=self.WEAK), replace(alone, darker=0.0)) < 0.05

    def test_clouds_are_moved_whole_to_the_height_that_fits(self) -> None:
        by_shape = replace(FULL, darker=0.0, dark_infrared=0.0, dark_swir=0.0, dilation=100)
        assert self.found(Drawn(darkness=self.WEAK, size=1.6), by_shape) > 0.95
        assert self.found(Drawn(darkness=self.WEAK, size=1.6), replace(by_shape, matched=10.0)) == 0
        assert self.found(Drawn(darkness=0.0, size=1.6), by_shape) == 0

    def test_the_height_is_that_of_the_clouds(self) -> None:
        drawn, chance = Drawn(), np.random.default_rng(2)
        darkness = (0.1 * drawn.shadow + chance.normal(0, 0.02, drawn.shadow.shape)).astype(np.float32)
        match = matched_height(drawn.cloud, darkness, SUN, FULL.heights, 20)
        assert match is not None
        assert abs(match.height - HEIGHT) <= 50
        assert match.darkness == pytest.approx(0.1, abs=0.02)
        assert (moved_along(drawn.cloud, SUN, HEIGHT, 20) == drawn.shadow).all()

    def test_a_shadow_by_shape_stands_before_near_and_is_not_taken_back(self) -> None:
        drawn = Drawn(darkness=self.WEAK, size=1.6)
        by_shape = replace(FULL, darker=0.0, dark_infrared=0.0, dark_swir=0.0, dilation=100)
        codes = mask_tile(drawn.dates(), by_shape)
        ground = drawn.shadow & ~drawn.cloud
        assert (codes[CLOUDY] == MaskCode.CAST_SHADOW)[ground].mean() > 0.95

    def test_one_bright_roof_casts_no_shadow(self) -> None:
        """A pixel that the classification calls cloud, and ground as dark as a shadow wherever its own could lie."""
        drawn = Drawn(opacity=0.0, darkness=0.0)
        classes = np.full(drawn.classes.shape, 4, np.uint8)
        classes[CLOUDY, 75, 75] = 9
        drawn.values[CLOUDY, 20:75, 40:90] *= 0.6
        codes = mask_tile(drawn.dates(classes=classes), replace(FULL, second_look=False))
        assert not (codes == MaskCode.CAST_SHADOW).any()
        # A cloud of three by three pixels does.
        classes[CLOUDY, 74:77, 74:77] = 9
        codes = mask_tile(drawn.dates(classes=classes), replace(FULL, second_look=False))
        assert (codes[CLOUDY] == MaskCode.CAST_SHADOW).any()


class TestSecondLook:
    def test_a_cloud_that_nobody_saw_is_dropped_and_the_harvest_beside_it_is_not(self) -> None:
        drawn = Drawn(opacity=0.15)
        drawn.classes[:] = 4
        drawn.values[4:, 0:20, 0:30] = (900, 2900, 3300)
        codes = mask_tile(drawn.dates(), replace(FULL, cast_shadows=False))
        assert (codes[CLOUDY] == MaskCode.SECOND_LOOK)[drawn.cloud].mean() > 0.95
        assert (codes[:, 0:20, 0:30] == MaskCode.CLEAR).mean() > 0.99

    def test_saturated_pixels_are_never_clear(self) -> None:
        drawn = Drawn()
        drawn.classes[6, 10:20, 10:20] = 1
        drawn.classes[6, 20:30, 10:20] = 7
        codes = mask_tile(drawn.dates(), FULL)
        assert (codes[6, 10:20, 10:20] == MaskCode.UNUSABLE).all()
        assert (codes[6, 20:30, 10:20] == MaskCode.CLEAR).mean() > 0.9

    def test_pixels_without_values_change_nothing(self) -> None:
        drawn = Drawn()
        dates = drawn.dates()
        expected = mask_tile(dates, FULL)
        dates.infrared[2, 100:110, 100:110] = REFLECTANCE_FILL
        codes = mask_tile(dates, FULL)
        # Levels of dates are medians of all ground.
        assert (codes[:, :90] == expected[:, :90]).mean() > 0.9995
        assert (codes[2, 100:110, 100:110] == MaskCode.CLEAR).all()


class TestTheSameWhatever:
    def test_strips_do_not_show(self, monkeypatch: pytest.MonkeyPatch) -> None:
        dates = Drawn().dates()
        expected = mask_tile(dates, FULL)
        for strip in (1, 7 * DATES * SIDE, 1 << 24):
            monkeypatch.setattr(tile_masks, "STRIP", strip)
            assert (mask_tile(dates, FULL) == expected).all()

    @settings(deadline=None, max_examples=4)
    @given(st.integers(0, 2**32 - 1))
    def test_a_mirrored_tile_has_the_mirrored_mask(self, seed: int) -> None:
        drawn = Drawn(seed)
        dates = drawn.dates()
        mirrored = TileDates(
            dates.days,
            dates.sun * (-1, 1),
            **{
                name: np.ascontiguousarray(getattr(dates, name)[..., ::-1])
                for name in ("classes", "blue", "infrared", "swir", "cloud", "shadow")
            },
        )
        same = mask_tile(mirrored, FULL)[..., ::-1] == mask_tile(dates, FULL)
        # Levels are sampled every eighth pixel from the west.
        assert same.mean() > 0.999

    def test_input_is_left_as_it_was(self) -> None:
        dates = Drawn().dates()
        before = {name: value.copy() for name, value in vars(dates).items()}
        mask_tile(dates, FULL)
        assert all((getattr(dates, name) == value).all() for name, value in before.items())

    def test_earlier_dates_do_not_depend_on_what_comes_after_their_neighbours(self) -> None:
        drawn = Drawn()
        dates = drawn.dates()
        short = TileDates(**{name: value[:8] for name, value in vars(dates).items()})
        assert (mask_tile(short, FULL)[:6] == mask_tile(dates, FULL)[:6]).mean() > 0.999
