"""EnMAP products that a user downloaded by hand, as folders and archives have them.

A product is the files of one name, `ENMAP01-____L2A-...-PART.TIF`, wherever they lie. Zip and tar files are unpacked,
also those inside others; what lies about unpacked already is not unpacked again.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import zipfile
import zlib
from calendar import timegm
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from h2crop_data.catalog.drafts import draft_of
from h2crop_data.enmap.quality import LAYERS
from h2crop_data.errors import UsageError
from h2crop_data.progress import Progress, silent

#: The part of a product that is each asset of DLR's items.
PART_ASSETS = {
    "SPECTRAL_IMAGE": "image",
    "METADATA": "metadata",
    "QL_VNIR": "vnir",
    "QL_SWIR": "swir",
    "QL_QUALITY_CLASSES": "quality_classes",
    "QL_QUALITY_CLOUD": "quality_cloud",
    "QL_QUALITY_CLOUDSHADOW": "quality_cloud_shadow",
    "QL_QUALITY_HAZE": "quality_haze",
    "QL_QUALITY_CIRRUS": "quality_cirrus",
    "QL_QUALITY_SNOW": "quality_snow",
    "QL_QUALITY_TESTFLAGS": "quality_testflags",
    "QL_PIXELMASK": "defective_pixel_mask",
}
#: What a build reads, in the order files are named to users.
READ_ASSETS = ("image", "metadata", *LAYERS)
PRODUCT_FILE = re.compile(
    r"(?P<product>ENMAP01-____(?P<level>L\w\w)-DT\d{10}_\d{8}T\d{6}Z_\d{3}_V\d{6}_\d{8}T\d{6}Z)"
    r"-(?P<part>\w+?)(?P<cog>_COG)?\.(?P<ending>\w+)",
    re.IGNORECASE,
)
ARCHIVE_NAME = re.compile(r"\.(zip|tar|tar\.gz|tgz)$", re.IGNORECASE)
#: Archives inside archives are opened to this depth.
MOST_NESTED = 3
#: Bytes that are copied at a time.
COPIED_BYTES = 2**20
#: What is raised for an archive that is damaged, or that asks for a password.
BAD_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class ProductFile:
    """A file of a product, by its name."""

    product: str
    #: `L2A`.
    level: str
    #: Asset of DLR's items; empty for a part that no asset is.
    key: str
    #: Whether it is a cloud-optimised GeoTIFF, by its name.
    optimised: bool
    #: In capitals, `TIF`.
    ending: str

    @property
    def usable(self) -> bool:
        """Whether it is an asset in a format that is read."""
        return bool(self.key) and self.ending in (("XML",) if self.key == "metadata" else ("TIF", "TIFF"))


@dataclass
class FoundProduct:
    """The files of a product."""

    name: str
    level: str
    #: Asset -> file.
    files: dict[str, Path] = field(default_factory=dict)
    #: Names of files of assets in formats that are not read.
    unread: list[str] = field(default_factory=list)
    #: A damaged archive that holds some of it, so that files may be missing; empty where there is none.
    damaged: str = ""


@dataclass
class FoundProducts:
    """What lies in some folders and archives."""

    #: By name.
    products: dict[str, FoundProduct] = field(default_factory=dict)
    #: Archive -> why it, or a part of it, was not read.
    problems: dict[str, str] = field(default_factory=dict)


def product_file(name: str) -> ProductFile | None:
    """What a file name says; None where it is no name of a file of an EnMAP product."""
    match = PRODUCT_FILE.fullmatch(name)
    if match is None:
        return None
    key = PART_ASSETS.get(match["part"].upper(), "")
    return ProductFile(
        match["product"].upper(), match["level"].upper(), key, bool(match["cog"]), match["ending"].upper()
    )


def find_products(places: Sequence[Path], unpacked: Path, progress: Progress = silent) -> FoundProducts:
    """The products in folders and archives.

    unpacked: the folder below which archives are unpacked, one folder a product; made where it is needed.
    Raises UsageError for a place that is not there.
    """
    files: list[Path] = []
    for place in places:
        if not place.exists():
            raise UsageError(f"{place} does not exist")
        files += [place] if place.is_file() else files_below(place, unpacked)
    files = list(dict.fromkeys(path.resolve() for path in files))
    found = FoundProducts()
    for path in files:
        add_file(found, path.name, path)
    archives = [path for path in files if ARCHIVE_NAME.search(path.name)]
    for number, path in enumerate(archives):
        progress(number, len(archives), f"unpack {path.name}")
        unpack_archive(found, path, str(path), unpacked, MOST_NESTED)
    return found


def files_below(folder: Path, but_in: Path) -> list[Path]:
    """Every file below a folder, but those below another one, in order of path."""
    left_out = but_in.resolve()
    paths = (Path(where).resolve() / name for where, _, names in os.walk(folder) for name in names)
    return sorted(path for path in paths if not path.is_relative_to(left_out))


def add_file(found: FoundProducts, name: str, path: Path) -> None:
    """Add a file to what was found, if it belongs to a product; of the same part a cloud-optimised one counts."""
    named = product_file(name)
    if named is None or not named.key:
        return
    product = found.products.setdefault(named.product, FoundProduct(named.product, named.level))
    if not named.usable:
        product.unread.append(name)
    elif named.optimised or named.key not in product.files:
        product.files[named.key] = path


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    #: Without its folders.
    name: str
    size: int
    #: When it was changed, seconds since 1970.
    modified: float
    #: CRC-32 of its content; None where the archive keeps none (tar).
    checksum: int | None
    open: Callable[[], IO[bytes]]


@contextmanager
def opened_archive(path: Path) -> Iterator[Iterator[Member]]:
    """The files in a zip or tar file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            yield (zip_member(file, info) for info in file.infolist() if not info.is_dir())
    else:
        with tarfile.open(path) as packed:
            yield tar_members(packed)


def zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    """A file in a zip file, whose times have no zone."""
    modified = float(timegm(info.date_time))
    return Member(Path(info.filename).name, info.file_size, modified, info.CRC, partial(file.open, info))


def tar_members(packed: tarfile.TarFile) -> Iterator[Member]:
    """The files in a tar file. Raises EOFError where it is cut: Python's reader then ends as if it were whole."""
    for info in packed:
        if info.isfile():
            yield tar_member(packed, info)
    assert packed.fileobj is not None
    # A whole one ends with a block of zeros, which has been read.
    if packed.fileobj.tell() < packed.offset + tarfile.BLOCKSIZE:
        raise EOFError("it is truncated")


def tar_member(packed: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    """A file in a tar file."""

    def opened() -> IO[bytes]:
        content = packed.extractfile(info)
        assert content is not None
        return content

    return Member(Path(info.name).name, info.size, float(info.mtime), None, opened)


def unpack_archive(found: FoundProducts, archive: Path, shown: str, unpacked: Path, depth: int) -> None:
    """Unpack the files of products in an archive, and in archives inside it; what was found before stays packed.

    shown: what to call the archive. Damage is noted in `found`.
    """
    before = {(product.name, key) for product in found.products.values() for key in product.files}
    problem, seen = "", set()
    try:
        with opened_archive(archive) as members:
            for member in members:
                named = product_file(member.name)
                if named is not None:
                    path = unpacked.resolve() / named.product / member.name
                    if (named.product, named.key) in before:
                        continue
                    seen.add(named.product)
                    if named.usable:
                        unpack_member(member, path)
                    add_file(found, member.name, path)
                elif ARCHIVE_NAME.search(member.name) and depth > 1:
                    unpack_nested(found, member, f"{shown}/{member.name}", unpacked, depth - 1)
    except BAD_ARCHIVE as error:
        problem = f"it is damaged, or not of the type in its name: {error}"
    except OSError as error:
        problem = f"cannot unpack it: {error}"
    if problem:
        found.problems[shown] = problem
        for name in seen & found.products.keys():
            found.products[name].damaged = shown


def unpack_nested(found: FoundProducts, member: Member, shown: str, unpacked: Path, depth: int) -> None:
    """Unpack an archive that lies in another one."""
    inner = unpacked / f".{member.name}.{os.getpid()}"
    try:
        unpack_member(member, inner)
        unpack_archive(found, inner, shown, unpacked, depth)
    finally:
        inner.unlink(missing_ok=True)


def unpack_member(member: Member, path: Path) -> None:
    """Write a file of an archive, unless it is there.

    It keeps the time it was changed at: to a build a file of another time is another file.
    """
    if is_unpacked(member, path):
        return
    with draft_of(path) as draft:
        with member.open() as content, draft.open("wb") as file:
            shutil.copyfileobj(content, file, COPIED_BYTES)
            if file.tell() != member.size:
                raise EOFError(f"{member.name} is truncated")
        os.utime(draft, (member.modified, member.modified))


def is_unpacked(member: Member, path: Path) -> bool:
    """Whether a file is that of an archive: by its size and its checksum, or by its time where there is none."""
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    if member.checksum is None:
        return path.stat().st_mtime == member.modified
    found = 0
    with path.open("rb") as file:
        while piece := file.read(COPIED_BYTES):
            found = zlib.crc32(piece, found)
    return found == member.checksum
