"""The crop taxonomy: the published classes, the tables of the countries, and tables that are refused."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2crop_data.errors import ParcelError
from h2crop_data.parcels.taxonomy import (
    Taxonomy,
    clean_code,
    hcat3_codes,
    load_crop_table,
    lost_zeros,
    several_codes,
    taxonomy_folder,
    tier_table,
    unmapped,
)
from h2crop_data.recipe.model import CropTable

COUNTRIES = sorted(path.stem for path in (taxonomy_folder() / "countries").glob("*.csv"))
HEADER = "tier,id,hcat3_prefix,name\n"


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table, read without the code under test."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    """The taxonomy that comes with h2crop."""
    return Taxonomy.load()


@pytest.fixture(scope="module")
def hcat3() -> set[str]:
    """Every code of HCAT3."""
    return {row["hcat3"] for row in rows_of(taxonomy_folder() / "hcat3.csv")}


def hcat3_table(tmp_path: Path, content: str | bytes) -> CropTable:
    """A crop table of a user's own with the given content."""
    path = tmp_path / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CropTable(path=str(path), code_column="Code", hcat3_column="HCAT3")


# The published classes


def test_the_published_dataset_has_6_36_82_and_101_classes(taxonomy: Taxonomy) -> None:
    assert [len(tier) for tier in taxonomy.classes] == [6, 36, 82, 101]
    assert taxonomy.version == "1"


def test_each_tier_numbers_its_classes_from_1_without_a_gap(taxonomy: Taxonomy) -> None:
    for tier, classes in enumerate(taxonomy.classes, start=1):
        assert sorted(number for number, _ in classes.values()) == list(range(1, len(classes) + 1))
        assert list(taxonomy.names(tier)) == list(range(1, len(classes) + 1))
        assert all(taxonomy.names(tier).values())


def test_a_class_of_a_tier_stands_for_4_6_8_or_10_digits_and_lies_in_a_class_of_the_tier_above(
    taxonomy: Taxonomy,
) -> None:
    for tier, digits in enumerate((4, 6, 8, 10)):
        assert all(len(prefix) == digits and prefix.isdigit() for prefix in taxonomy.classes[tier])
        if tier:
            assert {prefix[:-2] for prefix in taxonomy.classes[tier]} == set(taxonomy.classes[tier - 1])


def test_70_of_the_101_codes_of_the_last_tier_end_in_00(taxonomy: Taxonomy) -> None:
    assert sum(code.endswith("00") for code in taxonomy.classes[3]) == 70


@pytest.mark.parametrize(
    ("code", "ids"),
    [
        ("3301029800", (4, 9, 255, 255)),
        ("3301010400", (4, 2, 4, 255)),  # barley of unknown season
        ("3302000000", (1, 30, 36, 2)),  # grassland
        ("3301290900", (4, 16, 27, 63)),
        ("", (255, 255, 255, 255)),
        ("9999999999", (255, 255, 255, 255)),
    ],
)
def test_classes_of_published_codes(taxonomy: Taxonomy, code: str, ids: tuple[int, ...]) -> None:
    assert taxonomy.ids(code) == ids


def test_a_code_that_is_a_class_has_a_class_in_every_tier(taxonomy: Taxonomy) -> None:
    for code, (number, _) in taxonomy.classes[3].items():
        ids = taxonomy.ids(code)
        assert ids[3] == number
        assert 255 not in ids


def test_what_is_unknown_at_a_tier_is_unknown_at_every_finer_one(taxonomy: Taxonomy, hcat3: set[str]) -> None:
    for code in hcat3:
        known = [number != 255 for number in taxonomy.ids(code)]
        assert known == sorted(known, reverse=True)


def test_hcat3_has_384_codes_and_every_class_but_one_is_one_of_them(taxonomy: Taxonomy, hcat3: set[str]) -> None:
    assert len(hcat3) == 384
    assert all(len(code) == 10 and code.isdigit() for code in hcat3)
    # Jerusalem artichoke: the French table of EuroCrops has a code for it, HCAT3 does not list it.
    assert set(taxonomy.classes[3]) - hcat3 == {"3301290900"}


def test_names_are_those_of_the_table(taxonomy: Taxonomy) -> None:
    rows = rows_of(taxonomy_folder() / "tiers.csv")
    assert len(rows) == 6 + 36 + 82 + 101
    for row in rows:
        assert taxonomy.names(int(row["tier"]))[int(row["id"])] == row["name"].strip()
    assert taxonomy.names(1)[1] == "pasture_meadow_grassland_grass"


def test_no_class_is_0_or_255_which_mean_not_declared_and_unknown(taxonomy: Taxonomy) -> None:
    assert all(not {0, 255} & set(taxonomy.names(tier)) for tier in (1, 2, 3, 4))


@given(st.lists(st.sampled_from(["3301029800", "3301010400", "3302000000", "", "3301"]), max_size=30))
@settings(deadline=None, max_examples=30)
def test_a_table_of_many_codes_is_the_classes_of_each(codes: list[str]) -> None:
    taxonomy = Taxonomy.load()
    table = tier_table(pd.Series(codes, dtype="str"), taxonomy)
    assert table.dtype == np.uint8
    assert table.shape == (len(codes), 4)
    assert [tuple(row) for row in table.tolist()] == [taxonomy.ids(code) for code in codes]


