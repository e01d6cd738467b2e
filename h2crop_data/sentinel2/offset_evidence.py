"""The offset of the values of a scene, decided by its pixels where its item does not state it.

Numbers are 10000 x reflectance + 1000 with the offset, 10000 x reflectance without: one constant in every band
(`reflectance.py`). Three tests, each on a coarse picture of a scene:

1. *Too dark for an offset.* Some pixels of nearly every scene are dark: shade, water, woods. Numbers far below 1000 in
   a visible and in an infrared band would be clearly negative reflectance: there is no offset in them.
2. *A floor of 1000.* Nothing is darker than 1000, and what is known to be dark lies just above: dense green leaves,
   known by the differences of their bands, which an offset does not change, or water. Then there is an offset.
3. *Steps between scenes.* Two scenes of a tile show the same ground, and the numbers of the one are 1000 higher: then
   the upper one has the offset and the lower one has none. Where they are equal, both have the same.

Haze, veils of cloud, the glint of the sun and bright ground raise numbers too: the tests look where these cannot look
like an offset, and say nothing elsewhere. A scene whose pixels give no result is left undecided.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import nsmallest

import numpy as np
from numpy.typing import NDArray

from h2crop_data.sentinel2.reflectance import NO_NUMBER, OFFSET, WRAPPED

#: The bands that are looked at, as far as an item has them. B08 stands in where there is no B8A.
VISIBLE_BANDS, NEAR_INFRARED_BANDS, SHORTWAVE_BANDS = ("B02", "B04"), ("B8A", "B08"), ("B11", "B12")
EVIDENCE_BANDS = (*VISIBLE_BANDS, *NEAR_INFRARED_BANDS, *SHORTWAVE_BANDS)
#: Classes of the scene classification that show no ground: nodata, saturated, clouds, cirrus; and unclassified, which
#: is cloud as often as ground.
NO_GROUND = (0, 1, 8, 9, 10)
WATER_CLASS, UNCLASSIFIED_CLASS = 6, 7
#: Pixels that a statement must rest on.
FEWEST_GROUND = 50
#: The darkest pixels are those below this percentile.
DARKEST = 1
#: An offset would make the darkest pixels of two bands darker than -0.03.
TOO_DARK = -OFFSET - 300
#: The same where both bands are visible, of which a correction may have taken too much, or both short-wave infrared.
FAR_TOO_DARK = -OFFSET - 450
#: Without an offset nothing would be darker than 0.085.
OFFSET_FLOOR = -OFFSET - 150
#: Leaves: the near infrared exceeds the red by at least so much, x 10000, and the band at 2190 nm by at least this
#: share of that: soil between plants is brighter there.
LEAVES_OVER_RED, LEAVES_OVER_SHORTWAVE = 800, 0.7
#: The visible of leaves with an offset: at most so bright in the median, in the blue little above the red (haze is
#: blue), in the red not above 2190 nm (veils of cloud are white), and even (veils are not).
BRIGHTEST_LEAVES, BLUEST_LEAVES, LEAVES_SPREAD = -OFFSET + 500, 250, 450
#: Water at 2190 nm with an offset: at most so bright, and even (the glint of the sun is not).
BRIGHTEST_WATER, WATER_SPREAD = -OFFSET + 200, 60
#: Pixels of two scenes are alike where no band differs from the mean of the bands by another amount than so much more.
ALIKE = 150
#: And where the bands of one pixel differ by this share of their mean: grey ground in another light looks like a step.
CONTRAST = 0.6
#: And whose brightest band has at least so much: over water the glint of the sun is a step, too.
LIT = 2500
#: Scenes that one is compared with: so many of those whose offset is known otherwise, and of the others.
COMPARED_IN_TIME = 12
#: How far the difference of numbers may be from 0 or 1000, and how many scenes must say the same.
LEVEL_TOLERANCE, FEWEST_SCENES = 250, 2
#: Of lines through the pixels of two dates: fewest pixels, least spread along them, least correlation, and how far what
#: they cross the axis at may be from 0 or 1000: light that differs by a fifth moves the offset itself by 200.
FEWEST_ON_LINE, LINE_SPREAD, ON_LINE, LINE_TOLERANCE = 300, 150, 0.95, 300
#: Plants and bare soil. Of lines that most pixels that are such on two dates lie near: fewest pixels, the share of them
#: near the line, how near, and least spread along it; how many pixels and pairs of pixels are looked at; and how much
#: brighter the light of one date may be.
LAND_CLASSES = (4, 5)
FEWEST_NEAR_LINE, NEAR_LINE_SHARE, NEAR_LINE, NEAR_LINE_SPREAD = 100, 0.4, 80, 200
LINE_PIXELS, LINE_PAIRS, MOST_LIGHT = 1000, 200, 2.0
#: One scene is enough where this share of the ground is alike, and the middle half of its differences within so much.
SURE_SHARE, SURE_SPREAD = 0.05, 200
#: Why pixels do not tell where clouds or the end of the swath cover nearly everything.
NO_GROUND_SEEN = "hardly any ground is seen"

#: Band -> numbers (n,) of some pixels.
BandNumbers = Mapping[str, NDArray[np.int32]]


@dataclass(frozen=True)
class CoarsePicture:
    """A scene in few pixels, far apart, all of one ground (y, x)."""

    #: Band -> numbers as the file has them, int32; NO_NUMBER where there is none.
    numbers: Mapping[str, NDArray[np.int32]]
    #: Scene classification, uint8.
    classes: NDArray[np.uint8]
    #: When it was taken, in days from any day.
    day: float = 0.0

    @cached_property
    def ground(self) -> NDArray[np.bool_]:
        """Pixels with a number in every band, and no cloud in the scene classification."""
        shown = ~np.isin(self.classes, NO_GROUND)
        for band in self.numbers.values():
            shown &= (band != NO_NUMBER) & (band < WRAPPED)
        return shown

    @property
    def infrared(self) -> str | None:
        """The band that stands for the near infrared."""
        return next((band for band in NEAR_INFRARED_BANDS if band in self.numbers), None)


@dataclass(frozen=True)
class PixelVerdict:
    """The result of the pixel tests for the offset of a scene."""

    #: What is to be added to its numbers; None where the pixels do not tell.
    offset: int | None
    #: Why, in words, and with figures.
    reason: str
    evidence: str


@dataclass(frozen=True)
class Step:
    """How much higher the numbers of one scene are than those of another on ground that looks alike."""

    #: 0, 1000 or -1000.
    numbers: int
    #: Whether much ground says so, all of it the same.
    is_sure: bool


def decide_by_pixels(pictures: Mapping[str, CoarsePicture], stated: Mapping[str, int]) -> dict[str, PixelVerdict]:
    """What the pixels of scenes of one tile say of their offsets.

    pictures: by scene, all of one ground. stated: the offsets of those scenes whose items state them beyond doubt; they
    are compared with, unless their own pixels say otherwise.
    """
    own = with_doubt({name: told_by_itself(picture) for name, picture in pictures.items()})
    told = {name for name, verdict in own.items() if verdict.offset is not None}
    steps = steps_between(pictures, told | stated.keys())
    verdicts = own
    while True:
        known = {name: offset for name, offset in stated.items() if name in pictures}
        known |= {name: verdict.offset for name, verdict in verdicts.items() if verdict.offset is not None}
        before, verdicts = verdicts, {name: compared_with_others(own[name], steps[name], known) for name in pictures}
        # What was decided by comparison is compared with in turn; a scene is never undecided again.
        verdicts = {name: after if before[name].offset is None else before[name] for name, after in verdicts.items()}
        if verdicts == before:
            break
    return {name: unless_contradicted(verdict, steps[name], known) for name, verdict in verdicts.items()}


def with_doubt(own: Mapping[str, PixelVerdict]) -> dict[str, PixelVerdict]:
    """What scenes say by themselves; where one of a tile has no offset, a floor of 1000 in others is to be confirmed.

    An even veil over yellow leaves raises the darkest numbers as an offset does.
    """
    if not any(verdict.offset == 0 for verdict in own.values()):
        return dict(own)
    return {
        name: verdict
        if verdict.offset in (None, 0)
        else PixelVerdict(None, f"{verdict.reason}, but other scenes of the tile have no offset", verdict.evidence)
        for name, verdict in own.items()
    }


def steps_between(pictures: Mapping[str, CoarsePicture], known: Container[str]) -> dict[str, dict[str, Step]]:
    """For each scene some others that show ground that looks alike, and how much higher its numbers are there.

    Those nearest in time, which ground and light have changed least between: of known ones and of others. A pair costs
    milliseconds, and a tile has a hundred scenes a season.
    """
    steps: dict[str, dict[str, Step]] = {name: {} for name in pictures}
    names = sorted(name for name, picture in pictures.items() if picture.ground.sum() >= FEWEST_GROUND)
    of_known, of_others = [name for name in names if name in known], [name for name in names if name not in known]
    pairs: set[tuple[str, str]] = set()
    for name in names:
        near = [nearest_in_time(name, among, pictures) for among in (of_known, of_others)]
        pairs |= {(min(name, other), max(name, other)) for others in near for other in others}
    for one, other in sorted(pairs):
        step = step_between(pictures[one], pictures[other])
        if step is not None:
            steps[one][other], steps[other][one] = step, Step(-step.numbers, step.is_sure)
    return steps


def nearest_in_time(name: str, among: Sequence[str], pictures: Mapping[str, CoarsePicture]) -> list[str]:
    """The scenes nearest to one in time; of those that are as near, the nearest by name. among: in order of name."""
    day, place = pictures[name].day, bisect_left(among, name)
    others = [
        (abs(pictures[other].day - day), abs(number - place), other)
        for number, other in enumerate(among)
        if other != name
    ]
    return [other for *_, other in nsmallest(COMPARED_IN_TIME, others)]


def offset_by(other: str, step: Step, known: Mapping[str, int]) -> int | None:
    """The offset of a scene by comparison with another; None: it does not follow.

    Of two scenes that lie 1000 apart the upper has the offset and the lower has none, whatever is known of them.
    """
    if step.numbers:
        return OFFSET if step.numbers > 0 else 0
    return known.get(other)


def compared_with_others(own: PixelVerdict, steps: Mapping[str, Step], known: Mapping[str, int]) -> PixelVerdict:
    """What a scene's pixels say, once they are compared with other scenes. known: offsets of those that are known."""
    if own.offset is not None:
        return own
    votes = {other: offset for other, step in steps.items() if (offset := offset_by(other, step, known)) is not None}
    if len(set(votes.values())) > 1:
        return replace(own, evidence=f"{own.evidence}; other scenes of the tile do not agree")
    if len(votes) < FEWEST_SCENES and not any(steps[other].is_sure for other in votes):
        return own
    offset = next(iter(votes.values()))
    told = f"in {len(votes)} other scenes of the tile ground that looks alike has numbers that tell"
    return PixelVerdict(offset, "compared with other scenes", f"{own.evidence}; {told}")


