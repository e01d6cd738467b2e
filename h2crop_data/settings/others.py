"""Variables that recipes, deployments, libraries and tests read, declared so that one table has them all."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from h2crop_data.settings.variables import Settings, variable


class Deployment(Settings):
    """What files of the checkout and recipes take from the environment."""

    title = "Recipes and deployments"

    data: Path | None = variable(
        "H2CROP_DATA",
        "Folder of the parcel files of the recipe h2crop-france.yaml. Recipes may name any variable as `${NAME}`",
        read_by="recipes",
    )
    recipe: str | None = variable(
        "H2CROP_RECIPE",
        "Recipe of the deployments in infra/prefect.yaml and of h2crop-refresh.service",
        read_by="prefect deploy, systemd",
    )
    store: str | None = variable(
        "H2CROP_STORE",
        "Store of the deployments in infra/prefect.yaml and of h2crop-refresh.service",
        read_by="prefect deploy, systemd",
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
        "Proxy for catalogs and archives, also in small letters, which go before; it may have an account",
        read_by="requests, GDAL",
        also="https_proxy",
    )
    http_proxy: SecretStr | None = variable(
        "HTTP_PROXY",
        "The same for addresses without TLS; GDAL knows it in small letters alone",
        read_by="requests",
        also="http_proxy",
    )
    no_proxy: str | None = variable(
        "NO_PROXY",
        "Hosts that are asked without the proxy, also in small letters",
        read_by="requests, GDAL",
        also="no_proxy",
    )
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
    dask_temporary: Path | None = variable(
        "DASK_TEMPORARY_DIRECTORY",
        "Folder in which Dask workers keep files of their own",
        unset="TMPDIR",
        read_by="dask",
    )
    traced_as: str | None = variable(
        "OTEL_SERVICE_NAME", "Name of the process in traces", unset="unknown_service", read_by="opentelemetry"
    )
    traces_to: str | None = variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Address that traces are sent to, `http://127.0.0.1:4317`",
        unset="that of this example",
        read_by="opentelemetry",
    )
    traces_by: str | None = variable(
        "OTEL_TRACES_EXPORTER",
        "How traces are sent; `console` prints them",
        unset="otlp",
        read_by="opentelemetry",
    )


class PrefectService(Settings):
    """What Prefect reads by itself, of which the documentation and infra/ speak."""

    title = "Prefect"

    api: str | None = variable(
        "PREFECT_API_URL", "Address of the Prefect server, `http://127.0.0.1:4200/api`", read_by="prefect"
    )
    key: SecretStr | None = variable("PREFECT_API_KEY", "Key for a Prefect server that wants one", read_by="prefect")
    account: SecretStr | None = variable(
        "PREFECT_API_AUTH_STRING", "User and password for a Prefect server that wants them", read_by="prefect"
    )
    home: Path | None = variable("PREFECT_HOME", "Folder of Prefect's own files", unset="~/.prefect", read_by="prefect")
    retries: str | None = variable(
        "PREFECT_CLIENT_MAX_RETRIES",
        "How often a run asks a Prefect server again that does not answer",
        unset="5",
        read_by="prefect",
    )
    colors: str | None = variable(
        "PREFECT_LOGGING_COLORS", "Whether Prefect's log has colours", unset="true", read_by="prefect"
    )
    metrics: str | None = variable(
        "PREFECT_CLIENT_METRICS_ENABLED",
        "Whether the process of a flow answers `/metrics`",
        unset="false",
        read_by="prefect",
    )
    metrics_port: str | None = variable(
        "PREFECT_CLIENT_METRICS_PORT", "The port at which it does", unset="4201", read_by="prefect"
    )
    worker_pause: str | None = variable(
        "PREFECT_WORKER_QUERY_SECONDS",
        "Seconds between two times that a worker asks for runs",
        unset="10",
        read_by="prefect worker",
    )
    worker_host: str | None = variable(
        "PREFECT_WORKER_WEBSERVER_HOST",
        "Address at which a worker that is started `--with-healthcheck` answers `/health`",
        unset="0.0.0.0",
        read_by="prefect worker",
    )
    worker_port: str | None = variable(
        "PREFECT_WORKER_WEBSERVER_PORT", "The port of this address", unset="8080", read_by="prefect worker"
    )
    server_account: SecretStr | None = variable(
        "PREFECT_SERVER_API_AUTH_STRING", "User and password that the Prefect server asks for", read_by="prefect server"
    )
    server_key_of_blocks: SecretStr | None = variable(
        "PREFECT_SERVER_ENCRYPTION_KEY",
        "Key with which the Prefect server encrypts blocks",
        unset="one that it makes and keeps in its database",
        read_by="prefect server",
    )
    database: SecretStr | None = variable(
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        "Database of the Prefect server, with its password; or the next six, in parts",
        unset="SQLite in ~/.prefect",
        read_by="prefect server",
    )
    database_driver: str | None = variable(
        "PREFECT_SERVER_DATABASE_DRIVER", "`postgresql+asyncpg` for PostgreSQL", read_by="prefect server"
    )
    database_host: str | None = variable("PREFECT_SERVER_DATABASE_HOST", "Its host", read_by="prefect server")
    database_port: str | None = variable("PREFECT_SERVER_DATABASE_PORT", "Its port", read_by="prefect server")
    database_name: str | None = variable(
        "PREFECT_SERVER_DATABASE_NAME", "Name of the database there", read_by="prefect server"
    )
    database_user: str | None = variable("PREFECT_SERVER_DATABASE_USER", "User there", read_by="prefect server")
    database_password: SecretStr | None = variable(
        "PREFECT_SERVER_DATABASE_PASSWORD", "The user's password", read_by="prefect server"
    )
    server_metrics: str | None = variable(
        "PREFECT_SERVER_METRICS_ENABLED",
        "Whether the Prefect server answers `/api/metrics`",
        unset="false",
        read_by="prefect server",
    )
    analytics: str | None = variable(
        "PREFECT_SERVER_ANALYTICS_ENABLED",
        "Whether the Prefect server tells its makers that it is used",
        unset="true",
        read_by="prefect server",
    )
    pages_api: str | None = variable(
        "PREFECT_SERVER_UI_API_URL",
        "Address at which browsers find the Prefect server",
        unset="PREFECT_API_URL",
        read_by="prefect server",
    )
    pages: Path | None = variable(
        "PREFECT_SERVER_UI_STATIC_DIRECTORY",
        "Folder that the Prefect server writes its pages to",
        unset="in the package",
        read_by="prefect server",
    )


class Development(Settings):
    """For work on h2crop itself, in a checkout."""

    title = "Development"

    shared: Path | None = variable("H2CROP_SHARED", "Folder of real sample data", read_by="Makefile, tests")
    demo: Path | None = variable("H2CROP_DEMO", "Folder of the demo, for `make demo-check`", read_by="tests")
    golden: str | None = variable("H2CROP_GOLDEN", "`write`: the golden run writes its record", read_by="tests")
    corruptions: str | None = variable(
        "H2CROP_CORRUPTIONS", "Places that are corrupted by chance", unset="60 fixed ones", read_by="tests"
    )
