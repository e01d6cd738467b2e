"""Files of a training, which are replaced whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from h2crop_data.errors import ModelError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file, which holds its old content or all of the new whenever the writer stops.

    write: is called with the open file. Raises ModelError where it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ModelError(f"cannot write {path}: {error}") from error
