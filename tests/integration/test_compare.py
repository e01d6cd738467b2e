"""`h2crop compare`: every difference that was made is told, and nothing else."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from changed_stores import overwrite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_stores import (
    CLASSES,
    ENMAP_FLAGGED,
    SOFTWARE,
    WAVELENGTHS,
    block_row,
    make_store,
    parcels_table,
    sample_arrays,
    sample_row,
    scenes_table,
    seal_made,
)
from numpy.typing import NDArray
from web_server import served

from h2crop_data.cli.main import main
from h2crop_data.cube.reading import read_index_json
from h2crop_data.cube.root import stored_data
from h2crop_data.cube.schema import Codec, StoreLayout
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.cube.statistics import BlockSums, block_sums, total
from h2crop_data.cube.writer import hold_store
from h2crop_data.errors import StoreError, UsageError
from h2crop_data.maintenance.compare import Choice, StoreComparison, compare_stores
from h2crop_data.maintenance.differences import Change, changes, compare_tables
from h2crop_data.sources.formats import known_layout

SEASON = 2022
BANDS = ("B02", "B08", "B11")


def layout_of_cells(size: int, enmap_bands: int = len(WAVELENGTHS)) -> StoreLayout:
    """A layout of cells of a size in metres."""
    return known_layout(cell_size=size, capacity=2, s2_bands=BANDS, enmap_bands=enmap_bands)


LAYOUT = layout_of_cells(60)
#: Arrays whose differences have a size.
MEASURED = ("enmap", "s2", "s2_clear", "s2_day")


@dataclass
class Content:
    """What a store of one season holds, apart from how it is written."""

    layout: StoreLayout = LAYOUT
    #: Ids of the samples, block by block.
    blocks: list[list[str]] = field(default_factory=list)
    arrays: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    parcels: gpd.GeoDataFrame | None = None
    scenes: pd.DataFrame | None = None
    classes: list[dict[int, str]] = field(default_factory=lambda: deepcopy(CLASSES))
    software: str = SOFTWARE
    recipe: dict[str, Any] = field(default_factory=lambda: {"name": "made", "store": {"level": 5}})
    #: Added to the wavelengths of a block, nm.
    shifts: dict[int, float] = field(default_factory=dict)
    #: Block -> why it is kept out of the release.
    retracted: dict[int, str] = field(default_factory=dict)

    def copy(self) -> Content:
        """The same content, to be changed."""
        return deepcopy(self)


def content(layout: StoreLayout = LAYOUT, blocks: int = 3) -> Content:
    """Known values: full blocks in one split."""
    made = Content(layout)
    for slot in range(blocks * layout.capacity):
        arrays = sample_arrays(layout, slot)
        row = sample_row(layout, SEASON, slot // layout.capacity, slot, "train", arrays)
        made.arrays[row["sample"]], made.rows[row["sample"]] = arrays, row
    ids = list(made.rows)
    made.blocks = [ids[start : start + layout.capacity] for start in range(0, len(ids), layout.capacity)]
    made.parcels = parcels_table(layout, list(made.rows.values()))
    made.scenes = scenes_table(layout, SEASON)
    return made


def write(made: Content, folder: Path, season: int = SEASON) -> Path:
    """Write and seal the content as it is; gives the folder."""
    layout = made.layout
    files: list[dict[str, Any]] = []
    rows, block_rows = [], []
    sums: dict[str, list[BlockSums]] = {}
    with hold_store(folder) as builder, ThreadPoolExecutor(1) as pool:
        for block, members in enumerate(made.blocks):
            stacked = {name: np.stack([made.arrays[one][name] for one in members]) for name in layout.arrays()}
            written = [builder.describe(name) for name in builder.write_block(season, block, stacked, layout, pool)]
            split = made.rows[members[0]]["split"]
            reason = made.retracted.get(block, "")
            block_rows.append(block_row(season, block, split, len(members), written, layout) | {"retracted": reason})
            files += written if not reason else []
            for place, one in enumerate(members):
                rows.append(made.rows[one] | {"block": block, "slot": block * layout.capacity + place})
                alone = {name: values[None] for name, values in made.arrays[one].items()}
                if not reason:
                    split = made.rows[one]["split"]
                    sums.setdefault(split, []).append(
                        block_sums(alone, layout.arrays(), split, {"enmap_quality": ENMAP_FLAGGED})
                    )
        bands = stored_data(layout.attributes()).enmap_bands
        wavelengths = [(WAVELENGTHS + made.shifts.get(block, 0))[:bands] for block in range(block + 1)]
        by_block = {
            "wavelength": np.array(wavelengths, np.float32),
            "fwhm": np.full((block + 1, bands), 6.5, np.float32),
        }
        finished = FinishedSeason(
            season=season,
            samples=gpd.GeoDataFrame(rows, crs="OGC:CRS84"),
            blocks=pd.DataFrame(block_rows),
            scenes=made.scenes,
            parcels=made.parcels if stored_data(layout.attributes()).labels else None,
            by_block=by_block if bands else {},
            sums={split: total(parts) for split, parts in sums.items()},
            files=files,
            recipe=made.recipe,
        )
        seal_made(builder, layout, [finished], made.classes, made.software)
    return folder


@pytest.fixture(scope="module")
def original() -> Content:
    """What store A holds; not to be changed."""
    return content()


@pytest.fixture(scope="module")
def store_a(original: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(original, tmp_path_factory.mktemp("a") / "store")


def told(found: StoreComparison) -> dict[str, Any]:
    """Everything a comparison says that counts, as plain data, without what is empty; statistics apart."""
    document = found.as_json()
    assert document.pop("same") is found.same
    for key in ("a", "b", "release_a", "release_b", "told", "statistics"):
        del document[key]
    [season] = document.pop("seasons")
    for key in ("season", "moved", "read", "unread"):
        del season[key]
    for key in ("samples", "parcels", "scenes"):
        if season[key] is not None:
            season[key] = {name: value for name, value in season[key].items() if value and name != "common"}
    return {key: value for key, value in {**document, **season}.items() if value}


def leaves(document: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of a JSON document by its path."""
    if isinstance(document, dict):
        parts = [leaves(value, f"{path}.{key}" if path else key) for key, value in document.items()]
    elif isinstance(document, list) and any(isinstance(value, dict | list) for value in document):
        parts = [leaves(value, f"{path}[{i}]") for i, value in enumerate(document)]
    else:
        return {path: document}
    return {key: value for part in parts for key, value in part.items()}


