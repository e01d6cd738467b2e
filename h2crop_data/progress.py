"""How work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

#: Called with (done, total, what is being done).
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, text: str) -> None:
    """Progress that is not shown."""
