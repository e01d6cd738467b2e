"""The images in use: a store simulated, built and read, and the service of infra/compose.yaml by its own commands."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from roots import Image, RunError, mounted

#: Services of the compose file that run here, in its order; the others are images that are not ours.
OURS = ("prefect-server", "dask-scheduler", "dask-worker", "storage-init", "prefect-init", "worker")
#: What Compose fills in; the S3 server that runs here takes any key.
FILLED = {
    "POSTGRES_PASSWORD": "of-this-check",
    "PREFECT_PASSWORD": "of-this-check",
    "PREFECT_ENCRYPTION_KEY": base64.urlsafe_b64encode(b"of-this-check which has 32 bytes").decode(),
    "S3_ACCESS_KEY": "of-this-check",
    "S3_SECRET_KEY": "of-this-check-too",
    "DATA_FOLDER": "/data",
    "H2CROP_RECIPE": "/data/region/recipe.yaml",
}
#: What is run, and on which cluster.
DEPLOYMENT, CLUSTER = "h2crop-build/build", "tcp://dask-scheduler:8786"
REGION = ["--season", "2022", "--cells", "4", "--dates", "1", "--scenes", "1", "--cloudiness", "0.1"]
#: Runs in the network of the services, outside of the image: an S3 server in place of SeaweedFS.
S3_SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
ThreadedMotoServer("127.0.0.1", 8333, verbose=False).start()
time.sleep(3600)
"""
#: How Docker mounts folders in memory.
AS_DOCKER = "nosuid,nodev,noexec"
#: Seconds that a service may take to be healthy, and the run of a flow to end.
PATIENCE, RUN = 180.0, 600.0


def seal_root(image: Image) -> str:
    """Make the root of an image read-only, but for its volumes and what compose.yaml keeps in memory."""
    root = image.root
    for place in ("data", "work", "home/h2crop"):
        mounted("-t", "tmpfs", "-o", f"uid=10001,gid=10001,mode=0750,{AS_DOCKER}", "tmpfs", str(root / place))
    mounted("-t", "tmpfs", "-o", f"mode=1777,{AS_DOCKER}", "tmpfs", str(root / "tmp"))
    (root / "run/hosts").write_text("127.0.0.1 localhost postgres prefect-server dask-scheduler storage\n")
    mounted("-o", "remount,ro", str(root))
    if image.run(["touch", "/opt/h2crop/x"]).returncode == 0:
        raise RunError(f"{image.name}: its root can be written")
    return "from here on with a root that cannot be written; /data, /work, /home/h2crop and /tmp in memory"


def check_use(builder: Image, reader: Image) -> Iterator[str]:
    """The builder simulates, plans, builds and validates a small region; the reader reads the store."""
    start = time.monotonic()
    builder.must(["h2crop", "simulate", "/data/region", *REGION])
    builder.must(["h2crop", "plan", "/data/region/recipe.yaml", "--out", "/data/plan"])
    builder.must(["h2crop", "build", "/data/plan", "--out", "/data/store"])
    builder.must(["h2crop", "validate", "/data/store"])
    yield f"builder: simulated, planned, built and validated a region in {time.monotonic() - start:.0f} s"
    mounted("--bind", str(builder.root / "data"), str(reader.root / "data"))
    reader.must(["h2crop", "inspect", "/data/store", "--plot", "/tmp/sample.png"])
    reader.must(["h2crop", "validate", "/data/store"])
    refused = reader.run(["h2crop", "build", "/data/plan", "--out", "/tmp/store"])
    if refused.returncode == 0:
        raise RunError("the reader builds; it has packages that it should not have")
    yield f"reader: inspected and validated that store; builds nothing: {refused.stderr.strip()[-200:]}"


def filled(compose_file: Path) -> dict[str, Any]:
    """The services of a compose file as Compose would run them: its variables filled in, merges applied."""
    text = compose_file.read_text(encoding="utf-8")
    for name, value in FILLED.items():
        start = f"${{{name}:"
        while start in text:
            before, _, after = text.partition(start)
            text = before + value + after.split("}", 1)[1]
    while "${" in text:
        before, _, after = text.partition("${")
        inside, _, rest = after.partition("}")
        text = before + inside.partition(":-")[2] + rest
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


