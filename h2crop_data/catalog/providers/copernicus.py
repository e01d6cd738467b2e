"""The Copernicus Data Space Ecosystem: Sentinel-2 as ESA makes it, in a bucket of its own."""

from __future__ import annotations

from h2crop_data.catalog.provider import FilePlace, OfferedCollection, Provider, S3Access

PROVIDER = Provider(
    name="copernicus",
    title="Copernicus Data Space Ecosystem",
    api="https://stac.dataspace.copernicus.eu/v1",
    collections=(
        OfferedCollection("sentinel-2-l2a", "sentinel2", "L2A", "JPEG 2000", "kept"),
        OfferedCollection("sentinel-2-l1c", "sentinel2", "L1C", "JPEG 2000", "kept"),
    ),
    files=(
        FilePlace(
            ("s3://eodata/*",),
            needs="S3 keys of an account (free)",
            remedy="create keys at https://eodata-s3keysmanager.dataspace.copernicus.eu",
            s3=S3Access(endpoint="eodata.dataspace.copernicus.eu"),
            # More are refused; the quota counts all connections of an account.
            connections=4,
        ),
    ),
    # With the resolution in L2A, without it in L1C.
    band_assets={
        **{band: (f"{band}_10m", band) for band in ("B02", "B03", "B04", "B08")},
        **{band: (f"{band}_20m", band) for band in ("B05", "B06", "B07", "B8A", "B11", "B12", "SCL")},
        **{"B01": ("B01_60m", "B01"), "B09": ("B09_60m", "B09"), "B10": ("B10",)},
    },
    datastrip_asset="datastrip_metadata",
    page_size=100,
    about="https://documentation.dataspace.copernicus.eu/APIs/S3.html",
    rank=3,
)
