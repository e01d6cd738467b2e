"""Archives of arrays: what was written comes back, to many threads, one of which reads at a time."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from h2crop_data.array_archive import read_arrays

ARRAYS = {f"a{number}": np.arange(number, dtype=np.int32) for number in range(12)}


def archive(**arrays: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_one_thread_reads_headers_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # What two at a time would do is rare: Python before 3.11.8 fails once in thousands of times.
    data, reading, counting, together = archive(**ARRAYS), 0, threading.Lock(), []
    read_header = np.lib.format.read_array

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal reading
        with counting:
            reading += 1
            together.append(reading)
        time.sleep(0.0005)
        try:
            return read_header(*arguments, **options)
        finally:
            with counting:
                reading -= 1

    monkeypatch.setattr("numpy.lib.format.read_array", counted)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: read_arrays(io.BytesIO(data)), range(40)))
    assert all(list(arrays) == list(ARRAYS) for arrays in read)
    assert len(together) == 40 * len(ARRAYS)
    assert max(together) == 1


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
