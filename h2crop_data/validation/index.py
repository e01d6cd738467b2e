"""The index: its tables and documents, samples and blocks against each other, and where everything came from."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import types

from h2crop_data.constants import NONE, SPLITS
from h2crop_data.cube.columns import (
    BLOCK_DIGESTS,
    BLOCKS_SINCE_1_1,
    CROP_CODES,
    GEOMETRY,
    TYPES,
    Column,
)
from h2crop_data.cube.release_numbers import ROOT
from h2crop_data.errors import StoreError
from h2crop_data.progress import Progress
from h2crop_data.validation.findings import (
    NAMED,
    Checking,
    Counted,
    Findings,
    NotChecked,
    Reports,
    error,
    first,
)
from h2crop_data.validation.release import SHA256, Release
from h2crop_data.validation.sources import SourceChecks

Sources = Sequence[SourceChecks[Any, Any, Any]]
IsKind = Callable[[Any], bool]
Wrong = NDArray[np.bool_]
#: What reading a damaged table may raise; Arrow's own errors are kinds of these.
TABLE_ERRORS = (StoreError, OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError, MemoryError)
#: The time in the name of an EnMAP scene, by which its samples are called.
STAMP = re.compile(r"_(\d{8}T\d{6})Z_")
#: What a sample has of its block.
OF_BLOCK = ("split", "square", "epsg", "scene")
TAXONOMY = re.compile(r".+ [0-9a-f]{64}")


# Tables and documents


def is_text(column: Any) -> bool:
    """Text, or a column without any value."""
    return bool(types.is_string(column) or types.is_large_string(column) or types.is_null(column))


def is_number(column: Any) -> bool:
    """Floating numbers, or a column without any value."""
    return bool(types.is_floating(column) or types.is_null(column))


def is_list_of(kind: IsKind) -> IsKind:
    """Lists of something, or a column without any value."""

    def is_right(column: Any) -> bool:
        some = types.is_list(column) or types.is_large_list(column)
        return bool(types.is_null(column) or (some and kind(column.value_type)))

    return is_right


def is_time(column: Any) -> bool:
    """Times, or a column without any value."""
    return bool(types.is_timestamp(column) or types.is_null(column))


def is_shape(column: Any) -> bool:
    """Geometry as WKB."""
    return bool(types.is_binary(column) or types.is_large_binary(column))


KINDS: dict[str, IsKind] = {
    "text": is_text,
    "texts": is_list_of(is_text),
    **dict.fromkeys(("integer", "int32", "uint32", "uint8"), types.is_integer),
    "nullable integer": lambda column: bool(types.is_integer(column) or types.is_null(column)),
    "number": is_number,
    "numbers": is_list_of(is_number),
    "time": is_time,
    "boolean": types.is_boolean,
    "geometry": is_shape,
}
DOCUMENTS = ("recipes", "classes", "statistics")
#: By which the classes of a parcel are found.
CODE_KEY = ["country", "code"]
#: Columns of parcels that may be in the table of codes instead.
OF_CODES = {column.name for column in CROP_CODES} - set(CODE_KEY)
#: A document that releases of earlier versions of h2crop do not have.
SOURCES = "sources"


def is_of_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a column has a type; texts and bytes of any size are one type, and so are lists of one."""
    if types.is_list(expected):
        is_list = types.is_list(found) or types.is_large_list(found)
        return bool(is_list and is_of_type(found.value_type, expected.value_type))
    if types.is_string(expected):
        return bool(types.is_string(found) or types.is_large_string(found))
    return is_shape(found) if types.is_binary(expected) else bool(found == expected)


def columns_of(release: Release, name: str) -> list[Column]:
    """The columns that a table of the index may have; those of sources come with the store's layout."""
    table, _, season = name.partition("-")
    imported = bool(season) and release.is_imported(int(season))
    columns = release.layout.table_columns(table, imported=imported)
    if table == "blocks" and release.has_block_digests:
        columns = [*columns, BLOCK_DIGESTS]
    later = BLOCKS_SINCE_1_1 if table == "blocks" and release.is_first_format else ()
    return [column for column in columns if column.name not in later]


