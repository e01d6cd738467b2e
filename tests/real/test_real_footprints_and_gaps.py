"""Footprints and acquisitions of items as the real catalogs return them, and the gaps of a real series."""

from __future__ import annotations

import copy
import json
import re
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pystac
import pytest

from h2crop_data.catalog.acquisitions import acquisitions_listed, relative_orbit
from h2crop_data.catalog.expected_acquisitions import acquisition_series, by_month
from h2crop_data.catalog.footprints import place_item, shows_pixels, understood_footprint

CATALOGS = ("earth_search_v1", "planetary_computer", "cdse", "dlr_enmap_l2a")
NEW_YEAR_2018 = datetime(2018, 1, 1, tzinfo=UTC)


def recorded_items(path: Path) -> list[pystac.Item]:
    """The items of a recorded file."""
    return [pystac.Item.from_dict(one, migrate=False) for one in json.loads(path.read_text())["features"]]


@pytest.mark.parametrize("catalog", CATALOGS)
def test_recorded_footprints_are_believed_as_they_are(shared: Path, catalog: str) -> None:
    for item in recorded_items(shared / "stac" / f"{catalog}_items.json"):
        before = copy.deepcopy(item.geometry)
        assert place_item(item) == ""
        assert item.geometry == before
        if not catalog.startswith("dlr"):
            ground, _ = understood_footprint(item)
            assert shows_pixels(item, ground), "the tile or the grid that the item names is where its footprint is"


@pytest.mark.parametrize("catalog", [name for name in CATALOGS if not name.startswith("dlr")])
def test_recorded_items_tell_orbit_and_acquisition(shared: Path, catalog: str) -> None:
    items = recorded_items(shared / "stac" / f"{catalog}_items.json")
    for item in items:
        (told,) = acquisitions_listed([item])
        name = str(item.properties.get("s2:product_uri") or item.id)
        match = re.match(r"S(2[A-D])_MSIL\d[AC]_(\d{8}T\d{6})_(?:N\d{4}_)?.*R(\d{3})_T(\w{5})", name)
        assert match is not None
        assert (told.satellite, told.orbit, told.tile) == (match[1], int(match[3]), match[4])
        assert relative_orbit(item) == told.orbit
        assert told.moment == datetime.strptime(match[2], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def test_gaps_of_a_real_series(shared: Path) -> None:
    """118 dates over 31UDS: counted once more by nothing but days. Four series: two satellites, two orbits."""
    seen = acquisitions_listed(recorded_items(shared / "flanders_2018" / "items.json"))
    in_2018 = [one for one in seen if one.moment.year == 2018]
    found = acquisition_series(
        in_2018, [one for one in seen if one.moment.year != 2018], NEW_YEAR_2018, datetime(2019, 1, 1, tzinfo=UTC)
    )
    series: dict[int, set[date]] = defaultdict(set)
    for one in seen:
        series[one.moment.toordinal() % 10].add(one.moment.date())
    assert len(series) == len(found) == 4
    lost = []
    for days in series.values():
        step = min(days)
        while step <= max(days):
            if step not in days and step.year == 2018:
                lost.append(step)
            step += timedelta(days=10)
    assert sorted(moment.date() for one in found for moment in one.missing) == sorted(lost)
    assert sum(len(one.found) for one in found) == len(in_2018) == 91
    assert len(lost) == 40
    assert sum(by_month(moment for one in found for moment in one.missing)[2:4]) == 12
