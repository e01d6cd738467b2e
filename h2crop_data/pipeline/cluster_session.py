"""Requirements of the workers of a cluster: the same software as the client, its folders, and its locks.

A session is a folder of a build's own in the work folder, which is gone when the build ends. Its file says what a
worker must be like; to read it is already the proof that the folder is shared.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h2crop_data
from h2crop_data.errors import ClusterError
from h2crop_data.logs import level_in_force
from h2crop_data.plugins import GROUP, PROVIDERS, entry_points_of

SESSION_FILE = "session.json"
#: What the file is called by whose name a folder is known to be the client's.
TOKEN = ".cluster-"
#: Packages whose version changes bytes of a store, or what is sent between processes.
PACKAGES = (
    *("numpy", "pandas", "pyarrow", "scipy", "zarr", "numcodecs", "obstore", "xarray", "pydantic"),
    *("rasterio", "pyproj", "shapely", "geopandas", "pyogrio", "affine", "odc-geo", "odc-stac"),
    *("pystac", "pystac-client", "stac-geoparquet", "planetary-computer", "opencv-python-headless"),
    *("s2cloudless", "lightgbm", "ukis-csmask", "onnxruntime", "distributed", "dask", "cloudpickle"),
)


@dataclass(frozen=True)
class Session:
    """What a task takes along: where the worker finds what it must be like. Small, as every task has it."""

    folder: Path

    @property
    def name(self) -> str:
        """What no other session is called."""
        return self.folder.name

    def description(self) -> dict[str, Any]:
        """The requirements of a worker. Raises OSError where they cannot be read, ValueError where they are damaged."""
        found: dict[str, Any] = json.loads((self.folder / SESSION_FILE).read_text(encoding="utf-8"))
        return found


@contextmanager
def open_session(work: Path, shared: Mapping[str, Path]) -> Iterator[Session]:
    """A new session in the work folder; those that dead clients left are deleted. Raises ClusterError."""
    name = uuid.uuid4().hex
    session = Session(work.absolute() / "cluster" / name)
    folders = {"work folder": session.folder, **{kind: path.absolute() for kind, path in shared.items()}}
    token = f"{TOKEN}{name}"
    try:
        shutil.rmtree(session.folder.parent, ignore_errors=True)
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"{TOKEN}*"):
                left.unlink(missing_ok=True)
            (folder / token).write_text(name, encoding="utf-8")
        described = {
            "versions": versions(),
            "folders": {kind: str(folder) for kind, folder in folders.items()},
            "token": token,
            "log level": level_in_force(),
        }
        (session.folder / SESSION_FILE).write_text(json.dumps(described), encoding="utf-8")
    except OSError as error:
        raise ClusterError(f"cannot write in {error.filename}: {error.strerror or error}") from error
    try:
        with lock_held(session.folder / SESSION_FILE):
            yield session
    finally:
        for folder in folders.values():
            with suppress(OSError):
                (folder / token).unlink()
        shutil.rmtree(session.folder.parent, ignore_errors=True)


@contextmanager
def lock_held(path: Path) -> Iterator[None]:
    """Lock a file, for workers to see whether locks are shared between machines. Raises ClusterError."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise ClusterError(
                f"cannot lock {path}: {error.strerror or error}; mount its file system so that flock works"
            ) from error
        yield


def sees_lock(path: Path) -> bool:
    """Whether this process sees that another one has locked a file. Raises OSError."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def versions() -> dict[str, str]:
    """What must be the same on all machines, by name; empty for what is not installed."""
    packages = {name: installed_version(name) for name in PACKAGES}
    plugins = [point.dist for group in (GROUP, PROVIDERS) for point in entry_points_of(group)]
    return {
        "h2crop-data": h2crop_data.__version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **packages,
        **{plugin.name: plugin.version for plugin in plugins if plugin is not None},
        **native_versions(),
        "the code of h2crop-data": digest_of_code(),
    }


def installed_version(package: str) -> str:
    """The version of a package; empty where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def native_versions() -> dict[str, str]:
    """Of the libraries that packages bring along, or find on their machine."""
    import numcodecs.blosc
    import pyproj
    import rasterio
    import shapely

    return {
        "GDAL": str(rasterio.__gdal_version__),
        "PROJ": str(pyproj.proj_version_str),
        "GEOS": str(shapely.geos_version_string),
        "Blosc": str(numcodecs.blosc.VERSION_STRING),
    }


@cache
def digest_of_code() -> str:
    """SHA-256 of the modules of this package: two checkouts of one version need not be the same."""
    package = Path(h2crop_data.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def unfitness(session: Session) -> list[str]:
    """Why this process cannot work for a session, each reason with what to do; run on a worker."""
    try:
        described = session.description()
    except (OSError, ValueError) as error:
        return [
            f"it cannot read {session.folder / SESSION_FILE} ({error}): all workers must see the work folder of the "
            "store at this path; put it on shared storage (H2CROP_WORK sets another place)"
        ]
    own = versions()
    found = [
        f"{name} is {own.get(name) or 'not installed'}, here {wanted or 'not installed'}"
        for name, wanted in described["versions"].items()
        if own.get(name, "") != wanted
    ]
    if found:
        found[-1] += ": install the same versions there"
    for kind, folder in described["folders"].items():
        found += folder_problems(kind, Path(folder), described["token"])
    if not sees_lock(session.folder / SESSION_FILE):
        found.append(
            f"it does not see the locks of this machine in {session.folder.parent.parent}: mount the file system so "
            "that flock works between machines"
        )
    return found


def folder_problems(kind: str, folder: Path, token: str) -> list[str]:
    """What is wrong with a folder that must be the client's."""
    if not (folder / token).is_file():
        return [
            f"its {folder} is not the {kind} of this build: put it on storage that this machine and all workers see "
            "at the same path"
        ]
    try:
        probe = folder / f"{token}-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return [f"it cannot write in the {kind} {folder}: {error.strerror or error}; give its user the permission"]
    return []
