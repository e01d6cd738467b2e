"""Retries and waits, reported in the log when they begin: what, why, how long, and which attempt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event

from h2crop_data.redaction import without_secrets

#: Seconds after which a wait is reported, and between two reports of one that goes on.
REPORTED_AFTER, REPORTED_EVERY = 1.0, 60.0


def report_retry(
    log: logging.Logger, what: str, reason: str, seconds: float, attempt: int, attempts: int | None = None
) -> None:
    """Report that something failed and is tried again, before the pause.

    what: names the file, catalog or object. reason: the failure in words. seconds: of the pause. attempt: the number of
    the one that failed, from 1. attempts: how many there are at most; None where time alone bounds them. Secrets are
    left out.
    """
    of = "" if attempts is None else f" of {attempts}"
    log.warning(
        "%s: attempt %d%s failed: %s; next attempt in %.1f s",
        without_secrets(what),
        attempt,
        of,
        without_secrets(reason),
        seconds,
        extra={"event": "retry", "attempt": attempt, "attempts": attempts, "seconds": round(seconds, 3)},
    )


class Wait:
    """A wait for something that others have: reported once it takes a second, every minute, and when it is over."""

    def __init__(self, log: logging.Logger, what: str, reason: str, *, reported_after: float = REPORTED_AFTER) -> None:
        """what: is waited for. reason: why it is not there. reported_after: seconds until the first report."""
        self._log, self._what, self._reason = log, without_secrets(what), without_secrets(reason)
        self._begun = time.monotonic()
        self._first = self._next = reported_after

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._begun

    def look(self) -> None:
        """Report it where it is time to. To be called at least every second."""
        if self.seconds >= self._next:
            self._next = self.seconds + REPORTED_EVERY
            self._say("waiting for %s for %.0f s: %s", self._reason)

    def over(self) -> None:
        """Report its length where it was reported before."""
        if self._next > self._first:
            self._say("got %s after %.1f s")

    def _say(self, text: str, *more: str) -> None:
        spent = self.seconds
        self._log.info(text, self._what, spent, *more, extra={"event": "wait", "seconds": round(spent, 3)})


def waited_for(
    log: logging.Logger,
    what: str,
    reason: str,
    get: Callable[[], bool],
    every: float,
    *,
    reported_after: float = REPORTED_AFTER,
) -> None:
    """Wait until something can be got. get: tries at once, gives whether it did; called every so many seconds.

    reported_after: as for `Wait`.
    """
    if get():
        return
    wait, never = Wait(log, what, reason, reported_after=reported_after), Event()
    while not get():
        wait.look()
        never.wait(every)
    wait.over()
