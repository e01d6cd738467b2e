"""What must be true of an image, whatever runs in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from instructions import command_of
from roots import Image, RunError, megabytes

VENV = "/opt/h2crop/venv"
#: Programs that nothing in an image needs at run time.
COMPILERS = ("gcc", "cc", "c++", "g++", "clang", "ld", "as", "make", "cargo", "rustc")
#: What must not lie in an image: sources, caches of pip and apt.
REMAINS = ("/src", "/root/.cache", "/home/h2crop/.cache", "/var/lib/apt/lists/*_Packages*", "/var/cache/apt/*.bin")
#: Where its user may write.
WRITABLE = ("/data", "/work", "/home/h2crop", "/tmp", "/var/tmp", "/dev", "/proc", "/run")
VERSIONS = """
import importlib.metadata as installed, json
print(json.dumps({found.metadata["Name"]: found.version for found in installed.distributions()}))
"""


def plain_name(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned_versions(path: Path) -> dict[str, str]:
    """The versions of a constraints file by plain name."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {plain_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def check_user(image: Image) -> str:
    """Runs as a user of a fixed number who may write where data go, and nowhere else."""
    said = image.must(["sh", "-c", "id -u; id -g"]).split()
    if said[0] == "0" or ":".join(said) != image.user:
        raise RunError(f"{image.name} runs as {said}, its USER is {image.user}")
    skipped = " ".join(f"-path {path} -prune -o" for path in WRITABLE)
    found = image.must(["sh", "-c", f"find / {skipped} -not -type l -writable -print 2>/dev/null || true"]).split()
    if found:
        raise RunError(f"{image.name}: its user may write to {found[:5]}")
    return f"user {image.user}, writes only to {', '.join(WRITABLE[:4])}"


def check_remains(image: Image) -> str:
    """No compiler, no cache, no sources are left; pip is not in the environment."""
    look = "; ".join(f"command -v {name}" for name in COMPILERS)
    found = image.run(["sh", "-c", f"{look}; ls -d {' '.join(REMAINS)} {VENV}/bin/pip* 2>/dev/null"]).stdout.split()
    if found:
        raise RunError(f"{image.name}: {found} is left")
    return "no compiler, no pip in the environment, no caches, no sources"


def check_versions(image: Image, pinned: dict[str, str], own: str) -> str:
    """Every package of the environment has the version of the constraints file."""
    installed = {
        plain_name(name): version for name, version in json.loads(image.must(["python", "-c", VERSIONS])).items()
    }
    if installed.pop("h2crop-data", None) != own:
        raise RunError(f"{image.name}: h2crop-data is not {own}")
    wrong = {name: (version, pinned.get(name)) for name, version in installed.items() if pinned.get(name) != version}
    if wrong:
        raise RunError(f"{image.name}: not as in constraints.txt (installed, pinned): {wrong}")
    return f"{len(installed)} packages as in constraints.txt"


def check_libraries(image: Image, base: set[str]) -> str:
    """Every library that the wheels take from the system is of a package that base image or Dockerfile install.

    base: packages of Debian's smallest system, which every slim image is made of. What this machine's stand-in has
    beside them, for its Python, does not count.
    """
    look = f"find {VENV} -name '*.so*' -type f -exec ldd {{}} + 2>/dev/null"
    lines = image.run(["sh", "-c", look]).stdout.splitlines()
    # Libraries that wheels bring are found by the place of the one that loads them, which ldd does not know.
    brought = set(image.must(["find", VENV, "-name", "*.so*", "-printf", "%f\n"]).split())
    missing = {line.split()[0] for line in lines if "not found" in line and not line.startswith("/")} - brought
    paths = {words[2] for line in lines if len(words := line.split()) > 2 and words[1] == "=>" and words[2][0] == "/"}
    system = {path for path in paths if not path.startswith("/opt/")}
    owners: dict[str, set[str]] = {}
    for path in sorted(system):
        for name in {path, f"/usr{path}", path.removeprefix("/usr")}:
            said = image.run(["dpkg-query", "--search", name]).stdout
            if said:
                owners.setdefault(said.split(":")[0], set()).add(Path(path).name)
    allowed = base | image.installed
    wrong = {name: sorted(files) for name, files in owners.items() if name not in allowed}
    if wrong or missing:
        raise RunError(f"{image.name}: wheels need {wrong or sorted(missing)}, which the Dockerfile does not install")
    return f"libraries of the system: {', '.join(sorted(owners))}"


def check_health(image: Image) -> str:
    """The health check says yes now, and no where h2crop does not start or a service does not answer."""
    command = command_of(image.healthcheck)
    image.must(command)
    for broken in (
        image.run(command, {"PATH": "/usr/local/bin:/usr/bin:/bin"}),
        image.run([*command, "http://127.0.0.1:9/health"]),
    ):
        if broken.returncode != 1:
            raise RunError(
                f"{image.name}: its health check ends with {broken.returncode} where all is broken: {broken}"
            )
    return "health check: 0 when well, 1 when h2crop does not start, 1 when nothing answers"


def check_command(image: Image, own: str) -> str:
    """What it runs by default, and its version."""
    image.must(command_of(image.command))
    version = image.must(["h2crop", "--version"]).strip()
    if own not in version:
        raise RunError(f"{image.name}: `h2crop --version` says {version!r}, not {own}")
    return f"`h2crop --version` says {version}"


def size(image: Image) -> str:
    """The megabytes it adds to its base image, which is its first layer."""
    return f"{sum(megabytes(layer) for layer in image.layers[1:]):.0f} MB on top of the base image"
