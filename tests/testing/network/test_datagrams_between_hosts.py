"""``UdpSocket`` over links that lose, double and reorder: the same socket, between simulated hosts."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio
import trio.testing

from trioqt import ErrorKind, HostAddress, NetworkDatagram, SocketError, SocketOption, UdpSocket
from trioqt.core.addresses import unmapped
from trioqt.testing import VirtualNetwork

Clock = trio.testing.MockClock


async def exchange(net: VirtualNetwork, count: int, size: int = 8) -> tuple[list[int], list[NetworkDatagram]]:
    """Send so many numbers from one host to another, a millisecond apart; what arrived, in which order."""
    with net.host("receiver") as address:
        async with UdpSocket() as receiver:
            await receiver.bind(address, 5000)
            with net.host("sender"):
                async with UdpSocket() as sender:
                    for number in range(count):
                        sender.write_datagram(number.to_bytes(8, "big").ljust(size, b"\0"), address, 5000)
                        await trio.sleep(0.001)
            got = []
            with trio.move_on_after(10):
                async for datagram in receiver:
                    got.append(datagram)
    return [int.from_bytes(datagram.data[:8], "big") for datagram in got], got


async def prepared(net: VirtualNetwork, **conditions: Any) -> None:
    for name in ("receiver", "sender"):
        with net.host(name):
            pass
    net.set_link("sender", "receiver", **conditions)


async def test_a_link_loses_a_part_of_them(autojump_clock: Clock) -> None:
    """What comes is whole and in order."""
    async with VirtualNetwork(seed=1) as net:
        await prepared(net, loss=0.3, latency=0.01)
        numbers, _ = await exchange(net, 200)

    assert 120 <= len(numbers) <= 160
    assert numbers == sorted(set(numbers))


async def test_a_link_doubles_and_reorders_some(autojump_clock: Clock) -> None:
    """All come, some twice, some too late."""
    async with VirtualNetwork(seed=1) as net:
        await prepared(net, duplication=0.1, reordering=0.1, latency=0.01)
        numbers, _ = await exchange(net, 200)

    assert set(numbers) == set(range(200))
    assert 210 <= len(numbers) <= 240
    assert numbers != sorted(numbers)


async def test_addresses_are_those_of_the_hosts(autojump_clock: Clock) -> None:
    """And the interface is the one between them."""
    async with VirtualNetwork(latency=0.01) as net:
        _, [datagram] = await exchange(net, 1)

    assert str(datagram.sender_address) == "10.0.0.3"
    assert (str(datagram.destination_address), datagram.destination_port) == ("10.0.0.2", 5000)
    assert (datagram.hop_limit, datagram.interface_index) == (64, 2)


async def test_a_refusal_comes_after_the_way_there_and_back(autojump_clock: Clock) -> None:
    """ICMP takes the time of a packet; through a partition nothing comes at all."""
    async with VirtualNetwork(latency=0.5) as net:
        with net.host("nobody") as address:
            pass
        with net.host("asker"):
            async with UdpSocket() as sock:
                await sock.connect_to_host(address, 5000)
                sock.write(b"?")
                try:
                    await sock.receive_datagram()
                except SocketError as error:
                    kind, when = error.kind, trio.current_time()
                with net.partition("asker", "nobody"):
                    sock.write(b"?")
                    with trio.move_on_after(60) as silence:
                        await sock.receive_datagram()

    assert (kind, when) == (ErrorKind.CONNECTION_REFUSED, 1.0)
    assert silence.cancelled_caught


async def test_what_does_not_fit_the_buffer_is_dropped_and_counted(autojump_clock: Clock) -> None:
    """The buffer that was asked for bounds it."""
    async with VirtualNetwork(latency=0.01) as net:
        with net.host("receiver") as address:
            async with UdpSocket() as receiver:
                receiver.set_socket_option(SocketOption.RECEIVE_BUFFER_SIZE, 5000)
                await receiver.bind(address, 5000)
                with net.host("sender"):
                    async with UdpSocket() as sender:
                        for _ in range(20):
                            sender.write_datagram(bytes(296), address, 5000)
                await trio.sleep(1)
                dropped = receiver.dropped_datagrams()
                with trio.move_on_after(1):
                    got = [await receiver.receive_datagram() for _ in range(10)]

    assert (len(got), dropped) == (10, 10)  # each is charged 704 bytes beside its own


async def test_a_host_that_crashes_says_nothing(autojump_clock: Clock) -> None:
    """Its socket is dead, the others go on; started again, it can be reached again."""
    async with VirtualNetwork(latency=0.01) as net:
        with net.host("server") as address:
            pass
        with net.host("client"):
            async with UdpSocket() as client:
                await client.bind()
                with net.host("server"):
                    async with UdpSocket() as server:
                        await server.bind(address, 5000)
                        with net.crash("server"):
                            client.write_datagram(b"1", address, 5000)
                            await trio.sleep(1)
                            dead = server.read_datagram()
                with net.host("server"):
                    async with UdpSocket() as server:
                        await server.bind(address, 5000)
                        client.write_datagram(b"2", address, 5000)
                        answer = await server.receive_datagram()

    assert dead is None
    assert answer.data == b"2"


async def test_an_interface_leads_where_it_leads(autojump_clock: Clock) -> None:
    """As on Linux: by the loopback interface IPv4 stays here, and what is the loopback's is nowhere else."""
    loopback, ethernet = 1, 2
    heard: list[tuple[str, str, int]] = []
    failed: list[int | None] = []

    async with VirtualNetwork() as net, UdpSocket() as far, UdpSocket() as near, UdpSocket() as sender:
        with net.host("far", addresses=["10.0.0.9"]):
            await far.bind(HostAddress.ANY_IPV4, 5000)
        with net.host("near", addresses=["10.0.0.8", "fd00::8"]) as own:
            await near.bind(HostAddress.ANY, 5000)
            await sender.bind()
        for source, there, interface in (
            ("", "10.0.0.9", loopback),  # taken for this host's own
            ("", own, 0),
            ("", own, loopback),
            ("", "127.0.0.1", 0),
            ("", "127.0.0.1", ethernet),  # it leaves, and nobody has it
            ("", "::1", ethernet),
            ("", "fd00::8", ethernet),
            ("", "fd00::8", loopback),  # no way, but with a source Linux does not ask by which
            ("fd00::8", "fd00::8", loopback),
        ):
            try:
                sender.write_datagram(NetworkDatagram(b"x", source, 0, there, 5000, interface_index=interface))
            except SocketError as error:
                failed.append(error.errno)
            while (datagram := near.read_datagram()) is not None:
                source, target = str(datagram.sender_address), str(datagram.destination_address)
                heard.append((unmapped(source), unmapped(target), datagram.interface_index))
        far_heard = far.read_datagram()

    assert far_heard is None
    assert failed == [errno.ENETUNREACH]
    assert heard == [
        ("10.0.0.8", "10.0.0.9", loopback),
        ("10.0.0.8", "10.0.0.8", ethernet),
        ("10.0.0.8", "10.0.0.8", loopback),
        ("127.0.0.1", "127.0.0.1", loopback),
        ("fd00::8", "fd00::8", ethernet),
        ("fd00::8", "fd00::8", ethernet),
    ]


