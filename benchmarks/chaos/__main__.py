"""Faults, one after the other, on trioqt and on its peers, and a table of what was counted.

``python -m benchmarks.chaos [--peers] [--tls] [--only stop,raise] [--servers trio] [--scale 0.1] [--markdown FILE]``

trioqt alone takes less than three minutes on two cores, all four less than ten.
The exit status is 1 if trioqt did not do what it promises, or if a fault did not happen; how the peers fare, and how
long anything took, decides nothing.
benchmarks/chaos/README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from benchmarks.chaos.cases import CASES
from benchmarks.chaos.driver import SERVERS
from benchmarks.chaos.stage import Played, play
from benchmarks.chaos.stops import STOPS
from benchmarks.chaos.table import cell, markdown, text

ALL = (*CASES, *STOPS)
PEERS = ("trio", "asyncio", "Qt")

# A handshake costs both ends, on two cores, as much as some hundred lines.
TLS_SCALE = 0.25


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--peers", action="store_true", help=f"trioqt beside {', '.join(PEERS)}")
    parser.add_argument("--servers", help=f"these instead, with commas between: {', '.join(SERVERS)}")
    parser.add_argument("--only", help=f"these cases, with commas between: {', '.join(case.name for case in ALL)}")
    parser.add_argument("--scale", type=float, help="how many clients, as a share of the usual number")
    parser.add_argument("--tls", action="store_true", help=f"over TLS, with {TLS_SCALE:g} of the clients if not told")
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    options = parser.parse_args(arguments)
    names = ["trioqt", *(PEERS if options.peers else ())]
    if options.scale is None:
        options.scale = TLS_SCALE if options.tls else 1.0
    options.servers = names if options.servers is None else options.servers.split(",")
    options.only = [case.name for case in ALL] if options.only is None else options.only.split(",")
    for kind, known in (("servers", list(SERVERS)), ("only", [case.name for case in ALL])):
        if unknown := [name for name in getattr(options, kind) if name not in known]:
            parser.error(f"--{kind}: there is no {unknown[0]}")
    return options


async def play_all(options: argparse.Namespace) -> list[Played]:
    """Case by case, and in each server by server, never two at a time."""
    played = []
    for case in ALL:
        if case.name not in options.only:
            continue
        for server in options.servers:
            began = time.monotonic()
            played.append(await play(case, server, options.scale, tls=options.tls))
            print(f"{time.monotonic() - began:5.1f} s  {case.name}, {server}: {cell(played[-1])}", flush=True)
    return played


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_arguments(arguments)
    # A driver with thousands of clients needs a descriptor for each.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    began = time.monotonic()
    played = trio.run(play_all, options)
    print(f"\n{text(played)}\n\n{time.monotonic() - began:.0f} s in all")
    if options.markdown is not None:
        options.markdown.write_text(markdown(played))
    problems = [f"{one.case.name}, {one.server}: {problem}" for one in played for problem in one.problems()]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
