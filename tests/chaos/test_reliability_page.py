"""The table of what goes wrong, on the page about reliability: all of it is there, and so is every test it names."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "topics" / "reliability.md"

NOT_YET = "not yet: "


def rows() -> list[tuple[int, str, str]]:
    """Number, what goes wrong, and what shows that it does not."""
    found = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    return [(int(number), what, shown) for number, what, shown in found]


@functools.cache
def functions_in(path: str) -> frozenset[str]:
    """The tests in a file, by name; none if there is no such file."""
    file = ROOT / path
    if not file.exists():
        return frozenset()
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
    ]
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


def named(shown: str) -> list[str]:
    return re.findall(r"`([^`]+)`", shown)


def test_all_seventy_ways_to_fail_are_there_once() -> None:
    """In their order, and each in words of its own."""
    found = rows()

    assert [number for number, _, _ in found] == list(range(1, 71))
    assert len({what for _, what, _ in found}) == 70


def test_every_test_that_is_named_exists() -> None:
    """``file::function``, and the function is a test."""
    tests = [test for _, _, shown in rows() for test in named(shown)]

    assert len(tests) > 70
    assert [test for test in tests if test.partition("::")[2] not in functions_in(test.partition("::")[0])] == []


def test_every_row_has_a_test_or_says_what_will_bring_it() -> None:
    """Nothing is left open without a word, and what has a test is not called missing."""
    undecided = [number for number, _, shown in rows() if bool(named(shown)) == shown.startswith(NOT_YET)]
    without_reason = [
        number for number, _, shown in rows() if shown.startswith(NOT_YET) and len(shown) < len(NOT_YET) + 3
    ]

    assert (undecided, without_reason) == ([], [])


def test_a_name_that_is_no_test_is_found() -> None:
    """The check can fail: a file that is not there, a function that is not, and a helper."""
    here = "tests/chaos/test_reliability_page.py"

    assert "test_a_name_that_is_no_test_is_found" in functions_in(here)
    assert not {"rows", "test_of_nothing"} & functions_in(here)
    assert functions_in("tests/chaos/test_nothing.py") == frozenset()
