"""The table of Qt's behaviours, row by row: each is shown somewhere, or it says why not."""

import ast
import collections
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.rows import ROWS

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent

# The sections of the table that speak of these classes, by the letters of their rows, and how many rows each has.
SECTIONS = {
    "T": 9,
    "C": 34,
    "D": 20,
    "R": 17,
    "RD": 34,
    "WR": 10,
    "W": 21,
    "B": 26,
    "S": 58,
    "P": 38,
    "U": 63,
    "H": 3,
    "X": 67,
    "Y": 5,
}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def scenarios() -> frozenset[str]:
    """The functions under ``@scenario(...)`` in the files of scenarios."""
    return frozenset(
        function.name
        for path in (HERE / "scenarios").rglob("*.py")
        for function in functions(path)
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "scenario"
    )


@functools.cache
def names_of_tests(path: str) -> frozenset[str]:
    return frozenset(function.name for function in functions(ROOT / path) if function.name.startswith("test_"))


def test_every_row_of_the_table_occurs_once() -> None:
    expected = {f"{letters}-{number:03}" for letters, count in SECTIONS.items() for number in range(1, count + 1)}

    assert collections.Counter(row.id for row in ROWS) == dict.fromkeys(expected, 1)


def test_every_row_is_shown_or_says_why_not() -> None:
    assert [row.id for row in ROWS if bool(row.where) == bool(row.reason)] == []
    assert [row.id for row in ROWS if len(set(row.where)) < len(row.where)] == []
    assert [row.id for row in ROWS if not row.situation] == []


def test_every_scenario_exists_and_real_qt_has_played_it() -> None:
    there = scenarios()
    named = {name for row in ROWS for name in row.scenarios}

    assert sorted(named - there) == []
    assert sorted(name for name in named if not (HERE / "traces" / f"{name}.json").exists()) == []


def test_every_named_test_exists() -> None:
    named = {test for row in ROWS for test in row.tests}

    assert [test for test in named if test.partition("::")[2] not in names_of_tests(test.partition("::")[0])] == []


def test_every_reason_is_a_sentence() -> None:
    for row in ROWS:
        if row.reason:
            assert row.reason[0].isupper(), row.id
            assert row.reason.endswith("."), row.id
            assert len(row.reason.split()) > 5, row.id


def test_scenarios_are_found_by_their_decorator() -> None:
    assert {"tcp_connect_refused", "server_construct", "tcp_fresh_getters"} <= scenarios()
    assert not {"full_listener", "listening", "take"} & scenarios()
