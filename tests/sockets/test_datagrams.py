"""Datagrams there and back: what is sent arrives whole, with its addresses, and what is read is gone."""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Awaitable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.links.scripted import names
from tests.networks import Loopback, Network
from tests.sockets.datagram_pairs import HOST, bound, bound_pair, connected_pair, drain_now
from tests.sockets.telling import told
from tests.sockets.turns import counted_steps
from trioqt import (
    BytesWritten,
    ErrorKind,
    ErrorOccurred,
    HostAddress,
    NetworkDatagram,
    SocketError,
    SocketState,
    SocketType,
    StateChanged,
    TcpSocket,
    UdpSocket,
    network_interfaces,
)
from trioqt.links.datagram import NativeDatagramLink
from trioqt.testing import VirtualNetwork

MESSAGES = [b"one", b"", b"with\0zero", bytes(600), b"last"]


# ---- there and back ----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_keep_their_borders_and_their_order(network: Network, host: str) -> None:
    """U-013: an empty one is one, and no end."""
    async with bound(host) as receiver, bound(host) as sender:
        for data in MESSAGES:
            assert sender.write_datagram(data, host, receiver.local_port()) == len(data)

        got = [await receiver.receive_datagram() for _ in MESSAGES]

        assert [datagram.data for datagram in got] == MESSAGES
        assert not receiver.has_pending_datagrams()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_datagram_has_its_addresses(network: Network, host: str) -> None:
    """Sender and destination, hop limit and interface: what the system says beside the data."""
    async with bound(host) as receiver, bound(host) as sender:
        await sender.send_datagram(b"x", host, receiver.local_port())

        datagram = await receiver.receive_datagram()

        assert datagram == NetworkDatagram(
            b"x",
            host,
            sender.local_port(),
            host,
            receiver.local_port(),
            hop_limit=64,
            interface_index=1,
        )


async def test_a_socket_for_both_families_hears_both(network: Network) -> None:
    """U-012, U-014: an IPv4 sender has its mapped form there, which is equal to the other."""
    async with UdpSocket() as receiver, UdpSocket() as sender:
        await receiver.bind()
        for host in ("127.0.0.1", "::1", "127.0.0.1"):
            await sender.send_datagram(host.encode(), host, receiver.local_port())

        got = [await receiver.receive_datagram() for _ in range(3)]

        assert [str(datagram.sender_address) for datagram in got] == ["::ffff:127.0.0.1", "::1", "::ffff:127.0.0.1"]
        for datagram in got:
            assert datagram.sender_address == HostAddress(datagram.data.decode())
            assert datagram.destination_address == HostAddress(datagram.data.decode())
            assert datagram.hop_limit == 64


async def test_an_ipv6_socket_alone_hears_no_ipv4(network: Network) -> None:
    """U-016."""
    async with bound(HostAddress.ANY_IPV6) as receiver, bound() as sender:
        await sender.send_datagram(b"four", HOST, receiver.local_port())
        await trio.testing.wait_all_tasks_blocked()

        assert not receiver.has_pending_datagrams()


async def test_an_answer_finds_its_way(network: Network) -> None:
    """To whom has asked, from the address that was asked, though the socket has them all."""
    async with bound(HostAddress.ANY) as server, bound("127.0.0.1") as client:
        await client.send_datagram(b"?", "127.0.0.2", server.local_port())
        question = await server.receive_datagram()

        await server.send_datagram(question.make_reply(b"!"))

        answer = await client.receive_datagram()
        assert (answer.data, answer.sender_address) == (b"!", HostAddress("127.0.0.2"))
        assert (question.destination_address, question.destination_port) == (answer.sender_address, answer.sender_port)


async def test_the_hop_limit_of_one_datagram(network: Network) -> None:
    """U-054: it is set for that one, in either family; the next has the socket's again."""
    for host in ("127.0.0.1", "::1"):
        async with bound(host) as receiver, bound(host) as sender:
            port = receiver.local_port()
            sender.write_datagram(NetworkDatagram(b"", destination_address=host, destination_port=port, hop_limit=5))
            sender.write_datagram(NetworkDatagram(b"", destination_address=host, destination_port=port))

            assert [(await receiver.receive_datagram()).hop_limit for _ in range(2)] == [5, 64]


