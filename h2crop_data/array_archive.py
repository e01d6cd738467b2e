"""Arrays kept together in one file (NumPy's npz), read by many threads at once."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

#: NumPy reads the header of an array with `ast`. In Python before 3.11.8, two threads that do so at the same time may
#: end in "SystemError: AST constructor recursion depth mismatch" (CPython issue 106905).
READING = Lock()


def read_arrays(file: Path | IO[bytes]) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file, by name.

    Raises OSError, ValueError, EOFError or zipfile.BadZipFile for an invalid or truncated file, ValueError for arrays
    of Python objects.
    """
    with READING, np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def read_array(file: Path | IO[bytes], name: str) -> NDArray[Any]:
    """One array of an npz file; the others are not read. Raises as `read_arrays`, and KeyError without it."""
    with READING, np.load(file, allow_pickle=False) as archive:
        array: NDArray[Any] = archive[name]
        return array
