"""The network that tests of faults are on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio.testing

from tests.testing.network import three_hosts
from trioqt.testing import VirtualNetwork


@pytest.fixture
async def net(autojump_clock: trio.testing.MockClock) -> AsyncIterator[VirtualNetwork]:
    """Three hosts, an eighth of a second apart."""
    async with three_hosts.network() as net:
        yield net
