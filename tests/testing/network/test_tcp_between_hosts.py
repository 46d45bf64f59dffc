"""TCP on the simulated network: what is asked again, what times out, and what is left of it."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
import trio.testing

from tests.testing.network.on_hosts import (
    connected,
    datagrams,
    errno_of,
    kinds,
    listening,
    name_hosts,
    pair,
    receive_all,
)
from trioqt.testing import VirtualNetwork

Clock = trio.testing.MockClock


async def test_a_full_backlog_ignores_who_asks_and_they_ask_again(autojump_clock: Clock) -> None:
    """Linux keeps backlog + 1.  The third is let in at its first retry, a second later, when one has been accepted."""
    async with VirtualNetwork(latency=0.25) as net:
        with net.host("server") as address:
            listener = await listening(backlog=1)
        connect_times = []

        async def connect() -> None:
            with net.host("client"):
                sock = await connected(address)
            connect_times.append(trio.current_time())
            sock.close()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(connect)
            await trio.sleep(1)
            for _ in range(3):
                (await listener.accept())[0].close()
        listener.close()

        assert connect_times == [0.5, 0.5, 1.5]
        assert kinds(net).count("backlog full") == 1


async def test_an_address_that_does_not_answer_times_out_after_seven_syns(autojump_clock: Clock) -> None:
    """Linux: tcp_syn_retries is 6; TCP_SYNCNT sets it for a socket."""
    async with VirtualNetwork() as net:
        name_hosts(net, "client", "server")
        net.set_link("client", "server", loss=1.0)
        with net.host("server") as address:
            listener = await listening()
        times = {}
        with net.host("client"):
            for retries in (6, 2):
                start = trio.current_time()
                with trio.socket.socket() as sock:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, retries)
                    result = await errno_of(sock.connect, (str(address), 4000))
                times[retries] = (result, trio.current_time() - start)
        listener.close()

        assert times == {6: ("ETIMEDOUT", 127.0), 2: ("ETIMEDOUT", 7.0)}


async def test_keep_alive_finds_a_peer_that_is_gone(autojump_clock: Clock) -> None:
    """Ten idle seconds, then three probes five seconds apart, the last of which gets its five seconds too."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        both.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            both.client.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        with net.partition("client", "server"):
            start = trio.current_time()
            result = await errno_of(both.client.recv, 1)
            waited = trio.current_time() - start
        both.close()

        assert (result, waited) == ("ETIMEDOUT", 25.0)


async def test_keep_alive_costs_nothing_while_nothing_is_wrong(autojump_clock: Clock) -> None:
    """An idle network is at rest, so a deadlock is still seen as one."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        both.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        at_rest = net.in_flight
        both.close()

        assert at_rest == 0


async def test_a_port_in_time_wait_is_free_again_after_a_minute(autojump_clock: Clock) -> None:
    """Whoever closes first keeps it; SO_REUSEADDR, on the old socket and on the new one, does not mind."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        both.server.close()
        assert await both.client.recv(1) == b""
        both.client.close()

        async def bind(reuse: int) -> str:
            with net.host("server"), trio.socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                return await errno_of(sock.bind, ("0.0.0.0", 4000))

        early = await bind(0), await bind(1)
        await trio.sleep(60)
        late = await bind(0)

        assert (early, late) == (("EADDRINUSE", "ok"), "ok")


async def test_an_answer_survives_a_request_that_is_repeated_in_vain(autojump_clock: Clock) -> None:
    """The server has answered and closed; only its acknowledgements were cut.  What comes again is known, no reset."""
    async with VirtualNetwork(latency=0.05) as net:
        both = await pair(net)
        with net.partition("server", "client", one_way=True):
            await both.client.send(b"request")
            await both.server.recv(7)
            await both.server.send(b"response")
            both.server.close()
            await trio.sleep(1)
        got = await both.client.recv(100), await both.client.recv(100)
        both.close()

        assert got == (b"response", b"")