def check_statistics(found: StoreComparison, a: Path, b: Path) -> None:
    """The statistics told to differ are those that do: every leaf, or what holds it where one side lacks all of it."""
    left, right = (leaves(read_index_json(store, "statistics")) for store in (a, b))
    differing = {path for path in {**left, **right} if left.get(path) != right.get(path)}
    names = [change.name for change in found.statistics]
    assert len(set(names)) == len(names)
    for change in found.statistics:
        below = {
            path for path in differing if path == change.name or path.startswith((f"{change.name}.", f"{change.name}["))
        }
        assert below, change.name
        differing -= below
    assert not differing


# --- Alterations: each changes the content and says what must be told of it.

Alteration = Callable[[Content, dict[str, Any]], None]
#: (array, sample) -> index -> value before and after.
Pixels = dict[tuple[str, str], dict[tuple[int, ...], tuple[int, int]]]


def alter_pixel(array: str, place: int, index: Sequence[int], value: int) -> Alteration:
    """One value of one sample."""

    def alter(made: Content, notes: dict[str, Any]) -> None:
        ids = list(made.rows)
        sample = ids[place % len(ids)]
        values = made.arrays[sample][array]
        where = tuple(i % size for i, size in zip(index, values.shape, strict=False))
        pixels: Pixels = notes.setdefault("pixels", {})
        known = pixels.setdefault((array, sample), {})
        before = known[where][0] if where in known else int(values[where])
        # A parcel number is one of the table.
        values[where] = min(value, 2 * len(ids)) if array == "parcel" else value
        known[where] = (before, int(values[where]))

    return alter


def drop_sample(made: Content, notes: dict[str, Any]) -> None:
    """The first sample of the last block goes."""
    sample = made.blocks[-1].pop(0)
    if not made.blocks[-1]:
        made.blocks.pop()
    del made.arrays[sample], made.rows[sample]
    notes.setdefault("dropped", []).append(sample)


