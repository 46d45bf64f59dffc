"""trioqt beside its peers, one command, ratios.

``python benchmarks/run.py [--rounds 5] [--seconds 0.7] [--only echo-1,lines] [--servers trioqt] [--json FILE]``

All servers of a benchmark are started together and sleep.
Each round runs the load generator against each in turn, in rotated order; the median over the rounds counts.
The exit status says whether the bytes were right and the servers lived, and nothing about speed.
README.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import pstats
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

FOLDER = Path(__file__).resolve().parent
BASE = "trio"

# Every wait for a child is bounded; a loaded machine may need seconds to start eight interpreters.
PATIENCE = 60.0

# A go ends here even if its seconds are not over, so that a wrong clock cannot run for ever.
LIMITS = {"echo": 10**8, "lines": 10**9, "send": 10**12, "receive": 10**12, "idle": 1}


# A round is cut into slices, and the servers take turns slice by slice: a shared machine's speed drifts by half within
# a second.  With whole turns of 0.7 s two copies of one server came out 20 % apart, with slices under 5 %.
SLICE = 0.05

# With --retries, a slice that waited for its cores longer than this share of its time is taken again.
CALM = 0.1


class BenchmarkError(Exception):
    """Bytes were wrong, or a process died or hung."""


@dataclass(frozen=True)
class Benchmark:
    """What the generator does, which servers take part, and what we want of ours (times raw trio)."""

    mode: str
    connections: int
    unit: str
    servers: tuple[str, ...]
    goals: dict[str, float]
    batch: int = 1
    in_default: bool = True


ECHO = ("trio", "trioqt-write", "trioqt-send_all", "asyncio", "epoll")
LINES = ("trio", "trioqt-lines", "trioqt-sync", "asyncio", "epoll")
STREAM = ("trio", "trioqt", "asyncio", "epoll")

BENCHMARKS: dict[str, Benchmark] = {
    "echo-1": Benchmark("echo", 1, "trips", ECHO, {"trioqt-write": 1.35, "trioqt-send_all": 1.2}),
    "echo-10": Benchmark("echo", 10, "trips", ECHO, {}, in_default=False),
    "echo-100": Benchmark("echo", 100, "trips", ECHO, {"trioqt-write": 1.6, "trioqt-send_all": 1.4}),
    "echo-1000": Benchmark("echo", 1000, "trips", ECHO, {}, in_default=False),
    "lines": Benchmark("lines", 1, "lines", LINES, {"trioqt-lines": 4.0, "trioqt-sync": 4.0}, batch=100),
    "lines-10": Benchmark("lines", 10, "lines", LINES, {}, batch=100, in_default=False),
    "send": Benchmark("send", 1, "bytes", ECHO, {"trioqt-write": 1.8}),
    "receive": Benchmark("receive", 1, "bytes", STREAM, {"trioqt": 2.0}),
    # Memory, so here less is better.
    "idle": Benchmark("idle", 2000, "B/conn", STREAM, {"trioqt": 0.8}),
}


# -- child processes ------------------------------------------------------------------------------


class Child:
    """A process that is told a line and answers a line."""

    def __init__(self, what: str, command: list[str]) -> None:
        self.what = what
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin: IO[bytes] = self.process.stdin
        self._stdout: IO[bytes] = self.process.stdout
        self._buffer = b""

    def answer(self, patience: float = PATIENCE) -> list[str]:
        deadline = time.monotonic() + patience
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise BenchmarkError(f"{self.what}: no answer within {patience:.0f} s")
            if not (data := self._stdout.read(4096)):
                raise BenchmarkError(f"{self.what}: ended with status {self.process.wait(PATIENCE)}")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode().split(" ")

    def ask(self, question: str, patience: float = PATIENCE) -> list[str]:
        try:
            self._stdin.write(question.encode() + b"\n")
        except BrokenPipeError:
            raise BenchmarkError(f"{self.what}: ended with status {self.process.wait(PATIENCE)}") from None
        return self.answer(patience)

    def end(self) -> None:
        """Close its stdin, which ends it.  Raises: BenchmarkError if it had failed."""
        self._stdin.close()
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{self.what}: did not end") from None
        if status != 0:
            raise BenchmarkError(f"{self.what}: ended with status {status}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._stdin.close()
        self._stdout.close()


@dataclass(frozen=True)
class Place:
    """The cores that server and generator have to themselves, as far as we can tell; -1 on a machine with one."""

    server: int
    generator: int

    @classmethod
    def choose(cls) -> Place:
        if not hasattr(os, "sched_getaffinity"):
            return cls(-1, -1)
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1]) if len(cores) > 1 else cls(-1, -1)


def build_generator() -> Path:
    """Compile load.c unless that has been done."""
    source = FOLDER / "load.c"
    program = FOLDER / ".cache" / ("load-" + hashlib.sha256(source.read_bytes()).hexdigest()[:16])
    if not program.exists():
        compiler = shutil.which("gcc")
        if compiler is None:
            raise BenchmarkError("gcc, which compiles the load generator, was not found")
        program.parent.mkdir(exist_ok=True)
        # Renamed into place, so that two runs at once never see half a program.
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            fresh = Path(folder) / "load"
            subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(fresh), str(source)], check=True)
            fresh.replace(program)
    return program


@contextmanager
def server_running(benchmark: Benchmark, name: str, place: Place, against: str | None) -> Iterator[tuple[Child, int]]:
    """A server process and its port, or port 0 and ``missing`` if it cannot be there."""
    plain, _, other = name.partition("@")
    command = [sys.executable, str(FOLDER / "servers.py"), benchmark.mode, plain, "--core", str(place.server)]
    if other:
        assert against is not None
        command += ["--package", against]
    child = Child(f"server {name}", command)
    try:
        match child.answer():
            case ["listening", port]:
                yield child, int(port)
            case ["missing", *reason]:
                raise MissingError(" ".join(reason))
            case words:
                raise BenchmarkError(f"server {name}: unexpected {' '.join(words)!r}")
    finally:
        child.kill()


class MissingError(Exception):
    """What a server needs is not installed."""


@contextmanager
def generator_running(program: Path, benchmark: Benchmark, port: int, place: Place) -> Iterator[Child]:
    numbers = [port, place.generator, benchmark.batch, LIMITS[benchmark.mode]]
    child = Child("generator", [str(program), benchmark.mode, *map(str, numbers)])
    try:
        yield child
    finally:
        child.kill()


# -- measuring ------------------------------------------------------------------------------------


@dataclass
class Sample:
    """One server in one round: the sum of its slices."""

    work: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    waited: float = 0.0

    @property
    def rate(self) -> float:
        return self.work / self.seconds

    @property
    def merit(self) -> float:
        """Work per CPU-second of the server."""
        return self.work / self.cpu if self.cpu > 0 else 0.0

    @property
    def waited_share(self) -> float:
        return self.waited / self.seconds

    def add(self, other: Sample) -> None:
        self.work += other.work
        self.seconds += other.seconds
        self.cpu += other.cpu
        self.waited += other.waited


@dataclass
class Memory:
    """Resident bytes a connection: of the first so many, and of as many more in the same process."""

    first: float
    second: float

    @property
    def merit(self) -> float:
        # The second ones: the first pay for what is imported, cached or rounded up to an arena once.
        return self.second


def cpu_seconds(child: Child) -> float:
    """The CPU time of the whole process, read from outside, so that asking costs it nothing."""
    # clock_getcpuclockid(3), which Python lacks: the scheduler's clock (2) of a process.
    return time.clock_gettime(~child.process.pid << 3 | 2)


def settled_cpu_seconds(child: Child) -> float:
    """The same once the server sleeps: after a slice of ``send`` it fills the kernel's buffers again."""
    last = cpu_seconds(child)
    for _ in range(200):
        time.sleep(0.0005)
        if (current := cpu_seconds(child)) == last:
            break
        last = current
    return last


