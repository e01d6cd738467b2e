"""A second look in time: a date of a pixel is compared with its clear dates before and after.

Clouds and shadows come and go between two dates. What is brighter in blue than both the nearest clear date before and
the nearest after is cloud or haze; what is darker than both in near and short-wave infrared is shadow. Ground that
changes for good agrees with one of its neighbours. Ground that changes and changes back is distinguished by its colour:

- Soil that dries, stubble, straw brighten at least as much at 1610 nm as in blue; clouds, haze and smoke do not, for
  they are white or blue over ground that is brighter at 1610 nm than in blue.
- Water over a field is as dark as shadow in the infrared but not in blue, where the sky lights shadows less than water
  and its mud shine; and no cloud is as dark at 1610 nm as water.

The other way round, what was masked on suspicion (near a cloud, dark, unclassified, in shadow) and lies within what its
neighbours show is clear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h2crop_data.sentinel2.neighbours import nearest_clear


@dataclass(frozen=True)
class LookLimits:
    """When an observation is not believed; reflectance 0..1."""

    #: Blue above both neighbours by more than this, their dates levelled.
    brighter: float = 0.02
    #: Near and short-wave infrared below this share of both neighbours.
    darker: float = 0.7
    #: Ground that brightens at 1610 nm by this times its rise in blue is dry, not cloudy.
    dry: float = 0.8
    #: Darker ground whose blue is above that of shadow by more than this is under water.
    water: float = 0.02
    #: Whatever its blue, ground that keeps less than this share of its light at 1610 nm is under water.
    drowned: float = 0.2
    #: How often it is looked again without what was dropped.
    passes: int = 2
    #: A suspicion is dropped where blue is above both neighbours by at most this,
    as_bright: float = 0.01
    #: and near and short-wave infrared are above this share of both.
    as_dark: float = 0.95
    #: Or it is brighter by at most this where it rises at 1610 nm by this times its rise in blue.
    driest: float = 0.06
    surely_dry: float = 1.2
    #: Of what is only unclassified one of the two may be darker, down to this share.
    darkest: float = 0.8
    #: Unclassified ground is veiled where blue is above the clear dates before and after, however far, by more.
    veiled: float = 0.03
    #: Unclassified ground without clear dates within this many days is compared with its unclassified dates.
    apart: int = 45


#: How much of the darkening of near infrared shows in blue, where more of a shadow's light comes from the sky: 0.33 to
#: 0.42 of all light under a clear sky, against 0.17 at 860 nm.
BLUE_IN_SHADOW = 0.7


@dataclass(frozen=True)
class Looked:
    """What a second look says, each (n, y, x)."""

    #: Clear observations that are not believed.
    dropped: NDArray[np.bool_]
    #: Suspect and unclassified observations that are clear.
    restored: NDArray[np.bool_]


def second_look(
    values: NDArray[np.float32],
    days: NDArray[np.int32],
    clear: NDArray[np.bool_],
    suspect: NDArray[np.bool_],
    unclassified: NDArray[np.bool_],
    limits: LookLimits = LookLimits(),
    veil: NDArray[np.float32] | None = None,
) -> Looked:
    """Look again at the observations of some pixels, dates in order of time.

    values: blue, near and short-wave infrared x 10000 (n, 3, y, x), NaN where there is none. clear, suspect,
    unclassified: (n, y, x), none of them twice. An observation without a clear date on both sides stays what it is.
    Ground that is unclassified for weeks on end, as bright ground is, is compared with itself. veil: what was taken
    from the blue of whole dates (n,), x 10000: it counts again where it is asked what is haze.
    """
    known = ~np.isnan(values[:, 0])
    believed = clear & known
    for _ in range(limits.passes):
        before, after = nearest_clear(values, believed)
        believed &= ~not_believed(values, before, after, limits, veil)
    around = neighbours_within(values, days, believed, limits.apart)
    in_both, in_one = agrees(values, *around, limits)
    restored = known & ((suspect & in_both) | (unclassified & in_one))
    left = unclassified & known & ~restored
    restored |= restored_among_themselves(values, days, believed | restored, left, limits)
    return Looked(clear & known & ~believed, restored)


def neighbours_within(
    values: NDArray[np.float32], days: NDArray[np.int32], believed: NDArray[np.bool_], apart: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The nearest believed dates before and after, (n, 3, y, x); one stands for both where the other does not exist.

    That only where it is at most `apart` days away.
    """
    when = np.broadcast_to(days.astype(np.float32)[:, None, None, None], (len(days), 1, *believed.shape[1:]))
    before, after = nearest_clear(np.concatenate([values, when], axis=1), believed)
    for one, other in ((before, after), (after, before)):
        near = np.isnan(one[:, 3]) & (abs(other[:, 3] - when[:, 0]) <= apart)
        np.copyto(one[:, :3], other[:, :3], where=near[:, None])
    return before[:, :3], after[:, :3]


