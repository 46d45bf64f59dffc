"""Where the time of one server goes, while it is under load: by function, by system call, or by library and symbol."""

from __future__ import annotations

import pstats
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.speed.measure import Contest, Course, Taken, go
from benchmarks.speed.processes import PATIENCE, BenchmarkError, cpu_seconds
from benchmarks.speed.rows import Row

TOOLS = ("cprofile", "strace", "perf")


def look(tool: str, row: Row, server: str, course: Course) -> None:
    """Print it.

    Raises: BenchmarkError if the tool or the server is not there.
    """
    if tool != "cprofile" and shutil.which(tool) is None:
        raise BenchmarkError(f"{tool} was not found")
    taken = Taken(row, {server: []})
    with ExitStack() as stack:
        file = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "profile")
        contest = Contest(taken, course, stack)
        contest.start()
        if server not in contest.running:
            raise BenchmarkError("; ".join([*taken.missing.values(), *taken.failed.values()]))
        child = contest.running[server][0]
        generator = contest.begin(server, stack)
        observer = None
        if tool == "cprofile":
            child.ask(f"profile {file}")
        else:
            options = ["-c", "-f", "-o", file] if tool == "strace" else ["record", "-q", "-g", "-o", file]
            observer = subprocess.Popen([tool, *options, "-p", str(child.process.pid)])
            time.sleep(0.5)
        before = cpu_seconds(child)
        work, duration = go(generator, course.seconds)
        cpu = cpu_seconds(child) - before
        print(f"{row.name}, {server}, {tool}: {work} {row.mode.unit} in {duration:.2f} s, {cpu:.2f} s of CPU")
        if observer is None:
            child.ask(f"profile {file}")
            statistic = pstats.Stats(file)
            statistic.strip_dirs().sort_stats("tottime").print_stats(35)
            return
        observer.send_signal(signal.SIGINT)
        observer.wait(PATIENCE)
        if tool == "strace":
            print(Path(file).read_text())
            print(f"divide the calls by {work} {row.mode.unit}; under strace the server is slow, its batches larger")
            return
        for key in ("dso", "dso,symbol"):
            command = ["perf", "report", "-i", file, "--stdio", "--no-children", "-g", "none", "-s", key]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print("\n".join([line for line in text.splitlines() if line and not line.startswith("#")][:40]), "\n")