def turn_round(made: Content, notes: dict[str, Any]) -> None:
    """Blocks, and the samples in them, in another order."""
    made.blocks = [block[::-1] for block in made.blocks[::-1]]


def cut_otherwise(made: Content, notes: dict[str, Any]) -> None:
    """Smaller blocks, another codec."""
    made.layout = replace(made.layout, capacity=1, codec=Codec("zstd", 2))
    made.blocks = [[sample] for block in made.blocks for sample in block]


def alter_row(column: str, place: int, value: Any) -> Alteration:
    """One value of the samples index."""

    def alter(made: Content, notes: dict[str, Any]) -> None:
        sample = list(made.rows)[place % len(made.rows)]
        made.rows[sample][column] = value
        notes.setdefault("columns", {}).setdefault(column, set()).add(sample)

    return alter


def rename_class(made: Content, notes: dict[str, Any]) -> None:
    """Class 7 of tier 4."""
    notes["classes"] = [{"name": "tier 4.7", "a": CLASSES[3][7], "b": "spelt"}]
    made.classes[3][7] = "spelt"


def other_software(made: Content, notes: dict[str, Any]) -> None:
    """Another program sealed it."""
    notes["attributes"] = [{"name": "software", "a": SOFTWARE, "b": "another program"}]
    made.software = "another program"


def alter_parcels(made: Content, notes: dict[str, Any]) -> None:
    """A parcel has another code, another one another shape, and there is one more."""
    assert made.parcels is not None
    made.parcels = made.parcels.copy()
    made.parcels.loc[made.parcels["number"] == 3, "code"] = "61"
    shifted = made.parcels.geometry.translate(1e-9)
    made.parcels.loc[made.parcels["number"] == 5, "geometry"] = shifted[made.parcels["number"] == 5]
    more = made.parcels.iloc[[0]].assign(number=made.parcels["number"].max() + 1)
    made.parcels = pd.concat([made.parcels, more], ignore_index=True)
    notes["parcels"] = {"only_b": ["13"], "columns": {"code": ["3"], "geometry": ["5"]}}


def alter_scenes(made: Content, notes: dict[str, Any]) -> None:
    """A scene was left out for a reason, and one more was found."""
    assert made.scenes is not None
    scenes = made.scenes.copy()
    name = scenes.loc[0, "id"]
    scenes.loc[0, ["taken", "reason"]] = [False, "hazy"]
    scenes = pd.concat([scenes, scenes.iloc[[1]].assign(id="S2X")], ignore_index=True)
    made.scenes = scenes
    notes["scenes"] = {
        "only_b": ["sentinel2 S2X"],
        "columns": {"taken": [f"sentinel2 {name}"], "reason": [f"sentinel2 {name}"]},
    }


def expected_arrays(notes: dict[str, Any], rows: Sequence[str]) -> list[dict[str, Any]]:
    """What must be told of the values, from the list of changes alone."""
    specs = LAYOUT.arrays()
    entries = []
    for (array, sample), known in notes.get("pixels", {}).items():
        real = {index: pair for index, pair in known.items() if pair[0] != pair[1]}
        if not real or sample not in rows:
            continue
        spec = specs[array]
        sizes = [abs(old - new) for old, new in real.values() if spec.fill not in (old, new)]
        where: dict[str, list[Any]] = {}
        for axis, name in enumerate(spec.dims[1:]):
            places = sorted({index[axis] for index in real})
            if name in ("time", "tier"):
                where["month" if name == "time" else name] = [place + 1 for place in places]
            elif name == "s2_band":
                where[name] = [stored_data(LAYOUT.attributes()).s2_bands[place] for place in places]
            elif name == "band":
                where[name] = places
        if array == "enmap_quality":
            bits = zip(spec.attributes["flag_masks"], spec.attributes["flag_meanings"].split(" "), strict=True)
            where["flag"] = [name for mask, name in bits if any((old ^ new) & mask for old, new in real.values())]
        entry = {"array": array, "sample": sample, "differing": len(real), "values": int(np.prod(spec.sample_shape))}
        entry |= {"largest": max(sizes) if sizes and array in MEASURED else None, "where": where}
        entry["only_a"] = sum(new == spec.fill for _, new in real.values())
        entry["only_b"] = sum(old == spec.fill for old, _ in real.values())
        entries.append(entry)
    return entries


