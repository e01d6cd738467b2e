"""Microsoft's Planetary Computer: Sentinel-2 L2A in Azure, under addresses that are signed for 45 minutes."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from h2crop_data.catalog.answers import begun_by
from h2crop_data.catalog.provider import FilePlace, OfferedCollection, Provider

#: How often a signature is asked for again before an address counts as not signed.
SIGNING_RETRIES = 2
#: Seconds that all of these may take; the library itself waits for ever.
SIGNING_SECONDS = 30.0


def signed_for_azure(address: str) -> str:
    """An address with a signature that is valid for some minutes yet. Raises requests' errors, LateAnswerError.

    The library keeps a signature for all files of a container until it is about to end.
    """
    # Imported when something is read: who searches needs no library, nor who reads from others.
    from planetary_computer.sas import get_token
    from planetary_computer.utils import parse_blob_url

    # By itself the library tries ten times, for minutes; a read that fails is tried again as a whole.
    account, container = parse_blob_url(urlsplit(address))
    token = begun_by(
        time.monotonic() + SIGNING_SECONDS, lambda: get_token(account, container, retry_total=SIGNING_RETRIES)
    )
    return str(token.sign(address).href)


PROVIDER = Provider(
    name="planetary-computer",
    title="Microsoft Planetary Computer",
    api="https://planetarycomputer.microsoft.com/api/stac/v1",
    collections=(OfferedCollection("sentinel-2-l2a", "sentinel2", "L2A", "COG", "kept"),),
    files=(
        FilePlace(
            # Its account of Sentinel-2; others of Azure are not its own.
            ("https://sentinel2l2a01.blob.core.windows.net/*",),
            needs="the package planetary-computer, which signs addresses; no account",
            remedy="install it with pip install '.[build]' in a checkout of h2crop",
            sign=signed_for_azure,
            library="planetary_computer",
        ),
    ),
    band_assets={
        **{f"B{number:02}": (f"B{number:02}",) for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12)},
        **{"B8A": ("B8A",), "SCL": ("SCL",)},
    },
    datastrip_asset="datastrip-metadata",
    about="https://planetarycomputer.microsoft.com/docs/quickstarts/reading-stac/",
    rank=2,
)
