"""Settings by environment: each variable that h2crop or a library under it reads, declared once and checked when read.

docs/configuration.md is written from these declarations, `h2crop config` shows what is set. Variables are read at the
time of use, a group at a time, so that a wrong one stops only what needs it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from h2crop_data.constants import SCHEDULER_SCHEMES
from h2crop_data.errors import UsageError
from h2crop_data.redaction import without_secrets

#: Variables that begin so are h2crop's own: one that is not declared is a typing error.
PREFIX = "H2CROP_"
#: Bytes that the results in a work folder may take.
WORK_BYTES = 50_000_000_000
#: Bytes that parts of cells may take in the scratch folder while blocks wait for others.
SCRATCH_BYTES = 20_000_000_000
#: The host that an account is for, where H2CROP_DOWNLOAD_HOST does not say.
ACCOUNT_HOST = "download.geoservice.dlr.de"
OURS = "h2crop"
#: What a value of a type looks like, in errors.
NUMBER_OF_GIGABYTES = "a number of gigabytes from 0, as 20 or 0.5"
TRUE_OR_FALSE = "true or false"
SCHEDULER = re.compile(rf"({'|'.join(SCHEDULER_SCHEMES)})[^\s/]+:\d+")


def variable(
    name: str,
    text: str,
    default: Any = None,
    *,
    expected: str = "",
    read_by: str = OURS,
    unset: str = "",
    **limits: Any,
) -> Any:
    """A field of a group of settings.

    text: what it means. expected: what a value must be, in words. read_by: who reads it; names of libraries where they
    do so by themselves. unset: the default in words, where the value does not tell. limits: of pydantic.
    """
    extra: dict[str, Any] = {"expected": expected, "read_by": read_by, "unset": unset}
    return Field(default, validation_alias=name, description=text, json_schema_extra=extra, **limits)


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
        raise ValueError("not of the form `name=value; name=value`")
    return {name: morsel.coded_value for name, morsel in morsels}


def whole_cookie(cookie: SecretStr) -> SecretStr:
    """The cookies of a session, if they are some. Raises ValueError."""
    session_cookies(cookie.get_secret_value())
    return cookie


def text_of(secret: SecretStr | None) -> str:
    """A secret as it is sent; empty where there is none."""
    return "" if secret is None else secret.get_secret_value()


class Settings(BaseSettings):
    """A group of variables that are read together. An empty variable counts as one that is not set."""

    model_config = SettingsConfigDict(
        case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )
    #: What the group is about, in the table.
    title: ClassVar[str] = ""
    #: Variables of which one is nothing without the other.
    pairs: ClassVar[tuple[tuple[str, str], ...]] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment alone: no file is read that nobody named."""
        return (env_settings,)

    @classmethod
    def read(cls) -> Self:
        """What the environment says now.

        Raises UsageError that names each wrong variable and what is expected; the value is shown unless it is secret.
        """
        found, problems = cls.examined()
        if found is None:
            raise UsageError("; ".join(problems.values()))
        return found

    @classmethod
    def examined(cls) -> tuple[Self | None, dict[str, str]]:
        """What the environment says now, None where something is wrong; and by variable what that is."""
        try:
            return cls(), {}
        except ValidationError as error:
            wrong = {str(one["loc"][0]) for one in error.errors(include_input=False, include_context=False)}
        # Told outside of the `except` block: an error that was raised there would carry the values along.
        return None, {one.name: one.problem() for one in cls.variables() if one.name in wrong}

    @classmethod
    def variables(cls) -> Iterator[Variable]:
        """The declarations of the group."""
        for field in cls.model_fields.values():
            extra = field.json_schema_extra
            assert isinstance(extra, dict)
            assert isinstance(field.validation_alias, str)
            default = extra["unset"] or ("" if field.default is None else shown_default(field.default))
            yield Variable(
                name=field.validation_alias,
                group=cls.title,
                text=field.description or "",
                default=str(default),
                secret="SecretStr" in str(field.annotation),
                read_by=str(extra["read_by"]),
                expected=str(extra["expected"]),
            )


