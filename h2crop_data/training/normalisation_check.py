"""Checks whether a normalisation belongs to the numbers of a store."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from h2crop_data.constants import IMAGES, PUBLISHED_OFFSET, REFLECTANCE_SCALE, SENTINEL2_BANDS
from h2crop_data.cube.reading import store_attributes
from h2crop_data.cube.root import stored_data
from h2crop_data.errors import UsageError
from h2crop_data.training.normalisation import Normalisation
from h2crop_data.training.store_statistics import reflectance_statistics, stored_number, stored_offsets

#: A factor of 10000 between reflectance and stored numbers is recognised by a ratio beyond its square root.
SCALE_MARGIN = 100.0
#: An offset is recognised where allowing for it leaves less than this part of the difference.
OFFSET_MARGIN = 0.5


def check_normalisation(
    normalisation: Normalisation, store: str | Path, release: int | None = None, *, published: bool = False
) -> None:
    """Refuse a normalisation that does not belong to the numbers of a store.

    Its figures are compared with those of the store's training split, both as stored numbers, band by band where both
    have a standard deviation above 0. Of each array, in this order:

    - The median ratio of the standard deviations must lie between 1/100 and 100: where reflectance was taken for stored
      numbers, or the other way round, it is off by 10000.
    - Of `s2`, let d be a band's difference of the means. The median of |d - 1000|, and that of |d + 1000|, must not be
      less than half of the median of |d|. A forgotten or doubled offset makes d about 1000, and then one of them is
      about 0. Between regions and years means differ by up to 300 numbers (0.03 reflectance): that neither looks like
      an offset nor hides one.
    - The median ratio of the means must lie between 1/100 and 100 (means below 1 count as 1).

    The published figures are of images with clouds, which lift Sentinel-2 means by more than the offset does: from the
    means alone a mistaken offset cannot be told from clouds. They are known to the last digit instead. Without
    `published` they are refused. With it, the figures must be those of `Normalisation.published`, offset of +1000
    included, and the store must have the published bands; the offset is then known, and the second rule is not applied.
    `BatchTransforms` adds what the store's numbers lack of that offset.

    Raises UsageError that says which rule failed; StoreError where the store has no training split.
    """
    statistics = reflectance_statistics(store, release)
    exact = Normalisation.published()
    has_published_figures = (normalisation.mean, normalisation.sd) == (exact.mean, exact.sd)
    if published:
        if not has_published_figures:
            raise UsageError(
                f"the normalisation ({normalisation.source}) is not the published one; leave out published=True, or "
                "take Normalisation.published()"
            )
        check_published_numbers(normalisation, store, release)
    elif has_published_figures:
        raise UsageError(
            f"the normalisation ({normalisation.source}) has the published figures, which are of images with "
            f"clouds; for published weights give published=True, otherwise use those of {store} "
            "(Normalisation.of_store)"
        )
    offsets = stored_offsets(store, release)
    for array in IMAGES:
        bands = statistics.get(array)
        if not bands:
            continue
        if array not in normalisation.mean:
            raise UsageError(f"the normalisation ({normalisation.source}) has no {array}, which {store} has")
        mean, sd = (values.tolist() for values in normalisation.in_stored_numbers(array, offsets.get(array, 0.0)))
        if len(mean) != len(bands):
            raise UsageError(
                f"the normalisation ({normalisation.source}) has {len(mean)} bands of {array}, {store} has {len(bands)}"
            )
        compared = [place for place, band in enumerate(bands) if band["sd"] and sd[place]]
        if not compared:
            continue
        expected = [stored_number(bands[place]["mean"]) for place in compared]
        expected_sd = [stored_number(bands[place]["sd"]) for place in compared]
        where = f"{array}: the normalisation ({normalisation.source}) against the statistics of {store}"
        means = [mean[place] for place in compared]
        check_factor([sd[place] for place in compared], expected_sd, f"standard deviations of {where}")
        if array == "s2" and not published:
            check_offset(means, expected, where)
        check_factor(means, expected, f"means of {where}")


def check_published_numbers(normalisation: Normalisation, store: str | Path, release: int | None) -> None:
    """Whether the published figures are stated to be of the numbers they are of, and a store has their bands.

    Raises UsageError.
    """
    exact = Normalisation.published()
    if normalisation.offset != exact.offset or normalisation.reflectance_scale != exact.reflectance_scale:
        raise UsageError(
            f"the published normalisation is for Sentinel-2 numbers with {PUBLISHED_OFFSET:g} on top, but this one "
            f"states the offsets {normalisation.offset or 'none'}; take Normalisation.published()"
        )
    bands = stored_data(store_attributes(store, release)["layout"]).s2_bands
    if bands and tuple(bands) != SENTINEL2_BANDS:
        raise UsageError(
            f"the published normalisation is for the bands {' '.join(SENTINEL2_BANDS)}, {store} has {' '.join(bands)}"
        )


def check_factor(values: list[float], expected: list[float], what: str) -> None:
    """Raise UsageError where figures are off by the reflectance scale in the median."""
    ratio = median(value / max(known, 1.0) for value, known in zip(values, expected, strict=True))
    if 1 / SCALE_MARGIN < ratio < SCALE_MARGIN:
        return
    factor = round(1 / REFLECTANCE_SCALE)
    likely = (
        f"reflectance was used as stored numbers (factor {factor})"
        if ratio <= 1 / SCALE_MARGIN
        else f"they were multiplied by {factor} twice, or have another scale"
    )
    raise UsageError(
        f"{what}: {ratio:.3g} times those of the store in the median, so {likely}; "
        "correct the figures or reflectance_scale, or take Normalisation.of_store"
    )


def check_offset(means: list[float], expected: list[float], where: str) -> None:
    """Raise UsageError where means, in stored numbers, are off by an offset of +1000 or -1000.

    Means that a factor of 10000 explains better are left to `check_factor`: about 1000 below means near 1000 is 0.
    """
    unexplained = distance(means, expected)
    by_factor = distance([value / REFLECTANCE_SCALE for value in means], expected)
    for offset in (PUBLISHED_OFFSET, -PUBLISHED_OFFSET):
        if distance([value - offset for value in means], expected) < min(OFFSET_MARGIN * unexplained, by_factor):
            likely = (
                "its Sentinel-2 numbers had the offset of 1000, those of the store do not; state it as "
                "offset={'s2': 1000}"
                if offset > 0
                else "the offset of 1000 was subtracted from its Sentinel-2 numbers once too often, or is stated "
                "but not in them"
            )
            raise UsageError(
                f"means of {where}: off by about {offset:+g} stored numbers, so {likely}, or take "
                "Normalisation.of_store"
            )


def distance(values: list[float], expected: list[float]) -> float:
    """The median of the absolute differences."""
    return median(abs(value - known) for value, known in zip(values, expected, strict=True))
