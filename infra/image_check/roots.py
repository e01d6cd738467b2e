"""Root folders that stand for images: stages as layers over each other, and commands run in them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instructions import Context, Stage, copied, expanded, variables

#: Where the certificates of this machine are seen while instructions run.
CERTIFICATES = "/run/certificates.crt"
#: What pip and apt need of this machine to reach their registries.
PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "http_proxy", "https_proxy", "no_proxy")
#: Looked for with this machine's PATH, not the image's.
CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"
#: The pip of the image that is stood for, which Debian has in another version.
PIP = "24.0"
#: The PATH of the image that is stood for.
PATH = "/usr/local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEVICES = ("null", "zero", "full", "random", "urandom")


class RunError(Exception):
    """A command that failed in a root, with the end of what it said."""


@dataclass
class Image:
    """A root folder with what the instructions said of it. layers: its own part and those below, the lowest first."""

    name: str
    root: Path
    layers: list[Path]
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    folder: str = "/"
    labels: dict[str, str] = field(default_factory=dict)
    healthcheck: str = ""
    command: str = ""
    #: Packages of Debian that the instructions installed.
    installed: set[str] = field(default_factory=set)

    def run(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float = 900.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the image's user in its folder, with its environment and no other; gives what it said."""
        return subprocess.run(
            self.entered(command),
            env=self.environment_with(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def entered(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one in the root."""
        enter = 'cd "$1" && shift && exec "$@"'
        return [CHROOT, f"--userspec={self.user}", str(self.root), "/bin/sh", "-c", enter, "sh", self.folder, *command]

    def environment_with(self, further: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables that a process of the image sees."""
        home = "/root" if self.user.startswith("0") else "/home/h2crop"
        return {"HOME": home, **self.environment, **(further or {})}

    def must(self, command: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float = 900.0) -> str:
        """What a command printed. Raises RunError where it fails."""
        done = self.run(command, environment, seconds)
        if done.returncode:
            said = (done.stdout + done.stderr).strip()[-3000:]
            raise RunError(f"{self.name}: {' '.join(command)} ended with {done.returncode}\n{said}")
        return done.stdout

    def packages(self) -> set[str]:
        """The packages of Debian in it."""
        return set(self.must(["dpkg-query", "--show", "--showformat", "${Package}\n"]).split())

    def asked_for(self) -> set[str]:
        """Those of them that were asked for by name."""
        return set(self.must(["apt-mark", "showmanual"]).split())


def mounted(*arguments: str) -> None:
    """Mount something; it is gone with the namespace of this process. Raises RunError."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


def make_base(folder: Path) -> Image:
    """What stands for the base image: Debian's smallest system and its Python, under the names of the image's.

    folder: for everything that is made. The name of the release comes from the caller's Dockerfile by its tag.
    """
    base = Image("base image", folder / "base", [folder / "base"], {"PATH": PATH})
    prepare(base)
    # As the images of Docker's Debian have it: apt keeps no caches.
    (base.root / "etc/apt/apt.conf.d/docker-clean").write_text(
        'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
    )
    known = base.packages()
    base.must(["apt-get", "update", "-qq"])
    base.must(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", "python3-venv", "python3-pip"])
    pip = ["python3", "-m", "pip", "install", "--quiet", "--break-system-packages", "--no-cache-dir", f"pip=={PIP}"]
    base.must(pip, network_settings())
    base.must(["sh", "-c", "rm -rf /var/lib/apt/lists/*; ln -s /usr/bin/python3 /usr/local/bin/python"])
    base.installed = known
    return base


def prepare(image: Image) -> None:
    """Give a root processes, devices and the way to the network."""
    root = image.root
    mounted("-t", "proc", "proc", str(root / "proc"))
    mounted("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "dev"))
    for name in DEVICES:
        (root / "dev" / name).touch()
        mounted("--bind", f"/dev/{name}", str(root / "dev" / name))
    (root / "dev/shm").mkdir()
    mounted("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "dev/shm"))
    mounted("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "run"))
    bundle = next((path for path in trusted() if path.is_file()), None)
    if bundle is not None:
        shutil.copy(bundle, root / CERTIFICATES.removeprefix("/"))
    for name in ("resolv.conf", "hosts"):
        shutil.copy(Path("/etc") / name, root / "run" / name)
        if not (root / "etc" / name).is_symlink():
            (root / "etc" / name).unlink(missing_ok=True)
            (root / "etc" / name).symlink_to(f"/run/{name}")


def trusted() -> list[Path]:
    """Where the certificates of this machine lie, the first that is there."""
    return [Path(os.environ.get("PIP_CERT") or "/nowhere"), Path("/etc/ssl/certs/ca-certificates.crt")]


def network_settings() -> dict[str, str]:
    """Variables for instructions that download."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"PIP_CERT": CERTIFICATES, **passed}


def layered(name: str, below: Image, folder: Path) -> Image:
    """A new image over another one: what is written goes into a layer of its own."""
    own, work, root = (folder / f"{name}-{part}" for part in ("layer", "work", "root"))
    for path in (own, work, root):
        path.mkdir()
    lower = ":".join(str(layer) for layer in reversed(below.layers))
    mounted("-t", "overlay", "-o", f"lowerdir={lower},upperdir={own},workdir={work}", "overlay", str(root))
    image = Image(
        name,
        root,
        [*below.layers, own],
        dict(below.environment),
        below.user,
        below.folder,
        dict(below.labels),
        below.healthcheck,
        below.command,
        set(below.installed),
    )
    prepare(image)
    return image


def make_stage(stage: Stage, below: Image, made: Mapping[str, Image], context: Context, folder: Path) -> Image:
    """Run the instructions of a stage in order. Raises RunError, DockerfileError."""
    image = layered(stage.name, below, folder)
    for name, value in stage.instructions:
        if name == "ENV":
            for variable, text in variables(value).items():
                image.environment[variable] = expanded(text, image.environment)
        elif name == "RUN":
            before = image.packages(), image.asked_for()
            image.must(["/bin/sh", "-c", value], network_settings())
            # What the stand-in had already counts when it is asked for: the image may lack it.
            image.installed |= (image.packages() - before[0]) | (image.asked_for() - before[1])
        elif name == "COPY":
            copy_into(image, value, made, context)
        elif name == "WORKDIR":
            image.folder = value
            inside(image, value).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            image.user = value
        elif name == "LABEL":
            image.labels |= variables(value)
        elif name == "HEALTHCHECK":
            image.healthcheck = value
        else:
            image.command = value
    return image


def inside(image: Image, path: str) -> Path:
    """A path of an image, as seen from outside."""
    return image.root / os.path.normpath(os.path.join(image.folder, path)).removeprefix("/")  # noqa: PTH118


def copy_into(image: Image, value: str, made: Mapping[str, Image], context: Context) -> None:
    """What COPY does: a folder's contents, or files, from the context or from another stage; all owned by root."""
    stage, sources, target = copied(value)
    place = inside(image, target)
    for source in sources:
        start = inside(made[stage], source) if stage else context.folder / source
        if stage:
            shutil.copytree(start, place, symlinks=True, dirs_exist_ok=True)
            continue
        for file in context.files(source):
            if start.is_dir():
                aim = place / file.relative_to(start)
            else:
                aim = place / file.name if target.endswith("/") or len(sources) > 1 else place
            aim.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, aim)


def megabytes(folder: Path) -> float:
    """What the files of a layer take, in MB, each file once."""
    total = 0
    seen: set[int] = set()
    for path in folder.rglob("*"):
        status = path.lstat()
        if not path.is_dir() and status.st_ino not in seen:
            seen.add(status.st_ino)
            total += status.st_size
    return total / 1e6
