"""Tests run on changed code, in forks of a process that has imported everything: a mutant costs its tests alone.

A session is a process in which pytest has collected the tests. Each mutant is a fork of it: the code of one function is
replaced in memory, the tests that execute its line run until one fails, and the fork ends. What runs when a module is
imported cannot be replaced afterwards: such a mutant gets a fork of a process that has imported third parties alone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NoReturn

import pytest
from hypothesis import Phase, settings
from mutations import Mutant, functions_by_line, line_mark, mutated

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = "h2crop_data"
#: What tests import and no mutant changes.
THIRD_PARTIES = (
    "numpy", "pandas", "geopandas", "pyproj", "shapely", "pyarrow.parquet", "rasterio.features", "rasterio.warp",
    "odc.geo.geobox", "odc.stac", "cv2", "pystac", "pystac_client", "xarray", "zarr", "numcodecs", "obstore",
    "pydantic", "pydantic_settings", "typer", "rich.console", "pyogrio", "scipy.ndimage", "scipy.signal",
    "requests", "hypothesis.extra.numpy", "dask.array", "aiohttp", "matplotlib.figure", "stac_geoparquet",
    "planetary_computer",
)  # fmt: skip
#: Of pytest, which would rather import its plugins itself.
WARM_OPTIONS = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
#: Seconds a fork may do nothing but wait, and by how much it may exceed the processor seconds of its tests.
STALLED, CPU_FACTOR, CPU_MORE = 90.0, 3.0, 1.5
#: Bytes that a fork may ask for beyond what it has: a mutant of a size must not take the machine's memory.
MORE_MEMORY = 6 * 1024**3


@dataclass
class TestRun:
    """What a test needs and executes."""

    #: Processor seconds without fixtures that it shares, and those of the fixtures.
    seconds: float
    shared: float
    #: Module -> marks of its lines.
    lines: dict[str, set[int]]


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant: killed, timed out, survived, or `not run` where no test executes it."""

    result: str
    #: The test that failed.
    by: str = ""


class Session:
    """A pytest plugin: collects tests, then has something done with them in place of running them."""

    def __init__(self, work: Callable[[Session], None]) -> None:
        self.work = work
        self.items: dict[str, pytest.Item] = {}
        self.failed = False
        self.is_recording = False
        self.lines: set[tuple[str, int]] = set()
        self.of_fixtures: dict[Any, set[tuple[str, int]]] = defaultdict(set)
        self.seconds_of_fixtures: dict[Any, float] = defaultdict(float)
        #: Processor seconds of shared fixtures that were set up for the present test.
        self.set_up = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        # The same examples for every mutant, and no search for the smallest one that fails.
        settings.register_profile(
            "mutants", settings(), database=None, derandomize=True, phases=[Phase.explicit, Phase.generate]
        )
        settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self.work(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed = self.failed or report.failed

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        """What a shared fixture executes is executed for each test that uses it."""
        if not self.is_recording or fixturedef.scope == "function":
            return (yield)
        before, start = self.lines.copy(), time.process_time()
        self.lines.clear()
        try:
            return (yield)
        finally:
            self.of_fixtures[fixturedef] |= self.lines
            took = time.process_time() - start
            self.seconds_of_fixtures[fixturedef] += took
            self.set_up += took
            self.lines.update(before)

    def run(self, item: pytest.Item, following: pytest.Item | None) -> bool:
        """Whether a test passes."""
        self.failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return not self.failed

    def record(self, items: Sequence[pytest.Item]) -> dict[str, TestRun]:
        """Run tests and note what each executes of the package; without those that fail."""
        found, marks = {}, Marks()
        self.is_recording = True
        for item, following in zip(items, [*items[1:], None], strict=True):
            self.lines.clear()
            self.set_up = 0.0
            start = time.process_time()
            with traced(self.lines):
                passes = self.run(item, following)
            seconds = time.process_time() - start
            shared = {one for defs in item._fixtureinfo.name2fixturedefs.values() for one in defs}  # type: ignore[attr-defined]
            lines = self.lines.union(*(self.of_fixtures[one] for one in shared if one in self.of_fixtures))
            if passes:
                found[item.nodeid] = TestRun(
                    max(0.0, seconds - self.set_up),
                    sum(self.seconds_of_fixtures[one] for one in shared),
                    marks.of(lines),
                )
        return found


class Marks:
    """Lines by number, as marks that stay the same when others are added above."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[list[str], dict[int, str]]] = {}

    def of(self, lines: Iterable[tuple[str, int]]) -> dict[str, set[int]]:
        found: dict[str, set[int]] = defaultdict(set)
        for path, line in lines:
            module = Path(path).relative_to(CHECKOUT).as_posix()
            if (mark := self.mark(module, line)) is not None:
                found[module].add(mark)
        return dict(found)

    def mark(self, module: str, line: int) -> int | None:
        """None for a line that is in no function."""
        if module not in self.known:
            source = (CHECKOUT / module).read_text(encoding="utf-8")
            self.known[module] = source.splitlines(), functions_by_line(source)
        texts, functions = self.known[module]
        return line_mark(functions[line], texts[line - 1]) if line in functions else None


@contextlib.contextmanager
def traced(lines: set[tuple[str, int]]) -> Iterator[None]:
    """Note the lines of the package that are executed, in every thread."""
    inside = f"{CHECKOUT / PACKAGE}{os.sep}"

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(inside):
            return None

        def line(frame: FrameType, event: str, _: Any) -> Any:
            if event == "line":
                lines.add((path, frame.f_lineno))
            return line

        return line

    before = sys.gettrace()
    threading.settrace(enter)
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(None)  # type: ignore[arg-type]


def in_session(files: Sequence[str], work: Callable[[Session], None], log: Path) -> None:
    """Fork a process in which pytest collects some tests, and wait until it has done its work."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = collect(files, work, log)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            end(code)
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"the tests could not be collected; {log} says why")


