"""Every scenario does what the real Qt did, each time, except as the list of deviations says, to the line."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.conformance.catalogue import all_scenarios, expected_differences, judge_recorded, shared_names
from tests.conformance.deviations import DEVIATIONS
from tests.conformance.entries import is_signal
from tests.conformance.pyside6_backend import NEEDS_NAMESPACE
from tests.conformance.rows import ROWS
from tests.conformance.rules import RULES
from tests.conformance.trace import Entry
from tests.conformance.trioqt_backend import run

# `nox -s soak` sets it.
ROUNDS = 20 if "TRIOQT_SOAK" in os.environ else 1

SOURCE = re.compile(r"(law [1-7]|row \d+|Qt's bug|documented|later): \S")


@pytest.mark.parametrize("name", sorted(all_scenarios()))
def test_a_scenario_goes_as_with_qt_except_for_its_listed_deviation_every_time(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """The same trace each time but for what is not ours, and no descriptor is left."""
    before = os.listdir("/dev/fd")
    result = judge_recorded(name)
    others = [what_is_ours(run(all_scenarios()[name])[0]) for _ in range(ROUNDS)]

    assert result.differences == expected_differences(name)
    assert [other for other in others if other != what_is_ours(result.entries)] == []
    assert os.listdir("/dev/fd") == before
    figures = {
        "shared": name in shared_names(),
        "outcome": result.outcome,
        "compared": result.comparison.entries - result.comparison.dropped,
        "differing": result.comparison.differing,
    }
    record_property("conformance", figures)


def what_is_ours(entries: Iterable[Entry]) -> list[Entry]:
    """Without the wording of errors, which has numbers of ports and descriptors in it.

    And without the bytes that were written: it is the kernel that says how many it takes at once, by what memory all
    sockets of the machine have.  That they are as with Qt, the comparison itself sees to.
    """
    return [entry for entry in entries if entry.get("fn") != "error_string" and not is_signal(entry, "bytes_written")]


def test_the_scenarios_that_need_a_namespace_of_their_own_are_those_that_say_so() -> None:
    needing = {name for name in all_scenarios() if re.search(r"\.test\b|192\.0\.2\.|198\.51\.100\.", source_of(name))}

    assert set(NEEDS_NAMESPACE) == needing


def source_of(name: str) -> str:
    code = all_scenarios()[name].fn.__code__
    lines = Path(code.co_filename).read_text(encoding="utf-8").splitlines()
    return "".join(inspect.getblock([line + "\n" for line in lines[code.co_firstlineno - 1 :]]))


def test_85_percent_of_the_shared_scenarios_do_not_deviate() -> None:
    """193 of 226; the others are what they are by law or by row, by a bug of Qt, or by a choice that is documented."""
    deviating = {deviation.scenario for deviation in DEVIATIONS} & shared_names()

    assert len(shared_names()) == 226
    assert 1 - len(deviating) / len(shared_names()) >= 0.85


def test_each_deviation_is_of_a_scenario_that_exists_and_gives_its_reason() -> None:
    assert [d.scenario for d in DEVIATIONS if d.scenario not in all_scenarios()] == []
    assert [d.scenario for d in DEVIATIONS if not SOURCE.match(d.reason)] == []
    assert [d.scenario for d in DEVIATIONS if not d.differs] == []


def test_each_law_and_row_that_is_cited_stands_in_the_documentation() -> None:
    topics = Path(__file__).parents[2] / "docs" / "topics"
    laws, rows = ((topics / page).read_text(encoding="utf-8") for page in ("faithful.md", "from-qt.md"))
    texts = [*(rule.law for rule in RULES), *(d.reason for d in DEVIATIONS), *(row.reason for row in ROWS)]

    cited = {match for text in texts for match in re.findall(r"\b(law|row) (\d+)", text)}

    assert len(cited) > 10
    assert [number for kind, number in cited if kind == "law" and f"| law {number} |" not in laws] == []
    assert [number for kind, number in cited if kind == "row" and f"\n| {number} | " not in rows] == []
    assert [rule.law for rule in RULES if not re.search(r"\b(laws?|rows?) \d", rule.law)] == []


def test_there_are_at_most_twelve_general_rules_and_each_has_its_law() -> None:
    assert len(RULES) <= 12
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.law and rule.does for rule in RULES)
