"""The log of a command: `-v`, `--log-file` and `--log-format`, before and after the verb, and variables for them."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from h2crop_data import __version__
from h2crop_data.cli.console import console
from h2crop_data.errors import UsageError
from h2crop_data.logs import PACKAGE_LOGGER, JsonFormatter, TextFormatter
from h2crop_data.redaction import without_secrets
from h2crop_data.settings import Logs

log = logging.getLogger(__name__)
#: By how often `-v` is given; more counts as the last.
VERBOSITY = (logging.WARNING, logging.INFO, logging.DEBUG)


class ConsoleHandler(logging.Handler):
    """Writes records to the console, which keeps them and a bar of progress apart."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless people have been shown it."""
        if not getattr(record, "shown", False):
            console.print(self.format(record), markup=False, soft_wrap=True)


class LogFile(logging.FileHandler):
    """A file that lines are appended to. When it cannot be written any more, that is reported once."""

    def __init__(self, path: Path, formatter: logging.Formatter) -> None:
        """Raises UsageError where it cannot be opened."""
        try:
            super().__init__(path, encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"cannot write the log file {path}: {error.strerror or error}; name a file in a folder that exists and "
                "that you may write to (--log-file, H2CROP_LOG_FILE)"
            ) from error
        self.setFormatter(formatter)
        self._failed = False

    def close(self) -> None:
        """Close the file; what cannot be written then is reported."""
        try:
            super().close()
        except OSError:
            self._report_failure()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the name that `logging` calls
        """Report that a record cannot be written; the work goes on."""
        self._report_failure()

    def _report_failure(self) -> None:
        """Report the error that is being handled, where it is the first."""
        if not self._failed:
            self._failed = True
            error = sys.exc_info()[1]
            console.print(
                f"warning: cannot write the log file {self.baseFilename}: {error}; going on without it",
                markup=False,
                soft_wrap=True,
            )


class LinesAsJson(io.TextIOBase):
    """Takes what is printed for people, and writes each line as a JSON line of the log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._begun, self._formatter = stream, "", JsonFormatter()

    def write(self, text: str) -> int:
        """Take some text."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            record = logging.LogRecord("h2crop", logging.INFO, "", 0, "%s", (line.rstrip(),), None)
            self._stream.write(self._formatter.format(record) + "\n")
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        self._stream.flush()


class CommandLog:
    """The log of one command. Before it is set up, nothing is different from a program that uses the library."""

    def __init__(self) -> None:
        self.as_json = False
        #: What the program was called with.
        self.arguments: Sequence[str] = ()
        #: Options of the command line.
        self.verbose = 0
        self.file: Path | None = None
        self.format: str | None = None
        self._handlers: list[logging.Handler] = []
        self._level_before = logging.NOTSET

    def set_up(self, *, use_environment: bool) -> None:
        """Write lines where the options of the command line say, else the environment.

        Raises UsageError for a file that cannot be written and variables with invalid values.
        """
        settings = Logs.read() if use_environment else Logs.model_construct()
        level = VERBOSITY[min(self.verbose, len(VERBOSITY) - 1)] if self.verbose else settings.number
        path = self.file or settings.file
        self.as_json = (self.format or settings.format) == "json"
        formatter = JsonFormatter() if self.as_json else TextFormatter()
        if path is not None:
            # A file is read afterwards, when nobody can ask for more.
            self._add(LogFile(path, formatter), min(level, logging.INFO))
        shown = logging.StreamHandler(sys.stderr) if self.as_json else ConsoleHandler()
        shown.setFormatter(formatter)
        self._add(shown, level)
        if self.as_json:
            console.file = LinesAsJson(sys.stderr)  # type: ignore[assignment]
        package = logging.getLogger(PACKAGE_LOGGER)
        self._level_before = package.level
        package.setLevel(min(handler.level for handler in self._handlers))

    def _add(self, handler: logging.Handler, level: int) -> None:
        handler.setLevel(level)
        self._handlers.append(handler)
        logging.getLogger().addHandler(handler)

    def close(self) -> None:
        """End the log."""
        if not self._handlers:
            return
        logging.getLogger(PACKAGE_LOGGER).setLevel(self._level_before)
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()
        self._handlers = []
        if self.as_json:
            console.file = None  # type: ignore[assignment]


#: Those of the commands that run in this process; the last one is in force.
OPEN: list[CommandLog] = []


@contextmanager
def command_log() -> Iterator[CommandLog]:
    """The log of the command that runs within the block."""
    current = CommandLog()
    OPEN.append(current)
    try:
        yield current
    finally:
        OPEN.remove(current)
        current.close()


def note_verbose(times: int) -> None:
    """Note how often `-v` stands at a command; it adds up with those above."""
    OPEN[-1].verbose += times


def note_file(path: Path | None) -> None:
    """Note the log file of a command; the last one counts."""
    OPEN[-1].file = path or OPEN[-1].file


def note_format(name: str | None) -> None:
    """Note the format at a command; the last one counts."""
    OPEN[-1].format = name or OPEN[-1].format


def log_options(
    verbose: Annotated[
        int,
        typer.Option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=note_verbose,
            help="Show each step (-vv: each detail) on standard error.",
            show_default=False,
        ),
    ] = 0,
    log_file: Annotated[
        Path | None,
        typer.Option(
            "--log-file",
            expose_value=False,
            callback=note_file,
            help="Append the log to this file, with each step also without -v (default: H2CROP_LOG_FILE).",
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            "--log-format",
            expose_value=False,
            callback=note_format,
            help="Lines of the log: text, or a JSON object each (default: H2CROP_LOG_FORMAT, else text).",
        ),
    ] = None,
) -> None:
    """The options of the log, which every command has."""


class LoggedGroup(TyperGroup):
    """The commands of a program, each with the options of the log, which is set up before a command begins."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        holder = typer.Typer(add_completion=False)
        holder.command()(log_options)
        self._options = [option for option in get_command(holder).params if option.name != "help"]
        add_options(self, self._options)

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        """Run a command; its log ends with the command, or with the log that a caller opened before."""
        with nullcontext() if OPEN else command_log():
            OPEN[-1].arguments = sys.argv[1:] if args is None else [*args]
            return super().main(args, *more, **options)


def add_options(command: Any, options: list[Any]) -> None:
    """Give a command and those below it the options of the log."""
    command.params = [*command.params, *options]
    if isinstance(command, TyperGroup):
        for below in command.commands.values():
            add_options(below, options)
    elif isinstance(command, TyperCommand) and command.callback is not None:
        command.callback = with_log(command.name, command.callback)


def with_log(name: str | None, run: Callable[..., Any]) -> Callable[..., Any]:
    """What a command of a name does, after its log was set up."""

    @wraps(run)
    def logged(*arguments: Any, **options: Any) -> Any:
        # `h2crop config` says what is wrong with variables, also with those of the log.
        OPEN[-1].set_up(use_environment=name != "config")
        log.info("h2crop %s: %s", __version__, without_secrets(shlex.join(OPEN[-1].arguments)))
        return run(*arguments, **options)

    return logged