def wanted_parts(release: Release, sources: Sources) -> tuple[list[str], list[str]]:
    """The parts of the index that a release must have, and those it may have."""
    seasons = sorted(release.named_seasons)
    built = [season for season in seasons if not release.is_imported(season)]
    wanted = [*DOCUMENTS, *(f"samples-{season}" for season in seasons), "blocks", "scenes", "manifest"]
    wanted += [f"{table}-{season}" for source in sources for table in source.season_tables for season in built]
    if not release.is_first_format:
        wanted += ["root"]
    by_season = [f"{table}-{season}" for season in seasons for table in ("parcels", "dates", "frames")]
    # Before the parcels, which need them.
    wanted = [*(name for season in seasons if (name := f"codes-{season}") in release.attributes["index"]), *wanted]
    return wanted, ["squares", "datasheet", *by_season]


def read_parts(release: Release, sources: Sources, progress: Progress) -> Checking[Release]:
    """Every part of the index that can be relied on; reports those that are missing or not as they must be."""
    index = release.attributes["index"]
    for name in (*DOCUMENTS, SOURCES):
        if release.has_index(name):
            release = yield from read_index_document(release, name)
    wanted, possible = wanted_parts(release, sources)
    if lost := [name for name in wanted if name not in index]:
        yield error("index", ROOT, f"its index has no {first(lost)}", release.remedies.sealed())
    tables = [name for name in (*wanted, *possible) if name not in (*DOCUMENTS, "manifest", "root", "datasheet")]
    for done, name in enumerate(dict.fromkeys(tables)):
        progress(done, len(tables), f"index, {name}")
        if release.has_index(name):
            release = yield from read_table_of(release, name)
    for name in [*wanted, *(name for name in (SOURCES,) if name in index)]:
        known = name in release.tables or name in release.documents or name in ("manifest", "root")
        if not known:
            yield NotChecked(f"what needs the index {name}: it is lost or damaged")
    return release


def with_damage(release: Release, name: str) -> Release:
    """The release with a file that is not relied on any more."""
    return replace(release, damaged=release.damaged | {name})


def read_index_document(release: Release, name: str) -> Checking[Release]:
    """Read a JSON document of the index, of all its files."""
    parts: list[Any] = []
    for path in release.index_paths(name):
        try:
            document = json.loads(release.files.read(path))
        except (StoreError, ValueError, RecursionError) as failure:
            yield error("index", path, f"is not a JSON document ({failure})", release.remedies.sealed())
            release = with_damage(release, path)
            continue
        if isinstance(document, list if name == "classes" else dict):
            parts.append(document)
            continue
        yield error("index", path, f"is a {type(document).__name__}", release.remedies.wrong_index())
        release = with_damage(release, path)
    if not release.has_index(name):
        return release
    known = [key for part in parts for key in part] if len(parts) > 1 else []
    if len(set(known)) < len(known):
        what = "its files have several entries of one season"
        yield error("index", release.index_path(name), what, release.remedies.wrong_index())
    document = parts[0] if len(parts) == 1 else {key: value for part in parts for key, value in part.items()}
    return replace(release, documents={**release.documents, name: document})


def read_table_of(release: Release, name: str) -> Checking[Release]:
    """Read a table of the index, of all its files, and check its columns; one that lacks a column is not relied on."""
    parts = []
    for path in release.index_paths(name):
        part = yield from read_table_file(release, name, path)
        if part is None:
            release = with_damage(release, path)
        else:
            parts.append(part)
    if not release.has_index(name):
        return release
    filled = [part for part in parts if len(part)]
    table = pd.concat(filled, ignore_index=True) if len(filled) > 1 else (filled or parts)[0]
    if has_codes_alone(name, table.columns):
        classed = yield from with_classes_of_codes(release, name, table)
        if classed is None:
            return release
        table = classed
    if name == "blocks" and release.is_first_format:
        table = table.assign(retracted="", part="")
    yield Counted("tables", 1)
    return replace(release, tables={**release.tables, name: table})


