"""A pytest plug-in: the async tests of somebody else run on a simulated network.  `__main__.py` has pytest load it.

Nothing of a test is changed.  It is deselected if it has no network in it, and if it is in the list of what needs more
than there is: a line of ``excluded.txt`` each, with its reason.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import ssl
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import trio
import trustme

from trioqt.testing import VirtualNetwork
from trioqt.testing.network.fabric import Conditions

HERE = Path(__file__).parent
SUITE = os.environ["TRIOQT_SUITE"]
LATENCY = float(os.environ.get("TRIOQT_LATENCY", "0"))
LOSS = float(os.environ.get("TRIOQT_LOSS", "0"))


@pytest.fixture(autouse=True)
def simulated(virtual_network: VirtualNetwork) -> Iterator[None]:
    """Every test is on it, and was."""
    yield
    assert virtual_network._was_entered
    assert virtual_network._conditions == Conditions(latency=LATENCY, loss=LOSS)


class Serving(VirtualNetwork):
    """A network with the two servers that httpcore's tests of the whole want; pytest-httpbin's are threads."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        CA.issue_cert("127.0.0.1").configure_cert(context)
        plain = await trio.open_tcp_listeners(8001, host="127.0.0.1")
        secure = await trio.open_ssl_over_tcp_listeners(8002, context, host="127.0.0.1")
        trio.lowlevel.spawn_system_task(trio.serve_listeners, answer, [*plain, *secure])
        return self


async def answer(stream: trio.abc.Stream) -> None:
    """To every request the same."""
    received = b""
    with contextlib.suppress(trio.BrokenResourceError):
        async for data in stream:
            received += data
            while b"\r\n\r\n" in received:
                received = received.partition(b"\r\n\r\n")[2]
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


CA = trustme.CA(key_type=trustme.KeyType.RSA)


@pytest.fixture
def httpbin() -> types.SimpleNamespace:
    """As pytest-httpbin's."""
    return types.SimpleNamespace(url="http://127.0.0.1:8001")


@pytest.fixture
def httpbin_secure() -> types.SimpleNamespace:
    """The same over TLS."""
    return types.SimpleNamespace(url="https://127.0.0.1:8002")


class Network:
    """Registered after all other plug-ins, so that its fixture is taken in place of trioqt's."""

    @pytest.fixture
    def virtual_network(self, trioqt_seed: int) -> VirtualNetwork:
        """Client and server are on one host, so it is the way to itself that is long and loses."""
        kind = Serving if SUITE == "httpcore" else VirtualNetwork
        net = kind(seed=trioqt_seed, conditions=Conditions(latency=LATENCY, loss=LOSS))
        if LATENCY or LOSS:
            net.set_link("default", "default", latency=LATENCY, loss=LOSS)
        return net


def pytest_configure(config: pytest.Config) -> None:
    """By now the others are there."""
    config.pluginmanager.register(Network())


def excluded() -> dict[str, str]:
    """| a part of a test's name | why it is left out |, of this suite."""
    found = {}
    for line in (HERE / "excluded.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            suite, name, reason = (part.strip() for part in line.split("|"))
            if suite == SUITE:
                found[name] = reason
    return found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Async tests on trio, without those that are left out by name."""
    reasons = excluded()
    unused = set(reasons)
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        backend = parameters.get("anyio_backend")
        names = [name for name in reasons if name in item.nodeid]
        unused.difference_update(names)
        is_ours = inspect.iscoroutinefunction(getattr(item, "function", None)) and backend in (None, "trio")
        (kept if is_ours and not names else left_out).append(item)
    if unused:
        raise pytest.UsageError(f"excluded.txt names no test of {SUITE}: {', '.join(sorted(unused))}")
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)
