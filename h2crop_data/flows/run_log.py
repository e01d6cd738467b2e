"""What libraries log and warn of, and how far work is, as lines of a run's log."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from h2crop_data.errors import H2cropError, StoreWarning
from h2crop_data.redaction import without_secrets

Logger = logging.Logger | logging.LoggerAdapter[Any]
#: Loggers whose warnings are shown in the run, with those below them.
LIBRARIES = ("h2crop_data", "odc", "rasterio", "urllib3", "distributed")
#: Where Prefect says what became of a task.
TASK_LOGGER = "prefect.task_runs"
#: Seconds between two lines that say how far work is: a build may take days.
LINE_EVERY = 30.0


class RunLogHandler(logging.Handler):
    """Passes log records of libraries, from all threads, to the log of one run, without secrets."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self.logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record of a library."""
        self.logger.log(record.levelno, "%s: %s", record.name, without_secrets(record.getMessage()))


class WithoutTraces(logging.Filter):
    """Takes the stack trace from what Prefect logs of an error that says itself what to do, and secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        if record.exc_info and isinstance(record.exc_info[1], H2cropError):
            record.exc_info, record.exc_text = None, None
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


@contextmanager
def library_lines(logger: Logger) -> Iterator[None]:
    """While it lasts, what libraries of this process log and warn of is in the log of a run.

    Worker processes and workers of a cluster write to their own output.
    """
    handler = RunLogHandler(logger)
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    of_tasks, short = logging.getLogger(TASK_LOGGER), WithoutTraces()
    for library in loggers:
        library.addHandler(handler)
    of_tasks.addFilter(short)
    try:
        with warnings.catch_warnings():
            # rasterio warns of scratch datasets that it makes itself, whenever threads undo its silencing.
            warnings.filterwarnings("ignore", message="Dataset has no geotransform")
            warnings.showwarning = partial(log_warning, logger)
            yield
    finally:
        of_tasks.removeFilter(short)
        for library in loggers:
            library.removeHandler(handler)


def log_warning(
    logger: Logger, message: Warning | str, category: type[Warning], filename: str, line: int, *rest: Any
) -> None:
    """Log a warning: of a store in one line, any other with its place."""
    place = "" if issubclass(category, StoreWarning) else f" ({category.__name__}, {filename}:{line})"
    logger.warning("%s%s", without_secrets(str(message)), place)


class ProgressLines:
    """Lines of a log that say how far work is: the first of a kind of work, the last, one now and then between."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._last = -LINE_EVERY

    def show(self, done: int, total: int, text: str) -> None:
        """Log a line where it is time for one."""
        if done == total or time.monotonic() - self._last >= LINE_EVERY:
            self._last = time.monotonic()
            self._logger.info("%s/%s %s", done, total, without_secrets(text))
