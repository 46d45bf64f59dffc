"""Raw trio: what a careful programmer writes on SocketStream, and on trio.socket for datagrams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from benchmarks.speed.peers.common import BACKLOG, BLOCK, CHUNK, REQUEST, Counted, Held, Task, check_answer, ready


async def echo(stream: trio.abc.Stream) -> None:
    while data := await stream.receive_some(CHUNK):
        await stream.send_all(data)


async def lines(stream: trio.abc.Stream) -> None:
    rest = b""
    while data := await stream.receive_some(CHUNK):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            await stream.send_all(line + b"\n")


async def send(stream: trio.abc.Stream) -> None:
    while True:
        await stream.send_all(BLOCK)


async def receive(stream: trio.abc.Stream) -> None:
    counted = Counted()
    while data := await stream.receive_some(CHUNK):
        if told := counted.add(len(data)):
            await stream.send_all(told)


async def idle(stream: trio.abc.Stream) -> None:
    Held.count += 1
    await stream.receive_some(CHUNK)
    Held.count -= 1


def serve(handler: Callable[[trio.abc.Stream], Awaitable[None]], task: Task) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        # The generator may end with a reset; serve_tcp closes the stream.
        try:
            await handler(stream)
        except trio.BrokenResourceError:
            pass

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1", backlog=BACKLOG))
            ready(listeners[0].socket.getsockname()[1])

    trio.run(main)


def serve_tls(handler: Callable[[trio.abc.Stream], Awaitable[None]], task: Task) -> None:
    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await handler(stream)
        except trio.BrokenResourceError:
            pass

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_ssl_over_tcp, handle, 0, task.tls(), host="127.0.0.1", backlog=BACKLOG)
            listeners = await nursery.start(serve)
            ready(listeners[0].transport_listener.socket.getsockname()[1])

    trio.run(main)


def ask(task: Task) -> None:
    async def client() -> None:
        while True:
            async with await trio.open_tcp_stream("127.0.0.1", task.port) as stream:
                await stream.send_all(REQUEST)
                answer = b""
                while len(answer) < len(REQUEST) and (data := await stream.receive_some(CHUNK)):
                    answer += data
                check_answer(answer)

    async def main() -> None:
        ready()
        async with trio.open_nursery() as nursery:
            for _ in range(task.clients):
                nursery.start_soon(client)

    trio.run(main)


def datagrams(task: Task) -> None:
    async def main() -> None:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            ready(sock.getsockname()[1])
            while True:
                data, address = await sock.recvfrom(CHUNK)
                await sock.sendto(data, address)

    trio.run(main)


MODES: dict[str, dict[str, Callable[[Task], None]]] = {
    "trio": {
        "echo": partial(serve, echo),
        "lines": partial(serve, lines),
        "accept": partial(serve, echo),
        "client": ask,
        "send": partial(serve, send),
        "receive": partial(serve, receive),
        "idle": partial(serve, idle),
        "datagrams": datagrams,
        "tls-echo": partial(serve_tls, echo),
        "tls-accept": partial(serve_tls, echo),
        "tls-send": partial(serve_tls, send),
        "tls-receive": partial(serve_tls, receive),
        "tls-idle": partial(serve_tls, idle),
    }
}
