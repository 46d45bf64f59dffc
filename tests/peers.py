"""Real peers: programs and modules that a test talks to, and that a machine may lack.

A test asks for its peer before it does anything else.  Where the peer is absent the test is skipped, and one line at
the end of the run names what was missing.  Under ``TRIOQT_PEERS=required``, as in CI, such a test fails instead.
"""

import collections
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from typing import NoReturn

import pytest

__all__ = ["peer_command", "peer_module", "pytest_runtest_makereport", "pytest_terminal_summary"]

MISSING = re.compile(r"peer missing: (\S+)")

# Why the running test is skipped, until its report is made.
skipped_because: list[str] = []


def peer_command(name: str) -> str:
    """The path of the program ``name``: socat, curl, openssl, gcc, squid."""
    # Servers are where only root looks.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    return shutil.which(name, path=path) or without_peer(name)


def peer_module(name: str) -> str:
    """The path of a Python that can import ``name``, such as PySide6.QtNetwork.

    A path, because a peer runs in a process of its own.
    """
    failure = import_failure(name)
    return sys.executable if failure is None else without_peer(name, failure)


@functools.cache
def import_failure(name: str) -> str | None:
    # Tried rather than looked up: PySide6 may be installed and one of Debian's libraries that it loads not.
    attempt = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True)
    return None if attempt.returncode == 0 else attempt.stderr.strip().rpartition("\n")[2]


def without_peer(name: str, why: str = "not found") -> NoReturn:
    message = f"peer missing: {name} ({why})"
    if os.environ.get("TRIOQT_PEERS") == "required":
        pytest.fail(message, pytrace=False)
    skipped_because[:] = [message]
    pytest.skip(message)


# ---- hooks, for conftest.py to import ----------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give a skipped async test its reason back: pytest-trio 0.8 skips it again, without one."""
    report = yield
    if report.skipped and skipped_because:
        path, line, _ = item.location
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {skipped_because.pop()}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line at the end: ``peers missing: socat (3 tests)``."""
    stats = terminalreporter.stats
    reports = [*stats.get("skipped", []), *stats.get("failed", []), *stats.get("error", [])]
    matches = [MISSING.search(str(report.longrepr)) for report in reports]
    missing = collections.Counter(match[1] for match in matches if match)
    if missing:
        counts = (f"{name} ({count} test{'s' if count > 1 else ''})" for name, count in sorted(missing.items()))
        terminalreporter.write_line(f"peers missing: {', '.join(counts)}")
