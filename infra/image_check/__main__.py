"""Run the instructions of infra/Dockerfile where no container engine is: `make image-check`.

Each stage becomes a layer over a minimal Debian of the base image's release, made by mmdebstrap; instructions run there
in the Dockerfile's order, with no variable and no file of this machine but what its registries need (certificates).
Then the images are used as their user would: with a root that cannot be written, in a network of their own.

What differs from a container: the Python is Debian's of the same minor version, not the one of python:3.11-slim; the
images that are not ours (PostgreSQL, SeaweedFS) do not run; nothing limits memory and processors; system calls are
those of the machine. Needs root, mmdebstrap and ip (apt-get install mmdebstrap iproute2), the registries of Debian and
PyPI, and 6 GB for some minutes. Leaves nothing behind: mounts end with the process, the folder is deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import checks
import services
from instructions import Context, DockerfileError, Stage, needed_for, read_stages
from roots import Image, RunError, make_base, make_stage

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = CHECKOUT / "infra/Dockerfile"
INSIDE = "IMAGE_CHECK_INSIDE"
TARGETS = ("builder", "reader")


def say(text: str, start: float) -> None:
    print(f"[{time.monotonic() - start:6.1f} s] {text}", flush=True)


def release_of(stages: dict[str, Stage]) -> str:
    """The Debian release of the base image, by its tag. Raises DockerfileError for several, or none."""
    tags = {stage.source for stage in stages.values() if stage.source not in stages}
    match = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-(\w+)", tags.pop()) if len(tags) == 1 else None
    if match is None:
        raise DockerfileError("expected one base image, python:X.Y.Z-slim-RELEASE")
    return match[2]


def own_version() -> str:
    """The version of this checkout."""
    match = re.search(r'^__version__ = "(.+)"$', (CHECKOUT / "h2crop_data/__init__.py").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def run_all(folder: Path, report: Path | None) -> None:
    """Make the images in a folder and check them."""
    start = time.monotonic()
    stages = read_stages(DOCKERFILE)
    release = release_of(stages)
    context = Context(CHECKOUT, DOCKERFILE.with_name("Dockerfile.dockerignore"))
    say(f"mmdebstrap {release}", start)
    bootstrap = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        "--include=ca-certificates,netbase,tzdata",
    ]
    subprocess.run([*bootstrap, release, str(folder / "base")], check=True, stdin=subprocess.DEVNULL)
    base = make_base(folder)
    known = base.installed
    base.installed = set()
    made: dict[str, Image] = {}
    pinned, own = checks.pinned_versions(CHECKOUT / "constraints.txt"), own_version()
    facts: dict[str, list[str]] = {}
    failures = 0
    for target in TARGETS:
        for stage in needed_for(target, stages):
            if stage.name not in made:
                say(f"stage {stage.name}", start)
                made[stage.name] = make_stage(stage, made.get(stage.source, base), made, context, folder)
        image = made[target]
        steps: list[Callable[[], str]] = [
            lambda image=image: checks.size(image),
            lambda image=image: checks.check_user(image),
            lambda image=image: checks.check_remains(image),
            lambda image=image: checks.check_versions(image, pinned, own),
            lambda image=image: checks.check_libraries(image, known),
            lambda image=image: services.seal_root(image),
            lambda image=image: checks.check_command(image, own),
            lambda image=image: checks.check_health(image),
        ]
        for step in steps:
            try:
                fact = step()
            except RunError as error:
                failures += 1
                fact = f"FAILED: {error}"
            facts.setdefault(target, []).append(fact)
            say(f"{target}: {fact}", start)
    for fact in services.check_use(made["builder"], made["reader"]):
        facts.setdefault("use", []).append(fact)
        say(fact, start)
    for fact in services.check_services(made["builder"], CHECKOUT / "infra/compose.yaml", folder):
        facts.setdefault("services", []).append(fact)
        say(fact, start)
    if failures:
        raise RunError(f"{failures} checks failed, see above")
    if report is not None:
        report.write_text(json.dumps({"seconds": round(time.monotonic() - start), **facts}, indent=1) + "\n")
    say("all checks passed; not run here: containers themselves, PostgreSQL's and SeaweedFS's images", start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="write what was found as JSON")
    chosen = parser.parse_args()
    if os.environ.get(INSIDE):
        try:
            run_all(Path(os.environ[INSIDE]), chosen.report)
        except (RunError, DockerfileError, subprocess.SubprocessError, OSError) as error:
            print(f"image-check failed: {error}", file=sys.stderr)
            return 1
        return 0
    if os.getuid() != 0 or not all(shutil.which(name) for name in ("mmdebstrap", "ip")):
        print("image-check needs root, mmdebstrap and ip: apt-get install mmdebstrap iproute2", file=sys.stderr)
        return 1
    # Whatever ends this, what it made goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(mkdtemp(prefix="h2crop-image-check-"))
    folder.chmod(0o755)
    try:
        # Mounts and processes of their own, all ended with the child.
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        done = subprocess.run([*alone, sys.executable, *sys.argv], env={**os.environ, INSIDE: str(folder)}, check=False)
    finally:
        shutil.rmtree(folder)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
