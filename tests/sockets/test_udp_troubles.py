"""What the network says of datagrams: told, raised once, and no end of anything."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network
from tests.sockets.datagram_pairs import HOST, bound, bound_pair, connected_pair, drain_now
from tests.sockets.telling import told
from trioqt import ErrorKind, ErrorOccurred, SocketError, SocketState, UdpSocket
from trioqt.links.datagram import NativeDatagramLink
from trioqt.testing import VirtualNetwork

REFUSED = ErrorKind.CONNECTION_REFUSED


async def refused(sock: UdpSocket) -> int:
    """Connect ``sock`` to a port where nobody is, and send there; the port."""
    async with bound() as nobody:
        port = nobody.local_port()
    await sock.connect_to_host(HOST, port)
    sock.write(b"is anybody there?")
    return port


async def test_a_refusal_is_told_and_raised_and_receiving_goes_on(network: Network) -> None:
    """U-035, and more than Qt says: ICMP's answer, once each way; then the peer comes, and is heard."""
    async with UdpSocket() as sock, UdpSocket() as late:
        async with told(sock, ErrorOccurred) as events:
            port = await refused(sock)
            with pytest.raises(SocketError) as caught:
                await sock.receive_datagram()
        await late.bind(HOST, port)
        late.write_datagram(b"here I am", HOST, sock.local_port())

        assert caught.value.kind is REFUSED
        assert caught.value.errno == errno.ECONNREFUSED
        assert events == [ErrorOccurred(REFUSED, caught.value.message)]
        assert (sock.state(), sock.error()) == (SocketState.CONNECTED, REFUSED)
        assert (await sock.receive_datagram()).data == b"here I am"


async def test_a_refusal_does_not_end_the_iteration(network: Network, nursery: trio.Nursery) -> None:
    """It receives for ever; the error is told."""
    async with UdpSocket() as sock, UdpSocket() as late:
        got: list[bytes] = []

        async def receive() -> None:
            async for datagram in sock:
                got.append(datagram.data)

        port = await refused(sock)
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        sock.write(b"again")
        await trio.testing.wait_all_tasks_blocked()
        await late.bind(HOST, port)
        late.write_datagram(b"here I am", HOST, sock.local_port())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert got == [b"here I am"]
    assert sock.error() is REFUSED


async def test_a_refusal_of_the_last_datagram_is_no_failure_of_the_next(network: Network) -> None:
    """The system tells it to whoever comes first; that one is sent all the same, and who receives hears of it."""
    async with UdpSocket() as sock, UdpSocket() as late:
        port = await refused(sock)
        await late.bind(HOST, port)
        async with told(sock, ErrorOccurred) as events:
            assert sock.write(b"now") == 3

        assert [datagram.data for datagram in drain_now(late)] == [b"now"]
        with pytest.raises(SocketError) as caught:
            await sock.receive_datagram()
        assert events == [ErrorOccurred(REFUSED, caught.value.message)]


async def test_a_refusal_wakes_who_waits_to_be_ready(network: Network) -> None:
    """There is something to hear, if not to read."""
    async with UdpSocket() as sock:
        await refused(sock)
        with pytest.raises(SocketError) as caught:
            await sock.wait_for_ready_read()

        assert caught.value.kind is REFUSED
        assert sock.read_datagram() is None


async def test_a_reading_call_finds_a_refusal_and_keeps_it(network: Network) -> None:
    """It has nothing to raise it with; the next that waits does."""
    async with UdpSocket() as sock:
        await refused(sock)
        assert sock.read_datagram() is None
        assert sock.error() is REFUSED
        with pytest.raises(SocketError) as caught:
            await sock.receive_datagram()

        assert caught.value.kind is REFUSED


async def test_what_had_arrived_comes_before_the_refusal(network: Network) -> None:
    """Datagrams first, then the error."""
    async with connected_pair() as (sock, peer):
        for data in (b"1", b"2"):
            peer.write(data)
        await peer.disconnect_from_host()
        sock.write(b"too late")

        got = [(await sock.receive_datagram()).data for _ in range(2)]
        with pytest.raises(SocketError) as caught:
            await sock.receive_datagram()

        assert got == [b"1", b"2"]
        assert caught.value.kind is REFUSED


async def test_a_listener_hears_of_a_refusal_while_nobody_receives(network: Network) -> None:
    """The watcher finds it."""
    async with UdpSocket() as sock, sock.events(ErrorOccurred) as events:
        await refused(sock)

        assert (await events.__anext__()).kind is REFUSED