def expected(notes: dict[str, Any], original: Content) -> dict[str, Any]:
    """What must be told of some alterations."""
    dropped = notes.get("dropped", [])
    rows = [sample for sample in original.rows if sample not in dropped]
    document: dict[str, Any] = {
        key: notes[key] for key in ("classes", "attributes", "parcels", "scenes") if key in notes
    }
    columns = {
        name: [sample for sample in rows if sample in samples] for name, samples in notes.get("columns", {}).items()
    }
    columns = {name: samples for name, samples in columns.items() if samples}
    samples = {"only_a": sorted(dropped, key=list(original.rows).index), "columns": columns}
    document["samples"] = {key: value for key, value in samples.items() if value}
    document["coordinates"] = {name: samples for name, samples in columns.items() if name in ("x0", "y0", "epsg")}
    document["arrays"] = expected_arrays(notes, rows)
    return {key: value for key, value in document.items() if value}


def ordered(document: dict[str, Any]) -> dict[str, Any]:
    """The differences of arrays in one order."""
    arrays = sorted(document.get("arrays", []), key=lambda one: (one["array"], one["sample"]))
    return {**document, **({"arrays": arrays} if arrays else {})}


ALTERATIONS: dict[str, Alteration] = {
    "a pixel of a month": alter_pixel("s2", 1, (6, 1, 2, 3), 4321),
    "a pixel that was never seen": alter_pixel("s2", 2, (11, 0, 0, 0), 100),
    "a pixel that is not seen any more": alter_pixel("s2", 2, (5, 2, 5, 5), -32768),
    "clear days": alter_pixel("s2_clear", 0, (3, 1, 1), 7),
    "the day": alter_pixel("s2_day", 0, (3, 1, 1), 99),
    "a band": alter_pixel("enmap", 3, (17, 0, 1), -200),
    "flags": alter_pixel("enmap_quality", 3, (0, 1), 2 | 512),
    "a label": alter_pixel("label", 4, (2, 5, 0), 6),
    "a label that becomes unknown": alter_pixel("label", 4, (0, 5, 0), 255),
    "a prior": alter_pixel("prior", 0, (3, 0, 0), 0),
    "a parcel number": alter_pixel("parcel", 5, (0, 0), 7),
    "a sample less": drop_sample,
    "another order": turn_round,
    "another form": cut_otherwise,
    "a split": alter_row("split", 3, "val"),
    "dates": alter_row("s2_dates", 2, ["2022-07-15"]),
    "a share": alter_row("enmap_fill_share", 2, 0.5),
    "a missing angle": alter_row("sun_azimuth", 2, np.nan),
    "a scene": alter_row("scene", 1, "none"),
    "a corner": alter_row("x0", 1, 0.0),
    "a class name": rename_class,
    "software": other_software,
    "parcels": alter_parcels,
    "scenes": alter_scenes,
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_one_alteration_is_told_exactly(name: str, original: Content, store_a: Path, tmp_path: Path) -> None:
    altered, notes = original.copy(), {}
    ALTERATIONS[name](altered, notes)
    store_b = write(altered, tmp_path / "b")
    found = compare_stores(store_a, store_b)
    assert ordered(told(found)) == ordered(expected(notes, original))
    check_statistics(found, store_a, store_b)
    assert found.same is (name in ("another order", "another form"))
    # The other way round, what one side has alone is on the other side.
    back = compare_stores(store_b, store_a)
    assert back.seasons[0].samples.only_b == found.seasons[0].samples.only_a
    assert [one.only_b for one in back.seasons[0].arrays] == [one.only_a for one in found.seasons[0].arrays]
    assert {one.array: one.largest for one in back.seasons[0].arrays} == {
        one.array: one.largest for one in found.seasons[0].arrays
    }


PIXELS = st.builds(
    alter_pixel,
    st.sampled_from(sorted(LAYOUT.arrays())),
    st.integers(0, 5),
    st.tuples(*[st.integers(0, 40)] * 4),
    st.sampled_from([0, 1, 2, 5, 200, 255]),
)
ROWS = st.builds(
    alter_row,
    st.sampled_from(["split", "square", "scene", "s2_dates", "sun_elevation", "y0"]),
    st.integers(0, 5),
    st.just(None),
)
#: Values that no sample has, of the type of the column.
NEW = {"split": "test", "square": "7_7", "scene": "S", "s2_dates": ["2022-01-01"], "sun_elevation": 1.5, "y0": 60.0}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(PIXELS, max_size=5),
    st.lists(st.tuples(st.sampled_from(sorted(NEW)), st.integers(0, 5)), max_size=3),
    st.sets(st.sampled_from(["another form", "a class name", "software", "parcels", "scenes", "another order"])),
    st.integers(0, 3),
    st.booleans(),
)
def test_any_set_of_alterations_is_told_exactly(
    original: Content,
    store_a: Path,
    pixels: list[Alteration],
    rows: list[tuple[str, int]],
    others: set[str],
    drops: int,
    full: bool,
) -> None:
    altered, notes = original.copy(), {}
    alterations = [*pixels, *(alter_row(column, place, NEW[column]) for column, place in rows)]
    alterations += [ALTERATIONS[name] for name in sorted(others)] + [drop_sample] * drops
    for alter in alterations:
        alter(altered, notes)
    with tempfile.TemporaryDirectory() as folder:
        store_b = write(altered, Path(folder) / "b")
        found = compare_stores(store_a, store_b, Choice(full=full))
        assert ordered(told(found)) == ordered(expected(notes, original))
        check_statistics(found, store_a, store_b)
    assert found.same is not (expected(notes, original) or found.statistics)


