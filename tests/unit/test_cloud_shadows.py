"""Shadows that clouds cast: where the sun's line meets the ground, and only on ground that is dark for once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2crop_data.cast_shadows import under_clouds, without_specks

PIXEL = 20
SIDE = 201
MIDDLE = SIDE // 2
HEIGHTS = (300.0, 2000.0)


def one_cloud() -> Any:
    cloud = np.zeros((SIDE, SIDE), bool)
    cloud[MIDDLE - 2 : MIDDLE + 3, MIDDLE - 2 : MIDDLE + 3] = True
    return cloud


def shadow_of(azimuth: float, elevation: float, height: float) -> tuple[int, int]:
    """Row and column of the shadow of the middle of an array: away from the sun by height / tan(elevation)."""
    length = height / math.tan(math.radians(elevation)) / PIXEL
    away = math.radians(azimuth + 180)
    return MIDDLE - round(length * math.cos(away)), MIDDLE + round(length * math.sin(away))


class TestUnderClouds:
    @settings(deadline=None)
    @given(st.floats(0, 360), st.floats(15, 70), st.floats(*HEIGHTS))
    def test_the_shadow_of_a_cloud_of_any_height_in_range_lies_there(
        self, azimuth: float, elevation: float, height: float
    ) -> None:
        row, column = shadow_of(azimuth, elevation, height)
        reached = under_clouds(one_cloud(), (azimuth, elevation), HEIGHTS, PIXEL)
        if 0 <= row < SIDE and 0 <= column < SIDE:
            assert reached[row, column]

    @pytest.mark.parametrize(("azimuth", "down", "right"), [(180, -1, 0), (90, 0, -1), (135, -1, -1), (0, 1, 0)])
    def test_a_sun_in_the_south_casts_northwards_and_nowhere_else(self, azimuth: int, down: int, right: int) -> None:
        elevation = 45.0
        reached = under_clouds(one_cloud(), (azimuth, elevation), HEIGHTS, PIXEL)
        y, x = np.mgrid[:SIDE, :SIDE] - MIDDLE
        norm = math.hypot(down, right)
        along, across = (y * down + x * right) / norm, (y * right - x * down) / norm
        stripe = (along >= 300 / PIXEL - 5) & (along <= 2000 / PIXEL + 5) & (abs(across) <= 5)
        # Beyond the array clouds may stand: towards the sun nothing is known within their reach.
        known = np.minimum(MIDDLE - np.sign(down) * -y, MIDDLE + np.sign(right) * x)
        if down < 0:
            known = np.where(down, SIDE - 1 - (y + MIDDLE), SIDE)
        elif down > 0:
            known = y + MIDDLE
        if right < 0:
            known = np.minimum(known, SIDE - 1 - (x + MIDDLE)) if down else SIDE - 1 - (x + MIDDLE)
        inside = known > 2000 / PIXEL
        assert reached[inside & ~stripe].sum() == 0
        core = (along >= 300 / PIXEL) & (along <= 2000 / PIXEL) & (abs(across) <= 1)
        assert reached[core].all()

    def test_ground_whose_line_to_the_sun_leaves_the_array_may_be_in_shadow(self) -> None:
        reached = under_clouds(np.zeros((SIDE, SIDE), bool), (180.0, 45.0), (300.0, 1000.0), PIXEL)
        assert reached[-50:].all()
        assert not reached[:-51].any()

    @settings(deadline=None, max_examples=30)
    @given(st.floats(0, 360), st.floats(12, 70), st.integers(0, 2**32 - 1))
    def test_mirrored_clouds_cast_mirrored_shadows(self, azimuth: float, elevation: float, seed: int) -> None:
        cloud = np.random.default_rng(seed).random((60, 80)) > 0.99
        reached = under_clouds(cloud, (azimuth, elevation), HEIGHTS, PIXEL)
        mirrored = under_clouds(cloud[:, ::-1].copy(), (-azimuth, elevation), HEIGHTS, PIXEL)
        assert (mirrored[:, ::-1] == reached).mean() > 0.999

    @settings(deadline=None, max_examples=30)
    @given(st.floats(0, 360), st.floats(12, 70), st.integers(0, 2**32 - 1))
    def test_more_clouds_never_cast_less(self, azimuth: float, elevation: float, seed: int) -> None:
        chance = np.random.default_rng(seed)
        few = chance.random((50, 50)) > 0.99
        more = few | (chance.random((50, 50)) > 0.99)
        without = under_clouds(few, (azimuth, elevation), HEIGHTS, PIXEL)
        assert not (without & ~under_clouds(more, (azimuth, elevation), HEIGHTS, PIXEL)).any()


def test_specks_are_no_shadows_and_others_are_widened() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5, 5] = mask[30, 8:20] = True
    mask[10:20, 10:20] = True
    wider = without_specks(mask, 1.0, 2.0)
    assert not wider[:8, :8].any()
    assert not wider[25:].any()
    assert wider[10:20, 10:20].all()
    assert wider[8, 15]
    assert wider[15, 21]
    assert not wider[7, 15]
