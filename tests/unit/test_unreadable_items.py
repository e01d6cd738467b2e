"""Files that could not be read are tried again: each that cannot be opened once, the others over each place."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pystac
import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from h2crop_data.errors import AccountError, ReadError
from h2crop_data.sources import scenes
from h2crop_data.sources.scenes import unreadable_items

PLACES = [shapely.box(place, 50, place + 1, 51) for place in range(20)]


def scene(name: str) -> pystac.Item:
    """An item of one file, called as the item is."""
    item = pystac.Item(name, None, None, datetime(2022, 6, 1, tzinfo=UTC), {})
    item.add_asset("scl", pystac.Asset(name))
    return item


class Archive:
    """Files that answer by their name; the calls are noted."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, BaseGeometry | None]] = []
        self.together = threading.Barrier(2, timeout=20)

    def try_file(self, href: str, place: BaseGeometry | None) -> None:
        self.calls.append((href, place))
        if href == "lost" or (href == "cut" and place == PLACES[3]):
            raise ReadError(f"cannot read {href}")
        if href == "closed":
            raise AccountError("an account is needed")
        if href.startswith("pair"):
            self.together.wait()


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Archive:
    made = Archive()
    monkeypatch.setattr(scenes, "try_file", made.try_file)
    return made


def test_what_cannot_be_opened_is_tried_once(archive: Archive) -> None:
    items, told = [scene("lost"), scene("cut")], []
    found = unreadable_items([(items, place) for place in PLACES], lambda *call: told.append(call))
    assert [of_place["lost"] for of_place in found] == ["cannot read lost"] * 20
    assert [of_place["cut"] for of_place in found] == ["cannot read cut" if n == 3 else "" for n in range(20)]
    assert [place for href, place in archive.calls if href == "lost"] == [None]
    assert sum(href == "cut" for href, _ in archive.calls) == 21
    assert [(done, total) for done, total, _ in told] == [(1, 2), (2, 2), *((done, 20) for done in range(1, 21))]


def test_files_are_tried_at_the_same_time(archive: Archive) -> None:
    """Neither is answered before the other is asked for."""
    found = unreadable_items([([scene("pair1")], PLACES[0]), ([scene("pair2")], PLACES[1])])
    assert found == [{"pair1": ""}, {"pair2": ""}]


def test_a_missing_account_is_an_error_and_no_lost_scene(archive: Archive) -> None:
    with pytest.raises(AccountError):
        unreadable_items([([scene("closed")], PLACES[0])])