def has_codes_alone(name: str, columns: Iterable[str]) -> bool:
    """Whether a table of parcels has crop codes without their classes, which the table of codes has."""
    return name.startswith("parcels-") and not OF_CODES & set(columns)


def with_classes_of_codes(release: Release, name: str, parcels: pd.DataFrame) -> Checking[pd.DataFrame | None]:
    """Parcels with the classes of their codes, in order of number; None where these are not known."""
    codes = name.replace("parcels", "codes", 1)
    path, remedy = release.index_path(codes), release.remedies.wrong_index()
    if codes not in release.tables:
        yield NotChecked(f"{name}: {codes}, which has the classes of its codes, is lost or damaged")
        return None
    classes = release.tables[codes].set_index(CODE_KEY)
    if twice := classes.index[classes.index.duplicated()].tolist():
        yield error("index", path, f"has codes more than once: {first(twice)}", remedy)
        return None
    keys = pd.MultiIndex.from_frame(parcels[CODE_KEY])
    if lost := sorted(set(keys) - set(classes.index)):
        yield error("index", path, f"lacks codes of {name}: {first(lost)}", remedy)
        return None
    return parcels.assign(**classes.loc[keys].reset_index(drop=True)).sort_values("number", ignore_index=True)


def read_table_file(release: Release, name: str, path: str) -> Checking[pd.DataFrame | None]:
    """Read a file of a table of the index; None where it is not as it must be."""
    columns = columns_of(release, name)
    try:
        data = release.files.read(path)
        schema = pq.read_schema(io.BytesIO(data))
        if has_codes_alone(name, schema.names):
            columns = [column for column in columns if column.name not in OF_CODES]
        problems = column_problems(columns, schema, exact=release.format >= (2, 0))
        with_geometry = GEOMETRY.name in schema.names
        table: pd.DataFrame = (gpd if with_geometry else pd).read_parquet(io.BytesIO(data))
    except TABLE_ERRORS as failure:
        what = f"is not a table of the index ({type(failure).__name__}: {str(failure)[:100]})"
        yield error("index", path, what, release.remedies.sealed())
        return None
    stated = [column.name for column in columns if column.filled and column.name in table]
    empty = [column for column in stated if table[column].isna().any()]
    problems += [f"column {column} has rows without a value" for column in empty]
    of_season = re.fullmatch(rf"{name}-(\d{{4}})", Path(path).stem)
    if of_season and "season" in table and not (table["season"] == int(of_season[1])).all():
        problems.append(f"has rows of other seasons than {of_season[1]}")
    for problem in problems:
        yield error("index", path, problem, release.remedies.wrong_index())
    return None if problems else table


def column_problems(columns: Sequence[Column], schema: pa.Schema, *, exact: bool) -> list[str]:
    """In words, the columns that are missing or have another type. exact: only the stated type is right, not any of its
    kind, or none where no row has a value, as in format 1.
    """
    problems = []
    for column in columns:
        if column.name not in schema.names:
            problems += [f"has no column {column.name}"] if column.always else []
            continue
        found, expected = schema.field(column.name).type, TYPES[column.dtype]
        if not (is_of_type(found, expected) if exact else KINDS[column.dtype](found)):
            problems.append(f"column {column.name} has the type {found}, expected {expected}")
    return problems


# Samples


def check_samples(release: Release) -> Checking[Release]:
    """Every samples index against itself and against its blocks; gives the release with what is doubtful."""
    doubtful: set[tuple[int, int]] = set()
    for season in release.seasons:
        samples, blocks = release.samples(season), release.blocks(season)
        if samples is None:
            continue
        yield Counted("samples", len(samples))
        stated = release.attributes["seasons"][str(season)]["samples"]
        path, remedy = release.index_path(f"samples-{season}"), release.remedies.wrong_index()
        if len(samples) != stated:
            yield error("samples", path, f"has {len(samples)} samples, the root says {stated}", remedy)
        rules = [*own_rules(release, season, samples), *share_rules(release, samples)]
        if blocks is not None:
            rules += block_rules(samples, blocks)
            wrong_blocks = wrong_counts(release, samples, blocks)
            doubtful |= {(season, block) for block in wrong_blocks}
            if wrong_blocks:
                what = f"samples of blocks of {season}: {first(list(wrong_blocks.values()))}"
                yield error("samples", path, what, remedy)
        for what, wrong in rules:
            names = samples["sample"].to_numpy()[np.asarray(wrong, bool)].tolist()
            yield from of_samples("samples", path, names, what, remedy)
    return replace(release, doubtful_blocks=frozenset(doubtful))


