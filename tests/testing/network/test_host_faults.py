"""Faults of one host really happen, programs see what a real one would show them, and they stop at their end."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.testing.network.three_hosts import (
    LATENCY,
    accept,
    connected,
    events,
    everything,
    failure,
    listen,
    look_up,
    opened,
    times,
    udp,
)
from trioqt import AcceptError, ErrorKind, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.faults import DescriptorsExhausted, NameServerDown

Clock = trio.testing.MockClock
Socket = trio.socket.SocketType


# ---- crash ---------------------------------------------------------------------------------------


async def test_nobody_is_told_of_a_crash_and_the_restarted_host_resets_what_it_does_not_know(
    net: VirtualNetwork,
    autojump_clock: Clock,
) -> None:
    """An idle peer waits on; one that sends is answered by a reset as soon as the host is up again."""
    listener = await listen(net)
    client, server = await connected(net, listener)
    with net.crash("server"):
        unheard = await everything(client, 100)
        gone = [await failure(server.recv, 1), await failure(accept, listener)]
        with net.host("server"), pytest.raises(OSError) as caught:
            opened()
    still = await everything(client, 100)
    await client.send(b"are you there?")
    sent = trio.current_time()

    assert (unheard, still) == ([], [])
    assert (gone, caught.value.errno) == (["ENETDOWN", "EINVAL"], errno.ENETDOWN)
    assert await failure(client.recv, 1) == "ECONNRESET"
    assert trio.current_time() - sent == 2 * LATENCY
    assert events(net, "fault", "crash", "restart", "heal", "RST") == [
        "fault Crash('server')",
        "crash server",
        "heal Crash('server')",
        "restart server",
        "RST server alice",
    ]


async def test_a_crash_while_connections_are_in_every_state(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """What each peer sees, from the crash on and after the restart."""
    listener = await listen(net)
    busy, _ = await connected(net, listener)
    finished, _ = await connected(net, listener)
    finished.shutdown(socket.SHUT_WR)
    ended, ending = await connected(net, listener)
    ending.shutdown(socket.SHUT_WR)
    with net.host("alice"):
        queued = opened()
        await queued.connect(("server", 4000))
        connecting = opened()
    await trio.sleep(1)
    seen = {}

    async def see(name: str, call: Callable[..., Awaitable[object]], *args: Any) -> None:
        seen[name] = await failure(call, *args)

    async with trio.open_nursery() as nursery:
        await busy.send(b"under way")
        nursery.start_soon(see, "connecting", connecting.connect, ("server", 4000))
        await trio.testing.wait_all_tasks_blocked()
        with net.crash("server"):
            nursery.start_soon(see, "busy", busy.recv, 1)
            await trio.sleep(1.5)
        for sock in (ended, queued):
            await sock.send(b"x")
        nursery.start_soon(see, "queued", queued.recv, 1)
        await trio.sleep(1)

        assert await ended.recv(1) == b""
        await see("ended", ended.send, b"x")

    assert seen == {"connecting": "ECONNREFUSED", "busy": "ECONNRESET", "queued": "ECONNRESET", "ended": "EPIPE"}
    assert await everything(finished, 100) == []  # it has nothing more to say, so it learns nothing


async def test_a_client_that_crashes_leaves_the_server_waiting(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Only when it sends does it find out: a reset once the client is up again."""
    client, server = await connected(net, await listen(net))
    with net.crash("alice"):
        nothing = await everything(server, 10)
    await server.send(b"?")

    assert nothing == []
    assert await failure(server.recv, 1) == "ECONNRESET"
    client.close()


