"""`h2crop validate`: a good store gives no finding, each kind of damage is found by its name, and nothing else is."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import typer
import yaml
import zarr
from changed_stores import (
    block_values,
    change_json,
    change_table,
    change_values,
    index_file,
    index_files,
    layout_of,
    overwrite,
    root_of,
    shard_file,
    sign,
    sign_manifest,
    sum_up,
    table_of,
    write_root,
)
from made_stores import END, SEASONS, checked_region, checked_store
from published_files import make_published
from s3_server import BUCKET, s3_environment, s3_server
from tiny_region import NORTH, SOUTH, WEST
from typer.testing import CliRunner

from h2crop_data.cli.validate import validate as command
from h2crop_data.cube.coordinates import encode_coordinate
from h2crop_data.cube.shard import encode_shard
from h2crop_data.errors import FormatVersionError, StoreError, UsageError
from h2crop_data.maintenance.migrate import migrate_store
from h2crop_data.maintenance.retract import prune_store, retract_from_store
from h2crop_data.pipeline.build import build_store
from h2crop_data.published.importing import import_published
from h2crop_data.published.options import ImportOptions
from h2crop_data.recipe.model import Recipe, load_recipe
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.location import open_storage
from h2crop_data.storage.storage import canonical_json
from h2crop_data.validation.findings import Finding
from h2crop_data.validation.validate import Mode, Validation, validate_store

STORES = Path(__file__).parents[1] / "stores"
FILL = -32768
#: A block of the split val, of four samples; values changed there do not change the statistics of reflectance.
SEASON, BLOCK = 2022, 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that tests copy."""
    return checked_store(tmp_path_factory.mktemp("checked"))


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "store"))


def validated(store: Path | str, mode: Mode = "full", **options: Any) -> Validation:
    return validate_store(store, mode=mode, workers=2, **options)


def told(result: Validation) -> str:
    return "\n".join(str(finding) for finding in result.findings)


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_a_good_store_gives_no_finding(made: Path, mode: Mode) -> None:
    result = validated(made, mode)
    assert not result.findings, told(result)
    assert not result.not_checked
    samples = sum(len(table_of(made, f"samples-{season}")) for season in SEASONS)
    shards = 8 * len(table_of(made, "blocks"))
    assert (result.release, result.checked["samples"], result.checked["shards"]) == (1, samples, shards)
    assert result.checked["files"] == len(table_of(made, "manifest"))
    listed = sum(path.is_file() for path in (made / ".build").rglob("*"))
    assert result.checked["builder_files"] == listed > 0
    assert set(table_of(made, "blocks")["split"]) == {"train", "val", "test"}
    assert ("chunks" in result.checked) == (mode == "full")
    if mode == "full":
        # Every chunk that is not fill, counted in another way.
        chunks = 0
        for row in table_of(made, "blocks").to_dict("records"):
            for name, spec in layout_of(made).arrays().items():
                values = block_values(made, row["season"], name, row["block"])
                pieces = values.reshape(len(values) * spec.chunks_per_sample, -1)
                chunks += int((pieces != spec.fill).any(axis=1).sum())
        assert result.checked["chunks"] == chunks


def link_away(name: str) -> Callable[[Path], None]:
    """Move a file or folder out of the store, and leave a link to it."""

    def link(store: Path) -> None:
        target = store.with_name("elsewhere")
        (store / name).rename(target)
        (store / name).symlink_to(target)

    return link


@dataclass(frozen=True)
class Damage:
    """A way to damage a store, and what must be found."""

    do: Callable[[Path], None]
    #: check -> part of where.
    found: dict[str, str]
    severity: str = "error"
    #: What only reading the pixels shows.
    full_only: bool = False


def set_value(name: str, column: str, row: int, value: Any) -> Callable[[Path], None]:
    """A change of one value of a table, properly signed."""

    def do(store: Path) -> None:
        def change(table: Any) -> Any:
            values = table[column].tolist()
            values[row] = value(values[row]) if callable(value) else value
            return table.assign(**{column: pd.Series(values, index=table.index, dtype=table[column].dtype)})

        change_table(store, name, change)
        sign(store)

    return do


def set_pixels(array: str, change: Callable[[Any], None], *, whole: bool = True) -> Callable[[Path], None]:
    """A change of values of a block, properly signed; with the statistics that follow from it."""

    def do(store: Path) -> None:
        change_values(store, SEASON, array, BLOCK, change)
        if whole:
            sum_up(store)
        sign(store)

    return do


def set_where(place: Any, value: Any) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        values[place] = value

    return change


def set_classes(tiers: slice, value: int) -> Callable[[Any], None]:
    """Other classes in a pixel that has one at every tier."""

    def change(values: Any) -> None:
        place = np.argwhere(((values > 0) & (values < 255)).all(axis=1))[0]
        values[place[0], tiers, place[1], place[2]] = value

    return change


def swap_parcels(values: Any) -> None:
    """Two pixels of two parcels of a sample exchange their numbers."""
    first, second = np.unique(values[0][values[0] > 0])[:2]
    one, other = np.argwhere(values[0] == first)[0], np.argwhere(values[0] == second)[0]
    values[0][tuple(one)], values[0][tuple(other)] = second, first


def take_labels_for_priors(store: Path) -> None:
    """Write a season whose priors are its labels, as when one file is read for both years."""
    for block in table_of(store, "blocks").query(f"season == {SEASON}")["block"]:
        labels = block_values(store, SEASON, "label", block)
        change_values(store, SEASON, "prior", block, lambda values, labels=labels: values.__setitem__(..., labels))
    sum_up(store)
    sign(store)


