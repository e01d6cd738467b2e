"""A local store that notes which process wrote what, also in worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from h2crop_data.storage.local import LocalStorage


class NotingStorage(LocalStorage):
    """Notes every file it writes in a log beside the store."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.log = Path(f"{folder}.log")

    def write_file(self, name: str, parts: Iterable[bytes], *, read_only: bool) -> None:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {name}\n")
        super().write_file(name, parts, read_only=read_only)
