"""Programs that have never heard of trioqt, on a simulated network: they run unchanged, and take the time they should.

Every link takes a quarter of a second one way, so a round trip is half a second, and a look-up takes an eighth.
All of these are sums of powers of two, so the times are exact.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
import attrs
import httpcore
import hypercorn
import hypercorn.trio
import pytest
import trio
import trio.testing
import trio_websocket
import trustme
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.tcp_server import TCPServer as HypercornConnection
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from tests.certificates import contexts
from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate
from trioqt.testing.network.fabric import Conditions

LATENCY = 0.25
LOOK_UP = 0.125
PORT = 4000

# 1 MB, which no compression and no accident makes shorter.
CONTENT = random.Random(1).randbytes(1_000_000)


# ---- how the scenarios run, and what they tell ----------------------------------------------------


@attrs.define
class Diary:
    """What happened, and how many seconds after the diary was begun."""

    entries: list[tuple[float, object]] = attrs.field(factory=list)
    _begun: float = attrs.field(factory=trio.current_time)

    def note(self, what: object) -> None:
        """It happened now."""
        self.entries.append((trio.current_time() - self._begun, what))


Entries = list[tuple[float, object]]
Scenario = Callable[[VirtualNetwork], Awaitable[Entries]]
SCENARIOS: list[Scenario] = []


def scenario(function: Scenario) -> Scenario:
    """It has a test of its own, and is replayed with all the others."""
    SCENARIOS.append(function)
    return function


async def told_by(function: Scenario) -> Entries:
    """What a scenario tells of a slow network on which nothing goes wrong."""
    async with VirtualNetwork(latency=LATENCY, name_latency=LOOK_UP) as net:
        with trio.fail_after(3600):
            return await function(net)


@contextlib.asynccontextmanager
async def served(net: VirtualNetwork, serve: Callable[..., Awaitable[Any]], *args: Any) -> AsyncIterator[trio.Nursery]:
    """While ``serve(*args)`` runs on the host "server", the block runs on "client"."""
    async with trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(serve, *args)
        with net.host("client"):
            yield nursery
        nursery.cancel_scope.cancel()


async def echo(stream: trio.abc.Stream) -> None:
    """What comes goes back, until the end."""
    async for data in stream:
        await stream.send_all(data)


async def all_of(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Exactly ``count`` bytes."""
    got = bytearray()
    while len(got) < count:
        data = await stream.receive_some(count - len(got))
        assert data, f"the stream ended after {len(got)} bytes"
        got += data
    return bytes(got)


@functools.cache
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """| of the client | of the server |

    The signature of an RSA certificate has one length; that of trustme's default, ECDSA, varies from one handshake to
    the next, and the trace with it.
    """
    made = contexts("server", key_type=trustme.KeyType.RSA)
    return made.client, made.server


# ---- trio itself ----------------------------------------------------------------------------------


@scenario
async def trio_over_tcp(net: VirtualNetwork) -> Entries:
    """trio.serve_tcp and trio.open_tcp_stream."""
    async with served(net, trio.serve_tcp, echo, PORT):
        diary = Diary()
        async with await trio.open_tcp_stream("server", PORT) as stream:
            diary.note("connected")
            await stream.send_all(b"hello")
            diary.note("sent")
            diary.note(await stream.receive_some())
            await stream.send_eof()
            diary.note(await stream.receive_some())
        return diary.entries


async def test_trio_connects_in_one_round_trip(autojump_clock: object) -> None:
    """A look-up, a round trip to connect, and one for each question; sending waits for nobody."""
    assert await told_by(trio_over_tcp) == [
        (0.625, "connected"),
        (0.625, "sent"),
        (1.125, b"hello"),
        (1.625, b""),
    ]


@scenario
async def trio_over_tls(net: VirtualNetwork) -> Entries:
    """trio.serve_ssl_over_tcp and trio.open_ssl_over_tcp_stream."""
    client, server = tls()
    async with served(net, trio.serve_ssl_over_tcp, echo, PORT, server):
        diary = Diary()
        async with await trio.open_ssl_over_tcp_stream("server", PORT, ssl_context=client) as stream:
            diary.note("connected")
            await stream.do_handshake()
            diary.note("encrypted")
            await stream.send_all(b"hello")
            diary.note(await stream.receive_some())
        diary.note("closed")
        return diary.entries


async def test_tls_takes_one_round_trip_more(autojump_clock: object) -> None:
    """TLS 1.3 shakes hands in one round trip; its goodbye waits for no answer."""
    assert await told_by(trio_over_tls) == [
        (0.625, "connected"),
        (1.125, "encrypted"),
        (1.625, b"hello"),
        (1.625, "closed"),
    ]