# --- What is read, and from where


def shards(store: Path, array: str) -> list[Path]:
    """The shards of an array, in order of block."""
    return sorted((store / str(SEASON) / array).glob("c.*"))


def test_what_the_checksums_say_is_equal_is_not_read(original: Content, store_a: Path, tmp_path: Path) -> None:
    altered = original.copy()
    sample = original.blocks[1][0]
    altered.arrays[sample]["label"][:] = 1
    store_b = write(altered, tmp_path / "b")
    found = compare_stores(store_a, store_b).seasons[0]
    arrays, samples = len(LAYOUT.arrays()), len(original.rows)
    # The other sample of the block lies in a shard with another checksum, so it is read as well.
    assert (found.read, found.unread) == (2, arrays * samples - 2)
    assert [(one.array, one.sample) for one in found.arrays] == [("label", sample)]
    full = compare_stores(store_a, store_b, Choice(full=True)).seasons[0]
    assert (full.read, full.unread) == (arrays * samples, 0)
    assert full.arrays == found.arrays
    # Nothing of the other shards is looked at: they may even be damaged, which reading them tells.
    for path in shards(store_b, "s2"):
        overwrite(path, b"not a shard")
    assert compare_stores(store_a, store_b).seasons[0].arrays == found.arrays
    with pytest.raises(StoreError, match="damaged"):
        compare_stores(store_a, store_b, Choice(full=True))


def test_a_block_with_another_number_is_known_by_its_checksum(original: Content, store_a: Path, tmp_path: Path) -> None:
    altered = original.copy()
    altered.blocks = [original.blocks[2], original.blocks[0], original.blocks[1][::-1]]
    season = compare_stores(store_a, write(altered, tmp_path / "b")).seasons[0]
    assert season.same
    # Two blocks kept their bytes under other numbers; in the third one the samples changed places.
    assert (season.moved, season.read) == (6, 2 * len(LAYOUT.arrays()))


def test_a_lost_shard_is_an_error_and_no_difference(original: Content, store_a: Path, tmp_path: Path) -> None:
    altered = original.copy()
    altered.arrays[original.blocks[0][0]]["s2"][0, 0, 0, 0] += 1
    store_b = write(altered, tmp_path / "b")
    shards(store_b, "s2")[0].unlink()
    with pytest.raises(StoreError, match="missing"):
        compare_stores(store_a, store_b)
    assert compare_stores(store_a, store_b, Choice(arrays=frozenset({"label"}))).same


def test_releases_of_one_store(original: Content, tmp_path: Path) -> None:
    store = write(original, tmp_path / "store")
    retracted = original.copy()
    retracted.retracted = {1: "haze that no flag tells"}
    write(retracted, store)
    found = compare_stores(store, store, release_a=1)
    assert (found.release_a, found.release_b) == (1, 2)
    season = found.seasons[0]
    assert (season.samples.only_a, season.samples.only_b) == (original.blocks[1], [])
    assert (season.samples.common, season.arrays, season.coordinates, season.read) == (4, [], {}, 0)
    assert compare_stores(store, store, release_a=1, release_b=1).same
    with pytest.raises(StoreError, match="no release 7"):
        compare_stores(store, store, release_b=7)