async def test_a_sender_address_that_is_not_this_hosts_is_left_out(network: Network) -> None:
    """As that of the answer to a subnet's broadcast, which nobody can tell from an address."""
    async with bound() as receiver, UdpSocket() as sender:
        await sender.send_datagram(
            NetworkDatagram(b"x", "203.0.113.7", 0, HOST, receiver.local_port())  # RFC 5737: nobody's
        )

        assert (await receiver.receive_datagram()).sender_address == HostAddress(HOST)


@pytest.mark.parametrize("address", ["*", "0.0.0.0", "::"])
async def test_any_address_is_nobodys(network: Network, address: str) -> None:
    """As the sender's it leaves the choice to the system."""
    async with bound() as receiver, UdpSocket() as sender:
        sender.write_datagram(NetworkDatagram(b"x", address, 0, HOST, receiver.local_port()))

        assert (await receiver.receive_datagram()).sender_address == HostAddress(HOST)


async def test_by_any_interface_a_socket_sends_from_its_own_address(network: Network) -> None:
    """And not from the first that the interface has."""
    loopback = next(interface.index for interface in network_interfaces() if interface.name == "lo")
    async with bound() as receiver, bound("127.0.0.2") as sender:
        sender.write_datagram(NetworkDatagram(b"x", "", 0, HOST, receiver.local_port(), interface_index=loopback))

        datagram = await receiver.receive_datagram()
        assert (datagram.sender_address, datagram.interface_index) == (HostAddress("127.0.0.2"), loopback)


async def test_who_sends_without_an_address_is_bound_first(network: Network) -> None:
    """U-011: to every address, told before the datagram is."""
    async with bound() as receiver, UdpSocket() as sender:
        async with told(sender) as events:
            sender.write_datagram(b"x", HOST, receiver.local_port())

        assert events == [StateChanged(SocketState.BOUND), BytesWritten(1)]
        assert sender.state() is SocketState.BOUND
        assert sender.local_address() == HostAddress.ANY
        assert (await receiver.receive_datagram()).sender_port == sender.local_port() != 0


async def test_one_verb_is_not_made_of_another_that_a_program_overrides(network: Network) -> None:
    """A class that counts what it writes counts what it was asked to write."""
    written = []

    class Counting(UdpSocket):
        def write_datagram(self, *args: Any) -> int:
            written.append(args)
            return super().write_datagram(*args)

    async with bound() as receiver, Counting() as sock:
        datagram = NetworkDatagram(b"x", destination_address=HOST, destination_port=receiver.local_port())
        await sock.send_datagram(datagram)
        await sock.send_datagram(b"y", HOST, receiver.local_port())
        assert written == []
        sock.write_datagram(datagram)

        assert written == [(datagram,)]
        assert [(await receiver.receive_datagram()).data for _ in range(3)] == [b"x", b"y", b"x"]


async def test_a_name_is_looked_up_for_each_datagram(network: Network) -> None:
    """``send_datagram`` waits, so it may; ``write_datagram`` wants an address."""
    names({"peer.example": [HOST]})
    async with bound() as receiver, UdpSocket() as sender:
        await sender.send_datagram(b"x", "peer.example", receiver.local_port())
        with pytest.raises(ValueError, match=r"peer\.example"):
            sender.write_datagram(b"y", "peer.example", receiver.local_port())

        assert [datagram.data for datagram in drain_now(receiver)] == [b"x"]


async def test_a_name_without_an_address_is_told(network: Network) -> None:
    """HOST_NOT_FOUND, raised and told, and nothing is sent."""
    names({})
    async with bound() as sock:
        async with told(sock) as events:
            with pytest.raises(SocketError) as caught:
                await sock.send_datagram(b"x", "nobody.example", 9)

        assert caught.value.kind is ErrorKind.HOST_NOT_FOUND
        assert events == [ErrorOccurred(ErrorKind.HOST_NOT_FOUND, caught.value.message)]
        assert sock.error() is ErrorKind.HOST_NOT_FOUND
        assert sock.state() is SocketState.BOUND