def unless_contradicted(verdict: PixelVerdict, steps: Mapping[str, Step], known: Mapping[str, int]) -> PixelVerdict:
    """A verdict; none where more of the other scenes say otherwise than agree."""
    votes = [offset_by(other, step, known) for other, step in steps.items()]
    against = sum(offset is not None and offset != verdict.offset for offset in votes)
    if verdict.offset is None or against < FEWEST_SCENES or against <= votes.count(verdict.offset):
        return verdict
    return PixelVerdict(None, "scenes do not agree", f"{verdict.evidence}; {against} scenes of the tile say otherwise")


def told_by_itself(picture: CoarsePicture) -> PixelVerdict:
    """What a scene's own pixels say of its offset: the first two tests."""
    ground = picture.ground
    sure = int((ground & (picture.classes != UNCLASSIFIED_CLASS)).sum())
    if sure < FEWEST_GROUND:
        return PixelVerdict(None, NO_GROUND_SEEN, f"{sure} of {ground.size} pixels surely show ground")
    darkest = {band: float(np.percentile(numbers[ground], DARKEST)) for band, numbers in picture.numbers.items()}
    shown = ", ".join(f"{band} {number:.0f}" for band, number in darkest.items())
    evidence = f"the darkest {DARKEST} % of the ground have numbers up to {shown}"
    visible = [darkest[band] for band in VISIBLE_BANDS if band in darkest]
    infrared = [darkest[band] for band in (*NEAR_INFRARED_BANDS, *SHORTWAVE_BANDS) if band in darkest]
    if not visible or not infrared:
        return PixelVerdict(None, "too few bands", evidence)
    pairs = ([darkest.get(band, OFFSET_FLOOR) for band in bands] for bands in (VISIBLE_BANDS, SHORTWAVE_BANDS))
    if max(min(visible), min(infrared)) < TOO_DARK or any(max(pair) < FAR_TOO_DARK for pair in pairs):
        return PixelVerdict(0, "too dark for an offset", evidence)
    if min(darkest.values()) < OFFSET_FLOOR:
        return PixelVerdict(None, "too dark for an offset in some bands only", evidence)
    for kind, lies_above in (("leaves", has_lit_leaves), ("water", has_lit_water)):
        if lies_above(picture):
            return PixelVerdict(OFFSET, f"{kind} have numbers just above 1000", evidence)
    return PixelVerdict(None, "nothing is known to be dark", evidence)


