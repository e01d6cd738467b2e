"""Where everything came from: scenes, hashes, versions, recipes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from h2crop_data.constants import NONE
from h2crop_data.validation.checks.source_checks import SourceChecks
from h2crop_data.validation.findings import Findings, error, first
from h2crop_data.validation.release import Release
from h2crop_data.validation.root import SHA256

TAXONOMY = re.compile(r".+ [0-9a-f]{64}")


def check_provenance(release: Release, sources: Sequence[SourceChecks[Any]]) -> Findings:
    """Every block says what it was made from and by what, and the scenes it names are in the index."""
    table, scenes = release.tables.get("blocks"), release.tables.get("scenes")
    path, remedy = release.index_path("blocks"), release.remedies.wrong_index()
    hashes = [column.name for column in release.layout.block_columns() if column.name.startswith("hash_")]
    for season in release.seasons:
        blocks = release.blocks(season)
        if table is None or blocks is None:
            return
        for row in blocks.to_dict("records"):
            where = f"{path}, {season} block {row['block']}"
            for told in missing_facts(row, hashes, imported=release.is_imported(season)):
                yield error("provenance", where, told, remedy)
        yield from check_recipe(release, season, blocks)
        if scenes is not None:
            yield from check_scenes(release, sources, season, blocks, scenes[scenes["season"] == season])
    if scenes is not None:
        yield from check_scene_table(release, scenes)


def missing_facts(row: dict[Any, Any], hashes: Sequence[str], *, imported: bool) -> Iterator[str]:
    """What the row of a block does not say, in words. hashes: its columns of input hashes."""
    for column in hashes:
        value = row[column]
        if not (imported and pd.isna(value)) and not re.match(SHA256, str(value)):
            yield f"{column} is {value!r}, no SHA-256"
    if not isinstance(row["software"], str) or not row["software"].strip():
        yield "does not say which software made it"
    if not re.match(SHA256, str(row["recipe"])):
        yield f"recipe is {row['recipe']!r}, no SHA-256"
    if not TAXONOMY.fullmatch(str(row["taxonomy"])) and not (imported and row["taxonomy"] == NONE):
        yield f"taxonomy is {row['taxonomy']!r}, no version and SHA-256"


def check_recipe(release: Release, season: int, blocks: pd.DataFrame) -> Findings:
    """The recipe of a season fits the store and is the one its newest blocks were planned by."""
    if "recipes" not in release.documents:
        return
    path, recipe = release.index_path("recipes"), release.recipe(season)
    if not recipe:
        yield error("provenance", path, f"has no recipe of {season}", release.remedies.wrong_index())
        return
    if recipe.get("cell_size") != release.layout.cell_size:
        told = f"cells of {season} have {recipe.get('cell_size')} m, those of the store {release.layout.cell_size}"
        yield error("provenance", path, told, release.remedies.wrong_index())
    content = {key: value for key, value in recipe.items() if key != "seasons"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    if len(blocks) and digest not in set(blocks["recipe"]):
        told = f"the recipe of {season} is not one that its blocks were made by"
        yield error("provenance", path, told, release.remedies.wrong_index())


def check_scenes(
    release: Release, sources: Sequence[SourceChecks[Any]], season: int, blocks: pd.DataFrame, scenes: pd.DataFrame
) -> Findings:
    """The scenes that blocks of the release and samples name were taken, and what sources say of scenes fits those."""
    taken = scenes[scenes["taken"]]
    names = {sensor: set(of_sensor) for sensor, of_sensor in taken.groupby("sensor")["id"]}
    titles = {source.name: source.title for source in release.layout.sources}
    path, remedy = release.index_path("blocks"), release.remedies.wrong_index()
    maker = next((source for source in release.layout.sources if source.makes_samples), None)
    columns = {"scene": maker.name} if maker else {}
    if maker is None and set(blocks["scene"]) - {NONE}:
        yield error("provenance", path, f"blocks of {season} name scenes, the store has no source of any", remedy)
    if not release.is_imported(season):
        listed = [column for column in release.layout.block_columns() if column.scenes]
        columns |= {column.name: column.source for column in listed}
    released = blocks[blocks["retracted"] == ""]
    for column, sensor in columns.items():
        named = {scene for scenes in released[column] for scene in ([scenes] if isinstance(scenes, str) else scenes)}
        lost = sorted(named - names.get(sensor, set()))
        if lost:
            told = (
                f"blocks of {season} name {titles[sensor]} scenes that scenes.parquet does not have as taken: "
                f"{first(lost)}"
            )
            yield error("provenance", path, told, remedy)
    for source in sources:
        yield from source.check_scenes(season, blocks, taken)


def check_scene_table(release: Release, scenes: pd.DataFrame) -> Findings:
    """Every scene says whether it was taken and why; what was taken from Sentinel-2 has an offset."""
    path, remedy = release.index_path("scenes"), release.remedies.wrong_index()
    without = scenes["reason"].fillna("").str.strip() == ""
    with_offset = {source.name: source.title for source in release.layout.sources if source.has_offsets}
    decided = scenes["taken"] & scenes["sensor"].isin(with_offset)
    for told, wrong in (
        ("no reason is given why they were taken or left out", without),
        (
            f"{' and '.join(with_offset.values())} scenes were taken without a decision on their offset",
            decided & scenes["offset"].isna(),
        ),
        ("they are listed more than once", scenes.duplicated(["season", "sensor", "id"])),
        ("their sensor is not known", ~scenes["sensor"].isin([source.name for source in release.layout.sources])),
    ):
        if wrong.any():
            yield error("provenance", path, f"{told}: {first(scenes['id'][wrong].tolist())}", remedy)
