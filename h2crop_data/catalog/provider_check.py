"""Trying a provider: whether its catalog answers, an account is there, and a file can be read, with a remedy if not."""

from __future__ import annotations

from dataclasses import dataclass

import pystac
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from rasterio.errors import RasterioError
from rasterio.windows import Window
from requests.exceptions import RequestException
from urllib3.util.retry import Retry

from h2crop_data.catalog.access import opened
from h2crop_data.catalog.accounts import check_account
from h2crop_data.catalog.features import NOT_STAC
from h2crop_data.catalog.provider import OfferedCollection, Provider
from h2crop_data.catalog.registry import files_at
from h2crop_data.errors import AccountError, ReadError
from h2crop_data.redaction import without_secrets

#: Seconds to wait for an answer to a small question, and how often it is asked again.
CHECK_TIMEOUT, CHECK_RETRIES = 20, 1
#: What is read of an item: the smallest files first.
SMALL_BANDS = ("SCL", "B01", "B09", "B10", "B02")
SMALL_LAYERS = ("quality_classes", "image")


@dataclass(frozen=True)
class CheckedStep:
    """What one step gave."""

    collection: str
    #: `search`, `account` or `read`.
    step: str
    passed: bool
    #: What was found; or what is wrong, and what to do.
    text: str


def check_provider(provider: Provider) -> list[CheckedStep]:
    """Try search, account and a small read of each collection; what needs a step that failed is not tried."""
    return [step for collection in provider.collections for step in check_collection(provider, collection)]


def check_collection(provider: Provider, collection: OfferedCollection) -> list[CheckedStep]:
    """The same of one collection."""

    def step(name: str, passed: bool, text: str) -> CheckedStep:
        return CheckedStep(collection.name, name, passed, without_secrets(text))

    try:
        item = one_item(provider.api, collection.name)
    except (APIError, RequestException, *NOT_STAC) as error:
        told = str(error).partition("\n")[0][:200]
        remedy = f"is this machine online, behind a proxy (HTTPS_PROXY)? Try again later, or see {provider.about}"
        return [step("search", False, f"{provider.api} does not answer: {type(error).__name__}: {told}. {remedy}")]
    if item is None:
        return [step("search", False, f"it lists no item of {collection.name}; has the collection another name now?")]
    steps = [step("search", True, item.id)]
    href = small_file(provider, item)
    if href is None:
        found = ", ".join(sorted(item.assets)[:8])
        text = f"{item.id} has no asset under a known name (it has {found}); report it: the catalog has changed"
        return [*steps, step("read", False, text)]
    place = files_at(href)
    remedy = "" if place is None else place[1].remedy
    if place is not None:
        try:
            account = check_account(*place)
        except AccountError as error:
            return [*steps, step("account", False, str(error))]
        steps.append(step("account", True, account or "none needed"))
    try:
        with opened(href) as dataset:
            dataset.read(1, window=Window(0, 0, 1, 1))
    except (RasterioError, ReadError, OSError) as error:
        account = f"; is the account valid? {remedy}" if remedy else ""
        return [*steps, step("read", False, f"cannot read {href}: {error}{account}")]
    return [*steps, step("read", True, f"{dataset.width} x {dataset.height} pixels, {dataset.driver}")]


def one_item(api: str, collection: str) -> pystac.Item | None:
    """Some item of a collection; None where there is none. Raises what pystac-client does."""
    retries = Retry(total=CHECK_RETRIES, backoff_factor=1, status_forcelist=(429, 502, 503, 504), allowed_methods=None)
    client = Client.open(api, stac_io=StacApiIO(max_retries=retries, timeout=CHECK_TIMEOUT))
    return next(client.search(collections=[collection], max_items=1, limit=1).items(), None)


def small_file(provider: Provider, item: pystac.Item) -> str | None:
    """The address of a small file of an item; None where it has none under a name that is known."""
    keys = [key for band in SMALL_BANDS for key in provider.band_assets.get(band, ())]
    return next((item.assets[key].href for key in (*keys, *SMALL_LAYERS) if key in item.assets), None)