def shown_default(value: Any) -> str:
    """A default as one would set it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Variable:
    """A declared variable. default: as one would set it, or in words; empty for none."""

    name: str
    group: str
    text: str
    default: str
    secret: bool
    read_by: str
    expected: str

    @property
    def is_set(self) -> bool:
        """Whether the environment has it, and not empty."""
        return bool(os.environ.get(self.name))

    def problem(self) -> str:
        """What to say of it when its value is wrong."""
        if self.secret:
            return f"{self.name} is not of the form {self.expected}"
        return f"{self.name} is {without_secrets(os.environ.get(self.name, ''))!r}: expected {self.expected}"


Gigabytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Folders(Settings):
    """Where files lie that can be made or fetched again."""

    title = "Folders"

    work: Path | None = variable(
        "H2CROP_WORK",
        "Folder that has the work folders of all stores, instead of each store having its own. It must be local, or "
        "shared by all workers of a cluster",
        unset="in the store; for a bucket below XDG_CACHE_HOME",
    )
    work_gb: Gigabytes = variable(
        "H2CROP_WORK_GB",
        "Gigabytes that the results in one work folder may take; those used longest ago are deleted",
        WORK_BYTES / 1e9,
        expected=NUMBER_OF_GIGABYTES,
    )
    scratch: Path | None = variable(
        "H2CROP_SCRATCH",
        "Folder for composites that wait for their block, as `--scratch` of `h2crop build`",
        unset="in the work folder",
    )
    scratch_gb: Gigabytes = variable(
        "H2CROP_SCRATCH_GB",
        "Gigabytes that may wait there, about, as `--scratch-gb`",
        SCRATCH_BYTES / 1e9,
        expected=NUMBER_OF_GIGABYTES,
    )
    downloads: Path | None = variable(
        "H2CROP_CACHE", "Folder of downloaded EnMAP files, as `--cache` of `h2crop enmap fetch`"
    )
    caches: Path | None = variable(
        "XDG_CACHE_HOME",
        "Folder of the caches of programs: work folders of stores in buckets lie in `h2crop/work` below it",
        unset="~/.cache",
    )
    temporary: str | None = variable(
        "TMPDIR", "Folder of temporary files, and of the connections that are counted", unset="/tmp", read_by="Python"
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
    """Who builds, where neither options nor the parameters of a flow say it."""

    title = "Who builds"

    workers: Annotated[int, Field(ge=1)] | None = variable(
        "H2CROP_WORKERS",
        "Blocks built at a time on this machine, as `--workers` of `h2crop build` and `refresh` and the parameter of "
        "the flows",
        expected="a whole number from 1",
        unset="one a core",
    )
    dask: Annotated[str, AfterValidator(scheduler_address)] = variable(
        "H2CROP_DASK",
        "Address of a Dask scheduler whose workers build, as `--dask`. An option or parameter that chooses workers of "
        "this machine goes before it",
        "",
        expected=" or ".join(f"{scheme}HOST:PORT" for scheme in SCHEDULER_SCHEMES),
    )


class Estimates(Settings):
    """What `h2crop plan` reckons with, where options do not say it."""

    title = "Estimates of plans"

    request_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = variable(
        "H2CROP_REQUEST_SECONDS",
        "Seconds until an archive begins to answer a request, as `--request-seconds` of `h2crop plan`",
        0.1,
        expected="a number of seconds from 0",
    )
    megabytes_a_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = variable(
        "H2CROP_MB_PER_SECOND",
        "Megabytes a second that archives give all workers together, as `--mb-per-second`",
        50.0,
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
        "Instead of both the session of a browser: the request header `Cookie`",
        expected="`name=value; name=value`",
    )
    host: str = variable("H2CROP_DOWNLOAD_HOST", "The only host that the account is sent to", ACCOUNT_HOST)
    netrc: Path | None = variable(
        "NETRC",
        "File with accounts by host, where these variables have none",
        unset="~/.netrc",
        read_by="h2crop, requests",
    )


class Keys(Settings):
    """Keys for buckets, of stores and of archives."""

    title = "Keys of buckets"
    pairs = (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),)

    key_id: SecretStr | None = variable(
        "AWS_ACCESS_KEY_ID",
        "Key for the bucket of a store, and for buckets of archives that have no profile of their own. Without it "
        "stores ask for the role of the machine",
        read_by="h2crop, obstore",
    )
    secret: SecretStr | None = variable("AWS_SECRET_ACCESS_KEY", "Its secret", read_by="h2crop, obstore")
    token: SecretStr | None = variable(
        "AWS_SESSION_TOKEN", "Token of keys that end. A store reads it once, at the start", read_by="h2crop, obstore"
    )
    profile: str | None = variable(
        "AWS_PROFILE",
        "Profile with the keys for buckets of archives, before AWS_ACCESS_KEY_ID; stores read no profiles",
        unset="the name of the provider; `default` where there are no other keys",
    )
    profiles: Path | None = variable("AWS_SHARED_CREDENTIALS_FILE", "File of the profiles", unset="~/.aws/credentials")


class Buckets(Settings):
    """The object store in which stores lie (`s3://`)."""

    title = "Stores in buckets"

    endpoint_s3: str | None = variable(
        "AWS_ENDPOINT_URL_S3", "As AWS_ENDPOINT_URL, and goes before it", read_by="h2crop, obstore"
    )
    endpoint: str | None = variable(
        "AWS_ENDPOINT_URL",
        "Address of a server that is not Amazon's, `https://s3.example.org`; the bucket is the first part of the path",
        read_by="h2crop, obstore",
    )
    endpoint_short: str | None = variable(
        "AWS_ENDPOINT", "As AWS_ENDPOINT_URL, where that is not set", read_by="h2crop, obstore"
    )
    region: str | None = variable(
        "AWS_REGION", "Region of the bucket", unset="AWS_DEFAULT_REGION, else us-east-1", read_by="obstore"
    )
    default_region: str | None = variable(
        "AWS_DEFAULT_REGION", "Region of the bucket, where AWS_REGION is not set", read_by="obstore"
    )
    host_names: bool = variable(
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
        "The endpoint has the bucket in its host name",
        False,
        expected=TRUE_OR_FALSE,
        read_by="obstore",
    )
    unsigned: bool = variable(
        "AWS_SKIP_SIGNATURE",
        "Read a bucket open to everybody, without keys",
        False,
        expected=TRUE_OR_FALSE,
        read_by="obstore",
    )
    allow_http: bool | None = variable(
        "AWS_ALLOW_HTTP", "The endpoint may be without TLS (`http://`)", expected=TRUE_OR_FALSE, unset="false"
    )
    allow_invalid_certificates: bool | None = variable(
        "AWS_ALLOW_INVALID_CERTIFICATES",
        "The certificate of the endpoint is not checked",
        expected=TRUE_OR_FALSE,
        unset="false",
    )
    proxy: SecretStr | None = variable(
        "AWS_PROXY_URL", "Address of a proxy before the endpoint; it may have an account"
    )

    @property
    def server(self) -> str | None:
        """The address of the server; None for Amazon's."""
        return self.endpoint_s3 or self.endpoint or self.endpoint_short