# The tables of the countries


@pytest.mark.parametrize("country", COUNTRIES)
def test_every_country_maps_each_code_once_to_ten_digits_or_nothing(country: str, hcat3: set[str]) -> None:
    path = taxonomy_folder() / "countries" / f"{country}.csv"
    rows = rows_of(path)
    codes = load_crop_table(None, country)
    assert max(Counter(row["code"] for row in rows).values()) == 1
    assert {row["code"]: row["hcat3"] for row in rows} == codes
    assert len(codes) > 100
    assert all(code == code.strip() != "" for code in codes)
    # The French table points to one code that HCAT3 does not list; taxonomy/README.md says so.
    assert set(codes.values()) - hcat3 - {""} == ({"3301290900"} if country == "fr" else set())
    assert load_crop_table(country, "xx") == codes


def test_france_austria_and_slovenia_are_there() -> None:
    assert {"fr", "at", "si"} <= set(COUNTRIES)


@pytest.mark.parametrize(
    ("country", "code", "hcat3"),
    [
        ("fr", "BTH", "3301010101"),  # winter soft wheat
        ("fr", "MIS", "3301010600"),  # maize
        ("fr", "TOP", "3301290900"),  # Jerusalem artichoke, in all four tiers
        ("at", "105", "3301010600"),
        ("si", "001", "3301010102"),
    ],
)
def test_codes_everybody_knows(country: str, code: str, hcat3: str) -> None:
    assert load_crop_table(None, country)[code] == hcat3


def test_an_unknown_table_names_those_there_are() -> None:
    with pytest.raises(ParcelError, match="no crop table 'xx'") as raised:
        load_crop_table(None, "xx")
    assert all(country in str(raised.value) for country in COUNTRIES)
    with pytest.raises(ParcelError, match="no crop table 'france'"):
        load_crop_table("france", "fr")


# Tables of users


def test_a_table_of_ones_own_has_columns_of_ones_own(tmp_path: Path) -> None:
    table = hcat3_table(tmp_path, "name,Code,HCAT3\nwheat, 105 ,3301010100\nfallow,007,\nnothing,,3301010100\n")
    assert load_crop_table(table, "xx") == {"105": "3301010100", "007": ""}
    assert load_crop_table(table, "xx", tmp_path / "mine.csv") == {"105": "3301010100", "007": ""}


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffCode,HCAT3,name\n1,3301010100,blé\n2,3302000000,x\n".encode(),  # as Excel writes it
        "Code,HCAT3,name\r\n1,3301010100,blé\r\n2,3302000000,x\r\n".encode("latin-1"),
        b"Code,HCAT3,name\n1,3301010100,wheat\x85 soft\n2,3302000000,x\n",  # an ellipsis in Windows' Latin-1
        b'Code,HCAT3,name\n1,3301010100,"two\nlines"\n2,3302000000,x\n',
        b"Code,HCAT3,name\n1,3301010100,x\n2,3302000000\n",
        b"Code,HCAT3\n\n1,3301010100\n1,3301010100\n2,3302000000\n",
    ],
)
def test_tables_are_read_as_they_come(tmp_path: Path, content: bytes) -> None:
    assert load_crop_table(hcat3_table(tmp_path, content), "xx") == {"1": "3301010100", "2": "3302000000"}


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ("Code,HCAT3\n1,3301010100\n2,3302000000\n1,3302000000\n", 4, "code 1 has two meanings"),
        ("Code,HCAT3\n1,3301010100\n 1 ,\n", 3, "code 1 has two meanings"),
        ("Code,HCAT3\n1,330101010\n", 2, "expected a ten-digit HCAT3 code, got '330101010'"),
        ("Code,HCAT3\n1,33010101001\n", 2, "expected a ten-digit"),
        ("Code,HCAT3\n1,33-1010100\n", 2, "expected a ten-digit"),
        ('Code,HCAT3,name\n1,3302000000,"a\nb"\n2,wheat,x\n', 4, "expected a ten-digit HCAT3 code, got 'wheat'"),
    ],
)
def test_a_damaged_table_is_refused_with_file_and_line(tmp_path: Path, content: str, line: int, says: str) -> None:
    with pytest.raises(ParcelError, match=says) as raised:
        load_crop_table(hcat3_table(tmp_path, content), "xx")
    assert f"{tmp_path / 'mine.csv'}:{line}: " in str(raised.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [("Code,name\n1,x\n", "no column HCAT3; it has Code, name"), ("", "no column Code, HCAT3; it has no columns")],
)
def test_a_table_without_its_columns_is_refused_and_names_those_it_has(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(ParcelError, match=says) as raised:
        load_crop_table(hcat3_table(tmp_path, content), "xx")
    assert str(tmp_path / "mine.csv") in str(raised.value)


def test_a_missing_table_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ParcelError, match=r"cannot read the table .*none\.csv"):
        load_crop_table(CropTable(path=str(tmp_path / "none.csv")), "xx")


