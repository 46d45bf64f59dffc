"""Fixtures for every test, and what the run says at its end."""

from __future__ import annotations

import pytest

from tests import peers
from tests.networks import Loopback
from tests.peers import pytest_runtest_makereport as pytest_runtest_makereport


@pytest.fixture
def network() -> Loopback:
    """The network under a test: now loopback, later a simulated one too."""
    return Loopback()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which peers were missing, and how many places of cancellation were tried."""
    peers.pytest_terminal_summary(terminalreporter)
    reports = [
        (report.passed, value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in getattr(report, "user_properties", ())
        if name == "cancel_everywhere" and report.when == "call"
    ]
    if reports:
        places, missed, diverged = (sum(value[index] for _, value in reports) for index in range(3))
        failing = sum(not passed for passed, _ in reports)
        terminalreporter.write_line(
            f"cancel_everywhere: {len(reports)} scenarios, {places} places, "
            f"{failing} scenarios failing, {missed} places missed, {diverged} diverged"
        )
