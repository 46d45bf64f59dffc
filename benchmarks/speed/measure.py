"""A row measured: all of its servers in turn, slice by slice, round by round."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed.processes import (
    PATIENCE,
    BenchmarkError,
    Child,
    MissingError,
    Place,
    core_wait,
    generator_running,
    listening,
    settled_cpu_seconds,
    start_server,
)
from benchmarks.speed.rows import ALONE, Row

# A round is cut into slices, and the servers take turns slice by slice: a shared machine's speed drifts by half within
# a second.  With whole turns of 0.7 s two copies of one server came out 20 % apart, with slices under 5 %.
SLICE = 0.05

# But a slice is long enough for a few messages on every connection: the slowest peer makes some 20,000 a second.
SLICE_OF_ONE = 0.0002

# From so many connections on it is told how many had no answer after so long, when all were opened at once under load.
# A server that accepts one for each round of its loop leaves hundreds waiting.
MANY, OPENING = 100, 0.5


@dataclass(frozen=True)
class Course:
    """How a row is measured: where, with what, for how long."""

    program: Path
    place: Place
    rounds: int
    seconds: float
    against: str | None = None


@dataclass
class Sample:
    """One server in one round: the sum of its slices.

    Attributes:
      waited: seconds in which the server or the generator could have run but found its core taken.
      p50, p99: of the time from a message to the end of its answer; None where there is no such thing.
      starved: of many connections, all opened at once under load, those without one answer after ``OPENING``.
      lost: datagrams that nobody answered.
    """

    work: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    waited: float = 0.0
    p50: float | None = None
    p99: float | None = None
    starved: int | None = None
    lost: int = 0

    @property
    def rate(self) -> float:
        return self.work / self.seconds

    @property
    def merit(self) -> float:
        """Work per CPU-second of the server."""
        return self.work / self.cpu if self.cpu > 0 else 0.0


@dataclass
class Memory:
    """Resident bytes a connection: of the first so many, and of as many more in the same process."""

    first: float
    second: float

    @property
    def merit(self) -> float:
        # The second ones: the first pay for what is imported, cached or rounded up to an arena once.
        return self.second


@dataclass
class Taken:
    """What was measured of a row: the samples of each server, and who is out, and why."""

    row: Row
    samples: dict[str, list[Any]]
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def attempt(self, server: str, action: Callable[[], object]) -> None:
        """A server that is missing or fails is out; the others go on."""
        try:
            action()
        except MissingError as error:
            self.missing[server] = str(error)
        except BenchmarkError as error:
            self.failed[server] = str(error)
            print(f"{self.row.name}: {server} FAILED: {error}", file=sys.stderr)

    def alive(self) -> list[str]:
        return [server for server in self.samples if server not in self.missing and server not in self.failed]


def measure(row: Row, servers: list[str], course: Course) -> Taken:
    taken = Taken(row, {server: [] for server in servers})
    if row.mode.less_is_better:
        for turn in range(course.rounds):
            for server in rotated(taken.alive(), turn):
                # A fresh process each time: memory given back is not all given back.
                taken.attempt(server, partial(take_memory, taken, server, course))
        return taken
    with ExitStack() as stack:
        contest = Contest(taken, course, stack)
        contest.start()
        for turn in range(course.rounds):
            contest.take_round(turn)
    return taken


def rotated(names: list[str], steps: int) -> list[str]:
    first = steps % len(names) if names else 0
    return names[first:] + names[:first]


def go(generator: Child, seconds: float) -> tuple[int, float]:
    match generator.ask(f"go {seconds:.6f}", seconds + PATIENCE):
        case ["done", work, duration]:
            return int(work), float(duration)
        case words:
            raise BenchmarkError(f"generator: unexpected {' '.join(words)!r}")


@dataclass(frozen=True)
class Count:
    """What a generator saw since ``begin``: quantiles of so many answers, connections without one, lost datagrams."""

    p50: float
    p99: float
    answers: int
    starved: int
    lost: int


def counted(generator: Child) -> Count:
    match generator.ask("report"):
        case ["report", p50, p99, answers, starved, lost]:
            return Count(float(p50), float(p99), int(answers), int(starved), int(lost))
        case words:
            raise BenchmarkError(f"generator: unexpected {' '.join(words)!r}")


class Contest:
    """All servers of a row, started and asleep, each with a generator of its own in each round."""

    def __init__(self, taken: Taken, course: Course, stack: ExitStack) -> None:
        self.taken = taken
        self.row = taken.row
        self.course = course
        self.stack = stack
        self.running: dict[str, tuple[Child, int]] = {}
        # Of a row of clients: they are the servers of the row, and the generator, which they found at the start, stays.
        self.answering: dict[str, Child] = {}

    def start(self) -> None:
        """All at once, since most of it is importing; then each tells its port."""
        started: dict[str, Child] = {}

        def start(server: str) -> None:
            port = 0
            if self.row.mode.generator == "client":
                generator = generator_running(self.course.program, self.row, 0, self.course.place)
                self.answering[server] = self.stack.enter_context(generator)
                port = listening(self.answering[server])
                self.answering[server].ask(f"open {self.row.connections}")
            child = start_server(self.row, server, self.course.place, port=port, against=self.course.against)
            self.stack.callback(child.kill)
            started[server] = child

        def listen(server: str) -> None:
            self.running[server] = started[server], listening(started[server])
            if self.row.crowd and not server.partition("@")[0].endswith(ALONE):
                generator = self.generator(server, self.stack, mode="idle")
                generator.ask(f"open {affordable(self.row.crowd)}")

        for action in (start, listen):
            for server in self.taken.alive():
                self.taken.attempt(server, partial(action, server))

    def generator(self, server: str, stack: ExitStack, *, mode: str = "") -> Child:
        port = self.running[server][1]
        return stack.enter_context(generator_running(self.course.program, self.row, port, self.course.place, mode=mode))

    def begin(self, server: str, stack: ExitStack) -> Child:
        """A generator with new connections, each of them answered at least once, which is not in the figures."""
        row, seconds = self.row, self.course.seconds
        generator = self.answering.get(server)
        if generator is None:
            generator = self.generator(server, stack)
            generator.ask(f"open {row.connections}")
        go(generator, OPENING if row.connections >= MANY else seconds / 10)
        return generator

    def take_round(self, turn: int) -> None:
        generators: dict[str, Child] = {}
        samples = {server: Sample() for server in self.taken.alive()}
        row, seconds = self.row, self.course.seconds
        slices = max(1, round(seconds / max(SLICE, SLICE_OF_ONE * row.connections)))

        def begin(server: str) -> None:
            generators[server] = self.begin(server, stack)
            if row.connections >= MANY:
                samples[server].starved = counted(generators[server]).starved
            generators[server].ask("begin")

        def take_slice(server: str) -> None:
            measure_slice(self.running[server][0], generators[server], seconds / slices, samples[server])

        def end(server: str) -> None:
            sample = samples[server]
            count = counted(generators[server])
            sample.lost = count.lost
            if count.answers:
                sample.p50, sample.p99 = count.p50, count.p99
            if server not in self.answering:
                generators[server].end()
            self.taken.samples[server].append(sample)

        with ExitStack() as stack:
            for server in self.taken.alive():
                self.taken.attempt(server, partial(begin, server))
            for number in range(slices):
                for server in rotated(self.taken.alive(), turn + number):
                    self.taken.attempt(server, partial(take_slice, server))
            for server in self.taken.alive():
                self.taken.attempt(server, partial(end, server))


def measure_slice(server: Child, generator: Child, seconds: float, sample: Sample) -> None:
    waited = core_wait(server) + core_wait(generator)
    cpu = settled_cpu_seconds(server)
    work, duration = go(generator, seconds)
    sample.cpu += settled_cpu_seconds(server) - cpu
    sample.waited += core_wait(server) + core_wait(generator) - waited
    sample.work += work
    sample.seconds += duration


# -- memory ---------------------------------------------------------------------------------------


def affordable(count: int) -> int:
    """So many connections, or as many as a process may have descriptors for, twice."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return count if descriptors == resource.RLIM_INFINITY else min(count, (descriptors - 100) // 2)


def held_memory(server: Child, expected: int) -> int:
    """Resident bytes once exactly ``expected`` connections are held."""
    deadline = time.monotonic() + PATIENCE
    while True:
        _, _, held = server.ask("memory")
        if int(held) == expected:
            # Asked again: what the last connection needed may have come after.
            return int(server.ask("memory")[1])
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{server.what}: holds {held} connections instead of {expected}")
        time.sleep(0.02)


def take_memory(taken: Taken, name: str, course: Course) -> None:
    row = taken.row
    count = affordable(row.count)
    with ExitStack() as stack:
        server = start_server(row, name, course.place, against=course.against)
        stack.callback(server.kill)
        port = listening(server)
        generator = stack.enter_context(generator_running(course.program, row, port, course.place))
        sizes = [held_memory(server, 0)]
        for total in (count, 2 * count):
            generator.ask(f"open {count}")
            sizes.append(held_memory(server, total))
        generator.end()
    taken.samples[name].append(Memory((sizes[1] - sizes[0]) / count, (sizes[2] - sizes[1]) / count))
