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

from h2crop_data.crops.codes import clean_code, code_with_use, normal_code, several_codes
from h2crop_data.crops.files import taxonomy_folder
from h2crop_data.crops.tables import CropCodes, load_crop_table
from h2crop_data.crops.taxonomy import Taxonomy, tier_table
from h2crop_data.errors import ParcelError
from h2crop_data.recipe.model import CropTable

COUNTRIES = sorted(path.stem for path in (taxonomy_folder() / "countries/version-1").glob("*.csv"))
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
    return {row["hcat3"] for row in rows_of(taxonomy_folder() / "hcat/hcat3.csv") if row["listed"] == "yes"}


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
    rows = [row for row in rows_of(taxonomy_folder() / "tiers.csv") if row["since"] == "1"]
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
    path = taxonomy_folder() / "countries/version-1" / f"{country}.csv"
    rows = rows_of(path)
    codes = load_crop_table(None, country).meanings
    assert max(Counter(row["code"] for row in rows).values()) == 1
    assert {row["code"]: row["hcat3"] for row in rows} == codes
    assert len(codes) > 100
    assert all(code == code.strip() != "" for code in codes)
    # The French table points to one code that HCAT3 does not list; taxonomy/README.md says so.
    assert set(codes.values()) - hcat3 - {""} == ({"3301290900"} if country == "fr" else set())
    assert load_crop_table(country, "xx").meanings == codes


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
    assert load_crop_table(None, country).meanings[code] == hcat3


def test_an_unknown_table_names_those_there_are() -> None:
    with pytest.raises(ParcelError, match="no crop table 'xx'") as raised:
        load_crop_table(None, "xx")
    assert all(country in str(raised.value) for country in COUNTRIES)
    with pytest.raises(ParcelError, match="no crop table 'france'"):
        load_crop_table("france", "fr")


# Tables of users


def test_a_table_of_ones_own_has_columns_of_ones_own(tmp_path: Path) -> None:
    table = hcat3_table(tmp_path, "name,Code,HCAT3\nwheat, 105 ,3301010100\nfallow,007,\nnothing,,3301010100\n")
    assert load_crop_table(table, "xx").meanings == {"105": "3301010100", "007": ""}
    assert load_crop_table(table, "xx", tmp_path / "mine.csv").meanings == {"105": "3301010100", "007": ""}


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
    assert load_crop_table(hcat3_table(tmp_path, content), "xx").meanings == {"1": "3301010100", "2": "3302000000"}


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


def folder_with(tmp_path: Path, content: str, version: str = "7") -> Path:
    """A taxonomy folder with the given classes, all of one version."""
    header, *rows = content.splitlines()
    text = "\n".join([f"{header},since", *(f"{row},{version}" for row in rows)])
    (tmp_path / "tiers.csv").write_text(text, encoding="utf-8")
    (tmp_path / "versions.csv").write_text(f"version,sha256\n{version},\n", encoding="utf-8")
    return tmp_path


def test_classes_come_from_the_folder_given(tmp_path: Path) -> None:
    small = Taxonomy.load("7", folder_with(tmp_path, HEADER + "1,3,3301,arable\n4,254,3301010100,wheat\n"))
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
        Taxonomy.load("7", folder_with(tmp_path, HEADER + rows))
    assert f"{tmp_path / 'tiers.csv'}:{line}: " in str(raised.value)


def test_classes_without_their_columns_or_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParcelError, match=r"tiers\.csv: no column hcat3_prefix; it has tier, id, name, since"):
        Taxonomy.load("7", folder_with(tmp_path, "tier,id,name\n1,1,a\n"))
    (tmp_path / "versions.csv").unlink()
    with pytest.raises(ParcelError, match=r"versions\.csv"):
        Taxonomy.load("7", tmp_path)


def test_an_unknown_version_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ParcelError, match="unknown taxonomy version '8'; this h2crop has 7"):
        Taxonomy.load("8", folder_with(tmp_path, HEADER + "1,1,3301,a\n"))


