"""TLS is a link over any link: trio's checks of a stream over it, over streams, over itself, and over a bad network."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing
import trustme

from tests.certificates import Contexts, contexts
from tests.networks import Network, Virtual
from tests.sockets.arrivals import fill, until
from trioqt import ConnectionFinished, ErrorKind, SocketError, SslServer, SslSocket
from trioqt.testing import VirtualNetwork, simulate

NAME = "peer.example"
# Of RSA: the length of an ECDSA signature is by lot, and with it how long a packet takes.
RSA = contexts(NAME, key_type=trustme.KeyType.RSA)

Pair = tuple[SslSocket, SslSocket]


async def encrypt(left: SslSocket, right: SslSocket) -> Pair:
    """Both ends at once."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(right.start_server_encryption)
        await left.start_client_encryption(server_hostname=NAME)
    return left, right


async def failures_of(left: SslSocket, right: SslSocket) -> list[str]:
    """How both ends fail to become encrypted."""
    failures: list[str] = []

    async def run(begin: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(SocketError) as failed:
            await begin()
        failures.append(failed.value.message.removeprefix("the TLS handshake failed: "))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, right.start_server_encryption)
        nursery.start_soon(run, partial(left.start_client_encryption, server_hostname=NAME))
    return sorted(failures)


@pytest.mark.parametrize("watched", [False, True])
async def test_encrypted_sockets_are_trio_streams(network: Network, tls: Contexts, watched: bool) -> None:
    """trio finds nothing wrong, half-close included."""
    async with SslServer(tls.server) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)

        async def make() -> Pair:
            ours = SslSocket(nursery, context=tls.client)
            await ours.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
            pair = ours, await server.accept()
            if watched:
                for sock in pair:
                    await nursery.start(listen_to, sock)
            return pair

        async def make_clogged() -> Pair:
            pair = await make()
            for sock in pair:
                await fill(sock)
            return pair

        await trio.testing.check_half_closeable_stream(make, make_clogged)
        nursery.cancel_scope.cancel()


