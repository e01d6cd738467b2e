"""Whose items are believed about their offset: by the catalog that lists them, and by where their files lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stac_items import item_of

from h2crop_data.sentinel2.offset_evidence import NO_GROUND_SEEN, PixelVerdict
from h2crop_data.sources.sentinel2.offsets import LITTLE_GROUND_SEEN, evidence_of, rule_of_item, unless_clear

COGS = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs/31/U/DS/2022/7/S2A_31UDS_20220701_0_L2A"
COLLECTION_1 = "https://e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com/sentinel-2-c1-l2a/31/U/DS/2022/7"
AZURE = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2"
EARTH_SEARCH_API = "https://earth-search.aws.element84.com/v1"


def doubt(collection: str, catalog: str, folder: str) -> str:
    """Why an item is not believed."""
    item = item_of("scene", collection=collection, assets={"blue": {"href": f"{folder}/B02.tif"}})
    return evidence_of(item, ["B02", "B04"], catalog).doubt


@pytest.mark.parametrize("catalog", ["earth-search", EARTH_SEARCH_API, f"{EARTH_SEARCH_API}/"])
@pytest.mark.parametrize("folder", ["/copies", COGS])
def test_items_of_the_collection_whose_flags_are_wrong_are_not_believed(catalog: str, folder: str) -> None:
    assert doubt("sentinel-2-l2a", catalog, folder) == "items of sentinel-2-l2a of earth-search are known to be wrong"
    assert doubt("sentinel-2-c1-l2a", catalog, folder) == ""


@pytest.mark.parametrize("catalog", ["", "/data/items.json", "https://stac.example.org"])
def test_copies_of_items_are_known_by_their_files(catalog: str) -> None:
    assert "earth-search" in doubt("sentinel-2-l2a", catalog, COGS)
    for collection, folder in (
        ("sentinel-2-c1-l2a", COLLECTION_1),
        ("sentinel-2-l2a", AZURE),
        ("sentinel-2-l2a", "s3://eodata/Sentinel-2"),
        ("sentinel-2-l2a", "/data"),
        ("mine", COGS),
    ):
        assert doubt(collection, catalog, folder) == ""


@pytest.mark.parametrize("catalog", ["planetary-computer", "copernicus"])
def test_other_catalogs_keep_the_offset_in_a_collection_of_that_name(catalog: str) -> None:
    item = item_of("scene", assets={"B02": {"href": f"{AZURE}/B02.tif"}})
    assert rule_of_item(item, list(item.assets.values()), catalog) == (catalog, "kept")
    assert doubt("sentinel-2-l2a", catalog, AZURE) == ""


@pytest.mark.parametrize(
    ("facts", "rescaled"),
    [
        ({}, False),
        ({"raster:bands": [{"scale": 0.0001, "data_type": "uint16"}]}, False),
        ({"raster:scale": "0.0001"}, False),
        ({"raster:bands": [{"scale": 1.0}]}, True),
        ({"bands": [{"raster:scale": 0.01}]}, True),
        ({"raster:bands": [{"data_type": "float32"}]}, True),
        ({"data_type": "float64"}, True),
    ],
)
def test_numbers_that_are_not_those_of_esa(facts: dict[str, Any], rescaled: bool) -> None:
    item = item_of("scene", assets={"blue": {"href": "/B02.tif", **facts}, "red": {"href": "/B04.tif"}})
    assert evidence_of(item, ["B02", "B04"], "").rescaled == ({"B02"} if rescaled else set())


@pytest.mark.parametrize(
    ("imaged", "shown", "scl", "reason"),
    [
        (512, 0, 4, NO_GROUND_SEEN),
        (512, 52, 4, NO_GROUND_SEEN),
        (512, 53, 5, LITTLE_GROUND_SEEN),
        (512, 500, 7, NO_GROUND_SEEN),
        # Of a strip one pixel is enough.
        (4, 0, 4, NO_GROUND_SEEN),
        (4, 1, 6, LITTLE_GROUND_SEEN),
    ],
)
def test_a_scene_is_unseen_where_almost_nothing_is_clear(imaged: int, shown: int, scl: int, reason: str) -> None:
    classes = np.zeros((512, 512), np.uint8)
    classes[:, :imaged] = 9
    rows, columns = np.divmod(np.arange(shown), imaged)
    classes[rows, columns] = scl
    unseen = PixelVerdict(None, NO_GROUND_SEEN, "few pixels")
    assert unless_clear(unseen, classes, [4, 5, 6]).reason == reason
    decided = PixelVerdict(0, "too dark for an offset", "")
    assert unless_clear(decided, classes, [4, 5, 6]) == decided