def test_a_store_at_a_url_against_a_folder(original: Content, store_a: Path, tmp_path: Path) -> None:
    altered, notes = original.copy(), {}
    for name in ("a pixel of a month", "flags", "a corner", "a sample less"):
        ALTERATIONS[name](altered, notes)
    with served(write(altered, tmp_path / "b")) as (url, _):
        found = compare_stores(store_a, url, Choice(full=True))
        same = compare_stores(url, url, Choice(full=True))
    assert ordered(told(found)) == ordered(expected(notes, original))
    assert same.same
    assert same.seasons[0].read == 5 * len(LAYOUT.arrays())


def test_progress_goes_from_nothing_to_all(store_a: Path) -> None:
    seen: list[tuple[int, int]] = []
    compare_stores(store_a, store_a, progress=lambda done, total, text: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(7)]


# --- Other layouts, and comparing a part


def test_wavelengths_differ_block_by_block(original: Content, store_a: Path, tmp_path: Path) -> None:
    altered = original.copy()
    altered.shifts = {1: 0.5}
    found = compare_stores(store_a, write(altered, tmp_path / "b"))
    assert told(found) == {"coordinates": {"wavelength": original.blocks[1]}}


def test_other_bands_and_missing_sources_are_told(store_a: Path, tmp_path: Path) -> None:
    other = content(known_layout(cell_size=60, capacity=2, s2_bands=("B02", "B11", "B08"), labels=False))
    for new, old in zip(list(other.rows), content().rows, strict=True):
        other.rows[old] = other.rows.pop(new) | {"sample": old}
        other.arrays[old] = other.arrays.pop(new)
    other.blocks = content().blocks
    other.arrays[other.blocks[0][0]]["s2_clear"][4, 2, 2] = 9
    found = compare_stores(store_a, write(other, tmp_path / "b"))
    assert set(found.incomparable) == {"enmap", "enmap_quality", "s2", "label", "prior", "parcel"}
    assert found.incomparable["s2"] == "A has the bands B02 B08 B11, B B02 B11 B08"
    assert found.incomparable["label"] == "only A has it"
    assert [change.name for change in found.attributes] == ["layout.enmap_bands", "layout.labels", "layout.s2_bands"]
    assert [(one.array, one.differing) for one in found.seasons[0].arrays] == [("s2_clear", 1)]
    assert found.seasons[0].parcels is not None
    assert len(found.seasons[0].parcels.only_a) == 12
    assert {"parcels", "class_share", "enmap_fill_share"} <= set(found.seasons[0].samples.columns_only_a)
    assert not found.same


def test_fewer_bands_of_enmap(original: Content, store_a: Path, tmp_path: Path) -> None:
    other = original.copy()
    other.layout = layout_of_cells(60, enmap_bands=16)
    for arrays in other.arrays.values():
        arrays["enmap"] = arrays["enmap"][:16]
    found = compare_stores(store_a, write(other, tmp_path / "b"))
    assert found.incomparable == {"enmap": "a sample has the shape 32 x 2 x 2 in A, 16 x 2 x 2 in B"}
    assert told(found).keys() == {"incomparable", "attributes"}
    assert [change.name for change in found.attributes] == ["layout.enmap_bands"]


def test_another_cell_size_shares_no_sample(store_a: Path, tmp_path: Path) -> None:
    found = compare_stores(store_a, write(content(layout_of_cells(120)), tmp_path / "b"))
    assert set(found.incomparable) == set(LAYOUT.arrays())
    assert found.incomparable["parcel"] == "a sample has the shape 6 x 6 in A, 12 x 12 in B"
    samples = found.seasons[0].samples
    assert (samples.common, len(samples.only_a), len(samples.only_b)) == (0, 6, 6)


