"""Relabelling: other labels in a new store, everything else the same files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_region import SOUTH, WEST, TinyRegion
from typer.testing import CliRunner

import h2crop_data
from h2crop_data.cli.main import app
from h2crop_data.cube.reading import read_index, read_index_json, store_attributes
from h2crop_data.errors import PlanError, StoreError
from h2crop_data.maintenance.migrate import migrate_store
from h2crop_data.maintenance.relabel import relabel_store
from h2crop_data.maintenance.retract import retract_from_store
from h2crop_data.pipeline.build import build_store

LABELS = ("label", "prior", "parcel")
FIELDS = [
    ((WEST + 10, SOUTH + 20, WEST + 200, SOUTH + 200), "BTH"),
    ((WEST + 250, SOUTH + 30, WEST + 400, SOUTH + 230), "MIS"),
    ((WEST + 20, SOUTH + 260, WEST + 230, SOUTH + 460), "XYZ"),
]


@pytest.fixture
def labelled(region: TinyRegion) -> TinyRegion:
    """A region with two seasons, EnMAP, and parcels one of whose codes has no meaning."""
    for year in (2022, 2023):
        region.add_sentinel2(f"S2_{year}", f"{year}-07-05T10:50:00Z", 1000)
        region.add_enmap(1, f"{year}0724T104526")
    for year in (2021, 2022, 2023):
        region.write_parcels(year, FIELDS)
    return region


@pytest.fixture
def source(labelled: TinyRegion, tmp_path: Path) -> Path:
    """The store of it, of one cell a block, so that most blocks lack the parcel that changes."""
    build_store(labelled.recipe(seasons=[2022, 2023], store={"block_capacity": 1}), tmp_path / "source", workers=1)
    return tmp_path / "source"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shards_of(folder: Path) -> list[Path]:
    layout = {"enmap", "enmap_quality", "s2", "s2_clear", "s2_day", *LABELS}
    return [path for path in sorted(folder.glob("2*/*/c.*")) if path.parent.name in layout]


def test_a_corrected_crop_table_changes_labels_alone(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "corrected.csv"
    # The code nobody knew is grassland, and maize is barley.
    table.write_text("code,hcat3\nBTH,3301010101\nMIS,3301010401\nXYZ,3302000000\n")
    before = files_of(source)
    done = CliRunner().invoke(
        app, ["relabel", str(source), "--out", str(tmp_path / "new"), "--table", f"fr={table}", "--json"]
    )
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    # Two of four cells hold a parcel whose meaning changed.
    assert (report["redone"], report["shared"]) == (4, 4)
    assert files_of(source) == before
    new = tmp_path / "new"
    for season in (2022, 2023):
        old, changed = (h2crop_data.open(folder, season).load() for folder in (source, new))
        for name in old.data_vars:
            if name not in LABELS:
                assert changed[name].equals(old[name]), name
        assert changed["parcel"].equals(old["parcel"])
        parcels = read_index(new, f"parcels-{season}").set_index("number")
        for tier in range(4):
            lookup = np.zeros(parcels.index.max() + 1, np.uint8)
            lookup[parcels.index] = parcels[f"tier{tier + 1}"]
            np.testing.assert_array_equal(changed["label"].values[:, tier], lookup[changed["parcel"].values])
        assert not old["label"].equals(changed["label"])
        assert (parcels["hcat3"][parcels["code"] == "XYZ"] == "3302000000").all()
    # Everything but the label shards is the very same file.
    for path in shards_of(source):
        same = path.stat().st_ino == (new / path.relative_to(source)).stat().st_ino
        assert same or path.parent.name in LABELS
    assert sum(path.stat().st_nlink == 2 for path in shards_of(source)) == 8 * 5 + 4 * 3
    assert store_attributes(new)["origin"]["release"] == 1
    assert store_attributes(new)["release"] == 1


def crop_table(rows: dict[str, str]) -> str:
    """SHA-256 of the rows of a crop table, as docs/store-format.md defines it."""
    return hashlib.sha256(json.dumps([[code, rows[code]] for code in sorted(rows)]).encode()).hexdigest()


def test_a_store_says_by_which_crop_tables_its_labels_were_made(labelled: TinyRegion, tmp_path: Path) -> None:
    rows = {"BTH": "3301010101", "MIS": "3301010401"}
    table = tmp_path / "own.csv"

    def write_table() -> None:
        # In any order, with spaces and empty lines: the same table.
        table.write_text(
            "code,hcat3,note\n" + "\n".join(f" {code} ,{rows[code]},x" for code in reversed(rows)) + "\n,,\n"
        )

    write_table()
    parcels = {"path": "RPG_{year}.gpkg", "country": "fr", "code_field": "CODE_CULTU", "id_field": "ID_PARCEL"}
    recipe = labelled.recipe(seasons=[2022], parcels={"season": [{**parcels, "table": {"path": str(table)}}]})
    store = tmp_path / "store"
    build_store(recipe, store, workers=1)
    first = f"fr {crop_table(rows)}"
    assert [list(texts) for texts in read_index(store, "blocks")["tables"]] == [[first]] * len(
        read_index(store, "blocks")
    )
    rows["XYZ"] = "3302000000"
    write_table()
    report = build_store(recipe, store, extend=True, workers=1)
    assert [line for line in report.changes if "another crop table (fr)" in line and "parcels or crop" not in line]
    relabel_store(store, tmp_path / "new", tables={"fr": table})
    assert {text for texts in read_index(tmp_path / "new", "blocks")["tables"] for text in texts} == {
        f"fr {crop_table(rows)}"
    }
    # A field moved as well: both are named.
    labelled.write_parcels(2022, [((WEST + 20, SOUTH + 30, WEST + 210, SOUTH + 220), "BTH"), *FIELDS[1:]])
    report = build_store(recipe, store, extend=True, workers=1)
    assert [
        line for line in report.changes if "other parcels or crop codes in 1 of them, another crop table (fr)" in line
    ]


def test_parcels_read_anew_are_what_a_build_makes_of_them(labelled: TinyRegion, source: Path, tmp_path: Path) -> None:
    # A field moved, one is new, one is gone, in one year.
    labelled.write_parcels(2022, [FIELDS[0], ((WEST + 250, SOUTH + 300, WEST + 400, SOUTH + 400), "PPH")])
    recipe = labelled.recipe(seasons=[2022, 2023], store={"block_capacity": 1})
    report = relabel_store(source, tmp_path / "new", recipe=recipe, workers=2)
    build_store(recipe, tmp_path / "built", workers=1)
    assert report.redone > 0
    for season in (2022, 2023):
        new, built = (h2crop_data.open(tmp_path / name, season).load() for name in ("new", "built"))
        for name in new.data_vars:
            if name != "parcel":
                assert new[name].equals(built[name]), (season, name)
        # Numbers differ where a parcel kept its own; they name the same parcels.
        named = [
            read_index(tmp_path / name, f"parcels-{season}").set_index("number")["parcel_id"].to_dict() | {0: ""}
            for name in ("new", "built")
        ]
        for one, other in zip(new["parcel"].values.ravel(), built["parcel"].values.ravel(), strict=True):
            assert named[0][one] == named[1][other]
    for name in ("statistics", "classes"):
        assert read_index_json(tmp_path / "new", name) == read_index_json(tmp_path / "built", name)
    columns = ["sample", "split", "parcels", "declared_share"]
    for season in (2022, 2023):
        one, other = (read_index(tmp_path / name, f"samples-{season}")[columns] for name in ("new", "built"))
        assert one.equals(other)


def test_relabelling_goes_on_where_it_stopped(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "corrected.csv"
    table.write_text("code,hcat3\nBTH,3301010101\nMIS,3301010401\nXYZ,3302000000\n")
    relabel_store(source, tmp_path / "whole", tables={"fr": table})

    def stop(done: int, total: int, text: str) -> None:
        if text == "blocks" and done == 2:
            assert total > 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relabel_store(source, tmp_path / "new", tables={"fr": table}, progress=stop)
    assert not (tmp_path / "new/zarr.json").exists()
    other = tmp_path / "other.csv"
    other.write_text("code,hcat3\nBTH,3301010101\nMIS,\nXYZ,3302000000\n")
    with pytest.raises(PlanError, match="started with other labels"):
        relabel_store(source, tmp_path / "new", tables={"fr": other})
    report = relabel_store(source, tmp_path / "new", tables={"fr": table})
    assert report.already_done >= 2
    for path in shards_of(tmp_path / "whole"):
        assert (tmp_path / "new" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()
    assert read_index(tmp_path / "new", "manifest").equals(read_index(tmp_path / "whole", "manifest"))


def test_a_relabelled_store_grows_and_remembers_what_was_retracted(
    labelled: TinyRegion, source: Path, tmp_path: Path
) -> None:
    runner = CliRunner()
    runner.invoke(app, ["retract", str(source), "--block", "2022:0", "--reason", "haze", "--yes"])
    report = relabel_store(source, tmp_path / "new")
    assert (report.redone, report.shared) == (0, 8)
    assert read_index(tmp_path / "new", "blocks")["retracted"].tolist() == ["haze", *[""] * 7]
    assert len(read_index(tmp_path / "new", "samples-2022")) == 3
    for year in (2024,):
        labelled.add_sentinel2(f"S2_{year}", f"{year}-07-05T10:50:00Z", 1000)
        labelled.add_enmap(1, f"{year}0724T104526")
        labelled.write_parcels(year, FIELDS)
    grown = build_store(labelled.recipe(seasons=[2024], store={"block_capacity": 1}), tmp_path / "new", workers=1)
    assert grown.release == 2
    # The source knows nothing of it.
    assert sorted(store_attributes(source)["seasons"]) == ["2022", "2023"]


def test_what_was_retracted_from_either_store_stays_out_of_the_new_one(source: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    retract_from_store(source, {2022: [0]}, [], "haze")
    relabel_store(source, new)
    retract_from_store(new, {2022: [0, 1]}, [], "smoke")
    retract_from_store(new, {}, ["S2_2023"], "shifted")
    out = read_index(new, "blocks")["retracted"].tolist()
    assert out == ["haze", "smoke", "", "", *["shifted"] * 4]
    # A second time, as after an interruption: nothing comes back.
    report = relabel_store(source, new)
    assert (report.already_done, report.release) == (8, 3)
    assert read_index(new, "blocks")["retracted"].tolist() == out
    # What was retracted from the source since is kept out as well.
    retract_from_store(source, {2022: [2]}, ["S2_2023"], "a second look")
    assert relabel_store(source, new).release == 4
    assert read_index(new, "blocks")["retracted"].tolist() == ["haze", "smoke", "a second look", "", *out[4:]]
    assert len(read_index(new, "samples-2022")) == 1
    scenes = read_index(new, "scenes").set_index("id")
    assert scenes.loc["S2_2023", "reason"] == "retracted: shifted"


def test_sums_of_another_block_are_neither_shared_nor_built_upon(source: Path, tmp_path: Path) -> None:
    new, table = tmp_path / "new", tmp_path / "corrected.csv"
    table.write_text("code,hcat3\nBTH,3301010101\nMIS,3301010401\nXYZ,3302000000\n")
    relabel_store(source, tmp_path / "whole", tables={"fr": table})
    changed, kept = (sums_of(source, tmp_path / "whole", same=same) for same in (False, True))
    (source / kept).write_bytes((source / changed).read_bytes())
    # Those that are shared are found in the new store, which can repair them by itself.
    with pytest.raises(StoreError, match=rf"{new}/{kept} is missing or damaged.*`h2crop migrate {new}`"):
        relabel_store(source, new, tables={"fr": table})
    assert (migrate_store(new).mended, migrate_store(new).release) == (1, 0)
    relabel_store(source, new, tables={"fr": table})
    assert read_index_json(new, "statistics") == read_index_json(tmp_path / "whole", "statistics")
    # Those that new ones are made of are found in the source.
    assert migrate_store(source).mended == 1
    (source / changed).write_bytes((source / kept).read_bytes())
    with pytest.raises(StoreError, match=rf"{source}/{changed} is missing or damaged.*`h2crop migrate {source}`"):
        relabel_store(source, tmp_path / "newer", tables={"fr": table})
    assert migrate_store(source).mended == 1
    assert relabel_store(source, tmp_path / "newer", tables={"fr": table}).release == 1


def sums_of(one: Path, other: Path, *, same: bool) -> str:
    """A file of sums that is, or is not, the same in two stores."""
    names = [str(path.relative_to(one)) for path in sorted(one.glob(".build/*/*.sums"))]
    return next(name for name in names if ((one / name).read_bytes() == (other / name).read_bytes()) == same)


def test_a_store_without_labels_or_plans_cannot_be_relabelled(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("one", "2022-07-01T10:50:00Z")
    build_store(region.recipe(), tmp_path / "store", workers=1)
    with pytest.raises(PlanError, match="has no labels"):
        relabel_store(tmp_path / "store", tmp_path / "new")
    assert not (tmp_path / "new/zarr.json").exists()
