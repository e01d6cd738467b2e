"""A simulation of the engine: workers, tasks that ask for shared things, and a client that hands the tasks out.

The rules are those of `h2crop_data/pipeline/engine.py`: at most two tasks a worker are begun, in the order that a
schedule gives, and one client prepares tasks and takes note of results, one at a time. Time goes from event to event,
so that a hundred thousand tasks take seconds. `scale_cases.py` says which tasks there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf

#: The name of what a worker does alone, in seconds; a step that asks for nothing shared.
CORE = "core"
#: Tasks a worker that are begun or wait at the workers (`pipeline/engine.py`).
TASKS_A_WORKER = 2


@dataclass(frozen=True)
class Shared:
    """Something that tasks use at the same time, in equal parts: connections, bytes a second."""

    #: The most that one task gets a second.
    each: float
    #: The most that all get together.
    total: float = inf


@dataclass(frozen=True, eq=False)
class Job:
    """A task: what it asks for, one step after the other."""

    #: What it is: `reading`, `block`.
    kind: str
    #: Name of what is asked for (or CORE), and how much: connection seconds, bytes, seconds.
    steps: tuple[tuple[str, float], ...]
    #: What the schedule knows it by.
    key: object = None


@dataclass(frozen=True)
class Phase:
    """What came of some tasks."""

    seconds: float
    jobs: int
    #: Seconds in which all of something shared was in use, by its name; of the client, seconds at work (`client`).
    full: Mapping[str, float]
    #: Seconds of workers with a task, those in which it waits for something shared too.
    occupied: float


class Server:
    """Something shared, in use. Progress is counted in what one task got since the beginning, as all get the same."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.got, self.rate, self.full = 0.0, 0.0, 0.0
        self.ends: list[tuple[float, int, Job, int]] = []
        self.next = inf

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.got += self.rate * seconds
        if self.rate < self.shared.each:
            self.full += seconds if self.ends else 0.0

    def schedule(self, now: float) -> None:
        """Find the speed of each task, and when the first is done, after one was added or removed."""
        users = len(self.ends)
        self.rate = min(self.shared.each, self.shared.total / users) if users else 0.0
        self.next = now + max(0.0, self.ends[0][0] - self.got) / self.rate if users else inf


def simulate(
    schedule: Iterator[Job | None],
    note: Callable[[Job], None],
    workers: int,
    shared: Mapping[str, Shared],
    overhead: float = 0.0,
) -> Phase:
    """Run the jobs that a schedule gives until it has no more.

    schedule: as `pipeline/schedule.py`: None where the next job depends on one that is running. note: called with each
    job when it has ended. overhead: seconds of the client a job. Raises ValueError where the schedule waits although
    nothing runs.
    """
    servers = {name: Server(one) for name, one in shared.items()}
    alone: list[tuple[float, int, Job, int]] = []
    numbers, queue, ended = count(), deque[Job](), deque[Job]()
    now, free, begun, jobs, occupied, client = 0.0, workers, 0, 0, 0.0, 0.0
    handed: Job | None = None
    ready, more = 0.0, True

    def step(job: Job, place: int) -> bool:
        """Begin a step of a job; whether there was one."""
        while place < len(job.steps):
            name, amount = job.steps[place]
            if amount > 0:
                if name == CORE:
                    heappush(alone, (now + amount, next(numbers), job, place))
                else:
                    server = servers[name]
                    heappush(server.ends, (server.got + amount, next(numbers), job, place))
                    server.schedule(now)
                return True
            place += 1
        return False

    def work() -> None:
        """Let free workers begin what waits."""
        nonlocal free
        while free and queue:
            job = queue.popleft()
            if step(job, 0):
                free -= 1
            else:
                ended.append(job)

    while True:
        # The client: takes note of what ended, then prepares the next task, which takes it a while.
        while handed is None:
            while ended:
                note(ended.popleft())
                begun -= 1
            if not more or begun >= TASKS_A_WORKER * workers:
                break
            try:
                job = next(schedule)
            except StopIteration:
                more = False
                break
            if job is None:
                break
            begun, jobs = begun + 1, jobs + 1
            if overhead:
                handed, ready, client = job, now + overhead, client + overhead
            else:
                queue.append(job)
                work()
        first = min(servers.values(), key=lambda server: server.next, default=None)
        times = (alone[0][0] if alone else inf, first.next if first else inf, ready if handed else inf)
        then = min(times)
        if then == inf:
            if more:
                raise ValueError("the schedule waits, and nothing runs")
            return Phase(now, jobs, {**{name: one.full for name, one in servers.items()}, "client": client}, occupied)
        passed = then - now
        occupied += passed * (workers - free)
        for server in servers.values():
            server.advance(passed)
        now = then
        if handed is not None and times[2] == then:
            queue.append(handed)
            handed = None
        else:
            if times[0] == then:
                _, _, job, place = heappop(alone)
            else:
                assert first is not None, "an event has its place"
                _, _, job, place = heappop(first.ends)
                first.schedule(now)
            if not step(job, place + 1):
                free += 1
                ended.append(job)
        work()
