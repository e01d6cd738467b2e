"""From what a user typed to the storage of a store."""

from __future__ import annotations

from pathlib import Path

from h2crop_data.cube.local_storage import LocalStorage
from h2crop_data.cube.storage import Storage
from h2crop_data.errors import StoreError


def open_storage(location: str | Path) -> Storage:
    """The storage at a folder or at an `s3://bucket/prefix` URL. Raises StoreError for other URLs."""
    if "://" not in str(location):
        return LocalStorage(Path(location))
    if not str(location).startswith("s3://"):
        raise StoreError(f"{location}: a store lies in a folder or at s3://bucket/prefix")
    from h2crop_data.cube.object_storage import ObjectStorage

    return ObjectStorage(str(location))