async def test_it_says_what_it_is(network: Network) -> None:
    """Its type, and where it is."""
    async with UdpSocket() as sock:
        assert sock.socket_type() is SocketType.UDP
        assert repr(sock) == "<UdpSocket unconnected>"
        await sock.bind(HOST)
        port = sock.local_port()
        assert repr(sock) == f"<UdpSocket bound 127.0.0.1:{port}>"
        await sock.connect_to_host(HOST, 9)
        assert repr(sock) == f"<UdpSocket connected 127.0.0.1:{port} to 127.0.0.1:9>"


# ---- what is there -----------------------------------------------------------------------------


async def test_the_size_of_what_is_pending(network: Network) -> None:
    """U-017: of the oldest, in order; -1 when there is none."""
    async with bound_pair() as (receiver, sender):
        for size in (7, 0, 10):
            sender.write_datagram(bytes(size), HOST, receiver.local_port())

        sizes = []
        while receiver.has_pending_datagrams():
            sizes.append((receiver.pending_datagram_size(), receiver.bytes_available()))
            receiver.read_datagram()

        assert sizes == [(7, 7), (0, 0), (10, 10)]
        assert (receiver.pending_datagram_size(), receiver.bytes_available()) == (-1, 0)


async def test_what_does_not_fit_is_gone_and_said_so(network: Network) -> None:
    """U-018, U-019: the next read is the next datagram, also after a read of no bytes."""
    async with bound_pair() as (receiver, sender):
        for data in (b"abcdef", b"ghi", b"jkl", b"mno"):
            sender.write_datagram(data, HOST, receiver.local_port())

        first = receiver.read_datagram(2)
        second = await receiver.receive_datagram(3)
        third = receiver.read_datagram(0)
        fourth = await receiver.receive_datagram()

        got = [(datagram.data, datagram.truncated) for datagram in (first, second, third, fourth) if datagram]
        assert got == [(b"ab", True), (b"ghi", False), (b"", True), (b"mno", False)]


async def test_nothing_is_there_of_a_socket_without_an_address(network: Network) -> None:
    """U-002: no mistake; as a stream that was never connected."""
    async with UdpSocket() as sock:
        assert not sock.has_pending_datagrams()
        assert sock.pending_datagram_size() == -1
        assert sock.bytes_available() == 0
        assert sock.read_datagram() is None
        assert (sock.read(9), sock.read_all()) == (b"", b"")
        assert sock.dropped_datagrams() is None
        assert sock.error() is None


@pytest.mark.parametrize("call", ["read_datagram", "receive_datagram"])
@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError)])
async def test_a_size_that_is_none_is_refused(network: Network, call: str, size: Any, error: type[Exception]) -> None:
    """Before anything is taken."""
    async with bound_pair() as (receiver, sender):
        sender.write_datagram(b"kept", HOST, receiver.local_port())
        with pytest.raises(error):
            result = getattr(receiver, call)(size)
            await result

        assert [datagram.data for datagram in drain_now(receiver)] == [b"kept"]


async def test_buffer_sizes_are_kept_and_have_no_effect(network: Network) -> None:
    """U-055: datagrams wait in the system's buffer."""
    async with bound_pair() as (receiver, sender):
        receiver.set_read_buffer_size(1)
        for _ in range(3):
            sender.write_datagram(bytes(100), HOST, receiver.local_port())

        assert receiver.read_buffer_size() == 1
        assert [len(datagram.data) for datagram in drain_now(receiver)] == [100] * 3


# ---- waiting -----------------------------------------------------------------------------------


