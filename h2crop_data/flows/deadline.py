"""The time limit of a run: when it is reached, work is abandoned at once, and the process of the run ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from types import FrameType
from typing import TypeVar

from h2crop_data.bounded_map import AbandonedWorkError
from h2crop_data.errors import H2cropError
from h2crop_data.settings import Processes

Result = TypeVar("Result")
#: Seconds between two rings of the alarm: one may come where no error can leave, in a callback of a library.
RING_EVERY = 5.0
#: Seconds in which Prefect reports the state and the log of a run that is over.
REPORT_WITHIN = 60.0


class TimeoutHoursError(H2cropError, TimeoutError):
    """A run exceeded its time limit; finished work is kept."""


class Deadline:
    """When a run has to end."""

    def __init__(self, hours: float | None) -> None:
        self._hours = hours
        self._end = None if hours is None else monotonic() + hours * 3600

    def seconds_left(self) -> float | None:
        """Seconds until then, None where there is no end. Raises TimeoutHoursError where it has come."""
        if self._end is None:
            return None
        left = self._end - monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def keep(self, work: Callable[[], Result]) -> Result:
        """What some work gives, if it does so in time. Raises TimeoutHoursError, and whatever the work raises.

        Called by the main thread the work is interrupted, what other threads are at is not waited for. Another thread
        cannot be interrupted: there the time is looked at before the work alone.
        """
        left = self.seconds_left()
        if left is None or threading.current_thread() is not threading.main_thread():
            return work()
        try:
            with alarm(left):
                return work()
        except AbandonedWorkError:
            raise self.passed() from None

    def passed(self) -> TimeoutHoursError:
        """The error to raise."""
        return TimeoutHoursError(
            f"the run took longer than timeout_hours = {self._hours:g}; finished work is kept, the next run continues"
        )


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise AbandonedWorkError in the main thread, which must be the caller, when so many seconds are over."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise AbandonedWorkError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, RING_EVERY)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def end_process_later(report_within: float = REPORT_WITHIN) -> None:
    """End this process a minute from now, if Prefect started it for this run alone, whatever its threads hang at.

    report_within: seconds until then.
    """
    if Processes.read().flow_run is None:
        return

    def end() -> None:
        sleep(report_within)
        os._exit(1)

    threading.Thread(target=end, name="end of the run", daemon=True).start()