async def test_a_client_that_starts_again_connects_from_the_port_of_its_former_life(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """The server still has that connection: it asks (RFC 5961, 4.2), is answered by a reset, and the client's second
    try makes the new one.  The first version of the network kept silent for ever.
    """
    listener = await listen(net)
    client, server = await connected(net, listener)
    port = client.getsockname()[1]
    net.crash("alice").end()
    began = trio.current_time()
    again, accepted = await connected(net, listener)
    took = trio.current_time() - began
    await accepted.send(b"hello")

    assert again.getsockname()[1] == port
    assert 1.0 < took < 2.0
    assert await failure(server.recv, 1) == "ECONNRESET"
    assert await again.recv(100) == b"hello"


async def test_what_a_former_life_was_sent_is_not_for_the_next(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Its bytes come while the new connection is being made, from the same port to the same port."""
    listener = await listen(net)
    _, server = await connected(net, listener)
    await server.send(b"old")
    net.crash("alice").end()
    again, accepted = await connected(net, listener)
    await accepted.send(b"new")

    assert await failure(server.recv, 1) == "ECONNRESET"
    assert await again.recv(100) == b"new"


@pytest.mark.parametrize("returns", [True, False])
async def test_keep_alive_finds_out_that_a_silent_peer_has_crashed(
    net: VirtualNetwork, autojump_clock: Clock, returns: bool
) -> None:
    """It asks after 10 s, then every 5 s: a reset if the host is up again, ETIMEDOUT after three questions."""
    client, _ = await connected(net, await listen(net))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    began = trio.current_time()
    trouble = net.crash("server")
    if returns:
        await trio.sleep(3)
        trouble.end()
    told = await failure(client.recv, 1)
    took = trio.current_time() - began

    assert (told, took) == (("ECONNRESET", 10 + 2 * LATENCY) if returns else ("ETIMEDOUT", 10 + 3 * 5))


async def test_connections_that_wait_to_be_accepted_are_gone_after_a_crash(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """The server accepts two of five, crashes and starts again: the other three get nothing but a reset."""
    accepted: list[tuple[int, Socket]] = []
    lives = 0

    async def main() -> None:
        nonlocal lives
        lives += 1
        listener = await listen(net)
        for _ in range(2):
            accepted.append((lives, await accept(listener)))
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(net.run_on, "server", main)
        await trio.testing.wait_all_tasks_blocked()
        clients = []
        with net.host("alice"):
            for _ in range(5):
                clients.append(opened())
                await clients[-1].connect(("server", 4000))
            await trio.sleep(1)
            with net.crash("server"):
                await trio.sleep(1)
            await trio.testing.wait_all_tasks_blocked()
            for client in clients:
                await client.send(b"x")
            told = [await failure(client.recv, 1) for client in clients]
            again = opened()
            await again.connect(("server", 4000))
            await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert told == ["ECONNRESET"] * 5
    assert [life for life, _ in accepted] == [1, 1, 2]


async def test_tasks_that_wait_on_sockets_of_a_crashed_host_see_that_the_network_is_down(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """Reading, writing, connecting: what runs outside of `run_on` goes on, without its sockets."""
    listener = await listen(net)
    _, server = await connected(net, listener)
    with net.host("server"):
        connecting = opened()
        datagrams = await udp(net, "server", 5)
    told: dict[str, str] = {}

    async def see(name: str, call: Callable[..., Awaitable[object]], *args: Any) -> None:
        told[name] = await failure(call, *args)

    async def send_for_ever() -> None:
        while True:
            await server.send(bytes(65536))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(see, "accept", accept, listener)
        nursery.start_soon(see, "read", server.recv, 1)
        nursery.start_soon(see, "write", send_for_ever)
        nursery.start_soon(see, "connect", connecting.connect, ("bob", 1))
        nursery.start_soon(see, "datagram", datagrams.recv, 1)
        await trio.testing.wait_all_tasks_blocked()
        net.crash("server")

    assert told == {**dict.fromkeys(["read", "write", "connect", "datagram"], "ENETDOWN"), "accept": "EINVAL"}


async def test_a_server_outside_of_run_on_does_not_spin_when_its_host_has_crashed(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """accept() says EINVAL, as of a socket that listens no more: trio's server ends, ours tells and tries ten times a
    second.  With ENETDOWN, which servers take for a client's misfortune, both used to try again for ever.
    """
    passes = Passes()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            with net.host("server"):
                await nursery.start(trio.serve_tcp, trio.aclose_forcefully, 4000)
            net.crash("server").end()
    with net.host("server"):
        async with TcpServer() as server, server.events(AcceptError) as told:
            await server.listen("0.0.0.0", 4000)
            net.crash("server").end()
            event = await anext(told)
            trio.lowlevel.add_instrument(passes)
            await trio.sleep(3)
            trio.lowlevel.remove_instrument(passes)

    leaves = [exc for group in caught.value.exceptions for exc in getattr(group, "exceptions", (group,))]
    assert [type(exc) for exc in leaves] == [OSError]
    assert event == AcceptError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "cannot accept: Invalid argument")
    assert passes.count < 200


# ---- pause ---------------------------------------------------------------------------------------


async def test_a_server_that_stands_still_while_one_connects_answers_when_it_goes_on(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """Nothing is lost and nothing refused: the first SYN is answered at 5 s."""
    await listen(net)
    with net.host("alice"):
        client = opened()
        async with trio.open_nursery() as nursery:
            with net.pause("server"):
                nursery.start_soon(client.connect, ("server", 4000))
                await trio.sleep(5)

    assert trio.current_time() == 5 + 2 * LATENCY
    assert times(net, "held", "SYN") == [0.0, 1.0, 3.0]
    assert events(net, "lost", "RST") == []


async def test_a_host_that_stands_still_neither_hears_nor_speaks(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Not even with itself; everything comes when it goes on."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.pause("server"):
        await alice.sendto(b"in", ("server", 6))
        await server.sendto(b"out", ("alice", 5))
        await server.sendto(b"self", ("127.0.0.1", 6))
        within = await everything(alice, 2), await everything(server, 2)

    assert within == ([], [])
    assert (await everything(alice, 1), await everything(server, 1)) == ([b"out"], [b"self", b"in"])
    assert sorted(events(net, "held", "lost")) == [
        "held alice server UDP",
        "held server alice UDP",
        "held server server UDP",
    ]


# ---- names ---------------------------------------------------------------------------------------


async def test_a_dead_name_server_takes_ten_seconds_not_to_answer(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Everybody is hit; ``localhost`` and addresses need no server."""
    with net.begin(NameServerDown()):
        told = await look_up(net, "alice", "server"), trio.current_time()
        local = await look_up(net, "alice", "localhost"), await look_up(net, "alice", "10.0.0.9"), trio.current_time()

    assert told == ("EAI_AGAIN", 10.0)
    assert local == ("::1", "10.0.0.9", 10.0)
    assert await look_up(net, "alice", "server") == "10.0.0.4"
    assert events(net, "lookup", "fault", "heal") == [
        "fault NameServerDown()",
        "lookup alice server",
        "heal NameServerDown()",
        "lookup alice server",
    ]


async def test_a_name_server_can_be_dead_for_one_host(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """The others do not notice."""
    with net.begin(NameServerDown("alice")):
        assert await look_up(net, "bob", "server") == "10.0.0.4"
        assert trio.current_time() == 0.0
        assert await look_up(net, "alice", "server") == "EAI_AGAIN"
        assert trio.current_time() == 10.0


async def test_a_name_server_that_comes_back_answers_the_second_question(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """It is asked again after five seconds."""
    async with trio.open_nursery() as nursery:
        with net.begin(NameServerDown()):
            nursery.start_soon(look_up, net, "alice", "server")
            await trio.sleep(3)

    assert trio.current_time() == 5.0


async def test_a_program_says_that_it_cannot_find_the_host(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """trio's streams, unchanged, raise what the resolver says."""
    with net.begin(NameServerDown()), net.host("alice"):
        with pytest.raises(OSError, match="name server") as caught:
            await trio.open_tcp_stream("server", 4000)

    assert isinstance(caught.value, socket.gaierror)


# ---- descriptors ---------------------------------------------------------------------------------


async def test_no_socket_can_be_made_on_a_host_without_descriptors(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Those that there are go on, and other hosts do not notice."""
    client, server = await connected(net, await listen(net))
    with net.begin(DescriptorsExhausted("server")):
        with net.host("server"), pytest.raises(OSError) as caught:
            opened()
        with net.host("alice"):
            opened().close()
        await client.send(b"hello")
        heard = await server.recv(5)
    with net.host("server"):
        opened().close()

    assert (caught.value.errno, heard) == (errno.EMFILE, b"hello")


async def test_a_limit_of_descriptors_counts_those_in_use(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """A third is too many, until another is closed."""
    with net.begin(DescriptorsExhausted("server", 2)), net.host("server"):
        first, second = opened(), opened()
        with pytest.raises(OSError) as caught:
            opened()
        first.close()
        opened().close()
        second.close()

    assert caught.value.errno == errno.EMFILE


async def test_a_connection_waits_while_its_server_has_no_descriptors(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """accept() fails, and the same connection is there the next time."""
    listener = await listen(net)
    with net.host("alice"):
        client = opened()
        await client.connect(("server", 4000))
    await trio.sleep(1)
    with net.begin(DescriptorsExhausted("server")):
        told = await failure(accept, listener)
    accepted = await accept(listener)

    assert told == "EMFILE"
    assert accepted.getpeername() == client.getsockname()


async def test_our_server_outlives_a_lack_of_descriptors(
    net: VirtualNetwork, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It tells, tries again ten times a second, and serves who has waited: no spinning, no end."""
    passes = Passes()

    async def echo(sock: TcpSocket) -> None:
        async for chunk in sock:
            await sock.send_all(chunk)

    async with trio.open_nursery() as nursery:
        with net.host("server"):
            server = TcpServer()
            async with server, server.events(AcceptError) as told:
                await server.listen("0.0.0.0", 4000)
                await nursery.start(server.serve, echo)
                with net.host("alice"):
                    async with TcpSocket() as sock:
                        with net.begin(DescriptorsExhausted("server")):
                            await sock.connect_to_host("server", 4000)
                            await sock.send_all(b"hello")
                            event = await anext(told)
                            trio.lowlevel.add_instrument(passes)
                            await trio.sleep(3)
                            trio.lowlevel.remove_instrument(passes)
                            unanswered = sock.bytes_available()
                        ended = trio.current_time()
                        answer = await sock.receive_exactly(5)
                nursery.cancel_scope.cancel()

    assert event == AcceptError(ErrorKind.SOCKET_RESOURCE, "cannot accept: Too many open files")
    assert (unanswered, answer) == (0, b"hello")
    assert trio.current_time() - ended <= 0.1 + 2 * LATENCY
    assert passes.count < 200
    assert {record.name for record in caplog.records} == {"trioqt.server"}


class Passes(trio.abc.Instrument):
    """Counts the passes of the run loop."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1
