"""The description of a provider of scenes: where its catalog and files are, what they contain, and what reading them
requires."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import urlsplit

#: What `OfferedCollection.offset` says of the offset that ESA adds to the numbers of Sentinel-2 since baseline 04.00.
OffsetRule = Literal["kept", "removed, see flags", "none"]


@dataclass(frozen=True)
class OfferedCollection:
    """A collection that recipes can be built from."""

    name: str
    sensor: Literal["sentinel2", "enmap"]
    level: Literal["L1C", "L2A"]
    #: Format of its images, `COG` or `JPEG 2000`.
    files: str
    offset: OffsetRule = "none"


@dataclass(frozen=True)
class S3Access:
    """How a bucket is read: with the keys of an account."""

    #: Host (and port) of the endpoint; empty: Amazon's own.
    endpoint: str = ""
    region: str = ""
    https: bool = True
    #: Whoever reads pays.
    requester_pays: bool = False


@dataclass(frozen=True)
class FilePlace:
    """Where some files of a provider lie, and what reading them takes."""

    #: Patterns of their addresses, `s3://eodata/*`; scheme, host (or bucket) and path are matched apart.
    addresses: tuple[str, ...]
    #: What has to be there, in a few words; empty where nothing has.
    needs: str = ""
    #: What to do where it is missing, in a sentence.
    remedy: str = ""
    #: Host whose account in ~/.netrc is sent; None where none is needed.
    netrc: str | None = None
    s3: S3Access | None = None
    #: Signs an address, right before each read.
    sign: Callable[[str], str] | None = field(default=None, repr=False)
    #: What the library that signs is called, where it has to be installed.
    library: str = ""
    #: Options that GDAL is given besides.
    options: Mapping[str, str] = field(default_factory=dict)
    #: Most files read at a time, by all that a user runs on a machine, and by all workers of a cluster; None: as many
    #: as the recipe says.
    connections: int | None = None

    def has(self, address: str) -> bool:
        """Whether a file lies here."""
        return any(is_at(address, pattern) for pattern in self.addresses)


def is_at(address: str, pattern: str) -> bool:
    """Whether an address is of a pattern, part by part: what stands for a path is not taken for a host."""
    try:
        one, other = urlsplit(address), urlsplit(pattern)
    except ValueError:
        return False
    parts = zip((one.scheme, one.netloc.lower(), one.path), (other.scheme, other.netloc, other.path), strict=True)
    return all(fnmatchcase(part, wanted) for part, wanted in parts)


@dataclass(frozen=True)
class Provider:
    """A provider of scenes and their files. Everything in which providers differ is here."""

    #: As recipes and `h2crop providers` call it.
    name: str
    title: str
    #: URL of its STAC API.
    api: str
    collections: tuple[OfferedCollection, ...]
    files: tuple[FilePlace, ...] = ()
    #: Sentinel-2 band -> keys of its asset, the first that an item has counts.
    band_assets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Key of the metadata of a datastrip (MTD_DS.xml); empty where items do not list them.
    datastrip_asset: str = ""
    #: Items of a page of a search.
    page_size: int = 250
    #: Its own documentation.
    about: str = ""
    #: Of assets that several providers name, those of the lowest count; lists are in this order, then by name.
    rank: int = 100

    @property
    def needs(self) -> str:
        """What reading its files requires, in a few words."""
        return "; ".join(dict.fromkeys(place.needs for place in self.files if place.needs)) or "nothing"
