"""How lines of the log are written, and how those of worker processes get to the process that started them.

Nothing is set up here by itself: the command line does (`cli/logs.py`), flows do (`flows/run_log.py`), or the program
that uses the package as a library.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from threading import Thread
from typing import Any

from h2crop_data.redaction import redacted, without_secrets

#: The logger above those of all modules.
PACKAGE_LOGGER = "h2crop_data"
#: Seconds to wait for the last lines of worker processes that have ended.
LAST_LINES_WITHIN = 5.0
#: `extra` of a record that people have been shown in other words: for handlers, lines do not have it.
ALREADY_SHOWN = {"shown": True}
#: What every record has, and marks for handlers; anything else was given as `extra`.
OWN_FIELDS = frozenset(vars(logging.makeLogRecord(ALREADY_SHOWN))) | {"message", "asctime", "taskName"}


def record_time(record: logging.LogRecord) -> str:
    """When something was logged, in UTC with milliseconds: 2026-07-01T12:00:00.123Z."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message`, the time in UTC, without secrets; a stack trace follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as text."""
        line = f"{record_time(record)} {record.levelname} {record.name}: {record.getMessage()}"
        return without_secrets("\n".join(filter(None, [line, trace_of(self, record)])))


class JsonFormatter(logging.Formatter):
    """An object a line, without secrets.

    Keys: `time` (UTC, ISO 8601), `level`, `logger`, `message`; `exception` where there is one; then what the record was
    given besides, `block` or `seconds` for instance.
    """

    def format(self, record: logging.LogRecord) -> str:
        """A record as JSON."""
        fields = {
            "time": record_time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = trace_of(self, record)
        if trace:
            fields["exception"] = trace
        more = {name: value for name, value in vars(record).items() if name not in OWN_FIELDS and name not in fields}
        # Through text once, so that values of any kind are without secrets too.
        plain = json.loads(json.dumps({**fields, **more}, default=str))
        return json.dumps(redacted(plain), ensure_ascii=False)


def trace_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The stack trace of a record; empty where it has none."""
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    return record.exc_text or ""


def level_in_force() -> int:
    """The level from which on lines of this package are wanted in this process."""
    return logging.getLogger(PACKAGE_LOGGER).getEffectiveLevel()


@contextmanager
def lines_of_processes(*, last_within: float = LAST_LINES_WITHIN) -> Iterator[tuple[Any, int]]:
    """What new worker processes begin to log with (`send_lines_to`): their lines are handled here as if logged here.

    A process that is killed loses the lines it has not sent. last_within: seconds to wait for the last lines.
    """
    queue: Any = multiprocessing.get_context("spawn").Queue()
    listener = Thread(target=handle_lines, args=(queue,), name="lines of processes", daemon=True)
    listener.start()
    try:
        yield queue, level_in_force()
    finally:
        queue.put(None)
        # A process that was killed while it sent a line keeps the lock of the queue: what is left is lost.
        listener.join(last_within)
        queue.cancel_join_thread()
        queue.close()


def handle_lines(queue: Any) -> None:
    """Give records of other processes to the loggers of the same names, until there is None."""
    while (record := queue.get()) is not None:
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


def send_lines_to(queue: Any, level: int) -> None:
    """In a worker process: send what is logged from a level on to the process that started it."""
    root = logging.getLogger()
    root.addHandler(QueueHandler(queue))
    logging.getLogger(PACKAGE_LOGGER).setLevel(level)


def show_lines_from(level: int) -> None:
    """On a worker of a cluster: have lines from a level on in the log of the worker, its standard error.

    Where the worker's process logs them in a way of its own already, they are left to that.
    """
    package = logging.getLogger(PACKAGE_LOGGER)
    package.setLevel(level)
    own = [*package.handlers, *logging.getLogger().handlers]
    if all(isinstance(handler, logging.NullHandler) for handler in own):
        shown = logging.StreamHandler()
        shown.setFormatter(TextFormatter())
        package.addHandler(shown)