def collect(files: Sequence[str], work: Callable[[Session], None], log: Path) -> int:
    """Let pytest collect tests in this process, its words going to a file; gives its exit code."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    temporary = tempfile.mkdtemp(prefix="mutants-")
    try:
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *WARM_OPTIONS, f"--basetemp={temporary}/pytest"]
        return int(pytest.main([*options, f"--rootdir={CHECKOUT}", *files], plugins=[Session(work)]))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def warm_up() -> None:
    """Import third parties, so that forks need not."""
    for name in THIRD_PARTIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


class Functions:
    """The functions of the package, by where their code stands."""

    def __init__(self, modules: Iterable[str]) -> None:
        """modules: paths in the checkout; those not imported so far are."""
        for module in modules:
            importlib.import_module(dotted(module))
        self.by_code: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        for found in gc.get_objects():
            if type(found) is FunctionType and PACKAGE in found.__code__.co_filename:
                code = found.__code__
                self.by_code[code.co_filename, code.co_qualname, code.co_firstlineno].append(found)

    def replace(self, path: str, code: CodeType, name: str) -> bool:
        """Give the functions of this name their code in a changed module. False where that cannot be done."""
        done = False
        for new in codes_of(code):
            if new.co_qualname != name:
                continue
            for function in self.by_code.get((path, name, new.co_firstlineno), []):
                try:
                    function.__code__ = new
                except ValueError:
                    return False
                done = True
        return done


def codes_of(code: CodeType) -> Iterator[CodeType]:
    """The code of a module's functions, inner ones after outer ones."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from codes_of(constant)


def dotted(module: str) -> str:
    """The name by which a module is imported."""
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class ChangedModule(importlib.abc.MetaPathFinder):
    """Gives one module other code when it is imported."""

    def __init__(self, module: str, code: CodeType) -> None:
        self.name, self.code = dotted(module), code

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert isinstance(spec.loader, importlib.machinery.SourceFileLoader)
        spec.loader.get_code = lambda _: self.code  # type: ignore[method-assign]
        return spec


