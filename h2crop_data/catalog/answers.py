"""Answers of web servers, with a limit on the time of the whole answer, however slowly its bytes come.

The timeout of requests applies between two pieces, of the head of an answer as of its body: a server that sends a byte
now and then would block the caller permanently.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from requests import Response
from requests.exceptions import RequestException

READ_BYTES = 65536
#: Below 500, what a server answers that has no time for now.
BUSY_STATUS = (408, 425, 429)
Answer = TypeVar("Answer")


class LateAnswerError(OSError):
    """An answer that did not come in time."""


def is_passing_status(status: int) -> bool:
    """Whether a refusal may be an answer later: of a server that is down or busy."""
    return status in BUSY_STATUS or status >= 500


def begun_by(until: float, ask: Callable[[], Answer]) -> Answer:
    """An answer whose head is there in time, or what a library makes of one. Raises LateAnswerError, and as `ask`.

    until: on the clock of `time.monotonic`. Nothing but its server ends a head that is late: it is waited for beside.
    """
    came: SimpleQueue[Answer | Exception] = SimpleQueue()
    given_up = Event()

    def wait() -> None:
        try:
            answer = ask()
        except Exception as error:  # noqa: BLE001 -- whoever waits raises it
            came.put(error)
            return
        came.put(answer)
        if given_up.is_set() and isinstance(answer, Response):
            with suppress(OSError, RequestException):
                answer.close()

    Thread(target=wait, name="answer", daemon=True).start()
    try:
        answer = came.get(timeout=max(0.0, until - time.monotonic()))
    except Empty:
        given_up.set()
        raise LateAnswerError("timeout: no answer began in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def pieces_by(
    until: float, response: Response, seconds_a_byte: float = 0.0, clock: Callable[[], float] = time.monotonic
) -> Iterator[bytes]:
    """The body of an answer as it comes. Raises LateAnswerError where it does not end in time, HTTPError of urllib3.

    until: on the clock; each byte that came moves it by `seconds_a_byte`.
    """
    while piece := response.raw.read1(READ_BYTES, decode_content=True):
        until += len(piece) * seconds_a_byte
        if clock() > until:
            raise LateAnswerError("timeout: its answer did not end in time")
        yield piece
