"""What infra/local-service.sh asks: free ports, secrets, whether a server answers, scheduled runs, what is left.

Each command is one question; what it prints is for the script. Passwords come from files or the environment, as every
user of this machine sees the arguments of a process.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import yaml

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
#: What every process of a service has in its environment, with the id of the service.
MARK = "H2CROP_LOCAL_SERVICE"
#: Seconds between two looks.
PAUSE = 0.3


def free_ports(number: int) -> list[int]:
    """Different free ports of this machine."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def write_secrets(folder: Path) -> None:
    """Make what keeps the service closed: a file each, which only this user can read."""
    folder.mkdir(mode=0o700, exist_ok=True)
    made = {
        "database-password": secrets.token_urlsafe(24),
        "api-password": secrets.token_urlsafe(24),
        "s3-secret-key": secrets.token_urlsafe(30),
        # A key of Fernet, with which the server encrypts blocks.
        "encryption-key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    for name, value in made.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(value, encoding="utf-8")


def await_answer(url: str, seconds: float, process: int, expected: str = "") -> bool:
    """Whether an address answers, with a text in it, before time is over or a process has ended."""

    def look() -> bool | None:
        try:
            answer = requests.get(url, timeout=5)
        except requests.RequestException:
            return None if lives(process) else False
        return (answer.ok and expected in answer.text) or (None if lives(process) else False)

    return bool(looked(look, seconds))


def lives(process: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def looked(look: Callable[[], Any | None], seconds: float) -> Any | None:
    """What looking gives, once it is not None; None after so many seconds."""
    end = time.monotonic() + seconds
    while (found := look()) is None and time.monotonic() < end:
        time.sleep(PAUSE)
    return found


def render_deployments(source: Path, target: Path, interval: float, dask: str) -> None:
    """Write a copy of infra/prefect.yaml whose `refresh` comes every some seconds and builds on a Dask cluster."""
    document = yaml.safe_load(source.read_text(encoding="utf-8"))
    (refresh,) = (one for one in document["deployments"] if one["name"] == "refresh")
    refresh["schedules"] = [{"interval": interval, "slug": "often"}]
    refresh["parameters"] |= {"dask": dask}
    target.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


class Api:
    """Prefect's API, as the environment says where it is."""

    def __init__(self) -> None:
        self._url = os.environ["PREFECT_API_URL"]
        user, _, password = os.environ["PREFECT_API_AUTH_STRING"].partition(":")
        self._session = requests.Session()
        self._session.auth = (user, password)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """An answer; the database may be busy for a moment."""
        for _ in range(20):
            answer = self._session.request(method, f"{self._url}/{path}", json=body, timeout=60)
            if answer.status_code != 503:
                break
            time.sleep(PAUSE)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment, `flow/name`."""
        found: dict[str, Any] = self.ask("GET", f"deployments/name/{name}")
        return found

    def scheduled_runs(self, name: str) -> list[dict[str, Any]]:
        """The runs of a deployment that the server's schedule made and that have begun, in order."""
        of_it = {"deployments": {"id": {"any_": [self.deployment(name)["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        runs = self.ask("POST", "flow_runs/filter", of_it)
        return [run for run in runs if run["auto_scheduled"] and run["start_time"]]

    def clear_schedules(self, name: str) -> None:
        """End the schedules of a deployment; runs that have not begun go with them."""
        deployment = self.deployment(name)
        for schedule in deployment["schedules"]:
            self.ask("DELETE", f"deployments/{deployment['id']}/schedules/{schedule['id']}")


def await_run(api: Api, name: str, number: int, seconds: float, *, begun: bool = False) -> dict[str, Any] | None:
    """The number-th scheduled run of a deployment when it has ended, or begun; None where it takes too long."""

    def look() -> dict[str, Any] | None:
        runs = api.scheduled_runs(name)
        if len(runs) < number or not (begun or runs[number - 1]["state"]["type"] in ENDED):
            return None
        return runs[number - 1]

    return looked(look, seconds)


def run_log(api: Api, run: str) -> list[str]:
    """The lines of a run's log."""
    body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
    return [line["message"] for line in api.ask("POST", "logs/filter", body)]


def left_processes(service: str, database: Path) -> list[int]:
    """Processes of a service that live: with its mark in their environment, or working in its database's folder."""
    mark, found = f"{MARK}={service}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        number = int(place.name)
        try:
            ours = mark in (place / "environ").read_bytes().split(b"\0") or (place / "cwd").resolve() == database
        except OSError:
            continue
        if ours and number not in (os.getpid(), os.getppid()) and lives(number):
            found.append(number)
    return sorted(found)


def open_ports(ports: list[int]) -> list[int]:
    """Those of some ports at which somebody of this machine answers."""
    found = []
    for port in ports:
        with socket.socket() as probe:
            probe.settimeout(2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.append(port)
    return found


def summary(folder: Path, service: str, seconds: float, failed: str) -> dict[str, Any]:
    """What a service did, from the files that its script wrote. failed: the step that failed; empty for none."""
    return {
        "service": service,
        "ok": not failed,
        "failed": failed or None,
        "seconds": seconds,
        "steps": [{"name": name, "seconds": number} for name, number in numbers_of(folder / "steps")],
        "processes": dict(numbers_of(folder / "started")),
        "ports": dict(numbers_of(folder / "ports")),
        "runs": [json.loads(line) for line in lines_of(folder / "runs")],
        "logs": str(folder / "logs"),
    }


def numbers_of(path: Path) -> list[tuple[str, int]]:
    """Names and numbers, a line each."""
    rows = (line.split("\t") for line in lines_of(path))
    return [(name, int(number)) for name, number in rows]


def lines_of(path: Path) -> list[str]:
    """The lines of a file; none where it is not there."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def show_run(arguments: argparse.Namespace) -> int:
    """Wait for a scheduled run, and show its state; 1 where it is another than expected, or took too long."""
    api = Api()
    run = await_run(api, arguments.deployment, arguments.number, arguments.seconds)
    if run is None:
        print(f"scheduled run {arguments.number} did not end in {arguments.seconds:g} s")
        for begun in api.scheduled_runs(arguments.deployment):
            print(f"{begun['name']}: {begun['state']['name']}", *run_log(api, begun["id"])[-20:], sep="\n    ")
        return 1
    state = {key: run["state"][key] for key in ("type", "name", "message")}
    with (arguments.folder / "runs").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": run["id"], "run": run["name"], "seconds": run["total_run_time"], **state}) + "\n")
    print(f"{run['name']} {state['name']}: {state['message']}")
    if (state["type"], state["name"]) == ("COMPLETED", arguments.expected):
        return 0
    print(f"expected the state {arguments.expected}; its log ends:", *run_log(api, run["id"])[-40:], sep="\n    ")
    return 1


def no_more_runs(arguments: argparse.Namespace) -> int:
    """Wait until some scheduled runs have begun, then end the schedule; 1 where that takes too long."""
    api = Api()
    if await_run(api, arguments.deployment, arguments.number, arguments.seconds, begun=True) is None:
        print(f"scheduled run {arguments.number} did not begin in {arguments.seconds:g} s")
        return 1
    api.clear_schedules(arguments.deployment)
    return 0


def show_left(arguments: argparse.Namespace) -> int:
    """Print the ids of processes that are left, and ports that are still open to standard error; 1 where any is."""

    def look() -> tuple[list[int], list[int]] | None:
        left = left_processes(arguments.service, arguments.database), open_ports(arguments.ports)
        return None if any(left) else left

    if looked(look, arguments.seconds) is not None:
        return 0
    processes, ports = left_processes(arguments.service, arguments.database), open_ports(arguments.ports)
    for number in processes:
        command = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        print(f"process {number} is left: {command}", file=sys.stderr)
    for port in ports:
        print(f"port {port} is still open", file=sys.stderr)
    print(*processes)
    return 1 if processes or ports else 0


def main() -> int:
    """Answer one question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True)

    def command(name: str, work: Callable[[argparse.Namespace], int | None], *options: tuple[str, type]) -> None:
        one = commands.add_parser(name, help=(work.__doc__ or "").partition("\n")[0] or None)
        for option, kind in options:
            one.add_argument(option, type=kind, nargs="*" if option == "ports" else None)
        one.set_defaults(work=work)

    deployment = (("folder", Path), ("deployment", str), ("number", int), ("seconds", float))
    command("ports", lambda given: print(*free_ports(given.number)), ("number", int))
    command("secrets", lambda given: write_secrets(given.folder), ("folder", Path))
    command(
        "answers",
        lambda given: 0 if await_answer(given.url, given.seconds, given.process, given.expected or "") else 1,
        ("url", str), ("seconds", float), ("process", int), ("--expected", str),
    )  # fmt: skip
    command(
        "deployments",
        lambda given: render_deployments(given.source, given.target, given.interval, given.dask),
        ("source", Path), ("target", Path), ("interval", float), ("dask", str),
    )  # fmt: skip
    command("run", show_run, *deployment, ("expected", str))
    command("no-more-runs", no_more_runs, *deployment)
    command("left", show_left, ("service", str), ("database", Path), ("seconds", float), ("ports", int))
    command(
        "summary",
        lambda given: print(json.dumps(summary(given.folder, given.service, given.seconds, given.failed), indent=2)),
        ("folder", Path), ("service", str), ("seconds", float), ("failed", str),
    )  # fmt: skip
    arguments = parser.parse_args()
    return arguments.work(arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
