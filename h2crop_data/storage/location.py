"""The storage of a store, from its location as given by the user."""

from __future__ import annotations

from pathlib import Path

from h2crop_data.errors import StoreError
from h2crop_data.storage.local import LocalStorage
from h2crop_data.storage.storage import ReadableStorage, Storage

#: How the URLs of stores on web servers begin.
WEB = ("http://", "https://")


def is_folder(location: str | Path) -> bool:
    """Whether this is a folder of this machine, not a URL."""
    return "://" not in str(location)


def is_readable(location: str | Path) -> bool:
    """Whether `open_readable` takes it: a folder, or the URL of a bucket or web server."""
    return is_folder(location) or str(location).startswith(("s3://", *WEB))


def open_storage(location: str | Path) -> Storage:
    """The storage at a folder or at an `s3://bucket/prefix` URL. Raises StoreError for other URLs."""
    if is_folder(location):
        return LocalStorage(Path(location))
    if not str(location).startswith("s3://"):
        raise StoreError(f"invalid location of a store {location}; expected a folder or s3://bucket/prefix")
    from h2crop_data.storage.s3 import ObjectStorage

    return ObjectStorage(str(location))


def open_readable(location: str | Path) -> ReadableStorage:
    """The storage at a folder, an `s3://bucket/prefix` URL or an http(s) URL, to read. Raises StoreError for others."""
    if str(location).startswith(WEB):
        from h2crop_data.storage.web import WebStorage

        return WebStorage(str(location))
    if not is_readable(location):
        raise StoreError(
            f"invalid location of a store {location}; expected a folder, s3://bucket/prefix, http:// or https://"
        )
    return open_storage(location)