def check_services(image: Image, compose_file: Path, folder: Path) -> Iterator[str]:
    """Every service of our image by its command, environment and health check of compose.yaml; then a build by them.

    Prefect keeps its database in a file here, and S3 is moto.
    """
    services = filled(compose_file)
    own_network()
    with ExitStack() as running:
        log = folder / "s3.log"
        with log.open("wb") as file:
            server = subprocess.Popen([sys.executable, "-W", "ignore", "-c", S3_SERVER], stdout=file, stderr=file)
        running.callback(ended, server)
        wait_for("S3", lambda: listens(8333), log)
        for name in OURS:
            service = services[name]
            environment = {key: str(value) for key, value in service.get("environment", {}).items()}
            environment = {key: value for key, value in environment.items() if "DATABASE" not in key}
            start = time.monotonic()
            if service["restart"] == "no":
                image.must(service["command"], environment)
                yield f"{name}: done in {time.monotonic() - start:.0f} s"
                continue
            running.enter_context(started(image, name, service["command"], environment, folder))
            test = service["healthcheck"]["test"][1:]
            wait_for(name, lambda test=test: image.run(test).returncode == 0, folder / f"{name}.log")
            yield f"{name}: healthy after {time.monotonic() - start:.0f} s"
        start = time.monotonic()
        client = {key: str(value) for key, value in services["worker"]["environment"].items()}
        page = image.must(["python", "-c", PAGE], client)
        yield f"Prefect's page is served, its API refuses clients without the password: {page.strip()}"
        said = image.run(["prefect", "deployment", "run", DEPLOYMENT, "--watch"], client, RUN)
        if said.returncode:
            logs = "\n".join((folder / f"{name}.log").read_text()[-3000:] for name in ("worker", "dask-worker"))
            raise RunError(f"the run failed: {said.stdout[-2000:]}{said.stderr[-2000:]}\n{logs}")
        deployment = json.loads(
            image.must(["prefect", "deployment", "inspect", DEPLOYMENT, "--output", "json"], client)
        )
        check_cluster(deployment["parameters"], (folder / "dask-scheduler.log").read_text(errors="replace"))
        image.must(["h2crop", "validate", "s3://h2crop/store"], client)
        image.must(["h2crop", "compare", "/data/store", "s3://h2crop/store"], client)
        yield (
            f"a run of the flow built s3://h2crop/store on the Dask worker in {time.monotonic() - start:.0f} s; "
            "it is valid and has the samples of the store that was built by hand"
        )


def check_cluster(parameters: dict[str, Any], log: str) -> None:
    """Whether a deployment builds on the Dask cluster, and a build of h2crop came to the scheduler, by its log.

    Raises RunError: the worker of Prefect can build by itself, and the store would be the same.
    """
    if parameters.get("dask") != CLUSTER:
        raise RunError(f"{DEPLOYMENT} does not build on {CLUSTER}: its parameter is {parameters.get('dask')!r}")
    if "Receive client connection: Client-h2crop-" not in log:
        raise RunError(f"no build came to the Dask scheduler; its log ends:\n{log[-3000:]}")


PAGE = """
import os, urllib.error, urllib.request
try:
    urllib.request.urlopen(os.environ["PREFECT_API_URL"] + "/version", timeout=10)
except urllib.error.HTTPError as refused:
    assert refused.code == 401, refused
else:
    raise SystemExit("Prefect's API answers without a password")
with urllib.request.urlopen(os.environ["PREFECT_API_URL"].removesuffix("api"), timeout=10) as page:
    text = page.read().decode()
assert "<html" in text, text[:200]
print(len(text), "bytes")
"""


def own_network() -> None:
    """Give this process a network of its own with nothing but its loopback: fixed ports are free, nothing gets out."""
    new_network = 0x40000000
    if ctypes.CDLL(None, use_errno=True).unshare(new_network):
        raise RunError(f"no network of its own: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def listens(port: int) -> bool:
    """Whether somebody listens at a port of this network."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def started(image: Image, name: str, command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    """A service while it is needed; its output goes to a file of its name."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            image.entered(command),
            env=image.environment_with(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        ended(process)


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a process, politely at first."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(30)


def wait_for(what: str, look: Any, log: Path) -> None:
    """Wait until something is so. Raises RunError with the end of its log when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > deadline:
            raise RunError(f"{what} is not healthy after {PATIENCE:.0f} s\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(1)
