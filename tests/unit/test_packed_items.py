"""Items that stay packed until somebody asks."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from unittest.mock import patch

import pystac
import pytest

from h2crop_data.catalog.packed_items import PackedItems


def item_named(name: str) -> pystac.Item:
    return pystac.Item(name, None, None, datetime(2022, 7, 1, tzinfo=UTC), {"eo:cloud_cover": 3})


def test_items_come_out_as_they_went_in() -> None:
    given = {name: item_named(name) for name in ("a", "b")}
    came = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(PackedItems(given)))))
    assert list(came) == ["a", "b"]
    assert len(came) == 2
    assert {name: item.to_dict() for name, item in came.items()} == {
        name: item.to_dict() for name, item in given.items()
    }
    with pytest.raises(KeyError):
        came["c"]


def test_they_are_packed_once_and_unpacked_when_asked_for() -> None:
    packed = PackedItems({"a": item_named("a")})
    with patch.object(pystac.Item, "__getstate__", autospec=True, side_effect=pystac.Item.__getstate__) as written:
        first, second = pickle.dumps(packed), pickle.dumps(packed)
    assert first == second
    assert written.call_count == 1
    with patch.object(pystac.Item, "__setstate__", autospec=True, side_effect=pystac.Item.__setstate__) as read:
        came = pickle.loads(first)
        assert pickle.dumps(came) == first
        assert read.call_count == 0
        assert came["a"].id == "a"
        assert came["a"].properties["eo:cloud_cover"] == 3
        assert read.call_count == 1