def test_seasons_and_narrowing(tmp_path: Path) -> None:
    a = make_store(tmp_path / "a", seasons=(2021, 2022), cell_size=60).folder
    b = make_store(tmp_path / "b", seasons=(2022, 2023), cell_size=60).folder
    found = compare_stores(a, b)
    assert (found.seasons_only_a, found.seasons_only_b) == ([2021], [2023])
    assert [(season.season, season.same) for season in found.seasons] == [(2022, True)]
    assert not found.same
    assert not found.statistics  # both sum up two seasons of the same values
    assert compare_stores(a, b, Choice(seasons=frozenset({2022}))).same
    assert not compare_stores(a, b, Choice(seasons=frozenset({2021}))).same
    # Statistics over all seasons are part of a whole comparison only.
    c = make_store(tmp_path / "c", seasons=(2022,), cell_size=60).folder
    assert "reflectance.s2[0].count" in [change.name for change in compare_stores(a, c).statistics]
    assert compare_stores(a, c, Choice(seasons=frozenset({2022}))).same


def test_only_the_chosen_samples_and_arrays_are_compared(original: Content, store_a: Path, tmp_path: Path) -> None:
    altered, notes = original.copy(), {}
    for name in ("a pixel of a month", "a prior", "a split", "software", "scenes", "a class name", "a sample less"):
        ALTERATIONS[name](altered, notes)
    store_b = write(altered, tmp_path / "b")
    ids = list(original.rows)
    priors = compare_stores(store_a, store_b, Choice(arrays=frozenset({"prior"})))
    assert told(priors).keys() == {"samples", "arrays"}
    assert told(priors)["samples"] == {"only_a": [original.blocks[2][0]]}
    assert priors.statistics == []
    untouched = Choice(samples=frozenset({ids[2], ids[5]}))
    assert compare_stores(store_a, store_b, untouched).same
    one = compare_stores(store_a, store_b, Choice(samples=frozenset({ids[1]})))
    assert [(found.array, found.sample) for found in one.seasons[0].arrays] == [("s2", ids[1])]
    assert told(one).keys() == {"arrays"}
    for choice, message in (
        (
            Choice(samples=frozenset({"32631_60_0000_0000_2022"})),
            f"unknown sample .*: neither store has it; known: {ids[0]}",
        ),
        (
            Choice(arrays=frozenset({"s1"})),
            "unknown array s1: neither store has it; known: enmap, enmap_quality, label,",
        ),
        (Choice(seasons=frozenset({1999})), "unknown season 1999: neither store has it; known: 2022"),
    ):
        with pytest.raises(UsageError, match=message):
            compare_stores(store_a, store_b, choice)


def test_recipes_and_form_are_told_but_do_not_count(original: Content, store_a: Path, tmp_path: Path) -> None:
    altered = original.copy()
    altered.recipe = {"name": "made", "store": {"level": 9}, "enmap": None}
    cut_otherwise(altered, {})
    found = compare_stores(store_a, write(altered, tmp_path / "b"))
    assert found.same
    assert {change.name: (change.a, change.b) for change in found.told} == {
        "layout.block_capacity": (2, 1),
        "layout.codec.level": (5, 2),
        "layout.codec.name": ("lz4", "zstd"),
        "recipe of 2022.store.level": (5, 9),
    }


def test_rows_that_occur_twice_are_told_apart(original: Content, store_a: Path, tmp_path: Path) -> None:
    altered = original.copy()
    assert altered.scenes is not None
    altered.scenes = pd.concat([altered.scenes, altered.scenes.iloc[[2]]], ignore_index=True)
    found = compare_stores(store_a, write(altered, tmp_path / "b"))
    assert told(found) == {"scenes": {"only_b": [f"sentinel2 {altered.scenes.loc[2, 'id']} (2)"]}}


def test_missing_values_of_a_table_equal_each_other() -> None:
    times = pd.to_datetime(["2022-01-01", None, None], utc=True)
    a = pd.DataFrame({"key": [1, 2, 3], "list": [[1.0, np.nan], None, []], "time": times, "text": ["a", None, "b"]})
    b = a.iloc[::-1].assign(number=pd.array([1, None, 2], "Int32"), list=[[], None, [1.0, float("nan")]])
    found = compare_tables(a, b, ["key"])
    assert (found.common, found.columns, found.columns_only_b) == (3, {}, ["number"])
    b["list"] = [[], None, [1.0, 2.0]]
    b["time"] = pd.to_datetime(["2022-01-02", None, "2022-01-01"], utc=True)
    b["text"] = ["b", "c", None]
    found = compare_tables(a, b, ["key"])
    assert found.columns == {"list": ["1"], "time": ["3"], "text": ["1", "2"]}


