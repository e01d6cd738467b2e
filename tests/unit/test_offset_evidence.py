"""Offsets told from pixels: scenes of the simulator whose offset is known, and pictures of a few known numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from offset_scenes import drawn_tiles, tile_of_scenes, verdicts_on

from h2crop_data.sentinel2.offset_evidence import (
    EVIDENCE_BANDS,
    NO_GROUND_SEEN,
    CoarsePicture,
    Step,
    decide_by_pixels,
    level_of_densest,
    step_between,
    told_by_itself,
)
from h2crop_data.sentinel2.reflectance import NO_NUMBER

#: Reflectance x 10000 of leaves, water and bright soil in EVIDENCE_BANDS.
LEAVES = (300, 350, 3000, 2950, 1700, 800)
WATER = (400, 200, 50, 60, 20, 10)
SAND = (1500, 2500, 3500, 3400, 4600, 4100)


def picture(*reflectances: tuple[int, ...], offset: int, scl: int = 4, side: int = 20) -> CoarsePicture:
    """Stripes of ground of some reflectances with a little texture, as numbers with an offset to be added."""
    texture = np.random.default_rng(0).normal(1, 0.1, (side, side))
    which = np.arange(side)[:, None] * len(reflectances) // side + np.zeros((1, side), int)
    ground = np.array(reflectances, float).T[:, which] * texture
    numbers = np.rint(ground - offset).astype(np.int32)
    return CoarsePicture(dict(zip(EVIDENCE_BANDS, numbers, strict=True)), np.full((side, side), scl, np.uint8))


def changed(one: CoarsePicture, band: str, change: NDArray[np.bool_], number: int) -> CoarsePicture:
    """A picture with another number in some pixels of a band."""
    return replace(one, numbers={**one.numbers, band: np.where(change, np.int32(number), one.numbers[band])})


class TestOfOneScene:
    @pytest.mark.parametrize("offset", [0, -1000])
    @pytest.mark.parametrize(("ground", "scl"), [((LEAVES,), 4), ((LEAVES, SAND), 4), ((WATER,), 6)])
    def test_leaves_and_water_tell(self, ground: tuple[tuple[int, ...], ...], scl: int, offset: int) -> None:
        assert told_by_itself(picture(*ground, offset=offset, scl=scl)).offset == offset

    def test_water_tells_by_the_pixels_of_its_class_alone(self) -> None:
        # Beside it dry ground that is blue as well, and far brighter.
        both = picture(WATER, (3000, 3000, 3000, 3000, 2600, 2500), offset=-1000)
        classes = np.where(np.arange(20)[:, None] < 10, 6, 4).repeat(20, axis=1).astype(np.uint8)
        assert told_by_itself(replace(both, classes=classes)).offset == -1000
        assert told_by_itself(both).offset is None

    def test_figures_are_in_the_evidence(self) -> None:
        verdict = told_by_itself(picture(LEAVES, offset=0))
        assert verdict.reason == "too dark for an offset"
        darkest = np.percentile(picture(LEAVES, offset=0).numbers["B04"], 1)
        assert f"B04 {darkest:.0f}" in verdict.evidence

    @pytest.mark.parametrize("offset", [0, -1000])
    def test_bright_ground_alone_does_not_tell(self, offset: int) -> None:
        assert told_by_itself(picture(SAND, offset=offset)).offset is None

    @pytest.mark.parametrize("veil", [700, 900, 1100])
    def test_a_veil_over_leaves_is_no_offset(self, veil: int) -> None:
        # White in the visible and near infrared, a third of that at 1610 and 2190 nm.
        veiled = tuple(r + int(veil * share) for r, share in zip(LEAVES, (1, 1, 1, 1, 0.35, 0.35), strict=True))
        assert told_by_itself(picture(veiled, offset=0)).offset != -1000

    @pytest.mark.parametrize("glint", [900, 1100])
    def test_glint_over_water_is_no_offset(self, glint: int) -> None:
        waves = np.random.default_rng(1).normal(1, 0.2, (20, 20))
        calm = picture(WATER, offset=0, scl=6)
        numbers = {band: (of + glint * waves).astype(np.int32) for band, of in calm.numbers.items()}
        assert told_by_itself(replace(calm, numbers=numbers)).offset != -1000

    @pytest.mark.parametrize("scl", [0, 1, 7, 8, 9, 10])
    def test_what_is_no_ground_does_not_tell(self, scl: int) -> None:
        verdict = told_by_itself(picture(LEAVES, offset=0, scl=scl))
        assert (verdict.offset, verdict.reason) == (None, NO_GROUND_SEEN)

    @pytest.mark.parametrize("number", [NO_NUMBER, 64600, 65535])
    def test_nodata_and_wrapped_numbers_are_no_dark_ground(self, number: int) -> None:
        third = np.arange(20)[None, :] < 7
        odd = picture(SAND, offset=-1000)
        for band in EVIDENCE_BANDS:
            odd = changed(odd, band, third & np.ones((20, 1), bool), number)
        assert told_by_itself(odd).offset is None
        assert (odd.ground.sum(), odd.ground[:, :7].any()) == (13 * 20, False)

    def test_two_bands_are_enough_for_what_is_too_dark_and_one_is_not(self) -> None:
        whole = picture(LEAVES, WATER, offset=0)
        two = replace(whole, numbers={band: whole.numbers[band] for band in ("B02", "B11")})
        assert told_by_itself(two).offset == 0
        assert told_by_itself(replace(two, numbers={"B02": whole.numbers["B02"]})).offset is None


class TestOfSeveralScenes:
    def test_the_upper_of_two_has_the_offset_and_the_lower_has_none(self) -> None:
        grounds = {"low": 0, "low too": 0, "high": -1000, "high too": -1000}
        verdicts = decide_by_pixels({name: picture(SAND, offset=of, side=30) for name, of in grounds.items()}, {})
        assert {name: verdict.offset for name, verdict in verdicts.items()} == grounds

    @pytest.mark.parametrize("offset", [0, -1000])
    def test_bright_ground_is_decided_by_scenes_that_state_theirs(self, offset: int) -> None:
        pictures = {name: picture(SAND, offset=offset, side=30) for name in ("asked", "one", "other")}
        alone = decide_by_pixels(pictures, {})
        assert {verdict.offset for verdict in alone.values()} == {None}
        told = decide_by_pixels(pictures, {"one": offset, "other": offset})["asked"]
        assert (told.offset, told.reason) == (offset, "compared with other scenes")

    def test_pixels_outweigh_a_scene_that_states_a_wrong_offset(self) -> None:
        pictures = {name: picture(LEAVES, SAND, offset=0, side=30) for name in ("asked", "liar", "other")}
        verdicts = decide_by_pixels(pictures, {"liar": -1000})
        assert {verdict.offset for verdict in verdicts.values()} == {0}

    def test_scenes_that_state_different_offsets_of_equal_numbers_decide_nothing(self) -> None:
        pictures = {name: picture(SAND, offset=0, side=30) for name in ("asked", "one", "other")}
        assert decide_by_pixels(pictures, {"one": 0, "other": -1000})["asked"].offset is None

    @pytest.mark.parametrize("light", [0.8, 1.25])
    def test_other_light_is_no_step(self, light: float) -> None:
        plain = picture(SAND, LEAVES, offset=0, side=30)
        lit = replace(plain, numbers={band: (of * light).astype(np.int32) for band, of in plain.numbers.items()})
        step = step_between(lit, plain)
        assert step is None or step.numbers == 0

    @pytest.mark.parametrize("step", [0, 1000, 500])
    def test_ground_beside_shadows_of_clouds_tells(self, step: int) -> None:
        """Numbers 500 higher are no offset: a veil, or other soil."""
        plain = picture(SAND, offset=0, side=40)
        light = np.where(np.arange(40) < 18, np.random.default_rng(1).uniform(0.2, 0.9, (40, 40)), 1.1)
        numbers = {band: (of * light + step).astype(np.int32) for band, of in plain.numbers.items()}
        found = step_between(replace(plain, numbers=numbers), plain)
        assert found == (None if step == 500 else Step(step, is_sure=False))
        back = step_between(plain, replace(plain, numbers=numbers))
        assert back == (None if step == 500 else Step(-step, is_sure=False))

    @pytest.mark.parametrize("seed", range(5))
    def test_ground_that_has_changed_everywhere_tells_nothing(self, seed: int) -> None:
        """Pixels that are as bright as before on average, but none by itself."""
        rng, other = np.random.default_rng(seed), picture(SAND, offset=0, side=40)
        mixed = {band: rng.permuted(of.ravel()).reshape(of.shape) for band, of in other.numbers.items()}
        assert step_between(replace(other, numbers=mixed), other) is None
        # A cloud of pixels no wider than the ground between shadows.
        narrow = {band: (3000 + (of - of.mean()) / 2).astype(np.int32) for band, of in other.numbers.items()}
        noise = {band: of + rng.normal(0, of.std(), of.shape).astype(np.int32) for band, of in narrow.items()}
        step = step_between(replace(other, numbers=noise), replace(other, numbers=narrow))
        assert step is None

    @pytest.mark.parametrize("spread", [150, 300, 600])
    def test_a_cloud_of_pixels_has_no_line(self, spread: int) -> None:
        rng = np.random.default_rng(spread)
        one, other = rng.normal(3000, spread, (2, 2000))
        assert level_of_densest(one, other) is None
        assert level_of_densest(0.9 * other + 1000, other) == pytest.approx(1000, abs=1) or spread < 200

    def test_other_ground_is_not_compared(self) -> None:
        assert step_between(picture(SAND, offset=0), picture(LEAVES, offset=0)) is None

    def test_scenes_are_compared_with_the_nearest_in_time_and_decide_each_other(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pairs: list[tuple[float, float]] = []

        def counted(one: CoarsePicture, other: CoarsePicture) -> Step | None:
            pairs.append((one.day, other.day))
            return step_between(one, other)

        monkeypatch.setattr("h2crop_data.sentinel2.offset_evidence.step_between", counted)
        sand = picture(SAND, offset=-1000, side=30)
        pictures = {f"{day * 37 % 80}": replace(sand, day=float(day)) for day in range(80)}
        verdicts = decide_by_pixels(pictures, {"0": -1000, "37": -1000})
        assert {verdict.offset for verdict in verdicts.values()} == {-1000}
        assert len(pairs) == len(set(pairs)) < 80 * 79 / 4
        days = {day: {abs(day - other) for pair in pairs if day in pair for other in pair} for day in range(80)}
        assert all({1.0, 2.0, 3.0, 4.0, 5.0, 6.0} <= apart for apart in days.values())

    def test_the_order_of_scenes_does_not_matter(self) -> None:
        scenes = tile_of_scenes(5, "dry grass", ["clear", "hazy", "clear", "veiled"], [0, -1000, -1000, 0])
        pictures = {str(place): scene.picture for place, scene in enumerate(scenes)}
        backwards = dict(reversed(list(pictures.items())))
        assert decide_by_pixels(pictures, {}) == decide_by_pixels(backwards, {})


@pytest.mark.slow
def test_no_simulated_scene_is_decided_wrongly_and_most_are_decided() -> None:
    outcomes = []
    for scenes, stated in drawn_tiles(100, 6):
        for scene, verdict in zip(scenes, verdicts_on(scenes, stated), strict=True):
            assert verdict.offset in (None, scene.offset), (scene.ground, scene.sky, verdict)
            outcomes += [] if verdict.reason == NO_GROUND_SEEN else [verdict.offset is not None]
    assert len(outcomes) >= 50
    assert np.mean(outcomes) >= 0.85
