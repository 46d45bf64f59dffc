"""One peer in one mode, in a process of its own; ``measure.py`` starts it and tells it what to do.

``python -m benchmarks.speed.server MODE PEER [--core N] [--port N --clients N] [--certificate PEM] [--package FOLDER]``

It prints ``listening PORT`` (or ``missing REASON``) and answers on stdin, a line each:

* ``memory`` -> its resident bytes after a garbage collection, and how many connections the idle handlers hold,
* ``profile FILE`` -> starts cProfile in the main thread, and at the second call ends it and writes FILE.

The end of stdin ends the process, so no server outlives the command.
The thread that answers sleeps in a read while a benchmark runs and costs nothing then.
"""

from __future__ import annotations

import argparse
import cProfile
import ctypes
import gc
import importlib
import os
import signal
import sys
import threading
from pathlib import Path

from benchmarks.speed.peers.common import Held, Task
from benchmarks.speed.rows import PEERS


def resident_bytes() -> int:
    """After a collection, and after the C library has given back what it can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Profiler:
    """cProfile sees only the thread that enables it, so a signal does it, in the main thread."""

    def __init__(self) -> None:
        self.file = ""
        self.profile: cProfile.Profile | None = None

    def toggle(self, *_: object) -> None:
        if self.profile is None:
            self.profile = cProfile.Profile()
            self.profile.enable()
        else:
            self.profile.disable()
            self.profile.dump_stats(self.file)
            self.profile = None
        print("profile", self.file, flush=True)


def answer_questions(profiler: Profiler) -> None:
    for question in sys.stdin:
        verb, _, argument = question.strip().partition(" ")
        if verb == "memory":
            print("memory", resident_bytes(), Held.count, flush=True)
        elif verb == "profile":
            profiler.file = argument
            os.kill(os.getpid(), signal.SIGUSR1)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="One peer in one mode; the benchmark starts it.")
    parser.add_argument("mode")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--core", type=int, default=-1)
    parser.add_argument("--port", type=int, default=0, help="where a client connects to")
    parser.add_argument("--clients", type=int, default=1, help="so many at once")
    parser.add_argument("--certificate", default="", help="with its key, of a server with TLS")
    parser.add_argument("--package", help="the folder that trioqt is imported from, if not this checkout's")
    options = parser.parse_args()
    if options.package:
        sys.path.insert(0, options.package)
    peer = PEERS[options.peer]
    try:
        for needed in peer.needs:
            importlib.import_module(needed)
        modes = importlib.import_module(f"benchmarks.speed.peers.{peer.module}").MODES[options.peer]
    except ImportError as error:
        print("missing", error, flush=True)
        return
    if options.core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    profiler = Profiler()
    signal.signal(signal.SIGUSR1, profiler.toggle)
    # Ctrl-C is for the command, which then closes our stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=answer_questions, args=(profiler,), daemon=True).start()
    modes[options.mode](Task(options.port, options.clients, options.certificate))


if __name__ == "__main__":
    main()