def test_changes_of_documents() -> None:
    assert changes({"a": [1, 2], "b": [{"c": 1}, {"c": 2}]}, {"a": [1, 2, 3], "b": [{"c": 1}, {"d": 2}]}) == [
        Change("a", [1, 2], [1, 2, 3]),
        Change("b[1].c", 2, None),
        Change("b[1].d", None, 2),
    ]
    assert changes({"a": None, "b": 1}, {"b": 1}) == []
    assert changes({"a": [[1], [2]]}, {"a": [[1]]}) == [Change("a", [[1], [2]], [[1]])]


# --- The command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`h2crop compare` with some arguments: exit code, standard output, standard error on one line."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["h2crop", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, " ".join(err.split())

    return run_command


def test_the_command_says_the_same(run: Callable[..., tuple[int, str, str]], store_a: Path) -> None:
    code, out, err = run(store_a, store_a)
    assert (code, out) == (0, "")
    assert "the same: 6 samples" in err
    assert f"arrays of samples read 0, equal by checksum {6 * len(LAYOUT.arrays())}" in err


def test_the_command_tells_every_kind_of_difference(
    run: Callable[..., tuple[int, str, str]], original: Content, store_a: Path, tmp_path: Path
) -> None:
    altered, notes = original.copy(), {}
    for alter in ALTERATIONS.values():
        alter(altered, notes)
    store_b = write(altered, tmp_path / "b")
    code, out, err = run(store_a, store_b, "--json")
    document = json.loads(out)
    assert (code, document) == (1, compare_stores(store_a, store_b).as_json())
    assert err == ""
    code, out, err = run(store_a, store_b, "--limit", 1000)
    assert (code, out) == (1, "")
    for entry in document["seasons"][0]["arrays"]:
        line = f"{entry['sample']} {entry['array']}: {entry['differing']} of {entry['values']} values"
        size = f"; at most {entry['largest']} apart" if entry["largest"] is not None else ""
        fill = f"; {entry['only_a']} of them empty in B" if entry["only_a"] else ""
        assert line + size + fill in err
    for text in (
        "software h2crop-data of the tests another program",
        "samples: 1 only in A: ",
        "coordinate x0 differs for 1 samples",
        "scenes of 2022: 1 only in B: sentinel2 S2X",
        "tier 4.7 winter_common_soft_wheat spelt",
        "they differ (5 samples in both)",
        "month 7; s2_band B08",
    ):
        assert text in err, text
    assert "more: --limit" not in err
    code, _, err = run(store_a, store_b, "--limit", 2)
    assert f"and {len(document['seasons'][0]['arrays']) - 2} more: --limit" in err


def test_the_command_takes_lists(
    run: Callable[..., tuple[int, str, str]], original: Content, store_a: Path, tmp_path: Path
) -> None:
    altered = original.copy()
    first, second, third, *_ = original.rows
    altered.arrays[first]["label"][:], altered.arrays[second]["prior"][:] = 1, 1
    store_b = write(altered, tmp_path / "b")
    assert run(store_a, store_b, "--arrays", "s2, parcel", "--arrays", "enmap")[0] == 0
    assert run(store_a, store_b, "--samples", f"{first},{second}", "--arrays", "s2,prior")[0] == 1
    assert run(store_a, store_b, "--samples", third, "--season", SEASON)[0] == 0
    assert run(store_a, store_b, "--release-a", 1, "--release-b", 1, "--full", "--season", SEASON)[0] == 1


def test_the_command_tells_wrong_use_from_a_difference(
    run: Callable[..., tuple[int, str, str]], store_a: Path, tmp_path: Path
) -> None:
    for arguments, message in (
        ((tmp_path / "nothing",), "zarr.json"),
        ((store_a, "--release-b", 9), "no release 9"),
        ((store_a, "--season", 1999), "unknown season 1999: neither store has it"),
        ((store_a, "--arrays", "s1"), "unknown array s1: neither store has it"),
    ):
        code, out, err = run(store_a, *arguments)
        assert (code, out) == (2, "")
        assert message in err
    assert run(store_a)[0] == 2