async def test_a_held_link_keeps_ten_thousand_packets_and_loses_no_byte(autojump_clock: Clock) -> None:
    """More are dropped, as by a switch that runs out of memory, and TCP repeats them."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        with net.hold("client", "server"):
            for _ in range(10_500):
                await both.client.send(b"x")
        both.client.shutdown(socket.SHUT_WR)
        got = 0
        while data := await both.server.recv(65536):
            got += len(data)
        both.close()

        assert got == 10_500
        assert kinds(net).count("lost") > 400


@pytest.mark.parametrize("latency", [0.0, 0.05])
async def test_nothing_is_left_of_connections_that_are_over(latency: float, autojump_clock: Clock) -> None:
    """Whoever closed first: a minute later both hosts have forgotten them, and every port is free."""
    async with VirtualNetwork(latency=latency) as net:
        for port in (4001, 4002):
            both = await pair(net, port=port)
            first, second = (both.client, both.server) if port == 4001 else (both.server, both.client)
            first.close()
            assert await second.recv(1) == b""
            second.close()
            await trio.sleep(100)
        both = await pair(net, port=4003)
        both.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        both.close()
        await net.quiesce()
        client, server = net.hosts["client"], net.hosts["server"]

        assert [end for host in (client, server) for end in host.connections.values() if not end.is_gone()] == []
        assert net.netstat().count("\n") == 0
        assert net.in_flight == 0


async def test_clean_up_under_a_shield_still_has_a_network(autojump_clock: Clock) -> None:
    """The scope around the network is cancelled; a goodbye that is shielded goes through."""
    heard = b""
    with trio.move_on_after(5):
        async with VirtualNetwork(latency=0.05) as net:
            both = await pair(net)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await both.client.send(b"bye")
                    heard = await both.server.recv(3)
                    both.close()

    assert heard == b"bye"


async def test_a_lost_acknowledgement_is_not_forgotten_for_one_that_left_earlier(autojump_clock: Clock) -> None:
    """The one that made room was lost; the one before it, still under way, says nothing of that room."""
    async with VirtualNetwork(latency=1.0) as net:
        both = await pair(net)
        start = trio.current_time()

        async def read() -> None:
            await receive_all(both.server, 2 * 65536)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await both.client.send(bytes(1000))
            await trio.sleep_until(start + 0.5)
            await both.client.send(bytes(65536 - 1000))
            await trio.sleep_until(start + 1.2)
            with net.partition("server", "client", one_way=True):
                await trio.sleep(1.5)
            rest = 65536
            while rest:
                rest -= await both.client.send(bytes(rest))
        waited = trio.current_time() - start
        both.close()

        assert waited < 12


async def test_a_close_whose_last_acknowledgement_was_lost_still_ends(autojump_clock: Clock) -> None:
    """Its port is free again."""
    async with VirtualNetwork(latency=1.0) as net:
        both = await pair(net)
        start = trio.current_time()
        await both.client.send(b"a")
        await trio.sleep_until(start + 0.5)
        await both.client.send(b"b")
        both.client.close()
        await trio.sleep_until(start + 1.2)
        with net.partition("server", "client", one_way=True):
            await trio.sleep(1.5)
        await trio.sleep(100)
        left = [end for end in net.hosts["client"].connections.values() if not end.is_gone()]
        both.close()

        assert left == []


async def test_a_connect_whose_answer_is_cut_off_asks_again(autojump_clock: Clock) -> None:
    """The SYN arrived, its answers did not for 70 s.  Linux asks at 1, 3, 7, 15, 31 and 63 s, and gives up at 127 s."""
    async with VirtualNetwork(latency=0.05) as net:
        with net.host("server") as address:
            listener = await listening()
        name_hosts(net, "client")
        results = []

        async def connect() -> None:
            start = trio.current_time()
            with net.host("client"), trio.socket.socket() as sock:
                result = await errno_of(sock.connect, (str(address), 4000))
            results.append((result, round(trio.current_time() - start, 2)))

        for cut in (50, 200):
            async with trio.open_nursery() as nursery:
                trouble = net.partition("server", "client", one_way=True)
                nursery.start_soon(connect)
                await trio.sleep(cut)
                trouble.end()
        listener.close()

        assert results == [("ok", 63.1), ("ETIMEDOUT", 127.0)]


async def test_a_held_acknowledgement_comes_when_it_is_released(autojump_clock: Clock) -> None:
    """Room is known one latency after the release, not at the next repetition."""
    async with VirtualNetwork(latency=0.05) as net:
        both = await pair(net)

        async def read() -> None:
            await receive_all(both.server, 131_072)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with net.hold("server", "client", one_way=True):
                with trio.move_on_after(30):
                    while True:
                        await both.client.send(bytes(65536))
            start = trio.current_time()
            await both.client.wait_writable()
            waited = trio.current_time() - start
            nursery.cancel_scope.cancel()
        both.close()

        assert waited == pytest.approx(0.05)


async def test_the_network_is_at_rest_again_after_a_fault(autojump_clock: Clock) -> None:
    """A connection that asks for its peer now and then asks once more, and then no more while all is well."""
    async with VirtualNetwork(latency=0.05) as net:
        both = await pair(net)
        both.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with net.partition("client", "server"):
            await trio.sleep(1)
        await net.quiesce()
        at_rest = net.in_flight, trio.current_time()
        both.close()

        assert at_rest == (0, 7200.15)


async def test_keep_alive_finds_a_reset_that_was_lost(autojump_clock: Clock) -> None:
    """No fault lasts, but something of this connection was lost: so it asks."""
    async with VirtualNetwork() as net:
        both = await pair(net)
        both.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        net.set_link("server", "client", loss=1.0, one_way=True)
        both.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        both.server.close()
        net.set_link("server", "client", loss=0.0, one_way=True)
        start = trio.current_time()
        result = await errno_of(both.client.recv, 1), trio.current_time() - start
        both.close()

        assert result == ("ECONNRESET", 7200.0)


async def test_a_link_that_gets_faster_is_free_at_once(autojump_clock: Clock) -> None:
    """What is on it arrives when it would have, after 104 s; what comes later does not wait for it, and is not lost."""
    async with VirtualNetwork() as net:
        name_hosts(net, "client", "server")
        net.set_link("client", "server", bandwidth=10.0)
        with net.host("server") as address:
            receiver = await datagrams(53)
        with net.host("client"):
            sender = await datagrams()
        await sender.sendto(bytes(1000), (str(address), 53))
        net.set_link("client", "server", bandwidth=1e9)
        await sender.sendto(b"later", (str(address), 53))
        arrivals = [(len(await receiver.recv(2000)), round(trio.current_time(), 3)) for _ in range(2)]
        receiver.close()
        sender.close()

        assert arrivals == [(5, 0.0), (1000, 104.0)]
