"""Variables that recipes, deployments, libraries and tests read, declared so that one table has them all."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from h2crop_data.settings.variables import Settings, variable


class Deployment(Settings):
    """Variables of files of the checkout and of recipes."""

    title = "Recipes and deployments"

    data: Path | None = variable(
        "H2CROP_DATA",
        "Folder of the parcel files of the recipe h2crop-france.yaml. Recipes may use any variable as `${NAME}`",
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
    """Variables that libraries read, which the documentation mentions."""

    title = "Read by libraries and programs only"

    subscription: SecretStr | None = variable(
        "PC_SDK_SUBSCRIPTION_KEY",
        "Subscription key of Planetary Computer: raises the limits of its signing service",
        read_by="planetary-computer",
    )
    https_proxy: SecretStr | None = variable(
        "HTTPS_PROXY",
        "Proxy for catalogs and archives; it may contain an account. The name in lower case is also read, and "
        "overrides it",
        read_by="requests, GDAL",
        also="https_proxy",
    )
    http_proxy: SecretStr | None = variable(
        "HTTP_PROXY",
        "The same for addresses without TLS; GDAL reads it in lower case only",
        read_by="requests",
        also="http_proxy",
    )
    no_proxy: str | None = variable(
        "NO_PROXY",
        "Hosts to reach without the proxy; also in lower case",
        read_by="requests, GDAL",
        also="no_proxy",
    )
    certificates: Path | None = variable(
        "CURL_CA_BUNDLE",
        "File of certificates to check servers of catalogs and archives with",
        read_by="requests, GDAL",
    )
    openmp: str | None = variable(
        "OMP_NUM_THREADS",
        "Threads of one computation of NumPy; set 1 for Dask workers. The simulator sets it for its processes",
        unset="all cores",
        read_by="OpenBLAS, MKL, PyTorch",
    )
    openblas: str | None = variable("OPENBLAS_NUM_THREADS", "The same, for OpenBLAS only", read_by="OpenBLAS")
    mkl: str | None = variable("MKL_NUM_THREADS", "The same, for MKL only", read_by="MKL")
    dask_temporary: Path | None = variable(
        "DASK_TEMPORARY_DIRECTORY",
        "Folder for the files of Dask workers",
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
    """Variables that Prefect reads, which the documentation and infra/ mention."""

    title = "Prefect"

    api: str | None = variable(
        "PREFECT_API_URL", "Address of the Prefect server, `http://127.0.0.1:4200/api`", read_by="prefect"
    )
    key: SecretStr | None = variable("PREFECT_API_KEY", "Key for a Prefect server that requires one", read_by="prefect")
    account: SecretStr | None = variable(
        "PREFECT_API_AUTH_STRING", "User and password for a Prefect server that requires them", read_by="prefect"
    )
    home: Path | None = variable("PREFECT_HOME", "Folder of Prefect's own files", unset="~/.prefect", read_by="prefect")
    retries: str | None = variable(
        "PREFECT_CLIENT_MAX_RETRIES",
        "Number of retries when a Prefect server does not answer",
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
        "PREFECT_CLIENT_METRICS_PORT", "Port of `/metrics`", unset="4201", read_by="prefect"
    )
    worker_pause: str | None = variable(
        "PREFECT_WORKER_QUERY_SECONDS",
        "Seconds between two queries of a worker for runs",
        unset="10",
        read_by="prefect worker",
    )
    worker_host: str | None = variable(
        "PREFECT_WORKER_WEBSERVER_HOST",
        "Address at which a worker started with `--with-healthcheck` answers `/health`",
        unset="0.0.0.0",
        read_by="prefect worker",
    )
    worker_port: str | None = variable(
        "PREFECT_WORKER_WEBSERVER_PORT", "The port of this address", unset="8080", read_by="prefect worker"
    )
    server_account: SecretStr | None = variable(
        "PREFECT_SERVER_API_AUTH_STRING", "User and password that the Prefect server requires", read_by="prefect server"
    )
    server_key_of_blocks: SecretStr | None = variable(
        "PREFECT_SERVER_ENCRYPTION_KEY",
        "Key that the Prefect server encrypts blocks with",
        unset="a key that it creates and keeps in its database",
        read_by="prefect server",
    )
    database: SecretStr | None = variable(
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        "Database of the Prefect server, with its password; or set its parts in the next six variables",
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
        "Whether the Prefect server sends usage data to its makers",
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
    golden: str | None = variable(
        "H2CROP_GOLDEN", "`write`: the golden run writes its record instead of comparing with it", read_by="tests"
    )
    corruptions: str | None = variable(
        "H2CROP_CORRUPTIONS", "Number of places that are corrupted at random", unset="60 fixed ones", read_by="tests"
    )
