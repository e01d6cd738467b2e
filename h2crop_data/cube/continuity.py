"""The next release against the newest one: what a finished block is never changes, and nothing comes back.

A release is made from the plans and markers in `.build/`. Where these were changed, lost or restored from another time,
the next release would say other things of blocks that readers know. The index of the newest release tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from h2crop_data.cube.released_tables import released_records, released_table
from h2crop_data.cube.retraction import RETRACTED
from h2crop_data.cube.root import RootAttributes
from h2crop_data.errors import StoreError
from h2crop_data.storage.storage import BUILD_FOLDER, FileRecord, Storage

#: Columns of blocks that are compared by other rules, or may change: the hash of a recipe with the defaults of this
#: h2crop, and what built a block whose lost files were built again.
MAY_DIFFER = frozenset({"season", "block", "retracted", "sha256", "recipe", "software"})
#: Columns of blocks of which an earlier h2crop knew nothing: compared where there is a value.
KNOWN_LATER = frozenset({"dates", "tables"})
#: What says which block a number means, also where the block is excluded now.
IDENTITY = frozenset({"split", "square", "epsg", "scene", "samples"})
#: What says which sample a row of the samples means.
SAMPLE_IDENTITY = frozenset({"sample", "cell", "epsg", "x0", "y0", "block", "split", "square", "scene"})
#: Characters of a value in an error.
SHOWN_LENGTH = 120


@dataclass(frozen=True)
class RowDifference:
    """The first row in which a table differs from that of the newest release."""

    row: int
    column: str
    before: Any
    after: Any


def check_continuity(
    files: Storage,
    attributes: RootAttributes | None,
    season: int,
    samples: pd.DataFrame,
    blocks: pd.DataFrame,
    records: Iterable[FileRecord],
    software: str,
) -> None:
    """Refuse to make a release that contradicts the newest one in a season. Only tables of that season are read.

    attributes: of the newest release; None before the first. samples: one row a slot in use, also of excluded blocks.
    blocks: one row a block, with `retracted`. records: the shards of the release that is to be made. software: what
    makes it. Where another version made the newest one, only the identity of a sample is compared: a version that seals
    an index right which an earlier one sealed wrong is not refused.

    Raises StoreError, which states block, column and both values, where a block of the newest release is missing or
    differs, a sample changed its slot, a shard has other bytes, or an exclusion or its reason is lost. A table of the
    newest release that is lost or damaged is not compared.
    """
    if attributes is None or str(season) not in attributes["seasons"]:
        return
    known = released_records(files, attributes, season)
    if known is None:
        return
    release = int(attributes["release"])
    check = SeasonCheck(files, season, release, blocks)
    before = released_table(files, attributes, "blocks", season, known)
    if before is not None:
        check.check_blocks(before)
    before = released_table(files, attributes, f"samples-{season}", season, known)
    if before is not None:
        check.check_samples(before, samples, whole=attributes["software"] == software)
    check.check_shards(known, records)


class SeasonCheck:
    """The comparison of one season."""

    def __init__(self, files: Storage, season: int, release: int, blocks: pd.DataFrame) -> None:
        """release: number of the newest one. blocks: of the next one."""
        self.files = files
        self.season = season
        self.release = release
        self.blocks = blocks
        self.excluded = set(blocks["block"][blocks["retracted"] != ""].tolist())

    def check_blocks(self, before: pa.Table) -> None:
        """Compare the rows of blocks. Raises StoreError."""
        numbers = before["block"].to_pylist()
        lost = sorted(set(numbers) - set(self.blocks["block"].tolist()))
        if lost:
            raise self.contradiction(lost[0], "is missing in the plans of the store", self.remedy_of_plan())
        if "retracted" in before.column_names:
            now = dict(zip(self.blocks["block"].tolist(), self.blocks["retracted"].tolist(), strict=True))
            for block, reason in zip(numbers, before["retracted"].to_pylist(), strict=True):
                if reason and now[block] != reason:
                    state = f"excluded with the reason {now[block]!r}" if now[block] else "part of it again"
                    raise self.contradiction(
                        block,
                        f"is excluded there ({reason!r}), and would be {state}",
                        f"restore {self.files.where(RETRACTED)}, and {self.files.where(f'{BUILD_FOLDER}/plan')}, from "
                        "a backup",
                    )
        columns = [name for name in before.column_names if name in self.blocks and name not in MAY_DIFFER]
        of_identity = [name for name in columns if name in IDENTITY]
        for excluded, compared in ((False, columns), (True, of_identity)):
            rows = self.rows_of(before, excluded)
            difference = first_difference(rows, self.blocks, "block", compared)
            if difference is not None:
                self.refuse(difference.row, difference)

    def check_samples(self, before: pa.Table, samples: pd.DataFrame, *, whole: bool) -> None:
        """Compare the rows of samples of blocks that are not excluded now. Raises StoreError.

        whole: all of their columns; else those of `SAMPLE_IDENTITY`.
        """
        rows = self.rows_of(before, excluded=False)
        slots, of_slot = rows["slot"].to_pylist(), dict(zip(samples["slot"], samples["block"], strict=True))
        lost = [slot for slot in slots if slot not in of_slot]
        if lost:
            block = rows.filter(pc.equal(rows["slot"], lost[0]))["block"][0].as_py()
            raise self.contradiction(block, f"has a sample in slot {lost[0]}, which would be empty", self.remedy(block))
        released = samples["block"].isin(pc.unique(rows["block"]).to_pylist())
        more = samples[released & ~samples["slot"].isin(slots)]
        if len(more):
            block, slot = int(more["block"].iloc[0]), int(more["slot"].iloc[0])
            raise self.contradiction(block, f"has no sample in slot {slot}, and would have one", self.remedy(block))
        columns = [name for name in before.column_names if name in samples and name != "slot"]
        columns = [name for name in columns if whole or name in SAMPLE_IDENTITY]
        # The id first: of another sample every column differs.
        difference = first_difference(rows, samples, "slot", sorted(columns, key=lambda name: name != "sample"))
        if difference is not None:
            self.refuse(int(of_slot[difference.row]), difference, f" of the sample in slot {difference.row}")

    def check_shards(self, known: pa.Table, records: Iterable[FileRecord]) -> None:
        """Compare the digests of shards that both releases have. Raises StoreError."""
        before = pd.DataFrame({"path": known["path"].to_pylist(), "before": known["sha256"].to_pylist()})
        after = pd.DataFrame([(file["path"], file["sha256"]) for file in records], columns=["path", "after"])
        both = before.merge(after, on="path")
        changed = both[both["before"] != both["after"]]
        if changed.empty:
            return
        path, old, new = changed.iloc[0][["path", "before", "after"]]
        block = int(path.rsplit("/", 1)[1].split(".")[1]) if "/c." in path else self.block_of(path)
        raise self.contradiction(
            block,
            f"has {path} with the SHA-256 {old}, and its marker states {new}: it was built again with other bytes",
            f"restore that file and {self.marker(block)} from a backup, or exclude the block from now on: "
            f"{self.retract(block)}",
        )

    def block_of(self, path: str) -> int:
        """The block that a file which is no shard belongs to."""
        named = [paths is not None and path in paths for paths in self.blocks["files"]]
        return int(self.blocks["block"][named].iloc[0])

    def rows_of(self, table: pa.Table, excluded: bool) -> pa.Table:
        """The rows of blocks that are excluded now, or of the others."""
        is_excluded = pc.is_in(table["block"], pa.array(sorted(self.excluded), table["block"].type))
        return table.filter(is_excluded if excluded else pc.invert(is_excluded))

    def refuse(self, block: int, difference: RowDifference, row: str = "") -> None:
        """Raise the error for a row that differs."""
        raise self.contradiction(
            block,
            f"has {difference.column} {value_text(difference.before)}{row}, and would have "
            f"{value_text(difference.after)}",
            self.remedy_of_plan() if block in self.excluded else self.remedy(block),
        )

    def contradiction(self, block: int, what: str, remedy: str) -> StoreError:
        """The error for a block."""
        return StoreError(
            f"the next release of {self.files.location} would contradict release {self.release}: there, block {block} "
            f"of {self.season} {what}. {BUILD_FOLDER}/ was changed, or is from another time; {remedy}"
        )

    def remedy(self, block: int) -> str:
        """What to do about a block that differs."""
        return (
            f"restore {self.marker(block)} and {self.files.where(f'{BUILD_FOLDER}/plan')} from a backup, or exclude "
            f"the block from now on: {self.retract(block)}"
        )

    def remedy_of_plan(self) -> str:
        """What to do where the number of a block is not that of the block any more."""
        return f"restore {self.files.where(f'{BUILD_FOLDER}/plan')} from a backup, or build into a new store"

    def marker(self, block: int) -> str:
        """The marker of a block, as the user would find it."""
        return self.files.where(f"{BUILD_FOLDER}/{self.season}/{block:06d}.json")

    def retract(self, block: int) -> str:
        """The command that excludes a block."""
        return f'`h2crop retract {self.files.location} --block {self.season}:{block} --reason "…"`'


def first_difference(before: pa.Table, after: pd.DataFrame, key: str, columns: Sequence[str]) -> RowDifference | None:
    """The first row of a table, column by column, that has another value in another table; rows are matched by a key.

    Every key of `before` must be in `after`. NaN equals NaN and null; values are compared in the type of `before`.
    """
    if not before.num_rows:
        return None
    keys = before[key].to_numpy()
    rows = after.drop_duplicates(key).set_index(key).loc[keys]
    for name in columns:
        old, new = before[name].combine_chunks(), rows[name]
        same = equal_geometries(old, new) if name == "geometry" else equal_values(old, new)
        if name in KNOWN_LATER:
            same |= old.is_null().to_numpy(zero_copy_only=False)
        if not same.all():
            place = int(np.flatnonzero(~same)[0])
            was = old[place].as_py()
            return RowDifference(
                int(keys[place]), name, shapely.from_wkb(was) if name == "geometry" else was, new.iloc[place]
            )
    return None


def equal_geometries(old: pa.Array, new: pd.Series) -> NDArray[np.bool_]:
    """Which outlines are the same. old: WKB."""
    stored = shapely.from_wkb(old.to_numpy(zero_copy_only=False))
    return np.asarray(shapely.equals_exact(stored, new.to_numpy(), 0.0), bool)


def equal_values(old: pa.Array, new: pd.Series) -> NDArray[np.bool_]:
    """Which values are the same; lists are compared value by value."""
    try:
        typed = pa.Array.from_pandas(new, type=old.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        now = new.tolist()
    else:
        if typed.equals(old):
            return np.ones(len(old), bool)
        now = typed.to_pylist()
    pairs = zip(old.to_pylist(), now, strict=True)
    return np.array([plain_value(one) == plain_value(other) for one, other in pairs], bool)


def plain_value(value: Any) -> Any:
    """A value to compare: lists as lists, what is not known as None."""
    if isinstance(value, list | tuple | np.ndarray):
        return [plain_value(one) for one in value]
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return value


def value_text(value: Any) -> str:
    """A value in an error."""
    text = value.wkt if isinstance(value, shapely.Geometry) else repr(plain_value(value))
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"
