"""The scenarios there are, what the real Qt did in them, and what trioqt does."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from tests.conformance import trioqt_backend
from tests.conformance.comparison import Comparison, compare
from tests.conformance.deviations import DEVIATIONS
from tests.conformance.pyside6_backend import SCENARIO_FILES, SHARED_FILES
from tests.conformance.rules import RULES
from tests.conformance.trace import Entry, Scenario

__all__ = [
    "TRACES",
    "Result",
    "Summary",
    "all_scenarios",
    "expected_differences",
    "judge",
    "judge_all",
    "judge_recorded",
    "recorded",
    "runs_of_qt",
    "shared_names",
]

HERE = Path(__file__).resolve().parent
TRACES: Path = HERE / "traces"


@functools.cache
def all_scenarios() -> dict[str, Scenario]:
    return trioqt_backend.load(SCENARIO_FILES)


@functools.cache
def shared_names() -> frozenset[str]:
    """The scenarios of the oracle."""
    return frozenset(trioqt_backend.load(SHARED_FILES))


def runs_of_qt(trace: Mapping[str, Any]) -> list[list[Entry]]:
    """The runs that a trace holds, the most frequent first."""
    return [trace["trace"], *(variant["trace"] for variant in trace["variants"])]


def recorded(name: str, traces: Path = TRACES) -> list[list[Entry]]:
    """What the real Qt did, in all its variants."""
    return runs_of_qt(json.loads((traces / f"{name}.json").read_text(encoding="utf-8")))


@attrs.frozen
class Result:
    """How one scenario came out."""

    name: str
    ended: str
    """``ok``, or what the program raised."""
    entries: tuple[Entry, ...]
    """What trioqt did, as it was recorded."""
    comparison: Comparison

    @property
    def differences(self) -> tuple[str, ...]:
        """Line by line, with the exception that ended the program."""
        return (*(() if self.ended == "ok" else (f"+{self.ended}",)), *self.comparison.differences)

    @property
    def outcome(self) -> str:
        if self.differences:
            return "deviating"
        general = sum(self.comparison.touched.values()) - self.comparison.dropped
        return "the same by general rules" if general else "the same"


def judge(name: str, scenario: Scenario, qt: Iterable[list[Entry]]) -> Result:
    """Run a scenario, and compare it with the run of Qt that it is nearest to."""
    entries, ended = trioqt_backend.run(scenario)
    results = [Result(name, ended, tuple(entries), compare(run, entries)) for run in qt]
    return min(results, key=lambda result: len(result.differences))


@functools.cache
def judge_recorded(name: str) -> Result:
    """A scenario of ours beside its recorded traces, once a process: it waits more than it works."""
    return judge(name, all_scenarios()[name], recorded(name))


def judge_all() -> dict[str, Result]:
    """All of them."""
    return {name: judge_recorded(name) for name in all_scenarios()}


@attrs.frozen
class Summary:
    """The figures of many results."""

    results: tuple[Result, ...]

    def count(self, outcome: str) -> int:
        return sum(result.outcome == outcome for result in self.results)

    @property
    def share(self) -> float:
        """Of the scenarios, how many do not deviate."""
        return 1 - self.count("deviating") / len(self.results)

    @property
    def entries(self) -> int:
        return sum(result.comparison.entries for result in self.results)

    @property
    def equal(self) -> int:
        """Of Qt's entries that were compared, how many have their equal."""
        return self.compared - sum(result.comparison.differing for result in self.results)

    @property
    def compared(self) -> int:
        return self.entries - sum(result.comparison.dropped for result in self.results)

    def touched(self) -> dict[str, int]:
        """By rule, how many of Qt's entries."""
        counts: Counter[str] = Counter()
        for result in self.results:
            counts.update(result.comparison.touched)
        return {rule.name: counts[rule.name] for rule in RULES}

    def __str__(self) -> str:
        return (
            f"{len(self.results)} scenarios: {self.count('the same')} the same,"
            f" {self.count('the same by general rules')} by general rules, {self.count('deviating')} deviating"
            f" ({self.share:.1%} not deviating); {self.equal} of {self.compared} compared entries equal"
            f" ({self.equal / max(self.compared, 1):.1%}), {self.entries - self.compared} not compared"
        )


def expected_differences(name: str) -> tuple[str, ...]:
    """What the list of deviations says of a scenario."""
    return tuple(line for deviation in DEVIATIONS if deviation.scenario == name for line in deviation.differs)
