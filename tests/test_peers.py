"""What happens to a test whose peer is absent."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.peers import peer_command, peer_module

pytest_plugins = ["pytester"]

THREE_TESTS = """
    from tests.peers import peer_command, peer_module

    def test_one():
        peer_command("no-such-peer")

    async def test_two():
        peer_command("no-such-peer")

    def test_three():
        peer_module("no_such_module.at_all")
"""


def run_three_tests(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    pytester.syspathinsert(Path(__file__).parents[1])
    pytester.makeini("[pytest]\ntrio_mode = true")
    pytester.makeconftest("from tests.peers import pytest_runtest_makereport, pytest_terminal_summary")
    pytester.makepyfile(THREE_TESTS)
    return pytester.runpytest_inprocess(*args)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_absent_peer_skips_and_one_line_says_so(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """Who runs the tests without socat sees at the end what was not tested, with and without xdist."""
    monkeypatch.delenv("TRIOQT_PEERS", raising=False)

    result = run_three_tests(pytester, "-n", workers)

    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(["peers missing: no-such-peer (2 tests), no_such_module.at_all (1 test)"])


def test_a_required_peer_that_is_absent_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI nothing may go untested without a word: the test fails and names its peer."""
    monkeypatch.setenv("TRIOQT_PEERS", "required")

    result = run_three_tests(pytester)

    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "peer missing: no_such_module.at_all (ModuleNotFoundError: No module named 'no_such_module')",
            "peers missing: no-such-peer (2 tests), no_such_module.at_all (1 test)",
        ]
    )


def test_a_peer_that_is_there_is_told_by_path() -> None:
    """The test runs its peer as a process, so it gets the path of a program or of a Python."""
    assert peer_command("sh") == shutil.which("sh")
    assert peer_module("json") == sys.executable
