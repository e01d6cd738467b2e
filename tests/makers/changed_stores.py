"""Reading and changing a store behind its builder's back, and making its checksums fit afterwards."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
from numpy.typing import NDArray
from table_files import table_bytes

from h2crop_data.constants import TIER_COLUMNS
from h2crop_data.cube.columns import CROP_CODES, PARCELS
from h2crop_data.cube.index import release_statistics, season_statistics
from h2crop_data.cube.root import manifest_identity
from h2crop_data.cube.schema import StoreLayout
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.cube.shard import decode_shard, encode_shard, shard_name
from h2crop_data.cube.statistics import TRAINING, block_sums, total
from h2crop_data.cube.table_files import encode_table
from h2crop_data.recipe.model import EnmapSettings
from h2crop_data.sources.formats import layout_of_root
from h2crop_data.storage.checked import CHECKSUM, checked_json
from h2crop_data.storage.storage import canonical_json


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON document as its writer would have written it: with a checksum that fits, where it has one."""
    document = json.loads(path.read_text(encoding="utf-8"))
    has_checksum = isinstance(document, dict) and document.pop(CHECKSUM, None) is not None
    change(document)
    path.write_text(checked_json(document) if has_checksum else canonical_json(document), encoding="utf-8")


def root_of(store: Path) -> dict[str, Any]:
    """The root document."""
    document: dict[str, Any] = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
    return document


def layout_of(store: Path) -> StoreLayout:
    """Its layout."""
    return layout_of_root(root_of(store)["attributes"])


def index_files(store: Path, name: str) -> list[Path]:
    """Where a part of the index lies: one file, or one a season."""
    paths = root_of(store)["attributes"]["index"][name]
    return [store / path for path in ([paths] if isinstance(paths, str) else paths)]


def index_file(store: Path, name: str, season: int = 2022) -> Path:
    """Where a part of the index lies. season: of which, where each season has its own file."""
    paths = index_files(store, name)
    return paths[0] if len(paths) == 1 else next(path for path in paths if path.stem == f"{name}-{season}")


def table_of(store: Path, name: str) -> pd.DataFrame:
    """A table of the index, of all seasons."""
    with_geometry = name.startswith(("samples", "parcels", "squares"))
    parts = [(gpd if with_geometry else pd).read_parquet(path) for path in index_files(store, name)]
    table: pd.DataFrame = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    return table


def shard_digests(store: Path) -> dict[str, str]:
    """The SHA-256 of every shard of the release, by path, as its manifest states it."""
    manifest = table_of(store, "manifest")
    digests = dict(zip(manifest["path"], manifest["sha256"], strict=True))
    return {path: digests[path] for files in table_of(store, "blocks")["files"] for path in files if path in digests}


def shard_file(store: Path, season: int, array: str, block: int) -> Path:
    """The shard of a block."""
    return store / str(season) / array / shard_name(block, len(layout_of(store).arrays()[array].dims))


def block_values(store: Path, season: int, array: str, block: int) -> NDArray[Any]:
    """The samples of a block in one array."""
    layout = layout_of(store)
    data = shard_file(store, season, array, block).read_bytes()
    rows = table_of(store, "blocks").query(f"season == {season} and block == {block}")
    return decode_shard(data, layout.arrays()[array], layout.capacity, layout.codec)[: int(rows["samples"].iloc[0])]


def overwrite(path: Path, data: bytes | bytearray) -> None:
    """Put another file in the place of one that is read-only, or shared with another store."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


@contextmanager
def flip_bit(path: Path, bit: int) -> Iterator[None]:
    """A file with one bit flipped, until the `with` block ends."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    overwrite(path, data)
    try:
        yield
    finally:
        overwrite(path, whole)


def change_values(
    store: Path, season: int, array: str, block: int, change: Callable[[NDArray[Any]], None], slots: int | None = None
) -> None:
    """Write a block's shard anew with other values. slots: how many places it fills; as many as before by default."""
    layout = layout_of(store)
    spec = layout.arrays()[array]
    path = shard_file(store, season, array, block)
    values = decode_shard(path.read_bytes(), spec, layout.capacity, layout.codec)
    values = values[: slots or len(block_values(store, season, array, block))]
    change(values)
    overwrite(path, b"".join(encode_shard(values, spec, layout.capacity, layout.codec)))


