"""DLR's EOC Geoservice: the archive of EnMAP."""

from __future__ import annotations

from h2crop_data.catalog.provider import FilePlace, OfferedCollection, Provider

PROVIDER = Provider(
    name="dlr",
    title="EOC Geoservice (DLR)",
    api="https://geoservice.dlr.de/eoc/ogc/stac/v1",
    collections=(OfferedCollection("ENMAP_HSI_L2A", "enmap", "L2A", "COG"),),
    files=(
        FilePlace(
            ("https://download.geoservice.dlr.de/*",),
            needs="an account (free) in ~/.netrc or in H2CROP_DOWNLOAD_USER and H2CROP_DOWNLOAD_PASSWORD",
            remedy=(
                "register at https://geoservice.dlr.de and write `machine download.geoservice.dlr.de login NAME "
                "password SECRET` into ~/.netrc (other ways: docs/getting-enmap.md)"
            ),
            netrc="download.geoservice.dlr.de",
            # DLR states no limit. A guess at what a server of one institute bears beside its other users.
            connections=8,
        ),
    ),
    page_size=100,
    about="https://geoservice.dlr.de",
    rank=4,
)