def test_a_version_has_the_classes_of_those_before_it(tmp_path: Path) -> None:
    rows = "tier,id,hcat3_prefix,name,since\n1,1,3301,a,1\n1,2,3302,b,2\n1,3,3303,c,10\n"
    (tmp_path / "tiers.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "versions.csv").write_text("version\n1\n2\n10\n", encoding="utf-8")
    found = [Taxonomy.load(version, tmp_path).names(1) for version in ("1", "2", "10")]
    assert found == [{1: "a"}, {1: "a", 2: "b"}, {1: "a", 2: "b", 3: "c"}]


def test_the_hash_knows_version_ids_and_names(tmp_path: Path) -> None:
    versions = []
    for content, version in (
        (HEADER + "1,1,3301,a\n1,2,3302,b\n", "1"),
        (HEADER + "1,2,3302,b\n1,1,3301,a\n", "1"),
        (HEADER + "1,1,3301,a\n1,2,3302,b\n", "2"),
        (HEADER + "1,2,3301,a\n1,1,3302,b\n", "1"),
        (HEADER + "1,1,3301,a\n1,2,3302,c\n", "1"),
    ):
        versions.append(Taxonomy.load(version, folder_with(tmp_path, content, version)).hash)
    assert versions[0] == versions[1]  # the order of the rows means nothing
    assert len(set(versions)) == 4


def test_the_copy_of_a_folder_is_the_same_taxonomy(tmp_path: Path, taxonomy: Taxonomy) -> None:
    shutil.copytree(taxonomy_folder(), tmp_path / "copy")
    assert Taxonomy.load(folder=tmp_path / "copy") == taxonomy


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
    table = CropCodes({"BTH": "3301010101", "BTA": "", both: "3302000000"})
    assert table.hcat3(codes).tolist() == ["3301010101", "", "", "", ""]
    assert table.unmapped(codes).tolist() == [False, False, True, True, False]


def test_codes_that_lost_or_gained_zeros_are_found_in_a_table() -> None:
    table = CropCodes(dict.fromkeys(("0110", "20", "000", "X", "A0"), ""))
    codes = ["110", "00110", "020", "0110", "0", "", "0X", "A", "A00", "7"]
    assert table.near_misses(codes) == {"110": "0110", "00110": "0110", "020": "20", "0": "000", "0X": "X"}


@pytest.mark.parametrize(
    ("codes", "form"),
    [
        (["101", " 101 ", "0101", "101.0", "101.00", "\ufeff101", "\uff11\uff10\uff11", "101\u200b", "\t101\n"], "101"),
        (["000", "0", "0.0"], "0"),
        (["BTH", "bth", "B\u00adTH", "\u00a0Bth "], "bth"),
        (["Põldhein,  kõrs", "põldhein, kõrs", "Po\u0303ldhein, kõrs", "Põldhein,\nkõrs"], "põldhein, kõrs"),
        (["A01"], "a01"),
        (["1.5"], "1.5"),
        (["1.01"], "1.01"),
        (["²"], "2"),
    ],
)
def test_spellings_of_one_code_have_one_normal_form(codes: list[str], form: str) -> None:
    assert {normal_code(code) for code in codes} == {form}
    assert normal_code(form) == form


@given(st.text(max_size=12))
def test_the_normal_form_of_a_normal_form_is_itself(text: str) -> None:
    assert normal_code(normal_code(text)) == normal_code(text)


def test_tables_compare_codes_by_their_normal_form_and_version_1_as_they_are() -> None:
    spelt = pd.Series(["0101", "101.0", "bth ", "BTH"], dtype="str")
    meanings = {"101": "3301010101", "BTH": "3302000000"}
    exact, normal = CropCodes(meanings), CropCodes(meanings, normal_code)
    assert exact.hcat3(spelt).tolist() == ["", "", "", "3302000000"]
    assert normal.hcat3(spelt).tolist() == ["3301010101", "3301010101", "3302000000", "3302000000"]
    assert exact.near_misses(set(spelt)) == {"0101": "101", "101.0": "101", "bth ": "BTH"}
    assert not normal.unmapped(spelt).any()


def test_version_1_compares_other_countries_in_the_normal_form() -> None:
    codes = pd.Series(["003", "3", "6"], dtype="str")
    assert load_crop_table(None, "pt", version="1", year=2021).hcat3(codes).tolist() == [
        *("3301010300", "3301010300", "3301000000")
    ]
    # Its own tables as they are.
    assert load_crop_table(None, "at", version="1").unmapped(pd.Series(["0105", "105"], dtype="str")).tolist() == [
        *(True, False)
    ]


def test_names_in_the_place_of_codes_are_found_if_they_mean_one_crop(tmp_path: Path) -> None:
    rows = "code,hcat3,name\n1,3301010101,Weizen\n2,3302000000,Gras\n3,3301090100,Gras\nGerste,3302000000,Wiese\n"
    (tmp_path / "mine.csv").write_text(rows + "4,3301010401,Gerste\n", encoding="utf-8")
    own = CropTable(path=str(tmp_path / "mine.csv"))
    table = load_crop_table(own, "xx", version="2", year=2022)
    spelt = pd.Series(["weizen ", "Gras", "1", "Gerste", "Klee"], dtype="str")
    # Gerste is a code of its own.
    assert table.hcat3(spelt).tolist() == ["3301010101", "", "3301010101", "3302000000", ""]
    assert table.unmapped(spelt).tolist() == [False, True, False, False, True]
    assert load_crop_table(own, "xx", version="1").unmapped(spelt).tolist() == [True, True, False, False, True]
    # Portugal had names in its files of 2017 to 2019.
    names = pd.Series(["CENTEIO", "Batata"], dtype="str")
    assert load_crop_table(None, "pt", version="2", year=2018).hcat3(names).tolist() == ["3301010300", "3301030000"]


@pytest.mark.parametrize(
    ("code", "use", "text"),
    [
        *[
            ("3310106000", "6", "3310106000 6"),
            ("3310106000", "06", "3310106000 6"),
            ("3310106000", "11", "3310106000 11"),
        ],
        *[("3310106000", use, "3310106000") for use in ("0", "", "12", "x", "-1")],
        ("", "6", ""),
    ],
)
def test_a_use_is_a_part_of_the_code_only_if_it_is_one(code: str, use: str, text: str) -> None:
    assert code_with_use(code, use) == text


def test_near_misses_are_found_across_accents_and_punctuation() -> None:
    table = CropCodes({"Záhradný petržlen, iný": "3301061227"}, normal_code)
    assert table.near_misses(["Zahradny petrzlen iny", "petržlen"]) == {
        "Zahradny petrzlen iny": "Záhradný petržlen, iný"
    }


YEARS = (
    "code,hcat3,from,to\nMIS,3301010600,,2022\nMIS,3301000000,2023,\nJAC,3301110000,2023,\nOLD,3302000000,2015,2017\n"
)


def test_a_code_means_what_it_meant_in_its_year(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(YEARS, encoding="utf-8")
    table = CropTable(path=str(tmp_path / "mine.csv"))

    def meanings(year: int) -> dict[str, str]:
        return dict(load_crop_table(table, "xx", version="2", year=year).meanings)

    assert meanings(2015) == {"MIS": "3301010600", "OLD": "3302000000"}
    assert meanings(2017) == meanings(2015)
    assert meanings(2018) == {"MIS": "3301010600"}
    assert meanings(2022) == {"MIS": "3301010600"}
    assert meanings(2023) == {"MIS": "3301000000", "JAC": "3301110000"}
    with pytest.raises(ParcelError, match="code MIS has two meanings"):
        load_crop_table(table, "xx", version="2")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("MIS,3301010600,,2023\nMIS,3301000000,2023,\n", "code MIS has two meanings"),
        ("MIS,3301010600,,\nmis ,3301000000,2023,\n", "code mis has two meanings"),
        ("MIS,3301010600,2023,2022\n", "`from` 2023 is after `to` 2022"),
        ("MIS,3301010600,23,\n", "expected years"),
        ("MIS,3301010600,,soon\n", "expected years"),
    ],
)
def test_years_that_overlap_or_are_none_are_refused(tmp_path: Path, rows: str, says: str) -> None:
    (tmp_path / "mine.csv").write_text(f"code,hcat3,from,to\n{rows}", encoding="utf-8")
    with pytest.raises(ParcelError, match=says):
        load_crop_table(CropTable(path=str(tmp_path / "mine.csv")), "xx", version="2", year=2023)
