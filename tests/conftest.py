"""Fixtures for every test."""

from __future__ import annotations

import pytest

from tests.networks import Loopback
from tests.peers import (
    pytest_runtest_makereport as pytest_runtest_makereport,
    pytest_terminal_summary as pytest_terminal_summary,
)


@pytest.fixture
def network() -> Loopback:
    """The network under a test: now loopback, later a simulated one too."""
    return Loopback()