def of_samples(check: str, path: str, names: Sequence[str], what: str, remedy: str) -> Findings:
    """What is wrong with some samples of a table: the first by name, all others together."""
    for name in names[:NAMED]:
        yield error(check, f"{path}, sample {name}", what, remedy)
    if len(names) > NAMED:
        yield error(check, path, f"{len(names)} samples: {what}", remedy)


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

    How the names of scenes of other sources state the time is not known.
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


def wrong_counts(release: Release, samples: pd.DataFrame, blocks: pd.DataFrame) -> dict[int, str]:
    """Blocks of a season that do not have as many samples as they say, in their first slots; in words."""
    capacity = release.layout.capacity
    places = (samples["slot"] - samples["block"] * capacity).groupby(samples["block"]).agg(["size", "max"])
    wrong = {}
    for block, count, reason in zip(blocks["block"], blocks["samples"], blocks["retracted"], strict=True):
        size, last = places.loc[block].tolist() if block in places.index else (0, -1)
        if not reason and (size != count or last != count - 1):
            wrong[int(block)] = f"block {block} has {count}, the samples index {size}"
    return wrong


# Blocks


def check_blocks(release: Release) -> Reports:
    """The blocks of every season against the root, the manifest and the layout."""
    table = release.tables.get("blocks")
    if table is None:
        return
    remedy = release.remedies.wrong_index()
    foreign = sorted(set(table["season"]) - release.named_seasons)
    if foreign:
        what = f"has blocks of {first(foreign)}, which the root does not name"
        yield error("blocks", release.index_path("blocks"), what, remedy)
    for season in release.seasons:
        blocks, path = release.blocks(season), release.index_path("blocks", season)
        assert blocks is not None
        yield Counted("blocks", len(blocks))
        yield Counted("retracted_blocks", int((blocks["retracted"] != "").sum()))
        numbers = blocks["block"].tolist()
        if numbers != list(range(release.seasons[season])):
            what = f"the blocks of {season} are not numbered 0 to {release.seasons[season] - 1}: {first(numbers)}"
            yield error("blocks", path, what, remedy)
        for row in blocks.to_dict("records"):
            for what in block_problems(release, season, row):
                yield error("blocks", f"{path}, {season} block {row['block']}", what, remedy)
        yield from check_identity(release, season, blocks)
    yield from check_listed(release, table)


def block_problems(release: Release, season: int, row: dict[Any, Any]) -> list[str]:
    """What is wrong with the row of a block, in words."""
    problems = []
    if not 1 <= row["samples"] <= release.layout.capacity:
        problems.append(f"has {row['samples']} samples, a block holds 1 to {release.layout.capacity}")
    if row["split"] not in SPLITS:
        problems.append(f"its split is {row['split']!r}")
    files = list(row["files"])
    digests = list(row["sha256"]) if release.has_block_digests else [None] * len(files)
    if release.has_block_digests and (
        len(files) != len(digests) or not all(re.match(SHA256, str(digest)) for digest in digests)
    ):
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
        elif expected is not None and digest is not None and expected[file]["sha256"] != digest:
            problems.append(f"its file {file} has another SHA-256 in the manifest")
    return problems


