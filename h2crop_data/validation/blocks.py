"""The blocks index: numbers, files, and that root and manifest agree with it."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from h2crop_data.constants import SPLITS
from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.storage.storage import FileRecord
from h2crop_data.validation.findings import Findings, error, first
from h2crop_data.validation.release import Release
from h2crop_data.validation.root import SHA256


def check_blocks(release: Release) -> Findings:
    """The blocks of every season against the root, the manifest and the layout."""
    table = release.tables.get("blocks")
    if table is None:
        return
    path, remedy = release.index_path("blocks"), release.remedies.wrong_index()
    foreign = sorted(set(table["season"]) - release.named_seasons)
    if foreign:
        yield error("blocks", path, f"has blocks of {first(foreign)}, which the root does not name", remedy)
    for season in release.seasons:
        blocks = release.blocks(season)
        assert blocks is not None
        release.counts["blocks"] += len(blocks)
        release.counts["retracted_blocks"] += int((blocks["retracted"] != "").sum())
        numbers = blocks["block"].tolist()
        if numbers != list(range(release.seasons[season])):
            told = f"the blocks of {season} are not numbered 0 to {release.seasons[season] - 1}: {first(numbers)}"
            yield error("blocks", path, told, remedy)
        for row in blocks.to_dict("records"):
            for told in block_problems(release, season, row):
                yield error("blocks", f"{path}, {season} block {row['block']}", told, remedy)
        yield from check_identity(release, season, blocks)
    yield from check_listed(release, table)


def block_problems(release: Release, season: int, row: dict[Any, Any]) -> list[str]:
    """What is wrong with the row of a block, in words."""
    problems = []
    if not 1 <= row["samples"] <= release.layout.capacity:
        problems.append(f"has {row['samples']} samples, a block holds 1 to {release.layout.capacity}")
    if row["split"] not in SPLITS:
        problems.append(f"its split is {row['split']!r}")
    files, digests = list(row["files"]), list(row["sha256"])
    if len(files) != len(digests) or not all(re.match(SHA256, str(digest)) for digest in digests):
        problems.append("its files and their SHA-256 are not two lists of one length")
    shards = set(release.shards(season, int(row["block"])).values())
    strange = [file for file in files if release.block_of(str(file)) != (season, row["block"])]
    # A block that was retracted before it was built has no files.
    if lost := sorted(shards - set(files)) if files or not row["retracted"] else []:
        problems.append(f"does not name its shards {first(lost)}")
    if strange or len(set(files)) < len(files):
        problems.append(f"names files that are not its own, or twice: {first(strange or files)}")
    if row["retracted"]:
        return problems
    expected = release.expected
    for file, digest in zip(files, digests, strict=False):
        if expected is not None and file not in expected:
            problems.append(f"its file {file} is not in the manifest")
        elif expected is not None and expected[file]["sha256"] != digest:
            problems.append(f"its file {file} has another SHA-256 in the manifest")
    return problems


def check_identity(release: Release, season: int, blocks: pd.DataFrame) -> Findings:
    """What the root says of a season: blocks, and the hash of their files. Samples are another check's."""
    if release.expected is not None:
        files = [record for name, record in release.expected.items() if release.block_of(name) is not None]
        files = [record for record in files if str(record["path"]).startswith(f"{season}/")]
    else:
        rows = blocks[blocks["retracted"] == ""].to_dict("records")
        pairs = [pair for row in rows for pair in zip(row["files"], row["sha256"], strict=False)]
        files = [FileRecord(path=path, bytes=0, sha256=digest) for path, digest in pairs]
    nothing = pd.DataFrame({"block": []})
    told = FinishedSeason(season, nothing, blocks, nothing, None, {}, {}, files, {}).identity
    stated = release.attributes["seasons"][str(season)]
    for word, given, said in (
        ("blocks", told["blocks"], stated["blocks"]),
        ("hash of the blocks' files", told["sha256"], stated["sha256"]),
    ):
        if given != said:
            what = f"its {word} of {season} is {said}, the index gives {given}"
            yield error("identity", ROOT, what, release.remedies.sealed())


def check_listed(release: Release, table: pd.DataFrame) -> Findings:
    """The manifest lists no shard but those of blocks that are part of the release."""
    kept = table[table["retracted"] == ""]
    known = {str(file) for files in kept["files"] for file in files}
    listed = [name for name in release.expected or {} if release.block_of(name) is not None]
    more = [name for name in listed if name not in known]
    if more:
        told = f"lists files of blocks that are not part of the release: {first(more)}"
        yield error("blocks", release.index_path("manifest"), told, release.remedies.wrong_index())