def has_lit_leaves(picture: CoarsePicture) -> bool:
    """Whether dense green leaves have numbers that only an offset explains."""
    near, bands = picture.infrared, picture.numbers
    if near is None or not {"B02", "B04", "B12"} <= bands.keys():
        return False
    over_red, over_shortwave = bands[near] - bands["B04"], bands[near] - bands["B12"]
    leaves = picture.ground & (over_red >= LEAVES_OVER_RED) & (over_shortwave >= LEAVES_OVER_SHORTWAVE * over_red)
    if leaves.sum() < FEWEST_GROUND:
        return False
    blue, red = bands["B02"][leaves], bands["B04"][leaves]
    low, high = np.percentile(red, [10, 90])
    return bool(
        np.percentile(red, 5) >= OFFSET_FLOOR
        and max(np.median(red), np.median(blue)) <= BRIGHTEST_LEAVES
        and np.median(blue - red) <= BLUEST_LEAVES
        and np.median(bands["B12"][leaves] - red) >= 0
        and high - low <= LEAVES_SPREAD
    )


def has_lit_water(picture: CoarsePicture) -> bool:
    """Whether water has numbers that only an offset explains."""
    if not {"B02", "B12"} <= picture.numbers.keys():
        return False
    water = picture.ground & (picture.classes == WATER_CLASS) & (picture.numbers["B02"] > picture.numbers["B12"])
    if water.sum() < FEWEST_GROUND:
        return False
    # The brighter ones may lie near clouds.
    low, high = np.percentile(picture.numbers["B12"][water], [5, 30])
    return bool(low >= OFFSET_FLOOR and high <= BRIGHTEST_WATER and high - low <= WATER_SPREAD)


