"""The sizes of a model and what it expects of its inputs: one frozen record, stored beside the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from h2crop_data.constants import BACKGROUND, COARSE, FINE, MONTHS, SENTINEL2_BANDS, TIERS, UNKNOWN
from h2crop_data.errors import UsageError
from h2crop_data.training.normalisation import Normalisation

#: Classes of each tier of the published taxonomy, without background.
PUBLISHED_CLASSES = {1: 6, 2: 36, 3: 82, 4: 101}
#: Fine pixels along one coarse pixel.
COARSE_STEP = COARSE // FINE

#: How an error about a configuration begins.
REFUSED = "model configuration: "


def is_whole(value: object) -> bool:
    """Whether a value is an int; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_rate(value: object) -> bool:
    """Whether a value is a number from 0 to below 1."""
    return isinstance(value, int | float) and 0 <= value < 1


def not_positive(name: str, value: object) -> list[str]:
    """What is wrong with a size; nothing for an int of at least 1."""
    if isinstance(value, int) and is_whole(value) and value >= 1:
        return []
    return [f"{name}: expected a whole number of at least 1, got {value!r}"]


def not_positive_each(name: str, values: object, count: int) -> list[str]:
    """What is wrong with a tuple of sizes."""
    if not isinstance(values, tuple) or len(values) != count:
        return [f"{name}: expected a tuple of {count} whole numbers, got {values!r}"]
    return [problem for i, value in enumerate(values) for problem in not_positive(f"{name}[{i}]", value)]


def not_of_type(name: str, value: object, expected: type) -> list[str]:
    """What is wrong with a value that must be of a type."""
    return [] if isinstance(value, expected) else [f"{name}: expected {expected.__name__}, got {value!r}"]


def refuse(part: str, problems: list[str]) -> None:
    """Raise UsageError that names all problems, if there are any."""
    if problems:
        raise UsageError(REFUSED + "; ".join(f"{part}: {problem}" if part else problem for problem in problems))