async def test_a_subnets_broadcast_is_nothing_to_a_host_of_another(autojump_clock: Clock) -> None:
    """Nor does that host refuse it."""
    async with VirtualNetwork() as net, UdpSocket() as sender:
        with net.host("other", addresses=["10.0.1.9"]):
            pass
        with net.host("one", addresses=["10.0.2.9"]):
            await sender.connect_to_host("10.0.2.255", 5000)
        sender.write(b"x")
        mtu = sender.socket_option(SocketOption.PATH_MTU)
        with trio.move_on_after(1) as silence:
            await sender.receive_datagram()

    assert silence.cancelled_caught
    assert (sender.error(), mtu) == (None, 1500)


async def test_an_address_of_a_link_is_that_of_the_hosts_own_interface(autojump_clock: Clock) -> None:
    """RFC 4007; which interfaces this machine has is nothing to a simulated host."""
    machines = socket.if_nameindex()
    async with VirtualNetwork() as net, UdpSocket() as receiver, UdpSocket() as sender, UdpSocket() as other:
        with net.host("near", addresses=["10.0.0.7", "fe80::7"]):
            await receiver.bind("fe80::7%eth0", 5000)
        with net.host("far", addresses=["10.0.0.8", "fe80::8"]):
            await sender.bind(HostAddress.ANY)
        assert socket.if_nameindex() == [(1, "lo"), (2, "eth0")]
        for zone in ("%eth0", "%2", ""):
            sender.write_datagram(b"?", f"fe80::7{zone}", 5000)
            question = await receiver.receive_datagram()
            assert str(question.sender_address) == "fe80::8%eth0"
            assert str(question.destination_address) == "fe80::7%eth0"
            await receiver.send_datagram(question.make_reply(b"!"))
            assert str((await sender.receive_datagram()).sender_address) == "fe80::7%eth0"
        for zone, number in (("%lo", errno.ENETUNREACH), ("%9", errno.ENETUNREACH), ("%nosuch0", errno.ENODEV)):
            with pytest.raises(SocketError) as caught:
                sender.write_datagram(b"?", f"fe80::7{zone}", 5000)
            assert (caught.value.kind, caught.value.errno) == (ErrorKind.NETWORK, number)
        with net.host("far"):
            with pytest.raises(SocketError, match="Invalid argument"):
                await other.connect_to_host("fe80::7", 5000)
            await other.connect_to_host("fe80::7%eth0", 5000)
            assert (str(other.local_address()), str(other.peer_address())) == ("fe80::8%eth0", "fe80::7%eth0")
    assert socket.if_nameindex() == machines