def step_between(picture: CoarsePicture, other: CoarsePicture) -> Step | None:
    """How much higher the numbers of a scene are than those of another of the same ground; None: unknown."""
    both = picture.ground & other.ground if picture.classes.shape == other.classes.shape else np.zeros(1, bool)
    if both.sum() < FEWEST_GROUND:
        return None
    own, others = ({band: of[both] for band, of in one.numbers.items()} for one in (picture, other))
    lines = step_of_lines(own, others)
    if lines is None:
        lit = both & np.isin(picture.classes, LAND_CLASSES) & np.isin(other.classes, LAND_CLASSES)
        lines = step_of_densest(*({band: of[lit] for band, of in one.numbers.items()} for one in (picture, other)))
    found = [step for step in (step_of_alike(own, others), lines) if step is not None]
    return found[0] if len({step.numbers for step in found}) == 1 else None


def step_of_alike(own: BandNumbers, others: BandNumbers) -> Step | None:
    """The step on pixels (n,) that look alike: whose bands differ from each other as they do in the other scene.

    The blue is left out: haze changes it most. A veil of cloud is no step, it is less bright at 1610 and 2190 nm; the
    glint of the sun is one, so dark ground is left out.
    """
    near = next((band for band in NEAR_INFRARED_BANDS if band in own and band in others), None)
    if near is None:
        return None
    bands = [band for band in ("B04", near, *SHORTWAVE_BANDS) if band in own and band in others]
    if len(bands) < 3:
        return None
    pixels, other_pixels = (np.stack([one[band] for band in bands]) for one in (own, others))
    differences = pixels - other_pixels
    mean = differences.mean(axis=0)
    lower = pixels if np.median(mean) < 0 else other_pixels
    alike = np.abs(differences - mean).max(axis=0) <= ALIKE
    alike &= (np.ptp(lower, axis=0) >= CONTRAST * lower.mean(axis=0)) & (lower.max(axis=0) >= LIT)
    if alike.sum() < FEWEST_GROUND:
        return None
    low, level, high = np.percentile(mean[alike], [25, 50, 75])
    step = nearest_step(level, LEVEL_TOLERANCE)
    is_sure = bool(alike.mean() >= SURE_SHARE and high - low <= SURE_SPREAD)
    return None if step is None else Step(step, is_sure)


