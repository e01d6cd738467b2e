"""Searching STAC APIs on this machine: a real one, and one that misbehaves."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely
from stac_api import stac_api
from urllib3.util.retry import Retry

from h2crop_data.catalog.search import MOST_EMPTY_PAGES, PAGE_SIZE, RETRIES, find_items
from h2crop_data.errors import CatalogError

START = datetime(2022, 6, 1, tzinfo=UTC)
END = datetime(2022, 7, 1, tzinfo=UTC)
AREA = shapely.box(5.2, 50.2, 5.3, 50.3)
COLLECTION = "sentinel-2-l2a"
QUICK = Retry(total=3, backoff_factor=0.01, status_forcelist=RETRIES.status_forcelist, allowed_methods=None)


def item_json(number: int, *, collection: str = COLLECTION, west: float = 5, time: datetime | None = None) -> Any:
    """An item; those of even number lie in the window of time unless a time is given."""
    moment = time or START + timedelta(hours=number % 700, days=0 if number % 2 == 0 else 60)
    box = (west, 50.0, west + 1, 51.0)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"scene-{collection}-{number:04d}",
        "collection": collection,
        "geometry": json.loads(shapely.to_geojson(shapely.box(*box))),
        "bbox": list(box),
        "properties": {"datetime": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "eo:cloud_cover": number % 100 + 0.5},
        "links": [],
        "assets": {"blue": {"href": f"https://data.invalid/{number}/blue.tif", "raster:bands": [{"offset": -0.1}]}},
    }


@pytest.fixture(scope="module")
def item_collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items inside and outside area, time and collection; more that match than one page holds."""
    features = [
        *(item_json(number) for number in range(2 * PAGE_SIZE + 80)),
        *(item_json(number, west=5.31) for number in range(1000, 1020)),
        *(item_json(number, west=-80) for number in range(2000, 2020)),
        *(item_json(number, collection="sentinel-2-l1c") for number in range(3000, 3020)),
        item_json(4000, time=START - timedelta(seconds=1)),
        item_json(4001, time=START),
        item_json(4002, time=END - timedelta(seconds=1)),
        item_json(4003, time=END),
    ]
    path = tmp_path_factory.mktemp("catalog") / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="module")
def real_api(item_collection: Path) -> Iterator[str]:
    """The same items behind rustac, a STAC API of its own."""
    with stac_api(item_collection) as url:
        yield url


def found(source: str | Path, retries: Retry = QUICK) -> list[pystac.Item]:
    """The items of the search all tests make."""
    return find_items(str(source), COLLECTION, AREA, START, END, retries=retries).items


def content(item: pystac.Item) -> dict[str, Any]:
    """What the builder uses of an item."""
    return {
        "id": item.id,
        "collection": item.collection_id,
        "geometry": item.geometry,
        "properties": item.properties,
        "assets": {key: asset.to_dict() for key, asset in item.assets.items()},
    }


class TestRealApi:
    def test_it_finds_what_the_local_file_holds(self, real_api: str, item_collection: Path) -> None:
        remote, local = found(real_api), found(item_collection)
        assert len(local) == PAGE_SIZE + 40 + 2, "the items that match need more than one page"
        assert [content(item) for item in remote] == [content(item) for item in local]

    def test_an_unknown_collection_holds_nothing(self, real_api: str) -> None:
        assert find_items(real_api, "no-such-collection", AREA, START, END, retries=QUICK).items == []


