"""Earth Search v1 by Element 84: Sentinel-2 in Amazon's open data."""

from __future__ import annotations

from h2crop_data.catalog.provider import FilePlace, OfferedCollection, Provider, S3Access

PROVIDER = Provider(
    name="earth-search",
    title="Earth Search v1 (Element 84)",
    api="https://earth-search.aws.element84.com/v1",
    collections=(
        # Taken out of most of its files; its flags are known to be wrong on some items.
        OfferedCollection("sentinel-2-l2a", "sentinel2", "L2A", "COG", "removed, see flags"),
        OfferedCollection("sentinel-2-c1-l2a", "sentinel2", "L2A", "COG", "kept"),
        OfferedCollection("sentinel-2-l1c", "sentinel2", "L1C", "JPEG 2000", "kept"),
    ),
    files=(
        FilePlace(("https://sentinel-cogs.s3.us-west-2.amazonaws.com/*",)),
        FilePlace(("https://e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com/*",)),
        FilePlace(
            ("s3://sentinel-s2-l1c/*", "s3://sentinel-s2-l2a/*"),
            needs="for L1C an AWS account, which pays for what is read",
            remedy="create keys in your AWS account; reading from outside eu-central-1 costs money",
            s3=S3Access(region="eu-central-1", requester_pays=True),
        ),
    ),
    band_assets={
        **{"B01": ("coastal",), "B02": ("blue",), "B03": ("green",), "B04": ("red",), "B05": ("rededge1",)},
        **{"B06": ("rededge2",), "B07": ("rededge3",), "B08": ("nir",), "B8A": ("nir08",), "B09": ("nir09",)},
        **{"B10": ("cirrus",), "B11": ("swir16",), "B12": ("swir22",), "SCL": ("scl",)},
    },
    about="https://element84.com/earth-search/",
    rank=1,
)