@dataclass
class Attempts:
    """Mutants tried in forks of this process."""

    mutants: Sequence[Mutant]
    #: Of each mutant its tests, the ones to run first in front.
    tests: Callable[[Mutant], list[str]]
    runs: dict[str, TestRun]
    note: Callable[[Mutant, Outcome], None]
    #: By `time.monotonic()`.
    until: float
    log: Path
    sources: dict[str, str] = field(default_factory=dict)

    def code(self, mutant: Mutant) -> CodeType:
        path = CHECKOUT / mutant.module
        if mutant.module not in self.sources:
            self.sources[mutant.module] = path.read_text(encoding="utf-8")
        return mutated(self.sources[mutant.module], mutant.place, str(path))

    def in_session(self, session: Session) -> None:
        """Try those in functions."""
        functions = Functions(sorted({mutant.module for mutant in self.mutants}))
        for mutant in self.mutants:
            if time.monotonic() > self.until:
                return
            chosen = [name for name in self.tests(mutant) if name in session.items]
            items = [session.items[name] for name in chosen]

            def attempt(report: int, mutant: Mutant = mutant, items: list[pytest.Item] = items) -> bool:
                if not functions.replace(str(CHECKOUT / mutant.module), self.code(mutant), mutant.function):
                    raise LookupError(f"cannot replace {mutant.key}")
                return run_until_one_fails(session, items, report)

            self.note(mutant, self.tried(chosen, attempt))

    def one_by_one(self) -> None:
        """Try those in code that runs at import."""
        for mutant in self.mutants:
            if time.monotonic() > self.until:
                return
            chosen = self.tests(mutant)

            def attempt(report: int, mutant: Mutant = mutant, chosen: list[str] = chosen) -> bool:
                sys.meta_path.insert(0, ChangedModule(mutant.module, self.code(mutant)))
                passed = []

                def work(session: Session) -> None:
                    items = [session.items[name] for name in chosen if name in session.items]
                    passed.append(run_until_one_fails(session, items, report))

                collect(sorted({name.partition("::")[0] for name in chosen}), work, self.log)
                return passed == [True]

            self.note(mutant, self.tried(chosen, attempt))

    def tried(self, chosen: list[str], attempt: Callable[[int], bool]) -> Outcome:
        """What comes of a mutant, in a fork; `attempt` writes the test that fails to the descriptor it gets."""
        if not chosen:
            return Outcome("not run")
        seconds = seconds_of(self.runs, chosen)
        heard, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                os.setsid()
                limit_resources(seconds)
                code = 0 if attempt(report) else 1
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                end(code)
        os.close(report)
        status = wait(pid, STALLED + 10 * seconds)
        by = os.read(heard, 4096).decode()
        os.close(heard)
        if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
            return Outcome("timed out")
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 3:
            return Outcome("failed", f"see {self.log}")
        return Outcome("survived") if status == 0 else Outcome("killed", by or "the process")


def seconds_of(runs: dict[str, TestRun], chosen: Iterable[str]) -> float:
    """Processor seconds of some tests together, with the fixtures that those of a file share."""
    shared: dict[str, float] = defaultdict(float)
    own = 0.0
    for name in chosen:
        own += runs[name].seconds
        file = name.partition("::")[0]
        shared[file] = max(shared[file], runs[name].shared)
    return own + sum(shared.values())


def run_until_one_fails(session: Session, items: Sequence[pytest.Item], report: int) -> bool:
    """Whether all tests pass; the first that does not is written to a descriptor."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        if not session.run(item, following):
            os.write(report, item.nodeid.encode()[:4000])
            return False
    return True


def limit_resources(seconds: float) -> None:
    """Of this process, for tests that took so many processor seconds."""
    most = ceil(time.process_time() + CPU_FACTOR * seconds + CPU_MORE)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE_MEMORY,) * 2)


def end(code: int) -> NoReturn:
    """End a fork without what its parent has still to do at its end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """The status of a child that leads a session, None where it had to be ended. Others of its session end with it."""
    descriptor = os.pidfd_open(pid)
    ended = select.select([descriptor], [], [], seconds)[0]
    os.close(descriptor)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return status if ended else None