class Deployment(Settings):
    """What files of the checkout and recipes take from the environment."""

    title = "Recipes and deployments"

    data: Path | None = variable(
        "H2CROP_DATA",
        "Folder of the parcel files of the recipe h2crop-france.yaml. Recipes may name any variable as `${NAME}`",
        read_by="recipes",
    )
    recipe: str | None = variable(
        "H2CROP_RECIPE", "Recipe of the deployments in infra/prefect.yaml", read_by="prefect deploy"
    )
    store: str | None = variable(
        "H2CROP_STORE", "Store of the deployments in infra/prefect.yaml", read_by="prefect deploy"
    )
    alarm: str | None = variable(
        "H2CROP_ALARM", "Id of the notification block in infra/automations.yaml", read_by="envsubst"
    )


class Libraries(Settings):
    """What libraries read by themselves, of which the documentation speaks."""

    title = "Read by libraries and programs alone"

    subscription: SecretStr | None = variable(
        "PC_SDK_SUBSCRIPTION_KEY",
        "Subscription key of Planetary Computer: raises the limits of the service that signs",
        read_by="planetary-computer",
    )
    https_proxy: SecretStr | None = variable(
        "HTTPS_PROXY",
        "Proxy for catalogs and archives, also in small letters; it may have an account",
        read_by="requests, GDAL",
    )
    http_proxy: SecretStr | None = variable(
        "HTTP_PROXY", "The same for addresses without TLS; GDAL knows it in small letters alone", read_by="requests"
    )
    no_proxy: str | None = variable("NO_PROXY", "Hosts that are asked without the proxy", read_by="requests, GDAL")
    certificates: Path | None = variable(
        "CURL_CA_BUNDLE",
        "File of certificates that servers of catalogs and archives are checked with",
        read_by="requests, GDAL",
    )
    openmp: str | None = variable(
        "OMP_NUM_THREADS",
        "Threads of one computation of NumPy; set 1 for Dask workers. The simulator sets it for its processes",
        unset="all cores",
        read_by="OpenBLAS, MKL, PyTorch",
    )
    openblas: str | None = variable("OPENBLAS_NUM_THREADS", "The same, of OpenBLAS alone", read_by="OpenBLAS")
    mkl: str | None = variable("MKL_NUM_THREADS", "The same, of MKL alone", read_by="MKL")
    prefect_api: str | None = variable(
        "PREFECT_API_URL", "Address of the Prefect server, `http://127.0.0.1:4200/api`", read_by="prefect"
    )
    prefect_key: SecretStr | None = variable(
        "PREFECT_API_KEY", "Key for a Prefect server that wants one", read_by="prefect"
    )
    prefect_account: SecretStr | None = variable(
        "PREFECT_API_AUTH_STRING", "User and password for a Prefect server that wants them", read_by="prefect"
    )
    prefect_server_account: SecretStr | None = variable(
        "PREFECT_SERVER_API_AUTH_STRING", "User and password that the Prefect server asks for", read_by="prefect server"
    )
    prefect_database: SecretStr | None = variable(
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        "Database of the Prefect server, with its password",
        unset="SQLite in ~/.prefect",
        read_by="prefect server",
    )
    prefect_key_of_blocks: SecretStr | None = variable(
        "PREFECT_SERVER_ENCRYPTION_KEY",
        "Key with which the Prefect server encrypts blocks",
        unset="one that it makes and keeps in its database",
        read_by="prefect server",
    )
    prefect_home: Path | None = variable(
        "PREFECT_HOME", "Folder of Prefect's own files", unset="~/.prefect", read_by="prefect"
    )
    prefect_retries: str | None = variable(
        "PREFECT_CLIENT_MAX_RETRIES",
        "How often a run asks a Prefect server again that does not answer",
        unset="5",
        read_by="prefect",
    )


