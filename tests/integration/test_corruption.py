"""Whatever happens to a file of a store, `h2crop validate` names it, and never falls over it.

A sample of places by default; `make corruption-sweep` damages sixty and gives each property a third as many examples
(H2CROP_CORRUPTIONS gives their number).
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from changed_stores import change_table, index_file, index_files, overwrite, root_of, sign, table_of, write_root
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_stores import checked_store
from table_files import table_bytes

from h2crop_data.errors import FormatVersionError
from h2crop_data.storage.storage import canonical_json
from h2crop_data.validation.validate import Validation, validate_store

PLACES = int(os.environ.get("H2CROP_CORRUPTIONS") or 20)
SOME = settings(
    max_examples=PLACES // 3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize="H2CROP_CORRUPTIONS" not in os.environ,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that tests copy."""
    return checked_store(tmp_path_factory.mktemp("corrupted"))


def fresh(made: Path, folder: Path) -> Path:
    """A copy that shares no byte with the store it is of."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(made, folder, copy_function=shutil.copyfile))


def files_of(store: Path) -> list[str]:
    """Every file of the release."""
    return sorted(
        str(path.relative_to(store)) for path in store.rglob("*") if path.is_file() and ".build" not in path.parts
    )


def flip_byte(store: Path, name: str, chance: random.Random) -> list[str]:
    data = bytearray((store / name).read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    overwrite(store / name, data)
    return [name]


def delete(store: Path, name: str, chance: random.Random) -> list[str]:
    (store / name).unlink()
    return [name]


def truncate(store: Path, name: str, chance: random.Random) -> list[str]:
    data = (store / name).read_bytes()
    overwrite(store / name, data[: chance.randrange(len(data))])
    return [name]


def swap(store: Path, name: str, chance: random.Random) -> list[str]:
    """Exchange it with another file that has other bytes."""
    data = (store / name).read_bytes()
    other = chance.choice([other for other in files_of(store) if (store / other).read_bytes() != data])
    overwrite(store / name, (store / other).read_bytes())
    overwrite(store / other, data)
    return [name, other]


WAYS: tuple[Callable[[Path, str, random.Random], list[str]], ...] = (flip_byte, delete, truncate, swap)


def assert_named(result: Validation, names: list[str], others: Collection[str] = ()) -> None:
    """Every file is named in an error, and no error blames any but these and the others."""
    told = [f"{one.check} {one.where}: {one.what}" for one in result.findings]
    errors = [one for one in result.findings if one.severity == "error"]
    for name in names:
        assert any(name in one.where.split(" and ") for one in errors), (names, told)
    for one in errors:
        assert any(name in one.where for name in (*names, *others)), (names, told)
        assert one.check != "unforeseen", told
        assert len(one.remedy) > 10


@pytest.mark.parametrize("place", range(PLACES))
def test_a_damaged_file_is_found_and_named(place: int, made: Path, tmp_path: Path) -> None:
    chance = random.Random(place)
    store = fresh(made, tmp_path / "store")
    names = WAYS[place % len(WAYS)](store, chance.choice(files_of(store)), chance)
    assert_named(validate_store(store, workers=1), names)


@pytest.mark.parametrize("name", ["zarr.json", "manifest", "root", "blocks", "samples-2022", "recipes", "classes"])
@pytest.mark.parametrize("way", WAYS)
def test_damage_to_what_everything_else_hangs_on_is_found_and_named(
    way: Callable[[Path, str, random.Random], list[str]], name: str, made: Path, tmp_path: Path
) -> None:
    store = fresh(made, tmp_path / "store")
    paths = root_of(store)["attributes"]["index"].get(name, name)
    # Of what consists of several files, the first.
    path = paths if isinstance(paths, str) else paths[0]
    names = way(store, path, random.Random(name))
    assert_named(validate_store(store, mode="quick", workers=1), [one for one in names if not is_shard(one)], names)
    assert_named(validate_store(store, workers=1), names)


def is_shard(name: str) -> bool:
    """Whether only reading its chunks shows every damage of a file."""
    return "/c." in name and len(Path(name).name.split(".")) > 2


# Nothing a file may hold makes it fall over


def assert_survives(store: Path, *, mode: str = "quick") -> Validation:
    result = validate_store(store, mode=mode, workers=1)  # type: ignore[arg-type]
    assert not [one for one in result.findings if one.check == "unforeseen"], result.findings
    json.dumps(result.as_json())
    return result


NUMBERS = st.one_of(st.integers(-3, 70), st.sampled_from([2**31, 2**63, 10**18]), st.floats())
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8), st.sampled_from(["2022", "../x", "1.1"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=5,
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document where something may be put in the place of something."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inside for place in places_in(one, (*path, key)))]


def put(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The document with another value in a place."""
    if not place:
        return value
    *above, last = place
    inner = document
    for key in above:
        inner = inner[key]
    inner[last] = value
    return document