async def test_the_iteration_gives_what_comes(network: Network) -> None:
    """For ever, so it is left by ``break`` or by a cancellation."""
    async with bound_pair() as (receiver, sender), trio.open_nursery() as nursery:
        nursery.start_soon(sender.send_datagram, b"one", HOST, receiver.local_port())
        async for datagram in receiver:
            assert datagram.data == b"one"
            break
        await sender.send_datagram(b"two", HOST, receiver.local_port())
        async for datagram in receiver:
            assert datagram.data == b"two"
            break


async def test_a_second_receiver_is_refused(network: Network, nursery: trio.Nursery) -> None:
    """In whatever call; the first goes on."""
    async with bound_pair() as (receiver, sender):
        got: list[NetworkDatagram] = []

        async def first() -> None:
            got.append(await receiver.receive_datagram())

        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        for call in (receiver.receive_datagram, receiver.__anext__, receiver.wait_for_ready_read):
            with pytest.raises(trio.BusyResourceError):
                await call()
        sender.write_datagram(b"x", HOST, receiver.local_port())
        await trio.testing.wait_all_tasks_blocked()

        assert [datagram.data for datagram in got] == [b"x"]


async def test_a_read_beside_a_task_that_waits_takes_nothing_from_it(network: Network, nursery: trio.Nursery) -> None:
    """It would not hear of it; so it is that task's."""
    async with bound_pair() as (receiver, sender):
        got: list[bytes] = []

        async def receive() -> None:
            got.append((await receiver.receive_datagram()).data)

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        sender.write_datagram(b"x", HOST, receiver.local_port())

        assert receiver.read_datagram() is None
        await trio.testing.wait_all_tasks_blocked()
        assert got == [b"x"]


async def test_ready_to_read_means_one_that_was_not_told_of(network: Network) -> None:
    """Once for what is there; again after a read that left some, as Qt's signal comes again (U-023)."""
    async with bound_pair() as (receiver, sender):
        for data in (b"1", b"2"):
            sender.write_datagram(data, HOST, receiver.local_port())

        assert await receiver.wait_for_ready_read()
        with trio.move_on_after(0) as again:
            await receiver.wait_for_ready_read()
        assert again.cancelled_caught
        first = receiver.read_datagram()
        assert await receiver.wait_for_ready_read()
        sender.write_datagram(b"3", HOST, receiver.local_port())

        assert first is not None
        assert [first.data, *(datagram.data for datagram in drain_now(receiver))] == [b"1", b"2", b"3"]


async def test_a_wake_up_is_not_lost_to_a_cancellation(network: Network) -> None:
    """What came is still to be told."""
    async with bound_pair() as (receiver, sender):
        sender.write_datagram(b"1", HOST, receiver.local_port())
        with trio.CancelScope() as scope:
            scope.cancel()
            await receiver.wait_for_ready_read()

        assert scope.cancelled_caught
        assert await receiver.wait_for_ready_read()


async def test_who_waits_and_never_reads_is_told_when_no_more_can_come(network: Network) -> None:
    """A socket holds 64 of its own accord, so that it cannot grow without bound."""
    async with bound_pair() as (receiver, sender):
        waited = 0
        with pytest.raises(SocketError) as caught:
            for _ in range(70):
                sender.write_datagram(b"", HOST, receiver.local_port())
                await receiver.wait_for_ready_read()
                waited += 1

        assert caught.value.kind is ErrorKind.LIMIT_EXCEEDED
        assert waited == 64
        assert len(drain_now(receiver)) == 65


async def test_what_is_there_is_given_without_a_turn_for_others_but_not_for_long(network: Network) -> None:
    """64 answers at most, as from every buffer; so a peer that floods cannot keep other tasks out."""
    async with bound_pair() as (receiver, sender):
        for _ in range(200):
            sender.write_datagram(b"", HOST, receiver.local_port())

        with counted_steps() as steps:
            for _ in range(200):
                await receiver.receive_datagram()

        assert 200 // 64 <= steps[0] <= 200
        with trio.CancelScope() as scope:
            scope.cancel()
            await receiver.receive_datagram()
        assert scope.cancelled_caught