async def test_nobody_tells_a_socket_without_a_peer(network: Network) -> None:
    """U-026: as on Linux, unless IP_RECVERR is asked for."""
    async with bound_pair() as (sock, nobody):
        port = nobody.local_port()
        await nobody.disconnect_from_host()
        async with told(sock, ErrorOccurred) as events:
            sock.write_datagram(b"x", HOST, port)
            await trio.testing.wait_all_tasks_blocked()

        assert events == []
        assert sock.error() is None


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EMSGSIZE, errno.EACCES, errno.EPROTO])
async def test_any_news_of_the_network_is_no_end(
    network: Network, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a router or a firewall says, on receiving or on sending."""
    async with connected_pair() as (sock, peer):
        link = sock._link
        assert isinstance(link, NativeDatagramLink)
        news = [OSError(number, os.strerror(number)) for _ in range(2)]
        receive, send = link._sock.try_receive_message, link._sock.try_send

        class Told:
            """The socket, which has news at first."""

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def try_receive_message(self, *args: int) -> Any:
                if len(news) > 1:
                    raise news.pop()
                return receive(*args)

            def try_send(self, data: bytes) -> int:
                if len(news) == 1:
                    raise news.pop()
                return send(data)

        real = link._sock
        monkeypatch.setattr(link, "_sock", Told())
        peer.write(b"1")
        assert (await sock.receive_datagram()).data == b"1"
        with pytest.raises(SocketError) as first:
            await sock.receive_datagram()
        sock.write(b"2")
        with pytest.raises(SocketError) as second:
            await sock.receive_datagram()

        assert news == []
        assert (first.value.errno, second.value.errno) == (number, number)
        assert first.value.kind is second.value.kind
        assert (await peer.receive_datagram()).data == b"2"
        assert sock.state() is SocketState.CONNECTED


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EPERM])
async def test_the_news_of_an_earlier_datagram_is_not_lost_with_a_failure(
    network: Network, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is to be sent now fails by itself; of the earlier one, who receives hears all the same."""
    async with UdpSocket() as sock:
        await refused(sock)
        link = sock._link
        assert isinstance(link, NativeDatagramLink)
        real, told_by = link._sock, [OSError(errno.ECONNREFUSED, "refused"), OSError(number, os.strerror(number))]

        class Failing:
            """The socket, which sends nothing more."""

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def try_send(self, data: bytes) -> int:
                raise told_by.pop(0)

        while sock.read_datagram() is None and sock.error() is None:
            await trio.lowlevel.checkpoint()
        with pytest.raises(SocketError):
            await sock.receive_datagram()
        monkeypatch.setattr(link, "_sock", Failing())
        async with told(sock, ErrorOccurred) as events:
            with pytest.raises(trio.WouldBlock if number == errno.EAGAIN else SocketError):
                sock.write(b"now")
        monkeypatch.setattr(link, "_sock", real)
        with pytest.raises(SocketError) as caught:
            await sock.receive_datagram()

        assert told_by == []
        assert caught.value.kind is REFUSED
        kinds = [event.kind for event in events if isinstance(event, ErrorOccurred)]
        assert kinds == [REFUSED, *([] if number == errno.EAGAIN else [ErrorKind.NETWORK])]


@pytest.mark.parametrize("is_connected", [False, True])
async def test_reports_that_nobody_reads_do_not_keep_a_task_awake(network: Loopback, is_connected: bool) -> None:
    """ip(7), IP_RECVERR: Linux puts them beside the datagrams, and as long as there is one no wait lasts."""
    option = [(socket.IPPROTO_IP, 11, 1)]
    async with bound() as nobody:
        port = nobody.local_port()
    async with UdpSocket() as sock:
        if is_connected:
            await sock.connect_to_host(HOST, port, options=option)
        else:
            await sock.bind(HOST, options=option)
        for _ in range(3):
            sock.write_datagram(b"is anybody there?", HOST, port)
        with pytest.raises(SocketError) as caught:
            await sock.receive_datagram()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sock.__anext__)
            with trio.fail_after(20):
                await trio.testing.wait_all_tasks_blocked()  # which nobody is who wakes again and again
            nursery.cancel_scope.cancel()

        assert caught.value.kind is REFUSED


async def test_a_network_that_has_nothing_but_news_lets_others_run(autojump_clock: object) -> None:
    """An iteration that passes over all of them still gives other tasks their turn."""
    async with VirtualNetwork(), connected_pair() as (sock, _), trio.open_nursery() as nursery:
        link = sock._link
        assert isinstance(link, NativeDatagramLink)
        native: Any = link._sock

        def refuse(*args: Any) -> Any:
            raise OSError(errno.ECONNREFUSED, "refused")

        native.try_receive_message = refuse
        native.end.is_readable = lambda: True
        nursery.start_soon(sock.__anext__)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

    assert sock.error() is REFUSED
