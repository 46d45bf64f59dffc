"""How faithful trioqt is, as tables: what the documentation shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from tests.conformance.catalogue import TRACES, Result, Summary, judge_all, shared_names
from tests.conformance.deviations import DEVIATIONS
from tests.conformance.rows import ROWS
from tests.conformance.rules import RULES

__all__ = ["markdown"]

OUTCOMES = ("the same", "the same by general rules", "deviating")


def markdown() -> Iterator[str]:
    """Run all scenarios, and say how they came out."""
    results = judge_all()
    shared = Summary(tuple(result for name, result in results.items() if name in shared_names()))
    every = Summary(tuple(results.values()))
    yield from figures({"of the oracle": shared, "with our own": every})
    yield "\n## The general rules\n"
    yield "| rule | follows from | what it does | entries |"
    yield "| --- | --- | --- | --- |"
    touched = every.touched()
    for rule in RULES:
        yield f"| {rule.name} | {rule.law} | {rule.does} | {touched[rule.name]:,} |"
    yield "\n## What deviates\n"
    yield "Why, in numbers of scenarios:\n"
    yield from reasons({"of the oracle": shared, "with our own": every})
    yield ""
    yield from deviations(results)
    yield "\n## The rows of Qt's behaviour\n"
    shown = sum(bool(row.where) for row in ROWS)
    yield f"Of the {len(ROWS)} rows, {shown} are shown by a scenario or a test; these do not apply:\n"
    yield "| row | situation | why not |"
    yield "| --- | --- | --- |"
    for row in ROWS:
        if not row.where:
            yield f"| {row.id} | {row.situation} | {row.reason} |"


def figures(summaries: dict[str, Summary]) -> Iterator[str]:
    yield f"| | {' | '.join(summaries)} |"
    yield f"| --- |{' --- |' * len(summaries)}"

    def line(head: str, *values: str) -> str:
        return f"| {head} | {' | '.join(values)} |"

    yield line("scenarios", *(f"{len(summary.results)}" for summary in summaries.values()))
    for outcome in OUTCOMES:
        yield line(outcome, *(f"{summary.count(outcome)}" for summary in summaries.values()))
    yield line("share that does not deviate", *(f"{summary.share:.1%}" for summary in summaries.values()))
    yield line("entries of Qt's traces", *(f"{summary.entries:,}" for summary in summaries.values()))
    yield line("of them equal", *(f"{summary.equal / summary.entries:.1%}" for summary in summaries.values()))
    yield line("entries that no rule drops", *(f"{summary.compared:,}" for summary in summaries.values()))
    yield line("of them equal", *(f"{summary.equal / summary.compared:.1%}" for summary in summaries.values()))


def reasons(summaries: dict[str, Summary]) -> Iterator[str]:
    """How many scenarios deviate by each law and row, or for another kind of reason."""
    kinds = {deviation.scenario: deviation.reason.partition(":")[0] for deviation in DEVIATIONS}
    counts = {
        head: Counter(kinds[result.name] for result in summary.results if result.outcome == "deviating")
        for head, summary in summaries.items()
    }
    yield f"| follows from | {' | '.join(summaries)} |"
    yield f"| --- |{' --- |' * len(summaries)}"
    for kind in sorted(set(kinds.values())):
        yield f"| {kind} | {' | '.join(str(count[kind]) for count in counts.values())} |"


def deviations(results: dict[str, Result]) -> Iterator[str]:
    yield "| scenario | what Qt is asked | why trioqt differs | entries |"
    yield "| --- | --- | --- | --- |"
    for deviation in DEVIATIONS:
        trace = json.loads((TRACES / f"{deviation.scenario}.json").read_text(encoding="utf-8"))
        doc = str(trace["doc"]).replace("|", "\\|")
        differing = results[deviation.scenario].comparison.differing
        yield f"| `{deviation.scenario}` | {doc} | {deviation.reason} | {differing} |"