def core_wait(child: Child) -> float:
    """Seconds that a process could have run but others had its core: the noise to expect.  0 where nobody tells."""
    try:
        return int(Path(f"/proc/{child.process.pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def go(generator: Child, seconds: float) -> tuple[int, float]:
    match generator.ask(f"go {seconds}", seconds + PATIENCE):
        case ["done", work, duration]:
            return int(work), float(duration)
        case words:
            raise BenchmarkError(f"generator: unexpected {' '.join(words)!r}")


def measure_slice(server: Child, generator: Child, seconds: float) -> Sample:
    waited = core_wait(server) + core_wait(generator)
    cpu = settled_cpu_seconds(server)
    work, duration = go(generator, seconds)
    cpu = settled_cpu_seconds(server) - cpu
    waited = core_wait(server) + core_wait(generator) - waited
    return Sample(work, duration, cpu, waited)


def measure_calm_slice(server: Child, generator: Child, seconds: float, retries: int) -> Sample:
    tries: list[Sample] = []
    while len(tries) <= retries:
        tries.append(measure_slice(server, generator, seconds))
        if tries[-1].waited_share < CALM:
            break
    return min(tries, key=lambda sample: sample.waited_share)


def held_memory(server: Child, expected: int) -> int:
    """Resident bytes once exactly ``expected`` connections are held."""
    deadline = time.monotonic() + PATIENCE
    while True:
        held = server.ask("memory")[2]
        if int(held) == expected:
            return int(server.ask("memory")[1])
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{server.what}: holds {held} connections instead of {expected}")
        time.sleep(0.02)


def measure_memory(program: Path, benchmark: Benchmark, server: Child, port: int, place: Place) -> Memory:
    # A server and the generator need a descriptor a connection each.
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = benchmark.connections
    if descriptors != resource.RLIM_INFINITY:
        count = min(count, (descriptors - 100) // 2)
    with generator_running(program, benchmark, port, place) as generator:
        sizes = [held_memory(server, 0)]
        for total in (count, 2 * count):
            generator.ask(f"open {count}")
            sizes.append(held_memory(server, total))
        generator.end()
    return Memory((sizes[1] - sizes[0]) / count, (sizes[2] - sizes[1]) / count)


# -- one benchmark --------------------------------------------------------------------------------


@dataclass
class Result:
    """What all rounds of one server gave, beside the raw trio of the same rounds."""

    server: str
    rate: float
    merit: float
    spread: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    goal: float | None
    reached: bool | None
    waited: float
    samples: list[Sample] | list[Memory]


@dataclass
class Report:
    name: str
    results: list[Result]
    missing: dict[str, str]
    failed: dict[str, str]


def rotated(names: list[str], steps: int) -> list[str]:
    first = steps % len(names) if names else 0
    return names[first:] + names[:first]


def summarise(benchmark: Benchmark, taken: dict[str, list[Any]]) -> list[Result]:
    results = []
    base = taken.get(BASE, [])
    for name, samples in taken.items():
        if not samples:
            continue
        merits = [sample.merit for sample in samples]
        merit = statistics.median(merits)
        # Round by round, because the speed of a shared machine drifts: neighbours in time are compared.
        # A round that either of the two failed is left out by zip; run_benchmark has reported it.
        ratios = [a.merit / b.merit for a, b in zip(samples, base, strict=False) if b.merit]
        ratio = statistics.median(ratios) if ratios else None
        goal = benchmark.goals.get(name.partition("@")[0])
        reached = None
        if goal is not None and ratio is not None:
            reached = ratio <= goal if benchmark.mode == "idle" else ratio >= goal
        idle = benchmark.mode == "idle"
        results.append(
            Result(
                server=name,
                rate=statistics.median(s.first if idle else s.rate for s in samples),
                merit=merit,
                spread=(max(merits) - min(merits)) / 2 / merit if merit else 0.0,
                ratio=ratio,
                ratio_low=min(ratios, default=None),
                ratio_high=max(ratios, default=None),
                goal=goal,
                reached=reached,
                waited=0.0 if idle else statistics.median(sample.waited_share for sample in samples),
                samples=samples,
            )
        )
    return results


def run_benchmark(
    name: str,
    servers: list[str],
    *,
    program: Path,
    place: Place,
    rounds: int,
    seconds: float,
    retries: int,
    against: str | None,
) -> Report:
    benchmark = BENCHMARKS[name]
    taken: dict[str, list[Any]] = {server: [] for server in servers}
    report = Report(name, [], {}, {})

    def attempt(server: str, action: Callable[[], object]) -> None:
        """A server that is missing or fails is out; the others go on."""
        try:
            action()
        except MissingError as error:
            report.missing[server] = str(error)
        except BenchmarkError as error:
            report.failed[server] = str(error)
            print(f"{name}: {server} FAILED: {error}", file=sys.stderr)

    def alive() -> list[str]:
        return [server for server in servers if server not in report.missing and server not in report.failed]

    def take_memory(server: str) -> None:
        # A fresh process each time: memory given back is not all given back.
        with server_running(benchmark, server, place, against) as (child, port):
            taken[server].append(measure_memory(program, benchmark, child, port, place))

    def take_round(running: dict[str, tuple[Child, int]], turn: int) -> None:
        generators: dict[str, Child] = {}
        sums = {server: Sample() for server in servers}

        def begin(server: str) -> None:
            generator = stack.enter_context(generator_running(program, benchmark, running[server][1], place))
            generator.ask(f"open {benchmark.connections}")
            # Every connection is answered at least once here, so accepting is not in the figure.
            go(generator, seconds / 10)
            generators[server] = generator

        def take_slice(server: str) -> None:
            sums[server].add(measure_calm_slice(running[server][0], generators[server], seconds / slices, retries))

        with ExitStack() as stack:
            for server in alive():
                attempt(server, partial(begin, server))
            slices = max(1, round(seconds / SLICE))
            for number in range(slices):
                for server in rotated(alive(), turn + number):
                    attempt(server, partial(take_slice, server))
            for server in alive():
                attempt(server, generators[server].end)
        for server in alive():
            taken[server].append(sums[server])

    if benchmark.mode == "idle":
        for turn in range(rounds):
            for server in rotated(alive(), turn):
                attempt(server, partial(take_memory, server))
    else:
        with ExitStack() as servers_stack:
            running: dict[str, tuple[Child, int]] = {}

            def start(server: str) -> None:
                running[server] = servers_stack.enter_context(server_running(benchmark, server, place, against))

            for server in servers:
                attempt(server, partial(start, server))
            for turn in range(rounds):
                take_round(running, turn)

    report.results = summarise(benchmark, taken)
    return report


# -- printing -------------------------------------------------------------------------------------


def human(value: float) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale * 10 or (value >= scale and letter != "k"):
            return f"{value / scale:.4g}{letter}"
    return f"{value:.0f}"


def print_report(report: Report) -> None:
    benchmark = BENCHMARKS[report.name]
    idle = benchmark.mode == "idle"
    many = f"{benchmark.connections} connection" + ("s" if benchmark.connections > 1 else "")
    lines = f", {benchmark.batch} lines a batch" if benchmark.mode == "lines" else ""
    print(f"\n{report.name}: {many}{lines}, {benchmark.unit}")
    first, second = ("first", "B/conn") if idle else ("rate", "per CPU-s")
    head = f"{'server':<24} {first:>9} {second:>10} {'spread':>7} {'x trio':>7} {'low..high':>11} {'waited':>7}"
    head += f" {'goal':>7}  reached"
    print(head)
    print("-" * len(head))
    for result in report.results:
        ratio = f"{result.ratio:.2f}" if result.ratio is not None else ""
        span = f"{result.ratio_low:.2f}..{result.ratio_high:.2f}" if result.ratio is not None else ""
        waited = "" if idle else f"{result.waited:.0%}"
        sign = "<=" if idle else ">="
        goal = f"{sign}{result.goal:.2f}" if result.goal is not None else ""
        reached = {True: "yes", False: "NO", None: ""}[result.reached]
        print(
            f"{result.server:<24} {human(result.rate):>9} {human(result.merit):>10} {result.spread:>6.0%}"
            f" {ratio:>7} {span:>11} {waited:>7} {goal:>7}  {reached}".rstrip()
        )
    for server, reason in report.missing.items():
        print(f"{server:<24} not measured: {reason}")
    for server, reason in report.failed.items():
        print(f"{server:<24} FAILED: {reason}")
    sys.stdout.flush()


def machine() -> dict[str, Any]:
    import trio

    return {
        "python": platform.python_version(),
        "trio": trio.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def as_json(reports: list[Report], rounds: int, seconds: float) -> dict[str, Any]:
    def sample(value: Sample | Memory) -> dict[str, float]:
        return vars(value)

    return {
        "machine": machine(),
        "rounds": rounds,
        "seconds": seconds,
        "benchmarks": {
            report.name: {
                "unit": BENCHMARKS[report.name].unit,
                "missing": report.missing,
                "failed": report.failed,
                "servers": {
                    result.server: {**vars(result), "samples": [sample(value) for value in result.samples]}
                    for result in report.results
                },
            }
            for report in reports
        },
    }


# -- looking into one server ----------------------------------------------------------------------


def look(
    tool: str, name: str, server: str, *, program: Path, place: Place, seconds: float, against: str | None
) -> None:
    """Run one server under load and show where its time goes: cprofile, strace or perf."""
    benchmark = BENCHMARKS[name]
    if tool != "cprofile" and shutil.which(tool) is None:
        raise BenchmarkError(f"{tool} was not found")
    with (
        tempfile.TemporaryDirectory() as folder,
        server_running(benchmark, server, place, against) as (child, port),
        generator_running(program, benchmark, port, place) as generator,
    ):
        file = str(Path(folder) / "profile")
        generator.ask(f"open {benchmark.connections}")
        go(generator, 0.2)
        observer = None
        if tool == "cprofile":
            child.ask(f"profile {file}")
        else:
            options = ["-c", "-f", "-o", file] if tool == "strace" else ["record", "-q", "-g", "-o", file]
            observer = subprocess.Popen([tool, *options, "-p", str(child.process.pid)])
            time.sleep(0.5)
        before = cpu_seconds(child)
        work, duration = go(generator, seconds)
        cpu = cpu_seconds(child) - before
        print(f"{name}, {server}, {tool}: {work} {benchmark.unit} in {duration:.2f} s, {cpu:.2f} s of CPU")
        if tool == "cprofile":
            child.ask(f"profile {file}")
            statistic = pstats.Stats(file)
            statistic.strip_dirs().sort_stats("tottime").print_stats(35)
        else:
            assert observer is not None
            observer.send_signal(signal.SIGINT)
            observer.wait(PATIENCE)
        if tool == "strace":
            print(Path(file).read_text())
            print(f"divide the calls by {work} {benchmark.unit}; under strace the server is slow, its batches larger")
        elif tool == "perf":
            for key in ("dso", "dso,symbol"):
                command = ["perf", "report", "-i", file, "--stdio", "--no-children", "-g", "none", "-s", key]
                text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                print("\n".join([line for line in text.splitlines() if line and not line.startswith("#")][:40]), "\n")


# -- the command line -----------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="trioqt beside its peers, as ratios to raw trio.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7, help="of one server in one round")
    parser.add_argument("--retries", type=int, default=0, help="of a slice that waited for its cores")
    names = ", ".join(name if benchmark.in_default else f"({name})" for name, benchmark in BENCHMARKS.items())
    parser.add_argument("--only", default="", help=f"benchmarks: {names}; those in brackets only if named")
    parser.add_argument("--servers", default="", help="only servers whose name has one of these words, and raw trio")
    parser.add_argument("--against", metavar="FOLDER", help="measure the trioqt of that checkout too, as name@folder")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--look", choices=["cprofile", "strace", "perf"], help="into one server of one benchmark")
    options = parser.parse_args(arguments)
    chosen = [word for word in options.only.split(",") if word]
    if unknown := [name for name in chosen if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}")
    options.only = chosen or [name for name, benchmark in BENCHMARKS.items() if benchmark.in_default]
    if options.rounds < 1 or not 0 < options.seconds <= 600:
        parser.error("rounds and seconds must be positive")
    if options.look and (
        len(chosen) != 1 or options.servers not in BENCHMARKS[chosen[0]].servers or chosen == ["idle"]
    ):
        parser.error("--look needs --only with one benchmark (not idle) and --servers with one full name")
    return options


def choose_servers(benchmark: Benchmark, words: str, against: str | None) -> list[str]:
    names = list(benchmark.servers)
    if against:
        label = Path(against).resolve().name
        names = [both for name in names for both in ([name, f"{name}@{label}"] if "trioqt" in name else [name])]
    wanted = [word for word in words.split(",") if word]
    return [name for name in names if name == BASE or not wanted or any(word in name for word in wanted)]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    place = Place.choose()
    try:
        program = build_generator()
        if options.look:
            look(
                options.look,
                options.only[0],
                options.servers,
                program=program,
                place=place,
                seconds=options.seconds,
                against=options.against,
            )
            return 0
    except (BenchmarkError, MissingError) as error:
        print("benchmark:", error, file=sys.stderr)
        return 1
    facts = ", ".join(f"{key} {value}" for key, value in machine().items())
    print(f"{facts}; {options.rounds} rounds of {options.seconds} s")
    if place.server < 0:
        print("one core only: server and generator share it, and rates mean little")
    reports = []
    for name in options.only:
        report = run_benchmark(
            name,
            choose_servers(BENCHMARKS[name], options.servers, options.against),
            program=program,
            place=place,
            rounds=options.rounds,
            seconds=options.seconds,
            retries=options.retries,
            against=options.against,
        )
        print_report(report)
        reports.append(report)
    goals = [result.reached for report in reports for result in report.results if result.reached is not None]
    if goals:
        print(f"\ngoals reached: {sum(goals)} of {len(goals)}")
    if options.json:
        options.json.write_text(json.dumps(as_json(reports, options.rounds, options.seconds), indent=2) + "\n")
    return 1 if any(report.failed for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
