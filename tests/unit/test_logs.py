"""Lines of the log: their form, without secrets, from worker processes, and the options of the command line."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from rich.console import Console

from h2crop_data.cli import console as console_module
from h2crop_data.cli.logs import ConsoleHandler
from h2crop_data.cli.main import app, main
from h2crop_data.errors import UsageError
from h2crop_data.logs import JsonFormatter, TextFormatter, lines_of_processes
from h2crop_data.pipeline.engine import Workers, open_pool
from h2crop_data.waits import Wait, report_retry, waited_for

SECRET = "hunter2-0123456789"
#: An address that says a secret twice.
SIGNED = f"https://user:{SECRET}@archive.invalid/scene.tif?sig={SECRET}"
LOG = logging.getLogger("h2crop_data.a_test")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("LEVEL", "FILE", "FORMAT"):
        monkeypatch.delenv(f"H2CROP_LOG_{name}", raising=False)
    before = [*logging.getLogger().handlers]
    yield
    assert logging.getLogger().handlers == before
    assert logging.getLogger("h2crop_data").level == logging.NOTSET


def record(message: str, error: Exception | None = None, **extra: object) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    made = LOG.makeRecord(LOG.name, logging.WARNING, "", 0, message, (), info, extra=extra)
    made.created = 1_750_000_000.25
    return made


class TestForm:
    def test_a_line_of_text_has_time_level_module_and_message(self) -> None:
        line = TextFormatter().format(record("all is well"))
        assert line == "2025-06-15T15:06:40.250Z WARNING h2crop_data.a_test: all is well"

    def test_a_json_line_is_one_object_with_what_was_given_besides(self) -> None:
        line = JsonFormatter().format(record("two\nlines", block=3, seconds=1.5, where=Path("/a")))
        assert "\n" not in line
        assert json.loads(line) == {
            "time": "2025-06-15T15:06:40.250Z",
            "level": "WARNING",
            "logger": "h2crop_data.a_test",
            "message": "two\nlines",
            "block": 3,
            "seconds": 1.5,
            "where": "/a",
        }

    @pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
    def test_no_part_of_a_line_says_a_secret(self, formatter: logging.Formatter) -> None:
        error = ValueError(f"cannot read {SIGNED}")
        line = formatter.format(record(f"see {SIGNED}", error, href=SIGNED, more={"of": [SIGNED]}))
        assert SECRET not in line
        assert "see https://archive.invalid/scene.tif" in line
        assert "ValueError: cannot read https://archive.invalid/scene.tif" in line


class TestWaits:
    def test_a_retry_says_what_why_when_and_which_attempt(self, caplog: pytest.LogCaptureFixture) -> None:
        report_retry(LOG, f"reading {SIGNED}", f"HTTP 503 of {SIGNED}", 4.0, 2, 5)
        shown = "https://archive.invalid/scene.tif"
        assert caplog.messages == [
            f"reading {shown}: attempt 2 of 5 failed: HTTP 503 of {shown}; next attempt in 4.0 s"
        ]
        [one] = caplog.records
        assert (one.levelname, one.attempt, one.attempts, one.seconds) == ("WARNING", 2, 5, 4.0)

    def test_a_wait_is_reported_while_it_lasts_and_when_it_is_over(self, caplog: pytest.LogCaptureFixture) -> None:
        seen: list[int] = []

        def get() -> bool:
            seen.append(len(caplog.records))
            return len(seen) == 12

        with caplog.at_level(logging.INFO, LOG.name):
            waited_for(LOG, "the file", "another process has it", get, 0.005, reported_after=0.02)
        assert [re.sub(r"[\d.]+ s", "N s", text) for text in caplog.messages] == [
            "waiting for the file for N s: another process has it",
            "got the file after N s",
        ]
        # The first line was there before what was waited for.
        assert seen[-1] == 1

    def test_a_short_wait_is_not_worth_a_line(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG, LOG.name):
            waited_for(LOG, "the file", "", lambda: True, 1)
            wait = Wait(LOG, "a connection", "")
            wait.look()
            wait.over()
        assert caplog.messages == []


@pytest.mark.slow
def test_lines_of_worker_processes_come_to_the_process_that_started_them(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.INFO, "h2crop_data"):
        with open_pool(Workers(1, "processes"), str(tmp_path)) as pool:
            # Bound methods of a logger are those of the logger of the same name there.
            for method in (LOG.debug, LOG.info, LOG.warning):
                pool.executor.submit(method, "season %d block %d", 2022, 3).result()
            pool.executor.submit(logging.getLogger("another").info, "not asked for").result()
        lines = [
            (one.name, one.levelname, one.getMessage()) for one in caplog.records if one.processName != "MainProcess"
        ]
    assert lines == [(LOG.name, level, "season 2022 block 3") for level in ("INFO", "WARNING")]


def test_a_process_that_was_killed_while_it_sent_a_line_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    until = time.monotonic() + 10
    with lines_of_processes(last_within=0.2) as (queue, _):
        queue.put(record("before"))
        while not caplog.messages and time.monotonic() < until:
            time.sleep(0.01)
        # What it leaves behind: the lock of whoever writes, which nobody gives back.
        queue._wlock.acquire()
    assert caplog.messages == ["before"]


def test_a_line_does_not_garble_the_bar_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(console_module, "console", terminal)
    monkeypatch.setattr("h2crop_data.cli.logs.console", terminal)
    handler = ConsoleHandler()
    handler.setFormatter(TextFormatter())
    LOG.addHandler(handler)
    try:
        with console_module.progress_line(quiet=False) as progress:
            progress(1, 3, "blocks")
            LOG.warning("a line [of] the log")
            progress(2, 3, "blocks")
    finally:
        LOG.removeHandler(handler)
    assert isinstance(terminal.file, io.StringIO)
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", terminal.file.getvalue())
    assert re.search(r"[\r\n]\S+Z WARNING h2crop_data.a_test: a line \[of\] the log *\r?\n", "\n" + shown)


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["h2crop", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def without_times(text: str) -> str:
    """Lines of a log without what is another each time."""
    lines = [line for line in text.splitlines() if ": h2crop 0" not in line]
    return re.sub(r"\d+\.\d s", "N s", re.sub(r"\S+Z ", "", "\n".join(lines)))


RECIPE = "h2crop-france.yaml"


class TestOptions:
    def test_every_command_has_them(self) -> None:
        def below(command: object, name: str) -> Iterator[tuple[str, list[str]]]:
            yield name, [option for one in command.params for option in one.opts]  # type: ignore[attr-defined]
            for other, one in getattr(command, "commands", {}).items():
                yield from below(one, f"{name} {other}")

        commands = dict(below(typer.main.get_command(app), "h2crop"))
        assert {"h2crop", "h2crop build", "h2crop plan", "h2crop enmap fetch", "h2crop recipe check"} <= commands.keys()
        for name, options in commands.items():
            assert {"-v", "--verbose", "--log-file", "--log-format"} <= set(options), name

    def test_before_and_after_the_verb_they_are_the_same(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = []
        for words in (
            ["-v", "recipe", "check", RECIPE],
            ["recipe", "-v", "check", RECIPE],
            ["recipe", "check", "-v", RECIPE],
            ["recipe", "check", RECIPE, "--verbose"],
        ):
            assert run(*words, monkeypatch=monkeypatch) == 0
            said.append(capsys.readouterr().err)
            assert f"INFO h2crop_data.cli.logs: h2crop 0.1.0: {' '.join(words)}\n" in said[-1]
        assert len({without_times(text) for text in said}) == 1
        assert "INFO h2crop_data.cli.main: ended with exit code 0 after" in said[0]
        assert run("recipe", "check", RECIPE, monkeypatch=monkeypatch) == 0
        assert " INFO " not in capsys.readouterr().err

    def test_twice_shows_details_wherever_they_stand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        levels = []

        def look(name: str) -> None:
            levels.append(logging.getLogger("h2crop_data").level)
            raise UsageError(f"{name} was looked for")

        monkeypatch.setattr("h2crop_data.cli.recipe.load_recipe", look)
        for words in (["-vv", "recipe", "check", "x"], ["-v", "recipe", "check", "x", "-v"], ["recipe", "check", "x"]):
            assert run(*words, monkeypatch=monkeypatch) == 2
        assert levels == [logging.DEBUG, logging.DEBUG, logging.WARNING]

    def test_a_file_has_each_step_and_the_error_of_a_command_that_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "log.txt"
        file.write_text("before\n", encoding="utf-8")
        assert run("recipe", "check", "nowhere.yaml", "--log-file", str(file), monkeypatch=monkeypatch) == 2
        shown = capsys.readouterr().err
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "before"
        assert "INFO h2crop_data.cli.logs: h2crop 0.1.0: recipe check nowhere.yaml" in lines[1]
        error = shown.removeprefix("error: ").splitlines()[0]
        assert any(line.endswith(f"ERROR h2crop_data.cli.main: {error}") for line in lines[2:])
        assert "ended with exit code 2 after" in lines[-1]
        # On the terminal it stands once.
        assert shown.count(error) == 1

    def test_an_unexpected_error_is_in_the_file_with_its_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(name: str) -> None:
            raise ZeroDivisionError(f"at {SIGNED}")

        monkeypatch.setattr("h2crop_data.cli.recipe.load_recipe", fail)
        monkeypatch.setattr(sys, "argv", ["h2crop", "--log-file", str(tmp_path / "log"), "recipe", "check", "x"])
        with pytest.raises(ZeroDivisionError):
            main()
        text = (tmp_path / "log").read_text(encoding="utf-8")
        assert "CRITICAL h2crop_data.cli.main: stopped by an unexpected error\nTraceback" in text
        assert text.endswith("ZeroDivisionError: at https://archive.invalid/scene.tif\n")

    @pytest.mark.parametrize("way", ["option", "variable"])
    def test_a_file_that_cannot_be_written_is_named(
        self, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "nowhere" / "log.txt"
        words = ["recipe", "check", RECIPE]
        if way == "variable":
            monkeypatch.setenv("H2CROP_LOG_FILE", str(file))
        else:
            words = ["--log-file", str(file), *words]
        assert run(*words, monkeypatch=monkeypatch) == 2
        assert capsys.readouterr().err == (
            f"error: cannot write the log file {file}: No such file or directory; name a file in a folder that exists "
            "and that you may write to (--log-file, H2CROP_LOG_FILE)\n"
        )

    def test_a_full_disk_costs_the_log_alone(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("recipe", "check", RECIPE, "--log-file", "/dev/full", monkeypatch=monkeypatch) == 0
        shown = capsys.readouterr().err
        assert shown.count("cannot write the log file /dev/full: [Errno 28] No space left on device") == 1
        assert "Traceback" not in shown

    def test_json_lines_are_objects_and_the_report_stays_json(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "log.jsonl"
        words = ["--log-format", "json", "recipe", "check", RECIPE, "--json", "-v", "--log-file", str(file)]
        assert run(*words, monkeypatch=monkeypatch) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["name"]
        for lines in (err.splitlines(), file.read_text(encoding="utf-8").splitlines()):
            objects = [json.loads(line) for line in lines]
            assert [one["level"] for one in objects] == ["INFO"] * len(objects)
            assert all({"time", "level", "logger", "message"} <= one.keys() for one in objects)
            assert "ended with exit code 0" in objects[-1]["message"]

    def test_what_is_printed_for_people_and_errors_are_json_lines_too(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("H2CROP_LOG_FORMAT", "json")
        assert run("recipe", "check", RECIPE, monkeypatch=monkeypatch) == 0
        said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert {(one["level"], one["logger"]) for one in said} == {("INFO", "h2crop")}
        assert run("recipe", "check", "nowhere.yaml", monkeypatch=monkeypatch) == 2
        [error] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert (error["level"], error["logger"]) == ("ERROR", "h2crop_data.cli.main")
        assert "nowhere.yaml" in error["message"]

    def test_an_error_has_the_same_keys_on_the_terminal_and_in_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "log.jsonl"
        words = ["--log-format", "json", "recipe", "check", "nowhere.yaml", "--log-file", str(file)]
        assert run(*words, monkeypatch=monkeypatch) == 2
        [shown] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert [one for one in lines if one["level"] == "ERROR"] == [shown]
        assert shown.keys() == {"time", "level", "logger", "message"}

    def test_a_call_within_a_program_is_logged_with_its_own_arguments(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["a_program", "with its own"])
        file = tmp_path / "log.txt"
        words = ["recipe", "check", RECIPE, "--log-file", str(file)]
        app(words, standalone_mode=False)
        text = file.read_text(encoding="utf-8")
        assert f"h2crop 0.1.0: {' '.join(words)}\n" in text
        assert "with its own" not in text

    def test_secrets_of_the_command_line_are_nowhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "log.txt"
        assert run("recipe", "check", SIGNED, "-vv", "--log-file", str(file), monkeypatch=monkeypatch) == 2
        text = capsys.readouterr().err + file.read_text(encoding="utf-8")
        assert text.count("archive.invalid/scene.tif") == 4
        assert SECRET not in text

    def test_variables_are_as_options_and_options_go_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("H2CROP_LOG_LEVEL", "info")
        monkeypatch.setenv("H2CROP_LOG_FILE", str(tmp_path / "variable"))
        monkeypatch.setenv("H2CROP_LOG_FORMAT", "json")
        words = ["recipe", "check", RECIPE]
        assert run(*words, monkeypatch=monkeypatch) == 0
        assert json.loads(capsys.readouterr().err.splitlines()[0])["message"].startswith("h2crop 0.1.0: recipe check")
        assert json.loads((tmp_path / "variable").read_text(encoding="utf-8").splitlines()[0])
        (tmp_path / "variable").unlink()
        other = tmp_path / "option"
        assert run(*words, "--log-file", str(other), "--log-format", "text", monkeypatch=monkeypatch) == 0
        assert " INFO h2crop_data.cli.logs: h2crop 0.1.0" in other.read_text(encoding="utf-8")
        assert not (tmp_path / "variable").exists()

    def test_an_invalid_variable_is_named_and_config_still_shows_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("H2CROP_LOG_LEVEL", "loud")
        assert run("recipe", "check", RECIPE, monkeypatch=monkeypatch) == 2
        expected = "H2CROP_LOG_LEVEL is 'loud': expected warning, info or debug"
        assert capsys.readouterr().err == f"error: {expected}\n"
        assert run("config", monkeypatch=monkeypatch) == 1
        assert expected in capsys.readouterr().err


def test_as_a_library_nothing_is_printed_and_nothing_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    package = logging.getLogger("h2crop_data")
    assert [type(handler) for handler in package.handlers] == [logging.NullHandler]
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        LOG.warning("nobody listens")
    finally:
        root.handlers = handlers
    assert capsys.readouterr() == ("", "")