@scenario
async def trio_over_unix_sockets(net: VirtualNetwork) -> Entries:
    """trio.open_unix_socket, to a listener on the same host."""
    with net.host("server"), trio.socket.socket(socket.AF_UNIX) as listener:
        diary = Diary()
        await listener.bind("/run/echo")
        listener.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(listener)])
            async with await trio.open_unix_socket("/run/echo") as stream:
                await stream.send_all(b"hello")
                diary.note(await stream.receive_some())
                await stream.send_eof()
                diary.note(await stream.receive_some())
            with net.host("client"), pytest.raises(FileNotFoundError):
                await trio.open_unix_socket("/run/echo")
            nursery.cancel_scope.cancel()
    return diary.entries


async def test_a_unix_socket_is_reached_at_once_and_only_from_its_own_host(autojump_clock: object) -> None:
    """There is no link between two programs of one host, and no file: the name is the host's."""
    assert await told_by(trio_over_unix_sockets) == [(0.0, b"hello"), (0.0, b"")]
    with pytest.raises(FileNotFoundError):
        os.stat("/run/echo")


@scenario
async def datagrams(net: VirtualNetwork) -> Entries:
    """trio.socket with SOCK_DGRAM: a question by name, an answer to where it came from."""
    async with trio.open_nursery() as nursery:
        with net.host("server"), trio.socket.socket(type=socket.SOCK_DGRAM) as answering:
            await answering.bind(("10.0.0.2", PORT))

            async def answer() -> None:
                while True:
                    data, sender = await answering.recvfrom(1500)
                    await answering.sendto(data.upper(), sender)

            nursery.start_soon(answer)
            with net.host("client"), trio.socket.socket(type=socket.SOCK_DGRAM) as asking:
                diary = Diary()
                # Lost ones are asked again.
                while not diary.entries:
                    await asking.sendto(b"question", ("server", PORT))
                    with trio.move_on_after(5):
                        diary.note(await asking.recvfrom(1500))
            nursery.cancel_scope.cancel()
    return diary.entries


async def test_datagrams_take_a_round_trip(autojump_clock: object) -> None:
    """A look-up, there and back."""
    assert await told_by(datagrams) == [(0.625, (b"QUESTION", ("10.0.0.2", PORT)))]


# ---- other people's libraries ---------------------------------------------------------------------