@SOME
@given(data=st.data())
def test_no_root_makes_it_fall_over(data: st.DataObject, made: Path, tmp_path: Path) -> None:
    store = fresh(made, tmp_path / "store")
    root = root_of(store)
    place = data.draw(st.sampled_from(places_in({"attributes": root["attributes"]})))
    changed = put(root, place, data.draw(JSON))
    text = json.dumps(changed)
    (store / "zarr.json").write_text(text)
    if data.draw(st.booleans()):
        (store / "index/r1/root.json").write_text(text)
    try:
        result = assert_survives(store)
    except FormatVersionError:
        return
    # Free text is whatever it is.
    assert result.findings or place[1:2] in [("title",), ("software",)]


@SOME
@given(data=st.data())
def test_no_document_of_the_index_makes_it_fall_over(data: st.DataObject, made: Path, tmp_path: Path) -> None:
    store = fresh(made, tmp_path / "store")
    path = index_file(store, data.draw(st.sampled_from(["recipes", "classes", "statistics"])))
    document = json.loads(path.read_text())
    document = put(document, data.draw(st.sampled_from(places_in(document))), data.draw(JSON))
    path.write_text(json.dumps(document))
    sign(store)
    assert_survives(store, mode=data.draw(st.sampled_from(["quick", "full"])))


@SOME
@given(data=st.data())
def test_no_table_of_the_index_makes_it_fall_over(data: st.DataObject, made: Path, tmp_path: Path) -> None:
    store = fresh(made, tmp_path / "store")
    name = data.draw(st.sampled_from(["blocks", "samples-2022", "parcels-2022", "scenes", "squares"]))
    table = table_of(store, name)
    column = data.draw(st.sampled_from([column for column in table.columns if column not in ("geometry", "sha256")]))
    row = data.draw(st.integers(0, len(table) - 1))
    values = table[column].tolist()
    if isinstance(values[row], str):
        values[row] = data.draw(st.one_of(st.none(), st.text(max_size=9), st.sampled_from(values)))
    elif isinstance(values[row], bool | np.bool_):
        values[row] = not values[row]
    elif isinstance(values[row], int | float):
        numbers = st.integers(-3, 127) if isinstance(values[row], int) else st.floats()
        values[row] = data.draw(st.one_of(numbers, st.sampled_from(values)))
    elif isinstance(values[row], np.ndarray):
        values[row] = data.draw(st.one_of(st.none(), st.permutations(values[row].tolist()), st.just([])))
    else:
        values[row] = None
    ways = ["value", "no column", "no rows", "rows twice", "another order"]
    way = data.draw(st.sampled_from(ways))

    def change(table: Any) -> Any:
        if way == "value":
            return table.assign(**{column: pd.Series(values, index=table.index).astype(table[column].dtype)})
        if way == "no column":
            return table.drop(columns=column)
        rows = {"no rows": [], "rows twice": [*range(len(table))] * 2, "another order": [*range(len(table))][::-1]}
        return table.iloc[rows[way]].reset_index(drop=True)

    if name == "blocks" and (column == "files" or way in ("no column", "no rows")):
        return
    change_table(store, name, change)
    sign(store)
    assert_survives(store, mode=data.draw(st.sampled_from(["quick", "full"])))


@SOME
@given(data=st.data())
def test_no_bytes_make_it_fall_over(data: st.DataObject, made: Path, tmp_path: Path) -> None:
    """Bytes of any file, as if it had been written like this."""
    store = fresh(made, tmp_path / "store")
    name = data.draw(st.sampled_from([name for name in files_of(store) if not name.startswith(("index/r1/m", "zarr"))]))
    whole = (store / name).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 8)))
    overwrite(store / name, whole[:start] + data.draw(st.binary(max_size=8)) + whole[stop:])
    if name != "index/r1/root.json" and not name.startswith("index/r1/blocks-"):
        sign(store)
    assert_survives(store, mode="full")


def test_a_root_as_deep_as_it_gets_is_told(made: Path, tmp_path: Path) -> None:
    store = fresh(made, tmp_path / "store")
    (store / "zarr.json").write_text("[" * 100_000)
    assert_named(assert_survives(store), ["zarr.json"])


def test_paths_that_lead_out_of_the_store_are_not_followed(made: Path, tmp_path: Path) -> None:
    store = fresh(made, tmp_path / "store")
    (tmp_path / "secret.json").write_text("{}")
    root = root_of(store)
    root["attributes"]["index"]["classes"] = "../secret.json"
    write_root(store, root)
    assert "cannot lie in '../secret.json'" in assert_survives(store).findings[0].what
    store = fresh(made, tmp_path / "store")
    manifest = table_of(store, "manifest")
    extra = manifest.iloc[[0]].assign(path="../secret.json")
    path = index_files(store, "manifest")[-1]
    part = pd.concat([pd.read_parquet(path), extra]).sort_values("path", ignore_index=True)
    path.write_bytes(table_bytes(part, path.read_bytes()))
    assert canonical_json(root_of(store))
    result = assert_survives(store)
    assert not [one for one in result.findings if one.where == "../secret.json"]