async def test_a_task_that_sends_on_and_on_lets_others_run(network: Network, autojump_clock: object) -> None:
    """Sending waits for nobody, so it must yield of its own accord."""
    async with bound_pair() as (receiver, sender), trio.open_nursery() as nursery:

        async def send_on() -> None:
            while True:
                await sender.send_datagram(b"", HOST, receiver.local_port())

        nursery.start_soon(send_on)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


# ---- one peer ----------------------------------------------------------------------------------


async def test_a_connected_socket_reads_and_writes(network: Network) -> None:
    """U-032, U-033: each ``write`` is one datagram, and each ``read`` too."""
    async with connected_pair() as (first, second):
        async with told(first, BytesWritten) as events:
            assert [first.write(data) for data in (b"one", b"", b"three")] == [3, 0, 5]
        await first.wait_for_bytes_written()

        assert events == [BytesWritten(8)]
        assert (first.bytes_to_write(), first.flush()) == (0, False)
        assert await second.wait_for_ready_read()
        assert second.read(2) == b"on"
        assert second.bytes_available() == 0
        assert second.has_pending_datagrams()
        assert second.read_all() == b""
        assert second.read_all() == b"three"
        assert second.read_all() == b""


async def test_a_connected_socket_hears_its_peer_alone(network: Network) -> None:
    """U-034."""
    async with connected_pair() as (first, second), UdpSocket() as stranger:
        await stranger.send_datagram(b"stranger", HOST, first.local_port())
        second.write(b"peer")

        assert (await first.receive_datagram()).data == b"peer"
        assert not first.has_pending_datagrams()


async def test_what_others_sent_before_there_was_a_peer_is_not_heard(network: Network) -> None:
    """The kernel keeps what had arrived, whoever sent it; in our batch or in its own buffer, it is no peer's."""
    async with bound() as sock, bound() as peer, bound() as stranger:
        stranger.write_datagram(b"stranger 1", HOST, sock.local_port())
        peer.write_datagram(b"peer 1", HOST, sock.local_port())
        assert sock.has_pending_datagrams()  # both are in its hands
        stranger.write_datagram(b"stranger 2", HOST, sock.local_port())
        peer.write_datagram(b"peer 2", HOST, sock.local_port())
        await sock.connect_to_host(HOST, peer.local_port())

        assert [datagram.data for datagram in drain_now(sock)] == [b"peer 1", b"peer 2"]


async def test_a_connected_socket_may_send_to_others(network: Network) -> None:
    """U-036, as on Linux."""
    async with connected_pair() as (first, _), bound() as other:
        first.write_datagram(b"x", HOST, other.local_port())

        assert (await other.receive_datagram()).data == b"x"


async def test_reading_and_writing_bytes_needs_a_peer(network: Network) -> None:
    """U-039: the datagram stays."""
    async with bound_pair() as (receiver, sender):
        sender.write_datagram(b"x", HOST, receiver.local_port())
        for call in (receiver.read_all, lambda: receiver.read(1), lambda: receiver.write(b"y")):
            with pytest.raises(SocketError) as caught:
                call()
            assert caught.value.kind is ErrorKind.OPERATION

        assert [datagram.data for datagram in drain_now(receiver)] == [b"x"]


# ---- what cannot be sent -----------------------------------------------------------------------


@pytest.mark.parametrize(("host", "most"), [("127.0.0.1", 65507), ("::1", 65527)])
async def test_a_datagram_has_its_greatest_length(network: Network, host: str, most: int) -> None:
    """U-022: one byte more is refused, told, and does no harm."""
    async with bound(host) as receiver, bound(host) as sender:
        async with told(sender) as events:
            with pytest.raises(SocketError) as caught:
                sender.write_datagram(bytes(most + 1), host, receiver.local_port())
        sender.write_datagram(bytes(most), host, receiver.local_port())

        assert caught.value.kind is ErrorKind.DATAGRAM_TOO_LARGE
        assert events == [ErrorOccurred(ErrorKind.DATAGRAM_TOO_LARGE, caught.value.message)]
        assert sender.error() is ErrorKind.DATAGRAM_TOO_LARGE
        datagram = await receiver.receive_datagram()
        assert (len(datagram.data), datagram.truncated) == (most, False)


