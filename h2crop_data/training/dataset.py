"""A thin PyTorch dataset: one sample of a store as tensors, as stored."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset

from h2crop_data.constants import MONTHS
from h2crop_data.crops.mapping import ClassMapping, mapped_labels, tables_for
from h2crop_data.cube.known_scenes import last_day_of_month, scenes_until
from h2crop_data.cube.reading import load_root, nothing_selected, read_columns
from h2crop_data.cube.root import RootAttributes
from h2crop_data.cube.sample_reader import SampleReader, open_samples
from h2crop_data.cube.schema import season_documents
from h2crop_data.cube.user_classes import names_of_mapping
from h2crop_data.cube.windows import TIME_AXIS
from h2crop_data.errors import StoreError, UsageError

#: What the reference model takes.
MODEL_ARRAYS = ("enmap", "s2", "label", "prior")
#: Arrays of classes.
CLASS_ARRAYS = ("label", "prior")


class SampleIds(Sequence[str]):
    """Ids of samples: to be used like a list of strings, in a third of its memory, which workers share after a fork."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        found = self.values[index]
        ids: str | list[str] = found.to_pylist() if isinstance(index, slice) else found.as_py()
        return ids

    def __iter__(self) -> Iterator[str]:
        for value in self.values:
            yield value.as_py()

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same ids in the same order."""
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<{len(self)} ids of samples>"


class CropSamples(Dataset[dict[str, Any]]):
    """The samples of a store, in the order of its index.

    A sample is a dictionary of tensors with the store's own dtypes and fill values (docs/store-format.md), and `id`:
    enmap (band, y30, x30) int16, s2 (time, s2_band, y, x) int16, label and prior (tier, y, x) uint8, and whatever
    else of the store's arrays is asked for. A store in a folder or on a web server can be read in forked, spawned and
    forkserver workers; one in S3 not in forked ones, which raise StoreError that says so: give a DataLoader
    `multiprocessing_context="forkserver"` or `"spawn"`.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        split: str | None = None,
        seasons: Sequence[int] | None = None,
        arrays: Sequence[str] | None = None,
        until: str | date | None = None,
        months: int | None = None,
        later_scenes: bool = False,
        classes: str | Path | None = None,
        release: int | None = None,
    ) -> None:
        """Open a store.

        store: folder, http(s) or s3 URL. split: `train`, `val` or `test`; all by default. seasons: all by default.
        arrays: names of arrays, by default those of the reference model that the store has. until: the last day that is
        known, `2022-06-30` or, in every season, `06-30`. Monthly arrays end with the last month that is over by then,
        and samples whose scene was acquired later are left out, whatever arrays are read; `later_scenes` keeps them.
        months: the same for the end of a month; 6 is `until="06-30"`. classes: a mapping file, or the name of one that
        comes with h2crop (`worldcereal`, `cdl`): `label` and `prior` are (y, x) in its classes, whose names are in
        `class_names`. release: an older one than the current. `months`
        and `left_out` say how many months the monthly arrays have and how many samples were left out. Raises StoreError
        for a store, season, split or array that does not exist, and where no sample is selected, UsageError for a day
        that no window ends with, ParcelError for an invalid mapping.
        """
        mapping = None if classes is None else ClassMapping.load(classes)
        self.store = store
        self.release = release
        root = load_root(store, release)
        attributes = root["attributes"]
        present = [int(season) for season in attributes["seasons"]]
        chosen = sorted(present if seasons is None else seasons)
        missing = [season for season in chosen if season not in present]
        if missing:
            raise StoreError(f"{store} has no season {missing[0]}; it has {', '.join(map(str, present))}")
        days = last_days(until, months, chosen)
        #: How many months the monthly arrays have.
        self.months = min(map(months_over, days.values()), default=MONTHS)
        if not self.months:
            raise UsageError(
                f"until: expected a day after the end of January, so that at least one month is over, got {until}"
            )
        #: How many samples were left out because their scene was acquired after the last day.
        self.left_out = 0
        #: Number -> name of the user's classes; empty where labels are in the tiers of the store.
        self.class_names = {} if mapping is None else names_of_mapping(mapping)
        self._class_tables = None if mapping is None else tables_for(mapping, attributes)
        self.readers: dict[int, dict[str, SampleReader]] = {}
        self.monthly: set[str] = set()
        tables = []
        for season, readers in open_samples(self.store, root, chosen).items():
            names = [name for name in MODEL_ARRAYS if name in readers] if arrays is None else list(arrays)
            unknown = [name for name in names if name not in readers]
            if unknown:
                raise StoreError(f"{store} has no array {unknown[0]!r}; it has {', '.join(sorted(readers))}")
            self.readers[season] = {name: readers[name] for name in names}
            documents = season_documents(root, season)
            self.monthly |= {name for name in names if documents[name]["dimension_names"][1] == TIME_AXIS}
            table = chosen_samples(self.store, attributes, season, split)
            if not later_scenes and days[season] < date(season, MONTHS, 31):
                known = scenes_until(self.store, attributes, season, days[season])
                earlier = table.filter(pc.is_in(table["slot"], known))
                self.left_out += len(table) - len(earlier)
                table = earlier
            tables.append(table)
        if not any(map(len, tables)):
            if self.left_out:
                raise StoreError(
                    f"{store}: all {self.left_out} sample(s) were left out, because their scenes were acquired after "
                    f"{', '.join(map(str, days.values()))}; choose a later day, or keep them with later_scenes=True"
                )
            raise nothing_selected(store, attributes, split, chosen)
        self.ids = SampleIds(pa.chunked_array([chunk for table in tables for chunk in table["sample"].chunks]))
        self._slots = np.concatenate([table["slot"].to_numpy() for table in tables])
        self._seasons = np.repeat(np.array(chosen, np.int16), list(map(len, tables)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample `index` as tensors."""
        season, slot = int(self._seasons[index]), int(self._slots[index])
        sample: dict[str, Any] = {"id": self.ids[index]}
        for name, reader in self.readers[season].items():
            rows = self.months if name in self.monthly else reader.sample_shape[0]
            buffer = np.empty((rows, *reader.sample_shape[1:]), reader.dtype)
            reader.read_into(slot, buffer)
            if self._class_tables is not None and name in CLASS_ARRAYS:
                buffer = mapped_labels(buffer, self._class_tables)
            sample[name] = torch.from_numpy(buffer)
        return sample


def chosen_samples(store: str | Path, attributes: RootAttributes, season: int, split: str | None) -> pa.Table:
    """Id and slot of a season's samples, of a split or of all (None), in order of the index."""
    table = read_columns(store, attributes, f"samples-{season}", ["sample", "slot", "split"])
    chosen = table if split is None else table.filter(pc.equal(table["split"], split))
    return chosen.select(["sample", "slot"])


def last_days(until: str | date | None, months: int | None, seasons: Sequence[int]) -> dict[int, date]:
    """By season, the last day that is known: that of the season by default. Raises UsageError."""
    if until is not None and months is not None:
        raise UsageError("until cannot be combined with months; give one of them")
    if months is not None:
        if not 1 <= months <= MONTHS:
            raise UsageError(f"months: expected 1..12, got {months}")
        return {season: last_day_of_month(season, months) for season in seasons}
    if until is None:
        return {season: date(season, MONTHS, 31) for season in seasons}
    if isinstance(until, str) and re.fullmatch(r"\d\d-\d\d", until):
        # A leap year has every day; 29 February is the last one of the month in the others.
        month, day = parsed_day(f"2000-{until}").timetuple()[1:3]
        return {season: date(season, month, min(day, monthrange(season, month)[1])) for season in seasons}
    last = parsed_day(until)
    others = [season for season in seasons if season != last.year]
    if others:
        raise UsageError(
            f"until: {last} is not in the season {others[0]}; choose seasons=[{last.year}], or give month and day, "
            f"{last:%m-%d}, for every season"
        )
    return dict.fromkeys(seasons, last)


def parsed_day(text: str | date) -> date:
    """A day of text like `2022-06-30`. Raises UsageError."""
    try:
        return date.fromisoformat(str(text))
    except ValueError as error:
        raise UsageError(f"until: expected a day like 2022-06-30 or 06-30, got {text!r}") from error


def months_over(day: date) -> int:
    """How many months of its year are over at the end of a day."""
    return day.month if day.day == monthrange(day.year, day.month)[1] else day.month - 1