def change_table(store: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Write a table of the index anew, of a table by season the rows of each season into its file."""
    paths, table = index_files(store, name), change(table_of(store, name))
    for path in paths:
        of_path = table if len(paths) == 1 else table[table["season"] == int(path.stem.rpartition("-")[2])]
        path.write_bytes(table_bytes(of_path.reset_index(drop=True), path.read_bytes()))


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    """Write a JSON document anew."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(canonical_json(document), encoding="utf-8")


def sum_up(store: Path) -> None:
    """Write the statistics anew from the arrays as they are now."""
    blocks, layout, root = table_of(store, "blocks"), layout_of(store), root_of(store)["attributes"]
    recipes = {
        season: recipe
        for path in index_files(store, "recipes")
        for season, recipe in json.loads(path.read_text(encoding="utf-8")).items()
    }
    of_seasons, training = {}, []
    for season in map(int, root["seasons"]):
        mask = EnmapSettings.model_validate(recipes[str(season)]["enmap"]).flag_mask
        sums: dict[str, list[Any]] = {}
        for row in blocks[(blocks["season"] == season) & (blocks["retracted"] == "")].to_dict("records"):
            arrays = {name: block_values(store, season, name, row["block"]) for name in layout.arrays()}
            sums.setdefault(row["split"], []).append(
                block_sums(arrays, layout.arrays(), row["split"], {"enmap_quality": mask})
            )
        nothing = pd.DataFrame()
        of_splits = {split: total(parts) for split, parts in sums.items()}
        parcels = table_of(store, f"parcels-{season}")
        finished = FinishedSeason(season, nothing, nothing, nothing, parcels, None, of_splits, [], {})
        of_seasons[season] = season_statistics(finished, layout.arrays())
        training += [sums for split, sums in of_splits.items() if split == TRAINING]
    document = release_statistics(total(training) if training else None, of_seasons, layout.arrays())
    index_file(store, "statistics").write_text(canonical_json(document), encoding="utf-8")


def list_parcels_by_ground(store: Path) -> None:
    """Write the parcels of every season into two files, with codes in place of classes, and a table of codes.

    The files are neither in order of number nor of one size, and one of them could have no classes of its own.
    """
    root = root_of(store)
    index = root["attributes"]["index"]
    listed = table_of(store, "manifest")["path"].tolist()
    for season in root["attributes"]["seasons"]:
        name = f"parcels-{season}"
        table, path = table_of(store, name), index_file(store, name)
        codes = table[[column.name for column in CROP_CODES]].drop_duplicates(ignore_index=True)
        bare = table.drop(columns=["hcat3", *TIER_COLUMNS])
        files = {f"codes-{season}": (codes, CROP_CODES)}
        for ground, rows in enumerate((bare["number"] % 3 == 0, bare["number"] % 3 != 0)):
            files[f"{name}-{ground}"] = (bare[rows].reset_index(drop=True), PARCELS)
        folder = f"{path.parent.relative_to(store)}/"
        for stem, (rows, columns) in files.items():
            (store / f"{folder}{stem}.parquet").write_bytes(encode_table(stem, rows, columns))
        path.unlink()
        paths = [f"{folder}{stem}.parquet" for stem in files]
        index[f"codes-{season}"], index[name] = paths[0], paths[1:]
        listed += paths
    sign_manifest(store, root, pd.DataFrame({"path": sorted(listed)}))


def sign(store: Path) -> None:
    """Make checksums, manifest and root fit the files as they are now, as if they had been built like this."""
    root = root_of(store)
    attributes = root["attributes"]
    blocks = table_of(store, "blocks")
    if "sha256" in blocks:
        # As format 1 has it.
        blocks["sha256"] = [[digest(store / file) for file in files] for files in blocks["files"]]
        path = index_file(store, "blocks")
        path.write_bytes(table_bytes(blocks, path.read_bytes()))
    for season in attributes["seasons"]:
        rows = blocks[(blocks["season"] == int(season)) & (blocks["retracted"] == "")]
        pairs = sorted([file, digest(store / file)] for files in rows["files"] for file in files)
        attributes["seasons"][season]["sha256"] = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    sign_manifest(store, root, table_of(store, "manifest"))


def sign_manifest(store: Path, root: dict[str, Any], manifest: pd.DataFrame) -> None:
    """Write a manifest of files as they are now, and a root and its copy that tell of it.

    manifest: the paths it lists; those of files that are lost are left out.
    """
    manifest = manifest[[(store / path).exists() for path in manifest["path"]]].reset_index(drop=True)
    manifest["bytes"] = [(store / path).stat().st_size for path in manifest["path"]]
    manifest["sha256"] = [digest(store / path) for path in manifest["path"]]
    stated, paths = root["attributes"]["manifest"], root["attributes"]["index"]["manifest"]
    if "parts" not in stated:
        (store / paths).write_bytes(table_bytes(manifest, (store / paths).read_bytes()))
        root["attributes"]["manifest"] = {
            "bytes": (store / paths).stat().st_size,
            "sha256": digest(store / paths),
            "files": len(manifest),
        }
        write_root(store, root)
        return
    parts = []
    seasons = manifest["path"].map(season_of)
    for part in stated["parts"]:
        found = re.fullmatch(r".*/manifest-(\d+)\.parquet", part["path"])
        of_part = manifest[seasons == (found[1] if found else "")].reset_index(drop=True)
        path = store / part["path"]
        path.write_bytes(table_bytes(of_part, path.read_bytes()))
        parts.append(
            {"path": part["path"], "bytes": path.stat().st_size, "sha256": digest(path), "files": len(of_part)}
        )
    root["attributes"]["manifest"] = manifest_identity(parts)
    write_root(store, root)


def season_of(path: str) -> str:
    """The season whose part of the manifest lists a file; empty for one of no season."""
    found = re.match(r"(\d{4})/", path) or re.fullmatch(r"index/r\d+/\w+-(\d{4})\b.*", path)
    return found[1] if found else ""


def write_root(store: Path, root: dict[str, Any]) -> None:
    """Write a root and its copy."""
    text = canonical_json(root)
    (store / "zarr.json").write_text(text, encoding="utf-8")
    (store / root["attributes"]["index"]["root"]).write_text(text, encoding="utf-8")


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
