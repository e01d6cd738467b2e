"""The record of what was retracted: whole, or refused with its file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from h2crop_data.cube.release_numbers import SEALING, interrupted_sealing
from h2crop_data.cube.retraction import RETRACTED, Retractions
from h2crop_data.errors import StoreError
from h2crop_data.storage.local import LocalStorage

KEPT = Retractions({2022: {3: "haze", 12: "never built: no scene"}}, {"S2A": "clouds"})


@pytest.fixture
def files(tmp_path: Path) -> LocalStorage:
    """A store with a record."""
    storage = LocalStorage(tmp_path)
    KEPT.write(storage)
    return storage


def test_a_record_reads_as_it_was_written_and_as_earlier_versions_wrote_it(files: LocalStorage, tmp_path: Path) -> None:
    assert Retractions.read(files) == KEPT
    path = tmp_path / RETRACTED
    document = json.loads(path.read_text())
    del document["checksum"]
    path.write_text(json.dumps(document))
    assert Retractions.read(files) == KEPT
    path.unlink()
    assert Retractions.read(files) == Retractions()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"blocks": {}},
        {"blocks": [], "scenes": {}},
        {"blocks": {"2022": {"three": "haze"}}, "scenes": {}},
        {"blocks": {"2022": {"3": 7}}, "scenes": {}},
        {"blocks": {"2022": {"3": ""}}, "scenes": {}},
        {"blocks": {"2022": ["3"]}, "scenes": {}},
        {"blocks": {}, "scenes": [1]},
        {"blocks": {}, "scenes": {}, "more": 1},
    ],
)
def test_another_record_is_refused_with_its_file(files: LocalStorage, tmp_path: Path, content: Any) -> None:
    (tmp_path / RETRACTED).write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"retracted\.json is damaged .*restore it from a backup"):
        Retractions.read(files)


def test_every_flipped_bit_of_it_is_noticed(files: LocalStorage, tmp_path: Path) -> None:
    path = tmp_path / RETRACTED
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        with contextlib.suppress(StoreError):
            assert Retractions.read(files) == KEPT


@pytest.mark.parametrize("content", [[], {}, {"release": "x", "after": 1}, {"release": None, "after": 1}, 7, "{"])
def test_a_damaged_note_of_a_sealing_is_refused_with_its_file(tmp_path: Path, content: Any) -> None:
    path = tmp_path / SEALING
    path.parent.mkdir()
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(StoreError, match=r"sealing\.json is damaged"):
        interrupted_sealing(LocalStorage(tmp_path), 1)
