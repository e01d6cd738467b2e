"""The samples index: ids, slots, and that it agrees with its blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from h2crop_data.constants import NONE, SPLITS
from h2crop_data.validation.findings import NAMED, Findings, error, first
from h2crop_data.validation.release import Release

#: The time in the name of an EnMAP scene, by which its samples are called.
STAMP = re.compile(r"_(\d{8}T\d{6})Z_")
#: What a sample has of its block.
OF_BLOCK = ("split", "square", "epsg", "scene")
Wrong = NDArray[np.bool_]


def check_samples(release: Release) -> Findings:
    """Every samples index against itself and against its blocks."""
    for season in release.seasons:
        samples, blocks = release.samples(season), release.blocks(season)
        if samples is None:
            continue
        release.counts["samples"] += len(samples)
        told = release.attributes["seasons"][str(season)]["samples"]
        path, remedy = release.index_path(f"samples-{season}"), release.remedies.wrong_index()
        if len(samples) != told:
            yield error("samples", path, f"has {len(samples)} samples, the root says {told}", remedy)
        rules = [*own_rules(release, season, samples), *share_rules(release, samples)]
        if blocks is not None:
            rules += block_rules(samples, blocks)
            yield from check_counts(release, season, samples, blocks)
        for what, wrong in rules:
            names = samples["sample"].to_numpy()[np.asarray(wrong, bool)].tolist()
            for name in names[:NAMED]:
                yield error("samples", f"{path}, sample {name}", what, remedy)
            if len(names) > NAMED:
                yield error("samples", path, f"{len(names)} samples: {what}", remedy)


def own_rules(release: Release, season: int, samples: pd.DataFrame) -> Iterator[tuple[str, Wrong]]:
    """What the rows of a season must be, and where they are not."""
    slots, capacity = samples["slot"].to_numpy(), release.layout.capacity
    yield "its id occurs more than once", samples["sample"].duplicated(keep=False).to_numpy()
    yield "its slot occurs more than once", samples["slot"].duplicated(keep=False).to_numpy()
    yield "its slot is not one of the season's", (slots < 0) | (slots >= release.seasons[season] * capacity)
    yield "rows are not in order of slot", np.diff(slots, prepend=slots[:1]) < 0
    yield "its slot is not one of its block's", samples["block"].to_numpy() != slots // capacity
    yield f"its split is none of {', '.join(SPLITS)}", ~samples["split"].isin(SPLITS).to_numpy()
    if not release.is_imported(season):
        right = [is_its_id(row, season) for row in samples[["sample", "cell", "scene"]].to_dict("records")]
        yield "its id is not that of its cell and scene", ~np.array(right, bool)
        times = pd.to_datetime(samples["scene_time"], utc=True)
        yield "its scene is not of the season", (times.notna() & (times.dt.year != season)).to_numpy()


def is_its_id(row: dict[Any, Any], season: int) -> bool:
    """Whether the id of a sample is that of its cell, and of the time in the name of its scene, or of the season.

    Of scenes of other sources nobody here knows how their names say the time.
    """
    cell, _, rest = str(row["sample"]).rpartition("_")
    found = STAMP.search(str(row["scene"]))
    if found is None and row["scene"] != NONE:
        return cell == row["cell"] and bool(rest)
    return (cell, rest) == (row["cell"], found[1] if found else str(season))


def share_rules(release: Release, samples: pd.DataFrame) -> Iterator[tuple[str, Wrong]]:
    """Shares lie in 0..1 (or are not known), lists of them have their length."""
    for stated in release.layout.sample_columns():
        column = stated.name
        if column not in samples or not stated.is_share:
            continue
        values = samples[column].tolist()
        if stated.length is not None:
            right = [value is not None and len(value) == stated.length for value in values]
            yield f"{column} has not {stated.length} numbers", ~np.array(right, bool)
        outside = [
            not np.all(np.isnan(one := np.asarray(value, float)) | ((one >= 0) & (one <= 1))) for value in values
        ]
        yield f"{column} is not within 0..1", np.array(outside, bool)


def block_rules(samples: pd.DataFrame, blocks: pd.DataFrame) -> Iterator[tuple[str, Wrong]]:
    """What a sample must have of its block."""
    of_sample = blocks.drop_duplicates("block").set_index("block").reindex(samples["block"])
    lost = of_sample["samples"].isna().to_numpy()
    yield "its block is not in the blocks index", lost
    for column in OF_BLOCK:
        yield (
            f"its {column} is not that of its block",
            ~lost & (samples[column].to_numpy() != of_sample[column].to_numpy()),
        )
    yield "its block was retracted", ~lost & (of_sample["retracted"].fillna("").to_numpy() != "")


def check_counts(release: Release, season: int, samples: pd.DataFrame, blocks: pd.DataFrame) -> Findings:
    """Every block has as many samples as it says, in its first slots."""
    capacity = release.layout.capacity
    places = (samples["slot"] - samples["block"] * capacity).groupby(samples["block"]).agg(["size", "max"])
    path, remedy = release.index_path(f"samples-{season}"), release.remedies.wrong_index()
    wrong = []
    for block, count, reason in zip(blocks["block"], blocks["samples"], blocks["retracted"], strict=True):
        size, last = places.loc[block].tolist() if block in places.index else (0, -1)
        if not reason and (size != count or last != count - 1):
            release.doubtful_blocks.add((season, block))
            wrong.append(f"block {block} has {count}, the samples index {size}")
    if wrong:
        yield error("samples", path, f"samples of blocks of {season}: {first(wrong)}", remedy)
