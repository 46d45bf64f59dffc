"""Compare trioqt with Qt: ``python -m tests.conformance``.

Without ``--live`` with the recorded traces, with it with PySide6 run beside.  ``--files`` and ``--traces`` take
scenario files and traces from elsewhere, in the format of ours.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance import report, trioqt_backend
from tests.conformance.catalogue import TRACES, Result, Summary, expected_differences, judge, recorded
from tests.conformance.pyside6_backend import SCENARIO_FILES, left_out, record
from tests.conformance.trace import Entry, Scenario


def runs_beside(names: Sequence[str], files: Sequence[Path]) -> Iterator[tuple[str, list[list[Entry]]]]:
    """Record these with PySide6, now; there is nothing to compare with where that hung."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, run in zip(names, pool.map(lambda name: record(name, files), names), strict=True):
            if not run.outcome.startswith(("ok", "process died")):
                print(f"{name}: on Qt: {run.outcome}")
            yield name, [] if run.hung else [run.events]


def chosen(scenarios: dict[str, Scenario], wanted: set[str]) -> list[str]:
    return [name for name, scenario in scenarios.items() if not wanted or wanted & {name, scenario.group}]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios or groups (default: all)")
    parser.add_argument("--live", action="store_true", help="compare with PySide6, run beside")
    parser.add_argument("--files", nargs="+", type=Path, default=SCENARIO_FILES, help="where the scenarios are")
    parser.add_argument("--traces", type=Path, default=TRACES, help="where the recorded traces are")
    parser.add_argument("--all", action="store_true", help="show the differences that are listed, too")
    parser.add_argument("--table", action="store_true", help="print the tables of the documentation instead")
    arguments = parser.parse_args()
    logging.disable()  # what servers log of the troubles that scenarios give them
    if arguments.table:
        print("\n".join(report.markdown()))
        return 0
    scenarios = trioqt_backend.load(arguments.files)
    groups = {scenario.group for scenario in scenarios.values()}
    unknown = set(arguments.names) - scenarios.keys() - groups
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; the groups are {', '.join(sorted(groups))}")
    names = chosen(scenarios, set(arguments.names))
    if not names:
        parser.error("no such scenario")
    if arguments.live:
        for name in names:
            if reason := left_out(name):
                print(f"{name}: left out, {reason}")
        qt = runs_beside([name for name in names if not left_out(name)], arguments.files)
    else:
        qt = ((name, recorded(name, arguments.traces)) for name in names)
    results: list[Result] = []
    unexpected = 0
    for name, runs in qt:
        if not runs:
            unexpected += 1
            continue
        result = judge(name, scenarios[name], runs)
        results.append(result)
        listed = result.differences == expected_differences(name)
        unexpected += not listed
        if not listed or (arguments.all and result.differences):
            print(f"{name}: {result.outcome}" + (", as listed" if listed else ", not as listed"))
            for line in result.differences:
                print(f"    {line}")
    if results:
        print(Summary(tuple(results)))
    return 1 if unexpected or not results else 0


if __name__ == "__main__":
    sys.exit(main())
