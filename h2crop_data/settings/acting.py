"""Variables that h2crop itself uses: folders, workers, estimates, accounts, keys and buckets."""

from __future__ import annotations

import logging
import os
import re
from http.cookies import CookieError, SimpleCookie
from math import inf
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from h2crop_data.constants import ARCHIVE_BYTES_A_SECOND, REQUEST_SECONDS, SCHEDULER_SCHEMES
from h2crop_data.settings.variables import NUMBER_OF_GIGABYTES, TRUE_OR_FALSE, Settings, variable

#: Bytes that the results in a work folder may take.
WORK_BYTES = 50_000_000_000
#: Bytes that parts of cells may take in the scratch folder while blocks wait for others.
SCRATCH_BYTES = 20_000_000_000
#: The host that an account is for, where H2CROP_DOWNLOAD_HOST does not say.
ACCOUNT_HOST = "download.geoservice.dlr.de"
SCHEDULER = re.compile(rf"({'|'.join(SCHEDULER_SCHEMES)})[^\s/]+:\d+")


def scheduler_address(address: str) -> str:
    """The address of a Dask scheduler, or nothing. Raises ValueError."""
    if address and not SCHEDULER.fullmatch(address):
        raise ValueError(
            f"invalid address of a Dask scheduler {address!r}; "
            f"expected {' or '.join(f'{scheme}HOST:PORT' for scheme in SCHEDULER_SCHEMES)}"
        )
    return address


def session_cookies(text: str) -> dict[str, str]:
    """The cookies of `name=value; name=value` by name. Raises ValueError, which does not show them."""
    try:
        morsels = SimpleCookie(text).items()
    except CookieError:
        morsels = {}.items()
    if text and not morsels:
        raise ValueError("expected `name=value; name=value`")
    return {name: morsel.coded_value for name, morsel in morsels}


def whole_cookie(cookie: SecretStr) -> SecretStr:
    """The cookies of a session, if they are some. Raises ValueError."""
    session_cookies(cookie.get_secret_value())
    return cookie


def pauses_of(text: str) -> tuple[float, ...]:
    """The seconds of `1,4,15`; none of `none`. Raises ValueError."""
    seconds = () if text == "none" else tuple(map(float, text.split(",")))
    if not all(0 <= pause < inf for pause in seconds):
        raise ValueError("seconds must be finite numbers from 0")
    return seconds


def checked_pauses(text: str) -> str:
    """The pauses, if they are some. Raises ValueError."""
    pauses_of(text)
    return text


Gigabytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Folders(Settings):
    """Folders of files that can be created or downloaded again."""

    title = "Folders"

    work: Path | None = variable(
        "H2CROP_WORK",
        "Folder for the work folders of all stores (default: in each store). It must be local, or shared by all "
        "workers of a cluster",
        unset="in the store; for a bucket below XDG_CACHE_HOME",
    )
    work_gb: Gigabytes = variable(
        "H2CROP_WORK_GB",
        "Limit of the results in one work folder in gigabytes; least recently used results are deleted",
        WORK_BYTES / 1e9,
        expected=NUMBER_OF_GIGABYTES,
    )
    scratch: Path | None = variable(
        "H2CROP_SCRATCH",
        "Folder for composites until their block is built, as `--scratch` of `h2crop build`",
        unset="in the work folder",
    )
    scratch_gb: Gigabytes = variable(
        "H2CROP_SCRATCH_GB",
        "Approximate limit of that folder in gigabytes, as `--scratch-gb`",
        SCRATCH_BYTES / 1e9,
        expected=NUMBER_OF_GIGABYTES,
    )
    downloads: Path | None = variable(
        "H2CROP_CACHE", "Folder of downloaded EnMAP files, as `--cache` of `h2crop enmap fetch`"
    )
    caches: Path | None = variable(
        "XDG_CACHE_HOME",
        "Cache folder of all programs: work folders of stores in buckets are in `h2crop/work` below it",
        unset="~/.cache",
    )
    temporary: str | None = variable(
        "TMPDIR", "Folder of temporary files and of the connection counters", unset="/tmp", read_by="Python"
    )

    @property
    def work_bytes(self) -> int:
        """Bytes that the results in a work folder may take."""
        return int(self.work_gb * 1e9)

    @property
    def scratch_bytes(self) -> int:
        """Bytes that may wait in the scratch folder, about."""
        return int(self.scratch_gb * 1e9)