def check_identity(release: Release, season: int, blocks: pd.DataFrame) -> Findings:
    """What the root says of a season: blocks, and the hash of their files. Samples are another check's."""
    digests: dict[str, str] | None = None
    if release.expected is not None:
        listed = release.expected.values()
        files = [record for record in listed if release.block_of(record["path"]) is not None]
        digests = {record["path"]: record["sha256"] for record in files if record["path"].startswith(f"{season}/")}
    elif release.has_block_digests:
        rows = blocks[blocks["retracted"] == ""].to_dict("records")
        digests = {path: digest for row in rows for path, digest in zip(row["files"], row["sha256"], strict=False)}
    stated = release.attributes["seasons"][str(season)]
    found: list[tuple[str, Any, Any]] = [("blocks", len(blocks), stated["blocks"])]
    if digests is not None:
        # As docs/store-format.md has it: the JSON text of [path, SHA-256] of the shards, in order of path.
        text = "[" + ", ".join(f"[{json.dumps(path)}, {json.dumps(digests[path])}]" for path in sorted(digests)) + "]"
        found.append(("hash of the blocks' files", hashlib.sha256(text.encode()).hexdigest(), stated["sha256"]))
    for word, given, said in found:
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
        what = f"lists files of blocks that are not part of the release: {first(more)}"
        yield error("blocks", release.index_path("manifest"), what, release.remedies.wrong_index())


# Where it came from


def check_provenance(release: Release, sources: Sources) -> Findings:
    """Every block says what it was made from and by what, and the scenes it names are in the index."""
    table, scenes = release.tables.get("blocks"), release.tables.get("scenes")
    remedy = release.remedies.wrong_index()
    hashes = [column.name for column in release.layout.block_columns() if column.name.startswith("hash_")]
    for season in release.seasons:
        blocks = release.blocks(season)
        if table is None or blocks is None:
            return
        for row in blocks.to_dict("records"):
            where = f"{release.index_path('blocks', season)}, {season} block {row['block']}"
            for what in missing_facts(row, hashes, imported=release.is_imported(season)):
                yield error("provenance", where, what, remedy)
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
    path, recipe = release.index_path("recipes", season), release.recipe(season)
    if not recipe:
        yield error("provenance", path, f"has no recipe of {season}", release.remedies.wrong_index())
        return
    if recipe.get("cell_size") != release.layout.cell_size:
        what = f"cells of {season} have {recipe.get('cell_size')} m, those of the store {release.layout.cell_size}"
        yield error("provenance", path, what, release.remedies.wrong_index())
    content = {key: value for key, value in recipe.items() if key != "seasons"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    if len(blocks) and digest not in set(blocks["recipe"]):
        what = f"the recipe of {season} is not one that its blocks were made by"
        yield error("provenance", path, what, release.remedies.wrong_index())


def check_scenes(
    release: Release, sources: Sources, season: int, blocks: pd.DataFrame, scenes: pd.DataFrame
) -> Findings:
    """The scenes that blocks of the release and samples name were taken, and what sources say of scenes fits those."""
    taken = scenes[scenes["taken"]]
    names = {sensor: set(of_sensor) for sensor, of_sensor in taken.groupby("sensor")["id"]}
    titles = {source.name: source.title for source in release.layout.sources}
    path, remedy = release.index_path("blocks", season), release.remedies.wrong_index()
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
            what = (
                f"blocks of {season} name {titles[sensor]} scenes that the index of scenes does not have as taken: "
                f"{first(lost)}"
            )
            yield error("provenance", path, what, remedy)
    for source in sources:
        yield from source.check_scenes(season, blocks, taken)


def check_scene_table(release: Release, scenes: pd.DataFrame) -> Findings:
    """Every scene says whether it was taken and why; what was taken from Sentinel-2 has an offset."""
    remedy = release.remedies.wrong_index()
    without = scenes["reason"].fillna("").str.strip() == ""
    with_offset = {source.name: source.title for source in release.layout.sources if source.has_offsets}
    decided = scenes["taken"] & scenes["sensor"].isin(with_offset)
    for what, wrong in (
        ("no reason is given why they were taken or left out", without),
        (
            f"{' and '.join(with_offset.values())} scenes were taken without a decision on their offset",
            decided & scenes["offset"].isna(),
        ),
        ("they are listed more than once", scenes.duplicated(["season", "sensor", "id"])),
        ("their sensor is not known", ~scenes["sensor"].isin([source.name for source in release.layout.sources])),
    ):
        if wrong.any():
            season = scenes["season"][wrong].iloc[0]
            path = release.index_path("scenes", season)
            yield error("provenance", path, f"{what}: {first(scenes['id'][wrong].tolist())}", remedy)