async def test_a_connected_socket_refuses_it_too(network: Network) -> None:
    """And it is not taken for news of an earlier one."""
    async with connected_pair() as (first, second):
        with pytest.raises(SocketError) as caught:
            first.write(bytes(65508))
        first.write(b"after")

        assert caught.value.kind is ErrorKind.DATAGRAM_TOO_LARGE
        assert [datagram.data for datagram in drain_now(second)] == [b"after"]
        with trio.move_on_after(0) as scope:
            await first.receive_datagram()
        assert scope.cancelled_caught


@pytest.mark.parametrize(("host", "port"), [(HOST, 0), ("", 0)])
async def test_a_datagram_needs_a_destination(network: Network, host: str, port: int) -> None:
    """U-027, U-029: no port 0, and none at all without a peer; each error is the one of its own datagram."""
    async with bound() as sock:
        with pytest.raises(SocketError):
            sock.write_datagram(bytes(65508), HOST, 9)
        with pytest.raises(SocketError) as caught:
            sock.write_datagram(NetworkDatagram(b"x", destination_address=host, destination_port=port))

        assert caught.value.kind is ErrorKind.NETWORK
        assert sock.error() is ErrorKind.NETWORK
        assert sock.state() is SocketState.BOUND


@pytest.mark.parametrize("own", [HOST, HostAddress.ANY_IPV4, HostAddress.ANY])
async def test_a_port_alone_is_one_of_this_machine(network: Network, own: HostAddress | str) -> None:
    """U-028, as with Qt."""
    async with bound() as receiver, bound(own) as sender:
        sender.write_datagram(b"x", port=receiver.local_port())

        assert (await receiver.receive_datagram()).sender_address == HostAddress(HOST)


