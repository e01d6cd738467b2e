"""Checks a provider: whether its catalog answers, an account exists, and a file can be read, with a remedy if not."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pystac
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from rasterio.errors import RasterioError
from rasterio.windows import Window
from requests.exceptions import RequestException

from h2crop_data.catalog.access import failure_in_words, opened
from h2crop_data.catalog.accounts import check_account
from h2crop_data.catalog.api_reader import ReportedRetry
from h2crop_data.catalog.features import NOT_STAC
from h2crop_data.catalog.provider import OfferedCollection, Provider
from h2crop_data.catalog.registry import files_at
from h2crop_data.errors import AccountError, H2cropError, UsageError
from h2crop_data.redaction import without_secrets

#: Seconds to wait for an answer to a small question, and how often it is asked again.
CHECK_TIMEOUT, CHECK_RETRIES = 20, 1
#: Answers of servers to whom they do not let in, and to who asks for what they do not have.
NOT_LET_IN, NOT_THERE = (401, 403), 404
#: The answer of a server in an error of GDAL, requests or obstore.
HTTP_STATUS = re.compile(r"(?:HTTP(?: response code| error code)?:?|status(?: code)?:?|^)\s*([45]\d\d)\b")
#: What is read of an item: the smallest files first.
SMALL_BANDS = ("SCL", "B01", "B09", "B10", "B02")
SMALL_LAYERS = ("quality_classes", "image")


@dataclass(frozen=True)
class CheckedStep:
    """The result of one step."""

    collection: str
    #: `search`, `account` or `read`.
    step: str
    passed: bool
    #: What was found; or what is wrong, and what to do.
    text: str


def check_provider(provider: Provider) -> list[CheckedStep]:
    """Try search, account and a small read of each collection; steps that depend on a failed one are skipped."""
    return [step for collection in provider.collections for step in check_collection(provider, collection)]


def check_collection(provider: Provider, collection: OfferedCollection) -> list[CheckedStep]:
    """The same of one collection."""

    def step(name: str, passed: bool, text: str) -> CheckedStep:
        return CheckedStep(collection.name, name, passed, without_secrets(text))

    try:
        item = one_item(provider.api, collection.name)
    except (APIError, RequestException, *NOT_STAC) as error:
        return [step("search", False, search_failure(provider, error))]
    if item is None:
        return [step("search", False, f"it lists no item of {collection.name}; the collection may have been renamed")]
    steps = [step("search", True, item.id)]
    href = small_file(provider, item)
    if href is None:
        found = ", ".join(sorted(item.assets)[:8])
        text = (
            f"{item.id} has no asset with a known name (it has {found}): the catalog has changed; report this to "
            "the project"
        )
        return [*steps, step("read", False, text)]
    place = files_at(href)
    remedy = "" if place is None else place[1].remedy
    if place is not None:
        try:
            account = check_account(*place)
        except (AccountError, UsageError) as error:
            return [*steps, step("account", False, str(error))]
        steps.append(step("account", True, account or "none needed"))
    try:
        with opened(href) as dataset:
            dataset.read(1, window=Window(0, 0, 1, 1))
    except (RasterioError, H2cropError, OSError) as error:
        told = f"cannot read {href}: {failure_in_words(error)}. {read_remedy(provider, error, remedy)}"
        return [*steps, step("read", False, told)]
    return [*steps, step("read", True, f"{dataset.width} x {dataset.height} pixels, {dataset.driver}")]


def search_failure(provider: Provider, error: Exception) -> str:
    """The cause of a failed search, and what to do."""
    told = str(error).partition("\n")[0][:200]
    status = getattr(error, "status_code", None)
    if status is not None:
        told = f"{provider.api} answers HTTP {status}: {told}"
        if status in NOT_LET_IN:
            return f"{told}. It refuses this machine or requires an account: see {provider.about}"
        if status == NOT_THERE:
            return (
                f"{told}. The address of the catalog or the name of the collection may have changed: see "
                f"{provider.about}"
            )
        return f"{told}. Try again later, or see {provider.about}"
    if isinstance(error, (APIError, RequestException)):
        return f"{provider.api} does not answer: {type(error).__name__}: {told}. {online(provider)}"
    return f"{provider.api} is not a valid STAC API: {type(error).__name__}: {told}. See {provider.about}"


def read_remedy(provider: Provider, error: Exception, remedy: str) -> str:
    """What to do about a file that cannot be read. remedy: of its place; empty where nothing is required."""
    found = HTTP_STATUS.search(failure_in_words(error))
    status = int(found[1]) if found else None
    if status == NOT_THERE:
        return f"The catalog lists a file that does not exist: try again later, or report it ({provider.about})"
    if remedy:
        return f"Check the account: {remedy}. If it is valid, {online(provider)}"
    if status in NOT_LET_IN:
        return f"The archive refuses this machine: see {provider.about}"
    return online(provider)


def online(provider: Provider) -> str:
    """What to do where no server answers."""
    return (
        "check that this machine is online, and whether it needs a proxy (HTTPS_PROXY). Try again later, or see "
        f"{provider.about}"
    )


def one_item(api: str, collection: str) -> pystac.Item | None:
    """Some item of a collection; None where there is none. Raises what pystac-client does."""
    busy = (429, 502, 503, 504)
    retries = ReportedRetry(total=CHECK_RETRIES, backoff_factor=1, status_forcelist=busy, allowed_methods=None)
    client = Client.open(api, stac_io=StacApiIO(max_retries=retries, timeout=CHECK_TIMEOUT))
    return next(client.search(collections=[collection], max_items=1, limit=1).items(), None)


def small_file(provider: Provider, item: pystac.Item) -> str | None:
    """The address of a small file of an item; None where it has none under a name that is known."""
    keys = [key for band in SMALL_BANDS for key in provider.band_assets.get(band, ())]
    return next((item.assets[key].href for key in (*keys, *SMALL_LAYERS) if key in item.assets), None)