def step_of_lines(own: BandNumbers, others: BandNumbers) -> Step | None:
    """The step of ground that has not changed but for the light, by lines through its pixels (n,) of two dates.

    In each short-wave infrared band, which haze and veils hardly brighten, the numbers of one date are those of the
    other times the light, plus the step. Where they do not lie on a line the ground has changed.
    """
    found = set()
    for band in SHORTWAVE_BANDS:
        if band not in own or band not in others or own[band].size < FEWEST_ON_LINE:
            return None
        one, other = own[band].astype(np.float64), others[band].astype(np.float64)
        if min(one.std(), other.std()) < LINE_SPREAD or np.corrcoef(one, other)[0, 1] < ON_LINE:
            return None
        # The line of both dates' errors alike: the slope is the ratio of deviations (reduced major axis).
        slope = one.std() / other.std()
        found.add(nearest_step(one.mean() - slope * other.mean(), LINE_TOLERANCE))
    step = found.pop()
    return None if found or step is None else Step(step, is_sure=True)


def step_of_densest(own: BandNumbers, others: BandNumbers) -> Step | None:
    """The same where part of the pixels (n,) has changed: by the line that most of them lie near.

    Shadows of clouds, and clouds that the classification misses, lie beside the line of the ground between them.
    """
    found = set()
    for band in SHORTWAVE_BANDS:
        if band not in own or band not in others or own[band].size < FEWEST_NEAR_LINE:
            return None
        level = level_of_densest(own[band].astype(np.float64), others[band].astype(np.float64))
        found.add(None if level is None else nearest_step(level, LEVEL_TOLERANCE))
    step = found.pop()
    return None if found or step is None else Step(step, is_sure=False)


def level_of_densest(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Where the line that most pixels (n,) of two dates lie near crosses the axis; None where too few lie near any."""
    every = -(-one.size // LINE_PIXELS)
    one, other = one[::every], other[::every]
    # Lines through pairs of pixels, of which one is darker than half of them, the other brighter.
    order = other.argsort(kind="stable")
    half = order.size // 2
    chosen = np.linspace(0, half - 1, LINE_PAIRS).astype(int)
    dark, bright = order[chosen], order[chosen + half]
    apart = other[bright] - other[dark]
    slopes = (one[bright] - one[dark]) / np.where(apart > 0, apart, np.inf)
    levels = one[dark] - slopes * other[dark]
    possible = (slopes * MOST_LIGHT >= 1) & (slopes <= MOST_LIGHT)
    if not possible.any():
        return None
    slopes, levels = slopes[possible, None], levels[possible, None]
    near = np.abs(one - slopes * other - levels) <= NEAR_LINE
    on_line = near[near.sum(axis=1).argmax()]
    one, other = one[on_line], other[on_line]
    if on_line.mean() < NEAR_LINE_SHARE or min(one.std(), other.std()) < NEAR_LINE_SPREAD:
        return None
    return float(one.mean() - one.std() / other.std() * other.mean())


def nearest_step(level: float, tolerance: float) -> int | None:
    """0, 1000 or -1000, whichever a difference of numbers is; None for none of them."""
    return next((step for step in (0, -OFFSET, OFFSET) if abs(level - step) <= tolerance), None)
