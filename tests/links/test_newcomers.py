"""The last millisecond of a listening socket: who has asked is answered to the end, who asks then is not."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from tests.networks import Loopback, RawPeer
from trioqt.links.bind import listen_on
from trioqt.links.connect import Target
from trioqt.links.native import KernelSocket, NativeListener
from trioqt.links.newcomers import ignore_newcomers
from trioqt.testing import VirtualNetwork


@pytest.fixture(params=["IPv4", "IPv6"])
async def listener(request: pytest.FixtureRequest) -> NativeListener:
    """A listening socket of the kernel's."""
    target = Target(socket.AF_INET, ("127.0.0.1", 0))
    if request.param == "IPv6":
        target = Target(socket.AF_INET6, ("::1", 0, 0, 0))
    try:
        (made,) = await listen_on([target], 10)
    except OSError:
        pytest.skip("this machine has no ::1")
    return made


def ask(listener: NativeListener) -> socket.socket:
    """A client that has asked for a connection; over loopback the kernel has answered by now, if it does."""
    sock = socket.socket(listener.native().family)
    sock.setblocking(False)
    sock.connect_ex(listener.local_address())
    return sock


def state(network: Loopback, sock: socket.socket) -> str:
    """Of its connection."""
    return network.tcp_state(sock.fileno())


# Loopback: it is the kernel that is asked.
async def test_from_then_on_nobody_is_answered_and_nobody_is_lost(network: Loopback, listener: NativeListener) -> None:
    """Who came before is in the queue, and its connection carries bytes in both directions; who comes later waits."""
    with ask(listener) as early:
        before = state(network, early)
        ignored = listener.ignore_newcomers()
        with ask(listener) as late:
            after = (state(network, early), state(network, late))
            link, _ = listener.try_accept()
            with pytest.raises(BlockingIOError):
                listener.try_accept()
            early.send(b"question")
            await link.wait_receivable(8)
            got = [link.try_receive(8)]
            link.try_send(b"answer")
            with RawPeer(trio.socket.from_stdlib_socket(early.dup())) as peer:
                got.append(await peer.receive(6))
            link.close()
            listener.close()

    assert ignored
    assert before == "ESTABLISHED"
    assert after == ("ESTABLISHED", "SYN_SENT")
    assert got == [b"question", b"answer"]


async def test_where_it_cannot_be_asked_for_nothing_changes(
    network: Loopback, listener: NativeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another system has no such question."""
    monkeypatch.setattr("sys.platform", "darwin")
    ignored = listener.ignore_newcomers()
    monkeypatch.undo()

    assert not ignored
    with ask(listener) as client:
        assert state(network, client) == "ESTABLISHED"
    listener.close()


async def test_a_simulated_network_does_it_too(autojump_clock: trio.testing.MockClock) -> None:
    """Who asks then has no answer, asks again a second later, and is refused then."""
    async with VirtualNetwork():
        (listener,) = await listen_on([Target(socket.AF_INET, ("127.0.0.1", 0))], 10)
        address = listener.local_address()
        with trio.socket.socket() as early, trio.socket.socket() as late:
            await early.connect(address)
            ignored = listener.ignore_newcomers()
            with trio.move_on_after(0.5):
                await late.connect(address)
            link, _ = listener.try_accept()
            listener.close()
        with trio.socket.socket() as later:
            with pytest.raises(ConnectionRefusedError):
                await later.connect(address)
        link.close()

    assert ignored
    assert trio.current_time() == 0.5


async def test_a_sandbox_that_forbids_it_is_no_failure(network: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a stop is as good as it can be without."""
    (listener,) = await listen_on([Target(socket.AF_INET, ("127.0.0.1", 0))], 10)
    monkeypatch.setattr("trioqt.links.newcomers.SO_ATTACH_FILTER", 0xFFFF)

    assert not listener.ignore_newcomers()
    with ask(listener) as client:
        assert state(network, client) == "ESTABLISHED"
    listener.close()


def test_the_newcomers_of_sctp_are_let_in() -> None:
    """The filter reads TCP's header, where SCTP has something else: its data would be dropped, and not who asks."""

    class Sctp(KernelSocket):
        proto = 132

    with Sctp(socket.AF_INET, socket.SOCK_STREAM) as sock:
        assert not ignore_newcomers(sock)
