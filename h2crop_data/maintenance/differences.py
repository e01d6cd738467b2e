"""What differs between two arrays, value by value, two tables, row by row, and two JSON documents, leaf by leaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from h2crop_data.cube.schema import ArraySpec
from h2crop_data.cube.windows import TIME_AXIS

#: Axes of a sample that are told by number, and the number of their first place.
NUMBERED_AXES = {TIME_AXIS: 1, "tier": 1, "band": 0}
#: What a difference calls axes of other names; windows of time are months.
AXES_IN_WORDS = {TIME_AXIS: "month"}


@dataclass(frozen=True)
class Change:
    """A value that differs.

    name: where it stands. a, b: the value of either side; None where it has none.
    """

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class ArrayDifference:
    """How one sample differs in one array.

    array, sample: their names. differing, values: how many values differ, of how many.
    largest: largest absolute difference, as stored, where both sides have a value; None where there is none, and for
    classes, flags and parcel numbers.
    only_a, only_b: of those that differ, a value in A and fill in B, and the other way round.
    where: along the axes: `month` and `tier` from 1, `band` from 0, `s2_band` by name; `flag`: names that differ.
    """

    array: str
    sample: str
    differing: int
    values: int
    largest: int | None
    only_a: int
    only_b: int
    where: dict[str, list[int | str]]


@dataclass(frozen=True)
class TableDifference:
    """How two tables differ whose rows are matched by a key.

    common: rows that both have. only_a, only_b: keys of the rows that one side has.
    columns_only_a, columns_only_b: columns that one side has.
    columns: column -> keys of the rows in which it differs.
    """

    common: int
    only_a: list[str]
    only_b: list[str]
    columns_only_a: list[str]
    columns_only_b: list[str]
    columns: dict[str, list[str]]

    @property
    def same(self) -> bool:
        """Whether rows and columns are the same."""
        return not any((self.only_a, self.only_b, self.columns_only_a, self.columns_only_b, self.columns))


def compare_values(
    a: NDArray[Any], b: NDArray[Any], spec: ArraySpec, sample: str, names: Mapping[str, Sequence[str]]
) -> ArrayDifference | None:
    """How two arrays of one sample differ, (sample_shape) of the array's dtype; None where they are equal.

    names: axis -> what its places are called, where they have names.
    """
    differ = a != b
    if not differ.any():
        return None
    one, other = a[differ], b[differ]
    both = (one != spec.fill) & (other != spec.fill)
    distances = np.abs(one[both].astype(np.int64) - other[both].astype(np.int64))
    where: dict[str, list[int | str]] = {}
    for axis, name in enumerate(spec.dims[1:]):
        called = names.get(name)
        if name in NUMBERED_AXES or called:
            rest = tuple(i for i in range(differ.ndim) if i != axis)
            places = np.flatnonzero(differ.any(axis=rest)).tolist()
            where[AXES_IN_WORDS.get(name, name)] = [called[i] if called else i + NUMBERED_AXES[name] for i in places]
    if "flag_masks" in spec.attributes:
        changed = int(np.bitwise_or.reduce(one ^ other))
        flags = zip(spec.attributes["flag_masks"], spec.attributes["flag_meanings"].split(), strict=True)
        where["flag"] = [name for mask, name in flags if changed & mask]
    return ArrayDifference(
        array=spec.name,
        sample=sample,
        differing=len(one),
        values=a.size,
        largest=int(distances.max()) if spec.quantity and len(distances) else None,
        only_a=int((other == spec.fill).sum()),
        only_b=int((one == spec.fill).sum()),
        where=where,
    )


def compare_tables(a: pd.DataFrame, b: pd.DataFrame, key: list[str]) -> TableDifference:
    """Two tables whose rows are matched by some columns; a key that occurs again is listed as `key (2)`."""
    a, b = keyed(a, key), keyed(b, key)
    common = a.index[a.index.isin(b.index)]
    left, right = a.loc[common], b.loc[common]
    differing = {
        str(column): common[unequal(left[column], right[column])].tolist() for column in a.columns if column in b
    }
    return TableDifference(
        common=len(common),
        only_a=a.index[~a.index.isin(common)].tolist(),
        only_b=b.index[~b.index.isin(common)].tolist(),
        columns_only_a=[str(column) for column in a.columns if column not in b],
        columns_only_b=[str(column) for column in b.columns if column not in a],
        columns={column: rows for column, rows in differing.items() if rows},
    )


def keyed(table: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """A table with its key as index, as text."""
    names = table[key[0]].astype(str)
    for column in key[1:]:
        names = names + " " + table[column].astype(str)
    repeated = names.groupby(names).cumcount()
    names = names.where(repeated == 0, names + " (" + (repeated + 1).astype(str) + ")")
    return table.drop(columns=key).set_axis(pd.Index(names.to_numpy(dtype=object)))


def unequal(a: pd.Series[Any], b: pd.Series[Any]) -> NDArray[np.bool_]:
    """Row by row whether two columns differ; missing values equal each other."""
    absent_a, absent_b = a.isna().to_numpy(), b.isna().to_numpy()
    differ: NDArray[np.bool_] = absent_a != absent_b
    both = ~(absent_a | absent_b)
    left, right = a.to_numpy(dtype=object)[both], b.to_numpy(dtype=object)[both]
    if isinstance(a, gpd.GeoSeries) and isinstance(b, gpd.GeoSeries):
        differ[both] = ~shapely.equals_identical(left, right)
    else:
        differ[both] = [comparable(one) != comparable(other) for one, other in zip(left, right, strict=True)]
    return differ


def comparable(value: Any) -> Any:
    """A value of a table in a form that compares; missing values inside lists equal each other."""
    if isinstance(value, np.ndarray | list | tuple):
        return [comparable(item) for item in value]
    return None if value is None or value != value else value


def changes(a: Any, b: Any, name: str = "") -> list[Change]:
    """The leaves in which two JSON documents differ, by path (`s2[0].mean`); lists of another length count whole."""
    if isinstance(a, dict) and isinstance(b, dict):
        paths = {key: f"{name}.{key}" if name else str(key) for key in {**a, **b}}
        return [change for key, path in paths.items() for change in changes(a.get(key), b.get(key), path)]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and any(isinstance(i, dict | list) for i in a):
        return [change for i in range(len(a)) for change in changes(a[i], b[i], f"{name}[{i}]")]
    return [] if a == b else [Change(name, a, b)]