class FakeApi:
    """A STAC API that gives its items page by page, whatever it is asked, after the failures set for it."""

    def __init__(self) -> None:
        self.items: list[Any] = [item_json(number) for number in range(0, 20, 2)]
        #: What goes wrong with the next requests to a path, first to last: a status, or a body sent as 200.
        self.failures: dict[str, list[int | str]] = {}
        self.page_size = 100
        #: (method, path, JSON body) of each request.
        self.requests: list[tuple[str, str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: Any) -> None:
                api.requests.append((self.command, self.path, body))
                planned = api.failures.get(self.path)
                failure = planned.pop(0) if planned else None
                text = failure if isinstance(failure, str) else json.dumps(api.document(self.path, body))
                self.send_response(failure if isinstance(failure, int) else 200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Tests run quietly."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def document(self, path: str, body: Any) -> Any:
        """The right answer to a request."""
        if path == "/v1":
            return {
                "type": "Catalog",
                "id": "fake",
                "stac_version": "1.0.0",
                "description": "a catalog of this test",
                "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
                "links": [
                    {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"}
                ],
            }
        first = int((body or {}).get("token", 0))
        last = first + self.page_size
        further = {
            "rel": "next",
            "href": f"{self.url}/search",
            "method": "POST",
            "body": {"token": str(last)},
            "merge": True,
        }
        return {
            "type": "FeatureCollection",
            "features": self.items[first:last],
            "links": [further] if last < len(self.items) else [],
        }


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A running API of this test."""
    fake = FakeApi()
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.server.shutdown()
    thread.join()
    fake.server.server_close()


def ids(items: list[pystac.Item]) -> list[str]:
    """Their ids."""
    return [item.id for item in items]


PAGE = "<!doctype html><html><body>Please sign in</body></html>"


class TestMisbehavingApi:
    def test_the_search_names_collection_area_and_time(self, api: FakeApi) -> None:
        found(api.url)
        ((_, _, body),) = [request for request in api.requests if request[0] == "POST"]
        assert body["collections"] == [COLLECTION]
        assert shapely.equals(shapely.geometry.shape(body["intersects"]), AREA)
        assert body["datetime"].startswith("2022-06-01T00:00:00Z/2022-07-01T00:00:00Z")
        assert body["limit"] == PAGE_SIZE <= 500

    @pytest.mark.parametrize("path", ["/v1", "/v1/search"])
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_failing_twice_is_no_failure(self, api: FakeApi, path: str, status: int) -> None:
        api.failures[path] = [status, status]
        assert ids(found(api.url)) == [item["id"] for item in api.items]
        assert len([request for request in api.requests if request[1] == path]) == 3

    def test_a_page_in_between_that_fails_is_asked_for_again(self, api: FakeApi) -> None:
        api.page_size = 3
        api.failures["/v1/search"] = []
        expected = [item["id"] for item in api.items]
        assert ids(found(api.url)) == expected
        calls = len(api.requests)
        assert calls == 1 + 4
        document = api.document

        def failing_once(path: str, body: Any) -> Any:
            if body and body.get("token") == "3" and not api.failures["/v1/search"]:
                api.failures["/v1/search"] = [503]
            return document(path, body)

        api.document = failing_once  # type: ignore[method-assign]
        assert ids(found(api.url)) == expected
        assert len(api.requests) == calls + 1 + 4 + 1

    @pytest.mark.parametrize("path", ["/v1", "/v1/search"])
    def test_failing_for_ever_is_an_error_that_names_the_catalog(self, api: FakeApi, path: str) -> None:
        api.failures[path] = [502] * 100
        with pytest.raises(CatalogError, match=rf"{api.url} does not answer.*502"):
            found(api.url)
        assert len([request for request in api.requests if request[1] == path]) == 1 + QUICK.total

    @pytest.mark.parametrize("path", ["/v1", "/v1/search"])
    @pytest.mark.parametrize(
        "text", [PAGE, "[]", "null", '"text"', '{"type": "FeatureCollection", "features": [{"id": 1}]}']
    )
    def test_something_else_than_stac_is_an_error_that_names_the_catalog(
        self, api: FakeApi, path: str, text: str
    ) -> None:
        api.failures[path] = [text]
        with pytest.raises(CatalogError, match=rf"{api.url} did not answer as a STAC API"):
            found(api.url)

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    def test_a_refusal_is_told_at_once(self, api: FakeApi, status: int) -> None:
        api.failures["/v1/search"] = [status] * 100
        with pytest.raises(CatalogError, match=rf"{api.url} refused the search for {COLLECTION} \(HTTP {status}\)"):
            found(api.url)
        assert len(api.requests) == 2

    def test_nobody_at_the_address_is_an_error_that_names_it(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
            with pytest.raises(CatalogError, match=rf"{url} does not answer"):
                found(url)

    def test_what_a_server_gives_beyond_the_question_is_left_out(self, api: FakeApi) -> None:
        """Servers ignore filters: time, area and collection are tested again, and an item given twice counts once."""
        api.page_size = 4
        api.items = [
            item_json(1, time=END),
            item_json(2, time=START),
            item_json(3, time=START - timedelta(seconds=1)),
            item_json(4, west=30),
            item_json(6, collection="sentinel-2-l1c"),
            item_json(2, time=START),
            item_json(0, time=END - timedelta(seconds=1)),
        ]
        assert ids(found(api.url)) == [f"scene-{COLLECTION}-0000", f"scene-{COLLECTION}-0002"]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_by_default_passing_failures_of_searches_are_tried_again(method: str, status: int) -> None:
    assert RETRIES.is_retry(method, status)
    assert RETRIES.total >= 3
    assert RETRIES.backoff_factor > 0


class TestPages:
    """What a search promises is compared with what it gives."""

    @pytest.fixture
    def promising(self, api: FakeApi) -> FakeApi:
        """An API of three pages of one item each that says how many items match."""
        api.items = [item_json(number) for number in (2, 4, 6)]
        api.page_size = 1
        document = api.document

        def with_count(path: str, body: Any) -> Any:
            page = document(path, body)
            return page | ({"numberMatched": 3} if "features" in page else {})

        api.document = with_count  # type: ignore[method-assign]
        return api

    def change_pages(self, api: FakeApi, change: Any) -> None:
        """Have a function change every page of a search, by the token that was asked for."""
        document = api.document

        def changed(path: str, body: Any) -> Any:
            page = document(path, body)
            return change(page, (body or {}).get("token", "0")) if "features" in page else page

        api.document = changed  # type: ignore[method-assign]

    def test_all_that_is_promised_is_found(self, promising: FakeApi) -> None:
        assert ids(found(promising.url)) == [item["id"] for item in promising.items]

    @pytest.mark.parametrize(
        "promise",
        [
            {},
            {"numberMatched": "3"},
            {"numberMatched": 3.0},
            {"numberMatched": None, "context": {"matched": 3}},
            {"numberMatched": None, "context": {"matched": "3"}},
        ],
    )
    def test_fewer_items_than_promised_are_an_error(self, promising: FakeApi, promise: dict[str, Any]) -> None:
        self.change_pages(promising, lambda page, token: page | {"links": []} | promise)
        with pytest.raises(
            CatalogError, match=r"states that 3 items of sentinel-2-l2a match the search, but returned 1"
        ):
            found(promising.url)

    @pytest.mark.parametrize("promise", [{"numberMatched": 0}, {"numberMatched": None}, {"numberMatched": "many"}])
    def test_an_empty_last_page_does_not_take_the_promise_back(
        self, promising: FakeApi, promise: dict[str, Any]
    ) -> None:
        def ended(page: Any, token: str) -> Any:
            return page if token == "0" else page | {"features": [], "links": []} | promise

        self.change_pages(promising, ended)
        with pytest.raises(CatalogError, match=r"states that 3 items .* returned 1"):
            found(promising.url)

    def test_an_item_given_twice_in_the_place_of_another_is_an_error(self, promising: FakeApi) -> None:
        """Servers without a stable order give some items on two pages and others on none."""
        promising.page_size = 2

        def shifted(page: Any, token: str) -> Any:
            return page | ({"features": [promising.items[1]] * 2} if token == "2" else {})

        promising.items.append(item_json(8))
        self.change_pages(promising, lambda page, token: shifted(page, token) | {"numberMatched": 4})
        with pytest.raises(CatalogError, match=r"a second time|states that 4 items .* returned 2"):
            found(promising.url)

    def test_a_catalog_that_grows_meanwhile_is_no_error(self, promising: FakeApi) -> None:
        self.change_pages(promising, lambda page, token: page | {"numberMatched": 3 + int(token)})
        assert len(found(promising.url)) == 3

    def test_an_empty_page_does_not_end_a_search(self, promising: FakeApi) -> None:
        promising.items.insert(1, None)
        self.change_pages(promising, lambda page, token: page | {"features": [one for one in page["features"] if one]})
        assert len(found(promising.url)) == 3

    def test_a_link_behind_all_that_was_promised_is_not_followed_for_ever(self, promising: FakeApi) -> None:
        self.change_pages(promising, lambda page, token: page | {"links": link_to(promising, str(int(token) + 1))})
        assert len(found(promising.url)) == 3
        assert len(promising.requests) <= 1 + 3 + MOST_EMPTY_PAGES

    def test_items_after_an_empty_page_count_though_the_promise_is_met(self, promising: FakeApi) -> None:
        """The number may be an estimate."""
        promising.items.insert(2, None)
        self.change_pages(
            promising,
            lambda page, token: page | {"features": [one for one in page["features"] if one], "numberMatched": 2},
        )
        assert len(found(promising.url)) == 3

    def test_an_item_that_a_catalog_has_twice_is_noted(self, promising: FakeApi) -> None:
        """It counts it twice too."""
        promising.page_size = 2
        promising.items.insert(2, promising.items[1])
        self.change_pages(promising, lambda page, token: page | {"numberMatched": 4})
        result = find_items(promising.url, COLLECTION, AREA, START, END, retries=QUICK)
        assert ids(result.items) == [item_json(number)["id"] for number in (2, 4, 6)]
        (note,) = result.notes
        assert "states that 4 items of sentinel-2-l2a match a search, but returned 3, 1 of them more than once" in note

    def test_one_that_comes_twice_in_only_one_of_two_searches_is_an_error(self, promising: FakeApi) -> None:
        promising.page_size = 2
        promising.items.append(item_json(8))
        shown = iter([item_json(4), item_json(2)])

        def shifted(page: Any, token: str) -> Any:
            return page | ({"features": [next(shown), item_json(6)]} if token == "2" else {}) | {"numberMatched": 4}

        self.change_pages(promising, shifted)
        with pytest.raises(CatalogError, match=r"states that 4 items .* returned 3: some are missing"):
            found(promising.url)

    def test_a_damaged_item_is_listed_and_counts(self, promising: FakeApi) -> None:
        promising.items[1]["properties"]["datetime"] = "garbage"
        result = find_items(promising.url, COLLECTION, AREA, START, END, retries=QUICK)
        assert ids(result.items) == [item_json(number)["id"] for number in (2, 6)]
        ((item, reason),) = result.refused
        assert item.id == item_json(4)["id"]
        assert "in `datetime`, got 'garbage'" in reason
        assert result.notes == []

    def test_a_link_may_be_relative(self, promising: FakeApi) -> None:
        self.change_pages(
            promising,
            lambda page, token: page | {"links": [link | {"href": "/v1/search"} for link in page["links"]]},
        )
        assert len(found(promising.url)) == 3

    def test_empty_pages_without_end_end_in_an_error(self, promising: FakeApi) -> None:
        def endless(page: Any, token: str) -> Any:
            return page | {"features": [], "links": link_to(promising, str(int(token) + 1))}

        self.change_pages(promising, endless)
        with pytest.raises(CatalogError, match="pages without items"):
            found(promising.url)
        assert len(promising.requests) < 40

    @pytest.mark.parametrize("change", ["nothing", "signature", "time"])
    def test_a_page_that_comes_again_ends_the_search_with_an_error(self, promising: FakeApi, change: str) -> None:
        """Also where the same items are signed anew, or say that they changed."""

        def again(page: Any, token: str) -> Any:
            first = item_json(2)
            if change == "signature":
                first["assets"]["blue"]["href"] += f"?signature={len(promising.requests)}"
            if change == "time":
                first["properties"]["updated"] = f"2023-01-01T00:00:{len(promising.requests):02}Z"
            links = link_to(promising, "1") if len(promising.requests) < 20 else []
            return page | {"features": [first], "links": links}

        self.change_pages(promising, again)
        with pytest.raises(CatalogError, match="a page of the search a second time"):
            found(promising.url)
        assert len(promising.requests) < 10


def link_to(api: FakeApi, token: str) -> list[Any]:
    """A link to a page."""
    return [{"rel": "next", "href": f"{api.url}/search", "method": "POST", "body": {"token": token}, "merge": True}]