@dataclass(frozen=True)
class SwinConfig:
    """The Sentinel-2 stream. Stage i (0..3) has width `width * 2**i`; the defaults are the published sizes."""

    #: Channels after the patch embedding.
    width: int = 128
    #: Blocks in each stage.
    depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    #: Attention heads in each stage.
    heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    #: Months and pixels (y, x) of one token: kernel and stride of the patch embedding.
    token: tuple[int, int, int] = (2, 4, 4)
    #: Frames and tokens (y, x) of an attention window; maps that are smaller get a smaller window.
    window: tuple[int, int, int] = (8, 7, 7)
    #: Hidden width of the MLPs / width.
    mlp_ratio: int = 4
    #: Probability that a sample skips a branch in the last block; it grows linearly from 0 in the first.
    stochastic_depth: float = 0.2

    def __post_init__(self) -> None:
        problems = [
            *(problem for name in ("width", "mlp_ratio") for problem in not_positive(name, getattr(self, name))),
            *(problem for name in ("depths", "heads") for problem in not_positive_each(name, getattr(self, name), 4)),
            *(problem for name in ("token", "window") for problem in not_positive_each(name, getattr(self, name), 3)),
        ]
        if not is_rate(self.stochastic_depth):
            problems.append(f"stochastic_depth: expected a number from 0 to below 1, got {self.stochastic_depth!r}")
        refuse("SwinConfig", problems)
        for stage, (width, heads) in enumerate(zip(self.widths, self.heads, strict=True)):
            if width % heads:
                problems.append(f"stage {stage}: width {width} is not a multiple of {heads} heads")
        if self.token[1] != self.token[2] or self.window[1] != self.window[2]:
            problems.append(f"token {self.token} and window {self.window} must be square in y and x")
        refuse("SwinConfig", problems)

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of each stage."""
        return (self.width, 2 * self.width, 4 * self.width, 8 * self.width)


@dataclass(frozen=True)
class TransformerConfig:
    """One of the two transformers of the EnMAP stream."""

    #: Attention heads.
    heads: int
    #: Blocks.
    depth: int = 6
    #: Hidden width of the MLPs / width.
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        names = ("heads", "depth", "mlp_ratio")
        problems = [problem for name in names for problem in not_positive(name, getattr(self, name))]
        refuse("TransformerConfig", problems)


@dataclass(frozen=True)
class HyperspectralConfig:
    """The EnMAP stream; the defaults are the published sizes."""

    #: EnMAP bands.
    bands: int = 218
    #: Channels of the spatial transformer, whose tokens are pixels.
    spatial_width: int = 768
    spatial: TransformerConfig = TransformerConfig(heads=12)
    #: Coarse pixels along the square that is averaged to one number of a band's token.
    cell: int = 4
    #: The spectral transformer, whose tokens are bands; its width is the number of cells of a patch.
    spectral: TransformerConfig = TransformerConfig(heads=8)
    #: Channels of the stream's result.
    features: int = 128
    #: A learned token stands for the result of samples without EnMAP. The published model has none.
    optional: bool = False

    def __post_init__(self) -> None:
        names = ("bands", "spatial_width", "cell", "features")
        problems = [problem for name in names for problem in not_positive(name, getattr(self, name))]
        for name in ("spatial", "spectral"):
            problems += not_of_type(name, getattr(self, name), TransformerConfig)
        problems += not_of_type("optional", self.optional, bool)
        refuse("HyperspectralConfig", problems)
        if self.spatial_width % self.spatial.heads:
            problems.append(f"spatial_width {self.spatial_width} is not a multiple of {self.spatial.heads} heads")
        refuse("HyperspectralConfig", problems)


@dataclass(frozen=True)
class ModelConfig:
    """A model: its inputs, its tiers, its sizes.

    `ModelConfig.published` gives the published configurations, `ModelConfig.small` one of the same structure that
    trains on a CPU, `dataclasses.replace` a changed copy. Raises UsageError for values of another type and for sizes
    that do not fit together.
    """

    #: The model reads the first so many months of a season.
    months: int
    #: Tier (1..4) that is predicted -> number of its classes, without background.
    classes: dict[int, int] = field(default_factory=PUBLISHED_CLASSES.copy)
    #: Pixels of 10 m along a patch.
    patch: int = 192
    #: The Sentinel-2 bands, in the order of the channels.
    s2_bands: tuple[str, ...] = SENTINEL2_BANDS
    sentinel2: SwinConfig = SwinConfig()
    #: None for a model without EnMAP.
    enmap: HyperspectralConfig | None = HyperspectralConfig()
    #: Whether the heads see the crops of the year before.
    prior: bool = True
    #: How inputs are normalised; None if that is left to whoever calls the model.
    normalisation: Normalisation | None = None
    #: Version and SHA-256 of the classes, as the column `taxonomy` of a store's index has them; None if unknown.
    taxonomy: str | None = None

    def __post_init__(self) -> None:
        refuse("", self._wrong_values())
        refuse("", self._misfits())

    def _wrong_values(self) -> list[str]:
        """What is wrong with fields on their own."""
        problems = not_positive("patch", self.patch)
        if not is_whole(self.months) or not 1 <= self.months <= MONTHS:
            problems.append(f"months: expected a whole number from 1 to {MONTHS}, got {self.months!r}")
        problems += not_of_type("classes", self.classes, dict) or [
            problem
            for tier, count in self.classes.items()
            for problem in [*not_of_type("classes, a tier", tier, int), *not_positive(f"classes, tier {tier}", count)]
        ]
        problems += not_of_type("s2_bands", self.s2_bands, tuple) or [
            problem for band in self.s2_bands for problem in not_of_type("s2_bands, a band", band, str)
        ]
        problems += not_of_type("sentinel2", self.sentinel2, SwinConfig)
        problems += not_of_type("prior", self.prior, bool)
        if self.enmap is not None:
            problems += not_of_type("enmap", self.enmap, HyperspectralConfig)
        if self.normalisation is not None:
            problems += not_of_type("normalisation", self.normalisation, Normalisation)
        if self.taxonomy is not None:
            problems += not_of_type("taxonomy", self.taxonomy, str)
        return problems

    def _misfits(self) -> list[str]:
        """Which sizes do not fit together."""
        problems = []
        if not self.classes or set(self.classes) - set(range(1, TIERS + 1)):
            problems.append(f"classes: tiers {sorted(self.classes)}: give one or more of 1..{TIERS}")
        if not self.s2_bands:
            problems.append("s2_bands: give at least one band")
        if self.frames[0] > self.sentinel2.window[0]:
            problems.append(
                f"{self.months} months are {self.frames[0]} frames of {self.sentinel2.token[0]}, more than a window's "
                f"{self.sentinel2.window[0]}: windows hold all frames"
            )
        if self.frames[-1] > 1:
            problems.append(f"{self.frames[0]} frames are more than 8: patch merging must leave one")
        if self.patch % self.sentinel2.token[1]:
            problems.append(f"patch {self.patch} is not a multiple of a token's {self.sentinel2.token[1]} pixels")
        if self.enmap:
            cell = COARSE_STEP * self.enmap.cell
            if self.patch % cell:
                problems.append(
                    f"patch {self.patch} is not a multiple of {cell}, the fine pixels along an EnMAP cell of "
                    f"{self.enmap.cell} coarse ones"
                )
            elif self.spectral_width % self.enmap.spectral.heads:
                problems.append(
                    f"patch {self.patch} has {self.spectral_width} EnMAP cells, which is not a multiple of "
                    f"{self.enmap.spectral.heads} spectral heads"
                )
        if self.normalisation:
            channels = {"s2": len(self.s2_bands)} | ({"enmap": self.enmap.bands} if self.enmap else {})
            for array, expected in channels.items():
                # There are as many standard deviations as means.
                given = len(self.normalisation.mean.get(array, ()))
                if given != expected:
                    problems.append(f"normalisation: {given} figures of {array}, expected {expected}, one a band")
        return problems

    @property
    def tiers(self) -> tuple[int, ...]:
        """The tiers that are predicted, coarsest first."""
        return tuple(sorted(self.classes))

    @property
    def frames(self) -> tuple[int, int, int, int]:
        """Frames of each stage of the Sentinel-2 stream.

        A token spans 2 months (an odd last month is paired with zeros). Patch merging averages pairs of frames as
        long as there is more than one: 6 months give 3, 2, 1, 1 and 12 months 6, 3, 2, 1, as published.
        """
        first = -(-self.months // self.sentinel2.token[0])
        second = -(-first // 2)
        third = -(-second // 2)
        return (first, second, third, -(-third // 2))

    @property
    def coarse(self) -> int:
        """EnMAP pixels (30 m) along a patch."""
        return self.patch // COARSE_STEP

    @property
    def spectral_width(self) -> int:
        """Channels of the spectral transformer: EnMAP cells of a patch; 0 without EnMAP."""
        return (self.coarse // self.enmap.cell) ** 2 if self.enmap else 0

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """What the model expects of a sample, by array of a store, as stated in a saved model's config.json."""
        scale = self.normalisation.reflectance_scale if self.normalisation else None
        inputs: dict[str, dict[str, Any]] = {
            "s2": {
                "dimensions": ["month", "s2_band", "y", "x"],
                "shape": [self.months, len(self.s2_bands), self.patch, self.patch],
                "months": f"the first {self.months} of the season",
                "bands": list(self.s2_bands),
                "reflectance_scale": scale,
                "fill": "0 after normalisation",
            }
        }
        if self.enmap:
            inputs["enmap"] = {
                "dimensions": ["band", "y30", "x30"],
                "shape": [self.enmap.bands, self.coarse, self.coarse],
                "reflectance_scale": scale,
                "fill": "0 after normalisation",
                "optional": self.enmap.optional,
            }
        if self.prior:
            inputs["prior"] = {
                "dimensions": ["tier", "y", "x"],
                "shape": [TIERS, self.patch, self.patch],
                "background": BACKGROUND,
                "unknown": UNKNOWN,
            }
        return inputs

    @classmethod
    def build(cls, **values: Any) -> ModelConfig:
        """A configuration of these fields. Raises UsageError that names every field that does not fit."""
        known = {each.name: each for each in fields(cls)}
        problems = [f"{name}: unknown field; known: {', '.join(known)}" for name in values if name not in known]
        for name, each in known.items():
            if each.default is MISSING and each.default_factory is MISSING and name not in values:
                problems.append(f"{name}: missing")
        refuse("", problems)
        return cls(**values)

    @classmethod
    def published(
        cls, months: int, *, enmap: bool = True, prior: bool = True, tiers: Iterable[int] = (1, 2, 3, 4)
    ) -> ModelConfig:
        """A published configuration: 6, 8, 10 or 12 months, with and without EnMAP and prior, any tiers.

        Raises UsageError for other tiers than 1..4 and other months than 1..12.
        """
        sizes = HyperspectralConfig() if enmap else None
        return cls.build(months=months, classes=published_classes(tiers), enmap=sizes, prior=prior)

    @classmethod
    def small(
        cls,
        months: int = 6,
        *,
        patch: int = 192,
        enmap: bool = True,
        prior: bool = True,
        tiers: Iterable[int] = (1, 2, 3, 4),
        **fields: Any,
    ) -> ModelConfig:
        """The same structure with 2.0 million parameters, for tests, tutorials and computers without a GPU.

        patch: a multiple of 12. fields: of ModelConfig, in place of the small ones, such as `classes={1: 3}`.
        """
        sizes = HyperspectralConfig(
            spatial_width=32,
            spatial=TransformerConfig(depth=2, heads=2),
            spectral=TransformerConfig(depth=2, heads=2),
            cell=patch // COARSE_STEP // 4,
            features=16,
        )
        chosen: dict[str, Any] = {
            "classes": published_classes(tiers),
            "sentinel2": SwinConfig(width=16, depths=(2, 2, 4, 2), heads=(1, 2, 4, 8)),
            "enmap": sizes if enmap else None,
            "prior": prior,
            "patch": patch,
        }
        return cls.build(months=months, **chosen | fields)


def published_classes(tiers: Iterable[int]) -> dict[int, int]:
    """Tier -> number of classes in the published taxonomy. Raises UsageError for other tiers than 1..4."""
    chosen = list(tiers)
    unknown = [tier for tier in chosen if tier not in PUBLISHED_CLASSES]
    if unknown:
        raise UsageError(f"tiers: unknown tier {unknown[0]!r}; expected 1..{TIERS}")
    return {tier: PUBLISHED_CLASSES[tier] for tier in chosen}
