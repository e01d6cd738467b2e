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
from h2crop_data.logs import PACKAGE_LOGGER
from h2crop_data.redaction import without_secrets

Logger = logging.Logger | logging.LoggerAdapter[Any]
#: Loggers that are shown in the run, with those below them: of others their warnings, of h2crop each step.
LIBRARIES = (PACKAGE_LOGGER, "odc", "rasterio", "urllib3", "distributed")
#: Where Prefect says what became of a task.
TASK_LOGGER = "prefect.task_runs"
#: Seconds between two lines that say how far work is: a build may take days.
LINE_EVERY = 30.0


class RunLogHandler(logging.Handler):
    """Passes log records of libraries, from all threads, to the log of one run, without secrets."""

    def __init__(self, logger: Logger, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self.logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record of a library."""
        self.logger.log(record.levelno, "%s: %s", record.name, without_secrets(record.getMessage()))


class NotOfLibraries(logging.Filter):
    """Keeps from the console of Prefect what it shows as lines of a run already."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is of none of the libraries."""
        return record.name.split(".")[0] not in LIBRARIES


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
    """While it lasts, what libraries log and warn of is in the log of a run: in this process, whichever thread, and in
    its worker processes. Of h2crop these are lines from INFO on, of others warnings.

    Workers of a cluster write to their own log.
    """
    handlers = {
        logging.getLogger(name): RunLogHandler(logger, logging.INFO if name == PACKAGE_LOGGER else logging.WARNING)
        for name in LIBRARIES
    }
    consoles = [one for one in logging.getLogger().handlers if type(one).__module__.partition(".")[0] == "prefect"]
    of_tasks, short, once = logging.getLogger(TASK_LOGGER), WithoutTraces(), NotOfLibraries()
    package = logging.getLogger(PACKAGE_LOGGER)
    before = package.level
    package.setLevel(min(logging.INFO, package.getEffectiveLevel()))
    for library, handler in handlers.items():
        library.addHandler(handler)
    of_tasks.addFilter(short)
    for console in consoles:
        console.addFilter(once)
    try:
        with warnings.catch_warnings():
            # rasterio warns of scratch datasets that it makes itself, whenever threads undo its silencing.
            warnings.filterwarnings("ignore", message="Dataset has no geotransform")
            warnings.showwarning = partial(log_warning, logger)
            yield
    finally:
        for console in consoles:
            console.removeFilter(once)
        of_tasks.removeFilter(short)
        for library, handler in handlers.items():
            library.removeHandler(handler)
        if not any(isinstance(handler, RunLogHandler) for handler in package.handlers):
            package.setLevel(before)


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