# Damaged classes


def folder_with(tmp_path: Path, content: str, version: str | None = "7\n") -> Path:
    """A taxonomy folder with the given classes."""
    (tmp_path / "tiers.csv").write_text(content, encoding="utf-8")
    if version is not None:
        (tmp_path / "VERSION").write_text(version, encoding="utf-8")
    return tmp_path


def test_classes_come_from_the_folder_given(tmp_path: Path) -> None:
    small = Taxonomy.load(folder_with(tmp_path, HEADER + "1,3,3301,arable\n4,254,3301010100,wheat\n"))
    assert small.version == "7"
    assert small.ids("3301010100") == (3, 255, 255, 254)
    assert small.names(4) == {254: "wheat"}


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("1,1,3301,a\n1,1,3302,b\n", 3),  # twice an id
        ("1,1,3301,a\n1,2,3301,b\n", 3),  # twice a code
        ("1,1,3301,a\n5,1,3302,b\n", 3),
        ("0,1,3301,a\n", 2),
        ("1,0,3301,a\n", 2),  # 0 is background
        ("1,255,3301,a\n", 2),  # 255 is unknown
        ("1,-1,3301,a\n", 2),
        ("1,one,3301,a\n", 2),
        ("1,,3301,a\n", 2),
        ("x,1,3301,a\n", 2),
        ("2,1,3301,a\n", 2),  # digits of another tier
        ("1,1,33a1,a\n", 2),
        ("1,1\n", 2),
    ],
)
def test_damaged_classes_are_refused_with_file_and_line(tmp_path: Path, rows: str, line: int) -> None:
    with pytest.raises(ParcelError) as raised:
        Taxonomy.load(folder_with(tmp_path, HEADER + rows))
    assert f"{tmp_path / 'tiers.csv'}:{line}: " in str(raised.value)


def test_classes_without_their_columns_or_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParcelError, match=r"tiers\.csv: no column hcat3_prefix; it has tier, id, name"):
        Taxonomy.load(folder_with(tmp_path, "tier,id,name\n1,1,a\n"))
    (tmp_path / "VERSION").unlink()
    with pytest.raises(ParcelError, match="VERSION"):
        Taxonomy.load(folder_with(tmp_path, HEADER + "1,1,3301,a\n", version=None))


def test_the_hash_knows_version_ids_and_names(tmp_path: Path) -> None:
    versions = []
    for content, version in (
        (HEADER + "1,1,3301,a\n1,2,3302,b\n", "1"),
        (HEADER + "1,2,3302,b\n1,1,3301,a\n", "1"),
        (HEADER + "1,1,3301,a\n1,2,3302,b\n", "2"),
        (HEADER + "1,2,3301,a\n1,1,3302,b\n", "1"),
        (HEADER + "1,1,3301,a\n1,2,3302,c\n", "1"),
    ):
        versions.append(Taxonomy.load(folder_with(tmp_path, content, version)).hash)
    assert versions[0] == versions[1]  # the order of the rows means nothing
    assert len(set(versions)) == 4


def test_the_copy_of_a_folder_is_the_same_taxonomy(tmp_path: Path, taxonomy: Taxonomy) -> None:
    shutil.copytree(taxonomy_folder(), tmp_path / "copy")
    assert Taxonomy.load(tmp_path / "copy") == taxonomy


# Codes as they come from files


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("BTH", "BTH"),
        (" BTH ", "BTH"),
        ("007", "007"),
        ("", ""),
        ("  ", ""),
        (105, "105"),
        (105.0, "105"),
        (np.float64(105), "105"),
        (np.float32(105), "105"),
        (np.int32(105), "105"),
        (10.5, "10.5"),
        (0, "0"),
        (None, ""),
        (float("nan"), ""),
        (np.float32("nan"), ""),
        (pd.NA, ""),
    ],
)
def test_codes_are_text_without_spaces_and_point_zero(value: object, code: str) -> None:
    assert clean_code(value) == code


def test_a_code_of_several_crops_names_them_and_has_no_meaning() -> None:
    both = several_codes({"MIS", "BTH"})
    assert both == several_codes(["BTH", "MIS"]) == "BTH ≠ MIS"
    codes = pd.Series(["BTH", both, "QQQ", "", "BTA"], dtype="str")
    table = {"BTH": "3301010101", "BTA": "", both: "3302000000"}
    assert hcat3_codes(codes, table).tolist() == ["3301010101", "", "", "", ""]
    assert unmapped(codes, table).tolist() == [False, False, True, True, False]


def test_codes_that_lost_or_gained_zeros_are_found_in_a_table() -> None:
    table = dict.fromkeys(("0110", "20", "000", "X", "A0"), "")
    codes = ["110", "00110", "020", "0110", "0", "", "0X", "A", "A00", "7"]
    assert lost_zeros(codes, table) == {"110": "0110", "00110": "0110", "020": "20", "0": "000", "0X": "X"}
