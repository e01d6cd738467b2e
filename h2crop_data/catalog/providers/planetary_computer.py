"""Microsoft's Planetary Computer: Sentinel-2 L2A in Azure, under addresses that are signed for 45 minutes."""

from __future__ import annotations

import logging
import time
from urllib.parse import urlsplit

from requests.exceptions import RequestException

from h2crop_data.catalog.answers import begun_by
from h2crop_data.catalog.provider import FilePlace, OfferedCollection, Provider
from h2crop_data.settings import Archives
from h2crop_data.waits import report_retry

log = logging.getLogger(__name__)
#: Pauses in seconds before a signature is asked for again; after the last an address counts as not signed.
SIGNING_PAUSES = (0.5, 1.5)
#: Seconds that all of these may take, or `H2CROP_READ_TIMEOUT` if that is less; the library itself has no limit.
SIGNING_SECONDS = 30.0


def signed_for_azure(address: str) -> str:
    """An address with a signature that is valid for some minutes yet. Raises requests' errors, LateAnswerError.

    The library keeps a signature for all files of a container until it is about to end.
    """
    # Imported when something is read: who searches needs no library, nor who reads from others.
    from planetary_computer.sas import get_token
    from planetary_computer.utils import parse_blob_url

    # By itself the library tries ten times, for minutes, silently; a read that fails is tried again as a whole.
    account, container = parse_blob_url(urlsplit(address))
    until = time.monotonic() + min(SIGNING_SECONDS, Archives.read().timeout)
    for number, pause in enumerate((*SIGNING_PAUSES, None), 1):
        try:
            token = begun_by(until, lambda: get_token(account, container, retry_total=0))
            return str(token.sign(address).href)
        except RequestException as error:
            if pause is None:
                raise
            what = f"a signature for {container} of {account}"
            report_retry(log, what, f"{type(error).__name__}: {error}", pause, number, len(SIGNING_PAUSES) + 1)
            time.sleep(pause)
    raise AssertionError("unreachable")


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
