"""The testing tools' own coroutines, cancelled at every place."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import trioqt.testing
from tests.sources import Source
from trioqt import NewConnection
from trioqt.testing import Crash, Probe, SignalSpy, VirtualNetwork, cancel_everywhere, expect, interrupt_everywhere
from trioqt.testing.network.faults import Trouble


async def quiescing(probe: Probe) -> None:
    """With a datagram under way; cancelled, nothing has changed, and it can be waited for again."""
    async with VirtualNetwork(latency=0.5) as net:
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as receiver:
            with net.host("server") as address:
                with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as bound:
                    await bound.bind((str(address), 53))
                    await receiver.sendto(b"x", (str(address), 53))
                    await probe.subject(net.quiesce)
                    await net.quiesce()
                    probe.expect(bound.is_readable(), "the datagram has arrived")


async def running_on_a_host(probe: Probe) -> None:
    """Through a crash and a new start; cancelled, the program is over and its sockets are closed."""
    async with VirtualNetwork(latency=0.5) as net:
        with net.host("server"):
            pass
        alive = 0

        async def program() -> None:
            nonlocal alive
            alive += 1
            try:
                with trio.socket.socket() as sock:
                    await sock.bind(("0.0.0.0", 4000))
                    sock.listen()
                    await trio.sleep(3)
            finally:
                alive -= 1

        crashed = Crash("server")  # here, for whatever raises in another task than the subject's is nobody's to catch
        async with trio.open_nursery() as nursery:

            async def crash() -> None:
                await trio.sleep(1)
                with net.begin(crashed):
                    await trio.sleep(1)

            nursery.start_soon(crash)
            await probe.subject(net.run_on, "server", program)
            nursery.cancel_scope.cancel()
        probe.expect(alive == 0, "no life goes on")


async def entering(probe: Probe) -> None:
    """The block itself: the hooks are restored whatever happens."""

    async def use() -> None:
        async with VirtualNetwork(latency=0.5) as net:
            with net.host("server") as address, trio.socket.socket() as listener:
                await listener.bind((str(address), 4000))
                listener.listen()
                with net.host("client"), trio.socket.socket() as sock:
                    await sock.connect((str(address), 4000))

    await probe.subject(use)
    probe.expect(VirtualNetwork.current() is None, "the network is gone")
    with trio.socket.socket() as sock:
        probe.expect("virtual" not in repr(sock), "the kernel's sockets are back")


def test_quiesce_can_be_cancelled_everywhere() -> None:
    report = cancel_everywhere(quiescing, points="any")
    report.raise_if_failed()
    assert report.places > 0


def test_run_on_can_be_cancelled_everywhere() -> None:
    report = cancel_everywhere(running_on_a_host, points="any")
    report.raise_if_failed()
    assert report.places > 0


def test_the_network_can_be_cancelled_everywhere() -> None:
    report = cancel_everywhere(entering, points="any")
    report.raise_if_failed()
    assert report.places > 0


async def in_trouble(probe: Probe) -> None:
    """A fault in an ``async with`` block is over after it, whatever happens."""

    async def use() -> None:
        async with net.partition("a", "b"):
            await trio.sleep(1)

    async with VirtualNetwork() as net:
        for name in ("a", "b"):
            with net.host(name):
                pass
        await probe.subject(use)
        probe.expect(not net.faults, "the fault is over")


def test_a_fault_can_be_cancelled_everywhere() -> None:
    report = cancel_everywhere(in_trouble, points="any")
    report.raise_if_failed()
    assert report.places > 0


async def spying(probe: Probe) -> None:
    """Cancelled while it is entered, within, or while it is left: it listens no more."""
    source = Source()

    async def use() -> None:
        async with SignalSpy(source):
            await trio.sleep(1)

    await probe.subject(use)
    probe.expect(source.listeners() == 0, "nobody listens any more")


def test_a_spy_can_be_cancelled_everywhere() -> None:
    report = cancel_everywhere(spying, points="any")
    report.raise_if_failed()
    assert report.places > 0


async def expecting(probe: Probe) -> None:
    """The same for what a block is expected to bring about."""
    source = Source()

    async def use() -> None:
        async with expect(source, NewConnection):
            source.tell(NewConnection())

    await probe.subject(use)
    probe.expect(source.listeners() == 0, "nobody listens any more")


@pytest.mark.parametrize("scenario", [quiescing, entering, in_trouble, spying, expecting, running_on_a_host])
def test_the_tools_can_be_interrupted_at_every_line(scenario: Callable[[Probe], Awaitable[None]]) -> None:
    """A Ctrl-C leaves no more behind than a cancellation."""
    report = interrupt_everywhere(scenario, sample=None if os.environ.get("TRIOQT_SOAK") else 60)

    report.raise_if_failed()
    assert report.cancelled + report.finished > 0


# Where each coroutine of `trioqt.testing` is walked: who adds one adds its scenario.
WALKED = {
    "ScriptedProxy.serve": "test_scripted_proxy.py",
    "SignalSpy.__aenter__": "test_every_coroutine.py",
    "SignalSpy.__aexit__": "test_every_coroutine.py",
    "SignalSpy.wait_for": "test_signal_spy.py",
    "Trouble.__aenter__": "test_every_coroutine.py",
    "Trouble.__aexit__": "test_every_coroutine.py",
    "VirtualNetwork.__aenter__": "test_every_coroutine.py",
    "VirtualNetwork.__aexit__": "test_every_coroutine.py",
    "VirtualNetwork.quiesce": "test_every_coroutine.py",
    "VirtualNetwork.run_on": "test_every_coroutine.py",
}


def test_every_coroutine_of_the_tools_is_walked() -> None:
    """Those of the classes that are public, and of what they give; `Probe.subject` is what walks."""
    classes = [thing for name in trioqt.testing.__all__ if inspect.isclass(thing := getattr(trioqt.testing, name))]
    found = {
        f"{owner.__name__}.{name}"
        for owner in [*classes, Trouble]
        for name, method in inspect.getmembers(owner, inspect.iscoroutinefunction)
        if not name.startswith("_") or name.startswith("__a")
    }

    assert found - {"Probe.subject"} == WALKED.keys()
    assert all("cancel_everywhere(" in Path(__file__).with_name(file).read_text() for file in WALKED.values())
