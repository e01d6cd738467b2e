"""Lists of crop codes of others, brought into the form of h2crop's tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2crop_data.crops.check import check_crop_table
from h2crop_data.crops.hcat import agreed
from h2crop_data.crops.imports import ForeignColumns, import_table, table_text
from h2crop_data.errors import ParcelError

V1 = "original_code,original_name,translated_name,HCAT3_name,HCAT3_code\n"
V2 = "nuts,original_code,original_name,translated_name,hcat4_code,hcat4_name,usage_code,usage_name\n"


def list_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_of_eurocrops_v1(tmp_path: Path) -> None:
    rows, report = import_table(
        list_of(
            tmp_path,
            V1
            + "105,Körnermais,Grain maize,grain_maize_corn_popcorn,3301010600\n"
            + "106 ,Raps,Rape,rapeseed_rape,3301060400\n"
            + ",Klee,Clover,clover,3301090303\n"
            + ",,Nothing,clover,3301090303\n"
            + "107,Weizen,Wheat,winter_wheat,3310101001\n"
            + "108,Gras,Grass,pasture_meadow_grassland_grass,\n"
            + "109,Iris,Iris,iris,3301082200\n"
            + "105,Körnermais,Grain maize,grain_maize_corn_popcorn,3301010600\n",
        )
    )
    assert {row.code: row.hcat3 for row in rows} == {
        **{"105": "3301010600", "106": "3301060400", "107": "", "108": "", "109": "3301082200"},
        "Klee": "3301090303",
    }
    assert (report.read, report.kept, report.repeated) == (8, 6, 1)
    assert report.by_name == ["line 4: Klee"]
    assert report.unnamed == ["line 5: Nothing"]
    assert report.hcat4 == ["line 6: 107: 3310101001"]
    assert report.unmapped == ["line 6: 107: 3310101001", "line 7: 108: no HCAT3 code"]
    assert report.contradictions == ["line 8: 109: 3301082200 is goldenrod, the list says iris"]
    (tmp_path / "xx.csv").write_text(table_text(rows), encoding="utf-8")
    assert check_crop_table(tmp_path / "xx.csv") == []


def test_codes_with_several_meanings_go_to_the_tier_at_which_they_agree(tmp_path: Path) -> None:
    rows, report = import_table(
        list_of(tmp_path, V1 + "1,a,a,x,3301010101\n01,a,a,x,3301010102\n2,b,b,x,3301010101\n2,b,b,x,3302000000\n")
    )
    assert {row.code: row.hcat3 for row in rows} == {"1": "3301010100", "2": ""}
    assert report.two_meanings == ["line 2: 1: 3301010101, 3301010102", "line 4: 2: 3301010101, 3302000000"]
    assert all(row.reason for row in rows)


def test_a_list_of_eurocrops_v2_is_read_by_country_and_by_the_crosswalk(tmp_path: Path) -> None:
    path = list_of(
        tmp_path,
        V2
        + "at,105,KÖRNERMAIS,GRAIN CORN,3310106000,maize_corn_popcorn,6,Harvested as Grains\n"
        + "at,109,SILOMAIS,SILO CORN,3310106000,maize_corn_popcorn,3,Fodder/Forage\n"
        + "at,999,MAIS,CORN,3310106000,maize_corn_popcorn,0,No specified use\n"
        + "dk,5,Vinterhvede,Winter wheat,3310101001,winter_common_soft_wheat,0,No specified use\n"
        + "dk,6,Andet,Other,3398765432,none,0,No specified use\n",
    )
    rows, report = import_table(path, country="AT")
    assert {row.code: row.hcat3 for row in rows} == {"105": "3301010600", "109": "3301090400", "999": "3301000000"}
    assert report.read == 3
    rows, report = import_table(path, country="dk")
    assert {row.code: row.hcat3 for row in rows} == {"5": "3301010101", "6": ""}
    assert report.unmapped == ["line 6: 6: 3398765432"]
    with pytest.raises(ParcelError, match="no row of 'xx' with a crop code"):
        import_table(path, country="xx")


def test_any_list_whose_columns_are_named(tmp_path: Path) -> None:
    path = list_of(tmp_path, "Nummer,Frucht,Klasse\n7,Weizen,3301010100\n")
    with pytest.raises(ParcelError, match="name its columns; it has Frucht, Klasse, Nummer"):
        import_table(path)
    rows, _ = import_table(path, ForeignColumns(code="Nummer", name="Frucht", hcat3="Klasse"))
    assert [(row.code, row.hcat3, row.name) for row in rows] == [("7", "3301010100", "Weizen")]
    with pytest.raises(ParcelError, match="no column Kode; it has Nummer"):
        import_table(path, ForeignColumns(code="Kode", hcat3="Klasse"))


def test_years_and_reasons_are_kept(tmp_path: Path) -> None:
    path = list_of(
        tmp_path,
        "CODE,NAME,HCAT3,FROM,TO\n099,Flax,3301060700,,2019\n099,Buckwheat,3301150200,2020,\n1,Wheat,3301010101.0,,\n",
    )
    columns = ForeignColumns(code="CODE", name="NAME", hcat3="HCAT3", first="FROM", last="TO")
    rows, report = import_table(path, columns, reason="by the names of the crops")
    assert report.two_meanings == []
    table = tmp_path / "xx.csv"
    table.write_text(table_text(rows), encoding="utf-8")
    assert table.read_text(encoding="utf-8").splitlines()[1:] == [
        "099,3301060700,,2019,Flax,,us,by the names of the crops",
        "099,3301150200,2020,,Buckwheat,,us,by the names of the crops",
        "1,3301010101,,,Wheat,,us,by the names of the crops",
    ]
    assert check_crop_table(table) == []
    # A table of h2crop comes back as it is.
    again, _ = import_table(table)
    assert table_text(again) == table.read_text(encoding="utf-8")


def test_lists_with_semicolons_are_read_and_other_files_refused(tmp_path: Path) -> None:
    path = list_of(tmp_path, V1.replace(",", ";") + "1;Weizen, weich;Wheat;x;3301010101\n")
    assert [(row.code, row.name) for row in import_table(path)[0]] == [("1", "Weizen, weich")]
    path.write_bytes(b"SQLite format 3\0,\0\0")
    with pytest.raises(ParcelError, match=r"list\.csv is not a text file; expected a CSV"):
        import_table(path)
    path = list_of(tmp_path, "CODE,NAME\n1,Wheat\n2,Barley\n")
    with pytest.raises(ParcelError, match="no row has a code of HCAT in the column NAME"):
        import_table(path, ForeignColumns(code="CODE", hcat3="NAME"))


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ({"3301010101"}, "3301010101"),
        ({"3301010101", "3301010102"}, "3301010100"),
        ({"3301010101", "3301010201"}, "3301010000"),
        ({"3301010101", "3301090400"}, "3301000000"),
        ({"3301010101", "3302000000"}, ""),
        ({"3301010101", ""}, ""),
        ({""}, ""),
        (set(), ""),
    ],
)
def test_codes_agree_on_the_finest_tier_they_share(codes: set[str], code: str) -> None:
    assert agreed(codes) == code
