"""trioqt: what its documentation teaches, each way that there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

import trioqt  # an older one, beside which this is measured, has not all of it
from benchmarks.speed.peers import trio_peer
from benchmarks.speed.peers.common import BACKLOG, BLOCK, REQUEST, Counted, Held, Task, check_answer, ready
from trioqt import TcpServer, TcpSocket


async def put(sock: TcpSocket, data: bytes) -> None:
    """What a handler does whose ``write`` found the queue full."""
    await sock.wait_send_all_might_not_block()
    sock.write(data)


async def echo_write(sock: TcpSocket) -> None:
    while data := await sock.receive_some():
        try:
            sock.write(data)
        except trio.WouldBlock:
            await put(sock, data)


async def echo_send_all(sock: TcpSocket) -> None:
    while data := await sock.receive_some():
        await sock.send_all(data)


async def echo_qt(sock: TcpSocket) -> None:
    while await sock.wait_for_ready_read():
        data = sock.read_all()
        try:
            sock.write(data)
        except trio.WouldBlock:
            await put(sock, data)


async def lines_write(sock: TcpSocket) -> None:
    async for line in sock.lines():
        try:
            sock.write(line)
        except trio.WouldBlock:
            await put(sock, line)


async def lines_send_all(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(line)


async def lines_qt(sock: TcpSocket) -> None:
    while await sock.wait_for_ready_read():
        while sock.can_read_line():
            line = sock.read_line()
            try:
                sock.write(line)
            except trio.WouldBlock:
                await put(sock, line)


async def send_write(sock: TcpSocket) -> None:
    while True:
        try:
            sock.write(BLOCK)
        except trio.WouldBlock:
            await sock.wait_send_all_might_not_block()


async def send_send_all(sock: TcpSocket) -> None:
    while True:
        await sock.send_all(BLOCK)


async def receive_some(sock: TcpSocket) -> None:
    counted = Counted()
    while data := await sock.receive_some():
        if told := counted.add(len(data)):
            await sock.send_all(told)


async def receive_qt(sock: TcpSocket) -> None:
    counted = Counted()
    while await sock.wait_for_ready_read():
        if told := counted.add(len(sock.read_all())):
            await sock.send_all(told)


async def idle(sock: TcpSocket) -> None:
    Held.count += 1
    await sock.receive_some()
    Held.count -= 1


def followed_by(subscribers: int) -> Callable[[TcpSocket], Awaitable[None]]:
    """The echo, with so many tasks beside that follow all events of the socket."""

    async def follow(sock: TcpSocket, *, task_status: trio.TaskStatus[None]) -> None:
        async with sock.events() as events:
            task_status.started()
            async for _ in events:
                pass

    async def handler(sock: TcpSocket) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(subscribers):
                await nursery.start(partial(follow, sock))
            await echo_write(sock)
            nursery.cancel_scope.cancel()

    return handler if subscribers else echo_write


def serve(handler: Callable[[TcpSocket], Awaitable[None]], task: Task) -> None:
    async def main() -> None:
        async with TcpServer() as server:
            await server.listen("127.0.0.1", backlog=BACKLOG)
            ready(server.server_port())
            await server.serve(handler)

    trio.run(main)


def serve_tls(handler: Callable[[TcpSocket], Awaitable[None]], task: Task) -> None:
    async def main() -> None:
        async with trioqt.SslServer(task.tls(), max_handshakes=None) as server:
            await server.listen("127.0.0.1", backlog=BACKLOG)
            ready(server.server_port())
            await server.serve(handler)

    trio.run(main)


def serve_ssl_stream(handler: Callable[[trio.abc.Stream], Awaitable[None]], task: Task) -> None:
    """A socket is a trio stream, and trio's TLS goes over any."""
    context = task.tls()

    async def talk(sock: TcpSocket) -> None:
        stream = trio.SSLStream(sock, context, server_side=True)
        try:
            await handler(stream)
            await stream.aclose()
        except trio.BrokenResourceError:
            pass

    serve(talk, task)


async def answer_datagrams(sock: trioqt.UdpSocket) -> None:
    async for datagram in sock:
        sock.write_datagram(datagram.make_reply(datagram.data))


async def answer_datagrams_qt(sock: trioqt.UdpSocket) -> None:
    while await sock.wait_for_ready_read():
        while (datagram := sock.read_datagram()) is not None:
            sock.write_datagram(datagram.make_reply(datagram.data))


def datagrams(answer: Callable[[trioqt.UdpSocket], Awaitable[None]], task: Task) -> None:
    async def main() -> None:
        async with trioqt.UdpSocket() as sock:
            await sock.bind("127.0.0.1")
            ready(sock.local_port())
            await answer(sock)

    trio.run(main)


def ask(task: Task) -> None:
    async def client() -> None:
        while True:
            async with TcpSocket() as sock:
                await sock.connect_to_host("127.0.0.1", task.port)
                sock.write(REQUEST)
                check_answer(await sock.receive_exactly(len(REQUEST)))

    async def main() -> None:
        ready()
        async with trio.open_nursery() as nursery:
            for _ in range(task.clients):
                nursery.start_soon(client)

    trio.run(main)


MODES: dict[str, dict[str, Callable[[Task], None]]] = {
    "trioqt": {
        "accept": partial(serve, echo_write),
        "client": ask,
        "idle": partial(serve, idle),
        "datagrams": partial(datagrams, answer_datagrams),
        "tls-accept": partial(serve_tls, echo_write),
        "tls-idle": partial(serve_tls, idle),
    },
    "trioqt-write": {
        "echo": partial(serve, echo_write),
        "lines": partial(serve, lines_write),
        "send": partial(serve, send_write),
        "tls-echo": partial(serve_tls, echo_write),
        "tls-send": partial(serve_tls, send_write),
    },
    "trioqt-send_all": {
        "echo": partial(serve, echo_send_all),
        "lines": partial(serve, lines_send_all),
        "send": partial(serve, send_send_all),
        "tls-echo": partial(serve_tls, echo_send_all),
        "tls-send": partial(serve_tls, send_send_all),
    },
    "trioqt-receive_some": {
        "receive": partial(serve, receive_some),
        "tls-receive": partial(serve_tls, receive_some),
    },
    "trioqt-qt": {
        "echo": partial(serve, echo_qt),
        "lines": partial(serve, lines_qt),
        "receive": partial(serve, receive_qt),
        "datagrams": partial(datagrams, answer_datagrams_qt),
    },
    "trioqt-ssl_stream": {
        "tls-echo": partial(serve_ssl_stream, trio_peer.echo),
        "tls-accept": partial(serve_ssl_stream, trio_peer.echo),
        "tls-send": partial(serve_ssl_stream, trio_peer.send),
        "tls-receive": partial(serve_ssl_stream, trio_peer.receive),
        "tls-idle": partial(serve_ssl_stream, trio_peer.idle),
    },
    "trioqt-nobody": {"echo": partial(serve, followed_by(0))},
    "trioqt-one": {"echo": partial(serve, followed_by(1))},
    "trioqt-ten": {"echo": partial(serve, followed_by(10))},
}
