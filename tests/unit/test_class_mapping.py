"""A user's own classes: which class each pixel gets, and mapping files that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from h2crop_data.crops.files import taxonomy_folder
from h2crop_data.crops.mapping import ClassMapping, mapped_labels
from h2crop_data.crops.taxonomy import Taxonomy, taxonomy_versions
from h2crop_data.errors import ParcelError

SHIPPED = sorted(path.stem for path in (taxonomy_folder() / "mappings").glob("*.csv"))
WHEAT_AND_MAIZE = "hcat3,id,name\n3301010101,7,winter wheat\n33010101,8,other wheat\n33010106,9,maize\n3301,20,other\n"


def mapping_of(tmp_path: Path, text: str) -> ClassMapping:
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
    return ClassMapping.load(tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("prefix", "number"),
    [
        ("3301010101", 7),
        ("3301010102", 8),
        ("33010101", 255),  # winter wheat or another one
        ("3301010100", 255),  # wheat of unknown season
        ("3301010600", 9),
        ("3301010699", 9),
        ("33010106", 9),
        ("3301030000", 20),
        ("330101", 255),
        ("3301", 255),
        ("3302000000", 255),  # no row
        ("33", 255),
    ],
)
def test_the_longest_digits_count_and_what_finer_ones_would_decide_is_unknown(
    tmp_path: Path, prefix: str, number: int
) -> None:
    assert mapping_of(tmp_path, WHEAT_AND_MAIZE).of_prefix(prefix) == number


def test_the_row_without_digits_is_for_every_other_crop(tmp_path: Path) -> None:
    mapping = mapping_of(tmp_path, WHEAT_AND_MAIZE + ",30,everything else\n")
    assert mapping.of_prefix("3302000000") == 30
    assert mapping.of_prefix("3301030000") == 20
    assert mapping.of_prefix("3301") == 255


def test_pairs_of_zeros_at_the_end_of_a_mapping_say_nothing(tmp_path: Path) -> None:
    mapping = mapping_of(tmp_path, "hcat3,id,name\n3302000000,3,grass\n3301290700,4,sugar beet\n3301000000,5,other\n")
    assert [mapping.of_prefix(prefix) for prefix in ("3302000000", "3302", "3301290700", "33012907", "3301030000")] == [
        *(3, 3, 4, 4, 5)
    ]
    assert mapping.of_prefix("330129") == 255
    with pytest.raises(ParcelError, match="3302 is there twice"):
        mapping_of(tmp_path, "hcat3,id,name\n3302000000,3,grass\n3302,4,meadow\n")


def test_each_pixel_has_the_class_of_its_finest_tier(tmp_path: Path) -> None:
    taxonomy = Taxonomy.load("1")
    ids = [taxonomy.ids(code) for code in ("3301010101", "3301010400", "3301010600", "3302000000", "3301000000")]
    labels = np.array([*ids, (0, 0, 0, 0), (255, 255, 255, 255)], np.uint8).T
    tables = mapping_of(tmp_path, WHEAT_AND_MAIZE).tables(taxonomy)
    # Barley of unknown season is no wheat and no maize at tier 3; arable crops could be any.
    expected = [7, 20, 9, 255, 255, 0, 255]
    assert mapped_labels(labels, tables).tolist() == expected
    assert mapped_labels(labels[:, None, :], tables).tolist() == [expected]
    assert mapped_labels(labels.T[None], tables, axis=-1).tolist() == [expected]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hcat3,id,name\n", "has no rows"),
        ("hcat3,id\n3301,1\n", "no column name"),
        ("hcat3,id,name\n330,1,a\n", "expected leading digits"),
        ("hcat3,id,name\n1234,1,a\n", "expected leading digits"),
        ("hcat3,id,name\n3301,0,a\n", "an id of 1..255"),
        ("hcat3,id,name\n3301,256,a\n", "an id of 1..255"),
        ("hcat3,id,name\n3301,x,a\n", "an id of 1..255"),
        ("hcat3,id,name\n3301,1,\n", "and a name"),
        ("hcat3,id,name\n3301,1,a\n3302,1,b\n", "id 1 has two names, a and b"),
        ("hcat3,id,name\n3310101001,1,a\n", "no code of HCAT3 begins with 3310101001"),
        ("hcat3,id,name\n3301,255,a\n", "255 is unknown; give the class a another id"),
        ("hcat3,id,name\n3301,1,a\n3301,2,b\n", "3301 is there twice"),
    ],
)
def test_an_invalid_mapping_is_refused_with_its_file(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ParcelError, match=says) as raised:
        mapping_of(tmp_path, text)
    assert str(tmp_path / "mine.csv") in str(raised.value)


def test_an_unknown_mapping_names_those_there_are() -> None:
    with pytest.raises(ParcelError, match="no mapping 'mine' \\(known: cdl, worldcereal\\)"):
        ClassMapping.load("mine")


@pytest.mark.parametrize("version", taxonomy_versions())
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_mappings_say_what_crops_everybody_knows_are(name: str, version: str) -> None:
    mapping, taxonomy = ClassMapping.load(name), Taxonomy.load(version)
    codes = {
        "winter wheat": "3301010101",
        "wheat": "3301010100",
        "spring barley": "3301010402",
        "grain maize": "3301010600",
        "silage maize": "3301090400",
        "grassland": "3302000000",
        "vines": "3303060000",
        "arable crops": "3301000000",
    }
    labels = np.array([taxonomy.ids(code) for code in codes.values()], np.uint8).T
    found = dict(zip(codes, mapped_labels(labels, mapping.tables(taxonomy)).tolist(), strict=True))
    names = {crop: mapping.classes.get(number, "") for crop, number in found.items()}
    expected = {
        "cdl": ["winter_wheat", "unknown", "barley", "corn", "corn", "grassland_pasture", "grapes", "unknown"],
        "worldcereal": [
            *("winter_cereals", "unknown", "spring_cereals", "maize", "maize"),
            *("grassland", "permanent_crops", "unknown"),
        ],
    }[name]
    assert list(names.values()) == expected