class Builders(Settings):
    """The workers, if neither options nor the parameters of a flow set them."""

    title = "Workers"

    workers: Annotated[int, Field(ge=1)] | None = variable(
        "H2CROP_WORKERS",
        "Blocks built at the same time on this machine, as `--workers` of `h2crop build` and `refresh` and the "
        "parameter of the flows",
        expected="a whole number from 1",
        unset="one a core",
    )
    dask: Annotated[str, AfterValidator(scheduler_address)] = variable(
        "H2CROP_DASK",
        "Address of a Dask scheduler whose workers build, as `--dask`. An option or parameter that chooses workers "
        "of this machine overrides it",
        "",
        expected=" or ".join(f"{scheme}HOST:PORT" for scheme in SCHEDULER_SCHEMES),
    )


class Logs(Settings):
    """What commands log, where their options do not say it."""

    title = "Logs of commands"

    level: Literal["warning", "info", "debug"] = variable(
        "H2CROP_LOG_LEVEL",
        "What commands show on standard error: `info` as `-v`, `debug` as `-vv`",
        "warning",
        expected="warning, info or debug",
    )
    file: Path | None = variable(
        "H2CROP_LOG_FILE", "File that commands append their log to, from `info` on, as `--log-file`"
    )
    format: Literal["text", "json"] = variable(
        "H2CROP_LOG_FORMAT",
        "Lines of the log, as `--log-format`: text, or a JSON object each",
        "text",
        expected="text or json",
    )

    @property
    def number(self) -> int:
        """The level as `logging` has it."""
        return logging.getLevelNamesMapping()[self.level.upper()]


class Estimates(Settings):
    """Assumptions of `h2crop plan`, if options do not set them."""

    title = "Estimates of plans"

    request_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = variable(
        "H2CROP_REQUEST_SECONDS",
        "Seconds until an archive begins to answer a request, as `--request-seconds` of `h2crop plan`. The default "
        "is an assumption",
        REQUEST_SECONDS,
        expected="a number of seconds from 0",
    )
    megabytes_a_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = variable(
        "H2CROP_MB_PER_SECOND",
        "Megabytes a second from archives to all workers together, as `--mb-per-second`. The default is an assumption",
        ARCHIVE_BYTES_A_SECOND / 1e6,
        expected="a number above 0",
    )
    price_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = variable(
        "H2CROP_PRICE_HOUR",
        "Price of an hour of one worker, in any currency, as `--price-hour`",
        expected="a number from 0",
    )
    price_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = variable(
        "H2CROP_PRICE_GB",
        "Price of a gigabyte that comes from an archive, in the same currency, as `--price-gb`",
        expected="a number from 0",
    )


class ArchiveAccount(Settings):
    """An account at the host of an archive."""

    title = "Accounts at archives"
    pairs = (("H2CROP_DOWNLOAD_USER", "H2CROP_DOWNLOAD_PASSWORD"),)

    user: SecretStr | None = variable("H2CROP_DOWNLOAD_USER", "User of an account at the archive of EnMAP")
    password: SecretStr | None = variable("H2CROP_DOWNLOAD_PASSWORD", "Its password")
    cookie: Annotated[SecretStr, AfterValidator(whole_cookie)] | None = variable(
        "H2CROP_DOWNLOAD_COOKIE",
        "Session of a browser, instead of user and password: the request header `Cookie`",
        expected="`name=value; name=value`",
    )
    host: str = variable("H2CROP_DOWNLOAD_HOST", "Only host that the account is sent to", ACCOUNT_HOST)
    netrc: Path | None = variable(
        "NETRC",
        "File with accounts by host, used where these variables are not set",
        unset="~/.netrc",
        read_by="h2crop, requests",
    )


class Keys(Settings):
    """Keys for buckets, of stores and of archives."""

    title = "Keys of buckets"
    pairs = (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),)

    key_id: SecretStr | None = variable(
        "AWS_ACCESS_KEY_ID",
        "Key for the bucket of a store, and for buckets of archives without their own profile. Without it stores "
        "use the role of the machine",
        read_by="h2crop, obstore",
    )
    secret: SecretStr | None = variable("AWS_SECRET_ACCESS_KEY", "Its secret", read_by="h2crop, obstore")
    token: SecretStr | None = variable(
        "AWS_SESSION_TOKEN", "Token of temporary keys. A store reads it once, at the start", read_by="h2crop, obstore"
    )
    profile: str | None = variable(
        "AWS_PROFILE",
        "Profile with the keys for buckets of archives; it overrides AWS_ACCESS_KEY_ID. Stores do not read profiles",
        unset="the name of the provider; `default` if there are no other keys",
    )
    profiles: Path | None = variable("AWS_SHARED_CREDENTIALS_FILE", "File of the profiles", unset="~/.aws/credentials")


