"""Parcels in several files by ground, whose rows have crop codes, and one table of the classes of codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from changed_stores import change_table, index_file, index_files, list_parcels_by_ground, root_of, sign
from made_stores import checked_store

import h2crop_data
from h2crop_data.constants import TIER_COLUMNS
from h2crop_data.cube.reading import read_index
from h2crop_data.errors import StoreError
from h2crop_data.maintenance.compare import compare_stores
from h2crop_data.report.summary import summarize
from h2crop_data.validation.validate import Validation, validate_store

SEASONS = (2021, 2022)
#: What a summary says of files, which are others.
OF_FILES = ("files", "bytes", "store")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one file of parcels a season; not to be changed."""
    return checked_store(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def listed(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store with several; not to be changed."""
    store = Path(shutil.copytree(plain, tmp_path_factory.mktemp("listed") / "store"))
    list_parcels_by_ground(store)
    return store


def problems(validation: Validation) -> list[tuple[str, str]]:
    """Check and text of each finding."""
    return [(finding.check, finding.what) for finding in validation.findings]


@pytest.mark.slow
def test_the_rows_are_those_of_one_file(plain: Path, listed: Path) -> None:
    for season in SEASONS:
        files = index_files(listed, f"parcels-{season}")
        assert len(files) == 2
        assert not {"hcat3", *TIER_COLUMNS} & set(pd.read_parquet(files[0]))
        pd.testing.assert_frame_equal(
            read_index(listed, f"parcels-{season}"), read_index(plain, f"parcels-{season}"), check_like=True
        )
    codes = read_index(listed, "codes-2022")
    assert not codes.duplicated(["country", "code"]).any()


@pytest.mark.slow
def test_nothing_that_reads_the_store_sees_a_difference(plain: Path, listed: Path) -> None:
    assert compare_stores(plain, listed).same
    of_plain, of_listed = (
        {name: value for name, value in summarize(store).items() if name not in OF_FILES} for store in (plain, listed)
    )
    assert of_plain == of_listed
    for season in SEASONS:
        assert h2crop_data.open(listed, season).equals(h2crop_data.open(plain, season))
    before, after = validate_store(plain), validate_store(listed)
    assert problems(before) == problems(after) == []
    assert after.not_checked == before.not_checked
    more = {name: after.checked[name] - before.checked[name] for name in after.checked}
    # In each season two files of parcels and one of codes, in place of one.
    assert {name: number for name, number in more.items() if number and name != "bytes"} == {
        "files": 4,
        "checksums": 4,
        "tables": 2,
    }


@pytest.mark.slow
def test_a_code_without_classes_is_reported(listed: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(listed, tmp_path / "store"))
    change_table(store, "codes-2022", lambda table: table[1:])
    sign(store)
    with pytest.raises(StoreError, match="cannot read parcels-2022: the table of codes lacks"):
        read_index(store, "parcels-2022")
    found = problems(validate_store(store, mode="quick"))
    assert [check for check, _ in found] == ["index"]
    assert "lacks codes of parcels-2022" in found[0][1]


@pytest.mark.slow
def test_a_code_with_two_classes_is_reported(listed: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(listed, tmp_path / "store"))
    change_table(store, "codes-2022", lambda table: pd.concat([table, table[:1]], ignore_index=True))
    sign(store)
    found = problems(validate_store(store, mode="quick"))
    assert [check for check, _ in found] == ["index"]
    assert "has codes more than once" in found[0][1]


@pytest.mark.slow
def test_lost_codes_leave_the_parcels_unchecked(listed: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(listed, tmp_path / "store"))
    index_file(store, "codes-2022").unlink()
    validation = validate_store(store, mode="quick")
    assert [check for check, _ in problems(validation)] == ["missing"]
    assert any("parcels-2022: codes-2022" in text for text in validation.not_checked)
    assert "parcels-2022" in root_of(store)["attributes"]["index"]