@pytest.mark.parametrize(("own", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
async def test_one_family_does_not_reach_the_other(network: Network, own: str, other: str) -> None:
    """There is no way to there, whatever the system calls it."""
    async with bound(own) as sock:
        with pytest.raises(SocketError) as caught:
            sock.write_datagram(b"x", other, 9)

        assert caught.value.kind is ErrorKind.NETWORK


@pytest.mark.parametrize(
    ("host", "more"),
    [
        ("203.0.113.7", {}),  # RFC 5737: nobody's; and from 127.0.0.1 nothing leaves a machine
        ("203.0.113.7", {"sender_address": "127.0.0.9"}),
        (HOST, {"hop_limit": 0}),
        (HOST, {"interface_index": 2**20}),
    ],
)
async def test_there_may_be_no_such_way(network: Network, host: str, more: dict[str, Any]) -> None:
    """From that address, so far, or by that interface; as Qt has it this is the network's error."""
    async with bound() as sock:
        with pytest.raises(SocketError) as caught:
            sock.write_datagram(NetworkDatagram(b"x", destination_address=host, destination_port=9, **more))
        with pytest.raises(SocketError) as again:
            await sock.send_datagram(NetworkDatagram(b"x", destination_address=host, destination_port=9, **more))

        assert caught.value.kind is again.value.kind is ErrorKind.NETWORK
        assert caught.value.errno in (errno.EINVAL, errno.ENODEV)
        assert again.value.errno == caught.value.errno
        assert sock.state() is SocketState.BOUND


@pytest.mark.parametrize("own", [HOST, HostAddress.ANY_IPV4])
async def test_another_address_of_this_machine_may_be_the_senders(network: Network, own: HostAddress | str) -> None:
    """Also of a socket that is bound to one; the port stays the socket's."""
    async with bound() as receiver, bound(own) as sender:
        sender.write_datagram(NetworkDatagram(b"x", "127.0.0.9", 0, HOST, receiver.local_port()))
        datagram = await receiver.receive_datagram()

        assert (datagram.sender_address.text, datagram.sender_port) == ("127.0.0.9", sender.local_port())


async def test_from_the_loopback_address_nobody_else_is_reached(network: Network) -> None:
    """By a connection no more than by a datagram: Linux refuses both, and says EINVAL."""
    async with UdpSocket() as datagrams, TcpSocket() as stream:
        for sock in (datagrams, stream):
            await sock.bind(HOST)
            with pytest.raises(SocketError) as caught:
                await sock.connect_to_host("203.0.113.7", 9)

            assert caught.value.errno == errno.EINVAL
            assert sock.state() is SocketState.UNCONNECTED


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("text", HOST, 9), TypeError),
        ((5, HOST, 9), TypeError),
        ((b"x", HOST, -1), ValueError),
        ((b"x", HOST, 65536), ValueError),
        ((b"x", HOST, "9"), TypeError),
        ((b"x", 5, 9), TypeError),
        ((NetworkDatagram(b"x", "", 0, HOST, 9), HOST, 9), TypeError),
        ((NetworkDatagram(b"x"), "", 9), TypeError),
    ],
)
async def test_what_is_no_datagram_is_refused(
    network: Network, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    """Before anything is done: the socket is not even bound."""
    async with UdpSocket() as sock:
        with pytest.raises(error):
            sock.write_datagram(*arguments)
        with pytest.raises(error):
            await sock.send_datagram(*arguments)

        assert sock.state() is SocketState.UNCONNECTED


async def test_a_send_waits_for_room(autojump_clock: object) -> None:
    """``write_datagram`` says so instead; who waits is woken when there is some, and several may."""
    from trioqt.testing.network.udp import UdpEnd

    async with VirtualNetwork(), bound_pair() as (receiver, sender):
        is_full = True
        end = _end_of(sender)
        original = UdpEnd.send

        def send(self: UdpEnd, *args: Any) -> int:
            if is_full and self is end:
                raise BlockingIOError
            return original(self, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(UdpEnd, "send", send)
            patch.setattr(UdpEnd, "is_writable", lambda self: not is_full)
            with pytest.raises(trio.WouldBlock):
                sender.write_datagram(b"now", HOST, receiver.local_port())
            async with trio.open_nursery() as nursery:
                for data in (b"1", b"2", b"3"):
                    nursery.start_soon(sender.send_datagram, data, HOST, receiver.local_port())
                await trio.testing.wait_all_tasks_blocked()
                assert not receiver.has_pending_datagrams()
                is_full = False
                end.waker.wake_writer()

        assert sorted(datagram.data for datagram in drain_now(receiver)) == [b"1", b"2", b"3"]


def _end_of(sock: UdpSocket) -> Any:
    link = sock._link
    assert link is not None
    return link.native().end  # type: ignore[attr-defined]


# ---- many --------------------------------------------------------------------------------------


@pytest.mark.once
async def test_a_flood_leaves_memory_bounded_and_the_socket_working(network: Network) -> None:
    """100,000 to a reader that does not read: what does not fit is dropped and counted, and the next one comes through.

    Fewer where every one of them is a Python object on its way.
    """
    count = 100_000 if VirtualNetwork.current() is None else 10_000
    async with bound_pair() as (receiver, sender):
        port = receiver.local_port()
        async with receiver.events():
            for number in range(count):
                await sender.send_datagram(number.to_bytes(4, "big"), HOST, port)
            held = len(receiver._arrived)
        got = drain_now(receiver)
        dropped = receiver.dropped_datagrams()
        sender.write_datagram(b"after", HOST, port)

        assert held <= 64
        numbers = [int.from_bytes(datagram.data, "big") for datagram in got]
        assert numbers == sorted(set(numbers))
        assert 64 < len(got) < 1000
        assert dropped == count - len(got)
        assert [datagram.data for datagram in drain_now(receiver)] == [b"after"]


async def test_a_slow_reader_loses_nothing_that_the_system_still_has(network: Network) -> None:
    """Two hundred wait, more than a batch; all come, in order."""
    async with bound_pair() as (receiver, sender):
        for number in range(200):
            sender.write_datagram(bytes([number]), HOST, receiver.local_port())

        got = []
        for _ in range(200):
            got.append((await receiver.receive_datagram()).data[0])
            await trio.lowlevel.checkpoint()

        assert got == list(range(200))
        assert receiver.dropped_datagrams() in (0, None)


@settings(max_examples=20, deadline=None)
@given(data=st.lists(st.binary(max_size=50) | st.integers(0, 60_000).map(bytes), max_size=20))
def test_any_bytes_come_through(data: list[bytes]) -> None:
    """Over the kernel's loopback."""

    async def main() -> None:
        with trio.fail_after(math.inf):
            async with bound_pair() as (receiver, sender):
                for piece in data:
                    await sender.send_datagram(piece, HOST, receiver.local_port())
                    assert (await receiver.receive_datagram()).data == piece

    trio.run(main)


async def test_the_receive_buffer_can_be_chosen_before_there_is_a_socket(network: Network) -> None:
    """Options that were set before hold from the start, however the socket gets its address."""
    from trioqt import SocketOption

    async with UdpSocket() as one, UdpSocket() as two, UdpSocket() as three:
        for sock in (one, two, three):
            sock.set_socket_option(SocketOption.RECEIVE_BUFFER_SIZE, 10_000)
        await one.bind(HOST)
        await two.connect_to_host(HOST, 9)
        three.write_datagram(b"", HOST, one.local_port())

        sizes = [sock.socket_option(SocketOption.RECEIVE_BUFFER_SIZE) for sock in (one, two, three)]
        assert sizes == [20_000] * 3  # Linux doubles it


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_a_raw_socket_understands_it(network: Network, family: socket.AddressFamily) -> None:
    """A peer without any trioqt, in both directions."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    raw = trio.socket.socket(family, socket.SOCK_DGRAM)
    try:
        await raw.bind((host, 0))
        async with bound(host) as sock:
            await sock.send_datagram(b"hello", host, raw.getsockname()[1])
            data, address = await raw.recvfrom(100)
            await raw.sendto(data.upper(), address)

            assert (await sock.receive_datagram()).data == b"HELLO"
    finally:
        raw.close()


# ---- a look before the wait ----------------------------------------------------------------------


# Loopback: an answer from within the run loop comes too late for a pass that waits for nothing but the clock.
@pytest.mark.unwatched("a task that watches waits in its place")
@pytest.mark.parametrize("quick", [True, False], ids=["at once", "later"])
async def test_who_answers_at_once_is_mostly_not_waited_for(
    network: Loopback, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """A receiver gives others a turn and looks, where that helps, and waits for the system where it does not."""
    waits = 0
    really_wait = NativeDatagramLink.wait_receivable

    def wait(link: NativeDatagramLink) -> Awaitable[None]:
        nonlocal waits
        waits += 1
        return really_wait(link)

    monkeypatch.setattr(NativeDatagramLink, "wait_receivable", wait)
    trips = 100
    async with connected_pair() as (asking, answering), trio.open_nursery() as nursery:

        class AtOnce(trio.abc.Instrument):
            """Answers in each pass of the run loop."""

            def before_io_wait(self, timeout: float) -> None:
                for datagram in drain_now(answering):
                    answering.write_datagram(datagram.make_reply(datagram.data))

        async def later() -> None:
            for _ in range(trips):
                datagram = await answering.receive_datagram()
                await trio.testing.wait_all_tasks_blocked()
                answering.write_datagram(datagram.make_reply(datagram.data))

        peer = AtOnce()
        if quick:
            trio.lowlevel.add_instrument(peer)
        else:
            nursery.start_soon(later)
        for number in range(trips):
            asking.write(b"%d" % number)
            assert (await asking.receive_datagram()).data == b"%d" % number
        if quick:
            trio.lowlevel.remove_instrument(peer)

    if quick:
        assert waits <= 2
    else:  # two receives a trip, and each but one in seventeen waits
        assert waits > trips * 3 // 2