@scenario
async def websocket(net: VirtualNetwork) -> Entries:
    """trio-websocket, server and client."""

    async def serve(*, task_status: trio.TaskStatus[object]) -> None:
        await trio_websocket.serve_websocket(answer, None, PORT, None, task_status=task_status)

    async def answer(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            while True:
                await connection.send_message(await connection.get_message())

    async with served(net, serve):
        diary = Diary()
        async with trio_websocket.open_websocket("server", PORT, "/", use_ssl=False) as connection:
            diary.note("open")
            await connection.send_message("hello")
            diary.note(await connection.get_message())
            await connection.send_message(CONTENT[:5000])
            diary.note(await connection.get_message() == CONTENT[:5000])
        diary.note("closed")
        return diary.entries


async def test_a_websocket_opens_and_closes_in_round_trips(autojump_clock: object) -> None:
    """Connect, upgrade, two questions, close: a round trip each."""
    assert await told_by(websocket) == [
        (1.125, "open"),
        (1.625, "hello"),
        (2.125, True),
        (2.625, "closed"),
    ]


async def web_application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answers a request with the SHA-256 of what was posted."""
    assert scope["type"] == "http"  # else hypercorn goes on without
    digest = hashlib.sha256()
    more = True
    while more:
        event: Any = await receive()
        digest.update(event["body"])
        more = event["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"64")]})
    await send({"type": "http.response.body", "body": digest.hexdigest().encode(), "more_body": False})


async def hypercorn_on(stream: Any) -> None:
    """Hypercorn's server for one connection."""
    config = hypercorn.Config()
    config.include_date_header = False
    await HypercornConnection(ASGIWrapper(web_application), config, WorkerContext(None), {}, stream)


async def hypercorn_with_its_own_sockets(config: hypercorn.Config, *, task_status: trio.TaskStatus[None]) -> None:
    """hypercorn.trio.serve, as its documentation has it."""
    task_status.started()
    await hypercorn.trio.serve(web_application, config)


async def fetch_twice(scheme: str) -> Entries:
    """Two requests to the host "server", by httpcore."""
    diary = Diary()
    async with httpcore.AsyncConnectionPool(ssl_context=tls()[0]) as pool:
        for content in (b"", CONTENT[:10_000]):
            response = await pool.request("POST", f"{scheme}://server:{PORT}/", content=content)
            diary.note((response.status, response.content == hashlib.sha256(content).hexdigest().encode()))
        diary.note(len(pool.connections))
    return diary.entries


@scenario
async def http(net: VirtualNetwork) -> Entries:
    """httpcore asks, hypercorn answers over trio's streams."""
    async with served(net, trio.serve_tcp, hypercorn_on, PORT):
        return await fetch_twice("http")


async def test_http_keeps_its_connection(autojump_clock: object) -> None:
    """Look-up, connect, first answer; the second comes over the same connection, in one round trip."""
    assert await told_by(http) == [(1.125, (200, True)), (1.625, (200, True)), (1.625, 1)]


@scenario
async def https(net: VirtualNetwork) -> Entries:
    """The same over TLS."""
    async with served(net, trio.serve_ssl_over_tcp, hypercorn_on, PORT, tls()[1]):
        return await fetch_twice("https")


async def test_https_takes_one_round_trip_more(autojump_clock: object) -> None:
    """TLS is laid over the connection once."""
    assert await told_by(https) == [(1.625, (200, True)), (2.125, (200, True)), (2.125, 1)]


@scenario
async def http_by_hypercorn(net: VirtualNetwork) -> Entries:
    """httpcore asks, and hypercorn has made its listener by itself, of a socket of the standard library's."""
    config = hypercorn.Config()
    config.bind = [f"0.0.0.0:{PORT}"]
    config.include_date_header = False
    config.errorlog = None
    async with served(net, hypercorn_with_its_own_sockets, config):
        await trio.testing.wait_all_tasks_blocked()
        return await fetch_twice("http")


async def test_hypercorn_serves_by_itself(autojump_clock: object) -> None:
    """It takes the same time as its connections do over trio's listeners."""
    assert await told_by(http_by_hypercorn) == await told_by(http)


class HttpSocket(TcpSocket):
    """One of our sockets, as hypercorn wants its streams: it asks ``stream.socket`` who is there."""

    __slots__ = ()

    family = socket.AF_INET

    @property
    def socket(self) -> HttpSocket:
        """The socket below; the two names that hypercorn calls are here."""
        return self

    def getsockname(self) -> tuple[str, int]:
        """As the kernel's call."""
        return str(self.local_address()), self.local_port()

    def getpeername(self) -> tuple[str, int]:
        """As the kernel's call."""
        return str(self.peer_address()), self.peer_port()


@scenario
async def http_over_ours(net: VirtualNetwork) -> Entries:
    """httpcore asks, hypercorn answers over the sockets that our server accepts."""

    async def serve(*, task_status: trio.TaskStatus[TcpServer[HttpSocket]]) -> None:
        async with TcpServer(HttpSocket) as server:
            await server.listen(port=PORT)
            await server.serve(hypercorn_on, task_status=task_status)

    async with served(net, serve):
        return await fetch_twice("http")


async def test_hypercorn_serves_over_our_sockets(autojump_clock: object) -> None:
    """Its server for one connection takes any stream, and costs the same time."""
    assert await told_by(http_over_ours) == await told_by(http)


@scenario
async def anyio_client(net: VirtualNetwork) -> Entries:
    """anyio.connect_tcp, on its trio backend."""
    async with served(net, trio.serve_tcp, echo, PORT):
        diary = Diary()
        async with await anyio.connect_tcp("server", PORT) as stream:
            diary.note("connected")
            await stream.send(b"hello")
            diary.note(await stream.receive())
            await stream.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
            diary.note("end")
        return diary.entries


async def test_anyio_connects_in_one_round_trip(autojump_clock: object) -> None:
    """A look-up, a round trip to connect, one for the answer, one for the end."""
    assert await told_by(anyio_client) == [(0.625, "connected"), (1.125, b"hello"), (1.625, "end")]


@scenario
async def anyio_datagrams(net: VirtualNetwork) -> Entries:
    """anyio's UDP sockets, on its trio backend."""

    async def answer(*, task_status: trio.TaskStatus[None]) -> None:
        async with await anyio.create_udp_socket(socket.AF_INET, local_host="0.0.0.0", local_port=PORT) as sock:
            task_status.started()
            async for data, (host, port) in sock:
                await sock.sendto(data.upper(), host, port)

    async with served(net, answer):
        diary = Diary()
        async with await anyio.create_connected_udp_socket("server", PORT) as sock:
            while not diary.entries:
                await sock.send(b"question")
                with trio.move_on_after(5):
                    diary.note(await sock.receive())
        return diary.entries


async def test_datagrams_of_anyio_take_a_round_trip(autojump_clock: object) -> None:
    """Its UDP sockets begin as trio's, so both ends are on the simulated network."""
    assert await told_by(anyio_datagrams) == [(0.625, b"QUESTION")]


@scenario
async def anyio_server(net: VirtualNetwork) -> Entries:
    """anyio.create_tcp_listener makes its listeners of sockets of the standard library's."""

    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            asked_from = stream.extra(anyio.abc.SocketAttribute.remote_address)[0]
            async for data in stream:
                await stream.send(data + str(asked_from).encode())

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        async with await anyio.create_tcp_listener(local_host="0.0.0.0", local_port=PORT) as listener:
            task_status.started()
            await listener.serve(answer)

    async with served(net, serve):
        diary = Diary()
        async with await anyio.connect_tcp("server", PORT) as stream:
            diary.note("connected")
            await stream.send(b"I am ")
            diary.note(await stream.receive())
            diary.note(stream.extra(anyio.abc.SocketAttribute.remote_address))
        return diary.entries


async def test_listeners_of_anyio_are_on_the_network(autojump_clock: object) -> None:
    """A look-up, a round trip to connect, one for the answer; what it says of its sockets is of the network too."""
    assert await told_by(anyio_server) == [
        (0.625, "connected"),
        (1.125, b"I am 10.0.0.3"),
        (1.125, ("10.0.0.2", PORT)),
    ]


# ---- ours -----------------------------------------------------------------------------------------


async def ask(diary: Diary, stream: trio.abc.HalfCloseableStream) -> None:
    """One question, and both ends."""
    async with stream:
        diary.note("connected")
        await stream.send_all(b"hello")
        diary.note(await stream.receive_some())
        await stream.send_eof()
        diary.note(await stream.receive_some())


async def serve_echo(*, task_status: trio.TaskStatus[TcpServer[TcpSocket]]) -> None:
    """An echo server of ours."""
    async with TcpServer() as server:
        await server.listen(port=PORT)
        await server.serve(echo, task_status=task_status)


@scenario
async def ours_to_ours(net: VirtualNetwork) -> Entries:
    """TcpServer and TcpSocket."""
    async with served(net, serve_echo):
        diary = Diary()
        async with TcpSocket() as sock:
            await sock.connect_to_host("server", PORT)
            await ask(diary, sock)
        return diary.entries


@scenario
async def trio_to_ours(net: VirtualNetwork) -> Entries:
    """TcpServer, asked by trio."""
    async with served(net, serve_echo):
        diary = Diary()
        await ask(diary, await trio.open_tcp_stream("server", PORT))
        return diary.entries


@scenario
async def ours_to_trio(net: VirtualNetwork) -> Entries:
    """trio.serve_tcp, asked by a TcpSocket."""
    async with served(net, trio.serve_tcp, echo, PORT):
        diary = Diary()
        async with TcpSocket() as sock:
            await sock.connect_to_host("server", PORT)
            await ask(diary, sock)
        return diary.entries


@pytest.mark.parametrize("function", [ours_to_ours, trio_to_ours, ours_to_trio])
async def test_our_sockets_take_the_same_time(function: Scenario, autojump_clock: object) -> None:
    """With each other, and with trio's at either end."""
    assert await told_by(function) == [(0.625, "connected"), (1.125, b"hello"), (1.625, b"")]


# ---- over a bad network ---------------------------------------------------------------------------

BAD = Conditions(latency=LATENCY, jitter=0.125, loss=0.02)


def told_of(net: VirtualNetwork, kind: str) -> int:
    """How many events of this kind the trace has."""
    return sum(event.kind == kind for event in net.trace())


@scenario
async def megabyte_over_tls(net: VirtualNetwork) -> Entries:
    """1 MB through TLS and back; for five seconds the hosts are cut off from each other."""
    client, server = tls()

    async def cut() -> None:
        await trio.sleep(2)
        with net.partition("client", "server"):
            await trio.sleep(5)

    async with served(net, trio.serve_ssl_over_tcp, echo, PORT, server) as nursery:
        diary = Diary()
        async with await trio.open_ssl_over_tcp_stream("server", PORT, ssl_context=client) as stream:
            nursery.start_soon(cut)
            async with trio.open_nursery() as sending:
                sending.start_soon(stream.send_all, CONTENT)
                answer = await all_of(stream, len(CONTENT))
            diary.note(hashlib.sha256(answer).hexdigest())
        return diary.entries


async def test_no_byte_is_lost_over_a_network_that_loses(autojump_clock: object) -> None:
    """Jitter, loss and a partition cost time, and nothing else."""
    async with VirtualNetwork(conditions=BAD, seed=1) as net:
        [(seconds, digest)] = await megabyte_over_tls(net)
    [begin] = [event.time for event in net.trace() if event.kind == "fault"]
    [end] = [event.time for event in net.trace() if event.kind == "heal"]
    losses = [event.time for event in net.trace() if event.kind == "lost"]
    by_the_partition = [time for time in losses if begin <= time <= end]

    assert digest == hashlib.sha256(CONTENT).hexdigest()
    assert end - begin == 5
    assert 0 < len(by_the_partition) < len(losses)
    assert not [event for event in net.trace() if event.kind == "DATA" and begin < event.time <= end]
    assert seconds > 5


# ---- back-pressure --------------------------------------------------------------------------------


@scenario
async def peer_that_does_not_read(net: VirtualNetwork) -> Entries:
    """A server that accepts and then sleeps; what its client gets rid of in a minute."""

    async def sleep(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with served(net, trio.serve_tcp, sleep, PORT):
        diary = Diary()
        async with await trio.open_tcp_stream("server", PORT) as stream:
            with trio.move_on_after(60) as scope:
                await stream.send_all(bytes(10_000_000))
            diary.note(scope.cancelled_caught)
        return diary.entries


async def test_a_peer_that_does_not_read_stops_its_sender(autojump_clock: object) -> None:
    """send_all waits while the other end's buffer is full, and its time-out is one of the mock clock."""
    async with VirtualNetwork(latency=LATENCY, name_latency=LOOK_UP) as net:
        entries = await peer_that_does_not_read(net)
    arrived = sum(event.size for event in net.trace() if event.kind == "DATA")

    assert entries == [(60.625, True)]
    # As much as the receive buffer of a simulated socket holds.
    assert arrived == 65536


# ---- the same again -------------------------------------------------------------------------------


def digest_of(function: Scenario, seed: int) -> str:
    """The network's digest after a run of its own."""

    async def main(net: VirtualNetwork) -> str:
        with trio.fail_after(3600):
            await function(net)
        return net.digest()

    def network(seed: int) -> VirtualNetwork:
        return VirtualNetwork(conditions=BAD, name_latency=LOOK_UP, seed=seed)

    # Not on a network alone: what a WebSocket masks its frames with is drawn by chance.
    return simulate(main, seed=seed, network=network)


@pytest.mark.parametrize("function", SCENARIOS, ids=lambda function: function.__name__)
def test_a_seed_repeats_all_that_happens(function: Scenario) -> None:
    """Over a bad network, every program of this file gives one digest for one seed."""
    assert digest_of(function, 1) == digest_of(function, 1)


# ---- what goes past the hooks ---------------------------------------------------------------------


def is_real(sock: trio.socket.SocketType) -> bool:
    """Does the kernel know it?  The descriptors of simulated sockets are numbers that the kernel has not given out."""
    try:
        return stat.S_ISSOCK(os.fstat(sock.fileno()).st_mode)
    except OSError:  # EBADF
        return False


async def test_socketpair_is_real(autojump_clock: object) -> None:
    """trio.socket.socketpair asks no factory: its two ends are the kernel's, and no host has them."""
    async with VirtualNetwork() as net:
        left, right = trio.socket.socketpair()
        with left, right, trio.socket.socket() as simulated:
            await left.send(b"past the network")
            told = await right.recv(100)
            real = [is_real(sock) for sock in (left, right, simulated)]

    assert told == b"past the network"
    assert real == [True, True, False]
    assert net.trace() == []


async def test_a_socket_made_of_one_of_the_kernels_is_real(autojump_clock: object) -> None:
    """trio.socket.from_stdlib_socket of a socket from elsewhere: one half of a pair, what systemd or a parent gives."""
    async with VirtualNetwork() as net:
        stdlib_left, stdlib_right = socket.socketpair()
        stdlib_left.setblocking(False)
        with trio.socket.from_stdlib_socket(stdlib_left) as left, stdlib_right:
            await left.send(b"past the network")
            told = stdlib_right.recv(100)
            real = is_real(left)

    assert told == b"past the network"
    assert real
    assert net.trace() == []
