"""What `h2crop validate` asks of a source: what its arrays, columns and coordinates must hold.

Validation shares no code with the sources of a build, so that a mistake there is not made here again. What the format
of a source states of its numbers (`ValueRules`) is checked for every source; what arrays must be against each other,
columns, scenes and the index is known of the sources in this folder alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.cube.statistics import BlockSums
from h2crop_data.validation.findings import Findings
from h2crop_data.validation.release import Release
from h2crop_data.validation.values import Problem

Arrays = Mapping[str, NDArray[Any]]
#: What the checks of a source keep of a block to compare it with other blocks.
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class BlockValues:
    """The values of a block."""

    season: int
    #: None where the index does not say.
    split: str | None
    #: Name -> (sample, ...): the arrays of all sources, without those whose files are missing or damaged.
    arrays: Arrays
    #: Whether its season was imported from published files.
    imported: bool


@dataclass(frozen=True)
class ValueCheck(Generic[Kept]):
    """What the values of a block say by themselves."""

    problems: list[Problem] = field(default_factory=list)
    #: None where nothing is to be compared with other blocks.
    kept: Kept | None = None


@dataclass(frozen=True)
class DerivedColumn:
    """A column of the samples index that follows from an array of the sample."""

    column: str
    array: str
    value: float | int | list[float]


class SourceChecks(Generic[Kept]):
    """The checks of one source in one release. Every method has an answer for a source of which nothing is known.

    `check_values`, `derived_columns` and `check_sample` run in several threads and change nothing; all others run one
    at a time: `begin_season`, then `compare_block` for the blocks of the season in order, then `end_season`.
    """

    #: As in the recipe.
    name: ClassVar[str]
    #: Tables of the index that every built season has because of this source, without the season in their names.
    season_tables: ClassVar[tuple[str, ...]] = ()

    def __init__(self, release: Release) -> None:
        self.release = release

    def check_scenes(self, season: int, blocks: pd.DataFrame, taken: pd.DataFrame) -> Findings:
        """What columns of the index say of scenes that were not taken.

        blocks: the blocks of a season. taken: the scenes of the season that are used, of all sources.
        """
        return iter(())

    def wrong_coordinate(self, name: str, values: NDArray[Any], *, imported: bool) -> NDArray[np.bool_] | None:
        """(slot): where a coordinate along the samples is not what a slot with a sample must have.

        values: (slot, ...), of any value in other slots. None for a coordinate of another source.
        """
        return None

    def flag_masks(self, season: int) -> dict[str, int] | None:
        """Array of flags -> the bits that keep a pixel out of statistics; None where the recipe does not say."""
        return {}

    def begin_season(self, season: int) -> None:
        """Read what the blocks of a season are compared with."""

    def check_values(self, block: BlockValues) -> ValueCheck[Kept]:
        """What cannot be true in the values of a block."""
        return ValueCheck()

    def derived_columns(self, season: int, arrays: Arrays, *, imported: bool) -> Iterator[DerivedColumn]:
        """What the samples index must say of a sample. arrays: those of the sample."""
        return iter(())

    def unknown_columns(self, season: int, row: Mapping[Any, Any]) -> frozenset[str]:
        """Derived columns that must be null in the row of a sample, because what its scene lacks would tell them."""
        return frozenset()

    def check_sample(self, arrays: Arrays, row: Mapping[Any, Any], *, imported: bool) -> Iterator[tuple[str, str]]:
        """Array, and what of the row of a sample in the index contradicts it, in words."""
        return iter(())

    def compare_block(self, season: int, block: int, kept: Kept) -> Findings:
        """What contradicts the blocks before. kept: what `check_values` kept of this one."""
        return iter(())

    def end_season(self, season: int, sums: Mapping[str, BlockSums]) -> Findings:
        """What only all blocks of a season together show. sums: by split, of the blocks that could be summed up."""
        return iter(())