class Buckets(Settings):
    """The object store of stores (`s3://`)."""

    title = "Stores in buckets"

    endpoint_s3: str | None = variable(
        "AWS_ENDPOINT_URL_S3", "As AWS_ENDPOINT_URL, which it overrides", read_by="h2crop, obstore"
    )
    endpoint: str | None = variable(
        "AWS_ENDPOINT_URL",
        "Address of an S3 server other than Amazon's, such as `https://s3.example.org`; the bucket is the first "
        "part of the path",
        read_by="h2crop, obstore",
    )
    endpoint_short: str | None = variable(
        "AWS_ENDPOINT", "As AWS_ENDPOINT_URL, used if that is not set", read_by="h2crop, obstore"
    )
    region: str | None = variable(
        "AWS_REGION", "Region of the bucket", unset="AWS_DEFAULT_REGION, else us-east-1", read_by="obstore"
    )
    default_region: str | None = variable(
        "AWS_DEFAULT_REGION", "Region of the bucket, used if AWS_REGION is not set", read_by="obstore"
    )
    host_names: bool = variable(
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
        "Whether the host name of the endpoint contains the bucket",
        False,
        expected=TRUE_OR_FALSE,
        read_by="h2crop, obstore",
    )
    unsigned: bool = variable(
        "AWS_SKIP_SIGNATURE",
        "Whether to read a public bucket without keys",
        False,
        expected=TRUE_OR_FALSE,
        read_by="h2crop, obstore",
    )
    allow_http: bool | None = variable(
        "AWS_ALLOW_HTTP", "Whether the endpoint may be without TLS (`http://`)", expected=TRUE_OR_FALSE, unset="false"
    )
    allow_invalid_certificates: bool | None = variable(
        "AWS_ALLOW_INVALID_CERTIFICATES",
        "Whether to accept any certificate of the endpoint",
        expected=TRUE_OR_FALSE,
        unset="false",
    )
    proxy: SecretStr | None = variable(
        "AWS_PROXY_URL", "Address of a proxy for the endpoint; it may contain an account"
    )

    @property
    def server(self) -> str | None:
        """The address of the server; None for Amazon's."""
        return self.endpoint_s3 or self.endpoint or self.endpoint_short


def forget_empty_keys() -> None:
    """Remove empty AWS_ variables from the environment of this process.

    obstore looks there by itself and takes an empty address, key or boolean for a value, also of variables that are
    not declared here.
    """
    for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
        os.environ.pop(name, None)


class Archives(Settings):
    """How patient h2crop is with catalogs and archives."""

    title = "Patience with archives"

    pauses_text: Annotated[str, AfterValidator(checked_pauses)] = variable(
        "H2CROP_READ_PAUSES",
        "Seconds before each further try at a remote file, by commas; `none` for one try",
        "1,4,15",
        expected="seconds by commas, as 1,4,15, or none",
    )
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = variable(
        "H2CROP_READ_TIMEOUT",
        "Seconds to wait for an answer of a catalog or archive, or for its next bytes; for signatures at most 30, for "
        "the version of a file at most 10",
        60.0,
        expected="a number of seconds above 0",
    )

    @property
    def pauses(self) -> tuple[float, ...]:
        """Seconds before each further try."""
        return pauses_of(self.pauses_text)


class Processes(Settings):
    """Set by processes for those that they start, never by users."""

    title = "Set by h2crop and Prefect themselves"

    sharing: Annotated[int, Field(ge=1)] = variable(
        "H2CROP_SHARING_PROCESSES",
        "Number of worker processes that share the connections to an archive; the builder sets it in each",
        1,
        expected="a whole number from 1",
    )
    local_service: str | None = variable(
        "H2CROP_LOCAL_SERVICE",
        "Marks the processes that infra/local-service.sh starts, so that it ends only these",
        read_by="infra/local-service.sh",
    )
    flow_run: str | None = variable(
        "PREFECT__FLOW_RUN_ID", "Id of the run that Prefect's worker started the process for", read_by="h2crop, prefect"
    )

    @classmethod
    def share_connections(cls, processes: int) -> None:
        """Note in this process, a worker, that so many share the connections to an archive."""
        os.environ["H2CROP_SHARING_PROCESSES"] = str(processes)