async def listen_to(sock: SslSocket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    async with sock.events() as events:
        task_status.started()
        async for _ in events:
            pass


async def test_tls_over_memory_streams_is_a_trio_stream(tls: Contexts) -> None:
    """A stream that cannot be asked without waiting does below TLS too."""
    async with trio.open_nursery() as nursery:

        async def make() -> Pair:
            left, right = trio.testing.memory_stream_pair()
            return await encrypt(
                SslSocket.from_stream(left, nursery, context=tls.client),
                SslSocket.from_stream(right, nursery, context=tls.server),
            )

        await trio.testing.check_half_closeable_stream(make, None)
        nursery.cancel_scope.cancel()


async def test_a_server_over_a_stream_that_holds_nothing_waits_for_no_client_that_speaks_first(
    tls: Contexts, autojump_clock: trio.testing.MockClock
) -> None:
    """Its tickets go with its first bytes; to send them at once would wait for the client to read, and that for us."""
    question = bytes(1_000_000)
    got: list[bytes] = []
    async with trio.open_nursery() as nursery:
        left, right = trio.testing.lockstep_stream_pair()
        client = SslSocket.from_stream(left, nursery, context=tls.client, write_buffer_size=1000)
        server = SslSocket.from_stream(right, nursery, context=tls.server)

        @nursery.start_soon
        async def _() -> None:
            await server.start_server_encryption()
            got.append(await server.receive_exactly(len(question)))
            await server.send_all(b"answer\n")

        with trio.fail_after(60):
            await client.start_client_encryption(server_hostname=NAME)
            for half in question[:500_000], question[500_000:]:  # the second waits until the queue has room
                await client.send_all(half)
            got.append(await client.receive_line())
        nursery.cancel_scope.cancel()

    assert got == [question, b"answer\n"]


async def test_why_a_handshake_has_failed_is_told_over_a_stream_too(tls: Contexts) -> None:
    """By an alert, though a stream cannot be asked whether it takes one at once."""
    async with trio.open_nursery() as nursery:
        left, right = trio.testing.memory_stream_pair()
        client = SslSocket.from_stream(left, nursery, context=contexts(NAME).client)
        server = SslSocket.from_stream(right, nursery, context=tls.server)
        failures = await failures_of(client, server)

    assert failures == [
        "the peer does not trust who issued our certificate",
        "the peer's certificate is refused: unable to get local issuer certificate",
    ]


async def test_a_stream_that_does_not_take_it_holds_a_failed_handshake_up_for_a_second(
    tls: Contexts, autojump_clock: trio.testing.MockClock
) -> None:
    """The failure is told all the same."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = tls.server.wrap_bio(incoming, outgoing, server_side=True)
    left, right = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        client = SslSocket.from_stream(left, nursery, context=contexts(NAME).client)

        @nursery.start_soon
        async def _() -> None:
            incoming.write(bytes(await right.receive_some(65536)))
            with pytest.raises(ssl.SSLWantReadError):
                peer.do_handshake()
            await right.send_all(outgoing.read())

        began = trio.current_time()
        with pytest.raises(SocketError, match="unable to get local issuer certificate"):
            await client.start_client_encryption(server_hostname=NAME)
        took = trio.current_time() - began

    assert took == 1.0


@asynccontextmanager
async def tls_in_tls(tls: Contexts) -> AsyncIterator[Pair]:
    async with trio.open_nursery() as nursery:
        left, right = trio.testing.memory_stream_pair()
        below = await encrypt(
            SslSocket.from_stream(left, nursery, context=tls.client),
            SslSocket.from_stream(right, nursery, context=tls.server),
        )
        yield await encrypt(
            SslSocket.from_stream(below[0], nursery, context=tls.client),
            SslSocket.from_stream(below[1], nursery, context=tls.server),
        )
        nursery.cancel_scope.cancel()


@pytest.mark.once
async def test_tls_over_tls_is_a_trio_stream(network: Network, tls: Contexts) -> None:
    """trio finds nothing wrong with the inner one, half-close included, which leaves the outer one open."""
    async with SslServer(tls.server) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)

        async def make() -> Pair:
            ours = SslSocket(nursery, context=tls.client)
            await ours.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
            theirs = await server.accept()
            return await encrypt(
                SslSocket.from_stream(ours, nursery, context=tls.client),
                SslSocket.from_stream(theirs, nursery, context=tls.server),
            )

        async def make_clogged() -> Pair:
            pair = await make()
            for sock in pair:
                await fill(sock)
            return pair

        # How much two layers, a kernel and who watches have room for, only the simulated network says for good.
        await trio.testing.check_half_closeable_stream(make, make_clogged if isinstance(network, Virtual) else None)
        nursery.cancel_scope.cancel()


async def test_an_end_of_the_outer_tls_truncates_the_inner(tls: Contexts) -> None:
    """Its close_notify says nothing of what is within."""
    async with trio.open_nursery() as nursery:
        left, right = trio.testing.memory_stream_pair()
        below = await encrypt(
            SslSocket.from_stream(left, nursery, context=tls.client),
            SslSocket.from_stream(right, nursery, context=tls.server),
        )
        inner, other = await encrypt(
            SslSocket.from_stream(below[0], nursery, context=tls.client),
            SslSocket.from_stream(below[1], nursery, context=tls.server),
        )
        await other.send_all(b"half an ans")
        await other.wait_for_bytes_written()

        @nursery.start_soon
        async def _() -> None:
            with suppress(trio.ClosedResourceError):  # the abort below may come before its peer has answered
                await below[1].disconnect_from_host()

        got = await inner.receive_exactly(11)
        with pytest.raises(SocketError) as lost:
            await inner.receive_some()
        for sock in (inner, other):
            sock.abort()
        nursery.cancel_scope.cancel()

    assert (got, lost.value.kind) == (b"half an ans", ErrorKind.REMOTE_HOST_CLOSED)


async def test_tls_goes_over_tls(tls: Contexts) -> None:
    """Bytes both ways, and the ends of both layers in order."""
    async with tls_in_tls(tls) as (left, right), trio.open_nursery() as nursery:
        data = bytes(range(256)) * 2000
        nursery.start_soon(left.send_all, data)
        assert await right.receive_exactly(len(data)) == data
        await right.send_all(b"answer")
        assert await left.receive_exactly(6) == b"answer"
        nursery.start_soon(left.aclose)
        assert await right.receive_some() == b""
        await right.aclose()


@pytest.mark.parametrize("watched", [False, True])
async def test_the_read_buffer_limit_is_exact_over_tls(network: Network, tls: Contexts, watched: bool) -> None:
    """Whatever a record holds: not one byte more is read ahead.  It lifts when the limit does, and nothing is lost."""
    async with SslServer(tls.server) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        ours = SslSocket(nursery, context=tls.client, read_buffer_size=100)
        await ours.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
        theirs = await server.accept()
        if watched:
            await nursery.start(listen_to, ours)
        await theirs.send_all(bytes(1000))
        await until(lambda: ours.bytes_available() >= 100)
        await trio.testing.wait_all_tasks_blocked()
        limited = ours.bytes_available()
        ours.set_read_buffer_size(0)
        await until(lambda: ours.bytes_available() == 1000)

        assert limited == 100
        assert ours.read_all() == bytes(1000)
        ours.abort()
        nursery.cancel_scope.cancel()


# ---- over a simulated network --------------------------------------------------------------------


async def echo(sock: SslSocket) -> None:
    async for chunk in sock:
        await sock.send_all(chunk)


async def exchange(net: VirtualNetwork) -> tuple[bytes, float]:
    """A client on one host, an echo server on another; what came back, and when."""
    data = bytes(range(256)) * 400
    async with trio.open_nursery() as nursery:
        with net.host("server"):
            server = await nursery.start(serve_echo)
        with net.host("client"):
            async with SslSocket(context=RSA.client) as sock:
                await sock.connect_to_host_encrypted("server", server.server_port(), server_hostname=NAME)
                nursery.start_soon(sock.send_all, data)
                got = await sock.receive_exactly(len(data))
        nursery.cancel_scope.cancel()
    assert got == data
    return got, trio.current_time()


async def serve_echo(*, task_status: trio.TaskStatus[SslServer[SslSocket]] = trio.TASK_STATUS_IGNORED) -> None:
    async with SslServer(RSA.server) as server:
        await server.listen("server")
        await server.serve(echo, task_status=task_status)


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_tls_over_latency_and_loss_replays(loss: float) -> None:
    """The bytes are whole, and two runs with one seed take the same time to the last digit, whatever the keys."""

    async def main(net: VirtualNetwork) -> float:
        with net.host("client"), net.host("server"):
            net.set_link("client", "server", latency=0.05, loss=loss)
        return (await exchange(net))[1]

    first, second = (simulate(main, seed=7) for _ in range(2))

    assert first == second
    assert first >= 0.05 * 4  # TCP's handshake is one trip there and back, TLS's another


def test_a_handshake_across_a_partition_is_ended_by_its_limit() -> None:
    """At the server after ``handshake_timeout``; the client goes on until it is told to stop."""

    async def main(net: VirtualNetwork) -> tuple[ErrorKind, float, bool]:
        async with trio.open_nursery() as nursery:
            with net.host("server"):
                server = SslServer(RSA.server)
                await nursery.start(run, server)
            with net.host("client"):
                async with SslSocket(context=RSA.client) as sock:
                    await sock.connect_to_host("server", server.server_port())
                    began = trio.current_time()
                    with net.partition("client", "server"), trio.move_on_after(60) as scope:
                        await sock.start_client_encryption(server_hostname=NAME)
                    ended = errors[0]
            nursery.cancel_scope.cancel()
        return ended[0], ended[1] - began, scope.cancelled_caught

    errors: list[tuple[ErrorKind, float]] = []

    async def run(
        server: SslServer[SslSocket], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with server, server.events(ConnectionFinished) as events, trio.open_nursery() as nursery:
            await server.listen("server")
            await nursery.start(server.serve, echo)
            task_status.started()
            async for event in events:
                assert isinstance(event.error, SocketError)
                errors.append((event.error.kind, trio.current_time()))

    kind, after, cancelled = simulate(main, seed=1)

    assert (kind, round(after, 1), cancelled) == (ErrorKind.SOCKET_TIMEOUT, 5.0, True)