def restored_among_themselves(
    values: NDArray[np.float32],
    days: NDArray[np.int32],
    believed: NDArray[np.bool_],
    unclassified: NDArray[np.bool_],
    limits: LookLimits,
) -> NDArray[np.bool_]:
    """The unclassified observations (n, y, x) without clear dates near that agree with each other."""
    when = np.broadcast_to(days.astype(np.float32)[:, None, None, None], (len(days), 1, *believed.shape[1:]))
    earlier, later = nearest_clear(when, believed)
    near = (later - earlier)[:, 0] <= limits.apart
    candidates = unclassified & ~near
    if not candidates.any():
        return candidates
    before, after = nearest_clear(values, believed | candidates)
    in_both, _ = agrees(values, before, after, limits)
    # Two veils agree with each other; neither agrees with the clear dates around them, however long ago.
    rise = values - np.fmax(*nearest_clear(values, believed))
    veiled = (rise[:, 0] > 10_000 * limits.veiled) & (rise[:, 2] < limits.surely_dry * rise[:, 0])
    return candidates & in_both & ~veiled


def agrees(
    values: NDArray[np.float32], before: NDArray[np.float32], after: NDArray[np.float32], limits: LookLimits
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether observations (n, y, x) are no brighter than their neighbours and in neither infrared darker, or in one.

    Arrays as for `not_believed`. What is brighter as dry ground is, is as bright as its neighbours.
    """
    highest, lowest = np.maximum(before, after), np.minimum(before, after)
    rise = values - highest
    dry = (rise[:, 2] >= limits.surely_dry * rise[:, 0]) & (rise[:, 0] <= 10_000 * limits.driest)
    bright = (rise[:, 0] <= 10_000 * limits.as_bright) | dry
    lit = values[:, 1:] >= limits.as_dark * lowest[:, 1:]
    weak = (values[:, 1:] >= limits.darkest * lowest[:, 1:]).all(axis=1)
    return bright & lit.all(axis=1), bright & lit.any(axis=1) & weak


def not_believed(
    values: NDArray[np.float32],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    limits: LookLimits,
    veil: NDArray[np.float32] | None = None,
) -> NDArray[np.bool_]:
    """Whether observations (n, y, x) are brighter or darker than both neighbours, and not as ground is.

    values, before, after: blue, near and short-wave infrared, (n, 3, y, x) x 10000; NaN where there is no neighbour.
    """
    highest, lowest = np.maximum(before, after), np.minimum(before, after)
    rise = values - highest
    if veil is not None:
        rise[:, 0] += np.maximum(veil, 0)[:, None, None]
    brighter = (rise[:, 0] > 10_000 * limits.brighter) & (rise[:, 2] < limits.dry * rise[:, 0])
    share = values / np.maximum(lowest, 1)
    brighter &= share[:, 2] > limits.drowned
    darker = (share[:, 1:] < limits.darker).all(axis=1) & (lowest[:, 1:] > 0).all(axis=1)
    in_shadow = highest[:, 0] * (1 - BLUE_IN_SHADOW * (1 - share[:, 1]))
    darker &= values[:, 0] < in_shadow + 10_000 * limits.water
    doubtful: NDArray[np.bool_] = brighter | darker
    return doubtful
