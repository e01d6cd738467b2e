"""Archives of arrays: what was written comes back, to many threads at once."""

from __future__ import annotations

import gc
import io
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from h2crop_data.array_archive import read_arrays

ARRAYS = {f"a{number}": np.arange(number, dtype=np.int32) for number in range(12)}


class Garbage:
    """Ends in the collection of garbage, which then lets other threads go on."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0)


@pytest.fixture
def threads_that_alternate() -> Iterator[None]:
    """Collections of garbage, and changes of thread, at almost every step."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.freeze()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    sys.setswitchinterval(interval)


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_many_threads_read_archives_at_once(threads_that_alternate: None) -> None:
    data = archive(**ARRAYS)

    def read(_: int) -> set[str]:
        Garbage()
        return set(read_arrays(io.BytesIO(data)))

    with ThreadPoolExecutor(8) as pool:
        assert all(names == set(ARRAYS) for names in pool.map(read, range(400)))


def test_arrays_come_back_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "arrays.npz"
    file.write_bytes(archive(**ARRAYS))
    read = read_arrays(file)
    assert list(read) == list(ARRAYS)
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(read[name], values)
        assert read[name].dtype == values.dtype


def test_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(io.BytesIO(archive(objects=np.array([{}, {}], dtype=object))))
