"""Each provider against the items its catalog gave (`tests/providers`), and against its page of the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pystac
import pytest

from h2crop_data.catalog.acquisitions import datatake_start, satellite, strip_start
from h2crop_data.catalog.footprints import footprint
from h2crop_data.catalog.item_facts import (
    asset_of_band,
    baseline,
    datastrip_asset,
    enmap_scene,
    offset_evidence,
    sentinel2_tile,
)
from h2crop_data.catalog.items import item_epsg
from h2crop_data.catalog.provider import FilePlace, Provider
from h2crop_data.catalog.provider_check import small_file
from h2crop_data.catalog.registry import files_at, known_providers
from h2crop_data.constants import SENTINEL2_BANDS

ROOT = Path(__file__).resolve().parents[2]
#: Collections of which no item was recorded.
UNRECORDED = {("copernicus", "sentinel-2-l1c")}
PROVIDERS = list(known_providers().values())


def recorded(provider: Provider) -> list[pystac.Item]:
    """An item of each collection."""
    document = json.loads((ROOT / "tests" / "providers" / f"{provider.name}.json").read_text(encoding="utf-8"))
    return [pystac.Item.from_dict(feature, migrate=False) for feature in document["features"]]


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
class TestEachProvider:
    def test_its_items_are_understood(self, provider: Provider) -> None:
        items = {item.collection_id: item for item in recorded(provider)}
        offered = {collection.name: collection for collection in provider.collections}
        assert {(provider.name, name) for name in offered.keys() - items.keys()} <= UNRECORDED
        for name, item in items.items():
            collection = offered[name]
            assert footprint(item).area > 0
            if collection.sensor == "enmap":
                assert enmap_scene(item).quality in (0, 1, 2)
                continue
            assert re.fullmatch(r"0\d\.\d\d", baseline(item) or "")
            assert re.fullmatch(r"\d\d[C-X][A-Z]{2}", sentinel2_tile(item))
            assert re.fullmatch(r"2[A-D]", satellite(item))
            assert re.fullmatch(r"32[67]\d\d", str(item_epsg(item)))
            assert datatake_start(item) is not None
            assert strip_start(item) is not None
            bands = [*SENTINEL2_BANDS, *(["SCL"] if collection.level == "L2A" else ["B10"])]
            own = {band: [key for key in provider.band_assets[band] if key in item.assets] for band in bands}
            assert {band: asset_of_band(item, band) for band in bands} == {band: keys[0] for band, keys in own.items()}
            assert datastrip_asset(item) == (provider.datastrip_asset or None)
            jpeg2000 = offset_evidence(item, bands).jpeg2000
            assert jpeg2000 == (frozenset(bands) if collection.files == "JPEG 2000" else frozenset())

    def test_its_files_are_found_where_it_says(self, provider: Provider) -> None:
        for item in recorded(provider):
            assert small_file(provider, item) is not None
            for asset in item.assets.values():
                found = files_at(asset.href)
                assert found is not None, asset.href
                assert found[0] is provider

    def test_its_page_says_what_the_registry_says(self, provider: Provider) -> None:
        page = (ROOT / "docs" / "providers" / f"{provider.name}.md").read_text(encoding="utf-8")
        overview = (ROOT / "docs" / "catalogs.md").read_text(encoding="utf-8")
        assert provider.api in page
        assert f"providers/{provider.name}.md" in overview
        for collection in provider.collections:
            assert f"`{collection.name}`" in page
            if collection.sensor == "sentinel2":
                row = rf"\| `{provider.name}` \| `{collection.name}` \| {collection.level} \| {collection.files} \| "
                assert re.search(row + re.escape(collection.offset), overview), collection.name
        for place in provider.files:
            assert place.netrc is None or place.netrc in page
            assert place.s3 is None or ("AWS_SECRET_ACCESS_KEY" in page and f"[{provider.name}]" in page)
            assert place.connections is None or f"{place.connections} connections" in page


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/60/V/B02.tif", "planetary-computer"),
        ("https://Sentinel2L2A01.blob.core.windows.net/sentinel2-l2/60/V/B02.tif", "planetary-computer"),
        ("https://myown.blob.core.windows.net/c/a.tif", None),
        ("https://sentinel2l2a01.evil.example/sentinel2-l2/.blob.core.windows.net/x.tif", None),
        ("https://sentinel2l2a01.blob.core.windows.net@evil.example/x.tif", None),
        ("https://sentinel2l2a01.blob.core.windows.net.evil.example/x.tif", None),
        ("http://sentinel2l2a01.blob.core.windows.net/x.tif", None),
        ("https://[evil/x.tif", None),
        ("s3://eodata/Sentinel-2/a.jp2", "copernicus"),
        ("s3://eodata-of-others/a.jp2", None),
        ("/eodata/a.jp2", None),
    ],
)
def test_a_file_is_a_provider_s_by_its_host(address: str, name: str | None) -> None:
    found = files_at(address)
    assert (found and found[0].name) == name


def test_a_part_of_a_pattern_stands_for_no_other_part() -> None:
    place = FilePlace(("https://*.archive.example/files/*",))
    assert place.has("https://a.archive.example/files/b/c.tif?d=1")
    assert not place.has("https://evil.example/.archive.example/files/c.tif")


def test_a_page_of_a_search_has_at_most_500_items() -> None:
    assert all(0 < provider.page_size <= 500 for provider in PROVIDERS)
