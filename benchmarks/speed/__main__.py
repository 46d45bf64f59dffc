"""trioqt beside its peers: one command, ratios.

``python -m benchmarks.speed [--quick] [--row echo:30x700] [--servers trioqt,uvloop] [--json FILE] [--write-docs]``

All servers of a row are started together and sleep.
Each round runs the load generator against each in turn, in rotated order; the median over the rounds counts.
The exit status says whether the bytes were right and the servers lived, and nothing about speed.
benchmarks/speed/README.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed.look import TOOLS, look
from benchmarks.speed.measure import Course, measure
from benchmarks.speed.pages import write_docs
from benchmarks.speed.processes import BenchmarkError, Place, build_generator
from benchmarks.speed.results import Figures, as_json, summarise
from benchmarks.speed.rows import MODES, QUICK, WHOLE, Row, read_row
from benchmarks.speed.tables import facts, row_table


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="trioqt beside its peers, as ratios to raw trio.",
        epilog=f"Rows: {', '.join(WHOLE)}; or any numbers of {', '.join(MODES)}.",
    )
    parser.add_argument("--quick", action="store_true", help=f"three short rounds of {', '.join(QUICK)}")
    parser.add_argument("--row", action="append", default=[], help="only these, with commas or again: lines:3x40x200")
    parser.add_argument("--servers", default="", help="only those whose name has one of these words, and raw trio")
    parser.add_argument("--rounds", type=int, help="5; with --quick 3")
    parser.add_argument("--seconds", type=float, help="of one server in one round: 0.8; with --quick 0.2")
    parser.add_argument("--against", metavar="FOLDER", help="measure the trioqt of that checkout too, as name@folder")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures, and each sample")
    parser.add_argument("--write-docs", action="store_true", help="put the figures into the documentation and README")
    parser.add_argument("--from-json", metavar="FILE", type=Path, help="measure nothing: print what another run wrote")
    parser.add_argument("--look", choices=TOOLS, help="into one server of one row")
    options = parser.parse_args(arguments)
    names = [name for given in options.row for name in given.split(",")] or (QUICK if options.quick else WHOLE)
    try:
        options.rows = [read_row(name) for name in names]
    except ValueError as error:
        parser.error(str(error))
    rounds, seconds = (3, 0.2) if options.quick else (5, 0.8)
    options.rounds = rounds if options.rounds is None else options.rounds
    options.seconds = seconds if options.seconds is None else options.seconds
    if options.rounds < 1 or not 0 < options.seconds <= 600:
        parser.error("rounds and seconds must be positive")
    if (
        options.write_docs
        and not options.from_json
        and (options.quick or options.row or options.servers or options.against)
    ):
        parser.error("the documentation shows a run of everything: not with --quick, --row, --servers or --against")
    if options.look and (
        len(options.rows) != 1
        or options.servers not in options.rows[0].mode.peers
        or options.rows[0].mode.less_is_better
    ):
        parser.error("--look needs --row with one row (not of memory) and --servers with one full name")
    return options


def choose_servers(row: Row, words: str, against: str | None) -> list[str]:
    names = list(row.mode.peers)
    if against:
        label = Path(against).resolve().name
        names = [both for name in names for both in ([name, f"{name}@{label}"] if "trioqt" in name else [name])]
    wanted = [word for word in words.split(",") if word]
    return [name for name in names if name == row.mode.base or not wanted or any(word in name for word in wanted)]


def run(options: argparse.Namespace, course: Course) -> Figures:
    """Measure, and print each row when it is done."""
    print(facts(as_json({}, options.rounds, options.seconds)))
    if course.place.server < 0:
        print("one core only: server and generator share it, and rates mean little")
    rows = {}
    for row in options.rows:
        began = time.monotonic()
        taken = measure(row, choose_servers(row, options.servers, options.against), course)
        rows[row.name] = summarise(taken)
        print(f"\n{row_table(row.name, rows[row.name])}\n{time.monotonic() - began:.0f} s", flush=True)
    return as_json(rows, options.rounds, options.seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_arguments(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.from_json:
        figures = json.loads(options.from_json.read_text())
        print("\n\n".join([facts(figures), *(row_table(name, row) for name, row in figures["rows"].items())]))
    else:
        try:
            course = Course(build_generator(), Place.choose(), options.rounds, options.seconds, options.against)
            if options.look:
                look(options.look, options.rows[0], options.servers, course)
                return 0
        except BenchmarkError as error:
            print("benchmark:", error, file=sys.stderr)
            return 1
        figures = run(options, course)
    results = [result for row in figures["rows"].values() for result in row["servers"].values()]
    goals = [result["reached"] for result in results if result["reached"] is not None]
    if goals:
        print(f"\ngoals reached: {sum(goals)} of {len(goals)}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.write_docs:
        if why := unfit(figures):
            print(f"benchmark: the documentation is not written, since {why}", file=sys.stderr)
            return 1
        write_docs(figures)
    return 1 if any(row["failed"] for row in figures["rows"].values()) else 0


def unfit(figures: Figures) -> str:
    """Why the documentation is not to show these; it shows all or nothing."""
    rows = figures["rows"]
    if absent := [name for name in WHOLE if name not in rows]:
        return f"these rows are not there: {', '.join(absent)}"
    if odd := [name for name, row in rows.items() if row["missing"] or row["failed"]]:
        return f"a server failed or is missing: {', '.join(odd)}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