def set_json(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """A change of a document of the index, properly signed."""

    def do(store: Path) -> None:
        change_json(index_file(store, name), change)
        sign(store)

    return do


def set_root(change: Callable[[Any], None], *, copy: bool = True) -> Callable[[Path], None]:
    """A change of the root, and of its copy."""

    def do(store: Path) -> None:
        root = root_of(store)
        change(root)
        if copy:
            write_root(store, root)
        else:
            (store / "zarr.json").write_text(canonical_json(root))

    return do


def set_coordinate(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """A change of the first chunk of a coordinate, properly signed."""

    def do(store: Path) -> None:
        write_coordinate(store, name, change)
        sign(store)

    return do


def write_coordinate(store: Path, name: str, change: Callable[[Any], None]) -> None:
    array: Any = zarr.open_group(str(store), mode="r", use_consolidated=False)[f"{SEASON}/{name}"]
    spec = next(one for one in layout_of(store).coordinates(2022) if one.name == name)
    values = np.full((spec.chunk or array.shape[0], *array.shape[1:]), spec.fill, object)
    values[: array.shape[0]] = array[:]
    change(values)
    chunk = store / str(SEASON) / name / ("c.0" + ".0" * (array.ndim - 1))
    chunk.write_bytes(encode_coordinate(spec, values))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    overwrite(path, data)


def shard(array: str) -> Callable[[Path], Path]:
    return lambda store: shard_file(store, SEASON, array, BLOCK)


def flip_signed(array: str, place: int) -> Callable[[Path], None]:
    def do(store: Path) -> None:
        flip(shard(array)(store), place)
        sign(store)

    return do


def leave_a_gap(store: Path) -> None:
    """A shard in which a byte lies unused before the index; everything can be read."""
    path = shard("label")(store)
    data = path.read_bytes()
    index = 16 * layout_of(store).capacity + 4
    overwrite(path, data[:-index] + b"\0" + data[-index:])
    sign(store)


def store_fill(store: Path) -> None:
    """A shard with a chunk of nothing but fill."""
    spec = layout_of(store).arrays()["prior"]
    values = block_values(store, SEASON, "prior", BLOCK)
    values[0] = spec.fill
    # The writer leaves fill out where it knows what fill is.
    other = type(spec)(**{**vars(spec), "fill": 77})
    layout = layout_of(store)
    overwrite(shard("prior")(store), b"".join(encode_shard(values, other, layout.capacity, layout.codec)))
    sum_up(store)
    sign(store)


def fill_unused_slots(store: Path) -> None:
    """A shard with values in a place of its block where no sample is."""
    path = store / f"{SEASON}/s2_day"
    block = int(table_of(store, "blocks").query("season == 2022 and samples == 1")["block"].iloc[0])
    assert path.is_dir()
    change_values(store, SEASON, "s2_day", block, set_where((1, 6), 190), slots=2)
    sign(store)


def move_to_other_split(store: Path) -> None:
    """A block in another split than the ground it lies on."""

    def change(table: Any) -> Any:
        mine = (table["block"] == BLOCK) & (table["season"] == SEASON if "season" in table else True)
        return table.assign(split=table["split"].where(~mine, "test"))

    change_table(store, "blocks", change)
    change_table(store, f"samples-{SEASON}", change)
    sum_up(store)
    sign(store)


def move_to_other_square(store: Path) -> None:
    """Samples that say they lie in a square further north."""
    for name in ("blocks", *(f"samples-{season}" for season in SEASONS)):
        change_table(store, name, lambda table: table.replace({"square": {"3831_3101": "3831_3102"}}))
    sign(store)


def name_squares(store: Path) -> None:
    """Two samples whose split square has another name than squares have."""
    set_value(SAMPLES, "square", 0, "somewhere")(store)
    set_value(SAMPLES, "square", 3, "1_2_3")(store)


def move_samples(store: Path) -> None:
    """A sample that says it lies 30 m further east, in the index and in its coordinates."""
    set_value(f"samples-{SEASON}", "x0", 0, lambda x: x + 30)(store)
    set_coordinate("x0", lambda values: values.__setitem__(0, values[0] + 30))(store)


def drop_column(name: str, column: str) -> Callable[[Path], None]:
    def do(store: Path) -> None:
        change_table(store, name, lambda table: table.drop(columns=column))
        sign(store)

    return do


def drop_from_manifest(store: Path) -> None:
    """A manifest that does not know a file of the release."""
    manifest = table_of(store, "manifest")
    sign_manifest(store, root_of(store), manifest[manifest["path"] != f"{SEASON}/month/c.0"].reset_index(drop=True))


def merge_parcels(store: Path) -> None:
    """A parcel whose pixels, by their numbers, lie in two splits with a label."""
    parcels = table_of(store, f"parcels-{SEASON}")
    number = int(parcels["number"][parcels["split"] == "train"].iloc[0])
    classes = parcels.set_index("number").loc[number, [f"tier{tier}" for tier in range(1, 5)]].tolist()
    change_values(store, SEASON, "parcel", BLOCK, set_where((0, slice(0, 2)), number))
    change_values(
        store, SEASON, "label", BLOCK, set_where((0, slice(None), slice(0, 2)), np.array(classes)[:, None, None])
    )
    sum_up(store)
    sign(store)


def move_outlines(store: Path) -> None:
    """Outlines of parcels 6 m off the pixels that were drawn from others."""
    change_table(
        store, f"parcels-{SEASON}", lambda table: table.set_geometry(table.to_crs(32631).translate(6).to_crs(table.crs))
    )
    sign(store)


def forget_a_parcel(store: Path) -> None:
    """A block without the parcel that crosses all its samples: less than a quarter of the declared ground of each."""
    numbers = block_values(store, SEASON, "parcel", BLOCK)
    there = numbers == numbers.max()
    assert (there.sum(axis=(1, 2)) > 50).all()
    change_values(store, SEASON, "parcel", BLOCK, set_where(there, 0))
    change_values(store, SEASON, "label", BLOCK, set_where(np.repeat(there[:, None], 4, axis=1), 0))
    sum_up(store)
    sign(store)


def turn_rows(store: Path) -> None:
    """Labels and parcels of a block with the south at the top; everything else fits."""
    for array in ("label", "prior", "parcel"):
        change_values(store, SEASON, array, BLOCK, lambda values: values.__setitem__(..., values[..., ::-1, :].copy()))
    sum_up(store)
    sign(store)


def write_notes(store: Path) -> None:
    """Files that no build writes, in the folder of a year."""
    for name in ("2031/notes.txt", "2031/notes/zarr.json", "2031/notes/c.0", "2031/x0/notes.txt", "2031/x0/a/c.0"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("x")


S2, CLEAR, DAY = "s2", "s2_clear", "s2_day"
SAMPLES = f"samples-{SEASON}"
DAMAGES: dict[str, Damage] = {
    "root lost": Damage(lambda store: (store / "zarr.json").unlink(), {"root": "zarr.json"}),
    "root no JSON": Damage(lambda store: flip(store / "zarr.json", 0), {"root": "zarr.json"}),
    "root says nothing": Damage(lambda store: (store / "zarr.json").write_text("[]"), {"root": "zarr.json"}),
    "root of another version": Damage(
        set_root(lambda root: root["attributes"].update(format_version="9.1"), copy=False), {"root": "zarr.json"}
    ),
    "windows in the root": Damage(
        set_root(lambda root: root["attributes"]["seasons"]["2022"]["windows"][2].reverse(), copy=False),
        {"root": "zarr.json"},
    ),
    "flags of sixteen bits in the layout": Damage(
        set_root(
            lambda root: root["attributes"]["layout"]["sources"]["enmap"]["arrays"][1].update(dtype="uint16"),
            copy=False,
        ),
        {"root": "zarr.json"},
    ),
    "root with another layout": Damage(
        set_root(lambda root: root["attributes"]["layout"].update(cell_size=300), copy=False), {"root": "zarr.json"}
    ),
    "root with another hash of the manifest": Damage(
        set_root(lambda root: root["attributes"]["manifest"].update(sha256="0" * 64), copy=False),
        {"root": "zarr.json"},
    ),
    "root with another title": Damage(
        set_root(lambda root: root["attributes"].update(title="a store"), copy=False),
        {"root": "zarr.json and index/r1/root.json"},
    ),
    "root with another space": Damage(
        lambda store: (store / "zarr.json").write_text((store / "zarr.json").read_text().replace("\n ", "\n\t", 1)),
        {"root": "zarr.json"},
    ),
    "copy of the root lost": Damage(
        lambda store: (store / "index/r1/root.json").unlink(), {"root": "index/r1/root.json"}
    ),
    "copy of the root changed": Damage(
        lambda store: flip(store / "index/r1/root.json", 0), {"root": "index/r1/root.json"}
    ),
    "identity": Damage(
        set_root(lambda root: root["attributes"]["seasons"]["2022"].update(sha256="0" * 64)), {"identity": "zarr.json"}
    ),
    "consolidated entry": Damage(
        set_root(
            lambda root: root["consolidated_metadata"]["metadata"]["2022/label"].update(data_type="int8"),
        ),
        {"metadata": "zarr.json"},
    ),
    "manifest lost": Damage(
        lambda store: (store / "index/r1/manifest.parquet").unlink(), {"missing": "index/r1/manifest.parquet"}
    ),
    "manifest changed": Damage(
        lambda store: flip(store / "index/r1/manifest.parquet", 100), {"checksum": "index/r1/manifest.parquet"}
    ),
    "manifest forgets a file": Damage(
        drop_from_manifest, {"index": "index/r1/manifest.parquet", "stray": "2022/month/c.0"}, severity="any"
    ),
    "shard lost": Damage(lambda store: shard("s2")(store).unlink(), {"missing": "2022/s2/c.2.0.0.0.0"}),
    "shard cut": Damage(
        lambda store: overwrite(shard("s2")(store), shard("s2")(store).read_bytes()[:-7]),
        {"size": "2022/s2/c.2.0.0.0.0"},
    ),
    "shard changed": Damage(
        lambda store: flip(shard("label")(store), 20),
        {"checksum": "2022/label/c.2.0.0.0", "chunk": "2022/label/c.2.0.0.0"},
        full_only=True,
    ),
    "index of a shard": Damage(flip_signed("parcel", -2), {"shard": "2022/parcel/c.2.0.0"}),
    "gap in a shard": Damage(leave_a_gap, {"shard": "2022/label/c.2.0.0.0"}),
    "chunk": Damage(flip_signed("enmap", 5), {"chunk": "2022/enmap/c.2.0.0.0"}, full_only=True),
    "unused slot": Damage(fill_unused_slots, {"unused": "2022/s2_day"}),
    "index file changed": Damage(
        lambda store: flip(index_file(store, "scenes"), 300), {"checksum": "index/r1/scenes-2022.parquet"}
    ),
    "metadata document": Damage(
        lambda store: (change_json(store / "2022/s2/zarr.json", lambda one: one.update(fill_value=0)), sign(store)),
        {"metadata": "2022/s2/zarr.json"},
    ),
    "metadata document no JSON": Damage(
        lambda store: ((store / "2022/s2/zarr.json").write_text("{"), sign(store)), {"metadata": "2022/s2/zarr.json"}
    ),
    "column lost": Damage(drop_column(SAMPLES, "scene"), {"index": "index/r1/samples-2022.parquet"}),
    "column of another type": Damage(
        lambda store: (change_table(store, "blocks", lambda table: table.astype({"epsg": "str"})), sign(store)),
        {"index": "index/r1/blocks-202"},
    ),
    "table is none": Damage(
        lambda store: (index_file(store, "scenes").write_bytes(b"PAR1" * 9), sign(store)),
        {"index": "index/r1/scenes-2022.parquet"},
    ),
    "document is none": Damage(
        lambda store: (index_file(store, "classes").write_text("{"), sign(store)), {"index": "index/r1/classes.json"}
    ),
    "share out of range": Damage(set_value(SAMPLES, "flagged_share", 1, 1.5), {"samples": "samples-2022.parquet"}),
    "scene of another year": Damage(
        set_value(SAMPLES, "scene_time", 0, pd.Timestamp("2019-07-01", tz="UTC")), {"samples": "samples-2022.parquet"}
    ),
    "id of another cell": Damage(
        set_value(SAMPLES, "sample", 3, lambda name: name.replace("_240_", "_300_")),
        {"samples": "samples-2022.parquet", "coordinate": "2022/sample/c.0"},
    ),
    "block without a sample": Damage(
        set_value("blocks", "samples", BLOCK, 3), {"samples": "index/r1/samples-2021.parquet"}
    ),
    "block number": Damage(
        set_value("blocks", "block", 3, 9),
        {
            "blocks": "index/r1/blocks-2021.parquet",
            "samples": "index/r1/samples-2021.parquet",
            "provenance": "index/r1/samples-2021.parquet",
        },
    ),
    "file of another block": Damage(
        set_value("blocks", "files", 1, lambda files: [*files[:-1], files[-1].replace("c.1.", "c.0.")]),
        {"blocks": "index/r1/", "identity": "zarr.json"},
    ),
    "no input hash": Damage(set_value("blocks", "hash_s2", 1, ""), {"provenance": "blocks-2021.parquet, 2021 block 1"}),
    "no software": Damage(set_value("blocks", "software", 1, " "), {"provenance": "blocks-2021.parquet, 2021 block 1"}),
    "no taxonomy": Damage(set_value("blocks", "taxonomy", 1, "1"), {"provenance": "blocks-2021.parquet, 2021 block 1"}),
    "scene not in the index": Damage(
        set_value("blocks", "s2_items", 1, lambda items: [*items, "nobody"]), {"provenance": "blocks-2021.parquet"}
    ),
    "day of no scene": Damage(
        set_value(SAMPLES, "s2_dates", 0, lambda dates: [*dates[:-1], "2022-07-02"]),
        {"provenance": "samples-2022.parquet"},
    ),
    "no reason": Damage(set_value("scenes", "reason", 0, ""), {"provenance": "index/r1/scenes-2021.parquet"}),
    "no offset": Damage(set_value("scenes", "offset", 1, pd.NA), {"provenance": "index/r1/scenes-2021.parquet"}),
    "another recipe": Damage(
        set_json("recipes", lambda recipes: recipes["2022"].update(description="another")),
        {"provenance": "index/r1/recipes-2022.json"},
    ),
    "class without a name": Damage(
        set_json("classes", lambda classes: classes[3].update({"0": "nothing"})), {"classes": "index/r1/classes.json"}
    ),
    "parcel twice": Damage(
        lambda store: (
            change_table(store, "parcels-2021", lambda table: pd.concat([table, table.iloc[[-1]]])),
            sign(store),
        ),
        {"parcels": "index/r1/parcels-2021.parquet"},
    ),
    "corner not that of the cell": Damage(move_samples, {"georeferencing": "samples-2022.parquet"}),
    "epsg not that of the cell": Damage(
        set_value(SAMPLES, "epsg", 2, 32632),
        {"georeferencing": "samples-2022.parquet", "samples": "samples-2022", "coordinate": "2022/epsg/c.0"},
    ),
    "outline elsewhere": Damage(
        lambda store: (
            change_table(store, SAMPLES, lambda table: table.set_geometry(table.geometry.translate(0.001))),
            sign(store),
        ),
        {"georeferencing": "samples-2022.parquet"},
    ),
    "square of another place": Damage(move_to_other_square, {"georeferencing": "samples-202", "split": "index/r1/s"}),
    "square is none": Damage(
        name_squares,
        {"split": "index/r1/samples-2022.parquet", "georeferencing": "samples-2022.parquet", "samples": "samples-2022"},
    ),
    "epsg of no zone": Damage(
        set_value(SAMPLES, "epsg", 2, 999_931),
        {"georeferencing": "samples-2022.parquet", "samples": "samples-2022", "coordinate": "2022/epsg/c.0"},
    ),
    "square counted wrong": Damage(set_value("squares", "samples", 1, 99), {"split": "index/r1/squares-2021.parquet"}),
    "nearer than the buffer": Damage(
        set_json("recipes", lambda recipes: recipes["2022"]["split"].update(buffer=300.0)),
        {"leak": "samples 32631_240_", "provenance": "index/r1/recipes-2022.json"},
    ),
    "another split": Damage(move_to_other_split, {"split": "index/r1/s", "leak": "", "labels": "2022/label"}),
    "coordinate": Damage(
        set_coordinate("y0", lambda values: values.__setitem__(1, values[1] + 10)), {"coordinate": "2022/y0/c.0"}
    ),
    "valid": Damage(
        set_coordinate("valid", lambda values: values.__setitem__(0, False)), {"coordinate": "2022/valid/c.0"}
    ),
    "id in an unused slot": Damage(
        set_coordinate("sample", lambda values: values.__setitem__(1, "nobody")), {"coordinate": "2022/sample/c.0"}
    ),
    "days of windows": Damage(
        set_coordinate("time", lambda values: values.__setitem__(3, 91)), {"coordinate": "2022/time/c.0"}
    ),
    "months": Damage(
        set_coordinate("month", lambda values: values.__setitem__(1, 12)), {"coordinate": "2022/month/c.0"}
    ),
    "wavelengths out of order": Damage(
        set_coordinate("wavelength", lambda values: values.__setitem__((0, 0), 900)),
        {"coordinate": "2022/wavelength/c.0.0"},
    ),
    "coordinate is none": Damage(
        lambda store: ((store / "2022/epsg/c.0").write_bytes(b"nothing"), sign(store)), {"coordinate": "2022/epsg/c.0"}
    ),
    "statistics without a part": Damage(
        set_json("statistics", lambda one: one["reflectance"].pop("s2_by_month")),
        {"statistics": "index/r1/statistics.json"},
    ),
    "statistics of other samples": Damage(
        set_json("statistics", lambda one: one["reflectance"].update(samples=3)),
        {"statistics": "index/r1/statistics.json"},
    ),
    "statistics of other pixels": Damage(
        set_json("statistics", lambda one: one["reflectance"]["enmap"][1].update(mean=0.2)),
        {"statistics": "index/r1/statistics.json"},
        full_only=True,
    ),
    "statistics of other parcels": Damage(
        set_json("statistics", lambda one: one["class_parcels"]["2022"]["val"][0].update({"4": 99})),
        {"statistics": "index/r1/statistics.json"},
        full_only=True,
    ),
    "fill in one band": Damage(
        set_pixels(S2, set_where((1, 6, 1, 3, 4), FILL)), {"fill": "2022/s2, sample"}, full_only=True
    ),
    "fill where it was clear": Damage(
        set_pixels(S2, set_where((1, 6, slice(None), 3, 4), FILL)),
        {"fill": "2022/s2_clear, sample"},
        full_only=True,
    ),
    "day without a clear day": Damage(
        set_pixels(DAY, set_where((0, 0, 3, 4), 12)), {"fill": "2022/s2_day, sample"}, full_only=True
    ),
    "day of another month": Damage(
        set_pixels(DAY, set_where((0, 6, 3, 4), 180)), {"range": "2022/s2_day, sample"}, full_only=True
    ),
    "more clear days than days": Damage(
        set_pixels(CLEAR, set_where((0, 6, 3, 4), 32)),
        {"range": "2022/s2_clear, sample", "shares": "2022/s2_clear, sample"},
        full_only=True,
    ),
    "reflectance nobody measures": Damage(
        set_pixels(S2, set_where((0, 6, 0, 3, 4), 31000)), {"range": "2022/s2, sample"}, "warning", full_only=True
    ),
    "a flag nobody knows": Damage(
        set_pixels("enmap_quality", lambda values: np.bitwise_or(values, 32768, out=values)),
        {"range": "2022/enmap_quality"},
        full_only=True,
    ),
    "no value and not outside": Damage(
        lambda store: (
            change_values(store, SEASON, "enmap", BLOCK, set_where((0, slice(None), 3, 4), FILL)),
            set_value(SAMPLES, "enmap_fill_share", 5, 1 / 64)(store),
        ),
        {"fill": "2022/enmap_quality, sample"},
        full_only=True,
    ),
    "a chunk of fill": Damage(store_fill, {"fill": "2022/prior/c.2.0.0.0"}, "warning", full_only=True),
    "a class nobody knows": Damage(
        set_pixels("prior", set_classes(slice(0, 1), 99)),
        {"range": "2022/prior, sample", "tiers": "2022/prior, sample"},
        full_only=True,
    ),
    "a prior of one tier": Damage(
        set_pixels("prior", set_classes(slice(0, 3), 255)), {"tiers": "2022/prior, sample"}, full_only=True
    ),
    "priors that are the labels": Damage(take_labels_for_priors, {"prior": "2022/prior"}, "warning", full_only=True),
    "a label of another parcel": Damage(
        set_pixels("parcel", swap_parcels), {"labels": "2022/label, sample"}, full_only=True
    ),
    "a parcel that is not": Damage(
        set_pixels("parcel", lambda values: values.__setitem__(values == values.max(), 4_000_000_000)),
        {"parcels": "2022/parcel, sample"},
        full_only=True,
    ),
    "a parcel in two splits": Damage(
        merge_parcels,
        {"leak": "2022/label", "labels": "2022/label, sample", "shares": "2022/", "ground": "2022/parcel, sample"},
        full_only=True,
    ),
    "a parcel is not drawn": Damage(
        forget_a_parcel, {"ground": "2022/parcel, sample", "shares": "2022/"}, full_only=True
    ),
    "parcels upside down": Damage(turn_rows, {"ground": "2022/parcel, sample"}, full_only=True),
    "outlines half a pixel off": Damage(move_outlines, {"ground": "2022/parcel, sample"}, full_only=True),
    "cloud share without the layer": Damage(
        set_value(SAMPLES, "enmap_layers_missing", 1, ["quality_cloud"]),
        {"shares": "2022/enmap_quality"},
        full_only=True,
    ),
    "cloud share": Damage(
        set_value(SAMPLES, "enmap_cloud_share", 1, 0.123), {"shares": "2022/enmap_quality"}, full_only=True
    ),
    "flagged share": Damage(
        set_value(SAMPLES, "enmap_flagged_share", 1, 0.123), {"shares": "2022/enmap_quality"}, full_only=True
    ),
    "fill share": Damage(set_value(SAMPLES, "enmap_fill_share", 1, 0.123), {"shares": "2022/enmap,"}, full_only=True),
    "clear share": Damage(
        set_value(SAMPLES, "s2_clear_share", 1, [0.1] * 12), {"shares": "2022/s2_clear"}, full_only=True
    ),
    "class share": Damage(set_value(SAMPLES, "class_share", 1, [0.1] * 4), {"shares": "2022/label"}, full_only=True),
    "declared share": Damage(set_value(SAMPLES, "declared_share", 1, 0.123), {"shares": "2022/parcel"}, full_only=True),
    "parcels of a sample": Damage(set_value(SAMPLES, "parcels", 1, 9), {"shares": "2022/parcel"}, full_only=True),
    "a season elsewhere": Damage(link_away("2022"), {"link": "2022"}, "warning"),
    "a shard elsewhere": Damage(link_away("2022/label/c.1.0.0.0"), {"link": "2022/label/c.1.0.0.0"}, "warning"),
    "an index elsewhere": Damage(link_away("index"), {"link": "index"}, "warning"),
    "stray": Damage(lambda store: (store / "2022/notes.txt").write_text("x"), {"stray": "2022/notes.txt"}, "warning"),
    "stray in a folder like a season's": Damage(write_notes, {"stray": "2031/"}, "warning"),
    "shard of a block to come": Damage(
        lambda store: shutil.copy(shard("s2")(store), store / "2022/s2/c.8.0.0.0.0"), {"unfinished": "2022/"}, "warning"
    ),
    "index of a release to come": Damage(
        lambda store: shutil.copytree(store / "index/r1", store / "index/r2"), {"unfinished": "index/r2/"}, "warning"
    ),
    "season to come": Damage(
        lambda store: shutil.copytree(store / "2022", store / "2023"), {"unfinished": "2023/"}, "warning"
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_by_name_and_nothing_else_is(name: str, store: Path) -> None:
    damage = DAMAGES[name]
    damage.do(store)
    assert_found(validated(store), damage)
    if damage.full_only:
        quick = validated(store, "quick")
        assert not quick.findings, told(quick)


def assert_found(result: Validation, damage: Damage) -> None:
    by_check: dict[str, list[Finding]] = {}
    for finding in result.findings:
        by_check.setdefault(finding.check, []).append(finding)
    assert set(by_check) == set(damage.found), told(result)
    for check, where in damage.found.items():
        assert all(where in finding.where for finding in by_check[check]), told(result)
    for finding in result.findings:
        assert finding.severity == damage.severity or damage.severity == "any"
        assert len(finding.what) > 5
        assert len(finding.remedy) > 10


def test_without_a_list_of_plans_parcels_may_have_been_declared_later(store: Path) -> None:
    path = index_file(store, "sources")
    forget_a_parcel(store)
    path.write_text("[]")
    sign(store)
    result = validated(store)
    assert {(one.check, one.where) for one in result.findings if one.check != "shares"} == {
        ("index", "index/r1/sources-2022.json")
    }
    assert result.not_checked == ["what needs the index sources: it is lost or damaged"]
    # Releases of earlier versions do not have it.
    for path in index_files(store, "sources"):
        path.unlink()
    sign(store)
    set_root(lambda root: root["attributes"]["index"].pop("sources"))(store)
    result = validated(store)
    assert {one.check for one in result.findings} == {"shares"}
    assert not result.not_checked


def test_squares_whose_names_are_lost_are_said_to_be_unchecked_and_those_nobody_draws_are_found(store: Path) -> None:
    name_squares(store)
    result = validated(store, "quick")
    assert result.not_checked == ["the table of split squares: the squares of some samples are not column_row"]
    for path in index_files(store, "recipes"):
        change_json(path, lambda recipes: [recipe["split"].pop("square_size") for recipe in recipes.values()])
    sign(store)
    result = validated(store, "quick")
    squares = [one.what for one in result.findings if one.where.startswith("index/r1/squares-2021.parquet")]
    assert squares == ["is not expected: the split is not drawn by squares"]


def test_pixels_whose_place_is_lost_are_said_to_be_unchecked(store: Path) -> None:
    index_file(store, SAMPLES).unlink()
    (store / "2021/wavelength/c.0.0").unlink()
    result = validated(store)
    assert {one.check for one in result.findings} == {"missing"}
    places = [what for what in result.not_checked if what.startswith("whether")]
    assert places == [
        "whether EnMAP shows what Sentinel-2 shows, in blocks of 2021: their wavelengths are lost or damaged",
        "whether parcels lie where their outlines are, in blocks of 2022: the index does not say where their samples "
        "lie",
        "whether EnMAP shows what Sentinel-2 shows, in blocks of 2022: their rows of the samples index are lost or "
        "damaged",
    ]


def test_every_check_has_a_damage_that_shows_it() -> None:
    documented = set()
    for line in (Path(__file__).parents[2] / "docs/validate.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            documented.update(re.findall("`([^`]+)`", line.split("|")[1]))
    # Those of other tests, and what no test can bring about.
    elsewhere = {"format", "release", "unreadable", "unforeseen", "frame", "agreement"}
    assert {check for damage in DAMAGES.values() for check in damage.found} | elsewhere == documented


# Parts of a store


def without_shards(store: Path, season: int, arrays: tuple[str, ...]) -> int:
    gone = [path for array in arrays for path in (store / str(season) / array).glob("c.*")]
    for path in gone:
        path.unlink()
    return len(gone)


@pytest.mark.parametrize("arrays", [("s2",), ("s2_clear", "label"), ("enmap", "s2_day", "parcel"), ("enmap_quality",)])
def test_a_partial_copy_is_whole_as_far_as_it_goes(arrays: tuple[str, ...], store: Path) -> None:
    shutil.rmtree(store / ".build")
    gone = without_shards(store, SEASON, arrays)
    for mode in ("quick", "full"):
        assert {finding.check for finding in validated(store, mode).findings} == {"missing"}
        result = validated(store, mode, partial=True)
        assert not result.findings, told(result)
        assert result.checked["not_here"] == gone
    assert any("statistics against the arrays" in what for what in result.not_checked)
    # What is here must be whole all the same, and nothing else may be missing.
    flip(store / "2021/prior/c.1.0.0.0", 10)
    (store / "2022/month/c.0").unlink()
    found = validated(store, partial=True).findings
    assert {(one.check, one.where) for one in found} >= {
        ("checksum", "2021/prior/c.1.0.0.0"),
        ("missing", "2022/month/c.0"),
    }
    assert all("download this file again" in one.remedy for one in found)


@pytest.mark.parametrize("left_out", ["sentinel2", "enmap", "parcels"])
def test_a_store_without_a_source_gives_no_finding(left_out: str, tmp_path: Path) -> None:
    recipe = checked_region(tmp_path / "region").for_seasons([2022])
    document = {key: value for key, value in recipe.complete().items() if key != left_out}
    build_store(written(tmp_path / "region", document), tmp_path / "store", workers=1)
    for mode in ("quick", "full"):
        result = validated(tmp_path / "store", mode)
        assert not result.findings, told(result)
        assert not result.not_checked


def written(folder: Path, document: dict[str, Any]) -> Recipe:
    """A recipe of these contents."""
    path = folder / "other.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_recipe(path)


def test_ground_without_declarations_is_unknown_and_no_finding(tmp_path: Path) -> None:
    recipe = checked_region(tmp_path / "region").for_seasons([2022])
    middle = (WEST + END) / 2
    ground = gpd.GeoDataFrame(geometry=[shapely.box(WEST, SOUTH, middle + 50, NORTH)], crs="EPSG:32631")
    ground.to_file(tmp_path / "region/covered.geojson", driver="GeoJSON")
    document = recipe.complete()
    document["parcels"]["season"][0]["coverage"] = "covered.geojson"
    store = tmp_path / "store"
    build_store(written(tmp_path / "region", document), store, workers=1)
    labels = np.concatenate([block_values(store, 2022, "label", block) for block in range(4)])
    parcels = np.concatenate([block_values(store, 2022, "parcel", block) for block in range(4)])
    assert ((labels[:, 0] == 255) & (parcels == 0)).any()
    result = validated(store)
    assert not result.findings, told(result)
    # Where everything is covered the same is wrong.
    plain = tmp_path / "plain"
    build_store(recipe, plain, workers=1)
    change_values(plain, 2022, "label", 1, set_where((0, slice(None), 0, 0), 255))
    sum_up(plain)
    sign(plain)
    assert "labels" in {finding.check for finding in validated(plain).findings}


# The life of a store


def test_a_store_that_grew_and_lost_blocks_gives_no_finding(tmp_path: Path) -> None:
    recipe = checked_region(tmp_path / "region")
    store = tmp_path / "store"
    narrow = {**recipe.complete(), "area": {**recipe.complete()["area"], "bbox": [WEST, SOUTH, WEST + 1200, NORTH]}}
    build_store(written(tmp_path / "region", narrow).for_seasons([2022]), store, workers=1)
    retract_from_store(store, {2022: [1]}, [], "clouds nobody saw")
    build_store(recipe.for_seasons([2022]), store, extend=True, workers=1)
    build_store(recipe.for_seasons([2021]), store, workers=1)
    assert root_of(store)["attributes"]["release"] == 4
    for mode in ("quick", "full"):
        result = validated(store, mode)
        assert not result.findings, told(result)
        assert not result.not_checked
        assert result.checked["older_releases"] == 3
        assert result.checked["retracted_blocks"] == 1
    # The first release has the retracted block still.
    lost = store / "2022/s2/c.1.0.0.0.0"
    whole = lost.read_bytes()
    flip(lost, 10)
    assert not validated(store, "quick").findings
    assert [(one.check, one.where) for one in validated(store).findings] == [("release", "2022/s2/c.1.0.0.0.0")]
    lost.unlink()
    assert [(one.check, one.where) for one in validated(store, "quick").findings] == [
        ("release", "2022/s2/c.1.0.0.0.0")
    ]
    lost.write_bytes(whole)
    for path, damage in (
        ("index/r2/scenes-2022.parquet", lambda path: flip(path, 100)),
        ("index/r1/samples-2022.parquet", Path.unlink),
        ("index/r2/manifest.parquet", lambda path: flip(path, 100)),
        ("index/r2/root.json", lambda path: path.write_text("{}")),
    ):
        whole = (store / path).read_bytes()
        damage(store / path)
        found = validated(store, "quick").findings
        assert {(one.check, one.where) for one in found} == {("release", path)}, found
        assert all("h2crop prune" in one.remedy for one in found)
        (store / path).write_bytes(whole)
    # Pruned, the retracted block and the old releases are gone, and nothing is wrong with that.
    prune_store(store, [])
    assert not lost.exists()
    result = validated(store)
    assert not result.findings, told(result)


def test_a_season_without_a_sample_left_gives_no_finding(store: Path) -> None:
    retract_from_store(store, {2021: [0, 1, 2, 3]}, [], "a year nobody wants")
    for mode in ("quick", "full"):
        result = validated(store, mode)
        assert not result.findings, told(result)
        assert not result.not_checked


def test_a_build_at_work_is_no_damage(made: Path, store: Path) -> None:
    """Shards of new blocks, then coordinates and documents of a longer season, before the root tells of them."""
    for array in layout_of(store).arrays():
        shutil.copy(shard_file(store, SEASON, array, BLOCK), shard_file(store, SEASON, array, 8))
    assert {one.check for one in validated(store).findings} == {"unfinished"}
    write_coordinate(store, "sample", lambda values: values.__setitem__(32, "32631_240_0001_0001_2022"))
    write_coordinate(store, "x0", lambda values: values.__setitem__(32, 500000.0))
    change_json(store / "2022/s2/zarr.json", lambda one: one["shape"].__setitem__(0, 36))
    for mode in ("quick", "full"):
        result = validated(store, mode)
        assert {(one.severity, one.check) for one in result.findings} == {("warning", "unfinished")}, told(result)
    where = {one.where for one in result.findings}
    assert {"2022/sample/c.0", "2022/x0/c.0", "2022/s2/zarr.json"} < where
    # Another value for a sample of the release, or another document, is damage all the same.
    write_coordinate(store, "x0", lambda values: values.__setitem__(0, 500000.0))
    change_json(store / "2022/s2/zarr.json", lambda one: one.update(fill_value=0))
    errors = {(one.check, one.where) for one in validated(store).findings if one.severity == "error"}
    assert errors == {("checksum", "2022/x0/c.0"), ("checksum", "2022/s2/zarr.json")}
    shutil.copy(made / "2022/x0/c.0", store / "2022/x0/c.0")


def test_what_it_says_about_a_damaged_block_mends_the_store(tmp_path: Path) -> None:
    store = checked_store(tmp_path)
    flip(shard_file(store, SEASON, "s2", BLOCK), 30)
    (found,) = {one.remedy for one in validated(store).findings}
    marker = found.split()[1].rstrip(",")
    assert marker == f"{store}/.build/{SEASON}/{BLOCK:06d}.json"
    assert f"h2crop build RECIPE --season {SEASON} --out {store}" in found
    Path(marker).unlink()
    report = build_store(checked_region(tmp_path / "region").for_seasons([SEASON]), store, workers=1)
    assert (report.built, report.release) == (1, 1)
    result = validated(store)
    assert not result.findings, told(result)


# Other stores


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The store that format 1.0 was written with."""
    with zipfile.ZipFile(STORES / "format-1.0.zip") as archive:
        archive.extractall(tmp_path / "first")
    return tmp_path / "first"


def test_the_first_format_has_no_errors_and_names_the_migration(first: Path) -> None:
    for mode in ("quick", "full"):
        result = validated(first, mode)
        assert [(one.severity, one.check) for one in result.findings] == [("warning", "format")], told(result)
        assert f"h2crop migrate {first}" in result.findings[0].remedy
        assert not result.not_checked
    migrate_store(first)
    result = validated(first)
    assert not result.findings, told(result)


def test_damage_to_a_store_of_the_first_format_is_found(first: Path) -> None:
    root = (first / "zarr.json").read_bytes()
    for change in (
        lambda attributes: attributes["layout"].update(block_capacity=1_000_000_000),
        lambda attributes: attributes["seasons"]["2022"].update(blocks=10**12),
        lambda attributes: attributes["manifest"].update(sha256="0" * 64),
    ):
        change_json(first / "zarr.json", lambda one, change=change: change(one["attributes"]))
        assert validated(first).errors
    (first / "zarr.json").unlink()
    result = validated(first)
    assert [(one.check, one.where) for one in result.findings] == [("root", "zarr.json")]
    assert result.release == 0
    assert result.not_checked
    (first / "zarr.json").write_bytes(root)
    change_json(index_file(first, "statistics"), lambda one: one["reflectance"]["s2"][0].update(mean=0.3))
    assert ("size", "index/r1/statistics.json") in {(one.check, one.where) for one in validated(first).findings}


def test_an_imported_store_says_what_cannot_be_proven(tmp_path: Path) -> None:
    make_published(tmp_path / "published")
    store = tmp_path / "store"
    import_published(tmp_path / "published", store, ImportOptions(capacity=2))
    for mode in ("quick", "full"):
        result = validated(store, mode)
        assert not result.errors, told(result)
        vague = [one for one in result.findings if one.check == "georeferencing"]
        assert len(vague) == len(root_of(store)["attributes"]["seasons"])
        assert all("--catalog" in one.remedy and "their place cannot be verified" in one.what for one in vague)
        assert not result.not_checked
    flip(next((store / "2022/published").iterdir()), 1000)
    flip(next((store / "2022/enmap").glob("c.0*")), 1000)
    found = {(one.check, one.where.split("/")[1]) for one in validated(store).findings if one.severity == "error"}
    assert {("checksum", "published"), ("checksum", "enmap")} <= found


def test_a_store_of_another_major_version_is_refused(store: Path) -> None:
    set_root(lambda root: root["attributes"].update(format_version="3.0"))(store)
    with pytest.raises(FormatVersionError, match=r"has format 3\.0"):
        validated(store)


def test_a_newer_minor_version_is_told(store: Path) -> None:
    set_root(lambda root: root["attributes"].update(format_version="2.99"))(store)
    found = validated(store, "quick").findings
    assert [(one.severity, one.check) for one in found] == [("warning", "format")]


def test_a_file_that_cannot_be_read_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a server fails, or a file belongs to somebody else."""
    broken = {"2022/s2/c.2.0.0.0.0", "2022/y0/c.0"}

    def refuse(method: Any) -> Any:
        def read(self: LocalStorage, name: str, *more: int) -> Any:
            if name in broken:
                raise StoreError(f"cannot read {name}: input/output error")
            return method(self, name, *more)

        return read

    for method in ("read", "read_range", "describe"):
        monkeypatch.setattr(LocalStorage, method, refuse(getattr(LocalStorage, method)))
    for mode in ("quick", "full"):
        found = validated(store, mode).findings
        assert {(one.check, one.where) for one in found} == {("unreadable", name) for name in broken}


def test_a_check_that_stumbles_keeps_no_other_from_looking(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*anything: Any) -> Any:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr("h2crop_data.validation.validate.check_provenance", stumble)
    monkeypatch.setattr("h2crop_data.validation.sources.flag_problems", stumble)
    change_json(store / "2022/s2/zarr.json", lambda one: one.update(fill_value=0))
    sign(store)
    result = validated(store)
    assert {one.check for one in result.findings} == {"unforeseen", "metadata"}
    stumbled = [one for one in result.findings if one.check == "unforeseen"]
    assert {one.where for one in stumbled} > {"provenance", "2021, block 0", "2022, block 7"}
    assert all("nobody thought of this" in one.what and one.severity == "error" for one in stumbled)


def test_a_store_in_an_object_store_is_the_same(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(shard_file(store, SEASON, "s2", BLOCK), 30)
    (store / "2021/parcel/c.0.0.0").unlink()
    wanted = validated(store)
    with s3_server() as url:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in s3_environment(url).items():
            monkeypatch.setenv(name, value)
        there = open_storage(f"s3://{BUCKET}/checked/store")
        here = LocalStorage(store)
        for name, _ in here.names():
            there.write(name, [here.read(name)])
        for mode in ("quick", "full"):
            result = validated(there.location, mode)
            if mode == "quick":
                assert [one.where for one in result.findings] == ["2021/parcel/c.0.0.0"]
        assert result.checked == wanted.checked
        where = str(store)
        assert [(one.check, one.where, one.what, one.remedy) for one in result.findings] == [
            (one.check, one.where, one.what, one.remedy.replace(where, there.location)) for one in wanted.findings
        ]
        with pytest.raises(UsageError, match="there is no store"):
            validated(f"s3://{BUCKET}/nothing")


# The command


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(command)
    return app


def run(app: typer.Typer, *arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_tells_errors_by_its_exit_code(app: typer.Typer, store: Path) -> None:
    done = run(app, store, "--quick", "--json")
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert answer == {**validated(store, "quick").as_json()}
    assert set(answer) == {
        *("store", "release", "mode", "errors", "warnings", "checked", "not_checked", "distributions", "findings"),
    }
    (store / "notes.txt").write_text("x")
    done = run(app, store, "--quick", "--json")
    assert (done.exit_code, json.loads(done.stdout)["warnings"]) == (0, 1)
    flip(shard_file(store, SEASON, "s2", BLOCK), 30)
    assert run(app, store, "--quick").exit_code == 0
    done = run(app, store, "--json")
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert (answer["errors"], answer["warnings"], answer["mode"]) == (2, 1, "full")
    assert set(answer["findings"][0]) == {"severity", "check", "where", "what", "remedy"}


def test_people_are_told_a_few_of_each_check_and_what_to_do(app: typer.Typer, store: Path) -> None:
    for path in (store / "2022/s2").glob("c.*"):
        path.unlink()
    done = run(app, store, "--quick")
    assert done.exit_code == 1
    assert "missing (8)" in done.stderr
    assert "and 3 more; --all shows them" in done.stderr
    assert done.stderr.count("is missing") == 5
    assert f"h2crop build RECIPE --season 2022 --out {store}" in done.stderr
    assert "8 error(s), 0 warning(s)" in done.stderr
    done = run(app, store, "--quick", "--all")
    assert done.stderr.count("is missing") == 8
    done = run(app, store, "--quick", "--partial")
    assert done.exit_code == 0
    assert "8 files missing here" in done.stderr


def test_wrong_use_is_not_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "nothing", tmp_path / "empty", tmp_path / "file", "http://127.0.0.1:1/store", "s3://"):
        with pytest.raises(UsageError):
            command(str(place), as_json=True)


def test_findings_and_progress_are_told_as_they_come(store: Path) -> None:
    flip(shard_file(store, SEASON, "s2", BLOCK), 30)
    told_first: list[Finding] = []
    steps: list[tuple[int, int, str]] = []
    result = validated(store, on_finding=told_first.append, progress=lambda *step: steps.append(step))
    assert told_first == result.findings
    assert all(0 <= done <= total for done, total, _ in steps)
    assert any("pixels, season 2022 block 7" in text for _, _, text in steps)
