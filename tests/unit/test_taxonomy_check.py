"""Checks of the taxonomy tables: those that come with h2crop have no problem, and each kind of damage is found."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from h2crop_data.crops.check import check_crop_table, check_taxonomy
from h2crop_data.crops.files import taxonomy_folder
from h2crop_data.crops.hcat import hcat3_names
from h2crop_data.crops.taxonomy import Taxonomy, taxonomy_versions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tables, to be damaged."""
    return Path(shutil.copytree(taxonomy_folder(), tmp_path / "taxonomy"))


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old, text.count(old))
    path.write_text(text.replace(old, new), encoding="utf-8")


def appended(path: Path, line: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")


def test_the_tables_of_h2crop_have_no_problem() -> None:
    assert check_taxonomy() == []


def test_version_1_is_the_published_one_byte_for_byte() -> None:
    taxonomy = Taxonomy.load("1")
    assert taxonomy.hash == "3d2f57511029faf76e4c02d48a4404d3a37b47dd6feb0d5002dde6550e78e2b1"
    assert [len(tier) for tier in taxonomy.classes] == [6, 36, 82, 101]
    digests = {
        "at": "38c1311c1bb9778f087804a294f5d8535a479401c2008a21bfd0c45116b4c1b4",
        "fr": "ab48a5e75aaf58d1f86ebac4d56fe831f53d604e9b0db9f95f9b95a22b955316",
        "si": "7ba5aa868a8714bb43eedf62f9a1672b87c4b9ac910cfcb3980fc0ee55d31432",
    }
    published = taxonomy_folder() / "countries/version-1"
    assert {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in published.glob("*.csv")} == digests


def test_version_2_does_not_change_either() -> None:
    taxonomy = Taxonomy.load("2")
    assert taxonomy.hash == "2a2bb4030dcb0f603db1e266f38ecf86742d661761d206419aa5d8f9532cd3f2"
    assert [len(tier) for tier in taxonomy.classes] == [7, 58, 161, 208]
    assert taxonomy.names(4)[taxonomy.ids("3301290700")[3]] == "sugar_beet"


def stated(code: str) -> str:
    """The pairs of digits of a code up to the last that is not 00."""
    pairs = [code[i : i + 2] for i in range(0, 10, 2)]
    return "".join(pairs[: max(i for i, pair in enumerate(pairs) if pair != "00") + 1])


def test_appended_classes_never_overlap_and_follow_in_the_order_of_hcat3() -> None:
    published, newer = Taxonomy.load("1").classes[3], Taxonomy.load("2").classes[3]
    appended = [code for code, _ in sorted(newer.items(), key=lambda one: one[1][0]) if code not in published]
    assert appended == sorted(appended)
    known = [code for code in hcat3_names() if code not in appended]
    for code in appended:
        assert not [other for other in known if other.startswith(stated(code))], code
        assert not [other for other in newer if other != code and code.startswith(stated(other))], code


def test_later_versions_keep_every_class_of_the_ones_before() -> None:
    versions = [Taxonomy.load(version) for version in taxonomy_versions()]
    for before, after in pairwise(versions):
        for old, new in zip(before.classes, after.classes, strict=True):
            assert old.items() <= new.items()
            assert len(old) < len(new) <= 254 or old == new


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a gap in the ids": (
        lambda folder: replaced(folder / "tiers.csv", "4,101,3301290500,parsnips,1", "4,254,3301290500,parsnips,1"),
        r"tier 4: ids must be 1\.\.101, missing \[101",
    ),
    "a class without one above": (
        lambda folder: appended(folder / "tiers.csv", f"3,254,33770101,made,{taxonomy_versions()[-1]}"),
        r"class 254 made \(33770101\) has no class in tier 2",
    ),
    "a renamed class": (
        lambda folder: replaced(folder / "tiers.csv", "4,101,3301290500,parsnips,1", "4,101,3301290500,parsnip,1"),
        "version 1 was published as 3d2f57.*a published version never changes",
    ),
    "a changed table of version 1": (
        lambda folder: replaced(folder / "countries/version-1/fr.csv", "BTH,3301010101", "BTH,3301010102"),
        r"countries/version-1/fr\.csv: it was published as ab48a5",
    ),
    "a lost table of version 1": (
        lambda folder: (folder / "countries/version-1/si.csv").unlink(),
        r"countries/version-1/si\.csv: .* and is missing",
    ),
    "an unlisted table": (
        lambda folder: shutil.copy(folder / "countries/nl.csv", folder / "countries/xx.csv") and None,
        r"countries\.csv: xx is not listed",
    ),
    "a country without its table": (
        lambda folder: (folder / "countries/nl.csv").unlink(),
        r"countries\.csv: nl is listed, but has no table",
    ),
    "a damaged table": (
        lambda folder: appended(folder / "countries/nl.csv", "99999,12345,,,x,x,source,"),
        r"nl\.csv:\d+: expected a ten-digit HCAT3 code, got '12345'",
    ),
    "no checksums": (
        lambda folder: (folder / "countries/version-1/SHA256SUMS").unlink(),
        "cannot read .*SHA256SUMS",
    ),
    "no list of versions": (
        lambda folder: (folder / "versions.csv").unlink(),
        r"cannot read the table .*versions\.csv",
    ),
    "a crosswalk to nowhere": (
        lambda folder: appended(folder / "hcat/hcat4.csv", "3399999999,7,3301019797,narrower,made,us,made"),
        "3301019797 is not a code of HCAT3",
    ),
    "a use without the code itself": (
        lambda folder: appended(folder / "hcat/hcat4.csv", "3399999999,7,3302000000,narrower,made,us,made"),
        "3399999999 7: no row without a use",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_found(folder: Path, damage: str) -> None:
    harm, says = DAMAGES[damage]
    harm(folder)
    problems = check_taxonomy(folder)
    assert any(re.search(says, problem) for problem in problems), problems


HEADER = "code,hcat3,from,to,name,english,decided,reason\n"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("1,3301010101,,,a,a,source,\n", None),
        ("1,,,,a,a,us,nobody knows\n", None),
        ("1,3310101001,,,a,a,source,\n", "3310101001 is a code of HCAT4"),
        ("1,3301010177,,,a,a,source,\n", "3301010177 is not a code of HCAT3"),
        ("1,3301010101,,,a,a,,\n", "expected source or us in `decided`, got ''"),
        ("1,3301010101,,,a,a,us,\n", "1 was decided by us, but has no reason"),
        ("1,3301010101,,2020,a,a,source,\n1,3302000000,2020,,a,a,source,\n", "code 1 has two meanings"),
        ("1,3301010101,,,a,a,source,\n01,3301010101,,,a,a,source,\n", "code 1 has 2 rows in the same years"),
        ("1,3301010101,,2019,a,a,source,\n1,3302000000,2020,,a,a,source,\n", None),
        ("1,3302000000,2015,2020,a,a,source,\n1,3302000000,2018,2022,a,a,source,\n", "code 1 has 2 rows in the same"),
    ],
)
def test_a_crop_table_is_checked_row_by_row(tmp_path: Path, rows: str, says: str | None) -> None:
    (tmp_path / "xx.csv").write_text(HEADER + rows, encoding="utf-8")
    problems = check_crop_table(tmp_path / "xx.csv")
    if says is None:
        assert problems == []
    else:
        assert len(problems) == 1
        assert says in problems[0]
        assert str(tmp_path / "xx.csv") in problems[0]
