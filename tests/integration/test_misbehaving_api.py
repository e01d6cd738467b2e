"""A STAC API that misbehaves in the middle of a search: asked again where it helps, then an error; never a hole."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely
from misbehaving_api import FAULTS, MisbehavingApi, misbehaving_api, send, status
from stac_items import item_json
from tiny_region import TinyRegion
from urllib3.util.retry import Retry

from h2crop_data.catalog.api_reader import RETRIES, ApiReader, seconds_asked
from h2crop_data.catalog.search import find_items
from h2crop_data.errors import CatalogError
from h2crop_data.pipeline.plan import load_plans, plan_files, save_plan
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.pipeline.source_facts import explain_sources, source_facts

AREA = shapely.box(5.2, 50.2, 5.3, 50.3)
SPAN = (datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 7, 1, tzinfo=UTC))
TRIES = 3
QUICK = Retry(
    total=TRIES - 1,
    backoff_factor=0.01,
    status_forcelist=RETRIES.status_forcelist,
    allowed_methods=None,
    retry_after_max=10,
)
IDS = [f"scene-{number}" for number in range(8)]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingApi]:
    """Eight items that match in three pages, and one that does not; whoever asks is patient for a second and a half."""
    monkeypatch.setenv("H2CROP_READ_TIMEOUT", "0.3")
    with misbehaving_api([*map(item_json, IDS), item_json("far", box=(70, 50, 71, 51))]) as running:
        yield running


def found(api: MisbehavingApi, retries: Retry = QUICK, sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """The ids that a search finds."""
    return [item.id for item in find_items(api.url, "sentinel-2-l2a", AREA, *SPAN, retries=retries, sleep=sleep).items]


def test_a_healthy_one_gives_every_page_once(api: MisbehavingApi) -> None:
    assert found(api) == IDS
    assert api.asked == ["0", "3", "6"]


@pytest.mark.parametrize("page", ["0", "3", "6"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_asked_for_again(api: MisbehavingApi, fault: str, page: str) -> None:
    api.faults[page] = [FAULTS[fault]]
    assert found(api) == IDS
    assert sorted(api.asked) == sorted(["0", "3", "6", page])


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"429, come back at a date", "429, come back in seconds"}))
def test_what_stays_is_an_error_that_names_the_catalog(api: MisbehavingApi, fault: str) -> None:
    api.faults["3"] = [FAULTS[fault]] * 50
    with pytest.raises(CatalogError, match=f"{api.url} does not answer.*tried {TRIES} times"):
        found(api)
    assert api.asked == ["0", *["3"] * TRIES]


def test_a_page_in_html_is_an_error_at_once(api: MisbehavingApi) -> None:
    api.faults["3"] = [lambda handler, page: send(handler, b"<!doctype html><html>Please sign in</html>")]
    with pytest.raises(CatalogError, match=f"{api.url} did not answer as a STAC API"):
        found(api)
    assert api.asked == ["0", "3"]


class TestPauses:
    def test_a_server_that_says_when_to_come_back_is_obeyed(self, api: MisbehavingApi) -> None:
        pauses: list[float] = []
        api.faults["3"] = [status(429, Retry_After="7"), status(503, Retry_After="2")]
        assert found(api, sleep=pauses.append) == IDS
        assert pauses == [7, 2]

    def test_also_where_it_gives_a_date(self, api: MisbehavingApi) -> None:
        pauses: list[float] = []
        api.faults["3"] = [FAULTS["429, come back at a date"]]
        assert found(api, sleep=pauses.append) == IDS
        (pause,) = pauses
        # Dates have whole seconds.
        assert 0.5 < pause <= 2

    @pytest.mark.parametrize("page", ["0", "6"])
    def test_one_that_wants_to_be_left_alone_for_long_is_an_error(self, api: MisbehavingApi, page: str) -> None:
        pauses: list[float] = []
        api.faults[page] = [status(429, Retry_After="86400")] * 9
        with pytest.raises(CatalogError, match=f"{api.url} does not answer: HTTP 429, try again in 86400 seconds"):
            found(api, sleep=pauses.append)
        assert pauses == []
        assert api.asked.count(page) == 1

    def test_else_pauses_grow_and_differ(self, api: MisbehavingApi) -> None:
        pauses: list[float] = []
        api.faults["3"] = [status(503)] * 4
        retries = QUICK.new(total=4, backoff_factor=1)
        assert found(api, retries, pauses.append) == IDS
        for pause, middle in zip(pauses, (1, 2, 4, 8), strict=True):
            assert middle / 2 <= pause <= middle * 1.5
        random.seed(1)
        reader = ApiReader()
        same = [reader.pause_after(2) for _ in range(100)]
        assert len(set(same)) == 100
        assert max(reader.pause_after(60) for _ in range(100)) <= 1.5 * RETRIES.backoff_max

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [(None, None), ("3", 3), (" 12 ", 12), ("soon", None), ("", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
    )
    def test_what_is_asked_for(self, text: str | None, seconds: float | None) -> None:
        assert seconds_asked(text) == seconds


class TestPromises:
    def test_a_search_that_lost_items_is_made_again(self, api: MisbehavingApi) -> None:
        """A catalog that is written to loses its place between two pages."""

        def lost_once(page: dict[str, Any], token: str) -> dict[str, Any]:
            return page | {"links": []} if token == "3" and api.asked.count("3") == 1 else page

        api.change = lost_once
        assert found(api) == IDS
        assert api.asked == ["0", "3", "0", "3", "6"]

    def test_one_that_loses_them_again_is_an_error(self, api: MisbehavingApi) -> None:
        api.change = lambda page, token: page | {"links": []}
        with pytest.raises(CatalogError, match=r"states that 8 items .*, but returned 3: some are missing"):
            found(api)
        assert api.asked == ["0", "0"]

    def test_more_items_than_promised_are_a_note(self, api: MisbehavingApi) -> None:
        """The number may be an estimate."""
        api.change = lambda page, token: page | {"numberMatched": 5}
        result = find_items(api.url, "sentinel-2-l2a", AREA, *SPAN, retries=QUICK)
        assert [item.id for item in result.items] == IDS
        assert result.notes == [f"{api.url} states that 5 items of sentinel-2-l2a match a search, but returned 8"]


def test_a_plan_from_a_server_that_misbehaves_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is strange about the catalog stands in the plan."""
    monkeypatch.setenv("H2CROP_READ_TIMEOUT", "0.5")
    monkeypatch.setattr(ApiReader, "pause_after", lambda reader, attempt: 0.01)
    region = TinyRegion(tmp_path)
    for number in range(5):
        region.add_sentinel2(f"scene-{number}", f"2022-0{number + 3}-05T10:50:31Z")
    region.recipe()
    for item in region.sentinel2:
        for asset in item["assets"].values():
            asset["href"] = str((tmp_path / asset["href"]).resolve())
    with misbehaving_api(region.sentinel2, page_size=2) as api:
        recipe = region.recipe(sentinel2={"catalog": api.url})
        healthy = plan_files(make_plan(recipe, 2022))
        for name in ("closed early", "reset in the body", "500", "wrong length"):
            api.faults = {page: [FAULTS[name]] for page in ("0", "2", "4")}
            assert plan_files(make_plan(recipe, 2022)) == healthy
            assert not any(api.faults.values())
        api.change = lambda page, token: page | {"numberMatched": 4}
        (note,) = make_plan(recipe, 2022).pinned["sentinel2"].notes
        assert "states that 4 items of sentinel-2-l2a match a search, but returned 5" in note


def test_what_is_strange_about_the_catalog_of_enmap_stands_in_the_plan_too(tmp_path: Path) -> None:
    """And it is kept with it, and told with the other warnings."""
    region = TinyRegion(tmp_path)
    for tile in (1, 2, 3):
        region.add_enmap(tile, datatake=1866 + tile)
    region.recipe()
    for item in region.enmap:
        for asset in item["assets"].values():
            asset["href"] = str((tmp_path / asset["href"]).resolve())
    with misbehaving_api(region.enmap) as api:
        api.change = lambda page, token: page | {"numberMatched": 2}
        plan = make_plan(region.recipe(enmap={"catalog": api.url}), 2022)
    note = f"{api.url} states that 2 items of ENMAP_HSI_L2A match a search, but returned 3"
    assert source_facts(plan)["warnings"] == [note]
    save_plan(plan, tmp_path / "plan")
    (kept,) = load_plans(tmp_path / "plan")
    assert source_facts(kept)["warnings"] == [note]
    assert explain_sources(source_facts(kept)) == [f"warning: {note}"]