class Processes(Settings):
    """What processes tell those that they start: nobody sets it by hand."""

    title = "Set by h2crop and Prefect themselves"

    sharing: Annotated[int, Field(ge=1)] = variable(
        "H2CROP_SHARING_PROCESSES",
        "Worker processes that share the connections to an archive; set in each by the builder",
        1,
        expected="a whole number from 1",
    )
    local_service: str | None = variable(
        "H2CROP_LOCAL_SERVICE",
        "Marks the processes that infra/local-service.sh starts, so that it ends no others",
        read_by="infra/local-service.sh",
    )
    flow_run: str | None = variable(
        "PREFECT__FLOW_RUN_ID", "The run that Prefect's worker started a process for", read_by="h2crop, prefect"
    )

    @classmethod
    def share_connections(cls, processes: int) -> None:
        """Note in this process, a worker, that so many share the connections to an archive."""
        os.environ["H2CROP_SHARING_PROCESSES"] = str(processes)


class Development(Settings):
    """For work on h2crop itself, in a checkout."""

    title = "Development"

    shared: Path | None = variable("H2CROP_SHARED", "Folder of real sample data", read_by="Makefile, tests")
    demo: Path | None = variable("H2CROP_DEMO", "Folder of the demo, for `make demo-check`", read_by="tests")
    golden: str | None = variable("H2CROP_GOLDEN", "`write`: the golden run writes its record", read_by="tests")
    corruptions: str | None = variable(
        "H2CROP_CORRUPTIONS", "Places that are corrupted by chance", unset="60 fixed ones", read_by="tests"
    )


#: In the order of the table.
GROUPS: tuple[type[Settings], ...] = (
    Folders,
    Builders,
    Estimates,
    ArchiveAccount,
    Keys,
    Buckets,
    Deployment,
    Libraries,
    Processes,
    Development,
)


def declared_variables() -> list[Variable]:
    """Every declared variable, in the order of the table."""
    return [one for group in GROUPS for one in group.variables()]


def variable_of_recipe(name: str) -> str | None:
    """The variable that a recipe names as `${NAME}`; None where it is not set."""
    return os.environ.get(name)


@dataclass(frozen=True)
class VariableState:
    """What the environment says of a variable.

    value: as it is in force, without the secrets in addresses, or `not set`; of a secret that is set `set`. source:
    `environment`, `default`, or empty for what is not set and has no default. problem: what is wrong with it, or empty.
    """

    variable: Variable
    value: str
    source: str
    problem: str


def states() -> list[VariableState]:
    """What the environment says of every declared variable."""
    found = []
    for group in GROUPS:
        _, problems = group.examined()
        for name, other in group.pairs:
            problems |= lone_variable(name, other)
        found += [state_of(one, problems) for one in group.variables()]
    return found


def lone_variable(*names: str) -> Mapping[str, str]:
    """What is wrong where one variable of two is set: by the one that is missing."""
    missing = [name for name in names if not os.environ.get(name)]
    if len(missing) != 1:
        return {}
    [there] = set(names) - set(missing)
    return {missing[0]: f"{missing[0]} is not set, but {there} is: set both or neither"}


def state_of(one: Variable, problems: Mapping[str, str]) -> VariableState:
    """What the environment says of one variable."""
    value = os.environ[one.name] if one.is_set else one.default
    shown = "set" if one.secret and one.is_set else without_secrets(value) or "not set"
    source = "environment" if one.is_set else "default" if one.default else ""
    return VariableState(one, shown, source, problems.get(one.name, ""))


def unknown_variables() -> dict[str, str]:
    """Variables of the environment that look like h2crop's and are not declared: name -> the nearest declared one."""
    known = [one.name for one in declared_variables() if one.name.startswith(PREFIX)]
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    return {name: next(iter(get_close_matches(name, known, 1, 0.0)), "") for name in unknown}
